//! A master that takes over the registry of another one. The test plays the log, agents and schedulers with probes, over
//! the in-memory network and a paused clock.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meseta_master::Config;
use meseta_master::gc::Keep;
use meseta_master::log::LogPids;
use meseta_master::log::action::{Position, Proposal};
use meseta_master::log::asks::{Append, LogRead, ReadLog, Truncate, Writing};
use meseta_master::log::members::Life;
use meseta_master::log::messages::{Status, StatusRequest, StatusResponse};
use meseta_master::operators::MarkAgentGone;
use meseta_master::registrar::Storage;
use meseta_master::registrar::entry::{self, Entry};
use meseta_master::registry::{Registry, RegistryOperation};
use meseta_protocol::agent::{AgentInfo, MasterInfo};
use meseta_protocol::framework::{FrameworkCapabilities, FrameworkInfo};
use meseta_protocol::messages::Led;
use meseta_protocol::messages::agent::{
    AcknowledgeAgentStatus, AgentRegistered, AgentReregistered, KillAgentTask, RegisterAgent,
    ReregisterAgent, ShutdownAgent, UpdateStatus,
};
use meseta_protocol::messages::scheduler::{
    AgentLost, FrameworkSubscribed, ReconcileTasks, StatusUpdated, SubscribeFramework, TaskQuestion,
};
use meseta_protocol::status::{StatusUpdate, TaskState, TaskStatus};
use meseta_protocol::task::{Task, TaskInfo};
use meseta_protocol::{AgentId, FrameworkId, UpdateId};
use meseta_runtime::testing::{Asked, Probe};
use meseta_runtime::transport::memory::MemoryNetwork;
use meseta_runtime::{Clock, ExitReason, Node, Pid};

const MINUTE: Duration = Duration::from_secs(60);
/// Time to come back, shorter than it takes to miss five pings.
const SHORT: Duration = Duration::from_secs(30);

fn id(n: u8) -> AgentId {
    AgentId::new(format!("old-S{n}"))
}

fn info(n: Option<u8>) -> AgentInfo {
    let mut info = AgentInfo::new("host", "cpus:4;mem:1024".parse().unwrap());
    info.id = n.map(id);
    info
}

fn framework() -> FrameworkInfo {
    FrameworkInfo::new("nobody", "test")
}

/// A registry with this many agents, numbered from 0.
fn registry(agents: u8) -> Registry {
    let mut registry = Registry::default();
    for n in 0..agents {
        let info = Arc::new(info(Some(n)));
        registry
            .apply(&RegistryOperation::AdmitAgent { info })
            .unwrap();
    }
    registry
}

/// The log tells that it ends here.
fn holds(log: &Probe, end: u64) {
    log.expect_asked::<StatusRequest>().reply(StatusResponse {
        ask: 0,
        status: Status::Voting,
        life: Life::default(),
        promised: Proposal(2),
        begin: Position(0),
        end: Position(end),
        missing: Vec::new(),
    });
}

fn written(position: u64) -> Writing {
    let position = Position(position);
    Writing::Written { position }
}

struct World {
    clock: Clock,
    network: MemoryNetwork,
    node: Node,
    log: Probe,
    master: Pid,
}

impl World {
    /// A master that finds this registry, and whose first entry is stored.
    fn new(registry: &Registry, settings: impl FnOnce(&mut Config)) -> Self {
        let world = Self::recovering(registry, settings);
        let first = world.asked();
        assert!(matches!(
            &first[..],
            [RegistryOperation::Recover {
                master: MasterInfo { .. },
                ..
            }]
        ));
        world
    }

    fn recovering(registry: &Registry, settings: impl FnOnce(&mut Config)) -> Self {
        let (clock, network) = (Clock::paused(), MemoryNetwork::new(1));
        let builder = Node::builder().memory(&network).clock(clock.clone());
        let node = builder.role("master").seed(1).start().unwrap();
        let log = node.testing().probe("log").unwrap();
        let mut config = Config::new(2, "master-host");
        config.registry = Storage::Log(LogPids {
            coordinator: log.pid().clone(),
            replica: log.pid().clone(),
        });
        settings(&mut config);
        let master = meseta_master::start(&node, config).unwrap();
        let bytes = Bytes::from(entry::encode_snapshot(0, registry).unwrap());
        holds(&log, 1);
        let read = log.expect_asked::<ReadLog>();
        assert_eq!(
            (read.message.span.from, read.message.span.to),
            (Position(1), Position(1))
        );
        read.reply(LogRead::Entries {
            entries: vec![(Position(1), bytes)],
            next: None,
        });
        Self {
            clock,
            network,
            node,
            log,
            master,
        }
    }

