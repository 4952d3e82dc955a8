use std::collections::BTreeSet;

use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::resources::Resources;
use meseta_protocol::status::{StatusSource, TaskStatus};
use meseta_protocol::task::{Task, TaskInfo};
use meseta_protocol::{ContainerId, FrameworkId, TaskId, UpdateId};
use meseta_runtime::Pid;

use super::*;

const PHASES: [Phase; 4] = [
    Phase::Registering,
    Phase::Running,
    Phase::Terminating,
    Phase::Terminated,
];

fn framework() -> (FrameworkId, &'static str) {
    ("f".into(), "u")
}

fn task(id: &str) -> TaskInfo {
    TaskInfo::new(id, "a", "cpus:1".parse().unwrap(), "true")
}

fn pid() -> Pid {
    "executor-c@127.0.0.1:5051".parse().unwrap()
}

fn executor(phase: Phase) -> Executor {
    let info = ExecutorInfo {
        executor_id: "e".into(),
        resources: "cpus:0.5".parse().unwrap(),
        ..ExecutorInfo::default()
    };
    let mut executor = Executor::new(info, false, ContainerId::top("c"), "/box".into());
    executor.phase = phase;
    executor
}

fn with_task(phase: Phase) -> Executor {
    let (id, user) = framework();
    let mut executor = executor(Phase::Running);
    executor.launch(&task("t").into(), (&id, user));
    executor.phase = phase;
    executor
}

#[test]
fn a_launch_waits_goes_or_is_refused() {
    let (id, user) = framework();
    let expected = [
        LaunchVerdict::Queued,
        LaunchVerdict::Send,
        LaunchVerdict::Refused,
        LaunchVerdict::Refused,
    ];
    for (phase, expected) in PHASES.into_iter().zip(expected) {
        assert_eq!(
            executor(phase).launch(&task("t").into(), (&id, user)),
            expected,
            "{phase:?}"
        );
    }
}

#[test]
fn a_subscription_hands_over_what_waits_unless_it_comes_too_late() {
    let (id, user) = framework();
    let mut registering = executor(Phase::Registering);
    registering.launch(&task("t").into(), (&id, user));
    registering.launch(&task("s").into(), (&id, user));
    let handed = registering.subscribe(&pid(), (&id, user)).unwrap();
    assert_eq!(
        handed
            .iter()
            .map(|t| t.task_id.as_str())
            .collect::<Vec<_>>(),
        ["t", "s"]
    );
    assert_eq!(
        (registering.phase, registering.launched.len()),
        (Phase::Running, 2)
    );
    assert_eq!(
        registering.subscribe(&pid(), (&id, user)),
        Some(vec![]),
        "again"
    );
    for phase in [Phase::Terminating, Phase::Terminated] {
        assert_eq!(executor(phase).subscribe(&pid(), (&id, user)), None);
    }
}

#[test]
fn nothing_is_sent_to_one_that_is_gone() {
    use crate::containerizer::core::{Exit, Input};
    let (id, user) = framework();
    let mut living = executor(Phase::Registering);
    assert_eq!(living.listener(), None);
    living.subscribe(&pid(), (&id, user));
    assert_eq!(living.listener(), Some(&pid()));
    living.disconnected = true;
    assert_eq!(living.listener(), None);
    living.disconnected = false;
    living.container.step(Input::Ended(Exit {
        status: 0,
        complaint: None,
    }));
    assert_eq!(living.listener(), None);
}

#[test]
fn only_a_living_executor_is_shut_down() {
    for (phase, news) in PHASES.into_iter().zip([true, true, false, false]) {
        let mut executor = executor(phase);
        assert_eq!(executor.shut_down(), news);
        assert_eq!(
            executor.phase,
            if news { Phase::Terminating } else { phase }
        );
    }
}

#[test]
fn a_kill_is_answered_by_who_has_the_task() {
    let (id, user) = framework();
    let mut registering = executor(Phase::Registering);
    registering.launch(&task("t").into(), (&id, user));
    assert_eq!(registering.kill(&"t".into()), KillVerdict::Dequeued);
    let expected = [
        KillVerdict::Tell,
        KillVerdict::Tell,
        KillVerdict::Ignore,
        KillVerdict::Ignore,
    ];
    for (phase, expected) in PHASES.into_iter().zip(expected) {
        assert_eq!(with_task(phase).kill(&"t".into()), expected, "{phase:?}");
    }
}

