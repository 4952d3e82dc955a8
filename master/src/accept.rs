//! What an ACCEPT means: whether its offers may be used together, and what each task or group of tasks of it costs.
//!
//! Pure: reads the tables, changes nothing. Source: master.md §6, §7.2.

use std::collections::BTreeSet;

use meseta_protocol::executor::{ExecutorInfo, ExecutorType};
use meseta_protocol::operation::{LaunchGroup, Operation, OperationAction, OperationType};
use meseta_protocol::resources::Resources;
use meseta_protocol::status::StatusReason;
use meseta_protocol::task::TaskInfo;
use meseta_protocol::{AgentId, ExecutorId, FrameworkId, OfferId, Role, TaskId};

use crate::state::State;
use crate::validation;

/// Offers that may be used together.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// Their agent.
    pub agent_id: AgentId,
    /// Their role.
    pub role: Role,
    /// All they hold.
    pub resources: Resources,
}

/// Why offers cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOffers {
    /// The list is empty.
    #[error("No offers specified")]
    None,
    /// One is named twice.
    #[error("Duplicate offer {0} in offer list")]
    Duplicate(OfferId),
    /// One is not outstanding, or is another framework's.
    #[error("Offer {0} is no longer valid")]
    Unknown(OfferId),
    /// They are of two agents.
    #[error(
        "Aggregated offers must belong to one single agent. Offer {offer} uses agent {agent} and agent {other}"
    )]
    TwoAgents {
        /// The first that differs.
        offer: OfferId,
        /// Its agent.
        agent: AgentId,
        /// The agent of those before.
        other: AgentId,
    },
    /// They are of two roles.
    #[error(
        "Aggregated offers must be allocated to the same role. Offer {offer} uses role {role} but another is using role {other}"
    )]
    TwoRoles {
        /// The first that differs.
        offer: OfferId,
        /// Its role.
        role: Role,
        /// The role of those before.
        other: Role,
    },
}

/// A task that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedTask {
    /// Which.
    pub task_id: TaskId,
    /// The agent that it names, which need not be that of the offer.
    pub agent_id: AgentId,
    /// As it is told to the framework.
    pub reason: StatusReason,
    /// As it is told to the framework.
    pub message: String,
}

/// An operation that is refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedOperation {
    /// Its kind, for the log.
    pub operation: &'static str,
    /// Its tasks, each of which is told, with the agents that they name.
    pub tasks: Vec<(TaskId, AgentId)>,
    /// As it is told to the framework.
    pub reason: StatusReason,
    /// As it is told to the framework.
    pub message: String,
}

/// What an operation is to launch, made ready for validation.
#[derive(Debug, Clone, PartialEq)]
pub enum Launches {
    /// Tasks, each by itself.
    Tasks(Vec<TaskInfo>),
    /// Tasks of one executor, all or none.
    Group(Box<LaunchGroup>),
}

/// A task that will be launched.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// The task, with its executor's framework filled in.
    pub task: TaskInfo,
    /// Whether its executor must be started first.
    pub launch_executor: bool,
    /// What it takes from the offers: its own resources, and those of an executor that is started.
    pub charged: Resources,
}

/// Tasks that will be launched together.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupLaunch {
    /// Their executor, with its framework.
    pub executor: ExecutorInfo,
    /// The tasks, each with that executor.
    pub tasks: Vec<TaskInfo>,
    /// Whether the executor must be started first.
    pub launch_executor: bool,
    /// What they take from the offers: the resources of all of them, and those of an executor that is started.
    pub charged: Resources,
}

/// Checks a list of offers.
///
/// # Errors
/// [`InvalidOffers`] with the first rule that is broken.
pub fn check_offers(
    state: &State,
    framework_id: &FrameworkId,
    offers: &[OfferId],
) -> Result<Accepted, InvalidOffers> {
    let mut seen = BTreeSet::new();
    if let Some(twice) = offers.iter().find(|id| !seen.insert(*id)) {
        return Err(InvalidOffers::Duplicate(twice.clone()));
    }
    let mut accepted: Option<Accepted> = None;
    for id in offers {
        let outstanding = state
            .offer(id)
            .filter(|outstanding| outstanding.offer.framework_id == *framework_id)
            .ok_or_else(|| InvalidOffers::Unknown(id.clone()))?;
        let (agent, role) = (&outstanding.offer.agent_id, &outstanding.role);
        match &mut accepted {
            None => {
                accepted = Some(Accepted {
                    agent_id: agent.clone(),
                    role: role.clone(),
                    resources: outstanding.offer.resources.clone(),
                });
            }
            Some(before) if before.role != *role => {
                return Err(InvalidOffers::TwoRoles {
                    offer: id.clone(),
                    role: role.clone(),
                    other: before.role.clone(),
                });
            }
            Some(before) if before.agent_id != *agent => {
                return Err(InvalidOffers::TwoAgents {
                    offer: id.clone(),
                    agent: agent.clone(),
                    other: before.agent_id.clone(),
                });
            }
            Some(before) => before.resources += &outstanding.offer.resources,
        }
    }
    accepted.ok_or(InvalidOffers::None)
}

