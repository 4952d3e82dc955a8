//! Which entries of the registry about agents that are away may be forgotten.
//!
//! Pure. Source: log.md §8.

use std::collections::BTreeSet;
use std::time::Duration;

use meseta_protocol::AgentId;

/// How much is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Entries at most. Default 102,400.
    pub count: usize,
    /// For this long at most. Default 2 weeks.
    pub age: Duration,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            count: 102_400,
            age: Duration::from_secs(14 * 24 * 60 * 60),
        }
    }
}

/// The entries to forget, of one list: the oldest as long as there are too many, and all that are too old. Times are since
/// the Unix epoch; one in the future, after a step of the clock, is young.
pub fn to_forget<'a>(
    entries: impl Iterator<Item = (&'a AgentId, Duration)>,
    now: Duration,
    keep: Keep,
) -> BTreeSet<AgentId> {
    let mut oldest_first: Vec<(Duration, &AgentId)> = entries.map(|(id, at)| (at, id)).collect();
    oldest_first.sort();
    let surplus = oldest_first.len().saturating_sub(keep.count);
    oldest_first
        .into_iter()
        .enumerate()
        .filter(|(nth, (at, _))| *nth < surplus || now.saturating_sub(*at) > keep.age)
        .map(|(_, (_, id))| id.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forgotten(ats: &[u64], now: u64, count: usize, age: u64) -> Vec<String> {
        let entries: Vec<(AgentId, Duration)> = ats
            .iter()
            .enumerate()
            .map(|(n, at)| (AgentId::new(format!("S{n}")), Duration::from_secs(*at)))
            .collect();
        let keep = Keep {
            count,
            age: Duration::from_secs(age),
        };
        let entries = entries.iter().map(|(id, at)| (id, *at));
        to_forget(entries, Duration::from_secs(now), keep)
            .into_iter()
            .map(|id| id.to_string())
            .collect()
    }

    #[test]
    fn the_oldest_go_while_there_are_too_many() {
        assert_eq!(forgotten(&[30, 10, 20], 30, 1, 100), ["S1", "S2"]);
        assert!(forgotten(&[30, 10, 20], 30, 3, 100).is_empty());
        assert_eq!(forgotten(&[7, 7, 7], 30, 2, 100), ["S0"]);
    }

    #[test]
    fn what_is_too_old_goes() {
        assert_eq!(forgotten(&[0, 50, 101], 150, 10, 100), ["S0"]);
        assert!(forgotten(&[50, 200], 150, 10, 100).is_empty());
    }
}
