//! One of several masters with its registry in their replicated log: all its parts, wired to each other.
//!
//! It owns nothing but the wiring, which every host of masters uses: `meseta-master`, and tests on live and simulated
//! nodes. Invariant: the registrar writes to the log of its own node, and the coordinator of that log elects its master.
//!
//! ```text
//!   log-replica(1) ◀─ log-coordinator(1) ◀─ masters ─▶ election(1), master ─▶ registrar(1), allocator(1)
//! ```

use meseta_runtime::supervisor::Supervisor;
use meseta_runtime::{Address, Node, Pid};

use crate::config::Config;
use crate::election::members::Members;
use crate::log::post::{COORDINATOR, REPLICA};
use crate::log::{self, LogConfig, LogError};
use crate::{MASTER, SUPERVISOR, contending, registrar};

/// The processes, before they are on a node. Each is to be spawned under the name of its PID, in this order. When one of
/// them ends, the program cannot go on.
pub struct Replicated {
    /// The log.
    pub log: log::Parts,
    /// Election and master, and what starts them again.
    pub masters: Supervisor,
}

impl Replicated {
    /// The master at this address, one of `members`. Its settings say all but where its registry is.
    ///
    /// # Errors
    /// [`LogError`] when the address is not among the members.
    pub fn new(
        address: &Address,
        mut config: Config,
        members: Members,
        auto_initialize: bool,
        directory: std::path::PathBuf,
    ) -> Result<Self, LogError> {
        let log = LogConfig {
            replicas: members.all.iter().cloned().collect(),
            auto_initialize,
            directory,
        };
        let log = log::parts(address, log)?;
        config.registry = registrar::Storage::Log(log.pids.clone());
        let masters = contending(config, members, log.pids.coordinator.clone());
        Ok(Self { log, masters })
    }

    /// Puts all on a live node, which must have been built with [`log::storage::ops::Storage::serve`]; the master is its
    /// delegate. Returns the PIDs of those that must live for the program to go on.
    ///
    /// # Errors
    /// [`LogError::Spawn`] when the node has such processes already or is shut down.
    pub fn start(self, node: &Node) -> Result<[Pid; 3], LogError> {
        let Self { log, masters } = self;
        let replica = node.spawn(REPLICA, move || log.replica)?;
        let coordinator = node.spawn(COORDINATOR, move || log.coordinator)?;
        let supervisor = node.spawn(SUPERVISOR, move || masters)?;
        node.delegate(MASTER);
        Ok([replica, coordinator, supervisor])
    }
}
