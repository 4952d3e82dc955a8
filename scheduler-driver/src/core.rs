//! The scheduler's side of the conversation with the master.
//!
//! Pure: the shell is `driver.rs`. Source: Mesos `src/sched/sched.cpp`.
//!
//! ```text
//! DETECTING --master found--> SUBSCRIBING --FrameworkSubscribed--> SUBSCRIBED
//!     ^                        ^  | again after random(0, b),         |
//!     | no master known        |  | b from 1 s doubling to 15 s       | master lost
//!     +------------------------+--+--------- DISCONNECTED <-----------+
//! all of them --error, stop, abort--> ENDED
//! ```
//!
//! Every message of a master passes `admit`, the one place where the number of its leadership is compared: one older
//! than the newest seen or detected is dropped, a newer one becomes the newest. Besides, only the followed master is heard, and
//! before a subscription only its answer to that.

use std::collections::BTreeSet;
use std::time::Duration;

use meseta_protocol::agent::MasterInfo;
use meseta_protocol::framework::{FrameworkCapability, FrameworkInfo, OfferConstraints};
use meseta_protocol::messages::scheduler::{
    AcceptOffers, AcknowledgeStatus, AgentLost, DeactivateFramework, DeclineOffers, ExecutorLost,
    ExecutorMessage, FrameworkError, FrameworkMessage, FrameworkSubscribed, KillTask,
    OfferRescinded, ReconcileTasks, RequestResources, ResourceOffers, ReviveOffers,
    ShutdownExecutor, StatusUpdated, SubscribeFramework, SuppressOffers, TeardownFramework,
};
use meseta_protocol::offer::Offer;
use meseta_protocol::operation::{Operation, OperationAction};
use meseta_protocol::status::{StatusReason, StatusSource, TaskState, TaskStatus};
use meseta_protocol::task::TaskInfo;
use meseta_protocol::{FrameworkId, OfferId, Role};
use meseta_runtime::detector::Followed;
use meseta_runtime::{Backoff, Pid};
use rand::Rng;

use crate::scheduler::Request;
pub use crate::to_master::ToMaster;
use crate::to_master::name_framework;

/// Longest first delay before the next attempt to subscribe.
pub const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// Longest delay between two attempts.
pub const MOST_BACKOFF: Duration = Duration::from_secs(15);

/// The one error that does not end the driver: the master has lost the framework's scheduler, and hears something
/// that was still on its way from before the break. The text is the master's (`Master::speaks_for`).
pub const FRAMEWORK_DISCONNECTED: &str = "Framework disconnected";

/// What the machine is told at its start.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The framework; with an id when an earlier driver's framework is taken over.
    pub framework: FrameworkInfo,
    /// Roles that want no offers: at first these, then as asked for. Each subscription tells the master the set.
    pub suppressed_roles: Vec<Role>,
    /// Which agents are wanted.
    pub offer_constraints: Option<OfferConstraints>,
    /// Whether the scheduler acknowledges updates itself.
    pub explicit_acknowledgements: bool,
}

/// What a master says once the framework is known.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// The answer to a subscription.
    Subscribed(Box<FrameworkSubscribed>),
    /// Resources to use.
    Offers(ResourceOffers),
    /// An offer is void.
    Rescinded(OfferRescinded),
    /// A task's state.
    Status(Box<StatusUpdated>),
    /// From an executor.
    Message(ExecutorMessage),
    /// An agent is gone.
    AgentLost(AgentLost),
    /// An executor has ended.
    ExecutorLost(ExecutorLost),
    /// The framework cannot go on.
    Error(FrameworkError),
}

macro_rules! news {
    ($( $message:ident => |$content:ident| $news:expr; )*) => { $(
        impl From<$message> for News {
            fn from($content: $message) -> Self {
                $news
            }
        }
    )* };
}

