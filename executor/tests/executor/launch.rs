//! Launch plans, carried out by the real launcher.

use std::fs;
use std::path::Path;

use meseta_executor::launch::{self, EXIT_NOT_LAUNCHED};
use meseta_protocol::launch::{EnvironmentEntry, ExecutorCredential, LaunchCommand, LaunchPlan};

fn launcher() -> Vec<String> {
    vec![
        env!("CARGO_BIN_EXE_meseta-executor").to_owned(),
        "launch".to_owned(),
    ]
}

fn plan(directory: &Path, script: &str) -> LaunchPlan {
    let file = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    LaunchPlan {
        command: LaunchCommand {
            program: "/bin/sh".into(),
            arguments: ["sh", "-c", script].map(str::to_owned).to_vec(),
        },
        working_directory: directory.to_str().unwrap().to_owned(),
        stdout: file("stdout"),
        stderr: file("stderr"),
        environment: vec![EnvironmentEntry {
            name: "A".into(),
            value: "b c".into(),
        }],
        ..LaunchPlan::default()
    }
}

/// Runs a plan to its end; status, standard output, standard error.
fn run(directory: &Path, plan: &LaunchPlan) -> (Option<i32>, String, String) {
    let status = launch::spawn(&launcher(), plan).unwrap().wait().unwrap();
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
    (status.code(), read("stdout"), read("stderr"))
}

#[test]
fn the_environment_is_the_plan_s_and_the_default_path() {
    let sandbox = tempfile::tempdir().unwrap();
    let mut plan = plan(sandbox.path(), "");
    plan.command = LaunchCommand {
        program: "env".into(),
        arguments: vec!["env".into()],
    };
    let (status, out, err) = run(sandbox.path(), &plan);
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["A=b c", &format!("PATH={}", launch::DEFAULT_PATH)],
        "{err}"
    );
    assert_eq!(status, Some(0));
}

#[test]
fn the_limit_of_open_files_is_the_plan_s() {
    let sandbox = tempfile::tempdir().unwrap();
    let mut plan = plan(sandbox.path(), "ulimit -n");
    plan.open_files = Some(77);
    let (status, out, err) = run(sandbox.path(), &plan);
    assert_eq!((status, out.as_str()), (Some(0), "77\n"), "{err}");
}

#[test]
fn directory_session_input_and_descriptors_are_fresh() {
    let sandbox = tempfile::tempdir().unwrap();
    // Inherited by the launcher on purpose, and to be closed by it.
    let leak = nix::sys::memfd::memfd_create(c"leak", nix::sys::memfd::MFdFlags::empty()).unwrap();
    let script =
        "pwd; cat; echo $$ $(cut -d' ' -f6 /proc/$$/stat); ls -l /proc/$$/fd; echo e >&2; exit 3";
    let (status, out, err) = run(sandbox.path(), &plan(sandbox.path(), script));
    drop(leak);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(Path::new(lines[0]), sandbox.path().canonicalize().unwrap());
    let (me, session) = lines[1].split_once(' ').unwrap();
    assert_eq!(me, session, "its own session");
    let descriptors: Vec<&str> = lines[2..]
        .iter()
        .filter(|l| l.contains("->"))
        .copied()
        .collect();
    assert_eq!(descriptors.len(), 3, "{descriptors:?}");
    assert_eq!((status, err.as_str()), (Some(3), "e\n"));
}

#[test]
fn the_credential_is_read_from_an_inherited_descriptor_only() {
    let sandbox = tempfile::tempdir().unwrap();
    let script = "cat /proc/self/fd/$MESETA_EXECUTOR_CREDENTIAL_FD; env >&2";
    let mut plan = plan(sandbox.path(), script);
    let credential = ExecutorCredential {
        agent_pid: "slave(1)@127.0.0.1:5051".into(),
        private_key: b"secret".to_vec().into(),
        ..ExecutorCredential::default()
    };
    plan.credential = Some(credential.clone());
    let status = launch::spawn(&launcher(), &plan).unwrap().wait().unwrap();
    assert!(status.success());
    let bytes = fs::read(sandbox.path().join("stdout")).unwrap();
    assert_eq!(
        rmp_serde::from_slice::<ExecutorCredential>(&bytes).unwrap(),
        credential
    );
    let environment = fs::read_to_string(sandbox.path().join("stderr")).unwrap();
    assert!(
        environment.contains("MESETA_EXECUTOR_CREDENTIAL_FD=") && !environment.contains("secret")
    );
}

