//! An actor under ten times the load it can bear: what becomes of memory, of its timers, of HTTP and of others.
//!
//! The victim needs 100 µs a message, so it bears 10,000 a second; it is sent 100,000 a second, first by a process of
//! its own node and then from another node over QUIC. It shares its thread with the network, with HTTP and with a
//! bystander that a third node asks all the time. One line each few seconds: resident memory, messages that wait and
//! that were dropped, how late the victim's own timer came, how long HTTP took, how many of the bystander's answers came,
//! how late the slowest, and how many never. A line without flood comes first, to compare with, and one with half of
//! what the victim can bear.
//!
//! ```sh
//! cargo bench -p meseta-runtime --bench overload            # 30 s each; or give other seconds
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a measuring program: it stops at the first thing that goes wrong, prints, and reads the time"
)]

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use meseta_runtime::{
    Address, Ask, Context, Message, Node, Pid, Placement, Process, Receive, Request, Response,
    Routes, Time,
};
use serde::{Deserialize, Serialize};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What one message costs the victim.
const COST: Duration = Duration::from_micros(100);
/// Half of what it can bear, and ten times that much, in messages a millisecond.
const BEARABLE: u64 = 5;
const FLOOD: u64 = 100;
const TICK: Duration = Duration::from_millis(10);
/// Seconds between two lines.
const LINE: u64 = 5;

macro_rules! message {
    ($name:ident($type:ty)) => {
        #[derive(Serialize, Deserialize)]
        struct $name($type);
        impl Message for $name {
            const NAME: &'static str = concat!("bench.overload.", stringify!($name));
        }
    };
}
message!(Work(u64));
message!(Question(u64));
message!(Answer(u64));
impl Ask for Question {
    type Reply = Answer;
}

#[derive(Default)]
struct Seen {
    /// Worst lateness of the victim's timer since the last line, in microseconds.
    late_us: AtomicU64,
    answers: AtomicU64,
    /// Worst wait for an answer since the last line, in microseconds, and asks that had none.
    slow_us: AtomicU64,
    unanswered: AtomicU64,
    /// Messages a millisecond; none for no flood.
    flood: AtomicU64,
}

struct Victim(Arc<Seen>);
impl Process for Victim {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Work>().get("/state", Self::state);
    }
    fn start(&mut self, cx: &mut Context<'_, Self>) {
        Self::tick(cx);
    }
}
impl Victim {
    fn tick(cx: &mut Context<'_, Self>) {
        let due: Time = cx.now() + TICK;
        cx.after(TICK, move |me, cx| {
            let late = u64::try_from(cx.now().since(due).as_micros()).unwrap();
            me.0.late_us.fetch_max(late, Ordering::Relaxed);
            Self::tick(cx);
        });
    }
    fn state(&mut self, _: &mut Context<'_, Self>, _: &Request) -> Response {
        Response::text(200, "alive")
    }
}
impl Receive<Work> for Victim {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, _: Work) {
        let began = Instant::now();
        while began.elapsed() < COST {
            std::hint::spin_loop();
        }
    }
}

/// Sends the victim its load each millisecond while the flood is on.
struct Flooder {
    to: Pid,
    seen: Arc<Seen>,
    sent: u64,
    began: Option<Time>,
}
impl Process for Flooder {
    fn routes(_: &mut Routes<Self>) {}
    fn start(&mut self, cx: &mut Context<'_, Self>) {
        Self::tick(cx);
    }
}
impl Flooder {
    fn tick(cx: &mut Context<'_, Self>) {
        cx.after(Duration::from_millis(1), |me, cx| {
            let load = me.seen.flood.load(Ordering::Relaxed);
            if load > 0 {
                let began = *me.began.get_or_insert(cx.now());
                let millis = u64::try_from(cx.now().since(began).as_millis()).unwrap();
                // As much as the time says, so that a late timer does not lessen the load.
                while me.sent < millis * load {
                    me.sent += 1;
                    cx.send(&me.to, Work(me.sent));
                }
            } else {
                (me.sent, me.began) = (0, None);
            }
            Self::tick(cx);
        });
    }
}

struct Bystander;
impl Process for Bystander {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Question>();
    }
}
impl Receive<Question> for Bystander {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, Question(number): Question) {
        cx.reply(Answer(number));
    }
}

