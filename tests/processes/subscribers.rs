//! Operators who hear what happens in a cluster of real programs.

use std::collections::BTreeMap;

use meseta_tests::http::{Connection, Scheduler, command_task};
use meseta_tests::{Cluster, http_get, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn call(kind: &str) -> String {
    json!({"type": kind}).to_string()
}

/// A subscription, at its first event.
fn subscribe(cluster: &Cluster, accept: &str) -> Connection {
    let mut connection = Connection::open(&cluster.master);
    let headers = [JSON, ("Accept", accept)];
    connection.send("POST", "/api/v1", &headers, call("SUBSCRIBE").as_bytes());
    let answer = connection.answer();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some(accept));
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    connection
}

/// The content of the next record, which is one chunk.
fn record(connection: &mut Connection) -> Option<Vec<u8>> {
    let chunk = connection.chunk()?;
    let at = chunk.iter().position(|byte| *byte == b'\n').unwrap();
    let length = std::str::from_utf8(&chunk[..at]).unwrap().parse::<usize>();
    assert_eq!(length.unwrap(), chunk.len() - at - 1);
    Some(chunk[at + 1..].to_vec())
}

fn event(connection: &mut Connection) -> Value {
    serde_json::from_slice(&record(connection).unwrap()).unwrap()
}

/// What there is, as somebody knows it who has a state and hears events.
#[derive(Debug, Default, PartialEq)]
struct Known {
    agents: Vec<String>,
    /// Names, and whether they are connected.
    frameworks: BTreeMap<String, (String, bool)>,
    /// States by framework and task.
    tasks: BTreeMap<(String, String), String>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

impl Known {
    fn of(state: &Value) -> Self {
        let mut known = Self::default();
        for agent in state["get_agents"]["agents"].as_array().unwrap() {
            known.agents.push(text(&agent["agent_info"]["id"]["value"]));
        }
        for framework in state["get_frameworks"]["frameworks"].as_array().unwrap() {
            known.framework(framework);
        }
        for list in ["tasks", "completed_tasks", "unreachable_tasks"] {
            for task in state["get_tasks"][list].as_array().unwrap() {
                known.task(task);
            }
        }
        known
    }

    fn framework(&mut self, framework: &Value) {
        let info = &framework["framework_info"];
        let stands = (text(&info["name"]), framework["connected"] == true);
        self.frameworks.insert(text(&info["id"]["value"]), stands);
    }

    fn task(&mut self, task: &Value) {
        let key = (
            text(&task["framework_id"]["value"]),
            text(&task["task_id"]["value"]),
        );
        self.tasks.insert(key, text(&task["state"]));
    }

