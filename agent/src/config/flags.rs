//! Flags of `meseta-agent`: names, defaults and what each says of itself.
//!
//! Flag names are those of Mesos; each can also come from the environment as `MESETA_<NAME>`. `MESOS_*` is never read.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser};
use meseta_runtime::flags::NodeFlags;
use meseta_runtime::http::flags::HttpFlags;

use super::ExecutorTransport;
use crate::recovery::{Mode, Policy};

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
        env = "MESETA_EXECUTOR_ENVIRONMENT_VARIABLES",
        hide_env_values = true
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
    /// What it finds out by itself may have changed in any case; with `equal` it goes on to offer what it did.
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
    /// Flags of HTTP.
    #[command(flatten)]
    pub http: HttpFlags,
    /// Whether executors have to show their token over HTTP. Needs --jwt_secret_key.
    #[arg(long = "authenticate_http_executors", env = "MESETA_AUTHENTICATE_HTTP_EXECUTORS", action = ArgAction::Set,
        default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub authenticate_http_executors: bool,
    /// File with the key that the tokens of executors are signed with, 32 random bytes or more. With it executors get
    /// tokens; it must stay the same while any of them runs.
    #[arg(long = "jwt_secret_key", env = "MESETA_JWT_SECRET_KEY")]
    pub jwt_secret_key: Option<PathBuf>,
    /// How others prove over HTTP who they are: basic and jwt are the only ways, and both are taken wherever they can be.
    #[arg(long = "http_authenticators", env = "MESETA_HTTP_AUTHENTICATORS", value_delimiter = ',',
        value_parser = ["basic", "jwt"])]
    pub http_authenticators: Vec<String>,
}

/// A share from 0 to 1.
fn share(text: &str) -> Result<f64, String> {
    let share: Option<f64> = text.trim().parse().ok();
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| format!("`{text}` is no share: write a number from 0 to 1, such as 0.1"))
}