    /// The next entry's operations, which the log is asked to write and does.
    fn asked(&self) -> Vec<RegistryOperation> {
        let append = self.log.expect_asked::<Append>();
        self.written(append)
    }

    fn written(&self, append: Asked<Append>) -> Vec<RegistryOperation> {
        let Entry::Diff(diff) = entry::decode(&append.message.bytes).unwrap() else {
            panic!("a snapshot");
        };
        append.reply(written(diff.based_on + 1));
        self.clock.settle();
        diff.operations
    }

    fn probe(&self, role: &str, id: &str) -> (Node, Probe) {
        let builder = Node::builder()
            .memory(&self.network)
            .clock(self.clock.clone());
        let node = builder.role(role).start().unwrap();
        let probe = node.testing().probe(id).unwrap();
        (node, probe)
    }

    fn say_again(&self, agent: &Probe, n: u8) {
        let message = ReregisterAgent {
            agent: info(Some(n)),
            version: "1.0.0".to_owned(),
            ..ReregisterAgent::default()
        };
        agent.send(&self.master, message);
        self.clock.settle();
    }

    fn metric(&self, name: &str) -> f64 {
        self.node.metrics().value(name).unwrap_or_default()
    }

    fn subscribed(&self, framework: FrameworkInfo) -> (Node, Probe, FrameworkId) {
        let (node, scheduler) = self.probe("scheduler", "scheduler-1");
        let subscribe = SubscribeFramework {
            framework,
            ..SubscribeFramework::default()
        };
        scheduler.send(&self.master, subscribe);
        let subscribed = scheduler.find::<Led<FrameworkSubscribed>>();
        let id = subscribed.message.message.framework_id;
        (node, scheduler, id)
    }
}

#[test]
fn an_awaited_agent_returns_without_a_write() {
    let world = World::new(&registry(1), |_| {});
    let (_node, agent) = world.probe("agent", "slave(1)");
    world.say_again(&agent, 0);
    let answer = agent.find::<Led<AgentReregistered>>();
    assert_eq!(answer.message.message.agent_id, id(0));
    world.log.expect_nothing();
}

#[test]
fn a_new_agent_hears_that_it_is_registered_only_when_that_is_durable() {
    let world = World::new(&registry(0), |_| {});
    let (_node, agent) = world.probe("agent", "slave(1)");
    let register = RegisterAgent {
        agent: info(None),
        version: "1.0.0".to_owned(),
        ..RegisterAgent::default()
    };
    agent.send(&world.master, register);
    let append = world.log.expect_asked::<Append>();
    world.clock.settle();
    assert!(agent.all::<Led<AgentRegistered>>().is_empty());
    let operations = world.written(append);
    assert!(matches!(
        &operations[..],
        [RegistryOperation::AdmitAgent { .. }]
    ));
    agent.find::<Led<AgentRegistered>>();
}

#[test]
fn agents_that_stay_away_are_marked_unreachable_and_frameworks_hear_of_it() {
    let world = World::new(&registry(3), |config| {
        config.agent_reregister_timeout = SHORT;
    });
    let (_agents, agent) = world.probe("agent", "slave(1)");
    world.say_again(&agent, 1);
    let (_schedulers, scheduler, _) = world.subscribed(framework());
    world.clock.advance(SHORT);
    let mut operations = world.asked();
    operations.extend(world.asked());
    let marked: Vec<&AgentId> = operations
        .iter()
        .map(|operation| {
            let RegistryOperation::MarkAgentUnreachable { agent_id, .. } = operation else {
                panic!("{operation:?}");
            };
            agent_id
        })
        .collect();
    assert_eq!(marked, [&id(0), &id(2)]);
    let lost: Vec<AgentId> = scheduler
        .all::<Led<AgentLost>>()
        .into_iter()
        .map(|received| received.message.message.agent_id)
        .collect();
    assert_eq!(lost, [id(0), id(2)]);
    let removals = world.metric("master/recovery_slave_removals");
    assert!((removals - 2.0).abs() < f64::EPSILON);
}

