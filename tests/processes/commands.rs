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
    // A name of somebody else's is shown, and not obeyed.
    let named = cluster.execute(&["--name", "\u{1b}[2J", "--command", "true"]);
    assert!(named.status.success(), "{named:?}");
    for json in [&[][..], &["--json"]] {
        let frameworks = cluster.command("frameworks").args(json).output().unwrap();
        let shown = stdout(&frameworks);
        assert!(
            !shown.contains('\u{1b}') && shown.contains("1b}[2J") | shown.contains("u001b[2J"),
            "{shown}"
        );
    }
    for reading in [
        "agents",
        "frameworks",
        "tasks",
        "processes",
        "top",
        "log-level",
    ] {
        a_reader_that_goes_and_a_full_disk(&mut cluster.command(reading));
    }
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
fn an_agent_that_is_marked_gone_ends_with_its_tasks_and_comes_back_under_another_id() {
    let cluster = Cluster::start(1, &["--resources", "cpus:2;mem:512"]);
    let ids = || {
        let agents = cluster.command("agents").arg("--json").output().unwrap();
        let agents: serde_json::Value = serde_json::from_slice(&agents.stdout).ok()?;
        let ids = agents.as_array()?.iter();
        let ids = ids.filter_map(|agent| agent["id"].as_str().map(str::to_owned));
        Some(ids.collect::<Vec<_>>())
    };
    let first = meseta_tests::wait_for("the agent", || ids()?.pop());
    // The first attempt never ends by itself, the next one at once.
    let begun = cluster.dir.path().join("begun").display().to_string();
    let command = format!("test -e {begun} || {{ touch {begun}; exec sleep 1000; }}");
    let running = cluster
        .command("execute")
        .args(["--command", &command])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    meseta_tests::wait_for("the task to run", || {
        let tasks = stdout(&cluster.command("tasks").output().unwrap());
        tasks.contains("TASK_RUNNING").then_some(())
    });

    let unknown = cluster.command("agents").args(["gone", "S0"]).output();
    let unknown = unknown.unwrap();
    let text = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(
        !unknown.status.success() && text.contains("Agent 'S0' not found"),
        "{text}"
    );
    let gone = cluster.command("agents").args(["gone", &first]).output();
    let gone = gone.unwrap();
    assert!(gone.status.success(), "{gone:?}");
    assert_eq!(stdout(&gone), format!("{first} is gone\n"));

    // Its framework hears of it and starts the task again, on the agent that its program has become.
    let ended = running.wait_with_output().unwrap();
    let text = stdout(&ended);
    assert!(ended.status.success(), "{text}");
    assert!(
        text.contains("TASK_GONE_BY_OPERATOR") && text.contains("1 finished, 0 failed"),
        "{text}"
    );
    let ids = ids().unwrap();
    assert!(ids.len() == 1 && ids[0] != first, "{ids:?}");
    meseta_tests::wait_for("the end of the first attempt", || {
        cluster.executors().is_empty().then_some(())
    });
    cluster.stop();
}

/// A command whose reader has gone ends quietly, and one that cannot write says why.
fn a_reader_that_goes_and_a_full_disk(command: &mut std::process::Command) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let gone = command.stdout(writer).output().unwrap();
    assert!(gone.status.success() && gone.stderr.is_empty(), "{gone:?}");
    let full = std::fs::File::options().write(true).open("/dev/full");
    let full = command.stdout(full.unwrap()).output().unwrap();
    let text = String::from_utf8_lossy(&full.stderr).into_owned();
    assert_eq!(full.status.code(), Some(1), "{text}");
    assert!(text.contains("standard output: No space left"), "{text}");
}

