//! Status updates: from executors and from the agent itself, to the master; acknowledgements, back.
//! Source: agent.md §6.

use meseta_protocol::container::{ContainerStatus, IpAddress, IpProtocol, NetworkInfo};
use meseta_protocol::messages::agent::{AcknowledgeAgentStatus, UpdateStatus};
use meseta_protocol::messages::executor::{UpdateAcknowledged, UpdateTask};
use meseta_protocol::status::{StatusReason, StatusSource, StatusUpdate, TaskState, TaskStatus};
use meseta_protocol::{ExecutorId, FrameworkId, TaskId, UpdateId};
use meseta_runtime::{Context, Pid, Receive};
use tracing::{debug, warn};

use crate::agent::{Agent, FromMaster};
use crate::executors::{Phase, UpdateVerdict};
use crate::faults::Point;
use crate::status_updates::{Effect, Input, Key, Record};

impl Receive<UpdateTask> for Agent {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, message: UpdateTask) {
        let named = (message.framework_id, message.executor_id);
        if self
            .speaker(cx, from)
            .is_none_or(|speaker| *speaker != named)
        {
            warn!(%from, task = %message.status.task_id, "status update dropped: its sender is not the executor it names");
            cx.metrics().count("slave/invalid_status_updates");
            return;
        }
        // It repeats it while the word that it has arrived is still under way, or was lost with a connection.
        let executor = self.tables.executor(&named.0, &named.1);
        if let Some(uuid) = message.status.uuid
            && executor.is_some_and(|executor| executor.is_past(&message.status))
        {
            let task_id = message.status.task_id;
            debug!(task = %task_id, state = %message.status.state, "an executor repeats what is over");
            cx.send(from, UpdateAcknowledged { task_id, uuid });
            return;
        }
        let update = StatusUpdate {
            framework_id: named.0,
            executor_id: message
                .status
                .executor_id
                .clone()
                .or_else(|| Some(named.1.clone())),
            agent_id: message.status.agent_id.clone(),
            timestamp: message
                .status
                .timestamp
                .unwrap_or_else(|| cx.wall().as_secs_f64()),
            uuid: message.status.uuid,
            latest_state: None,
            status: message.status,
        };
        self.take_update(cx, update, (from, &named.1));
    }
}

impl FromMaster<AcknowledgeAgentStatus> for Agent {
    fn obey(&mut self, cx: &mut Context<'_, Self>, ack: AcknowledgeAgentStatus) {
        if Some(&ack.agent_id) != self.info.id.as_ref() {
            return;
        }
        let key: Key = (ack.framework_id, ack.task_id);
        self.stream(cx, &key, Input::Acknowledged(ack.uuid));
    }
}

/// How the agent reports on a task by itself.
pub(crate) struct Report<'a> {
    pub(crate) task_id: &'a TaskId,
    pub(crate) executor_id: Option<&'a ExecutorId>,
    pub(crate) state: TaskState,
    pub(crate) reason: StatusReason,
    pub(crate) message: &'a str,
}

/// An update that is in the tables.
struct Taken {
    key: Key,
    uuid: UpdateId,
    /// Whether its task is or was some executor's.
    is_owned: bool,
    /// The update, when the framework is to hear it.
    news: Option<StatusUpdate>,
}

