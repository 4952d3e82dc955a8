//! The registrar's rules: what is written when, and who hears what after it.
//!
//! Pure: a step takes an input and gives effects, to be carried out in order. The shell is `registrar/mod.rs`.
//!
//! ```text
//!   Reading ── entries read ──▶ Ready ⇄ Storing        operations that come meanwhile wait
//!      └─────────── whatever fails ────────▶ Failed    for good: every operation is refused
//! ```
//!
//! One entry or one truncation is on its way at most: each entry names the one before it, and of two that are on their way
//! when a leadership ends the later may stay in the log without the earlier. What comes meanwhile waits; then all that waits
//! is applied in its order and written as one entry, which is durable before anybody hears of it.
//!
//! Of the registry there are two: the durable one, which may be seen, and the one to come. Both go through the same
//! operations one after the other, so nothing is copied for a write; the descriptions of agents are shared. Source: log.md §8.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use bytes::Bytes;
use meseta_protocol::agent::MasterInfo;
use meseta_runtime::planted::mistake;

use super::entry::{self, Diff};
use super::replay::{Replay, ReplayError, Since};
use crate::registry::{Change, Registry, RegistryOperation, RegistryRejection};

/// Diffs after which a snapshot is written, however small they are: a reader has to apply each.
pub const MAX_DIFFS: usize = 1024;

/// Diffs may grow to this many bytes, however small the registry is: a snapshot costs a truncation as well.
pub const FREE_DIFF_BYTES: usize = 64 << 10;

/// Names an operation until it is answered.
pub type Ticket = u64;

/// What happens to the registrar.
#[derive(Debug)]
pub enum Input {
    /// A master begins to lead. Comes once, before or after operations.
    Recover {
        /// To be answered by [`Effect::Answer`].
        ticket: Ticket,
        /// The master.
        master: MasterInfo,
        /// Id for a cluster that has none yet.
        cluster_id: String,
    },
    /// The log from its beginning to where the leadership began: position and bytes of every entry of ours.
    Read(Result<Vec<(u64, Bytes)>, LogError>),
    /// An operation.
    Apply {
        /// To be answered by [`Effect::Answer`].
        ticket: Ticket,
        /// The operation.
        operation: RegistryOperation,
    },
    /// What became of the entry on its way: its position, or why there is none.
    Stored(Result<u64, LogError>),
    /// What became of the truncation on its way.
    Truncated(Result<(), LogError>),
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Read the log; answer with [`Input::Read`].
    Read,
    /// Write an entry; answer with [`Input::Stored`].
    Append(Bytes),
    /// Forget all entries before this position; answer with [`Input::Truncated`].
    Truncate(u64),
    /// What became of an operation, or of a recovery: once that is applied, the registry is the log's and this master is
    /// in it.
    Answer(Ticket, Answer),
    /// End for this reason, after the effects before.
    Fail(String),
}

/// What became of an operation.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It applies, and is durable.
    Applied(Change),
    /// It does not apply.
    Rejected(RegistryRejection),
    /// Nobody knows: the registrar has failed.
    Failed(String),
}

/// Why the log did not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Another master writes now.
    #[error("another master leads now")]
    Demoted,
    /// It took too long. It may happen yet.
    #[error("the log did not do it within {0:?}; --{1} sets the limit")]
    TimedOut(Duration, &'static str),
    /// The log does not answer, or not what was asked.
    #[error("{0}")]
    Broken(String),
}

/// Why the registrar has failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the registry could not be read: {0}")]
    Read(LogError),
    #[error("the registry could not be rebuilt: {0}")]
    Replay(#[from] ReplayError),
    #[error("the registry could not be stored: {0}")]
    Store(LogError),
    #[error("the registry could not be truncated: {0}")]
    Truncate(LogError),
    #[error("the registry could not be encoded: {0}")]
    Encode(meseta_runtime::message::CodecError),
}

#[derive(Debug)]
enum State {
    /// No master has come yet, or the log is being read for one.
    Reading(Option<Box<Leadership>>),
    Ready,
    Failed(String),
}

#[derive(Debug)]
struct Leadership {
    ticket: Ticket,
    master: MasterInfo,
    cluster_id: String,
}

/// An entry on its way, and what follows from it.
#[derive(Debug)]
struct Flight {
    operations: Vec<RegistryOperation>,
    answers: Vec<(Ticket, Answer)>,
    bytes: usize,
    snapshot: bool,
}

