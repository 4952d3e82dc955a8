//! What became of a task, and which message the master waits for. Pure.
//!
//! ```text
//!   launched ──RunTask──▶ agent ──UpdateStatus──▶ master ──StatusUpdated──▶ framework
//!                                                master ◀─AcknowledgeStatus─┘
//! ```
//!
//! The master remembers of a task its states, which update it has forwarded last, and whether it was to be killed. It does
//! not remember which of the updates before the last one were acknowledged: its agent does.

use meseta_protocol::status::{StatusSource, TaskState, TaskStatus};
use meseta_protocol::task::Task;
use meseta_protocol::{ExecutorId, FrameworkId, TaskId, UpdateId};
use serde::Serialize;

use super::{AgentStands, Records, date, since, standing};
use crate::state::{Framework, end_is_forwarded};

/// Most tasks of one id that are told of: an id may be used again.
const MOST_FOUND: usize = 20;

/// All that is told of a task.
#[derive(Debug, Serialize)]
pub(super) struct TaskExplained {
    task_id: TaskId,
    /// Those of this id that are known; a framework may use an id again, and so may others.
    found: Vec<Found>,
    /// What the master does not know, where that matters.
    unknown: Vec<String>,
}

/// Where the master keeps a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum KeptAs {
    Live,
    Unreachable,
    Completed,
}

#[derive(Debug, Serialize)]
struct Found {
    framework_id: FrameworkId,
    framework_name: String,
    framework_standing: &'static str,
    framework_what: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    executor_id: Option<ExecutorId>,
    agent: AgentStands,
    kept_as: KeptAs,
    state: TaskState,
    /// Its states, one for each run of equal ones.
    statuses: Vec<StatusTold>,
    /// The update that its framework was sent last.
    #[serde(skip_serializing_if = "Option::is_none")]
    forwarded: Option<Forwarded>,
    /// Whether the framework has asked for its end.
    kill_asked: bool,
    what: String,
    waits_for: Vec<Wait>,
    unknown: Vec<String>,
}

#[derive(Debug, Serialize)]
struct StatusTold {
    state: TaskState,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<StatusSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uuid: Option<UpdateId>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Forwarded {
    state: TaskState,
    #[serde(skip_serializing_if = "Option::is_none")]
    uuid: Option<UpdateId>,
}

/// A message that is to come.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Wait {
    /// Its name.
    pub(super) message: &'static str,
    /// Who is to send it: `framework` or `agent`.
    pub(super) from: &'static str,
    /// Update that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) uuid: Option<UpdateId>,
    /// State that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<TaskState>,
    /// In words.
    pub(super) text: String,
}

impl Wait {
    fn new(message: &'static str, from: &'static str, text: impl Into<String>) -> Self {
        Self {
            message,
            from,
            uuid: None,
            state: None,
            text: text.into(),
        }
    }
}

impl StatusTold {
    fn of(status: &TaskStatus) -> Self {
        Self {
            state: status.state,
            timestamp: status.timestamp,
            source: status.source,
            reason: status.reason.map(|reason| reason.name()),
            message: status.message.clone(),
            uuid: status.uuid,
        }
    }

    fn line(&self) -> String {
        let mut line = format!(
            "{} {}",
            self.timestamp.map_or_else(|| "?".to_owned(), date),
            self.state.name()
        );
        let source = self.source.map(|source| source.name());
        for part in [source, self.reason].into_iter().flatten() {
            line.push(' ');
            line.push_str(part);
        }
        if let Some(message) = &self.message {
            line.push_str(": ");
            line.push_str(message);
        }
        line
    }
}

/// All that is known of the tasks of an id, the living first.
pub(super) fn explain(
    records: &Records<'_>,
    id: &TaskId,
    wanted: Option<&FrameworkId>,
) -> TaskExplained {
    let state = &records.view.state;
    let is_wanted =
        |one: &&Framework| wanted.is_none_or(|wanted| one.info.id.as_ref() == Some(wanted));
    let living = || state.frameworks().map(|(_, framework)| framework);
    let all = || {
        living()
            .chain(state.completed_frameworks())
            .filter(is_wanted)
    };
    let of_id = |task: &&std::sync::Arc<Task>| task.task_id == *id;
    let live = all().filter_map(|f| Some((f, KeptAs::Live, f.tasks.get(id)?)));
    let lost = all().flat_map(|f| {
        let tasks = f.unreachable_tasks.iter().filter(of_id);
        tasks.map(move |task| (f, KeptAs::Unreachable, task))
    });
    let over = all().flat_map(|f| {
        // The newest first.
        let tasks = f.completed_tasks.iter().rev().filter(of_id);
        tasks.map(move |task| (f, KeptAs::Completed, task))
    });
    let found: Vec<Found> = live
        .chain(lost)
        .chain(over)
        .take(MOST_FOUND)
        .map(|(framework, kept_as, task)| found(records, framework, kept_as, task))
        .collect();
    let unknown = if found.is_empty() {
        unknown(records, wanted)
    } else {
        Vec::new()
    };
    TaskExplained {
        task_id: id.clone(),
        found,
        unknown,
    }
}