/// Limit of open files of a process, soft and hard, as the kernel tells it.
fn open_files(pid: &str) -> (String, String) {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let mut numbers = line.unwrap().split_whitespace().map(str::to_owned);
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn programs_raise_their_limit_of_open_files_and_tasks_get_the_one_from_before() {
    let cluster = Cluster::start(1, &[]);
    for component in ["master", "agent-1"] {
        let (soft, hard) = open_files(&cluster.pids_of(component)[0].to_string());
        assert_eq!(soft, hard, "{component}");
    }
    let output = cluster.execute(&["--command", "ulimit -n"]);
    assert!(output.status.success(), "{output:?}");
    let logs = cluster.command("logs").arg("task-1").output().unwrap();
    assert_eq!(stdout(&logs).trim(), open_files("self").0);
    cluster.stop();
}

#[test]
fn a_cluster_that_cannot_start_ends_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let local = |dir: &std::path::Path, flags: &[&str]| {
        std::process::Command::new(meseta_tests::program("meseta"))
            .args(["local", "--port", "0", "--work_dir"])
            .arg(dir)
            .args(flags)
            .env("MESETA_DEV_CA_DIR", meseta_tests::dev_ca())
            .output()
            .unwrap()
    };
    let bad = local(dir.path(), &["--resources", "cpus"]);
    let text = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert_eq!(bad.status.code(), Some(1), "{text}");
    assert!(
        text.contains("agent-1 cannot start") && text.contains("missing or extra ':' in cpus"),
        "{text}"
    );
    // Another cluster has the directory.
    let cluster = Cluster::start(1, &[]);
    let work_dir = cluster.dir.path().to_str().unwrap();
    let second = local(cluster.dir.path(), &[]);
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success(), "{text}");
    assert!(
        text.contains("is in use by process") && text.contains(work_dir),
        "{text}"
    );
    cluster.stop();
}

#[test]
fn a_certificate_is_never_overwritten_and_the_way_out_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let certs = |arguments: &[&str]| {
        std::process::Command::new(meseta_tests::program("meseta"))
            .arg("certs")
            .args(arguments)
            .current_dir(dir.path())
            .output()
            .unwrap()
    };
    let node = [
        "node", "--host", "10.1.2.3", "--role", "agent", "--out", "node",
    ];
    assert!(certs(&["ca"]).status.success());
    assert!(certs(&node).status.success());
    let again = certs(&node);
    let text = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success());
    assert!(
        text.contains("--out=node holds a ca.pem already") && text.contains("--out=certs/10.1.2.3"),
        "{text}"
    );
}

#[test]
fn a_master_with_few_descriptors_answers_though_idle_connections_take_them_all() {
    use std::io::BufRead as _;
    let dir = tempfile::tempdir().unwrap();
    let mut master = std::process::Command::new("sh")
        .arg("-c")
        .arg("ulimit -n 64; exec \"$0\" \"$@\"")
        .arg(meseta_tests::program("meseta-master"))
        .args(["--port=0", "--supervised"])
        .arg(format!("--work_dir={}", dir.path().display()))
        .env("MESETA_DEV_CA_DIR", meseta_tests::dev_ca())
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let log = std::io::BufReader::new(master.stderr.take().unwrap());
    let mut lines = log.lines().map(Result::unwrap);
    let ready = lines.find_map(|line| {
        let (_, url) = line.split_once("master ready: http://")?;
        Some(url.split('/').next().unwrap().to_owned())
    });
    let address = ready.unwrap();
    // Shown when the test fails.
    let reading = std::thread::spawn(move || lines.for_each(|line| println!("{line}")));
    let idle: Vec<_> = (0..100)
        .map(|_| std::net::TcpStream::connect(&address).unwrap())
        .collect();
    assert_eq!(meseta_tests::http_get(&address, "/health").0, 200);
    let (_, metrics) = meseta_tests::http_get(&address, "/metrics/snapshot");
    let metrics: serde_json::Value = serde_json::from_str(&metrics).unwrap();
    assert!(
        metrics["runtime/http_accept_errors"].as_f64() >= Some(1.0),
        "{metrics}"
    );
    drop(idle);
    // Closing its standard input ends it.
    drop(master.stdin.take());
    assert!(master.wait().unwrap().success());
    reading.join().unwrap();
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
        (&["execute", "--command", " "][..], "--command is empty"),
        (
            &["execute", "--command", "true", "--env", "=x"][..],
            "--env==x: write NAME=VALUE",
        ),
        (
            &["local", "--logging_level", "loud"][..],
            "'loud' for '--logging_level",
        ),
        (
            &["log-level", "--for", "5mins"][..],
            "meseta log-level debug --for 5m",
        ),
        (
            &["log-level", "debug", "--master", "127.0.0.1:1"][..],
            "cannot connect to it",
        ),
        (
            &["top", "--interval", "-1s"][..],
            "'-1s' for '--interval <INTERVAL>': it is below zero: write 0secs or more",
        ),
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
            "resource cpus value 1e20 is more than 1000000000000",
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
