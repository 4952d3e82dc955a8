//! Operations: what a framework or operator does with resources, and what that turns them into.
//!
//! Pure. An operation that only relabels resources is a conversion: take `consumed` away, put `converted` in its
//! place. On the wire an operation is an object with a `type` and one field of that type's name. Source: Mesos
//! `include/mesos/v1/mesos.proto`, `src/common/resources_utils.cpp`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::executor::ExecutorInfo;
use crate::ids::{AgentId, OperationId, ResourceProviderId, UpdateId};
use crate::resources::{DiskSourceType, Resource, Resources, Scalar, Value};
use crate::task::{TaskGroupInfo, TaskInfo};
use crate::wire::{Presence, names, record};

names! {
    /// Kind of an operation.
    pub enum OperationType default Unknown {
        /// Start tasks.
        Launch = 1 "LAUNCH",
        /// Start tasks that belong together.
        LaunchGroup = 6 "LAUNCH_GROUP",
        /// Reserve for a role.
        Reserve = 2 "RESERVE",
        /// Give a reservation up.
        Unreserve = 3 "UNRESERVE",
        /// Make persistent volumes.
        Create = 4 "CREATE",
        /// Destroy persistent volumes.
        Destroy = 5 "DESTROY",
        /// Enlarge a persistent volume.
        GrowVolume = 11 "GROW_VOLUME",
        /// Make a persistent volume smaller.
        ShrinkVolume = 12 "SHRINK_VOLUME",
        /// Turn a provider's raw storage into a disk.
        CreateDisk = 13 "CREATE_DISK",
        /// Turn a provider's disk back into raw storage.
        DestroyDisk = 14 "DESTROY_DISK",
    } else
    /// Missing, or one this version does not know.
    Unknown = 0 "UNKNOWN"
}

record! {
    /// Start tasks, each by itself.
    pub struct Launch {
        /// The tasks.
        pub task_infos: Vec<TaskInfo>,
    }
}

record! {
    /// Start tasks together in one executor.
    pub struct LaunchGroup {
        /// The executor.
        pub executor: ExecutorInfo,
        /// The tasks.
        pub task_group: TaskGroupInfo,
    }
}

record! {
    /// Reserve.
    pub struct Reserve {
        /// What the reserved resources are now, when that is not the same with the last reservation taken off.
        pub source: Resources,
        /// The resources as they shall be.
        pub resources: Resources,
    }
}

record! {
    /// Give the last reservation up.
    pub struct Unreserve {
        /// The resources as they are.
        pub resources: Resources,
    }
}

record! {
    /// Make persistent volumes.
    pub struct Create {
        /// The volumes as they shall be.
        pub volumes: Resources,
    }
}

record! {
    /// Destroy persistent volumes.
    pub struct Destroy {
        /// The volumes as they are.
        pub volumes: Resources,
    }
}

/// Enlarge a persistent volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GrowVolume {
    /// The volume as it is.
    pub volume: Resource,
    /// Disk to add.
    pub addition: Resource,
}

impl Default for GrowVolume {
    fn default() -> Self {
        Self {
            volume: Resource::scalar("disk", Scalar::ZERO),
            addition: Resource::scalar("disk", Scalar::ZERO),
        }
    }
}

/// Make a persistent volume smaller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShrinkVolume {
    /// The volume as it is.
    pub volume: Resource,
    /// How much to take away, in MiB.
    pub subtract: Amount,
}

impl Default for ShrinkVolume {
    fn default() -> Self {
        Self {
            volume: Resource::scalar("disk", Scalar::ZERO),
            subtract: Amount::default(),
        }
    }
}

record! {
    /// An amount as an object.
    #[derive(Copy, Eq)]
    pub struct Amount {
        /// The amount.
        pub value: Scalar,
    }
}

/// Turn a provider's raw storage into a disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateDisk {
    /// The raw storage.
    pub source: Resource,
    /// MOUNT or BLOCK.
    pub target_type: DiskSourceType,
    /// Profile of the disk, when the source has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_profile: Option<String>,
}

impl Default for CreateDisk {
    fn default() -> Self {
        Self {
            source: Resource::scalar("disk", Scalar::ZERO),
            target_type: DiskSourceType::Unknown,
            target_profile: None,
        }
    }
}

/// Turn a provider's disk back into raw storage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DestroyDisk {
    /// The disk.
    pub source: Resource,
}

impl Default for DestroyDisk {
    fn default() -> Self {
        Self {
            source: Resource::scalar("disk", Scalar::ZERO),
        }
    }
}

