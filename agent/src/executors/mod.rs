//! Frameworks on this agent, their executors, and the tasks of each: where every task is, and what may happen next.
//!
//! Pure: tables, no processes and no clock. Source: agent.md §1, §4, §5, §7.
//!
//! ```text
//! executor:  REGISTERING ── subscribes ──> RUNNING ──> TERMINATING ──> TERMINATED
//!                 └────────── shut down, destroyed ──────^                ^
//!                 any ────────────────────── container gone ──────────────┘
//! task:      queued ── executor runs ──> launched ── an end ──> terminated ── acknowledged ──> completed
//!              └────────────── an end ───────────────────────────^
//! ```

mod executor;
mod framework;
mod past;
mod tables;
#[cfg(test)]
mod tests;
mod unit;

use meseta_protocol::TaskId;
use meseta_protocol::status::{StatusReason, TaskState};

pub use executor::{Executor, process_id};
pub use framework::Framework;
pub use past::{MAX_PAST_TASKS, MAX_SAID, Past, Said};
pub use tables::Tables;
pub use unit::{Place, Unit};

/// Completed tasks remembered per executor.
pub const MAX_COMPLETED_TASKS: usize = 200;
/// Completed frameworks remembered.
pub const MAX_COMPLETED_FRAMEWORKS: usize = 50;

/// Where an executor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Launched; it has not subscribed yet.
    Registering,
    /// Subscribed.
    Running,
    /// Told to end, or being ended.
    Terminating,
    /// Nothing of its container is left.
    Terminated,
}

/// What the tasks of an executor are told when the agent ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Termination {
    /// Their state; frameworks that know no better are told TASK_LOST instead.
    pub state: TaskState,
    /// Why.
    pub reason: StatusReason,
    /// In words.
    pub message: String,
}

impl Termination {
    /// TASK_FAILED for this reason.
    pub fn failed(reason: StatusReason, message: impl Into<String>) -> Self {
        Self {
            state: TaskState::Failed,
            reason,
            message: message.into(),
        }
    }
}

/// What becomes of what is launched on an executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchVerdict {
    /// It waits until the executor subscribes.
    Queued,
    /// The executor gets it now.
    Send,
    /// The executor is ending.
    Refused,
}

/// What becomes of a kill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KillVerdict {
    /// The task had not been given to the executor and never will be.
    Dequeued,
    /// The same of the group that it was launched with: these tasks.
    GroupDequeued(Vec<TaskId>),
    /// The executor must do it.
    Tell,
    /// The executor is ending; its tasks' ends will be reported.
    Ignore,
}

/// What becomes of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateVerdict {
    /// It is news.
    Forward,
    /// The task has ended already, or is not with the executor yet: the executor is told that the update arrived,
    /// nobody else.
    Stale,
}