#[test]
fn a_group_waits_is_given_and_is_killed_as_a_whole() {
    let (id, user) = framework();
    let group = |launch: u8, ids: [&str; 2]| Unit::Group {
        launch: UpdateId::from_bytes([launch; 16]),
        tasks: ids.map(task).to_vec(),
    };
    let (one, other) = (group(1, ["b", "a"]), group(2, ["d", "c"]));
    let mut executor = executor(Phase::Registering);
    for unit in [&one, &task("t").into(), &other] {
        assert_eq!(executor.launch(unit, (&id, user)), LaunchVerdict::Queued);
    }
    let killed = KillVerdict::GroupDequeued(vec!["b".into(), "a".into()]);
    assert_eq!(executor.kill(&"a".into()), killed);
    assert_eq!(executor.kill(&"t".into()), KillVerdict::Dequeued);
    for task in ["b", "a"] {
        let status = TaskStatus::new(task, TaskState::Killed);
        executor.update(&status, (&id, user));
    }
    let tasks = executor.subscribe(&pid(), (&id, user)).unwrap();
    assert_eq!(executor.units(tasks), [task("t").into(), other.clone()]);
    assert_eq!(executor.kill(&"c".into()), KillVerdict::Tell);
    // It was lost with the connection, and comes again as it was.
    let silent = executor.silent(&BTreeSet::new());
    assert_eq!(executor.units(silent), [other, task("t").into()]);
    assert_eq!(
        executor.launch(&group(3, ["f", "e"]), (&id, user)),
        LaunchVerdict::Send
    );
    let silent = executor.silent(&["c".into(), "d".into(), "t".into()].into());
    assert_eq!(executor.units(silent), [group(3, ["f", "e"])]);
    executor.shut_down();
    assert_eq!(executor.launch(&one, (&id, user)), LaunchVerdict::Refused);
}

#[test]
fn the_first_end_wins_in_every_phase() {
    let (id, user) = framework();
    for phase in PHASES {
        let mut executor = with_task(phase);
        let running = TaskStatus::new("t", TaskState::Running);
        assert_eq!(
            executor.update(&running, (&id, user)),
            UpdateVerdict::Forward
        );
        assert_eq!(
            executor.update(&running, (&id, user)),
            UpdateVerdict::Forward
        );
        assert_eq!(executor.launched[&TaskId::from("t")].statuses.len(), 1);
        let finished = TaskStatus::new("t", TaskState::Finished);
        assert_eq!(
            executor.update(&finished, (&id, user)),
            UpdateVerdict::Forward
        );
        for late in [TaskState::Failed, TaskState::Running] {
            let late = TaskStatus::new("t", late);
            assert_eq!(executor.update(&late, (&id, user)), UpdateVerdict::Stale);
        }
        assert!(executor.is_busy());
        executor.complete(&"t".into());
        assert!(!executor.is_busy() && executor.has_had(&"t".into()) && !executor.has(&"t".into()));
        assert_eq!(executor.update(&running, (&id, user)), UpdateVerdict::Stale);
    }
}

#[test]
fn what_an_executor_repeats_of_a_task_that_is_over_is_past() {
    let (id, user) = framework();
    let update = |task: &str, state, uuid| TaskStatus {
        uuid: Some(UpdateId::from_bytes([uuid; 16])),
        source: Some(StatusSource::Executor),
        ..TaskStatus::new(task, state)
    };
    let over = |executor: &mut Executor, task: &str| {
        executor.is_over(&task.into());
        executor.complete(&task.into());
    };
    let end = update("t", TaskState::Finished, 1);
    let mut executor = with_task(Phase::Running);
    assert!(!executor.is_past(&end), "it runs");
    executor.update(&end, (&id, user));
    assert!(
        !executor.is_past(&end),
        "the framework has not acknowledged it"
    );
    over(&mut executor, "t");
    assert!(executor.is_past(&end));
    // What it says for the first time of a task that is over is no repetition, but no news of anything else either.
    let late = update("t", TaskState::Running, 9);
    assert!(!executor.is_past(&late));
    assert_eq!(executor.update(&late, (&id, user)), UpdateVerdict::Stale);
    assert!(executor.is_past(&late));
    let made_up = update("nobody's", TaskState::Running, 2);
    assert!(!executor.is_past(&made_up), "it was never there");
    // Another task of that id has ends of its own.
    executor.launch(&task("t").into(), (&id, user));
    assert!(executor.is_past(&end));
    assert!(!executor.is_past(&update("t", TaskState::Finished, 3)));
    // Of a run of equal states only the last is shown, and all are known.
    for uuid in [4, 5] {
        executor.update(&update("t", TaskState::Running, uuid), (&id, user));
    }
    executor.update(&update("t", TaskState::Finished, 3), (&id, user));
    over(&mut executor, "t");
    for uuid in [3, 4, 5] {
        assert!(executor.is_past(&update("t", TaskState::Running, uuid)));
    }
    assert!(!executor.is_past(&made_up), "it was never there");
}