impl Presence for GrowVolume {}
impl Presence for ShrinkVolume {}
impl Presence for CreateDisk {}
impl Presence for DestroyDisk {}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "operations live in short lists, and a box would have to be opened in every match"
)]
pub enum OperationAction {
    /// Start tasks.
    Launch(Launch),
    /// Start tasks that belong together.
    LaunchGroup(LaunchGroup),
    /// Reserve for a role.
    Reserve(Reserve),
    /// Give a reservation up.
    Unreserve(Unreserve),
    /// Make persistent volumes.
    Create(Create),
    /// Destroy persistent volumes.
    Destroy(Destroy),
    /// Enlarge a persistent volume.
    GrowVolume(GrowVolume),
    /// Make a persistent volume smaller.
    ShrinkVolume(ShrinkVolume),
    /// Turn a provider's raw storage into a disk.
    CreateDisk(CreateDisk),
    /// Turn a provider's disk back into raw storage.
    DestroyDisk(DestroyDisk),
    /// Something this version does not know.
    Unknown,
}

/// An operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// Set when the framework wants to know what became of it; not for launches.
    pub id: Option<OperationId>,
    /// What to do.
    pub action: OperationAction,
}

impl From<OperationAction> for Operation {
    fn from(action: OperationAction) -> Self {
        Self { id: None, action }
    }
}

impl Operation {
    /// Starts tasks.
    pub fn launch(task_infos: impl IntoIterator<Item = TaskInfo>) -> Self {
        OperationAction::Launch(Launch {
            task_infos: task_infos.into_iter().collect(),
        })
        .into()
    }

    /// Starts tasks together in one executor.
    pub fn launch_group(executor: ExecutorInfo, tasks: impl IntoIterator<Item = TaskInfo>) -> Self {
        OperationAction::LaunchGroup(LaunchGroup {
            executor,
            task_group: TaskGroupInfo {
                tasks: tasks.into_iter().collect(),
            },
        })
        .into()
    }

    /// Reserves: the resources as they shall be.
    pub fn reserve(resources: Resources) -> Self {
        OperationAction::Reserve(Reserve {
            resources,
            ..Reserve::default()
        })
        .into()
    }

    /// Gives the last reservation of these resources up.
    pub fn unreserve(resources: Resources) -> Self {
        OperationAction::Unreserve(Unreserve { resources }).into()
    }

    /// Makes volumes.
    pub fn create(volumes: Resources) -> Self {
        OperationAction::Create(Create { volumes }).into()
    }

    /// Destroys volumes.
    pub fn destroy(volumes: Resources) -> Self {
        OperationAction::Destroy(Destroy { volumes }).into()
    }

    /// Its kind.
    pub const fn kind(&self) -> OperationType {
        match &self.action {
            OperationAction::Launch(_) => OperationType::Launch,
            OperationAction::LaunchGroup(_) => OperationType::LaunchGroup,
            OperationAction::Reserve(_) => OperationType::Reserve,
            OperationAction::Unreserve(_) => OperationType::Unreserve,
            OperationAction::Create(_) => OperationType::Create,
            OperationAction::Destroy(_) => OperationType::Destroy,
            OperationAction::GrowVolume(_) => OperationType::GrowVolume,
            OperationAction::ShrinkVolume(_) => OperationType::ShrinkVolume,
            OperationAction::CreateDisk(_) => OperationType::CreateDisk,
            OperationAction::DestroyDisk(_) => OperationType::DestroyDisk,
            OperationAction::Unknown => OperationType::Unknown,
        }
    }

    /// Whether its result is known without asking the agent, so that it is applied to the master's view at once.
    pub const fn is_speculative(&self) -> bool {
        match &self.action {
            OperationAction::Reserve(_)
            | OperationAction::Unreserve(_)
            | OperationAction::Create(_)
            | OperationAction::Destroy(_)
            | OperationAction::GrowVolume(_)
            | OperationAction::ShrinkVolume(_) => true,
            OperationAction::Launch(_)
            | OperationAction::LaunchGroup(_)
            | OperationAction::CreateDisk(_)
            | OperationAction::DestroyDisk(_)
            | OperationAction::Unknown => false,
        }
    }
}

record! {
    /// An operation as it travels.
    struct RawOperation {
        id: Option<OperationId>,
        #[serde(rename = "type")]
        kind: OperationType,
        launch: Option<Launch>,
        launch_group: Option<LaunchGroup>,
        reserve: Option<Reserve>,
        unreserve: Option<Unreserve>,
        create: Option<Create>,
        destroy: Option<Destroy>,
        grow_volume: Option<GrowVolume>,
        shrink_volume: Option<ShrinkVolume>,
        create_disk: Option<CreateDisk>,
        destroy_disk: Option<DestroyDisk>,
    }
}

