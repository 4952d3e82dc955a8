//! The machines of the agents in a simulated world: what launches, ends and waits for the processes that agents and
//! command executors order. Each container's executor is a guest node of its agent.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use meseta_agent::checkpoint::memory;
use meseta_agent::checkpoint::records::{AGENT, executor_key};
use meseta_agent::containerizer::process_tree::Identity;
use meseta_agent::containerizer::{
    Adopt, ContainerEnded, Destroy, Exits, Launch, LaunchError, Sweep,
};
use meseta_executor::command::core::Signal;
use meseta_executor::command::{AwaitEnd, CommandExecutor, SignalTree, StartProcess};
use meseta_executor::driver::ExecutorDriver;
use meseta_executor::process_tree::Exit;
use meseta_executor::{Executor, ExecutorEnvironment, Guard};
use meseta_protocol::TaskId;
use meseta_protocol::launch::LaunchPlan;
use meseta_runtime::sim::{Boot, NodeId, NodeSettings, OpReply, Sim};
use rand::RngExt;

use super::executor::Played;
use super::kill_at_end;
use super::machine::{End, KILLED, Script};
use super::notes::Shared;
use super::sandboxes::Sandboxes;
use super::scheduler::CUSTOM;
use crate::invariants::Event;

/// A container was not started.
pub const LAUNCH_FAILS: &str = "launch of a container fails";
/// A task's process was not started.
pub const START_FAILS: &str = "start of a task's process fails";
/// A container could not be ended.
pub const DESTROY_FAILS: &str = "end of a container fails";
/// An executor was killed.
pub const EXECUTOR_KILLED: &str = "executor killed";
/// An executor was found again by an agent that was restarted.
pub const ADOPTED: &str = "executor found again by a restarted agent";
/// An executor never spoke to its agent.
pub const EXECUTOR_HANGS: &str = "executor hangs before it subscribes";

/// How often machines do not do what they are told, as shares.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Troubles {
    /// Of launches.
    pub launch_fails: f64,
    /// Of starts of processes.
    pub start_fails: f64,
    /// Of ends of containers.
    pub destroy_fails: f64,
    /// Of executors, which hang at their start.
    pub executor_hangs: f64,
    /// Of ends of tasks, after which executors stand still for a moment while their agent is killed.
    pub kills_at_end: f64,
}

/// The first process of a container.
struct First {
    host: usize,
    identity: Identity,
    /// Whether it has ended, told or not.
    has_ended: bool,
    guest: Option<NodeId>,
    exits: Option<Exits>,
}

#[derive(Default)]
struct Inner {
    /// Number of the machine of each agent's node.
    hosts: BTreeMap<NodeId, usize>,
    containers: BTreeMap<String, First>,
    guests: BTreeMap<NodeId, String>,
    /// Executors that wait for the end of a process.
    waits: Vec<(String, i32, OpReply<AwaitEnd>)>,
    troubles: Troubles,
}

/// See the module.
#[derive(Clone)]
pub struct Hosts {
    inner: Rc<RefCell<Inner>>,
    shared: Shared,
    sandboxes: Sandboxes,
}

impl Hosts {
    /// No machines yet.
    pub fn new(shared: Shared, troubles: Troubles, sandboxes: Sandboxes) -> Self {
        let inner = Inner {
            troubles,
            ..Inner::default()
        };
        Self {
            inner: Rc::new(RefCell::new(inner)),
            shared,
            sandboxes,
        }
    }

    /// The machine of an agent's node.
    pub fn add(&self, agent: NodeId, host: usize) {
        self.inner.borrow_mut().hosts.insert(agent, host);
    }

    /// Whether anything of this container is on any machine.
    pub fn has(&self, container: &str) -> bool {
        self.inner.borrow().containers.contains_key(container)
    }

    /// From now on machines do what they are told.
    pub fn heal(&self) {
        self.inner.borrow_mut().troubles = Troubles::default();
        self.sandboxes.heal();
    }

    /// What lies on their disks.
    pub fn sandboxes(&self) -> &Sandboxes {
        &self.sandboxes
    }

