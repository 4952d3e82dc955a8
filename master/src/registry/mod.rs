//! The registry: what a master must remember over its own end, and the operations that change it.
//!
//! Pure: an operation and a registry give a changed registry or a refusal, which changes nothing. The result hangs on
//! nothing else, so that whoever applies the same operations in the same order has the same registry; the log relies on
//! that. Where the registry is kept is the registrar's business.
//!
//! - `agents`: who is admitted, unreachable or gone, and who is drained;
//! - `roles`: quotas and weights;
//! - `maintenance`: the schedule and the machines on it;
//! - `json`: as `/registrar(1)/registry` shows it.
//!
//! Invariants ([`Registry::check`]): an agent id is in at most one of the three sets; a gone id never comes back while
//! its entry is kept. Source: log.md §8.

pub(crate) mod agents;
mod json;
mod maintenance;
mod roles;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meseta_protocol::agent::{AgentInfo, DrainInfo, MasterCapability, MasterInfo};
use meseta_protocol::common::DurationInfo;
use meseta_protocol::maintenance::{MachineId, Schedule};
use meseta_protocol::quota::{QuotaConfig, QuotaInfo};
use meseta_protocol::{AgentId, ResourceProviderId, Role};
use serde::{Deserialize, Serialize};

pub use agents::AgentRejection;
pub use maintenance::{Machine, MaintenanceRejection};
pub use roles::RoleRejection;
#[cfg(test)]
pub(crate) use tests::operation as any_operation;

/// What a master must remember over its own end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Registry {
    /// The master that led last, or leads.
    pub master: Option<MasterInfo>,
    /// Drawn by the first master there was, and the same ever since.
    pub cluster_id: Option<String>,
    /// Agents that may run tasks.
    pub admitted: BTreeMap<AgentId, Admitted>,
    /// Agents that fell silent. Old ones are forgotten by [`RegistryOperation::Prune`].
    pub unreachable: BTreeMap<AgentId, Unreachable>,
    /// Agents that will never come back, with the time they were marked, in nanoseconds since the Unix epoch. Old ones
    /// are forgotten by [`RegistryOperation::Prune`].
    pub gone: BTreeMap<AgentId, u64>,
    /// Machines on the maintenance schedule, by their id with the host name in lower case. Others are up.
    pub machines: BTreeMap<MachineId, Machine>,
    /// When which machines are not to be used.
    pub schedule: Option<Schedule>,
    /// Quotas in the older form, by role. Nothing writes them any more; a new quota of the role replaces one.
    pub quotas: BTreeMap<Role, QuotaInfo>,
    /// Quotas, by role.
    pub quota_configs: BTreeMap<Role, QuotaConfig>,
    /// Weights, by role.
    pub weights: BTreeMap<Role, f64>,
    /// Resource providers that may offer.
    pub resource_providers: BTreeSet<ResourceProviderId>,
    /// Resource providers that will never come back.
    pub removed_resource_providers: BTreeSet<ResourceProviderId>,
    /// Names of what a master must be able to do to lead with this registry.
    pub minimum_capabilities: BTreeSet<String>,
}

/// An agent that may run tasks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Admitted {
    /// As it described itself, with its id.
    pub info: Arc<AgentInfo>,
    /// Its draining, if it is drained.
    pub drain_info: Option<DrainInfo>,
    /// Whether it is offered to nobody.
    pub deactivated: bool,
}

/// An agent that fell silent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unreachable {
    /// When it was marked, in nanoseconds since the Unix epoch.
    pub at: u64,
    /// Its draining, which goes on when it comes back.
    pub drain_info: Option<DrainInfo>,
    /// Whether it is offered to nobody when it comes back.
    pub deactivated: bool,
}

