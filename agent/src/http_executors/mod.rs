//! `POST /api/v1/executor`: executors that speak Mesos' HTTP API. Source: executor.md §1.
//!
//! A subscription is a process of this node ([`stream::HttpExecutor`]) under the very id that the executor would have as
//! a guest. So everything else in the agent knows nothing of HTTP: tasks, updates and ends go the same way for both.

mod stream;

use meseta_api::Refusal;
use meseta_api::executor::{self as api, Call};
use meseta_api::negotiation::Format;
use meseta_api::style::Style;
use meseta_protocol::messages::executor::SubscribeExecutor;
use meseta_protocol::{ExecutorId, FrameworkId};
use meseta_runtime::http::{self, Need, Principal, ReadCall};
use meseta_runtime::{Context, Pid, Placement, Receive, Request, Response};
use tracing::info;

use crate::agent::Agent;
use stream::HttpExecutor;

/// Bytes that may wait for an executor that does not read; then it is given up.
const MAX_WAITING: usize = 64 << 20;

/// What Mesos says.
const NOT_RECOVERED: &str = "Agent has not finished recovery";

impl Agent {
    /// Answers a request to the executor API.
    pub(crate) fn executor_api(
        &mut self,
        cx: &mut Context<'_, Self>,
        request: &Request,
    ) -> Response {
        if request.method != "POST" {
            return Response::method_not_allowed(&["POST"], &request.method);
        }
        if let Err(denied) = request.caller.may(Need::OwnChange) {
            return denied.into();
        }
        self.executor_call(cx, request)
            .unwrap_or_else(|refusal| Response::text(refusal.status, refusal.text))
    }

    fn executor_call(
        &mut self,
        cx: &mut Context<'_, Self>,
        request: &Request,
    ) -> Result<Response, Refusal> {
        let (framework_id, executor_id, call) =
            (request.take_reading()).unwrap_or_else(|| read_call(request))?;
        let principal = request.caller.principal.as_ref();
        claims_are(
            principal,
            &[
                ("fid", framework_id.as_str()),
                ("eid", executor_id.as_str()),
            ],
        )?;
        let answer = match &call {
            Call::Subscribe(_) if request.has_no_stream_left => {
                return Err(Refusal::new(503, Request::NO_STREAM_LEFT));
            }
            Call::Subscribe(_) => Some(Format::of_answer(request.header("accept"))?),
            Call::Update(_) | Call::Message(_) | Call::Heartbeat => None,
        };
        if call == Call::Heartbeat {
            return Ok(Response::empty().with_status(202));
        }
        // An answer to one that it took now would have to wait for the end of the sweep, which the client may not see.
        if self.is_sweeping() {
            return Err(Refusal::new(503, NOT_RECOVERED));
        }
        // Until an agent that has been restarted has read its checkpoint, it cannot tell who is its own.
        let unknown = |who: &str| {
            if self.is_recovering() {
                Refusal::new(503, NOT_RECOVERED)
            } else {
                Refusal::bad(format!("{who} cannot be found"))
            }
        };
        let Some(framework) = self.tables.framework(&framework_id) else {
            return Err(unknown("Framework"));
        };
        // Executors are told of the role, whatever their framework understands, as by Mesos.
        let style = Style {
            multi_role: true,
            ..Style::of(&framework.info)
        };
        let Some(executor) = self.tables.executor(&framework_id, &executor_id) else {
            return Err(unknown("Executor"));
        };
        claims_are(principal, &[("cid", &executor.container_id.value)])?;
        let known = executor.process_id();
        let me = cx
            .local(&known)
            .map_err(|error| Refusal::new(500, error.to_string()))?;
        let subscribed = executor.pid.as_ref() == Some(&me);
        let is_connected = executor.listener() == Some(&me);
        match (call, answer) {
            (Call::Subscribe(subscribe), Some(format)) => {
                if is_connected {
                    // The notice of the older stream's end, which has the same PID, must not be taken for the new one's.
                    return Err(end_older(cx, &me));
                }
                return self.subscribe_http(cx, &me, subscribe, format, style);
            }
            (Call::Subscribe(_), None) => {}
            _ if !subscribed => return Err(Refusal::new(403, "Executor is not subscribed")),
            (Call::Update(mut update), _) => {
                update.status.executor_id = Some(executor_id);
                update.status.agent_id = self.info.id.clone();
                self.receive(cx, &me, update);
            }
            (Call::Message(message), _) => self.receive(cx, &me, message),
            (Call::Heartbeat, _) => {}
        }
        Ok(Response::empty().with_status(202))
    }

    fn subscribe_http(
        &mut self,
        cx: &mut Context<'_, Self>,
        me: &Pid,
        mut subscribe: SubscribeExecutor,
        format: Format,
        style: Style,
    ) -> Result<Response, Refusal> {
        // What the executor knows of itself stands once in the call, not in each of its updates.
        for update in &mut subscribe.unacknowledged_updates {
            update.framework_id = subscribe.framework_id.clone();
            update.executor_id = Some(subscribe.executor_id.clone());
            update.agent_id.clone_from(&self.info.id);
            update.uuid = update.status.uuid;
            update.timestamp = (update.status.timestamp).unwrap_or_else(|| cx.wall().as_secs_f64());
            update.status.executor_id.clone_from(&update.executor_id);
            update.status.agent_id.clone_from(&self.info.id);
        }
        let (records, body) = http::stream(MAX_WAITING);
        let agent = cx.me().clone();
        let spawned = cx.spawn_placed(me.id(), Placement::LeastLoaded, move || {
            HttpExecutor::new(agent, records, format, style)
        });
        if spawned.is_err() {
            return Err(end_older(cx, me));
        }
        self.receive(cx, me, subscribe);
        if let Some(executor) = (me.id().strip_prefix("executor-"))
            .and_then(|container| self.tables.executor_in(container))
        {
            executor.is_over_http = true;
        }
        let body = body.telling(cx.outside(), me.clone());
        Ok(Response::stream(format.content_type(), body))
    }
}

type Read = Result<(FrameworkId, ExecutorId, Call), Refusal>;

fn read_call(request: &Request) -> Read {
    let format = Format::of_body(request.header("content-type"))?;
    api::read(format, &request.body, request.max_nesting)
}

/// Reads a call beside the agent's own work.
pub(crate) fn read(request: &Request) -> ReadCall {
    let call = read_call(request);
    let may_go_on = matches!(call, Ok((_, _, Call::Subscribe(_))));
    ReadCall::new(call, may_go_on)
}

/// Whether whoever has proven who they are is the one that these claims name.
fn claims_are(principal: Option<&Principal>, expected: &[(&str, &str)]) -> Result<(), Refusal> {
    let Some(principal) = principal else {
        return Ok(());
    };
    let other = |(name, value): &&(&str, &str)| {
        principal.claims.get(*name).map(String::as_str) != Some(*value)
    };
    match expected.iter().find(other) {
        None => Ok(()),
        Some((name, value)) => Err(Refusal::new(
            403,
            format!(
                "Authenticated principal {principal} has no claim '{name}' that is '{value}', as the call says"
            ),
        )),
    }
}

/// Has the older stream of an executor end; until that is known nobody else comes in under its PID.
fn end_older(cx: &mut Context<'_, Agent>, executor: &Pid) -> Refusal {
    info!(%executor, "an executor subscribes again: its older stream ends first");
    cx.terminate(executor);
    Refusal::new(
        503,
        "The executor's former subscription is being ended: try again.",
    )
}
