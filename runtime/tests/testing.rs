//! The test kit holds what it says: filters before the handler, probes, waiting on a paused and on a live clock.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use meseta_runtime::testing::{ANY, Anything, Exited, Probe, Testing, What};
use meseta_runtime::transport::memory::MemoryNetwork;
use meseta_runtime::{
    Ask, Clock, Context, ExitReason, Gate, Message, Node, Op, Pid, Process, Receive, Routes,
};
use serde::{Deserialize, Serialize};

macro_rules! message {
    ($name:ident { $($field:ident : $type:ty),* }) => {
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        struct $name { $($field: $type),* }
        impl Message for $name { const NAME: &'static str = concat!("test.", stringify!($name)); }
    };
}
message!(Ping { number: u64 });
message!(Pong { number: u64 });
message!(Write { number: u64 });
message!(Wake { after_ms: u64 });
message!(Watch { pid: Pid });
message!(Fail {});
impl Ask for Ping {
    type Reply = Pong;
}

/// An operation whose end is another operation's business: it is done when its sender is dropped.
struct Disk;
impl Op for Disk {
    type Out = ();
}

/// Answers each ping with a pong to its sender, as an answer when it was asked.
struct Ponger;
impl Process for Ponger {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Ping>().on::<Write>().on::<Wake>();
        routes.on::<Watch>().on::<Fail>();
    }
    fn exited(&mut self, cx: &mut Context<'_, Self>, pid: &Pid, _: ExitReason) {
        // Tells the one that ended's node, where a probe of this name listens.
        let listener = Pid::new("listener", pid.address().clone()).unwrap();
        cx.send(&listener, Pong { number: 0 });
    }
}
impl Receive<Ping> for Ponger {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, ping: Ping) {
        let pong = Pong {
            number: ping.number,
        };
        match cx.defer_reply() {
            Some(to) => cx.reply_later(&to, pong),
            None => cx.send(from, pong),
        }
    }
}
impl Receive<Write> for Ponger {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, write: Write) {
        let from = from.clone();
        cx.run(Disk, Gate::HoldUser, |_, _, ()| {});
        cx.send(&from, write);
    }
}
impl Receive<Wake> for Ponger {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, wake: Wake) {
        let from = from.clone();
        cx.after(Duration::from_millis(wake.after_ms), move |_, cx| {
            cx.send(&from, Pong { number: 0 });
        });
    }
}
impl Receive<Watch> for Ponger {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, watch: Watch) {
        cx.link(&watch.pid);
    }
}
impl Receive<Fail> for Ponger {
    #[expect(clippy::panic, reason = "this is what the message asks for")]
    fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, _: Fail) {
        panic!("asked to fail");
    }
}

/// Two nodes on a paused clock: a ponger on the one, a probe on the other.
struct World {
    clock: Clock,
    home: Node,
    away: Node,
    ponger: Pid,
    probe: Probe,
}
impl World {
    fn new() -> Self {
        let (clock, network) = (Clock::paused(), MemoryNetwork::new(1));
        let node = || {
            let builder = Node::builder().memory(&network).clock(clock.clone());
            builder.op(|_: Disk| async {}).start().unwrap()
        };
        let (home, away) = (node(), node());
        let ponger = home.spawn("ponger", || Ponger).unwrap();
        let probe = away.testing().probe("probe").unwrap();
        Self {
            clock,
            home,
            away,
            ponger,
            probe,
        }
    }
    /// What happens to messages for the ponger.
    fn kit(&self) -> Testing {
        self.home.testing()
    }
    fn ping(&self, numbers: std::ops::RangeInclusive<u64>) {
        for number in numbers {
            self.probe.send(&self.ponger, Ping { number });
        }
        self.clock.settle();
    }
    fn pongs(&self) -> Vec<u64> {
        let all = self.probe.all::<Pong>();
        all.into_iter().map(|pong| pong.message.number).collect()
    }
}
impl Drop for World {
    fn drop(&mut self) {
        self.home.shutdown();
        self.away.shutdown();
    }
}

/// What a failing piece of a test says.
fn failure(act: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(act)).unwrap_err();
    panic.downcast_ref::<String>().unwrap().clone()
}

#[test]
fn an_awaited_message_is_shown_and_handled_all_the_same() {
    let world = World::new();
    let first = world.kit().expect::<Ping>(ANY, &world.ponger);
    let second = world.kit().expect::<Ping>(world.probe.pid(), "ponger");
    assert!(first.seen().is_none());
    world.ping(1..=3);
    let seen = first.wait();
    assert_eq!(seen.message, Ping { number: 1 });
    assert_eq!((&seen.from, &seen.to), (world.probe.pid(), &world.ponger));
    assert_eq!(second.wait().message, Ping { number: 2 });
    assert_eq!(world.pongs(), [1, 2, 3]);
}

