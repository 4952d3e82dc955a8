//! Learning what this member has missed: first from those who have learned it, then by agreeing on the rest.
//!
//! Pure. Learned values are final, so one replica's word is enough for them, and they come in bulk. What nobody has
//! learned is *filled*: Paxos runs for that position and ends with the value that may have been chosen, or with a NOP
//! where nothing can have been.
//!
//! ```text
//!   look (what do we miss?) ──nothing──▶ done
//!     │ ▲
//!     ▼ └─────────────── all filled ────────────────┐
//!   fetch from each source in turn       ──▶ fill, several positions at once:
//!                                             promise ─▶ write ─▶ announce
//!                                              ▲  rejected: wait, take a higher proposal
//!                                              └────┘
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use meseta_runtime::planted::mistake;
use rand::{Rng, RngExt};

use super::action::{Action, Position, Proposal, Value};
use super::members::Member;
use super::messages::{
    FetchRequest, FetchResponse, LearnedMessage, PromiseRequest, PromiseResponse, Request,
    Response, Span, StatusRequest, WriteRequest, WriteResponse,
};
use super::rounds::{Outcome, Quorum, Round};

/// How long a member may take to answer before it is passed over or asked anew.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// Shortest wait after a rejected fill; the longest is twice that.
pub const RETRY: Duration = Duration::from_millis(100);
/// How many positions are filled at once.
pub const FILLS_AT_ONCE: usize = 32;

/// What a proposer wants done, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Effect {
    /// To the replica of this member, which may be the local one.
    Send(Member, Request),
    /// Hand [`Timer`] back after this time. Timers are never taken back: old ones are known by their number.
    Arm(Timer, Duration),
}

/// A timer of a proposer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timer(pub u64);

/// Numbers for questions and timers of one proposer. They only grow, and two lives of a process should not begin at
/// the same: begin with a random number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Asks(pub u64);

impl Asks {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        self.0
    }
}

/// One position on its way to a chosen value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Fill {
    Promising(Round<Option<Action>>),
    Writing(Value, Round<()>),
    Waiting,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    Looking,
    Fetching(Member),
    Filling,
    Done,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Filling {
    /// The open question or the timer to wait for.
    ask: u64,
    proposal: Proposal,
    fill: Fill,
}

/// Catching up on one range.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CatchUp {
    me: Member,
    quorum: Quorum,
    span: Span,
    /// Highest proposal used or heard of; it only grows.
    proposal: Proposal,
    phase: Phase,
    /// The open question of looking and fetching.
    ask: u64,
    /// Members not yet asked for what they have learned.
    sources: VecDeque<Member>,
    /// Where the local replica still has gaps, as it last said.
    gaps: Vec<Span>,
    fills: BTreeMap<Position, Filling>,
}

