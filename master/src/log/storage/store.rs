//! The two threads of a store: one that makes commits durable in the journal, and one that takes them into the table.
//!
//! Both block on the disk, so neither is a thread of the node. The table's thread alone touches LMDB, whose write
//! transactions belong to a thread. Commits come one at a time or several: each is one batch and one sync.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use tracing::{error, warn};

use super::batch::{Applied, Entry, encode_batch};
use super::files::{self, Found, Medium};
use super::journal::{Ring, SECTOR, frame, place_of};
use super::journal_file::JournalFile;
use super::lmdb::{Pending, Table};
use super::{Settings, StorageError};
use crate::log::replica::core::{Change, Stored};

/// What a commit has cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Committed {
    /// From its turn until it was durable.
    pub took: Duration,
}

type Done<T> = Box<dyn FnOnce(Result<T, StorageError>) + Send>;

enum Job {
    Load(Done<Stored>),
    Commit(Vec<Change>, Done<Committed>),
    /// Waits until the table has everything.
    Flush(Done<()>),
}

/// A directory that holds a replica, open. Dropping the last clone waits until all that was ordered is done, and then
/// the directory is free again.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    directory: PathBuf,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!(directory = %self.directory.display(), "the journal's thread has panicked");
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.directory().display())
    }
}

impl Store {
    /// Opens a directory, and makes it when there is none. Damage is told in the log and in what [`Store::load`] says.
    ///
    /// # Errors
    /// [`StorageError`]: another process has it, it cannot be written, it is full, or a later version has made it.
    pub fn open(directory: &Path, settings: &Settings) -> Result<Self, StorageError> {
        let files = files::open(directory, settings)?;
        for damage in &files.found.damage {
            warn!(directory = %directory.display(), "{damage}");
        }
        let failed = |error: std::io::Error| StorageError::unusable(directory, &error);
        let (jobs, ordered) = unbounded();
        let (gathered, to_apply) = bounded(1);
        let (applied, notices) = unbounded();
        let mut table = files.table;
        let table_thread = thread::Builder::new()
            .name("log-table".to_owned())
            .spawn(move || {
                take_over(&mut table, &to_apply, &applied);
            })
            .map_err(failed)?;
        let mut writer = Writer {
            file: files.journal,
            path: directory.join("journal"),
            ring: Ring::new(settings.ring_sectors),
            ring_sectors: settings.ring_sectors,
            last: files.last,
            pending: Pending::default(),
            is_gathering: false,
            gathered,
            notices,
            ended: None,
        };
        let (found, lock) = (files.found, files.lock);
        let thread = thread::Builder::new()
            .name("log-journal".to_owned())
            .spawn(move || {
                writer.serve(&ordered, found);
                // The table's thread ends when nobody can give it anything; only then may others use the directory.
                drop(writer);
                if table_thread.join().is_err() {
                    error!("the table's thread has panicked");
                }
                drop(lock);
            })
            .map_err(failed)?;
        Ok(Self(Arc::new(Inner {
            directory: directory.to_owned(),
            jobs: Some(jobs),
            thread: Some(thread),
        })))
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.0.directory
    }

    /// Hands over what was found at opening, once.
    pub fn load(&self, done: impl FnOnce(Result<Stored, StorageError>) + Send + 'static) {
        self.order(Job::Load(Box::new(done)));
    }

    /// Makes changes durable, all or none, after those of earlier commits.
    pub fn commit(
        &self,
        changes: Vec<Change>,
        done: impl FnOnce(Result<Committed, StorageError>) + Send + 'static,
    ) {
        self.order(Job::Commit(changes, Box::new(done)));
    }

    /// Has the table take over all that is committed by now.
    pub fn flush(&self, done: impl FnOnce(Result<(), StorageError>) + Send + 'static) {
        self.order(Job::Flush(Box::new(done)));
    }

    fn order(&self, job: Job) {
        let refused = match &self.0.jobs {
            Some(jobs) => jobs.send(job).err().map(|refused| refused.0),
            None => Some(job),
        };
        if let Some(job) = refused {
            let reason = "its thread has ended".to_owned();
            job.refuse(StorageError::Ended { reason });
        }
    }
}

impl Job {
    fn refuse(self, error: StorageError) {
        match self {
            Self::Load(done) => done(Err(error)),
            Self::Commit(_, done) => done(Err(error)),
            Self::Flush(done) => done(Err(error)),
        }
    }
}

/// The table's thread: a commit for each load that has gathered.
fn take_over(
    table: &mut Table,
    loads: &Receiver<Pending>,
    notices: &Sender<Result<u64, StorageError>>,
) {
    for load in loads {
        let outcome = table.commit(&load).map(|()| load.applied.through);
        let has_failed = outcome.is_err();
        if notices.send(outcome).is_err() || has_failed {
            break;
        }
    }
}

