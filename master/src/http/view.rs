//! What a master shows of the cluster, as of one moment, and the documents that are written from it.
//!
//! Pure. A view costs the master next to nothing ([`State::snapshot`]); what is dear, writing the documents, can then happen
//! while the master goes on. Source: http.md §5.1, §6.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use meseta_api::negotiation::Format;
use meseta_api::{Mismatch, Tree};
use meseta_protocol::agent::{AgentInfo, DomainInfo, MasterCapability, MasterInfo};
use meseta_protocol::task::Task;
use meseta_protocol::{AgentId, FrameworkId, Role};
use meseta_runtime::Pid;
use meseta_runtime::http::{JSON, Version};
use serde::Serialize;

use super::show::{
    AgentInFull, AgentText, Attributes, AwaitedShown, Each, FrameworkShown, FrameworkSummary,
    TaskShown,
};
use super::texts::Texts;
use super::{operator, summary, trees};
use crate::failover::Awaited;
use crate::schedulers::stream_of;
use crate::state::{Framework, State};

/// Tasks that `/tasks` shows when no limit is given.
const DEFAULT_TASKS: usize = 100;

/// One document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Document {
    /// `/state`.
    State,
    /// `/state-summary`.
    Summary,
    /// `/slaves`: all, or the one that is wanted.
    Agents(Option<String>),
    /// `/frameworks`: all, or the one that is wanted.
    Frameworks(Option<String>),
    /// `/tasks`.
    Tasks(TasksWanted),
    /// `/roles`.
    Roles,
    /// What the second API answers to a call of this type.
    Answer(&'static str, Format),
}

/// Which tasks `/tasks` is to show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TasksWanted {
    framework: Option<String>,
    task: Option<String>,
    oldest_first: bool,
    offset: Option<usize>,
    limit: Option<usize>,
}

impl TasksWanted {
    /// What parameters say; a number that is none counts as not given.
    pub(super) fn of(query: &BTreeMap<String, String>) -> Self {
        let number = |name: &str| query.get(name)?.parse().ok();
        Self {
            framework: query.get("framework_id").cloned(),
            task: query.get("task_id").cloned(),
            oldest_first: query.get("order").is_some_and(|order| order == "asc"),
            offset: number("offset"),
            limit: number("limit"),
        }
    }
}

/// What there is to show.
#[derive(Debug)]
pub(super) struct View {
    pub(super) me: Pid,
    pub(super) info: MasterInfo,
    pub(super) epoch: u64,
    /// When the master started, and since when it leads, as dates.
    pub(super) started: Duration,
    pub(super) elected: Option<Duration>,
    pub(super) flags: BTreeMap<String, String>,
    pub(super) cluster: Option<String>,
    /// What was written before.
    pub(super) texts: Arc<Texts>,
    pub(super) weights: BTreeMap<Role, f64>,
    pub(super) state: State,
    pub(super) awaited: Awaited,
    /// How many agents this master has marked unreachable.
    pub(super) unreachable: usize,
}

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
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a str>,
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

/// A document, or why it cannot be written.
type Written = serde_json::Result<Vec<u8>>;

impl View {
    /// The bytes of a document, and what they are.
    pub(super) fn write(&self, document: &Document) -> Result<(&'static str, Vec<u8>), String> {
        let json = match document {
            Document::State => self.write_state(),
            Document::Summary => self.write_summary(),
            Document::Agents(wanted) => self.write_agents(wanted.as_deref()),
            Document::Frameworks(wanted) => self.write_frameworks(wanted.as_deref()),
            Document::Tasks(wanted) => self.write_tasks(wanted),
            Document::Roles => self.write_roles(),
            Document::Answer(kind, format) => {
                let tree = self.answer(kind).map_err(|why| why.to_string())?;
                return Ok((format.content_type(), operator::encoded(*format, &tree)));
            }
        };
        let json = json.map_err(|why| why.to_string())?;
        Ok((JSON, json))
    }

    /// The answer of the second API to a call of this type that asks for what is in the cluster.
    pub(super) fn answer(&self, kind: &str) -> Result<Tree, Mismatch> {
        let state = &self.state;
        let part = match kind {
            "GET_STATE" => self.tree()?,
            "GET_AGENTS" => trees::get_agents(state, self.awaited())?,
            "GET_FRAMEWORKS" => trees::get_frameworks(state)?,
            "GET_EXECUTORS" => trees::get_executors(state)?,
            "GET_TASKS" => trees::get_tasks(state)?,
            "GET_ROLES" => {
                let names = summary::known_roles(state, &self.weights);
                trees::get_roles(&summary::roles(state, &names, &self.weights))?
            }
            _ => Tree::empty(),
        };
        Ok(operator::API.response(kind, Some(part)))
    }

