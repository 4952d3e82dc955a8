//! Settings of an agent, and the flags of `meseta-agent` that give them.
//!
//! Flag names are those of Mesos; each can also come from the environment as `MESETA_<NAME>`. `MESOS_*` is never read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::{ArgAction, Parser};
use meseta_protocol::agent::DomainInfo;
use meseta_protocol::attributes::{Attribute, parse_attributes};
use meseta_protocol::ids::{Role, RoleError};
use meseta_protocol::launch::EnvironmentEntry;
use meseta_protocol::messages::election::ELECTION;
use meseta_protocol::resources::{ParseError, Resources};
use meseta_runtime::detector::{Candidates, CandidatesError};
use meseta_runtime::flags::{NodeFlags, candidates};

use crate::recovery::{Mode, Policy};
use crate::resources::{Detected, merge};

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

/// An agent does not look at its disk more often than this.
const SHORTEST_WATCH: Duration = Duration::from_millis(10);

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
    /// Whether `/files` may show sandboxes: on loopback, or where an operator has said so.
    pub allow_file_reading: bool,
    /// Whether calls of HTTP executors are taken from other machines too.
    pub insecure_http: bool,
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
            attributes: Vec::new(),
            domain: None,
            registration_backoff_factor: Duration::from_secs(1),
            executor_registration_timeout: Duration::from_secs(60),
            executor_shutdown_grace_period: Duration::from_secs(5),
            launcher,
            executor_command,
            switch_user: true,
            executor_environment: Vec::new(),
            allow_file_reading: false,
            insecure_http: false,
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

