//! The laws of the allocator's books, checked by working everything out again.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use meseta_protocol::agent::AgentCapability;

use super::Allocator;
use crate::allocator::amounts::{Amounts, Names};
use crate::allocator::role_tree::RoleTree;

impl Allocator {
    /// Works everything out again and compares.
    ///
    /// # Errors
    /// The first law that is broken, in words.
    pub fn check(&self) -> Result<(), String> {
        let mut names = self.names_again();
        let mut held_by: BTreeMap<(usize, usize), Amounts> = BTreeMap::new();
        let mut holdings: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        let mut reservations = RoleTree::default();
        for (_, agent) in self.agents.iter() {
            reservations.add_reservations(&agent.total);
            let total = agent.total.non_shared();
            let mut free = total.clone();
            for (f, held) in &agent.used {
                ensure(!held.is_empty(), || {
                    format!("{} keeps an empty entry", agent.id)
                })?;
                let plain = held.non_shared().unallocated();
                ensure(agent.overcommitted || free.contains(&plain), || {
                    format!("{}: {plain} held of {free}", agent.id)
                })?;
                free -= &plain;
                for (role, part) in held.allocations() {
                    let r = self.role_numbers.get(&role).copied();
                    let r = r.ok_or_else(|| format!("{role} is held but not known"))?;
                    held_by
                        .entry((r, *f))
                        .or_default()
                        .add_all(&names.amounts(&part));
                    *holdings.entry((r, *f)).or_default() += 1;
                }
            }
            for held in agent.unclaimed.values() {
                free -= &held.non_shared().unallocated();
            }
            ensure(free == agent.available, || {
                format!("{}: free {} instead of {free}", agent.id, agent.available)
            })?;
        }
        self.check_sorters(&held_by)?;
        self.check_memberships(&holdings, &reservations)?;
        self.check_barren()
    }

    /// The names with the numbers they have in the books.
    fn names_again(&self) -> Names {
        let mut names = Names::default();
        for (id, _) in self.names.iter() {
            names.id(id);
        }
        names
    }

    fn check_sorters(&self, held_by: &BTreeMap<(usize, usize), Amounts>) -> Result<(), String> {
        let none = Amounts::default();
        let mut all = Amounts::default();
        for (r, state) in self.roles.iter() {
            let mut sum = Amounts::default();
            for (f, framework) in self.frameworks.iter() {
                let expected = held_by.get(&(r, f)).unwrap_or(&none);
                let is_member = framework.roles.contains_key(&r);
                ensure(is_member == state.sorter.contains(f), || {
                    format!("{} and the sorter of {} disagree", framework.id, state.role)
                })?;
                ensure(state.sorter.held(f).unwrap_or(&none) == expected, || {
                    format!("{} holds something else under {}", framework.id, state.role)
                })?;
                sum.add_all(expected);
            }
            all.add_all(&sum);
            ensure(self.role_sorter.held(r) == Some(&sum), || {
                format!("the role sorter has another sum of {}", state.role)
            })?;
        }
        ensure(*self.role_sorter.held_by_all() == all, || {
            "the role sorter has another sum of all roles".to_owned()
        })
    }

    fn check_memberships(
        &self,
        holdings: &BTreeMap<(usize, usize), usize>,
        reservations: &RoleTree,
    ) -> Result<(), String> {
        let ends: BTreeSet<u64> = self.deadlines.numbers().collect();
        let mut tree = reservations.clone();
        for (role, node) in self.tree.iter() {
            tree.set_weight(role, node.weight);
        }
        for (f, framework) in self.frameworks.iter() {
            for (r, membership) in &framework.roles {
                let name = || format!("{} in role {r}", framework.id);
                let held = holdings.get(&(*r, f)).copied().unwrap_or(0);
                ensure(membership.holdings == held, || {
                    format!(
                        "{}: {} agents instead of {held}",
                        name(),
                        membership.holdings
                    )
                })?;
                ensure(membership.subscribed || held > 0, || {
                    format!("{}: unused", name())
                })?;
                for (a, number) in membership.refusals.keys() {
                    let ok = membership.subscribed
                        && ends.contains(&number)
                        && self.agents.get(a).is_some();
                    ensure(ok, || format!("{}: refusal {number} is nobody's", name()))?;
                }
                let role = self.roles.get(*r).map(|state| &state.role);
                let role = role.ok_or_else(|| format!("{}: no such role", name()))?;
                tree.add_framework(role, f);
            }
        }
        ensure(tree == self.tree, || {
            format!("role tree {:?} instead of {tree:?}", self.tree)
        })
    }

    fn check_barren(&self) -> Result<(), String> {
        for (a, agent) in self.agents.iter() {
            let Some(woken) = agent.barren.and_then(|count| self.wakes.since(count)) else {
                continue;
            };
            for (f, framework) in self.frameworks.iter() {
                if woken.contains(&f) {
                    continue;
                }
                for (r, membership) in &framework.roles {
                    let hierarchical = &AgentCapability::HierarchicalRole;
                    let allowed = self.roles.get(*r).is_some_and(|state| {
                        !state.role.is_nested() || agent.capabilities.contains(hierarchical)
                    });
                    let wants = framework.active && membership.subscribed && !membership.suppressed;
                    if wants && allowed {
                        let offer = self.offer(a, *r, f, &agent.shared, &mut None);
                        ensure(offer.is_none(), || {
                            format!("barren {} suits {}", agent.id, framework.id)
                        })?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}
