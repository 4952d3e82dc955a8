//! The replica's rules, one by one, and random requests against its own recount.

use bytes::Bytes;
use proptest::prelude::*;

use super::core::{Change, Effect, Metadata, ReadError, Replica, Stored};
use crate::log::action::{Action, Position, Proposal, Value};
use crate::log::members::{Incarnation, Life, Member};
use crate::log::messages::{
    Chosen, ChosenMessage, FetchRequest, LearnedMessage, PromiseRequest, PromiseResponse,
    RecoverRequest, Request, Response, Span, Status, Verdict, WriteRequest, WriteResponse,
};

fn voting() -> Stored {
    let mut stored = Stored::default();
    stored.metadata.status = Status::Voting;
    stored.metadata.life = Life {
        incarnation: Incarnation::FIRST,
        nonce: 1,
    };
    stored
}

fn replica(stored: Stored) -> Replica {
    Replica::restore(Member::from("a"), stored)
}

fn append(text: &'static str) -> Value {
    Value::Append {
        bytes: Bytes::from_static(text.as_bytes()),
    }
}

fn promise(proposal: u64, position: Option<u64>) -> Request {
    Request::Promise(PromiseRequest {
        ask: 1,
        proposal: Proposal(proposal),
        position: position.map(Position),
    })
}

fn write(proposal: u64, position: u64, value: Value) -> Request {
    write_all(proposal, position, value, Vec::new())
}

fn write_all(proposal: u64, position: u64, value: Value, more: Vec<Value>) -> Request {
    Request::Write(WriteRequest {
        ask: 1,
        proposal: Proposal(proposal),
        position: Position(position),
        value,
        more,
        chosen: None,
    })
}

fn learn(actions: Vec<Action>) -> Request {
    Request::Learned(LearnedMessage { actions })
}

fn span(from: u64, to: u64) -> Span {
    Span {
        from: Position(from),
        to: Position(to),
    }
}

/// What is stored, what is stored later, and the answer.
fn sorted(effects: Vec<Effect>) -> (Vec<Change>, Vec<Change>, Option<Response>) {
    let (mut stored, mut later, mut answer) = (Vec::new(), Vec::new(), None);
    for effect in effects {
        assert_eq!(answer, None, "the answer comes last");
        match effect {
            Effect::Store(change) => stored.push(change),
            Effect::StoreLater(change) => later.push(change),
            Effect::Reply(response) => answer = Some(response),
        }
    }
    (stored, later, answer)
}

fn promised(effects: Vec<Effect>) -> PromiseResponse {
    match sorted(effects).2 {
        Some(Response::Promise(answer)) => answer,
        other => panic!("no promise: {other:?}"),
    }
}

fn written(effects: Vec<Effect>) -> WriteResponse {
    match sorted(effects).2 {
        Some(Response::Write(answer)) => answer,
        other => panic!("no answer to a write: {other:?}"),
    }
}

#[test]
fn several_values_are_accepted_together_or_not_at_all() {
    let mut replica = replica(voting());
    let (stored, _, answer) =
        sorted(replica.step(write_all(2, 1, append("a"), vec![append("b"), append("c")])));
    assert_eq!(stored.len(), 3);
    let Some(Response::Write(answer)) = answer else {
        panic!("no answer: {answer:?}")
    };
    assert_eq!(answer.verdict, Verdict::Accept);
    assert_eq!((answer.position, answer.last()), (Position(1), Position(3)));
    // Somebody has promised more for the second of the next.
    replica.step(promise(5, Some(5)));
    let (stored, _, answer) = sorted(replica.step(write_all(2, 4, append("d"), vec![append("e")])));
    assert_eq!(stored, []);
    let Some(Response::Write(answer)) = answer else {
        panic!("no answer: {answer:?}")
    };
    assert_eq!(
        (answer.verdict, answer.proposal),
        (Verdict::Reject, Proposal(5))
    );
    assert_eq!(replica.action(Position(4)), None);
}

