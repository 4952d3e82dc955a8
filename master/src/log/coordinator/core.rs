//! The writer of the log: gets itself elected, learns what it has missed, and then appends.
//!
//! Pure: [`Coordinator::step`] takes an input and returns what to send, what to arm and what to say.
//!
//! ```text
//!   Initial ─Elect─▶ Looking ─▶ Promising ──rejected, ignored, late──▶ Initial (NotElected)
//!                                   │ a quorum promises; its highest end is e
//!                                   ▼
//!                               CatchingUp (all up to e) ─▶ Elected ─rejected, Resign─▶ Initial (Demoted)
//!                                                            writes at e+1, e+2, …
//! ```
//!
//! What comes while [`ROUNDS`] rounds are under way waits and leaves together as the next one. Rounds are acknowledged in
//! their order. One rejected write ends the leadership: all that is not acknowledged by then is answered with `Demoted`,
//! and whether it will be in the log is open.
//!
//! Invariants: nothing is acknowledged that a quorum has not accepted under this proposal together with everything
//! before it; after a demotion nothing is acknowledged at all.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use meseta_runtime::planted::mistake;
use rand::Rng;

use crate::log::action::{Position, Proposal, Value};
use crate::log::catchup::{self, Asks, CatchUp, Timer};
use crate::log::members::Member;
use crate::log::messages::{
    Chosen, ChosenMessage, PromiseRequest, PromiseResponse, Request, Response, Span, StatusRequest,
    Verdict, WriteRequest, WriteResponse,
};
use crate::log::rounds::{Outcome, Quorum, Round};

/// Most values that are not acknowledged yet.
pub const IN_FLIGHT: usize = 256;
/// Most rounds under way. A second one keeps the disks busy while the answers to the first are on their way.
pub const ROUNDS: usize = 2;
/// Bytes of values after which a round takes no more of them.
pub const ROUND_BYTES: usize = 256 * 1024;
/// How long a quorum may take to promise.
pub const ELECTION_PATIENCE: Duration = Duration::from_secs(5);
/// After this a write is sent again to those that have not answered.
pub const RESEND: Duration = Duration::from_secs(1);
/// After this the others are told what is chosen, when no write has told them.
pub const FLUSH: Duration = Duration::from_millis(20);

/// What a coordinator is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Try to be elected, once.
    Elect,
    /// Append an entry. The token comes back with the outcome.
    Append {
        /// The caller's name for this write.
        token: u64,
        /// The entry.
        bytes: Bytes,
    },
    /// Say that everything before `to` is of no use any more.
    Truncate {
        /// The caller's name for this write.
        token: u64,
        /// First position that stays.
        to: Position,
    },
    /// Give up leading, or trying to.
    Resign,
    /// A replica has answered.
    Answer(Member, Response),
    /// A timer has run out.
    Due(Timer),
}

/// What to do after a step, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Effect {
    /// To the replica of this member, which may be the local one.
    Send(Member, Request),
    /// Hand the timer back after this time.
    Arm(Timer, Duration),
    /// This coordinator is the writer, and the local replica has learned the log up to its end.
    Elected {
        /// Its proposal: the leader epoch.
        epoch: Proposal,
        /// The last position of the log as it was found.
        ending: Position,
    },
    /// This attempt has failed; another may be made after a while.
    NotElected(NotElected),
    /// A write is chosen: a quorum has it on disk.
    Written {
        /// Of the input.
        token: u64,
        /// Where it stands.
        position: Position,
    },
    /// A write was not even begun.
    Refused {
        /// Of the input.
        token: u64,
        /// Why.
        reason: Refusal,
    },
    /// The leadership is over. What has not been answered with `Written` will not be; each gets one of these.
    Lost {
        /// Of the input.
        token: u64,
    },
    /// The leadership is over, told once, after all `Lost`.
    Demoted,
}

/// Why an attempt to be elected failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotElected {
    /// A higher proposal stands.
    #[error("proposal {by} stands against it: try again")]
    Rejected {
        /// Which.
        by: Proposal,
    },
    /// A quorum of replicas does not vote yet.
    #[error("a quorum of replicas does not vote yet: try again when they have recovered")]
    Ignored,
    /// No quorum has answered in time.
    #[error("no quorum of replicas has answered in time: see that a majority of the masters runs")]
    TimedOut,
    /// The caller has given up.
    #[error("it was given up")]
    Resigned,
    /// It is being tried already, or has succeeded.
    #[error("this coordinator is elected or about to be: ask again after it was demoted")]
    Busy,
}

