//! Agents in the master's tables.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meseta_protocol::agent::{AgentCapability, AgentInfo};
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::resources::Resources;
use meseta_protocol::status::{StatusReason, StatusSource, TaskState, TaskStatus};
use meseta_protocol::task::Task;
use meseta_protocol::{AgentId, FrameworkId, OfferId, TaskId};
use meseta_runtime::Pid;

use super::frameworks::forget;
use super::{Agent, State};
use crate::health::Health;

/// What was on an agent that is taken out.
#[derive(Debug, Default)]
pub struct Removed {
    /// Its tasks, as they were.
    pub tasks: Vec<Task>,
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
            killed_tasks: BTreeSet::new(),
            ping_chain: 0,
            entry: 0,
            health: Health::default(),
        }
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
        let replaced = self.agents.insert(id.clone(), agent);
        debug_assert!(replaced.is_none(), "an agent id is added once");
        for (framework_id, executor) in executors {
            self.add_executor(&framework_id, &id, executor);
        }
        for task in tasks {
            self.add_task(task);
        }
    }

    /// Records that a known agent has registered again, perhaps from another port.
    pub fn reconnect_agent(&mut self, id: &AgentId, pid: &Pid, now: Duration) {
        if let Some(agent) = self.agents.get_mut(id) {
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
        let agent = self.agents.get_mut(id)?;
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
        if let Some(agent) = self.agents.get_mut(id) {
            agent.total = info.resources.clone();
            agent.info = info;
            agent.version = version;
            agent.capabilities = capabilities;
        }
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
            removed.tasks.push(task.clone());
            let ended = if task.state.is_terminal() {
                false
            } else {
                task.state = state_of(&task);
                task.state.is_terminal()
            };
            if ended {
                // By the master's word, by which it is known when its agent comes back with it.
                let last = TaskStatus::new(task.task_id.clone(), task.state);
                task.statuses
                    .push(last.because(StatusSource::Master, StatusReason::AgentRemoved));
            }
            if keep_unreachable && !ended {
                self.park_task(&framework, task);
            } else {
                self.complete_taken(&framework, task);
            }
        }
        if let Some(agent) = self.agents.remove(id) {
            forget(&mut self.agents_by_pid, &agent.pid, id);
            removed.offers = agent.offers;
        }
        Some(removed)
    }
}
