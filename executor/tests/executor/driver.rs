//! The executor driver as a guest of a scripted agent, over the in-memory network and a paused clock.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::agent::{Agent, Heard, Say};
use meseta_executor::{Executor, ExecutorEnvironment, Handle, spawn_on};
use meseta_protocol::TaskId;
use meseta_protocol::agent::AgentInfo;
use meseta_protocol::messages::executor::{ExecutorSubscribed, SubscribeExecutor};
use meseta_protocol::status::{TaskState, TaskStatus};
use meseta_protocol::task::{KillPolicy, TaskInfo};
use meseta_runtime::transport::memory::MemoryNetwork;
use meseta_runtime::transport::{Guest, Proof};
use meseta_runtime::{Clock, ExitReason, Node, Pid};

const ID: &str = "executor-c";

/// Reports RUNNING at once, from a timer a second later says something, and notes each callback.
struct Noting(Sender<String>);

impl Noting {
    fn note(&self, text: impl Into<String>) {
        self.0.send(text.into()).unwrap();
    }
}

impl Executor for Noting {
    fn registered(&mut self, _: &mut Handle<'_>, _: &ExecutorSubscribed) {
        self.note("registered");
    }
    fn reregistered(&mut self, _: &mut Handle<'_>, _: &AgentInfo) {
        self.note("reregistered");
    }
    fn disconnected(&mut self, driver: &mut Handle<'_>) {
        self.note("disconnected");
        driver.send_status(TaskStatus::new("t", TaskState::Finished));
    }
    fn launch_task(&mut self, driver: &mut Handle<'_>, task: TaskInfo) {
        self.note(format!("launch {}", task.task_id));
        driver.send_status(TaskStatus::new(task.task_id, TaskState::Running));
        driver.after(Duration::from_secs(1), |me: &mut Self, driver| {
            me.note("a second later");
            driver.send_framework_message("hello");
        });
    }
    fn kill_task(&mut self, driver: &mut Handle<'_>, id: &TaskId, _: Option<KillPolicy>) {
        self.note(format!("kill {id}"));
        let (remote, id) = (driver.remote(), id.clone());
        let thread = std::thread::spawn(move || {
            remote.send_status(TaskStatus::new(id, TaskState::Killed));
        });
        thread.join().unwrap();
    }
    fn acknowledged(&mut self, _: &mut Handle<'_>, id: &TaskId, state: TaskState) {
        self.note(format!("acknowledged {id} {state}"));
    }
    fn error(&mut self, _: &mut Handle<'_>, message: &str) {
        self.note(format!("error {message}"));
    }
    fn shutdown(&mut self, _: &mut Handle<'_>) {
        self.note("shutdown");
    }
}

struct World {
    clock: Clock,
    agent_node: Node,
    guest: Guest,
    agent: Pid,
    heard: Receiver<Heard>,
    executor_node: Node,
    executor: Pid,
    notes: Receiver<String>,
}

impl World {
    fn new(checkpoint: bool) -> Self {
        let (clock, network) = (Clock::paused(), MemoryNetwork::new(3));
        let node = || {
            Node::builder()
                .memory(&network)
                .clock(clock.clone())
                .seed(5)
        };
        let agent_node = node().role("agent").start().unwrap();
        let guest = Guest {
            id: ID.into(),
            role: "executor".into(),
            proof: Proof::Certificate([0; 32]),
        };
        let (agent, heard) = Agent::start(&agent_node, guest.clone());
        clock.settle();
        let executor_node = node()
            .guest_of(agent_node.address().clone(), ID)
            .role("executor")
            .start()
            .unwrap();
        let (noting, notes) = channel();
        let mut environment = ExecutorEnvironment::new("f", "e", "s", agent.clone());
        environment.process_id = ID.to_owned();
        environment.checkpoint = checkpoint;
        let executor = spawn_on(&executor_node, environment, || Noting(noting)).unwrap();
        clock.settle();
        Self {
            clock,
            agent_node,
            guest,
            agent,
            heard,
            executor_node,
            executor,
            notes,
        }
    }
    fn say(&self, say: Say) {
        self.agent_node.send(&self.agent, say);
        self.clock.settle();
    }
    fn notes(&self) -> Vec<String> {
        self.notes.try_iter().collect()
    }
    fn subscriptions(&self) -> Vec<SubscribeExecutor> {
        let only = |heard| match heard {
            Heard::Subscribe(message) => Some(message),
            Heard::Update(_) | Heard::Message(_) | Heard::Gone => None,
        };
        self.heard.try_iter().filter_map(only).collect()
    }
    fn updates(&self) -> Vec<TaskStatus> {
        let only = |heard| match heard {
            Heard::Update(message) => Some(message.status),
            Heard::Subscribe(_) | Heard::Message(_) | Heard::Gone => None,
        };
        self.heard.try_iter().filter_map(only).collect()
    }
    fn launch(&self) {
        self.say(Say::Subscribed);
        self.say(Say::Launch(Box::new(TaskInfo {
            task_id: "t".into(),
            ..TaskInfo::default()
        })));
    }
    fn end(self) {
        self.executor_node.shutdown();
        self.agent_node.shutdown();
    }
}

