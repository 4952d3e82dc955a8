//! What the master shows over HTTP: `/state`, `/slaves`, `/frameworks`, `/tasks`, `/flags`, under its id and, as
//! the node's delegate, without it. A master that does not lead sends whoever asks about the cluster to the leader. Names and shapes are those of Mesos' first API. Source: http.md §6.

use meseta_protocol::attributes::{Attribute, AttributeValue};
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::resources::{Resources, Value as ResourceValue};
use meseta_protocol::task::Task;
use meseta_protocol::{AgentId, FrameworkId};
use meseta_runtime::{Context, Request, Response, Routes};
use serde_json::{Map, Value, json};

use crate::master::Master;
use crate::state::{Agent, Framework, Standing};

/// Paths below the master's id.
pub(crate) fn routes(routes: &mut Routes<Master>) {
    routes
        .get("/state", |me, cx, request| {
            me.as_leader(cx, request, Master::show_state)
        })
        .get("/slaves", |me, cx, request| {
            me.as_leader(cx, request, Master::show_slaves)
        })
        .get("/frameworks", |me, cx, request| {
            me.as_leader(cx, request, Master::show_frameworks)
        })
        .get("/tasks", |me, cx, request| {
            me.as_leader(cx, request, Master::show_tasks)
        })
        .get("/redirect", |me, _, _| me.redirect(""))
        .get("/flags", Master::show_flags)
        .get("/health", |_, _, _| Response::empty());
}

/// Tasks that `/tasks` shows when no limit is given.
const DEFAULT_TASKS: usize = 100;

