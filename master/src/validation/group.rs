//! Task groups that a framework wants to launch: all of a group is launched, or nothing.
//!
//! Pure. [`validate`] looks at the tasks first, each by the rules 1 to 11 of a task and by those of a task among others;
//! then at their executor, its size, whether all name it, what all hold together, whether the offers suffice, and their
//! control groups. The first rule that is broken is reported of every task. Two tasks of one id break a rule: Mesos
//! 1.11.0 ends over them. Source: Mesos `src/master/validation.cpp` (`task::group`).

use std::collections::BTreeSet;
use std::sync::Arc;

use meseta_protocol::container::ContainerType;
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::operation::LaunchGroup;
use meseta_protocol::resources::{Resources, Scalar};
use meseta_protocol::status::StatusReason;
use meseta_protocol::task::{CheckType, Task, TaskInfo};
use meseta_protocol::{ExecutorId, TaskId};

use super::container::share_cgroups;
use super::executor::{self, ExecutorRejection};
use super::resources::ResourcesRejection;
use super::task::{TaskRejection, TaskSurroundings, validate_alone, validate_together};

/// Least cpus that the executor of a group has to have.
const MIN_EXECUTOR_CPUS: Scalar = Scalar::from_thousandths(10);
/// Least memory in MiB that it has to have.
const MIN_EXECUTOR_MEM: Scalar = Scalar::whole(32);

/// Why a task group is refused; every task of it is told.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GroupRejection {
    /// One task breaks a rule.
    #[error("Task '{task_id}' is invalid: {rejection}")]
    Task {
        /// Which.
        task_id: TaskId,
        /// The rule.
        #[source]
        rejection: TaskRejection,
    },
    /// A bad executor.
    #[error(transparent)]
    Executor(#[from] ExecutorRejection),
    /// A task brings another executor.
    #[error("The `ExecutorInfo` of task '{task_id}' is different from executor '{executor_id}'")]
    OtherExecutor {
        /// The task.
        task_id: TaskId,
        /// The group's executor.
        executor_id: ExecutorId,
    },
    /// Too small an executor.
    #[error(
        "Executor '{executor_id}' uses less CPUs ({cpus}) than the minimum required ({MIN_EXECUTOR_CPUS})"
    )]
    FewCpus {
        /// The executor.
        executor_id: ExecutorId,
        /// What it has, or `None`.
        cpus: String,
    },
    /// Too small an executor.
    #[error(
        "Executor '{executor_id}' uses less memory ({mem}) than the minimum required ({MIN_EXECUTOR_MEM}MB)"
    )]
    LittleMemory {
        /// The executor.
        executor_id: ExecutorId,
        /// What it has with its unit, or `None`.
        mem: String,
    },
    /// An executor without disk.
    #[error("Executor '{0}' uses no disk")]
    NoDisk(ExecutorId),
    /// Tasks and executor do not go together.
    #[error("Task group and its executor {what}: {source}")]
    Combined {
        /// What they do.
        what: &'static str,
        /// The rule that is broken.
        source: ResourcesRejection,
    },
    /// Not offered.
    #[error(
        "Total resources {total} required by task group and its executor are more than available {available}"
    )]
    TooMuch {
        /// What is needed.
        total: String,
        /// What is left of the offers.
        available: String,
    },
    /// Tasks of one executor differ in where their control groups are.
    #[error(
        "If set, the value of 'share_cgroups' must be the same for all tasks in each task group and under a single executor"
    )]
    MixedCgroups,
}

impl GroupRejection {
    /// The reason in the status of every task of the group.
    pub fn reason(&self) -> StatusReason {
        StatusReason::TaskGroupInvalid
    }
}

