//! The bytes of every message, recorded when it was first made, and read by every later version.
//!
//! Each file `fixtures/<NAME>.v<VERSION>.msgpack` must decode to the sample below. A new message gets its file with
//! `MESETA_RECORD_FIXTURES=1 cargo test -p meseta-protocol --test fixtures`, which never overwrites one: recorded
//! bytes are what older programs send. When a message gains a field, raise its version, keep the old file in
//! `fixtures/`, and record a new one.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: a failure here is the test's failure"
)]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::PathBuf;

use meseta_protocol::agent::{
    AgentCapability, AgentInfo, DomainInfo, DrainConfig, MasterCapability, MasterInfo,
};
use meseta_protocol::attributes::parse_attributes;
use meseta_protocol::common::{CommandInfo, DurationInfo, Labels};
use meseta_protocol::container::{ContainerInfo, ContainerStatus, NetworkInfo, Volume};
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::framework::{
    AttributeConstraint, AttributePredicate, AttributeSelector, ConstraintGroup, FrameworkInfo,
    OfferConstraints, Present, RoleConstraints,
};
use meseta_protocol::messages::{Led, MasterMessage, NAMES, agent, election, executor, scheduler};
use meseta_protocol::offer::{AllocationInfo, Filters, Offer};
use meseta_protocol::operation::Operation;
use meseta_protocol::resources::{
    DiskInfo, Reservation, Resource, ResourceLimits, Resources, Scalar,
};
use meseta_protocol::status::{StatusReason, StatusSource, StatusUpdate, TaskState, TaskStatus};
use meseta_protocol::task::{
    CheckType, HealthCheck, KillPolicy, Task, TaskGroupInfo, TaskInfo, TcpHealthCheck,
};
use meseta_protocol::{ContainerId, UpdateId};
use meseta_runtime::Message;
use serde_bytes::ByteBuf;

/// Files that have been looked at.
#[derive(Default)]
struct Recorded(BTreeSet<String>);

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

impl Recorded {
    fn check<M: Message + PartialEq + Debug>(&mut self, sample: M) {
        let path = folder().join(format!("{}.v{}.msgpack", M::NAME, M::VERSION));
        if !path.exists() && std::env::var_os("MESETA_RECORD_FIXTURES").is_some() {
            std::fs::write(&path, rmp_serde::to_vec_named(&sample).unwrap()).unwrap();
        }
        let bytes = std::fs::read(&path)
            .unwrap_or_else(|error| panic!("{}: {error}: record it first", path.display()));
        let read: M = rmp_serde::from_slice(&bytes)
            .unwrap_or_else(|error| panic!("{} is no longer read: {error}", path.display()));
        assert_eq!(read, sample, "{} means something else now", path.display());
        self.0.insert(M::NAME.to_owned());
    }

    /// That the bytes of an older version are still read.
    fn check_older<M: Message + PartialEq + Debug>(&self, version: u16, sample: &M) {
        let path = folder().join(format!("{}.v{version}.msgpack", M::NAME));
        let bytes = std::fs::read(&path).unwrap();
        let read: M = rmp_serde::from_slice(&bytes)
            .unwrap_or_else(|error| panic!("{} is no longer read: {error}", path.display()));
        assert_eq!(read, *sample, "{} means something else now", path.display());
    }

    fn check_led<M: MasterMessage + PartialEq + Debug>(&mut self, message: M) {
        self.check(Led {
            leader_epoch: 7,
            message,
        });
    }
}

fn uuid() -> UpdateId {
    UpdateId::from_bytes([0xA5; 16])
}

fn data() -> ByteBuf {
    ByteBuf::from([0, 1, 0xFE, 0xFF])
}

fn grace() -> Option<KillPolicy> {
    Some(KillPolicy {
        grace_period: Some(DurationInfo {
            nanoseconds: 3_000_000_000,
        }),
    })
}

fn resources() -> Resources {
    let plain: Resources = "cpus:1.5; mem:128; ports:[31000-31001]; ssd:{a}"
        .parse()
        .unwrap();
    let volume = Resource::scalar("disk", Scalar::whole(64))
        .reserved_by(Reservation::fixed("eng"))
        .reserved_by(Reservation::dynamic("eng/web").by("ops"))
        .on_disk(DiskInfo::persistent("v-1", "data"));
    (plain + &volume).allocated(&"eng/web".into())
}

fn framework() -> FrameworkInfo {
    FrameworkInfo {
        id: Some("F-0001".into()),
        failover_timeout: 60.0,
        checkpoint: true,
        labels: Some(Labels::of([("team", "web")])),
        ..FrameworkInfo::new("nobody", "sample").in_roles(["eng/web"])
    }
}

