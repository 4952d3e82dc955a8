//! The machines of a simulated cluster: what answers the operations of agents and executors in place of a kernel.
//!
//! A container is a guest node of its agent's with the shipped executor driver and command executor on it. A task's
//! process is a record here: it ends after the time its command names, or when it is signalled. Like a kernel, this
//! outlives agents: containers of an agent that has crashed live on until its next run sweeps them, unless the whole
//! machine was lost.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use meseta_agent::containerizer::{ContainerEnded, Destroy, Exits, Launch, LaunchError, Sweep};
use meseta_executor::command::core::Signal;
use meseta_executor::command::{AwaitEnd, CommandExecutor, SignalTree, StartProcess};
use meseta_executor::process_tree::Exit;
use meseta_executor::{ExecutorDriver, ExecutorEnvironment, Guard};
use meseta_protocol::TaskId;
use meseta_protocol::launch::LaunchPlan;
use meseta_runtime::sim::{Invariant, NodeId, NodeSettings, OpReply, Seen, Sim, State};
use rand::RngExt;

use super::ledger::Ledger;
use crate::invariants::Event;

/// A container that does not start.
pub const LAUNCH_FAILED: &str = "container not launched";
/// A process that does not start.
pub const START_FAILED: &str = "process not started";
/// A container that dies by itself.
pub const EXECUTOR_KILLED: &str = "executor killed";
/// A container that does not end when it is told to.
pub const STUBBORN: &str = "container not destroyed at once";
/// Kinds of faults of machines.
pub const FAULTS: &[&str] = &[LAUNCH_FAILED, START_FAILED, EXECUTOR_KILLED, STUBBORN];

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// How badly machines behave.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mischief {
    /// Share of containers that do not start.
    pub launches_fail: f64,
    /// Share of processes that do not start.
    pub starts_fail: f64,
    /// Share of containers that die by themselves some time.
    pub executors_die: f64,
    /// Share of attempts to end a container that fail.
    pub destroys_fail: f64,
}

/// The process of a task.
struct Running {
    task: TaskId,
    /// How it ended, once it has.
    exit: Option<Exit>,
    awaited: Option<OpReply<AwaitEnd>>,
}

struct Container {
    guest: NodeId,
    exits: Option<Exits>,
}

#[derive(Default)]
struct Kernel {
    mischief: Mischief,
    containers: BTreeMap<(NodeId, String), Container>,
    processes: BTreeMap<NodeId, Running>,
}

/// All machines of a world. Clones are the same ones.
#[derive(Clone)]
pub struct Machines {
    kernel: Rc<RefCell<Kernel>>,
    ledger: Ledger,
}

impl Machines {
    /// Machines that note in the ledger what runs.
    pub fn new(ledger: Ledger, mischief: Mischief) -> Self {
        let kernel = Kernel {
            mischief,
            ..Kernel::default()
        };
        Self {
            kernel: Rc::new(RefCell::new(kernel)),
            ledger,
        }
    }

    /// Containers that live.
    pub fn containers(&self) -> usize {
        self.kernel.borrow().containers.len()
    }

    /// From now on everything works.
    pub fn heal(&self) {
        self.kernel.borrow_mut().mischief = Mischief::default();
    }

    /// Answers the operations of agents and executors.
    pub fn install(&self, sim: &mut Sim) {
        let me = self.clone();
        sim.model(move |sim, node, launch: Launch, reply| {
            let (me, delay) = (me.clone(), sim.op_delay());
            sim.later_on(node, delay, move |sim| me.launch(sim, node, launch, reply));
        });
        let me = self.clone();
        sim.model(move |sim, node, destroy: Destroy, reply| {
            let (me, delay) = (me.clone(), sim.op_delay());
            sim.later_on(node, delay, move |sim| {
                me.destroy(sim, node, &destroy, reply);
            });
        });
        let me = self.clone();
        sim.model(move |sim, node, _: Sweep, reply| {
            let (me, delay) = (me.clone(), sim.op_delay());
            sim.later_on(node, delay, move |sim| {
                let left: Vec<String> = {
                    let kernel = me.kernel.borrow();
                    let own = kernel.containers.keys().filter(|(host, _)| *host == node);
                    own.map(|(_, container)| container.clone()).collect()
                };
                for container in left {
                    me.end(sim, node, &container, SIGKILL);
                }
                sim.answer(reply, Duration::ZERO, Ok(()));
            });
        });
        let me = self.clone();
        sim.model(move |sim, node, start: StartProcess, reply| {
            let (me, delay) = (me.clone(), sim.op_delay());
            sim.later_on(node, delay, move |sim| {
                me.start(sim, node, &start.plan, reply);
            });
        });
        let me = self.clone();
        sim.model(move |sim, node, _: AwaitEnd, reply| me.await_end(sim, node, reply));
        let me = self.clone();
        sim.model(move |sim, node, signal: SignalTree, reply| {
            let (me, delay) = (me.clone(), sim.op_delay());
            sim.later_on(node, delay, move |sim| {
                me.signal(sim, node, signal.signal);
                sim.answer(reply, Duration::ZERO, Ok(()));
            });
        });
    }

