//! Sandboxes on a real disk: old ones go, those in use stay, and logs do not grow for ever.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use meseta_tests::{Cluster, http_get, wait_for};
use nix::fcntl::{FallocateFlags, fallocate};
use serde_json::Value;
use tempfile::TempDir;

fn start(settings: &[(&str, &str)]) -> Cluster {
    let dir = TempDir::with_prefix("meseta-test-").unwrap();
    let flags = ["--resources", "cpus:8;mem:2048"];
    Cluster::start_in(dir, 1, &flags, settings)
}

/// Address of the one agent.
fn agent(cluster: &Cluster) -> String {
    wait_for("the agent", || {
        let agents = cluster.command("agents").arg("--json").output().unwrap();
        let agents: Value = serde_json::from_slice(&agents.stdout).ok()?;
        let pid = agents[0]["pid"].as_str()?;
        Some(pid.split('@').nth(1)?.to_owned())
    })
}

/// Sandboxes of the cluster whose `stdout` begins with this word.
fn sandboxes(cluster: &Cluster, word: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut to_see = vec![cluster.dir.path().to_owned()];
    while let Some(directory) = to_see.pop() {
        for entry in std::fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let kind = entry.file_type();
            if kind.is_ok_and(|kind| kind.is_dir()) {
                to_see.push(entry.path());
            } else if entry.file_name() == "stdout"
                && std::fs::read_to_string(entry.path()).is_ok_and(|text| text.starts_with(word))
            {
                found.push(directory.clone());
            }
        }
    }
    found
}

/// Whether the file system of this directory can take the beginning out of a file.
fn loses_nothing(directory: &Path) -> bool {
    let path = directory.join("probe");
    std::fs::write(&path, vec![b'x'; 256 << 10]).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let can = fallocate(file, FallocateFlags::FALLOC_FL_COLLAPSE_RANGE, 0, 128 << 10);
    can.is_ok()
}

#[test]
fn the_sandbox_of_what_has_ended_goes_and_that_of_what_runs_stays() {
    let cluster = start(&[
        ("MESETA_GC_DELAY", "0secs"),
        ("MESETA_DISK_WATCH_INTERVAL", "100ms"),
    ]);
    let address = agent(&cluster);
    let mut running = cluster
        .command("execute")
        .args(["--command", "echo lasting; exec sleep 1000"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the lasting sandbox", || {
        (sandboxes(&cluster, "lasting").len() == 1).then_some(())
    });
    let ended = cluster.execute(&["--instances", "5", "--command", "echo passing"]);
    assert!(ended.status.success(), "{ended:?}");
    wait_for("the end of all other sandboxes", || {
        sandboxes(&cluster, "passing").is_empty().then_some(())
    });
    assert!(!sandboxes(&cluster, "lasting").is_empty());
    // More, if an attempt was lost on a busy machine and made again.
    wait_for("what the agent tells of it", || {
        let (_, text) = http_get(&address, "/metrics/snapshot");
        let metrics: Value = serde_json::from_str(&text).ok()?;
        let removed = metrics["gc/path_removals_succeeded"].as_f64()?;
        (removed > 4.5).then_some(())
    });
    let (_, text) = http_get(&address, "/slave(1)/gc");
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(&shown["max_age_secs"], &Value::from(0.0), "{shown}");
    let waiting = shown["sandboxes"].as_array().unwrap().iter();
    let lasting = sandboxes(&cluster, "lasting")
        .remove(0)
        .display()
        .to_string();
    let mut paths = waiting.filter_map(|one| one["path"].as_str());
    assert!(paths.all(|path| path != lasting), "{shown}");
    running.kill().unwrap();
    running.wait().unwrap();
    cluster.stop();
}

