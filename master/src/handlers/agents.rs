//! Registration, health and disconnection of agents. Source: master.md §3, §4.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meseta_protocol::agent::AgentInfo;
use meseta_protocol::common::DurationInfo;
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::framework::FrameworkCapability;
use meseta_protocol::messages::agent::{
    AgentRegistered, AgentReregistered, KillAgentTask, Ping, Pong, Reconciliation, RegisterAgent,
    ReregisterAgent, ShutdownAgent, ShutdownAgentExecutor, ShutdownFramework, UnregisterAgent,
    UpdateFramework,
};
use meseta_protocol::resources::Resources;
use meseta_protocol::status::{StatusReason, StatusSource, TaskState, TaskStatus};
use meseta_protocol::task::Task;
use meseta_protocol::{AgentId, FrameworkId, Role, TaskId};
use meseta_runtime::planted::mistake;
use meseta_runtime::{Context, Pid};
use tracing::{error, info, warn};

use super::departures::{GONE, REPLACED};
use crate::allocator::messages as allocator;
use crate::health::Verdict;
use crate::leading::Serve;
use crate::master::{Master, Transition};
use crate::registrar::{Applied, Apply, ApplyError};
use crate::registry::RegistryOperation;
use crate::registry::agents::LETS_IN;
use crate::state::{Agent, end_is_forwarded};
use crate::validation;

/// Why an agent is marked unreachable that answers no pings.
const SILENT: &str = "health check timed out";

impl Serve<RegisterAgent> for Master {
    fn serve(&mut self, cx: &mut Context<'_, Self>, from: &Pid, register: RegisterAgent) {
        cx.metrics().count("master/messages_register_slave");
        if let Err(rejection) = validation::agent::validate_registration(&register) {
            warn!(%from, %rejection, "agent not registered");
            return;
        }
        if self.registering.contains(from) || self.is_foreign(&register.agent) {
            return;
        }
        if let Some(id) = self.state.agent_at(from).cloned() {
            if self.state.agent(&id).is_some_and(|agent| agent.connected) {
                self.confirm(cx, from, id);
                return;
            }
            // Registered once the old one is out of the registry.
            let from = from.clone();
            self.remove_agent(cx, &id, REPLACED, move |master, cx| {
                master.serve(cx, &from, register);
            });
            return;
        }
        let mut info = register.agent.clone();
        let id = self.new_agent_id();
        info.id = Some(id.clone());
        self.registering.insert(from.clone());
        let from = from.clone();
        let operation = RegistryOperation::AdmitAgent {
            info: Arc::new(info.clone()),
        };
        self.store(cx, operation, move |master, cx, stored| {
            master.registering.remove(&from);
            if stored {
                cx.metrics().count("master/slave_registrations");
                let (version, capabilities) = (register.version, register.capabilities);
                let agent = Agent::new(info, from.clone(), version, capabilities, cx.wall());
                info!(agent = %id, %from, resources = %agent.total, "agent registered");
                master.admit_agent(cx, agent, Vec::new(), Vec::new());
                master.confirm(cx, &from, id);
            }
        });
    }
}

impl Serve<ReregisterAgent> for Master {
    fn serve(&mut self, cx: &mut Context<'_, Self>, from: &Pid, message: ReregisterAgent) {
        cx.metrics().count("master/messages_reregister_slave");
        let Some(id) = message.agent.id.clone() else {
            warn!(%from, "agent not registered again: it names no id");
            return;
        };
        if message.leader_epoch != 0 && message.leader_epoch != self.epoch() {
            warn!(agent = %id, %from, epoch = message.leader_epoch, "registration for another leadership dropped");
            cx.metrics().count("master/dropped_messages");
            return;
        }
        if self.transitions.contains_key(&id) {
            return;
        }
        if self.gone.contains_key(&id) && !mistake(LETS_IN) {
            let message = GONE.to_owned();
            self.lead(cx, from, ShutdownAgent { message });
            return;
        }
        if let Err(rejection) = validation::agent::validate_reregistration(&message) {
            warn!(agent = %id, %from, %rejection, "agent not registered again");
            return;
        }
        if self.is_foreign(&message.agent) {
            return;
        }
        if let Some(other) = self
            .state
            .agent_at(from)
            .cloned()
            .filter(|known| *known != id)
        {
            let from = from.clone();
            self.remove_agent(cx, &other, REPLACED, move |master, cx| {
                master.serve(cx, &from, message);
            });
            return;
        }
        let operation = match self.state.agent(&id) {
            Some(known)
                if known.pid.address().host != from.address().host
                    || known.info.hostname != message.agent.hostname =>
            {
                let message =
                    "Agent attempted to re-register with different IP / hostname".to_owned();
                self.lead(cx, from, ShutdownAgent { message });
                return;
            }
            Some(known) => changed(&known.info, &message.agent),
            None => match self.awaited.get(&id) {
                Some(stored) => changed(stored, &message.agent),
                None => Some(RegistryOperation::MarkAgentReachable {
                    info: Arc::new(message.agent.clone()),
                }),
            },
        };
        let from = from.clone();
        let Some(operation) = operation else {
            self.reregister(cx, &from, id, message);
            return;
        };
        self.transitions
            .insert(id.clone(), Transition::Reregistering);
        self.store(cx, operation, move |master, cx, stored| {
            master.transitions.remove(&id);
            if stored {
                master.reregister(cx, &from, id, message);
            }
        });
    }
}

