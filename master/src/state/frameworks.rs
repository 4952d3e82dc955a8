//! Frameworks and their tasks in the master's tables.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::resources::Resources;
use meseta_protocol::status::{StatusSource, TaskState, TaskStatus};
use meseta_protocol::task::Task;
use meseta_protocol::{AgentId, ExecutorId, FrameworkId, TaskId, UpdateId};
use meseta_runtime::Pid;

use super::changes::ended_with_its_framework;
use super::{Change, Framework, Standing, State};

/// What an ended framework leaves.
#[derive(Debug)]
pub struct EndedFramework {
    /// Its scheduler, unless it was known from agents only.
    pub scheduler: Option<Pid>,
    /// What its tasks and executors held, by agent.
    pub freed: Vec<(AgentId, Resources)>,
}

/// Statuses remembered of one task: more come only from a task that goes to and fro between states.
const MAX_STATUSES: usize = 100;

impl Framework {
    /// A framework that subscribes at `pid`, or one known from agents only when there is none.
    pub fn new(info: FrameworkInfo, pid: Option<Pid>, now: Duration) -> Self {
        let standing = match pid {
            Some(_) => Standing::Active,
            None => Standing::Recovered,
        };
        Self {
            info,
            pid,
            standing,
            registered: now,
            reregistered: None,
            unregistered: None,
            subscription: 0,
            suppressed_roles: BTreeSet::new(),
            tasks: std::collections::BTreeMap::new(),
            executors: std::collections::BTreeMap::new(),
            offers: BTreeSet::new(),
            unreachable_tasks: VecDeque::new(),
            completed_tasks: VecDeque::new(),
        }
    }

    /// Whether the master itself has declared this task ended on this agent, and its framework has forgotten it.
    pub fn was_declared_ended(&self, task_id: &TaskId, agent_id: &AgentId) -> bool {
        self.completed_tasks.iter().any(|task| {
            let last = task.statuses.last();
            let source = last.and_then(|status| status.source);
            task.task_id == *task_id
                && task.agent_id == *agent_id
                && source == Some(StatusSource::Master)
        })
    }

    /// Whether its scheduler can be written to.
    pub fn is_connected(&self) -> bool {
        matches!(self.standing, Standing::Active | Standing::Inactive)
    }
}

/// Takes a PID out of an index, unless it has become another's.
pub(super) fn forget<I: PartialEq>(index: &mut HashMap<Pid, I>, pid: &Pid, id: &I) {
    if index.get(pid) == Some(id) {
        index.remove(pid);
    }
}

fn remember(list: &mut VecDeque<Arc<Task>>, task: Arc<Task>, limit: usize) {
    list.push_back(task);
    while list.len() > limit {
        list.pop_front();
    }
}

impl State {
    /// Adds a framework. The id in its info must be set and free.
    pub fn add_framework(&mut self, framework: Framework) {
        let Some(id) = framework.info.id.clone() else {
            debug_assert!(false, "a framework is added with its id");
            return;
        };
        if let Some(pid) = &framework.pid {
            self.frameworks_by_pid.insert(pid.clone(), id.clone());
        }
        self.noted.note(|| Change::FrameworkAdded(id.clone()));
        let replaced = self.frameworks.insert(id, Arc::new(framework));
        debug_assert!(replaced.is_none(), "a framework id is added once");
    }

    /// Gives a framework a new scheduler and makes it active; returns the PID it had.
    pub fn connect_framework(&mut self, id: &FrameworkId, pid: &Pid, now: Duration) -> Option<Pid> {
        let framework = self.frameworks.get_mut(id).map(Arc::make_mut)?;
        let first = framework.standing == Standing::Recovered;
        framework.standing = Standing::Active;
        framework.subscription += 1;
        if first {
            framework.registered = now;
        } else {
            framework.reregistered = Some(now);
        }
        let old = framework.pid.replace(pid.clone());
        if let Some(old) = &old {
            forget(&mut self.frameworks_by_pid, old, id);
        }
        self.frameworks_by_pid.insert(pid.clone(), id.clone());
        self.noted.note(|| Change::FrameworkUpdated(id.clone()));
        old
    }

    /// Replaces what a framework said of itself.
    pub fn update_framework(&mut self, id: &FrameworkId, info: FrameworkInfo) {
        if let Some(framework) = self.frameworks.get_mut(id).map(Arc::make_mut) {
            framework.info = info;
            self.noted.note(|| Change::FrameworkUpdated(id.clone()));
        }
    }

