//! A resource as it travels.
//!
//! Pure. In memory there is one form, in which reservations are a stack; on the wire the older form with `role` and
//! `reservation` is read as well. Source: Mesos `src/common/resources_utils.cpp`.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::disk::DiskInfo;
use super::reservation::{Reservation, ReservationStack, ReservationType};
use super::resource::{Malformed, Resource, ResourceError, Value, resource_name};
use super::{Ranges, Scalar, Set};
use crate::common::Labels;
use crate::ids::{ResourceProviderId, Role};
use crate::wire::{Presence, names, record};

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
