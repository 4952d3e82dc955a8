//! One line a second for what others can make happen as often as they like.
//! Pure: the time is an argument.

use std::time::Duration;

/// Least time between two lines.
const EVERY: Duration = Duration::from_secs(1);

/// When the last line was written, and what was not said since.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    next: Duration,
    unsaid: u64,
}

impl Seldom {
    /// It happened at `now`: whether to say so, and how many times before it was not said.
    pub(crate) fn say(&mut self, now: Duration) -> Option<u64> {
        if now < self.next {
            self.unsaid += 1;
            return None;
        }
        self.next = now + EVERY;
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_line_a_second_and_it_tells_how_many_are_missing() {
        let mut seldom = Seldom::default();
        let at = |ms| Duration::from_millis(ms);
        assert_eq!(seldom.say(at(0)), Some(0));
        assert_eq!(seldom.say(at(1)), None);
        assert_eq!(seldom.say(at(999)), None);
        assert_eq!(seldom.say(at(1_000)), Some(2));
        assert_eq!(seldom.say(at(5_000)), Some(0));
    }
}
