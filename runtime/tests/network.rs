//! The network in memory does to frames what a test tells it, and nothing else: delay, loss, doubling, cuts, crashes,
//! restarts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use meseta_runtime::testing::Probe;
use meseta_runtime::transport::memory::{MemoryNetwork, SILENCE};
use meseta_runtime::{Address, Clock, ExitReason, Message, Node};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Number(u64);
impl Message for Number {
    const NAME: &'static str = "test.Number";
}

const MS: Duration = Duration::from_millis(1);

/// A node with one probe, which stands for all its actors.
struct Place {
    node: Node,
    probe: Probe,
}
impl Place {
    fn address(&self) -> &Address {
        self.node.address()
    }
    fn send(&self, to: &Self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.probe.send(to.probe.pid(), Number(number));
        }
    }
    fn heard(&self) -> Vec<u64> {
        let all = self.probe.all::<Number>();
        all.into_iter().map(|number| number.message.0).collect()
    }
    fn link(&self, to: &Self) {
        self.probe.link(to.probe.pid());
        self.node.clock().settle();
    }
    fn lost(&self, to: &Self) -> ExitReason {
        self.probe.expect_exited(to.probe.pid())
    }
}

struct World {
    clock: Clock,
    network: MemoryNetwork,
}
impl World {
    fn new(seed: u64) -> Self {
        Self {
            clock: Clock::paused(),
            network: MemoryNetwork::new(seed),
        }
    }
    fn at(&self, port: u16) -> Place {
        let builder = Node::builder().memory(&self.network).port(port);
        let node = builder.clock(self.clock.clone()).start().unwrap();
        let probe = node.testing().probe("probe").unwrap();
        Place { node, probe }
    }
    fn two(&self) -> (Place, Place) {
        (self.at(1), self.at(2))
    }
    fn end(&self, places: impl IntoIterator<Item = Place>) {
        for place in places {
            place.node.shutdown();
        }
        self.clock.settle();
    }
}

