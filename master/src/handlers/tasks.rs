//! What a framework asks about its tasks and executors: kill, reconcile, messages. Source: master.md §5.8, §9.

use meseta_protocol::FrameworkId;
use meseta_protocol::messages::agent::{
    ExecutorToFramework, FrameworkToExecutor, KillAgentTask, ShutdownAgentExecutor,
};
use meseta_protocol::messages::scheduler::{
    ExecutorMessage, FrameworkMessage, KillTask, ReconcileTasks, ShutdownExecutor, TaskQuestion,
};
use meseta_runtime::planted::mistake;
use meseta_runtime::{Context, Pid};
use tracing::{debug, info};

use crate::leading::Serve;
use crate::master::Master;
use crate::reconciliation::{self, Agents};
use crate::registrar::Storage;

impl Serve<KillTask> for Master {
    fn serve(&mut self, cx: &mut Context<'_, Self>, from: &Pid, kill: KillTask) {
        cx.metrics().count("master/messages_kill_task");
        let id = &kill.framework_id;
        if !self.speaks_for(cx, from, id) {
            return;
        }
        let Some(task) = self.state.task(id, &kill.task_id) else {
            info!(framework = %id, task = %kill.task_id, "kill of an unknown task answered by reconciliation");
            assert!(!mistake("master panics over a kill"), "planted");
            let question = TaskQuestion {
                task_id: kill.task_id,
                agent_id: kill.agent_id,
            };
            self.answer(cx, id, &[question]);
            return;
        };
        let agent_id = task.agent_id.clone();
        if kill
            .agent_id
            .as_ref()
            .is_some_and(|named| *named != agent_id)
        {
            debug!(framework = %id, task = %kill.task_id, "kill dropped: the task runs on another agent");
            cx.metrics().count("master/dropped_messages");
            return;
        }
        if let Some(agent) = self.state.agent_mut(&agent_id) {
            agent
                .killed_tasks
                .insert((id.clone(), kill.task_id.clone()));
        }
        let message = KillAgentTask {
            framework_id: id.clone(),
            task_id: kill.task_id,
            kill_policy: kill.kill_policy,
        };
        self.tell_agent(cx, &agent_id, message);
    }
}

impl Serve<ShutdownExecutor> for Master {
    fn serve(&mut self, cx: &mut Context<'_, Self>, from: &Pid, shutdown: ShutdownExecutor) {
        if self.speaks_for(cx, from, &shutdown.framework_id) {
            let message = ShutdownAgentExecutor {
                framework_id: shutdown.framework_id,
                executor_id: shutdown.executor_id,
            };
            self.tell_agent(cx, &shutdown.agent_id, message);
        }
    }
}

impl Serve<FrameworkMessage> for Master {
    fn serve(&mut self, cx: &mut Context<'_, Self>, from: &Pid, message: FrameworkMessage) {
        cx.metrics().count("master/messages_framework_to_executor");
        if !self.speaks_for(cx, from, &message.framework_id) {
            cx.metrics()
                .count("master/invalid_framework_to_executor_messages");
            return;
        }
        let agent_id = message.agent_id.clone();
        let forwarded = FrameworkToExecutor {
            agent_id: message.agent_id,
            framework_id: message.framework_id,
            executor_id: message.executor_id,
            data: message.data,
        };
        let outcome = if self.tell_agent(cx, &agent_id, forwarded) {
            "master/valid_framework_to_executor_messages"
        } else {
            "master/invalid_framework_to_executor_messages"
        };
        cx.metrics().count(outcome);
    }
}

impl Serve<ExecutorToFramework> for Master {
    fn serve(&mut self, cx: &mut Context<'_, Self>, from: &Pid, message: ExecutorToFramework) {
        cx.metrics().count("master/messages_executor_to_framework");
        let genuine = self.state.agent_at(from) == Some(&message.agent_id);
        let forwarded = ExecutorMessage {
            agent_id: message.agent_id,
            executor_id: message.executor_id,
            data: message.data,
        };
        let outcome = if genuine && self.tell_framework(cx, &message.framework_id, forwarded) {
            "master/valid_executor_to_framework_messages"
        } else {
            "master/invalid_executor_to_framework_messages"
        };
        cx.metrics().count(outcome);
    }
}

impl Serve<ReconcileTasks> for Master {
    fn serve(&mut self, cx: &mut Context<'_, Self>, from: &Pid, reconcile: ReconcileTasks) {
        cx.metrics().count("master/messages_reconcile_tasks");
        if self.speaks_for(cx, from, &reconcile.framework_id) {
            self.answer(cx, &reconcile.framework_id, &reconcile.tasks);
        }
    }
}

impl Master {
    fn answer(&self, cx: &mut Context<'_, Self>, id: &FrameworkId, questions: &[TaskQuestion]) {
        let Some(framework) = self.state.framework(id) else {
            return;
        };
        // With a registry in memory, a first master has nothing to wait for, and a later one does not know which agents
        // its predecessor had.
        let forgetful = matches!(self.config.registry, Storage::Memory);
        let agents = Agents {
            state: &self.state,
            unreachable: &self.unreachable,
            gone: &self.gone,
            awaited: &self.awaited,
            own_prefix: self.info.id.as_str(),
            recovering: forgetful
                && self.epoch() > 1
                && self.uptime(cx)
                    < self.config.agent_ping_timeout * self.config.max_agent_ping_timeouts,
        };
        for status in reconciliation::answers(framework, questions, &agents) {
            self.tell_status(cx, id, status);
        }
    }
}
