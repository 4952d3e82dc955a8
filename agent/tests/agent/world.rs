//! An agent in a small world, with a master and executors that the test plays.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::channel::oneshot;
use meseta_agent::Config;
use meseta_agent::checkpoint::Storage;
use meseta_agent::checkpoint::memory::Memory;
use meseta_agent::config::Containment;
use meseta_agent::containerizer::process_tree::Identity;
use meseta_agent::containerizer::{
    Adopt, ContainerEnded, Destroy, Exits, Launch, LaunchError, Sweep,
};
use meseta_protocol::UpdateId;
use meseta_protocol::common::CommandInfo;
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::launch::LaunchPlan;
use meseta_protocol::messages::agent::*;
use meseta_protocol::messages::executor::*;
use meseta_protocol::messages::{Led, MasterMessage};
use meseta_protocol::resources::Scalar;
use meseta_protocol::status::{StatusReason, StatusUpdate, TaskState, TaskStatus};
use meseta_protocol::task::{TaskGroupInfo, TaskInfo};
use meseta_runtime::testing::{Event, LIMIT, Observed as _, Probe, What};
use meseta_runtime::transport::memory::MemoryNetwork;
use meseta_runtime::{Clock, Message, Node, NodeBuilder, Pid};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// What every launch starts.
pub(crate) const FIRST: Identity = Identity {
    process: 4711,
    started: 12,
};

macro_rules! heard {
    ($($kind:ident),* $(,)?) => {
        /// What a master or an executor may hear of the agent.
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) enum Heard { $($kind($kind),)* Exited(Pid) }
        impl Heard {
            /// What came, when it is one of these.
            fn of(event: &Event) -> Option<Self> {
                if matches!(event.what, What::Exited(_)) {
                    return Some(Self::Exited(event.from.clone()));
                }
                $(
                    if let Some(message) = $kind::read(event) {
                        return Some(Self::$kind(message));
                    }
                )*
                None
            }
        }
    };
}
heard!(
    RegisterAgent,
    ReregisterAgent,
    UnregisterAgent,
    UpdateStatus,
    ExecutorExited,
    ExecutorToFramework,
    Pong,
    ExecutorSubscribed,
    LaunchTask,
    LaunchTaskGroup,
    KillExecutorTask,
    UpdateAcknowledged,
    MessageToExecutor,
    ShutdownExecutorNow,
    ExecutorRefused,
);

/// A master or an executor, which the test plays, on its node.
pub(crate) struct Actor {
    pub(crate) node: Node,
    pub(crate) probe: Probe,
}

impl Actor {
    pub(crate) fn on(node: &Node, id: &str) -> Self {
        Self {
            node: node.clone(),
            probe: node.testing().probe(id).unwrap(),
        }
    }
    pub(crate) fn send<M: Message>(&self, to: &Pid, message: M) {
        self.probe.send(to, message);
        self.node.clock().settle();
    }
    pub(crate) fn heard(&self) -> Vec<Heard> {
        let all = self.probe.everything();
        all.iter().filter_map(Heard::of).collect()
    }
}

#[derive(Debug)]
pub(crate) enum Order {
    Launch(String, Box<LaunchPlan>),
    Destroy(String),
}

pub(crate) type Running = Arc<Mutex<BTreeMap<String, Exits>>>;

/// What outlives the agent.
pub(crate) struct Machine {
    pub(crate) clock: Clock,
    pub(crate) network: MemoryNetwork,
    order: Sender<Order>,
    pub(crate) running: Running,
    pub(crate) refusal: Arc<Mutex<Option<LaunchError>>>,
    /// How many attempts to end a container fail from now on.
    pub(crate) stubborn: Arc<Mutex<usize>>,
    /// Of each sweep, whether the agent was leaving.
    pub(crate) sweeps: Arc<Mutex<Vec<bool>>>,
    /// Set when the next sweep lasts until the other end says that it is over.
    pub(crate) held_sweep: Arc<Mutex<Option<oneshot::Receiver<()>>>>,
    memory: Memory,
    /// How much memory the agent finds when it starts.
    pub(crate) found_mem: std::cell::Cell<u64>,
    work_dir: Arc<tempfile::TempDir>,
}

fn node(network: &MemoryNetwork, clock: &Clock, role: &str) -> NodeBuilder {
    Node::builder()
        .memory(network)
        .clock(clock.clone())
        .seed(5)
        .role(role)
}

