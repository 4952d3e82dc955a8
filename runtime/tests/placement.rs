//! Processes on several threads of one node: who runs where, order and rest across threads, bounds of asks, and what
//! flooded processes leave to the others.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use meseta_runtime::transport::memory::MemoryNetwork;
use meseta_runtime::{
    Ask, AskError, Clock, Context, ExitReason, Message, Node, Pid, Placement, Process, Receive,
    Routes, Time,
};
use serde::{Deserialize, Serialize};

macro_rules! message {
    ($name:ident($type:ty)) => {
        #[derive(Serialize, Deserialize)]
        struct $name($type);
        impl Message for $name {
            const NAME: &'static str = concat!("test.placement.", stringify!($name));
        }
    };
}
message!(Number(u64));
message!(Count(u64));
message!(Watch(Pid));
message!(Question(u64));
message!(Answer(u64));
message!(Open(u64));
message!(Flood(u64));
message!(Tick(u64));
message!(Spawn(String));
message!(AskTimes(u64));
message!(SlowAsk(u64));
message!(Pour(u64));
message!(End(String));
impl Ask for Question {
    type Reply = Answer;
}

#[derive(Debug, PartialEq)]
enum Seen {
    Number(u64),
    Exited(ExitReason),
    Failed(AskError),
    Ticked,
}

/// Does what it is told, towards one other process.
struct Actor {
    to: Pid,
    seen: Sender<Seen>,
}
impl Actor {
    fn tell(&self, seen: Seen) {
        self.seen.send(seen).unwrap();
    }
}
impl Process for Actor {
    fn routes(routes: &mut Routes<Self>) {
        routes
            .on::<Number>()
            .on::<Count>()
            .on::<Watch>()
            .on::<Question>()
            .on::<Open>()
            .on::<Flood>()
            .on::<Tick>()
            .on::<Spawn>()
            .on::<AskTimes>()
            .on::<SlowAsk>()
            .on::<Pour>()
            .on::<End>();
    }
    fn exited(&mut self, _: &mut Context<'_, Self>, _: &Pid, reason: ExitReason) {
        self.tell(Seen::Exited(reason));
    }
}
impl Receive<Number> for Actor {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, Number(number): Number) {
        self.tell(Seen::Number(number));
    }
}
impl Receive<Count> for Actor {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, Count(numbers): Count) {
        for number in 0..numbers {
            cx.send(&self.to, Number(number));
        }
    }
}
impl Receive<Watch> for Actor {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, Watch(pid): Watch) {
        cx.link(&pid);
    }
}
impl Receive<Question> for Actor {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, Question(number): Question) {
        if number > 0 {
            cx.reply(Answer(number));
        }
    }
}
impl Receive<Open> for Actor {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, Open(asks): Open) {
        for _ in 0..asks {
            let limit = Duration::from_secs(9);
            cx.ask(&self.to, Question(0), limit, |me, _, answer| {
                me.tell(Seen::Failed(answer.err().unwrap()));
            });
        }
    }
}
/// Keeps itself busy with so many messages, one after the other.
impl Receive<Flood> for Actor {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, Flood(left): Flood) {
        if left > 0 {
            let me = cx.me().clone();
            cx.send(&me, Flood(left - 1));
        } else {
            self.tell(Seen::Number(0));
        }
    }
}
impl Receive<Tick> for Actor {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, Tick(after_ms): Tick) {
        cx.after(Duration::from_millis(after_ms), |me, _| {
            me.tell(Seen::Ticked);
        });
    }
}
impl Receive<AskTimes> for Actor {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, AskTimes(left): AskTimes) {
        let limit = Duration::from_secs(9);
        cx.ask(&self.to, Question(left), limit, move |me, cx, answer| {
            me.tell(Seen::Number(answer.unwrap().0));
            if left > 1 {
                let this = cx.me().clone();
                cx.send(&this, AskTimes(left - 1));
            }
        });
    }
}
/// Computes for longer than its ask may take, and tells how long that waited.
impl Receive<SlowAsk> for Actor {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, SlowAsk(limit_ms): SlowAsk) {
        let clock = Clock::live();
        let limit = Duration::from_millis(limit_ms);
        while clock.now().since(Time::ZERO) < limit {}
        let asked = clock.now();
        cx.ask(&self.to, Question(0), limit, move |me, _, answer| {
            let waited = clock.now().since(asked);
            me.tell(Seen::Number(waited.as_millis().try_into().unwrap()));
            me.tell(Seen::Failed(answer.err().unwrap()));
        });
    }
}
/// Sends numbers to the other one, each from a turn of its own.
impl Receive<Pour> for Actor {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, Pour(number): Pour) {
        let me = cx.me().clone();
        cx.send(&self.to, Number(number));
        cx.send(&me, Pour(number + 1));
    }
}
impl Receive<End> for Actor {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, End(why): End) {
        cx.fail(why);
    }
}
impl Receive<Spawn> for Actor {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, Spawn(id): Spawn) {
        let (to, seen) = (self.to.clone(), self.seen.clone());
        cx.spawn(&id, move || Actor { to, seen }).unwrap();
    }
}

