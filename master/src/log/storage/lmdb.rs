//! The table: all records by key, in LMDB.
//!
//! Opened for one thread only and always with full sync: each commit is durable when it returns. The directory's lock
//! keeps other processes away, so LMDB's own lock file is not needed. A file is opened only after [`meseta_runtime::pages`] has
//! found nothing wrong with it.
#![expect(
    unsafe_code,
    reason = "a map of a file is only as sound as who else writes to the file"
)]

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, MdbError, WithoutTls};

use super::StorageError;
use super::batch::{Applied, Entry};
use super::record::{action_key, position_of};
use crate::log::action::Position;

/// Truncated actions that one commit deletes at most.
const FORGET_AT_ONCE: u64 = 4096;

/// What has to be written, the latest word on each key.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    forget: Position,
    /// The last batch of the journal among it, and the journal's size.
    pub(super) applied: Applied,
}

impl Pending {
    /// Nothing but the word on the journal.
    pub(super) fn with(applied: Applied) -> Self {
        Self {
            applied,
            ..Self::default()
        }
    }

    /// Adds what a batch says.
    pub(super) fn add(&mut self, applied: Applied, entries: Vec<Entry>) {
        for entry in entries {
            match entry {
                Entry::Put { key, record } => {
                    self.records.insert(key, record);
                }
                Entry::Forget { below } => self.forget(below),
            }
        }
        self.applied = applied;
    }

    /// Drops actions below a position, here and later in the table.
    pub(super) fn forget(&mut self, below: Position) {
        self.forget = self.forget.max(below);
        let range = action_key(Position(0)).to_vec()..action_key(self.forget).to_vec();
        let gone: Vec<Vec<u8>> = self
            .records
            .range(range)
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.records.remove(&key);
        }
    }
}

/// See the module.
pub(super) struct Table {
    env: Env<WithoutTls>,
    records: Database<'static, Bytes, Bytes>,
    path: PathBuf,
    map_bytes: usize,
    /// Actions below this may go.
    forget: Position,
}

impl Table {
    /// Opens a file that is sound, or makes a new one.
    pub(super) fn open(path: &Path, map_bytes: usize) -> Result<Self, StorageError> {
        let failed = |error: heed::Error| StorageError::of_lmdb(path, map_bytes, &error);
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(map_bytes).max_dbs(0);
        // SAFETY: with NO_LOCK the caller keeps others away: the directory is locked by this process, and this is the
        // only environment of the file, used by one thread at a time (`&mut self`, and heed refuses a second one).
        unsafe { options.flags(EnvFlags::NO_SUB_DIR | EnvFlags::NO_LOCK) };
        // SAFETY: nobody else changes the file while it is mapped, for the same reason; its pages were checked.
        let env = unsafe { options.open(path) }.map_err(failed)?;
        let transaction = env.write_txn().map_err(failed)?;
        let records = env
            .create_databases_and_commit(transaction, |opener, transaction| {
                opener
                    .create_database::<Bytes, Bytes>(transaction, None)
                    .map(CommitOrAbort::<_, ()>::Commit)
            })
            .map_err(failed)?
            .commit()
            .ok_or_else(|| StorageError::Ended {
                reason: "the table was not opened".to_owned(),
            })?;
        Ok(Self {
            env,
            records,
            path: path.to_owned(),
            map_bytes,
            forget: Position(0),
        })
    }

    /// Writes all of it in one durable commit. After an error nothing of it was written, as far as anybody knows.
    pub(super) fn commit(&mut self, pending: &Pending) -> Result<(), StorageError> {
        let failed = |error: heed::Error| StorageError::of_lmdb(&self.path, self.map_bytes, &error);
        self.forget = self.forget.max(pending.forget);
        let (applied, record) = pending.applied.write().map_err(StorageError::of_record)?;
        let mut transaction = self.env.write_txn().map_err(failed)?;
        let first = self.records.first(&transaction).map_err(failed)?;
        if let Some((key, _)) = first
            && let Some(first) = position_of(key)
            && first < self.forget
        {
            let below = self.forget.0.min(first.0.saturating_add(FORGET_AT_ONCE));
            let below = action_key(Position(below));
            let range = (Bound::Unbounded, Bound::Excluded(below.as_slice()));
            self.records
                .delete_range(&mut transaction, &range)
                .map_err(failed)?;
        }
        let all = pending.records.iter().chain([(&applied, &record)]);
        for (key, record) in all {
            self.records
                .put(&mut transaction, key, record)
                .map_err(failed)?;
        }
        transaction.commit().map_err(failed)
    }
}

impl StorageError {
    fn of_lmdb(path: &Path, map_bytes: usize, error: &heed::Error) -> Self {
        match error {
            heed::Error::Mdb(MdbError::MapFull) => Self::MapFull {
                path: path.to_owned(),
                map_bytes,
            },
            // LMDB tells of a write that was cut short as of any other.
            heed::Error::Io(_) if is_full(path) => Self::Full {
                path: path.to_owned(),
            },
            heed::Error::Io(error) => Self::of_io(path, error),
            heed::Error::Mdb(_)
            | heed::Error::Encoding(_)
            | heed::Error::Decoding(_)
            | heed::Error::EnvAlreadyOpened => Self::Failed {
                path: path.to_owned(),
                reason: error.to_string(),
            },
        }
    }
}

/// Whether there is no room beside this file.
fn is_full(path: &Path) -> bool {
    let probe = path.with_extension("probe");
    let outcome = std::fs::write(&probe, [1; 64 * 1024]);
    let is_full = |error: &std::io::Error| error.kind() == std::io::ErrorKind::StorageFull;
    let full = outcome.is_err_and(|error| is_full(&error));
    drop(std::fs::remove_file(&probe));
    full
}