/// The journal's thread.
pub(super) struct Writer<M = JournalFile> {
    pub(super) file: M,
    pub(super) path: PathBuf,
    pub(super) ring: Ring,
    pub(super) ring_sectors: u64,
    /// Number of the last batch.
    pub(super) last: u64,
    /// What the table has not been given yet.
    pub(super) pending: Pending,
    /// Whether the table is at work.
    pub(super) is_gathering: bool,
    pub(super) gathered: Sender<Pending>,
    pub(super) notices: Receiver<Result<u64, StorageError>>,
    /// Why nothing more is done.
    pub(super) ended: Option<StorageError>,
}

impl<M: Medium> Writer<M> {
    fn serve(&mut self, jobs: &Receiver<Job>, found: Found) {
        let mut found = Some(found);
        for job in jobs {
            match job {
                Job::Load(done) => done(match found.take() {
                    Some(found) => Ok(found.stored),
                    None => Err(StorageError::Ended {
                        reason: "it was read before: start the program anew".to_owned(),
                    }),
                }),
                Job::Commit(changes, done) => done(self.commit(&changes)),
                Job::Flush(done) => done(self.flush()),
            }
        }
        // Whoever opens it next finds everything in the table. If not, the journal still has it.
        if let Err(error) = self.flush() {
            warn!(%error, "the journal was not taken over at the end");
        }
    }

    /// One batch, one sync. The first error is the last thing that is done.
    pub(super) fn commit(&mut self, changes: &[Change]) -> Result<Committed, StorageError> {
        if let Some(reason) = &self.ended {
            return Err(reason.clone());
        }
        let outcome = self.write(changes);
        if let Err(reason) = &outcome {
            error!(error = %reason, "the store of the log ends");
            self.ended = Some(reason.clone());
        }
        outcome
    }

    fn write(&mut self, changes: &[Change]) -> Result<Committed, StorageError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "how long a disk takes is measured on its thread"
        )]
        let began = Instant::now();
        self.hear()?;
        let entries: Result<Vec<Entry>, _> = changes.iter().map(Entry::of).collect();
        let entries = entries.map_err(StorageError::of_record)?;
        let batch = encode_batch(&entries).map_err(StorageError::of_record)?;
        self.last += 1;
        let applied = Applied {
            through: self.last,
            sectors: self.ring_sectors,
        };
        let length = place_of(batch.len());
        if self.ring.holds(length) {
            let start = self.place(length)?;
            let framed = frame(self.last, start, &batch).unwrap_or_default();
            let failed = |error| StorageError::of_io(&self.path, &error);
            self.file
                .write(&framed, start * SECTOR as u64)
                .map_err(failed)?;
            self.file.sync().map_err(failed)?;
            self.pending.add(applied, entries);
            if self.ring.is_filling() && !self.is_gathering {
                self.hand_over()?;
            }
        } else {
            // Too long for the journal: straight into the table, with all that has gathered before it.
            self.pending.add(applied, entries);
            self.flush()?;
        }
        Ok(Committed {
            took: began.elapsed(),
        })
    }

    /// Sectors for a batch, once the table has made room.
    fn place(&mut self, length: u64) -> Result<u64, StorageError> {
        loop {
            if let Some(start) = self.ring.place(self.last, length) {
                return Ok(start);
            }
            if !self.is_gathering {
                self.hand_over()?;
            }
            self.wait()?;
        }
    }

    /// Gives the table what has gathered.
    fn hand_over(&mut self) -> Result<(), StorageError> {
        let load = std::mem::take(&mut self.pending);
        self.is_gathering = true;
        let reason = "the table's thread has ended".to_owned();
        self.gathered
            .send(load)
            .map_err(|_| StorageError::Ended { reason })
    }

    /// Hears of what the table has done meanwhile.
    fn hear(&mut self) -> Result<(), StorageError> {
        while let Ok(notice) = self.notices.try_recv() {
            self.taken(notice)?;
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<(), StorageError> {
        let reason = "the table's thread has ended".to_owned();
        let notice = self.notices.recv();
        self.taken(notice.unwrap_or(Err(StorageError::Ended { reason })))
    }

    fn taken(&mut self, notice: Result<u64, StorageError>) -> Result<(), StorageError> {
        self.is_gathering = false;
        self.ring.applied(notice?);
        Ok(())
    }

    /// The table takes over everything.
    pub(super) fn flush(&mut self) -> Result<(), StorageError> {
        if self.is_gathering {
            self.wait()?;
        }
        if self.pending.applied.through > 0 {
            self.hand_over()?;
            self.wait()?;
        }
        Ok(())
    }
}
