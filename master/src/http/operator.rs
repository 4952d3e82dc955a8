//! `POST /api/v1`: what operators and their tools ask of a master. Source: http.md §5.1.

use meseta_api::negotiation::Format;
use meseta_api::operator::{Api, Call};
use meseta_api::{Mismatch, Refusal, Tree};
use meseta_protocol::agent::MasterInfo;
use meseta_protocol::{AgentId, FrameworkId, Role};
use meseta_runtime::http::{Caller, Need, ReadCall, Version};
use meseta_runtime::logging;
use meseta_runtime::{Context, Request, Response};
use serde::Serialize;
use tracing::{error, info};

use super::view::Document;
use crate::handlers::NotGone;
use crate::master::Master;

pub(super) const API: Api = Api::Master;

#[derive(Serialize)]
struct MasterPart<'a> {
    master_info: &'a MasterInfo,
    start_time: Option<f64>,
    elected_time: Option<f64>,
}

#[derive(Serialize)]
struct WeightPart<'a> {
    role: &'a Role,
    weight: f64,
}

#[derive(Serialize)]
struct WeightsPart<'a> {
    weight_infos: Vec<WeightPart<'a>>,
}

fn refused(refusal: Refusal) -> Response {
    Response::text(refusal.status, refusal.text)
}

/// An answer that the schema does not allow is a mistake of this program.
pub(super) fn unshown(why: Mismatch) -> Refusal {
    error!(%why, "an answer cannot be shown");
    Refusal::new(500, why.to_string())
}

fn read_call(request: &Request) -> Result<Call, Refusal> {
    let format = API.body_format(request.header("content-type"))?;
    API.read(format, &request.body, request.max_nesting)
}

/// Reads a call beside the master's own work.
pub(super) fn read(request: &Request) -> ReadCall {
    let call = read_call(request);
    let may_go_on = call == Ok(Call::Subscribe);
    ReadCall::new(call, may_go_on)
}

impl Master {
    /// Answers a request to the operator API.
    pub(crate) fn operator_api(
        &mut self,
        cx: &mut Context<'_, Self>,
        request: &Request,
    ) -> Response {
        self.as_caller(cx, request, |me, cx, request| {
            me.operator_call(cx, request).unwrap_or_else(refused)
        })
    }

