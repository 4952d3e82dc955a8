//! A whole cluster in a simulated world: one master or several, some agents with their machines, some frameworks.
//!
//! A run has four parts: things go wrong for a while; faults stop, and the cluster has to converge (Z-1); frameworks
//! end; nothing may be left of them (K-1, A-3).

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::time::Duration;

use meseta_agent::containerizer::Host;
use meseta_agent::{Agent, Config as AgentConfig};
use meseta_master::Master;
use meseta_master::allocator::AllocatorProcess;
use meseta_master::state::Standing;
use meseta_protocol::FrameworkId;
use meseta_runtime::Pid;
use meseta_runtime::detector::Candidates;
use meseta_runtime::sim::{Bites, Failure, Kept, NodeId, NodeSettings, Sim, State};
use meseta_scheduler_driver::Driver;
use rand::RngExt;

use super::hosts::Hosts;
use super::laws::{ClusterLaws, books_agree};
use super::masters::{self, Masters};
use super::notes::{self, Book, Notes, Shared};
use super::plan::Plan;
use super::sandboxes::{self, Sandboxes};
use super::scheduler::Player;
use crate::invariants::convergence::{self, Views};
use crate::invariants::nothing_left_behind::{self, Leftovers};
use crate::invariants::{History, books_balance};

/// A scheduler was replaced by another program of its framework.
pub const FAILED_OVER: &str = "scheduler fails over";

/// A sync of an agent's disk fails.
pub const SYNC_FAILS: &str = "failed sync of an agent's disk";

/// Virtual time in which a cluster must have converged when faults have stopped. The longest that anything is waited
/// for is the last retry of an update, 10 minutes.
const CONVERGES: Duration = Duration::from_secs(15 * 60);
/// The same for what frameworks leave when they have ended: a framework whose scheduler never came back is ended
/// after its fail-over timeout, at most 10 minutes.
const ENDS: Duration = Duration::from_secs(15 * 60);
/// Time a supervisor takes to start a program again that has ended.
const SUPERVISION: Duration = Duration::from_secs(1);

/// What a run has shown.
#[derive(Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Whether it had several masters.
    pub has_masters: bool,
    /// Hash over the journal.
    pub hash: u64,
    /// Lines of the journal.
    pub lines: u64,
    /// Steps of the simulator.
    pub steps: u64,
    /// Virtual time.
    pub time: Duration,
    /// Faults that have bitten.
    pub bites: Bites,
    /// Faults of the workload and the machines that have bitten.
    pub own_bites: notes::Bites,
    /// What counted for the laws.
    pub history: History,
    /// The whole journal, when asked for.
    pub journal: Vec<String>,
    /// The broken law, if one was.
    pub failure: Option<Failure>,
}

/// See the module.
pub struct World {
    sim: Sim,
    plan: Plan,
    shared: Shared,
    hosts: Hosts,
    masters: Masters,
    /// The node of each framework's newest program.
    programs: Vec<NodeId>,
    agents: Vec<NodeId>,
}

/// Runs a seed with several masters.
pub fn run_masters(seed: u64) -> Report {
    run_plan(Plan::draw_masters(seed), false)
}

/// Runs a seed.
pub fn run(seed: u64) -> Report {
    run_plan(Plan::draw(seed), false)
}

/// Runs a plan; with `keep` its journal is kept, with the contents of messages.
pub fn run_plan(plan: Plan, keep: bool) -> Report {
    let mut world = World::new(plan);
    if keep {
        world.sim.journal_mut().keep_all();
        world.sim.set_verbose(true);
    }
    let failure = world.play().err();
    let notes = std::mem::take(&mut *world.shared.lock());
    let Notes { history, bites, .. } = notes;
    Report {
        seed: world.plan.seed,
        has_masters: world.plan.masters.is_some(),
        hash: world.sim.journal().hash(),
        lines: world.sim.journal().lines(),
        steps: world.sim.steps(),
        time: world.sim.now().since(meseta_runtime::Time::ZERO),
        bites: world.sim.bites().clone(),
        own_bites: bites,
        history,
        journal: world.sim.journal().text().to_vec(),
        failure,
    }
}

