//! Conversations about groups of tasks.

use meseta_tests::http::{Answer, Executor, Scheduler, command_task};
use serde_json::{Value, json};

use super::Side;
use super::scenarios::{Change, await_start, info, offer, said, tear_down};
use super::transcript::Transcript;

/// A framework's own executor that may run groups, in a container that runs something else.
fn executor_of(framework: &str) -> Value {
    json!({
        "type": "CUSTOM", "executor_id": {"value": "e"}, "framework_id": {"value": framework},
        "command": {"value": "echo started; sleep 1000"}, "name": "played", "source": "test",
        "resources": [
            {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}},
            {"name": "mem", "type": "SCALAR", "scalar": {"value": 32}},
            {"name": "disk", "type": "SCALAR", "scalar": {"value": 10}},
        ],
    })
}

fn member(id: &str, offer: &Value) -> Value {
    let mut task = command_task(id, offer, "");
    task.as_object_mut().unwrap().remove("command");
    task
}

fn group(offer: &Value, executor: &Value, tasks: &[&str]) -> Value {
    let tasks: Vec<Value> = tasks.iter().map(|task| member(task, offer)).collect();
    let group = json!({"executor": executor, "task_group": {"tasks": tasks}});
    json!({"type": "LAUNCH_GROUP", "launch_group": group})
}

fn accept(scheduler: &mut Scheduler, offer: &Value, operations: &[Value]) -> Answer {
    scheduler.call(json!({"type": "ACCEPT", "accept": {
        "offer_ids": [offer["id"]], "filters": {"refuse_seconds": 0}, "operations": operations,
    }}))
}

/// The next two updates, in the order of their tasks: which comes first is not promised.
fn two_updates(scheduler: &mut Scheduler) -> [Value; 2] {
    let mut both = [scheduler.status(), scheduler.status()];
    both.sort_by_key(|status| status["task_id"]["value"].to_string());
    both
}

/// A group is launched, a second one on the same executor, one task is killed, and the executor breaks off and comes back.
pub(super) fn group_of_tasks(side: &Side, heard: &mut Transcript) {
    let mut scheduler = Scheduler::subscribe(&side.master, &info("group"));
    let framework = scheduler.framework_id.clone();
    let own = executor_of(&framework);
    let first = offer(side, &scheduler);
    let answer = accept(&mut scheduler, &first, &[group(&first, &own, &["a", "b"])]);
    heard.note("answer to ACCEPT", &json!([answer.status, answer.body]));
    await_start(side, &framework);
    let ids = json!({"framework_id": {"value": framework}, "executor_id": {"value": "e"}});
    let mut executor = Executor::subscribe(&side.agent, &ids, &[], &[]);
    let mut next = |executor: &mut Executor, step: &str| {
        let event = executor.event().unwrap_or(Value::Null);
        heard.note(step, &event);
    };
    next(&mut executor, "first event");
    next(&mut executor, "the group");
    let mut statuses = Vec::new();
    for (task, letter) in [("a", 'A'), ("b", 'B')] {
        executor.update(&said(task, "TASK_RUNNING", letter));
        statuses.push(scheduler.status());
        next(&mut executor, "acknowledged");
    }
    let more = offer(side, &scheduler);
    accept(&mut scheduler, &more, &[group(&more, &own, &["c", "d"])]);
    next(&mut executor, "second group");
    let kill = json!({"type": "KILL", "kill": {"task_id": {"value": "c"}}});
    assert_eq!(scheduler.call(kill).status, 202);
    next(&mut executor, "kill of one");
    executor.update(&said("c", "TASK_KILLED", 'K'));
    statuses.push(scheduler.status());
    next(&mut executor, "acknowledged at the end of one");
    // It has said nothing of the last.
    executor.disconnect();
    let mut executor = Executor::subscribe(&side.agent, &ids, &[member("d", &more)], &[]);
    next(&mut executor, "first event after a break");
    let last = offer(side, &scheduler);
    accept(&mut scheduler, &last, &[group(&last, &own, &["e"])]);
    next(&mut executor, "group of one");
    let shutdown = json!({"type": "SHUTDOWN", "shutdown": {
        "executor_id": {"value": "e"}, "agent_id": first["agent_id"],
    }});
    assert_eq!(scheduler.call(shutdown).status, 202);
    next(&mut executor, "shutdown");
    for status in statuses {
        heard.note("UPDATE", &status);
    }
    tear_down(scheduler);
}

