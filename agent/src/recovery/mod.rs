//! What an agent does with the records it finds at its start: go on as the agent it was, begin as a new one, or stop.
//!
//! Pure: records, this machine and flags in, a plan out. The shell is `handlers/recovery.rs`, which ends what the plan
//! does not keep, looks which of the kept executors live, and waits for those to come back. Source: agent.md §9.
//!
//! ```text
//! records ──> whose are they? ── of this agent, and its settings fit ──> keep frameworks, executors, tasks, updates
//!                 │                        └── after a reboot: executors are gone, their tasks' ends are reported
//!                 ├── latest was taken away, or nothing was written ──> a new agent, nothing is kept
//!                 └── something is unreadable, another agent's, or the settings differ ──> stop and say what to do;
//!                                                                    not strict: keep what can be read
//! ```

mod in_force;

use std::collections::{BTreeMap, BTreeSet};

use meseta_protocol::agent::AgentInfo;
use meseta_protocol::attributes::{Attribute, AttributeValue};
use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::status::{StatusUpdate, TaskStatus};
use meseta_protocol::{FrameworkId, TaskId, UpdateId};

use crate::checkpoint::records::{
    AgentRecord, ExecutorRecord, FrameworkRecord, Record, TaskRecord, UpdateRecord,
};
use crate::checkpoint::{Change, Fault, Latest, Loaded};
use crate::executors::Said;
use crate::status_updates::Key;

pub use self::in_force::{InForce, Leeway, in_force};

/// What becomes of executors that an earlier run of the agent has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Mode {
    /// They come back.
    #[default]
    Reconnect,
    /// They are ended, and then the agent ends.
    Cleanup,
}

impl Mode {
    /// As the flag names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reconnect => "reconnect",
            Self::Cleanup => "cleanup",
        }
    }
}

/// Which changes of its settings an agent may come back with as the same agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Policy {
    /// None that somebody has decided.
    #[default]
    Equal,
    /// More resources and attributes; a domain where there was none.
    Additive,
}

impl Policy {
    /// As the flag names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Additive => "additive",
        }
    }
}

/// What a plan depends on beside the records.
#[derive(Debug, Clone)]
pub struct Here<'a> {
    /// The agent as it is configured now, without an id.
    pub info: &'a AgentInfo,
    /// The present run of the machine.
    pub boot_id: &'a str,
    /// Whether anything unreadable stops the agent.
    pub strict: bool,
    /// Which changes of the settings are allowed.
    pub policy: Policy,
    /// Which of its resources the agent has found out, and how much less of them than before is no matter.
    pub leeway: &'a Leeway,
    /// The work directory, for texts.
    pub work_dir: &'a str,
}

/// A task of an executor.
#[derive(Debug, Clone, PartialEq)]
pub struct RecoveredTask {
    /// As it was written down.
    pub record: TaskRecord,
    /// Its updates, in order.
    pub statuses: Vec<TaskStatus>,
    /// State and id of the update that is in flight, or else was last.
    pub forwarded: Option<TaskStatus>,
}

/// An executor.
#[derive(Debug, Clone, PartialEq)]
pub struct RecoveredExecutor {
    /// As it was written down.
    pub record: ExecutorRecord,
    /// Its tasks, by id.
    pub tasks: Vec<RecoveredTask>,
    /// What it has said of tasks that are over, by their ids.
    pub past: BTreeMap<TaskId, Said>,
}

/// Updates of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct RecoveredStream {
    /// Whose.
    pub key: Key,
    /// Acknowledged last, the oldest first.
    pub acknowledged: Vec<UpdateId>,
    /// Not acknowledged, in order.
    pub waiting: Vec<StatusUpdate>,
}

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recovered {
    /// The agent as it was registered, with its id; none for a new agent.
    pub info: Option<AgentInfo>,
    /// What it offers from now on, when it is not a new agent.
    pub in_force: InForce,
    /// Whether the machine has been started anew: no process of an executor is left.
    pub rebooted: bool,
    /// Frameworks, each with its id.
    pub frameworks: Vec<FrameworkInfo>,
    /// Executors.
    pub executors: Vec<RecoveredExecutor>,
    /// Updates.
    pub streams: Vec<RecoveredStream>,
    /// The highest number of an update.
    pub last_number: u64,
    /// What is to be forgotten of the records, or written down of a task that is over.
    pub forget: Vec<Change>,
    /// What was passed over because it could not be used.
    pub complaints: Vec<String>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// Nothing; the text says why and what helps.
    Stop(String),
    /// Go on with this.
    Go(Box<Recovered>),
}