#[test]
fn what_was_lost_with_its_agent_is_not_heard_of_again_under_a_new_master() {
    let mut registry = registry(1);
    registry
        .apply(&RegistryOperation::MarkAgentUnreachable {
            agent_id: id(0),
            at: 1,
        })
        .unwrap();
    let world = World::new(&registry, |_| {});
    let mut plain = framework();
    plain.capabilities = FrameworkCapabilities::default();
    plain.roles.clear();
    let (_schedulers, scheduler, framework_id) = world.subscribed(plain.clone());
    plain.id = Some(framework_id.clone());
    let (_agents, agent) = world.probe("agent", "slave(1)");
    let task = TaskInfo::new("t", id(0), "cpus:1".parse().unwrap(), "true");
    agent.send(
        &world.master,
        ReregisterAgent {
            agent: info(Some(0)),
            version: "1.0.0".to_owned(),
            tasks: vec![Task::new(&task, &framework_id, "nobody")],
            frameworks: vec![plain],
            ..ReregisterAgent::default()
        },
    );
    let marked = world.asked();
    assert!(matches!(
        &marked[..],
        [RegistryOperation::MarkAgentReachable { .. }]
    ));
    let kill = agent.find::<Led<KillAgentTask>>().message.message;
    assert_eq!(kill.task_id, "t".into());
    let uuid = Some(UpdateId::from_bytes([1; 16]));
    let update = StatusUpdate {
        framework_id,
        agent_id: Some(id(0)),
        status: TaskStatus::new("t", TaskState::Killed),
        uuid,
        ..StatusUpdate::default()
    };
    agent.send(&world.master, UpdateStatus { update });
    let acknowledged = agent.find::<Led<AcknowledgeAgentStatus>>();
    assert_eq!(Some(acknowledged.message.message.uuid), uuid);
    assert!(scheduler.all::<Led<StatusUpdated>>().is_empty());
}

#[test]
fn a_master_that_misses_too_many_agents_ends() {
    let world = World::new(&registry(4), |config| {
        config.recovery_agent_removal_limit = 0.5;
    });
    world.log.link(&world.master);
    world.clock.advance(10 * MINUTE);
    let ExitReason::Failed(why) = world.log.expect_exited(&world.master) else {
        panic!("ended otherwise");
    };
    assert!(
        why.starts_with("4 of 4 agents did not register again"),
        "{why}"
    );
}

#[test]
fn a_gone_agent_is_told_to_end() {
    let mut registry = registry(1);
    registry
        .apply(&RegistryOperation::MarkAgentGone {
            agent_id: id(0),
            at: 1,
        })
        .unwrap();
    let world = World::new(&registry, |_| {});
    let (_node, agent) = world.probe("agent", "slave(1)");
    world.say_again(&agent, 0);
    let shutdown = agent.find::<Led<ShutdownAgent>>();
    assert_eq!(
        shutdown.message.message.message,
        "Agent has been marked gone"
    );
    world.log.expect_nothing();
}

#[test]
fn an_awaited_agent_that_is_marked_gone_is_awaited_no_more() {
    let world = World::new(&registry(1), |_| {});
    let (_node, scheduler, framework_id) = world.subscribed(framework());
    let ask = || {
        let question = TaskQuestion {
            task_id: "t".into(),
            agent_id: Some(id(0)),
        };
        let reconcile = ReconcileTasks {
            framework_id: framework_id.clone(),
            tasks: vec![question],
        };
        scheduler.send(&world.master, reconcile);
        world.clock.settle();
        let told = scheduler.all::<Led<StatusUpdated>>().into_iter();
        let states = told.map(|told| told.message.message.update.status.state);
        states.collect::<Vec<_>>()
    };
    assert_eq!(ask(), [], "it may bring the task");
    let (_node, operator) = world.probe("operator", "operator");
    let mark = || MarkAgentGone { agent_id: id(0) };
    let first = operator.ask(&world.master, mark());
    world.clock.settle();
    let append = world.log.expect_asked::<Append>();
    // While that is being stored nothing else is begun with the agent, and nobody hears of it.
    let second = operator.ask(&world.master, mark()).wait();
    assert_eq!(
        second.refused.as_deref(),
        Some("Agent 'old-S0' is in transition: try again")
    );
    assert_eq!(ask(), []);
    let stored = world.written(append);
    assert!(
        matches!(&stored[..], [RegistryOperation::MarkAgentGone { agent_id, .. }] if *agent_id == id(0)),
        "{stored:?}"
    );
    assert_eq!(first.wait().refused, None);
    assert_eq!(ask(), [TaskState::GoneByOperator]);
    let (_node, agent) = world.probe("agent", "slave(1)");
    world.say_again(&agent, 0);
    agent.find::<Led<ShutdownAgent>>();
}

