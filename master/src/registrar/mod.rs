//! The registrar `registrar(1)`: the only one that changes the registry.
//!
//! It owns the [`Registry`], takes operations from its master as asks, writes what they change to the replicated log, and
//! answers each when it is durable. Nothing of an operation is visible to anyone before its answer. When the log fails it
//! in any way, it refuses everything and ends, and its master with it: what was on its way may be durable or not.
//!
//! - `core`: the rules, pure;
//! - `entry`: what it writes to the log, pure;
//! - `replay`: how it reads that back, pure.

pub mod core;
pub mod entry;
pub mod replay;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use meseta_protocol::agent::MasterInfo;
use meseta_runtime::http::About;
use meseta_runtime::{
    Ask, AskError, Context, ExitReason, Message, OWN_NODE, Pid, Process, Receive, ReplyTo, Request,
    Response, Routes, Time, Timings,
};
use serde::{Deserialize, Serialize};
use tracing::{debug, error, info};

use self::core::{Answer, Core, Effect, Input, LogError, Ticket};
use crate::log::LogPids;
use crate::log::action::Position;
use crate::log::asks::{Append, LogRead, ReadLog, Truncate, Writing};
use crate::log::messages::{Span, StatusRequest};
use crate::registry::{Change, Registry, RegistryOperation, RegistryRejection};

/// Where the registry is kept.
#[derive(Debug, Clone)]
pub enum Storage {
    /// In memory: it ends with its master.
    Memory,
    /// In the replicated log of its node.
    Log(LogPids),
}

/// How long the log may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// To read the registry.
    pub fetch: Duration,
    /// To store a change.
    pub store: Duration,
}

/// Master → registrar, first of all: I lead now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Recover {
    /// Number of the leadership.
    pub epoch: u64,
    /// Who leads.
    pub master: MasterInfo,
}

impl Message for Recover {
    const NAME: &'static str = "meseta.registrar.Recover";
    const SENDERS: &'static [&'static str] = OWN_NODE;
}

/// Registrar → master: the registry, with the master in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegistryRecovered {
    /// The registry, or why there is none; then the registrar ends.
    pub registry: Result<Box<Registry>, String>,
}

impl Message for RegistryRecovered {
    const NAME: &'static str = "meseta.registrar.RegistryRecovered";
    const SENDERS: &'static [&'static str] = OWN_NODE;
}

impl Ask for Recover {
    type Reply = RegistryRecovered;
}

/// Master → registrar: apply this.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Apply {
    /// The operation.
    pub operation: RegistryOperation,
}

impl Message for Apply {
    const NAME: &'static str = "meseta.registrar.Apply";
    const SENDERS: &'static [&'static str] = OWN_NODE;
}

/// Registrar → master: how it went.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Applied {
    /// What it did, or why it did nothing.
    pub result: Result<Change, ApplyError>,
}

impl Message for Applied {
    const NAME: &'static str = "meseta.registrar.Applied";
    const SENDERS: &'static [&'static str] = OWN_NODE;
}

impl Ask for Apply {
    type Reply = Applied;
}

/// Why an operation was not applied.
#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum ApplyError {
    /// A rule forbids it.
    #[error(transparent)]
    Rejected(#[from] RegistryRejection),
    /// The registrar has failed, and nobody knows whether the operation is durable.
    #[error("{0}")]
    Failed(String),
}

/// Who waits for an answer of which kind.
enum Waiting {
    Recovery(ReplyTo),
    Operation(ReplyTo),
}

/// The registrar. It ends with its master.
pub struct Registrar {
    master: Pid,
    storage: Storage,
    limits: Limits,
    core: Core,
    waiting: BTreeMap<Ticket, Waiting>,
    next_ticket: Ticket,
    stores: Timings,
    /// Whether the registry has changed since its size was shown.
    resized: bool,
}

/// How often metrics are brought up to date.
const METRICS_INTERVAL: Duration = Duration::from_secs(1);

impl Registrar {
    /// A registrar for this master.
    pub fn new(master: Pid, storage: Storage, limits: Limits) -> Self {
        let core = Core::new(matches!(storage, Storage::Log(_)));
        Self {
            master,
            storage,
            limits,
            core,
            waiting: BTreeMap::new(),
            next_ticket: 0,
            stores: Timings::of_a_day(),
            resized: false,
        }
    }

    /// The registry, with nothing in it that is not durable; to look at.
    pub fn registry(&self) -> &Registry {
        self.core.registry()
    }
}

