//! T-2: no launch is silently lost: it runs and ends with an update, or is reported dropped, unreachable, gone or
//! unknown.
//!
//! Pure. Promised in `docs/delivery.md`: "The end of a task"; for an `accept` that never arrived, that reconciliation
//! tells. Looked at when the run has converged, by when every task's time is over and every scheduler has asked about
//! what it had not heard the end of.

use std::collections::{BTreeMap, BTreeSet};

use meseta_protocol::TaskId;
use meseta_protocol::status::TaskState;

use super::{Event, FrameworkNumber, Law};

/// What each scheduler knows of what it has launched.
#[derive(Debug, Default)]
pub struct NoLaunchLost {
    /// The last state heard of a task; none when nothing was.
    tasks: BTreeMap<TaskId, (FrameworkNumber, Option<TaskState>)>,
    over: BTreeSet<FrameworkNumber>,
}

/// Whether a scheduler that has heard this of a task can go on without it.
pub fn is_settled(state: TaskState) -> bool {
    state.is_terminal() || matches!(state, TaskState::Unreachable | TaskState::Unknown)
}

impl Law for NoLaunchLost {
    fn number(&self) -> &'static str {
        "T-2"
    }

    fn read(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Launched {
                framework, task, ..
            } => {
                self.tasks.insert(task.clone(), (*framework, None));
            }
            Event::Heard(heard) => {
                if let Some((_, last)) = self.tasks.get_mut(&heard.task) {
                    *last = Some(heard.state);
                }
            }
            Event::FrameworkOver(framework) => {
                self.over.insert(*framework);
            }
            Event::LaunchedTogether { .. }
            | Event::Started { .. }
            | Event::Stopped { .. }
            | Event::Acknowledged { .. }
            | Event::MasterStarted
            | Event::Followed(_) => {}
        }
        Ok(())
    }

    fn end(&self) -> Result<(), String> {
        let lost = self.tasks.iter().find(|(_, (framework, last))| {
            !self.over.contains(framework) && !last.is_some_and(is_settled)
        });
        match lost {
            Some((task, (framework, last))) => Err(format!(
                "framework {framework} launched {task} and in the end has heard {}",
                last.map_or_else(|| "nothing of it".to_owned(), |state| state.to_string())
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{heard, launched, started, told, verdict};
    use super::*;

    #[test]
    fn refuses_a_launch_of_which_nothing_or_no_end_is_heard() {
        for bad in [
            vec![launched("t")],
            vec![
                launched("t"),
                started("t"),
                heard("t", TaskState::Running, 1),
            ],
        ] {
            assert!(verdict(NoLaunchLost::default(), &bad).is_err());
        }
    }

    #[test]
    fn accepts_ends_reports_and_frameworks_that_are_over() {
        let good = [
            launched("ends"),
            heard("ends", TaskState::Running, 1),
            heard("ends", TaskState::Failed, 2),
            launched("unknown"),
            told("unknown", TaskState::Unknown),
        ];
        assert_eq!(verdict(NoLaunchLost::default(), &good), Ok(()));
        let over = [launched("t"), Event::FrameworkOver(0)];
        assert_eq!(verdict(NoLaunchLost::default(), &over), Ok(()));
    }
}
