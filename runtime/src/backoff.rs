//! Exponential back-off with full jitter.
//!
//! Pure: the random source is an argument. Each delay is drawn evenly from zero to the current ceiling; the
//! ceiling doubles from `first` up to `most`.

use std::time::Duration;

use rand::{Rng, RngExt};

/// State of one back-off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// A back-off whose first delay is at most `first` and whose later ones are at most `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            ceiling: first.min(most),
        }
    }

    /// The next delay, evenly from zero to the ceiling, which then doubles.
    pub fn next(&mut self, random: &mut impl Rng) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = ceiling.saturating_mul(2).min(self.most);
        ceiling.mul_f64(random.random::<f64>())
    }

    /// Starts over.
    pub fn reset(&mut self) {
        self.ceiling = self.first.min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn stays_below_a_ceiling_that_doubles_to_the_limit() {
        let mut random = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(3));
        for most in [1, 2, 3, 3] {
            assert!(backoff.next(&mut random) <= Duration::from_secs(most));
        }
        backoff.reset();
        assert!(backoff.next(&mut random) <= Duration::from_secs(1));
    }
}
