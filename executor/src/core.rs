//! The executor's side of the conversation with its agent.
//!
//! Pure: time, timers and messages are inputs and effects; the shell is `driver.rs`. Source: Mesos
//! `src/executor/executor.cpp`, `src/exec/exec.cpp`.
//!
//! ```text
//!                  ExecutorSubscribed              agent lost, checkpoint
//! SUBSCRIBING -------------------------> SUBSCRIBED --------------------> DISCONNECTED
//!  | every 1 s      ^                      ^   |                            | random(0, max / 10),
//!  |                |                      |   |                            | then every random(0, max)
//!  |                |                      +---|----- ExecutorSubscribed ---+
//!  |                |                          |                            |
//!  +--- refused, shutdown, agent lost without checkpoint, recovery timeout -+--> SHUTTING DOWN --> ENDED
//! ```
//!
//! Invariant: every update handed in stays in `updates`, in order, until the agent acknowledges it, and every task
//! stays in `tasks` until its first acknowledgement; each `SubscribeExecutor` carries both.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meseta_protocol::agent::AgentInfo;
use meseta_protocol::messages::executor::{
    ExecutorSubscribed, SendToFramework, SubscribeExecutor, UpdateTask,
};
use meseta_protocol::status::{StatusSource, StatusUpdate, TaskState, TaskStatus};
use meseta_protocol::task::{KillPolicy, TaskGroupInfo, TaskInfo};
use meseta_protocol::{AgentId, ExecutorId, FrameworkId, TaskId, UpdateId};
use rand::{Rng, RngExt};
use serde_bytes::ByteBuf;

use crate::outstanding::Outstanding;

/// Time between two attempts to subscribe for the first time.
pub const SUBSCRIBE_INTERVAL: Duration = Duration::from_secs(1);

/// The first attempt to come back comes within this part of the longest time between two of them: agents are away for
/// moments. It is spread all the same, so that the executors of one agent do not come all at once.
const FIRST_RETURN: u32 = 10;

/// What the machine is told at its start.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Its framework.
    pub framework_id: FrameworkId,
    /// The executor.
    pub executor_id: ExecutorId,
    /// The agent.
    pub agent_id: AgentId,
    /// Whether to wait for an agent that is lost.
    pub checkpoint: bool,
    /// How long to wait for it.
    pub recovery_timeout: Duration,
    /// Longest time between two attempts to come back.
    pub subscription_backoff_max: Duration,
    /// How long a shutdown may take.
    pub shutdown_grace_period: Duration,
}

/// A pending timer. Each holds a number by which one that is out of date is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// Time to subscribe once more.
    Retry(u64),
    /// The agent has been away too long.
    Recovery(u64),
}

/// What happens to the machine.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The driver runs.
    Started,
    /// The agent took the subscription.
    Subscribed(Box<ExecutorSubscribed>),
    /// The agent or the connection to it is gone.
    AgentLost,
    /// The agent wants a task started.
    Launch(Box<TaskInfo>),
    /// The agent wants tasks started together.
    LaunchGroup(Box<TaskGroupInfo>),
    /// The agent wants a task stopped.
    Kill(TaskId, Option<KillPolicy>),
    /// The agent has an update.
    Acknowledged(TaskId, UpdateId),
    /// The framework says something.
    Message(ByteBuf),
    /// The agent wants the executor to end.
    Shutdown,
    /// The agent does not know the executor.
    Refused(String),
    /// The executor reports on a task, at this time since the Unix epoch.
    Report(Box<TaskStatus>, Duration),
    /// The executor says something to the framework.
    Say(ByteBuf),
    /// The executor has done its work.
    Stop,
    /// A timer ran out.
    Due(Timer),
}

/// What the executor is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Callback {
    /// Subscribed for the first time.
    Registered(Box<ExecutorSubscribed>),
    /// Subscribed again.
    Reregistered(Box<AgentInfo>),
    /// The agent is lost.
    Disconnected,
    /// Start a task.
    LaunchTask(Box<TaskInfo>),
    /// Start tasks together.
    LaunchTaskGroup(Box<TaskGroupInfo>),
    /// Stop a task.
    KillTask(TaskId, Option<KillPolicy>),
    /// An update in this state is safe with the agent.
    Acknowledged(TaskId, TaskState),
    /// From the framework.
    FrameworkMessage(ByteBuf),
    /// End.
    Shutdown,
    /// Something went wrong for good.
    Error(String),
}

