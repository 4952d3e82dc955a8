//! The master process `master`: admits agents, offers what they have to frameworks, keeps track of every task.
//!
//! It owns the [`State`] tables and speaks with agents, schedulers, the allocator `allocator(1)` and the registrar
//! `registrar(1)`. Everything that decides lives in pure modules ([`crate::accept`], [`crate::reconciliation`],
//! [`crate::health`], [`crate::validation`]); the handlers in `handlers` look up, decide and perform.
//! Invariant: what the allocator counts as held is what the tables say is offered or used.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meseta_protocol::agent::{Address as HostAddress, MasterCapability, MasterInfo};
use meseta_protocol::ids::{AgentId, FrameworkId, MasterId, OfferId, Role};
use meseta_protocol::messages::agent::{
    ExecutorExited, ExecutorToFramework, Pong, RegisterAgent, ReregisterAgent, UnregisterAgent,
    UpdateStatus,
};
use meseta_protocol::messages::election::Leader;
use meseta_protocol::messages::scheduler::{
    AcceptOffers, AcknowledgeStatus, DeactivateFramework, DeclineOffers, FrameworkMessage,
    KillTask, ReconcileTasks, RequestResources, ReviveOffers, ShutdownExecutor, SubscribeFramework,
    SuppressOffers, TeardownFramework,
};
use meseta_protocol::messages::{Led, MasterMessage};
use meseta_protocol::offer::Filters;
use meseta_protocol::resources::Resources;
use meseta_protocol::status::StatusUpdate;
use meseta_protocol::status::TaskStatus;
use meseta_runtime::http::Version;
use meseta_runtime::{Context, ExitReason, Pid, Process, QueueNames, Routes, Time};
use tracing::{debug, warn};
use uuid::Uuid;

use crate::allocator::messages::{Allocated, RecoverResources};
use crate::config::Config;
use crate::election::messages::Elected;
use crate::failover::Awaited;
use crate::http::{Audience, Documents, Written};
use crate::leading::Leadership;
use crate::operators::MarkAgentGone;
use crate::registrar::{self, Registrar};
use crate::removal_rate::Permits;
use crate::revised::Revised;
use crate::state::State;

/// What is going on with an agent that is not settled: other transitions wait for a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transition {
    Reregistering,
    MarkingUnreachable,
    MarkingGone,
    Removing,
}

/// The master.
pub struct Master {
    pub(crate) config: Config,
    pub(crate) info: MasterInfo,
    /// When it started: as a date, and on the node's own clock, by which time is measured.
    pub(crate) started: Duration,
    began: Time,

    /// The tables. They, and whatever else `/state` shows that may change, count their revisions.
    pub(crate) state: Revised<State>,
    pub(crate) registering: BTreeSet<Pid>,
    pub(crate) transitions: BTreeMap<AgentId, Transition>,
    /// Agents marked unreachable by this master, with the time since the Unix epoch.
    pub(crate) unreachable: Revised<BTreeMap<AgentId, Duration>>,
    /// Weights of roles in force: those of the registry, or of the flags when it has none.
    pub(crate) weights: BTreeMap<Role, f64>,
    /// Agents that will never come back, with the time since the Unix epoch they were marked.
    pub(crate) gone: BTreeMap<AgentId, Duration>,
    /// Agents of the registry that have not come back after a fail-over yet.
    pub(crate) awaited: Revised<Awaited>,
    /// Agents that wait to be marked unreachable, with the number of the wait and why they are to be.
    pub(crate) doomed: BTreeMap<AgentId, (u64, &'static str)>,
    /// How fast agents may be marked unreachable.
    pub(crate) permits: Permits,
    next_framework: u64,
    next_agent: u64,
    next_offer: u64,
    next_ping_chain: u64,
    next_entry: u64,

    /// Whether it leads.
    pub(crate) leadership: Option<Leadership>,
    /// Who leads, as far as it knows.
    pub(crate) leader: Option<MasterInfo>,
    /// Whether it is one of several.
    contends: bool,
    /// Says when to lead; none for a master on its own.
    pub(crate) election: Option<Pid>,
    pub(crate) allocator: Option<Pid>,
    pub(crate) registrar: Option<Pid>,
    /// Operators who hear what happens; none before the first has come.
    pub(crate) audience: Option<Audience>,
    /// What writes documents about the cluster; none before somebody has asked for one.
    pub(crate) documents: Option<Documents>,
    /// Explanations for which the allocator is being asked.
    pub(crate) explaining: usize,
}

impl Master {
    /// A master on its own with these settings, which leads when it starts; its id is drawn then.
    pub fn new(config: Config) -> Self {
        let permits = Permits::new(config.agent_removal_rate_limit);
        Self {
            state: Revised::new(State::new(config.limits)),
            weights: config.allocator.weights.clone(),
            config,
            info: MasterInfo::default(),
            started: Duration::ZERO,
            began: Time::ZERO,
            registering: BTreeSet::new(),
            transitions: BTreeMap::new(),
            unreachable: Revised::default(),
            gone: BTreeMap::new(),
            awaited: Revised::default(),
            doomed: BTreeMap::new(),
            permits,
            next_framework: 0,
            next_agent: 0,
            next_offer: 0,
            next_ping_chain: 0,
            next_entry: 0,
            leadership: None,
            leader: None,
            contends: false,
            election: None,
            allocator: None,
            registrar: None,
            audience: None,
            documents: None,
            explaining: 0,
        }
    }

