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

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use meseta_protocol::agent::{AgentCapability, AgentInfo, DomainInfo};
use meseta_protocol::attributes::Attribute;
use meseta_protocol::framework::{FrameworkCapability, FrameworkInfo};
use meseta_protocol::offer::Filters;
use meseta_protocol::resources::{ParseError, Resource, ResourceQuantities, Resources, Scalar};
use meseta_protocol::{AgentId, FrameworkId, Role};
use meseta_runtime::Time;
use meseta_runtime::planted::mistake;
use rand::Rng;
use rand::seq::SliceRandom;

use super::amounts::{Amounts, Names, Totals};
use super::drf_sorter::DrfSorter;
use super::filters::{Deadlines, RefusalKey, Refusals, refusal};
use super::messages::{
    ActivateAgent, ActivateFramework, AddAgent, AddFramework, Allocation, DeactivateAgent,
    DeactivateFramework, RecoverResources, RemoveAgent, RemoveFramework, ReviveOffers,
    SuppressOffers, UpdateAgent, UpdateFramework, UpdateWeights,
};
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

    // Frameworks.

    /// Takes a framework into the books; one that is known is updated instead.
    pub fn add_framework(&mut self, message: AddFramework) {
        let AddFramework {
            framework_id,
            info,
            used,
            active,
            suppressed_roles,
        } = message;
        let f = match self.framework_numbers.get(&framework_id) {
            Some(known) => *known,
            None => {
                let number = self.frameworks.insert(Framework {
                    id: framework_id.clone(),
                    active,
                    takes: Takes::of(&info),
                    roles: BTreeMap::new(),
                });
                self.framework_numbers.insert(framework_id.clone(), number);
                number
            }
        };
        self.describe(f, &info, &suppressed_roles);
        self.claim(f, &framework_id, &used);
        self.set_framework_active(f, active);
    }

    /// Books on a new framework what it holds: what agents reported of it, and what the master says.
    fn claim(&mut self, f: usize, id: &FrameworkId, used: &BTreeMap<AgentId, Resources>) {
        let mut claims: Vec<(usize, Resources)> = Vec::new();
        for (a, agent) in self.agents.iter_mut() {
            let reported = agent.unclaimed.remove(id);
            if agent.used.contains_key(&f) {
                continue;
            }
            if let Some(held) = used.get(&agent.id).cloned().or(reported) {
                claims.push((a, held));
            }
        }
        for (a, held) in claims {
            self.charge(a, f, &held);
            if let Some(agent) = self.agents.get_mut(a) {
                agent.rebalance();
            }
        }
    }

    /// Forgets a framework. What it still holds stays held on the agents until it is recovered.
    pub fn remove_framework(&mut self, message: &RemoveFramework) {
        let Some(f) = self.framework_numbers.get(&message.framework_id).copied() else {
            return;
        };
        self.set_framework_active(f, false);
        let mut holdings = Vec::new();
        for (a, agent) in self.agents.iter() {
            if let Some(held) = agent.used.get(&f) {
                holdings.push((a, held.clone()));
            }
        }
        for (a, held) in holdings {
            self.discharge(a, f, &held);
            if let Some(agent) = self.agents.get_mut(a) {
                agent.unclaimed.insert(message.framework_id.clone(), held);
            }
        }
        for r in self.roles_of(f) {
            if let Some(membership) = self.membership(f, r) {
                membership.subscribed = false;
            }
            self.leave_unused_role(f, r);
        }
        self.frameworks.remove(f);
        self.framework_numbers.remove(&message.framework_id);
    }

    /// Lets a framework have offers.
    pub fn activate_framework(&mut self, message: &ActivateFramework) {
        if let Some(f) = self.framework_numbers.get(&message.framework_id).copied() {
            self.set_framework_active(f, true);
        }
    }

    /// Keeps a framework from offers and forgets what it declined; what it suppressed stays suppressed.
    pub fn deactivate_framework(&mut self, message: &DeactivateFramework) {
        if let Some(f) = self.framework_numbers.get(&message.framework_id).copied() {
            self.set_framework_active(f, false);
        }
    }

    fn set_framework_active(&mut self, f: usize, active: bool) {
        let Some(framework) = self.frameworks.get_mut(f) else {
            return;
        };
        framework.active = active;
        if !active {
            for membership in framework.roles.values_mut() {
                membership.refusals.clear();
            }
        }
        for r in self.roles_of(f) {
            self.refresh(f, r);
        }
        if active {
            self.wakes.push(f);
            self.nominate_all();
        }
    }

    /// Takes a framework's new description. Starts no run.
    pub fn update_framework(&mut self, message: &UpdateFramework) {
        if let Some(f) = self.framework_numbers.get(&message.framework_id).copied() {
            self.describe(f, &message.info, &message.suppressed_roles);
        }
    }

    fn describe(&mut self, f: usize, info: &FrameworkInfo, suppressed: &BTreeSet<Role>) {
        if let Some(framework) = self.frameworks.get_mut(f) {
            framework.takes = Takes::of(info);
        }
        let roles = info.effective_roles();
        for role in &roles {
            let r = self.join_role(f, role);
            let wishes = info.offer_filters.get(role);
            let smallest = wishes.and_then(|wishes| wishes.min_allocatable_resources.as_ref());
            let smallest = smallest.map(|smallest| {
                let alternatives = smallest.quantities.iter();
                alternatives.map(|one| one.quantities.clone()).collect()
            });
            if let Some(membership) = self.membership(f, r) {
                membership.subscribed = true;
                // A role that is no longer suppressed keeps its refusals: only REVIVE clears those.
                membership.suppressed = suppressed.contains(role);
                membership.smallest = smallest;
            }
            self.refresh(f, r);
        }
        for r in self.roles_of(f) {
            if self
                .roles
                .get(r)
                .is_some_and(|state| roles.contains(&state.role))
            {
                continue;
            }
            if let Some(membership) = self.membership(f, r) {
                *membership = Membership {
                    holdings: membership.holdings,
                    ..Membership::default()
                };
            }
            self.refresh(f, r);
            self.leave_unused_role(f, r);
        }
        self.wakes.push(f);
    }

    /// Makes no more offers under these roles.
    pub fn suppress_offers(&mut self, message: &SuppressOffers) {
        self.set_suppressed(&message.framework_id, &message.roles, true);
    }

    /// Makes offers under these roles again, whatever was declined before.
    pub fn revive_offers(&mut self, message: &ReviveOffers) {
        if let Some(f) = self.set_suppressed(&message.framework_id, &message.roles, false) {
            self.wakes.push(f);
            self.nominate_all();
        }
    }

    fn set_suppressed(
        &mut self,
        id: &FrameworkId,
        roles: &BTreeSet<Role>,
        suppressed: bool,
    ) -> Option<usize> {
        let f = self.framework_numbers.get(id).copied()?;
        for r in self.roles_of(f) {
            let state = self.roles.get(r);
            if !roles.is_empty() && !state.is_some_and(|state| roles.contains(&state.role)) {
                continue;
            }
            if let Some(membership) = self.membership(f, r) {
                membership.suppressed = suppressed;
                if !suppressed {
                    membership.refusals.clear();
                }
            }
            self.refresh(f, r);
        }
        Some(f)
    }

    fn membership(&mut self, f: usize, r: usize) -> Option<&mut Membership> {
        self.frameworks.get_mut(f)?.roles.get_mut(&r)
    }

    fn roles_of(&self, f: usize) -> Vec<usize> {
        let framework = self.frameworks.get(f);
        framework.map_or_else(Vec::new, |framework| {
            framework.roles.keys().copied().collect()
        })
    }

    /// Puts a framework into a role, not subscribed yet, and returns the role's number.
    fn join_role(&mut self, f: usize, role: &Role) -> usize {
        let r = match self.role_numbers.get(role) {
            Some(known) => *known,
            None => {
                let number = self.roles.insert(RoleState {
                    role: role.clone(),
                    sorter: DrfSorter::default(),
                    members: 0,
                });
                self.role_numbers.insert(role.clone(), number);
                self.role_sorter.add(number, role.components());
                self.role_sorter.set_active(number, true);
                number
            }
        };
        if let (Some(framework), Some(state)) = (self.frameworks.get_mut(f), self.roles.get_mut(r))
            && !framework.roles.contains_key(&r)
        {
            framework.roles.insert(r, Membership::default());
            state.sorter.add(f, [framework.id.as_str()]);
            state.members += 1;
            self.tree.add_framework(role, f);
        }
        r
    }

    /// Takes a framework out of a role that it neither is subscribed to nor holds anything of.
    fn leave_unused_role(&mut self, f: usize, r: usize) {
        let Some(framework) = self.frameworks.get_mut(f) else {
            return;
        };
        let unused = |m: &Membership| !m.subscribed && m.holdings == 0;
        if !framework.roles.get(&r).is_some_and(unused) {
            return;
        }
        framework.roles.remove(&r);
        let Some(state) = self.roles.get_mut(r) else {
            return;
        };
        state.sorter.remove(f);
        state.members -= 1;
        self.tree.remove_framework(&state.role, f);
        if state.members == 0 {
            self.role_numbers.remove(&state.role);
            self.role_sorter.remove(r);
            self.roles.remove(r);
        }
    }

    /// Lets the framework into the role's order exactly when it may be made offers.
    fn refresh(&mut self, f: usize, r: usize) {
        let Some(framework) = self.frameworks.get(f) else {
            return;
        };
        let wants = |m: &Membership| m.subscribed && !m.suppressed;
        let active = framework.active && framework.roles.get(&r).is_some_and(wants);
        if let Some(state) = self.roles.get_mut(r) {
            state.sorter.set_active(f, active);
        }
    }

    // Agents.

    /// Takes an agent into the books, active; one that is known is replaced.
    pub fn add_agent(&mut self, message: AddAgent) {
        self.remove_agent(&RemoveAgent {
            agent_id: message.agent_id.clone(),
        });
        let remote = self.is_remote(&message.info);
        let a = self.agents.insert(Agent {
            id: message.agent_id.clone(),
            entry: message.entry,
            active: true,
            remote,
            capabilities: message.capabilities.into_iter().collect(),
            attributes: message.info.attributes,
            total: Resources::new(),
            amounts: Amounts::default(),
            has_gpus: false,
            has_reservations: false,
            shared: Resources::new(),
            available: Resources::new(),
            used: BTreeMap::new(),
            unclaimed: BTreeMap::new(),
            overcommitted: false,
            candidate: false,
            barren: None,
            last_refused: None,
        });
        self.agent_numbers.insert(message.agent_id, a);
        self.set_total(a, message.total);
        for (id, held) in message.used {
            if held.is_empty() {
                continue;
            }
            match self.framework_numbers.get(&id).copied() {
                Some(f) => self.charge(a, f, &held),
                None => {
                    if let Some(agent) = self.agents.get_mut(a) {
                        agent.unclaimed.insert(id, held);
                    }
                }
            }
        }
        if let Some(agent) = self.agents.get_mut(a) {
            agent.rebalance();
        }
        self.nominate(a);
    }

    fn is_remote(&self, info: &AgentInfo) -> bool {
        let region = info.domain.as_ref().and_then(DomainInfo::region);
        let own = self
            .config
            .master_domain
            .as_ref()
            .and_then(DomainInfo::region);
        match (region, own) {
            (Some(region), Some(own)) => region != own,
            // A master without a domain refuses agents with one.
            (None, _) | (Some(_), None) => false,
        }
    }

    fn set_total(&mut self, a: usize, total: Resources) {
        let Some(agent) = self.agents.get_mut(a) else {
            return;
        };
        self.tree.remove_reservations(&agent.total);
        self.totals.subtract(&agent.amounts);
        agent.amounts = self.names.amounts(&total);
        self.totals.add(&agent.amounts);
        self.tree.add_reservations(&total);
        agent.has_gpus = total.gpus().is_some_and(Scalar::is_positive);
        agent.has_reservations = total.iter().any(|resource| !resource.is_unreserved());
        agent.shared = total
            .iter()
            .filter(|resource| resource.shared)
            .cloned()
            .collect();
        agent.total = total;
        agent.rebalance();
    }

    /// Forgets an agent and all it had.
    pub fn remove_agent(&mut self, message: &RemoveAgent) {
        let Some(a) = self.agent_numbers.remove(&message.agent_id) else {
            return;
        };
        let used = self.agents.get(a).map(|agent| agent.used.clone());
        for (f, held) in used.unwrap_or_default() {
            self.discharge(a, f, &held);
        }
        self.set_total(a, Resources::new());
        self.drop_refusals(a);
        self.candidates.retain(|candidate| *candidate != a);
        self.agents.remove(a);
    }

    /// Lets an agent's resources be offered, from the next run over all agents on.
    pub fn activate_agent(&mut self, message: &ActivateAgent) {
        self.set_agent_active(&message.agent_id, true);
    }

    /// Keeps an agent's resources from being offered.
    pub fn deactivate_agent(&mut self, message: &DeactivateAgent) {
        self.set_agent_active(&message.agent_id, false);
    }

    fn set_agent_active(&mut self, id: &AgentId, active: bool) {
        let a = self.agent_numbers.get(id).copied();
        if let Some(agent) = a.and_then(|a| self.agents.get_mut(a)) {
            agent.active = active;
        }
    }

    /// Takes an agent's new description. Other attributes void what was declined of it.
    pub fn update_agent(&mut self, message: UpdateAgent) {
        let Some(a) = self.agent_numbers.get(&message.agent_id).copied() else {
            return;
        };
        let remote = self.is_remote(&message.info);
        let Some(agent) = self.agents.get_mut(a) else {
            return;
        };
        let mut changed = false;
        if agent.remote != remote {
            agent.remote = remote;
            changed = true;
        }
        let new_attributes = agent.attributes != message.info.attributes;
        if new_attributes {
            agent.attributes = message.info.attributes;
            changed = true;
        }
        if agent.total != message.total {
            self.set_total(a, message.total);
            changed = true;
        }
        if new_attributes {
            self.drop_refusals(a);
        }
        if changed {
            if let Some(agent) = self.agents.get_mut(a) {
                agent.barren = None;
            }
            self.nominate(a);
        }
    }

    fn drop_refusals(&mut self, a: usize) {
        for (_, framework) in self.frameworks.iter_mut() {
            for membership in framework.roles.values_mut() {
                membership.refusals.remove_agent(a);
            }
        }
    }

    /// Changes what roles weigh. The next run sees it.
    pub fn update_weights(&mut self, message: UpdateWeights) {
        for (role, weight) in message.weights {
            self.tree.set_weight(&role, weight);
            self.role_sorter.set_weight(role.as_str(), weight);
        }
    }

    // Books.

    /// Takes resources back, and notes that the framework does not want them for a while. Starts no run. A framework
    /// or agent that is not known is no error: it was removed meanwhile.
    ///
    /// # Errors
    /// [`BookError`] when the framework does not hold all of it; the part it holds is free all the same.
    pub fn recover_resources(
        &mut self,
        message: &RecoverResources,
        now: Time,
    ) -> Result<(), BookError> {
        let Some(a) = self.agent_numbers.get(&message.agent_id).copied() else {
            return Ok(());
        };
        let Some(f) = self.framework_numbers.get(&message.framework_id).copied() else {
            self.recover_unclaimed(a, message);
            return Ok(());
        };
        let held = self.agents.get(a).and_then(|agent| agent.used.get(&f));
        let error = match held {
            Some(held) if held.contains(&message.resources) => None,
            _ if message.resources.is_empty() => None,
            held => Some(BookError {
                framework_id: message.framework_id.clone(),
                agent_id: message.agent_id.clone(),
                given: message.resources.clone(),
                held: held.cloned().unwrap_or_default(),
            }),
        };
        // Refused under the roles it was offered under, before the framework may fall out of one.
        if let Some(length) = message
            .filters
            .as_ref()
            .and_then(|filters: &Filters| refusal(filters, self.config.allocation_interval))
        {
            self.refuse(a, f, &message.resources, now + length);
        }
        let part = match &error {
            None => message.resources.clone(),
            Some(error) => {
                let held = |resource: &Resource| error.held.contains_resource(resource);
                message.resources.filter(held)
            }
        };
        self.discharge(a, f, &part);
        if let Some(agent) = self.agents.get_mut(a) {
            if agent.overcommitted {
                agent.rebalance();
            } else {
                agent.available += &part.non_shared().unallocated();
                agent.barren = None;
            }
        }
        error.map_or(Ok(()), Err)
    }

    fn recover_unclaimed(&mut self, a: usize, message: &RecoverResources) {
        let Some(agent) = self.agents.get_mut(a) else {
            return;
        };
        if let Some(held) = agent.unclaimed.get_mut(&message.framework_id) {
            *held -= &message.resources;
            if held.is_empty() {
                agent.unclaimed.remove(&message.framework_id);
            }
            agent.rebalance();
        }
    }

    fn refuse(&mut self, a: usize, f: usize, resources: &Resources, end: Time) {
        for (role, refused) in resources.allocations() {
            let Some(r) = self.role_numbers.get(&role).copied() else {
                continue;
            };
            let refused = refused.unallocated();
            let Some(agent) = self.agents.get_mut(a) else {
                continue;
            };
            let refused = match &agent.last_refused {
                Some(last) if **last == refused => Arc::clone(last),
                _ => {
                    let refused = Arc::new(refused);
                    agent.last_refused = Some(Arc::clone(&refused));
                    refused
                }
            };
            self.last_refusal += 1;
            let key = RefusalKey {
                number: self.last_refusal,
                framework: f,
                role: r,
                agent: a,
            };
            if let Some(membership) = self.membership(f, r)
                && membership.subscribed
            {
                membership.refusals.insert(a, key.number, refused);
                self.deadlines.push(end, key);
            }
        }
    }

    /// Books resources on a framework. The agent's free resources are the caller's concern.
    fn charge(&mut self, a: usize, f: usize, resources: &Resources) {
        let Some(agent) = self.agents.get_mut(a) else {
            return;
        };
        let held = agent.used.entry(f).or_default();
        let charges = by_role(&mut self.names, resources, |resource| {
            !resource.shared || !held.contains_resource(resource)
        });
        let charges: Vec<_> = charges
            .into_iter()
            .map(|(role, amounts)| {
                let is_first = !holds_under(held, &role);
                (role, amounts, is_first)
            })
            .collect();
        *held += resources;
        if held.is_empty() {
            agent.used.remove(&f);
        }
        for (role, amounts, is_first) in charges {
            let r = self.join_role(f, &role);
            if is_first && let Some(membership) = self.membership(f, r) {
                membership.holdings += 1;
            }
            self.role_sorter.allocated(r, &amounts, &self.totals);
            if let Some(state) = self.roles.get_mut(r) {
                state.sorter.allocated(f, &amounts, &self.totals);
            }
        }
    }

    /// Takes resources that a framework holds off its books.
    fn discharge(&mut self, a: usize, f: usize, resources: &Resources) {
        let Some(agent) = self.agents.get_mut(a) else {
            return;
        };
        let Some(held) = agent.used.get_mut(&f) else {
            return;
        };
        *held -= resources;
        let charges = by_role(&mut self.names, resources, |resource| {
            !resource.shared || !held.contains_resource(resource)
        });
        let charges: Vec<_> = charges
            .into_iter()
            .map(|(role, amounts)| {
                let was_last = !holds_under(held, &role);
                (role, amounts, was_last)
            })
            .collect();
        if held.is_empty() {
            agent.used.remove(&f);
        }
        for (role, amounts, was_last) in charges {
            let Some(r) = self.role_numbers.get(&role).copied() else {
                continue;
            };
            self.role_sorter.unallocated(r, &amounts, &self.totals);
            if let Some(state) = self.roles.get_mut(r) {
                state.sorter.unallocated(f, &amounts, &self.totals);
            }
            if was_last {
                if let Some(membership) = self.membership(f, r) {
                    membership.holdings -= 1;
                }
                self.leave_unused_role(f, r);
            }
        }
    }

    // Runs.

    /// One run over the candidates: what each framework is offered now. All of it is charged already.
    pub fn allocate(
        &mut self,
        now: Time,
        random: &mut impl Rng,
    ) -> Vec<(FrameworkId, Vec<Allocation>)> {
        self.end_refusals(now);
        let mut visited = std::mem::take(&mut self.candidates);
        let woken = self.wakes.count();
        visited.retain(|a| {
            self.agents.get_mut(*a).is_some_and(|agent| {
                agent.candidate = false;
                agent.active && !agent.is_empty() && agent.barren != Some(woken)
            })
        });
        visited.shuffle(random);
        let mut offers: BTreeMap<usize, Vec<Allocation>> = BTreeMap::new();
        for a in visited {
            self.allocate_agent(a, &mut offers);
        }
        let named = offers.into_iter().filter_map(|(f, offers)| {
            let framework = self.frameworks.get(f)?;
            Some((framework.id.clone(), offers))
        });
        named.collect()
    }

    fn end_refusals(&mut self, now: Time) {
        while let Some(key) = self.deadlines.pop_ended(now) {
            let removed = self
                .membership(key.framework, key.role)
                .is_some_and(|m| m.refusals.remove(key.agent, key.number));
            if removed && let Some(agent) = self.agents.get_mut(key.agent) {
                agent.barren = None;
            }
        }
        // Refusals that were dropped early leave their deadlines behind; most of them gone, the rest is sorted out.
        if self.deadlines.len() > 1024 {
            let live: usize = self.refusals().map(|(_, count)| count).sum();
            if self.deadlines.len() > 2 * live {
                let numbers: BTreeSet<u64> = self.refusal_numbers().collect();
                self.deadlines.retain(|key| numbers.contains(&key.number));
            }
        }
    }

    fn refusal_numbers(&self) -> impl Iterator<Item = u64> + '_ {
        let members = self.frameworks.iter().flat_map(|(_, f)| f.roles.values());
        members.flat_map(|m| m.refusals.keys().map(|(_, number)| number))
    }

    /// Offers one agent's free resources around until nothing is left or nobody else takes any.
    fn allocate_agent(&mut self, a: usize, offers: &mut BTreeMap<usize, Vec<Allocation>>) {
        // A shared resource stays free, but is offered once in a run.
        let Some(agent) = self.agents.get(a) else {
            return;
        };
        let mut shared = agent.shared.clone();
        // Who wanted nothing here does not want a part of it either.
        let woken = agent.barren.and_then(|count| self.wakes.since(count));
        let woken: Option<BTreeSet<usize>> = woken.map(|woken| woken.iter().copied().collect());
        let mut view = None;
        let mut was_served = false;
        // Both orders are those of the moment they are asked for, however the run itself changes them.
        let roles = self.role_sorter.sort(&self.totals);
        for r in roles.iter().copied() {
            let nothing_left =
                |agent: &Agent, shared: &Resources| agent.available.is_empty() && shared.is_empty();
            let Some(agent) = self.agents.get(a) else {
                return;
            };
            if nothing_left(agent, &shared) {
                break;
            }
            let Some(state) = self.roles.get_mut(r) else {
                continue;
            };
            if state.role.is_nested()
                && !agent
                    .capabilities
                    .contains(&AgentCapability::HierarchicalRole)
            {
                continue;
            }
            let role = state.role.clone();
            let frameworks = state.sorter.sort(&self.totals);
            let may_want = |f: &usize| woken.as_ref().is_none_or(|woken| woken.contains(f));
            for f in frameworks.iter().copied().filter(may_want) {
                let Some(offer) = self.offer(a, r, f, &shared, &mut view) else {
                    continue;
                };
                view = None;
                was_served = true;
                shared -= &offer.shared();
                let resources = offer.allocated(&role);
                self.charge(a, f, &resources);
                let Some(agent) = self.agents.get_mut(a) else {
                    return;
                };
                if !mistake("allocator forgets what it has offered") {
                    agent.available -= &offer.non_shared();
                }
                offers.entry(f).or_default().push(Allocation {
                    role: role.clone(),
                    agent_id: agent.id.clone(),
                    entry: agent.entry,
                    resources,
                });
                if nothing_left(agent, &shared) {
                    break;
                }
            }
        }
        if !was_served && let Some(agent) = self.agents.get_mut(a) {
            agent.barren = Some(self.wakes.count());
        }
    }

    /// What framework `f` is to be offered of agent `a` under role `r`, if anything: all that is free, that the role
    /// may have and the framework can take, when that is enough and was not declined. `view` is kept between calls
    /// for as long as nothing of the agent is taken.
    fn offer(
        &self,
        a: usize,
        r: usize,
        f: usize,
        shared: &Resources,
        view: &mut Option<View>,
    ) -> Option<Resources> {
        let (agent, framework) = (self.agents.get(a)?, self.frameworks.get(f)?);
        let takes = framework.takes;
        if (agent.has_gpus && self.config.filter_gpu_resources && !takes.gpus)
            || (agent.remote && !takes.remote)
            || (takes.multi_role && !agent.capabilities.contains(&AgentCapability::MultiRole))
        {
            return None;
        }
        let membership = framework.roles.get(&r)?;
        let key = (agent.has_reservations.then_some(r), takes);
        if view.as_ref().is_none_or(|view| view.key != key) {
            let role = &self.roles.get(r)?.role;
            let fits =
                |resource: &Resource| resource.is_allocatable_to(role) && takes.takes(resource);
            let mut offer = agent.available.filter(fits);
            if !shared.is_empty() {
                offer += &shared.filter(fits);
            }
            *view = Some(View {
                key,
                is_enough: is_enough(&offer, &self.config.min_allocatable),
                offer,
                seen: None,
            });
        }
        let view = view.as_mut()?;
        let is_enough = match &membership.smallest {
            None => view.is_enough,
            Some(smallest) => is_enough(&view.offer, smallest),
        };
        let mut refusals = membership.refusals.of_agent(a);
        if !is_enough || refusals.any(|refused| view.is_covered_by(refused)) {
            return None;
        }
        Some(view.offer.clone())
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

    // Laws.

    /// Works everything out again and compares.
    ///
    /// # Errors
    /// The first law that is broken, in words.
    pub fn check(&self) -> Result<(), String> {
        let mut names = self.names_again();
        let mut held_by: BTreeMap<(usize, usize), Amounts> = BTreeMap::new();
        let mut holdings: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        let mut reservations = RoleTree::default();
        for (_, agent) in self.agents.iter() {
            reservations.add_reservations(&agent.total);
            let total = agent.total.non_shared();
            let mut free = total.clone();
            for (f, held) in &agent.used {
                ensure(!held.is_empty(), || {
                    format!("{} keeps an empty entry", agent.id)
                })?;
                let plain = held.non_shared().unallocated();
                ensure(agent.overcommitted || free.contains(&plain), || {
                    format!("{}: {plain} held of {free}", agent.id)
                })?;
                free -= &plain;
                for (role, part) in held.allocations() {
                    let r = self.role_numbers.get(&role).copied();
                    let r = r.ok_or_else(|| format!("{role} is held but not known"))?;
                    held_by
                        .entry((r, *f))
                        .or_default()
                        .add_all(&names.amounts(&part));
                    *holdings.entry((r, *f)).or_default() += 1;
                }
            }
            for held in agent.unclaimed.values() {
                free -= &held.non_shared().unallocated();
            }
            ensure(free == agent.available, || {
                format!("{}: free {} instead of {free}", agent.id, agent.available)
            })?;
        }
        self.check_sorters(&held_by)?;
        self.check_memberships(&holdings, &reservations)?;
        self.check_barren()
    }

    /// The names with the numbers they have in the books.
    fn names_again(&self) -> Names {
        let mut names = Names::default();
        for (id, _) in self.names.iter() {
            names.id(id);
        }
        names
    }

    fn check_sorters(&self, held_by: &BTreeMap<(usize, usize), Amounts>) -> Result<(), String> {
        let none = Amounts::default();
        let mut all = Amounts::default();
        for (r, state) in self.roles.iter() {
            let mut sum = Amounts::default();
            for (f, framework) in self.frameworks.iter() {
                let expected = held_by.get(&(r, f)).unwrap_or(&none);
                let is_member = framework.roles.contains_key(&r);
                ensure(is_member == state.sorter.contains(f), || {
                    format!("{} and the sorter of {} disagree", framework.id, state.role)
                })?;
                ensure(state.sorter.held(f).unwrap_or(&none) == expected, || {
                    format!("{} holds something else under {}", framework.id, state.role)
                })?;
                sum.add_all(expected);
            }
            all.add_all(&sum);
            ensure(self.role_sorter.held(r) == Some(&sum), || {
                format!("the role sorter has another sum of {}", state.role)
            })?;
        }
        ensure(*self.role_sorter.held_by_all() == all, || {
            "the role sorter has another sum of all roles".to_owned()
        })
    }

    fn check_memberships(
        &self,
        holdings: &BTreeMap<(usize, usize), usize>,
        reservations: &RoleTree,
    ) -> Result<(), String> {
        let ends: BTreeSet<u64> = self.deadlines.numbers().collect();
        let mut tree = reservations.clone();
        for (role, node) in self.tree.iter() {
            tree.set_weight(role, node.weight);
        }
        for (f, framework) in self.frameworks.iter() {
            for (r, membership) in &framework.roles {
                let name = || format!("{} in role {r}", framework.id);
                let held = holdings.get(&(*r, f)).copied().unwrap_or(0);
                ensure(membership.holdings == held, || {
                    format!(
                        "{}: {} agents instead of {held}",
                        name(),
                        membership.holdings
                    )
                })?;
                ensure(membership.subscribed || held > 0, || {
                    format!("{}: unused", name())
                })?;
                for (a, number) in membership.refusals.keys() {
                    let ok = membership.subscribed
                        && ends.contains(&number)
                        && self.agents.get(a).is_some();
                    ensure(ok, || format!("{}: refusal {number} is nobody's", name()))?;
                }
                let role = self.roles.get(*r).map(|state| &state.role);
                let role = role.ok_or_else(|| format!("{}: no such role", name()))?;
                tree.add_framework(role, f);
            }
        }
        ensure(tree == self.tree, || {
            format!("role tree {:?} instead of {tree:?}", self.tree)
        })
    }

    fn check_barren(&self) -> Result<(), String> {
        for (a, agent) in self.agents.iter() {
            let Some(woken) = agent.barren.and_then(|count| self.wakes.since(count)) else {
                continue;
            };
            for (f, framework) in self.frameworks.iter() {
                if woken.contains(&f) {
                    continue;
                }
                for (r, membership) in &framework.roles {
                    let hierarchical = &AgentCapability::HierarchicalRole;
                    let allowed = self.roles.get(*r).is_some_and(|state| {
                        !state.role.is_nested() || agent.capabilities.contains(hierarchical)
                    });
                    let wants = framework.active && membership.subscribed && !membership.suppressed;
                    if wants && allowed {
                        let offer = self.offer(a, *r, f, &agent.shared, &mut None);
                        ensure(offer.is_none(), || {
                            format!("barren {} suits {}", agent.id, framework.id)
                        })?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// Whether an offer is worth sending.
fn is_enough(offer: &Resources, alternatives: &[ResourceQuantities]) -> bool {
    !offer.is_empty()
        && (alternatives.is_empty()
            || alternatives
                .iter()
                .any(|least| offer.contains_quantities(least)))
}

/// The amounts of the resources that count, by allocation role; every role comes, if only with nothing.
fn by_role(
    names: &mut Names,
    resources: &Resources,
    counts: impl Fn(&Resource) -> bool,
) -> Vec<(Role, Amounts)> {
    let mut out: Vec<(Role, Amounts)> = Vec::with_capacity(1);
    for resource in resources.iter() {
        debug_assert!(resource.allocation.is_some(), "{resource} has no role");
        let Some(role) = &resource.allocation else {
            continue;
        };
        let at = out.iter().position(|(known, _)| known == role);
        let at = at.unwrap_or_else(|| {
            out.push((role.clone(), Amounts::default()));
            out.len() - 1
        });
        if counts(resource)
            && let Some(amount) = resource.amount()
        {
            out[at].1.add(names.id(&resource.name), amount);
        }
    }
    out
}

fn holds_under(held: &Resources, role: &Role) -> bool {
    held.iter()
        .any(|resource| resource.allocation.as_ref() == Some(role))
}
