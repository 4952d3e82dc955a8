//! "Kill anything": that section of the README, run line by line. Needs root and `ip`, for a host whose ports are free.

use std::path::Path;
use std::process::Stdio;

use meseta_tests::namespaces::{self, Namespaces, ip, within};
use meseta_tests::{dev_ca, program, skipped};

const README: &str = include_str!("../../README.md");
const SECTION: &str = "## Kill anything\n";

/// The code of the section, in its order.
fn steps() -> String {
    let (_, rest) = README.split_once(SECTION).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap())
        .collect()
}

#[test]
fn what_the_readme_says_of_killing_anything_is_so() {
    if let Some(reason) = namespaces::obstacle() {
        return skipped("kill_anything", &reason);
    }
    let host = namespaces::name("kill");
    ip(&format!("netns add {host}"));
    let _guard = Namespaces(vec![host.clone()]);
    ip(&format!("-n {host} link set lo up"));
    let dir = tempfile::tempdir().unwrap();
    let output = run(&host, dir.path());
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = std::fs::read_to_string(dir.path().join("told")).unwrap();
    assert!(output.status.success(), "{printed}{told}");
    let last: Vec<&str> = printed.lines().rev().take(3).collect();
    assert_eq!(
        last,
        ["100", "100", "100 finished, 0 failed"],
        "{printed}{told}"
    );
    let log = std::fs::read_to_string(dir.path().join("cluster.log")).unwrap();
    for killed in ["agent-1", "master"] {
        let starts = log.lines().filter(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(killed) && words.next() == Some("pid")
        });
        assert_eq!(starts.count(), 2, "{killed}: {log}");
    }
}

fn run(host: &str, dir: &Path) -> std::process::Output {
    let bin = program("meseta").parent().unwrap().to_owned();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    within(host, "bash")
        .args(["-e", "-c", &steps()])
        .current_dir(dir)
        .env("PATH", path)
        .env("MESETA_DEV_CA_DIR", dev_ca())
        .env("MESETA_RESOURCES", "cpus:2;mem:4096")
        .stdin(Stdio::null())
        // A file: what is left behind by a step that fails would keep a pipe open for ever.
        .stderr(std::fs::File::create(dir.join("told")).unwrap())
        .output()
        .unwrap()
}
