//! The masters of a simulated cluster: one on its own, with its registry in memory, or several that replicate it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use meseta_master::election::members::Members;
use meseta_master::log::messages::Status;
use meseta_master::log::post::{COORDINATOR, REPLICA};
use meseta_master::log::replica::ReplicaProcess;
use meseta_master::log::storage::ops;
use meseta_master::removal_rate::Rate;
use meseta_master::{Config, MASTER, Master, Replicated, SUPERVISOR};
use meseta_protocol::AgentId;
use meseta_protocol::messages::election::ELECTION;
use meseta_runtime::detector::Candidates;
use meseta_runtime::sim::{Bites, Boot, Kept, NodeId, NodeSettings, Sim, State};
use meseta_runtime::{Address, Pid};
use rand::RngExt;

use super::master_laws::MasterLaws;
use super::notes::Shared;
use super::operator::Operator;
use super::plan::{self, Plan};

/// What must live on the node of one of several masters: else its program ends.
const PARTS: [&str; 3] = [REPLICA, COORDINATOR, SUPERVISOR];

/// The registrar on the node of a leader.
const REGISTRAR: &str = "registrar(1)";

/// A disk was lost with all that was on it.
pub const DISK_LOST: &str = "lost disk of a master";
/// A bit of a record has flipped.
pub const FLIPPED: &str = "flipped bit on a master's disk";
/// A sync failed.
pub const SYNC_FAILS: &str = "failed sync of a master's disk";
/// A disk was full.
pub const DISK_FULL: &str = "full disk of a master";

/// An operator has marked an agent gone.
pub const MARKED_GONE: &str = "agent marked gone";

/// Where records of the log are on a disk.
const RECORDS: &str = "log/";

/// Every kind of fault that a batch with several masters must have seen bite: those of nodes and network. The others, of
/// machines and executors, are the business of the batch with one.
pub fn fault_kinds() -> Vec<&'static str> {
    let all = Bites::ALL.iter().copied();
    let all = all.filter(|kind| *kind != "crash of a machine with guests");
    all.chain([DISK_LOST, FLIPPED, SYNC_FAILS, DISK_FULL, MARKED_GONE])
        .collect()
}

/// See the module.
pub struct Masters {
    /// Their nodes.
    pub nodes: Vec<NodeId>,
    /// By which agents and schedulers find the one that leads.
    pub candidates: Candidates,
    shared: Shared,
    /// Of several.
    laws: Option<MasterLaws>,
}

/// Adds the masters that a plan wants.
pub fn add(sim: &mut Sim, plan: &Plan, shared: &Shared) -> Masters {
    match &plan.masters {
        Some(masters) => add_several(sim, plan, masters, shared),
        None => add_one(sim, plan, shared),
    }
}

fn add_one(sim: &mut Sim, plan: &Plan, shared: &Shared) -> Masters {
    let plan = plan.clone();
    // Its epoch must never fall, so its disk is never lost: that is the operator's part.
    let settings = NodeSettings::new("master", "master").kept(&[Kept::Synced, Kept::Partly]);
    let node = sim.add(settings, move |boot| start_one(boot, &plan));
    Masters {
        nodes: vec![node],
        candidates: sim.pid(node, MASTER).into(),
        shared: shared.clone(),
        laws: None,
    }
}

fn start_one(boot: &mut Boot<'_>, plan: &Plan) {
    const EPOCH: &str = "leader_epoch";
    let disk = boot.disk();
    let last = disk
        .read(EPOCH)
        .and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
    let epoch = last.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) + 1;
    let kept = disk.write(EPOCH, epoch.to_string().as_bytes());
    if kept.is_err() || disk.sync().is_err() {
        // As `next_epoch` does: it is on disk before it is used, or the program ends.
        return;
    }
    boot.spawn(MASTER, Master::new(config(plan, epoch, "master")));
}

fn config(plan: &Plan, epoch: u64, hostname: &str) -> Config {
    let mut config = Config::new(epoch, hostname);
    config.agent_reregister_timeout = plan.agent_reregister_timeout;
    config.offer_timeout = plan.offer_timeout;
    config.agent_removal_rate_limit = plan.removal_distance.map(Rate::one_each);
    config
}

