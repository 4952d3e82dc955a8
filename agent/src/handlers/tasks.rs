//! Launching and killing tasks. Source: agent.md §4, §5.

use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::ids::validate_id;
use meseta_protocol::messages::agent::{ExecutorExited, KillAgentTask, RunTask, RunTaskGroup};
use meseta_protocol::messages::executor::{KillExecutorTask, LaunchTask};
use meseta_protocol::status::{StatusReason, TaskState};
use meseta_protocol::task::TaskInfo;
use meseta_protocol::{ExecutorId, FrameworkId, TaskId};
use meseta_runtime::Context;
use tracing::{debug, info, warn};

use super::status::Report;
use crate::agent::{Agent, FromMaster};
use crate::checkpoint::Room;
use crate::environment::command_executor;
use crate::executors::{KillVerdict, LaunchVerdict, Phase};

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

impl FromMaster<RunTask> for Agent {
    fn obey(&mut self, cx: &mut Context<'_, Self>, run: RunTask) {
        if Some(&run.task.agent_id) != self.info.id.as_ref() || self.is_terminating() {
            warn!(task = %run.task.task_id, agent = %run.task.agent_id, "launch ignored: for another agent, or too late");
            return;
        }
        let framework = self
            .tables
            .know_framework(&run.framework_id, &run.framework);
        let is_ending = framework.terminating;
        if !framework.is_news(run.launch_uuid) {
            info!(framework = %run.framework_id, task = %run.task.task_id, "launch ignored: it is a repeated one");
            return;
        }
        if is_ending {
            // One that an earlier master has ended may have come back with the next, which waits for an answer.
            let reason = StatusReason::FrameworkRemoved;
            let message = "The framework was ended, and what it had here is still ending";
            self.refuse(cx, &run, TaskState::Dropped, reason, message);
            return;
        }
        let executor_id = run.task.effective_executor_id();
        if self.room == Room::Low {
            let message = "No room is left on the agent's disk to write down what is launched";
            let reason = StatusReason::ContainerLaunchFailed;
            self.refuse(cx, &run, TaskState::Dropped, reason, message);
            return;
        }
        if let Err(error) =
            validate_id(executor_id.as_str()).and(validate_id(run.framework_id.as_str()))
        {
            self.refuse(
                cx,
                &run,
                TaskState::Error,
                StatusReason::TaskInvalid,
                &error.to_string(),
            );
            return;
        }
        self.make_way(cx, &run.framework_id, &executor_id);
        match self.obstacle(&run, &executor_id) {
            Some(obstacle) => self.hindered(cx, &run, &executor_id, &obstacle),
            None => self.run_task(cx, run, &executor_id),
        }
    }
}

