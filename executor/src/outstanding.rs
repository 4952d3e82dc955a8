//! Updates that the agent has not acknowledged, in the order they were made.
//!
//! Pure. Each step costs the same however many there are: an executor that runs thousands of tasks has thousands.

use std::collections::{BTreeMap, HashMap};

use meseta_protocol::UpdateId;
use meseta_protocol::status::StatusUpdate;

/// The updates. Those made before a certain one are on their way over the present connection, the others are not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outstanding {
    updates: BTreeMap<u64, StatusUpdate>,
    places: HashMap<UpdateId, u64>,
    /// Place of the next one.
    next: u64,
    /// Place of the first one that is not on its way.
    unsent: u64,
}

impl Outstanding {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.updates.len()
    }

    /// One more, named by `uuid`, which is on its way if all before it are and `sent` says so.
    pub(crate) fn push(&mut self, uuid: UpdateId, update: StatusUpdate, sent: bool) {
        if sent && self.unsent == self.next {
            self.unsent += 1;
        }
        self.places.insert(uuid, self.next);
        self.updates.insert(self.next, update);
        self.next += 1;
    }

    /// The agent has this one.
    pub(crate) fn take(&mut self, uuid: UpdateId) -> Option<StatusUpdate> {
        let place = self.places.remove(&uuid)?;
        self.updates.remove(&place)
    }

    /// The connection is gone, and whatever was on its way may be too.
    pub(crate) fn lost(&mut self) {
        self.unsent = 0;
    }

    /// Those that are not on their way; from now on they are.
    pub(crate) fn send(&mut self) -> impl Iterator<Item = &StatusUpdate> {
        let from = std::mem::replace(&mut self.unsent, self.next);
        self.updates.range(from..).map(|(_, update)| update)
    }
}

#[cfg(test)]
mod tests {
    use meseta_protocol::status::{TaskState, TaskStatus};

    use super::*;

    fn id(number: u8) -> UpdateId {
        UpdateId::from_random_bytes([number; 16])
    }

    fn update(number: u8) -> StatusUpdate {
        StatusUpdate {
            status: TaskStatus::new(format!("task-{number}"), TaskState::Running),
            uuid: Some(id(number)),
            ..StatusUpdate::default()
        }
    }

    fn ids<'a>(all: impl Iterator<Item = &'a StatusUpdate>) -> Vec<UpdateId> {
        all.filter_map(|update| update.uuid).collect()
    }

    #[test]
    fn each_is_sent_once_over_a_connection_and_all_again_over_the_next() {
        let mut all = Outstanding::default();
        all.push(id(1), update(1), true);
        all.push(id(2), update(2), false);
        // What follows one that waits must not overtake it.
        all.push(id(3), update(3), true);
        assert_eq!(ids(all.send()), [id(2), id(3)]);
        assert_eq!(ids(all.send()), []);
        all.push(id(4), update(4), true);
        assert_eq!(ids(all.send()), []);
        all.lost();
        assert_eq!(ids(all.send()), [id(1), id(2), id(3), id(4)]);
    }

    #[test]
    fn one_that_is_taken_is_gone_and_the_others_keep_their_order() {
        let mut all = Outstanding::default();
        for number in 1..=4 {
            all.push(id(number), update(number), false);
        }
        assert_eq!(all.take(id(2)), Some(update(2)));
        assert_eq!(all.take(id(2)), None);
        assert_eq!(all.len(), 3);
        assert_eq!(ids(all.send()), [id(1), id(3), id(4)]);
        assert_eq!(all.take(id(4)), Some(update(4)));
        all.lost();
        assert_eq!(ids(all.send()), [id(1), id(3)]);
    }
}
