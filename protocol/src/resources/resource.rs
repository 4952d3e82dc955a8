//! One resource: an amount, numbers or names, with whom it is reserved for and what disk it is.
//!
//! Pure. In memory there is one form: reservations are a stack, outermost first. On the wire the older form with
//! `role` and `reservation` is read as well. A resource that arrives malformed keeps what was wrong with it, so that
//! it can be refused by name; it never takes part in arithmetic. Source: Mesos `src/common/resources.cpp`,
//! `src/common/resources_utils.cpp`, `src/v1/resources.cpp`.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Ranges, Scalar, Set};
use crate::common::Labels;
use crate::container::Volume;
use crate::ids::{PersistenceId, ResourceProviderId, Role, RoleError, validate_role};
use crate::wire::{Presence, names, record};

static WELL_KNOWN: LazyLock<[Arc<str>; 5]> =
    LazyLock::new(|| ["cpus", "mem", "disk", "ports", "gpus"].map(Arc::from));

/// A resource's name as shared text; the well-known names are shared by the whole program.
pub fn resource_name(name: &str) -> Arc<str> {
    WELL_KNOWN
        .iter()
        .find(|known| ***known == *name)
        .map_or_else(|| Arc::from(name), Arc::clone)
}

names! {
    /// Kind of a value on the wire.
    pub enum ValueType default Unknown {
        /// A number.
        Scalar = 0 "SCALAR",
        /// Intervals of whole numbers.
        Ranges = 1 "RANGES",
        /// Texts.
        Set = 2 "SET",
        /// One text; only attributes may have it.
        Text = 3 "TEXT",
    } else
    /// A kind this version does not know.
    Unknown = -1 "UNKNOWN"
}

names! {
    /// How a reservation came about.
    pub enum ReservationType default Unknown {
        /// By the agent's configuration; never changes while the agent runs.
        Static = 1 "STATIC",
        /// By a RESERVE operation.
        Dynamic = 2 "DYNAMIC",
    } else
    /// Missing, or a kind this version does not know.
    Unknown = 0 "UNKNOWN"
}

names! {
    /// What a disk is.
    pub enum DiskSourceType default Unknown {
        /// A directory; any part of it may be used.
        Path = 1 "PATH",
        /// A mounted file system; only the whole of it may be used.
        Mount = 2 "MOUNT",
        /// A block device of a storage provider.
        Block = 3 "BLOCK",
        /// Storage of a provider that is not yet a mount or a block device.
        Raw = 4 "RAW",
    } else
    /// Missing, or a kind this version does not know.
    Unknown = 0 "UNKNOWN"
}

record! {
    /// One layer of a reservation stack.
    #[derive(Eq, Hash)]
    pub struct Reservation {
        /// How it came about.
        #[serde(rename = "type")]
        pub kind: ReservationType,
        /// For whom.
        pub role: Role,
        /// Who reserved; only dynamic reservations have one.
        pub principal: Option<String>,
        /// Free notes of whoever reserved; part of the identity.
        pub labels: Option<Labels>,
    }
}

impl Reservation {
    /// A reservation made by the agent's configuration.
    pub fn fixed(role: impl Into<Role>) -> Self {
        Self {
            kind: ReservationType::Static,
            role: role.into(),
            ..Self::default()
        }
    }

    /// A reservation made by an operation, without a principal.
    pub fn dynamic(role: impl Into<Role>) -> Self {
        Self {
            kind: ReservationType::Dynamic,
            role: role.into(),
            ..Self::default()
        }
    }

    /// The same made by `principal`.
    #[must_use]
    pub fn by(mut self, principal: impl Into<String>) -> Self {
        self.principal = Some(principal.into());
        self
    }
}

/// `(DYNAMIC,role,principal,{key: value})`.
impl fmt::Display for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({},{}", self.kind, self.role)?;
        if let Some(principal) = &self.principal {
            write!(f, ",{principal}")?;
        }
        if let Some(labels) = &self.labels {
            write!(f, ",{labels}")?;
        }
        f.write_str(")")
    }
}

/// The reservations of a resource, outermost first; the last one names the role it is reserved for. Empty when
/// unreserved. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ReservationStack(Option<Arc<[Reservation]>>);

