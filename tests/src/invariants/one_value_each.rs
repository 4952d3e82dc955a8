//! L-1: no position of the log has two chosen values.
//!
//! Pure. A value is chosen when a majority of disks hold it at its position under the same proposal at the same time, or
//! when somebody says that it was learned. A tombstone stands for what is truncated and counts for nothing.

use std::collections::{BTreeMap, BTreeSet};

use meseta_master::log::action::{Position, Proposal, Value};

/// Names a member.
pub type Member = usize;

/// What is chosen at each position.
#[derive(Debug)]
pub struct OneValueEach {
    quorum: usize,
    accepted: BTreeMap<(Position, Proposal), BTreeSet<Member>>,
    chosen: BTreeMap<Position, Value>,
}

impl OneValueEach {
    /// An empty log, of which `quorum` members are a majority.
    pub fn new(quorum: usize) -> Self {
        Self {
            quorum,
            accepted: BTreeMap::new(),
            chosen: BTreeMap::new(),
        }
    }

    /// A value is on a member's disk.
    ///
    /// # Errors
    /// The other value that was chosen there.
    pub fn accepted(
        &mut self,
        member: Member,
        position: Position,
        by: Proposal,
        value: &Value,
    ) -> Result<(), String> {
        let holders = self.accepted.entry((position, by)).or_default();
        holders.insert(member);
        if holders.len() < self.quorum {
            return Ok(());
        }
        self.learned(position, value)
    }

    /// A member's disk is lost, or part of it.
    pub fn forgets(&mut self, member: Member) {
        for holders in self.accepted.values_mut() {
            holders.remove(&member);
        }
    }

    /// Somebody knows that a value is chosen.
    ///
    /// # Errors
    /// The other value that was chosen there.
    pub fn learned(&mut self, position: Position, value: &Value) -> Result<(), String> {
        if matches!(value, Value::Nop { tombstone: true }) {
            return Ok(());
        }
        let chosen = self.chosen.entry(position).or_insert_with(|| value.clone());
        if chosen == value {
            return Ok(());
        }
        Err(format!(
            "position {position} has two chosen values: {chosen:?} and {value:?}"
        ))
    }

    /// What is chosen at the positions of a range.
    pub fn chosen(&self, from: Position, to: Position) -> impl Iterator<Item = (Position, &Value)> {
        let some = self.chosen.range(from..=to.max(from));
        some.filter(move |_| from <= to)
            .map(|(position, value)| (*position, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &'static str) -> Value {
        let bytes = text.into();
        Value::Append { bytes }
    }

    fn accept(law: &mut OneValueEach, member: usize, by: u64, text: &'static str) -> bool {
        law.accepted(member, Position(1), Proposal(by), &value(text))
            .is_ok()
    }

    #[test]
    fn refuses_a_second_value_once_a_majority_holds_one() {
        let mut law = OneValueEach::new(2);
        assert!(accept(&mut law, 0, 1, "a") && accept(&mut law, 1, 1, "a"));
        assert!(accept(&mut law, 2, 2, "b"));
        assert!(!accept(&mut law, 1, 2, "b"));
        assert!(law.learned(Position(1), &value("b")).is_err());
    }

    #[test]
    fn accepts_what_no_majority_held_at_one_time_and_the_same_value_again() {
        let mut law = OneValueEach::new(2);
        assert!(accept(&mut law, 0, 1, "a"));
        law.forgets(0);
        assert!(accept(&mut law, 1, 1, "a"));
        assert!(accept(&mut law, 0, 2, "b") && accept(&mut law, 1, 2, "b"));
        assert!(accept(&mut law, 2, 3, "b") && accept(&mut law, 0, 3, "b"));
        assert!(
            law.learned(Position(1), &Value::Nop { tombstone: true })
                .is_ok()
        );
        assert_eq!(law.chosen(Position(1), Position(9)).count(), 1);
        assert_eq!(law.chosen(Position(2), Position(1)).count(), 0);
    }
}
