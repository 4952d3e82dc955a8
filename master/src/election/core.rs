//! Which master tries to lead, which follows, and when a leader gives up.
//!
//! Pure: the time and the random source are arguments; the shell is `election/mod.rs`.
//!
//! ```text
//!            silence of 300..600 ms          Q members hear no leader either
//!  WAITING ────────────────────▶ PRE-VOTING ────────────────────▶ ELECTING ── the log elected this member ──┐
//!   ▲  ▲ ▲                        │  ▲   │                           │                                      ▼
//!   │  │ └── a heartbeat ─────────┘  └───┘ again                     │         LEADING, not to be followed yet
//!   │  └──────────────────────────────────────────────── not elected ┘                                      │ recovered
//!   └── no contact with Q members for 600 ms, a higher epoch, or the master has ended ◀───────────── LEADING ◀┘
//! ```
//!
//! Who leads is decided by the log alone: it elects at most one member for each epoch, and nothing of an older epoch is
//! written once a newer one is elected. What this machine adds is quiet. A member that still hears a leader refuses a
//! pre-vote, so one that hears only some of the others cannot unseat a leader that works; and a leader which nobody
//! answers stops by itself. No clock of another member is ever trusted.
//!
//! Invariant: this member leads only under an epoch that the log gave to it, and that is the highest it has heard of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meseta_protocol::agent::MasterInfo;
use meseta_runtime::{Address, Time};
use rand::{Rng, RngExt};

use super::messages::{Heartbeat, HeartbeatAck, PreVote, PreVoteAnswer};

/// The times of an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// A member that heard a leader this recently wants no election, and none tries one before.
    pub shortest_silence: Duration,
    /// Every member that can try an election does so by then. A leader that has had no contact with Q members for as
    /// long gives up.
    pub longest_silence: Duration,
}

impl Default for Timing {
    /// Heartbeats each 50 ms; silence of 300 to 600 ms.
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(50),
            shortest_silence: Duration::from_millis(300),
            longest_silence: Duration::from_millis(600),
        }
    }
}

/// Who leads, as this member knows it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Standing {
    /// The highest leadership heard of; 0 before the first.
    pub epoch: u64,
    /// Its leader, if it is known, may be followed and was heard lately.
    pub leader: Option<(Address, Box<MasterInfo>)>,
}

/// What one member says to another.
#[derive(Debug, Clone, PartialEq)]
pub enum Word {
    /// As elected.
    Heartbeat(Heartbeat),
    /// To the elected.
    HeartbeatAck(HeartbeatAck),
    /// A question.
    PreVote(PreVote),
    /// Its answer.
    PreVoteAnswer(PreVoteAnswer),
}

/// What happens to the machine.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The master of this member is up. It counts as another one than before.
    Contend(Box<MasterInfo>),
    /// The master of this member has ended.
    Withdraw,
    /// The time that [`Core::due`] names has come.
    Due,
    /// Another member speaks.
    Heard(Address, Word),
    /// How [`Effect::Elect`] went: the epoch, if the log elected this member.
    Ballot(Option<u64>),
    /// The master has recovered under this epoch.
    Recovered(u64),
}

/// What has to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Say something to another member.
    Say(Address, Word),
    /// Ask the log to elect this member; [`Input::Ballot`] must follow, whatever happens.
    Elect,
    /// The master of this member is elected under this epoch.
    Lead(u64),
    /// The master of this member must end at once, for this reason.
    StepDown(&'static str),
    /// Tell whoever wants to know.
    Announce(Standing),
}

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    Waiting {
        until: Time,
    },
    PreVoting {
        granted: BTreeSet<Address>,
        until: Time,
    },
    Electing,
    Leading(Leadership),
}

#[derive(Debug, Clone, PartialEq)]
struct Leadership {
    epoch: u64,
    recovered: bool,
    next_heartbeat: Time,
    /// Of each other member, when the last heartbeat was sent that it has answered.
    contact: BTreeMap<Address, Time>,
}

/// The machine of one member.
#[derive(Debug, Clone)]
pub struct Core {
    me: Address,
    others: BTreeSet<Address>,
    timing: Timing,
    phase: Phase,
    /// The master of this member, while it is up.
    contender: Option<Box<MasterInfo>>,
    standing: Standing,
    /// When the leader was last heard, or this member began.
    quiet_since: Time,
    round: u64,
}