impl Serialize for Operation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut raw = RawOperation {
            id: self.id.clone(),
            kind: self.kind(),
            ..RawOperation::default()
        };
        match self.action.clone() {
            OperationAction::Launch(body) => raw.launch = Some(body),
            OperationAction::LaunchGroup(body) => raw.launch_group = Some(body),
            OperationAction::Reserve(body) => raw.reserve = Some(body),
            OperationAction::Unreserve(body) => raw.unreserve = Some(body),
            OperationAction::Create(body) => raw.create = Some(body),
            OperationAction::Destroy(body) => raw.destroy = Some(body),
            OperationAction::GrowVolume(body) => raw.grow_volume = Some(body),
            OperationAction::ShrinkVolume(body) => raw.shrink_volume = Some(body),
            OperationAction::CreateDisk(body) => raw.create_disk = Some(body),
            OperationAction::DestroyDisk(body) => raw.destroy_disk = Some(body),
            OperationAction::Unknown => {}
        }
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Operation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawOperation::deserialize(deserializer)?;
        // A type without its field means that type with nothing in it, as in Mesos: a launch of no tasks declines.
        let action = match raw.kind {
            OperationType::Launch => OperationAction::Launch(raw.launch.unwrap_or_default()),
            OperationType::LaunchGroup => {
                OperationAction::LaunchGroup(raw.launch_group.unwrap_or_default())
            }
            OperationType::Reserve => OperationAction::Reserve(raw.reserve.unwrap_or_default()),
            OperationType::Unreserve => {
                OperationAction::Unreserve(raw.unreserve.unwrap_or_default())
            }
            OperationType::Create => OperationAction::Create(raw.create.unwrap_or_default()),
            OperationType::Destroy => OperationAction::Destroy(raw.destroy.unwrap_or_default()),
            OperationType::GrowVolume => {
                OperationAction::GrowVolume(raw.grow_volume.unwrap_or_default())
            }
            OperationType::ShrinkVolume => {
                OperationAction::ShrinkVolume(raw.shrink_volume.unwrap_or_default())
            }
            OperationType::CreateDisk => {
                OperationAction::CreateDisk(raw.create_disk.unwrap_or_default())
            }
            OperationType::DestroyDisk => {
                OperationAction::DestroyDisk(raw.destroy_disk.unwrap_or_default())
            }
            OperationType::Unknown => OperationAction::Unknown,
        };
        Ok(Self { id: raw.id, action })
    }
}

impl Presence for Operation {}

names! {
    /// Where an operation stands.
    pub enum OperationState default Unsupported {
        /// Missing.
        Unsupported = 0 "OPERATION_UNSUPPORTED",
        /// On its way.
        Pending = 1 "OPERATION_PENDING",
        /// End: done.
        Finished = 2 "OPERATION_FINISHED",
        /// End: tried without success.
        Failed = 3 "OPERATION_FAILED",
        /// End: it could not be described like that.
        Error = 4 "OPERATION_ERROR",
        /// End: it never reached the agent.
        Dropped = 5 "OPERATION_DROPPED",
        /// Its agent cannot be reached.
        Unreachable = 6 "OPERATION_UNREACHABLE",
        /// End: an operator said that its agent is gone.
        GoneByOperator = 7 "OPERATION_GONE_BY_OPERATOR",
        /// Its provider is coming back.
        Recovering = 8 "OPERATION_RECOVERING",
        /// The master knows nothing of it.
        Unknown = 9 "OPERATION_UNKNOWN",
    } else
    /// A state this version does not know.
    Unrecognised = -1 "OPERATION_UNRECOGNISED"
}

impl OperationState {
    /// Whether an operation never leaves this state.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Finished | Self::Failed | Self::Error | Self::Dropped | Self::GoneByOperator => {
                true
            }
            Self::Unsupported
            | Self::Pending
            | Self::Unreachable
            | Self::Recovering
            | Self::Unknown
            | Self::Unrecognised => false,
        }
    }
}

record! {
    /// A report on an operation.
    pub struct OperationStatus {
        /// The operation, when its framework gave it an id.
        pub operation_id: Option<OperationId>,
        /// Where it stands.
        pub state: OperationState,
        /// In words.
        pub message: Option<String>,
        /// What the consumed resources have become; only for operations whose result is not known beforehand.
        pub converted_resources: Resources,
        /// Set exactly when the report must be acknowledged.
        pub uuid: Option<UpdateId>,
        /// Its agent.
        pub agent_id: Option<AgentId>,
        /// Its provider; none for the agent itself.
        pub resource_provider_id: Option<ResourceProviderId>,
    }
}

/// What an operation turns into what.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversion {
    /// Taken away; must be there.
    pub consumed: Resources,
    /// Put in its place.
    pub converted: Resources,
    /// Shared volumes of which no copy may be left afterwards.
    pub must_be_gone: Resources,
}

