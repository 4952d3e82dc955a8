//! The objects of Mesos' first API: agents, frameworks, tasks, executors and offers. They borrow from the tables and
//! write themselves straight to bytes.
//!
//! Pure. Source: http.md §6.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use meseta_api::style::{self, in_full};
use meseta_protocol::agent::DomainInfo;
use meseta_protocol::attributes::{Attribute, AttributeValue};
use meseta_protocol::common::{CommandInfo, Label, Labels};
use meseta_protocol::container::{ContainerStatus, NetworkInfo};
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::framework::FrameworkCapability;
use meseta_protocol::ids::ContainerId;
use meseta_protocol::resources::{ReservedSums, ResourceLimits, Resources, Scalar, Sums};
use meseta_protocol::status::{TaskState, TaskStatus};
use meseta_protocol::task::Task;
use meseta_protocol::{AgentId, FrameworkId, OfferId, Role, TaskId};
use meseta_runtime::Pid;
use meseta_runtime::http::Version;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value;

use super::texts::Texts;
use crate::state::{Agent, Framework, Outstanding, Standing, State};

/// A list that is written from an iterator, without being put together first.
pub(super) struct Each<F>(pub(super) F);

impl<F, I> Serialize for Each<F>
where
    F: Fn() -> I,
    I: Iterator<Item: Serialize>,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

fn seconds(at: Duration) -> f64 {
    at.as_secs_f64()
}

/// Attributes by name; of several with one name the last.
pub(super) struct Attributes<'a>(pub(super) &'a [Attribute]);

impl Serialize for Attributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (at, attribute) in self.0.iter().enumerate() {
            // Of those with one name the last counts.
            if self.0[at + 1..]
                .iter()
                .any(|other| other.name == attribute.name)
            {
                continue;
            }
            match &attribute.value {
                AttributeValue::Scalar(amount) => {
                    map.serialize_entry(&attribute.name, &amount.as_f64())?;
                }
                other @ (AttributeValue::Ranges(_)
                | AttributeValue::Text(_)
                | AttributeValue::Unknown) => {
                    map.serialize_entry(&attribute.name, &other.to_string())?;
                }
            }
        }
        map.end()
    }
}

/// What an agent that is awaited has in common with one that is here.
#[derive(serde::Serialize)]
pub(super) struct AwaitedShown<'a> {
    pub(super) id: &'a AgentId,
    pub(super) hostname: &'a str,
    pub(super) port: u16,
    pub(super) attributes: Attributes<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) domain: Option<&'a DomainInfo>,
}

/// A registered agent.
#[derive(serde::Serialize)]
pub(super) struct AgentShown<'a> {
    #[serde(flatten)]
    who: AwaitedShown<'a>,
    pid: &'a Pid,
    registered_time: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reregistered_time: Option<f64>,
    resources: Sums<&'a Resources>,
    used_resources: Sums<Resources>,
    offered_resources: Sums<&'a Resources>,
    reserved_resources: ReservedSums<&'a Resources>,
    unreserved_resources: Sums<Resources>,
    active: bool,
    deactivated: bool,
    version: &'static str,
    meseta_version: &'a str,
    capabilities: &'a [meseta_protocol::agent::AgentCapability],
}

impl<'a> AgentShown<'a> {
    pub(super) fn new(id: &'a AgentId, agent: &'a Agent) -> Self {
        Self {
            who: AwaitedShown {
                id,
                hostname: &agent.info.hostname,
                port: agent.info.port,
                attributes: Attributes(&agent.info.attributes),
                domain: agent.info.domain.as_ref(),
            },
            pid: &agent.pid,
            registered_time: seconds(agent.registered),
            reregistered_time: agent.reregistered.map(seconds),
            resources: Sums(&agent.total),
            used_resources: Sums(used_on(agent)),
            offered_resources: Sums(&agent.offered),
            reserved_resources: ReservedSums(&agent.total),
            unreserved_resources: Sums(agent.total.unreserved()),
            active: agent.connected,
            deactivated: false,
            version: Version::API,
            meseta_version: &agent.version,
            capabilities: &agent.capabilities,
        }
    }
}

