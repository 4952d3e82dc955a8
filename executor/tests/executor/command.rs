//! The command executor end to end: the real program, started by the real launcher, over QUIC and over a Unix socket,
//! under a scripted agent.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::agent::{Agent, Heard, LONG, Say};
use meseta_executor::launch;
use meseta_protocol::common::CommandInfo;
use meseta_protocol::launch::{
    EnvironmentEntry, ExecutorCredential, LaunchCommand, LaunchPlan, UnixCredential,
};
use meseta_protocol::resources::Resources;
use meseta_protocol::status::{StatusReason, TaskState, TaskStatus};
use meseta_protocol::task::{KillPolicy, TaskInfo};
use meseta_runtime::identity::{CertificateAuthority, GuestKey, Identity};
use meseta_runtime::transport::unix::{GuestSocket, GuestToken, Reach};
use meseta_runtime::transport::{Guest, Proof};
use meseta_runtime::{Credentials, Node, Pid};
use nix::unistd::{Uid, User};

const ID: &str = "executor-c";

struct World {
    node: Node,
    agent: Pid,
    heard: Receiver<Heard>,
    sandbox: tempfile::TempDir,
    /// Where the socket is; nobody else may enter.
    _closed: tempfile::TempDir,
    executor: Child,
}

/// How the executor speaks to the agent.
#[derive(Debug, Clone, Copy)]
enum Way {
    Quic,
    Unix,
}

impl World {
    fn new() -> Self {
        Self::over(Way::Quic)
    }

