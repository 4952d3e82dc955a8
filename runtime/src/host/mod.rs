//! Hosts: what runs processes and carries out their effects.
//!
//! [`Cell`] joins a process with what it has yet to hear of and turns one event into effects; it knows no thread
//! and no scheduler. [`Driver`] feeds a cell from its inbox and hands the effects to the node in order. The host in
//! [`actix`] runs drivers in production; a simulated host can run the same cells one event at a time.

pub(crate) mod actix;
pub(crate) mod stats;

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tracing::{debug, error, warn};

use crate::clock::{Time, TimerKey};
use crate::context::{
    AskError, Context, Continuations, Effect, Gate, ReplyTo, Surroundings, TimerId,
};
use crate::http::{Request, Responder, Response};
use crate::inbox::{Control, Inbox, User};
use crate::links::ExitReason;
use crate::message::{Correlation, Envelope};
use crate::node::NodeHandle;
use crate::pid::Pid;
use crate::process::{Process, Routes};

/// Events handled before a drain gives way to others on its thread.
const DRAIN_MESSAGES: usize = 256;
/// Time after which a drain gives way, looked at after each event.
const DRAIN_TIME: Duration = Duration::from_millis(1);

/// Builds a process on the thread that will host it.
pub struct Factory(Box<dyn FnOnce(Surroundings, u64) -> Box<dyn Hosted> + Send>);

impl Factory {
    pub(crate) fn new<P: Process>(build: impl FnOnce() -> P + Send + 'static) -> Self {
        Self(Box::new(move |surroundings, seed| {
            Box::new(Cell {
                process: build(),
                routes: Routes::of(),
                surroundings,
                random: StdRng::seed_from_u64(seed),
                continuations: Continuations::default(),
            })
        }))
    }

    /// Of a process that needs nothing of its surroundings but its turns: a probe of the test kit.
    pub(crate) fn hosting(build: impl FnOnce() -> Box<dyn Hosted> + Send + 'static) -> Self {
        Self(Box::new(|_, _| build()))
    }

    pub(crate) fn build(self, surroundings: Surroundings, seed: u64) -> Box<dyn Hosted> {
        (self.0)(surroundings, seed)
    }
}

/// One event for one process.
pub(crate) enum Turn {
    Start,
    Message(Envelope),
    Exited(Pid, ExitReason),
    Timer(TimerId),
    OpDone(u64, Box<dyn Any + Send>),
    AskFailed(u64, AskError),
    Http(Request, Responder),
}

/// A process whose type is forgotten.
pub(crate) trait Hosted {
    /// Handles one event and appends its effects.
    fn turn(&mut self, turn: Turn, now: Time, effects: &mut Vec<Effect>);

    /// The process itself, for a host that lets checks look into it.
    #[expect(dead_code, reason = "for the simulated host")]
    fn as_any(&self) -> &dyn Any;
}

/// A process with its dispatch table and everything it waits for.
struct Cell<P> {
    process: P,
    routes: Routes<P>,
    surroundings: Surroundings,
    random: StdRng,
    continuations: Continuations<P>,
}

impl<P: Process> Hosted for Cell<P> {
    fn turn(&mut self, turn: Turn, now: Time, effects: &mut Vec<Effect>) {
        match turn {
            Turn::Start => self.with(now, effects, None, |process, cx| process.start(cx)),
            Turn::Message(envelope) => self.message(envelope, now, effects),
            Turn::Exited(pid, reason) => {
                self.with(now, effects, None, |process, cx| {
                    process.exited(cx, &pid, reason);
                });
            }
            Turn::Timer(timer) => {
                if let Some(k) = self.continuations.timers.remove(&timer) {
                    self.with(now, effects, None, k);
                }
            }
            Turn::OpDone(number, out) => {
                if let Some(k) = self.continuations.ops.remove(&number) {
                    self.with(now, effects, None, |process, cx| k(process, cx, out));
                }
            }
            Turn::AskFailed(number, error) => {
                if let Some((_, k)) = self.continuations.asks.remove(&number) {
                    self.with(now, effects, None, |process, cx| k(process, cx, Err(error)));
                }
            }
            Turn::Http(request, responder) => {
                let Some(handler) = self.routes.http_handler(&request.path) else {
                    let missing = Response::text(404, "404 Not Found.");
                    effects.push(Effect::Respond(responder, missing));
                    return;
                };
                let mut response = None;
                self.with(now, effects, None, |process, cx| {
                    response = Some(handler(process, cx, &request));
                });
                if let Some(response) = response {
                    effects.push(Effect::Respond(responder, response));
                }
            }
        }
    }

