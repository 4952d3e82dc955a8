//! Settings of a master: what each means, its default and why.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use meseta_protocol::agent::DomainInfo;
use meseta_protocol::{Role, ids};
use meseta_runtime::flags::{FlagError, NodeFlags};
use meseta_runtime::http::flags::{Component, HttpFlagError, HttpFlags};
use meseta_runtime::{Address, NodeBuilder};

use crate::allocator;
use crate::election::core::Timing;
use crate::election::members::{Members, MembersError};
use crate::gc::Keep;
use crate::registrar::Storage;
use crate::removal_rate::{Rate, RateError};
use crate::state::Limits;
use crate::validation::framework::Settings as FrameworkSettings;

/// Settings of the master process.
#[derive(Debug, Clone)]
pub struct Config {
    /// Number of this leadership; every message to agents and frameworks carries it. Must be higher than that of
    /// any master before.
    pub leader_epoch: u64,
    /// Times of the election, when there are several masters.
    pub election: Timing,
    /// Name of the host, shown to people.
    pub hostname: String,
    /// Name of the cluster, shown to people.
    pub cluster: Option<String>,
    /// Time between pings of an agent. Default 15 s.
    pub agent_ping_timeout: Duration,
    /// Pings an agent may miss in a row before it is marked unreachable. Default 5.
    pub max_agent_ping_timeouts: u32,
    /// Time a disconnected agent has to come back. Default 10 min.
    pub agent_reregister_timeout: Duration,
    /// Part of the registry's agents, from 0 to 1, that may be marked unreachable after a fail-over; if more stay away,
    /// the master ends. Default 1.
    pub recovery_agent_removal_limit: f64,
    /// How fast agents may be marked unreachable; without bound by default.
    pub agent_removal_rate_limit: Option<Rate>,
    /// Where the registry is kept. In memory by default.
    pub registry: Storage,
    /// Time the registrar has to read the registry. Default 1 min.
    pub registry_fetch_timeout: Duration,
    /// Time the registrar has to store a change. Default 20 s: a log that takes longer has lost its quorum.
    pub registry_store_timeout: Duration,
    /// Time between looks for entries of the registry to forget. Default 15 min.
    pub registry_gc_interval: Duration,
    /// Which entries about agents that are away are kept.
    pub registry_keep: Keep,
    /// Time after which an unanswered offer is taken back; none by default.
    pub offer_timeout: Option<Duration>,
    /// Operators who may hear what happens at a time; one more takes the place of the oldest. Default 1000.
    pub max_operator_event_stream_subscribers: usize,
    /// What frameworks may ask for.
    pub frameworks: FrameworkSettings,
    /// Settings of the allocator.
    pub allocator: allocator::Config,
    /// Bounds of what is remembered.
    pub limits: Limits,
    /// Flags as given, for `/flags` and `/state`.
    pub flags: BTreeMap<String, String>,
}

impl Config {
    /// Defaults with this epoch and host name.
    pub fn new(leader_epoch: u64, hostname: &str) -> Self {
        Self {
            leader_epoch,
            election: Timing::default(),
            hostname: hostname.to_owned(),
            cluster: None,
            agent_ping_timeout: Duration::from_secs(15),
            max_agent_ping_timeouts: 5,
            agent_reregister_timeout: MIN_REREGISTER,
            recovery_agent_removal_limit: 1.0,
            agent_removal_rate_limit: None,
            registry: Storage::Memory,
            registry_fetch_timeout: Duration::from_secs(60),
            registry_store_timeout: Duration::from_secs(20),
            registry_gc_interval: Duration::from_secs(900),
            registry_keep: Keep::default(),
            offer_timeout: None,
            max_operator_event_stream_subscribers: 1000,
            frameworks: FrameworkSettings::default(),
            allocator: allocator::Config::default(),
            limits: Limits::default(),
            flags: BTreeMap::new(),
        }
    }
}

/// Shortest time agents must be given to come back: less would remove agents that merely restart.
const MIN_REREGISTER: Duration = Duration::from_secs(600);

