//! The replicated log on three nodes, over the in-memory network and a paused clock: what is acknowledged stays, and a
//! coordinator that has lost its quorum acknowledges nothing.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use meseta_master::log::action::{Position, Proposal};
use meseta_master::log::asks::{
    Append, Demoted, Elect, Election, LogRead, ReadLog, Truncate, Writing,
};
use meseta_master::log::members::Incarnation;
use meseta_master::log::messages::{
    ChosenMessage, PromiseRequest, Span, Status, StatusRequest, WriteRequest,
};
use meseta_master::log::replica::core::Stored;
use meseta_master::log::storage::memory::Memory;
use meseta_master::log::storage::ops::{Load, Storage};
use meseta_master::log::{LogConfig, LogPids};
use meseta_runtime::testing::{ANY, Probe};
use meseta_runtime::transport::memory::MemoryNetwork;
use meseta_runtime::{Address, Clock, ExitReason, Node};

/// More than any retry of the log takes, one after another.
const LONG: Duration = Duration::from_secs(20);

struct Member {
    node: Node,
    user: Probe,
    log: LogPids,
}

struct World {
    clock: Clock,
    network: MemoryNetwork,
    addresses: Vec<Address>,
    disks: Vec<Memory>,
    members: Vec<Option<Member>>,
}

impl World {
    /// Members that have just begun a log together.
    fn new(count: usize) -> Self {
        let mut world = Self::off(count);
        for member in 0..count {
            world.start(member);
        }
        world.clock.advance(LONG);
        world
    }

    /// Members that do not run yet.
    fn off(count: usize) -> Self {
        let addresses =
            (0..count).map(|n| Address::new("127.0.0.1", 6001 + u16::try_from(n).unwrap()));
        Self {
            clock: Clock::paused(),
            network: MemoryNetwork::new(1),
            addresses: addresses.collect(),
            disks: (0..count).map(|_| Memory::default()).collect(),
            members: (0..count).map(|_| None).collect(),
        }
    }

    fn start(&mut self, number: usize) {
        let builder = Node::builder()
            .memory(&self.network)
            .clock(self.clock.clone())
            .role("master")
            .port(self.addresses[number].port)
            .seed(number as u64 + 1);
        let storage = Storage::from(self.disks[number].clone());
        let node = storage.serve(builder).start().unwrap();
        let config = LogConfig {
            replicas: self.addresses.clone(),
            auto_initialize: true,
            directory: PathBuf::from("memory"),
        };
        let log = meseta_master::log::start(&node, config).unwrap();
        let user = node.testing().probe("user").unwrap();
        self.members[number] = Some(Member { node, user, log });
        self.clock.settle();
    }

    fn crash(&mut self, number: usize) {
        let member = self.members[number].take().unwrap();
        self.network.crash(member.node.address());
        member.node.shutdown();
        self.clock.settle();
    }

    fn at(&self, number: usize) -> &Member {
        self.members[number].as_ref().unwrap()
    }

    /// Tries until elected; the position at which the log was found to end.
    fn elect(&self, number: usize) -> Position {
        for _ in 0..20 {
            let member = self.at(number);
            let asked = member.user.ask(&member.log.coordinator, Elect {});
            self.clock.advance(LONG);
            if let Election::Elected { ending, .. } = asked.wait() {
                return ending;
            }
        }
        panic!("member {number} is never elected");
    }

    fn append(&self, number: usize, text: &str) -> Writing {
        let member = self.at(number);
        let asked = member.user.ask(&member.log.coordinator, append(text));
        self.clock.advance(Duration::from_secs(3));
        asked.wait()
    }

    /// Appends and must be told where.
    fn write(&self, number: usize, text: &str) -> Position {
        let outcome = self.append(number, text);
        let Writing::Written { position } = outcome else {
            panic!("{text} is not written: {outcome:?}");
        };
        position
    }

    fn read(&self, number: usize, from: u64, to: u64) -> LogRead {
        let member = self.at(number);
        let (from, to) = (Position(from), Position(to));
        let span = Span { from, to };
        let asked = member.user.ask(&member.log.replica, ReadLog { span });
        self.clock.settle();
        asked.wait()
    }

    /// Entries of a range, as text.
    fn texts(&self, number: usize, from: u64, to: u64) -> Vec<String> {
        match self.read(number, from, to) {
            LogRead::Entries { entries, next } => {
                assert_eq!(next, None);
                let text = |(_, bytes): (_, Bytes)| String::from_utf8(bytes.to_vec()).unwrap();
                entries.into_iter().map(text).collect()
            }
            LogRead::Unreadable { reason } => panic!("unreadable: {reason}"),
        }
    }

