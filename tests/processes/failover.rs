//! The program that measures fail-overs, with few agents: its masters, its agents and its table.

use std::process::{Command, Output};

use meseta_tests::{dev_ca, program};

fn failover(flags: &[&str]) -> Output {
    Command::new(program("examples/failover"))
        .env("MESETA_DEV_CA_DIR", dev_ca())
        .args(flags)
        .output()
        .unwrap()
}

#[test]
fn agents_come_back_to_the_next_leader_with_their_tasks() {
    let dir = tempfile::tempdir().unwrap();
    let path = format!("--path={}", dir.path().display());
    let output = failover(&["--agents=20", "--kills=1", "--nodes=2", &path]);
    let (table, told) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{told}\n{table}");
    assert!(
        table.starts_with("20 agents, 200 tasks, 3 masters"),
        "{table}"
    );
    let p99 = table.lines().find(|line| line.starts_with("   p99"));
    let p99: Vec<f64> = p99
        .unwrap()
        .split_whitespace()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    let [leader, write, agents, ..] = p99[..] else {
        panic!("{table}");
    };
    assert!(leader <= write && leader <= agents, "{table}");
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 0, "files are left behind");
}

#[test]
fn a_measurement_that_cannot_be_made_ends_with_the_reason() {
    let output = failover(&["--path=/nowhere"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(told.contains("--path: cannot use /nowhere"), "{told}");
}
