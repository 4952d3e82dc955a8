//! A replica's records on a simulated disk: for simulated worlds, and for tests of live nodes without a directory.
//!
//! Each commit is one sealed record of its own, so that it is there as a whole or not at all, as with the real store.
//! Now and then all of them become one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use meseta_runtime::sim::{Disk, DiskError};

use super::StorageError;
use super::batch::{Entry, decode_batch, encode_batch};
use super::record::{self, Record, RecordError, action_key};
use crate::log::action::Position;
use crate::log::messages::Status;
use crate::log::replica::core::{Change, Stored};

const WHOLE: &str = "log/whole";
const COMMIT: &str = "log/commit-";
/// Commits that may stand for themselves.
const APART: usize = 64;

/// Reads what a disk holds.
pub fn load(disk: &Disk) -> Stored {
    let mut stored = Stored::default();
    let mut metadata = None;
    let mut actions = BTreeMap::new();
    for name in names(disk) {
        let entries = entries(disk, &name);
        stored.damaged |= entries.is_none();
        for entry in entries.unwrap_or_default() {
            match entry {
                Entry::Put { key, record } => match record::read(&key, &record) {
                    Ok(Record::Action(action)) => {
                        actions.insert(action.position, action);
                    }
                    Ok(Record::Metadata(read)) => metadata = Some(read),
                    Err(_) => stored.damaged = true,
                },
                Entry::Forget { below } => actions = actions.split_off(&below),
            }
        }
    }
    stored.damaged |= metadata.is_none() && !actions.is_empty();
    stored.metadata = metadata.unwrap_or_default();
    stored.actions = actions.into_values().collect();
    stored
}

/// Makes changes durable, all or none.
///
/// # Errors
/// [`StorageError`] when the disk is full or its sync fails; the replica has to stop then.
pub fn commit(disk: &mut Disk, changes: &[Change]) -> Result<(), StorageError> {
    begin(disk, changes)?;
    end(disk)
}

/// Writes changes that are durable after [`end`]. A crash in between keeps all of them or none.
///
/// # Errors
/// [`StorageError::Full`].
pub fn begin(disk: &mut Disk, changes: &[Change]) -> Result<(), StorageError> {
    let records: Result<Vec<Entry>, RecordError> = changes.iter().map(Entry::of).collect();
    let records = records.map_err(StorageError::of_record)?;
    let known = names(disk);
    let is_whole = |change: &Change| matches!(change, Change::Metadata(metadata) if metadata.status == Status::Voting);
    if changes.iter().any(is_whole) {
        // A replica that votes has made good what was damaged: the next start must not find it again.
        for name in &known {
            if entries(disk, name).is_none() {
                disk.remove(name);
            }
        }
    }
    let last = known.last().and_then(|name| name.strip_prefix(COMMIT));
    let number: u64 = last.and_then(|last| last.parse().ok()).unwrap_or_default();
    write(disk, &format!("{COMMIT}{:020}", number + 1), &records)
}

/// Makes durable what was written.
///
/// # Errors
/// [`StorageError`] when the sync fails; the replica has to stop then.
pub fn end(disk: &mut Disk) -> Result<(), StorageError> {
    disk.sync().map_err(of_disk)?;
    let known = names(disk);
    // What is damaged stays until the replica votes, so that a start before that finds it.
    if known.len() > APART && known.iter().all(|name| entries(disk, name).is_some()) {
        join(disk, &known)?;
    }
    Ok(())
}

/// Makes one record of these, in their order.
fn join(disk: &mut Disk, known: &[String]) -> Result<(), StorageError> {
    let mut records: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for name in known {
        for entry in entries(disk, name).unwrap_or_default() {
            match entry {
                Entry::Put { key, record } => {
                    records.insert(key, record);
                }
                Entry::Forget { below } => {
                    let gone = action_key(Position(0)).to_vec()..action_key(below).to_vec();
                    records.retain(|key, _| !gone.contains(key));
                }
            }
        }
    }
    let put = |(key, record)| Entry::Put { key, record };
    let whole: Vec<Entry> = records.into_iter().map(put).collect();
    write(disk, WHOLE, &whole)?;
    disk.sync().map_err(of_disk)?;
    // One that comes back after a crash stands behind the whole and before all later ones, as it did.
    for name in known.iter().filter(|name| *name != WHOLE) {
        disk.remove(name);
    }
    disk.sync().map_err(of_disk)
}

