//! L-8: readers of the log see no gaps: of a range all entries that are chosen there, and nothing else.
//!
//! Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use meseta_master::log::action::{Position, Value};

/// A range was read, in which these values are chosen.
///
/// # Errors
/// The entry that is missing, or too much.
pub fn check<'a>(
    entries: &[(Position, Bytes)],
    chosen: impl Iterator<Item = (Position, &'a Value)>,
) -> Result<(), String> {
    let mut read: BTreeMap<_, _> = entries.iter().map(|(at, bytes)| (*at, bytes)).collect();
    if read.len() != entries.len() || !entries.is_sorted_by_key(|(at, _)| *at) {
        return Err("entries are read twice or out of order".to_owned());
    }
    for (at, value) in chosen {
        let Value::Append { bytes } = value else {
            continue;
        };
        if read.remove(&at) != Some(bytes) {
            return Err(format!("the entry at {at} is missing, or is another"));
        }
    }
    match read.keys().next() {
        Some(at) => Err(format!("an entry is read at {at}, where none is chosen")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: u64, text: &'static str) -> (Position, Bytes) {
        (Position(at), text.into())
    }

    fn verdict(entries: &[(Position, Bytes)]) -> bool {
        let bytes = |text: &'static str| Value::Append { bytes: text.into() };
        let chosen = [bytes("a"), Value::Nop { tombstone: false }, bytes("c")];
        let chosen = chosen.iter().enumerate();
        check(
            entries,
            chosen.map(|(at, value)| (Position(at as u64 + 1), value)),
        )
        .is_ok()
    }

    #[test]
    fn refuses_gaps_other_entries_and_too_many() {
        assert!(!verdict(&[entry(1, "a")]));
        assert!(!verdict(&[entry(1, "a"), entry(3, "x")]));
        assert!(!verdict(&[entry(1, "a"), entry(2, "b"), entry(3, "c")]));
        assert!(!verdict(&[entry(3, "c"), entry(1, "a")]));
    }

    #[test]
    fn accepts_all_that_is_chosen() {
        assert!(verdict(&[entry(1, "a"), entry(3, "c")]));
    }
}
