//! What the master knows: frameworks, agents, tasks, executors and offers.
//!
//! Pure: no clock, no network. The tables are changed only through the methods here and in the child modules, each
//! of which keeps the sums right: for every agent `used` is the sum over its live tasks, its lingering ones and its
//! executors, `offered` the sum over its outstanding offers, and both directions of every reference exist.
//! [`State::check`] says so and runs after every step of the tests.
//!
//! What is in the tables is shared with the [`State::snapshot`]s that readers look at, and copied when it changes while
//! one of them still has it. Therefore a snapshot costs next to nothing however much there is.

mod agents;
mod changes;
mod frameworks;
mod offers;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use meseta_protocol::agent::{AgentCapability, AgentInfo};
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::offer::Offer;
use meseta_protocol::resources::Resources;
use meseta_protocol::status::TaskState;
use meseta_protocol::task::Task;
use meseta_protocol::{AgentId, ExecutorId, FrameworkId, OfferId, Role, TaskId};
use meseta_runtime::Pid;

pub use agents::Removed;
pub use changes::{Change, Updated};
pub use frameworks::EndedFramework;

/// How a framework stands with this master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Subscribed and offered to.
    Active,
    /// Connected, but has asked for no more offers.
    Inactive,
    /// Its connection is lost; it may come back.
    Disconnected,
    /// Known from agents only; it never subscribed with this master.
    Recovered,
}

/// One framework.
#[derive(Debug, Clone)]
pub struct Framework {
    /// As it described itself, with its id.
    pub info: FrameworkInfo,
    /// Its scheduler; none while recovered.
    pub pid: Option<Pid>,
    /// How it stands.
    pub standing: Standing,
    /// First subscription with this master, since the Unix epoch.
    pub registered: Duration,
    /// Latest return, since the Unix epoch.
    pub reregistered: Option<Duration>,
    /// When it ended, since the Unix epoch.
    pub unregistered: Option<Duration>,
    /// Raised at each subscription: tells a fail-over timer whether its framework has come back meanwhile.
    pub subscription: u64,
    /// Roles it wants no offers for.
    pub suppressed_roles: BTreeSet<Role>,
    /// Tasks that are not completed: live ones and terminal ones whose last update is not acknowledged.
    pub tasks: BTreeMap<TaskId, Arc<Task>>,
    /// Its executors, by agent.
    pub executors: BTreeMap<AgentId, BTreeMap<ExecutorId, Arc<ExecutorInfo>>>,
    /// Outstanding offers.
    pub offers: BTreeSet<OfferId>,
    /// Tasks on agents that are unreachable, oldest first.
    pub unreachable_tasks: VecDeque<Arc<Task>>,
    /// Tasks that are over, oldest first.
    pub completed_tasks: VecDeque<Arc<Task>>,
}

/// Whether the end of a task was forwarded to its framework, which may not have acknowledged it.
pub(crate) fn end_is_forwarded(task: &Task) -> bool {
    task.status_update_state.is_some_and(TaskState::is_terminal)
}

/// One registered agent.
#[derive(Debug, Clone)]
pub struct Agent {
    /// As it described itself, with its id.
    pub info: AgentInfo,
    /// Its PID.
    pub pid: Pid,
    /// Version of its program.
    pub version: String,
    /// What it can do.
    pub capabilities: Vec<AgentCapability>,
    /// Whether its connection stands.
    pub connected: bool,
    /// Raised at each registration: tells a time-out whether its agent has come back meanwhile.
    pub registration: u64,
    /// First registration with this master, since the Unix epoch.
    pub registered: Duration,
    /// Latest return, since the Unix epoch.
    pub reregistered: Option<Duration>,
    /// All it has.
    pub total: Resources,
    /// Held by tasks and executors, by framework, and by what has been given up and has not ended.
    pub used: BTreeMap<FrameworkId, Resources>,
    /// Outstanding offers.
    pub offers: BTreeSet<OfferId>,
    /// Sum of the outstanding offers.
    pub offered: Resources,
    /// Its tasks, by framework.
    pub tasks: BTreeMap<FrameworkId, BTreeSet<TaskId>>,
    /// Its executors, by framework.
    pub executors: BTreeMap<FrameworkId, BTreeSet<ExecutorId>>,
    /// Executors that the agent did not list when it last registered, while the launch of a task of theirs may have been
    /// on its way: counted until the agent says of the task whether it came.
    pub unconfirmed: BTreeSet<(FrameworkId, ExecutorId)>,
    /// Tasks that were to be killed, in case the agent was away.
    pub killed_tasks: BTreeSet<(FrameworkId, TaskId)>,
    /// Tasks that the agent has listed last although they are over for their frameworks, with what each holds until the
    /// agent reports its end. What the agent says of them the master takes, and no framework hears it.
    pub lingering: BTreeMap<(FrameworkId, TaskId), Resources>,
    /// Number of the chain of pings that is this agent's; one of an earlier stay has ended.
    pub ping_chain: u64,
    /// Its entry in the allocator's books. Allocations on an earlier one are void.
    pub entry: u64,
    /// Answers to pings.
    pub health: crate::health::Health,
}

