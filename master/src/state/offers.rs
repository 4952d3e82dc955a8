//! Outstanding offers in the master's tables.

use std::sync::Arc;

use meseta_protocol::OfferId;
use meseta_protocol::Role;
use meseta_protocol::offer::Offer;

use super::{Outstanding, State};

impl State {
    /// Adds an offer to its framework and agent.
    pub fn add_offer(&mut self, offer: Offer, role: Role) {
        if let Some(agent) = self.agents.get_mut(&offer.agent_id).map(Arc::make_mut) {
            agent.offers.insert(offer.id.clone());
            agent.offered += &offer.resources;
        }
        if let Some(framework) = self
            .frameworks
            .get_mut(&offer.framework_id)
            .map(Arc::make_mut)
        {
            framework.offers.insert(offer.id.clone());
        }
        self.offers
            .insert(offer.id.clone(), Arc::new(Outstanding { offer, role }));
    }

    /// Takes an offer out.
    pub fn remove_offer(&mut self, id: &OfferId) -> Option<Outstanding> {
        let outstanding = self.offers.remove(id)?;
        let offer = &outstanding.offer;
        if let Some(agent) = self.agents.get_mut(&offer.agent_id).map(Arc::make_mut) {
            agent.offers.remove(id);
            agent.offered -= &offer.resources;
        }
        if let Some(framework) = self
            .frameworks
            .get_mut(&offer.framework_id)
            .map(Arc::make_mut)
        {
            framework.offers.remove(id);
        }
        Some(Arc::unwrap_or_clone(outstanding))
    }
}
