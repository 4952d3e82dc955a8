//! The master: admits agents, offers their resources to frameworks, tracks tasks.
//!
//! ```text
//!   schedulers ⇄ master ⇄ agents
//!                  │ ⇅ allocator(1)   who is offered what
//!                  └ ⇄ registrar(1)   what outlives a master
//! ```
//!
//! [`start`] puts the three processes on a [`Node`]; `meseta-master` is that with flags. A [`replicated`] master is one of
//! several, of which [`election`] finds out who leads.
// A seed must replay a run, so nothing that processes say may hang on the order of a hash table.
#![warn(clippy::iter_over_hash_type)]

pub mod accept;
pub mod allocator;
pub mod config;
pub mod election;
pub mod failover;
pub mod gc;
mod handlers;
pub mod health;
mod http;
mod leading;
pub mod log;
pub mod master;
mod metrics;
pub mod operators;
pub mod reconciliation;
pub mod registrar;
pub mod registry;
pub mod removal_rate;
pub mod replicated;
mod revised;
mod schedulers;
pub mod state;
pub mod validation;

pub use config::Config;
pub use master::Master;
pub use replicated::Replicated;
use std::time::Duration;

use meseta_protocol::messages::election::ELECTION;
use meseta_runtime::supervisor::{Child, Limits, Restart, Supervisor};
use meseta_runtime::{Node, Pid, Placement, SpawnError};

use election::members::Members;
use election::{Alone, Election};

/// Id of a master's process.
pub const MASTER: &str = "master";
/// Id of the process that starts a master again when it leads no more.
pub const SUPERVISOR: &str = "masters";

/// A master that loses its leadership starts again at once; one that fails over and over ends the program, which says
/// why.
const RESTARTS: Limits = Limits {
    restarts: 100,
    within: Duration::from_secs(60),
    first_delay: Duration::from_millis(50),
    longest_delay: Duration::from_secs(2),
};

/// Starts a master on a node and makes it the node's delegate: `/state` is `/master/state`. It is the only one of its
/// cluster and leads at once, under the epoch in its settings.
///
/// # Errors
/// [`SpawnError`] when the node has a master already or is shut down.
pub fn start(node: &Node, config: Config) -> Result<Pid, SpawnError> {
    let epoch = config.leader_epoch;
    let master = node.spawn(MASTER, move || Master::new(config))?;
    node.delegate(MASTER);
    let leader = master.clone();
    node.spawn(ELECTION, move || Alone::new(epoch, leader))?;
    Ok(master)
}

/// The supervisor of one of several masters, which leads when `coordinator` has elected it. Whenever it leads no more, it
/// ends with all its parts, and a fresh one takes its place and follows.
pub(crate) fn contending(config: Config, members: Members, coordinator: Pid) -> Supervisor {
    let timing = config.election;
    let election = move || Election::new(members.all.clone(), coordinator.clone(), timing);
    let master = move || Master::contending(config.clone());
    Supervisor::new(RESTARTS)
        .child(Child::new(ELECTION, Restart::Permanent, election))
        .child(Child::new(MASTER, Restart::Permanent, master).placed(Placement::LeastLoaded))
}