struct World {
    clock: Clock,
    node: Node,
}
impl World {
    fn new(clock: Clock) -> Self {
        let node = Node::builder()
            .memory(&MemoryNetwork::new(7))
            .clock(clock.clone())
            .threads(3)
            .max_asks(5)
            .start()
            .unwrap();
        Self { clock, node }
    }
    fn actor(&self, id: &str, placement: Placement, to: &str) -> (Pid, Receiver<Seen>) {
        let (seen, log) = channel();
        let to = self.node.pid(to).unwrap();
        let build = move || Actor { to, seen };
        (self.node.spawn_placed(id, placement, build).unwrap(), log)
    }
    fn thread(&self, id: &str) -> usize {
        let all = self.node.processes();
        all.iter().find(|one| one.id == id).unwrap().thread
    }
}

#[test]
fn a_process_runs_near_its_spawner_on_the_emptiest_thread_or_on_its_own() {
    let world = World::new(Clock::paused());
    let (near, _log) = world.actor("near", Placement::Near, "near");
    let (second, _log2) = world.actor("second", Placement::LeastLoaded, "near");
    let (_third, _log3) = world.actor("third", Placement::LeastLoaded, "near");
    let (own, _log4) = world.actor("own", Placement::OwnThread, "near");
    world.node.send(&second, Spawn("child".into()));
    world.node.send(&own, Spawn("orphan".into()));
    world.clock.settle();
    let threads = ["near", "second", "third", "own", "child"].map(|id| world.thread(id));
    assert_eq!(threads, [0, 1, 2, 3, 1]);
    assert!(
        world.thread("orphan") < 3,
        "a thread of one's own is shared with nobody"
    );
    drop(near);
    world.node.shutdown();
}

#[test]
fn messages_of_a_pair_keep_their_order_between_threads_and_settle_waits_for_them() {
    let world = World::new(Clock::paused());
    let (sender, _log) = world.actor("sender", Placement::Near, "receiver");
    let (_, log) = world.actor("receiver", Placement::LeastLoaded, "sender");
    assert_ne!(world.thread("sender"), world.thread("receiver"));
    for _ in 0..3 {
        world.node.send(&sender, Count(2_000));
        world.clock.settle();
        let seen: Vec<Seen> = log.try_iter().collect();
        let expected: Vec<Seen> = (0..2_000).map(Seen::Number).collect();
        assert!(seen == expected, "{} of 2000 came", seen.len());
    }
    world.node.shutdown();
}

#[test]
fn a_thread_of_its_own_ends_with_its_process_and_links_hear_of_it() {
    struct Blocking(Sender<std::thread::ThreadId>, Receiver<()>);
    impl Process for Blocking {
        fn routes(routes: &mut Routes<Self>) {
            routes.on::<Number>();
        }
    }
    impl Receive<Number> for Blocking {
        fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, _: Number) {
            self.0.send(std::thread::current().id()).unwrap();
            self.1.recv().unwrap();
            panic!("it was let go");
        }
    }
    let world = World::new(Clock::paused());
    let (watcher, log) = world.actor("watcher", Placement::Near, "watcher");
    let ((begun, begins), (release, wait)) = (channel(), channel());
    let build = move || Blocking(begun, wait);
    let placed = world
        .node
        .spawn_placed("blocking", Placement::OwnThread, build);
    let blocking = placed.unwrap();
    world.node.send(&watcher, Watch(blocking.clone()));
    world.node.send(&blocking, Number(0));
    let thread = begins.recv().unwrap();
    assert_ne!(thread, std::thread::current().id());
    // While it blocks, the others go on.
    world.node.send(&watcher, Number(7));
    assert_eq!(log.recv().unwrap(), Seen::Number(7));
    release.send(()).unwrap();
    assert_eq!(
        log.recv().unwrap(),
        Seen::Exited(ExitReason::Panic("it was let go".into()))
    );
    world.clock.settle();
    let again = world.actor("blocking", Placement::OwnThread, "watcher");
    assert_eq!(again.0, blocking);
    world.node.send(&blocking, Number(8));
    world.clock.settle();
    assert_eq!(again.1.try_iter().next(), Some(Seen::Number(8)));
    world.node.shutdown();
}