/// Records in the order in which they were written.
fn names(disk: &Disk) -> Vec<String> {
    let commits = disk.names().filter(|name| name.starts_with(COMMIT));
    let whole = disk.read(WHOLE).map(|_| WHOLE);
    whole
        .into_iter()
        .chain(commits)
        .map(str::to_owned)
        .collect()
}

/// None when the record is damaged.
fn entries(disk: &Disk, name: &str) -> Option<Vec<Entry>> {
    let bytes = disk.read(name).unwrap_or_default();
    let batch: bytes::Bytes = record::body(name.as_bytes(), bytes).ok()?;
    decode_batch(&batch)
}

fn write(disk: &mut Disk, name: &str, entries: &[Entry]) -> Result<(), StorageError> {
    let batch = encode_batch(entries).map_err(StorageError::of_record)?;
    let sealed = record::write(name.as_bytes(), &bytes::Bytes::from(batch));
    let (_, sealed) = sealed.map_err(StorageError::of_record)?;
    disk.write(name, &sealed).map_err(of_disk)
}

fn of_disk(error: DiskError) -> StorageError {
    let path = "simulated disk".into();
    match error {
        DiskError::Full => StorageError::Full { path },
        DiskError::Failed => StorageError::Failed {
            path,
            reason: error.to_string(),
        },
    }
}

/// A store of a live node that lasts as long as one of its clones: what a test starts again on the same one is still
/// there.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Disk>>);

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory")
    }
}

impl Memory {
    /// Does something with the disk.
    pub fn disk<T>(&self, act: impl FnOnce(&mut Disk) -> T) -> T {
        // Whatever a test has done to it: the disk has no state between two calls that is not a whole one.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::action::{Action, Proposal, Value};
    use crate::log::replica::core::Metadata;

    fn action(position: u64) -> Change {
        let value = Value::Nop { tombstone: false };
        Change::Action(Action::learned(Position(position), Proposal(1), value))
    }

    fn positions(disk: &Disk) -> Vec<u64> {
        let stored = load(disk);
        assert!(!stored.damaged);
        stored
            .actions
            .iter()
            .map(|action| action.position.0)
            .collect()
    }

    #[test]
    fn what_is_committed_is_read_back_however_many_commits_it_took() {
        let mut disk = Disk::default();
        assert_eq!(load(&disk), Stored::default());
        let mut metadata = Metadata::default();
        for position in 1..=200 {
            metadata.promised = Proposal(position);
            let changes = [action(position), Change::Metadata(metadata.clone())];
            commit(&mut disk, &changes).unwrap();
        }
        let below = Position(190);
        commit(&mut disk, &[Change::Forget { below }]).unwrap();
        assert_eq!(positions(&disk), (190..=200).collect::<Vec<_>>());
        assert_eq!(load(&disk).metadata.promised, Proposal(200));
        assert!(disk.names().count() < 2 * APART);
    }

    #[test]
    fn a_damaged_commit_is_noticed_until_its_replica_votes_again_and_the_others_are_read() {
        let mut disk = Disk::default();
        for position in 1..=3 {
            let metadata = Change::Metadata(Metadata::default());
            commit(&mut disk, &[action(position), metadata]).unwrap();
        }
        let name = format!("{COMMIT}{:020}", 2);
        let mut bad = disk.read(&name).unwrap().to_vec();
        bad[40] ^= 1;
        disk.write(&name, &bad).unwrap();
        let stored = load(&disk);
        assert!(stored.damaged);
        let positions: Vec<u64> = stored.actions.iter().map(|a| a.position.0).collect();
        assert_eq!(positions, [1, 3]);
        let mut metadata = Metadata {
            status: Status::Recovering,
            ..Metadata::default()
        };
        commit(&mut disk, &[action(2), Change::Metadata(metadata.clone())]).unwrap();
        assert!(load(&disk).damaged);
        metadata.status = Status::Voting;
        commit(&mut disk, &[Change::Metadata(metadata)]).unwrap();
        assert_eq!(self::positions(&disk), [1, 2, 3]);
    }

    #[test]
    fn a_full_or_failing_disk_is_told() {
        let mut disk = Disk::default();
        disk.fail_syncs(1);
        let failed = commit(&mut disk, &[action(1)]);
        assert!(matches!(failed, Err(StorageError::Failed { .. })));
        disk.set_capacity(Some(10));
        let full = commit(&mut disk, &[action(2)]);
        assert!(matches!(full, Err(StorageError::Full { .. })));
    }
}
