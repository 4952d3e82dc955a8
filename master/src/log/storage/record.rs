//! What a replica's records look like on disk: bytes with a version, a length and a checksum.
//!
//! Pure. The store below has no checksums of its own, so each record carries one over all that it says, its key too:
//! a record that stands under another's key is as damaged as one with a flipped bit.
//!
//! ```text
//!   key    metadata: "metadata"      action: "a" + position, 8 bytes, big end first (so keys sort by position)
//!   value  magic "mlr" | version u8 | crc32 u32 | length u32 | body (MessagePack, named form)
//!          numbers little end first; the checksum covers key, version, length and body
//! ```
//!
//! A version that is not known is not damage: a later program has written here, and this one must not touch it.

use meseta_runtime::message::read_named;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::log::action::{Action, Position};
use crate::log::replica::core::Metadata;

/// Version of the records written here.
pub const VERSION: u8 = 1;
/// Key of the metadata record.
pub const METADATA_KEY: &[u8] = b"metadata";

const MAGIC: &[u8; 3] = b"mlr";
const HEADER: usize = 3 + 1 + 4 + 4;
/// Bytes that most records have at most.
const USUAL: usize = 512;
/// More than any record can be: entries are far below.
const MAX_BODY: usize = 256 * 1024 * 1024;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// All that is stored beside actions.
    Metadata(Metadata),
    /// The record of a position.
    Action(Action),
}

/// Why bytes are no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not the bytes that were written: the replica has to repair itself from the others.
    #[error("record {key} is damaged: {what}")]
    Damaged {
        /// Which, as text.
        key: String,
        /// What does not fit.
        what: &'static str,
    },
    /// Written by a later version: nothing here may be changed.
    #[error(
        "record {key} has version {version}, and this program knows up to {VERSION}: start the later version again"
    )]
    Later {
        /// Which, as text.
        key: String,
        /// Its version.
        version: u8,
    },
    /// The record cannot be written.
    #[error(
        "record {key} cannot be written: it has {size} bytes, or no serialised form: append smaller entries"
    )]
    TooLarge {
        /// Which, as text.
        key: String,
        /// Bytes of its body.
        size: usize,
    },
}

impl RecordError {
    /// Whether the record is damaged, and not merely unknown here.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }
}

/// Key of a position's record.
pub fn action_key(position: Position) -> [u8; 9] {
    let mut key = [b'a'; 9];
    key[1..].copy_from_slice(&position.0.to_be_bytes());
    key
}

/// The position of a key, if it is one of an action.
pub fn position_of(key: &[u8]) -> Option<Position> {
    let (first, number) = key.split_first()?;
    let number: [u8; 8] = number.try_into().ok()?;
    (*first == b'a').then_some(Position(u64::from_be_bytes(number)))
}

/// Key and bytes of the metadata.
///
/// # Errors
/// [`RecordError::TooLarge`].
pub fn write_metadata(metadata: &Metadata) -> Result<(Vec<u8>, Vec<u8>), RecordError> {
    write(METADATA_KEY, metadata)
}

/// Key and bytes of an action.
///
/// # Errors
/// [`RecordError::TooLarge`].
pub fn write_action(action: &Action) -> Result<(Vec<u8>, Vec<u8>), RecordError> {
    write(&action_key(action.position), action)
}

/// Reads what stands under a key.
///
/// # Errors
/// [`RecordError::Damaged`] or [`RecordError::Later`].
pub fn read(key: &[u8], bytes: &[u8]) -> Result<Record, RecordError> {
    let damaged = |what| RecordError::Damaged {
        key: name(key),
        what,
    };
    if key == METADATA_KEY {
        return Ok(Record::Metadata(body(key, bytes)?));
    }
    let position = position_of(key).ok_or_else(|| damaged("its key is none of a record"))?;
    let action: Action = body(key, bytes)?;
    if action.position != position {
        return Err(damaged("it tells of another position"));
    }
    if action.learned && action.performed.is_none() {
        return Err(damaged("it is learned without a value"));
    }
    Ok(Record::Action(action))
}

/// Key and bytes of anything that the store keeps.
pub(super) fn write(
    key: &[u8],
    content: &impl Serialize,
) -> Result<(Vec<u8>, Vec<u8>), RecordError> {
    let mut bytes = Vec::with_capacity(USUAL);
    bytes.extend_from_slice(&[0; HEADER]);
    rmp_serde::encode::write_named(&mut bytes, content).map_err(|_| too_large(key, 0))?;
    fill_in(key, &mut bytes)?;
    Ok((key.to_vec(), bytes))
}

/// The bytes of a record with this body: its header and the body.
///
/// # Errors
/// [`RecordError::TooLarge`].
pub fn seal(key: &[u8], body: &[u8]) -> Result<Vec<u8>, RecordError> {
    let mut bytes = [&[0; HEADER][..], body].concat();
    fill_in(key, &mut bytes)?;
    Ok(bytes)
}

/// Writes the header into the room before a body.
fn fill_in(key: &[u8], bytes: &mut [u8]) -> Result<(), RecordError> {
    let (header, body) = bytes.split_at_mut(HEADER);
    let length = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= MAX_BODY)
        .ok_or_else(|| too_large(key, body.len()))?;
    header[..3].copy_from_slice(MAGIC);
    header[3] = VERSION;
    header[4..8].copy_from_slice(&checksum(key, VERSION, length, body).to_le_bytes());
    header[8..].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

