//! T-10: of tasks that were launched as a group either none is started, or all are, at once and in one place.
//!
//! Pure. Promised in `docs/delivery.md`: "A group of tasks". An executor is given a group with one message and starts it in
//! one turn, so that nothing can come between the start of its first task and that of its last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meseta_protocol::TaskId;

use super::{Event, Law};

/// What was launched as groups, and which is being started.
#[derive(Debug, Default)]
pub struct GroupsAreWhole {
    /// The group of each task that was launched in one.
    groups: BTreeMap<TaskId, Arc<BTreeSet<TaskId>>>,
    /// Where the last group is being started, and what is missing of it.
    begun: Option<(String, BTreeSet<TaskId>)>,
}

impl GroupsAreWhole {
    fn nothing_missing(&self) -> Result<(), String> {
        match &self.begun {
            Some((container, missing)) => Err(format!(
                "a group was started in {container} without {missing:?}"
            )),
            None => Ok(()),
        }
    }
}

impl Law for GroupsAreWhole {
    fn number(&self) -> &'static str {
        "T-10"
    }

    fn read(&mut self, event: &Event) -> Result<(), String> {
        if let Event::LaunchedTogether { tasks } = event {
            let group: Arc<BTreeSet<TaskId>> = Arc::new(tasks.iter().cloned().collect());
            let members = tasks.iter().cloned();
            self.groups
                .extend(members.map(|task| (task, Arc::clone(&group))));
        }
        let Event::Started { task, container } = event else {
            return self.nothing_missing();
        };
        match &mut self.begun {
            Some((first, missing)) if first == container => {
                if !missing.remove(task) {
                    return self.nothing_missing();
                }
            }
            Some(_) => return self.nothing_missing(),
            None => {
                let group = self.groups.get(task);
                let others = group.map(|group| group.iter().filter(|one| *one != task));
                let missing = others.into_iter().flatten().cloned().collect();
                self.begun = Some((container.clone(), missing));
            }
        }
        self.begun.take_if(|(_, missing)| missing.is_empty());
        Ok(())
    }

    fn end(&self) -> Result<(), String> {
        self.nothing_missing()
    }
}

#[cfg(test)]
mod tests {
    use meseta_protocol::status::TaskState;

    use super::super::tests::{heard, launched, started, verdict};
    use super::*;

    fn together(tasks: [&str; 2]) -> Event {
        Event::LaunchedTogether {
            tasks: tasks.map(TaskId::from).to_vec(),
        }
    }

    fn started_in(task: &str, container: &str) -> Event {
        Event::Started {
            task: task.into(),
            container: container.to_owned(),
        }
    }

    #[test]
    fn refuses_a_group_of_which_one_is_not_started_or_later_or_elsewhere() {
        let killed = || heard("u", TaskState::Killed, 1);
        let bad = [
            vec![started("t")],
            vec![started("t"), killed(), started("u")],
            vec![killed(), started("t"), started("s"), started("u")],
            vec![started_in("t", "c"), started_in("u", "d")],
        ];
        for bad in bad {
            let begin = [launched("t"), launched("u"), together(["t", "u"])];
            let all: Vec<Event> = begin.into_iter().chain(bad).collect();
            assert!(verdict(GroupsAreWhole::default(), &all).is_err(), "{all:?}");
        }
    }

    #[test]
    fn accepts_groups_that_start_whole_or_never_and_tasks_by_themselves() {
        let good = [
            together(["t", "u"]),
            together(["v", "w"]),
            started("s"),
            started("u"),
            started("t"),
            heard("v", TaskState::Killed, 1),
            heard("w", TaskState::Killed, 2),
            started("r"),
        ];
        assert_eq!(verdict(GroupsAreWhole::default(), &good), Ok(()));
    }
}
