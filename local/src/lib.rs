//! A whole cluster in one process: one master and any number of agents, each a node of its own, speaking QUIC over
//! loopback as they would between machines. For examples, and for tests of your own framework.
//!
//! Executors are real processes, started by this very program: call [`take_over`] first thing in `main`, so that the
//! program can be its own launcher and its own command executor.
//!
//! ```no_run
//! use meseta_local::LocalCluster;
//!
//! use std::process::ExitCode;
//!
//! fn main() -> ExitCode {
//!     if let Some(code) = meseta_local::take_over() {
//!         return code;
//!     }
//!     match run() {
//!         Ok(()) => ExitCode::SUCCESS,
//!         Err(_) => ExitCode::FAILURE,
//!     }
//! }
//!
//! fn run() -> Result<(), meseta_local::LocalError> {
//!     let cluster = LocalCluster::builder().agents(3).start()?;
//!     println!("the master is {}", cluster.master());
//!     // start a scheduler driver against cluster.master() …
//!     cluster.shutdown();
//!     Ok(())
//! }
//! ```

use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub use meseta_agent::config::ExecutorTransport;
use meseta_protocol::Role;
use meseta_protocol::resources::Resources;
use meseta_runtime::identity::{Identity, IdentityError};
use meseta_runtime::{Credentials, Node, NodeError, Pid, SpawnError};
use tempfile::TempDir;

/// Name under which the program is its own launcher and command executor: a link of this name in the cluster's
/// directory leads back to it.
const EXECUTOR: &str = "meseta-executor";
/// How a command executor calls itself when it starts its task.
const ITSELF: &str = "/proc/self/exe";