/// A change of the registry. Diffs in the log hold these: the meaning of one never changes once it was released; a new
/// meaning is a new operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RegistryOperation {
    /// A master begins to lead.
    Recover {
        /// The master.
        master: MasterInfo,
        /// Id for a cluster that has none yet.
        cluster_id: String,
    },
    /// A new agent.
    AdmitAgent {
        /// As it described itself, with its id.
        info: Arc<AgentInfo>,
    },
    /// An agent has changed its description.
    UpdateAgent {
        /// The new one, with its id.
        info: Arc<AgentInfo>,
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
        info: Arc<AgentInfo>,
    },
    /// An agent has left.
    RemoveAgent {
        /// Which.
        agent_id: AgentId,
    },
    /// An agent will never come back.
    MarkAgentGone {
        /// Which.
        agent_id: AgentId,
        /// When, in nanoseconds since the Unix epoch.
        at: u64,
    },
    /// Old entries are forgotten. What is not there any more is passed over.
    Prune {
        /// Unreachable ones to forget.
        unreachable: BTreeSet<AgentId>,
        /// Gone ones to forget.
        gone: BTreeSet<AgentId>,
    },
    /// An agent's tasks are to end, and it is offered to nobody.
    DrainAgent {
        /// Which.
        agent_id: AgentId,
        /// Longest time a task may take to stop, whatever its own kill policy says.
        max_grace_period: Option<DurationInfo>,
        /// Whether it is marked gone once nothing runs on it.
        mark_gone: bool,
    },
    /// Nothing runs any more on an agent that is drained.
    MarkAgentDrained {
        /// Which.
        agent_id: AgentId,
    },
    /// An agent is offered to nobody.
    DeactivateAgent {
        /// Which.
        agent_id: AgentId,
    },
    /// An agent is offered again, and drained no more.
    ReactivateAgent {
        /// Which.
        agent_id: AgentId,
    },
    /// Roles get new quotas. One that says nothing removes the role's.
    UpdateQuota {
        /// The quotas.
        configs: Vec<QuotaConfig>,
    },
    /// Roles get new weights.
    UpdateWeights {
        /// The weights.
        weights: BTreeMap<Role, f64>,
    },
    /// A new maintenance schedule in place of the old one.
    UpdateSchedule {
        /// The schedule.
        schedule: Schedule,
    },
    /// Machines go down.
    StartMaintenance {
        /// Which.
        machines: Vec<MachineId>,
    },
    /// Machines are up again.
    StopMaintenance {
        /// Which.
        machines: Vec<MachineId>,
    },
    /// A new resource provider.
    AdmitResourceProvider {
        /// Which.
        id: ResourceProviderId,
    },
    /// A resource provider will never come back.
    RemoveResourceProvider {
        /// Which.
        id: ResourceProviderId,
    },
}

/// What an operation that applies has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The registry is another.
    Changed,
    /// The registry was like that before.
    Unchanged,
}

impl Change {
    fn when(changed: bool) -> Self {
        if changed {
            Self::Changed
        } else {
            Self::Unchanged
        }
    }
}

