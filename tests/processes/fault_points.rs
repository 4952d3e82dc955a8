//! An agent is killed at each of its fault points, with tasks that run on and others that come and go: those that ran run
//! as the same processes, nothing runs twice, and each end is one update.
//!
//! A few points are part of every test run; `MESETA_FAULT_POINTS=all` walks all of them.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;

use meseta_agent::faults::Point;
use meseta_protocol::framework::FrameworkInfo;
use meseta_runtime::identity::{CertificateAuthority, Identity};
use meseta_runtime::{Clock, Credentials};
use meseta_scheduler_driver::Config;
use meseta_tests::own_agent::OwnAgent;
use meseta_tests::{Cluster, dev_ca, wait_for};
use nix::sys::signal::Signal;

use crate::agents::{Batch, begun, identities, lines_of};
use crate::load::{Load, Pace};

/// Points of every test run: one in each part of a task's way, and one in the recovery.
const FEW: [Point; 5] = [
    Point::CommitDurable,
    Point::ProcessStarted,
    Point::UpdateKept,
    Point::EndForgotten,
    Point::Adopted,
];
/// Tasks that run all the time.
const LASTING: usize = 30;
const PACE: Pace = Pace {
    rate: 10.0,
    under_way: 20,
    checkpoint: true,
};

fn framework(cluster: &Cluster) -> Config {
    let mut config = Config::new(&cluster.master, FrameworkInfo::default());
    let authority = CertificateAuthority::load_or_create(&dev_ca(), "tests").unwrap();
    let identity = Identity::issue(&authority, &["127.0.0.1".to_owned()], &["scheduler"]).unwrap();
    config.credentials = Credentials::Given(Box::new(identity));
    config
}

/// The processes of before that are there still, as the same ones.
fn lasting(cluster: &Cluster, before: &BTreeMap<i32, String>) -> BTreeMap<i32, String> {
    let mut now = identities(cluster);
    now.retain(|pid, started| before.get(pid) == Some(started));
    now
}

#[test]
fn an_agent_may_be_killed_between_any_two_things_it_does() {
    let points: Vec<Point> = match std::env::var("MESETA_FAULT_POINTS") {
        Ok(_all) => Point::ALL.to_vec(),
        Err(_) => FEW.to_vec(),
    };
    let cluster = Cluster::start(0, &[]);
    let order = cluster.dir.path().join("order");
    let flags = ["--resources=cpus:8;mem:4096", "--executor_transport=unix"];
    let settings = [(
        meseta_runtime::fault::VARIABLE,
        &*order.display().to_string(),
    )];
    let mut agent = OwnAgent::start(&cluster, "agent", &flags, &settings);
    let mut batch = Batch::start(&cluster, LASTING);
    begun(&cluster, LASTING);
    let before = identities(&cluster);
    assert!(before.len() >= 2 * LASTING, "{before:?}");
    let clock = Clock::live();
    let ran = cluster.dir.path().join("ran");
    let load = Load::start(framework(&cluster), ran, &clock, PACE);
    for point in points {
        let new = order.with_extension("new");
        std::fs::write(&new, point.name()).unwrap();
        std::fs::rename(&new, &order).unwrap();
        if point.is_at_start() {
            agent.kill();
            agent.start_again(&[]);
        }
        wait_for(
            &format!("the agent to be killed at {}", point.name()),
            || agent.has_ended(),
        );
        let status = agent.ended();
        let killed = Some(Signal::SIGKILL as i32);
        assert_eq!(status.signal(), killed, "{}: {status}", point.name());
        assert!(!order.exists(), "{}", point.name());
        agent.start_again(&[]);
        assert_eq!(lasting(&cluster, &before), before, "{}", point.name());
    }
    let since = clock.now();
    wait_for("new tasks to finish after the last kill", || {
        (load.finished_since(since) >= 10).then_some(())
    });
    assert_eq!(lasting(&cluster, &before), before);
    let tally = load.ends_well();
    assert_eq!(tally.launched, tally.finished + tally.lost);
    batch.ends(&cluster, LASTING);
    for file in ["begun", "ended"] {
        assert_eq!(lines_of(&cluster, file).len(), LASTING, "{file}");
    }
    agent.leaves();
    cluster.stop();
}
