//! What a voting replica does when it has missed something: fetches it from the one who says that it is chosen.
//!
//! Pure. A replica that was away, cut off or wiped has gaps which no later write closes. Its coordinator would close them
//! before it leads, which costs time just when a leader is missing. So the writer tells the others from time to time how
//! far all is chosen, and who lacks something of that fetches it. A chosen value is final, so no round is needed; what
//! does not come, is fetched when the writer tells the next time.

use super::action::{Action, Position};
use super::catchup::{Asks, Timer};
use super::members::Member;
use super::messages::{Chosen, FetchRequest, FetchResponse, LearnedMessage, Span, Status};
use super::replica::core::Replica;

/// What to do after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// To the replica of this member.
    Fetch(Member, FetchRequest),
    /// To the own replica.
    Learn(LearnedMessage),
    /// Hand the timer back after [`catchup::PATIENCE`](super::catchup::PATIENCE).
    Arm(Timer),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fetching {
    ask: u64,
    from: Member,
    to: Position,
}

/// What is being fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    asks: Asks,
    fetching: Option<Fetching>,
}

impl Lag {
    /// Nothing is fetched yet. `asks` should begin with a random number.
    pub fn new(asks: Asks) -> Self {
        Self {
            asks,
            fetching: None,
        }
    }

    /// A member says what is chosen: it has all of that, and all before it.
    pub fn told(&mut self, replica: &Replica, from: &Member, chosen: &Chosen) -> Vec<Effect> {
        if self.fetching.is_some() || replica.status() != Status::Voting || from == replica.me() {
            return Vec::new();
        }
        let all = Span {
            from: replica.begin(),
            to: chosen.through,
        };
        let gaps = replica.missing(all, usize::MAX);
        match (gaps.first(), gaps.last()) {
            (Some(first), Some(last)) => {
                let span = Span {
                    from: first.from,
                    to: last.to,
                };
                self.fetch(from, span)
            }
            (None, _) | (_, None) => Vec::new(),
        }
    }

    fn fetch(&mut self, from: &Member, span: Span) -> Vec<Effect> {
        let ask = self.asks.draw();
        self.fetching = Some(Fetching {
            ask,
            from: from.clone(),
            to: span.to,
        });
        vec![
            Effect::Fetch(from.clone(), FetchRequest { ask, span }),
            Effect::Arm(Timer(ask)),
        ]
    }

    /// A member has answered, perhaps with what was fetched.
    pub fn answered(&mut self, from: &Member, answer: FetchResponse) -> Vec<Effect> {
        let expected = |fetching: &Fetching| fetching.ask == answer.ask && fetching.from == *from;
        let Some(fetching) = self.fetching.take_if(|fetching| expected(fetching)) else {
            return Vec::new();
        };
        let mut actions = answer.actions;
        // What it has truncated is history.
        if answer.begin > Position(0) {
            actions.insert(0, Action::tombstone(answer.begin.previous()));
        }
        let mut effects = vec![Effect::Learn(LearnedMessage { actions })];
        if let Some(next) = answer.next.filter(|next| *next <= fetching.to) {
            let span = Span {
                from: next,
                to: fetching.to,
            };
            effects.extend(self.fetch(from, span));
        }
        effects
    }

    /// A timer has run out: what has not come by then is not waited for.
    pub fn due(&mut self, timer: Timer) {
        if self
            .fetching
            .as_ref()
            .is_some_and(|fetching| fetching.ask == timer.0)
        {
            self.fetching = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::action::{Proposal, Value};
    use super::super::replica::core::{Metadata, Stored};
    use super::*;

    fn learned(position: u64) -> Action {
        let bytes = position.to_string().into_bytes().into();
        Action::learned(Position(position), Proposal(1), Value::Append { bytes })
    }

    /// A voting replica with these positions.
    fn replica(positions: impl IntoIterator<Item = u64>) -> Replica {
        let stored = Stored {
            metadata: Metadata {
                status: Status::Voting,
                ..Metadata::default()
            },
            actions: positions.into_iter().map(learned).collect(),
            ..Stored::default()
        };
        Replica::restore(Member::from("me"), stored)
    }

    fn through(position: u64) -> Chosen {
        Chosen {
            proposal: Proposal(1),
            from: Position(1),
            through: Position(position),
        }
    }

    fn fetched(effects: &[Effect]) -> (u64, Span) {
        let [
            Effect::Fetch(_, FetchRequest { ask, span }),
            Effect::Arm(timer),
        ] = effects
        else {
            panic!("nothing is fetched: {effects:?}");
        };
        assert_eq!(timer.0, *ask);
        (*ask, *span)
    }

    fn span(from: u64, to: u64) -> Span {
        Span {
            from: Position(from),
            to: Position(to),
        }
    }

    fn answer(ask: u64, begin: u64, positions: &[u64], next: Option<u64>) -> FetchResponse {
        FetchResponse {
            ask,
            begin: Position(begin),
            actions: positions.iter().copied().map(learned).collect(),
            next: next.map(Position),
        }
    }

    #[test]
    fn what_lacks_nothing_fetches_nothing() {
        let leader = Member::from("leader");
        let mut lag = Lag::new(Asks(0));
        assert_eq!(lag.told(&replica(1..=3), &leader, &through(3)), []);
        // Its own word is no news.
        let me = Member::from("me");
        assert_eq!(lag.told(&replica(1..=3), &me, &through(9)), []);
        let waiting = Replica::restore(me, Stored::default());
        assert_eq!(lag.told(&waiting, &leader, &through(9)), [], "it recovers");
    }

    #[test]
    fn gaps_are_fetched_from_who_told_of_them_and_the_rest_after_the_first_part() {
        let leader = Member::from("leader");
        let mut lag = Lag::new(Asks(0));
        let behind = replica([1, 3]);
        let (ask, what) = fetched(&lag.told(&behind, &leader, &through(6)));
        assert_eq!(what, span(2, 6));
        assert_eq!(lag.told(&behind, &leader, &through(7)), [], "one at a time");
        let effects = lag.answered(&leader, answer(ask, 0, &[2, 4], Some(5)));
        let actions = vec![learned(2), learned(4)];
        assert_eq!(effects[0], Effect::Learn(LearnedMessage { actions }));
        let (ask, what) = fetched(&effects[1..]);
        assert_eq!(what, span(5, 6));
        let effects = lag.answered(&leader, answer(ask, 0, &[5, 6], None));
        assert_eq!(effects.len(), 1, "that was all: {effects:?}");
    }

    #[test]
    fn what_is_truncated_there_is_history_here() {
        let leader = Member::from("leader");
        let mut lag = Lag::new(Asks(0));
        let (ask, _) = fetched(&lag.told(&replica([1]), &leader, &through(9)));
        let effects = lag.answered(&leader, answer(ask, 8, &[8, 9], None));
        let actions = vec![Action::tombstone(Position(7)), learned(8), learned(9)];
        assert_eq!(effects, [Effect::Learn(LearnedMessage { actions })]);
    }

    #[test]
    fn an_answer_that_does_not_come_is_asked_for_at_the_next_word() {
        let leader = Member::from("leader");
        let mut lag = Lag::new(Asks(0));
        let behind = replica([1]);
        let (ask, _) = fetched(&lag.told(&behind, &leader, &through(2)));
        lag.due(Timer(ask));
        let (again, _) = fetched(&lag.told(&behind, &leader, &through(2)));
        assert_ne!(again, ask);
        assert_eq!(lag.answered(&leader, answer(ask, 0, &[2], None)), []);
    }
}
