//! Tasks from their launch to their end, and launches that come to nothing.

use meseta_agent::containerizer::LaunchError;
use meseta_protocol::TaskId;
use meseta_protocol::container::{ContainerStatus, IpAddress, NetworkInfo};
use meseta_protocol::messages::agent::*;
use meseta_protocol::messages::executor::*;
use meseta_protocol::status::{StatusReason, StatusSource, TaskState};
use meseta_protocol::task::TaskInfo;

use crate::world::*;

#[test]
fn a_command_runs_from_launch_to_the_last_acknowledgement() {
    let world = World::registered();
    world.run(command("t"), false);
    let (container, plan) = world.launch();
    assert_eq!(plan.command.program, "/opt/meseta-executor");
    let variable = |name: &str| {
        plan.environment
            .iter()
            .rfind(|v| v.name == name)
            .map(|v| v.value.clone())
    };
    assert_eq!(variable("MESOS_EXECUTOR_ID").as_deref(), Some("t"));
    assert_eq!(variable("MESOS_SLAVE_PID"), Some(world.agent.to_string()));
    assert!(plan.working_directory.ends_with(&format!(
        "/slaves/S0/frameworks/f/executors/t/runs/{container}"
    )));
    let credential = plan.credential.unwrap();
    assert_eq!(
        credential.executor_process_id,
        format!("executor-{container}")
    );
    assert!(!credential.private_key.is_empty());
    assert!(
        world.metric("slave/executors_registering") > 0.5 && world.metric("slave/cpus_used") > 1.09
    );

    let executor = world.executor(&container);
    executor.send(&world.agent, subscribe("t"));
    let heard = executor.heard();
    let [
        Heard::ExecutorSubscribed(subscribed),
        Heard::LaunchTask(launch),
    ] = &heard[..]
    else {
        panic!("{heard:?}")
    };
    assert_eq!(
        (
            subscribed.agent_id.as_str(),
            subscribed.container_id.value.as_str()
        ),
        ("S0", &*container)
    );
    assert_eq!(launch.task.task_id, TaskId::from("t"));

    let (first, second) = (world.uuid(), world.uuid());
    executor.send(&world.agent, update("t", "t", TaskState::Running, first));
    let running = world.update();
    assert_eq!(
        (running.status.source, running.latest_state),
        (Some(StatusSource::Executor), Some(TaskState::Running))
    );
    let container_status = running.status.container_status.clone().unwrap();
    assert_eq!(container_status.executor_pid, Some(4711));
    let acknowledged = |uuid| {
        Heard::UpdateAcknowledged(UpdateAcknowledged {
            task_id: "t".into(),
            uuid,
        })
    };
    assert_eq!(executor.heard(), [acknowledged(first)]);
    executor.send(&world.agent, update("t", "t", TaskState::Running, first));
    assert_eq!(
        (executor.heard(), world.updates()),
        (vec![acknowledged(first)], vec![]),
        "a repeated one"
    );
    executor.send(&world.agent, update("t", "t", TaskState::Finished, second));
    assert_eq!(
        (executor.heard(), world.updates()),
        (vec![acknowledged(second)], vec![]),
        "one in flight"
    );
    world.acknowledge(&running);
    let finished = world.update();
    assert_eq!(finished.status.state, TaskState::Finished);
    let third = world.uuid();
    executor.send(&world.agent, update("t", "t", TaskState::Failed, third));
    assert_eq!(
        (executor.heard(), world.updates()),
        (vec![acknowledged(third)], vec![]),
        "the first end wins"
    );
    world.exit(&container, 0);
    assert!(matches!(world.order(), Order::Destroy(of) if of == container));
    assert!(
        world.metric("slave/frameworks_active") > 0.5,
        "the end is not acknowledged"
    );
    world.acknowledge(&finished);
    assert!(world.metric("slave/frameworks_active") < 0.5);
    assert_eq!(
        world.master.heard(),
        [],
        "nobody is told of the end of an executor for a command"
    );
}

#[test]
fn a_launch_that_fails_says_why() {
    let world = World::registered();
    let reason = Some(StatusReason::ContainerLaunchFailed);
    *world.refusal.lock().unwrap() = Some(LaunchError::Launcher("no launcher".into()));
    world.run(command("t"), false);
    assert_eq!(
        told(&world.update()),
        (
            TaskState::Failed,
            reason,
            "Failed to launch container: no launcher"
        )
    );
    assert!(world.metric("slave/container_launch_errors") > 0.5);
    world.launch();
    let path = "/box".into();
    *world.refusal.lock().unwrap() = Some(LaunchError::Sandbox {
        path,
        reason: "full".into(),
    });
    world.run(custom("s"), true);
    let heard = world.master.heard();
    let [Heard::UpdateStatus(message), Heard::ExecutorExited(exited)] = &heard[..] else {
        panic!("{heard:?}")
    };
    let text = "Failed to create executor directory '/box': full";
    assert_eq!(
        told(&message.update),
        (
            TaskState::Dropped,
            Some(StatusReason::ExecutorTerminated),
            text
        )
    );
    assert_eq!(exited.status, -1);
    world.launch();
    // The launcher itself ran and complained.
    world.run(command("u"), false);
    let (container, _) = world.launch();
    end(
        &world.running,
        &container,
        125 << 8,
        Some("no such program"),
    );
    assert_eq!(
        told(&world.update()),
        (
            TaskState::Failed,
            reason,
            "Failed to launch container: no such program"
        )
    );
}

