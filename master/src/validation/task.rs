//! Tasks that a framework wants to launch.
//!
//! Pure. [`validate`] applies its rules in a fixed order and reports the first that is broken: 1 the id's text,
//! 2 the id's use, 3 the agent, 4 and 5 lengths of time, 6 check, 7 health check, 8 resources, 9 command,
//! 10 container, 11 limits, 12 command or executor, 13 executor, 14 both together, 15 whether the offers suffice,
//! 16 control groups. Tasks of a group keep 1 to 11 each (`group.rs`). Source: Mesos
//! `src/master/validation.cpp` (`task`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use meseta_protocol::agent::AgentCapability;
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::ids::{IdError, validate_id};
use meseta_protocol::resources::Resources;
use meseta_protocol::status::StatusReason;
use meseta_protocol::task::{Task, TaskInfo};
use meseta_protocol::{AgentId, ExecutorId, FrameworkId, TaskId};

use super::check::{CheckRejection, validate_check, validate_health_check};
use super::container::{
    CommandRejection, ContainerRejection, share_cgroups, validate_command, validate_container,
};
use super::executor::{self, ExecutorRejection};
use super::resources::{
    self, ResourcesRejection, validate_no_overlap, validate_no_revocable_mix, validate_single_role,
    validate_unique_persistence,
};
use crate::state::State;

/// What the master knows around a task.
#[derive(Debug, Clone, Copy)]
pub struct TaskSurroundings<'a> {
    /// Framework that launches.
    pub framework_id: &'a FrameworkId,
    /// Agent of the offers.
    pub agent_id: &'a AgentId,
    /// What that agent can do.
    pub agent_capabilities: &'a [AgentCapability],
    /// The framework's tasks, those of earlier operations of the same call included.
    pub tasks: &'a BTreeMap<TaskId, Arc<Task>>,
    /// Its tasks on agents that cannot be reached.
    pub unreachable_tasks: &'a VecDeque<Arc<Task>>,
    /// Its executors on the agent, those of earlier operations of the same call included: they are paid for.
    pub executors: &'a BTreeMap<ExecutorId, Arc<ExecutorInfo>>,
    /// What is left of the offers.
    pub remaining: &'a Resources,
}

static NO_TASKS: BTreeMap<TaskId, Arc<Task>> = BTreeMap::new();
static NO_UNREACHABLE_TASKS: VecDeque<Arc<Task>> = VecDeque::new();
static NO_EXECUTORS: BTreeMap<ExecutorId, Arc<ExecutorInfo>> = BTreeMap::new();

impl<'a> TaskSurroundings<'a> {
    /// What the tables say.
    pub fn of(
        state: &'a State,
        framework_id: &'a FrameworkId,
        agent_id: &'a AgentId,
        remaining: &'a Resources,
    ) -> Self {
        let framework = state.framework(framework_id);
        let executors = framework.and_then(|framework| framework.executors.get(agent_id));
        Self {
            framework_id,
            agent_id,
            agent_capabilities: state
                .agent(agent_id)
                .map_or(&[], |agent| &agent.capabilities),
            tasks: framework.map_or(&NO_TASKS, |framework| &framework.tasks),
            unreachable_tasks: framework.map_or(&NO_UNREACHABLE_TASKS, |framework| {
                &framework.unreachable_tasks
            }),
            executors: executors.unwrap_or(&NO_EXECUTORS),
            remaining,
        }
    }
}