    /// An agent with a command executor that has subscribed. Over a Unix socket the executor runs as another user where
    /// this user may have it so, and the socket is in a directory that nobody else may enter.
    fn over(way: Way) -> Self {
        let authority = CertificateAuthority::create("test").unwrap();
        let hosts = ["127.0.0.1".to_owned()];
        let identity = Identity::issue(&authority, &hosts, &["agent"]).unwrap();
        let builder = Node::builder()
            .credentials(Credentials::Given(Box::new(identity)))
            .role("agent");
        let sandbox = tempfile::tempdir().unwrap();
        let closed = tempfile::tempdir().unwrap();
        let socket = closed.path().join("run/executors");
        let own = Uid::effective();
        let user = match way {
            Way::Unix if own.is_root() => User::from_name("nobody").unwrap(),
            Way::Quic | Way::Unix => None,
        };
        if let Some(user) = &user {
            nix::unistd::chown(sandbox.path(), Some(user.uid), None).unwrap();
        }
        let (node, proof, mut credential) = match way {
            Way::Quic => {
                let key = GuestKey::generate().unwrap();
                let credential = ExecutorCredential {
                    certificate_chain: vec![key.certificate.clone().into()],
                    private_key: key.private_key.clone().into(),
                    ca: authority.certificate().to_vec().into(),
                    ..ExecutorCredential::default()
                };
                (builder, Proof::Certificate(key.fingerprint), credential)
            }
            Way::Unix => {
                let token = GuestToken::generate().unwrap();
                let unix = UnixCredential {
                    socket: socket.display().to_string(),
                    agent_uid: own.as_raw(),
                    token: token.secret().to_vec().into(),
                    directory_descriptor: None,
                };
                let credential = ExecutorCredential {
                    unix: Some(unix),
                    ..ExecutorCredential::default()
                };
                let builder = builder.guests_at(GuestSocket {
                    path: socket,
                    reach: Reach::AnyUser,
                });
                let proof = Proof::Token {
                    hash: token.hash(),
                    uid: user.as_ref().map_or(own, |user| user.uid).as_raw(),
                };
                (builder, proof, credential)
            }
        };
        let node = node.start().unwrap();
        let guest = Guest {
            id: ID.into(),
            role: "executor".into(),
            proof,
        };
        let (agent, heard) = Agent::start(&node, guest);
        credential.agent_pid = agent.to_string();
        credential.executor_process_id = ID.into();
        let directory = sandbox.path().to_str().unwrap().to_owned();
        let variables = [
            ("MESOS_FRAMEWORK_ID", "f"),
            ("MESOS_EXECUTOR_ID", "t"),
            ("MESOS_SLAVE_ID", "s"),
            ("MESOS_SLAVE_PID", &agent.to_string()),
            ("MESOS_DIRECTORY", &directory),
            ("MESOS_CHECKPOINT", "0"),
            ("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", "10secs"),
        ];
        let plan = LaunchPlan {
            command: LaunchCommand {
                // The launcher's own, which it goes on as even where the other user cannot reach its file.
                program: env!("CARGO_BIN_EXE_meseta-executor").into(),
                arguments: vec!["meseta-executor".into()],
            },
            stdout: format!("{directory}/stdout"),
            stderr: format!("{directory}/stderr"),
            working_directory: directory.clone(),
            environment: variables
                .map(|(name, value)| EnvironmentEntry {
                    name: name.into(),
                    value: value.into(),
                })
                .to_vec(),
            user: user.map(|user| user.name),
            credential: Some(credential),
            ..LaunchPlan::default()
        };
        let launcher = [env!("CARGO_BIN_EXE_meseta-executor"), "launch"].map(str::to_owned);
        let executor = launch::spawn(&launcher, &plan).unwrap();
        let world = Self {
            node,
            agent,
            heard,
            sandbox,
            _closed: closed,
            executor,
        };
        let first = world.next();
        assert!(
            matches!(&first, Heard::Subscribe(message) if message.executor_id.as_str() == "t"),
            "{first:?}; {}",
            world.file("stderr")
        );
        world.say(Say::Subscribed);
        world
    }
    fn say(&self, say: Say) {
        self.node.send(&self.agent, say);
    }
    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.sandbox.path().join(name)).unwrap_or_default()
    }
    fn next(&self) -> Heard {
        let heard = self.heard.recv_timeout(LONG);
        heard.unwrap_or_else(|error| panic!("{error}; stderr: {}", self.file("stderr")))
    }
    /// The next update, acknowledged.
    fn update(&self) -> TaskStatus {
        loop {
            // A subscription repeated before its answer came may still be on its way.
            if let Heard::Update(update) = self.next() {
                let status = update.status;
                let uuid = status.uuid.unwrap();
                self.say(Say::Acknowledge(status.task_id.clone(), uuid));
                return status;
            }
        }
    }
    fn launch(&self, task: TaskInfo) {
        self.say(Say::Launch(Box::new(task)));
        assert_eq!(self.update().state, TaskState::Starting);
        assert_eq!(self.update().state, TaskState::Running);
    }
    fn end(mut self) {
        let status = self.executor.wait().unwrap();
        assert!(status.success(), "{status}; {}", self.file("stderr"));
        self.node.shutdown();
    }
    /// A pipe in the sandbox; what the task writes to it comes out of the receiver.
    fn pipe(&self, name: &str) -> Receiver<String> {
        let path = self.sandbox.path().join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let (sender, written) = channel();
        std::thread::spawn(move || sender.send(fs::read_to_string(path).unwrap()));
        written
    }
}

fn script(text: &str) -> TaskInfo {
    let resources = "cpus:1"
        .parse::<Resources>()
        .unwrap()
        .allocated(&"eng".into());
    TaskInfo::new("t", "s", resources, text)
}

