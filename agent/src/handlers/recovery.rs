//! The start of an agent: reading what an earlier run has written down, taking its executors over, and waiting for them;
//! and writing down what the next run needs. Source: agent.md §8, §9.
//!
//! The plan is [`crate::recovery`]'s. Everything that is written goes through [`Agent::keep`]: effects after it wait until
//! it is durable, while messages go on being handled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meseta_protocol::messages::executor::SubscribeExecutor;
use meseta_protocol::status::{StatusReason, StatusUpdate, TaskState};
use meseta_protocol::{ExecutorId, FrameworkId, UpdateId};
use meseta_runtime::detector::{self, detect};
use meseta_runtime::planted::mistake;
use meseta_runtime::transport::Guest;
use meseta_runtime::{Context, Gate, Pid, Receive as _};
use tracing::{error, info, warn};

use crate::agent::Agent;
use crate::checkpoint::records::{
    AgentRecord, FrameworkRecord, ProcessRecord, Record, RecordError, TaskRecord, UpdateRecord,
    executor_key, framework_key, task_key, tasks_of, update_key, updates_of, updates_of_framework,
};
use crate::checkpoint::{Change, Commit, Load, Loaded};
use crate::containerizer::core::{Exit, Input, UNREPORTED};
use crate::containerizer::process_tree::Identity;
use crate::containerizer::{Adopt, Exits};
use crate::environment::duration_text;
use crate::executors::{Executor, Framework, Phase, Termination, Unit};
use crate::faults::Point;
use crate::paths;
use crate::recovery::{Here, Mode, Plan, Recovered, plan};
use crate::registration::Registration;
use crate::status_updates::{Key, Stream};

/// Executors that an agent waits for after its restart.
#[derive(Debug, Default)]
pub(crate) struct Recovering {
    /// Their containers.
    awaited: BTreeSet<String>,
    /// What comes while containers are swept, which may take a minute; none afterwards.
    early: Option<Early>,
}

/// What has to wait for the end of the sweep. Only that waits: HTTP is answered meanwhile.
#[derive(Debug, Default)]
struct Early {
    /// The last word of each executor that is back.
    subscriptions: BTreeMap<Pid, SubscribeExecutor>,
    /// Why the agent is to leave, if it is.
    leaves: Option<String>,
}

/// Reading.
impl Agent {
    /// Reads what was written down and goes on from there.
    pub(crate) fn recover(&mut self, cx: &mut Context<'_, Self>) {
        self.recovering = Some(Recovering {
            early: Some(Early::default()),
            ..Recovering::default()
        });
        let work_dir = self.config.work_dir.clone();
        cx.run(
            Load { work_dir },
            Gate::HoldUser,
            |agent, cx, loaded| match loaded {
                Ok(loaded) => agent.loaded(cx, loaded),
                Err(error) => agent.abandon(cx, &error.to_string()),
            },
        );
    }

    fn loaded(&mut self, cx: &mut Context<'_, Self>, loaded: Loaded) {
        Point::Loaded.reach();
        let here = Here {
            info: &self.info,
            boot_id: &self.host.boot_id,
            strict: self.config.strict,
            policy: self.config.reconfiguration_policy,
            leeway: &self.config.leeway,
            work_dir: &self.config.work_dir.display().to_string(),
        };
        let recovered = match plan(loaded, &here) {
            Plan::Stop(why) => {
                self.abandon(cx, &why);
                return;
            }
            Plan::Go(recovered) => *recovered,
        };
        for complaint in &recovered.complaints {
            error!(complaint, "passed over in the checkpoint");
            cx.metrics().count("slave/recovery_errors");
        }
        self.adopt(cx, recovered);
    }