/// Two groups wait for their executor, and one task of the first is killed.
pub(super) fn killed_group(side: &Side, heard: &mut Transcript) {
    let mut scheduler = Scheduler::subscribe(&side.master, &info("killed group"));
    let framework = scheduler.framework_id.clone();
    let own = executor_of(&framework);
    let offer = offer(side, &scheduler);
    let groups = [
        group(&offer, &own, &["a", "b"]),
        group(&offer, &own, &["c", "d"]),
    ];
    accept(&mut scheduler, &offer, &groups);
    await_start(side, &framework);
    let kill = json!({"type": "KILL", "kill": {"task_id": {"value": "b"}}});
    assert_eq!(scheduler.call(kill).status, 202);
    for status in two_updates(&mut scheduler) {
        heard.note("UPDATE", &status);
    }
    let ids = json!({"framework_id": {"value": framework}, "executor_id": {"value": "e"}});
    let mut executor = Executor::subscribe(&side.agent, &ids, &[], &[]);
    for step in ["first event", "the other group"] {
        heard.note(step, &executor.event().unwrap_or(Value::Null));
    }
    tear_down(scheduler);
}

/// Of groups of which something is wrong no task is launched.
pub(super) fn refused_groups(side: &Side, heard: &mut Transcript) {
    let mut scheduler = Scheduler::subscribe(&side.master, &info("refused groups"));
    let own = executor_of(&scheduler.framework_id);
    let spoilt: [Change; 10] = [
        ("no type", |operation| remove(operation, "type")),
        ("no framework", |operation| {
            remove(operation, "framework_id");
        }),
        ("no command", |operation| remove(operation, "command")),
        ("type DEFAULT with a command", |operation| {
            operation["launch_group"]["executor"]["type"] = json!("DEFAULT");
        }),
        ("little cpu", |operation| {
            operation["launch_group"]["executor"]["resources"][0]["scalar"]["value"] = json!(0.001);
        }),
        ("no disk", |operation| {
            let all = &mut operation["launch_group"]["executor"]["resources"];
            all.as_array_mut().unwrap().pop();
        }),
        ("another executor", |operation| {
            let mut other = operation["launch_group"]["executor"].clone();
            other["name"] = json!("other");
            second_task(operation)["executor"] = other;
        }),
        ("another agent", |operation| {
            second_task(operation)["agent_id"]["value"] = json!("elsewhere");
        }),
        ("no resources", |operation| {
            second_task(operation)["resources"] = json!([]);
        }),
        ("an id", |operation| operation["id"] = json!({"value": "o"})),
    ];
    let mut last = Value::Null;
    for (name, spoil) in spoilt {
        last = offer(side, &scheduler);
        let mut operation = group(&last, &own, &["a", "b"]);
        spoil(&mut operation);
        accept(&mut scheduler, &last, &[operation]);
        for status in two_updates(&mut scheduler) {
            heard.note(name, &status);
        }
    }
    let spent = group(&last, &own, &["a", "b"]);
    accept(&mut scheduler, &last, &[spent]);
    for status in two_updates(&mut scheduler) {
        heard.note("spent offer", &status);
    }
    tear_down(scheduler);
}

fn remove(operation: &mut Value, field: &str) {
    let executor = operation["launch_group"]["executor"].as_object_mut();
    executor.unwrap().remove(field);
}

fn second_task(operation: &mut Value) -> &mut Value {
    &mut operation["launch_group"]["task_group"]["tasks"][1]
}
