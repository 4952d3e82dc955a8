//! An agent's records on a simulated disk: for simulated worlds, and for tests of live nodes without a directory.
//!
//! Commits are durable in their order: those that are ordered while one is under way are written together after it, as
//! the thread of a real checkpoint does. A crash keeps such a batch as a whole or loses it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meseta_protocol::AgentId;
use meseta_runtime::sim::{self, Disk, DiskError, NodeId, OpReply, Sim};

use super::{Change, CheckpointError, Commit, Latest, Load, Loaded, Room};

const STORE: &str = "checkpoint/";
const LATEST: &str = "latest";

/// A simulated disk of a test, which outlives the nodes that use it.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Mutex<Disk>>);

impl Memory {
    /// A disk.
    pub fn new(disk: Disk) -> Self {
        Self(Arc::new(Mutex::new(disk)))
    }

    /// Looks at the disk, or changes it.
    pub fn disk<T>(&self, act: impl FnOnce(&mut Disk) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads what a disk holds.
///
/// # Errors
/// [`CheckpointError::Newer`].
pub fn load(disk: &Disk) -> Result<Loaded, CheckpointError> {
    let mut loaded = Loaded {
        file: "simulated".into(),
        ..Loaded::default()
    };
    let names: Vec<&str> = disk.names().collect();
    for name in names {
        let Some((key, bytes)) = name.strip_prefix(STORE).zip(disk.read(name)) else {
            continue;
        };
        if key == LATEST {
            let id = String::from_utf8_lossy(bytes);
            loaded.latest = Latest::Is(AgentId::new(&*id));
        } else {
            loaded.take(key.as_bytes(), bytes)?;
        }
    }
    Ok(loaded)
}

/// Makes changes durable, all or none.
///
/// # Errors
/// [`CheckpointError`] when the disk is full or its sync fails.
pub fn commit(disk: &mut Disk, changes: &[Change]) -> Result<(), CheckpointError> {
    disk.write_all(batch(disk, changes)).map_err(of_disk)?;
    disk.sync().map_err(of_disk)
}

/// Changes as those of a disk.
fn batch(disk: &Disk, changes: &[Change]) -> Vec<sim::Change> {
    let mut batch = Vec::new();
    for change in changes {
        match change {
            Change::Put(key, bytes) => batch.push((format!("{STORE}{key}"), Some(bytes.clone()))),
            Change::Delete(key) => batch.push((format!("{STORE}{key}"), None)),
            Change::DeleteBelow(prefix) => {
                let prefix = format!("{STORE}{prefix}");
                let written = disk.names().filter(|name| name.starts_with(&prefix));
                let written: Vec<sim::Change> =
                    written.map(|name| (name.to_owned(), None)).collect();
                // Those that this very batch has put, too.
                batch.retain(|(name, _): &sim::Change| !name.starts_with(&prefix));
                batch.extend(written);
            }
            Change::Name(agent) => {
                let id = agent.as_ref().map(|id| id.as_str().as_bytes().to_vec());
                batch.push((format!("{STORE}{LATEST}"), id));
            }
        }
    }
    batch
}

fn of_disk(error: DiskError) -> CheckpointError {
    let path = "simulated".into();
    match error {
        DiskError::Full => CheckpointError::Full { path },
        DiskError::Failed => CheckpointError::Failed {
            path,
            reason: error.to_string(),
        },
    }
}

/// Commits of one run of a node.
#[derive(Default)]
struct Waiting {
    incarnation: u64,
    is_busy: bool,
    /// Set by the first failure, as in a real checkpoint: nothing more is written by this run.
    ended: Option<CheckpointError>,
    orders: Vec<(Vec<Change>, OpReply<Commit>)>,
}

type All = Rc<RefCell<BTreeMap<NodeId, Waiting>>>;

/// What a world does when changes have become durable and nobody has been told yet.
type Durable = Rc<dyn Fn(&mut Sim, NodeId, &[Change])>;

/// Has the nodes of a simulated world carry out [`Load`] and [`Commit`] on their disks. What is durable is `told` before
/// the agent that has ordered it.
pub fn model(sim: &mut Sim, told: impl Fn(&mut Sim, NodeId, &[Change]) + 'static) {
    sim.model(|sim, node, _: Load, reply| {
        let delay = sim.op_delay();
        let loaded = load(sim.disk(node));
        sim.answer(reply, delay, loaded);
    });
    let all = All::default();
    let told: Durable = Rc::new(told);
    sim.model(move |sim, node, commit: Commit, reply: OpReply<Commit>| {
        let incarnation = sim.incarnation(node);
        let idle = {
            let mut all = all.borrow_mut();
            let waiting = all.entry(node).or_default();
            if waiting.incarnation != incarnation {
                *waiting = Waiting {
                    incarnation,
                    ..Waiting::default()
                };
            }
            waiting.orders.push((commit.changes, reply));
            !std::mem::replace(&mut waiting.is_busy, true)
        };
        if idle {
            write(sim, node, Rc::clone(&all), Rc::clone(&told));
        }
    });
}

/// Writes all that waits, and what has come meanwhile after it.
fn write(sim: &mut Sim, node: NodeId, all: All, told: Durable) {
    let (orders, ended) = {
        let mut all = all.borrow_mut();
        let waiting = all.entry(node).or_default();
        let orders = std::mem::take(&mut waiting.orders);
        waiting.is_busy = !orders.is_empty() && waiting.ended.is_none();
        (orders, waiting.ended.clone())
    };
    if let Some(ended) = ended {
        for (_, reply) in orders {
            sim.answer(reply, Duration::ZERO, Err(ended.clone()));
        }
        return;
    }
    if orders.is_empty() {
        return;
    }
    let changes: Vec<Change> = orders
        .iter()
        .flat_map(|(changes, _)| changes.iter().cloned())
        .collect();
    let disk = sim.disk(node);
    let batch = batch(disk, &changes);
    let begun = disk.write_all(batch);
    let delay = sim.op_delay();
    sim.later_on(node, delay, move |sim| {
        let done = begun.and_then(|()| sim.disk(node).sync());
        let done = done.map(|()| Room::Enough).map_err(of_disk);
        match &done {
            Ok(_) => told(sim, node, &changes),
            Err(error) => all.borrow_mut().entry(node).or_default().ended = Some(error.clone()),
        }
        for (_, reply) in orders {
            sim.answer(reply, Duration::ZERO, done.clone());
        }
        write(sim, node, all, told);
    });
}
