//! The replica `log-replica(1)`: one member's part of the log, on its disk.
//!
//! It owns the [`Replica`], its [`Recovery`] and its [`Lag`], and does three things around their rules: it takes words from members
//! only, makes what they change durable, and lets answers leave only then. One commit is under way at a time; all that
//! comes meanwhile goes into the next. A commit that fails ends the process: what is on disk is not known any more.
//!
//! ```text
//!   request ─▶ rules ─▶ changes ─▶ gathering ─▶ commit under way ─▶ on disk
//!                  └──▶ answers ─▶ held with the changes before them ──▶ sent
//! ```

pub mod core;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use meseta_runtime::http::About;
use meseta_runtime::metrics::Handle;
use meseta_runtime::{Ask, Context, Gate, Pid, Process, Receive, Response as Page, Routes, Time};
use rand::RngExt;
use serde_json::json;
use tracing::{debug, error, info, warn};

use self::core::{Change, Effect, Metadata, Replica, Stored};
use super::action::Position;
use super::asks::{LogRead, ReadLog};
use super::catchup::{Asks, PATIENCE, Timer};
use super::lag::{self, Lag};
use super::members::Member;
use super::messages::{
    Chosen, ChosenMessage, FetchRequest, FetchResponse, LearnedMessage, PromiseRequest,
    PromiseResponse, RecoverRequest, RecoverResponse, Request, Response, Span, Status,
    StatusRequest, StatusResponse, WriteRequest, WriteResponse,
};
use super::post::{self, Directory, To};
use super::recovery::{self, Recovery};
use super::storage::ops::{Commit, Load};
use super::storage::{Committed, StorageError};

/// Bytes of entries after which the answer to [`ReadLog`] is cut off.
pub const READ_BYTES: usize = 4 << 20;

/// After so many commits the watermarks that came meanwhile are written too. What is chosen but not marked so is learned
/// again after a crash.
const MARK_EVERY: u32 = 16;

/// Least time between two looks for what this replica has missed.
const LOOK: Duration = Duration::from_millis(500);

impl Ask for StatusRequest {
    type Reply = StatusResponse;
}

impl Ask for FetchRequest {
    type Reply = FetchResponse;
}

/// How a replica is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// All members, this one too.
    pub members: Directory,
    /// Whether members that are all empty begin a log by themselves.
    pub auto_initialize: bool,
    /// Where its store is, for what it tells people.
    pub directory: PathBuf,
}

/// What leaves once the changes before it are on disk.
enum Out {
    Answer(To, Response),
    Ask(Member, Request),
    Read(To, LogRead),
    Voting,
}

/// Changes that go into one commit, and what waits for it.
#[derive(Default)]
struct Batch {
    actions: Vec<Change>,
    /// Only the last word on the metadata counts.
    metadata: Option<Metadata>,
    forget: Option<Position>,
    /// Whether it has to be committed now, and not with the next that has to.
    is_due: bool,
    outs: Vec<Out>,
}

impl Batch {
    fn add(&mut self, change: Change) {
        match change {
            Change::Metadata(metadata) => self.metadata = Some(metadata),
            Change::Forget { below } => self.forget = self.forget.max(Some(below)),
            action @ Change::Action(_) => self.actions.push(action),
        }
    }

    fn changes(&mut self) -> Vec<Change> {
        let mut changes = std::mem::take(&mut self.actions);
        changes.extend(self.metadata.take().map(Change::Metadata));
        changes.extend(self.forget.take().map(|below| Change::Forget { below }));
        changes
    }
}

/// The metrics that change with every commit.
struct Meters {
    commits: Handle,
    changes: Handle,
    seconds: Handle,
    begin: Handle,
    end: Handle,
    promised: Handle,
}

/// See the module.
pub struct ReplicaProcess {
    settings: Settings,
    replica: Replica,
    recovery: Recovery,
    lag: Lag,
    /// Before this it is not looked again for what is missing.
    look_again: Time,
    gathering: Batch,
    /// The latest metadata, when it says more of what is chosen than that on disk, and nothing else.
    marks: Option<Metadata>,
    /// Commits since the metadata was written.
    unmarked: u32,
    /// What waits for the commit that is under way, if one is.
    committing: Option<Vec<Out>>,
    meters: Option<Meters>,
}

