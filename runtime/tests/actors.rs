//! What actors may rely on, over the in-memory network and a paused clock: order, at most once, asks, timers,
//! links, gates, bounds.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and looks for one kind of event among all"
)]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use meseta_runtime::transport::memory::{MemoryNetwork, SILENCE};
use meseta_runtime::{
    Ask, AskError, Clock, Context, ExitReason, Gate, Message, Node, OWN_NODE, Op, Pid, Process,
    Receive, Routes, SpawnError,
};
use serde::{Deserialize, Serialize};

macro_rules! message {
    ($name:ident { $($field:ident : $type:ty),* }) => {
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        struct $name { $($field: $type),* }
        impl Message for $name { const NAME: &'static str = concat!("test.", stringify!($name)); }
    };
}
message!(Note { text: String });
message!(Relay { to: Pid, texts: Vec<String> });
message!(Watch { pid: Pid });
message!(Question { number: u64 });
message!(Reply { number: u64 });
message!(Fail {});
message!(Quit {});
message!(WakeMe { after_ms: u64 });
message!(Store { text: String });
message!(Misuse { panics: bool });
message!(Draw {});
message!(Ahead { to: Pid });
message!(Burst { events: u64 });
impl Ask for Question {
    type Reply = Reply;
}

/// What a [`Probe`] saw, in its order.
#[derive(Debug, PartialEq)]
enum Seen {
    Note(String, Pid),
    Exited(Pid, ExitReason),
    Woken(Duration),
    Stored(String),
}

struct Write(String);
impl Op for Write {
    type Out = String;
}

struct Probe {
    seen: Sender<Seen>,
}

impl Probe {
    fn on(node: &Node, id: &str) -> (Pid, Receiver<Seen>) {
        let (seen, log) = channel();
        let pid = node.spawn(id, move || Probe { seen }).unwrap();
        (pid, log)
    }
    fn tell(&self, seen: Seen) {
        self.seen.send(seen).unwrap();
    }
}

impl Process for Probe {
    fn routes(routes: &mut Routes<Self>) {
        routes
            .on::<Note>()
            .on::<Relay>()
            .on::<Watch>()
            .on::<Question>()
            .on::<Fail>()
            .on::<Quit>()
            .on::<WakeMe>()
            .on::<Store>()
            .on::<Misuse>()
            .on::<Draw>()
            .on::<Burst>()
            .on::<Ahead>();
    }
    fn exited(&mut self, _: &mut Context<'_, Self>, pid: &Pid, reason: ExitReason) {
        self.tell(Seen::Exited(pid.clone(), reason));
    }
}
impl Receive<Note> for Probe {
    fn receive(&mut self, _: &mut Context<'_, Self>, from: &Pid, note: Note) {
        self.tell(Seen::Note(note.text, from.clone()));
    }
}
impl Receive<Relay> for Probe {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, relay: Relay) {
        for text in relay.texts {
            cx.send(&relay.to, Note { text });
        }
    }
}
impl Receive<Watch> for Probe {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, watch: Watch) {
        cx.link(&watch.pid);
    }
}
impl Receive<Question> for Probe {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, question: Question) {
        if question.number > 0 {
            cx.reply(Reply {
                number: question.number * 2,
            });
        }
    }
}
impl Receive<Fail> for Probe {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, _: Fail) {
        panic!("asked to fail");
    }
}
impl Receive<Quit> for Probe {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, _: Quit) {
        cx.stop();
    }
}
impl Receive<WakeMe> for Probe {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, wake: WakeMe) {
        let asked = cx.now();
        cx.after(Duration::from_millis(wake.after_ms), move |probe, cx| {
            probe.tell(Seen::Woken(cx.now().since(asked)));
        });
    }
}
impl Receive<Store> for Probe {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, store: Store) {
        cx.run(Write(store.text), Gate::HoldUser, |probe, cx, stored| {
            if stored == "disk failed" {
                cx.stop();
            }
            probe.tell(Seen::Stored(stored));
        });
        let text = "stored".to_owned();
        cx.send(from, Note { text });
    }
}

