//! Resources: what agents have and tasks use, and how to reckon with it.
//!
//! Pure. [`Resources`] is a multiset of [`Resource`]s, kept merged: adding joins what can be joined, subtracting takes
//! from the first that fits, and nothing empty is kept. Elements stay in the order in which they first came, so
//! every result depends on its inputs only. Source: Mesos `src/common/resources.cpp`.
//!
//! | file | holds |
//! |---|---|
//! | `scalar.rs`, `ranges.rs`, `set.rs` | the three kinds of value |
//! | `resource.rs` | one resource and its rules |
//! | `reservation.rs`, `disk.rs` | for whom it is reserved, what disk it is |
//! | `wire.rs` | its wire form |
//! | `quantities.rs` | sums by name: quantities and limits |
//! | `parse.rs` | the text and JSON forms |
//! | `show.rs` | as it is shown over HTTP |

mod disk;
mod parse;
mod quantities;
mod ranges;
mod reservation;
mod resource;
mod scalar;
mod set;
mod show;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};

use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use disk::{DiskInfo, DiskRoot, DiskSource, DiskSourceType, Persistence};
pub use parse::{ParseError, ValueText, parse_quantities, parse_value};
pub use quantities::{ResourceLimits, ResourceQuantities};
pub use ranges::{Range, Ranges};
pub use reservation::{Reservation, ReservationStack, ReservationType};
pub use resource::{Malformed, Resource, ResourceError, Value, resource_name};
pub use scalar::Scalar;
pub use set::Set;
pub use show::{ReservedSums, Sums};
pub use wire::ValueType;

use crate::ids::Role;
use crate::wire::Presence;

/// One element of a collection. `copies` is 1 except for shared resources held several times.
#[derive(Debug, Clone)]
struct Element {
    resource: Resource,
    copies: u32,
}

/// A collection of resources.
///
/// Equality is mutual containment: order does not matter, nor does where a volume appears in a container.
#[derive(Clone, Default)]
pub struct Resources {
    elements: Vec<Element>,
}

