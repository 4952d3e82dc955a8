//! How a replica comes to vote: at its first start, and after it has lost or damaged what it stored.
//!
//! Pure. It runs in the replica's process, beside the rules of voting, and changes the replica's metadata through it.
//!
//! ```text
//!             all 2Q-1 empty or starting              all 2Q-1 starting or voting
//!   EMPTY ───────────────────────────────▶ STARTING ───────────────────────────────▶ VOTING
//!     │                                        │                                       ▲
//!     │ Q others vote                          │ Q others vote                         │ caught up
//!     └───────────────────▶ RECOVERING ◀───────┘                                       │
//!                               └──────────────────────────────────────────────────────┘
//! ```
//!
//! Before anything else it begins a life. Whoever answers writes that life down first. When somebody knows another
//! life of the same number, or a higher one, this member has lost a store without remembering it: it takes a higher
//! number and asks all of them anew. Once a quorum of voters has answered, every round that could count an answer of
//! a former life has either been promised to one of them before (and its promise is taken over from there) or will
//! hear of the new life from one of them (and drops the old answer).

use std::collections::BTreeMap;
use std::time::Duration;

use meseta_runtime::planted::mistake;
use rand::{Rng, RngExt};

use super::action::Proposal;
use super::catchup::{Asks, CatchUp, Effect as Outgoing, Timer};
use super::members::{Incarnation, Life, Member};
use super::messages::{RecoverRequest, RecoverResponse, Request, Response, Span, Status};
use super::replica::core::{Change, Effect as Stored, Replica};
use super::rounds::Quorum;

/// Shortest wait before those are asked again whose answers do not decide; the longest is twice that.
pub const RETRY: Duration = Duration::from_millis(500);

/// How a replica recovers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Settings {
    /// All members.
    pub quorum: Quorum,
    /// Whether members that are all empty begin a log by themselves. If not, an operator does.
    pub auto_initialize: bool,
}

/// What to do after a step, in this order. What is sent leaves only after the commit that holds every change stored
/// before it in the same step.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Effect {
    /// To be on disk before anything that follows.
    Store(Change),
    /// To the replica of this member, which may be the local one.
    Send(Member, Request),
    /// Hand the timer back after this time.
    Arm(Timer, Duration),
    /// The replica votes from here on; recovery has nothing left to do.
    Voting,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    /// Not begun, or over.
    Idle,
    Asking {
        ask: u64,
        timer: Timer,
        answers: BTreeMap<Member, RecoverResponse>,
    },
    CatchingUp {
        catch_up: CatchUp,
    },
}

/// The way of one replica to voting.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Recovery {
    settings: Settings,
    asks: Asks,
    phase: Phase,
}

impl Recovery {
    /// Recovery that has not begun. `asks` should begin with a random number.
    pub fn new(settings: Settings, asks: Asks) -> Self {
        Self {
            settings,
            asks,
            phase: Phase::Idle,
        }
    }

    /// Whether an answer with this number is still waited for.
    pub fn awaits(&self, number: u64) -> bool {
        match &self.phase {
            Phase::Idle => false,
            Phase::Asking { ask, .. } => number == *ask,
            Phase::CatchingUp { catch_up } => catch_up.awaits(number),
        }
    }

    /// Begins, once, when the process starts. A replica that votes already just says so.
    pub fn start(&mut self, replica: &mut Replica, random: &mut impl Rng) -> Vec<Effect> {
        if replica.status() == Status::Voting {
            return vec![Effect::Voting];
        }
        let mut effects = Vec::new();
        let life = replica.metadata().life;
        if life.nonce == 0 {
            effects.push(begin_life(replica, life.incarnation, random));
        }
        self.ask(replica, random, &mut effects);
        effects
    }

    /// An answer of a replica.
    pub fn answered(
        &mut self,
        replica: &mut Replica,
        from: &Member,
        response: Response,
        random: &mut impl Rng,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        match &mut self.phase {
            Phase::Idle => {}
            Phase::Asking { ask, answers, .. } => {
                if let Response::Recover(answer) = response
                    && answer.ask == *ask
                    && self.settings.quorum.members.contains(from)
                {
                    answers.insert(from.clone(), answer);
                    self.decide(replica, from, random, &mut effects);
                }
            }
            Phase::CatchingUp { catch_up } => {
                let sends = catch_up.answered(from, response, &mut self.asks, random);
                effects.extend(sends.into_iter().map(Effect::from));
                self.finish(replica, &mut effects);
            }
        }
        effects
    }