#[test]
fn subscribes_until_answered_then_serves_in_order() {
    let world = World::new(false);
    world.clock.advance(Duration::from_millis(2500));
    assert_eq!(world.subscriptions().len(), 3);
    world.launch();
    world.say(Say::Kill("t".into(), None));
    assert_eq!(world.notes(), ["registered", "launch t", "kill t"]);
    let updates = world.updates();
    let states: Vec<TaskState> = updates.iter().map(|status| status.state).collect();
    assert_eq!(states, [TaskState::Running, TaskState::Killed]);
    world.say(Say::Acknowledge("t".into(), updates[0].uuid.unwrap()));
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(
        world.notes(),
        ["acknowledged t TASK_RUNNING", "a second later"]
    );
    let heard: Vec<Heard> = world.heard.try_iter().collect();
    assert!(matches!(&heard[..], [Heard::Message(message)] if message.data == "hello"));
    world.end();
}

#[test]
fn what_the_agent_never_acknowledged_is_said_again_when_it_is_back() {
    let mut world = World::new(true);
    world.launch();
    let sent = world.updates();
    world.agent_node.terminate(&world.agent);
    world.clock.settle();
    assert_eq!(world.notes(), ["registered", "launch t", "disconnected"]);
    world.clock.advance(Duration::from_secs(10));
    (world.agent, world.heard) = Agent::start(&world.agent_node, world.guest.clone());
    world.clock.advance(Duration::from_secs(2));
    let subscriptions = world.subscriptions();
    let again = subscriptions.last().unwrap();
    assert_eq!(again.unacknowledged_tasks.len(), 1);
    let updates = &again.unacknowledged_updates;
    let states: Vec<TaskState> = updates.iter().map(|update| update.status.state).collect();
    assert_eq!(states, [TaskState::Running, TaskState::Finished]);
    assert_eq!(updates[0].uuid, sent[0].uuid);
    world.say(Say::Subscribed);
    assert_eq!(world.notes(), ["a second later", "reregistered"]);
    assert_eq!(world.updates(), []);
    world.end();
}

#[test]
fn an_agent_that_stays_away_means_shutdown_and_the_guard_ends_the_driver() {
    for (checkpoint, wait) in [
        (true, Duration::from_secs(15 * 60)),
        (false, Duration::ZERO),
    ] {
        let world = World::new(checkpoint);
        world.launch();
        let ended = world.executor_node.ended(&world.executor);
        world.notes();
        world.agent_node.terminate(&world.agent);
        world.clock.advance(wait);
        let notes = world.notes();
        assert_eq!(
            notes.last().map(String::as_str),
            Some("shutdown"),
            "{notes:?}"
        );
        world.clock.advance(Duration::from_secs(5));
        assert!(world.executor_node.processes().is_empty());
        assert_eq!(futures::executor::block_on(ended), ExitReason::Normal);
        world.end();
    }
}

#[test]
fn an_executor_that_is_refused_hears_why_and_shuts_down() {
    let world = World::new(true);
    world.say(Say::Refuse("unknown executor".into()));
    assert_eq!(world.notes(), ["error unknown executor", "shutdown"]);
    world.end();
}

#[test]
fn only_the_agent_itself_is_obeyed() {
    let world = World::new(true);
    // Comes from the agent's node, whose certificate has the right role, but not from the agent.
    world
        .agent_node
        .send(&world.executor, ExecutorSubscribed::default());
    world.clock.settle();
    assert_eq!(world.notes(), Vec::<String>::new());
    world.end();
}
