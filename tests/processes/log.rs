//! `meseta log`, and the example that uses the log on its own.

use std::path::Path;
use std::process::{Command, Output};

use meseta_tests::{Cluster, dev_ca, program, wait_for};
use tempfile::TempDir;

fn log(action: &str, arguments: &[&str]) -> Output {
    Command::new(program("meseta"))
        .args(["log", action])
        .args(arguments)
        .env("MESETA_DEV_CA_DIR", dev_ca())
        .output()
        .unwrap()
}

fn at(action: &str, path: &Path) -> Output {
    log(action, &["--path", path.to_str().unwrap()])
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn refused(output: &Output, reason: &str) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains(reason), "{text}");
}

#[test]
fn an_operator_begins_a_log_and_looks_at_it() {
    let dir = TempDir::with_prefix("meseta-test-").unwrap();
    // A majority is enough: the third one recovers from them.
    for master in ["master-1", "master-2"] {
        let output = at(
            "initialize",
            &dir.path().join(master).join("replicated_log"),
        );
        assert!(output.status.success(), "{output:?}");
    }
    let by_hand = [("MESETA_LOG_AUTO_INITIALIZE", "false")];
    let cluster = Cluster::start_in(dir, 1, &["--masters=3"], &by_hand);
    let list = cluster.dir.path().join("masters");
    std::fs::write(&list, &cluster.master).unwrap();
    wait_for("all replicas to vote", || {
        let shown = stdout(&log("status", &["--master", list.to_str().unwrap()]));
        (shown.matches("Voting").count() == 3).then_some(())
    });
    let first = cluster.dir.path().join("master-1");
    refused(&at("read", &first), "uses the directory");
    refused(&at("initialize", &first), "uses the directory");
    // What is named is found in the work directory too, and nothing is made there.
    cluster.kill_and("master-1", |first| {
        let shown = stdout(&at("read", first));
        // Whether an entry is known to be chosen reaches the disk with the next one only.
        assert!(
            shown.contains("Voting") && shown.contains(": append "),
            "{shown}"
        );
        refused(&at("initialize", first), "is not empty: it is Voting");
        assert!(!first.join("journal").exists());
        let path = first.to_str().unwrap();
        let backwards = log("read", &["--path", path, "--from", "2", "--to", "1"]);
        refused(&backwards, "--from=2 is above --to=1");
    });
    refused(&at("read", Path::new("/no/such/log")), "/no/such/log");
    refused(&log("status", &["--master", "127.0.0.1:1"]), "127.0.0.1:1");
    cluster.stop();
}

#[test]
fn a_benchmark_says_how_fast_appends_are_and_leaves_nothing() {
    let dir = TempDir::with_prefix("meseta-test-").unwrap();
    let path = dir.path().to_str().unwrap();
    let output = log(
        "benchmark",
        &["--path", path, "--writers=2", "--secs=1", "--runs=1"],
    );
    assert!(output.status.success(), "{output:?}");
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_example_shows_a_log_that_outlives_its_first_member() {
    let output = Command::new(program("examples/replicated_log"))
        .env("MESETA_DEV_CA_DIR", dev_ca())
        .output()
        .unwrap();
    let shown = stdout(&output);
    assert!(output.status.success(), "{output:?}");
    assert!(
        shown.contains("second member: the log holds one, two, three"),
        "{shown}"
    );
}
