//! Launching and killing tasks, and groups of tasks. Source: agent.md §4, §5.

use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::ids::validate_id;
use meseta_protocol::messages::agent::{ExecutorExited, KillAgentTask, RunTask, RunTaskGroup};
use meseta_protocol::messages::executor::{KillExecutorTask, LaunchTask, LaunchTaskGroup};
use meseta_protocol::status::{StatusReason, TaskState};
use meseta_protocol::task::{TaskGroupInfo, TaskInfo};
use meseta_protocol::{ExecutorId, FrameworkId, TaskId, UpdateId};
use meseta_runtime::planted::mistake;
use meseta_runtime::{Context, Pid};
use tracing::{debug, info, warn};

use super::status::Report;
use crate::agent::{Agent, FromMaster};
use crate::checkpoint::Room;
use crate::environment::command_executor;
use crate::executors::{KillVerdict, LaunchVerdict, Phase, Unit};

/// What stands in the way of a launch.
enum Obstacle {
    /// A task of this id is here, or the task has a command and its id is that of an executor that is here.
    IdInUse,
    /// The master says that the executor is new, but it runs here.
    Runs,
    /// The master says that the executor is new, but it has run here and its end is not acknowledged.
    HasEnded,
    /// The master says that the executor runs here, but it does not.
    Missing,
}

/// A launch as the master orders it: a task by itself, or a group of them.
struct Order {
    framework_id: FrameworkId,
    framework: FrameworkInfo,
    /// None for a task with a command.
    executor: Option<ExecutorInfo>,
    launch_executor: bool,
    launch_uuid: UpdateId,
    unit: Unit,
}

impl Order {
    fn executor_id(&self) -> ExecutorId {
        let own = self.executor.as_ref().map(|info| info.executor_id.clone());
        own.unwrap_or_else(|| {
            let task = self.unit.tasks().first();
            task.map(TaskInfo::effective_executor_id)
                .unwrap_or_default()
        })
    }

    /// Why what makes no sense is refused.
    fn invalid(&self) -> StatusReason {
        if self.unit.is_group() {
            StatusReason::TaskGroupInvalid
        } else {
            StatusReason::TaskInvalid
        }
    }
}

/// Ids of tasks, for the log.
fn named(tasks: &[TaskInfo]) -> String {
    let ids: Vec<&str> = tasks.iter().map(|task| task.task_id.as_str()).collect();
    ids.join(", ")
}

impl FromMaster<RunTask> for Agent {
    fn obey(&mut self, cx: &mut Context<'_, Self>, run: RunTask) {
        let order = Order {
            framework_id: run.framework_id,
            framework: run.framework,
            executor: run.executor.or_else(|| run.task.executor.clone()),
            launch_executor: run.launch_executor,
            launch_uuid: run.launch_uuid,
            unit: run.task.into(),
        };
        self.take_order(cx, order);
    }
}

impl FromMaster<RunTaskGroup> for Agent {
    fn obey(&mut self, cx: &mut Context<'_, Self>, run: RunTaskGroup) {
        let order = Order {
            framework_id: run.framework_id,
            framework: run.framework,
            executor: Some(run.executor),
            launch_executor: run.launch_executor,
            launch_uuid: run.launch_uuid,
            unit: Unit::Group {
                launch: run.launch_uuid,
                tasks: run.task_group.tasks,
            },
        };
        self.take_order(cx, order);
    }
}