#[test]
fn a_master_whose_store_takes_too_long_ends() {
    let world = World::new(&registry(0), |_| {});
    let (_node, agent) = world.probe("agent", "slave(1)");
    world.log.link(&world.master);
    let register = RegisterAgent {
        agent: info(None),
        version: "1.0.0".to_owned(),
        ..RegisterAgent::default()
    };
    agent.send(&world.master, register);
    let _never_answered = world.log.expect_asked::<Append>();
    world.log.expect_exited_within(&world.master, MINUTE);
    assert!(agent.all::<Led<AgentRegistered>>().is_empty());
}

#[test]
fn a_master_that_is_not_the_writer_any_more_ends() {
    let world = World::recovering(&registry(0), |_| {});
    world.log.link(&world.master);
    let append = world.log.expect_asked::<Append>();
    append.reply(Writing::Demoted);
    world.log.expect_exited(&world.master);
}

#[test]
fn old_entries_of_the_registry_are_forgotten() {
    let mut registry = registry(2);
    for n in 0..2 {
        let (agent_id, at) = (id(n), u64::from(n));
        registry
            .apply(&RegistryOperation::MarkAgentUnreachable { agent_id, at })
            .unwrap();
    }
    let world = World::new(&registry, |config| {
        config.registry_keep = Keep {
            count: 1,
            age: Duration::MAX,
        };
    });
    world.clock.advance(15 * MINUTE);
    let operations = world.asked();
    let [RegistryOperation::Prune { unreachable, gone }] = &operations[..] else {
        panic!("{operations:?}");
    };
    assert_eq!(unreachable.iter().collect::<Vec<_>>(), [&id(0)]);
    assert!(gone.is_empty());
    world.clock.advance(15 * MINUTE);
    world.log.expect_nothing();
}

#[test]
fn agents_are_removed_no_faster_than_the_rate_allows() {
    let world = World::new(&registry(2), |config| {
        config.agent_reregister_timeout = SHORT;
        config.agent_removal_rate_limit = Some("1/5mins".parse().unwrap());
    });
    world.clock.advance(SHORT);
    assert_eq!(world.asked().len(), 1);
    let (_node, agent) = world.probe("agent", "slave(1)");
    world.say_again(&agent, 1);
    world.clock.advance(5 * MINUTE);
    assert!((world.metric("master/slave_unreachable_canceled") - 1.0).abs() < f64::EPSILON);
}

#[test]
fn a_snapshot_is_followed_by_a_truncation() {
    // The first entry of an empty log is a snapshot.
    let (clock, network) = (Clock::paused(), MemoryNetwork::new(1));
    let builder = Node::builder().memory(&network).clock(clock.clone());
    let node = builder.role("master").seed(1).start().unwrap();
    let log = node.testing().probe("log").unwrap();
    let mut config = Config::new(1, "master-host");
    config.registry = Storage::Log(LogPids {
        coordinator: log.pid().clone(),
        replica: log.pid().clone(),
    });
    meseta_master::start(&node, config).unwrap();
    holds(&log, 0);
    let append = log.expect_asked::<Append>();
    let entry = entry::decode(&append.message.bytes).unwrap();
    assert!(matches!(entry, Entry::Snapshot(_)));
    append.reply(written(1));
    let truncate = log.expect_asked::<Truncate>();
    assert_eq!(truncate.message.to, Position(1));
    truncate.reply(written(2));
    assert!(node.metrics().value("registrar/state_fetch_ms").is_some());
}
