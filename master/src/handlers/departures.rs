//! How agents leave: unreachable, unregistered, replaced, or gone for good by an operator's word.
//! Source: master.md §3.5, §4.3, §13.
//!
//! Every one leaves the registry first, then the tables; only then frameworks hear of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use meseta_protocol::common::TimeInfo;
use meseta_protocol::framework::FrameworkCapability;
use meseta_protocol::messages::agent::ShutdownAgent;
use meseta_protocol::status::{StatusReason, StatusSource, TaskState, TaskStatus};
use meseta_protocol::task::Task;
use meseta_protocol::{AgentId, FrameworkId, TaskId};
use meseta_runtime::{Context, Pid};
use tracing::{info, warn};

use super::recovery::nanoseconds;
use crate::allocator::messages as allocator;
use crate::leading::Serve;
use crate::master::{Master, Transition};
use crate::operators::{AgentMarkedGone, MarkAgentGone};
use crate::registry::RegistryOperation;

/// Why an agent is removed when another registers at its address.
pub(super) const REPLACED: &str = "a new agent registered at the same address";

/// What an agent that is gone is told, and the frameworks of its tasks.
pub(super) const GONE: &str = "Agent has been marked gone";

/// Why an agent is not marked gone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotGone {
    /// No agent of this id is registered, awaited or unreachable.
    #[error("Agent '{0}' not found")]
    Unknown(AgentId),
    /// The registry stores something else of it just now.
    #[error("Agent '{0}' is in transition: try again")]
    Busy(AgentId),
}

/// How an agent has left.
enum Departure {
    /// It is out of the registry, for this reason.
    Removed(String),
    /// It does not answer, since when.
    Unreachable(&'static str, Duration),
    /// An operator says that it will never come back.
    Gone,
}

impl Departure {
    /// What its task is from now on.
    fn state(&self, aware: bool) -> TaskState {
        match self {
            Self::Unreachable(..) if aware => TaskState::Unreachable,
            Self::Gone if aware => TaskState::GoneByOperator,
            Self::Removed(_) | Self::Unreachable(..) | Self::Gone => TaskState::Lost,
        }
    }

    /// What the framework is told of a task that was live or whose end it has not heard.
    fn status(&self, agent_id: &AgentId, task: &Task) -> TaskStatus {
        let reason = if task.state == TaskState::GoneByOperator {
            StatusReason::AgentRemovedByOperator
        } else {
            StatusReason::AgentRemoved
        };
        let text = match self {
            Self::Removed(text) => text.as_str(),
            Self::Unreachable(text, _) => text,
            Self::Gone => GONE,
        };
        let mut status = TaskStatus::new(task.task_id.clone(), task.state)
            .because(StatusSource::Master, reason)
            .saying(text);
        status.agent_id = Some(agent_id.clone());
        if let Self::Unreachable(_, at) = self {
            status.unreachable_time = Some(TimeInfo {
                nanoseconds: i64::try_from(at.as_nanos()).unwrap_or(i64::MAX),
            });
        }
        status
    }
}

impl Serve<MarkAgentGone> for Master {
    fn serve(&mut self, cx: &mut Context<'_, Self>, from: &Pid, mark: MarkAgentGone) {
        info!(%from, agent = %mark.agent_id, "an operator marks an agent gone");
        let answer_to = cx.defer_reply();
        self.mark_gone(cx, &mark.agent_id, move |_, cx, marked| {
            let refused = marked.err().map(|why| why.to_string());
            if let Some(to) = &answer_to {
                cx.reply_later(to, AgentMarkedGone { refused });
            }
        });
    }
}

impl Master {
    /// Marks an agent unreachable as soon as the rate of removals allows it, unless it is well again by then.
    pub(super) fn mark_unreachable(
        &mut self,
        cx: &mut Context<'_, Self>,
        id: &AgentId,
        why: &'static str,
    ) {
        let known = self.state.agent(id).is_some() && !self.transitions.contains_key(id);
        if !known || self.doomed.contains_key(id) {
            return;
        }
        cx.metrics().count("master/slave_unreachable_scheduled");
        let wait = self.permits.take(cx.now());
        if wait.is_zero() {
            self.lose_contact(cx, id, why);
            return;
        }
        info!(agent = %id, why, ?wait, "agent is marked unreachable when the rate of removals allows it");
        let number = self.new_entry();
        self.doomed.insert(id.clone(), (number, why));
        let id = id.clone();
        cx.after(wait, move |master, cx| {
            if master.doomed.get(&id) == Some(&(number, why)) {
                master.doomed.remove(&id);
                master.lose_contact(cx, &id, why);
            }
        });
    }