impl FromMaster<KillAgentTask> for Agent {
    fn obey(&mut self, cx: &mut Context<'_, Self>, kill: KillAgentTask) {
        if self.is_terminating() {
            return;
        }
        let (framework_id, task_id) = (&kill.framework_id, &kill.task_id);
        let Some(framework) = self.tables.framework(framework_id) else {
            warn!(framework = %framework_id, task = %task_id, "kill ignored: the framework has nothing here");
            return;
        };
        let Some(executor_id) = framework.executor_of(task_id).cloned() else {
            let report = Report {
                task_id,
                executor_id: None,
                state: TaskState::Dropped,
                reason: StatusReason::ExecutorTerminated,
                message: "Cannot find executor",
            };
            self.report_unowned(cx, framework_id, &[report]);
            return;
        };
        let Some(executor) = self.tables.executor(framework_id, &executor_id) else {
            return;
        };
        match executor.kill(task_id) {
            KillVerdict::Ignore => debug!(task = %task_id, "kill ignored: the executor is ending"),
            KillVerdict::Dequeued => {
                let tasks = std::slice::from_ref(task_id);
                let message = "Killed before delivery to the executor";
                self.kill_queued(cx, framework_id, &executor_id, tasks, message);
            }
            KillVerdict::GroupDequeued(tasks) => {
                let message =
                    "A task within the task group was killed before delivery to the executor";
                self.kill_queued(cx, framework_id, &executor_id, &tasks, message);
            }
            KillVerdict::Tell => {
                if let Some(pid) = executor.pid.clone() {
                    let message = KillExecutorTask {
                        task_id: task_id.clone(),
                        kill_policy: kill.kill_policy,
                    };
                    cx.send(&pid, message);
                }
            }
        }
    }
}

/// Gives an executor what is launched on it.
pub(super) fn give(cx: &mut Context<'_, Agent>, executor: &Pid, unit: Unit) {
    match unit {
        Unit::Group { tasks, .. } if mistake("agent gives a group task by task") => {
            for task in tasks {
                cx.send(executor, LaunchTask { task });
            }
        }
        Unit::Task(task) => cx.send(executor, LaunchTask { task: *task }),
        Unit::Group { tasks, .. } => {
            let task_group = TaskGroupInfo { tasks };
            cx.send(executor, LaunchTaskGroup { task_group });
        }
    }
}

impl Agent {
    fn take_order(&mut self, cx: &mut Context<'_, Self>, order: Order) {
        let tasks = order.unit.tasks();
        let is_own = |task: &TaskInfo| Some(&task.agent_id) == self.info.id.as_ref();
        if !tasks.iter().all(is_own) || tasks.is_empty() || self.is_terminating() {
            warn!(
                tasks = named(tasks),
                "launch ignored: for another agent, of no task, or too late"
            );
            return;
        }
        let framework = self
            .tables
            .know_framework(&order.framework_id, &order.framework);
        let is_ending = framework.terminating;
        if !framework.is_news(order.launch_uuid) {
            info!(framework = %order.framework_id, tasks = named(tasks), "launch ignored: it is a repeated one");
            return;
        }
        if is_ending {
            // One that an earlier master has ended may have come back with the next, which waits for an answer.
            let reason = StatusReason::FrameworkRemoved;
            let message = "The framework was ended, and what it had here is still ending";
            self.refuse(cx, &order, TaskState::Dropped, reason, message);
            return;
        }
        if self.room == Room::Low {
            let message = "No room is left on the agent's disk to write down what is launched";
            let reason = StatusReason::ContainerLaunchFailed;
            self.refuse(cx, &order, TaskState::Dropped, reason, message);
            return;
        }
        let executor_id = order.executor_id();
        let valid = validate_id(executor_id.as_str());
        if let Err(error) = valid.and(validate_id(order.framework_id.as_str())) {
            let (reason, message) = (order.invalid(), error.to_string());
            self.refuse(cx, &order, TaskState::Error, reason, &message);
            return;
        }
        self.make_way(cx, &order.framework_id, &executor_id);
        match self.obstacle(&order, &executor_id) {
            Some(obstacle) => self.hindered(cx, &order, &executor_id, &obstacle),
            None => self.carry_out(cx, order, &executor_id),
        }
    }