    fn metric(&self, number: usize, name: &str) -> f64 {
        self.at(number).node.metrics().value(name).unwrap()
    }

    fn votes(&self, number: usize) -> bool {
        (self.metric(number, "registrar/log/recovered") - 1.0).abs() < 0.5
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for member in self.members.iter().flatten() {
            member.node.shutdown();
        }
    }
}

fn append(text: &str) -> Append {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    Append { bytes }
}

#[test]
fn three_empty_members_begin_a_log_by_themselves() {
    let world = World::new(3);
    for member in 0..3 {
        assert!(world.votes(member));
        let size = world.metric(member, "registrar/log/ensemble_size");
        assert!((size - 3.0).abs() < 0.5);
    }
    assert_eq!(world.elect(0), Position(0));
    assert_eq!(world.write(0, "first"), Position(1));
}

#[test]
fn two_of_three_empty_members_do_not_begin_a_log() {
    let mut world = World::off(3);
    world.start(0);
    world.start(1);
    world.clock.advance(LONG);
    assert!(!world.votes(0) && !world.votes(1));
    world.start(2);
    world.clock.advance(LONG);
    assert!((0..3).all(|member| world.votes(member)));
}

#[test]
fn a_single_member_keeps_its_log_over_a_restart() {
    let mut world = World::new(1);
    world.elect(0);
    world.write(0, "a");
    world.write(0, "b");
    world.crash(0);
    world.start(0);
    assert_eq!(world.elect(0), Position(2));
    assert_eq!(world.texts(0, 1, 2), ["a", "b"]);
}

#[test]
fn an_acknowledged_append_survives_the_loss_of_any_one_member() {
    for lost in 0..3 {
        let mut world = World::new(3);
        world.elect(0);
        world.write(0, "a");
        world.write(0, "b");
        world.crash(lost);
        let next = (lost + 1) % 3;
        if lost == 0 {
            assert_eq!(world.elect(next), Position(2));
            assert_eq!(world.write(next, "c"), Position(3));
            assert_eq!(world.texts(next, 1, 3), ["a", "b", "c"]);
        } else {
            assert_eq!(world.write(0, "c"), Position(3));
            assert_eq!(world.texts(0, 1, 3), ["a", "b", "c"]);
        }
    }
}

#[test]
fn a_coordinator_without_a_quorum_is_never_acknowledged() {
    let world = World::new(3);
    world.elect(0);
    world.write(0, "a");
    for other in 1..3 {
        world
            .network
            .cut(&world.addresses[0], &world.addresses[other]);
    }
    let old = world.at(0);
    let pending = old.user.ask(&old.log.coordinator, append("lost"));
    world.clock.advance(LONG);
    assert_eq!(world.elect(1), Position(1));
    assert_eq!(world.write(1, "b"), Position(2));
    for other in 1..3 {
        world
            .network
            .heal(&world.addresses[0], &world.addresses[other]);
    }
    // Told of the higher proposal, it gives up, whatever becomes of the entry.
    world.clock.advance(LONG);
    assert_eq!(pending.wait(), Writing::Demoted);
    old.user.expect::<Demoted>();
    assert!(matches!(world.append(0, "late"), Writing::Refused { .. }));
    assert_eq!(world.texts(1, 1, 2), ["a", "b"]);
    assert_eq!(world.elect(0), Position(2));
    assert_eq!(world.texts(0, 1, 2), ["a", "b"]);
}

#[test]
fn a_wiped_member_comes_back_with_the_log_and_votes() {
    let mut world = World::new(3);
    world.elect(0);
    for number in 1..=20 {
        world.write(0, &number.to_string());
    }
    world.crash(2);
    world.disks[2] = Memory::default();
    world.start(2);
    world.clock.advance(LONG);
    assert!(world.votes(2));
    world.crash(1);
    // Now its vote is needed.
    assert_eq!(world.write(0, "more"), Position(21));
    world.clock.advance(LONG);
    assert_eq!(world.texts(2, 1, 21).len(), 21);
}

#[test]
fn a_member_that_was_away_gets_what_it_has_missed_though_nobody_writes_any_more() {
    let mut world = World::new(3);
    world.elect(0);
    world.write(0, "a");
    world.crash(2);
    world.write(0, "b");
    world.write(0, "c");
    world.start(2);
    world.clock.advance(LONG);
    assert_eq!(world.texts(2, 1, 3), ["a", "b", "c"]);
}

