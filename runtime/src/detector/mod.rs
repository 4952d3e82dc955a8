//! A detector follows which of some candidates leads.
//!
//! Pure: the random source is an argument. A process that wants to follow a leader holds a [`Detector`] and feeds it what
//! happens with [`detect`]; it needs no process of its own.
//!
//! Each candidate is asked, and linked to; it answers, and tells of every change, until the link breaks. Then it is
//! asked again after a while, so that a candidate that comes later, or comes back, is found. What a candidate says has
//! a number, the epoch, which grows with every leadership: the highest one counts, and nothing of an older one ever
//! does. The invariant: the epochs of those followed never fall.
//!
//! ```text
//!   candidate: ─▶ asked ── no answer for a while ─▶ asked …       its word: leader L of epoch E, or nobody
//!                   └──── answered ── link broken ─▶ asked after a while; its word is forgotten
//! ```

pub mod candidates;
mod follow;

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;

pub use candidates::{Candidates, CandidatesError};
pub use follow::{Follower, detect};

use crate::backoff::Backoff;
use crate::pid::Pid;

/// Longest first wait before a candidate is asked again; it doubles up to [`MOST_BACKOFF`].
pub const FIRST_BACKOFF: Duration = Duration::from_millis(200);
/// Longest wait between two questions.
pub const MOST_BACKOFF: Duration = Duration::from_secs(5);

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The process has started.
    Begin,
    /// A candidate says who leads.
    Told {
        /// The candidate.
        from: Pid,
        /// The highest leadership it has heard of.
        epoch: u64,
        /// Who leads under it, if it knows somebody.
        leader: Option<Pid>,
    },
    /// The link to a process is broken, or it has ended.
    Lost(Pid),
    /// The time of [`Effect::Arm`] for this candidate and number is over.
    RetryDue(Pid, u64),
}

impl Input {
    /// What a candidate has said.
    pub fn told(from: &Pid, epoch: u64, leader: Option<Pid>) -> Self {
        let from = from.clone();
        Self::Told {
            from,
            epoch,
            leader,
        }
    }
}

/// What the process has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Link to this candidate and ask it who leads, and to be told of changes.
    Ask(Pid),
    /// Come back with [`Input::RetryDue`] after this time.
    Arm(Pid, u64, Duration),
    /// Follow this leader from now on, and nobody before; or nobody.
    Follow(Followed),
}

/// Who is followed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Followed {
    /// The highest leadership heard of. What is older is not to be listened to.
    pub epoch: u64,
    /// Who leads under it, if that is known.
    pub leader: Option<Pid>,
}

#[derive(Debug, Clone)]
struct Candidate {
    backoff: Backoff,
    retry: u64,
    /// Questions since its last answer.
    asked: u32,
    /// What it said last, while the link to it stands.
    word: Option<Followed>,
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Detector {
    fixed: Option<Pid>,
    candidates: BTreeMap<Pid, Candidate>,
    followed: Followed,
}

impl Detector {
    /// A detector that has asked nobody yet.
    pub fn new(candidates: &Candidates) -> Self {
        let (fixed, asked) = match candidates {
            Candidates::Fixed(leader) => (Some(leader.clone()), &[][..]),
            Candidates::Asked(all) => (None, &all[..]),
        };
        let candidate = |pid: &Pid| {
            let candidate = Candidate {
                backoff: Backoff::new(FIRST_BACKOFF, MOST_BACKOFF),
                retry: 0,
                asked: 0,
                word: None,
            };
            (pid.clone(), candidate)
        };
        Self {
            fixed,
            candidates: asked.iter().map(candidate).collect(),
            followed: Followed::default(),
        }
    }

    /// Who is followed now.
    pub fn followed(&self) -> &Followed {
        &self.followed
    }

    /// How often a candidate was asked since it last answered.
    pub fn unanswered(&self, candidate: &Pid) -> u32 {
        self.candidates.get(candidate).map_or(0, |one| one.asked)
    }

    /// Applies one input. Effects are carried out in order.
    pub fn step(&mut self, input: Input, random: &mut impl Rng) -> Vec<Effect> {
        match input {
            Input::Begin => self.begin(random),
            Input::Told {
                from,
                epoch,
                leader,
            } => self.told(&from, Followed { epoch, leader }),
            Input::Lost(pid) => self.lost(&pid, random),
            Input::RetryDue(pid, number) => match self.candidates.get(&pid) {
                Some(candidate) if candidate.retry == number && candidate.word.is_none() => {
                    self.ask(&pid, random)
                }
                Some(_) | None => Vec::new(),
            },
        }
    }

