//! An executor that speaks Mesos' HTTP API over the restart of its agent, against real programs: the test plays the
//! executor and its scheduler.

use std::collections::BTreeSet;

use meseta_tests::http::{Executor, Scheduler};
use meseta_tests::own_agent::OwnAgent;
use meseta_tests::{Cluster, http_get, wait_for};
use serde_json::{Value, json};

fn info() -> Value {
    json!({
        "user": std::env::var("USER").unwrap_or_else(|_| "root".to_owned()), "name": "own executor", "roles": ["*"],
        "capabilities": [{"type": "MULTI_ROLE"}, {"type": "PARTITION_AWARE"}],
        "failover_timeout": 3600, "checkpoint": true,
    })
}

/// A task for the executor `e`, in whose container something runs that says nothing.
fn task(id: &str, offer: &Value, framework: &str) -> Value {
    let cpus = |value: f64| json!({"name": "cpus", "type": "SCALAR", "scalar": {"value": value}});
    json!({
        "name": id, "task_id": {"value": id}, "agent_id": offer["agent_id"], "resources": [cpus(0.5)],
        "executor": {
            "type": "CUSTOM", "executor_id": {"value": "e"}, "framework_id": {"value": framework},
            "command": {"value": "sleep 1000"}, "resources": [cpus(0.1)],
        },
    })
}

/// A state of a task, as the executor tells it. The id of the update follows from both.
fn status(task: &str, state: &str) -> Value {
    let letters = format!("{task}{state}").replace(['_', '-'], "");
    let (first, rest) = letters.split_at(letters.len().min(8));
    json!({
        "task_id": {"value": task}, "state": state, "source": "SOURCE_EXECUTOR",
        // The Q in the middle makes it one of version 4.
        "uuid": format!("{first:A<8}Q{rest:A<12.12}Q=="),
    })
}

fn name(of: &Value) -> String {
    of["task_id"]["value"].as_str().unwrap().to_owned()
}

/// The next events, each in a few words: the task that is launched or an update that is acknowledged.
fn next(executor: &mut Executor, count: usize) -> BTreeSet<String> {
    let words = |event: Value| match event["type"].as_str().unwrap() {
        "LAUNCH" => format!("launch {}", name(&event["launch"]["task"])),
        "ACKNOWLEDGED" => format!("have {}", event["acknowledged"]["uuid"].as_str().unwrap()),
        other => panic!("{other}: {event}"),
    };
    (0..count)
        .map(|_| words(executor.event().unwrap()))
        .collect()
}

fn subscribed(executor: &mut Executor) {
    let first = executor.event().unwrap();
    assert_eq!(first["type"], "SUBSCRIBED", "{first}");
}

fn have(status: &Value) -> String {
    format!("have {}", status["uuid"].as_str().unwrap())
}

fn words<const N: usize>(all: [&str; N]) -> BTreeSet<String> {
    all.into_iter().map(str::to_owned).collect()
}

/// The scheduler, and what it has heard. An update comes again until its acknowledgement has arrived.
struct Ears {
    scheduler: Scheduler,
    heard: BTreeSet<String>,
    /// Of whose updates every acknowledgement has arrived.
    over: Option<&'static str>,
}

impl Ears {
    /// Task and state of the next update that is no copy.
    fn news(&mut self) -> (String, String) {
        loop {
            let status = self.scheduler.status();
            assert_ne!(Some(&*name(&status)), self.over, "{status}");
            if self.heard.insert(status["uuid"].to_string()) {
                return (name(&status), status["state"].as_str().unwrap().to_owned());
            }
        }
    }
}

fn of(task: &str, state: &str) -> (String, String) {
    (task.to_owned(), state.to_owned())
}

