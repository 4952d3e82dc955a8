//! What a guest over a Unix socket costs, beside one over QUIC in the same run: messages one way, round trips, and the
//! connection itself: time to the first reply, and processor time of both sides.
//!
//! Host and guest are two nodes of this program, each with a thread of its own; a guest gets its one-use key or token
//! as executors get theirs. Each figure is one line: name, metric, median, unit, smallest, largest, number of runs. A
//! line `ratio` follows each pair.
//!
//! ```sh
//! cargo bench -p meseta-runtime --bench unix
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a measuring program: it stops at the first thing that goes wrong, prints, and reads the time"
)]

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use meseta_runtime::identity::{CertificateAuthority, GuestKey, Identity};
use meseta_runtime::transport::unix::{GuestSocket, GuestToken, HostSocket, Reach};
use meseta_runtime::transport::{Guest, Proof};
use meseta_runtime::{
    Ask, Context, Credentials, Message, Node, Pid, Process, Receive, ReplyTo, Routes,
};
use serde::{Deserialize, Serialize};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(60);
/// Runs of each figure.
const RUNS: usize = 5;
/// Guests that connect, each once.
const CONNECTS: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Way {
    Quic,
    Unix,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Quic => "guest over QUIC",
            Self::Unix => "guest over a Unix socket",
        }
    }
}

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty),* } $(-> $reply:ident)?;)*) => {$(
        $(#[$doc])*
        #[derive(Serialize, Deserialize)]
        struct $name { $($field: $kind),* }
        impl Message for $name {
            const NAME: &'static str = concat!("bench.", stringify!($name));
        }
        $(impl Ask for $name { type Reply = $reply; })?
    )*};
}
messages!(
    /// Make a key or a token for this guest, and let it in.
    Open { id: String, way: Way } -> Opened;
    /// Certificate and private key, or the token alone.
    Opened { public: Vec<u8>, secret: Vec<u8> };
    /// The guest's process is over.
    Shut { id: String } -> Done;
    /// Where the thread's times stand.
    Where { } -> Thread;
    Thread { path: PathBuf };
    /// Send so many messages of this size, at most `window` of them unanswered.
    Run { to: Pid, size: usize, count: u64, window: u64, echo: bool } -> Done;
    Done { nanos: u64, each: Vec<u64> };
    Data { body: Bytes };
    Echo { body: Bytes };
    /// So many have come.
    Taken { count: u64 };
);

fn thread() -> Thread {
    let path = std::fs::canonicalize("/proc/thread-self").unwrap();
    Thread { path }
}

fn done() -> Done {
    Done {
        nanos: 0,
        each: Vec::new(),
    }
}

/// Lets guests in, takes their messages, and says every 64 how many have come.
#[derive(Default)]
struct Host {
    counts: HashMap<Pid, u64>,
}

impl Process for Host {
    fn routes(routes: &mut Routes<Self>) {
        routes
            .on::<Open>()
            .on::<Shut>()
            .on::<Where>()
            .on::<Data>()
            .on::<Echo>();
    }
}

impl Receive<Open> for Host {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, open: Open) {
        let (proof, opened) = match open.way {
            Way::Quic => {
                let key = GuestKey::generate().unwrap();
                let proof = Proof::Certificate(key.fingerprint);
                let (public, secret) = (key.certificate, key.private_key);
                (proof, Opened { public, secret })
            }
            Way::Unix => {
                let token = GuestToken::generate().unwrap();
                let (hash, uid) = (token.hash(), nix::unistd::Uid::effective().as_raw());
                let secret = token.secret().to_vec();
                let public = Vec::new();
                (Proof::Token { hash, uid }, Opened { public, secret })
            }
        };
        cx.pin_guest(Guest {
            id: Arc::from(open.id),
            role: Arc::from("executor"),
            proof,
        });
        cx.reply(opened);
    }
}

impl Receive<Shut> for Host {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, shut: Shut) {
        cx.unpin_guest(&shut.id);
        cx.reply(done());
    }
}

impl Receive<Where> for Host {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, _: Where) {
        cx.reply(thread());
    }
}

impl Receive<Data> for Host {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, data: Data) {
        std::hint::black_box(&data.body);
        let count = match self.counts.get_mut(from) {
            Some(count) => count,
            None => self.counts.entry(from.clone()).or_default(),
        };
        *count += 1;
        if count.is_multiple_of(64) {
            cx.send(from, Taken { count: *count });
        }
    }
}

impl Receive<Echo> for Host {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, echo: Echo) {
        cx.send(from, Echo { body: echo.body });
    }
}