/// Why a write was not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Not the writer.
    #[error("this coordinator is not elected: write through the leading master")]
    NotElected,
    /// Too many writes are under way.
    #[error("{IN_FLIGHT} writes are under way: wait for one of them")]
    Busy,
    /// The truncation reaches beyond what is written.
    #[error("cannot truncate to {to}: the log is written up to {written}")]
    BeyondEnd {
        /// Asked for.
        to: Position,
        /// Last position that is acknowledged.
        written: Position,
    },
}

/// A round: values for one position after another, at least one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Write {
    /// Of the values, in order.
    tokens: Vec<u64>,
    ask: u64,
    value: Value,
    more: Vec<Value>,
    round: Round<()>,
    accepted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum State {
    Initial,
    Looking { ask: u64 },
    Promising { ask: u64, round: Round<Position> },
    CatchingUp { ending: Position, catch_up: CatchUp },
    Elected(Leadership),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Leadership {
    /// First position of this leadership.
    first: Position,
    /// The next to write.
    next: Position,
    /// Not yet acknowledged, by their first positions: all from the first of them to `next`.
    writes: BTreeMap<Position, Write>,
    /// What the next round takes, in order, with the callers' tokens.
    waiting: VecDeque<(u64, Value)>,
    /// How far the other replicas have been told what is chosen.
    told: Position,
    resend: Option<Timer>,
    flush: Option<Timer>,
}

/// The writer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Coordinator {
    me: Member,
    quorum: Quorum,
    asks: Asks,
    /// The last proposal used, or heard to stand against it.
    proposal: Proposal,
    state: State,
}

impl Coordinator {
    /// A coordinator beside the replica of `me`. `asks` should begin with a random number.
    pub fn new(me: Member, quorum: Quorum, asks: Asks) -> Self {
        Self {
            me,
            quorum,
            asks,
            proposal: Proposal(0),
            state: State::Initial,
        }
    }

    /// Whether it may write.
    pub fn is_elected(&self) -> bool {
        matches!(self.state, State::Elected(_))
    }

    /// The epoch of its leadership, while it leads.
    pub fn epoch(&self) -> Option<Proposal> {
        self.is_elected().then_some(self.proposal)
    }

    /// What it knows to be chosen, for others to pass on.
    pub fn chosen(&self) -> Option<Chosen> {
        match &self.state {
            State::Elected(leadership) => leadership.chosen(self.proposal),
            State::Initial
            | State::Looking { .. }
            | State::Promising { .. }
            | State::CatchingUp { .. } => None,
        }
    }

    /// Whether an answer with this number is still waited for.
    pub fn awaits(&self, ask: u64) -> bool {
        match &self.state {
            State::Initial => false,
            State::Looking { ask: open } | State::Promising { ask: open, .. } => ask == *open,
            State::CatchingUp { catch_up, .. } => catch_up.awaits(ask),
            State::Elected(leadership) => leadership.writes.values().any(|write| write.ask == ask),
        }
    }