/// Why an operation cannot be applied.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConvertError {
    /// Its result is not known beforehand, or it changes no resources.
    #[error("{0} is not an operation with a result that is known beforehand")]
    NotSpeculative(OperationType),
    /// A growing or shrinking volume is not an amount.
    #[error("{0} is not an amount of disk")]
    NotAnAmount(String),
    /// Something to reserve back or unreserve has no reservation.
    #[error("Resource {0} is not reserved")]
    NotReserved(String),
    /// There is not enough.
    #[error("{available} does not contain {needed}")]
    NotContained {
        /// What there is, printed.
        available: String,
        /// What would be consumed, printed.
        needed: String,
    },
    /// Copies of a shared volume are still held.
    #[error("{remaining} still holds copies of {volume}")]
    StillShared {
        /// What would be left, printed.
        remaining: String,
        /// The volume, printed.
        volume: String,
    },
}

fn popped(resource: &Resource) -> Result<Resource, ConvertError> {
    if resource.is_unreserved() {
        return Err(ConvertError::NotReserved(resource.to_string()));
    }
    Ok(Resource {
        reservations: resource.reservations.popped(),
        ..resource.clone()
    })
}

fn resized(volume: &Resource, amount: Scalar) -> Resource {
    Resource {
        value: Value::Scalar(amount),
        ..volume.clone()
    }
}

fn amount(resource: &Resource) -> Result<Scalar, ConvertError> {
    let none = || ConvertError::NotAnAmount(resource.to_string());
    resource.amount().ok_or_else(none)
}

/// The conversions of an operation whose result is known beforehand, in the order in which they must be applied.
///
/// # Errors
/// [`ConvertError`] for launches, provider disks, and operations on what they cannot apply to.
pub fn convert(operation: &Operation) -> Result<Vec<Conversion>, ConvertError> {
    let one = |consumed: Resources, converted: Resources| Conversion {
        consumed,
        converted,
        must_be_gone: Resources::new(),
    };
    match &operation.action {
        OperationAction::Reserve(reserve) if !reserve.source.is_empty() => {
            Ok(vec![one(reserve.source.clone(), reserve.resources.clone())])
        }
        OperationAction::Reserve(reserve) => reserve
            .resources
            .iter()
            .map(|resource| Ok(one(popped(resource)?.into(), resource.clone().into())))
            .collect(),
        OperationAction::Unreserve(unreserve) => unreserve
            .resources
            .iter()
            .map(|resource| Ok(one(resource.clone().into(), popped(resource)?.into())))
            .collect(),
        OperationAction::Create(create) => Ok(create
            .volumes
            .iter()
            .map(|volume| one(volume.without_volume().into(), volume.clone().into()))
            .collect()),
        OperationAction::Destroy(destroy) => Ok(destroy
            .volumes
            .iter()
            .map(|volume| Conversion {
                must_be_gone: Resources::from(volume.clone()).shared(),
                ..one(volume.clone().into(), volume.without_volume().into())
            })
            .collect()),
        OperationAction::GrowVolume(grow) => {
            let size = amount(&grow.volume)? + amount(&grow.addition)?;
            let consumed = Resources::from(grow.volume.clone()) + &grow.addition;
            Ok(vec![one(consumed, resized(&grow.volume, size).into())])
        }
        OperationAction::ShrinkVolume(shrink) => {
            let taken = shrink.subtract.value;
            let kept = resized(&shrink.volume, amount(&shrink.volume)? - taken);
            let freed = resized(&shrink.volume.without_volume(), taken);
            Ok(vec![one(
                shrink.volume.clone().into(),
                Resources::from(kept) + &freed,
            )])
        }
        OperationAction::Launch(_)
        | OperationAction::LaunchGroup(_)
        | OperationAction::CreateDisk(_)
        | OperationAction::DestroyDisk(_)
        | OperationAction::Unknown => Err(ConvertError::NotSpeculative(operation.kind())),
    }
}

impl Resources {
    /// The resources after a conversion.
    ///
    /// # Errors
    /// When what it consumes is not there, or a shared volume that must be gone is not.
    pub fn convert(&self, conversion: &Conversion) -> Result<Self, ConvertError> {
        if !self.contains(&conversion.consumed) {
            return Err(ConvertError::NotContained {
                available: self.to_string(),
                needed: conversion.consumed.to_string(),
            });
        }
        let result = self - &conversion.consumed + &conversion.converted;
        if let Some(volume) = conversion
            .must_be_gone
            .iter()
            .find(|volume| result.contains_resource(volume))
        {
            return Err(ConvertError::StillShared {
                remaining: result.to_string(),
                volume: volume.to_string(),
            });
        }
        Ok(result)
    }

    /// The resources after an operation whose result is known beforehand.
    ///
    /// # Errors
    /// As for [`convert`] and [`Self::convert`].
    pub fn apply(&self, operation: &Operation) -> Result<Self, ConvertError> {
        let mut result = self.clone();
        for conversion in convert(operation)? {
            result = result.convert(&conversion)?;
        }
        Ok(result)
    }
}