impl CatchUp {
    /// Begins to learn all of `span` on the local replica. `sources` are asked for what they have learned: members that
    /// have answered just now, since one that does not answer holds all up for [`PATIENCE`]. Fills begin with the
    /// proposal above `proposal`.
    pub fn begin<'a>(
        me: Member,
        quorum: Quorum,
        sources: impl IntoIterator<Item = &'a Member>,
        span: Span,
        proposal: Proposal,
        asks: &mut Asks,
    ) -> (Self, Vec<Effect>) {
        let sources = sources.into_iter().filter(|member| **member != me);
        let sources = sources.cloned().collect();
        let mut this = Self {
            me,
            quorum,
            span,
            proposal,
            phase: Phase::Looking,
            ask: 0,
            sources,
            gaps: Vec::new(),
            fills: BTreeMap::new(),
        };
        let mut effects = Vec::new();
        this.look(asks, &mut effects);
        (this, effects)
    }

    /// Whether the local replica has learned everything asked for.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// The highest proposal used or heard of on the way.
    pub fn proposal(&self) -> Proposal {
        self.proposal
    }

    /// Whether an answer with this number is still waited for.
    pub fn awaits(&self, ask: u64) -> bool {
        self.ask == ask || self.fills.values().any(|filling| filling.ask == ask)
    }

    /// An answer of a replica.
    pub fn answered(
        &mut self,
        from: &Member,
        response: Response,
        asks: &mut Asks,
        random: &mut impl Rng,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        match response {
            Response::Status(status)
                if self.phase == Phase::Looking && status.ask == self.ask && *from == self.me =>
            {
                self.gaps = status.missing;
                self.go_on(asks, &mut effects);
            }
            Response::Fetch(fetched) if fetched.ask == self.ask => {
                self.fetched(from, fetched, asks, &mut effects);
            }
            Response::Promise(promise) => {
                self.promised(from, promise, asks, random, &mut effects);
            }
            Response::Write(write) => self.written(from, write, asks, random, &mut effects),
            Response::Status(_) | Response::Fetch(_) | Response::Recover(_) => {}
        }
        effects
    }

    /// A timer has run out.
    pub fn due(&mut self, timer: Timer, asks: &mut Asks) -> Vec<Effect> {
        let mut effects = Vec::new();
        if timer.0 == self.ask {
            match &self.phase {
                Phase::Looking | Phase::Fetching(_) => self.look(asks, &mut effects),
                Phase::Filling | Phase::Done => {}
            }
        }
        let due = self
            .fills
            .iter()
            .find(|(_, filling)| filling.ask == timer.0)
            .map(|(position, _)| *position);
        if let Some(position) = due {
            self.promise(position, asks, &mut effects);
        }
        effects
    }

    fn look(&mut self, asks: &mut Asks, effects: &mut Vec<Effect>) {
        self.phase = Phase::Looking;
        self.ask = asks.draw();
        let request = StatusRequest {
            ask: self.ask,
            span: Some(self.span),
        };
        effects.push(Effect::Send(self.me.clone(), request.into()));
        effects.push(Effect::Arm(Timer(self.ask), PATIENCE));
    }

    /// The local replica has said what it misses.
    fn go_on(&mut self, asks: &mut Asks, effects: &mut Vec<Effect>) {
        let (Some(first), Some(last)) = (self.gaps.first(), self.gaps.last()) else {
            self.phase = Phase::Done;
            return;
        };
        let span = Span {
            from: first.from,
            to: last.to,
        };
        if let Some(source) = self.sources.pop_front() {
            self.fetch(source, span, asks, effects);
            return;
        }
        self.phase = Phase::Filling;
        self.gaps.reverse();
        self.fill_more(asks, effects);
    }

    fn fetch(&mut self, source: Member, span: Span, asks: &mut Asks, effects: &mut Vec<Effect>) {
        self.ask = asks.draw();
        let request = FetchRequest {
            ask: self.ask,
            span,
        };
        effects.push(Effect::Send(source.clone(), request.into()));
        effects.push(Effect::Arm(Timer(self.ask), PATIENCE));
        self.phase = Phase::Fetching(source);
    }

    fn fetched(
        &mut self,
        from: &Member,
        fetched: FetchResponse,
        asks: &mut Asks,
        effects: &mut Vec<Effect>,
    ) {
        let Phase::Fetching(source) = &self.phase else {
            return;
        };
        if from != source {
            return;
        }
        let mut actions = fetched.actions;
        if fetched.begin > self.span.from {
            actions.insert(0, Action::tombstone(fetched.begin.previous()));
        }
        if !actions.is_empty() {
            effects.push(Effect::Send(
                self.me.clone(),
                LearnedMessage { actions }.into(),
            ));
        }
        match (fetched.next, self.gaps.last()) {
            (Some(next), Some(last)) if next <= last.to => {
                let (source, to) = (source.clone(), last.to);
                self.fetch(source, Span { from: next, to }, asks, effects);
            }
            _ => self.look(asks, effects),
        }
    }

    /// Begins as many fills as may run at once; looks again when there is nothing left to begin or await.
    fn fill_more(&mut self, asks: &mut Asks, effects: &mut Vec<Effect>) {
        while self.fills.len() < FILLS_AT_ONCE {
            // Gaps are reversed: the lowest stands last.
            let Some(gap) = self.gaps.last_mut() else {
                break;
            };
            let position = gap.from;
            if gap.from == gap.to {
                self.gaps.pop();
            } else {
                gap.from = position.next();
            }
            let filling = Filling {
                ask: 0,
                proposal: self.proposal.next(),
                fill: Fill::Waiting,
            };
            self.fills.insert(position, filling);
            self.promise(position, asks, effects);
        }
        if self.fills.is_empty() {
            self.look(asks, effects);
        }
    }

    /// Begins a fill, or begins it anew with a higher proposal.
    fn promise(&mut self, position: Position, asks: &mut Asks, effects: &mut Vec<Effect>) {
        let Some(filling) = self.fills.get_mut(&position) else {
            return;
        };
        filling.ask = asks.draw();
        if filling.fill != Fill::Waiting {
            // The question may have been heard, and its number is used up then.
            filling.proposal = filling.proposal.next();
        }
        self.proposal = self.proposal.max(filling.proposal);
        filling.fill = Fill::Promising(Round::default());
        let request = PromiseRequest {
            ask: filling.ask,
            proposal: filling.proposal,
            position: Some(position),
        };
        for member in &self.quorum.members {
            effects.push(Effect::Send(member.clone(), request.clone().into()));
        }
        effects.push(Effect::Arm(Timer(filling.ask), PATIENCE));
    }

    fn promised(
        &mut self,
        from: &Member,
        answer: PromiseResponse,
        asks: &mut Asks,
        random: &mut impl Rng,
        effects: &mut Vec<Effect>,
    ) {
        let Some((position, filling)) = by_ask(&mut self.fills, answer.ask) else {
            return;
        };
        let Fill::Promising(round) = &mut filling.fill else {
            return;
        };
        let PromiseResponse {
            verdict,
            proposal,
            action,
            voter,
            ..
        } = answer;
        for member in round.count(&self.quorum, from, &voter, verdict, proposal, action) {
            let request = PromiseRequest {
                ask: filling.ask,
                proposal: filling.proposal,
                position: Some(position),
            };
            effects.push(Effect::Send(member, request.into()));
        }
        match round.outcome(&self.quorum) {
            None => {}
            Some(Outcome::Accepted(actions)) => match to_write(actions) {
                Settled::Learned(action) => self.announce(position, action, asks, effects),
                Settled::Open(value) => self.write(position, value, asks, effects),
            },
            Some(Outcome::Rejected(highest)) => {
                filling.wait(highest, asks, random, effects);
            }
            Some(Outcome::Ignored) => {
                let proposal = filling.proposal;
                filling.wait(proposal, asks, random, effects);
            }
        }
    }

    fn write(
        &mut self,
        position: Position,
        value: Value,
        asks: &mut Asks,
        effects: &mut Vec<Effect>,
    ) {
        let Some(filling) = self.fills.get_mut(&position) else {
            return;
        };
        filling.ask = asks.draw();
        let request = filling.write_request(position, &value);
        for member in &self.quorum.members {
            effects.push(Effect::Send(member.clone(), request.clone().into()));
        }
        effects.push(Effect::Arm(Timer(filling.ask), PATIENCE));
        filling.fill = Fill::Writing(value, Round::default());
    }

    fn written(
        &mut self,
        from: &Member,
        answer: WriteResponse,
        asks: &mut Asks,
        random: &mut impl Rng,
        effects: &mut Vec<Effect>,
    ) {
        let Some((position, filling)) = by_ask(&mut self.fills, answer.ask) else {
            return;
        };
        let Fill::Writing(value, round) = &mut filling.fill else {
            return;
        };
        let value = value.clone();
        let again = round.count(
            &self.quorum,
            from,
            &answer.voter,
            answer.verdict,
            answer.proposal,
            (),
        );
        let outcome = round.outcome(&self.quorum);
        for member in again {
            let request = filling.write_request(position, &value);
            effects.push(Effect::Send(member, request.into()));
        }
        match outcome {
            None => {}
            Some(Outcome::Accepted(_)) => {
                let action = Action::learned(position, filling.proposal, value);
                self.announce(position, action, asks, effects);
            }
            Some(Outcome::Rejected(highest)) => {
                filling.wait(highest, asks, random, effects);
            }
            Some(Outcome::Ignored) => {
                let proposal = filling.proposal;
                filling.wait(proposal, asks, random, effects);
            }
        }
    }

    /// A position is settled: everybody may know.
    fn announce(
        &mut self,
        position: Position,
        action: Action,
        asks: &mut Asks,
        effects: &mut Vec<Effect>,
    ) {
        self.fills.remove(&position);
        for member in &self.quorum.members {
            let message = LearnedMessage {
                actions: vec![action.clone()],
            };
            effects.push(Effect::Send(member.clone(), message.into()));
        }
        self.fill_more(asks, effects);
    }
}