    /// One of several masters: leads when the election on its own node says so. The epoch in the settings is not used.
    pub fn contending(config: Config) -> Self {
        Self {
            contends: true,
            ..Self::new(config)
        }
    }

    /// The tables, to look at.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Agents that this master has marked unreachable and not seen since, each with the time since the Unix epoch.
    pub fn unreachable(&self) -> &BTreeMap<AgentId, Duration> {
        &self.unreachable
    }

    /// Agents with which something is under way that the registry has not stored yet.
    pub fn unsettled(&self) -> impl Iterator<Item = &AgentId> {
        self.transitions.keys()
    }
}

impl Process for Master {
    fn routes(routes: &mut Routes<Self>) {
        routes
            .on::<SubscribeFramework>()
            .on::<TeardownFramework>()
            .on::<DeactivateFramework>()
            .on::<AcceptOffers>()
            .on::<DeclineOffers>()
            .on::<ReviveOffers>()
            .on::<SuppressOffers>()
            .on::<RequestResources>()
            .on::<KillTask>()
            .on::<ShutdownExecutor>()
            .on::<AcknowledgeStatus>()
            .on::<ReconcileTasks>()
            .on::<FrameworkMessage>()
            .on::<RegisterAgent>()
            .on::<ReregisterAgent>()
            .on::<UnregisterAgent>()
            .on::<Pong>()
            .on::<UpdateStatus>()
            .on::<ExecutorExited>()
            .on::<ExecutorToFramework>()
            .on::<MarkAgentGone>()
            .on::<Allocated>()
            .on::<Elected>()
            .on::<Leader>()
            .on::<Written>();
        crate::http::routes(routes);
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        self.started = cx.wall();
        self.began = cx.now();
        self.info = describe(cx, &self.config);
        if self.contends {
            self.contend(cx);
        } else {
            self.lead_alone(cx);
        }
        crate::metrics::declare(cx.metrics());
        cx.show_queue(QueueNames {
            messages: "master/event_queue_messages",
            dispatches: "master/event_queue_dispatches",
            http_requests: "master/event_queue_http_requests",
        });
        self.publish_metrics(cx);
    }

    fn exited(&mut self, cx: &mut Context<'_, Self>, pid: &Pid, reason: ExitReason) {
        if let Some(agent_id) = self.state.agent_at(pid).cloned() {
            tracing::info!(agent = %agent_id, %pid, ?reason, "agent disconnected");
            self.agent_disconnected(cx, &agent_id);
        } else if let Some(framework_id) = self.state.framework_at(pid).cloned() {
            tracing::info!(framework = %framework_id, %pid, ?reason, "framework disconnected");
            self.framework_disconnected(cx, &framework_id);
        } else if self.allocator.as_ref() == Some(pid) || self.registrar.as_ref() == Some(pid) {
            tracing::error!(%pid, ?reason, "a part of the master has ended: the master ends too");
            cx.stop();
        } else if self.election.as_ref() == Some(pid) {
            tracing::error!(%pid, ?reason, "the election has ended: the master ends too");
            cx.stop();
        } else if self.scribe_ended(pid) {
            tracing::error!(
                ?reason,
                "what writes documents has ended: the next who asks has it started again"
            );
        }
    }