impl Serve<UnregisterAgent> for Master {
    fn serve(&mut self, cx: &mut Context<'_, Self>, from: &Pid, message: UnregisterAgent) {
        cx.metrics().count("master/messages_unregister_slave");
        if self.state.agent_at(from) == Some(&message.agent_id) {
            self.remove_agent(cx, &message.agent_id, "the agent unregistered", |_, _| {});
        }
    }
}

impl Serve<Pong> for Master {
    fn serve(&mut self, cx: &mut Context<'_, Self>, from: &Pid, _: Pong) {
        if let Some(id) = self.state.agent_at(from).cloned()
            && let Some(agent) = self.state.unseen().agent_mut(&id)
        {
            agent.health.pong();
            // One that answers but does not register again is no better for it.
            if matches!(self.doomed.get(&id), Some((_, SILENT))) {
                self.is_well(cx, &id);
            }
        }
    }
}

/// What the registry must store of an agent that it holds as `stored`.
fn changed(stored: &AgentInfo, now: &AgentInfo) -> Option<RegistryOperation> {
    (stored != now).then(|| RegistryOperation::UpdateAgent {
        info: Arc::new(now.clone()),
    })
}

/// Registration.
impl Master {
    /// Whether an agent's domain keeps it out of this cluster.
    fn is_foreign(&self, info: &AgentInfo) -> bool {
        let foreign = info.domain.is_some() && self.info.domain.is_none();
        if foreign {
            warn!(
                hostname = info.hostname,
                "agent ignored: it has a domain but this master has none: give it --domain"
            );
        }
        foreign
    }

