//! T-6, over restarts: what an agent tells of a framework that checkpoints is durable when it leaves, so that its next run
//! retries it until it is acknowledged.
//!
//! Pure. Told of every update that leaves an agent, of acknowledgements and ends that reach it, and of what waits on its
//! next run when that has read its disk.

use std::collections::{BTreeMap, BTreeSet};

use meseta_protocol::{AgentId, FrameworkId, UpdateId};

use super::updates_are_kept::Key;

/// What one agent has told and not heard the end of, over all its runs.
#[derive(Debug, Default)]
pub struct ToldIsKept {
    agent: Option<AgentId>,
    /// Each with its stream, and whether it is a task's end.
    told: BTreeMap<UpdateId, (Key, bool)>,
}

impl ToldIsKept {
    /// An update leaves the agent, which has ordered that it be written down.
    ///
    /// # Errors
    /// It may be lost yet.
    pub fn tells(
        &mut self,
        uuid: UpdateId,
        key: &Key,
        is_end: bool,
        is_durable: bool,
    ) -> Result<(), String> {
        if !is_durable {
            let task = &key.1;
            return Err(format!(
                "update {uuid} of {task} is told before it is durable"
            ));
        }
        self.told.insert(uuid, (key.clone(), is_end));
        Ok(())
    }

    /// The acknowledgement of the update in flight has reached the agent. What is behind an end is dropped.
    pub fn acknowledged(&mut self, uuid: &UpdateId) {
        if let Some((key, true)) = self.told.remove(uuid) {
            self.told.retain(|_, (other, _)| *other != key);
        }
    }

    /// The agent has been told that a framework is over.
    pub fn framework_over(&mut self, id: &FrameworkId) {
        self.told.retain(|_, ((framework, _), _)| framework != id);
    }

    /// The agent has been told to end, and does not come back.
    pub fn leaves(&mut self) {
        self.told.clear();
    }

    /// A run of the agent has read what the one before it has left, and so much waits.
    ///
    /// # Errors
    /// What was told, is not acknowledged, and does not wait.
    pub fn recovers(
        &mut self,
        agent: Option<&AgentId>,
        waiting: &BTreeSet<UpdateId>,
    ) -> Result<(), String> {
        if self.agent.as_ref() != agent {
            // With another disk it is another agent.
            self.agent = agent.cloned();
            self.told.clear();
        }
        match self.told.iter().find(|(uuid, _)| !waiting.contains(*uuid)) {
            Some((uuid, ((_, task), _))) => Err(format!(
                "update {uuid} of {task} was told before a restart, is not acknowledged, and waits no more"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuid(n: u8) -> UpdateId {
        UpdateId::from_bytes([n; 16])
    }

    fn law() -> ToldIsKept {
        let mut law = ToldIsKept::default();
        law.recovers(Some(&"a".into()), &BTreeSet::new()).unwrap();
        for (n, is_end) in [(1, false), (9, true)] {
            let key = ("f".into(), "t".into());
            law.tells(uuid(n), &key, is_end, true).unwrap();
        }
        law
    }

    fn recovers(law: &mut ToldIsKept, waiting: &[u8]) -> bool {
        let waiting = waiting.iter().map(|n| uuid(*n)).collect();
        law.recovers(Some(&"a".into()), &waiting).is_ok()
    }

    #[test]
    fn refuses_what_leaves_before_it_is_durable_and_what_a_restart_forgets() {
        let key = ("f".into(), "t".into());
        let early = ToldIsKept::default().tells(uuid(1), &key, false, false);
        assert!(early.is_err());
        assert!(!recovers(&mut law(), &[1]));
        assert!(!recovers(&mut law(), &[]));
        let mut other = law();
        other.framework_over(&"g".into());
        assert!(!recovers(&mut other, &[9]));
    }

    #[test]
    fn accepts_what_waits_what_is_over_and_another_agent() {
        assert!(recovers(&mut law(), &[1, 9, 5]));
        let mut acknowledged = law();
        acknowledged.acknowledged(&uuid(1));
        assert!(recovers(&mut acknowledged, &[9]));
        let mut ended = law();
        ended.acknowledged(&uuid(9));
        assert!(recovers(&mut ended, &[]));
        let mut over = law();
        over.framework_over(&"f".into());
        assert!(recovers(&mut over, &[]));
        let mut left = law();
        left.leaves();
        assert!(recovers(&mut left, &[]));
        let mut other = law();
        assert_eq!(other.recovers(Some(&"b".into()), &BTreeSet::new()), Ok(()));
    }
}
