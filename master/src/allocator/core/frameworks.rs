//! Frameworks in the allocator's books: who they are, in which roles, and what they want now.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::resources::Resources;
use meseta_protocol::{AgentId, FrameworkId, Role};

use super::{Allocator, Framework, Membership, RoleState, Takes};
use crate::allocator::drf_sorter::DrfSorter;
use crate::allocator::messages::{
    ActivateFramework, AddFramework, DeactivateFramework, RemoveFramework, ReviveOffers,
    SuppressOffers, UpdateFramework,
};

impl Allocator {
    /// Takes a framework into the books; one that is known is updated instead.
    pub fn add_framework(&mut self, message: AddFramework) {
        let AddFramework {
            framework_id,
            info,
            used,
            active,
            suppressed_roles,
        } = message;
        let f = match self.framework_numbers.get(&framework_id) {
            Some(known) => *known,
            None => {
                let number = self.frameworks.insert(Framework {
                    id: framework_id.clone(),
                    active,
                    takes: Takes::of(&info),
                    roles: BTreeMap::new(),
                });
                self.framework_numbers.insert(framework_id.clone(), number);
                number
            }
        };
        self.describe(f, &info, &suppressed_roles);
        self.claim(f, &framework_id, &used);
        self.set_framework_active(f, active);
    }

    /// Books on a new framework what it holds: what agents reported of it, and what the master says.
    fn claim(&mut self, f: usize, id: &FrameworkId, used: &BTreeMap<AgentId, Resources>) {
        let mut claims: Vec<(usize, Resources)> = Vec::new();
        for (a, agent) in self.agents.iter_mut() {
            let reported = agent.unclaimed.remove(id);
            if agent.used.contains_key(&f) {
                continue;
            }
            if let Some(held) = used.get(&agent.id).cloned().or(reported) {
                claims.push((a, held));
            }
        }
        for (a, held) in claims {
            self.charge(a, f, &held);
            if let Some(agent) = self.agents.get_mut(a) {
                agent.rebalance();
            }
        }
    }

    /// Forgets a framework. What it still holds stays held on the agents until it is recovered.
    pub fn remove_framework(&mut self, message: &RemoveFramework) {
        let Some(f) = self.framework_numbers.get(&message.framework_id).copied() else {
            return;
        };
        self.set_framework_active(f, false);
        let mut holdings = Vec::new();
        for (a, agent) in self.agents.iter() {
            if let Some(held) = agent.used.get(&f) {
                holdings.push((a, held.clone()));
            }
        }
        for (a, held) in holdings {
            self.discharge(a, f, &held);
            if let Some(agent) = self.agents.get_mut(a) {
                agent.unclaimed.insert(message.framework_id.clone(), held);
            }
        }
        for r in self.roles_of(f) {
            if let Some(membership) = self.membership(f, r) {
                membership.subscribed = false;
            }
            self.leave_unused_role(f, r);
        }
        self.frameworks.remove(f);
        self.framework_numbers.remove(&message.framework_id);
    }

    /// Lets a framework have offers.
    pub fn activate_framework(&mut self, message: &ActivateFramework) {
        if let Some(f) = self.framework_numbers.get(&message.framework_id).copied() {
            self.set_framework_active(f, true);
        }
    }

    /// Keeps a framework from offers and forgets what it declined; what it suppressed stays suppressed.
    pub fn deactivate_framework(&mut self, message: &DeactivateFramework) {
        if let Some(f) = self.framework_numbers.get(&message.framework_id).copied() {
            self.set_framework_active(f, false);
        }
    }

    fn set_framework_active(&mut self, f: usize, active: bool) {
        let Some(framework) = self.frameworks.get_mut(f) else {
            return;
        };
        framework.active = active;
        if !active {
            for membership in framework.roles.values_mut() {
                membership.refusals.clear();
            }
        }
        for r in self.roles_of(f) {
            self.refresh(f, r);
        }
        if active {
            self.wakes.push(f);
            self.nominate_all();
        }
    }

    /// Takes a framework's new description. Starts no run.
    pub fn update_framework(&mut self, message: &UpdateFramework) {
        if let Some(f) = self.framework_numbers.get(&message.framework_id).copied() {
            self.describe(f, &message.info, &message.suppressed_roles);
        }
    }