impl ReplicaProcess {
    /// A replica that reads its store when it starts.
    pub fn new(settings: Settings) -> Self {
        let recovery = recovery::Settings {
            quorum: settings.members.quorum(),
            auto_initialize: settings.auto_initialize,
        };
        Self {
            settings,
            replica: Replica::restore(Member::from(""), Stored::default()),
            recovery: Recovery::new(recovery, Asks(0)),
            lag: Lag::new(Asks(0)),
            look_again: Time::ZERO,
            gathering: Batch::default(),
            marks: None,
            unmarked: 0,
            committing: None,
            meters: None,
        }
    }

    /// Its rules and what they hold, to look at. What has not been on disk yet is in it too.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }
}

impl Process for ReplicaProcess {
    fn routes(routes: &mut Routes<Self>) {
        routes
            .on::<PromiseRequest>()
            .on::<WriteRequest>()
            .on::<LearnedMessage>()
            .on::<ChosenMessage>()
            .on::<RecoverRequest>()
            .on::<FetchRequest>()
            .on::<StatusRequest>()
            .on::<PromiseResponse>()
            .on::<WriteResponse>()
            .on::<RecoverResponse>()
            .on::<FetchResponse>()
            .on::<StatusResponse>()
            .on::<ReadLog>()
            .get("/status", Self::show)
            .about(About::read("How far this member's log is"));
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        let metrics = cx.metrics();
        metrics.set("registrar/log/recovered", 0.0);
        metrics.set(
            "registrar/log/ensemble_size",
            number(self.settings.members.len()),
        );
        self.meters = Some(Meters {
            commits: metrics.counter("log/commits"),
            changes: metrics.counter("log/commit_changes"),
            seconds: metrics.counter("log/commit_secs"),
            begin: metrics.gauge("log/begin"),
            end: metrics.gauge("log/end"),
            promised: metrics.gauge("log/promised"),
        });
        // Nobody is heard before the store has been read.
        cx.run(Load, Gate::HoldUser, |this, cx, loaded| match loaded {
            Ok(stored) => this.loaded(cx, stored),
            Err(failed) => cx.fail(format!("the log cannot be read: {failed}")),
        });
    }
}

/// Requests of other replicas and of coordinators.
macro_rules! requests {
    ($($kind:ident),* $(,)?) => {
        $(impl Receive<$kind> for ReplicaProcess {
            fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, request: $kind) {
                self.request(cx, from, request.into());
            }
        })*
    };
}

/// Answers to what recovery has asked.
macro_rules! answers {
    ($($kind:ident),* $(,)?) => {
        $(impl Receive<$kind> for ReplicaProcess {
            fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, answer: $kind) {
                self.answered(cx, from, answer.into());
            }
        })*
    };
}

requests!(
    PromiseRequest,
    WriteRequest,
    LearnedMessage,
    ChosenMessage,
    RecoverRequest,
    FetchRequest,
    StatusRequest,
);
answers!(
    PromiseResponse,
    WriteResponse,
    RecoverResponse,
    FetchResponse,
    StatusResponse,
);

impl Receive<ReadLog> for ReplicaProcess {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, request: ReadLog) {
        let to = asker(cx, from);
        let read = match self.replica.read(request.span) {
            Ok(entries) => cut(entries),
            Err(error) => LogRead::Unreadable {
                reason: error.to_string(),
            },
        };
        self.out(cx, Out::Read(to, read));
    }
}

/// As many entries as one answer carries.
fn cut(mut entries: Vec<(Position, Bytes)>) -> LogRead {
    let mut size = 0;
    let fits = entries.iter().take_while(|(_, bytes)| {
        let begun = size < READ_BYTES;
        size += bytes.len();
        begun
    });
    let count = fits.count();
    let next = entries.get(count).map(|(position, _)| *position);
    entries.truncate(count);
    LogRead::Entries { entries, next }
}

fn asker(cx: &mut Context<'_, ReplicaProcess>, from: &Pid) -> To {
    cx.defer_reply()
        .map_or_else(|| To::Process(from.clone()), To::Asker)
}