/// A registered agent, by its id, with what was written of it before.
pub(super) struct AgentText<'a> {
    pub(super) id: &'a AgentId,
    pub(super) agent: &'a Arc<Agent>,
    pub(super) texts: &'a Texts,
}

impl Serialize for AgentText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { id, agent, texts } = self;
        let shown = || AgentShown::new(id, agent);
        texts.agents.write(agent, serializer, shown)
    }
}

/// All that is used on an agent.
pub(super) fn used_on(agent: &Agent) -> Resources {
    agent.used.values().sum()
}

/// What a framework uses, and what it is offered, on all agents.
pub(super) fn held_by(
    state: &State,
    id: &FrameworkId,
    framework: &Framework,
) -> (Resources, Resources) {
    let mut used = Resources::new();
    let mut agents: Vec<&AgentId> = framework.executors.keys().collect();
    agents.extend(framework.tasks.values().map(|task| &task.agent_id));
    agents.sort();
    agents.dedup();
    // What lingers is on agents that the framework need not have anything else on.
    let lingering = |(agent_id, agent): &(&'_ AgentId, &'_ Agent)| {
        !agent.lingering.is_empty() && agents.binary_search(agent_id).is_err()
    };
    let more: Vec<&AgentId> = state.agents().filter(lingering).map(|(id, _)| id).collect();
    for agent in agents
        .iter()
        .chain(&more)
        .filter_map(|agent| state.agent(agent))
    {
        if let Some(resources) = agent.used.get(id) {
            used += resources;
        }
    }
    let offers = framework.offers.iter().filter_map(|id| state.offer(id));
    (used, offers.map(|one| &one.offer.resources).sum())
}

/// What a framework is called and how it stands.
#[derive(serde::Serialize)]
pub(super) struct FrameworkSummary<'a> {
    pub(super) id: &'a FrameworkId,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<&'a Pid>,
    used_resources: Sums<Resources>,
    offered_resources: Sums<Resources>,
    capabilities: Vec<&'static str>,
    hostname: &'a str,
    webui_url: &'a str,
    active: bool,
    connected: bool,
    recovered: bool,
}

impl<'a> FrameworkSummary<'a> {
    /// `pid` is where its scheduler can be reached; none for one that has a stream.
    pub(super) fn new(
        state: &State,
        id: &'a FrameworkId,
        framework: &'a Framework,
        pid: Option<&'a Pid>,
    ) -> Self {
        let info = &framework.info;
        let (used, offered) = held_by(state, id, framework);
        Self {
            id,
            name: &info.name,
            pid,
            used_resources: Sums(used),
            offered_resources: Sums(offered),
            capabilities: info.capabilities.iter().map(|one| one.name()).collect(),
            hostname: info.hostname.as_deref().unwrap_or_default(),
            webui_url: info.webui_url.as_deref().unwrap_or_default(),
            active: framework.standing == Standing::Active,
            connected: framework.is_connected(),
            recovered: framework.standing == Standing::Recovered,
        }
    }
}

/// A framework with all that is its own.
pub(super) struct FrameworkShown<'a> {
    pub(super) state: &'a State,
    pub(super) summary: FrameworkSummary<'a>,
    pub(super) framework: &'a Framework,
    pub(super) texts: &'a Texts,
}

#[derive(serde::Serialize)]
struct FrameworkFields<'a, T: Serialize, U: Serialize, C: Serialize, O: Serialize, E: Serialize> {
    #[serde(flatten)]
    summary: &'a FrameworkSummary<'a>,
    user: &'a str,
    failover_timeout: f64,
    checkpoint: bool,
    registered_time: f64,
    unregistered_time: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reregistered_time: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<&'a str>,
    resources: Sums<Resources>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<&'a [Role]>,
    tasks: T,
    unreachable_tasks: U,
    completed_tasks: C,
    offers: O,
    executors: E,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a [Label]>,
    offer_constraints: Value,
}