/// Why a task is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TaskRejection {
    /// 1: the id cannot be one.
    #[error(transparent)]
    Id(#[from] IdError),
    /// 2: another task has the id.
    #[error("Task has duplicate ID: {0}")]
    DuplicateId(TaskId),
    /// 2: a task that may come back has the id.
    #[error("Task reuses the ID of an unreachable task: {0}")]
    UnreachableId(TaskId),
    /// 3: it wants to run elsewhere.
    #[error("Task uses invalid agent {actual} while agent {expected} is expected")]
    OtherAgent {
        /// Agent it names.
        actual: AgentId,
        /// Agent of the offers.
        expected: AgentId,
    },
    /// 4: a negative length of time.
    #[error("Task's 'kill_policy.grace_period' must be non-negative")]
    NegativeGracePeriod,
    /// 5: a negative length of time.
    #[error("Task's `max_completion_time` must be non-negative")]
    NegativeCompletionTime,
    /// 6: a bad check.
    #[error("Task uses invalid check: {0}")]
    Check(#[source] CheckRejection),
    /// 7: a bad health check.
    #[error("Task uses invalid health check: {0}")]
    HealthCheck(#[source] CheckRejection),
    /// 8: nothing to run with.
    #[error("Task uses no resources")]
    NoResources,
    /// 8: bad resources.
    #[error("Task uses invalid resources: {0}")]
    Resources(#[source] ResourcesRejection),
    /// 8: a volume twice.
    #[error("Task uses duplicate persistence ID: {0}")]
    Persistence(#[source] ResourcesRejection),
    /// 8: several roles.
    #[error("Invalid task resources: {0}")]
    Roles(#[source] ResourcesRejection),
    /// 8: what may be taken back, and what may not.
    #[error("Task mixes revocable and non-revocable resources: {0}")]
    RevocableMix(#[source] ResourcesRejection),
    /// 9: a bad command.
    #[error("Task's `CommandInfo` is invalid: {0}")]
    Command(#[source] CommandRejection),
    /// 10: a bad container.
    #[error("Task's `ContainerInfo` is invalid: {0}")]
    Container(#[source] ContainerRejection),
    /// 11: limits the agent does not enforce.
    #[error(
        "Task resource limits are not supported by agent {0}, which lacks TASK_RESOURCE_LIMITS"
    )]
    LimitsNotSupported(AgentId),
    /// 11: a limit on something else.
    #[error("Only cpus and mem may be included in a task's resource limits")]
    OtherLimit,
    /// 11: a limit without a request.
    #[error("When a {0} limit is specified, a {0} request must also be specified")]
    LimitWithoutRequest(&'static str),
    /// 11: a limit below the request.
    #[error("The {0} limit must be greater than or equal to the {0} request")]
    LimitBelowRequest(&'static str),
    /// 12: neither or both.
    #[error("Task should have at least one (but not both) of CommandInfo or ExecutorInfo present")]
    CommandOrExecutor,
    /// 13: a bad executor.
    #[error(transparent)]
    Executor(#[from] ExecutorRejection),
    /// 14: task and executor do not go together.
    #[error("Task and its executor {what}: {source}")]
    Combined {
        /// What they do.
        what: &'static str,
        /// The rule that is broken.
        source: ResourcesRejection,
    },
    /// 15: not offered.
    #[error(
        "Total resources {total} required by task and its executor is more than available {available}"
    )]
    TooMuch {
        /// What is needed.
        total: String,
        /// What is left of the offers.
        available: String,
    },
    /// 16: control groups of its own.
    #[error("Only tasks in a task group may have 'share_cgroups' set to 'false'")]
    OwnCgroups,
    /// Of a group: Docker.
    #[error("Docker ContainerInfo is not supported on the task")]
    DockerInGroup,
    /// Of a group: the executor cannot reach the task's network.
    #[error(
        "HTTP and TCP health checks are not supported for nested containers not joining parent's network"
    )]
    HealthCheckNetwork,
    /// Of a group: limits need control groups of the task's own.
    #[error(
        "Resource limits may only be set for tasks within a task group when the 'share_cgroups' field is set to 'false'."
    )]
    LimitsInSharedCgroups,
}

impl TaskRejection {
    /// The reason in the task's status.
    pub fn reason(&self) -> StatusReason {
        StatusReason::TaskInvalid
    }
}

/// Checks a task.
///
/// # Errors
/// [`TaskRejection`] with the first rule that is broken.
pub fn validate(task: &TaskInfo, around: &TaskSurroundings<'_>) -> Result<(), TaskRejection> {
    validate_alone(task, around)?;
    if task.command.is_some() == task.executor.is_some() {
        return Err(TaskRejection::CommandOrExecutor);
    }
    let mut total = task.resources.clone();
    if let Some(info) = &task.executor {
        let existing = around.executors.get(&info.executor_id);
        executor::validate_for_task(info, around.framework_id, existing.map(|one| &**one))?;
        validate_together(&task.resources, &info.resources)
            .map_err(|(what, source)| TaskRejection::Combined { what, source })?;
        if existing.is_none() {
            total += &info.resources;
        }
    }
    if !around.remaining.contains(&total) {
        return Err(TaskRejection::TooMuch {
            total: total.to_string(),
            available: around.remaining.to_string(),
        });
    }
    if share_cgroups(task.container.as_ref()) == Some(false) {
        return Err(TaskRejection::OwnCgroups);
    }
    Ok(())
}

/// Rules 1 to 11.
pub(super) fn validate_alone(
    task: &TaskInfo,
    around: &TaskSurroundings<'_>,
) -> Result<(), TaskRejection> {
    let id = &task.task_id;
    validate_id(id.as_str())?;
    if around.tasks.contains_key(id) {
        return Err(TaskRejection::DuplicateId(id.clone()));
    }
    if around
        .unreachable_tasks
        .iter()
        .any(|gone| gone.task_id == *id)
    {
        return Err(TaskRejection::UnreachableId(id.clone()));
    }
    if task.agent_id != *around.agent_id {
        return Err(TaskRejection::OtherAgent {
            actual: task.agent_id.clone(),
            expected: around.agent_id.clone(),
        });
    }
    let grace_period = task.kill_policy.and_then(|policy| policy.grace_period);
    if grace_period.is_some_and(|period| period.is_negative()) {
        return Err(TaskRejection::NegativeGracePeriod);
    }
    if task
        .max_completion_time
        .is_some_and(|time| time.is_negative())
    {
        return Err(TaskRejection::NegativeCompletionTime);
    }
    if let Some(check) = &task.check {
        validate_check(check).map_err(TaskRejection::Check)?;
    }
    if let Some(check) = &task.health_check {
        validate_health_check(check).map_err(TaskRejection::HealthCheck)?;
    }
    validate_resources(&task.resources)?;
    if let Some(command) = &task.command {
        validate_command(command).map_err(TaskRejection::Command)?;
    }
    if let Some(container) = &task.container {
        validate_container(container).map_err(TaskRejection::Container)?;
    }
    validate_limits(task, around)
}

fn validate_resources(held: &Resources) -> Result<(), TaskRejection> {
    if held.is_empty() {
        return Err(TaskRejection::NoResources);
    }
    resources::validate(held).map_err(TaskRejection::Resources)?;
    validate_unique_persistence(held).map_err(TaskRejection::Persistence)?;
    validate_single_role(held).map_err(TaskRejection::Roles)?;
    validate_no_revocable_mix(held).map_err(TaskRejection::RevocableMix)
}

fn validate_limits(task: &TaskInfo, around: &TaskSurroundings<'_>) -> Result<(), TaskRejection> {
    if task.limits.is_empty() {
        return Ok(());
    }
    if !around
        .agent_capabilities
        .contains(&AgentCapability::TaskResourceLimits)
    {
        return Err(TaskRejection::LimitsNotSupported(around.agent_id.clone()));
    }
    if task
        .limits
        .iter()
        .any(|(name, _)| !matches!(&**name, "cpus" | "mem"))
    {
        return Err(TaskRejection::OtherLimit);
    }
    let cpus = ("cpus", "CPU", "cpu");
    for (name, in_request, in_limit) in [cpus, ("mem", "memory", "memory")] {
        let Some(limit) = task.limits.get(name) else {
            continue;
        };
        let Some(request) = task.resources.amount(name) else {
            return Err(TaskRejection::LimitWithoutRequest(in_request));
        };
        if limit < request {
            return Err(TaskRejection::LimitBelowRequest(in_limit));
        }
    }
    Ok(())
}

/// Rule 14; names what the two do wrong together.
pub(super) fn validate_together(
    tasks: &Resources,
    executor: &Resources,
) -> Result<(), (&'static str, ResourcesRejection)> {
    let both = tasks + executor;
    let invalid = "use invalid resources";
    validate_no_overlap(tasks, executor).map_err(|source| (invalid, source))?;
    resources::validate(&both).map_err(|source| (invalid, source))?;
    validate_unique_persistence(&both)
        .map_err(|source| ("use duplicate persistence ID", source))?;
    validate_single_role(&both).map_err(|source| (invalid, source))?;
    validate_no_revocable_mix(&both)
        .map_err(|source| ("mix revocable and non-revocable resources", source))
}

#[cfg(test)]
#[path = "task_tests.rs"]
pub(super) mod tests;