fn agent_info() -> AgentInfo {
    AgentInfo {
        id: Some("M-S0".into()),
        attributes: parse_attributes("rack:a;level:3;keys:[1-2]").unwrap(),
        domain: Some(DomainInfo::new("eu", "a")),
        ..AgentInfo::new("host-1", resources().unallocated())
    }
}

fn task() -> TaskInfo {
    let script = CommandInfo::shell("sleep 1").with_variable("A", "b");
    TaskInfo {
        command: Some(script),
        limits: ResourceLimits::new().with("mem", Scalar::INFINITE),
        container: Some(ContainerInfo {
            volumes: vec![Volume::writable("data")],
            ..ContainerInfo::mesos()
        }),
        data: Some(data()),
        health_check: Some(HealthCheck {
            kind: Some(CheckType::Tcp),
            tcp: Some(TcpHealthCheck {
                port: 31000,
                ..TcpHealthCheck::default()
            }),
            ..HealthCheck::default()
        }),
        kill_policy: grace(),
        ..TaskInfo::new("t-1", "M-S0", resources(), "")
    }
}

fn group() -> TaskGroupInfo {
    TaskGroupInfo {
        tasks: vec![task()],
    }
}

fn executor_info() -> ExecutorInfo {
    ExecutorInfo {
        framework_id: Some("F-0001".into()),
        ..ExecutorInfo::custom("e-1", CommandInfo::exec("/bin/executor", ["-v"]))
    }
}

fn status() -> TaskStatus {
    TaskStatus {
        agent_id: Some("M-S0".into()),
        executor_id: Some("e-1".into()),
        timestamp: Some(1.5),
        uuid: Some(uuid()),
        healthy: Some(false),
        container_status: Some(ContainerStatus {
            container_id: Some(ContainerId::top("c").child("d")),
            network_infos: vec![NetworkInfo::default()],
            executor_pid: Some(42),
        }),
        ..TaskStatus::new("t-1", TaskState::Running)
            .because(
                StatusSource::Executor,
                StatusReason::TaskHealthCheckStatusUpdated,
            )
            .saying("ill")
    }
}

fn update() -> StatusUpdate {
    StatusUpdate {
        framework_id: "F-0001".into(),
        executor_id: Some("e-1".into()),
        agent_id: Some("M-S0".into()),
        status: status(),
        timestamp: 1.5,
        uuid: Some(uuid()),
        latest_state: Some(TaskState::Finished),
    }
}

fn record() -> Task {
    Task {
        status_update_state: Some(TaskState::Running),
        status_update_uuid: Some(uuid()),
        statuses: vec![status()],
        ..Task::new(&task(), &"F-0001".into(), "nobody")
    }
}

