//! The simulated cluster: the shipped master, agents, executors and scheduler drivers on the simulator of the runtime.
//!
//! [`run`] draws a whole cluster from one seed (how many agents, which frameworks, what they launch and how they behave,
//! how much goes wrong), lets it live for a while, ends all faults, and requires that it converges and then comes to
//! rest empty. Laws ([`crate::invariants`]) look after every step.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the world: drawing, building, running, and when it has converged |
//! | `framework.rs` | a scheduler that works off its plans |
//! | `machines.rs` | what answers the operations of agents and executors: containers, processes, signals |
//! | `laws.rs` | gives the laws what they are about |
//! | `ledger.rs` | what is written down outside of all nodes, to compare with |
//! | `batch.rs` | many seeds over all cores, with the count of what went wrong |
//!
//! **More workload**: draw it in [`Shape::draw`] (so that some runs have none of it), do it in `Script::tick` or in a
//! closure given to [`Sim::later`] from [`World::build`], and write into the [`Ledger`] what laws will want to compare.
//! Draw new things last, or the fixed seeds mean other runs.
//!
//! **A law**: a file in `tests/src/invariants/`, pure, with the law as its heading, a bad history and a good one. One that
//! reads the history of tasks needs no more than its line in [`crate::invariants::Laws::new`]; what any other is about is
//! taken out of the processes in `laws.rs`, by an [`meseta_runtime::sim::Invariant`]: `seen` hears of every message, start,
//! end and crash and should be what does the work; `after_step` runs very often and must be cheap; `at_end` looks at the
//! empty world.
//!
//! **A fault of the world**: give it a name in `machines::FAULTS`, count it with [`Sim::bites_mut`] when it bites, and
//! the batch fails when it never does.

pub mod batch;
pub mod framework;
mod laws;
pub mod ledger;
pub mod machines;

use std::sync::mpsc;
use std::time::Duration;

use meseta_agent::Agent;
use meseta_agent::config::Containment;
use meseta_agent::containerizer::Host;
use meseta_agent::registration::Phase;
use meseta_master::Master;
use meseta_protocol::framework::{FrameworkCapabilities, FrameworkCapability, FrameworkInfo};
use meseta_protocol::{Role, TaskId};
use meseta_runtime::Pid;
use meseta_runtime::sim::{Bites, Boot, Failure, Faults, NodeId, NodeSettings, Sim, State};
use meseta_scheduler_driver::{Driver, Options};
use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use framework::{Manner, Script};
use ledger::{FrameworkBook, Ledger, Plan};
use machines::{Machines, Mischief};

use crate::invariants::Event;
use crate::invariants::no_launch_lost::is_settled;

/// Time after the end of all faults within which a cluster converges: agents find their master within their longest
/// back-off, a lost agent's tasks are reported after the master's time-outs, and what is asked is answered.
pub const CONVERGES: Duration = Duration::from_secs(600);
/// Time within which everything is gone after the frameworks were told to end: the fail-over time-out of a framework that
/// nobody speaks for, and a good while for its containers.
pub const EMPTIES: Duration = Duration::from_secs(FAILOVER + 300);
/// Fail-over time-out of every framework, in seconds.
const FAILOVER: u64 = 300;

/// What a run consists of.
#[derive(Debug, Clone)]
pub struct Shape {
    /// How many agents there are.
    pub agents: usize,
    /// What each has.
    pub resources: Vec<String>,
    /// How many frameworks, with what each wants to run and how it behaves.
    pub frameworks: Vec<(Vec<Plan>, Manner)>,
    /// Whether frameworks know of partitions.
    pub partition_aware: bool,
    /// How long things go wrong.
    pub turmoil: Duration,
    /// How much the network, nodes and clocks misbehave.
    pub faults: Faults,
    /// How much machines do.
    pub mischief: Mischief,
    /// Which nodes may crash: masters, agents, schedulers.
    pub crashes: [bool; 3],
    /// Whether unanswered offers are taken back.
    pub offer_timeout: Option<Duration>,
}

impl Shape {
    /// Draws everything.
    pub fn draw(random: &mut StdRng) -> Self {
        let agents = random.random_range(1..5);
        let resources = (0..agents)
            .map(|_| {
                let cpus = random.random_range(1..5);
                format!("cpus:{cpus};mem:1024;disk:1024;ports:[31000-31009]")
            })
            .collect();
        let frameworks = (0..random.random_range(1..4))
            .map(|number| {
                let plans = (0..random.random_range(1..12)).map(|n| plan(random, number, n));
                (plans.collect(), manner(random))
            })
            .collect();
        let share = |random: &mut StdRng, most: f64| {
            if random.random_bool(0.5) {
                random.random_range(0.0..most)
            } else {
                0.0
            }
        };
        Self {
            agents,
            resources,
            frameworks,
            partition_aware: random.random_bool(0.7),
            turmoil: Duration::from_secs(random.random_range(20..90)),
            mischief: Mischief {
                launches_fail: share(random, 0.2),
                starts_fail: share(random, 0.2),
                executors_die: share(random, 0.2),
                destroys_fail: share(random, 0.5),
            },
            crashes: std::array::from_fn(|_| random.random_bool(0.5)),
            offer_timeout: random
                .random_bool(0.3)
                .then(|| Duration::from_secs(random.random_range(2..20))),
            faults: Faults::draw(random),
        }
    }

