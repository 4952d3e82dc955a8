//! Our side of the figures: nodes, processes, messages.

use std::time::{Duration, Instant};

use bytes::Bytes;
use meseta_runtime::{
    Ask, Context, Credentials, ExitReason, Message, Node, Pid, Process, Receive, Routes,
};
use serde::{Deserialize, Serialize};

use crate::LIMIT;
use crate::side::{Child, Folder, files, until_parent_ends};

/// Messages of one turn.
const BURST: u64 = 256;

/// What is measured: as many bytes as its body has when it is encoded.
#[derive(Clone, Serialize, Deserialize)]
pub struct Data {
    seq: u64,
    body: Bytes,
}
impl Message for Data {
    const NAME: &'static str = "bench.Data";
}

/// As [`Data`], to be sent back.
#[derive(Serialize, Deserialize)]
pub struct Echo {
    seq: u64,
    body: Bytes,
}
impl Message for Echo {
    const NAME: &'static str = "bench.Echo";
}

/// So many have come.
#[derive(Serialize, Deserialize)]
struct Taken {
    count: u64,
}
impl Message for Taken {
    const NAME: &'static str = "bench.Taken";
}

/// Go on.
#[derive(Serialize, Deserialize)]
struct More;
impl Message for More {
    const NAME: &'static str = "bench.More";
}

/// Send so many messages of this size, at most `window` of them unconfirmed.
#[derive(Serialize, Deserialize)]
struct Run {
    to: Pid,
    size: usize,
    count: u64,
    window: u64,
    echo: bool,
}
impl Message for Run {
    const NAME: &'static str = "bench.Run";
}
impl Ask for Run {
    type Reply = Ran;
}

/// Nanoseconds of the run, and of each round trip.
#[derive(Serialize, Deserialize)]
struct Ran {
    nanos: u64,
    each: Vec<u64>,
}
impl Message for Ran {
    const NAME: &'static str = "bench.Ran";
}

/// A message whose encoding has `size` bytes.
fn sized(size: usize) -> Data {
    let mut data = Data {
        seq: 70_000,
        body: Bytes::new(),
    };
    let mut length = size;
    loop {
        data.body = Bytes::from(vec![0xab; length]);
        let encoded = rmp_serde::to_vec_named(&data).unwrap().len();
        if encoded <= size {
            return data;
        }
        length -= encoded - size;
    }
}

/// Takes messages, and says how many have come: twice in each window.
#[derive(Default)]
struct Sink {
    count: u64,
    bytes: usize,
}

impl Process for Sink {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Data>().on::<Echo>().on::<Run>();
    }
}

impl Receive<Run> for Sink {
    /// A run begins; `window` is after how many it is to be confirmed.
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, run: Run) {
        self.count = 0;
        self.bytes = usize::try_from(run.window).unwrap();
        cx.reply(Ran {
            nanos: 0,
            each: Vec::new(),
        });
    }
}

impl Receive<Data> for Sink {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, data: Data) {
        std::hint::black_box(&data.body);
        self.count += 1;
        if self.count.is_multiple_of(self.bytes as u64) {
            let count = self.count;
            cx.send(from, Taken { count });
        }
    }
}

impl Receive<Echo> for Sink {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, echo: Echo) {
        let (seq, body) = (echo.seq, echo.body);
        cx.send(from, Data { seq, body });
    }
}

/// Sends messages.
struct Source {
    run: Run,
    data: Data,
    sent: u64,
    confirmed: u64,
    began: Instant,
    last: Instant,
    each: Vec<u64>,
    going: bool,
    answer: Option<meseta_runtime::ReplyTo>,
}

impl Source {
    fn new() -> Self {
        Self {
            run: Run {
                to: "nobody@127.0.0.1:1".parse().unwrap(),
                size: 0,
                count: 0,
                window: 0,
                echo: false,
            },
            data: sized(100),
            sent: 0,
            confirmed: 0,
            began: Instant::now(),
            last: Instant::now(),
            each: Vec::new(),
            going: false,
            answer: None,
        }
    }

    fn fill(&mut self, cx: &mut Context<'_, Self>) {
        let room = (self.confirmed + self.run.window).min(self.run.count);
        let end = room.min(self.sent + BURST);
        while self.sent < end {
            let (seq, body) = (self.sent, self.data.body.clone());
            if self.run.echo {
                cx.send(&self.run.to, Echo { seq, body });
            } else {
                cx.send(&self.run.to, Data { seq, body });
            }
            self.sent += 1;
        }
        if self.sent < room && !self.going {
            self.going = true;
            let me = cx.me().clone();
            cx.send(&me, More);
        }
    }

    fn finish(&mut self, cx: &mut Context<'_, Self>) {
        if self.confirmed == self.run.count
            && let Some(answer) = self.answer.take()
        {
            let nanos = u64::try_from(self.began.elapsed().as_nanos()).unwrap();
            let each = std::mem::take(&mut self.each);
            cx.reply_later(&answer, Ran { nanos, each });
        }
    }
}

impl Process for Source {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Run>().on::<More>().on::<Taken>().on::<Data>();
    }
}