#[test]
fn a_promise_is_stored_before_it_is_told_and_refused_to_who_is_not_higher() {
    let mut replica = replica(voting());
    let (stored, later, answer) = sorted(replica.step(promise(3, None)));
    assert_eq!(stored, [Change::Metadata(replica.metadata().clone())]);
    assert_eq!(later, []);
    let Some(Response::Promise(answer)) = answer else {
        panic!("no promise: {answer:?}")
    };
    assert_eq!(answer.verdict, Verdict::Accept);
    assert_eq!(answer.position, Some(Position(0)));
    for lower in [2, 3] {
        let refused = promised(replica.step(promise(lower, None)));
        assert_eq!(refused.verdict, Verdict::Reject);
        assert_eq!(refused.proposal, Proposal(3));
    }
}

#[test]
fn an_explicit_promise_tells_what_stood_there_before() {
    let mut replica = replica(voting());
    replica.step(promise(1, None));
    // Where nothing stands, the implicit promise holds.
    assert_eq!(
        promised(replica.step(promise(1, Some(2)))).verdict,
        Verdict::Reject
    );
    let first = promised(replica.step(promise(2, Some(2))));
    assert_eq!((first.verdict, first.action), (Verdict::Accept, None));
    assert_eq!(replica.end(), Position(2));
    replica.step(write(2, 2, append("x")));
    let second = promised(replica.step(promise(4, Some(2))));
    let before = second.action.expect("it tells the record");
    assert_eq!(
        (before.promised, before.value()),
        (Proposal(2), Some(&append("x")))
    );
    assert_eq!(
        replica.action(Position(2)).map(|action| action.promised),
        Some(Proposal(4))
    );
    // The writer with the lower number comes too late.
    assert_eq!(
        written(replica.step(write(3, 2, append("y")))).verdict,
        Verdict::Reject
    );
}

#[test]
fn a_write_is_accepted_by_who_promised_it_or_promised_less() {
    let mut replica = replica(voting());
    replica.step(promise(5, None));
    assert_eq!(
        written(replica.step(write(4, 1, append("low")))).verdict,
        Verdict::Reject
    );
    assert_eq!(replica.action(Position(1)), None);
    let (stored, _, answer) = sorted(replica.step(write(5, 1, append("x"))));
    assert_eq!(
        stored,
        [Change::Action(
            replica.action(Position(1)).cloned().expect("stored")
        )]
    );
    assert!(matches!(answer, Some(Response::Write(answer)) if answer.verdict == Verdict::Accept));
}

#[test]
fn a_learned_value_is_accepted_again_and_never_replaced() {
    let mut replica = replica(voting());
    replica.step(learn(vec![Action::learned(
        Position(1),
        Proposal(2),
        append("x"),
    )]));
    let same = replica.step(write(9, 1, append("x")));
    assert_eq!(sorted(same.clone()).0, []);
    assert_eq!(written(same).verdict, Verdict::Accept);
    assert_eq!(
        written(replica.step(write(9, 1, append("y")))).verdict,
        Verdict::Reject
    );
    assert_eq!(
        replica.step(learn(vec![Action::learned(
            Position(1),
            Proposal(8),
            append("y")
        )])),
        []
    );
    assert_eq!(replica.read(span(1, 1)).map(|all| all.len()), Ok(1));
}

#[test]
fn who_does_not_vote_ignores_but_learns_and_answers_the_rest() {
    for status in [Status::Empty, Status::Starting, Status::Recovering] {
        let mut stored = voting();
        stored.metadata.status = status;
        let mut replica = replica(stored);
        assert_eq!(
            promised(replica.step(promise(1, None))).verdict,
            Verdict::Ignored
        );
        assert_eq!(
            promised(replica.step(promise(1, Some(1)))).verdict,
            Verdict::Ignored
        );
        assert_eq!(
            written(replica.step(write(1, 1, append("x")))).verdict,
            Verdict::Ignored
        );
        assert_eq!(replica.metadata().promised, Proposal(0));
        replica.step(learn(vec![Action::learned(
            Position(1),
            Proposal(1),
            append("x"),
        )]));
        assert_eq!(replica.missing(span(0, 1), 9), []);
    }
}

