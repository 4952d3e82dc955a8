//! Whoever wants to know which master leads ↔ the process [`ELECTION`] of any master.
//!
//! Pure.

use meseta_runtime::Pid;
use serde::{Deserialize, Serialize};

use crate::agent::MasterInfo;

/// Id of the process of a master that knows who leads.
pub const ELECTION: &str = "election(1)";

/// Anybody → election: tell me who leads, now and whenever it changes, as long as I live. Link to the election to know
/// when to ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Detect {}

/// Election → whoever asked with [`Detect`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Leader {
    /// The highest leadership this master has heard of; 0 before the first.
    pub epoch: u64,
    /// Who leads under it; none when that is not known, or the leader is not ready.
    #[serde(default)]
    pub leader: Option<Pid>,
    /// The leader as it describes itself, if that is known.
    #[serde(default)]
    pub info: Option<MasterInfo>,
}