    /// Has the registrar store an operation; nothing of it shows before it is stored.
    pub(crate) fn store(
        &mut self,
        cx: &mut Context<'_, Self>,
        operation: RegistryOperation,
        then: impl FnOnce(&mut Self, &mut Context<'_, Self>, bool) + 'static,
    ) {
        let Some(registrar) = self.registrar.clone() else {
            return;
        };
        // It may have to wait for the entry before it, and for a truncation behind that.
        let limit = self.config.registry_store_timeout * 4;
        cx.ask(&registrar, Apply { operation }, limit, |master, cx, applied| {
            match applied {
                Ok(Applied { result: Ok(_) }) => then(master, cx, true),
                Ok(Applied { result: Err(ApplyError::Rejected(rejection)) }) => {
                    warn!(%rejection, "registry operation refused");
                    then(master, cx, false);
                }
                Ok(Applied { result: Err(ApplyError::Failed(why)) }) => {
                    error!(%why, "the registrar has failed: the master ends rather than guess");
                    cx.fail(why);
                }
                Err(error) => {
                    error!(%error, "the registrar does not answer: the master ends rather than guess");
                    cx.stop();
                }
            }
        });
    }

    fn confirm(&self, cx: &mut Context<'_, Self>, to: &Pid, agent_id: AgentId) {
        let registered = AgentRegistered {
            agent_id,
            total_ping_timeout: self.total_ping_timeout(),
        };
        self.lead(cx, to, registered);
    }

    fn total_ping_timeout(&self) -> DurationInfo {
        let total = self.config.agent_ping_timeout * self.config.max_agent_ping_timeouts;
        DurationInfo::from(total)
    }

    /// Adds an agent to the tables and the allocator, and begins to ping it.
    fn admit_agent(
        &mut self,
        cx: &mut Context<'_, Self>,
        mut agent: Agent,
        tasks: Vec<Task>,
        executors: Vec<(FrameworkId, ExecutorInfo)>,
    ) {
        let Some(agent_id) = agent.info.id.clone() else {
            return;
        };
        cx.link(&agent.pid);
        self.unreachable.remove(&agent_id);
        let chain = self.new_ping_chain();
        agent.ping_chain = chain;
        let entry = self.new_entry();
        agent.entry = entry;
        let info = agent.info.clone();
        let capabilities = agent.capabilities.to_vec();
        self.state.add_agent(agent, tasks, executors);
        let Some(agent) = self.state.agent(&agent_id) else {
            return;
        };
        let add = allocator::AddAgent {
            agent_id: agent_id.clone(),
            info,
            capabilities,
            entry,
            total: agent.total.clone(),
            used: agent.used.clone(),
        };
        self.tell_allocator(cx, add);
        self.ping(cx, &agent_id, chain);
    }

    fn reregister(
        &mut self,
        cx: &mut Context<'_, Self>,
        from: &Pid,
        id: AgentId,
        message: ReregisterAgent,
    ) {
        cx.metrics().count("master/slave_reregistrations");
        info!(agent = %id, %from, tasks = message.tasks.len(), "agent registered again");
        let completed: Vec<FrameworkId> = message
            .frameworks
            .iter()
            .filter_map(|info| info.id.clone())
            .filter(|framework| self.state.is_completed(framework))
            .collect();
        self.recover_frameworks(cx, &message, &completed);
        let known = self.state.agent(&id).is_some();
        let reconciliations = if known {
            self.reconcile_known(cx, from, &id, &message)
        } else {
            self.readmit(cx, from, &id, message, &completed);
            Vec::new()
        };
        let reregistered = AgentReregistered {
            agent_id: id,
            total_ping_timeout: self.total_ping_timeout(),
            reconciliations,
        };
        self.lead(cx, from, reregistered);
        for framework_id in completed {
            self.lead(cx, from, ShutdownFramework { framework_id });
        }
        self.tell_frameworks_to(cx, from);
    }

    /// Frameworks that only agents know until their scheduler comes.
    fn recover_frameworks(
        &mut self,
        cx: &mut Context<'_, Self>,
        message: &ReregisterAgent,
        completed: &[FrameworkId],
    ) {
        for info in &message.frameworks {
            let unknown = info
                .id
                .as_ref()
                .filter(|id| self.state.framework(id).is_none() && !completed.contains(id));
            if let Some(id) = unknown {
                info!(framework = %id, "framework recovered from an agent");
                self.admit_framework(cx, None, info.clone(), BTreeSet::new());
            }
        }
    }

    /// Tells an agent that has just come (back) of all schedulers.
    fn tell_frameworks_to(&self, cx: &mut Context<'_, Self>, to: &Pid) {
        for (id, framework) in self.state.frameworks().filter(|(_, f)| f.is_connected()) {
            let update = UpdateFramework {
                framework_id: id.clone(),
                framework_info: framework.info.clone(),
            };
            self.lead(cx, to, update);
        }
    }

    /// An agent that the master has in its tables: what differs is put right. Source: master.md §3.2a.
    fn reconcile_known(
        &mut self,
        cx: &mut Context<'_, Self>,
        from: &Pid,
        id: &AgentId,
        message: &ReregisterAgent,
    ) -> Vec<Reconciliation> {
        // Offers of what the agent had are taken back first: the allocator is told of it anew below.
        self.take_back_agent_offers(cx, id);
        let old = self.state.agent(id).map(|agent| agent.pid.clone());
        self.state.reconnect_agent(id, from, cx.wall());
        self.is_well(cx, id);
        let (info, version) = (message.agent.clone(), message.version.clone());
        self.state
            .update_agent(id, info.clone(), version, message.capabilities.clone());
        if let Some(old) = old.filter(|old| old != from) {
            cx.unlink(&old);
        }
        cx.link(from);

        let listed: BTreeMap<(FrameworkId, TaskId), &Task> = message
            .tasks
            .iter()
            .map(|task| ((task.framework_id.clone(), task.task_id.clone()), task))
            .collect();
        self.drop_unlisted_executors(cx, id, message, &listed);
        self.kill_what_should_not_run(cx, from, id, &listed);
        let over = listed.values().filter(|task| {
            self.state
                .task_on(&task.framework_id, &task.task_id, id)
                .is_none()
        });
        let lingering = self.lingering(over.copied());
        self.state.set_lingering(id, lingering);
        self.end_forgotten_executors(cx, from, id, message);
        let entry = self.new_entry();
        let used = self.state.agent_mut(id).map(|agent| {
            agent.entry = entry;
            agent.used.clone()
        });
        let add = allocator::AddAgent {
            agent_id: id.clone(),
            entry,
            total: info.resources.clone(),
            info,
            capabilities: message.capabilities.clone(),
            used: used.unwrap_or_default(),
        };
        self.tell_allocator(cx, add);
        let Some(agent) = self.state.agent(id) else {
            return Vec::new();
        };
        let (mut reconciliations, mut over) = (Vec::new(), Vec::new());
        for (framework_id, tasks) in &agent.tasks {
            let missing = tasks
                .iter()
                .filter(|task| !listed.contains_key(&(framework_id.clone(), (*task).clone())))
                .filter_map(|task| self.state.task(framework_id, task).cloned());
            // One that has ended is forgotten by its agent when its framework has acknowledged that.
            let (ended, missing): (Vec<_>, Vec<_>) =
                missing.partition(|task| task.state.is_terminal());
            over.extend(ended);
            if !missing.is_empty() {
                reconciliations.push(Reconciliation {
                    framework_id: framework_id.clone(),
                    tasks: missing,
                });
            }
        }
        for task in over {
            self.state.complete_task(&task.framework_id, &task.task_id);
        }
        reconciliations
    }

    /// What tasks that are over for their frameworks still hold on their agent: nothing when they are over there too.
    fn lingering<'a>(
        &self,
        listed: impl Iterator<Item = &'a Task>,
    ) -> BTreeMap<(FrameworkId, TaskId), Resources> {
        let known = |task: &&Task| self.state.framework(&task.framework_id).is_some();
        let held = listed.filter(known).map(|task| {
            let mut held = Resources::new();
            if !task.state.is_terminal() {
                held = task.resources.clone();
                self.give_role(&task.framework_id, &mut held);
            }
            ((task.framework_id.clone(), task.task_id.clone()), held)
        });
        held.collect()
    }

