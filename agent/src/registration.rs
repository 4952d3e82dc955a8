//! How an agent gets into the cluster and stays there.
//!
//! Pure: the random source is an argument; the shell is `handlers/master.rs`. Source: agent.md §3.
//!
//! ```text
//!            ┌─ NewLeader ─ after random(0, factor): Attempt, again after random(0, b), b = 2 factor, doubling to 1 min
//! DISCONNECTED <─┤                                        │ Accepted
//!      ^         └────────── again ──────────┐            v
//!      └── MasterLost, Ping{connected: false}, no ping in time ── RUNNING          Leave ──> TERMINATING
//! ```

use std::time::Duration;

use meseta_protocol::AgentId;
use meseta_runtime::Backoff;
use rand::{Rng, RngExt};

/// Longest time between two attempts.
const LONGEST: Duration = Duration::from_secs(60);
/// Time without a ping that counts as a lost master, until the master says another.
pub const DEFAULT_PING_TIMEOUT: Duration = Duration::from_secs(75);

/// Where the agent stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not in, or no longer.
    Disconnected,
    /// In.
    Running,
    /// Ending; it will not come back.
    Terminating,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A master leads that did not lead before, or not under this leadership.
    NewLeader,
    /// No master is known to lead.
    NoLeader,
    /// The master has taken the agent in, for the first time or again.
    Accepted {
        /// Under this id.
        id: AgentId,
        /// Time without a ping after which the master counts as lost; the default when missing.
        ping_timeout: Option<Duration>,
    },
    /// The master asks whether the agent is there.
    Ping {
        /// Whether it counts the agent as in.
        connected: bool,
    },
    /// The link to the master has broken.
    MasterLost,
    /// The time of [`Effect::ArmRetry`] with this number is over.
    RetryDue(u64),
    /// The time of [`Effect::ArmPing`] with this number is over.
    PingOverdue(u64),
    /// The agent ends.
    Leave,
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Link to the master and register: without an id the first time, with it later.
    Attempt,
    /// Come back with [`Input::RetryDue`].
    ArmRetry {
        /// After this time.
        after: Duration,
        /// Number of the timer; only the newest counts.
        number: u64,
    },
    /// Come back with [`Input::PingOverdue`].
    ArmPing {
        /// After this time.
        after: Duration,
        /// Number of the timer; only the newest counts.
        number: u64,
    },
    /// This is the agent's id from now on.
    Adopt(AgentId),
    /// Forward no updates.
    Pause,
    /// Forward updates.
    Resume,
    /// Answer the ping.
    Pong,
    /// The agent cannot go on.
    Fail(String),
}

/// The state machine.
#[derive(Debug)]
pub struct Registration {
    phase: Phase,
    id: Option<AgentId>,
    factor: Duration,
    backoff: Backoff,
    ping_timeout: Duration,
    retry_timer: u64,
    ping_timer: u64,
    /// Attempts since the agent was last in, or since it began.
    attempts: u32,
}

impl Registration {
    /// An agent that was never in. `factor` bounds the first wait.
    pub fn new(factor: Duration) -> Self {
        Self {
            phase: Phase::Disconnected,
            id: None,
            factor,
            backoff: Backoff::new(factor.saturating_mul(2), LONGEST),
            ping_timeout: DEFAULT_PING_TIMEOUT,
            retry_timer: 0,
            ping_timer: 0,
            attempts: 0,
        }
    }

    /// An agent that was in before, under this id.
    pub fn known(factor: Duration, id: AgentId) -> Self {
        Self {
            id: Some(id),
            ..Self::new(factor)
        }
    }

    /// Where the agent stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// How many attempts have had no answer when the next is made.
    pub fn unanswered(&self) -> u32 {
        self.attempts.saturating_sub(1)
    }

    /// The agent's id, once it has one.
    pub fn id(&self) -> Option<&AgentId> {
        self.id.as_ref()
    }