/// Where a master keeps its registry.
#[derive(Debug)]
pub enum Kept {
    /// In memory: a restarted master knows of no agents.
    InMemory,
    /// In the log that these masters replicate; none named: in that of this master alone.
    Replicated(Option<Members>),
}

/// Flags of `meseta-master`. Each can also come from the environment as `MESETA_<NAME>`.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "meseta-master",
    version,
    about = "The master of a Meseta cluster"
)]
pub struct Flags {
    /// Flags every node has. The default port is 5050.
    #[command(flatten)]
    pub node: NodeFlags,
    /// Directory for what the master must remember; made when missing.
    #[arg(long = "work_dir", env = "MESETA_WORK_DIR")]
    pub work_dir: PathBuf,
    /// Where the registry of agents is kept: replicated_log is durable, in the work directory of each master; in_memory
    /// is for one master alone, and agents register again after its restart.
    #[arg(long, env = "MESETA_REGISTRY", value_parser = ["replicated_log", "in_memory"], default_value = "replicated_log")]
    pub registry: String,
    /// Whether masters whose logs are all empty begin one by themselves; else an operator does it with meseta log
    /// initialize.
    #[arg(long = "log_auto_initialize", env = "MESETA_LOG_AUTO_INITIALIZE", default_value_t = true, action = clap::ArgAction::Set)]
    pub log_auto_initialize: bool,
    /// All masters of the cluster, this one's advertised address among them: host:port,host:port,host:port. Without it
    /// this is the only master.
    #[arg(long, env = "MESETA_MASTERS")]
    pub masters: Option<String>,
    /// Name of the cluster, shown to people.
    #[arg(long, env = "MESETA_CLUSTER")]
    pub cluster: Option<String>,
    /// How many masters must agree; more than half of --masters, which is what it is when not given.
    #[arg(long, env = "MESETA_QUORUM")]
    pub quorum: Option<usize>,
    /// Not used: masters elect their leader among themselves. See --masters.
    #[arg(long, env = "MESETA_ZK", hide = true)]
    pub zk: Option<String>,
    /// Time between pings of an agent, 1secs to 15mins.
    #[arg(long = "agent_ping_timeout", env = "MESETA_AGENT_PING_TIMEOUT", default_value = "15secs", value_parser = meseta_runtime::flags::duration)]
    pub agent_ping_timeout: Duration,
    /// Pings an agent may miss in a row before it is marked unreachable; at least 1.
    #[arg(long = "max_agent_ping_timeouts", env = "MESETA_MAX_AGENT_PING_TIMEOUTS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_agent_ping_timeouts: u32,
    /// Time a disconnected agent has to come back; at least 10mins.
    #[arg(long = "agent_reregister_timeout", env = "MESETA_AGENT_REREGISTER_TIMEOUT", default_value = "10mins", value_parser = meseta_runtime::flags::duration)]
    pub agent_reregister_timeout: Duration,
    /// Agents of the registry that may be marked unreachable after a fail-over, such as 30%; if more stay away, the master
    /// ends.
    #[arg(
        long = "recovery_agent_removal_limit",
        env = "MESETA_RECOVERY_AGENT_REMOVAL_LIMIT",
        default_value = "100%"
    )]
    pub recovery_agent_removal_limit: String,
    /// How fast agents may be marked unreachable, such as 1/10mins; as fast as they fall silent when not given.
    #[arg(
        long = "agent_removal_rate_limit",
        env = "MESETA_AGENT_REMOVAL_RATE_LIMIT"
    )]
    pub agent_removal_rate_limit: Option<String>,
    /// Time to read the registry.
    #[arg(long = "registry_fetch_timeout", env = "MESETA_REGISTRY_FETCH_TIMEOUT", default_value = "1mins", value_parser = meseta_runtime::flags::duration)]
    pub registry_fetch_timeout: Duration,
    /// Time to store a change of the registry; a master that cannot ends.
    #[arg(long = "registry_store_timeout", env = "MESETA_REGISTRY_STORE_TIMEOUT", default_value = "20secs", value_parser = meseta_runtime::flags::duration)]
    pub registry_store_timeout: Duration,
    /// Time between looks for entries of the registry to forget.
    #[arg(long = "registry_gc_interval", env = "MESETA_REGISTRY_GC_INTERVAL", default_value = "15mins", value_parser = meseta_runtime::flags::duration)]
    pub registry_gc_interval: Duration,
    /// How long unreachable and gone agents are remembered.
    #[arg(long = "registry_max_agent_age", env = "MESETA_REGISTRY_MAX_AGENT_AGE", default_value = "2weeks", value_parser = meseta_runtime::flags::duration)]
    pub registry_max_agent_age: Duration,
    /// How many unreachable agents are remembered, and how many gone ones.
    #[arg(
        long = "registry_max_agent_count",
        env = "MESETA_REGISTRY_MAX_AGENT_COUNT",
        default_value_t = 102_400
    )]
    pub registry_max_agent_count: usize,
    /// Time between allocations.
    #[arg(long = "allocation_interval", env = "MESETA_ALLOCATION_INTERVAL", default_value = "1secs", value_parser = meseta_runtime::flags::duration)]
    pub allocation_interval: Duration,
    /// Least an offer must hold, such as `cpus:0.01|mem:32`: `|` separates alternatives, `;` parts of one.
    #[arg(
        long = "min_allocatable_resources",
        env = "MESETA_MIN_ALLOCATABLE_RESOURCES",
        default_value = "cpus:0.01|mem:32"
    )]
    pub min_allocatable_resources: String,
    /// Resource names that do not count for fairness, separated by commas.
    #[arg(
        long = "fair_sharing_excluded_resource_names",
        env = "MESETA_FAIR_SHARING_EXCLUDED_RESOURCE_NAMES",
        value_delimiter = ','
    )]
    pub fair_sharing_excluded_resource_names: Vec<String>,
    /// Offer agents with GPUs only to frameworks that ask for them.
    #[arg(long = "filter_gpu_resources", env = "MESETA_FILTER_GPU_RESOURCES", default_value_t = true, action = clap::ArgAction::Set)]
    pub filter_gpu_resources: bool,
    /// Time after which an unanswered offer is taken back; offers stand for ever when not given.
    #[arg(long = "offer_timeout", env = "MESETA_OFFER_TIMEOUT", value_parser = meseta_runtime::flags::duration)]
    pub offer_timeout: Option<Duration>,
    /// Operators who may be subscribed to what happens at a time, 1 or more; one more takes the place of the oldest.
    #[arg(
        long = "max_operator_event_stream_subscribers",
        env = "MESETA_MAX_OPERATOR_EVENT_STREAM_SUBSCRIBERS",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_operator_event_stream_subscribers: u32,
    /// Flags of HTTP.
    #[command(flatten)]
    pub http: HttpFlags,
    /// Whether schedulers have to prove over HTTP who they are, on loopback as well; from other machines they have to in
    /// any case. Needs --http_credentials.
    #[arg(long = "authenticate_http_frameworks", env = "MESETA_AUTHENTICATE_HTTP_FRAMEWORKS",
        action = clap::ArgAction::Set, default_value_t = false,
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub authenticate_http_frameworks: bool,
    /// How schedulers prove over HTTP who they are: basic is the only way.
    #[arg(long = "http_framework_authenticators", env = "MESETA_HTTP_FRAMEWORK_AUTHENTICATORS",
        default_value = "basic", value_parser = ["basic"])]
    pub http_framework_authenticators: String,
    /// How others prove over HTTP who they are: basic is the only way.
    #[arg(long = "http_authenticators", env = "MESETA_HTTP_AUTHENTICATORS",
        default_value = "basic", value_parser = ["basic"])]
    pub http_authenticators: String,
    /// Roles frameworks may be in, separated by commas; any when not given.
    #[arg(long, env = "MESETA_ROLES", value_delimiter = ',')]
    pub roles: Option<Vec<String>>,
    /// Weights of roles, such as `prod=2,test=1`; 1 for those not named.
    #[arg(long, env = "MESETA_WEIGHTS", value_delimiter = ',')]
    pub weights: Vec<String>,
    /// Whether frameworks may run tasks as root.
    #[arg(long = "root_submissions", env = "MESETA_ROOT_SUBMISSIONS", default_value_t = true, action = clap::ArgAction::Set)]
    pub root_submissions: bool,
    /// Where the master stands: JSON, or a file with it.
    #[arg(long, env = "MESETA_DOMAIN")]
    pub domain: Option<String>,
    /// Ended frameworks to remember.
    #[arg(
        long = "max_completed_frameworks",
        env = "MESETA_MAX_COMPLETED_FRAMEWORKS",
        default_value_t = 50
    )]
    pub max_completed_frameworks: usize,
    /// Ended tasks of a framework to remember.
    #[arg(
        long = "max_completed_tasks_per_framework",
        env = "MESETA_MAX_COMPLETED_TASKS_PER_FRAMEWORK",
        default_value_t = 1000
    )]
    pub max_completed_tasks_per_framework: usize,
    /// Tasks of a framework on unreachable agents to remember.
    #[arg(
        long = "max_unreachable_tasks_per_framework",
        env = "MESETA_MAX_UNREACHABLE_TASKS_PER_FRAMEWORK",
        default_value_t = 1000
    )]
    pub max_unreachable_tasks_per_framework: usize,
}

