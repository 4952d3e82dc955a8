//! Supervisors over a paused clock: who comes back, when, and what a supervisor's own end means.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use meseta_runtime::supervisor::{Child, Limits, Restart, Supervisor};
use meseta_runtime::testing::Probe;
use meseta_runtime::transport::memory::MemoryNetwork;
use meseta_runtime::{
    Ask, AskError, Clock, Context, ExitReason, Message, Node, Pid, Process, Receive, Routes,
};
use serde::{Deserialize, Serialize};

/// Adds to the count and tells it.
#[derive(Serialize, Deserialize)]
struct Count {}
impl Message for Count {
    const NAME: &'static str = "test.Count";
}
impl Ask for Count {
    type Reply = Counted;
}
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Counted {
    count: u64,
}
impl Message for Counted {
    const NAME: &'static str = "test.Counted";
}
#[derive(Serialize, Deserialize)]
enum End {
    Stop,
    Fail,
    Panic,
}
impl Message for End {
    const NAME: &'static str = "test.End";
}

#[derive(Default)]
struct Counter {
    count: u64,
    /// Tries to take the leash off.
    holder: Option<Pid>,
}
impl Process for Counter {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Count>().on::<End>();
    }
    fn start(&mut self, cx: &mut Context<'_, Self>) {
        if let Some(holder) = &self.holder {
            cx.unlink(holder);
        }
    }
}
impl Receive<Count> for Counter {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, _: Count) {
        self.count += 1;
        cx.reply(Counted { count: self.count });
    }
}
impl Receive<End> for Counter {
    #[expect(clippy::panic, reason = "this is what the message asks for")]
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, end: End) {
        match end {
            End::Stop => cx.stop(),
            End::Fail => cx.fail("é".repeat(10_000)),
            End::Panic => panic!("asked to"),
        }
    }
}

const LIMITS: Limits = Limits {
    restarts: 3,
    within: Duration::from_secs(60),
    first_delay: Duration::from_secs(1),
    longest_delay: Duration::from_secs(4),
};

struct World {
    clock: Clock,
    node: Node,
    probe: Probe,
}
impl World {
    fn new() -> Self {
        let clock = Clock::paused();
        let builder = Node::builder().memory(&MemoryNetwork::new(1)).seed(3);
        let node = builder.clock(clock.clone()).start().unwrap();
        let probe = node.testing().probe("probe").unwrap();
        Self { clock, node, probe }
    }
    fn pid(&self, id: &str) -> Pid {
        self.node.pid(id).unwrap()
    }
    /// Starts a supervisor `top` of counters `a`, `b` … of these kinds.
    fn supervise(&self, kinds: &[Restart]) -> Pid {
        let kinds = kinds.to_vec();
        let spawned = self.node.spawn("top", move || {
            let ids = ["a", "b", "c"];
            ids.iter()
                .zip(kinds)
                .fold(Supervisor::new(LIMITS), |top, (id, restart)| {
                    top.child(Child::new(id, restart, Counter::default))
                })
        });
        self.clock.settle();
        spawned.unwrap()
    }
    fn end(&self, id: &str, end: End) {
        self.probe.send(&self.pid(id), end);
        self.clock.settle();
    }
    fn lives(&self, id: &str) -> bool {
        self.clock.settle();
        self.node.processes().iter().any(|process| process.id == id)
    }
    fn count(&self, id: &str) -> u64 {
        self.probe.ask(&self.pid(id), Count {}).wait().count
    }
}
impl Drop for World {
    fn drop(&mut self) {
        self.node.shutdown();
    }
}

