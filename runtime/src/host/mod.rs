//! Hosts: what runs processes and carries out their effects.
//!
//! [`Cell`] joins a process with what it has yet to hear of and turns one event into effects; it knows no thread
//! and no scheduler. A driver feeds a cell from its inbox and hands the effects to the node in order. The host in
//! [`actix`] runs the drivers of a thread in production; a simulated host can run the same cells one event at a time.

pub(crate) mod actix;
mod deadlines;
pub(crate) mod driver;
pub(crate) mod line;
pub(crate) mod stats;
pub(crate) mod worker;

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

use tracing::{debug, warn};

use crate::clock::Time;
use crate::context::{
    AskError, Context, Continuations, Effect, Random, ReplyTo, Signature, Surroundings, TimerId,
};
use crate::http::{Request, Responder, Response};
use crate::inbox::User;
use crate::links::ExitReason;
use crate::message::{Correlation, Mail};
use crate::pid::Pid;
use crate::process::{Handler, Process, Routes, Takes};
use crate::supervisor::Leashed;

/// Builds a process on the thread that will host it.
pub struct Factory(Box<dyn FnOnce(Surroundings, u64) -> Box<dyn Hosted> + Send>);

impl Factory {
    pub(crate) fn new<P: Process>(build: impl FnOnce() -> P + Send + 'static) -> Self {
        Self(Box::new(move |surroundings, seed| {
            cell(build(), surroundings, seed)
        }))
    }

    /// Of a process that needs nothing of its surroundings but its turns: a probe of the test kit.
    pub(crate) fn hosting(build: impl FnOnce() -> Box<dyn Hosted> + Send + 'static) -> Self {
        Self(Box::new(|_, _| build()))
    }

    /// The same process, which ends when `holder` does.
    pub(crate) fn leashed(self, holder: Pid) -> Self {
        Self(Box::new(move |surroundings, seed| {
            let inner = self.build(surroundings, seed);
            Box::new(Leashed { inner, holder })
        }))
    }

    pub(crate) fn build(self, surroundings: Surroundings, seed: u64) -> Box<dyn Hosted> {
        (self.0)(surroundings, seed)
    }
}

/// Joins a process with what it has yet to hear of.
pub(crate) fn cell<P: Process>(
    process: P,
    surroundings: Surroundings,
    seed: u64,
) -> Box<dyn Hosted> {
    Box::new(Cell {
        process,
        routes: Routes::of(),
        signature: Signature::of(surroundings.me.clone()),
        surroundings,
        random: Random::seeded(seed),
        continuations: Continuations::default(),
    })
}

/// One event for one process.
pub(crate) enum Turn {
    Start,
    Message(Mail),
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

    /// Takes the message in front of `events` and handles it; the place is that of its kind in the profile. The same as a
    /// turn, for messages in numbers: they are large, and each time it is passed on it is copied.
    fn next_message(
        &mut self,
        events: &mut VecDeque<User>,
        _place: Option<usize>,
        now: Time,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(User::Message(mail)) = events.pop_front() {
            self.turn(Turn::Message(mail), now, effects);
        }
    }

    /// Whether the ask of this number has no answer yet.
    fn waits_for(&self, ask: u64) -> bool;

    /// How many asks have no answer yet.
    fn open_asks(&self) -> usize;

    /// The process itself, for a host that lets checks look into it.
    fn as_any(&self) -> &dyn Any;
}

/// A process with its dispatch table and everything it waits for.
struct Cell<P> {
    process: P,
    routes: Arc<Routes<P>>,
    surroundings: Surroundings,
    signature: Signature,
    random: Random,
    continuations: Continuations<P>,
}

impl<P: Process> Hosted for Cell<P> {
    fn turn(&mut self, turn: Turn, now: Time, effects: &mut Vec<Effect>) {
        match turn {
            Turn::Start => self.with(now, effects, None, |process, cx| process.start(cx)),
            Turn::Message(mail) => {
                let handler = self.routes.handler(mail.kind);
                self.message(mail, handler, now, effects);
            }
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
                let Some((takes, handler)) = self.routes.http_handler(&request.path) else {
                    let missing = Response::text(404, "404 Not Found.");
                    effects.push(Effect::Respond(responder, missing));
                    return;
                };
                // Clients who lose their patience ask again: what nobody takes would keep the process from the rest.
                if takes == Takes::Query && responder.is_abandoned() {
                    let metrics = self.surroundings.home.metrics();
                    metrics.count("runtime/http_requests_abandoned");
                    return;
                }
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

    fn next_message(
        &mut self,
        events: &mut VecDeque<User>,
        place: Option<usize>,
        now: Time,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(User::Message(mail)) = events.pop_front() {
            let handler = place.and_then(|place| self.routes.handler_at(place));
            self.message(mail, handler, now, effects);
        }
    }

    fn waits_for(&self, ask: u64) -> bool {
        self.continuations.asks.contains_key(&ask)
    }

    fn open_asks(&self) -> usize {
        self.continuations.asks.len()
    }

    fn as_any(&self) -> &dyn Any {
        &self.process
    }
}

impl<P: Process> Cell<P> {
    fn message(
        &mut self,
        mail: Mail,
        handler: Option<Handler<P>>,
        now: Time,
        effects: &mut Vec<Effect>,
    ) {
        let Mail {
            from,
            kind,
            correlation,
            payload,
        } = mail;
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
        let Some(handler) = handler else {
            debug!(me = %self.surroundings.me, %from, ?kind, "message of a kind that is not handled dropped");
            return;
        };
        let mut outcome = Ok(());
        self.with(now, effects, reply_to, |process, cx| {
            outcome = handler(process, cx, &from, payload);
            if outcome.is_err() {
                cx.metrics().count("runtime/messages_dropped/malformed");
            }
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
            signature: &mut self.signature,
            now,
            random: &mut self.random,
            effects,
            continuations: &mut self.continuations,
            reply_to,
        };
        act(&mut self.process, &mut cx);
        self.process.turn_ends(&mut cx);
    }
}

/// Longest text of a panic or failure that is passed on, in bytes: exit notices must stay small.
pub(crate) const MAX_EXIT_TEXT: usize = 4096;

/// What a panic says.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a text");
    text[..text.floor_char_boundary(MAX_EXIT_TEXT)].to_owned()
}