impl ReservationStack {
    /// The stack of these layers.
    pub fn new(layers: Vec<Reservation>) -> Self {
        if layers.is_empty() {
            Self(None)
        } else {
            Self(Some(Arc::from(layers)))
        }
    }

    /// This stack with one more layer on top.
    #[must_use]
    pub fn pushed(&self, layer: Reservation) -> Self {
        let mut layers = self.to_vec();
        layers.push(layer);
        Self::new(layers)
    }

    /// This stack without its last layer.
    #[must_use]
    pub fn popped(&self) -> Self {
        let mut layers = self.to_vec();
        layers.pop();
        Self::new(layers)
    }
}

impl Deref for ReservationStack {
    type Target = [Reservation];

    fn deref(&self) -> &[Reservation] {
        self.0.as_deref().unwrap_or_default()
    }
}

record! {
    /// What makes a disk resource a persistent volume.
    pub struct Persistence {
        /// The volume's name, unique per role and agent.
        pub id: PersistenceId,
        /// Who created it; not part of the identity.
        pub principal: Option<String>,
    }
}

record! {
    /// Where a path or mount disk lives.
    #[derive(Eq)]
    pub struct DiskRoot {
        /// Directory on the agent.
        pub root: Option<String>,
    }
}

record! {
    /// Which disk of the agent a resource is cut from.
    #[derive(Eq)]
    pub struct DiskSource {
        /// What it is.
        #[serde(rename = "type")]
        pub kind: DiskSourceType,
        /// Set for PATH.
        pub path: Option<DiskRoot>,
        /// Set for MOUNT.
        pub mount: Option<DiskRoot>,
        /// Who makes the storage, given by its provider.
        pub vendor: Option<String>,
        /// The provider's name of this volume.
        pub id: Option<String>,
        /// The provider's notes.
        pub metadata: Option<Labels>,
        /// The provider's class of storage.
        pub profile: Option<String>,
    }
}

impl DiskSource {
    /// A directory disk.
    pub fn path(root: impl Into<String>) -> Self {
        Self {
            kind: DiskSourceType::Path,
            path: Some(DiskRoot {
                root: Some(root.into()),
            }),
            ..Self::default()
        }
    }

    /// A mounted disk.
    pub fn mount(root: impl Into<String>) -> Self {
        Self {
            kind: DiskSourceType::Mount,
            mount: Some(DiskRoot {
                root: Some(root.into()),
            }),
            ..Self::default()
        }
    }
}

/// `MOUNT(id,profile):/root`.
impl fmt::Display for DiskSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if self.id.is_some() || self.profile.is_some() {
            let id = self.id.as_deref().unwrap_or_default();
            let profile = self.profile.as_deref().unwrap_or_default();
            write!(f, "({id},{profile})")?;
        }
        let place = self.path.as_ref().or(self.mount.as_ref());
        if let Some(root) = place.and_then(|place| place.root.as_deref()) {
            write!(f, ":{root}")?;
        }
        Ok(())
    }
}

record! {
    /// What a disk resource is beyond its size.
    pub struct DiskInfo {
        /// Set for persistent volumes.
        pub persistence: Option<Persistence>,
        /// Where the volume appears in the container; not part of the identity.
        pub volume: Option<Volume>,
        /// Which disk; the agent's work directory when missing.
        pub source: Option<DiskSource>,
    }
}

impl DiskInfo {
    /// A persistent volume `id` that appears at `container_path`, on the agent's root disk.
    pub fn persistent(id: impl Into<PersistenceId>, container_path: impl Into<String>) -> Self {
        Self {
            persistence: Some(Persistence {
                id: id.into(),
                principal: None,
            }),
            volume: Some(Volume::writable(container_path)),
            source: None,
        }
    }

    /// This disk without persistence and volume; none when nothing is left.
    pub fn stripped(&self) -> Option<Arc<Self>> {
        self.source.as_ref().map(|source| {
            Arc::new(Self {
                source: Some(source.clone()),
                ..Self::default()
            })
        })
    }

    /// Whether the disk can only be used as a whole.
    pub fn is_indivisible(&self) -> bool {
        self.persistence.is_some()
            || self
                .source
                .as_ref()
                .is_some_and(|source| match source.kind {
                    DiskSourceType::Mount | DiskSourceType::Block => true,
                    DiskSourceType::Raw => source.id.is_some(),
                    DiskSourceType::Path | DiskSourceType::Unknown => false,
                })
    }