news! {
    FrameworkSubscribed => |message| News::Subscribed(Box::new(message));
    ResourceOffers => |message| News::Offers(message);
    OfferRescinded => |message| News::Rescinded(message);
    StatusUpdated => |message| News::Status(Box::new(message));
    ExecutorMessage => |message| News::Message(message);
    AgentLost => |message| News::AgentLost(message);
    ExecutorLost => |message| News::ExecutorLost(message);
    FrameworkError => |message| News::Error(message);
}

/// What happens to the machine.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// This master leads, or none is known.
    Detected(Followed),
    /// A linked master or the connection to it is gone.
    Lost(Pid),
    /// A master speaks.
    Heard {
        /// Who.
        from: Pid,
        /// The number of its leadership.
        epoch: u64,
        /// What it says.
        news: News,
    },
    /// The scheduler, or another thread of its program, asks for something; the time since the Unix epoch.
    Asked(Request, Duration),
    /// The retry timer with this number ran out.
    RetryDue(u64),
}

/// What the scheduler is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Callback {
    /// Subscribed for the first time.
    Registered(FrameworkId, Box<MasterInfo>),
    /// Subscribed again.
    Reregistered(Box<MasterInfo>),
    /// The master is lost.
    Disconnected,
    /// Resources to use.
    Offers(Vec<Offer>),
    /// An offer is void.
    Rescinded(OfferId),
    /// A task's state.
    Status(Box<TaskStatus>),
    /// From an executor.
    Message(ExecutorMessage),
    /// An agent is gone.
    AgentLost(AgentLost),
    /// An executor has ended.
    ExecutorLost(ExecutorLost),
    /// The framework cannot go on.
    Error(String),
}