struct Unknown;
impl Op for Unknown {
    type Out = ();
}
struct Panics;
impl Op for Panics {
    type Out = ();
}
impl Receive<Misuse> for Probe {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, misuse: Misuse) {
        let never = |probe: &mut Self, _: &mut Context<'_, Self>, ()| {
            probe.tell(Seen::Stored("never".into()));
        };
        if misuse.panics {
            cx.run(Panics, Gate::HoldUser, never);
        } else {
            cx.run(Unknown, Gate::HoldUser, never);
        }
    }
}
impl Receive<Ahead> for Probe {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, ahead: Ahead) {
        cx.send(&ahead.to, Burst { events: 5_000 });
    }
}
impl Receive<Draw> for Probe {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, _: Draw) {
        let number = rand::Rng::next_u64(cx.random());
        self.tell(Seen::Stored(number.to_string()));
    }
}
impl Receive<Burst> for Probe {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, burst: Burst) {
        let nobody = Pid::new("nobody", cx.me().address().clone()).unwrap();
        for number in 1..=burst.events {
            let from = from.clone();
            // Each fails at once, which is an event of the control lane.
            let limit = Duration::from_secs(1);
            cx.ask(&nobody, Question { number }, limit, move |probe, cx, _| {
                if number == 1 {
                    let text = "first".to_owned();
                    cx.send(&from, Note { text });
                }
                probe.tell(Seen::Stored(number.to_string()));
            });
        }
    }
}

struct World {
    clock: Clock,
    network: MemoryNetwork,
}
impl World {
    fn new() -> Self {
        Self {
            clock: Clock::paused(),
            network: MemoryNetwork::new(7),
        }
    }
    fn node(&self) -> Node {
        Node::builder()
            .memory(&self.network)
            .clock(self.clock.clone())
            .op(|write: Write| async move { write.0 })
            .op(|_: Panics| async { panic!("the disk is on fire") })
            .start()
            .unwrap()
    }
}
fn text(text: &str) -> Note {
    Note { text: text.into() }
}
fn texts(log: &Receiver<Seen>) -> Vec<String> {
    log.try_iter()
        .filter_map(|seen| match seen {
            Seen::Note(text, _) => Some(text),
            _ => None,
        })
        .collect()
}

#[test]
fn messages_of_one_sender_arrive_in_order_here_and_elsewhere() {
    let world = World::new();
    let (one, two) = (world.node(), world.node());
    let (sender, _) = Probe::on(&one, "sender");
    let (near, near_log) = Probe::on(&one, "near");
    let (far, far_log) = Probe::on(&two, "far");
    let expected: Vec<String> = (0..2_000).map(|n| n.to_string()).collect();
    for to in [near, far] {
        let texts = expected.clone();
        one.send(&sender, Relay { to, texts });
    }
    world.clock.settle();
    assert_eq!(texts(&near_log), expected);
    assert_eq!(texts(&far_log), expected);
    one.shutdown();
    two.shutdown();
}

#[test]
fn a_taken_name_is_refused_and_a_free_one_may_be_used_again() {
    let world = World::new();
    let node = world.node();
    let (pid, _log) = Probe::on(&node, "a");
    let (seen, _) = channel();
    assert!(node.spawn("a", move || Probe { seen }).is_err());
    node.terminate(&pid);
    world.clock.settle();
    let (again, _log) = Probe::on(&node, "a");
    assert_eq!(again, pid);
    let (seen, _) = channel();
    let numbered = node
        .spawn_numbered("slave", move || Probe { seen })
        .unwrap();
    assert_eq!(numbered.id(), "slave(1)");
    node.shutdown();
}

#[test]
fn an_ask_is_answered_or_times_out() {
    let world = World::new();
    let (one, two) = (world.node(), world.node());
    let (far, _log) = Probe::on(&two, "far");
    let limit = Duration::from_secs(3);
    let answer = one.ask(&far, Question { number: 21 }, limit).wait();
    assert_eq!(answer, Ok(Reply { number: 42 }));
    let unanswered = one.ask(&far, Question { number: 0 }, limit);
    world.clock.advance(limit);
    assert_eq!(unanswered.wait(), Err(AskError::TimedOut));
    let nobody = one.pid("nobody").unwrap();
    let undelivered = one.ask(&nobody, Question { number: 1 }, limit).wait();
    assert_eq!(undelivered, Err(AskError::Undelivered));
    one.shutdown();
    two.shutdown();
}

