//! The allocator's books and its decision: which framework is offered which agent's resources.
//!
//! Pure: no clock, no actor; time and the random source are arguments. The shell is `allocator/mod.rs`.
//!
//! Every resource that is offered is charged to its framework at once and stays charged until it comes back, so an
//! offer counts for fairness as much as a task does. A run visits the candidate agents in random order; each one's
//! free resources go whole to the first framework, in the order of the two sorters, that can take them and did not
//! decline them. Invariants, verified by [`Allocator::check`]:
//!
//! * of every agent, what is held and what is free make up its total (unless the total shrank below what is held);
//! * the sorters' amounts are the sums of what is held on the agents;
//! * every refusal has an end, a role its framework is in, and a known agent;
//! * an agent remembered as barren would be offered to nobody, except to who woke since.
//!
//! Quota belongs at two places: its guarantees are served in a stage before the one in [`Allocator::allocate`], and
//! its limits and the headroom cut the offer in `Allocator::offer`. Source: Mesos
//! `src/master/allocator/mesos/hierarchical.cpp`.
//!
//! - `frameworks`, `agents`: who is in the books;
//! - `books`: what is held;
//! - `runs`: who is offered what;
//! - `explain`: what is told of all this to who asks;
//! - `laws`: the invariants.

mod agents;
mod books;
mod explain;
mod frameworks;
mod laws;
mod runs;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use meseta_protocol::agent::{AgentCapability, DomainInfo};
use meseta_protocol::attributes::Attribute;
use meseta_protocol::framework::{FrameworkCapability, FrameworkInfo};
use meseta_protocol::resources::{ParseError, Resource, ResourceQuantities, Resources, Scalar};
use meseta_protocol::{AgentId, FrameworkId, Role};

use super::amounts::{Amounts, Names, Totals};
use super::drf_sorter::DrfSorter;
use super::filters::{Deadlines, Refusals};
use super::messages::UpdateWeights;
use super::role_tree::RoleTree;
use super::slab::Slab;

/// Settings of the allocator.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Time between two runs over all agents, and the shortest refusal.
    pub allocation_interval: Duration,
    /// An offer must reach one of these; anything will do when there is none. See [`parse_min_allocatable`].
    pub min_allocatable: Vec<ResourceQuantities>,
    /// Whether agents with graphics processors are kept from frameworks without GPU_RESOURCES.
    pub filter_gpu_resources: bool,
    /// Names that have no share.
    pub fair_sharing_excluded_resource_names: BTreeSet<String>,
    /// Weights of roles at the start.
    pub weights: BTreeMap<Role, f64>,
    /// Where the master stands; agents of other regions are remote.
    pub master_domain: Option<DomainInfo>,
}

impl Default for Config {
    fn default() -> Self {
        let one = |name, amount| ResourceQuantities::new().with(name, amount);
        Self {
            allocation_interval: Duration::from_secs(1),
            min_allocatable: vec![
                one("cpus", Scalar::from_thousandths(10)),
                one("mem", Scalar::whole(32)),
            ],
            filter_gpu_resources: true,
            fair_sharing_excluded_resource_names: BTreeSet::new(),
            weights: BTreeMap::new(),
            master_domain: None,
        }
    }
}

/// Reads the flag `--min_allocatable_resources`: alternatives separated by `|`, amounts that must come together by
/// `;`. The default is `cpus:0.01|mem:32`; an empty text makes every offer large enough.
///
/// # Errors
/// What is wrong with the first alternative that cannot be read.
pub fn parse_min_allocatable(text: &str) -> Result<Vec<ResourceQuantities>, ParseError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    text.split('|').map(str::parse).collect()
}

/// The master's report does not agree with the allocator's books.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error(
    "framework {framework_id} gives back {given} of agent {agent_id} but holds {held}: only what it holds is free"
)]
pub struct BookError {
    /// The framework.
    pub framework_id: FrameworkId,
    /// The agent.
    pub agent_id: AgentId,
    /// What was reported.
    pub given: Resources,
    /// What the books say.
    pub held: Resources,
}

/// What a framework can be offered, from its capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Takes {
    gpus: bool,
    remote: bool,
    multi_role: bool,
    shared: bool,
    revocable: bool,
    refined: bool,
}