    /// The id of a task is free once its end is acknowledged, though the executor of a command may take a while to
    /// end: that one goes on ending beside the new one.
    fn make_way(
        &mut self,
        cx: &mut Context<'_, Self>,
        framework_id: &FrameworkId,
        executor_id: &ExecutorId,
    ) {
        let present = self.tables.executor(framework_id, executor_id);
        if present.is_some_and(|executor| executor.generated && !executor.is_busy()) {
            self.shut_down_executor(cx, framework_id, executor_id);
            self.tables.supersede(framework_id, executor_id);
        }
    }

    fn obstacle(&self, order: &Order, executor_id: &ExecutorId) -> Option<Obstacle> {
        let executor = self.tables.executor(&order.framework_id, executor_id);
        let framework = self.tables.framework(&order.framework_id);
        let is_taken = |task: &TaskInfo| {
            framework.is_some_and(|known| known.executor_of(&task.task_id).is_some())
        };
        let taken = order.unit.tasks().iter().any(is_taken);
        if order.executor.is_none() {
            return (taken || executor.is_some()).then_some(Obstacle::IdInUse);
        }
        match (executor, order.launch_executor) {
            (Some(executor), true) if executor.phase == Phase::Terminated => {
                Some(Obstacle::HasEnded)
            }
            (Some(_), true) => Some(Obstacle::Runs),
            (None, false) => Some(Obstacle::Missing),
            (Some(_), false) | (None, true) => taken.then_some(Obstacle::IdInUse),
        }
    }

    fn hindered(
        &mut self,
        cx: &mut Context<'_, Self>,
        order: &Order,
        executor_id: &ExecutorId,
        obstacle: &Obstacle,
    ) {
        let dropped = TaskState::Dropped;
        let terminated = StatusReason::ExecutorTerminated;
        match obstacle {
            Obstacle::IdInUse => {
                let message = "Cannot launch the task: one of its id is still here";
                self.refuse(cx, order, dropped, order.invalid(), message);
            }
            Obstacle::Missing => {
                self.report_refused(
                    cx,
                    order,
                    dropped,
                    terminated,
                    "The executor is not running",
                );
            }
            Obstacle::Runs => {
                self.report_refused(
                    cx,
                    order,
                    dropped,
                    terminated,
                    "The executor is running already, with an unknown state",
                );
                self.shut_down_executor(cx, &order.framework_id, executor_id);
            }
            Obstacle::HasEnded => {
                self.refuse(cx, order, dropped, terminated, "The executor has ended");
            }
        }
    }

    /// Reports what is not started, all of it.
    fn report_refused(
        &mut self,
        cx: &mut Context<'_, Self>,
        order: &Order,
        state: TaskState,
        reason: StatusReason,
        message: &str,
    ) {
        let tasks = order.unit.tasks();
        info!(framework = %order.framework_id, tasks = named(tasks), message, "not started");
        let reports = tasks.iter().map(|task| Report {
            task_id: &task.task_id,
            executor_id: None,
            state,
            reason,
            message,
        });
        let reports: Vec<Report<'_>> = reports.collect();
        self.report_unowned(cx, &order.framework_id, &reports);
        self.tables.clean_framework(&order.framework_id);
    }

    /// As [`Agent::report_refused`], and gives the master back what it has charged for a new executor.
    fn refuse(
        &mut self,
        cx: &mut Context<'_, Self>,
        order: &Order,
        state: TaskState,
        reason: StatusReason,
        message: &str,
    ) {
        self.report_refused(cx, order, state, reason, message);
        if order.launch_executor && order.executor.is_some() {
            self.tell_exited(cx, &order.framework_id, &order.executor_id(), -1);
        }
    }

    /// Tells the master of the end of an executor that it counts.
    pub(crate) fn tell_exited(
        &self,
        cx: &mut Context<'_, Self>,
        framework_id: &FrameworkId,
        executor_id: &ExecutorId,
        status: i32,
    ) {
        let exited = ExecutorExited {
            agent_id: self.id(),
            framework_id: framework_id.clone(),
            executor_id: executor_id.clone(),
            status,
        };
        self.tell_master(cx, exited);
    }