    /// Whether this is the same disk: same source and same persistence id.
    pub fn is_same_disk(&self, other: &Self) -> bool {
        let id = |disk: &Self| disk.persistence.as_ref().map(|p| p.id.clone());
        self.source == other.source && id(self) == id(other)
    }
}

/// `source,persistence id:container path`.
impl fmt::Display for DiskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(source) = &self.source {
            write!(f, "{source}")?;
        }
        if let Some(persistence) = &self.persistence {
            let comma = if self.source.is_some() { "," } else { "" };
            write!(f, "{comma}{}", persistence.id)?;
        }
        if let Some(volume) = &self.volume {
            write!(f, ":{volume}")?;
        }
        Ok(())
    }
}

/// How much of a resource, or which parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// An amount.
    Scalar(Scalar),
    /// Whole numbers.
    Ranges(Ranges),
    /// Names.
    Set(Set),
    /// What arrived was none of these; [`Resource::validate`] says why.
    Malformed(Arc<Malformed>),
}

/// A value that cannot be used, as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// What is wrong with it.
    pub error: ResourceError,
    /// The value in words, for messages.
    pub printed: String,
}

impl Value {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Scalar(amount) => !amount.is_positive(),
            Self::Ranges(ranges) => ranges.is_empty(),
            Self::Set(set) => set.is_empty(),
            Self::Malformed(_) => false,
        }
    }

    /// The amount, the count of numbers or the count of names, as a quantity.
    pub fn quantity(&self) -> Scalar {
        let whole = |n: u64| Scalar::whole(i64::try_from(n).unwrap_or(i64::MAX));
        match self {
            Self::Scalar(amount) => *amount,
            Self::Ranges(ranges) => whole(ranges.size()),
            Self::Set(set) => whole(set.len() as u64),
            Self::Malformed(_) => Scalar::ZERO,
        }
    }

    /// Whether the other value is of this kind and no larger.
    pub fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Scalar(a), Self::Scalar(b)) => a >= b,
            (Self::Ranges(a), Self::Ranges(b)) => a.contains(b),
            (Self::Set(a), Self::Set(b)) => a.contains(b),
            _ => false,
        }
    }

    pub(super) fn same_kind(&self, other: &Self) -> bool {
        matches!(
            (self, other),
            (Self::Scalar(_), Self::Scalar(_))
                | (Self::Ranges(_), Self::Ranges(_))
                | (Self::Set(_), Self::Set(_))
        )
    }

    pub(super) fn add(&mut self, other: &Self) {
        match (self, other) {
            (Self::Scalar(a), Self::Scalar(b)) => *a += *b,
            (Self::Ranges(a), Self::Ranges(b)) => a.add(b),
            (Self::Set(a), Self::Set(b)) => a.add(b),
            _ => debug_assert!(false, "values of different kinds are not addable"),
        }
    }

    pub(super) fn subtract(&mut self, other: &Self) {
        match (self, other) {
            (Self::Scalar(a), Self::Scalar(b)) => *a -= *b,
            (Self::Ranges(a), Self::Ranges(b)) => a.subtract(b),
            (Self::Set(a), Self::Set(b)) => a.subtract(b),
            _ => debug_assert!(false, "values of different kinds are not subtractable"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(amount) => amount.fmt(f),
            Self::Ranges(ranges) => ranges.fmt(f),
            Self::Set(set) => set.fmt(f),
            Self::Malformed(malformed) => f.write_str(&malformed.printed),
        }
    }
}

/// One resource.
///
/// Two resources are equal when they are the same in everything but a volume's place in the container and a
/// volume's creator.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Provider it comes from; none for the agent's own.
    pub provider_id: Option<ResourceProviderId>,
    /// What it is: `cpus`, `mem` and `disk` in MiB, `ports`, `gpus`, or any other name.
    pub name: Arc<str>,
    /// How much.
    pub value: Value,
    /// Role it is offered or used under; none in an agent's total.
    pub allocation: Option<Role>,
    /// Whom it is reserved for.
    pub reservations: ReservationStack,
    /// What disk it is; only for the name `disk`.
    pub disk: Option<Arc<DiskInfo>>,
    /// Whether it may be taken back at any time.
    pub revocable: bool,
    /// Whether several tasks may hold it at once; only for persistent volumes.
    pub shared: bool,
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.shared == other.shared
            && self.value == other.value
            && self.same_identity(other)
    }
}

