//! The rules by which a replica promises, accepts and learns.
//!
//! Pure: [`Replica::step`] takes a request and returns what to store and what to answer. The state in memory is the
//! state as stored or being stored: the shell stores what a step says, in order, and sends the step's answer only
//! after the commit that holds all its [`Effect::Store`]s. If that commit fails, no answer leaves and the replica
//! stops.
//!
//! Invariants: promises never fall; only a voting replica votes; a learned value never changes; what is not truncated
//! is never forgotten. [`Replica::check`] recounts them.

use std::collections::BTreeMap;

use bytes::Bytes;
use meseta_runtime::planted::mistake;
use serde::{Deserialize, Serialize};

use crate::log::action::{Action, Performed, Position, Proposal, Value};
use crate::log::members::{Life, Lives, Member};
use crate::log::messages::{
    Chosen, FETCH_BYTES, FetchRequest, FetchResponse, LearnedMessage, PromiseRequest,
    PromiseResponse, RecoverRequest, RecoverResponse, Request, Response, STATUS_SPANS, Span,
    Status, StatusRequest, StatusResponse, Verdict, Voter, WriteRequest, WriteResponse,
};

/// What a replica keeps beside its actions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Metadata {
    /// How far it has come.
    pub status: Status,
    /// Highest implicit promise: nothing lower is promised or accepted where there is no record.
    pub promised: Proposal,
    /// Its own life. A nonce of 0 says that recovery has to begin one.
    pub life: Life,
    /// The latest lives it knows of the others.
    #[serde(default)]
    pub lives: Lives,
    /// First position that is not truncated.
    #[serde(default)]
    pub begin: Position,
    /// What coordinators have said to be chosen, from `begin` on, one entry for each.
    #[serde(default)]
    pub chosen: Vec<Chosen>,
}

/// One change of what is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Change {
    /// The metadata is this now.
    Metadata(Metadata),
    /// The record of its position is this now.
    Action(Action),
    /// Records below this position may be deleted, now or later.
    Forget {
        /// First that stays.
        below: Position,
    },
}

/// What to do after a step, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Effect {
    /// To be on disk before the answer of this step leaves.
    Store(Change),
    /// To be stored with the next commit, whenever that is. It may be lost: it is learned again then.
    StoreLater(Change),
    /// The answer to whoever asked. At most one, the last effect.
    Reply(Response),
}

/// What was read from disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Stored {
    /// The metadata; the default for a new store.
    pub metadata: Metadata,
    /// All readable records, in any order, truncated ones too.
    pub actions: Vec<Action>,
    /// Whether some record, or the metadata, was there but not readable. The replica then begins a new life and does
    /// not vote until it has caught up.
    pub damaged: bool,
}

/// Why a range cannot be read here and now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It begins before what is kept.
    #[error("positions before {begin} are truncated: read from {begin}")]
    Truncated {
        /// First position that is kept.
        begin: Position,
    },
    /// It goes beyond what this replica has seen.
    #[error("this replica ends at {end}: read up to there, or catch up first")]
    BeyondEnd {
        /// Highest position seen.
        end: Position,
    },
    /// There is no learned value at a position.
    #[error("position {position} is not learned yet: catch up first")]
    Pending {
        /// The first such.
        position: Position,
    },
    /// A value of a kind that this version does not know.
    #[error(
        "position {position} holds a value of kind {kind}, made by a later version: upgrade this master"
    )]
    Unknown {
        /// Where.
        position: Position,
        /// Its number.
        kind: u8,
    },
}

/// One member's part of the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Replica {
    me: Member,
    metadata: Metadata,
    /// Records from `begin` on.
    actions: BTreeMap<Position, Action>,
    /// Highest position ever seen.
    end: Position,
}