    /// Takes over what the plan keeps, and has everything else ended.
    fn adopt(&mut self, cx: &mut Context<'_, Self>, recovered: Recovered) {
        if let Some(info) = &recovered.info
            && !mistake("agent comes back as another")
        {
            let id = info.id.clone().unwrap_or_default();
            info!(agent = %id, executors = recovered.executors.len(), rebooted = recovered.rebooted, "recovering");
            self.registration =
                Registration::known(self.config.registration_backoff_factor, id.clone());
            self.info.id = Some(id);
            for notice in &recovered.in_force.notices {
                warn!("{notice}");
            }
            self.info.resources = recovered.in_force.resources;
        }
        self.last_number = recovered.last_number;
        self.keep(cx, recovered.forget);
        for info in recovered.frameworks {
            let id = info.id.clone().unwrap_or_default();
            self.tables.frameworks.insert(id, Framework::new(info));
        }
        let mut sweep = self.sweep();
        for executor in recovered.executors {
            let Some((container, sandbox)) = self.adopt_executor(cx, executor) else {
                continue;
            };
            if !recovered.rebooted && !mistake("agent ends what it should take over") {
                sweep.keep.insert(container, sandbox);
            }
        }
        for stream in recovered.streams {
            let again = Stream::recovered(stream.acknowledged, stream.waiting);
            self.written.insert(stream.key.clone());
            self.updates.recover(stream.key, again);
        }
        debug_assert_eq!(self.tables.check(), Ok(()));
        cx.open_node();
        Point::Adopted.reach_in_turn(cx);
        let rebooted = recovered.rebooted;
        // No task starts here before those of an earlier run are gone or known: no master is looked for before that.
        cx.run(sweep, Gate::Interleave, move |agent, cx, swept| {
            if let Err(reason) = swept {
                error!(reason, "containers of an earlier run are left: they use resources that are offered again");
            }
            Point::Swept.reach_in_turn(cx);
            agent.begin_collection(cx);
            if agent.config.logs.is_some() {
                agent.look_at_logs(cx);
            }
            let early = agent.recovering.as_mut().and_then(|all| all.early.take());
            agent.look_for_executors(cx, rebooted);
            let Early {
                subscriptions,
                leaves,
            } = early.unwrap_or_default();
            if let Some(why) = leaves {
                agent.leave(cx, &why);
            }
            for (from, subscribe) in subscriptions {
                agent.receive(cx, &from, subscribe);
            }
        });
    }

    /// Whether containers are still swept, or it is not known yet what was written down.
    pub(crate) fn is_sweeping(&self) -> bool {
        let recovering = self.recovering.as_ref();
        recovering.is_some_and(|recovering| recovering.early.is_some())
    }

    /// Keeps a subscription until containers are swept; gives it back when they are.
    pub(crate) fn too_early(
        &mut self,
        from: &Pid,
        subscribe: SubscribeExecutor,
    ) -> Option<SubscribeExecutor> {
        let early = self.recovering.as_mut().and_then(|all| all.early.as_mut());
        let Some(early) = early else {
            return Some(subscribe);
        };
        early.subscriptions.insert(from.clone(), subscribe);
        None
    }

    /// Puts the agent's leaving off until containers are swept. Whether that is so.
    pub(crate) fn leaves_later(&mut self, why: &str) -> bool {
        let early = self.recovering.as_mut().and_then(|all| all.early.as_mut());
        let Some(early) = early else {
            return false;
        };
        early.leaves.get_or_insert_with(|| why.to_owned());
        true
    }

    fn adopt_executor(
        &mut self,
        cx: &mut Context<'_, Self>,
        found: crate::recovery::RecoveredExecutor,
    ) -> Option<(String, std::path::PathBuf)> {
        let framework_id = found.record.framework_id.clone();
        let executor_id = found.record.info.executor_id.clone();
        let container_id = found.record.container_id.clone();
        let id = self.id();
        let sandbox = paths::sandbox(
            &self.config.work_dir,
            &id,
            &framework_id,
            &executor_id,
            &container_id,
        );
        let (Ok(sandbox), Some(framework)) =
            (sandbox, self.tables.frameworks.get_mut(&framework_id))
        else {
            return None;
        };
        for task in &found.tasks {
            framework.owns(
                task.record.info.task_id.clone(),
                executor_id.clone(),
                task.record.launch_uuid,
            );
        }
        let user = framework.info.user.clone();
        let executor = Executor::recovered(found, sandbox.clone(), &user);
        if let Some(proof) = executor.proof.as_ref().and_then(|proof| proof.proof()) {
            cx.pin_guest(Guest {
                id: Arc::from(executor.process_id()),
                role: Arc::from("executor"),
                proof,
            });
        }
        self.tables.add_executor(&framework_id, executor);
        Some((container_id.value, sandbox))
    }

