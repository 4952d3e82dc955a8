//! L-3: a replica's promise never falls, over restarts too.
//!
//! Pure. What counts is the promise on disk. A disk that is lost begins another life of its member, whose answers of
//! before count no more.

use std::collections::BTreeMap;

use meseta_master::log::action::Proposal;

use super::one_value_each::Member;

/// The last promise of each member.
#[derive(Debug, Default)]
pub struct PromisesNeverFall {
    promised: BTreeMap<Member, Proposal>,
}

impl PromisesNeverFall {
    /// A promise is on a member's disk, just written or found there.
    ///
    /// # Errors
    /// The higher one that was there.
    pub fn stored(&mut self, member: Member, promised: Proposal) -> Result<(), String> {
        let before = self.promised.insert(member, promised).unwrap_or_default();
        if promised >= before {
            return Ok(());
        }
        Err(format!(
            "replica {member} had promised {before} and holds a promise of {promised} now"
        ))
    }

    /// A member's disk is lost, or part of it.
    pub fn forgets(&mut self, member: Member) {
        self.promised.remove(&member);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_lower_promise() {
        let mut law = PromisesNeverFall::default();
        assert_eq!(law.stored(0, Proposal(5)), Ok(()));
        assert!(law.stored(0, Proposal(4)).is_err());
    }

    #[test]
    fn accepts_equal_and_higher_ones_and_another_life() {
        let mut law = PromisesNeverFall::default();
        for (member, promised) in [(0, 5), (1, 2), (0, 5), (0, 6)] {
            assert_eq!(law.stored(member, Proposal(promised)), Ok(()));
        }
        law.forgets(0);
        assert_eq!(law.stored(0, Proposal(1)), Ok(()));
    }
}
