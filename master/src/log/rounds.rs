//! Counting the answers of one round: a promise or write that was asked of all members.
//!
//! Pure. A round ends when a quorum has accepted or rejected, or a quorum does not vote. Each member counts once. An
//! answer that a member gave in an earlier life than the round knows of does not count: the member has forgotten it.

use std::collections::{BTreeMap, BTreeSet};

use meseta_runtime::planted::mistake;

use super::action::Proposal;
use super::members::{Incarnation, Member};
use super::messages::{Verdict, Voter};

/// The members and how many of them decide.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Quorum {
    /// All members, the local one too.
    pub members: BTreeSet<Member>,
    /// How many answers decide: more than half.
    pub size: usize,
}

impl Quorum {
    /// Members with a majority of them as quorum.
    pub fn majority(members: impl IntoIterator<Item = Member>) -> Self {
        let members: BTreeSet<Member> = members.into_iter().collect();
        let size = members.len() / 2 + 1;
        Self { members, size }
    }
}

/// How a round ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Outcome<T> {
    /// A quorum accepted; what each of them said.
    Accepted(Vec<T>),
    /// Of a quorum some rejected; the highest proposal that stands against ours.
    Rejected(Proposal),
    /// A quorum does not vote.
    Ignored,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Answer<T> {
    incarnation: Incarnation,
    verdict: Verdict,
    proposal: Proposal,
    content: T,
}

/// The answers of one round so far.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Round<T> {
    answers: BTreeMap<Member, Answer<T>>,
    /// The latest incarnation of each member that any answer has named.
    latest: BTreeMap<Member, Incarnation>,
}

impl<T> Default for Round<T> {
    fn default() -> Self {
        Self {
            answers: BTreeMap::new(),
            latest: BTreeMap::new(),
        }
    }
}

impl<T: Clone> Round<T> {
    /// Counts an answer, and returns the members to ask again: their answers turned out to be of an earlier life.
    pub fn count(
        &mut self,
        quorum: &Quorum,
        from: &Member,
        voter: &Voter,
        verdict: Verdict,
        proposal: Proposal,
        content: T,
    ) -> Vec<Member> {
        if !quorum.members.contains(from) {
            return Vec::new();
        }
        for (member, incarnation) in voter.known.iter().chain([(from, &voter.incarnation)]) {
            let latest = self.latest.entry(member.clone()).or_default();
            *latest = (*latest).max(*incarnation);
        }
        let latest = &self.latest;
        let is_old = |member: &Member, incarnation: Incarnation| {
            latest
                .get(member)
                .is_some_and(|latest| incarnation < *latest)
                && !mistake("round counts former lives")
        };
        let mut again: Vec<Member> = self
            .answers
            .iter()
            .filter(|(member, answer)| *member != from && is_old(member, answer.incarnation))
            .map(|(member, _)| member.clone())
            .collect();
        self.answers
            .retain(|member, answer| !is_old(member, answer.incarnation));
        // Who does not vote is not asked again for it: one that recovers says so until it has, under its former life.
        let incarnation = match verdict {
            Verdict::Ignored => voter.incarnation.max(latest[from]),
            Verdict::Accept | Verdict::Reject => voter.incarnation,
        };
        if is_old(from, incarnation) {
            again.push(from.clone());
            return again;
        }
        // The first vote of a life counts. One that had not voted yet may have begun to.
        let voted = |answer: &Answer<T>| answer.verdict != Verdict::Ignored;
        if !self.answers.get(from).is_some_and(voted) {
            let answer = Answer {
                incarnation,
                verdict,
                proposal,
                content,
            };
            self.answers.insert(from.clone(), answer);
        }
        again
    }

    /// Members that have answered.
    pub fn heard(&self) -> impl Iterator<Item = &Member> {
        self.answers.keys()
    }

    /// Members whose vote is still missing.
    pub fn awaited<'a>(&'a self, quorum: &'a Quorum) -> impl Iterator<Item = &'a Member> {
        quorum.members.iter().filter(|member| {
            self.answers
                .get(*member)
                .is_none_or(|answer| answer.verdict == Verdict::Ignored)
        })
    }

