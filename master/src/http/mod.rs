//! What the master shows over HTTP, under its id and, as the node's delegate, without it. A master that does not lead
//! sends whoever asks about the cluster to the leader.
//!
//! [`show`] and [`summary`] are Mesos' first API, whose answers write themselves straight to bytes; [`operator`] and
//! [`trees`] are the second one, in JSON and protobuf; [`subscribers`] hear the [`events`] of the latter. Answers are made in the master's turn, from one consistent state.
//! Source: http.md §5.1, §6.

mod events;
mod operator;
mod show;
mod subscribers;
mod summary;
mod trees;

use std::collections::BTreeMap;

use meseta_protocol::FrameworkId;
use meseta_protocol::agent::{DomainInfo, MasterCapability};
use meseta_protocol::task::Task;
use meseta_runtime::http::Version;
use meseta_runtime::{Context, Pid, Request, Response, Routes};
use serde::Serialize;
use serde_json::json;

use crate::master::Master;
use crate::state::Framework;
pub(crate) use subscribers::Audience;

use show::{
    AgentShown, Attributes, AwaitedShown, Each, FrameworkShown, FrameworkSummary, TaskShown,
};

/// Paths below the master's id.
pub(crate) fn routes(routes: &mut Routes<Master>) {
    macro_rules! about_the_cluster {
        ($( $path:literal => $show:ident ),* $(,)?) => {
            $( routes.get($path, |me, cx, request| {
                me.as_leader(cx, request, |me, cx, request| me.unless_known(cx, request, Master::$show))
            }); )*
        };
    }
    about_the_cluster! {
        "/state" => show_state,
        "/state-summary" => show_summary,
        "/slaves" => show_slaves,
        "/frameworks" => show_frameworks,
        "/tasks" => show_tasks,
        "/roles" => show_roles,
    }
    routes
        .call("/weights", |me, cx, request| {
            me.as_reader(cx, request, &["GET", "PUT"], Master::show_weights)
        })
        .call("/quota", |me, cx, request| {
            me.as_reader(
                cx,
                request,
                &["GET", "POST", "DELETE"],
                Master::show_nothing,
            )
        })
        .call("/maintenance/schedule", |me, cx, request| {
            me.as_reader(cx, request, &["GET", "POST"], Master::show_nothing)
        })
        .call("/maintenance/status", |me, cx, request| {
            me.as_reader(cx, request, &["GET"], Master::show_nothing)
        })
        .call("/teardown", |me, cx, request| {
            me.as_caller(cx, request, Master::teardown_form)
        })
        .call("/api/v1", Master::operator_api)
        .call("/api/v1/scheduler", Master::scheduler_api)
        .get("/redirect", |me, _, request| {
            // Nothing stands below it.
            let path = request.target.split('?').next().unwrap_or_default();
            if path.ends_with("/redirect") {
                me.redirect("")
            } else {
                Response::text(404, "404 Not Found.")
            }
        })
        .get("/flags", Master::show_flags)
        .get("/health", |_, _, _| Response::empty())
        .get("/files/browse", no_file)
        .get("/files/read", no_file)
        .get("/files/download", no_file)
        .get("/files/debug", |_, _, _| Response::json(&json!({})));
}

/// A master shows no files.
fn no_file(_: &mut Master, _: &mut Context<'_, Master>, request: &Request) -> Response {
    if request.query.contains_key("path") {
        Response::text(404, "")
    } else {
        Response::text(400, "Expecting 'path=value' in query.\n")
    }
}

/// Tasks that `/tasks` shows when no limit is given.
const DEFAULT_TASKS: usize = 100;

#[derive(Serialize)]
struct LeaderShown<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<&'a str>,
    port: u16,
    hostname: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a DomainInfo>,
}

#[derive(Serialize)]
struct StateShown<'a, S: Serialize, R: Serialize, F: Serialize, C: Serialize> {
    #[serde(flatten)]
    version: Version,
    start_time: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    elected_time: Option<f64>,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<&'a str>,
    hostname: &'a str,
    capabilities: &'a [MasterCapability],
    activated_slaves: f64,
    deactivated_slaves: f64,
    unreachable_slaves: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a DomainInfo>,
    leader: &'a Pid,
    leader_info: LeaderShown<'a>,
    leader_epoch: u64,
    flags: &'a BTreeMap<String, String>,
    slaves: S,
    recovered_slaves: R,
    frameworks: F,
    completed_frameworks: C,
    orphan_tasks: [(); 0],
    unregistered_frameworks: [(); 0],
}

#[derive(Serialize)]
struct SlavesShown<S: Serialize, R: Serialize> {
    slaves: S,
    recovered_slaves: R,
}