fn too_large(key: &[u8], size: usize) -> RecordError {
    RecordError::TooLarge {
        key: name(key),
        size,
    }
}

/// What [`write`] has sealed under this key.
pub(super) fn body<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<T, RecordError> {
    let damaged = |what| RecordError::Damaged {
        key: name(key),
        what,
    };
    let (header, body) = bytes
        .split_first_chunk::<HEADER>()
        .ok_or_else(|| damaged("it is shorter than its header"))?;
    let [m, l, r, version, c0, c1, c2, c3, l0, l1, l2, l3] = *header;
    if [m, l, r] != *MAGIC {
        return Err(damaged("it does not begin as records do"));
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    if usize::try_from(length) != Ok(body.len()) {
        return Err(damaged("its length is not the one it names"));
    }
    // The checksum before the version: a flipped bit in the version is damage.
    if checksum(key, version, length, body) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(damaged("its checksum does not fit"));
    }
    if version > VERSION {
        return Err(RecordError::Later {
            key: name(key),
            version,
        });
    }
    read_named(body).map_err(|_| damaged("its content cannot be read"))
}

fn checksum(key: &[u8], version: u8, length: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(&[version]);
    hasher.update(&length.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// A key for people.
fn name(key: &[u8]) -> String {
    match position_of(key) {
        Some(position) => format!("of position {position}"),
        None => format!("`{}`", key.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::log::action::{Performed, Proposal, Value};
    use crate::log::members::{Incarnation, Life, Member};
    use crate::log::messages::{Chosen, Status};

    fn value() -> impl Strategy<Value = Value> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        prop_oneof![
            any::<bool>().prop_map(|tombstone| Value::Nop { tombstone }),
            bytes().prop_map(|bytes| Value::Append { bytes }),
            any::<u64>().prop_map(|to| Value::Truncate { to: Position(to) }),
            (5..=u8::MAX, bytes()).prop_map(|(kind, body)| Value::Unknown { kind, body }),
        ]
    }

    fn action() -> impl Strategy<Value = Action> {
        let performed = (any::<u64>(), value(), any::<bool>());
        (any::<u64>(), any::<u64>(), proptest::option::of(performed)).prop_map(
            |(position, promised, performed)| Action {
                position: Position(position),
                promised: Proposal(promised),
                learned: performed.as_ref().is_some_and(|(_, _, learned)| *learned),
                performed: performed.map(|(by, value, _)| Performed {
                    by: Proposal(by),
                    value,
                }),
            },
        )
    }

    fn metadata() -> Metadata {
        let mut metadata = Metadata {
            status: Status::Recovering,
            promised: Proposal(9),
            life: Life {
                incarnation: Incarnation(3),
                nonce: 77,
            },
            begin: Position(4),
            chosen: vec![Chosen {
                proposal: Proposal(8),
                from: Position(4),
                through: Position(6),
            }],
            ..Metadata::default()
        };
        let other = Life {
            incarnation: Incarnation(2),
            nonce: 5,
        };
        metadata.lives.note(&Member::from("127.0.0.1:5051"), other);
        metadata
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(action in action()) {
            let (key, bytes) = write_action(&action).unwrap();
            prop_assert_eq!(read(&key, &bytes).unwrap(), Record::Action(action));
        }

        #[test]
        fn any_flipped_bit_is_damage(action in action(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let (key, mut bytes) = write_action(&action).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(read(&key, &bytes).unwrap_err().is_damage());
        }

        #[test]
        fn any_cut_is_damage(action in action(), at in any::<prop::sample::Index>()) {
            let (key, bytes) = write_action(&action).unwrap();
            let cut = at.index(bytes.len());
            prop_assert!(read(&key, &bytes[..cut]).unwrap_err().is_damage());
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(key in proptest::collection::vec(any::<u8>(), 0..12),
            bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            prop_assert!(read(&key, &bytes).is_err());
        }

        #[test]
        fn keys_sort_as_positions_do(one in any::<u64>(), two in any::<u64>()) {
            let (one, two) = (Position(one), Position(two));
            prop_assert_eq!(action_key(one).cmp(&action_key(two)), one.cmp(&two));
            prop_assert_eq!(position_of(&action_key(one)), Some(one));
        }
    }

    #[test]
    fn metadata_is_read_again_and_no_bit_of_it_may_flip() {
        let (key, bytes) = write_metadata(&metadata()).unwrap();
        assert_eq!(read(&key, &bytes).unwrap(), Record::Metadata(metadata()));
        for at in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            assert!(read(&key, &flipped).unwrap_err().is_damage(), "bit {at}");
        }
    }

    #[test]
    fn a_record_under_another_key_is_damage() {
        let (_, bytes) = write_action(&Action::promise(Position(1), Proposal(1))).unwrap();
        let other = action_key(Position(2));
        assert!(read(&other, &bytes).unwrap_err().is_damage());
    }

    #[test]
    fn a_later_version_is_refused_but_is_no_damage() {
        let (key, mut bytes) = write_action(&Action::promise(Position(1), Proposal(1))).unwrap();
        let length = u32::try_from(bytes.len() - HEADER).unwrap();
        bytes[3] = VERSION + 1;
        let sum = checksum(&key, VERSION + 1, length, &bytes[HEADER..]);
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        let error = read(&key, &bytes).unwrap_err();
        assert!(!error.is_damage());
        assert_eq!(
            error.to_string(),
            "record of position 1 has version 2, and this program knows up to 1: start the later version again"
        );
    }
}