    /// How the round ended, if it has.
    pub fn outcome(&self, quorum: &Quorum) -> Option<Outcome<T>> {
        let size = if mistake("round ends before a quorum") {
            1
        } else {
            quorum.size
        };
        let counts = |verdict: Verdict| {
            verdict != Verdict::Ignored || mistake("round counts ignored answers")
        };
        let votes: Vec<&Answer<T>> = self
            .answers
            .values()
            .filter(|answer| counts(answer.verdict))
            .collect();
        if votes.len() >= size {
            let against = votes
                .iter()
                .filter(|vote| vote.verdict == Verdict::Reject)
                .map(|vote| vote.proposal)
                .max();
            return Some(match against {
                Some(highest) if !mistake("round passes over rejections") => {
                    Outcome::Rejected(highest)
                }
                _ => Outcome::Accepted(votes.iter().map(|vote| vote.content.clone()).collect()),
            });
        }
        let ignored = self.answers.len() - votes.len();
        (ignored >= size).then_some(Outcome::Ignored)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(index: usize) -> Member {
        Member::from(["a", "b", "c", "d", "e"][index])
    }

    fn quorum() -> Quorum {
        Quorum::majority((0..5).map(member))
    }

    fn voter(incarnation: u64, known: &[(usize, u64)]) -> Voter {
        Voter {
            incarnation: Incarnation(incarnation),
            known: known
                .iter()
                .map(|(index, incarnation)| (member(*index), Incarnation(*incarnation)))
                .collect(),
        }
    }

    fn accepts(round: &mut Round<()>, index: usize, voter: &Voter) -> Vec<Member> {
        let from = member(index);
        round.count(&quorum(), &from, voter, Verdict::Accept, Proposal(1), ())
    }

    #[test]
    fn who_recovers_under_a_former_life_is_not_asked_again_until_a_newer_one_is_known() {
        let mut round = Round::default();
        assert_eq!(accepts(&mut round, 0, &voter(1, &[(1, 5)])), []);
        let ignores = |round: &mut Round<()>| {
            let former = voter(4, &[]);
            let verdict = Verdict::Ignored;
            round.count(&quorum(), &member(1), &former, verdict, Proposal(0), ())
        };
        assert_eq!(ignores(&mut round), []);
        assert_eq!(ignores(&mut round), []);
        assert_eq!(accepts(&mut round, 2, &voter(1, &[(1, 6)])), [member(1)]);
        assert_eq!(accepts(&mut round, 1, &voter(6, &[])), []);
        assert_eq!(
            round.outcome(&quorum()),
            Some(Outcome::Accepted(vec![(); 3]))
        );
    }

    #[test]
    fn a_quorum_of_different_members_decides() {
        let mut round = Round::default();
        for index in [0, 0, 1, 1, 0] {
            accepts(&mut round, index, &voter(1, &[]));
        }
        assert_eq!(round.outcome(&quorum()), None);
        assert_eq!(round.awaited(&quorum()).count(), 3);
        accepts(&mut round, 4, &voter(1, &[]));
        assert_eq!(
            round.outcome(&quorum()),
            Some(Outcome::Accepted(vec![(); 3]))
        );
    }

    #[test]
    fn one_rejection_in_a_quorum_rejects_with_the_highest_proposal() {
        let mut round = Round::default();
        accepts(&mut round, 0, &voter(1, &[]));
        for (index, by) in [(1, 7), (2, 9)] {
            let by = Proposal(by);
            let voter = voter(1, &[]);
            round.count(&quorum(), &member(index), &voter, Verdict::Reject, by, ());
        }
        assert_eq!(
            round.outcome(&quorum()),
            Some(Outcome::Rejected(Proposal(9)))
        );
    }

    #[test]
    fn a_quorum_that_does_not_vote_ends_the_round_until_it_begins_to() {
        let mut round = Round::default();
        for index in 0..3 {
            let voter = voter(1, &[]);
            let ignored = Verdict::Ignored;
            round.count(&quorum(), &member(index), &voter, ignored, Proposal(1), ());
        }
        assert_eq!(round.outcome(&quorum()), Some(Outcome::Ignored));
        accepts(&mut round, 0, &voter(1, &[]));
        assert_eq!(round.outcome(&quorum()), None);
    }

    #[test]
    fn a_stranger_does_not_count() {
        let mut round = Round::default();
        for name in ["x", "y", "z"] {
            let from = Member::from(name);
            round.count(
                &quorum(),
                &from,
                &voter(1, &[]),
                Verdict::Accept,
                Proposal(1),
                (),
            );
        }
        assert_eq!(round.outcome(&quorum()), None);
    }

    #[test]
    fn a_former_life_does_not_count_whichever_answer_comes_first() {
        let mut round = Round::default();
        accepts(&mut round, 2, &voter(1, &[]));
        assert_eq!(accepts(&mut round, 0, &voter(1, &[(2, 2)])), [member(2)]);
        accepts(&mut round, 1, &voter(1, &[]));
        assert_eq!(round.outcome(&quorum()), None);
        // The old answer once more, late; then the new life's own.
        assert_eq!(accepts(&mut round, 2, &voter(1, &[])), [member(2)]);
        assert_eq!(round.outcome(&quorum()), None);
        accepts(&mut round, 2, &voter(2, &[]));
        assert_eq!(
            round.outcome(&quorum()),
            Some(Outcome::Accepted(vec![(); 3]))
        );
    }

    proptest! {
        #[test]
        fn the_order_of_accepting_answers_does_not_matter(
            answers in proptest::collection::vec((0..5_usize, 1..4_u64, 0..5_usize, 0..4_u64), 0..8),
            order in any::<u64>(),
        ) {
            let outcome = |answers: &[(usize, u64, usize, u64)]| {
                let mut round = Round::default();
                for (from, incarnation, other, known) in answers {
                    accepts(&mut round, *from, &voter(*incarnation, &[(*other, *known)]));
                }
                round.outcome(&quorum())
            };
            let mut other = answers.clone();
            // Any order will do: rotated by the number that was drawn, then turned round.
            if !other.is_empty() {
                let by = usize::try_from(order % other.len() as u64).unwrap();
                other.rotate_left(by);
                other.reverse();
            }
            prop_assert_eq!(outcome(&answers), outcome(&other));
        }
    }
}
