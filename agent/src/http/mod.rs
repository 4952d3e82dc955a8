//! What the agent shows over HTTP: its state, its containers, its flags, and files of sandboxes.
//!
//! Answers are made in the agent's turn, from one consistent state. Those about files look at the disk in that turn;
//! they are bounded: at most 64 KiB are read and at most [`files::MAX_ENTRIES`] entries listed for one request.

pub mod files;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use meseta_protocol::resources::Resources;
use meseta_protocol::task::{Task, TaskInfo};
use meseta_protocol::{ExecutorId, FrameworkId};
use meseta_runtime::{Context, Request, Response, Routes};
use serde_json::{Map, Value, json};

use crate::agent::Agent;
use crate::executors::{Executor, Framework};
use crate::paths;

/// Adds the agent's paths.
pub(crate) fn routes(routes: &mut Routes<Agent>) {
    routes
        .get("/state", Agent::state)
        .get("/containers", Agent::containers)
        .get("/flags", Agent::flags)
        .get("/files/browse", Agent::browse)
        .get("/files/read", Agent::read);
}

/// Resources as an object of names to amounts, as monitoring reads them.
fn amounts(resources: &Resources) -> Value {
    let mut all = Map::new();
    for name in ["cpus", "gpus", "mem", "disk"] {
        let amount = resources.amount(name).map_or(0.0, |amount| amount.as_f64());
        all.insert(name.to_owned(), json!(amount));
    }
    for name in resources.names() {
        if let Some(ranges) = resources.ranges(&name) {
            all.insert(name.to_string(), json!(ranges.to_string()));
        } else if let Some(set) = resources.set(&name) {
            all.insert(name.to_string(), json!(set.to_string()));
        } else if let Some(amount) = resources.amount(&name) {
            all.insert(name.to_string(), json!(amount.as_f64()));
        }
    }
    Value::Object(all)
}

fn reserved(resources: &Resources) -> Map<String, Value> {
    let mut by_role: BTreeMap<String, Resources> = BTreeMap::new();
    for resource in resources.iter() {
        if let Some(role) = resource.reservation_role() {
            *by_role.entry(role.to_string()).or_default() += resource;
        }
    }
    by_role
        .into_iter()
        .map(|(role, resources)| (role, amounts(&resources)))
        .collect()
}

fn task_json(task: &Task) -> Value {
    json!({
        "id": task.task_id,
        "name": task.name,
        "framework_id": task.framework_id,
        "executor_id": task.executor_id.as_ref().map_or("", ExecutorId::as_str),
        "slave_id": task.agent_id,
        "state": task.state,
        "resources": amounts(&task.resources),
        "statuses": task.statuses.iter().map(|status| json!({
            "state": status.state,
            "timestamp": status.timestamp,
            "message": status.message,
            "container_status": status.container_status,
        })).collect::<Vec<_>>(),
        "labels": task.labels.as_ref().map(|labels| &labels.labels),
    })
}

fn queued_json(task: &TaskInfo) -> Value {
    serde_json::to_value(task).unwrap_or(Value::Null)
}

fn executor_json(executor: &Executor) -> Value {
    let role = executor
        .info
        .resources
        .iter()
        .find_map(|resource| resource.allocation.clone());
    let over = executor
        .completed
        .iter()
        .chain(executor.terminated.values());
    json!({
        "id": executor.info.executor_id,
        "name": executor.info.name.as_deref().unwrap_or_default(),
        "source": executor.info.source.as_deref().unwrap_or_default(),
        "container": executor.container_id.value,
        "directory": executor.directory,
        "resources": amounts(&executor.resources()),
        "role": role,
        "tasks": executor.launched.values().map(task_json).collect::<Vec<_>>(),
        "queued_tasks": executor.queued.iter().map(queued_json).collect::<Vec<_>>(),
        "completed_tasks": over.map(task_json).collect::<Vec<_>>(),
    })
}

fn framework_json(id: &FrameworkId, framework: &Framework) -> Value {
    json!({
        "id": id,
        "name": framework.info.name,
        "user": framework.info.user,
        "failover_timeout": framework.info.failover_timeout,
        "checkpoint": framework.info.checkpoint,
        "hostname": framework.info.hostname.as_deref().unwrap_or_default(),
        "principal": framework.info.principal,
        "roles": framework.info.effective_roles(),
        "executors": framework.executors.values().map(executor_json).collect::<Vec<_>>(),
        "completed_executors": framework.completed_executors.iter().map(executor_json).collect::<Vec<_>>(),
    })
}

