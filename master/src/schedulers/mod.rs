//! `POST /api/v1/scheduler`: schedulers that speak Mesos' HTTP API. Source: http.md §3.
//!
//! A subscription is a process of its own ([`stream::HttpScheduler`]), whose PID stands where the PID of a native
//! scheduler would. So disconnection, fail-over, offers and updates go the same way for both, and the master knows which
//! it is only here: by the PID, which names the stream.

mod stream;

use std::collections::BTreeSet;

use meseta_api::Refusal;
use meseta_api::negotiation::Format;
use meseta_api::scheduler::{self as api, Call};
use meseta_api::style::Style;
use meseta_protocol::FrameworkId;
use meseta_protocol::Role;
use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::messages::scheduler::SubscribeFramework;
use meseta_runtime::http::{self, Need, ReadCall, Stream};
use meseta_runtime::{Address, Context, Pid, Placement, Request, Response};
use tracing::{debug, error, info, warn};

use crate::allocator::messages as allocator;
use crate::leading::Serve;
use crate::master::Master;
use crate::validation;
use stream::HttpScheduler;

/// Header that ties calls to a subscription.
const STREAM_ID: &str = "mesos-stream-id";

/// What begins the id of a process that stands for an HTTP scheduler; the id of its stream follows.
const PREFIX: &str = "http-";

/// Bytes that may wait for a scheduler that does not read; then it is given up. Room for the offers of a large cluster.
const MAX_WAITING: usize = 64 << 20;

impl Master {
    /// Answers a request to the scheduler API.
    pub(crate) fn scheduler_api(
        &mut self,
        cx: &mut Context<'_, Self>,
        request: &Request,
    ) -> Response {
        self.as_caller(cx, request, Self::scheduler_answer)
    }

    fn scheduler_answer(&mut self, cx: &mut Context<'_, Self>, request: &Request) -> Response {
        if let Err(denied) = request.caller.may(Need::Change) {
            return denied.into();
        }
        self.scheduler_call(cx, request)
            .unwrap_or_else(|refusal| Response::text(refusal.status, refusal.text))
    }

    fn scheduler_call(
        &mut self,
        cx: &mut Context<'_, Self>,
        request: &Request,
    ) -> Result<Response, Refusal> {
        let call = (request.take_reading()).unwrap_or_else(|| read_call(request))?;
        if let Call::Subscribe(subscribe) = call {
            return self.subscribe_http(cx, request, subscribe);
        }
        // What is not known yet names its framework as well, so it is looked at before anything else.
        let scheduler = self.http_scheduler(cx, request, call.framework_id())?;
        debug!(by = %request.caller, framework = ?call.framework_id(), "a scheduler calls");
        let from = &scheduler;
        match call {
            Call::Subscribe(_) | Call::Later(..) => {}
            Call::Teardown(call) => self.serve(cx, from, call),
            Call::Accept(call) => self.serve(cx, from, call),
            Call::Decline(call) => self.serve(cx, from, call),
            Call::Revive(call) => self.serve(cx, from, call),
            Call::Suppress(call) => self.serve(cx, from, call),
            Call::Kill(call) => self.serve(cx, from, call),
            Call::Shutdown(call) => self.serve(cx, from, call),
            Call::Acknowledge(call) => self.serve(cx, from, call),
            Call::Reconcile(call) => self.serve(cx, from, call),
            Call::Message(call) => self.serve(cx, from, call),
            Call::Request(call) => self.serve(cx, from, call),
            Call::UpdateFramework(call) => {
                self.describe_anew(cx, request, call)?;
                return Ok(Response::empty());
            }
        }
        Ok(Response::empty().with_status(202))
    }

    /// Reads a call beside the master's own work.
    pub(crate) fn read_scheduler_call(request: &Request) -> ReadCall {
        let call = read_call(request);
        let may_go_on = matches!(call, Ok(Call::Subscribe(_)));
        ReadCall::new(call, may_go_on)
    }

    fn subscribe_http(
        &mut self,
        cx: &mut Context<'_, Self>,
        request: &Request,
        mut subscribe: SubscribeFramework,
    ) -> Result<Response, Refusal> {
        if request.header(STREAM_ID).is_some() {
            return Err(Refusal::bad(
                "Subscribe calls should not include the 'Mesos-Stream-Id' header",
            ));
        }
        let name = request.caller.name();
        let principal = &mut subscribe.framework.principal;
        if let Some(why) = mismatch(name, principal.as_deref()).filter(|_| principal.is_some()) {
            let text = format!("Failed to validate scheduler::Call: {why}");
            return Err(Refusal::bad(text));
        }
        // One that names no principal is known by the one it has proven.
        if let Some(name) = name {
            *principal = Some(name.to_owned());
        }
        let format = Format::of_answer(request.header("accept"))?;
        if request.has_no_stream_left {
            return Err(Refusal::new(503, Request::NO_STREAM_LEFT));
        }
        info!(by = %request.caller, name = %subscribe.framework.name, "a scheduler subscribes over HTTP");
        let stream_id = Self::new_uuid(cx).to_string();
        let (records, body) = http::stream(MAX_WAITING);
        let (master, style) = (cx.me().clone(), Style::of(&subscribe.framework));
        let spawned = cx.spawn_placed(
            &format!("{PREFIX}{stream_id}"),
            Placement::LeastLoaded,
            move || HttpScheduler::new(master, records, format, style),
        );
        let scheduler = spawned.map_err(|error| {
            error!(%error, "no process for an HTTP scheduler");
            Refusal::new(500, error.to_string())
        })?;
        self.serve(cx, &scheduler, subscribe);
        let body: Stream = body.telling(cx.outside(), scheduler);
        Ok(Response::stream(format.content_type(), body).with_header(STREAM_ID, stream_id))
    }

