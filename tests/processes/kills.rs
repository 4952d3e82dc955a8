//! Parts of a cluster are killed while a batch runs: every instance ends once, none is lost in silence, and nothing
//! is left in the end.

use std::io::{BufRead, BufReader};
use std::process::{Child, Output, Stdio};

use meseta_tests::{Cluster, http_get, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const BATCH: usize = 100;

struct Batch {
    child: Child,
}

impl Batch {
    /// Starts a batch of tasks, each of which adds a line to a file when it has run to its end.
    fn start(cluster: &Cluster) -> Self {
        let done = cluster.dir.path().join("done");
        let command = format!("sleep 0.3; echo $MESOS_EXECUTOR_ID >> {}", done.display());
        let child = cluster
            .command("execute")
            .args(["--instances", &BATCH.to_string(), "--command", &command])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child }
    }

    /// Waits for its verdict: all instances finished, and each left its line.
    fn ends_well(self, cluster: &Cluster) {
        let output: Output = self.child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
        assert!(
            text.contains(&format!("{BATCH} finished, 0 failed")),
            "{text}"
        );
        let done = std::fs::read_to_string(cluster.dir.path().join("done")).unwrap();
        let mut instances: Vec<&str> = done
            .lines()
            .map(|line| line.split("-retry-").next().unwrap_or(line))
            .collect();
        instances.sort_unstable();
        instances.dedup();
        assert_eq!(instances.len(), BATCH, "{done}");
        let twice = done.lines().count() - {
            let mut lines: Vec<&str> = done.lines().collect();
            lines.sort_unstable();
            lines.dedup();
            lines.len()
        };
        assert_eq!(twice, 0, "a task ran twice:\n{done}");
    }
}

/// Waits until some tasks have run to their end.
fn under_way(cluster: &Cluster) {
    let done = cluster.dir.path().join("done");
    wait_for("the batch to be under way", || {
        let text = std::fs::read_to_string(&done).unwrap_or_default();
        (text.lines().count() >= BATCH / 10).then_some(())
    });
}

fn start() -> Cluster {
    Cluster::start(3, &["--resources", "cpus:0.8;mem:1024"])
}

#[test]
fn a_batch_survives_the_kill_of_an_agent() {
    let mut cluster = start();
    let batch = Batch::start(&cluster);
    under_way(&cluster);
    cluster.kill("agent-1");
    cluster.line_with("starts again");
    batch.ends_well(&cluster);
    cluster.stop();
}

#[test]
fn a_batch_survives_the_kill_of_executors() {
    let cluster = start();
    let batch = Batch::start(&cluster);
    under_way(&cluster);
    for pid in cluster.executors() {
        // Some end by themselves meanwhile.
        let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    batch.ends_well(&cluster);
    cluster.stop();
}

#[test]
fn a_batch_survives_the_kill_of_the_master() {
    let mut cluster = start();
    let batch = Batch::start(&cluster);
    under_way(&cluster);
    cluster.kill("master");
    cluster.line_with("starts again");
    batch.ends_well(&cluster);
    cluster.stop();
}

#[test]
fn a_batch_survives_the_kill_of_the_leading_master_of_three() {
    let flags = ["--masters", "3", "--resources", "cpus:0.8;mem:1024"];
    let mut cluster = Cluster::start(3, &flags);
    let masters: Vec<String> = cluster.master.split(',').map(str::to_owned).collect();
    let leading = |except: Option<usize>| {
        wait_for("a leading master", || {
            let leads = |number: &usize| {
                Some(*number) != except
                    && http_get(&masters[*number], "/election(1)/state")
                        .1
                        .contains("\"leading\"")
            };
            (0..masters.len()).find(leads)
        })
    };
    let batch = Batch::start(&cluster);
    under_way(&cluster);
    let first = leading(None);
    cluster.kill(&format!("master-{}", first + 1));
    cluster.line_with("starts again");
    assert_ne!(leading(Some(first)), first);
    batch.ends_well(&cluster);
    cluster.stop();
}

#[test]
fn tasks_end_with_their_scheduler() {
    let cluster = start();
    let mut child = cluster
        .command("execute")
        .args(["--instances", "3", "--failover_timeout", "0secs"])
        .args(["--command", "setsid sleep 1000 & sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let running = lines
        .map_while(Result::ok)
        .filter(|line| line.contains("TASK_RUNNING"));
    assert_eq!(running.take(3).count(), 3);
    assert!(!cluster.executors().is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("the tasks to end", || {
        cluster.executors().is_empty().then_some(())
    });
    cluster.stop();
}

#[test]
fn an_interrupted_execute_kills_its_tasks() {
    let cluster = start();
    let mut child = cluster
        .command("execute")
        .args(["--command", "sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines
            .map_while(Result::ok)
            .any(|line| line.contains("TASK_RUNNING"))
    );
    kill(
        Pid::from_raw(i32::try_from(child.id()).unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    assert!(!child.wait().unwrap().success());
    wait_for("the task to end", || {
        cluster.executors().is_empty().then_some(())
    });
    cluster.stop();
}