#[test]
fn a_child_that_panics_comes_back_under_its_name_with_fresh_state_and_no_other_is_touched() {
    let world = World::new();
    world.supervise(&[Restart::Permanent, Restart::Permanent]);
    assert_eq!((world.count("a"), world.count("b")), (1, 1));
    world.probe.link(&world.pid("a"));
    world.end("a", End::Panic);
    let reason = ExitReason::Panic("asked to".into());
    assert_eq!(world.probe.expect_exited(&world.pid("a")), reason);
    assert!(!world.lives("a"), "not before its delay");
    world.clock.advance(LIMITS.first_delay);
    assert_eq!((world.count("a"), world.count("b")), (1, 2));
    let restarts = world.node.metrics().value("runtime/supervisor_restarts");
    assert_eq!(restarts, Some(1.0));
}

#[test]
fn each_kind_of_child_follows_its_own_ends() {
    let world = World::new();
    world.supervise(&[Restart::Permanent, Restart::Transient, Restart::Temporary]);
    let alive = || ["a", "b", "c"].map(|id| world.lives(id));
    for id in ["a", "b"] {
        world.end(id, End::Panic);
    }
    world.clock.advance(LIMITS.longest_delay);
    assert_eq!(alive(), [true; 3]);
    for id in ["a", "b"] {
        world.end(id, End::Stop);
    }
    world.end("c", End::Panic);
    world.clock.advance(LIMITS.longest_delay);
    assert_eq!(alive(), [true, false, false]);
}

#[test]
fn a_supervisor_whose_children_end_too_often_ends_with_a_reason_and_takes_them_along() {
    let world = World::new();
    let top = world.supervise(&[Restart::Permanent, Restart::Permanent]);
    world.probe.link(&top);
    for _ in 0..LIMITS.restarts {
        world.end("a", End::Panic);
        world.clock.advance(LIMITS.longest_delay);
    }
    assert!(world.lives("a") && world.lives("b"));
    world.probe.link(&world.pid("b"));
    world.end("a", End::Panic);
    let ExitReason::Failed(text) = world.probe.expect_exited(&top) else {
        unreachable!("a supervisor that gives up says that it failed")
    };
    assert_eq!(
        text,
        "4 children's restarts within 60s are too many; the last to end was a: Panic(\"asked to\")"
    );
    assert_eq!(
        world.probe.expect_exited(&world.pid("b")),
        ExitReason::Terminated
    );
    world.clock.advance(LIMITS.longest_delay);
    assert!(!world.lives("a"));
}

#[test]
fn supervisors_stand_above_each_other() {
    let world = World::new();
    let spawned = world.node.spawn("top", || {
        let lower = || {
            let none = Limits {
                restarts: 0,
                ..LIMITS
            };
            Supervisor::new(none).child(Child::new("leaf", Restart::Permanent, Counter::default))
        };
        Supervisor::new(LIMITS).child(Child::new("lower", Restart::Transient, lower))
    });
    let top = spawned.unwrap();
    world.clock.settle();
    assert_eq!((world.count("leaf"), world.count("leaf")), (1, 2));
    world.end("leaf", End::Panic);
    assert!(!world.lives("lower"), "it may restart nothing");
    world.clock.advance(LIMITS.longest_delay);
    assert_eq!(world.count("leaf"), 1);
    world.node.terminate(&top);
    assert!(!world.lives("lower") && !world.lives("leaf"));
}

#[test]
fn a_child_ends_with_its_supervisor_though_it_takes_its_links_back() {
    let world = World::new();
    let holder = world.pid("top");
    let spawned = world.node.spawn("top", move || {
        let build = move || Counter {
            count: 0,
            holder: Some(holder.clone()),
        };
        Supervisor::new(LIMITS).child(Child::new("a", Restart::Permanent, build))
    });
    assert!(world.lives("a"));
    world.node.terminate(&spawned.unwrap());
    assert!(!world.lives("a"));
}

