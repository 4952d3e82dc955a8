//! The records in an LMDB file, for one thread.
//!
//! Opened always with full sync: a commit is durable when it returns. The agent's lock on its work directory keeps other
//! processes away, so LMDB's own lock file is not needed. A file is opened only after [`meseta_runtime::pages`] has found
//! nothing wrong with it, its length against its meta page first: one that was cut off would end the program once it is
//! mapped.
#![expect(
    unsafe_code,
    reason = "a map of a file is only as sound as who else writes to the file"
)]

use std::path::{Path, PathBuf};

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, MdbError, WithoutTls};

use super::{Change, CheckpointError};

/// See the module.
pub(super) struct Table {
    env: Env<WithoutTls>,
    records: Database<'static, Bytes, Bytes>,
    path: PathBuf,
}

impl Table {
    /// Opens a file that is sound, or makes a new one.
    pub(super) fn open(path: &Path, map_bytes: usize) -> Result<Self, CheckpointError> {
        let failed = |error: heed::Error| CheckpointError::of_lmdb(path, &error);
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(map_bytes).max_dbs(0);
        // SAFETY: with NO_LOCK the caller keeps others away: the work directory is locked by this process, and this is
        // the only environment of the file, used by one thread at a time (`&mut self`, and heed refuses a second one).
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
            .ok_or_else(|| CheckpointError::Failed {
                path: path.to_owned(),
                reason: "it was not opened".to_owned(),
            })?;
        Ok(Self {
            env,
            records,
            path: path.to_owned(),
        })
    }

    /// Bytes of the file that have been used so far.
    pub(super) fn used(&self) -> u64 {
        let pages = self.env.info().last_page_number as u64 + 1;
        pages * 4096
    }

    /// Makes all changes, in their order, in one durable commit. After an error nothing of it was written, as far as
    /// anybody knows.
    pub(super) fn commit<'a>(
        &mut self,
        changes: impl IntoIterator<Item = &'a Change>,
    ) -> Result<(), CheckpointError> {
        let failed = |error: heed::Error| CheckpointError::of_lmdb(&self.path, &error);
        let mut transaction = self.env.write_txn().map_err(failed)?;
        for change in changes {
            match change {
                Change::Put(key, record) => self
                    .records
                    .put(&mut transaction, key.as_bytes(), record)
                    .map_err(failed)?,
                Change::Delete(key) => {
                    self.records
                        .delete(&mut transaction, key.as_bytes())
                        .map_err(failed)?;
                }
                Change::DeleteBelow(prefix) if prefix.is_empty() => {
                    self.records.clear(&mut transaction).map_err(failed)?;
                }
                Change::DeleteBelow(prefix) => {
                    let mut keys = Vec::new();
                    let below = self.records.prefix_iter(&transaction, prefix.as_bytes());
                    for entry in below.map_err(failed)? {
                        keys.push(entry.map_err(failed)?.0.to_vec());
                    }
                    for key in keys {
                        self.records
                            .delete(&mut transaction, &key)
                            .map_err(failed)?;
                    }
                }
                Change::Name(_) => {}
            }
        }
        transaction.commit().map_err(failed)
    }
}

impl CheckpointError {
    fn of_lmdb(path: &Path, error: &heed::Error) -> Self {
        let path = path.to_owned();
        match error {
            heed::Error::Mdb(MdbError::MapFull) => Self::Full { path },
            heed::Error::Io(error) => Self::of_io(&path, error),
            heed::Error::Mdb(_)
            | heed::Error::Encoding(_)
            | heed::Error::Decoding(_)
            | heed::Error::EnvAlreadyOpened => Self::Failed {
                path,
                reason: error.to_string(),
            },
        }
    }
}
