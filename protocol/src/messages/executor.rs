//! Between an executor and its agent.
//!
//! Pure. Executors speak to their own agent only; the agent knows them by the key it gave them.

use serde_bytes::ByteBuf;

use crate::agent::AgentInfo;
use crate::executor::ExecutorInfo;
use crate::framework::FrameworkInfo;
use crate::ids::{AgentId, ContainerId, ExecutorId, FrameworkId, TaskId, UpdateId};
use crate::status::{StatusUpdate, TaskStatus};
use crate::task::{KillPolicy, TaskGroupInfo, TaskInfo};
use crate::wire::record;

record! {
    /// Executor → agent: here I am, or here I am again. Repeated until [`ExecutorSubscribed`] or
    /// [`ExecutorRefused`] answers.
    pub struct SubscribeExecutor {
        /// Its framework.
        pub framework_id: FrameworkId,
        /// The executor.
        pub executor_id: ExecutorId,
        /// Tasks of which no update is acknowledged yet.
        pub unacknowledged_tasks: Vec<TaskInfo>,
        /// Updates that are not acknowledged yet, oldest first.
        pub unacknowledged_updates: Vec<StatusUpdate>,
    }
}

record! {
    /// Executor → agent: a task's state. Kept until [`UpdateAcknowledged`] answers.
    pub struct UpdateTask {
        /// Its framework.
        pub framework_id: FrameworkId,
        /// The executor.
        pub executor_id: ExecutorId,
        /// The state; with a uuid.
        pub status: TaskStatus,
    }
}

record! {
    /// Executor → agent, for the framework: anything; may be lost.
    pub struct SendToFramework {
        /// Its framework.
        pub framework_id: FrameworkId,
        /// The executor.
        pub executor_id: ExecutorId,
        /// The content.
        pub data: ByteBuf,
    }
}

record! {
    /// Agent → executor: the answer to [`SubscribeExecutor`].
    pub struct ExecutorSubscribed {
        /// The executor as its framework described it.
        pub executor_info: ExecutorInfo,
        /// Its framework.
        pub framework_info: FrameworkInfo,
        /// The agent.
        pub agent_info: AgentInfo,
        /// The agent's id.
        pub agent_id: AgentId,
        /// Container the executor runs in.
        pub container_id: ContainerId,
    }
}

record! {
    /// Agent → executor: start a task.
    pub struct LaunchTask {
        /// The task.
        pub task: TaskInfo,
    }
}

record! {
    /// Agent → executor: start tasks together. What it has of them already makes this a repetition of the same launch.
    pub struct LaunchTaskGroup {
        /// The tasks.
        pub task_group: TaskGroupInfo,
    }
}

record! {
    /// Agent → executor: stop a task.
    pub struct KillExecutorTask {
        /// The task.
        pub task_id: TaskId,
        /// How; as the task says when missing.
        pub kill_policy: Option<KillPolicy>,
    }
}

record! {
    /// Agent → executor: an update is safe with the agent.
    pub struct UpdateAcknowledged {
        /// The task.
        pub task_id: TaskId,
        /// The update.
        pub uuid: UpdateId,
    }
}

record! {
    /// Agent → executor, from the framework: anything; may be lost.
    pub struct MessageToExecutor {
        /// The content.
        pub data: ByteBuf,
    }
}

record! {
    /// Agent → executor: stop all tasks and end.
    #[derive(Copy, Eq)]
    pub struct ShutdownExecutorNow {}
}

record! {
    /// Agent → executor: I do not know you, or not any more; end.
    pub struct ExecutorRefused {
        /// Why.
        pub message: String,
    }
}