impl Machine {
    /// Starts an agent at this port of its node, or at any.
    fn start(&self, port: u16, master: &Pid) -> (Node, Pid) {
        let (at_launch, at_destroy) = (Arc::clone(&self.running), Arc::clone(&self.running));
        let (refuse, order) = (Arc::clone(&self.refusal), self.order.clone());
        let (resists, destroyed) = (Arc::clone(&self.stubborn), self.order.clone());
        let (swept, held) = (Arc::clone(&self.sweeps), Arc::clone(&self.held_sweep));
        let adopted = Arc::clone(&self.running);
        let home = Storage::Memory(self.memory.clone())
            .serve(node(&self.network, &self.clock, "agent").port(port))
            .op(move |launch: Launch| {
                let outcome = refuse.lock().unwrap().take().map_or(Ok(FIRST), Err);
                order
                    .send(Order::Launch(
                        launch.container.clone(),
                        Box::new(launch.plan),
                    ))
                    .unwrap();
                if outcome.is_ok() {
                    at_launch
                        .lock()
                        .unwrap()
                        .insert(launch.container, launch.exits);
                }
                async move { outcome }
            })
            .op(move |adopt: Adopt| {
                let mut running = adopted.lock().unwrap();
                let found = running.get_mut(&adopt.container).map(|exits| {
                    *exits = adopt.exits;
                    FIRST
                });
                async move { found }
            })
            .op(move |destroy: Destroy| {
                let mut left = resists.lock().unwrap();
                let outcome = if *left > 0 {
                    *left -= 1;
                    Err("it does not end".to_owned())
                } else {
                    end(&at_destroy, &destroy.container, 9, None);
                    Ok(())
                };
                destroyed.send(Order::Destroy(destroy.container)).unwrap();
                async move { outcome }
            })
            .op(move |sweep: Sweep| {
                swept.lock().unwrap().push(sweep.leaving);
                let held = held.lock().unwrap().take();
                async move {
                    match held {
                        Some(held) => held.await.map_err(|error| error.to_string()),
                        None => Ok(()),
                    }
                }
            })
            .start()
            .unwrap();
        let mut config = Config::new(master.clone(), self.work_dir.path());
        config.containment = Containment::Walk;
        let mem = self.found_mem.get();
        config.resources = format!("cpus:4;mem:{mem}").parse().unwrap();
        config.leeway = [("mem".to_owned(), Scalar::whole(512))].into();
        config.executor_command = "/opt/meseta-executor".into();
        let agent = meseta_agent::start(&home, config).unwrap();
        (home, agent)
    }
}

pub(crate) struct World {
    machine: Machine,
    pub(crate) master: Actor,
    pub(crate) home: Node,
    pub(crate) agent: Pid,
    pub(crate) orders: Receiver<Order>,
    /// Whether the framework checkpoints.
    pub(crate) checkpoint: std::cell::Cell<bool>,
    pub(crate) next_uuid: std::cell::Cell<u8>,
}

impl std::ops::Deref for World {
    type Target = Machine;
    fn deref(&self) -> &Machine {
        &self.machine
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.home.shutdown();
        self.master.node.shutdown();
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let (clock, network) = (Clock::paused(), MemoryNetwork::new(7));
        let master = node(&network, &clock, "master").start().unwrap();
        let master = Actor::on(&master, "master");
        let (order, orders) = channel();
        let machine = Machine {
            clock,
            network,
            order,
            running: Running::default(),
            refusal: Arc::default(),
            stubborn: Arc::default(),
            sweeps: Arc::default(),
            held_sweep: Arc::default(),
            memory: Memory::default(),
            found_mem: 1024.into(),
            work_dir: Arc::new(tempfile::tempdir().unwrap()),
        };
        let (home, agent) = machine.start(0, master.probe.pid());
        machine.clock.settle();
        Self {
            machine,
            master,
            home,
            agent,
            orders,
            checkpoint: false.into(),
            next_uuid: 100.into(),
        }
    }

    /// Ends the agent without a word and starts it again. Executors have lost their connections.
    pub(crate) fn restart(&mut self) {
        self.start_again();
        self.clock.settle();
    }

