//! States of tasks, and the updates that report them.
//!
//! Pure. Source: Mesos `include/mesos/v1/mesos.proto`, `docs/task-state-reasons.md`.

use serde_bytes::ByteBuf;

use crate::common::{Labels, TimeInfo};
use crate::container::ContainerStatus;
use crate::ids::{AgentId, ExecutorId, FrameworkId, TaskId, UpdateId};
use crate::resources::Resources;
use crate::task::CheckStatusInfo;
use crate::wire::{names, record};

names! {
    /// Where a task stands.
    ///
    /// ```text
    /// STAGING -> STARTING -> RUNNING -> KILLING -> one of the ends
    /// any of these <-> UNREACHABLE, when the agent is lost and found
    /// ```
    pub enum TaskState default Staging {
        /// Accepted by the master, not yet by an executor.
        Staging = 6 "TASK_STAGING",
        /// The executor has it.
        Starting = 0 "TASK_STARTING",
        /// It runs.
        Running = 1 "TASK_RUNNING",
        /// It is being stopped.
        Killing = 8 "TASK_KILLING",
        /// End: it did what it should.
        Finished = 2 "TASK_FINISHED",
        /// End: it did not.
        Failed = 3 "TASK_FAILED",
        /// End: it was stopped.
        Killed = 4 "TASK_KILLED",
        /// End: it could not be described like that.
        Error = 7 "TASK_ERROR",
        /// End, for frameworks that know no better: it is not there.
        Lost = 5 "TASK_LOST",
        /// End: it never started.
        Dropped = 9 "TASK_DROPPED",
        /// Its agent cannot be reached; it may come back.
        Unreachable = 10 "TASK_UNREACHABLE",
        /// End: it was running and is not any more.
        Gone = 11 "TASK_GONE",
        /// End: an operator said that its agent is gone.
        GoneByOperator = 12 "TASK_GONE_BY_OPERATOR",
        /// The master knows nothing of it.
        Unknown = 13 "TASK_UNKNOWN",
    } else
    /// A state this version does not know.
    Unrecognised = -1 "TASK_UNRECOGNISED"
}

impl TaskState {
    /// Whether a task never leaves this state.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Finished
            | Self::Failed
            | Self::Killed
            | Self::Error
            | Self::Lost
            | Self::Dropped
            | Self::Gone
            | Self::GoneByOperator => true,
            Self::Staging
            | Self::Starting
            | Self::Running
            | Self::Killing
            | Self::Unreachable
            | Self::Unknown
            | Self::Unrecognised => false,
        }
    }

    /// What a framework that is not PARTITION_AWARE is told instead.
    #[must_use]
    pub const fn for_partition_unaware(self) -> Self {
        match self {
            Self::Dropped
            | Self::Unreachable
            | Self::Gone
            | Self::GoneByOperator
            | Self::Unknown => Self::Lost,
            Self::Staging
            | Self::Starting
            | Self::Running
            | Self::Killing
            | Self::Finished
            | Self::Failed
            | Self::Killed
            | Self::Error
            | Self::Lost
            | Self::Unrecognised => self,
        }
    }
}

names! {
    /// Who made an update.
    pub enum StatusSource default Unknown {
        /// The master.
        Master = 0 "SOURCE_MASTER",
        /// The agent.
        Agent = 1 "SOURCE_AGENT" | "SOURCE_SLAVE",
        /// The executor.
        Executor = 2 "SOURCE_EXECUTOR",
    } else
    /// Missing, or one this version does not know.
    Unknown = -1 "SOURCE_UNKNOWN"
}