impl World {
    fn new(plan: Plan) -> Self {
        let mut sim = Sim::new(plan.seed);
        let shared = Shared::default();
        {
            let mut notes = shared.lock();
            notes
                .machines
                .resize_with(plan.agents.len(), Default::default);
            let book = |character: &super::scheduler::Character| Book {
                wanted: character.tasks,
                ..Book::default()
            };
            notes.programs = vec![None; plan.frameworks.len()];
            notes.books = plan.frameworks.iter().map(book).collect();
        }
        let sandboxes = Sandboxes::new(shared.clone(), plan.disks);
        let hosts = Hosts::new(shared.clone(), plan.troubles, sandboxes);
        hosts.install(&mut sim);
        sim.law(ClusterLaws::new(shared.clone(), hosts.clone(), &plan));
        let masters = masters::add(&mut sim, &plan, &shared);
        let mut agents = Vec::new();
        for number in 0..plan.agents.len() {
            let node = add_agent(&mut sim, &hosts, &plan, number, &masters.candidates);
            agents.push(node);
        }
        let mut programs = Vec::new();
        for number in 0..plan.frameworks.len() {
            let who = (number, 0);
            programs.push(add_framework(
                &mut sim,
                &plan,
                &shared,
                &masters.candidates,
                who,
            ));
        }
        sim.set_faults(plan.faults.clone());
        Self {
            sim,
            plan,
            shared,
            hosts,
            masters,
            programs,
            agents,
        }
    }

    fn play(&mut self) -> Result<(), Failure> {
        self.go_wrong()?;
        self.heal();
        self.converge()?;
        self.end()?;
        self.sim.finish()
    }

    /// Things go wrong for a while.
    fn go_wrong(&mut self) -> Result<(), Failure> {
        let end = self.sim.now() + self.plan.length;
        while self.sim.now() < end {
            self.sim.run_for(Duration::from_secs(1))?;
            self.supervise();
            if let Some(masters) = &self.plan.masters {
                self.masters.go_wrong(&mut self.sim, masters);
            }
            let per_second = |rate: f64| (rate / 60.0).min(1.0);
            if self.drawn(per_second(self.plan.executor_kills)) {
                self.hosts.kill_executor(&mut self.sim);
            }
            if self.drawn(per_second(self.plan.failovers)) {
                self.fail_over();
            }
            if self.drawn(per_second(self.plan.agent_failed_syncs)) {
                let at = self.sim.random().random_range(0..self.agents.len());
                self.sim.disk(self.agents[at]).fail_syncs(1);
                self.shared.lock().bite(SYNC_FAILS);
            }
            let fills_up = self.plan.disks.map_or(0.0, |disks| disks.fills_up);
            if self.drawn(per_second(fills_up)) {
                let at = self.sim.random().random_range(0..self.agents.len());
                self.hosts.sandboxes().fill_up(&mut self.sim, at);
            }
        }
        Ok(())
    }

    fn drawn(&mut self, share: f64) -> bool {
        share > 0.0 && self.sim.random().random_bool(share)
    }

    /// Programs that have ended by themselves are started again.
    fn supervise(&mut self) {
        let mut ended = Vec::new();
        for node in self.agents.iter().copied() {
            if self.sim.state(node) == State::Up && self.sim.pids(node).next().is_none() {
                ended.push(node);
            }
        }
        ended.extend(self.masters.ended(&self.sim));
        for node in ended {
            self.sim.remark("a program has ended by itself");
            self.sim.crash(node, Kept::Synced, false);
            self.sim.later(SUPERVISION, move |sim| sim.restart(node));
        }
    }

    /// Another program of a framework takes over from the one that speaks for it.
    fn fail_over(&mut self) {
        let number = self.sim.random().random_range(0..self.programs.len());
        let can = {
            let notes = self.shared.lock();
            let book = &notes.books[number];
            book.id.is_some() && !book.over
        };
        if !can {
            return;
        }
        self.shared.lock().bite(FAILED_OVER);
        let generation = self.sim.node_ids().count();
        let program = add_framework(
            &mut self.sim,
            &self.plan,
            &self.shared,
            &self.masters.candidates,
            (number, generation),
        );
        self.programs[number] = program;
        self.shared.lock().programs[number] = Some(program);
    }

