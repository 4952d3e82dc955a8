//! The laws about agents, held to a simulated cluster: what they keep of updates, and what they end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meseta_agent::Agent;
use meseta_agent::checkpoint::records::{AGENT, Record, update_key};
use meseta_agent::registration::Phase;
use meseta_protocol::messages::Led;
use meseta_protocol::messages::agent::{
    AcknowledgeAgentStatus, ShutdownAgent, ShutdownFramework, UpdateStatus,
};
use meseta_protocol::status::StatusUpdate;
use meseta_protocol::{AgentId, UpdateId};
use meseta_runtime::sim::{Letter, NodeId, Seen, Sim};
use meseta_runtime::{Message as _, Pid, Time};

use super::hosts::Hosts;
use crate::invariants::acknowledged_is_over::AcknowledgedIsOver;
use crate::invariants::agents_keep_their_ids::AgentsKeepTheirIds;
use crate::invariants::ended_in_time::EndedInTime;
use crate::invariants::told_is_kept::ToldIsKept;
use crate::invariants::updates_are_kept::UpdatesAreKept;

/// What is known of one run of an agent.
#[derive(Default)]
struct Watched {
    updates: UpdatesAreKept,
    /// Acknowledgements that have just been handled, with what had been sent before still waiting for the disk.
    fresh: Vec<(Time, UpdateId)>,
    endings: EndedInTime,
    /// Whether this run has read what the one before it has left.
    has_loaded: bool,
    /// Whether it has also got back all that it waited for.
    has_recovered: bool,
}

/// Longest time that what an agent sends waits for its disk: a stalled commit, the one after it, and a pause.
const DISK: Duration = Duration::from_secs(60);

impl Watched {
    /// What was acknowledged a while ago is over by now.
    fn settle(&mut self, now: Time, over: &mut AcknowledgedIsOver) {
        self.fresh.retain(|(at, uuid)| {
            let is_fresh = now.since(*at) < DISK;
            if !is_fresh {
                over.acknowledged(*uuid);
            }
            is_fresh
        });
    }
}

/// See the module.
pub struct AgentLaws {
    hosts: Hosts,
    agents: BTreeMap<String, Watched>,
    /// Of all of them, over all their runs.
    ids: AgentsKeepTheirIds,
    /// What each has told, over all its runs.
    told: BTreeMap<String, ToldIsKept>,
    /// What is over for each, over all its runs.
    over: BTreeMap<String, AcknowledgedIsOver>,
}