impl Replica {
    /// The replica of `me`, from what its disk holds.
    pub fn restore(me: Member, stored: Stored) -> Self {
        let mut metadata = stored.metadata;
        if stored.damaged {
            metadata.status = Status::Recovering;
            metadata.life.nonce = 0;
        }
        let mut replica = Self {
            me,
            end: metadata.begin.previous(),
            metadata,
            actions: BTreeMap::new(),
        };
        // Later knowledge may stand in records only: a truncation that was learned, a watermark that covers them.
        for mut action in stored.actions {
            replica.end = replica.end.max(action.position);
            action.learned |= replica.is_covered(&action);
            if let Some(begin) = begin_of(&action) {
                replica.metadata.begin = replica.metadata.begin.max(begin);
            }
            replica.actions.insert(action.position, action);
        }
        replica.drop_truncated();
        replica
    }

    /// Whose it is.
    pub fn me(&self) -> &Member {
        &self.me
    }

    /// All that is stored beside actions.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Whether it votes, and why not.
    pub fn status(&self) -> Status {
        self.metadata.status
    }

    /// First position that is not truncated.
    pub fn begin(&self) -> Position {
        self.metadata.begin
    }

    /// Highest position it has seen; 0 for an empty log.
    pub fn end(&self) -> Position {
        self.end
    }

    /// The record of a position.
    pub fn action(&self, position: Position) -> Option<&Action> {
        self.actions.get(&position)
    }

