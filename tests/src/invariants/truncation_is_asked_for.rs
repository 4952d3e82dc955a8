//! L-7: truncation never hides what is not truncated.
//!
//! Pure.

use meseta_master::log::action::Position;

/// Up to where leaders have asked for it.
#[derive(Debug, Default)]
pub struct TruncationIsAskedFor {
    to: Position,
}

impl TruncationIsAskedFor {
    /// A leader has no use for anything before this position.
    pub fn asked(&mut self, to: Position) {
        self.to = self.to.max(to);
    }

    /// A replica's log begins here.
    ///
    /// # Errors
    /// What it hides.
    pub fn begins(&self, begin: Position) -> Result<(), String> {
        if begin <= self.to.max(Position(1)) {
            return Ok(());
        }
        let to = self.to;
        Err(format!(
            "a replica begins at {begin}, but nothing from {to} on was truncated"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_beginning_behind_all_truncations() {
        let mut law = TruncationIsAskedFor::default();
        assert!(law.begins(Position(2)).is_err());
        law.asked(Position(7));
        assert!(law.begins(Position(8)).is_err());
    }

    #[test]
    fn accepts_what_was_asked_for_and_less() {
        let mut law = TruncationIsAskedFor::default();
        assert_eq!(law.begins(Position(1)), Ok(()));
        law.asked(Position(7));
        law.asked(Position(3));
        assert_eq!(law.begins(Position(7)), Ok(()));
    }
}