    /// A timer has run out.
    pub fn due(
        &mut self,
        replica: &mut Replica,
        timer: Timer,
        random: &mut impl Rng,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        match &mut self.phase {
            Phase::Asking {
                ask,
                timer: armed,
                answers,
            } if *armed == timer => {
                let request = RecoverRequest {
                    ask: *ask,
                    member: replica.me().clone(),
                    life: replica.metadata().life,
                };
                // A vote stands; others may have come further.
                let stands = |answer: &RecoverResponse| answer.status == Status::Voting;
                for member in &self.settings.quorum.members {
                    if !answers.get(member).is_some_and(stands) {
                        effects.push(Effect::Send(member.clone(), request.clone().into()));
                    }
                }
                *armed = Timer(self.asks.draw());
                effects.push(Effect::Arm(*armed, pause(random)));
            }
            Phase::CatchingUp { catch_up } => {
                let sends = catch_up.due(timer, &mut self.asks);
                effects.extend(sends.into_iter().map(Effect::from));
            }
            Phase::Idle | Phase::Asking { .. } => {}
        }
        effects
    }

    fn ask(&mut self, replica: &Replica, random: &mut impl Rng, effects: &mut Vec<Effect>) {
        let ask = self.asks.draw();
        let request = RecoverRequest {
            ask,
            member: replica.me().clone(),
            life: replica.metadata().life,
        };
        for member in &self.settings.quorum.members {
            effects.push(Effect::Send(member.clone(), request.clone().into()));
        }
        let timer = Timer(self.asks.draw());
        effects.push(Effect::Arm(timer, pause(random)));
        self.phase = Phase::Asking {
            ask,
            timer,
            answers: BTreeMap::new(),
        };
    }

    /// Looks at all answers again after the one of `from` has come.
    fn decide(
        &mut self,
        replica: &mut Replica,
        from: &Member,
        random: &mut impl Rng,
        effects: &mut Vec<Effect>,
    ) {
        let Phase::Asking { answers, .. } = &mut self.phase else {
            return;
        };
        let life = replica.metadata().life;
        let known = answers.get(from).map_or(life, |answer| answer.asker);
        if known != life && !mistake("recovery keeps a life that is taken") {
            effects.push(begin_life(
                replica,
                known.incarnation.max(life.incarnation),
                random,
            ));
            self.ask(replica, random, effects);
            return;
        }
        // As in a round: what a member said in an earlier life than another knows of it does not count.
        let mut reborn: Vec<Member> = Vec::new();
        for (member, answer) in answers.iter() {
            let is_old = answers
                .values()
                .any(|other| answer.incarnation < other.lives.get(member).incarnation);
            if is_old && !mistake("recovery counts former lives") {
                reborn.push(member.clone());
            }
        }
        answers.retain(|member, _| !reborn.contains(member));
        let answers = &self.answers();
        match decision(
            replica.status(),
            self.settings.auto_initialize,
            &self.settings.quorum,
            answers.values().map(|answer| answer.status),
        ) {
            Decision::Wait => {}
            Decision::Start => {
                effects.push(adopt(replica, Status::Starting, answers));
                self.ask(replica, random, effects);
            }
            Decision::Vote => {
                effects.push(adopt(replica, Status::Voting, answers));
                effects.push(Effect::Voting);
                self.phase = Phase::Idle;
            }
            Decision::Recover => {
                effects.push(adopt(replica, Status::Recovering, answers));
                let members = || {
                    let all = answers.iter();
                    all.filter(|(_, answer)| answer.status == Status::Voting)
                };
                let voters = || members().map(|(_, answer)| answer);
                let span = Span {
                    from: voters()
                        .map(|answer| answer.begin)
                        .min()
                        .unwrap_or_default(),
                    to: voters().map(|answer| answer.end).max().unwrap_or_default(),
                };
                let (catch_up, sends) = CatchUp::begin(
                    replica.me().clone(),
                    self.settings.quorum.clone(),
                    members().map(|(member, _)| member),
                    span,
                    Proposal(0),
                    &mut self.asks,
                );
                effects.extend(sends.into_iter().map(Effect::from));
                self.phase = Phase::CatchingUp { catch_up };
                if mistake("recovery votes before it has caught up") {
                    effects.push(become_voting(replica));
                    effects.push(Effect::Voting);
                    self.phase = Phase::Idle;
                }
            }
        }
    }

    fn answers(&self) -> BTreeMap<Member, RecoverResponse> {
        match &self.phase {
            Phase::Asking { answers, .. } => answers.clone(),
            Phase::Idle | Phase::CatchingUp { .. } => BTreeMap::new(),
        }
    }

    fn finish(&mut self, replica: &mut Replica, effects: &mut Vec<Effect>) {
        let Phase::CatchingUp { catch_up } = &self.phase else {
            return;
        };
        if catch_up.is_done() {
            effects.push(become_voting(replica));
            effects.push(Effect::Voting);
            self.phase = Phase::Idle;
        }
    }
}

/// What the answers say to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing yet.
    Wait,
    /// Become STARTING.
    Start,
    /// Become VOTING at once: nobody has anything.
    Vote,
    /// Become RECOVERING and catch up with the voters.
    Recover,
}

