//! T-6: an update is retried until it is acknowledged or its framework is removed, however long that takes. Only what is
//! queued behind an acknowledged end is dropped.
//!
//! Pure. Read over the streams of an agent as they are after each of its turns, and over the acknowledgements and ends of
//! frameworks that have reached it: nothing leaves a stream without one of these. That what stays is sent again is law Z-1's
//! to see, and the stream's own tests'.

use std::collections::{BTreeMap, BTreeSet};

use meseta_protocol::{FrameworkId, TaskId, UpdateId};

/// Names a stream.
pub type Key = (FrameworkId, TaskId);

/// An update that waits, and whether it is a task's end.
pub type Waiting = (UpdateId, bool);

/// What one agent has been told, and what waited on it after its last turn.
#[derive(Debug, Default)]
pub struct UpdatesAreKept {
    streams: BTreeMap<Key, Vec<Waiting>>,
    acknowledged: BTreeSet<UpdateId>,
    over: BTreeSet<FrameworkId>,
    leaves: bool,
}

impl UpdatesAreKept {
    /// An acknowledgement has reached the agent.
    pub fn acknowledged(&mut self, uuid: UpdateId) {
        self.acknowledged.insert(uuid);
    }

    /// The agent has been told that a framework is over.
    pub fn framework_over(&mut self, id: FrameworkId) {
        self.over.insert(id);
    }

    /// The agent has been told to end.
    pub fn leaves(&mut self) {
        self.leaves = true;
    }

    /// Whether nobody waits for this update of a stream any more.
    pub fn is_over(&self, key: &Key, uuid: &UpdateId) -> bool {
        self.leaves || self.over.contains(&key.0) || self.acknowledged.contains(uuid)
    }

    /// The update that is next for a task, as far as is known.
    pub fn head(&self, key: &Key) -> Option<UpdateId> {
        self.streams.get(key)?.first().map(|(uuid, _)| *uuid)
    }

    /// The agent has had a turn, and this waits now.
    ///
    /// # Errors
    /// What does not, without a reason.
    pub fn holds(&mut self, now: BTreeMap<Key, Vec<Waiting>>) -> Result<(), String> {
        let before = std::mem::replace(&mut self.streams, now);
        if self.leaves {
            return Ok(());
        }
        for ((framework, task), waited) in before {
            if self.over.contains(&framework) {
                continue;
            }
            let left = self.streams.get(&(framework, task.clone()));
            let left: BTreeSet<UpdateId> =
                left.into_iter().flatten().map(|(uuid, _)| *uuid).collect();
            for (uuid, is_end) in waited {
                if left.contains(&uuid) {
                    continue;
                }
                if !self.acknowledged.contains(&uuid) {
                    return Err(format!(
                        "update {uuid} of {task} waits no more, and nobody has acknowledged it"
                    ));
                }
                if is_end {
                    break;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuid(n: u8) -> UpdateId {
        UpdateId::from_bytes([n; 16])
    }

    /// Streams of task `t`: those of 9 and above are ends.
    fn waiting(all: &[u8]) -> BTreeMap<Key, Vec<Waiting>> {
        let all = all.iter().map(|n| (uuid(*n), *n >= 9)).collect();
        BTreeMap::from([(("f".into(), "t".into()), all)])
    }

    fn law() -> UpdatesAreKept {
        let mut law = UpdatesAreKept::default();
        law.holds(waiting(&[1, 2, 9, 3])).unwrap();
        law
    }

    #[test]
    fn refuses_what_goes_without_an_acknowledgement() {
        assert!(law().holds(BTreeMap::new()).is_err());
        assert!(law().holds(waiting(&[2, 9, 3])).is_err());
        let mut second = law();
        second.acknowledged(uuid(2));
        assert!(second.holds(waiting(&[9, 3])).is_err());
        let mut other = law();
        other.framework_over("g".into());
        assert!(other.holds(BTreeMap::new()).is_err());
    }

    #[test]
    fn accepts_what_is_acknowledged_and_what_was_behind_an_end() {
        let mut law = law();
        assert_eq!(law.head(&("f".into(), "t".into())), Some(uuid(1)));
        law.acknowledged(uuid(1));
        assert_eq!(law.holds(waiting(&[2, 9, 3])), Ok(()));
        law.acknowledged(uuid(2));
        assert_eq!(law.holds(waiting(&[9, 3, 4])), Ok(()));
        law.acknowledged(uuid(9));
        assert_eq!(law.holds(BTreeMap::new()), Ok(()));
    }

    #[test]
    fn accepts_that_all_goes_with_its_framework_or_its_agent() {
        let mut of_framework = law();
        of_framework.framework_over("f".into());
        assert_eq!(of_framework.holds(BTreeMap::new()), Ok(()));
        let mut of_agent = law();
        of_agent.leaves();
        assert_eq!(of_agent.holds(BTreeMap::new()), Ok(()));
    }
}
