//! What has changed in the tables, for those who want to hear of it.
//!
//! Pure. The tables note a change where they make it, and only while somebody listens; the shell takes what was noted at
//! the end of each turn. A change holds what it is about where that is gone or different by the end of the turn, and
//! else its id.
//!
//! Changes say what Mesos' events can say: of an agent that it is here, not whether its connection stands; of a task
//! its states, not whether its last one was acknowledged. A task that leaves the tables without having ended, because
//! its agent came back without it, is told by the return of the agent alone.

use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::status::{StatusReason, StatusSource, TaskState, TaskStatus};
use meseta_protocol::task::Task;
use meseta_protocol::{AgentId, FrameworkId};

use super::State;

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A task is known from now on, or again.
    TaskAdded(Box<Task>),
    /// A task has another state, or its state another reason.
    TaskUpdated(Box<Updated>),
    /// An agent is here, or describes itself anew.
    AgentAdded(AgentId),
    /// An agent is not here any more. What becomes of its tasks was noted before.
    AgentRemoved(AgentId),
    /// A framework is known from now on.
    FrameworkAdded(FrameworkId),
    /// A framework stands differently, or describes itself anew.
    FrameworkUpdated(FrameworkId),
    /// A framework is over. So are its tasks, which was noted before.
    FrameworkRemoved(Box<FrameworkInfo>),
}

/// What a task's state is from now on.
#[derive(Debug, Clone, PartialEq)]
pub struct Updated {
    /// Its framework.
    pub framework_id: FrameworkId,
    /// What was said of it, without data.
    pub status: TaskStatus,
    /// Its state: that of the status, unless its agent knows of a later one.
    pub state: TaskState,
}

/// Changes that nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Noted {
    listening: bool,
    changes: Vec<Change>,
}

impl Noted {
    /// Notes a change, if somebody listens.
    pub(super) fn note(&mut self, change: impl FnOnce() -> Change) {
        if !self.listening {
            return;
        }
        let change = change();
        // A framework that comes back changes in several respects at once.
        if self.changes.last() != Some(&change) {
            self.changes.push(change);
        }
    }

    pub(super) fn updated(
        &mut self,
        framework_id: &FrameworkId,
        status: &TaskStatus,
        state: TaskState,
    ) {
        self.note(|| {
            Change::TaskUpdated(Box::new(Updated {
                framework_id: framework_id.clone(),
                status: status.clone(),
                state,
            }))
        });
    }
}

/// What is said of a task that ends with its framework.
pub(super) fn ended_with_its_framework(task: &Task) -> TaskStatus {
    let mut status = TaskStatus::new(task.task_id.clone(), TaskState::Killed)
        .because(StatusSource::Master, StatusReason::FrameworkRemoved)
        .saying(format!("Framework {} removed", task.framework_id));
    status.agent_id = Some(task.agent_id.clone());
    status
}

impl State {
    /// Whether changes are noted from now on. What was noted and not taken is forgotten.
    pub fn listen(&mut self, listening: bool) {
        self.noted = Noted {
            listening,
            changes: Vec::new(),
        };
    }

    /// The changes since they were taken last, in the order they were made.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.noted.changes)
    }

    /// Notes what a framework is told of a task whose agent has left or will not come back.
    pub(crate) fn note_lost(&mut self, framework_id: &FrameworkId, status: &TaskStatus) {
        self.noted.updated(framework_id, status, status.state);
    }

    /// Notes that an agent has been taken out.
    pub(crate) fn note_removed(&mut self, id: &AgentId) {
        self.noted.note(|| Change::AgentRemoved(id.clone()));
    }
}

#[cfg(test)]
#[path = "changes_tests.rs"]
mod tests;