    /// As [`World::restart`], until the agent sweeps, which it does until the answer is used.
    pub(crate) fn restart_sweeping(&mut self) -> oneshot::Sender<()> {
        let (over, held) = oneshot::channel();
        *self.held_sweep.lock().unwrap() = Some(held);
        self.sweeps.lock().unwrap().clear();
        self.start_again();
        wait_for("the sweep", || !self.sweeps.lock().unwrap().is_empty());
        over
    }

    fn start_again(&mut self) {
        let port = self.home.address().port;
        self.home.shutdown();
        self.clock.settle();
        (self.home, self.agent) = self.machine.start(port, self.master.probe.pid());
    }

    /// Waits until the agent has handled so many messages.
    pub(crate) fn wait_handled(&self, count: u64) {
        wait_for("the agent to hear", || {
            let all = self.home.processes();
            let agent = all.iter().find(|process| process.id == self.agent.id());
            agent.is_some_and(|agent| agent.messages_handled >= count)
        });
    }

    /// The agent is let in again. What the master has heard meanwhile.
    pub(crate) fn let_in(&self) -> Vec<Heard> {
        self.clock.advance(SECOND);
        let heard = self.master.heard();
        self.say(AgentReregistered {
            agent_id: "S0".into(),
            ..AgentReregistered::default()
        });
        heard
    }

    /// A world whose agent is in, as `S0`.
    pub(crate) fn registered() -> Self {
        let world = Self::new();
        world.clock.advance(SECOND);
        assert!(matches!(
            world.master.heard()[..],
            [Heard::RegisterAgent(_), ..]
        ));
        world.say(AgentRegistered {
            agent_id: "S0".into(),
            ..AgentRegistered::default()
        });
        world.master.heard();
        world
    }

    pub(crate) fn say<M: MasterMessage>(&self, message: M) {
        self.master.send(
            &self.agent,
            Led {
                leader_epoch: 3,
                message,
            },
        );
    }

    pub(crate) fn uuid(&self) -> UpdateId {
        self.next_uuid.set(self.next_uuid.get() + 1);
        UpdateId::from_bytes([self.next_uuid.get(); 16])
    }

    pub(crate) fn run(&self, task: TaskInfo, launch_executor: bool) {
        self.say(RunTask {
            framework_id: "f".into(),
            framework: FrameworkInfo {
                checkpoint: self.checkpoint.get(),
                ..framework()
            },
            executor: task.executor.clone(),
            task,
            launch_executor,
            launch_uuid: self.uuid(),
            resource_version_uuids: vec![],
        });
    }

    /// The master launches these together on the executor `e`.
    pub(crate) fn run_group(&self, tasks: &[&str], launch_executor: bool) {
        let tasks: Vec<TaskInfo> = tasks.iter().map(|task| custom(task)).collect();
        self.say(RunTaskGroup {
            framework_id: "f".into(),
            framework: FrameworkInfo {
                checkpoint: self.checkpoint.get(),
                ..framework()
            },
            executor: custom("any").executor.unwrap(),
            task_group: TaskGroupInfo { tasks },
            launch_executor,
            launch_uuid: self.uuid(),
            resource_version_uuids: vec![],
        });
    }

    pub(crate) fn order(&self) -> Order {
        self.clock.settle();
        self.orders.try_recv().expect("an order to the operators")
    }

    /// The container and plan of the launch that was ordered.
    pub(crate) fn launch(&self) -> (String, LaunchPlan) {
        match self.order() {
            Order::Launch(container, plan) => (container, *plan),
            other => panic!("{other:?}"),
        }
    }

    /// The executor of a container, speaking with its key.
    pub(crate) fn executor(&self, container: &str) -> Actor {
        let id = format!("executor-{container}");
        let node = Node::builder()
            .memory(&self.network)
            .clock(self.clock.clone())
            .role("executor")
            .guest_of(self.home.address().clone(), &id)
            .start()
            .unwrap();
        Actor::on(&node, &id)
    }

    /// A task with a custom executor that runs: what a master has launched, with the executor subscribed.
    pub(crate) fn running(&self) -> (String, Actor) {
        self.run(custom("t"), true);
        let (container, _) = self.launch();
        let executor = self.executor(&container);
        executor.send(&self.agent, subscribe("e"));
        executor.heard();
        (container, executor)
    }

    pub(crate) fn exit(&self, container: &str, status: i32) {
        end(&self.running, container, status, None);
        self.clock.settle();
    }

