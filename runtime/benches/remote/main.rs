//! What a message to another node costs: actor to actor through PID, router, encoding, QUIC with mutual TLS, decoding
//! and handler, beside raw quinn with the same settings and raw TCP in the same run.
//!
//! Two operating-system processes: this program starts itself again as the other side. Each has a core of its own where
//! there are two, as two machines have, so that no figure depends on where the scheduler happens to put them. A figure
//! is one line: name, metric, median, unit, smallest, largest, number of runs.
//!
//! Ours and raw quinn's run by turns of a few tenths of a second, since what the machine gives changes within seconds.
//! The line `ratio` is the median of the ratios of neighbours, with the quartiles and the number of turns.
//!
//! ```sh
//! cargo bench -p meseta-runtime --bench remote -- oneway-100 ping connect    # or no names for all
//! ```
//!
//! Parts: `oneway-100`, `oneway-1024`, `oneway-65536`, `ping`, `inflight`, `connect`, `killed`, `memory`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    unreachable_pub,
    reason = "a measuring program: it stops at the first thing that goes wrong, prints, and reads the time"
)]

mod ours;
mod peers;
mod raw;
mod side;

use std::time::Duration;

use side::{Child, Folder, Turns, report};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Turns of each figure that is compared with raw quinn's.
const TURNS: usize = 25;
/// Runs of each other figure.
const RUNS: usize = 5;
const PARTS: [&str; 8] = [
    "oneway-100",
    "oneway-1024",
    "oneway-65536",
    "ping",
    "inflight",
    "connect",
    "killed",
    "memory",
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "serve") {
        match arguments[1].as_str() {
            "ours" => ours::serve(&arguments[2]),
            "raw" => raw::serve(&arguments[2]),
            "peers" => peers::serve(&arguments[2], &arguments[3]),
            other => panic!("cannot serve {other}"),
        }
        return;
    }
    if arguments.first().is_some_and(|first| first == "weigh") {
        peers::weigh(&arguments[1], &arguments[2]);
        return;
    }
    let chosen: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|name| PARTS.contains(name))
        .collect();
    side::pin(std::process::id(), 0);
    let folder = Folder::new();
    for part in PARTS {
        if chosen.is_empty() || chosen.contains(&part) {
            run(part, &folder);
        }
    }
}

fn run(part: &str, folder: &Folder) {
    match part {
        "oneway-100" => oneway(folder, 100, 400_000),
        "oneway-1024" => oneway(folder, 1024, 150_000),
        "oneway-65536" => oneway(folder, 65_536, 4_000),
        "ping" => ping(folder),
        "inflight" => in_flight(folder),
        "connect" => connect(folder),
        "killed" => killed(folder),
        "memory" => peers::memory(folder),
        other => panic!("no part {other}"),
    }
}

fn oneway(folder: &Folder, size: usize, count: u64) {
    let (ours, raw) = (ours::Pair::new(folder), raw::Pair::new(folder));
    ours.oneway(size, count);
    raw.oneway(raw::Wire::Quinn, size, count);
    let (mut turns, mut tcp) = (Turns::default(), Vec::new());
    let ids = [&ours.child, &raw.child].map(|child| child.id().to_string());
    let (mut mine, mut quinn) = ([0.0; 2], [0.0; 2]);
    let timed = |spent: &mut [f64; 2], id: &str, run: &dyn Fn() -> f64| {
        let cpu = || [side::cpu("self"), side::cpu(id)];
        let (before, took, after) = (cpu(), run(), cpu());
        for side in 0..2 {
            spent[side] += after[side] - before[side];
        }
        count as f64 / took
    };
    for turn in 0..TURNS {
        turns.take(
            turn,
            || timed(&mut mine, &ids[0], &|| ours.oneway(size, count)),
            || {
                timed(&mut quinn, &ids[1], &|| {
                    raw.oneway(raw::Wire::Quinn, size, count)
                })
            },
        );
        if turn % 5 == 0 {
            tcp.push(count as f64 / raw.oneway(raw::Wire::Tcp, size, count));
        }
    }
    let name = format!("one way {size} B");
    report("raw tcp", &name, "msg/s", tcp);
    for (who, spent) in [("meseta", mine), ("raw quinn", quinn)] {
        for (side, spent) in ["sender", "receiver"].into_iter().zip(spent) {
            let each = spent * 1e9 / (count * TURNS as u64) as f64;
            report(who, &format!("{name}, cpu of {side}"), "ns/msg", vec![each]);
        }
    }
    turns.report(&name, "msg/s");
}

fn ping(folder: &Folder) {
    let (ours, raw) = (ours::Pair::new(folder), raw::Pair::new(folder));
    let count = 4_000;
    ours.ping(count);
    raw.ping(raw::Wire::Quinn, count);
    let (mut halves, mut tails) = (Turns::default(), Turns::default());
    let mut all: [Vec<u64>; 3] = Default::default();
    for turn in 0..TURNS {
        let (mut mine, mut quinn) = (Vec::new(), Vec::new());
        if turn % 2 == 0 {
            mine = ours.ping(count);
        }
        quinn.extend(raw.ping(raw::Wire::Quinn, count));
        if turn % 2 == 1 {
            mine = ours.ping(count);
        }
        for (turns, share) in [(&mut halves, 0.5), (&mut tails, 0.99)] {
            turns.mine.push(micros(&mut mine, share));
            turns.raw.push(micros(&mut quinn, share));
        }
        all[0].append(&mut mine);
        all[1].append(&mut quinn);
        if turn % 5 == 0 {
            all[2].extend(raw.ping(raw::Wire::Tcp, count));
        }
    }
    for (name, all) in ["meseta", "raw quinn", "raw tcp"].into_iter().zip(&mut all) {
        for (metric, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            let metric = format!("ping-pong 100 B {metric} of all turns");
            report(name, &metric, "us", vec![micros(all, share)]);
        }
    }
    halves.report("ping-pong 100 B p50", "us");
    tails.list("ping-pong 100 B p99", "us");
    tails.report("ping-pong 100 B p99", "us");
}

/// The time at this place among all, in microseconds.
fn micros(times: &mut [u64], share: f64) -> f64 {
    times.sort_unstable();
    times[(times.len() as f64 * share) as usize] as f64 / 1e3
}

fn in_flight(folder: &Folder) {
    let (ours, raw) = (ours::Pair::new(folder), raw::Pair::new(folder));
    let count = 150_000;
    ours.in_flight(count);
    raw.in_flight(count);
    let mut turns = Turns::default();
    for turn in 0..TURNS {
        turns.take(
            turn,
            || count as f64 / ours.in_flight(count),
            || count as f64 / raw.in_flight(count),
        );
    }
    turns.report("1,000 in flight, 100 B", "round trips/s");
}

fn connect(folder: &Folder) {
    let count = 40;
    let servers = Child::start("ours", folder, &[]);
    let raw = raw::Pair::new(folder);
    let mut turns = Turns::default();
    for turn in 0..count {
        turns.take(
            turn,
            || ours::connect(folder, &servers.line).as_secs_f64() * 1e6,
            || raw.connect().as_secs_f64() * 1e6,
        );
    }
    turns.report("connect with mutual TLS to first reply", "us");
    peers::cpu_per_connect(folder);
}

fn killed(folder: &Folder) {
    let (mut mine, mut tcp) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        mine.push(ours::killed(folder).as_secs_f64() * 1e3);
        tcp.push(raw::killed(folder).as_secs_f64() * 1e3);
    }
    report("meseta", "killed peer to exited at its linker", "ms", mine);
    report("raw tcp", "killed peer to end of stream", "ms", tcp);
}

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(60);
