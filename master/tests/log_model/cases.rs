//! Conversations of the log with one exact outcome, delivered by hand.

use meseta_master::log::action::{Position, Proposal, Value};
use meseta_master::log::coordinator::core::{Effect as Said, Input, NotElected, Refusal};
use meseta_master::log::messages::{Request, Status};
use meseta_master::log::replica::core::ReadError;

use crate::by_hand::{Cluster, Mail, entry};
use crate::world::Source;

fn elected(epoch: u64, ending: u64) -> Said {
    Said::Elected {
        epoch: Proposal(epoch),
        ending: Position(ending),
    }
}

fn written(position: u64) -> Said {
    let position = Position(position);
    Said::Written { token: 7, position }
}

fn is_promise(mail: &Mail) -> bool {
    matches!(mail, Mail::Ask(_, _, Request::Promise(_)))
}

#[test]
fn of_racing_elections_at_most_one_wins_each_proposal_and_the_last_one_writes() {
    let mut cluster = Cluster::voting();
    // Both have the same number: each gets its own replica's promise, and the third decides.
    cluster.tell(0, Input::Elect);
    cluster.tell(1, Input::Elect);
    cluster.deliver(|mail| mail.source().node() == mail.replica());
    cluster.between(1, &[2]);
    cluster.settle();
    assert_eq!(cluster.said_by(1), [elected(1, 0)]);
    let by = Proposal(1);
    let lost = Said::NotElected(NotElected::Rejected { by });
    assert_eq!(cluster.said_by(0), std::slice::from_ref(&lost));
    // The loser tries again and wins; the winner learns of it with its next write, which nobody acknowledges.
    cluster.elect(0);
    cluster.append(1, "too late");
    cluster.settle();
    assert_eq!(cluster.said_by(0), [lost, elected(2, 0)]);
    let demoted = [elected(1, 0), Said::Lost { token: 7 }, Said::Demoted];
    assert_eq!(cluster.said_by(1), demoted);
    cluster.append(0, "in time");
    cluster.settle();
    assert_eq!(cluster.said_by(0)[2..], [written(1)]);
    assert_eq!(cluster.read(0, 1, 1), Ok(vec![entry("in time")]));
    cluster.append(1, "without election");
    let reason = Refusal::NotElected;
    assert_eq!(
        cluster.said_by(1)[3..],
        [Said::Refused { token: 7, reason }]
    );
}

#[test]
fn without_a_quorum_nothing_is_filled_and_nobody_is_elected_until_there_is_one() {
    let mut cluster = Cluster::voting();
    cluster.accepted(0, 1, 1, "half written");
    cluster.tell(0, Input::Elect);
    // Everybody promises; then only the own replica can be reached.
    cluster.deliver(|mail| !matches!(mail, Mail::Ask(_, 1 | 2, Request::Promise(request)) if request.position.is_some()));
    for _ in 0..5 {
        assert_eq!(cluster.said_by(0), []);
        assert_eq!(
            cluster.read(0, 1, 1),
            Err(ReadError::Pending {
                position: Position(1)
            })
        );
        cluster.time_passes_but(1, |mail| mail.replica() != 0);
    }
    // One other is back: that is a quorum.
    cluster.time_passes(1);
    assert_eq!(cluster.said_by(0), [elected(1, 1)]);
    assert_eq!(cluster.read(0, 1, 1), Ok(vec![entry("half written")]));
}

#[test]
fn of_inconsistent_replicas_the_value_of_the_highest_proposal_fills_the_position() {
    let mut cluster = Cluster::voting();
    cluster.accepted(0, 1, 1, "old");
    cluster.accepted(1, 2, 1, "newer");
    cluster.accepted(2, 1, 1, "old");
    // Position 2 stands nowhere, 3 on one replica.
    cluster.accepted(1, 2, 3, "alone");
    cluster.elect(0);
    // What was accepted under a higher proposal has rejected the first attempts.
    cluster.time_passes(2);
    let epoch = cluster.coordinators[0].epoch().expect("it is elected");
    assert_eq!(cluster.said_by(0), [elected(epoch.0, 3)]);
    cluster.settle();
    for node in 0..3 {
        let all = vec![entry("newer"), entry("alone")];
        assert_eq!(cluster.read(node, 1, 3), Ok(all), "replica {node}");
        let hole = cluster.replicas[node].action(Position(2));
        let nop = Value::Nop { tombstone: false };
        assert_eq!(hole.and_then(|action| action.value()), Some(&nop));
    }
}