    /// State, reason and message of each update that the master has heard.
    pub(crate) fn updates(&self) -> Vec<StatusUpdate> {
        let all = self.master.heard().into_iter();
        all.filter_map(|heard| match heard {
            Heard::UpdateStatus(message) => Some(message.update),
            _ => None,
        })
        .collect()
    }

    pub(crate) fn update(&self) -> StatusUpdate {
        let mut all = self.updates();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    pub(crate) fn acknowledge(&self, update: &StatusUpdate) {
        self.say(AcknowledgeAgentStatus {
            agent_id: "S0".into(),
            framework_id: update.framework_id.clone(),
            task_id: update.status.task_id.clone(),
            uuid: update.uuid.unwrap(),
        });
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        self.clock.advance(SECOND);
        self.home.metrics().value(name).unwrap_or_default()
    }
}

/// Waits for something in real time, which goes on while that of the world stands still.
fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let clock = Clock::live();
    let began = clock.now();
    while !holds() {
        let waited = clock.now().since(began);
        assert!(waited < LIMIT, "waited {waited:?} for {what}");
        std::thread::yield_now();
    }
}

pub(crate) fn end(running: &Running, container: &str, status: i32, complaint: Option<&str>) {
    let exits = running.lock().unwrap().remove(container);
    if let Some(exits) = exits {
        exits.tell(ContainerEnded {
            container: container.to_owned(),
            status,
            complaint: complaint.map(str::to_owned),
        });
    }
}

pub(crate) fn framework() -> FrameworkInfo {
    let mut framework = FrameworkInfo::new("", "test");
    framework.id = Some("f".into());
    framework
}

pub(crate) fn command(id: &str) -> TaskInfo {
    TaskInfo::new(id, "S0", "cpus:1;mem:64".parse().unwrap(), "sleep 100")
}

pub(crate) fn custom(id: &str) -> TaskInfo {
    let mut executor = ExecutorInfo::custom(
        "e",
        CommandInfo::exec::<&str>("/bin/run", []).with_variable("A", "b"),
    );
    executor.resources = "cpus:0.5".parse().unwrap();
    TaskInfo {
        command: None,
        executor: Some(executor),
        ..command(id)
    }
}

pub(crate) fn subscribe(executor: &str) -> SubscribeExecutor {
    SubscribeExecutor {
        framework_id: "f".into(),
        executor_id: executor.into(),
        ..SubscribeExecutor::default()
    }
}

pub(crate) fn update(executor: &str, task: &str, state: TaskState, uuid: UpdateId) -> UpdateTask {
    UpdateTask {
        framework_id: "f".into(),
        executor_id: executor.into(),
        status: TaskStatus {
            uuid: Some(uuid),
            ..TaskStatus::new(task, state)
        },
    }
}

pub(crate) fn kill(task: &str) -> KillAgentTask {
    KillAgentTask {
        framework_id: "f".into(),
        task_id: task.into(),
        kill_policy: None,
    }
}

pub(crate) fn told(update: &StatusUpdate) -> (TaskState, Option<StatusReason>, &str) {
    (
        update.status.state,
        update.status.reason,
        update.status.message.as_deref().unwrap_or_default(),
    )
}

/// What an executor hears, in a few words.
pub(crate) fn words(executor: &Actor) -> Vec<String> {
    let heard = executor.heard().into_iter();
    let words = heard.filter_map(|heard| match heard {
        Heard::ExecutorSubscribed(_) => Some("subscribed".to_owned()),
        Heard::LaunchTask(launch) => Some(format!("launch {}", launch.task.task_id)),
        Heard::LaunchTaskGroup(launch) => {
            let tasks = launch.task_group.tasks.iter();
            let ids: Vec<&str> = tasks.map(|task| task.task_id.as_str()).collect();
            Some(format!("launch together {}", ids.join(" ")))
        }
        Heard::KillExecutorTask(kill) => Some(format!("kill {}", kill.task_id)),
        Heard::ShutdownExecutorNow(_) => Some("shut down".to_owned()),
        Heard::UpdateAcknowledged(ack) => Some(format!("has {}", ack.uuid.as_bytes()[0])),
        Heard::Exited(_) => None,
        other => Some(format!("{other:?}")),
    });
    words.collect()
}
