//! What the agent shows over HTTP: its state, its containers, its flags, files of sandboxes, and which of these will go.
//!
//! Answers are made in the agent's turn, from one consistent state. Those about files look at the disk in that turn;
//! they are bounded: at most 64 KiB are read and at most [`files::MAX_ENTRIES`] entries listed for one request.

pub mod files;
mod operator;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use meseta_api::style;
use meseta_protocol::common::{Label, Labels};
use meseta_protocol::framework::FrameworkCapability;
use meseta_protocol::resources::{ReservedSums, Resources, Sums};
use meseta_protocol::task::{Task, TaskInfo};
use meseta_protocol::{ExecutorId, FrameworkId, Role};
use meseta_runtime::http::{About, Need, Realm, Version};
use meseta_runtime::{Context, Request, Response, Routes};
use serde_json::{Map, Value, json};

use crate::agent::Agent;
use crate::executors::{Executor, Framework};
use crate::paths;

/// Realm of the API for executors.
pub(crate) const EXECUTOR: Realm = Realm::Own("executor");

/// Adds the agent's paths.
pub(crate) fn routes(routes: &mut Routes<Agent>) {
    const PATH: &[(&str, &str)] = &[(
        "path",
        "Of a sandbox, as /files/debug lists them, or below one",
    )];
    routes
        .get("/state", Agent::state)
        .about(About::read(
            "Everything: the agent itself, its frameworks, executors and tasks",
        ))
        .call("/api/v1", Agent::operator_api)
        .reading(operator::read)
        .about(About::call("Calls of operators").saying(
            "`type` says what is called: GET_HEALTH, GET_STATE, READ_FILE and others, as in Mesos.",
        ))
        .call_in(EXECUTOR, "/api/v1/executor", Agent::executor_api)
        .reading(crate::http_executors::read)
        .about(
            About::call("Calls of executors")
                .saying("SUBSCRIBE is answered with a stream of events, all other calls with 202."),
        )
        .open("/health", |_, _, _| Response::empty())
        .about(About::read("Whether the agent is up").gives(&[]))
        .get("/containers", Agent::containers)
        .about(About::read("Containers and what runs in them"))
        // Nothing measures containers yet.
        .get("/monitor/statistics", |_, _, _| Response::json(&json!([])))
        .about(About::read("What containers use: nothing measures it yet"))
        .get("/flags", Agent::flags)
        .about(About::read("Flags of the program"))
        .get("/gc", Agent::show_collection)
        .about(About::read("Which sandboxes will be removed, and when"))
        .get("/files/browse", Agent::browse)
        .about(About::read("A directory of a sandbox").with(PATH))
        .get("/files/read", Agent::read)
        .about(About::read("Part of a file of a sandbox").with(&[
            ("path", "Of the file"),
            (
                "offset",
                "Where to begin; none or -1 for the length of the file",
            ),
            ("length", "How many bytes, at most 65536"),
        ]))
        .get("/files/download", Agent::download)
        .about(
            About::read("A file of a sandbox")
                .with(PATH)
                .gives(&["application/octet-stream"]),
        )
        .get("/files/debug", Agent::attachments)
        .about(About::read("Under which virtual paths sandboxes are shown"));
}

/// What few tasks have, in the published form of this message.
fn published<T: serde::Serialize>(part: Option<&T>, name: &str) -> Option<Value> {
    style::published(part?, name)
}

fn notes(labels: Option<&Labels>) -> Option<&[Label]> {
    labels.map(|labels| &*labels.labels)
}

fn task_json(task: &Task) -> Value {
    let role = task
        .resources
        .iter()
        .find_map(|resource| resource.allocation.clone());
    json!({
        "id": task.task_id,
        "role": role,
        "name": task.name,
        "framework_id": task.framework_id,
        "executor_id": task.executor_id.as_ref().map_or("", ExecutorId::as_str),
        "slave_id": task.agent_id,
        "state": task.state,
        "resources": Sums(&task.resources),
        "statuses": task.statuses.iter().map(|status| json!({
            "state": status.state,
            "timestamp": status.timestamp,
            "message": status.message,
            "container_status": status.container_status,
            "labels": notes(status.labels.as_ref()),
            "healthy": status.healthy,
        })).collect::<Vec<_>>(),
        "user": task.user,
        "labels": notes(task.labels.as_ref()),
        "discovery": published(task.discovery.as_ref(), "mesos.v1.DiscoveryInfo"),
        "container": published(task.container.as_ref(), "mesos.v1.ContainerInfo"),
        "health_check": published(task.health_check.as_ref(), "mesos.v1.HealthCheck"),
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
        "resources": Sums(&executor.resources()),
        "role": role,
        "labels": notes(executor.info.labels.as_ref()),
        "type": executor.info.kind.map(|kind| kind.name()),
        "tasks": executor.launched.values().map(task_json).collect::<Vec<_>>(),
        "queued_tasks": executor.queued.iter().map(queued_json).collect::<Vec<_>>(),
        "completed_tasks": over.map(task_json).collect::<Vec<_>>(),
    })
}