/// Decides.
pub fn plan(found: Loaded, here: &Here<'_>) -> Plan {
    let mut complaints: Vec<String> = found.faults.iter().map(Fault::text).collect();
    let records = Records::sort(found.records);
    let file = found.file.display().to_string();
    if found.latest == Latest::TakenAway {
        return Plan::Go(Box::new(new_agent(complaints)));
    }
    let whose = records
        .agent
        .as_ref()
        .and_then(|agent| agent.info.id.clone());
    match (&whose, &found.latest) {
        (None, Latest::Never) if records.is_empty() && complaints.is_empty() => {
            return Plan::Go(Box::default());
        }
        (None, _) => complaints.push(format!("{file}: there is no record of the agent itself")),
        (Some(own), Latest::Is(latest)) if own != latest => complaints.push(format!(
            "{file}: its records are those of agent {own}, but meta/slaves/latest names {latest}"
        )),
        (Some(_), _) => {}
    }
    let is_other =
        matches!((&whose, &found.latest), (Some(own), Latest::Is(latest)) if own != latest);
    let agent = records
        .agent
        .clone()
        .filter(|_| whose.is_some() && !is_other);
    let recovered = match agent {
        None => new_agent(Vec::new()),
        Some(agent) => match of_agent(&agent, records, here, &file) {
            Ok(recovered) => recovered,
            Err(stop) => return Plan::Stop(stop),
        },
    };
    complaints.extend(recovered.complaints.iter().cloned());
    if here.strict && !complaints.is_empty() {
        return Plan::Stop(refusal(&complaints, here));
    }
    Plan::Go(Box::new(Recovered {
        complaints,
        ..recovered
    }))
}

impl Fault {
    fn text(&self) -> String {
        format!("{}: {}", self.file.display(), self.what)
    }
}

/// Why a strict agent does not start, and what helps.
fn refusal(complaints: &[String], here: &Here<'_>) -> String {
    const SHOWN: usize = 5;
    let mut text = complaints
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join("; ");
    if complaints.len() > SHOWN {
        text.push_str(&format!("; and {} more", complaints.len() - SHOWN));
    }
    let work_dir = here.work_dir;
    format!(
        "cannot recover: {text}. Start with --strict=false to keep all that can be read, or begin as a new agent, \
         which ends what runs here: rm -f {work_dir}/meta/slaves/latest (`meseta agent inspect {work_dir}` shows what \
         there is)"
    )
}

/// Nothing is kept.
fn new_agent(complaints: Vec<String>) -> Recovered {
    Recovered {
        complaints,
        forget: vec![Change::DeleteBelow(String::new()), Change::Name(None)],
        ..Recovered::default()
    }
}

/// The records by kind.
#[derive(Default)]
struct Records {
    agent: Option<AgentRecord>,
    frameworks: BTreeMap<FrameworkId, FrameworkRecord>,
    executors: Vec<ExecutorRecord>,
    tasks: Vec<TaskRecord>,
    updates: BTreeMap<Key, Vec<UpdateRecord>>,
}

impl Records {
    fn sort(all: Vec<Record>) -> Self {
        let mut sorted = Self::default();
        for record in all {
            match record {
                Record::Agent(agent) => sorted.agent = Some(*agent),
                Record::Framework(framework) => {
                    let id = framework.info.id.clone().unwrap_or_default();
                    sorted.frameworks.insert(id, *framework);
                }
                Record::Executor(executor) => sorted.executors.push(*executor),
                Record::Task(task) => sorted.tasks.push(*task),
                Record::Update(update) => {
                    let key = (
                        update.update.framework_id.clone(),
                        update.update.status.task_id.clone(),
                    );
                    sorted.updates.entry(key).or_default().push(*update);
                }
            }
        }
        for updates in sorted.updates.values_mut() {
            updates.sort_by_key(|update| (!update.acknowledged, update.number));
        }
        sorted
    }

    fn is_empty(&self) -> bool {
        self.agent.is_none()
            && self.frameworks.is_empty()
            && self.executors.is_empty()
            && self.tasks.is_empty()
            && self.updates.is_empty()
    }
}

