//! All a handler may do: send, reply, ask, link, delay, run an operation, spawn, stop.
//!
//! Every call appends an [`Effect`]; nothing happens before the turn is over. Continuations stay with the process,
//! so they may borrow nothing but may hold anything, and need not be `Send`.

use std::any::{Any, TypeId};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::clock::Time;
use crate::host::{Factory, MAX_EXIT_TEXT};
use crate::http::{Responder, Response};
use crate::identity::{GuestKey, IdentityError};
use crate::links::ExitReason;
use crate::message::{Ask, Correlation, Envelope, Kind, Message, Parcel, Payload};
use crate::metrics::Metrics;
use crate::node::{Placement, SpawnError};
use crate::numbered::Numbered;
use crate::pid::{Address, Pid};
use crate::process::{Process, Profile, open};
use crate::transport::Guest;

/// Names a pending timer of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimerId(u64);

/// Why an ask has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// No answer came in time. The request may have been handled.
    #[error("no answer in time")]
    TimedOut,
    /// The request could not be queued: no such process, full mailbox, or an unreachable node.
    #[error("the request could not be delivered")]
    Undelivered,
    /// The process had as many asks open as it may; see [`crate::NodeBuilder::max_asks`]. The request was not sent.
    #[error("too many asks wait for their answers: wait for some of them before asking more")]
    TooMany,
    /// An answer came that is not of the expected type.
    #[error("the answer does not decode")]
    BadAnswer,
}

/// An operation outside the actor: plain data that the host's operator carries out, such as a disk write or the
/// launch of a program. Live, a [`crate::NodeBuilder::op`] handler does it; in simulation a model answers.
pub trait Op: Send + 'static {
    /// Its outcome.
    type Out: Send + 'static;
}

/// What a process does while an operation is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Goes on as if nothing were.
    Interleave,
    /// User messages wait, and so do all effects after the operation; timers, HTTP and other control events are
    /// served, with their effects waiting too. This is how "durable before visible" is written: run the write under
    /// `HoldUser`, then send what depends on it. When the continuation stops the process, the waiting effects are
    /// dropped.
    HoldUser,
    /// Effects after the operation wait, messages do not: they are handled, with their effects waiting too, until some
    /// thousands of effects wait. Later operations under this gate begin at once, so that whoever carries them out can
    /// do several together; each effect waits for all of them that came before it. This is "durable before visible" for
    /// a process whose own state may be ahead of the disk, as long as nobody sees it.
    HoldEffects,
}

/// An operation whose type is known again only to its handler.
pub struct AnyOp {
    /// Type of the operation.
    pub type_id: TypeId,
    /// Name of the type, for the log.
    pub name: &'static str,
    /// The operation.
    pub op: Box<dyn Any + Send>,
}

/// One thing a turn wants done.
pub enum Effect {
    /// Deliver a message.
    Send(Envelope),
    /// Deliver a request, and report when no answer came in time.
    Ask {
        /// The request; its correlation holds `number`.
        request: Envelope,
        /// Number of the ask.
        number: u64,
        /// How long to wait.
        limit: Duration,
    },
    /// Report that an ask was not sent, because too many wait for their answers.
    AskRefused {
        /// Number of the ask.
        number: u64,
    },
    /// Run the continuation of this number later.
    After {
        /// Number of the continuation.
        timer: TimerId,
        /// How much later.
        delay: Duration,
    },
    /// Forget a timer.
    Cancel(TimerId),
    /// Carry out an operation.
    Run {
        /// Number of its continuation.
        number: u64,
        /// The operation.
        op: AnyOp,
        /// What waits meanwhile.
        gate: Gate,
    },
    /// Tell this process of another's end.
    Link(Pid),
    /// No longer tell it.
    Unlink(Pid),
    /// Start a process.
    Spawn {
        /// Its PID, reserved already; free again when this is dropped.
        reserved: Reserved,
        /// Builds it on its thread.
        factory: Factory,
    },
    /// End another process of this node.
    Terminate(Pid),
    /// Answer an HTTP request.
    Respond(Responder, Response),
    /// Let a guest connect.
    Pin(Guest),
    /// Refuse a guest.
    Unpin(Arc<str>),
    /// Let the node take connections.
    OpenNode,
    /// End this process, for this reason.
    Stop(ExitReason),
}