#[test]
fn a_dropped_message_never_comes_and_what_is_for_one_message_is_used_up_by_it() {
    let world = World::new();
    let lost = world.kit().drop_next::<Ping>(ANY, ANY);
    world.ping(1..=2);
    assert_eq!(lost.wait().message.number, 1);
    assert_eq!(world.pongs(), [2]);
    let even = world.kit().on::<Ping>(ANY, ANY);
    let even = even.when(|ping| ping.number % 2 == 0).drop_all();
    world.ping(1..=5);
    assert_eq!(even.dropped().len(), 2);
    assert_eq!(world.pongs(), [1, 3, 5]);
    drop(even);
    world.ping(2..=2);
    assert_eq!(world.pongs(), [2]);
}

#[test]
fn held_messages_come_in_order_when_released_and_not_at_all_when_discarded() {
    let world = World::new();
    let held = world.kit().hold::<Ping>(ANY, ANY);
    world.ping(1..=3);
    assert!(world.pongs().is_empty());
    assert_eq!(held.messages().len(), 3);
    let later = world.kit().expect::<Ping>(ANY, ANY);
    held.release();
    assert_eq!(world.pongs(), [1, 2, 3]);
    // A filter set after the hold sees what it lets go.
    assert_eq!(later.wait().message.number, 1);
    let held = world.kit().hold::<Ping>(ANY, ANY);
    world.ping(4..=5);
    assert_eq!(held.discard(), 2);
    world.ping(6..=6);
    assert_eq!(world.pongs(), [6]);
}

#[test]
fn a_released_message_overtakes_none_of_its_sender_and_is_not_overtaken() {
    let world = World::new();
    let held = world.kit().on::<Ping>(ANY, ANY);
    let held = held.when(|ping| ping.number <= 2).hold();
    world.ping(1..=2);
    // The write keeps the mailbox shut while the third message waits in it.
    world.probe.send(&world.ponger, Write { number: 0 });
    held.release();
    world.ping(3..=3);
    assert_eq!(world.pongs(), [1, 2, 3]);
    assert_eq!(world.probe.expect::<Write>().message.number, 0);
}

#[test]
fn a_doubled_message_comes_twice_in_a_row() {
    let world = World::new();
    let doubled = world.kit().duplicate_next::<Ping>(ANY, ANY);
    world.ping(1..=2);
    assert_eq!(doubled.wait().message.number, 1);
    assert_eq!(world.pongs(), [1, 1, 2]);
    // Both pass the filters that were set later.
    let doubled = world.kit().duplicate_next::<Ping>(ANY, ANY);
    let dropped = world.kit().drop_next::<Ping>(ANY, ANY);
    world.ping(3..=3);
    assert_eq!(doubled.wait(), dropped.wait());
    assert_eq!(world.pongs(), [3]);
}

#[test]
fn an_expectation_that_is_not_met_fails_and_says_what_came_instead() {
    let world = World::new();
    let text = failure(|| {
        let expected = world.kit().expect::<Write>("probe", &world.ponger);
        world.ping(7..=7);
        drop(expected);
    });
    let (probe, ponger) = (world.probe.pid(), &world.ponger);
    assert_eq!(
        text,
        format!(
            "awaited test.Write from probe to {ponger}; came instead:\n  test.Ping from {probe} to {ponger}: handled"
        )
    );
    let text = failure(|| {
        world.kit().drop_next::<Ping>(ANY, ANY).wait();
    });
    assert_eq!(
        text,
        "awaited test.Ping from anybody to anybody; came instead: nothing"
    );
    let text = failure(|| {
        let never = world.kit().never::<Ping>();
        world.ping(1..=2);
        drop(never);
    });
    assert!(text.contains("came 2 times and never should"), "{text}");
    drop(world.kit().never::<Write>());
}

#[test]
fn exit_notices_can_be_watched_and_held() {
    let world = World::new();
    let listener = world.away.testing().probe("listener").unwrap();
    let watch = Watch {
        pid: world.probe.pid().clone(),
    };
    world.probe.send(&world.ponger, watch);
    world.clock.settle();
    let held = world.kit().hold::<Exited>(world.probe.pid(), &world.ponger);
    world.probe.end(ExitReason::Panic("as told".into()));
    let reason = ExitReason::Panic("as told".into());
    assert_eq!(held.messages()[0].message, Exited { reason });
    listener.expect_nothing();
    held.release();
    listener.expect::<Pong>();
}

#[test]
fn timers_pass_by_all_filters() {
    let world = World::new();
    world.probe.send(&world.ponger, Wake { after_ms: 500 });
    world.clock.settle();
    let all = world.kit().drop_all::<Anything>(ANY, ANY);
    let pong = world.probe.expect_within::<Pong>(Duration::from_secs(9));
    assert_eq!(pong.from, world.ponger);
    assert_eq!(world.clock.now().0, 500_000_000, "and no further");
    assert_eq!(all.dropped(), []);
}