fn schedulers(recorded: &mut Recorded) {
    let group_of = ConstraintGroup {
        attribute_constraints: vec![AttributeConstraint {
            selector: AttributeSelector {
                attribute_name: Some("rack".into()),
                ..AttributeSelector::default()
            },
            predicate: AttributePredicate {
                exists: Some(Present {}),
                ..AttributePredicate::default()
            },
        }],
    };
    let constraints = RoleConstraints {
        groups: vec![group_of],
    };
    recorded.check(scheduler::SubscribeFramework {
        framework: framework(),
        suppressed_roles: vec!["eng/web".into()],
        force: true,
        offer_constraints: Some(OfferConstraints {
            role_constraints: [("eng/web".into(), constraints)].into(),
        }),
    });
    let framework_id = || "F-0001".into();
    let roles = || vec!["eng/web".into()];
    recorded.check(scheduler::TeardownFramework {
        framework_id: framework_id(),
    });
    recorded.check(scheduler::DeactivateFramework {
        framework_id: framework_id(),
    });
    recorded.check(scheduler::AcceptOffers {
        framework_id: framework_id(),
        offer_ids: vec!["M-O1".into()],
        operations: vec![
            Operation {
                id: Some("o-1".into()),
                ..Operation::reserve(resources())
            },
            Operation::launch([task()]),
            Operation::launch_group(executor_info(), [task()]),
        ],
        filters: Filters::refusing(0.5),
    });
    recorded.check(scheduler::DeclineOffers {
        framework_id: framework_id(),
        offer_ids: vec!["M-O1".into()],
        filters: Filters::default(),
    });
    recorded.check(scheduler::ReviveOffers {
        framework_id: framework_id(),
        roles: roles(),
    });
    recorded.check(scheduler::SuppressOffers {
        framework_id: framework_id(),
        roles: roles(),
    });
    recorded.check(scheduler::KillTask {
        framework_id: framework_id(),
        task_id: "t-1".into(),
        agent_id: Some("M-S0".into()),
        kill_policy: grace(),
    });
    recorded.check(scheduler::ShutdownExecutor {
        framework_id: framework_id(),
        executor_id: "e-1".into(),
        agent_id: "M-S0".into(),
    });
    recorded.check(scheduler::AcknowledgeStatus {
        framework_id: framework_id(),
        agent_id: "M-S0".into(),
        task_id: "t-1".into(),
        uuid: uuid(),
    });
    recorded.check(scheduler::ReconcileTasks {
        framework_id: framework_id(),
        tasks: vec![scheduler::TaskQuestion {
            task_id: "t-1".into(),
            agent_id: None,
        }],
    });
    recorded.check(scheduler::FrameworkMessage {
        framework_id: framework_id(),
        agent_id: "M-S0".into(),
        executor_id: "e-1".into(),
        data: data(),
    });
    recorded.check(scheduler::RequestResources {
        framework_id: framework_id(),
        requests: vec![scheduler::ResourceRequest {
            agent_id: None,
            resources: resources(),
        }],
    });
    recorded.check_led(scheduler::FrameworkSubscribed {
        framework_id: framework_id(),
        master_info: MasterInfo {
            id: "M".into(),
            port: 5050,
            pid: Some("master@127.0.0.1:5050".into()),
            capabilities: vec![MasterCapability::AgentDraining],
            ..MasterInfo::default()
        },
        resubscribed: true,
    });
    recorded.check_led(scheduler::ResourceOffers {
        offers: vec![Offer {
            id: "M-O1".into(),
            framework_id: framework_id(),
            agent_id: "M-S0".into(),
            hostname: "host-1".into(),
            resources: resources(),
            executor_ids: vec!["e-1".into()],
            allocation_info: Some(AllocationInfo {
                role: Some("eng/web".into()),
            }),
            ..Offer::default()
        }],
    });
    recorded.check_led(scheduler::OfferRescinded {
        offer_id: "M-O1".into(),
    });
    recorded.check_led(scheduler::StatusUpdated { update: update() });
    recorded.check_led(scheduler::ExecutorMessage {
        agent_id: "M-S0".into(),
        executor_id: "e-1".into(),
        data: data(),
    });
    recorded.check_led(scheduler::AgentLost {
        agent_id: "M-S0".into(),
    });
    recorded.check_led(scheduler::ExecutorLost {
        agent_id: "M-S0".into(),
        executor_id: "e-1".into(),
        status: 768,
    });
    recorded.check_led(scheduler::FrameworkError {
        message: "Framework has been removed".into(),
    });
}

