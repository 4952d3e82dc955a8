//! Many seeds on all cores, and what they have shown together.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use meseta_runtime::Time;
use meseta_runtime::sim::Failure;

use super::plan::Plan;
use super::world::{self, Report};

/// Last events of the history that a failure shows.
const SHOWN: usize = 50;

/// What a batch has shown.
#[derive(Debug, Default)]
pub struct Summary {
    /// Runs.
    pub runs: u64,
    /// Steps of all runs.
    pub steps: u64,
    /// How often each kind of fault has bitten.
    pub bites: BTreeMap<&'static str, u64>,
    /// How often each kind of event is in the histories.
    pub events: BTreeMap<&'static str, u64>,
    /// Stories of failed runs, by seed.
    pub failures: BTreeMap<u64, String>,
}

impl Summary {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.steps += report.steps;
        for (kind, count) in report.bites.iter() {
            *self.bites.entry(kind).or_default() += count;
        }
        for (kind, count) in &report.own_bites {
            *self.bites.entry(kind).or_default() += count;
        }
        for (_, event) in &report.history {
            *self.events.entry(event.kind()).or_default() += 1;
        }
        if let Some(failure) = &report.failure {
            self.failures.insert(report.seed, story(report, failure));
        }
    }

    /// Those of these kinds of faults that have never bitten.
    pub fn toothless(&self, kinds: &[&'static str]) -> Vec<&'static str> {
        let never = |kind: &&str| self.bites.get(kind).is_none_or(|count| *count == 0);
        kinds.iter().copied().filter(never).collect()
    }
}

/// Plays `seeds` on all cores.
pub fn play(seeds: std::ops::Range<u64>, run: impl Fn(u64) -> Report + Sync) -> Summary {
    let (next, summary) = (AtomicU64::new(seeds.start), Mutex::new(Summary::default()));
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let report = run(seed);
                    if let Ok(mut summary) = summary.lock() {
                        summary.add(&report);
                    }
                }
            });
        }
    });
    summary
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What a failed run has to say: the broken law, the last events, and how to see it again.
pub fn story(report: &Report, failure: &Failure) -> String {
    let mut text = String::new();
    let skipped = report.history.len().saturating_sub(SHOWN);
    for line in &failure.story {
        line_to(&mut text, line);
    }
    line_to(&mut text, "the last events that count:");
    for (at, event) in report.history.iter().skip(skipped) {
        line_to(&mut text, &format!("{} {event}", shown(*at)));
    }
    line_to(
        &mut text,
        &format!(
            "seed {} breaks {} at {}: {}",
            failure.seed,
            failure.law,
            shown(failure.at),
            failure.what
        ),
    );
    line_to(
        &mut text,
        &format!(
            "see it again: scripts/sim {}--seed {}",
            if report.has_masters { "--masters " } else { "" },
            report.seed
        ),
    );
    text
}

fn line_to(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    let _infallible = writeln!(text, "  {line}");
}

/// Virtual time as the journal shows it.
pub fn shown(at: Time) -> String {
    format!("{:>3}.{:09}", at.0 / 1_000_000_000, at.0 % 1_000_000_000)
}

/// Plays a plan with its whole journal.
pub fn replay(plan: Plan) -> Report {
    world::run_plan(plan, true)
}

/// The whole journal of a run, with what counts for the laws in its places, and how it ended.
pub fn tale(report: &Report) -> Vec<String> {
    let mut lines = Vec::with_capacity(report.journal.len() + report.history.len() + 1);
    let mut events = report
        .history
        .iter()
        .map(|(at, event)| (shown(*at), event))
        .peekable();
    for line in &report.journal {
        // Lines begin with the time, padded alike, so their order is that of time.
        while let Some((at, event)) = events.next_if(|(at, _)| line.get(..at.len()) > Some(at)) {
            lines.push(format!("{at}      * {event}"));
        }
        lines.push(line.clone());
    }
    lines.extend(events.map(|(at, event)| format!("{at}      * {event}")));
    lines.push(match &report.failure {
        Some(failure) => story(report, failure),
        None => format!("seed {} keeps all laws", report.seed),
    });
    lines
}
