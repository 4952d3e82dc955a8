//! The agent process `slave(1)`: takes tasks from the master, runs executors, forwards what becomes of both.
//!
//! It owns the tables of what runs here and the streams of status updates, and speaks with the master, with its
//! executors (guests of its node) and with the operators that start and end processes. What decides is pure
//! ([`crate::registration`], [`crate::executors`], [`crate::status_updates`], [`crate::containerizer::core`]); the
//! handlers in `handlers/` look up, decide and perform. Invariant: a task the agent has accepted is in the tables
//! until the framework has acknowledged its end.
//!
//! What it needs to go on after a restart is written down before anybody sees what follows from it
//! ([`crate::checkpoint`], `handlers/recovery.rs`).
//!
//! Draining, operations and oversubscription are not here yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meseta_protocol::agent::{AgentCapability, AgentInfo};
use meseta_protocol::messages::agent::{
    AcknowledgeAgentStatus, AgentRegistered, AgentReregistered, FrameworkToExecutor, KillAgentTask,
    Ping, RunTask, RunTaskGroup, ShutdownAgent, ShutdownAgentExecutor, ShutdownFramework,
    UpdateFramework,
};
use meseta_protocol::messages::election::{Detect, ELECTION, Leader};
use meseta_protocol::messages::executor::{SendToFramework, SubscribeExecutor, UpdateTask};
use meseta_protocol::messages::{Led, MasterMessage};
use meseta_protocol::{AgentId, UpdateId};
use meseta_runtime::detector::{self, Detector, Followed, Follower, detect};
use meseta_runtime::planted::mistake;
use meseta_runtime::{Context, ExitReason, Gate, Pid, Process, Receive, Routes, Time};
use tracing::{debug, error, info, warn};

use crate::checkpoint::Room;
use crate::config::Config;
use crate::containerizer::Launch;
use crate::containerizer::{ContainerEnded, DESTROY_LIMIT, DESTROY_RETRY, Host, Sweep};
use crate::executors::Tables;
use crate::guests::Users;
use crate::handlers::gc::Collection;
use crate::handlers::recovery::Recovering;
use crate::launch_queue::LaunchQueue;
use crate::registration::{Input, Phase, Registration};
use crate::status_updates::StatusUpdates;
use crate::{StopAgent, paths};

/// Whatever happens, an agent that leaves is gone this long after its executors' grace periods: time for a failed
/// attempt to end a container to be repeated, and for the repeated one.
const STOP_MARGIN: Duration = DESTROY_RETRY.saturating_add(DESTROY_LIMIT);

/// The agent.
pub struct Agent {
    pub(crate) config: Config,
    pub(crate) host: Host,
    pub(crate) info: AgentInfo,
    pub(crate) started: Duration,
    pub(crate) began: Time,

    pub(crate) registration: Registration,
    /// Finds out which master leads.
    pub(crate) detector: Detector,
    /// The master that leads, as far as that is known.
    pub(crate) master: Option<Pid>,
    /// Newest leadership heard of.
    leader_epoch: u64,
    pub(crate) tables: Tables,
    pub(crate) updates: StatusUpdates,
    pub(crate) launches: LaunchQueue<Launch>,
    pub(crate) users: Users,
    /// Sandboxes that are to go.
    pub(crate) collection: Collection,
    /// Executors that are to come back, while the agent waits for them and for nobody else.
    pub(crate) recovering: Option<Recovering>,
    /// Streams of which something is written down.
    pub(crate) written: BTreeSet<crate::status_updates::Key>,
    /// Number of the last update that was written down.
    pub(crate) last_number: u64,
    /// Whether new work can be written down.
    pub(crate) room: Room,
    /// Set when nothing more is written down, since the agent does not come back.
    pub(crate) is_forgotten: bool,
    /// Set when the agent is to stop as soon as nothing runs here.
    stopping: bool,
    /// Set when nothing does.
    stopped: bool,
}

/// What an agent does with a message of the master.
pub(crate) trait FromMaster<M: MasterMessage>: Process {
    /// Handles one message that comes from the leading master.
    fn obey(&mut self, cx: &mut Context<'_, Self>, message: M);
}

/// The one place where leadership is checked: what does not come from the master that leads, or from an older
/// leadership than the newest heard of, is dropped.
impl<M: MasterMessage> Receive<Led<M>> for Agent
where
    Agent: FromMaster<M>,
{
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, led: Led<M>) {
        if self.master.as_ref() != Some(from) && !mistake("agent obeys whoever led once") {
            warn!(%from, message = M::NAME, "message dropped: its sender is not the master that leads");
            return;
        }
        if led.leader_epoch < self.leader_epoch && !mistake("agent obeys whoever led once") {
            warn!(%from, message = M::NAME, epoch = led.leader_epoch, "message dropped: its sender no longer leads");
            return;
        }
        self.leader_epoch = led.leader_epoch;
        self.obey(cx, led.message);
    }
}