    fn describe(&mut self, f: usize, info: &FrameworkInfo, suppressed: &BTreeSet<Role>) {
        if let Some(framework) = self.frameworks.get_mut(f) {
            framework.takes = Takes::of(info);
        }
        let roles = info.effective_roles();
        for role in &roles {
            let r = self.join_role(f, role);
            let wishes = info.offer_filters.get(role);
            let smallest = wishes.and_then(|wishes| wishes.min_allocatable_resources.as_ref());
            let smallest = smallest.map(|smallest| {
                let alternatives = smallest.quantities.iter();
                alternatives.map(|one| one.quantities.clone()).collect()
            });
            if let Some(membership) = self.membership(f, r) {
                membership.subscribed = true;
                // A role that is no longer suppressed keeps its refusals: only REVIVE clears those.
                membership.suppressed = suppressed.contains(role);
                membership.smallest = smallest;
            }
            self.refresh(f, r);
        }
        for r in self.roles_of(f) {
            if self
                .roles
                .get(r)
                .is_some_and(|state| roles.contains(&state.role))
            {
                continue;
            }
            if let Some(membership) = self.membership(f, r) {
                *membership = Membership {
                    holdings: membership.holdings,
                    ..Membership::default()
                };
            }
            self.refresh(f, r);
            self.leave_unused_role(f, r);
        }
        self.wakes.push(f);
    }

    /// Makes no more offers under these roles.
    pub fn suppress_offers(&mut self, message: &SuppressOffers) {
        self.set_suppressed(&message.framework_id, &message.roles, true);
    }

    /// Makes offers under these roles again, whatever was declined before.
    pub fn revive_offers(&mut self, message: &ReviveOffers) {
        if let Some(f) = self.set_suppressed(&message.framework_id, &message.roles, false) {
            self.wakes.push(f);
            self.nominate_all();
        }
    }

    fn set_suppressed(
        &mut self,
        id: &FrameworkId,
        roles: &BTreeSet<Role>,
        suppressed: bool,
    ) -> Option<usize> {
        let f = self.framework_numbers.get(id).copied()?;
        for r in self.roles_of(f) {
            let state = self.roles.get(r);
            if !roles.is_empty() && !state.is_some_and(|state| roles.contains(&state.role)) {
                continue;
            }
            if let Some(membership) = self.membership(f, r) {
                membership.suppressed = suppressed;
                if !suppressed {
                    membership.refusals.clear();
                }
            }
            self.refresh(f, r);
        }
        Some(f)
    }

    pub(super) fn membership(&mut self, f: usize, r: usize) -> Option<&mut Membership> {
        self.frameworks.get_mut(f)?.roles.get_mut(&r)
    }

    fn roles_of(&self, f: usize) -> Vec<usize> {
        let framework = self.frameworks.get(f);
        framework.map_or_else(Vec::new, |framework| {
            framework.roles.keys().copied().collect()
        })
    }

    /// Puts a framework into a role, not subscribed yet, and returns the role's number.
    pub(super) fn join_role(&mut self, f: usize, role: &Role) -> usize {
        let r = match self.role_numbers.get(role) {
            Some(known) => *known,
            None => {
                let number = self.roles.insert(RoleState {
                    role: role.clone(),
                    sorter: DrfSorter::default(),
                    members: 0,
                });
                self.role_numbers.insert(role.clone(), number);
                self.role_sorter.add(number, role.components());
                self.role_sorter.set_active(number, true);
                number
            }
        };
        if let (Some(framework), Some(state)) = (self.frameworks.get_mut(f), self.roles.get_mut(r))
            && !framework.roles.contains_key(&r)
        {
            framework.roles.insert(r, Membership::default());
            state.sorter.add(f, [framework.id.as_str()]);
            state.members += 1;
            self.tree.add_framework(role, f);
        }
        r
    }

    /// Takes a framework out of a role that it neither is subscribed to nor holds anything of.
    pub(super) fn leave_unused_role(&mut self, f: usize, r: usize) {
        let Some(framework) = self.frameworks.get_mut(f) else {
            return;
        };
        let unused = |m: &Membership| !m.subscribed && m.holdings == 0;
        if !framework.roles.get(&r).is_some_and(unused) {
            return;
        }
        framework.roles.remove(&r);
        let Some(state) = self.roles.get_mut(r) else {
            return;
        };
        state.sorter.remove(f);
        state.members -= 1;
        self.tree.remove_framework(&state.role, f);
        if state.members == 0 {
            self.role_numbers.remove(&state.role);
            self.role_sorter.remove(r);
            self.roles.remove(r);
        }
    }

    /// Lets the framework into the role's order exactly when it may be made offers.
    fn refresh(&mut self, f: usize, r: usize) {
        let Some(framework) = self.frameworks.get(f) else {
            return;
        };
        let wants = |m: &Membership| m.subscribed && !m.suppressed;
        let active = framework.active && framework.roles.get(&r).is_some_and(wants);
        if let Some(state) = self.roles.get_mut(r) {
            state.sorter.set_active(f, active);
        }
    }
}