#[test]
fn a_node_neither_ends_nor_waits_for_a_process_of_another_node() {
    let world = World::new();
    let (one, two) = (world.node(), world.node());
    let (near, _near_log) = Probe::on(&one, "same");
    let (far, _far_log) = Probe::on(&two, "same");
    one.terminate(&far);
    world.clock.settle();
    for (node, pid) in [(&one, &near), (&two, &far)] {
        let answer = node.ask(pid, Question { number: 21 }, Duration::from_secs(1));
        assert_eq!(answer.wait(), Ok(Reply { number: 42 }));
    }
    let ended = futures::executor::block_on(one.ended(&far));
    assert_eq!(ended, ExitReason::NoProcess);
    one.shutdown();
    two.shutdown();
}

#[test]
fn no_process_has_the_name_of_the_code_outside_all_processes() {
    let world = World::new();
    let node = world.node();
    let (seen, _) = channel();
    let refused = node.spawn("node", move || Probe { seen });
    assert!(matches!(refused, Err(SpawnError::Reserved(_))));
    node.shutdown();
}

#[test]
fn a_timer_runs_at_its_time_on_the_paused_clock() {
    let world = World::new();
    let node = world.node();
    let (pid, log) = Probe::on(&node, "a");
    node.send(&pid, WakeMe { after_ms: 1500 });
    world.clock.advance(Duration::from_millis(1499));
    assert_eq!(log.try_iter().next(), None);
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(
        log.try_iter().next(),
        Some(Seen::Woken(Duration::from_millis(1500)))
    );
    node.shutdown();
}

#[test]
fn each_link_hears_exactly_once_why_the_other_ended_and_after_its_last_message() {
    let world = World::new();
    let (one, two) = (world.node(), world.node());
    for (end, reason) in [
        (0, ExitReason::Normal),
        (1, ExitReason::Panic("asked to fail".into())),
        (2, ExitReason::Terminated),
    ] {
        let (far, _far_log) = Probe::on(&two, "far");
        let (watcher, log) = Probe::on(&one, "watcher");
        for _ in 0..2 {
            one.send(&watcher, Watch { pid: far.clone() });
        }
        world.clock.settle();
        let last = vec!["last".to_owned()];
        let relay = Relay {
            to: watcher.clone(),
            texts: last,
        };
        two.send(&far, relay);
        match end {
            0 => two.send(&far, Quit {}),
            1 => two.send(&far, Fail {}),
            _ => two.terminate(&far),
        }
        world.clock.settle();
        let seen: Vec<Seen> = log.try_iter().collect();
        let expected = [
            Seen::Note("last".into(), far.clone()),
            Seen::Exited(far, reason),
        ];
        assert_eq!(seen, expected);
        one.terminate(&watcher);
        world.clock.settle();
    }
    one.shutdown();
    two.shutdown();
}

#[test]
fn a_link_to_a_missing_process_or_node_fires() {
    let world = World::new();
    let (one, two) = (world.node(), world.node());
    let (watcher, log) = Probe::on(&one, "watcher");
    let missing = two.pid("missing").unwrap();
    one.send(
        &watcher,
        Watch {
            pid: missing.clone(),
        },
    );
    world.clock.settle();
    assert_eq!(
        log.try_recv(),
        Ok(Seen::Exited(missing, ExitReason::NoProcess))
    );
    let nowhere: Pid = "a@127.0.0.1:1".parse().unwrap();
    one.send(
        &watcher,
        Watch {
            pid: nowhere.clone(),
        },
    );
    world.clock.advance(SILENCE);
    assert_eq!(
        log.try_recv(),
        Ok(Seen::Exited(nowhere, ExitReason::ConnectionLost))
    );
    one.shutdown();
    two.shutdown();
}