/// The tasks an operation would launch.
pub fn tasks_of(operation: &Operation) -> &[TaskInfo] {
    match &operation.action {
        OperationAction::Launch(launch) => &launch.task_infos,
        OperationAction::LaunchGroup(group) => &group.task_group.tasks,
        OperationAction::Reserve(_)
        | OperationAction::Unreserve(_)
        | OperationAction::Create(_)
        | OperationAction::Destroy(_)
        | OperationAction::GrowVolume(_)
        | OperationAction::ShrinkVolume(_)
        | OperationAction::CreateDisk(_)
        | OperationAction::DestroyDisk(_)
        | OperationAction::Unknown => &[],
    }
}

/// What an operation launches, made ready for validation: resources carry the role of the offers, the executors of single
/// tasks the framework, and tasks of a group its executor.
///
/// # Errors
/// [`RefusedOperation`] when one bad resource spoils all of it, or this master has no such operation.
pub fn launches(
    operation: Operation,
    role: &Role,
    framework_id: &FrameworkId,
) -> Result<Launches, RefusedOperation> {
    let name = operation.kind().name();
    let has_id = operation.id.is_some();
    let (mut launches, reason) = match operation.action {
        OperationAction::Launch(launch) => {
            let tasks = Launches::Tasks(launch.task_infos);
            (tasks, StatusReason::TaskInvalid)
        }
        OperationAction::LaunchGroup(group) => {
            let group = Launches::Group(Box::new(group));
            (group, StatusReason::TaskGroupInvalid)
        }
        OperationAction::Reserve(_)
        | OperationAction::Unreserve(_)
        | OperationAction::Create(_)
        | OperationAction::Destroy(_)
        | OperationAction::GrowVolume(_)
        | OperationAction::ShrinkVolume(_)
        | OperationAction::CreateDisk(_)
        | OperationAction::DestroyDisk(_)
        | OperationAction::Unknown => {
            return Err(RefusedOperation {
                operation: name,
                tasks: Vec::new(),
                reason: StatusReason::TaskInvalid,
                message: format!("Operation {name} is not supported by this master"),
            });
        }
    };
    if has_id && !launches.tasks().is_empty() {
        let message = format!("The `id` field cannot be set on {name} operations");
        return Err(refused(name, launches.tasks(), reason, message));
    }
    let valid = match &launches {
        Launches::Tasks(tasks) => validation::resources::validate_operation(tasks),
        Launches::Group(group) => validation::resources::validate_group_operation(group),
    };
    if let Err(invalid) = valid {
        return Err(refused(name, launches.tasks(), reason, invalid.to_string()));
    }
    match &mut launches {
        Launches::Tasks(tasks) => {
            for task in tasks {
                give_role_to_task(task, role);
                if let Some(executor) = &mut task.executor {
                    executor
                        .framework_id
                        .get_or_insert_with(|| framework_id.clone());
                }
            }
        }
        Launches::Group(group) => {
            let without = (group.task_group.tasks.iter()).filter(|task| task.executor.is_none());
            if copies_of(&group.executor, without.count()) > MOST_COPIED {
                let message = format!(
                    "The executor is too large to be given to each task of the group: make it smaller, above all its \
                     'data', or launch fewer tasks. All copies may have {MOST_COPIED} bytes"
                );
                return Err(refused(name, launches.tasks(), reason, message));
            }
            give_role(&mut group.executor.resources, role);
            for task in &mut group.task_group.tasks {
                give_role_to_task(task, role);
                task.executor.get_or_insert_with(|| group.executor.clone());
            }
        }
    }
    Ok(launches)
}

/// Most bytes that the executor of a group may have in all of its tasks: what is launched goes to the agent as one message.
const MOST_COPIED: usize = 16 << 20;

