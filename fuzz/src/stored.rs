//! What masters keep: records, batches, journal and table of the log, and the registry's entries in it.
//!
//! A checksum refuses nearly every mutation of what it covers. So most decoders here are given what lies below the
//! checksum and seal it first: they meet what a program has written that was wrong, and not only a disk that was.
#![expect(clippy::expect_used, reason = "a broken rule fails by panicking")]

use meseta_master::log::action::Position;
use meseta_master::log::storage::batch::{Applied, Entry, decode_batch, encode_batch};
use meseta_master::log::storage::journal::{SECTOR, frame, place_of, scan, seal};
use meseta_master::log::storage::record::{self, Record};
use meseta_master::registrar::entry::{self, VERSION};
use meseta_master::registrar::replay::Replay;
use meseta_master::registry::Registry;
use meseta_runtime::codec::decode_body;
use meseta_runtime::pages;
use serde::Deserialize;

use crate::Check;
use crate::messages::affordable;

/// The body of a replica's metadata.
pub(crate) fn metadata(data: &[u8]) -> Option<Check> {
    sealed(record::METADATA_KEY, data)
}

/// The body of an action, under the key of the position that it names.
pub(crate) fn action(data: &[u8]) -> Option<Check> {
    #[derive(Deserialize)]
    struct Place {
        position: Position,
    }
    let Place { position } = decode_body(data).ok()?;
    sealed(&record::action_key(position), data)
}

fn sealed(key: &[u8], body: &[u8]) -> Option<Check> {
    let bytes = record::seal(key, body).ok()?;
    let read = record::read(key, &bytes).ok()?;
    Some(Box::new(move || {
        let (key, bytes) = match &read {
            Record::Metadata(metadata) => record::write_metadata(metadata),
            Record::Action(action) => record::write_action(action),
        }
        .expect("a record that was read can be written");
        let again = record::read(&key, &bytes).expect("a record that was written is read");
        assert_eq!(again, read);
    }))
}

/// The body of how far the table goes.
pub(crate) fn applied(data: &[u8]) -> Option<Check> {
    let write = |applied: &Applied| applied.write().expect("two numbers can be written");
    let (key, _) = write(&Applied::default());
    let bytes = record::seal(&key, data).ok()?;
    let read = Applied::read(&key, &bytes)?.ok()?;
    Some(Box::new(move || {
        let (key, bytes) = write(&read);
        let again = Applied::read(&key, &bytes).expect("it is its key");
        assert_eq!(again.expect("what was written is read"), read);
    }))
}

/// A batch and the records in it, as they stand.
pub(crate) fn batch(data: &[u8]) -> Option<Check> {
    let entries = decode_batch(data)?;
    for entry in &entries {
        if let Entry::Put { key, record } = entry
            && Applied::read(key, record).is_none()
        {
            drop(record::read(key, record));
        }
    }
    let data = data.to_vec();
    Some(Box::new(move || {
        let again = encode_batch(&entries).expect("a batch that was read can be written");
        assert_eq!(again, data);
    }))
}

/// The number that the table has got to, and a journal as it stands.
pub(crate) fn journal(data: &[u8]) -> Option<Check> {
    let (applied, file) = data.split_first_chunk()?;
    scanned(u64::from_le_bytes(*applied), file)
}

/// The same, with each sector sealed that is not empty.
pub(crate) fn sealed_journal(data: &[u8]) -> Option<Check> {
    let (applied, file) = data.split_first_chunk()?;
    let mut file = file.to_vec();
    for (number, sector) in (0..).zip(file.chunks_exact_mut(SECTOR)) {
        if sector.iter().any(|byte| *byte != 0) {
            let sum = seal(number, sector);
            sector[..4].copy_from_slice(&sum.to_le_bytes());
        }
    }
    scanned(u64::from_le_bytes(*applied), &file)
}

fn scanned(applied: u64, file: &[u8]) -> Option<Check> {
    let found = scan(file, applied);
    Some(Box::new(move || {
        let (mut file, mut at) = (Vec::new(), 0);
        for (sequence, batch) in &found.batches {
            file.extend(frame(*sequence, at, batch).expect("it is no longer than it was"));
            at += place_of(batch.len());
        }
        let again = scan(&file, applied);
        assert_eq!((again.batches, again.damage), (found.batches, None));
    }))
}

/// The file of the table. Refused means that LMDB does not get to see it.
pub(crate) fn table(data: &[u8]) -> Option<Check> {
    let mut file = |offset: u64, length: usize| {
        let begin = usize::try_from(offset).map_or(data.len(), |begin| begin.min(data.len()));
        let end = begin.saturating_add(length).min(data.len());
        Ok(data[begin..end].to_vec())
    };
    let contents = pages::read(&mut file).ok()?;
    if !contents.faults.is_empty() {
        return None;
    }
    Some(Box::new(move || {
        assert!(contents.entries.is_sorted_by(|one, two| one.0 < two.0));
    }))
}

/// An entry of the registry, with its header.
pub(crate) fn entry(data: &[u8]) -> Option<Check> {
    read_entry(data.to_vec())
}

/// The body of a snapshot.
pub(crate) fn snapshot(data: &[u8]) -> Option<Check> {
    read_entry(headed(1, data))
}

/// The body of a diff.
pub(crate) fn diff(data: &[u8]) -> Option<Check> {
    read_entry(headed(2, data))
}

fn headed(kind: u8, body: &[u8]) -> Vec<u8> {
    [&VERSION.to_le_bytes(), &[kind][..], body].concat()
}

fn read_entry(bytes: Vec<u8>) -> Option<Check> {
    let read = entry::decode(&bytes).ok()?;
    Some(Box::new(move || {
        let once = write(&read);
        if let Some(again) = affordable(entry::decode(&once)) {
            assert_eq!(write(&again), once);
        }
        replay(&bytes);
    }))
}

fn write(entry: &entry::Entry) -> Vec<u8> {
    match entry {
        entry::Entry::Snapshot(snapshot) => {
            entry::encode_snapshot(snapshot.based_on, &snapshot.registry)
        }
        entry::Entry::Diff(diff) => entry::encode_diff(diff),
    }
    .expect("an entry that was read can be written")
}

/// Whatever an entry says, a master that starts with it gets a registry or a reason, and can show it.
fn replay(bytes: &[u8]) {
    let first = entry::encode_snapshot(0, &Registry::default()).expect("nothing can be written");
    for before in [None, Some(first)] {
        let mut replay = Replay::default();
        if let Some(before) = &before {
            replay.feed(1, before).expect("it begins the log");
        }
        if replay.feed(2, bytes).is_ok()
            && let Ok((registry, _)) = replay.finish(&[])
        {
            drop(registry.to_json());
        }
    }
}