impl Resource {
    /// An unreserved resource.
    pub fn new(name: &str, value: Value) -> Self {
        Self {
            provider_id: None,
            name: resource_name(name),
            value,
            allocation: None,
            reservations: ReservationStack::default(),
            disk: None,
            revocable: false,
            shared: false,
        }
    }

    /// An amount of `name`.
    pub fn scalar(name: &str, amount: Scalar) -> Self {
        Self::new(name, Value::Scalar(amount))
    }

    /// Whole numbers of `name`.
    pub fn ranges(name: &str, intervals: impl IntoIterator<Item = (u64, u64)>) -> Self {
        Self::new(name, Value::Ranges(Ranges::new(intervals)))
    }

    /// Names of `name`.
    pub fn set<T: Into<Arc<str>>>(name: &str, items: impl IntoIterator<Item = T>) -> Self {
        Self::new(name, Value::Set(Set::new(items)))
    }

    /// The same with one more reservation on top.
    #[must_use]
    pub fn reserved_by(mut self, layer: Reservation) -> Self {
        self.reservations = self.reservations.pushed(layer);
        self
    }

    /// The same offered or used under `role`.
    #[must_use]
    pub fn allocated_to(mut self, role: impl Into<Role>) -> Self {
        self.allocation = Some(role.into());
        self
    }

    /// The same as a part of `disk`.
    #[must_use]
    pub fn on_disk(mut self, disk: DiskInfo) -> Self {
        self.disk = Some(Arc::new(disk));
        self
    }

    /// The same as a revocable resource.
    #[must_use]
    pub fn as_revocable(mut self) -> Self {
        self.revocable = true;
        self
    }

    /// The same as a shared resource.
    #[must_use]
    pub fn as_shared(mut self) -> Self {
        self.shared = true;
        self
    }

    /// The same without any reservation.
    #[must_use]
    pub fn to_unreserved(&self) -> Self {
        Self {
            reservations: ReservationStack::default(),
            ..self.clone()
        }
    }

    /// The amount, when it is one.
    pub fn amount(&self) -> Option<Scalar> {
        if let Value::Scalar(amount) = &self.value {
            Some(*amount)
        } else {
            None
        }
    }

    /// Whether there is nothing of it.
    pub fn is_empty(&self) -> bool {
        self.value.is_empty()
    }

    /// The role it is reserved for; none when unreserved.
    pub fn reservation_role(&self) -> Option<&Role> {
        self.reservations.last().map(|layer| &layer.role)
    }

