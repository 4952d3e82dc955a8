//! Frameworks as they describe themselves, and what they want to be offered.
//!
//! Pure. Source: Mesos `include/mesos/v1/mesos.proto`, `include/mesos/v1/scheduler/scheduler.proto`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::common::Labels;
use crate::ids::{FrameworkId, Role};
use crate::resources::ResourceQuantities;
use crate::wire::{Presence, names, record};

names! {
    /// What a framework can deal with.
    pub enum FrameworkCapability default Unknown {
        /// Takes resources that may be taken back.
        RevocableResources = 1 "REVOCABLE_RESOURCES",
        /// Understands TASK_KILLING.
        TaskKillingState = 2 "TASK_KILLING_STATE",
        /// Takes agents with graphics processors.
        GpuResources = 3 "GPU_RESOURCES",
        /// Takes shared volumes.
        SharedResources = 4 "SHARED_RESOURCES",
        /// Understands the states of tasks on unreachable agents.
        PartitionAware = 5 "PARTITION_AWARE",
        /// Has several roles.
        MultiRole = 6 "MULTI_ROLE",
        /// Takes stacked reservations.
        ReservationRefinement = 7 "RESERVATION_REFINEMENT",
        /// Takes agents of other regions.
        RegionAware = 8 "REGION_AWARE",
    } else
    /// One this version does not know.
    Unknown = 0 "UNKNOWN"
}

/// A list entry for a capability: `{"type": "MULTI_ROLE"}`.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct CapabilityEntry {
    #[serde(rename = "type")]
    kind: FrameworkCapability,
}

/// The capabilities of a framework; on the wire a list of objects, of which unknown ones are skipped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrameworkCapabilities(BTreeSet<FrameworkCapability>);

impl FrameworkCapabilities {
    /// These capabilities.
    pub fn of(capabilities: impl IntoIterator<Item = FrameworkCapability>) -> Self {
        let known = |c: &FrameworkCapability| *c != FrameworkCapability::Unknown;
        Self(capabilities.into_iter().filter(known).collect())
    }

    /// Whether the framework has this one.
    pub fn has(&self, capability: FrameworkCapability) -> bool {
        self.0.contains(&capability)
    }

    /// Adds one.
    pub fn insert(&mut self, capability: FrameworkCapability) {
        if capability != FrameworkCapability::Unknown {
            self.0.insert(capability);
        }
    }

    /// In a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = FrameworkCapability> + '_ {
        self.0.iter().copied()
    }
}

impl Presence for FrameworkCapabilities {
    fn is_absent(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for FrameworkCapabilities {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(|kind| CapabilityEntry { kind }))
    }
}

impl<'de> Deserialize<'de> for FrameworkCapabilities {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries = Vec::<CapabilityEntry>::deserialize(deserializer)?;
        Ok(Self::of(entries.into_iter().map(|entry| entry.kind)))
    }
}

record! {
    /// One alternative of a smallest offer: at least these amounts.
    #[derive(Eq)]
    pub struct MinAllocatableQuantities {
        /// Amounts by name.
        pub quantities: ResourceQuantities,
    }
}

record! {
    /// The smallest offer worth sending: at least one of the alternatives.
    #[derive(Eq)]
    pub struct MinAllocatableResources {
        /// The alternatives; none means anything that is not empty.
        pub quantities: Vec<MinAllocatableQuantities>,
    }
}

record! {
    /// A framework's standing wishes for the offers of one role.
    #[derive(Eq)]
    pub struct OfferFilters {
        /// Smallest offer; the master's when missing.
        pub min_allocatable_resources: Option<MinAllocatableResources>,
    }
}

record! {
    /// A framework as it describes itself.
    pub struct FrameworkInfo {
        /// User its tasks run as, unless they say otherwise.
        pub user: String,
        /// Name for people.
        pub name: String,
        /// Its id; none at its first subscription.
        pub id: Option<FrameworkId>,
        /// Seconds the master waits for it to come back before its tasks are ended.
        pub failover_timeout: f64,
        /// Whether its tasks survive a restart of their agent.
        pub checkpoint: bool,
        /// The older field: its only role, when it is not MULTI_ROLE.
        pub role: Option<Role>,
        /// Its roles, when it is MULTI_ROLE.
        pub roles: Vec<Role>,
        /// Host of its scheduler.
        pub hostname: Option<String>,
        /// Whom it acts for.
        pub principal: Option<String>,
        /// Its web pages.
        pub webui_url: Option<String>,
        /// What it can deal with.
        pub capabilities: FrameworkCapabilities,
        /// Notes.
        pub labels: Option<Labels>,
        /// Wishes for its offers, by role.
        pub offer_filters: BTreeMap<Role, OfferFilters>,
    }
}