    fn as_any(&self) -> &dyn Any {
        &self.process
    }
}

impl<P: Process> Cell<P> {
    fn message(&mut self, envelope: Envelope, now: Time, effects: &mut Vec<Effect>) {
        let Envelope {
            from,
            kind,
            correlation,
            payload,
            ..
        } = envelope;
        let reply_to = match correlation {
            Correlation::None => None,
            Correlation::Request(number) => Some(ReplyTo {
                to: from.clone(),
                number,
            }),
            Correlation::Answer(number) => {
                self.answer(number, &from, payload, now, effects);
                return;
            }
        };
        let Some(handler) = self.routes.handler(kind) else {
            debug!(me = %self.surroundings.me, %from, ?kind, "message of a kind that is not handled dropped");
            return;
        };
        let mut outcome = Ok(());
        self.with(now, effects, reply_to, |process, cx| {
            outcome = handler(process, cx, &from, payload);
        });
        if let Err(error) = outcome {
            warn!(me = %self.surroundings.me, %from, ?kind, error = %crate::error_chain(&error), "message refused");
        }
    }

    fn answer(
        &mut self,
        number: u64,
        from: &Pid,
        payload: crate::message::Payload,
        now: Time,
        effects: &mut Vec<Effect>,
    ) {
        // Only the process that was asked may answer.
        match self.continuations.asks.get(&number) {
            Some((asked, _)) if asked == from => {}
            _ => {
                debug!(me = %self.surroundings.me, %from, "answer to nothing that was asked dropped");
                return;
            }
        }
        if let Some((_, k)) = self.continuations.asks.remove(&number) {
            self.with(now, effects, None, |process, cx| {
                k(process, cx, Ok(payload));
            });
        }
    }

    fn with(
        &mut self,
        now: Time,
        effects: &mut Vec<Effect>,
        reply_to: Option<ReplyTo>,
        act: impl FnOnce(&mut P, &mut Context<'_, P>),
    ) {
        let mut cx = Context {
            surroundings: &self.surroundings,
            now,
            random: &mut self.random,
            effects,
            continuations: &mut self.continuations,
            reply_to,
        };
        act(&mut self.process, &mut cx);
    }
}

/// What a drain ended with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Nothing is left to do.
    Idle,
    /// The budget is used up; drain again after others had their turn.
    More,
    /// The process has ended.
    Ended,
}

/// Longest text of a panic that is passed on, in bytes: exit notices must stay small.
const MAX_PANIC_TEXT: usize = 4096;

/// What a panic says.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a text");
    text[..text.floor_char_boundary(MAX_PANIC_TEXT)].to_owned()
}

/// Feeds one process from its inbox.
pub(crate) struct Driver {
    inbox: Arc<Inbox>,
    cell: Option<Box<dyn Hosted>>,
    node: NodeHandle,
    effects: Vec<Effect>,
    /// The operation under `Gate::HoldUser`, if one is under way.
    holding: Option<u64>,
    /// Effects that wait for it.
    waiting: VecDeque<Effect>,
    timers: HashMap<TimerId, TimerKey>,
    /// Deadlines of asks that have no answer yet.
    asks: HashMap<u64, TimerKey>,
}

