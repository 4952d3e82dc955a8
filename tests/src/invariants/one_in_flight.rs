//! T-5: updates of a task go out in their order, the next only after the previous one is acknowledged.
//!
//! Pure. Promised in `docs/delivery.md`: only the oldest of a task is in flight. Seen from the scheduler: a new update
//! of a task comes only when it has acknowledged the last one that needs it, or when it was told of the task's end by
//! the master. That takes the agent's updates off its hands then, also the one in flight (decision 0006), and a later
//! master, which knows nothing of that end, forwards those after it. That nothing follows an end under one master is
//! law T-3's.

use std::collections::BTreeMap;

use meseta_protocol::{TaskId, UpdateId};

use super::{Event, Law};

#[derive(Debug)]
struct InFlight {
    uuid: UpdateId,
    acknowledged: bool,
    before: Vec<UpdateId>,
}

/// The newest update of each task.
#[derive(Debug, Default)]
pub struct OneInFlight {
    newest: BTreeMap<TaskId, InFlight>,
}

impl Law for OneInFlight {
    fn number(&self) -> &'static str {
        "T-5"
    }

    fn read(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Heard(heard) => {
                let Some(uuid) = heard.uuid else {
                    if heard.state.is_terminal()
                        && let Some(newest) = self.newest.get_mut(&heard.task)
                    {
                        newest.acknowledged = true;
                    }
                    return Ok(());
                };
                let Some(newest) = self.newest.get_mut(&heard.task) else {
                    let first = InFlight {
                        uuid,
                        acknowledged: false,
                        before: Vec::new(),
                    };
                    self.newest.insert(heard.task.clone(), first);
                    return Ok(());
                };
                if newest.uuid == uuid || newest.before.contains(&uuid) {
                    return Ok(());
                }
                if !newest.acknowledged {
                    return Err(format!(
                        "{} {} ({uuid}) comes before {} is acknowledged",
                        heard.task, heard.state, newest.uuid
                    ));
                }
                newest.before.push(newest.uuid);
                newest.uuid = uuid;
                newest.acknowledged = false;
            }
            Event::Acknowledged { task, uuid } => {
                if let Some(newest) = self.newest.get_mut(task)
                    && newest.uuid == *uuid
                {
                    newest.acknowledged = true;
                }
            }
            Event::Launched { .. }
            | Event::LaunchedTogether { .. }
            | Event::Started { .. }
            | Event::Stopped { .. }
            | Event::MasterStarted
            | Event::Followed(_)
            | Event::FrameworkOver(_) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{acknowledged, heard, told, verdict};
    use super::*;
    use meseta_protocol::status::TaskState;

    #[test]
    fn refuses_a_second_update_before_the_first_is_acknowledged() {
        for bad in [
            vec![
                heard("t", TaskState::Starting, 1),
                heard("t", TaskState::Running, 2),
            ],
            vec![
                heard("t", TaskState::Starting, 1),
                acknowledged("t", 1),
                heard("t", TaskState::Running, 2),
                acknowledged("t", 1),
                heard("t", TaskState::Finished, 3),
            ],
            vec![
                heard("t", TaskState::Starting, 1),
                told("t", TaskState::Starting),
                heard("t", TaskState::Running, 2),
            ],
            vec![
                heard("t", TaskState::Starting, 1),
                told("u", TaskState::Lost),
                heard("t", TaskState::Running, 2),
            ],
            vec![
                heard("t", TaskState::Starting, 1),
                told("t", TaskState::Lost),
                heard("t", TaskState::Running, 2),
                heard("t", TaskState::Finished, 3),
            ],
        ] {
            assert!(verdict(OneInFlight::default(), &bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn accepts_copies_and_one_after_the_other() {
        let good = [
            heard("t", TaskState::Starting, 1),
            heard("t", TaskState::Starting, 1),
            acknowledged("t", 1),
            heard("t", TaskState::Running, 2),
            heard("t", TaskState::Starting, 1),
            acknowledged("t", 2),
            heard("t", TaskState::Finished, 3),
            heard("u", TaskState::Finished, 4),
        ];
        assert_eq!(verdict(OneInFlight::default(), &good), Ok(()));
    }

    #[test]
    fn accepts_that_the_master_acknowledges_what_comes_of_a_task_it_has_declared_ended() {
        let good = [
            heard("t", TaskState::Starting, 1),
            told("t", TaskState::Lost),
            Event::MasterStarted,
            told("t", TaskState::Running),
            heard("t", TaskState::Running, 2),
        ];
        assert_eq!(verdict(OneInFlight::default(), &good), Ok(()));
    }
}
