//! Quotas and weights in the registry.
//!
//! Pure. Source: log.md §8, allocator.md §12; bounds of amounts after Mesos `src/master/quota.cpp`.

use std::collections::BTreeMap;

use meseta_protocol::Role;
use meseta_protocol::agent::MasterCapability;
use meseta_protocol::ids::{RoleError, validate_role};
use meseta_protocol::quota::QuotaConfig;
use meseta_protocol::resources::Scalar;
use serde::{Deserialize, Serialize};

use super::{Change, Registry};

/// Why quotas or weights cannot be set.
#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum RoleRejection {
    /// The role is no role.
    #[error("bad role `{role}`: {reason}")]
    Role {
        /// What was given.
        role: Role,
        /// The rule.
        reason: String,
    },
    /// An amount is negative or too large.
    #[error("quota of role {role}: {name}:{amount} must be from 0 to {most}")]
    Amount {
        /// The role.
        role: Role,
        /// Of which resource.
        name: String,
        /// How much was given.
        amount: f64,
        /// How much there may be.
        most: f64,
    },
    /// More is guaranteed than allowed.
    #[error(
        "quota of role {role}: guarantees {guarantees} are above limits {limits}: raise the limits or lower the \
         guarantees"
    )]
    AboveLimits {
        /// The role.
        role: Role,
        /// As given.
        guarantees: String,
        /// As given.
        limits: String,
    },
    /// A weight is no finite number above 0.
    #[error("weight of role {role}: {weight} must be a finite number above 0")]
    Weight {
        /// The role.
        role: Role,
        /// What was given.
        weight: f64,
    },
}

/// Most that can be given of memory and disk, in megabytes: one exabyte.
const MOST_MEGABYTES: Scalar = Scalar::whole(1 << 40);

impl Registry {
    pub(super) fn update_quota(
        &mut self,
        configs: &[QuotaConfig],
    ) -> Result<Change, RoleRejection> {
        for config in configs {
            validate_quota(config)?;
        }
        let before = (self.quota_configs.clone(), self.quotas.len());
        for config in configs {
            if config.is_default() {
                self.quota_configs.remove(&config.role);
            } else {
                self.quota_configs
                    .insert(config.role.clone(), config.clone());
            }
            self.quotas.remove(&config.role);
        }
        self.require(MasterCapability::QuotaV2, !self.quota_configs.is_empty());
        let changed = before.1 != self.quotas.len() || before.0 != self.quota_configs;
        Ok(Change::when(changed))
    }

    pub(super) fn update_weights(
        &mut self,
        weights: &BTreeMap<Role, f64>,
    ) -> Result<Change, RoleRejection> {
        for (role, weight) in weights {
            validate_role(role.as_str()).map_err(|error| bad_role(role, &error))?;
            if !weight.is_finite() || *weight <= 0.0 {
                return Err(RoleRejection::Weight {
                    role: role.clone(),
                    weight: *weight,
                });
            }
        }
        let mut changed = false;
        for (role, weight) in weights {
            let old = self.weights.insert(role.clone(), *weight);
            changed |= old.map(f64::to_bits) != Some(weight.to_bits());
        }
        Ok(Change::when(changed))
    }
}

fn bad_role(role: &Role, error: &RoleError) -> RoleRejection {
    RoleRejection::Role {
        role: role.clone(),
        reason: error.to_string(),
    }
}

fn validate_quota(config: &QuotaConfig) -> Result<(), RoleRejection> {
    let role = &config.role;
    validate_role(role.as_str()).map_err(|error| bad_role(role, &error))?;
    for (name, amount) in config.guarantees.iter().chain(config.limits.iter()) {
        let most = match &**name {
            "mem" | "disk" => MOST_MEGABYTES,
            _ => Scalar::MOST,
        };
        if amount < Scalar::ZERO || amount > most {
            return Err(RoleRejection::Amount {
                role: role.clone(),
                name: name.to_string(),
                amount: amount.as_f64(),
                most: most.as_f64(),
            });
        }
    }
    if !config.limits.contains(&config.guarantees) {
        return Err(RoleRejection::AboveLimits {
            role: role.clone(),
            guarantees: config.guarantees.to_string(),
            limits: config.limits.to_string(),
        });
    }
    Ok(())
}
