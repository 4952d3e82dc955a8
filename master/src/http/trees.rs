//! What operators are shown as trees, from which either encoding is written.
//!
//! Pure. Source: http.md §5.1. Where Mesos shows an empty list, the list is put there by hand: elsewhere what is empty
//! is left out.

use std::time::Duration;

use meseta_api::operator::{Api, of_fields};
use meseta_api::schema::message;
use meseta_api::{Mismatch, Tree, style, to_tree};
use meseta_protocol::agent::AgentInfo;
use meseta_protocol::common::TimeInfo;
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::resources::Resources;
use meseta_protocol::task::Task;
use meseta_protocol::{AgentId, FrameworkId};
use meseta_runtime::http::Version;
use serde::Serialize;

use super::show::{held_by, used_on};
use super::summary::RoleSummed;
use crate::state::{Agent, Framework, Standing, State};

pub(super) type Built = Result<Tree, Mismatch>;

/// Time as Mesos tells it to operators.
fn time(at: Duration) -> TimeInfo {
    TimeInfo {
        nanoseconds: i64::try_from(at.as_nanos()).unwrap_or(i64::MAX),
    }
}

/// A list, also when it is empty.
fn list(all: impl Iterator<Item = Built>) -> Built {
    Ok(Tree::List(all.collect::<Result<_, _>>()?))
}

fn value<T: Serialize>(value: &T, name: &str) -> Built {
    to_tree(value, message(name))
}

/// Resources in the shape that operators are shown; none where there are none.
fn put_resources(
    tree: &mut Tree,
    of: &'static meseta_api::MessageType,
    name: &str,
    resources: &Resources,
) -> Result<(), Mismatch> {
    let resource = message("mesos.v1.Resource");
    let all: Vec<Tree> = resources
        .iter()
        .map(|one| {
            let mut tree = to_tree(one, resource)?;
            style::for_operators(&mut tree, resource);
            Ok(tree)
        })
        .collect::<Result<_, Mismatch>>()?;
    if !all.is_empty() {
        tree.put(of, name, Tree::List(all));
    }
    Ok(())
}

#[derive(Serialize)]
struct AgentPart<'a> {
    agent_info: &'a AgentInfo,
    active: bool,
    version: &'static str,
    pid: String,
    registered_time: TimeInfo,
    reregistered_time: Option<TimeInfo>,
    capabilities: &'a [meseta_protocol::agent::AgentCapability],
    deactivated: Option<bool>,
}

/// An agent.
pub(super) fn agent(agent: &Agent) -> Built {
    let of = message("mesos.v1.master.Response.GetAgents.Agent");
    let part = AgentPart {
        agent_info: &agent.info,
        active: agent.connected,
        version: Version::API,
        pid: agent.pid.to_string(),
        registered_time: time(agent.registered),
        reregistered_time: agent.reregistered.map(time),
        capabilities: &agent.capabilities,
        deactivated: Some(false),
    };
    let mut tree = to_tree(&part, of)?;
    put_resources(&mut tree, of, "total_resources", &agent.total)?;
    put_resources(&mut tree, of, "allocated_resources", &used_on(agent))?;
    put_resources(&mut tree, of, "offered_resources", &agent.offered)?;
    Ok(tree)
}

#[derive(Serialize)]
struct FrameworkPart<'a> {
    framework_info: &'a meseta_protocol::framework::FrameworkInfo,
    active: bool,
    connected: bool,
    recovered: bool,
    registered_time: TimeInfo,
    reregistered_time: TimeInfo,
    unregistered_time: Option<TimeInfo>,
    offers: Vec<&'a meseta_protocol::offer::Offer>,
}

/// A framework.
pub(super) fn framework(state: &State, id: &FrameworkId, one: &Framework) -> Built {
    let of = message("mesos.v1.master.Response.GetFrameworks.Framework");
    let mut tree = framework_until(state, id, one, one.unregistered)?;
    tree.put(of, "offer_constraints", Tree::empty());
    Ok(tree)
}

/// A framework as events show it: when it ended is there in any case.
pub(super) fn framework_in_event(state: &State, id: &FrameworkId, one: &Framework) -> Built {
    let until = one.unregistered.unwrap_or(Duration::ZERO);
    framework_until(state, id, one, Some(until))
}