/// Why a cluster did not start.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// No directory for the sandboxes.
    #[error(
        "no directory for the cluster's files: free space in the temporary directory or give one"
    )]
    Directory(#[source] std::io::Error),
    /// A node did not start.
    #[error("a node of the cluster did not start")]
    Node(#[from] NodeError),
    /// An agent's certificate could not be made.
    #[error("the certificate of an agent could not be made")]
    Identity(#[from] IdentityError),
    /// The master's processes did not start.
    #[error("the master of the cluster did not start")]
    Spawn(#[from] SpawnError),
    /// An agent did not start.
    #[error("an agent of the cluster did not start")]
    Agent(#[from] meseta_agent::StartError),
    /// The master's directory cannot be used.
    #[error("the master did not start")]
    Master(#[from] meseta_master::config::ConfigError),
}

/// If this program was started as a launcher or as a command executor, does that and returns the exit code. Must come
/// first in `main`, before any thread is started.
pub fn take_over() -> Option<ExitCode> {
    let called = std::env::args_os().next()?;
    let is_executor = called == ITSELF
        || Path::new(&called)
            .file_name()
            .is_some_and(|name| name == EXECUTOR);
    is_executor.then(meseta_executor::program::main)
}

/// Settings of a cluster.
#[derive(Debug, Default)]
pub struct Builder {
    agents: usize,
    resources: Option<Resources>,
    work_dir: Option<PathBuf>,
    executor_transport: ExecutorTransport,
}

impl Builder {
    /// How many agents. Default 1.
    #[must_use]
    pub fn agents(mut self, agents: usize) -> Self {
        self.agents = agents;
        self
    }

    /// Resources of each agent. Default: the machine's, each.
    #[must_use]
    pub fn resources(mut self, resources: Resources) -> Self {
        self.resources = Some(resources);
        self
    }

    /// How executors speak to their agents. Default: QUIC.
    #[must_use]
    pub fn executor_transport(mut self, transport: ExecutorTransport) -> Self {
        self.executor_transport = transport;
        self
    }

    /// Directory for sandboxes. Default: a temporary one that goes with the cluster.
    #[must_use]
    pub fn work_dir(mut self, dir: &Path) -> Self {
        self.work_dir = Some(dir.to_owned());
        self
    }

    /// Starts the cluster. Agents register a moment later; frameworks may subscribe at once.
    ///
    /// # Errors
    /// [`LocalError`] that says which part did not start.
    pub fn start(self) -> Result<LocalCluster, LocalError> {
        let (dir, temporary) = match self.work_dir {
            Some(dir) => (dir, None),
            None => {
                let temporary =
                    TempDir::with_prefix("meseta-local-").map_err(LocalError::Directory)?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let executor = link_executor(&dir).map_err(LocalError::Directory)?;
        let epoch = meseta_master::config::next_epoch(&dir.join("master"))?;
        let node = Node::builder().role("master").start()?;
        let master = meseta_master::start(&node, meseta_master::Config::new(epoch, "localhost"))?;
        let mut cluster = LocalCluster {
            master: (node, master),
            agents: Vec::new(),
            _dir: temporary,
        };
        for number in 1..=self.agents.max(1) {
            let started = start_agent(
                &cluster.master.1,
                &dir.join(format!("agent-{number}")),
                self.resources.clone(),
                self.executor_transport,
                &executor,
            );
            match started {
                Ok(agent) => cluster.agents.push(agent),
                Err(error) => {
                    cluster.shutdown();
                    return Err(error);
                }
            }
        }
        Ok(cluster)
    }
}

/// A link through which this program is run as launcher and command executor.
fn link_executor(dir: &Path) -> std::io::Result<PathBuf> {
    let bin = dir.join("bin");
    std::fs::create_dir_all(&bin)?;
    let link = bin.join(EXECUTOR);
    if link.symlink_metadata().is_ok() {
        std::fs::remove_file(&link)?;
    }
    std::os::unix::fs::symlink(std::env::current_exe()?, &link)?;
    Ok(link)
}

fn start_agent(
    master: &Pid,
    work_dir: &Path,
    resources: Option<Resources>,
    executor_transport: ExecutorTransport,
    executor: &Path,
) -> Result<(Node, Pid), LocalError> {
    let identity = Identity::development("agent", &[])?;
    let ca = identity.authorities().first().map(|ca| ca.to_vec());
    let builder = Node::builder()
        .role("agent")
        .credentials(Credentials::Given(Box::new(identity)));
    let mut config = meseta_agent::Config::new(master.clone(), work_dir);
    config.executor_transport = executor_transport;
    let node = meseta_agent::operators(meseta_agent::guests(builder, &config)).start()?;
    config.resources = resources.unwrap_or_else(|| {
        meseta_agent::resources::merge(
            Vec::new(),
            &meseta_agent::resources::detect(work_dir),
            &Role::star(),
        )
    });
    let executor = executor.to_string_lossy().into_owned();
    config.launcher = vec![executor.clone(), "launch".to_owned()];
    config.executor_command = executor;
    config.ca = ca.unwrap_or_default();
    let agent = meseta_agent::start(&node, config)?;
    Ok((node, agent))
}

/// A running cluster. It ends with [`LocalCluster::shutdown`] or when it is dropped.
pub struct LocalCluster {
    master: (Node, Pid),
    agents: Vec<(Node, Pid)>,
    _dir: Option<TempDir>,
}

impl LocalCluster {
    /// Settings of a cluster to be started.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// PID of the master.
    pub fn master(&self) -> &Pid {
        &self.master.1
    }

    /// PIDs of the agents.
    pub fn agents(&self) -> impl Iterator<Item = &Pid> {
        self.agents.iter().map(|(_, pid)| pid)
    }

    /// Ends everything: tasks, executors, agents, master. Blocks until all is gone; later calls do nothing.
    pub fn shutdown(&self) {
        let leaving: Vec<_> = self
            .agents
            .iter()
            .map(|(node, agent)| meseta_agent::stop(node, agent))
            .collect();
        for left in leaving {
            futures::executor::block_on(left);
        }
        for (node, _) in &self.agents {
            node.shutdown();
        }
        self.master.0.shutdown();
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        self.shutdown();
    }
}