    /// Whether it is reserved for `role`, or for anybody when `role` is none.
    pub fn is_reserved(&self, role: Option<&Role>) -> bool {
        match (self.reservation_role(), role) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(have), Some(want)) => have == want,
        }
    }

    /// Whether nobody reserved it.
    pub fn is_unreserved(&self) -> bool {
        self.reservations.is_empty()
    }

    /// Whether an operation reserved it.
    pub fn is_dynamically_reserved(&self) -> bool {
        self.reservations
            .last()
            .is_some_and(|layer| layer.kind == ReservationType::Dynamic)
    }

    /// Whether it has more than one reservation.
    pub fn has_refined_reservations(&self) -> bool {
        self.reservations.len() > 1
    }

    /// Whether a framework of `role` may be given it: unreserved, or reserved for the role or one above it.
    pub fn is_allocatable_to(&self, role: &Role) -> bool {
        self.reservation_role().is_none_or(|r| role.is_within(r))
    }

    /// Whether it is reserved for `role` or a role below it.
    pub fn is_reserved_to_role_subtree(&self, role: &Role) -> bool {
        self.reservation_role().is_some_and(|r| r.is_within(role))
    }

    /// Whether it is offered or used under `role` or a role below it.
    pub fn is_allocated_to_role_subtree(&self, role: &Role) -> bool {
        self.allocation.as_ref().is_some_and(|r| r.is_within(role))
    }

    /// Whether it is a persistent volume.
    pub fn is_persistent_volume(&self) -> bool {
        self.persistence_id().is_some()
    }

    /// The volume's id, when it is a persistent volume.
    pub fn persistence_id(&self) -> Option<&PersistenceId> {
        let persistence = self.disk.as_deref()?.persistence.as_ref()?;
        Some(&persistence.id)
    }

    /// Whether only the whole of it can be used.
    pub fn is_indivisible(&self) -> bool {
        self.disk.as_deref().is_some_and(DiskInfo::is_indivisible)
    }

    /// Whether the agent must write it down to keep it over a restart.
    pub fn needs_checkpointing(&self) -> bool {
        self.provider_id.is_none()
            && (self.is_dynamically_reserved() || self.is_persistent_volume())
    }

    /// The same without persistence, volume and sharing: what a volume is made from.
    #[must_use]
    pub fn without_volume(&self) -> Self {
        Self {
            disk: self.disk.as_deref().and_then(DiskInfo::stripped),
            shared: false,
            ..self.clone()
        }
    }

    /// At most `target` of it; none when it is larger and cannot be cut.
    pub fn shrunk(&self, target: Scalar) -> Option<Self> {
        let amount = self.amount()?;
        if amount <= target {
            return Some(self.clone());
        }
        if self.is_indivisible() || self.shared {
            return None;
        }
        Some(Self {
            value: Value::Scalar(target),
            ..self.clone()
        })
    }

    /// Same in everything but name, amount and sharing.
    fn same_identity(&self, other: &Self) -> bool {
        self.revocable == other.revocable
            && self.allocation == other.allocation
            && self.reservations == other.reservations
            && self.provider_id == other.provider_id
            && match (&self.disk, &other.disk) {
                (None, None) => true,
                (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a.is_same_disk(b),
                _ => false,
            }
    }

    /// Whether `other` can be merged into this one.
    pub fn is_addable(&self, other: &Self) -> bool {
        if self.shared != other.shared || self.name != other.name {
            return false;
        }
        if self.shared {
            return self == other;
        }
        self.value.same_kind(&other.value) && self.same_identity(other) && !self.is_indivisible()
    }

    /// Whether `other` can be taken out of this one, sizes aside.
    pub fn is_subtractable(&self, other: &Self) -> bool {
        if self.shared != other.shared || self.name != other.name {
            return false;
        }
        if self.shared {
            return self == other;
        }
        self.value.same_kind(&other.value)
            && self.same_identity(other)
            && (!self.is_indivisible() || self.value == other.value)
    }

    /// Whether `other` is a part of this one.
    pub fn contains(&self, other: &Self) -> bool {
        self.is_subtractable(other) && self.value.contains(&other.value)
    }

    /// Checks that the resource makes sense by itself.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn validate(&self) -> Result<(), ResourceError> {
        if self.name.is_empty() {
            return Err(ResourceError::EmptyName);
        }
        match &self.value {
            Value::Malformed(malformed) => return Err(malformed.error.clone()),
            Value::Scalar(amount) if *amount < Scalar::ZERO => {
                return Err(ResourceError::NegativeScalar);
            }
            Value::Scalar(amount) if *amount > Scalar::MOST => {
                return Err(ResourceError::TooMuch(self.name.to_string()));
            }
            Value::Scalar(_) | Value::Ranges(_) | Value::Set(_) => {}
        }
        if let Some(disk) = &self.disk {
            if &*self.name != "disk" {
                return Err(ResourceError::DiskInfoOnOtherResource(
                    self.name.to_string(),
                ));
            }
            if let Some(source) = &disk.source {
                validate_source(source)?;
            }
        }
        validate_stack(&self.reservations)?;
        if self.shared && !self.is_persistent_volume() {
            return Err(ResourceError::SharedButNotPersistent);
        }
        Ok(())
    }
}