type Continuation<P> = Box<dyn FnOnce(&mut P, &mut Context<'_, P>)>;
type AskContinuation<P> = Box<dyn FnOnce(&mut P, &mut Context<'_, P>, Result<Payload, AskError>)>;
type OpContinuation<P> = Box<dyn FnOnce(&mut P, &mut Context<'_, P>, Box<dyn Any + Send>)>;

/// What a process has yet to hear of.
pub(crate) struct Continuations<P> {
    pub(crate) timers: Numbered<TimerId, Continuation<P>>,
    pub(crate) asks: Numbered<u64, (Pid, AskContinuation<P>)>,
    pub(crate) ops: Numbered<u64, OpContinuation<P>>,
    next: u64,
    /// Numbers of asks that the node has given to this process, to be used up.
    ask_numbers: Range<u64>,
}

/// Asks of one process that may wait for their answers, unless the node says otherwise.
pub(crate) const DEFAULT_MAX_ASKS: usize = 65_536;

/// How many numbers of asks a process takes at once: its node's counter is shared by all threads.
const ASK_NUMBERS: u64 = 64;

impl<P> Continuations<P> {
    fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A number that no other ask of any process of the node has.
    fn take_ask_number(&mut self, home: &dyn Home) -> u64 {
        if let Some(number) = self.ask_numbers.next() {
            return number;
        }
        let first = home.next_ask() * ASK_NUMBERS;
        self.ask_numbers = first + 1..first + ASK_NUMBERS;
        first
    }
}

impl<P> Default for Continuations<P> {
    fn default() -> Self {
        Self {
            timers: Numbered::default(),
            asks: Numbered::default(),
            ops: Numbered::default(),
            next: 0,
            ask_numbers: 0..0,
        }
    }
}

/// What a [`Context`] asks of its node within a turn, whichever host runs it: a live node or a simulated one. None of
/// it can be seen from outside the process before the turn's effects are carried out, but a taken name.
pub(crate) trait Home: Send + Sync {
    /// Wall-clock time of `now`, since the Unix epoch.
    fn wall(&self, now: Time) -> Duration;
    /// Metrics of the node.
    fn metrics(&self) -> &Metrics;
    /// The next number, unique for the node. A process makes the numbers of its next asks of it.
    fn next_ask(&self) -> u64;
    /// How many asks of one process may wait for their answers.
    fn max_asks(&self) -> usize {
        DEFAULT_MAX_ASKS
    }
    /// The next id `prefix(n)`, counting from 1.
    fn next_id(&self, prefix: &str) -> String;
    /// Takes a name for a process of this profile: from now on messages to it wait for its start.
    fn reserve(
        &self,
        id: &str,
        profile: Arc<Profile>,
        placement: Placement,
    ) -> Result<Pid, SpawnError>;
    /// Frees the name of a process that will not start. Called once, for a name taken by `reserve`.
    fn release(self: Arc<Self>, pid: &Pid);
    /// Delivers what code outside all actors sends.
    fn send_from_outside(self: Arc<Self>, to: &Pid, parcel: Parcel, kind: Kind);
    /// A one-use key for a guest.
    fn guest_key(&self) -> Result<GuestKey, IdentityError>;
    /// Shows what waits for a process among the metrics, whenever they are read.
    fn show_queue(self: Arc<Self>, _of: &Pid, _names: QueueNames) {}
}

/// Under which names the metrics show what waits for a process.
#[derive(Debug, Clone, Copy)]
pub struct QueueNames {
    /// Messages.
    pub messages: &'static str,
    /// Timers, outcomes of operations and answers to asks.
    pub dispatches: &'static str,
    /// HTTP requests.
    pub http_requests: &'static str,
}

/// A name that is taken for a process which has yet to start. Dropped before that, because the turn that wanted the
/// process panicked or its effects were dropped, it frees the name: links to it hear `Terminated`.
pub struct Reserved {
    pid: Pid,
    home: Option<Arc<dyn Home>>,
}

impl Reserved {
    /// Takes a name.
    pub(crate) fn take(
        home: &Arc<dyn Home>,
        id: &str,
        profile: Arc<Profile>,
        placement: Placement,
    ) -> Result<Self, SpawnError> {
        Ok(Self {
            pid: home.reserve(id, profile, placement)?,
            home: Some(Arc::clone(home)),
        })
    }

    pub(crate) fn pid(&self) -> &Pid {
        &self.pid
    }

    /// Whoever calls this starts the process, or ends it.
    pub(crate) fn starts(mut self) -> Pid {
        self.home = None;
        self.pid.clone()
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.release(&self.pid);
        }
    }
}

/// What code outside all actors holds of a node, such as another thread or whoever carries out an operation: it sends,
/// as the node itself.
#[derive(Clone)]
pub struct Outside(pub(crate) Arc<dyn Home>);

impl Outside {
    /// Sends a message. Nothing happens when the node has ended.
    pub fn send<M: Message>(&self, to: &Pid, message: M) {
        Arc::clone(&self.0).send_from_outside(to, Parcel::new(message), Kind::of::<M>());
    }
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outside")
    }
}

/// Random source of one process: made when it is first drawn from, since most never do.
pub(crate) struct Random {
    seed: u64,
    source: Option<Box<StdRng>>,
}

impl Random {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self { seed, source: None }
    }

    fn source(&mut self) -> &mut StdRng {
        let seed = self.seed;
        self.source
            .get_or_insert_with(|| Box::new(StdRng::seed_from_u64(seed)))
    }
}

