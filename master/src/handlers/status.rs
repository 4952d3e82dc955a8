//! Status updates on their way from agents to frameworks, and acknowledgements on their way back.
//! Source: master.md §8, §11.

use meseta_protocol::messages::agent::{
    AcknowledgeAgentStatus, ExecutorExited, ShutdownFramework, UpdateStatus,
};
use meseta_protocol::messages::scheduler::{AcknowledgeStatus, ExecutorLost, StatusUpdated};
use meseta_protocol::status::{StatusReason, StatusSource, StatusUpdate, TaskState, TaskStatus};
use meseta_protocol::{AgentId, FrameworkId, TaskId, UpdateId};
use meseta_runtime::planted::mistake;
use meseta_runtime::{Context, Pid};
use tracing::{debug, warn};

use crate::leading::Serve;
use crate::master::Master;

impl Serve<UpdateStatus> for Master {
    fn serve(&mut self, cx: &mut Context<'_, Self>, from: &Pid, message: UpdateStatus) {
        cx.metrics().count("master/messages_status_update");
        let update = message.update;
        let agent_id = self.state.agent_at(from).cloned();
        let (Some(agent_id), Some(uuid)) = (agent_id, update.uuid.or(update.status.uuid)) else {
            warn!(%from, task = %update.status.task_id, "status update dropped: no such agent, or no uuid");
            cx.metrics().count("master/invalid_status_updates");
            return;
        };
        self.take_update(cx, &agent_id, update, uuid);
    }
}

impl Serve<AcknowledgeStatus> for Master {
    fn serve(&mut self, cx: &mut Context<'_, Self>, from: &Pid, ack: AcknowledgeStatus) {
        cx.metrics()
            .count("master/messages_status_update_acknowledgement");
        if !self.speaks_for(cx, from, &ack.framework_id) {
            cx.metrics()
                .count("master/invalid_status_update_acknowledgements");
            return;
        }
        if !self
            .state
            .agent(&ack.agent_id)
            .is_some_and(|agent| agent.connected)
        {
            debug!(task = %ack.task_id, agent = %ack.agent_id, "acknowledgement dropped: the agent is not connected");
            cx.metrics()
                .count("master/invalid_status_update_acknowledgements");
            return;
        }
        cx.metrics()
            .count("master/valid_status_update_acknowledgements");
        self.state
            .acknowledge(&ack.framework_id, &ack.agent_id, &ack.task_id, ack.uuid);
        let forwarded = AcknowledgeAgentStatus {
            agent_id: ack.agent_id.clone(),
            framework_id: ack.framework_id,
            task_id: ack.task_id,
            uuid: ack.uuid,
        };
        self.tell_agent(cx, &ack.agent_id, forwarded);
    }
}

impl Serve<ExecutorExited> for Master {
    fn serve(&mut self, cx: &mut Context<'_, Self>, from: &Pid, exited: ExecutorExited) {
        cx.metrics().count("master/messages_exited_executor");
        if self.state.agent_at(from) != Some(&exited.agent_id) {
            return;
        }
        let freed =
            self.state
                .remove_executor(&exited.framework_id, &exited.agent_id, &exited.executor_id);
        if let Some(resources) = freed {
            self.recover(cx, &exited.framework_id, &exited.agent_id, resources, None);
        }
        let lost = ExecutorLost {
            agent_id: exited.agent_id,
            executor_id: exited.executor_id,
            status: exited.status,
        };
        self.tell_framework(cx, &exited.framework_id, lost);
    }
}

/// Whether the executor of a task is on its agent, as far as a status says. What an executor says, or the agent of a task that
/// one has, names it; where an agent names none because it has no such task, only these reasons say that it has no such
/// executor either.
fn says_of_executor(status: &TaskStatus) -> Option<bool> {
    if status.source == Some(StatusSource::Executor) || status.executor_id.is_some() {
        return Some(true);
    }
    let is_not_there = status.state.is_terminal()
        && matches!(
            status.reason,
            Some(StatusReason::Reconciliation | StatusReason::ExecutorTerminated)
        );
    is_not_there.then_some(false)
}