#[test]
fn messages_of_a_pair_stay_in_order_whatever_their_delays_and_a_seed_repeats_them() {
    let run = |seed| {
        let world = World::new(seed);
        let (one, two) = world.two();
        world.network.delay_between(10 * MS, 90 * MS);
        let mut arrivals = Vec::new();
        for number in 0..20 {
            one.send(&two, number..number + 1);
            world.clock.advance(5 * MS);
            arrivals.push(two.heard());
        }
        assert!(arrivals[0].is_empty(), "nothing takes less than 10 ms");
        world.clock.advance(90 * MS);
        arrivals.push(two.heard());
        assert_eq!(arrivals.concat(), (0..20).collect::<Vec<_>>());
        world.end([one, two]);
        arrivals
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn a_path_has_faults_of_its_own() {
    let world = World::new(1);
    let (one, two) = world.two();
    world.network.delay(10 * MS);
    let path = world.network.path(one.address(), two.address());
    path.lose(1.0);
    one.send(&two, 0..3);
    two.send(&one, 0..3);
    world.clock.advance(10 * MS);
    assert!(two.heard().is_empty());
    assert_eq!(one.heard(), [0, 1, 2]);
    path.lose(0.0);
    path.delay(30 * MS);
    one.send(&two, 3..4);
    world.clock.advance(29 * MS);
    assert!(two.heard().is_empty());
    world.clock.advance(MS);
    assert_eq!(two.heard(), [3]);
    path.clear();
    one.send(&two, 4..5);
    world.clock.advance(10 * MS);
    assert_eq!(two.heard(), [4]);
    world.end([one, two]);
}

#[test]
fn doubled_messages_come_twice_and_nothing_is_doubled_unless_told() {
    let world = World::new(1);
    let (one, two) = world.two();
    one.send(&two, 0..100);
    assert_eq!(two.heard().len(), 100);
    world.network.duplicate(1.0);
    one.send(&two, 0..2);
    assert_eq!(two.heard(), [0, 0, 1, 1]);
    world.network.duplicate(0.0);
    one.send(&two, 2..3);
    assert_eq!(two.heard(), [2]);
    world.end([one, two]);
}

#[test]
fn a_one_way_cut_lets_the_other_way_pass_until_both_ends_give_up() {
    let world = World::new(1);
    let (one, two) = world.two();
    one.link(&two);
    two.link(&one);
    world.network.cut_one_way(one.address(), two.address());
    one.send(&two, 0..1);
    two.send(&one, 7..8);
    world.clock.advance(SILENCE - MS);
    assert_eq!((one.heard(), two.heard()), (vec![7], vec![]));
    one.probe.expect_nothing();
    world.clock.advance(MS);
    assert_eq!(one.lost(&two), ExitReason::ConnectionLost);
    assert_eq!(two.lost(&one), ExitReason::ConnectionLost);
    world.network.heal(one.address(), two.address());
    one.send(&two, 1..2);
    assert_eq!(two.heard(), [1]);
    world.end([one, two]);
}

#[test]
fn each_cut_lasts_its_own_silence() {
    let world = World::new(1);
    let (one, two) = world.two();
    one.link(&two);
    world.network.cut(one.address(), two.address());
    world.clock.advance(SILENCE - MS);
    world.network.heal(one.address(), two.address());
    world.network.cut(one.address(), two.address());
    world.clock.advance(SILENCE - MS);
    one.probe.expect_nothing();
    world.clock.advance(MS);
    assert_eq!(one.lost(&two), ExitReason::ConnectionLost);
    world.end([one, two]);
}

#[test]
fn a_crashed_node_is_lost_after_the_silence() {
    let world = World::new(1);
    let (one, two) = world.two();
    one.link(&two);
    world.network.crash(two.address());
    two.send(&one, 0..1);
    one.send(&two, 0..1);
    world.clock.advance(SILENCE - MS);
    one.probe.expect_nothing();
    world.clock.advance(MS);
    assert_eq!(one.lost(&two), ExitReason::ConnectionLost);
    assert!(two.heard().is_empty());
    world.end([two, one]);
}

#[test]
fn another_run_at_an_address_is_told_as_a_restart_before_its_first_message() {
    let world = World::new(1);
    let (one, two) = world.two();
    one.link(&two);
    world.network.crash(two.address());
    let again = world.at(2);
    again.send(&one, 1..2);
    assert_eq!(one.lost(&two), ExitReason::NodeRestarted);
    assert_eq!(one.heard(), [1]);
    // The PID is the same, so messages to it reach the new run; what is left of the old one is of no effect.
    two.send(&one, 8..9);
    one.send(&two, 2..3);
    assert_eq!(
        (one.heard(), two.heard(), again.heard()),
        (vec![], vec![], vec![2])
    );
    two.node.shutdown();
    one.link(&again);
    one.send(&again, 3..4);
    assert_eq!(again.heard(), [3]);
    world.clock.advance(2 * SILENCE);
    one.probe.expect_nothing();
    // One that leaves in order is lost at once, and a later run is no news.
    again.node.shutdown();
    assert_eq!(one.lost(&again), ExitReason::Terminated);
    let third = world.at(2);
    third.send(&one, 4..5);
    assert_eq!(one.heard(), [4]);
    one.probe.expect_nothing();
    world.end([one, third]);
}

#[test]
fn a_link_sent_to_nobody_is_told_of_though_somebody_comes_meanwhile() {
    let world = World::new(1);
    let one = world.at(1);
    let missing = meseta_runtime::Pid::new("probe", Address::new("127.0.0.1", 2)).unwrap();
    one.probe.link(&missing);
    world.clock.advance(MS);
    let two = world.at(2);
    two.send(&one, 0..1);
    assert_eq!(one.heard(), [0]);
    let reason = one.probe.expect_exited_within(&missing, SILENCE);
    assert_eq!(reason, ExitReason::ConnectionLost);
    world.end([one, two]);
}
