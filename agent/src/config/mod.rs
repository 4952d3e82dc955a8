//! Settings of an agent.
//!
//! `flags.rs` has the flags of `meseta-agent`, `meaning.rs` makes settings of them.

mod flags;
mod meaning;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use meseta_protocol::agent::DomainInfo;
use meseta_protocol::attributes::Attribute;
use meseta_protocol::launch::EnvironmentEntry;
use meseta_protocol::resources::Resources;
use meseta_runtime::detector::Candidates;
use meseta_runtime::http::auth::bearer::TokenKey;

pub use flags::Flags;
pub use meaning::ConfigError;

use crate::recovery::{Leeway, Mode, Policy};

/// How the processes of a container are held together, so that all of them can be ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Containment {
    /// The freezer hierarchy at `/sys/fs/cgroup/freezer` when this user may use it, else a walk over `/proc`.
    #[default]
    Auto,
    /// A freezer hierarchy (cgroup v1) at this path; a walk when it cannot be used.
    Freezer(PathBuf),
    /// A walk over `/proc`, which misses a process that has left its parent, its session and its environment.
    Walk,
}

/// How executors speak to their agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ExecutorTransport {
    /// QUIC, with a one-use key for each.
    #[default]
    Quic,
    /// A Unix socket in the work directory, with a one-use token for each: for very many short tasks.
    Unix,
}

impl ExecutorTransport {
    /// As the flag names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Unix => "unix",
        }
    }
}

/// Longest time that executors may have to come back, since nothing can be launched meanwhile.
pub const LONGEST_REREGISTRATION: Duration = Duration::from_secs(15);

/// Set once by an agent that cannot go on; its holder then ends with an error.
#[derive(Debug, Clone, Default)]
pub struct Outcome(Arc<OnceLock<String>>);

impl Outcome {
    /// Why the agent could not go on, if it could not.
    pub fn fatal(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }

    /// Records the reason; the first one stays.
    pub(crate) fn set_fatal(&self, reason: &str) {
        if self.0.set(reason.to_owned()).is_err() {
            tracing::debug!(reason, "the agent had failed already");
        }
    }
}

/// Settings of an agent.
#[derive(Debug, Clone)]
pub struct Config {
    /// The master, or who knows which one leads.
    pub masters: Candidates,
    /// Directory of all sandboxes; made when missing.
    pub work_dir: PathBuf,
    /// Host name under which frameworks find the agent.
    pub hostname: String,
    /// All it offers, without allocations.
    pub resources: Resources,
    /// Which of them it has found out by itself.
    pub leeway: Leeway,
    /// What it says about itself.
    pub attributes: Vec<Attribute>,
    /// Where it stands.
    pub domain: Option<DomainInfo>,
    /// First registration comes within this time, later ones within twice this, doubling up to a minute. 1 s.
    pub registration_backoff_factor: Duration,
    /// An executor that has not subscribed this long after its launch is destroyed. 1 min.
    pub executor_registration_timeout: Duration,
    /// How long an executor may take to end by itself, unless it says otherwise. 5 s.
    pub executor_shutdown_grace_period: Duration,
    /// Program and arguments that start a container; the plan comes on its standard input.
    pub launcher: Vec<String>,
    /// Program of the executor for tasks that are plain commands.
    pub executor_command: String,
    /// Whether executors run as the user their framework names. Needs root.
    pub switch_user: bool,
    /// Variables every executor gets; the built-in ones override them.
    pub executor_environment: Vec<EnvironmentEntry>,
    /// Signs the tokens that executors get to show over HTTP; they get none when there is no key.
    pub executor_tokens: Option<TokenKey>,
    /// Certificate of the authority that signed the agent's own, DER: executors know the agent by it. Empty on an
    /// in-memory network.
    pub ca: Vec<u8>,
    /// Soft limit of open files that executors and tasks get; the agent's own when none.
    pub open_files: Option<u64>,
    /// How executors speak to the agent. [`crate::guests`] gives the node what it needs for it.
    pub executor_transport: ExecutorTransport,
    /// How containers are held together.
    pub containment: Containment,
    /// Containers that may be starting at once. Three for each core, at least 4: more only starve each other.
    pub concurrent_launches: usize,
    /// Ended executors remembered per framework. 150.
    pub max_completed_executors_per_framework: usize,
    /// When sandboxes of ended executors are removed; never when none.
    pub gc: Option<crate::gc::Settings>,
    /// How long the logs of executors and tasks may get; without limit when none.
    pub logs: Option<crate::logs::Limits>,
    /// What becomes of executors that an earlier run of the agent has left.
    pub recover: Mode,
    /// Whether anything unreadable in the checkpoint keeps the agent from starting. True.
    pub strict: bool,
    /// Which changes of its settings an agent may come back with.
    pub reconfiguration_policy: Policy,
    /// How long executors have to come back to an agent that was restarted, at most 15 s. The wait ends before that when
    /// none is missing, so only those that hang take all of it. 15 s: one notices within a second or two that the agent is
    /// back, and when that took long it may have been trying once in 10 s.
    pub executor_reregistration_timeout: Duration,
    /// How long the executors of a framework that checkpoints wait for an agent that is gone. 15 min.
    pub recovery_timeout: Duration,
    /// Flags as `/flags` shows them.
    pub flags: BTreeMap<String, String>,
    /// Where the agent says that it could not go on.
    pub outcome: Outcome,
}

impl Config {
    /// An agent of this master with defaults, no resources and programs from the directory of the running program.
    pub fn new(masters: impl Into<Candidates>, work_dir: impl Into<PathBuf>) -> Self {
        let (launcher, executor_command) = programs(&own_directory());
        Self {
            masters: masters.into(),
            work_dir: work_dir.into(),
            hostname: "localhost".to_owned(),
            resources: Resources::new(),
            leeway: Leeway::new(),
            attributes: Vec::new(),
            domain: None,
            registration_backoff_factor: Duration::from_secs(1),
            executor_registration_timeout: Duration::from_secs(60),
            executor_shutdown_grace_period: Duration::from_secs(5),
            launcher,
            executor_command,
            switch_user: true,
            executor_environment: Vec::new(),
            executor_tokens: None,
            ca: Vec::new(),
            open_files: None,
            executor_transport: ExecutorTransport::Quic,
            containment: Containment::Auto,
            concurrent_launches: concurrent_launches(),
            max_completed_executors_per_framework: 150,
            gc: None,
            logs: None,
            recover: Mode::Reconnect,
            strict: true,
            reconfiguration_policy: Policy::Equal,
            executor_reregistration_timeout: LONGEST_REREGISTRATION,
            recovery_timeout: Duration::from_secs(15 * 60),
            flags: BTreeMap::new(),
            outcome: Outcome::default(),
        }
    }
}

fn concurrent_launches() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    (3 * cores).max(4)
}

/// Directory of the running program, where its siblings are.
fn own_directory() -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|program| program.parent().map(Path::to_owned))
        .unwrap_or_else(|| PathBuf::from("/usr/bin"))
}

fn programs(launcher_dir: &Path) -> (Vec<String>, String) {
    let executor = launcher_dir.join("meseta-executor").display().to_string();
    (vec![executor.clone(), "launch".to_owned()], executor)
}