fn agents(recorded: &mut Recorded) {
    let agent_id = || "M-S0".into();
    let framework_id = || "F-0001".into();
    let capabilities = || vec![AgentCapability::MultiRole, AgentCapability::AgentDraining];
    recorded.check(agent::RegisterAgent {
        agent: AgentInfo {
            id: None,
            ..agent_info()
        },
        version: "0.1.0".into(),
        capabilities: capabilities(),
        checkpointed_resources: resources().unallocated(),
        resource_version_uuid: Some(uuid()),
    });
    let reregister = agent::ReregisterAgent {
        agent: agent_info(),
        version: "0.1.0".into(),
        capabilities: capabilities(),
        checkpointed_resources: resources().unallocated(),
        resource_version_uuid: Some(uuid()),
        executor_infos: vec![executor_info()],
        tasks: vec![record()],
        frameworks: vec![framework()],
        completed_frameworks: vec![framework()],
        leader_epoch: 0,
    };
    recorded.check_older(1, &reregister);
    recorded.check(agent::ReregisterAgent {
        leader_epoch: 7,
        ..reregister
    });
    recorded.check(agent::UnregisterAgent {
        agent_id: agent_id(),
    });
    recorded.check(agent::UpdateAgent {
        agent_id: agent_id(),
        update_oversubscribed_resources: true,
        oversubscribed_resources: Resource::scalar("cpus", Scalar::whole(1))
            .as_revocable()
            .into(),
        resource_version_uuid: Some(uuid()),
    });
    recorded.check(agent::UpdateStatus { update: update() });
    recorded.check(agent::ExecutorExited {
        agent_id: agent_id(),
        framework_id: framework_id(),
        executor_id: "e-1".into(),
        status: 9,
    });
    recorded.check(agent::ExecutorToFramework {
        agent_id: agent_id(),
        framework_id: framework_id(),
        executor_id: "e-1".into(),
        data: data(),
    });
    recorded.check(agent::Pong {});
    let total_ping_timeout = DurationInfo {
        nanoseconds: 75_000_000_000,
    };
    recorded.check_led(agent::AgentRegistered {
        agent_id: agent_id(),
        total_ping_timeout,
    });
    recorded.check_led(agent::AgentReregistered {
        agent_id: agent_id(),
        total_ping_timeout,
        reconciliations: vec![agent::Reconciliation {
            framework_id: framework_id(),
            tasks: vec![record()],
        }],
    });
    recorded.check_led(agent::Ping { connected: true });
    let versions = || {
        vec![agent::ResourceVersion {
            resource_provider_id: None,
            uuid: uuid(),
        }]
    };
    recorded.check_led(agent::RunTask {
        framework_id: framework_id(),
        framework: framework(),
        task: task(),
        executor: Some(executor_info()),
        launch_executor: true,
        launch_uuid: uuid(),
        resource_version_uuids: versions(),
    });
    recorded.check_led(agent::RunTaskGroup {
        framework_id: framework_id(),
        framework: framework(),
        executor: executor_info(),
        task_group: group(),
        launch_executor: false,
        launch_uuid: uuid(),
        resource_version_uuids: versions(),
    });
    recorded.check_led(agent::KillAgentTask {
        framework_id: framework_id(),
        task_id: "t-1".into(),
        kill_policy: grace(),
    });
    recorded.check_led(agent::ShutdownFramework {
        framework_id: framework_id(),
    });
    recorded.check_led(agent::ShutdownAgentExecutor {
        framework_id: framework_id(),
        executor_id: "e-1".into(),
    });
    recorded.check_led(agent::UpdateFramework {
        framework_id: framework_id(),
        framework_info: framework(),
    });
    recorded.check_led(agent::AcknowledgeAgentStatus {
        agent_id: agent_id(),
        framework_id: framework_id(),
        task_id: "t-1".into(),
        uuid: uuid(),
    });
    recorded.check_led(agent::FrameworkToExecutor {
        agent_id: agent_id(),
        framework_id: framework_id(),
        executor_id: "e-1".into(),
        data: data(),
    });
    recorded.check_led(agent::DrainAgent {
        config: DrainConfig {
            max_grace_period: Some(total_ping_timeout),
            mark_gone: true,
        },
    });
    recorded.check_led(agent::ShutdownAgent {
        message: "Agent has been marked gone".into(),
    });
}

fn executors(recorded: &mut Recorded) {
    let framework_id = || "F-0001".into();
    let executor_id = || "e-1".into();
    recorded.check(executor::SubscribeExecutor {
        framework_id: framework_id(),
        executor_id: executor_id(),
        unacknowledged_tasks: vec![task()],
        unacknowledged_updates: vec![update()],
    });
    recorded.check(executor::UpdateTask {
        framework_id: framework_id(),
        executor_id: executor_id(),
        status: status(),
    });
    recorded.check(executor::SendToFramework {
        framework_id: framework_id(),
        executor_id: executor_id(),
        data: data(),
    });
    recorded.check(executor::ExecutorSubscribed {
        executor_info: executor_info(),
        framework_info: framework(),
        agent_info: agent_info(),
        agent_id: "M-S0".into(),
        container_id: ContainerId::top("c"),
    });
    recorded.check(executor::LaunchTask { task: task() });
    recorded.check(executor::LaunchTaskGroup {
        task_group: group(),
    });
    recorded.check(executor::KillExecutorTask {
        task_id: "t-1".into(),
        kill_policy: grace(),
    });
    recorded.check(executor::UpdateAcknowledged {
        task_id: "t-1".into(),
        uuid: uuid(),
    });
    recorded.check(executor::MessageToExecutor { data: data() });
    recorded.check(executor::ShutdownExecutorNow {});
    recorded.check(executor::ExecutorRefused {
        message: "unknown executor".into(),
    });
}

fn elections(recorded: &mut Recorded) {
    recorded.check(election::Detect {});
    recorded.check(election::Leader {
        epoch: 7,
        leader: Some("master@10.0.0.1:5050".parse().unwrap()),
        info: Some(MasterInfo {
            id: "M".into(),
            port: 5050,
            hostname: Some("one".into()),
            ..MasterInfo::default()
        }),
    });
}

#[test]
fn every_message_reads_its_recorded_bytes() {
    let mut recorded = Recorded::default();
    schedulers(&mut recorded);
    agents(&mut recorded);
    executors(&mut recorded);
    elections(&mut recorded);
    let names: BTreeSet<String> = NAMES.iter().map(ToString::to_string).collect();
    let missing: Vec<&String> = names.difference(&recorded.0).collect();
    assert!(missing.is_empty(), "no sample for {missing:?}");
    assert_eq!(recorded.0, names);
}
