//! Tasks as frameworks describe them and as masters and agents remember them.
//!
//! Pure. Source: Mesos `include/mesos/v1/mesos.proto`.

use serde_bytes::ByteBuf;

use crate::common::{CommandInfo, DurationInfo, Labels};
use crate::container::ContainerInfo;
use crate::executor::ExecutorInfo;
use crate::ids::{AgentId, ExecutorId, FrameworkId, TaskId, UpdateId};
use crate::resources::{ResourceLimits, Resources};
use crate::status::{TaskState, TaskStatus};
use crate::wire::{names, record};

names! {
    /// How to find out whether a task is well.
    pub enum CheckType default Unknown {
        /// Run a command.
        Command = 1 "COMMAND",
        /// Ask over HTTP.
        Http = 2 "HTTP",
        /// Open a TCP connection.
        Tcp = 3 "TCP",
    } else
    /// Missing, or one this version does not know.
    Unknown = 0 "UNKNOWN"
}

record! {
    /// Command of a check.
    pub struct CommandCheck {
        /// Exit status 0 means well.
        pub command: CommandInfo,
    }
}

record! {
    /// HTTP request of a check.
    #[derive(Eq)]
    pub struct HttpCheck {
        /// Port of the task.
        pub port: u32,
        /// Path, beginning with `/`.
        pub path: Option<String>,
    }
}

record! {
    /// TCP connection of a check.
    #[derive(Copy, Eq)]
    pub struct TcpCheck {
        /// Port of the task.
        pub port: u32,
    }
}

record! {
    own Default;
    /// A check whose results are reported and mean nothing to Meseta.
    pub struct CheckInfo {
        /// How to check; missing is refused.
        #[serde(rename = "type")]
        pub kind: Option<CheckType>,
        /// Set for COMMAND.
        pub command: Option<CommandCheck>,
        /// Set for HTTP.
        pub http: Option<HttpCheck>,
        /// Set for TCP.
        pub tcp: Option<TcpCheck>,
        /// Seconds before the first check; 15 when missing.
        pub delay_seconds: f64,
        /// Seconds between the end of one and the next; 10 when missing.
        pub interval_seconds: f64,
        /// Seconds one may take, 0 for any time; 20 when missing.
        pub timeout_seconds: f64,
    }
}

impl Default for CheckInfo {
    fn default() -> Self {
        Self {
            kind: None,
            command: None,
            http: None,
            tcp: None,
            delay_seconds: 15.0,
            interval_seconds: 10.0,
            timeout_seconds: 20.0,
        }
    }
}

record! {
    /// HTTP request of a health check.
    #[derive(Eq)]
    pub struct HttpHealthCheck {
        /// Version of the Internet protocol of the local address.
        pub protocol: crate::container::IpProtocol,
        /// `http` or `https`; http when missing.
        pub scheme: Option<String>,
        /// Port of the task.
        pub port: u32,
        /// Path, beginning with `/`.
        pub path: Option<String>,
        /// Kept for old frameworks, not used.
        pub statuses: Vec<u32>,
    }
}

record! {
    /// TCP connection of a health check.
    #[derive(Copy, Eq)]
    pub struct TcpHealthCheck {
        /// Version of the Internet protocol of the local address.
        pub protocol: crate::container::IpProtocol,
        /// Port of the task.
        pub port: u32,
    }
}

record! {
    own Default;
    /// A check that ends the task when it fails too often.
    pub struct HealthCheck {
        /// How to check; missing is refused.
        #[serde(rename = "type")]
        pub kind: Option<CheckType>,
        /// Set for COMMAND.
        pub command: Option<CommandInfo>,
        /// Set for HTTP.
        pub http: Option<HttpHealthCheck>,
        /// Set for TCP.
        pub tcp: Option<TcpHealthCheck>,
        /// Seconds before the first check; 15 when missing.
        pub delay_seconds: f64,
        /// Seconds between the end of one and the next; 10 when missing.
        pub interval_seconds: f64,
        /// Seconds one may take, 0 for any time; 20 when missing.
        pub timeout_seconds: f64,
        /// Failures in a row that end the task; 3 when missing.
        pub consecutive_failures: u32,
        /// Seconds in which failures before the first success do not count; 10 when missing.
        pub grace_period_seconds: f64,
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            kind: None,
            command: None,
            http: None,
            tcp: None,
            delay_seconds: 15.0,
            interval_seconds: 10.0,
            timeout_seconds: 20.0,
            consecutive_failures: 3,
            grace_period_seconds: 10.0,
        }
    }
}

