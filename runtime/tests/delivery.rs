//! What `docs/delivery.md` promises of messages, asks and links, and what it says is not promised; beside the tests
//! of the single parts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use meseta_runtime::testing::Probe;
use meseta_runtime::transport::memory::{MemoryNetwork, SILENCE};
use meseta_runtime::{
    Ask, AskError, Clock, Context, ExitReason, Message, Node, Pid, Process, Receive, Routes,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Number {
    number: u64,
}
impl Message for Number {
    const NAME: &'static str = "test.Number";
}
impl Ask for Number {
    type Reply = Square;
}
/// What a careless other version might send under the same name.
#[derive(Serialize, Deserialize)]
struct BadNumber {
    number: String,
}
impl Message for BadNumber {
    const NAME: &'static str = "test.Number";
}
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Square {
    square: u64,
}
impl Message for Square {
    const NAME: &'static str = "test.Square";
}
#[derive(Serialize, Deserialize)]
struct Unheard {}
impl Message for Unheard {
    const NAME: &'static str = "test.Unheard";
}

/// Squares numbers.
struct Squarer;
impl Process for Squarer {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Number>();
    }
}
impl Receive<Number> for Squarer {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, message: Number) {
        let square = message.number * message.number;
        cx.reply(Square { square });
    }
}

const MS: Duration = Duration::from_millis(1);

struct World {
    clock: Clock,
    network: MemoryNetwork,
    here: Node,
    there: Node,
    me: Probe,
}
impl World {
    fn new() -> Self {
        let (clock, network) = (Clock::paused(), MemoryNetwork::new(3));
        let node = || {
            let builder = Node::builder().memory(&network).clock(clock.clone());
            builder.mailbox(4).start().unwrap()
        };
        let (here, there) = (node(), node());
        let me = here.testing().probe("me").unwrap();
        Self {
            clock,
            network,
            here,
            there,
            me,
        }
    }
    fn probe(&self, id: &str) -> Probe {
        self.there.testing().probe(id).unwrap()
    }
    fn squarer(&self) -> Pid {
        self.there.spawn("squarer", || Squarer).unwrap()
    }
    fn send(&self, to: &Probe, number: u64) {
        self.me.send(to.pid(), Number { number });
    }
    fn tear(&self) {
        self.network
            .disconnect(self.here.address(), self.there.address());
    }
}
impl Drop for World {
    fn drop(&mut self) {
        self.here.shutdown();
        self.there.shutdown();
    }
}

fn numbers(probe: &Probe) -> Vec<u64> {
    let all = probe.all::<Number>();
    all.into_iter()
        .map(|number| number.message.number)
        .collect()
}

#[test]
fn a_message_is_handled_once_or_never_and_a_break_takes_all_that_is_under_way() {
    let world = World::new();
    let other = world.probe("other");
    world.network.delay(10 * MS);
    for number in 0..3 {
        world.send(&other, number);
        world.clock.advance(4 * MS);
    }
    // The first has arrived; the others are under way when the connection breaks.
    world.tear();
    world.send(&other, 3);
    world.clock.advance(SILENCE);
    assert_eq!(
        numbers(&other),
        [0, 3],
        "nothing comes again, and a gap tells nothing"
    );
    assert_eq!(
        world.me.everything(),
        [],
        "the sender of a plain message is told nothing"
    );
}

#[test]
fn a_plain_message_to_nobody_is_dropped_and_only_counted() {
    let world = World::new();
    let nobody = world.there.pid("nobody").unwrap();
    world.me.send(&nobody, Number { number: 1 });
    world.clock.advance(SILENCE);
    assert_eq!(world.me.everything(), []);
    let dropped = world.there.metrics();
    let dropped = dropped.value("runtime/messages_dropped/no_process");
    assert_eq!(dropped, Some(1.0));
}