impl Driver {
    pub(crate) fn new(inbox: Arc<Inbox>, cell: Box<dyn Hosted>, node: NodeHandle) -> Self {
        Self {
            inbox,
            cell: Some(cell),
            node,
            effects: Vec::new(),
            holding: None,
            waiting: VecDeque::new(),
            timers: HashMap::new(),
            asks: HashMap::new(),
        }
    }

    /// Handles what waits, up to the budget: control first, then user messages.
    pub(crate) fn drain(&mut self) -> Drained {
        let began = self.node.clock().now();
        for _ in 0..DRAIN_MESSAGES {
            let ended = if let Some(event) = self.inbox.pop_control() {
                self.control(event)
            } else if let Some(event) = self.inbox.pop_user() {
                // A test may have this event dropped or held; in production nobody has asked for that.
                match self.node.filters().pass(&self.inbox, event) {
                    Some(event) => self.user(event),
                    None => false,
                }
            } else if self.inbox.rest() {
                return Drained::More;
            } else {
                return Drained::Idle;
            };
            self.node.clock().done(1);
            if ended {
                return Drained::Ended;
            }
            if self.node.clock().now().since(began) > DRAIN_TIME {
                break;
            }
        }
        Drained::More
    }

    fn control(&mut self, event: Control) -> bool {
        match event {
            Control::Start => self.turn(Turn::Start),
            Control::Timer(timer) => {
                self.timers.remove(&timer);
                self.turn(Turn::Timer(timer))
            }
            Control::AskFailed { number, error } => {
                self.asks.remove(&number);
                self.turn(Turn::AskFailed(number, error))
            }
            Control::OpFailed(reason) => {
                error!(me = %self.inbox.pid, reason, "process ended: its operation has no outcome");
                self.end(ExitReason::Panic(reason));
                true
            }
            Control::Http(request, responder) => self.turn(Turn::Http(request, responder)),
            Control::OpDone { number, out } => {
                if self.holding == Some(number) {
                    self.release(number, out)
                } else {
                    self.turn(Turn::OpDone(number, out))
                }
            }
        }
    }

    fn user(&mut self, event: User) -> bool {
        self.inbox.handled.fetch_add(1, Ordering::Relaxed);
        match event {
            User::Message(envelope) => {
                if let Correlation::Answer(number) = envelope.correlation
                    && let Some(deadline) = self.asks.remove(&number)
                {
                    self.node.clock().cancel(deadline);
                }
                self.turn(Turn::Message(envelope))
            }
            User::Exited { pid, reason } => self.turn(Turn::Exited(pid, reason)),
            User::Terminate(reason) => {
                self.end(reason);
                true
            }
            User::Nudge => false,
        }
    }

    /// Runs one event and carries out its effects; `true` when the process has ended.
    fn turn(&mut self, turn: Turn) -> bool {
        let began = self.node.clock().now();
        let message = match &turn {
            Turn::Message(envelope) => self
                .inbox
                .accepted
                .get(&envelope.kind)
                .map(|accepted| accepted.name),
            Turn::Start
            | Turn::Exited(..)
            | Turn::Timer(_)
            | Turn::OpDone(..)
            | Turn::AskFailed(..)
            | Turn::Http(..) => None,
        };
        let handled = self.handle(turn);
        let took = self.node.clock().now().since(began);
        self.inbox.stats.turn(message, took);
        match handled {
            Ok(effects) => self.perform(effects),
            Err(reason) => {
                self.end(reason);
                true
            }
        }
    }