    fn hear(&mut self, event: &Value) {
        match event["type"].as_str().unwrap() {
            "TASK_ADDED" => self.task(&event["task_added"]["task"]),
            "TASK_UPDATED" => {
                let updated = &event["task_updated"];
                let key = (
                    text(&updated["framework_id"]["value"]),
                    text(&updated["status"]["task_id"]["value"]),
                );
                *self.tasks.get_mut(&key).unwrap() = text(&updated["state"]);
            }
            "AGENT_ADDED" => {
                let info = &event["agent_added"]["agent"]["agent_info"];
                self.agents.push(text(&info["id"]["value"]));
            }
            "AGENT_REMOVED" => {
                let id = text(&event["agent_removed"]["agent_id"]["value"]);
                self.agents.retain(|agent| *agent != id);
            }
            "FRAMEWORK_ADDED" => self.framework(&event["framework_added"]["framework"]),
            "FRAMEWORK_UPDATED" => self.framework(&event["framework_updated"]["framework"]),
            "FRAMEWORK_REMOVED" => {
                let id = &event["framework_removed"]["framework_info"]["id"]["value"];
                self.frameworks.remove(&text(id)).unwrap();
            }
            "HEARTBEAT" => {}
            other => panic!("{other}"),
        }
    }
}

/// Hears until it knows this, and then what the master shows is the same.
fn hear_until(
    cluster: &Cluster,
    connection: &mut Connection,
    known: &mut Known,
    is_there: impl Fn(&Known) -> bool,
) {
    while !is_there(known) {
        known.hear(&event(connection));
    }
    let mut calls = Connection::open(&cluster.master);
    let answer = calls.request("POST", "/api/v1", &[JSON], &call("GET_STATE"));
    let state: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(*known, Known::of(&state["get_state"]));
}

fn info(id: Option<&str>) -> Value {
    let mut info = json!({
        "user": std::env::var("USER").unwrap_or_else(|_| "root".to_owned()), "name": "heard", "roles": ["*"],
        "capabilities": [{"type": "MULTI_ROLE"}, {"type": "RESERVATION_REFINEMENT"}], "failover_timeout": 3600,
    });
    if let Some(id) = id {
        info["id"] = json!({"value": id});
    }
    info
}

#[test]
fn what_an_operator_hears_adds_up_to_what_there_is() {
    let cluster = Cluster::start(1, &["--resources", "cpus:4;mem:1024"]);
    let mut connection = subscribe(&cluster, "application/json");
    let first = event(&mut connection);
    assert_eq!(first["type"], "SUBSCRIBED");
    assert_eq!(first["subscribed"]["heartbeat_interval_seconds"], 15.0);
    let mut known = Known::of(&first["subscribed"]["get_state"]);
    assert_eq!((known.agents.len(), known.frameworks.len()), (1, 0));
    assert_eq!(event(&mut connection), json!({"type": "HEARTBEAT"}));

    let mut scheduler = Scheduler::subscribe(&cluster.master, &info(None));
    let id = scheduler.framework_id.clone();
    let offer = scheduler.offer();
    let tasks = [
        command_task("good", &offer, "true"),
        command_task("long", &offer, "sleep 1000"),
    ];
    scheduler.launch(&offer, &tasks);
    let mut ended = BTreeMap::new();
    while ended.get("good") != Some(&json!("TASK_FINISHED"))
        || ended.get("long") != Some(&json!("TASK_RUNNING"))
    {
        let status = scheduler.status();
        ended.insert(text(&status["task_id"]["value"]), status["state"].clone());
    }
    let key = |task: &str| (id.clone(), task.to_owned());
    hear_until(&cluster, &mut connection, &mut known, |known| {
        let state = |task: &str| known.tasks.get(&key(task)).map(String::as_str);
        state("good") == Some("TASK_FINISHED") && state("long") == Some("TASK_RUNNING")
    });

    // The framework breaks off and comes back.
    scheduler.disconnect();
    hear_until(&cluster, &mut connection, &mut known, |known| {
        !known.frameworks[&id].1
    });
    let mut again = Scheduler::subscribe(&cluster.master, &info(Some(&id)));
    hear_until(&cluster, &mut connection, &mut known, |known| {
        known.frameworks[&id].1
    });
    assert_eq!(again.call(json!({"type": "TEARDOWN"})).status, 202);
    hear_until(&cluster, &mut connection, &mut known, |known| {
        known.frameworks.is_empty()
    });
    assert_eq!(known.tasks[&key("long")], "TASK_KILLED");

    // An agent that leaves.
    cluster.signal_to("agent-1", nix::sys::signal::Signal::SIGUSR1);
    loop {
        let event = event(&mut connection);
        known.hear(&event);
        if event["type"] == "AGENT_REMOVED" {
            break;
        }
    }
    connection.close();
    cluster.stop();
}

/// How many subscribers the master counts.
fn counted(cluster: &Cluster) -> Value {
    let (_, body) = http_get(&cluster.master, "/metrics/snapshot");
    let metrics: Value = serde_json::from_str(&body).unwrap();
    metrics["master/operator_event_stream_subscribers"].clone()
}

#[test]
fn one_subscriber_more_than_there_may_be_takes_the_place_of_the_oldest() {
    let dir = TempDir::with_prefix("meseta-test-").unwrap();
    let most = ("MESETA_MAX_OPERATOR_EVENT_STREAM_SUBSCRIBERS", "2");
    let cluster = Cluster::start_in(dir, 0, &[], &[most]);
    let mut oldest = subscribe(&cluster, "application/json");
    assert_eq!(event(&mut oldest)["type"], "SUBSCRIBED");
    let mut second = subscribe(&cluster, "application/x-protobuf");
    // Type SUBSCRIBED, with the state and the interval.
    assert!(record(&mut second).unwrap().starts_with(&[8, 1, 18]));
    assert_eq!(record(&mut second).unwrap(), [8, 9]);
    let mut third = subscribe(&cluster, "application/json");
    assert_eq!(event(&mut third)["type"], "SUBSCRIBED");
    assert_eq!(event(&mut oldest)["type"], "HEARTBEAT");
    assert_eq!(record(&mut oldest), None);
    wait_for("two to be counted", || {
        (counted(&cluster) == json!(2.0)).then_some(())
    });
    // The same event in either encoding.
    let scheduler = Scheduler::subscribe(&cluster.master, &info(None));
    let added = record(&mut second).unwrap();
    assert!(added.starts_with(&[8, 6]), "{added:?}");
    let id = scheduler.framework_id.as_bytes();
    assert!(added.windows(id.len()).any(|part| part == id));
    assert_eq!(event(&mut third)["type"], "HEARTBEAT");
    assert_eq!(event(&mut third)["type"], "FRAMEWORK_ADDED");
    second.close();
    third.close();
    wait_for("none to be counted", || {
        (counted(&cluster) == json!(0.0)).then_some(())
    });
    cluster.stop();
}