#[test]
fn a_long_log_is_rotated_and_read_in_one_piece() {
    let cluster = start(&[
        ("MESETA_MAX_STDOUT_SIZE", "64KB"),
        ("MESETA_ROTATED_LOGS", "2"),
    ]);
    let done = cluster.dir.path().join("done").display().to_string();
    // More than the log may hold at once.
    let script = format!(
        "i=10000; while [ $i -lt 30000 ]; do echo line $i; i=$((i+1)); done; touch {done}; exec sleep 1000"
    );
    let mut running = cluster
        .command("execute")
        .args(["--command", &script])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let sandbox = wait_for("the rotated log", || {
        std::fs::metadata(&done).ok()?;
        // By the newest part, since the beginning of the log is in none.
        let task = cluster.command("tasks").arg("--json").output().unwrap();
        let task: Value = serde_json::from_slice(&task.stdout).ok()?;
        task[0]["id"].as_str()?;
        let found = sandboxes(&cluster, "");
        let with_log = found
            .into_iter()
            .find(|path| path.join("stdout.1").exists())?;
        let length = std::fs::metadata(with_log.join("stdout")).ok()?.len();
        (length <= 64 << 10).then_some(with_log)
    });
    let logs = cluster.command("logs").arg("task-1").output().unwrap();
    let text = String::from_utf8_lossy(&logs.stdout).into_owned();
    // The first line may be cut; all that follow are there, to the last.
    let lines: Vec<u32> = text
        .lines()
        .skip(1)
        .map(|line| line.trim_start_matches("line ").parse().unwrap())
        .collect();
    assert!(lines.len() > 1_000, "{}", lines.len());
    assert!(lines.windows(2).all(|pair| pair[1] > pair[0]));
    // Where a file's beginning cannot be taken out, what is written in just that moment is lost.
    if loses_nothing(&sandbox) {
        assert_eq!(lines.last(), Some(&29_999), "{}", sandbox.display());
        assert!(lines.windows(2).all(|pair| pair[1] == pair[0] + 1));
    }
    running.kill().unwrap();
    running.wait().unwrap();
    cluster.stop();
}

/// Lines of 40 bytes in each part of a log that is followed, and how many parts there are.
const PART: usize = 1_000;
const PARTS: usize = 4;

#[test]
fn whoever_follows_a_log_reads_each_line_once_while_it_is_rotated() {
    let cluster = start(&[
        ("MESETA_MAX_STDOUT_SIZE", "64KB"),
        ("MESETA_ROTATED_LOGS", "4"),
    ]);
    let dir = cluster.dir.path().to_owned();
    // Each part waits until all before it has been read, and is written at once: no rotation falls into it.
    let script = format!(
        "p=0; while [ $p -lt {PARTS} ]; do while [ ! -e {0}/part-$p ]; do sleep 0.1; done; cat {0}/part-$p; p=$((p+1)); done",
        dir.display()
    );
    let mut running = cluster
        .command("execute")
        .args(["--command", &script])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the task", || {
        let tasks = cluster.command("tasks").arg("--json").output().unwrap();
        let tasks: Value = serde_json::from_slice(&tasks.stdout).ok()?;
        (tasks[0]["state"] == "TASK_RUNNING").then_some(())
    });
    let mut follower = cluster
        .command("logs")
        .args(["task-1", "--follow"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut rotated = 0;
    for part in 0..PARTS {
        let numbers = part * PART..(part + 1) * PART;
        let text: String = numbers
            .clone()
            .map(|number| format!("line {number:034}\n"))
            .collect();
        std::fs::write(dir.join("new"), text).unwrap();
        std::fs::rename(dir.join("new"), dir.join(format!("part-{part}"))).unwrap();
        for number in numbers {
            let line = lines.next().unwrap().unwrap();
            assert_eq!(line, format!("line {number:034}"));
        }
        // Two parts are more than the log may hold.
        if part % 2 == 1 && part + 1 < PARTS {
            rotated += 1;
            let name = format!("stdout.{rotated}");
            wait_for("the rotation", || {
                let found = sandboxes(&cluster, "");
                found
                    .iter()
                    .any(|path| path.join(&name).exists())
                    .then_some(())
            });
        }
    }
    assert!(lines.next().is_none());
    assert!(follower.wait().unwrap().success());
    assert!(running.wait().unwrap().success());
    cluster.stop();
}
