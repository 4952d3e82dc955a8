//! What a client gets that asks a master the same again and again.

use std::sync::atomic::{AtomicBool, Ordering};

use meseta_master::Master;
use meseta_runtime::Node;
use meseta_tests::http::{Answer, Connection, Scheduler};
use meseta_tests::wait_for;
use serde_json::{Value, json};

/// The documents that a master names without making them.
const DOCUMENTS: [&str; 7] = [
    "/state",
    "/state-summary",
    "/slaves",
    "/frameworks",
    "/tasks?order=asc",
    "/roles",
    "/state?jsonp=f",
];

fn master() -> Node {
    let node = Node::builder().role("master").start().unwrap();
    let config = meseta_master::Config::new(0, "here");
    node.spawn("master", move || Master::new(config)).unwrap();
    node.delegate("master");
    node
}

fn get(node: &Node, path: &str, known: Option<&str>) -> Answer {
    let mut connection = Connection::open(&node.address().to_string());
    let known = known.map(|tag| ("If-None-Match", tag));
    connection.request("GET", path, known.as_slice(), "")
}

/// A tag by which the document is known, and so not sent.
fn known(node: &Node, path: &str) -> String {
    wait_for("a document that stays as it is", || {
        let answer = get(node, path, None);
        let tag = answer.header("etag").filter(|_| answer.status == 200)?;
        let again = get(node, path, Some(tag));
        if again.status != 304 {
            return None;
        }
        assert_eq!((again.header("etag"), &*again.body), (Some(tag), ""));
        assert_eq!(again.header("content-type"), None);
        Some(tag.to_owned())
    })
}

/// Whether the whole document comes, under another tag.
fn is_sent(node: &Node, path: &str, tag: &str) -> bool {
    let answer = get(node, path, Some(tag));
    answer.status == 200 && answer.header("etag") != Some(tag) && !answer.body.is_empty()
}

#[test]
fn a_document_is_sent_again_when_something_has_changed_and_else_not() {
    let node = master();
    let tags = DOCUMENTS.map(|path| (path, known(&node, path)));
    let info = json!({"user": "root", "name": "new"});
    let _scheduler = Scheduler::subscribe(&node.address().to_string(), &info);
    for (path, tag) in &tags {
        assert!(is_sent(&node, path, tag), "{path}");
        assert_ne!(known(&node, path), *tag, "{path}");
    }
    node.shutdown();
}

#[test]
fn the_tag_of_another_document_or_of_another_master_is_not_known() {
    let (node, other) = (master(), master());
    let tag = known(&node, "/state");
    assert!(is_sent(&node, "/slaves", &tag));
    assert!(is_sent(&node, "/state?x=1", &tag));
    known(&other, "/state");
    assert!(is_sent(&other, "/state", &tag));
    node.shutdown();
    other.shutdown();
}

/// Says that it is over when it is dropped.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Many ask at once for several documents while the cluster changes: each gets one that is no older than its question.
#[test]
fn readers_who_share_a_document_get_none_that_is_older_than_their_question() {
    let node = master();
    let stop = AtomicBool::new(false);
    std::thread::scope(|all| {
        // Also when an assertion fails.
        let _stops = Stops(&stop);
        for path in ["/state", "/frameworks", "/state", "/tasks"] {
            let (node, stop) = (&node, &stop);
            all.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(get(node, path, None).status, 200);
                }
            });
        }
        for number in 0..30 {
            let name = format!("framework-{number}");
            let info = json!({"user": "root", "name": name});
            let _scheduler = Scheduler::subscribe(&node.address().to_string(), &info);
            for path in ["/state", "/frameworks", "/state-summary"] {
                let shown: Value = serde_json::from_str(&get(&node, path, None).body).unwrap();
                let known = shown["frameworks"].as_array().unwrap();
                assert!(
                    known.iter().any(|one| one["name"] == *name),
                    "{path}: {name}"
                );
            }
        }
    });
    node.shutdown();
}
