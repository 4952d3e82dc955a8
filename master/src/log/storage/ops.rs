//! The store as operations of the runtime: what a replica's process asks for, and who does it.

use std::time::Duration;

use meseta_runtime::sim::{NodeId, OpReply, Sim};
use meseta_runtime::{NodeBuilder, Op};
use tokio::sync::oneshot;

use super::memory::{self, Memory};
use super::{Committed, StorageError, Store};
use crate::log::replica::core::{Change, Stored};

/// Reads everything, once, when the replica starts.
#[derive(Debug, Clone, Copy)]
pub struct Load;

impl Op for Load {
    type Out = Result<Stored, StorageError>;
}

/// Makes these changes durable in this order, all or none.
#[derive(Debug, Clone)]
pub struct Commit {
    /// What changes.
    pub changes: Vec<Change>,
}

impl Op for Commit {
    type Out = Result<Committed, StorageError>;
}

/// What carries out the operations of a node's replica.
#[derive(Debug, Clone)]
pub enum Storage {
    /// A directory.
    Directory(Store),
    /// A simulated disk.
    Memory(Memory),
}

impl From<Store> for Storage {
    fn from(store: Store) -> Self {
        Self::Directory(store)
    }
}

impl From<Memory> for Storage {
    fn from(memory: Memory) -> Self {
        Self::Memory(memory)
    }
}

impl Storage {
    /// Has a node carry out [`Load`] and [`Commit`].
    #[must_use]
    pub fn serve(self, builder: NodeBuilder) -> NodeBuilder {
        let (loads, commits) = (self.clone(), self);
        builder
            .op(move |_: Load| {
                let loading = match &loads {
                    Self::Directory(store) => Doing::begun(|done| store.load(done)),
                    Self::Memory(memory) => Doing::Done(Ok(memory.disk(|disk| memory::load(disk)))),
                };
                loading.end()
            })
            .op(move |commit: Commit| {
                let committing = match &commits {
                    Self::Directory(store) => {
                        Doing::begun(|done| store.commit(commit.changes, done))
                    }
                    Self::Memory(memory) => {
                        let done = memory.disk(|disk| memory::commit(disk, &commit.changes));
                        Doing::Done(done.map(|()| Committed::default()))
                    }
                };
                committing.end()
            })
    }
}

/// What the disk of a simulated node has done for its replica.
#[derive(Debug)]
pub enum Happened<'a> {
    /// It was read at the start of the node's present run.
    Loaded(&'a Stored),
    /// These changes are durable.
    Committed(&'a [Change]),
    /// It did not do what it was told.
    Failed(&'a StorageError),
}

/// Has the nodes of a simulated world carry out [`Load`] and [`Commit`] on their disks. A crash before the answer keeps a
/// commit as a whole or loses it. `tell` hears of everything before the replica does.
pub fn model(sim: &mut Sim, tell: impl Fn(&Sim, NodeId, &Happened<'_>) + Clone + 'static) {
    let told = tell.clone();
    sim.model(move |sim, node, _: Load, reply| {
        let delay = sim.op_delay();
        let stored = memory::load(sim.disk(node));
        told(sim, node, &Happened::Loaded(&stored));
        sim.answer(reply, delay, Ok(stored));
    });
    sim.model(move |sim, node, commit: Commit, reply: OpReply<Commit>| {
        let delay = sim.op_delay();
        let begun = memory::begin(sim.disk(node), &commit.changes);
        let tell = tell.clone();
        sim.later_on(node, delay, move |sim| {
            let done = begun.and_then(|()| memory::end(sim.disk(node)));
            let happened = match &done {
                Ok(()) => Happened::Committed(&commit.changes),
                Err(error) => Happened::Failed(error),
            };
            tell(sim, node, &happened);
            sim.answer(reply, Duration::ZERO, done.map(|()| Committed::default()));
        });
    });
}

type Outcome<T> = Result<T, StorageError>;

/// An order to a store.
enum Doing<T> {
    Begun(oneshot::Receiver<Outcome<T>>),
    Done(Outcome<T>),
}

impl<T: Send + 'static> Doing<T> {
    fn begun(order: impl FnOnce(Box<dyn FnOnce(Outcome<T>) + Send>)) -> Self {
        let (tell, told) = oneshot::channel();
        order(Box::new(move |outcome| {
            // Whoever waited has ended when nobody listens.
            drop(tell.send(outcome));
        }));
        Self::Begun(told)
    }

    async fn end(self) -> Outcome<T> {
        match self {
            Self::Begun(told) => told.await.unwrap_or_else(|_| {
                let reason = "its thread has ended".to_owned();
                Err(StorageError::Ended { reason })
            }),
            Self::Done(outcome) => outcome,
        }
    }
}
