//! The word count, against a count by the tools every system has.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use meseta_tests::{Cluster, dev_ca, program, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Files with everything that makes counting hard: no final newline, bytes that are no text, words across slices,
/// nothing at all.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut binary: Vec<u8> = (0..200_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0])
        .collect();
    binary.extend(b"tail");
    let long = [b"x".repeat(100_000), b" y Y y9".to_vec()].concat();
    let text = "The quick brown fox, the lazy dog.\n"
        .repeat(5_000)
        .into_bytes();
    let all: [(&str, Vec<u8>); 5] = [
        ("binary", binary),
        ("long word", long),
        ("text.txt", text),
        ("empty", Vec::new()),
        ("umlaut-\u{e4}", "na\u{ef}ve caf\u{e9}".as_bytes().to_vec()),
    ];
    all.into_iter()
        .map(|(name, content)| {
            let path = dir.join(name);
            std::fs::write(&path, content).unwrap();
            path
        })
        .collect()
}

/// `word<TAB>count` lines in byte order, made with tr, sort and uniq.
fn reference(files: &[PathBuf]) -> String {
    let script = r#"for f in "$@"; do LC_ALL=C tr -cs 'A-Za-z0-9' '\n' <"$f"; echo; done \
        | LC_ALL=C tr A-Z a-z | grep -v '^$' | LC_ALL=C sort | uniq -c | awk '{print $2 "\t" $1}'"#;
    let output = Command::new("bash")
        .args(["-c", script, "reference"])
        .args(files)
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn wordcount(tsv: &Path) -> Command {
    let mut command = Command::new(program("examples/wordcount"));
    command
        .env("MESETA_DEV_CA_DIR", dev_ca())
        .args(["--slice", "30000", "--tsv"])
        .arg(tsv);
    command
}

#[test]
fn counts_what_the_tools_count() {
    let dir = tempfile::tempdir().unwrap();
    let (files, tsv) = (files(dir.path()), dir.path().join("counts.tsv"));
    let output = wordcount(&tsv)
        .args(["--agents", "2", "--top", "3"])
        .args(&files)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(std::fs::read_to_string(&tsv).unwrap(), reference(&files));
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("    10000 the"), "{shown}");
    assert!(shown.contains("agent 1"), "{shown}");
}

#[test]
fn counts_the_same_while_agents_and_executors_are_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = files(dir.path());
    // Enough that it takes a while.
    files.extend((0..200).map(|_| files[2].clone()).collect::<Vec<_>>());
    let tsv = dir.path().join("counts.tsv");
    let cluster = Cluster::start(3, &["--resources", "cpus:4.1;mem:2048"]);
    let counting = wordcount(&tsv)
        .args(["--master", &cluster.master])
        .args(&files)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    for round in 1..=2 {
        let executors = wait_for("an executor", || {
            let pids = cluster.executors();
            (!pids.is_empty()).then_some(pids)
        });
        // It may have ended by itself meanwhile.
        let _gone = kill(Pid::from_raw(executors[0]), Signal::SIGKILL);
        cluster.kill(&format!("agent-{round}"));
    }
    let output = counting.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(std::fs::read_to_string(&tsv).unwrap(), reference(&files));
    cluster.stop();
}
