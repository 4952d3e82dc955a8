//! `meseta local` itself is killed without warning, and the batch that runs there too: both are started again, and go on
//! with the same tasks. Needs root and `ip`, for a host whose ports are free.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use meseta_tests::namespaces::{self, Namespaces, ip, within};
use meseta_tests::{dev_ca, program, skipped, wait_for};

/// How many tasks. Each writes a line when it begins and, when it is told to end, another one.
const TASKS: usize = 6;

struct Host {
    name: String,
    dir: tempfile::TempDir,
}

impl Host {
    fn meseta(&self, flags: &[&str]) -> Command {
        let mut command = within(&self.name, program("meseta"));
        command
            .args(flags)
            .current_dir(self.dir.path())
            .env("MESETA_DEV_CA_DIR", dev_ca())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }

    /// Starts the cluster; it is ready when this returns.
    fn cluster(&self) -> (Child, BufReader<ChildStdout>) {
        let flags = ["local", "--agents=2", "--work_dir=cluster"];
        let mut command = self.meseta(&flags);
        // The batch is not to end because the machine is slow.
        command.args(["--recovery_timeout=10mins", "--resources=cpus:4;mem:4096"]);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("cluster ready") {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "it has ended");
        }
        (child, lines)
    }

    fn batch(&self) -> Child {
        let command = "echo $MESOS_EXECUTOR_ID >>$DIR/begun; \
                       until [ -e $DIR/go ]; do sleep 0.1; done; \
                       echo $MESOS_EXECUTOR_ID >>$DIR/ended";
        let dir = format!("DIR={}", self.dir.path().display());
        let instances = TASKS.to_string();
        let flags = ["execute", "--resume=batch", "--failover_timeout=10mins"];
        let mut execute = self.meseta(&flags);
        execute.args([
            "--instances",
            &instances,
            "--env",
            &dir,
            "--command",
            command,
        ]);
        execute.spawn().unwrap()
    }

    /// The lines of a file, in their order.
    fn lines(&self, file: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join(file)).unwrap_or_default();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

fn is_free(dir: &Path) -> bool {
    meseta_runtime::lock::DirectoryLock::take(dir).is_ok()
}

#[test]
fn tasks_outlive_the_kill_of_the_whole_local_cluster() {
    if let Some(reason) = namespaces::obstacle() {
        return skipped("kill_local", &reason);
    }
    let host = Host {
        name: namespaces::name("local"),
        dir: tempfile::tempdir().unwrap(),
    };
    ip(&format!("netns add {}", host.name));
    let _guard = Namespaces(vec![host.name.clone()]);
    ip(&format!("-n {} link set lo up", host.name));

    let (mut cluster, _) = host.cluster();
    let mut batch = host.batch();
    wait_for("all tasks to run", || {
        (host.lines("begun").len() == TASKS).then_some(())
    });
    cluster.kill().unwrap();
    batch.kill().unwrap();
    cluster.wait().unwrap();
    batch.wait().unwrap();

    let (mut cluster, _lines) = host.cluster();
    let batch = host.batch();
    std::fs::write(host.dir.path().join("go"), "").unwrap();
    let output = batch.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let summary = format!("{TASKS} finished, 0 failed");
    assert!(output.status.success() && text.contains(&summary), "{text}");
    assert_eq!(host.lines("begun").len(), TASKS, "a task ran twice: {text}");
    assert_eq!(host.lines("begun"), host.lines("ended"), "{text}");

    // The end of everything, though nobody says so to the agents.
    cluster.kill().unwrap();
    cluster.wait().unwrap();
    for component in ["master", "agent-1", "agent-2"] {
        let dir = host.dir.path().join("cluster").join(component);
        wait_for("the components to end", || is_free(&dir).then_some(()));
    }
}
