//! The agent process against a master and executors that the test plays, over the in-memory network, on a paused clock,
//! with operators that only pretend.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::large_enum_variant,
    reason = "helpers of tests fail as tests do"
)]

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use meseta_agent::checkpoint::Storage;
use meseta_agent::checkpoint::memory::Memory;
use meseta_agent::config::Containment;
use meseta_agent::containerizer::process_tree::Identity;
use meseta_agent::containerizer::{ContainerEnded, Destroy, Exits, Launch, LaunchError, Sweep};
use meseta_agent::{Config, StopAgent};
use meseta_protocol::common::CommandInfo;
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::launch::LaunchPlan;
use meseta_protocol::messages::agent::*;
use meseta_protocol::messages::executor::*;
use meseta_protocol::messages::{Led, MasterMessage};
use meseta_protocol::status::{StatusReason, StatusSource, StatusUpdate, TaskState, TaskStatus};
use meseta_protocol::task::{Task, TaskInfo};
use meseta_protocol::{FrameworkId, TaskId, UpdateId};
use meseta_runtime::testing::{Event, Observed as _, Probe, What};
use meseta_runtime::transport::memory::MemoryNetwork;
use meseta_runtime::{Clock, ExitReason, Message, Node, Pid};

const SECOND: Duration = Duration::from_secs(1);
/// What every launch starts.
const FIRST: Identity = Identity {
    process: 4711,
    started: 12,
};

macro_rules! heard {
    ($($kind:ident),* $(,)?) => {
        /// What a master or an executor may hear of the agent.
        #[derive(Debug, Clone, PartialEq)]
        enum Heard { $($kind($kind),)* Exited(Pid) }
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
    KillExecutorTask,
    UpdateAcknowledged,
    MessageToExecutor,
    ShutdownExecutorNow,
    ExecutorRefused,
);

/// A master or an executor, which the test plays, on its node.
struct Actor {
    node: Node,
    probe: Probe,
}

impl Actor {
    fn on(node: &Node, id: &str) -> Self {
        Self {
            node: node.clone(),
            probe: node.testing().probe(id).unwrap(),
        }
    }
    fn send<M: Message>(&self, to: &Pid, message: M) {
        self.probe.send(to, message);
        self.node.clock().settle();
    }
    fn heard(&self) -> Vec<Heard> {
        let all = self.probe.everything();
        all.iter().filter_map(Heard::of).collect()
    }
}

#[derive(Debug)]
enum Order {
    Launch(String, Box<LaunchPlan>),
    Destroy(String),
}

type Running = Arc<Mutex<BTreeMap<String, Exits>>>;

struct World {
    clock: Clock,
    network: MemoryNetwork,
    master: Actor,
    home: Node,
    agent: Pid,
    orders: Receiver<Order>,
    running: Running,
    refusal: Arc<Mutex<Option<LaunchError>>>,
    /// How many attempts to end a container fail from now on.
    stubborn: Arc<Mutex<usize>>,
    /// Of each sweep, whether the agent was leaving.
    sweeps: Arc<Mutex<Vec<bool>>>,
    next_uuid: std::cell::Cell<u8>,
    _work_dir: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.home.shutdown();
        self.master.node.shutdown();
    }
}

