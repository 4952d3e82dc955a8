//! Executors of tasks and task groups.
//!
//! Pure. Source: Mesos `src/master/validation.cpp` (`executor::validate`, `task::internal::validateExecutor`).

use meseta_protocol::FrameworkId;
use meseta_protocol::container::ContainerType;
use meseta_protocol::executor::{ExecutorInfo, ExecutorType};
use meseta_protocol::ids::{IdError, validate_id};

use super::container::{
    CommandRejection, ContainerRejection, share_cgroups, validate_command, validate_container,
};
use super::resources::{
    self, ResourcesRejection, validate_no_revocable_mix, validate_single_role,
    validate_unique_persistence,
};

/// Why an executor is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecutorRejection {
    /// Only frameworks' own executors run single tasks.
    #[error("'ExecutorInfo.type' must be 'CUSTOM'")]
    NotCustom,
    /// A task group's executor has no type.
    #[error("'ExecutorInfo.type' must be set")]
    NoType,
    /// A type this version does not know.
    #[error("Unknown executor type")]
    UnknownType,
    /// No program, and no type that would say whose it should be.
    #[error("'ExecutorInfo.command' must be set")]
    NoCommand,
    /// No program.
    #[error("'ExecutorInfo.command' must be set for 'CUSTOM' executor")]
    NoCommandForCustom,
    /// A program for the agent's own executor.
    #[error("'ExecutorInfo.command' must not be set for 'DEFAULT' executor")]
    CommandForDefault,
    /// The agent's own executor in another's container.
    #[error("'ExecutorInfo.container.type' must be 'MESOS' for 'DEFAULT' executor")]
    ContainerOfDefault,
    /// The agent's own executor in an image.
    #[error("'ExecutorInfo.container.mesos.image' must not be set for 'DEFAULT' executor")]
    ImageOfDefault,
    /// A task group's executor in Docker.
    #[error("Docker ContainerInfo is not supported on the executor")]
    Docker,
    /// The id cannot be one.
    #[error(transparent)]
    Id(#[from] IdError),
    /// No framework.
    #[error("'ExecutorInfo.framework_id' must be set")]
    NoFrameworkId,
    /// Another framework's.
    #[error("ExecutorInfo has an invalid FrameworkID (Actual: {actual} vs Expected: {expected})")]
    OtherFramework {
        /// The one it names.
        actual: FrameworkId,
        /// The one that launches it.
        expected: FrameworkId,
    },
    /// A negative time to stop.
    #[error("ExecutorInfo's 'shutdown_grace_period' must be non-negative")]
    NegativeGracePeriod,
    /// Bad resources.
    #[error("Executor uses invalid resources: {0}")]
    Resources(#[source] ResourcesRejection),
    /// A volume twice.
    #[error("Executor uses duplicate persistence ID: {0}")]
    Persistence(#[source] ResourcesRejection),
    /// Several roles.
    #[error("Invalid executor resources: {0}")]
    Roles(#[source] ResourcesRejection),
    /// What may be taken back, and what may not.
    #[error("Executor mixes revocable and non-revocable resources: {0}")]
    RevocableMix(#[source] ResourcesRejection),
    /// Shared resources.
    #[error("Executor uses shared resources '{0}', which is not supported")]
    Shared(String),
    /// A bad program.
    #[error("Executor's `CommandInfo` is invalid: {0}")]
    Command(#[from] CommandRejection),
    /// A bad container.
    #[error("Executor's `ContainerInfo` is invalid: {0}")]
    Container(#[from] ContainerRejection),
    /// An executor's container has its own control groups.
    #[error("The 'share_cgroups' field cannot be set to 'true' on executor containers")]
    ShareCgroups,
    /// It runs already, described otherwise.
    #[error(
        "ExecutorInfo is not compatible with existing ExecutorInfo with same ExecutorID. They differ in: {0}"
    )]
    NotCompatible(String),
}

/// Checks an executor, whatever it is for. `existing` is the executor of the same framework and id that the agent
/// runs.
///
/// # Errors
/// [`ExecutorRejection`] with the first rule that is broken.
pub fn validate(
    executor: &ExecutorInfo,
    framework_id: &FrameworkId,
    existing: Option<&ExecutorInfo>,
) -> Result<(), ExecutorRejection> {
    validate_type(executor)?;
    validate_id(executor.executor_id.as_str())?;
    let actual = executor
        .framework_id
        .as_ref()
        .ok_or(ExecutorRejection::NoFrameworkId)?;
    if actual != framework_id {
        return Err(ExecutorRejection::OtherFramework {
            actual: actual.clone(),
            expected: framework_id.clone(),
        });
    }
    if executor
        .shutdown_grace_period
        .is_some_and(|period| period.is_negative())
    {
        return Err(ExecutorRejection::NegativeGracePeriod);
    }
    let held = &executor.resources;
    resources::validate(held).map_err(ExecutorRejection::Resources)?;
    validate_unique_persistence(held).map_err(ExecutorRejection::Persistence)?;
    validate_single_role(held).map_err(ExecutorRejection::Roles)?;
    validate_no_revocable_mix(held).map_err(ExecutorRejection::RevocableMix)?;
    if let Some(command) = &executor.command {
        validate_command(command)?;
    }
    if let Some(container) = &executor.container {
        validate_container(container)?;
    }
    match existing {
        Some(existing) if existing != executor => Err(ExecutorRejection::NotCompatible(
            differences(existing, executor),
        )),
        Some(_) | None => Ok(()),
    }
}

fn validate_type(executor: &ExecutorInfo) -> Result<(), ExecutorRejection> {
    match executor.kind {
        Some(ExecutorType::Default) => {
            if executor.command.is_some() {
                return Err(ExecutorRejection::CommandForDefault);
            }
            let Some(container) = &executor.container else {
                return Ok(());
            };
            if container.kind != ContainerType::Mesos {
                return Err(ExecutorRejection::ContainerOfDefault);
            }
            match &container.mesos {
                Some(mesos) if mesos.image.is_some() => Err(ExecutorRejection::ImageOfDefault),
                Some(_) | None => Ok(()),
            }
        }
        Some(ExecutorType::Custom) if executor.command.is_none() => {
            Err(ExecutorRejection::NoCommandForCustom)
        }
        Some(ExecutorType::Custom | ExecutorType::Unknown) | None => Ok(()),
    }
}

/// The fields in which two descriptions differ. Their contents stay unsaid: they may hold secrets.
fn differences(a: &ExecutorInfo, b: &ExecutorInfo) -> String {
    let fields = [
        ("type", a.kind == b.kind),
        ("framework_id", a.framework_id == b.framework_id),
        ("command", a.command == b.command),
        ("container", a.container == b.container),
        ("resources", a.resources == b.resources),
        ("name", a.name == b.name),
        ("source", a.source == b.source),
        ("data", a.data == b.data),
        ("discovery", a.discovery == b.discovery),
        (
            "shutdown_grace_period",
            a.shutdown_grace_period == b.shutdown_grace_period,
        ),
        ("labels", a.labels == b.labels),
    ];
    let different = fields.into_iter().filter(|(_, same)| !same);
    different
        .map(|(name, _)| name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Checks the executor of a single task.
///
/// # Errors
/// [`ExecutorRejection`] with the first rule that is broken.
pub fn validate_for_task(
    executor: &ExecutorInfo,
    framework_id: &FrameworkId,
    existing: Option<&ExecutorInfo>,
) -> Result<(), ExecutorRejection> {
    validate(executor, framework_id, existing)?;
    match executor.kind {
        Some(ExecutorType::Default | ExecutorType::Unknown) => {
            return Err(ExecutorRejection::NotCustom);
        }
        Some(ExecutorType::Custom) => {}
        None if executor.command.is_none() => return Err(ExecutorRejection::NoCommand),
        None => {}
    }
    validate_own_container(executor)
}

/// Checks the executor of a task group, apart from how much it uses.
///
/// # Errors
/// [`ExecutorRejection`] with the first rule that is broken.
pub fn validate_for_group(
    executor: &ExecutorInfo,
    framework_id: &FrameworkId,
    existing: Option<&ExecutorInfo>,
) -> Result<(), ExecutorRejection> {
    match executor.kind {
        None => return Err(ExecutorRejection::NoType),
        Some(ExecutorType::Unknown) => return Err(ExecutorRejection::UnknownType),
        Some(ExecutorType::Default | ExecutorType::Custom) => {}
    }
    validate(executor, framework_id, existing)?;
    let is_docker = |kind| kind == ContainerType::Docker;
    if executor
        .container
        .as_ref()
        .is_some_and(|container| is_docker(container.kind))
    {
        return Err(ExecutorRejection::Docker);
    }
    validate_own_container(executor)
}

fn validate_own_container(executor: &ExecutorInfo) -> Result<(), ExecutorRejection> {
    let shared = executor.resources.shared();
    if !shared.is_empty() {
        return Err(ExecutorRejection::Shared(shared.to_string()));
    }
    if share_cgroups(executor.container.as_ref()) == Some(true) {
        return Err(ExecutorRejection::ShareCgroups);
    }
    Ok(())
}