/// An outstanding offer.
#[derive(Debug, Clone)]
pub struct Outstanding {
    /// As the framework got it.
    pub offer: Offer,
    /// Its role.
    pub role: Role,
}

/// Bounds of what is remembered after its end.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Completed frameworks. Default 50.
    pub completed_frameworks: usize,
    /// Completed tasks of a framework. Default 1000.
    pub completed_tasks: usize,
    /// Unreachable tasks of a framework. Default 1000.
    pub unreachable_tasks: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            completed_frameworks: 50,
            completed_tasks: 1000,
            unreachable_tasks: 1000,
        }
    }
}

/// All tables.
#[derive(Debug, Default)]
pub struct State {
    /// Bounds of what is remembered.
    pub limits: Limits,
    frameworks: BTreeMap<FrameworkId, Arc<Framework>>,
    agents: BTreeMap<AgentId, Arc<Agent>>,
    offers: BTreeMap<OfferId, Arc<Outstanding>>,
    completed_frameworks: VecDeque<Arc<Framework>>,
    frameworks_by_pid: HashMap<Pid, FrameworkId>,
    agents_by_pid: HashMap<Pid, AgentId>,
    noted: changes::Noted,
}

impl State {
    /// Empty tables.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// The tables as they are now, for who looks at them elsewhere. Changes are not noted in it.
    pub fn snapshot(&self) -> Self {
        Self {
            limits: self.limits,
            frameworks: self.frameworks.clone(),
            agents: self.agents.clone(),
            offers: self.offers.clone(),
            completed_frameworks: self.completed_frameworks.clone(),
            // Only who changes the tables needs these.
            frameworks_by_pid: HashMap::new(),
            agents_by_pid: HashMap::new(),
            noted: changes::Noted::default(),
        }
    }

    /// A live framework.
    pub fn framework(&self, id: &FrameworkId) -> Option<&Framework> {
        self.frameworks.get(id).map(|one| &**one)
    }

    /// All live frameworks.
    pub fn frameworks(&self) -> impl Iterator<Item = (&FrameworkId, &Framework)> {
        self.frameworks.iter().map(|(id, one)| (id, &**one))
    }

    /// Frameworks that are over, oldest first.
    pub fn completed_frameworks(&self) -> impl Iterator<Item = &Framework> {
        self.completed_frameworks.iter().map(|one| &**one)
    }

    /// Whether a framework of this id is over.
    pub fn is_completed(&self, id: &FrameworkId) -> bool {
        self.completed_frameworks
            .iter()
            .any(|framework| framework.info.id.as_ref() == Some(id))
    }

    /// The framework whose scheduler has this PID.
    pub fn framework_at(&self, pid: &Pid) -> Option<&FrameworkId> {
        self.frameworks_by_pid.get(pid)
    }

    /// A registered agent.
    pub fn agent(&self, id: &AgentId) -> Option<&Agent> {
        self.agents.get(id).map(|one| &**one)
    }

    /// A registered agent, to change what no sum depends on.
    pub(crate) fn agent_mut(&mut self, id: &AgentId) -> Option<&mut Agent> {
        self.agents.get_mut(id).map(Arc::make_mut)
    }

