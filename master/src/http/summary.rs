//! What is counted over the tables: `/state-summary` and `/roles`. Each is put together in one pass over the tasks.
//!
//! Pure. Source: http.md §6.

use std::collections::{BTreeMap, BTreeSet};

use meseta_protocol::resources::{ResourceQuantities, Resources};
use meseta_protocol::status::TaskState;
use meseta_protocol::{AgentId, FrameworkId, Role};
use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use super::show::{AgentShown, Each, FrameworkSummary, used_on};
use crate::state::State;

/// The states that are counted, in the order shown.
const COUNTED: [TaskState; 10] = [
    TaskState::Staging,
    TaskState::Starting,
    TaskState::Running,
    TaskState::Killing,
    TaskState::Finished,
    TaskState::Killed,
    TaskState::Failed,
    TaskState::Lost,
    TaskState::Error,
    TaskState::Unreachable,
];

/// How many tasks are in each state.
#[derive(Debug, Clone, Copy, Default)]
struct Counts([u64; COUNTED.len()]);

impl Counts {
    fn add(&mut self, state: TaskState) {
        if let Some(at) = COUNTED.iter().position(|counted| *counted == state) {
            self.0[at] += 1;
        }
    }
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(COUNTED.len()))?;
        for (state, count) in COUNTED.iter().zip(&self.0) {
            map.serialize_entry(state, count)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct AgentSummed<'a> {
    #[serde(flatten)]
    agent: AgentShown<'a>,
    #[serde(flatten)]
    counts: Counts,
    framework_ids: BTreeSet<&'a FrameworkId>,
}

#[derive(Serialize)]
struct FrameworkSummed<'a> {
    #[serde(flatten)]
    summary: FrameworkSummary<'a>,
    #[serde(flatten)]
    counts: Counts,
    slave_ids: BTreeSet<&'a AgentId>,
}

#[derive(Serialize)]
struct Summary<'a, A: Serialize, F: Serialize> {
    hostname: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a str>,
    slaves: A,
    frameworks: F,
}

/// `/state-summary`. `hostname` is the master's, `cluster` the name of the cluster; `summary_of` says what a framework is
/// called and how it stands.
pub(super) fn state_summary<'a>(
    state: &'a State,
    hostname: &'a str,
    cluster: Option<&'a str>,
    summary_of: impl Fn(&'a FrameworkId, &'a crate::state::Framework) -> FrameworkSummary<'a>,
) -> impl Serialize {
    let mut of_agent: BTreeMap<&AgentId, (Counts, BTreeSet<&FrameworkId>)> = BTreeMap::new();
    let mut of_framework: BTreeMap<&FrameworkId, (Counts, BTreeSet<&AgentId>)> = BTreeMap::new();
    for (id, framework) in state.frameworks() {
        let tasks = framework.tasks.values();
        let tasks = tasks
            .chain(&framework.unreachable_tasks)
            .chain(&framework.completed_tasks);
        let of_this = of_framework.entry(id).or_default();
        for task in tasks {
            let of_its = of_agent.entry(&task.agent_id).or_default();
            of_its.0.add(task.state);
            of_its.1.insert(id);
            of_this.0.add(task.state);
            of_this.1.insert(&task.agent_id);
        }
    }
    let slaves: Vec<AgentSummed<'a>> = state
        .agents()
        .map(|(id, agent)| {
            let (counts, framework_ids) = of_agent.remove(id).unwrap_or_default();
            AgentSummed {
                agent: AgentShown::new(id, agent),
                counts,
                framework_ids,
            }
        })
        .collect();
    let frameworks: Vec<FrameworkSummed<'a>> = state
        .frameworks()
        .map(|(id, framework)| {
            let (counts, slave_ids) = of_framework.remove(id).unwrap_or_default();
            FrameworkSummed {
                summary: summary_of(id, framework),
                counts,
                slave_ids,
            }
        })
        .collect();
    Summary {
        hostname,
        cluster,
        slaves,
        frameworks,
    }
}

/// What is known of one role.
#[derive(Debug)]
pub(super) struct RoleSummed<'a> {
    pub(super) name: &'a Role,
    pub(super) weight: f64,
    /// Frameworks that have it.
    pub(super) frameworks: Vec<&'a FrameworkId>,
    /// Held by tasks and executors of the role and of those below it.
    allocated: Resources,
    /// Offered to the role and those below it.
    offered: Resources,
    /// Reserved for the role and those below it.
    reserved: Resources,
}

impl RoleSummed<'_> {
    /// Held or offered.
    pub(super) fn resources(&self) -> Resources {
        &self.allocated + &self.offered
    }
}

/// Amounts by name.
struct Amounts(ResourceQuantities);

impl Amounts {
    fn of(resources: &Resources) -> Self {
        Self(ResourceQuantities::from_resources(resources))
    }
}

impl Serialize for Amounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, amount)| (&**name, amount)))
    }
}

