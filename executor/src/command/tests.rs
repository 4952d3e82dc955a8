//! Every transition of the command executor.

use meseta_protocol::common::{CommandInfo, Environment, Secret, Variable};
use meseta_protocol::resources::Resources;

use super::*;

const PID: i32 = 42;

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn at(n: u64) -> Time {
    Time::ZERO + seconds(n)
}

fn task(id: &str) -> TaskInfo {
    TaskInfo::new(id, "s", Resources::default(), "sleep 100")
}

fn idle() -> Core {
    let mut core = Core::new(Vec::new(), seconds(5));
    core.step(
        at(0),
        Input::Registered {
            reports_killing: true,
        },
    );
    core
}

fn launched(task: TaskInfo) -> Core {
    let mut core = idle();
    core.step(at(0), Input::Launch(Box::new(task)));
    core
}

fn running() -> Core {
    let mut core = launched(task("t"));
    core.step(at(0), Input::Started(Ok(PID)));
    core
}

fn reported(state: TaskState) -> Effect {
    report(TaskStatus::new("t", state))
}

fn last(state: TaskState, text: &str) -> Vec<Effect> {
    vec![
        report(TaskStatus::new("t", state).saying(text)),
        Effect::Arm(Timer::Linger, LINGER),
    ]
}

fn kill(grace: Option<Duration>) -> Input {
    let policy = grace.map(|grace| KillPolicy {
        grace_period: Some(grace.into()),
    });
    Input::Kill("t".into(), policy)
}

const TERM: Effect = Effect::Signal(Signal::Term);
const KILL: Effect = Effect::Signal(Signal::Kill);

fn grace(number: u64, length: Duration) -> Effect {
    Effect::Arm(Timer::Grace(number), length)
}

fn exit(status: i32) -> Input {
    Input::Ended(Ok(Exit::Status(status)))
}

#[test]
fn a_task_starts_runs_and_ends_as_its_process_does() {
    for (exit, state, text) in [
        (
            Exit::Status(0),
            TaskState::Finished,
            "Command exited with status 0",
        ),
        (
            Exit::Status(3),
            TaskState::Failed,
            "Command exited with status 3",
        ),
        (
            Exit::Signal(9),
            TaskState::Failed,
            "Command terminated with signal Killed",
        ),
    ] {
        let mut core = idle();
        let effects = core.step(at(0), Input::Launch(Box::new(task("t"))));
        assert!(
            matches!(&effects[..], [first, Effect::Start(_)] if *first == reported(TaskState::Starting)),
            "{effects:?}"
        );
        assert_eq!(
            core.step(at(0), Input::Started(Ok(PID))),
            [reported(TaskState::Running), Effect::Wait(PID)]
        );
        assert_eq!(core.step(at(1), Input::Ended(Ok(exit))), last(state, text));
        assert_eq!(
            core.step(at(1), Input::Acknowledged("t".into(), TaskState::Running)),
            []
        );
        assert_eq!(
            core.step(at(1), Input::Acknowledged("t".into(), state)),
            [Effect::Stop]
        );
        assert_eq!(core.step(at(61), Input::Due(Timer::Linger)), [Effect::Stop]);
    }
}

#[test]
fn a_program_that_cannot_be_executed_starts_runs_and_fails() {
    let mut core = launched(task("t"));
    let mut expected = vec![reported(TaskState::Running)];
    expected.extend(last(TaskState::Failed, "cannot execute `x`"));
    let started = Input::Started(Err("cannot execute `x`".into()));
    assert_eq!(core.step(at(0), started), expected);
    let mut without = task("t");
    without.command = None;
    let effects = idle().step(at(0), Input::Launch(Box::new(without)));
    assert_eq!(
        effects[..2],
        [reported(TaskState::Starting), reported(TaskState::Running)]
    );
    assert_eq!(effects.len(), 4);
}

#[test]
fn a_second_task_fails_and_leaves_the_first_alone() {
    let mut core = running();
    let text = "Attempted to run multiple tasks using a \"command\" executor";
    let failed = TaskStatus::new("u", TaskState::Failed).saying(text);
    assert_eq!(
        core.step(at(0), Input::Launch(Box::new(task("u")))),
        [report(failed)]
    );
    assert_eq!(
        core.step(at(0), Input::Acknowledged("u".into(), TaskState::Failed)),
        []
    );
    assert_eq!(
        core.step(at(1), exit(0))[0],
        last(TaskState::Finished, "Command exited with status 0")[0]
    );
}

#[test]
fn a_kill_asks_then_forces_and_reports_killed() {
    let mut core = running();
    assert_eq!(
        core.step(at(1), kill(None)),
        [reported(TaskState::Killing), TERM, grace(0, seconds(3))]
    );
    assert_eq!(core.step(at(4), Input::Due(Timer::Grace(0))), [KILL]);
    assert_eq!(core.step(at(4), Input::Due(Timer::Grace(0))), []);
    let text = "Command terminated with signal Killed";
    assert_eq!(
        core.step(at(4), Input::Ended(Ok(Exit::Signal(9)))),
        last(TaskState::Killed, text)
    );
    assert_eq!(core.step(at(5), kill(None)), []);
}

#[test]
fn a_task_that_ends_by_itself_during_a_kill_is_killed_all_the_same() {
    let mut core = running();
    core.step(at(1), kill(None));
    assert_eq!(
        core.step(at(2), exit(0)),
        last(TaskState::Killed, "Command exited with status 0")
    );
    assert_eq!(core.step(at(4), Input::Due(Timer::Grace(0))), []);
}

