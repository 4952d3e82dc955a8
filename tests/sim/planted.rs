//! Planted mistakes: for each law a wrong turn in the product, taken in these runs only, that the simulated world must
//! find, and by that very law.

use meseta_runtime::planted::plant;
use meseta_runtime::sim::Failure;
use meseta_tests::sim::world;

/// Runs within which each mistake must be found.
const WITHIN: u64 = 150;

/// Each mistake with the law that finds it.
const MISTAKES: [(&str, &str); 12] = [
    ("executor starts a task twice", "T-1"),
    ("master does not answer for what it does not know", "T-2"),
    ("master forwards what comes after an end", "T-3"),
    ("executor goes back to running", "T-4"),
    ("agent sends ahead of acknowledgements", "T-5"),
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

/// The first failure of a run with this mistake, and its seed.
fn found(mistake: &'static str) -> Option<(u64, Failure)> {
    let _planted = plant(mistake);
    (0..WITHIN).find_map(|seed| Some((seed, world::run(seed).failure?)))
}

#[test]
fn every_planted_mistake_is_found_by_its_law() {
    let (first, second) = MISTAKES.split_at(MISTAKES.len() / 2);
    let look = |some: &'static [(&'static str, &'static str)]| {
        let verdict = |(mistake, law): &(&'static str, &'static str)| {
            let found = found(mistake);
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
            let right = found.is_some_and(|(_, failure)| failure.law == *law);
            (!right).then(|| format!("{mistake} ({law})"))
        };
        some.iter().filter_map(verdict).collect::<Vec<_>>()
    };
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let other = scope.spawn(|| look(second));
        let mut wrong = look(first);
        wrong.extend(other.join().unwrap());
        wrong
    });
    assert_eq!(wrong, [""; 0]);
}
