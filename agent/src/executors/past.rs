//! What an executor has said of tasks that are over, by which that is known when it repeats it.
//!
//! Pure: a table. An executor repeats an update until it hears that it has arrived, and that word may be lost with a
//! connection or with a run of the agent. Meanwhile the task may be over, and its id in use again: what is in here belongs
//! to the earlier task and is no news. What is neither here nor about a task that the executor has is made up by the
//! executor itself, and is news.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use meseta_protocol::{TaskId, UpdateId};

/// Tasks of one executor that are remembered when they are over. More than an executor leaves unacknowledged over one break
/// of its connection; with each it says again what it still waits for.
pub const MAX_PAST_TASKS: usize = 1_000;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// Updates of the last task of each id that is over.
    tasks: BTreeMap<TaskId, BTreeSet<UpdateId>>,
    /// Ids in the order in which their tasks were over.
    order: VecDeque<TaskId>,
}

impl Past {
    /// A task is over of which the executor has said this. The id of one that is forgotten for it.
    pub fn add(&mut self, task_id: TaskId, said: BTreeSet<UpdateId>) -> Option<TaskId> {
        if self.tasks.insert(task_id.clone(), said).is_some() {
            self.order.retain(|known| *known != task_id);
        }
        self.order.push_back(task_id);
        let is_full = self.order.len() > MAX_PAST_TASKS;
        let forgotten = self.order.pop_front_if(|_| is_full)?;
        self.tasks.remove(&forgotten);
        Some(forgotten)
    }

    /// The executor has said something more of a task that is over.
    pub fn hear(&mut self, task_id: &TaskId, uuid: UpdateId) {
        if let Some(said) = self.tasks.get_mut(task_id) {
            said.insert(uuid);
        }
    }

    /// Whether a task of this id is over.
    pub fn has(&self, task_id: &TaskId) -> bool {
        self.tasks.contains_key(task_id)
    }

    /// Whether the executor has said this of a task that is over.
    pub fn knows(&self, task_id: &TaskId, uuid: &UpdateId) -> bool {
        let said = self.tasks.get(task_id);
        said.is_some_and(|said| said.contains(uuid))
    }

    /// What it has said of the last task of this id that is over.
    pub fn of(&self, task_id: &TaskId) -> Vec<UpdateId> {
        let said = self.tasks.get(task_id).into_iter().flatten();
        said.copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuids(all: &[u8]) -> BTreeSet<UpdateId> {
        let all = all.iter();
        all.map(|n| UpdateId::from_bytes([*n; 16])).collect()
    }

    fn uuid(n: u8) -> UpdateId {
        UpdateId::from_bytes([n; 16])
    }

    #[test]
    fn of_two_tasks_with_one_id_the_later_counts() {
        let mut past = Past::default();
        assert_eq!(past.add("t".into(), uuids(&[1, 2])), None);
        assert!(past.has(&"t".into()) && !past.has(&"u".into()));
        assert!(past.knows(&"t".into(), &uuid(2)) && !past.knows(&"u".into(), &uuid(2)));
        past.hear(&"t".into(), uuid(3));
        past.hear(&"u".into(), uuid(3));
        assert_eq!(past.of(&"t".into()), [uuid(1), uuid(2), uuid(3)]);
        assert_eq!(past.of(&"u".into()), []);
        past.add("t".into(), uuids(&[4]));
        assert_eq!(past.of(&"t".into()), [uuid(4)]);
    }

    #[test]
    fn so_many_are_remembered_and_the_oldest_goes_first() {
        let mut past = Past::default();
        let id = |n: usize| TaskId::new(format!("{n}"));
        for n in 0..MAX_PAST_TASKS {
            assert_eq!(past.add(id(n), uuids(&[1])), None);
        }
        // Over again, so it is none of the oldest any more.
        assert_eq!(past.add(id(0), uuids(&[2])), None);
        assert_eq!(past.add("new".into(), uuids(&[3])), Some(id(1)));
        assert!(past.has(&id(0)) && !past.has(&id(1)) && past.has(&id(2)));
    }
}
