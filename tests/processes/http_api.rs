//! Schedulers that speak Mesos' HTTP API, against a cluster of real programs.

use meseta_tests::http::{Connection, Scheduler, command_task};
use meseta_tests::{Cluster, http_get, wait_for};
use serde_json::{Value, json};

const PATH: &str = "/api/v1/scheduler";
const JSON: (&str, &str) = ("Content-Type", "application/json");

fn info(name: &str) -> Value {
    json!({
        "user": std::env::var("USER").unwrap_or_else(|_| "root".to_owned()), "name": name, "roles": ["*"],
        "capabilities": [{"type": "MULTI_ROLE"}, {"type": "RESERVATION_REFINEMENT"}], "failover_timeout": 3600,
    })
}

fn states(cluster: &Cluster, framework: &str) -> Value {
    let (status, body) = http_get(
        &cluster.master,
        &format!("/frameworks?framework_id={framework}"),
    );
    assert_eq!(status, 200);
    serde_json::from_str(&body).unwrap()
}

#[test]
fn a_scheduler_over_http_runs_tasks_and_may_break_off_and_come_back() {
    let cluster = Cluster::start(1, &["--resources", "cpus:4;mem:1024;ports:[31000-31009]"]);
    let mut scheduler = Scheduler::subscribe(&cluster.master, &info("http"));
    assert_eq!(scheduler.event().unwrap()["type"], "HEARTBEAT");

    let offer = scheduler.offer();
    assert_eq!(offer["url"]["path"], "/slave(1)");
    assert_eq!(offer["allocation_info"], json!({"role": "*"}));
    let cpus = offer["resources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == "cpus");
    assert_eq!(cpus.unwrap()["scalar"], json!({"value": 4.0}));
    let tasks = [
        command_task("good", &offer, "true"),
        command_task("bad", &offer, "exit 3"),
        command_task("long", &offer, "sleep 1000"),
    ];
    scheduler.launch(&offer, &tasks);
    let mut seen = std::collections::BTreeMap::<String, Vec<Value>>::new();
    let has = |seen: &std::collections::BTreeMap<String, Vec<Value>>, task: &str, state: &str| {
        seen.get(task)
            .is_some_and(|all| all.iter().any(|one| one["state"] == state))
    };
    while !(has(&seen, "good", "TASK_FINISHED")
        && has(&seen, "bad", "TASK_FAILED")
        && has(&seen, "long", "TASK_RUNNING"))
    {
        let status = scheduler.status();
        let task = status["task_id"]["value"].as_str().unwrap().to_owned();
        seen.entry(task).or_default().push(status);
    }
    let failed = seen["bad"].last().unwrap();
    assert_eq!(failed["message"], "Command exited with status 3");
    assert_eq!(failed["source"], "SOURCE_EXECUTOR");
    assert_eq!(failed["executor_id"], json!({"value": "bad"}));

    // The connection breaks: the framework is away, its task runs on.
    scheduler.disconnect();
    let id = scheduler.framework_id.clone();
    wait_for("the master to notice", || {
        (states(&cluster, &id)["frameworks"][0]["connected"] == false).then_some(())
    });
    let away = scheduler.call(json!({"type": "REVIVE"}));
    assert_eq!(
        (away.status, &*away.body),
        (403, "Framework is not subscribed")
    );

    let mut with_id = info("http");
    with_id["id"] = json!({"value": id});
    let mut second = Scheduler::subscribe(&cluster.master, &with_id);
    assert_eq!(second.framework_id, id);
    let question =
        json!({"type": "RECONCILE", "reconcile": {"tasks": [{"task_id": {"value": "long"}}]}});
    assert_eq!(second.call(question).status, 202);
    let known = second.status();
    assert_eq!(
        (&known["state"], &known["reason"]),
        (&json!("TASK_RUNNING"), &json!("REASON_RECONCILIATION"))
    );

    // Another one takes over: the older hears so and its stream ends.
    let mut third = Scheduler::subscribe(&cluster.master, &with_id);
    assert_eq!(
        second.event_of("ERROR")["error"]["message"],
        "Framework failed over"
    );
    assert!(second.event().is_none());
    let stale = second.call(json!({"type": "REVIVE"}));
    assert_eq!(stale.status, 400);
    assert!(stale.body.starts_with("The stream ID '"), "{}", stale.body);

    let kill = json!({"type": "KILL", "kill": {"task_id": {"value": "long"}}});
    assert_eq!(third.call(kill).status, 202);
    while third.status()["state"] != "TASK_KILLED" {}
    assert_eq!(third.call(json!({"type": "TEARDOWN"})).status, 202);
    // Nothing is said of it; the stream ends.
    while third.event().is_some() {}
    let gone = third.call(json!({"type": "REVIVE"}));
    assert_eq!(
        (gone.status, &*gone.body),
        (400, "Framework cannot be found")
    );
    cluster.stop();
}

#[test]
fn requests_that_are_no_calls_are_refused_in_the_words_that_clients_know() {
    let cluster = Cluster::start(0, &[]);
    let mut connection = Connection::open(&cluster.master);
    let mut asked = |headers: &[(&str, &str)], body: &str| {
        let answer = connection.request("POST", PATH, headers, body);
        (answer.status, answer.body)
    };
    let subscribe =
        json!({"type": "SUBSCRIBE", "subscribe": {"framework_info": info("x")}}).to_string();
    assert_eq!(
        asked(&[], "{}"),
        (400, "Expecting 'Content-Type' to be present".to_owned())
    );
    assert_eq!(asked(&[("Content-Type", "text/plain")], "{}").0, 415);
    assert_eq!(asked(&[JSON, ("Accept", "text/html")], &subscribe).0, 406);
    assert_eq!(
        asked(&[JSON, ("Mesos-Stream-Id", "x")], &subscribe),
        (
            400,
            "Subscribe calls should not include the 'Mesos-Stream-Id' header".to_owned()
        )
    );
    assert!(
        asked(&[JSON], "{")
            .1
            .starts_with("Failed to parse body into JSON: ")
    );
    assert_eq!(
        asked(&[JSON], "{}").1,
        "Failed to validate scheduler::Call: Expecting 'type' to be present"
    );
    assert_eq!(
        asked(
            &[JSON],
            r#"{"type":"REVIVE","framework_id":{"value":"nobody"}}"#
        ),
        (400, "Framework cannot be found".to_owned())
    );
    let other = connection.request("GET", PATH, &[], "");
    assert_eq!((other.status, other.header("allow")), (405, Some("POST")));
    assert_eq!(
        other.body,
        "405 Method Not Allowed. Expecting one of { 'POST' }, but received 'GET'."
    );
    // A page in somebody's browser may not act for them.
    let foreign = connection.request(
        "POST",
        PATH,
        &[JSON, ("Origin", "http://evil.example")],
        &subscribe,
    );
    assert_eq!(foreign.status, 403);

    // What the framework says of itself is looked at after the answer has begun.
    let mut refused = info("x");
    refused["roles"] = json!(["a", "a"]);
    let call = json!({"type": "SUBSCRIBE", "subscribe": {"framework_info": refused}}).to_string();
    connection.send("POST", PATH, &[JSON], call.as_bytes());
    assert_eq!(connection.answer().status, 200);
    let error = String::from_utf8(connection.chunk().unwrap()).unwrap();
    assert!(
        error.contains(r#""type":"ERROR""#) && error.contains("duplicate items"),
        "{error}"
    );
    assert_eq!(connection.chunk(), None);
    cluster.stop();
}

#[test]
fn a_framework_describes_itself_anew_and_may_not_become_another() {
    let cluster = Cluster::start(1, &["--resources", "cpus:4;mem:1024"]);
    let mut first = info("before");
    first["roles"] = json!(["a", "b"]);
    let mut scheduler = Scheduler::subscribe(&cluster.master, &first);
    let id = scheduler.framework_id.clone();
    first["id"] = json!({ "value": id });
    let call = |scheduler: &mut Scheduler, info: &Value, suppressed: &[&str]| {
        scheduler.call(json!({"type": "UPDATE_FRAMEWORK", "update_framework": {
            "framework_info": info, "suppressed_roles": suppressed,
        }}))
    };
    let offer = scheduler.offer();
    let role = offer["allocation_info"]["role"]
        .as_str()
        .unwrap()
        .to_owned();
    let other = if role == "a" { "b" } else { "a" };

    // Leaving a role takes back what was offered under it.
    let mut second = first.clone();
    second["name"] = json!("after");
    second["roles"] = json!([other]);
    let answer = call(&mut scheduler, &second, &[]);
    assert_eq!((answer.status, &*answer.body), (200, ""));
    let rescinded = scheduler.event_of("RESCIND");
    assert_eq!(rescinded["rescind"]["offer_id"], offer["id"]);
    let shown = states(&cluster, &id);
    let shown = &shown["frameworks"][0];
    assert_eq!(
        (&shown["name"], &shown["roles"]),
        (&json!("after"), &json!([other]))
    );
    let again = scheduler.offer();
    assert_eq!(again["allocation_info"]["role"], other);

    // A suppressed role gets nothing from then on; what is offered already stays.
    assert_eq!(call(&mut scheduler, &second, &[other]).status, 200);
    let explained = format!("/explain/framework/{id}");
    wait_for("the role to be suppressed", || {
        let (_, body) = http_get(&cluster.master, &explained);
        let told: Value = serde_json::from_str(&body).unwrap();
        let roles = told["roles"].as_array().unwrap();
        let role = roles.iter().find(|role| role["role"] == other)?;
        (role["suppressed"] == true).then_some(())
    });

    for (field, value, told) in [
        (
            "user",
            json!("somebody-else"),
            "Updating 'FrameworkInfo.user' is unsupported",
        ),
        (
            "checkpoint",
            json!(true),
            "Updating 'FrameworkInfo.checkpoint' is unsupported",
        ),
        (
            "principal",
            json!("somebody"),
            "Changing framework's principal is not allowed.",
        ),
        ("roles", json!(["/"]), "Supplied FrameworkInfo is not valid"),
    ] {
        let mut changed = second.clone();
        changed[field] = value;
        let answer = call(&mut scheduler, &changed, &[]);
        assert_eq!(answer.status, 400, "{field}: {answer:?}");
        assert!(answer.body.contains(told), "{field}: {answer:?}");
    }
    let foreign = call(&mut scheduler, &second, &["not-its-own"]);
    assert_eq!(foreign.status, 400, "{foreign:?}");
    assert_eq!(states(&cluster, &id)["frameworks"][0]["name"], "after");
}