    /// Executors that run on although the master has given them up with their tasks: ended, and charged until they
    /// are.
    fn end_forgotten_executors(
        &mut self,
        cx: &mut Context<'_, Self>,
        from: &Pid,
        id: &AgentId,
        message: &ReregisterAgent,
    ) {
        for info in &message.executor_infos {
            let Some(framework) = info.framework_id.clone() else {
                continue;
            };
            let held = self.state.agent(id).is_some_and(|agent| {
                let executors = agent.executors.get(&framework);
                executors.is_some_and(|executors| executors.contains(&info.executor_id))
            });
            if held || self.state.framework(&framework).is_none() {
                continue;
            }
            let mut executor = info.clone();
            self.give_role(&framework, &mut executor.resources);
            self.state.add_executor(&framework, id, executor);
            let shutdown = ShutdownAgentExecutor {
                framework_id: framework,
                executor_id: info.executor_id.clone(),
            };
            self.lead(cx, from, shutdown);
        }
    }

    /// Executors that the agent does not list are gone, unless the launch of one may still be on its way: then a task of
    /// it is among those that the agent is asked for, and what it answers settles that.
    fn drop_unlisted_executors(
        &mut self,
        cx: &mut Context<'_, Self>,
        id: &AgentId,
        message: &ReregisterAgent,
        listed: &BTreeMap<(FrameworkId, TaskId), &Task>,
    ) {
        let Some(agent) = self.state.agent(id) else {
            return;
        };
        let unlisted = agent
            .executors
            .iter()
            .flat_map(|(framework, all)| {
                all.iter().map(move |one| (framework.clone(), one.clone()))
            })
            .filter(|(framework, executor)| {
                !message.executor_infos.iter().any(|info| {
                    info.executor_id == *executor && info.framework_id.as_ref() == Some(framework)
                })
            });
        let (unconfirmed, gone): (BTreeSet<_>, BTreeSet<_>) =
            unlisted.partition(|(framework, executor)| {
                let mut live = self.state.live_tasks_of(framework, id, executor);
                live.any(|task| {
                    let listed = listed.get(&(framework.clone(), task.clone()));
                    listed.is_none_or(|one| one.executor_id.as_ref() != Some(executor))
                })
            });
        self.state.set_unconfirmed(id, unconfirmed);
        for (framework, executor) in gone {
            if let Some(resources) = self.state.remove_executor(&framework, id, &executor) {
                self.recover(cx, &framework, id, resources, None);
            }
        }
    }