    /// Changes how a framework stands.
    pub fn set_standing(&mut self, id: &FrameworkId, standing: Standing) {
        if let Some(framework) = self.frameworks.get_mut(id).map(Arc::make_mut) {
            framework.standing = standing;
            self.noted.note(|| Change::FrameworkUpdated(id.clone()));
        }
    }

    /// Remembers the roles a framework wants no offers for.
    pub fn suppress(
        &mut self,
        id: &FrameworkId,
        change: impl FnOnce(&mut BTreeSet<meseta_protocol::Role>),
    ) {
        if let Some(framework) = self.frameworks.get_mut(id).map(Arc::make_mut) {
            change(&mut framework.suppressed_roles);
        }
    }

    /// Ends a framework: its tasks become KILLED, its executors and offers go. Returns its scheduler and what it held
    /// on each agent. It must hold no offers any more.
    pub fn remove_framework(&mut self, id: &FrameworkId, now: Duration) -> Option<EndedFramework> {
        let mut framework = Arc::unwrap_or_clone(self.frameworks.remove(id)?);
        debug_assert!(framework.offers.is_empty(), "offers are taken back first");
        if let Some(pid) = &framework.pid {
            forget(&mut self.frameworks_by_pid, pid, id);
        }
        let mut freed = Vec::new();
        for (agent_id, agent) in &mut self.agents {
            if !agent.knows(id) {
                continue;
            }
            let agent = Arc::make_mut(agent);
            if let Some(used) = agent.used.remove(id) {
                freed.push((agent_id.clone(), used));
            }
            agent.tasks.remove(id);
            agent.executors.remove(id);
            agent.unconfirmed.retain(|(framework, _)| framework != id);
            agent.killed_tasks.retain(|(framework, _)| framework != id);
            agent.lingering.retain(|(framework, _), _| framework != id);
        }
        framework.executors.clear();
        let limit = self.limits.completed_tasks;
        let ended: Vec<Arc<Task>> = std::mem::take(&mut framework.tasks)
            .into_values()
            .chain(std::mem::take(&mut framework.unreachable_tasks))
            .collect();
        for mut task in ended {
            if !task.state.is_terminal() {
                let task = Arc::make_mut(&mut task);
                task.state = TaskState::Killed;
                let mut status = ended_with_its_framework(task);
                status.timestamp = Some(now.as_secs_f64());
                self.noted.updated(id, &status, task.state);
                task.statuses.push(status);
            }
            remember(&mut framework.completed_tasks, task, limit);
        }
        let scheduler = framework.pid.clone();
        framework.standing = Standing::Disconnected;
        framework.unregistered = Some(now);
        self.noted
            .note(|| Change::FrameworkRemoved(Box::new(framework.info.clone())));
        self.completed_frameworks.push_back(Arc::new(framework));
        while self.completed_frameworks.len() > self.limits.completed_frameworks {
            self.completed_frameworks.pop_front();
        }
        Some(EndedFramework { scheduler, freed })
    }

    /// Adds a task to its framework and agent; its resources count as used unless it is terminal.
    pub fn add_task(&mut self, task: Task) {
        let (framework_id, agent_id) = (task.framework_id.clone(), task.agent_id.clone());
        if let Some(agent) = self.agents.get_mut(&agent_id).map(Arc::make_mut) {
            let tasks = agent.tasks.entry(framework_id.clone()).or_default();
            tasks.insert(task.task_id.clone());
            if !task.state.is_terminal() {
                agent.charge(&framework_id, &task.resources);
            }
        }
        if let Some(framework) = self.frameworks.get_mut(&framework_id).map(Arc::make_mut) {
            self.noted
                .note(|| Change::TaskAdded(Box::new(task.clone())));
            framework.tasks.insert(task.task_id.clone(), Arc::new(task));
        }
    }

    /// Adds an executor; its resources count as used.
    pub fn add_executor(
        &mut self,
        framework_id: &FrameworkId,
        agent_id: &AgentId,
        executor: ExecutorInfo,
    ) {
        if let Some(agent) = self.agents.get_mut(agent_id).map(Arc::make_mut) {
            let executors = agent.executors.entry(framework_id.clone()).or_default();
            if executors.insert(executor.executor_id.clone()) {
                agent.charge(framework_id, &executor.resources);
            }
        }
        if let Some(framework) = self.frameworks.get_mut(framework_id).map(Arc::make_mut) {
            let executors = framework.executors.entry(agent_id.clone()).or_default();
            executors
                .entry(executor.executor_id.clone())
                .or_insert_with(|| Arc::new(executor));
        }
    }