/// Of a framework in one role the role, of one that may be in several these, as both have it.
fn framework_json(id: &FrameworkId, framework: &Framework) -> Value {
    let info = &framework.info;
    let several = info.has(FrameworkCapability::MultiRole);
    let role = || info.role.clone().unwrap_or_else(Role::star);
    json!({
        "id": id,
        "name": framework.info.name,
        "user": framework.info.user,
        "failover_timeout": framework.info.failover_timeout,
        "checkpoint": framework.info.checkpoint,
        "hostname": framework.info.hostname.as_deref().unwrap_or_default(),
        "principal": framework.info.principal,
        "role": (!several).then(role),
        "roles": several.then_some(&info.roles),
        "executors": framework.executors.values().map(executor_json).collect::<Vec<_>>(),
        "completed_executors": framework.completed_executors.iter().map(executor_json).collect::<Vec<_>>(),
    })
}

impl Agent {
    fn state(&mut self, cx: &mut Context<'_, Self>, _: &Request) -> Response {
        if self.is_recovering() {
            return Response::text(503, "Agent has not finished recovery");
        }
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
        let full = |resources: &Resources| style::in_full(resources);
        let reserved = resources.reservations().into_iter();
        let reserved = reserved.filter(|(role, _)| !role.is_star());
        let reserved: BTreeMap<_, _> = reserved.map(|(role, all)| (role, full(&all))).collect();
        let version = Version::of_program();
        Response::json(&without_nulls(json!({
            "version": version.version,
            "meseta_version": version.meseta_version,
            "build_date": version.build_date,
            "build_time": version.build_time,
            "build_user": version.build_user,
            "git_sha": version.git_sha,
            "reserved_resources_full": reserved,
            "unreserved_resources_full": full(&resources.unreserved()),
            "resource_providers": [],
            "start_time": self.started.as_secs_f64(),
            "id": self.id(),
            "pid": cx.me(),
            "hostname": self.info.hostname,
            "domain": self.info.domain,
            "capabilities": Self::capabilities(),
            "resources": Sums(resources),
            "reserved_resources": ReservedSums(resources),
            "unreserved_resources": Sums(&resources.unreserved()),
            "reserved_resources_allocated": ReservedSums(&held),
            "unreserved_resources_allocated": Sums(&held.unreserved()),
            "attributes": attributes,
            "master_hostname": self.master.as_ref().map(|master| &*master.address().host),
            "flags": self.config.flags,
            "frameworks": frameworks.map(|(id, framework)| framework_json(id, framework)).collect::<Vec<_>>(),
            "completed_frameworks": completed.map(|(id, framework)| framework_json(id, framework)).collect::<Vec<_>>(),
        })))
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
                let text =
                    format!("Failed to parse {name}: Failed to convert '{text}' to number.\n");
                return Response::text(400, text);
            }
        }
        let value = |name: &str| number(name).and_then(|(_, value)| value.ok());
        let (offset, length) = (value("offset"), value("length"));
        self.with_file(request, |root, rest, _| {
            files::read(root, rest, offset, length)
        })
    }

    fn download(&mut self, _: &mut Context<'_, Self>, request: &Request) -> Response {
        let answer = self.answer_about_file(request, |root, rest, shown| {
            let bytes = files::download(root, rest)?;
            let name = shown.file_name().unwrap_or_default().to_string_lossy();
            let name = format!("attachment; filename={name}");
            let answer = Response::body("application/octet-stream", bytes);
            Ok(answer.with_header("content-disposition", name))
        });
        if answer.status == 404 {
            return Response::text(404, "404 Not Found.");
        }
        answer
    }

    /// Every path under which a sandbox can be asked for, and where it is.
    fn attachments(&mut self, _: &mut Context<'_, Self>, request: &Request) -> Response {
        if let Err(denied) = request.caller.may(Need::Sandbox) {
            return denied.into();
        }
        let mut all = BTreeMap::new();
        for (framework_id, executor) in self.sandboxes() {
            for name in names_of(framework_id, executor) {
                all.insert(name.display().to_string(), &executor.directory);
            }
        }
        Response::serialized(&all)
    }

    fn with_file(
        &self,
        request: &Request,
        answer: impl FnOnce(&Path, &Path, &Path) -> Result<Value, files::FileError>,
    ) -> Response {
        self.answer_about_file(request, |root, rest, shown| {
            Ok(Response::json(&answer(root, rest, shown)?))
        })
    }

    fn answer_about_file(
        &self,
        request: &Request,
        answer: impl FnOnce(&Path, &Path, &Path) -> Result<Response, files::FileError>,
    ) -> Response {
        if let Err(denied) = request.caller.may(Need::Sandbox) {
            return denied.into();
        }
        let Some(path) = request.query.get("path").filter(|path| !path.is_empty()) else {
            return Response::text(400, "Expecting 'path=value' in query.\n");
        };
        let path = Path::new(path);
        let Some((root, rest)) = self.attached(path) else {
            return Response::text(404, "");
        };
        answer(&root, &rest, path)
            .unwrap_or_else(|error| Response::text(error.status(), error.text(path)))
    }

    /// Every executor that has a sandbox, with its framework; of several runs of one the newest comes last.
    fn sandboxes(&self) -> impl Iterator<Item = (&FrameworkId, &Executor)> {
        let living = self.tables.frameworks.iter();
        let over = self.tables.completed_frameworks.iter();
        let over = over.map(|(id, framework)| (id, framework));
        living.chain(over).flat_map(|(id, framework)| {
            let executors = framework
                .completed_executors
                .iter()
                .chain(framework.superseded.values())
                .chain(framework.executors.values());
            executors.map(move |executor| (id, executor))
        })
    }

    /// The sandbox a path shown to people lies in, and the rest of the path.
    fn attached(&self, path: &Path) -> Option<(PathBuf, PathBuf)> {
        // The newest run comes last and is what `latest` means.
        let runs: Vec<_> = self.sandboxes().collect();
        for (framework_id, executor) in runs.into_iter().rev() {
            for name in names_of(framework_id, executor) {
                if let Ok(rest) = path.strip_prefix(name) {
                    return Some((executor.directory.clone(), rest.to_owned()));
                }
            }
        }
        None
    }
}