impl Agent {
    /// Reports the ends of tasks that are here, as the agent has decided them; they are written down with one commit. The
    /// framework must be known.
    pub(crate) fn report(
        &mut self,
        cx: &mut Context<'_, Self>,
        framework_id: &FrameworkId,
        reports: &[Report<'_>],
    ) {
        let mut news = Vec::new();
        for report in reports {
            let update = self.reported(cx, framework_id, report);
            news.extend(self.take_in(cx, update, None).and_then(|taken| taken.news));
        }
        self.forward_news(cx, news);
    }

    /// Reports tasks that are not here and will not be: straight to the master, whatever runs or ran under their ids.
    pub(crate) fn report_unowned(
        &mut self,
        cx: &mut Context<'_, Self>,
        framework_id: &FrameworkId,
        reports: &[Report<'_>],
    ) {
        let mut news = Vec::new();
        for report in reports {
            let mut update = self.reported(cx, framework_id, report);
            update.agent_id = Some(self.id());
            update.status.agent_id = Some(self.id());
            update.status.uuid = update.uuid;
            news.push(update);
        }
        self.forward_news(cx, news);
    }

    fn reported(
        &self,
        cx: &mut Context<'_, Self>,
        framework_id: &FrameworkId,
        report: &Report<'_>,
    ) -> StatusUpdate {
        // A framework that has nothing here is told the oldest form, which every one understands.
        let state = self.tables.framework(framework_id).map_or_else(
            || report.state.for_partition_unaware(),
            |framework| framework.state_for(report.state),
        );
        let mut status = TaskStatus::new(report.task_id.clone(), state)
            .because(StatusSource::Agent, report.reason)
            .saying(report.message);
        let timestamp = cx.wall().as_secs_f64();
        status.timestamp = Some(timestamp);
        status.executor_id = report.executor_id.cloned();
        StatusUpdate {
            framework_id: framework_id.clone(),
            executor_id: status.executor_id.clone(),
            agent_id: None,
            timestamp,
            uuid: Some(Self::new_uuid(cx)),
            latest_state: None,
            status,
        }
    }

    fn forward_news(
        &mut self,
        cx: &mut Context<'_, Self>,
        news: impl IntoIterator<Item = StatusUpdate>,
    ) {
        let mut effects = Vec::new();
        for update in news {
            cx.metrics().count("slave/valid_status_updates");
            crate::metrics::count_end(cx.metrics(), update.status.state);
            let key: Key = (update.framework_id.clone(), update.status.task_id.clone());
            let more = self.updates.step(&key, Input::Updated(Box::new(update)));
            effects.extend(more.into_iter().map(|effect| (key.clone(), effect)));
        }
        self.perform_updates(cx, effects);
    }

    /// Takes an update of an executor (its PID and id): into the tables, into the stream, and then, with the stream holding
    /// it, acknowledged to the executor.
    pub(crate) fn take_update(
        &mut self,
        cx: &mut Context<'_, Self>,
        update: StatusUpdate,
        (from, speaker): (&Pid, &ExecutorId),
    ) {
        let Some(taken) = self.take_in(cx, update, Some(speaker)) else {
            return;
        };
        self.forward_news(cx, taken.news);
        let Taken { key, uuid, .. } = taken;
        if taken.is_owned
            && self
                .tables
                .executor(&key.0, speaker)
                .is_some_and(|executor| executor.listener() == Some(from))
        {
            let task_id = key.1;
            cx.send(from, UpdateAcknowledged { task_id, uuid });
            Point::UpdateTaken.reach_in_turn(cx);
        }
    }

    /// Takes an update of an executor or of the agent into the tables. None when it is nobody's to make.
    fn take_in(
        &mut self,
        cx: &mut Context<'_, Self>,
        mut update: StatusUpdate,
        speaker: Option<&ExecutorId>,
    ) -> Option<Taken> {
        let own_id = self.id();
        let Some(uuid) = update.uuid else {
            warn!(task = %update.status.task_id, "status update without a uuid dropped");
            cx.metrics().count("slave/invalid_status_updates");
            return None;
        };
        let foreign = update.agent_id.as_ref().is_some_and(|id| *id != own_id);
        let framework = self.tables.framework(&update.framework_id);
        let Some(framework) = framework.filter(|framework| !framework.terminating && !foreign)
        else {
            debug!(framework = %update.framework_id, task = %update.status.task_id, "status update of an ended framework or another agent dropped");
            cx.metrics().count("slave/invalid_status_updates");
            return None;
        };
        let task_id = &update.status.task_id;
        // One that is over belongs to nobody, but an executor may still speak of it.
        let owner = framework.executor_of(task_id).cloned().or_else(|| {
            let speaker = speaker?;
            let had = framework.executors.get(speaker)?.has_had(task_id);
            had.then(|| speaker.clone())
        });
        update.agent_id = Some(own_id.clone());
        update.status.agent_id = Some(own_id);
        update.status.uuid = Some(uuid);
        update.status.timestamp.get_or_insert(update.timestamp);
        if speaker.is_some() {
            update.status.source = Some(StatusSource::Executor);
        }
        let key: Key = (update.framework_id.clone(), update.status.task_id.clone());
        if speaker.is_some() && update.status.state == TaskState::Staging {
            warn!(task = %key.1, "an executor says TASK_STAGING, which is not its to say: it is shut down");
            if let Some(executor_id) = &owner {
                self.shut_down_executor(cx, &key.0, executor_id);
            }
            return None;
        }
        let verdict = self.apply(cx, &mut update, owner.as_ref());
        Some(Taken {
            key,
            uuid,
            is_owned: owner.is_some(),
            news: Some(update).filter(|_| verdict == UpdateVerdict::Forward),
        })
    }

    /// Takes an update into the tables. One for a task that no executor has is always news: what an executor repeats of a
    /// task that is over has been sorted out before.
    fn apply(
        &mut self,
        cx: &Context<'_, Self>,
        update: &mut StatusUpdate,
        owner: Option<&ExecutorId>,
    ) -> UpdateVerdict {
        let key: Key = (update.framework_id.clone(), update.status.task_id.clone());
        if update
            .uuid
            .is_some_and(|uuid| self.updates.knows(&key, &uuid))
        {
            return UpdateVerdict::Stale;
        }
        let found = owner.and_then(|id| self.tables.executor_with_user(&key.0, id));
        let Some((executor, user)) = found else {
            return UpdateVerdict::Forward;
        };
        if executor.launched.contains_key(&key.1) {
            // Only who gave a task networks of its own knows them.
            let told = update.status.container_status.take();
            let mut network_infos = told.map_or_else(Vec::new, |told| told.network_infos);
            if network_infos.is_empty() {
                network_infos.push(network(&cx.address().host));
            }
            update.status.container_status = Some(ContainerStatus {
                container_id: Some(executor.container_id.clone()),
                network_infos,
                executor_pid: executor.container.process(),
            });
        }
        let verdict = executor.update(&update.status, (&key.0, &user));
        if verdict == UpdateVerdict::Stale {
            debug!(task = %key.1, state = %update.status.state, "status update of an ended or waiting task not forwarded");
        }
        verdict
    }

    /// Feeds one stream and carries out what follows.
    pub(crate) fn stream(&mut self, cx: &mut Context<'_, Self>, key: &Key, input: Input) {
        let effects = self.updates.step(key, input);
        let effects = effects
            .into_iter()
            .map(|effect| (key.clone(), effect))
            .collect();
        self.perform_updates(cx, effects);
    }

    /// Carries out what streams want done. What is new is written down first, all with one commit.
    pub(crate) fn perform_updates(
        &mut self,
        cx: &mut Context<'_, Self>,
        effects: Vec<(Key, Effect)>,
    ) {
        let mut news = Vec::new();
        let mut later = Vec::new();
        for (key, effect) in effects {
            if let Effect::Checkpoint(Record::Updated(update)) = effect {
                news.push(*update);
            } else {
                later.push((key, effect));
            }
        }
        if !news.is_empty() {
            self.keep_updates(cx, news);
            Point::UpdateKept.reach_in_turn(cx);
        }
        for (key, effect) in later {
            match effect {
                // Taken out above.
                Effect::Checkpoint(Record::Updated(_)) => {}
                Effect::Checkpoint(Record::Acknowledged { update, forgotten }) => {
                    self.keep_acknowledgement(cx, *update, forgotten);
                    Point::AcknowledgementKept.reach_in_turn(cx);
                }
                Effect::Forward(update) => {
                    self.note_forwarded(&key, &update);
                    self.tell_master(cx, UpdateStatus { update: *update });
                    Point::UpdateForwarded.reach_in_turn(cx);
                }
                Effect::Arm { after, number } => {
                    cx.after(after, move |agent, cx| {
                        agent.stream(cx, &key, Input::RetryDue(number));
                    });
                }
                Effect::Finished => {
                    self.forget_task(cx, &key);
                    Point::EndForgotten.reach_in_turn(cx);
                    self.task_completed(cx, &key);
                }
            }
        }
    }

    fn note_forwarded(&mut self, (framework_id, task_id): &Key, update: &StatusUpdate) {
        let framework = self.tables.framework(framework_id);
        let owner = framework
            .and_then(|framework| framework.executor_of(task_id))
            .cloned();
        if let Some(executor_id) = owner
            && let Some(executor) = self.tables.executor_mut(framework_id, &executor_id)
        {
            executor.forwarded(task_id, update.status.state, update.uuid);
        }
    }

    /// The framework has dealt with a task's end.
    fn task_completed(&mut self, cx: &mut Context<'_, Self>, (framework_id, task_id): &Key) {
        let Some(executor_id) = self.tables.complete(framework_id, task_id) else {
            return;
        };
        let executor = self.tables.executor(framework_id, &executor_id);
        if executor.is_some_and(|executor| executor.phase == Phase::Terminated) {
            self.clean_up(cx, framework_id, &executor_id);
        }
    }
}

fn network(host: &str) -> NetworkInfo {
    let protocol = if host.contains(':') {
        IpProtocol::V6
    } else {
        IpProtocol::V4
    };
    NetworkInfo {
        ip_addresses: vec![IpAddress {
            protocol,
            ip_address: Some(host.to_owned()),
        }],
        ..NetworkInfo::default()
    }
}
