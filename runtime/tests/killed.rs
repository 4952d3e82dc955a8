//! A process that is killed without a chance to say so, as its peers see it. The other process is this program again.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use meseta_runtime::identity::{CertificateAuthority, Identity};
use meseta_runtime::{
    Context, Credentials, ExitReason, Message, Node, Pid, Process, Receive, Routes,
};
use serde::{Deserialize, Serialize};

/// Tells the program that it is the other process; the folder with its certificate.
const OTHER: &str = "MESETA_TEST_OTHER_PROCESS";
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Serialize, Deserialize)]
struct Echo;
impl Message for Echo {
    const NAME: &'static str = "test.Echo";
}

/// Sends back what it gets.
struct Mirror;
impl Process for Mirror {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Echo>();
    }
}
impl Receive<Echo> for Mirror {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, echo: Echo) {
        cx.send(from, echo);
    }
}

/// Links to a process and tells of the first answer and of the end.
struct Watcher {
    of: Pid,
    told: mpsc::Sender<Option<ExitReason>>,
}
impl Process for Watcher {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Echo>();
    }
    fn start(&mut self, cx: &mut Context<'_, Self>) {
        cx.link(&self.of);
        cx.send(&self.of, Echo);
    }
    fn exited(&mut self, _: &mut Context<'_, Self>, _: &Pid, reason: ExitReason) {
        self.told.send(Some(reason)).unwrap();
    }
}
impl Receive<Echo> for Watcher {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, _: Echo) {
        self.told.send(None).unwrap();
    }
}

fn node(folder: &std::path::Path) -> Node {
    let credentials = Credentials::Files {
        ca: folder.join("ca.pem"),
        certificate: folder.join("node.pem"),
        key: folder.join("node-key.pem"),
    };
    Node::builder().credentials(credentials).start().unwrap()
}

/// Not a test of its own: what the other process runs, until it is killed or its input ends.
#[test]
fn the_other_process() {
    let Some(folder) = std::env::var_os(OTHER) else {
        return;
    };
    let node = node(folder.as_ref());
    let mirror = node.spawn("mirror", || Mirror).unwrap();
    println!("\npid {mirror}");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

/// Ends the other process with the test.
struct Other(Child, Pid);

impl Other {
    fn start(folder: &std::path::Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_other_process", "--nocapture"])
            .env(OTHER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let pid = output
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("pid ").map(str::to_owned))
            .expect("it prints its PID");
        Self(child, pid.parse().unwrap())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        if self.0.kill().is_ok() {
            self.0.wait().unwrap();
        }
    }
}

#[test]
fn a_killed_process_is_noticed_long_before_it_is_silent_for_too_long() {
    let folder = tempfile::tempdir().unwrap();
    let authority = CertificateAuthority::create("test").unwrap();
    let hosts = ["127.0.0.1".to_owned()];
    let mut folders = Vec::new();
    for side in ["one", "other"] {
        let path = folder.path().join(side);
        let identity = Identity::issue(&authority, &hosts, &["node"]).unwrap();
        identity.save(&path).unwrap();
        folders.push(path);
    }
    let node = node(&folders[0]);
    let mut other = Other::start(&folders[1]);
    let (told, ears) = mpsc::channel();
    let of = other.1.clone();
    node.spawn("watcher", move || Watcher { of, told }).unwrap();
    assert_eq!(ears.recv_timeout(LIMIT).unwrap(), None, "the answer came");
    other.0.kill().unwrap();
    let end = ears.recv_timeout(LIMIT).unwrap();
    assert_eq!(end, Some(ExitReason::ConnectionLost));
    // Not by the clock: silence would have been told without the probe.
    let found = node.metrics().value("runtime/peers_found_dead");
    assert_eq!(found, Some(1.0));
    node.shutdown();
}
