//! What the allocator tells of a framework that is asked about: why it is offered what it is offered, and no more.
//!
//! Pure. The answers come from the books as they are when they are asked for (`core/explain.rs`); nothing is kept for them
//! while nobody asks.

use std::collections::BTreeMap;
use std::time::Duration;

use meseta_protocol::{AgentId, FrameworkId, Role};
use meseta_runtime::{Ask, Message, OWN_NODE};
use serde::{Deserialize, Serialize};

/// Most agents that one answer shows.
pub const MOST_AGENTS: usize = 1000;

/// Most refusals that one answer shows, and most roles and frameworks that are served before.
pub const MOST_REFUSALS: usize = 100;
/// See [`MOST_REFUSALS`].
pub const MOST_AHEAD: usize = 10;

/// From the master: what about this framework?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explain {
    /// The framework.
    pub framework_id: FrameworkId,
    /// Only this agent; all when none.
    pub agent_id: Option<AgentId>,
    /// Agents to pass over, in the order of the books, which stays while no agent comes or goes.
    pub offset: usize,
    /// Agents to show, at most [`MOST_AGENTS`].
    pub limit: usize,
}

impl Message for Explain {
    const NAME: &'static str = "meseta.allocator.Explain";
    const SENDERS: &'static [&'static str] = OWN_NODE;
}

impl Ask for Explain {
    type Reply = Explained;
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// None when the framework is not in the books.
    pub framework: Option<FrameworkExplained>,
}

impl Message for Explained {
    const NAME: &'static str = "meseta.allocator.Explained";
    const SENDERS: &'static [&'static str] = OWN_NODE;
}

/// How a framework stands with the allocator.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FrameworkExplained {
    /// Whether it may be made offers at all.
    pub active: bool,
    /// Seconds between two runs over all agents.
    pub interval_seconds: f64,
    /// Its roles.
    pub roles: Vec<RoleExplained>,
    /// Refusals in force, the first [`MOST_REFUSALS`] by role and agent.
    pub refusals: Vec<RefusalExplained>,
    /// How many are in force.
    pub refusals_in_all: usize,
    /// How many agents are in the books, or are the one asked about.
    pub agents_in_all: usize,
    /// Those asked for.
    pub agents: Vec<AgentExplained>,
    /// How often each reason stands in `agents`.
    pub reasons: BTreeMap<String, usize>,
}

/// One of its roles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoleExplained {
    /// The role.
    pub role: Role,
    /// False when the framework has left the role and holds something of it still.
    pub subscribed: bool,
    /// Whether the framework wants no offers for it now.
    pub suppressed: bool,
    /// What it weighs among its siblings.
    pub weight: f64,
    /// The largest part that the role holds of any one resource; what divides by the weight.
    pub dominant_share: f64,
    /// What an offer for it has to reach at least: one of several, `|` between; empty when anything will do.
    pub smallest_offer: String,
    /// Whether the framework itself has asked for that.
    pub smallest_is_its_own: bool,
    /// How many roles are served before it, and the first of them.
    pub roles_before: Before<Role>,
    /// How many frameworks of the role that want offers are served before this one, and the first of them.
    pub frameworks_before: Before<FrameworkId>,
    /// What the framework holds of any one resource under the role at most, offers included.
    pub framework_share: f64,
}

/// Those who are served before somebody.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Before<T> {
    /// How many they are.
    pub count: usize,
    /// The first [`MOST_AHEAD`], each with its dominant share.
    pub first: Vec<(T, f64)>,
}

/// Something declined that is not offered again yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefusalExplained {
    /// Under which role.
    pub role: Role,
    /// Of which agent.
    pub agent_id: AgentId,
    /// What: an offer of this or less is not made.
    pub resources: String,
    /// For how long still.
    pub left: Duration,
}

/// Why one agent is not offered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentExplained {
    /// The agent.
    pub agent_id: AgentId,
    /// What nobody holds of it.
    pub free: String,
    /// What the framework holds of it, offers included.
    pub held: String,
    /// For each role of the framework, why nothing of it is on offer now.
    pub roles: Vec<(Role, Reason)>,
}

/// Why nothing of what is free on an agent is offered to a framework under a role. Of several reasons the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// The framework may not be made offers: it is disconnected or has asked for none.
    FrameworkInactive,
    /// It has left the role.
    NotSubscribed,
    /// It wants none for the role.
    Suppressed,
    /// Its connection is lost.
    AgentDisconnected,
    /// Everything on it is held, by offers or by what runs there.
    NothingFree,
    /// The role is below another, and the agent cannot tell such roles apart (`HIERARCHICAL_ROLE`).
    AgentLacksHierarchicalRole,
    /// It has graphics processors, which are kept for frameworks with `GPU_RESOURCES`.
    FrameworkLacksGpuResources,
    /// It is in another region than the master, and the framework is not `REGION_AWARE`.
    OtherRegion,
    /// The framework has several roles, and the agent cannot tell them apart (`MULTI_ROLE`).
    AgentLacksMultiRole,
    /// What is free is reserved for other roles, or is revocable, shared or in refined reservations, which the framework
    /// does not take.
    NothingForTheRole,
    /// What is free for the role is less than the smallest offer.
    TooLittle {
        /// What would be offered.
        offer: String,
    },
    /// The framework has declined it.
    Refused {
        /// What would be offered.
        offer: String,
        /// For how long still that is not offered.
        left: Duration,
    },
    /// The next run serves somebody else first, who takes it.
    After {
        /// Under which role.
        role: Role,
        /// Who.
        framework_id: FrameworkId,
    },
    /// The next run offers it to the framework, or to somebody whose turn is before: that was not worked out for so many
    /// agents.
    Waiting,
    /// The next run offers it to the framework.
    NextRun,
}

impl Reason {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::FrameworkInactive => "framework_inactive",
            Self::NotSubscribed => "not_subscribed",
            Self::Suppressed => "suppressed",
            Self::AgentDisconnected => "agent_disconnected",
            Self::NothingFree => "nothing_free",
            Self::AgentLacksHierarchicalRole => "agent_lacks_hierarchical_role",
            Self::FrameworkLacksGpuResources => "framework_lacks_gpu_resources",
            Self::OtherRegion => "other_region",
            Self::AgentLacksMultiRole => "agent_lacks_multi_role",
            Self::NothingForTheRole => "nothing_for_the_role",
            Self::TooLittle { .. } => "too_little",
            Self::Refused { .. } => "refused",
            Self::After { .. } => "after",
            Self::Waiting => "waiting",
            Self::NextRun => "next_run",
        }
    }
}