impl FromMaster<RunTaskGroup> for Agent {
    /// There is no executor for task groups yet, so none is started.
    fn obey(&mut self, cx: &mut Context<'_, Self>, run: RunTaskGroup) {
        if self.is_terminating() {
            return;
        }
        self.tables
            .know_framework(&run.framework_id, &run.framework);
        for task in &run.task_group.tasks {
            let report = Report {
                task_id: &task.task_id,
                executor_id: None,
                state: TaskState::Error,
                reason: StatusReason::TaskGroupInvalid,
                message: "Task groups are not supported by this agent: launch the tasks one by one",
            };
            self.report_unowned(cx, &run.framework_id, &report);
        }
        if run.launch_executor {
            self.tell_exited(cx, &run.framework_id, &run.executor.executor_id, -1);
        }
        self.tables.clean_framework(&run.framework_id);
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
            self.report_unowned(cx, framework_id, &report);
            return;
        };
        let Some(executor) = self.tables.executor(framework_id, &executor_id) else {
            return;
        };
        match executor.kill(task_id) {
            KillVerdict::Ignore => debug!(task = %task_id, "kill ignored: the executor is ending"),
            KillVerdict::Dequeued => self.kill_queued(cx, framework_id, &executor_id, task_id),
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

impl Agent {
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

    fn obstacle(&self, run: &RunTask, executor_id: &ExecutorId) -> Option<Obstacle> {
        let executor = self.tables.executor(&run.framework_id, executor_id);
        let framework = self.tables.framework(&run.framework_id);
        let taken = framework.is_some_and(|known| known.executor_of(&run.task.task_id).is_some());
        if run.executor.is_none() && run.task.executor.is_none() {
            return (taken || executor.is_some()).then_some(Obstacle::IdInUse);
        }
        match (executor, run.launch_executor) {
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
        run: &RunTask,
        executor_id: &ExecutorId,
        obstacle: &Obstacle,
    ) {
        let dropped = TaskState::Dropped;
        let terminated = StatusReason::ExecutorTerminated;
        match obstacle {
            Obstacle::IdInUse => {
                let message = "Cannot launch the task: one of its id is still here";
                self.refuse(cx, run, dropped, StatusReason::TaskInvalid, message);
            }
            Obstacle::Missing => {
                self.report_refused(cx, run, dropped, terminated, "The executor is not running");
            }
            Obstacle::Runs => {
                self.report_refused(
                    cx,
                    run,
                    dropped,
                    terminated,
                    "The executor is running already, with an unknown state",
                );
                self.shut_down_executor(cx, &run.framework_id, executor_id);
            }
            Obstacle::HasEnded => {
                self.refuse(cx, run, dropped, terminated, "The executor has ended");
            }
        }
    }

    /// Reports a task that is not started.
    fn report_refused(
        &mut self,
        cx: &mut Context<'_, Self>,
        run: &RunTask,
        state: TaskState,
        reason: StatusReason,
        message: &str,
    ) {
        info!(framework = %run.framework_id, task = %run.task.task_id, message, "task not started");
        let report = Report {
            task_id: &run.task.task_id,
            executor_id: None,
            state,
            reason,
            message,
        };
        self.report_unowned(cx, &run.framework_id, &report);
        self.tables.clean_framework(&run.framework_id);
    }

    /// As [`Agent::report_refused`], and gives the master back what it has charged for a new executor.
    fn refuse(
        &mut self,
        cx: &mut Context<'_, Self>,
        run: &RunTask,
        state: TaskState,
        reason: StatusReason,
        message: &str,
    ) {
        self.report_refused(cx, run, state, reason, message);
        if run.launch_executor && run.executor.is_some() {
            self.tell_exited(cx, &run.framework_id, &run.task.effective_executor_id(), -1);
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

    fn run_task(&mut self, cx: &mut Context<'_, Self>, run: RunTask, executor_id: &ExecutorId) {
        let framework_id = run.framework_id.clone();
        if self.tables.executor(&framework_id, executor_id).is_none() {
            let (info, generated) = self.executor_of(&run);
            if let Err(message) = self.start_executor(cx, &framework_id, info, generated, &run.task)
            {
                let reason = StatusReason::ContainerLaunchFailed;
                self.refuse(cx, &run, TaskState::Failed, reason, &message);
                return;
            }
        }
        let Some(verdict) = self
            .tables
            .launch(&framework_id, executor_id, run.task.clone())
        else {
            return;
        };
        debug!(framework = %framework_id, task = %run.task.task_id, executor = %executor_id, ?verdict, "task launched");
        if verdict != LaunchVerdict::Refused {
            self.keep_task(cx, (&framework_id, executor_id), &run.task, run.launch_uuid);
        }
        self.start_waiting(cx);
        match verdict {
            LaunchVerdict::Queued => {}
            LaunchVerdict::Send => {
                let executor = self.tables.executor(&framework_id, executor_id);
                if let Some(pid) = executor.and_then(|executor| executor.pid.clone()) {
                    cx.send(&pid, LaunchTask { task: run.task });
                }
            }
            LaunchVerdict::Refused => {
                let reason = StatusReason::ExecutorTerminated;
                self.report_refused(
                    cx,
                    &run,
                    TaskState::Dropped,
                    reason,
                    "The executor is ending",
                );
            }
        }
    }

    fn executor_of(&self, run: &RunTask) -> (ExecutorInfo, bool) {
        match run.executor.as_ref().or(run.task.executor.as_ref()) {
            Some(info) => (info.clone(), false),
            None => {
                let program = &self.config.executor_command;
                (
                    command_executor(&run.framework_id, &run.task, program),
                    true,
                )
            }
        }
    }

    /// Kills a task that its executor has not been given. An executor left without anything to do is ended.
    fn kill_queued(
        &mut self,
        cx: &mut Context<'_, Self>,
        framework_id: &FrameworkId,
        executor_id: &ExecutorId,
        task_id: &TaskId,
    ) {
        let report = Report {
            task_id,
            executor_id: Some(executor_id),
            state: TaskState::Killed,
            reason: StatusReason::TaskKilledDuringLaunch,
            message: "Killed before delivery to the executor",
        };
        self.report(cx, framework_id, &report);
        let executor = self.tables.executor(framework_id, executor_id);
        if executor.is_some_and(crate::executors::Executor::is_pointless) {
            self.shut_down_executor(cx, framework_id, executor_id);
        }
    }

    /// User an executor runs as: its own, that of its task's command, or its framework's; none for the agent's own.
    pub(crate) fn user_of(
        &self,
        framework_id: &FrameworkId,
        info: &ExecutorInfo,
        task: &TaskInfo,
    ) -> Option<String> {
        if !self.config.switch_user || !self.host.is_root {
            return None;
        }
        let of_executor = info
            .command
            .as_ref()
            .and_then(|command| command.user.clone());
        let of_task = task
            .command
            .as_ref()
            .and_then(|command| command.user.clone());
        let framework = self.tables.framework(framework_id);
        of_executor
            .or(of_task)
            .or_else(|| framework.map(|framework| framework.info.user.clone()))
            .filter(|user| !user.is_empty() && *user != self.host.user)
    }
}
