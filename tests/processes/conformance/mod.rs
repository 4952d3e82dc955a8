//! What Meseta says beside what Mesos 1.11.0 has said to the same client in the same situation: single answers
//! ([`answers`]), whole conversations ([`scenarios`], [`groups`]) and the names of metrics ([`metrics`]). What Mesos has
//! said is recorded in `tests/processes/mesos`; what differs on purpose or is not there yet stands in
//! `docs/compatibility.md`, and nothing else may.
//!
//! | variable | what it does |
//! |---|---|
//! | `MESETA_MESOS_PEER` | program that starts Mesos: it is asked in the same run, and its recordings must be what it says |
//! | `MESETA_MESOS_RECORD` | with that, when it is set: the recorded conversations and names of metrics are written anew |

mod answers;
mod groups;
mod metrics;
mod scenarios;
mod transcript;

use std::collections::BTreeSet;
use std::process::Command;

use meseta_runtime::ports::FreePorts;
use meseta_tests::{Cluster, http_get, skipped};
use serde_json::Value;
use tempfile::TempDir;

const DIFFERENCES: &str = include_str!("../../../docs/compatibility.md");
/// Resources of the one agent, as both sides are told.
const RESOURCES: &str = "cpus:4;mem:4096;disk:10000;ports:[31000-32000]";

/// What stands in the first column of the tables below this heading.
fn listed(heading: &str) -> BTreeSet<&'static str> {
    let (_, rest) = DIFFERENCES.split_once(&format!("## {heading}\n")).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `"));
    cells.filter_map(|line| line.split('`').next()).collect()
}

/// Names of fields that one side only shows.
struct Fields {
    missing: BTreeSet<&'static str>,
    added: BTreeSet<&'static str>,
}

impl Fields {
    /// None.
    fn none() -> Self {
        Self {
            missing: BTreeSet::new(),
            added: BTreeSet::new(),
        }
    }

    fn listed() -> Self {
        Self {
            missing: listed("Fields that are missing"),
            added: listed("Fields that are more"),
        }
    }
}

/// Where a cluster of one agent is asked.
struct Side {
    master: String,
    agent: String,
}

impl Side {
    fn of(master: &str) -> Self {
        let (_, slaves) = http_get(master, "/slaves");
        let slaves: Value = serde_json::from_str(&slaves).unwrap();
        let agent = slaves["slaves"][0]["pid"].as_str().unwrap();
        let (_, agent) = agent.split_once('@').unwrap();
        Self {
            master: master.to_owned(),
            agent: agent.to_owned(),
        }
    }
}

fn own_cluster() -> Cluster {
    Cluster::start(1, &["--resources", RESOURCES])
}

/// Mesos itself.
struct Peer {
    dir: TempDir,
    side: Side,
}

impl Peer {
    /// Starts it, when it is named.
    fn start() -> Option<Self> {
        let program = std::env::var_os("MESETA_MESOS_PEER")?;
        let dir = TempDir::with_prefix("mesos-peer-").unwrap();
        let ports = FreePorts::find(8).unwrap();
        // The master's, and its neighbour for the agent.
        let pair = (ports.all().windows(2)).find(|pair| pair[0] + 1 == pair[1]);
        let port = pair.unwrap()[0];
        let status = Command::new(program)
            .args(["--agents", "1", "--resources", RESOURCES])
            .args(["--port", &port.to_string()])
            .arg("--dir")
            .arg(dir.path())
            .status()
            .unwrap();
        assert!(status.success(), "Mesos did not start: {status}");
        let side = Side::of(&format!("127.0.0.1:{port}"));
        Some(Self { dir, side })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let ended = Command::new(self.dir.path().join("down")).status();
        assert!(ended.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// Says that a test needs Mesos, which comes from no registry of packages as a program.
fn without_peer(test: &str) {
    skipped(
        test,
        "MESETA_MESOS_PEER names no program that starts Mesos, which cannot be installed",
    );
}