    fn turn_ends(&mut self, cx: &mut Context<'_, Self>) {
        self.tell_subscribers(cx);
    }
}

fn describe(cx: &mut Context<'_, Master>, config: &Config) -> MasterInfo {
    let id = Master::new_uuid(cx);
    let ip = cx.address().host.to_string();
    let number = ip
        .parse::<std::net::Ipv4Addr>()
        .map_or(0, |ip| u32::from_le_bytes(ip.octets()));
    MasterInfo {
        id: MasterId::new(id.to_string()),
        ip: number,
        port: cx.address().port,
        pid: Some(cx.me().to_string()),
        hostname: Some(config.hostname.clone()),
        version: Some(Version::API.to_owned()),
        address: Some(HostAddress {
            hostname: Some(config.hostname.clone()),
            ip: Some(ip),
            port: cx.address().port,
        }),
        domain: config.allocator.master_domain.clone(),
        capabilities: vec![MasterCapability::AgentUpdate],
    }
}

/// What every handler uses.
impl Master {
    pub(crate) fn spawn_helpers(&mut self, cx: &mut Context<'_, Self>) {
        let (config, me) = (self.config.allocator.clone(), cx.me().clone());
        let allocator = cx.spawn("allocator(1)", move || {
            crate::allocator::AllocatorProcess::new(config, me)
        });
        let (me, storage) = (cx.me().clone(), self.config.registry.clone());
        let limits = registrar::Limits {
            fetch: self.config.registry_fetch_timeout,
            store: self.config.registry_store_timeout,
        };
        let registrar = cx.spawn("registrar(1)", move || Registrar::new(me, storage, limits));
        match (allocator, registrar) {
            (Ok(allocator), Ok(registrar)) => {
                cx.link(&allocator);
                cx.link(&registrar);
                self.allocator = Some(allocator);
                self.registrar = Some(registrar);
            }
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "the master cannot start its parts: is another one on this node?");
                cx.stop();
            }
        }
    }

    /// How long this master has run. The wall clock would not do: it may be set back.
    pub(crate) fn uptime(&self, cx: &Context<'_, Self>) -> Duration {
        cx.now().since(self.began)
    }

    /// Sends something as the leader.
    pub(crate) fn lead<M: MasterMessage>(&self, cx: &mut Context<'_, Self>, to: &Pid, message: M) {
        let leader_epoch = self.epoch();
        cx.send(
            to,
            Led {
                leader_epoch,
                message,
            },
        );
    }

    /// Sends something to a framework, if it is connected.
    pub(crate) fn tell_framework<M: MasterMessage>(
        &self,
        cx: &mut Context<'_, Self>,
        id: &FrameworkId,
        message: M,
    ) -> bool {
        let framework = self.state.framework(id).filter(|f| f.is_connected());
        match framework.and_then(|f| f.pid.as_ref()) {
            Some(pid) => {
                self.lead(cx, pid, message);
                true
            }
            None => false,
        }
    }

    /// Sends something to an agent, if it is connected.
    pub(crate) fn tell_agent<M: MasterMessage>(
        &self,
        cx: &mut Context<'_, Self>,
        id: &AgentId,
        message: M,
    ) -> bool {
        match self.state.agent(id).filter(|agent| agent.connected) {
            Some(agent) => {
                self.lead(cx, &agent.pid, message);
                true
            }
            None => false,
        }
    }

    /// Sends something to the allocator.
    pub(crate) fn tell_allocator<M: meseta_runtime::Message>(
        &self,
        cx: &mut Context<'_, Self>,
        message: M,
    ) {
        if let Some(allocator) = &self.allocator {
            cx.send(allocator, message);
        }
    }

    /// Gives resources back to the allocator.
    pub(crate) fn recover(
        &self,
        cx: &mut Context<'_, Self>,
        framework_id: &FrameworkId,
        agent_id: &AgentId,
        resources: Resources,
        filters: Option<Filters>,
    ) {
        if !resources.is_empty() {
            let recover = RecoverResources {
                framework_id: framework_id.clone(),
                agent_id: agent_id.clone(),
                resources,
                filters,
            };
            self.tell_allocator(cx, recover);
        }
    }

    /// Tells a framework of the end of a task by the master's own word, and counts it.
    pub(crate) fn tell_end(
        &self,
        cx: &mut Context<'_, Self>,
        framework_id: &FrameworkId,
        status: TaskStatus,
    ) {
        crate::metrics::count_end(cx.metrics(), &status);
        self.tell_status(cx, framework_id, status);
    }

    /// Tells a framework of a state that the master itself has decided. Such updates have no uuid and are not
    /// acknowledged.
    pub(crate) fn tell_status(
        &self,
        cx: &mut Context<'_, Self>,
        framework_id: &FrameworkId,
        mut status: TaskStatus,
    ) {
        let timestamp = cx.wall().as_secs_f64();
        status.timestamp = Some(timestamp);
        let update = StatusUpdate {
            framework_id: framework_id.clone(),
            executor_id: None,
            agent_id: status.agent_id.clone(),
            timestamp,
            uuid: None,
            latest_state: Some(status.state),
            status,
        };
        let message = meseta_protocol::messages::scheduler::StatusUpdated { update };
        if !self.tell_framework(cx, framework_id, message) {
            debug!(framework = %framework_id, "status not sent: the framework is not connected");
        }
    }

    /// The framework a message speaks for, if it comes from that framework's scheduler.
    pub(crate) fn speaks_for(
        &self,
        cx: &mut Context<'_, Self>,
        from: &Pid,
        id: &FrameworkId,
    ) -> bool {
        let known = self.state.framework(id);
        let genuine = known.is_some_and(|f| f.is_connected() && f.pid.as_ref() == Some(from));
        if genuine {
            return true;
        }
        cx.metrics().count("master/dropped_messages");
        if known.is_some_and(|f| !f.is_connected() && f.pid.as_ref() == Some(from)) {
            let message = "Framework disconnected".to_owned();
            let error = meseta_protocol::messages::scheduler::FrameworkError { message };
            self.lead(cx, from, error);
        } else {
            warn!(framework = %id, %from, "message dropped: its sender is not the framework's scheduler");
        }
        false
    }

    pub(crate) fn new_framework_id(&mut self) -> FrameworkId {
        let n = self.next_framework;
        self.next_framework += 1;
        FrameworkId::new(format!("{}-{n:04}", self.info.id))
    }

    pub(crate) fn new_agent_id(&mut self) -> AgentId {
        let n = self.next_agent;
        self.next_agent += 1;
        AgentId::new(format!("{}-S{n}", self.info.id))
    }

    pub(crate) fn new_offer_id(&mut self) -> OfferId {
        let n = self.next_offer;
        self.next_offer += 1;
        OfferId::new(format!("{}-O{n}", self.info.id))
    }

    pub(crate) fn new_ping_chain(&mut self) -> u64 {
        self.next_ping_chain += 1;
        self.next_ping_chain
    }

    pub(crate) fn new_entry(&mut self) -> u64 {
        self.next_entry += 1;
        self.next_entry
    }

    pub(crate) fn new_uuid(cx: &mut Context<'_, Self>) -> Uuid {
        let mut bytes = [0; 16];
        rand::Rng::fill_bytes(cx.random(), &mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    fn publish_metrics(&mut self, cx: &mut Context<'_, Self>) {
        debug_assert_eq!(self.state.check(), Ok(()));
        let uptime = self.uptime(cx);
        let leads = self.leadership.is_some();
        let metrics = cx.metrics();
        let subscribers = self.audience.as_ref().map_or(0, Audience::len);
        crate::metrics::publish(metrics, &self.state, self.unreachable.len(), uptime, leads);
        crate::metrics::set_count(
            metrics,
            "master/operator_event_stream_subscribers",
            subscribers,
        );
        cx.after(Duration::from_secs(1), Self::publish_metrics);
    }
}
