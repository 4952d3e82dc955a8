//! The law about how agents are called unreachable, held to each master of a simulated cluster.

use std::time::Duration;

use meseta_master::Master;
use meseta_master::registrar::Apply;
use meseta_master::registry::RegistryOperation;
use meseta_protocol::messages::agent::Pong;
use meseta_runtime::Message as _;
use meseta_runtime::Pid;
use meseta_runtime::sim::{Letter, Seen, Sim};

use super::plan::Plan;
use crate::invariants::unreachable_in_time::{Limits, UnreachableInTime};

/// Pings that an agent may miss, unless a master is told otherwise.
const PINGS: u32 = 5;
/// Time between pings, likewise.
const PING: Duration = Duration::from_secs(15);
/// Part by which a node's clock may be fast.
const FAST: u32 = 20;
/// Longest time that a mark is under way from a master to its registrar.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// See the module.
pub struct Removals {
    law: UnreachableInTime<Pid>,
}

impl Removals {
    /// For a run of this plan that is about to begin.
    pub fn new(plan: &Plan) -> Self {
        let masters = plan.masters.as_ref();
        let ping = masters.map_or(PING, |masters| masters.agent_ping_timeout);
        let by_a_fast_clock = |limit: Duration| limit - limit / FAST;
        let distance = plan.removal_distance.unwrap_or_default();
        Self {
            law: UnreachableInTime::new(Limits {
                silence: by_a_fast_clock(ping * PINGS),
                absence: by_a_fast_clock(plan.agent_reregister_timeout),
                distance: by_a_fast_clock(distance).saturating_sub(UNDER_WAY),
            }),
        }
    }

    /// Looks at one thing that happened.
    ///
    /// # Errors
    /// How the law is broken.
    pub fn seen(&mut self, sim: &Sim, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Spawned(pid) | Seen::Ended(pid, _) => self.law.ends(pid),
            Seen::Turned(pid) => self.turned(sim, pid),
            Seen::Handled(letter) if letter.name == Pong::NAME => self.answered(sim, letter),
            Seen::Sent(letter) if letter.name == Apply::NAME => return self.stores(sim, letter),
            Seen::Handled(_)
            | Seen::Sent(_)
            | Seen::Booted(_)
            | Seen::Crashed(_)
            | Seen::Dropped(..) => {}
        }
        Ok(())
    }

    fn turned(&mut self, sim: &Sim, pid: &Pid) {
        let Some(master) = sim.process::<Master>(pid) else {
            return;
        };
        if master.is_leading() {
            let agents = master.state().agents();
            let agents = agents.map(|(id, agent)| (id, agent.connected));
            self.law.leads(pid.clone(), sim.now(), agents);
        } else {
            self.law.ends(pid);
        }
    }

    fn answered(&mut self, sim: &Sim, letter: &Letter) {
        let master = sim.process::<Master>(&letter.to);
        if let Some(id) = master.and_then(|master| master.state().agent_at(&letter.from)) {
            self.law.answers(&letter.to, id, sim.now());
        }
    }

    fn stores(&mut self, sim: &Sim, letter: &Letter) -> Result<(), String> {
        if let Some(Apply { operation, .. }) = letter.read()
            && let RegistryOperation::MarkAgentUnreachable { agent_id, .. } = operation
        {
            return self.law.marks(&letter.from, &agent_id, sim.now());
        }
        Ok(())
    }
}