    /// The same without anything that goes wrong.
    #[must_use]
    pub fn peaceful(self) -> Self {
        Self {
            faults: Faults::none(),
            mischief: Mischief::default(),
            crashes: [false; 3],
            ..self
        }
    }
}

fn plan(random: &mut impl Rng, framework: usize, n: usize) -> Plan {
    Plan {
        id: TaskId::new(format!("task-{framework}-{n}")),
        resources: format!(
            "cpus:{};mem:{}",
            f64::from(random.random_range(1..11_u32)) / 10.0,
            random.random_range(16..200)
        ),
        ports: if random.random_bool(0.3) {
            random.random_range(1..4)
        } else {
            0
        },
        runs: Duration::from_millis(random.random_range(50..30_000)),
        exit: i32::from(random.random_bool(0.2)),
        killed_after: random
            .random_bool(0.3)
            .then(|| Duration::from_millis(random.random_range(0..20_000))),
    }
}

fn manner(random: &mut impl Rng) -> Manner {
    Manner {
        declines: random.random_range(0.0..0.4),
        keeps: random.random_range(0.0..0.5),
        suppresses: if random.random_bool(0.5) { 0.05 } else { 0.0 },
        explicit: random.random_bool(0.3),
    }
}

/// One simulated cluster.
pub struct World {
    /// The simulator.
    pub sim: Sim,
    /// What is written down.
    pub ledger: Ledger,
    /// Containers and processes.
    pub machines: Machines,
    /// Where the parts are.
    pub places: Places,
    shape: Shape,
}

/// Where the parts of a world are.
#[derive(Debug, Clone)]
pub struct Places {
    /// The master.
    pub master: Pid,
    /// The allocator.
    pub allocator: Pid,
    /// The master's node.
    pub master_node: NodeId,
    /// The agents.
    pub agents: Vec<Pid>,
    /// The agents' nodes.
    pub agent_nodes: Vec<NodeId>,
    /// The frameworks' nodes.
    pub framework_nodes: Vec<NodeId>,
}