impl ReplicaProcess {
    fn loaded(&mut self, cx: &mut Context<'_, Self>, stored: Stored) {
        let is_broken = stored.damaged || stored.metadata.status == Status::Recovering;
        if is_broken && self.settings.members.len() == 1 {
            let directory = self.settings.directory.display();
            cx.fail(format!(
                "the log in {directory} is damaged and no other master has a copy: put a saved copy of the directory \
                 there, or remove it to begin with an empty log"
            ));
            return;
        }
        self.replica = Replica::restore(post::member(cx.address()), stored);
        let asks = Asks(cx.random().random());
        let recovery = recovery::Settings {
            quorum: self.settings.members.quorum(),
            auto_initialize: self.settings.auto_initialize,
        };
        self.recovery = Recovery::new(recovery, asks);
        self.lag = Lag::new(Asks(cx.random().random()));
        let (status, begin, end) = (
            self.replica.status(),
            self.replica.begin(),
            self.replica.end(),
        );
        info!(?status, %begin, %end, "log restored");
        if status == Status::Empty && !self.settings.auto_initialize {
            let directory = self.settings.directory.display();
            warn!(
                "this log is empty and waits for an operator: end a majority of the masters, let each of their logs vote with \
                 meseta log initialize --path {directory}, and start them again"
            );
        }
        let effects = self.recovery.start(&mut self.replica, cx.random());
        self.recover(cx, effects);
        self.meter();
    }

    fn request(&mut self, cx: &mut Context<'_, Self>, from: &Pid, request: Request) {
        let member = self.settings.members.member_of(from);
        let may = match &request {
            // Anybody whom the wire lets through may look.
            Request::Fetch(_) | Request::Status(_) => true,
            Request::Recover(request) => member.as_ref() == Some(&request.member),
            Request::Promise(_) | Request::Write(_) | Request::Learned(_) | Request::Chosen(_) => {
                member.is_some()
            }
        };
        if !may {
            warn!(%from, "word about the log from a node that is not among the masters ignored");
            return;
        }
        let chosen = match &request {
            Request::Chosen(message) => Some(message.chosen),
            Request::Promise(_)
            | Request::Write(_)
            | Request::Learned(_)
            | Request::Recover(_)
            | Request::Fetch(_)
            | Request::Status(_) => None,
        };
        let to = asker(cx, from);
        self.serve(&to, cx, request);
        if let (Some(member), Some(chosen)) = (member, chosen) {
            self.told(cx, &member, &chosen);
        }
        self.commit(cx);
    }

    fn serve(&mut self, to: &To, cx: &mut Context<'_, Self>, request: Request) {
        for effect in self.replica.step(request) {
            match effect {
                Effect::Store(change) => {
                    self.gathering.add(change);
                    self.gathering.is_due = true;
                }
                Effect::StoreLater(Change::Metadata(metadata)) => self.marks = Some(metadata),
                Effect::StoreLater(change) => self.gathering.add(change),
                Effect::Reply(response) => self.out(cx, Out::Answer(to.clone(), response)),
            }
        }
        debug_assert_eq!(self.replica.check(), Ok(()));
    }

    /// Fetches what is missing of that. It is looked for now and then only, since that takes a walk over the log.
    fn told(&mut self, cx: &mut Context<'_, Self>, member: &Member, chosen: &Chosen) {
        if cx.now() >= self.look_again {
            self.look_again = cx.now() + LOOK;
            let effects = self.lag.told(&self.replica, member, chosen);
            self.catch_up(cx, effects);
        }
    }

    fn catch_up(&mut self, cx: &mut Context<'_, Self>, effects: Vec<lag::Effect>) {
        for effect in effects {
            match effect {
                lag::Effect::Fetch(member, request) => {
                    self.out(cx, Out::Ask(member, request.into()));
                }
                lag::Effect::Learn(message) => {
                    let me = To::Process(cx.me().clone());
                    self.serve(&me, cx, message.into());
                }
                lag::Effect::Arm(timer) => {
                    cx.after(PATIENCE, move |this, _| this.lag.due(timer));
                }
            }
        }
    }

    fn answered(&mut self, cx: &mut Context<'_, Self>, from: &Pid, response: Response) {
        let Some(member) = self.settings.members.member_of(from) else {
            debug!(%from, "answer from a node that is not among the masters ignored");
            return;
        };
        if let Response::Fetch(answer) = &response {
            let effects = self.lag.answered(&member, answer.clone());
            self.catch_up(cx, effects);
        }
        let effects = self
            .recovery
            .answered(&mut self.replica, &member, response, cx.random());
        self.recover(cx, effects);
    }

    fn due(&mut self, cx: &mut Context<'_, Self>, timer: Timer) {
        let effects = self.recovery.due(&mut self.replica, timer, cx.random());
        self.recover(cx, effects);
    }