    /// All there is, as the second API tells it.
    pub(super) fn tree(&self) -> Result<Tree, Mismatch> {
        trees::get_state(&self.state, self.awaited())
    }

    fn awaited(&self) -> impl Iterator<Item = (&AgentId, &AgentInfo)> {
        self.awaited.iter().map(|(id, info)| (id, &**info))
    }

    fn write_state(&self) -> Written {
        let agents = self.state.agents().count();
        let connected = self.state.agents().filter(|(_, agent)| agent.connected);
        let connected = connected.count();
        let info = &self.info;
        let hostname = info.hostname.as_deref().unwrap_or_default();
        let texts = &*self.texts;
        serde_json::to_vec(&StateShown {
            version: Version::of_program(),
            start_time: self.started.as_secs_f64(),
            elected_time: self.elected.map(|since| since.as_secs_f64()),
            id: info.id.as_str(),
            pid: info.pid.as_deref(),
            hostname,
            cluster: self.cluster.as_deref(),
            capabilities: &info.capabilities,
            activated_slaves: count(connected),
            deactivated_slaves: count(agents - connected),
            unreachable_slaves: count(self.unreachable),
            domain: info.domain.as_ref(),
            leader: &self.me,
            leader_info: LeaderShown {
                id: info.id.as_str(),
                pid: info.pid.as_deref(),
                port: info.port,
                hostname,
                domain: info.domain.as_ref(),
            },
            leader_epoch: self.epoch,
            flags: &self.flags,
            slaves: Each(|| {
                self.state
                    .shared_agents()
                    .map(|(id, agent)| AgentText { id, agent, texts })
            }),
            recovered_slaves: Each(|| self.awaited_shown(None)),
            frameworks: Each(|| self.living(None)),
            completed_frameworks: Each(|| self.completed(None)),
            orphan_tasks: [],
            unregistered_frameworks: [],
        })
    }

    fn write_summary(&self) -> Written {
        let hostname = self.info.hostname.as_deref().unwrap_or_default();
        let cluster = self.cluster.as_deref();
        let summary = summary::state_summary(&self.state, hostname, cluster, |id, one| {
            self.summary(id, one)
        });
        serde_json::to_vec(&summary)
    }

    fn write_agents(&self, wanted: Option<&str>) -> Written {
        let slaves = Each(|| {
            let all = self.state.agents();
            all.filter(move |(id, _)| wanted.is_none_or(|wanted| id.as_str() == wanted))
                .map(|(id, agent)| AgentInFull::new(id, agent))
        });
        serde_json::to_vec(&SlavesShown {
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

    fn write_frameworks(&self, wanted: Option<&str>) -> Written {
        serde_json::to_vec(&FrameworksShown {
            frameworks: Each(|| self.living(wanted)),
            completed_frameworks: Each(|| self.completed(wanted)),
            unregistered_frameworks: [],
        })
    }

    fn write_tasks(&self, wanted: &TasksWanted) -> Written {
        let is = |id: &str, wanted: &Option<String>| wanted.as_deref().is_none_or(|one| one == id);
        let living = self.state.frameworks().map(|(_, framework)| framework);
        let mut all: Vec<&Arc<Task>> = living
            .chain(self.state.completed_frameworks())
            .flat_map(|f| {
                let tasks = f.tasks.values().chain(&f.unreachable_tasks);
                tasks.chain(&f.completed_tasks)
            })
            .filter(|one| is(one.framework_id.as_str(), &wanted.framework))
            .filter(|one| is(one.task_id.as_str(), &wanted.task))
            .collect();
        let first = |task: &Task| {
            let status = task.statuses.first();
            status.and_then(|status| status.timestamp).unwrap_or(0.0)
        };
        all.sort_by(|a, b| first(a).total_cmp(&first(b)));
        if !wanted.oldest_first {
            all.reverse();
        }
        let texts = &*self.texts;
        let page = || {
            let from = all.iter().skip(wanted.offset.unwrap_or(0));
            from.take(wanted.limit.unwrap_or(DEFAULT_TASKS))
                .map(|task| TaskShown { task, texts })
        };
        serde_json::to_vec(&BTreeMap::from([("tasks", Each(page))]))
    }

    fn write_roles(&self) -> Written {
        let weights = &self.weights;
        let names = summary::known_roles(&self.state, weights);
        let roles = summary::roles(&self.state, &names, weights);
        serde_json::to_vec(&BTreeMap::from([("roles", roles)]))
    }

    fn summary<'a>(
        &'a self,
        id: &'a FrameworkId,
        framework: &'a Framework,
    ) -> FrameworkSummary<'a> {
        // A stream is no address.
        let here = self.me.address();
        let pid = framework.pid.as_ref();
        let pid = pid.filter(|pid| stream_of(here, pid).is_none());
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
            texts: &self.texts,
        }
    }
}