    /// Removes an executor and returns the resources it held.
    pub fn remove_executor(
        &mut self,
        framework_id: &FrameworkId,
        agent_id: &AgentId,
        executor_id: &ExecutorId,
    ) -> Option<Resources> {
        let framework = self.frameworks.get_mut(framework_id).map(Arc::make_mut)?;
        let executors = framework.executors.get_mut(agent_id)?;
        let executor = executors.remove(executor_id)?;
        if executors.is_empty() {
            framework.executors.remove(agent_id);
        }
        if let Some(agent) = self.agents.get_mut(agent_id).map(Arc::make_mut) {
            if let Some(executors) = agent.executors.get_mut(framework_id) {
                executors.remove(executor_id);
                if executors.is_empty() {
                    agent.executors.remove(framework_id);
                }
            }
            let key = (framework_id.clone(), executor_id.clone());
            agent.unconfirmed.remove(&key);
            agent.free(framework_id, &executor.resources);
        }
        Some(executor.resources.clone())
    }

    /// Tasks of an executor that have not ended, as far as the master knows.
    pub fn live_tasks_of(
        &self,
        framework_id: &FrameworkId,
        agent_id: &AgentId,
        executor_id: &ExecutorId,
    ) -> impl Iterator<Item = &TaskId> {
        let of_agent = self.agents.get(agent_id);
        let all = of_agent.and_then(|agent| agent.tasks.get(framework_id));
        all.into_iter().flatten().filter(move |id| {
            self.task(framework_id, id).is_some_and(|task| {
                !task.state.is_terminal() && task.executor_id.as_ref() == Some(executor_id)
            })
        })
    }

    /// Notes of which executors the agent has yet to say whether they came.
    pub fn set_unconfirmed(
        &mut self,
        agent_id: &AgentId,
        unconfirmed: BTreeSet<(FrameworkId, ExecutorId)>,
    ) {
        let agent = self.agents.get_mut(agent_id);
        if let Some(agent) = agent.filter(|agent| agent.unconfirmed != unconfirmed) {
            Arc::make_mut(agent).unconfirmed = unconfirmed;
        }
    }

    /// An update of a task says of an unconfirmed executor whether it `is_there`: if not, and unless another task may still
    /// bring it, it is removed. Returns the resources that are freed.
    pub fn settle_executor(
        &mut self,
        framework_id: &FrameworkId,
        agent_id: &AgentId,
        task_id: &TaskId,
        is_there: bool,
    ) -> Option<Resources> {
        let agent = self.agents.get(agent_id)?;
        if agent.unconfirmed.is_empty() {
            return None;
        }
        let task = self.frameworks.get(framework_id)?.tasks.get(task_id)?;
        let key = (framework_id.clone(), task.executor_id.clone()?);
        if !agent.unconfirmed.contains(&key) {
            return None;
        }
        if is_there {
            let agent = self.agents.get_mut(agent_id).map(Arc::make_mut)?;
            agent.unconfirmed.remove(&key);
            return None;
        }
        let mut live = self.live_tasks_of(framework_id, agent_id, &key.1);
        if live.next().is_some() {
            return None;
        }
        drop(live);
        self.remove_executor(framework_id, agent_id, &key.1)
    }

    /// Records an update of a task. The task never leaves a terminal state. Returns the resources that are freed,
    /// when this is its first terminal state.
    pub fn update_task(
        &mut self,
        framework_id: &FrameworkId,
        task_id: &TaskId,
        latest: TaskState,
        status: &TaskStatus,
    ) -> Option<Resources> {
        let framework = self.frameworks.get_mut(framework_id).map(Arc::make_mut)?;
        let task = framework.tasks.get_mut(task_id).map(Arc::make_mut)?;
        let (before, was_terminal) = (task.state, task.state.is_terminal());
        if !was_terminal {
            task.state = latest;
        }
        let mut kept = status.clone();
        kept.data = None;
        if task.state != before || task.statuses.last() != Some(&kept) {
            self.noted.updated(framework_id, &kept, task.state);
        }
        match task.statuses.last_mut() {
            Some(last) if last.state == kept.state => *last = kept,
            _ => task.statuses.push(kept),
        }
        if task.statuses.len() > MAX_STATUSES {
            // The first stays: it tells when the task began.
            task.statuses.remove(1);
        }
        if was_terminal || !latest.is_terminal() {
            return None;
        }
        let (agent_id, resources) = (task.agent_id.clone(), task.resources.clone());
        if let Some(agent) = self.agents.get_mut(&agent_id).map(Arc::make_mut) {
            agent.free(framework_id, &resources);
        }
        Some(resources)
    }

