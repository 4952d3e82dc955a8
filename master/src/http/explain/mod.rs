//! `/explain/framework/ID` and `/explain/task/ID`: why no offer came, and what became of a task and which message the
//! master waits for, from the master's and the allocator's own records.
//!
//! Pure: what is told follows from a [`View`], a [`Ledger`] and, for a framework, what the allocator has said of it
//! ([`crate::allocator::explain`]). The shell is [`super::documents`]. What the records do not say is said to be unknown.

mod framework;
mod task;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use meseta_protocol::{AgentId, FrameworkId, TaskId};
use meseta_runtime::http::TEXT;
use meseta_runtime::{Request, Response};
use serde::Serialize;

use super::view::View;
use crate::allocator::explain::{FrameworkExplained, MOST_AGENTS};
use crate::state::{Framework, Standing};

/// Agents that are shown when no limit is given.
const DEFAULT_AGENTS: usize = 100;

/// What somebody wants explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Question {
    /// Why a framework is offered what it is offered.
    Framework {
        /// The framework.
        id: FrameworkId,
        /// Only this agent.
        agent: Option<AgentId>,
        /// Agents to pass over.
        offset: usize,
        /// Agents to show.
        limit: usize,
    },
    /// What became of a task.
    Task {
        /// The task.
        id: TaskId,
        /// Only that of this framework.
        framework: Option<FrameworkId>,
    },
}

/// What is to be explained, and how it is to be written.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) question: Question,
    pub(super) is_text: bool,
    /// What the allocator says; none when it was not asked or has not answered.
    pub(super) allocator: Option<FrameworkExplained>,
}

/// Records that no other document is written from, as they were when somebody asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    /// The time since the Unix epoch.
    pub(super) now: Duration,
    /// Agents that this master has marked unreachable, and those that are gone, since when.
    pub(super) unreachable: BTreeMap<AgentId, Duration>,
    pub(super) gone: BTreeMap<AgentId, Duration>,
    /// What is under way with agents.
    pub(super) unsettled: BTreeMap<AgentId, &'static str>,
    /// How long an agent may stay away.
    pub(super) patience: Duration,
}

/// All that is told from.
pub(super) struct Records<'a> {
    pub(super) view: &'a View,
    pub(super) ledger: &'a Ledger,
}

/// How an agent stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct AgentStands {
    id: AgentId,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<String>,
    standing: &'static str,
    /// When that began, in seconds since the Unix epoch, where it is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<f64>,
    what: String,
}

impl Records<'_> {
    fn agent(&self, id: &AgentId) -> AgentStands {
        let view = self.view;
        let stands = |standing, since: Option<Duration>, what: String| AgentStands {
            id: id.clone(),
            hostname: None,
            standing,
            since: since.map(|since| since.as_secs_f64()),
            what,
        };
        let patience = humantime::format_duration(self.ledger.patience);
        let under_way = self.ledger.unsettled.get(id);
        let under_way = under_way.map_or_else(String::new, |what| format!("; {what}"));
        if let Some(agent) = view.state.agent(id) {
            let stands = if agent.connected {
                let since = agent.reregistered.unwrap_or(agent.registered);
                stands(
                    "registered",
                    Some(since),
                    format!("it is registered and connected{under_way}"),
                )
            } else {
                let text = format!(
                    "its connection is lost: when it has not registered again {patience} after that, it is marked \
                     unreachable{under_way}"
                );
                stands("disconnected", None, text)
            };
            return AgentStands {
                hostname: Some(agent.info.hostname.clone()),
                ..stands
            };
        }
        if let Some(since) = self.ledger.gone.get(id) {
            let text = "an operator has marked it gone: it will not come back".to_owned();
            return stands("gone", Some(*since), text);
        }
        if let Some(since) = self.ledger.unreachable.get(id) {
            let text = format!("it is unreachable, and may still come back{under_way}");
            return stands("unreachable", Some(*since), text);
        }
        if let Some(info) = view.awaited.get(id) {
            let text = format!(
                "the registry knows it, and it has not registered with this master yet: it has {patience} from the \
                 master's recovery on, then it is marked unreachable{under_way}"
            );
            return AgentStands {
                hostname: Some(info.hostname.clone()),
                ..stands("awaited", view.elected, text)
            };
        }
        let text = "this master does not know it: it was removed, or never was here".to_owned();
        stands("unknown", None, text)
    }
}

/// How a framework stands, in a word and in words.
fn standing(framework: &Framework) -> (&'static str, String) {
    let info = &framework.info;
    match framework.standing {
        _ if framework.unregistered.is_some() => (
            "completed",
            "it is over: its scheduler has ended it, or did not come back in time".to_owned(),
        ),
        Standing::Active => ("active", "its scheduler is subscribed".to_owned()),
        Standing::Inactive => (
            "inactive",
            "its scheduler is connected and has asked for no more offers until it subscribes again"
                .to_owned(),
        ),
        Standing::Disconnected => {
            let timeout = Duration::try_from_secs_f64(info.failover_timeout);
            let until = timeout.map_or_else(
                |_| "it is kept until it comes back".to_owned(),
                |timeout| {
                    let timeout = humantime::format_duration(timeout);
                    format!("it ends when it is away for its failover_timeout of {timeout}")
                },
            );
            (
                "disconnected",
                format!("the connection to its scheduler is lost: {until}"),
            )
        }
        Standing::Recovered => (
            "recovered",
            "agents have named it; its scheduler has not subscribed with this master yet"
                .to_owned(),
        ),
    }
}