/// The process's own PID as it stands on what it sends. Whoever receives a message lets go of its sender's record, on
/// another thread perhaps; so that they do not pass the count of one record to and fro, what is sent later stands in
/// the name of another.
pub(crate) struct Signature {
    pid: Pid,
    left: u32,
}

impl Signature {
    /// Messages that share a record.
    const SHARED: u32 = 64;

    pub(crate) fn of(pid: Pid) -> Self {
        let left = Self::SHARED;
        Self { pid, left }
    }

    fn next(&mut self) -> Pid {
        if self.left == 0 {
            *self = Self::of(self.pid.copied());
        }
        self.left -= 1;
        self.pid.clone()
    }
}

/// What stays the same over all turns of a process.
pub(crate) struct Surroundings {
    pub(crate) me: Pid,
    pub(crate) home: Arc<dyn Home>,
}

/// Where an answer to the current request goes; keep it to answer in a later turn.
#[derive(Debug, Clone)]
pub struct ReplyTo {
    pub(crate) to: Pid,
    pub(crate) number: u64,
}

/// The hands of a handler for one turn.
pub struct Context<'a, P> {
    pub(crate) surroundings: &'a Surroundings,
    pub(crate) signature: &'a mut Signature,
    pub(crate) now: Time,
    pub(crate) random: &'a mut Random,
    pub(crate) effects: &'a mut Vec<Effect>,
    pub(crate) continuations: &'a mut Continuations<P>,
    pub(crate) reply_to: Option<ReplyTo>,
}