/// Why flags cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No masters.
    #[error("--master")]
    Master(#[from] CandidatesError),
    /// No role.
    #[error("--default_role")]
    Role(#[from] RoleError),
    /// No resources.
    #[error("--resources")]
    Resources(#[from] ParseError),
    /// No attributes.
    #[error("--attributes")]
    Attributes(#[from] meseta_protocol::attributes::AttributeError),
    /// A file that a flag names.
    #[error("--{flag}: cannot read {path}", path = path.display())]
    File {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A flag whose JSON cannot be read.
    #[error("--{flag} holds no JSON of the right form")]
    Json {
        /// The flag.
        flag: &'static str,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A domain without region and zone.
    #[error("--domain has no fault_domain")]
    NoFaultDomain,
    /// Executors would be waited for too long.
    #[error(
        "--executor_reregistration_timeout: at most {}, since nothing can be launched meanwhile",
        crate::environment::duration_text(LONGEST_REREGISTRATION)
    )]
    ReregistrationTimeout,
}

/// Flags of `meseta-agent`.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "meseta-agent",
    version,
    about = "Meseta agent: runs executors on this machine"
)]
pub struct Flags {
    /// Address, HTTP, certificates and log of the node.
    #[command(flatten)]
    pub node: NodeFlags,
    /// The masters, as host:port or host:port,host:port,host:port, or the path of a file with such a list. One that is
    /// up is enough to find the leader.
    #[arg(long, env = "MESETA_MASTER")]
    pub master: String,
    /// Directory for sandboxes.
    #[arg(long = "work_dir", env = "MESETA_WORK_DIR")]
    pub work_dir: PathBuf,
    /// What to offer: `cpus:4;mem:1024;ports:[31000-32000]` or JSON; what is not named is found out.
    #[arg(long, env = "MESETA_RESOURCES", default_value = "")]
    pub resources: String,
    /// Role of resources that name none.
    #[arg(
        long = "default_role",
        env = "MESETA_DEFAULT_ROLE",
        default_value = "*"
    )]
    pub default_role: String,
    /// What the agent says about itself: `rack:a;os:linux`.
    #[arg(long, env = "MESETA_ATTRIBUTES", default_value = "")]
    pub attributes: String,
    /// Region and zone, JSON or a file with it: `{"fault_domain":{"region":{"name":"r"},"zone":{"name":"z"}}}`.
    #[arg(long, env = "MESETA_DOMAIN")]
    pub domain: Option<String>,
    /// Directory with meseta-executor; that of this program when not given.
    #[arg(long = "launcher_dir", env = "MESETA_LAUNCHER_DIR")]
    pub launcher_dir: Option<PathBuf>,
    /// First back-off of registration.
    #[arg(long = "registration_backoff_factor", env = "MESETA_REGISTRATION_BACKOFF_FACTOR",
        default_value = "1secs", value_parser = meseta_runtime::flags::duration)]
    pub registration_backoff_factor: Duration,
    /// Time an executor has to subscribe after its launch.
    #[arg(long = "executor_registration_timeout", env = "MESETA_EXECUTOR_REGISTRATION_TIMEOUT",
        default_value = "1mins", value_parser = meseta_runtime::flags::duration)]
    pub executor_registration_timeout: Duration,
    /// Time an executor has to end by itself.
    #[arg(long = "executor_shutdown_grace_period", env = "MESETA_EXECUTOR_SHUTDOWN_GRACE_PERIOD",
        default_value = "5secs", value_parser = meseta_runtime::flags::duration)]
    pub executor_shutdown_grace_period: Duration,
    /// Variables for executors: a JSON object of texts, or a file with one.
    #[arg(
        long = "executor_environment_variables",
        env = "MESETA_EXECUTOR_ENVIRONMENT_VARIABLES"
    )]
    pub executor_environment_variables: Option<String>,
    /// How executors speak to this agent: `quic`, or `unix` for very many short tasks.
    #[arg(
        long = "executor_transport",
        env = "MESETA_EXECUTOR_TRANSPORT",
        default_value = "quic"
    )]
    pub executor_transport: ExecutorTransport,
    /// Whether executors run as the user their framework names; needs root.
    #[arg(long = "switch_user", env = "MESETA_SWITCH_USER", action = ArgAction::Set, default_value_t = true,
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub switch_user: bool,
    /// Ended executors remembered per framework.
    #[arg(
        long = "max_completed_executors_per_framework",
        env = "MESETA_MAX_COMPLETED_EXECUTORS_PER_FRAMEWORK",
        default_value_t = 150
    )]
    pub max_completed_executors_per_framework: usize,
    /// Length from which on the standard output of a container is rotated, such as 10MB; 0 for no limit.
    #[arg(long = "max_stdout_size", env = "MESETA_MAX_STDOUT_SIZE",
        default_value = "10MB", value_parser = crate::logs::bytes)]
    pub max_stdout_size: u64,
    /// The same of its standard error.
    #[arg(long = "max_stderr_size", env = "MESETA_MAX_STDERR_SIZE",
        default_value = "10MB", value_parser = crate::logs::bytes)]
    pub max_stderr_size: u64,
    /// Older parts that are kept of each, as stdout.1, stdout.2 and so on.
    #[arg(
        long = "rotated_logs",
        env = "MESETA_ROTATED_LOGS",
        default_value_t = 4,
        value_parser = clap::value_parser!(u32).range(..=99)
    )]
    pub rotated_logs: u32,
    /// How long sandboxes of ended executors stay at most. The fuller the disk is, the sooner they go.
    #[arg(long = "gc_delay", env = "MESETA_GC_DELAY",
        default_value = "1weeks", value_parser = meseta_runtime::flags::duration)]
    pub gc_delay: Duration,
    /// Share of the disk to keep free, 0 to 1: sandboxes stay for gc_delay × (1 - gc_disk_headroom - share used).
    #[arg(long = "gc_disk_headroom", env = "MESETA_GC_DISK_HEADROOM",
        default_value_t = 0.1, value_parser = share)]
    pub gc_disk_headroom: f64,
    /// Time between two looks at the disk, upon which old sandboxes are removed.
    #[arg(long = "disk_watch_interval", env = "MESETA_DISK_WATCH_INTERVAL",
        default_value = "1mins", value_parser = meseta_runtime::flags::duration)]
    pub disk_watch_interval: Duration,
    /// What becomes of executors that an earlier run of this agent has left: `reconnect`, or `cleanup` ends them and then
    /// the agent.
    #[arg(long, env = "MESETA_RECOVER", default_value = "reconnect")]
    pub recover: Mode,
    /// Whether to stop when something in the checkpoint cannot be read; otherwise all that can be read is kept.
    #[arg(long, env = "MESETA_STRICT", action = ArgAction::Set, default_value_t = true,
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub strict: bool,
    /// Which changes of its settings an agent may come back with: `equal` for none, `additive` for more of something.
    #[arg(
        long = "reconfiguration_policy",
        env = "MESETA_RECONFIGURATION_POLICY",
        default_value = "equal"
    )]
    pub reconfiguration_policy: Policy,
    /// Time that executors have to come back after a restart of the agent, at most 15secs.
    #[arg(long = "executor_reregistration_timeout", env = "MESETA_EXECUTOR_REREGISTRATION_TIMEOUT",
        default_value = "15secs", value_parser = meseta_runtime::flags::duration)]
    pub executor_reregistration_timeout: Duration,
    /// Time that executors of frameworks that checkpoint wait for an agent that is gone.
    #[arg(long = "recovery_timeout", env = "MESETA_RECOVERY_TIMEOUT",
        default_value = "15mins", value_parser = meseta_runtime::flags::duration)]
    pub recovery_timeout: Duration,
    /// Serve sandboxes and take calls of executors over plain HTTP beyond this machine, from anybody who can reach it.
    #[arg(long = "insecure_http", env = "MESETA_INSECURE_HTTP", action = ArgAction::Set, default_value_t = false,
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub insecure_http: bool,
}

