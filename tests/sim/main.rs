//! Whole clusters in simulated worlds: many seeds, each held to all laws after every step; see `meseta_tests::sim`.
//!
//! `MESETA_SEEDS` says how many seeds, 300 unless set; `MESETA_SEED_FROM` which is the first. A failure prints the law,
//! the last events, and the command that shows it again.

#![expect(
    clippy::panic,
    clippy::print_stdout,
    reason = "a test tells its story on its output and fails on a setting that is no number"
)]

mod planted;

use std::time::Duration;

use meseta_runtime::Clock;
use meseta_tests::sim::batch::{self, Summary};
use meseta_tests::sim::plan::Plan;
use meseta_tests::sim::{fault_kinds, masters, world};

/// Seeds of runs with several masters that found a mistake, with what it was.
const FOUND_WITH_MASTERS: [(u64, &str); 7] = [
    (
        140,
        "Z-1: a launch for a framework that an earlier master had ended was ignored by an agent that still ended it",
    ),
    (
        303,
        "progress: a coordinator asked a recovering replica again and again without a pause",
    ),
    (
        332,
        "T-3: a framework heard again of a task that a new master had told to be lost with its unreachable agent",
    ),
    (589, "T-3: as seed 332, with a task that had ended"),
    (
        615,
        "T-3: a registration that was held up listed tasks that had ended, which the agent then reported as dropped",
    ),
    (
        650,
        "T-3, the law's mistake: a master that led no more, and did not know, declared a task lost",
    ),
    (
        684,
        "L-4, the law's mistake: a replica that knows a value to be chosen says so before it has stored that it knows",
    ),
];

/// Seeds that found a mistake, with what it was. They are played as they were then, when agents kept all sandboxes.
const FOUND: [(u64, &str); 12] = [
    (
        34,
        "A-1: what was allocated before an agent came back was offered beside what was allocated after",
    ),
    (
        31,
        "T-3: a new master told a task's latest state ahead of the updates that were still to come",
    ),
    (
        112,
        "Z-1: an agent named tasks of a framework that it was ending, for which a new master waited for ever",
    ),
    (
        27,
        "T-3: tasks that were told to be lost lived again when their agent came back from being unreachable",
    ),
    (
        228,
        "T-3: a question asked before the end was heard was answered by another end",
    ),
    (
        8,
        "A-1: as seed 34, with two agents and a scheduler that fails over",
    ),
    (
        4705,
        "T-2: a master whose wall clock was set back took itself for a new one, and answered no question",
    ),
    (
        2932,
        "Z-1: an agent with nothing but updates of an ended framework was never told that it had ended",
    ),
    (
        1132,
        "Z-1, the world's mistake: of a framework that ended before the master did nobody takes updates",
    ),
    (
        4190,
        "T-5, the law's mistake: the master acknowledges updates of a task that it has declared ended",
    ),
    (
        17,
        "T-7: an agent that was restarted took for news what an executor repeated of a task that was over",
    ),
    (
        1094,
        "T-3, the law's mistake: a question asked before it was heard that the offers were not valid any more",
    ),
];

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

fn expect_no_failure(summary: &Summary) {
    for (seed, story) in &summary.failures {
        println!("FAILED seed {seed}:\n{story}");
    }
    let seeds: Vec<_> = summary.failures.keys().collect();
    assert!(seeds.is_empty(), "seeds that break a law: {seeds:?}");
}

fn show(summary: &Summary, took: Duration) {
    println!(
        "{} seeds, {} steps in {:.1} s",
        summary.runs,
        summary.steps,
        took.as_secs_f64()
    );
    for (what, count) in summary.events.iter().chain(&summary.bites) {
        println!("{count:>9} {what}");
    }
}

/// Plays the seeds that the environment names, else the first `usual` ones. So many must have met every kind of fault.
fn play_batch(usual: u64, run: impl Fn(u64) -> world::Report + Sync, kinds: &[&'static str]) {
    let (seeds, from) = (
        setting("MESETA_SEEDS", usual),
        setting("MESETA_SEED_FROM", 0),
    );
    let clock = Clock::live();
    let began = clock.now();
    let summary = batch::play(from..from + seeds, run);
    show(&summary, clock.now().since(began));
    expect_no_failure(&summary);
    if seeds >= usual {
        assert_eq!(summary.toothless(kinds), [""; 0], "these faults never bit");
    }
}

#[test]
fn a_cluster_without_faults_does_its_work_and_leaves_nothing() {
    let summary = batch::play(0..20, |seed| {
        world::run_plan(Plan::draw(seed).without_faults(), false)
    });
    expect_no_failure(&summary);
    assert!(summary.events["ends heard"] >= summary.events["launched"]);
    assert!(summary.events["started"] > 50, "{:?}", summary.events);
}

#[test]
fn clusters_keep_the_laws_whatever_goes_wrong() {
    play_batch(300, world::run, &fault_kinds());
}

#[test]
fn masters_without_faults_have_one_leader_and_their_cluster_does_its_work() {
    let summary = batch::play(0..10, |seed| {
        world::run_plan(Plan::draw_masters(seed).without_faults(), false)
    });
    expect_no_failure(&summary);
    assert_eq!(summary.events["masters"], 10, "one leader each");
    assert!(summary.events["ends heard"] >= summary.events["launched"]);
}

#[test]
fn several_masters_keep_the_laws_whatever_goes_wrong() {
    play_batch(300, world::run_masters, &masters::fault_kinds());
}

#[test]
fn seeds_that_found_a_mistake_find_none_now() {
    for (seed, what) in FOUND {
        let plan = Plan::draw(seed).keeping_sandboxes();
        let plan = plan.removing_at_once().without_groups();
        let failure = world::run_plan(plan, false).failure;
        assert!(failure.is_none(), "{what}: {}", failure.unwrap());
    }
    for (seed, what) in FOUND_WITH_MASTERS {
        let plan = Plan::draw_masters(seed);
        let plan = plan.removing_at_once().without_groups();
        let failure = world::run_plan(plan, false).failure;
        assert!(failure.is_none(), "{what}: {}", failure.unwrap());
    }
}

#[test]
fn one_seed_gives_one_journal() {
    for seed in 0..20 {
        let (one, other) = (world::run(seed), world::run(seed));
        assert_eq!(
            (one.hash, one.lines),
            (other.hash, other.lines),
            "seed {seed}"
        );
    }
    for seed in 0..5 {
        let (one, other) = (world::run_masters(seed), world::run_masters(seed));
        let of = |report: &world::Report| (report.hash, report.lines);
        assert_eq!(of(&one), of(&other), "seed {seed}, several masters");
    }
}

/// What `scripts/sim --seed N` shows: everything that happened in one run.
#[test]
fn a_run_tells_its_story() {
    let seed = setting("MESETA_SEED", 0);
    let report = batch::replay(if setting("MESETA_MASTERS_IN_PLAY", 1) == 1 {
        Plan::draw(seed)
    } else {
        Plan::draw_masters(seed)
    });
    for line in batch::tale(&report) {
        println!("{line}");
    }
    assert!(report.journal.len() as u64 >= report.lines);
    assert!(!report.history.is_empty());
    assert!(
        report.failure.is_none(),
        "{:?}",
        report.failure.map(|failure| failure.what)
    );
}
