//! How fast agents may be removed: permits at even distances, so that a fault of the master or of the network does not
//! take a whole cluster's agents at once.
//!
//! Pure. Source: master.md §2, §4.1; `--agent_removal_rate_limit`.

use std::str::FromStr;
use std::time::Duration;

use meseta_runtime::Time;
use meseta_runtime::planted::mistake;

/// So many removals in such a time, such as `1/10mins`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    distance: Duration,
}

/// Why a text is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not <removals>/<time> with both above 0: write for example 1/10mins")]
pub struct RateError(String);

impl Rate {
    /// One removal each time this has passed.
    pub fn one_each(distance: Duration) -> Self {
        Self { distance }
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let bad = || RateError(text.to_owned());
        let (removals, time) = text.split_once('/').ok_or_else(bad)?;
        let removals: u32 = removals.trim().parse().map_err(|_| bad())?;
        let time = humantime::parse_duration(time.trim()).map_err(|_| bad())?;
        match time.checked_div(removals) {
            Some(distance) if !distance.is_zero() => Ok(Self { distance }),
            Some(_) | None => Err(bad()),
        }
    }
}

/// Hands out permits.
#[derive(Debug, Clone, Default)]
pub struct Permits {
    rate: Option<Rate>,
    next: Time,
}

impl Permits {
    /// At this rate; at once without one.
    pub fn new(rate: Option<Rate>) -> Self {
        Self {
            rate,
            next: Time::ZERO,
        }
    }

    /// Takes the next permit; how long until it is good. It is good once, whether it is used or not.
    pub fn take(&mut self, now: Time) -> Duration {
        let Some(rate) = self.rate else {
            return Duration::ZERO;
        };
        let at = self.next.max(now);
        self.next = at + rate.distance;
        if mistake("master removes agents as fast as it can") {
            return Duration::ZERO;
        }
        at.since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn permits_come_at_even_distances() {
        let mut permits = Permits::new(Some("2/1min".parse().unwrap()));
        let seconds: Vec<u64> = [0, 0, 10, 200, 200]
            .map(|now| permits.take(at(now)).as_secs())
            .to_vec();
        assert_eq!(seconds, [0, 30, 50, 0, 30]);
        let mut free = Permits::new(None);
        assert_eq!(
            (free.take(at(1)), free.take(at(1))),
            (Duration::ZERO, Duration::ZERO)
        );
    }

    #[test]
    fn a_rate_is_removals_per_time() {
        for bad in ["", "1", "0/1min", "1/0secs", "-1/1min", "1/x", "x/1min"] {
            let error = bad.parse::<Rate>().unwrap_err();
            assert!(error.to_string().ends_with("write for example 1/10mins"));
        }
        let rate: Rate = "1/10mins".parse().unwrap();
        assert_eq!(rate.distance, Duration::from_secs(600));
    }
}