/// The registrar.
#[derive(Debug)]
pub struct Core {
    durable: bool,
    state: State,
    registry: Registry,
    next: Registry,
    queue: VecDeque<(Ticket, RegistryOperation)>,
    flight: Option<Flight>,
    since: Since,
    /// Up to where the log is truncated, as far as this registrar knows.
    truncated: u64,
    /// Where the truncation on its way ends.
    truncating: Option<u64>,
}

impl Core {
    /// A registrar that writes to the log, or, when nothing is to be `durable`, keeps its registry in memory alone.
    pub fn new(durable: bool) -> Self {
        Self {
            durable,
            state: State::Reading(None),
            registry: Registry::default(),
            next: Registry::default(),
            queue: VecDeque::new(),
            flight: None,
            since: Since::default(),
            truncated: 0,
            truncating: None,
        }
    }

    /// The registry, with nothing in it that is not durable.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// How many operations wait for what is on its way.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// How the log stands.
    pub fn since(&self) -> Since {
        self.since
    }

    /// Applies one input.
    pub fn step(&mut self, input: Input) -> Vec<Effect> {
        let effects = match input {
            Input::Recover {
                ticket,
                master,
                cluster_id,
            } => self.recover(Leadership {
                ticket,
                master,
                cluster_id,
            }),
            Input::Read(Ok(entries)) => self.read(entries),
            Input::Read(Err(error)) => Err(Failure::Read(error)),
            Input::Apply { ticket, operation } => self.apply(ticket, operation),
            Input::Stored(Ok(position)) => self.stored(position),
            Input::Stored(Err(error)) => Err(Failure::Store(error)),
            Input::Truncated(result) => self.truncated(result),
        };
        effects.unwrap_or_else(|failure| self.fail(&failure))
    }

    fn recover(&mut self, leadership: Leadership) -> Result<Vec<Effect>, Failure> {
        match self.state {
            State::Failed(_) => return Ok(Vec::new()),
            State::Reading(_) => self.state = State::Reading(Some(Box::new(leadership))),
            State::Ready => {
                debug_assert!(false, "a registrar serves one leadership");
                return Ok(Vec::new());
            }
        }
        if self.durable {
            Ok(vec![Effect::Read])
        } else {
            self.read(Vec::new())
        }
    }

    fn read(&mut self, entries: Vec<(u64, Bytes)>) -> Result<Vec<Effect>, Failure> {
        let State::Reading(leadership) = &mut self.state else {
            return Ok(Vec::new());
        };
        let Some(leadership) = leadership.take() else {
            return Ok(Vec::new());
        };
        // What was before the first entry is truncated away already.
        self.truncated = entries.first().map_or(0, |(position, _)| *position);
        let mut replay = Replay::default();
        for (position, bytes) in entries {
            replay.feed(position, &bytes)?;
        }
        let (mut registry, since) = replay.finish(&leadership.master.capabilities)?;
        if mistake("registrar forgets who is unreachable") {
            registry.unreachable.clear();
        }
        self.next = registry.clone();
        self.registry = registry;
        self.since = since;
        self.state = State::Ready;
        // What this master does first proves that nobody else writes.
        let recover = RegistryOperation::Recover {
            master: leadership.master,
            cluster_id: leadership.cluster_id,
        };
        self.queue.push_front((leadership.ticket, recover));
        self.store()
    }

    fn apply(
        &mut self,
        ticket: Ticket,
        operation: RegistryOperation,
    ) -> Result<Vec<Effect>, Failure> {
        if let State::Failed(why) = &self.state {
            return Ok(vec![Effect::Answer(ticket, Answer::Failed(why.clone()))]);
        }
        self.queue.push_back((ticket, operation));
        self.store()
    }

    /// Writes all that waits, unless something is on its way.
    fn store(&mut self) -> Result<Vec<Effect>, Failure> {
        let under_way = self.flight.is_some() || self.truncating.is_some();
        if under_way || self.queue.is_empty() || !matches!(self.state, State::Ready) {
            return Ok(Vec::new());
        }
        let mut operations = Vec::new();
        let mut answers = Vec::new();
        for (ticket, operation) in mem::take(&mut self.queue) {
            let result = self.next.apply(&operation);
            if result == Ok(Change::Changed) {
                operations.push(operation);
            }
            answers.push((
                ticket,
                result.map_or_else(Answer::Rejected, Answer::Applied),
            ));
        }
        let mut flight = Flight {
            operations,
            answers,
            bytes: 0,
            snapshot: false,
        };
        if flight.operations.is_empty() || !self.durable {
            return Ok(self.land(flight));
        }
        let bytes = self.encode(&mut flight).map_err(Failure::Encode)?;
        let mut effects = vec![Effect::Append(bytes)];
        if mistake("registrar answers before an entry is durable") {
            let answers = mem::take(&mut flight.answers).into_iter();
            effects.extend(answers.map(|(ticket, answer)| Effect::Answer(ticket, answer)));
        }
        self.flight = Some(flight);
        Ok(effects)
    }

