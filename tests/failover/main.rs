//! How long a fail-over takes, and what it costs: three masters, many emulated agents with tasks, and `kill -9` of the
//! leader again and again.
//!
//! The masters are the shipped program. The agents are processes of a few nodes of this program: they speak the real
//! protocol, run nothing, and say of their tasks what an agent says of those it has recovered. Measured from each kill:
//! the first agent that hears of the next leader, the first acknowledged write to the registry (a new agent's
//! registration: agents that come back are in the registry already), and the moment when the new leader has taken in
//! all agents with their tasks.
//!
//! ```text
//! cargo build --release -p meseta-master
//! cargo run --release --example failover -- --agents 1000 --kills 5
//! ```

#![expect(clippy::print_stdout, reason = "printing is what this program is for")]

mod guest;
mod masters;
mod round;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use meseta_protocol::messages::election::ELECTION;
use meseta_runtime::flags::{candidates, duration, logging_level};
use meseta_runtime::{Clock, Node};
use meseta_tests::emulated::{Emulated, Event, Scene};
use tempfile::TempDir;

use crate::guest::Guest;
use crate::masters::{Masters, own_processor};
use crate::round::{Round, Times, percentile};

/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(1);
/// Memory is looked at when so much time has passed after the last thing that happened.
const CALM: Duration = Duration::from_secs(1);
/// What a leader may use for an agent and for a task above what it uses without any, in KiB.
const GOAL_AGENT: f64 = 4.0;
const GOAL_TASK: f64 = 2.0;

#[derive(Debug, Parser)]
#[command(
    name = "failover",
    about = "Measures how long a fail-over of the leading master takes, and what it costs"
)]
struct Flags {
    /// How many agents.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    agents: u32,
    /// Tasks of each agent.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=100))]
    tasks: u32,
    /// Nodes that the agents are spread over.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=8))]
    nodes: u8,
    /// How often the leader is killed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    kills: u32,
    /// Bound of an agent's wait before it turns to a new leader, as of meseta-agent.
    #[arg(long = "registration_backoff_factor", default_value = "1secs", value_parser = duration)]
    backoff: Duration,
    /// Longest wait for one fail-over; after it the measurement ends with an error.
    #[arg(long, default_value = "2mins", value_parser = duration)]
    limit: Duration,
    /// Directory on the disk of the masters' logs; what is made there is removed again. The system's directory for
    /// temporary files unless given.
    #[arg(long)]
    path: Option<PathBuf>,
    /// The master to run; the one built beside this program unless given.
    #[arg(long = "master_program")]
    master_program: Option<PathBuf>,
    /// What this program logs; the masters log as they do by default, to files.
    #[arg(long = "logging_level", default_value = "error", value_parser = logging_level)]
    logging_level: String,
}

impl Flags {
    fn master_program(&self) -> anyhow::Result<PathBuf> {
        let path = match &self.master_program {
            Some(path) => path.clone(),
            None => std::env::current_exe()?
                .parent()
                .and_then(Path::parent)
                .context("this program is in no directory")?
                .join("meseta-master"),
        };
        anyhow::ensure!(
            path.exists(),
            "there is no {}: run cargo build -p meseta-master with the same profile, or name it with --master_program",
            path.display()
        );
        Ok(path)
    }
}

/// What one kill has shown.
struct Measured {
    times: Times,
    /// Processor time of the new leader from the kill to the last agent.
    leader: Duration,
    /// That of all emulated agents.
    agents: Duration,
    /// Resident memory of the new leader afterwards, in KiB.
    resident: u64,
}

/// Memory of leaders in KiB.
#[derive(Default)]
struct Memory {
    /// Of each master, before there are agents.
    idle: Vec<u64>,
    /// Of the first leader, above idle, with all agents and no tasks.
    agents: u64,
    /// Of the second leader, above idle, with all agents and tasks.
    all: u64,
}