fn lives(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

#[test]
fn success_failure_and_a_program_that_is_not_there() {
    let missing = CommandInfo {
        shell: false,
        value: Some("/no/such/program".into()),
        ..CommandInfo::default()
    };
    let missing = TaskInfo {
        command: Some(missing),
        ..script("")
    };
    for (task, state, text) in [
        (
            script("true"),
            TaskState::Finished,
            "Command exited with status 0",
        ),
        (
            script("exit 3"),
            TaskState::Failed,
            "Command exited with status 3",
        ),
        (
            script("kill -9 $$"),
            TaskState::Failed,
            "Command terminated with signal Killed",
        ),
        (
            missing,
            TaskState::Failed,
            "cannot execute `/no/such/program`: No such file",
        ),
    ] {
        for way in [Way::Quic, Way::Unix] {
            let world = World::over(way);
            world.launch(task.clone());
            let last = world.update();
            let message = last.message.unwrap_or_default();
            assert_eq!(last.state, state, "{way:?}: {message}");
            assert!(message.starts_with(text), "{way:?}: {message}");
            assert_eq!(last.reason, None);
            world.end();
        }
    }
}

#[test]
fn the_task_has_the_executor_s_environment_without_its_key_and_its_own_session() {
    for way in [Way::Quic, Way::Unix] {
        let world = World::over(way);
        world.launch(script(
            "env; echo sid $$ $(cut -d' ' -f6 /proc/$$/stat); ls -l /proc/$$/fd",
        ));
        assert_eq!(world.update().state, TaskState::Finished);
        let out = world.file("stdout");
        for variable in ["MESOS_ALLOCATION_ROLE=eng\n", "MESOS_EXECUTOR_ID=t\n"] {
            assert!(out.contains(variable), "{way:?}: {out}");
        }
        let session = out
            .lines()
            .find_map(|line| line.strip_prefix("sid "))
            .unwrap();
        let (pid, session) = session.split_once(' ').unwrap();
        assert_eq!(pid, session);
        for secret in ["MESETA", "memfd", "socket:", "/run"] {
            assert!(!out.contains(secret), "{way:?}: {out}");
        }
        world.end();
    }
}

#[test]
fn a_task_that_ignores_the_request_to_end_is_killed_after_its_grace_period() {
    let world = World::new();
    let ready = world.pipe("ready");
    world.launch(script(
        "trap '' TERM; echo > ready; while :; do sleep 1; done",
    ));
    ready.recv_timeout(LONG).unwrap();
    let policy = KillPolicy {
        grace_period: Some(Duration::from_millis(50).into()),
    };
    world.say(Say::Kill("t".into(), Some(policy)));
    assert_eq!(world.update().state, TaskState::Killing);
    let last = world.update();
    assert_eq!(last.state, TaskState::Killed);
    assert_eq!(
        last.message.as_deref(),
        Some("Command terminated with signal Killed")
    );
    world.end();
}

#[test]
fn nothing_a_task_left_behind_lives_when_its_end_is_reported() {
    let world = World::new();
    // A daemon: own session, parent gone, deaf to SIGTERM and SIGHUP; and with a child of its own. The task ends
    // when the daemon has told who the two are.
    let told = world.pipe("told");
    world.launch(script(
        "mkfifo up; setsid sh -c 'trap \"\" TERM HUP; sleep 1000 & echo $$ $! > told; echo > up; wait' & cat up",
    ));
    let told = told.recv_timeout(LONG).unwrap();
    assert_eq!(world.update().state, TaskState::Finished);
    let pids: Vec<&str> = told.split_whitespace().collect();
    assert_eq!(pids.len(), 2);
    assert!(pids.iter().all(|pid| !lives(pid)), "{pids:?}");
    world.end();
}

#[test]
fn a_killed_executor_and_a_killed_agent_are_noticed_at_once_over_a_socket() {
    let mut world = World::over(Way::Unix);
    world.executor.kill().unwrap();
    world.executor.wait().unwrap();
    assert!(matches!(world.next(), Heard::Gone));
    world.node.shutdown();

    let mut world = World::over(Way::Unix);
    let told = world.pipe("told");
    world.launch(script("echo $$ > told; exec sleep 1000"));
    let task = told.recv_timeout(LONG).unwrap();
    world.node.shutdown();
    // It ends its task, and itself.
    world.executor.wait().unwrap();
    assert!(!lives(task.trim()));
}

#[test]
fn a_shutdown_asks_the_task_to_end_and_one_that_ran_too_long_is_ended() {
    let world = World::new();
    let ready = world.pipe("ready");
    world.launch(script(
        "trap 'exit 7' TERM; echo > ready; while :; do sleep 0.05; done",
    ));
    ready.recv_timeout(LONG).unwrap();
    world.say(Say::Shutdown);
    assert_eq!(world.update().state, TaskState::Killing);
    let last = world.update();
    assert_eq!(
        (last.state, last.message.as_deref()),
        (TaskState::Killed, Some("Command exited with status 7"))
    );
    world.end();
    let world = World::new();
    world.launch(TaskInfo {
        max_completion_time: Some(Duration::from_millis(300).into()),
        ..script("sleep 1000")
    });
    let last = world.update();
    assert_eq!(last.state, TaskState::Failed);
    assert_eq!(last.reason, Some(StatusReason::MaxCompletionTimeReached));
    world.end();
}
