//! What a run remembers outside of all nodes: its history, what each framework has written down, and the machines.
//!
//! Schedulers, executors and models of operations share it. A real framework keeps its books on a disk of its own; here
//! they outlive a crash of its program the same way, so what is in them counts as known.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meseta_protocol::ids::MasterId;
use meseta_protocol::status::{TaskState, TaskStatus};
use meseta_protocol::{AgentId, FrameworkId, TaskId};
use meseta_runtime::Time;
use meseta_runtime::sim::NodeId;

use super::machine::Machine;
use crate::invariants::{Event, History};

/// What a framework knows of one task.
#[derive(Debug, Clone)]
pub struct Task {
    /// Where it was launched.
    pub agent: AgentId,
    /// The last state heard of it.
    pub state: Option<TaskState>,
    /// Set when it is to be killed, at this time.
    pub kill_at: Option<Time>,
}

impl Task {
    /// Whether the framework need not ask about it any more.
    pub fn is_settled(&self) -> bool {
        self.state
            .is_some_and(crate::invariants::no_launch_lost::is_settled)
    }
}

/// The books of one framework.
#[derive(Debug, Clone, Default)]
pub struct Book {
    /// Its id, once it has one.
    pub id: Option<FrameworkId>,
    /// The master that has taken it in last.
    pub master: Option<MasterId>,
    /// Number of the driver that speaks for it; an older one is told that it was replaced.
    pub driver: usize,
    /// How many tasks it has launched; the next id counts on from it.
    pub launched: usize,
    /// How many more tasks it wants.
    pub wanted: usize,
    /// Its tasks.
    pub tasks: BTreeMap<TaskId, Task>,
    /// Nobody speaks for it any more.
    pub over: bool,
}

/// Counts of faults that the workload and the machines make, by kind, beside the simulator's own.
pub type Bites = BTreeMap<&'static str, u64>;

/// See the module.
#[derive(Debug, Default)]
pub struct Notes {
    /// Virtual time of the run.
    pub now: Time,
    /// All that counts for the laws.
    pub history: History,
    /// Of each framework.
    pub books: Vec<Book>,
    /// Of each agent.
    pub machines: Vec<Machine>,
    /// Faults that have bitten.
    pub bites: Bites,
    /// The node of each framework's newest program, once it has been replaced.
    pub programs: Vec<Option<NodeId>>,
    /// Set when faults have stopped: nothing new is begun, and what runs ends.
    pub draining: bool,
    /// Set when frameworks are to end.
    pub ending: bool,
}

impl Notes {
    /// Writes an event down.
    pub fn note(&mut self, event: Event) {
        self.history.push((self.now, event));
    }

    /// Counts a fault.
    pub fn bite(&mut self, kind: &'static str) {
        *self.bites.entry(kind).or_default() += 1;
    }

    /// Takes what a framework hears of a task into its book. Whether that is the end of the task as far as it knows.
    pub fn hear(&mut self, framework: usize, status: &TaskStatus) -> bool {
        let task = self.books[framework].tasks.get_mut(&status.task_id);
        let Some(task) = task else {
            return false;
        };
        let was_settled = task.is_settled();
        task.state = Some(status.state);
        !was_settled && task.is_settled()
    }
}

/// The notes, shared by everything of one run. Processes are built by factories that may be sent to a thread, which a
/// simulation never does; hence the lock.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<Mutex<Notes>>);

impl Shared {
    /// The notes, for one short look or change.
    pub fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