    /// Finds out which executors live, and waits for those. After a start of the machine none does, whoever has their
    /// process ids now.
    fn look_for_executors(&mut self, cx: &mut Context<'_, Self>, rebooted: bool) {
        let mut adopts = Vec::new();
        let mut awaited = BTreeSet::new();
        for (_, _, executor) in self.tables.executors() {
            let container = executor.container_id.value.clone();
            awaited.insert(container.clone());
            let (outside, me) = (cx.outside(), cx.me().clone());
            adopts.push(Adopt {
                container,
                sandbox: executor.directory.clone(),
                process: executor.process.map(|known| Identity {
                    process: known.process,
                    started: known.started,
                }),
                exits: Exits::new(move |ended| outside.send(&me, ended)),
            });
        }
        self.recovering = Some(Recovering {
            awaited,
            early: None,
        });
        for adopt in adopts {
            let container = adopt.container.clone();
            if rebooted {
                self.looked(cx, &container, None);
                continue;
            }
            cx.run(adopt, Gate::Interleave, move |agent, cx, alive| {
                agent.looked(cx, &container, alive);
            });
        }
        if self.config.recover == Mode::Cleanup {
            self.leave(
                cx,
                "--recover=cleanup: what an earlier run has left is ended",
            );
            return;
        }
        cx.after(
            self.config.executor_reregistration_timeout,
            Self::reregistration_overdue,
        );
        self.recovered_if_all_are_here(cx);
    }

    fn looked(&mut self, cx: &mut Context<'_, Self>, container: &str, alive: Option<Identity>) {
        Point::LookedFor.reach_in_turn(cx);
        match alive {
            Some(identity) => self.note_process(cx, container, identity),
            None => {
                let exit = Exit {
                    status: UNREPORTED,
                    complaint: None,
                };
                self.container_input(cx, container, Input::Ended(exit));
            }
        }
    }

    /// An executor has come back, or nothing of its container is left.
    pub(crate) fn accounted_for(&mut self, cx: &mut Context<'_, Self>, container: &str) {
        if let Some(recovering) = &mut self.recovering
            && recovering.awaited.remove(container)
        {
            self.recovered_if_all_are_here(cx);
        }
    }

    fn recovered_if_all_are_here(&mut self, cx: &mut Context<'_, Self>) {
        let is_done = self
            .recovering
            .as_ref()
            .is_some_and(|recovering| recovering.awaited.is_empty());
        if is_done && !self.is_terminating() {
            self.recovering = None;
            let took = cx.now().since(self.began).as_secs_f64();
            cx.metrics().set("slave/recovery_time_secs", took);
            self.show_metrics(cx);
            self.keep_agent(cx);
            Point::AllBack.reach_in_turn(cx);
            detect(self, cx, detector::Input::Begin);
        }
    }

    fn reregistration_overdue(&mut self, cx: &mut Context<'_, Self>) {
        let Some(recovering) = self.recovering.take() else {
            return;
        };
        let timeout = duration_text(self.config.executor_reregistration_timeout);
        let message = format!("Executor did not reregister within {timeout}");
        for container in recovering.awaited {
            warn!(container, message);
            self.terminate_for(
                &container,
                Termination {
                    state: TaskState::Gone,
                    reason: StatusReason::ExecutorReregistrationTimeout,
                    message: message.clone(),
                },
            );
            if let Some(executor) = self.tables.executor_in(&container) {
                executor.shut_down();
            }
            self.container_input(cx, &container, Input::Destroy);
        }
        self.recovering = Some(Recovering::default());
        self.recovered_if_all_are_here(cx);
    }