/// What has to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Link to this master.
    Link(Pid),
    /// No longer.
    Unlink(Pid),
    /// Send to the followed master.
    Send(ToMaster),
    /// Tell the scheduler. What it asks for comes before the effects after this.
    Call(Callback),
    /// Give [`Input::RetryDue`] with this number later.
    Arm(u64, Duration),
    /// End the driver, as it was asked.
    Stop,
    /// End the driver because it cannot go on, or was told to break off.
    Abort(Option<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Detecting,
    Subscribing,
    Subscribed,
    Disconnected,
    Ended,
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Core {
    settings: Settings,
    phase: Phase,
    master: Option<Pid>,
    /// What was detected last.
    followed: Followed,
    /// Newest leadership heard of.
    epoch: u64,
    /// Whether this driver has subscribed before.
    registered: bool,
    /// The suppressed roles as the master knows them from the last attempt to subscribe.
    told: BTreeSet<Role>,
    backoff: Backoff,
    retry: u64,
}

impl Core {
    /// A machine that knows no master.
    pub fn new(mut settings: Settings) -> Self {
        // An empty id is no id.
        settings.framework.id = settings.framework.id.filter(|id| !id.is_empty());
        Self {
            settings,
            phase: Phase::Detecting,
            master: None,
            followed: Followed::default(),
            epoch: 0,
            registered: false,
            told: BTreeSet::new(),
            backoff: Backoff::new(FIRST_BACKOFF, MOST_BACKOFF),
            retry: 0,
        }
    }

    /// The framework's id, once it has one.
    pub fn framework_id(&self) -> Option<&FrameworkId> {
        self.settings.framework.id.as_ref()
    }

    /// Whether the master has taken the subscription, and nothing has ended it since.
    pub fn is_subscribed(&self) -> bool {
        self.phase == Phase::Subscribed
    }

    /// Whether the driver has ended.
    pub fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// The followed master.
    pub fn master(&self) -> Option<&Pid> {
        self.master.as_ref()
    }

    /// Newest leadership heard of.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Applies one input. Effects are carried out in order.
    pub fn step<R: Rng>(&mut self, random: &mut R, input: Input) -> Vec<Effect> {
        if self.phase == Phase::Ended {
            return Vec::new();
        }
        match input {
            Input::Detected(followed) => self.detected(random, followed),
            Input::Lost(pid) => self.lost(random, &pid),
            Input::Heard { from, epoch, news } => {
                if self.admit(&from, epoch) {
                    self.heard(random, news)
                } else {
                    Vec::new()
                }
            }
            Input::Asked(request, wall) => self.asked(request, wall),
            Input::RetryDue(number) => match self.phase {
                Phase::Subscribing | Phase::Disconnected if number == self.retry => {
                    self.subscribe(random)
                }
                Phase::Subscribing
                | Phase::Disconnected
                | Phase::Detecting
                | Phase::Subscribed
                | Phase::Ended => Vec::new(),
            },
        }
    }

    /// Whether a message may be heard; see the head of this file.
    fn admit(&mut self, from: &Pid, epoch: u64) -> bool {
        if self.master.as_ref() != Some(from) || epoch < self.epoch {
            return false;
        }
        self.epoch = epoch;
        true
    }

    fn detected<R: Rng>(&mut self, random: &mut R, followed: Followed) -> Vec<Effect> {
        // The same master under a later leadership knows nothing of this subscription.
        if followed == self.followed || followed.epoch < self.epoch {
            return Vec::new();
        }
        self.epoch = followed.epoch;
        let master = followed.leader.clone();
        self.followed = followed;
        let mut effects: Vec<Effect> = self.master.take().map(Effect::Unlink).into_iter().collect();
        if self.phase == Phase::Subscribed {
            effects.push(Effect::Call(Callback::Disconnected));
        }
        self.phase = Phase::Detecting;
        self.master = master;
        self.backoff.reset();
        match self.master {
            None => {}
            Some(_) if self.registered => {
                // All frameworks of the cluster come at this moment: each after a wait of its own.
                self.phase = Phase::Disconnected;
                effects.push(self.arm(random));
            }
            Some(_) => effects.extend(self.subscribe(random)),
        }
        effects
    }

    fn subscribe<R: Rng>(&mut self, random: &mut R) -> Vec<Effect> {
        let Some(master) = self.master.clone() else {
            return Vec::new();
        };
        self.phase = Phase::Subscribing;
        self.told = self.suppressed();
        let message = SubscribeFramework {
            framework: self.settings.framework.clone(),
            suppressed_roles: self.settings.suppressed_roles.clone(),
            // A driver that begins with an id takes over; one that comes back must not push out its successor.
            force: !self.registered && self.settings.framework.id.is_some(),
            offer_constraints: self.settings.offer_constraints.clone(),
        };
        vec![Effect::Link(master), message.into(), self.arm(random)]
    }

    fn arm<R: Rng>(&mut self, random: &mut R) -> Effect {
        self.retry += 1;
        Effect::Arm(self.retry, self.backoff.next(random))
    }

    fn lost<R: Rng>(&mut self, random: &mut R, pid: &Pid) -> Vec<Effect> {
        if self.master.as_ref() != Some(pid) || self.phase != Phase::Subscribed {
            // While subscribing the retry timer runs already.
            return Vec::new();
        }
        self.disconnected(random)
    }

    fn disconnected<R: Rng>(&mut self, random: &mut R) -> Vec<Effect> {
        self.phase = Phase::Disconnected;
        vec![Effect::Call(Callback::Disconnected), self.arm(random)]
    }

    fn heard<R: Rng>(&mut self, random: &mut R, news: News) -> Vec<Effect> {
        match (news, self.phase) {
            (News::Subscribed(message), Phase::Subscribing) => self.subscribed(*message),
            (News::Error(error), phase) if error.message == FRAMEWORK_DISCONNECTED => {
                if phase == Phase::Subscribed {
                    self.disconnected(random)
                } else {
                    // It is about what was sent before the attempt that is under way.
                    Vec::new()
                }
            }
            (News::Error(error), _) => {
                self.phase = Phase::Ended;
                let message = error.message;
                vec![
                    Effect::Call(Callback::Error(message.clone())),
                    Effect::Abort(Some(message)),
                ]
            }
            (news, Phase::Subscribed) => self.passed_on(news),
            // Late words to a subscription that is no more.
            (_, Phase::Detecting | Phase::Subscribing | Phase::Disconnected | Phase::Ended) => {
                Vec::new()
            }
        }
    }

    fn subscribed(&mut self, message: FrameworkSubscribed) -> Vec<Effect> {
        self.phase = Phase::Subscribed;
        self.backoff.reset();
        let id = message.framework_id;
        self.settings.framework.id = Some(id.clone());
        let master = Box::new(message.master_info);
        let again = std::mem::replace(&mut self.registered, true);
        let mut effects = self.suppressed_meanwhile(&id);
        effects.push(Effect::Call(if again {
            Callback::Reregistered(master)
        } else {
            Callback::Registered(id, master)
        }));
        effects
    }

    /// What the scheduler asked for while the subscription was on its way, which therefore does not say it.
    fn suppressed_meanwhile(&self, framework_id: &FrameworkId) -> Vec<Effect> {
        let now = self.suppressed();
        let more: Vec<Role> = now.difference(&self.told).cloned().collect();
        let less: Vec<Role> = self.told.difference(&now).cloned().collect();
        // No role at all would mean every role.
        let suppress = (!more.is_empty()).then(|| SuppressOffers {
            framework_id: framework_id.clone(),
            roles: more,
        });
        let revive = (!less.is_empty()).then(|| ReviveOffers {
            framework_id: framework_id.clone(),
            roles: less,
        });
        let suppress = suppress.map(Effect::from);
        suppress
            .into_iter()
            .chain(revive.map(Effect::from))
            .collect()
    }

    fn suppressed(&self) -> BTreeSet<Role> {
        self.settings.suppressed_roles.iter().cloned().collect()
    }

    /// Keeps the set of suppressed roles as the master does: no role means all, and a request with a role that the
    /// framework is not in changes nothing.
    fn remember(&mut self, request: &Request) {
        let (named, suppress) = match request {
            Request::Suppress(roles) => (roles, true),
            Request::Revive(roles) => (roles, false),
            Request::Accept(..)
            | Request::Decline(..)
            | Request::Kill(..)
            | Request::ShutdownExecutor(..)
            | Request::Acknowledge(_)
            | Request::Reconcile(_)
            | Request::Say(..)
            | Request::RequestResources(_)
            | Request::Stop { .. }
            | Request::Abort => return,
        };
        let own = self.settings.framework.effective_roles();
        if !named.iter().all(|role| own.contains(role)) {
            return;
        }
        let named = if named.is_empty() {
            own
        } else {
            named.iter().cloned().collect()
        };
        let mut suppressed = self.suppressed();
        if suppress {
            suppressed.extend(named);
        } else {
            suppressed.retain(|role| !named.contains(role));
        }
        self.settings.suppressed_roles = suppressed.into_iter().collect();
    }

    fn passed_on(&self, news: News) -> Vec<Effect> {
        let callback = match news {
            News::Offers(message) => Callback::Offers(message.offers),
            News::Rescinded(message) => Callback::Rescinded(message.offer_id),
            News::Status(message) => return self.status(*message),
            News::Message(message) => Callback::Message(message),
            News::AgentLost(message) => Callback::AgentLost(message),
            News::ExecutorLost(message) => Callback::ExecutorLost(message),
            // The answer to an attempt whose predecessor had been heard after all; errors are dealt with before.
            News::Subscribed(_) | News::Error(_) => return Vec::new(),
        };
        vec![Effect::Call(callback)]
    }

    fn status(&self, message: StatusUpdated) -> Vec<Effect> {
        let update = message.update;
        let mut status = update.status;
        status.uuid = status.uuid.or(update.uuid);
        status.agent_id = status.agent_id.or(update.agent_id);
        status.executor_id = status.executor_id.or(update.executor_id);
        let acknowledgement = if self.settings.explicit_acknowledgements {
            None
        } else {
            self.acknowledgement(&status)
        };
        let mut effects = vec![Effect::Call(Callback::Status(Box::new(status)))];
        effects.extend(acknowledgement);
        effects
    }

    fn acknowledgement(&self, status: &TaskStatus) -> Option<Effect> {
        Some(
            AcknowledgeStatus {
                framework_id: self.framework_id()?.clone(),
                agent_id: status.agent_id.clone()?,
                task_id: status.task_id.clone(),
                uuid: status.uuid?,
            }
            .into(),
        )
    }

    fn asked(&mut self, request: Request, wall: Duration) -> Vec<Effect> {
        let id = self.framework_id().cloned();
        let subscribed = id.filter(|_| self.phase == Phase::Subscribed);
        if let Request::Stop { failover } = request {
            self.phase = Phase::Ended;
            let teardown = subscribed.filter(|_| !failover);
            let teardown = teardown.map(|framework_id| TeardownFramework { framework_id }.into());
            return teardown.into_iter().chain([Effect::Stop]).collect();
        }
        if request == Request::Abort {
            self.phase = Phase::Ended;
            let quiet = subscribed.map(|framework_id| DeactivateFramework { framework_id }.into());
            return quiet.into_iter().chain([Effect::Abort(None)]).collect();
        }
        self.remember(&request);
        match subscribed {
            Some(framework_id) => self.message(framework_id, request).into_iter().collect(),
            None => self.refused(request, wall),
        }
    }

    fn message(&self, framework_id: FrameworkId, request: Request) -> Option<Effect> {
        Some(match request {
            Request::Accept(offer_ids, mut operations, filters) => {
                name_framework(&mut operations, &framework_id);
                AcceptOffers {
                    framework_id,
                    offer_ids,
                    operations,
                    filters,
                }
                .into()
            }
            Request::Decline(offer_ids, filters) => DeclineOffers {
                framework_id,
                offer_ids,
                filters,
            }
            .into(),
            Request::Revive(roles) => ReviveOffers {
                framework_id,
                roles,
            }
            .into(),
            Request::Suppress(roles) => SuppressOffers {
                framework_id,
                roles,
            }
            .into(),
            Request::Kill(task_id, agent_id, kill_policy) => KillTask {
                framework_id,
                task_id,
                agent_id,
                kill_policy,
            }
            .into(),
            Request::ShutdownExecutor(agent_id, executor_id) => ShutdownExecutor {
                framework_id,
                executor_id,
                agent_id,
            }
            .into(),
            Request::Acknowledge(status) => return self.acknowledgement(&status),
            Request::Reconcile(tasks) => ReconcileTasks {
                framework_id,
                tasks,
            }
            .into(),
            Request::Say(agent_id, executor_id, data) => FrameworkMessage {
                framework_id,
                agent_id,
                executor_id,
                data,
            }
            .into(),
            Request::RequestResources(requests) => RequestResources {
                framework_id,
                requests,
            }
            .into(),
            Request::Stop { .. } | Request::Abort => return None,
        })
    }

    /// A request without a subscription: tasks that cannot be launched are reported, so that nobody waits for them.
    fn refused(&self, request: Request, wall: Duration) -> Vec<Effect> {
        let Request::Accept(_, operations, _) = request else {
            return Vec::new();
        };
        let aware = self
            .settings
            .framework
            .has(FrameworkCapability::PartitionAware);
        let state = if aware {
            TaskState::Dropped
        } else {
            TaskState::Lost
        };
        tasks_of(&operations)
            .map(|task| TaskStatus {
                agent_id: Some(task.agent_id.clone()),
                timestamp: Some(wall.as_secs_f64()),
                ..TaskStatus::new(task.task_id.clone(), state)
                    .because(StatusSource::Master, StatusReason::MasterDisconnected)
                    .saying("Master disconnected")
            })
            .map(|status| Effect::Call(Callback::Status(Box::new(status))))
            .collect()
    }
}

fn tasks_of(operations: &[Operation]) -> impl Iterator<Item = &TaskInfo> {
    operations.iter().flat_map(|operation| {
        let tasks: &[TaskInfo] = if let OperationAction::Launch(launch) = &operation.action {
            &launch.task_infos
        } else if let OperationAction::LaunchGroup(launch) = &operation.action {
            &launch.task_group.tasks
        } else {
            &[]
        };
        tasks
    })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
