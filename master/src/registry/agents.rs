//! Agents in the registry: admitted, unreachable, gone; drained and deactivated.
//!
//! Pure. Source: log.md §8, master.md §12.
//!
//! ```text
//!            AdmitAgent            MarkAgentUnreachable
//!   unknown ───────────▶ admitted ─────────────────────▶ unreachable
//!      ▲ └ MarkAgent- ──▶  │  ▲ ◀──────────────────────────  │  │
//!      │   Reachable       │  └─ UpdateAgent    MarkAgent-    │  │
//!      ├── RemoveAgent ────┤                    Reachable     │  │
//!      │                   └── MarkAgentGone ──▶ gone ◀───────┘  │
//!      └───────── Prune ──────────────────────────┴──────────────┘
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use meseta_protocol::AgentId;
use meseta_protocol::agent::{AgentInfo, DrainConfig, DrainInfo, DrainState, MasterCapability};
use meseta_protocol::common::DurationInfo;
use meseta_runtime::planted::mistake;
use serde::{Deserialize, Serialize};

use super::{Admitted, Change, Registry, Unreachable};

/// A mistake for tests to plant here and where agents register again.
pub(crate) const LETS_IN: &str = "master lets in who is gone";

/// Why an operation on an agent does not apply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum AgentRejection {
    /// An agent of this id is known already, and not gone.
    #[error("agent {0} is admitted already")]
    AlreadyAdmitted(AgentId),
    /// No agent of this id is admitted.
    #[error("agent {0} is not admitted")]
    NotAdmitted(AgentId),
    /// The agent is gone and cannot return.
    #[error("agent {0} is gone and cannot return: let the host register as a new agent")]
    Gone(AgentId),
    /// The agent is neither admitted nor unreachable.
    #[error("agent {0} is not known")]
    Unknown(AgentId),
    /// The agent is not draining.
    #[error("agent {0} is not DRAINING")]
    NotDraining(AgentId),
    /// The description lacks the agent's id.
    #[error("the agent has no id")]
    NoId,
}

/// Draining and deactivation of an agent that is admitted or unreachable.
struct Marks<'a> {
    drain_info: &'a mut Option<DrainInfo>,
    deactivated: &'a mut bool,
}

impl Registry {
    pub(super) fn admit_agent(&mut self, info: &Arc<AgentInfo>) -> Result<Change, AgentRejection> {
        let id = self.returning(info)?;
        if self.admitted.contains_key(&id) || self.unreachable.contains_key(&id) {
            return Err(AgentRejection::AlreadyAdmitted(id));
        }
        self.admitted.insert(id, fresh(info));
        Ok(Change::Changed)
    }

    pub(super) fn update_agent(&mut self, info: &Arc<AgentInfo>) -> Result<Change, AgentRejection> {
        let id = self.returning(info)?;
        let Some(known) = self.admitted.get_mut(&id) else {
            return Err(AgentRejection::NotAdmitted(id));
        };
        let changed = known.info != *info;
        known.info = Arc::clone(info);
        Ok(Change::when(changed))
    }

    pub(super) fn mark_agent_unreachable(
        &mut self,
        id: &AgentId,
        at: u64,
    ) -> Result<Change, AgentRejection> {
        let Some(lost) = self.admitted.remove(id) else {
            return Err(AgentRejection::NotAdmitted(id.clone()));
        };
        let unreachable = Unreachable {
            at,
            drain_info: lost.drain_info,
            deactivated: lost.deactivated,
        };
        self.unreachable.insert(id.clone(), unreachable);
        Ok(Change::Changed)
    }

    /// An agent in neither set was forgotten and is still let in.
    pub(super) fn mark_agent_reachable(
        &mut self,
        info: &Arc<AgentInfo>,
    ) -> Result<Change, AgentRejection> {
        if let Some(id) = &info.id
            && mistake(LETS_IN)
        {
            self.gone.remove(id);
        }
        let id = self.returning(info)?;
        if self.admitted.contains_key(&id) {
            return Ok(Change::Unchanged);
        }
        let mut back = fresh(info);
        if let Some(lost) = self.unreachable.remove(&id) {
            back.drain_info = lost.drain_info;
            back.deactivated = lost.deactivated;
        }
        self.admitted.insert(id, back);
        Ok(Change::Changed)
    }

    pub(super) fn remove_agent(&mut self, id: &AgentId) -> Result<Change, AgentRejection> {
        match self.admitted.remove(id) {
            Some(_) => Ok(Change::Changed),
            None => Err(AgentRejection::NotAdmitted(id.clone())),
        }
    }