/// Why flags cannot be used. Each names the flag and the way out.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Flags of the node.
    #[error(transparent)]
    Node(#[from] FlagError),
    /// Flags of HTTP.
    #[error(transparent)]
    Http(#[from] HttpFlagError),
    /// A time outside its range.
    #[error("--{flag}={given:?} must be {range}")]
    OutOfRange {
        /// The flag.
        flag: &'static str,
        /// What was given.
        given: Duration,
        /// What is allowed.
        range: &'static str,
    },
    /// A role that is no role.
    #[error("--{flag}: bad role `{role}`")]
    Role {
        /// The flag.
        flag: &'static str,
        /// What was given.
        role: String,
        /// The rule.
        #[source]
        source: ids::RoleError,
    },
    /// A weight that is none.
    #[error(
        "--weights: `{0}` is not role=weight with a weight above 0: write for example prod=2,test=1"
    )]
    Weight(String),
    /// A share that is none.
    #[error(
        "--recovery_agent_removal_limit=`{0}` is not a share from 0% to 100%: write for example 30%"
    )]
    Share(String),
    /// A rate that is none.
    #[error("--agent_removal_rate_limit: {0}")]
    Rate(#[from] RateError),
    /// Quantities that are none.
    #[error("--min_allocatable_resources=`{0}`: {1}")]
    MinAllocatable(String, String),
    /// A coordination service is not used.
    #[error(
        "--zk={0}: Meseta elects its masters itself and uses no ZooKeeper: list them with --masters=host:port,host:port,host:port"
    )]
    Zookeeper(String),
    /// Masters that cannot elect a leader.
    #[error(transparent)]
    Members(#[from] MembersError),
    /// A quorum of nobody.
    #[error("--quorum={0} is for several masters: list them with --masters, or leave it out")]
    QuorumOfOne(usize),
    /// Several masters without a log that they share.
    #[error(
        "--masters names {0} masters, but --registry=in_memory is kept by one master alone: leave --registry out, or --masters"
    )]
    NoSharedRegistry(usize),
    /// A domain that is none.
    #[error(
        "--domain: {0}: write {{\"fault_domain\": {{\"region\": {{\"name\": \"R\"}}, \"zone\": {{\"name\": \"Z\"}}}}}}, or a file with it"
    )]
    Domain(String),
    /// The epoch file cannot be read or written.
    #[error(
        "--work_dir: cannot keep the leader epoch in {path}: free space or give another directory"
    )]
    Epoch {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The epoch file holds something else.
    #[error(
        "--work_dir: {0} does not hold a leader epoch: restore it, or write a number above the last known one into it"
    )]
    BadEpoch(PathBuf),
}