/// Why a task may not be known.
fn unknown(records: &Records<'_>, wanted: Option<&FrameworkId>) -> Vec<String> {
    let view = records.view;
    let limits = view.state.limits;
    let mut all = Vec::new();
    match wanted {
        Some(id) if view.state.framework(id).is_none() && !view.state.is_completed(id) => {
            all.push(format!("this master does not know framework {id}: it never was here, or is over and forgotten"));
        }
        Some(_) | None => all.push(
            "no task of this id was launched with this master or reported to it by an agent, or it is over and forgotten"
                .to_owned(),
        ),
    }
    all.push(format!(
        "of each framework the last {} completed and the last {} unreachable tasks are remembered, and the last {} frameworks \
         that are over",
        limits.completed_tasks, limits.unreachable_tasks, limits.completed_frameworks
    ));
    if let Some(elected) = view.elected {
        let since = date(elected.as_secs_f64());
        all.push(format!(
            "this master leads since {since}: of what was over before, only agents know"
        ));
    }
    let awaited = view.awaited.len();
    if awaited > 0 {
        all.push(format!(
            "{awaited} agents of the registry have not registered with this master yet: it may be on one of them"
        ));
    }
    all.push(
        "a launch that was refused leaves no task: its framework was told so by a status update"
            .to_owned(),
    );
    all
}

fn found(records: &Records<'_>, framework: &Framework, kept_as: KeptAs, task: &Task) -> Found {
    let (framework_standing, framework_what) = standing(framework);
    let key = (task.framework_id.clone(), task.task_id.clone());
    let agent = records.view.state.agent(&task.agent_id);
    let kill_asked =
        kept_as == KeptAs::Live && agent.is_some_and(|one| one.killed_tasks.contains(&key));
    let lingers = agent
        .and_then(|agent| agent.lingering.get(&key))
        .is_some_and(|held| !held.is_empty());
    let is_connected = agent.is_some_and(|agent| agent.connected);
    let (what, waits_for, unknown) = match kept_as {
        KeptAs::Live => live(framework, task, is_connected, kill_asked),
        KeptAs::Unreachable => lost(task),
        KeptAs::Completed => over(framework, task, lingers),
    };
    Found {
        framework_id: task.framework_id.clone(),
        framework_name: framework.info.name.clone(),
        framework_standing,
        framework_what,
        name: task.name.clone(),
        executor_id: task.executor_id.clone(),
        agent: records.agent(&task.agent_id),
        kept_as,
        state: task.state,
        statuses: task.statuses.iter().map(StatusTold::of).collect(),
        forwarded: forwarded(task),
        kill_asked,
        what,
        waits_for,
        unknown,
    }
}

fn forwarded(task: &Task) -> Option<Forwarded> {
    let state = task.status_update_state?;
    Some(Forwarded {
        state,
        uuid: task.status_update_uuid,
    })
}

/// What is told of one task: in words, what is waited for, what is not known.
type Told = (String, Vec<Wait>, Vec<String>);

/// A task whose end has not come, or is not acknowledged.
pub(super) fn live(
    framework: &Framework,
    task: &Task,
    is_connected: bool,
    kill_asked: bool,
) -> Told {
    let mut waits = Vec::new();
    let mut unknown = Vec::new();
    let is_over = task.state.is_terminal();
    let sent = forwarded(task);
    // Its agent knows of a later state, so it still holds updates back behind the one that was forwarded.
    let is_behind = sent.as_ref().is_some_and(|sent| sent.state != task.state);
    let end_is_sent = end_is_forwarded(task);
    if !is_connected {
        let text = "the agent is to register again: until then it hears nothing, and nothing is heard of its tasks";
        waits.push(Wait::new("ReregisterAgent", "agent", text));
        if kill_asked {
            waits.push(Wait::new(
                "UpdateStatus",
                "agent",
                "the kill is sent again when the agent is back, and answered by an end",
            ));
        }
    } else if !is_over && kill_asked {
        waits.push(Wait::new(
            "UpdateStatus",
            "agent",
            "an end of the task, in answer to KillAgentTask",
        ));
    } else if task.statuses.is_empty() {
        waits.push(Wait::new(
            "UpdateStatus",
            "agent",
            "the first update of the task, in answer to RunTask",
        ));
    } else if !is_over && !is_behind {
        waits.push(Wait::new(
            "UpdateStatus",
            "agent",
            "the task's next state: nothing else is open",
        ));
    }
    if !task.statuses.is_empty() && (is_behind || end_is_sent) {
        if let Some(sent) = &sent {
            let then = if end_is_sent {
                "then the task is completed"
            } else {
                "then the agent sends the next one"
            };
            waits.push(Wait {
                uuid: sent.uuid,
                state: Some(sent.state),
                ..Wait::new(
                    "AcknowledgeStatus",
                    "framework",
                    format!("its acknowledgement of {}: {then}", sent.state.name()),
                )
            });
        }
    } else if let Some(sent) = &sent {
        let state = sent.state.name();
        unknown.push(format!("whether its framework has acknowledged {state}: the agent knows, the master keeps no record of it"));
    }
    if sent.is_none() && !task.statuses.is_empty() {
        unknown.push("whether its framework has acknowledged anything: since this master leads no update of the task was sent on".to_owned());
        if is_over {
            waits.push(Wait::new(
                "UpdateStatus",
                "agent",
                "the end of the task once more, to be sent on to its framework",
            ));
        }
    }
    if !framework.is_connected() {
        let text = "its scheduler is to subscribe again: until then updates are not sent on, and agents keep them";
        waits.push(Wait::new("SubscribeFramework", "framework", text));
    }
    let what = match (is_over, end_is_sent) {
        (true, true) => "it has ended, its framework was told, and has not acknowledged it",
        (true, false) => "it has ended, which its framework has not been told yet",
        (false, _) if task.statuses.is_empty() => {
            "it was sent to its agent, and nothing was heard of it yet"
        }
        (false, _) => "it has not ended",
    };
    (what.to_owned(), waits, unknown)
}

