//! no acknowledged operation of the registry is lost, and none takes effect that nobody asked for.
//!
//! Pure. Looked at agent by agent, which is where operations meet: what a new leader finds of an agent is what the last
//! acknowledged operation made of it, or what one has made whose answer nobody heard.

use std::collections::BTreeMap;

use meseta_master::registry::{Registry, RegistryOperation};
use meseta_protocol::AgentId;

/// Where the registry has an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Place {
    /// Nowhere.
    #[default]
    Unknown,
    /// Among those that may run tasks.
    Admitted,
    /// Among those that fell silent.
    Unreachable,
    /// Among those that will never come back.
    Gone,
}

/// What operations have made of each agent.
#[derive(Debug, Default)]
pub struct RegistryForgetsNothing<Number> {
    places: BTreeMap<AgentId, Place>,
    open: BTreeMap<Number, RegistryOperation>,
}

impl<Number: Ord> RegistryForgetsNothing<Number> {
    /// An operation is asked for.
    pub fn asked(&mut self, number: Number, operation: RegistryOperation) {
        self.open.insert(number, operation);
    }

    /// It is acknowledged: it has changed the registry, or not.
    pub fn acknowledged(&mut self, number: &Number, changed: bool) {
        // One that a new leader has found, or not, before its answer came is settled already.
        if let Some(operation) = self.open.remove(number).filter(|_| changed) {
            self.places.extend(places(&operation));
        }
    }

    /// A new leader has found this registry.
    ///
    /// # Errors
    /// The agent that is not where it must be.
    pub fn found(&mut self, registry: &Registry) -> Result<(), String> {
        let open: Vec<_> = std::mem::take(&mut self.open)
            .into_values()
            .flat_map(|operation| places(&operation))
            .collect();
        let found = all_places(registry);
        let known = self.places.keys().chain(found.keys());
        for id in known.chain(open.iter().map(|(id, _)| id)) {
            let place = found.get(id).copied().unwrap_or_default();
            let last = self.places.get(id).copied().unwrap_or_default();
            let may = place == last || open.iter().any(|(other, now)| other == id && *now == place);
            if !may {
                return Err(format!(
                    "a new leader finds {id} {place:?}, and it was acknowledged to be {last:?}"
                ));
            }
        }
        self.places = found;
        Ok(())
    }
}

fn all_places(registry: &Registry) -> BTreeMap<AgentId, Place> {
    let of = |id: &AgentId, place| (id.clone(), place);
    let admitted = registry.admitted.keys().map(|id| of(id, Place::Admitted));
    let unreachable = registry.unreachable.keys();
    let unreachable = unreachable.map(|id| of(id, Place::Unreachable));
    let gone = registry.gone.keys().map(|id| of(id, Place::Gone));
    admitted.chain(unreachable).chain(gone).collect()
}

/// Where an operation that changes something puts agents.
pub(super) fn places(operation: &RegistryOperation) -> Vec<(AgentId, Place)> {
    use RegistryOperation as Op;
    let one = |id: &AgentId, place| vec![(id.clone(), place)];
    match operation {
        Op::AdmitAgent { info } | Op::UpdateAgent { info } | Op::MarkAgentReachable { info } => {
            let id = info.id.iter();
            id.map(|id| (id.clone(), Place::Admitted)).collect()
        }
        Op::MarkAgentUnreachable { agent_id, .. } => one(agent_id, Place::Unreachable),
        Op::RemoveAgent { agent_id } => one(agent_id, Place::Unknown),
        Op::MarkAgentGone { agent_id, .. } => one(agent_id, Place::Gone),
        Op::Prune { unreachable, gone } => {
            let all = unreachable.iter().chain(gone);
            all.map(|id| (id.clone(), Place::Unknown)).collect()
        }
        Op::Recover { .. }
        | Op::DrainAgent { .. }
        | Op::MarkAgentDrained { .. }
        | Op::DeactivateAgent { .. }
        | Op::ReactivateAgent { .. }
        | Op::UpdateQuota { .. }
        | Op::UpdateWeights { .. }
        | Op::UpdateSchedule { .. }
        | Op::StartMaintenance { .. }
        | Op::StopMaintenance { .. }
        | Op::AdmitResourceProvider { .. }
        | Op::RemoveResourceProvider { .. } => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meseta_master::registry::Unreachable;

    fn silent(id: &str) -> RegistryOperation {
        RegistryOperation::MarkAgentUnreachable {
            agent_id: id.into(),
            at: 1,
        }
    }

    fn registry(silent: &[&str]) -> Registry {
        let entry = |id: &&str| (AgentId::new(*id), Unreachable::default());
        Registry {
            unreachable: silent.iter().map(entry).collect(),
            ..Registry::default()
        }
    }

    #[test]
    fn refuses_a_registry_that_lacks_what_was_acknowledged_or_has_more() {
        let mut law = RegistryForgetsNothing::default();
        law.asked(1, silent("a"));
        law.acknowledged(&1, true);
        assert!(law.found(&registry(&[])).is_err());
        let mut law = RegistryForgetsNothing::<u8>::default();
        assert!(law.found(&registry(&["a"])).is_err());
    }

    #[test]
    fn accepts_what_was_acknowledged_and_either_end_of_what_was_not() {
        let mut law = RegistryForgetsNothing::default();
        law.asked(1, silent("a"));
        law.asked(2, silent("b"));
        law.acknowledged(&1, true);
        assert_eq!(law.found(&registry(&["a"])), Ok(()));
        assert!(law.found(&registry(&["a", "b"])).is_err(), "it is settled");
        law.asked(3, silent("c"));
        assert_eq!(law.found(&registry(&["a", "c"])), Ok(()));
        law.acknowledged(&3, true);
        assert_eq!(law.found(&registry(&["a", "c"])), Ok(()));
    }
}