    /// Whether the agent still waits for its executors, and answers nobody else.
    pub fn is_recovering(&self) -> bool {
        self.recovering.is_some()
    }
}

/// Writing.
impl Agent {
    /// Writes changes down. What the agent does and says from here on waits until they are durable.
    pub(crate) fn keep(&mut self, cx: &mut Context<'_, Self>, changes: Vec<Change>) {
        if !changes.is_empty() && !self.is_forgotten {
            self.commit(cx, changes);
        }
    }

    fn commit(&mut self, cx: &mut Context<'_, Self>, changes: Vec<Change>) {
        let work_dir = self.config.work_dir.clone();
        let gate = if mistake("agent tells what it has not written down yet") {
            Gate::Interleave
        } else {
            Gate::HoldEffects
        };
        cx.run(
            Commit { work_dir, changes },
            gate,
            |agent, cx, done| match done {
                Ok(room) => agent.room = room,
                // What is on disk is not known: only reading it anew tells.
                Err(error) => agent.abandon(cx, &error.to_string()),
            },
        );
    }

    /// Asks for room on the disk, which is known by the answer.
    pub(crate) fn look_for_room(&mut self, cx: &mut Context<'_, Self>) {
        self.commit(cx, Vec::new());
    }

    fn keep_records(&mut self, cx: &mut Context<'_, Self>, records: &[Record]) {
        let changes: Result<Vec<Change>, _> = records.iter().map(Change::put).collect();
        match changes {
            Ok(changes) => self.keep(cx, changes),
            Err(error) => self.abandon(cx, &error.to_string()),
        }
    }

    /// Writes down who this agent is, once it has an id.
    pub(crate) fn keep_agent(&mut self, cx: &mut Context<'_, Self>) {
        if self.info.id.is_none() {
            return;
        }
        let record = Record::Agent(Box::new(AgentRecord {
            info: self.info.clone(),
            boot_id: self.host.boot_id.clone(),
        }));
        match Change::put(&record) {
            Ok(put) => self.keep(cx, vec![put, Change::Name(self.info.id.clone())]),
            Err(error) => self.abandon(cx, &error.to_string()),
        }
    }

    /// Nothing is left to come back to.
    pub(crate) fn forget_all(&mut self, cx: &mut Context<'_, Self>) {
        let all = Change::DeleteBelow(String::new());
        self.keep(cx, vec![all, Change::Name(None)]);
        self.is_forgotten = true;
    }

    /// Whether what belongs to a framework is written down.
    pub(crate) fn checkpoints(&self, framework_id: &FrameworkId) -> bool {
        let framework = self.tables.framework(framework_id);
        framework.is_some_and(|framework| framework.info.checkpoint && !framework.terminating)
    }

    /// Writes down how a framework describes itself.
    pub(crate) fn keep_framework(&mut self, cx: &mut Context<'_, Self>, id: &FrameworkId) {
        let Some(framework) = self.tables.framework(id) else {
            return;
        };
        if framework.info.checkpoint && !framework.executors.is_empty() {
            let record = framework_record(id, framework);
            self.keep_records(cx, &[record]);
        }
    }

    /// Writes an executor down that is about to be launched for a task, with both it belongs to.
    pub(crate) fn keep_launch(
        &mut self,
        cx: &mut Context<'_, Self>,
        framework_id: &FrameworkId,
        executor: &Executor,
    ) {
        let Some(framework) = self.tables.framework(framework_id) else {
            return;
        };
        if !self.checkpoints(framework_id) {
            return;
        }
        let records = [
            framework_record(framework_id, framework),
            Record::Executor(Box::new(executor.record(framework_id))),
        ];
        self.keep_records(cx, &records);
    }

