//! Why a framework is offered what it is offered, and no more.
//!
//! Pure. Nothing is remembered for this: reasons are worked out when somebody asks, by what a run itself decides with
//! ([`Allocator::judge`]). How much is worked out for one question is bounded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use meseta_protocol::agent::AgentCapability;
use meseta_protocol::resources::{ResourceQuantities, Resources};
use meseta_protocol::{FrameworkId, Role};
use meseta_runtime::Time;

use super::{Agent, Allocator, Membership, NoOffer, View};
use crate::allocator::drf_sorter::Client;
use crate::allocator::explain::{
    AgentExplained, Before, Explain, FrameworkExplained, MOST_AGENTS, MOST_AHEAD, MOST_REFUSALS,
    Reason, RefusalExplained, RoleExplained,
};

/// Agents looked at for one role each, and looks at who else could take one of them, that one question is worth.
const MOST_LOOKS: usize = 10_000;

/// Who is served in which order: roles, and of each its number and its frameworks.
type Order = Vec<(usize, Arc<[Client]>)>;

/// Those before somebody, with what each is worth; `share` is asked of the first only.
fn before<T>(all: &[usize], one: impl Fn(usize) -> Option<(T, f64)>) -> Before<T> {
    Before {
        count: all.len(),
        first: all
            .iter()
            .take(MOST_AHEAD)
            .filter_map(|at| one(*at))
            .collect(),
    }
}

/// Alternatives as the flag `--min_allocatable_resources` has them.
fn written(alternatives: &[ResourceQuantities]) -> String {
    let one = |least: &ResourceQuantities| {
        let all = least
            .iter()
            .map(|(name, amount)| format!("{name}:{amount}"));
        all.collect::<Vec<_>>().join(";")
    };
    alternatives.iter().map(one).collect::<Vec<_>>().join("|")
}

impl Allocator {
    /// What there is to say of a framework, if it is in the books. Asking changes nothing of what a run decides.
    pub fn explain(&mut self, asked: &Explain, now: Time) -> Option<FrameworkExplained> {
        let f = self.framework_numbers.get(&asked.framework_id).copied()?;
        let order = self.order();
        let this = &*self;
        let framework = this.frameworks.get(f)?;
        let ends = this.deadlines.of_framework(f);
        let left = |number: u64| {
            let end = ends.get(&number).copied().unwrap_or(now);
            end.since(now)
        };
        let mut refusals = Vec::new();
        let mut refusals_in_all = 0;
        for (r, membership) in &framework.roles {
            // One that is over is taken out by the next run.
            let in_force = |number: u64| ends.get(&number).is_some_and(|end| *end >= now);
            let all = membership.refusals.iter();
            for (a, number, refused) in all.filter(|(_, number, _)| in_force(*number)) {
                refusals_in_all += 1;
                if refusals.len() < MOST_REFUSALS
                    && let (Some(role), Some(agent)) = (this.roles.get(*r), this.agents.get(a))
                {
                    refusals.push(RefusalExplained {
                        role: role.role.clone(),
                        agent_id: agent.id.clone(),
                        resources: refused.to_string(),
                        left: left(number),
                    });
                }
            }
        }
        let all: Vec<usize> = match &asked.agent_id {
            Some(id) => this.agent_numbers.get(id).copied().into_iter().collect(),
            None => this.agents.iter().map(|(a, _)| a).collect(),
        };
        let mut looks = MOST_LOOKS;
        let mut reasons = BTreeMap::new();
        let mut agents = Vec::new();
        let wanted = all.iter().skip(asked.offset);
        let most = (MOST_LOOKS / framework.roles.len().max(1)).clamp(1, MOST_AGENTS);
        for a in wanted.take(asked.limit.min(most)) {
            let Some(agent) = this.agents.get(*a) else {
                continue;
            };
            let mut roles = Vec::new();
            for (r, membership) in &framework.roles {
                let Some(state) = this.roles.get(*r) else {
                    continue;
                };
                let reason = this.reason((*a, agent), (*r, &state.role), (f, membership), &left);
                let reason =
                    reason.unwrap_or_else(|| this.turn((*a, agent), (*r, f), &order, &mut looks));
                *reasons.entry(reason.name().to_owned()).or_insert(0) += 1;
                roles.push((state.role.clone(), reason));
            }
            agents.push(AgentExplained {
                agent_id: agent.id.clone(),
                free: (&agent.available + &agent.shared).to_string(),
                held: agent
                    .used
                    .get(&f)
                    .map(Resources::to_string)
                    .unwrap_or_default(),
                roles,
            });
        }
        Some(FrameworkExplained {
            active: framework.active,
            interval_seconds: this.config.allocation_interval.as_secs_f64(),
            roles: this.roles_explained(f, &order),
            refusals,
            refusals_in_all,
            agents_in_all: all.len(),
            agents,
            reasons,
        })
    }

    /// The order of the next run, as of now.
    fn order(&mut self) -> Order {
        let roles = self.role_sorter.sort(&self.totals);
        let mut order = Vec::with_capacity(roles.len());
        for r in roles.iter().copied() {
            if let Some(state) = self.roles.get_mut(r) {
                order.push((r, state.sorter.sort(&self.totals)));
            }
        }
        order
    }

