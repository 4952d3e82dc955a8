//! What replicas, coordinators and operators say to each other about the log.
//!
//! Pure: plain data. Every request carries the asker's number of it, `ask`, which the answer repeats; an answer to a
//! question that is not open any more is dropped by that number. Requests may be lost, doubled and late.
//!
//! ```text
//!   PromiseRequest ─▶ PromiseResponse     let me write, here or everywhere from now on
//!   WriteRequest   ─▶ WriteResponse       this value, here
//!   LearnedMessage, ChosenMessage         these values are chosen
//!   RecoverRequest ─▶ RecoverResponse     I have begun anew
//!   FetchRequest   ─▶ FetchResponse       give me what you have learned
//!   StatusRequest  ─▶ StatusResponse      how are you, and what do you miss
//! ```

use std::collections::BTreeMap;

use meseta_runtime::Message;
use serde::{Deserialize, Serialize};

use super::action::{Action, Position, Proposal, Value};
use super::members::{Incarnation, Life, Lives, Member};

/// Roles that may send what the log says: masters to each other.
pub const MASTERS: &[&str] = &["master"];
/// Roles that may look: masters, and operators with their tools.
pub const MASTERS_AND_OPERATORS: &[&str] = &["master", "operator"];

/// How far a replica has come.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum Status {
    /// It promises and accepts.
    Voting,
    /// It is catching up with the others and does not vote.
    Recovering,
    /// It has seen that all are empty, and waits until all have seen it.
    Starting,
    /// It has nothing, and does not know whether it had.
    #[default]
    Empty,
}

/// A range of positions, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span {
    /// First.
    pub from: Position,
    /// Last, not below `from`.
    pub to: Position,
}

/// That all positions of a span which this proposal performed are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Chosen {
    /// The coordinator's.
    pub proposal: Proposal,
    /// Its first position.
    pub from: Position,
    /// The last that a quorum has accepted with all before it.
    pub through: Position,
}

/// Proposer → replica: promise to accept nothing lower.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PromiseRequest {
    /// The asker's number of this question.
    pub ask: u64,
    /// The proposal.
    pub proposal: Proposal,
    /// For this position only; without one for all that have no record of their own yet (implicit).
    #[serde(default)]
    pub position: Option<Position>,
}

/// How a replica takes a promise or write request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Verdict {
    /// Done and on disk.
    Accept,
    /// A higher proposal, named in the answer, stands against it.
    Reject,
    /// This replica does not vote.
    Ignored,
}

/// In whose name an answer speaks: the replica's life, and the lives it knows to have begun after a loss.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Voter {
    /// The replica's own.
    pub incarnation: Incarnation,
    /// Of other members, as far as they have begun anew.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub known: BTreeMap<Member, Incarnation>,
}

/// Replica → proposer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PromiseResponse {
    /// As asked.
    pub ask: u64,
    /// The answer.
    pub verdict: Verdict,
    /// The proposal as asked, or the one that stands against it.
    pub proposal: Proposal,
    /// The position as asked; for an accepted implicit promise the end of the replica's log.
    #[serde(default)]
    pub position: Option<Position>,
    /// What stands at the position, as it was before this promise.
    #[serde(default)]
    pub action: Option<Action>,
    /// Who votes.
    pub voter: Voter,
}

/// Proposer → replica: accept these values, all of them or none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WriteRequest {
    /// The asker's number of this question.
    pub ask: u64,
    /// The proposal.
    pub proposal: Proposal,
    /// Where the first of them goes.
    pub position: Position,
    /// The first.
    pub value: Value,
    /// The others, in order, for the positions behind it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<Value>,
    /// What is chosen by now, told on the way.
    #[serde(default)]
    pub chosen: Option<Chosen>,
}

impl WriteRequest {
    /// Its last position.
    pub fn last(&self) -> Position {
        self.position.plus(self.more.len())
    }
}

/// Replica → proposer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WriteResponse {
    /// As asked.
    pub ask: u64,
    /// The answer.
    pub verdict: Verdict,
    /// The proposal as asked, or the one that stands against it.
    pub proposal: Proposal,
    /// As asked.
    pub position: Position,
    /// The last position that is answered for, when it is more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<Position>,
    /// Who votes.
    pub voter: Voter,
}

impl WriteResponse {
    /// The last position that it answers for. A replica that took the first value for the only one says so by it.
    pub fn last(&self) -> Position {
        self.through.unwrap_or(self.position)
    }
}

/// Proposer → replica: these are chosen. Not answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LearnedMessage {
    /// Each of them learned.
    pub actions: Vec<Action>,
}

/// Coordinator → replica: what is chosen by now. Not answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChosenMessage {
    /// What.
    pub chosen: Chosen,
}

/// Recovering replica → replica: this is my life now; how do you stand?
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecoverRequest {
    /// The asker's number of this question.
    pub ask: u64,
    /// Who asks.
    pub member: Member,
    /// Its life, which is on its disk.
    pub life: Life,
}