impl Process for Registrar {
    fn routes(routes: &mut Routes<Self>) {
        routes
            .on::<Recover>()
            .on::<Apply>()
            .get("/registry", Self::show)
            .about(About::read(
                "The registry: what is remembered over a master's end",
            ));
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        cx.link(&self.master);
        (cx.metrics()).gauges(["registrar/state_fetch_ms", "registrar/registry_size_bytes"]);
        self.publish_metrics(cx);
    }

    fn exited(&mut self, cx: &mut Context<'_, Self>, _: &Pid, _: ExitReason) {
        cx.stop();
    }
}

impl Receive<Recover> for Registrar {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _from: &Pid, recover: Recover) {
        let Some(ticket) = self.ticket(cx, Waiting::Recovery) else {
            return;
        };
        let Recover { epoch, master } = recover;
        debug!(epoch, master = %master.id, "the registry is recovered for a new leader");
        let mut bytes = [0; 16];
        rand::Rng::fill_bytes(cx.random(), &mut bytes);
        let cluster_id = uuid::Builder::from_random_bytes(bytes).into_uuid();
        let input = Input::Recover {
            ticket,
            master,
            cluster_id: cluster_id.to_string(),
        };
        self.step(cx, input);
    }
}

impl Receive<Apply> for Registrar {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _from: &Pid, apply: Apply) {
        let Some(ticket) = self.ticket(cx, Waiting::Operation) else {
            return;
        };
        let operation = apply.operation;
        self.step(cx, Input::Apply { ticket, operation });
    }
}

impl Registrar {
    fn ticket(
        &mut self,
        cx: &mut Context<'_, Self>,
        kind: fn(ReplyTo) -> Waiting,
    ) -> Option<Ticket> {
        let reply = cx.defer_reply()?;
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.insert(ticket, kind(reply));
        Some(ticket)
    }

    fn step(&mut self, cx: &mut Context<'_, Self>, input: Input) {
        for effect in self.core.step(input) {
            self.perform(cx, effect);
        }
        debug_assert!(self.core.registry().check().is_ok());
    }

    fn perform(&mut self, cx: &mut Context<'_, Self>, effect: Effect) {
        match (effect, &self.storage) {
            (Effect::Answer(ticket, answer), _) => self.answer(cx, ticket, answer),
            (Effect::Fail(why), _) => {
                error!(%why, "the registrar ends");
                cx.fail(why);
            }
            (Effect::Read, Storage::Log(log)) => {
                let replica = log.replica.clone();
                self.read(cx, replica);
            }
            (Effect::Append(bytes), Storage::Log(log)) => {
                let (coordinator, limit) = (log.coordinator.clone(), self.limits.store);
                let asked = cx.now();
                cx.ask(
                    &coordinator,
                    Append { bytes },
                    limit,
                    move |me, cx, answer| {
                        me.stores.add(cx.now(), cx.now().since(asked));
                        me.step(cx, Input::Stored(written(answer, limit)));
                    },
                );
            }
            (Effect::Truncate(to), Storage::Log(log)) => {
                let (coordinator, limit) = (log.coordinator.clone(), self.limits.store);
                let truncate = Truncate { to: Position(to) };
                cx.ask(&coordinator, truncate, limit, move |me, cx, answer| {
                    let result = written(answer, limit).map(|_| ());
                    if let Err(error) = &result {
                        debug!(%error, "the log is not truncated yet");
                    }
                    me.step(cx, Input::Truncated(result));
                });
            }
            (Effect::Read | Effect::Append(_) | Effect::Truncate(_), Storage::Memory) => {
                debug_assert!(false, "a registry in memory has no log");
            }
        }
    }

    fn answer(&mut self, cx: &mut Context<'_, Self>, ticket: Ticket, answer: Answer) {
        match self.waiting.remove(&ticket) {
            Some(Waiting::Operation(to)) => {
                self.resized |= matches!(answer, Answer::Applied(Change::Changed));
                let result = match answer {
                    Answer::Applied(change) => Ok(change),
                    Answer::Rejected(rejection) => Err(ApplyError::Rejected(rejection)),
                    Answer::Failed(why) => Err(ApplyError::Failed(why)),
                };
                cx.reply_later(&to, Applied { result });
            }
            Some(Waiting::Recovery(to)) => {
                let registry = match answer {
                    Answer::Applied(_) => Ok(Box::new(self.core.registry().clone())),
                    Answer::Rejected(rejection) => Err(rejection.to_string()),
                    Answer::Failed(why) => Err(why),
                };
                if registry.is_ok() {
                    let (registry, since) = (self.core.registry(), self.core.since());
                    let (admitted, last) = (registry.admitted.len(), since.last);
                    info!(admitted, position = last, "the registry is recovered");
                    self.publish_size(cx);
                }
                cx.reply_later(&to, RegistryRecovered { registry });
            }
            None => debug_assert!(false, "an operation is answered once"),
        }
    }