    /// All records from `begin` on.
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        self.actions.values()
    }

    /// Applies one request.
    pub fn step(&mut self, request: Request) -> Vec<Effect> {
        let mut effects = match request {
            Request::Promise(request) => self.promise(request),
            Request::Write(request) => self.write(request),
            Request::Learned(message) => self.learn(message),
            Request::Chosen(message) => self.note_chosen(message.chosen),
            Request::Recover(request) => self.recover(request),
            Request::Fetch(request) => vec![Effect::Reply(self.fetch(request).into())],
            Request::Status(request) => vec![Effect::Reply(self.tell(request).into())],
        };
        if mistake("replica answers before it stores") {
            effects.sort_by_key(|effect| !matches!(effect, Effect::Reply(_)));
        }
        effects
    }

    /// Changes the metadata other than by a request: recovery begins a life, or becomes what it has found to be.
    pub fn change(&mut self, change: impl FnOnce(&mut Metadata)) -> Effect {
        change(&mut self.metadata);
        self.drop_truncated();
        self.store_metadata()
    }

    /// The first learned entries of a range as a reader sees them: user's entries with their positions. Positions
    /// that hold no entry are passed over, position 0 too.
    ///
    /// # Errors
    /// [`ReadError`] when not all of the range is kept and learned here.
    pub fn read(&self, span: Span) -> Result<Vec<(Position, Bytes)>, ReadError> {
        if span.from < self.begin() {
            let begin = self.begin();
            return Err(ReadError::Truncated { begin });
        }
        if span.to > self.end {
            return Err(ReadError::BeyondEnd { end: self.end });
        }
        if let Some(gap) = self.missing(span, 1).first()
            && !mistake("replica reads over gaps")
        {
            let position = gap.from;
            return Err(ReadError::Pending { position });
        }
        let mut entries = Vec::new();
        for (position, action) in self.actions.range(span.from..=span.to) {
            match action.value() {
                Some(Value::Append { bytes }) => entries.push((*position, bytes.clone())),
                Some(Value::Unknown { kind, .. }) => {
                    return Err(ReadError::Unknown {
                        position: *position,
                        kind: *kind,
                    });
                }
                Some(Value::Nop { .. } | Value::Truncate { .. }) | None => {}
            }
        }
        Ok(entries)
    }

    /// The first `limit` ranges within `span` whose values are not learned here. What is truncated is not missing,
    /// and neither is position 0; what lies beyond the end is.
    pub fn missing(&self, span: Span, limit: usize) -> Vec<Span> {
        let mut missing: Vec<Span> = Vec::new();
        let mut next = span.from.max(self.begin()).max(Position(1));
        let mut add = |from: Position, to: Position| match missing.last_mut() {
            Some(last) if last.to.next() == from => last.to = to,
            _ => missing.push(Span { from, to }),
        };
        if next > span.to {
            return Vec::new();
        }
        for (position, action) in self.actions.range(next..=span.to) {
            if *position > next {
                add(next, position.previous());
            }
            if !action.learned {
                add(*position, *position);
            }
            next = position.next();
        }
        if next <= span.to {
            add(next, span.to);
        }
        missing.truncate(limit);
        missing
    }

    fn promise(&mut self, request: PromiseRequest) -> Vec<Effect> {
        let PromiseRequest {
            ask,
            proposal,
            position,
        } = request;
        let voter = self.voter();
        let answer = |verdict, proposal, position, action| {
            Effect::Reply(Response::Promise(PromiseResponse {
                ask,
                verdict,
                proposal,
                position,
                action,
                voter,
            }))
        };
        if !self.votes() {
            return vec![answer(Verdict::Ignored, proposal, position, None)];
        }
        let stands = |promised: Proposal| {
            proposal < promised
                || (proposal == promised && !mistake("replica promises one proposal twice"))
        };
        let Some(position) = position else {
            if stands(self.metadata.promised) {
                let promised = self.metadata.promised;
                return vec![answer(Verdict::Reject, promised, None, None)];
            }
            self.metadata.promised = proposal;
            let end = Some(self.end);
            let mut effects = vec![self.store_metadata()];
            if mistake("replica promises in memory only") {
                effects.clear();
            }
            effects.push(answer(Verdict::Accept, proposal, end, None));
            return effects;
        };
        if position < self.begin() {
            let gone = Some(Action::tombstone(position));
            return vec![answer(Verdict::Accept, proposal, Some(position), gone)];
        }
        let before = self.actions.get(&position).cloned();
        let promised = before
            .as_ref()
            .map_or(self.metadata.promised, |action| action.promised);
        if stands(promised) {
            return vec![answer(Verdict::Reject, promised, Some(position), None)];
        }
        let mut after = before
            .clone()
            .unwrap_or_else(|| Action::promise(position, proposal));
        after.promised = proposal;
        let mut effects = Vec::new();
        self.put(after, Effect::Store, &mut effects);
        effects.push(answer(Verdict::Accept, proposal, Some(position), before));
        effects
    }

    fn write(&mut self, request: WriteRequest) -> Vec<Effect> {
        let last = request.last();
        let WriteRequest {
            ask,
            proposal,
            position,
            value,
            more,
            chosen,
        } = request;
        let mut effects = chosen.map_or_else(Vec::new, |chosen| self.note_chosen(chosen));
        let voter = self.voter();
        let through = (last > position).then_some(last);
        let answer = |verdict, proposal| {
            Effect::Reply(Response::Write(WriteResponse {
                ask,
                verdict,
                proposal,
                position,
                through,
                voter,
            }))
        };
        if !self.votes() {
            effects.push(answer(Verdict::Ignored, proposal));
            return effects;
        }
        // All or none: one answer speaks for all of them.
        let mut actions = Vec::with_capacity(more.len() + 1);
        let mut at = position;
        for value in std::iter::once(value).chain(more) {
            match self.takes(proposal, at, value) {
                Ok(action) => actions.extend(action),
                Err(promised) => {
                    effects.push(answer(Verdict::Reject, promised));
                    return effects;
                }
            }
            at = at.next();
        }
        for action in actions {
            self.put(action, Effect::Store, &mut effects);
        }
        effects.push(answer(Verdict::Accept, proposal));
        effects
    }

    /// The record with which this value is accepted; none when it stands there for good already. Refused, the proposal
    /// that stands against it.
    fn takes(
        &self,
        proposal: Proposal,
        position: Position,
        value: Value,
    ) -> Result<Option<Action>, Proposal> {
        let record = self.actions.get(&position);
        let promised = record.map_or(self.metadata.promised, |action| action.promised);
        // A truncated position has been chosen long ago; who still writes there has missed it.
        let gone = position < self.begin() && !mistake("replica accepts what is truncated");
        let late = if mistake("replica refuses an equal write") {
            proposal <= promised
        } else {
            proposal < promised && !mistake("replica accepts lower writes")
        };
        if gone || late {
            return Err(promised);
        }
        match record {
            // What is learned stays. The same value is a repeated write; another can never be chosen here.
            Some(record) if record.learned => {
                return if record.value() == Some(&value) {
                    Ok(None)
                } else {
                    Err(promised)
                };
            }
            _ => {}
        }
        // To accept is to promise: else a lower proposal could overwrite what a quorum has accepted.
        let promised = if mistake("replica accepts without a promise") {
            promised
        } else {
            promised.max(proposal)
        };
        let mut action = Action {
            position,
            promised,
            performed: Some(Performed {
                by: proposal,
                value,
            }),
            learned: false,
        };
        action.learned = self.is_covered(&action);
        Ok(Some(action))
    }

    fn learn(&mut self, message: LearnedMessage) -> Vec<Effect> {
        let mut effects = Vec::new();
        for mut action in message.actions {
            if !action.learned || action.performed.is_none() || action.position < self.begin() {
                continue;
            }
            if let Some(known) = self.actions.get(&action.position) {
                if known.learned {
                    continue;
                }
                action.promised = action.promised.max(known.promised);
            }
            self.put(action, Effect::Store, &mut effects);
        }
        effects
    }

    fn note_chosen(&mut self, chosen: Chosen) -> Vec<Effect> {
        let mut effects = Vec::new();
        if chosen.through < chosen.from || chosen.through < self.begin() {
            return effects;
        }
        let mut from = chosen.from;
        let list = &mut self.metadata.chosen;
        match list
            .iter_mut()
            .find(|known| known.proposal == chosen.proposal && known.from == chosen.from)
        {
            Some(known) if known.through >= chosen.through => return effects,
            Some(known) => {
                from = known.through.next();
                known.through = chosen.through;
            }
            None => list.push(chosen),
        }
        let from = from.max(self.begin());
        let news: Vec<Position> = self
            .actions
            .range(from..=chosen.through.max(from))
            .filter(|(_, action)| !action.learned && self.is_covered(action))
            .map(|(position, _)| *position)
            .collect();
        // The records themselves stay as they are on disk: the watermark in the metadata says it for all of them.
        for position in news {
            let begin = self.actions.get_mut(&position).and_then(|action| {
                action.learned = true;
                begin_of(action)
            });
            if let Some(begin) = begin {
                self.truncate(begin, &mut effects);
            }
        }
        effects.insert(
            0,
            Effect::StoreLater(Change::Metadata(self.metadata.clone())),
        );
        effects
    }

    fn recover(&mut self, request: RecoverRequest) -> Vec<Effect> {
        let RecoverRequest { ask, member, life } = request;
        let mut effects = Vec::new();
        let known = if member == self.me {
            self.metadata.life
        } else {
            if !mistake("replica forgets lives") && self.metadata.lives.note(&member, life) {
                effects.push(self.store_metadata());
            }
            if mistake("replica forgets lives") {
                life
            } else {
                self.metadata.lives.get(&member)
            }
        };
        let votes = self.status() == Status::Voting;
        effects.push(Effect::Reply(Response::Recover(RecoverResponse {
            ask,
            status: self.status(),
            begin: if votes { self.begin() } else { Position(0) },
            end: if votes { self.end } else { Position(0) },
            promised: if votes {
                self.metadata.promised
            } else {
                Proposal(0)
            },
            asker: known,
            incarnation: self.metadata.life.incarnation,
            lives: self.metadata.lives.clone(),
        })));
        effects
    }

    fn fetch(&self, request: FetchRequest) -> FetchResponse {
        let FetchRequest { ask, span } = request;
        let mut answer = FetchResponse {
            ask,
            begin: self.begin(),
            actions: Vec::new(),
            next: None,
        };
        let mut size = 0;
        if span.from > span.to {
            return answer;
        }
        for (position, action) in self.actions.range(span.from..=span.to) {
            if !action.learned {
                continue;
            }
            if size >= FETCH_BYTES {
                answer.next = Some(*position);
                break;
            }
            size += 64 + action.value().map_or(0, Value::size);
            answer.actions.push(action.clone());
        }
        answer
    }

    fn tell(&self, request: StatusRequest) -> StatusResponse {
        StatusResponse {
            ask: request.ask,
            status: self.status(),
            life: self.metadata.life,
            promised: self.metadata.promised,
            begin: self.begin(),
            end: self.end,
            missing: request
                .span
                .map_or_else(Vec::new, |span| self.missing(span, STATUS_SPANS)),
        }
    }

    fn votes(&self) -> bool {
        self.status() == Status::Voting
            || (mistake("replica votes while empty") && self.status() == Status::Empty)
    }

    fn voter(&self) -> Voter {
        Voter {
            incarnation: self.metadata.life.incarnation,
            known: self.metadata.lives.reborn(),
        }
    }

    /// Whether some coordinator has said that this very write is chosen.
    fn is_covered(&self, action: &Action) -> bool {
        action.performed.as_ref().is_some_and(|performed| {
            self.metadata.chosen.iter().any(|chosen| {
                (chosen.proposal == performed.by || mistake("replica learns whatever stands there"))
                    && (chosen.from..=chosen.through).contains(&action.position)
            })
        })
    }

    /// Takes a record over.
    fn put(&mut self, action: Action, store: fn(Change) -> Effect, effects: &mut Vec<Effect>) {
        self.end = self.end.max(action.position);
        let begin = begin_of(&action);
        if begin.is_none_or(|begin| begin <= action.position) {
            effects.push(store(Change::Action(action.clone())));
            self.actions.insert(action.position, action);
        }
        if let Some(begin) = begin {
            self.truncate(begin, effects);
        }
    }

    fn truncate(&mut self, begin: Position, effects: &mut Vec<Effect>) {
        if begin <= self.begin() {
            return;
        }
        self.metadata.begin = begin;
        self.drop_truncated();
        // The records are on disk or their watermark is: losing this costs nothing but the deletion.
        effects.push(Effect::StoreLater(Change::Metadata(self.metadata.clone())));
        effects.push(Effect::StoreLater(Change::Forget { below: begin }));
    }

    fn drop_truncated(&mut self) {
        let begin = self.metadata.begin;
        self.actions = self.actions.split_off(&begin);
        self.metadata
            .chosen
            .retain(|chosen| chosen.through >= begin);
        self.end = self.end.max(begin.previous());
    }

    fn store_metadata(&self) -> Effect {
        Effect::Store(Change::Metadata(self.metadata.clone()))
    }

    /// Recounts the invariants.
    ///
    /// # Errors
    /// What is broken, in words.
    pub fn check(&self) -> Result<(), String> {
        let begin = self.begin();
        if begin > self.end.next() {
            return Err(format!("begins at {begin} behind its end {}", self.end));
        }
        if self.status() == Status::Voting && self.metadata.life.nonce == 0 {
            return Err("votes without a life".to_owned());
        }
        for (position, action) in &self.actions {
            if *position != action.position || *position < begin || *position > self.end {
                return Err(format!("record {position} is out of place"));
            }
            if action.learned && action.performed.is_none() {
                return Err(format!("record {position} is learned without a value"));
            }
            if action
                .performed
                .as_ref()
                .is_some_and(|performed| performed.by > action.promised)
            {
                return Err(format!("record {position} was accepted without a promise"));
            }
            if !action.learned && self.is_covered(action) {
                return Err(format!("record {position} is chosen but not learned"));
            }
            if begin_of(action).is_some_and(|truncated| truncated > begin) {
                return Err(format!("record {position} truncates more than is gone"));
            }
        }
        if self
            .metadata
            .chosen
            .iter()
            .any(|chosen| chosen.through < begin)
        {
            return Err("keeps watermarks of what is truncated".to_owned());
        }
        Ok(())
    }
}

/// Where the log begins once this record is learned, if it is.
fn begin_of(action: &Action) -> Option<Position> {
    let begin = action.learned.then(|| action.begin_after()).flatten()?;
    if mistake("replica truncates too much") {
        return Some(begin.next());
    }
    Some(begin)
}