/// The paths under which a sandbox can be asked for.
fn names_of(framework_id: &FrameworkId, executor: &Executor) -> [PathBuf; 3] {
    [
        executor.directory.clone(),
        executor.directory.with_file_name(paths::LATEST),
        paths::virtual_latest(framework_id, &executor.info.executor_id),
    ]
}

/// The same without what is not known: Mesos leaves that out.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, without_nulls(value)))
            .collect(),
        Value::Array(all) => all.into_iter().map(without_nulls).collect(),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => other,
    }
}

#[cfg(test)]
mod tests {
    use meseta_protocol::ContainerId;
    use meseta_protocol::common::CommandInfo;
    use meseta_protocol::container::ContainerInfo;
    use meseta_protocol::executor::ExecutorInfo;
    use meseta_protocol::framework::{FrameworkCapabilities, FrameworkInfo};
    use meseta_protocol::status::{TaskState, TaskStatus};
    use meseta_protocol::task::{DiscoveryInfo, HealthCheck};

    use super::*;

    #[test]
    fn a_task_is_shown_with_what_it_was_launched_with_and_what_its_statuses_say() {
        let mut info = TaskInfo::new("t", "S0", "cpus:1".parse().unwrap(), "true");
        let plain = without_nulls(task_json(&Task::new(&info, &"f".into(), "nobody")));
        for field in ["discovery", "container", "health_check", "labels"] {
            assert!(plain.get(field).is_none(), "{plain}");
        }
        info.discovery = Some(DiscoveryInfo {
            name: Some("found".to_owned()),
            ..DiscoveryInfo::default()
        });
        info.container = Some(ContainerInfo::mesos());
        info.health_check = Some(HealthCheck {
            command: Some(CommandInfo::shell("true")),
            ..HealthCheck::default()
        });
        let mut task = Task::new(&info, &"f".into(), "nobody");
        let mut status = TaskStatus::new("t", TaskState::Running);
        status.healthy = Some(false);
        status.labels = Some(Labels::of([("a", "b")]));
        task.statuses.push(status);
        let shown = without_nulls(task_json(&task));
        assert_eq!(shown["discovery"]["name"], "found");
        assert_eq!(shown["container"]["type"], "MESOS");
        assert_eq!(shown["health_check"]["command"]["value"], "true");
        assert_eq!(shown["user"], "nobody");
        let status = &shown["statuses"][0];
        assert_eq!(status["healthy"], false);
        assert_eq!(status["labels"], json!([{"key": "a", "value": "b"}]));
    }

    #[test]
    fn an_executor_is_shown_with_its_type_if_it_names_one() {
        let of = |info: ExecutorInfo| {
            let container = ContainerId {
                value: "c".into(),
                parent: None,
            };
            let executor = Executor::new(info, false, container, PathBuf::from("/s"));
            without_nulls(executor_json(&executor))
        };
        let custom = ExecutorInfo::custom("e", CommandInfo::shell("true"));
        assert_eq!(of(custom)["type"], "CUSTOM");
        assert!(of(ExecutorInfo::default()).get("type").is_none());
    }

    #[test]
    fn a_framework_is_shown_with_its_role_or_with_all_of_them() {
        let of = |info| without_nulls(framework_json(&"f".into(), &Framework::new(info)));
        let mut info = FrameworkInfo::new("nobody", "test");
        info.capabilities = FrameworkCapabilities::default();
        info.role = Some(Role::new("r1"));
        let shown = of(info.clone());
        assert_eq!((&shown["role"], shown.get("roles")), (&json!("r1"), None));
        info.role = None;
        assert_eq!(of(info.clone())["role"], "*");
        info.capabilities = FrameworkCapabilities::of([FrameworkCapability::MultiRole]);
        info.roles = vec![Role::new("r2"), Role::new("r1")];
        let shown = of(info);
        assert_eq!(
            (shown.get("role"), &shown["roles"]),
            (None, &json!(["r2", "r1"]))
        );
    }
}