impl Takes {
    fn of(info: &FrameworkInfo) -> Self {
        Self {
            gpus: info.has(FrameworkCapability::GpuResources),
            remote: info.has(FrameworkCapability::RegionAware),
            multi_role: info.has(FrameworkCapability::MultiRole),
            shared: info.has(FrameworkCapability::SharedResources),
            revocable: info.has(FrameworkCapability::RevocableResources),
            refined: info.has(FrameworkCapability::ReservationRefinement),
        }
    }

    fn takes(self, resource: &Resource) -> bool {
        (self.revocable || !resource.revocable)
            && (self.refined || !resource.has_refined_reservations())
            && (self.shared || !resource.shared)
    }
}

/// A framework in one role. It stays in a role it left for as long as it holds resources there.
#[derive(Debug, Default)]
struct Membership {
    subscribed: bool,
    suppressed: bool,
    refusals: Refusals,
    /// The framework's own smallest offers, instead of the master's.
    smallest: Option<Vec<ResourceQuantities>>,
    /// On how many agents it holds something under the role.
    holdings: usize,
}

#[derive(Debug)]
struct Framework {
    id: FrameworkId,
    active: bool,
    takes: Takes,
    roles: BTreeMap<usize, Membership>,
}

#[derive(Debug)]
struct RoleState {
    role: Role,
    sorter: DrfSorter,
    members: usize,
}

#[derive(Debug)]
struct Agent {
    id: AgentId,
    /// As the master numbered it.
    entry: u64,
    active: bool,
    remote: bool,
    capabilities: BTreeSet<AgentCapability>,
    attributes: Vec<Attribute>,
    total: Resources,
    /// The amounts of `total`, as the cluster's totals count them.
    amounts: Amounts,
    has_gpus: bool,
    has_reservations: bool,
    /// The shared resources of `total`, one copy each: always free.
    shared: Resources,
    /// What is not shared and nobody holds.
    available: Resources,
    used: BTreeMap<usize, Resources>,
    /// Held by frameworks that are not known yet, or no longer.
    unclaimed: BTreeMap<FrameworkId, Resources>,
    /// The total shrank below what is held; `available` must be worked out from the start at each change.
    overcommitted: bool,
    candidate: bool,
    /// How many frameworks had woken when nobody wanted what is free here. Only those that woke since can want it,
    /// and this is taken back whenever the agent itself changes.
    barren: Option<u64>,
    /// Latest refusal, to share its memory: frameworks decline the same offer one after the other.
    last_refused: Option<Arc<Resources>>,
}

impl Agent {
    fn is_empty(&self) -> bool {
        self.available.is_empty() && self.shared.is_empty()
    }

    fn rebalance(&mut self) {
        let mut held = Resources::new();
        for resources in self.used.values().chain(self.unclaimed.values()) {
            held += &resources.non_shared().unallocated();
        }
        let total = self.total.non_shared();
        self.overcommitted = !total.contains(&held);
        self.available = total - held;
        self.barren = None;
    }
}

/// What a framework of certain capabilities would be offered of an agent.
struct View {
    /// The role, where reservations make a difference, and what the framework takes.
    key: (Option<usize>, Takes),
    offer: Resources,
    /// Whether it reaches the master's smallest offer.
    is_enough: bool,
    /// The refusal last looked at, and whether it covers the offer; frameworks share refusals of the same agent.
    seen: Option<(Arc<Resources>, bool)>,
}

impl View {
    fn is_covered_by(&mut self, refused: &Arc<Resources>) -> bool {
        if let Some((seen, covers)) = &self.seen
            && Arc::ptr_eq(seen, refused)
        {
            return *covers;
        }
        let covers = refused.contains(&self.offer);
        self.seen = Some((Arc::clone(refused), covers));
        covers
    }
}

/// Why a framework is offered nothing of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoOffer {
    /// One of them is not in the books.
    Unknown,
    /// Agents with graphics processors are for others.
    Gpus,
    /// So are agents of other regions.
    Remote,
    /// The framework may have several roles, the agent knows one.
    OneRole,
    /// What is left for it is nothing, or not enough.
    TooLittle,
    /// It has declined that.
    Refused,
}

/// One agent in the books.
#[derive(Debug, Clone)]
pub struct Holdings<'a> {
    /// All it has, without allocations.
    pub total: &'a Resources,
    /// What nobody holds.
    pub free: &'a Resources,
    /// What each framework holds, offered or used, with its allocation role.
    pub held: BTreeMap<FrameworkId, Resources>,
}

