//! When a supervisor starts an ended child again, leaves it, or gives up.
//!
//! Pure: the time and the random source are arguments. The invariant: within any span of [`Limits::within`] there are
//! at most [`Limits::restarts`] restarts, over all children together.
//!
//! ```text
//!   runs ── ended, nothing to do about it ──────────────────────────▶ left
//!     ▲  └─ ended, to be restarted ─┬─ too many in `within` ─────────▶ gives up (the supervisor ends)
//!     └──── after a delay ──────────┘
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use rand::Rng;

use crate::backoff::Backoff;
use crate::clock::Time;
use crate::links::ExitReason;

/// Which end of a child is followed by its restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Every end: the child is to run always.
    Permanent,
    /// Only an end that nobody meant: a panic, or a failure it told itself. One that stops or is terminated is done.
    Transient,
    /// None: it runs once.
    Temporary,
}

impl Restart {
    /// Whether an end for this reason is followed by a restart.
    pub fn follows(self, reason: &ExitReason) -> bool {
        match (self, reason) {
            (Self::Permanent, _) => true,
            (Self::Temporary, _)
            | (Self::Transient, ExitReason::Normal | ExitReason::Terminated) => false,
            (
                Self::Transient,
                ExitReason::Panic(_)
                | ExitReason::Failed(_)
                | ExitReason::NoProcess
                | ExitReason::ConnectionLost
                | ExitReason::NodeRestarted
                | ExitReason::Unknown,
            ) => true,
        }
    }
}

/// How often and how soon children are restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most restarts of all children together `within` any such span; one more and the supervisor gives up.
    pub restarts: usize,
    /// The span for `restarts`. A child that has run for this long starts over with the first delay.
    pub within: Duration,
    /// Longest delay before a child's first restart; it is drawn from zero to this, and doubles with each further one.
    pub first_delay: Duration,
    /// Longest delay before any restart.
    pub longest_delay: Duration,
}

impl Default for Limits {
    /// Ten restarts within a minute, the first delay at most 100 ms, none over 10 s.
    fn default() -> Self {
        Self {
            restarts: 10,
            within: Duration::from_secs(60),
            first_delay: Duration::from_millis(100),
            longest_delay: Duration::from_secs(10),
        }
    }
}

/// What to do about an ended child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Start it again after this delay.
    Restart(Duration),
    /// It has done its work.
    Leave,
    /// It ends too often: end with this text as the reason.
    GiveUp(String),
}

struct Child {
    name: String,
    restart: Restart,
    backoff: Backoff,
    started: Time,
}

/// The state of one supervisor's decisions.
pub struct Core {
    limits: Limits,
    children: Vec<Child>,
    /// When children were restarted, not longer ago than `within`.
    restarts: VecDeque<Time>,
}

