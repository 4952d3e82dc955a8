//! One executor with its tasks.
//!
//! Pure: a table, no process and no clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::resources::Resources;
use meseta_protocol::status::{StatusSource, TaskState, TaskStatus};
use meseta_protocol::task::{Task, TaskInfo};
use meseta_protocol::{ContainerId, FrameworkId, TaskId, UpdateId};
use meseta_runtime::Pid;
use meseta_runtime::planted::mistake;

use super::unit::units;
use super::{
    KillVerdict, LaunchVerdict, MAX_COMPLETED_TASKS, Past, Phase, Place, Said, Termination, Unit,
    UpdateVerdict,
};
use crate::checkpoint::records::{ExecutorRecord, ProcessRecord, ProofRecord};
use crate::containerizer::core::Container;
use crate::recovery::RecoveredExecutor;

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
    /// Whether it has subscribed over HTTP, where a broken connection says nothing of its client.
    pub is_over_http: bool,
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
    /// Where tasks that were launched in a group stand in it, until it has spoken of them.
    places: BTreeMap<TaskId, Place>,
    /// Tasks that have ended and whose end the framework has not acknowledged.
    pub terminated: BTreeMap<TaskId, Task>,
    /// Tasks that are over, the oldest first.
    pub completed: VecDeque<Task>,
    /// What it has said of tasks that are not over.
    said: BTreeMap<TaskId, Said>,
    /// What it has said of tasks that are.
    past: Past,
    /// Whether it had tasks that are over and of which that is not known: an earlier version did not write it down.
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
            is_over_http: false,
            termination: None,
            was_used: false,
            queued: Vec::new(),
            launched: BTreeMap::new(),
            given: BTreeMap::new(),
            places: BTreeMap::new(),
            terminated: BTreeMap::new(),
            completed: VecDeque::new(),
            said: BTreeMap::new(),
            past: Past::default(),
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
            forgets: !record.remembers,
            ..Self::new(
                record.info,
                record.generated,
                record.container_id,
                directory,
            )
        };
        for (task_id, said) in found.past {
            if !mistake("agent takes for news what is over") {
                executor.past.add(task_id, said);
            }
        }
        for task in found.tasks {
            let info = task.record.info;
            let said = task.statuses.iter().filter_map(|status| status.uuid);
            let said: Said = said.collect();
            if !said.is_empty() {
                executor.said.insert(info.task_id.clone(), said);
            }
            if task.statuses.is_empty() {
                if let Some(number) = task.record.place {
                    let launch = task.record.launch_uuid;
                    let place = Place { launch, number };
                    executor.places.insert(info.task_id.clone(), place);
                }
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
            remembers: !self.forgets,
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

    /// What is launched on it; [`super::Tables::launch`] notes whose it is.
    pub(super) fn launch(&mut self, unit: &Unit, framework: (&FrameworkId, &str)) -> LaunchVerdict {
        let verdict = match self.phase {
            Phase::Registering => {
                self.queued.extend(unit.tasks().iter().cloned());
                LaunchVerdict::Queued
            }
            Phase::Running => {
                for task in unit.tasks() {
                    self.hand_over(task, framework);
                }
                LaunchVerdict::Send
            }
            Phase::Terminating | Phase::Terminated => return LaunchVerdict::Refused,
        };
        for (task, place) in unit.places() {
            if let Some(place) = place {
                self.places.insert(task.task_id.clone(), place);
            }
        }
        verdict
    }

    /// Puts tasks together that were launched together.
    pub fn units(&self, tasks: Vec<TaskInfo>) -> Vec<Unit> {
        units(tasks, &self.places)
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
                self.is_over_http = false;
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

    /// A task of it is to be killed. A task that waits is taken out by the update that reports its end, and with it those
    /// of its group.
    pub fn kill(&self, task_id: &TaskId) -> KillVerdict {
        match self.phase {
            Phase::Terminating | Phase::Terminated => KillVerdict::Ignore,
            Phase::Registering | Phase::Running => {
                if !self.queued.iter().any(|task| task.task_id == *task_id) {
                    return KillVerdict::Tell;
                }
                let launch_of = |id| self.places.get(id).map(|place| place.launch);
                let Some(launch) = launch_of(task_id) else {
                    return KillVerdict::Dequeued;
                };
                if mistake("agent kills one of a waiting group alone") {
                    return KillVerdict::Dequeued;
                }
                let waiting = self.queued.iter().map(|task| &task.task_id);
                let group = waiting.filter(|id| launch_of(id) == Some(launch));
                KillVerdict::GroupDequeued(group.cloned().collect())
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
        if let Some(uuid) = status.uuid
            && status.source == Some(StatusSource::Executor)
        {
            self.hear(task_id, uuid);
        }
        if let Some(at) = self.queued.iter().position(|task| task.task_id == *task_id) {
            if !status.state.is_terminal() {
                return UpdateVerdict::Stale;
            }
            let info = self.queued.remove(at);
            self.places.remove(task_id);
            let mut task = Task::new(&info, framework.0, framework.1);
            note(&mut task, status);
            self.terminated.insert(task_id.clone(), task);
            return UpdateVerdict::Forward;
        }
        let Some(task) = self.launched.get_mut(task_id) else {
            return UpdateVerdict::Stale;
        };
        self.given.remove(task_id);
        self.places.remove(task_id);
        note(task, status);
        if status.state.is_terminal()
            && let Some(task) = self.launched.remove(task_id)
        {
            self.terminated.insert(task_id.clone(), task);
        }
        UpdateVerdict::Forward
    }

    /// Notes that it has said something of a task.
    fn hear(&mut self, task_id: &TaskId, uuid: UpdateId) {
        if self.has(task_id) {
            let said = self.said.entry(task_id.clone()).or_default();
            said.insert(uuid);
        } else {
            self.past.hear(task_id, uuid);
        }
    }

    /// The framework has acknowledged the task's last update. Whether that completes a task.
    pub(super) fn complete(&mut self, task_id: &TaskId) -> bool {
        let Some(task) = self.terminated.remove(task_id) else {
            return false;
        };
        self.completed.push_back(task);
        if self.completed.len() > MAX_COMPLETED_TASKS {
            self.completed.pop_front();
        }
        true
    }

    /// A task of it is over: what it has said of that is no news from now on. The id of a task that is forgotten for it.
    pub fn is_over(&mut self, task_id: &TaskId) -> Option<TaskId> {
        let said = self.said.remove(task_id).unwrap_or_default();
        self.past.add(task_id.clone(), said)
    }

    /// What it has said of the last task of this id that is over.
    pub fn said_before(&self, task_id: &TaskId) -> Vec<UpdateId> {
        self.past.of(task_id)
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
        self.has(task_id)
            || self.past.has(task_id)
            || self.completed.iter().any(|task| task.task_id == *task_id)
    }

    /// Whether an update is one that it repeats of a task that is over, so that the framework has dealt with all that it
    /// needs to hear. Where that was not written down, a task that is not here counts as one that was: each is written down
    /// before it is given to an executor.
    pub fn is_past(&self, update: &TaskStatus) -> bool {
        let task_id = &update.task_id;
        let is_known = |uuid: UpdateId| self.past.knows(task_id, &uuid);
        update.uuid.is_some_and(is_known) || self.forgets && !self.has_had(task_id)
    }

    /// It repeats an update of a task that is over, which is remembered in case that the task's id is used again.
    pub fn repeats(&mut self, update: &TaskStatus) {
        if let Some(uuid) = update.uuid
            && self.forgets
            && !self.has_had(&update.task_id)
        {
            self.past
                .add(update.task_id.clone(), Said::from_iter([uuid]));
        }
    }

    /// Its tasks that are not completed.
    pub(super) fn tasks(&self) -> impl Iterator<Item = &TaskId> {
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