/// The plan for records of this agent.
fn of_agent(
    agent: &AgentRecord,
    records: Records,
    here: &Here<'_>,
    file: &str,
) -> Result<Recovered, String> {
    let rebooted = agent.boot_id != here.boot_id;
    let in_force = in_force(
        &agent.info.resources,
        &here.info.resources,
        here.leeway,
        here.policy,
    );
    let is = AgentInfo {
        resources: in_force.resources.clone(),
        ..here.info.clone()
    };
    let differs = differences(&agent.info, &is, here.policy);
    if !differs.is_empty() {
        if rebooted {
            // Nothing runs here that would have to be spared.
            return Ok(new_agent(Vec::new()));
        }
        return Err(incompatible(&agent.info, &differs, here));
    }
    let mut recovered = Recovered {
        info: Some(agent.info.clone()),
        in_force,
        rebooted,
        ..Recovered::default()
    };
    let all = records.updates.values().flatten();
    recovered.last_number = all.map(|update| update.number).max().unwrap_or_default();
    take_executors(&mut recovered, &records, file);
    take_streams(&mut recovered, &records);
    let used: BTreeSet<&FrameworkId> = recovered
        .executors
        .iter()
        .map(|executor| &executor.record.framework_id)
        .collect();
    let (kept, idle): (Vec<_>, Vec<_>) = records
        .frameworks
        .into_iter()
        .partition(|(id, _)| used.contains(id));
    recovered.frameworks = kept
        .into_iter()
        .map(|(_, framework)| framework.info)
        .collect();
    for (_, framework) in idle {
        let key = Record::Framework(Box::new(framework)).key();
        recovered.forget.push(Change::Delete(key));
    }
    Ok(recovered)
}

/// Executors with their tasks. One without its framework, and a task without its executor, cannot be used.
fn take_executors(recovered: &mut Recovered, records: &Records, file: &str) {
    let mut tasks: BTreeMap<&str, Vec<&TaskRecord>> = BTreeMap::new();
    let mut over: BTreeMap<&str, Vec<&TaskRecord>> = BTreeMap::new();
    for task in &records.tasks {
        let those = if task.is_over { &mut over } else { &mut tasks };
        those
            .entry(&task.container_id.value)
            .or_default()
            .push(task);
    }
    let mut taken = BTreeSet::new();
    let mut executors: Vec<&ExecutorRecord> = records.executors.iter().collect();
    // One that was ending when its id was used again has none, and comes last.
    executors.sort_by_key(|executor| !tasks.contains_key(executor.container_id.value.as_str()));
    for executor in executors {
        let container = &executor.container_id.value;
        let own = tasks.remove(container.as_str()).unwrap_or_default();
        let name = (&executor.framework_id, &executor.info.executor_id);
        let why = if !records.frameworks.contains_key(&executor.framework_id) {
            Some("its framework's record is missing")
        } else if executor
            .proof
            .as_ref()
            .is_some_and(|proof| proof.proof().is_none())
        {
            Some("it cannot be known again")
        } else if taken.contains(&name) && own.is_empty() {
            forget_container(recovered, container);
            over.remove(container.as_str());
            continue;
        } else if taken.contains(&name) {
            Some("there are two of its name")
        } else {
            None
        };
        if let Some(why) = why {
            recovered.complaints.push(format!(
                "{file}: executor {} of framework {}: {why}",
                executor.info.executor_id, executor.framework_id
            ));
            forget_container(recovered, container);
            over.remove(container.as_str());
            continue;
        }
        taken.insert(name);
        let (mut tasks, mut past) = (Vec::new(), BTreeMap::new());
        for task in over.remove(container.as_str()).unwrap_or_default() {
            past.insert(task.info.task_id.clone(), said(task));
        }
        for task in own {
            if !task.past.is_empty() {
                past.insert(task.info.task_id.clone(), said(task));
            }
            let key = (task.framework_id.clone(), task.info.task_id.clone());
            let updates = records.updates.get(&key).map(Vec::as_slice);
            let updates = updates.unwrap_or_default();
            if updates.iter().any(is_acknowledged_end) {
                // Its end was written down, and not yet that it is over.
                let uuids = updates.iter().filter_map(|update| update.update.uuid);
                let uuids: Said = uuids.collect();
                let over = Record::Task(Box::new(TaskRecord::over(
                    task.framework_id.clone(),
                    task.executor_id.clone(),
                    task.container_id.clone(),
                    task.info.task_id.clone(),
                    uuids.iter().copied().collect(),
                )));
                let change = Change::put(&over).unwrap_or_else(|_| Change::Delete(over.key()));
                recovered.forget.push(change);
                past.insert(task.info.task_id.clone(), uuids);
            } else {
                tasks.push(recovered_task(task, updates));
            }
        }
        recovered.executors.push(RecoveredExecutor {
            record: executor.clone(),
            tasks,
            past,
        });
    }
    // Nobody is left who could repeat anything.
    for container in over.into_keys() {
        forget_container(recovered, container);
    }
    for (container, tasks) in tasks {
        for task in tasks {
            recovered.complaints.push(format!(
                "{file}: task {} of framework {}: its executor's record is missing",
                task.info.task_id, task.framework_id
            ));
        }
        forget_container(recovered, container);
    }
}

/// Updates that a task's executor has made of one that is over.
fn said(task: &TaskRecord) -> Said {
    task.past.iter().copied().collect()
}

