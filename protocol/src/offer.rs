//! Offers: resources of one agent that a framework may use, and what it says to them.
//!
//! Pure. Source: Mesos `include/mesos/v1/mesos.proto`.

use crate::agent::{Address, DomainInfo};
use crate::attributes::Attribute;
use crate::ids::{AgentId, ExecutorId, FrameworkId, OfferId, Role};
use crate::maintenance::Unavailability;
use crate::resources::Resources;
use crate::wire::record;

record! {
    /// Address of a process's HTTP interface.
    #[derive(Eq)]
    pub struct Url {
        /// `http` or `https`.
        pub scheme: String,
        /// Host and port.
        pub address: Address,
        /// Path.
        pub path: Option<String>,
    }
}

record! {
    /// The role something is offered or used under.
    #[derive(Eq)]
    pub struct AllocationInfo {
        /// The role.
        pub role: Option<Role>,
    }
}

record! {
    /// Resources of one agent, offered to one framework under one of its roles.
    pub struct Offer {
        /// Its id.
        pub id: OfferId,
        /// Framework it is for.
        pub framework_id: FrameworkId,
        /// Agent whose resources they are.
        pub agent_id: AgentId,
        /// The agent's host name.
        pub hostname: String,
        /// Where the agent listens.
        pub url: Option<Url>,
        /// Where the agent stands.
        pub domain: Option<DomainInfo>,
        /// What is offered.
        pub resources: Resources,
        /// The agent's attributes.
        pub attributes: Vec<Attribute>,
        /// Executors of the framework that run on the agent.
        pub executor_ids: Vec<ExecutorId>,
        /// When the agent will not be available.
        pub unavailability: Option<Unavailability>,
        /// Role it is offered under.
        pub allocation_info: Option<AllocationInfo>,
    }
}

record! {
    /// A request to free resources of an agent that will not be available.
    pub struct InverseOffer {
        /// Its id.
        pub id: OfferId,
        /// Where the agent listens.
        pub url: Option<Url>,
        /// Framework it is for.
        pub framework_id: FrameworkId,
        /// The agent.
        pub agent_id: Option<AgentId>,
        /// When the agent will not be available.
        pub unavailability: Unavailability,
        /// What to free; everything when empty.
        pub resources: Resources,
    }
}

record! {
    own Default;
    /// What should happen to resources that come back unused.
    #[derive(Copy)]
    pub struct Filters {
        /// Seconds during which no smaller or equal offer of this agent is wanted; 5 when missing.
        pub refuse_seconds: f64,
    }
}

impl Default for Filters {
    fn default() -> Self {
        Self {
            refuse_seconds: 5.0,
        }
    }
}

impl Filters {
    /// Refuses for this many seconds.
    pub const fn refusing(refuse_seconds: f64) -> Self {
        Self { refuse_seconds }
    }
}
