//! A master in the middle, and the ends of its conversations, which the test plays.

pub(crate) use std::marker::PhantomData;
pub(crate) use std::time::Duration;

pub(crate) use meseta_master::Config;
pub(crate) use meseta_protocol::agent::{AgentCapability, AgentInfo};
pub(crate) use meseta_protocol::framework::{FrameworkCapabilities, FrameworkInfo};
pub(crate) use meseta_protocol::messages::Led;
pub(crate) use meseta_protocol::messages::agent::{
    AcknowledgeAgentStatus, AgentRegistered, AgentReregistered, KillAgentTask, Ping, Pong,
    RegisterAgent, ReregisterAgent, RunTask, RunTaskGroup, ShutdownAgent, ShutdownFramework,
    UnregisterAgent, UpdateFramework, UpdateStatus,
};
pub(crate) use meseta_protocol::messages::scheduler::{
    AcceptOffers, AcknowledgeStatus, AgentLost, DeclineOffers, FrameworkError, FrameworkSubscribed,
    KillTask, OfferRescinded, ReconcileTasks, ResourceOffers, ReviveOffers, StatusUpdated,
    SubscribeFramework, TaskQuestion, TeardownFramework,
};
pub(crate) use meseta_protocol::offer::{Filters, Offer};
pub(crate) use meseta_protocol::operation::Operation;
pub(crate) use meseta_protocol::status::{StatusReason, StatusUpdate, TaskState, TaskStatus};
pub(crate) use meseta_protocol::task::{Task, TaskInfo};
pub(crate) use meseta_protocol::{AgentId, FrameworkId, TaskId, UpdateId};
pub(crate) use meseta_runtime::testing::{ANY, Event, Observed as _, Probe};
pub(crate) use meseta_runtime::transport::memory::MemoryNetwork;
pub(crate) use meseta_runtime::{Address, Clock, Message, Node, Pid};

pub(crate) const EPOCH: u64 = 1;

/// What one end of a conversation may hear.
pub(crate) trait Hears: Sized {
    /// What came, when it is one of these.
    fn of(event: &Event) -> Option<Self>;
}

macro_rules! hears {
    ($heard:ident [ $($message:ident),* ]) => {
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) enum $heard { $($message($message)),* }

        impl Hears for $heard {
            fn of(event: &Event) -> Option<Self> {
                $(
                    if let Some(led) = Led::<$message>::read(event) {
                        assert_eq!(led.leader_epoch, EPOCH);
                        return Some(Self::$message(led.message));
                    }
                )*
                None
            }
        }
    };
}

hears!(AgentHeard [
    AgentRegistered, AgentReregistered, Ping, RunTask, RunTaskGroup, KillAgentTask, AcknowledgeAgentStatus, ShutdownFramework, ShutdownAgent,
    UpdateFramework
]);
hears!(SchedulerHeard [
    FrameworkSubscribed, ResourceOffers, OfferRescinded, StatusUpdated, AgentLost, FrameworkError
]);

/// One end of a conversation with the master, which the test plays.
pub(crate) struct End<H> {
    pub(crate) node: Node,
    pub(crate) probe: Probe,
    master: Pid,
    heard: PhantomData<H>,
}

impl<H: Hears> End<H> {
    pub(crate) fn say<M: Message>(&self, message: M) {
        self.probe.send(&self.master, message);
        self.node.clock().settle();
    }
    pub(crate) fn heard(&self) -> Vec<H> {
        self.probe.everything().iter().filter_map(H::of).collect()
    }
    pub(crate) fn address(&self) -> &Address {
        self.node.address()
    }
}

pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) network: MemoryNetwork,
    pub(crate) master: Pid,
    pub(crate) node: Node,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// With other settings.
    pub(crate) fn with(settings: impl FnOnce(&mut Config)) -> Self {
        let (clock, network) = (Clock::paused(), MemoryNetwork::new(1));
        let builder = Node::builder().memory(&network).clock(clock.clone());
        let node = builder.role("master").seed(1).start().unwrap();
        let master = {
            let mut config = Config::new(EPOCH, "master-host");
            settings(&mut config);
            meseta_master::start(&node, config).unwrap()
        };
        Self {
            clock,
            network,
            master,
            node,
        }
    }

    pub(crate) fn node(&self, role: &str) -> Node {
        let builder = Node::builder()
            .memory(&self.network)
            .clock(self.clock.clone());
        builder.role(role).start().unwrap()
    }

    /// An end of this role and id.
    pub(crate) fn end<H>(&self, role: &str, id: &str) -> End<H> {
        let node = self.node(role);
        End {
            probe: node.testing().probe(id).unwrap(),
            node,
            master: self.master.clone(),
            heard: PhantomData,
        }
    }

    pub(crate) fn agent(&self) -> End<AgentHeard> {
        self.end("agent", "slave(1)")
    }

    /// An agent that has registered with 4 cpus and 4096 MiB.
    pub(crate) fn registered_agent(&self) -> (End<AgentHeard>, AgentId) {
        let agent = self.agent();
        agent.say(RegisterAgent {
            agent: agent_info(None),
            version: "1.0.0".into(),
            capabilities: vec![
                AgentCapability::MultiRole,
                AgentCapability::HierarchicalRole,
            ],
            ..RegisterAgent::default()
        });
        let heard = agent.heard();
        let [AgentHeard::AgentRegistered(registered), AgentHeard::Ping(_)] = &heard[..] else {
            let [AgentHeard::Ping(_), AgentHeard::AgentRegistered(registered)] = &heard[..] else {
                panic!("{heard:?}");
            };
            return (agent, registered.agent_id.clone());
        };
        let id = registered.agent_id.clone();
        (agent, id)
    }

    pub(crate) fn scheduler(&self) -> End<SchedulerHeard> {
        self.end("scheduler", "scheduler-1")
    }

    pub(crate) fn subscribed(
        &self,
        framework: FrameworkInfo,
    ) -> (End<SchedulerHeard>, FrameworkId) {
        let scheduler = self.scheduler();
        let id = subscribe(&scheduler, framework);
        (scheduler, id)
    }

    /// Those of these counters that have counted something, with how much.
    pub(crate) fn counted(&self, begin: &str) -> Vec<(String, f64)> {
        let all = self.node.metrics().snapshot().into_iter();
        all.filter_map(|(name, value)| Some((name, value.as_f64()?)))
            .filter(|(name, value)| name.starts_with(begin) && *value != 0.0)
            .collect()
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.node.shutdown();
    }
}

pub(crate) fn agent_info(id: Option<AgentId>) -> AgentInfo {
    let mut info = AgentInfo::new("agent-host", "cpus:4;mem:4096;disk:1000".parse().unwrap());
    info.id = id;
    info
}

pub(crate) fn subscribe(scheduler: &End<SchedulerHeard>, framework: FrameworkInfo) -> FrameworkId {
    scheduler.say(SubscribeFramework {
        framework,
        force: true,
        ..SubscribeFramework::default()
    });
    // Offers may have come with it, and are looked at later.
    let subscribed = scheduler.probe.find::<Led<FrameworkSubscribed>>();
    subscribed.message.message.framework_id
}

pub(crate) fn framework() -> FrameworkInfo {
    FrameworkInfo::new("nobody", "test")
}

pub(crate) fn offers(scheduler: &End<SchedulerHeard>) -> Vec<Offer> {
    scheduler
        .heard()
        .into_iter()
        .filter_map(|heard| match heard {
            SchedulerHeard::ResourceOffers(message) => Some(message.offers),
            _ => None,
        })
        .flatten()
        .collect()
}

pub(crate) fn statuses(scheduler: &End<SchedulerHeard>) -> Vec<TaskStatus> {
    scheduler
        .heard()
        .into_iter()
        .filter_map(|heard| match heard {
            SchedulerHeard::StatusUpdated(message) => Some(message.update.status),
            _ => None,
        })
        .collect()
}

pub(crate) fn task(id: &str, agent: &AgentId) -> TaskInfo {
    TaskInfo::new(id, agent.clone(), "cpus:1;mem:64".parse().unwrap(), "true")
}