impl Serialize for FrameworkShown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (framework, info) = (self.framework, &self.framework.info);
        let several = info.has(FrameworkCapability::MultiRole);
        let role = info.role.as_ref().map_or("*", Role::as_str);
        let texts = self.texts;
        let task = |task| TaskShown { task, texts };
        let offers = || {
            let all = framework.offers.iter();
            all.filter_map(|id| self.state.offer(id))
                .map(OfferShown::new)
        };
        let executors = || {
            let all = framework.executors.iter();
            all.flat_map(|(agent, all)| all.values().map(move |one| ExecutorShown::new(agent, one)))
        };
        let fields = FrameworkFields {
            summary: &self.summary,
            user: &info.user,
            failover_timeout: info.failover_timeout,
            checkpoint: info.checkpoint,
            registered_time: seconds(framework.registered),
            unregistered_time: framework.unregistered.map_or(0.0, seconds),
            reregistered_time: framework.reregistered.map(seconds),
            principal: info.principal.as_deref(),
            resources: Sums(&self.summary.used_resources.0 + &self.summary.offered_resources.0),
            role: (!several).then_some(role),
            roles: several.then_some(&info.roles),
            tasks: Each(|| framework.tasks.values().map(task)),
            unreachable_tasks: Each(|| framework.unreachable_tasks.iter().map(task)),
            completed_tasks: Each(|| framework.completed_tasks.iter().map(task)),
            offers: Each(offers),
            executors: Each(executors),
            labels: notes(info.labels.as_ref()),
            // Constraints of offers are not kept yet.
            offer_constraints: Value::Object(serde_json::Map::new()),
        };
        fields.serialize(serializer)
    }
}

fn notes(labels: Option<&Labels>) -> Option<&[Label]> {
    labels.map(|labels| &*labels.labels)
}

#[derive(serde::Serialize)]
struct AllocationShown<'a> {
    role: &'a Role,
}

/// An outstanding offer.
#[derive(serde::Serialize)]
struct OfferShown<'a> {
    id: &'a OfferId,
    framework_id: &'a FrameworkId,
    allocation_info: AllocationShown<'a>,
    slave_id: &'a AgentId,
    resources: Sums<&'a Resources>,
}

impl<'a> OfferShown<'a> {
    fn new(one: &'a Outstanding) -> Self {
        Self {
            id: &one.offer.id,
            framework_id: &one.offer.framework_id,
            allocation_info: AllocationShown { role: &one.role },
            slave_id: &one.offer.agent_id,
            resources: Sums(&one.offer.resources),
        }
    }
}

#[derive(serde::Serialize)]
struct UriShown<'a> {
    value: &'a str,
    executable: bool,
}

#[derive(serde::Serialize)]
struct CommandShown<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    shell: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    argv: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<&'a meseta_protocol::common::Environment>,
    uris: Vec<UriShown<'a>>,
}

impl<'a> CommandShown<'a> {
    fn new(command: &'a CommandInfo) -> Self {
        let uris = command.uris.iter().map(|uri| UriShown {
            value: &uri.value,
            executable: uri.executable,
        });
        Self {
            // Whether it was given as true is not known any more; then nothing is shown.
            shell: (!command.shell).then_some(false),
            value: command.value.as_deref(),
            argv: &command.arguments,
            environment: command.environment.as_ref(),
            uris: uris.collect(),
        }
    }
}

/// An executor on its agent.
#[derive(serde::Serialize)]
struct ExecutorShown<'a> {
    executor_id: &'a meseta_protocol::ExecutorId,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    framework_id: Option<&'a FrameworkId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<CommandShown<'a>>,
    resources: Sums<&'a Resources>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a [Label]>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    slave_id: &'a AgentId,
}

impl<'a> ExecutorShown<'a> {
    fn new(agent: &'a AgentId, info: &'a ExecutorInfo) -> Self {
        Self {
            executor_id: &info.executor_id,
            name: info.name.as_deref().unwrap_or_default(),
            framework_id: info.framework_id.as_ref(),
            command: info.command.as_ref().map(CommandShown::new),
            resources: Sums(&info.resources),
            role: role_of(&info.resources),
            labels: notes(info.labels.as_ref()),
            kind: info.kind.map(|kind| kind.name()),
            slave_id: agent,
        }
    }
}

