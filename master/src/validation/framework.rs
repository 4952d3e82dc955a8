//! A framework's description of itself.
//!
//! Pure. Source: Mesos `src/master/validation.cpp` (`framework::validate`), `src/master/master.cpp`.

use std::collections::BTreeSet;

use meseta_protocol::Role;
use meseta_protocol::framework::{FrameworkCapability, FrameworkInfo};
use meseta_protocol::ids::{IdError, RoleError, validate_id, validate_role};

/// What the master's operator allows frameworks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Roles that may be used beside `*`; any when none.
    pub role_whitelist: Option<BTreeSet<Role>>,
    /// Whether a framework may run as user `root`.
    pub root_submissions: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            role_whitelist: None,
            root_submissions: true,
        }
    }
}

/// Why a framework is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameworkRejection {
    /// `roles` without the capability.
    #[error("'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable")]
    RolesWithoutMultiRole,
    /// `role` with the capability.
    #[error("'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable")]
    RoleWithMultiRole,
    /// A role stands twice in `roles`.
    #[error("'FrameworkInfo.roles' contains duplicate items: {{ {0} }}")]
    DuplicateRoles(String),
    /// One of `roles` is no role.
    #[error("'FrameworkInfo.roles' contains invalid role: {0}")]
    InvalidRoles(#[source] RoleError),
    /// `role` is no role.
    #[error("'FrameworkInfo.role' is not a valid role: {0}")]
    InvalidRole(#[source] RoleError),
    /// The id cannot be one.
    #[error(transparent)]
    Id(#[from] IdError),
    /// An alternative of a smallest offer names nothing.
    #[error("Resource quantities must contain at least one quantity")]
    EmptyQuantities,
    /// The fail-over time-out is no length of time.
    #[error("The framework failover_timeout ({0}) is invalid")]
    FailoverTimeout(String),
    /// Roles that the operator did not list.
    #[error("Roles {{ {0} }} are not present in the master's --roles")]
    NotWhitelisted(String),
    /// The operator does not let frameworks run as root.
    #[error("User 'root' is not allowed to run frameworks without --root_submissions set")]
    Root,
    /// A suppressed role that the framework is not in.
    #[error("Suppressed role '{0}' is not contained in the list of roles")]
    SuppressedRole(Role),
}

/// Checks a framework that subscribes, or describes itself anew.
///
/// # Errors
/// [`FrameworkRejection`] with the first rule that is broken.
pub fn validate(
    info: &FrameworkInfo,
    suppressed_roles: &BTreeSet<Role>,
    settings: &Settings,
) -> Result<(), FrameworkRejection> {
    validate_roles(info)?;
    if let Some(id) = info.id.as_ref().filter(|id| !id.is_empty()) {
        validate_id(id.as_str())?;
    }
    for filters in info.offer_filters.values() {
        let smallest = filters.min_allocatable_resources.iter();
        if smallest
            .flat_map(|s| &s.quantities)
            .any(|one| one.quantities.is_empty())
        {
            return Err(FrameworkRejection::EmptyQuantities);
        }
    }
    // Durations are signed 64-bit counts of nanoseconds.
    let nanoseconds = info.failover_timeout * 1e9;
    if nanoseconds.is_nan() || nanoseconds.abs() > i64::MAX as f64 {
        let text = short_number(info.failover_timeout);
        return Err(FrameworkRejection::FailoverTimeout(text));
    }
    let roles = info.effective_roles();
    if let Some(whitelist) = &settings.role_whitelist {
        let unlisted = |role: &&Role| !role.is_star() && !whitelist.contains(*role);
        let unlisted: Vec<&str> = roles.iter().filter(unlisted).map(Role::as_str).collect();
        if !unlisted.is_empty() {
            return Err(FrameworkRejection::NotWhitelisted(unlisted.join(", ")));
        }
    }
    if info.user == "root" && !settings.root_submissions {
        return Err(FrameworkRejection::Root);
    }
    match suppressed_roles.iter().find(|role| !roles.contains(*role)) {
        Some(role) => Err(FrameworkRejection::SuppressedRole(role.clone())),
        None => Ok(()),
    }
}

fn validate_roles(info: &FrameworkInfo) -> Result<(), FrameworkRejection> {
    if !info.has(FrameworkCapability::MultiRole) {
        if !info.roles.is_empty() {
            return Err(FrameworkRejection::RolesWithoutMultiRole);
        }
        let role = info.role.as_ref().map_or(Role::DEFAULT, Role::as_str);
        return validate_role(role).map_err(FrameworkRejection::InvalidRole);
    }
    if info.role.is_some() {
        return Err(FrameworkRejection::RoleWithMultiRole);
    }
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<&str> = info
        .roles
        .iter()
        .filter(|role| !seen.insert(*role))
        .map(Role::as_str)
        .collect();
    if !twice.is_empty() {
        let twice: Vec<&str> = twice.into_iter().collect();
        return Err(FrameworkRejection::DuplicateRoles(twice.join(", ")));
    }
    for role in &info.roles {
        validate_role(role.as_str()).map_err(FrameworkRejection::InvalidRoles)?;
    }
    Ok(())
}

/// A number as C++ prints it: six digits, with an exponent when it is very large.
fn short_number(value: f64) -> String {
    if value.is_finite() && value.abs() >= 1e6 {
        let text = format!("{value:.5e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let digits = digits.trim_end_matches('0').trim_end_matches('.');
        format!("{digits}e+{exponent:0>2}")
    } else {
        value.to_string().to_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meseta_protocol::framework::{
        FrameworkCapabilities, MinAllocatableQuantities, MinAllocatableResources, OfferFilters,
    };

    fn text(info: &FrameworkInfo, suppressed: &[&str]) -> String {
        let suppressed = suppressed.iter().copied().map(Role::from).collect();
        let settings = Settings {
            role_whitelist: Some(["a", "b"].into_iter().map(Role::from).collect()),
            root_submissions: false,
        };
        match validate(info, &suppressed, &settings) {
            Ok(()) => "ok".to_owned(),
            Err(rejection) => rejection.to_string(),
        }
    }

    #[test]
    fn every_rule_has_its_text() {
        let good = FrameworkInfo::new("user", "name").in_roles(["a", "b"]);
        let plain = FrameworkInfo {
            capabilities: FrameworkCapabilities::default(),
            roles: Vec::new(),
            ..good.clone()
        };
        let with = |change: fn(&mut FrameworkInfo)| {
            let mut info = good.clone();
            change(&mut info);
            info
        };
        let empty_wish = |info: &mut FrameworkInfo| {
            let smallest = MinAllocatableResources {
                quantities: vec![MinAllocatableQuantities::default()],
            };
            let filters = OfferFilters {
                min_allocatable_resources: Some(smallest),
            };
            info.offer_filters.insert("a".into(), filters);
        };
        let cases = [
            (good.clone(), "ok"),
            (with(|i| i.roles = Vec::new()), "ok"),
            (with(|i| i.roles = vec!["*".into()]), "ok"),
            (with(|i| i.id = Some("".into())), "ok"),
            (with(|i| i.failover_timeout = -1.0), "ok"),
            (plain.clone(), "ok"),
            (
                FrameworkInfo {
                    roles: vec!["a".into()],
                    ..plain.clone()
                },
                "'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable",
            ),
            (
                FrameworkInfo {
                    role: Some("/a".into()),
                    ..plain
                },
                "'FrameworkInfo.role' is not a valid role: Role '/a' cannot start with a slash",
            ),
            (
                with(|i| i.role = Some("a".into())),
                "'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable",
            ),
            (
                with(|i| i.roles = vec!["a".into(), "b".into(), "a".into()]),
                "'FrameworkInfo.roles' contains duplicate items: { a }",
            ),
            (
                with(|i| i.roles = vec!["a/".into()]),
                "'FrameworkInfo.roles' contains invalid role: Role 'a/' cannot end with a slash",
            ),
            (with(|i| i.id = Some("..".into())), "'..' is disallowed"),
            (
                with(empty_wish),
                "Resource quantities must contain at least one quantity",
            ),
            (
                with(|i| i.failover_timeout = 1e20),
                "The framework failover_timeout (1e+20) is invalid",
            ),
            (
                with(|i| i.failover_timeout = f64::NAN),
                "The framework failover_timeout (nan) is invalid",
            ),
            (
                with(|i| i.roles = vec!["a".into(), "x".into(), "y".into()]),
                "Roles { x, y } are not present in the master's --roles",
            ),
            (
                with(|i| i.user = "root".into()),
                "User 'root' is not allowed to run frameworks without --root_submissions set",
            ),
        ];
        for (info, expected) in cases {
            assert_eq!(text(&info, &[]), expected);
        }
        assert_eq!(text(&good, &["a"]), "ok");
        assert_eq!(
            text(&good, &["a", "c"]),
            "Suppressed role 'c' is not contained in the list of roles"
        );
    }
}