/// A task whose agent is unreachable.
fn lost(task: &Task) -> Told {
    let text = "the agent is to register again: with the task, if that still runs, or without it";
    let waits = vec![Wait::new("ReregisterAgent", "agent", text)];
    let what = if task.state.is_terminal() {
        "it has ended; its agent became unreachable before its framework acknowledged that"
    } else {
        "its agent became unreachable: it may run or not"
    };
    let unknown = "whether it still runs: only its agent knows".to_owned();
    (what.to_owned(), waits, vec![unknown])
}

/// A task that is over.
fn over(framework: &Framework, task: &Task, lingers: bool) -> Told {
    let last = task.statuses.last();
    let is_of_master = last.and_then(|last| last.source) == Some(StatusSource::Master);
    let mut waits = Vec::new();
    let mut unknown = Vec::new();
    let what = if is_of_master {
        "it is over by the master's own word, which needs no acknowledgement"
    } else if framework.unregistered.is_some() {
        unknown.push("whether its end was acknowledged before its framework ended".to_owned());
        "it is over, and so is its framework"
    } else {
        "it is over: its framework has acknowledged its end, or its agent was taken out before"
    };
    if is_of_master {
        unknown.push(
            "how it has ended in fact, if it has: nothing that its agent says of it later is kept"
                .to_owned(),
        );
    }
    if lingers {
        waits.push(Wait::new(
            "UpdateStatus",
            "agent",
            "its end: the agent has listed it since, and it holds resources until then",
        ));
    }
    (what.to_owned(), waits, unknown)
}

impl TaskExplained {
    pub(super) fn is_known(&self) -> bool {
        !self.found.is_empty()
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.found.is_empty() {
            all.push(format!(
                "Task {} is not known to this master.",
                self.task_id
            ));
        }
        for found in &self.found {
            all.extend(found.lines(&self.task_id));
        }
        all.extend(self.unknown.iter().map(|text| format!("  {text}")));
        all
    }
}

impl Found {
    fn lines(&self, id: &TaskId) -> Vec<String> {
        let mut all = vec![format!(
            "Task {id} of framework {} ({}): {}, {}.",
            self.framework_id,
            self.framework_name,
            self.state.name(),
            self.what
        )];
        let hostname = self.agent.hostname.as_deref().unwrap_or("host not known");
        all.push(format!(
            "  agent      {} ({hostname}): {}{}",
            self.agent.id,
            self.agent.what,
            since(self.agent.since)
        ));
        all.push(format!("  framework  {}", self.framework_what));
        all.extend(
            self.statuses
                .iter()
                .map(|status| format!("  status     {}", status.line())),
        );
        if let Some(sent) = &self.forwarded {
            let uuid = sent.uuid.map(|uuid| format!(" {uuid}")).unwrap_or_default();
            all.push(format!(
                "  sent on    {}{uuid}, last of all",
                sent.state.name()
            ));
        }
        for wait in &self.waits_for {
            let uuid = wait
                .uuid
                .map(|uuid| format!(" ({uuid})"))
                .unwrap_or_default();
            all.push(format!(
                "  waits for  {} from the {}: {}{uuid}",
                wait.message, wait.from, wait.text
            ));
        }
        if self.waits_for.is_empty() {
            all.push("  waits for  nothing".to_owned());
        }
        all.extend(
            self.unknown
                .iter()
                .map(|text| format!("  not known  {text}")),
        );
        all
    }
}