    /// Remembers which update of a task was forwarded to its framework last.
    pub fn forwarded(&mut self, framework_id: &FrameworkId, task_id: &TaskId, status: &TaskStatus) {
        let framework = self.frameworks.get_mut(framework_id).map(Arc::make_mut);
        if let Some(task) = framework.and_then(|f| f.tasks.get_mut(task_id).map(Arc::make_mut)) {
            task.status_update_state = Some(status.state);
            task.status_update_uuid = status.uuid;
        }
    }

    /// Takes a framework's acknowledgement of an update from an agent. After that of the last one the task is
    /// completed.
    pub fn acknowledge(
        &mut self,
        framework_id: &FrameworkId,
        agent_id: &AgentId,
        task_id: &TaskId,
        uuid: UpdateId,
    ) {
        let Some(task) = self.task_on(framework_id, task_id, agent_id) else {
            return;
        };
        let last = task.status_update_uuid == Some(uuid)
            && task.status_update_state.is_some_and(TaskState::is_terminal);
        if last {
            self.complete_task(framework_id, task_id);
        }
    }

    /// Moves a task to the completed ones.
    pub fn complete_task(&mut self, framework_id: &FrameworkId, task_id: &TaskId) {
        if let Some(task) = self.take_task(framework_id, task_id) {
            self.complete_taken(framework_id, task);
        }
    }

    /// Puts a task that was taken out among the completed ones.
    pub(super) fn complete_taken(&mut self, framework_id: &FrameworkId, task: Arc<Task>) {
        let limit = self.limits.completed_tasks;
        if let Some(framework) = self.frameworks.get_mut(framework_id).map(Arc::make_mut) {
            remember(&mut framework.completed_tasks, task, limit);
        }
    }

    /// Moves a task to the unreachable ones.
    pub(super) fn park_task(&mut self, framework_id: &FrameworkId, task: Arc<Task>) {
        let limit = self.limits.unreachable_tasks;
        if let Some(framework) = self.frameworks.get_mut(framework_id).map(Arc::make_mut) {
            remember(&mut framework.unreachable_tasks, task, limit);
        }
    }

    /// Forgets that a task of an agent was completed, because it turns out to live.
    pub fn revive_task(
        &mut self,
        framework_id: &FrameworkId,
        task_id: &TaskId,
        agent_id: &AgentId,
    ) {
        if let Some(framework) = self.frameworks.get_mut(framework_id).map(Arc::make_mut) {
            framework
                .completed_tasks
                .retain(|task| task.task_id != *task_id || task.agent_id != *agent_id);
        }
    }

    /// Takes the unreachable tasks of an agent out of one framework's list, the oldest first.
    pub(super) fn take_unreachable_of(
        &mut self,
        framework_id: &FrameworkId,
        agent_id: &AgentId,
    ) -> Vec<Arc<Task>> {
        let Some(framework) = self.frameworks.get_mut(framework_id).map(Arc::make_mut) else {
            return Vec::new();
        };
        let (taken, kept): (Vec<Arc<Task>>, Vec<Arc<Task>>) =
            std::mem::take(&mut framework.unreachable_tasks)
                .into_iter()
                .partition(|task| task.agent_id == *agent_id);
        framework.unreachable_tasks = kept.into();
        taken
    }

    /// Takes the unreachable tasks of an agent back out: those it reports become ordinary ones again, the others
    /// are forgotten.
    pub fn take_unreachable(&mut self, agent_id: &AgentId) {
        for framework in self.frameworks.values_mut() {
            let mut unreachable = framework.unreachable_tasks.iter();
            if unreachable.any(|task| task.agent_id == *agent_id) {
                Arc::make_mut(framework)
                    .unreachable_tasks
                    .retain(|task| task.agent_id != *agent_id);
            }
        }
    }

    /// Takes a task out of its framework and agent; what it still held there is freed.
    pub(super) fn take_task(
        &mut self,
        framework_id: &FrameworkId,
        task_id: &TaskId,
    ) -> Option<Arc<Task>> {
        let framework = self.frameworks.get_mut(framework_id)?;
        let task = Arc::make_mut(framework).tasks.remove(task_id)?;
        if let Some(agent) = self.agents.get_mut(&task.agent_id).map(Arc::make_mut) {
            if let Some(tasks) = agent.tasks.get_mut(framework_id) {
                tasks.remove(task_id);
                if tasks.is_empty() {
                    agent.tasks.remove(framework_id);
                }
            }
            agent
                .killed_tasks
                .remove(&(framework_id.clone(), task_id.clone()));
            if !task.state.is_terminal() {
                agent.free(framework_id, &task.resources);
            }
        }
        Some(task)
    }
}
