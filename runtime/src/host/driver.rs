//! Feeds one process from its inbox and carries its effects out, in order.
//!
//! A drain serves control events first and then user events, up to [`DRAIN_EVENTS`] or [`DRAIN_TIME`]; what a thread's
//! drivers need only while they drain they share in a [`Desk`], so that an idle process keeps next to nothing.
//! The invariant: events are handled in the order of their lane, whatever a drain takes out at once and puts back;
//! and while an operation holds the user lane, neither a user event is handled nor an effect carried out.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tracing::error;

use super::deadlines::Deadlines;
use super::line::Line;
use super::{Factory, Hosted, Turn, panic_text, worker};
use crate::clock::{Clock, Time, TimerKey};
use crate::context::{AskError, Effect, Gate, Surroundings, TimerId};
use crate::inbox::{Control, Inbox, Rest, User};
use crate::links::ExitReason;
use crate::message::{Correlation, Envelope, Mail};
use crate::node::NodeHandle;
use crate::numbered::Numbered;
use crate::pid::Pid;

/// Events handled before a drain gives way to others on its thread.
const DRAIN_EVENTS: usize = 256;
/// Time after which a drain gives way, looked at whenever the clock is read.
const DRAIN_TIME: Duration = Duration::from_millis(1);
/// Events of quick handlers between two readings of the clock.
const STRIDE: u32 = 16;
/// A handler that takes no longer than this on average is quick.
const QUICK: Duration = Duration::from_micros(4);

/// What the drivers of one thread share, one at a time.
pub(crate) struct Desk {
    clock: Clock,
    /// The time of the last reading: what handlers are told.
    now: Time,
    batch: VecDeque<User>,
    effects: Vec<Effect>,
    /// Some turn of this drain had effects.
    acted: bool,
    /// Events handled that a paused clock still counts as pending.
    unfinished: u64,
}

impl Desk {
    pub(crate) fn new(clock: Clock) -> Self {
        let now = clock.now();
        Self {
            clock,
            now,
            batch: VecDeque::new(),
            effects: Vec::new(),
            acted: false,
            unfinished: 0,
        }
    }

    fn finish(&mut self) {
        self.clock.done(std::mem::take(&mut self.unfinished));
    }

    /// Reads the clock; the time since the last reading.
    pub(crate) fn read(&mut self) -> Duration {
        let before = std::mem::replace(&mut self.now, self.clock.now());
        worker::note_time(Some(self.now));
        self.now.since(before)
    }

    pub(crate) fn now(&self) -> Time {
        self.now
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Drops what a panic may have left.
    pub(crate) fn clear(&mut self) {
        self.unfinished += self.batch.len() as u64;
        self.finish();
        self.batch.clear();
        self.effects.clear();
    }
}

/// Which lanes a drain serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Serve {
    Both,
    Control,
}

/// What a drain ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Nothing is left to do.
    Idle,
    /// The budget is used up; drain again after others had their turn.
    More,
    /// The process has ended.
    Ended,
}

/// A process that is about to start on its thread.
pub(crate) struct Start {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) node: NodeHandle,
    pub(crate) surroundings: Surroundings,
    pub(crate) factory: Factory,
    pub(crate) seed: u64,
}

impl Start {
    /// Builds the process and runs its first turn; nothing when that ended it.
    pub(crate) fn run(self, desk: &mut Desk) -> Option<Driver> {
        let Self {
            inbox,
            node,
            surroundings,
            factory,
            seed,
        } = self;
        if inbox.is_closed() {
            // Its end was told before it could start.
            node.clock().done(1);
            return None;
        }
        let build = move || factory.build(surroundings, seed);
        let ended = match catch_unwind(AssertUnwindSafe(build)) {
            Ok(cell) => {
                let mut driver = Driver::new(Arc::clone(&inbox), cell, node.clone());
                let ended = driver.turn(Turn::Start, desk);
                (!ended).then_some(driver)
            }
            Err(panic) => {
                let text = panic_text(panic.as_ref());
                error!(me = %inbox.pid(), panic = %text, "process panicked while it was made");
                node.ended(&inbox, ExitReason::Panic(text));
                None
            }
        };
        inbox.stats.spent(None, inbox.profile(), desk.read());
        // The start was counted when the inbox was made.
        node.clock().done(1);
        ended
    }

    /// Its thread has ended: so has the process.
    pub(crate) fn abandon(self) {
        self.node.ended(&self.inbox, ExitReason::Terminated);
        self.node.clock().done(1);
    }

    pub(crate) fn inbox(&self) -> Arc<Inbox> {
        Arc::clone(&self.inbox)
    }
}

