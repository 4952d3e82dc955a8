//! Registration, pings, changes of frameworks and the order to end. Source: agent.md §3.

use meseta_protocol::AgentId;
use meseta_protocol::agent::AgentInfo;
use meseta_protocol::common::DurationInfo;
use meseta_protocol::messages::agent::{
    AgentRegistered, AgentReregistered, Ping, Pong, Reconciliation, RegisterAgent, ReregisterAgent,
    ShutdownAgent, UpdateFramework,
};
use meseta_protocol::status::{StatusReason, TaskState};
use meseta_protocol::task::Task;
use meseta_runtime::Context;
use meseta_runtime::planted::mistake;
use tracing::{info, warn};

use super::status::Report;
use crate::agent::{Agent, FromMaster};
use crate::executors::Phase;
use crate::faults::Point;
use crate::registration::{Effect, Input};

impl FromMaster<AgentRegistered> for Agent {
    fn obey(&mut self, cx: &mut Context<'_, Self>, registered: AgentRegistered) {
        self.accepted(cx, registered.agent_id, registered.total_ping_timeout);
    }
}

impl FromMaster<AgentReregistered> for Agent {
    fn obey(&mut self, cx: &mut Context<'_, Self>, reregistered: AgentReregistered) {
        self.accepted(cx, reregistered.agent_id, reregistered.total_ping_timeout);
        for reconciliation in reregistered.reconciliations {
            self.reconcile(cx, reconciliation);
        }
    }
}

impl FromMaster<Ping> for Agent {
    fn obey(&mut self, cx: &mut Context<'_, Self>, ping: Ping) {
        let connected = ping.connected;
        self.registration_input(cx, Input::Ping { connected });
    }
}

impl FromMaster<UpdateFramework> for Agent {
    fn obey(&mut self, cx: &mut Context<'_, Self>, update: UpdateFramework) {
        let id = &update.framework_id;
        if let Some(framework) = self.tables.frameworks.get_mut(id) {
            if framework.terminating {
                return;
            }
            framework.info = update.framework_info;
            self.keep_framework(cx, id);
        }
        // A framework without executors here may still have updates on their way.
        let effects = self.updates.resume_framework(id);
        self.perform_updates(cx, effects);
    }
}

impl FromMaster<ShutdownAgent> for Agent {
    fn obey(&mut self, cx: &mut Context<'_, Self>, shutdown: ShutdownAgent) {
        self.leave(cx, &format!("the master says so: {}", shutdown.message));
    }
}

impl Agent {
    fn accepted(&mut self, cx: &mut Context<'_, Self>, id: AgentId, timeout: DurationInfo) {
        let ping_timeout = timeout.to_std();
        self.registration_input(cx, Input::Accepted { id, ping_timeout });
    }

    /// Feeds the registration machine and carries out what follows.
    pub(crate) fn registration_input(&mut self, cx: &mut Context<'_, Self>, input: Input) {
        for effect in self.registration.step(input, cx.random()) {
            match effect {
                Effect::Attempt => {
                    self.tell_if_unanswered();
                    self.register(cx);
                }
                Effect::ArmRetry { number, .. }
                    if number > 1 && mistake("agent asks only once to be let in") => {}
                Effect::ArmRetry { after, number } => {
                    cx.after(after, move |agent, cx| {
                        agent.registration_input(cx, Input::RetryDue(number));
                    });
                }
                Effect::ArmPing { after, number } => {
                    cx.after(after, move |agent, cx| {
                        agent.registration_input(cx, Input::PingOverdue(number));
                    });
                }
                Effect::Adopt(id) => {
                    info!(agent = %id, master = ?self.master, "registered");
                    self.info.id = Some(id);
                    self.keep_agent(cx);
                }
                Effect::Pause => self.updates.pause(),
                Effect::Resume => {
                    self.show_metrics(cx);
                    let effects = self.updates.resume();
                    self.perform_updates(cx, effects);
                    Point::Resumed.reach_in_turn(cx);
                }
                Effect::Pong if mistake("agent answers one ping thousands of times") => {
                    for _ in 0..5_000 {
                        self.tell_master(cx, Pong {});
                    }
                }
                Effect::Pong => self.tell_master(cx, Pong {}),
                Effect::Fail(reason) => self.fail(cx, &reason),
            }
        }
    }

    /// Says that nobody has answered yet, each time when it tries again: at first soon, later about once a minute.
    fn tell_if_unanswered(&self) {
        let attempts = self.registration.unanswered();
        if attempts > 0 {
            warn!(
                master = ?self.master, attempts,
                "no master answers: is one running there, and are its certificates of the same CA? Trying on"
            );
        }
    }

    fn register(&mut self, cx: &mut Context<'_, Self>) {
        if let Some(master) = &self.master {
            cx.link(master);
        }
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let agent = self.info.clone();
        let capabilities = Self::capabilities();
        if agent.id.is_none() {
            let register = RegisterAgent {
                agent,
                version,
                capabilities,
                ..RegisterAgent::default()
            };
            self.tell_master(cx, register);
        } else {
            let reregister = self.reregistration(agent, version);
            self.tell_master(cx, reregister);
        }
    }

    /// Everything that runs here, for a master that may know nothing of it.
    fn reregistration(&self, agent: AgentInfo, version: String) -> ReregisterAgent {
        let mut message = ReregisterAgent {
            agent,
            version,
            capabilities: Self::capabilities(),
            leader_epoch: self.detector.followed().epoch,
            ..ReregisterAgent::default()
        };
        // Nothing more is said of a framework that is being ended. A new master must not wait for the ends of its tasks.
        let live = self.tables.frameworks.iter();
        for (framework_id, framework) in live.filter(|(_, framework)| !framework.terminating) {
            message.frameworks.push(framework.info.clone());
            for executor in framework.executors.values() {
                if executor.phase != Phase::Terminated && !executor.generated {
                    let mut info = executor.info.clone();
                    info.framework_id = Some(framework_id.clone());
                    message.executor_infos.push(info);
                }
                let user = &framework.info.user;
                let queued = executor
                    .queued
                    .iter()
                    .map(|task| Task::new(task, framework_id, user));
                message.tasks.extend(queued);
                message.tasks.extend(executor.launched.values().cloned());
                message.tasks.extend(executor.terminated.values().cloned());
            }
        }
        let completed = self.tables.completed_frameworks.iter();
        message.completed_frameworks = completed
            .map(|(_, framework)| framework.info.clone())
            .collect();
        message
    }

    /// The master lists tasks that this agent did not: those that are not here have never arrived.
    fn reconcile(&mut self, cx: &mut Context<'_, Self>, reconciliation: Reconciliation) {
        let id = reconciliation.framework_id;
        for task in reconciliation.tasks {
            let framework = self.tables.framework(&id);
            if framework.is_some_and(|framework| framework.executor_of(&task.task_id).is_some()) {
                continue;
            }
            info!(framework = %id, task = %task.task_id, "the master knows a task that is not here");
            let report = Report {
                task_id: &task.task_id,
                executor_id: None,
                state: TaskState::Dropped,
                reason: StatusReason::Reconciliation,
                message: "Task is unknown to the agent",
            };
            self.report_unowned(cx, &id, &[report]);
        }
    }
}