    /// Applies one input.
    pub fn step(&mut self, input: Input, random: &mut impl Rng) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Elect => self.elect(&mut effects),
            Input::Append { token, bytes } => {
                self.begin(token, Value::Append { bytes }, &mut effects);
            }
            Input::Truncate { token, to } => self.truncate(token, to, &mut effects),
            Input::Resign => self.resign(&mut effects),
            Input::Answer(from, response) => self.answered(&from, response, random, &mut effects),
            Input::Due(timer) => self.due(timer, &mut effects),
        }
        effects
    }

    fn elect(&mut self, effects: &mut Vec<Effect>) {
        if self.state != State::Initial {
            effects.push(Effect::NotElected(NotElected::Busy));
            return;
        }
        let ask = self.asks.draw();
        let request = StatusRequest { ask, span: None };
        effects.push(Effect::Send(self.me.clone(), request.into()));
        effects.push(Effect::Arm(Timer(ask), ELECTION_PATIENCE));
        self.state = State::Looking { ask };
    }

    fn answered(
        &mut self,
        from: &Member,
        response: Response,
        random: &mut impl Rng,
        effects: &mut Vec<Effect>,
    ) {
        match (&mut self.state, response) {
            (State::Looking { ask }, Response::Status(status)) if status.ask == *ask => {
                self.proposal = self.proposal.max(status.promised).next();
                self.propose(effects);
            }
            (State::Promising { ask, .. }, Response::Promise(answer)) if answer.ask == *ask => {
                self.promised(from, answer, effects);
            }
            (State::CatchingUp { catch_up, .. }, response) => {
                let sends = catch_up.answered(from, response, &mut self.asks, random);
                effects.extend(sends.into_iter().map(Effect::from));
                self.caught_up(effects);
            }
            (State::Elected(_), Response::Write(answer)) => self.written(from, answer, effects),
            (
                State::Initial
                | State::Looking { .. }
                | State::Promising { .. }
                | State::Elected(_),
                _,
            ) => {}
        }
    }

    fn propose(&mut self, effects: &mut Vec<Effect>) {
        let ask = self.asks.draw();
        let request = PromiseRequest {
            ask,
            proposal: self.proposal,
            position: None,
        };
        for member in &self.quorum.members {
            effects.push(Effect::Send(member.clone(), request.clone().into()));
        }
        effects.push(Effect::Arm(Timer(ask), ELECTION_PATIENCE));
        self.state = State::Promising {
            ask,
            round: Round::default(),
        };
    }

    fn promised(&mut self, from: &Member, answer: PromiseResponse, effects: &mut Vec<Effect>) {
        let State::Promising { ask, round } = &mut self.state else {
            return;
        };
        let end = answer.position.unwrap_or_default();
        let again = round.count(
            &self.quorum,
            from,
            &answer.voter,
            answer.verdict,
            answer.proposal,
            end,
        );
        for member in again {
            let request = PromiseRequest {
                ask: *ask,
                proposal: self.proposal,
                position: None,
            };
            effects.push(Effect::Send(member, request.into()));
        }
        match round.outcome(&self.quorum) {
            None => {}
            Some(Outcome::Accepted(ends)) => {
                let ending = ends.into_iter().max().unwrap_or_default();
                let sources: Vec<Member> = round.heard().cloned().collect();
                self.catch_up(ending, &sources, effects);
            }
            Some(Outcome::Rejected(by)) => {
                self.proposal = self.proposal.max(by);
                self.state = State::Initial;
                effects.push(Effect::NotElected(NotElected::Rejected { by }));
            }
            Some(Outcome::Ignored) => {
                self.state = State::Initial;
                effects.push(Effect::NotElected(NotElected::Ignored));
            }
        }
    }

    fn catch_up(&mut self, ending: Position, sources: &[Member], effects: &mut Vec<Effect>) {
        let from = if mistake("coordinator fills above the end only") {
            ending.next()
        } else {
            Position(0)
        };
        let span = Span { from, to: ending };
        let (me, quorum) = (self.me.clone(), self.quorum.clone());
        let (catch_up, sends) =
            CatchUp::begin(me, quorum, sources, span, self.proposal, &mut self.asks);
        effects.extend(sends.into_iter().map(Effect::from));
        self.state = State::CatchingUp { ending, catch_up };
    }

    fn caught_up(&mut self, effects: &mut Vec<Effect>) {
        let State::CatchingUp { ending, catch_up } = &self.state else {
            return;
        };
        if !catch_up.is_done() {
            return;
        }
        let ending = *ending;
        self.state = State::Elected(Leadership {
            first: ending.next(),
            next: ending.next(),
            writes: BTreeMap::new(),
            waiting: VecDeque::new(),
            told: ending,
            resend: None,
            flush: None,
        });
        effects.push(Effect::Elected {
            epoch: self.proposal,
            ending,
        });
    }

    fn truncate(&mut self, token: u64, to: Position, effects: &mut Vec<Effect>) {
        if let State::Elected(leadership) = &self.state {
            let written = leadership.acknowledged();
            if to > written.next() {
                let reason = Refusal::BeyondEnd { to, written };
                effects.push(Effect::Refused { token, reason });
                return;
            }
        }
        self.begin(token, Value::Truncate { to }, effects);
    }

    fn begin(&mut self, token: u64, value: Value, effects: &mut Vec<Effect>) {
        let State::Elected(leadership) = &mut self.state else {
            let reason = Refusal::NotElected;
            effects.push(Effect::Refused { token, reason });
            return;
        };
        if leadership.open() >= IN_FLIGHT {
            let reason = Refusal::Busy;
            effects.push(Effect::Refused { token, reason });
            return;
        }
        leadership.waiting.push_back((token, value));
        self.begin_rounds(effects);
    }

    /// Begins as many rounds as may be under way; true when there was one to begin.
    fn begin_rounds(&mut self, effects: &mut Vec<Effect>) -> bool {
        let State::Elected(leadership) = &mut self.state else {
            return false;
        };
        let mut begun = false;
        while leadership.writes.len() < ROUNDS
            && let Some(write) = leadership.gather(&mut self.asks)
        {
            begun = true;
            let position = leadership.next;
            // Before the positions are counted as begun: they are not chosen yet.
            let chosen = leadership.chosen(self.proposal);
            leadership.told = leadership.acknowledged();
            leadership.next = write.end(position).next();
            let request = write.request(self.proposal, position, chosen);
            for member in &self.quorum.members {
                effects.push(Effect::Send(member.clone(), request.clone().into()));
            }
            leadership.writes.insert(position, write);
        }
        if begun && leadership.resend.is_none() {
            let timer = Timer(self.asks.draw());
            leadership.resend = Some(timer);
            effects.push(Effect::Arm(timer, RESEND));
        }
        begun
    }

    fn written(&mut self, from: &Member, answer: WriteResponse, effects: &mut Vec<Effect>) {
        let State::Elected(leadership) = &mut self.state else {
            return;
        };
        let chosen = leadership.chosen(self.proposal);
        let Some(write) = leadership
            .writes
            .get_mut(&answer.position)
            .filter(|write| write.ask == answer.ask)
            // Who has not understood that these are several has not accepted them.
            .filter(|write| {
                answer.verdict != Verdict::Accept || answer.last() == write.end(answer.position)
            })
        else {
            return;
        };
        let again = write.round.count(
            &self.quorum,
            from,
            &answer.voter,
            answer.verdict,
            answer.proposal,
            (),
        );
        for member in again {
            let request = write.request(self.proposal, answer.position, chosen);
            effects.push(Effect::Send(member, request.into()));
        }
        match write.round.outcome(&self.quorum) {
            None => {}
            Some(Outcome::Accepted(_)) => {
                write.accepted = true;
                self.acknowledge(effects);
            }
            Some(Outcome::Rejected(by)) => {
                self.proposal = self.proposal.max(by);
                self.resign(effects);
            }
            Some(Outcome::Ignored) => self.resign(effects),
        }
    }

    /// Acknowledges what has been accepted, in order, and says that it is chosen.
    fn acknowledge(&mut self, effects: &mut Vec<Effect>) {
        let State::Elected(leadership) = &mut self.state else {
            return;
        };
        let before = leadership.acknowledged();
        if mistake("coordinator acknowledges out of order") {
            leadership.writes.retain(|position, write| {
                if write.accepted {
                    write.acknowledge(*position, effects);
                }
                !write.accepted
            });
        }
        while let Some(first) = leadership.writes.first_entry() {
            if !first.get().accepted {
                break;
            }
            let (position, write) = first.remove_entry();
            write.acknowledge(position, effects);
        }
        if leadership.acknowledged() == before {
            return;
        }
        let chosen = leadership.chosen(self.proposal);
        // A round that begins now tells everybody.
        if self.begin_rounds(effects) {
            return;
        }
        let State::Elected(leadership) = &mut self.state else {
            return;
        };
        // The local replica hears at once, so that whoever reads here reads what it was told.
        if let Some(chosen) = chosen {
            let message = ChosenMessage { chosen };
            effects.push(Effect::Send(self.me.clone(), message.into()));
        }
        if leadership.flush.is_none() {
            let timer = Timer(self.asks.draw());
            leadership.flush = Some(timer);
            effects.push(Effect::Arm(timer, FLUSH));
        }
    }

    fn resign(&mut self, effects: &mut Vec<Effect>) {
        match std::mem::replace(&mut self.state, State::Initial) {
            State::Initial => {}
            State::Looking { .. } | State::Promising { .. } | State::CatchingUp { .. } => {
                effects.push(Effect::NotElected(NotElected::Resigned));
            }
            State::Elected(leadership) => {
                let begun = leadership.writes.values().flat_map(|write| &write.tokens);
                let waiting = leadership.waiting.iter().map(|(token, _)| token);
                for token in begun.chain(waiting) {
                    effects.push(Effect::Lost { token: *token });
                }
                effects.push(Effect::Demoted);
            }
        }
    }

    fn due(&mut self, timer: Timer, effects: &mut Vec<Effect>) {
        match &mut self.state {
            State::Initial => {}
            State::Looking { ask } | State::Promising { ask, .. } => {
                if timer.0 == *ask {
                    self.state = State::Initial;
                    effects.push(Effect::NotElected(NotElected::TimedOut));
                }
            }
            State::CatchingUp { catch_up, .. } => {
                let sends = catch_up.due(timer, &mut self.asks);
                effects.extend(sends.into_iter().map(Effect::from));
            }
            State::Elected(leadership) => {
                if leadership.resend == Some(timer) {
                    leadership.resend = None;
                    self.resend(effects);
                } else if leadership.flush == Some(timer) {
                    leadership.flush = None;
                    self.flush(effects);
                }
            }
        }
    }

    fn resend(&mut self, effects: &mut Vec<Effect>) {
        let State::Elected(leadership) = &mut self.state else {
            return;
        };
        let chosen = leadership.chosen(self.proposal);
        for (position, write) in &leadership.writes {
            let request = write.request(self.proposal, *position, chosen);
            for member in write.round.awaited(&self.quorum) {
                effects.push(Effect::Send(member.clone(), request.clone().into()));
            }
        }
        if !leadership.writes.is_empty() {
            let timer = Timer(self.asks.draw());
            leadership.resend = Some(timer);
            effects.push(Effect::Arm(timer, RESEND));
        }
    }

    fn flush(&mut self, effects: &mut Vec<Effect>) {
        let State::Elected(leadership) = &mut self.state else {
            return;
        };
        let written = leadership.acknowledged();
        if leadership.told >= written {
            return;
        }
        leadership.told = written;
        if let Some(chosen) = leadership.chosen(self.proposal) {
            for member in self
                .quorum
                .members
                .iter()
                .filter(|member| **member != self.me)
            {
                let message = ChosenMessage { chosen };
                effects.push(Effect::Send(member.clone(), message.into()));
            }
        }
    }

    /// Recounts the invariants.
    ///
    /// # Errors
    /// What is broken, in words.
    pub fn check(&self) -> Result<(), String> {
        let State::Elected(leadership) = &self.state else {
            return Ok(());
        };
        let mut expected = leadership.acknowledged().next();
        for (position, write) in &leadership.writes {
            if *position != expected {
                return Err(format!(
                    "position {expected} is neither written nor under way"
                ));
            }
            if write.tokens.len() != write.more.len() + 1 {
                return Err(format!(
                    "the round at {position} has not a token for each value"
                ));
            }
            expected = write.end(*position).next();
        }
        let rounds = leadership.writes.len();
        if rounds > ROUNDS || leadership.open() > IN_FLIGHT {
            let open = leadership.open();
            return Err(format!("{rounds} rounds and {open} values under way"));
        }
        if rounds < ROUNDS && !leadership.waiting.is_empty() {
            return Err("a value waits for a round that could begin".to_owned());
        }
        if expected != leadership.next || leadership.next < leadership.first {
            return Err(format!("next is {} after {expected}", leadership.next));
        }
        Ok(())
    }
}

