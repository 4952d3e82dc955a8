//! The replicated log: a totally ordered log of entries that a minority of masters cannot lose.
//!
//! Each master keeps a replica. One coordinator at a time, elected by a quorum of promises, appends; a quorum of
//! accepted writes chooses an entry. Paxos runs for each position, and one implicit promise covers all to come.
//! docs/replicated-log.md tells the protocol. Nothing here takes anything from the rest of the master.
//!
//! ```text
//!   user ──asks──▶ coordinator ──promise, write──▶ replica ──records──▶ storage
//!                      │  └─ catchup: fetch what is learned, fill what is not
//!                      └──── rounds: counting answers, by member and life
//!   recovery: how a replica that lost its disk may vote again; lag: how one that was away gets what it has missed
//! ```
//!
//! [`start`] puts both processes on a node whose store was opened before; examples/replicated_log.rs uses the log on
//! its own.

pub mod action;
pub mod asks;
pub mod catchup;
pub mod coordinator;
pub mod lag;
pub mod members;
pub mod messages;
pub mod post;
pub mod recovery;
pub mod replica;
pub mod rounds;
pub mod storage;

use std::path::PathBuf;

use meseta_runtime::pid::ParsePidError;
use meseta_runtime::{Address, Node, Pid, SpawnError};

use self::coordinator::CoordinatorProcess;
use self::post::{COORDINATOR, Directory, REPLICA};
use self::replica::ReplicaProcess;

/// How the log of a node is set up.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Addresses of all members' nodes, this one's too. More than half of them decide.
    pub replicas: Vec<Address>,
    /// Whether members that are all empty begin a log by themselves; else an operator does it.
    pub auto_initialize: bool,
    /// Where the store is, for what is told to people.
    pub directory: PathBuf,
}

/// The processes of a node's log.
#[derive(Debug, Clone)]
pub struct LogPids {
    /// The replica.
    pub replica: Pid,
    /// The coordinator.
    pub coordinator: Pid,
}

/// Why the log of a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The node is not among the members.
    #[error(
        "this node is {address}, which is not among the members of the log: give every member the same list, with the addresses under which they reach each other"
    )]
    NotAMember {
        /// Of the node.
        address: Address,
    },
    /// An address is of no use.
    #[error(transparent)]
    Address(#[from] ParsePidError),
    /// A process cannot start.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

/// The processes of a node's log, before they are on the node.
pub struct Parts {
    /// To be spawned first, as [`LogPids::replica`].
    pub replica: ReplicaProcess,
    /// To be spawned after it, as [`LogPids::coordinator`].
    pub coordinator: CoordinatorProcess,
    /// Where they will be.
    pub pids: LogPids,
}

/// The processes of the log of the node at this address, wired to each other, for whoever hosts them.
///
/// # Errors
/// [`LogError`] when the node is not a member.
pub fn parts(address: &Address, config: LogConfig) -> Result<Parts, LogError> {
    if !config.replicas.contains(address) {
        let address = address.clone();
        return Err(LogError::NotAMember { address });
    }
    let members = Directory::new(&config.replicas)?;
    let settings = replica::Settings {
        members: members.clone(),
        auto_initialize: config.auto_initialize,
        directory: config.directory,
    };
    Ok(Parts {
        replica: ReplicaProcess::new(settings),
        coordinator: CoordinatorProcess::new(members),
        pids: LogPids {
            replica: Pid::new(REPLICA, address.clone())?,
            coordinator: Pid::new(COORDINATOR, address.clone())?,
        },
    })
}

/// Starts the processes of a node's log. The node must have been built with [`storage::ops::Storage::serve`].
///
/// # Errors
/// [`LogError`] when the node is not a member, has a log already or is shut down.
pub fn start(node: &Node, config: LogConfig) -> Result<LogPids, LogError> {
    let parts = parts(node.address(), config)?;
    node.spawn(REPLICA, move || parts.replica)?;
    node.spawn(COORDINATOR, move || parts.coordinator)?;
    Ok(parts.pids)
}
