//! A wrong turn in each rule, and what finds it: the model, or a conversation delivered by hand. Neither finds anything
//! where no wrong turn is taken.

use std::fmt::Debug;

use meseta_master::log::action::{Action, Performed, Position, Proposal, Value};
use meseta_master::log::catchup::{Settled, to_write};
use meseta_master::log::coordinator::core::{Effect as Said, Input};
use meseta_master::log::members::Incarnation;
use meseta_master::log::messages::{
    ChosenMessage, LearnedMessage, PromiseRequest, Request, Response, Span, Status, Verdict,
    WriteRequest,
};
use meseta_master::log::recovery::{Decision, decision};
use meseta_runtime::planted::plant;

use crate::by_hand::{Cluster, Mail, entry};
use crate::world::{Source, World, Write, member, quorum};
use crate::{check, world};

/// What finds a mistake.
enum Finder {
    /// The model of this world breaks this law.
    Model(World, &'static str),
    /// This conversation does not end as it should.
    Scene(fn() -> Result<(), String>),
}

fn crash() -> World {
    World {
        writes: vec![Write::Append],
        crashes: 1,
        ..world()
    }
}

fn wipe() -> World {
    World {
        writes: vec![Write::Append],
        wipes: 1,
        ..world()
    }
}

fn truncation() -> World {
    World {
        writes: vec![Write::Append, Write::Truncate],
        ..world()
    }
}

fn table() -> Vec<(&'static str, Finder)> {
    use Finder::{Model, Scene};
    vec![
        (
            "replica answers before it stores",
            Model(crash(), "L-4 synced first"),
        ),
        (
            "replica promises in memory only",
            Model(crash(), "L-4 synced first"),
        ),
        (
            "replica promises one proposal twice",
            Model(world(), "L-1 agreement"),
        ),
        (
            "replica accepts lower writes",
            Model(world(), "L-6 demoted is not acknowledged"),
        ),
        (
            "replica refuses an equal write",
            Scene(a_lone_writer_writes),
        ),
        (
            "replica accepts without a promise",
            Scene(an_accepted_value_keeps_lower_ones_out),
        ),
        (
            "replica accepts what is truncated",
            Scene(nothing_is_written_where_it_is_truncated),
        ),
        (
            "replica votes while empty",
            Model(wipe(), "L-5 only voters vote"),
        ),
        (
            "replica truncates too much",
            Model(truncation(), "L-7 truncation hides nothing else"),
        ),
        (
            "replica learns whatever stands there",
            Scene(a_watermark_covers_its_own_proposal_only),
        ),
        ("replica reads over gaps", Model(world(), "L-8 no gaps")),
        (
            "replica forgets lives",
            Scene(a_promise_of_a_former_life_elects_nobody),
        ),
        (
            "round counts former lives",
            Scene(a_promise_of_a_former_life_elects_nobody),
        ),
        (
            "recovery keeps a life that is taken",
            Scene(a_promise_of_a_former_life_elects_nobody),
        ),
        (
            "recovery counts former lives",
            Scene(who_began_anew_does_not_vouch_for_its_former_life),
        ),
        (
            "recovery adopts no promise",
            Scene(a_wiped_replica_keeps_its_promise),
        ),
        (
            "recovery adopts no lives",
            Scene(a_wiped_replica_knows_who_began_anew),
        ),
        (
            "recovery votes before it has caught up",
            Scene(a_wiped_replica_votes_when_it_knows_the_log),
        ),
        (
            "recovery starts without all members",
            Scene(all_must_be_empty_to_begin_a_log),
        ),
        (
            "round ends before a quorum",
            Model(world(), "L-1 agreement"),
        ),
        (
            "round counts ignored answers",
            Scene(who_does_not_vote_elects_nobody),
        ),
        (
            "round passes over rejections",
            Model(world(), "L-1 agreement"),
        ),
        (
            "fill skips the accepted value",
            Model(world(), "L-1 agreement"),
        ),
        (
            "fill takes the lowest accepted value",
            Scene(the_highest_accepted_value_is_taken),
        ),
        (
            "coordinator fills above the end only",
            Model(world(), "L-2 acknowledged stays"),
        ),
        (
            "coordinator acknowledges out of order",
            Scene(writes_are_acknowledged_in_their_order),
        ),
    ]
}

/// Runs a finder without its panic counting as one of the test: a check that fails inside a conversation finds, too.
fn found(finder: &Finder) -> Option<String> {
    match finder {
        Finder::Model(world, law) => {
            let broken = check(world).broken;
            println!("  breaks {broken:?}");
            broken.into_iter().find(|broken| broken == law)
        }
        Finder::Scene(scene) => match std::panic::catch_unwind(scene) {
            Ok(result) => result.err(),
            Err(_) => Some("a check inside has failed".to_owned()),
        },
    }
}

#[test]
fn every_seeded_mistake_is_found_and_nothing_is_found_without_one() {
    let mut missed = Vec::new();
    for (mistake, finder) in table() {
        let finder = match finder {
            Finder::Model(world, law) => {
                let mistake = Some(mistake);
                Finder::Model(World { mistake, ..world }, law)
            }
            Finder::Scene(scene) => {
                assert_eq!(scene(), Ok(()), "without `{mistake}`");
                Finder::Scene(scene)
            }
        };
        let planted = plant(mistake);
        let found = found(&finder);
        drop(planted);
        println!("{mistake}: {}", found.as_deref().unwrap_or("NOT FOUND"));
        if found.is_none() {
            missed.push(mistake);
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

fn expect<T: PartialEq + Debug>(what: &str, is: T, should: T) -> Result<(), String> {
    if is == should {
        return Ok(());
    }
    Err(format!("{what}: {is:?} instead of {should:?}"))
}

fn has_written(cluster: &Cluster, node: usize) -> bool {
    let written = |said: &Said| matches!(said, Said::Written { .. });
    cluster.said_by(node).iter().any(written)
}

fn a_lone_writer_writes() -> Result<(), String> {
    let mut cluster = Cluster::voting();
    cluster.elect(0);
    cluster.append(0, "one");
    cluster.settle();
    expect("written", has_written(&cluster, 0), true)
}

fn write(proposal: u64, position: u64, text: &'static str) -> Request {
    WriteRequest {
        ask: 0,
        proposal: Proposal(proposal),
        position: Position(position),
        value: Value::Append { bytes: entry(text) },
        more: Vec::new(),
        chosen: None,
    }
    .into()
}

fn verdict(response: Option<Response>) -> Option<Verdict> {
    match response? {
        Response::Promise(answer) => Some(answer.verdict),
        Response::Write(answer) => Some(answer.verdict),
        Response::Recover(_) | Response::Fetch(_) | Response::Status(_) => None,
    }
}

fn an_accepted_value_keeps_lower_ones_out() -> Result<(), String> {
    let mut cluster = Cluster::voting();
    let first = cluster.ask(0, write(5, 1, "chosen"));
    expect("first", verdict(first), Some(Verdict::Accept))?;
    let lower = cluster.ask(0, write(3, 1, "late"));
    expect("lower", verdict(lower), Some(Verdict::Reject))
}

fn nothing_is_written_where_it_is_truncated() -> Result<(), String> {
    let mut cluster = Cluster::voting();
    let value = Value::Truncate { to: Position(4) };
    let actions = vec![Action::learned(Position(4), Proposal(2), value)];
    cluster.ask(0, LearnedMessage { actions }.into());
    expect("begin", cluster.replicas[0].begin(), Position(4))?;
    let late = cluster.ask(0, write(9, 3, "late"));
    expect("late", verdict(late), Some(Verdict::Reject))
}

fn a_watermark_covers_its_own_proposal_only() -> Result<(), String> {
    let mut cluster = Cluster::voting();
    cluster.accepted(0, 3, 1, "of another");
    cluster.accepted(0, 4, 2, "its own");
    let chosen = meseta_master::log::messages::Chosen {
        proposal: Proposal(4),
        from: Position(1),
        through: Position(2),
    };
    cluster.ask(0, ChosenMessage { chosen }.into());
    let learned = |at| {
        cluster.replicas[0]
            .action(Position(at))
            .map(|action| action.learned)
    };
    expect("of another", learned(1), Some(false))?;
    expect("its own", learned(2), Some(true))
}

/// `a` has the promise of `c` and waits for one more; `c` is wiped and helps to choose another's value.
fn a_promise_of_a_former_life_elects_nobody() -> Result<(), String> {
    let mut cluster = Cluster::voting();
    cluster.tell(0, Input::Elect);
    cluster.deliver(|mail| matches!(mail, Mail::Ask(Source::Writer(0), _, Request::Status(_))));
    cluster.deliver(|mail| {
        matches!(
            mail,
            Mail::Answer(Source::Writer(0), _, Response::Status(_))
        )
    });
    // Its first number goes nowhere, so the second is higher than what `b` will take.
    cluster.lose();
    cluster.time_passes(1);
    cluster.tell(0, Input::Elect);
    cluster.deliver(|mail| {
        mail.source() == Source::Writer(0)
            && mail.replica() == 0
            && !matches!(mail, Mail::Ask(_, _, Request::Promise(_)))
    });
    cluster.between(0, &[2]);
    cluster.wipe(2);
    cluster.deliver(|mail| mail.source() == Source::Recovery(2));
    expect("c votes", cluster.replicas[2].status(), Status::Voting)?;
    cluster.tell(1, Input::Elect);
    cluster.between(1, &[1, 2]);
    cluster.append(1, "acknowledged");
    cluster.between(1, &[1, 2]);
    expect("b has written", has_written(&cluster, 1), true)?;
    cluster.between(0, &[0]);
    let elected = cluster.coordinators[0].is_elected();
    expect("a is elected by a vote of the past", elected, false)
}

/// `b` is wiped while `c` recovers: what `b` said before does not help `c`.
fn who_began_anew_does_not_vouch_for_its_former_life() -> Result<(), String> {
    let mut cluster = Cluster::voting();
    let asks = |asker, asked| {
        move |mail: &Mail| mail.source() == Source::Recovery(asker) && mail.replica() == asked
    };
    cluster.wipe(2);
    cluster.deliver(asks(2, 1));
    cluster.wipe(1);
    cluster.deliver(asks(1, 0));
    cluster.deliver(asks(2, 0));
    expect(
        "c takes b's word",
        cluster.replicas[2].status(),
        Status::Empty,
    )
}

/// `a` is elected by `c`'s promise; `c` is wiped; an older proposal of `b` must not write through it.
fn a_wiped_replica_keeps_its_promise() -> Result<(), String> {
    let mut cluster = Cluster::voting();
    let promise = |proposal| PromiseRequest {
        ask: 0,
        proposal: Proposal(proposal),
        position: None,
    };
    cluster.ask(0, promise(5).into());
    cluster.ask(2, promise(5).into());
    cluster.wipe(2);
    cluster.settle();
    expect("c votes", cluster.replicas[2].status(), Status::Voting)?;
    let old = cluster.ask(2, promise(3).into());
    expect("old", verdict(old), Some(Verdict::Reject))
}

fn a_wiped_replica_knows_who_began_anew() -> Result<(), String> {
    let mut cluster = Cluster::voting();
    cluster.wipe(1);
    cluster.settle();
    cluster.wipe(2);
    cluster.settle();
    let known = cluster.replicas[2]
        .metadata()
        .lives
        .get(&member(1))
        .incarnation;
    expect("known", known, Incarnation(2))
}

fn a_wiped_replica_votes_when_it_knows_the_log() -> Result<(), String> {
    let mut cluster = Cluster::voting();
    cluster.elect(0);
    cluster.append(0, "one");
    cluster.settle();
    cluster.wipe(2);
    cluster.settle();
    expect("c votes", cluster.replicas[2].status(), Status::Voting)?;
    let span = Span {
        from: Position(1),
        to: Position(1),
    };
    let mut later = Cluster::voting();
    later.elect(0);
    later.append(0, "one");
    later.settle();
    later.wipe(2);
    // It hears how the others stand, and nothing more.
    later.deliver(|mail| {
        matches!(mail, Mail::Ask(Source::Recovery(2), _, Request::Recover(_)))
            || matches!(
                mail,
                Mail::Answer(Source::Recovery(2), _, Response::Recover(_))
            )
    });
    let missing = later.replicas[2].missing(span, 1);
    let votes = later.replicas[2].status() == Status::Voting;
    expect(
        "it misses what it votes on",
        votes && !missing.is_empty(),
        false,
    )
}

fn all_must_be_empty_to_begin_a_log() -> Result<(), String> {
    let answers = [Status::Empty, Status::Empty].into_iter();
    let decided = decision(Status::Empty, true, &quorum(), answers);
    expect("decided", decided, Decision::Wait)
}

fn who_does_not_vote_elects_nobody() -> Result<(), String> {
    let mut cluster = Cluster::empty();
    cluster.deliver(|mail| !matches!(mail.source(), Source::Recovery(_)));
    cluster.elect(0);
    expect("elected", cluster.coordinators[0].is_elected(), false)
}

fn the_highest_accepted_value_is_taken() -> Result<(), String> {
    let accepted = |by, text| {
        Some(Action {
            position: Position(1),
            promised: Proposal(9),
            performed: Some(Performed {
                by: Proposal(by),
                value: Value::Append { bytes: entry(text) },
            }),
            learned: false,
        })
    };
    let taken = to_write(vec![accepted(2, "old"), None, accepted(4, "new")]);
    let bytes = entry("new");
    expect("taken", taken, Settled::Open(Value::Append { bytes }))
}

fn writes_are_acknowledged_in_their_order() -> Result<(), String> {
    let mut cluster = Cluster::voting();
    cluster.elect(0);
    cluster.append(0, "one");
    cluster.append(0, "two");
    cluster.deliver(|mail| match mail {
        Mail::Ask(_, _, Request::Write(write)) => write.position == Position(2),
        Mail::Ask(..) => false,
        Mail::Answer(..) => true,
    });
    expect("the second alone", has_written(&cluster, 0), false)
}