fn validate_source(source: &DiskSource) -> Result<(), ResourceError> {
    let wrong = |field: &'static str| {
        Err(ResourceError::DiskSourceField {
            kind: source.kind,
            field,
        })
    };
    match source.kind {
        DiskSourceType::Unknown => Err(ResourceError::UnknownDiskSource),
        DiskSourceType::Path if source.mount.is_some() => wrong("mount"),
        DiskSourceType::Mount if source.path.is_some() => wrong("path"),
        DiskSourceType::Block | DiskSourceType::Raw if source.path.is_some() => wrong("path"),
        DiskSourceType::Block | DiskSourceType::Raw if source.mount.is_some() => wrong("mount"),
        DiskSourceType::Path
        | DiskSourceType::Mount
        | DiskSourceType::Block
        | DiskSourceType::Raw => Ok(()),
    }
}

fn validate_stack(stack: &[Reservation]) -> Result<(), ResourceError> {
    let mut below: Option<&Reservation> = None;
    for layer in stack {
        if layer.kind == ReservationType::Unknown {
            return Err(ResourceError::ReservationWithoutType);
        }
        validate_role(layer.role.as_str()).map_err(ResourceError::ReservationRole)?;
        if layer.role.is_star() {
            return Err(ResourceError::StarReserved);
        }
        if let Some(below) = below {
            if layer.kind == ReservationType::Static {
                return Err(ResourceError::StaticRefinement);
            }
            if !layer.role.is_strict_subrole_of(&below.role) {
                return Err(ResourceError::NotARefinement {
                    role: layer.role.to_string(),
                    below: below.role.to_string(),
                });
            }
        }
        below = Some(layer);
    }
    Ok(())
}

/// What is wrong with a resource by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// More than [`Scalar::MOST`], or infinite.
    #[error("{0} is more than {most}: check its unit and number", most = Scalar::MOST)]
    TooMuch(String),
    /// The name is empty.
    #[error("Empty resource name")]
    EmptyName,
    /// The value set is not the one its type announces.
    #[error("Invalid {} resource", .0.name().to_lowercase())]
    WrongValue(ValueType),
    /// The type is not one a resource may have.
    #[error("Unsupported resource type: a resource is a SCALAR, RANGES or SET")]
    UnsupportedType,
    /// The amount is negative or not a number.
    #[error("Invalid scalar resource: value <= 0")]
    NegativeScalar,
    /// An interval ends before it begins.
    #[error("Invalid ranges resource: begin > end")]
    ReversedRange,
    /// Two intervals share a number.
    #[error("Invalid ranges resource: overlapping ranges")]
    OverlappingRanges,
    /// A name stands twice in a set.
    #[error("Invalid set resource: duplicated elements")]
    DuplicatedElements,
    /// `disk` details on a resource that is no disk.
    #[error("DiskInfo should not be set for {0} resource")]
    DiskInfoOnOtherResource(String),
    /// The disk's source has no known type.
    #[error("Unsupported 'DiskInfo.Source.Type' in resource: UNKNOWN")]
    UnknownDiskSource,
    /// The disk's source has a field of another type.
    #[error("'{field}' should not be set for {kind} disk source")]
    DiskSourceField {
        /// Type of the source.
        kind: DiskSourceType,
        /// Field that is set.
        field: &'static str,
    },
    /// A reservation for `*`.
    #[error("Invalid reservation: role \"*\" cannot be reserved")]
    StarReserved,
    /// The older form of a dynamic reservation, for `*`.
    #[error("Invalid reservation: role \"*\" cannot be dynamically reserved")]
    StarDynamicallyReserved,
    /// A reservation without a type.
    #[error("Invalid reservation: type must be STATIC or DYNAMIC")]
    ReservationWithoutType,
    /// A reservation for a text that is no role.
    #[error("Invalid reservation: {0}")]
    ReservationRole(#[source] RoleError),
    /// A reservation on top of another must be dynamic.
    #[error("Invalid refined reservation: a refined reservation cannot be STATIC")]
    StaticRefinement,
    /// A reservation on top of another must be for a role below it.
    #[error("Invalid refined reservation: role '{role}' is not a refinement of '{below}'")]
    NotARefinement {
        /// Role of the upper layer.
        role: String,
        /// Role of the layer under it.
        below: String,
    },
    /// The older fields beside a stack say something else, or the stack has several layers.
    #[error(
        "Invalid resource format: 'Resource.role' and 'Resource.reservation' must agree with 'Resource.reservations'"
    )]
    FormatsDisagree,
    /// The older form of a reservation names a type or role inside.
    #[error(
        "Invalid resource format: 'type' and 'role' must not be set in 'Resource.reservation'; use 'Resource.reservations'"
    )]
    MixedFormats,
    /// Only persistent volumes can be shared.
    #[error("Only persistent volumes can be shared")]
    SharedButNotPersistent,
}