names! {
    /// Why an update was made.
    pub enum StatusReason default Unknown {
        /// The command executor failed.
        CommandExecutorFailed = 0 "REASON_COMMAND_EXECUTOR_FAILED",
        /// The executor ended.
        ExecutorTerminated = 1 "REASON_EXECUTOR_TERMINATED",
        /// The executor never registered; no longer used.
        ExecutorUnregistered = 2 "REASON_EXECUTOR_UNREGISTERED",
        /// The framework was removed.
        FrameworkRemoved = 3 "REASON_FRAMEWORK_REMOVED",
        /// Old directories could not be kept from removal.
        GcError = 4 "REASON_GC_ERROR",
        /// The framework is not the one it says.
        InvalidFrameworkId = 5 "REASON_INVALID_FRAMEWORKID",
        /// An offer used was no longer valid.
        InvalidOffers = 6 "REASON_INVALID_OFFERS",
        /// There is no connection to the master.
        MasterDisconnected = 7 "REASON_MASTER_DISCONNECTED",
        /// The container used more memory than it may.
        ContainerLimitationMemory = 8 "REASON_CONTAINER_LIMITATION_MEMORY",
        /// Asked for by the framework or the agent.
        Reconciliation = 9 "REASON_RECONCILIATION",
        /// The agent is disconnected.
        AgentDisconnected = 10 "REASON_AGENT_DISCONNECTED" | "REASON_SLAVE_DISCONNECTED",
        /// The agent was removed.
        AgentRemoved = 11 "REASON_AGENT_REMOVED" | "REASON_SLAVE_REMOVED",
        /// The agent was restarted.
        AgentRestarted = 12 "REASON_AGENT_RESTARTED" | "REASON_SLAVE_RESTARTED",
        /// The agent is unknown.
        AgentUnknown = 13 "REASON_AGENT_UNKNOWN" | "REASON_SLAVE_UNKNOWN",
        /// The task's description is wrong.
        TaskInvalid = 14 "REASON_TASK_INVALID",
        /// The framework may not run this task.
        TaskUnauthorized = 15 "REASON_TASK_UNAUTHORIZED",
        /// The task is unknown.
        TaskUnknown = 16 "REASON_TASK_UNKNOWN",
        /// The container gave way to others.
        ContainerPreempted = 17 "REASON_CONTAINER_PREEMPTED",
        /// The agent does not know a reservation or volume used.
        ResourcesUnknown = 18 "REASON_RESOURCES_UNKNOWN",
        /// The container passed a limit.
        ContainerLimitation = 19 "REASON_CONTAINER_LIMITATION",
        /// The container used more disk than it may.
        ContainerLimitationDisk = 20 "REASON_CONTAINER_LIMITATION_DISK",
        /// The container could not be started.
        ContainerLaunchFailed = 21 "REASON_CONTAINER_LAUNCH_FAILED",
        /// The container could not be resized.
        ContainerUpdateFailed = 22 "REASON_CONTAINER_UPDATE_FAILED",
        /// The executor did not register in time.
        ExecutorRegistrationTimeout = 23 "REASON_EXECUTOR_REGISTRATION_TIMEOUT",
        /// The executor did not come back in time after a restart of the agent.
        ExecutorReregistrationTimeout = 24 "REASON_EXECUTOR_REREGISTRATION_TIMEOUT",
        /// The description of the task's group is wrong.
        TaskGroupInvalid = 25 "REASON_TASK_GROUP_INVALID",
        /// The framework may not run the task's group.
        TaskGroupUnauthorized = 26 "REASON_TASK_GROUP_UNAUTHORIZED",
        /// What carries the container's input and output ended.
        IoSwitchboardExited = 27 "REASON_IO_SWITCHBOARD_EXITED",
        /// The check has a new result.
        TaskCheckStatusUpdated = 28 "REASON_TASK_CHECK_STATUS_UPDATED",
        /// The health check has a new result.
        TaskHealthCheckStatusUpdated = 29 "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED",
        /// It was stopped before it started.
        TaskKilledDuringLaunch = 30 "REASON_TASK_KILLED_DURING_LAUNCH",
        /// An operator removed the agent.
        AgentRemovedByOperator = 31 "REASON_AGENT_REMOVED_BY_OPERATOR" | "REASON_SLAVE_REMOVED_BY_OPERATOR",
        /// The agent came back.
        AgentReregistered = 32 "REASON_AGENT_REREGISTERED" | "REASON_SLAVE_REREGISTERED",
        /// It ran longer than it may.
        MaxCompletionTimeReached = 33 "REASON_MAX_COMPLETION_TIME_REACHED",
        /// The agent is being drained.
        AgentDraining = 34 "REASON_AGENT_DRAINING" | "REASON_SLAVE_DRAINING",
    } else
    /// One this version does not know.
    Unknown = -1 "REASON_UNKNOWN"
}