    fn begin(&mut self, random: &mut impl Rng) -> Vec<Effect> {
        if let Some(leader) = self.fixed.clone() {
            self.followed.leader = Some(leader);
            return vec![Effect::Follow(self.followed.clone())];
        }
        let all: Vec<Pid> = self.candidates.keys().cloned().collect();
        all.iter().flat_map(|pid| self.ask(pid, random)).collect()
    }

    /// Asks a candidate, and again if it does not answer.
    fn ask(&mut self, pid: &Pid, random: &mut impl Rng) -> Vec<Effect> {
        if let Some(candidate) = self.candidates.get_mut(pid) {
            candidate.asked = candidate.asked.saturating_add(1);
        }
        let arm = self.arm(pid, random);
        [Effect::Ask(pid.clone())].into_iter().chain(arm).collect()
    }

    fn arm(&mut self, pid: &Pid, random: &mut impl Rng) -> Option<Effect> {
        let candidate = self.candidates.get_mut(pid)?;
        candidate.retry += 1;
        // Not at once: what is down now will be down in a moment too.
        let after = FIRST_BACKOFF + candidate.backoff.next(random);
        Some(Effect::Arm(pid.clone(), candidate.retry, after))
    }

    fn told(&mut self, from: &Pid, word: Followed) -> Vec<Effect> {
        let Some(candidate) = self.candidates.get_mut(from) else {
            return Vec::new();
        };
        candidate.backoff.reset();
        candidate.asked = 0;
        candidate.word = Some(word);
        self.decide(None)
    }

    fn lost(&mut self, pid: &Pid, random: &mut impl Rng) -> Vec<Effect> {
        let Some(candidate) = self.candidates.get_mut(pid) else {
            return Vec::new();
        };
        if candidate.word.take().is_none() {
            // The attempt that failed has its own timer.
            return Vec::new();
        }
        let mut effects = self.decide(Some(pid));
        effects.extend(self.arm(pid, random));
        effects
    }