#[test]
fn an_executor_over_http_comes_back_to_its_restarted_agent_and_its_tasks_end_once() {
    let cluster = Cluster::start(0, &[]);
    let flags = ["--resources=cpus:4;mem:1024", "--executor_transport=unix"];
    let mut agent = OwnAgent::start(&cluster, "agent", &flags, &[]);
    let mut scheduler = Scheduler::subscribe(&cluster.master, &info());
    let offer = scheduler.offer();
    let tasks: Vec<Value> = ["over", "ends", "goes-on", "unheard"]
        .iter()
        .map(|id| task(id, &offer, &scheduler.framework_id))
        .collect();
    scheduler.launch(&offer, &tasks);

    let ids = json!({
        "framework_id": {"value": scheduler.framework_id}, "executor_id": {"value": "e"},
    });
    let mut executor = Executor::subscribe(agent.address(), &ids, &[], &[]);
    subscribed(&mut executor);
    assert_eq!(
        next(&mut executor, 4),
        words([
            "launch over",
            "launch ends",
            "launch goes-on",
            "launch unheard"
        ])
    );
    let over = [
        status("over", "TASK_RUNNING"),
        status("over", "TASK_FINISHED"),
    ];
    for update in over.iter().chain([&status("ends", "TASK_RUNNING")]) {
        executor.update(update);
        let told = executor.event().unwrap();
        assert_eq!(told["acknowledged"]["uuid"], update["uuid"], "{told}");
    }
    let mut ears = Ears {
        scheduler,
        heard: BTreeSet::new(),
        over: None,
    };
    let before: BTreeSet<_> = (0..3).map(|_| ears.news()).collect();
    let expected = [
        of("over", "TASK_RUNNING"),
        of("over", "TASK_FINISHED"),
        of("ends", "TASK_RUNNING"),
    ];
    assert_eq!(before, BTreeSet::from(expected));
    wait_for("the agent to forget the task that is over", || {
        let (_, body) = http_get(agent.address(), "/state");
        let state: Value = serde_json::from_str(&body).unwrap();
        let executor = &state["frameworks"][0]["executors"][0];
        (executor["completed_tasks"][0]["id"] == "over").then_some(())
    });

    ears.over = Some("over");

    // The agent's word that it has the first task's updates, and one launch, are lost on their way; two things happen while
    // nobody is there to be told.
    agent.kill();
    assert_eq!(executor.event(), None);
    agent.start_again(&[]);
    let [end, on] = [
        status("ends", "TASK_FINISHED"),
        status("goes-on", "TASK_RUNNING"),
    ];
    let updates = [over[0].clone(), over[1].clone(), end.clone(), on.clone()];
    let unheard_of = [tasks[0].clone(), tasks[2].clone()];
    let mut executor = Executor::subscribe(agent.address(), &ids, &unheard_of, &updates);
    subscribed(&mut executor);
    let mut expected: BTreeSet<String> = updates.iter().map(have).collect();
    expected.insert("launch unheard".to_owned());
    assert_eq!(next(&mut executor, 5), expected);
    let after: BTreeSet<_> = (0..2).map(|_| ears.news()).collect();
    let expected = [of("ends", "TASK_FINISHED"), of("goes-on", "TASK_RUNNING")];
    assert_eq!(after, BTreeSet::from(expected));

    // A connection that breaks without its agent is one more way to come back.
    drop(executor);
    let mut executor = Executor::subscribe(agent.address(), &ids, &[tasks[3].clone()], &[]);
    subscribed(&mut executor);
    for task in ["goes-on", "unheard"] {
        let end = status(task, "TASK_FINISHED");
        executor.update(&end);
        assert_eq!(next(&mut executor, 1), BTreeSet::from([have(&end)]));
        assert_eq!(ears.news(), of(task, "TASK_FINISHED"));
    }
    // Nothing new was on its way: what comes next is the answer to a question.
    let question =
        json!({"type": "RECONCILE", "reconcile": {"tasks": [{"task_id": {"value": "nobody's"}}]}});
    assert_eq!(ears.scheduler.call(question).status, 202);
    assert_eq!(ears.news().0, "nobody's");

    let teardown = ears.scheduler.call(json!({"type": "TEARDOWN"}));
    assert_eq!(teardown.status, 202);
    assert_eq!(executor.event().unwrap()["type"], "SHUTDOWN");
    agent.leaves();
    cluster.stop();
}