impl Question {
    /// What a request asks, whose path ends with `<kind>/ID`, unless the id is a parameter.
    ///
    /// # Errors
    /// What is missing, when it names nothing.
    pub(super) fn of_framework(request: &Request) -> Result<Self, String> {
        let number = |name: &str, missing: usize| match request.query.get(name) {
            None => Ok(missing),
            Some(text) => text
                .parse()
                .map_err(|_| format!("'{name}' is to be a whole number, 0 or more, not '{text}'.")),
        };
        let agent = request
            .query
            .get("agent_id")
            .or_else(|| request.query.get("slave_id"));
        Ok(Self::Framework {
            id: FrameworkId::new(id_in(request, "framework")?),
            agent: agent.map(|id| AgentId::new(id.as_str())),
            offset: number("offset", 0)?,
            limit: number("limit", DEFAULT_AGENTS)?.min(MOST_AGENTS),
        })
    }

    /// The same of a task.
    ///
    /// # Errors
    /// What is missing, when it names nothing.
    pub(super) fn of_task(request: &Request) -> Result<Self, String> {
        let framework = request.query.get("framework_id");
        Ok(Self::Task {
            id: TaskId::new(id_in(request, "task")?),
            framework: framework.map(|id| FrameworkId::new(id.as_str())),
        })
    }
}

/// The id that a request names.
fn id_in(request: &Request, kind: &str) -> Result<String, String> {
    let path = request.target.split('?').next().unwrap_or_default();
    let in_path = path.split_once(&format!("/explain/{kind}/"));
    // A parameter can hold any id; a path none that ends in `.json`.
    let given = match (request.query.get("id"), in_path) {
        (Some(id), _) => Some(id.clone()),
        (None, Some((_, id))) => Some(super::decoded(id, false)),
        (None, None) => None,
    };
    given
        .filter(|id| !id.is_empty())
        .ok_or_else(|| format!("Expecting an id: /explain/{kind}/ID, or /explain/{kind}?id=ID.\n"))
}

/// Whether a request wants text: `?format=text`, or it takes text and no JSON.
pub(super) fn wants_text(request: &Request) -> bool {
    match request.query.get("format").map(String::as_str) {
        Some("text") => true,
        Some(_) => false,
        None => {
            let accept = request.header("accept").unwrap_or_default();
            accept.contains("text/") && !accept.contains("json") && !accept.contains("text/html")
        }
    }
}

/// The answer.
pub(super) fn answer(wanted: &Wanted, records: &Records<'_>) -> Response {
    let (is_known, written) = match &wanted.question {
        Question::Framework {
            id,
            offset,
            limit,
            agent,
        } => {
            let told = framework::explain(
                records,
                id,
                wanted.allocator.as_ref(),
                agent.as_ref(),
                (*offset, *limit),
            );
            (
                told.is_known(),
                written(&told, wanted.is_text, |told| told.lines()),
            )
        }
        Question::Task { id, framework } => {
            let told = task::explain(records, id, framework.as_ref());
            (
                told.is_known(),
                written(&told, wanted.is_text, |told| told.lines()),
            )
        }
    };
    let status = if is_known { 200 } else { 404 };
    written.with_status(status).with_header("vary", "Accept")
}

fn written<T: Serialize>(told: &T, is_text: bool, lines: impl Fn(&T) -> Vec<String>) -> Response {
    if !is_text {
        return Response::serialized(told);
    }
    let mut text = String::new();
    for line in lines(told) {
        // Whoever named a task or framework may have meant to write lines of their own.
        let safe = |c: char| if c.is_control() { '\u{fffd}' } else { c };
        text.extend(line.chars().map(safe));
        text.push('\n');
    }
    Response::body(TEXT, text)
}

/// The year 10000, in seconds since 1970: from there on dates cannot be written.
const LAST_DATE: f64 = 253_402_300_800.0;

/// A moment as a date, for people. Executors may have made it up.
fn date(seconds: f64) -> String {
    let since = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    match UNIX_EPOCH.checked_add(since) {
        Some(at) if (0.0..LAST_DATE - 1.0).contains(&seconds) => {
            humantime::format_rfc3339_millis(at).to_string()
        }
        Some(_) | None => format!("{seconds} s"),
    }
}

/// `, since …`, where that is recorded.
fn since(at: Option<f64>) -> String {
    let mut text = String::new();
    if let Some(at) = at {
        // Writing to a text cannot fail.
        let _written = write!(text, ", since {}", date(at));
    }
    text
}
