//! What an executor has said of tasks that are over, by which that is known when it repeats it.
//!
//! Pure: a table. An executor repeats an update until it hears that it has arrived, and that word may be lost with a
//! connection or with a run of the agent. Meanwhile the task may be over, and its id in use again: what is in here belongs
//! to the earlier task and is no news. What is neither here nor about a task that the executor has is made up by the
//! executor itself, and is news.

use std::collections::{BTreeMap, VecDeque};

use meseta_protocol::{TaskId, UpdateId};

/// Tasks of one executor that are remembered when they are over. More than an executor leaves unacknowledged over one break
/// of its connection; with each it says again what it still waits for.
pub const MAX_PAST_TASKS: usize = 1_000;

/// Updates of one task by which a repeated one is known. An executor repeats one only until it hears that it has arrived.
pub const MAX_SAID: usize = 100;

/// What an executor has said of one task: the latest [`MAX_SAID`] updates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said(VecDeque<UpdateId>);

impl Said {
    /// It has said this too.
    pub fn insert(&mut self, uuid: UpdateId) {
        if self.contains(&uuid) {
            return;
        }
        self.0.push_back(uuid);
        if self.0.len() > MAX_SAID {
            self.0.pop_front();
        }
    }

    /// Whether it has said this.
    pub fn contains(&self, uuid: &UpdateId) -> bool {
        self.0.contains(uuid)
    }

    /// Whether it has said nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What it has said, the earliest first.
    pub fn iter(&self) -> impl Iterator<Item = &UpdateId> {
        self.0.iter()
    }
}

impl FromIterator<UpdateId> for Said {
    fn from_iter<I: IntoIterator<Item = UpdateId>>(all: I) -> Self {
        let mut said = Self::default();
        for uuid in all {
            said.insert(uuid);
        }
        said
    }
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// Updates of the last task of each id that is over.
    tasks: BTreeMap<TaskId, Said>,
    /// Ids in the order in which their tasks were over.
    order: VecDeque<TaskId>,
}

impl Past {
    /// A task is over of which the executor has said this. The id of one that is forgotten for it.
    pub fn add(&mut self, task_id: TaskId, said: Said) -> Option<TaskId> {
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
        let said = self.tasks.get(task_id).into_iter().flat_map(Said::iter);
        said.copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuids(all: &[u8]) -> Said {
        let all = all.iter();
        all.map(|n| UpdateId::from_bytes([*n; 16])).collect()
    }

    fn uuid(n: u8) -> UpdateId {
        UpdateId::from_bytes([n; 16])
    }

    #[test]
    fn of_much_that_was_said_the_latest_is_known() {
        let id = |n: usize| UpdateId::from_bytes((n as u128).to_be_bytes());
        let said: Said = (0..=MAX_SAID).chain([1, 2]).map(id).collect();
        assert!(!said.contains(&id(0)));
        assert!(said.iter().copied().eq((1..=MAX_SAID).map(id)));
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