    fn heal(&mut self) {
        self.sim.heal();
        self.hosts.heal();
        for agent in &self.agents {
            self.sim.disk(*agent).fail_syncs(0);
        }
        self.masters.heal(&mut self.sim);
        self.shared.lock().draining = true;
    }

    fn converge(&mut self) -> Result<(), Failure> {
        let end = self.sim.now() + CONVERGES;
        loop {
            self.sim.run_for(Duration::from_secs(1))?;
            self.supervise();
            let missing = self.missing();
            if missing.is_empty() {
                self.sim.remark("converged");
                return Ok(());
            }
            if self.sim.now() >= end {
                // What a framework still waits for is law T-2's when all else is well.
                let verdict = convergence::check(&self.parts_missing());
                self.verdict("Z-1", verdict)?;
                self.sim.finish()?;
                let verdict = convergence::check(&missing);
                return self.verdict("Z-1", verdict);
            }
        }
    }

    fn verdict(&mut self, law: &str, verdict: Result<(), String>) -> Result<(), Failure> {
        if let Err(what) = verdict {
            self.sim.fail(law, &what);
            self.sim.finish()?;
        }
        Ok(())
    }

    /// What keeps masters, agents and programs of frameworks from having converged.
    fn parts_missing(&self) -> Vec<String> {
        let mut missing = convergence::missing(&self.views());
        missing.extend(self.masters.missing(&self.sim));
        missing
    }

    /// What keeps the cluster from having converged.
    fn missing(&self) -> Vec<String> {
        let mut missing = self.parts_missing();
        let notes = self.shared.lock();
        for (number, book) in notes
            .books
            .iter()
            .enumerate()
            .filter(|(_, book)| !book.over)
        {
            let open = book.tasks.iter().filter(|(_, task)| !task.is_settled());
            for (task, record) in open {
                missing.push(format!(
                    "framework {number} waits for {task}, which it has heard to be {:?}",
                    record.state
                ));
            }
        }
        missing
    }

    /// The master that leads, if one does.
    fn leader(&self) -> Option<(&Pid, &Master)> {
        self.masters.leader(&self.sim)
    }

    fn views(&self) -> Views {
        let mut views = Views::default();
        if let Some((_, master)) = self.leader() {
            for (id, agent) in master.state().agents() {
                let live = agent.tasks.iter().flat_map(|(framework, tasks)| {
                    tasks.iter().map(|task| (framework.clone(), task.clone()))
                });
                views
                    .master
                    .insert(id.clone(), (agent.connected, live.collect()));
            }
        }
        let forsaken = self.forsaken();
        for (_, agent) in self.sim.processes::<Agent>() {
            let mut tasks = BTreeSet::new();
            for (framework_id, framework) in &agent.tables().frameworks {
                for executor in framework.executors.values() {
                    let queued = executor.queued.iter().map(|task| task.task_id.clone());
                    let all = queued
                        .chain(executor.launched.keys().cloned())
                        .chain(executor.terminated.keys().cloned());
                    tasks.extend(all.map(|task| (framework_id.clone(), task)));
                }
            }
            views.agents.push((agent.info().id.clone(), tasks));
            let waiting = agent.updates().streams();
            let waiting = waiting.filter(|((framework, _), _)| !forsaken.contains(framework));
            views.unacknowledged += waiting.map(|(_, stream)| stream.len()).sum::<usize>();
        }
        let notes = self.shared.lock();
        for (number, program) in self.programs.iter().enumerate() {
            if !notes.books[number].over {
                let driver = self.sim.pids(*program).next();
                let driver = driver.and_then(|pid| self.sim.process::<Driver>(pid));
                let subscribed = driver.is_some_and(|driver| driver.core().is_subscribed());
                views.frameworks.insert(number, subscribed);
            }
        }
        views
    }