impl Master {
    fn take_update(
        &mut self,
        cx: &mut Context<'_, Self>,
        agent_id: &AgentId,
        update: StatusUpdate,
        uuid: UpdateId,
    ) {
        let (framework_id, task_id) = (update.framework_id.clone(), update.status.task_id.clone());
        if self.state.is_completed(&framework_id) {
            // An agent with nothing but updates of a framework does not name it when it registers, so it has not heard
            // yet that nobody will acknowledge them.
            debug!(framework = %framework_id, task = %task_id, "update of an ended framework: its agent is told so");
            cx.metrics().count("master/invalid_status_updates");
            self.tell_agent(cx, agent_id, ShutdownFramework { framework_id });
            return;
        }
        let latest = update.latest_state.unwrap_or(update.status.state);
        let has_ended_here = self.has_ended_here(agent_id, &update);
        self.release_lingering(cx, agent_id, (&framework_id, &task_id), latest);
        if has_ended_here && !mistake("master forwards what comes after an end") {
            // The framework was told that this task is lost and has forgotten it. It hears nothing after an end, so
            // the master takes the agent's update off its hands.
            debug!(task = %task_id, state = %update.status.state, "update of an ended task acknowledged by the master");
            let ack = AcknowledgeAgentStatus {
                agent_id: agent_id.clone(),
                framework_id,
                task_id,
                uuid,
            };
            self.tell_agent(cx, agent_id, ack);
            return;
        }
        // The tables keep no data, which may be large, so it is not copied.
        let mut update = update;
        let data = update.status.data.take();
        let status = update.status.clone();
        update.status.data = data;
        let forwarded = self.tell_framework(cx, &framework_id, StatusUpdated { update });
        if self
            .state
            .task_on(&framework_id, &task_id, agent_id)
            .is_none()
        {
            cx.metrics().count("master/invalid_status_updates");
            return;
        }
        cx.metrics().count("master/valid_status_updates");
        if forwarded {
            self.state.forwarded(&framework_id, &task_id, &status);
        }
        let is_there = says_of_executor(&status);
        let freed = self
            .state
            .update_task(&framework_id, &task_id, latest, &status);
        if let Some(resources) = freed {
            // It has ended, even if the update says of an earlier state: of that it says why.
            let mut end = status;
            if end.state != latest {
                (end.state, end.reason) = (latest, None);
            }
            crate::metrics::count_end(cx.metrics(), &end);
            self.recover(cx, &framework_id, agent_id, resources, None);
        }
        if let Some(is_there) = is_there {
            let freed = self
                .state
                .settle_executor(&framework_id, agent_id, &task_id, is_there);
            if let Some(resources) = freed {
                self.recover(cx, &framework_id, agent_id, resources, None);
            }
        }
    }

    /// Whether the update is of a task that the master itself has declared ended on this agent.
    fn has_ended_here(&self, agent_id: &AgentId, update: &StatusUpdate) -> bool {
        let Some(framework) = self.state.framework(&update.framework_id) else {
            return false;
        };
        let task_id = &update.status.task_id;
        let live = framework.tasks.get(task_id);
        live.is_none_or(|task| task.agent_id != *agent_id)
            && (framework.was_declared_ended(task_id, agent_id)
                || self.state.lingers(agent_id, &update.framework_id, task_id))
    }

    /// What a lingering task holds is free when its agent says that it has ended. The end of a later task of the same id
    /// says nothing of it.
    fn release_lingering(
        &mut self,
        cx: &mut Context<'_, Self>,
        agent_id: &AgentId,
        (framework_id, task_id): (&FrameworkId, &TaskId),
        latest: TaskState,
    ) {
        let live = self.state.task_on(framework_id, task_id, agent_id);
        if !latest.is_terminal() || live.is_some_and(|task| !task.state.is_terminal()) {
            return;
        }
        let held = self.state.lingering_ended(agent_id, framework_id, task_id);
        if let Some(held) = held {
            self.recover(cx, framework_id, agent_id, held, None);
        }
    }
}