record! {
    /// Which limit ended a container.
    pub struct TaskResourceLimitation {
        /// What was exceeded.
        pub resources: Resources,
    }
}

record! {
    /// A report on a task.
    pub struct TaskStatus {
        /// The task.
        pub task_id: TaskId,
        /// Where it stands.
        pub state: TaskState,
        /// In words.
        pub message: Option<String>,
        /// Who made the report.
        pub source: Option<StatusSource>,
        /// Why.
        pub reason: Option<StatusReason>,
        /// Anything the executor wants the framework to have.
        pub data: Option<ByteBuf>,
        /// Its agent; missing only in answers about tasks whose agent the question did not name.
        pub agent_id: Option<AgentId>,
        /// Its executor; set by agents and executors, never by the master.
        pub executor_id: Option<ExecutorId>,
        /// When, in seconds since 1970-01-01 UTC.
        pub timestamp: Option<f64>,
        /// Set exactly when the report must be acknowledged.
        pub uuid: Option<UpdateId>,
        /// What the health check says; none without one or before its first result.
        pub healthy: Option<bool>,
        /// What the check says.
        pub check_status: Option<CheckStatusInfo>,
        /// Notes.
        pub labels: Option<Labels>,
        /// What its container got.
        pub container_status: Option<ContainerStatus>,
        /// When its agent was lost.
        pub unreachable_time: Option<TimeInfo>,
        /// Which limit ended it.
        pub limitation: Option<TaskResourceLimitation>,
    }
}

impl TaskStatus {
    /// A report without further details.
    pub fn new(task_id: impl Into<TaskId>, state: TaskState) -> Self {
        Self {
            task_id: task_id.into(),
            state,
            ..Self::default()
        }
    }

    /// The same with a source and a reason.
    #[must_use]
    pub fn because(mut self, source: StatusSource, reason: StatusReason) -> Self {
        self.source = Some(source);
        self.reason = Some(reason);
        self
    }

    /// The same in words.
    #[must_use]
    pub fn saying(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }
}

record! {
    /// A report on its way to the framework.
    pub struct StatusUpdate {
        /// Framework it is for.
        pub framework_id: FrameworkId,
        /// Executor that runs the task.
        pub executor_id: Option<ExecutorId>,
        /// Agent the task runs on; none in answers about tasks whose agent is not known.
        pub agent_id: Option<AgentId>,
        /// The report.
        pub status: TaskStatus,
        /// When, in seconds since 1970-01-01 UTC.
        pub timestamp: f64,
        /// Set exactly when the report must be acknowledged; equal to the status's.
        pub uuid: Option<UpdateId>,
        /// The task's newest state, when this report is an old one that waited for its turn.
        pub latest_state: Option<TaskState>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_the_published_ones() {
        let numbers: Vec<i32> = TaskState::ALL.iter().map(|state| state.number()).collect();
        assert_eq!(numbers, [6, 0, 1, 8, 2, 3, 4, 7, 5, 9, 10, 11, 12, 13]);
        for (number, reason) in (0..).zip(StatusReason::ALL) {
            assert_eq!(reason.number(), number);
            assert_eq!(StatusReason::from_name(reason.name()), *reason);
        }
        assert_eq!(StatusReason::ALL.len(), 35);
    }

    #[test]
    fn older_names_are_read() {
        assert_eq!(
            StatusReason::from_name("REASON_SLAVE_REMOVED"),
            StatusReason::AgentRemoved
        );
        assert_eq!(StatusSource::from_name("SOURCE_SLAVE"), StatusSource::Agent);
    }

    #[test]
    fn eight_states_are_ends() {
        let ends = TaskState::ALL.iter().filter(|state| state.is_terminal());
        assert_eq!(ends.count(), 8);
        assert_eq!(
            TaskState::Unreachable.for_partition_unaware(),
            TaskState::Lost
        );
        assert_eq!(
            TaskState::Running.for_partition_unaware(),
            TaskState::Running
        );
    }

    #[test]
    fn a_state_from_the_future_is_no_error() {
        let json = r#"{"task_id":"t","state":"TASK_DREAMING","new_field":{"a":[1]}}"#;
        let status: TaskStatus = serde_json::from_str(json).unwrap();
        assert_eq!(status, TaskStatus::new("t", TaskState::Unrecognised));
    }
}
