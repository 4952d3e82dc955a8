//! Offers: made from what the allocator hands out, accepted, declined, taken back. Source: master.md §7.

use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::messages::agent::{RunTask, RunTaskGroup};
use meseta_protocol::messages::scheduler::{
    AcceptOffers, DeclineOffers, OfferRescinded, ResourceOffers,
};
use meseta_protocol::offer::{AllocationInfo, Filters, Offer, Url};
use meseta_protocol::operation::{LaunchGroup, Operation};
use meseta_protocol::resources::{Resource, Resources};
use meseta_protocol::status::{StatusReason, StatusSource, TaskState, TaskStatus};
use meseta_protocol::task::{Task, TaskGroupInfo, TaskInfo};
use meseta_protocol::{AgentId, FrameworkId, OfferId, UpdateId};
use meseta_runtime::planted::mistake;
use meseta_runtime::{Context, Pid};
use tracing::{debug, warn};

use crate::accept::{self, Accepted, GroupLaunch, Launch, Launches, RefusedOperation};
use crate::allocator::messages::{Allocated, Allocation};
use crate::leading::Serve;
use crate::master::Master;
use crate::state::Standing;

impl Serve<Allocated> for Master {
    fn serve(&mut self, cx: &mut Context<'_, Self>, from: &Pid, allocated: Allocated) {
        if self.allocator.as_ref() != Some(from) {
            warn!(%from, "offers dropped: they do not come from the allocator");
            return;
        }
        let id = allocated.framework_id;
        let active = self
            .state
            .framework(&id)
            .is_some_and(|framework| framework.standing == Standing::Active);
        let mut offers = Vec::new();
        for allocation in allocated.offers {
            let agent = self.state.agent(&allocation.agent_id);
            if agent.is_some_and(|agent| agent.entry != allocation.entry)
                && !mistake("master offers what was allocated before an agent came back")
            {
                // The agent has been entered anew since: the books do not know of this and may give it away again.
                debug!(agent = %allocation.agent_id, "allocation on an earlier entry of the agent dropped");
                continue;
            }
            let usable = active && agent.is_some_and(|agent| agent.connected);
            if usable {
                offers.extend(self.make_offer(cx, &id, allocation));
            } else {
                self.recover(cx, &id, &allocation.agent_id, allocation.resources, None);
            }
        }
        if !offers.is_empty() {
            debug!(framework = %id, count = offers.len(), "offers");
            self.tell_framework(cx, &id, ResourceOffers { offers });
        }
    }
}

impl Serve<DeclineOffers> for Master {
    fn serve(&mut self, cx: &mut Context<'_, Self>, from: &Pid, decline: DeclineOffers) {
        cx.metrics().count("master/messages_decline_offers");
        if !self.speaks_for(cx, from, &decline.framework_id) {
            return;
        }
        for id in &decline.offer_ids {
            if self.owns(&decline.framework_id, id) {
                self.return_offer(cx, id, Some(decline.filters));
            }
        }
    }
}

impl Serve<AcceptOffers> for Master {
    fn serve(&mut self, cx: &mut Context<'_, Self>, from: &Pid, accept: AcceptOffers) {
        cx.metrics().count("master/messages_launch_tasks");
        let id = &accept.framework_id;
        if !self.speaks_for(cx, from, id) {
            return;
        }
        match accept::check_offers(&self.state, id, &accept.offer_ids) {
            Ok(accepted) => {
                for offer in &accept.offer_ids {
                    self.state.remove_offer(offer);
                }
                self.apply(cx, id, accepted, accept.operations, accept.filters);
            }
            Err(invalid) => {
                warn!(framework = %id, %invalid, "accept refused");
                self.refuse_accept(cx, &accept, &invalid.to_string());
            }
        }
    }
}

impl Master {
    fn owns(&self, framework_id: &FrameworkId, offer: &OfferId) -> bool {
        self.state
            .offer(offer)
            .is_some_and(|outstanding| outstanding.offer.framework_id == *framework_id)
    }