impl World {
    fn new() -> Self {
        let (clock, network) = (Clock::paused(), MemoryNetwork::new(7));
        let node = |role: &str| {
            Node::builder()
                .memory(&network)
                .clock(clock.clone())
                .seed(5)
                .role(role)
        };
        let master = Actor::on(&node("master").start().unwrap(), "master");
        let (order, orders) = channel();
        let (running, refusal) = (Running::default(), Arc::new(Mutex::new(None)));
        let (at_launch, at_destroy) = (Arc::clone(&running), Arc::clone(&running));
        let (refuse, destroyed) = (Arc::clone(&refusal), order.clone());
        let stubborn = Arc::new(Mutex::new(0));
        let resists = Arc::clone(&stubborn);
        let sweeps = Arc::new(Mutex::new(Vec::new()));
        let swept = Arc::clone(&sweeps);
        let memory = Storage::Memory(Memory::default());
        let home = memory
            .serve(node("agent"))
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
                async move { Ok(()) }
            })
            .start()
            .unwrap();
        let work_dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(master.probe.pid().clone(), work_dir.path());
        config.containment = Containment::Walk;
        config.resources = "cpus:4;mem:1024".parse().unwrap();
        config.executor_command = "/opt/meseta-executor".into();
        let agent = meseta_agent::start(&home, config).unwrap();
        clock.settle();
        Self {
            clock,
            network,
            master,
            home,
            agent,
            orders,
            running,
            refusal,
            stubborn,
            sweeps,
            next_uuid: 100.into(),
            _work_dir: work_dir,
        }
    }

    /// A world whose agent is in, as `S0`.
    fn registered() -> Self {
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

    fn say<M: MasterMessage>(&self, message: M) {
        self.master.send(
            &self.agent,
            Led {
                leader_epoch: 3,
                message,
            },
        );
    }

    fn uuid(&self) -> UpdateId {
        self.next_uuid.set(self.next_uuid.get() + 1);
        UpdateId::from_bytes([self.next_uuid.get(); 16])
    }

    fn run(&self, task: TaskInfo, launch_executor: bool) {
        self.say(RunTask {
            framework_id: "f".into(),
            framework: framework(),
            executor: task.executor.clone(),
            task,
            launch_executor,
            launch_uuid: self.uuid(),
            resource_version_uuids: vec![],
        });
    }

    fn order(&self) -> Order {
        self.clock.settle();
        self.orders.try_recv().expect("an order to the operators")
    }

    /// The container and plan of the launch that was ordered.
    fn launch(&self) -> (String, LaunchPlan) {
        match self.order() {
            Order::Launch(container, plan) => (container, *plan),
            other => panic!("{other:?}"),
        }
    }

    /// The executor of a container, speaking with its key.
    fn executor(&self, container: &str) -> Actor {
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
    fn running(&self) -> (String, Actor) {
        self.run(custom("t"), true);
        let (container, _) = self.launch();
        let executor = self.executor(&container);
        executor.send(&self.agent, subscribe("e"));
        executor.heard();
        (container, executor)
    }

    fn exit(&self, container: &str, status: i32) {
        end(&self.running, container, status, None);
        self.clock.settle();
    }

    /// State, reason and message of each update that the master has heard.
    fn updates(&self) -> Vec<StatusUpdate> {
        let all = self.master.heard().into_iter();
        all.filter_map(|heard| match heard {
            Heard::UpdateStatus(message) => Some(message.update),
            _ => None,
        })
        .collect()
    }

    fn update(&self) -> StatusUpdate {
        let mut all = self.updates();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    fn acknowledge(&self, update: &StatusUpdate) {
        self.say(AcknowledgeAgentStatus {
            agent_id: "S0".into(),
            framework_id: update.framework_id.clone(),
            task_id: update.status.task_id.clone(),
            uuid: update.uuid.unwrap(),
        });
    }

    fn metric(&self, name: &str) -> f64 {
        self.clock.advance(SECOND);
        self.home.metrics().value(name).unwrap_or_default()
    }
}

fn end(running: &Running, container: &str, status: i32, complaint: Option<&str>) {
    let exits = running.lock().unwrap().remove(container);
    if let Some(exits) = exits {
        exits.tell(ContainerEnded {
            container: container.to_owned(),
            status,
            complaint: complaint.map(str::to_owned),
        });
    }
}

fn framework() -> FrameworkInfo {
    let mut framework = FrameworkInfo::new("", "test");
    framework.id = Some("f".into());
    framework
}

fn command(id: &str) -> TaskInfo {
    TaskInfo::new(id, "S0", "cpus:1;mem:64".parse().unwrap(), "sleep 100")
}

fn custom(id: &str) -> TaskInfo {
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

fn subscribe(executor: &str) -> SubscribeExecutor {
    SubscribeExecutor {
        framework_id: "f".into(),
        executor_id: executor.into(),
        ..SubscribeExecutor::default()
    }
}

fn update(executor: &str, task: &str, state: TaskState, uuid: UpdateId) -> UpdateTask {
    UpdateTask {
        framework_id: "f".into(),
        executor_id: executor.into(),
        status: TaskStatus {
            uuid: Some(uuid),
            ..TaskStatus::new(task, state)
        },
    }
}

fn kill(task: &str) -> KillAgentTask {
    KillAgentTask {
        framework_id: "f".into(),
        task_id: task.into(),
        kill_policy: None,
    }
}

fn told(update: &StatusUpdate) -> (TaskState, Option<StatusReason>, &str) {
    (
        update.status.state,
        update.status.reason,
        update.status.message.as_deref().unwrap_or_default(),
    )
}

#[test]
fn asks_to_be_let_in_until_it_is() {
    let world = World::new();
    world.clock.advance(SECOND);
    assert_eq!(world.master.heard().len(), 1, "within one back-off factor");
    world.clock.advance(Duration::from_secs(600));
    let asked = world.master.heard();
    assert!(asked.len() >= 10, "{}", asked.len());
    for heard in asked {
        let Heard::RegisterAgent(register) = heard else {
            panic!("{heard:?}")
        };
        assert_eq!(
            (register.agent.id, register.agent.port),
            (None, world.agent.address().port)
        );
        assert_eq!(register.agent.resources.to_string(), "cpus:4; mem:1024");
    }
    world.say(AgentRegistered {
        agent_id: "S0".into(),
        ..AgentRegistered::default()
    });
    assert_eq!(world.metric("slave/registered").to_string(), "1");
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(world.master.heard(), []);
}

#[test]
fn registers_again_when_the_link_breaks_the_pings_stop_or_say_so() {
    let world = World::registered();
    let (container, _executor) = world.running();
    let again = |world: &World| {
        let heard = world.master.heard();
        let [Heard::ReregisterAgent(message), ..] = &heard[..] else {
            panic!("{heard:?}")
        };
        assert_eq!(message.agent.id.as_ref().map(|id| id.as_str()), Some("S0"));
        assert_eq!(
            (
                message.frameworks.len(),
                message.tasks.len(),
                message.executor_infos.len()
            ),
            (1, 1, 1)
        );
        assert_eq!(message.executor_infos[0].framework_id, Some("f".into()));
        world.say(AgentReregistered {
            agent_id: "S0".into(),
            ..AgentReregistered::default()
        });
        world.master.heard();
    };
    world
        .network
        .disconnect(world.master.node.address(), world.home.address());
    world.clock.advance(SECOND);
    again(&world);
    world.clock.advance(Duration::from_secs(76));
    again(&world);
    world.say(Ping { connected: true });
    assert_eq!(world.master.heard(), [Heard::Pong(Pong {})]);
    world.say(Ping { connected: false });
    assert_eq!(world.master.heard(), [Heard::Pong(Pong {})]);
    world.clock.advance(SECOND);
    again(&world);
    assert!(
        world.running.lock().unwrap().contains_key(&container),
        "nothing happens to what runs"
    );
}

#[test]
fn heeds_only_its_own_master_and_the_newest_leadership() {
    let world = World::registered();
    let other = Actor::on(&world.master.node, "other");
    other.send(
        &world.agent,
        Led {
            leader_epoch: 9,
            message: Ping { connected: true },
        },
    );
    world.master.send(
        &world.agent,
        Led {
            leader_epoch: 2,
            message: Ping { connected: true },
        },
    );
    assert_eq!((world.master.heard(), other.heard()), (vec![], vec![]));
    world.say(Ping { connected: true });
    assert_eq!(world.master.heard(), [Heard::Pong(Pong {})]);
}

#[test]
fn another_id_is_fatal() {
    let world = World::registered();
    let ended = world.home.ended(&world.agent);
    world.say(AgentReregistered {
        agent_id: "S9".into(),
        ..AgentReregistered::default()
    });
    assert_eq!(futures::executor::block_on(ended), ExitReason::Normal);
}

#[test]
fn a_command_runs_from_launch_to_the_last_acknowledgement() {
    let world = World::registered();
    world.run(command("t"), false);
    let (container, plan) = world.launch();
    assert_eq!(plan.command.program, "/opt/meseta-executor");
    let variable = |name: &str| {
        plan.environment
            .iter()
            .rfind(|v| v.name == name)
            .map(|v| v.value.clone())
    };
    assert_eq!(variable("MESOS_EXECUTOR_ID").as_deref(), Some("t"));
    assert_eq!(variable("MESOS_SLAVE_PID"), Some(world.agent.to_string()));
    assert!(plan.working_directory.ends_with(&format!(
        "/slaves/S0/frameworks/f/executors/t/runs/{container}"
    )));
    let credential = plan.credential.unwrap();
    assert_eq!(
        credential.executor_process_id,
        format!("executor-{container}")
    );
    assert!(!credential.private_key.is_empty());
    assert!(
        world.metric("slave/executors_registering") > 0.5 && world.metric("slave/cpus_used") > 1.09
    );

    let executor = world.executor(&container);
    executor.send(&world.agent, subscribe("t"));
    let heard = executor.heard();
    let [
        Heard::ExecutorSubscribed(subscribed),
        Heard::LaunchTask(launch),
    ] = &heard[..]
    else {
        panic!("{heard:?}")
    };
    assert_eq!(
        (
            subscribed.agent_id.as_str(),
            subscribed.container_id.value.as_str()
        ),
        ("S0", &*container)
    );
    assert_eq!(launch.task.task_id, TaskId::from("t"));

    let (first, second) = (world.uuid(), world.uuid());
    executor.send(&world.agent, update("t", "t", TaskState::Running, first));
    let running = world.update();
    assert_eq!(
        (running.status.source, running.latest_state),
        (Some(StatusSource::Executor), Some(TaskState::Running))
    );
    let container_status = running.status.container_status.clone().unwrap();
    assert_eq!(container_status.executor_pid, Some(4711));
    let acknowledged = |uuid| {
        Heard::UpdateAcknowledged(UpdateAcknowledged {
            task_id: "t".into(),
            uuid,
        })
    };
    assert_eq!(executor.heard(), [acknowledged(first)]);
    executor.send(&world.agent, update("t", "t", TaskState::Running, first));
    assert_eq!(
        (executor.heard(), world.updates()),
        (vec![acknowledged(first)], vec![]),
        "a repeated one"
    );
    executor.send(&world.agent, update("t", "t", TaskState::Finished, second));
    assert_eq!(
        (executor.heard(), world.updates()),
        (vec![acknowledged(second)], vec![]),
        "one in flight"
    );
    world.acknowledge(&running);
    let finished = world.update();
    assert_eq!(finished.status.state, TaskState::Finished);
    let third = world.uuid();
    executor.send(&world.agent, update("t", "t", TaskState::Failed, third));
    assert_eq!(
        (executor.heard(), world.updates()),
        (vec![acknowledged(third)], vec![]),
        "the first end wins"
    );
    world.exit(&container, 0);
    assert!(matches!(world.order(), Order::Destroy(of) if of == container));
    assert!(
        world.metric("slave/frameworks_active") > 0.5,
        "the end is not acknowledged"
    );
    world.acknowledge(&finished);
    assert!(world.metric("slave/frameworks_active") < 0.5);
    assert_eq!(
        world.master.heard(),
        [],
        "nobody is told of the end of an executor for a command"
    );
}

#[test]
fn an_update_is_sent_again_after_10_20_and_40_seconds() {
    let world = World::registered();
    let (_, executor) = world.running();
    executor.send(
        &world.agent,
        update("e", "t", TaskState::Running, world.uuid()),
    );
    assert_eq!(world.updates().len(), 1);
    for seconds in [10, 20, 40] {
        world.say(Ping { connected: true });
        world.master.heard();
        world.clock.advance(Duration::from_secs(seconds) - SECOND);
        assert_eq!(world.updates().len(), 0, "before {seconds} s");
        world.clock.advance(SECOND);
        assert_eq!(world.updates().len(), 1, "after {seconds} s");
    }
    world.say(UpdateFramework {
        framework_id: "f".into(),
        framework_info: framework(),
    });
    assert_eq!(
        world.updates().len(),
        1,
        "a framework that is back hears at once"
    );
}

#[test]
fn updates_wait_for_the_master_to_come_back() {
    let world = World::registered();
    let (_, executor) = world.running();
    world
        .network
        .disconnect(world.master.node.address(), world.home.address());
    let uuid = world.uuid();
    executor.send(&world.agent, update("e", "t", TaskState::Running, uuid));
    assert!(
        matches!(executor.heard()[..], [Heard::UpdateAcknowledged(_)]),
        "the agent has it"
    );
    world.clock.advance(SECOND);
    assert!(matches!(
        world.master.heard()[..],
        [Heard::ReregisterAgent(_), ..]
    ));
    world.say(AgentReregistered {
        agent_id: "S0".into(),
        ..AgentReregistered::default()
    });
    assert_eq!(world.update().uuid, Some(uuid));
}

#[test]
fn the_end_of_an_executor_ends_its_tasks() {
    let world = World::registered();
    let (container, executor) = world.running();
    world.run(custom("s"), false);
    assert!(matches!(executor.heard()[..], [Heard::LaunchTask(_)]));
    world.exit(&container, 256);
    let heard = world.master.heard();
    let mut tasks = Vec::new();
    for heard in &heard {
        match heard {
            Heard::UpdateStatus(message) => {
                let text = "Executor terminated: exited with status 1";
                assert_eq!(
                    told(&message.update),
                    (
                        TaskState::Failed,
                        Some(StatusReason::ExecutorTerminated),
                        text
                    )
                );
                tasks.push(message.update.clone());
            }
            Heard::ExecutorExited(exited) => {
                assert_eq!((exited.executor_id.as_str(), exited.status), ("e", 256));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((heard.len(), tasks.len()), (3, 2));
    tasks.iter().for_each(|update| world.acknowledge(update));
    assert!(world.metric("slave/frameworks_active") < 0.5);
    assert!(
        !world
            .home
            .peers()
            .iter()
            .any(|peer| peer.peer.contains("executor") && peer.connected)
    );
}

#[test]
fn an_executor_whose_link_breaks_is_given_its_grace_period() {
    let world = World::registered();
    let (container, executor) = world.running();
    executor.node.shutdown();
    world.clock.advance(Duration::from_secs(4));
    assert!(world.orders.try_recv().is_err());
    world.clock.advance(SECOND);
    assert!(matches!(world.order(), Order::Destroy(of) if of == container));
    assert_eq!(
        told(&world.update()).2,
        "Executor terminated: terminated by signal SIGKILL"
    );
}

#[test]
fn a_kill_is_answered_wherever_the_task_is() {
    let world = World::registered();
    world.say(kill("t"));
    assert_eq!(world.master.heard(), [], "nothing of the framework is here");
    // Queued, and the executor has nothing else to do.
    world.run(custom("t"), true);
    let (container, _) = world.launch();
    world.say(kill("t"));
    let update_of_queued = world.update();
    let during_launch = Some(StatusReason::TaskKilledDuringLaunch);
    assert_eq!(
        told(&update_of_queued),
        (
            TaskState::Killed,
            during_launch,
            "Killed before delivery to the executor"
        )
    );
    assert!(update_of_queued.status.container_status.is_none());
    world.clock.advance(Duration::from_secs(5));
    assert!(matches!(world.order(), Order::Destroy(of) if of == container));
    world.acknowledge(&update_of_queued);
    world.master.heard();
    // With the executor.
    let (container, executor) = world.running();
    world.say(kill("t"));
    assert!(
        matches!(&executor.heard()[..], [Heard::KillExecutorTask(kill)] if kill.task_id == "t".into())
    );
    // Nowhere, while the framework has something here.
    world.say(kill("x"));
    assert_eq!(
        told(&world.update()),
        (
            TaskState::Dropped,
            Some(StatusReason::ExecutorTerminated),
            "Cannot find executor"
        )
    );
    // With an executor that is ending.
    world.say(ShutdownAgentExecutor {
        framework_id: "f".into(),
        executor_id: "e".into(),
    });
    world.say(kill("t"));
    assert_eq!(
        executor.heard(),
        [Heard::ShutdownExecutorNow(ShutdownExecutorNow {})]
    );
    world.exit(&container, 0);
    assert_eq!(world.updates().len(), 1);
}

#[test]
fn an_executor_that_does_not_subscribe_in_time_is_ended() {
    let world = World::registered();
    world.run(command("t"), false);
    let (container, _) = world.launch();
    world.clock.advance(Duration::from_secs(59));
    world.say(Ping { connected: true });
    assert!(world.orders.try_recv().is_err());
    world.clock.advance(SECOND);
    assert!(matches!(world.order(), Order::Destroy(of) if of == container));
    let reason = Some(StatusReason::ExecutorRegistrationTimeout);
    assert_eq!(
        told(&world.update()),
        (
            TaskState::Failed,
            reason,
            "Executor did not register within 1mins"
        )
    );
}

#[test]
fn a_launch_that_fails_says_why() {
    let world = World::registered();
    let reason = Some(StatusReason::ContainerLaunchFailed);
    *world.refusal.lock().unwrap() = Some(LaunchError::Launcher("no launcher".into()));
    world.run(command("t"), false);
    assert_eq!(
        told(&world.update()),
        (
            TaskState::Failed,
            reason,
            "Failed to launch container: no launcher"
        )
    );
    assert!(world.metric("slave/container_launch_errors") > 0.5);
    world.launch();
    let path = "/box".into();
    *world.refusal.lock().unwrap() = Some(LaunchError::Sandbox {
        path,
        reason: "full".into(),
    });
    world.run(custom("s"), true);
    let heard = world.master.heard();
    let [Heard::UpdateStatus(message), Heard::ExecutorExited(exited)] = &heard[..] else {
        panic!("{heard:?}")
    };
    let text = "Failed to create executor directory '/box': full";
    assert_eq!(
        told(&message.update),
        (
            TaskState::Dropped,
            Some(StatusReason::ExecutorTerminated),
            text
        )
    );
    assert_eq!(exited.status, -1);
    world.launch();
    // The launcher itself ran and complained.
    world.run(command("u"), false);
    let (container, _) = world.launch();
    end(
        &world.running,
        &container,
        125 << 8,
        Some("no such program"),
    );
    assert_eq!(
        told(&world.update()),
        (
            TaskState::Failed,
            reason,
            "Failed to launch container: no such program"
        )
    );
}

#[test]
fn the_masters_idea_of_an_executor_must_fit() {
    let world = World::registered();
    let dropped = Some(StatusReason::ExecutorTerminated);
    world.run(custom("t"), false);
    assert_eq!(
        told(&world.update()),
        (TaskState::Dropped, dropped, "The executor is not running")
    );
    let (_, executor) = world.running();
    world.run(custom("s"), true);
    let refused = world.update();
    assert_eq!(
        (refused.status.task_id.as_str(), refused.status.state),
        ("s", TaskState::Dropped)
    );
    assert_eq!(
        executor.heard(),
        [Heard::ShutdownExecutorNow(ShutdownExecutorNow {})]
    );
    world.run(custom("u"), false);
    assert_eq!(
        told(&world.update()),
        (TaskState::Dropped, dropped, "The executor is ending")
    );
    world.run(command("e"), false);
    assert_eq!(told(&world.update()).1, Some(StatusReason::TaskInvalid));
    let elsewhere = TaskInfo {
        agent_id: "S1".into(),
        ..command("z")
    };
    world.run(elsewhere, false);
    assert_eq!(world.master.heard(), [], "for another agent");
}

#[test]
fn a_refused_launch_is_reported_and_does_not_touch_what_has_its_id() {
    let world = World::registered();
    world.run(command("t"), false);
    let (container, _) = world.launch();
    let executor = world.executor(&container);
    executor.send(&world.agent, subscribe("t"));
    world.run(command("t"), false);
    let refused = world.update();
    assert_eq!(
        told(&refused),
        (
            TaskState::Dropped,
            Some(StatusReason::TaskInvalid),
            "Cannot launch the task: one of its id is still here"
        )
    );
    assert!(world.metric("slave/tasks_staging") > 0.5, "it runs on");
    world.acknowledge(&refused);
    executor.send(
        &world.agent,
        update("t", "t", TaskState::Running, world.uuid()),
    );
    assert_eq!(world.update().status.state, TaskState::Running);
}

#[test]
fn an_id_may_be_used_again_as_soon_as_its_end_is_acknowledged() {
    let world = World::registered();
    let mut old: Vec<(String, Actor)> = Vec::new();
    for _ in 0..2 {
        world.run(command("t"), false);
        let (container, _) = world.launch();
        let executor = world.executor(&container);
        executor.send(&world.agent, subscribe("t"));
        let heard = executor.heard();
        assert!(matches!(heard[..], [_, Heard::LaunchTask(_)]), "{heard:?}");
        executor.send(
            &world.agent,
            update("t", "t", TaskState::Finished, world.uuid()),
        );
        let finished = world.update();
        assert_eq!(finished.status.state, TaskState::Finished);
        world.acknowledge(&finished);
        old.push((container, executor));
    }
    for (container, executor) in &old {
        assert!(matches!(
            executor.heard()[..],
            [Heard::UpdateAcknowledged(_)]
        ));
        world.exit(container, 0);
        assert!(matches!(world.order(), Order::Destroy(of) if of == *container));
    }
    assert!(world.metric("slave/frameworks_active") < 0.5);
    assert_eq!(world.master.heard(), []);
}

#[test]
fn a_repeated_launch_is_carried_out_once() {
    let world = World::registered();
    let run = RunTask {
        framework_id: "f".into(),
        framework: framework(),
        task: command("t"),
        launch_uuid: world.uuid(),
        ..RunTask::default()
    };
    world.say(run.clone());
    world.say(run);
    world.launch();
    assert!(world.orders.try_recv().is_err());
    assert_eq!(world.master.heard(), []);
}

#[test]
fn an_ended_framework_hears_nothing_more_but_answers() {
    let world = World::registered();
    let (container, executor) = world.running();
    world.say(ShutdownFramework {
        framework_id: "f".into(),
    });
    assert_eq!(
        executor.heard(),
        [Heard::ShutdownExecutorNow(ShutdownExecutorNow {})]
    );
    executor.send(
        &world.agent,
        update("e", "t", TaskState::Killed, world.uuid()),
    );
    assert_eq!(world.updates(), []);
    // Unless it has come back with another master: that waits for an answer.
    world.run(custom("s"), false);
    let refused = world.update();
    let (state, reason, _) = told(&refused);
    let because = Some(StatusReason::FrameworkRemoved);
    assert_eq!((state, reason), (TaskState::Dropped, because));
    world.acknowledge(&refused);
    world.clock.advance(Duration::from_secs(5));
    assert!(matches!(world.order(), Order::Destroy(of) if of == container));
    assert!(matches!(
        world.master.heard()[..],
        [Heard::ExecutorExited(_)]
    ));
    assert!(world.metric("slave/frameworks_active") < 0.5);
}

#[test]
fn nobody_speaks_for_an_executor_but_itself() {
    let world = World::registered();
    let (_, executor) = world.running();
    world.run(command("other"), false);
    let (container, _) = world.launch();
    let foreign = world.executor(&container);
    foreign.send(&world.agent, subscribe("e"));
    assert!(matches!(foreign.heard()[..], [Heard::ExecutorRefused(_)]));
    foreign.send(
        &world.agent,
        update("e", "t", TaskState::Finished, world.uuid()),
    );
    let stranger = Actor::on(&world.home, "stranger");
    stranger.send(&world.agent, subscribe("e"));
    assert!(matches!(stranger.heard()[..], [Heard::ExecutorRefused(_)]));
    assert_eq!((world.updates(), executor.heard()), (vec![], vec![]));
    let away = Actor::on(&world.master.node, "away");
    let ended = ContainerEnded {
        container,
        status: 0,
        complaint: None,
    };
    away.send(&world.agent, ended);
    away.send(&world.agent, StopAgent {});
    assert!(world.orders.try_recv().is_err());
}

#[test]
fn messages_pass_both_ways() {
    let world = World::registered();
    let (_, executor) = world.running();
    world.say(FrameworkToExecutor {
        agent_id: "S0".into(),
        framework_id: "f".into(),
        executor_id: "e".into(),
        data: b"down".to_vec().into(),
    });
    assert!(
        matches!(&executor.heard()[..], [Heard::MessageToExecutor(message)] if message.data == b"down")
    );
    let up = SendToFramework {
        framework_id: "f".into(),
        executor_id: "e".into(),
        data: b"up".to_vec().into(),
    };
    executor.send(&world.agent, up);
    assert!(
        matches!(&world.master.heard()[..], [Heard::ExecutorToFramework(message)] if message.data == b"up")
    );
}

#[test]
fn a_task_the_master_knows_and_the_agent_does_not_is_reported() {
    let world = World::registered();
    let (_, _executor) = world.running();
    let id: FrameworkId = "f".into();
    let tasks = ["t", "lost"]
        .map(|task| Task::new(&custom(task), &id, "u"))
        .to_vec();
    let reconciliations = vec![Reconciliation {
        framework_id: id,
        tasks,
    }];
    world.say(AgentReregistered {
        agent_id: "S0".into(),
        reconciliations,
        ..AgentReregistered::default()
    });
    let update = world.update();
    assert_eq!(update.status.task_id.as_str(), "lost");
    assert_eq!(
        (update.status.state, update.status.reason),
        (TaskState::Dropped, Some(StatusReason::Reconciliation))
    );
}

#[test]
fn an_agent_that_stops_leaves_nothing_behind() {
    let world = World::registered();
    let (container, executor) = world.running();
    let stopped = meseta_agent::stop(&world.home, &world.agent);
    assert!(matches!(
        world.master.heard()[..],
        [Heard::UnregisterAgent(_)]
    ));
    assert_eq!(
        executor.heard(),
        [Heard::ShutdownExecutorNow(ShutdownExecutorNow {})]
    );
    world.clock.advance(Duration::from_secs(5));
    assert!(matches!(world.order(), Order::Destroy(of) if of == container));
    assert_eq!(futures::executor::block_on(stopped), ExitReason::Normal);
    assert_eq!(*world.sweeps.lock().unwrap(), [false, true]);
}

#[test]
fn an_agent_that_leaves_tries_again_what_did_not_end() {
    let world = World::registered();
    let (container, _executor) = world.running();
    *world.stubborn.lock().unwrap() = 1;
    let stopped = meseta_agent::stop(&world.home, &world.agent);
    world.clock.advance(Duration::from_secs(5));
    for _ in 0..2 {
        assert!(matches!(world.order(), Order::Destroy(of) if of == container));
        world.clock.advance(SECOND);
    }
    assert_eq!(futures::executor::block_on(stopped), ExitReason::Normal);
    assert_eq!(*world.sweeps.lock().unwrap(), [false, true]);
}

#[test]
fn a_container_whose_end_is_not_reported_is_gone_all_the_same() {
    let world = World::registered();
    let (container, executor) = world.running();
    drop(world.running.lock().unwrap().remove(&container));
    executor.node.shutdown();
    world.clock.advance(Duration::from_secs(5));
    assert!(matches!(world.order(), Order::Destroy(of) if of == container));
    assert_eq!(world.updates(), []);
    world.clock.advance(Duration::from_secs(10));
    assert_eq!(
        told(&world.update()).2,
        "Executor terminated: ended in an unknown way"
    );
}

#[test]
fn the_master_can_end_an_agent() {
    let world = World::registered();
    let ended = world.home.ended(&world.agent);
    world.say(ShutdownAgent {
        message: "gone".into(),
    });
    assert_eq!(futures::executor::block_on(ended), ExitReason::Normal);
    assert_eq!(world.master.heard(), []);
}