    /// Writes down what was launched on an executor, all of it with one commit.
    pub(crate) fn keep_unit(
        &mut self,
        cx: &mut Context<'_, Self>,
        (framework_id, executor_id): (&FrameworkId, &ExecutorId),
        unit: &Unit,
        launch_uuid: UpdateId,
    ) {
        let executor = self.tables.executor(framework_id, executor_id);
        let Some(executor) = executor.filter(|_| self.checkpoints(framework_id)) else {
            return;
        };
        let records = unit.places().map(|(task, place)| {
            Record::Task(Box::new(TaskRecord {
                framework_id: framework_id.clone(),
                executor_id: executor_id.clone(),
                container_id: executor.container_id.clone(),
                info: task.clone(),
                launch_uuid,
                place: place.map(|place| place.number),
                past: executor.said_before(&task.task_id),
                is_over: false,
            }))
        });
        let records: Vec<Record> = records.collect();
        self.keep_records(cx, &records);
    }

    /// Notes an executor's process, and writes it down.
    pub(crate) fn note_process(
        &mut self,
        cx: &mut Context<'_, Self>,
        container: &str,
        identity: Identity,
    ) {
        let Some((framework_id, _)) = self.tables.owner(container).cloned() else {
            return;
        };
        let checkpoints = self.checkpoints(&framework_id);
        let Some(executor) = self.tables.executor_in(container) else {
            return;
        };
        let process = ProcessRecord {
            process: identity.process,
            started: identity.started,
        };
        let is_news = executor.process != Some(process);
        executor.process = Some(process);
        if is_news && checkpoints {
            let record = executor.record(&framework_id);
            self.keep_records(cx, &[Record::Executor(Box::new(record))]);
        }
    }

    /// Writes updates down that were taken into their streams, all with one commit.
    pub(crate) fn keep_updates(&mut self, cx: &mut Context<'_, Self>, updates: Vec<StatusUpdate>) {
        let mut records = Vec::new();
        for update in updates {
            if self.checkpoints(&update.framework_id) {
                self.last_number += 1;
                let task_id = update.status.task_id.clone();
                self.written.insert((update.framework_id.clone(), task_id));
                records.push(Record::Update(Box::new(UpdateRecord {
                    number: self.last_number,
                    update,
                    acknowledged: false,
                })));
            }
        }
        self.keep_records(cx, &records);
    }

    /// Writes down that a framework has dealt with an update. `forgotten` is one that is remembered no longer.
    pub(crate) fn keep_acknowledgement(
        &mut self,
        cx: &mut Context<'_, Self>,
        mut update: StatusUpdate,
        forgotten: Option<UpdateId>,
    ) {
        let framework_id = update.framework_id.clone();
        let task_id = update.status.task_id.clone();
        if !self
            .written
            .contains(&(framework_id.clone(), task_id.clone()))
        {
            return;
        }
        let mut changes: Vec<Change> = forgotten
            .map(|uuid| Change::Delete(update_key(&framework_id, &task_id, &uuid)))
            .into_iter()
            .collect();
        self.last_number += 1;
        update.status.data = None;
        let record = Record::Update(Box::new(UpdateRecord {
            number: self.last_number,
            update,
            acknowledged: true,
        }));
        match Change::put(&record) {
            Ok(put) => changes.push(put),
            Err(error) => return self.abandon(cx, &error.to_string()),
        }
        self.keep(cx, changes);
    }

    /// Forgets a task whose end was acknowledged, with its updates, but for what its executor may say once more.
    pub(crate) fn forget_task(&mut self, cx: &mut Context<'_, Self>, key: &Key) {
        let mut changes = Vec::new();
        if self.written.remove(key) {
            changes.push(Change::DeleteBelow(updates_of(&key.0, &key.1)));
        }
        match self.task_over(key) {
            Ok(more) if self.checkpoints(&key.0) => changes.extend(more),
            Ok(_) => {}
            Err(error) => return self.abandon(cx, &error.to_string()),
        }
        self.keep(cx, changes);
    }