fn add_several(sim: &mut Sim, plan: &Plan, masters: &plan::Masters, shared: &Shared) -> Masters {
    let laws = MasterLaws::new(shared.clone(), masters.count / 2 + 1);
    sim.law(laws.clone());
    let told = laws.clone();
    ops::model(sim, move |_, node, happened| told.disk(node, happened));
    let address = |number: usize| Address::new(&format!("10.1.0.{}", number + 1), 5050);
    let all: BTreeSet<Address> = (0..masters.count).map(address).collect();
    let members = Members {
        quorum: all.len() / 2 + 1,
        all,
    };
    let mut nodes = Vec::new();
    for number in 0..masters.count {
        let settings = NodeSettings::new(&format!("master{number}"), "master");
        let settings = settings
            .address(address(number))
            .kept(&[Kept::Synced, Kept::Partly]);
        let mut config = config(plan, 0, &format!("master{number}"));
        config.election = masters.election;
        config.agent_ping_timeout = masters.agent_ping_timeout;
        let members = members.clone();
        nodes.push(sim.add(settings, move |boot| {
            start_several(boot, config.clone(), members.clone());
        }));
    }
    let asked = nodes.iter().map(|node| sim.pid(*node, ELECTION)).collect();
    Masters {
        nodes,
        candidates: Candidates::Asked(asked),
        shared: shared.clone(),
        laws: Some(laws),
    }
}

fn start_several(boot: &mut Boot<'_>, config: Config, members: Members) {
    let node = boot.node();
    let address = boot.sim().address(node).clone();
    let directory = PathBuf::from("simulated");
    match Replicated::new(&address, config, members, true, directory) {
        Ok(Replicated { log, masters }) => {
            boot.spawn(REPLICA, log.replica);
            boot.spawn(COORDINATOR, log.coordinator);
            boot.spawn(SUPERVISOR, masters);
        }
        Err(error) => boot
            .sim()
            .fail("the world is well made", &error.to_string()),
    }
}

