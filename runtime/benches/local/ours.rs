//! Our figures: every message goes by PID, through a mailbox with its bound, to a handler found by its kind.

use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use meseta_runtime::transport::memory::MemoryNetwork;
use meseta_runtime::{Ask, Context, Message, Node, Pid, Placement, Process, Receive, Routes};
use serde::{Deserialize, Serialize};

use crate::{ASKS, EACH, IDLE, IN_FLIGHT, PAIR_ASKS, PAIRS, SOURCES, TELLS};

/// Messages that a sender sends in one turn.
const BATCH: u64 = 256;
const LIMIT: Duration = Duration::from_secs(60);

macro_rules! message {
    ($name:ident($type:ty)) => {
        #[derive(Serialize, Deserialize)]
        struct $name($type);
        impl Message for $name {
            const NAME: &'static str = concat!("bench.", stringify!($name));
        }
    };
}
message!(Number(u64));
message!(Go(u64));
message!(Question(u64));
message!(Answer(u64));
impl Ask for Question {
    type Reply = Answer;
}

/// Counts what it is told, and says when it has had enough.
struct Sink {
    left: u64,
    done: Option<Sender<()>>,
}
impl Process for Sink {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Number>().on::<Question>();
    }
}
impl Receive<Number> for Sink {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, _: Number) {
        self.left -= 1;
        if self.left == 0
            && let Some(done) = self.done.take()
        {
            done.send(()).unwrap();
        }
    }
}
impl Receive<Question> for Sink {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, Question(number): Question) {
        cx.reply(Answer(number + 1));
    }
}

/// Tells a sink so many numbers, a batch a turn.
struct Source {
    to: Pid,
}
impl Process for Source {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Go>();
    }
}
impl Receive<Go> for Source {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, Go(left): Go) {
        let batch = left.min(BATCH);
        for number in 0..batch {
            cx.send(&self.to, Number(number));
        }
        if left > batch {
            let me = cx.me().clone();
            cx.send(&me, Go(left - batch));
        }
    }
}

/// Asks so often, with so many in flight.
struct Asker {
    to: Pid,
    left: u64,
    open: u64,
    done: Option<Sender<()>>,
}
impl Process for Asker {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Go>();
    }
    /// Brings the one it asks along, unless that is there.
    fn start(&mut self, cx: &mut Context<'_, Self>) {
        if self.to.id() != "sink" {
            let sink = || Sink {
                left: 1,
                done: None,
            };
            cx.spawn(self.to.id(), sink).unwrap();
        }
    }
}
impl Receive<Go> for Asker {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, Go(in_flight): Go) {
        for _ in 0..in_flight {
            self.next(cx);
        }
    }
}
impl Asker {
    fn next(&mut self, cx: &mut Context<'_, Self>) {
        if self.left > 0 {
            self.left -= 1;
            self.open += 1;
            cx.ask(&self.to, Question(self.left), LIMIT, |me, cx, answer| {
                answer.unwrap();
                me.open -= 1;
                me.next(cx);
            });
        } else if self.open == 0
            && let Some(done) = self.done.take()
        {
            done.send(()).unwrap();
        }
    }
}

fn node(threads: usize) -> Node {
    let builder = Node::builder().memory(&MemoryNetwork::default());
    // Senders outrun receivers, as they may with the unbounded queues of others.
    builder.threads(threads).mailbox(4_000_000).start().unwrap()
}

fn sink(node: &Node, placement: Placement, left: u64) -> (Pid, std::sync::mpsc::Receiver<()>) {
    let (done, end) = channel();
    let done = Some(done);
    let sink = node.spawn_placed("sink", placement, move || Sink { left, done });
    (sink.unwrap(), end)
}

/// Near when both share the first thread, else on the least loaded one, which is the other.
fn apart(other_thread: bool) -> Placement {
    if other_thread {
        Placement::LeastLoaded
    } else {
        Placement::Near
    }
}

pub fn tell(other_thread: bool) -> Duration {
    let node = node(2);
    let to = node.pid("sink").unwrap();
    let source = node.spawn("source", move || Source { to }).unwrap();
    let (_, end) = sink(&node, apart(other_thread), TELLS);
    let began = Instant::now();
    node.send(&source, Go(TELLS));
    end.recv().unwrap();
    let took = began.elapsed();
    node.shutdown();
    took
}

