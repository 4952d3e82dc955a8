//! What the user of the log asks of the replica and the coordinator of its own node.
//!
//! Pure: plain data. No other node may send any of it.
//!
//! ```text
//!   user ──Elect──▶ coordinator ──▶ Election: Elected{epoch, ending} or why not
//!        ──Append, Truncate──▶      Writing: where, or why not
//!        ◀──Demoted──               the leadership is over (also when nothing is being written)
//!   user ──ReadLog──▶ replica ──▶   LogRead: entries of a range that is learned here
//! ```

use bytes::Bytes;
use meseta_runtime::{Ask, Message, OWN_NODE};
use serde::{Deserialize, Serialize};

use super::action::{Position, Proposal};
use super::messages::Span;

/// User → coordinator: try once to become the writer. Whoever asked is told of the end with [`Demoted`]; when the user
/// ends, the leadership does. Asked again by the same user, it gives up what it has and starts over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Elect {}

/// How an attempt to be elected ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Election {
    /// This coordinator is the writer, and the replica of this node has learned all up to `ending`.
    Elected {
        /// The leader epoch.
        epoch: Proposal,
        /// Last position of the log as it was found.
        ending: Position,
    },
    /// Not this time; try again after a while.
    NotElected {
        /// Why, in words.
        reason: String,
    },
}

/// User → coordinator: append an entry.
///
/// Entries stand in the order in which they were asked for. Of several that have not been answered when a leadership ends,
/// any may turn out to be in the log, a later one also without an earlier: whoever builds an entry on another, or on a
/// truncation, waits for its answer first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Append {
    /// The entry.
    pub bytes: Bytes,
}

/// User → coordinator: everything before `to` is of no use any more.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Truncate {
    /// First position that stays.
    pub to: Position,
}

/// How a write ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Writing {
    /// A quorum has it on disk.
    Written {
        /// Where it stands.
        position: Position,
    },
    /// The leadership has ended meanwhile. Whether the entry will be in the log is open.
    Demoted,
    /// It was not begun.
    Refused {
        /// Why, in words.
        reason: String,
    },
}

/// Coordinator → user: the leadership is over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Demoted {}

/// User → replica: entries of this range.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReadLog {
    /// Which.
    pub span: Span,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogRead {
    /// Entries with their positions, in order. Positions without an entry are left out.
    Entries {
        /// The entries.
        entries: Vec<(Position, Bytes)>,
        /// Where to go on, when the answer was cut off by its size.
        next: Option<Position>,
    },
    /// Not all of the range can be read here and now.
    Unreadable {
        /// Why, in words.
        reason: String,
    },
}

/// Gives each kind its name.
macro_rules! local {
    ($($kind:ident),* $(,)?) => {
        $(impl Message for $kind {
            const NAME: &'static str = concat!("meseta.log.", stringify!($kind));
            const SENDERS: &'static [&'static str] = OWN_NODE;
        })*
    };
}

local!(
    Elect, Election, Append, Truncate, Writing, Demoted, ReadLog, LogRead
);

impl Ask for Elect {
    type Reply = Election;
}

impl Ask for Append {
    type Reply = Writing;
}

impl Ask for Truncate {
    type Reply = Writing;
}

impl Ask for ReadLog {
    type Reply = LogRead;
}