/// About how many bytes so many copies of an executor have.
fn copies_of(executor: &ExecutorInfo, count: usize) -> usize {
    let one = serde_json::to_vec(executor).map_or(usize::MAX, |text| text.len());
    one.saturating_mul(count)
}

impl Launches {
    fn tasks(&self) -> &[TaskInfo] {
        match self {
            Self::Tasks(tasks) => tasks,
            Self::Group(group) => &group.task_group.tasks,
        }
    }
}

fn refused(
    operation: &'static str,
    tasks: &[TaskInfo],
    reason: StatusReason,
    message: String,
) -> RefusedOperation {
    RefusedOperation {
        operation,
        tasks: (tasks.iter())
            .map(|task| (task.task_id.clone(), task.agent_id.clone()))
            .collect(),
        reason,
        message,
    }
}

fn give_role_to_task(task: &mut TaskInfo, role: &Role) {
    give_role(&mut task.resources, role);
    if let Some(executor) = &mut task.executor {
        give_role(&mut executor.resources, role);
    }
}

/// Gives a role to resources that name none.
pub fn give_role(resources: &mut Resources, role: &Role) {
    let unallocated = resources.filter(|resource| resource.allocation.is_none());
    if !unallocated.is_empty() {
        *resources -= &unallocated;
        *resources += unallocated.allocated(role);
    }
}

/// Decides about one task, given what earlier ones of the same call have left.
///
/// # Errors
/// [`RefusedTask`] with the first rule that is broken.
pub fn launch(
    state: &State,
    framework_id: &FrameworkId,
    agent_id: &AgentId,
    task: TaskInfo,
    remaining: &Resources,
) -> Result<Launch, RefusedTask> {
    let launch_executor = (task.executor.as_ref())
        .is_none_or(|executor| !is_there(state, framework_id, agent_id, &executor.executor_id));
    let surroundings =
        validation::task::TaskSurroundings::of(state, framework_id, agent_id, remaining);
    if let Err(rejection) = validation::task::validate(&task, &surroundings) {
        return Err(RefusedTask {
            task_id: task.task_id,
            agent_id: task.agent_id,
            reason: StatusReason::TaskInvalid,
            message: rejection.to_string(),
        });
    }
    let mut charged = task.resources.clone();
    if launch_executor && let Some(executor) = &task.executor {
        charged += &executor.resources;
    }
    Ok(Launch {
        task,
        launch_executor,
        charged,
    })
}

/// Decides about a group of tasks, given what earlier operations of the same call have left: all of it, or nothing.
///
/// # Errors
/// [`RefusedOperation`] with the first rule that is broken, or because nobody would run it: the agents' own executor is not
/// there yet.
pub fn launch_group(
    state: &State,
    framework_id: &FrameworkId,
    agent_id: &AgentId,
    group: LaunchGroup,
    remaining: &Resources,
) -> Result<GroupLaunch, RefusedOperation> {
    let surroundings =
        validation::task::TaskSurroundings::of(state, framework_id, agent_id, remaining);
    let refuse = |reason, message| {
        let name = OperationType::LaunchGroup.name();
        Err(refused(name, &group.task_group.tasks, reason, message))
    };
    if let Err(rejection) = validation::group::validate(&group, &surroundings) {
        return refuse(rejection.reason(), rejection.to_string());
    }
    if group.executor.kind != Some(ExecutorType::Custom) {
        let message = "Operation LAUNCH_GROUP with an executor of type DEFAULT is not supported by this master: give an \
                       executor of type CUSTOM";
        return refuse(StatusReason::TaskGroupInvalid, message.to_owned());
    }
    let LaunchGroup {
        executor,
        task_group,
    } = group;
    let launch_executor = !is_there(state, framework_id, agent_id, &executor.executor_id);
    let mut charged = Resources::new();
    for task in &task_group.tasks {
        charged += &task.resources;
    }
    if launch_executor {
        charged += &executor.resources;
    }
    Ok(GroupLaunch {
        executor,
        tasks: task_group.tasks,
        launch_executor,
        charged,
    })
}

/// Whether the agent has an executor of this id, as far as the master knows.
fn is_there(
    state: &State,
    framework_id: &FrameworkId,
    agent_id: &AgentId,
    executor_id: &ExecutorId,
) -> bool {
    let agent = state.agent(agent_id);
    agent.is_some_and(|agent| {
        let known = agent.executors.get(framework_id);
        known.is_some_and(|known| known.contains(executor_id))
    })
}
