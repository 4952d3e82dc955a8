//! For whom a resource is reserved: a stack of reservations, outermost first.
//!
//! Pure. Source: Mesos `src/common/resources_utils.cpp`.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::ResourceError;
use crate::common::Labels;
use crate::ids::{Role, validate_role};
use crate::wire::{names, record};

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

    /// Checks each layer, and that each refines the one below.
    pub(super) fn validate(&self) -> Result<(), ResourceError> {
        let mut below: Option<&Reservation> = None;
        for layer in self.iter() {
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
}

impl Deref for ReservationStack {
    type Target = [Reservation];

    fn deref(&self) -> &[Reservation] {
        self.0.as_deref().unwrap_or_default()
    }
}
