//! A client that somebody else wrote for Mesos, as npm has it: mesos-framework, which takes each chunk of a stream for one
//! event.

use std::process::Command;

use meseta_tests::Cluster;

use crate::third_party::{Package, script, text};

#[test]
fn a_scheduler_in_javascript_runs_tasks_and_kills_one() {
    static MESOS_FRAMEWORK: Package = Package::new("mesos-framework");
    let test = "a_scheduler_in_javascript_runs_tasks_and_kills_one";
    let Some(dir) = MESOS_FRAMEWORK.installed(test) else {
        return;
    };
    let resources = "cpus:4;mem:1024;ports:[31000-31999]";
    let cluster = Cluster::start(1, &["--resources", resources]);
    let (host, port) = cluster.master.rsplit_once(':').unwrap();
    let ran = Command::new(dir.join("node"))
        .env("NODE_PATH", dir.join("node_modules"))
        .arg(script("scheduler.js"))
        .args([host, port])
        .output()
        .unwrap();
    let said = text(&ran);
    assert!(ran.status.success(), "{said}");
    for line in [
        "short-1 TASK_FINISHED",
        "long-1 TASK_KILLED",
        "ended long-1 short-1 short-2 short-3",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    cluster.stop();
}
