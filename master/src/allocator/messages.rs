//! What the master and the allocator tell each other. All of it stays on one node.
//!
//! Pure. The master reports every fact the allocator's books depend on, in the order in which it happened; the
//! allocator answers with [`Allocated`], one message for each framework and run. Resources that belong to somebody
//! carry their allocation role; an agent's total does not.

use std::collections::{BTreeMap, BTreeSet};

use meseta_protocol::agent::{AgentCapability, AgentInfo};
use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::offer::Filters;
use meseta_protocol::resources::Resources;
use meseta_protocol::{AgentId, FrameworkId, Role};
use meseta_runtime::{Message, OWN_NODE};
use serde::{Deserialize, Serialize};

macro_rules! messages {
    ($( $(#[$meta:meta])* $name:ident { $( $(#[$field_meta:meta])* $field:ident : $ty:ty ),* $(,)? } )*) => {
        $(
            $(#[$meta])*
            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            pub struct $name {
                $( $(#[$field_meta])* pub $field: $ty, )*
            }

            impl Message for $name {
                const NAME: &'static str = concat!("meseta.allocator.", stringify!($name));
                const SENDERS: &'static [&'static str] = OWN_NODE;
            }
        )*
    };
}

messages! {
    /// A framework subscribed, or is known from its agents only (`active` is false).
    AddFramework {
        /// Its id.
        framework_id: FrameworkId,
        /// Its roles, capabilities and wishes.
        info: FrameworkInfo,
        /// What it holds already. Agents that are not known yet bring their part with [`AddAgent`].
        used: BTreeMap<AgentId, Resources>,
        /// Whether it may be made offers.
        active: bool,
        /// Roles for which it wants none now.
        suppressed_roles: BTreeSet<Role>,
    }

    /// A framework is gone. The master gave back its resources before; what it did not stays booked on the agents.
    RemoveFramework {
        /// Its id.
        framework_id: FrameworkId,
    }

    /// A framework may be made offers again.
    ActivateFramework {
        /// Its id.
        framework_id: FrameworkId,
    }

    /// A framework must not be made offers, and its filters are void.
    DeactivateFramework {
        /// Its id.
        framework_id: FrameworkId,
    }

    /// A framework describes itself anew.
    UpdateFramework {
        /// Its id.
        framework_id: FrameworkId,
        /// Its roles, capabilities and wishes from now on.
        info: FrameworkInfo,
        /// Exactly the roles for which it wants no offers from now on.
        suppressed_roles: BTreeSet<Role>,
    }

    /// An agent registered.
    AddAgent {
        /// Its id.
        agent_id: AgentId,
        /// Its attributes and where it stands.
        info: AgentInfo,
        /// What it can do.
        capabilities: Vec<AgentCapability>,
        /// Number of this entry in the books, which allocations of it carry back: what was allocated on an earlier one
        /// and is still on its way is void, since the new one does not know of it.
        entry: u64,
        /// All it has.
        total: Resources,
        /// Who holds what of it, frameworks that are not known yet included.
        used: BTreeMap<FrameworkId, Resources>,
    }

    /// An agent is gone with all it had.
    RemoveAgent {
        /// Its id.
        agent_id: AgentId,
    }

    /// An agent's resources may be offered again.
    ActivateAgent {
        /// Its id.
        agent_id: AgentId,
    }

    /// An agent's resources must not be offered.
    DeactivateAgent {
        /// Its id.
        agent_id: AgentId,
    }

    /// An agent describes itself anew. Its capabilities stay; when they change, it is added anew.
    UpdateAgent {
        /// Its id.
        agent_id: AgentId,
        /// Its attributes and where it stands.
        info: AgentInfo,
        /// All it has from now on.
        total: Resources,
    }

    /// Resources come back: an offer was declined or rescinded, a task ended.
    RecoverResources {
        /// Who held them.
        framework_id: FrameworkId,
        /// Agent they are of.
        agent_id: AgentId,
        /// The resources, with their allocation role.
        resources: Resources,
        /// Set when the framework does not want them for a while.
        filters: Option<Filters>,
    }

    /// A framework wants offers again, and forgets what it declined.
    ReviveOffers {
        /// Its id.
        framework_id: FrameworkId,
        /// For these roles; for all of its roles when empty.
        roles: BTreeSet<Role>,
    }

    /// A framework wants no offers.
    SuppressOffers {
        /// Its id.
        framework_id: FrameworkId,
        /// For these roles; for all of its roles when empty.
        roles: BTreeSet<Role>,
    }

    /// Roles have other weights.
    UpdateWeights {
        /// The weights that change, each greater than zero.
        weights: BTreeMap<Role, f64>,
    }

    /// To the master: resources to offer to one framework. They are charged to it until it gives them back.
    Allocated {
        /// The framework.
        framework_id: FrameworkId,
        /// At most one for each role and agent.
        offers: Vec<Allocation>,
    }
}

/// Resources of one agent for a framework under one of its roles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Allocation {
    /// The role.
    pub role: Role,
    /// The agent.
    pub agent_id: AgentId,
    /// The agent's entry in the books; see [`AddAgent`].
    pub entry: u64,
    /// The resources, marked with the role.
    pub resources: Resources,
}
