//! `POST /api/v1`: what operators and their tools ask of an agent. Source: http.md §5.2.
//!
//! Answers are made in the agent's turn, from one consistent state.

use std::path::Path;

use meseta_api::negotiation::Format;
use meseta_api::operator::{Api, Call, of_fields};
use meseta_api::schema::message;
use meseta_api::{Mismatch, Refusal, Tree, to_tree};
use meseta_protocol::agent::AgentInfo;
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::ids::ContainerId;
use meseta_protocol::task::Task;
use meseta_protocol::{ExecutorId, FrameworkId};
use meseta_runtime::http::{Need, ReadCall, Version};
use meseta_runtime::logging;
use meseta_runtime::{Context, Request, Response};
use serde::Serialize;
use tracing::{error, info};

use super::files;
use crate::agent::Agent;
use crate::executors::Executor;

const API: Api = Api::Agent;

type Built = Result<Tree, Mismatch>;

/// An answer that the schema does not allow is a mistake of this program.
fn unshown(why: Mismatch) -> Refusal {
    error!(%why, "an answer cannot be shown");
    Refusal::new(500, why.to_string())
}

fn not_implemented() -> Refusal {
    Refusal::new(501, "501 Not Implemented.")
}

#[derive(Serialize)]
struct FrameworkPart<'a> {
    framework_info: &'a FrameworkInfo,
}

#[derive(Serialize)]
struct ExecutorPart<'a> {
    executor_info: &'a ExecutorInfo,
}

#[derive(Serialize)]
struct AgentPart<'a> {
    agent_info: &'a AgentInfo,
}

#[derive(Serialize)]
struct StatusPart<'a> {
    container_id: &'a ContainerId,
    executor_pid: Option<u32>,
}

#[derive(Serialize)]
struct ContainerPart<'a> {
    framework_id: &'a FrameworkId,
    executor_id: &'a ExecutorId,
    executor_name: Option<&'a str>,
    container_id: &'a ContainerId,
    container_status: StatusPart<'a>,
}

fn read_call(request: &Request) -> Result<Call, Refusal> {
    let format = API.body_format(request.header("content-type"))?;
    API.read(format, &request.body, request.max_nesting)
}

/// Reads a call beside the agent's own work. No answer of it goes on.
pub(super) fn read(request: &Request) -> ReadCall {
    ReadCall::new(read_call(request), false)
}

/// A list, also when it is empty.
fn list(all: impl Iterator<Item = Built>) -> Built {
    Ok(Tree::List(all.collect::<Result<_, _>>()?))
}

impl Agent {
    /// Answers a request to the operator API.
    pub(crate) fn operator_api(
        &mut self,
        cx: &mut Context<'_, Self>,
        request: &Request,
    ) -> Response {
        if request.method != "POST" {
            return Response::method_not_allowed(&["POST"], &request.method);
        }
        self.operator_call(cx, request)
            .unwrap_or_else(|refusal| Response::text(refusal.status, refusal.text))
    }

    fn operator_call(
        &mut self,
        cx: &mut Context<'_, Self>,
        request: &Request,
    ) -> Result<Response, Refusal> {
        let call = (request.take_reading()).unwrap_or_else(|| read_call(request))?;
        let format = API.answer_format(request.header("accept"))?;
        let tree = match call {
            Call::Get(kind) => {
                let about_itself = [
                    "GET_HEALTH",
                    "GET_FLAGS",
                    "GET_VERSION",
                    "GET_LOGGING_LEVEL",
                ];
                if self.is_recovering() && !about_itself.contains(&kind) {
                    return Err(Refusal::new(503, "Agent has not finished recovery"));
                }
                self.look(kind)
            }
            Call::GetContainers => self.get_containers(),
            Call::GetMetrics => {
                let all = cx.metrics().snapshot();
                let all = all
                    .iter()
                    .filter_map(|(name, value)| Some((&**name, value.as_f64()?)));
                API.metrics(all)
            }
            Call::SetLoggingLevel { level, duration } => {
                request.caller.may(Need::Change)?;
                info!(by = %request.caller, level, ?duration, "an operator changes what is logged");
                return Ok(logging::answer_level(cx, level, duration));
            }
            Call::ListFiles { path } => {
                request.caller.may(Need::Sandbox)?;
                self.list_files(Path::new(&path))?
            }
            Call::ReadFile {
                path,
                offset,
                length,
            } => {
                request.caller.may(Need::Sandbox)?;
                self.read_file(Path::new(&path), offset, length)?
            }
            // There are no images.
            Call::PruneImages => {
                request.caller.may(Need::Change)?;
                return Ok(Response::empty());
            }
            Call::Subscribe | Call::Teardown(_) | Call::MarkAgentGone(_) | Call::Later(_) => {
                return Err(not_implemented());
            }
        };
        Ok(answer(format, &tree.map_err(unshown)?))
    }

    /// The answer to a call that asks for what there is.
    fn look(&self, kind: &'static str) -> Built {
        let part = match kind {
            "GET_HEALTH" => return API.health(),
            "GET_FLAGS" => return API.flags(&self.config.flags),
            "GET_VERSION" => return API.version(&Version::of_program()),
            "GET_LOGGING_LEVEL" => return API.logging_level(logging::level().unwrap_or_default()),
            "GET_STATE" => of_fields(
                API.part_type(kind),
                [
                    ("get_tasks", self.get_tasks()?),
                    ("get_executors", self.get_executors()?),
                    ("get_frameworks", self.get_frameworks()?),
                ],
            ),
            "GET_TASKS" => self.get_tasks()?,
            "GET_EXECUTORS" => self.get_executors()?,
            "GET_FRAMEWORKS" => self.get_frameworks()?,
            "GET_AGENT" => {
                let agent_info = &self.info;
                return API.response_of(kind, &AgentPart { agent_info });
            }
            // There are none.
            _ => Tree::empty(),
        };
        Ok(API.response(kind, Some(part)))
    }

