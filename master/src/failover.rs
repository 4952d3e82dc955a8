//! After a fail-over: agents that the registry knows and that have not come back yet, and what becomes of them.
//!
//! Pure. Agents have `--agent_reregister_timeout` from the master's recovery on. Those that stay away are marked
//! unreachable, unless there are so many of them that the master itself is the likelier culprit; then it ends and says
//! so. Source: master.md §2.
//!
//! ```text
//!   in the registry ──registers again──▶ registered
//!          └──time is over──▶ few enough: unreachable, one permit each
//!                             too many:   the master ends
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use meseta_protocol::AgentId;
use meseta_protocol::agent::AgentInfo;

use crate::registry::Registry;

/// Agents that the registry knows and that have not come back yet.
#[derive(Debug, Clone, Default)]
pub struct Awaited {
    agents: BTreeMap<AgentId, Arc<AgentInfo>>,
    at_start: usize,
}

/// What to do when the time is over.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Mark these unreachable.
    Mark(Vec<AgentId>),
    /// Mark none: more are missing than may be removed.
    TooMany {
        /// How many are missing.
        missing: usize,
        /// How many the registry had.
        of: usize,
    },
}

impl Awaited {
    /// The agents admitted in this registry.
    pub fn of(registry: &Registry) -> Self {
        let agents: BTreeMap<_, _> = registry
            .admitted
            .iter()
            .map(|(id, agent)| (id.clone(), Arc::clone(&agent.info)))
            .collect();
        Self {
            at_start: agents.len(),
            agents,
        }
    }

    /// The description in the registry of an agent that has not come back yet.
    pub fn get(&self, id: &AgentId) -> Option<&Arc<AgentInfo>> {
        self.agents.get(id)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&AgentId, &Arc<AgentInfo>)> {
        self.agents.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.agents.len()
    }

    /// Whether all have come back, or are given up.
    pub fn is_empty(&self) -> bool {
        self.agents.is_empty()
    }

    /// The agent has come back, is unreachable, or gone. Whether it was awaited.
    pub fn settle(&mut self, id: &AgentId) -> bool {
        self.agents.remove(id).is_some()
    }

    /// The time is over. `limit` is the part of the registry's agents that may be removed, from 0 to 1.
    pub fn due(&self, limit: f64) -> Verdict {
        let count = |n: usize| u32::try_from(n).map_or(f64::MAX, f64::from);
        if count(self.agents.len()) > limit * count(self.at_start) {
            return Verdict::TooMany {
                missing: self.agents.len(),
                of: self.at_start,
            };
        }
        Verdict::Mark(self.agents.keys().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::RegistryOperation;
    use meseta_protocol::resources::Resources;

    fn id(n: u8) -> AgentId {
        AgentId::new(format!("S{n}"))
    }

    fn awaited(count: u8) -> Awaited {
        let mut registry = Registry::default();
        for n in 0..count {
            let mut info = AgentInfo::new("host", Resources::new());
            info.id = Some(id(n));
            let info = Arc::new(info);
            registry
                .apply(&RegistryOperation::AdmitAgent { info })
                .unwrap();
        }
        Awaited::of(&registry)
    }

    #[test]
    fn agents_that_stay_away_are_marked_unless_there_are_too_many() {
        let mut agents = awaited(4);
        assert!(agents.settle(&id(0)) && !agents.settle(&id(0)));
        assert_eq!(agents.due(1.0), Verdict::Mark(vec![id(1), id(2), id(3)]));
        assert_eq!(agents.due(0.75), Verdict::Mark(vec![id(1), id(2), id(3)]));
        assert_eq!(agents.due(0.5), Verdict::TooMany { missing: 3, of: 4 });
        agents.settle(&id(1));
        assert_eq!(agents.due(0.5), Verdict::Mark(vec![id(2), id(3)]));
        assert_eq!(agents.due(0.0), Verdict::TooMany { missing: 2, of: 4 });
    }

    #[test]
    fn nobody_missing_is_never_too_many() {
        assert_eq!(awaited(0).due(0.0), Verdict::Mark(Vec::new()));
    }
}
