//! The process `logging` of a node: changes what its program logs, for a time.
//!
//! It owns nothing but the timers that take changes back. Who may send what is said by the messages' senders; over
//! HTTP `/logging` is for whoever may look, and `/logging/toggle` for whoever may change something.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::{Level, enabled, info, warn};

use super::{Filter, LogError, MAX_CHANGE, directives};
use crate::context::Context;
use crate::http::about::About;
use crate::http::{Need, Realm, Request, Response, TEXT};
use crate::message::{Ask, Message};
use crate::pid::Pid;
use crate::process::{Process, Receive, Routes};

/// Id of the process.
pub const LOGGING: &str = "logging";

/// Role that may change what is logged.
const OPERATOR: &[&str] = &["operator"];

/// Operator → `logging`: log by this filter for a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetLogFilter {
    /// The filter, such as `info,meseta_master=debug`.
    pub directives: String,
    /// For how many seconds: 1 to 604,800, which are seven days.
    pub seconds: u64,
}

impl Message for SetLogFilter {
    const NAME: &'static str = "meseta.runtime.SetLogFilter";
    const SENDERS: &'static [&'static str] = OPERATOR;
}

impl Ask for SetLogFilter {
    type Reply = LogFilter;
}

/// Operator → `logging`: log again by the filter that the program was started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetLogFilter {}

impl Message for ResetLogFilter {
    const NAME: &'static str = "meseta.runtime.ResetLogFilter";
    const SENDERS: &'static [&'static str] = OPERATOR;
}

impl Ask for ResetLogFilter {
    type Reply = LogFilter;
}

/// `logging` → who asked: what is in force now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFilter {
    /// The filter in force.
    pub directives: String,
    /// The filter that the program was started with.
    #[serde(default)]
    pub base: String,
    /// Who has changed it; none when it is the base.
    #[serde(default)]
    pub by: Option<String>,
    /// After how many seconds the base is in force again; none when it is.
    #[serde(default)]
    pub seconds_left: Option<u64>,
    /// Why the request changed nothing; none when it was carried out.
    #[serde(default)]
    pub refused: Option<String>,
}

impl Message for LogFilter {
    const NAME: &'static str = "meseta.runtime.LogFilter";
}

/// The process.
pub struct Logging {
    /// Looked up each time: a program may set up its logging after its node.
    filter: Box<dyn Fn() -> Option<Filter>>,
}

impl Logging {
    /// For the filter of this program.
    pub fn of_program() -> Self {
        Self::of(Filter::of_program)
    }

    /// For a filter of one's own.
    pub fn of(filter: impl Fn() -> Option<Filter> + 'static) -> Self {
        Self {
            filter: Box::new(filter),
        }
    }

    fn filter(&self) -> Result<Filter, LogError> {
        (self.filter)().ok_or(LogError::NotOurs)
    }

    fn set(
        &mut self,
        cx: &mut Context<'_, Self>,
        by: &str,
        directives: &str,
        limit: Duration,
    ) -> Result<(), LogError> {
        if limit < Duration::from_secs(1) || limit > MAX_CHANGE {
            return Err(LogError::Duration(limit));
        }
        let filter = self.filter()?;
        let changed = || {
            info!(
                by,
                directives,
                seconds = limit.as_secs(),
                "log filter changed"
            );
        };
        let before = enabled!(Level::INFO);
        if before {
            changed();
        }
        let change = filter.set(directives, by, cx.wall() + limit)?;
        if !before {
            tell(&filter, changed);
        }
        cx.after(limit, move |_, _| match filter.reset(Some(change)) {
            Ok(true) => tell(&filter, || {
                info!("the time of the changed log filter is over");
            }),
            Ok(false) => {}
            Err(error) => warn!(%error, "the log filter stays changed after its time"),
        });
        Ok(())
    }

    fn reset(&mut self, by: &str) -> Result<(), LogError> {
        let filter = self.filter()?;
        if filter.reset(None)? {
            tell(&filter, || info!(by, "log filter reset"));
        }
        Ok(())
    }

    /// What is in force, with what became of a request.
    fn report(&self, cx: &Context<'_, Self>, outcome: Result<(), LogError>) -> LogFilter {
        let refused = outcome.err().map(|error| error.to_string());
        let Some(in_force) = (self.filter)().map(|filter| filter.in_force()) else {
            return LogFilter {
                refused: refused.or_else(|| Some(LogError::NotOurs.to_string())),
                ..LogFilter::default()
            };
        };
        let left = in_force.until.map(|until| until.saturating_sub(cx.wall()));
        LogFilter {
            directives: in_force.directives,
            base: in_force.base,
            by: in_force.by,
            seconds_left: left.map(|left| left.as_secs()),
            refused,
        }
    }

    /// `GET /logging`: what is in force.
    fn show(&mut self, cx: &mut Context<'_, Self>, _: &Request) -> Response {
        let report = self.report(cx, Ok(()));
        Response::json(&json!({
            "directives": report.directives,
            "base": report.base,
            "by": report.by,
            "seconds_left": report.seconds_left,
            "changeable": report.refused.is_none(),
        }))
    }