impl AsMut<NodeFlags> for Flags {
    fn as_mut(&mut self) -> &mut NodeFlags {
        &mut self.node
    }
}

impl Flags {
    /// The settings these flags mean. Takes the next leader epoch from the work directory.
    ///
    /// # Errors
    /// [`ConfigError`] that names the flag and the way out.
    pub fn config(&self) -> Result<Config, ConfigError> {
        let range = |flag, given: Duration, least: Duration, most: Duration, range| {
            if given < least || given > most {
                Err(ConfigError::OutOfRange { flag, given, range })
            } else {
                Ok(())
            }
        };
        if let Some(zk) = &self.zk {
            return Err(ConfigError::Zookeeper(zk.clone()));
        }
        self.kept()?;
        let second = Duration::from_secs(1);
        range(
            "agent_ping_timeout",
            self.agent_ping_timeout,
            second,
            second * 900,
            "1secs to 15mins",
        )?;
        range(
            "agent_reregister_timeout",
            self.agent_reregister_timeout,
            MIN_REREGISTER,
            Duration::MAX,
            "at least 10mins",
        )?;
        range(
            "allocation_interval",
            self.allocation_interval,
            Duration::from_millis(1),
            second * 3600,
            "1ms to 1hour",
        )?;
        for (flag, given) in [
            ("registry_fetch_timeout", self.registry_fetch_timeout),
            ("registry_store_timeout", self.registry_store_timeout),
            ("registry_gc_interval", self.registry_gc_interval),
        ] {
            range(flag, given, second, second * 3600, "1secs to 1hour")?;
        }
        let mut config = Config::new(next_epoch(&self.work_dir)?, &self.node.hostname());
        config.agent_ping_timeout = self.agent_ping_timeout;
        config.max_agent_ping_timeouts = self.max_agent_ping_timeouts;
        config.agent_reregister_timeout = self.agent_reregister_timeout;
        config.recovery_agent_removal_limit = share(&self.recovery_agent_removal_limit)?;
        let rate = self.agent_removal_rate_limit.as_deref();
        config.agent_removal_rate_limit = rate.map(str::parse).transpose()?;
        config.registry_fetch_timeout = self.registry_fetch_timeout;
        config.registry_store_timeout = self.registry_store_timeout;
        config.registry_gc_interval = self.registry_gc_interval;
        config.registry_keep = Keep {
            count: self.registry_max_agent_count,
            age: self.registry_max_agent_age,
        };
        config.offer_timeout = self.offer_timeout;
        config.max_operator_event_stream_subscribers =
            usize::try_from(self.max_operator_event_stream_subscribers).unwrap_or(usize::MAX);
        config.frameworks = FrameworkSettings {
            role_whitelist: self.role_whitelist()?,
            root_submissions: self.root_submissions,
        };
        config.allocator = allocator::Config {
            allocation_interval: self.allocation_interval,
            min_allocatable: allocator::parse_min_allocatable(&self.min_allocatable_resources)
                .map_err(|error| {
                    ConfigError::MinAllocatable(
                        self.min_allocatable_resources.clone(),
                        error.to_string(),
                    )
                })?,
            filter_gpu_resources: self.filter_gpu_resources,
            fair_sharing_excluded_resource_names: self
                .fair_sharing_excluded_resource_names
                .iter()
                .cloned()
                .collect(),
            weights: self.weights()?,
            master_domain: self.domain()?,
        };
        config.limits = Limits {
            completed_frameworks: self.max_completed_frameworks,
            completed_tasks: self.max_completed_tasks_per_framework,
            unreachable_tasks: self.max_unreachable_tasks_per_framework,
        };
        config.cluster.clone_from(&self.cluster);
        config.flags.clone_from(&self.node.in_force);
        let port = self.node.port.unwrap_or(DEFAULT_PORT).to_string();
        config.flags.insert("port".to_owned(), port);
        Ok(config)
    }