names! {
    /// Who should find a task or executor.
    pub enum DiscoveryVisibility default Unknown {
        /// Only its framework.
        Framework = 0 "FRAMEWORK",
        /// The cluster.
        Cluster = 1 "CLUSTER",
        /// Everybody.
        External = 2 "EXTERNAL",
    } else
    /// Missing, or one this version does not know.
    Unknown = -1 "UNKNOWN"
}

record! {
    /// A port by which something is found.
    pub struct Port {
        /// The number.
        pub number: u32,
        /// Its name.
        pub name: Option<String>,
        /// `tcp`, `udp` …
        pub protocol: Option<String>,
        /// Who should find it.
        pub visibility: Option<DiscoveryVisibility>,
        /// Notes.
        pub labels: Option<Labels>,
    }
}

record! {
    /// Ports by which something is found.
    pub struct Ports {
        /// The ports.
        pub ports: Vec<Port>,
    }
}

record! {
    /// How others find a task or executor; kept and shown, not read.
    pub struct DiscoveryInfo {
        /// Who should find it.
        pub visibility: DiscoveryVisibility,
        /// Its name.
        pub name: Option<String>,
        /// The environment it belongs to: test, production …
        pub environment: Option<String>,
        /// Where it stands.
        pub location: Option<String>,
        /// Its version.
        pub version: Option<String>,
        /// Its ports.
        pub ports: Option<Ports>,
        /// Notes.
        pub labels: Option<Labels>,
    }
}

record! {
    /// How to stop a task.
    #[derive(Copy, Eq)]
    pub struct KillPolicy {
        /// Time between the polite signal and the final one; 3 s when missing.
        pub grace_period: Option<DurationInfo>,
    }
}

record! {
    /// A task as its framework describes it: with a command, or with an executor that runs it.
    pub struct TaskInfo {
        /// Name for people.
        pub name: String,
        /// Its id.
        pub task_id: TaskId,
        /// Agent to run on: that of the offer.
        pub agent_id: AgentId,
        /// What it uses.
        pub resources: Resources,
        /// What it may use at most, where that is more than it asked for: cpus and mem only, mem may be infinite.
        pub limits: ResourceLimits,
        /// Executor to run it; not together with `command`.
        pub executor: Option<ExecutorInfo>,
        /// Program to run; not together with `executor`.
        pub command: Option<CommandInfo>,
        /// Its container.
        pub container: Option<ContainerInfo>,
        /// Anything the framework wants to hand to the executor.
        pub data: Option<ByteBuf>,
        /// Check that ends it.
        pub health_check: Option<HealthCheck>,
        /// Check that is reported.
        pub check: Option<CheckInfo>,
        /// How to stop it.
        pub kill_policy: Option<KillPolicy>,
        /// Notes.
        pub labels: Option<Labels>,
        /// How others find it.
        pub discovery: Option<DiscoveryInfo>,
        /// Longest time it may run.
        pub max_completion_time: Option<DurationInfo>,
    }
}

impl TaskInfo {
    /// A task that runs a shell script.
    pub fn new(
        task_id: impl Into<TaskId>,
        agent_id: impl Into<AgentId>,
        resources: Resources,
        script: impl Into<String>,
    ) -> Self {
        let task_id = task_id.into();
        Self {
            name: task_id.to_string(),
            task_id,
            agent_id: agent_id.into(),
            resources,
            command: Some(CommandInfo::shell(script)),
            ..Self::default()
        }
    }

    /// The id of the executor that runs it: its executor's, or for a task with a command its own.
    pub fn effective_executor_id(&self) -> ExecutorId {
        self.executor.as_ref().map_or_else(
            || ExecutorId::new(self.task_id.as_str()),
            |executor| executor.executor_id.clone(),
        )
    }
}