impl Filling {
    fn write_request(&self, position: Position, value: &Value) -> WriteRequest {
        WriteRequest {
            ask: self.ask,
            proposal: self.proposal,
            position,
            value: value.clone(),
            more: Vec::new(),
            chosen: None,
        }
    }

    /// Gives way for a moment, then tries with a proposal above the one that stood against it.
    fn wait(
        &mut self,
        highest: Proposal,
        asks: &mut Asks,
        random: &mut impl Rng,
        effects: &mut Vec<Effect>,
    ) {
        self.ask = asks.draw();
        self.proposal = self.proposal.max(highest).next();
        self.fill = Fill::Waiting;
        let pause = RETRY.mul_f64(1.0 + random.random::<f64>());
        effects.push(Effect::Arm(Timer(self.ask), pause));
    }
}

/// What a quorum of promises says about a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It is chosen and known to be.
    Learned(Action),
    /// It is not known to be: this value must be written, since it may be chosen, or since nothing can be.
    Open(Value),
}

/// Which value a proposer has to write after a quorum has promised: the learned one, else the accepted one of the
/// highest proposal, else none.
pub fn to_write(actions: Vec<Option<Action>>) -> Settled {
    let actions = || actions.iter().flatten();
    if let Some(learned) = actions().find(|action| action.learned) {
        return Settled::Learned(learned.clone());
    }
    let performed = actions().filter_map(|action| action.performed.as_ref());
    let highest = if mistake("fill takes the lowest accepted value") {
        performed.min_by_key(|performed| performed.by)
    } else {
        performed.max_by_key(|performed| performed.by)
    };
    match highest {
        Some(highest) if !mistake("fill skips the accepted value") => {
            Settled::Open(highest.value.clone())
        }
        _ => Settled::Open(Value::Nop { tombstone: false }),
    }
}

fn by_ask(fills: &mut BTreeMap<Position, Filling>, ask: u64) -> Option<(Position, &mut Filling)> {
    fills
        .iter_mut()
        .find(|(_, filling)| filling.ask == ask)
        .map(|(position, filling)| (*position, filling))
}