fn main() -> ExitCode {
    match run(&meseta_runtime::flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failover: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> anyhow::Result<()> {
    meseta_runtime::logging::init(&flags.logging_level);
    let program = flags.master_program()?;
    let above = flags.path.clone().unwrap_or_else(std::env::temp_dir);
    let mut directory = TempDir::with_prefix_in("meseta-failover-", &above)
        .with_context(|| format!("--path: cannot use {}", above.display()))?;
    let outcome = Trial::start(flags, &program, directory.path()).and_then(Trial::measure);
    if outcome.is_err() {
        directory.disable_cleanup(true);
        eprintln!(
            "the masters' files are left in {}",
            directory.path().display()
        );
    }
    outcome
}

/// The whole measurement.
struct Trial<'a> {
    flags: &'a Flags,
    clock: Clock,
    masters: Masters,
    nodes: Vec<Node>,
    scene: Arc<Scene>,
    tell: Sender<Event>,
    events: Receiver<Event>,
    /// The master that leads, and its epoch.
    leader: usize,
    epoch: u64,
    /// Agents that have registered.
    registered: u32,
    memory: Memory,
}

impl<'a> Trial<'a> {
    fn start(flags: &'a Flags, program: &Path, directory: &Path) -> anyhow::Result<Self> {
        let clock = Clock::live();
        let masters = Masters::start(program, directory)?;
        let node = |_| {
            let node = Node::builder()
                .role("agent")
                .http(false)
                .clock(clock.clone());
            node.start().context("a node did not start")
        };
        let nodes: Vec<Node> = (0..flags.nodes).map(node).collect::<Result<_, _>>()?;
        let scene = Scene::new(candidates(&masters.list(), ELECTION)?, flags.tasks)?;
        let (tell, events) = channel();
        Ok(Self {
            flags,
            clock,
            masters,
            nodes,
            scene: Arc::new(scene),
            tell,
            events,
            leader: 0,
            epoch: 0,
            registered: 0,
            memory: Memory::default(),
        })
    }

    fn measure(mut self) -> anyhow::Result<()> {
        self.begin()?;
        self.register()?;
        let mut all = Vec::new();
        for number in 1..=self.flags.kills {
            let killed = self.leader;
            all.push(self.kill(number)?);
            if number < self.flags.kills {
                self.masters.launch(killed)?;
                self.catch_up(killed)?;
            }
        }
        for node in &self.nodes {
            node.shutdown();
        }
        self.print(&all);
        Ok(())
    }

    /// Waits for the first leader, and notes what masters use without agents.
    fn begin(&mut self) -> anyhow::Result<()> {
        self.invite()?;
        let round = Round::new(self.clock.now(), 0, 0, true);
        let round = self.play("start", round)?;
        self.follow(&round)?;
        self.calm()?;
        for number in 0..masters::MASTERS {
            self.memory.idle.push(self.masters.resident(number)?);
        }
        Ok(())
    }

    /// Lets all agents register.
    fn register(&mut self) -> anyhow::Result<()> {
        let round = Round::new(self.clock.now(), 0, self.flags.agents, false);
        for number in 0..self.flags.agents {
            let (scene, tell) = (Arc::clone(&self.scene), self.tell.clone());
            let backoff = self.flags.backoff;
            let node = &self.nodes[number as usize % self.nodes.len()];
            node.spawn_numbered("slave", move || {
                Emulated::new(&scene, number, backoff, tell)
            })?;
        }
        let round = self.play("registration", round)?;
        self.follow(&round)?;
        self.registered = self.flags.agents;
        self.calm()?;
        self.memory.agents = self.above_idle()?;
        eprintln!(
            "{} agents registered after {:.2?}",
            self.flags.agents,
            round.times().all_back
        );
        Ok(())
    }

    /// Kills the leader and waits until all agents are with another.
    fn kill(&mut self, number: u32) -> anyhow::Result<Measured> {
        let what = format!("kill {number} of {}", self.flags.kills);
        let before: Vec<Duration> = (0..masters::MASTERS)
            .map(|one| self.masters.processor(one))
            .collect::<Result<_, _>>()?;
        let own = own_processor()?;
        let round = Round::new(self.clock.now(), self.epoch, self.flags.agents, true);
        self.masters.kill(self.leader)?;
        self.invite()?;
        let round = self.play(&what, round)?;
        let agents = own_processor()?.saturating_sub(own);
        self.follow(&round)?;
        let leader = self.masters.processor(self.leader)?;
        let leader = leader.saturating_sub(before[self.leader]);
        self.calm()?;
        if number == 1 {
            self.memory.all = self.above_idle()?;
        }
        let times = round.times();
        eprintln!(
            "{what}: the next leader after {:.2?}, a registry write after {:.2?}, all agents after {:.2?}",
            times.announced, times.written, times.all_back
        );
        Ok(Measured {
            times,
            leader,
            agents,
            resident: self.masters.resident(self.leader)?,
        })
    }

    /// A guest, for the next write to the registry.
    fn invite(&self) -> anyhow::Result<()> {
        let (scene, tell, epoch) = (Arc::clone(&self.scene), self.tell.clone(), self.epoch);
        let node = self.nodes.first().context("no node")?;
        node.spawn_numbered("slave", move || Guest::new(&scene, epoch, tell))?;
        Ok(())
    }

    /// Waits until a round is over.
    fn play(&mut self, what: &str, mut round: Round) -> anyhow::Result<Round> {
        let began = self.clock.now();
        let mut said = began;
        while !round.is_over() {
            self.listen(PROGRESS, |event| round.note(event))?;
            let now = self.clock.now();
            if now.since(said) >= PROGRESS && !round.is_over() {
                said = now;
                eprintln!("{what}, {:.0?}: {}", now.since(began), round.awaited());
            }
            anyhow::ensure!(
                now.since(began) < self.flags.limit,
                "{what}: nothing more after --limit={:?}: {}",
                self.flags.limit,
                round.awaited()
            );
        }
        Ok(round)
    }

    /// Takes one event, if one comes in time.
    fn listen(
        &mut self,
        patience: Duration,
        note: impl FnOnce(Event) -> Result<(), String>,
    ) -> anyhow::Result<()> {
        match self.events.recv_timeout(patience) {
            Ok(event) => note(event).map_err(anyhow::Error::msg),
            Err(RecvTimeoutError::Timeout) => self.masters.all_run(),
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the agents are gone"),
        }
    }

    /// Lets some time pass.
    fn calm(&mut self) -> anyhow::Result<()> {
        let until = self.clock.now() + CALM;
        self.wait(|trial| trial.clock.now() >= until)
    }

    /// Waits until a master that was started again can vote.
    fn catch_up(&mut self, number: usize) -> anyhow::Result<()> {
        let began = self.clock.now();
        let limit = self.flags.limit;
        let mut late = false;
        self.wait(|trial| {
            late = trial.clock.now().since(began) > limit;
            late || trial.masters.has_caught_up(number)
        })?;
        anyhow::ensure!(
            !late,
            "master {} has not caught up with the others within --limit={limit:?}",
            number + 1
        );
        Ok(())
    }

    /// Waits until something is so. A leader that gives up meanwhile, as on a machine that is too busy, is followed by
    /// another, and the agents go over to it.
    fn wait(&mut self, mut until: impl FnMut(&Self) -> bool) -> anyhow::Result<()> {
        let next =
            |trial: &Self| Round::new(trial.clock.now(), trial.epoch, trial.registered, false);
        let mut round = next(self);
        while !until(self) {
            self.listen(PROGRESS / 10, |event| round.note(event))?;
            if round.leading.is_some() {
                eprintln!("nobody was killed, but {}", round.awaited());
                round = self.play("a leader gave up", round)?;
                self.follow(&round)?;
                round = next(self);
            }
        }
        Ok(())
    }

    fn follow(&mut self, round: &Round) -> anyhow::Result<()> {
        let leading = round.leading.as_ref().context("nobody leads")?;
        self.leader = self
            .masters
            .number_of(&leading.leader.address().to_string())?;
        self.epoch = leading.epoch;
        Ok(())
    }

    /// What the leader, which runs since the beginning, uses now above what it used then.
    fn above_idle(&self) -> anyhow::Result<u64> {
        let now = self.masters.resident(self.leader)?;
        Ok(now.saturating_sub(self.memory.idle[self.leader]))
    }

    fn print(&self, all: &[Measured]) {
        let (agents, tasks) = (self.flags.agents, self.flags.agents * self.flags.tasks);
        println!("{agents} agents, {tasks} tasks, 3 masters; seconds from kill -9 of the leader");
        println!(
            "{:>6} {:>12} {:>15} {:>11} {:>13} {:>13} {:>11}",
            "kill",
            "next leader",
            "registry write",
            "all agents",
            "leader's CPU",
            "agents' CPU",
            "memory"
        );
        let line = |name: &str, of: &Measured| {
            println!(
                "{name:>6} {:>12.3} {:>15.3} {:>11.3} {:>13.2} {:>13.2} {:>7} MiB",
                of.times.announced.as_secs_f64(),
                of.times.written.as_secs_f64(),
                of.times.all_back.as_secs_f64(),
                of.leader.as_secs_f64(),
                of.agents.as_secs_f64(),
                of.resident / 1024
            );
        };
        for (number, one) in all.iter().enumerate() {
            line(&(number + 1).to_string(), one);
        }
        for percent in [50, 99] {
            let time = |of: fn(&Measured) -> Duration| {
                percentile(&all.iter().map(of).collect::<Vec<_>>(), percent)
            };
            let resident: Vec<u64> = all.iter().map(|one| one.resident).collect();
            let summary = Measured {
                times: Times {
                    announced: time(|one| one.times.announced),
                    written: time(|one| one.times.written),
                    all_back: time(|one| one.times.all_back),
                },
                leader: time(|one| one.leader),
                agents: time(|one| one.agents),
                resident: percentile(&resident, percent),
            };
            line(&format!("p{percent}"), &summary);
        }
        self.print_memory(agents, tasks);
    }

    fn print_memory(&self, agents: u32, tasks: u32) {
        let memory = &self.memory;
        let kib = |all: u64| u32::try_from(all).map_or(f64::INFINITY, f64::from);
        println!(
            "memory of a master, idle: {} KiB",
            percentile(&memory.idle, 50)
        );
        println!(
            "above idle, of the first leader with all agents and no tasks: {} KiB, {:.2} KiB an agent",
            memory.agents,
            kib(memory.agents) / f64::from(agents)
        );
        println!(
            "above idle, of the second leader with all agents and tasks: {} KiB",
            memory.all
        );
        if tasks > 0 {
            let of_tasks = memory.all.saturating_sub(memory.agents);
            println!(
                "of that for tasks: {:.2} KiB a task",
                kib(of_tasks) / f64::from(tasks)
            );
        }
        let goal = f64::from(agents) * GOAL_AGENT + f64::from(tasks) * GOAL_TASK;
        println!(
            "of the goal of {GOAL_AGENT} KiB an agent and {GOAL_TASK} KiB a task: {:.2}",
            kib(memory.all) / goal
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_out_of_range_are_refused_with_flag_and_range() {
        for (flag, text) in [
            ("--agents=0", "1..=50000"),
            ("--tasks=101", "0..=100"),
            ("--nodes=9", "1..=8"),
            ("--kills=0", "1..=1000"),
            ("--limit=never", "write 0secs or more"),
        ] {
            let error = Flags::try_parse_from(["failover", flag]).unwrap_err();
            let shown = error.to_string();
            let (name, _) = flag.split_once('=').unwrap();
            assert!(shown.contains(name) && shown.contains(text), "{shown}");
        }
    }

    #[test]
    fn a_master_that_is_not_there_is_named_with_the_way_out() {
        let flags = ["failover", "--master_program=/nowhere/meseta-master"];
        let error = Flags::try_parse_from(flags).unwrap().master_program();
        let shown = error.unwrap_err().to_string();
        assert!(
            shown.starts_with("there is no /nowhere/meseta-master: run cargo build"),
            "{shown}"
        );
    }
}