    /// The node that they mean.
    ///
    /// # Errors
    /// [`ConfigError::Node`], [`ConfigError::Http`].
    pub fn builder(&self) -> Result<NodeBuilder, ConfigError> {
        self.http.warn_if_insecure(self.node.is_loopback());
        let flag = "authenticate_http_frameworks";
        let component = Component {
            realms: "mesos-master",
            guarded: (self.authenticate_http_frameworks).then_some((crate::http::SCHEDULER, flag)),
            ..Component::default()
        };
        let builder = self.node.builder("master", DEFAULT_PORT)?;
        Ok(self.http.apply(builder, component)?)
    }

    /// The masters of the cluster; none when this is the only one.
    ///
    /// # Errors
    /// [`ConfigError`] when this master is not among them, or `--quorum` does not agree.
    pub fn members(&self) -> Result<Option<Members>, ConfigError> {
        let Some(list) = &self.masters else {
            return match self.quorum {
                Some(quorum) if quorum != 1 => Err(ConfigError::QuorumOfOne(quorum)),
                Some(_) | None => Ok(None),
            };
        };
        Ok(Some(Members::parse(list, self.quorum, &self.me())?))
    }

    /// Where the registry is kept.
    ///
    /// # Errors
    /// [`ConfigError`] as [`Flags::members`], and when several masters would keep their registry in memory.
    pub fn kept(&self) -> Result<Kept, ConfigError> {
        let members = self.members()?;
        if self.registry != "in_memory" {
            return Ok(Kept::Replicated(members));
        }
        match members {
            Some(members) if members.all.len() > 1 => {
                Err(ConfigError::NoSharedRegistry(members.all.len()))
            }
            Some(_) | None => Ok(Kept::InMemory),
        }
    }