    /// Finds out whom to follow. A leader that one candidate still hears is followed, although others hear it no more.
    /// When nobody can be asked, whoever was followed stays, unless it is on the node that was just lost.
    fn decide(&mut self, lost: Option<&Pid>) -> Vec<Effect> {
        let words = || self.candidates.values().filter_map(|one| one.word.as_ref());
        let epoch = words().map(|word| word.epoch).max();
        let epoch = epoch.unwrap_or(0).max(self.followed.epoch);
        let mut newest = words().filter(|word| word.epoch == epoch).peekable();
        let unknown = newest.peek().is_none();
        let mut leader = newest.find_map(|word| word.leader.clone());
        if unknown && epoch == self.followed.epoch {
            let kept = self.followed.leader.clone();
            leader = kept.filter(|kept| lost.is_none_or(|lost| lost.address() != kept.address()));
        }
        let followed = Followed { epoch, leader };
        if followed == self.followed {
            return Vec::new();
        }
        self.followed = followed.clone();
        vec![Effect::Follow(followed)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn pid(text: &str) -> Pid {
        text.parse().unwrap()
    }
    fn election(node: u16) -> Pid {
        pid(&format!("election(1)@h:{node}"))
    }
    fn master(node: u16) -> Pid {
        pid(&format!("master@h:{node}"))
    }

    struct World {
        detector: Detector,
        random: StdRng,
    }

    impl World {
        fn of(candidates: &Candidates) -> Self {
            Self {
                detector: Detector::new(candidates),
                random: StdRng::seed_from_u64(1),
            }
        }
        fn three() -> Self {
            let mut world = Self::of(&Candidates::Asked((1..=3).map(election).collect()));
            world.step(Input::Begin);
            world
        }
        fn step(&mut self, input: Input) -> Vec<Effect> {
            self.detector.step(input, &mut self.random)
        }
        fn told(&mut self, node: u16, epoch: u64, leader: Option<u16>) -> Vec<Effect> {
            self.step(Input::Told {
                from: election(node),
                epoch,
                leader: leader.map(master),
            })
        }
    }

    fn follow(epoch: u64, leader: Option<u16>) -> Vec<Effect> {
        vec![Effect::Follow(Followed {
            epoch,
            leader: leader.map(master),
        })]
    }

    #[test]
    fn a_fixed_leader_is_followed_and_nobody_is_asked() {
        let mut world = World::of(&Candidates::Fixed(master(1)));
        assert_eq!(world.step(Input::Begin), follow(0, Some(1)));
        assert_eq!(world.step(Input::Lost(master(1))), []);
    }

    #[test]
    fn every_candidate_is_asked_until_it_answers_and_again_when_it_is_lost() {
        let mut world = World::of(&Candidates::Asked(vec![election(1), election(2)]));
        let begun = world.step(Input::Begin);
        assert!(matches!(
            &begun[..],
            [Effect::Ask(one), Effect::Arm(_, 1, _), Effect::Ask(two), Effect::Arm(_, 1, _)]
                if *one == election(1) && *two == election(2)
        ));
        world.told(1, 4, None);
        assert_eq!(world.step(Input::RetryDue(election(1), 1)), []);
        let again = world.step(Input::RetryDue(election(2), 1));
        assert!(matches!(&again[..], [Effect::Ask(_), Effect::Arm(_, 2, _)]));
        assert_eq!(world.step(Input::Lost(election(2))), [], "its timer runs");
        let lost = world.step(Input::Lost(election(1)));
        assert!(matches!(&lost[..], [Effect::Arm(_, 2, _)]), "{lost:?}");
        let again = world.step(Input::RetryDue(election(1), 2));
        assert!(matches!(&again[..], [Effect::Ask(_), Effect::Arm(_, 3, _)]));
    }

    #[test]
    fn questions_come_at_most_about_every_five_seconds() {
        let mut world = World::of(&Candidates::Asked(vec![election(1)]));
        world.step(Input::Begin);
        for number in 1..20 {
            let effects = world.step(Input::RetryDue(election(1), number));
            let [Effect::Ask(_), Effect::Arm(_, next, after)] = &effects[..] else {
                panic!("{effects:?}");
            };
            assert_eq!(*next, number + 1);
            assert!(*after >= FIRST_BACKOFF && *after <= FIRST_BACKOFF + MOST_BACKOFF);
        }
    }

    #[test]
    fn the_highest_epoch_wins_and_an_older_one_is_never_followed() {
        let mut world = World::three();
        assert_eq!(world.told(1, 5, Some(1)), follow(5, Some(1)));
        assert_eq!(world.told(2, 4, Some(2)), [], "older");
        assert_eq!(world.told(3, 6, None), follow(6, None), "5 is over");
        assert_eq!(world.told(3, 6, Some(3)), follow(6, Some(3)));
        world.step(Input::Lost(election(3)));
        assert_eq!(world.detector.followed().leader, None);
        assert_eq!(world.told(1, 5, Some(1)), [], "still older than 6");
        assert_eq!(world.told(1, 7, Some(1)), follow(7, Some(1)));
    }

    #[test]
    fn the_same_master_under_a_newer_epoch_is_another_leader() {
        let mut world = World::three();
        world.told(1, 5, Some(1));
        assert_eq!(world.told(1, 6, Some(1)), follow(6, Some(1)));
    }

    #[test]
    fn a_leader_that_one_candidate_hears_is_kept_and_one_that_none_hears_is_not() {
        let mut world = World::three();
        for node in 1..=3 {
            world.told(node, 5, Some(1));
        }
        assert_eq!(world.told(2, 5, None), []);
        assert_eq!(world.told(3, 5, None), []);
        let lost = world.step(Input::Lost(election(1)));
        assert_eq!(lost[..1], follow(5, None));
    }

    #[test]
    fn a_lost_candidate_takes_only_a_leader_of_its_own_node_along() {
        let mut world = World::of(&Candidates::Asked(vec![election(2)]));
        world.step(Input::Begin);
        world.told(2, 5, Some(1));
        let lost = world.step(Input::Lost(election(2)));
        assert!(matches!(&lost[..], [Effect::Arm(..)]), "{lost:?}");
        assert_eq!(world.detector.followed().leader, Some(master(1)));
        world.told(2, 6, Some(2));
        assert_eq!(world.step(Input::Lost(election(2)))[..1], follow(6, None));
    }

    #[test]
    fn what_strangers_say_changes_nothing() {
        let mut world = World::three();
        assert_eq!(world.told(9, 99, Some(9)), []);
        assert_eq!(world.step(Input::RetryDue(election(9), 1)), []);
    }

    proptest! {
        /// Epochs never fall, and what is followed is what some candidate has said.
        #[test]
        fn epochs_of_those_followed_never_fall(
            words in proptest::collection::vec((1u16..4, 0u64..6, proptest::option::of(1u16..4), any::<bool>()), 0..60),
        ) {
            let mut world = World::three();
            let (mut said, mut before) = (vec![None], 0);
            for (node, epoch, leader, lost) in words {
                if lost {
                    world.step(Input::Lost(election(node)));
                } else {
                    world.told(node, epoch, leader);
                    said.push(leader.map(|leader| (epoch, master(leader))));
                }
                let followed = world.detector.followed();
                prop_assert!(followed.epoch >= before);
                before = followed.epoch;
                let following = followed.leader.clone().map(|leader| (followed.epoch, leader));
                prop_assert!(said.contains(&following));
            }
        }
    }
}
