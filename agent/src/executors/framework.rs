//! One framework with its executors, and the launches that it has ordered.
//!
//! Pure: a table, no process and no clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use meseta_protocol::framework::{FrameworkCapability, FrameworkInfo};
use meseta_protocol::status::TaskState;
use meseta_protocol::{ExecutorId, TaskId, UpdateId};

use super::Executor;

/// Launches remembered per framework, so that none is carried out twice.
const MAX_LAUNCHES: usize = 10_000;

/// Launches that have been carried out.
#[derive(Debug, Default)]
struct Launches {
    order: VecDeque<UpdateId>,
    known: BTreeSet<UpdateId>,
}

impl Launches {
    fn is_news(&mut self, launch: UpdateId) -> bool {
        if launch == UpdateId::default() {
            return true;
        }
        if !self.known.insert(launch) {
            return false;
        }
        self.order.push_back(launch);
        if self.order.len() > MAX_LAUNCHES
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

/// One framework with something on this agent.
#[derive(Debug)]
pub struct Framework {
    /// As it describes itself.
    pub info: FrameworkInfo,
    /// Whether it is being ended: it starts nothing and hears nothing any more.
    pub terminating: bool,
    /// Its executors.
    pub executors: BTreeMap<ExecutorId, Executor>,
    /// Executors that have nothing left but a container that goes down, and whose ids are in use again. By container.
    pub superseded: BTreeMap<String, Executor>,
    /// Its executors that are over, the oldest first.
    pub completed_executors: VecDeque<Executor>,
    /// Who has each task that is not completed.
    pub(super) owners: BTreeMap<TaskId, ExecutorId>,
    launches: Launches,
}

impl Framework {
    /// A framework without executors.
    pub fn new(info: FrameworkInfo) -> Self {
        Self {
            info,
            terminating: false,
            executors: BTreeMap::new(),
            superseded: BTreeMap::new(),
            completed_executors: VecDeque::new(),
            owners: BTreeMap::new(),
            launches: Launches::default(),
        }
    }

    /// Whether a launch has not been carried out before; asked once for each.
    pub fn is_news(&mut self, launch: UpdateId) -> bool {
        self.launches.is_news(launch)
    }

    /// The executor that has this task, and the task is not completed.
    pub fn executor_of(&self, task_id: &TaskId) -> Option<&ExecutorId> {
        self.owners.get(task_id)
    }

    /// Remembers a task of an executor that an earlier run of the agent has launched.
    pub fn owns(&mut self, task_id: TaskId, executor_id: ExecutorId, launch: UpdateId) {
        self.launches.is_news(launch);
        self.owners.insert(task_id, executor_id);
    }

    pub(super) fn remember(&mut self, executor: Executor, at_most: usize) {
        self.completed_executors.push_back(executor);
        if self.completed_executors.len() > at_most {
            self.completed_executors.pop_front();
        }
    }

    /// `state` as this framework understands it.
    pub fn state_for(&self, state: TaskState) -> TaskState {
        if self.info.has(FrameworkCapability::PartitionAware) {
            state
        } else {
            state.for_partition_unaware()
        }
    }
}
