//! What the log holds at each position: an action, with the proposals that promised and wrote it.
//!
//! Pure: plain values. An action goes through three stages, never back:
//!
//! ```text
//!   promised ──write──▶ performed by a proposal ──quorum──▶ learned
//!   (no value)          (may be overwritten by a higher     (final)
//!                        proposal with the chosen value)
//! ```

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A place in the log. 0 is never written by anybody: an empty log begins and ends there.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// The position behind this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The position so many places behind this one.
    #[must_use]
    pub fn plus(self, places: usize) -> Self {
        Self(self.0.saturating_add(places as u64))
    }

    /// The position before this one; 0 has none and stays.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of an attempt to write. Higher ones win; 0 is nobody's. The number with which a coordinator was elected is
/// the leader epoch.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Proposal(pub u64);

impl Proposal {
    /// The lowest proposal above this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a position says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "WireValue", into = "WireValue")]
pub enum Value {
    /// Nothing. It fills a position that nobody has written.
    Nop {
        /// Says that everything up to and with this position has been truncated away.
        tombstone: bool,
    },
    /// An entry of the log's user.
    Append {
        /// The entry.
        bytes: Bytes,
    },
    /// Everything before `to` is of no use any more.
    Truncate {
        /// First position that stays; at most the position of this action.
        to: Position,
    },
    /// A kind that a later version has made. It is kept and passed on as it came, and never read.
    Unknown {
        /// Its number on the wire.
        kind: u8,
        /// Its content.
        body: Bytes,
    },
}

impl Value {
    /// Bytes of its content.
    pub fn size(&self) -> usize {
        match self {
            Self::Append { bytes } => bytes.len(),
            Self::Unknown { body, .. } => body.len(),
            Self::Nop { .. } | Self::Truncate { .. } => 0,
        }
    }
}

const NOP: u8 = 1;
const APPEND: u8 = 2;
const TRUNCATE: u8 = 3;
const TOMBSTONE: u8 = 4;

/// Form of a [`Value`] on the wire and on disk: a number for the kind, so that later kinds can be carried unread.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct WireValue {
    pub(crate) kind: u8,
    #[serde(default, skip_serializing_if = "Bytes::is_empty")]
    pub(crate) body: Bytes,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) to: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl From<WireValue> for Value {
    fn from(wire: WireValue) -> Self {
        match wire.kind {
            NOP => Self::Nop { tombstone: false },
            TOMBSTONE => Self::Nop { tombstone: true },
            APPEND => Self::Append { bytes: wire.body },
            TRUNCATE => Self::Truncate {
                to: Position(wire.to),
            },
            kind => Self::Unknown {
                kind,
                body: wire.body,
            },
        }
    }
}

impl From<Value> for WireValue {
    fn from(value: Value) -> Self {
        let (kind, body, to) = match value {
            Value::Nop { tombstone: false } => (NOP, Bytes::new(), 0),
            Value::Nop { tombstone: true } => (TOMBSTONE, Bytes::new(), 0),
            Value::Append { bytes } => (APPEND, bytes, 0),
            Value::Truncate { to } => (TRUNCATE, Bytes::new(), to.0),
            Value::Unknown { kind, body } => (kind, body, 0),
        };
        Self { kind, body, to }
    }
}

/// A value and the proposal that wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Performed {
    /// Who wrote it.
    pub by: Proposal,
    /// What.
    pub value: Value,
}

/// The record of one position.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Action {
    /// Where.
    pub position: Position,
    /// Highest proposal promised for this position: no lower one may write here.
    pub promised: Proposal,
    /// What has been written here, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub performed: Option<Performed>,
    /// Whether the value is known to be chosen: it never changes again.
    #[serde(default)]
    pub learned: bool,
}

impl Action {
    /// A record that only promises.
    pub fn promise(position: Position, promised: Proposal) -> Self {
        Self {
            position,
            promised,
            performed: None,
            learned: false,
        }
    }

    /// A chosen value, as a proposer announces it.
    pub fn learned(position: Position, by: Proposal, value: Value) -> Self {
        Self {
            position,
            promised: by,
            performed: Some(Performed { by, value }),
            learned: true,
        }
    }

    /// What stands for a position that has been truncated away.
    pub fn tombstone(position: Position) -> Self {
        Self::learned(position, Proposal(0), Value::Nop { tombstone: true })
    }

    /// The value, if one was written.
    pub fn value(&self) -> Option<&Value> {
        self.performed.as_ref().map(|performed| &performed.value)
    }

    /// The first position that is left once this action is learned: behind a tombstone, or where a truncation says.
    /// A truncation never reaches beyond itself.
    pub fn begin_after(&self) -> Option<Position> {
        match self.value()? {
            Value::Nop { tombstone: true } => Some(self.position.next()),
            Value::Truncate { to } => Some((*to).min(self.position)),
            Value::Nop { tombstone: false } | Value::Append { .. } | Value::Unknown { .. } => None,
        }
    }
}
