//! Single answers, in one situation: one agent, one framework with a task that runs and one that is over.
//!
//! `mesos/answers.jsonl` are recordings: of each request its status, the headers that say something, the text, or the
//! shape of the JSON with the types of its values. Ids, times and amounts differ from run to run and are not compared.

use std::collections::BTreeMap;

use meseta_tests::http::{Answer, Connection, Scheduler, command_task};
use meseta_tests::{http_get, wait_for};
use serde_json::{Map, Value, json};

use super::{Fields, Peer, Side, listed, own_cluster};

const RECORDED: &str = include_str!("../mesos/answers.jsonl");

fn shape(value: &Value) -> Value {
    match value {
        Value::Null => json!("null"),
        Value::Bool(_) => json!("bool"),
        Value::Number(number) if number.is_f64() => json!("float"),
        Value::Number(_) => json!("int"),
        Value::String(_) => json!("text"),
        Value::Array(all) => {
            let one = all.iter().map(shape).reduce(merge);
            Value::Array(one.into_iter().collect())
        }
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), shape(value)))
            .collect(),
    }
}

/// The shape of elements of which some have what others lack.
fn merge(one: Value, other: Value) -> Value {
    match (one, other) {
        (Value::Object(mut all), Value::Object(more)) => {
            for (name, value) in more {
                let merged = match all.remove(&name) {
                    Some(known) => merge(known, value),
                    None => value,
                };
                all.insert(name, merged);
            }
            Value::Object(all)
        }
        (Value::Array(one), Value::Array(other)) => {
            let merged = one.into_iter().chain(other).reduce(merge);
            Value::Array(merged.into_iter().collect())
        }
        (one, _) => one,
    }
}

impl Fields {
    /// What differs and is not listed.
    fn compare(&self, mesos: &Value, ours: &Value, path: &str, out: &mut Vec<String>) {
        match (mesos, ours) {
            (Value::String(any), _) if any == "any" => {}
            (Value::Object(mesos), Value::Object(ours)) => {
                self.compare_fields(mesos, ours, path, out);
            }
            (Value::Array(mesos), Value::Array(ours)) => {
                if let (Some(mesos), Some(ours)) = (mesos.first(), ours.first()) {
                    self.compare(mesos, ours, &format!("{path}[]"), out);
                }
            }
            (mesos, ours) if mesos == ours => {}
            (mesos, ours) => out.push(format!("{path} is {ours} and was {mesos}")),
        }
    }

    fn compare_fields(
        &self,
        mesos: &Map<String, Value>,
        ours: &Map<String, Value>,
        path: &str,
        out: &mut Vec<String>,
    ) {
        for (name, value) in mesos {
            match ours.get(name) {
                Some(own) => self.compare(value, own, &format!("{path}.{name}"), out),
                None if self.missing.contains(&**name) => {}
                None => out.push(format!("{path}.{name} is missing")),
            }
        }
        let more = ours.keys().filter(|name| !mesos.contains_key(*name));
        for name in more.filter(|name| !self.added.contains(&***name)) {
            out.push(format!("{path}.{name} is more than Mesos shows"));
        }
    }
}

fn ask(connection: &mut Connection, recorded: &Value) -> Answer {
    let text = |name: &str| recorded[name].as_str().unwrap();
    let headers: Vec<(&str, &str)> = recorded["headers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|header| (header[0].as_str().unwrap(), header[1].as_str().unwrap()))
        .collect();
    let body = &recorded["body"];
    let body: Vec<u8> = match (body.get("json"), body["bytes"].as_array()) {
        (Some(value), _) => value.to_string().into_bytes(),
        (None, Some(bytes)) => bytes
            .iter()
            .map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap())
            .collect(),
        (None, None) => Vec::new(),
    };
    connection.send(text("method"), text("path"), &headers, &body);
    connection.answer()
}

/// What differs between an answer and the recorded one.
fn differences(
    fields: &Fields,
    shapes: &BTreeMap<&str, &Value>,
    recorded: &Value,
    answer: &Answer,
) -> Vec<String> {
    let mut out = Vec::new();
    if recorded["status"] != answer.status {
        out.push(format!(
            "status is {} and was {}: {}",
            answer.status, recorded["status"], answer.body
        ));
        return out;
    }
    for name in ["content-type", "allow", "content-encoding"] {
        let (own, theirs) = (answer.header(name), recorded[name].as_str());
        // A body without anything in it needs no type.
        if own != theirs && !(answer.body.is_empty() && name == "content-type") {
            out.push(format!("{name} is {own:?} and was {theirs:?}"));
        }
    }
    let location = answer.header("location").map(|location| {
        let (host, _) = location.rsplit_once(':').unwrap();
        host.to_owned()
    });
    if location.as_deref() != recorded["location"].as_str() {
        out.push(format!("location is {location:?}"));
    }
    if let Some(text) = recorded["text"].as_str()
        && text != answer.body
    {
        out.push(format!("text is {:?} and was {text:?}", answer.body));
    }
    if let Some(bytes) = recorded["bytes"].as_array() {
        let own: Vec<u64> = answer.body.bytes().map(u64::from).collect();
        let theirs: Vec<u64> = bytes.iter().filter_map(Value::as_u64).collect();
        if own != theirs {
            out.push(format!("bytes are {own:?} and were {theirs:?}"));
        }
    }
    let theirs = recorded.get("shape").or_else(|| {
        let same = recorded["shape_of"].as_str()?;
        shapes.get(same).copied()
    });
    if let Some(theirs) = theirs {
        match serde_json::from_str::<Value>(&answer.body) {
            Ok(own) => fields.compare(theirs, &shape(&own), "", &mut out),
            Err(error) => out.push(format!("no JSON: {error}: {}", answer.body)),
        }
    }
    out
}