#[test]
fn a_child_that_cannot_be_started_is_tried_again_until_its_supervisor_gives_up() {
    let world = World::new();
    let taken = world.node.testing().probe("a").unwrap();
    let top = world.supervise(&[Restart::Permanent]);
    world.clock.advance(Duration::ZERO);
    taken.end(ExitReason::Normal);
    world.clock.advance(LIMITS.longest_delay);
    assert_eq!(world.count("a"), 1);
    world.node.terminate(&top);
    world.clock.settle();
    let spawned = world.node.spawn("top", || {
        let build = || -> Counter { panic!("no more counters") };
        Supervisor::new(LIMITS).child(Child::new("a", Restart::Permanent, build))
    });
    let top = spawned.unwrap();
    world.probe.link(&top);
    let reason = world.probe.expect_exited_within(&top, LIMITS.within);
    assert!(
        matches!(&reason, ExitReason::Failed(text) if text.ends_with("Panic(\"no more counters\")")),
        "{reason:?}"
    );
}

/// Asks a process that never answers, and tells how each ask ended.
struct Asker {
    silent: Pid,
    told: std::sync::mpsc::Sender<AskError>,
}
impl Process for Asker {
    fn routes(_: &mut Routes<Self>) {}
    fn start(&mut self, cx: &mut Context<'_, Self>) {
        for _ in 0..2 {
            cx.ask(
                &self.silent,
                Count {},
                Duration::from_secs(5),
                |me, _, answer| {
                    me.told.send(answer.unwrap_err()).unwrap();
                },
            );
        }
    }
}

#[test]
fn what_a_child_asks_times_out_as_for_any_process() {
    let world = World::new();
    let _silent = world.node.testing().probe("silent").unwrap();
    let (told, log) = std::sync::mpsc::channel();
    let silent = world.pid("silent");
    let spawned = world.node.spawn("top", move || {
        let told = std::sync::Mutex::new(told);
        let build = move || Asker {
            silent: silent.clone(),
            told: told.lock().unwrap().clone(),
        };
        Supervisor::new(LIMITS).child(Child::new("asker", Restart::Permanent, build))
    });
    spawned.unwrap();
    world.clock.settle();
    assert_eq!(log.try_iter().count(), 0);
    world.clock.advance(Duration::from_secs(5));
    let ended: Vec<AskError> = log.try_iter().collect();
    assert_eq!(ended, [AskError::TimedOut; 2]);
}

/// Takes a name in its first turn and then ends in one of the ways in which its effects are dropped.
struct Spawner {
    runs: std::sync::Arc<std::sync::atomic::AtomicU32>,
}
impl Process for Spawner {
    fn routes(_: &mut Routes<Self>) {}
    #[expect(clippy::panic, reason = "this is what the test is about")]
    fn start(&mut self, cx: &mut Context<'_, Self>) {
        let run = self.runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if run == 1 {
            cx.fail("before its effects");
        }
        cx.spawn("grandchild", Counter::default).unwrap();
        if run == 0 {
            panic!("after it took a name");
        }
    }
}

#[test]
fn a_name_taken_by_a_turn_whose_effects_are_dropped_is_free_again() {
    let world = World::new();
    let runs = std::sync::Arc::default();
    let build = {
        let runs = std::sync::Arc::clone(&runs);
        move || Spawner {
            runs: std::sync::Arc::clone(&runs),
        }
    };
    let spawned = world.node.spawn("top", move || {
        Supervisor::new(LIMITS).child(Child::new("child", Restart::Permanent, build))
    });
    spawned.unwrap();
    assert!(!world.lives("grandchild"), "its spawner panicked");
    world.clock.advance(LIMITS.first_delay);
    assert!(!world.lives("grandchild"), "its spawner stopped first");
    world.clock.advance(LIMITS.longest_delay);
    assert_eq!(runs.load(std::sync::atomic::Ordering::Relaxed), 3);
    assert_eq!(world.count("grandchild"), 1);
}

#[test]
fn the_text_of_a_failure_is_cut() {
    let world = World::new();
    let spawned = world.node.spawn("a", Counter::default).unwrap();
    world.probe.link(&spawned);
    world.end("a", End::Fail);
    let ExitReason::Failed(text) = world.probe.expect_exited(&spawned) else {
        unreachable!("it failed")
    };
    assert_eq!(text, "é".repeat(2_048));
}