impl Agent {
    fn state(&mut self, cx: &mut Context<'_, Self>, _: &Request) -> Response {
        let resources = &self.info.resources;
        let held = self.tables.resources();
        let attributes: Map<String, Value> = self
            .info
            .attributes
            .iter()
            .map(|attribute| (attribute.name.clone(), json!(attribute.value.to_string())))
            .collect();
        let frameworks = self.tables.frameworks.iter();
        let completed = self.tables.completed_frameworks.iter();
        Response::json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "start_time": self.started.as_secs_f64(),
            "id": self.id(),
            "pid": cx.me(),
            "hostname": self.info.hostname,
            "domain": self.info.domain,
            "capabilities": Self::capabilities(),
            "resources": amounts(resources),
            "reserved_resources": reserved(resources),
            "unreserved_resources": amounts(&resources.unreserved()),
            "reserved_resources_allocated": reserved(&held),
            "unreserved_resources_allocated": amounts(&held.unreserved()),
            "attributes": attributes,
            "master_hostname": self.master.as_ref().map(|master| &*master.address().host),
            "flags": self.config.flags,
            "frameworks": frameworks.map(|(id, framework)| framework_json(id, framework)).collect::<Vec<_>>(),
            "completed_frameworks": completed.map(|(id, framework)| framework_json(id, framework)).collect::<Vec<_>>(),
        }))
    }

    fn containers(&mut self, _: &mut Context<'_, Self>, request: &Request) -> Response {
        let wanted = request.query.get("container_id");
        let all = self.tables.executors();
        let shown: Vec<Value> = all
            .filter(|(_, _, executor)| wanted.is_none_or(|id| *id == executor.container_id.value))
            .filter(|(_, _, executor)| !executor.container.is_gone())
            .map(|(framework_id, executor_id, executor)| {
                json!({
                    "framework_id": framework_id,
                    "executor_id": executor_id,
                    "executor_name": executor.info.name.as_deref().unwrap_or_default(),
                    "source": executor.info.source.as_deref().unwrap_or_default(),
                    "container_id": executor.container_id.value,
                    "status": {
                        "container_id": executor.container_id,
                        "executor_pid": executor.container.process(),
                    },
                })
            })
            .collect();
        Response::json(&Value::Array(shown))
    }

    fn flags(&mut self, _: &mut Context<'_, Self>, _: &Request) -> Response {
        Response::json(&json!({ "flags": self.config.flags }))
    }

    fn browse(&mut self, _: &mut Context<'_, Self>, request: &Request) -> Response {
        self.with_file(request, files::browse)
    }

    fn read(&mut self, _: &mut Context<'_, Self>, request: &Request) -> Response {
        let number = |name: &str| {
            request
                .query
                .get(name)
                .map(|text| (text, text.parse::<i64>()))
        };
        for name in ["offset", "length"] {
            if let Some((text, Err(_))) = number(name) {
                return Response::text(400, format!("Failed to parse {name}: '{text}'."));
            }
        }
        let value = |name: &str| number(name).and_then(|(_, value)| value.ok());
        let (offset, length) = (value("offset"), value("length"));
        self.with_file(request, |root, rest, _| {
            files::read(root, rest, offset, length)
        })
    }

    fn with_file(
        &self,
        request: &Request,
        answer: impl FnOnce(&Path, &Path, &Path) -> Result<Value, files::FileError>,
    ) -> Response {
        if !self.config.allow_file_reading {
            return Response::text(403, "Sandboxes are not shown here: see --insecure_http.");
        }
        let Some(path) = request.query.get("path") else {
            return Response::text(400, "Expecting 'path=value' in query.");
        };
        let path = Path::new(path);
        let Some((root, rest)) = self.attached(path) else {
            return Response::text(404, "");
        };
        match answer(&root, &rest, path) {
            Ok(value) => Response::json(&value),
            Err(error) => Response::text(error.status(), error.text(path)),
        }
    }

    /// The sandbox a path shown to people lies in, and the rest of the path.
    fn attached(&self, path: &Path) -> Option<(PathBuf, PathBuf)> {
        let living = self.tables.frameworks.iter();
        let over = self
            .tables
            .completed_frameworks
            .iter()
            .map(|(id, framework)| (id, framework));
        for (framework_id, framework) in living.chain(over) {
            let executors = framework
                .completed_executors
                .iter()
                .chain(framework.superseded.values())
                .chain(framework.executors.values());
            // The newest run comes last and is what `latest` means.
            let runs: Vec<&Executor> = executors.collect();
            for executor in runs.into_iter().rev() {
                let latest = executor.directory.with_file_name(paths::LATEST);
                let short = paths::virtual_latest(framework_id, &executor.info.executor_id);
                for name in [&executor.directory, &latest, &short] {
                    if let Ok(rest) = path.strip_prefix(name) {
                        return Some((executor.directory.clone(), rest.to_owned()));
                    }
                }
            }
        }
        None
    }
}
