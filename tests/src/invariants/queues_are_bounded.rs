//! K-2: every queue is bounded.
//!
//! Pure. The bounds stand in `docs/delivery.md`; a cluster of a few nodes stays far below them, so a run is held to a
//! bound of its own that only something that grows without end would reach.

/// # Errors
/// The queue that grew.
pub fn check(queue: &str, length: usize, bound: usize) -> Result<(), String> {
    if length <= bound {
        Ok(())
    } else {
        Err(format!("{length} wait in {queue}, more than {bound}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_more_than_the_bound() {
        let verdict = check("the mailbox of master", 11, 10);
        assert_eq!(
            verdict,
            Err("11 wait in the mailbox of master, more than 10".to_owned())
        );
    }

    #[test]
    fn accepts_the_bound() {
        assert_eq!(check("the mailbox of master", 10, 10), Ok(()));
    }
}