    /// All registered agents.
    pub fn agents(&self) -> impl Iterator<Item = (&AgentId, &Agent)> {
        self.agents.iter().map(|(id, one)| (id, &**one))
    }

    /// All agents, as they are shared.
    pub(crate) fn shared_agents(&self) -> impl Iterator<Item = (&AgentId, &Arc<Agent>)> {
        self.agents.iter()
    }

    /// The agent at this PID.
    pub fn agent_at(&self, pid: &Pid) -> Option<&AgentId> {
        self.agents_by_pid.get(pid)
    }

    /// An outstanding offer.
    pub fn offer(&self, id: &OfferId) -> Option<&Outstanding> {
        self.offers.get(id).map(|one| &**one)
    }

    /// How many offers are outstanding.
    pub fn offer_count(&self) -> usize {
        self.offers.len()
    }

    /// A task that is not completed.
    pub fn task(&self, framework: &FrameworkId, task: &TaskId) -> Option<&Task> {
        let framework = self.frameworks.get(framework)?;
        framework.tasks.get(task).map(|one| &**one)
    }

    /// The same, if it is on this agent: a framework may use an id again elsewhere.
    pub fn task_on(
        &self,
        framework: &FrameworkId,
        task: &TaskId,
        agent: &AgentId,
    ) -> Option<&Task> {
        self.task(framework, task)
            .filter(|task| task.agent_id == *agent)
    }

    /// Says what is wrong with the sums and references, if anything is.
    ///
    /// # Errors
    /// A sentence that names the first broken rule.
    pub fn check(&self) -> Result<(), String> {
        for (id, agent) in &self.agents {
            let mut used: BTreeMap<&FrameworkId, Resources> = BTreeMap::new();
            for (framework_id, framework) in &self.frameworks {
                let tasks = framework.tasks.values().filter(|task| task.agent_id == *id);
                for task in tasks {
                    let listed = agent
                        .tasks
                        .get(framework_id)
                        .is_some_and(|tasks| tasks.contains(&task.task_id));
                    if !listed {
                        return Err(format!("agent {id} does not list task {}", task.task_id));
                    }
                    if !task.state.is_terminal() {
                        *used.entry(framework_id).or_default() += &task.resources;
                    }
                }
                for executor in framework
                    .executors
                    .get(id)
                    .into_iter()
                    .flat_map(BTreeMap::values)
                {
                    *used.entry(framework_id).or_default() += &executor.resources;
                }
            }
            for ((framework_id, task_id), held) in &agent.lingering {
                if !self.frameworks.contains_key(framework_id) {
                    return Err(format!("agent {id}: {task_id} lingers for nobody"));
                }
                *used.entry(framework_id).or_default() += held;
            }
            used.retain(|_, resources| !resources.is_empty());
            let recorded: BTreeMap<&FrameworkId, Resources> = agent
                .used
                .iter()
                .map(|(framework, resources)| (framework, resources.clone()))
                .collect();
            if used != recorded {
                return Err(format!(
                    "agent {id}: used is {recorded:?}, recounted {used:?}"
                ));
            }
            let mut offered = Resources::new();
            for offer in &agent.offers {
                let Some(outstanding) = self.offers.get(offer) else {
                    return Err(format!(
                        "agent {id} lists offer {offer} that does not exist"
                    ));
                };
                offered += &outstanding.offer.resources;
            }
            if offered != agent.offered {
                return Err(format!(
                    "agent {id}: offered {} recounted {offered}",
                    agent.offered
                ));
            }
            let held = agent
                .used
                .values()
                .fold(offered, |sum, resources| &sum + resources)
                .unallocated();
            if !agent.total.contains(&held) {
                return Err(format!("agent {id} has {} but {held} is held", agent.total));
            }
        }
        for (id, outstanding) in &self.offers {
            let framework = self.frameworks.get(&outstanding.offer.framework_id);
            if !framework.is_some_and(|framework| framework.offers.contains(id)) {
                return Err(format!("offer {id} has no framework"));
            }
        }
        Ok(())
    }
}
