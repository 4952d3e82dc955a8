//! Resources of tasks and executors.
//!
//! Pure. First all resources of an operation are checked each by itself ([`validate_operation`]), and one bad one
//! spoils the operation; then each task's as a whole ([`validate`]). Source: Mesos `src/master/validation.cpp`
//! (`resource::validate` and below).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meseta_protocol::ids::{IdError, validate_id};
use meseta_protocol::operation::LaunchGroup;
use meseta_protocol::resources::{InvalidResource, Resource, Resources, Scalar, Value};
use meseta_protocol::task::TaskInfo;
use meseta_protocol::{PersistenceId, Role};

/// What is wrong with a disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiskRejection {
    /// Details that say nothing.
    #[error("DiskInfo is set but empty")]
    Empty,
    /// A volume of what may be taken back.
    #[error("Persistent volumes cannot be created from revocable resources")]
    Revocable,
    /// A volume of what nobody reserved.
    #[error("Persistent volumes cannot be created from unreserved resources")]
    Unreserved,
    /// A volume without persistence.
    #[error("Non-persistent volume not supported")]
    NotPersistent,
    /// It appears nowhere.
    #[error("Expecting 'volume' to be set for persistent volume")]
    NoVolume,
    /// It names a path of the host.
    #[error("Expecting 'host_path' to be unset for persistent volume")]
    HostPath,
    /// Its id cannot be one.
    #[error("Invalid persistence ID for persistent volume: {0}")]
    Id(#[source] IdError),
}

/// What is wrong with a collection of resources.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResourcesRejection {
    /// One makes no sense by itself.
    #[error(transparent)]
    Invalid(#[from] InvalidResource),
    /// A part of a graphics processor.
    #[error("Invalid 'gpus' resource: The 'gpus' resource must be an unsigned integer")]
    Gpus,
    /// A bad disk.
    #[error("Invalid DiskInfo: {0}")]
    Disk(#[from] DiskRejection),
    /// A reservation of what may be taken back.
    #[error(
        "Invalid ReservationInfo: Dynamically reserved resource {0} cannot be created from revocable resources"
    )]
    RevocableReservation(String),
    /// Two volumes of one role have one id.
    #[error("Persistence ID '{0}' is not unique")]
    DuplicatePersistenceId(PersistenceId),
    /// Something that was not offered.
    #[error("The resources are not allocated to a role")]
    NotAllocated,
    /// Offered under several roles.
    #[error(
        "The resources have multiple allocation roles ('{0}' and '{1}') but only one allocation role is allowed"
    )]
    SeveralRoles(Role, Role),
    /// Some of one name may be taken back, and some not.
    #[error("Cannot use both revocable and non-revocable '{0}' at the same time")]
    RevocableMix(Arc<str>),
    /// The same numbers or names twice.
    #[error("The '{0}' of the task and of its executor overlap")]
    Overlap(Arc<str>),
}

/// Checks each resource of all tasks of an operation, and of their executors, by itself.
///
/// # Errors
/// The first one that makes no sense; it fails all tasks of the operation.
pub fn validate_operation(tasks: &[TaskInfo]) -> Result<(), InvalidResource> {
    for task in tasks {
        task.resources.validate()?;
        if let Some(executor) = &task.executor {
            executor.resources.validate()?;
        }
    }
    Ok(())
}

/// The same for a task group.
///
/// # Errors
/// The first one that makes no sense; it fails all tasks of the group.
pub fn validate_group_operation(group: &LaunchGroup) -> Result<(), InvalidResource> {
    group.executor.resources.validate()?;
    validate_operation(&group.task_group.tasks)
}

/// Checks resources one by one, as a task or executor may hold them.
///
/// # Errors
/// [`ResourcesRejection`] with the first rule that is broken.
pub fn validate(resources: &Resources) -> Result<(), ResourcesRejection> {
    resources.validate()?;
    if resources
        .iter()
        .any(|r| &*r.name == "gpus" && !r.amount().is_some_and(Scalar::is_whole))
    {
        return Err(ResourcesRejection::Gpus);
    }
    for resource in resources.iter() {
        validate_disk(resource)?;
    }
    let taken_back = |r: &&Resource| r.revocable && r.is_dynamically_reserved();
    match resources.iter().find(taken_back) {
        Some(resource) => Err(ResourcesRejection::RevocableReservation(
            resource.to_string(),
        )),
        None => Ok(()),
    }
}