    /// Frameworks end, and nothing of them is left.
    fn end(&mut self) -> Result<(), Failure> {
        self.sim.remark("frameworks end");
        self.shared.lock().ending = true;
        let end = self.sim.now() + ENDS;
        loop {
            self.sim.run_for(Duration::from_secs(1))?;
            let left = self.left();
            let books = self.books();
            let sandboxes = self.sandboxes_left();
            let verdict = nothing_left_behind::check(&left);
            if verdict.is_ok() && books.is_ok() && sandboxes.is_ok() {
                return Ok(());
            }
            if self.sim.now() >= end {
                self.verdict("K-1", verdict)?;
                self.verdict("A-3", books)?;
                return self.verdict("S-3", sandboxes);
            }
        }
    }

    /// Frameworks that only agents know, and whose scheduler will not come: one that ended, or was ended, under an
    /// earlier master, which nobody remembers since the registry is in memory. What they left stays until somebody ends
    /// it: see the README, "Kill something".
    fn orphans(&self) -> BTreeSet<FrameworkId> {
        let Some((_, master)) = self.leader() else {
            return BTreeSet::new();
        };
        let state = master.state();
        let recovered = state
            .frameworks()
            .filter(|(_, framework)| framework.standing == Standing::Recovered);
        let mut orphans: BTreeSet<_> = recovered.map(|(id, _)| id.clone()).collect();
        for (_, agent) in self.sim.processes::<Agent>() {
            // One of which nothing is left but updates is not named to a new master.
            let unknown = |id: &&FrameworkId| {
                agent.tables().framework(id).is_none()
                    && state.framework(id).is_none()
                    && !state.is_completed(id)
            };
            let streams = agent.updates().streams().map(|((id, _), _)| id);
            orphans.extend(streams.filter(unknown).cloned());
        }
        orphans
    }

    /// Those [orphans](Self::orphans) that ended: nobody will ever acknowledge what agents still tell of them.
    fn forsaken(&self) -> BTreeSet<FrameworkId> {
        let notes = self.shared.lock();
        let over = notes.books.iter().filter(|book| book.over);
        let over: BTreeSet<_> = over.filter_map(|book| book.id.clone()).collect();
        drop(notes);
        self.orphans().intersection(&over).cloned().collect()
    }

    /// Containers of [orphans](Self::orphans).
    fn orphaned(&self, orphans: &BTreeSet<FrameworkId>) -> BTreeSet<String> {
        let mut orphaned = BTreeSet::new();
        for (_, agent) in self.sim.processes::<Agent>() {
            let executors = agent.tables().executors();
            let theirs = executors.filter(|(framework, _, _)| orphans.contains(*framework));
            orphaned.extend(theirs.map(|(_, _, executor)| executor.container_id.value.clone()));
        }
        orphaned
    }

    fn sandboxes_left(&self) -> Result<(), String> {
        let orphaned = self.orphaned(&self.orphans());
        let sandboxes = self.hosts.sandboxes();
        sandboxes.all_are_gone(|container| orphaned.contains(container))
    }

    fn left(&self) -> Leftovers {
        let orphans = self.orphans();
        let mut left = Leftovers::new();
        let orphaned = self.orphaned(&orphans);
        for (_, agent) in self.sim.processes::<Agent>() {
            let id = agent.info().id.clone().unwrap_or_default();
            let of_others = |framework: &&FrameworkId| !orphans.contains(*framework);
            let frameworks = agent.tables().frameworks.keys().filter(of_others).count();
            left.insert(format!("frameworks on agent {id}"), frameworks);
            let streams = agent.updates().streams();
            let streams = streams.filter(|((framework, _), _)| of_others(&framework));
            left.insert(format!("streams on agent {id}"), streams.count());
        }
        let notes = self.shared.lock();
        for (number, machine) in notes.machines.iter().enumerate() {
            let containers = machine.containers();
            let containers = containers.filter(|container| !orphaned.contains(*container));
            left.insert(
                format!("containers on machine {number}"),
                containers.count(),
            );
        }
        drop(notes);
        let executors = self.hosts.executors().into_iter();
        let executors = executors.filter(|container| !orphaned.contains(container));
        left.insert("executors".to_owned(), executors.count());
        if let Some((_, master)) = self.leader() {
            let frameworks = master.state().frameworks();
            let frameworks = frameworks.filter(|(id, _)| !orphans.contains(*id)).count();
            left.insert("frameworks in the master".to_owned(), frameworks);
            left.insert("offers".to_owned(), master.state().offer_count());
        }
        left
    }

