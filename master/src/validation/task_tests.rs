//! Every rule about tasks and their executors with the text that frameworks see.

use meseta_protocol::common::{CommandInfo, DurationInfo, Environment, Variable};
use meseta_protocol::container::{ContainerInfo, LinuxInfo, Volume};
use meseta_protocol::executor::ExecutorType;
use meseta_protocol::resources::{DiskInfo, Reservation, Resource, Scalar};
use meseta_protocol::task::{CheckInfo, HealthCheck, KillPolicy};

use super::*;

/// A framework `f` that holds an offer of agent `s` under role `r1`.
pub(in crate::validation) struct World {
    framework_id: FrameworkId,
    agent_id: AgentId,
    capabilities: Vec<AgentCapability>,
    pub(in crate::validation) tasks: BTreeMap<TaskId, Arc<Task>>,
    unreachable: VecDeque<Arc<Task>>,
    executors: BTreeMap<ExecutorId, Arc<ExecutorInfo>>,
    remaining: Resources,
}

pub(in crate::validation) fn held(text: &str) -> Resources {
    text.parse::<Resources>().unwrap().allocated(&"r1".into())
}

impl World {
    pub(in crate::validation) fn new() -> Self {
        Self {
            framework_id: "f".into(),
            agent_id: "s".into(),
            capabilities: vec![AgentCapability::TaskResourceLimits],
            tasks: BTreeMap::new(),
            unreachable: VecDeque::new(),
            executors: BTreeMap::new(),
            remaining: held("cpus:4;mem:256;disk:100;ports:[1-9]"),
        }
    }

    pub(in crate::validation) fn around(&self) -> TaskSurroundings<'_> {
        TaskSurroundings {
            framework_id: &self.framework_id,
            agent_id: &self.agent_id,
            agent_capabilities: &self.capabilities,
            tasks: &self.tasks,
            unreachable_tasks: &self.unreachable,
            executors: &self.executors,
            remaining: &self.remaining,
        }
    }

    fn text(&self, task: &TaskInfo) -> String {
        let result = validate(task, &self.around());
        result.map_or_else(|rejection| rejection.to_string(), |()| "ok".to_owned())
    }
}

pub(in crate::validation) fn task(change: impl FnOnce(&mut TaskInfo)) -> TaskInfo {
    let mut task = TaskInfo::new("t", "s", held("cpus:1;mem:64"), "true");
    change(&mut task);
    task
}

pub(in crate::validation) fn known(id: &str) -> Task {
    Task {
        task_id: id.into(),
        agent_id: "s".into(),
        ..Task::default()
    }
}

pub(in crate::validation) fn with_executor(change: impl FnOnce(&mut ExecutorInfo)) -> TaskInfo {
    let mut executor = ExecutorInfo::custom("e", CommandInfo::shell("run"));
    executor.framework_id = Some("f".into());
    executor.resources = held("cpus:0.5;mem:32");
    change(&mut executor);
    task(|task| {
        task.command = None;
        task.executor = Some(executor);
    })
}

pub(in crate::validation) fn cgroups(shared: bool) -> ContainerInfo {
    ContainerInfo {
        linux_info: Some(LinuxInfo {
            share_cgroups: Some(shared),
            ..LinuxInfo::default()
        }),
        ..ContainerInfo::mesos()
    }
}

fn negative() -> Option<DurationInfo> {
    Some(DurationInfo { nanoseconds: -1 })
}

fn with_bad_variable() -> CommandInfo {
    let variable = Variable {
        value: None,
        ..Variable::new("A", "")
    };
    CommandInfo {
        environment: Some(Environment {
            variables: vec![variable],
        }),
        ..CommandInfo::shell("x")
    }
}