    fn publish_metrics(&mut self, cx: &mut Context<'_, Self>) {
        let count = |count: usize| u32::try_from(count).map_or(f64::MAX, f64::from);
        let metrics = cx.metrics();
        metrics.set("registrar/queued_operations", count(self.core.queued()));
        (self.stores).show(metrics, "registrar/state_store_ms", cx.now());
        if self.resized {
            self.publish_size(cx);
        }
        cx.after(METRICS_INTERVAL, Self::publish_metrics);
    }

    fn publish_size(&mut self, cx: &mut Context<'_, Self>) {
        let size = entry::encode_snapshot(0, self.core.registry()).map_or(0, |bytes| bytes.len());
        let size = u32::try_from(size).map_or(f64::MAX, f64::from);
        cx.metrics().set("registrar/registry_size_bytes", size);
        self.resized = false;
    }

    fn show(&mut self, cx: &mut Context<'_, Self>, _request: &Request) -> Response {
        self.publish_size(cx);
        Response::json(&self.core.registry().to_json())
    }
}

/// Reading the log of the own node. The coordinator was elected before, so all up to the end is learned here, and nobody
/// else writes.
impl Registrar {
    fn read(&mut self, cx: &mut Context<'_, Self>, replica: Pid) {
        let (begun, limit) = (cx.now(), self.limits.fetch);
        let status = StatusRequest { ask: 0, span: None };
        cx.ask(
            &replica.clone(),
            status,
            limit,
            move |me, cx, answer| match answer {
                Ok(status) => {
                    let reading = Reading {
                        replica,
                        begun,
                        to: status.end,
                        entries: Vec::new(),
                    };
                    // Position 0 is nobody's.
                    me.read_on(cx, reading, status.begin.max(Position(1)));
                }
                Err(error) => me.read_ended(cx, begun, Err(failed(error, limit, FETCH_FLAG))),
            },
        );
    }

    /// Reads what is left, as much as comes at once.
    fn read_on(&mut self, cx: &mut Context<'_, Self>, mut reading: Reading, from: Position) {
        let (begun, to) = (reading.begun, reading.to);
        if from > to {
            self.read_ended(cx, begun, Ok(reading.entries));
            return;
        }
        let limit = self.limits.fetch;
        let left = limit.saturating_sub(cx.now().since(begun));
        let read = ReadLog {
            span: Span { from, to },
        };
        cx.ask(
            &reading.replica.clone(),
            read,
            left,
            move |me, cx, answer| match answer {
                Ok(LogRead::Entries { entries, next }) => {
                    let entries = entries.into_iter();
                    let plain = entries.map(|(position, bytes)| (position.0, bytes));
                    reading.entries.extend(plain);
                    me.read_on(cx, reading, next.unwrap_or_else(|| to.next()));
                }
                Ok(LogRead::Unreadable { reason }) => {
                    me.read_ended(cx, begun, Err(LogError::Broken(reason)));
                }
                Err(error) => me.read_ended(cx, begun, Err(failed(error, limit, FETCH_FLAG))),
            },
        );
    }

    fn read_ended(
        &mut self,
        cx: &mut Context<'_, Self>,
        begun: Time,
        result: Result<Vec<(u64, Bytes)>, LogError>,
    ) {
        let took = cx.now().since(begun).as_secs_f64() * 1e3;
        cx.metrics().set("registrar/state_fetch_ms", took);
        self.step(cx, Input::Read(result));
    }
}

/// What has been read so far.
struct Reading {
    replica: Pid,
    begun: Time,
    to: Position,
    entries: Vec<(u64, Bytes)>,
}

const FETCH_FLAG: &str = "registry_fetch_timeout";
const STORE_FLAG: &str = "registry_store_timeout";

fn written(answer: Result<Writing, AskError>, limit: Duration) -> Result<u64, LogError> {
    match answer {
        Ok(Writing::Written { position }) => Ok(position.0),
        Ok(Writing::Demoted) => Err(LogError::Demoted),
        Ok(Writing::Refused { reason }) => Err(LogError::Broken(reason)),
        Err(error) => Err(failed(error, limit, STORE_FLAG)),
    }
}

fn failed(error: AskError, limit: Duration, flag: &'static str) -> LogError {
    match error {
        AskError::TimedOut => LogError::TimedOut(limit, flag),
        AskError::Undelivered | AskError::TooMany | AskError::BadAnswer => {
            LogError::Broken(error.to_string())
        }
    }
}
