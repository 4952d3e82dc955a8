//! Groups of tasks: given to their executor with one message, or not at all.

use meseta_protocol::messages::agent::*;
use meseta_protocol::status::{StatusReason, TaskState};
use meseta_protocol::task::TaskGroupInfo;

use crate::restarts::comes_back;
use crate::world::*;

const KILLED: &str = "A task within the task group was killed before delivery to the executor";

/// Task, state and reason of each update that the master has heard, by task.
fn ends(world: &World) -> Vec<(String, TaskState, Option<StatusReason>)> {
    let mut all: Vec<_> = (world.updates().iter())
        .map(|update| {
            let status = &update.status;
            (status.task_id.to_string(), status.state, status.reason)
        })
        .collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

fn each(
    tasks: &[&str],
    state: TaskState,
    reason: StatusReason,
) -> Vec<(String, TaskState, Option<StatusReason>)> {
    let end = |task: &&str| ((*task).to_owned(), state, Some(reason));
    tasks.iter().map(end).collect()
}

#[test]
fn a_group_waits_for_its_executor_and_is_given_to_it_with_one_message() {
    let world = World::registered();
    world.run_group(&["b", "a"], true);
    let (container, _) = world.launch();
    world.run(custom("t"), false);
    world.run_group(&["c"], false);
    let executor = world.executor(&container);
    executor.send(&world.agent, subscribe("e"));
    assert_eq!(
        words(&executor),
        [
            "subscribed",
            "launch together b a",
            "launch t",
            "launch together c"
        ]
    );
    world.run_group(&["d", "f"], false);
    assert_eq!(
        words(&executor),
        ["launch together d f"],
        "to one that runs"
    );
    let running = update("e", "a", TaskState::Running, world.uuid());
    executor.send(&world.agent, running);
    assert_eq!(world.update().status.state, TaskState::Running);
    // What was given to it is its own to kill.
    world.say(kill("b"));
    executor.heard();
    world.exit(&container, 1);
    world.order();
    let all = ["a", "b", "c", "d", "f", "t"];
    let failed = each(&all, TaskState::Failed, StatusReason::ExecutorTerminated);
    let heard = ends(&world);
    // Of `a` the end waits for the acknowledgement of its start.
    assert_eq!(heard, failed[1..]);
}

#[test]
fn a_kill_of_one_task_of_a_group_that_waits_ends_the_whole_group_and_nothing_else() {
    let world = World::registered();
    world.run_group(&["a", "b"], true);
    let (container, _) = world.launch();
    world.run_group(&["c", "d"], false);
    world.run(custom("t"), false);
    world.say(kill("b"));
    let updates = world.updates();
    let texts: Vec<_> = updates.iter().map(told).collect();
    let reason = Some(StatusReason::TaskKilledDuringLaunch);
    assert_eq!(texts, [(TaskState::Killed, reason, KILLED); 2]);
    for update in &updates {
        assert_eq!(update.executor_id, Some("e".into()));
        world.acknowledge(update);
    }
    world.say(kill("t"));
    let alone = world.update();
    let text = "Killed before delivery to the executor";
    assert_eq!(told(&alone), (TaskState::Killed, reason, text));
    let executor = world.executor(&container);
    executor.send(&world.agent, subscribe("e"));
    assert_eq!(words(&executor), ["subscribed", "launch together c d"]);
    world.say(kill("c"));
    assert_eq!(words(&executor), ["kill c"]);
    assert_eq!(world.updates(), []);
}

#[test]
fn an_executor_whose_only_group_was_killed_before_it_came_is_told_to_end() {
    let world = World::registered();
    world.run_group(&["a", "b"], true);
    let (container, _) = world.launch();
    world.say(kill("a"));
    let reason = StatusReason::TaskKilledDuringLaunch;
    assert_eq!(ends(&world), each(&["a", "b"], TaskState::Killed, reason));
    let executor = world.executor(&container);
    executor.send(&world.agent, subscribe("e"));
    let heard = executor.heard();
    assert!(
        matches!(heard[..], [Heard::ExecutorRefused(_)]),
        "{heard:?}"
    );
}

#[test]
fn a_group_that_cannot_be_launched_is_refused_as_a_whole() {
    let world = World::registered();
    world.run_group(&["a", "b"], false);
    let reason = StatusReason::ExecutorTerminated;
    assert_eq!(ends(&world), each(&["a", "b"], TaskState::Dropped, reason));
    world.run(custom("t"), true);
    world.launch();
    world.run_group(&["g", "t"], false);
    let reason = StatusReason::TaskGroupInvalid;
    let dropped = each(&["g", "t"], TaskState::Dropped, reason);
    assert_eq!(ends(&world), dropped);
    // Nobody would run it: the agent has no executor of its own for groups.
    let mut executor = custom("any").executor.unwrap();
    executor.executor_id = "own".into();
    executor.command = None;
    world.say(RunTaskGroup {
        framework_id: "f".into(),
        framework: framework(),
        executor,
        task_group: TaskGroupInfo {
            tasks: ["c", "d"].map(custom).to_vec(),
        },
        launch_executor: true,
        launch_uuid: world.uuid(),
        ..RunTaskGroup::default()
    });
    let heard = world.master.heard();
    let [
        Heard::UpdateStatus(first),
        Heard::UpdateStatus(second),
        Heard::ExecutorExited(exited),
    ] = &heard[..]
    else {
        panic!("{heard:?}")
    };
    assert_eq!(exited.executor_id, "own".into());
    let reason = Some(StatusReason::ContainerLaunchFailed);
    for update in [&first.update, &second.update] {
        assert_eq!(told(update).0, TaskState::Failed);
        assert_eq!(told(update).1, reason);
    }
}

#[test]
fn a_repeated_group_is_launched_once_and_one_without_tasks_not_at_all() {
    let world = World::registered();
    let run = RunTaskGroup {
        framework_id: "f".into(),
        framework: framework(),
        executor: custom("any").executor.unwrap(),
        task_group: TaskGroupInfo {
            tasks: ["a", "b"].map(custom).to_vec(),
        },
        launch_executor: true,
        launch_uuid: world.uuid(),
        ..RunTaskGroup::default()
    };
    world.say(run.clone());
    world.say(run.clone());
    world.launch();
    world.say(RunTaskGroup {
        task_group: TaskGroupInfo::default(),
        launch_uuid: world.uuid(),
        ..run
    });
    assert!(world.orders.try_recv().is_err());
    assert_eq!(world.master.heard(), []);
}

#[test]
fn a_group_that_waits_over_a_restart_is_given_as_a_whole_once() {
    let mut world = World::registered();
    world.checkpoint.set(true);
    world.run_group(&["b", "a"], true);
    let (container, _) = world.launch();
    world.restart();
    let executor = world.executor(&container);
    executor.send(&world.agent, subscribe("e"));
    assert_eq!(words(&executor), ["subscribed", "launch together b a"]);
    let heard = world.let_in();
    let back = heard.iter().find_map(|heard| match heard {
        Heard::ReregisterAgent(back) => Some(back.tasks.clone()),
        _ => None,
    });
    let states: Vec<_> = (back.unwrap().iter()).map(|task| task.state).collect();
    assert_eq!(states, [TaskState::Staging; 2]);
    // It has it now, and has said nothing: another restart does not give it again.
    world.restart();
    executor.send(&world.agent, comes_back(&[], &["a", "b"]));
    assert_eq!(words(&executor), ["subscribed"]);
    world.let_in();
    // The start of one is known, and the other is still with it.
    let running = update("e", "a", TaskState::Running, world.uuid());
    executor.send(&world.agent, running);
    let running = world.update();
    world.acknowledge(&running);
    executor.heard();
    world.restart();
    executor.send(&world.agent, comes_back(&[], &["b"]));
    assert_eq!(words(&executor), ["subscribed"]);
    world.let_in();
    assert_eq!(world.updates(), []);
}

#[test]
fn a_group_whose_kill_was_written_down_is_not_given_after_a_restart() {
    let mut world = World::registered();
    world.checkpoint.set(true);
    world.run_group(&["a", "b"], true);
    let (container, _) = world.launch();
    world.run(custom("t"), false);
    world.say(kill("a"));
    world.updates();
    world.restart();
    let executor = world.executor(&container);
    executor.send(&world.agent, subscribe("e"));
    assert_eq!(words(&executor), ["subscribed", "launch t"]);
    world.let_in();
    let reason = StatusReason::TaskKilledDuringLaunch;
    assert_eq!(ends(&world), each(&["a", "b"], TaskState::Killed, reason));
}