    fn handle(&mut self, turn: Turn) -> Result<Vec<Effect>, ExitReason> {
        let mut effects = std::mem::take(&mut self.effects);
        effects.clear();
        let now = self.node.clock().now();
        let Some(cell) = &mut self.cell else {
            return Err(ExitReason::Normal);
        };
        // The cell is dropped when this fails, so nobody sees the state that the panic left behind.
        match catch_unwind(AssertUnwindSafe(|| cell.turn(turn, now, &mut effects))) {
            Ok(()) => Ok(effects),
            Err(panic) => {
                let text = panic_text(panic.as_ref());
                error!(me = %self.inbox.pid, panic = %text, "process panicked");
                Err(ExitReason::Panic(text))
            }
        }
    }

    /// The held operation is done: its continuation runs first and may stop the process, which drops what waited
    /// for the outcome; otherwise that goes out before the continuation's own effects.
    fn release(&mut self, number: u64, out: Box<dyn Any + Send>) -> bool {
        self.holding = None;
        let effects = match self.handle(Turn::OpDone(number, out)) {
            Ok(effects) => effects,
            Err(reason) => {
                self.end(reason);
                return true;
            }
        };
        if effects.iter().any(|effect| matches!(effect, Effect::Stop)) {
            self.waiting.clear();
        }
        self.inbox.hold(false);
        self.inbox.stats.hold(None);
        let mut all: Vec<Effect> = self.waiting.drain(..).collect();
        all.extend(effects);
        self.perform(all)
    }

    fn perform(&mut self, mut effects: Vec<Effect>) -> bool {
        for effect in effects.drain(..) {
            if self.holding.is_some() {
                self.waiting.push_back(effect);
                continue;
            }
            match effect {
                Effect::Stop => {
                    self.end(ExitReason::Normal);
                    return true;
                }
                Effect::Run { number, op, gate } => {
                    if gate == Gate::HoldUser {
                        self.holding = Some(number);
                        self.inbox.hold(true);
                        self.inbox.stats.hold(Some(op.name));
                    }
                    self.node.operate(&self.inbox, number, op);
                }
                Effect::After { timer, delay } => {
                    let key = self.post_after(delay, Control::Timer(timer));
                    self.timers.insert(timer, key);
                }
                Effect::Cancel(timer) => {
                    if let Some(key) = self.timers.remove(&timer) {
                        self.node.clock().cancel(key);
                    }
                }
                Effect::Ask {
                    request,
                    number,
                    limit,
                } => {
                    let error = AskError::TimedOut;
                    let key = self.post_after(limit, Control::AskFailed { number, error });
                    self.asks.insert(number, key);
                    if !self.node.deliver(request) {
                        let error = AskError::Undelivered;
                        self.inbox
                            .push_control(Control::AskFailed { number, error });
                    }
                }
                other @ (Effect::Send(_)
                | Effect::Link(_)
                | Effect::Unlink(_)
                | Effect::Spawn { .. }
                | Effect::Terminate(_)
                | Effect::Respond(..)
                | Effect::Pin(_)
                | Effect::Unpin(_)) => self.node.carry_out(&self.inbox, other),
            }
        }
        self.effects = effects;
        false
    }

    fn post_after(&self, delay: Duration, event: Control) -> TimerKey {
        let inbox = Arc::clone(&self.inbox);
        let clock = self.node.clock();
        clock.at(clock.now() + delay, move || inbox.push_control(event))
    }

    fn end(&mut self, reason: ExitReason) {
        // Dropping the process may run its own code; a panic in there must not take the thread along.
        let cell = self.cell.take();
        if catch_unwind(AssertUnwindSafe(|| drop(cell))).is_err() {
            error!(me = %self.inbox.pid, "process panicked while it was dropped");
        }
        self.waiting.clear();
        for (_, key) in self.timers.drain() {
            self.node.clock().cancel(key);
        }
        for (_, key) in self.asks.drain() {
            self.node.clock().cancel(key);
        }
        self.node.ended(&self.inbox, reason);
    }
}

impl Drop for Driver {
    /// A host that is torn down with its thread ends its processes too, so that links hear of it.
    fn drop(&mut self) {
        if self.cell.is_some() {
            self.end(ExitReason::Terminated);
        }
    }
}
