//! What a framework implements, and what it may ask of its driver.

use std::any::Any;
use std::time::Duration;

use meseta_protocol::agent::MasterInfo;
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::messages::scheduler::{ResourceRequest, TaskQuestion};
use meseta_protocol::offer::{Filters, Offer};
use meseta_protocol::operation::Operation;
use meseta_protocol::status::TaskStatus;
use meseta_protocol::task::{KillPolicy, TaskInfo};
use meseta_protocol::{AgentId, ExecutorId, FrameworkId, OfferId, Role, TaskId};
use meseta_runtime::{Context, Message, OWN_NODE, Outside, Pid, Time};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::driver::Driver;

/// What decides for a framework. All callbacks come on one thread, one after another, and must not block: work that
/// takes long goes to a thread with a [`Remote`].
///
/// Offers, status updates and messages come only between `registered` or `reregistered` and `disconnected`.
pub trait Scheduler: Any + Send {
    /// Subscribed for the first time with this driver. Keep the id: a later driver that has it in its
    /// `FrameworkInfo` takes the framework over.
    fn registered(&mut self, _driver: &mut Handle<'_>, _id: &FrameworkId, _master: &MasterInfo) {}

    /// Subscribed again, perhaps with another master. What was known of tasks may be old: reconcile.
    fn reregistered(&mut self, _driver: &mut Handle<'_>, _master: &MasterInfo) {}

    /// The master is lost; the driver looks for it. All offers are void.
    fn disconnected(&mut self, _driver: &mut Handle<'_>) {}

    /// Resources to use: accept or decline each offer.
    fn resource_offers(&mut self, driver: &mut Handle<'_>, offers: Vec<Offer>);

    /// An offer is void.
    fn offer_rescinded(&mut self, _driver: &mut Handle<'_>, _offer: &OfferId) {}

    /// A task's state. Acknowledged when this returns, unless acknowledgements are explicit; may come more than
    /// once.
    fn status_update(&mut self, driver: &mut Handle<'_>, status: &TaskStatus);

    /// An executor says something; such messages may be lost.
    fn framework_message(
        &mut self,
        _driver: &mut Handle<'_>,
        _agent: &AgentId,
        _executor: &ExecutorId,
        _data: &[u8],
    ) {
    }

    /// An agent is gone; its tasks are reported on one by one.
    fn agent_lost(&mut self, _driver: &mut Handle<'_>, _agent: &AgentId) {}

    /// An executor has ended with this wait status; its tasks are reported on one by one.
    fn executor_lost(
        &mut self,
        _driver: &mut Handle<'_>,
        _agent: &AgentId,
        _executor: &ExecutorId,
        _status: i32,
    ) {
    }

    /// The framework cannot go on; the driver has aborted and ends after this.
    fn error(&mut self, _driver: &mut Handle<'_>, message: &str) {
        tracing::error!(message, "the framework cannot go on");
    }
}

/// What may be asked of a driver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Do this with these offers.
    Accept(Vec<OfferId>, Vec<Operation>, Filters),
    /// Do nothing with these offers.
    Decline(Vec<OfferId>, Filters),
    /// Offer again.
    Revive(Vec<Role>),
    /// Offer no more.
    Suppress(Vec<Role>),
    /// Stop a task.
    Kill(TaskId, Option<AgentId>, Option<KillPolicy>),
    /// Stop an executor.
    ShutdownExecutor(AgentId, ExecutorId),
    /// An update has been dealt with.
    Acknowledge(Box<TaskStatus>),
    /// Say how these tasks are.
    Reconcile(Vec<TaskQuestion>),
    /// Say something to an executor.
    Say(AgentId, ExecutorId, ByteBuf),
    /// These would be welcome.
    RequestResources(Vec<ResourceRequest>),
    /// End; the framework too unless another driver is to take over.
    Stop {
        /// Whether another driver is to take over.
        failover: bool,
    },
    /// End and leave everything as it is.
    Abort,
}

/// A request that comes from the program's own threads.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) request: Request,
}

impl Message for Order {
    const NAME: &'static str = "meseta.scheduler.Order";
    const SENDERS: &'static [&'static str] = OWN_NODE;
}

type Act = Box<dyn FnOnce(&mut Context<'_, Driver>)>;

/// What a callback wants, in its order.
pub(crate) enum Wish {
    Request(Request),
    Act(Act),
}

/// The driver as a callback sees it. Requests are carried out in order when the callback has returned, before the
/// next one.
pub struct Handle<'a> {
    pub(crate) wishes: &'a mut Vec<Wish>,
    pub(crate) remote: &'a Remote,
    pub(crate) framework_id: Option<&'a FrameworkId>,
    pub(crate) now: Time,
}

impl Handle<'_> {
    /// The framework's id; none before the first subscription.
    pub fn framework_id(&self) -> Option<&FrameworkId> {
        self.framework_id
    }

    /// A handle for other threads.
    pub fn remote(&self) -> Remote {
        self.remote.clone()
    }

    /// Time at the beginning of the turn.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Calls `k` after `delay` with the scheduler, which must be an `S`; also while there is no subscription, but not
    /// once the driver has ended.
    pub fn after<S: Scheduler>(
        &mut self,
        delay: Duration,
        k: impl FnOnce(&mut S, &mut Handle<'_>) + 'static,
    ) {
        self.wishes.push(Wish::Act(Box::new(move |cx| {
            cx.after(delay, move |driver, cx| driver.resume(cx, k));
        })));
    }

    fn request(&mut self, request: Request) {
        self.wishes.push(Wish::Request(request));
    }
}

/// The driver as other threads see it. What they ask for comes after the callback that runs now.
#[derive(Debug, Clone)]
pub struct Remote {
    pub(crate) outside: Outside,
    pub(crate) driver: Pid,
}

impl Remote {
    fn request(&self, request: Request) {
        self.outside.send(&self.driver, Order { request });
    }
}

macro_rules! requests {
    ($name:ty, $receiver:ty) => {
        /// Requests need a subscription: without one, tasks to be launched are reported lost at once, what is
        /// suppressed or revived goes into the next subscription, and everything else has no effect.
        impl $name {
            /// Launches tasks on the resources of these offers, all of one agent.
            pub fn launch_tasks(
                self: $receiver,
                offers: Vec<OfferId>,
                tasks: Vec<TaskInfo>,
                filters: Filters,
            ) {
                self.accept_offers(offers, vec![Operation::launch(tasks)], filters);
            }

            /// Launches these tasks together, all or none, on an executor of the framework's own (type CUSTOM, with at
            /// least 0.01 cpus, 32 MiB of memory and some disk), which gets them with one callback. A task of the group
            /// that is refused has all of them reported `TASK_ERROR`, reason `TASK_GROUP_INVALID`. The executor need not
            /// name its framework, nor the tasks their executor.
            pub fn launch_group(
                self: $receiver,
                offers: Vec<OfferId>,
                executor: ExecutorInfo,
                tasks: Vec<TaskInfo>,
                filters: Filters,
            ) {
                let group = Operation::launch_group(executor, tasks);
                self.accept_offers(offers, vec![group], filters);
            }

            /// Does this with these offers, all of one agent, and declines what is left.
            pub fn accept_offers(
                self: $receiver,
                offers: Vec<OfferId>,
                operations: Vec<Operation>,
                filters: Filters,
            ) {
                self.request(Request::Accept(offers, operations, filters));
            }

            /// Does nothing with an offer; `filters` says how long not to offer the same again.
            pub fn decline_offer(self: $receiver, offer: OfferId, filters: Filters) {
                self.request(Request::Decline(vec![offer], filters));
            }

            /// Forgets filters and suppression for these roles, or for all when none is named.
            pub fn revive_offers(self: $receiver, roles: Vec<Role>) {
                self.request(Request::Revive(roles));
            }

            /// No offers are wanted for these roles, or for any when none is named, until revived.
            pub fn suppress_offers(self: $receiver, roles: Vec<Role>) {
                self.request(Request::Suppress(roles));
            }

            /// Stops a task, as `policy` says or else as the task does. Repeat it until the task has ended.
            pub fn kill_task(self: $receiver, task: TaskId, policy: Option<KillPolicy>) {
                self.request(Request::Kill(task, None, policy));
            }

            /// As `kill_task`, on a known agent.
            pub fn kill_task_on(
                self: $receiver,
                agent: AgentId,
                task: TaskId,
                policy: Option<KillPolicy>,
            ) {
                self.request(Request::Kill(task, Some(agent), policy));
            }

            /// Ends an executor with its tasks.
            pub fn shutdown_executor(self: $receiver, agent: AgentId, executor: ExecutorId) {
                self.request(Request::ShutdownExecutor(agent, executor));
            }

            /// Says that an update has been dealt with; only needed when acknowledgements are explicit.
            pub fn acknowledge(self: $receiver, status: &TaskStatus) {
                self.request(Request::Acknowledge(Box::new(status.clone())));
            }

            /// Asks how these tasks are, or all when none is named. Status updates answer.
            pub fn reconcile_tasks(self: $receiver, tasks: Vec<TaskQuestion>) {
                self.request(Request::Reconcile(tasks));
            }

            /// Says something to an executor; it may be lost.
            pub fn send_framework_message(
                self: $receiver,
                agent: AgentId,
                executor: ExecutorId,
                data: impl Into<Vec<u8>>,
            ) {
                let data = ByteBuf::from(data.into());
                self.request(Request::Say(agent, executor, data));
            }

            /// Says what would be welcome. Masters count it and do nothing.
            pub fn request_resources(self: $receiver, requests: Vec<ResourceRequest>) {
                self.request(Request::RequestResources(requests));
            }

            /// Ends the driver. With `failover` the framework lives on for its fail-over timeout, to be taken over;
            /// without, it ends with all its tasks and executors.
            pub fn stop(self: $receiver, failover: bool) {
                self.request(Request::Stop { failover });
            }

            /// Ends the framework with all its tasks and executors, and the driver.
            pub fn teardown(self: $receiver) {
                self.stop(false);
            }

            /// Ends the driver at once and leaves everything else as it is; offers stop.
            pub fn abort(self: $receiver) {
                self.request(Request::Abort);
            }
        }
    };
}

requests!(Handle<'_>, &mut Self);
requests!(Remote, &Self);
