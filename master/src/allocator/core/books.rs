//! What is held: charged, taken back and refused.
//!
//! Pure.

use std::sync::Arc;

use meseta_protocol::Role;
use meseta_protocol::offer::Filters;
use meseta_protocol::resources::{Resource, Resources};
use meseta_runtime::Time;

use super::{Allocator, BookError};
use crate::allocator::amounts::{Amounts, Names};
use crate::allocator::filters::{RefusalKey, refusal};
use crate::allocator::messages::RecoverResources;

impl Allocator {
    /// Takes resources back, and notes that the framework does not want them for a while. Starts no run. A framework
    /// or agent that is not known is no error: it was removed meanwhile.
    ///
    /// # Errors
    /// [`BookError`] when the framework does not hold all of it; the part it holds is free all the same.
    pub fn recover_resources(
        &mut self,
        message: &RecoverResources,
        now: Time,
    ) -> Result<(), BookError> {
        let Some(a) = self.agent_numbers.get(&message.agent_id).copied() else {
            return Ok(());
        };
        let Some(f) = self.framework_numbers.get(&message.framework_id).copied() else {
            self.recover_unclaimed(a, message);
            return Ok(());
        };
        let held = self.agents.get(a).and_then(|agent| agent.used.get(&f));
        let error = match held {
            Some(held) if held.contains(&message.resources) => None,
            _ if message.resources.is_empty() => None,
            held => Some(BookError {
                framework_id: message.framework_id.clone(),
                agent_id: message.agent_id.clone(),
                given: message.resources.clone(),
                held: held.cloned().unwrap_or_default(),
            }),
        };
        // Refused under the roles it was offered under, before the framework may fall out of one.
        if let Some(length) = message
            .filters
            .as_ref()
            .and_then(|filters: &Filters| refusal(filters, self.config.allocation_interval))
        {
            self.refuse(a, f, &message.resources, now + length);
        }
        let part = match &error {
            None => message.resources.clone(),
            Some(error) => {
                let held = |resource: &Resource| error.held.contains_resource(resource);
                message.resources.filter(held)
            }
        };
        self.discharge(a, f, &part);
        if let Some(agent) = self.agents.get_mut(a) {
            if agent.overcommitted {
                agent.rebalance();
            } else {
                agent.available += &part.non_shared().unallocated();
                agent.barren = None;
            }
        }
        error.map_or(Ok(()), Err)
    }

    fn recover_unclaimed(&mut self, a: usize, message: &RecoverResources) {
        let Some(agent) = self.agents.get_mut(a) else {
            return;
        };
        if let Some(held) = agent.unclaimed.get_mut(&message.framework_id) {
            *held -= &message.resources;
            if held.is_empty() {
                agent.unclaimed.remove(&message.framework_id);
            }
            agent.rebalance();
        }
    }

    fn refuse(&mut self, a: usize, f: usize, resources: &Resources, end: Time) {
        for (role, refused) in resources.allocations() {
            let Some(r) = self.role_numbers.get(&role).copied() else {
                continue;
            };
            let refused = refused.unallocated();
            let Some(agent) = self.agents.get_mut(a) else {
                continue;
            };
            let refused = match &agent.last_refused {
                Some(last) if **last == refused => Arc::clone(last),
                _ => {
                    let refused = Arc::new(refused);
                    agent.last_refused = Some(Arc::clone(&refused));
                    refused
                }
            };
            self.last_refusal += 1;
            let key = RefusalKey {
                number: self.last_refusal,
                framework: f,
                role: r,
                agent: a,
            };
            if let Some(membership) = self.membership(f, r)
                && membership.subscribed
            {
                membership.refusals.insert(a, key.number, refused);
                self.deadlines.push(end, key);
            }
        }
    }

    /// Books resources on a framework. The agent's free resources are the caller's concern.
    pub(super) fn charge(&mut self, a: usize, f: usize, resources: &Resources) {
        let Some(agent) = self.agents.get_mut(a) else {
            return;
        };
        let held = agent.used.entry(f).or_default();
        let charges = by_role(&mut self.names, resources, |resource| {
            !resource.shared || !held.contains_resource(resource)
        });
        let charges: Vec<_> = charges
            .into_iter()
            .map(|(role, amounts)| {
                let is_first = !holds_under(held, &role);
                (role, amounts, is_first)
            })
            .collect();
        *held += resources;
        if held.is_empty() {
            agent.used.remove(&f);
        }
        for (role, amounts, is_first) in charges {
            let r = self.join_role(f, &role);
            if is_first && let Some(membership) = self.membership(f, r) {
                membership.holdings += 1;
            }
            self.role_sorter.allocated(r, &amounts, &self.totals);
            if let Some(state) = self.roles.get_mut(r) {
                state.sorter.allocated(f, &amounts, &self.totals);
            }
        }
    }

    /// Takes resources that a framework holds off its books.
    pub(super) fn discharge(&mut self, a: usize, f: usize, resources: &Resources) {
        let Some(agent) = self.agents.get_mut(a) else {
            return;
        };
        let Some(held) = agent.used.get_mut(&f) else {
            return;
        };
        *held -= resources;
        let charges = by_role(&mut self.names, resources, |resource| {
            !resource.shared || !held.contains_resource(resource)
        });
        let charges: Vec<_> = charges
            .into_iter()
            .map(|(role, amounts)| {
                let was_last = !holds_under(held, &role);
                (role, amounts, was_last)
            })
            .collect();
        if held.is_empty() {
            agent.used.remove(&f);
        }
        for (role, amounts, was_last) in charges {
            let Some(r) = self.role_numbers.get(&role).copied() else {
                continue;
            };
            self.role_sorter.unallocated(r, &amounts, &self.totals);
            if let Some(state) = self.roles.get_mut(r) {
                state.sorter.unallocated(f, &amounts, &self.totals);
            }
            if was_last {
                if let Some(membership) = self.membership(f, r) {
                    membership.holdings -= 1;
                }
                self.leave_unused_role(f, r);
            }
        }
    }
}

/// The amounts of the resources that count, by allocation role; every role comes, if only with nothing.
fn by_role(
    names: &mut Names,
    resources: &Resources,
    counts: impl Fn(&Resource) -> bool,
) -> Vec<(Role, Amounts)> {
    let mut out: Vec<(Role, Amounts)> = Vec::with_capacity(1);
    for resource in resources.iter() {
        debug_assert!(resource.allocation.is_some(), "{resource} has no role");
        let Some(role) = &resource.allocation else {
            continue;
        };
        let at = out.iter().position(|(known, _)| known == role);
        let at = at.unwrap_or_else(|| {
            out.push((role.clone(), Amounts::default()));
            out.len() - 1
        });
        if counts(resource)
            && let Some(amount) = resource.amount()
        {
            out[at].1.add(names.id(&resource.name), amount);
        }
    }
    out
}

fn holds_under(held: &Resources, role: &Role) -> bool {
    held.iter()
        .any(|resource| resource.allocation.as_ref() == Some(role))
}
