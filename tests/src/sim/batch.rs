//! Many seeds over all cores: counts what went wrong, and fails when a kind of fault never did.

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use meseta_runtime::sim::{Bites, Failure};

use super::{Outcome, World, machines};

/// Kinds of faults that cannot happen here yet: nothing is written to a disk before checkpoints and the registry are.
pub const NOT_YET: &[&str] = &["restart without a disk"];

/// What a batch came to.
#[derive(Debug, Default)]
pub struct Tally {
    /// Seeds that were run.
    pub runs: u64,
    /// Tasks launched in all.
    pub tasks: usize,
    /// Steps made in all.
    pub steps: u64,
    /// What went wrong in all.
    pub bites: Bites,
    /// Runs that broke a law, by seed.
    pub failures: Vec<Failure>,
}

impl Tally {
    fn add(&mut self, outcome: Result<Outcome, Failure>) {
        self.runs += 1;
        match outcome {
            Ok(outcome) => {
                self.tasks += outcome.tasks;
                self.steps += outcome.steps;
                self.bites.add(&outcome.bites);
            }
            Err(failure) => self.failures.push(failure),
        }
    }

    /// Kinds of faults that never bit.
    pub fn missing(&self) -> Vec<&'static str> {
        Bites::ALL
            .iter()
            .chain(machines::FAULTS)
            .filter(|kind| !NOT_YET.contains(kind) && self.bites.of(kind) == 0)
            .copied()
            .collect()
    }

    /// The closing lines of a batch.
    pub fn report(&self) -> String {
        let bites = self
            .bites
            .iter()
            .map(|(kind, n)| format!("  {n:>8}  {kind}\n"));
        format!(
            "{} seeds, {} tasks, {} steps, {} failed\n{}",
            self.runs,
            self.tasks,
            self.steps,
            self.failures.len(),
            bites.collect::<String>()
        )
    }
}

/// Runs `seeds` seeds from `first` on. Stops to begin new ones after ten failures.
pub fn run(first: u64, seeds: u64) -> Tally {
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let next = AtomicU64::new(first);
    let tally = Mutex::new(Tally::default());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let enough = {
                        let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                        tally.failures.len() >= 30
                    };
                    if seed >= first + seeds || enough {
                        break;
                    }
                    let outcome = super::run(seed);
                    tally
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .add(outcome);
                }
            });
        }
    });
    let mut tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    tally.failures.sort_by_key(|failure| failure.seed);
    tally
}

/// The whole story of a seed: every line of its journal with the contents of messages, and how it ended.
pub fn story(seed: u64) -> String {
    let mut world = World::draw(seed);
    world.sim.set_verbose(true);
    world.sim.journal_mut().keep_all();
    let ended = world.run();
    let mut story = world.sim.journal().text().join("\n");
    story.push('\n');
    story.push_str(&match ended {
        Ok(()) => format!(
            "seed {seed} keeps all laws; journal {:016x}",
            world.sim.journal().hash()
        ),
        Err(failure) => format!(
            "seed {seed} breaks {} at {}: {}",
            failure.law, failure.at, failure.what
        ),
    });
    story
}
