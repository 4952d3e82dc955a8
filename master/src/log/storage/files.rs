//! The files of a store: one directory, locked, with a table and a journal.
//!
//! ```text
//!   DIRECTORY/.lock         locked by the process that uses the directory
//!   DIRECTORY/replica.mdb   the table: LMDB, see `lmdb.rs`
//!   DIRECTORY/journal       what is not in the table yet: a ring of sectors, see `journal.rs`
//! ```
//!
//! Files are made under another name and renamed when they are whole and on disk, so none is ever found half made. A
//! file that is damaged is replaced in the same way by what can still be read of it, marked as having to recover.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use meseta_runtime::lock::{DirectoryLock, LockError};
use meseta_runtime::pages;

use super::batch::{Applied, Entry, decode_batch};
use super::journal_file::JournalFile;
use super::lmdb::{Pending, Table};
use super::record::{self, Record, RecordError};
use super::{Settings, StorageError, journal};
use crate::log::action::Position;
use crate::log::messages::Status;
use crate::log::replica::core::{Change, Metadata, Stored};

const TABLE: &str = "replica.mdb";
const JOURNAL: &str = "journal";

/// A file that is written at places and synced.
pub(super) trait Medium: Send {
    /// Writes all bytes at an offset.
    fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// A directory that is open.
pub(super) struct Files {
    pub(super) table: Table,
    pub(super) journal: JournalFile,
    /// The last number that a batch of the journal has had.
    pub(super) last: u64,
    pub(super) found: Found,
    /// Held as long as the directory is used.
    pub(super) lock: DirectoryLock,
}

/// What a directory holds.
#[derive(Debug, Default)]
pub struct Found {
    /// For the replica.
    pub stored: Stored,
    /// What is wrong, in words.
    pub damage: Vec<String>,
    /// Positions whose records are there but not readable.
    pub damaged: Vec<Position>,
    metadata: Option<Metadata>,
    applied: Option<Applied>,
    /// Actions below this may go.
    forget: Position,
}

/// Opens a directory, and makes it when there is none.
pub(super) fn open(directory: &Path, settings: &Settings) -> Result<Files, StorageError> {
    let unusable = |error: io::Error| StorageError::unusable(directory, &error);
    let lock = lock(directory)?;
    let (table, ring) = (directory.join(TABLE), directory.join(JOURNAL));
    for leftover in [part(&table), part(&ring)] {
        remove(&leftover).map_err(unusable)?;
    }
    if !table.try_exists().map_err(unusable)? {
        // A journal without its table says nothing: what it knew is lost with the table.
        rebuild(&table, settings, &Pending::default())
            .map_err(|error| error.at_start(directory))?;
    }
    let (found, last) = read(directory)?;
    let mut pending = Pending::default();
    let through = Applied {
        through: last,
        sectors: 0,
    };
    pending.add(through, found.entries()?);
    pending.forget(found.forget.max(found.stored.metadata.begin));
    // Until the journal is known to be whole again, the table says that there is none.
    if found.stored.damaged {
        rebuild(&table, settings, &pending).map_err(|error| error.at_start(directory))?;
    }
    let mut opened = Table::open(&table, settings.map_bytes)?;
    if !found.stored.damaged {
        opened
            .commit(&pending)
            .map_err(|error| error.at_start(directory))?;
    }
    let journal = make_journal(&ring, settings.ring_sectors, found.stored.damaged)
        .map_err(|error| StorageError::of_io(&ring, &error).at_start(directory))?;
    let ready = Pending::with(Applied {
        through: last,
        sectors: settings.ring_sectors,
    });
    opened
        .commit(&ready)
        .map_err(|error| error.at_start(directory))?;
    Ok(Files {
        table: opened,
        journal,
        last,
        found,
        lock,
    })
}

/// Looks into a directory that nobody uses, and changes nothing.
///
/// # Errors
/// [`StorageError`] when somebody uses it, or it cannot be read.
pub fn look(directory: &Path) -> Result<Found, StorageError> {
    let table = fs::metadata(directory.join(TABLE));
    table.map_err(|error| StorageError::unusable(directory, &error))?;
    let _lock = lock(directory)?;
    Ok(read(directory)?.0)
}

/// Keeps other processes away.
fn lock(directory: &Path) -> Result<DirectoryLock, StorageError> {
    DirectoryLock::take(directory).map_err(|error| match error {
        LockError::InUse { path, owner } => StorageError::Locked { path, owner },
        LockError::Refused { path, source } => StorageError::unusable(&path, &source),
    })
}

/// What table and journal say together, and the last number of a batch.
fn read(directory: &Path) -> Result<(Found, u64), StorageError> {
    let (table, ring) = (directory.join(TABLE), directory.join(JOURNAL));
    let unusable = |error: io::Error| StorageError::unusable(directory, &error);
    let file = File::open(&table).map_err(unusable)?;
    let contents = pages::read(&mut |offset, length| read_at(&file, offset, length));
    let contents = contents.map_err(|error| StorageError::of_io(&table, &error))?;
    let mut found = Found::default();
    for (key, record) in contents.entries {
        found.add(&table, &key, &record)?;
    }
    found.damage.extend(contents.faults);
    let applied = found.applied.unwrap_or_else(|| {
        let damage = "the table does not say how far it goes".to_owned();
        found.damage.push(damage);
        Applied::default()
    });
    let scan = scan(&ring, applied)?;
    for (_, batch) in scan.batches {
        let entries = decode_batch(&batch);
        if entries.is_none() {
            found
                .damage
                .push("a batch of the journal is damaged".to_owned());
        }
        for entry in entries.unwrap_or_default() {
            match entry {
                Entry::Put { key, record } => found.add(&ring, &key, &record)?,
                Entry::Forget { below } => found.forget(below),
            }
        }
    }
    found.damage.extend(scan.damage);
    if found.metadata.is_none() && !found.stored.actions.is_empty() {
        found.damage.push("the metadata is missing".to_owned());
    }
    found.stored.metadata = found.metadata.take().unwrap_or_default();
    found.stored.damaged = !found.damage.is_empty();
    Ok((found, scan.last))
}

/// What the journal says beyond what the table has taken over.
fn scan(ring: &Path, applied: Applied) -> Result<journal::Scan, StorageError> {
    if applied.sectors == 0 {
        // It is not made yet, or about to be made anew.
        return Ok(journal::scan(&[], applied.through));
    }
    let bytes = match fs::read(ring) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(StorageError::of_io(ring, &error)),
    };
    let mut scan = journal::scan(&bytes, applied.through);
    let (length, sectors) = (bytes.len(), applied.sectors);
    if length as u64 != sectors * journal::SECTOR as u64 {
        scan.damage = Some(format!(
            "the journal has {length} bytes instead of {sectors} sectors"
        ));
    }
    Ok(scan)
}