#[test]
fn only_the_process_that_was_asked_can_answer_and_only_once() {
    let world = World::new();
    let (asked, other) = (world.probe("asked"), world.probe("other"));
    let limit = Duration::from_secs(9);
    let answer = world.here.ask(asked.pid(), Number { number: 3 }, limit);
    let question = asked.expect_asked::<Number>();
    other.answer(&question, Square { square: 0 });
    world.clock.settle();
    asked.answer(&question, Square { square: 9 });
    asked.answer(&question, Square { square: 10 });
    world.clock.settle();
    assert_eq!(answer.wait(), Ok(Square { square: 9 }));
}

#[test]
fn after_a_time_out_the_request_may_have_been_handled_and_its_answer_is_dropped() {
    let world = World::new();
    let squarer = world.squarer();
    let handled = world.there.testing().expect::<Number>("node", &squarer);
    world.network.delay(600 * MS);
    let limit = Duration::from_secs(1);
    let answer = world.here.ask(&squarer, Number { number: 3 }, limit);
    world.clock.advance(2 * limit);
    assert_eq!(answer.wait(), Err(AskError::TimedOut));
    assert_eq!(handled.wait().message.number, 3);
}

#[test]
fn after_an_unlink_nothing_is_told() {
    let world = World::new();
    let (far, near) = (
        world.probe("far"),
        world.here.testing().probe("near").unwrap(),
    );
    for other in [&far, &near] {
        world.me.link(other.pid());
        world.clock.settle();
        world.me.unlink(other.pid());
        world.clock.settle();
        other.end(ExitReason::Normal);
    }
    world.tear();
    world.clock.advance(SILENCE);
    world.me.expect_nothing();
}

#[test]
fn a_process_whose_connection_was_lost_may_live_on_and_be_linked_to_again() {
    let world = World::new();
    let other = world.probe("other");
    world.me.link(other.pid());
    world.clock.settle();
    world.tear();
    assert_eq!(
        world.me.expect_exited(other.pid()),
        ExitReason::ConnectionLost
    );
    world.send(&other, 1);
    assert_eq!(numbers(&other), [1]);
    world.me.link(other.pid());
    other.end(ExitReason::Normal);
    assert_eq!(world.me.expect_exited(other.pid()), ExitReason::Normal);
}

#[test]
fn a_body_that_cannot_be_read_costs_only_that_message() {
    let world = World::new();
    let squarer = world.squarer();
    world.me.link(&squarer);
    let number = "seven".to_owned();
    world.me.send(&squarer, BadNumber { number });
    let answer = world.me.ask(&squarer, Number { number: 7 });
    assert_eq!(answer.wait().square, 49);
    world.me.expect_nothing();
}

#[test]
fn a_message_of_a_kind_that_its_receiver_does_not_take_is_dropped_and_counted() {
    let world = World::new();
    let squarer = world.squarer();
    world.me.send(&squarer, Unheard {});
    assert_eq!(
        world.me.ask(&squarer, Number { number: 2 }).wait().square,
        4
    );
    let metrics = world.there.metrics();
    let dropped = metrics.value("runtime/messages_dropped/unknown_kind");
    assert_eq!(dropped, Some(1.0));
}

#[test]
fn a_full_mailbox_costs_its_own_messages_and_nobody_else_s() {
    let world = World::new();
    let (full, other) = (world.probe("full"), world.probe("other"));
    // All arrive in one moment, so that they wait together.
    world.network.delay(MS);
    for number in 0..100 {
        world.send(&full, number);
    }
    world.send(&other, 7);
    world.clock.advance(MS);
    assert_eq!(numbers(&other), [7]);
    let (taken, metrics) = (numbers(&full), world.there.metrics());
    let dropped = metrics.value("runtime/messages_dropped/mailbox_full");
    let lost = 100 - u32::try_from(taken.len()).unwrap();
    assert_eq!(dropped, (lost > 0).then_some(f64::from(lost)));
    assert!(taken.is_sorted(), "what is taken is in order: {taken:?}");
}