#[test]
fn the_masters_idea_of_an_executor_must_fit() {
    let world = World::registered();
    let dropped = Some(StatusReason::ExecutorTerminated);
    world.run(custom("t"), false);
    assert_eq!(
        told(&world.update()),
        (TaskState::Dropped, dropped, "The executor is not running")
    );
    let (_, executor) = world.running();
    world.run(custom("s"), true);
    let refused = world.update();
    assert_eq!(
        (refused.status.task_id.as_str(), refused.status.state),
        ("s", TaskState::Dropped)
    );
    assert_eq!(
        executor.heard(),
        [Heard::ShutdownExecutorNow(ShutdownExecutorNow {})]
    );
    world.run(custom("u"), false);
    assert_eq!(
        told(&world.update()),
        (TaskState::Dropped, dropped, "The executor is ending")
    );
    world.run(command("e"), false);
    assert_eq!(told(&world.update()).1, Some(StatusReason::TaskInvalid));
    let elsewhere = TaskInfo {
        agent_id: "S1".into(),
        ..command("z")
    };
    world.run(elsewhere, false);
    assert_eq!(world.master.heard(), [], "for another agent");
}

#[test]
fn a_refused_launch_is_reported_and_does_not_touch_what_has_its_id() {
    let world = World::registered();
    world.run(command("t"), false);
    let (container, _) = world.launch();
    let executor = world.executor(&container);
    executor.send(&world.agent, subscribe("t"));
    world.run(command("t"), false);
    let refused = world.update();
    assert_eq!(
        told(&refused),
        (
            TaskState::Dropped,
            Some(StatusReason::TaskInvalid),
            "Cannot launch the task: one of its id is still here"
        )
    );
    assert!(world.metric("slave/tasks_staging") > 0.5, "it runs on");
    world.acknowledge(&refused);
    executor.send(
        &world.agent,
        update("t", "t", TaskState::Running, world.uuid()),
    );
    assert_eq!(world.update().status.state, TaskState::Running);
}

#[test]
fn an_id_may_be_used_again_as_soon_as_its_end_is_acknowledged() {
    let world = World::registered();
    let mut old: Vec<(String, Actor)> = Vec::new();
    for _ in 0..2 {
        world.run(command("t"), false);
        let (container, _) = world.launch();
        let executor = world.executor(&container);
        executor.send(&world.agent, subscribe("t"));
        let heard = executor.heard();
        assert!(matches!(heard[..], [_, Heard::LaunchTask(_)]), "{heard:?}");
        executor.send(
            &world.agent,
            update("t", "t", TaskState::Finished, world.uuid()),
        );
        let finished = world.update();
        assert_eq!(finished.status.state, TaskState::Finished);
        world.acknowledge(&finished);
        old.push((container, executor));
    }
    for (container, executor) in &old {
        assert!(matches!(
            executor.heard()[..],
            [Heard::UpdateAcknowledged(_)]
        ));
        world.exit(container, 0);
        assert!(matches!(world.order(), Order::Destroy(of) if of == *container));
    }
    assert!(world.metric("slave/frameworks_active") < 0.5);
    assert_eq!(world.master.heard(), []);
}

#[test]
fn a_repeated_launch_is_carried_out_once() {
    let world = World::registered();
    let run = RunTask {
        framework_id: "f".into(),
        framework: framework(),
        task: command("t"),
        launch_uuid: world.uuid(),
        ..RunTask::default()
    };
    world.say(run.clone());
    world.say(run);
    world.launch();
    assert!(world.orders.try_recv().is_err());
    assert_eq!(world.master.heard(), []);
}

#[test]
fn networks_that_an_executor_tells_of_are_passed_on() {
    let world = World::registered();
    world.run(command("t"), false);
    let (container, _) = world.launch();
    let executor = world.executor(&container);
    executor.send(&world.agent, subscribe("t"));
    let networks = vec![NetworkInfo {
        name: Some("net".to_owned()),
        ip_addresses: vec![IpAddress {
            ip_address: Some("10.1.2.3".to_owned()),
            ..IpAddress::default()
        }],
        ..NetworkInfo::default()
    }];
    let mut running = update("t", "t", TaskState::Running, world.uuid());
    running.status.container_status = Some(ContainerStatus {
        network_infos: networks.clone(),
        ..ContainerStatus::default()
    });
    executor.send(&world.agent, running);
    let told = world.update().status.container_status.unwrap();
    assert_eq!(
        (told.network_infos, told.executor_pid),
        (networks, Some(4711))
    );
}