impl Agent {
    /// An agent with these settings on this machine.
    pub fn new(config: Config, host: Host) -> Self {
        Self {
            registration: Registration::new(config.registration_backoff_factor),
            tables: Tables::new(config.max_completed_executors_per_framework),
            updates: StatusUpdates::new(),
            launches: LaunchQueue::new(config.concurrent_launches),
            users: Users::default(),
            collection: Collection::default(),
            info: AgentInfo::default(),
            started: Duration::ZERO,
            began: Time::ZERO,
            detector: Detector::new(&config.masters),
            master: None,
            leader_epoch: 0,
            recovering: None,
            written: BTreeSet::new(),
            last_number: 0,
            room: Room::Enough,
            is_forgotten: false,
            stopping: false,
            stopped: false,
            config,
            host,
        }
    }
}

impl Process for Agent {
    fn routes(routes: &mut Routes<Self>) {
        routes
            .on::<Led<AgentRegistered>>()
            .on::<Led<AgentReregistered>>()
            .on::<Led<Ping>>()
            .on::<Led<RunTask>>()
            .on::<Led<RunTaskGroup>>()
            .on::<Led<KillAgentTask>>()
            .on::<Led<ShutdownFramework>>()
            .on::<Led<ShutdownAgentExecutor>>()
            .on::<Led<UpdateFramework>>()
            .on::<Led<AcknowledgeAgentStatus>>()
            .on::<Led<FrameworkToExecutor>>()
            .on::<Led<ShutdownAgent>>()
            .on::<Leader>()
            .on::<SubscribeExecutor>()
            .on::<UpdateTask>()
            .on::<SendToFramework>()
            .on::<ContainerEnded>()
            .on::<StopAgent>();
        crate::http::routes(routes);
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        self.started = cx.wall();
        self.began = cx.now();
        self.info = AgentInfo {
            id: None,
            hostname: self.config.hostname.clone(),
            port: cx.address().port,
            resources: self.config.resources.clone(),
            attributes: self.config.attributes.clone(),
            domain: self.config.domain.clone(),
            checkpoint: true,
        };
        info!(me = %cx.me(), resources = %self.info.resources, freezer = ?self.host.freezer, "agent starts");
        crate::metrics::declare(cx.metrics());
        self.publish_metrics(cx);
        self.recover(cx);
    }

    fn exited(&mut self, cx: &mut Context<'_, Self>, pid: &Pid, reason: ExitReason) {
        if self.master.as_ref() == Some(pid) {
            info!(master = %pid, ?reason, "the link to the master has broken");
            self.registration_input(cx, Input::MasterLost);
        } else if pid.id() == ELECTION {
            detect(self, cx, detector::Input::Lost(pid.clone()));
        } else {
            self.executor_disconnected(cx, pid, &reason);
        }
    }
}

impl Receive<Leader> for Agent {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, word: Leader) {
        let told = detector::Input::told(from, word.epoch, word.leader);
        detect(self, cx, told);
    }
}

impl Follower for Agent {
    fn detector(&mut self) -> &mut Detector {
        &mut self.detector
    }

    fn ask(&mut self, cx: &mut Context<'_, Self>, candidate: &Pid, attempts: u32) {
        if attempts > 1 && self.master.is_none() {
            warn!(
                %candidate, attempts,
                "no master answers: is one running there, and are its certificates of the same CA? Trying on"
            );
        }
        cx.send(candidate, Detect {});
    }

    fn follow(&mut self, cx: &mut Context<'_, Self>, followed: Followed) {
        if let Some(old) = self.master.take() {
            cx.unlink(&old);
        }
        self.leader_epoch = self.leader_epoch.max(followed.epoch);
        self.master = followed.leader;
        let input = match self.master {
            Some(_) => Input::NewLeader,
            None => Input::NoLeader,
        };
        self.registration_input(cx, input);
    }
}

impl Receive<StopAgent> for Agent {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, _: StopAgent) {
        if let Some(agent_id) = self.info.id.clone() {
            let unregister = meseta_protocol::messages::agent::UnregisterAgent { agent_id };
            self.tell_master(cx, unregister);
        }
        self.leave(cx, "the agent is told to stop");
    }
}

/// To look at from outside.
impl Agent {
    /// What runs here.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Updates on their way.
    pub fn updates(&self) -> &StatusUpdates {
        &self.updates
    }

    /// Newest leadership heard of.
    pub fn leader_epoch(&self) -> u64 {
        self.leader_epoch
    }

    /// The master that leads, as far as the agent knows.
    pub fn master(&self) -> Option<&Pid> {
        self.master.as_ref()
    }