#[test]
fn an_election_that_misses_something_does_not_wait_for_a_member_that_is_down() {
    let mut world = World::new(3);
    world.elect(0);
    // Neither of the others hears that this is chosen.
    let deaf = [1, 2].map(|member| {
        let testing = world.at(member).node.testing();
        testing.on::<ChosenMessage>(ANY, ANY).drop_all()
    });
    world.write(0, "a");
    world.crash(0);
    drop(deaf);
    let member = world.at(2);
    let asked = member.user.ask(&member.log.coordinator, Elect {});
    world.clock.advance(Duration::from_secs(1));
    assert!(matches!(asked.wait(), Election::Elected { .. }));
    assert_eq!(world.texts(2, 1, 1), ["a"]);
}

#[test]
fn a_damaged_store_recovers_from_the_others() {
    let mut world = World::new(3);
    world.elect(0);
    for number in 1..=5 {
        world.write(0, &number.to_string());
    }
    world.crash(2);
    let name = world.disks[2].disk(|disk| disk.names().last().unwrap().to_owned());
    world.disks[2].disk(|disk| {
        let mut bad = disk.read(&name).unwrap().to_vec();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        disk.write(&name, &bad).unwrap();
    });
    world.start(2);
    world.clock.advance(LONG);
    assert!(world.votes(2));
    // It is another life than the one that wrote what is damaged.
    let member = world.at(2);
    let status = StatusRequest { ask: 1, span: None };
    let asked = member.user.ask(&member.log.replica, status);
    world.clock.settle();
    assert_eq!(asked.wait().life.incarnation, Incarnation(2));
    world.crash(1);
    assert_eq!(world.write(0, "more"), Position(6));
}

#[test]
fn a_single_damaged_member_ends_with_a_way_out() {
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    let wait = Mutex::new(Some(wait));
    let builder = Node::builder()
        .memory(&MemoryNetwork::new(1))
        .clock(Clock::paused())
        .role("master");
    let node = builder
        .op(move |_: Load| {
            let wait = wait.lock().unwrap().take();
            async move {
                wait.unwrap().await.unwrap();
                Ok(Stored {
                    damaged: true,
                    ..Stored::default()
                })
            }
        })
        .start()
        .unwrap();
    let user = node.testing().probe("user").unwrap();
    let config = LogConfig {
        replicas: vec![node.address().clone()],
        auto_initialize: true,
        directory: PathBuf::from("/var/lib/meseta/log"),
    };
    let log = meseta_master::log::start(&node, config).unwrap();
    user.link(&log.replica);
    go.send(()).unwrap();
    let ExitReason::Failed(why) = user.expect_exited(&log.replica) else {
        panic!("it ends for another reason");
    };
    assert!(
        why.contains("/var/lib/meseta/log") && why.contains("saved copy"),
        "{why}"
    );
    node.shutdown();
}

#[test]
fn all_members_start_again_with_what_was_acknowledged() {
    let mut world = World::new(3);
    world.elect(2);
    world.write(2, "a");
    world.write(2, "b");
    for member in 0..3 {
        world.crash(member);
    }
    for member in 0..3 {
        world.start(member);
        assert!(world.votes(member));
    }
    assert_eq!(world.elect(1), Position(2));
    assert_eq!(world.texts(1, 1, 2), ["a", "b"]);
}

#[test]
fn a_hole_that_a_coordinator_left_is_filled_by_the_next() {
    let mut world = World::new(3);
    world.elect(0);
    world.write(0, "a");
    let drop_second = |member: usize| {
        let testing = world.at(member).node.testing();
        testing
            .on::<WriteRequest>(ANY, ANY)
            .when(|write| write.position == Position(2))
            .drop_all()
    };
    let dropped = [drop_second(1), drop_second(2)];
    let leader = world.at(0);
    let second = leader.user.ask(&leader.log.coordinator, append("hole"));
    let third = leader.user.ask(&leader.log.coordinator, append("behind"));
    world.clock.advance(Duration::from_millis(500));
    drop((second, third));
    assert!(
        dropped
            .iter()
            .all(|dropping| !dropping.dropped().is_empty())
    );
    world.crash(0);
    drop(dropped);
    assert_eq!(world.elect(1), Position(3));
    assert_eq!(world.texts(1, 1, 3), ["a", "behind"]);
    assert_eq!(world.write(1, "next"), Position(4));
}

#[test]
fn racing_coordinators_end_with_one_that_writes() {
    let world = World::new(3);
    let (one, other) = (world.at(0), world.at(1));
    let first = one.user.ask(&one.log.coordinator, Elect {});
    let second = other.user.ask(&other.log.coordinator, Elect {});
    world.clock.advance(LONG);
    drop((first, second));
    let writes = [world.append(0, "0"), world.append(1, "1")];
    let written = writes
        .iter()
        .filter(|outcome| matches!(outcome, Writing::Written { .. }));
    assert!(written.count() <= 1, "{writes:?}");
    world.elect(2);
    world.write(2, "2");
    assert!(!matches!(world.append(0, "late"), Writing::Written { .. }));
}

