//! Whole conversations of schedulers and executors.
//!
//! `mesos/scenarios.jsonl` is what was heard of Mesos, step by step. Heartbeats are left out, and offers but for the first:
//! how many come depends on time.

use std::collections::BTreeSet;

use meseta_tests::http::{Connection, Executor, Scheduler, command_task};
use meseta_tests::{http_get, wait_for};
use serde_json::{Value, json};

use super::transcript::{Transcript, differences};
use super::{Fields, Peer, Side, groups, listed, own_cluster};

const RECORDED: &str = include_str!("../mesos/scenarios.jsonl");

type Scenario = fn(&Side, &mut Transcript);
/// Something made of a good request, and what it is called.
pub(super) type Change = (&'static str, fn(&mut Value));

const ALL: [(&str, Scenario); 13] = [
    ("launch", launch),
    ("refused tasks", refused_tasks),
    ("kill", kill),
    ("reconcile", reconcile),
    ("fail-over", fail_over),
    ("end of a framework", end_of_a_framework),
    ("bad subscriptions", bad_subscriptions),
    ("executor", executor),
    ("executor that ends", executor_that_ends),
    ("changed framework", changed_framework),
    ("group", groups::group_of_tasks),
    ("killed group", groups::killed_group),
    ("refused groups", groups::refused_groups),
];

pub(super) fn info(name: &str) -> Value {
    json!({
        "user": std::env::var("USER").unwrap_or_else(|_| "root".to_owned()), "name": name, "roles": ["web"],
        "capabilities": [{"type": "MULTI_ROLE"}, {"type": "PARTITION_AWARE"}], "failover_timeout": 60.0,
    })
}

fn id_of(scheduler: &Scheduler, name: &str) -> Value {
    let mut info = info(name);
    info["id"] = json!({"value": scheduler.framework_id});
    info
}

/// An offer that the framework has, whenever it came.
pub(super) fn offer(side: &Side, scheduler: &Scheduler) -> Value {
    wait_for("an offer", || {
        let (_, body) = http_get(&side.master, "/frameworks");
        let body: Value = serde_json::from_str(&body).unwrap();
        let all = body["frameworks"].as_array()?;
        let own = all
            .iter()
            .find(|one| one["id"] == *scheduler.framework_id)?;
        let offer = own["offers"].get(0)?;
        Some(json!({"id": {"value": offer["id"]}, "agent_id": {"value": offer["slave_id"]}}))
    })
}

/// Accepts an offer for these tasks; what is left may be offered again at once.
fn accept(side: &Side, scheduler: &mut Scheduler, tasks: impl Fn(&Value) -> Vec<Value>) {
    let offer = offer(side, scheduler);
    let answer = scheduler.call(json!({"type": "ACCEPT", "accept": {
        "offer_ids": [offer["id"]], "filters": {"refuse_seconds": 0},
        "operations": [{"type": "LAUNCH", "launch": {"task_infos": tasks(&offer)}}],
    }}));
    assert_eq!((answer.status, &*answer.body), (202, ""));
}

/// Notes the next updates, which are acknowledged, until one of this state was heard. One that comes again, because its
/// acknowledgement was long on its way, is noted once.
fn updates_until(scheduler: &mut Scheduler, state: &str, heard: &mut Transcript) {
    let mut noted = BTreeSet::new();
    loop {
        let status = scheduler.status();
        if !status["uuid"].is_null() && !noted.insert(status["uuid"].to_string()) {
            continue;
        }
        heard.note("UPDATE", &status);
        if status["state"] == state {
            break;
        }
    }
}

/// Calls and notes the answer.
fn call(scheduler: &mut Scheduler, call: Value, heard: &mut Transcript) {
    let step = call["type"].as_str().unwrap().to_owned();
    let answer = scheduler.call(call);
    heard.note(
        &format!("answer to {step}"),
        &json!([answer.status, answer.body]),
    );
}

pub(super) fn tear_down(mut scheduler: Scheduler) {
    let answer = scheduler.call(json!({"type": "TEARDOWN"}));
    assert_eq!(answer.status, 202, "{answer:?}");
    while scheduler.event().is_some() {}
}

fn launch(side: &Side, heard: &mut Transcript) {
    let mut scheduler = Scheduler::subscribe(&side.master, &info("launch"));
    heard.note("first event", &scheduler.subscribed);
    let offers = scheduler.event_of("OFFERS");
    heard.note("OFFERS", &offers);
    let offer = &offers["offers"]["offers"][0];
    let tasks = [command_task("one", offer, "exit 3")];
    call(
        &mut scheduler,
        json!({"type": "ACCEPT", "accept": {
            "offer_ids": [offer["id"]], "filters": {"refuse_seconds": 0},
            "operations": [{"type": "LAUNCH", "launch": {"task_infos": tasks}}],
        }}),
        heard,
    );
    updates_until(&mut scheduler, "TASK_FAILED", heard);
    accept(side, &mut scheduler, |offer| {
        vec![command_task("two", offer, "true")]
    });
    updates_until(&mut scheduler, "TASK_FINISHED", heard);
    // The same offer again, which is used up.
    let status = json!({"type": "ACCEPT", "accept": {
        "offer_ids": [offer["id"]], "filters": {"refuse_seconds": 0},
        "operations": [{"type": "LAUNCH", "launch": {"task_infos": [command_task("three", offer, "true")]}}],
    }});
    call(&mut scheduler, status, heard);
    updates_until(&mut scheduler, "TASK_DROPPED", heard);
    call(
        &mut scheduler,
        json!({"type": "DECLINE", "decline": {"offer_ids": [offer["id"]]}}),
        heard,
    );
    call(&mut scheduler, json!({"type": "SUPPRESS"}), heard);
    call(&mut scheduler, json!({"type": "REVIVE"}), heard);
    tear_down(scheduler);
}

fn refused_tasks(side: &Side, heard: &mut Transcript) {
    let mut scheduler = Scheduler::subscribe(&side.master, &info("refused tasks"));
    let spoilt: [Change; 8] = [
        ("too much", |task| {
            task["resources"][0]["scalar"]["value"] = json!(100);
        }),
        ("nothing", |task| task["resources"] = json!([])),
        ("another agent", |task| {
            task["agent_id"]["value"] = json!("elsewhere");
        }),
        ("bad id", |task| task["task_id"]["value"] = json!("a/b")),
        ("no command", |task| {
            task.as_object_mut().unwrap().remove("command");
        }),
        ("both kinds", |task| {
            task["executor"] = json!({
                "executor_id": {"value": "e"}, "command": {"value": "sleep 1000"}, "type": "CUSTOM",
            });
        }),
        ("a role of others", |task| {
            task["resources"][0]["allocation_info"] = json!({"role": "others"});
        }),
        ("negative kill policy", |task| {
            task["kill_policy"] = json!({"grace_period": {"nanoseconds": -1}});
        }),
    ];
    for (name, spoil) in spoilt {
        accept(side, &mut scheduler, |offer| {
            let mut task = command_task(name, offer, "true");
            spoil(&mut task);
            vec![task]
        });
        heard.note(name, &scheduler.status());
    }
    accept(side, &mut scheduler, |offer| {
        vec![command_task("twice", offer, "sleep 1000")]
    });
    updates_until(&mut scheduler, "TASK_RUNNING", heard);
    accept(side, &mut scheduler, |offer| {
        vec![command_task("twice", offer, "sleep 1000")]
    });
    heard.note("id used twice", &scheduler.status());
    tear_down(scheduler);
}

fn kill(side: &Side, heard: &mut Transcript) {
    let mut scheduler = Scheduler::subscribe(&side.master, &info("kill"));
    accept(side, &mut scheduler, |offer| {
        vec![command_task("runs", offer, "sleep 1000")]
    });
    updates_until(&mut scheduler, "TASK_RUNNING", heard);
    let of = |task: &str| json!({"type": "KILL", "kill": {"task_id": {"value": task}}});
    call(&mut scheduler, of("runs"), heard);
    updates_until(&mut scheduler, "TASK_KILLED", heard);
    call(&mut scheduler, of("never was"), heard);
    heard.note("unknown task", &scheduler.status());
    let mut elsewhere = of("never was");
    elsewhere["kill"]["agent_id"] = json!({"value": "elsewhere"});
    call(&mut scheduler, elsewhere, heard);
    heard.note("unknown agent", &scheduler.status());
    call(&mut scheduler, json!({"type": "KILL"}), heard);
    tear_down(scheduler);
}

fn reconcile(side: &Side, heard: &mut Transcript) {
    let mut scheduler = Scheduler::subscribe(&side.master, &info("reconcile"));
    let offer = offer(side, &scheduler);
    let agent = offer["agent_id"].clone();
    let task = command_task("runs", &offer, "sleep 1000");
    scheduler.launch(&offer, &[task]);
    updates_until(&mut scheduler, "TASK_RUNNING", heard);
    let tasks = |tasks: Value| json!({"type": "RECONCILE", "reconcile": {"tasks": tasks}});
    let one = |id: &str, agent: Option<Value>| {
        let mut task = json!({"task_id": {"value": id}});
        if let Some(agent) = agent {
            task["agent_id"] = agent;
        }
        tasks(json!([task]))
    };
    let elsewhere = json!({"value": "0a1b2c3d-0000-4111-8222-333344445555-S9"});
    let asked = [
        ("known task", one("runs", Some(agent.clone()))),
        ("known task, no agent", one("runs", None)),
        ("unknown task, known agent", one("never was", Some(agent))),
        (
            "unknown task, unknown agent",
            one("never was", Some(elsewhere)),
        ),
        ("unknown task, no agent", one("never was", None)),
        ("all", tasks(json!([]))),
    ];
    for (step, asked) in asked {
        call(&mut scheduler, asked, heard);
        heard.note(step, &scheduler.status());
    }
    tear_down(scheduler);
}

fn fail_over(side: &Side, heard: &mut Transcript) {
    let mut first = Scheduler::subscribe(&side.master, &info("fail-over"));
    accept(side, &mut first, |offer| {
        vec![command_task("runs", offer, "sleep 1000")]
    });
    // Nobody acknowledges it.
    let unheard = first.event_of("UPDATE");
    heard.note("not acknowledged", &unheard["update"]["status"]);
    let mut second = Scheduler::subscribe(&side.master, &id_of(&first, "fail-over"));
    heard.note("first event of the second", &second.subscribed);
    assert_eq!(first.framework_id, second.framework_id);
    while let Some(event) = first.event() {
        if event["type"] == "ERROR" {
            heard.note("last event of the first", &event);
        }
    }
    call(&mut first, json!({"type": "REVIVE"}), heard);
    updates_until(&mut second, "TASK_RUNNING", heard);
    // A break, and back within the time-out.
    second.disconnect();
    let mut third = Scheduler::subscribe(&side.master, &id_of(&first, "fail-over"));
    heard.note("first event after a break", &third.subscribed);
    call(
        &mut third,
        json!({"type": "RECONCILE", "reconcile": {"tasks": []}}),
        heard,
    );
    heard.note("what runs", &third.status());
    tear_down(third);
}

fn end_of_a_framework(side: &Side, heard: &mut Transcript) {
    let mut scheduler = Scheduler::subscribe(&side.master, &info("end of a framework"));
    call(&mut scheduler, json!({"type": "TEARDOWN"}), heard);
    while let Some(event) = scheduler.event() {
        if event["type"] != "OFFERS" && event["type"] != "HEARTBEAT" {
            heard.note("event", &event);
        }
    }
    call(&mut scheduler, json!({"type": "REVIVE"}), heard);
    let again = id_of(&scheduler, "end of a framework");
    heard.note("back after the end", &try_to_subscribe(side, &again));
}

/// Status and text of a refusal, or the first event of the stream.
fn try_to_subscribe(side: &Side, info: &Value) -> Value {
    let mut call = json!({"type": "SUBSCRIBE", "subscribe": {"framework_info": info}});
    if let Some(id) = info.get("id") {
        call["framework_id"] = id.clone();
    }
    let json = [("Content-Type", "application/json")];
    let mut connection = Connection::open(&side.master);
    connection.send(
        "POST",
        "/api/v1/scheduler",
        &json,
        call.to_string().as_bytes(),
    );
    let answer = connection.answer();
    let event = match answer.header("transfer-encoding") {
        Some(_) => connection.chunk().and_then(|chunk| {
            let at = chunk.iter().position(|byte| *byte == b'\n')?;
            serde_json::from_slice(&chunk[at + 1..]).ok()
        }),
        None => None,
    };
    json!([answer.status, answer.body, event.unwrap_or(Value::Null)])
}

fn bad_subscriptions(side: &Side, heard: &mut Transcript) {
    let spoilt: [Change; 9] = [
        ("role with a slash at its begin", |info| {
            info["roles"] = json!(["/web"]);
        }),
        ("empty role", |info| info["roles"] = json!([""])),
        ("role of dots", |info| info["roles"] = json!([".."])),
        ("role twice", |info| info["roles"] = json!(["web", "web"])),
        ("role and roles", |info| info["role"] = json!("web")),
        ("roles without the capability", |info| {
            info["capabilities"] = json!([]);
        }),
        ("negative fail-over time", |info| {
            info["failover_timeout"] = json!(-1.0);
        }),
        ("id that never was", |info| {
            info["id"] = json!({"value": "never-was"});
        }),
        ("id with a slash", |info| {
            info["id"] = json!({"value": "never/was"});
        }),
    ];
    for (name, spoil) in spoilt {
        let mut info = info("bad subscriptions");
        spoil(&mut info);
        let refused = try_to_subscribe(side, &info);
        // One that is taken goes on without its client, and is ended.
        if let Some(id) = refused[2]["subscribed"]["framework_id"]["value"].as_str() {
            let form = format!("frameworkId={id}");
            let form_type = [("Content-Type", "application/x-www-form-urlencoded")];
            let answer =
                Connection::open(&side.master).request("POST", "/teardown", &form_type, &form);
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        heard.note(name, &refused);
    }
}

/// A task for an executor whose container runs `command`.
fn task_of_executor(id: &str, offer: &Value, framework: &str, command: &str) -> Value {
    let mut task = command_task(id, offer, "");
    task.as_object_mut().unwrap().remove("command");
    task["executor"] = json!({
        "type": "CUSTOM", "executor_id": {"value": "e"}, "framework_id": {"value": framework},
        "command": {"value": command}, "name": "played", "source": "test",
        "resources": [
            {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}},
            {"name": "mem", "type": "SCALAR", "scalar": {"value": 32}},
        ],
    });
    task
}

pub(super) fn said(task: &str, state: &str, letter: char) -> Value {
    json!({
        "task_id": {"value": task}, "state": state, "source": "SOURCE_EXECUTOR", "message": "as played",
        // In the form of random ones, which Mesos asks for.
        "uuid": format!("{letter:A<8}QACAAAAAAAAAAA=="),
    })
}

/// Waits until the framework's executor runs in its container. Mesos forgets the tasks of one that subscribes before.
pub(super) fn await_start(side: &Side, framework: &str) {
    wait_for("the executor to run", || {
        let (_, body) = http_get(&side.agent, "/state");
        let state: Value = serde_json::from_str(&body).ok()?;
        let all = state["frameworks"].as_array()?;
        let own = all.iter().find(|one| one["id"] == framework)?;
        let directory = own["executors"][0]["directory"].as_str()?;
        let path = format!("/files/read?path={directory}/stdout&offset=0");
        let (_, output) = http_get(&side.agent, &path);
        output.contains("started").then_some(())
    });
}

fn executor(side: &Side, heard: &mut Transcript) {
    let mut scheduler = Scheduler::subscribe(&side.master, &info("executor"));
    let framework = scheduler.framework_id.clone();
    let offer = offer(side, &scheduler);
    let agent = offer["agent_id"].clone();
    let task = task_of_executor("one", &offer, &framework, "echo started; sleep 1000");
    scheduler.launch(&offer, std::slice::from_ref(&task));
    await_start(side, &framework);
    let ids = json!({"framework_id": {"value": framework}, "executor_id": {"value": "e"}});
    let mut executor = Executor::subscribe(&side.agent, &ids, &[], &[]);
    let mut next = |executor: &mut Executor, step: &str| {
        let event = executor.event().unwrap_or(Value::Null);
        heard.note(step, &event);
    };
    next(&mut executor, "first event");
    next(&mut executor, "the task");
    executor.update(&said("one", "TASK_RUNNING", 'R'));
    let status = scheduler.event_of("UPDATE")["update"]["status"].clone();
    // It breaks off before its update is acknowledged, and tells of it again.
    executor.disconnect();
    let running = said("one", "TASK_RUNNING", 'R');
    let mut executor =
        Executor::subscribe(&side.agent, &ids, std::slice::from_ref(&task), &[running]);
    next(&mut executor, "first event after a break");
    let acknowledge = |scheduler: &mut Scheduler, status: &Value| {
        let answer = scheduler.call(json!({"type": "ACKNOWLEDGE", "acknowledge": {
            "agent_id": status["agent_id"], "task_id": status["task_id"], "uuid": status["uuid"],
        }}));
        assert_eq!(answer.status, 202, "{answer:?}");
    };
    acknowledge(&mut scheduler, &status);
    next(&mut executor, "acknowledged");
    let to = json!({"agent_id": agent, "executor_id": {"value": "e"}, "data": "aGVsbG8="});
    let answer = scheduler.call(json!({"type": "MESSAGE", "message": to}));
    assert_eq!(answer.status, 202, "{answer:?}");
    next(&mut executor, "message to the executor");
    executor.call(json!({"type": "MESSAGE", "message": {"data": "Z29vZGJ5ZQ=="}}));
    let message = scheduler.event_of("MESSAGE");
    let answer = scheduler.call(json!({"type": "KILL", "kill": {
        "task_id": {"value": "one"}, "kill_policy": {"grace_period": {"nanoseconds": 5_000_000_000_u64}},
    }}));
    assert_eq!(answer.status, 202, "{answer:?}");
    next(&mut executor, "kill");
    executor.update(&said("one", "TASK_KILLED", 'K'));
    let killed = scheduler.event_of("UPDATE")["update"]["status"].clone();
    acknowledge(&mut scheduler, &killed);
    next(&mut executor, "acknowledged at the end");
    let answer = scheduler.call(json!({"type": "SHUTDOWN", "shutdown": {
        "executor_id": {"value": "e"}, "agent_id": agent,
    }}));
    assert_eq!(answer.status, 202, "{answer:?}");
    next(&mut executor, "shutdown");
    heard.note("status of what the executor said", &status);
    heard.note("message to the scheduler", &message);
    heard.note("status of the end", &killed);
    tear_down(scheduler);
}

fn executor_that_ends(side: &Side, heard: &mut Transcript) {
    let mut scheduler = Scheduler::subscribe(&side.master, &info("executor that ends"));
    let framework = scheduler.framework_id.clone();
    accept(side, &mut scheduler, |offer| {
        vec![task_of_executor("one", offer, &framework, "exit 3")]
    });
    // Which of the two comes first is not promised.
    let (mut status, mut failure) = (Value::Null, Value::Null);
    while status.is_null() || failure.is_null() {
        let event = scheduler.event().unwrap();
        if event["type"] == "UPDATE" {
            status.clone_from(&event["update"]["status"]);
        } else if event["type"] == "FAILURE" {
            failure = event;
        }
    }
    heard.note("UPDATE", &status);
    heard.note("FAILURE", &failure);
    tear_down(scheduler);
}

fn changed_framework(side: &Side, heard: &mut Transcript) {
    let mut scheduler = Scheduler::subscribe(&side.master, &info("changed framework"));
    let changes: [Change; 6] = [
        ("name", |info| info["name"] = json!("another name")),
        ("roles", |info| info["roles"] = json!(["web", "more"])),
        ("bad roles", |info| info["roles"] = json!(["/web"])),
        ("user", |info| info["user"] = json!("nobody")),
        ("checkpoint", |info| info["checkpoint"] = json!(true)),
        ("another id", |info| {
            info["id"] = json!({"value": "never-was"});
        }),
    ];
    for (step, change) in changes {
        let mut info = id_of(&scheduler, "changed framework");
        change(&mut info);
        let answer = scheduler.call(json!({
            "type": "UPDATE_FRAMEWORK", "update_framework": {"framework_info": info},
        }));
        heard.note(step, &json!([answer.status, answer.body]));
    }
    tear_down(scheduler);
}

/// Plays all scenarios against one side.
fn play(side: &Side) -> Vec<Value> {
    let mut heard = Transcript::default();
    for (name, scenario) in ALL {
        heard.begin(name);
        scenario(side, &mut heard);
    }
    heard.lines
}

/// What differs, step by step: the step and what is different in it.
fn compare(fields: &Fields, mesos: &[Value], ours: &[Value]) -> Vec<(String, String)> {
    let step = |line: &Value| line["step"].as_str().unwrap().to_owned();
    let mut out: Vec<(String, String)> = mesos
        .iter()
        .zip(ours)
        .flat_map(|(mesos, ours)| {
            if mesos["step"] != ours["step"] {
                let text = format!("came where `{}` was", step(mesos));
                return vec![(step(ours), text)];
            }
            differences(fields, &mesos["heard"], &ours["heard"])
                .into_iter()
                .map(|text| (step(ours), text))
                .collect()
        })
        .collect();
    if mesos.len() != ours.len() {
        let text = format!("{} steps were {}", ours.len(), mesos.len());
        out.push(("all".to_owned(), text));
    }
    out
}

fn recorded() -> Vec<Value> {
    let lines = RECORDED.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn lines_of(all: &[(String, String)]) -> String {
    let lines: Vec<String> = (all.iter())
        .map(|(step, text)| format!("{step}: {text}"))
        .collect();
    lines.join("\n")
}

#[test]
fn conversations_are_those_with_mesos_but_for_what_is_listed() {
    let cluster = own_cluster();
    let ours = play(&Side::of(&cluster.master));
    let known = listed("Steps of conversations that differ");
    let mut listed_in_vain = known.clone();
    let mut wrong = compare(&Fields::listed(), &recorded(), &ours);
    wrong.retain(|(step, _)| {
        listed_in_vain.remove(&**step);
        !known.contains(&**step)
    });
    assert!(wrong.is_empty(), "{}", lines_of(&wrong));
    assert!(
        listed_in_vain.is_empty(),
        "these do not differ any more: {listed_in_vain:?}"
    );
    cluster.stop();
}

#[test]
fn recorded_conversations_are_what_mesos_says() {
    let Some(peer) = Peer::start() else {
        return super::without_peer("recorded_conversations_are_what_mesos_says");
    };
    let said = play(&peer.side);
    if std::env::var_os("MESETA_MESOS_RECORD").is_some() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/processes/mesos/scenarios.jsonl"
        );
        let lines: String = said.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(path, lines).unwrap();
        return;
    }
    let nothing = Fields::none();
    let wrong = compare(&nothing, &recorded(), &said);
    assert!(wrong.is_empty(), "{}", lines_of(&wrong));
}