    /// Tasks whose kill may not have reached the agent, and tasks that their framework believes lost.
    fn kill_what_should_not_run(
        &mut self,
        cx: &mut Context<'_, Self>,
        from: &Pid,
        id: &AgentId,
        listed: &BTreeMap<(FrameworkId, TaskId), &Task>,
    ) {
        let Some(agent) = self.state.agent(id) else {
            return;
        };
        for ((framework_id, task_id), task) in listed {
            let unwanted = self.state.task_on(framework_id, task_id, id).is_none()
                || agent
                    .killed_tasks
                    .contains(&(framework_id.clone(), task_id.clone()));
            if unwanted && !task.state.is_terminal() {
                let kill = KillAgentTask {
                    framework_id: framework_id.clone(),
                    task_id: task_id.clone(),
                    kill_policy: None,
                };
                self.lead(cx, from, kill);
            }
        }
    }

    /// Whether a task that an agent brings with it is over for its framework: it was told so, or has started the id again
    /// on another agent meanwhile. When an agent is unreachable, its tasks are lost to frameworks that know no better, as
    /// every master tells them that knows the registry; but one whose end this master has forwarded ends by that.
    fn is_over(&self, task: &Task, agent_id: &AgentId, was_unreachable: bool) -> bool {
        let (id, framework_id) = (&task.task_id, &task.framework_id);
        if self.state.task(framework_id, id).is_some() {
            return true;
        }
        let Some(framework) = self.state.framework(framework_id) else {
            return false;
        };
        let has_ended = framework.unreachable_tasks.iter().any(|known| {
            known.task_id == *id && known.agent_id == *agent_id && end_is_forwarded(known)
        });
        let is_lost = was_unreachable && !framework.info.has(FrameworkCapability::PartitionAware);
        framework.was_declared_ended(id, agent_id) || is_lost && !has_ended
    }

    /// An agent that the master had lost, or that an earlier master knew. Source: master.md §3.2b.
    fn readmit(
        &mut self,
        cx: &mut Context<'_, Self>,
        from: &Pid,
        id: &AgentId,
        message: ReregisterAgent,
        completed: &[FrameworkId],
    ) {
        let was_awaited = self.awaited.settle(id);
        let was_unreachable = self.unreachable.contains_key(id);
        let (over, mut tasks): (Vec<Task>, Vec<Task>) = message
            .tasks
            .into_iter()
            .filter(|task| !completed.contains(&task.framework_id))
            .partition(|task| self.is_over(task, id, was_unreachable));
        self.state.take_unreachable(id);
        let lingering = self.lingering(over.iter());
        for task in over {
            let kill = KillAgentTask {
                framework_id: task.framework_id,
                task_id: task.task_id,
                kill_policy: None,
            };
            self.lead(cx, from, kill);
        }
        let mut executors: Vec<(FrameworkId, ExecutorInfo)> = message
            .executor_infos
            .into_iter()
            .filter_map(|info| Some((info.framework_id.clone()?, info)))
            .filter(|(framework, _)| !completed.contains(framework))
            .collect();
        for task in &mut tasks {
            self.give_role(&task.framework_id, &mut task.resources);
            self.state
                .revive_task(&task.framework_id, &task.task_id, id);
        }
        for (framework, executor) in &mut executors {
            self.give_role(framework, &mut executor.resources);
        }
        let mut agent = Agent::new(
            message.agent,
            from.clone(),
            message.version,
            message.capabilities,
            cx.wall(),
        );
        agent.reregistered = Some(cx.wall());
        agent.lingering = lingering;
        self.admit_agent(cx, agent, tasks.clone(), executors);
        for task in tasks {
            let text = if was_unreachable {
                "Unreachable agent re-reregistered"
            } else {
                "Unknown agent reregistered"
            };
            let state = crate::reconciliation::to_tell(&task);
            if state.is_terminal() || was_awaited {
                // The agent sends an end again until it is acknowledged. Of an agent that was awaited nothing else was
                // told meanwhile.
                continue;
            }
            let mut status = TaskStatus::new(task.task_id, state)
                .because(StatusSource::Master, StatusReason::AgentReregistered)
                .saying(text);
            status.agent_id = Some(id.clone());
            self.tell_status(cx, &task.framework_id, status);
        }
    }
}

