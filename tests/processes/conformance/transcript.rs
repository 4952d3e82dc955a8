//! What a conversation was, without what differs from run to run.

use serde_json::{Map, Value, json};

use super::Fields;

/// Fields whose values are another in each run, or on each machine.
const OF_THE_RUN: [&str; 10] = [
    "timestamp",
    "nanoseconds",
    "hostname",
    "ip",
    "port",
    "ip_address",
    "pid",
    "executor_pid",
    "user",
    "version",
];
/// Lists whose order says nothing.
const SETS: [&str; 2] = ["resources", "capabilities"];

/// What was said, in its order: the step's name and what was heard in it.
#[derive(Default)]
pub(super) struct Transcript {
    scenario: &'static str,
    /// One for each step.
    pub(super) lines: Vec<Value>,
}

impl Transcript {
    /// What is noted from here on belongs to this scenario.
    pub(super) fn begin(&mut self, scenario: &'static str) {
        self.scenario = scenario;
    }

    /// Notes what was heard in a step.
    pub(super) fn note(&mut self, step: &str, heard: &Value) {
        let step = format!("{}: {step}", self.scenario);
        (self.lines).push(json!({"step": step, "heard": plain("", heard)}));
    }
}

/// The value with names in place of what differs from run to run.
fn plain(name: &str, value: &Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) => value.clone(),
        Value::Number(_) | Value::String(_) if OF_THE_RUN.contains(&name) => json!("<any>"),
        // Whether a number has a fraction is compared by single answers.
        Value::Number(number) => json!(number.as_f64()),
        Value::String(_) if name == "uuid" => json!("<uuid>"),
        Value::String(text) => json!(words(text)),
        Value::Array(all) => {
            let mut all: Vec<Value> = all.iter().map(|value| plain("", value)).collect();
            if SETS.contains(&name) {
                all.sort_by_key(Value::to_string);
            }
            Value::Array(all)
        }
        Value::Object(fields) => fields
            .iter()
            // What a master can do is its own.
            .filter(|(field, _)| !(name == "master_info" && *field == "capabilities"))
            .map(|(name, value)| (name.clone(), plain(name, value)))
            .collect(),
    }
}

/// A text with kinds in place of ids, of addresses and of directories.
fn words(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = next_id(rest) {
        let (before, id) = rest.split_at(at);
        out += before;
        let end = id.find(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '-'));
        let (id, after) = id.split_at(end.unwrap_or(id.len()));
        // A place in a list of the master's follows the master's own id.
        let kind = id.get(36..).and_then(|place| place.chars().nth(1));
        out += match kind {
            Some('S') => "<agent>",
            Some('O') => "<offer>",
            Some(_) => "<framework>",
            None => "<id>",
        };
        rest = after;
    }
    out += rest;
    let no_address = |word: &str| {
        let word = word.trim_matches(|letter: char| !letter.is_ascii_alphanumeric());
        !word.starts_with("127.0.0.1:") && !word.contains("@127.0.0.1:")
    };
    let shown: Vec<&str> = out
        .split(' ')
        .map(|word| match word {
            word if word.starts_with("'/") || (word.starts_with('/') && word.len() > 1) => "<path>",
            word if no_address(word) => word,
            _ => "<address>",
        })
        .collect();
    shown.join(" ")
}

/// Where the next text of the form of a UUID begins.
fn next_id(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let is_id = |bytes: &[u8]| {
        (bytes.iter().enumerate()).all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
    };
    bytes.windows(36).position(is_id)
}

/// What differs between what was heard of two sides in the same step, but for fields that are listed.
pub(super) fn differences(fields: &Fields, mesos: &Value, ours: &Value) -> Vec<String> {
    let mut out = Vec::new();
    compare(fields, mesos, ours, "", &mut out);
    out
}

fn compare(fields: &Fields, mesos: &Value, ours: &Value, path: &str, out: &mut Vec<String>) {
    match (mesos, ours) {
        (Value::Object(mesos), Value::Object(ours)) => {
            compare_fields(fields, mesos, ours, path, out);
        }
        (Value::Array(mesos), Value::Array(ours)) if mesos.len() == ours.len() => {
            for (at, (mesos, ours)) in mesos.iter().zip(ours).enumerate() {
                compare(fields, mesos, ours, &format!("{path}[{at}]"), out);
            }
        }
        (mesos, ours) if mesos == ours => {}
        (mesos, ours) => out.push(format!("{path} is {ours} and was {mesos}")),
    }
}

fn compare_fields(
    fields: &Fields,
    mesos: &Map<String, Value>,
    ours: &Map<String, Value>,
    path: &str,
    out: &mut Vec<String>,
) {
    for (name, value) in mesos {
        match ours.get(name) {
            Some(own) => compare(fields, value, own, &format!("{path}.{name}"), out),
            None if fields.missing.contains(&**name) => {}
            None => out.push(format!("{path}.{name} is missing and was {value}")),
        }
    }
    for (name, value) in ours {
        if !mesos.contains_key(name) && !fields.added.contains(&**name) {
            out.push(format!("{path}.{name} is {value} and was not there"));
        }
    }
}

#[test]
fn what_differs_from_run_to_run_is_no_part_of_a_transcript() {
    let id = "0a1b2c3d-0000-4111-8222-333344445555";
    let heard = json!({
        "agent_id": {"value": format!("{id}-S0")},
        "message": format!("Offer {id}-O17 of {id}-0001 at slave(1)@127.0.0.1:5051 in /tmp/{id} is gone"),
        "count": 1, "timestamp": 12.5,
    });
    let mut transcript = Transcript::default();
    transcript.begin("one");
    transcript.note("first", &heard);
    let expected = json!({"step": "one: first", "heard": {
        "agent_id": {"value": "<agent>"},
        "message": "Offer <offer> of <framework> at <address> in <path> is gone",
        "count": 1.0, "timestamp": "<any>",
    }});
    assert_eq!(transcript.lines, [expected]);
}
