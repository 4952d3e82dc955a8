//! Frameworks on this agent, their executors, and the tasks of each: where every task is, and what may happen next.
//!
//! Pure: tables, no processes and no clock. Source: agent.md §1, §4, §5, §7.
//!
//! ```text
//! executor:  REGISTERING ── subscribes ──> RUNNING ──> TERMINATING ──> TERMINATED
//!                 └────────── shut down, destroyed ──────^                ^
//!                 any ────────────────────── container gone ──────────────┘
//! task:      queued ── executor runs ──> launched ── an end ──> terminated ── acknowledged ──> completed
//!              └────────────── an end ───────────────────────────^
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::framework::{FrameworkCapability, FrameworkInfo};
use meseta_protocol::resources::Resources;
use meseta_protocol::status::{StatusReason, TaskState, TaskStatus};
use meseta_protocol::task::{Task, TaskInfo};
use meseta_protocol::{ContainerId, ExecutorId, FrameworkId, TaskId, UpdateId};
use meseta_runtime::Pid;

use crate::checkpoint::records::{ExecutorRecord, ProcessRecord, ProofRecord};
use crate::containerizer::core::Container;
use crate::recovery::RecoveredExecutor;

/// Completed tasks remembered per executor.
pub const MAX_COMPLETED_TASKS: usize = 200;
/// Completed frameworks remembered.
pub const MAX_COMPLETED_FRAMEWORKS: usize = 50;
/// Launches remembered per framework, so that none is carried out twice.
const MAX_LAUNCHES: usize = 10_000;

/// Where an executor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Launched; it has not subscribed yet.
    Registering,
    /// Subscribed.
    Running,
    /// Told to end, or being ended.
    Terminating,
    /// Nothing of its container is left.
    Terminated,
}

/// What the tasks of an executor are told when the agent ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Termination {
    /// Their state; frameworks that know no better are told TASK_LOST instead.
    pub state: TaskState,
    /// Why.
    pub reason: StatusReason,
    /// In words.
    pub message: String,
}

impl Termination {
    /// TASK_FAILED for this reason.
    pub fn failed(reason: StatusReason, message: impl Into<String>) -> Self {
        Self {
            state: TaskState::Failed,
            reason,
            message: message.into(),
        }
    }
}

/// What becomes of a task launched on an executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchVerdict {
    /// It waits until the executor subscribes.
    Queued,
    /// The executor gets it now.
    Send,
    /// The executor is ending.
    Refused,
}

/// What becomes of a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillVerdict {
    /// The task had not been given to the executor and never will be.
    Dequeued,
    /// The executor must do it.
    Tell,
    /// The executor is ending; its tasks' ends will be reported.
    Ignore,
}

/// What becomes of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateVerdict {
    /// It is news.
    Forward,
    /// The task has ended already, or is not with the executor yet: the executor is told that the update arrived,
    /// nobody else.
    Stale,
}

/// One executor.
#[derive(Debug)]
pub struct Executor {
    /// As its framework, or for a command the agent, describes it.
    pub info: ExecutorInfo,
    /// Whether the agent made it up for a task with a command.
    pub generated: bool,
    /// Its container's name.
    pub container_id: ContainerId,
    /// Its sandbox.
    pub directory: PathBuf,
    /// Its container's life.
    pub container: Container,
    /// By what it is known when it comes back.
    pub proof: Option<ProofRecord>,
    /// Its first process, once it runs.
    pub process: Option<ProcessRecord>,
    /// Where it stands.
    pub phase: Phase,
    /// Its PID, once it has subscribed.
    pub pid: Option<Pid>,
    /// Whether the link to it has broken, and it has not subscribed again.
    pub disconnected: bool,
    /// What its tasks are told when it is gone; set by the agent when it ends the executor for a reason.
    pub termination: Option<Termination>,
    /// Whether it ever got a task.
    pub was_used: bool,
    /// Tasks that wait for it to subscribe, in order.
    pub queued: Vec<TaskInfo>,
    /// Tasks it has.
    pub launched: BTreeMap<TaskId, Task>,
    /// As they were given to it, until it has spoken of them.
    given: BTreeMap<TaskId, TaskInfo>,
    /// Tasks that have ended and whose end the framework has not acknowledged.
    pub terminated: BTreeMap<TaskId, Task>,
    /// Tasks that are over, the oldest first.
    pub completed: VecDeque<Task>,
    /// Whether it had tasks that are over and not among the completed ones.
    forgets: bool,
}