fn forget_container(recovered: &mut Recovered, container: &str) {
    use crate::checkpoint::records::{executor_key, tasks_of};
    recovered.forget.extend([
        Change::Delete(executor_key(container)),
        Change::DeleteBelow(tasks_of(container)),
    ]);
}

fn is_acknowledged_end(update: &UpdateRecord) -> bool {
    update.acknowledged && update.update.status.state.is_terminal()
}

fn recovered_task(record: &TaskRecord, updates: &[UpdateRecord]) -> RecoveredTask {
    let waiting = updates.iter().find(|update| !update.acknowledged);
    let forwarded = waiting.or(updates.last());
    RecoveredTask {
        record: record.clone(),
        statuses: updates
            .iter()
            .map(|one| one.update.status.clone())
            .collect(),
        forwarded: forwarded.map(|one| one.update.status.clone()),
    }
}

/// Streams in which something waits, or of a task that goes on. The end of any other was acknowledged.
fn take_streams(recovered: &mut Recovered, records: &Records) {
    let open: BTreeSet<(&FrameworkId, &TaskId)> = recovered
        .executors
        .iter()
        .flat_map(|executor| &executor.tasks)
        .map(|task| (&task.record.framework_id, &task.record.info.task_id))
        .collect();
    let mut streams = Vec::new();
    let mut forget = Vec::new();
    for (key, updates) in &records.updates {
        let (done, waiting): (Vec<_>, Vec<_>) =
            updates.iter().partition(|update| update.acknowledged);
        let is_over = updates.iter().any(is_acknowledged_end);
        if is_over || waiting.is_empty() && !open.contains(&(&key.0, &key.1)) {
            let prefix = crate::checkpoint::records::updates_of(&key.0, &key.1);
            forget.push(Change::DeleteBelow(prefix));
            continue;
        }
        streams.push(RecoveredStream {
            key: key.clone(),
            acknowledged: done.iter().filter_map(|one| one.update.uuid).collect(),
            waiting: waiting.iter().map(|one| one.update.clone()).collect(),
        });
    }
    recovered.streams = streams;
    recovered.forget.extend(forget);
}

/// What keeps an agent with these settings from being the one it was, in words.
pub fn differences(was: &AgentInfo, is: &AgentInfo, policy: Policy) -> Vec<String> {
    let mut all = Vec::new();
    let mut differs = |name: &str, was: &dyn std::fmt::Display, is: &dyn std::fmt::Display| {
        all.push(format!("{name} was {was} and is {is}"));
    };
    if was.hostname != is.hostname {
        differs("--hostname", &was.hostname, &is.hostname);
    }
    if was.port != is.port {
        differs("--port", &was.port, &is.port);
    }
    let (fits_resources, fits_attributes, fits_domain) = match policy {
        Policy::Equal => (
            was.resources == is.resources,
            was.attributes == is.attributes,
            was.domain == is.domain,
        ),
        Policy::Additive => (
            is.resources.contains(&was.resources),
            was.attributes
                .iter()
                .all(|old| is.attributes.iter().any(|new| covers(new, old))),
            was.domain.is_none() || was.domain == is.domain,
        ),
    };
    if !fits_resources {
        differs("--resources", &was.resources, &is.resources);
    }
    if !fits_attributes {
        let text = |all: &[Attribute]| {
            let all: Vec<String> = all.iter().map(Attribute::to_string).collect();
            format!("'{}'", all.join(";"))
        };
        differs(
            "--attributes",
            &text(&was.attributes),
            &text(&is.attributes),
        );
    }
    if !fits_domain {
        let text = |info: &AgentInfo| {
            let zone = info.domain.as_ref().and_then(|domain| domain.zone());
            zone.unwrap_or("none").to_owned()
        };
        differs("--domain", &text(was), &text(is));
    }
    all
}

/// Whether an attribute says all that an earlier one did.
fn covers(new: &Attribute, old: &Attribute) -> bool {
    new.name == old.name
        && match (&new.value, &old.value) {
            (AttributeValue::Ranges(new), AttributeValue::Ranges(old)) => new.contains(old),
            (new, old) => new == old,
        }
}

fn incompatible(was: &AgentInfo, differs: &[String], here: &Here<'_>) -> String {
    let id = was.id.clone().unwrap_or_default();
    let additive = match here.policy {
        Policy::Equal => {
            ", start with --reconfiguration_policy=additive if there is only more of something"
        }
        Policy::Additive => "",
    };
    let work_dir = here.work_dir;
    format!(
        "incompatible agent info: {}. Agent {id} cannot go on with these settings: give it its old ones{additive}, or \
         begin as a new agent, which ends what runs here: rm -f {work_dir}/meta/slaves/latest",
        differs.join("; ")
    )
}

#[cfg(test)]
mod tests;