/// Feeds one process from its inbox.
pub(crate) struct Driver {
    inbox: Arc<Inbox>,
    cell: Option<Box<dyn Hosted>>,
    node: NodeHandle,
    /// Effects that wait for an operation under a gate that holds them; none at other times.
    line: Line,
    /// Whether the inbox was told to hold user messages back.
    is_held: bool,
    timers: Numbered<TimerId, TimerKey>,
    /// Made with the first ask.
    deadlines: Option<Box<Deadlines>>,
    /// Events between two readings of the clock, from what the last ones took.
    stride: u32,
}

impl Driver {
    fn new(inbox: Arc<Inbox>, cell: Box<dyn Hosted>, node: NodeHandle) -> Self {
        Self {
            inbox,
            cell: Some(cell),
            node,
            line: Line::default(),
            is_held: false,
            timers: Numbered::default(),
            deadlines: None,
            stride: 1,
        }
    }

    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Handles what waits, up to the budget: control first, then user messages.
    pub(crate) fn drain(&mut self, serve: Serve, desk: &mut Desk) -> Drained {
        if desk.clock.is_paused() {
            // A test may have moved it since the last drain, which on a live clock was a moment ago.
            desk.read();
        }
        desk.acted = false;
        let began = desk.now;
        let (mut handled, mut unread) = (0_usize, 0_u32);
        let mut place = None;
        let (mut ended, mut taken) = (false, false);
        while handled < DRAIN_EVENTS {
            let control = self
                .inbox
                .control_waits()
                .then(|| self.inbox.pop_control())
                .flatten();
            if let Some(event) = control {
                place = None;
                self.inbox.stats.begin(None);
                ended = self.control(event, desk);
            } else if serve == Serve::Control || self.line.is_held() {
                break;
            } else {
                if desk.batch.is_empty() && !(taken && desk.acted) {
                    // Again and again only while nothing follows from it: a process that sends, to itself perhaps, goes
                    // on after the others, whom it may have sent much more, have had their turn.
                    taken = true;
                    self.inbox.take(&mut desk.batch, DRAIN_EVENTS - handled);
                }
                // A test may have events dropped or held; in production nobody has asked for that.
                let looked_at = self.node.filters().look_on();
                (place, ended) = match desk.batch.front() {
                    None => break,
                    Some(User::Message(mail)) if !looked_at => {
                        let place = self.place(mail);
                        (place, self.message(place, desk))
                    }
                    Some(_) => self.other(desk),
                };
            }
            handled += 1;
            unread += 1;
            desk.unfinished += 1;
            if ended {
                break;
            }
            if unread >= self.stride {
                self.measure(place, unread, desk);
                unread = 0;
                if desk.now.since(began) > DRAIN_TIME {
                    break;
                }
            }
        }
        self.inbox.stats.rest();
        if unread > 0 {
            self.measure(place, unread, desk);
        }
        if !desk.batch.is_empty() {
            self.inbox.put_back(&mut desk.batch);
        }
        let drained = if ended {
            Drained::Ended
        } else {
            let rest = match serve {
                Serve::Both => self.inbox.rest(handled),
                Serve::Control => self.inbox.rest_control(),
            };
            match rest {
                Rest::Idle => Drained::Idle,
                Rest::More => Drained::More,
            }
        };
        // Last, so that who waits for this to settle finds everything counted.
        desk.finish();
        drained
    }

    /// Reads the clock after `events`, and decides how many may pass before the next reading.
    fn measure(&mut self, place: Option<usize>, events: u32, desk: &mut Desk) {
        let took = desk.read();
        self.inbox.stats.spent(place, self.inbox.profile(), took);
        self.inbox.in_hand(desk.batch.len());
        self.stride = if took <= QUICK * events {
            (self.stride * 2).min(STRIDE)
        } else {
            1
        };
    }

    fn control(&mut self, event: Control, desk: &mut Desk) -> bool {
        match event {
            Control::Timer(timer) => {
                self.timers.remove(&timer);
                self.turn(Turn::Timer(timer), desk)
            }
            Control::Deadline => self.deadline(desk),
            Control::AskFailed { number, error } => self.turn(Turn::AskFailed(number, error), desk),
            Control::OpFailed(reason) => {
                error!(me = %self.inbox.pid(), reason, "process ended: its operation has no outcome");
                self.end(ExitReason::Panic(reason));
                true
            }
            Control::Http(http) => self.turn(Turn::Http(http.0, http.1), desk),
            Control::OpDone { number, out } => {
                if self.line.is_held_by(number) {
                    self.release(number, out, desk)
                } else {
                    self.turn(Turn::OpDone(number, out), desk)
                }
            }
        }
    }

    /// Place of a message's kind; answers belong to none.
    fn place(&self, mail: &Mail) -> Option<usize> {
        match mail.correlation {
            Correlation::None | Correlation::Request(_) => self.inbox.profile().place(mail.kind),
            Correlation::Answer(_) => None,
        }
    }