impl Core {
    /// A member that has just begun. `members` are all of them, this one included or not.
    pub fn new(
        me: Address,
        members: impl IntoIterator<Item = Address>,
        timing: Timing,
        now: Time,
        random: &mut impl Rng,
    ) -> Self {
        let others = members.into_iter().filter(|one| *one != me).collect();
        let mut core = Self {
            me,
            others,
            timing,
            phase: Phase::Electing,
            contender: None,
            standing: Standing::default(),
            quiet_since: now,
            round: 0,
        };
        core.phase = core.wait(now, random);
        core
    }

    /// How many members are enough: more than half.
    pub fn quorum(&self) -> usize {
        self.others.len().div_ceil(2) + 1
    }

    /// Who leads, as this member knows it.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The epoch under which this member is elected, if it is, whether or not its master has recovered.
    pub fn elected(&self) -> Option<u64> {
        match &self.phase {
            Phase::Leading(leadership) => Some(leadership.epoch),
            Phase::Waiting { .. } | Phase::PreVoting { .. } | Phase::Electing => None,
        }
    }

    /// What it does, in a word for people.
    pub fn doing(&self) -> &'static str {
        match &self.phase {
            Phase::Leading(leadership) if leadership.recovered => "leading",
            Phase::Leading(_) => "recovering",
            Phase::Electing => "electing",
            Phase::PreVoting { .. } => "pre-voting",
            Phase::Waiting { .. } if self.standing.leader.is_some() => "following",
            Phase::Waiting { .. } => "waiting",
        }
    }

    /// When [`Input::Due`] is to come next.
    pub fn due(&self) -> Option<Time> {
        match &self.phase {
            Phase::Waiting { until } | Phase::PreVoting { until, .. } => Some(*until),
            Phase::Electing => None,
            Phase::Leading(_) if self.others.is_empty() => None,
            Phase::Leading(leadership) => Some(leadership.next_heartbeat),
        }
    }

    /// Applies one input. Effects are carried out in order.
    pub fn step(&mut self, now: Time, input: Input, random: &mut impl Rng) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Contend(info) => self.contend(now, info, random, &mut effects),
            Input::Withdraw => self.withdraw(now, random, &mut effects),
            Input::Due => self.come_due(now, random, &mut effects),
            Input::Heard(from, word) => {
                if self.others.contains(&from) {
                    self.heard(now, &from, word, random, &mut effects);
                }
            }
            Input::Ballot(epoch) => self.balloted(now, epoch, random, &mut effects),
            Input::Recovered(epoch) => self.recovered(now, epoch, &mut effects),
        }
        debug_assert_eq!(self.check(), Ok(()));
        effects
    }

    /// Whether the machine keeps its invariant.
    ///
    /// # Errors
    /// The law that is broken.
    pub fn check(&self) -> Result<(), String> {
        if let Phase::Leading(leadership) = &self.phase
            && leadership.epoch != self.standing.epoch
        {
            return Err(format!(
                "leads under epoch {} but has heard of {}",
                leadership.epoch, self.standing.epoch
            ));
        }
        match &self.standing.leader {
            Some((address, _)) if *address == self.me && self.elected().is_none() => {
                Err("announces itself as leader and is not elected".to_owned())
            }
            Some(_) | None => Ok(()),
        }
    }

    fn contend(
        &mut self,
        now: Time,
        info: Box<MasterInfo>,
        random: &mut impl Rng,
        effects: &mut Vec<Effect>,
    ) {
        if self.elected().is_some() {
            self.step_down("another master has taken its place", now, random, effects);
        }
        self.contender = Some(info);
        if self.others.is_empty() && matches!(self.phase, Phase::Waiting { .. }) {
            // Nobody else could lead.
            self.elect(effects);
        }
    }

    fn withdraw(&mut self, now: Time, random: &mut impl Rng, effects: &mut Vec<Effect>) {
        self.contender = None;
        match self.phase {
            Phase::Leading(_) => self.step_down("the master has ended", now, random, effects),
            Phase::PreVoting { .. } => self.phase = self.wait(now, random),
            Phase::Waiting { .. } | Phase::Electing => {}
        }
    }

    fn come_due(&mut self, now: Time, random: &mut impl Rng, effects: &mut Vec<Effect>) {
        if self.due().is_none_or(|due| now < due) {
            return;
        }
        match self.phase {
            Phase::Leading(_) => self.beat(now, random, effects),
            Phase::Waiting { .. } | Phase::PreVoting { .. } => self.silence(now, random, effects),
            Phase::Electing => {}
        }
    }

    /// No leader was heard for the time that was drawn.
    fn silence(&mut self, now: Time, random: &mut impl Rng, effects: &mut Vec<Effect>) {
        if self.standing.leader.take().is_some() {
            effects.push(Effect::Announce(self.standing.clone()));
        }
        if self.contender.is_none() {
            self.phase = self.wait(now, random);
            return;
        }
        if self.quorum() == 1 {
            self.elect(effects);
            return;
        }
        self.round += 1;
        let (round, epoch) = (self.round, self.standing.epoch);
        let question = |to: &Address| {
            let word = Word::PreVote(PreVote { round, epoch });
            Effect::Say(to.clone(), word)
        };
        effects.extend(self.others.iter().map(question));
        self.phase = Phase::PreVoting {
            granted: BTreeSet::new(),
            until: now + self.draw(random),
        };
    }

    fn elect(&mut self, effects: &mut Vec<Effect>) {
        self.phase = Phase::Electing;
        effects.push(Effect::Elect);
    }

    fn balloted(
        &mut self,
        now: Time,
        epoch: Option<u64>,
        random: &mut impl Rng,
        effects: &mut Vec<Effect>,
    ) {
        if self.phase != Phase::Electing {
            return;
        }
        match epoch {
            // An epoch below one that was heard of has lost already.
            Some(epoch) if epoch > self.standing.epoch && self.contender.is_some() => {
                self.standing = Standing {
                    epoch,
                    leader: None,
                };
                let contact = self.others.iter().map(|one| (one.clone(), now)).collect();
                self.phase = Phase::Leading(Leadership {
                    epoch,
                    recovered: false,
                    next_heartbeat: now,
                    contact,
                });
                effects.push(Effect::Announce(self.standing.clone()));
                effects.push(Effect::Lead(epoch));
                self.beat(now, random, effects);
            }
            Some(_) | None => self.phase = self.wait(now, random),
        }
    }

    fn recovered(&mut self, now: Time, epoch: u64, effects: &mut Vec<Effect>) {
        let (Phase::Leading(leadership), Some(info)) = (&mut self.phase, &self.contender) else {
            return;
        };
        if leadership.epoch != epoch || leadership.recovered {
            return;
        }
        leadership.recovered = true;
        self.standing.leader = Some((self.me.clone(), info.clone()));
        effects.push(Effect::Announce(self.standing.clone()));
        self.say_heartbeat(now, effects);
    }

    /// The time for the next heartbeat has come: says it, or gives up when too few have answered the earlier ones.
    fn beat(&mut self, now: Time, random: &mut impl Rng, effects: &mut Vec<Effect>) {
        let (quorum, limit) = (self.quorum(), self.timing.longest_silence);
        let Phase::Leading(leadership) = &mut self.phase else {
            return;
        };
        let near = leadership.contact.values();
        let near = near.filter(|at| now.since(**at) <= limit).count() + 1;
        if near < quorum {
            self.step_down("it has lost contact with a quorum", now, random, effects);
            return;
        }
        leadership.next_heartbeat = now + self.timing.heartbeat;
        self.say_heartbeat(now, effects);
    }

    fn say_heartbeat(&self, now: Time, effects: &mut Vec<Effect>) {
        let heartbeat = Heartbeat {
            epoch: self.standing.epoch,
            sent: now,
            leader: self.standing.leader.as_ref().map(|(_, info)| info.clone()),
        };
        let say = |to: &Address| Effect::Say(to.clone(), Word::Heartbeat(heartbeat.clone()));
        effects.extend(self.others.iter().map(say));
    }

    fn heard(
        &mut self,
        now: Time,
        from: &Address,
        word: Word,
        random: &mut impl Rng,
        effects: &mut Vec<Effect>,
    ) {
        let epoch = match &word {
            Word::Heartbeat(heartbeat) => heartbeat.epoch,
            Word::HeartbeatAck(ack) => ack.epoch,
            Word::PreVote(question) => question.epoch,
            Word::PreVoteAnswer(answer) => answer.epoch,
        };
        self.hear_of(epoch, now, random, effects);
        match word {
            Word::Heartbeat(heartbeat) => self.heartbeat(now, from, heartbeat, random, effects),
            Word::HeartbeatAck(ack) => self.acknowledged(now, from, ack),
            Word::PreVote(question) => {
                let answer = PreVoteAnswer {
                    round: question.round,
                    granted: self.grants(now),
                    epoch: self.standing.epoch,
                };
                effects.push(Effect::Say(from.clone(), Word::PreVoteAnswer(answer)));
            }
            Word::PreVoteAnswer(answer) => self.answered(from.clone(), answer, effects),
        }
    }

    /// A leadership above all that were heard of: whoever led before leads no more.
    fn hear_of(&mut self, epoch: u64, now: Time, random: &mut impl Rng, effects: &mut Vec<Effect>) {
        if epoch <= self.standing.epoch {
            return;
        }
        if self.elected().is_some() {
            self.step_down("another master was elected", now, random, effects);
        }
        self.standing = Standing {
            epoch,
            leader: None,
        };
        effects.push(Effect::Announce(self.standing.clone()));
    }

    fn heartbeat(
        &mut self,
        now: Time,
        from: &Address,
        heartbeat: Heartbeat,
        random: &mut impl Rng,
        effects: &mut Vec<Effect>,
    ) {
        let ack = HeartbeatAck {
            epoch: self.standing.epoch,
            sent: heartbeat.sent,
        };
        effects.push(Effect::Say(from.clone(), Word::HeartbeatAck(ack)));
        // An older leadership learns from the answer that it is over. Under one epoch two cannot lead.
        if heartbeat.epoch < self.standing.epoch || self.elected().is_some() {
            return;
        }
        self.quiet_since = now;
        let leader = heartbeat.leader.map(|info| (from.clone(), info));
        if leader != self.standing.leader {
            self.standing.leader = leader;
            effects.push(Effect::Announce(self.standing.clone()));
        }
        // A ballot that is under way is waited for: its answer comes, and may be a later leadership than this one.
        if self.phase != Phase::Electing {
            self.phase = self.wait(now, random);
        }
    }

    fn acknowledged(&mut self, now: Time, from: &Address, ack: HeartbeatAck) {
        if let Phase::Leading(leadership) = &mut self.phase
            && leadership.epoch == ack.epoch
            && let Some(contact) = leadership.contact.get_mut(from)
        {
            *contact = (*contact).max(ack.sent.min(now));
        }
    }

    /// Whether this member would want an election too.
    fn grants(&self, now: Time) -> bool {
        self.elected().is_none() && now.since(self.quiet_since) >= self.timing.shortest_silence
    }

    fn answered(&mut self, from: Address, answer: PreVoteAnswer, effects: &mut Vec<Effect>) {
        let quorum = self.quorum();
        if let Phase::PreVoting { granted, .. } = &mut self.phase
            && answer.granted
            && answer.round == self.round
        {
            granted.insert(from);
            if granted.len() + 1 >= quorum {
                self.elect(effects);
            }
        }
    }

    fn step_down(
        &mut self,
        why: &'static str,
        now: Time,
        random: &mut impl Rng,
        effects: &mut Vec<Effect>,
    ) {
        self.phase = self.wait(now, random);
        self.contender = None;
        effects.push(Effect::StepDown(why));
        if self.standing.leader.take().is_some() {
            effects.push(Effect::Announce(self.standing.clone()));
        }
    }

    fn wait(&self, now: Time, random: &mut impl Rng) -> Phase {
        Phase::Waiting {
            until: now + self.draw(random),
        }
    }

    /// A silence, evenly from the shortest to the longest.
    fn draw(&self, random: &mut impl Rng) -> Duration {
        let Timing {
            shortest_silence: shortest,
            longest_silence: longest,
            ..
        } = self.timing;
        shortest + (longest.saturating_sub(shortest)).mul_f64(random.random::<f64>())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
