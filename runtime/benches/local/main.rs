//! What a message, an ask and an actor cost within one node, beside bare tokio channels and actix in the same run.
//!
//! Each figure is the median of five runs, as one line: name, metric, median, unit, smallest, largest, number of runs.
//! The shapes: one sender tells one receiver 2,000,000 numbers; one actor asks another 200,000 times, one ask after
//! the other; two pairs of actors make 1,000,000 asks each, with 1,000 in flight; 1,000 actors tell one actor 1,000
//! numbers each; 100,000 idle actors are spawned, and weighed in a program of their own.
//!
//! ```sh
//! cargo bench -p meseta-runtime --bench local -- tell ask    # or no names for all
//! ```
//!
//! Parts: `tell`, `ask`, `inflight`, `fanin`, `spawn`, `memory`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    unreachable_pub,
    reason = "a measuring program: it stops at the first thing that goes wrong, prints, and reads the time"
)]

mod ours;
mod peers;

use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs of each figure.
const RUNS: usize = 5;
const TELLS: u64 = 2_000_000;
const ASKS: u64 = 200_000;
const PAIRS: u64 = 2;
const IN_FLIGHT: u64 = 1_000;
const PAIR_ASKS: u64 = 1_000_000;
const SOURCES: u64 = 1_000;
const EACH: u64 = 1_000;
const IDLE: u64 = 100_000;

const PARTS: [&str; 6] = ["tell", "ask", "inflight", "fanin", "spawn", "memory"];

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    if arguments.first().is_some_and(|first| first == "weigh") {
        println!("{}", ours::weigh());
        return;
    }
    if let Some(unknown) = arguments.iter().find(|one| !PARTS.contains(&&***one)) {
        panic!("no part {unknown}; there are: {}", PARTS.join(" "));
    }
    for part in PARTS {
        if arguments.is_empty() || arguments.iter().any(|one| one == part) {
            measure(part);
        }
    }
}

fn measure(part: &str) {
    match part {
        "tell" => {
            run("meseta", "tell, same thread", "msg/s", || {
                rate(TELLS, ours::tell(false))
            });
            run("tokio mpsc, one thread", "tell", "msg/s", || {
                rate(TELLS, peers::mpsc_tell())
            });
            run("meseta", "tell, other thread", "msg/s", || {
                rate(TELLS, ours::tell(true))
            });
            run("actix, with mimalloc", "tell", "msg/s", || {
                rate(TELLS, peers::actix_tell())
            });
        }
        "ask" => {
            run("meseta", "ask, same thread", "ns", || {
                each(ASKS, ours::ask(false))
            });
            run("actix-same, with mimalloc", "ask", "ns", || {
                each(ASKS, peers::actix_ask(false))
            });
            run("meseta", "ask, other thread", "ns", || {
                each(ASKS, ours::ask(true))
            });
            run("actix, with mimalloc", "ask", "ns", || {
                each(ASKS, peers::actix_ask(true))
            });
        }
        "inflight" => run("meseta", "1,000 asks in flight", "asks/s", || {
            rate(PAIRS * PAIR_ASKS, ours::in_flight())
        }),
        "fanin" => run("meseta", "fan-in from 1,000", "msg/s", || {
            rate(SOURCES * EACH, ours::fan_in())
        }),
        "spawn" => run("meseta", "spawn", "actors/s", || rate(IDLE, ours::spawn())),
        "memory" => run("meseta", "memory of an idle actor", "bytes", || {
            let me = std::env::current_exe().unwrap();
            let output = std::process::Command::new(me)
                .arg("weigh")
                .output()
                .unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            text.trim().parse().unwrap()
        }),
        other => panic!("no part {other}"),
    }
}

fn run(name: &str, metric: &str, unit: &str, mut figure: impl FnMut() -> f64) {
    let mut values: Vec<f64> = (0..RUNS).map(|_| figure()).collect();
    values.sort_by(f64::total_cmp);
    let (least, median, most) = (values[0], values[RUNS / 2], values[RUNS - 1]);
    println!("{name}\t{metric}\t{median:.1}\t{unit}\t{least:.1}\t{most:.1}\t{RUNS}");
}

fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn each(count: u64, took: Duration) -> f64 {
    took.as_nanos() as f64 / count as f64
}
