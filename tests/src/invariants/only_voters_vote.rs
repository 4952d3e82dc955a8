//! L-5: a replica that is empty, recovering or damaged does not vote.
//!
//! Pure.

use meseta_master::log::messages::{Status, Verdict};

/// A replica, of which its disk says this, answers a proposal so.
///
/// # Errors
/// What it says although it must not.
pub fn check(status: Status, damaged: bool, verdict: Verdict) -> Result<(), String> {
    let may = status == Status::Voting && !damaged;
    if may || verdict == Verdict::Ignored {
        return Ok(());
    }
    Err(format!(
        "a replica whose disk says {status:?}{} answers {verdict:?}",
        if damaged { " and is damaged" } else { "" }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_votes_of_those_who_may_have_forgotten() {
        assert!(check(Status::Empty, false, Verdict::Accept).is_err());
        assert!(check(Status::Recovering, false, Verdict::Reject).is_err());
        assert!(check(Status::Voting, true, Verdict::Accept).is_err());
    }

    #[test]
    fn accepts_votes_of_voters_and_silence() {
        assert_eq!(check(Status::Voting, false, Verdict::Accept), Ok(()));
        assert_eq!(check(Status::Starting, false, Verdict::Ignored), Ok(()));
    }
}