impl Receive<Run> for Source {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, run: Run) {
        self.data = sized(run.size);
        self.answer = cx.defer_reply();
        (self.sent, self.confirmed, self.going) = (0, 0, false);
        self.began = Instant::now();
        self.last = self.began;
        self.run = run;
        self.fill(cx);
    }
}

impl Receive<More> for Source {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, _: More) {
        self.going = false;
        self.fill(cx);
    }
}

impl Receive<Taken> for Source {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, taken: Taken) {
        self.confirmed = taken.count;
        self.fill(cx);
        self.finish(cx);
    }
}

impl Receive<Data> for Source {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, data: Data) {
        assert_eq!(data.seq, self.confirmed, "out of order");
        self.confirmed += 1;
        if self.run.window == 1 {
            let now = Instant::now();
            let nanos = now.duration_since(self.last).as_nanos();
            self.each.push(u64::try_from(nanos).unwrap());
            self.last = now;
        }
        self.fill(cx);
        self.finish(cx);
    }
}

/// Tells the outside of an end.
struct Watcher {
    of: Pid,
    told: std::sync::mpsc::Sender<Instant>,
}

impl Process for Watcher {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Data>();
    }
    fn start(&mut self, cx: &mut Context<'_, Self>) {
        cx.link(&self.of);
        let data = sized(100);
        cx.send(
            &self.of,
            Echo {
                seq: 0,
                body: data.body,
            },
        );
    }
    fn exited(&mut self, _: &mut Context<'_, Self>, _: &Pid, _: ExitReason) {
        self.told.send(Instant::now()).unwrap();
    }
}

impl Receive<Data> for Watcher {
    /// The answer: the link stands, for it went before.
    fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, _: Data) {
        self.told.send(Instant::now()).unwrap();
    }
}

fn node(folder: &std::path::Path, side: &str) -> Node {
    let [ca, certificate, key] = files(folder, side);
    let credentials = Credentials::Files {
        ca,
        certificate,
        key,
    };
    Node::builder().credentials(credentials).start().unwrap()
}

/// The other side.
pub fn serve(folder: &str) {
    let node = node(folder.as_ref(), "server");
    let sink = node.spawn("sink", Sink::default).unwrap();
    println!("{sink}");
    until_parent_ends();
}

/// A node here and one in another process.
pub struct Pair {
    pub child: Child,
    node: Node,
    source: Pid,
    sink: Pid,
}

impl Pair {
    pub fn new(folder: &Folder) -> Self {
        let child = Child::start("ours", folder, &[]);
        let node = node(folder.path(), "client");
        let source = node.spawn("source", Source::new).unwrap();
        let sink = child.line.parse().unwrap();
        Self {
            child,
            node,
            source,
            sink,
        }
    }

    fn run(&self, size: usize, count: u64, window: u64, echo: bool) -> Ran {
        let run = |window| Run {
            to: self.sink.clone(),
            size,
            count,
            window,
            echo,
        };
        // Confirmed often enough that the sender never has to wait for it.
        let step = (1..=(window / 4).max(1))
            .rev()
            .find(|n| count.is_multiple_of(*n));
        let begin = run(step.unwrap());
        self.node.ask(&self.sink, begin, LIMIT).wait().unwrap();
        self.node
            .ask(&self.source, run(window), LIMIT)
            .wait()
            .unwrap()
    }

    /// Seconds until all are confirmed.
    pub fn oneway(&self, size: usize, count: u64) -> f64 {
        // About what is on its way at most in the raw program, which its stream's window holds back.
        let window = (2_000_000 / size as u64).clamp(64, 20_000);
        self.run(size, count, window, false).nanos as f64 / 1e9
    }

    /// Nanoseconds of each round trip.
    pub fn ping(&self, count: u64) -> Vec<u64> {
        self.run(100, count, 1, true).each
    }

    pub fn in_flight(&self, count: u64) -> f64 {
        self.run(100, count, 1000, true).nanos as f64 / 1e9
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.node.shutdown();
    }
}

/// Time from the first message of a new node to its answer.
pub fn connect(folder: &Folder, sink: &str) -> Duration {
    let node = node(folder.path(), "client");
    let sink: Pid = sink.parse().unwrap();
    let run = Run {
        to: sink.clone(),
        size: 100,
        count: 1,
        window: 1,
        echo: true,
    };
    let began = Instant::now();
    node.ask(&sink, run, LIMIT).wait().unwrap();
    let took = began.elapsed();
    node.shutdown();
    took
}

/// Time from the kill of a peer to `exited` at a process that had linked to one of its.
pub fn killed(folder: &Folder) -> Duration {
    let mut child = Child::start("ours", folder, &[]);
    let node = node(folder.path(), "client");
    let of: Pid = child.line.parse().unwrap();
    let (told, ears) = std::sync::mpsc::channel();
    node.spawn("watcher", move || Watcher { of, told }).unwrap();
    ears.recv_timeout(LIMIT).unwrap();
    // The probe is set up beside the first messages.
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    child.kill();
    let took = ears.recv_timeout(LIMIT).unwrap().duration_since(began);
    node.shutdown();
    took
}