/// `name(allocated: role)(reservations: [..])[disk]{REV}<SHARED>:value`.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(role) = &self.allocation {
            write!(f, "(allocated: {role})")?;
        }
        if !self.reservations.is_empty() {
            f.write_str("(reservations: [")?;
            for (i, layer) in self.reservations.iter().enumerate() {
                write!(f, "{}{layer}", if i == 0 { "" } else { "," })?;
            }
            f.write_str("])")?;
        }
        if let Some(disk) = &self.disk {
            write!(f, "[{disk}]")?;
        }
        if self.revocable {
            f.write_str("{REV}")?;
        }
        if self.shared {
            f.write_str("<SHARED>")?;
        }
        write!(f, ":{}", self.value)
    }
}

record! {
    #[derive(Copy)]
    /// Part of `RawResource`.
    pub struct RawScalar {
        pub value: f64,
    }
}

record! {
    #[derive(Copy, Eq)]
    /// Part of `RawResource`.
    pub struct RawRange {
        pub begin: u64,
        pub end: u64,
    }
}

record! {
    /// Part of `RawResource`.
    pub struct RawRanges {
        pub range: Vec<RawRange>,
    }
}

record! {
    /// Part of `RawResource`.
    pub struct RawSet {
        pub item: Vec<Arc<str>>,
    }
}

record! {
    #[derive(Copy)]
    /// Part of `RawResource`.
    pub struct Mark {}
}

record! {
    /// Part of `RawResource`.
    pub struct RawAllocation {
        pub role: Option<Role>,
    }
}

record! {
    /// Part of `RawResource`.
    pub struct RawReservation {
        #[serde(rename = "type")]
        pub kind: Option<ReservationType>,
        pub role: Option<Role>,
        pub principal: Option<String>,
        pub labels: Option<Labels>,
    }
}

record! {
    /// A resource as it travels, in any of the three formats.
    pub struct RawResource {
        pub provider_id: Option<ResourceProviderId>,
        pub name: Arc<str>,
        #[serde(rename = "type")]
        pub kind: ValueType,
        pub scalar: Option<RawScalar>,
        pub ranges: Option<RawRanges>,
        pub set: Option<RawSet>,
        pub role: Option<Role>,
        pub allocation_info: Option<RawAllocation>,
        pub reservation: Option<RawReservation>,
        pub reservations: Vec<Reservation>,
        pub disk: Option<DiskInfo>,
        pub revocable: Option<Mark>,
        pub shared: Option<Mark>,
    }
}

impl RawResource {
    fn value(&self) -> Result<Value, ResourceError> {
        let wrong = || ResourceError::WrongValue(self.kind);
        match (self.kind, &self.scalar, &self.ranges, &self.set) {
            (ValueType::Scalar, Some(scalar), None, None) => {
                let amount = Scalar::from_f64(scalar.value).ok_or(ResourceError::NegativeScalar)?;
                if amount < Scalar::ZERO {
                    return Err(ResourceError::NegativeScalar);
                }
                Ok(Value::Scalar(amount))
            }
            (ValueType::Ranges, None, Some(ranges), None) => {
                let mut sorted = ranges.range.clone();
                sorted.sort_unstable_by_key(|range| (range.begin, range.end));
                if sorted.iter().any(|range| range.begin > range.end) {
                    return Err(ResourceError::ReversedRange);
                }
                if sorted.windows(2).any(|pair| pair[0].end >= pair[1].begin) {
                    return Err(ResourceError::OverlappingRanges);
                }
                let intervals = sorted.iter().map(|range| (range.begin, range.end));
                Ok(Value::Ranges(Ranges::new(intervals)))
            }
            (ValueType::Set, None, None, Some(set)) => {
                let items = Set::new(set.item.iter().cloned());
                if items.len() != set.item.len() {
                    return Err(ResourceError::DuplicatedElements);
                }
                Ok(Value::Set(items))
            }
            (ValueType::Text | ValueType::Unknown, ..) => Err(ResourceError::UnsupportedType),
            (ValueType::Scalar | ValueType::Ranges | ValueType::Set, ..) => Err(wrong()),
        }
    }