#[test]
fn shutdown_ends_the_processes_of_all_threads() {
    let world = World::new(Clock::paused());
    let mut logs = Vec::new();
    for (id, placement) in [
        ("a", Placement::Near),
        ("b", Placement::LeastLoaded),
        ("c", Placement::OwnThread),
    ] {
        logs.push(world.actor(id, placement, "a").1);
    }
    world.clock.settle();
    world.node.shutdown();
    for log in logs {
        let gone = log.recv().unwrap_err();
        assert_eq!(gone, std::sync::mpsc::RecvError, "the actor was dropped");
    }
    let (seen, _log) = channel();
    let to = world.node.pid("a").unwrap();
    let late = world.node.spawn("late", move || Actor { to, seen });
    assert!(late.is_err());
}

#[test]
fn one_ask_more_than_may_be_open_fails_at_once_and_the_others_wait() {
    let world = World::new(Clock::paused());
    let (asker, log) = world.actor("asker", Placement::Near, "silent");
    let (_, _silent) = world.actor("silent", Placement::Near, "asker");
    world.node.send(&asker, Open(7));
    world.clock.settle();
    let failed = || Seen::Failed(AskError::TooMany);
    assert_eq!(log.try_iter().collect::<Vec<_>>(), [failed(), failed()]);
    world.clock.advance(Duration::from_secs(9));
    let timed_out: Vec<Seen> = log.try_iter().collect();
    assert_eq!(timed_out.len(), 5);
    assert!(
        timed_out
            .iter()
            .all(|seen| *seen == Seen::Failed(AskError::TimedOut))
    );
    // And then as many may be open again.
    world.node.send(&asker, Open(5));
    world.clock.settle();
    assert_eq!(log.try_iter().count(), 0);
    world.node.shutdown();
}

/// Keeps its thread until it is let.
struct Hold(Receiver<()>);
impl Process for Hold {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Open>();
    }
}
impl Receive<Open> for Hold {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, _: Open) {
        // Err once the test has let go.
        let _over = self.0.recv();
    }
}

/// Each flooded process handles far more messages than one drain may, and its neighbours' timers and messages are
/// served between: in the log they come long before the floods are over.
#[test]
fn timers_run_while_many_processes_of_a_thread_are_flooded() {
    const FLOOD: u64 = 3_000;
    let world = World::new(Clock::live());
    let (seen, log) = channel();
    // All begin at once, however the test's own thread gets on.
    let (release, held) = channel();
    let hold = world.node.spawn("hold", move || Hold(held)).unwrap();
    world.node.send(&hold, Open(0));
    for flooded in 0..20 {
        let seen = seen.clone();
        let to = world.node.pid("nobody").unwrap();
        let id = format!("flooded-{flooded}");
        let pid = world.node.spawn(&id, move || Actor { to, seen }).unwrap();
        world.node.send(&pid, Tick(1));
        world.node.send(&pid, Flood(FLOOD));
    }
    drop(release);
    let order: Vec<Seen> = log.iter().take(40).collect();
    let last_tick = order.iter().rposition(|seen| *seen == Seen::Ticked);
    let first_end = order.iter().position(|seen| *seen == Seen::Number(0));
    assert!(last_tick < first_end, "{order:?}");
    world.node.shutdown();
}

#[test]
fn a_link_between_threads_is_told_once_and_after_the_last_message() {
    let world = World::new(Clock::paused());
    let (watcher, log) = world.actor("watcher", Placement::Near, "sender");
    let (sender, _log) = world.actor("sender", Placement::LeastLoaded, "watcher");
    assert_ne!(world.thread("sender"), world.thread("watcher"));
    world.node.send(&watcher, Watch(sender.clone()));
    world.clock.settle();
    world.node.send(&sender, Count(500));
    world.node.send(&sender, End("done".into()));
    world.clock.settle();
    let mut expected: Vec<Seen> = (0..500).map(Seen::Number).collect();
    expected.push(Seen::Exited(ExitReason::Failed("done".into())));
    assert_eq!(log.try_iter().collect::<Vec<_>>(), expected);
    world.node.shutdown();
}