    /// Where the others reach this master.
    fn me(&self) -> Address {
        let port = self.node.port.unwrap_or(DEFAULT_PORT);
        Address::new(&self.node.host(), port)
    }

    fn role_whitelist(&self) -> Result<Option<BTreeSet<Role>>, ConfigError> {
        let Some(names) = &self.roles else {
            return Ok(None);
        };
        names
            .iter()
            .map(|name| role("roles", name))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    fn weights(&self) -> Result<BTreeMap<Role, f64>, ConfigError> {
        let entry = |text: &String| {
            let bad = || ConfigError::Weight(text.clone());
            let (name, weight) = text.split_once('=').ok_or_else(bad)?;
            let weight: f64 = weight.trim().parse().map_err(|_| bad())?;
            if !weight.is_finite() || weight <= 0.0 {
                return Err(bad());
            }
            Ok((role("weights", name.trim())?, weight))
        };
        self.weights.iter().map(entry).collect()
    }

    fn domain(&self) -> Result<Option<DomainInfo>, ConfigError> {
        let Some(given) = &self.domain else {
            return Ok(None);
        };
        let path = given.strip_prefix("file://").unwrap_or(given);
        let text = if path.starts_with('/') {
            std::fs::read_to_string(path)
                .map_err(|error| ConfigError::Domain(format!("{path}: {error}")))?
        } else {
            given.clone()
        };
        let domain: DomainInfo =
            serde_json::from_str(&text).map_err(|error| ConfigError::Domain(error.to_string()))?;
        if domain.region().is_none() {
            return Err(ConfigError::Domain("there is no fault_domain".to_owned()));
        }
        Ok(Some(domain))
    }
}

/// A share such as `30%`, from 0 to 1.
fn share(text: &str) -> Result<f64, ConfigError> {
    let percent = text.trim().strip_suffix('%');
    let percent = percent.and_then(|number| number.trim().parse::<f64>().ok());
    percent
        .filter(|percent| (0.0..=100.0).contains(percent))
        .map(|percent| percent / 100.0)
        .ok_or_else(|| ConfigError::Share(text.to_owned()))
}

fn role(flag: &'static str, name: &str) -> Result<Role, ConfigError> {
    ids::validate_role(name).map_err(|source| ConfigError::Role {
        flag,
        role: name.to_owned(),
        source,
    })?;
    Ok(Role::new(name))
}

/// Default port of a master.
pub const DEFAULT_PORT: u16 = 5050;

/// Takes the next leader epoch: one more than the last one that a master with this directory had. It is on disk
/// before it is used.
///
/// # Errors
/// [`ConfigError::Epoch`] when the directory cannot be used, [`ConfigError::BadEpoch`] when its file holds no number.
pub fn next_epoch(work_dir: &Path) -> Result<u64, ConfigError> {
    let path = work_dir.join("leader_epoch");
    let failed = |source| ConfigError::Epoch {
        path: path.clone(),
        source,
    };
    std::fs::create_dir_all(work_dir).map_err(failed)?;
    let last: u64 = match std::fs::read_to_string(&path) {
        Ok(text) => text
            .trim()
            .parse()
            .map_err(|_| ConfigError::BadEpoch(path.clone()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(failed(error)),
    };
    let epoch = last + 1;
    let new = work_dir.join(".leader_epoch.new");
    let mut file = std::fs::File::create(&new).map_err(failed)?;
    std::io::Write::write_all(&mut file, format!("{epoch}\n").as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    std::fs::rename(&new, &path).map_err(failed)?;
    std::fs::File::open(work_dir)
        .and_then(|directory| directory.sync_all())
        .map_err(failed)?;
    Ok(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(directory: &Path, extra: &[&str]) -> Flags {
        let work_dir = format!("--work_dir={}", directory.display());
        let all = ["meseta-master", &work_dir]
            .into_iter()
            .chain(extra.iter().copied());
        Flags::try_parse_from(all).unwrap()
    }

    fn flags(extra: &[&str]) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        parsed(dir.path(), extra).config()
    }

    #[test]
    fn each_start_has_a_higher_epoch() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(next_epoch(dir.path()).unwrap(), 1);
        assert_eq!(next_epoch(dir.path()).unwrap(), 2);
        std::fs::write(dir.path().join("leader_epoch"), "seven").unwrap();
        assert!(matches!(
            next_epoch(dir.path()),
            Err(ConfigError::BadEpoch(_))
        ));
    }

    #[test]
    fn errors_name_the_flag() {
        for (flag, text) in [
            (
                "--agent_ping_timeout=10ms",
                "--agent_ping_timeout=10ms must be 1secs to 15mins",
            ),
            (
                "--agent_reregister_timeout=1mins",
                "--agent_reregister_timeout=60s must be at least 10mins",
            ),
            ("--weights=a=0", "--weights: `a=0` is not role=weight"),
            ("--roles=a//b", "--roles: bad role `a//b`"),
            ("--domain={}", "--domain: there is no fault_domain"),
            (
                "--zk=zk://a:2181/mesos",
                "--zk=zk://a:2181/mesos: Meseta elects its masters itself",
            ),
            ("--quorum=2", "--quorum=2 is for several masters"),
            (
                "--masters=10.0.0.1:5050",
                "--masters=10.0.0.1:5050 does not name this master, 127.0.0.1:5050",
            ),
            (
                "--recovery_agent_removal_limit=130%",
                "--recovery_agent_removal_limit=`130%` is not a share",
            ),
            (
                "--agent_removal_rate_limit=fast",
                "--agent_removal_rate_limit: `fast` is not <removals>/<time>",
            ),
            (
                "--registry_store_timeout=1ms",
                "--registry_store_timeout=1ms must be 1secs to 1hour",
            ),
        ] {
            let error = flags(&[flag]).unwrap_err().to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }

    #[test]
    fn a_registry_is_in_the_log_unless_one_master_keeps_it_in_memory() {
        let two = "--masters=127.0.0.1:5050,127.0.0.1:5051";
        for (given, in_memory) in [
            (&[][..], false),
            (&["--registry=in_memory"], true),
            (&[two], false),
        ] {
            let kept = parsed(Path::new("/w"), given).kept().unwrap();
            assert_eq!(matches!(kept, Kept::InMemory), in_memory, "{given:?}");
        }
        let error = flags(&[two, "--registry=in_memory"]).unwrap_err();
        let text = "--masters names 2 masters, but --registry=in_memory";
        assert!(error.to_string().starts_with(text), "{error}");
    }

    #[test]
    fn weights_and_roles_are_read() {
        let config = flags(&["--weights=prod=2,test=0.5", "--roles=prod,test"]).unwrap();
        let weight = config.allocator.weights[&Role::new("test")];
        assert!((weight - 0.5).abs() < f64::EPSILON);
        assert_eq!(config.frameworks.role_whitelist.unwrap().len(), 2);
    }
}