impl Executor {
    /// An executor whose container is about to be launched.
    pub fn new(
        info: ExecutorInfo,
        generated: bool,
        container_id: ContainerId,
        directory: PathBuf,
    ) -> Self {
        Self {
            info,
            generated,
            container_id,
            directory,
            container: Container::default(),
            proof: None,
            process: None,
            phase: Phase::Registering,
            pid: None,
            disconnected: false,
            termination: None,
            was_used: false,
            queued: Vec::new(),
            launched: BTreeMap::new(),
            given: BTreeMap::new(),
            terminated: BTreeMap::new(),
            completed: VecDeque::new(),
            forgets: false,
        }
    }

    /// One that an earlier run of the agent has launched, and that has to come back. Tasks of which it has said nothing
    /// are given to it again, which changes nothing when it has them.
    pub fn recovered(found: RecoveredExecutor, directory: PathBuf, user: &str) -> Self {
        let record = found.record;
        let framework_id = record.framework_id;
        let mut executor = Self {
            container: Container::recovered(record.process.map(|process| process.process)),
            proof: record.proof,
            process: record.process,
            was_used: true,
            forgets: true,
            ..Self::new(
                record.info,
                record.generated,
                record.container_id,
                directory,
            )
        };
        for task in found.tasks {
            let info = task.record.info;
            if task.statuses.is_empty() {
                executor.queued.push(info);
                continue;
            }
            let mut known = Task::new(&info, &framework_id, user);
            for status in &task.statuses {
                note(&mut known, status);
            }
            if let Some(forwarded) = task.forwarded {
                known.status_update_state = Some(forwarded.state);
                known.status_update_uuid = forwarded.uuid;
            }
            let table = if known.state.is_terminal() {
                &mut executor.terminated
            } else {
                &mut executor.launched
            };
            table.insert(info.task_id, known);
        }
        executor
    }

    /// What is written down of it.
    pub fn record(&self, framework_id: &FrameworkId) -> ExecutorRecord {
        ExecutorRecord {
            framework_id: framework_id.clone(),
            info: self.info.clone(),
            generated: self.generated,
            container_id: self.container_id.clone(),
            proof: self.proof.clone(),
            process: self.process,
        }
    }

    /// The id part of its PID.
    pub fn process_id(&self) -> String {
        process_id(&self.container_id)
    }

    /// Its PID, if anybody is there to hear what is sent to it.
    pub fn listener(&self) -> Option<&Pid> {
        let hears = !self.disconnected && !self.container.has_ended();
        self.pid.as_ref().filter(|_| hears)
    }

    /// A task for it; [`Tables::launch`] notes whose it is.
    fn launch(&mut self, task: TaskInfo, framework: (&FrameworkId, &str)) -> LaunchVerdict {
        match self.phase {
            Phase::Registering => {
                self.queued.push(task);
                LaunchVerdict::Queued
            }
            Phase::Running => {
                self.hand_over(&task, framework);
                LaunchVerdict::Send
            }
            Phase::Terminating | Phase::Terminated => LaunchVerdict::Refused,
        }
    }

    fn hand_over(&mut self, task: &TaskInfo, (framework_id, user): (&FrameworkId, &str)) {
        self.was_used = true;
        self.given.insert(task.task_id.clone(), task.clone());
        self.launched
            .insert(task.task_id.clone(), Task::new(task, framework_id, user));
    }

    /// Tasks that it was given, of which it has said nothing and which are not among those that it `has`.
    pub fn silent(&self, has: &BTreeSet<TaskId>) -> Vec<TaskInfo> {
        let silent = self
            .launched
            .values()
            .filter(|task| task.state == TaskState::Staging && !has.contains(&task.task_id));
        let infos = silent.filter_map(|task| self.given.get(&task.task_id).cloned());
        infos.collect()
    }

    /// It has subscribed under `pid`: the tasks that waited for it, which count as launched from now on. None when
    /// it may not run any more.
    pub fn subscribe(
        &mut self,
        pid: &Pid,
        framework: (&FrameworkId, &str),
    ) -> Option<Vec<TaskInfo>> {
        match self.phase {
            Phase::Registering | Phase::Running => {
                self.phase = Phase::Running;
                self.pid = Some(pid.clone());
                self.disconnected = false;
                let tasks = std::mem::take(&mut self.queued);
                for task in &tasks {
                    self.hand_over(task, framework);
                }
                Some(tasks)
            }
            Phase::Terminating | Phase::Terminated => None,
        }
    }