#[test]
fn the_task_s_own_policy_counts_unless_the_request_has_one() {
    let mut slow = task("t");
    slow.kill_policy = Some(KillPolicy {
        grace_period: Some(seconds(20).into()),
    });
    let mut core = launched(slow);
    core.step(at(0), Input::Started(Ok(PID)));
    assert_eq!(
        core.clone().step(at(0), kill(None)).last(),
        Some(&grace(0, seconds(20)))
    );
    assert_eq!(
        core.step(at(0), kill(Some(seconds(1)))).last(),
        Some(&grace(0, seconds(1)))
    );
}

#[test]
fn a_shorter_kill_brings_the_end_forward_and_a_longer_one_does_nothing() {
    let mut core = running();
    core.step(at(0), kill(Some(seconds(10))));
    assert_eq!(core.step(at(1), kill(Some(seconds(30)))), []);
    assert_eq!(
        core.step(at(2), kill(Some(seconds(5)))),
        [grace(1, seconds(3))]
    );
    assert_eq!(
        core.step(at(5), Input::Due(Timer::Grace(0))),
        [],
        "the timer of the first"
    );
    assert_eq!(
        core.clone().step(at(5), Input::Due(Timer::Grace(1))),
        [KILL]
    );
    assert_eq!(core.step(at(4), kill(Some(Duration::ZERO))), [KILL]);
}

#[test]
fn a_kill_before_the_process_is_there_reaches_it_when_it_is() {
    let mut core = launched(task("t"));
    assert_eq!(
        core.step(at(0), kill(None)),
        [reported(TaskState::Killing), grace(0, seconds(3))]
    );
    let mut late = core.clone();
    assert_eq!(
        core.step(at(1), Input::Started(Ok(PID))),
        [Effect::Wait(PID), TERM]
    );
    assert_eq!(late.step(at(3), Input::Due(Timer::Grace(0))), []);
    assert_eq!(
        late.step(at(4), Input::Started(Ok(PID))),
        [Effect::Wait(PID), KILL]
    );
}

#[test]
fn killing_is_reported_only_to_frameworks_that_understand_it() {
    let mut core = running();
    core.step(
        at(0),
        Input::Registered {
            reports_killing: false,
        },
    );
    assert_eq!(core.step(at(1), kill(None)), [TERM, grace(0, seconds(3))]);
}

#[test]
fn kills_of_other_tasks_and_without_a_task_are_ignored() {
    let mut core = running();
    assert_eq!(core.step(at(0), Input::Kill("u".into(), None)), []);
    assert_eq!(idle().step(at(0), kill(None)), []);
}

#[test]
fn a_shutdown_kills_within_the_agent_s_patience_or_ends_at_once() {
    assert_eq!(idle().step(at(0), Input::Shutdown), [Effect::Stop]);
    let mut core = running();
    assert_eq!(
        core.step(at(0), Input::Shutdown),
        [reported(TaskState::Killing), TERM, grace(0, seconds(3))]
    );
    core.step(at(1), exit(0));
    assert_eq!(
        core.step(at(1), Input::Shutdown),
        [],
        "the last update waits for its acknowledgement"
    );
}

#[test]
fn the_longest_time_is_a_kill_without_grace_that_fails() {
    let mut limited = task("t");
    limited.max_completion_time = Some(seconds(10).into());
    let mut core = idle();
    let effects = core.step(at(0), Input::Launch(Box::new(limited)));
    assert_eq!(
        effects.last(),
        Some(&Effect::Arm(Timer::Completion, seconds(10)))
    );
    core.step(at(0), Input::Started(Ok(PID)));
    let mut killed = core.clone();
    assert_eq!(core.step(at(10), Input::Due(Timer::Completion)), [KILL]);
    let status = TaskStatus {
        reason: Some(StatusReason::MaxCompletionTimeReached),
        ..TaskStatus::new("t", TaskState::Failed).saying("Command terminated with signal Killed")
    };
    let effects = core.step(at(10), Input::Ended(Ok(Exit::Signal(9))));
    assert_eq!(effects[0], report(status));
    killed.step(at(9), kill(None));
    assert_eq!(
        killed.step(at(10), Input::Due(Timer::Completion)),
        [],
        "a kill cancels it"
    );
}

#[test]
fn the_environment_is_the_executor_s_the_command_s_and_the_role() {
    let entry = |name: &str, value: &str| EnvironmentEntry {
        name: name.into(),
        value: value.into(),
    };
    let inherited = [entry("A", "1"), entry(CREDENTIAL_FD, "7")];
    let mut task = task("t");
    let secret = Variable {
        kind: VariableType::Secret,
        secret: Some(Secret::default()),
        ..Variable::new("S", "s")
    };
    task.resources = "cpus:1"
        .parse::<Resources>()
        .unwrap()
        .allocated(&"eng".into());
    let command = task.command.get_or_insert_default();
    command.environment = Some(Environment {
        variables: vec![Variable::new("B", "2"), secret],
    });
    command.user = Some("nobody".into());
    let made = plan(&task, &inherited).unwrap();
    assert_eq!(
        made.environment,
        [
            entry("A", "1"),
            entry("B", "2"),
            entry("MESOS_ALLOCATION_ROLE", "eng")
        ]
    );
    assert_eq!(made.command.program, "/bin/sh");
    assert_eq!(made.command.arguments, ["sh", "-c", "sleep 100"]);
    assert_eq!(made.user.as_deref(), Some("nobody"));
    task.command = Some(CommandInfo {
        shell: false,
        value: Some("/bin/ls".into()),
        arguments: vec!["list".into(), "-l".into()],
        ..CommandInfo::default()
    });
    let made = plan(&task, &[]).unwrap();
    assert_eq!(
        (made.command.program.as_str(), made.command.arguments.len()),
        ("/bin/ls", 2)
    );
}
