//! T-3: after a task's end only copies of it follow.
//!
//! Pure. Promised in `docs/decisions/0006`: a framework hears no more of a task after its end. A copy is the same
//! update once more, or the same state where one of the two has no uuid, as reconciliation answers. Three exceptions:
//!
//! - An end that a master itself declared (it has no uuid) is in its memory only. Once the framework follows another
//!   master, what really became of the task may still be heard.
//! - The master keeps nothing of a task that it refused: TASK_ERROR without a uuid, or TASK_DROPPED without one when the
//!   offers were not valid any more. Whoever asked about it before the refusal was heard is told that nothing is known of
//!   it.
//! - A master without the registry of its predecessor does not know of agents that stay away. Whoever asks about a task
//!   there after its ping window is told that nothing is known of it, in the words of frameworks that know no better:
//!   TASK_LOST. The agent may come back with the task.

use std::collections::BTreeMap;

use meseta_protocol::status::TaskState;
use meseta_protocol::{TaskId, UpdateId};

use super::{Event, FrameworkNumber, Heard, Law};

#[derive(Debug)]
struct End {
    state: TaskState,
    uuid: Option<UpdateId>,
    /// Whether it was the answer to a question.
    answer: bool,
    /// How many masters its framework had followed. Not how many had begun to lead: one that has lost the leadership, and
    /// does not know yet, is followed for a while beside the next.
    masters: usize,
}

/// How each task ended, as its scheduler has heard it.
#[derive(Debug, Default)]
pub struct NothingAfterTheEnd {
    ends: BTreeMap<TaskId, End>,
    masters: BTreeMap<FrameworkNumber, usize>,
}

impl NothingAfterTheEnd {
    fn heard(&mut self, heard: &Heard) -> Result<(), String> {
        let masters = self.masters.get(&heard.framework).copied().unwrap_or(0);
        let end = End {
            state: heard.state,
            uuid: heard.uuid,
            answer: heard.answer,
            masters,
        };
        if let Some(known) = self.ends.get_mut(&heard.task) {
            let copy = match (heard.uuid, known.uuid) {
                (Some(uuid), Some(first)) => uuid == first,
                (None, _) | (_, None) => heard.state == known.state,
            };
            let forgotten = known.uuid.is_none() && known.masters < masters;
            if copy {
                known.uuid = known.uuid.or(heard.uuid);
            }
            let unknown = matches!(
                heard.state,
                TaskState::Unknown
                    | TaskState::Gone
                    | TaskState::GoneByOperator
                    | TaskState::Lost
                    | TaskState::Unreachable
            );
            let refused = matches!(known.state, TaskState::Error | TaskState::Dropped);
            let refused = refused && known.uuid.is_none();
            if copy || refused && unknown && heard.uuid.is_none() {
                return Ok(());
            }
            let guessed = known.answer && known.uuid.is_none() && known.state == TaskState::Lost;
            if !forgotten && !guessed {
                return Err(format!(
                    "framework {} heard that {} ended as {}, and now hears {}",
                    heard.framework, heard.task, known.state, heard.state
                ));
            }
            self.ends.remove(&heard.task);
        }
        if heard.state.is_terminal() {
            self.ends.insert(heard.task.clone(), end);
        }
        Ok(())
    }
}

impl Law for NothingAfterTheEnd {
    fn number(&self) -> &'static str {
        "T-3"
    }

    fn read(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Heard(heard) => self.heard(heard),
            Event::Followed(framework) => {
                *self.masters.entry(*framework).or_default() += 1;
                Ok(())
            }
            Event::MasterStarted
            | Event::Launched { .. }
            | Event::LaunchedTogether { .. }
            | Event::Started { .. }
            | Event::Stopped { .. }
            | Event::Acknowledged { .. }
            | Event::FrameworkOver(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answered, heard, told, verdict};
    use super::*;

    #[test]
    fn refuses_another_end_and_a_return() {
        for bad in [
            vec![
                heard("t", TaskState::Finished, 1),
                heard("t", TaskState::Failed, 2),
            ],
            vec![
                heard("t", TaskState::Finished, 1),
                heard("t", TaskState::Finished, 2),
            ],
            vec![
                told("t", TaskState::Lost),
                heard("t", TaskState::Running, 1),
            ],
            vec![told("t", TaskState::Error), told("t", TaskState::Running)],
            vec![
                told("t", TaskState::Dropped),
                heard("t", TaskState::Failed, 1),
            ],
            vec![
                heard("t", TaskState::Dropped, 1),
                told("t", TaskState::Gone),
            ],
            vec![
                told("t", TaskState::Lost),
                answered("t", TaskState::Lost),
                heard("t", TaskState::Failed, 1),
            ],
            vec![
                heard("t", TaskState::Killed, 1),
                Event::Followed(0),
                told("t", TaskState::Lost),
            ],
            vec![
                told("t", TaskState::Lost),
                Event::MasterStarted,
                Event::Followed(1),
                heard("t", TaskState::Running, 1),
            ],
        ] {
            assert!(
                verdict(NothingAfterTheEnd::default(), &bad).is_err(),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn accepts_copies_and_what_a_new_master_cannot_know() {
        let good = [
            heard("t", TaskState::Running, 1),
            heard("t", TaskState::Finished, 2),
            heard("t", TaskState::Finished, 2),
            told("t", TaskState::Finished),
            told("refused", TaskState::Error),
            told("refused", TaskState::Unknown),
            told("late", TaskState::Dropped),
            told("late", TaskState::Gone),
            told("u", TaskState::Lost),
            Event::MasterStarted,
            told("u", TaskState::Lost),
            Event::Followed(0),
            heard("u", TaskState::Running, 3),
            heard("u", TaskState::Finished, 4),
            answered("away", TaskState::Lost),
            heard("away", TaskState::Failed, 5),
        ];
        assert_eq!(verdict(NothingAfterTheEnd::default(), &good), Ok(()));
    }
}