impl<P: Process> Context<'_, P> {
    /// PID of this process.
    pub fn me(&self) -> &Pid {
        &self.surroundings.me
    }

    /// Address of this process's node.
    pub fn address(&self) -> &Address {
        self.surroundings.me.address()
    }

    /// Time at the beginning of the turn, or up to 15 turns before it while they take a few microseconds each.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Wall-clock time at the beginning of the turn, since the Unix epoch; for dates shown to people.
    pub fn wall(&self) -> Duration {
        self.surroundings.home.wall(self.now)
    }

    /// Random source of this process, seeded from the node's seed and the process's id.
    pub fn random(&mut self) -> &mut StdRng {
        self.random.source()
    }

    /// Metrics of this node.
    pub fn metrics(&self) -> &Metrics {
        self.surroundings.home.metrics()
    }

    /// Shows what waits for this process among the metrics, as it is whenever they are read. A simulated node shows 0.
    pub fn show_queue(&self, names: QueueNames) {
        let home = Arc::clone(&self.surroundings.home);
        (home.metrics()).gauges([names.messages, names.dispatches, names.http_requests]);
        home.show_queue(self.me(), names);
    }

    /// What code outside all actors may hold of this node.
    pub fn outside(&self) -> Outside {
        Outside(Arc::clone(&self.surroundings.home))
    }

    /// A one-use key for a guest to be pinned. It comes from the system, not from this process's random source, since
    /// nobody may guess it; a simulated node gives one that opens nothing.
    ///
    /// # Errors
    /// [`IdentityError`] when the system has no random bytes.
    pub fn guest_key(&self) -> Result<GuestKey, IdentityError> {
        self.surroundings.home.guest_key()
    }

    /// PID of `id` on this process's own node.
    ///
    /// # Errors
    /// [`crate::pid::ParsePidError::BadId`] when the id cannot be one.
    pub fn local(&self, id: &str) -> Result<Pid, crate::pid::ParsePidError> {
        Pid::new(id, self.address().clone())
    }

    /// Sends a message: at most once, in order after what this process sent to `to` before.
    pub fn send<M: Message>(&mut self, to: &Pid, message: M) {
        let envelope = self.envelope(to, message, Correlation::None);
        self.effects.push(Effect::Send(envelope));
    }

    /// Sends a message and runs `k` with its answer, or with why there is none after `limit`.
    pub fn ask<M: Ask>(
        &mut self,
        to: &Pid,
        message: M,
        limit: Duration,
        k: impl FnOnce(&mut P, &mut Context<'_, P>, Result<M::Reply, AskError>) + 'static,
    ) {
        let home = &*self.surroundings.home;
        let number = self.continuations.take_ask_number(home);
        let refused = self.continuations.asks.len() >= home.max_asks();
        let opened: AskContinuation<P> = Box::new(move |process, cx, answer| {
            let answer = answer
                .and_then(|payload| open::<M::Reply>(payload).map_err(|_| AskError::BadAnswer));
            k(process, cx, answer);
        });
        self.continuations.asks.insert(number, (to.clone(), opened));
        let effect = if refused {
            Effect::AskRefused { number }
        } else {
            Effect::Ask {
                request: self.envelope(to, message, Correlation::Request(number)),
                number,
                limit,
            }
        };
        self.effects.push(effect);
    }

    /// Answers the request that is being handled. Does nothing when the current message expects no answer.
    pub fn reply<M: Message>(&mut self, answer: M) {
        if let Some(to) = self.reply_to.take() {
            self.reply_later(&to, answer);
        }
    }

    /// Takes the right to answer the current request, to use in a later turn.
    pub fn defer_reply(&mut self) -> Option<ReplyTo> {
        self.reply_to.take()
    }

    /// Answers a request whose reply was deferred.
    pub fn reply_later<M: Message>(&mut self, to: &ReplyTo, answer: M) {
        let envelope = self.envelope(&to.to, answer, Correlation::Answer(to.number));
        self.effects.push(Effect::Send(envelope));
    }

    /// Runs `k` after `delay`.
    pub fn after(
        &mut self,
        delay: Duration,
        k: impl FnOnce(&mut P, &mut Context<'_, P>) + 'static,
    ) -> TimerId {
        let timer = TimerId(self.continuations.take_number());
        self.continuations.timers.insert(timer, Box::new(k));
        self.effects.push(Effect::After { timer, delay });
        timer
    }

    /// Forgets a timer. Does nothing when it has run.
    pub fn cancel(&mut self, timer: TimerId) {
        if self.continuations.timers.remove(&timer).is_some() {
            self.effects.push(Effect::Cancel(timer));
        }
    }

    /// Has an operation carried out outside the actor and runs `k` with its outcome.
    pub fn run<O: Op>(
        &mut self,
        op: O,
        gate: Gate,
        k: impl FnOnce(&mut P, &mut Context<'_, P>, O::Out) + 'static,
    ) {
        let number = self.continuations.take_number();
        let opened: OpContinuation<P> = Box::new(move |process, cx, out| {
            if let Ok(out) = out.downcast::<O::Out>() {
                k(process, cx, *out);
            } else {
                debug_assert!(
                    false,
                    "the operator of {} answers another type",
                    std::any::type_name::<O>()
                );
            }
        });
        self.continuations.ops.insert(number, opened);
        self.effects.push(Effect::Run {
            number,
            op: AnyOp {
                type_id: TypeId::of::<O>(),
                name: std::any::type_name::<O>(),
                op: Box::new(op),
            },
            gate,
        });
    }

    /// Asks to be told, once, when `pid` ends or the connection to it breaks.
    pub fn link(&mut self, pid: &Pid) {
        self.effects.push(Effect::Link(pid.clone()));
    }

    /// Takes a link back: nothing will be told of `pid`, unless the notice is in the mailbox already.
    pub fn unlink(&mut self, pid: &Pid) {
        self.effects.push(Effect::Unlink(pid.clone()));
    }

    /// Starts another process on this node, on the same thread, under a name that is free.
    ///
    /// # Errors
    /// [`SpawnError`] when the name is taken or no name, or two message kinds of the process clash.
    pub fn spawn<Q: Process>(
        &mut self,
        id: &str,
        build: impl FnOnce() -> Q + Send + 'static,
    ) -> Result<Pid, SpawnError> {
        self.spawn_placed(id, Placement::Near, build)
    }

    /// Starts another process on this node, on a thread of the given kind, under a name that is free.
    ///
    /// # Errors
    /// As [`Context::spawn`].
    pub fn spawn_placed<Q: Process>(
        &mut self,
        id: &str,
        placement: Placement,
        build: impl FnOnce() -> Q + Send + 'static,
    ) -> Result<Pid, SpawnError> {
        let home = &self.surroundings.home;
        let reserved = Reserved::take(home, id, Profile::of::<Q>(), placement)?;
        let pid = reserved.pid().clone();
        self.effects.push(Effect::Spawn {
            reserved,
            factory: Factory::new(build),
        });
        Ok(pid)
    }

    /// Starts a process that ends when this one does, and links to it.
    pub(crate) fn spawn_leashed<Q: Process>(
        &mut self,
        id: &str,
        placement: Placement,
        build: impl FnOnce() -> Q + Send + 'static,
    ) -> Result<Pid, SpawnError> {
        let home = &self.surroundings.home;
        let reserved = Reserved::take(home, id, Profile::of::<Q>(), placement)?;
        let pid = reserved.pid().clone();
        // The link comes first: a process that ends in its first turn must not be found missing.
        self.effects.push(Effect::Link(pid.clone()));
        self.effects.push(Effect::Spawn {
            reserved,
            factory: Factory::new(build).leashed(self.me().clone()),
        });
        Ok(pid)
    }

    /// Starts another process on this node under the next name `prefix(n)`, counting from 1.
    ///
    /// # Errors
    /// As [`Context::spawn`].
    pub fn spawn_numbered<Q: Process>(
        &mut self,
        prefix: &str,
        build: impl FnOnce() -> Q + Send + 'static,
    ) -> Result<Pid, SpawnError> {
        let id = self.surroundings.home.next_id(prefix);
        self.spawn(&id, build)
    }

    /// Ends another process of this node, after what is in its mailbox now.
    pub fn terminate(&mut self, pid: &Pid) {
        self.effects.push(Effect::Terminate(pid.clone()));
    }

    /// Ends this process after this turn. What is in its mailbox is dropped.
    pub fn stop(&mut self) {
        self.effects.push(Effect::Stop(ExitReason::Normal));
    }

    /// Ends this process after this turn because it cannot go on; `why` is what its links hear in
    /// [`ExitReason::Failed`], cut after 4 KiB. What is in its mailbox is dropped.
    pub fn fail(&mut self, why: impl Into<String>) {
        let mut why = why.into();
        why.truncate(why.floor_char_boundary(MAX_EXIT_TEXT));
        let reason = ExitReason::Failed(why);
        self.effects.push(Effect::Stop(reason));
    }

    /// Lets a guest connect to this node and speak as the actor `guest.id`; see [`crate::transport::Guest`].
    pub fn pin_guest(&mut self, guest: Guest) {
        self.effects.push(Effect::Pin(guest));
    }

    /// Refuses the guest from now on and closes its connection.
    pub fn unpin_guest(&mut self, id: &str) {
        self.effects.push(Effect::Unpin(Arc::from(id)));
    }

    /// Has the node take connections, if it was built with [`NodeBuilder::opens_when_told`](crate::NodeBuilder::opens_when_told);
    /// nothing otherwise. Guests that were pinned before are let in.
    pub fn open_node(&mut self) {
        self.effects.push(Effect::OpenNode);
    }

    fn envelope<M: Message>(&mut self, to: &Pid, message: M, correlation: Correlation) -> Envelope {
        Envelope {
            to: to.clone(),
            from: self.signature.next(),
            kind: const { Kind::of::<M>() },
            correlation,
            payload: Payload::Local(Parcel::new(message)),
        }
    }
}