    /// Has operations answered.
    pub fn install(&self, sim: &mut Sim) {
        let me = self.clone();
        sim.model(move |sim, node, op: Launch, reply| me.launch(sim, node, op, reply));
        let me = self.clone();
        sim.model(move |sim, node, op: Destroy, reply| me.destroy(sim, node, &op, reply));
        let me = self.clone();
        sim.model(move |sim, node, op: Sweep, reply| me.sweep(sim, node, op, reply));
        let me = self.clone();
        sim.model(move |sim, node, op: Adopt, reply| me.adopt(sim, node, op, reply));
        let me = self.clone();
        memory::model(sim, move |sim, node, changes| {
            kill_at_end::written(&me, sim, node, changes);
        });
        let me = self.clone();
        sim.model(move |sim, node, op: StartProcess, reply| me.start(sim, node, &op, reply));
        let me = self.clone();
        sim.model(move |sim, node, op: AwaitEnd, reply| me.await_end(sim, node, &op, reply));
        let me = self.clone();
        sim.model(move |sim, node, op: SignalTree, reply| me.signal(sim, node, &op, reply));
        self.sandboxes.install(sim, self);
    }

    /// How often things go wrong now.
    pub(super) fn troubles(&self) -> Troubles {
        self.inner.borrow().troubles
    }

    /// Whether something of this share goes wrong, which counts as a bite.
    pub(super) fn troubled(&self, sim: &mut Sim, share: f64, kind: &'static str) -> bool {
        let bitten = share > 0.0 && sim.random().random_bool(share);
        if bitten {
            self.shared.lock().bite(kind);
        }
        bitten
    }

    /// Number of the machine of an agent's node.
    pub(super) fn host(&self, agent: NodeId) -> usize {
        self.inner.borrow().hosts[&agent]
    }

    fn stopped(&self, tasks: Vec<TaskId>) {
        let mut notes = self.shared.lock();
        for task in tasks {
            notes.note(Event::Stopped { task });
        }
    }

    /// Does something for a program after a delay, unless the program has ended by then.
    pub(super) fn while_alive(
        sim: &mut Sim,
        node: NodeId,
        delay: Duration,
        act: impl FnOnce(&mut Sim) + 'static,
    ) {
        let run = sim.incarnation(node);
        sim.later(delay, move |sim| {
            let alive = matches!(
                sim.state(node),
                meseta_runtime::sim::State::Up | meseta_runtime::sim::State::Paused
            );
            if sim.incarnation(node) == run && alive {
                act(sim);
            }
        });
    }
}

/// For agents.
impl Hosts {
    fn launch(&self, sim: &mut Sim, agent: NodeId, launch: Launch, reply: OpReply<Launch>) {
        let delay = sim.op_delay();
        let troubles = self.inner.borrow().troubles;
        let sandbox = &launch.plan.working_directory;
        self.sandboxes.made(sim, self.host(agent), agent, sandbox);
        if self.troubled(sim, troubles.launch_fails, LAUNCH_FAILS) {
            let error = LaunchError::Launcher("simulated".to_owned());
            sim.answer(reply, delay, Err(error));
            return;
        }
        let hangs = self.troubled(sim, troubles.executor_hangs, EXECUTOR_HANGS);
        let me = self.clone();
        Self::while_alive(sim, agent, delay, move |sim| {
            let host = me.host(agent);
            let process = me.shared.lock().machines[host].launch(&launch.container);
            let identity = Identity {
                process: u32::try_from(process).unwrap_or(1),
                started: sim.now().0,
            };
            let first = First {
                host,
                identity,
                has_ended: false,
                guest: None,
                exits: Some(launch.exits),
            };
            let container = launch.container;
            let mut inner = me.inner.borrow_mut();
            inner.containers.insert(container.clone(), first);
            drop(inner);
            sim.answer(reply, Duration::ZERO, Ok(identity));
            if !hangs {
                let start = Duration::from_millis(sim.random().random_range(1..200));
                sim.later(start, move |sim| {
                    me.run_executor(sim, agent, container, launch.plan);
                });
            }
        });
    }