    /// Applies one input; effects are carried out in order.
    pub fn step(&mut self, input: Input, random: &mut impl Rng) -> Vec<Effect> {
        if self.phase == Phase::Terminating {
            return match input {
                Input::Ping { .. } => vec![Effect::Pong],
                Input::NewLeader
                | Input::NoLeader
                | Input::Accepted { .. }
                | Input::MasterLost
                | Input::RetryDue(_)
                | Input::PingOverdue(_)
                | Input::Leave => Vec::new(),
            };
        }
        match input {
            Input::NewLeader => self.start_over(random),
            Input::NoLeader => self.stand_by(),
            Input::Accepted { id, ping_timeout } => self.accepted(id, ping_timeout),
            Input::Ping { connected } => self.pinged(connected, random),
            Input::MasterLost if self.phase == Phase::Running => self.start_over(random),
            // The attempt that failed has its own timer.
            Input::MasterLost => Vec::new(),
            Input::RetryDue(number) => self.attempt(number, random),
            Input::PingOverdue(number) => {
                if number == self.ping_timer && self.phase == Phase::Running {
                    self.start_over(random)
                } else {
                    Vec::new()
                }
            }
            Input::Leave => {
                self.phase = Phase::Terminating;
                vec![Effect::Pause]
            }
        }
    }

    /// Nobody to register with: the timer that may be armed counts no more.
    fn stand_by(&mut self) -> Vec<Effect> {
        self.phase = Phase::Disconnected;
        self.retry_timer += 1;
        vec![Effect::Pause]
    }

    fn start_over(&mut self, random: &mut impl Rng) -> Vec<Effect> {
        self.phase = Phase::Disconnected;
        self.backoff.reset();
        let first = self.factor.mul_f64(random.random::<f64>());
        vec![Effect::Pause, self.arm_retry(first)]
    }

    fn attempt(&mut self, number: u64, random: &mut impl Rng) -> Vec<Effect> {
        if number != self.retry_timer || self.phase != Phase::Disconnected {
            return Vec::new();
        }
        self.attempts = self.attempts.saturating_add(1);
        let after = self.backoff.next(random);
        vec![Effect::Attempt, self.arm_retry(after)]
    }

    fn accepted(&mut self, id: AgentId, ping_timeout: Option<Duration>) -> Vec<Effect> {
        if let Some(own) = &self.id
            && *own != id
        {
            return vec![Effect::Fail(format!(
                "the master calls this agent {id}, but it is {own}: is its work directory used twice?"
            ))];
        }
        if self.phase == Phase::Running {
            return Vec::new();
        }
        self.phase = Phase::Running;
        self.attempts = 0;
        self.ping_timeout = ping_timeout
            .filter(|timeout| !timeout.is_zero())
            .unwrap_or(DEFAULT_PING_TIMEOUT);
        let mut effects = Vec::new();
        if self.id.is_none() {
            self.id = Some(id.clone());
            effects.push(Effect::Adopt(id));
        }
        effects.push(self.arm_ping());
        effects.push(Effect::Resume);
        effects
    }

    fn pinged(&mut self, connected: bool, random: &mut impl Rng) -> Vec<Effect> {
        let mut effects = vec![Effect::Pong, self.arm_ping()];
        if !connected && self.phase == Phase::Running {
            effects.extend(self.start_over(random));
        }
        effects
    }

    fn arm_retry(&mut self, after: Duration) -> Effect {
        self.retry_timer += 1;
        Effect::ArmRetry {
            after,
            number: self.retry_timer,
        }
    }