#[derive(Serialize)]
struct FrameworksShown<F: Serialize, C: Serialize> {
    frameworks: F,
    completed_frameworks: C,
    unregistered_frameworks: [(); 0],
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

impl Master {
    /// Answers with a document, or with its tag alone to a client that has it already: then it is not made at all.
    fn unless_known(
        &mut self,
        cx: &mut Context<'_, Self>,
        request: &Request,
        show: fn(&mut Self, &mut Context<'_, Self>, &Request) -> Response,
    ) -> Response {
        // All that the documents show: what is in these, and what stays while a master leads. Each number only rises.
        let revision =
            self.state.revision() + self.unreachable.revision() + self.awaited.revision();
        let (id, epoch) = (&self.info.id, self.epoch());
        let tag = request.tag(&format!("{id}-{epoch}-{revision}"));
        if request.knows(&tag) {
            Response::not_modified(tag)
        } else {
            show(self, cx, request).tagged(tag)
        }
    }

    fn show_state(&mut self, cx: &mut Context<'_, Self>, _: &Request) -> Response {
        let agents = self.state.agents().count();
        let connected = self.state.agents().filter(|(_, agent)| agent.connected);
        let connected = connected.count();
        let info = &self.info;
        let hostname = info.hostname.as_deref().unwrap_or_default();
        Response::serialized(&StateShown {
            version: Version::of_program(),
            start_time: self.started.as_secs_f64(),
            elected_time: self.leadership.map(|one| one.since.as_secs_f64()),
            id: info.id.as_str(),
            pid: info.pid.as_deref(),
            hostname,
            capabilities: &info.capabilities,
            activated_slaves: count(connected),
            deactivated_slaves: count(agents - connected),
            unreachable_slaves: count(self.unreachable.len()),
            domain: info.domain.as_ref(),
            leader: cx.me(),
            leader_info: LeaderShown {
                id: info.id.as_str(),
                pid: info.pid.as_deref(),
                port: info.port,
                hostname,
                domain: info.domain.as_ref(),
            },
            leader_epoch: self.epoch(),
            flags: &self.config.flags,
            slaves: Each(|| {
                self.state
                    .agents()
                    .map(|(id, agent)| AgentShown::new(id, agent))
            }),
            recovered_slaves: Each(|| self.awaited_shown(None)),
            frameworks: Each(|| self.living(None)),
            completed_frameworks: Each(|| self.completed(None)),
            orphan_tasks: [],
            unregistered_frameworks: [],
        })
    }

    fn show_summary(&mut self, _: &mut Context<'_, Self>, _: &Request) -> Response {
        let hostname = self.info.hostname.as_deref().unwrap_or_default();
        let summary =
            summary::state_summary(&self.state, hostname, |id, one| self.summary(id, one));
        Response::serialized(&summary)
    }

    fn show_slaves(&mut self, _: &mut Context<'_, Self>, request: &Request) -> Response {
        let wanted = request.query.get("slave_id").map(String::as_str);
        let slaves = Each(|| {
            let all = self.state.agents();
            all.filter(move |(id, _)| wanted.is_none_or(|wanted| id.as_str() == wanted))
                .map(|(id, agent)| show::AgentInFull::new(id, agent))
        });
        Response::serialized(&SlavesShown {
            slaves,
            recovered_slaves: Each(|| self.awaited_shown(wanted)),
        })
    }

    /// Agents that are awaited after a fail-over, or the one that is wanted.
    fn awaited_shown<'a>(
        &'a self,
        wanted: Option<&'a str>,
    ) -> impl Iterator<Item = AwaitedShown<'a>> {
        let awaited = self.awaited.iter();
        awaited
            .filter(move |(id, _)| wanted.is_none_or(|wanted| id.as_str() == wanted))
            .map(|(id, info)| AwaitedShown {
                id,
                hostname: &info.hostname,
                port: info.port,
                attributes: Attributes(&info.attributes),
                domain: info.domain.as_ref(),
            })
    }

    fn show_frameworks(&mut self, _: &mut Context<'_, Self>, request: &Request) -> Response {
        let wanted = request.query.get("framework_id").map(String::as_str);
        Response::serialized(&FrameworksShown {
            frameworks: Each(|| self.living(wanted)),
            completed_frameworks: Each(|| self.completed(wanted)),
            unregistered_frameworks: [],
        })
    }

