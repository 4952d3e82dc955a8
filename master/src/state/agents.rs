//! Agents in the master's tables.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use meseta_protocol::agent::{AgentCapability, AgentInfo};
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::resources::Resources;
use meseta_protocol::status::{StatusReason, StatusSource, TaskState, TaskStatus};
use meseta_protocol::task::Task;
use meseta_protocol::{AgentId, FrameworkId, OfferId, TaskId};
use meseta_runtime::Pid;

use super::frameworks::forget;
use super::{Agent, Change, State, end_is_forwarded};
use crate::health::Health;

/// What was on an agent that is taken out.
#[derive(Debug, Default)]
pub struct Removed {
    /// Its tasks of whose state their frameworks have to be told.
    pub tasks: Vec<Arc<Task>>,
    /// Offers that held its resources. They must be taken back before the agent is.
    pub offers: BTreeSet<OfferId>,
}

impl Agent {
    /// An agent that has just registered.
    pub fn new(
        info: AgentInfo,
        pid: Pid,
        version: String,
        capabilities: Vec<AgentCapability>,
        now: Duration,
    ) -> Self {
        Self {
            total: info.resources.clone(),
            info,
            pid,
            version,
            capabilities,
            connected: true,
            registration: 0,
            registered: now,
            reregistered: None,
            used: BTreeMap::new(),
            offers: BTreeSet::new(),
            offered: Resources::new(),
            tasks: BTreeMap::new(),
            executors: BTreeMap::new(),
            unconfirmed: BTreeSet::new(),
            killed_tasks: BTreeSet::new(),
            lingering: BTreeMap::new(),
            ping_chain: 0,
            entry: 0,
            health: Health::default(),
        }
    }

    /// Whether there is anything of this framework on it.
    pub(super) fn knows(&self, framework: &FrameworkId) -> bool {
        self.used.contains_key(framework)
            || self.tasks.contains_key(framework)
            || self.executors.contains_key(framework)
            || self.killed_tasks.iter().any(|(id, _)| id == framework)
            || self.lingering.keys().any(|(id, _)| id == framework)
    }

    pub(super) fn charge(&mut self, framework: &FrameworkId, resources: &Resources) {
        if !resources.is_empty() {
            *self.used.entry(framework.clone()).or_default() += resources;
        }
    }

    pub(super) fn free(&mut self, framework: &FrameworkId, resources: &Resources) {
        if let Some(used) = self.used.get_mut(framework) {
            *used -= resources;
            if used.is_empty() {
                self.used.remove(framework);
            }
        }
    }
}

/// A task is over by the master's word, by which it is known should its agent come back with it. One that has ended by
/// itself, unheard, keeps that end.
fn declare_ended(task: &mut Task, mut state_of: impl FnMut(&Task) -> TaskState) {
    if !task.state.is_terminal() {
        task.state = state_of(task);
    }
    let reason = if task.state == TaskState::GoneByOperator {
        StatusReason::AgentRemovedByOperator
    } else {
        StatusReason::AgentRemoved
    };
    let last = TaskStatus::new(task.task_id.clone(), task.state);
    task.statuses
        .push(last.because(StatusSource::Master, reason));
}

impl State {
    /// Adds an agent with what runs on it. The frameworks of its tasks and executors must be known.
    pub fn add_agent(
        &mut self,
        agent: Agent,
        tasks: Vec<Task>,
        executors: Vec<(FrameworkId, ExecutorInfo)>,
    ) {
        let Some(id) = agent.info.id.clone() else {
            debug_assert!(false, "an agent is added with its id");
            return;
        };
        self.agents_by_pid.insert(agent.pid.clone(), id.clone());
        let mut agent = agent;
        let lingering = std::mem::take(&mut agent.lingering);
        let replaced = self.agents.insert(id.clone(), Arc::new(agent));
        debug_assert!(replaced.is_none(), "an agent id is added once");
        self.set_lingering(&id, lingering);
        for (framework_id, executor) in executors {
            self.add_executor(&framework_id, &id, executor);
        }
        for task in tasks {
            self.add_task(task);
        }
        self.noted.note(|| Change::AgentAdded(id));
    }

    /// Records that a known agent has registered again, perhaps from another port.
    pub fn reconnect_agent(&mut self, id: &AgentId, pid: &Pid, now: Duration) {
        if let Some(agent) = self.agents.get_mut(id).map(Arc::make_mut) {
            forget(&mut self.agents_by_pid, &agent.pid, id);
            self.agents_by_pid.insert(pid.clone(), id.clone());
            agent.pid = pid.clone();
            agent.connected = true;
            agent.registration += 1;
            agent.reregistered = Some(now);
            agent.health = Health::default();
        }
    }

    /// Marks an agent as disconnected; its registration number, to be compared when a time-out fires.
    pub fn disconnect_agent(&mut self, id: &AgentId) -> Option<u64> {
        let agent = self.agents.get_mut(id).map(Arc::make_mut)?;
        agent.connected = false;
        agent.registration += 1;
        Some(agent.registration)
    }