    /// The launcher has become the executor.
    fn run_executor(&self, sim: &mut Sim, agent: NodeId, container: String, plan: LaunchPlan) {
        let host = self.host(agent);
        if !self.shared.lock().machines[host].has(&container) {
            return;
        }
        let id = format!("executor-{container}");
        let name = format!("x{}", &container[..4.min(container.len())]);
        let settings = NodeSettings::new(&name, "executor");
        let (shared, in_container) = (self.shared.clone(), container.clone());
        let guest = sim.add_guest(agent, &id, settings, move |boot| {
            start_driver(boot, &shared, host, &in_container, &plan);
        });
        let mut inner = self.inner.borrow_mut();
        inner.guests.insert(guest, container.clone());
        if let Some(first) = inner.containers.get_mut(&container) {
            first.guest = Some(guest);
        }
        drop(inner);
        let pid = sim.pid(agent, &id);
        let me = self.clone();
        sim.when_ended(&pid, move |sim, _| {
            sim.shut_down(guest);
            // What runs inside the program goes with it; the guard of a shutdown that takes too long kills the rest.
            let killed = me.shared.lock().machines[host].kill(&container);
            me.stopped(killed);
            me.first_ended(&container, 0);
        });
    }

    /// Nodes of the executors on an agent's machine.
    pub(super) fn executors_of(&self, agent: NodeId) -> Vec<NodeId> {
        let (inner, host) = (self.inner.borrow(), self.host(agent));
        let is_here = |container: &String| {
            let first = inner.containers.get(container);
            first.is_some_and(|first| first.host == host)
        };
        let all = inner.guests.iter();
        all.filter_map(|(guest, container)| is_here(container).then_some(*guest))
            .collect()
    }

    /// Tells the agent that a container's first process has ended.
    fn first_ended(&self, container: &str, status: i32) {
        let mut inner = self.inner.borrow_mut();
        let exits = inner.containers.get_mut(container).and_then(|first| {
            first.has_ended = true;
            first.exits.take()
        });
        drop(inner);
        if let Some(exits) = exits {
            exits.tell(ContainerEnded {
                container: container.to_owned(),
                status,
                complaint: None,
            });
        }
    }

    fn destroy(&self, sim: &mut Sim, agent: NodeId, destroy: &Destroy, reply: OpReply<Destroy>) {
        let delay = sim.op_delay();
        let share = self.inner.borrow().troubles.destroy_fails;
        if self.troubled(sim, share, DESTROY_FAILS) {
            sim.answer(reply, delay, Err("simulated".to_owned()));
            return;
        }
        let (me, container) = (self.clone(), destroy.container.clone());
        Self::while_alive(sim, agent, delay, move |sim| {
            me.end_container(sim, &container);
            sim.answer(reply, Duration::ZERO, Ok(()));
        });
    }

    /// Ends everything of a container.
    fn end_container(&self, sim: &mut Sim, container: &str) {
        let guest = {
            let inner = self.inner.borrow();
            inner
                .containers
                .get(container)
                .and_then(|first| first.guest)
        };
        if let Some(guest) = guest {
            self.inner.borrow_mut().guests.remove(&guest);
            sim.remove(guest);
        }
        self.first_ended(container, KILLED);
        let first = self.inner.borrow_mut().containers.remove(container);
        if let Some(first) = first {
            let killed = self.shared.lock().machines[first.host].destroy(container);
            self.stopped(killed);
        }
    }

    /// What an earlier run of an agent has launched is its own again; a process that has ended is not.
    fn adopt(&self, sim: &mut Sim, agent: NodeId, adopt: Adopt, reply: OpReply<Adopt>) {
        let delay = sim.op_delay();
        let me = self.clone();
        Self::while_alive(sim, agent, delay, move |sim| {
            let found = {
                let mut inner = me.inner.borrow_mut();
                let first = inner.containers.get_mut(&adopt.container);
                first.filter(|first| !first.has_ended).map(|first| {
                    first.exits = Some(adopt.exits);
                    first.identity
                })
            };
            if let (Some(known), Some(found)) = (adopt.process, found)
                && known != found
            {
                let what = format!(
                    "{} is taken for {known:?}, and is {found:?}",
                    adopt.container
                );
                sim.fail("T-8", &what);
            }
            if found.is_some() {
                me.shared.lock().bite(ADOPTED);
            }
            sim.answer(reply, Duration::ZERO, found);
        });
    }

