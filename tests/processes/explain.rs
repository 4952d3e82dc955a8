//! `/explain` on a running master, and `meseta explain`.

use meseta_tests::http::{Scheduler, command_task};
use meseta_tests::{Cluster, http_get, wait_for};
use serde_json::{Value, json};

fn explained(cluster: &Cluster, path: &str) -> Value {
    let (status, body) = http_get(&cluster.master, path);
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[test]
fn offers_that_do_not_come_and_tasks_that_hang_are_explained() {
    let cluster = Cluster::start(1, &["--resources", "cpus:4;mem:1024"]);
    let info = json!({
        "user": std::env::var("USER").unwrap_or_else(|_| "root".to_owned()), "name": "puzzled", "roles": ["*"],
        "capabilities": [{"type": "MULTI_ROLE"}], "failover_timeout": 3600,
    });
    let mut scheduler = Scheduler::subscribe(&cluster.master, &info);
    let offer = scheduler.offer();
    let id = scheduler.framework_id.clone();
    let about = format!("/explain/framework/{id}");
    let held = explained(&cluster, &about);
    assert_eq!(held["standing"], "active");
    assert_eq!(held["reasons"], json!({"nothing_free": 1}));
    assert_eq!(held["offers"][0]["id"], offer["id"]["value"]);
    assert_eq!(held["agents"][0]["offers"][0], offer["id"]["value"]);

    // Its end is told, and nobody acknowledges it.
    let task = command_task("hangs", &offer, "exit 3");
    scheduler.launch(&offer, &[task]);
    let status = loop {
        let status = scheduler.event_of("UPDATE")["update"]["status"].clone();
        if status["state"] != "TASK_FAILED" {
            let ack = json!({"type": "ACKNOWLEDGE", "acknowledge": {
                "agent_id": status["agent_id"], "task_id": status["task_id"], "uuid": status["uuid"],
            }});
            assert_eq!(scheduler.call(ack).status, 202);
        } else {
            break status;
        }
    };
    let task = explained(&cluster, "/master/explain/task/hangs");
    let found = &task["found"][0];
    assert_eq!(
        (&found["framework_id"], &found["kept_as"]),
        (&json!(id), &json!("live"))
    );
    assert_eq!(found["agent"]["standing"], "registered");
    let wait = &found["waits_for"][0];
    assert_eq!(
        (&wait["message"], &wait["from"]),
        (&json!("AcknowledgeStatus"), &json!("framework"))
    );
    assert_eq!(wait["state"], "TASK_FAILED");
    let told = cluster
        .command("explain")
        .args(["task", "hangs"])
        .output()
        .unwrap();
    let text = String::from_utf8(told.stdout).unwrap();
    assert!(
        text.contains("waits for  AcknowledgeStatus from the framework"),
        "{text}"
    );
    let ack = json!({"type": "ACKNOWLEDGE", "acknowledge": {
        "agent_id": status["agent_id"], "task_id": status["task_id"], "uuid": status["uuid"],
    }});
    assert_eq!(scheduler.call(ack).status, 202);
    wait_for("the task to be completed", || {
        let task = explained(&cluster, "/explain/task?id=hangs");
        (task["found"][0]["kept_as"] == "completed").then_some(())
    });

    // What is free again is declined for a long time, however many offers it comes in.
    let refused = wait_for("all to be refused", || {
        let told = explained(&cluster, &about);
        let offers = told["offers"].as_array().unwrap();
        for offer in offers {
            let decline = json!({"type": "DECLINE", "decline": {
                "offer_ids": [{"value": offer["id"]}], "filters": {"refuse_seconds": 10_000.0},
            }});
            assert_eq!(scheduler.call(decline).status, 202);
        }
        (told["reasons"]["refused"] == 1 && offers.is_empty()).then_some(told)
    });
    // That of what was left over by the launch may still be there, for a few seconds.
    let filters = refused["filters"].as_array().unwrap();
    let is_long = |filter: &Value| filter["seconds_left"].as_f64().unwrap() > 1000.0;
    assert!(filters.iter().any(is_long), "{refused}");
    let told = cluster
        .command("explain")
        .args(["framework", &id])
        .output()
        .unwrap();
    let text = String::from_utf8(told.stdout).unwrap();
    assert!(text.contains("not offered again until"), "{text}");

    let told = cluster
        .command("explain")
        .args(["task", "nobody"])
        .output()
        .unwrap();
    let text = String::from_utf8(told.stderr).unwrap();
    assert!(
        !told.status.success() && text.contains("is not known to this master"),
        "{text}"
    );
    assert_eq!(http_get(&cluster.master, "/explain/framework").0, 400);
}
