//! Executors: their containers, subscriptions and ends. Source: agent.md §4.11, §5, §7.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use meseta_protocol::executor::{ExecutorInfo, ExecutorType};
use meseta_protocol::launch::{ExecutorCredential, LaunchPlan};
use meseta_protocol::messages::agent::{
    ExecutorToFramework, FrameworkToExecutor, ShutdownAgentExecutor, ShutdownFramework,
};
use meseta_protocol::messages::executor::{
    ExecutorRefused, ExecutorSubscribed, MessageToExecutor, SendToFramework, ShutdownExecutorNow,
    SubscribeExecutor, UpdateAcknowledged,
};
use meseta_protocol::status::{StatusReason, StatusUpdate, TaskState};
use meseta_protocol::{ContainerId, ExecutorId, FrameworkId, TaskId};
use meseta_runtime::planted::mistake;
use meseta_runtime::transport::Guest;
use meseta_runtime::{Context, ExitReason, Gate, Pid, Receive, error_chain};
use tracing::{debug, info, warn};

use super::tasks::give;
use crate::agent::{Agent, FromMaster};
use crate::checkpoint::records::ProofRecord;
use crate::containerizer::core::{Exit, Input};
use crate::containerizer::process_tree::Identity;
use crate::containerizer::{ContainerEnded, Exits, Launch, LaunchError};
use crate::environment::{self, Surroundings, duration_text, grace_period, program};
use crate::executors::{Executor, Phase, Termination};
use crate::faults::Point;
use crate::guests::introduce;
use crate::launch_queue::PATIENCE;
use crate::{paths, registration};

impl Receive<SubscribeExecutor> for Agent {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, subscribe: SubscribeExecutor) {
        let Some(subscribe) = self.too_early(from, subscribe) else {
            return;
        };
        let named = (subscribe.framework_id, subscribe.executor_id);
        let refused = if self.is_terminating() {
            Some("the agent is ending")
        } else if self
            .speaker(cx, from)
            .is_none_or(|speaker| *speaker != named)
        {
            Some("this agent knows no such executor")
        } else if self
            .tables
            .framework(&named.0)
            .is_none_or(|framework| framework.terminating)
        {
            Some("the framework is being ended")
        } else {
            None
        };
        if let Some(message) = refused {
            refuse(cx, from, message);
            return;
        }
        let mut has: BTreeSet<TaskId> = subscribe
            .unacknowledged_tasks
            .iter()
            .map(|task| task.task_id.clone())
            .collect();
        let executor = self.tables.executor(&named.0, &named.1);
        let is_past = |update: &StatusUpdate| {
            executor.is_some_and(|executor| executor.is_past(&update.status))
        };
        let (past, news): (Vec<_>, Vec<_>) = subscribe
            .unacknowledged_updates
            .into_iter()
            .partition(is_past);
        for update in &past {
            debug!(task = %update.status.task_id, state = %update.status.state, "an executor repeats what is over");
            has.remove(&update.status.task_id);
            if let Some(executor) = self.tables.executor_mut(&named.0, &named.1) {
                executor.repeats(&update.status);
            }
        }
        if !self.subscribed(cx, from, &named, &has, &past) {
            refuse(cx, from, "the executor is being ended");
            return;
        }
        for update in news {
            if update.framework_id == named.0 {
                self.take_update(cx, update, (from, &named.1));
            }
        }
        if let Some(container) = from.id().strip_prefix("executor-") {
            self.accounted_for(cx, container);
        }
    }
}

impl Receive<SendToFramework> for Agent {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, message: SendToFramework) {
        let named = (message.framework_id, message.executor_id);
        if self
            .speaker(cx, from)
            .is_none_or(|speaker| *speaker != named)
        {
            cx.metrics().count("slave/invalid_framework_messages");
            return;
        }
        let forwarded = ExecutorToFramework {
            agent_id: self.id(),
            framework_id: named.0,
            executor_id: named.1,
            data: message.data,
        };
        cx.metrics().count("slave/valid_framework_messages");
        self.tell_master(cx, forwarded);
    }
}

impl FromMaster<FrameworkToExecutor> for Agent {
    fn obey(&mut self, cx: &mut Context<'_, Self>, message: FrameworkToExecutor) {
        let executor = self
            .tables
            .executor(&message.framework_id, &message.executor_id);
        let running = executor.filter(|executor| executor.phase == Phase::Running);
        let outcome = match running.and_then(|executor| executor.pid.clone()) {
            Some(pid) => {
                cx.send(&pid, MessageToExecutor { data: message.data });
                "slave/valid_framework_messages"
            }
            None => "slave/invalid_framework_messages",
        };
        cx.metrics().count(outcome);
    }
}