#[test]
fn asks_between_threads_are_answered() {
    let world = World::new(Clock::paused());
    let (asker, log) = world.actor("asker", Placement::Near, "answerer");
    let (_, _log) = world.actor("answerer", Placement::LeastLoaded, "asker");
    assert_ne!(world.thread("asker"), world.thread("answerer"));
    world.node.send(&asker, AskTimes(300));
    world.clock.settle();
    let expected: Vec<Seen> = (1..=300).rev().map(Seen::Number).collect();
    assert_eq!(log.try_iter().collect::<Vec<_>>(), expected);
    world.node.shutdown();
}

#[test]
fn the_time_of_an_ask_counts_from_the_end_of_a_slow_handler() {
    let world = World::new(Clock::live());
    let (asker, log) = world.actor("asker", Placement::Near, "silent");
    let (_, _log) = world.actor("silent", Placement::LeastLoaded, "asker");
    world.node.send(&asker, SlowAsk(60));
    let waited = log.recv().unwrap();
    assert!(matches!(waited, Seen::Number(60..)), "{waited:?} ms");
    assert_eq!(log.recv().unwrap(), Seen::Failed(AskError::TimedOut));
    world.node.shutdown();
}

const PATIENCE: Duration = Duration::from_secs(30);

/// A process is linked to while it ends on another thread: whichever comes first, the link ends.
#[test]
fn a_link_to_a_process_that_ends_just_then_on_another_thread_is_told() {
    const ROUNDS: usize = 3_000;
    let world = World::new(Clock::live());
    let (watcher, log) = world.actor("watcher", Placement::Near, "watcher");
    for round in 0..ROUNDS {
        let id = format!("target-{round}");
        let (target, _log) = world.actor(&id, Placement::LeastLoaded, "watcher");
        world.node.send(&watcher, Watch(target.clone()));
        world.node.send(&target, End("over".into()));
    }
    for told in 0..ROUNDS {
        let seen = log.recv_timeout(PATIENCE);
        assert!(matches!(seen, Ok(Seen::Exited(_))), "{told} told: {seen:?}");
    }
    world.node.shutdown();
}

/// A name is used again at the moment in which it is free: whoever waits for the end of the second process, or links
/// to it, does not hear that of the first.
#[test]
fn the_end_of_a_process_is_not_mixed_up_with_that_of_its_successor() {
    const ROUNDS: usize = 1_000;
    let world = World::new(Clock::live());
    let (watcher, log) = world.actor("watcher", Placement::Near, "watcher");
    for round in 0..ROUNDS {
        let target = loop {
            let (to, (seen, _log)) = (watcher.clone(), channel());
            let build = move || Actor { to, seen };
            let spawned = world
                .node
                .spawn_placed("target", Placement::LeastLoaded, build);
            if let Ok(target) = spawned {
                break target;
            }
        };
        let ended = world.node.ended(&target);
        world.node.send(&watcher, Watch(target.clone()));
        // It has linked once it has come to this.
        world.node.send(&watcher, Number(0));
        assert_eq!(
            log.recv_timeout(PATIENCE),
            Ok(Seen::Number(0)),
            "round {round}"
        );
        let reason = ExitReason::Failed(round.to_string());
        world.node.send(&target, End(round.to_string()));
        let exited = log.recv_timeout(PATIENCE);
        assert_eq!(exited, Ok(Seen::Exited(reason.clone())));
        assert_eq!(futures::executor::block_on(ended), reason);
    }
    world.node.shutdown();
}

/// A process of another thread is in the midst of sending when its node shuts down.
#[test]
fn nothing_comes_from_a_process_after_the_shutdown_of_its_node_was_told() {
    for run in 0..20 {
        let network = MemoryNetwork::new(run);
        let [near, far] = [1, 3].map(|threads| {
            let node = Node::builder().memory(&network).threads(threads);
            node.start().unwrap()
        });
        let (seen, log) = channel();
        let to = near.pid("watcher").unwrap();
        let (build_to, build_seen) = (to.clone(), seen);
        let built = near.spawn("watcher", move || Actor {
            to: build_to,
            seen: build_seen,
        });
        let watcher = built.unwrap();
        let ids = ["a", "b"];
        for id in ids {
            let (to, (seen, _log)) = (to.clone(), channel());
            let build = move || Actor { to, seen };
            let pouring = far.spawn_placed(id, Placement::LeastLoaded, build).unwrap();
            if id == "b" {
                near.send(&watcher, Watch(pouring.clone()));
                far.send(&pouring, Pour(0));
            }
        }
        assert_eq!(log.recv_timeout(PATIENCE), Ok(Seen::Number(0)));
        far.shutdown();
        while let Ok(Seen::Number(_)) = log.recv_timeout(PATIENCE) {}
        near.shutdown();
        assert_eq!(log.iter().count(), 0, "after the end of its sender");
    }
}