impl Resources {
    /// Nothing.
    pub const fn new() -> Self {
        Self {
            elements: Vec::new(),
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// How many distinct elements there are.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// The elements; a shared one comes once, however often it is held.
    pub fn iter(&self) -> impl Iterator<Item = &Resource> {
        self.elements.iter().map(|element| &element.resource)
    }

    /// The elements with how often each is held.
    pub fn iter_with_copies(&self) -> impl Iterator<Item = (&Resource, u32)> {
        self.elements
            .iter()
            .map(|element| (&element.resource, element.copies))
    }

    /// Checks every element by itself.
    ///
    /// # Errors
    /// The first element that makes no sense, and why.
    pub fn validate(&self) -> Result<(), InvalidResource> {
        for resource in self.iter() {
            resource.validate().map_err(|error| InvalidResource {
                resource: resource.to_string(),
                error,
            })?;
        }
        Ok(())
    }

    fn add_copies(&mut self, resource: &Resource, copies: u32) {
        if resource.is_empty() {
            return;
        }
        for element in &mut self.elements {
            if element.resource.is_addable(resource) {
                if resource.shared {
                    element.copies = element.copies.saturating_add(copies);
                } else {
                    element.resource.value.add(&resource.value);
                }
                return;
            }
        }
        self.elements.push(Element {
            resource: resource.clone(),
            copies,
        });
    }

    fn subtract_copies(&mut self, resource: &Resource, copies: u32) {
        if resource.is_empty() {
            return;
        }
        let found = self
            .elements
            .iter_mut()
            .enumerate()
            .find(|(_, element)| element.resource.is_subtractable(resource));
        let Some((at, element)) = found else {
            return;
        };
        let gone = if resource.shared {
            element.copies = element.copies.saturating_sub(copies);
            element.copies == 0
        } else if element.resource.is_indivisible() {
            true
        } else {
            element.resource.value.subtract(&resource.value);
            element.resource.is_empty()
        };
        if gone {
            self.elements.remove(at);
        }
    }

    /// Whether this resource is in the collection.
    pub fn contains_resource(&self, resource: &Resource) -> bool {
        resource.is_empty()
            || self
                .elements
                .iter()
                .any(|element| element.resource.contains(resource))
    }

    /// Whether all of `other` is in the collection.
    pub fn contains(&self, other: &Self) -> bool {
        other.elements.iter().enumerate().all(|(at, wanted)| {
            // Merged collections hold at most one element for each identity, except for what only goes as a whole
            // (several equal volumes) and for shared resources; those two are counted.
            if wanted.resource.shared {
                self.elements.iter().any(|have| {
                    have.resource.contains(&wanted.resource) && have.copies >= wanted.copies
                })
            } else if wanted.resource.is_indivisible() {
                let same = |element: &&Element| element.resource.is_subtractable(&wanted.resource);
                let needed = other.elements[..=at].iter().filter(same).count();
                self.elements.iter().filter(same).count() >= needed
            } else {
                self.contains_resource(&wanted.resource)
            }
        })
    }

    /// Whether the sums by name reach `quantities`.
    pub fn contains_quantities(&self, quantities: &ResourceQuantities) -> bool {
        quantities.iter().all(|(name, wanted)| {
            let have: Scalar = self
                .iter()
                .filter(|resource| *resource.name == **name)
                .map(|resource| resource.value.quantity())
                .sum();
            have >= wanted
        })
    }

    /// The elements for which `keep` holds.
    #[must_use]
    pub fn filter(&self, keep: impl Fn(&Resource) -> bool) -> Self {
        let kept = self.elements.iter().filter(|e| keep(&e.resource));
        Self {
            elements: kept.cloned().collect(),
        }
    }

    /// What is reserved for `role`, or for anybody when `role` is none.
    #[must_use]
    pub fn reserved(&self, role: Option<&Role>) -> Self {
        self.filter(|resource| resource.is_reserved(role))
    }

    /// What nobody reserved.
    #[must_use]
    pub fn unreserved(&self) -> Self {
        self.filter(Resource::is_unreserved)
    }

    /// What may be taken back at any time.
    #[must_use]
    pub fn revocable(&self) -> Self {
        self.filter(|resource| resource.revocable)
    }

    /// What may not be taken back.
    #[must_use]
    pub fn non_revocable(&self) -> Self {
        self.filter(|resource| !resource.revocable)
    }

    /// The persistent volumes.
    #[must_use]
    pub fn persistent_volumes(&self) -> Self {
        self.filter(Resource::is_persistent_volume)
    }

    /// The shared resources.
    #[must_use]
    pub fn shared(&self) -> Self {
        self.filter(|resource| resource.shared)
    }

    /// Everything but shared resources.
    #[must_use]
    pub fn non_shared(&self) -> Self {
        self.filter(|resource| !resource.shared)
    }

    /// The amounts: no ranges, no sets.
    #[must_use]
    pub fn scalars(&self) -> Self {
        self.filter(|resource| resource.amount().is_some())
    }

    /// What a framework of `role` may be given: unreserved, or reserved for the role or one above it.
    #[must_use]
    pub fn allocatable_to(&self, role: &Role) -> Self {
        self.filter(|resource| resource.is_allocatable_to(role))
    }

    /// What is reserved for `role` or a role below it.
    #[must_use]
    pub fn reserved_to_role_subtree(&self, role: &Role) -> Self {
        self.filter(|resource| resource.is_reserved_to_role_subtree(role))
    }

    /// What is offered or used under `role` or a role below it.
    #[must_use]
    pub fn allocated_to_role_subtree(&self, role: &Role) -> Self {
        self.filter(|resource| resource.is_allocated_to_role_subtree(role))
    }

    /// What the agent must write down to keep it over a restart.
    #[must_use]
    pub fn needing_checkpoint(&self) -> Self {
        self.filter(Resource::needs_checkpointing)
    }

    fn grouped(&self, role: impl Fn(&Resource) -> Option<&Role>) -> BTreeMap<Role, Self> {
        let mut groups: BTreeMap<Role, Self> = BTreeMap::new();
        for element in &self.elements {
            if let Some(role) = role(&element.resource) {
                let group = groups.entry(role.clone()).or_default();
                group.elements.push(element.clone());
            }
        }
        groups
    }

    /// What is offered or used, by role. Elements without an allocation are in no group.
    pub fn allocations(&self) -> BTreeMap<Role, Self> {
        self.grouped(|resource| resource.allocation.as_ref())
    }

    /// What is reserved, by the role it is reserved for.
    pub fn reservations(&self) -> BTreeMap<Role, Self> {
        self.grouped(Resource::reservation_role)
    }

    fn map(&self, change: impl Fn(&mut Resource)) -> Self {
        let mut out = Self {
            elements: Vec::with_capacity(self.elements.len()),
        };
        for element in &self.elements {
            let mut resource = element.resource.clone();
            change(&mut resource);
            out.add_copies(&resource, element.copies);
        }
        out
    }

    /// Everything with one more reservation on top.
    #[must_use]
    pub fn push_reservation(&self, layer: &Reservation) -> Self {
        self.map(|resource| resource.reservations = resource.reservations.pushed(layer.clone()))
    }

    /// Everything without its last reservation; what is unreserved stays so.
    #[must_use]
    pub fn pop_reservation(&self) -> Self {
        self.map(|resource| resource.reservations = resource.reservations.popped())
    }

    /// Everything without any reservation.
    #[must_use]
    pub fn to_unreserved(&self) -> Self {
        self.map(|resource| resource.reservations = ReservationStack::default())
    }

    /// Marks everything as offered or used under `role`.
    pub fn allocate(&mut self, role: &Role) {
        *self = self.allocated(role);
    }

    /// Everything marked as offered or used under `role`.
    #[must_use]
    pub fn allocated(&self, role: &Role) -> Self {
        self.map(|resource| resource.allocation = Some(role.clone()))
    }

    /// Takes the mark of [`Self::allocate`] off everything.
    pub fn unallocate(&mut self) {
        if self.iter().any(|resource| resource.allocation.is_some()) {
            *self = self.unallocated();
        }
    }

    /// Everything without a mark of who holds it.
    #[must_use]
    pub fn unallocated(&self) -> Self {
        self.map(|resource| resource.allocation = None)
    }

    /// Finds `target` regardless of who it is reserved for: first what is reserved for the target's role, then what
    /// nobody reserved, then anything. Pieces are combined. None when there is not enough.
    pub fn find_resource(&self, target: &Resource) -> Option<Self> {
        let wanted_role = target.reservation_role();
        let pass = |round: usize, resource: &Resource| match round {
            0 => wanted_role.is_some() && resource.reservation_role() == wanted_role,
            1 => resource.is_unreserved(),
            _ => true,
        };
        let mut found = Self::new();
        let mut total = self.clone();
        let mut missing = Self::from(target.to_unreserved());
        for round in 0..3 {
            for candidate in total.filter(|resource| pass(round, resource)).elements {
                let plain = Self::from(candidate.resource.to_unreserved());
                if plain.contains(&missing) {
                    found += missing.map(|resource| {
                        resource.reservations = candidate.resource.reservations.clone();
                    });
                    return Some(found);
                }
                // Too little by itself: taken whole when all of it is wanted, else left for another target.
                if missing.contains(&plain) {
                    found += &candidate.resource;
                    total -= &candidate.resource;
                    missing -= &plain;
                }
            }
        }
        missing.is_empty().then_some(found)
    }

    /// Finds all of `targets` as [`Self::find_resource`] does, without using anything twice.
    pub fn find(&self, targets: &Self) -> Option<Self> {
        let mut total = self.clone();
        let mut all = Self::new();
        for target in targets.iter() {
            let found = total.find_resource(target)?;
            total -= &found;
            all += &found;
        }
        Some(all)
    }

    /// At most the given amount of each name; names that are not listed, and what cannot be cut to fit, are left
    /// out, as are ranges and sets.
    #[must_use]
    pub fn shrink_to_quantities(&self, target: &ResourceQuantities) -> Self {
        let mut left = target.clone();
        let mut out = Self::new();
        for resource in self.iter() {
            let room = left.get(&resource.name);
            if !room.is_positive() {
                continue;
            }
            if let Some(part) = resource.shrunk(room) {
                left.subtract_amount(&resource.name, part.value.quantity());
                out += &part;
            }
        }
        out
    }

    /// At most the limit of each name; names without a limit stay whole, and what cannot be cut to fit is left out.
    #[must_use]
    pub fn shrink_to_limits(&self, limits: &ResourceLimits) -> Self {
        let mut left = limits.clone();
        let mut out = Self::new();
        for element in &self.elements {
            let resource = &element.resource;
            let Some(room) = left.get(&resource.name) else {
                out.add_copies(resource, element.copies);
                continue;
            };
            if !room.is_positive() {
                continue;
            }
            if let Some(part) = resource.shrunk(room) {
                left.subtract_amount(&resource.name, part.value.quantity());
                out.add_copies(&part, element.copies);
            }
        }
        out
    }

    /// The sum of the amounts called `name`; none when there is no such amount. A shared one counts once.
    pub fn amount(&self, name: &str) -> Option<Scalar> {
        let mut sum = None;
        for resource in self.iter().filter(|resource| *resource.name == *name) {
            if let Some(amount) = resource.amount() {
                sum = Some(sum.unwrap_or(Scalar::ZERO) + amount);
            }
        }
        sum
    }

    /// All numbers called `name`; none when there are no such ranges.
    pub fn ranges(&self, name: &str) -> Option<Ranges> {
        let mut all: Option<Ranges> = None;
        for resource in self.iter().filter(|resource| *resource.name == *name) {
            if let Value::Ranges(ranges) = &resource.value {
                all.get_or_insert_default().add(ranges);
            }
        }
        all
    }

    /// All names called `name`; none when there are no such sets.
    pub fn set(&self, name: &str) -> Option<Set> {
        let mut all: Option<Set> = None;
        for resource in self.iter().filter(|resource| *resource.name == *name) {
            if let Value::Set(set) = &resource.value {
                all.get_or_insert_default().add(set);
            }
        }
        all
    }

    /// Processor shares; none when there is no such resource.
    pub fn cpus(&self) -> Option<Scalar> {
        self.amount("cpus")
    }

    /// Memory in MiB.
    pub fn mem(&self) -> Option<Scalar> {
        self.amount("mem")
    }

    /// Disk in MiB, volumes included.
    pub fn disk(&self) -> Option<Scalar> {
        self.amount("disk")
    }

    /// Graphics processors.
    pub fn gpus(&self) -> Option<Scalar> {
        self.amount("gpus")
    }

    /// Port numbers.
    pub fn ports(&self) -> Option<Ranges> {
        self.ranges("ports")
    }

    /// The distinct names, sorted.
    pub fn names(&self) -> std::collections::BTreeSet<std::sync::Arc<str>> {
        self.iter().map(|resource| resource.name.clone()).collect()
    }
}

/// An element of a collection that makes no sense by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Resource '{resource}' is invalid: {error}")]
pub struct InvalidResource {
    /// The element, printed.
    pub resource: String,
    /// What is wrong with it.
    #[source]
    pub error: ResourceError,
}

impl PartialEq for Resources {
    fn eq(&self, other: &Self) -> bool {
        self.contains(other) && other.contains(self)
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("{}");
        }
        for (i, element) in self.elements.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { "; " }, element.resource)?;
            if element.resource.shared {
                write!(f, "<{}>", element.copies)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resources({self})")
    }
}

impl From<Resource> for Resources {
    fn from(resource: Resource) -> Self {
        std::iter::once(resource).collect()
    }
}

impl FromIterator<Resource> for Resources {
    fn from_iter<I: IntoIterator<Item = Resource>>(resources: I) -> Self {
        let mut out = Self::new();
        out.extend(resources);
        out
    }
}

impl Extend<Resource> for Resources {
    fn extend<I: IntoIterator<Item = Resource>>(&mut self, resources: I) {
        for resource in resources {
            self.add_copies(&resource, 1);
        }
    }
}

impl AddAssign<&Resource> for Resources {
    fn add_assign(&mut self, resource: &Resource) {
        self.add_copies(resource, 1);
    }
}

impl SubAssign<&Resource> for Resources {
    fn sub_assign(&mut self, resource: &Resource) {
        self.subtract_copies(resource, 1);
    }
}

impl AddAssign<&Self> for Resources {
    fn add_assign(&mut self, other: &Self) {
        for element in &other.elements {
            self.add_copies(&element.resource, element.copies);
        }
    }
}

impl AddAssign for Resources {
    fn add_assign(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
        } else {
            *self += &other;
        }
    }
}