#[test]
fn a_truncation_takes_effect_when_it_is_learned_and_only_below_its_mark() {
    let mut replica = replica(voting());
    for position in 1..=3 {
        replica.step(write(1, position, append("x")));
    }
    replica.step(write(1, 4, Value::Truncate { to: Position(3) }));
    assert_eq!(replica.begin(), Position(0));
    let chosen = Chosen {
        proposal: Proposal(1),
        from: Position(1),
        through: Position(4),
    };
    let (stored, later, answer) = sorted(replica.step(Request::Chosen(ChosenMessage { chosen })));
    assert_eq!((stored, answer), (Vec::new(), None), "it costs no sync");
    assert!(later.contains(&Change::Forget { below: Position(3) }));
    assert_eq!((replica.begin(), replica.end()), (Position(3), Position(4)));
    assert_eq!(replica.read(span(3, 4)).map(|all| all.len()), Ok(1));
    let begin = Position(3);
    assert_eq!(
        replica.read(span(2, 4)),
        Err(ReadError::Truncated { begin })
    );
    // A promise there tells that it is history.
    let gone = promised(replica.step(promise(9, Some(1))));
    assert_eq!(gone.action, Some(Action::tombstone(Position(1))));
}

#[test]
fn a_tombstone_says_that_all_up_to_it_is_history() {
    let mut replica = replica(voting());
    replica.step(write(1, 2, append("x")));
    replica.step(write(1, 7, append("y")));
    replica.step(learn(vec![Action::tombstone(Position(5))]));
    assert_eq!((replica.begin(), replica.end()), (Position(6), Position(7)));
    assert_eq!(replica.missing(span(0, 8), 9), [span(6, 8)]);
}

#[test]
fn a_watermark_that_comes_first_covers_the_write_that_follows() {
    let mut replica = replica(voting());
    let chosen = Chosen {
        proposal: Proposal(2),
        from: Position(1),
        through: Position(1),
    };
    replica.step(Request::Chosen(ChosenMessage { chosen }));
    replica.step(write(2, 1, append("x")));
    assert_eq!(replica.missing(span(1, 1), 9), []);
}

#[test]
fn the_life_of_a_beginner_is_stored_before_it_is_answered() {
    let mut replica = replica(voting());
    let ask = |incarnation, nonce| {
        Request::Recover(RecoverRequest {
            ask: 3,
            member: Member::from("b"),
            life: Life {
                incarnation: Incarnation(incarnation),
                nonce,
            },
        })
    };
    let known = |effects| match sorted(effects) {
        (stored, _, Some(Response::Recover(answer))) => (stored.len(), answer.asker),
        other => panic!("no answer: {other:?}"),
    };
    let life = |incarnation, nonce| Life {
        incarnation: Incarnation(incarnation),
        nonce,
    };
    assert_eq!(known(replica.step(ask(1, 7))), (1, life(1, 7)));
    assert_eq!(known(replica.step(ask(1, 7))), (0, life(1, 7)));
    // Another store with that number: neither is right any more.
    assert_eq!(known(replica.step(ask(1, 8))), (1, life(1, 0)));
    assert_eq!(known(replica.step(ask(2, 9))), (1, life(2, 9)));
    assert_eq!(known(replica.step(ask(1, 7))), (0, life(2, 9)));
    let vote = promised(replica.step(promise(1, None)));
    assert_eq!(
        vote.voter.known.get(&Member::from("b")),
        Some(&Incarnation(2))
    );
}

#[test]
fn a_damaged_store_does_not_vote_and_begins_a_new_life() {
    let mut stored = voting();
    stored.damaged = true;
    stored.actions = vec![Action::learned(Position(3), Proposal(1), append("kept"))];
    let mut replica = replica(stored);
    assert_eq!(replica.status(), Status::Recovering);
    assert_eq!(replica.metadata().life.nonce, 0);
    assert_eq!(replica.missing(span(0, 3), 9), [span(1, 2)]);
    assert_eq!(
        promised(replica.step(promise(1, None))).verdict,
        Verdict::Ignored
    );
}

