//! What the master shows over HTTP, under its id and, as the node's delegate, without it. A master that does not lead
//! sends whoever asks about the cluster to the leader.
//!
//! [`show`] and [`summary`] are Mesos' first API, whose answers write themselves straight to bytes; [`operator`] and
//! [`trees`] are the second one, in JSON and protobuf; [`subscribers`] hear the [`events`] of the latter. Whatever grows with
//! the cluster is written from a [`view`] beside the master's own work, by [`documents`]. So is what [`explain`] tells.
//! Source: http.md §5.1, §6.

mod documents;
mod events;
mod explain;
mod operator;
mod show;
mod subscribers;
mod summary;
mod texts;
mod trees;
mod view;

use meseta_protocol::FrameworkId;
use meseta_runtime::http::{About, Need, Realm};
use meseta_runtime::{Context, Request, Response, Routes};
use serde_json::json;

use crate::master::Master;
pub(crate) use documents::{Documents, Written};
pub(crate) use subscribers::Audience;
use view::{Document, TasksWanted};

/// Realm of the API for schedulers.
pub(crate) const SCHEDULER: Realm = Realm::Own("scheduler");

/// Paths below the master's id.
pub(crate) fn routes(routes: &mut Routes<Master>) {
    macro_rules! about_the_cluster {
        ($( $path:literal, $about:expr => $document:expr ),* $(,)?) => {
            $( routes.get($path, |me, cx, request| {
                me.as_leader(cx, request, |me, cx, request| {
                    let document: fn(&Request) -> Document = $document;
                    me.show(cx, request, document(request))
                })
            }).about($about); )*
        };
    }
    about_the_cluster! {
        "/state", About::read("Everything: the master itself, agents, frameworks, their tasks, executors and offers")
            => |_| Document::State,
        "/state-summary", About::read("Agents and frameworks with counts of their tasks by state")
            => |_| Document::Summary,
        "/slaves", About::read("Agents, with what is reserved on them").with(&[("slave_id", "Only this agent")])
            => |request| Document::Agents(request.query.get("slave_id").cloned()),
        "/frameworks", About::read("Frameworks that live, and the last that are over")
            .with(&[("framework_id", "Only this framework")])
            => |request| Document::Frameworks(request.query.get("framework_id").cloned()),
        "/tasks", About::read("Tasks, a page at a time").with(&[
            ("limit", "How many, 100 when not given"),
            ("offset", "How many to pass over"),
            ("order", "`asc` for the oldest first, else the newest"),
            ("framework_id", "Only those of this framework"),
            ("task_id", "Only those of this id"),
        ]) => |request| Document::Tasks(TasksWanted::of(&request.query)),
        "/roles", About::read("Roles with weights and what they hold") => |_| Document::Roles,
    }
    explanations(routes);
    calls(routes);
    routes
        .open("/redirect", |me, _, request| {
            // Nothing stands below it.
            let path = request.target.split('?').next().unwrap_or_default();
            if path.ends_with("/redirect") {
                me.redirect("")
            } else {
                Response::text(404, "404 Not Found.")
            }
        })
        .about(About::read("Sends to the leading master with 307").gives(&[]))
        .get("/flags", Master::show_flags)
        .about(About::read("Flags of the program"))
        .open("/health", |_, _, _| Response::empty())
        .about(About::read("Whether the master is up").gives(&[]));
    let path = &[("path", "A virtual path: a master has none")];
    let files = About::read("Files, of which a master shows none").with(path);
    routes
        .get("/files/browse", no_file)
        .about(files)
        .get("/files/read", no_file)
        .about(files)
        .get("/files/download", no_file)
        .about(files)
        .get("/files/debug", |_, _, _| Response::json(&json!({})))
        .about(About::read(
            "Which virtual paths there are: none on a master",
        ));
}

