//! The bytes of the log's messages and records, recorded when they were first made, and read by every later version.
//!
//! `fixtures/log/<NAME>.v<VERSION>.msgpack` are messages on the wire, `fixtures/log/<kind>.v<VERSION>.record` records on
//! disk. New ones are recorded with `MESETA_RECORD_FIXTURES=1 cargo test -p meseta-master --test log_fixtures`, which
//! never overwrites one.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: a failure here is the test's failure"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::PathBuf;

use bytes::Bytes;
use meseta_master::log::action::{Action, Performed, Position, Proposal, Value};
use meseta_master::log::members::{Incarnation, Life, Lives, Member};
use meseta_master::log::messages::{
    Chosen, ChosenMessage, FetchRequest, FetchResponse, LearnedMessage, NAMES, PromiseRequest,
    PromiseResponse, RecoverRequest, RecoverResponse, Span, Status, StatusRequest, StatusResponse,
    Verdict, Voter, WriteRequest, WriteResponse,
};
use meseta_master::log::replica::core::Metadata;
use meseta_master::log::storage::record::{self, Record, VERSION};
use meseta_runtime::Message;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/log")
        .join(name)
}

/// The recorded bytes; records `new` where there are none and recording is asked for.
fn recorded(name: &str, new: &[u8]) -> Vec<u8> {
    let path = path(name);
    if !path.exists() && std::env::var_os("MESETA_RECORD_FIXTURES").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, new).unwrap();
    }
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}: record it first", path.display()))
}

#[derive(Default)]
struct Looked(BTreeSet<&'static str>);

impl Looked {
    fn at<M: Message + PartialEq + Debug>(&mut self, sample: M) {
        let mut new = Vec::new();
        sample.write_body(&mut new).unwrap();
        let bytes = recorded(&format!("{}.v{}.msgpack", M::NAME, M::VERSION), &new);
        let read = M::read_body(&bytes).unwrap();
        assert_eq!(read, sample, "{} means something else now", M::NAME);
        self.0.insert(M::NAME);
    }
}

fn append() -> Action {
    Action {
        position: Position(7),
        promised: Proposal(4),
        performed: Some(Performed {
            by: Proposal(3),
            value: Value::Append {
                bytes: Bytes::from_static(&[0, 1, 0xFE, 0xFF]),
            },
        }),
        learned: false,
    }
}

fn actions() -> Vec<(&'static str, Action)> {
    let learned = |at, value| Action::learned(Position(at), Proposal(3), value);
    vec![
        ("append", append()),
        ("promise", Action::promise(Position(8), Proposal(5))),
        ("nop", learned(9, Value::Nop { tombstone: false })),
        ("tombstone", learned(10, Value::Nop { tombstone: true })),
        ("truncate", learned(11, Value::Truncate { to: Position(6) })),
        (
            "unknown",
            learned(
                12,
                Value::Unknown {
                    kind: 200,
                    body: Bytes::from_static(b"later"),
                },
            ),
        ),
    ]
}

fn life() -> Life {
    Life {
        incarnation: Incarnation(2),
        nonce: u64::MAX,
    }
}

fn lives() -> Lives {
    [(Member::from("10.0.0.2:5050"), life())]
        .into_iter()
        .collect()
}

fn chosen() -> Chosen {
    Chosen {
        proposal: Proposal(3),
        from: Position(2),
        through: Position(6),
    }
}

fn voter() -> Voter {
    Voter {
        incarnation: Incarnation(2),
        known: BTreeMap::from([(Member::from("10.0.0.3:5050"), Incarnation(4))]),
    }
}

#[test]
fn every_recorded_message_is_still_read_as_it_was_meant() {
    let mut looked = Looked::default();
    let span = Span {
        from: Position(3),
        to: Position(300),
    };
    looked.at(PromiseRequest {
        ask: 1,
        proposal: Proposal(4),
        position: Some(Position(7)),
    });
    looked.at(PromiseResponse {
        ask: 1,
        verdict: Verdict::Accept,
        proposal: Proposal(4),
        position: Some(Position(7)),
        action: Some(append()),
        voter: voter(),
    });
    looked.at(WriteRequest {
        ask: 2,
        proposal: Proposal(4),
        position: Position(7),
        value: Value::Append {
            bytes: Bytes::from_static(b"entry"),
        },
        more: vec![
            Value::Nop { tombstone: false },
            Value::Append {
                bytes: Bytes::from_static(b"another"),
            },
        ],
        chosen: Some(chosen()),
    });
    looked.at(WriteResponse {
        ask: 2,
        verdict: Verdict::Reject,
        proposal: Proposal(5),
        position: Position(7),
        through: Some(Position(9)),
        voter: voter(),
    });
    looked.at(LearnedMessage {
        actions: actions().into_iter().map(|(_, action)| action).collect(),
    });
    looked.at(ChosenMessage { chosen: chosen() });
    looked.at(RecoverRequest {
        ask: 3,
        member: Member::from("10.0.0.1:5050"),
        life: life(),
    });
    looked.at(RecoverResponse {
        ask: 3,
        status: Status::Voting,
        begin: Position(2),
        end: Position(9),
        promised: Proposal(5),
        asker: life(),
        incarnation: Incarnation(1),
        lives: lives(),
    });
    looked.at(FetchRequest { ask: 4, span });
    looked.at(FetchResponse {
        ask: 4,
        begin: Position(2),
        actions: vec![append()],
        next: Some(Position(8)),
    });
    looked.at(StatusRequest {
        ask: 5,
        span: Some(span),
    });
    looked.at(StatusResponse {
        ask: 5,
        status: Status::Recovering,
        life: life(),
        promised: Proposal(5),
        begin: Position(2),
        end: Position(9),
        missing: vec![span],
    });
    let all: BTreeSet<&'static str> = NAMES.iter().copied().collect();
    assert_eq!(looked.0, all, "every message has a sample");
}

#[test]
fn a_write_of_one_value_is_read_as_the_first_version_sent_it() {
    let bytes = recorded("meseta.log.WriteRequest.v1.msgpack", &[]);
    let request = WriteRequest::read_body(&bytes).unwrap();
    assert_eq!(
        (request.position, request.last()),
        (Position(7), Position(7))
    );
    assert_eq!(request.chosen, Some(chosen()));
    let bytes = recorded("meseta.log.WriteResponse.v1.msgpack", &[]);
    let response = WriteResponse::read_body(&bytes).unwrap();
    assert_eq!(
        (response.verdict, response.last()),
        (Verdict::Reject, Position(7))
    );
}

#[test]
fn every_recorded_record_is_still_read_as_it_was_meant() {
    for (name, action) in actions() {
        let (key, new) = record::write_action(&action).unwrap();
        let bytes = recorded(&format!("{name}.v{VERSION}.record"), &new);
        assert_eq!(record::read(&key, &bytes).unwrap(), Record::Action(action));
    }
    let metadata = Metadata {
        status: Status::Voting,
        promised: Proposal(5),
        life: life(),
        lives: lives(),
        begin: Position(6),
        chosen: vec![chosen()],
    };
    let (key, new) = record::write_metadata(&metadata).unwrap();
    let bytes = recorded(&format!("metadata.v{VERSION}.record"), &new);
    assert_eq!(
        record::read(&key, &bytes).unwrap(),
        Record::Metadata(metadata)
    );
}