impl Core {
    /// A supervisor without children.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            children: Vec::new(),
            restarts: VecDeque::new(),
        }
    }

    /// Adds a child; its number is what the other calls mean by `child`: 0, 1, 2 …
    pub fn add(&mut self, name: &str, restart: Restart) -> usize {
        self.children.push(Child {
            name: name.to_owned(),
            restart,
            backoff: Backoff::new(self.limits.first_delay, self.limits.longest_delay),
            started: Time::ZERO,
        });
        self.children.len() - 1
    }

    /// A child has started.
    pub fn started(&mut self, child: usize, now: Time) {
        if let Some(child) = self.children.get_mut(child) {
            child.started = now;
        }
    }

    /// A child has ended, or could not be started.
    pub fn ended(
        &mut self,
        child: usize,
        reason: &ExitReason,
        now: Time,
        random: &mut impl Rng,
    ) -> Decision {
        let limits = self.limits;
        let Some(child) = self.children.get_mut(child) else {
            return Decision::Leave;
        };
        if !child.restart.follows(reason) {
            return Decision::Leave;
        }
        while self
            .restarts
            .front()
            .is_some_and(|at| now.since(*at) >= limits.within)
        {
            self.restarts.pop_front();
        }
        if self.restarts.len() >= limits.restarts {
            return Decision::GiveUp(format!(
                "{} children's restarts within {:?} are too many; the last to end was {}: {reason:?}",
                self.restarts.len() + 1,
                limits.within,
                child.name,
            ));
        }
        self.restarts.push_back(now);
        if now.since(child.started) >= limits.within {
            child.backoff.reset();
        }
        Decision::Restart(child.backoff.next(random))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const LIMITS: Limits = Limits {
        restarts: 3,
        within: Duration::from_secs(10),
        first_delay: Duration::from_secs(1),
        longest_delay: Duration::from_secs(4),
    };

    fn second(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }
    fn panicked() -> ExitReason {
        ExitReason::Panic("x".into())
    }

    #[test]
    fn each_kind_of_child_follows_its_own_ends() {
        let ends = [
            ExitReason::Normal,
            ExitReason::Terminated,
            panicked(),
            ExitReason::Failed("x".into()),
        ];
        let restarted = |restart: Restart| ends.each_ref().map(|end| restart.follows(end));
        assert_eq!(restarted(Restart::Permanent), [true; 4]);
        assert_eq!(restarted(Restart::Transient), [false, false, true, true]);
        assert_eq!(restarted(Restart::Temporary), [false; 4]);
    }

    #[test]
    fn gives_up_at_one_restart_too_many_and_only_then() {
        let mut random = StdRng::seed_from_u64(1);
        let mut core = Core::new(LIMITS);
        let one = core.add("one", Restart::Permanent);
        let other = core.add("other", Restart::Transient);
        for (child, at) in [(one, 0), (other, 1), (one, 2)] {
            let decision = core.ended(child, &panicked(), second(at), &mut random);
            assert!(matches!(decision, Decision::Restart(_)), "{decision:?}");
        }
        assert_eq!(
            core.ended(other, &ExitReason::Normal, second(3), &mut random),
            Decision::Leave
        );
        let decision = core.ended(other, &panicked(), second(9), &mut random);
        assert!(
            matches!(&decision, Decision::GiveUp(text) if text.contains("other") && text.contains("10s")),
            "{decision:?}"
        );
        // The first restart is out of the span by now.
        let decision = core.ended(one, &panicked(), second(10), &mut random);
        assert!(matches!(decision, Decision::Restart(_)), "{decision:?}");
    }

    #[test]
    fn delays_grow_with_each_restart_and_start_over_after_a_long_run() {
        let limits = Limits {
            restarts: usize::MAX,
            ..LIMITS
        };
        // Many draws, so that the longest of them shows the ceiling.
        let longest = |run: &dyn Fn(&mut Core, usize, &mut StdRng) -> Decision| {
            let draws = (0..200).map(|seed| {
                let mut random = StdRng::seed_from_u64(seed);
                let mut core = Core::new(limits);
                let child = core.add("child", Restart::Permanent);
                match run(&mut core, child, &mut random) {
                    Decision::Restart(delay) => delay,
                    Decision::Leave | Decision::GiveUp(_) => Duration::MAX,
                }
            });
            draws.max().unwrap_or_default()
        };
        let after = |ends: u64| {
            longest(&move |core, child, random| {
                (0..ends).for_each(|at| {
                    core.ended(child, &panicked(), second(at), random);
                });
                core.ended(child, &panicked(), second(ends), random)
            })
        };
        for (ends, ceiling) in [(0, 1), (1, 2), (2, 4), (5, 4)] {
            let ceiling = Duration::from_secs(ceiling);
            assert!(
                after(ends) <= ceiling && after(ends) > ceiling.mul_f64(0.9),
                "{ends}"
            );
        }
        let anew = longest(&|core, child, random| {
            (0..5).for_each(|at| {
                core.ended(child, &panicked(), second(at), random);
            });
            core.started(child, second(5));
            core.ended(child, &panicked(), second(15), random)
        });
        assert!(anew <= Duration::from_secs(1));
    }

    proptest! {
        #[test]
        fn never_more_restarts_in_a_span_than_allowed(gaps in proptest::collection::vec(0u64..6, 1..60)) {
            let mut random = StdRng::seed_from_u64(1);
            let mut core = Core::new(LIMITS);
            let child = core.add("child", Restart::Permanent);
            let (mut at, mut restarts) = (0, Vec::new());
            for gap in gaps {
                at += gap;
                if let Decision::Restart(_) = core.ended(child, &panicked(), second(at), &mut random) {
                    restarts.push(at);
                }
            }
            for first in &restarts {
                let span = restarts.iter().filter(|at| (*first..first + 10).contains(*at));
                prop_assert!(span.count() <= LIMITS.restarts);
            }
        }
    }
}
