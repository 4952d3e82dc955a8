//! The bytes of what masters say to each other, recorded when each message was first made, and read by every later
//! version. As `protocol/tests/fixtures.rs`: `MESETA_RECORD_FIXTURES=1` records what is missing and overwrites nothing.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fmt::Debug;
use std::path::Path;

use meseta_master::election::messages::{Heartbeat, HeartbeatAck, PreVote, PreVoteAnswer};
use meseta_master::operators::{AgentMarkedGone, MarkAgentGone};
use meseta_protocol::agent::MasterInfo;
use meseta_runtime::{Message, Time};

fn check<M: Message + PartialEq + Debug>(sample: &M) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let path = folder.join(format!("{}.v{}.msgpack", M::NAME, M::VERSION));
    let mut written = Vec::new();
    sample.write_body(&mut written).unwrap();
    if !path.exists() && std::env::var_os("MESETA_RECORD_FIXTURES").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&path, &written).unwrap();
    }
    let bytes = std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}: record it first", path.display()));
    let read = M::read_body(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(&read, sample, "{}", path.display());
}

#[test]
fn what_masters_say_to_each_other_reads_its_recorded_bytes() {
    check(&Heartbeat {
        epoch: 7,
        sent: Time(1_000_000_000),
        leader: Some(Box::new(MasterInfo {
            id: "M".into(),
            port: 5050,
            pid: Some("master@10.0.0.1:5050".into()),
            hostname: Some("one".into()),
            ..MasterInfo::default()
        })),
    });
    check(&HeartbeatAck {
        epoch: 8,
        sent: Time(1_000_000_000),
    });
    check(&PreVote { round: 3, epoch: 7 });
    check(&PreVoteAnswer {
        round: 3,
        granted: true,
        epoch: 7,
    });
}

#[test]
fn what_operators_and_masters_say_to_each_other_reads_its_recorded_bytes() {
    check(&MarkAgentGone {
        agent_id: "M-S0".into(),
    });
    check(&AgentMarkedGone {
        refused: Some("Agent 'M-S0' not found".into()),
    });
}
