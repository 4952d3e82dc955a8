//! Runs: which framework is offered what.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use meseta_protocol::FrameworkId;
use meseta_protocol::agent::AgentCapability;
use meseta_protocol::resources::{Resource, ResourceQuantities, Resources};
use meseta_runtime::Time;
use meseta_runtime::planted::mistake;
use rand::Rng;
use rand::seq::SliceRandom;

use super::{Agent, Allocator, NoOffer, View};
use crate::allocator::messages::Allocation;

impl Allocator {
    /// One run over the candidates: what each framework is offered now. All of it is charged already.
    pub fn allocate(
        &mut self,
        now: Time,
        random: &mut impl Rng,
    ) -> Vec<(FrameworkId, Vec<Allocation>)> {
        self.end_refusals(now);
        let mut visited = std::mem::take(&mut self.candidates);
        let woken = self.wakes.count();
        visited.retain(|a| {
            self.agents.get_mut(*a).is_some_and(|agent| {
                agent.candidate = false;
                agent.active && !agent.is_empty() && agent.barren != Some(woken)
            })
        });
        visited.shuffle(random);
        let mut offers: BTreeMap<usize, Vec<Allocation>> = BTreeMap::new();
        for a in visited {
            self.allocate_agent(a, &mut offers);
        }
        let named = offers.into_iter().filter_map(|(f, offers)| {
            let framework = self.frameworks.get(f)?;
            Some((framework.id.clone(), offers))
        });
        named.collect()
    }

    fn end_refusals(&mut self, now: Time) {
        while let Some(key) = self.deadlines.pop_ended(now) {
            let removed = self
                .membership(key.framework, key.role)
                .is_some_and(|m| m.refusals.remove(key.agent, key.number));
            if removed && let Some(agent) = self.agents.get_mut(key.agent) {
                agent.barren = None;
            }
        }
        // Refusals that were dropped early leave their deadlines behind; most of them gone, the rest is sorted out.
        if self.deadlines.len() > 1024 {
            let live: usize = self.refusals().map(|(_, count)| count).sum();
            if self.deadlines.len() > 2 * live {
                let numbers: BTreeSet<u64> = self.refusal_numbers().collect();
                self.deadlines.retain(|key| numbers.contains(&key.number));
            }
        }
    }