pub(crate) fn accept(
    scheduler: &End<SchedulerHeard>,
    id: &FrameworkId,
    offer: &Offer,
    tasks: Vec<TaskInfo>,
) {
    scheduler.say(AcceptOffers {
        framework_id: id.clone(),
        offer_ids: vec![offer.id.clone()],
        operations: vec![Operation::launch(tasks)],
        filters: Filters::refusing(0.0),
    });
}

pub(crate) fn update(
    framework: &FrameworkId,
    agent: &AgentId,
    task: &str,
    state: TaskState,
    uuid: u8,
) -> UpdateStatus {
    let uuid = Some(UpdateId::from_bytes([uuid; 16]));
    let mut status = TaskStatus::new(task, state);
    status.agent_id = Some(agent.clone());
    status.uuid = uuid;
    UpdateStatus {
        update: StatusUpdate {
            framework_id: framework.clone(),
            agent_id: Some(agent.clone()),
            latest_state: Some(state),
            status,
            uuid,
            ..StatusUpdate::default()
        },
    }
}

/// An agent, a framework, and one task `t` launched between them.
pub(crate) fn launched(
    world: &World,
    framework: FrameworkInfo,
) -> (End<AgentHeard>, AgentId, End<SchedulerHeard>, FrameworkId) {
    let (agent, agent_id) = world.registered_agent();
    let (scheduler, id) = world.subscribed(framework);
    world.advance(1);
    let offer = offers(&scheduler).remove(0);
    accept(&scheduler, &id, &offer, vec![task("t", &agent_id)]);
    let heard = agent.heard();
    assert!(heard.iter().any(|heard| matches!(heard, AgentHeard::RunTask(run) if run.task.task_id == TaskId::new("t"))), "{heard:?}");
    (agent, agent_id, scheduler, id)
}

/// The agent registers again with its id, and reports its task `t` in this state.
pub(crate) fn comes_back(
    agent: &End<AgentHeard>,
    agent_id: &AgentId,
    id: &FrameworkId,
    state: TaskState,
) {
    let mut reported = Task::new(&task("t", agent_id), id, "nobody");
    reported.state = state;
    let mut info = framework();
    info.id = Some(id.clone());
    agent.say(ReregisterAgent {
        agent: agent_info(Some(agent_id.clone())),
        version: "1.0.0".into(),
        capabilities: vec![
            AgentCapability::MultiRole,
            AgentCapability::HierarchicalRole,
        ],
        tasks: vec![reported],
        frameworks: vec![info],
        ..ReregisterAgent::default()
    });
}

/// A framework that knows no states for partitions.
pub(crate) fn plain() -> FrameworkInfo {
    let mut plain = framework();
    plain.capabilities = FrameworkCapabilities::default();
    plain.roles.clear();
    plain
}

/// What the framework is told about task `task` when it asks, naming this agent.
pub(crate) fn asked_about(
    scheduler: &End<SchedulerHeard>,
    id: &FrameworkId,
    task: &str,
    agent_id: &AgentId,
) -> Vec<TaskState> {
    scheduler.heard();
    let question = TaskQuestion {
        task_id: TaskId::new(task),
        agent_id: Some(agent_id.clone()),
    };
    scheduler.say(ReconcileTasks {
        framework_id: id.clone(),
        tasks: vec![question],
    });
    let told = statuses(scheduler).into_iter();
    told.map(|status| status.state).collect()
}

/// What the framework is told about all its tasks when it asks, with each task's id.
pub(crate) fn asked_about_all(
    scheduler: &End<SchedulerHeard>,
    id: &FrameworkId,
) -> Vec<(String, TaskState)> {
    scheduler.heard();
    scheduler.say(ReconcileTasks {
        framework_id: id.clone(),
        tasks: Vec::new(),
    });
    let told = statuses(scheduler).into_iter();
    told.map(|status| (status.task_id.to_string(), status.state))
        .collect()
}

/// The framework has dealt with an update of task `t`.
pub(crate) fn acknowledge(
    scheduler: &End<SchedulerHeard>,
    id: &FrameworkId,
    agent_id: &AgentId,
    task: &str,
    uuid: u8,
) {
    scheduler.say(AcknowledgeStatus {
        framework_id: id.clone(),
        agent_id: agent_id.clone(),
        task_id: TaskId::new(task),
        uuid: UpdateId::from_bytes([uuid; 16]),
    });
}
