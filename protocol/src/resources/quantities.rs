//! Sums of resources by name: quantities (a missing name is nothing) and limits (a missing name is no bound).
//!
//! Pure. Invariant of quantities: no entry is zero, so equal quantities are equal values. Source: Mesos
//! `src/common/resource_quantities.cpp`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Resources, Scalar, resource_name};
use crate::wire::Presence;

/// Amounts by name; a missing name is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceQuantities(BTreeMap<Arc<str>, Scalar>);

impl ResourceQuantities {
    /// Nothing of anything.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The sums of the amounts; ranges and sets do not count.
    pub fn from_scalars(resources: &Resources) -> Self {
        let mut out = Self::new();
        for resource in resources.iter() {
            if let Some(amount) = resource.amount() {
                out.add_amount(&resource.name, amount);
            }
        }
        out
    }

    /// The sums of everything; ranges count their numbers, sets their items.
    pub fn from_resources(resources: &Resources) -> Self {
        let mut out = Self::new();
        for resource in resources.iter() {
            out.add_amount(&resource.name, resource.value.quantity());
        }
        out
    }

    /// The amount of `name`.
    pub fn get(&self, name: &str) -> Scalar {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Sets the amount of `name`.
    pub fn set(&mut self, name: &str, amount: Scalar) {
        if amount == Scalar::ZERO {
            self.0.remove(name);
        } else {
            self.0.insert(resource_name(name), amount);
        }
    }

    /// The same with this amount of `name`.
    #[must_use]
    pub fn with(mut self, name: &str, amount: Scalar) -> Self {
        self.set(name, amount);
        self
    }

    /// Adds an amount of one name.
    pub fn add_amount(&mut self, name: &Arc<str>, amount: Scalar) {
        if amount == Scalar::ZERO {
            return;
        }
        match self.0.get_mut(name) {
            Some(have) => *have += amount,
            None => {
                self.0.insert(Arc::clone(name), amount);
            }
        }
    }

    /// Takes an amount of one name away, down to nothing.
    pub fn subtract_amount(&mut self, name: &str, amount: Scalar) {
        if let Some(have) = self.0.get_mut(name) {
            *have = have.minus_down_to_zero(amount);
            if *have == Scalar::ZERO {
                self.0.remove(name);
            }
        }
    }

    /// Whether there is nothing of anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and amounts, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, Scalar)> {
        self.0.iter().map(|(name, amount)| (name, *amount))
    }

    /// Whether there is at least as much of every name as in `other`.
    pub fn contains(&self, other: &Self) -> bool {
        other.iter().all(|(name, amount)| self.get(name) >= amount)
    }
}

impl std::ops::AddAssign<&Self> for ResourceQuantities {
    fn add_assign(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            self.add_amount(name, amount);
        }
    }
}

/// Saturates at nothing, name by name.
impl std::ops::SubAssign<&Self> for ResourceQuantities {
    fn sub_assign(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            self.subtract_amount(name, amount);
        }
    }
}

impl std::ops::Add<&Self> for ResourceQuantities {
    type Output = Self;
    fn add(mut self, other: &Self) -> Self {
        self += other;
        self
    }
}

impl std::ops::Sub<&Self> for ResourceQuantities {
    type Output = Self;
    fn sub(mut self, other: &Self) -> Self {
        self -= other;
        self
    }
}

impl<'a> FromIterator<(&'a str, Scalar)> for ResourceQuantities {
    fn from_iter<I: IntoIterator<Item = (&'a str, Scalar)>>(amounts: I) -> Self {
        let mut out = Self::new();
        for (name, amount) in amounts {
            out.add_amount(&resource_name(name), amount);
        }
        out
    }
}

/// Bounds by name; a missing name has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceLimits(BTreeMap<Arc<str>, Scalar>);

impl ResourceLimits {
    /// No bounds.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The bound on `name`; none when it has none.
    pub fn get(&self, name: &str) -> Option<Scalar> {
        self.0.get(name).copied()
    }

    /// Bounds `name`.
    pub fn set(&mut self, name: &str, limit: Scalar) {
        self.0.insert(resource_name(name), limit);
    }

    /// The same with this bound on `name`.
    #[must_use]
    pub fn with(mut self, name: &str, limit: Scalar) -> Self {
        self.set(name, limit);
        self
    }

