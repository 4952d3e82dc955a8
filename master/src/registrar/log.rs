//! What the registrar asks of the replicated log.
//!
//! Pure: plain data.

use bytes::Bytes;
use meseta_runtime::{Ask, Message};
use serde::{Deserialize, Serialize};

macro_rules! asks {
    ($($ask:ident -> $reply:ident),*) => { $(
        impl Message for $ask {
            const NAME: &'static str = concat!("meseta.registrar.", stringify!($ask));
            const SENDERS: &'static [&'static str] = crate::OWN_NODE;
        }
        impl Message for $reply {
            const NAME: &'static str = concat!("meseta.registrar.", stringify!($reply));
            const SENDERS: &'static [&'static str] = crate::OWN_NODE;
        }
        impl Ask for $ask {
            type Reply = $reply;
        }
    )* };
}

asks!(AppendEntry -> Appended, TruncateEntries -> Truncated, ReadEntries -> EntriesRead);

/// Registrar → coordinator: write this.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AppendEntry {
    /// The entry.
    pub bytes: Bytes,
}

/// Coordinator → registrar.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Appended {
    /// Where it is durable; none when another coordinator writes now.
    pub position: Option<u64>,
}

/// Registrar → coordinator: forget what is before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TruncateEntries {
    /// First position that stays.
    pub to: u64,
}

/// Coordinator → registrar.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Truncated {
    /// False when another coordinator writes now.
    pub done: bool,
}

/// Registrar → replica: all entries from the beginning to the end. The coordinator was elected before, so none of them is
/// open.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReadEntries {}

/// Replica → registrar.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EntriesRead {
    /// Positions and bytes of entries, or why they cannot be read.
    pub entries: Result<Vec<(u64, Bytes)>, String>,
}