/// Asks the bystander all the time, with a few asks in flight.
struct Asker {
    to: Pid,
    seen: Arc<Seen>,
}
impl Process for Asker {
    fn routes(_: &mut Routes<Self>) {}
    fn start(&mut self, cx: &mut Context<'_, Self>) {
        for _ in 0..16 {
            self.next(cx);
        }
    }
}
impl Asker {
    fn next(&mut self, cx: &mut Context<'_, Self>) {
        let (limit, asked) = (Duration::from_secs(5), Instant::now());
        cx.ask(&self.to, Question(0), limit, move |me, cx, answer| {
            let waited = u64::try_from(asked.elapsed().as_micros()).unwrap();
            me.seen.slow_us.fetch_max(waited, Ordering::Relaxed);
            let counted = match answer {
                Ok(_) => &me.seen.answers,
                Err(_) => &me.seen.unanswered,
            };
            counted.fetch_add(1, Ordering::Relaxed);
            me.next(cx);
        });
    }
}

fn main() {
    let seconds = std::env::args().skip(1).find_map(|one| one.parse().ok());
    let seconds: u64 = seconds.unwrap_or(30);
    let builder = || Node::builder().mailbox(8_192);
    let (home, away, third) = (
        builder().threads(2).start().unwrap(),
        builder().start().unwrap(),
        builder().start().unwrap(),
    );
    let (here, elsewhere) = (Arc::new(Seen::default()), Arc::new(Seen::default()));
    let seen = Arc::clone(&here);
    let victim = home.spawn("victim", move || Victim(seen)).unwrap();
    let bystander = home.spawn("bystander", || Bystander).unwrap();
    let flooder = |seen: &Arc<Seen>| {
        let (to, seen) = (victim.clone(), Arc::clone(seen));
        move || Flooder {
            to,
            seen,
            sent: 0,
            began: None,
        }
    };
    home.spawn_placed("flooder", Placement::LeastLoaded, flooder(&here))
        .unwrap();
    away.spawn("flooder", flooder(&elsewhere)).unwrap();
    let asks = Arc::clone(&here);
    let asker = move || Asker {
        to: bystander,
        seen: asks,
    };
    third.spawn("asker", asker).unwrap();

    println!(
        "flood\tsecond\tresident MiB\twaiting\tdropped\ttimer late ms\tHTTP ms\tanswers/s\tslowest ms\tunanswered"
    );
    watch("none", LINE, &home, &here);
    let phases = [
        ("half, own node", &here, BEARABLE, LINE),
        ("own node", &here, FLOOD, seconds),
        ("other node", &elsewhere, FLOOD, seconds),
    ];
    for (name, flooding, flood, seconds) in phases {
        flooding.flood.store(flood, Ordering::Relaxed);
        watch(name, seconds, &home, &here);
        flooding.flood.store(0, Ordering::Relaxed);
    }
    for node in [third, away, home] {
        node.shutdown();
    }
}

/// Prints a line each few seconds.
fn watch(flood: &str, seconds: u64, home: &Node, seen: &Seen) {
    let began = Instant::now();
    for line in 1..=seconds.div_ceil(LINE) {
        let (mut slowest, mut requests) = (Duration::ZERO, 0);
        for worst in [&seen.late_us, &seen.slow_us] {
            worst.store(0, Ordering::Relaxed);
        }
        let (start, answers) = (Instant::now(), seen.answers.load(Ordering::Relaxed));
        while began.elapsed() < Duration::from_secs(line * LINE) {
            slowest = slowest.max(request(home.address()));
            requests += 1;
            std::thread::sleep(Duration::from_millis(50));
        }
        let answers = seen.answers.load(Ordering::Relaxed) - answers;
        let all = home.processes();
        let victim = all.iter().find(|one| one.id == "victim").unwrap();
        assert!(requests > 0);
        println!(
            "{flood}\t{}\t{:.1}\t{}\t{}\t{:.1}\t{:.1}\t{:.0}\t{:.1}\t{}",
            line * LINE,
            resident() / 1_024.0,
            victim.mailbox_depth,
            victim.messages_dropped,
            seen.late_us.load(Ordering::Relaxed) as f64 / 1e3,
            slowest.as_secs_f64() * 1e3,
            answers as f64 / start.elapsed().as_secs_f64(),
            seen.slow_us.load(Ordering::Relaxed) as f64 / 1e3,
            seen.unanswered.load(Ordering::Relaxed),
        );
    }
}

/// How long the victim takes to answer a request.
fn request(address: &Address) -> Duration {
    let began = Instant::now();
    let mut stream = std::net::TcpStream::connect((&*address.host, address.port)).unwrap();
    stream
        .write_all(b"GET /victim/state HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("alive"), "{answer}");
    began.elapsed()
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
