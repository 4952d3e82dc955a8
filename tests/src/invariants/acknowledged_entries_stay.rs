//! L-2: an acknowledged entry of the log is readable by every later leader, unless it was truncated away, with up to F of
//! 2F+1 disks lost.
//!
//! Pure. That a later leader knows how far the log goes is law L-6's.

use std::collections::BTreeMap;

use bytes::Bytes;
use meseta_master::log::action::Position;

/// What was acknowledged.
#[derive(Debug, Default)]
pub struct AcknowledgedEntriesStay {
    entries: BTreeMap<Position, Bytes>,
}

impl AcknowledgedEntriesStay {
    /// An entry was acknowledged at this position.
    pub fn acknowledged(&mut self, position: Position, entry: Bytes) {
        self.entries.insert(position, entry);
    }

    /// Everything before a position is of no use any more.
    pub fn truncated(&mut self, to: Position) {
        self.entries = self.entries.split_off(&to);
    }

    /// A leader has read what there is in this range.
    ///
    /// # Errors
    /// The acknowledged entry that is missing.
    pub fn read(
        &self,
        from: Position,
        to: Position,
        entries: &[(Position, Bytes)],
    ) -> Result<(), String> {
        let mut acknowledged = self.entries.range(from..).take_while(|(at, _)| **at <= to);
        let missing = acknowledged.find(|(at, entry)| {
            let read = entries.iter().find(|(position, _)| position == *at);
            read.is_none_or(|(_, read)| read != *entry)
        });
        match missing {
            Some((at, _)) => Err(format!(
                "a leader reads {from} to {to} and does not find the entry that was acknowledged at {at}"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn law() -> AcknowledgedEntriesStay {
        let mut law = AcknowledgedEntriesStay::default();
        law.acknowledged(Position(3), "c".into());
        law
    }

    #[test]
    fn refuses_a_leader_that_does_not_know_an_acknowledged_write() {
        let law = law();
        assert!(law.read(Position(1), Position(5), &[]).is_err());
        let other = [(Position(3), "x".into())];
        assert!(law.read(Position(1), Position(5), &other).is_err());
    }

    #[test]
    fn accepts_one_that_knows_all_that_is_not_truncated() {
        let mut law = law();
        let entries = [(Position(2), "b".into()), (Position(3), "c".into())];
        assert_eq!(law.read(Position(1), Position(4), &entries), Ok(()));
        assert_eq!(law.read(Position(4), Position(4), &[]), Ok(()));
        law.truncated(Position(4));
        assert_eq!(law.read(Position(1), Position(4), &[]), Ok(()));
    }
}