    /// It is to end: whether that is news.
    pub fn shut_down(&mut self) -> bool {
        match self.phase {
            Phase::Registering | Phase::Running => {
                self.phase = Phase::Terminating;
                true
            }
            Phase::Terminating | Phase::Terminated => false,
        }
    }

    /// A task of it is to be killed. A task that waits is taken out by the update that reports its end.
    pub fn kill(&self, task_id: &TaskId) -> KillVerdict {
        match self.phase {
            Phase::Terminating | Phase::Terminated => KillVerdict::Ignore,
            Phase::Registering | Phase::Running => {
                if self.queued.iter().any(|task| task.task_id == *task_id) {
                    KillVerdict::Dequeued
                } else {
                    KillVerdict::Tell
                }
            }
        }
    }

    /// Whether it has nothing to do and never had: no task was given to it and none waits.
    pub fn is_pointless(&self) -> bool {
        !self.was_used && self.queued.is_empty()
    }

    /// Applies an update to the task it is about.
    pub fn update(
        &mut self,
        status: &TaskStatus,
        framework: (&FrameworkId, &str),
    ) -> UpdateVerdict {
        let task_id = &status.task_id;
        if let Some(at) = self.queued.iter().position(|task| task.task_id == *task_id) {
            if !status.state.is_terminal() {
                return UpdateVerdict::Stale;
            }
            let info = self.queued.remove(at);
            let mut task = Task::new(&info, framework.0, framework.1);
            note(&mut task, status);
            self.terminated.insert(task_id.clone(), task);
            return UpdateVerdict::Forward;
        }
        let Some(task) = self.launched.get_mut(task_id) else {
            return UpdateVerdict::Stale;
        };
        self.given.remove(task_id);
        note(task, status);
        if status.state.is_terminal()
            && let Some(task) = self.launched.remove(task_id)
        {
            self.terminated.insert(task_id.clone(), task);
        }
        UpdateVerdict::Forward
    }

    /// The framework has acknowledged the task's last update. Whether that completes a task.
    fn complete(&mut self, task_id: &TaskId) -> bool {
        let Some(task) = self.terminated.remove(task_id) else {
            return false;
        };
        self.completed.push_back(task);
        if self.completed.len() > MAX_COMPLETED_TASKS {
            self.completed.pop_front();
            self.forgets = true;
        }
        true
    }

    /// Records which update of a task was forwarded last.
    pub fn forwarded(&mut self, task_id: &TaskId, state: TaskState, uuid: Option<UpdateId>) {
        let launched = self.launched.get_mut(task_id);
        if let Some(task) = launched.or_else(|| self.terminated.get_mut(task_id)) {
            task.status_update_state = Some(state);
            task.status_update_uuid = uuid;
        }
    }

    /// Nothing of its container is left: the tasks whose ends have to be reported.
    pub fn ended(&mut self) -> Vec<TaskId> {
        self.phase = Phase::Terminated;
        let queued = self.queued.iter().map(|task| task.task_id.clone());
        queued.chain(self.launched.keys().cloned()).collect()
    }

    /// Whether it has this task, and the task is not completed.
    pub fn has(&self, task_id: &TaskId) -> bool {
        self.queued.iter().any(|task| task.task_id == *task_id)
            || self.launched.contains_key(task_id)
            || self.terminated.contains_key(task_id)
    }

    /// Whether it has or had this task.
    pub fn has_had(&self, task_id: &TaskId) -> bool {
        self.has(task_id) || self.completed.iter().any(|task| task.task_id == *task_id)
    }

    /// Whether an update that it repeats is one of a task that is over, so that the framework has dealt with all that it
    /// needs to hear. A task is written down before it is given to an executor: one that is not here, of an executor some of
    /// whose tasks are forgotten, was there and is over.
    pub fn is_past(&self, update: &TaskStatus) -> bool {
        let task_id = &update.task_id;
        let mut completed = self
            .completed
            .iter()
            .filter(|task| task.task_id == *task_id);
        let knows = |task: &Task| {
            let mut uuids = task.statuses.iter().map(|status| status.uuid);
            update.uuid.is_some() && uuids.any(|uuid| uuid == update.uuid)
        };
        completed.any(knows) || self.forgets && !self.has_had(task_id)
    }

    /// Its tasks that are not completed.
    fn tasks(&self) -> impl Iterator<Item = &TaskId> {
        let queued = self.queued.iter().map(|task| &task.task_id);
        queued
            .chain(self.launched.keys())
            .chain(self.terminated.keys())
    }