    /// Lowers the bound on `name`, if it has one, down to nothing.
    pub fn subtract_amount(&mut self, name: &str, amount: Scalar) {
        if let Some(limit) = self.0.get_mut(name)
            && *limit != Scalar::INFINITE
        {
            *limit = limit.minus_down_to_zero(amount);
        }
    }

    /// Lowers every bound by the amount of its name.
    pub fn subtract(&mut self, quantities: &ResourceQuantities) {
        for (name, amount) in quantities.iter() {
            self.subtract_amount(name, amount);
        }
    }

    /// Whether nothing is bounded.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and bounds, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, Scalar)> {
        self.0.iter().map(|(name, limit)| (name, *limit))
    }

    /// Whether these amounts stay within the bounds.
    pub fn contains(&self, quantities: &ResourceQuantities) -> bool {
        self.iter()
            .all(|(name, limit)| quantities.get(name) <= limit)
    }
}

impl<'a> FromIterator<(&'a str, Scalar)> for ResourceLimits {
    fn from_iter<I: IntoIterator<Item = (&'a str, Scalar)>>(limits: I) -> Self {
        let mut out = Self::new();
        for (name, limit) in limits {
            out.set(name, limit);
        }
        out
    }
}

fn print(amounts: &BTreeMap<Arc<str>, Scalar>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if amounts.is_empty() {
        return f.write_str("{}");
    }
    for (i, (name, amount)) in amounts.iter().enumerate() {
        write!(f, "{}{name}:{amount}", if i == 0 { "" } else { "; " })?;
    }
    Ok(())
}

/// `cpus:1; mem:64`.
impl fmt::Display for ResourceQuantities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(&self.0, f)
    }
}

/// `cpus:1; mem:64`.
impl fmt::Display for ResourceLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(&self.0, f)
    }
}

/// An amount as an object, or as a bare number.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Amount {
    Object { value: Scalar },
    Bare(Scalar),
}

fn write<S: Serializer>(
    amounts: &BTreeMap<Arc<str>, Scalar>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let amount = |value: &Scalar| Amount::Object { value: *value };
    serializer.collect_map(amounts.iter().map(|(name, value)| (name, amount(value))))
}

fn read<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<impl Iterator<Item = (Arc<str>, Scalar)>, D::Error> {
    let amounts = BTreeMap::<String, Amount>::deserialize(deserializer)?;
    Ok(amounts.into_iter().map(|(name, amount)| {
        let (Amount::Object { value } | Amount::Bare(value)) = amount;
        (resource_name(&name), value)
    }))
}

/// An object: `{"cpus": {"value": 1.5}}`. Bare numbers are read too.
impl Serialize for ResourceQuantities {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for ResourceQuantities {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries = read(deserializer)?.filter(|(_, amount)| *amount != Scalar::ZERO);
        Ok(Self(entries.collect()))
    }
}

/// An object as for quantities.
impl Serialize for ResourceLimits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for ResourceLimits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(read(deserializer)?.collect()))
    }
}

impl Presence for ResourceQuantities {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl Presence for ResourceLimits {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_means_nothing_for_quantities_and_no_bound_for_limits() {
        let some = ResourceQuantities::new().with("cpus", Scalar::whole(2));
        assert_eq!(some.get("mem"), Scalar::ZERO);
        assert!(some.contains(&ResourceQuantities::new()));
        let limits = ResourceLimits::new().with("mem", Scalar::whole(1));
        assert!(limits.contains(&some));
        assert!(
            !ResourceLimits::new()
                .with("cpus", Scalar::ZERO)
                .contains(&some)
        );
    }

    #[test]
    fn subtraction_stops_at_nothing() {
        let two = ResourceQuantities::new().with("cpus", Scalar::whole(2));
        let three = ResourceQuantities::new().with("cpus", Scalar::whole(3));
        assert_eq!(two.clone() - &three, ResourceQuantities::new());
        assert_eq!((two + &three).to_string(), "cpus:5");
    }

    #[test]
    fn reads_objects_and_bare_numbers() {
        let read: ResourceQuantities =
            serde_json::from_str(r#"{"cpus":{"value":1.5},"mem":64}"#).unwrap();
        assert_eq!(read.to_string(), "cpus:1.5; mem:64");
        assert_eq!(
            serde_json::to_string(&read).unwrap(),
            r#"{"cpus":{"value":1.5},"mem":{"value":64.0}}"#
        );
    }
}
