//! The registry: which agents are admitted, unreachable or gone, and the operations that change it.
//!
//! Pure: an operation and a registry give a new registry or a refusal. An agent id is in at most one of the three
//! sets. Where the registry is kept is the registrar's business. Source: log.md §8.

use std::collections::BTreeMap;

use meseta_protocol::AgentId;
use meseta_protocol::agent::AgentInfo;
use serde::{Deserialize, Serialize};

/// Unreachable agents to remember; beyond it the one that fell silent first is forgotten.
pub const MAX_UNREACHABLE: usize = 102_400;

/// Keeps a table of unreachable agents, with the time each fell silent, within [`MAX_UNREACHABLE`].
pub(crate) fn forget_oldest<T: Ord>(unreachable: &mut BTreeMap<AgentId, T>) {
    if unreachable.len() > MAX_UNREACHABLE {
        let oldest = unreachable.iter().min_by_key(|(_, at)| *at);
        if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
            unreachable.remove(&oldest);
        }
    }
}

/// What a master must remember over its own end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Registry {
    /// Agents that may run tasks.
    pub admitted: BTreeMap<AgentId, AgentInfo>,
    /// Agents that fell silent, with the time since the Unix epoch, in nanoseconds.
    pub unreachable: BTreeMap<AgentId, u64>,
    /// Agents that will never come back, with the time since the Unix epoch, in nanoseconds.
    pub gone: BTreeMap<AgentId, u64>,
}

/// A change of the registry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RegistryOperation {
    /// A new agent.
    AdmitAgent {
        /// As it described itself, with its id.
        info: AgentInfo,
    },
    /// An agent has changed its description.
    UpdateAgent {
        /// The new one, with its id.
        info: AgentInfo,
    },
    /// An agent has fallen silent.
    MarkAgentUnreachable {
        /// Which.
        agent_id: AgentId,
        /// When, in nanoseconds since the Unix epoch.
        at: u64,
    },
    /// An agent that was unreachable, or that the registry does not know, is back.
    MarkAgentReachable {
        /// As it describes itself, with its id.
        info: AgentInfo,
    },
    /// An agent has left.
    RemoveAgent {
        /// Which.
        agent_id: AgentId,
    },
}

/// Why an operation does not apply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum RegistryRejection {
    /// An agent of this id is admitted already.
    #[error("agent {0} is admitted already")]
    AlreadyAdmitted(AgentId),
    /// No agent of this id is admitted.
    #[error("agent {0} is not admitted")]
    NotAdmitted(AgentId),
    /// The agent is gone and cannot return.
    #[error("agent {0} is gone")]
    Gone(AgentId),
    /// The description lacks the agent's id.
    #[error("the agent has no id")]
    NoId,
}

impl Registry {
    /// Applies an operation, or changes nothing.
    ///
    /// # Errors
    /// [`RegistryRejection`] with the rule that forbids it.
    pub fn apply(&mut self, operation: RegistryOperation) -> Result<(), RegistryRejection> {
        match operation {
            RegistryOperation::AdmitAgent { info } => {
                let id = self.returning(&info)?;
                if self.admitted.contains_key(&id) || self.unreachable.contains_key(&id) {
                    return Err(RegistryRejection::AlreadyAdmitted(id));
                }
                self.admitted.insert(id, info);
            }
            RegistryOperation::UpdateAgent { info } => {
                let id = self.returning(&info)?;
                match self.admitted.get_mut(&id) {
                    Some(known) => *known = info,
                    None => return Err(RegistryRejection::NotAdmitted(id)),
                }
            }
            RegistryOperation::MarkAgentUnreachable { agent_id, at } => {
                if self.admitted.remove(&agent_id).is_none() {
                    return Err(RegistryRejection::NotAdmitted(agent_id));
                }
                self.unreachable.insert(agent_id, at);
                forget_oldest(&mut self.unreachable);
            }
            RegistryOperation::MarkAgentReachable { info } => {
                let id = self.returning(&info)?;
                self.unreachable.remove(&id);
                self.admitted.insert(id, info);
            }
            RegistryOperation::RemoveAgent { agent_id } => {
                if self.admitted.remove(&agent_id).is_none() {
                    return Err(RegistryRejection::NotAdmitted(agent_id));
                }
            }
        }
        Ok(())
    }

    fn returning(&self, info: &AgentInfo) -> Result<AgentId, RegistryRejection> {
        let id = info.id.clone().ok_or(RegistryRejection::NoId)?;
        if self.gone.contains_key(&id) {
            return Err(RegistryRejection::Gone(id));
        }
        Ok(id)
    }

    /// Says whether each agent id is in one set at most.
    ///
    /// # Errors
    /// A sentence that names the first id that is not.
    pub fn check(&self) -> Result<(), String> {
        let twice = self
            .admitted
            .keys()
            .find(|id| self.unreachable.contains_key(*id) || self.gone.contains_key(*id));
        let twice = twice.or_else(|| {
            self.unreachable
                .keys()
                .find(|id| self.gone.contains_key(*id))
        });
        match twice {
            Some(id) => Err(format!("agent {id} is in two sets of the registry")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meseta_protocol::resources::Resources;

    fn info(id: &str) -> AgentInfo {
        let mut info = AgentInfo::new("host", Resources::new());
        info.id = Some(AgentId::new(id));
        info
    }

    #[test]
    fn an_agent_is_in_one_set_at_most() {
        let mut registry = Registry::default();
        let id = AgentId::new("S1");
        registry
            .apply(RegistryOperation::AdmitAgent { info: info("S1") })
            .unwrap();
        assert_eq!(
            registry.apply(RegistryOperation::AdmitAgent { info: info("S1") }),
            Err(RegistryRejection::AlreadyAdmitted(id.clone()))
        );
        let mark = RegistryOperation::MarkAgentUnreachable {
            agent_id: id.clone(),
            at: 7,
        };
        registry.apply(mark.clone()).unwrap();
        assert_eq!(
            registry.apply(mark),
            Err(RegistryRejection::NotAdmitted(id.clone()))
        );
        assert_eq!((registry.admitted.len(), registry.unreachable[&id]), (0, 7));
        registry
            .apply(RegistryOperation::MarkAgentReachable { info: info("S1") })
            .unwrap();
        assert!(registry.unreachable.is_empty());
        registry.check().unwrap();
    }

    #[test]
    fn a_gone_agent_stays_gone() {
        let mut registry = Registry::default();
        let id = AgentId::new("S1");
        registry.gone.insert(id.clone(), 1);
        for operation in [
            RegistryOperation::AdmitAgent { info: info("S1") },
            RegistryOperation::MarkAgentReachable { info: info("S1") },
        ] {
            assert_eq!(
                registry.apply(operation),
                Err(RegistryRejection::Gone(id.clone()))
            );
        }
    }
}