/// The guest's one process: sends, and measures.
struct Executor {
    run: Option<Run>,
    body: Bytes,
    sent: u64,
    confirmed: u64,
    /// Confirmed in earlier runs.
    base: u64,
    began: Instant,
    last: Instant,
    each: Vec<u64>,
    answer: Option<ReplyTo>,
}

impl Executor {
    fn new() -> Self {
        Self {
            run: None,
            body: Bytes::new(),
            sent: 0,
            confirmed: 0,
            base: 0,
            began: Instant::now(),
            last: Instant::now(),
            each: Vec::new(),
            answer: None,
        }
    }

    fn go_on(&mut self, cx: &mut Context<'_, Self>) {
        let Some(run) = &self.run else { return };
        let room = (self.confirmed + run.window).min(run.count);
        while self.sent < room {
            let body = self.body.clone();
            if run.echo {
                cx.send(&run.to, Echo { body });
            } else {
                cx.send(&run.to, Data { body });
            }
            self.sent += 1;
        }
        if self.confirmed == run.count
            && let Some(answer) = self.answer.take()
        {
            self.base += if run.echo { 0 } else { run.count };
            let nanos = u64::try_from(self.began.elapsed().as_nanos()).unwrap();
            let each = std::mem::take(&mut self.each);
            cx.reply_later(&answer, Done { nanos, each });
        }
    }
}

impl Process for Executor {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Run>().on::<Where>().on::<Taken>().on::<Echo>();
    }
}

impl Receive<Run> for Executor {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, run: Run) {
        self.answer = cx.defer_reply();
        self.body = Bytes::from(vec![0xab; run.size]);
        (self.sent, self.confirmed) = (0, 0);
        self.began = Instant::now();
        self.last = self.began;
        self.run = Some(run);
        self.go_on(cx);
    }
}

impl Receive<Where> for Executor {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, _: Where) {
        cx.reply(thread());
    }
}

impl Receive<Taken> for Executor {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, taken: Taken) {
        self.confirmed = taken.count - self.base;
        self.go_on(cx);
    }
}

impl Receive<Echo> for Executor {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, _: Echo) {
        self.confirmed += 1;
        let now = Instant::now();
        let nanos = now.duration_since(self.last).as_nanos();
        self.each.push(u64::try_from(nanos).unwrap());
        self.last = now;
        self.go_on(cx);
    }
}

/// A host with both transports.
struct World {
    authority: CertificateAuthority,
    socket: PathBuf,
    node: Node,
    host: Pid,
    thread: PathBuf,
    guests: std::cell::Cell<u64>,
    _folder: tempfile::TempDir,
}

/// A guest that was let in and has not spoken yet.
struct Visitor {
    node: Node,
    process: Pid,
    /// Processor time of the host for making and pinning what it shows, in microseconds.
    made: f64,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("run/guests");
        let authority = CertificateAuthority::create("bench").unwrap();
        let hosts = ["127.0.0.1".to_owned()];
        let identity = Identity::issue(&authority, &hosts, &["agent"]).unwrap();
        let node = Node::builder()
            .role("agent")
            .credentials(Credentials::Given(Box::new(identity)))
            .guests_at(GuestSocket {
                path: socket.clone(),
                reach: Reach::OwnUser,
            })
            .start()
            .unwrap();
        let host = node.spawn("slave(1)", Host::default).unwrap();
        let thread = node.ask(&host, Where {}, LIMIT).wait().unwrap().path;
        Self {
            authority,
            socket,
            node,
            host,
            thread,
            guests: std::cell::Cell::new(0),
            _folder: folder,
        }
    }

    fn guest(&self, way: Way) -> Visitor {
        self.guests.set(self.guests.get() + 1);
        let id = format!("executor-{}", self.guests.get());
        let before = cpu_us(&self.thread);
        let open = Open {
            id: id.clone(),
            way,
        };
        let opened = self.node.ask(&self.host, open, LIMIT).wait().unwrap();
        let made = cpu_us(&self.thread) - before;
        let builder = Node::builder()
            .role("executor")
            .guest_of(self.node.address().clone(), &id);
        let builder = match way {
            Way::Quic => {
                let ca = self.authority.certificate().to_vec();
                let identity = Identity::from_der(vec![opened.public], opened.secret, vec![ca]);
                builder.credentials(Credentials::Given(Box::new(identity.unwrap())))
            }
            Way::Unix => {
                let uid = nix::unistd::Uid::effective().as_raw();
                let socket = HostSocket::at(&self.socket, uid).unwrap();
                builder.over_unix(socket, GuestToken::of(&opened.secret).unwrap())
            }
        };
        let node = builder.start().unwrap();
        let process = node.spawn(&id, Executor::new).unwrap();
        Visitor {
            node,
            process,
            made,
        }
    }

    fn run(&self, guest: &Visitor, (size, count, window): (usize, u64, u64), echo: bool) -> Done {
        let run = Run {
            to: self.host.clone(),
            size,
            count,
            window,
            echo,
        };
        guest.node.ask(&guest.process, run, LIMIT).wait().unwrap()
    }

    fn leave(&self, guest: &Visitor) {
        guest.node.shutdown();
        let id = guest.process.id().to_owned();
        self.node
            .ask(&self.host, Shut { id }, LIMIT)
            .wait()
            .unwrap();
    }
}

