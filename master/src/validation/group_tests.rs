//! Every rule about task groups with the text that frameworks see.

use meseta_protocol::common::CommandInfo;
use meseta_protocol::container::{ContainerInfo, Image, MesosInfo, NetworkInfo};
use meseta_protocol::executor::ExecutorType;
use meseta_protocol::task::{HealthCheck, TaskGroupInfo, TcpHealthCheck};

use super::super::task::tests::{World, cgroups, held, known, task, with_executor};
use super::*;

fn text(world: &World, group: &LaunchGroup) -> String {
    let result = validate(group, &world.around());
    result.map_or_else(|rejection| rejection.to_string(), |()| "ok".to_owned())
}

fn group(change: impl FnOnce(&mut LaunchGroup)) -> LaunchGroup {
    let mut executor = ExecutorInfo::default_executor("e", held("cpus:0.1;mem:32;disk:10"));
    executor.framework_id = Some("f".into());
    let task = |id: &str| TaskInfo {
        task_id: id.into(),
        ..task(|_| {})
    };
    let mut group = LaunchGroup {
        executor,
        task_group: TaskGroupInfo {
            tasks: vec![task("t"), task("u")],
        },
    };
    change(&mut group);
    group
}

#[test]
fn every_rule_of_groups_has_its_text() {
    let mut world = World::new();
    let tcp = HealthCheck {
        kind: Some(CheckType::Tcp),
        tcp: Some(TcpHealthCheck::default()),
        ..HealthCheck::default()
    };
    type Change = Box<dyn FnOnce(&mut LaunchGroup)>;
    let cases: Vec<(Change, &str)> = vec![
        (Box::new(|_| {}), "ok"),
        (Box::new(|g| g.task_group.tasks[0].command = None), "ok"),
        (
            Box::new(|g| {
                g.executor = with_executor(|e| e.resources = held("cpus:0.1;mem:32;disk:1"))
                    .executor
                    .unwrap();
            }),
            "ok",
        ),
        (
            Box::new(|g| g.task_group.tasks[1].task_id = "t".into()),
            "Task 't' is invalid: Task has duplicate ID: t",
        ),
        (
            Box::new(|g| g.task_group.tasks[1].agent_id = "x".into()),
            "Task 'u' is invalid: Task uses invalid agent x while agent s is expected",
        ),
        (
            Box::new(|g| g.executor.kind = None),
            "'ExecutorInfo.type' must be set",
        ),
        (
            Box::new(|g| g.executor.kind = Some(ExecutorType::Unknown)),
            "Unknown executor type",
        ),
        (
            Box::new(|g| g.executor.framework_id = None),
            "'ExecutorInfo.framework_id' must be set",
        ),
        (
            Box::new(|g| g.executor.command = Some(CommandInfo::shell("x"))),
            "'ExecutorInfo.command' must not be set for 'DEFAULT' executor",
        ),
        (
            Box::new(|g| g.executor.container = Some(ContainerInfo::default())),
            "'ExecutorInfo.container.type' must be 'MESOS' for 'DEFAULT' executor",
        ),
        (
            Box::new(|g| {
                g.executor.container = Some(ContainerInfo {
                    mesos: Some(MesosInfo {
                        image: Some(Image::default()),
                    }),
                    ..ContainerInfo::mesos()
                });
            }),
            "'ExecutorInfo.container.mesos.image' must not be set for 'DEFAULT' executor",
        ),
        (
            Box::new(|g| g.executor.container = Some(cgroups(true))),
            "The 'share_cgroups' field cannot be set to 'true' on executor containers",
        ),
        (
            Box::new(|g| g.executor.resources = held("cpus:0.001;mem:32;disk:1")),
            "Executor 'e' uses less CPUs (0.001) than the minimum required (0.01)",
        ),
        (
            Box::new(|g| g.executor.resources = held("mem:32;disk:1")),
            "Executor 'e' uses less CPUs (None) than the minimum required (0.01)",
        ),
        (
            Box::new(|g| g.executor.resources = held("cpus:1;mem:31;disk:1")),
            "Executor 'e' uses less memory (31MB) than the minimum required (32MB)",
        ),
        (
            Box::new(|g| g.executor.resources = held("cpus:1;disk:1")),
            "Executor 'e' uses less memory (None) than the minimum required (32MB)",
        ),
        (
            Box::new(|g| g.executor.resources = held("cpus:1;mem:32")),
            "Executor 'e' uses no disk",
        ),
        (
            Box::new(|g| {
                let other = ExecutorInfo {
                    name: Some("x".into()),
                    ..g.executor.clone()
                };
                g.task_group.tasks[1].executor = Some(other);
            }),
            "The `ExecutorInfo` of task 'u' is different from executor 'e'",
        ),
        (
            Box::new(|g| {
                g.task_group.tasks[0].container = Some(ContainerInfo {
                    kind: ContainerType::Docker,
                    docker: Some(Default::default()),
                    ..ContainerInfo::default()
                });
            }),
            "Task 't' is invalid: Docker ContainerInfo is not supported on the task",
        ),
        (
            Box::new(move |g| {
                g.task_group.tasks[0].health_check = Some(tcp);
                g.task_group.tasks[0].container = Some(ContainerInfo {
                    network_infos: vec![NetworkInfo::default()],
                    ..ContainerInfo::mesos()
                });
            }),
            "Task 't' is invalid: HTTP and TCP health checks are not supported for nested containers not joining \
             parent's network",
        ),
        (
            Box::new(|g| g.task_group.tasks[0].limits.set("cpus", Scalar::whole(2))),
            "Task 't' is invalid: Resource limits may only be set for tasks within a task group when the \
             'share_cgroups' field is set to 'false'.",
        ),
        (
            Box::new(|g| {
                for task in &mut g.task_group.tasks {
                    task.container = Some(cgroups(false));
                    task.limits.set("cpus", Scalar::whole(2));
                }
            }),
            "ok",
        ),
        (
            Box::new(|g| g.task_group.tasks[0].container = Some(cgroups(false))),
            "If set, the value of 'share_cgroups' must be the same for all tasks in each task group and under a \
             single executor",
        ),
        (
            Box::new(|g| g.task_group.tasks[0].resources = held("cpus:4")),
            "Total resources cpus(allocated: r1):5.1; mem(allocated: r1):96; disk(allocated: r1):10 required by task \
             group and its executor are more than available cpus(allocated: r1):4; mem(allocated: r1):256; \
             disk(allocated: r1):100; ports(allocated: r1):[1-9]",
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(text(&world, &group(change)), expected);
    }
    let rejection = validate(&group(|g| g.executor.kind = None), &world.around()).unwrap_err();
    assert_eq!(rejection.reason(), StatusReason::TaskGroupInvalid);

    world.tasks.insert(
        "running".into(),
        Arc::new(Task {
            executor_id: Some("e".into()),
            container: Some(cgroups(false)),
            ..known("running")
        }),
    );
    assert!(text(&world, &group(|_| {})).starts_with("If set, the value of 'share_cgroups'"));
}