#[test]
fn what_one_replica_has_learned_is_taken_by_the_next_coordinator() {
    let mut cluster = Cluster::voting();
    cluster.accepted(1, 1, 1, "known to one");
    cluster.announced(2, 1, 1, "known to one");
    // The others would have it otherwise, and do not know better.
    cluster.accepted(0, 1, 2, "later");
    cluster.elect(0);
    assert_eq!(cluster.said_by(0).last(), Some(&elected(1, 2)));
    let all = vec![entry("known to one"), entry("later")];
    assert_eq!(cluster.read(0, 1, 2), Ok(all));
}

#[test]
fn what_one_replica_has_learned_is_read_there_while_the_others_catch_up() {
    let mut cluster = Cluster::voting();
    cluster.accepted(1, 1, 1, "known to one");
    cluster.announced(2, 1, 1, "known to one");
    assert_eq!(cluster.read(2, 1, 1), Ok(vec![entry("known to one")]));
    let end = Position(0);
    assert_eq!(cluster.read(0, 1, 1), Err(ReadError::BeyondEnd { end }));
    cluster.elect(2);
    cluster.append(2, "next");
    cluster.settle();
    cluster.time_passes(1);
    assert_eq!(
        cluster.read(2, 1, 2),
        Ok(vec![entry("known to one"), entry("next")])
    );
    // The others accepted what is next, and still miss what only one had learned.
    let position = Position(1);
    assert_eq!(cluster.read(0, 1, 2), Err(ReadError::Pending { position }));
    cluster.elect(0);
    assert_eq!(
        cluster.read(0, 1, 2),
        Ok(vec![entry("known to one"), entry("next")])
    );
}

#[test]
fn empty_disks_become_a_log_only_when_all_are_there() {
    let mut cluster = Cluster::empty();
    cluster.deliver(|mail| mail.replica() != 2 && mail.source() != Source::Recovery(2));
    cluster.time_passes_but(3, |mail| {
        mail.replica() == 2 || mail.source() == Source::Recovery(2)
    });
    for node in [0, 1] {
        assert_eq!(cluster.replicas[node].status(), Status::Empty);
    }
    cluster.time_passes(4);
    for node in 0..3 {
        assert_eq!(cluster.replicas[node].status(), Status::Voting);
    }
    cluster.elect(1);
    assert_eq!(cluster.said_by(1), [elected(1, 0)]);
}

#[test]
fn a_wiped_replica_fetches_what_is_learned_and_votes_in_a_new_life() {
    let mut cluster = Cluster::voting();
    cluster.elect(0);
    for text in ["one", "two", "three"] {
        cluster.append(0, text);
        cluster.settle();
    }
    cluster.tell(
        0,
        Input::Truncate {
            token: 7,
            to: Position(2),
        },
    );
    cluster.settle();
    cluster.time_passes(1);
    cluster.wipe(1);
    assert_eq!(cluster.replicas[1].status(), Status::Empty);
    cluster.settle();
    let replica = &cluster.replicas[1];
    assert_eq!(replica.status(), Status::Voting);
    assert_eq!(replica.metadata().life.incarnation.0, 2);
    assert_eq!(replica.metadata().promised, Proposal(1));
    assert_eq!((replica.begin(), replica.end()), (Position(2), Position(4)));
    assert_eq!(
        cluster.read(1, 2, 4),
        Ok(vec![entry("two"), entry("three")])
    );
    let begin = Position(2);
    assert_eq!(cluster.read(1, 1, 4), Err(ReadError::Truncated { begin }));
}

#[test]
fn several_writes_are_under_way_and_acknowledged_in_their_order() {
    let mut cluster = Cluster::voting();
    cluster.elect(0);
    cluster.append(0, "one");
    cluster.append(0, "two");
    let second = |mail: &Mail| match mail {
        Mail::Ask(_, _, Request::Write(write)) => write.position == Position(2),
        Mail::Ask(..) => false,
        Mail::Answer(..) => true,
    };
    cluster.deliver(second);
    assert_eq!(cluster.said_by(0), [elected(1, 0)]);
    cluster.settle();
    assert_eq!(cluster.said_by(0)[1..], [written(1), written(2)]);
}