#[test]
fn what_fails_is_named_in_the_plan_s_own_standard_error() {
    let sandbox = tempfile::tempdir().unwrap();
    let good = plan(sandbox.path(), "true");
    let mut no_program = good.clone();
    no_program.command.program = "/no/such/program".into();
    let mut no_directory = good.clone();
    no_directory.working_directory = "/no/such/directory".into();
    let mut no_cgroup = good.clone();
    no_cgroup.freezer_cgroup = Some("/no/such/cgroup".into());
    let mut no_user = good.clone();
    no_user.user = Some("no-such-user".into());
    let mut cases = vec![
        (no_program, "cannot execute `/no/such/program`"),
        (
            no_directory,
            "cannot change to the directory /no/such/directory",
        ),
        (no_cgroup, "cannot enter the control group /no/such/cgroup"),
    ];
    if nix::unistd::Uid::effective().is_root() {
        cases.push((no_user, "cannot become the user `no-such-user`"));
    }
    for (plan, text) in cases {
        let confirmed = launch::spawn_confirmed(&launcher(), &plan).unwrap_err();
        assert!(confirmed.to_string().starts_with(text), "{confirmed}");
        if text.contains("user") {
            // Found out before the plan's files are opened.
            continue;
        }
        let (status, _, err) = run(sandbox.path(), &plan);
        assert_eq!(status, Some(i32::from(EXIT_NOT_LAUNCHED)));
        assert!(err.contains(text), "{err}");
    }
    let mut child = launch::spawn_confirmed(&launcher(), &good).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn another_user_has_its_own_groups_and_files() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let sandbox = tempfile::tempdir().unwrap();
    let mut plan = plan(sandbox.path(), "id -un; id -Gn");
    plan.user = Some("nobody".into());
    plan.working_directory = "/".into();
    let (status, out, err) = run(sandbox.path(), &plan);
    assert_eq!(status, Some(0), "{err}");
    assert_eq!(out.lines().next(), Some("nobody"));
    assert!(!out.contains("root"), "{out}");
}

#[test]
fn a_program_without_an_agent_says_so() {
    let program = env!("CARGO_BIN_EXE_meseta-executor");
    let output = std::process::Command::new(program)
        .env_clear()
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("MESETA_EXECUTOR_CREDENTIAL_FD is not set"),
        "{text}"
    );
}

#[test]
fn a_plan_for_the_launcher_s_own_program_is_followed_without_another_start() {
    let sandbox = tempfile::tempdir().unwrap();
    let mut plan = plan(sandbox.path(), "");
    plan.command = LaunchCommand {
        program: launcher()[0].clone(),
        arguments: vec![launcher()[0].clone()],
    };
    plan.credential = Some(ExecutorCredential {
        executor_process_id: "executor-1".into(),
        ..ExecutorCredential::default()
    });
    // The executor finds its variables in the plan, and nothing in the environment of the process.
    let missing = |plan: &LaunchPlan| run(sandbox.path(), plan).2;
    assert!(missing(&plan).contains("MESOS_SLAVE_PID is not set"));
    let agent = EnvironmentEntry {
        name: "MESOS_SLAVE_PID".into(),
        value: "slave(1)@127.0.0.1:1".into(),
    };
    plan.environment.push(agent);
    let complaint = missing(&plan);
    let last = complaint.lines().last().unwrap();
    assert!(last.starts_with("meseta-executor: "), "{last}");
    assert!(!last.contains("MESOS_SLAVE_PID"), "{last}");
    // With an argument it is a program like others.
    plan.command.arguments.push("--version".into());
    plan.credential = None;
    let (status, out, _) = run(sandbox.path(), &plan);
    assert_eq!(
        (status, out.starts_with("meseta-executor ")),
        (Some(0), true)
    );
}
