//! Where a replica keeps its records: a directory, or memory.
//!
//! ```text
//!   replica ──Load, Commit──▶ journal's thread ── one sync ──▶ answer
//!                                   │ now and then, what has gathered
//!                                   ▼
//!                             table's thread ── LMDB commit, full sync
//! ```
//!
//! A commit is durable once it stands in the journal, which takes one sync; the table takes over what has gathered
//! while the next commits go on. Opening puts both together again. Whatever fails to be written or synced ends the
//! store for good: nothing is known about it then, and only reading it anew tells. See docs/decisions/0020-journal-before-the-table.md.

pub mod batch;
mod files;
pub mod journal;
mod journal_file;
mod lmdb;
pub mod memory;

pub mod ops;
pub mod record;
mod store;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

pub use files::{Found, look};
pub use store::{Committed, Store};

/// How much a store may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Sectors of 512 bytes that the journal has, in blocks of 8. They are written at the first start.
    pub ring_sectors: u64,
    /// Most bytes of the table. It is address space, not disk.
    pub map_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // 8 MiB: the table takes over after every 2 MiB, which is 512 commits of few small entries.
            ring_sectors: 16 * 1024,
            // 16 GiB: a truncated log is far below, and the address space of 64 bits is large.
            map_bytes: 16 << 30,
        }
    }
}

/// Why a store cannot be used, or not any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The directory cannot be made, read or written.
    #[error("cannot use the directory {}: {reason}: let this user write there, or give another directory", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// Another process has it.
    #[error("{owner} uses the directory {}: end that, or give each master a directory of its own", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Who it is.
        owner: String,
    },
    /// No room on the file system.
    #[error("no room left for {}: free some space and start again; nothing that was acknowledged is lost", path.display())]
    Full {
        /// The file, or the directory at the start.
        path: PathBuf,
    },
    /// The table has reached its bound.
    #[error("{} has reached its bound of {map_bytes} bytes: the log is not truncated as it should be, or the bound is too low", path.display())]
    MapFull {
        /// The file.
        path: PathBuf,
        /// The bound.
        map_bytes: usize,
    },
    /// A record was made by a later version.
    #[error("{} holds records of version {version}: start the version that made them, or a later one", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version.
        version: u8,
    },
    /// A write or sync failed: whether it is on disk is not known.
    #[error("cannot write {}: {reason}: see to the disk, then start again", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The store has ended before.
    #[error("the store has ended: {reason}")]
    Ended {
        /// Why.
        reason: String,
    },
}

impl StorageError {
    fn unusable(path: &Path, error: &io::Error) -> Self {
        let path = path.to_owned();
        if is_full(error) {
            return Self::Full { path };
        }
        let reason = error.to_string();
        Self::Unusable { path, reason }
    }

    fn of_io(path: &Path, error: &io::Error) -> Self {
        let path = path.to_owned();
        if is_full(error) {
            return Self::Full { path };
        }
        let reason = error.to_string();
        Self::Failed { path, reason }
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "used as a function of errors"
    )]
    fn of_record(error: record::RecordError) -> Self {
        Self::Ended {
            reason: format!("a record cannot be written or read: {error}"),
        }
    }

    /// The same, told of the directory: at the start no single file matters.
    fn at_start(self, directory: &Path) -> Self {
        if matches!(self, Self::Full { .. }) {
            let path = directory.to_owned();
            return Self::Full { path };
        }
        self
    }
}

fn is_full(error: &io::Error) -> bool {
    let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    kinds.contains(&error.kind())
}
