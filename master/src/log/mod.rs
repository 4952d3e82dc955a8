//! The replicated log: a totally ordered log of entries that a minority of masters cannot lose.
//!
//! Each master keeps a replica. One coordinator at a time, elected by a quorum of promises, appends; a quorum of
//! accepted writes chooses an entry. Paxos runs for each position, and one implicit promise covers all to come.
//! docs/replicated-log.md tells the protocol. Nothing here takes anything from the rest of the master.
//!
//! ```text
//!   coordinator ──promise, write──▶ replica ──records──▶ storage
//!        │  └─ catchup: fetch what is learned, fill what is not
//!        └──── rounds: counting answers, by member and life
//!   recovery: how a replica that lost its disk may vote again
//! ```

pub mod action;
pub mod catchup;
pub mod coordinator;
pub mod members;
pub mod messages;
pub mod recovery;
pub mod replica;
pub mod rounds;
pub mod storage;