#[test]
fn what_is_fetched_is_learned_and_comes_in_bounded_parts() {
    let mut replica = replica(voting());
    let large = Value::Append {
        bytes: Bytes::from(vec![7; 600 * 1024]),
    };
    for position in [1, 2, 4, 5] {
        let action = Action::learned(Position(position), Proposal(1), large.clone());
        replica.step(learn(vec![action]));
    }
    replica.step(write(1, 3, append("open")));
    let mut fetch = |from| {
        let span = span(from, 5);
        match sorted(replica.step(FetchRequest { ask: 1, span }.into())).2 {
            Some(Response::Fetch(answer)) => {
                let at = |action: &Action| action.position.0;
                let positions: Vec<u64> = answer.actions.iter().map(at).collect();
                (positions, answer.next)
            }
            other => panic!("no answer: {other:?}"),
        }
    };
    assert_eq!(fetch(1), (vec![1, 2], Some(Position(4))));
    assert_eq!(fetch(4), (vec![4, 5], None));
}

fn request() -> impl Strategy<Value = Request> {
    let value = prop_oneof![
        Just(Value::Nop { tombstone: false }),
        Just(append("x")),
        (0..9_u64).prop_map(|to| Value::Truncate { to: Position(to) }),
    ];
    let place = (1..9_u64, 1..9_u64);
    prop_oneof![
        (1..9_u64, proptest::option::of(1..9_u64)).prop_map(|(by, at)| promise(by, at)),
        (place.clone(), proptest::collection::vec(value, 1..4)).prop_map(|((by, at), values)| {
            let mut more = values;
            let value = more.remove(0);
            write_all(by, at, value, more)
        }),
        (place.clone(), any::<bool>()).prop_map(|((by, at), gone)| {
            let action = if gone {
                Action::tombstone(Position(at))
            } else {
                // One value for a position, as agreement has it.
                Action::learned(Position(at), Proposal(by), Value::Nop { tombstone: false })
            };
            learn(vec![action])
        }),
        (place, 0..4_u64).prop_map(|((by, from), more)| {
            Request::Chosen(ChosenMessage {
                chosen: Chosen {
                    proposal: Proposal(by),
                    from: Position(from),
                    through: Position(from + more),
                },
            })
        }),
    ]
}

/// A disk that takes all changes in order.
#[derive(Default)]
struct Disk(Stored);

impl Disk {
    fn apply(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Store(change) | Effect::StoreLater(change) => match change.clone() {
                    Change::Metadata(metadata) => self.0.metadata = metadata,
                    Change::Action(action) => {
                        self.0
                            .actions
                            .retain(|known| known.position != action.position);
                        self.0.actions.push(action);
                    }
                    Change::Forget { below } => {
                        self.0.actions.retain(|known| known.position >= below);
                    }
                },
                Effect::Reply(_) => {}
            }
        }
    }
}

proptest! {
    #[test]
    fn any_requests_keep_the_invariants_and_a_restart_finds_the_same(requests in proptest::collection::vec(request(), 1..60)) {
        let mut disk = Disk(voting());
        let mut replica = replica(voting());
        let mut highest = Metadata::default().promised;
        for request in requests {
            let effects = replica.step(request);
            disk.apply(&effects);
            prop_assert_eq!(replica.check(), Ok(()));
            prop_assert!(replica.metadata().promised >= highest);
            highest = replica.metadata().promised;
            let again = Replica::restore(Member::from("a"), disk.0.clone());
            prop_assert_eq!(&again, &replica);
        }
    }

    #[test]
    fn what_is_missing_is_what_a_naive_look_finds(requests in proptest::collection::vec(request(), 1..40), from in 0..12_u64, to in 0..12_u64) {
        let mut replica = replica(voting());
        for request in requests {
            replica.step(request);
        }
        let naive: Vec<u64> = (from..=to)
            .filter(|at| *at >= 1 && Position(*at) >= replica.begin())
            .filter(|at| !replica.action(Position(*at)).is_some_and(|action| action.learned))
            .collect();
        let told: Vec<u64> = replica
            .missing(span(from, to), 99)
            .into_iter()
            .flat_map(|span| span.from.0..=span.to.0)
            .collect();
        prop_assert_eq!(told, naive);
    }
}