impl World {
    /// The world of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut sim = Sim::new(seed);
        let shape = Shape::draw(sim.random());
        Self::build(sim, shape)
    }

    /// A world of this shape.
    pub fn build(mut sim: Sim, shape: Shape) -> Self {
        let ledger = Ledger::default();
        let machines = Machines::new(ledger.clone(), shape.mischief);
        machines.install(&mut sim);
        // Drift is a matter of how a node starts, so faults come first.
        sim.set_faults(shape.faults.clone());
        let [masters, agents, schedulers] = shape.crashes;

        let settings = NodeSettings::new("master", "master").crashes(masters);
        let offer_timeout = shape.offer_timeout;
        let book = ledger.clone();
        let master_node = sim.add(settings, move |boot| {
            let now = boot.sim().now();
            book.book().note(now, Event::MasterStarted);
            // The higher of two epochs leads.
            let mut config = meseta_master::Config::new(boot.incarnation(), "master");
            // The times of pings are the shipped ones: a new master waits as long for agents that it has not seen, and
            // that is made for an agent's longest back-off.
            config.agent_reregister_timeout = Duration::from_secs(120);
            config.offer_timeout = offer_timeout;
            boot.spawn("master", Master::new(config));
        });
        let master = sim.pid(master_node, "master");
        let allocator = sim.pid(master_node, "allocator(1)");

        let mut places = Places {
            master: master.clone(),
            allocator,
            master_node,
            agents: Vec::new(),
            agent_nodes: Vec::new(),
            framework_nodes: Vec::new(),
        };
        for (n, resources) in shape.resources.iter().enumerate() {
            let (master, resources) = (master.clone(), resources.clone());
            let settings = NodeSettings::new(&format!("agent-{n}"), "agent").crashes(agents);
            let node = sim.add(settings, move |boot| {
                boot.spawn("slave(1)", agent(&master, &resources));
            });
            places.agents.push(sim.pid(node, "slave(1)"));
            places.agent_nodes.push(node);
        }
        for (number, (plans, manner)) in shape.frameworks.iter().enumerate() {
            ledger.book().frameworks.push(FrameworkBook {
                plans: plans.clone(),
                ..FrameworkBook::default()
            });
            let (ledger, manner, master) = (ledger.clone(), manner.clone(), master.clone());
            let aware = shape.partition_aware;
            let settings = NodeSettings::new(&format!("framework-{number}"), "scheduler")
                .accepts(false)
                .crashes(schedulers);
            let node = sim.add(settings, move |boot| {
                start_framework(boot, number, aware, &ledger, &manner, &master);
            });
            places.framework_nodes.push(node);
        }
        let mut world = Self {
            sim,
            ledger,
            machines,
            places,
            shape,
        };
        laws::all(&mut world);
        world
    }

    /// Lets things go wrong for a while, then ends all faults and requires that the cluster converges and empties.
    ///
    /// # Errors
    /// The first law that is broken.
    pub fn run(&mut self) -> Result<(), Failure> {
        self.sim.run_for(self.shape.turmoil)?;
        self.sim.heal();
        self.machines.heal();
        let (ledger, places) = (self.ledger.clone(), self.places.clone());
        let converged = self.sim.run_until(
            CONVERGES,
            every_second(move |sim| unsettled(sim, &ledger, &places).is_none()),
        )?;
        if !converged {
            let left = unsettled(&self.sim, &self.ledger, &self.places).unwrap_or_default();
            self.sim.fail(
                "Z-1",
                &format!("not converged {CONVERGES:?} after the last fault: {left}"),
            );
            return self.sim.finish();
        }
        for framework in &mut self.ledger.book().frameworks {
            framework.stopping = true;
        }
        let (machines, places) = (self.machines.clone(), self.places.clone());
        let emptied = self.sim.run_until(
            EMPTIES,
            every_second(move |sim| left_over(sim, &machines, &places).is_none()),
        )?;
        if !emptied {
            let left = left_over(&self.sim, &self.machines, &self.places).unwrap_or_default();
            self.sim.fail(
                "K-1",
                &format!("not empty {EMPTIES:?} after the frameworks ended: {left}"),
            );
        }
        self.sim.finish()
    }
}

/// Runs the world of a seed.
///
/// # Errors
/// The first law that is broken.
pub fn run(seed: u64) -> Result<Outcome, Failure> {
    let mut world = World::draw(seed);
    world.run()?;
    Ok(Outcome::of(&world))
}

/// What is left of a run that kept all laws.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Hash of the journal.
    pub hash: u64,
    /// Lines of the journal.
    pub lines: u64,
    /// Steps made.
    pub steps: u64,
    /// Tasks launched.
    pub tasks: usize,
    /// What went wrong.
    pub bites: Bites,
}

impl Outcome {
    fn of(world: &World) -> Self {
        let book = world.ledger.book();
        let tasks = book
            .frameworks
            .iter()
            .map(|f| f.tasks.len() + f.given_up.len());
        Self {
            hash: world.sim.journal().hash(),
            lines: world.sim.journal().lines(),
            steps: world.sim.steps(),
            tasks: tasks.sum(),
            bites: world.sim.bites().clone(),
        }
    }
}

/// Asks a costly question once a virtual second.
fn every_second(mut ask: impl FnMut(&Sim) -> bool) -> impl FnMut(&Sim) -> bool {
    let mut next = None;
    move |sim| {
        if next.is_some_and(|next| sim.now() < next) {
            return false;
        }
        next = Some(sim.now() + Duration::from_secs(1));
        ask(sim)
    }
}

fn agent(master: &Pid, resources: &str) -> Agent {
    let mut config = meseta_agent::Config::new(master.clone(), "/work");
    config.containment = Containment::Walk;
    config.resources = resources.parse().unwrap_or_default();
    config.launcher = vec!["launcher".to_owned()];
    config.executor_command = "executor".to_owned();
    config.concurrent_launches = 4;
    config.executor_registration_timeout = Duration::from_secs(30);
    let host = Host {
        is_root: false,
        user: "meseta".to_owned(),
        freezer: None,
    };
    Agent::new(config, host)
}