#[test]
fn what_waits_for_a_write_is_not_seen_before_it_is_done() {
    // The operator waits for a word of the test.
    let (clock, network) = (Clock::paused(), MemoryNetwork::new(1));
    let (done, outcome) = tokio::sync::oneshot::channel::<()>();
    let outcome = std::sync::Mutex::new(Some(outcome));
    let builder = Node::builder().memory(&network).clock(clock.clone());
    let node = builder
        .op(move |_: Disk| {
            let outcome = outcome.lock().unwrap().take();
            async move {
                if let Some(outcome) = outcome {
                    // Dropped is as good as told.
                    let _told = outcome.await;
                }
            }
        })
        .start()
        .unwrap();
    let ponger = node.spawn("ponger", || Ponger).unwrap();
    let probe = node.testing().probe("probe").unwrap();
    let seen = node.testing().expect::<Ping>(ANY, ANY);
    let written = node.testing().expect::<Write>("ponger", "probe");
    let held = node.testing().hold::<Write>("probe", "ponger");
    probe.send(&ponger, Write { number: 1 });
    assert_eq!(held.messages().len(), 1);
    held.release();
    probe.send(&ponger, Ping { number: 2 });
    assert!(seen.seen().is_none());
    done.send(()).unwrap();
    assert_eq!(written.wait().message.number, 1);
    assert_eq!(seen.wait().message.number, 2);
    assert_eq!(probe.expect::<Write>().message.number, 1);
    node.shutdown();
}

#[test]
fn a_probe_asks_answers_links_and_ends() {
    let world = World::new();
    let pong = world.probe.ask(&world.ponger, Ping { number: 4 }).wait();
    assert_eq!(pong.number, 4);
    // The other way round, from outside all actors.
    let limit = Duration::from_secs(1);
    let answer = world.home.ask(world.probe.pid(), Ping { number: 5 }, limit);
    let asked = world.probe.expect_asked::<Ping>();
    assert_eq!(asked.message.number, 5);
    asked.reply(Pong { number: 50 });
    assert_eq!(answer.wait().unwrap().number, 50);
    world.probe.link(&world.ponger);
    world.probe.send(&world.ponger, Fail {});
    let reason = world.probe.expect_exited(&world.ponger);
    assert_eq!(reason, ExitReason::Panic("asked to fail".into()));
    let other = world.home.testing().probe("other").unwrap();
    other.link(world.probe.pid());
    world.probe.end(ExitReason::Normal);
    assert_eq!(other.expect_exited(world.probe.pid()), ExitReason::Normal);
}

#[test]
fn a_probe_shows_what_came_in_its_order_and_fails_at_what_it_did_not_expect() {
    let world = World::new();
    world.ping(1..=2);
    world.probe.send(&world.ponger, Write { number: 3 });
    world.ping(4..=4);
    assert_eq!(world.probe.find::<Write>().message.number, 3);
    assert_eq!(world.probe.expect::<Pong>().message.number, 1);
    let text = failure(|| {
        world.probe.expect::<Write>();
    });
    let (probe, ponger) = (world.probe.pid(), &world.ponger);
    assert_eq!(
        text,
        format!("probe {probe}: awaited test.Write, but got test.Pong from {ponger} to {probe}")
    );
    let text = failure(|| world.probe.expect_nothing());
    assert!(
        text.contains("awaited nothing, but got\n  test.Pong from"),
        "{text}"
    );
    let names: Vec<String> = world
        .probe
        .everything()
        .iter()
        .map(|event| match &event.what {
            What::Message { body, .. } => format!("{} bytes", body.len()),
            What::Exited(_) => String::new(),
        })
        .collect();
    assert_eq!(names, ["9 bytes"]);
    world.probe.expect_nothing();
    let text = failure(|| {
        world.probe.expect::<Pong>();
    });
    assert!(text.ends_with("awaited test.Pong; has nothing"), "{text}");
}

#[test]
fn on_a_live_clock_over_real_connections_the_event_is_waited_for() {
    let node = || Node::builder().http(false).start().unwrap();
    let (home, away) = (node(), node());
    let ponger = home.spawn("ponger", || Ponger).unwrap();
    let probe = away.testing().probe("probe").unwrap();
    let lost = home.testing().drop_next::<Ping>(probe.pid(), &ponger);
    let held = home.testing().hold::<Ping>(ANY, &ponger);
    let answered = away.testing().expect::<Pong>(&ponger, ANY);
    for number in 1..=3 {
        probe.send(&ponger, Ping { number });
    }
    assert_eq!(lost.wait().message.number, 1);
    held.wait();
    held.release();
    assert_eq!(probe.expect::<Pong>().message.number, 2);
    let seen = futures::executor::block_on(answered.arrived());
    assert_eq!(seen.message.number, 2);
    assert_eq!(probe.expect::<Pong>().message.number, 3);
    probe.link(&ponger);
    probe.send(&ponger, Fail {});
    let reason = probe.expect_exited(&ponger);
    assert_eq!(reason, ExitReason::Panic("asked to fail".into()));
    home.shutdown();
    away.shutdown();
}