    pub(super) fn mark_agent_gone(
        &mut self,
        id: &AgentId,
        at: u64,
    ) -> Result<Change, AgentRejection> {
        if self.gone.contains_key(id) {
            return Err(AgentRejection::Gone(id.clone()));
        }
        let known = self.admitted.remove(id).is_some() || self.unreachable.remove(id).is_some();
        if !known {
            return Err(AgentRejection::Unknown(id.clone()));
        }
        self.gone.insert(id.clone(), at);
        Ok(Change::Changed)
    }

    pub(super) fn prune(
        &mut self,
        unreachable: &BTreeSet<AgentId>,
        gone: &BTreeSet<AgentId>,
    ) -> Change {
        let before = self.unreachable.len() + self.gone.len();
        for id in unreachable {
            self.unreachable.remove(id);
        }
        for id in gone {
            self.gone.remove(id);
        }
        Change::when(self.unreachable.len() + self.gone.len() != before)
    }

    pub(super) fn drain_agent(
        &mut self,
        id: &AgentId,
        max_grace_period: Option<DurationInfo>,
        mark_gone: bool,
    ) -> Result<Change, AgentRejection> {
        let marks = self.marks(id)?;
        *marks.drain_info = Some(DrainInfo {
            state: DrainState::Draining,
            config: DrainConfig {
                max_grace_period,
                mark_gone,
            },
        });
        *marks.deactivated = true;
        self.require(MasterCapability::AgentDraining, true);
        Ok(Change::Changed)
    }

    pub(super) fn mark_agent_drained(&mut self, id: &AgentId) -> Result<Change, AgentRejection> {
        let marks = self.marks(id)?;
        match marks.drain_info {
            Some(info) if info.state == DrainState::Draining => info.state = DrainState::Drained,
            Some(_) | None => return Err(AgentRejection::NotDraining(id.clone())),
        }
        Ok(Change::Changed)
    }

    pub(super) fn deactivate_agent(&mut self, id: &AgentId) -> Result<Change, AgentRejection> {
        let marks = self.marks(id)?;
        let changed = !*marks.deactivated;
        *marks.deactivated = true;
        self.require(MasterCapability::AgentDraining, true);
        Ok(Change::when(changed))
    }

    pub(super) fn reactivate_agent(&mut self, id: &AgentId) -> Result<Change, AgentRejection> {
        let marks = self.marks(id)?;
        let changed = *marks.deactivated;
        *marks.drain_info = None;
        *marks.deactivated = false;
        let still = self.any_deactivated();
        let required = self
            .minimum_capabilities
            .contains(MasterCapability::AgentDraining.name());
        if !still {
            self.require(MasterCapability::AgentDraining, false);
        }
        Ok(Change::when(changed || (required && !still)))
    }

    /// Id of an agent that wants to be let in.
    fn returning(&self, info: &AgentInfo) -> Result<AgentId, AgentRejection> {
        let id = info.id.clone().ok_or(AgentRejection::NoId)?;
        if self.gone.contains_key(&id) {
            return Err(AgentRejection::Gone(id));
        }
        Ok(id)
    }

    fn marks(&mut self, id: &AgentId) -> Result<Marks<'_>, AgentRejection> {
        if let Some(agent) = self.admitted.get_mut(id) {
            return Ok(Marks {
                drain_info: &mut agent.drain_info,
                deactivated: &mut agent.deactivated,
            });
        }
        match self.unreachable.get_mut(id) {
            Some(agent) => Ok(Marks {
                drain_info: &mut agent.drain_info,
                deactivated: &mut agent.deactivated,
            }),
            None => Err(AgentRejection::Unknown(id.clone())),
        }
    }

    pub(super) fn any_deactivated(&self) -> bool {
        self.admitted.values().any(|agent| agent.deactivated)
            || self.unreachable.values().any(|agent| agent.deactivated)
    }

    /// Each agent id is in one set at most, and its entry is about it.
    pub(super) fn check_agents(&self) -> Result<(), String> {
        for (id, agent) in &self.admitted {
            if self.unreachable.contains_key(id) || self.gone.contains_key(id) {
                return Err(format!("agent {id} is in two sets of the registry"));
            }
            if agent.info.id.as_ref() != Some(id) {
                return Err(format!("agent {id} is described as {:?}", agent.info.id));
            }
            if agent.drain_info.is_some() && !agent.deactivated {
                return Err(format!("agent {id} is drained but not deactivated"));
            }
        }
        match self
            .unreachable
            .keys()
            .find(|id| self.gone.contains_key(*id))
        {
            Some(id) => Err(format!("agent {id} is in two sets of the registry")),
            None => Ok(()),
        }
    }
}

fn fresh(info: &Arc<AgentInfo>) -> Admitted {
    Admitted {
        info: Arc::clone(info),
        drain_info: None,
        deactivated: false,
    }
}
