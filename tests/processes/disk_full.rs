//! What an agent does when it cannot write down what it is to do, and when it is to clean up after itself.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use meseta_tests::own_agent::OwnAgent;
use meseta_tests::small_disk::SmallDisk;
use meseta_tests::{Cluster, program, skipped, wait_for};

use crate::agents::{Batch, begun, identities, lines_of};

const LASTING: usize = 3;
const FLAGS: [&str; 2] = ["--resources=cpus:8;mem:4096", "--executor_transport=unix"];
/// Tasks so long that writing them down takes up half of what is kept for the work that is here, and not all of it.
const BULKY: usize = 16;
const BULK: usize = 100 << 10;
const REFUSED: &str = "TASK_DROPPED (No room is left on the agent's disk";

/// `meseta execute`, and whether it has said yet that something was refused.
struct Execute {
    child: Child,
    refused: Arc<AtomicBool>,
}

impl Execute {
    fn start(cluster: &Cluster, instances: usize, command: &str, more: &[&str]) -> Self {
        let instances = instances.to_string();
        let mut child = cluster
            .command("execute")
            .args(["--instances", &instances, "--command", command])
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let refused = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&refused);
        // Reads on to the end, so that it is never held up by what it prints.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                heard.fetch_or(line.contains(REFUSED), Ordering::Relaxed);
            }
        });
        Self { child, refused }
    }

    fn was_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    fn ends_well(mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Execute {
    /// That of a failed test does not look for its master for ever.
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn an_agent_without_room_takes_nothing_new_keeps_what_it_has_and_goes_on_when_there_is_room() {
    if !nix::unistd::geteuid().is_root() {
        return skipped(
            "agent_disk_full",
            "needs root, to mount a small file system",
        );
    }
    let cluster = Cluster::start(0, &[]);
    // Sandboxes are elsewhere: only what the agent writes down finds no room.
    let disk = SmallDisk::mount(cluster.dir.path().join("agent/meta"), 16);
    let mut agent = OwnAgent::start(&cluster, "agent", &FLAGS, &[]);
    let mut batch = Batch::start(&cluster, LASTING);
    begun(&cluster, LASTING);
    let before = identities(&cluster);
    disk.fill();
    let dir = cluster.dir.path().display();
    let bulk = "x".repeat(BULK);
    let command =
        format!("echo . >> {dir}/bulky; while [ ! -e {dir}/go ]; do sleep 0.1; done; : {bulk}");
    let variable = format!("--env=BULK={bulk}");
    let bulky = Execute::start(&cluster, BULKY, &command, &[&variable]);
    wait_for("the room to be used up", || {
        let begun = lines_of(&cluster, "bulky").len();
        (begun == BULKY || bulky.was_refused()).then_some(())
    });
    let small = Execute::start(&cluster, 1, "true", &[]);
    wait_for("a small task to be refused", || {
        small.was_refused().then_some(())
    });
    // It is killed, and finds what it has written down on the full disk.
    agent.kill();
    agent.start_again(&[]);
    assert_eq!(agent.has_ended(), None);
    let mut now = identities(&cluster);
    now.retain(|pid, _| before.contains_key(pid));
    assert_eq!(now, before);
    disk.make_room();
    std::fs::write(cluster.dir.path().join("go"), "").unwrap();
    small.ends_well();
    bulky.ends_well();
    assert_eq!(lines_of(&cluster, "bulky").len(), BULKY);
    batch.ends(&cluster, LASTING);
    for file in ["begun", "ended"] {
        assert_eq!(lines_of(&cluster, file).len(), LASTING, "{file}");
    }
    agent.leaves();
    cluster.stop();
    drop(disk);
}

#[test]
fn an_agent_that_is_to_clean_up_ends_what_it_finds_and_then_itself() {
    let cluster = Cluster::start(0, &[]);
    let mut agent = OwnAgent::start(&cluster, "agent", &FLAGS, &[]);
    let batch = Batch::start(&cluster, LASTING);
    begun(&cluster, LASTING);
    agent.kill();
    assert!(identities(&cluster).len() >= 2 * LASTING);
    agent.start_again(&["--recover=cleanup"]);
    let status = agent.ended();
    assert!(status.success(), "{status}");
    wait_for("the end of all processes", || {
        cluster.executors().is_empty().then_some(())
    });
    let inspected = Command::new(program("meseta"))
        .args(["agent", "inspect", "--json"])
        .arg(agent.work_dir())
        .output()
        .unwrap();
    let found: serde_json::Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!(found["records"], serde_json::json!([]));
    assert_eq!(found["latest"], serde_json::Value::Null);
    // Whoever starts it again starts a new agent.
    drop(batch);
    agent.start_again(&[]);
    let known = wait_for("the new agent", || {
        let known = cluster.command("agents").arg("--json").output().unwrap();
        let known: serde_json::Value = serde_json::from_slice(&known.stdout).ok()?;
        let active = known.as_array()?.iter().find(|one| one["active"] == true)?;
        Some(active["id"].as_str()?.to_owned())
    });
    assert!(!known.ends_with("-S0"), "{known}");
    agent.leaves();
    cluster.stop();
}