/// A share from 0 to 1.
fn share(text: &str) -> Result<f64, String> {
    let share: Option<f64> = text.trim().parse().ok();
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| format!("`{text}` is no share: write a number from 0 to 1, such as 0.1"))
}

/// The text itself, or what is in the file it names with an absolute path or `file://`.
fn text_or_file(flag: &'static str, value: &str) -> Result<String, ConfigError> {
    let path = value.strip_prefix("file://").unwrap_or(value);
    if !path.starts_with('/') {
        return Ok(value.to_owned());
    }
    std::fs::read_to_string(path).map_err(|source| ConfigError::File {
        flag,
        path: PathBuf::from(path),
        source,
    })
}

impl Flags {
    /// The settings they mean on a machine that has `detected`. The authority's certificate is left empty.
    ///
    /// # Errors
    /// [`ConfigError`], naming the flag.
    pub fn config(&self, detected: &Detected) -> Result<Config, ConfigError> {
        let role: Role = self.default_role.parse()?;
        let given = Resources::parse_flag_entries(&self.resources, &role)?;
        let launcher_dir = self.launcher_dir.clone().unwrap_or_else(own_directory);
        let (launcher, executor_command) = programs(&launcher_dir);
        let mut config = Config::new(self.masters()?, &self.work_dir);
        config.hostname = self.node.hostname();
        config.resources = merge(given, detected, &role);
        config.attributes = parse_attributes(&self.attributes)?;
        config.domain = self.domain()?;
        config.registration_backoff_factor = self.registration_backoff_factor;
        config.executor_registration_timeout = self.executor_registration_timeout;
        config.executor_shutdown_grace_period = self.executor_shutdown_grace_period;
        config.launcher = launcher;
        config.executor_command = executor_command;
        config.executor_transport = self.executor_transport;
        config.switch_user = self.switch_user;
        config.executor_environment = self.environment()?;
        config.insecure_http = self.insecure_http;
        config.allow_file_reading = self.node.is_loopback() || self.insecure_http;
        config.max_completed_executors_per_framework = self.max_completed_executors_per_framework;
        config.gc = Some(crate::gc::Settings {
            policy: crate::gc::Policy {
                delay: self.gc_delay,
                headroom: self.gc_disk_headroom,
            },
            disk_watch_interval: self.disk_watch_interval.max(SHORTEST_WATCH),
        });
        config.logs = Some(crate::logs::Limits {
            max_stdout_size: self.max_stdout_size,
            max_stderr_size: self.max_stderr_size,
            kept: self.rotated_logs,
        });
        config.recover = self.recover;
        config.strict = self.strict;
        config.reconfiguration_policy = self.reconfiguration_policy;
        if self.executor_reregistration_timeout > LONGEST_REREGISTRATION {
            return Err(ConfigError::ReregistrationTimeout);
        }
        config.executor_reregistration_timeout = self.executor_reregistration_timeout;
        config.recovery_timeout = self.recovery_timeout;
        config.flags = self.shown(&launcher_dir);
        Ok(config)
    }

    fn masters(&self) -> Result<Candidates, CandidatesError> {
        candidates(&self.master, ELECTION)
    }

    fn domain(&self) -> Result<Option<DomainInfo>, ConfigError> {
        let Some(value) = &self.domain else {
            return Ok(None);
        };
        let flag = "domain";
        let domain: DomainInfo = serde_json::from_str(&text_or_file(flag, value)?)
            .map_err(|source| ConfigError::Json { flag, source })?;
        if domain.region().is_none() {
            return Err(ConfigError::NoFaultDomain);
        }
        Ok(Some(domain))
    }

    fn environment(&self) -> Result<Vec<EnvironmentEntry>, ConfigError> {
        let Some(value) = &self.executor_environment_variables else {
            return Ok(Vec::new());
        };
        let flag = "executor_environment_variables";
        let variables: BTreeMap<String, String> = serde_json::from_str(&text_or_file(flag, value)?)
            .map_err(|source| ConfigError::Json { flag, source })?;
        Ok(variables
            .into_iter()
            .map(|(name, value)| EnvironmentEntry { name, value })
            .collect())
    }