    fn happens(&self, sim: &mut Sim, share: impl Fn(&Mischief) -> f64, kind: &'static str) -> bool {
        let share = share(&self.kernel.borrow().mischief);
        let happens = share > 0.0 && sim.random().random_bool(share);
        if happens {
            sim.bites_mut().count(kind);
        }
        happens
    }

    fn launch(&self, sim: &mut Sim, node: NodeId, launch: Launch, reply: OpReply<Launch>) {
        let environment = environment(&launch.plan);
        let failed = self.happens(sim, |m| m.launches_fail, LAUNCH_FAILED);
        let (Some(environment), false) = (environment, failed) else {
            let error = LaunchError::Launcher("out of processes".to_owned());
            sim.answer(reply, Duration::ZERO, Err(error));
            return;
        };
        let id = environment.process_id.clone();
        let settings = NodeSettings::new(&format!("{id:.17}"), "executor");
        let pid = sim.pid(node, &id);
        let guest = sim.add_guest(node, &id, settings, move |boot| {
            let executor =
                CommandExecutor::new(&environment, Vec::new(), vec!["launcher".to_owned()]);
            let driver = ExecutorDriver::new(environment.clone(), Box::new(executor));
            boot.spawn(&environment.process_id, driver);
        });
        let container = Container {
            guest,
            exits: Some(launch.exits),
        };
        let key = (node, launch.container.clone());
        self.kernel.borrow_mut().containers.insert(key, container);
        // The program ends with its driver.
        let (me, name) = (self.clone(), launch.container.clone());
        sim.when_ended(&pid, move |sim, _| {
            let (me, name) = (me.clone(), name.clone());
            sim.later(Duration::from_millis(5), move |sim| {
                me.end(sim, node, &name, 0);
            });
        });
        if self.happens(sim, |m| m.executors_die, EXECUTOR_KILLED) {
            let (me, name) = (self.clone(), launch.container);
            let when = Duration::from_millis(sim.random().random_range(0..20_000));
            sim.later(when, move |sim| me.end(sim, node, &name, SIGKILL));
        }
        let first_process = u32::try_from(sim.node_ids().count()).unwrap_or(1);
        sim.answer(reply, Duration::ZERO, Ok(first_process));
    }

    fn destroy(&self, sim: &mut Sim, node: NodeId, destroy: &Destroy, reply: OpReply<Destroy>) {
        if self.happens(sim, |m| m.destroys_fail, STUBBORN) {
            sim.answer(reply, Duration::ZERO, Err("it does not end".to_owned()));
            return;
        }
        self.end(sim, node, &destroy.container, SIGKILL);
        sim.answer(reply, Duration::ZERO, Ok(()));
    }

    /// Ends a container with everything in it and tells its agent, if that is still the one that launched it.
    fn end(&self, sim: &mut Sim, host: NodeId, container: &str, status: i32) {
        let ended = self
            .kernel
            .borrow_mut()
            .containers
            .remove(&(host, container.to_owned()));
        let Some(mut ended) = ended else {
            return;
        };
        if sim.state(ended.guest) != State::Gone {
            if status == 0 {
                sim.shut_down(ended.guest);
            } else {
                sim.remove(ended.guest);
            }
        }
        self.process_gone(sim, ended.guest);
        if let Some(exits) = ended.exits.take() {
            exits.tell(ContainerEnded {
                container: container.to_owned(),
                status,
                complaint: None,
            });
        }
    }

    fn process_gone(&self, sim: &Sim, guest: NodeId) {
        if let Some(process) = self.kernel.borrow_mut().processes.remove(&guest) {
            self.stopped(sim, &process.task);
        }
    }

    fn stopped(&self, sim: &Sim, task: &TaskId) {
        let mut book = self.ledger.book();
        if book.running.remove(task) {
            let task = task.clone();
            book.note(sim.now(), Event::Stopped { task });
        }
    }

