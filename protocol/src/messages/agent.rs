//! Between an agent and the master.
//!
//! Pure. What the master says travels inside [`Led`](super::Led).

use serde_bytes::ByteBuf;

use crate::agent::{AgentCapability, AgentInfo, DrainConfig};
use crate::common::DurationInfo;
use crate::executor::ExecutorInfo;
use crate::framework::FrameworkInfo;
use crate::ids::{AgentId, ExecutorId, FrameworkId, ResourceProviderId, TaskId, UpdateId};
use crate::resources::Resources;
use crate::status::StatusUpdate;
use crate::task::{KillPolicy, Task, TaskGroupInfo, TaskInfo};
use crate::wire::record;

record! {
    /// Agent → master: take me in. Repeated until [`AgentRegistered`] answers.
    pub struct RegisterAgent {
        /// The agent; without an id.
        pub agent: AgentInfo,
        /// Version of its program.
        pub version: String,
        /// What it can do.
        pub capabilities: Vec<AgentCapability>,
        /// Dynamic reservations and volumes it has written down.
        pub checkpointed_resources: Resources,
        /// Version of its resources; launches made for another one are refused.
        pub resource_version_uuid: Option<UpdateId>,
    }
}

record! {
    /// Agent → master: I was in before, and this is what runs here. Repeated until [`AgentReregistered`] answers.
    pub struct ReregisterAgent {
        /// The agent; with its id.
        pub agent: AgentInfo,
        /// Version of its program.
        pub version: String,
        /// What it can do.
        pub capabilities: Vec<AgentCapability>,
        /// Dynamic reservations and volumes it has written down.
        pub checkpointed_resources: Resources,
        /// Version of its resources.
        pub resource_version_uuid: Option<UpdateId>,
        /// Executors that run; each with its framework's id. Those of tasks with a command are not among them.
        pub executor_infos: Vec<ExecutorInfo>,
        /// Tasks that have not ended, and ended ones whose last update is not acknowledged.
        pub tasks: Vec<Task>,
        /// Frameworks with something on the agent.
        pub frameworks: Vec<FrameworkInfo>,
        /// Frameworks that once had something on the agent.
        pub completed_frameworks: Vec<FrameworkInfo>,
        /// The leadership that the agent has detected; 0 when nobody says which it is. A master that leads under another
        /// one ignores the message: it was on its way for long, and other things run on the agent now.
        pub leader_epoch: u64,
    }
}

record! {
    /// Agent → master: I am leaving for good.
    pub struct UnregisterAgent {
        /// The agent.
        pub agent_id: AgentId,
    }
}

record! {
    /// Agent → master: what I have has changed.
    pub struct UpdateAgent {
        /// The agent.
        pub agent_id: AgentId,
        /// Whether `oversubscribed_resources` replaces what was said before.
        pub update_oversubscribed_resources: bool,
        /// Revocable resources beyond the agent's own.
        pub oversubscribed_resources: Resources,
        /// New version of its resources.
        pub resource_version_uuid: Option<UpdateId>,
    }
}

record! {
    /// Agent → master: a task's state. Resent until acknowledged when it has a uuid.
    pub struct UpdateStatus {
        /// The update.
        pub update: StatusUpdate,
    }
}

record! {
    /// Agent → master: an executor has ended.
    pub struct ExecutorExited {
        /// The agent.
        pub agent_id: AgentId,
        /// Framework of the executor.
        pub framework_id: FrameworkId,
        /// The executor.
        pub executor_id: ExecutorId,
        /// How it ended, as the operating system's wait status.
        pub status: i32,
    }
}

record! {
    /// Agent → master, from an executor for its framework: anything; may be lost.
    pub struct ExecutorToFramework {
        /// The agent.
        pub agent_id: AgentId,
        /// The framework.
        pub framework_id: FrameworkId,
        /// The executor.
        pub executor_id: ExecutorId,
        /// The content.
        pub data: ByteBuf,
    }
}

record! {
    /// Agent → master: the answer to [`Ping`].
    #[derive(Copy, Eq)]
    pub struct Pong {}
}

record! {
    /// Master → agent: you are in.
    pub struct AgentRegistered {
        /// The id the agent has from now on.
        pub agent_id: AgentId,
        /// Time without a ping after which the agent looks for the master again.
        pub total_ping_timeout: DurationInfo,
    }
}

record! {
    /// Tasks of one framework that the master knows on an agent and the agent did not list. It answers for each one
    /// that it does not know.
    pub struct Reconciliation {
        /// The framework.
        pub framework_id: FrameworkId,
        /// The tasks as the master knows them.
        pub tasks: Vec<Task>,
    }
}