impl SubAssign<&Self> for Resources {
    fn sub_assign(&mut self, other: &Self) {
        for element in &other.elements {
            self.subtract_copies(&element.resource, element.copies);
        }
    }
}

impl SubAssign for Resources {
    fn sub_assign(&mut self, other: Self) {
        *self -= &other;
    }
}

impl<T> Add<T> for Resources
where
    Resources: AddAssign<T>,
{
    type Output = Self;
    fn add(mut self, other: T) -> Self {
        self += other;
        self
    }
}

impl<T> Sub<T> for Resources
where
    Resources: SubAssign<T>,
{
    type Output = Self;
    fn sub(mut self, other: T) -> Self {
        self -= other;
        self
    }
}

impl<T> Add<T> for &Resources
where
    Resources: AddAssign<T>,
{
    type Output = Resources;
    fn add(self, other: T) -> Resources {
        self.clone() + other
    }
}

impl<T> Sub<T> for &Resources
where
    Resources: SubAssign<T>,
{
    type Output = Resources;
    fn sub(self, other: T) -> Resources {
        self.clone() - other
    }
}

impl std::iter::Sum for Resources {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::new(), Add::add)
    }
}

impl<'a> std::iter::Sum<&'a Self> for Resources {
    fn sum<I: Iterator<Item = &'a Self>>(all: I) -> Self {
        all.fold(Self::new(), Add::add)
    }
}

impl Presence for Resources {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

/// A list of resources; a shared one stands in it once for each copy.
impl Serialize for Resources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let copies = self.elements.iter().map(|e| e.copies as usize).sum();
        let mut list = serializer.serialize_seq(Some(copies))?;
        for element in &self.elements {
            for _ in 0..element.copies {
                list.serialize_element(&element.resource)?;
            }
        }
        list.end()
    }
}

impl<'de> Deserialize<'de> for Resources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<Resource>::deserialize(deserializer)?
            .into_iter()
            .collect())
    }
}

#[cfg(test)]
mod tests;