fn validate_disk(resource: &Resource) -> Result<(), DiskRejection> {
    let Some(disk) = &resource.disk else {
        return Ok(());
    };
    let Some(persistence) = &disk.persistence else {
        return match (&disk.volume, &disk.source) {
            (Some(_), _) => Err(DiskRejection::NotPersistent),
            (None, None) => Err(DiskRejection::Empty),
            (None, Some(_)) => Ok(()),
        };
    };
    if resource.revocable {
        return Err(DiskRejection::Revocable);
    }
    if resource.is_unreserved() {
        return Err(DiskRejection::Unreserved);
    }
    let volume = disk.volume.as_ref().ok_or(DiskRejection::NoVolume)?;
    if volume.host_path.is_some() {
        return Err(DiskRejection::HostPath);
    }
    validate_id(persistence.id.as_str()).map_err(DiskRejection::Id)
}

/// Checks that no role has two volumes of one id.
///
/// # Errors
/// The first id that is used twice.
pub fn validate_unique_persistence(resources: &Resources) -> Result<(), ResourcesRejection> {
    let mut seen = BTreeSet::new();
    for resource in resources.iter() {
        if let Some(id) = resource.persistence_id()
            && !seen.insert((resource.reservation_role(), id))
        {
            return Err(ResourcesRejection::DuplicatePersistenceId(id.clone()));
        }
    }
    Ok(())
}

/// Checks that all was offered under one role.
///
/// # Errors
/// The two roles, or that there is none.
pub fn validate_single_role(resources: &Resources) -> Result<(), ResourcesRejection> {
    let mut first: Option<&Role> = None;
    for resource in resources.iter() {
        let Some(role) = &resource.allocation else {
            return Err(ResourcesRejection::NotAllocated);
        };
        let first = *first.get_or_insert(role);
        if first != role {
            return Err(ResourcesRejection::SeveralRoles(
                role.clone(),
                first.clone(),
            ));
        }
    }
    Ok(())
}

/// Checks that of each name either all may be taken back or nothing.
///
/// # Errors
/// The first name that is mixed.
pub fn validate_no_revocable_mix(resources: &Resources) -> Result<(), ResourcesRejection> {
    let mut kinds: BTreeMap<&Arc<str>, bool> = BTreeMap::new();
    for resource in resources.iter() {
        let revocable = *kinds.entry(&resource.name).or_insert(resource.revocable);
        if revocable != resource.revocable {
            return Err(ResourcesRejection::RevocableMix(Arc::clone(&resource.name)));
        }
    }
    Ok(())
}

/// Checks that two collections have no number or name in common: their sum would hide it.
///
/// # Errors
/// The first name that overlaps.
pub fn validate_no_overlap(a: &Resources, b: &Resources) -> Result<(), ResourcesRejection> {
    for one in a.iter() {
        let overlaps = b.iter().any(|other| {
            one.name == other.name
                && match (&one.value, &other.value) {
                    (Value::Ranges(_), Value::Ranges(_)) | (Value::Set(_), Value::Set(_)) => {
                        let sizes = one.value.quantity() + other.value.quantity();
                        union(&one.value, &other.value) != sizes
                    }
                    _ => false,
                }
        });
        if overlaps {
            return Err(ResourcesRejection::Overlap(Arc::clone(&one.name)));
        }
    }
    Ok(())
}

