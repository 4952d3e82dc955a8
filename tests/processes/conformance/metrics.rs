//! Names of metrics. Tools read groups of them as a whole and fail, or show nothing, when one is missing, so all are there
//! before there is anything to count.

use std::collections::BTreeSet;
use std::path::Path;

use meseta_tests::http_get;
use serde_json::{Value, json};

use super::answers::situation;
use super::{Peer, Side, listed, own_cluster, without_peer};

const RECORDED: &str = include_str!("../mesos/metric_names.json");

/// The name with what differs from run to run, names and ids of frameworks, under the same words.
fn same_in_every_run(name: &str) -> String {
    let mut parts: Vec<&str> = name.split('/').collect();
    if let ["master", "frameworks", framework, id, ..] = parts.as_mut_slice() {
        (*framework, *id) = ("NAME", "ID");
    }
    parts.join("/")
}

fn names(address: &str) -> BTreeSet<String> {
    let (_, body) = http_get(address, "/metrics/snapshot");
    let all: serde_json::Map<String, Value> = serde_json::from_str(&body).unwrap();
    assert!(all.values().all(Value::is_f64), "{body}");
    all.keys().map(|name| same_in_every_run(name)).collect()
}

/// Of master and agent, in a situation in which there is a framework with tasks.
fn of(side: &Side) -> [BTreeSet<String>; 2] {
    let mut scheduler = situation(side);
    let all = [names(&side.master), names(&side.agent)];
    scheduler.call(json!({"type": "TEARDOWN"}));
    all
}

fn recorded() -> [BTreeSet<String>; 2] {
    let all: Value = serde_json::from_str(RECORDED).unwrap();
    ["master", "agent"].map(|side| serde_json::from_value(all[side].clone()).unwrap())
}

#[test]
fn metrics_have_the_names_that_they_have_in_mesos_but_for_what_is_listed() {
    let cluster = own_cluster();
    let own = of(&Side::of(&cluster.master));
    let left_out = listed("Metrics that are missing");
    // Where a part of the names stands for all below it.
    let is_left_out = |name: &str| {
        let mut patterns = left_out.iter();
        patterns.find(|one| match one.strip_suffix('*') {
            Some(begin) => name.starts_with(begin),
            None => **one == name,
        })
    };
    let mut listed_in_vain = left_out.clone();
    let mut missing = Vec::new();
    for (own, recorded) in own.iter().zip(recorded()) {
        assert!(recorded.len() > 60, "{recorded:?}");
        for name in recorded.difference(own) {
            match is_left_out(name) {
                Some(listed) => {
                    listed_in_vain.remove(listed);
                }
                None => missing.push(name.clone()),
            }
        }
    }
    assert!(missing.is_empty(), "missing: {missing:#?}");
    assert!(
        listed_in_vain.is_empty(),
        "these are not missing: {listed_in_vain:?}"
    );
    cluster.stop();
}

#[test]
fn recorded_names_of_metrics_are_those_of_mesos() {
    let Some(peer) = Peer::start() else {
        return without_peer("recorded_names_of_metrics_are_those_of_mesos");
    };
    let [master, agent] = of(&peer.side);
    if std::env::var_os("MESETA_MESOS_RECORD").is_some() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("processes/mesos/metric_names.json");
        let text = serde_json::to_string_pretty(&json!({"master": master, "agent": agent}));
        std::fs::write(file, text.unwrap() + "\n").unwrap();
        return;
    }
    assert_eq!([master, agent], recorded());
}
