//! Agents are killed and come back: what they run goes on, and every end is told once.
//!
//! `MESETA_AGENT_KILLS` says how often the agent is killed at random, 3 times unless set.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};

use meseta_tests::{Cluster, http_get, program, wait_for};
use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

const TASKS: usize = 30;

/// A batch whose tasks write down that they begin, wait for a file, and write down that they end.
pub(super) struct Batch(Child);

impl Batch {
    pub(super) fn start(cluster: &Cluster, instances: usize) -> Self {
        let dir = cluster.dir.path().display().to_string();
        let command = format!(
            "echo $MESOS_EXECUTOR_ID $$ >> {dir}/begun; while [ ! -e {dir}/go ]; do sleep 0.1; done; \
             echo $MESOS_EXECUTOR_ID >> {dir}/ended"
        );
        let child = cluster
            .command("execute")
            .args(["--instances", &instances.to_string(), "--command", &command])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Lets the tasks end, and waits for the verdict: all have finished.
    pub(super) fn ends(&mut self, cluster: &Cluster, instances: usize) {
        std::fs::write(cluster.dir.path().join("go"), "").unwrap();
        let mut text = String::new();
        let mut output = self.0.stdout.take().unwrap();
        output.read_to_string(&mut text).unwrap();
        assert!(self.0.wait().unwrap().success(), "{text}");
        assert!(
            text.contains(&format!("{instances} finished, 0 failed")),
            "{text}"
        );
    }
}

impl Drop for Batch {
    /// That of a failed test does not look for its master for ever.
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

pub(super) fn lines_of(cluster: &Cluster, file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(cluster.dir.path().join(file)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

pub(super) fn begun(cluster: &Cluster, instances: usize) {
    wait_for("all tasks to begin", || {
        (lines_of(cluster, "begun").len() == instances).then_some(())
    });
}

/// Start time of the first process of each executor and task, by its id. What they have started has their session.
pub(super) fn identities(cluster: &Cluster) -> BTreeMap<i32, String> {
    let started = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let leads = *fields.get(3)? == pid.to_string();
        let started = (*fields.get(19)?).to_owned();
        leads.then_some((pid, started))
    };
    cluster
        .executors()
        .into_iter()
        .filter_map(started)
        .collect()
}

/// Waits until the agent is in again, with its executors.
pub(super) fn back(cluster: &Cluster, executors: usize) {
    wait_for("the agent to be back with its executors", || {
        let (_, state) = http_get(&cluster.master, "/state");
        let state: serde_json::Value = serde_json::from_str(&state).ok()?;
        let agent = state["slaves"].as_array()?.first()?.clone();
        let pid = agent["pid"].as_str()?.to_owned();
        let address = pid.split_once('@')?.1;
        let (status, here) =
            meseta_tests::http_try(address, "/state", std::time::Duration::from_secs(5)).ok()?;
        let here: serde_json::Value = serde_json::from_str(&here).ok()?;
        let frameworks = here["frameworks"].as_array()?;
        let count = frameworks
            .iter()
            .filter_map(|framework| framework["executors"].as_array())
            .map(Vec::len)
            .sum::<usize>();
        (status == 200 && agent["active"] == true && count >= executors).then_some(())
    });
}

fn tasks_outlive_their_agent(flags: &[&str]) {
    let mut all = vec!["--resources", "cpus:8;mem:4096"];
    all.extend(flags);
    let mut cluster = Cluster::start(1, &all);
    let mut batch = Batch::start(&cluster, TASKS);
    begun(&cluster, TASKS);
    let before = identities(&cluster);
    assert!(before.len() >= 2 * TASKS, "{before:?}");
    cluster.kill("agent-1");
    cluster.line_with("starts again");
    back(&cluster, TASKS);
    assert_eq!(identities(&cluster), before);
    let inspected = Command::new(program("meseta"))
        .args(["agent", "inspect", "--json"])
        .arg(cluster.dir.path().join("agent-1"))
        .output()
        .unwrap();
    assert!(inspected.status.success(), "{inspected:?}");
    let found: serde_json::Value = serde_json::from_slice(&inspected.stdout).unwrap();
    let records = found["records"].as_array().unwrap();
    let of_kind = |kind: &str| records.iter().filter(|one| one["kind"] == kind).count();
    assert_eq!((of_kind("executor"), of_kind("task")), (TASKS, TASKS));
    batch.ends(&cluster, TASKS);
    // Each has begun once and ended once.
    for file in ["begun", "ended"] {
        assert_eq!(lines_of(&cluster, file).len(), TASKS, "{file}");
    }
    cluster.stop();
}

#[test]
fn tasks_outlive_the_kill_of_their_agent() {
    tasks_outlive_their_agent(&[]);
}

#[test]
fn tasks_outlive_the_kill_of_their_agent_over_a_unix_socket() {
    tasks_outlive_their_agent(&["--executor_transport=unix"]);
}

#[test]
fn an_agent_that_is_killed_again_and_again_loses_and_repeats_nothing() {
    let kills: u32 = std::env::var("MESETA_AGENT_KILLS").map_or(3, |text| text.parse().unwrap());
    let seed: u64 = std::env::var("MESETA_SEED").map_or(1, |text| text.parse().unwrap());
    println!("MESETA_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(1, &["--resources", "cpus:8;mem:4096"]);
    let mut batch = Batch::start(&cluster, TASKS);
    // Some kills fall into the launches, others into what is quiet.
    let first = random.random_range(1..TASKS);
    wait_for("some tasks to begin", || {
        (lines_of(&cluster, "begun").len() >= first).then_some(())
    });
    for _ in 0..kills {
        cluster.kill("agent-1");
        cluster.line_with("starts again");
        let some = random.random_range(0..=lines_of(&cluster, "begun").len());
        back(&cluster, some.min(1));
    }
    // What was on its way to the agent when it was killed is lost, and begins again under another name.
    batch.ends(&cluster, TASKS);
    let ended = lines_of(&cluster, "ended");
    let mut once = ended.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), ended.len(), "a task ran twice: {ended:?}");
    cluster.stop();
}
