//! Agents in the allocator's books, and the weights of roles.
//!
//! Pure.

use std::collections::BTreeMap;

use meseta_protocol::AgentId;
use meseta_protocol::agent::{AgentInfo, DomainInfo};
use meseta_protocol::resources::{Resources, Scalar};

use super::{Agent, Allocator};
use crate::allocator::amounts::Amounts;
use crate::allocator::messages::{
    ActivateAgent, AddAgent, DeactivateAgent, RemoveAgent, UpdateAgent, UpdateWeights,
};

impl Allocator {
    /// Takes an agent into the books, active; one that is known is replaced.
    pub fn add_agent(&mut self, message: AddAgent) {
        self.remove_agent(&RemoveAgent {
            agent_id: message.agent_id.clone(),
        });
        let remote = self.is_remote(&message.info);
        let a = self.agents.insert(Agent {
            id: message.agent_id.clone(),
            entry: message.entry,
            active: true,
            remote,
            capabilities: message.capabilities.into_iter().collect(),
            attributes: message.info.attributes,
            total: Resources::new(),
            amounts: Amounts::default(),
            has_gpus: false,
            has_reservations: false,
            shared: Resources::new(),
            available: Resources::new(),
            used: BTreeMap::new(),
            unclaimed: BTreeMap::new(),
            overcommitted: false,
            candidate: false,
            barren: None,
            last_refused: None,
        });
        self.agent_numbers.insert(message.agent_id, a);
        self.set_total(a, message.total);
        for (id, held) in message.used {
            if held.is_empty() {
                continue;
            }
            match self.framework_numbers.get(&id).copied() {
                Some(f) => self.charge(a, f, &held),
                None => {
                    if let Some(agent) = self.agents.get_mut(a) {
                        agent.unclaimed.insert(id, held);
                    }
                }
            }
        }
        if let Some(agent) = self.agents.get_mut(a) {
            agent.rebalance();
        }
        self.nominate(a);
    }

    fn is_remote(&self, info: &AgentInfo) -> bool {
        let region = info.domain.as_ref().and_then(DomainInfo::region);
        let own = self
            .config
            .master_domain
            .as_ref()
            .and_then(DomainInfo::region);
        match (region, own) {
            (Some(region), Some(own)) => region != own,
            // A master without a domain refuses agents with one.
            (None, _) | (Some(_), None) => false,
        }
    }

    fn set_total(&mut self, a: usize, total: Resources) {
        let Some(agent) = self.agents.get_mut(a) else {
            return;
        };
        self.tree.remove_reservations(&agent.total);
        self.totals.subtract(&agent.amounts);
        agent.amounts = self.names.amounts(&total);
        self.totals.add(&agent.amounts);
        self.tree.add_reservations(&total);
        agent.has_gpus = total.gpus().is_some_and(Scalar::is_positive);
        agent.has_reservations = total.iter().any(|resource| !resource.is_unreserved());
        agent.shared = total
            .iter()
            .filter(|resource| resource.shared)
            .cloned()
            .collect();
        agent.total = total;
        agent.rebalance();
    }

    /// Forgets an agent and all it had.
    pub fn remove_agent(&mut self, message: &RemoveAgent) {
        let Some(a) = self.agent_numbers.remove(&message.agent_id) else {
            return;
        };
        let used = self.agents.get(a).map(|agent| agent.used.clone());
        for (f, held) in used.unwrap_or_default() {
            self.discharge(a, f, &held);
        }
        self.set_total(a, Resources::new());
        self.drop_refusals(a);
        self.candidates.retain(|candidate| *candidate != a);
        self.agents.remove(a);
    }

    /// Lets an agent's resources be offered, from the next run over all agents on.
    pub fn activate_agent(&mut self, message: &ActivateAgent) {
        self.set_agent_active(&message.agent_id, true);
    }

    /// Keeps an agent's resources from being offered.
    pub fn deactivate_agent(&mut self, message: &DeactivateAgent) {
        self.set_agent_active(&message.agent_id, false);
    }

    fn set_agent_active(&mut self, id: &AgentId, active: bool) {
        let a = self.agent_numbers.get(id).copied();
        if let Some(agent) = a.and_then(|a| self.agents.get_mut(a)) {
            agent.active = active;
        }
    }

    /// Takes an agent's new description. Other attributes void what was declined of it.
    pub fn update_agent(&mut self, message: UpdateAgent) {
        let Some(a) = self.agent_numbers.get(&message.agent_id).copied() else {
            return;
        };
        let remote = self.is_remote(&message.info);
        let Some(agent) = self.agents.get_mut(a) else {
            return;
        };
        let mut changed = false;
        if agent.remote != remote {
            agent.remote = remote;
            changed = true;
        }
        let new_attributes = agent.attributes != message.info.attributes;
        if new_attributes {
            agent.attributes = message.info.attributes;
            changed = true;
        }
        if agent.total != message.total {
            self.set_total(a, message.total);
            changed = true;
        }
        if new_attributes {
            self.drop_refusals(a);
        }
        if changed {
            if let Some(agent) = self.agents.get_mut(a) {
                agent.barren = None;
            }
            self.nominate(a);
        }
    }

    fn drop_refusals(&mut self, a: usize) {
        for (_, framework) in self.frameworks.iter_mut() {
            for membership in framework.roles.values_mut() {
                membership.refusals.remove_agent(a);
            }
        }
    }

    /// Changes what roles weigh. The next run sees it.
    pub fn update_weights(&mut self, message: UpdateWeights) {
        for (role, weight) in message.weights {
            self.tree.set_weight(&role, weight);
            self.role_sorter.set_weight(role.as_str(), weight);
        }
    }
}
