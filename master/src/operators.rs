//! Between an operator and the master that leads.
//!
//! Pure. What an operator asks for is answered once it is durable.

use meseta_protocol::AgentId;
use meseta_runtime::{Ask, Message};
use serde::{Deserialize, Serialize};

/// The wire names of these messages.
pub const NAMES: &[&str] = &[MarkAgentGone::NAME, AgentMarkedGone::NAME];

/// Operator → master: this agent will never come back. Its tasks are over for their frameworks, and if it does come back it
/// is told to end everything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MarkAgentGone {
    /// Which.
    pub agent_id: AgentId,
}

impl Message for MarkAgentGone {
    const NAME: &'static str = "meseta.master.MarkAgentGone";
    const SENDERS: &'static [&'static str] = &["operator"];
}

impl Ask for MarkAgentGone {
    type Reply = AgentMarkedGone;
}

/// Master → operator: how [`MarkAgentGone`] went.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AgentMarkedGone {
    /// Why the agent is not marked; none when it is, or was before.
    #[serde(default)]
    pub refused: Option<String>,
}

impl Message for AgentMarkedGone {
    const NAME: &'static str = "meseta.master.AgentMarkedGone";
    const SENDERS: &'static [&'static str] = &["master"];
}
