//! Deadlines of one process's asks.
//!
//! Pure: a heap, no clock. A process that asks a lot has many deadlines, and nearly all of them pass unused, because
//! the answer came. So they wait here, where adding one and forgetting one costs next to nothing, and the node's
//! clock knows only the earliest. The invariant: no open ask is without a deadline here, and as long as any is open
//! the clock has been told of a deadline not later than the earliest of theirs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::clock::{Time, TimerKey};

/// Dead entries that may stay beside as many living ones.
const SLACK: usize = 64;

/// What waits for answers, earliest first.
#[derive(Default)]
pub(super) struct Deadlines {
    heap: BinaryHeap<Reverse<(TimerKey, u64)>>,
    /// What the clock was told of: the deadline, and the key to cancel it with.
    armed: Option<(Time, TimerKey)>,
}

impl Deadlines {
    /// Adds the deadline of an ask; `open` are asks without an answer, `is_open` says which.
    pub(super) fn add(
        &mut self,
        place: TimerKey,
        ask: u64,
        open: usize,
        is_open: impl Fn(u64) -> bool,
    ) {
        self.heap.push(Reverse((place, ask)));
        if self.heap.len() > 2 * open + SLACK {
            self.heap.retain(|Reverse((_, ask))| is_open(*ask));
        }
    }

    /// The earliest deadline, when the clock must be told of it; with the key of what it was told before.
    pub(super) fn to_arm(&self) -> Option<(TimerKey, Option<TimerKey>)> {
        let Reverse((place, _)) = self.heap.peek()?;
        match self.armed {
            Some((deadline, _)) if deadline <= place.deadline() => None,
            Some((_, key)) => Some((*place, Some(key))),
            None => Some((*place, None)),
        }
    }

    /// Notes that the clock was told.
    pub(super) fn armed(&mut self, key: TimerKey) {
        self.armed = Some((key.deadline(), key));
    }

    /// The clock rang: the ask that is due, if one is, and has no answer. The next one is armed afterwards. The clock
    /// may have rung for a deadline before it was told of an earlier one; then that one is still to come.
    pub(super) fn rang(&mut self, now: Time, is_open: impl Fn(u64) -> bool) -> Option<u64> {
        self.armed = self.armed.filter(|(deadline, _)| *deadline > now);
        while let Some(Reverse((place, ask))) = self.heap.peek().copied() {
            let open = is_open(ask);
            if open && place.deadline() > now {
                return None;
            }
            self.heap.pop();
            if open {
                return Some(ask);
            }
        }
        None
    }

    /// Forgets everything; the key to cancel what the clock was told.
    pub(super) fn clear(&mut self) -> Option<TimerKey> {
        self.heap.clear();
        self.armed.take().map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Clock;
    use std::time::Duration;

    #[test]
    fn the_clock_is_told_of_the_earliest_only_and_again_when_an_earlier_one_comes() {
        let clock = Clock::paused();
        let at = |s| clock.place(Time::ZERO + Duration::from_secs(s));
        let mut deadlines = Deadlines::default();
        let (five, six, three) = (at(5), at(6), at(3));
        deadlines.add(five, 1, 1, |_| true);
        assert_eq!(deadlines.to_arm(), Some((five, None)));
        deadlines.armed(five);
        deadlines.add(six, 2, 2, |_| true);
        assert_eq!(deadlines.to_arm(), None);
        deadlines.add(three, 3, 3, |_| true);
        assert_eq!(deadlines.to_arm(), Some((three, Some(five))));
        deadlines.armed(three);
        assert_eq!(deadlines.rang(three.deadline(), |_| true), Some(3));
        assert_eq!(deadlines.to_arm(), Some((five, None)));
        // The first is answered: only the second is left to be armed.
        assert_eq!(deadlines.rang(five.deadline(), |ask| ask == 2), None);
        assert_eq!(deadlines.to_arm(), Some((six, None)));
    }

    #[test]
    fn a_ring_for_what_is_no_longer_the_earliest_leaves_the_earliest_armed() {
        let clock = Clock::paused();
        let mut deadlines = Deadlines::default();
        let five = clock.place(Time::ZERO + Duration::from_secs(5));
        deadlines.add(five, 1, 1, |_| true);
        deadlines.armed(five);
        let early = Time::ZERO + Duration::from_secs(4);
        assert_eq!(deadlines.rang(early, |_| true), None);
        assert_eq!(deadlines.to_arm(), None, "the clock knows of it");
        assert_eq!(
            deadlines.clear(),
            Some(five),
            "and can be told to forget it"
        );
    }

    #[test]
    fn deadlines_of_answered_asks_do_not_pile_up() {
        let clock = Clock::paused();
        let mut deadlines = Deadlines::default();
        for ask in 0..100_000_u64 {
            deadlines.add(clock.place(Time(ask)), ask, 1, |open| open == ask);
            assert!(deadlines.heap.len() <= SLACK + 2);
        }
    }
}