impl Found {
    fn add(&mut self, path: &Path, key: &[u8], record: &[u8]) -> Result<(), StorageError> {
        let applied = Applied::read(key, record);
        let read = match applied {
            Some(applied) => applied.map(|applied| self.applied = Some(applied)),
            None => record::read(key, record).map(|record| self.take(record)),
        };
        match read {
            Ok(()) => Ok(()),
            Err(RecordError::Later { version, .. }) => Err(StorageError::Newer {
                path: path.to_owned(),
                version,
            }),
            Err(error @ (RecordError::Damaged { .. } | RecordError::TooLarge { .. })) => {
                self.damaged.extend(record::position_of(key));
                self.damage.push(error.to_string());
                Ok(())
            }
        }
    }

    fn take(&mut self, record: Record) {
        match record {
            Record::Metadata(metadata) => self.metadata = Some(metadata),
            Record::Action(action) => {
                let actions = &mut self.stored.actions;
                match actions.binary_search_by_key(&action.position, |known| known.position) {
                    Ok(place) => actions[place] = action,
                    Err(place) => actions.insert(place, action),
                }
            }
        }
    }

    fn forget(&mut self, below: Position) {
        self.forget = self.forget.max(below);
        self.stored
            .actions
            .retain(|action| action.position >= below);
    }

    /// All of it anew. Damaged, it has to recover before it votes, however often it is started until then.
    fn entries(&self) -> Result<Vec<Entry>, StorageError> {
        let mut metadata = self.stored.metadata.clone();
        if self.stored.damaged {
            metadata.status = Status::Recovering;
            metadata.life.nonce = 0;
        }
        // A new store stays without metadata until its replica writes some.
        let is_new = metadata == Metadata::default();
        let metadata = (!is_new).then_some(Change::Metadata(metadata));
        let actions = self.stored.actions.iter().cloned().map(Change::Action);
        metadata
            .into_iter()
            .chain(actions)
            .map(|change| Entry::of(&change).map_err(StorageError::of_record))
            .collect()
    }
}

/// Makes a table with this content and puts it in the place of the present one, if any.
fn rebuild(path: &Path, settings: &Settings, pending: &Pending) -> Result<(), StorageError> {
    let new = part(path);
    let mut table = Table::open(&new, settings.map_bytes)?;
    table.commit(pending)?;
    drop(table);
    rename(&new, path).map_err(|error| StorageError::of_io(path, &error))
}

/// A journal of this size: a new one is all zero and on disk with all its blocks, so that no later write lacks room.
fn make_journal(path: &Path, sectors: u64, anew: bool) -> io::Result<JournalFile> {
    let size = sectors * journal::SECTOR as u64;
    let fits = fs::metadata(path).is_ok_and(|metadata| metadata.len() == size);
    if anew || !fits {
        let new = part(path);
        let mut file = File::create(&new)?;
        io::copy(&mut io::repeat(0).take(size), &mut file)?;
        rename(&new, path)?;
    }
    JournalFile::open(path)
}

/// Puts a file in its place for good.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    File::open(from)?.sync_all()?;
    fs::rename(from, to)?;
    match to.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn part(path: &Path) -> PathBuf {
    path.with_extension("part")
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