    fn shown(&self, launcher_dir: &Path) -> BTreeMap<String, String> {
        use crate::environment::duration_text;
        use crate::logs::bytes_text;
        let mut shown: BTreeMap<String, String> = [
            ("master", self.master.clone()),
            ("work_dir", self.work_dir.display().to_string()),
            ("launcher_dir", launcher_dir.display().to_string()),
            ("default_role", self.default_role.clone()),
            (
                "registration_backoff_factor",
                duration_text(self.registration_backoff_factor),
            ),
            (
                "executor_registration_timeout",
                duration_text(self.executor_registration_timeout),
            ),
            (
                "executor_shutdown_grace_period",
                duration_text(self.executor_shutdown_grace_period),
            ),
            ("recover", self.recover.name().to_owned()),
            ("strict", self.strict.to_string()),
            (
                "reconfiguration_policy",
                self.reconfiguration_policy.name().to_owned(),
            ),
            (
                "executor_reregistration_timeout",
                duration_text(self.executor_reregistration_timeout),
            ),
            ("recovery_timeout", duration_text(self.recovery_timeout)),
            (
                "executor_transport",
                self.executor_transport.name().to_owned(),
            ),
            ("max_stdout_size", bytes_text(self.max_stdout_size)),
            ("max_stderr_size", bytes_text(self.max_stderr_size)),
            ("rotated_logs", self.rotated_logs.to_string()),
            ("gc_delay", duration_text(self.gc_delay)),
            ("gc_disk_headroom", self.gc_disk_headroom.to_string()),
            (
                "disk_watch_interval",
                duration_text(self.disk_watch_interval),
            ),
            ("switch_user", self.switch_user.to_string()),
            ("insecure_http", self.insecure_http.to_string()),
            ("ip", self.node.ip.to_string()),
            ("logging_level", self.node.logging_level.clone()),
            (
                "max_completed_executors_per_framework",
                self.max_completed_executors_per_framework.to_string(),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        for (name, value) in [
            ("resources", &self.resources),
            ("attributes", &self.attributes),
        ] {
            if !value.is_empty() {
                shown.insert(name.to_owned(), value.clone());
            }
        }
        if let Some(port) = self.node.port {
            shown.insert("port".to_owned(), port.to_string());
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meseta_runtime::error_chain;

    fn flags(more: &[&str]) -> Flags {
        let mut all = vec!["meseta-agent", "--master=10.0.0.1:5050", "--work_dir=/w"];
        all.extend(more);
        Flags::try_parse_from(all).unwrap()
    }

    #[test]
    fn durations_are_written_as_in_mesos() {
        for (text, seconds) in [
            ("15secs", 15),
            ("1mins", 60),
            ("6hrs", 21_600),
            ("1weeks", 604_800),
        ] {
            assert_eq!(
                meseta_runtime::flags::duration(text),
                Ok(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        assert!(meseta_runtime::flags::duration("soon").is_err());
    }

    #[test]
    fn flags_become_settings() {
        let detected = Detected {
            cpus: 8,
            mem_mib: Some(4096),
            disk_mib: Some(50_000),
        };
        let flags = flags(&[
            "--resources=cpus:2;mem:512",
            "--attributes=rack:a",
            "--switch_user=false",
            "--executor_transport=unix",
            "--launcher_dir=/opt/meseta",
            r#"--executor_environment_variables={"A":"b"}"#,
            r#"--domain={"fault_domain":{"region":"r","zone":"z"}}"#,
        ]);
        let config = flags.config(&detected).unwrap();
        assert_eq!(config.masters.to_string(), "10.0.0.1:5050");
        let expected = "cpus:2;mem:512;disk:44880;ports:[31000-32000]"
            .parse()
            .unwrap();
        assert_eq!(config.resources, expected);
        assert_eq!(config.launcher, ["/opt/meseta/meseta-executor", "launch"]);
        assert_eq!(config.executor_environment[0].name, "A");
        assert!(!config.switch_user && config.allow_file_reading);
        assert_eq!(
            config
                .domain
                .and_then(|d| d.zone().map(str::to_owned))
                .as_deref(),
            Some("z")
        );
        assert_eq!(config.flags["executor_registration_timeout"], "1mins");
        assert_eq!(config.executor_transport, ExecutorTransport::Unix);
        assert_eq!(config.flags["executor_transport"], "unix");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let detected = Detected::default();
        for bad in [
            "--resources=cpus:x",
            "--default_role=a//b",
            "--domain={}",
            "--attributes=x",
            "--executor_reregistration_timeout=16secs",
        ] {
            assert!(flags(&[bad]).config(&detected).is_err(), "{bad}");
        }
        let zookeeper = Flags {
            master: "zk://a/b".to_owned(),
            ..flags(&[])
        };
        let error = error_chain(&zookeeper.config(&detected).unwrap_err());
        assert!(
            error.starts_with("--master: zk://a/b is for ZooKeeper"),
            "{error}"
        );
        for (bad, named) in [
            ("--no_such=1", "--no_such"),
            ("--executor_transport=tcp", "[possible values: quic, unix]"),
        ] {
            let all = ["meseta-agent", "--master=a:1", "--work_dir=/w", bad];
            let error = Flags::try_parse_from(all).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