/// What has to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Link to the agent.
    Link,
    /// Send to the agent.
    Subscribe(Box<SubscribeExecutor>),
    /// Send to the agent.
    Update(Box<UpdateTask>),
    /// Send to the agent.
    Say(SendToFramework),
    /// Tell the executor.
    Call(Callback),
    /// Deliver [`Input::Due`] later.
    Arm(Timer, Duration),
    /// End everything by force if the executor has not ended after this time.
    Guard(Duration),
    /// End the driver.
    Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Subscribing,
    Subscribed,
    Disconnected,
    ShuttingDown,
    Ended,
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Core {
    settings: Settings,
    phase: Phase,
    /// Whether the agent can be spoken to; also counts while shutting down.
    connected: bool,
    registered: bool,
    tasks: BTreeMap<TaskId, TaskInfo>,
    /// Tasks that were begun and whose end is not acknowledged: a launch of one that comes again, perhaps over an earlier
    /// connection, is the same launch.
    begun: BTreeSet<TaskId>,
    updates: Outstanding,
    /// Number of the latest timer.
    timers: u64,
    retry: u64,
    recovery: u64,
}

impl Core {
    /// A machine that has not started.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            phase: Phase::Subscribing,
            connected: false,
            registered: false,
            tasks: BTreeMap::new(),
            begun: BTreeSet::new(),
            updates: Outstanding::default(),
            timers: 0,
            retry: 0,
            recovery: 0,
        }
    }

    /// Applies one input. Effects are carried out in order; what a callback asks for comes before those after it.
    pub fn step<R: Rng>(&mut self, random: &mut R, input: Input) -> Vec<Effect> {
        if self.phase == Phase::Ended {
            return Vec::new();
        }
        match input {
            Input::Started => self.subscribe(SUBSCRIBE_INTERVAL),
            Input::Subscribed(message) => self.subscribed(message),
            Input::AgentLost => self.agent_lost(random),
            Input::Launch(task) => self.launch(task),
            Input::LaunchGroup(group) => self.launch_group(group),
            Input::Kill(task_id, policy) => {
                self.if_subscribed(|| Callback::KillTask(task_id, policy))
            }
            Input::Acknowledged(task_id, uuid) => self.acknowledged(task_id, uuid),
            Input::Message(data) => self.if_subscribed(|| Callback::FrameworkMessage(data)),
            Input::Shutdown => self.shut_down(),
            Input::Refused(message) => self.refused(message),
            Input::Report(status, wall) => self.report(random, *status, wall),
            Input::Say(data) => self.say(data),
            Input::Stop => {
                self.phase = Phase::Ended;
                vec![Effect::Stop]
            }
            Input::Due(timer) => self.due(random, timer),
        }
    }

    /// Whether the agent has ever taken this executor in.
    pub fn was_registered(&self) -> bool {
        self.registered
    }

    /// Tasks without and updates without an acknowledgement.
    pub fn unacknowledged(&self) -> (usize, usize) {
        (self.tasks.len(), self.updates.len())
    }

    fn if_subscribed(&self, callback: impl FnOnce() -> Callback) -> Vec<Effect> {
        match self.phase {
            Phase::Subscribed => vec![Effect::Call(callback())],
            Phase::Subscribing | Phase::Disconnected | Phase::ShuttingDown | Phase::Ended => {
                Vec::new()
            }
        }
    }

    fn next_timer(&mut self) -> u64 {
        self.timers += 1;
        self.timers
    }

    fn arm_retry(&mut self, delay: Duration) -> Effect {
        self.retry = self.next_timer();
        Effect::Arm(Timer::Retry(self.retry), delay)
    }

    fn subscribe(&mut self, next_attempt: Duration) -> Vec<Effect> {
        // It carries all of them, those of an earlier attempt too.
        self.updates.lost();
        let updates = self.updates.send().cloned().collect();
        let message = SubscribeExecutor {
            framework_id: self.settings.framework_id.clone(),
            executor_id: self.settings.executor_id.clone(),
            unacknowledged_updates: updates,
            unacknowledged_tasks: self.tasks.values().cloned().collect(),
        };
        vec![
            Effect::Link,
            Effect::Subscribe(Box::new(message)),
            self.arm_retry(next_attempt),
        ]
    }

    fn subscribed(&mut self, message: Box<ExecutorSubscribed>) -> Vec<Effect> {
        match self.phase {
            Phase::Subscribing | Phase::Disconnected => {}
            // The answer to an attempt whose predecessor had been heard after all.
            Phase::Subscribed | Phase::ShuttingDown | Phase::Ended => return Vec::new(),
        }
        self.phase = Phase::Subscribed;
        self.connected = true;
        self.settings.agent_id = message.agent_id.clone();
        // Updates made since the subscription was sent.
        let mut effects = Vec::new();
        for update in self.updates.send() {
            effects.push(Effect::Update(Box::new(UpdateTask {
                framework_id: self.settings.framework_id.clone(),
                executor_id: self.settings.executor_id.clone(),
                status: update.status.clone(),
            })));
        }
        effects.push(Effect::Call(if self.registered {
            Callback::Reregistered(Box::new(message.agent_info))
        } else {
            Callback::Registered(message)
        }));
        self.registered = true;
        effects
    }

    fn agent_lost<R: Rng>(&mut self, random: &mut R) -> Vec<Effect> {
        self.connected = false;
        self.updates.lost();
        let was_subscribed = match self.phase {
            Phase::Subscribed => true,
            Phase::Subscribing => false,
            Phase::Disconnected | Phase::ShuttingDown | Phase::Ended => return Vec::new(),
        };
        let mut effects = Vec::new();
        if was_subscribed {
            effects.push(Effect::Call(Callback::Disconnected));
        }
        if !self.settings.checkpoint {
            effects.extend(self.shut_down());
            return effects;
        }
        self.phase = Phase::Disconnected;
        self.recovery = self.next_timer();
        effects.push(Effect::Arm(
            Timer::Recovery(self.recovery),
            self.settings.recovery_timeout,
        ));
        // The transport goes on dialling by itself, and delivers this attempt as soon as the agent is there.
        let delay = self.backoff(random) / FIRST_RETURN;
        effects.push(self.arm_retry(delay));
        effects
    }

    fn backoff<R: Rng>(&self, random: &mut R) -> Duration {
        self.settings
            .subscription_backoff_max
            .mul_f64(random.random::<f64>())
    }

    fn due<R: Rng>(&mut self, random: &mut R, timer: Timer) -> Vec<Effect> {
        match (timer, self.phase) {
            (Timer::Retry(number), Phase::Subscribing) if number == self.retry => {
                self.subscribe(SUBSCRIBE_INTERVAL)
            }
            (Timer::Retry(number), Phase::Disconnected) if number == self.retry => {
                let next = self.backoff(random);
                self.subscribe(next)
            }
            (Timer::Recovery(number), Phase::Disconnected) if number == self.recovery => {
                self.shut_down()
            }
            (Timer::Retry(_) | Timer::Recovery(_), _) => Vec::new(),
        }
    }

    fn launch(&mut self, task: Box<TaskInfo>) -> Vec<Effect> {
        // A task still here was launched already: the agent repeats what may have been lost.
        if self.phase != Phase::Subscribed || !self.begun.insert(task.task_id.clone()) {
            return Vec::new();
        }
        self.tasks.insert(task.task_id.clone(), (*task).clone());
        vec![Effect::Call(Callback::LaunchTask(task))]
    }

    fn launch_group(&mut self, group: Box<TaskGroupInfo>) -> Vec<Effect> {
        // Of one that is here already all of it is: it came with one message.
        let known = |task: &TaskInfo| self.begun.contains(&task.task_id);
        if self.phase != Phase::Subscribed || group.tasks.iter().any(known) {
            return Vec::new();
        }
        for task in &group.tasks {
            self.begun.insert(task.task_id.clone());
            self.tasks.insert(task.task_id.clone(), task.clone());
        }
        vec![Effect::Call(Callback::LaunchTaskGroup(group))]
    }

    fn acknowledged(&mut self, task_id: TaskId, uuid: UpdateId) -> Vec<Effect> {
        let Some(update) = self.updates.take(uuid) else {
            return Vec::new();
        };
        let state = update.status.state;
        self.tasks.remove(&task_id);
        if state.is_terminal() {
            self.begun.remove(&task_id);
        }
        vec![Effect::Call(Callback::Acknowledged(task_id, state))]
    }

    fn report<R: Rng>(
        &mut self,
        random: &mut R,
        mut status: TaskStatus,
        wall: Duration,
    ) -> Vec<Effect> {
        let uuid = UpdateId::from_random_bytes(random.random());
        let timestamp = *status.timestamp.get_or_insert(wall.as_secs_f64());
        status.uuid = Some(uuid);
        status.source = Some(StatusSource::Executor);
        status.agent_id = Some(self.settings.agent_id.clone());
        status.executor_id = Some(self.settings.executor_id.clone());
        let update = StatusUpdate {
            framework_id: self.settings.framework_id.clone(),
            executor_id: Some(self.settings.executor_id.clone()),
            agent_id: Some(self.settings.agent_id.clone()),
            status: status.clone(),
            timestamp,
            uuid: Some(uuid),
            latest_state: None,
        };
        self.updates.push(uuid, update, self.connected);
        if !self.connected {
            return Vec::new();
        }
        vec![Effect::Update(Box::new(UpdateTask {
            framework_id: self.settings.framework_id.clone(),
            executor_id: self.settings.executor_id.clone(),
            status,
        }))]
    }

    fn say(&self, data: ByteBuf) -> Vec<Effect> {
        if !self.connected {
            return Vec::new();
        }
        vec![Effect::Say(SendToFramework {
            framework_id: self.settings.framework_id.clone(),
            executor_id: self.settings.executor_id.clone(),
            data,
        })]
    }

    fn refused(&mut self, message: String) -> Vec<Effect> {
        if self.phase == Phase::ShuttingDown {
            return Vec::new();
        }
        let mut effects = vec![Effect::Call(Callback::Error(message))];
        effects.extend(self.shut_down());
        effects
    }

    fn shut_down(&mut self) -> Vec<Effect> {
        if self.phase == Phase::ShuttingDown {
            return Vec::new();
        }
        self.phase = Phase::ShuttingDown;
        vec![
            Effect::Guard(self.settings.shutdown_grace_period),
            Effect::Call(Callback::Shutdown),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    struct Machine {
        core: Core,
        random: StdRng,
    }

    fn machine(checkpoint: bool) -> Machine {
        Machine {
            core: Core::new(Settings {
                framework_id: "f".into(),
                executor_id: "e".into(),
                agent_id: "s".into(),
                checkpoint,
                recovery_timeout: Duration::from_secs(900),
                subscription_backoff_max: Duration::from_secs(2),
                shutdown_grace_period: Duration::from_secs(5),
            }),
            random: StdRng::seed_from_u64(1),
        }
    }

    impl Machine {
        fn step(&mut self, input: Input) -> Vec<Effect> {
            self.core.step(&mut self.random, input)
        }
        fn subscribed(mut self) -> Self {
            self.step(Input::Started);
            let effects = self.step(answer());
            assert!(matches!(
                &effects[..],
                [Effect::Call(Callback::Registered(_))]
            ));
            self
        }
        fn report(&mut self, task: &str, state: TaskState) -> Vec<Effect> {
            let status = Box::new(TaskStatus::new(task, state));
            self.step(Input::Report(status, Duration::from_secs(7)))
        }
        fn retry(&mut self) -> Vec<Effect> {
            self.step(Input::Due(Timer::Retry(self.core.retry)))
        }
    }

    fn answer() -> Input {
        Input::Subscribed(Box::new(ExecutorSubscribed {
            agent_id: "s".into(),
            ..ExecutorSubscribed::default()
        }))
    }

    fn task(id: &str) -> Input {
        Input::Launch(Box::new(TaskInfo {
            task_id: id.into(),
            ..TaskInfo::default()
        }))
    }

    fn sent(effects: &[Effect]) -> &TaskStatus {
        match effects {
            [Effect::Update(update)] => &update.status,
            other => panic!("not one update: {other:?}"),
        }
    }

    fn subscription(effects: &[Effect]) -> (&SubscribeExecutor, Duration) {
        match effects {
            [
                Effect::Link,
                Effect::Subscribe(message),
                Effect::Arm(Timer::Retry(_), delay),
            ] => (message, *delay),
            other => panic!("not a subscription: {other:?}"),
        }
    }

    fn shutdown() -> Vec<Effect> {
        vec![
            Effect::Guard(Duration::from_secs(5)),
            Effect::Call(Callback::Shutdown),
        ]
    }

    #[test]
    fn subscribes_every_second_until_answered_once() {
        let mut m = machine(false);
        assert_eq!(subscription(&m.step(Input::Started)).1, SUBSCRIBE_INTERVAL);
        assert_eq!(
            m.step(Input::Due(Timer::Retry(0))),
            [],
            "a timer out of date"
        );
        assert_eq!(subscription(&m.retry()).1, SUBSCRIBE_INTERVAL);
        assert!(matches!(
            &m.step(answer())[..],
            [Effect::Call(Callback::Registered(_))]
        ));
        assert_eq!(m.retry(), []);
        assert_eq!(m.step(answer()), [], "the answer to the second attempt");
    }

    #[test]
    fn an_update_is_completed_sent_and_kept_until_acknowledged() {
        let mut m = machine(false).subscribed();
        assert_eq!(m.step(task("t")).len(), 1);
        let effects = m.report("t", TaskState::Running);
        let status = sent(&effects);
        assert_eq!(status.source, Some(StatusSource::Executor));
        assert_eq!(status.agent_id, Some("s".into()));
        assert_eq!(status.executor_id, Some("e".into()));
        assert_eq!(status.timestamp, Some(7.0));
        let uuid = status.uuid.unwrap();
        assert_eq!(m.core.unacknowledged(), (1, 1));
        assert_eq!(
            m.step(Input::Acknowledged("t".into(), uuid)),
            [Effect::Call(Callback::Acknowledged(
                "t".into(),
                TaskState::Running
            ))]
        );
        assert_eq!(m.core.unacknowledged(), (0, 0));
        assert_eq!(m.step(Input::Acknowledged("t".into(), uuid)), []);
    }

    #[test]
    fn a_launch_repeated_before_its_acknowledgement_is_one_launch() {
        let mut m = machine(false).subscribed();
        assert_eq!(m.step(task("t")).len(), 1);
        assert_eq!(m.step(task("t")), []);
        let effects = m.report("t", TaskState::Finished);
        let uuid = sent(&effects).uuid.unwrap();
        m.step(Input::Acknowledged("t".into(), uuid));
        assert_eq!(
            m.step(task("t")).len(),
            1,
            "an id may be used again after its end"
        );
    }

    #[test]
    fn a_group_comes_with_one_callback_and_a_repeated_one_is_the_same_launch() {
        let group = || {
            let tasks = ["t", "u"].map(|id| TaskInfo {
                task_id: id.into(),
                ..TaskInfo::default()
            });
            Box::new(TaskGroupInfo {
                tasks: tasks.to_vec(),
            })
        };
        let mut m = machine(true).subscribed();
        let called = [Effect::Call(Callback::LaunchTaskGroup(group()))];
        assert_eq!(m.step(Input::LaunchGroup(group())), called);
        assert_eq!(m.step(Input::LaunchGroup(group())), []);
        m.step(Input::AgentLost);
        let effects = m.retry();
        let tasks = &subscription(&effects).0.unacknowledged_tasks;
        assert_eq!(*tasks, group().tasks);
        m.step(answer());
        assert_eq!(m.step(Input::LaunchGroup(group())), []);
    }

    #[test]
    fn what_is_unacknowledged_goes_into_the_next_subscription_in_order() {
        let mut m = machine(true).subscribed();
        m.step(task("t"));
        m.report("t", TaskState::Starting);
        let lost = m.step(Input::AgentLost);
        assert!(
            matches!(
                &lost[..],
                [
                    Effect::Call(Callback::Disconnected),
                    Effect::Arm(Timer::Recovery(_), _),
                    Effect::Arm(Timer::Retry(_), delay)
                ] if *delay <= Duration::from_millis(200)
            ),
            "{lost:?}"
        );
        assert_eq!(m.report("t", TaskState::Running), []);
        let effects = m.retry();
        let (message, delay) = subscription(&effects);
        assert!(delay <= Duration::from_secs(2));
        assert_eq!(message.unacknowledged_tasks.len(), 1);
        let states: Vec<TaskState> = message
            .unacknowledged_updates
            .iter()
            .map(|update| update.status.state)
            .collect();
        assert_eq!(states, [TaskState::Starting, TaskState::Running]);
        // Made after the subscription left, so it goes by itself.
        assert_eq!(m.report("t", TaskState::Finished), []);
        let effects = m.step(answer());
        assert!(
            matches!(
                &effects[..],
                [Effect::Update(update), Effect::Call(Callback::Reregistered(_))]
                    if update.status.state == TaskState::Finished
            ),
            "{effects:?}"
        );
    }

    #[test]
    fn without_checkpoint_the_loss_of_the_agent_is_the_end() {
        let mut m = machine(false).subscribed();
        let mut expected = vec![Effect::Call(Callback::Disconnected)];
        expected.extend(shutdown());
        assert_eq!(m.step(Input::AgentLost), expected);
        assert_eq!(m.report("t", TaskState::Killed), []);
        assert_eq!(m.step(Input::Stop), [Effect::Stop]);
        assert_eq!(m.step(Input::Started), []);
        let mut never_subscribed = machine(false);
        never_subscribed.step(Input::Started);
        assert_eq!(never_subscribed.step(Input::AgentLost), shutdown());
    }

    #[test]
    fn with_checkpoint_the_recovery_timeout_is_the_end_unless_it_is_of_an_earlier_loss() {
        let mut m = machine(true).subscribed();
        m.step(Input::AgentLost);
        let old = Input::Due(Timer::Recovery(m.core.recovery));
        m.retry();
        m.step(answer());
        m.step(Input::AgentLost);
        assert_eq!(m.step(old), []);
        assert_eq!(m.step(Input::AgentLost), []);
        assert_eq!(
            m.step(Input::Due(Timer::Recovery(m.core.recovery))),
            shutdown()
        );
        assert_eq!(m.retry(), []);
    }

    #[test]
    fn a_refusal_is_an_error_and_the_end() {
        let mut m = machine(true).subscribed();
        let mut expected = vec![Effect::Call(Callback::Error("who?".into()))];
        expected.extend(shutdown());
        assert_eq!(m.step(Input::Refused("who?".into())), expected);
        assert_eq!(m.step(Input::Refused("who?".into())), []);
        assert_eq!(m.step(Input::Shutdown), []);
    }

    #[test]
    fn while_shutting_down_updates_still_leave_but_nothing_new_is_begun() {
        let mut m = machine(true).subscribed();
        assert_eq!(m.step(Input::Shutdown), shutdown());
        assert_eq!(m.step(task("t")), []);
        assert_eq!(m.step(Input::Kill("t".into(), None)), []);
        assert_eq!(m.step(Input::Message(ByteBuf::from("x"))), []);
        assert_eq!(
            sent(&m.report("t", TaskState::Killed)).state,
            TaskState::Killed
        );
        assert_eq!(m.step(Input::AgentLost), []);
        assert_eq!(m.report("t", TaskState::Killed), []);
    }

    #[test]
    fn messages_are_passed_on_only_while_subscribed() {
        let mut m = machine(true);
        m.step(Input::Started);
        assert_eq!(m.step(Input::Kill("t".into(), None)), []);
        assert_eq!(m.step(Input::Say(ByteBuf::from("x"))), []);
        let mut m = machine(true).subscribed();
        assert_eq!(
            m.step(Input::Kill("t".into(), None)),
            [Effect::Call(Callback::KillTask("t".into(), None))]
        );
        let said = m.step(Input::Say(ByteBuf::from("x")));
        assert!(matches!(&said[..], [Effect::Say(message)] if message.data == "x"));
    }
}
