//! Executors: their containers, subscriptions and ends. Source: agent.md §4.11, §5, §7.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use meseta_protocol::executor::{ExecutorInfo, ExecutorType};
use meseta_protocol::launch::{ExecutorCredential, LaunchPlan};
use meseta_protocol::messages::agent::{
    ExecutorToFramework, FrameworkToExecutor, ShutdownAgentExecutor, ShutdownFramework,
};
use meseta_protocol::messages::executor::{
    ExecutorRefused, ExecutorSubscribed, LaunchTask, MessageToExecutor, SendToFramework,
    ShutdownExecutorNow, SubscribeExecutor,
};
use meseta_protocol::status::{StatusReason, TaskState};
use meseta_protocol::task::TaskInfo;
use meseta_protocol::{ContainerId, ExecutorId, FrameworkId};
use meseta_runtime::transport::Guest;
use meseta_runtime::{Context, ExitReason, Gate, Pid, Receive, error_chain};
use tracing::{debug, info, warn};

use super::status::Report;
use crate::agent::{Agent, FromMaster};
use crate::containerizer::core::{Effect, Exit, Input};
use crate::containerizer::{ContainerEnded, DESTROY_RETRY, Destroy, Exits, Launch, LaunchError};
use crate::environment::{self, Surroundings, duration_text, grace_period, program};
use crate::executors::{Executor, Phase, Termination};
use crate::guests::introduce;
use crate::launch_queue::PATIENCE;
use crate::{paths, registration};

/// In place of [`DESTROY_RETRY`] for an agent that leaves.
const LEAVING_RETRY: Duration = Duration::from_secs(1);

impl Receive<SubscribeExecutor> for Agent {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, subscribe: SubscribeExecutor) {
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
        if !self.subscribed(cx, from, &named) {
            refuse(cx, from, "the executor is being ended");
            return;
        }
        for update in subscribe.unacknowledged_updates {
            if update.framework_id == named.0 {
                self.take_update(cx, update, Some((from, &named.1)));
            }
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
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, ended: ContainerEnded) {
        if !self.is_own_node(cx, from) {
            warn!(%from, "end of a container dropped: it does not come from this node");
            return;
        }
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

    /// Makes an executor and orders its container. An error means that nothing was begun.
    pub(crate) fn start_executor(
        &mut self,
        cx: &mut Context<'_, Self>,
        framework_id: &FrameworkId,
        info: ExecutorInfo,
        generated: bool,
        task: &TaskInfo,
    ) -> Result<(), String> {
        let failed = |why: &dyn std::fmt::Display| format!("Failed to launch container: {why}");
        if info.kind == Some(ExecutorType::Default) || info.command.is_none() {
            return Err(failed(
                &"this agent has no executor for task groups, and the task names no command",
            ));
        }
        let container_id = ContainerId::top(Self::new_uuid(cx).to_string());
        let agent_id = self.id();
        let work_dir = &self.config.work_dir;
        let sandbox = paths::sandbox(
            work_dir,
            &agent_id,
            framework_id,
            &info.executor_id,
            &container_id,
        )
        .map_err(|error| failed(&error))?;
        let user = self.user_of(framework_id, &info, task);
        let executor = Executor::new(info, generated, container_id, sandbox);
        let (proof, credential) = introduce(
            &self.config,
            &mut self.users,
            cx,
            executor.process_id(),
            user.as_deref(),
        )
        .map_err(|error| failed(&error_chain(&error)))?;
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
            links: paths::links(work_dir, &agent_id, &executor.directory),
            owner: user,
            launcher: self.config.launcher.clone(),
            plan,
            exits: Exits::new(move |ended| outside.send(&me, ended)),
            container: container.clone(),
        };
        self.tables.add_executor(framework_id, executor);
        self.launches.ask(container, launch);
        self.start_waiting(cx);
        Ok(())
    }