    fn sweep(&self, sim: &mut Sim, agent: NodeId, sweep: Sweep, reply: OpReply<Sweep>) {
        let delay = sim.op_delay();
        let me = self.clone();
        Self::while_alive(sim, agent, delay, move |sim| {
            let host = me.host(agent);
            let of_host =
                |(name, first): (&String, &First)| (first.host == host).then(|| name.clone());
            let all: Vec<String> = me
                .inner
                .borrow()
                .containers
                .iter()
                .filter_map(of_host)
                .filter(|container| !sweep.keep.contains_key(container))
                .collect();
            for container in all {
                if !sweep.leaving {
                    me.may_be_ended(sim, agent, &container);
                }
                me.end_container(sim, &container);
            }
            sim.answer(reply, Duration::ZERO, Ok(()));
        });
    }

    /// T-8: what an agent has written down lives on over its restart.
    fn may_be_ended(&self, sim: &mut Sim, agent: NodeId, container: &str) {
        let disk = sim.disk(agent);
        let written = |key: &str| disk.read(&format!("checkpoint/{key}")).is_some();
        if written(AGENT) && written(&executor_key(container)) {
            let what = format!("{container} is ended by the restart of its agent");
            sim.fail("T-8", &what);
        }
    }

    /// A guest has gone without a word: with its machine, all of whose containers are gone, or killed.
    pub fn guest_crashed(&self, guest: NodeId) {
        let mut inner = self.inner.borrow_mut();
        let Some(container) = inner.guests.remove(&guest) else {
            return;
        };
        let first = inner.containers.remove(&container);
        drop(inner);
        if let Some(first) = first {
            let killed = self.shared.lock().machines[first.host].destroy(&container);
            self.stopped(killed);
        }
    }

    /// Kills some executor, whose processes live on until their agent ends them; those inside the program go with it.
    pub fn kill_executor(&self, sim: &mut Sim) {
        let guests: Vec<(NodeId, String)> = {
            let inner = self.inner.borrow();
            let all = inner.guests.iter();
            all.map(|(guest, container)| (*guest, container.clone()))
                .collect()
        };
        if guests.is_empty() {
            return;
        }
        let at = sim.random().random_range(0..guests.len());
        let (guest, container) = guests[at].clone();
        self.shared.lock().bite(EXECUTOR_KILLED);
        self.inner.borrow_mut().guests.remove(&guest);
        let pid = sim.pids(guest).next().cloned();
        let custom = pid.is_some_and(|pid| {
            sim.process::<ExecutorDriver>(&pid)
                .is_some_and(|driver| driver.executor::<Played>().is_some())
        });
        sim.remove(guest);
        let host = self
            .inner
            .borrow()
            .containers
            .get(&container)
            .map(|first| first.host);
        if let Some(host) = host.filter(|_| custom) {
            let killed = self.shared.lock().machines[host].kill(&container);
            self.stopped(killed);
        }
        self.first_ended(&container, KILLED);
    }

    /// Containers whose executors live.
    pub fn executors(&self) -> Vec<String> {
        self.inner.borrow().guests.values().cloned().collect()
    }
}

/// What the program of an executor does at its start.
fn start_driver(
    boot: &mut Boot<'_>,
    shared: &Shared,
    host: usize,
    container: &str,
    plan: &LaunchPlan,
) {
    let id = format!("executor-{container}");
    let variable = |name: &str| {
        let found = plan
            .environment
            .iter()
            .rev()
            .find(|entry| entry.name == name);
        found.map(|entry| entry.value.clone())
    };
    let mut environment = match ExecutorEnvironment::read(&id, variable) {
        Ok(environment) => environment,
        Err(error) => {
            boot.sim()
                .fail("the world is well made", &error.to_string());
            return;
        }
    };
    environment.guard = Guard::StopDriver;
    let is_custom = plan.command.arguments.iter().any(|word| word == CUSTOM);
    let executor: Box<dyn Executor> = if is_custom {
        Box::new(Played::new(shared.clone(), host, container.to_owned()))
    } else {
        Box::new(CommandExecutor::new(&environment, Vec::new(), Vec::new()))
    };
    boot.spawn(&id, ExecutorDriver::new(environment, executor));
}