    /// Where it stands with the master.
    pub fn registration(&self) -> &Registration {
        &self.registration
    }

    /// What it says of itself, with its id once it has one.
    pub fn info(&self) -> &AgentInfo {
        &self.info
    }
}

/// What every handler uses.
impl Agent {
    /// The agent's id; empty before the first registration.
    pub(crate) fn id(&self) -> AgentId {
        self.info.id.clone().unwrap_or_default()
    }

    /// What an agent of this version can do.
    pub(crate) fn capabilities() -> Vec<AgentCapability> {
        vec![
            AgentCapability::MultiRole,
            AgentCapability::HierarchicalRole,
            AgentCapability::ReservationRefinement,
        ]
    }

    /// Whether the agent is on its way out.
    pub(crate) fn is_terminating(&self) -> bool {
        self.registration.phase() == Phase::Terminating
    }

    pub(crate) fn new_uuid(cx: &mut Context<'_, Self>) -> UpdateId {
        let mut bytes = [0; 16];
        rand::Rng::fill_bytes(cx.random(), &mut bytes);
        UpdateId::from_random_bytes(bytes)
    }

    /// Sends something to the master, if one leads.
    pub(crate) fn tell_master<M: meseta_runtime::Message>(
        &self,
        cx: &mut Context<'_, Self>,
        message: M,
    ) {
        if let Some(master) = &self.master {
            cx.send(master, message);
        }
    }

    /// The agent cannot go on: everything goes down.
    pub(crate) fn fail(&mut self, cx: &mut Context<'_, Self>, reason: &str) {
        error!(reason, "the agent cannot go on");
        self.config.outcome.set_fatal(reason);
        self.leave(cx, reason);
    }

    /// The agent cannot go on, and what it runs can: another run of it will find everything.
    pub(crate) fn abandon(&mut self, cx: &mut Context<'_, Self>, reason: &str) {
        error!(
            reason,
            "the agent ends, and leaves its executors to its next run"
        );
        self.config.outcome.set_fatal(reason);
        self.stopped = true;
        cx.stop();
    }

    /// Ends everything, then the agent itself.
    pub(crate) fn leave(&mut self, cx: &mut Context<'_, Self>, why: &str) {
        if self.stopping || self.leaves_later(why) {
            return;
        }
        info!(
            why,
            executors = self.tables.executors().count(),
            "the agent ends"
        );
        self.stopping = true;
        // All it runs ends, so there is nothing to come back to, and its id is nobody's from now on.
        self.forget_all(cx);
        self.registration_input(cx, Input::Leave);
        let frameworks: Vec<_> = self.tables.frameworks.keys().cloned().collect();
        for framework_id in &frameworks {
            self.end_framework(cx, framework_id);
        }
        let default = self.config.executor_shutdown_grace_period;
        let longest = self
            .tables
            .executors()
            .map(|(_, _, executor)| crate::environment::grace_period(&executor.info, default))
            .max();
        cx.after(longest.unwrap_or_default() + STOP_MARGIN, |agent, cx| {
            warn!(
                left = agent.tables.executors().count(),
                "the agent stops though containers are left"
            );
            cx.stop();
        });
        self.stop_when_empty(cx);
    }

    /// Stops an agent that is to stop, once nothing runs here.
    pub(crate) fn stop_when_empty(&mut self, cx: &mut Context<'_, Self>) {
        debug_assert_eq!(self.tables.check(), Ok(()));
        if self.stopping && !self.stopped && self.tables.frameworks.is_empty() {
            self.stopped = true;
            let sweep = Sweep {
                leaving: true,
                ..self.sweep()
            };
            cx.run(sweep, Gate::Interleave, |_, cx, swept| {
                debug!(?swept, "nothing runs here any more: the agent stops");
                cx.stop();
            });
        }
    }

    /// An order to end what runs in sandboxes of this agent.
    pub(crate) fn sweep(&self) -> Sweep {
        Sweep {
            sandboxes: paths::agents(&self.config.work_dir),
            freezer: self.host.freezer.clone(),
            leaving: false,
            keep: BTreeMap::new(),
        }
    }

    /// Shows what metrics say of this moment.
    pub(crate) fn show_metrics(&self, cx: &Context<'_, Self>) {
        let uptime = cx.now().since(self.began);
        crate::metrics::publish(cx.metrics(), self, uptime);
    }

    fn publish_metrics(&mut self, cx: &mut Context<'_, Self>) {
        debug_assert_eq!(self.tables.check(), Ok(()));
        self.show_metrics(cx);
        if self.room == Room::Low {
            // Whether there is room again is found out by asking for it.
            self.look_for_room(cx);
        }
        cx.after(Duration::from_secs(1), Self::publish_metrics);
    }
}