/// Health.
impl Master {
    /// Resources that an agent reports as held but for which role it does not know count for its framework's first.
    fn give_role(&self, framework: &FrameworkId, resources: &mut Resources) {
        let roles = self
            .state
            .framework(framework)
            .map(|f| f.info.effective_roles());
        let first = roles.and_then(|roles| roles.into_iter().next());
        crate::accept::give_role(resources, &first.unwrap_or_else(Role::star));
    }

    /// Sends a ping now and comes back for the next, until the agent is taken out; one that is admitted again has a
    /// chain of its own.
    fn ping(&mut self, cx: &mut Context<'_, Self>, id: &AgentId, chain: u64) {
        let limit = if mistake("master takes one missed ping for all") {
            1
        } else {
            self.config.max_agent_ping_timeouts
        };
        let agent = self.state.unseen().agent_mut(id);
        let Some(agent) = agent.filter(|agent| agent.ping_chain == chain) else {
            return;
        };
        let verdict = agent.health.ping_due(limit);
        let (pid, connected) = (agent.pid.clone(), agent.connected);
        match verdict {
            Verdict::Ping => self.lead(cx, &pid, Ping { connected }),
            Verdict::Unreachable => self.mark_unreachable(cx, id, SILENT),
        }
        let id = id.clone();
        cx.after(self.config.agent_ping_timeout, move |master, cx| {
            master.ping(cx, &id, chain);
        });
    }

    pub(crate) fn agent_disconnected(&mut self, cx: &mut Context<'_, Self>, id: &AgentId) {
        let Some(agent) = self.state.agent(id).filter(|agent| agent.connected) else {
            return;
        };
        let hostname = agent.info.hostname.clone();
        self.take_back_agent_offers(cx, id);
        let Some(registration) = self.state.disconnect_agent(id) else {
            return;
        };
        let agent_id = id.clone();
        self.tell_allocator(cx, allocator::DeactivateAgent { agent_id });
        self.lose_uncheckpointed(cx, id, &hostname);
        let id = id.clone();
        let mut timeout = self.config.agent_reregister_timeout;
        if mistake("master waits half as long for an agent") {
            timeout /= 2;
        }
        cx.after(timeout, move |master, cx| {
            let away = master
                .state
                .agent(&id)
                .is_some_and(|agent| !agent.connected && agent.registration == registration);
            if away {
                master.mark_unreachable(cx, &id, "agent did not re-register in time");
            }
        });
    }

    /// Tasks of frameworks that do not checkpoint die with their agent's connection.
    fn lose_uncheckpointed(&mut self, cx: &mut Context<'_, Self>, id: &AgentId, hostname: &str) {
        let Some(agent) = self.state.agent(id) else {
            return;
        };
        let frail = |framework: &FrameworkId| {
            self.state
                .framework(framework)
                .is_some_and(|framework| !framework.info.checkpoint)
        };
        let tasks: Vec<(FrameworkId, TaskId)> = agent
            .tasks
            .iter()
            .filter(|(framework, _)| frail(framework))
            .flat_map(|(framework, tasks)| {
                tasks.iter().map(|task| (framework.clone(), task.clone()))
            })
            // What has ended waits for its acknowledgement: the agent sends it again when it is back.
            .filter(|(framework, task)| {
                let task = self.state.task(framework, task);
                task.is_some_and(|task| !task.state.is_terminal())
            })
            .collect();
        let executors: Vec<_> = agent
            .executors
            .iter()
            .filter(|(framework, _)| frail(framework))
            .flat_map(|(framework, all)| all.iter().map(|one| (framework.clone(), one.clone())))
            .collect();
        for (framework, task) in tasks {
            let status = TaskStatus::new(task.clone(), TaskState::Lost)
                .because(StatusSource::Master, StatusReason::AgentDisconnected)
                .saying(format!("Agent {hostname} disconnected"));
            self.end_task(cx, &framework, &task, id, status);
        }
        for (framework, executor) in executors {
            if let Some(resources) = self.state.remove_executor(&framework, id, &executor) {
                self.recover(cx, &framework, id, resources, None);
            }
        }
    }

    /// Ends a live task by the master's own decision, and tells its framework.
    fn end_task(
        &mut self,
        cx: &mut Context<'_, Self>,
        framework: &FrameworkId,
        task: &TaskId,
        agent: &AgentId,
        mut status: TaskStatus,
    ) {
        status.agent_id = Some(agent.clone());
        let freed = self
            .state
            .update_task(framework, task, status.state, &status);
        if let Some(resources) = freed {
            self.recover(cx, framework, agent, resources, None);
        }
        self.state.complete_task(framework, task);
        self.tell_end(cx, framework, status);
    }
}