/// The decision table. `answers` are the states of the members that have answered, each once, the asker's own too.
pub fn decision(
    own: Status,
    auto_initialize: bool,
    quorum: &Quorum,
    answers: impl Iterator<Item = Status>,
) -> Decision {
    let (mut voting, mut starting, mut empty) = (0, 0, 0);
    for status in answers {
        match status {
            Status::Voting => voting += 1,
            Status::Starting => starting += 1,
            Status::Empty => empty += 1,
            Status::Recovering => {}
        }
    }
    let all = quorum.members.len();
    if voting >= quorum.size {
        return Decision::Recover;
    }
    let enough = if mistake("recovery starts without all members") {
        quorum.size
    } else {
        all
    };
    match own {
        Status::Empty if auto_initialize && empty + starting >= enough => Decision::Start,
        Status::Starting if auto_initialize && starting + voting >= enough => Decision::Vote,
        Status::Empty | Status::Starting | Status::Recovering | Status::Voting => Decision::Wait,
    }
}

/// A life above `above`, with a nonce of its own.
fn begin_life(replica: &mut Replica, above: Incarnation, random: &mut impl Rng) -> Effect {
    let life = Life {
        incarnation: above.next(),
        nonce: random.random::<u64>().max(1),
    };
    from_replica(replica.change(|metadata| metadata.life = life))
}

/// Takes over what the answers know, and the status they lead to.
fn adopt(
    replica: &mut Replica,
    status: Status,
    answers: &BTreeMap<Member, RecoverResponse>,
) -> Effect {
    let me = replica.me().clone();
    from_replica(replica.change(|metadata| {
        metadata.status = status;
        for answer in answers.values() {
            if !mistake("recovery adopts no promise") {
                metadata.promised = metadata.promised.max(answer.promised);
            }
            for (other, life) in answer.lives.iter() {
                if *other != me && !mistake("recovery adopts no lives") {
                    metadata.lives.note(other, *life);
                }
            }
            // A truncation is final, whoever has learned it.
            if answer.status == Status::Voting {
                metadata.begin = metadata.begin.max(answer.begin);
            }
        }
    }))
}

fn become_voting(replica: &mut Replica) -> Effect {
    from_replica(replica.change(|metadata| metadata.status = Status::Voting))
}

fn from_replica(effect: Stored) -> Effect {
    match effect {
        Stored::Store(change) | Stored::StoreLater(change) => Effect::Store(change),
        Stored::Reply(_) => Effect::Voting,
    }
}

impl From<Outgoing> for Effect {
    fn from(effect: Outgoing) -> Self {
        match effect {
            Outgoing::Send(member, request) => Self::Send(member, request),
            Outgoing::Arm(timer, after) => Self::Arm(timer, after),
        }
    }
}

fn pause(random: &mut impl Rng) -> Duration {
    RETRY.mul_f64(1.0 + random.random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decision_table_holds() {
        use Status::{Empty, Recovering, Starting, Voting};
        let quorum = Quorum::majority(["a", "b", "c"].map(Member::from));
        let table: [(Status, bool, &[Status], Decision); 14] = [
            (Empty, true, &[], Decision::Wait),
            (Empty, true, &[Empty, Empty], Decision::Wait),
            (Empty, true, &[Empty, Empty, Empty], Decision::Start),
            (Empty, true, &[Empty, Starting, Starting], Decision::Start),
            (Empty, false, &[Empty, Empty, Empty], Decision::Wait),
            (Empty, true, &[Empty, Empty, Voting], Decision::Wait),
            (Empty, true, &[Empty, Empty, Recovering], Decision::Wait),
            (Empty, true, &[Empty, Voting, Voting], Decision::Recover),
            (Empty, false, &[Voting, Voting], Decision::Recover),
            (
                Starting,
                true,
                &[Starting, Starting, Voting],
                Decision::Vote,
            ),
            (Starting, true, &[Starting, Starting, Empty], Decision::Wait),
            (
                Starting,
                true,
                &[Starting, Voting, Voting],
                Decision::Recover,
            ),
            (
                Recovering,
                true,
                &[Recovering, Empty, Empty],
                Decision::Wait,
            ),
            (
                Recovering,
                true,
                &[Recovering, Voting, Voting],
                Decision::Recover,
            ),
        ];
        for (own, auto_initialize, answers, expected) in table {
            let answers_of = answers.iter().copied();
            let decided = decision(own, auto_initialize, &quorum, answers_of);
            assert_eq!(decided, expected, "{own:?} {auto_initialize} {answers:?}");
        }
    }

    #[test]
    fn one_master_alone_begins_its_log_by_itself() {
        let quorum = Quorum::majority([Member::from("a")]);
        let decide = |own| decision(own, true, &quorum, [own].into_iter());
        assert_eq!(decide(Status::Empty), Decision::Start);
        assert_eq!(decide(Status::Starting), Decision::Vote);
        assert_eq!(decide(Status::Recovering), Decision::Wait);
    }
}
