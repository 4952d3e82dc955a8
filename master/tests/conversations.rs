//! The master's conversations with agents and schedulers, over the in-memory network and a paused clock: who is told
//! what, in which case. The test plays the other ends with probes.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::large_enum_variant,
    reason = "a test fails by panicking, and looks for one kind of event among all"
)]

use std::marker::PhantomData;
use std::time::Duration;

use meseta_master::Config;
use meseta_protocol::agent::{AgentCapability, AgentInfo};
use meseta_protocol::framework::{FrameworkCapabilities, FrameworkInfo};
use meseta_protocol::messages::Led;
use meseta_protocol::messages::agent::{
    AcknowledgeAgentStatus, AgentRegistered, AgentReregistered, KillAgentTask, Ping, Pong,
    RegisterAgent, ReregisterAgent, RunTask, ShutdownAgent, ShutdownFramework, UnregisterAgent,
    UpdateStatus,
};
use meseta_protocol::messages::scheduler::{
    AcceptOffers, AcknowledgeStatus, AgentLost, DeclineOffers, FrameworkError, FrameworkSubscribed,
    KillTask, OfferRescinded, ReconcileTasks, ResourceOffers, ReviveOffers, StatusUpdated,
    SubscribeFramework, TaskQuestion, TeardownFramework,
};
use meseta_protocol::offer::{Filters, Offer};
use meseta_protocol::operation::Operation;
use meseta_protocol::status::{StatusReason, StatusUpdate, TaskState, TaskStatus};
use meseta_protocol::task::{Task, TaskInfo};
use meseta_protocol::{AgentId, FrameworkId, TaskId, UpdateId};
use meseta_runtime::testing::{ANY, Event, Observed as _, Probe};
use meseta_runtime::transport::memory::MemoryNetwork;
use meseta_runtime::{Address, Clock, Message, Node, Pid};

const EPOCH: u64 = 1;

/// What one end of a conversation may hear.
trait Hears: Sized {
    /// What came, when it is one of these.
    fn of(event: &Event) -> Option<Self>;
}

macro_rules! hears {
    ($heard:ident [ $($message:ident),* ]) => {
        #[derive(Debug, Clone, PartialEq)]
        enum $heard { $($message($message)),* }

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
    AgentRegistered, AgentReregistered, Ping, RunTask, KillAgentTask, AcknowledgeAgentStatus, ShutdownFramework, ShutdownAgent
]);
hears!(SchedulerHeard [
    FrameworkSubscribed, ResourceOffers, OfferRescinded, StatusUpdated, AgentLost, FrameworkError
]);

/// One end of a conversation with the master, which the test plays.
struct End<H> {
    node: Node,
    probe: Probe,
    master: Pid,
    heard: PhantomData<H>,
}

impl<H: Hears> End<H> {
    fn say<M: Message>(&self, message: M) {
        self.probe.send(&self.master, message);
        self.node.clock().settle();
    }
    fn heard(&self) -> Vec<H> {
        self.probe.everything().iter().filter_map(H::of).collect()
    }
    fn address(&self) -> &Address {
        self.node.address()
    }
}

struct World {
    clock: Clock,
    network: MemoryNetwork,
    master: Pid,
    node: Node,
}

impl World {
    fn new() -> Self {
        let (clock, network) = (Clock::paused(), MemoryNetwork::new(1));
        let builder = Node::builder().memory(&network).clock(clock.clone());
        let node = builder.role("master").seed(1).start().unwrap();
        let master = meseta_master::start(&node, Config::new(EPOCH, "master-host")).unwrap();
        Self {
            clock,
            network,
            master,
            node,
        }
    }

    fn node(&self, role: &str) -> Node {
        let builder = Node::builder()
            .memory(&self.network)
            .clock(self.clock.clone());
        builder.role(role).start().unwrap()
    }

    /// An end of this role and id.
    fn end<H>(&self, role: &str, id: &str) -> End<H> {
        let node = self.node(role);
        End {
            probe: node.testing().probe(id).unwrap(),
            node,
            master: self.master.clone(),
            heard: PhantomData,
        }
    }

    fn agent(&self) -> End<AgentHeard> {
        self.end("agent", "slave(1)")
    }