#[test]
fn a_task_that_waits_can_only_end() {
    let (id, user) = framework();
    let mut executor = executor(Phase::Registering);
    executor.launch(&task("t").into(), (&id, user));
    let running = TaskStatus::new("t", TaskState::Running);
    assert_eq!(executor.update(&running, (&id, user)), UpdateVerdict::Stale);
    let killed = TaskStatus::new("t", TaskState::Killed);
    assert_eq!(
        executor.update(&killed, (&id, user)),
        UpdateVerdict::Forward
    );
    assert!(executor.is_pointless() && executor.terminated.contains_key("t"));
}

#[test]
fn an_end_leaves_the_tasks_that_have_to_be_reported() {
    let (id, user) = framework();
    for phase in PHASES {
        let mut executor = with_task(phase);
        executor.queued.push(task("q"));
        executor.update(&TaskStatus::new("t", TaskState::Finished), (&id, user));
        executor
            .launched
            .insert("s".into(), Task::new(&task("s"), &id, user));
        let expected: [TaskId; 2] = ["q".into(), "s".into()];
        assert_eq!(executor.ended(), expected);
        assert_eq!(
            (executor.phase, executor.resources()),
            (Phase::Terminated, Resources::new())
        );
    }
}

#[test]
fn what_is_over_is_remembered_within_bounds() {
    let (id, user) = framework();
    let mut tables = Tables::new(1);
    for n in ["1", "2"] {
        tables.know_framework(&id, &FrameworkInfo::default());
        let mut one = executor(Phase::Running);
        one.container_id = ContainerId::top(n);
        tables.add_executor(&id, one);
        tables.launch(&id, &"e".into(), &task("t").into());
        tables.check().unwrap();
        assert!(!tables.clean(&id, &"e".into()));
        assert!(tables.owner(n).is_some());
        let one = tables.executor_mut(&id, &"e".into()).unwrap();
        one.ended();
        one.update(&TaskStatus::new("t", TaskState::Failed), (&id, user));
        assert!(
            !tables.clean(&id, &"e".into()),
            "the end is not acknowledged"
        );
        assert_eq!(tables.complete(&id, &"t".into()), Some("e".into()));
        tables.check().unwrap();
        assert!(tables.clean(&id, &"e".into()));
        assert!(tables.frameworks.is_empty() && tables.owner(n).is_none());
    }
    assert_eq!(tables.completed_frameworks.len(), 1);
    assert_eq!(
        tables.completed_frameworks[0].1.completed_executors.len(),
        1
    );
}

#[test]
fn an_id_is_free_while_the_container_of_its_last_run_goes_down() {
    let (id, user) = framework();
    let mut tables = Tables::new(9);
    tables.know_framework(&id, &FrameworkInfo::default());
    for n in ["1", "2"] {
        let mut one = executor(Phase::Running);
        one.container_id = ContainerId::top(n);
        tables.add_executor(&id, one);
        tables.launch(&id, &"e".into(), &task("t").into());
        let owner = tables.framework(&id).unwrap().executor_of(&"t".into());
        assert_eq!(owner, Some(&"e".into()));
        if n == "1" {
            assert_eq!(tables.complete(&id, &"t".into()), None, "it runs");
            let one = tables.executor_mut(&id, &"e".into()).unwrap();
            one.update(&TaskStatus::new("t", TaskState::Failed), (&id, user));
            tables.complete(&id, &"t".into()).unwrap();
            tables.supersede(&id, &"e".into());
        }
        tables.check().unwrap();
    }
    assert!(tables.is_superseded("1") && !tables.is_superseded("2"));
    tables.executor_in("1").unwrap().ended();
    assert!(!tables.clean(&id, &"e".into()));
    assert_eq!((tables.owner("1"), tables.executors().count()), (None, 1));
    assert_eq!(
        tables.executor_in("2").unwrap().container_id,
        ContainerId::top("2")
    );
    tables.check().unwrap();
}

#[test]
fn a_launch_is_carried_out_once_even_when_the_framework_was_away() {
    let (id, _) = framework();
    let mut tables = Tables::new(1);
    let launch = UpdateId::from_bytes([1; 16]);
    assert!(
        tables
            .know_framework(&id, &FrameworkInfo::default())
            .is_news(launch)
    );
    tables.clean_framework(&id);
    let framework = tables.know_framework(&id, &FrameworkInfo::default());
    assert!(!framework.is_news(launch));
    assert!(framework.is_news(UpdateId::default()) && framework.is_news(UpdateId::default()));
}

#[test]
fn frameworks_hear_states_they_know() {
    let plain = Framework::new(FrameworkInfo::default());
    assert_eq!(plain.state_for(TaskState::Dropped), TaskState::Lost);
    let aware = Framework::new(FrameworkInfo::new("u", "n"));
    assert_eq!(aware.state_for(TaskState::Dropped), TaskState::Dropped);
}