    /// What notes that guests were lost together with a machine.
    pub fn bookkeeping(&self) -> impl Invariant + 'static {
        Bookkeeping(self.clone())
    }

    fn start(&self, sim: &mut Sim, guest: NodeId, plan: &LaunchPlan, reply: OpReply<StartProcess>) {
        let line = plan.command.arguments.last().cloned().unwrap_or_default();
        let mut words = line.split(' ');
        let task = TaskId::new(words.next().unwrap_or_default());
        let number = |word: Option<&str>| word.and_then(|word| word.parse::<u64>().ok());
        let runs = Duration::from_millis(number(words.next()).unwrap_or(0));
        let exit = i32::try_from(number(words.next()).unwrap_or(0)).unwrap_or(0);
        if self.happens(sim, |m| m.starts_fail, START_FAILED) {
            sim.answer(reply, Duration::ZERO, Err("no such program".to_owned()));
            return;
        }
        {
            let mut book = self.ledger.book();
            let started = Event::Started {
                task: task.clone(),
                container: sim.name(guest).to_owned(),
            };
            book.note(sim.now(), started);
            book.running.insert(task.clone());
        }
        sim.remark(&format!("process of {task} starts"));
        let running = Running {
            task,
            exit: None,
            awaited: None,
        };
        self.kernel.borrow_mut().processes.insert(guest, running);
        let me = self.clone();
        sim.later_on(guest, runs, move |sim| {
            me.process_ended(sim, guest, Exit::Status(exit));
        });
        let process = 1_000 + i32::try_from(sim.node_ids().count()).unwrap_or(0);
        sim.answer(reply, Duration::ZERO, Ok(process));
    }

    fn await_end(&self, sim: &mut Sim, guest: NodeId, reply: OpReply<AwaitEnd>) {
        let mut kernel = self.kernel.borrow_mut();
        let Some(process) = kernel.processes.get_mut(&guest) else {
            drop(kernel);
            sim.answer(reply, Duration::ZERO, Err("no such process".to_owned()));
            return;
        };
        match process.exit {
            Some(exit) => {
                drop(kernel);
                let delay = sim.op_delay();
                sim.answer(reply, delay, Ok(exit));
            }
            None => process.awaited = Some(reply),
        }
    }

    fn process_ended(&self, sim: &mut Sim, guest: NodeId, exit: Exit) {
        let awaited = {
            let mut kernel = self.kernel.borrow_mut();
            let Some(process) = kernel.processes.get_mut(&guest) else {
                return;
            };
            if process.exit.is_some() {
                return;
            }
            process.exit = Some(exit);
            self.stopped(sim, &process.task);
            sim.remark(&format!("process of {} ends: {exit:?}", process.task));
            process.awaited.take()
        };
        if let Some(reply) = awaited {
            let delay = sim.op_delay();
            sim.answer(reply, delay, Ok(exit));
        }
    }

    fn signal(&self, sim: &mut Sim, guest: NodeId, signal: Signal) {
        match signal {
            Signal::Kill => self.process_ended(sim, guest, Exit::Signal(SIGKILL)),
            // Some programs do not listen.
            Signal::Term if sim.random().random_bool(0.8) => {
                let delay = Duration::from_millis(sim.random().random_range(0..4_000));
                let me = self.clone();
                sim.later_on(guest, delay, move |sim| {
                    me.process_ended(sim, guest, Exit::Signal(SIGTERM));
                });
            }
            Signal::Term => {}
        }
    }
}

/// Not a law: hears of crashes.
struct Bookkeeping(Machines);

impl Invariant for Bookkeeping {
    fn name(&self) -> &'static str {
        "machines"
    }

    fn seen(&mut self, sim: &Sim, seen: &Seen<'_>) -> Result<(), String> {
        if let Seen::Crashed(node) = seen {
            let containers = &mut self.0.kernel.borrow_mut().containers;
            containers.retain(|_, container| container.guest != *node);
        }
        if let Seen::Crashed(node) = seen {
            // Its processes are gone with it.
            self.0.process_gone(sim, *node);
        }
        Ok(())
    }
}

/// What an executor is told by its plan.
fn environment(plan: &LaunchPlan) -> Option<ExecutorEnvironment> {
    let credential = plan.credential.as_ref()?;
    let variable = |name: &str| {
        let entry = plan.environment.iter().find(|entry| entry.name == name);
        entry.map(|entry| entry.value.clone())
    };
    let mut environment =
        ExecutorEnvironment::read(&credential.executor_process_id, variable).ok()?;
    environment.agent = credential.agent_pid.parse().ok()?;
    // The program is a node of its own; its end is modelled here.
    environment.guard = Guard::StopDriver;
    Some(environment)
}