impl Leadership {
    /// Values that are not acknowledged.
    fn open(&self) -> usize {
        let begun = self.writes.values().map(|write| write.tokens.len());
        begun.sum::<usize>() + self.waiting.len()
    }

    /// A round of what waits.
    fn gather(&mut self, asks: &mut Asks) -> Option<Write> {
        let (token, value) = self.waiting.pop_front()?;
        let (mut tokens, mut more, mut size) = (vec![token], Vec::new(), value.size());
        while let Some((token, next)) = self.waiting.pop_front_if(|(_, next)| {
            size += next.size();
            size <= ROUND_BYTES
        }) {
            tokens.push(token);
            more.push(next);
        }
        Some(Write {
            tokens,
            ask: asks.draw(),
            value,
            more,
            round: Round::default(),
            accepted: false,
        })
    }

    /// The last position up to which everything is acknowledged.
    fn acknowledged(&self) -> Position {
        self.writes.keys().next().unwrap_or(&self.next).previous()
    }

    fn chosen(&self, proposal: Proposal) -> Option<Chosen> {
        let through = self.acknowledged();
        let from = self.first;
        (through >= from).then_some(Chosen {
            proposal,
            from,
            through,
        })
    }
}

impl Write {
    /// Its last position when this is its first.
    fn end(&self, position: Position) -> Position {
        position.plus(self.more.len())
    }

    fn acknowledge(&self, position: Position, effects: &mut Vec<Effect>) {
        for (place, token) in self.tokens.iter().enumerate() {
            let (token, position) = (*token, position.plus(place));
            effects.push(Effect::Written { token, position });
        }
    }

    fn request(
        &self,
        proposal: Proposal,
        position: Position,
        chosen: Option<Chosen>,
    ) -> WriteRequest {
        WriteRequest {
            ask: self.ask,
            proposal,
            position,
            value: self.value.clone(),
            more: self.more.clone(),
            chosen,
        }
    }
}

impl From<catchup::Effect> for Effect {
    fn from(effect: catchup::Effect) -> Self {
        match effect {
            catchup::Effect::Send(member, request) => Self::Send(member, request),
            catchup::Effect::Arm(timer, after) => Self::Arm(timer, after),
        }
    }
}