#[test]
fn a_cut_is_noticed_after_the_silence_and_a_shut_down_node_at_once() {
    let world = World::new();
    let (one, two) = (world.node(), world.node());
    let (far, far_log) = Probe::on(&two, "far");
    let (watcher, log) = Probe::on(&one, "watcher");
    one.send(&watcher, Watch { pid: far.clone() });
    world.clock.settle();
    world.network.cut(one.address(), two.address());
    one.send(&far, text("lost"));
    world.clock.advance(SILENCE - Duration::from_millis(1));
    assert!(log.try_recv().is_err());
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(
        log.try_recv(),
        Ok(Seen::Exited(far.clone(), ExitReason::ConnectionLost))
    );
    world.network.heal(one.address(), two.address());
    one.send(&far, text("heard"));
    one.send(&watcher, Watch { pid: far.clone() });
    world.clock.settle();
    assert_eq!(texts(&far_log), ["heard"]);
    two.shutdown();
    world.clock.settle();
    assert_eq!(log.try_iter().count(), 1);
    one.shutdown();
}

#[test]
fn held_messages_and_effects_wait_for_the_write_and_a_failed_one_drops_them() {
    let world = World::new();
    let node = world.node();
    let (client, client_log) = Probe::on(&node, "client");
    let (store, log) = Probe::on(&node, "store");
    node.send(&store, Store { text: "x".into() });
    node.send(&store, text("after the write"));
    world.clock.settle();
    let seen: Vec<Seen> = log.try_iter().collect();
    assert!(
        matches!(&seen[..], [Seen::Stored(_), Seen::Note(..)]),
        "{seen:?}"
    );
    drop((client, client_log));
    node.send(
        &store,
        Store {
            text: "disk failed".into(),
        },
    );
    node.send(&store, text("never seen"));
    world.clock.settle();
    assert_eq!(
        log.try_iter().collect::<Vec<_>>(),
        [Seen::Stored("disk failed".into())]
    );
    assert!(node.processes().iter().all(|process| process.id != "store"));
    node.shutdown();
}

#[test]
fn a_full_mailbox_drops_the_newest_and_counts_it_of_the_own_node_beyond_the_reserve() {
    let world = World::new();
    let node = Node::builder()
        .memory(&world.network)
        .clock(world.clock.clone())
        .mailbox(10)
        .start()
        .unwrap();
    let (sender, _) = Probe::on(&node, "sender");
    let (receiver, log) = Probe::on(&node, "receiver");
    let all: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    node.send(
        &sender,
        Relay {
            to: receiver,
            texts: all.clone(),
        },
    );
    world.clock.settle();
    assert_eq!(texts(&log), all[..160]);
    let dropped = node
        .metrics()
        .value("runtime/messages_dropped/mailbox_full");
    assert_eq!(dropped, Some(40.0));
    node.shutdown();
}

#[test]
fn a_panic_ends_its_process_only() {
    let world = World::new();
    let node = world.node();
    let (failing, _log) = Probe::on(&node, "failing");
    let (neighbour, log) = Probe::on(&node, "neighbour");
    let ended = node.ended(&failing);
    node.send(&failing, Fail {});
    node.send(&neighbour, text("still here"));
    world.clock.settle();
    assert_eq!(texts(&log), ["still here"]);
    let reason = futures::executor::block_on(ended);
    assert_eq!(reason, ExitReason::Panic("asked to fail".into()));
    node.shutdown();
}

#[test]
fn a_message_is_refused_from_a_role_that_may_not_send_it() {
    #[derive(Serialize, Deserialize)]
    struct Order {}
    impl Message for Order {
        const NAME: &'static str = "test.Order";
        const SENDERS: &'static [&'static str] = &["master"];
    }
    #[derive(Serialize, Deserialize)]
    struct Thought {}
    impl Message for Thought {
        const NAME: &'static str = "test.Thought";
        const SENDERS: &'static [&'static str] = OWN_NODE;
    }
    struct Soldier(Sender<()>);
    impl Process for Soldier {
        fn routes(routes: &mut Routes<Self>) {
            routes.on::<Order>().on::<Thought>();
        }
    }
    impl Receive<Thought> for Soldier {
        fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, _: Thought) {
            self.0.send(()).unwrap();
        }
    }
    impl Receive<Order> for Soldier {
        fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, _: Order) {
            self.0.send(()).unwrap();
        }
    }
    let world = World::new();
    let with_role = |role: &str| {
        let builder = Node::builder().memory(&world.network).role(role);
        builder.clock(world.clock.clone()).start().unwrap()
    };
    let (master, stranger, home) = (with_role("master"), with_role("agent"), with_role("agent"));
    let (sender, orders) = channel();
    let soldier = home.spawn("soldier", move || Soldier(sender)).unwrap();
    stranger.send(&soldier, Order {});
    world.clock.settle();
    assert!(orders.try_recv().is_err());
    master.send(&soldier, Order {});
    world.clock.settle();
    assert!(orders.try_recv().is_ok());
    master.send(&soldier, Thought {});
    world.clock.settle();
    assert!(orders.try_recv().is_err());
    home.send(&soldier, Thought {});
    world.clock.settle();
    assert!(orders.try_recv().is_ok());
    for node in [master, stranger, home] {
        node.shutdown();
    }
}

