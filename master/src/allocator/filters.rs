//! Refusals: what a framework declined and does not want to see again for a while.
//!
//! Pure. A refusal of resources R, made for one agent under one role, suppresses an offer O of that agent under that
//! role exactly when R contains O; anything more, or another role, gets through. Times are the caller's. Source:
//! Mesos `hierarchical.cpp` (`RefusedOfferFilter`, `recoverResources`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use meseta_protocol::offer::Filters;
use meseta_protocol::resources::Resources;
use meseta_runtime::Time;

/// Longest refusal.
pub const MAX_REFUSAL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How long `filters` refuse, or none when they refuse nothing.
///
/// More than a year counts as a year; what is negative or no number counts as the default of 5 s. A refusal lasts at
/// least one interval of the allocator, for otherwise it would end before anything could have been offered.
pub fn refusal(filters: &Filters, allocation_interval: Duration) -> Option<Duration> {
    let asked = filters.refuse_seconds;
    let length = if asked.is_nan() || asked < 0.0 {
        let default = Filters::default().refuse_seconds;
        Duration::try_from_secs_f64(default).unwrap_or(MAX_REFUSAL)
    } else {
        Duration::try_from_secs_f64(asked).map_or(MAX_REFUSAL, |asked| asked.min(MAX_REFUSAL))
    };
    (!length.is_zero()).then(|| length.max(allocation_interval))
}

/// The refusals of one framework under one role.
#[derive(Debug, Default)]
pub struct Refusals {
    /// By agent and by the refusal's own number.
    all: BTreeMap<(usize, u64), Arc<Resources>>,
}

impl Refusals {
    /// What is refused of an agent's resources: an offer is, when one of these contains it. Refusals that are over
    /// must have been removed before.
    pub fn of_agent(&self, agent: usize) -> impl Iterator<Item = &Arc<Resources>> {
        let range = (agent, 0)..=(agent, u64::MAX);
        self.all.range(range).map(|(_, refused)| refused)
    }

    /// All of them: of which agent, its number, and what is refused.
    pub fn iter(&self) -> impl Iterator<Item = (usize, u64, &Arc<Resources>)> {
        (self.all.iter()).map(|((agent, number), refused)| (*agent, *number, refused))
    }

    /// Installs a refusal under a number never used before.
    pub fn insert(&mut self, agent: usize, number: u64, refused: Arc<Resources>) {
        self.all.insert((agent, number), refused);
    }

    /// Removes one refusal; false when it is gone already.
    pub fn remove(&mut self, agent: usize, number: u64) -> bool {
        self.all.remove(&(agent, number)).is_some()
    }

    /// Removes all refusals of an agent's resources.
    pub fn remove_agent(&mut self, agent: usize) {
        let range = (agent, 0)..=(agent, u64::MAX);
        let numbers: Vec<_> = self.all.range(range).map(|(key, _)| *key).collect();
        for key in numbers {
            self.all.remove(&key);
        }
    }

    /// Removes all; true when there were any.
    pub fn clear(&mut self) -> bool {
        let had = !self.all.is_empty();
        self.all.clear();
        had
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The agents whose resources are refused, with the numbers of the refusals.
    pub fn keys(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.all.keys().copied()
    }
}

/// One refusal, by whom it was made and what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RefusalKey {
    /// Its own number.
    pub number: u64,
    /// The framework.
    pub framework: usize,
    /// The role.
    pub role: usize,
    /// The agent.
    pub agent: usize,
}

/// When refusals end.
#[derive(Debug, Default)]
pub struct Deadlines {
    queue: BinaryHeap<Reverse<(Time, RefusalKey)>>,
}

impl Deadlines {
    /// Notes that a refusal ends at `end`.
    pub fn push(&mut self, end: Time, key: RefusalKey) {
        self.queue.push(Reverse((end, key)));
    }

    /// Takes one refusal out that ended before `now`. One that ends at `now` still holds: work that waits at that
    /// moment was there before the end.
    pub fn pop_ended(&mut self, now: Time) -> Option<RefusalKey> {
        let Reverse((end, _)) = self.queue.peek()?;
        if *end >= now {
            return None;
        }
        self.queue.pop().map(|Reverse((_, key))| key)
    }

    /// How many are noted, those removed early included.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none is noted.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The numbers of the refusals noted.
    pub fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.queue.iter().map(|Reverse((_, key))| key.number)
    }

    /// When the refusals of one framework end, those removed early included, by number.
    pub fn of_framework(&self, framework: usize) -> BTreeMap<u64, Time> {
        let all = self.queue.iter().map(|Reverse(one)| one);
        all.filter(|(_, key)| key.framework == framework)
            .map(|(end, key)| (key.number, *end))
            .collect()
    }

    /// Drops all entries for which `keep` does not hold.
    pub fn retain(&mut self, keep: impl Fn(&RefusalKey) -> bool) {
        self.queue.retain(|Reverse((_, key))| keep(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_made_sane() {
        let interval = Duration::from_secs(1);
        for (asked, seconds) in [
            (5.0, Some(5)),
            (0.0, None),
            (0.1, Some(1)),
            (-3.0, Some(5)),
            (f64::NAN, Some(5)),
            (1e30, Some(365 * 86_400)),
            (f64::INFINITY, Some(365 * 86_400)),
        ] {
            let length = refusal(&Filters::refusing(asked), interval);
            assert_eq!(length, seconds.map(Duration::from_secs), "{asked}");
        }
    }

    #[test]
    fn a_refusal_holds_for_parts_of_what_was_refused() {
        let mut refusals = Refusals::default();
        let refuse = |refusals: &Refusals, agent, offer: &str| {
            let offer: Resources = offer.parse().unwrap();
            refusals
                .of_agent(agent)
                .any(|refused| refused.contains(&offer))
        };
        let refused: Resources = "cpus:2;mem:10;ports:[1-9]".parse().unwrap();
        refusals.insert(3, 1, Arc::new(refused));
        for (offer, expected) in [
            ("cpus:2;mem:10;ports:[1-9]", true),
            ("cpus:1", true),
            ("ports:[2-3]", true),
            ("cpus:2.001", false),
            ("cpus:1;disk:1", false),
            ("cpus(a):1", false),
        ] {
            assert_eq!(refuse(&refusals, 3, offer), expected, "{offer}");
        }
        assert!(!refuse(&refusals, 2, "cpus:1"));
        refusals.remove_agent(3);
        assert!(refusals.is_empty());
    }
}
