//! Batches: what one commit writes, and what the table says of the journal.
//!
//! Pure. Records are sealed by [`super::record`]; a batch is a list of them.
//!
//! ```text
//!   batch    per entry: 1 │ key length u8 │ key │ record length u32 │ record     put
//!                       2 │ position u64                                         forget what lies below
//! ```
//!
//! All numbers are little-endian. The key of [`Applied`] and that of the metadata sort behind all actions, so that a
//! commit that writes the newest action too changes one leaf.

use serde::{Deserialize, Serialize};

use super::record::{self, RecordError};
use crate::log::action::Position;
use crate::log::replica::core::Change;

const PUT: u8 = 1;
const FORGET: u8 = 2;
/// Key of [`Applied`].
const APPLIED_KEY: &[u8] = b"through";

/// What the table says of the journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The last batch that is in the table.
    pub through: u64,
    /// Sectors that the journal has; 0 before it is made.
    pub sectors: u64,
}

impl Applied {
    /// Key and record.
    ///
    /// # Errors
    /// Does not happen: it is small.
    pub fn write(&self) -> Result<(Vec<u8>, Vec<u8>), RecordError> {
        record::write(APPLIED_KEY, self)
    }

    /// Reads it, if the key is its own.
    pub fn read(key: &[u8], bytes: &[u8]) -> Option<Result<Self, RecordError>> {
        (key == APPLIED_KEY).then(|| record::body(key, bytes))
    }
}

/// One step of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// This key holds this sealed record now.
    Put {
        /// The key.
        key: Vec<u8>,
        /// The record.
        record: Vec<u8>,
    },
    /// Actions below this position may go.
    Forget {
        /// First that stays.
        below: Position,
    },
}

impl Entry {
    /// What a change writes.
    ///
    /// # Errors
    /// [`RecordError::TooLarge`] when it cannot be written down.
    pub fn of(change: &Change) -> Result<Self, RecordError> {
        let put = |(key, record)| Self::Put { key, record };
        match change {
            Change::Metadata(metadata) => record::write_metadata(metadata).map(put),
            Change::Action(action) => record::write_action(action).map(put),
            Change::Forget { below } => Ok(Self::Forget { below: *below }),
        }
    }
}

/// A batch as the journal keeps it.
///
/// # Errors
/// [`RecordError::TooLarge`] for a record of 4 GiB or more.
pub fn encode_batch(entries: &[Entry]) -> Result<Vec<u8>, RecordError> {
    let size = entries.iter().map(|entry| match entry {
        Entry::Put { key, record } => 2 + key.len() + 4 + record.len(),
        Entry::Forget { .. } => 1 + 8,
    });
    let mut out = Vec::with_capacity(size.sum());
    for entry in entries {
        match entry {
            Entry::Put { key, record } => {
                let lengths = (u8::try_from(key.len()), u32::try_from(record.len()));
                let (Ok(key_length), Ok(length)) = lengths else {
                    return Err(RecordError::TooLarge {
                        key: key.escape_ascii().to_string(),
                        size: record.len(),
                    });
                };
                out.push(PUT);
                out.push(key_length);
                out.extend(key);
                out.extend(length.to_le_bytes());
                out.extend(record);
            }
            Entry::Forget { below } => {
                out.push(FORGET);
                out.extend(below.0.to_le_bytes());
            }
        }
    }
    Ok(out)
}

/// The entries of a batch; none when it is no batch.
pub fn decode_batch(batch: &[u8]) -> Option<Vec<Entry>> {
    let mut rest = batch;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        entries.push(decode_entry(&mut rest)?);
    }
    Some(entries)
}

fn decode_entry(rest: &mut &[u8]) -> Option<Entry> {
    match take::<1>(rest)? {
        [PUT] => {
            let [length] = take::<1>(rest)?;
            let key = cut(rest, usize::from(length))?.to_vec();
            let length = usize::try_from(u32::from_le_bytes(take(rest)?)).ok()?;
            let record = cut(rest, length)?.to_vec();
            Some(Entry::Put { key, record })
        }
        [FORGET] => Some(Entry::Forget {
            below: Position(u64::from_le_bytes(take(rest)?)),
        }),
        _ => None,
    }
}

fn cut<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (first, others) = rest.split_at_checked(length)?;
    *rest = others;
    Some(first)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    cut(rest, N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::action::{Action, Proposal, Value};
    use crate::log::replica::core::Metadata;

    #[test]
    fn a_batch_comes_back_as_it_was_and_never_cut_off() {
        let value = Value::Nop { tombstone: false };
        let changes = [
            Change::Action(Action::learned(Position(1), Proposal(7), value)),
            Change::Metadata(Metadata::default()),
            Change::Forget { below: Position(9) },
        ];
        let entries: Vec<Entry> = changes.iter().map(|c| Entry::of(c).unwrap()).collect();
        let batch = encode_batch(&entries).unwrap();
        assert_eq!(decode_batch(&batch).unwrap(), entries);
        let whole: Vec<usize> = (0..=entries.len())
            .map(|n| encode_batch(&entries[..n]).unwrap().len())
            .collect();
        for length in 0..batch.len() {
            let fits = whole.contains(&length);
            assert_eq!(
                decode_batch(&batch[..length]).is_some(),
                fits,
                "{length} bytes"
            );
        }
    }

    #[test]
    fn what_is_applied_stands_behind_all_records() {
        let applied = Applied {
            through: 7,
            sectors: 64,
        };
        let (key, mut bytes) = applied.write().unwrap();
        assert_eq!(Applied::read(&key, &bytes).unwrap().unwrap(), applied);
        assert!(key.as_slice() > record::METADATA_KEY);
        assert!(record::METADATA_KEY > record::action_key(Position(u64::MAX)).as_slice());
        assert!(Applied::read(record::METADATA_KEY, &bytes).is_none());
        bytes[20] ^= 1;
        assert!(Applied::read(&key, &bytes).unwrap().is_err());
    }
}
