//! Executors: the programs that run a framework's tasks on an agent.
//!
//! Pure. Source: Mesos `include/mesos/v1/mesos.proto`.

use serde_bytes::ByteBuf;

use crate::common::{CommandInfo, DurationInfo, Labels};
use crate::container::ContainerInfo;
use crate::ids::{ExecutorId, FrameworkId};
use crate::resources::Resources;
use crate::task::DiscoveryInfo;
use crate::wire::{names, record};

names! {
    /// Whose program the executor is.
    pub enum ExecutorType default Unknown {
        /// The agent's own, for task groups.
        Default = 1 "DEFAULT",
        /// The framework's.
        Custom = 2 "CUSTOM",
    } else
    /// Missing, or one this version does not know.
    Unknown = 0 "UNKNOWN"
}

record! {
    /// An executor as its framework describes it.
    pub struct ExecutorInfo {
        /// Whose program it is; a missing type means the framework's.
        #[serde(rename = "type")]
        pub kind: Option<ExecutorType>,
        /// Its id.
        pub executor_id: ExecutorId,
        /// Its framework; for a task by itself filled in by the master when missing, for a group it has to be given.
        pub framework_id: Option<FrameworkId>,
        /// Program to start; only for the framework's own.
        pub command: Option<CommandInfo>,
        /// Its container.
        pub container: Option<ContainerInfo>,
        /// What it uses itself, beside its tasks.
        pub resources: Resources,
        /// Name for people.
        pub name: Option<String>,
        /// The older field: name of its source.
        pub source: Option<String>,
        /// Anything the framework wants to hand to it.
        pub data: Option<ByteBuf>,
        /// How others find it.
        pub discovery: Option<DiscoveryInfo>,
        /// Time to stop by itself before it is killed; the agent's when missing.
        pub shutdown_grace_period: Option<DurationInfo>,
        /// Notes.
        pub labels: Option<Labels>,
    }
}

impl ExecutorInfo {
    /// A framework's own executor.
    pub fn custom(executor_id: impl Into<ExecutorId>, command: CommandInfo) -> Self {
        Self {
            kind: Some(ExecutorType::Custom),
            executor_id: executor_id.into(),
            command: Some(command),
            ..Self::default()
        }
    }

    /// The agent's own executor for task groups.
    pub fn default_executor(executor_id: impl Into<ExecutorId>, resources: Resources) -> Self {
        Self {
            kind: Some(ExecutorType::Default),
            executor_id: executor_id.into(),
            resources,
            ..Self::default()
        }
    }
}
