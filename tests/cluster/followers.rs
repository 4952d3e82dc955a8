//! What a master that does not lead answers over HTTP.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use meseta_master::Master;
use meseta_master::election::messages::{Contend, Recovered};
use meseta_protocol::agent::MasterInfo;
use meseta_protocol::messages::election::{Detect, ELECTION, Leader};
use meseta_runtime::{Context, Node, Pid, Process, Receive, Routes};

/// An election that has been decided, for nobody or for another master.
struct Decided(Leader);

impl Process for Decided {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Contend>().on::<Recovered>().on::<Detect>();
    }
}

impl Receive<Contend> for Decided {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, _: Contend) {}
}

impl Receive<Recovered> for Decided {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, _: Recovered) {}
}

impl Receive<Detect> for Decided {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, _: Detect) {
        cx.send(from, self.0.clone());
    }
}

/// Status and `Location` of the answer.
fn get(node: &Node, path: &str) -> (u16, Option<String>) {
    let mut stream = TcpStream::connect(("127.0.0.1", node.address().port)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: master\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let location = answer
        .lines()
        .take_while(|line| !line.is_empty())
        .find_map(|line| line.strip_prefix("Location: "));
    (status, location.map(str::to_owned))
}

fn follower(leader: Leader) -> Node {
    let node = Node::builder().role("master").start().unwrap();
    node.spawn(ELECTION, move || Decided(leader)).unwrap();
    let config = meseta_master::Config::new(0, "this-one");
    node.spawn("master", move || Master::contending(config))
        .unwrap();
    node.delegate("master");
    node
}

#[test]
fn sends_to_the_leader_with_path_and_query() {
    let info = MasterInfo {
        hostname: Some("leader.example".into()),
        port: 5055,
        ..MasterInfo::default()
    };
    let node = follower(Leader {
        epoch: 7,
        leader: Some("master@10.0.0.2:5055".parse().unwrap()),
        info: Some(info),
    });
    // Requests may overtake the news of who leads.
    meseta_tests::wait_for("the leader's address", || {
        (get(&node, "/redirect").0 == 307).then_some(())
    });
    let there = |path: &str| (307, Some(format!("//leader.example:5055{path}")));
    for path in [
        "/state",
        "/master/state?jsonp=f",
        "/tasks?limit=1&order=asc",
        "/slaves",
        "/frameworks",
    ] {
        assert_eq!(get(&node, path), there(path), "{path}");
    }
    assert_eq!(get(&node, "/redirect"), there(""));
    assert_eq!(get(&node, "/master/redirect"), there(""));
    for path in [
        "/health",
        "/master/health",
        "/version",
        "/metrics/snapshot",
        "/flags",
    ] {
        assert_eq!(get(&node, path), (200, None), "{path}");
    }
    node.shutdown();
}

#[test]
fn says_so_when_nobody_leads() {
    let node = follower(Leader::default());
    for path in ["/state", "/tasks", "/redirect"] {
        assert_eq!(get(&node, path), (503, None), "{path}");
    }
    assert_eq!(get(&node, "/health"), (200, None));
    node.shutdown();
}

#[test]
fn a_master_on_its_own_sends_to_itself() {
    let node = Node::builder().role("master").start().unwrap();
    let config = meseta_master::Config::new(1, "127.0.0.1");
    meseta_master::start(&node, config).unwrap();
    let here = format!("//127.0.0.1:{}", node.address().port);
    assert_eq!(get(&node, "/redirect"), (307, Some(here)));
    assert_eq!(get(&node, "/state"), (200, None));
    assert_eq!(get(&node, "/election(1)/state"), (200, None));
    node.shutdown();
}