    /// Replaces what an agent said of itself.
    pub fn update_agent(
        &mut self,
        id: &AgentId,
        info: AgentInfo,
        version: String,
        capabilities: Vec<AgentCapability>,
    ) {
        let Some(agent) = self.agents.get_mut(id).map(Arc::make_mut) else {
            return;
        };
        if agent.info != info || agent.version != version || agent.capabilities != capabilities {
            self.noted.note(|| Change::AgentAdded(id.clone()));
        }
        agent.total = info.resources.clone();
        agent.info = info;
        agent.version = version;
        agent.capabilities = capabilities;
    }

    /// What an agent holds for tasks that are over for their frameworks, as it has just listed them, each task's
    /// framework being known. What it held for others of that kind is free.
    pub fn set_lingering(
        &mut self,
        id: &AgentId,
        listed: BTreeMap<(FrameworkId, TaskId), Resources>,
    ) {
        let Some(agent) = self.agents.get_mut(id).map(Arc::make_mut) else {
            return;
        };
        for ((framework, _), held) in std::mem::take(&mut agent.lingering) {
            agent.free(&framework, &held);
        }
        for ((framework, _), held) in &listed {
            agent.charge(framework, held);
        }
        agent.lingering = listed;
    }

    /// Whether an agent has listed this task although its framework was told that it is over.
    pub fn lingers(&self, id: &AgentId, framework: &FrameworkId, task: &TaskId) -> bool {
        let key = (framework.clone(), task.clone());
        let agent = self.agents.get(id);
        agent.is_some_and(|agent| agent.lingering.contains_key(&key))
    }

    /// A lingering task has ended; what it held until then. It stays in the list, holding nothing, until its agent lists
    /// anew: the agent tells of the end again until that is acknowledged.
    pub fn lingering_ended(
        &mut self,
        id: &AgentId,
        framework: &FrameworkId,
        task: &TaskId,
    ) -> Option<Resources> {
        let agent = self.agents.get_mut(id).map(Arc::make_mut)?;
        let held = agent
            .lingering
            .get_mut(&(framework.clone(), task.clone()))?;
        let held = std::mem::take(held);
        agent.free(framework, &held);
        Some(held)
    }

    /// The unreachable tasks of an agent that will never come back are over, with `state_of` each. Returns those whose
    /// frameworks have to be told; one whose end was forwarded has ended by that.
    pub fn give_up_unreachable(
        &mut self,
        id: &AgentId,
        state_of: impl Fn(&Task) -> TaskState,
    ) -> Vec<Arc<Task>> {
        let ids: Vec<FrameworkId> = self.frameworks.keys().cloned().collect();
        let mut told = Vec::new();
        for framework_id in ids {
            for mut task in self.take_unreachable_of(&framework_id, id) {
                if !task.state.is_terminal() || !end_is_forwarded(&task) {
                    declare_ended(Arc::make_mut(&mut task), &state_of);
                    told.push(task.clone());
                }
                self.complete_taken(&framework_id, task);
            }
        }
        told
    }

    /// Takes an agent out. Its tasks go to their frameworks' unreachable lists with `state_of` each, or to the
    /// completed ones when that state is terminal and `keep_unreachable` is false.
    pub fn remove_agent(
        &mut self,
        id: &AgentId,
        keep_unreachable: bool,
        mut state_of: impl FnMut(&Task) -> TaskState,
    ) -> Option<Removed> {
        let agent = self.agents.get(id)?;
        debug_assert!(agent.offers.is_empty(), "offers are taken back first");
        let listed: Vec<(FrameworkId, TaskId)> = agent
            .tasks
            .iter()
            .flat_map(|(framework, tasks)| {
                tasks.iter().map(|task| (framework.clone(), task.clone()))
            })
            .collect();
        let executors: Vec<_> = agent
            .executors
            .iter()
            .flat_map(|(framework, all)| all.iter().map(|one| (framework.clone(), one.clone())))
            .collect();
        for (framework, executor) in executors {
            self.remove_executor(&framework, id, &executor);
        }
        let mut removed = Removed::default();
        for (framework, task) in listed {
            let Some(mut task) = self.take_task(&framework, &task) else {
                continue;
            };
            let lost = state_of(&task);
            // An end that its framework has not heard is told too, unless the agent may still tell it itself.
            let ended = lost.is_terminal() && !end_is_forwarded(&task);
            let is_news = ended || !task.state.is_terminal();
            if ended {
                declare_ended(Arc::make_mut(&mut task), &mut state_of);
            } else if !task.state.is_terminal() {
                Arc::make_mut(&mut task).state = lost;
            }
            if is_news {
                removed.tasks.push(task.clone());
            }
            if keep_unreachable && !ended {
                self.park_task(&framework, task);
            } else {
                self.complete_taken(&framework, task);
            }
        }
        if let Some(agent) = self.agents.remove(id) {
            forget(&mut self.agents_by_pid, &agent.pid, id);
            removed.offers = agent.offers.clone();
        }
        Some(removed)
    }
}