    /// Starts as many of the containers that wait for their turn as may start now.
    fn start_waiting(&mut self, cx: &mut Context<'_, Self>) {
        while let Some((container, launch)) = self.launches.take_next() {
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
            shutdown_grace_period: self.config.executor_shutdown_grace_period,
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
        launched: Result<u32, LaunchError>,
    ) {
        let input = match launched {
            Ok(process) => Input::Launched(process),
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
    fn terminate_for(&mut self, container: &str, termination: Termination) {
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

    /// An executor has subscribed: it is told who it is and gets what waits for it. `false` when it may not run.
    fn subscribed(
        &mut self,
        cx: &mut Context<'_, Self>,
        from: &Pid,
        (framework_id, executor_id): &(FrameworkId, ExecutorId),
    ) -> bool {
        let framework_info = self
            .tables
            .framework(framework_id)
            .map(|framework| framework.info.clone());
        let Some((executor, user)) = self.tables.executor_with_user(framework_id, executor_id)
        else {
            return false;
        };
        let Some(tasks) = executor.subscribe(from, (framework_id, &user)) else {
            return false;
        };
        let message = ExecutorSubscribed {
            executor_info: executor.info.clone(),
            framework_info: framework_info.unwrap_or_default(),
            agent_info: self.info.clone(),
            agent_id: self.info.id.clone().unwrap_or_default(),
            container_id: executor.container_id.clone(),
        };
        let pointless = executor.is_pointless();
        let container = executor.container_id.value.clone();
        info!(framework = %framework_id, executor = %executor_id, tasks = tasks.len(), "executor subscribed");
        self.settled(cx, &container);
        cx.link(from);
        cx.send(from, message);
        if pointless {
            self.shut_down_executor(cx, framework_id, executor_id);
        }
        for task in tasks {
            cx.send(from, LaunchTask { task });
        }
        true
    }

    /// The link to an executor has broken. It ends by itself, since nothing is checkpointed; if it has not after its
    /// grace period, it is ended.
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
        if let Some(executor) = self
            .tables
            .executor_in(pid.id().trim_start_matches("executor-"))
        {
            executor.disconnected = true;
        }
        self.shut_down_executor(cx, &framework_id, &executor_id);
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
        let Some(framework) = self.tables.frameworks.get_mut(framework_id) else {
            return;
        };
        framework.terminating = true;
        let executors: Vec<ExecutorId> = framework.executors.keys().cloned().collect();
        for executor_id in &executors {
            self.shut_down_executor(cx, framework_id, executor_id);
            self.tables.clean(framework_id, executor_id);
        }
        self.tables.clean_framework(framework_id);
    }

    /// Feeds the life of a container and carries out what follows.
    pub(crate) fn container_input(
        &mut self,
        cx: &mut Context<'_, Self>,
        container: &str,
        input: Input,
    ) {
        let Some((framework_id, executor_id)) = self.tables.owner(container).cloned() else {
            debug!(container, ?input, "event of a container that is gone");
            return;
        };
        let Some(executor) = self.tables.executor_in(container) else {
            return;
        };
        // One that still waits for its turn need not be started to be ended.
        let withdrawn = matches!(input, Input::Destroy) && self.launches.withdraw(container);
        for effect in executor.container.step(input) {
            match effect {
                Effect::Destroy => self.destroy(cx, container),
                Effect::ArmRetry => {
                    let container = container.to_owned();
                    let leaving = self.is_terminating();
                    let after = if leaving {
                        LEAVING_RETRY
                    } else {
                        DESTROY_RETRY
                    };
                    cx.after(after, move |agent, cx| {
                        agent.container_input(cx, &container, Input::RetryDue);
                    });
                }
                Effect::Gone(exit) => {
                    self.container_gone(cx, container, (&framework_id, &executor_id), &exit);
                }
            }
        }
        if withdrawn {
            let reason = "ended before its launch".to_owned();
            self.container_input(cx, container, Input::LaunchFailed(reason));
        }
    }

    fn destroy(&mut self, cx: &mut Context<'_, Self>, container: &str) {
        let Some(executor) = self.tables.executor_in(container) else {
            return;
        };
        // It takes no more tasks, whether it was told to end or has ended by itself.
        executor.shut_down();
        let destroy = Destroy {
            container: container.to_owned(),
            sandbox: executor.directory.clone(),
            freezer: self.host.freezer.as_ref().map(|own| own.join(container)),
        };
        let container = container.to_owned();
        cx.run(destroy, Gate::Interleave, move |agent, cx, done| {
            let input = match done {
                Ok(()) => Input::Destroyed,
                Err(reason) => {
                    warn!(container, reason, "container not ended: tried again");
                    cx.metrics()
                        .count("containerizer/mesos/container_destroy_errors");
                    Input::DestroyFailed
                }
            };
            agent.container_input(cx, &container, input);
        });
    }

    /// Nothing of a container is left: its tasks have ended, its executor is over.
    fn container_gone(
        &mut self,
        cx: &mut Context<'_, Self>,
        container: &str,
        (framework_id, executor_id): (&FrameworkId, &ExecutorId),
        exit: &Exit,
    ) {
        let Some(executor) = self.tables.executor_in(container) else {
            return;
        };
        let never_subscribed = executor.pid.is_none();
        let tasks = executor.ended();
        let (generated, guest) = (executor.generated, executor.process_id());
        let termination = executor
            .termination
            .clone()
            .unwrap_or_else(|| match &exit.complaint {
                Some(complaint) if never_subscribed => Termination::failed(
                    StatusReason::ContainerLaunchFailed,
                    format!("Failed to launch container: {complaint}"),
                ),
                Some(_) | None => Termination::failed(
                    StatusReason::ExecutorTerminated,
                    format!("Executor terminated: {}", exit.text()),
                ),
            });
        if let Some(pid) = &executor.pid
            && !executor.disconnected
        {
            cx.unlink(pid);
        }
        cx.unpin_guest(&guest);
        cx.metrics().count("slave/executors_terminated");
        info!(framework = %framework_id, executor = %executor_id, how = exit.text(), "executor ended");
        let heard = self
            .tables
            .framework(framework_id)
            .is_some_and(|framework| !framework.terminating);
        for task_id in tasks.iter().filter(|_| heard) {
            let report = Report {
                task_id,
                executor_id: Some(executor_id),
                state: termination.state,
                reason: termination.reason,
                message: &termination.message,
            };
            self.report(cx, framework_id, &report);
        }
        if !generated {
            self.tell_exited(cx, framework_id, executor_id, exit.status);
        }
        self.clean_up(cx, framework_id, executor_id);
    }

    /// Forgets what is over; an agent that waits for that stops.
    pub(crate) fn clean_up(
        &mut self,
        cx: &mut Context<'_, Self>,
        framework_id: &FrameworkId,
        executor_id: &ExecutorId,
    ) {
        if self.tables.clean(framework_id, executor_id) {
            info!(framework = %framework_id, "nothing of the framework is left here");
        }
        self.stop_when_empty(cx);
    }
}