    fn note(&self, place: Option<usize>) {
        self.inbox.stats.begin(place);
        self.inbox.stats.handled(place, self.inbox.profile());
    }

    /// Handles the message in front of the batch; `true` when the process has ended.
    fn message(&mut self, place: Option<usize>, desk: &mut Desk) -> bool {
        self.note(place);
        self.act(desk, |cell, desk| {
            cell.next_message(&mut desk.batch, place, desk.now, &mut desk.effects);
        })
    }

    /// Handles the event in front of the batch, if it passes; the place of its kind, and whether the process has ended.
    fn other(&mut self, desk: &mut Desk) -> (Option<usize>, bool) {
        let event = desk.batch.pop_front();
        let passed = event.and_then(|event| self.node.filters().pass(&self.inbox, event));
        let Some(event) = passed else {
            return (None, false);
        };
        let place = match &event {
            User::Message(mail) => self.place(mail),
            User::Exited { .. } | User::Terminate(_) | User::Nudge => None,
        };
        self.note(place);
        let ended = match event {
            User::Message(mail) => self.turn(Turn::Message(mail), desk),
            User::Exited { pid, reason } => self.turn(Turn::Exited(pid, reason), desk),
            User::Terminate(reason) => {
                self.end(reason);
                true
            }
            User::Nudge => false,
        };
        (place, ended)
    }

    /// Runs one event and carries out its effects; `true` when the process has ended.
    fn turn(&mut self, turn: Turn, desk: &mut Desk) -> bool {
        self.act(desk, |cell, desk| {
            cell.turn(turn, desk.now, &mut desk.effects);
        })
    }

    fn act(&mut self, desk: &mut Desk, turn: impl FnOnce(&mut dyn Hosted, &mut Desk)) -> bool {
        match self.handle(desk, turn) {
            Ok(()) if desk.effects.is_empty() => false,
            Ok(()) => {
                desk.acted = true;
                let mut effects = std::mem::take(&mut desk.effects);
                let ended = self.perform(&mut effects);
                effects.clear();
                desk.effects = effects;
                ended
            }
            Err(reason) => {
                desk.effects.clear();
                self.end(reason);
                true
            }
        }
    }

    /// Runs one event; its effects are left on the desk.
    fn handle(
        &mut self,
        desk: &mut Desk,
        turn: impl FnOnce(&mut dyn Hosted, &mut Desk),
    ) -> Result<(), ExitReason> {
        let Some(cell) = &mut self.cell else {
            return Err(ExitReason::Normal);
        };
        // The cell is dropped when this fails, so nobody sees the state that the panic left behind.
        catch_unwind(AssertUnwindSafe(|| turn(&mut **cell, desk))).map_err(|panic| {
            let text = panic_text(panic.as_ref());
            error!(me = %self.inbox.pid(), panic = %text, "process panicked");
            ExitReason::Panic(text)
        })
    }

    /// The held operation is done: its continuation runs first and may stop the process, which drops what waited
    /// for the outcome; otherwise that goes out before the continuation's own effects.
    fn release(&mut self, number: u64, out: Box<dyn Any + Send>, desk: &mut Desk) -> bool {
        let turn = Turn::OpDone(number, out);
        let handled = self.handle(desk, |cell, desk| {
            cell.turn(turn, desk.now, &mut desk.effects);
        });
        let effects = std::mem::take(&mut desk.effects);
        if let Err(reason) = handled {
            drop(effects);
            self.end(reason);
            return true;
        }
        self.line.release(number, effects);
        self.advance()
    }

    /// Carries out what waits in line and may go.
    fn advance(&mut self) -> bool {
        let mut asked = None;
        let mut holds = None;
        while let Some(effect) = self.line.pop() {
            if let Effect::Run {
                op,
                gate: Gate::HoldUser,
                ..
            } = &effect
            {
                holds = Some(op.name);
            }
            if self.carry_out(effect, &mut asked) {
                return true;
            }
        }
        let is_held = self.line.is_held();
        if !is_held || holds.is_some() {
            self.inbox.stats.hold(holds.filter(|_| is_held));
        }
        if is_held != self.is_held {
            self.is_held = is_held;
            self.inbox.hold(is_held);
        }
        false
    }

