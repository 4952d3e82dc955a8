//! T-4: a task's states follow the table: never from KILLING back to RUNNING, never from an end to anything.
//!
//! Pure. The table stands at [`TaskState`]; ends are law T-3's. Read over what a scheduler hears for the first time:
//! a copy of an earlier update changes nothing, and what the master tells by itself (without a uuid) is where the task
//! stands for it, which may be where it stood before.
//!
//! ```text
//! STAGING -> STARTING -> RUNNING -> KILLING -> an end        each may be left out
//! any of these <-> UNREACHABLE
//! ```

use std::collections::{BTreeMap, BTreeSet};

use meseta_protocol::status::TaskState;
use meseta_protocol::{TaskId, UpdateId};

use super::{Event, Law};

/// How far a task has come.
fn rank(state: TaskState) -> Option<u8> {
    match state {
        TaskState::Staging => Some(0),
        TaskState::Starting => Some(1),
        TaskState::Running => Some(2),
        TaskState::Killing => Some(3),
        TaskState::Finished
        | TaskState::Failed
        | TaskState::Killed
        | TaskState::Error
        | TaskState::Lost
        | TaskState::Dropped
        | TaskState::Gone
        | TaskState::GoneByOperator => Some(4),
        TaskState::Unreachable | TaskState::Unknown | TaskState::Unrecognised => None,
    }
}

#[derive(Debug, Default)]
struct Task {
    last: Option<TaskState>,
    known: BTreeSet<UpdateId>,
}

/// Where each task stands by its own updates.
#[derive(Debug, Default)]
pub struct StateTable {
    tasks: BTreeMap<TaskId, Task>,
}

impl Law for StateTable {
    fn number(&self) -> &'static str {
        "T-4"
    }

    fn read(&mut self, event: &Event) -> Result<(), String> {
        let Event::Heard(heard) = event else {
            return Ok(());
        };
        let Some(uuid) = heard.uuid else {
            return Ok(());
        };
        let task = self.tasks.entry(heard.task.clone()).or_default();
        if !task.known.insert(uuid) {
            return Ok(());
        }
        let Some(reached) = rank(heard.state) else {
            return Err(format!(
                "{}: {} is not for an executor or an agent to say",
                heard.task, heard.state
            ));
        };
        let last = task.last.replace(heard.state);
        match last {
            Some(before) if rank(before).is_some_and(|rank| rank > reached) => Err(format!(
                "{} goes from {before} back to {}",
                heard.task, heard.state
            )),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{heard, told, verdict};
    use super::*;

    #[test]
    fn refuses_steps_back_and_states_of_others() {
        for bad in [
            vec![
                heard("t", TaskState::Killing, 1),
                heard("t", TaskState::Running, 2),
            ],
            vec![
                heard("t", TaskState::Running, 1),
                heard("t", TaskState::Starting, 2),
            ],
            vec![heard("t", TaskState::Unreachable, 1)],
        ] {
            assert!(verdict(StateTable::default(), &bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn accepts_the_way_forward_with_copies_and_words_of_the_master() {
        let good = [
            heard("t", TaskState::Starting, 1),
            heard("t", TaskState::Running, 2),
            heard("t", TaskState::Starting, 1),
            told("t", TaskState::Starting),
            told("t", TaskState::Unreachable),
            heard("t", TaskState::Running, 3),
            heard("t", TaskState::Killing, 4),
            heard("t", TaskState::Killed, 5),
            heard("u", TaskState::Failed, 6),
        ];
        assert_eq!(verdict(StateTable::default(), &good), Ok(()));
    }
}