    fn make_offer(
        &mut self,
        cx: &mut Context<'_, Self>,
        framework_id: &FrameworkId,
        allocation: Allocation,
    ) -> Option<Offer> {
        let id = self.new_offer_id();
        let agent = self.state.agent(&allocation.agent_id)?;
        let executor_ids = agent.executors.get(framework_id);
        let offer = Offer {
            id: id.clone(),
            framework_id: framework_id.clone(),
            agent_id: allocation.agent_id,
            hostname: agent.info.hostname.clone(),
            url: Some(Url {
                scheme: "http".to_owned(),
                address: meseta_protocol::agent::Address {
                    hostname: Some(agent.info.hostname.clone()),
                    ip: Some(agent.pid.address().host.to_string()),
                    port: agent.info.port,
                },
                path: Some(format!("/{}", agent.pid.id())),
            }),
            domain: agent.info.domain.clone(),
            resources: allocation.resources,
            attributes: agent.info.attributes.clone(),
            executor_ids: executor_ids.into_iter().flatten().cloned().collect(),
            unavailability: None,
            allocation_info: Some(AllocationInfo {
                role: Some(allocation.role.clone()),
            }),
        };
        self.state.add_offer(offer.clone(), allocation.role);
        if let Some(timeout) = self.config.offer_timeout {
            cx.after(timeout, move |master, cx| {
                master.take_back_offer(cx, &id, true);
            });
        }
        Some(offer)
    }

    /// Returns an offer's resources to the allocator.
    fn return_offer(&mut self, cx: &mut Context<'_, Self>, id: &OfferId, filters: Option<Filters>) {
        if let Some(taken) = self.state.remove_offer(id) {
            let offer = taken.offer;
            self.recover(
                cx,
                &offer.framework_id,
                &offer.agent_id,
                offer.resources,
                filters,
            );
        }
    }

    /// Takes an offer back, with or without a word to the framework. Does nothing when it is gone already.
    pub(crate) fn take_back_offer(
        &mut self,
        cx: &mut Context<'_, Self>,
        id: &OfferId,
        rescind: bool,
    ) {
        let Some(framework_id) = self.state.offer(id).map(|o| o.offer.framework_id.clone()) else {
            return;
        };
        if rescind {
            let offer_id = id.clone();
            self.tell_framework(cx, &framework_id, OfferRescinded { offer_id });
        }
        self.return_offer(cx, id, None);
    }

    /// Takes all offers of an agent back.
    pub(crate) fn take_back_agent_offers(&mut self, cx: &mut Context<'_, Self>, id: &AgentId) {
        let offers = self.state.agent(id).map(|agent| agent.offers.clone());
        for offer in offers.into_iter().flatten() {
            self.take_back_offer(cx, &offer, true);
        }
    }

    fn refuse_accept(&mut self, cx: &mut Context<'_, Self>, accept: &AcceptOffers, why: &str) {
        for offer in &accept.offer_ids {
            if self.owns(&accept.framework_id, offer) {
                self.return_offer(cx, offer, None);
            }
        }
        let aware = self.state.framework(&accept.framework_id).is_some_and(|f| {
            f.info
                .has(meseta_protocol::framework::FrameworkCapability::PartitionAware)
        });
        let state = if aware {
            TaskState::Dropped
        } else {
            TaskState::Lost
        };
        for task in accept.operations.iter().flat_map(accept::tasks_of) {
            let mut status = TaskStatus::new(task.task_id.clone(), state)
                .because(StatusSource::Master, StatusReason::InvalidOffers)
                .saying(format!("Task launched with invalid offers: {why}"));
            status.agent_id = Some(task.agent_id.clone());
            self.tell_end(cx, &accept.framework_id, status);
        }
    }

    /// Applies operations in their order to what was offered; what is left goes back with the call's filters.
    fn apply(
        &mut self,
        cx: &mut Context<'_, Self>,
        framework_id: &FrameworkId,
        accepted: Accepted,
        operations: Vec<Operation>,
        filters: Filters,
    ) {
        let Accepted {
            agent_id,
            role,
            resources: mut remaining,
        } = accepted;
        for operation in operations {
            match accept::launches(operation, &role, framework_id) {
                Ok(Launches::Tasks(tasks)) => {
                    self.launch_all(cx, framework_id, &agent_id, tasks, &mut remaining);
                }
                Ok(Launches::Group(group)) => {
                    self.launch_group(cx, framework_id, &agent_id, *group, &mut remaining);
                }
                Err(refused) => self.refuse_operation(cx, framework_id, refused),
            }
        }
        self.recover(cx, framework_id, &agent_id, remaining, Some(filters));
    }

    fn refuse_operation(
        &self,
        cx: &mut Context<'_, Self>,
        framework_id: &FrameworkId,
        refused: RefusedOperation,
    ) {
        let RefusedOperation {
            operation,
            tasks,
            reason,
            message,
        } = refused;
        warn!(framework = %framework_id, operation, message, "operation refused");
        for (task_id, named) in tasks {
            let status = TaskStatus::new(task_id, TaskState::Error)
                .because(StatusSource::Master, reason)
                .saying(message.clone());
            self.tell_error(cx, framework_id, named, status);
        }
    }

