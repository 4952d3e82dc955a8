//! The laws, held to a simulated cluster after every step: those about tasks as they read the history, those about
//! resources in the tables and books of the process that has just had its turn.

use std::collections::BTreeMap;

use meseta_master::Master;
use meseta_master::allocator::AllocatorProcess;
use meseta_master::election::messages::Recovered;
use meseta_master::state::Agent as Entry;
use meseta_protocol::resources::Resources;
use meseta_runtime::sim::{Invariant, Seen, Sim};
use meseta_runtime::{Message as _, Pid};

use super::agent_laws::AgentLaws;
use super::hosts::Hosts;
use super::notes::Shared;
use super::plan::Plan;
use super::removals::Removals;
use crate::invariants::no_overcommitment::Held;
use crate::invariants::{
    Event, Laws, books_balance, no_overcommitment, no_panics, one_offer_each, queues_are_bounded,
};

/// Most messages that may wait in one mailbox of so small a cluster: what minutes of a partition bring together.
const MOST_WAITING: usize = 2_000;

/// See the module.
pub struct ClusterLaws {
    shared: Shared,
    hosts: Hosts,
    tasks: Laws,
    agents: AgentLaws,
    removals: Removals,
    read: usize,
    /// Number of the law that was broken.
    broken: &'static str,
}

impl ClusterLaws {
    /// All laws, for a run that is about to begin.
    pub fn new(shared: Shared, hosts: Hosts, plan: &Plan) -> Self {
        Self {
            shared,
            agents: AgentLaws::new(hosts.clone()),
            hosts,
            removals: Removals::new(plan),
            tasks: Laws::new(),
            read: 0,
            broken: "cluster",
        }
    }

    fn breaks(&mut self, law: &'static str, verdict: Result<(), String>) -> Result<(), String> {
        if verdict.is_err() {
            self.broken = law;
        }
        verdict
    }

    fn turned(&mut self, sim: &Sim, pid: &Pid) -> Result<(), String> {
        if let Some(master) = sim.process::<Master>(pid) {
            for (id, agent) in master.state().agents() {
                let holders = holders(master, agent);
                let (law, verdict) = share_out(id.as_str(), agent, &holders);
                self.breaks(law, verdict)?;
            }
        } else if let Some(allocator) = sim.process::<AllocatorProcess>(pid) {
            for (id, agent) in allocator.books().holdings() {
                let held = agent.held.values();
                let verdict = books_balance::check(id.as_str(), agent.total, agent.free, held);
                self.breaks("A-3", verdict)?;
            }
        }
        Ok(())
    }
}

/// Everything that holds something of an agent in the master's tables: its name, what it holds, and whether it is an
/// offer.
fn holders(master: &Master, agent: &Entry) -> Vec<Holder> {
    let state = master.state();
    let mut all = Vec::new();
    for offer in &agent.offers {
        if let Some(outstanding) = state.offer(offer) {
            all.push((offer.to_string(), outstanding.offer.resources.clone(), true));
        }
    }
    for (framework_id, tasks) in &agent.tasks {
        for id in tasks {
            if let Some(task) = state.task(framework_id, id)
                && !task.state.is_terminal()
            {
                all.push((id.to_string(), task.resources.clone(), false));
            }
        }
    }
    let lingering = agent.lingering.iter();
    all.extend(lingering.map(|((_, id), held)| (id.to_string(), held.clone(), false)));
    for (framework_id, executors) in &agent.executors {
        let framework = state.framework(framework_id);
        let of_agent = agent.info.id.as_ref();
        let infos = framework
            .zip(of_agent)
            .and_then(|(framework, id)| framework.executors.get(id));
        for id in executors {
            if let Some(info) = infos.and_then(|infos| infos.get(id)) {
                all.push((id.to_string(), info.resources.clone(), false));
            }
        }
    }
    all
}

/// Name, what it holds, and whether it is an offer.
type Holder = (String, Resources, bool);