fn asker(
    node: &Node,
    id: &str,
    placement: Placement,
    to: Pid,
    left: u64,
) -> (Pid, std::sync::mpsc::Receiver<()>) {
    let (done, end) = channel();
    let build = move || Asker {
        to,
        left,
        open: 0,
        done: Some(done),
    };
    (node.spawn_placed(id, placement, build).unwrap(), end)
}

pub fn ask(other_thread: bool) -> Duration {
    let node = node(2);
    let to = node.pid("sink").unwrap();
    let (asker, end) = asker(&node, "asker", Placement::Near, to, ASKS);
    let (_, _never) = sink(&node, apart(other_thread), 1);
    let began = Instant::now();
    node.send(&asker, Go(1));
    end.recv().unwrap();
    let took = began.elapsed();
    node.shutdown();
    took
}

/// Each pair on a thread of its own.
pub fn in_flight() -> Duration {
    let node = node(2);
    let askers: Vec<_> = (0..PAIRS)
        .map(|pair| {
            let to = node.pid(&format!("sink-{pair}")).unwrap();
            let id = format!("asker-{pair}");
            asker(&node, &id, Placement::LeastLoaded, to, PAIR_ASKS)
        })
        .collect();
    let began = Instant::now();
    for (asker, _) in &askers {
        node.send(asker, Go(IN_FLIGHT));
    }
    for (_, end) in askers {
        end.recv().unwrap();
    }
    let took = began.elapsed();
    node.shutdown();
    took
}

pub fn fan_in() -> Duration {
    let node = node(2);
    let (to, end) = sink(&node, Placement::Near, SOURCES * EACH);
    let sources: Vec<Pid> = (0..SOURCES)
        .map(|_| {
            let to = to.clone();
            node.spawn_numbered("source", move || Source { to })
                .unwrap()
        })
        .collect();
    let began = Instant::now();
    for source in &sources {
        node.send(source, Go(EACH));
    }
    end.recv().unwrap();
    let took = began.elapsed();
    node.shutdown();
    took
}

struct Idle {
    _number: u64,
}
impl Process for Idle {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Number>();
    }
}
impl Receive<Number> for Idle {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, _: Number) {}
}

/// Spawns idle actors, a batch a turn.
struct Parent {
    done: Sender<()>,
}
impl Process for Parent {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Go>();
    }
}
impl Receive<Go> for Parent {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, Go(left): Go) {
        let batch = left.min(BATCH);
        for number in 0..batch {
            let build = move || Idle { _number: number };
            cx.spawn_numbered("idle", build).unwrap();
        }
        if left > 0 {
            let me = cx.me().clone();
            cx.send(&me, Go(left - batch));
        } else {
            self.done.send(()).unwrap();
        }
    }
}

fn parent(node: &Node) -> (Pid, std::sync::mpsc::Receiver<()>) {
    let (done, end) = channel();
    (node.spawn("parent", move || Parent { done }).unwrap(), end)
}

/// Returns when all have started: a thread starts processes in the order in which they were spawned, and the last of
/// them is one that was asked.
fn spawn_idle(node: &Node, parent: &Pid, end: &std::sync::mpsc::Receiver<()>) {
    node.send(parent, Go(IDLE));
    end.recv().unwrap();
    let (sink, end) = sink(node, Placement::Near, 1);
    node.send(&sink, Number(0));
    end.recv().unwrap();
}

pub fn spawn() -> Duration {
    let node = node(1);
    let (parent, end) = parent(&node);
    let began = Instant::now();
    spawn_idle(&node, &parent, &end);
    let took = began.elapsed();
    node.shutdown();
    took
}

/// Bytes of an idle actor, by the resident memory of this program.
pub fn weigh() -> f64 {
    let node = node(1);
    let (parent, end) = parent(&node);
    let before = resident();
    spawn_idle(&node, &parent, &end);
    let after = resident();
    (after - before) * 1_024.0 / IDLE as f64
}

/// Resident memory in KiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