/// How many numbers or names the two have together.
fn union(a: &Value, b: &Value) -> Scalar {
    let plain = |value: &Value| Resource::new("x", value.clone());
    let both: Resources = [plain(a), plain(b)].into_iter().collect();
    both.iter().map(|resource| resource.value.quantity()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use meseta_protocol::container::Volume;
    use meseta_protocol::executor::ExecutorInfo;
    use meseta_protocol::resources::{DiskInfo, Reservation};

    fn disk(change: impl FnOnce(&mut DiskInfo)) -> Resource {
        let mut info = DiskInfo::persistent("v", "path");
        change(&mut info);
        Resource::scalar("disk", Scalar::whole(1)).on_disk(info)
    }

    fn reserved(resource: Resource) -> Resource {
        resource.reserved_by(Reservation::dynamic("a"))
    }

    #[test]
    fn every_rule_of_single_resources_has_its_text() {
        let cpus = || Resource::scalar("cpus", Scalar::whole(1));
        for (resource, expected) in [
            (cpus(), "ok"),
            (reserved(disk(|_| {})), "ok"),
            (
                Resource::scalar("gpus", Scalar::from_thousandths(500)),
                "Invalid 'gpus' resource: The 'gpus' resource must be an unsigned integer",
            ),
            (
                disk(|disk| *disk = DiskInfo::default()),
                "Invalid DiskInfo: DiskInfo is set but empty",
            ),
            (
                disk(|_| {}),
                "Invalid DiskInfo: Persistent volumes cannot be created from unreserved resources",
            ),
            (
                reserved(disk(|_| {})).as_revocable(),
                "Invalid DiskInfo: Persistent volumes cannot be created from revocable resources",
            ),
            (
                disk(|disk| disk.persistence = None),
                "Invalid DiskInfo: Non-persistent volume not supported",
            ),
            (
                reserved(disk(|disk| disk.volume = None)),
                "Invalid DiskInfo: Expecting 'volume' to be set for persistent volume",
            ),
            (
                reserved(disk(|disk| {
                    let volume = Volume::writable("path");
                    disk.volume = Some(Volume {
                        host_path: Some("/x".into()),
                        ..volume
                    });
                })),
                "Invalid DiskInfo: Expecting 'host_path' to be unset for persistent volume",
            ),
            (
                reserved(disk(|disk| *disk = DiskInfo::persistent("..", "path"))),
                "Invalid DiskInfo: Invalid persistence ID for persistent volume: '..' is disallowed",
            ),
            (
                reserved(cpus()).as_revocable(),
                "Invalid ReservationInfo: Dynamically reserved resource cpus(reservations: [(DYNAMIC,a)]){REV}:1 \
                 cannot be created from revocable resources",
            ),
        ] {
            let result = validate(&Resources::from(resource));
            let text = result.map_or_else(|rejection| rejection.to_string(), |()| "ok".to_owned());
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn every_rule_of_collections_has_its_text() {
        let one = |role: &str| {
            "cpus:1"
                .parse::<Resources>()
                .unwrap()
                .allocated(&role.into())
        };
        let two_roles = one("r1") + one("other");
        assert_eq!(
            validate_single_role(&two_roles).unwrap_err().to_string(),
            "The resources have multiple allocation roles ('other' and 'r1') but only one allocation role is allowed"
        );
        assert_eq!(validate_single_role(&one("a")), Ok(()));
        let bare = "cpus:1".parse().unwrap();
        assert_eq!(
            validate_single_role(&bare),
            Err(ResourcesRejection::NotAllocated)
        );
        let mix =
            one("a") + Resources::from(Resource::scalar("cpus", Scalar::whole(1)).as_revocable());
        assert_eq!(
            validate_no_revocable_mix(&mix).unwrap_err().to_string(),
            "Cannot use both revocable and non-revocable 'cpus' at the same time"
        );
        let volumes: Resources = [reserved(disk(|_| {})), reserved(disk(|_| {}))]
            .into_iter()
            .collect();
        assert_eq!(
            validate_unique_persistence(&volumes)
                .unwrap_err()
                .to_string(),
            "Persistence ID 'v' is not unique"
        );
        let parse = |text: &str| text.parse::<Resources>().unwrap();
        let overlap = |a, b| validate_no_overlap(&parse(a), &parse(b));
        assert_eq!(
            overlap("ports:[1-3];s:{a}", "ports:[4-5];s:{b};cpus:1"),
            Ok(())
        );
        assert!(overlap("ports:[1-3]", "ports:[3-5]").is_err());
        assert_eq!(
            overlap("s:{a}", "s:{a,b}").unwrap_err().to_string(),
            "The 's' of the task and of its executor overlap"
        );
    }

    #[test]
    fn one_bad_resource_spoils_the_operation() {
        for (resource, why) in [
            (
                r#""name":"cpus","type":"SCALAR","scalar":{"value":-1}"#,
                "Invalid scalar resource: value <= 0",
            ),
            (
                r#""name":"","type":"SCALAR","scalar":{"value":1}"#,
                "Empty resource name",
            ),
            (
                r#""name":"cpus","type":"SCALAR","set":{"item":["a"]}"#,
                "Invalid scalar resource",
            ),
            (
                r#""name":"p","type":"RANGES","ranges":{"range":[{"begin":2,"end":1}]}"#,
                "Invalid ranges resource: begin > end",
            ),
            (
                r#""name":"p","type":"RANGES","ranges":{"range":[{"begin":1,"end":3},{"begin":2,"end":4}]}"#,
                "Invalid ranges resource: overlapping ranges",
            ),
            (
                r#""name":"s","type":"SET","set":{"item":["a","a"]}"#,
                "Invalid set resource: duplicated elements",
            ),
        ] {
            let bad: Resources = serde_json::from_str(&format!("[{{{resource}}}]")).unwrap();
            let good = TaskInfo::new("t1", "s1", "cpus:1".parse().unwrap(), "true");
            let with_executor = TaskInfo {
                executor: Some(ExecutorInfo::default_executor("e", bad)),
                ..good.clone()
            };
            assert_eq!(validate_operation(std::slice::from_ref(&good)), Ok(()));
            let text = validate_operation(&[good, with_executor])
                .unwrap_err()
                .to_string();
            assert!(
                text.starts_with("Resource '") && text.ends_with(why),
                "{text}"
            );
        }
    }
}