/// Why an operation does not apply.
#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum RegistryRejection {
    /// It is about agents.
    #[error(transparent)]
    Agent(#[from] AgentRejection),
    /// It is about quotas or weights.
    #[error(transparent)]
    Role(#[from] RoleRejection),
    /// It is about maintenance.
    #[error(transparent)]
    Maintenance(#[from] MaintenanceRejection),
    /// A resource provider of this id is admitted already.
    #[error("resource provider {0} is admitted already")]
    ProviderAdmitted(ResourceProviderId),
    /// A resource provider of this id was removed, and ids are used once.
    #[error("resource provider {0} was removed and cannot return: give it a new id")]
    ProviderRemoved(ResourceProviderId),
    /// No resource provider of this id is admitted.
    #[error("resource provider {0} is not admitted")]
    ProviderUnknown(ResourceProviderId),
}

impl Registry {
    /// Applies an operation, or changes nothing.
    ///
    /// # Errors
    /// [`RegistryRejection`] with the rule that forbids it.
    pub fn apply(&mut self, operation: &RegistryOperation) -> Result<Change, RegistryRejection> {
        use RegistryOperation as Op;
        match operation {
            Op::Recover { master, cluster_id } => {
                self.master = Some(master.clone());
                self.cluster_id.get_or_insert_with(|| cluster_id.clone());
                Ok(Change::Changed)
            }
            Op::AdmitAgent { info } => Ok(self.admit_agent(info)?),
            Op::UpdateAgent { info } => Ok(self.update_agent(info)?),
            Op::MarkAgentUnreachable { agent_id, at } => {
                Ok(self.mark_agent_unreachable(agent_id, *at)?)
            }
            Op::MarkAgentReachable { info } => Ok(self.mark_agent_reachable(info)?),
            Op::RemoveAgent { agent_id } => Ok(self.remove_agent(agent_id)?),
            Op::MarkAgentGone { agent_id, at } => Ok(self.mark_agent_gone(agent_id, *at)?),
            Op::Prune { unreachable, gone } => Ok(self.prune(unreachable, gone)),
            Op::DrainAgent {
                agent_id,
                max_grace_period,
                mark_gone,
            } => Ok(self.drain_agent(agent_id, *max_grace_period, *mark_gone)?),
            Op::MarkAgentDrained { agent_id } => Ok(self.mark_agent_drained(agent_id)?),
            Op::DeactivateAgent { agent_id } => Ok(self.deactivate_agent(agent_id)?),
            Op::ReactivateAgent { agent_id } => Ok(self.reactivate_agent(agent_id)?),
            Op::UpdateQuota { configs } => Ok(self.update_quota(configs)?),
            Op::UpdateWeights { weights } => Ok(self.update_weights(weights)?),
            Op::UpdateSchedule { schedule } => Ok(self.update_schedule(schedule)?),
            Op::StartMaintenance { machines } => Ok(self.start_maintenance(machines)?),
            Op::StopMaintenance { machines } => Ok(self.stop_maintenance(machines)?),
            Op::AdmitResourceProvider { id } => self.admit_resource_provider(id),
            Op::RemoveResourceProvider { id } => self.remove_resource_provider(id),
        }
    }

    fn admit_resource_provider(
        &mut self,
        id: &ResourceProviderId,
    ) -> Result<Change, RegistryRejection> {
        if self.removed_resource_providers.contains(id) {
            return Err(RegistryRejection::ProviderRemoved(id.clone()));
        }
        if !self.resource_providers.insert(id.clone()) {
            return Err(RegistryRejection::ProviderAdmitted(id.clone()));
        }
        Ok(Change::Changed)
    }

    fn remove_resource_provider(
        &mut self,
        id: &ResourceProviderId,
    ) -> Result<Change, RegistryRejection> {
        if !self.resource_providers.remove(id) {
            return Err(RegistryRejection::ProviderUnknown(id.clone()));
        }
        self.removed_resource_providers.insert(id.clone());
        Ok(Change::Changed)
    }

    fn require(&mut self, capability: MasterCapability, required: bool) {
        if required {
            self.minimum_capabilities
                .insert(capability.name().to_owned());
        } else {
            self.minimum_capabilities.remove(capability.name());
        }
    }

    /// Names of what a master must be able to do to lead with this registry, but cannot.
    pub fn missing_capabilities(&self, capabilities: &[MasterCapability]) -> Vec<&str> {
        let able = |name: &&str| capabilities.iter().any(|one| one.name() == *name);
        let required = self.minimum_capabilities.iter().map(String::as_str);
        required.filter(|name| !able(name)).collect()
    }

    /// Says what is wrong, if anything is.
    ///
    /// # Errors
    /// A sentence that names the first broken rule.
    pub fn check(&self) -> Result<(), String> {
        self.check_agents()?;
        self.check_machines()?;
        let needs =
            |capability: MasterCapability| self.minimum_capabilities.contains(capability.name());
        if needs(MasterCapability::QuotaV2) == self.quota_configs.is_empty() {
            return Err("QUOTA_V2 is required exactly while there are quotas".to_owned());
        }
        if self.any_deactivated() && !needs(MasterCapability::AgentDraining) {
            return Err("an agent is deactivated but AGENT_DRAINING is not required".to_owned());
        }
        let both = self
            .resource_providers
            .intersection(&self.removed_resource_providers)
            .next();
        match both {
            Some(id) => Err(format!("resource provider {id} is admitted and removed")),
            None => Ok(()),
        }
    }
}