impl Masters {
    /// The master that leads. Of several that believe so the one elected last does.
    pub fn leader<'a>(&self, sim: &'a Sim) -> Option<(&'a Pid, &'a Master)> {
        let leading = sim.processes::<Master>().filter(|(_, m)| m.is_leading());
        leading.max_by_key(|(_, master)| master.epoch())
    }

    /// Nodes whose program has ended by itself.
    pub fn ended(&self, sim: &Sim) -> Vec<NodeId> {
        let has_ended = |node: &&NodeId| {
            let lives = |part: &&str| sim.pids(**node).any(|pid| pid.id() == *part);
            let goes_on = if self.laws.is_some() {
                PARTS.iter().all(lives)
            } else {
                sim.pids(**node).next().is_some()
            };
            sim.state(**node) == State::Up && !goes_on
        };
        self.nodes.iter().filter(has_ended).copied().collect()
    }

    /// One second of what may go wrong with their disks, and of what an operator does with agents.
    pub fn go_wrong(&self, sim: &mut Sim, plan: &plan::Masters) {
        let drawn = |sim: &mut Sim, a_minute: f64| {
            let share = (a_minute / 60.0).min(1.0);
            share > 0.0 && sim.random().random_bool(share)
        };
        if drawn(sim, plan.lost_disks)
            && let Some(node) = self.that_may_forget(sim)
        {
            self.shared.lock().bite(DISK_LOST);
            self.spoil(sim, node, Kept::Nothing);
        }
        if drawn(sim, plan.flipped_bits)
            && let Some(node) = self.that_may_forget(sim)
        {
            self.spoil(sim, node, Kept::Synced);
            flip(sim, node);
        }
        if drawn(sim, plan.failed_syncs) {
            let node = self.any(sim);
            sim.disk(node).fail_syncs(1);
        }
        if drawn(sim, plan.full_disks) {
            let node = self.any(sim);
            let disk = sim.disk(node);
            let names: Vec<String> = disk.names().map(str::to_owned).collect();
            let used: usize = names
                .iter()
                .filter_map(|name| disk.read(name))
                .map(<[u8]>::len)
                .sum();
            disk.set_capacity(Some(used + 500));
            let lasts = Duration::from_millis(sim.random().random_range(1_000..15_000));
            sim.later(lasts, move |sim| sim.disk(node).set_capacity(None));
        }
        if drawn(sim, plan.marked_gone) {
            self.mark_gone(sim);
        }
    }

    /// An operator, beside the leader, marks one of its agents gone, three times out of four by its call.
    fn mark_gone(&self, sim: &mut Sim) {
        let Some((master, leader)) = self.leader(sim) else {
            return;
        };
        let (master, agents) = (master.clone(), leader.state().agents());
        let agents: Vec<AgentId> = agents.map(|(id, _)| id.clone()).collect();
        let mut nodes = self.nodes.iter().copied();
        let node = nodes.find(|node| sim.address(*node) == master.address());
        let Some(node) = node.filter(|node| sim.state(*node) == State::Up) else {
            return;
        };
        if !agents.is_empty() {
            let at = sim.random().random_range(0..agents.len());
            let behind = sim.random().random_bool(0.25);
            let operator = Operator {
                registrar: behind.then(|| sim.pid(node, REGISTRAR)),
                master,
                agent_id: agents[at].clone(),
            };
            let name = format!("operator-{}", sim.steps());
            sim.spawn(node, &name, operator);
        }
    }

    /// Disks are well from now on.
    pub fn heal(&self, sim: &mut Sim) {
        for node in &self.nodes {
            sim.disk(*node).set_capacity(None);
            sim.disk(*node).fail_syncs(0);
        }
    }

    fn any(&self, sim: &mut Sim) -> NodeId {
        let at = sim.random().random_range(0..self.nodes.len());
        self.nodes[at]
    }

    /// A master whose disk may be lost: all the others remember everything.
    fn that_may_forget(&self, sim: &mut Sim) -> Option<NodeId> {
        let laws = self.laws.as_ref()?;
        let node = self.any(sim);
        let mut others = self.nodes.iter().filter(|other| **other != node);
        let may = others.all(|other| laws.votes(*other));
        (may && sim.state(node) == State::Up).then_some(node)
    }

    fn spoil(&self, sim: &mut Sim, node: NodeId, kept: Kept) {
        if let Some(laws) = &self.laws {
            laws.spoiled(node);
        }
        sim.crash(node, kept, false);
        let down = Duration::from_millis(sim.random().random_range(10..5_000));
        sim.later(down, move |sim| sim.restart(node));
    }

    /// What keeps them from having converged: one leads, and all replicas vote.
    pub fn missing(&self, sim: &Sim) -> Vec<String> {
        if self.laws.is_none() {
            return Vec::new();
        }
        let mut missing = Vec::new();
        let leading = sim.processes::<Master>().filter(|(_, m)| m.is_leading());
        match leading.count() {
            1 => {}
            0 => missing.push("no master leads".to_owned()),
            several => missing.push(format!("{several} masters lead")),
        }
        let replicas = sim.processes::<ReplicaProcess>();
        let voting = replicas.filter(|(_, one)| one.replica().status() == Status::Voting);
        let voting = voting.count();
        if voting < self.nodes.len() {
            missing.push(format!("{voting} of {} replicas vote", self.nodes.len()));
        }
        missing
    }
}

/// Flips a bit of some record of a replica that is down.
fn flip(sim: &mut Sim, node: NodeId) {
    let disk = sim.disk(node);
    let records = disk.names().filter(|name| name.starts_with(RECORDS));
    let records: Vec<(String, usize)> = records
        .filter_map(|name| Some((name.to_owned(), disk.read(name)?.len() * 8)))
        .collect();
    if records.is_empty() {
        return;
    }
    let at = sim.random().random_range(0..records.len());
    let (name, bits) = &records[at];
    let bit = sim.random().random_range(0..(*bits).max(1));
    sim.disk(node).flip(name, bit);
}