    fn carry_out(&mut self, cx: &mut Context<'_, Self>, order: Order, executor_id: &ExecutorId) {
        let framework_id = &order.framework_id;
        if self.tables.executor(framework_id, executor_id).is_none() {
            let (info, generated) = self.executor_of(&order);
            let user = match &order.unit {
                Unit::Task(task) => task.command.as_ref().and_then(|own| own.user.as_deref()),
                Unit::Group { .. } => None,
            };
            let user = self.user_of(framework_id, &info, user);
            if let Err(message) = self.start_executor(cx, framework_id, info, generated, user) {
                let reason = StatusReason::ContainerLaunchFailed;
                self.refuse(cx, &order, TaskState::Failed, reason, &message);
                return;
            }
        }
        let verdict = self.tables.launch(framework_id, executor_id, &order.unit);
        let Some(verdict) = verdict else {
            return;
        };
        debug!(framework = %framework_id, tasks = named(order.unit.tasks()), executor = %executor_id, ?verdict, "launched");
        if verdict != LaunchVerdict::Refused {
            let executor = (framework_id, executor_id);
            self.keep_unit(cx, executor, &order.unit, order.launch_uuid);
        }
        self.start_waiting(cx);
        match verdict {
            LaunchVerdict::Queued => {}
            LaunchVerdict::Send => {
                let executor = self.tables.executor(framework_id, executor_id);
                if let Some(pid) = executor.and_then(|executor| executor.pid.clone()) {
                    give(cx, &pid, order.unit);
                }
            }
            LaunchVerdict::Refused => {
                let reason = StatusReason::ExecutorTerminated;
                let message = "The executor is ending";
                self.report_refused(cx, &order, TaskState::Dropped, reason, message);
            }
        }
    }

    fn executor_of(&self, order: &Order) -> (ExecutorInfo, bool) {
        match (&order.executor, &order.unit) {
            (None, Unit::Task(task)) => {
                let program = &self.config.executor_command;
                (command_executor(&order.framework_id, task, program), true)
            }
            // A group names its executor.
            (info, _) => (info.clone().unwrap_or_default(), false),
        }
    }

    /// Kills what its executor has not been given: a task by itself, or a group. An executor left without anything to do is
    /// ended.
    fn kill_queued(
        &mut self,
        cx: &mut Context<'_, Self>,
        framework_id: &FrameworkId,
        executor_id: &ExecutorId,
        tasks: &[TaskId],
        message: &str,
    ) {
        let reports = tasks.iter().map(|task_id| Report {
            task_id,
            executor_id: Some(executor_id),
            state: TaskState::Killed,
            reason: StatusReason::TaskKilledDuringLaunch,
            message,
        });
        let reports: Vec<Report<'_>> = reports.collect();
        self.report(cx, framework_id, &reports);
        let executor = self.tables.executor(framework_id, executor_id);
        if executor.is_some_and(crate::executors::Executor::is_pointless) {
            self.shut_down_executor(cx, framework_id, executor_id);
        }
    }

    /// User an executor runs as: its own, that of its task's command, or its framework's; none for the agent's own.
    fn user_of(
        &self,
        framework_id: &FrameworkId,
        info: &ExecutorInfo,
        of_task: Option<&str>,
    ) -> Option<String> {
        if !self.config.switch_user || !self.host.is_root {
            return None;
        }
        let of_executor = info
            .command
            .as_ref()
            .and_then(|command| command.user.clone());
        let framework = self.tables.framework(framework_id);
        of_executor
            .or_else(|| of_task.map(str::to_owned))
            .or_else(|| framework.map(|framework| framework.info.user.clone()))
            .filter(|user| !user.is_empty() && *user != self.host.user)
    }
}