/// For command executors.
impl Hosts {
    /// Container and machine of an executor's node.
    fn place(&self, guest: NodeId) -> Option<(String, usize)> {
        let inner = self.inner.borrow();
        let container = inner.guests.get(&guest)?;
        let host = inner.containers.get(container)?.host;
        Some((container.clone(), host))
    }

    fn start(
        &self,
        sim: &mut Sim,
        guest: NodeId,
        start: &StartProcess,
        reply: OpReply<StartProcess>,
    ) {
        let delay = sim.op_delay();
        let share = self.inner.borrow().troubles.start_fails;
        let text = start.plan.command.arguments.last();
        let script = text.and_then(|text| Script::parse(text));
        let fails = self.troubled(sim, share, START_FAILS);
        let Some(script) = script.filter(|_| !fails) else {
            sim.answer(reply, delay, Err("simulated".to_owned()));
            return;
        };
        let me = self.clone();
        Self::while_alive(sim, guest, delay, move |sim| {
            let Some((container, host)) = me.place(guest) else {
                return;
            };
            let (task, runs) = (script.task.clone(), script.runs);
            let mut notes = me.shared.lock();
            notes.now = sim.now();
            let now = notes.now;
            let process = notes.machines[host].start(&container, script, now);
            if process.is_some() {
                notes.note(Event::Started { task, container });
            }
            drop(notes);
            let out = process.ok_or_else(|| "no container".to_owned());
            sim.answer(reply, Duration::ZERO, out);
            let again = me.clone();
            sim.later(runs, move |sim| again.advance(sim, host));
        });
    }

    /// Ends what is due on a machine, and tells those who wait.
    fn advance(&self, sim: &mut Sim, host: usize) {
        let over = self.shared.lock().machines[host].advance(sim.now());
        self.stopped(over);
        self.tell_waiting(sim);
    }

    fn tell_waiting(&self, sim: &mut Sim) {
        let waits = std::mem::take(&mut self.inner.borrow_mut().waits);
        for (container, process, reply) in waits {
            let host = {
                let inner = self.inner.borrow();
                inner.containers.get(&container).map(|first| first.host)
            };
            let end = match host {
                Some(host) => self.shared.lock().machines[host].wait(&container, process),
                None => continue,
            };
            match end {
                Some(End::Exited(status)) => {
                    sim.answer(reply, Duration::from_millis(1), Ok(Exit::Status(status)));
                }
                Some(End::Signalled(signal)) => {
                    sim.answer(reply, Duration::from_millis(1), Ok(Exit::Signal(signal)));
                }
                None => self
                    .inner
                    .borrow_mut()
                    .waits
                    .push((container, process, reply)),
            }
        }
    }

    fn await_end(&self, sim: &mut Sim, guest: NodeId, wait: &AwaitEnd, reply: OpReply<AwaitEnd>) {
        if let Some((container, _)) = self.place(guest) {
            self.inner
                .borrow_mut()
                .waits
                .push((container, wait.pid, reply));
            self.tell_waiting(sim);
        }
    }

    fn signal(
        &self,
        sim: &mut Sim,
        guest: NodeId,
        signal: &SignalTree,
        reply: OpReply<SignalTree>,
    ) {
        let Some((container, host)) = self.place(guest) else {
            return;
        };
        let now = sim.now();
        match signal.signal {
            Signal::Term => {
                self.shared.lock().machines[host].terminate(&container, now);
                let me = self.clone();
                sim.later(Duration::from_millis(20), move |sim| me.advance(sim, host));
            }
            Signal::Kill => {
                let killed = self.shared.lock().machines[host].kill(&container);
                self.stopped(killed);
                self.tell_waiting(sim);
            }
        }
        let delay = sim.op_delay();
        sim.answer(reply, delay, Ok(()));
    }
}
