//! A client that somebody else wrote for Mesos, as PyPI has it: pymesos, as scheduler and as executor.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use meseta_tests::{Cluster, dev_ca, skipped};

const README: &str = include_str!("../../README.md");

fn third_party(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("third_party")
        .join(file)
}

/// The Python that has the client; or why there is none, which must be that the registry or Python is not there.
static PYTHON: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    let dir = dev_ca().with_file_name("test-pymesos");
    let done = Command::new(third_party("install-pymesos"))
        .arg(&dir)
        .output()
        .unwrap();
    if done.status.success() {
        return Ok(dir.join("bin/python"));
    }
    let said = String::from_utf8_lossy(&done.stdout);
    Err(said.lines().last().unwrap_or("it says nothing").to_owned())
});

fn python(test: &str) -> Option<&'static Path> {
    match &*PYTHON {
        Ok(python) => Some(python),
        Err(why) => {
            skipped(test, &format!("pymesos cannot be installed: {why}"));
            None
        }
    }
}

fn text(output: &Output) -> String {
    format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn the_python_scheduler_of_the_readme_runs_as_written() {
    let Some(python) = python("the_python_scheduler_of_the_readme_runs_as_written") else {
        return;
    };
    let (_, rest) = README.split_once("```python\n").unwrap();
    let (code, _) = rest.split_once("```").unwrap();
    let cluster = Cluster::start(1, &["--resources", "cpus:4;mem:1024"]);
    let script = cluster.dir.path().join("hello.py");
    std::fs::write(&script, code).unwrap();
    let ran = Command::new(python)
        .arg(&script)
        .arg(&cluster.master)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", text(&ran));
    for n in 1..=3 {
        assert!(
            text(&ran).contains(&format!("hello-{n} TASK_FINISHED")),
            "{}",
            text(&ran)
        );
    }
    // Its end is the framework's.
    let frameworks = cluster.command("frameworks").output().unwrap();
    assert!(
        text(&frameworks).contains("hello from Python"),
        "{}",
        text(&frameworks)
    );
    let logs = cluster.command("logs").arg("hello-2").output().unwrap();
    assert_eq!(text(&logs).trim(), "hello from hello-2");
    cluster.stop();
}

#[test]
fn a_custom_executor_in_python_runs_many_tasks_and_answers_messages() {
    let test = "a_custom_executor_in_python_runs_many_tasks_and_answers_messages";
    let Some(python) = python(test) else {
        return;
    };
    let cluster = Cluster::start(1, &["--resources", "cpus:4;mem:1024"]);
    let ran = Command::new(python)
        .arg(third_party("scheduler.py"))
        .arg(&cluster.master)
        .arg(python)
        .arg(third_party("executor.py"))
        .arg("50")
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", text(&ran));
    assert!(
        text(&ran).contains("killed stays answered True"),
        "{}",
        text(&ran)
    );
    cluster.stop();
}