/// Processor time of a thread, in microseconds.
fn cpu_us(thread: &std::path::Path) -> f64 {
    let text = std::fs::read_to_string(thread.join("schedstat")).unwrap();
    let nanos: f64 = text.split_whitespace().next().unwrap().parse().unwrap();
    nanos / 1e3
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints the figure of both, and how many times that of QUIC the other is.
fn report(metric: &str, unit: &str, mut quic: Vec<f64>, mut unix: Vec<f64>) {
    let ratio = median(&mut unix) / median(&mut quic);
    for (way, values) in [(Way::Quic, quic), (Way::Unix, unix)] {
        let (name, runs) = (way.name(), values.len());
        let (middle, least, most) = (values[runs / 2], values[0], values[runs - 1]);
        println!("{name}\t{metric}\t{middle:.1}\t{unit}\t{least:.1}\t{most:.1}\t{runs}");
    }
    println!("ratio\t{metric}\t{ratio:.3}\tx QUIC");
}

fn one_way(world: &World, size: usize, count: u64) {
    let guests = [Way::Quic, Way::Unix].map(|way| world.guest(way));
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..=RUNS {
        for (guest, rates) in guests.iter().zip(&mut rates) {
            let window = (16_000_000 / size as u64).clamp(256, 20_000);
            let done = world.run(guest, (size, count, window), false);
            if round > 0 {
                rates.push(count as f64 / (done.nanos as f64 / 1e9));
            }
        }
    }
    guests.iter().for_each(|guest| world.leave(guest));
    let [quic, unix] = rates;
    report(&format!("one way {size} B"), "msg/s", quic, unix);
}

fn ping_pong(world: &World) {
    let guests = [Way::Quic, Way::Unix].map(|way| world.guest(way));
    let mut p50 = [Vec::new(), Vec::new()];
    let mut p99 = [Vec::new(), Vec::new()];
    for round in 0..=RUNS {
        for (place, guest) in guests.iter().enumerate() {
            let mut each = world.run(guest, (100, 10_000, 1), true).each;
            each.sort_unstable();
            let at = |share: f64| each[(each.len() as f64 * share) as usize] as f64 / 1e3;
            if round > 0 {
                p50[place].push(at(0.5));
                p99[place].push(at(0.99));
            }
        }
    }
    guests.iter().for_each(|guest| world.leave(guest));
    for (name, [quic, unix]) in [("p50", p50), ("p99", p99)] {
        report(&format!("ping-pong 100 B {name}"), "us", quic, unix);
    }
}

/// Guests that connect, one after the other, by turns.
fn connect(world: &World) {
    const METRICS: [&str; 5] = [
        "connect to first reply",
        "making and pinning key or token, cpu of host",
        "connect to first reply, cpu of host",
        "connect to first reply, cpu of guest",
        "start of the node to first reply, cpu of guest",
    ];
    let mut all: [[Vec<f64>; 2]; METRICS.len()] = Default::default();
    for _ in 0..CONNECTS {
        for (place, way) in [Way::Quic, Way::Unix].into_iter().enumerate() {
            let guest = world.guest(way);
            let asked = guest.node.ask(&guest.process, Where {}, LIMIT);
            let thread = asked.wait().unwrap().path;
            let before = (cpu_us(&world.thread), cpu_us(&thread));
            let done = world.run(&guest, (100, 1, 1), true);
            let after = (cpu_us(&world.thread), cpu_us(&thread));
            let figures = [
                done.nanos as f64 / 1e3,
                guest.made,
                after.0 - before.0,
                after.1 - before.1,
                after.1,
            ];
            for (all, figure) in all.iter_mut().zip(figures) {
                all[place].push(figure);
            }
            world.leave(&guest);
        }
    }
    for (metric, [quic, unix]) in METRICS.into_iter().zip(all) {
        report(metric, "us", quic, unix);
    }
}

fn main() {
    let world = World::new();
    connect(&world);
    ping_pong(&world);
    one_way(&world, 100, 640_000);
    one_way(&world, 1024, 320_000);
    one_way(&world, 65_536, 8_000);
    world.node.shutdown();
}