impl FromMaster<ShutdownAgentExecutor> for Agent {
    fn obey(&mut self, cx: &mut Context<'_, Self>, shutdown: ShutdownAgentExecutor) {
        if !self.is_terminating() {
            self.shut_down_executor(cx, &shutdown.framework_id, &shutdown.executor_id);
        }
    }
}

impl FromMaster<ShutdownFramework> for Agent {
    fn obey(&mut self, cx: &mut Context<'_, Self>, shutdown: ShutdownFramework) {
        if self.registration.phase() == registration::Phase::Disconnected {
            return;
        }
        info!(framework = %shutdown.framework_id, "the master ends a framework");
        self.end_framework(cx, &shutdown.framework_id);
        self.stop_when_empty(cx);
    }
}

impl Receive<ContainerEnded> for Agent {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, ended: ContainerEnded) {
        let exit = Exit {
            status: ended.status,
            complaint: ended.complaint,
        };
        self.settled(cx, &ended.container);
        self.container_input(cx, &ended.container, Input::Ended(exit));
    }
}

fn refuse(cx: &mut Context<'_, Agent>, from: &Pid, message: &str) {
    info!(%from, message, "executor refused");
    let message = message.to_owned();
    cx.send(from, ExecutorRefused { message });
}

impl Agent {
    /// The executor that a PID stands for: that of the container in its id, on this very node.
    pub(crate) fn speaker(
        &self,
        cx: &Context<'_, Self>,
        from: &Pid,
    ) -> Option<&(FrameworkId, ExecutorId)> {
        let container = from.id().strip_prefix("executor-")?;
        self.tables
            .owner(container)
            .filter(|_| from.address() == cx.address() && !self.tables.is_superseded(container))
    }

    /// Makes an executor that runs as this user and orders its container. An error means that nothing was begun.
    pub(crate) fn start_executor(
        &mut self,
        cx: &mut Context<'_, Self>,
        framework_id: &FrameworkId,
        info: ExecutorInfo,
        generated: bool,
        user: Option<String>,
    ) -> Result<(), String> {
        let failed = |why: &dyn std::fmt::Display| format!("Failed to launch container: {why}");
        if info.kind == Some(ExecutorType::Default) || info.command.is_none() {
            return Err(failed(
                &"this agent has no executor of its own for task groups, and no command is named",
            ));
        }
        let container_id = ContainerId::top(Self::new_uuid(cx).to_string());
        let agent_id = self.id();
        let work_dir = self.config.work_dir.clone();
        let sandbox = paths::sandbox(
            &work_dir,
            &agent_id,
            framework_id,
            &info.executor_id,
            &container_id,
        )
        .map_err(|error| failed(&error))?;
        let mut executor = Executor::new(info, generated, container_id, sandbox);
        let (proof, credential) = introduce(
            &self.config,
            &mut self.users,
            cx,
            executor.process_id(),
            user.as_deref(),
        )
        .map_err(|error| failed(&error_chain(&error)))?;
        executor.proof = Some(ProofRecord::of(&proof));
        // Whoever finds it running after a crash knows whose it is.
        self.keep_launch(cx, framework_id, &executor);
        let guest = Guest {
            id: Arc::from(executor.process_id()),
            role: Arc::from("executor"),
            proof,
        };
        cx.pin_guest(guest);
        let plan = self.plan(cx, framework_id, &executor, credential, user.clone());
        let container = executor.container_id.value.clone();
        info!(framework = %framework_id, executor = %executor.info.executor_id, container, "executor launched");
        let (outside, me) = (cx.outside(), cx.me().clone());
        let launch = Launch {
            links: paths::links(&work_dir, &agent_id, &executor.directory),
            owner: user,
            launcher: self.config.launcher.clone(),
            plan,
            exits: Exits::new(move |ended| outside.send(&me, ended)),
            container: container.clone(),
        };
        self.tables.add_executor(framework_id, executor);
        self.launches.ask(container, launch);
        Ok(())
    }

    /// Starts as many of the containers that wait for their turn as may start now.
    pub(crate) fn start_waiting(&mut self, cx: &mut Context<'_, Self>) {
        while let Some((container, launch)) = self.launches.take_next() {
            Point::LaunchOrdered.reach_in_turn(cx);
            let named = container.clone();
            cx.run(launch, Gate::Interleave, move |agent, cx, launched| {
                agent.launched(cx, &named, launched);
            });
            let named = container.clone();
            cx.after(PATIENCE, move |agent, cx| agent.settled(cx, &named));
            cx.after(
                self.config.executor_registration_timeout,
                move |agent, cx| {
                    agent.registration_overdue(cx, &container);
                },
            );
        }
    }