#[test]
fn an_operation_that_nobody_carries_out_or_that_panics_ends_its_process() {
    let world = World::new();
    let node = world.node();
    for (panics, text) in [(false, "no operator for"), (true, "the disk is on fire")] {
        let (pid, log) = Probe::on(&node, "a");
        let ended = node.ended(&pid);
        node.send(&pid, Misuse { panics });
        node.send(&pid, crate::text("held for ever"));
        world.clock.settle();
        assert_eq!(log.try_iter().count(), 0);
        assert!(node.processes().is_empty(), "it has ended");
        match futures::executor::block_on(ended) {
            ExitReason::Panic(reason) => assert!(reason.contains(text), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    node.shutdown();
}

#[test]
fn a_name_used_again_draws_another_stream_and_the_same_seed_the_same_ones() {
    let world = World::new();
    let run = || {
        let builder = Node::builder().memory(&world.network).seed(11);
        let node = builder.clock(world.clock.clone()).start().unwrap();
        let mut draws = Vec::new();
        for _ in 0..2 {
            let (pid, log) = Probe::on(&node, "a");
            node.send(&pid, Draw {});
            world.clock.settle();
            draws.extend(log.try_iter());
            node.terminate(&pid);
            world.clock.settle();
        }
        node.shutdown();
        draws
    };
    let draws = run();
    assert_eq!(draws.len(), 2);
    assert_ne!(draws[0], draws[1]);
    assert_eq!(draws, run());
}

#[test]
fn a_burst_of_control_events_leaves_a_turn_to_the_neighbour() {
    const EVENTS: usize = 5_000;
    let world = World::new();
    let node = world.node();
    // Both tell one log, so that it shows who had his turn when.
    let (seen, log) = channel();
    let other = seen.clone();
    let busy = node.spawn("busy", move || Probe { seen }).unwrap();
    let neighbour = node
        .spawn("neighbour", move || Probe { seen: other })
        .unwrap();
    node.send(&neighbour, Ahead { to: busy });
    world.clock.settle();
    let seen: Vec<Seen> = log.try_iter().collect();
    let turn = seen
        .iter()
        .position(|seen| matches!(seen, Seen::Note(..)))
        .unwrap();
    assert_eq!(seen.len(), EVENTS + 1);
    assert!(turn < 1_000, "after {turn} events");
    node.shutdown();
}

#[test]
fn two_names_with_one_number_are_refused_across_processes() {
    #[derive(Serialize, Deserialize)]
    struct One;
    impl Message for One {
        const NAME: &'static str = "costarring";
    }
    // The published example of two words with one FNV-1a number.
    #[derive(Serialize, Deserialize)]
    struct Other;
    impl Message for Other {
        const NAME: &'static str = "liquid";
    }
    struct TakesOne;
    impl Process for TakesOne {
        fn routes(routes: &mut Routes<Self>) {
            routes.on::<One>();
        }
    }
    impl Receive<One> for TakesOne {
        fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, _: One) {}
    }
    struct TakesOther;
    impl Process for TakesOther {
        fn routes(routes: &mut Routes<Self>) {
            routes.on::<Other>();
        }
    }
    impl Receive<Other> for TakesOther {
        fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, _: Other) {}
    }
    let world = World::new();
    let node = world.node();
    node.spawn("one", || TakesOne).unwrap();
    node.spawn("two", || TakesOne).unwrap();
    let clash = node.spawn("three", || TakesOther);
    assert_eq!(clash, Err(SpawnError::KindClash("costarring", "liquid")));
    node.shutdown();
}