    /// `/logging/toggle?level=N&duration=D`, as Mesos has it; without parameters the level in force.
    fn toggle(&mut self, cx: &mut Context<'_, Self>, request: &Request) -> Response {
        if let Err(why) = request.caller.may(Need::Change) {
            return Response::from(why);
        }
        if !matches!(request.method.as_str(), "GET" | "HEAD" | "POST") {
            return Response::method_not_allowed(&["GET", "POST"], &request.method);
        }
        if let Some(name) = given_twice(&request.target, request.query.len()) {
            let text = format!("'{name}' is given more than once: give it once.");
            return bad_request(&text);
        }
        let (level, duration) = match (request.query.get("level"), request.query.get("duration")) {
            (None, None) => return self.level(),
            (Some(_), None) => return bad_request("Expecting 'duration=value' in query."),
            (None, Some(_)) => return bad_request("Expecting 'level=value' in query."),
            (Some(level), Some(duration)) => (level, duration),
        };
        let digits = !level.is_empty() && level.bytes().all(|byte| byte.is_ascii_digit());
        let Some(level) = level.parse::<u32>().ok().filter(|_| digits) else {
            return bad_request(&format!(
                "Invalid level '{level}': use a whole number from 0, which resets, to {}; 2 and more log everything.",
                u32::MAX
            ));
        };
        let limit = match humantime::parse_duration(duration) {
            Ok(limit) => limit,
            Err(error) => {
                return bad_request(&format!(
                    "duration `{duration}`: {error}: write 5mins, 90secs"
                ));
            }
        };
        let by = format!("{} over HTTP", request.caller);
        let outcome = match (self.filter(), level) {
            (Err(error), _) => Err(error),
            (Ok(_), 0) => self.reset(&by),
            (Ok(filter), level) => {
                let directives = directives::verbosity(&filter.in_force().base, level);
                self.set(cx, &by, &directives, limit)
            }
        };
        match outcome {
            Ok(()) => Response::empty(),
            Err(error) => bad_request(&error.to_string()),
        }
    }

    fn level(&self) -> Response {
        match self.filter() {
            Ok(filter) => {
                let in_force = filter.in_force();
                let level = directives::as_verbosity(&in_force.base, &in_force.directives);
                Response::text(200, format!("{level}\n"))
            }
            Err(error) => bad_request(&error.to_string()),
        }
    }
}

/// Logs a change, whatever is logged at present.
fn tell(filter: &Filter, what: impl FnOnce()) {
    if enabled!(Level::INFO) {
        what();
    } else if let Err(error) = filter.announce(what) {
        warn!(%error, "a change of the log filter cannot be announced");
    }
}

/// A parameter that stands twice in what a request asks for, which has so many different ones: which of two was meant, nobody
/// knows.
fn given_twice(target: &str, different: usize) -> Option<&str> {
    let (_, query) = target.split_once('?')?;
    let pairs = || query.split('&').filter(|pair| !pair.is_empty());
    if pairs().count() == different {
        return None;
    }
    let mut seen = BTreeSet::new();
    let mut names = pairs().filter_map(|pair| pair.split('=').next());
    // The same name can be written in two ways.
    names
        .find(|name| !seen.insert(*name))
        .or(Some("a parameter"))
}

fn bad_request(text: &str) -> Response {
    Response::text(400, format!("{text}\n"))
}

impl Process for Logging {
    fn routes(routes: &mut Routes<Self>) {
        routes
            .on::<SetLogFilter>()
            .on::<ResetLogFilter>()
            .get("", Self::show)
            .about(About::read("What the program logs, and until when"))
            .get_in(Realm::ReadWrite, "/toggle", Self::toggle)
            .about(
                About::read("Logs more for a time, or shows how much is logged")
                    .saying("Without parameters it shows the level: 0 is what the program was started with.")
                    .with(&[
                        ("level", "0 to log as at the start, 1 for more, 2 for everything"),
                        ("duration", "For how long, such as 5mins"),
                    ])
                    .gives(&[TEXT]),
            );
    }
}

impl Receive<SetLogFilter> for Logging {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, wanted: SetLogFilter) {
        let limit = Duration::from_secs(wanted.seconds);
        let outcome = self.set(cx, &from.to_string(), &wanted.directives, limit);
        cx.reply(self.report(cx, outcome));
    }
}

impl Receive<ResetLogFilter> for Logging {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, _: ResetLogFilter) {
        let outcome = self.reset(&from.to_string());
        cx.reply(self.report(cx, outcome));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_given_twice_is_found_by_its_name() {
        assert_eq!(given_twice("/x?level=1&duration=1secs", 2), None);
        assert_eq!(
            given_twice("/x?level=1&duration=1secs&level=2", 2),
            Some("level")
        );
        assert_eq!(given_twice("/x?level=&level", 1), Some("level"));
        assert_eq!(given_twice("/x?level=1&l%65vel=2", 1), Some("a parameter"));
        assert_eq!(given_twice("/x?&&", 0), None);
        assert_eq!(given_twice("/x", 0), None);
    }
}
