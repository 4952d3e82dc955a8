//! A client that somebody else wrote for Mesos, as PyPI has it: pymesos, as scheduler and as executor.

use std::path::PathBuf;
use std::process::Command;

use meseta_tests::Cluster;

use crate::third_party::{Package, script, text};

const README: &str = include_str!("../../README.md");

/// The Python that has the client.
fn python(test: &str) -> Option<PathBuf> {
    static PYMESOS: Package = Package::new("pymesos");
    Some(PYMESOS.installed(test)?.join("bin/python"))
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
    let ran = Command::new(&python)
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
    let ran = Command::new(&python)
        .arg(script("scheduler.py"))
        .arg(&cluster.master)
        .arg(&python)
        .arg(script("executor.py"))
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