    fn refusal_numbers(&self) -> impl Iterator<Item = u64> + '_ {
        let members = self.frameworks.iter().flat_map(|(_, f)| f.roles.values());
        members.flat_map(|m| m.refusals.keys().map(|(_, number)| number))
    }

    /// Offers one agent's free resources around until nothing is left or nobody else takes any.
    fn allocate_agent(&mut self, a: usize, offers: &mut BTreeMap<usize, Vec<Allocation>>) {
        // A shared resource stays free, but is offered once in a run.
        let Some(agent) = self.agents.get(a) else {
            return;
        };
        let mut shared = agent.shared.clone();
        // Who wanted nothing here does not want a part of it either.
        let woken = agent.barren.and_then(|count| self.wakes.since(count));
        let woken: Option<BTreeSet<usize>> = woken.map(|woken| woken.iter().copied().collect());
        let mut view = None;
        let mut was_served = false;
        // Both orders are those of the moment they are asked for, however the run itself changes them.
        let roles = self.role_sorter.sort(&self.totals);
        for r in roles.iter().copied() {
            let nothing_left =
                |agent: &Agent, shared: &Resources| agent.available.is_empty() && shared.is_empty();
            let Some(agent) = self.agents.get(a) else {
                return;
            };
            if nothing_left(agent, &shared) {
                break;
            }
            let Some(state) = self.roles.get_mut(r) else {
                continue;
            };
            if state.role.is_nested()
                && !agent
                    .capabilities
                    .contains(&AgentCapability::HierarchicalRole)
            {
                continue;
            }
            let role = state.role.clone();
            let frameworks = state.sorter.sort(&self.totals);
            let may_want = |f: &usize| woken.as_ref().is_none_or(|woken| woken.contains(f));
            for f in frameworks.iter().copied().filter(may_want) {
                let Some(offer) = self.offer(a, r, f, &shared, &mut view) else {
                    continue;
                };
                view = None;
                was_served = true;
                shared -= &offer.shared();
                let resources = offer.allocated(&role);
                self.charge(a, f, &resources);
                let Some(agent) = self.agents.get_mut(a) else {
                    return;
                };
                if !mistake("allocator forgets what it has offered") {
                    agent.available -= &offer.non_shared();
                }
                offers.entry(f).or_default().push(Allocation {
                    role: role.clone(),
                    agent_id: agent.id.clone(),
                    entry: agent.entry,
                    resources,
                });
                if nothing_left(agent, &shared) {
                    break;
                }
            }
        }
        if !was_served && let Some(agent) = self.agents.get_mut(a) {
            agent.barren = Some(self.wakes.count());
        }
    }

    /// What framework `f` is to be offered of agent `a` under role `r`, if anything: all that is free, that the role
    /// may have and the framework can take, when that is enough and was not declined. `view` is kept between calls
    /// for as long as nothing of the agent is taken.
    pub(super) fn offer(
        &self,
        a: usize,
        r: usize,
        f: usize,
        shared: &Resources,
        view: &mut Option<View>,
    ) -> Option<Resources> {
        self.judge(a, r, f, shared, view).ok()?;
        Some(view.as_ref()?.offer.clone())
    }

    /// The same, or why there is nothing; `view` says what the offer would be.
    pub(super) fn judge(
        &self,
        a: usize,
        r: usize,
        f: usize,
        shared: &Resources,
        view: &mut Option<View>,
    ) -> Result<(), NoOffer> {
        let agent = self.agents.get(a).ok_or(NoOffer::Unknown)?;
        let framework = self.frameworks.get(f).ok_or(NoOffer::Unknown)?;
        let takes = framework.takes;
        if agent.has_gpus && self.config.filter_gpu_resources && !takes.gpus {
            return Err(NoOffer::Gpus);
        }
        if agent.remote && !takes.remote {
            return Err(NoOffer::Remote);
        }
        if takes.multi_role && !agent.capabilities.contains(&AgentCapability::MultiRole) {
            return Err(NoOffer::OneRole);
        }
        let membership = framework.roles.get(&r).ok_or(NoOffer::Unknown)?;
        let key = (agent.has_reservations.then_some(r), takes);
        if view.as_ref().is_none_or(|view| view.key != key) {
            let role = &self.roles.get(r).ok_or(NoOffer::Unknown)?.role;
            let fits =
                |resource: &Resource| resource.is_allocatable_to(role) && takes.takes(resource);
            let mut offer = agent.available.filter(fits);
            if !shared.is_empty() {
                offer += &shared.filter(fits);
            }
            *view = Some(View {
                key,
                is_enough: is_enough(&offer, &self.config.min_allocatable),
                offer,
                seen: None,
            });
        }
        let view = view.as_mut().ok_or(NoOffer::Unknown)?;
        let is_enough = match &membership.smallest {
            None => view.is_enough,
            Some(smallest) => is_enough(&view.offer, smallest),
        };
        if !is_enough {
            return Err(NoOffer::TooLittle);
        }
        let mut refusals = membership.refusals.of_agent(a);
        if refusals.any(|refused| view.is_covered_by(refused)) {
            return Err(NoOffer::Refused);
        }
        Ok(())
    }
}

/// Whether an offer is worth sending.
fn is_enough(offer: &Resources, alternatives: &[ResourceQuantities]) -> bool {
    !offer.is_empty()
        && (alternatives.is_empty()
            || alternatives
                .iter()
                .any(|least| offer.contains_quantities(least)))
}