/// The role that resources are allocated to.
fn role_of(resources: &Resources) -> Option<&Role> {
    resources
        .iter()
        .find_map(|resource| resource.allocation.as_ref())
}

/// A task.
pub(super) struct TaskShown<'a> {
    pub(super) task: &'a Arc<Task>,
    pub(super) texts: &'a Texts,
}

#[derive(serde::Serialize)]
struct TaskFields<'a, S: Serialize> {
    id: &'a TaskId,
    name: &'a str,
    framework_id: &'a FrameworkId,
    executor_id: &'a str,
    slave_id: &'a AgentId,
    state: TaskState,
    resources: Sums<&'a Resources>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<BTreeMap<&'a str, Scalar>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a Role>,
    statuses: S,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a [Label]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    discovery: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health_check: Option<Value>,
}

impl Serialize for TaskShown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let task = self.task;
        self.texts.tasks.write(task, serializer, || TaskFields {
            id: &task.task_id,
            name: &task.name,
            framework_id: &task.framework_id,
            executor_id: task.executor_id.as_ref().map_or("", |id| id.as_str()),
            slave_id: &task.agent_id,
            state: task.state,
            resources: Sums(&task.resources),
            limits: limits(&task.limits),
            role: role_of(&task.resources),
            statuses: Each(|| task.statuses.iter().map(StatusShown::new)),
            user: task.user.as_deref(),
            labels: notes(task.labels.as_ref()),
            discovery: shown(task.discovery.as_ref(), "mesos.v1.DiscoveryInfo"),
            container: shown(task.container.as_ref(), "mesos.v1.ContainerInfo"),
            health_check: shown(task.health_check.as_ref(), "mesos.v1.HealthCheck"),
        })
    }
}

fn limits(limits: &ResourceLimits) -> Option<BTreeMap<&str, Scalar>> {
    let all = limits.iter().map(|(name, limit)| (&**name, limit));
    (!limits.is_empty()).then(|| all.collect())
}

/// What few tasks have, in the published form of this message.
fn shown<T: Serialize>(part: Option<&T>, name: &str) -> Option<Value> {
    style::published(part?, name)
}

/// A status of a task, as far as the first API tells of it.
#[derive(serde::Serialize)]
struct StatusShown<'a> {
    state: TaskState,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a [Label]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_status: Option<ContainerShown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthy: Option<bool>,
}

#[derive(serde::Serialize)]
struct ContainerShown<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    container_id: Option<&'a ContainerId>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    network_infos: &'a [NetworkInfo],
}

impl<'a> StatusShown<'a> {
    fn new(status: &'a TaskStatus) -> Self {
        let container = |container: &'a ContainerStatus| ContainerShown {
            container_id: container.container_id.as_ref(),
            network_infos: &container.network_infos,
        };
        Self {
            state: status.state,
            timestamp: status.timestamp,
            labels: notes(status.labels.as_ref()),
            container_status: status.container_status.as_ref().map(container),
            healthy: status.healthy,
        }
    }
}

/// A registered agent with every single one of its resources.
#[derive(serde::Serialize)]
pub(super) struct AgentInFull<'a> {
    #[serde(flatten)]
    agent: AgentShown<'a>,
    reserved_resources_full: BTreeMap<Role, Vec<Value>>,
    unreserved_resources_full: Vec<Value>,
    used_resources_full: Vec<Value>,
    offered_resources_full: Vec<Value>,
}

impl<'a> AgentInFull<'a> {
    pub(super) fn new(id: &'a AgentId, agent: &'a Agent) -> Self {
        let reserved = agent.total.reservations().into_iter();
        let reserved = reserved.filter(|(role, _)| !role.is_star());
        Self {
            agent: AgentShown::new(id, agent),
            reserved_resources_full: reserved.map(|(role, all)| (role, in_full(&all))).collect(),
            unreserved_resources_full: in_full(&agent.total.unreserved()),
            used_resources_full: in_full(&used_on(agent)),
            offered_resources_full: in_full(&agent.offered),
        }
    }
}