#[test]
fn rules_1_to_11_have_their_texts() {
    let mut world = World::new();
    world.tasks.insert("old".into(), known("old").into());
    world.unreachable.push_back(known("away").into());
    let revocable = || Resources::from(Resource::scalar("cpus", Scalar::whole(1)).as_revocable());
    let volume = || {
        Resource::scalar("disk", Scalar::whole(1))
            .reserved_by(Reservation::dynamic("r1"))
            .on_disk(DiskInfo::persistent("v", "path"))
            .allocated_to("r1")
    };
    type Change = Box<dyn FnOnce(&mut TaskInfo)>;
    let cases: Vec<(Change, &str)> = vec![
        (Box::new(|_| {}), "ok"),
        (Box::new(|t| t.task_id = "".into()), "ID must not be empty"),
        (
            Box::new(|t| t.task_id = "a/b".into()),
            "'a/b' contains invalid characters",
        ),
        (
            Box::new(|t| t.task_id = "old".into()),
            "Task has duplicate ID: old",
        ),
        (
            Box::new(|t| t.task_id = "away".into()),
            "Task reuses the ID of an unreachable task: away",
        ),
        (
            Box::new(|t| t.agent_id = "x".into()),
            "Task uses invalid agent x while agent s is expected",
        ),
        (
            Box::new(|t| {
                t.kill_policy = Some(KillPolicy {
                    grace_period: negative(),
                });
            }),
            "Task's 'kill_policy.grace_period' must be non-negative",
        ),
        (
            Box::new(|t| t.max_completion_time = negative()),
            "Task's `max_completion_time` must be non-negative",
        ),
        (
            Box::new(|t| t.check = Some(CheckInfo::default())),
            "Task uses invalid check: CheckInfo must specify 'type'",
        ),
        (
            Box::new(|t| t.health_check = Some(HealthCheck::default())),
            "Task uses invalid health check: HealthCheck must specify 'type'",
        ),
        (
            Box::new(|t| t.resources = Resources::new()),
            "Task uses no resources",
        ),
        (
            Box::new(|t| t.resources = held("gpus:0.5")),
            "Task uses invalid resources: Invalid 'gpus' resource: The 'gpus' resource must be an unsigned integer",
        ),
        (
            Box::new(move |t| t.resources = [volume(), volume()].into_iter().collect()),
            "Task uses duplicate persistence ID: Persistence ID 'v' is not unique",
        ),
        (
            Box::new(|t| t.resources += held("cpus:1").unallocated().allocated(&"other".into())),
            "Invalid task resources: The resources have multiple allocation roles ('other' and 'r1') but only one \
             allocation role is allowed",
        ),
        (
            Box::new(move |t| t.resources += revocable().allocated(&"r1".into())),
            "Task mixes revocable and non-revocable resources: Cannot use both revocable and non-revocable 'cpus' at \
             the same time",
        ),
        (
            Box::new(|t| t.command = Some(with_bad_variable())),
            "Task's `CommandInfo` is invalid: Environment variable 'A' of type 'VALUE' must have a value set",
        ),
        (
            Box::new(|t| {
                t.container = Some(ContainerInfo {
                    volumes: vec![Volume::writable("x")],
                    ..ContainerInfo::mesos()
                });
            }),
            "Task's `ContainerInfo` is invalid: Invalid volume: Only one of them should be set: 'host_path', 'image' \
             and 'source'",
        ),
        (Box::new(|t| t.limits.set("mem", Scalar::INFINITE)), "ok"),
        (Box::new(|t| t.limits.set("cpus", Scalar::whole(1))), "ok"),
        (
            Box::new(|t| t.limits.set("disk", Scalar::whole(1))),
            "Only cpus and mem may be included in a task's resource limits",
        ),
        (
            Box::new(|t| {
                t.resources = held("disk:1");
                t.limits.set("cpus", Scalar::whole(1));
            }),
            "When a CPU limit is specified, a CPU request must also be specified",
        ),
        (
            Box::new(|t| {
                t.resources = held("disk:1");
                t.limits.set("mem", Scalar::whole(1));
            }),
            "When a memory limit is specified, a memory request must also be specified",
        ),
        (
            Box::new(|t| t.limits.set("cpus", Scalar::from_thousandths(999))),
            "The cpu limit must be greater than or equal to the cpu request",
        ),
        (
            Box::new(|t| t.limits.set("mem", Scalar::whole(63))),
            "The memory limit must be greater than or equal to the memory request",
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(world.text(&task(change)), expected);
    }
    world.capabilities.clear();
    let limited = task(|t| t.limits.set("cpus", Scalar::whole(2)));
    assert_eq!(
        world.text(&limited),
        "Task resource limits are not supported by agent s, which lacks TASK_RESOURCE_LIMITS"
    );
}

#[test]
fn rules_12_to_16_have_their_texts() {
    let world = World::new();
    let neither =
        "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present";
    for (task, expected) in [
        (with_executor(|_| {}), "ok"),
        (with_executor(|e| e.kind = None), "ok"),
        (
            with_executor(|e| e.resources = held("cpus:0.001;mem:1")),
            "ok",
        ),
        (task(|t| t.command = None), neither),
        (
            task(|t| t.executor = with_executor(|_| {}).executor),
            neither,
        ),
        (
            with_executor(|e| {
                e.kind = Some(ExecutorType::Default);
                e.command = None;
            }),
            "'ExecutorInfo.type' must be 'CUSTOM'",
        ),
        (
            with_executor(|e| e.kind = Some(ExecutorType::Default)),
            "'ExecutorInfo.command' must not be set for 'DEFAULT' executor",
        ),
        (
            with_executor(|e| e.command = None),
            "'ExecutorInfo.command' must be set for 'CUSTOM' executor",
        ),
        (
            with_executor(|e| {
                e.kind = None;
                e.command = None;
            }),
            "'ExecutorInfo.command' must be set",
        ),
        (
            with_executor(|e| e.executor_id = "..".into()),
            "'..' is disallowed",
        ),
        (
            with_executor(|e| e.framework_id = Some("g".into())),
            "ExecutorInfo has an invalid FrameworkID (Actual: g vs Expected: f)",
        ),
        (
            with_executor(|e| e.shutdown_grace_period = negative()),
            "ExecutorInfo's 'shutdown_grace_period' must be non-negative",
        ),
        (
            with_executor(|e| e.resources = held("gpus:0.5")),
            "Executor uses invalid resources: Invalid 'gpus' resource: The 'gpus' resource must be an unsigned integer",
        ),
        (
            with_executor(|e| e.command = Some(with_bad_variable())),
            "Executor's `CommandInfo` is invalid: Environment variable 'A' of type 'VALUE' must have a value set",
        ),
        (
            with_executor(|e| e.container = Some(cgroups(true))),
            "The 'share_cgroups' field cannot be set to 'true' on executor containers",
        ),
        (
            TaskInfo {
                resources: held("cpus:1;ports:[1-3]"),
                ..with_executor(|e| e.resources = held("cpus:1;ports:[3-4]"))
            },
            "Task and its executor use invalid resources: The 'ports' of the task and of its executor overlap",
        ),
        (
            task(|t| t.resources = held("cpus:5;mem:1")),
            "Total resources cpus(allocated: r1):5; mem(allocated: r1):1 required by task and its executor is more \
             than available cpus(allocated: r1):4; mem(allocated: r1):256; disk(allocated: r1):100; ports(allocated: \
             r1):[1-9]",
        ),
        (
            task(|t| t.container = Some(cgroups(false))),
            "Only tasks in a task group may have 'share_cgroups' set to 'false'",
        ),
    ] {
        assert_eq!(world.text(&task), expected);
    }
}

#[test]
fn an_executor_is_paid_for_once_and_must_stay_the_same() {
    let mut world = World::new();
    world.remaining = held("cpus:1;mem:64");
    let launch = with_executor(|_| {});
    assert!(
        world
            .text(&launch)
            .starts_with("Total resources cpus(allocated: r1):1.5; ")
    );
    let executor = launch.executor.clone().unwrap();
    world.executors.insert("e".into(), executor.into());
    assert_eq!(world.text(&launch), "ok");
    assert_eq!(
        world.text(&with_executor(|e| e.name = Some("other".into()))),
        "ExecutorInfo is not compatible with existing ExecutorInfo with same ExecutorID. They differ in: name"
    );
    assert_eq!(validate(&launch, &world.around()), Ok(()));
    let rejection = validate(&task(|t| t.task_id = "".into()), &world.around()).unwrap_err();
    assert_eq!(rejection.reason(), StatusReason::TaskInvalid);
}