    fn arm_ping(&mut self) -> Effect {
        self.ping_timer += 1;
        Effect::ArmPing {
            after: self.ping_timeout,
            number: self.ping_timer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    struct World {
        machine: Registration,
        random: StdRng,
    }

    #[test]
    fn attempts_without_an_answer_are_counted_until_one_comes() {
        let mut world = World::new();
        world.step(Input::NewLeader);
        let mut unanswered = Vec::new();
        for number in 1..=3 {
            world.step(Input::RetryDue(number));
            unanswered.push(world.machine.unanswered());
        }
        assert_eq!(unanswered, [0, 1, 2]);
        world.accept("S0");
        world.step(Input::MasterLost);
        world.step(Input::RetryDue(5));
        assert_eq!(world.machine.unanswered(), 0);
    }

    impl World {
        fn new() -> Self {
            Self {
                machine: Registration::new(Duration::from_secs(1)),
                random: StdRng::seed_from_u64(3),
            }
        }
        fn step(&mut self, input: Input) -> Vec<Effect> {
            self.machine.step(input, &mut self.random)
        }
        fn accept(&mut self, id: &str) -> Vec<Effect> {
            self.step(Input::Accepted {
                id: id.into(),
                ping_timeout: None,
            })
        }
        fn running() -> Self {
            let mut world = Self::new();
            world.step(Input::NewLeader);
            world.accept("S0");
            world
        }
        fn retry(&mut self, effects: &[Effect]) -> (Duration, u64) {
            effects
                .iter()
                .find_map(|effect| {
                    let Effect::ArmRetry { after, number } = effect else {
                        return None;
                    };
                    Some((*after, *number))
                })
                .unwrap()
        }
    }

    #[test]
    fn attempts_come_within_a_bound_that_doubles_to_a_minute() {
        let mut world = World::new();
        let begun = world.step(Input::NewLeader);
        let (first, mut number) = world.retry(&begun);
        assert!(first <= Duration::from_secs(1));
        for bound in [2, 4, 8, 16, 32, 60, 60] {
            let effects = world.step(Input::RetryDue(number));
            assert_eq!(effects[0], Effect::Attempt);
            let (after, next) = world.retry(&effects);
            assert!(after <= Duration::from_secs(bound));
            assert_eq!(world.step(Input::RetryDue(number)), [], "an older timer");
            number = next;
        }
        assert_eq!(
            world.step(Input::MasterLost),
            [],
            "the retry is armed already"
        );
    }

    #[test]
    fn once_in_it_stops_asking_and_waits_for_pings() {
        let mut world = World::new();
        let begun = world.step(Input::NewLeader);
        let (_, number) = world.retry(&begun);
        let effects = world.accept("S0");
        assert!(matches!(
            &effects[..],
            [Effect::Adopt(_), Effect::ArmPing { after, number: 1 }, Effect::Resume] if *after == DEFAULT_PING_TIMEOUT
        ));
        assert_eq!(world.step(Input::RetryDue(number)), []);
        assert_eq!(world.accept("S0"), [], "a repeated answer");
        assert!(matches!(&world.accept("S1")[..], [Effect::Fail(_)]));
    }

    #[test]
    fn a_master_that_is_lost_silent_or_forgetful_is_registered_with_again() {
        for input in [
            Input::MasterLost,
            Input::PingOverdue(1),
            Input::Ping { connected: false },
        ] {
            let mut world = World::running();
            let effects = world.step(input);
            assert!(effects.contains(&Effect::Pause));
            assert_eq!(world.machine.phase(), Phase::Disconnected);
            let (after, number) = world.retry(&effects);
            assert!(after <= Duration::from_secs(1));
            assert!(
                world
                    .step(Input::RetryDue(number))
                    .contains(&Effect::Attempt)
            );
            let again = world.accept("S0");
            assert!(
                !again
                    .iter()
                    .any(|effect| matches!(effect, Effect::Adopt(_)))
            );
            assert_eq!(world.machine.phase(), Phase::Running);
        }
    }

    #[test]
    fn without_a_leader_it_waits_and_with_a_new_one_it_registers_again() {
        let mut world = World::running();
        assert_eq!(world.step(Input::NoLeader), [Effect::Pause]);
        assert_eq!(world.machine.phase(), Phase::Disconnected);
        assert_eq!(world.step(Input::RetryDue(1)), [], "nobody to ask");
        assert_eq!(world.step(Input::MasterLost), []);
        let found = world.step(Input::NewLeader);
        let (after, number) = world.retry(&found);
        assert!(after <= Duration::from_secs(1));
        assert_eq!(world.step(Input::RetryDue(number))[0], Effect::Attempt);
        assert_eq!(world.step(Input::NoLeader), [Effect::Pause]);
        assert_eq!(world.step(Input::RetryDue(number + 1)), []);
    }

    #[test]
    fn a_leader_that_is_followed_by_another_is_left_at_once() {
        let mut world = World::running();
        let found = world.step(Input::NewLeader);
        assert_eq!(found[0], Effect::Pause);
        assert_eq!(world.machine.phase(), Phase::Disconnected);
        assert_eq!(world.accept("S0").last(), Some(&Effect::Resume));
    }

    #[test]
    fn a_ping_is_answered_and_moves_the_deadline() {
        let mut world = World::running();
        let effects = world.step(Input::Ping { connected: true });
        assert!(matches!(
            &effects[..],
            [Effect::Pong, Effect::ArmPing { number: 2, .. }]
        ));
        assert_eq!(world.step(Input::PingOverdue(1)), []);
    }

    #[test]
    fn an_agent_that_leaves_does_not_come_back() {
        let mut world = World::running();
        assert_eq!(world.step(Input::Leave), [Effect::Pause]);
        for input in [
            Input::MasterLost,
            Input::PingOverdue(1),
            Input::RetryDue(1),
            Input::NewLeader,
        ] {
            assert_eq!(world.step(input), []);
        }
        assert_eq!(world.accept("S0"), []);
        assert_eq!(world.step(Input::Ping { connected: false }), [Effect::Pong]);
    }
}