    /// Whether some task of it is not over.
    pub fn is_busy(&self) -> bool {
        !(self.queued.is_empty() && self.launched.is_empty() && self.terminated.is_empty())
    }

    /// What it and its tasks hold.
    pub fn resources(&self) -> Resources {
        if self.phase == Phase::Terminated {
            return Resources::new();
        }
        let mut held = self.info.resources.clone();
        for task in &self.queued {
            held += &task.resources;
        }
        for task in self.launched.values() {
            held += &task.resources;
        }
        held
    }
}

/// The id part of the PID of a container's executor.
pub fn process_id(container: &ContainerId) -> String {
    format!("executor-{container}")
}

/// Takes an update into a task's record; of a run of equal states only the last is kept, without data.
fn note(task: &mut Task, status: &TaskStatus) {
    task.state = status.state;
    let mut kept = status.clone();
    kept.data = None;
    match task.statuses.last_mut() {
        Some(last) if last.state == kept.state => *last = kept,
        _ => task.statuses.push(kept),
    }
}

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
    owners: BTreeMap<TaskId, ExecutorId>,
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

    fn remember(&mut self, executor: Executor, at_most: usize) {
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

/// Everything that runs or ran here.
#[derive(Debug, Default)]
pub struct Tables {
    /// Frameworks with something on the agent.
    pub frameworks: BTreeMap<FrameworkId, Framework>,
    /// Frameworks that had something on it, the oldest first.
    pub completed_frameworks: VecDeque<(FrameworkId, Framework)>,
    by_container: BTreeMap<String, (FrameworkId, ExecutorId)>,
    max_completed_executors: usize,
}

impl Tables {
    /// Empty tables.
    pub fn new(max_completed_executors: usize) -> Self {
        Self {
            max_completed_executors,
            ..Self::default()
        }
    }

    /// A framework.
    pub fn framework(&self, id: &FrameworkId) -> Option<&Framework> {
        self.frameworks.get(id)
    }

    /// An executor that is not over.
    pub fn executor(&self, framework: &FrameworkId, executor: &ExecutorId) -> Option<&Executor> {
        self.frameworks.get(framework)?.executors.get(executor)
    }

    /// An executor that is not over, to be changed.
    pub fn executor_mut(
        &mut self,
        framework: &FrameworkId,
        executor: &ExecutorId,
    ) -> Option<&mut Executor> {
        self.frameworks
            .get_mut(framework)?
            .executors
            .get_mut(executor)
    }

    /// An executor with its framework's id and user, to be changed.
    pub fn executor_with_user(
        &mut self,
        framework: &FrameworkId,
        executor: &ExecutorId,
    ) -> Option<(&mut Executor, String)> {
        let framework = self.frameworks.get_mut(framework)?;
        let user = framework.info.user.clone();
        Some((framework.executors.get_mut(executor)?, user))
    }

    /// Whose container this is; its executor may be a superseded one.
    pub fn owner(&self, container: &str) -> Option<&(FrameworkId, ExecutorId)> {
        self.by_container.get(container)
    }

    /// The executor of a container, superseded or not.
    pub fn executor_in(&mut self, container: &str) -> Option<&mut Executor> {
        let (framework_id, id) = self.by_container.get(container)?;
        let framework = self.frameworks.get_mut(framework_id)?;
        match framework.superseded.get_mut(container) {
            Some(executor) => Some(executor),
            None => framework.executors.get_mut(id),
        }
    }

    /// Whether a container's executor is superseded.
    pub fn is_superseded(&self, container: &str) -> bool {
        self.owner(container)
            .and_then(|(framework_id, _)| self.framework(framework_id))
            .is_some_and(|framework| framework.superseded.contains_key(container))
    }

    /// Frees the id of an executor that has nothing left but its container.
    pub fn supersede(&mut self, framework_id: &FrameworkId, executor_id: &ExecutorId) {
        let Some(framework) = self.frameworks.get_mut(framework_id) else {
            return;
        };
        if let Some(executor) = framework.executors.remove(executor_id) {
            debug_assert!(!executor.is_busy(), "no task is left behind");
            let container = executor.container_id.value.clone();
            framework.superseded.insert(container, executor);
        }
    }

    /// A task for an executor. None when that is not here.
    pub fn launch(
        &mut self,
        framework_id: &FrameworkId,
        executor_id: &ExecutorId,
        task: TaskInfo,
    ) -> Option<LaunchVerdict> {
        let framework = self.frameworks.get_mut(framework_id)?;
        let executor = framework.executors.get_mut(executor_id)?;
        let task_id = task.task_id.clone();
        let verdict = executor.launch(task, (framework_id, &framework.info.user));
        if verdict != LaunchVerdict::Refused {
            framework.owners.insert(task_id, executor_id.clone());
        }
        Some(verdict)
    }

    /// A framework has acknowledged the last update of a task. Whose task is completed by that.
    pub fn complete(&mut self, framework_id: &FrameworkId, task_id: &TaskId) -> Option<ExecutorId> {
        let framework = self.frameworks.get_mut(framework_id)?;
        let executor = framework
            .executors
            .get_mut(framework.owners.get(task_id)?)?;
        if executor.complete(task_id) {
            framework.owners.remove(task_id)
        } else {
            None
        }
    }

    /// Adds an executor to a framework that is known.
    pub fn add_executor(&mut self, framework_id: &FrameworkId, executor: Executor) {
        let Some(framework) = self.frameworks.get_mut(framework_id) else {
            debug_assert!(false, "an executor is added to a known framework");
            return;
        };
        let id = executor.info.executor_id.clone();
        self.by_container.insert(
            executor.container_id.value.clone(),
            (framework_id.clone(), id.clone()),
        );
        let replaced = framework.executors.insert(id, executor);
        debug_assert!(replaced.is_none(), "an executor is added once");
    }

    /// Forgets what is over: the executor once it is terminated and no task of it waits for an acknowledgement, or
    /// its framework is being ended, and those it has superseded once they are terminated; the framework once it has
    /// no executors. Whether the framework is gone.
    pub fn clean(&mut self, framework_id: &FrameworkId, executor_id: &ExecutorId) -> bool {
        let Some(framework) = self.frameworks.get_mut(framework_id) else {
            return false;
        };
        let over = framework
            .executors
            .get(executor_id)
            .is_some_and(|executor| {
                executor.phase == Phase::Terminated
                    && (framework.terminating || !executor.is_busy())
            });
        let gone = framework
            .superseded
            .iter()
            .find_map(|(container, executor)| {
                let gone = executor.phase == Phase::Terminated
                    && executor.info.executor_id == *executor_id;
                gone.then(|| container.clone())
            });
        // One ends at a time, and this is asked after each.
        if let Some(container) = gone
            && let Some(executor) = framework.superseded.remove(&container)
        {
            self.by_container.remove(&container);
            framework.remember(executor, self.max_completed_executors);
        }
        if over && let Some(executor) = framework.executors.remove(executor_id) {
            self.by_container.remove(&executor.container_id.value);
            for task_id in executor.tasks() {
                framework.owners.remove(task_id);
            }
            framework.remember(executor, self.max_completed_executors);
        }
        self.clean_framework(framework_id)
    }

    /// Forgets a framework that has no executors. Whether it is gone.
    pub fn clean_framework(&mut self, framework_id: &FrameworkId) -> bool {
        let idle = self
            .framework(framework_id)
            .is_some_and(|f| f.executors.is_empty() && f.superseded.is_empty());
        if idle && let Some(framework) = self.frameworks.remove(framework_id) {
            self.completed_frameworks
                .push_back((framework_id.clone(), framework));
            if self.completed_frameworks.len() > MAX_COMPLETED_FRAMEWORKS {
                self.completed_frameworks.pop_front();
            }
        }
        idle
    }

    /// A framework that is known from now on; one that was here before keeps its history.
    pub fn know_framework(&mut self, id: &FrameworkId, info: &FrameworkInfo) -> &mut Framework {
        let before = self
            .completed_frameworks
            .iter()
            .position(|(known, _)| known == id);
        let remembered = before.and_then(|at| self.completed_frameworks.remove(at));
        let framework = self.frameworks.entry(id.clone()).or_insert_with(|| {
            let mut framework = remembered.map_or_else(|| Framework::new(info.clone()), |(_, f)| f);
            framework.terminating = false;
            framework
        });
        if !framework.terminating {
            framework.info = info.clone();
            framework.info.id = Some(id.clone());
        }
        framework
    }

    /// All executors that are not over, superseded ones too.
    pub fn executors(&self) -> impl Iterator<Item = (&FrameworkId, &ExecutorId, &Executor)> {
        self.frameworks
            .iter()
            .flat_map(|(framework_id, framework)| {
                let superseded = framework.superseded.values();
                let executors = framework.executors.values().chain(superseded);
                executors.map(move |executor| (framework_id, &executor.info.executor_id, executor))
            })
    }

    /// The sandboxes of all executors that are not over.
    pub fn sandboxes(&self) -> BTreeSet<&Path> {
        let executors = self.executors();
        executors
            .map(|(_, _, executor)| executor.directory.as_path())
            .collect()
    }

    /// What all executors and tasks hold.
    pub fn resources(&self) -> Resources {
        let mut held = Resources::new();
        for (_, _, executor) in self.executors() {
            held += executor.resources();
        }
        held
    }

    /// What must always hold.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<(), String> {
        if self.by_container.len() != self.executors().count() {
            return Err("each executor has one container".to_owned());
        }
        for (framework_id, id, executor) in self.executors() {
            let owner = self.owner(&executor.container_id.value);
            if owner != Some(&(framework_id.clone(), id.clone())) {
                return Err(format!(
                    "container {} is not its executor's",
                    executor.container_id
                ));
            }
            if executor.phase == Phase::Running && !executor.queued.is_empty() {
                return Err(format!("executor {id} runs and tasks wait for it"));
            }
            if executor
                .launched
                .values()
                .any(|task| task.state.is_terminal())
                || executor
                    .terminated
                    .values()
                    .any(|task| !task.state.is_terminal())
            {
                return Err(format!("a task of executor {id} is in the wrong table"));
            }
        }
        for (framework_id, framework) in &self.frameworks {
            let tasks: BTreeMap<_, _> = framework
                .executors
                .iter()
                .flat_map(|(id, executor)| executor.tasks().map(move |task| (task, id)))
                .collect();
            if !framework.owners.iter().eq(tasks) {
                return Err(format!(
                    "the index of tasks of framework {framework_id} is wrong"
                ));
            }
            if framework.superseded.values().any(Executor::is_busy) {
                return Err(format!(
                    "a superseded executor of framework {framework_id} has tasks"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 4] = [
        Phase::Registering,
        Phase::Running,
        Phase::Terminating,
        Phase::Terminated,
    ];

    fn framework() -> (FrameworkId, &'static str) {
        ("f".into(), "u")
    }

    fn task(id: &str) -> TaskInfo {
        TaskInfo::new(id, "a", "cpus:1".parse().unwrap(), "true")
    }

    fn pid() -> Pid {
        "executor-c@127.0.0.1:5051".parse().unwrap()
    }

    fn executor(phase: Phase) -> Executor {
        let info = ExecutorInfo {
            executor_id: "e".into(),
            resources: "cpus:0.5".parse().unwrap(),
            ..ExecutorInfo::default()
        };
        let mut executor = Executor::new(info, false, ContainerId::top("c"), "/box".into());
        executor.phase = phase;
        executor
    }

    fn with_task(phase: Phase) -> Executor {
        let (id, user) = framework();
        let mut executor = executor(Phase::Running);
        executor.launch(task("t"), (&id, user));
        executor.phase = phase;
        executor
    }

    #[test]
    fn a_launch_waits_goes_or_is_refused() {
        let (id, user) = framework();
        let expected = [
            LaunchVerdict::Queued,
            LaunchVerdict::Send,
            LaunchVerdict::Refused,
            LaunchVerdict::Refused,
        ];
        for (phase, expected) in PHASES.into_iter().zip(expected) {
            assert_eq!(
                executor(phase).launch(task("t"), (&id, user)),
                expected,
                "{phase:?}"
            );
        }
    }

    #[test]
    fn a_subscription_hands_over_what_waits_unless_it_comes_too_late() {
        let (id, user) = framework();
        let mut registering = executor(Phase::Registering);
        registering.launch(task("t"), (&id, user));
        registering.launch(task("s"), (&id, user));
        let handed = registering.subscribe(&pid(), (&id, user)).unwrap();
        assert_eq!(
            handed
                .iter()
                .map(|t| t.task_id.as_str())
                .collect::<Vec<_>>(),
            ["t", "s"]
        );
        assert_eq!(
            (registering.phase, registering.launched.len()),
            (Phase::Running, 2)
        );
        assert_eq!(
            registering.subscribe(&pid(), (&id, user)),
            Some(vec![]),
            "again"
        );
        for phase in [Phase::Terminating, Phase::Terminated] {
            assert_eq!(executor(phase).subscribe(&pid(), (&id, user)), None);
        }
    }

    #[test]
    fn nothing_is_sent_to_one_that_is_gone() {
        use crate::containerizer::core::{Exit, Input};
        let (id, user) = framework();
        let mut living = executor(Phase::Registering);
        assert_eq!(living.listener(), None);
        living.subscribe(&pid(), (&id, user));
        assert_eq!(living.listener(), Some(&pid()));
        living.disconnected = true;
        assert_eq!(living.listener(), None);
        living.disconnected = false;
        living.container.step(Input::Ended(Exit {
            status: 0,
            complaint: None,
        }));
        assert_eq!(living.listener(), None);
    }

    #[test]
    fn only_a_living_executor_is_shut_down() {
        for (phase, news) in PHASES.into_iter().zip([true, true, false, false]) {
            let mut executor = executor(phase);
            assert_eq!(executor.shut_down(), news);
            assert_eq!(
                executor.phase,
                if news { Phase::Terminating } else { phase }
            );
        }
    }

    #[test]
    fn a_kill_is_answered_by_who_has_the_task() {
        let (id, user) = framework();
        let mut registering = executor(Phase::Registering);
        registering.launch(task("t"), (&id, user));
        assert_eq!(registering.kill(&"t".into()), KillVerdict::Dequeued);
        let expected = [
            KillVerdict::Tell,
            KillVerdict::Tell,
            KillVerdict::Ignore,
            KillVerdict::Ignore,
        ];
        for (phase, expected) in PHASES.into_iter().zip(expected) {
            assert_eq!(with_task(phase).kill(&"t".into()), expected, "{phase:?}");
        }
    }

    #[test]
    fn the_first_end_wins_in_every_phase() {
        let (id, user) = framework();
        for phase in PHASES {
            let mut executor = with_task(phase);
            let running = TaskStatus::new("t", TaskState::Running);
            assert_eq!(
                executor.update(&running, (&id, user)),
                UpdateVerdict::Forward
            );
            assert_eq!(
                executor.update(&running, (&id, user)),
                UpdateVerdict::Forward
            );
            assert_eq!(executor.launched[&TaskId::from("t")].statuses.len(), 1);
            let finished = TaskStatus::new("t", TaskState::Finished);
            assert_eq!(
                executor.update(&finished, (&id, user)),
                UpdateVerdict::Forward
            );
            for late in [TaskState::Failed, TaskState::Running] {
                let late = TaskStatus::new("t", late);
                assert_eq!(executor.update(&late, (&id, user)), UpdateVerdict::Stale);
            }
            assert!(executor.is_busy());
            executor.complete(&"t".into());
            assert!(
                !executor.is_busy() && executor.has_had(&"t".into()) && !executor.has(&"t".into())
            );
            assert_eq!(executor.update(&running, (&id, user)), UpdateVerdict::Stale);
        }
    }

    #[test]
    fn what_an_executor_repeats_of_a_task_that_is_over_is_past() {
        let (id, user) = framework();
        let update = |task: &str, state, uuid| TaskStatus {
            uuid: Some(UpdateId::from_bytes([uuid; 16])),
            ..TaskStatus::new(task, state)
        };
        let end = update("t", TaskState::Finished, 1);
        let mut executor = with_task(Phase::Running);
        assert!(!executor.is_past(&end), "it runs");
        executor.update(&end, (&id, user));
        assert!(
            !executor.is_past(&end),
            "the framework has not acknowledged it"
        );
        executor.complete(&"t".into());
        assert!(executor.is_past(&end));
        let made_up = update("nobody's", TaskState::Running, 2);
        assert!(!executor.is_past(&made_up), "it was never there");
        // Another task of that id has ends of its own.
        executor.launch(task("t"), (&id, user));
        assert!(executor.is_past(&end));
        assert!(!executor.is_past(&update("t", TaskState::Finished, 3)));
        executor.update(&update("t", TaskState::Finished, 3), (&id, user));
        executor.complete(&"t".into());
        // With so many after it, it is known only by not being there.
        for _ in 0..=MAX_COMPLETED_TASKS {
            executor.launch(task("s"), (&id, user));
            executor.update(&TaskStatus::new("s", TaskState::Failed), (&id, user));
            executor.complete(&"s".into());
        }
        assert!(!executor.has_had(&"t".into()) && executor.is_past(&end));
    }

    #[test]
    fn a_task_that_waits_can_only_end() {
        let (id, user) = framework();
        let mut executor = executor(Phase::Registering);
        executor.launch(task("t"), (&id, user));
        let running = TaskStatus::new("t", TaskState::Running);
        assert_eq!(executor.update(&running, (&id, user)), UpdateVerdict::Stale);
        let killed = TaskStatus::new("t", TaskState::Killed);
        assert_eq!(
            executor.update(&killed, (&id, user)),
            UpdateVerdict::Forward
        );
        assert!(executor.is_pointless() && executor.terminated.contains_key("t"));
    }

    #[test]
    fn an_end_leaves_the_tasks_that_have_to_be_reported() {
        let (id, user) = framework();
        for phase in PHASES {
            let mut executor = with_task(phase);
            executor.queued.push(task("q"));
            executor.update(&TaskStatus::new("t", TaskState::Finished), (&id, user));
            executor
                .launched
                .insert("s".into(), Task::new(&task("s"), &id, user));
            let expected: [TaskId; 2] = ["q".into(), "s".into()];
            assert_eq!(executor.ended(), expected);
            assert_eq!(
                (executor.phase, executor.resources()),
                (Phase::Terminated, Resources::new())
            );
        }
    }

    #[test]
    fn what_is_over_is_remembered_within_bounds() {
        let (id, user) = framework();
        let mut tables = Tables::new(1);
        for n in ["1", "2"] {
            tables.know_framework(&id, &FrameworkInfo::default());
            let mut one = executor(Phase::Running);
            one.container_id = ContainerId::top(n);
            tables.add_executor(&id, one);
            tables.launch(&id, &"e".into(), task("t"));
            tables.check().unwrap();
            assert!(!tables.clean(&id, &"e".into()));
            assert!(tables.owner(n).is_some());
            let one = tables.executor_mut(&id, &"e".into()).unwrap();
            one.ended();
            one.update(&TaskStatus::new("t", TaskState::Failed), (&id, user));
            assert!(
                !tables.clean(&id, &"e".into()),
                "the end is not acknowledged"
            );
            assert_eq!(tables.complete(&id, &"t".into()), Some("e".into()));
            tables.check().unwrap();
            assert!(tables.clean(&id, &"e".into()));
            assert!(tables.frameworks.is_empty() && tables.owner(n).is_none());
        }
        assert_eq!(tables.completed_frameworks.len(), 1);
        assert_eq!(
            tables.completed_frameworks[0].1.completed_executors.len(),
            1
        );
    }

    #[test]
    fn an_id_is_free_while_the_container_of_its_last_run_goes_down() {
        let (id, user) = framework();
        let mut tables = Tables::new(9);
        tables.know_framework(&id, &FrameworkInfo::default());
        for n in ["1", "2"] {
            let mut one = executor(Phase::Running);
            one.container_id = ContainerId::top(n);
            tables.add_executor(&id, one);
            tables.launch(&id, &"e".into(), task("t"));
            let owner = tables.framework(&id).unwrap().executor_of(&"t".into());
            assert_eq!(owner, Some(&"e".into()));
            if n == "1" {
                assert_eq!(tables.complete(&id, &"t".into()), None, "it runs");
                let one = tables.executor_mut(&id, &"e".into()).unwrap();
                one.update(&TaskStatus::new("t", TaskState::Failed), (&id, user));
                tables.complete(&id, &"t".into()).unwrap();
                tables.supersede(&id, &"e".into());
            }
            tables.check().unwrap();
        }
        assert!(tables.is_superseded("1") && !tables.is_superseded("2"));
        tables.executor_in("1").unwrap().ended();
        assert!(!tables.clean(&id, &"e".into()));
        assert_eq!((tables.owner("1"), tables.executors().count()), (None, 1));
        assert_eq!(
            tables.executor_in("2").unwrap().container_id,
            ContainerId::top("2")
        );
        tables.check().unwrap();
    }

    #[test]
    fn a_launch_is_carried_out_once_even_when_the_framework_was_away() {
        let (id, _) = framework();
        let mut tables = Tables::new(1);
        let launch = UpdateId::from_bytes([1; 16]);
        assert!(
            tables
                .know_framework(&id, &FrameworkInfo::default())
                .is_news(launch)
        );
        tables.clean_framework(&id);
        let framework = tables.know_framework(&id, &FrameworkInfo::default());
        assert!(!framework.is_news(launch));
        assert!(framework.is_news(UpdateId::default()) && framework.is_news(UpdateId::default()));
    }

    #[test]
    fn frameworks_hear_states_they_know() {
        let plain = Framework::new(FrameworkInfo::default());
        assert_eq!(plain.state_for(TaskState::Dropped), TaskState::Lost);
        let aware = Framework::new(FrameworkInfo::new("u", "n"));
        assert_eq!(aware.state_for(TaskState::Dropped), TaskState::Dropped);
    }
}
