//! Which sandbox goes when.
//!
//! Pure: ages and shares, no clock and no disk. Every ended executor's sandbox is here with its age. It goes when it is
//! older than the disk allows just then:
//!
//! ```text
//! greatest age = delay × max(0, 1 − headroom − usage)         usage and headroom are shares of the disk, 0 to 1
//! ```
//!
//! With a headroom of 0.1, on a disk that is 90 % full everything goes that has ended. Invariant: what is held is never
//! given out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most sandboxes given out at once, so that one removal does not go on for ever; the others come next time.
pub const AT_ONCE: usize = 1_000;

/// How old a sandbox may get.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// On an empty disk without headroom.
    pub delay: Duration,
    /// Share of the disk to be kept free, 0 to 1.
    pub headroom: f64,
}

impl Policy {
    /// The greatest age when this share of the disk is used. When nobody knows how much is, the disk counts as empty.
    pub fn max_age(&self, usage: Option<f64>) -> Duration {
        let usage = usage.filter(|usage| usage.is_finite()).unwrap_or(0.0);
        let share = (1.0 - self.headroom - usage).clamp(0.0, 1.0);
        // No share above 1, so no product that is too long.
        self.delay.mul_f64(share)
    }
}

/// One sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// Its age when it came here.
    age: Duration,
    /// When it came here, as time since some fixed moment.
    since: Duration,
}

impl Entry {
    fn age(self, now: Duration) -> Duration {
        self.age.saturating_add(now.saturating_sub(self.since))
    }
}

