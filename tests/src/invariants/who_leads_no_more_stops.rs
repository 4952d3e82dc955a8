//! M-1: a master that leads no more stops acting as one at once.
//!
//! Pure. Its end stands in its mailbox behind what was there before, so it may have a few turns yet.

use std::collections::BTreeMap;

/// Turns that a master may have after its leadership: what may have waited in its mailbox.
pub const TURNS: u32 = 100;

/// Masters that act although they should not, with their turns since.
#[derive(Debug)]
pub struct WhoLeadsNoMoreStops<Who> {
    late: BTreeMap<Who, u32>,
}

impl<Who> Default for WhoLeadsNoMoreStops<Who> {
    fn default() -> Self {
        let late = BTreeMap::new();
        Self { late }
    }
}

impl<Who: Ord> WhoLeadsNoMoreStops<Who> {
    /// A master has had a turn as leader; `elected` says whether the election of its node takes it for that too.
    ///
    /// # Errors
    /// That it goes on and on.
    pub fn acts(&mut self, who: Who, elected: bool) -> Result<(), String> {
        if elected {
            self.late.remove(&who);
            return Ok(());
        }
        let turns = self.late.entry(who).or_default();
        *turns += 1;
        if *turns <= TURNS {
            return Ok(());
        }
        Err(format!(
            "a master has had {turns} turns as the leader that it is no more"
        ))
    }

    /// A master has ended.
    pub fn ends(&mut self, who: &Who) {
        self.late.remove(who);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_master_that_goes_on() {
        let mut law = WhoLeadsNoMoreStops::default();
        for _ in 0..TURNS {
            assert_eq!(law.acts("m", false), Ok(()));
        }
        assert!(law.acts("m", false).is_err());
    }

    #[test]
    fn accepts_leaders_and_a_few_last_turns() {
        let mut law = WhoLeadsNoMoreStops::default();
        for _ in 0..3 {
            assert_eq!(law.acts("m", true), Ok(()));
            for _ in 0..TURNS {
                assert_eq!(law.acts("m", false), Ok(()));
            }
            law.ends(&"m");
        }
    }
}
