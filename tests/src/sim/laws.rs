//! Holds a simulated cluster to the laws in [`crate::invariants`], after every step that may have changed what they are
//! about.

use std::collections::BTreeMap;

use meseta_master::Master;
use meseta_master::allocator::AllocatorProcess;
use meseta_protocol::AgentId;
use meseta_protocol::resources::Resources;
use meseta_runtime::sim::{Invariant, Seen, Sim};

use super::ledger::Ledger;
use super::{Places, World};
use crate::invariants::no_overcommitment::Held;
use crate::invariants::{
    Laws, books_balance, no_overcommitment, no_panics, one_offer_each, queues_are_bounded,
};

/// More messages than ever wait for one process of a cluster of this size.
const MOST_WAITING: usize = 2_000;

/// Adds all laws to a world.
pub(super) fn all(world: &mut World) {
    world.sim.law(world.machines.bookkeeping());
    world.sim.law(OfTasks {
        ledger: world.ledger.clone(),
        laws: Laws::new(),
    });
    world.sim.law(OfResources(world.places.clone()));
    world.sim.law(OfProcesses);
}

/// T-1 to T-5.
struct OfTasks {
    ledger: Ledger,
    laws: Laws,
}

impl Invariant for OfTasks {
    fn name(&self) -> &'static str {
        "a law of tasks"
    }

    fn after_step(&mut self, _: &Sim) -> Result<(), String> {
        let checked = self.laws.check(&self.ledger.book().history);
        checked.map_err(|violation| violation.to_string())
    }

    fn at_end(&mut self, _: &Sim) -> Result<(), String> {
        let checked = self.laws.end(&self.ledger.book().history);
        checked.map_err(|violation| violation.to_string())
    }
}

/// whenever the master or its allocator has had a turn.
struct OfResources(Places);

impl OfResources {
    fn master(&self, sim: &Sim) -> Result<(), String> {
        let Some(master) = sim.process::<Master>(&self.0.master) else {
            return Ok(());
        };
        let state = master.state();
        state.check()?;
        let mut held: BTreeMap<&AgentId, Held> = BTreeMap::new();
        let mut holders: BTreeMap<&AgentId, Vec<(&str, &Resources)>> = BTreeMap::new();
        for (id, agent) in state.agents() {
            let held = held.entry(id).or_default();
            held.total = agent.total.clone();
            for offer in agent.offers.iter().filter_map(|offer| state.offer(offer)) {
                let resources = &offer.offer.resources;
                held.offers.push(resources.clone());
                let holders = holders.entry(id).or_default();
                holders.push((offer.offer.id.as_str(), resources));
            }
        }
        for (_, framework) in state.frameworks() {
            let tasks = framework.tasks.iter();
            let tasks = tasks
                .filter(|(_, task)| !task.state.is_terminal())
                .map(|(id, task)| (&task.agent_id, id.as_str(), &task.resources));
            let executors = framework.executors.iter().flat_map(|(agent, executors)| {
                let described = executors.iter();
                described.map(move |(id, executor)| (agent, id.as_str(), &executor.resources))
            });
            for (agent, name, resources) in tasks.chain(executors) {
                if let Some(held) = held.get_mut(agent) {
                    held.used.push(resources.clone());
                    holders.entry(agent).or_default().push((name, resources));
                }
            }
        }
        for (id, held) in &held {
            no_overcommitment::check(id.as_str(), held).map_err(of("A-1"))?;
        }
        for (id, holders) in holders {
            one_offer_each::check(id.as_str(), holders).map_err(of("A-2"))?;
        }
        Ok(())
    }

    fn allocator(&self, sim: &Sim) -> Result<(), String> {
        let Some(allocator) = sim.process::<AllocatorProcess>(&self.0.allocator) else {
            return Ok(());
        };
        allocator.books().check()?;
        for (id, holdings) in allocator.books().holdings() {
            let held = holdings.held.values();
            books_balance::check(id.as_str(), holdings.total, holdings.free, held)
                .map_err(of("A-3"))?;
        }
        Ok(())
    }
}

fn of(law: &'static str) -> impl Fn(String) -> String {
    move |evidence| format!("{law}: {evidence}")
}

impl Invariant for OfResources {
    fn name(&self) -> &'static str {
        "a law of resources"
    }

    fn seen(&mut self, sim: &Sim, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Turned(pid) if **pid == self.0.master => self.master(sim),
            Seen::Turned(pid) if **pid == self.0.allocator => self.allocator(sim),
            Seen::Turned(_)
            | Seen::Booted(_)
            | Seen::Crashed(_)
            | Seen::Spawned(_)
            | Seen::Ended(..)
            | Seen::Sent(_)
            | Seen::Handled(_)
            | Seen::Dropped(..) => Ok(()),
        }
    }

    fn at_end(&mut self, sim: &Sim) -> Result<(), String> {
        let allocator = sim.process::<AllocatorProcess>(&self.0.allocator);
        let holdings = allocator.map(|allocator| allocator.books().holdings());
        for (id, holdings) in holdings.unwrap_or_default() {
            books_balance::all_is_back(id.as_str(), holdings.total, holdings.free)
                .map_err(of("A-3"))?;
        }
        Ok(())
    }
}

/// K-2 and K-3. K-1, that nothing is left, is asked by the world when it has come to rest.
struct OfProcesses;

impl Invariant for OfProcesses {
    fn name(&self) -> &'static str {
        "a law of processes"
    }

    fn seen(&mut self, sim: &Sim, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Ended(pid, reason) => {
                no_panics::check(&pid.to_string(), reason).map_err(of("K-3"))
            }
            Seen::Turned(pid) => {
                let depth = sim.mailbox_depth(pid);
                if depth > MOST_WAITING {
                    queues_are_bounded::check(&pid.to_string(), depth, MOST_WAITING)
                        .map_err(of("K-2"))?;
                }
                Ok(())
            }
            Seen::Booted(_)
            | Seen::Crashed(_)
            | Seen::Spawned(_)
            | Seen::Sent(_)
            | Seen::Handled(_)
            | Seen::Dropped(..) => Ok(()),
        }
    }
}
