//! Which instances of a command wait, run and have ended.
//!
//! Pure. What changes is told as an [`Entry`]; all of them in their order make the same [`Run`] again.

use std::collections::{BTreeMap, BTreeSet};

use meseta_protocol::status::{StatusReason, StatusSource, TaskState, TaskStatus};
use meseta_protocol::{AgentId, TaskId};

/// How often an instance that is lost is started before it counts as failed.
const MAX_ATTEMPTS: u32 = 20;

/// What becomes of the instances.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) waiting: Vec<u32>,
    pub(super) running: BTreeMap<TaskId, (u32, AgentId)>,
    attempts: BTreeMap<u32, u32>,
    /// Those that were lost, until their delay is over.
    resting: BTreeSet<u32>,
    pub(super) finished: u32,
    pub(super) failed: u32,
}

/// Something that has happened to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// It was launched: which attempt that is, and on which agent.
    Launched(u32, u32, AgentId),
    /// It was lost.
    Lost(u32),
    /// It is over, and has finished or not.
    Over(u32, bool),
}

/// The task of an instance's attempt.
fn name(instance: u32, attempt: u32) -> TaskId {
    match attempt {
        1 => TaskId::new(format!("task-{instance}")),
        n => TaskId::new(format!("task-{instance}-retry-{n}")),
    }
}

/// What one update means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The task goes on, or is none of ours.
    Going,
    /// This instance is over, and whether it has finished.
    Over(u32, bool),
    /// This instance was lost, and rests until [`Run::rested`].
    Again(u32),
}

impl Run {
    pub(super) fn new(instances: u32) -> Self {
        Self {
            waiting: (1..=instances).rev().collect(),
            ..Self::default()
        }
    }

    pub(super) fn start_next(&mut self, agent: &AgentId) -> Option<TaskId> {
        let instance = self.waiting.pop()?;
        let attempt = self.attempts.entry(instance).or_default();
        *attempt += 1;
        let id = name(instance, *attempt);
        self.running.insert(id.clone(), (instance, agent.clone()));
        Some(id)
    }

    /// The same run after what an earlier program has written down of it.
    pub(super) fn follow(&mut self, entry: &Entry) {
        match entry {
            Entry::Launched(instance, attempt, agent) => {
                self.waiting.retain(|waiting| waiting != instance);
                self.attempts.insert(*instance, *attempt);
                let task = name(*instance, *attempt);
                self.running.insert(task, (*instance, agent.clone()));
            }
            Entry::Lost(instance) => {
                self.running.retain(|_, (running, _)| running != instance);
                self.waiting.push(*instance);
            }
            Entry::Over(instance, is_fine) => {
                self.running.retain(|_, (running, _)| running != instance);
                let count = if *is_fine {
                    &mut self.finished
                } else {
                    &mut self.failed
                };
                *count += 1;
            }
        }
    }

    /// What the launch of this task, which has just been started, is written down as.
    pub(super) fn launched(&self, task_id: &TaskId) -> Option<Entry> {
        let (instance, agent) = self.running.get(task_id)?;
        let attempt = self.attempts.get(instance).copied().unwrap_or(1);
        Some(Entry::Launched(*instance, attempt, agent.clone()))
    }

    pub(super) fn update(&mut self, status: &TaskStatus) -> Fate {
        let lost = is_lost(status);
        if !status.state.is_terminal() && !lost {
            return Fate::Going;
        }
        let Some((instance, _)) = self.running.remove(&status.task_id) else {
            return Fate::Going;
        };
        let attempts = self.attempts.get(&instance).copied().unwrap_or_default();
        if lost && attempts < MAX_ATTEMPTS {
            self.resting.insert(instance);
            return Fate::Again(instance);
        }
        let is_fine = status.state == TaskState::Finished;
        if is_fine {
            self.finished += 1;
        } else {
            self.failed += 1;
        }
        Fate::Over(instance, is_fine)
    }

    /// The delay of a lost instance is over.
    pub(super) fn rested(&mut self, instance: u32) {
        if self.resting.remove(&instance) {
            self.waiting.push(instance);
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty() && self.resting.is_empty()
    }
}

/// Whether a task ended, or cannot be reached, through no fault of its own command.
fn is_lost(status: &TaskStatus) -> bool {
    let not_by_executor = status.source != Some(StatusSource::Executor);
    match status.state {
        TaskState::Lost
        | TaskState::Dropped
        | TaskState::Gone
        | TaskState::GoneByOperator
        | TaskState::Unreachable
        | TaskState::Unknown => true,
        // The executor was killed, crashed, or could not be started.
        TaskState::Failed => {
            not_by_executor
                && matches!(
                    status.reason,
                    Some(
                        StatusReason::ExecutorTerminated
                            | StatusReason::ExecutorRegistrationTimeout
                            | StatusReason::ContainerLaunchFailed
                    )
                )
        }
        TaskState::Staging
        | TaskState::Starting
        | TaskState::Running
        | TaskState::Killing
        | TaskState::Finished
        | TaskState::Killed
        | TaskState::Error
        | TaskState::Unrecognised => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_instance_runs_again_and_a_failed_one_does_not() {
        let mut run = Run::new(2);
        let agent = AgentId::new("a");
        let (one, two) = (
            run.start_next(&agent).unwrap(),
            run.start_next(&agent).unwrap(),
        );
        assert_eq!(run.start_next(&agent), None);
        assert_eq!(
            run.update(&TaskStatus::new(one.clone(), TaskState::Lost)),
            Fate::Again(1)
        );
        assert_eq!(run.start_next(&agent), None, "it rests");
        assert!(!run.is_over());
        assert_eq!(
            run.update(&TaskStatus::new(one, TaskState::Finished)),
            Fate::Going
        );
        run.rested(1);
        run.rested(1);
        let again = run.start_next(&agent).unwrap();
        assert_eq!(again, TaskId::new("task-1-retry-2"));
        let mut failed = TaskStatus::new(two, TaskState::Failed);
        failed.source = Some(StatusSource::Executor);
        assert_eq!(run.update(&failed), Fate::Over(2, false));
        assert_eq!(
            run.update(&TaskStatus::new(again, TaskState::Finished)),
            Fate::Over(1, true)
        );
        assert!(run.is_over());
        assert_eq!((run.finished, run.failed), (1, 1));
    }

    #[test]
    fn what_was_written_down_makes_the_same_run_again() {
        let mut run = Run::new(3);
        let mut written = Vec::new();
        let agent = AgentId::new("a");
        let start = |run: &mut Run, written: &mut Vec<Entry>| {
            let task = run.start_next(&agent).unwrap();
            written.extend(run.launched(&task));
            task
        };
        let one = start(&mut run, &mut written);
        let two = start(&mut run, &mut written);
        let lost = run.update(&TaskStatus::new(one, TaskState::Lost));
        assert_eq!(lost, Fate::Again(1));
        written.push(Entry::Lost(1));
        run.rested(1);
        run.update(&TaskStatus::new(two, TaskState::Finished));
        written.push(Entry::Over(2, true));
        let again = start(&mut run, &mut written);
        assert_eq!(again, TaskId::new("task-1-retry-2"));
        let mut other = Run::new(3);
        for entry in &written {
            other.follow(entry);
        }
        assert_eq!(other, run);
    }
}