impl FrameworkInfo {
    /// A framework in role `*` with several roles possible, aware of partitions and of TASK_KILLING.
    pub fn new(user: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            name: name.into(),
            roles: vec![Role::star()],
            capabilities: FrameworkCapabilities::of([
                FrameworkCapability::MultiRole,
                FrameworkCapability::PartitionAware,
                FrameworkCapability::TaskKillingState,
                FrameworkCapability::ReservationRefinement,
            ]),
            ..Self::default()
        }
    }

    /// The same in these roles.
    #[must_use]
    pub fn in_roles<T: Into<Role>>(mut self, roles: impl IntoIterator<Item = T>) -> Self {
        self.roles = roles.into_iter().map(Into::into).collect();
        self
    }

    /// The same with one more capability.
    #[must_use]
    pub fn capable_of(mut self, capability: FrameworkCapability) -> Self {
        self.capabilities.insert(capability);
        self
    }

    /// Whether it has a capability.
    pub fn has(&self, capability: FrameworkCapability) -> bool {
        self.capabilities.has(capability)
    }

    /// The roles it is in: `roles` when it is MULTI_ROLE, else the single `role`, else `*`.
    pub fn effective_roles(&self) -> BTreeSet<Role> {
        if self.has(FrameworkCapability::MultiRole) {
            self.roles.iter().cloned().collect()
        } else {
            BTreeSet::from([self.role.clone().unwrap_or_else(Role::star)])
        }
    }
}

record! {
    /// Something of an agent that a constraint looks at: an attribute by name, or one of its properties.
    pub struct AttributeSelector {
        /// Name of an attribute; the first one of that name counts.
        pub attribute_name: Option<String>,
        /// One of its properties.
        pub pseudoattribute_type: Option<PseudoAttribute>,
    }
}

names! {
    /// A property of an agent that can be used like an attribute.
    pub enum PseudoAttribute default Unknown {
        /// Its host name.
        Hostname = 1 "HOSTNAME",
        /// Its region.
        Region = 2 "REGION",
        /// Its zone.
        Zone = 3 "ZONE",
    } else
    /// Missing, or one this version does not know.
    Unknown = 0 "UNKNOWN"
}

record! {
    /// Marks a predicate that has no operand.
    #[derive(Copy, Eq)]
    pub struct Present {}
}

record! {
    /// Operand of a comparison.
    #[derive(Eq)]
    pub struct TextValue {
        /// Text to compare with.
        pub value: String,
    }
}

record! {
    /// Operand of a match.
    #[derive(Eq)]
    pub struct TextRegex {
        /// Regular expression (RE2) that must match the whole text.
        pub regex: String,
    }
}

record! {
    /// What must hold; exactly one field is set. One that this version does not know leaves all unset, which is
    /// refused when the framework subscribes.
    #[derive(Eq)]
    pub struct AttributePredicate {
        /// There is such an attribute.
        pub exists: Option<Present>,
        /// There is none.
        pub not_exists: Option<Present>,
        /// Its text is this one; holds for attributes that are no text.
        pub text_equals: Option<TextValue>,
        /// Its text is not this one; holds when there is none and for attributes that are no text.
        pub text_not_equals: Option<TextValue>,
        /// Its text matches; holds for attributes that are no text.
        pub text_matches: Option<TextRegex>,
        /// Its text does not match; holds when there is none and for attributes that are no text.
        pub text_not_matches: Option<TextRegex>,
    }
}

record! {
    /// One condition on an agent.
    pub struct AttributeConstraint {
        /// What to look at.
        pub selector: AttributeSelector,
        /// What must hold.
        pub predicate: AttributePredicate,
    }
}

record! {
    /// Conditions that must all hold.
    pub struct ConstraintGroup {
        /// The conditions.
        pub attribute_constraints: Vec<AttributeConstraint>,
    }
}

record! {
    /// Groups of which one must hold.
    pub struct RoleConstraints {
        /// The groups; at least one.
        pub groups: Vec<ConstraintGroup>,
    }
}

record! {
    /// Which agents a framework wants to be offered, by role; a role without an entry takes any.
    pub struct OfferConstraints {
        /// Constraints by role.
        pub role_constraints: BTreeMap<Role, RoleConstraints>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_follow_the_capability() {
        let mut framework = FrameworkInfo::new("u", "n").in_roles(["a", "b"]);
        assert_eq!(framework.effective_roles().len(), 2);
        framework.capabilities = FrameworkCapabilities::default();
        assert_eq!(framework.effective_roles(), BTreeSet::from([Role::star()]));
        framework.role = Some(Role::from("old"));
        assert_eq!(
            framework.effective_roles(),
            BTreeSet::from([Role::from("old")])
        );
    }

    #[test]
    fn unknown_capabilities_are_skipped() {
        let json = r#"[{"type":"MULTI_ROLE"},{"type":"TELEPATHY"},{}]"#;
        let read: FrameworkCapabilities = serde_json::from_str(json).unwrap();
        assert_eq!(
            read,
            FrameworkCapabilities::of([FrameworkCapability::MultiRole])
        );
        assert_eq!(
            serde_json::to_string(&read).unwrap(),
            r#"[{"type":"MULTI_ROLE"}]"#
        );
    }
}