    fn encode(&self, flight: &mut Flight) -> Result<Bytes, meseta_runtime::message::CodecError> {
        let since = self.since;
        let most = since.snapshot_bytes.max(FREE_DIFF_BYTES);
        flight.snapshot =
            since.snapshot == 0 || since.diffs >= MAX_DIFFS || since.diff_bytes > most;
        let bytes = if flight.snapshot {
            entry::encode_snapshot(since.last, &self.next)?
        } else {
            let mut diff = Diff {
                based_on: since.last,
                operations: mem::take(&mut flight.operations),
            };
            let bytes = entry::encode_diff(&diff);
            flight.operations = mem::take(&mut diff.operations);
            bytes?
        };
        flight.bytes = bytes.len();
        Ok(Bytes::from(bytes))
    }

    /// What was decided is durable now, as far as it will be: it may be seen.
    fn land(&mut self, flight: Flight) -> Vec<Effect> {
        for operation in &flight.operations {
            let again = self.registry.apply(operation);
            debug_assert_eq!(again, Ok(Change::Changed), "{operation:?}");
        }
        debug_assert_eq!(self.registry.admitted.len(), self.next.admitted.len());
        let answers = flight.answers.into_iter();
        answers
            .map(|(ticket, answer)| Effect::Answer(ticket, answer))
            .collect()
    }

    fn stored(&mut self, position: u64) -> Result<Vec<Effect>, Failure> {
        let Some(flight) = self.flight.take() else {
            return Ok(Vec::new());
        };
        if flight.snapshot {
            self.since.snapshot(position, flight.bytes);
        } else {
            self.since.diff(position, flight.bytes);
        }
        let mut effects = self.land(flight);
        effects.extend(self.truncate());
        effects.extend(self.store()?);
        Ok(effects)
    }

    /// Nobody needs what is before the snapshot. A truncation that was not begun is tried again after the next entry.
    fn truncate(&mut self) -> Option<Effect> {
        if self.truncating.is_some() || self.since.snapshot <= self.truncated {
            return None;
        }
        self.truncating = Some(self.since.snapshot);
        Some(Effect::Truncate(self.since.snapshot))
    }

    fn truncated(&mut self, result: Result<(), LogError>) -> Result<Vec<Effect>, Failure> {
        let truncating = self.truncating.take();
        match result {
            Ok(()) => self.truncated = truncating.unwrap_or(self.truncated),
            // It may happen yet, so nothing may be written behind it.
            Err(error @ (LogError::Demoted | LogError::TimedOut(..))) => {
                return Err(Failure::Truncate(error));
            }
            Err(LogError::Broken(_)) => {}
        }
        self.store()
    }

    /// What was on its way may be durable or not, and what waits would build on it: nothing more is done.
    fn fail(&mut self, failure: &Failure) -> Vec<Effect> {
        if matches!(self.state, State::Failed(_)) {
            return Vec::new();
        }
        let why = failure.to_string();
        let flight = self.flight.take().map(|flight| flight.answers);
        let reading = match mem::replace(&mut self.state, State::Failed(why.clone())) {
            State::Reading(leadership) => leadership.map(|leadership| leadership.ticket),
            State::Ready | State::Failed(_) => None,
        };
        let mut open: Vec<Ticket> = flight
            .into_iter()
            .flatten()
            .map(|(ticket, _)| ticket)
            .collect();
        open.extend(reading);
        open.extend(
            mem::take(&mut self.queue)
                .into_iter()
                .map(|(ticket, _)| ticket),
        );
        let failed = |ticket| Effect::Answer(ticket, Answer::Failed(why.clone()));
        let mut effects: Vec<Effect> = open.into_iter().map(failed).collect();
        effects.push(Effect::Fail(why));
        effects
    }
}