fn framework_until(
    state: &State,
    id: &FrameworkId,
    framework: &Framework,
    until: Option<Duration>,
) -> Built {
    let of = message("mesos.v1.master.Response.GetFrameworks.Framework");
    let offers = framework.offers.iter().filter_map(|id| state.offer(id));
    let part = FrameworkPart {
        framework_info: &framework.info,
        active: framework.standing == Standing::Active,
        connected: framework.is_connected(),
        recovered: framework.standing == Standing::Recovered,
        registered_time: time(framework.registered),
        reregistered_time: time(framework.reregistered.unwrap_or(framework.registered)),
        unregistered_time: until.map(time),
        offers: offers.map(|one| &one.offer).collect(),
    };
    let mut tree = to_tree(&part, of)?;
    let (used, offered) = held_by(state, id, framework);
    put_resources(&mut tree, of, "allocated_resources", &used)?;
    put_resources(&mut tree, of, "offered_resources", &offered)?;
    Ok(tree)
}

/// A task.
pub(super) fn task(task: &Task) -> Built {
    value(task, "mesos.v1.Task")
}

fn part(kind: &str, fields: impl IntoIterator<Item = (&'static str, Tree)>) -> Tree {
    of_fields(Api::Master.part_type(kind), fields)
}

pub(super) fn get_agents<'a>(
    state: &State,
    awaited: impl Iterator<Item = (&'a AgentId, &'a AgentInfo)>,
) -> Built {
    let awaited = awaited.map(|(id, info)| {
        let mut info = info.clone();
        info.id = Some(id.clone());
        value(&info, "mesos.v1.AgentInfo")
    });
    Ok(part(
        "GET_AGENTS",
        [
            ("agents", list(state.agents().map(|(_, one)| agent(one)))?),
            ("recovered_agents", list(awaited)?),
        ],
    ))
}

pub(super) fn get_frameworks(state: &State) -> Built {
    let over = state
        .completed_frameworks()
        .filter_map(|one| Some((one.info.id.as_ref()?, one)));
    let living = state.frameworks();
    Ok(part(
        "GET_FRAMEWORKS",
        [
            (
                "frameworks",
                list(living.map(|(id, one)| framework(state, id, one)))?,
            ),
            (
                "completed_frameworks",
                list(over.map(|(id, one)| framework(state, id, one)))?,
            ),
        ],
    ))
}

#[derive(Serialize)]
struct ExecutorPart<'a> {
    executor_info: &'a ExecutorInfo,
    agent_id: &'a AgentId,
}

pub(super) fn get_executors(state: &State) -> Built {
    let of = message("mesos.v1.master.Response.GetExecutors.Executor");
    let all = state
        .frameworks()
        .flat_map(|(_, framework)| &framework.executors)
        .flat_map(|(agent_id, all)| all.values().map(move |info| (agent_id, info)));
    let executors = list(all.map(|(agent_id, executor_info)| {
        let part = ExecutorPart {
            executor_info,
            agent_id,
        };
        to_tree(&part, of)
    }));
    Ok(part("GET_EXECUTORS", [("executors", executors?)]))
}

pub(super) fn get_tasks(state: &State) -> Built {
    let all = || {
        let living = state.frameworks().map(|(_, framework)| framework);
        living.chain(state.completed_frameworks())
    };
    let tasks = all().flat_map(|framework| framework.tasks.values());
    let unreachable = all().flat_map(|framework| &framework.unreachable_tasks);
    let completed = all().flat_map(|framework| &framework.completed_tasks);
    Ok(part(
        "GET_TASKS",
        [
            ("tasks", list(tasks.map(|one| task(one)))?),
            ("completed_tasks", list(completed.map(|one| task(one)))?),
            ("unreachable_tasks", list(unreachable.map(|one| task(one)))?),
        ],
    ))
}

pub(super) fn get_state<'a>(
    state: &State,
    awaited: impl Iterator<Item = (&'a AgentId, &'a AgentInfo)>,
) -> Built {
    Ok(part(
        "GET_STATE",
        [
            ("get_tasks", get_tasks(state)?),
            ("get_executors", get_executors(state)?),
            ("get_frameworks", get_frameworks(state)?),
            ("get_agents", get_agents(state, awaited)?),
        ],
    ))
}

#[derive(Serialize)]
struct RolePart<'a> {
    name: &'a meseta_protocol::Role,
    weight: f64,
    frameworks: &'a [&'a FrameworkId],
    resources: Resources,
}

pub(super) fn get_roles(all: &[RoleSummed<'_>]) -> Built {
    let roles = all.iter().map(|role| {
        let resources = role.resources().unallocated().to_unreserved();
        let part = RolePart {
            name: role.name,
            weight: role.weight,
            frameworks: &role.frameworks,
            resources: resources.scalars(),
        };
        value(&part, "mesos.v1.Role")
    });
    let roles: Vec<Tree> = roles.collect::<Result<_, _>>()?;
    let shown = (!roles.is_empty()).then_some(("roles", Tree::List(roles)));
    Ok(part("GET_ROLES", shown))
}