/// Brings the situation about.
pub(super) fn situation(side: &Side) -> Scheduler {
    let mut scheduler = Scheduler::subscribe(
        &side.master,
        &json!({
            "user": std::env::var("USER").unwrap_or_else(|_| "root".to_owned()), "name": "probe",
            "roles": ["web"], "capabilities": [{"type": "MULTI_ROLE"}], "failover_timeout": 60.0,
            "labels": {"labels": [{"key": "a", "value": "b"}]},
        }),
    );
    let offer = scheduler.offer();
    let tasks = [("long", "sleep 1000"), ("good", "true")].map(|(name, command)| {
        let mut task = command_task(name, &offer, command);
        task["labels"] = json!({"labels": [{"key": "x", "value": "y"}]});
        task
    });
    scheduler.launch(&offer, &tasks);
    let (mut runs, mut over) = (false, false);
    while !(runs && over) {
        let status = scheduler.status();
        runs |= status["task_id"]["value"] == "long" && status["state"] == "TASK_RUNNING";
        over |= status["task_id"]["value"] == "good" && status["state"] == "TASK_FINISHED";
    }
    // What is left of the agent is offered again, as it was when Mesos was asked. The offer may have come before the last
    // status, so the master is asked.
    wait_for("an offer", || {
        let (_, body) = http_get(&side.master, "/frameworks");
        let body: Value = serde_json::from_str(&body).unwrap();
        let offers = body["frameworks"][0]["offers"].as_array()?;
        (!offers.is_empty()).then_some(())
    });
    scheduler
}

/// Asks what was asked for a recording. One connection each: a server may close one on which it was sent more than it
/// wanted.
fn answer(side: &Side, recorded: &Value) -> Answer {
    let address = match recorded["at"].as_str().unwrap() {
        "master" => &side.master,
        _ => &side.agent,
    };
    ask(&mut Connection::open(address), recorded)
}

#[test]
fn answers_are_those_of_mesos_but_for_what_is_listed() {
    let cluster = own_cluster();
    let side = Side::of(&cluster.master);
    let mut scheduler = situation(&side);
    let fields = Fields::listed();
    let known = listed("Answers that differ");
    let all: Vec<Value> = RECORDED
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(all.len() > 200, "{}", all.len());
    let shapes: BTreeMap<&str, &Value> = all
        .iter()
        .filter_map(|one| Some((one["name"].as_str()?, one.get("shape")?)))
        .collect();
    let mut wrong = Vec::new();
    let mut listed_in_vain = known.clone();
    for recorded in &all {
        let differ = differences(&fields, &shapes, recorded, &answer(&side, recorded));
        let path = format!(
            "{} {} {}",
            recorded["at"].as_str().unwrap(),
            recorded["method"].as_str().unwrap(),
            recorded["path"].as_str().unwrap()
        );
        if differ.is_empty() {
            continue;
        }
        match known.get(&*path) {
            Some(path) => {
                listed_in_vain.remove(path);
            }
            None => wrong.push(format!(
                "{path} {}: {}",
                recorded["body"],
                differ.join("; ")
            )),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        listed_in_vain.is_empty(),
        "these do not differ any more: {listed_in_vain:?}"
    );
    scheduler.call(json!({"type": "TEARDOWN"}));
    cluster.stop();
}

#[test]
fn recorded_answers_are_what_mesos_says() {
    let Some(peer) = Peer::start() else {
        return super::without_peer("recorded_answers_are_what_mesos_says");
    };
    let mut scheduler = situation(&peer.side);
    let all: Vec<Value> = RECORDED
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let shapes: BTreeMap<&str, &Value> = all
        .iter()
        .filter_map(|one| Some((one["name"].as_str()?, one.get("shape")?)))
        .collect();
    let nothing = Fields::none();
    let wrong: Vec<String> = all
        .iter()
        .filter_map(|recorded| {
            let differ = differences(&nothing, &shapes, recorded, &answer(&peer.side, recorded));
            (!differ.is_empty()).then(|| format!("{}: {}", recorded["path"], differ.join("; ")))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    scheduler.call(json!({"type": "TEARDOWN"}));
}