    /// An agent that has registered with 4 cpus and 4096 MiB.
    fn registered_agent(&self) -> (End<AgentHeard>, AgentId) {
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

    fn scheduler(&self) -> End<SchedulerHeard> {
        self.end("scheduler", "scheduler-1")
    }

    fn subscribed(&self, framework: FrameworkInfo) -> (End<SchedulerHeard>, FrameworkId) {
        let scheduler = self.scheduler();
        let id = subscribe(&scheduler, framework);
        (scheduler, id)
    }

    fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.node.shutdown();
    }
}

fn agent_info(id: Option<AgentId>) -> AgentInfo {
    let mut info = AgentInfo::new("agent-host", "cpus:4;mem:4096".parse().unwrap());
    info.id = id;
    info
}

fn subscribe(scheduler: &End<SchedulerHeard>, framework: FrameworkInfo) -> FrameworkId {
    scheduler.say(SubscribeFramework {
        framework,
        force: true,
        ..SubscribeFramework::default()
    });
    // Offers may have come with it, and are looked at later.
    let subscribed = scheduler.probe.find::<Led<FrameworkSubscribed>>();
    subscribed.message.message.framework_id
}

fn framework() -> FrameworkInfo {
    FrameworkInfo::new("nobody", "test")
}

fn offers(scheduler: &End<SchedulerHeard>) -> Vec<Offer> {
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

fn statuses(scheduler: &End<SchedulerHeard>) -> Vec<TaskStatus> {
    scheduler
        .heard()
        .into_iter()
        .filter_map(|heard| match heard {
            SchedulerHeard::StatusUpdated(message) => Some(message.update.status),
            _ => None,
        })
        .collect()
}

fn task(id: &str, agent: &AgentId) -> TaskInfo {
    TaskInfo::new(id, agent.clone(), "cpus:1;mem:64".parse().unwrap(), "true")
}

fn accept(scheduler: &End<SchedulerHeard>, id: &FrameworkId, offer: &Offer, tasks: Vec<TaskInfo>) {
    scheduler.say(AcceptOffers {
        framework_id: id.clone(),
        offer_ids: vec![offer.id.clone()],
        operations: vec![Operation::launch(tasks)],
        filters: Filters::refusing(0.0),
    });
}

fn update(
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
fn launched(
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
fn comes_back(agent: &End<AgentHeard>, agent_id: &AgentId, id: &FrameworkId, state: TaskState) {
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

#[test]
fn a_repeated_registration_gets_the_same_id() {
    let world = World::new();
    let (agent, id) = world.registered_agent();
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
    assert!(
        matches!(&heard[..], [AgentHeard::AgentRegistered(again)] if again.agent_id == id),
        "{heard:?}"
    );
}

#[test]
fn a_task_goes_from_offer_to_acknowledged_end() {
    let world = World::new();
    let (agent, agent_id, scheduler, id) = launched(&world, framework());
    for (state, uuid) in [(TaskState::Running, 1), (TaskState::Finished, 2)] {
        agent.say(update(&id, &agent_id, "t", state, uuid));
        let told = statuses(&scheduler);
        assert_eq!(
            told.iter().map(|status| status.state).collect::<Vec<_>>(),
            [state]
        );
        scheduler.say(AcknowledgeStatus {
            framework_id: id.clone(),
            agent_id: agent_id.clone(),
            task_id: TaskId::new("t"),
            uuid: UpdateId::from_bytes([uuid; 16]),
        });
        let heard = agent.heard();
        assert!(
            matches!(&heard[..], [AgentHeard::AcknowledgeAgentStatus(ack)] if ack.uuid == UpdateId::from_bytes([uuid; 16])),
            "{heard:?}"
        );
    }
    // All of the agent is offered again.
    world.advance(1);
    let cpus: f64 = offers(&scheduler)
        .iter()
        .filter_map(|offer| offer.resources.cpus())
        .map(|cpus| cpus.as_f64())
        .sum();
    assert!((cpus - 4.0).abs() < 1e-9, "{cpus}");
    // The id may be used again, and reconciliation no longer knows it as live.
    scheduler.say(ReconcileTasks {
        framework_id: id,
        tasks: Vec::new(),
    });
    assert_eq!(statuses(&scheduler), []);
}

#[test]
fn a_declined_offer_comes_again_when_its_filter_has_expired_or_offers_are_revived() {
    let world = World::new();
    let (_agent, _) = world.registered_agent();
    let (scheduler, id) = world.subscribed(framework());
    world.advance(1);
    let first = offers(&scheduler);
    let decline = |offers: &[Offer], seconds| {
        scheduler.say(DeclineOffers {
            framework_id: id.clone(),
            offer_ids: offers.iter().map(|offer| offer.id.clone()).collect(),
            filters: Filters::refusing(seconds),
        });
    };
    decline(&first, 5.0);
    world.advance(4);
    assert_eq!(offers(&scheduler), []);
    world.advance(3);
    let second = offers(&scheduler);
    assert_eq!(second.len(), 1);
    decline(&second, 1000.0);
    world.advance(10);
    assert_eq!(offers(&scheduler), []);
    scheduler.say(ReviveOffers {
        framework_id: id.clone(),
        roles: Vec::new(),
    });
    assert_eq!(offers(&scheduler).len(), 1);
}

#[test]
fn bad_accepts_are_answered_task_by_task() {
    let world = World::new();
    let (agent, agent_id) = world.registered_agent();
    let (scheduler, id) = world.subscribed(framework());
    world.advance(1);
    let offer = offers(&scheduler).remove(0);
    let too_large = TaskInfo::new(
        "large",
        agent_id.clone(),
        "cpus:8;mem:64".parse().unwrap(),
        "true",
    );
    accept(
        &scheduler,
        &id,
        &offer,
        vec![too_large, task("fits", &agent_id), task("fits", &agent_id)],
    );
    let told: Vec<_> = statuses(&scheduler)
        .into_iter()
        .map(|s| (s.task_id, s.state, s.reason))
        .collect();
    let error = |id: &str| {
        (
            TaskId::new(id),
            TaskState::Error,
            Some(StatusReason::TaskInvalid),
        )
    };
    assert_eq!(told, [error("large"), error("fits")]);
    assert_eq!(
        agent
            .heard()
            .iter()
            .filter(|heard| matches!(heard, AgentHeard::RunTask(_)))
            .count(),
        1
    );
    // The same offer again is no longer valid.
    accept(&scheduler, &id, &offer, vec![task("late", &agent_id)]);
    let told = statuses(&scheduler);
    assert_eq!(
        (told[0].state, told[0].reason),
        (TaskState::Dropped, Some(StatusReason::InvalidOffers))
    );
    let text = told[0].message.clone().unwrap();
    assert_eq!(
        text,
        format!(
            "Task launched with invalid offers: Offer {} is no longer valid",
            offer.id
        )
    );
}

#[test]
fn a_silent_agent_is_unreachable_after_five_missed_pings_and_welcome_when_it_returns() {
    let world = World::new();
    let (agent, agent_id, scheduler, id) = launched(&world, framework());
    world.advance(73);
    assert_eq!(statuses(&scheduler), []);
    world.advance(2);
    let heard = scheduler.heard();
    let told = heard.iter().find_map(|heard| match heard {
        SchedulerHeard::StatusUpdated(message) => Some(&message.update.status),
        _ => None,
    });
    let told = told.unwrap();
    assert_eq!(
        (told.state, told.reason),
        (TaskState::Unreachable, Some(StatusReason::AgentRemoved))
    );
    assert!(told.unreachable_time.is_some() && told.uuid.is_none());
    assert!(heard.contains(&SchedulerHeard::AgentLost(AgentLost {
        agent_id: agent_id.clone()
    })));
    // Asked about it, the master says the same.
    let question = TaskQuestion {
        task_id: TaskId::new("t"),
        agent_id: Some(agent_id.clone()),
    };
    scheduler.say(ReconcileTasks {
        framework_id: id.clone(),
        tasks: vec![question],
    });
    assert_eq!(statuses(&scheduler)[0].state, TaskState::Unreachable);
    // It comes back with the task still running.
    comes_back(&agent, &agent_id, &id, TaskState::Running);
    let told = statuses(&scheduler);
    assert_eq!(
        (told[0].state, told[0].reason),
        (TaskState::Running, Some(StatusReason::AgentReregistered))
    );
    assert!(
        agent
            .heard()
            .iter()
            .any(|heard| matches!(heard, AgentHeard::AgentReregistered(_)))
    );
}

#[test]
fn plain_frameworks_hear_lost_where_others_hear_unreachable() {
    let world = World::new();
    let mut plain = framework();
    plain.capabilities = FrameworkCapabilities::default();
    plain.roles.clear();
    let (_agent, _, scheduler, _) = launched(&world, plain);
    world.advance(80);
    assert_eq!(statuses(&scheduler)[0].state, TaskState::Lost);
}

#[test]
fn an_answering_agent_stays() {
    let world = World::new();
    let (agent, _) = world.registered_agent();
    for _ in 0..20 {
        agent.say(Pong {});
        world.advance(15);
    }
    let (scheduler, _) = world.subscribed(framework());
    world.advance(1);
    assert_eq!(offers(&scheduler).len(), 1);
}

#[test]
fn an_agent_that_disconnects_takes_uncheckpointed_tasks_with_it() {
    let world = World::new();
    let (agent, _, scheduler, _) = launched(&world, framework());
    agent.node.shutdown();
    let heard = scheduler.heard();
    let told = heard.iter().find_map(|heard| match heard {
        SchedulerHeard::StatusUpdated(message) => Some(&message.update.status),
        _ => None,
    });
    let told = told.unwrap_or_else(|| panic!("{heard:?}"));
    assert_eq!(
        (told.state, told.reason),
        (TaskState::Lost, Some(StatusReason::AgentDisconnected))
    );
    assert_eq!(
        told.message.as_deref(),
        Some("Agent agent-host disconnected")
    );
}

#[test]
fn a_framework_hears_nothing_of_a_task_after_its_end() {
    let world = World::new();
    let (agent, agent_id, scheduler, id) = launched(&world, framework());
    world
        .network
        .disconnect(agent.address(), world.master.address());
    assert_eq!(statuses(&scheduler)[0].state, TaskState::Lost);
    agent.heard();
    comes_back(&agent, &agent_id, &id, TaskState::Running);
    let heard = agent.heard();
    assert!(heard.iter().any(|heard| matches!(heard, AgentHeard::KillAgentTask(kill) if kill.task_id == TaskId::new("t"))), "{heard:?}");
    agent.say(update(&id, &agent_id, "t", TaskState::Killed, 9));
    assert_eq!(statuses(&scheduler), []);
    let heard = agent.heard();
    assert!(
        matches!(&heard[..], [AgentHeard::AcknowledgeAgentStatus(_)]),
        "{heard:?}"
    );
}

#[test]
fn a_master_without_memory_takes_tasks_from_agents_and_frameworks_at_their_word() {
    let world = World::new();
    let (agent_id, id) = (AgentId::new("old-S0"), FrameworkId::new("old-0000"));
    let agent = world.agent();
    comes_back(&agent, &agent_id, &id, TaskState::Running);
    let mut info = framework();
    info.id = Some(id.clone());
    let (scheduler, again) = world.subscribed(info);
    assert_eq!(again, id);
    world.advance(1);
    let cpus = offers(&scheduler)[0].resources.cpus().unwrap();
    assert!((cpus.as_f64() - 3.0).abs() < 1e-9);
    scheduler.say(ReconcileTasks {
        framework_id: id,
        tasks: Vec::new(),
    });
    assert_eq!(statuses(&scheduler)[0].state, TaskState::Running);
}

#[test]
fn another_scheduler_takes_a_framework_over_and_the_old_one_is_told() {
    let world = World::new();
    let (first, id) = world.subscribed(framework());
    let mut info = framework();
    info.id = Some(id.clone());
    let (second, again) = world.subscribed(info);
    assert_eq!(again, id);
    let heard = first.heard();
    assert!(
        matches!(&heard[..], [SchedulerHeard::FrameworkError(error)] if error.message == "Framework failed over"),
        "{heard:?}"
    );
    // The old one no longer speaks for the framework.
    first.say(TeardownFramework { framework_id: id });
    world.advance(1);
    assert!(
        second
            .heard()
            .iter()
            .all(|heard| !matches!(heard, SchedulerHeard::FrameworkError(_)))
    );
}

#[test]
fn a_framework_that_does_not_come_back_in_time_ends_with_its_tasks() {
    let world = World::new();
    let mut info = framework();
    info.failover_timeout = 30.0;
    let (agent, _, scheduler, id) = launched(&world, info.clone());
    scheduler.node.shutdown();
    for _ in 0..2 {
        agent.say(Pong {});
        world.advance(14);
    }
    assert!(
        agent
            .heard()
            .iter()
            .all(|heard| !matches!(heard, AgentHeard::ShutdownFramework(_)))
    );
    world.advance(3);
    assert!(
        agent
            .heard()
            .contains(&AgentHeard::ShutdownFramework(ShutdownFramework {
                framework_id: id.clone()
            }))
    );
    let late = world.scheduler();
    info.id = Some(id);
    late.say(SubscribeFramework {
        framework: info,
        force: true,
        ..SubscribeFramework::default()
    });
    let heard = late.heard();
    assert!(
        matches!(&heard[..], [SchedulerHeard::FrameworkError(error)] if error.message == "Framework has been removed"),
        "{heard:?}"
    );
}

#[test]
fn an_agent_that_sends_an_update_of_an_ended_framework_is_told_of_its_end() {
    let world = World::new();
    let (agent, agent_id, scheduler, id) = launched(&world, framework());
    let told_before = |agent: &End<AgentHeard>| {
        let heard = agent.heard().into_iter();
        heard
            .filter(|heard| matches!(heard, AgentHeard::ShutdownFramework(_)))
            .count()
    };
    scheduler.node.shutdown();
    world.advance(1);
    assert_eq!(told_before(&agent), 1);
    agent.say(update(&id, &agent_id, "refused", TaskState::Dropped, 1));
    let framework_id = id;
    assert_eq!(
        agent.heard(),
        [AgentHeard::ShutdownFramework(ShutdownFramework {
            framework_id
        })]
    );
}

#[test]
fn killing_an_unknown_task_is_answered() {
    let world = World::new();
    let (scheduler, id) = world.subscribed(framework());
    scheduler.say(KillTask {
        framework_id: id,
        task_id: TaskId::new("nothing"),
        ..KillTask::default()
    });
    let told = statuses(&scheduler);
    assert_eq!(
        (told[0].state, told[0].reason),
        (TaskState::Unknown, Some(StatusReason::Reconciliation))
    );
}

#[test]
fn of_an_accept_that_got_lost_reconciliation_says_that_its_task_is_gone() {
    let world = World::new();
    let (agent, agent_id) = world.registered_agent();
    let (scheduler, id) = world.subscribed(framework());
    world.advance(1);
    let offer = offers(&scheduler).remove(0);
    let lost = world.node.testing().drop_next::<AcceptOffers>(ANY, ANY);
    accept(&scheduler, &id, &offer, vec![task("t", &agent_id)]);
    drop(lost);
    assert_eq!((agent.heard(), statuses(&scheduler)), (vec![], vec![]));
    scheduler.say(ReconcileTasks {
        framework_id: id.clone(),
        tasks: vec![TaskQuestion {
            task_id: TaskId::new("t"),
            agent_id: Some(agent_id.clone()),
        }],
    });
    let told = statuses(&scheduler).remove(0);
    assert_eq!(
        (told.state, told.reason),
        (TaskState::Gone, Some(StatusReason::Reconciliation))
    );
    // The offer is still this framework's to use.
    accept(&scheduler, &id, &offer, vec![task("again", &agent_id)]);
    let heard = agent.heard();
    assert!(matches!(&heard[..], [AgentHeard::RunTask(_)]), "{heard:?}");
}

#[test]
fn a_kill_that_got_lost_is_repeated_by_the_framework() {
    let world = World::new();
    let (agent, _, scheduler, id) = launched(&world, framework());
    let kill = || KillTask {
        framework_id: id.clone(),
        task_id: TaskId::new("t"),
        ..KillTask::default()
    };
    let lost = agent
        .node
        .testing()
        .drop_next::<Led<KillAgentTask>>(ANY, ANY);
    scheduler.say(kill());
    assert_eq!(lost.wait().message.message.task_id, TaskId::new("t"));
    assert_eq!(agent.heard(), []);
    scheduler.say(kill());
    let heard = agent.heard();
    assert!(
        matches!(&heard[..], [AgentHeard::KillAgentTask(_)]),
        "{heard:?}"
    );
}

#[test]
fn an_agent_that_unregisters_is_removed_and_its_tasks_are_lost() {
    let world = World::new();
    let (agent, agent_id, scheduler, _) = launched(&world, framework());
    agent.say(UnregisterAgent { agent_id });
    let told = statuses(&scheduler);
    assert_eq!(told[0].state, TaskState::Lost);
    assert_eq!(
        told[0].message.as_deref(),
        Some("Agent agent-host removed: the agent unregistered")
    );
}

#[test]
fn what_a_framework_held_is_offered_again_when_it_ends() {
    let world = World::new();
    let (_agent, _, scheduler, id) = launched(&world, framework());
    scheduler.say(TeardownFramework { framework_id: id });
    let (other, _) = world.subscribed(framework());
    world.advance(2);
    let cpus: f64 = offers(&other)
        .iter()
        .filter_map(|offer| offer.resources.cpus())
        .map(|cpus| cpus.as_f64())
        .sum();
    assert!((cpus - 4.0).abs() < 1e-9, "{cpus}");
}

#[test]
fn an_end_that_waits_for_its_acknowledgement_survives_a_break() {
    let world = World::new();
    let (agent, agent_id, scheduler, id) = launched(&world, framework());
    agent.say(update(&id, &agent_id, "t", TaskState::Finished, 1));
    assert_eq!(statuses(&scheduler).len(), 1);
    world
        .network
        .disconnect(agent.address(), world.master.address());
    assert_eq!(statuses(&scheduler), []);
    comes_back(&agent, &agent_id, &id, TaskState::Finished);
    agent.say(update(&id, &agent_id, "t", TaskState::Finished, 1));
    let told: Vec<TaskState> = statuses(&scheduler).iter().map(|s| s.state).collect();
    assert_eq!(
        told,
        [TaskState::Finished],
        "sent again until it is acknowledged"
    );
}

#[test]
fn a_task_id_used_again_elsewhere_is_not_mixed_up() {
    let world = World::new();
    let (old, old_id, scheduler, id) = launched(&world, framework());
    world
        .network
        .disconnect(old.address(), world.master.address());
    assert_eq!(statuses(&scheduler)[0].state, TaskState::Lost);
    let (_new, new_id) = world.registered_agent();
    world.advance(2);
    let offer = offers(&scheduler)
        .into_iter()
        .find(|offer| offer.agent_id == new_id)
        .unwrap();
    accept(&scheduler, &id, &offer, vec![task("t", &new_id)]);
    comes_back(&old, &old_id, &id, TaskState::Running);
    let heard = old.heard();
    assert!(
        heard
            .iter()
            .any(|heard| matches!(heard, AgentHeard::KillAgentTask(_))),
        "{heard:?}"
    );
    old.say(update(&id, &old_id, "t", TaskState::Killed, 9));
    assert_eq!(statuses(&scheduler), [], "the new one lives on");
    scheduler.say(ReconcileTasks {
        framework_id: id,
        tasks: Vec::new(),
    });
    let known = statuses(&scheduler);
    assert_eq!(known[0].agent_id, Some(new_id));
}

#[test]
fn nobody_elsewhere_can_speak_as_the_allocator() {
    use meseta_master::allocator::messages::{Allocated, Allocation, RemoveAgent};
    let world = World::new();
    let (_agent, agent_id) = world.registered_agent();
    let (scheduler, id) = world.subscribed(framework());
    world.advance(1);
    offers(&scheduler);
    let stranger = world.node("master");
    let forged = Allocation {
        role: "*".into(),
        agent_id: agent_id.clone(),
        entry: 1,
        resources: "cpus:100".parse().unwrap(),
    };
    stranger.send(
        &world.master,
        Allocated {
            framework_id: id,
            offers: vec![forged],
        },
    );
    let allocator = world.node.pid("allocator(1)").unwrap();
    stranger.send(&allocator, RemoveAgent { agent_id });
    world.advance(5);
    assert_eq!(offers(&scheduler), []);
    let total = world
        .node
        .metrics()
        .value("allocator/mesos/resources/cpus/total");
    assert_eq!(total, Some(4.0));
    stranger.shutdown();
}