/// What is told to who wonders.
fn explanations(routes: &mut Routes<Master>) {
    routes
        .get("/explain/framework", |me, cx, request| {
            me.as_leader(cx, request, Master::explain_framework)
        })
        .about(
            About::read("Why a framework is offered what it is offered, and no more")
                .saying("The id may also be the last part of the path: /explain/framework/ID.")
                .with(&[
                    ("id", "The framework"),
                    ("agent_id", "Only this agent"),
                    ("offset", "Agents to pass over"),
                    ("limit", "Agents to show, 100 when not given, at most 1000"),
                    ("format", "`text`, or `json`"),
                ])
                .in_text_too(),
        )
        .get("/explain/task", |me, cx, request| {
            me.as_leader(cx, request, Master::explain_task)
        })
        .about(
            About::read("What became of a task, and which message the master waits for")
                .saying("The id may also be the last part of the path: /explain/task/ID.")
                .with(&[
                    ("id", "The task"),
                    ("framework_id", "Only that of this framework"),
                    ("format", "`text`, or `json`"),
                ])
                .in_text_too(),
        );
}

/// What is called, and may change something.
fn calls(routes: &mut Routes<Master>) {
    routes
        .call("/weights", |me, cx, request| {
            me.as_reader(cx, request, &["GET", "PUT"], Master::show_weights)
        })
        .about(About::read("Weights of roles that have one"))
        .call("/quota", |me, cx, request| {
            me.as_reader(
                cx,
                request,
                &["GET", "POST", "DELETE"],
                Master::show_nothing,
            )
        })
        .about(About::read("Quota, of which there is none yet"))
        .call("/maintenance/schedule", |me, cx, request| {
            me.as_reader(cx, request, &["GET", "POST"], Master::show_nothing)
        })
        .about(About::read("When machines are maintained: never, yet"))
        .call_in(Realm::ReadOnly, "/maintenance/status", |me, cx, request| {
            me.as_reader(cx, request, &["GET"], Master::show_nothing)
        })
        .about(About::read("Which machines are maintained: none, yet"))
        .call("/teardown", |me, cx, request| {
            me.as_caller(cx, request, Master::teardown_form)
        })
        .about(
            About::read("Ends a framework with all its tasks and executors")
                .saying("The body is a form with `frameworkId`.")
                .by(&["POST"])
                .takes(&["application/x-www-form-urlencoded"])
                .gives(&[]),
        )
        .call("/api/v1", Master::operator_api)
        .reading(operator::read)
        .about(About::call("Calls of operators").saying(
            "`type` says what is called: GET_HEALTH, GET_STATE, SUBSCRIBE, TEARDOWN and others, as in Mesos. SUBSCRIBE is \
             answered with a stream of records.",
        ))
        .call_in(SCHEDULER, "/api/v1/scheduler", Master::scheduler_api)
        .reading(Master::read_scheduler_call)
        .about(About::call("Calls of schedulers").saying(
            "SUBSCRIBE is answered with a stream of events and a header Mesos-Stream-Id, which all other calls bring with \
             them; they are answered with 202.",
        ));
}

/// A master shows no files.
fn no_file(_: &mut Master, _: &mut Context<'_, Master>, request: &Request) -> Response {
    if request.query.contains_key("path") {
        Response::text(404, "")
    } else {
        Response::text(400, "Expecting 'path=value' in query.\n")
    }
}

impl Master {
    fn show_weights(&mut self, _: &mut Context<'_, Self>, _: &Request) -> Response {
        Response::serialized(&summary::weights(&self.weights))
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
            Some(id) => (request.caller.may(Need::Change).map_err(Into::into)).and_then(|()| {
                self.teardown_by_operator(cx, &FrameworkId::new(id), &request.caller)
            }),
        };
        ended.unwrap_or_else(|refusal| Response::text(refusal.status, refusal.text))
    }
}

/// The value of a field of a form: `frameworkId=F&x=y`.
fn form(body: &[u8], name: &str) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let mut fields = text.split('&').filter_map(|field| field.split_once('='));
    let (_, value) = fields.find(|(field, _)| *field == name)?;
    Some(decoded(value, true))
}

/// A part of a path or a value of a form as it was meant: `%2F` is `/`, and in a form `+` is a space.
fn decoded(value: &str, is_form: bool) -> String {
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
            (b'+', None) if is_form => b' ',
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
