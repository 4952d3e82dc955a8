//! The thread that makes commits durable: all that wait become one transaction and one sync.
//!
//! It blocks on the disk, so it is no thread of the node, and it alone touches LMDB, whose write transactions belong to
//! a thread. Room for what has to be said of accepted work is kept on the file system beforehand ([`super::RESERVE`]).

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use tracing::{error, warn};

use super::lmdb::Table;
use super::tree::Tree;
use super::{Change, CheckpointError, Loaded, RESERVE, Room, files};
use crate::faults::Point;

/// Most bytes of all records. It is address space, not disk.
const MAP_BYTES: usize = 16 << 30;
/// Commits that become one transaction at most.
const AT_ONCE: usize = 256;

type Done = Box<dyn FnOnce(Result<Room, CheckpointError>) + Send>;

struct Job {
    changes: Vec<Change>,
    done: Done,
}

/// An agent's checkpoint, open. Dropping the last clone waits until all that was ordered is done.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    work_dir: PathBuf,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!(work_dir = %self.work_dir.display(), "the thread of the checkpoint has panicked");
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.0.work_dir.display())
    }
}

impl Store {
    /// Opens the checkpoint of the agent with this work directory, and makes it when there is none. What is damaged is
    /// put aside as `agent.mdb.damaged`, and the rest written anew, by the first commit: whoever refuses what is told of
    /// it has changed nothing.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn open(work_dir: &Path) -> Result<(Self, Loaded), CheckpointError> {
        let meta = files::meta(work_dir);
        std::fs::create_dir_all(&meta).map_err(|error| CheckpointError::unusable(&meta, &error))?;
        let loaded = files::look(work_dir)?;
        let (jobs, ordered) = channel();
        let mut writer = Writer {
            work_dir: work_dir.to_owned(),
            tree: Tree::new(work_dir, &loaded),
            table: None,
            keep: None,
            allocated: 0,
            room: Room::Enough,
            ended: None,
        };
        if loaded.faults.is_empty() {
            writer.open()?;
        } else {
            writer.keep = Some(loaded_changes(&loaded)?);
        }
        let thread = thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || writer.serve(&ordered))
            .map_err(|error| CheckpointError::unusable(work_dir, &error))?;
        let inner = Inner {
            work_dir: work_dir.to_owned(),
            jobs: Some(jobs),
            thread: Some(thread),
        };
        Ok((Self(Arc::new(inner)), loaded))
    }

    /// Makes changes durable, all or none, after those of earlier commits.
    pub fn commit(
        &self,
        changes: Vec<Change>,
        done: impl FnOnce(Result<Room, CheckpointError>) + Send + 'static,
    ) {
        let done: Done = Box::new(done);
        let job = Job { changes, done };
        let refused = match &self.0.jobs {
            Some(jobs) => jobs.send(job).err().map(|refused| refused.0),
            None => Some(job),
        };
        if let Some(job) = refused {
            (job.done)(Err(CheckpointError::Failed {
                path: self.0.work_dir.clone(),
                reason: "its thread has ended".to_owned(),
            }));
        }
    }
}

/// What could be read, to be written anew.
fn loaded_changes(loaded: &Loaded) -> Result<Vec<Change>, CheckpointError> {
    let changes = loaded.records.iter().map(Change::put);
    changes
        .collect::<Result<_, _>>()
        .map_err(|error| CheckpointError::Record(error.to_string()))
}

/// The thread's own.
struct Writer {
    work_dir: PathBuf,
    /// What people see of the records.
    tree: Tree,
    /// None before the first commit that puts a new file in the place of a damaged one.
    table: Option<Table>,
    /// What could be read of a damaged one.
    keep: Option<Vec<Change>>,
    /// Bytes that the file system has for the file.
    allocated: u64,
    room: Room,
    /// Why nothing more is done.
    ended: Option<CheckpointError>,
}

impl Writer {
    fn serve(&mut self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let mut together = vec![first];
            together.extend(jobs.try_iter().take(AT_ONCE - 1));
            let outcome = self.commit(&together);
            let mut changes = Vec::new();
            for job in together {
                changes.extend(job.changes);
                (job.done)(outcome.clone());
            }
            // Nobody waits for it.
            if outcome.is_ok() {
                self.tree.follow(&changes);
            }
        }
    }

    /// One transaction, one sync. The first error is the last thing that is done.
    fn commit(&mut self, jobs: &[Job]) -> Result<Room, CheckpointError> {
        if let Some(reason) = &self.ended {
            return Err(reason.clone());
        }
        let outcome = self.write(jobs);
        if let Err(reason) = &outcome {
            error!(error = %reason, "the checkpoint ends");
            self.ended = Some(reason.clone());
        }
        outcome
    }

    fn write(&mut self, jobs: &[Job]) -> Result<Room, CheckpointError> {
        Point::CommitBegun.reach();
        self.open()?;
        let changes = || jobs.iter().flat_map(|job| &job.changes);
        if let Some(table) = &mut self.table
            && changes().any(|change| !matches!(change, Change::Name(_)))
        {
            table.commit(changes())?;
        }
        for change in changes() {
            if let Change::Name(agent) = change {
                let meta = files::meta(&self.work_dir);
                files::name(&self.work_dir, agent.as_ref())
                    .map_err(|error| CheckpointError::of_io(&meta, &error))?;
            }
        }
        self.make_room();
        Point::CommitDurable.reach();
        Ok(self.room)
    }

    fn open(&mut self) -> Result<(), CheckpointError> {
        if self.table.is_some() {
            return Ok(());
        }
        let path = files::table(&self.work_dir);
        if let Some(keep) = self.keep.take() {
            // It stays for whoever wants to look into it.
            let aside = path.with_extension("mdb.damaged");
            match std::fs::rename(&path, &aside) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(CheckpointError::of_io(&path, &error));
                }
                Ok(()) | Err(_) => {}
            }
            let mut table = Table::open(&path, MAP_BYTES)?;
            table.commit(&keep)?;
            self.table = Some(table);
            return Ok(());
        }
        let table = Table::open(&path, MAP_BYTES)?;
        self.table = Some(table);
        Ok(())
    }

    /// Keeps room on the file system for what is still to come.
    fn make_room(&mut self) {
        let Some(table) = &self.table else {
            return;
        };
        let used = table.used();
        if self.allocated >= used + RESERVE / 2 {
            self.room = Room::Enough;
            return;
        }
        let path = files::table(&self.work_dir);
        let wanted = used + RESERVE;
        match allocate(&path, wanted) {
            Ok(()) => {
                self.allocated = wanted;
                self.room = Room::Enough;
            }
            Err(error) => {
                if self.room == Room::Enough {
                    warn!(path = %path.display(), %error, "no room is left beyond what is needed for the work that is here");
                }
                self.room = Room::Low;
            }
        }
    }
}

/// Has the file system give a file this many bytes.
fn allocate(path: &Path, bytes: u64) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let length = i64::try_from(bytes).map_err(std::io::Error::other)?;
    match nix::fcntl::posix_fallocate(&file, 0, length) {
        Ok(()) => Ok(()),
        // A file system without the call: nothing can be kept.
        Err(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::EINVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
