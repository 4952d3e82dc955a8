//! What master and agent say of their endpoints: `/help` and `/openapi.json`.

use std::collections::BTreeSet;

use meseta_tests::http::Connection;
use meseta_tests::{Cluster, http_get};
use serde_json::Value;

/// Endpoints that the help of Mesos 1.11.0 lists and Meseta serves, by who serves them.
const MASTER: &[&str] = &[
    "/logging/toggle",
    "/master/api/v1",
    "/master/api/v1/scheduler",
    "/master/flags",
    "/master/frameworks",
    "/master/health",
    "/master/maintenance/schedule",
    "/master/maintenance/status",
    "/master/quota",
    "/master/redirect",
    "/master/roles",
    "/master/slaves",
    "/master/state",
    "/master/state-summary",
    "/master/tasks",
    "/master/teardown",
    "/master/weights",
    "/metrics/snapshot",
    "/registrar(1)/registry",
    "/system/stats.json",
    "/version",
];
const AGENT: &[&str] = &[
    "/logging/toggle",
    "/metrics/snapshot",
    "/slave(1)/api/v1",
    "/slave(1)/api/v1/executor",
    "/slave(1)/containers",
    "/slave(1)/flags",
    "/slave(1)/health",
    "/slave(1)/monitor/statistics",
    "/slave(1)/state",
    "/system/stats.json",
];

fn get(address: &str, path: &str) -> Value {
    let (status, body) = http_get(address, path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

#[test]
fn every_endpoint_is_described_and_every_description_is_of_one() {
    let cluster = Cluster::start(1, &[]);
    let slaves = get(&cluster.master, "/slaves");
    let agent = slaves["slaves"][0]["pid"].as_str().unwrap();
    let agent = agent.split('@').nth(1).unwrap().to_owned();
    for (address, expected) in [(&cluster.master, MASTER), (&agent, AGENT)] {
        let document = get(address, "/openapi.json");
        assert_eq!(document["openapi"], "3.1.0");
        let paths = document["paths"].as_object().unwrap();
        for (path, item) in paths {
            for (method, operation) in item.as_object().unwrap() {
                let summary = operation["summary"].as_str().unwrap();
                assert!(
                    !summary.is_empty() && !summary.ends_with('.'),
                    "{path}: {summary}"
                );
                let mut connection = Connection::open(address);
                let headers = [
                    ("Content-Type", "application/json"),
                    ("Connection", "close"),
                ];
                let answer = connection.request(&method.to_uppercase(), path, &headers, "");
                let is_served = !matches!(answer.status, 404 | 405) && answer.status < 500;
                assert!(is_served, "{method} {path}: {answer:?}");
            }
        }
        let all = get(address, "/help?format=json");
        let mut listed = BTreeSet::new();
        for process in all["processes"].as_array().unwrap() {
            let id = process["id"].as_str().unwrap();
            for endpoint in process["endpoints"].as_array().unwrap() {
                let name = endpoint["name"].as_str().unwrap();
                let path = format!("/{id}{}", if name == "/" { "" } else { name });
                assert!(paths.contains_key(&path), "{path}");
                assert!(
                    endpoint["text"]
                        .as_str()
                        .unwrap()
                        .starts_with("### USAGE ###\n")
                );
                listed.insert(path);
            }
        }
        for path in expected {
            assert!(listed.contains(*path), "{path} of {listed:?}");
            let (status, text) = http_get(address, &format!("/help{path}"));
            assert!(
                status == 200 && text.contains("### USAGE ###") | text.contains("## `"),
                "{path}: {text}"
            );
        }
    }
}