fn round(mail: &Mail) -> Option<(Position, Position)> {
    match mail {
        Mail::Ask(_, 0, Request::Write(write)) => Some((write.position, write.last())),
        Mail::Ask(..) | Mail::Answer(..) => None,
    }
}

#[test]
fn what_comes_while_two_rounds_are_under_way_leaves_together_when_one_ends() {
    let mut cluster = Cluster::voting();
    cluster.elect(0);
    for text in ["one", "two", "three", "four", "five"] {
        cluster.append(0, text);
    }
    let one = |at| (Position(at), Position(at));
    let rounds: Vec<_> = cluster.mail.iter().filter_map(round).collect();
    assert_eq!(rounds, [one(1), one(2)]);
    // The first round reaches a quorum and ends: one more begins, with all that waits.
    let first = |mail: &Mail| match mail {
        Mail::Ask(_, to, Request::Write(write)) => write.position == Position(1) && *to != 2,
        Mail::Ask(..) => false,
        Mail::Answer(..) => true,
    };
    cluster.deliver(first);
    assert_eq!(cluster.said_by(0)[1..], [written(1)]);
    let rounds: Vec<_> = cluster.mail.iter().filter_map(round).collect();
    assert_eq!(rounds, [one(2), (Position(3), Position(5))]);
    cluster.settle();
    assert_eq!(cluster.said_by(0)[1..], [1, 2, 3, 4, 5].map(written));
    let all = ["one", "two", "three", "four", "five"].map(entry);
    assert_eq!(cluster.read(0, 1, 5), Ok(all.to_vec()));
}

#[test]
fn a_replica_that_takes_the_first_of_several_values_for_the_only_one_has_not_accepted_them() {
    let mut cluster = Cluster::voting();
    cluster.elect(0);
    for text in ["one", "two", "three", "four"] {
        cluster.append(0, text);
    }
    let earlier = |mail: &Mail| match mail {
        Mail::Ask(_, _, Request::Write(write)) => write.position < Position(3),
        Mail::Ask(..) => false,
        Mail::Answer(..) => true,
    };
    cluster.deliver(earlier);
    assert_eq!(cluster.said_by(0)[1..], [written(1), written(2)]);
    // Nobody reads what stands behind the first value.
    for mail in &mut cluster.mail {
        if let Mail::Ask(_, _, Request::Write(write)) = mail {
            write.more.clear();
        }
    }
    cluster.settle();
    assert_eq!(cluster.said_by(0)[3..], []);
    cluster.time_passes(1);
    assert_eq!(cluster.said_by(0)[3..], [written(3), written(4)]);
}

#[test]
fn a_lost_leadership_loses_what_waits_too() {
    let mut cluster = Cluster::voting();
    cluster.elect(0);
    for text in ["one", "two", "three", "four"] {
        cluster.append(0, text);
    }
    cluster.tell(0, Input::Resign);
    assert_eq!(cluster.said_by(0)[1..5], vec![Said::Lost { token: 7 }; 4]);
    assert_eq!(cluster.said_by(0)[5..], [Said::Demoted]);
}

#[test]
fn a_lost_write_is_sent_again_and_takes_no_second_place() {
    let mut cluster = Cluster::voting();
    cluster.elect(0);
    cluster.append(0, "one");
    cluster.lose();
    cluster.time_passes(1);
    assert_eq!(cluster.said_by(0)[1..], [written(1)]);
    assert_eq!(cluster.read(0, 1, 1), Ok(vec![entry("one")]));
    assert_eq!(cluster.replicas[0].end(), Position(1));
}

#[test]
fn an_election_that_nobody_answers_ends_in_time() {
    let mut cluster = Cluster::voting();
    cluster.tell(0, Input::Elect);
    cluster.between(0, &[0]);
    assert!(cluster.mail.iter().all(is_promise));
    cluster.lose();
    cluster.time_passes(1);
    assert_eq!(cluster.said_by(0), [Said::NotElected(NotElected::TimedOut)]);
}
