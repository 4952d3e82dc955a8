//! The master: admits agents, offers their resources to frameworks, tracks tasks.
//!
//! ```text
//!   schedulers ⇄ master ⇄ agents
//!                  │ ⇅ allocator(1)   who is offered what
//!                  └ ⇄ registrar(1)   which agents are admitted
//! ```
//!
//! [`start`] puts the three processes on a [`Node`]; `meseta-master` is that with flags.
// A seed must replay a run, so nothing that processes say may hang on the order of a hash table.
#![warn(clippy::iter_over_hash_type)]

pub mod accept;
pub mod allocator;
pub mod config;
mod handlers;
pub mod health;
mod http;
pub mod log;
pub mod master;
mod metrics;
pub mod reconciliation;
pub mod registrar;
pub mod registry;
pub mod state;
pub mod validation;

/// Senders of what the parts of a master say to each other: no certificate has this role, and actors of the same node
/// are not checked.
pub(crate) const OWN_NODE: &[&str] = &["the node itself"];

pub use config::Config;
pub use master::Master;
use meseta_runtime::{Node, Pid, SpawnError};

/// Starts a master on a node and makes it the node's delegate: `/state` is `/master/state`.
///
/// # Errors
/// [`SpawnError`] when the node has a master already or is shut down.
pub fn start(node: &Node, config: Config) -> Result<Pid, SpawnError> {
    let master = node.spawn("master", move || Master::new(config))?;
    node.delegate("master");
    Ok(master)
}