/// Checks a task group; its executor must name its framework itself. A group without tasks is for the caller to ignore.
///
/// # Errors
/// [`GroupRejection`] with the first rule that is broken.
pub fn validate(group: &LaunchGroup, around: &TaskSurroundings<'_>) -> Result<(), GroupRejection> {
    let (executor, tasks) = (&group.executor, &group.task_group.tasks);
    let mut ids = BTreeSet::new();
    for task in tasks {
        let id = &task.task_id;
        let unique = if ids.insert(id) {
            Ok(())
        } else {
            Err(TaskRejection::DuplicateId(id.clone()))
        };
        unique
            .and_then(|()| validate_group_task(task, around))
            .map_err(|rejection| GroupRejection::Task {
                task_id: id.clone(),
                rejection,
            })?;
    }
    let existing = around.executors.get(&executor.executor_id);
    executor::validate_for_group(executor, around.framework_id, existing.map(|one| &**one))?;
    validate_size(executor)?;
    for task in tasks {
        if task.executor.as_ref().is_some_and(|own| own != executor) {
            return Err(GroupRejection::OtherExecutor {
                task_id: task.task_id.clone(),
                executor_id: executor.executor_id.clone(),
            });
        }
    }
    let mut total = Resources::new();
    for task in tasks {
        validate_together(&task.resources, &(&total + &executor.resources))
            .map_err(|(what, source)| GroupRejection::Combined { what, source })?;
        total += &task.resources;
    }
    if existing.is_none() {
        total += &executor.resources;
    }
    if !around.remaining.contains(&total) {
        return Err(GroupRejection::TooMuch {
            total: total.to_string(),
            available: around.remaining.to_string(),
        });
    }
    validate_cgroups(executor, tasks, around)
}

fn validate_group_task(
    task: &TaskInfo,
    around: &TaskSurroundings<'_>,
) -> Result<(), TaskRejection> {
    validate_alone(task, around)?;
    if let Some(container) = &task.container {
        let over_network = task
            .health_check
            .as_ref()
            .is_some_and(|check| matches!(check.kind, Some(CheckType::Http | CheckType::Tcp)));
        if over_network && !container.network_infos.is_empty() {
            return Err(TaskRejection::HealthCheckNetwork);
        }
        if container.kind == ContainerType::Docker {
            return Err(TaskRejection::DockerInGroup);
        }
    }
    if !task.limits.is_empty() && share_cgroups(task.container.as_ref()) != Some(false) {
        return Err(TaskRejection::LimitsInSharedCgroups);
    }
    Ok(())
}

fn validate_size(executor: &ExecutorInfo) -> Result<(), GroupRejection> {
    let (id, held) = (&executor.executor_id, &executor.resources);
    let is_less = |have: Option<Scalar>, least| have.is_none_or(|have| have < least);
    if is_less(held.cpus(), MIN_EXECUTOR_CPUS) {
        return Err(GroupRejection::FewCpus {
            executor_id: id.clone(),
            cpus: held
                .cpus()
                .map_or_else(|| "None".to_owned(), |cpus| cpus.to_string()),
        });
    }
    if is_less(held.mem(), MIN_EXECUTOR_MEM) {
        return Err(GroupRejection::LittleMemory {
            executor_id: id.clone(),
            mem: held
                .mem()
                .map_or_else(|| "None".to_owned(), |mem| format!("{mem}MB")),
        });
    }
    if held.disk().is_none() {
        return Err(GroupRejection::NoDisk(id.clone()));
    }
    Ok(())
}

/// All tasks of an executor share its control groups, or none does; sharing is meant when a task does not say.
fn validate_cgroups(
    executor: &ExecutorInfo,
    tasks: &[TaskInfo],
    around: &TaskSurroundings<'_>,
) -> Result<(), GroupRejection> {
    let runs_there = |task: &&Arc<Task>| {
        task.agent_id == *around.agent_id
            && task.executor_id.as_ref() == Some(&executor.executor_id)
    };
    let running = around
        .tasks
        .values()
        .filter(runs_there)
        .map(|task| &task.container);
    let all = tasks.iter().map(|task| &task.container).chain(running);
    let shares: BTreeSet<bool> = all
        .map(|container| share_cgroups(container.as_ref()).unwrap_or(true))
        .collect();
    if shares.len() > 1 {
        return Err(GroupRejection::MixedCgroups);
    }
    Ok(())
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
