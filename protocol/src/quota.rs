//! What roles are guaranteed, and what they may have at most; weights of roles.
//!
//! Pure. Source: Mesos `include/mesos/v1/quota/quota.proto`, `docs/quota.md`.

use crate::ids::Role;
use crate::resources::{ResourceLimits, ResourceQuantities, Resources};
use crate::wire::record;

record! {
    /// Guarantees and limits of a role.
    #[derive(Eq)]
    pub struct QuotaConfig {
        /// The role; a top-level one.
        pub role: Role,
        /// Held back for the role; a missing name is nothing.
        pub guarantees: ResourceQuantities,
        /// At most for the role; a missing name has no bound.
        pub limits: ResourceLimits,
    }
}

impl QuotaConfig {
    /// Whether it says nothing, which removes the role's quota.
    pub fn is_default(&self) -> bool {
        self.guarantees.is_empty() && self.limits.is_empty()
    }
}

record! {
    /// The older form: guarantees that are also limits.
    pub struct QuotaInfo {
        /// The role.
        pub role: Option<Role>,
        /// Who set it.
        pub principal: Option<String>,
        /// Guarantee and limit.
        pub guarantee: Resources,
    }
}

record! {
    own Default;
    /// Weight of a role: how large its share is, compared with others.
    pub struct WeightInfo {
        /// The role.
        pub role: Option<Role>,
        /// Above 0; 1 when missing.
        pub weight: f64,
    }
}

impl Default for WeightInfo {
    fn default() -> Self {
        Self {
            role: None,
            weight: 1.0,
        }
    }
}