    fn show_tasks(&mut self, _: &mut Context<'_, Self>, request: &Request) -> Response {
        let number = |name: &str| {
            let given = request.query.get(name)?;
            given.parse::<usize>().ok()
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
        let first = |task: &Task| {
            let status = task.statuses.first();
            status.and_then(|status| status.timestamp).unwrap_or(0.0)
        };
        all.sort_by(|a, b| first(a).total_cmp(&first(b)));
        if request
            .query
            .get("order")
            .is_none_or(|order| order != "asc")
        {
            all.reverse();
        }
        let page = || {
            let from = all.iter().skip(number("offset").unwrap_or(0));
            from.take(number("limit").unwrap_or(DEFAULT_TASKS))
                .map(|task| TaskShown(task))
        };
        Response::serialized(&BTreeMap::from([("tasks", Each(page))]))
    }

    fn show_roles(&mut self, _: &mut Context<'_, Self>, _: &Request) -> Response {
        let weights = &self.config.allocator.weights;
        let names = summary::known_roles(&self.state, weights);
        let roles = summary::roles(&self.state, &names, weights);
        Response::serialized(&BTreeMap::from([("roles", roles)]))
    }

    fn show_weights(&mut self, _: &mut Context<'_, Self>, _: &Request) -> Response {
        Response::serialized(&summary::weights(&self.config.allocator.weights))
    }

    /// Of what this version does not have there is none.
    fn show_nothing(&mut self, _: &mut Context<'_, Self>, _: &Request) -> Response {
        Response::json(&json!({}))
    }

    fn show_flags(&mut self, _: &mut Context<'_, Self>, _: &Request) -> Response {
        Response::json(&json!({ "flags": self.config.flags }))
    }

    /// Answers GET, if this master leads; the other methods it knows are for what this version does not do.
    fn as_reader(
        &mut self,
        cx: &mut Context<'_, Self>,
        request: &Request,
        methods: &[&str],
        answer: fn(&mut Self, &mut Context<'_, Self>, &Request) -> Response,
    ) -> Response {
        match request.method.as_str() {
            "GET" | "HEAD" => self.as_leader(cx, request, answer),
            method if methods.contains(&method) => Response::text(501, "501 Not Implemented."),
            method => Response::method_not_allowed(methods, method),
        }
    }

    fn teardown_form(&mut self, cx: &mut Context<'_, Self>, request: &Request) -> Response {
        let wanted = form(&request.body, "frameworkId");
        let ended = match wanted {
            None => Err(meseta_api::Refusal::bad(
                "Missing 'frameworkId' query parameter in the request body",
            )),
            Some(id) => self
                .may_change(request)
                .and_then(|()| self.teardown_by_operator(cx, &FrameworkId::new(id))),
        };
        ended.unwrap_or_else(|refusal| Response::text(refusal.status, refusal.text))
    }

    fn summary<'a>(
        &'a self,
        id: &'a FrameworkId,
        framework: &'a Framework,
    ) -> FrameworkSummary<'a> {
        // A stream is no address.
        let pid = framework.pid.as_ref().filter(|pid| !self.is_stream(pid));
        FrameworkSummary::new(&self.state, id, framework, pid)
    }

    fn living<'a>(&'a self, wanted: Option<&'a str>) -> impl Iterator<Item = FrameworkShown<'a>> {
        let living = self.state.frameworks();
        living
            .filter(move |(id, _)| wanted.is_none_or(|wanted| id.as_str() == wanted))
            .map(|(id, framework)| self.framework_shown(id, framework))
    }

    fn completed<'a>(
        &'a self,
        wanted: Option<&'a str>,
    ) -> impl Iterator<Item = FrameworkShown<'a>> {
        self.state
            .completed_frameworks()
            .filter_map(|framework| Some((framework.info.id.as_ref()?, framework)))
            .filter(move |(id, _)| wanted.is_none_or(|wanted| id.as_str() == wanted))
            .map(|(id, framework)| self.framework_shown(id, framework))
    }

    fn framework_shown<'a>(
        &'a self,
        id: &'a FrameworkId,
        framework: &'a Framework,
    ) -> FrameworkShown<'a> {
        FrameworkShown {
            state: &self.state,
            summary: self.summary(id, framework),
            framework,
        }
    }
}

/// The value of a field of a form: `frameworkId=F&x=y`.
fn form(body: &[u8], name: &str) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let mut fields = text.split('&').filter_map(|field| field.split_once('='));
    let (_, value) = fields.find(|(field, _)| *field == name)?;
    Some(unescaped(value))
}

/// A value of a form as it was meant: `%2F` is `/`, and `+` is a space.
fn unescaped(value: &str) -> String {
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.as_bytes().iter();
    while let Some(&byte) = bytes.next() {
        let rest = bytes.as_slice();
        let code = (byte == b'%')
            .then(|| {
                rest.get(..2)
                    .and_then(|digits| std::str::from_utf8(digits).ok())
            })
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(match (byte, code) {
            (_, Some(code)) => {
                bytes.nth(1);
                code
            }
            (b'+', None) => b' ',
            (byte, None) => byte,
        });
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_form_are_found_and_written_out() {
        assert_eq!(
            form(b"x=1&frameworkId=a%2Db+c", "frameworkId").unwrap(),
            "a-b c"
        );
        assert_eq!(form(b"frameworkId=", "frameworkId").unwrap(), "");
        assert_eq!(form(b"frameworkId", "frameworkId"), None);
        assert_eq!(form(b"", "frameworkId"), None);
        assert_eq!(form(b"f=%2", "f").unwrap(), "%2");
        assert_eq!(form(b"f=%zz%", "f").unwrap(), "%zz%");
        assert_eq!(form(b"f=\xff", "f"), None);
    }
}
