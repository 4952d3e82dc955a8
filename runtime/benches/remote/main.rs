//! What a message to another node costs: actor to actor through PID, router, encoding, QUIC with mutual TLS, decoding
//! and handler, beside raw quinn with the same settings and raw TCP in the same run.
//!
//! Two operating-system processes: this program starts itself again as the other side. Each figure is the median of five
//! runs, ours and raw by turns, as one line: name, metric, median, unit, smallest, largest, number of runs. A line
//! `ratio` follows each pair.
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

use side::{Child, Folder, median, report};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs of each figure.
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
    let folder = Folder::new();
    for part in PARTS {
        if chosen.is_empty() || chosen.contains(&part) {
            run(part, &folder);
        }
    }
}

fn run(part: &str, folder: &Folder) {
    match part {
        "oneway-100" => oneway(folder, 100, 1_500_000),
        "oneway-1024" => oneway(folder, 1024, 500_000),
        "oneway-65536" => oneway(folder, 65_536, 8_000),
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
    ours.oneway(size, count / 10);
    raw.oneway(raw::Wire::Quinn, size, count / 10);
    let (mut mine, mut quinn, mut tcp) = (Vec::new(), Vec::new(), Vec::new());
    let mut costs = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let before = (side::cpu("self"), side::cpu(&ours.child.id().to_string()));
        mine.push(count as f64 / ours.oneway(size, count));
        let after = (side::cpu("self"), side::cpu(&ours.child.id().to_string()));
        costs.0.push((after.0 - before.0) * 1e9 / count as f64);
        costs.1.push((after.1 - before.1) * 1e9 / count as f64);
        quinn.push(count as f64 / raw.oneway(raw::Wire::Quinn, size, count));
        tcp.push(count as f64 / raw.oneway(raw::Wire::Tcp, size, count));
    }
    let name = format!("one way {size} B");
    let ratio = median(&mut mine) / median(&mut quinn);
    report("meseta", &name, "msg/s", mine);
    report("raw quinn", &name, "msg/s", quinn);
    report("raw tcp", &name, "msg/s", tcp);
    report(
        "meseta",
        &format!("{name}, cpu of sender"),
        "ns/msg",
        costs.0,
    );
    report(
        "meseta",
        &format!("{name}, cpu of receiver"),
        "ns/msg",
        costs.1,
    );
    println!("ratio\t{name}\t{ratio:.3}\tx raw quinn");
}

fn ping(folder: &Folder) {
    let (ours, raw) = (ours::Pair::new(folder), raw::Pair::new(folder));
    let count = 10_000;
    ours.ping(count / 10);
    raw.ping(raw::Wire::Quinn, count / 10);
    let mut all: [(Vec<f64>, Vec<f64>); 3] = Default::default();
    for _ in 0..RUNS {
        for (place, mut times) in [
            ours.ping(count),
            raw.ping(raw::Wire::Quinn, count),
            raw.ping(raw::Wire::Tcp, count),
        ]
        .into_iter()
        .enumerate()
        {
            times.sort_unstable();
            let at = |share: f64| times[(times.len() as f64 * share) as usize] as f64 / 1e3;
            all[place].0.push(at(0.5));
            all[place].1.push(at(0.99));
        }
    }
    let ratios = [
        median(&mut all[0].0) / median(&mut all[1].0),
        median(&mut all[0].1) / median(&mut all[1].1),
    ];
    for (name, (p50, p99)) in ["meseta", "raw quinn", "raw tcp"].into_iter().zip(all) {
        report(name, "ping-pong 100 B p50", "us", p50);
        report(name, "ping-pong 100 B p99", "us", p99);
    }
    println!("ratio\tping-pong 100 B p50\t{:.3}\tx raw quinn", ratios[0]);
    println!("ratio\tping-pong 100 B p99\t{:.3}\tx raw quinn", ratios[1]);
}

fn in_flight(folder: &Folder) {
    let (ours, raw) = (ours::Pair::new(folder), raw::Pair::new(folder));
    let count = 400_000;
    ours.in_flight(count / 10);
    raw.in_flight(count / 10);
    let (mut mine, mut quinn) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        mine.push(count as f64 / ours.in_flight(count));
        quinn.push(count as f64 / raw.in_flight(count));
    }
    let ratio = median(&mut mine) / median(&mut quinn);
    let name = "1,000 in flight, 100 B";
    report("meseta", name, "round trips/s", mine);
    report("raw quinn", name, "round trips/s", quinn);
    println!("ratio\t{name}\t{ratio:.3}\tx raw quinn");
}

fn connect(folder: &Folder) {
    let count = 40;
    let servers = Child::start("ours", folder, &[]);
    let raw = raw::Pair::new(folder);
    let (mut mine, mut quinn) = (Vec::new(), Vec::new());
    for _ in 0..count {
        mine.push(ours::connect(folder, &servers.line).as_secs_f64() * 1e6);
        quinn.push(raw.connect().as_secs_f64() * 1e6);
    }
    let ratio = median(&mut mine) / median(&mut quinn);
    let name = "connect with mutual TLS to first reply";
    report("meseta", name, "us", mine);
    report("raw quinn", name, "us", quinn);
    println!("ratio\t{name}\t{ratio:.3}\tx raw quinn");
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
