//! The executor driver: the process that speaks for an executor with its agent.
//!
//! It owns the [`Executor`] and a [`Core`], links to the agent and talks to nobody else. It takes the agent's
//! messages and, from the program's own threads, `Order`s sent through a [`Remote`]. Whatever a callback asks for is
//! collected in its [`Handle`] and carried out when the callback has returned, before anything else.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use meseta_protocol::TaskId;
use meseta_protocol::agent::AgentInfo;
use meseta_protocol::messages::executor::{
    ExecutorRefused, ExecutorSubscribed, KillExecutorTask, LaunchTask, LaunchTaskGroup,
    MessageToExecutor, ShutdownExecutorNow, UpdateAcknowledged,
};
use meseta_protocol::status::{TaskState, TaskStatus};
use meseta_protocol::task::{KillPolicy, TaskGroupInfo, TaskInfo};
use meseta_runtime::{
    Context, ExitReason, Gate, Message, Node, OWN_NODE, Op, Outside, Pid, Process, Receive, Routes,
    SpawnError, Time,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tracing::{debug, error, info, warn};

use crate::core::{Callback, Core, Effect, Input, Settings};
use crate::environment::{ExecutorEnvironment, Guard};
use crate::process_tree;

/// What runs a framework's tasks. All callbacks come on one thread, one after another, and must not block: work that
/// takes long goes to a thread with a [`Remote`].
///
/// Every launched task must be reported on until it ends: an update is kept and sent again until the agent has it.
pub trait Executor: Any {
    /// The agent knows the executor. Comes once, before any task.
    fn registered(&mut self, _driver: &mut Handle<'_>, _registration: &ExecutorSubscribed) {}

    /// The agent was restarted or could not be reached for a while, and is back.
    fn reregistered(&mut self, _driver: &mut Handle<'_>, _agent: &AgentInfo) {}

    /// The agent is lost. With a framework that checkpoints the driver looks for it, else a shutdown follows.
    fn disconnected(&mut self, _driver: &mut Handle<'_>) {}

    /// Start this task.
    fn launch_task(&mut self, driver: &mut Handle<'_>, task: TaskInfo);

    /// Start these tasks, which belong together: the framework wants all of them or none. They come in one callback,
    /// whole, in their order. Unless overridden they are handed on to [`launch_task`](Self::launch_task) one by one.
    fn launch_task_group(&mut self, driver: &mut Handle<'_>, group: TaskGroupInfo) {
        for task in group.tasks {
            self.launch_task(driver, task);
        }
    }

    /// Stop this task, as `kill_policy` says or else as the task does.
    fn kill_task(
        &mut self,
        _driver: &mut Handle<'_>,
        _task_id: &TaskId,
        _kill_policy: Option<KillPolicy>,
    ) {
    }

    /// An update is safe with the agent.
    fn acknowledged(&mut self, _driver: &mut Handle<'_>, _task_id: &TaskId, _state: TaskState) {}

    /// The framework says something; such messages may be lost.
    fn framework_message(&mut self, _driver: &mut Handle<'_>, _data: &[u8]) {}

    /// Stop all tasks, report their end, then call [`Handle::stop`]. What is not done within the grace period is
    /// ended by force. Unless overridden the driver stops at once.
    fn shutdown(&mut self, driver: &mut Handle<'_>) {
        driver.stop();
    }

    /// The executor cannot go on; a shutdown follows.
    fn error(&mut self, _driver: &mut Handle<'_>, message: &str) {
        error!(message, "the agent refuses this executor");
    }
}

/// What an executor may ask of its driver, also from another thread.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Request {
    Status(Box<TaskStatus>),
    Say(ByteBuf),
    Stop,
}

/// A request that comes from the program's own threads.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    request: Request,
}

impl Message for Order {
    const NAME: &'static str = "meseta.executor.Order";
    const SENDERS: &'static [&'static str] = OWN_NODE;
}

type Act = Box<dyn FnOnce(&mut Context<'_, ExecutorDriver>)>;

enum Wish {
    Request(Request),
    Act(Act),
}

/// The driver as a callback sees it. Requests are carried out in order when the callback has returned.
pub struct Handle<'a> {
    wishes: &'a mut Vec<Wish>,
    remote: &'a Remote,
    environment: &'a ExecutorEnvironment,
    now: Time,
}

impl Handle<'_> {
    /// Reports on a task. Source, agent, executor, uuid and, when missing, the timestamp are filled in.
    pub fn send_status(&mut self, status: TaskStatus) {
        self.request(Request::Status(Box::new(status)));
    }

    /// Says something to the framework; it may be lost.
    pub fn send_framework_message(&mut self, data: impl Into<Vec<u8>>) {
        self.request(Request::Say(ByteBuf::from(data.into())));
    }

    /// Ends the driver. Updates without an acknowledgement are not sent again.
    pub fn stop(&mut self) {
        self.request(Request::Stop);
    }

    /// A handle for other threads.
    pub fn remote(&self) -> Remote {
        self.remote.clone()
    }

    /// What the agent said at the start.
    pub fn environment(&self) -> &ExecutorEnvironment {
        self.environment
    }

    /// Time at the beginning of the turn.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Calls `k` after `delay` with the executor, which must be an `E`.
    pub fn after<E: Executor>(
        &mut self,
        delay: Duration,
        k: impl FnOnce(&mut E, &mut Handle<'_>) + 'static,
    ) {
        self.wishes.push(Wish::Act(Box::new(move |cx| {
            cx.after(delay, move |driver, cx| driver.resume(cx, k));
        })));
    }

    /// Has an operation carried out by the node and calls `k` with the executor, which must be an `E`, and with the
    /// outcome.
    pub fn run<E: Executor, O: Op>(
        &mut self,
        op: O,
        k: impl FnOnce(&mut E, &mut Handle<'_>, O::Out) + 'static,
    ) {
        self.wishes.push(Wish::Act(Box::new(move |cx| {
            cx.run(op, Gate::Interleave, move |driver, cx, out| {
                driver.resume(cx, move |executor: &mut E, handle| k(executor, handle, out));
            });
        })));
    }

    fn request(&mut self, request: Request) {
        self.wishes.push(Wish::Request(request));
    }
}

/// The driver as other threads see it. What they ask for comes after the callback that runs now.
#[derive(Debug, Clone)]
pub struct Remote {
    outside: Outside,
    driver: Pid,
}

impl Remote {
    /// As [`Handle::send_status`].
    pub fn send_status(&self, status: TaskStatus) {
        self.order(Request::Status(Box::new(status)));
    }

    /// As [`Handle::send_framework_message`].
    pub fn send_framework_message(&self, data: impl Into<Vec<u8>>) {
        self.order(Request::Say(ByteBuf::from(data.into())));
    }

    /// As [`Handle::stop`].
    pub fn stop(&self) {
        self.order(Request::Stop);
    }

    fn order(&self, request: Request) {
        self.outside.send(&self.driver, Order { request });
    }
}

/// The process.
pub struct ExecutorDriver {
    environment: ExecutorEnvironment,
    core: Core,
    executor: Box<dyn Executor>,
    /// Whether the agent has ever taken it in, for who waits for the end.
    registered: Arc<AtomicBool>,
}

/// Starts the driver of an executor on a node: a guest of the agent's node, or, on an in-memory network, any node
/// with the role `executor`. `build` runs on the node's thread.
///
/// # Errors
/// [`SpawnError`] when the node has a process of this name, or the name cannot be one.
pub fn spawn_on<E: Executor>(
    node: &Node,
    environment: ExecutorEnvironment,
    build: impl FnOnce() -> E + Send + 'static,
) -> Result<Pid, SpawnError> {
    spawn_watched(node, environment, build, Arc::default())
}

/// As [`spawn_on`]; `registered` becomes true when the agent takes the executor in.
pub(crate) fn spawn_watched<E: Executor>(
    node: &Node,
    environment: ExecutorEnvironment,
    build: impl FnOnce() -> E + Send + 'static,
    registered: Arc<AtomicBool>,
) -> Result<Pid, SpawnError> {
    let id = environment.process_id.clone();
    node.spawn(&id, move || ExecutorDriver {
        registered,
        ..ExecutorDriver::new(environment, Box::new(build()))
    })
}

impl ExecutorDriver {
    /// The driver of an executor, for a host that is no [`Node`], such as a simulated one. It must run under the id
    /// `environment.process_id`.
    pub fn new(environment: ExecutorEnvironment, executor: Box<dyn Executor>) -> Self {
        Self {
            core: Core::new(Settings {
                framework_id: environment.framework_id.clone(),
                executor_id: environment.executor_id.clone(),
                agent_id: environment.agent_id.clone(),
                checkpoint: environment.checkpoint,
                recovery_timeout: environment.recovery_timeout,
                subscription_backoff_max: environment.subscription_backoff_max,
                shutdown_grace_period: environment.shutdown_grace_period,
            }),
            environment,
            executor,
            registered: Arc::default(),
        }
    }

    /// The conversation with the agent, to look at.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The executor, if it is an `E`.
    pub fn executor<E: Executor>(&self) -> Option<&E> {
        let executor: &dyn Any = self.executor.as_ref();
        executor.downcast_ref()
    }
}

impl Process for ExecutorDriver {
    fn routes(routes: &mut Routes<Self>) {
        routes
            .on::<ExecutorSubscribed>()
            .on::<LaunchTask>()
            .on::<LaunchTaskGroup>()
            .on::<KillExecutorTask>()
            .on::<UpdateAcknowledged>()
            .on::<MessageToExecutor>()
            .on::<ShutdownExecutorNow>()
            .on::<ExecutorRefused>()
            .on::<Order>();
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        self.apply(cx, Input::Started);
    }

    fn exited(&mut self, cx: &mut Context<'_, Self>, pid: &Pid, reason: ExitReason) {
        if *pid == self.environment.agent {
            info!(agent = %pid, ?reason, "agent lost");
            self.apply(cx, Input::AgentLost);
        }
    }
}

macro_rules! from_agent {
    ($( $message:ident => |$content:ident| $input:expr; )*) => { $(
        impl Receive<$message> for ExecutorDriver {
            fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, $content: $message) {
                if *from == self.environment.agent {
                    self.apply(cx, $input);
                } else {
                    warn!(%from, message = $message::NAME, "ignored: it is not from the executor's agent");
                }
            }
        }
    )* };
}

from_agent! {
    ExecutorSubscribed => |message| Input::Subscribed(Box::new(message));
    LaunchTask => |message| Input::Launch(Box::new(message.task));
    LaunchTaskGroup => |message| Input::LaunchGroup(Box::new(message.task_group));
    KillExecutorTask => |message| Input::Kill(message.task_id, message.kill_policy);
    UpdateAcknowledged => |message| Input::Acknowledged(message.task_id, message.uuid);
    MessageToExecutor => |message| Input::Message(message.data);
    ShutdownExecutorNow => |_message| Input::Shutdown;
    ExecutorRefused => |message| Input::Refused(message.message);
}

impl Receive<Order> for ExecutorDriver {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _from: &Pid, order: Order) {
        self.carry_out(cx, vec![Wish::Request(order.request)]);
    }
}

impl ExecutorDriver {
    fn apply(&mut self, cx: &mut Context<'_, Self>, input: Input) {
        let effects = self.core.step(cx.random(), input);
        if self.core.was_registered() {
            self.registered.store(true, Ordering::Relaxed);
        }
        self.perform(cx, effects.into());
    }

    /// Continues the executor after a delay or an operation.
    fn resume<E: Executor>(
        &mut self,
        cx: &mut Context<'_, Self>,
        k: impl FnOnce(&mut E, &mut Handle<'_>),
    ) {
        let mut wishes = Vec::new();
        let mut handle = Handle {
            wishes: &mut wishes,
            remote: &remote(cx),
            environment: &self.environment,
            now: cx.now(),
        };
        let executor: &mut dyn Any = self.executor.as_mut();
        match executor.downcast_mut::<E>() {
            Some(executor) => k(executor, &mut handle),
            None => error!(
                named = std::any::type_name::<E>(),
                "the executor is of another type than its continuation names"
            ),
        }
        self.carry_out(cx, wishes);
    }

    fn carry_out(&mut self, cx: &mut Context<'_, Self>, wishes: Vec<Wish>) {
        let effects = self.granted(cx, wishes);
        self.perform(cx, effects.into());
    }

    fn granted(&mut self, cx: &mut Context<'_, Self>, wishes: Vec<Wish>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for wish in wishes {
            let input = match wish {
                Wish::Act(act) => {
                    act(cx);
                    continue;
                }
                Wish::Request(Request::Status(status)) => Input::Report(status, cx.wall()),
                Wish::Request(Request::Say(data)) => Input::Say(data),
                Wish::Request(Request::Stop) => Input::Stop,
            };
            effects.extend(self.core.step(cx.random(), input));
        }
        effects
    }

    fn perform(&mut self, cx: &mut Context<'_, Self>, mut effects: VecDeque<Effect>) {
        while let Some(effect) = effects.pop_front() {
            let agent = &self.environment.agent;
            match effect {
                Effect::Link => cx.link(agent),
                Effect::Subscribe(message) => cx.send(agent, *message),
                Effect::Update(message) => cx.send(agent, *message),
                Effect::Say(message) => cx.send(agent, message),
                Effect::Arm(timer, delay) => {
                    cx.after(delay, move |driver, cx| driver.apply(cx, Input::Due(timer)));
                }
                Effect::Guard(delay) => self.guard(cx, delay),
                Effect::Call(callback) => {
                    let wishes = self.call(cx, callback);
                    for effect in self.granted(cx, wishes).into_iter().rev() {
                        effects.push_front(effect);
                    }
                }
                Effect::Stop => {
                    let (tasks, updates) = self.core.unacknowledged();
                    debug!(tasks, updates, "executor driver stops");
                    cx.stop();
                }
            }
        }
    }

    fn guard(&self, cx: &mut Context<'_, Self>, delay: Duration) {
        match self.environment.guard {
            Guard::KillProcessTree => process_tree::kill_self_after(delay),
            Guard::StopDriver => {
                cx.after(delay, |driver, cx| driver.apply(cx, Input::Stop));
            }
        }
    }

    fn call(&mut self, cx: &Context<'_, Self>, callback: Callback) -> Vec<Wish> {
        let mut wishes = Vec::new();
        let driver = &mut Handle {
            wishes: &mut wishes,
            remote: &remote(cx),
            environment: &self.environment,
            now: cx.now(),
        };
        let executor = &mut self.executor;
        match callback {
            Callback::Registered(registration) => executor.registered(driver, &registration),
            Callback::Reregistered(agent) => executor.reregistered(driver, &agent),
            Callback::Disconnected => executor.disconnected(driver),
            Callback::LaunchTask(task) => executor.launch_task(driver, *task),
            Callback::LaunchTaskGroup(group) => executor.launch_task_group(driver, *group),
            Callback::KillTask(task_id, policy) => executor.kill_task(driver, &task_id, policy),
            Callback::Acknowledged(task_id, state) => {
                executor.acknowledged(driver, &task_id, state);
            }
            Callback::FrameworkMessage(data) => executor.framework_message(driver, &data),
            Callback::Shutdown => executor.shutdown(driver),
            Callback::Error(message) => executor.error(driver, &message),
        }
        wishes
    }
}

fn remote(cx: &Context<'_, ExecutorDriver>) -> Remote {
    Remote {
        outside: cx.outside(),
        driver: cx.me().clone(),
    }
}