    /// Every executor that the agent tells of, with whether it is over.
    fn all_executors(&self) -> impl Iterator<Item = (&FrameworkId, &Executor, bool)> {
        let living = self.tables.frameworks.iter();
        let over = self.tables.completed_frameworks.iter();
        let over = over.map(|(id, framework)| (id, framework));
        living.chain(over).flat_map(|(id, framework)| {
            let here = framework.executors.values();
            let here = here.map(move |executor| (id, executor, false));
            let gone = framework.completed_executors.iter();
            here.chain(gone.map(move |executor| (id, executor, true)))
        })
    }

    fn get_frameworks(&self) -> Built {
        let of = message("mesos.v1.agent.Response.GetFrameworks.Framework");
        let one = |framework_info| to_tree(&FrameworkPart { framework_info }, of);
        let here = self.tables.frameworks.values();
        let over = self.tables.completed_frameworks.iter();
        Ok(of_fields(
            API.part_type("GET_FRAMEWORKS"),
            [
                (
                    "frameworks",
                    list(here.map(|framework| one(&framework.info)))?,
                ),
                (
                    "completed_frameworks",
                    list(over.map(|(_, framework)| one(&framework.info)))?,
                ),
            ],
        ))
    }

    fn get_executors(&self) -> Built {
        let of = message("mesos.v1.agent.Response.GetExecutors.Executor");
        let those = |wanted: bool| {
            let all = self.all_executors();
            let all = all.filter(move |(_, _, over)| *over == wanted);
            list(all.map(|(_, executor, _)| {
                let executor_info = &executor.info;
                to_tree(&ExecutorPart { executor_info }, of)
            }))
        };
        Ok(of_fields(
            API.part_type("GET_EXECUTORS"),
            [
                ("executors", those(false)?),
                ("completed_executors", those(true)?),
            ],
        ))
    }

    fn get_tasks(&self) -> Built {
        let of = message("mesos.v1.Task");
        let all = || self.all_executors().map(|(id, executor, _)| (id, executor));
        let tree = |task: &Task| to_tree(task, of);
        let queued = all().flat_map(|(id, executor)| {
            let user = self.tables.framework(id).map_or("", |one| &one.info.user);
            let queued = executor.queued.iter();
            queued.map(move |task| to_tree(&Task::new(task, id, user), of))
        });
        let launched = all().flat_map(|(_, executor)| executor.launched.values());
        let terminated = all().flat_map(|(_, executor)| executor.terminated.values());
        let completed = all().flat_map(|(_, executor)| &executor.completed);
        Ok(of_fields(
            API.part_type("GET_TASKS"),
            [
                ("pending_tasks", list(std::iter::empty())?),
                ("queued_tasks", list(queued)?),
                ("launched_tasks", list(launched.map(tree))?),
                ("terminated_tasks", list(terminated.map(tree))?),
                ("completed_tasks", list(completed.map(tree))?),
            ],
        ))
    }

    fn get_containers(&self) -> Built {
        let of = message("mesos.v1.agent.Response.GetContainers.Container");
        let all = self.tables.executors();
        let all = all.filter(|(_, _, executor)| !executor.container.is_gone());
        let containers: Vec<Tree> = all
            .map(|(framework_id, executor_id, executor)| {
                let part = ContainerPart {
                    framework_id,
                    executor_id,
                    executor_name: Some(executor.info.name.as_deref().unwrap_or_default()),
                    container_id: &executor.container_id,
                    container_status: StatusPart {
                        container_id: &executor.container_id,
                        executor_pid: executor.container.process(),
                    },
                };
                to_tree(&part, of)
            })
            .collect::<Result<_, _>>()?;
        if containers.is_empty() {
            return Ok(API.response("GET_CONTAINERS", None));
        }
        let part = of_fields(
            API.part_type("GET_CONTAINERS"),
            [("containers", Tree::List(containers))],
        );
        Ok(API.response("GET_CONTAINERS", Some(part)))
    }

    fn list_files(&self, path: &Path) -> Result<Built, Refusal> {
        let listed = self.in_sandbox(path, |root, rest| files::list(root, rest, path))?;
        Ok(API.files(&listed))
    }

    fn read_file(&self, path: &Path, offset: u64, length: Option<u64>) -> Result<Built, Refusal> {
        let (size, data) = self.in_sandbox(path, |root, rest| {
            files::read_bytes(root, rest, offset, length)
        })?;
        Ok(API.file_part(size, &data))
    }

    fn in_sandbox<T>(
        &self,
        path: &Path,
        look: impl FnOnce(&Path, &Path) -> Result<T, files::FileError>,
    ) -> Result<T, Refusal> {
        let Some((root, rest)) = self.attached(path) else {
            return Err(Refusal::new(404, ""));
        };
        look(&root, &rest).map_err(|error| Refusal::new(error.status(), error.text(path)))
    }
}

/// An answer in the encoding that the client wants.
fn answer(format: Format, tree: &Tree) -> Response {
    let body = format.write(tree, API.response_type());
    Response::body(format.content_type(), body)
}