    /// A container has started, or will not: the next may.
    fn settled(&mut self, cx: &mut Context<'_, Self>, container: &str) {
        self.launches.settled(container);
        self.start_waiting(cx);
    }

    /// What an executor shows over HTTP. It follows from the key and the executor, so it is good after a restart, too.
    fn token_of(&self, framework_id: &FrameworkId, executor: &Executor) -> Option<String> {
        let claims = [
            ("fid", framework_id.as_str()),
            ("eid", executor.info.executor_id.as_str()),
            ("cid", &executor.container_id.value),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let key = self.config.executor_tokens.as_ref()?;
        Some(key.sign(&claims.into()))
    }

    fn plan(
        &self,
        cx: &Context<'_, Self>,
        framework_id: &FrameworkId,
        executor: &Executor,
        credential: ExecutorCredential,
        user: Option<String>,
    ) -> LaunchPlan {
        let sandbox: &Path = &executor.directory;
        let agent_id = self.id();
        let environment = environment::environment(&Surroundings {
            configured: &self.config.executor_environment,
            framework_id,
            executor: &executor.info,
            sandbox,
            agent_id: &agent_id,
            agent_pid: cx.me(),
            token: self.token_of(framework_id, executor),
            shutdown_grace_period: self.config.executor_shutdown_grace_period,
            recovery_timeout: Some(self.config.recovery_timeout)
                .filter(|_| self.checkpoints(framework_id)),
        });
        let file = |name: &str| sandbox.join(name).display().to_string();
        let group = self
            .host
            .freezer
            .as_ref()
            .map(|own| own.join(&executor.container_id.value));
        LaunchPlan {
            command: program(&executor.info.command.clone().unwrap_or_default()),
            working_directory: sandbox.display().to_string(),
            stdout: file("stdout"),
            stderr: file("stderr"),
            environment,
            user,
            freezer_cgroup: group.map(|group| group.display().to_string()),
            open_files: self.config.open_files,
            credential: Some(credential),
        }
    }

    fn launched(
        &mut self,
        cx: &mut Context<'_, Self>,
        container: &str,
        launched: Result<Identity, LaunchError>,
    ) {
        let input = match launched {
            Ok(identity) => {
                self.note_process(cx, container, identity);
                Point::ProcessNoted.reach_in_turn(cx);
                Input::Launched(identity.process)
            }
            Err(error) => {
                warn!(container, %error, "container not launched");
                cx.metrics().count("slave/container_launch_errors");
                let termination = match &error {
                    LaunchError::Sandbox { .. } => Termination {
                        state: TaskState::Dropped,
                        reason: StatusReason::ExecutorTerminated,
                        message: error.to_string(),
                    },
                    LaunchError::Launcher(_) => {
                        Termination::failed(StatusReason::ContainerLaunchFailed, error.to_string())
                    }
                };
                self.terminate_for(container, termination);
                self.settled(cx, container);
                Input::LaunchFailed(error.to_string())
            }
        };
        self.container_input(cx, container, input);
    }

    /// Records what the tasks of a container's executor will be told, unless that is settled.
    pub(crate) fn terminate_for(&mut self, container: &str, termination: Termination) {
        if let Some(executor) = self.tables.executor_in(container) {
            executor.termination.get_or_insert(termination);
        }
    }

    fn registration_overdue(&mut self, cx: &mut Context<'_, Self>, container: &str) {
        let executor = self.tables.executor_in(container);
        let Some(executor) = executor.filter(|executor| executor.phase == Phase::Registering)
        else {
            return;
        };
        executor.shut_down();
        let timeout = duration_text(self.config.executor_registration_timeout);
        let message = format!("Executor did not register within {timeout}");
        warn!(executor = %executor.info.executor_id, container, message);
        let reason = StatusReason::ExecutorRegistrationTimeout;
        self.terminate_for(container, Termination::failed(reason, message));
        self.container_input(cx, container, Input::Destroy);
    }

    /// An executor has subscribed: it is told who it is, that updates of `past` tasks have arrived, and gets what waits for
    /// it and it does not have. `false` when it may not run.
    fn subscribed(
        &mut self,
        cx: &mut Context<'_, Self>,
        from: &Pid,
        (framework_id, executor_id): &(FrameworkId, ExecutorId),
        has: &BTreeSet<TaskId>,
        past: &[StatusUpdate],
    ) -> bool {
        let framework_info = self
            .tables
            .framework(framework_id)
            .map(|framework| framework.info.clone());
        let Some((executor, user)) = self.tables.executor_with_user(framework_id, executor_id)
        else {
            return false;
        };
        // What it was given and never spoke of may have been lost with a connection. It ignores what it has.
        let silent = executor.silent(has);
        let Some(mut tasks) = executor.subscribe(from, (framework_id, &user)) else {
            return false;
        };
        tasks.retain(|task| !has.contains(&task.task_id));
        tasks.extend(silent);
        let units = executor.units(tasks);
        let message = ExecutorSubscribed {
            executor_info: executor.info.clone(),
            framework_info: framework_info.unwrap_or_default(),
            agent_info: self.info.clone(),
            agent_id: self.info.id.clone().unwrap_or_default(),
            container_id: executor.container_id.clone(),
        };
        // One that was made for a task of which nothing is left has nothing to wait for.
        let is_done = executor.generated && executor.was_used && !executor.is_busy();
        let pointless = executor.is_pointless() || is_done;
        let container = executor.container_id.value.clone();
        info!(framework = %framework_id, executor = %executor_id, launches = units.len(), "executor subscribed");
        self.settled(cx, &container);
        Point::Subscribed.reach_in_turn(cx);
        cx.link(from);
        cx.send(from, message);
        // Before the launches: until then the executor takes another task of that id for the one that is over.
        for update in past {
            let task_id = update.status.task_id.clone();
            if let Some(uuid) = update.uuid {
                cx.send(from, UpdateAcknowledged { task_id, uuid });
            }
        }
        if pointless {
            self.shut_down_executor(cx, framework_id, executor_id);
        }
        for unit in units {
            give(cx, from, unit);
        }
        Point::TasksGiven.reach_in_turn(cx);
        true
    }

    /// The link to an executor has broken. One whose framework checkpoints subscribes again, or its recovery timeout ends
    /// it. Any other ends by itself; if it has not after its grace period, it is ended. One over HTTP may subscribe again
    /// for as long as its container runs.
    pub(crate) fn executor_disconnected(
        &mut self,
        cx: &mut Context<'_, Self>,
        pid: &Pid,
        reason: &ExitReason,
    ) {
        let Some((framework_id, executor_id)) = self.speaker(cx, pid).cloned() else {
            return;
        };
        info!(framework = %framework_id, executor = %executor_id, ?reason, "executor disconnected");
        let container = pid.id().trim_start_matches("executor-");
        let mut may_return = self.checkpoints(&framework_id);
        if let Some(executor) = self.tables.executor_in(container) {
            executor.disconnected = true;
            may_return |= executor.is_over_http;
        }
        if !may_return {
            self.shut_down_executor(cx, &framework_id, &executor_id);
        }
    }

    /// Asks an executor to end, and ends it after its grace period.
    pub(crate) fn shut_down_executor(
        &mut self,
        cx: &mut Context<'_, Self>,
        framework_id: &FrameworkId,
        executor_id: &ExecutorId,
    ) {
        let Some(executor) = self.tables.executor_mut(framework_id, executor_id) else {
            return;
        };
        if !executor.shut_down() {
            return;
        }
        info!(framework = %framework_id, executor = %executor_id, "executor is shut down");
        // The executor of a command ends by itself after its task, and may have done so.
        let ends_by_itself = executor.generated && executor.was_used && !executor.is_busy();
        if let Some(pid) = executor.listener()
            && !ends_by_itself
        {
            cx.send(pid, ShutdownExecutorNow {});
        }
        let grace = grace_period(&executor.info, self.config.executor_shutdown_grace_period);
        let container = executor.container_id.value.clone();
        cx.after(grace, move |agent, cx| {
            agent.container_input(cx, &container, Input::Destroy);
        });
    }

    /// Ends a framework: it hears nothing more, its executors are shut down.
    pub(crate) fn end_framework(&mut self, cx: &mut Context<'_, Self>, framework_id: &FrameworkId) {
        // A framework without executors may still have updates on their way.
        self.updates.forget_framework(framework_id);
        self.forget_framework(cx, framework_id);
        let Some(framework) = self.tables.frameworks.get_mut(framework_id) else {
            return;
        };
        framework.terminating = true;
        let executors: Vec<ExecutorId> = framework.executors.keys().cloned().collect();
        for executor_id in &executors {
            if !mistake("agent lets what belongs to an ended framework run") {
                self.shut_down_executor(cx, framework_id, executor_id);
            }
            self.clean(cx, framework_id, executor_id);
        }
        self.tables.clean_framework(framework_id);
    }
}
