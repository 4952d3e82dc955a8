//! L-6 and M-1: once a leader is elected with a log that ends at e, nothing of an older leader is ever acknowledged above
//! e; so at each position at most one leader's write is.
//!
//! Pure.

use std::collections::BTreeMap;

use meseta_master::log::action::{Position, Proposal};

/// Who was elected, and what was acknowledged to whom.
#[derive(Debug, Default)]
pub struct OldLeadersWriteNothing {
    /// Where the log ended for each leader.
    endings: BTreeMap<Proposal, Position>,
    /// Whose write was acknowledged where.
    writers: BTreeMap<Position, Proposal>,
}

impl OldLeadersWriteNothing {
    /// Somebody was elected.
    ///
    /// # Errors
    /// An older leader's write behind the end, or another leader of this epoch.
    pub fn elected(&mut self, epoch: Proposal, ending: Position) -> Result<(), String> {
        if self.endings.insert(epoch, ending).is_some() {
            return Err(format!("two leaders are elected under epoch {epoch}"));
        }
        let mut above = self.writers.range(ending.next()..);
        match above.find(|(_, writer)| **writer < epoch) {
            Some((at, writer)) => Err(format!(
                "{epoch} is elected with a log that ends at {ending}, but a write of {writer} at {at} was acknowledged"
            )),
            None => Ok(()),
        }
    }

    /// A leader's write was acknowledged.
    ///
    /// # Errors
    /// The later leader who had been elected by then, or the other write at that place.
    pub fn acknowledged(&mut self, epoch: Proposal, position: Position) -> Result<(), String> {
        if let Some(other) = self.writers.insert(position, epoch) {
            return Err(format!(
                "at {position} writes of {other} and of {epoch} are acknowledged"
            ));
        }
        let mut later = self.endings.range(epoch.next()..);
        match later.find(|(_, ending)| position > **ending) {
            Some((newer, ending)) => Err(format!(
                "a write of {epoch} at {position} is acknowledged, but {newer} was elected with a log that ends at {ending}"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_an_old_leaders_write_above_the_end_of_a_new_one() {
        let mut law = OldLeadersWriteNothing::default();
        assert_eq!(law.elected(Proposal(1), Position(0)), Ok(()));
        assert_eq!(law.acknowledged(Proposal(1), Position(5)), Ok(()));
        assert!(law.acknowledged(Proposal(1), Position(5)).is_err());
        assert!(law.elected(Proposal(3), Position(4)).is_err());
        assert!(law.elected(Proposal(3), Position(5)).is_err());
        assert!(law.acknowledged(Proposal(1), Position(6)).is_err());
    }

    #[test]
    fn accepts_one_leader_after_the_other() {
        let mut law = OldLeadersWriteNothing::default();
        assert_eq!(law.elected(Proposal(1), Position(0)), Ok(()));
        assert_eq!(law.elected(Proposal(3), Position(5)), Ok(()));
        // Its answer was under way for a while.
        assert_eq!(law.acknowledged(Proposal(1), Position(5)), Ok(()));
        assert_eq!(law.acknowledged(Proposal(3), Position(6)), Ok(()));
    }
}