    /// Who calls, if the request comes with the stream of the framework's present subscription.
    fn http_scheduler(
        &self,
        cx: &Context<'_, Self>,
        request: &Request,
        id: Option<&FrameworkId>,
    ) -> Result<Pid, Refusal> {
        let known = id.and_then(|id| Some((id, self.state.framework(id)?)));
        let Some((id, framework)) = known else {
            return Err(Refusal::bad("Framework cannot be found"));
        };
        let subscribed = framework
            .pid
            .as_ref()
            .filter(|_| framework.is_connected())
            .and_then(|pid| Some((pid, stream_of(cx.address(), pid)?)));
        if let Some(why) = mismatch(request.caller.name(), framework.info.principal.as_deref()) {
            return Err(Refusal::bad(why));
        }
        let Some((pid, stream_id)) = subscribed else {
            return Err(Refusal::new(403, "Framework is not subscribed"));
        };
        match request.header(STREAM_ID) {
            None => Err(Refusal::bad(
                "All non-subscribe calls should include the 'Mesos-Stream-Id' header",
            )),
            Some(given) if given == stream_id => Ok(pid.clone()),
            Some(given) => Err(Refusal::bad(format!(
                "The stream ID '{given}' included in this request didn't match the stream ID currently associated with \
                 framework ID {id}"
            ))),
        }
    }

    /// UPDATE_FRAMEWORK: the rules of a subscription, without a new stream.
    fn describe_anew(
        &mut self,
        cx: &mut Context<'_, Self>,
        request: &Request,
        call: SubscribeFramework,
    ) -> Result<(), Refusal> {
        let mut info = call.framework;
        if let Some(name) = request.caller.name() {
            info.principal.get_or_insert_with(|| name.to_owned());
        }
        let suppressed: BTreeSet<Role> = call.suppressed_roles.into_iter().collect();
        validation::framework::validate(&info, &suppressed, &self.config.frameworks)
            .map_err(|why| Refusal::bad(format!("Supplied FrameworkInfo is not valid: {why}")))?;
        let Some(id) = info.id.clone() else {
            return Err(Refusal::bad("Framework cannot be found"));
        };
        let Some(known) = self.state.framework(&id) else {
            return Err(Refusal::bad("Framework cannot be found"));
        };
        if let Some(why) = immutable(&known.info, &info) {
            return Err(Refusal::bad(format!(
                "FrameworkInfo update is not valid: {why}"
            )));
        }
        let changed = known.info != info;
        let left: BTreeSet<Role> = known.info.effective_roles();
        let left: BTreeSet<Role> = left.difference(&info.effective_roles()).cloned().collect();
        info!(framework = %id, by = %request.caller, "framework describes itself anew");
        let dropped: Vec<_> = known.offers.iter().cloned().collect();
        for offer in dropped {
            if self
                .state
                .offer(&offer)
                .is_some_and(|offer| left.contains(&offer.role))
            {
                self.take_back_offer(cx, &offer, true);
            }
        }
        self.state.update_framework(&id, info.clone());
        self.state
            .suppress(&id, |roles| roles.clone_from(&suppressed));
        let update = allocator::UpdateFramework {
            framework_id: id.clone(),
            info: info.clone(),
            suppressed_roles: suppressed,
        };
        self.tell_allocator(cx, update);
        if changed {
            self.tell_agents_of(cx, &id, &info);
        }
        Ok(())
    }

    /// Ends the stream of an HTTP scheduler whose framework is gone, without a further event. Native ones stay.
    pub(crate) fn close_stream(cx: &mut Context<'_, Self>, scheduler: &Pid) {
        if stream_of(cx.address(), scheduler).is_some() {
            cx.terminate(scheduler);
        }
    }
}

fn read_call(request: &Request) -> Result<Call, Refusal> {
    let format = Format::of_body(request.header("content-type"))?;
    api::read(format, &request.body, request.max_nesting)
}

/// Id of the stream that a scheduler's PID stands for; none for a native scheduler.
pub(crate) fn stream_of<'a>(here: &Address, scheduler: &'a Pid) -> Option<&'a str> {
    (scheduler.address() == here)
        .then(|| scheduler.id().strip_prefix(PREFIX))
        .flatten()
}

/// Why somebody who has proven to be `proven` may not speak for a framework of this principal, if so.
fn mismatch(proven: Option<&str>, principal: Option<&str>) -> Option<String> {
    let (proven, principal) = (proven?, principal.unwrap_or_default());
    (proven != principal).then(|| {
        format!(
            "Authenticated principal '{proven}' does not match principal '{principal}' set in `FrameworkInfo`"
        )
    })
}

/// What a framework may not change of itself, if it does.
fn immutable(known: &FrameworkInfo, new: &FrameworkInfo) -> Option<String> {
    if known.principal != new.principal {
        return Some("Changing framework's principal is not allowed.".to_owned());
    }
    let fixed = |field: &str, from: &str, to: &str| {
        format!(
            "Updating 'FrameworkInfo.{field}' is unsupported; attempted to update from '{from}' to '{to}'"
        )
    };
    if known.user != new.user {
        return Some(fixed("user", &known.user, &new.user));
    }
    (known.checkpoint != new.checkpoint).then(|| {
        warn!("a framework tried to change its checkpointing");
        fixed(
            "checkpoint",
            &known.checkpoint.to_string(),
            &new.checkpoint.to_string(),
        )
    })
}
