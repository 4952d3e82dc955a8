//! Reconciliation: the latest state of tasks a framework asks for.
//!
//! Pure. Without questions it answers for every task the master holds; with them, for each the first case that
//! matches. Source: master.md §9.

use std::collections::BTreeMap;
use std::time::Duration;

use meseta_protocol::AgentId;
use meseta_protocol::common::TimeInfo;
use meseta_protocol::framework::FrameworkCapability;
use meseta_protocol::messages::scheduler::TaskQuestion;
use meseta_protocol::status::{StatusReason, StatusSource, TaskState, TaskStatus};
use meseta_protocol::task::Task;

use crate::state::{Framework, State};

/// What is known of agents.
pub struct Agents<'a> {
    /// Registered ones.
    pub state: &'a State,
    /// Unreachable ones, with the time since the Unix epoch.
    pub unreachable: &'a BTreeMap<AgentId, Duration>,
}

/// The answers to `questions`, or for all tasks when there are none.
pub fn answers(
    framework: &Framework,
    questions: &[TaskQuestion],
    agents: &Agents<'_>,
) -> Vec<TaskStatus> {
    if questions.is_empty() {
        return framework.tasks.values().map(latest).collect();
    }
    questions
        .iter()
        .map(|question| answer(framework, question, agents))
        .collect()
}

fn latest(task: &Task) -> TaskStatus {
    let state = task.status_update_state.unwrap_or(task.state);
    let mut status = TaskStatus::new(task.task_id.clone(), state)
        .because(StatusSource::Master, StatusReason::Reconciliation)
        .saying("Reconciliation: Latest task state");
    status.agent_id = Some(task.agent_id.clone());
    if let Some(last) = task.statuses.last() {
        status.healthy = last.healthy;
        status.check_status.clone_from(&last.check_status);
        status.container_status.clone_from(&last.container_status);
    }
    status
}

fn answer(framework: &Framework, question: &TaskQuestion, agents: &Agents<'_>) -> TaskStatus {
    if let Some(task) = framework.tasks.get(&question.task_id) {
        return latest(task);
    }
    let agent = question.agent_id.as_ref();
    let unreachable = agent.and_then(|id| agents.unreachable.get(id));
    let (state, message) = if agent.is_some_and(|id| agents.state.agent(id).is_some()) {
        (
            TaskState::Gone,
            "Reconciliation: Task is unknown to the agent",
        )
    } else if unreachable.is_some() {
        (
            TaskState::Unreachable,
            "Reconciliation: Task is unreachable",
        )
    } else {
        (TaskState::Unknown, "Reconciliation: Task is unknown")
    };
    let state = if framework.info.has(FrameworkCapability::PartitionAware) {
        state
    } else {
        state.for_partition_unaware()
    };
    let mut status = TaskStatus::new(question.task_id.clone(), state)
        .because(StatusSource::Master, StatusReason::Reconciliation)
        .saying(message);
    status.agent_id.clone_from(&question.agent_id);
    status.unreachable_time = unreachable.map(|at| TimeInfo {
        nanoseconds: i64::try_from(at.as_nanos()).unwrap_or(i64::MAX),
    });
    status
}
