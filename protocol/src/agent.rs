//! Agents and masters as they describe themselves, and where they stand.
//!
//! Pure. Source: Mesos `include/mesos/v1/mesos.proto`, `docs/fault-domains.md`.

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::attributes::Attribute;
use crate::ids::{AgentId, MasterId};
use crate::resources::Resources;
use crate::wire::{Presence, names, record};

/// Name of a region or zone: an object with `name` on the wire; a bare text is read too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Place {
    /// The name.
    pub name: String,
}

impl Presence for Place {}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Place;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a name, or an object with a `name`")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Place, E> {
                Ok(Place {
                    name: name.to_owned(),
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Place, A::Error> {
                let mut place = Place::default();
                while let Some(key) = map.next_key::<String>()? {
                    if key == "name" {
                        place.name = map.next_value()?;
                    } else {
                        map.next_value::<de::IgnoredAny>()?;
                    }
                }
                Ok(place)
            }
        }
        deserializer.deserialize_any(NameVisitor)
    }
}

record! {
    /// A region, and a zone of it: machines of one zone are likely to fail together.
    #[derive(Eq, Hash)]
    pub struct FaultDomain {
        /// The region; masters stand in one region.
        pub region: Place,
        /// The zone.
        pub zone: Place,
    }
}

record! {
    /// Where a machine stands.
    #[derive(Eq, Hash)]
    pub struct DomainInfo {
        /// Region and zone.
        pub fault_domain: Option<FaultDomain>,
    }
}

impl DomainInfo {
    /// A region and zone.
    pub fn new(region: impl Into<String>, zone: impl Into<String>) -> Self {
        Self {
            fault_domain: Some(FaultDomain {
                region: Place {
                    name: region.into(),
                },
                zone: Place { name: zone.into() },
            }),
        }
    }

    /// The region's name, when known.
    pub fn region(&self) -> Option<&str> {
        self.fault_domain.as_ref().map(|d| d.region.name.as_str())
    }

    /// The zone's name, when known.
    pub fn zone(&self) -> Option<&str> {
        self.fault_domain.as_ref().map(|d| d.zone.name.as_str())
    }
}

names! {
    /// What an agent can do beyond the first version of the protocol.
    pub enum AgentCapability default Unknown {
        /// Keeps allocation roles in resources.
        MultiRole = 1 "MULTI_ROLE",
        /// Allows roles with `/`.
        HierarchicalRole = 2 "HIERARCHICAL_ROLE",
        /// Keeps stacks of reservations.
        ReservationRefinement = 3 "RESERVATION_REFINEMENT",
        /// Has resource providers and applies operations.
        ResourceProvider = 4 "RESOURCE_PROVIDER",
        /// Grows and shrinks volumes.
        ResizeVolume = 5 "RESIZE_VOLUME",
        /// Reports the fate of operations.
        AgentOperationFeedback = 6 "AGENT_OPERATION_FEEDBACK",
        /// Kills its tasks when drained.
        AgentDraining = 7 "AGENT_DRAINING",
        /// Enforces limits apart from requests.
        TaskResourceLimits = 8 "TASK_RESOURCE_LIMITS",
    } else
    /// One this version does not know.
    Unknown = 0 "UNKNOWN"
}

record! {
    /// An agent as it describes itself.
    pub struct AgentInfo {
        /// Its id; none before its first registration.
        pub id: Option<AgentId>,
        /// Host name under which frameworks find it.
        pub hostname: String,
        /// Port of its HTTP interface.
        pub port: u16,
        /// All it has, without allocations.
        pub resources: Resources,
        /// What it says about itself.
        pub attributes: Vec<Attribute>,
        /// Where it stands.
        pub domain: Option<DomainInfo>,
        /// Whether it writes down what its tasks need to survive its restart.
        pub checkpoint: bool,
    }
}

impl AgentInfo {
    /// An agent that has `resources` and checkpoints.
    pub fn new(hostname: impl Into<String>, resources: Resources) -> Self {
        Self {
            hostname: hostname.into(),
            port: 5051,
            resources,
            checkpoint: true,
            ..Self::default()
        }
    }
}

names! {
    /// What a master can do beyond the first version of the protocol.
    pub enum MasterCapability default Unknown {
        /// Takes updates of agents.
        AgentUpdate = 1 "AGENT_UPDATE",
        /// Drains agents.
        AgentDraining = 2 "AGENT_DRAINING",
        /// Knows quota with guarantees and limits.
        QuotaV2 = 3 "QUOTA_V2",
    } else
    /// One this version does not know.
    Unknown = 0 "UNKNOWN"
}

record! {
    /// Where something listens.
    #[derive(Eq, Hash)]
    pub struct Address {
        /// Host name.
        pub hostname: Option<String>,
        /// IP address.
        pub ip: Option<String>,
        /// Port.
        pub port: u16,
    }
}

record! {
    /// A master as it describes itself.
    #[derive(Eq)]
    pub struct MasterInfo {
        /// Its id, new at every start.
        pub id: MasterId,
        /// IPv4 address as a number, first byte lowest; 0 for others.
        pub ip: u32,
        /// Port of its HTTP interface.
        pub port: u16,
        /// Its PID.
        pub pid: Option<String>,
        /// Host name for people and web pages.
        pub hostname: Option<String>,
        /// Version of the program.
        pub version: Option<String>,
        /// Where it listens.
        pub address: Option<Address>,
        /// Where it stands.
        pub domain: Option<DomainInfo>,
        /// What it can do.
        pub capabilities: Vec<MasterCapability>,
    }
}

names! {
    /// How far draining is.
    pub enum DrainState default Unknown {
        /// Tasks are being killed.
        Draining = 1 "DRAINING",
        /// Nothing runs any more.
        Drained = 2 "DRAINED",
    } else
    /// Missing, or one this version does not know.
    Unknown = 0 "UNKNOWN"
}

record! {
    /// How to drain an agent.
    #[derive(Copy, Eq)]
    pub struct DrainConfig {
        /// Longest time a task may take to stop, whatever its own kill policy says.
        pub max_grace_period: Option<crate::common::DurationInfo>,
        /// Whether to mark the agent as gone for ever once it is drained.
        pub mark_gone: bool,
    }
}

record! {
    /// An agent's draining.
    #[derive(Copy, Eq)]
    pub struct DrainInfo {
        /// How far it is.
        pub state: DrainState,
        /// How it was asked for.
        pub config: DrainConfig,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_and_zone_are_objects_or_bare_texts() {
        let objects = r#"{"fault_domain":{"region":{"name":"eu"},"zone":{"name":"a"}}}"#;
        let bare = r#"{"fault_domain":{"region":"eu","zone":"a"}}"#;
        let domain = DomainInfo::new("eu", "a");
        for json in [objects, bare] {
            assert_eq!(serde_json::from_str::<DomainInfo>(json).unwrap(), domain);
        }
        assert_eq!(serde_json::to_string(&domain).unwrap(), objects);
        assert_eq!((domain.region(), domain.zone()), (Some("eu"), Some("a")));
    }
}
