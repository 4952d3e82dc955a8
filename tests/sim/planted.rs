//! Planted mistakes: for each law a wrong turn in the product, taken in these runs only, that the simulated world must
//! find, and by that very law.

use meseta_runtime::planted::plant;
use meseta_runtime::sim::Failure;
use meseta_tests::sim::world::{self, Report};

/// Runs within which each mistake must be found.
const WITHIN: u64 = 300;
/// The same for those of several masters.
const WITHIN_MASTERS: u64 = 200;

/// Each mistake with the law that finds it.
const MISTAKES: [(&str, &str); 27] = [
    ("agent ends what it should take over", "T-8"),
    ("executor starts a task twice", "T-1"),
    ("master does not answer for what it does not know", "T-2"),
    ("master forwards what comes after an end", "T-3"),
    ("executor goes back to running", "T-4"),
    ("agent sends ahead of acknowledgements", "T-5"),
    ("agent gives up on an update", "T-6"),
    ("agent tells what it has not written down yet", "T-6"),
    ("agent forgets what was acknowledged", "T-7"),
    ("agent takes for news what is over", "T-7"),
    ("agent lets what belongs to an ended framework run", "T-9"),
    ("agent kills one of a waiting group alone", "T-10"),
    ("agent gives a group task by task", "T-10"),
    ("agent comes back as another", "G-1"),
    ("master takes one missed ping for all", "G-2"),
    ("master waits half as long for an agent", "G-2"),
    ("agent removes the sandboxes of what runs", "S-1"),
    ("agent takes every disk for full", "S-2"),
    ("agent leaves sandboxes as old as they look", "S-2"),
    ("agent forgets sandboxes over its restart", "S-3"),
    (
        "master offers what was allocated before an agent came back",
        "A-1",
    ),
    ("master gives back ports that a task has", "A-2"),
    ("allocator forgets what it has offered", "A-3"),
    ("agent leaves a container behind", "K-1"),
    ("agent answers one ping thousands of times", "K-2"),
    ("master panics over a kill", "K-3"),
    ("agent asks only once to be let in", "Z-1"),
];

/// Mistakes of log, registrar, election and those who follow it, likewise.
const MISTAKES_OF_MASTERS: [(&str, &str); 11] = [
    ("replica promises in memory only", "L-4"),
    ("replica answers before it stores", "L-4"),
    ("replica votes while empty", "L-5"),
    ("replica accepts lower writes", "L-6"),
    ("replica truncates too much", "L-7"),
    ("registrar forgets who is unreachable", "R-1"),
    ("registrar answers before an entry is durable", "R-2"),
    ("master lets in who is gone", "R-4"),
    ("master removes agents as fast as it can", "G-2"),
    ("master goes on when it leads no more", "M-1"),
    ("agent obeys whoever led once", "M-2"),
];

/// The first failure of a run with this mistake that breaks its law, and the run's seed. A mistake may break others too.
fn found(
    (mistake, law): &(&'static str, &'static str),
    seeds: u64,
    run: fn(u64) -> Report,
) -> Option<(u64, Failure)> {
    let _planted = plant(mistake);
    (0..seeds).find_map(|seed| {
        let failure = run(seed).failure?;
        (failure.law == *law).then_some((seed, failure))
    })
}

#[test]
fn every_planted_mistake_is_found_by_its_law() {
    expect_all_found(&MISTAKES, WITHIN, world::run);
}

#[test]
fn every_planted_mistake_of_masters_is_found_by_its_law() {
    expect_all_found(&MISTAKES_OF_MASTERS, WITHIN_MASTERS, world::run_masters);
}

fn expect_all_found(
    mistakes: &'static [(&'static str, &'static str)],
    seeds: u64,
    run: fn(u64) -> Report,
) {
    let (first, second) = mistakes.split_at(mistakes.len() / 2);
    let look = |some: &'static [(&'static str, &'static str)]| {
        let verdict = |planted: &(&'static str, &'static str)| {
            let (mistake, law) = planted;
            let found = found(planted, seeds, run);
            println!(
                "{mistake}: {}",
                found.as_ref().map_or_else(
                    || "not found".to_owned(),
                    |(seed, failure)| format!(
                        "seed {seed} breaks {}: {}",
                        failure.law, failure.what
                    )
                )
            );
            found.is_none().then(|| format!("{mistake} ({law})"))
        };
        some.iter().filter_map(verdict).collect::<Vec<_>>()
    };
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let other = scope.spawn(|| look(second));
        let mut wrong = look(first);
        let other = other.join();
        wrong.extend(other.unwrap_or_else(|_| vec!["a thread has ended".to_owned()]));
        wrong
    });
    assert_eq!(wrong, [""; 0]);
}