    /// What holds for every call: only the leader answers, once it knows what there is, and only to POST.
    pub(crate) fn as_caller(
        &mut self,
        cx: &mut Context<'_, Self>,
        request: &Request,
        answer: impl FnOnce(&mut Self, &mut Context<'_, Self>, &Request) -> Response,
    ) -> Response {
        if self.leadership.is_some() && !self.is_leading() {
            Response::text(503, "Master has not finished recovery")
        } else if !self.is_leading() {
            self.redirect(&request.target)
        } else if request.method == "POST" {
            answer(self, cx, request)
        } else {
            Response::method_not_allowed(&["POST"], &request.method)
        }
    }

    fn operator_call(
        &mut self,
        cx: &mut Context<'_, Self>,
        request: &Request,
    ) -> Result<Response, Refusal> {
        let call = (request.take_reading()).unwrap_or_else(|| read_call(request))?;
        let format = API.answer_format(request.header("accept"))?;
        let tree = match call {
            Call::Get(
                kind @ ("GET_STATE" | "GET_AGENTS" | "GET_FRAMEWORKS" | "GET_EXECUTORS"
                | "GET_TASKS" | "GET_ROLES"),
            ) => return Ok(self.show(cx, request, Document::Answer(kind, format))),
            Call::Get(kind) => self.look(cx, kind).map_err(unshown)?,
            Call::GetMetrics => {
                let all = cx.metrics().snapshot();
                let all = all
                    .iter()
                    .filter_map(|(name, value)| Some((&**name, value.as_f64()?)));
                API.metrics(all).map_err(unshown)?
            }
            Call::SetLoggingLevel { level, duration } => {
                request.caller.may(Need::Change)?;
                info!(by = %request.caller, level, ?duration, "an operator changes what is logged");
                return Ok(logging::answer_level(cx, level, duration));
            }
            // A master shows no files.
            Call::ListFiles { .. } | Call::ReadFile { .. } => {
                return Ok(Response::text(404, ""));
            }
            Call::Teardown(id) => {
                request.caller.may(Need::Change)?;
                return self.teardown_by_operator(cx, &id, &request.caller);
            }
            Call::MarkAgentGone(id) => {
                request.caller.may(Need::Change)?;
                return Ok(self.mark_gone_by_operator(cx, id, &request.caller));
            }
            Call::Subscribe => return self.subscribe_operator(cx, request, format),
            Call::GetContainers | Call::PruneImages | Call::Later(_) => {
                return Err(Refusal::new(501, "501 Not Implemented."));
            }
        };
        Ok(answer(format, &tree))
    }

    /// The answer to a call that asks for what there is.
    fn look(&self, cx: &mut Context<'_, Self>, kind: &'static str) -> Result<Tree, Mismatch> {
        let part = match kind {
            "GET_HEALTH" => return API.health(),
            "GET_FLAGS" => return API.flags(&self.config.flags),
            "GET_VERSION" => return API.version(&Version::of_program()),
            "GET_LOGGING_LEVEL" => return API.logging_level(logging::level().unwrap_or_default()),
            "GET_WEIGHTS" => {
                let weights = self.weights.iter();
                let weight_infos: Vec<_> = weights
                    .map(|(role, weight)| WeightPart {
                        role,
                        weight: *weight,
                    })
                    .collect();
                if weight_infos.is_empty() {
                    return Ok(API.response(kind, None));
                }
                return API.response_of(kind, &WeightsPart { weight_infos });
            }
            "GET_MASTER" => {
                let part = MasterPart {
                    master_info: &self.info,
                    start_time: Some(self.started.as_secs_f64()),
                    elected_time: self.leadership.map(|one| one.since.as_secs_f64()),
                };
                return API.response_of(kind, &part);
            }
            // What there is none of yet is shown empty.
            "GET_MAINTENANCE_STATUS" | "GET_QUOTA" => within(kind, "status"),
            "GET_MAINTENANCE_SCHEDULE" => within(kind, "schedule"),
            _ => Tree::empty(),
        };
        debug_assert!(cx.me().id() == "master", "asked of the master");
        Ok(API.response(kind, Some(part)))
    }

    /// Ends a framework by an operator's word.
    pub(super) fn teardown_by_operator(
        &mut self,
        cx: &mut Context<'_, Self>,
        id: &FrameworkId,
        by: &Caller,
    ) -> Result<Response, Refusal> {
        if self.state.framework(id).is_none() {
            return Err(Refusal::bad("No framework found with specified ID"));
        }
        info!(framework = %id, %by, "an operator ends a framework");
        self.remove_framework(cx, id);
        Ok(Response::empty())
    }

    /// Answered once it is durable.
    fn mark_gone_by_operator(
        &mut self,
        cx: &mut Context<'_, Self>,
        id: AgentId,
        by: &Caller,
    ) -> Response {
        info!(agent = %id, %by, "an operator marks an agent gone over HTTP");
        let (later, response) = Response::later();
        self.mark_gone(cx, &id, move |_, _, marked| {
            later.answer(match marked {
                Ok(()) => Response::empty(),
                Err(why @ NotGone::Unknown(_)) => Response::text(404, why.to_string()),
                Err(why @ NotGone::Busy(_)) => Response::text(503, why.to_string()),
            });
        });
        response
    }
}

/// The part of this answer with an empty message in it.
fn within(kind: &str, field: &str) -> Tree {
    meseta_api::operator::of_fields(API.part_type(kind), [(field, Tree::empty())])
}

/// An answer in the encoding that the client wants.
pub(super) fn answer(format: Format, tree: &Tree) -> Response {
    Response::body(format.content_type(), encoded(format, tree))
}

/// The same as bytes.
pub(super) fn encoded(format: Format, tree: &Tree) -> Vec<u8> {
    format.write(tree, API.response_type())
}
