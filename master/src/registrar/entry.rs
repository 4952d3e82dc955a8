//! Entries of the log as the registrar writes them: whole registries, and operations that lead from one to the next.
//!
//! Pure. The log's own records hold the checksum. Layout of an entry:
//!
//! ```text
//!   version  u16, little endian   1
//!   kind     u8                   1 snapshot, 2 diff
//!   body     MessagePack, fields by name
//!              snapshot: based_on, registry
//!              diff:     based_on, operations
//! ```
//!
//! `based_on` is the position of the entry before it, 0 for the first one of all. Why operations and not a difference of
//! bytes: decision 0019.

use meseta_runtime::message::{CodecError, read_named, write_named};
use serde::{Deserialize, Serialize};

use crate::registry::{Registry, RegistryOperation};

/// Version of the entries this program writes, and the latest that it reads.
pub const VERSION: u16 = 1;

const SNAPSHOT: u8 = 1;
const DIFF: u8 = 2;

/// Bytes before the body.
const HEADER: usize = 3;

/// One entry.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A whole registry.
    Snapshot(Box<Snapshot>),
    /// What changed since the entry before.
    Diff(Diff),
}

/// A whole registry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Position of the entry before; 0 for the first of all.
    pub based_on: u64,
    /// The registry.
    pub registry: Registry,
}

/// What changed since the entry before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diff {
    /// Position of the entry before.
    pub based_on: u64,
    /// Operations that applied and changed something, in their order.
    pub operations: Vec<RegistryOperation>,
}

/// Why bytes are no entry.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Too few bytes for a header.
    #[error("{0} bytes are no entry")]
    Short(usize),
    /// A later program wrote it.
    #[error("it has version {0}, and this program reads up to version {VERSION}")]
    Newer(u16),
    /// A kind there is not.
    #[error("it is of kind {0}, which version {VERSION} does not have")]
    Kind(u8),
    /// The body is none of that kind.
    #[error(transparent)]
    Body(#[from] CodecError),
}

/// The bytes of a snapshot.
///
/// # Errors
/// [`CodecError::Encode`] when the registry has no MessagePack form.
pub fn encode_snapshot(based_on: u64, registry: &Registry) -> Result<Vec<u8>, CodecError> {
    /// A [`Snapshot`] of a registry that is not given away.
    #[derive(Serialize)]
    struct Borrowed<'a> {
        based_on: u64,
        registry: &'a Registry,
    }
    encode(SNAPSHOT, &Borrowed { based_on, registry })
}

/// The bytes of a diff.
///
/// # Errors
/// [`CodecError::Encode`] when an operation has no MessagePack form.
pub fn encode_diff(diff: &Diff) -> Result<Vec<u8>, CodecError> {
    encode(DIFF, diff)
}

fn encode<T: Serialize>(kind: u8, body: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = VERSION.to_le_bytes().to_vec();
    bytes.push(kind);
    write_named(body, &mut bytes)?;
    Ok(bytes)
}

/// Reads an entry.
///
/// # Errors
/// [`EntryError`] with what is wrong with it.
pub fn decode(bytes: &[u8]) -> Result<Entry, EntryError> {
    let Some(([low, high, kind], body)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(EntryError::Short(bytes.len()));
    };
    let version = u16::from_le_bytes([*low, *high]);
    if version > VERSION {
        return Err(EntryError::Newer(version));
    }
    match *kind {
        SNAPSHOT => Ok(Entry::Snapshot(Box::new(read_named(body)?))),
        DIFF => Ok(Entry::Diff(read_named(body)?)),
        kind => Err(EntryError::Kind(kind)),
    }
}
