//! What the people of a simulated cluster write down: frameworks their plans and what they are told, machines the
//! processes that ran.
//!
//! The ledger is outside all nodes: a crash loses nothing of it. A framework writes a task down before it asks for its
//! launch, as one with a database would. Laws compare it with what master and agents say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use meseta_protocol::status::TaskState;
use meseta_protocol::{AgentId, FrameworkId, TaskId, UpdateId};
use meseta_runtime::Time;

use crate::invariants::{Event, History};

/// One task that a framework wants to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its id, used once.
    pub id: TaskId,
    /// What it needs, as text.
    pub resources: String,
    /// How many ports it needs.
    pub ports: u64,
    /// How long its process runs.
    pub runs: Duration,
    /// Exit status of its process.
    pub exit: i32,
    /// When the framework kills it, counted from its launch.
    pub killed_after: Option<Duration>,
}

/// One launched task, as its framework knows it.
#[derive(Debug, Clone)]
pub struct TaskBook {
    /// What was wanted.
    pub plan: Plan,
    /// Where.
    pub agent: AgentId,
    /// Whether its framework wants it dead.
    pub kill: bool,
    /// All updates in the order in which the framework was told of them.
    pub updates: Vec<(TaskState, Option<UpdateId>)>,
}

impl TaskBook {
    /// The latest state its framework was told of.
    pub fn state(&self) -> TaskState {
        self.updates
            .last()
            .map_or(TaskState::Staging, |(state, _)| *state)
    }

    /// Whether its framework was told of an end.
    pub fn has_ended(&self) -> bool {
        self.updates.iter().any(|(state, _)| state.is_terminal())
    }
}

/// One framework.
#[derive(Debug, Default)]
pub struct FrameworkBook {
    /// Its id, once it has one.
    pub id: Option<FrameworkId>,
    /// Tasks still to be launched, the next one last.
    pub plans: Vec<Plan>,
    /// Launched tasks.
    pub tasks: BTreeMap<TaskId, TaskBook>,
    /// Whether it is subscribed, as far as it knows.
    pub connected: bool,
    /// Set when it is to end.
    pub stopping: bool,
    /// Whether its driver has ended for good.
    pub ended: bool,
    /// Why a master refused it; such a framework begins anew under another id.
    pub refused: Vec<String>,
    /// Tasks of an earlier id.
    pub given_up: BTreeMap<TaskId, TaskBook>,
}

/// Everything that is written down.
#[derive(Debug, Default)]
pub struct Book {
    /// Frameworks by number.
    pub frameworks: Vec<FrameworkBook>,
    /// What counts for the laws about tasks.
    pub history: History,
    /// Tasks whose processes live.
    pub running: BTreeSet<TaskId>,
}

impl Book {
    /// Writes down what counts for a law.
    pub fn note(&mut self, now: Time, event: Event) {
        self.history.push((now, event));
    }
}

/// The ledger. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<Book>>);

impl Ledger {
    /// Opens the book.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        // A panic of a process under test has not torn the book.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