/// A broken law's number, and what was seen.
type Verdict = Result<(), (&'static str, String)>;

/// The node at whose address a process is: not one of its guests.
fn node_at(sim: &Sim, pid: &Pid) -> Option<NodeId> {
    let mut nodes = sim.node_ids();
    nodes.find(|node| sim.address(*node) == pid.address())
}

/// The id that an agent finds on its disk.
fn written_id(sim: &Sim, pid: &Pid) -> Option<AgentId> {
    let disk = sim.disk_of(node_at(sim, pid)?);
    disk.read("checkpoint/latest")?;
    let bytes = disk.read(&format!("checkpoint/{AGENT}"))?;
    match Record::read(AGENT, bytes).ok()? {
        Record::Agent(agent) => agent.info.id,
        Record::Framework(_) | Record::Executor(_) | Record::Task(_) | Record::Update(_) => None,
    }
}

impl AgentLaws {
    /// All laws, for a run that is about to begin.
    pub fn new(hosts: Hosts) -> Self {
        Self {
            hosts,
            agents: BTreeMap::new(),
            ids: AgentsKeepTheirIds::default(),
            told: BTreeMap::new(),
            over: BTreeMap::new(),
        }
    }

    /// Looks at one thing that happened.
    ///
    /// # Errors
    /// The law that is broken, and how.
    pub fn seen(&mut self, sim: &Sim, seen: &Seen<'_>) -> Verdict {
        match seen {
            Seen::Turned(pid) => self.turned(sim, pid),
            Seen::Handled(letter) => {
                self.handled(sim, letter);
                Ok(())
            }
            Seen::Sent(letter) if letter.name == UpdateStatus::NAME => self.sent(sim, letter),
            Seen::Spawned(pid) | Seen::Ended(pid, _) => {
                if matches!(seen, Seen::Spawned(_)) && sim.process::<Agent>(pid).is_some() {
                    self.ids.begins(&pid.to_string(), written_id(sim, pid));
                }
                // Another run of it knows nothing of this one, and nothing of this one leaves any more.
                if let Some(watched) = self.agents.remove(&pid.to_string()) {
                    let over = self.over.entry(pid.to_string()).or_default();
                    for (_, uuid) in watched.fresh {
                        over.acknowledged(uuid);
                    }
                }
                Ok(())
            }
            Seen::Sent(_) | Seen::Booted(_) | Seen::Crashed(_) | Seen::Dropped(..) => Ok(()),
        }
    }

    fn turned(&mut self, sim: &Sim, pid: &Pid) -> Verdict {
        let Some(agent) = sim.process::<Agent>(pid) else {
            return Ok(());
        };
        if let Some(node) = node_at(sim, pid) {
            let machine = self.hosts.host(node);
            self.hosts.sandboxes().look(sim, machine, node, agent);
        }
        if let Some(id) = &agent.info().id {
            let own = self.ids.is(&pid.to_string(), id);
            own.map_err(|what| ("G-1", what))?;
        }
        let watched = self.agents.entry(pid.to_string()).or_default();
        let told = self.told.entry(pid.to_string()).or_default();
        if agent.registration().phase() == Phase::Terminating {
            watched.updates.leaves();
            told.leaves();
        }
        if let Some(id) = &agent.info().id
            && !watched.has_recovered
        {
            let streams = agent.updates().streams();
            let waiting: BTreeSet<UpdateId> = streams
                .flat_map(|(_, stream)| stream.waiting().filter_map(|update| update.uuid))
                .collect();
            // It has its id in the turn in which it takes over what it has read, before any executor comes back.
            if !watched.has_loaded {
                watched.has_loaded = true;
                let over = self.over.entry(pid.to_string()).or_default();
                over.recovers(&waiting);
            }
            if !agent.is_recovering() {
                watched.has_recovered = true;
                let kept = told.recovers(Some(id), &waiting);
                kept.map_err(|what| ("T-6", what))?;
            }
        }
        let streams = agent.updates().streams().map(|(key, stream)| {
            let waiting = stream.waiting().filter_map(|update| {
                let is_end = update.status.state.is_terminal();
                update.uuid.map(|uuid| (uuid, is_end))
            });
            (key.clone(), waiting.collect())
        });
        let held = watched.updates.holds(streams.collect());
        held.map_err(|what| ("T-6", what))?;
        let alive = |container: &str| self.hosts.has(container);
        let ended = watched.endings.check(sim.now(), alive);
        ended.map_err(|what| ("T-9", what))
    }

    fn handled(&mut self, sim: &Sim, letter: &Letter) {
        let Some(agent) = sim.process::<Agent>(&letter.to) else {
            return;
        };
        let watched = self.agents.entry(letter.to.to_string()).or_default();
        let obeys =
            |epoch: u64| agent.master() == Some(&letter.from) && epoch >= agent.leader_epoch();
        if let Some(led) = letter.read::<Led<AcknowledgeAgentStatus>>() {
            let ack = led.message;
            let key = (ack.framework_id, ack.task_id);
            let in_flight = watched.updates.head(&key) == Some(ack.uuid);
            let own = agent.info().id.as_ref() == Some(&ack.agent_id);
            if own && obeys(led.leader_epoch) {
                watched.updates.acknowledged(ack.uuid);
                if in_flight {
                    let told = self.told.entry(letter.to.to_string()).or_default();
                    told.acknowledged(&ack.uuid);
                    watched.fresh.push((sim.now(), ack.uuid));
                }
            }
        } else if let Some(led) = letter.read::<Led<ShutdownFramework>>() {
            let id = led.message.framework_id;
            let heard = agent.registration().phase() != Phase::Disconnected;
            if obeys(led.leader_epoch) && heard {
                let framework = agent.tables().framework(&id);
                let executors = framework.into_iter().flat_map(|framework| {
                    let superseded = framework.superseded.values();
                    framework.executors.values().chain(superseded)
                });
                for executor in executors {
                    let container = executor.container_id.value.clone();
                    watched.endings.must_end(container, sim.now());
                }
                let told = self.told.entry(letter.to.to_string()).or_default();
                told.framework_over(&id);
                watched.updates.framework_over(id);
            }
        } else if let Some(led) = letter.read::<Led<ShutdownAgent>>()
            && obeys(led.leader_epoch)
        {
            for (_, _, executor) in agent.tables().executors() {
                let container = executor.container_id.value.clone();
                watched.endings.must_end(container, sim.now());
            }
            watched.updates.leaves();
            self.told.entry(letter.to.to_string()).or_default().leaves();
        }
    }

    /// What an agent tells of an update that it has ordered to be written down.
    fn told(&mut self, sim: &Sim, from: &Pid, update: &StatusUpdate) -> Verdict {
        let (Some(node), Some(uuid)) = (node_at(sim, from), update.uuid) else {
            return Ok(());
        };
        let key = (update.framework_id.clone(), update.status.task_id.clone());
        let name = format!("checkpoint/{}", update_key(&key.0, &key.1, &uuid));
        let disk = sim.disk_of(node);
        if disk.read(&name).is_none() {
            return Ok(());
        }
        // What waited for the disk may leave after its acknowledgement has come.
        let watched = self.agents.get(&from.to_string());
        if watched.is_some_and(|watched| watched.updates.is_over(&key, &uuid)) {
            return Ok(());
        }
        let is_end = update.status.state.is_terminal();
        let told = self.told.entry(from.to_string()).or_default();
        let kept = told.tells(uuid, &key, is_end, disk.is_durable(&name));
        kept.map_err(|what| ("T-6", what))
    }

    fn sent(&mut self, sim: &Sim, letter: &Letter) -> Verdict {
        let Some(update) = letter.read::<UpdateStatus>() else {
            return Ok(());
        };
        self.told(sim, &letter.from, &update.update)?;
        let from = letter.from.to_string();
        let watched = self.agents.get_mut(&from);
        let Some((watched, uuid)) = watched.zip(update.update.uuid) else {
            return Ok(());
        };
        let over = self.over.entry(from).or_default();
        watched.settle(sim.now(), over);
        over.sends(uuid).map_err(|what| ("T-7", what))
    }
}