    fn perform(&mut self, effects: &mut Vec<Effect>) -> bool {
        // An ask waits from now on, not from the last reading, which was before the handler ran.
        let mut asked = None;
        let mut effects = effects.drain(..);
        if self.line.is_closed() {
            self.line.push(effects);
            return self.advance();
        }
        while let Some(effect) = effects.next() {
            match effect {
                Effect::Send(envelope) => {
                    let more = effects.as_slice().iter();
                    let more = more
                        .take_while(|next| is_sent_to(next, &envelope.to))
                        .count();
                    if more == 0 {
                        self.node.deliver(envelope);
                    } else {
                        let more = effects.by_ref().take(more).filter_map(sent);
                        self.node.deliver_run(envelope, more);
                    }
                }
                Effect::Run {
                    gate: Gate::HoldUser | Gate::HoldEffects,
                    ..
                } => {
                    self.line.push(std::iter::once(effect).chain(effects));
                    return self.advance();
                }
                other @ (Effect::Stop(_)
                | Effect::Run { .. }
                | Effect::After { .. }
                | Effect::Cancel(_)
                | Effect::Ask { .. }
                | Effect::AskRefused { .. }
                | Effect::Link(_)
                | Effect::Unlink(_)
                | Effect::Spawn { .. }
                | Effect::Terminate(_)
                | Effect::Respond(..)
                | Effect::Pin(_)
                | Effect::Unpin(_)
                | Effect::OpenNode) => {
                    if self.carry_out(other, &mut asked) {
                        return true;
                    }
                }
            }
        }
        false
    }

    /// Carries one effect out; `true` when it has ended the process.
    fn carry_out(&mut self, effect: Effect, asked: &mut Option<Time>) -> bool {
        match effect {
            Effect::Send(envelope) => {
                self.node.deliver(envelope);
            }
            Effect::Stop(reason) => {
                self.end(reason);
                return true;
            }
            Effect::Run { number, op, .. } => self.node.operate(&self.inbox, number, op),
            Effect::After { timer, delay } => {
                let inbox = Arc::clone(&self.inbox);
                let clock = self.node.clock();
                let key = clock.at(clock.now() + delay, move || {
                    inbox.push_control(Control::Timer(timer));
                });
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
                let now = *asked.get_or_insert_with(|| self.node.clock().now());
                self.open(number, now + limit);
                if !self.node.deliver(request) {
                    let error = AskError::Undelivered;
                    self.inbox
                        .push_control(Control::AskFailed { number, error });
                }
            }
            Effect::AskRefused { number } => {
                let error = AskError::TooMany;
                self.node.metrics().count("runtime/asks_refused");
                self.inbox
                    .push_control(Control::AskFailed { number, error });
            }
            other @ (Effect::Link(_)
            | Effect::Unlink(_)
            | Effect::Spawn { .. }
            | Effect::Terminate(_)
            | Effect::Respond(..)
            | Effect::Pin(_)
            | Effect::Unpin(_)
            | Effect::OpenNode) => self.node.carry_out(&self.inbox, other),
        }
        false
    }

    /// Gives an ask its deadline.
    fn open(&mut self, number: u64, deadline: Time) {
        let Some(cell) = &self.cell else {
            return;
        };
        let open = cell.open_asks();
        let place = self.node.clock().place(deadline);
        let deadlines = self.deadlines.get_or_insert_with(Box::default);
        deadlines.add(place, number, open, |ask| cell.waits_for(ask));
        self.arm();
    }

    /// Has the clock tell of the earliest deadline.
    fn arm(&mut self) {
        let Some(deadlines) = &mut self.deadlines else {
            return;
        };
        if let Some((place, told)) = deadlines.to_arm() {
            let clock = self.node.clock();
            if let Some(key) = told {
                clock.cancel(key);
            }
            let inbox = Arc::clone(&self.inbox);
            deadlines.armed(clock.at_place(place, move || inbox.push_control(Control::Deadline)));
        }
    }

    /// The clock told of a deadline. One ask fails at a time, as if each had a timer of its own.
    fn deadline(&mut self, desk: &mut Desk) -> bool {
        let now = self.node.clock().now();
        let (Some(deadlines), Some(cell)) = (&mut self.deadlines, &self.cell) else {
            return false;
        };
        let due = deadlines.rang(now, |ask| cell.waits_for(ask));
        self.arm();
        due.is_some_and(|ask| self.turn(Turn::AskFailed(ask, AskError::TimedOut), desk))
    }

    pub(crate) fn end(&mut self, reason: ExitReason) {
        // Dropping the process may run its own code; a panic in there must not take the thread along.
        let (cell, line) = (self.cell.take(), std::mem::take(&mut self.line));
        if catch_unwind(AssertUnwindSafe(|| drop((cell, line)))).is_err() {
            error!(me = %self.inbox.pid(), "process panicked while it was dropped");
        }
        let clock = self.node.clock();
        for (_, key) in self.timers.drain() {
            clock.cancel(key);
        }
        if let Some(key) = self.deadlines.take().and_then(|mut all| all.clear()) {
            clock.cancel(key);
        }
        self.node.ended(&self.inbox, reason);
    }
}

fn is_sent_to(effect: &Effect, to: &Pid) -> bool {
    matches!(effect, Effect::Send(envelope) if envelope.to.is_clone_of(to))
}

fn sent(effect: Effect) -> Option<Envelope> {
    if let Effect::Send(envelope) = effect {
        Some(envelope)
    } else {
        None
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