#[test]
fn what_is_truncated_is_gone_and_the_rest_is_not() {
    let world = World::new(3);
    world.elect(0);
    for number in 1..=5 {
        world.write(0, &number.to_string());
    }
    let member = world.at(0);
    let to = Position(4);
    let asked = member.user.ask(&member.log.coordinator, Truncate { to });
    world.clock.advance(LONG);
    assert_eq!(
        asked.wait(),
        Writing::Written {
            position: Position(6)
        }
    );
    for number in 0..3 {
        assert_eq!(world.texts(number, 4, 6), ["4", "5"]);
        assert!(matches!(
            world.read(number, 3, 6),
            LogRead::Unreadable { .. }
        ));
    }
    let far = Position(99);
    let asked = member
        .user
        .ask(&member.log.coordinator, Truncate { to: far });
    world.clock.settle();
    assert!(matches!(asked.wait(), Writing::Refused { .. }));
}

#[test]
fn a_reader_is_told_what_cannot_be_read_yet() {
    let world = World::new(3);
    world.elect(0);
    world.write(0, "a");
    let LogRead::Unreadable { reason } = world.read(0, 1, 9) else {
        panic!("reads beyond the end");
    };
    assert!(reason.contains("ends at 1"), "{reason}");
}

#[test]
fn many_appends_share_their_commits() {
    let world = World::new(3);
    world.elect(0);
    let before = world.metric(0, "log/commits");
    let leader = world.at(0);
    let asked: Vec<_> = (0..100)
        .map(|number| {
            leader
                .user
                .ask(&leader.log.coordinator, append(&number.to_string()))
        })
        .collect();
    world.clock.advance(LONG);
    for answer in asked {
        assert!(matches!(answer.wait(), Writing::Written { .. }));
    }
    assert!((world.metric(0, "log/appends") - 100.0).abs() < 0.5);
    let commits = world.metric(0, "log/commits") - before;
    assert!(commits < 100.0, "{commits} commits");
    assert_eq!(world.texts(0, 1, 100).len(), 100);
}

#[test]
fn a_member_whose_disk_fails_acknowledges_nothing_and_ends() {
    let world = World::new(3);
    world.elect(0);
    world.write(0, "a");
    for member in 1..3 {
        world.disks[member].disk(|disk| disk.fail_syncs(1));
    }
    let leader = world.at(0);
    let pending = leader.user.ask(&leader.log.coordinator, append("b"));
    world.clock.advance(LONG);
    drop(pending);
    assert!((world.metric(0, "log/appends") - 1.0).abs() < 0.5);
    for member in 1..3 {
        let processes = world.at(member).node.processes();
        let ids: Vec<String> = processes
            .iter()
            .map(|process| process.pid.clone())
            .collect();
        assert!(!ids.iter().any(|id| id.starts_with("log-")), "{ids:?}");
    }
}

#[test]
fn words_of_nodes_that_are_no_members_change_nothing() {
    let world = World::new(3);
    world.elect(0);
    let builder = Node::builder()
        .memory(&world.network)
        .clock(world.clock.clone());
    let stranger = builder.role("master").start().unwrap();
    let voice = stranger.testing().probe("voice").unwrap();
    for member in 0..3 {
        let request = PromiseRequest {
            ask: 1,
            proposal: Proposal(1000),
            position: None,
        };
        voice.send(&world.at(member).log.replica, request);
    }
    world.clock.advance(LONG);
    assert_eq!(world.write(0, "a"), Position(1));
    // Looking is allowed.
    let status = StatusRequest { ask: 7, span: None };
    let asked = voice.ask(&world.at(0).log.replica, status);
    world.clock.settle();
    let status = asked.wait();
    assert_eq!(
        (status.ask, status.status, status.end),
        (7, Status::Voting, Position(1))
    );
    stranger.shutdown();
}

#[test]
fn leading_ends_with_the_process_that_led() {
    let world = World::new(3);
    world.elect(0);
    world.at(0).user.end(ExitReason::Normal);
    world.clock.advance(LONG);
    let next = world.at(0).node.testing().probe("next").unwrap();
    let coordinator = world.at(0).log.coordinator.clone();
    let refused = next.ask(&coordinator, append("a"));
    world.clock.settle();
    assert!(matches!(refused.wait(), Writing::Refused { .. }));
    let elected = next.ask(&coordinator, Elect {});
    world.clock.advance(LONG);
    assert!(matches!(elected.wait(), Election::Elected { .. }));
}