    fn books(&self) -> Result<(), String> {
        let Some((pid, master)) = self.leader() else {
            return Err("there is no master".to_owned());
        };
        let mut allocators = self.sim.processes::<AllocatorProcess>();
        let allocator = allocators.find(|(other, _)| other.address() == pid.address());
        let Some((_, allocator)) = allocator else {
            return Err("the master has no allocator".to_owned());
        };
        books_agree(master, allocator)?;
        let orphans = self.orphans();
        for (id, mut agent) in allocator.books().holdings() {
            agent
                .held
                .retain(|framework, _| !orphans.contains(framework));
            if agent.held.is_empty() && orphans.is_empty() {
                books_balance::all_is_back(id.as_str(), agent.total, agent.free)?;
            } else if let Some(framework) = agent.held.keys().next() {
                return Err(format!("{framework} still holds something of {id}"));
            }
        }
        Ok(())
    }
}

fn add_agent(
    sim: &mut Sim,
    hosts: &Hosts,
    plan: &Plan,
    number: usize,
    masters: &Candidates,
) -> NodeId {
    let kept = [Kept::Synced, Kept::Partly, Kept::Nothing];
    let settings = NodeSettings::new(&format!("agent{number}"), "agent").kept(&kept);
    let (resources, masters) = (plan.agents[number].clone(), masters.clone());
    let collects = plan.disks.is_some();
    let hosts = hosts.clone();
    sim.add(settings, move |boot| {
        hosts.add(boot.node(), number);
        let mut config = AgentConfig::new(masters.clone(), format!("/simulated/{number}"));
        config.hostname = format!("agent{number}");
        match resources.parse() {
            Ok(resources) => config.resources = resources,
            Err(error) => {
                let error: meseta_protocol::resources::ParseError = error;
                boot.sim()
                    .fail("the world is well made", &error.to_string());
            }
        }
        config.launcher = vec!["launcher".to_owned()];
        config.executor_command = "meseta-executor".to_owned();
        config.concurrent_launches = 4;
        config.gc = collects.then_some(sandboxes::SETTINGS);
        let machine = Host {
            is_root: false,
            user: "nobody".to_owned(),
            freezer: None,
            boot_id: "simulated".to_owned(),
        };
        boot.spawn("slave(1)", Agent::new(config, machine));
    })
}

fn add_framework(
    sim: &mut Sim,
    plan: &Plan,
    shared: &Shared,
    masters: &Candidates,
    (number, generation): (usize, usize),
) -> NodeId {
    let settings = NodeSettings::new(&format!("framework{number}"), "scheduler").accepts(false);
    let character = plan.frameworks[number].clone();
    let (shared, masters, seed) = (shared.clone(), masters.clone(), plan.seed);
    sim.add(settings, move |boot| {
        let (id, over) = {
            let notes = shared.lock();
            let book = &notes.books[number];
            let replaced = notes.programs[number].is_some_and(|newest| newest != boot.node());
            (
                book.id.clone(),
                book.over || replaced && boot.incarnation() > 1,
            )
        };
        if over {
            return;
        }
        let player = Player::new(number, character.clone(), seed, shared.clone());
        let (told, _) = mpsc::channel();
        let driver = Driver::new(
            masters.clone(),
            character.info(number, id),
            character.options(),
            Box::new(player),
            told,
        );
        let run = boot.incarnation();
        boot.spawn(&format!("scheduler-{number}-{generation}-{run}"), driver);
    })
}
