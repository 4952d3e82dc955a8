//! Containers that end: by themselves, or because they have to. Source: agent.md §5, §7.

use std::time::Duration;

use meseta_protocol::status::StatusReason;
use meseta_protocol::{ExecutorId, FrameworkId};
use meseta_runtime::{Context, Gate};
use tracing::{debug, info, warn};

use super::status::Report;
use crate::agent::Agent;
use crate::containerizer::core::{Effect, Exit, Input};
use crate::containerizer::{DESTROY_RETRY, Destroy};
use crate::executors::Termination;
use crate::faults::Point;

/// In place of [`DESTROY_RETRY`] for an agent that leaves.
const LEAVING_RETRY: Duration = Duration::from_secs(1);

impl Agent {
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
        Point::ContainerGone.reach_in_turn(cx);
        let never_subscribed = executor.pid.is_none();
        let tasks = executor.ended();
        let sandbox = executor.directory.clone();
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
        self.schedule_removal(cx, &sandbox);
        self.rotate_logs(cx, vec![sandbox]);
        cx.metrics().count("slave/executors_terminated");
        info!(framework = %framework_id, executor = %executor_id, how = exit.text(), "executor ended");
        let heard = self
            .tables
            .framework(framework_id)
            .is_some_and(|framework| !framework.terminating);
        let reports = tasks.iter().filter(|_| heard).map(|task_id| Report {
            task_id,
            executor_id: Some(executor_id),
            state: termination.state,
            reason: termination.reason,
            message: &termination.message,
        });
        let reports: Vec<Report<'_>> = reports.collect();
        self.report(cx, framework_id, &reports);
        if !generated {
            self.tell_exited(cx, framework_id, executor_id, exit.status);
        }
        self.clean_up(cx, framework_id, executor_id);
        self.accounted_for(cx, container);
    }

    /// Forgets what is over; an agent that waits for that stops.
    pub(crate) fn clean_up(
        &mut self,
        cx: &mut Context<'_, Self>,
        framework_id: &FrameworkId,
        executor_id: &ExecutorId,
    ) {
        if self.clean(cx, framework_id, executor_id) {
            info!(framework = %framework_id, "nothing of the framework is left here");
        }
        Point::ExecutorForgotten.reach_in_turn(cx);
        self.stop_when_empty(cx);
    }
}