    /// What an agent was to be marked unreachable for is over: if that is still to be done, it is not done.
    pub(super) fn is_well(&mut self, cx: &mut Context<'_, Self>, id: &AgentId) {
        if self.doomed.remove(id).is_some() {
            cx.metrics().count("master/slave_unreachable_canceled");
        }
    }

    fn lose_contact(&mut self, cx: &mut Context<'_, Self>, id: &AgentId, why: &'static str) {
        if self.transitions.contains_key(id) || self.state.agent(id).is_none() {
            cx.metrics().count("master/slave_unreachable_canceled");
            return;
        }
        warn!(agent = %id, why, "agent is marked unreachable");
        self.transitions
            .insert(id.clone(), Transition::MarkingUnreachable);
        self.store_unreachable(cx, id.clone(), move |master, cx, id, at| {
            master.unreachable.insert(id.clone(), at);
            master.lose_agent(cx, &id, &Departure::Unreachable(why, at));
        });
    }

    /// Removes an agent: first from the registry, then here, then `then`. Does nothing while something else is under
    /// way with it; whoever asked will ask again.
    pub(super) fn remove_agent(
        &mut self,
        cx: &mut Context<'_, Self>,
        id: &AgentId,
        why: &'static str,
        then: impl FnOnce(&mut Self, &mut Context<'_, Self>) + 'static,
    ) {
        let Some(agent) = self.state.agent(id) else {
            return;
        };
        let text = format!("Agent {} removed: {why}", agent.info.hostname);
        if self.transitions.contains_key(id) {
            return;
        }
        self.transitions.insert(id.clone(), Transition::Removing);
        info!(agent = %id, why, "agent removed");
        cx.metrics().count("master/slave_removals");
        let cause = if why == REPLACED {
            "registered"
        } else {
            "unregistered"
        };
        cx.metrics()
            .count(&format!("master/slave_removals/reason_{cause}"));
        let operation = RegistryOperation::RemoveAgent {
            agent_id: id.clone(),
        };
        let id = id.clone();
        self.store(cx, operation, move |master, cx, _| {
            // An agent that the registry does not hold is not held here either.
            master.transitions.remove(&id);
            master.lose_agent(cx, &id, &Departure::Removed(text));
            then(master, cx);
        });
    }

    /// Marks an agent gone: first in the registry, then here, then `then`. One that is gone already stays so.
    pub(crate) fn mark_gone(
        &mut self,
        cx: &mut Context<'_, Self>,
        id: &AgentId,
        then: impl FnOnce(&mut Self, &mut Context<'_, Self>, Result<(), NotGone>) + 'static,
    ) {
        let known = self.state.agent(id).is_some()
            || self.awaited.get(id).is_some()
            || self.unreachable.contains_key(id);
        let settled = if self.gone.contains_key(id) {
            Some(Ok(()))
        } else if self.transitions.contains_key(id) {
            Some(Err(NotGone::Busy(id.clone())))
        } else if !known {
            Some(Err(NotGone::Unknown(id.clone())))
        } else {
            None
        };
        if let Some(settled) = settled {
            then(self, cx, settled);
            return;
        }
        self.transitions.insert(id.clone(), Transition::MarkingGone);
        let at = cx.wall();
        let operation = RegistryOperation::MarkAgentGone {
            agent_id: id.clone(),
            at: nanoseconds(at),
        };
        let id = id.clone();
        self.store(cx, operation, move |master, cx, stored| {
            master.transitions.remove(&id);
            if stored {
                master.is_gone(cx, &id, at);
                then(master, cx, Ok(()));
            } else {
                // Its entry was old and has just been forgotten.
                then(master, cx, Err(NotGone::Unknown(id)));
            }
        });
    }

    /// The registry says that an agent is gone. Of the tasks of one that is awaited after a fail-over nothing is known;
    /// whoever asks about them hears it.
    fn is_gone(&mut self, cx: &mut Context<'_, Self>, id: &AgentId, at: Duration) {
        warn!(agent = %id, "agent is marked gone");
        self.gone.insert(id.clone(), at);
        self.unreachable.remove(id);
        self.awaited.settle(id);
        let message = GONE.to_owned();
        self.tell_agent(cx, id, ShutdownAgent { message });
        if self.state.agent(id).is_some() {
            self.lose_agent(cx, id, &Departure::Gone);
            return;
        }
        let aware = self.partition_aware();
        let state_of = |task: &Task| Departure::Gone.state(aware.contains(&task.framework_id));
        let lost = self.state.give_up_unreachable(id, state_of);
        // Of the others it was counted when the agent became unreachable, or when they ended.
        let ends = |task: &Task| task.state == TaskState::GoneByOperator;
        self.tell_lost(cx, id, &Departure::Gone, &lost, ends);
    }

    /// Frameworks that want to hear more of a lost task than TASK_LOST.
    fn partition_aware(&self) -> BTreeSet<FrameworkId> {
        let all = self.state.frameworks();
        all.filter(|(_, f)| f.info.has(FrameworkCapability::PartitionAware))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Tasks of an agent that have not ended.
    fn live_tasks(&self, id: &AgentId) -> BTreeSet<(FrameworkId, TaskId)> {
        let agent = self.state.agent(id);
        let all = agent.into_iter().flat_map(|agent| &agent.tasks);
        let all =
            all.flat_map(|(framework, tasks)| tasks.iter().map(move |task| (framework, task)));
        all.filter(|(framework, task)| {
            let task = self.state.task(framework, task);
            task.is_some_and(|task| !task.state.is_terminal())
        })
        .map(|(framework, task)| (framework.clone(), task.clone()))
        .collect()
    }

    /// Tells the frameworks of these tasks what became of them, and counts those that end by that.
    fn tell_lost(
        &mut self,
        cx: &mut Context<'_, Self>,
        id: &AgentId,
        how: &Departure,
        tasks: &[Arc<Task>],
        is_counted: impl Fn(&Task) -> bool,
    ) {
        for task in tasks {
            let mut status = how.status(id, task);
            status.timestamp = Some(cx.wall().as_secs_f64());
            self.state.note_lost(&task.framework_id, &status);
            if is_counted(task) {
                self.tell_end(cx, &task.framework_id, status);
            } else {
                self.tell_status(cx, &task.framework_id, status);
            }
        }
    }

    /// Takes an agent out of the tables and tells the frameworks what became of their tasks.
    fn lose_agent(&mut self, cx: &mut Context<'_, Self>, id: &AgentId, how: &Departure) {
        self.take_back_agent_offers(cx, id);
        let Some(agent) = self.state.agent(id) else {
            return;
        };
        if self.state.agent_at(&agent.pid) == Some(id) {
            cx.unlink(&agent.pid);
        }
        let live = self.live_tasks(id);
        let aware = self.partition_aware();
        let state_of = |task: &Task| how.state(aware.contains(&task.framework_id));
        let may_return = matches!(how, Departure::Unreachable(..));
        let Some(removed) = self.state.remove_agent(id, may_return, state_of) else {
            return;
        };
        let ends = |task: &Task| live.contains(&(task.framework_id.clone(), task.task_id.clone()));
        self.tell_lost(cx, id, how, &removed.tasks, ends);
        self.state.note_removed(id);
        let agent_id = id.clone();
        self.tell_allocator(cx, allocator::RemoveAgent { agent_id });
        self.doomed.remove(id);
        self.tell_all_agent_lost(cx, id);
    }
}
