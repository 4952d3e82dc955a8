//! The life of tasks whose executors speak to their agent over a Unix socket: as over QUIC, which the other files use.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use meseta_tests::{Cluster, http_get, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn start(agents: u32) -> Cluster {
    let resources = "cpus:8;mem:4096";
    Cluster::start(
        agents,
        &["--resources", resources, "--executor_transport=unix"],
    )
}

#[test]
fn two_hundred_tasks_run_to_their_end_and_the_socket_goes_with_the_agent() {
    let cluster = start(1);
    let socket = cluster.dir.path().join("agent-1/run/executors");
    assert!(socket.exists());
    let many = cluster.execute(&["--instances", "200", "--command", "true"]);
    let text = String::from_utf8_lossy(&many.stdout).into_owned();
    assert!(many.status.success(), "{text}");
    assert!(text.contains("200 finished, 0 failed"), "{text}");
    let failing = cluster.execute(&["--command", "exit 3"]);
    assert!(!failing.status.success());
    cluster.stop();
}

#[test]
fn killed_executors_and_agents_are_noticed_and_their_tasks_end() {
    let mut cluster = start(1);
    let mut child = cluster
        .command("execute")
        .args(["--command", "setsid sleep 1000 & sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let running = |line: &String| line.contains("TASK_RUNNING");
    assert!(lines.by_ref().any(|line| running(&line)));
    for pid in cluster.executors() {
        // What is below the executor may end before its turn comes.
        let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    assert!(lines.by_ref().any(|line| line.contains("TASK_FAILED")));
    // Through no fault of its own, so it runs again.
    assert!(lines.by_ref().any(|line| running(&line)));
    let before = cluster.executors();
    cluster.kill("agent-1");
    // The next one finds the socket file of its predecessor, and the executor comes back to it.
    cluster.line_with("starts again");
    wait_for("the agent to be in again", || {
        let state = http_get(&cluster.master, "/slaves").1;
        state.contains("\"active\":true").then_some(())
    });
    assert_eq!(cluster.executors(), before);
    for pid in before {
        let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    // It watches what it has taken over, and the task runs a third time.
    assert!(lines.by_ref().any(|line| line.contains("TASK_FAILED")));
    assert!(lines.by_ref().any(|line| running(&line)));
    child.kill().unwrap();
    child.wait().unwrap();
    cluster.stop();
}