/// Replica → recovering replica. The asker's life was on the responder's disk before this was sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecoverResponse {
    /// As asked.
    pub ask: u64,
    /// The responder's.
    pub status: Status,
    /// First position that is not truncated; 0 unless it votes.
    pub begin: Position,
    /// Highest position it has seen; 0 unless it votes.
    pub end: Position,
    /// Its highest implicit promise; 0 unless it votes.
    pub promised: Proposal,
    /// The latest life of the asker that the responder knows. Any other than the one in the request says that the
    /// asker must take a higher number.
    pub asker: Life,
    /// The responder's own incarnation.
    pub incarnation: Incarnation,
    /// All lives that the responder knows.
    pub lives: Lives,
}

/// Anyone who is behind → replica: learned actions of these positions, please.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FetchRequest {
    /// The asker's number of this question.
    pub ask: u64,
    /// Which.
    pub span: Span,
}

/// Replica → whoever fetches.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FetchResponse {
    /// As asked.
    pub ask: u64,
    /// First position that is not truncated at the responder: all before it is history.
    pub begin: Position,
    /// Learned actions in order, at most [`FETCH_BYTES`] of them (or one).
    pub actions: Vec<Action>,
    /// Where to go on, when the answer was cut off by its size.
    #[serde(default)]
    pub next: Option<Position>,
}

/// Most bytes of values in one [`FetchResponse`].
pub const FETCH_BYTES: usize = 1024 * 1024;
/// Most ranges in one [`StatusResponse`].
pub const STATUS_SPANS: usize = 64;

/// Coordinator, recovery or operator → replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StatusRequest {
    /// The asker's number of this question.
    pub ask: u64,
    /// Within which positions missing ones are looked for.
    #[serde(default)]
    pub span: Option<Span>,
}

/// Replica → whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StatusResponse {
    /// As asked.
    pub ask: u64,
    /// How far it has come.
    pub status: Status,
    /// Its life.
    pub life: Life,
    /// Its highest implicit promise.
    pub promised: Proposal,
    /// First position that is not truncated.
    pub begin: Position,
    /// Highest position it has seen.
    pub end: Position,
    /// The first [`STATUS_SPANS`] ranges within the asked one whose values it has not learned.
    #[serde(default)]
    pub missing: Vec<Span>,
}

/// Any request to a replica.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Request {
    /// See [`PromiseRequest`].
    Promise(PromiseRequest),
    /// See [`WriteRequest`].
    Write(WriteRequest),
    /// See [`LearnedMessage`].
    Learned(LearnedMessage),
    /// See [`ChosenMessage`].
    Chosen(ChosenMessage),
    /// See [`RecoverRequest`].
    Recover(RecoverRequest),
    /// See [`FetchRequest`].
    Fetch(FetchRequest),
    /// See [`StatusRequest`].
    Status(StatusRequest),
}

/// Any answer of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Response {
    /// See [`PromiseResponse`].
    Promise(PromiseResponse),
    /// See [`WriteResponse`].
    Write(WriteResponse),
    /// See [`RecoverResponse`].
    Recover(RecoverResponse),
    /// See [`FetchResponse`].
    Fetch(FetchResponse),
    /// See [`StatusResponse`].
    Status(StatusResponse),
}

impl Response {
    /// The number of the question that this answers.
    pub fn ask(&self) -> u64 {
        match self {
            Self::Promise(answer) => answer.ask,
            Self::Write(answer) => answer.ask,
            Self::Recover(answer) => answer.ask,
            Self::Fetch(answer) => answer.ask,
            Self::Status(answer) => answer.ask,
        }
    }
}

/// Gives each kind its name on the wire and the roles that may send it.
macro_rules! wire {
    ($($kind:ident $version:literal from $senders:expr),* $(,)?) => {
        $(impl Message for $kind {
            const NAME: &'static str = concat!("meseta.log.", stringify!($kind));
            const VERSION: u16 = $version;
            const SENDERS: &'static [&'static str] = $senders;
        })*

        /// Names of all messages of the log.
        pub const NAMES: &[&str] = &[$($kind::NAME),*];
    };
}

wire! {
    PromiseRequest 1 from MASTERS,
    PromiseResponse 1 from MASTERS,
    WriteRequest 2 from MASTERS,
    WriteResponse 2 from MASTERS,
    LearnedMessage 1 from MASTERS,
    ChosenMessage 1 from MASTERS,
    RecoverRequest 1 from MASTERS,
    RecoverResponse 1 from MASTERS,
    FetchRequest 1 from MASTERS_AND_OPERATORS,
    FetchResponse 1 from MASTERS,
    StatusRequest 1 from MASTERS_AND_OPERATORS,
    StatusResponse 1 from MASTERS,
}

/// Makes a [`Request`] or [`Response`] of each of its kinds.
macro_rules! wrapped {
    ($outer:ident: $($variant:ident($inner:ident)),* $(,)?) => {
        $(impl From<$inner> for $outer {
            fn from(inner: $inner) -> Self {
                Self::$variant(inner)
            }
        })*
    };
}

wrapped!(Request: Promise(PromiseRequest), Write(WriteRequest), Learned(LearnedMessage), Chosen(ChosenMessage),
    Recover(RecoverRequest), Fetch(FetchRequest), Status(StatusRequest));
wrapped!(Response: Promise(PromiseResponse), Write(WriteResponse), Recover(RecoverResponse), Fetch(FetchResponse),
    Status(StatusResponse));
