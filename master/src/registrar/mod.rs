//! The registrar `registrar(1)`: the only one that changes the registry.
//!
//! It owns the [`Registry`], takes operations from its master as asks, writes what they change to the replicated log, and
//! answers each when it is durable. Nothing of an operation is visible to anyone before its answer. When the log fails it
//! in any way, it refuses everything and ends, and its master with it: what was on its way may be durable or not.
//!
//! - `core`: the rules, pure;
//! - `entry`: what it writes to the log, pure;
//! - `replay`: how it reads that back, pure;
//! - `timing`: how long stores take, pure;
//! - `log`: what it asks of the log.

pub mod core;
pub mod entry;
pub mod log;
pub mod replay;
#[cfg(test)]
mod tests;
pub mod timing;

use std::collections::BTreeMap;
use std::time::Duration;

use meseta_protocol::agent::MasterInfo;
use meseta_runtime::{
    Ask, AskError, Context, ExitReason, Message, Pid, Process, Receive, ReplyTo, Request, Response,
    Routes, Time,
};
use serde::{Deserialize, Serialize};
use tracing::{debug, error, info};

use self::core::{Answer, Core, Effect, Input, LogError, Ticket};
use self::log::{AppendEntry, Appended, EntriesRead, ReadEntries, TruncateEntries, Truncated};
use self::timing::Timings;
use crate::registry::{Change, Registry, RegistryOperation, RegistryRejection};

/// Where the registry is kept.
#[derive(Debug, Clone)]
pub enum Storage {
    /// In memory: it ends with its master.
    Memory,
    /// In the replicated log.
    Log(LogAccess),
}

/// How to write to the log in one leadership.
#[derive(Debug, Clone)]
pub struct LogAccess {
    /// Who writes.
    pub coordinator: Pid,
    /// Who reads.
    pub replica: Pid,
    /// How many replicas there are.
    pub replicas: u32,
    /// Longest time a read may take.
    pub fetch_timeout: Duration,
    /// Longest time a write may take.
    pub store_timeout: Duration,
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
    const SENDERS: &'static [&'static str] = crate::OWN_NODE;
}

/// Registrar → master: the registry, with the master in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegistryRecovered {
    /// The registry, or why there is none; then the registrar ends.
    pub registry: Result<Box<Registry>, String>,
}

impl Message for RegistryRecovered {
    const NAME: &'static str = "meseta.registrar.RegistryRecovered";
    const SENDERS: &'static [&'static str] = crate::OWN_NODE;
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
    const SENDERS: &'static [&'static str] = crate::OWN_NODE;
}

/// Registrar → master: how it went.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Applied {
    /// What it did, or why it did nothing.
    pub result: Result<Change, ApplyError>,
}

impl Message for Applied {
    const NAME: &'static str = "meseta.registrar.Applied";
    const SENDERS: &'static [&'static str] = crate::OWN_NODE;
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
    core: Core,
    waiting: BTreeMap<Ticket, Waiting>,
    next_ticket: Ticket,
    stores: Timings,
}

/// How often metrics are brought up to date.
const METRICS_INTERVAL: Duration = Duration::from_secs(1);

impl Registrar {
    /// A registrar for this master.
    pub fn new(master: Pid, storage: Storage) -> Self {
        let core = Core::new(matches!(storage, Storage::Log(_)));
        Self {
            master,
            storage,
            core,
            waiting: BTreeMap::new(),
            next_ticket: 0,
            stores: Timings::default(),
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
            .get("/registry", Self::show);
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        cx.link(&self.master);
        let replicas = match &self.storage {
            Storage::Memory => 0,
            Storage::Log(log) => log.replicas,
        };
        cx.metrics().set("registrar/log/recovered", 0.0);
        let size = f64::from(replicas);
        cx.metrics().set("registrar/log/ensemble_size", size);
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
                let log = log.clone();
                read(cx, &log);
            }
            (Effect::Append(bytes), Storage::Log(log)) => {
                let (log, asked) = (log.clone(), cx.now());
                let append = AppendEntry { bytes };
                cx.ask(
                    &log.coordinator,
                    append,
                    log.store_timeout,
                    move |me, cx, answer| {
                        let result = match answer {
                            Ok(Appended {
                                position: Some(position),
                            }) => Ok(position),
                            Ok(Appended { position: None }) => Err(LogError::Demoted),
                            Err(error) => {
                                Err(failed(error, log.store_timeout, "registry_store_timeout"))
                            }
                        };
                        me.stores.add(cx.now(), cx.now().since(asked));
                        me.step(cx, Input::Stored(result));
                    },
                );
            }
            (Effect::Truncate(to), Storage::Log(log)) => {
                let log = log.clone();
                let truncate = TruncateEntries { to };
                cx.ask(
                    &log.coordinator,
                    truncate,
                    log.store_timeout,
                    move |me, cx, answer| {
                        let result = match answer {
                            Ok(Truncated { done: true }) => Ok(()),
                            Ok(Truncated { done: false }) => Err(LogError::Demoted),
                            Err(error) => {
                                Err(failed(error, log.store_timeout, "registry_store_timeout"))
                            }
                        };
                        if let Err(error) = &result {
                            debug!(%error, "the log is not truncated yet");
                        }
                        me.step(cx, Input::Truncated(result));
                    },
                );
            }
            (Effect::Read | Effect::Append(_) | Effect::Truncate(_), Storage::Memory) => {
                debug_assert!(false, "a registry in memory has no log");
            }
        }
    }

    fn answer(&mut self, cx: &mut Context<'_, Self>, ticket: Ticket, answer: Answer) {
        match self.waiting.remove(&ticket) {
            Some(Waiting::Operation(to)) => {
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
                    cx.metrics().set("registrar/log/recovered", 1.0);
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
        for (name, value) in self.stores.statistics(cx.now()) {
            let slash = if name.is_empty() { "" } else { "/" };
            metrics.set(&format!("registrar/state_store_ms{slash}{name}"), value);
        }
        cx.after(METRICS_INTERVAL, Self::publish_metrics);
    }

    fn publish_size(&self, cx: &mut Context<'_, Self>) {
        let size = entry::encode_snapshot(0, self.core.registry()).map_or(0, |bytes| bytes.len());
        let size = u32::try_from(size).map_or(f64::MAX, f64::from);
        cx.metrics().set("registrar/registry_size_bytes", size);
    }

    fn show(&mut self, cx: &mut Context<'_, Self>, _request: &Request) -> Response {
        self.publish_size(cx);
        Response::json(&self.core.registry().to_json())
    }
}

fn read(cx: &mut Context<'_, Registrar>, log: &LogAccess) {
    let (asked, limit): (Time, Duration) = (cx.now(), log.fetch_timeout);
    cx.ask(
        &log.replica,
        ReadEntries {},
        limit,
        move |me, cx, answer| {
            let took = cx.now().since(asked).as_secs_f64() * 1e3;
            cx.metrics().set("registrar/state_fetch_ms", took);
            let result = match answer {
                Ok(EntriesRead {
                    entries: Ok(entries),
                }) => Ok(entries),
                Ok(EntriesRead { entries: Err(why) }) => Err(LogError::Broken(why)),
                Err(error) => Err(failed(error, limit, "registry_fetch_timeout")),
            };
            me.step(cx, Input::Read(result));
        },
    );
}

fn failed(error: AskError, limit: Duration, flag: &'static str) -> LogError {
    match error {
        AskError::TimedOut => LogError::TimedOut(limit, flag),
        AskError::Undelivered | AskError::TooMany | AskError::BadAnswer => {
            LogError::Broken(error.to_string())
        }
    }
}