    /// Notes that a task is over, and returns what is to be written down of that.
    fn task_over(&mut self, key: &Key) -> Result<Vec<Change>, RecordError> {
        let framework = self.tables.framework(&key.0);
        let owner = framework.and_then(|framework| framework.executor_of(&key.1));
        let mut changes = Vec::new();
        if let Some(executor_id) = owner.cloned()
            && let Some(executor) = self.tables.executor_mut(&key.0, &executor_id)
        {
            let forgotten = executor.is_over(&key.1);
            let container = &executor.container_id.value;
            if let Some(forgotten) = forgotten.filter(|task_id| !executor.has(task_id)) {
                changes.push(Change::Delete(task_key(container, &forgotten)));
            }
            let over = Record::Task(Box::new(TaskRecord::over(
                key.0.clone(),
                executor_id,
                executor.container_id.clone(),
                key.1.clone(),
                executor.said_before(&key.1),
            )));
            changes.push(if executor.container.has_ended() {
                Change::Delete(task_key(container, &key.1))
            } else {
                Change::put(&over)?
            });
        }
        Ok(changes)
    }

    /// Forgets a framework that is being ended, at once with all it has: what the next run does not know it ends.
    pub(crate) fn forget_framework(&mut self, cx: &mut Context<'_, Self>, id: &FrameworkId) {
        let mut changes = Vec::new();
        let before = self.written.len();
        self.written.retain(|(framework, _)| framework != id);
        if self.written.len() < before {
            changes.push(Change::DeleteBelow(updates_of_framework(id)));
        }
        let framework = self.tables.framework(id);
        if let Some(framework) = framework.filter(|_| self.checkpoints(id)) {
            changes.push(Change::Delete(framework_key(id)));
            let superseded = framework.superseded.values();
            for executor in framework.executors.values().chain(superseded) {
                changes.extend(without_executor(&executor.container_id.value));
            }
        }
        self.keep(cx, changes);
    }

    /// Forgets an executor of which nothing is left in the tables, and its framework when that is gone too.
    pub(crate) fn forget_gone(
        &mut self,
        cx: &mut Context<'_, Self>,
        id: &FrameworkId,
        containers: &[String],
        checkpoints: bool,
    ) {
        if !checkpoints {
            return;
        }
        let mut changes = Vec::new();
        for container in containers {
            if self.tables.owner(container).is_none() {
                changes.extend(without_executor(container));
            }
        }
        if self.tables.framework(id).is_none() {
            changes.push(Change::Delete(framework_key(id)));
        }
        self.keep(cx, changes);
    }

    /// Cleans the tables of what is over of an executor, and forgets that. Whether the framework is gone.
    pub(crate) fn clean(
        &mut self,
        cx: &mut Context<'_, Self>,
        framework_id: &FrameworkId,
        executor_id: &ExecutorId,
    ) -> bool {
        let checkpoints = self.checkpoints(framework_id);
        let containers: Vec<String> = self
            .tables
            .framework(framework_id)
            .into_iter()
            .flat_map(|framework| {
                let current = framework.executors.get(executor_id).into_iter();
                current.chain(framework.superseded.values())
            })
            .filter(|executor| executor.phase == Phase::Terminated)
            .map(|executor| executor.container_id.value.clone())
            .collect();
        let gone = self.tables.clean(framework_id, executor_id);
        self.forget_gone(cx, framework_id, &containers, checkpoints);
        gone
    }
}

fn framework_record(id: &FrameworkId, framework: &Framework) -> Record {
    let mut info = framework.info.clone();
    info.id = Some(id.clone());
    Record::Framework(Box::new(FrameworkRecord { info }))
}

/// Forgets the executor in this container, and its tasks.
fn without_executor(container: &str) -> [Change; 2] {
    [
        Change::Delete(executor_key(container)),
        Change::DeleteBelow(tasks_of(container)),
    ]
}
