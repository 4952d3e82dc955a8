//! L-4: no promise or vote leaves a replica before it is on its disk.
//!
//! Pure.

use meseta_master::log::action::{Action, Position, Proposal};

/// What a replica says of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vote {
    /// It accepts nothing lower: at one position, or wherever nothing stands yet; then the position is the last of its log.
    Promise(Option<Position>),
    /// It has accepted a value here.
    Accept(Position),
}

/// What a replica's disk holds of it: the promise for all positions, where its log begins, and the record of the position.
#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    /// For all positions without a record.
    pub promised: Proposal,
    /// First position that is not truncated.
    pub begin: Position,
    /// The record of the position.
    pub record: Option<&'a Action>,
}

/// A vote leaves a replica.
///
/// # Errors
/// What is not on disk.
pub fn check(vote: Vote, proposal: Proposal, held: Held<'_>) -> Result<(), String> {
    let of_record = |record: &Action| record.promised >= proposal;
    let holds = match vote {
        Vote::Promise(position) => {
            held.promised >= proposal
                || held.record.is_some_and(of_record)
                || position.is_some_and(|position| position < held.begin)
        }
        Vote::Accept(position) => {
            let accepted = |record: &Action| of_record(record) && record.performed.is_some();
            position < held.begin || held.record.is_some_and(accepted)
        }
    };
    if holds {
        return Ok(());
    }
    Err(format!(
        "a replica says {vote:?} to proposal {proposal}, and its disk holds {held:?}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use meseta_master::log::action::Value;

    fn held(promised: u64, record: Option<&Action>) -> Held<'_> {
        Held {
            promised: Proposal(promised),
            begin: Position(2),
            record,
        }
    }

    #[test]
    fn refuses_a_vote_that_the_disk_does_not_hold() {
        let promise = Action::promise(Position(3), Proposal(4));
        for (vote, held) in [
            (Vote::Promise(None), held(4, None)),
            (Vote::Promise(Some(Position(3))), held(4, Some(&promise))),
            (Vote::Accept(Position(3)), held(9, None)),
            (Vote::Accept(Position(3)), held(9, Some(&promise))),
        ] {
            assert!(check(vote, Proposal(5), held).is_err(), "{vote:?}");
        }
    }

    #[test]
    fn accepts_what_the_disk_holds_and_what_is_truncated() {
        let promise = Action::promise(Position(3), Proposal(5));
        let value = Value::Nop { tombstone: false };
        let accepted = Action::learned(Position(3), Proposal(5), value);
        for (vote, held) in [
            (Vote::Promise(None), held(5, None)),
            (Vote::Promise(Some(Position(3))), held(4, Some(&promise))),
            (Vote::Promise(Some(Position(1))), held(4, None)),
            (Vote::Accept(Position(3)), held(4, Some(&accepted))),
            (Vote::Accept(Position(1)), held(4, None)),
        ] {
            assert_eq!(check(vote, Proposal(5), held), Ok(()), "{vote:?}");
        }
    }
}
