//! What the network does to frames: delay, loss, doubling, for all pairs or for one direction of one.
//!
//! Pure: draws come from a given random source, in the order of the frames, so that a seed repeats them.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::pid::Address;

/// Faults of one direction of one pair, or of all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Faults {
    /// Shortest and longest time a frame takes.
    pub(super) delay: (Duration, Duration),
    /// Share of frames that vanish, 0 to 1.
    pub(super) loss: f64,
    /// Share of frames that arrive twice, 0 to 1.
    pub(super) duplicates: f64,
}

impl Faults {
    const NONE: Self = Self {
        delay: (Duration::ZERO, Duration::ZERO),
        loss: 0.0,
        duplicates: 0.0,
    };
}

/// The faults in force, and their random source.
pub(super) struct Weather {
    everywhere: Faults,
    paths: BTreeMap<(Address, Address), Faults>,
    random: StdRng,
}

impl Weather {
    /// No faults; what is drawn later comes from this seed.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            everywhere: Faults::NONE,
            paths: BTreeMap::new(),
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// The faults of one direction, or with `None` of every direction that has none of its own, to be changed.
    pub(super) fn change(&mut self, path: Option<&(Address, Address)>) -> &mut Faults {
        match path {
            None => &mut self.everywhere,
            Some(path) => self.paths.entry(path.clone()).or_insert(self.everywhere),
        }
    }

    /// Lets a direction have the faults of all others again.
    pub(super) fn clear(&mut self, path: &(Address, Address)) {
        self.paths.remove(path);
    }

    /// How long each copy of a frame takes: none when it is lost, two when it is doubled. Draws only what the faults
    /// of this direction leave open.
    pub(super) fn draw(&mut self, from: &Address, to: &Address) -> Vec<Duration> {
        let path = (from.clone(), to.clone());
        let faults = self.paths.get(&path).copied().unwrap_or(self.everywhere);
        if self.happens(faults.loss) {
            return Vec::new();
        }
        let copies = if self.happens(faults.duplicates) {
            2
        } else {
            1
        };
        (0..copies).map(|_| self.between(faults.delay)).collect()
    }

    fn happens(&mut self, share: f64) -> bool {
        share > 0.0 && self.random.random_bool(share)
    }

    fn between(&mut self, (shortest, longest): (Duration, Duration)) -> Duration {
        if longest <= shortest {
            return shortest;
        }
        self.random.random_range(shortest..=longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> (Address, Address) {
        (Address::new("a", 1), Address::new("b", 2))
    }

    #[test]
    fn one_direction_may_have_its_own_faults_and_lose_them_again() {
        let mut weather = Weather::new(1);
        let (a, b) = ends();
        let second = Duration::from_secs(1);
        weather.change(None).delay = (second, second);
        let path = (a.clone(), b.clone());
        weather.change(Some(&path)).loss = 1.0;
        assert!(weather.draw(&a, &b).is_empty());
        assert_eq!(weather.draw(&b, &a), [second]);
        weather.clear(&path);
        assert_eq!(weather.draw(&a, &b), [second]);
        weather.change(Some(&path)).duplicates = 1.0;
        assert_eq!(
            weather.draw(&a, &b),
            [second; 2],
            "the delay of all others is kept"
        );
    }

    #[test]
    fn a_seed_repeats_its_draws_and_they_stay_within_their_range() {
        let draws = |seed| {
            let mut weather = Weather::new(seed);
            let (a, b) = ends();
            let range = (Duration::from_millis(2), Duration::from_millis(9));
            let faults = weather.change(None);
            (faults.delay, faults.loss, faults.duplicates) = (range, 0.3, 0.3);
            let all: Vec<Vec<Duration>> = (0..300).map(|_| weather.draw(&a, &b)).collect();
            assert!(all.iter().flatten().all(|d| range.0 <= *d && *d <= range.1));
            for copies in 0..3 {
                let share = all.iter().filter(|d| d.len() == copies).count();
                assert!(share > 30, "{share} of 300 come {copies} times");
            }
            all
        };
        assert_eq!(draws(4), draws(4));
        assert_ne!(draws(4), draws(5));
    }
}