    fn launch_all(
        &mut self,
        cx: &mut Context<'_, Self>,
        framework_id: &FrameworkId,
        agent_id: &AgentId,
        tasks: Vec<TaskInfo>,
        remaining: &mut Resources,
    ) {
        for task in tasks {
            match accept::launch(&self.state, framework_id, agent_id, task, remaining) {
                Ok(launch) => self.launch(cx, framework_id, agent_id, launch, remaining),
                Err(refused) => {
                    let status = TaskStatus::new(refused.task_id, TaskState::Error)
                        .because(StatusSource::Master, refused.reason)
                        .saying(refused.message);
                    self.tell_error(cx, framework_id, refused.agent_id, status);
                }
            }
        }
    }

    fn launch(
        &mut self,
        cx: &mut Context<'_, Self>,
        framework_id: &FrameworkId,
        agent_id: &AgentId,
        launch: Launch,
        remaining: &mut Resources,
    ) {
        let Some(framework) = self.state.framework(framework_id) else {
            return;
        };
        let info = framework.info.clone();
        *remaining -= &launch.charged;
        if mistake("master gives back ports that a task has") {
            let is_port = |resource: &Resource| &*resource.name == "ports";
            *remaining += &launch.charged.filter(is_port);
        }
        let executor = launch.task.executor.clone();
        let is_new = executor.as_ref().filter(|_| launch.launch_executor);
        self.enter(
            framework_id,
            &info.user,
            std::slice::from_ref(&launch.task),
            is_new,
        );
        debug!(framework = %framework_id, task = %launch.task.task_id, agent = %agent_id, "task launched");
        let run = RunTask {
            framework_id: framework_id.clone(),
            framework: info,
            executor,
            launch_executor: launch.launch_executor,
            launch_uuid: UpdateId::from_bytes(*Self::new_uuid(cx).as_bytes()),
            task: launch.task,
            resource_version_uuids: Vec::new(),
        };
        self.tell_agent(cx, agent_id, run);
    }

    /// Launches a group of tasks with one message, or none of it.
    fn launch_group(
        &mut self,
        cx: &mut Context<'_, Self>,
        framework_id: &FrameworkId,
        agent_id: &AgentId,
        group: LaunchGroup,
        remaining: &mut Resources,
    ) {
        if group.task_group.tasks.is_empty() {
            return;
        }
        let Some(framework) = self.state.framework(framework_id) else {
            return;
        };
        let info = framework.info.clone();
        let launch = accept::launch_group(&self.state, framework_id, agent_id, group, remaining);
        let GroupLaunch {
            executor,
            tasks,
            launch_executor,
            charged,
        } = match launch {
            Ok(launch) => launch,
            Err(refused) => return self.refuse_operation(cx, framework_id, refused),
        };
        *remaining -= &charged;
        let is_new = Some(&executor).filter(|_| launch_executor);
        self.enter(framework_id, &info.user, &tasks, is_new);
        debug!(framework = %framework_id, tasks = tasks.len(), executor = %executor.executor_id, agent = %agent_id, "task group launched");
        let run = RunTaskGroup {
            framework_id: framework_id.clone(),
            framework: info,
            executor,
            task_group: TaskGroupInfo { tasks },
            launch_executor,
            launch_uuid: UpdateId::from_bytes(*Self::new_uuid(cx).as_bytes()),
            resource_version_uuids: Vec::new(),
        };
        self.tell_agent(cx, agent_id, run);
    }

    /// Enters tasks that are about to be launched, all on one agent, and their executor if it is a new one.
    fn enter(
        &mut self,
        framework_id: &FrameworkId,
        user: &str,
        tasks: &[TaskInfo],
        new_executor: Option<&ExecutorInfo>,
    ) {
        for task in tasks {
            self.state.add_task(Task::new(task, framework_id, user));
        }
        if let (Some(executor), Some(task)) = (new_executor, tasks.first()) {
            self.state
                .add_executor(framework_id, &task.agent_id, executor.clone());
        }
    }

    fn tell_error(
        &self,
        cx: &mut Context<'_, Self>,
        framework_id: &FrameworkId,
        named: AgentId,
        mut status: TaskStatus,
    ) {
        status.agent_id = Some(named);
        debug!(framework = %framework_id, task = %status.task_id, message = status.message, "task refused");
        self.tell_end(cx, framework_id, status);
    }
}