record! {
    /// Master → agent: you are in again.
    pub struct AgentReregistered {
        /// The agent's id.
        pub agent_id: AgentId,
        /// Time without a ping after which the agent looks for the master again.
        pub total_ping_timeout: DurationInfo,
        /// What the master knows and the agent did not list.
        pub reconciliations: Vec<Reconciliation>,
    }
}

record! {
    /// Master → agent: are you there? Answer with [`Pong`].
    #[derive(Copy, Eq)]
    pub struct Ping {
        /// Whether the master counts the agent as connected; if not, the agent registers again.
        pub connected: bool,
    }
}

record! {
    /// Version of the resources of a provider, or of the agent itself.
    #[derive(Eq)]
    pub struct ResourceVersion {
        /// The provider; none for the agent itself.
        pub resource_provider_id: Option<ResourceProviderId>,
        /// The version.
        pub uuid: UpdateId,
    }
}

record! {
    /// Master → agent: start a task.
    pub struct RunTask {
        /// The framework.
        pub framework_id: FrameworkId,
        /// The framework's description.
        pub framework: FrameworkInfo,
        /// The task.
        pub task: TaskInfo,
        /// Its executor; none for a task with a command. Equal to the task's.
        pub executor: Option<ExecutorInfo>,
        /// Whether the master believes that the executor does not run yet.
        pub launch_executor: bool,
        /// Names this launch: the agent starts it at most once, even when the task's id is used again.
        pub launch_uuid: UpdateId,
        /// Versions of the resources that the launch was made for.
        pub resource_version_uuids: Vec<ResourceVersion>,
    }
}

record! {
    /// Master → agent: start tasks together, all or none. Its tasks are sent in no other message.
    pub struct RunTaskGroup {
        /// The framework.
        pub framework_id: FrameworkId,
        /// The framework's description.
        pub framework: FrameworkInfo,
        /// The executor, of type CUSTOM.
        pub executor: ExecutorInfo,
        /// The tasks, each with that executor. Nothing happens when there is none.
        pub task_group: TaskGroupInfo,
        /// Whether the master believes that the executor does not run yet.
        pub launch_executor: bool,
        /// Names this launch: the agent carries it out at most once, and knows the group by it.
        pub launch_uuid: UpdateId,
        /// Versions of the resources that the launch was made for.
        pub resource_version_uuids: Vec<ResourceVersion>,
    }
}

record! {
    /// Master → agent: stop a task.
    pub struct KillAgentTask {
        /// The framework.
        pub framework_id: FrameworkId,
        /// The task.
        pub task_id: TaskId,
        /// How; as the task says when missing.
        pub kill_policy: Option<KillPolicy>,
    }
}

record! {
    /// Master → agent: end all executors of a framework.
    pub struct ShutdownFramework {
        /// The framework.
        pub framework_id: FrameworkId,
    }
}

record! {
    /// Master → agent: end an executor.
    pub struct ShutdownAgentExecutor {
        /// The framework.
        pub framework_id: FrameworkId,
        /// The executor.
        pub executor_id: ExecutorId,
    }
}

record! {
    /// Master → agent: a framework is subscribed again or has changed; resend what it has not acknowledged.
    pub struct UpdateFramework {
        /// The framework.
        pub framework_id: FrameworkId,
        /// Its description.
        pub framework_info: FrameworkInfo,
    }
}

record! {
    /// Master → agent: a framework has dealt with an update.
    pub struct AcknowledgeAgentStatus {
        /// The agent.
        pub agent_id: AgentId,
        /// The framework.
        pub framework_id: FrameworkId,
        /// The task.
        pub task_id: TaskId,
        /// The update.
        pub uuid: UpdateId,
    }
}

record! {
    /// Master → agent, from a framework for its executor: anything; may be lost.
    pub struct FrameworkToExecutor {
        /// The agent.
        pub agent_id: AgentId,
        /// The framework.
        pub framework_id: FrameworkId,
        /// The executor.
        pub executor_id: ExecutorId,
        /// The content.
        pub data: ByteBuf,
    }
}

record! {
    /// Master → agent: stop all tasks and start no more.
    #[derive(Copy, Eq)]
    pub struct DrainAgent {
        /// How.
        pub config: DrainConfig,
    }
}

record! {
    /// Master → agent: end everything and stop.
    pub struct ShutdownAgent {
        /// Why.
        pub message: String,
    }
}