/// Whether an agent has what these hold, and each its own part; and of which law that is.
fn share_out(id: &str, agent: &Entry, holders: &[Holder]) -> (&'static str, Result<(), String>) {
    let verdict = no_overcommitment::check(id, &held(agent, holders));
    if verdict.is_err() {
        return ("A-1", verdict);
    }
    let named = holders.iter().map(|(name, held, _)| (name.as_str(), held));
    ("A-2", one_offer_each::check(id, named))
}

fn held(agent: &Entry, holders: &[Holder]) -> Held {
    let of = |offers: bool| {
        let some = holders
            .iter()
            .filter(|(_, _, is_offer)| *is_offer == offers);
        some.map(|(_, resources, _)| resources.clone()).collect()
    };
    Held {
        total: agent.total.clone(),
        offers: of(true),
        used: of(false),
    }
}

impl Invariant for ClusterLaws {
    fn name(&self) -> &'static str {
        self.broken
    }

    fn seen(&mut self, sim: &Sim, seen: &Seen<'_>) -> Result<(), String> {
        if let Err((law, what)) = self.agents.seen(sim, seen) {
            return self.breaks(law, Err(what));
        }
        let verdict = self.removals.seen(sim, seen);
        self.breaks("G-2", verdict)?;
        match seen {
            Seen::Turned(pid) => self.turned(sim, pid),
            Seen::Ended(pid, reason) => {
                let verdict = no_panics::check(&pid.to_string(), reason);
                self.breaks("K-3", verdict)
            }
            Seen::Crashed(node) => {
                self.hosts.guest_crashed(*node);
                Ok(())
            }
            Seen::Booted(node) => {
                if sim.name(*node) == "master" {
                    self.shared.lock().note(Event::MasterStarted);
                }
                Ok(())
            }
            Seen::Sent(letter) => {
                if letter.name == Recovered::NAME {
                    self.shared.lock().note(Event::MasterStarted);
                }
                Ok(())
            }
            Seen::Spawned(_) | Seen::Handled(_) | Seen::Dropped(..) => Ok(()),
        }
    }

    fn after_step(&mut self, sim: &Sim) -> Result<(), String> {
        let mut notes = self.shared.lock();
        notes.now = sim.now();
        if notes.history.len() == self.read {
            return Ok(());
        }
        self.read = notes.history.len();
        let verdict = self.tasks.check(&notes.history);
        drop(notes);
        verdict.map_err(|violation| {
            self.broken = violation.law;
            violation.evidence
        })
    }

    fn at_end(&mut self, sim: &Sim) -> Result<(), String> {
        let verdict =
            queues_are_bounded::check("some mailbox", sim.deepest_mailbox(), MOST_WAITING);
        self.breaks("K-2", verdict)?;
        let notes = self.shared.lock();
        let verdict = self.tasks.end(&notes.history);
        drop(notes);
        verdict.map_err(|violation| {
            self.broken = violation.law;
            violation.evidence
        })
    }
}

/// The books of the allocator against those of the master; equal when nothing is on its way between them.
///
/// # Errors
/// Where they differ.
pub fn books_agree(master: &Master, allocator: &AllocatorProcess) -> Result<(), String> {
    let holdings = allocator.books().holdings();
    let mut missing: BTreeMap<_, _> = holdings.iter().collect();
    for (id, agent) in master.state().agents() {
        let Some(books) = missing.remove(&id) else {
            return Err(format!("the allocator does not know {id}"));
        };
        let mut held = agent.offered.clone();
        for used in agent.used.values() {
            held += used;
        }
        let mut booked = Resources::new();
        for part in books.held.values() {
            booked += part;
        }
        if held.unallocated() != booked.unallocated() {
            return Err(format!(
                "of {id} {held} is offered or used, but {booked} is booked"
            ));
        }
    }
    match missing.keys().next() {
        Some(id) => Err(format!("the allocator still knows {id}")),
        None => Ok(()),
    }
}
