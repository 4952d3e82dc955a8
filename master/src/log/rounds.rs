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
        if is_old(from, voter.incarnation) {
            again.push(from.clone());
            return again;
        }
        // The first vote of a life counts. One that had not voted yet may have begun to.
        let voted = |answer: &Answer<T>| answer.verdict != Verdict::Ignored;
        if !self.answers.get(from).is_some_and(voted) {
            let answer = Answer {
                incarnation: voter.incarnation,
                verdict,
                proposal,
                content,
            };
            self.answers.insert(from.clone(), answer);
        }
        again
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