fn start_framework(
    boot: &mut Boot<'_>,
    number: usize,
    aware: bool,
    ledger: &Ledger,
    manner: &Manner,
    master: &Pid,
) {
    let mut info = FrameworkInfo::new("meseta", format!("framework-{number}"));
    info.failover_timeout = Duration::from_secs(FAILOVER).as_secs_f64();
    info.roles = vec![Role::star()];
    if !aware {
        info.capabilities = FrameworkCapabilities::of([
            FrameworkCapability::MultiRole,
            FrameworkCapability::TaskKillingState,
        ]);
    }
    {
        let mut book = ledger.book();
        let framework = &mut book.frameworks[number];
        if framework.ended {
            return;
        }
        framework.connected = false;
        info.id = framework.id.clone();
    }
    let options = Options {
        explicit_acknowledgements: manner.explicit,
        ..Options::default()
    };
    let seed = boot.random().next_u64();
    let script = Script::new(number, ledger.clone(), manner.clone(), seed);
    let (ended, _) = mpsc::channel();
    let driver = Driver::new(master.clone(), info, options, Box::new(script), ended);
    // Each run of the program is another process.
    let id = format!("scheduler-{}", boot.incarnation());
    boot.spawn(&id, driver);
    let pid = boot.pid(&id);
    let (ledger, node) = (ledger.clone(), boot.node());
    boot.sim()
        .when_ended(&pid, move |sim, _| driver_ended(sim, node, number, &ledger));
}

/// A driver has ended: for good when it was told to, else the framework begins anew under another id.
fn driver_ended(sim: &mut Sim, node: NodeId, number: usize, ledger: &Ledger) {
    {
        let mut book = ledger.book();
        let framework = &mut book.frameworks[number];
        if framework.stopping {
            framework.ended = true;
            book.note(sim.now(), Event::FrameworkOver(number));
            return;
        }
        framework.id = None;
        let tasks = std::mem::take(&mut framework.tasks);
        framework.given_up.extend(tasks);
        book.note(sim.now(), Event::FrameworkOver(number));
    }
    sim.later(Duration::from_secs(1), move |sim| {
        sim.crash(node, meseta_runtime::sim::Kept::Synced, false);
        sim.restart(node);
    });
}

/// What keeps a cluster from having converged; none when it has.
pub fn unsettled(sim: &Sim, ledger: &Ledger, places: &Places) -> Option<String> {
    let down = sim
        .node_ids()
        .find(|id| matches!(sim.state(*id), State::Down | State::Paused));
    if let Some(down) = down {
        return Some(format!("{} does not run", sim.name(down)));
    }
    let Some(master) = sim.process::<Master>(&places.master) else {
        return Some("there is no master".to_owned());
    };
    let state = master.state();
    for pid in &places.agents {
        let Some(agent) = sim.process::<Agent>(pid) else {
            return Some(format!("{pid} does not live"));
        };
        if agent.registration().phase() != Phase::Running {
            return Some(format!("{pid} is not registered"));
        }
        let known = agent.info().id.as_ref().and_then(|id| state.agent(id));
        if !known.is_some_and(|known| known.connected && known.pid == *pid) {
            return Some(format!("the master does not know {pid}"));
        }
        if !agent.updates().is_empty() {
            return Some(format!("{pid} waits for acknowledgements"));
        }
    }
    if state.agents().count() != places.agents.len() {
        return Some(format!(
            "the master knows {} agents",
            state.agents().count()
        ));
    }
    let book = ledger.book();
    for (number, framework) in book.frameworks.iter().enumerate() {
        let id = framework.id.as_ref();
        let known = id.and_then(|id| state.framework(id));
        let Some(known) = known.filter(|known| known.is_connected() && framework.connected) else {
            return Some(format!("framework {number} is not subscribed"));
        };
        if let Some(plan) = framework.plans.last() {
            return Some(format!("{} is not launched", plan.id));
        }
        for (id, task) in &framework.tasks {
            if !task.has_ended() && !is_settled(task.state()) {
                return Some(format!("{id} of framework {number} is {}", task.state()));
            }
            if book.running.contains(id) {
                return Some(format!("{id} runs though it is {}", task.state()));
            }
        }
        if let Some(id) = known.tasks.keys().next() {
            return Some(format!("the master still has {id}"));
        }
    }
    if let Some(id) = book.running.iter().next() {
        return Some(format!("{id} runs"));
    }
    None
}

/// What is left of work that has ended; none when the cluster is empty.
pub fn left_over(sim: &Sim, machines: &Machines, places: &Places) -> Option<String> {
    let master = sim.process::<Master>(&places.master)?;
    if let Some((id, _)) = master.state().frameworks().next() {
        return Some(format!("the master still has framework {id}"));
    }
    if master.state().offer_count() > 0 {
        return Some(format!("{} offers", master.state().offer_count()));
    }
    for pid in &places.agents {
        let agent = sim.process::<Agent>(pid)?;
        if let Some((_, executor, _)) = agent.tables().executors().next() {
            return Some(format!("{pid} still has executor {executor}"));
        }
        if !agent.updates().is_empty() {
            return Some(format!(
                "{pid} still has {} streams of updates",
                agent.updates().len()
            ));
        }
    }
    let containers = machines.containers();
    if containers > 0 {
        return Some(format!("{containers} containers"));
    }
    None
}
