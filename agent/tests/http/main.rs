//! What the agent shows over HTTP, asked for over a real socket.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod executors;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::{Sender, channel};

use meseta_agent::Config;
use meseta_agent::checkpoint::Storage;
use meseta_agent::checkpoint::memory::Memory;
use meseta_agent::config::Containment;
use meseta_agent::containerizer::process_tree;
use meseta_agent::containerizer::{Launch, Sweep};
use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::messages::Led;
use meseta_protocol::messages::agent::{AgentRegistered, RegisterAgent, RunTask};
use meseta_protocol::task::TaskInfo;
use meseta_runtime::identity::{CertificateAuthority, Identity};
use meseta_runtime::{Context, Credentials, Node, NodeBuilder, Pid, Process, Receive, Routes};
use serde_json::{Value, json};

/// A master that takes the agent in and gives it one task.
struct Master;
impl Process for Master {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<RegisterAgent>();
    }
}
impl Receive<RegisterAgent> for Master {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, _: RegisterAgent) {
        let message = AgentRegistered {
            agent_id: "S0".into(),
            ..AgentRegistered::default()
        };
        cx.send(
            from,
            Led {
                leader_epoch: 1,
                message,
            },
        );
        let resources = "cpus:1;mem:64".parse().unwrap();
        let message = RunTask {
            framework_id: "f".into(),
            framework: FrameworkInfo::new("", "shown"),
            task: TaskInfo::new("t", "S0", resources, "sleep 1"),
            ..RunTask::default()
        };
        cx.send(
            from,
            Led {
                leader_epoch: 1,
                message,
            },
        );
    }
}

/// Makes the sandbox, writes to it, and says where it is.
fn pretend(launch: &Launch, told: &Sender<String>) {
    let sandbox = &launch.plan.working_directory;
    std::fs::create_dir_all(sandbox).unwrap();
    std::fs::write(&launch.plan.stdout, "hello world").unwrap();
    told.send(sandbox.clone()).unwrap();
}

fn get(node: &Node, path: &str) -> (u16, Value) {
    get_by_name(node, "127.0.0.1", path)
}

/// Asks by this name of the machine.
fn get_by_name(node: &Node, host: &str, path: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(("127.0.0.1", node.address().port)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (
        status,
        serde_json::from_str(body).unwrap_or(Value::from(body)),
    )
}

/// A node on loopback that may be an agent's.
fn builder() -> NodeBuilder {
    let authority = CertificateAuthority::create("test").unwrap();
    let identity = Identity::issue(&authority, &["127.0.0.1".to_owned()], &["agent"]).unwrap();
    Node::builder().credentials(Credentials::Given(Box::new(identity)))
}

/// What every launch starts.
const FIRST: process_tree::Identity = process_tree::Identity {
    process: 4711,
    started: 12,
};

fn agent() -> (Node, String, tempfile::TempDir) {
    let (told, launched) = channel();
    let node = Storage::Memory(Memory::default())
        .serve(builder())
        .op(move |launch: Launch| {
            pretend(&launch, &told);
            async move { Ok(FIRST) }
        })
        .op(|_: Sweep| async move { Ok(()) })
        .start()
        .unwrap();
    let master = node.spawn("master", || Master).unwrap();
    let work_dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(master, work_dir.path());
    config.containment = Containment::Walk;
    config.resources = "cpus:4;mem:1024;ports:[1-2]".parse().unwrap();
    config.registration_backoff_factor = std::time::Duration::from_millis(1);
    config.flags = [("master".to_owned(), "here".to_owned())].into();
    meseta_agent::start(&node, config).unwrap();
    let sandbox = launched.recv().unwrap();
    (node, sandbox, work_dir)
}

#[test]
fn shows_its_state_with_and_without_its_name() {
    let (node, sandbox, _work_dir) = agent();
    let (status, state) = get(&node, "/state");
    assert_eq!((status, &state["id"]), (200, &json!("S0")));
    assert_eq!(get(&node, "/slave(1)/state").1["pid"], state["pid"]);
    assert_eq!(
        state["resources"],
        json!({"cpus": 4.0, "mem": 1024.0, "disk": 0.0, "gpus": 0.0, "ports": "[1-2]"})
    );
    let executor = &state["frameworks"][0]["executors"][0];
    assert_eq!(executor["directory"], json!(sandbox));
    assert_eq!(executor["queued_tasks"][0]["task_id"], "t");
    assert_eq!(state["unreserved_resources_allocated"]["cpus"], 1.1);
    assert_eq!(get(&node, "/flags").1, json!({"flags": {"master": "here"}}));
    let containers = get(&node, "/containers").1;
    assert_eq!(
        (
            &containers[0]["executor_id"],
            &containers[0]["container_id"]
        ),
        (&json!("t"), &executor["container"])
    );
    node.shutdown();
}

#[test]
fn shows_files_of_sandboxes_under_each_of_their_names() {
    let (node, sandbox, _work_dir) = agent();
    let latest = std::path::Path::new(&sandbox)
        .with_file_name("latest")
        .display()
        .to_string();
    for name in [&*sandbox, &latest, "/frameworks/f/executors/t/runs/latest"] {
        let (status, listed) = get(&node, &format!("/files/browse?path={name}"));
        assert_eq!(
            (status, &listed[0]["path"]),
            (200, &json!(format!("{name}/stdout")))
        );
        let (_, read) = get(
            &node,
            &format!("/files/read?path={name}/stdout&offset=6&length=3"),
        );
        assert_eq!(read, json!({"data": "wor", "offset": 6, "size": 3}));
    }
    for (path, status) in [
        ("/files/read", 400),
        ("/files/read?path=/etc/passwd", 404),
        (
            &*format!("/files/read?path={sandbox}/../../x&offset=0"),
            400,
        ),
        (&*format!("/files/read?path={sandbox}/stdout&offset=x"), 400),
        (&*format!("/files/read?path={sandbox}/none"), 404),
    ] {
        assert_eq!(get(&node, path).0, status, "{path}");
    }
    node.shutdown();
}

#[test]
fn shows_no_files_to_pages_that_call_this_machine_by_another_name() {
    let (node, sandbox, _work_dir) = agent();
    for verb in ["read", "browse", "download", "debug"] {
        let path = format!("/files/{verb}?path={sandbox}");
        assert_eq!(
            get_by_name(&node, "rebound.example", &path).0,
            403,
            "{verb}"
        );
    }
    node.shutdown();
}