    /// The stack, whichever format it came in.
    fn stack(&self) -> Result<Vec<Reservation>, ResourceError> {
        let role = self.role.clone().unwrap_or_else(Role::star);
        let older = match &self.reservation {
            None if role.is_star() => Vec::new(),
            None => vec![Reservation::fixed(role)],
            Some(_) if role.is_star() => return Err(ResourceError::StarDynamicallyReserved),
            Some(reservation) => vec![Reservation {
                kind: ReservationType::Dynamic,
                role,
                principal: reservation.principal.clone(),
                labels: reservation.labels.clone(),
            }],
        };
        if self.reservations.is_empty() {
            let mixed = |r: &RawReservation| r.kind.is_some() || r.role.is_some();
            if self.reservation.as_ref().is_some_and(mixed) {
                return Err(ResourceError::MixedFormats);
            }
            return Ok(older);
        }
        if !older.is_empty() && older != self.reservations {
            return Err(ResourceError::FormatsDisagree);
        }
        Ok(self.reservations.clone())
    }

    fn printed(&self) -> String {
        if let Some(scalar) = &self.scalar {
            scalar.value.to_string()
        } else if let Some(ranges) = &self.ranges {
            let parts = ranges
                .range
                .iter()
                .map(|r| format!("{}-{}", r.begin, r.end));
            format!("[{}]", parts.collect::<Vec<_>>().join(", "))
        } else if let Some(set) = &self.set {
            format!("{{{}}}", set.item.join(", "))
        } else {
            String::new()
        }
    }
}

impl From<RawResource> for Resource {
    fn from(raw: RawResource) -> Self {
        let stack = raw.stack();
        let (layers, broken) = match stack {
            Ok(layers) => (layers, None),
            Err(error) => (raw.reservations.clone(), Some(error)),
        };
        let value = match (raw.value(), broken) {
            (Ok(value), None) => value,
            (Err(error), _) | (Ok(_), Some(error)) => Value::Malformed(Arc::new(Malformed {
                error,
                printed: raw.printed(),
            })),
        };
        Self {
            provider_id: raw.provider_id,
            name: resource_name(&raw.name),
            value,
            allocation: raw.allocation_info.and_then(|info| info.role),
            reservations: ReservationStack::new(layers),
            disk: raw.disk.map(Arc::new),
            revocable: raw.revocable.is_some(),
            shared: raw.shared.is_some(),
        }
    }
}

impl From<&Resource> for RawResource {
    fn from(resource: &Resource) -> Self {
        let mut raw = Self {
            provider_id: resource.provider_id.clone(),
            name: resource.name.clone(),
            allocation_info: resource
                .allocation
                .clone()
                .map(|role| RawAllocation { role: Some(role) }),
            reservations: resource.reservations.to_vec(),
            disk: resource.disk.as_deref().cloned(),
            revocable: resource.revocable.then_some(Mark {}),
            shared: resource.shared.then_some(Mark {}),
            ..Self::default()
        };
        match &resource.value {
            Value::Scalar(amount) => {
                raw.kind = ValueType::Scalar;
                raw.scalar = Some(RawScalar {
                    value: amount.as_f64(),
                });
            }
            Value::Ranges(ranges) => {
                raw.kind = ValueType::Ranges;
                let range = ranges.as_slice().iter().map(|range| RawRange {
                    begin: range.begin,
                    end: range.end,
                });
                raw.ranges = Some(RawRanges {
                    range: range.collect(),
                });
            }
            Value::Set(set) => {
                raw.kind = ValueType::Set;
                raw.set = Some(RawSet {
                    item: set.as_slice().to_vec(),
                });
            }
            // Stays malformed for the next reader: an announced type without a value.
            Value::Malformed(_) => raw.kind = ValueType::Unknown,
        }
        raw
    }
}

impl Serialize for Resource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawResource::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        RawResource::deserialize(deserializer).map(Self::from)
    }
}

impl Presence for Resource {}
