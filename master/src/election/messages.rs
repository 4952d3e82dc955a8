//! What the masters of a cluster say to each other about who leads, and what the parts of one master say about it.
//!
//! Pure: plain data. Between nodes only masters may send these; what has [`OWN_NODE`] as its senders never leaves a
//! node. What agents, schedulers and operators hear of leaders is in [`meseta_protocol::messages::election`].

use meseta_protocol::agent::MasterInfo;
use meseta_runtime::{Message, OWN_NODE, Time};
use serde::{Deserialize, Serialize};

/// Who may say what is said between masters.
const MASTERS: &[&str] = &["master"];

/// The elected master → the other masters, every 50 ms: I am here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Number of its leadership.
    pub epoch: u64,
    /// When it was sent, on the sender's clock; the answer repeats it.
    pub sent: Time,
    /// The leader; none as long as it recovers and nobody may follow it yet.
    pub leader: Option<Box<MasterInfo>>,
}

/// Answer to a [`Heartbeat`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAck {
    /// The highest leadership this member has heard of. One above the heartbeat's says that the sender leads no more.
    pub epoch: u64,
    /// As in the heartbeat.
    pub sent: Time,
}

/// A master that hears no leader → the others: would you want an election?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreVote {
    /// Number of the question; the answer repeats it.
    pub round: u64,
    /// The highest leadership the sender has heard of.
    pub epoch: u64,
}

/// Answer to a [`PreVote`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreVoteAnswer {
    /// As in the question.
    pub round: u64,
    /// Whether this member hears no leader either.
    pub granted: bool,
    /// The highest leadership this member has heard of.
    pub epoch: u64,
}

/// Master → election of the same node: I am up and could lead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contend {
    /// The master.
    pub info: MasterInfo,
}

/// Election → master of the same node: you are elected. Recover, then say [`Recovered`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elected {
    /// Number of the leadership.
    pub epoch: u64,
}

/// Master → election of the same node: what I know is complete and written down under this leadership; I may be
/// followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// Number of the leadership.
    pub epoch: u64,
}

macro_rules! messages {
    ($( $message:ident from $senders:expr; )*) => { $(
        impl Message for $message {
            const NAME: &'static str = concat!("meseta.election.", stringify!($message));
            const SENDERS: &'static [&'static str] = $senders;
        }
    )* };
}

messages! {
    Heartbeat from MASTERS;
    HeartbeatAck from MASTERS;
    PreVote from MASTERS;
    PreVoteAnswer from MASTERS;
    Contend from OWN_NODE;
    Elected from OWN_NODE;
    Recovered from OWN_NODE;
}

/// Wire names of what the masters say to each other.
pub const NAMES: &[&str] = &[
    Heartbeat::NAME,
    HeartbeatAck::NAME,
    PreVote::NAME,
    PreVoteAnswer::NAME,
];