#[derive(Serialize)]
struct QuotaShown<'a> {
    role: &'a Role,
    guarantee: Amounts,
    limit: Amounts,
    consumed: Amounts,
}

#[derive(Serialize)]
struct RoleShown<'a> {
    name: &'a Role,
    weight: f64,
    quota: QuotaShown<'a>,
    resources: Amounts,
    allocated: Amounts,
    offered: Amounts,
    reserved: Amounts,
    frameworks: &'a [&'a FrameworkId],
}

impl Serialize for RoleSummed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let none = || Amounts(ResourceQuantities::default());
        let unreserved = self.allocated.unreserved().non_revocable();
        let shown = RoleShown {
            name: self.name,
            weight: self.weight,
            quota: QuotaShown {
                role: self.name,
                guarantee: none(),
                limit: none(),
                consumed: Amounts::of(&(&unreserved + &self.reserved)),
            },
            resources: Amounts::of(&self.resources()),
            allocated: Amounts::of(&self.allocated),
            offered: Amounts::of(&self.offered),
            reserved: Amounts::of(&self.reserved),
            frameworks: &self.frameworks,
        };
        shown.serialize(serializer)
    }
}

/// Every role of which anything is known, in the order of the names: `known` gathers them.
pub(super) fn known_roles(state: &State, weights: &BTreeMap<Role, f64>) -> BTreeSet<Role> {
    let mut all: BTreeSet<Role> = weights.keys().cloned().collect();
    for (_, framework) in state.frameworks() {
        all.extend(framework.info.effective_roles());
    }
    for (_, agent) in state.agents() {
        let reserved = agent.total.reservations().into_keys();
        all.extend(reserved.filter(|role| !role.is_star()));
    }
    let above: Vec<Role> = all
        .iter()
        .flat_map(|role| role.ancestors().collect::<Vec<_>>())
        .collect();
    all.extend(above);
    all
}

/// What is known of these roles.
pub(super) fn roles<'a>(
    state: &'a State,
    names: &'a BTreeSet<Role>,
    weights: &BTreeMap<Role, f64>,
) -> Vec<RoleSummed<'a>> {
    let (mut used, mut offered, mut total) = (Resources::new(), Resources::new(), Resources::new());
    for (_, agent) in state.agents() {
        used += used_on(agent);
        offered += &agent.offered;
        total += agent.total.reserved(None);
    }
    names
        .iter()
        .map(|name| {
            let has = |framework: &crate::state::Framework| {
                framework.info.effective_roles().contains(name)
            };
            let all = state.frameworks().filter(|(_, framework)| has(framework));
            RoleSummed {
                name,
                weight: weights.get(name).copied().unwrap_or(1.0),
                frameworks: all.map(|(id, _)| id).collect(),
                allocated: used.allocated_to_role_subtree(name),
                offered: offered.allocated_to_role_subtree(name),
                reserved: total.reserved_to_role_subtree(name),
            }
        })
        .collect()
}

#[derive(Serialize)]
struct WeightShown<'a> {
    role: &'a Role,
    weight: f64,
}

/// `/weights`.
pub(super) fn weights(weights: &BTreeMap<Role, f64>) -> impl Serialize {
    Each(move || {
        let all = weights.iter();
        all.map(|(role, weight)| WeightShown {
            role,
            weight: *weight,
        })
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use meseta_protocol::agent::AgentInfo;
    use meseta_protocol::framework::FrameworkInfo;
    use meseta_protocol::task::Task;
    use serde_json::{Value, json};

    use super::*;
    use crate::state::{Agent, Framework, Limits};

    fn shown(state: &State) -> Value {
        let summary_of = |id, framework| FrameworkSummary::new(state, id, framework, None);
        serde_json::to_value(state_summary(state, "here", None, summary_of)).unwrap()
    }

    #[test]
    fn tasks_of_a_framework_that_has_ended_count_for_no_agent() {
        let at = Duration::from_secs(1);
        let mut state = State::new(Limits::default());
        let mut info = FrameworkInfo::new("user", "name");
        info.id = Some("f".into());
        state.add_framework(Framework::new(info, None, at));
        let mut info = AgentInfo::new("host", "cpus:8".parse().unwrap());
        info.id = Some("s".into());
        let pid = "slave(1)@127.0.0.2:2".parse().unwrap();
        let agent = Agent::new(info, pid, "1".to_owned(), Vec::new(), at);
        state.add_agent(agent, Vec::new(), Vec::new());
        state.add_task(Task {
            task_id: "t".into(),
            framework_id: "f".into(),
            agent_id: "s".into(),
            ..Task::default()
        });
        let agent = &shown(&state)["slaves"][0];
        assert_eq!(agent["framework_ids"], json!(["f"]));
        assert_eq!(agent["TASK_STAGING"], 1);
        state.remove_framework(&"f".into(), at);
        let agent = &shown(&state)["slaves"][0];
        assert_eq!(agent["framework_ids"], json!([]));
        assert!(
            COUNTED.iter().all(|state| agent[state.to_string()] == 0),
            "{agent}"
        );
    }
}