impl Master {
    fn show_state(&mut self, cx: &mut Context<'_, Self>, _: &Request) -> Response {
        let connected = self
            .state
            .agents()
            .filter(|(_, agent)| agent.connected)
            .count();
        let agents: Vec<Value> = self
            .state
            .agents()
            .map(|(id, agent)| slave(id, agent))
            .collect();
        Response::json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "id": self.info.id,
            "pid": self.info.pid,
            "hostname": self.info.hostname,
            "start_time": self.started.as_secs_f64(),
            "elected_time": self.leadership.map(|leadership| leadership.since.as_secs_f64()),
            "leader": cx.me(),
            "leader_info": {
                "id": self.info.id, "pid": self.info.pid, "port": self.info.port, "hostname": self.info.hostname,
            },
            "leader_epoch": self.epoch(),
            "capabilities": self.info.capabilities,
            "activated_slaves": connected,
            "deactivated_slaves": agents.len() - connected,
            "unreachable_slaves": self.unreachable.len(),
            "flags": self.config.flags,
            "slaves": agents,
            "recovered_slaves": self.awaited_json(None),
            "frameworks": self.live(),
            "completed_frameworks": self.completed(),
            "orphan_tasks": [],
            "unregistered_frameworks": [],
        }))
    }

    fn show_slaves(&mut self, _: &mut Context<'_, Self>, request: &Request) -> Response {
        let wanted = request.query.get("slave_id");
        let slaves: Vec<Value> = self
            .state
            .agents()
            .filter(|(id, _)| wanted.is_none_or(|wanted| id.as_str() == wanted))
            .map(|(id, agent)| slave(id, agent))
            .collect();
        let wanted = wanted.map(String::as_str);
        Response::json(&json!({ "slaves": slaves, "recovered_slaves": self.awaited_json(wanted) }))
    }

    /// Agents that are awaited after a fail-over, or the one that is wanted.
    fn awaited_json(&self, wanted: Option<&str>) -> Vec<Value> {
        let awaited = self.awaited.iter();
        awaited
            .filter(|(id, _)| wanted.is_none_or(|wanted| id.as_str() == wanted))
            .map(|(id, info)| {
                let mut shown = json!({
                    "id": id,
                    "hostname": info.hostname,
                    "port": info.port,
                    "attributes": attributes_json(&info.attributes),
                });
                if let Some(domain) = &info.domain {
                    shown["domain"] = json!(domain);
                }
                shown
            })
            .collect()
    }

    fn show_frameworks(&mut self, _: &mut Context<'_, Self>, request: &Request) -> Response {
        let wanted = request.query.get("framework_id");
        let keep = |value: &Value| wanted.is_none_or(|wanted| value["id"] == wanted.as_str());
        let live: Vec<Value> = self.live().into_iter().filter(keep).collect();
        let completed: Vec<Value> = self.completed().into_iter().filter(keep).collect();
        Response::json(&json!({
            "frameworks": live, "completed_frameworks": completed, "unregistered_frameworks": [],
        }))
    }

    fn show_tasks(&mut self, _: &mut Context<'_, Self>, request: &Request) -> Response {
        let number = |name: &str, default| {
            let given = request.query.get(name);
            given.and_then(|text| text.parse().ok()).unwrap_or(default)
        };
        let (framework, task) = (
            request.query.get("framework_id"),
            request.query.get("task_id"),
        );
        let mut all: Vec<&Task> = self
            .state
            .frameworks()
            .map(|(_, framework)| framework)
            .chain(self.state.completed_frameworks())
            .flat_map(|f| {
                f.tasks
                    .values()
                    .chain(&f.unreachable_tasks)
                    .chain(&f.completed_tasks)
            })
            .filter(|one| framework.is_none_or(|id| one.framework_id.as_str() == id))
            .filter(|one| task.is_none_or(|id| one.task_id.as_str() == id))
            .collect();
        let first = |task: &Task| task.statuses.first().and_then(|status| status.timestamp);
        all.sort_by(|a, b| {
            first(a)
                .partial_cmp(&first(b))
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        if request
            .query
            .get("order")
            .is_none_or(|order| order != "asc")
        {
            all.reverse();
        }
        let tasks: Vec<Value> = all
            .into_iter()
            .skip(number("offset", 0))
            .take(number("limit", DEFAULT_TASKS))
            .map(task_json)
            .collect();
        Response::json(&json!({ "tasks": tasks }))
    }

    fn show_flags(&mut self, _: &mut Context<'_, Self>, _: &Request) -> Response {
        Response::json(&json!({ "flags": self.config.flags }))
    }

    fn live(&self) -> Vec<Value> {
        let live = self.state.frameworks();
        live.map(|(id, framework)| self.framework_json(id, framework))
            .collect()
    }

    fn completed(&self) -> Vec<Value> {
        self.state
            .completed_frameworks()
            .filter_map(|framework| {
                Some(self.framework_json(framework.info.id.as_ref()?, framework))
            })
            .collect()
    }

    fn framework_json(&self, id: &FrameworkId, framework: &Framework) -> Value {
        let mut used = Resources::new();
        for (_, agent) in self.state.agents() {
            if let Some(resources) = agent.used.get(id) {
                used += resources;
            }
        }
        let mut offered = Resources::new();
        let mut offers = Vec::new();
        for outstanding in framework
            .offers
            .iter()
            .filter_map(|id| self.state.offer(id))
        {
            offered += &outstanding.offer.resources;
            offers.push(json!({
                "id": outstanding.offer.id, "framework_id": id, "slave_id": outstanding.offer.agent_id,
                "allocation_info": { "role": outstanding.role },
                "resources": resources_json(&outstanding.offer.resources),
            }));
        }
        let executors: Vec<Value> = framework
            .executors
            .iter()
            .flat_map(|(agent, all)| all.values().map(move |one| executor_json(agent, one)))
            .collect();
        let tasks =
            |list: &mut dyn Iterator<Item = &Task>| -> Vec<Value> { list.map(task_json).collect() };
        let info = &framework.info;
        let mut shown = json!({
            "id": id,
            "name": info.name,
            "pid": framework.pid,
            "used_resources": resources_json(&used),
            "offered_resources": resources_json(&offered),
            "resources": resources_json(&(&used + &offered)),
            "capabilities": info.capabilities.iter().map(|one| one.name()).collect::<Vec<_>>(),
            "hostname": info.hostname.clone().unwrap_or_default(),
            "webui_url": info.webui_url.clone().unwrap_or_default(),
            "active": framework.standing == Standing::Active,
            "connected": framework.is_connected(),
            "recovered": framework.standing == Standing::Recovered,
            "user": info.user,
            "failover_timeout": info.failover_timeout,
            "checkpoint": info.checkpoint,
            "registered_time": framework.registered.as_secs_f64(),
            "unregistered_time": 0.0,
            "tasks": tasks(&mut framework.tasks.values()),
            "unreachable_tasks": tasks(&mut framework.unreachable_tasks.iter()),
            "completed_tasks": tasks(&mut framework.completed_tasks.iter()),
            "offers": offers,
            "executors": executors,
            "offer_constraints": {},
        });
        if info.has(meseta_protocol::framework::FrameworkCapability::MultiRole) {
            shown["roles"] = json!(info.roles);
        } else {
            shown["role"] = json!(
                info.role
                    .clone()
                    .unwrap_or_else(meseta_protocol::Role::star)
            );
        }
        if let Some(at) = framework.reregistered {
            shown["reregistered_time"] = json!(at.as_secs_f64());
        }
        if let Some(principal) = &info.principal {
            shown["principal"] = json!(principal);
        }
        shown
    }
}

fn slave(id: &AgentId, agent: &Agent) -> Value {
    let mut used = Resources::new();
    for resources in agent.used.values() {
        used += resources;
    }
    let reserved: Map<String, Value> = agent
        .total
        .reservations()
        .into_iter()
        .filter(|(role, _)| !role.is_star())
        .map(|(role, resources)| (role.to_string(), resources_json(&resources)))
        .collect();
    let mut shown = json!({
        "id": id,
        "hostname": agent.info.hostname,
        "port": agent.info.port,
        "pid": agent.pid,
        "attributes": attributes_json(&agent.info.attributes),
        "registered_time": agent.registered.as_secs_f64(),
        "resources": resources_json(&agent.total),
        "used_resources": resources_json(&used),
        "offered_resources": resources_json(&agent.offered),
        "reserved_resources": reserved,
        "unreserved_resources": resources_json(&agent.total.unreserved()),
        "active": agent.connected,
        "deactivated": false,
        "version": agent.version,
        "capabilities": agent.capabilities,
    });
    if let Some(at) = agent.reregistered {
        shown["reregistered_time"] = json!(at.as_secs_f64());
    }
    if let Some(domain) = &agent.info.domain {
        shown["domain"] = json!(domain);
    }
    shown
}

fn executor_json(agent: &AgentId, executor: &ExecutorInfo) -> Value {
    json!({
        "executor_id": executor.executor_id,
        "name": executor.name.clone().unwrap_or_default(),
        "framework_id": executor.framework_id,
        "command": executor.command,
        "resources": resources_json(&executor.resources),
        "slave_id": agent,
    })
}

fn task_json(task: &Task) -> Value {
    let statuses: Vec<Value> = task
        .statuses
        .iter()
        .map(|status| {
            let mut shown = json!({ "state": status.state, "timestamp": status.timestamp });
            if let Some(healthy) = status.healthy {
                shown["healthy"] = json!(healthy);
            }
            if let Some(container) = &status.container_status {
                shown["container_status"] = json!(container);
            }
            shown
        })
        .collect();
    let role = task
        .resources
        .iter()
        .find_map(|resource| resource.allocation.clone());
    json!({
        "id": task.task_id,
        "name": task.name,
        "framework_id": task.framework_id,
        "executor_id": task.executor_id.as_ref().map(|id| id.as_str()).unwrap_or_default(),
        "slave_id": task.agent_id,
        "state": task.state,
        "resources": resources_json(&task.resources),
        "role": role,
        "user": task.user,
        "statuses": statuses,
    })
}

fn attributes_json(attributes: &[Attribute]) -> Value {
    let mut shown = Map::new();
    for attribute in attributes {
        let value = match &attribute.value {
            AttributeValue::Scalar(amount) => json!(amount.as_f64()),
            other @ (AttributeValue::Ranges(_)
            | AttributeValue::Text(_)
            | AttributeValue::Unknown) => json!(other.to_string()),
        };
        shown.entry(attribute.name.clone()).or_insert(value);
    }
    Value::Object(shown)
}

/// Sums by name: scalars as numbers, ranges and sets as text; the four common ones are always there.
pub(crate) fn resources_json(resources: &Resources) -> Value {
    let mut shown: Map<String, Value> = ["cpus", "gpus", "mem", "disk"]
        .map(|name| (name.to_owned(), json!(0.0)))
        .into_iter()
        .collect();
    for name in resources.names() {
        let value = resources
            .amount(&name)
            .map(|amount| json!(amount.as_f64()))
            .or_else(|| {
                resources
                    .ranges(&name)
                    .map(|ranges| json!(ResourceValue::Ranges(ranges).to_string()))
            })
            .or_else(|| {
                resources
                    .set(&name)
                    .map(|set| json!(ResourceValue::Set(set).to_string()))
            });
        if let Some(value) = value {
            shown.insert(name.to_string(), value);
        }
    }
    Value::Object(shown)
}
