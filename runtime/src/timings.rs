//! How long something has taken that is done again and again: the latest, and percentiles over a window of time.
//!
//! Pure. At most a thousand are kept, the latest ones.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Time;
use crate::metrics::Metrics;

/// Samples kept: enough for the highest percentile to say something, and cheap to sort.
const MAX_SAMPLES: usize = 1000;

/// How long a sample counts.
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The percentiles, with the end of their metric's name.
const PERCENTILES: [(&str, f64); 6] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p999", 0.999),
    ("p9999", 0.9999),
];

/// Durations of the same thing.
#[derive(Debug)]
pub struct Timings {
    window: Duration,
    samples: VecDeque<(Time, f64)>,
}

impl Timings {
    /// None yet; each counts for an hour.
    pub fn of_an_hour() -> Self {
        Self::over(HOUR)
    }

    /// None yet; each counts for a day.
    pub fn of_a_day() -> Self {
        Self::over(DAY)
    }

    fn over(window: Duration) -> Self {
        Self {
            window,
            samples: VecDeque::new(),
        }
    }

    /// It has taken this long, now.
    pub fn add(&mut self, now: Time, took: Duration) {
        if self.samples.len() == MAX_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((now, took.as_secs_f64() * 1e3));
    }

    /// Shows them among the metrics: `name` is the latest, in milliseconds, `name/count` how many count, and `name/min`,
    /// `name/max`, `name/p50`, `p90`, `p95`, `p99`, `p999` and `p9999` what those have taken. All are 0 while none counts.
    pub fn show(&mut self, metrics: &Metrics, name: &str, now: Time) {
        let statistics = self.statistics(now);
        let ends = ["", "count", "min", "max"].into_iter();
        for end in ends.chain(PERCENTILES.map(|(end, _)| end)) {
            let slash = if end.is_empty() { "" } else { "/" };
            let value = statistics.iter().find(|(one, _)| *one == end);
            metrics.set(
                &format!("{name}{slash}{end}"),
                value.map_or(0.0, |one| one.1),
            );
        }
    }

    /// Ends of metric names with their values in milliseconds: the empty one is the latest. Nothing without samples.
    fn statistics(&mut self, now: Time) -> Vec<(&'static str, f64)> {
        while let Some((at, _)) = self.samples.front()
            && now.since(*at) > self.window
        {
            self.samples.pop_front();
        }
        let Some((_, latest)) = self.samples.back() else {
            return Vec::new();
        };
        let mut sorted: Vec<f64> = self.samples.iter().map(|(_, value)| *value).collect();
        sorted.sort_by(f64::total_cmp);
        let (first, last) = (sorted[0], sorted[sorted.len() - 1]);
        let count = u32::try_from(sorted.len()).map_or(f64::MAX, f64::from);
        let mut all = vec![
            ("", *latest),
            ("count", count),
            ("min", first),
            ("max", last),
        ];
        all.extend(PERCENTILES.map(|(name, part)| (name, percentile(&sorted, part))));
        all
    }
}

/// The value below which this part of the sorted values lies, between two of them in proportion.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the index is between 0 and the number of samples, at most a thousand"
)]
fn percentile(sorted: &[f64], part: f64) -> f64 {
    let place = part * (sorted.len() - 1) as f64;
    let below = sorted[place.floor() as usize];
    let above = sorted[place.ceil() as usize];
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn percentiles_are_of_the_last_day_and_the_latest_thousand() {
        let mut timings = Timings::of_a_day();
        assert!(timings.statistics(at(0)).is_empty());
        timings.add(at(0), Duration::from_secs(9));
        for n in 1..=101_u64 {
            timings.add(at(10), Duration::from_millis(n));
        }
        let day = 24 * 60 * 60;
        let statistics = timings.statistics(at(day + 1));
        let of = |name| statistics.iter().find(|(one, _)| *one == name).unwrap().1;
        for (name, value) in [
            ("", 101.0),
            ("count", 101.0),
            ("min", 1.0),
            ("max", 101.0),
            ("p50", 51.0),
            ("p90", 91.0),
            ("p999", 100.9),
        ] {
            assert!((of(name) - value).abs() < 1e-6, "{name}: {}", of(name));
        }
        for _ in 0..2 * MAX_SAMPLES {
            timings.add(at(day), Duration::from_millis(1));
        }
        assert_eq!(timings.statistics(at(day)).len(), 10);
        assert_eq!(timings.samples.len(), MAX_SAMPLES);
        assert!(timings.statistics(at(3 * day)).is_empty());
    }

    #[test]
    fn all_that_is_shown_is_there_before_the_first_sample() {
        let (metrics, mut timings) = (Metrics::default(), Timings::of_an_hour());
        timings.show(&metrics, "a/run_ms", at(0));
        assert_eq!(metrics.snapshot().len(), 10);
        assert_eq!(metrics.value("a/run_ms/p9999"), Some(0.0));
        timings.add(at(0), Duration::from_millis(3));
        timings.show(&metrics, "a/run_ms", at(1));
        let values = ["a/run_ms", "a/run_ms/count", "a/run_ms/p50"].map(|name| metrics.value(name));
        assert_eq!(values, [Some(3.0), Some(1.0), Some(3.0)]);
        timings.show(&metrics, "a/run_ms", at(2 * 60 * 60));
        assert_eq!(metrics.value("a/run_ms/count"), Some(0.0));
        assert_eq!(metrics.snapshot().len(), 10);
    }
}
