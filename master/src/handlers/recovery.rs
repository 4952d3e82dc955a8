//! What a new leader does with the registry it has recovered: who is awaited, who is unreachable or gone, whose entries
//! are forgotten. Source: master.md §2, log.md §8.

use std::collections::BTreeMap;
use std::time::Duration;

use meseta_protocol::messages::scheduler::AgentLost;
use meseta_protocol::{AgentId, Role};
use meseta_runtime::Context;
use tracing::{error, info, warn};

use crate::allocator::messages as allocator;
use crate::failover::{Awaited, Verdict};
use crate::gc;
use crate::master::{Master, Transition};
use crate::registry::{Registry, RegistryOperation};

/// What frameworks and logs say of an agent that did not come back after a fail-over.
const STAYED_AWAY: &str = "agent did not re-register in time after the master's fail-over";

impl Master {
    /// Takes over what earlier masters have stored.
    pub(crate) fn adopt(&mut self, cx: &mut Context<'_, Self>, registry: &Registry) {
        *self.awaited = Awaited::of(registry);
        let unreachable = registry.unreachable.iter();
        *self.unreachable = unreachable
            .map(|(id, agent)| (id.clone(), Duration::from_nanos(agent.at)))
            .collect();
        let gone = registry.gone.iter();
        self.gone = gone
            .map(|(id, at)| (id.clone(), Duration::from_nanos(*at)))
            .collect();
        self.settle_weights(cx, registry);
        if !self.awaited.is_empty() {
            info!(
                agents = self.awaited.len(),
                "agents of the registry are awaited"
            );
            cx.after(self.config.agent_reregister_timeout, Self::stop_awaiting);
        }
        cx.after(self.config.registry_gc_interval, Self::forget_old_entries);
    }

    /// Weights in the registry win over those of the flags, which are stored when the registry has none.
    fn settle_weights(&mut self, cx: &mut Context<'_, Self>, registry: &Registry) {
        let flags = self.config.allocator.weights.clone();
        self.weights = in_force(&flags, &registry.weights);
        if registry.weights.is_empty() {
            if !flags.is_empty() {
                let weights = flags;
                self.store(
                    cx,
                    RegistryOperation::UpdateWeights { weights },
                    |_, _, _| {},
                );
            }
            return;
        }
        let mut weights: BTreeMap<_, _> = flags.into_keys().map(|role| (role, 1.0)).collect();
        weights.extend(registry.weights.clone());
        self.tell_allocator(cx, allocator::UpdateWeights { weights });
    }

    fn stop_awaiting(&mut self, cx: &mut Context<'_, Self>) {
        let missing = match self.awaited.due(self.config.recovery_agent_removal_limit) {
            Verdict::Mark(missing) => missing,
            Verdict::TooMany { missing, of } => {
                let percent = self.config.recovery_agent_removal_limit * 100.0;
                let why = format!(
                    "{missing} of {of} agents did not register again, and --recovery_agent_removal_limit allows to remove \
                     {percent}%: see whether they can reach this master, or raise the limit"
                );
                error!(%why, "the master ends");
                cx.fail(why);
                return;
            }
        };
        for id in missing {
            cx.metrics().count("master/slave_unreachable_scheduled");
            let wait = self.permits.take(cx.now());
            if wait.is_zero() {
                self.give_up(cx, &id);
            } else {
                cx.after(wait, move |master, cx| master.give_up(cx, &id));
            }
        }
    }

    /// Marks an awaited agent unreachable, unless it has come back or comes back just now.
    fn give_up(&mut self, cx: &mut Context<'_, Self>, id: &AgentId) {
        if self.awaited.get(id).is_none() || self.transitions.contains_key(id) {
            cx.metrics().count("master/slave_unreachable_canceled");
            return;
        }
        warn!(agent = %id, "{STAYED_AWAY}: it is marked unreachable");
        self.transitions
            .insert(id.clone(), Transition::MarkingUnreachable);
        let id = id.clone();
        self.store_unreachable(cx, id, |master, cx, id, at| {
            cx.metrics().count("master/recovery_slave_removals");
            master.awaited.settle(&id);
            master.unreachable.insert(id.clone(), at);
            master.tell_all_agent_lost(cx, &id);
        });
    }

    /// Has the registrar mark an agent unreachable, now; then counts it, and goes on when it was stored.
    pub(crate) fn store_unreachable(
        &mut self,
        cx: &mut Context<'_, Self>,
        id: AgentId,
        then: impl FnOnce(&mut Self, &mut Context<'_, Self>, AgentId, Duration) + 'static,
    ) {
        let at = cx.wall();
        let operation = RegistryOperation::MarkAgentUnreachable {
            agent_id: id.clone(),
            at: nanoseconds(at),
        };
        self.store(cx, operation, move |master, cx, stored| {
            master.transitions.remove(&id);
            if stored {
                cx.metrics().count("master/slave_unreachable_completed");
                cx.metrics().count("master/slave_removals");
                cx.metrics().count("master/slave_removals/reason_unhealthy");
                then(master, cx, id, at);
            }
        });
    }

    /// Tells all frameworks that an agent is lost.
    pub(crate) fn tell_all_agent_lost(&self, cx: &mut Context<'_, Self>, id: &AgentId) {
        for (framework, _) in self.state.frameworks() {
            let agent_id = id.clone();
            self.tell_framework(cx, framework, AgentLost { agent_id });
        }
    }

    fn forget_old_entries(&mut self, cx: &mut Context<'_, Self>) {
        let (now, keep) = (cx.wall(), self.config.registry_keep);
        let old = |entries: &BTreeMap<AgentId, Duration>| {
            gc::to_forget(entries.iter().map(|(id, at)| (id, *at)), now, keep)
        };
        let (unreachable, gone) = (old(&self.unreachable), old(&self.gone));
        if !unreachable.is_empty() || !gone.is_empty() {
            let operation = RegistryOperation::Prune {
                unreachable: unreachable.clone(),
                gone: gone.clone(),
            };
            self.store(cx, operation, move |master, _, stored| {
                if stored {
                    info!(
                        unreachable = unreachable.len(),
                        gone = gone.len(),
                        "old entries of the registry are forgotten"
                    );
                    // One that has come back and fallen silent again meanwhile has a younger entry, which stays.
                    let young = |at: &Duration| now.saturating_sub(*at).is_zero();
                    master
                        .unreachable
                        .retain(|id, at| young(at) || !unreachable.contains(id));
                    master.gone.retain(|id, at| young(at) || !gone.contains(id));
                }
            });
        }
        cx.after(self.config.registry_gc_interval, Self::forget_old_entries);
    }
}

/// The weights that count: all that are stored, or those of the flags when none is.
fn in_force(flags: &BTreeMap<Role, f64>, stored: &BTreeMap<Role, f64>) -> BTreeMap<Role, f64> {
    let counts = if stored.is_empty() { flags } else { stored };
    counts.clone()
}

pub(crate) fn nanoseconds(at: Duration) -> u64 {
    u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_of_weights_counts_and_else_the_flags() {
        let weights = |all: &[(&str, f64)]| -> BTreeMap<Role, f64> {
            all.iter()
                .map(|(role, weight)| (Role::new(*role), *weight))
                .collect()
        };
        let (flags, stored) = (weights(&[("a", 2.0), ("b", 3.0)]), weights(&[("a", 4.0)]));
        assert_eq!(in_force(&flags, &BTreeMap::new()), flags);
        assert_eq!(in_force(&flags, &stored), stored);
    }
}