/// The books.
#[derive(Debug, Default)]
pub struct Allocator {
    config: Config,
    names: Names,
    totals: Totals,
    tree: RoleTree,
    role_sorter: DrfSorter,
    roles: Slab<RoleState>,
    frameworks: Slab<Framework>,
    agents: Slab<Agent>,
    // The tables below are only looked up, never walked: their order cannot matter.
    role_numbers: HashMap<Role, usize>,
    framework_numbers: HashMap<FrameworkId, usize>,
    agent_numbers: HashMap<AgentId, usize>,
    candidates: Vec<usize>,
    deadlines: Deadlines,
    last_refusal: u64,
    wakes: Wakes,
}

/// Frameworks that may want agents which they did not want before: new, revived, changed.
#[derive(Debug, Default)]
struct Wakes {
    /// How many there were before those in `latest`.
    forgotten: u64,
    latest: Vec<usize>,
}

impl Wakes {
    /// More are not worth remembering: everybody is asked again.
    const KEPT: usize = 256;

    fn push(&mut self, framework: usize) {
        if self.latest.len() == Self::KEPT {
            self.forgotten = self.count();
            self.latest.clear();
        }
        self.latest.push(framework);
    }

    fn count(&self) -> u64 {
        self.forgotten + self.latest.len() as u64
    }

    /// Who woke after the first `count`; none when that is forgotten.
    fn since(&self, count: u64) -> Option<&[usize]> {
        let skipped = usize::try_from(count.checked_sub(self.forgotten)?).ok()?;
        self.latest.get(skipped..)
    }
}

impl Allocator {
    /// Empty books.
    pub fn new(config: Config) -> Self {
        let mut names = Names::default();
        let excluded = &config.fair_sharing_excluded_resource_names;
        let excluded = excluded
            .iter()
            .map(|name| names.id(&Arc::from(name.as_str())));
        let totals = Totals::new(excluded.collect());
        let weights = config.weights.clone();
        let mut books = Self {
            config,
            names,
            totals,
            ..Self::default()
        };
        books.update_weights(UpdateWeights { weights });
        books
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The roles that exist.
    pub fn role_tree(&self) -> &RoleTree {
        &self.tree
    }

    /// Whether a run has something to look at.
    pub fn has_candidates(&self) -> bool {
        !self.candidates.is_empty()
    }

    /// What each agent has in all, what of it is free, and who holds the rest, by agent id. Frameworks that only the
    /// agent has named hold something too.
    pub fn holdings(&self) -> BTreeMap<&AgentId, Holdings<'_>> {
        let held_on = |agent: &Agent| {
            let held = agent.used.iter().filter_map(|(f, held)| {
                let framework = self.frameworks.get(*f)?;
                Some((framework.id.clone(), held.clone()))
            });
            let unclaimed = agent.unclaimed.iter();
            held.chain(unclaimed.map(|(id, held)| (id.clone(), held.clone())))
                .collect()
        };
        self.agents
            .iter()
            .map(|(_, agent)| {
                let holdings = Holdings {
                    total: &agent.total,
                    free: &agent.available,
                    held: held_on(agent),
                };
                (&agent.id, holdings)
            })
            .collect()
    }

    /// Makes every agent a candidate of the next run.
    pub fn nominate_all(&mut self) {
        for (at, agent) in self.agents.iter_mut() {
            if !agent.candidate {
                agent.candidate = true;
                self.candidates.push(at);
            }
        }
    }

    fn nominate(&mut self, agent: usize) {
        if let Some(state) = self.agents.get_mut(agent)
            && !state.candidate
        {
            state.candidate = true;
            self.candidates.push(agent);
        }
    }

    // What metrics show.

    /// Of every scalar: its name, what all agents have, what is offered or allocated.
    pub fn amounts(&self) -> impl Iterator<Item = (&str, Scalar, Scalar)> {
        self.totals.iter().map(|(id, total)| {
            let held = self.role_sorter.held_by_all().get(id);
            (self.names.name(id), total, held)
        })
    }

    /// The dominant share of every role that has a framework.
    pub fn role_shares(&self) -> impl Iterator<Item = (&Role, f64)> {
        self.roles.iter().map(|(r, state)| {
            let share = self.role_sorter.dominant_share(r, &self.totals);
            (&state.role, share)
        })
    }

    /// The number of refusals under every role that has a framework.
    pub fn refusals(&self) -> impl Iterator<Item = (&Role, usize)> {
        self.roles.iter().map(|(r, state)| {
            let members = self.frameworks.iter().filter_map(|(_, f)| f.roles.get(&r));
            (&state.role, members.map(|m| m.refusals.len()).sum())
        })
    }
}