/// All sandboxes that are to go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Schedule {
    /// A sandbox of this age is to go. One that is here already keeps its own age if that is the younger one: what was
    /// found on the disk may be older than what has become known meanwhile.
    pub fn add(&mut self, sandbox: PathBuf, age: Duration, now: Duration) {
        let entry = Entry { age, since: now };
        let known = self.entries.entry(sandbox).or_insert(entry);
        if age < known.age(now) {
            *known = entry;
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All that wait, each with its age, by path.
    pub fn iter(&self, now: Duration) -> impl Iterator<Item = (&Path, Duration)> {
        let entries = self.entries.iter();
        entries.map(move |(path, entry)| (path.as_path(), entry.age(now)))
    }

    /// Takes out what is at least `max_age` old and not held, the oldest first, at most [`AT_ONCE`]. With the age of
    /// each, to be added again should it not go.
    pub fn take_due(
        &mut self,
        now: Duration,
        max_age: Duration,
        is_held: impl Fn(&Path) -> bool,
    ) -> Vec<(PathBuf, Duration)> {
        let all = self.entries.iter();
        let mut due: Vec<(Duration, PathBuf)> = all
            .map(|(path, entry)| (entry.age(now), path))
            .filter(|(age, path)| *age >= max_age && !is_held(path))
            .map(|(age, path)| (age, path.clone()))
            .collect();
        due.sort_by(|(age, path), (other, other_path)| {
            other.cmp(age).then_with(|| path.cmp(other_path))
        });
        due.truncate(AT_ONCE);
        for (_, path) in &due {
            self.entries.remove(path);
        }
        due.into_iter().map(|(age, path)| (path, age)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

    fn policy() -> Policy {
        Policy {
            delay: WEEK,
            headroom: 0.1,
        }
    }

    fn hours(n: u64) -> Duration {
        Duration::from_secs(n * 3600)
    }

    #[test]
    fn the_fuller_the_disk_the_sooner_sandboxes_go() {
        for (usage, of_a_week) in [
            (Some(0.0), 0.9),
            (Some(0.4), 0.5),
            (Some(0.9), 0.0),
            (Some(1.0), 0.0),
            (None, 0.9),
            (Some(f64::NAN), 0.9),
            (Some(-7.0), 1.0),
        ] {
            let age = policy().max_age(usage).as_secs_f64() / WEEK.as_secs_f64();
            assert!((age - of_a_week).abs() < 1e-9, "{usage:?}: {age}");
        }
    }

    #[test]
    fn the_oldest_go_first_and_what_is_held_stays() {
        let mut schedule = Schedule::default();
        schedule.add("/young".into(), hours(0), hours(9));
        schedule.add("/old".into(), hours(4), hours(1));
        schedule.add("/held".into(), hours(100), hours(0));
        schedule.add("/older".into(), hours(5), hours(0));
        let held = |path: &Path| path == Path::new("/held");
        let due = schedule.take_due(hours(10), hours(10), held);
        assert_eq!(
            due,
            [("/older".into(), hours(15)), ("/old".into(), hours(13))]
        );
        let left: Vec<_> = schedule.iter(hours(10)).collect();
        assert_eq!(
            left,
            [
                (Path::new("/held"), hours(110)),
                (Path::new("/young"), hours(1))
            ]
        );
        assert_eq!(schedule.take_due(hours(10), hours(0), |_| false).len(), 2);
        assert!(schedule.is_empty());
    }

    #[test]
    fn of_two_ages_the_younger_counts() {
        for (first, second, age) in [(5, 0, 0), (0, 5, 1), (5, 5, 5), (5, 7, 6)] {
            let mut schedule = Schedule::default();
            schedule.add("/s".into(), hours(first), hours(1));
            schedule.add("/s".into(), hours(second), hours(2));
            let all: Vec<_> = schedule.iter(hours(2)).collect();
            assert_eq!(
                all,
                [(Path::new("/s"), hours(age))],
                "{first}, then {second}"
            );
        }
    }

    #[test]
    fn no_more_than_so_many_go_at_once() {
        let mut schedule = Schedule::default();
        for n in 0..AT_ONCE + 5 {
            schedule.add(format!("/{n}").into(), hours(1), hours(0));
        }
        let due = schedule.take_due(hours(0), hours(0), |_| false);
        assert_eq!((due.len(), schedule.len()), (AT_ONCE, 5));
    }

    /// When each sandbox has ended, in minutes; those that still run have not.
    type Model = BTreeMap<u8, u64>;

    proptest! {
        /// Whatever ends when and however full the disk is: what goes is exactly what has ended long enough before,
        /// and what is held never does.
        #[test]
        fn what_goes_is_what_a_plain_list_says(
            steps in proptest::collection::vec((0u8..4, any::<u8>(), 0u32..=100), 0..80),
        ) {
            let minutes = |n: u64| Duration::from_secs(n * 60);
            let policy = Policy { delay: minutes(1000), headroom: 0.25 };
            let (mut schedule, mut model, mut now) = (Schedule::default(), Model::new(), 500u64);
            for (kind, n, percent) in steps {
                match kind {
                    0 => {
                        // One found on disk that is up to 255 minutes old, or, half the time, has just ended.
                        let age = u64::from(n) * u64::from(percent % 2);
                        schedule.add(n.to_string().into(), minutes(age), minutes(now));
                        let ended = model.entry(n).or_insert(now - age);
                        *ended = (*ended).max(now - age);
                    }
                    1 => now += u64::from(n),
                    _ => {
                        let held = |id: u8| id.is_multiple_of(5);
                        let usage = f64::from(percent) / 100.0;
                        let due = schedule.take_due(minutes(now), policy.max_age(Some(usage)), |path| {
                            held(path.display().to_string().parse().unwrap())
                        });
                        // In whole minutes: 1000 × (0.75 − percent / 100).
                        let oldest = (750 - 10 * i64::from(percent)).max(0).unsigned_abs();
                        let expected: Vec<u8> = model
                            .iter()
                            .filter(|(id, ended)| !held(**id) && now - **ended > oldest)
                            .map(|(id, _)| *id)
                            .collect();
                        let mut gone: Vec<u8> =
                            due.iter().map(|(path, _)| path.display().to_string().parse().unwrap()).collect();
                        gone.sort_unstable();
                        // One that is just as old may go or stay: shares are no whole numbers.
                        gone.retain(|id| now - model[id] != oldest);
                        prop_assert_eq!(gone, expected);
                        for (path, age) in due {
                            let id: u8 = path.display().to_string().parse().unwrap();
                            prop_assert_eq!(age, minutes(now - model[&id]));
                            model.remove(&id);
                        }
                    }
                }
                prop_assert_eq!(schedule.len(), model.len());
            }
        }
    }
}
