//! Commands of the `meseta` program against a cluster that nobody disturbs.

use meseta_tests::Cluster;

fn stdout(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_local_cluster_runs_commands_and_leaves_nothing_behind() {
    let cluster = Cluster::start(2, &["--resources", "cpus:8;mem:2048"]);

    let many = cluster.execute(&["--instances", "50", "--command", "true"]);
    assert!(many.status.success(), "{many:?}");
    assert!(
        stdout(&many).contains("50 finished, 0 failed"),
        "{}",
        stdout(&many)
    );

    let failing = cluster.execute(&["--command", "exit 3"]);
    assert!(!failing.status.success());
    let text = stdout(&failing);
    assert!(
        text.contains("TASK_FAILED (Command exited with status 3)"),
        "{text}"
    );

    let greeting = cluster.execute(&[
        "--env",
        "NAME=world",
        "--name",
        "greet",
        "--command",
        "echo hello $NAME; echo oops >&2",
    ]);
    assert!(greeting.status.success(), "{greeting:?}");
    let logs = cluster.command("logs").arg("task-1").output().unwrap();
    assert_eq!(stdout(&logs), "hello world\n");
    let errors = cluster
        .command("logs")
        .args(["task-1", "--stderr"])
        .output()
        .unwrap();
    assert_eq!(stdout(&errors), "oops\n");

    let agents = cluster.command("agents").output().unwrap();
    assert_eq!(
        stdout(&agents).matches("slave(1)@127.0.0.1:").count(),
        2,
        "{}",
        stdout(&agents)
    );
    let frameworks = cluster.command("frameworks").output().unwrap();
    assert!(
        stdout(&frameworks).contains("greet"),
        "{}",
        stdout(&frameworks)
    );
    let tasks = cluster.command("tasks").output().unwrap();
    assert_eq!(
        stdout(&tasks).matches("TASK_FINISHED").count(),
        51,
        "{}",
        stdout(&tasks)
    );
    let processes = cluster.command("processes").output().unwrap();
    assert!(
        stdout(&processes).contains("allocator(1)@127.0.0.1:"),
        "{}",
        stdout(&processes)
    );
    let masters = cluster.command("masters").output().unwrap();
    let shown = stdout(&masters);
    assert!(
        shown.contains("leading") && shown.contains(&cluster.master),
        "{shown}"
    );
    // One that is up is enough, also to run something.
    let list = cluster.dir.path().join("masters");
    std::fs::write(&list, format!("127.0.0.1:1\n{}\n", cluster.master)).unwrap();
    let list = list.display().to_string();
    for arguments in [&["agents"][..], &["execute", "--command", "true"]] {
        let output = std::process::Command::new(meseta_tests::program("meseta"))
            .args(arguments)
            .args(["--master", &list])
            .env("MESETA_DEV_CA_DIR", meseta_tests::dev_ca())
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
    cluster.stop();
}

#[test]
fn what_a_task_may_see_is_what_the_agent_gives_it() {
    let cluster = Cluster::start(1, &[]);
    let output = cluster.execute(&["--command", "env; ls /proc/self/fd | wc -l"]);
    assert!(output.status.success(), "{output:?}");
    let logs = cluster.command("logs").arg("task-1").output().unwrap();
    let text = stdout(&logs);
    for name in [
        "MESOS_SANDBOX",
        "MESOS_DIRECTORY",
        "MESOS_FRAMEWORK_ID",
        "MESOS_EXECUTOR_ID",
        "MESOS_SLAVE_ID",
        "MESOS_SLAVE_PID",
        "MESOS_AGENT_ENDPOINT",
        "MESOS_ALLOCATION_ROLE",
        "PATH",
    ] {
        assert!(
            text.lines()
                .any(|line| line.starts_with(&format!("{name}="))),
            "{name} is missing in\n{text}"
        );
    }
    assert!(
        !text.contains("MESETA_"),
        "the cluster's own settings leak into the task:\n{text}"
    );
    assert!(
        !text.contains("HOME="),
        "the agent's environment leaks into the task:\n{text}"
    );
    cluster.stop();
}

#[test]
fn errors_name_the_flag_and_the_way_out() {
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(meseta_tests::program("meseta"))
            .args(arguments)
            .output()
            .unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for (arguments, text) in [
        (
            &["execute", "--command", "true", "--resources", "cpus"][..],
            "--resources=cpus",
        ),
        (
            &["execute", "--command", "true", "--env", "A"][..],
            "--env=A: write NAME=VALUE",
        ),
        (
            &["execute", "--command", "true", "--master", "nowhere"][..],
            "`nowhere` is no address: write host:port",
        ),
        (
            &["tasks", "--master", "/no/such/list"][..],
            "--master: /no/such/list cannot be read",
        ),
        (
            &["agents", "--master", "127.0.0.1:1"][..],
            "cannot connect to 127.0.0.1:1",
        ),
        (&["local", "--agents", "many"][..], "--agents"),
        (&["local", "--agents", "-1"][..], "'-1' for '--agents"),
        (
            &["execute", "--command", "true", "--instances", "-3"][..],
            "'-3' for '--instances",
        ),
        (
            &["execute", "--command", "true", "--resources", "cpus:1e13"][..],
            "cpus is more than 1000000000000",
        ),
        (
            &["execute", "--command", "true", "--resources", "cpus:1e20"][..],
            "cpus value 1e20",
        ),
    ] {
        let error = run(arguments);
        assert!(error.contains(text), "{arguments:?}: {error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let work_dir = format!("--work_dir={}", dir.path().display());
    let master = std::process::Command::new(meseta_tests::program("meseta-master"))
        .args([
            &work_dir,
            "--ip=0.0.0.0",
            "--advertise_ip=10.1.2.3",
            "--port=0",
        ])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&master.stderr).into_owned();
    assert!(
        !master.status.success() && error.contains("meseta certs"),
        "{error}"
    );
}
