//! What survives a restart of the agent: records in `<work_dir>/meta`, and the links that people know.
//!
//! ```text
//! <work_dir>/meta/agent.mdb                         all records (records.rs), one LMDB environment
//! <work_dir>/meta/slaves/latest -> <agent id>       take it away, and the agent begins as a new one
//! <work_dir>/meta/slaves/<agent id>/frameworks/…    a picture of the executors' records, never read (tree.rs)
//! ```
//!
//! The agent orders [`Load`] once and then [`Commit`]s, under [`meseta_runtime::Gate::HoldEffects`]: whatever it does or
//! says afterwards waits until the commit is durable. A thread of its own carries them out, all that wait in one
//! transaction. In simulated worlds and tests a simulated disk answers the same way ([`memory`]).

mod files;
mod lmdb;
pub mod memory;
pub mod records;
mod store;
mod tree;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use meseta_protocol::AgentId;
use meseta_runtime::{NodeBuilder, Op};
use tokio::sync::oneshot;

use records::{Record, RecordError};

pub use files::{look, meta};
pub use store::Store;

/// Free space that is kept for what has to be written about work that has been taken.
pub const RESERVE: u64 = 8 << 20;

/// Why the checkpoint cannot be used, or not any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// A file or directory cannot be made, read or written.
    #[error("cannot use {}: {reason}: let the agent's user write there, or give another --work_dir", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// No room on the file system.
    #[error("no room left for {}: free some space and start again; nothing that was acknowledged is lost", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// A record was made by a later version.
    #[error("{} holds records of a later version ({what}): start the version that made them, or a later one", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Which record.
        what: String,
    },
    /// A write or sync failed: whether it is on disk is not known.
    #[error("cannot write {}: {reason}: see to the disk, then start again", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// A record has no serialised form or is too large.
    #[error("the checkpoint cannot be written: {0}")]
    Record(String),
}

impl CheckpointError {
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
}

fn is_full(error: &io::Error) -> bool {
    let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    kinds.contains(&error.kind())
}

/// One change of what is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A record, sealed, under its key.
    Put(String, Vec<u8>),
    /// The record under this key goes.
    Delete(String),
    /// All records go whose keys begin so.
    DeleteBelow(String),
    /// `slaves/latest` names this agent, or none: carried out after the other changes of its commit.
    Name(Option<AgentId>),
}

impl Change {
    /// A record as a change.
    ///
    /// # Errors
    /// [`RecordError::TooLarge`].
    pub fn put(record: &Record) -> Result<Self, RecordError> {
        let (key, bytes) = record.write()?;
        Ok(Self::Put(key, bytes))
    }
}

/// Something that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// In which file.
    pub file: PathBuf,
    /// What is wrong.
    pub what: String,
}

/// What `slaves/latest` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Latest {
    /// Nobody has made it.
    #[default]
    Never,
    /// It was taken away: the agent is to begin as a new one.
    TakenAway,
    /// An agent's id.
    Is(AgentId),
}

/// All that was found at the start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loaded {
    /// Records, by key.
    pub records: Vec<Record>,
    /// What could not be read.
    pub faults: Vec<Fault>,
    /// Which agent this is.
    pub latest: Latest,
    /// The file they are in, for texts.
    pub file: PathBuf,
}

impl Loaded {
    /// Takes one record in, or notes what is wrong with it.
    ///
    /// # Errors
    /// [`CheckpointError::Newer`].
    pub fn take(&mut self, key: &[u8], bytes: &[u8]) -> Result<(), CheckpointError> {
        let key = String::from_utf8_lossy(key);
        match Record::read(&key, bytes) {
            Ok(record) => self.records.push(record),
            Err(error @ RecordError::Later { .. }) => {
                return Err(CheckpointError::Newer {
                    path: self.file.clone(),
                    what: error.to_string(),
                });
            }
            Err(error @ (RecordError::Damaged { .. } | RecordError::TooLarge { .. })) => {
                self.faults.push(Fault {
                    file: self.file.clone(),
                    what: error.to_string(),
                });
            }
        }
        Ok(())
    }
}

/// Opens the checkpoint of the agent with this work directory and reads all of it.
#[derive(Debug, Clone)]
pub struct Load {
    /// The work directory.
    pub work_dir: PathBuf,
}

impl Op for Load {
    type Out = Result<Loaded, CheckpointError>;
}

/// Whether new work can be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// It can.
    Enough,
    /// What is left is kept for the work that is here.
    Low,
}

/// Makes changes durable, all or none.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The work directory.
    pub work_dir: PathBuf,
    /// What changes, in order.
    pub changes: Vec<Change>,
}

impl Op for Commit {
    type Out = Result<Room, CheckpointError>;
}

/// What carries out [`Load`] and [`Commit`] of a node's agents.
#[derive(Debug, Clone, Default)]
pub enum Storage {
    /// Directories, each opened by its agent's [`Load`].
    #[default]
    Directories,
    /// A simulated disk.
    Memory(memory::Memory),
}

type Open = Arc<Mutex<HashMap<PathBuf, Store>>>;

impl Storage {
    /// Has a node carry out [`Load`] and [`Commit`].
    #[must_use]
    pub fn serve(self, builder: NodeBuilder) -> NodeBuilder {
        match self {
            Self::Directories => {
                let open = Open::default();
                let opened = Arc::clone(&open);
                builder
                    .op(move |load: Load| {
                        let open = Arc::clone(&open);
                        blocking(move || open_anew(&open, &load.work_dir))
                    })
                    .op(move |commit: Commit| {
                        let store = locked(&opened).get(&commit.work_dir).cloned();
                        let (tell, told) = oneshot::channel();
                        match store {
                            Some(store) => store.commit(commit.changes, move |outcome| {
                                // Whoever waited has ended when nobody listens.
                                drop(tell.send(outcome));
                            }),
                            None => drop(tell),
                        }
                        async move {
                            told.await.unwrap_or_else(|_| {
                                Err(CheckpointError::Failed {
                                    path: commit.work_dir,
                                    reason: "its thread has ended".to_owned(),
                                })
                            })
                        }
                    })
            }
            Self::Memory(memory) => {
                let commits = memory.clone();
                builder
                    .op(move |_: Load| {
                        let loaded = memory.disk(|disk| memory::load(disk));
                        async move { loaded }
                    })
                    .op(move |commit: Commit| {
                        let done = commits.disk(|disk| memory::commit(disk, &commit.changes));
                        async move { done.map(|()| Room::Enough) }
                    })
            }
        }
    }
}

fn locked(open: &Open) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Store>> {
    // The map is consistent between any two calls, so a panic elsewhere does not spoil it.
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a directory; one that an earlier agent of this node had open is closed first.
fn open_anew(open: &Open, work_dir: &Path) -> Result<Loaded, CheckpointError> {
    let earlier = locked(open).remove(work_dir);
    drop(earlier);
    let (store, loaded) = Store::open(work_dir)?;
    locked(open).insert(work_dir.to_owned(), store);
    Ok(loaded)
}

async fn blocking(
    work: impl FnOnce() -> Result<Loaded, CheckpointError> + Send + 'static,
) -> Result<Loaded, CheckpointError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| CheckpointError::Record(error.to_string()))?
}