record! {
    /// Tasks that start together and of which none runs without the others.
    pub struct TaskGroupInfo {
        /// The tasks.
        pub tasks: Vec<TaskInfo>,
    }
}

record! {
    /// A task as a master or agent remembers it.
    pub struct Task {
        /// Name for people.
        pub name: String,
        /// Its id.
        pub task_id: TaskId,
        /// Its framework.
        pub framework_id: FrameworkId,
        /// Its executor; none for a task with a command.
        pub executor_id: Option<ExecutorId>,
        /// Agent it runs on.
        pub agent_id: AgentId,
        /// Latest state the master knows.
        pub state: TaskState,
        /// What it uses.
        pub resources: Resources,
        /// What it may use at most.
        pub limits: ResourceLimits,
        /// Its updates, one for each run of equal states, without data.
        pub statuses: Vec<TaskStatus>,
        /// State of the update last forwarded to the framework.
        pub status_update_state: Option<TaskState>,
        /// Id of the update last forwarded to the framework.
        pub status_update_uuid: Option<UpdateId>,
        /// Notes.
        pub labels: Option<Labels>,
        /// How others find it.
        pub discovery: Option<DiscoveryInfo>,
        /// Its container.
        pub container: Option<ContainerInfo>,
        /// Check that ends it.
        pub health_check: Option<HealthCheck>,
        /// Check that is reported.
        pub check: Option<CheckInfo>,
        /// User it runs as.
        pub user: Option<String>,
        /// How to stop it.
        pub kill_policy: Option<KillPolicy>,
        /// Longest time it may run.
        pub max_completion_time: Option<DurationInfo>,
    }
}

impl Task {
    /// The record of a task about to start: STAGING, without updates.
    pub fn new(info: &TaskInfo, framework_id: &FrameworkId, default_user: &str) -> Self {
        let user = info.command.as_ref().and_then(|c| c.user.clone());
        let executor_command = info.executor.as_ref().and_then(|e| e.command.as_ref());
        let user = user.or_else(|| executor_command.and_then(|c| c.user.clone()));
        Self {
            name: info.name.clone(),
            task_id: info.task_id.clone(),
            framework_id: framework_id.clone(),
            executor_id: info.executor.as_ref().map(|e| e.executor_id.clone()),
            agent_id: info.agent_id.clone(),
            state: TaskState::Staging,
            resources: info.resources.clone(),
            limits: info.limits.clone(),
            labels: info.labels.clone(),
            discovery: info.discovery.clone(),
            container: info.container.clone(),
            health_check: info.health_check.clone(),
            check: info.check.clone(),
            user: Some(user.unwrap_or_else(|| default_user.to_owned())),
            kill_policy: info.kill_policy,
            max_completion_time: info.max_completion_time,
            ..Self::default()
        }
    }
}

record! {
    /// Result of a check by command.
    #[derive(Copy, Eq)]
    pub struct CommandCheckStatus {
        /// Exit status; none when the check could not be completed.
        pub exit_code: Option<i32>,
    }
}

record! {
    /// Result of a check over HTTP.
    #[derive(Copy, Eq)]
    pub struct HttpCheckStatus {
        /// Status of the answer; none when there was none.
        pub status_code: Option<u32>,
    }
}

record! {
    /// Result of a check over TCP.
    #[derive(Copy, Eq)]
    pub struct TcpCheckStatus {
        /// Whether the connection opened; none when unknown.
        pub succeeded: Option<bool>,
    }
}

record! {
    /// Latest result of a task's check; the field of its type is set, empty before the first result.
    #[derive(Copy, Eq)]
    pub struct CheckStatusInfo {
        /// How it is checked.
        #[serde(rename = "type")]
        pub kind: Option<CheckType>,
        /// Set for COMMAND.
        pub command: Option<CommandCheckStatus>,
        /// Set for HTTP.
        pub http: Option<HttpCheckStatus>,
        /// Set for TCP.
        pub tcp: Option<TcpCheckStatus>,
    }
}