    fn recover(&mut self, cx: &mut Context<'_, Self>, effects: Vec<recovery::Effect>) {
        for effect in effects {
            match effect {
                recovery::Effect::Store(change) => {
                    self.gathering.add(change);
                    self.gathering.is_due = true;
                }
                recovery::Effect::Send(member, request) => self.out(cx, Out::Ask(member, request)),
                recovery::Effect::Arm(timer, after) => {
                    cx.after(after, move |this, cx| this.due(cx, timer));
                }
                recovery::Effect::Voting => self.out(cx, Out::Voting),
            }
        }
        self.commit(cx);
    }

    /// Lets something leave as soon as everything that it may tell of is on disk.
    fn out(&mut self, cx: &mut Context<'_, Self>, out: Out) {
        if self.gathering.is_due {
            self.gathering.outs.push(out);
        } else if let Some(held) = &mut self.committing {
            held.push(out);
        } else {
            self.send(cx, out);
        }
    }

    fn send(&self, cx: &mut Context<'_, Self>, out: Out) {
        match out {
            Out::Answer(to, response) => post::answer(cx, &to, response),
            Out::Ask(member, request) => self.settings.members.ask(cx, &member, request),
            Out::Read(To::Asker(asker), read) => cx.reply_later(&asker, read),
            Out::Read(To::Process(pid), read) => cx.send(&pid, read),
            Out::Voting => {
                info!(begin = %self.replica.begin(), end = %self.replica.end(), "log recovered: this replica votes");
                cx.metrics().set("registrar/log/recovered", 1.0);
            }
        }
    }

    /// Begins a commit when one is due and none is under way.
    fn commit(&mut self, cx: &mut Context<'_, Self>) {
        if !self.gathering.is_due || self.committing.is_some() {
            return;
        }
        let mut batch = std::mem::take(&mut self.gathering);
        self.mark(&mut batch);
        let changes = batch.changes();
        if let Some(meters) = &self.meters {
            meters.changes.add(number(changes.len()));
        }
        self.committing = Some(batch.outs);
        cx.run(Commit { changes }, Gate::Interleave, Self::committed);
    }

    /// Adds the latest watermarks when it is time, and when something is forgotten: what the log begins with stands
    /// beside them.
    fn mark(&mut self, batch: &mut Batch) {
        if batch.metadata.is_some() || batch.forget.is_some() || self.unmarked >= MARK_EVERY {
            // The state is written as it is now, so that nothing older follows.
            if self.marks.take().is_some() {
                batch.metadata = Some(self.replica.metadata().clone());
            }
            self.unmarked = 0;
        } else {
            self.unmarked += 1;
        }
    }

    fn committed(&mut self, cx: &mut Context<'_, Self>, outcome: Result<Committed, StorageError>) {
        let outs = self.committing.take().unwrap_or_default();
        let committed = match outcome {
            Ok(committed) => committed,
            Err(failed) => {
                error!(error = %failed, "the replica of the log ends");
                self.gathering = Batch::default();
                cx.fail(format!("the log cannot be written: {failed}"));
                return;
            }
        };
        for out in outs {
            self.send(cx, out);
        }
        if let Some(meters) = &self.meters {
            meters.commits.add(1.0);
            meters.seconds.add(committed.took.as_secs_f64());
        }
        self.meter();
        self.commit(cx);
    }

    fn meter(&self) {
        if let Some(meters) = &self.meters {
            meters.begin.set(precise(self.replica.begin().0));
            meters.end.set(precise(self.replica.end().0));
            meters
                .promised
                .set(precise(self.replica.metadata().promised.0));
        }
    }

    fn show(&mut self, cx: &mut Context<'_, Self>, _: &meseta_runtime::Request) -> Page {
        let metadata = self.replica.metadata();
        let span = Span {
            from: self.replica.begin(),
            to: self.replica.end(),
        };
        let missing = self.replica.missing(span, super::messages::STATUS_SPANS);
        Page::json(&json!({
            "member": cx.address().to_string(),
            "members": self.settings.members.quorum().members,
            "status": metadata.status,
            "incarnation": metadata.life.incarnation,
            "promised": metadata.promised,
            "begin": self.replica.begin(),
            "end": self.replica.end(),
            "chosen": metadata.chosen.iter().map(|chosen| chosen.through).max(),
            "missing": missing,
        }))
    }
}

fn number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

/// Exact up to 2^53, which no position reaches.
#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
fn precise(count: u64) -> f64 {
    count as f64
}
