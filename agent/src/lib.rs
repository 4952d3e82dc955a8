//! The agent: runs executors and forwards what becomes of tasks.
//!
//! One agent stands on each machine. It tells the master what the machine has, starts an executor for what the master
//! launches, hands tasks to executors, and forwards every status update until its framework has acknowledged it.
//!
//! ```text
//! master  <-- registration, updates --  slave(1)  <-- subscribe, updates --  executor-<container id> (a guest)
//!         -- launches, kills, acks -->     |       -- tasks, kills, acks -->        |
//!                                          +-- Launch, Destroy (operations) --> the container's process tree
//! ```
//!
//! A program holds an agent like this; [`operators`] gives the node the hands that start and end processes:
//!
//! ```no_run
//! use meseta_agent::Config;
//! use meseta_runtime::{Node, Pid};
//!
//! let config = Config::new("master@127.0.0.1:5050".parse::<Pid>()?, "/var/lib/meseta");
//! let builder = meseta_agent::guests(Node::builder().role("agent").port(5051), &config);
//! let node = meseta_agent::operators(builder).start()?;
//! let agent = meseta_agent::start(&node, config)?;
//! # futures::executor::block_on(async move {
//! let why = meseta_agent::stop(&node, &agent).await;
//! # });
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
// A seed must replay a run, so nothing that processes say may hang on the order of a hash table.
#![warn(clippy::iter_over_hash_type)]

pub mod agent;
pub mod checkpoint;
pub mod config;
pub mod containerizer;
pub mod environment;
pub mod executors;
pub mod faults;
pub mod gc;
mod guests;
mod handlers;
pub mod http;
mod http_executors;
pub mod launch_queue;
pub mod logs;
mod metrics;
pub mod paths;
pub mod recovery;
pub mod registration;
pub mod resources;
pub mod status_updates;

use std::future::Future;
use std::path::PathBuf;

use meseta_runtime::{ExitReason, Message, Node, OWN_NODE, Pid, SpawnError};
use serde::{Deserialize, Serialize};

pub use agent::Agent;
pub use config::{Config, Flags};
pub use containerizer::operators;
pub use guests::guests;

/// Own node → agent: leave the cluster, end everything and stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopAgent {}

impl Message for StopAgent {
    const NAME: &'static str = "meseta.agent.StopAgent";
    const SENDERS: &'static [&'static str] = OWN_NODE;
}

/// Why an agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The work directory cannot be made or entered.
    #[error("work directory {path}: check --work_dir and its permissions", path = path.display())]
    WorkDir {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The process was not spawned.
    #[error("the agent's process")]
    Spawn(#[from] SpawnError),
}

/// Starts an agent on a node that was built with [`operators`], as the next `slave(N)`, and makes it the node's
/// delegate for HTTP. Makes the work directory and looks for the freezer hierarchy, so it must not run on the node's
/// own thread.
///
/// # Errors
/// [`StartError`].
pub fn start(node: &Node, mut config: Config) -> Result<Pid, StartError> {
    let failed = |path: &std::path::Path, source| StartError::WorkDir {
        path: path.to_owned(),
        source,
    };
    std::fs::create_dir_all(&config.work_dir).map_err(|error| failed(&config.work_dir, error))?;
    config.work_dir = config
        .work_dir
        .canonicalize()
        .map_err(|error| failed(&config.work_dir, error))?;
    let host = containerizer::Host::look(&config.containment, &config.work_dir);
    let pid = node.spawn_numbered("slave", move || Agent::new(config, host))?;
    node.delegate(pid.id());
    Ok(pid)
}

/// Lets an agent leave for good: it unregisters, ends all its containers within their grace periods, and stops. The
/// future ends when it has. An agent that is to come back is just ended, with its node: it finds what it has written
/// down.
pub fn stop(node: &Node, agent: &Pid) -> impl Future<Output = ExitReason> + Send + use<> {
    let ended = node.ended(agent);
    node.send(agent, StopAgent {});
    ended
}
