//! Outstanding offers in the master's tables.

use meseta_protocol::OfferId;
use meseta_protocol::Role;
use meseta_protocol::offer::Offer;

use super::{Outstanding, State};

impl State {
    /// Adds an offer to its framework and agent.
    pub fn add_offer(&mut self, offer: Offer, role: Role) {
        if let Some(agent) = self.agents.get_mut(&offer.agent_id) {
            agent.offers.insert(offer.id.clone());
            agent.offered += &offer.resources;
        }
        if let Some(framework) = self.frameworks.get_mut(&offer.framework_id) {
            framework.offers.insert(offer.id.clone());
        }
        self.offers
            .insert(offer.id.clone(), Outstanding { offer, role });
    }

    /// Takes an offer out.
    pub fn remove_offer(&mut self, id: &OfferId) -> Option<Outstanding> {
        let outstanding = self.offers.remove(id)?;
        let offer = &outstanding.offer;
        if let Some(agent) = self.agents.get_mut(&offer.agent_id) {
            agent.offers.remove(id);
            agent.offered -= &offer.resources;
        }
        if let Some(framework) = self.frameworks.get_mut(&offer.framework_id) {
            framework.offers.remove(id);
        }
        Some(outstanding)
    }
}
