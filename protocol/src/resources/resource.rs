//! One resource: an amount, numbers or names, with whom it is reserved for and what disk it is.
//!
//! Pure. A resource that arrives malformed keeps what was wrong with it, so that it can be refused by name; it never
//! takes part in arithmetic. Its wire form is in `wire.rs`. Source: Mesos `src/common/resources.cpp`,
//! `src/v1/resources.cpp`.

use std::fmt;
use std::sync::{Arc, LazyLock};

use super::disk::{DiskInfo, DiskSourceType};
use super::reservation::{Reservation, ReservationStack, ReservationType};
use super::wire::ValueType;
use super::{Ranges, Scalar, Set};
use crate::ids::{PersistenceId, ResourceProviderId, Role, RoleError};

static WELL_KNOWN: LazyLock<[Arc<str>; 5]> =
    LazyLock::new(|| ["cpus", "mem", "disk", "ports", "gpus"].map(Arc::from));

/// A resource's name as shared text; the well-known names are shared by the whole program.
pub fn resource_name(name: &str) -> Arc<str> {
    WELL_KNOWN
        .iter()
        .find(|known| ***known == *name)
        .map_or_else(|| Arc::from(name), Arc::clone)
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
                source.validate()?;
            }
        }
        self.reservations.validate()?;
        if self.shared && !self.is_persistent_volume() {
            return Err(ResourceError::SharedButNotPersistent);
        }
        Ok(())
    }
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