    fn roles_explained(&self, f: usize, order: &Order) -> Vec<RoleExplained> {
        let framework = self.frameworks.get(f);
        let share = |r: usize| self.role_sorter.dominant_share(r, &self.totals);
        let mut out = Vec::new();
        for (r, membership) in framework.into_iter().flat_map(|one| &one.roles) {
            let Some(state) = self.roles.get(*r) else {
                continue;
            };
            // Roles without anybody who wants offers are in nobody's way.
            let wanting = order
                .iter()
                .filter(|(other, members)| other == r || !members.is_empty());
            let roles: Vec<usize> = wanting
                .map(|(other, _)| *other)
                .take_while(|other| other != r)
                .collect();
            let members = order
                .iter()
                .find(|(other, _)| other == r)
                .map(|(_, members)| members);
            let served = members.and_then(|all| all.iter().position(|other| *other == f));
            let ahead = members.map_or(&[][..], |all| &all[..served.unwrap_or(0)]);
            let smallest = membership.smallest.as_ref();
            out.push(RoleExplained {
                role: state.role.clone(),
                subscribed: membership.subscribed,
                suppressed: membership.suppressed,
                weight: self.tree.weight(&state.role),
                dominant_share: share(*r),
                smallest_offer: written(smallest.unwrap_or(&self.config.min_allocatable)),
                smallest_is_its_own: smallest.is_some(),
                roles_before: before(&roles, |other| {
                    Some((self.roles.get(other)?.role.clone(), share(other)))
                }),
                frameworks_before: before(ahead, |other| {
                    let held = state.sorter.dominant_share(other, &self.totals);
                    Some((self.frameworks.get(other)?.id.clone(), held))
                }),
                framework_share: state.sorter.dominant_share(f, &self.totals),
            });
        }
        out
    }

    /// Why the next run will not offer the framework anything of an agent under a role, whoever else is there; none when it
    /// can.
    fn reason(
        &self,
        (a, agent): (usize, &Agent),
        (r, role): (usize, &Role),
        (f, membership): (usize, &Membership),
        left: &impl Fn(u64) -> Duration,
    ) -> Option<Reason> {
        let is_active = self.frameworks.get(f).is_some_and(|one| one.active);
        let hierarchical = AgentCapability::HierarchicalRole;
        if !is_active {
            return Some(Reason::FrameworkInactive);
        } else if !membership.subscribed {
            return Some(Reason::NotSubscribed);
        } else if membership.suppressed {
            return Some(Reason::Suppressed);
        } else if !agent.active {
            return Some(Reason::AgentDisconnected);
        } else if agent.is_empty() {
            return Some(Reason::NothingFree);
        } else if role.is_nested() && !agent.capabilities.contains(&hierarchical) {
            return Some(Reason::AgentLacksHierarchicalRole);
        }
        let mut view = None;
        let judged = self.judge(a, r, f, &agent.shared, &mut view);
        let offer = view.map_or_else(Resources::new, |view: View| view.offer);
        Some(match judged {
            Ok(()) => return None,
            Err(NoOffer::Gpus) => Reason::FrameworkLacksGpuResources,
            Err(NoOffer::Remote) => Reason::OtherRegion,
            Err(NoOffer::OneRole) => Reason::AgentLacksMultiRole,
            Err(NoOffer::Unknown) => Reason::NotSubscribed,
            Err(NoOffer::TooLittle) if offer.is_empty() => Reason::NothingForTheRole,
            Err(NoOffer::TooLittle) => Reason::TooLittle {
                offer: offer.to_string(),
            },
            Err(NoOffer::Refused) => {
                let all = membership.refusals.iter();
                let covering = all.filter(|(at, _, refused)| *at == a && refused.contains(&offer));
                Reason::Refused {
                    left: (covering.map(|(_, number, _)| left(number)).max()).unwrap_or_default(),
                    offer: offer.to_string(),
                }
            }
        })
    }

    /// Who gets what the framework could be offered.
    fn turn(
        &self,
        (a, agent): (usize, &Agent),
        (wanted, by): (usize, usize),
        order: &Order,
        looks: &mut usize,
    ) -> Reason {
        let hierarchical = agent
            .capabilities
            .contains(&AgentCapability::HierarchicalRole);
        let mut view = None;
        for (r, members) in order {
            let Some(state) = self.roles.get(*r) else {
                continue;
            };
            if state.role.is_nested() && !hierarchical {
                continue;
            }
            for f in members.iter().copied() {
                if (*r, f) == (wanted, by) {
                    return Reason::NextRun;
                }
                let Some(rest) = looks.checked_sub(1) else {
                    return Reason::Waiting;
                };
                *looks = rest;
                if self.judge(a, *r, f, &agent.shared, &mut view).is_ok() {
                    return Reason::After {
                        role: state.role.clone(),
                        framework_id: self.name_of(f),
                    };
                }
            }
        }
        Reason::Waiting
    }

    fn name_of(&self, f: usize) -> FrameworkId {
        let framework = self.frameworks.get(f);
        framework.map(|one| one.id.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
