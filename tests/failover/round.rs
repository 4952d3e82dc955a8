//! What is seen of one change of the leader, and what many of them come to.
//!
//! Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use meseta_runtime::{Pid, Time};
use meseta_tests::emulated::Event;

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leading {
    pub(crate) epoch: u64,
    pub(crate) leader: Pid,
}

/// From the loss of one leader until all agents are with the next one.
#[derive(Debug)]
pub(crate) struct Round {
    began: Time,
    above: u64,
    agents: u32,
    writes: bool,
    /// The newest leader above the old one.
    pub(crate) leading: Option<Leading>,
    announced: Option<Time>,
    written: Option<Time>,
    /// Agents that the newest leader has taken in.
    back: BTreeSet<u32>,
    all_back: Option<Time>,
}

/// Times since the beginning of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) announced: Duration,
    pub(crate) written: Duration,
    pub(crate) all_back: Duration,
}

impl Round {
    /// Waits for a leader of a higher epoch than `above`, for so many agents, and if `writes` for a write to the
    /// registry.
    pub(crate) fn new(began: Time, above: u64, agents: u32, writes: bool) -> Self {
        Self {
            began,
            above,
            agents,
            writes,
            leading: None,
            announced: None,
            written: None,
            back: BTreeSet::new(),
            all_back: None,
        }
    }

    /// Takes note. A leader that is followed by another before all are back counts no more; the agents must be with
    /// the last one.
    ///
    /// # Errors
    /// The text of [`Event::Wrong`].
    pub(crate) fn note(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Announced { at, epoch, leader } => {
                let newest = self.leading.as_ref().map_or(self.above, |one| one.epoch);
                if epoch > newest {
                    self.announced.get_or_insert(at);
                    self.leading = Some(Leading { epoch, leader });
                    self.back.clear();
                    self.all_back = None;
                }
            }
            Event::TakenIn { at, epoch, agent } => {
                let counts = self.leading.as_ref().is_some_and(|one| one.epoch == epoch);
                if counts && self.back.insert(agent) && self.missing() == 0 {
                    self.all_back = Some(at);
                }
            }
            Event::Written { at, epoch } => {
                if epoch > self.above {
                    self.written.get_or_insert(at);
                }
            }
            Event::Wrong(what) => return Err(what),
        }
        Ok(())
    }

    /// How many agents the leader has not taken in yet.
    pub(crate) fn missing(&self) -> usize {
        (self.agents as usize).saturating_sub(self.back.len())
    }

    /// Whether everything has happened.
    pub(crate) fn is_over(&self) -> bool {
        self.leading.is_some() && self.missing() == 0 && (self.written.is_some() || !self.writes)
    }

    /// What is awaited, for people.
    pub(crate) fn awaited(&self) -> String {
        match &self.leading {
            None => "no leader is known".to_owned(),
            Some(leading) => format!(
                "{} leads under epoch {}; {} of {} agents are not with it{}",
                leading.leader.address(),
                leading.epoch,
                self.missing(),
                self.agents,
                if self.writes && self.written.is_none() {
                    ", nothing is written to the registry"
                } else {
                    ""
                }
            ),
        }
    }

    /// The times, once it is over.
    pub(crate) fn times(&self) -> Times {
        let since = |at: Option<Time>| at.map_or(Duration::ZERO, |at| at.since(self.began));
        Times {
            announced: since(self.announced),
            written: since(self.written),
            all_back: since(self.all_back),
        }
    }
}

/// The smallest value that at least so many percent of all values do not exceed.
pub(crate) fn percentile<T: Copy + Ord + Default>(all: &[T], percent: usize) -> T {
    let mut sorted = all.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// Resident memory in KiB, from `/proc/PID/status`.
pub(crate) fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Processor time so far, from `/proc/PID/stat`. Its unit is a hundredth of a second on every architecture that
/// Meseta runs on.
pub(crate) fn processor(stat: &str) -> Option<Duration> {
    // The name of the program may hold anything, but nothing after it holds a parenthesis.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Time {
        Time::ZERO + Duration::from_millis(milliseconds)
    }
    fn announced(milliseconds: u64, epoch: u64) -> Event {
        Event::Announced {
            at: at(milliseconds),
            epoch,
            leader: format!("master@h:{epoch}").parse().unwrap(),
        }
    }
    fn taken_in(milliseconds: u64, epoch: u64, agent: u32) -> Event {
        let at = at(milliseconds);
        Event::TakenIn { at, epoch, agent }
    }
    fn written(milliseconds: u64, epoch: u64) -> Event {
        let at = at(milliseconds);
        Event::Written { at, epoch }
    }
    fn played(events: impl IntoIterator<Item = Event>) -> Round {
        let mut round = Round::new(at(100), 3, 2, true);
        for event in events {
            round.note(event).unwrap();
        }
        round
    }

    #[test]
    fn a_round_ends_when_all_agents_are_with_the_new_leader_and_something_is_written() {
        let mut events = vec![
            announced(110, 3),
            taken_in(120, 3, 0),
            announced(200, 4),
            announced(210, 4),
            taken_in(300, 4, 0),
            taken_in(310, 4, 0),
            written(320, 4),
            written(330, 4),
        ];
        let round = played(events.clone());
        assert!(!round.is_over());
        assert_eq!(
            round.awaited(),
            "h:4 leads under epoch 4; 1 of 2 agents are not with it"
        );
        events.push(taken_in(400, 4, 1));
        let round = played(events);
        assert!(round.is_over());
        let expected = Times {
            announced: Duration::from_millis(100),
            written: Duration::from_millis(220),
            all_back: Duration::from_millis(300),
        };
        assert_eq!(round.times(), expected);
    }

    #[test]
    fn agents_must_be_with_the_last_of_several_leaders() {
        let events = [
            announced(200, 4),
            taken_in(210, 4, 0),
            taken_in(220, 4, 1),
            announced(300, 5),
            taken_in(310, 5, 0),
            taken_in(320, 4, 1),
            written(330, 5),
        ];
        let mut round = played(events);
        assert_eq!((round.missing(), round.is_over()), (1, false));
        round.note(taken_in(400, 5, 1)).unwrap();
        assert!(round.is_over());
        assert_eq!(round.times().announced, Duration::from_millis(100));
        assert_eq!(round.times().all_back, Duration::from_millis(300));
    }

    #[test]
    fn what_must_not_happen_ends_it() {
        let mut round = Round::new(at(0), 0, 1, false);
        let wrong = Event::Wrong("agent 1 is shut down".to_owned());
        assert_eq!(round.note(wrong), Err("agent 1 is shut down".to_owned()));
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let all: Vec<u32> = (1..=200).rev().collect();
        assert_eq!(percentile(&all, 50), 100);
        assert_eq!(percentile(&all, 99), 198);
        assert_eq!(percentile(&[7, 3, 5], 50), 5);
        assert_eq!(percentile(&[7, 3, 5], 99), 7);
        assert_eq!(percentile::<u32>(&[], 50), 0);
    }

    #[test]
    fn the_kernels_files_are_read() {
        let status = "Name:\tx\nVmHWM:\t   5000 kB\nVmRSS:\t   4321 kB\nThreads:\t3\n";
        assert_eq!(resident(status), Some(4321));
        let stat = "17 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20 0";
        assert_eq!(processor(stat), Some(Duration::from_millis(1750)));
        assert_eq!((resident("no"), processor("no")), (None, None));
    }
}
