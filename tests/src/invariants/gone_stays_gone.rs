//! an agent that was marked gone does not come back while its entry is kept.
//!
//! Pure. Read over what is acknowledged, since an older leader may not have heard of the mark yet: from then on no
//! operation lets the agent in, every later leader finds it among the gone, and none of them has it.

use std::collections::BTreeMap;

use meseta_master::registry::{Registry, RegistryOperation};
use meseta_protocol::AgentId;

use super::registry_forgets_nothing::{Place, places};

/// Who is gone, with the leadership under which that was acknowledged.
#[derive(Debug, Default)]
pub struct GoneStaysGone {
    gone: BTreeMap<AgentId, u64>,
}

impl GoneStaysGone {
    /// An operation that changes something is acknowledged under this leadership.
    ///
    /// # Errors
    /// Who comes back by it.
    pub fn acknowledged(
        &mut self,
        epoch: u64,
        operation: &RegistryOperation,
    ) -> Result<(), String> {
        if let RegistryOperation::Prune { gone, .. } = operation {
            self.gone.retain(|id, _| !gone.contains(id));
        }
        for (id, place) in places(operation) {
            match place {
                Place::Gone => {
                    self.gone.insert(id, epoch);
                }
                Place::Admitted | Place::Unreachable if self.gone.contains_key(&id) => {
                    return Err(format!("{id} is gone, and {operation:?} is acknowledged"));
                }
                Place::Admitted | Place::Unreachable | Place::Unknown => {}
            }
        }
        Ok(())
    }

    /// A new leader has found this registry.
    ///
    /// # Errors
    /// Who is not gone any more.
    pub fn found(&self, registry: &Registry) -> Result<(), String> {
        match self.gone.keys().find(|id| !registry.gone.contains_key(*id)) {
            Some(id) => Err(format!("{id} is gone, and the registry does not say so")),
            None => Ok(()),
        }
    }

    /// The leader of this epoch has these agents.
    ///
    /// # Errors
    /// Who among them was gone when it began to lead.
    pub fn has<'a>(
        &self,
        epoch: u64,
        mut agents: impl Iterator<Item = &'a AgentId>,
    ) -> Result<(), String> {
        let was_gone = |id: &&AgentId| self.gone.get(*id).is_some_and(|since| *since < epoch);
        match agents.find(was_gone) {
            Some(id) => Err(format!(
                "{id} is gone, and the leader of epoch {epoch} has it"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meseta_protocol::agent::AgentInfo;
    use std::sync::Arc;

    fn law() -> GoneStaysGone {
        let mut law = GoneStaysGone::default();
        let gone = RegistryOperation::MarkAgentGone {
            agent_id: "a".into(),
            at: 1,
        };
        assert_eq!(law.acknowledged(3, &gone), Ok(()));
        law
    }

    fn back(id: &str) -> RegistryOperation {
        let info = AgentInfo {
            id: Some(id.into()),
            ..AgentInfo::default()
        };
        RegistryOperation::MarkAgentReachable {
            info: Arc::new(info),
        }
    }

    #[test]
    fn refuses_one_that_comes_back_in_any_way() {
        let mut law = law();
        assert!(law.acknowledged(4, &back("a")).is_err());
        assert!(law.found(&Registry::default()).is_err());
        assert!(law.has(4, ["b".into(), "a".into()].iter()).is_err());
    }

    #[test]
    fn accepts_others_those_that_stay_away_and_those_that_were_forgotten() {
        let mut law = law();
        assert_eq!(law.acknowledged(4, &back("b")), Ok(()));
        let mut registry = Registry::default();
        registry.gone.insert("a".into(), 1);
        assert_eq!(law.found(&registry), Ok(()));
        assert_eq!(
            law.has(3, ["a".into()].iter()),
            Ok(()),
            "it does not know yet"
        );
        let prune = RegistryOperation::Prune {
            unreachable: [].into(),
            gone: ["a".into()].into(),
        };
        assert_eq!(law.acknowledged(4, &prune), Ok(()));
        assert_eq!(law.acknowledged(4, &back("a")), Ok(()));
        assert_eq!(law.has(5, ["a".into()].iter()), Ok(()));
    }
}
