//! One peer of a transport: when it is dialled, which of several connections counts, and what a loss means.
//!
//! Pure: no clock, no network, no random source of its own. The shell is `transport/quic`, which feeds inputs in
//! the order in which they happen and carries effects out in the order given. `now` is the time since the
//! transport's start.
//!
//! ```text
//!            send                 answered
//!   Idle ─────────────▶ Dialling ──────────▶ Connected ──▶ Idle   closed: queue dropped, lost told
//!     ▲  ▲                │   ▲                 ▲   │
//!     │  └── grace over ──┤   │ due             │   └─▶ Connected  a newer connection: lost told for the older
//!     │                   ▼   │                 │
//!     └── grace over ── Waiting ────────────────┘ incoming (from Idle and Dialling too)
//!
//!   Connected ──▶ Idle   left: both sides agreed that nobody uses it; nothing is dropped, no loss is told
//! ```
//!
//! Invariants: at most one connection of a peer may carry frames. Each connection that was attached is followed by
//! exactly one `Lost`, before the next is attached. Frames wait only while a dial is under way or will be made, and
//! never longer than the connect grace; what waited when it ran out, or when a connection is lost, is dropped and
//! never sent again.
//!
//! **Both dial at once.** The dial of the smaller address (order of the texts) wins; the other is refused as a
//! duplicate, and its dialler waits for the incoming one. A dial may also arrive *late*, when its dialler has
//! already settled for the other connection. Each Hello therefore carries the number of its dial and the last dial
//! of the other side that was accepted, so that the receiver can tell a late dial (refused) from a newer one
//! (replaces the older connection).

use std::time::Duration;

use rand::Rng;

use super::{PeerKey, SendError};
use crate::backoff::Backoff;
use crate::codec::Class;
use crate::transport::{Incarnation, Loss};

/// First ceiling of the delay between two dials.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
/// Largest ceiling of the delay between two dials.
const MOST_BACKOFF: Duration = Duration::from_secs(10);
/// How long a dialler that was refused as a duplicate waits for the other's connection before it dials again.
const INVITED: Duration = Duration::from_secs(1);
/// A connection that stood this long was a good one: the next dial starts with the shortest back-off.
const GOOD_CONNECTION: Duration = Duration::from_secs(10);

/// Number of a connection, unique within one transport.
pub(crate) type ConnectionId = u64;

/// A dial as the peer sees it: dials of one run of a node are numbered upwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct DialId {
    /// Run of the dialling node.
    pub(crate) incarnation: Incarnation,
    /// Its number.
    pub(crate) number: u64,
}

/// What a peer's Hello says, as far as it decides about connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Run of the peer.
    pub(crate) incarnation: Incarnation,
    /// Whether the peer can be dialled.
    pub(crate) dialable: bool,
    /// Number of this dial when the peer dialled; 0 when it answers.
    pub(crate) dial: u64,
    /// The last dial of ours that the peer had accepted when it said Hello.
    pub(crate) accepted: Option<DialId>,
}

/// What happens to a peer, but for [`Peer::admit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// The peer answered our dial.
    Answered {
        /// Which dial.
        dial: u64,
        /// The connection.
        connection: ConnectionId,
        /// The peer's Hello.
        facts: Facts,
    },
    /// Our dial ended without an answer.
    DialFailed {
        /// Which dial.
        dial: u64,
        /// Whether the peer refused it because a connection stands or comes.
        duplicate: bool,
    },
    /// The peer dialled and said Hello.
    Incoming {
        /// The connection.
        connection: ConnectionId,
        /// The peer's Hello.
        facts: Facts,
    },
    /// A connection ended.
    Closed {
        /// Which one.
        connection: ConnectionId,
    },
    /// The timer armed last is due.
    Due {
        /// Its number.
        timer: u64,
    },
    /// We propose to the peer to end a connection that nobody uses. Frames wait until it answers.
    Leaving {
        /// Which one.
        connection: ConnectionId,
    },
    /// The peer would rather keep it.
    Stay {
        /// Which one.
        connection: ConnectionId,
    },
    /// Both sides have agreed to end it, and nothing is under way on it.
    Left {
        /// Which one.
        connection: ConnectionId,
    },
    /// The transport ends.
    Shutdown,
}

/// What the shell does, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Dial the peer; report `Answered` or `DialFailed` with this number.
    Dial {
        /// Its number.
        dial: u64,
    },
    /// End the dial under way; nothing of it need be reported.
    CancelDial,
    /// Report `Due` with this number after a while. Replaces an earlier timer.
    Arm {
        /// Its number.
        timer: u64,
        /// How long from now.
        after: Duration,
    },
    /// The connection carries frames from now on; an incoming one is answered with our Hello first.
    Attach {
        /// Which one.
        connection: ConnectionId,
    },
    /// The connection is not needed: close it as a duplicate. It was never attached.
    Refuse {
        /// Which one.
        connection: ConnectionId,
    },
    /// Close the connection: a newer one takes its place. Nothing read from it may be delivered any more.
    Supersede {
        /// Which one.
        connection: ConnectionId,
    },
    /// The connection has been left: nothing is sent or delivered on it any more, and what waits goes to the next.
    Detach,
    /// Drop and count all frames queued for the peer.
    DropQueued,
    /// Tell the node that the peer is lost.
    Lost(Loss),
}

/// Why a frame is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The queue is full.
    Full,
    /// There is no connection and none can be made from here.
    Unreachable,
}

impl Refusal {
    /// As the sender is told of it, when `queued` bytes wait for the peer.
    pub(crate) fn told(self, peer: &PeerKey, queued: usize) -> SendError {
        match self {
            Self::Full => SendError::QueueFull {
                peer: peer.clone(),
                queued,
            },
            Self::Unreachable => SendError::Unreachable(peer.clone()),
        }
    }
}

/// Which peer, and what the rules for it are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Run of our own node.
    pub(crate) incarnation: Incarnation,
    /// Whether the peer may be dialled from here, as far as is known before its first Hello.
    pub(crate) may_dial: bool,
    /// Whether our dial wins when both dial at once: our address is the smaller one.
    pub(crate) wins: bool,
    /// How long frames wait for a connection.
    pub(crate) grace: Duration,
    /// How many bytes may wait for the peer. A single frame may be larger when nothing else waits.
    pub(crate) max_queue: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No connection, nothing waits.
    Idle,
    /// A dial is under way; frames wait until `give_up`.
    Dialling { dial: u64, give_up: Duration },
    /// The next dial is due at `retry`, unless that is after `give_up`.
    Waiting { retry: Duration, give_up: Duration },
    /// A connection carries frames.
    Connected {
        connection: ConnectionId,
        incarnation: Incarnation,
        dialled: Dialled,
        since: Duration,
        /// Whether we have proposed to end it.
        leaving: bool,
    },
    /// The transport has ended.
    Ended,
}

/// Who dialled a connection, and the number of that dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialled {
    ByUs(u64),
    ByPeer(u64),
}

/// State of one peer.
#[derive(Debug)]
pub(crate) struct Peer {
    rules: Rules,
    phase: Phase,
    /// False from the first Hello on that says so, until one that says otherwise.
    dialable: bool,
    /// Number of the last dial.
    dials: u64,
    /// Number of the last timer.
    timers: u64,
    backoff: Backoff,
    /// No dial before this.
    not_before: Duration,
    /// The last dial of the peer that was accepted.
    accepted: Option<DialId>,
}

impl Peer {
    /// A peer that nothing is known of. Dials are numbered from `first_dial` upwards; a transport that forgets a
    /// peer and meets it again gives a larger number.
    pub(crate) fn new(rules: Rules, first_dial: u64) -> Self {
        Self {
            rules,
            phase: Phase::Idle,
            dialable: true,
            dials: first_dial,
            timers: 0,
            backoff: Backoff::new(FIRST_BACKOFF, MOST_BACKOFF),
            not_before: Duration::ZERO,
            accepted: None,
        }
    }

    /// Whether a frame of `bytes` may be queued when `queued` bytes wait already. Starts a dial when one is needed;
    /// the effects are empty when a connection stands.
    pub(crate) fn admit(
        &mut self,
        now: Duration,
        bytes: usize,
        queued: usize,
    ) -> Result<Vec<Effect>, Refusal> {
        // A peer that cannot be reached is said to be so, however much waits.
        self.reach()?;
        if self.is_full(bytes, queued) {
            return Err(Refusal::Full);
        }
        self.admit_notice(now)
    }

    fn reach(&self) -> Result<(), Refusal> {
        match self.phase {
            Phase::Ended => Err(Refusal::Unreachable),
            Phase::Idle if !(self.rules.may_dial && self.dialable) => Err(Refusal::Unreachable),
            Phase::Idle
            | Phase::Dialling { .. }
            | Phase::Waiting { .. }
            | Phase::Connected { .. } => Ok(()),
        }
    }

    /// As [`Peer::admit`], for the frames that keep links: they are small, and each link must end in exactly one
    /// notice, so a full queue takes them all the same.
    pub(crate) fn admit_notice(&mut self, now: Duration) -> Result<Vec<Effect>, Refusal> {
        self.reach()?;
        if self.phase != Phase::Idle {
            return Ok(Vec::new());
        }
        let give_up = now + self.rules.grace;
        Ok(if self.not_before > now {
            self.wait(now, self.not_before, give_up)
        } else {
            self.dial(now, give_up)
        })
    }

    /// Whether there is room and a way for a frame of this class, as [`Peer::admit`] and [`Peer::admit_notice`] say; the
    /// time is looked at only without a connection.
    pub(crate) fn admit_class(
        &mut self,
        now: impl FnOnce() -> Duration,
        class: Class,
        bytes: usize,
        queued: usize,
    ) -> Result<Vec<Effect>, Refusal> {
        let bounded = matches!(class, Class::Message { .. });
        match (self.is_connected(), bounded) {
            (true, true) if self.is_full(bytes, queued) => Err(Refusal::Full),
            (true, _) => Ok(Vec::new()),
            (false, true) => self.admit(now(), bytes, queued),
            (false, false) => self.admit_notice(now()),
        }
    }

    /// How many bytes may wait for the peer.
    pub(crate) fn max_queue(&self) -> usize {
        self.rules.max_queue
    }

    /// Whether a frame of at least `bytes` has no room beside `queued` bytes that wait.
    pub(crate) fn is_full(&self, bytes: usize, queued: usize) -> bool {
        queued > 0 && queued.saturating_add(bytes) > self.rules.max_queue
    }

    /// Applies one input.
    pub(crate) fn step(
        &mut self,
        now: Duration,
        random: &mut impl Rng,
        input: Input,
    ) -> Vec<Effect> {
        match input {
            Input::Answered {
                dial,
                connection,
                facts,
            } => self.answered(now, dial, connection, &facts),
            Input::DialFailed { dial, duplicate } => self.dial_failed(now, random, dial, duplicate),
            Input::Incoming { connection, facts } => self.incoming(now, connection, &facts),
            Input::Closed { connection } => self.closed(now, random, connection),
            Input::Due { timer } if timer == self.timers => self.due(now, random),
            Input::Due { .. } => Vec::new(),
            Input::Leaving { connection } => self.set_leaving(connection, true),
            Input::Stay { connection } => self.set_leaving(connection, false),
            Input::Left { connection } => self.left(connection),
            Input::Shutdown => self.shutdown(),
        }
    }

    fn set_leaving(&mut self, which: ConnectionId, value: bool) -> Vec<Effect> {
        if let Phase::Connected {
            connection,
            leaving,
            ..
        } = &mut self.phase
            && *connection == which
        {
            *leaving = value;
        }
        Vec::new()
    }

    fn left(&mut self, which: ConnectionId) -> Vec<Effect> {
        if matches!(self.phase, Phase::Connected { connection, .. } if connection == which) {
            self.phase = Phase::Idle;
            self.backoff.reset();
            return vec![Effect::Detach];
        }
        Vec::new()
    }

    /// Whether a connection carries frames.
    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Connected { .. })
    }

    /// Whether both sides can dial the other, so that a connection that nobody uses may end.
    pub(crate) fn may_leave(&self) -> bool {
        self.rules.may_dial && self.dialable
    }

    /// Whether nothing is under way, so that the peer may be forgotten.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Ended)
    }

    /// The last dial of the peer that was accepted, to be told in our Hello.
    pub(crate) fn accepted(&self) -> Option<DialId> {
        self.accepted
    }

    fn answered(
        &mut self,
        now: Duration,
        dial: u64,
        connection: ConnectionId,
        facts: &Facts,
    ) -> Vec<Effect> {
        if !matches!(self.phase, Phase::Dialling { dial: current, .. } if current == dial) {
            return vec![Effect::Refuse { connection }];
        }
        self.attach(now, connection, facts, Dialled::ByUs(dial))
    }

    fn dial_failed(
        &mut self,
        now: Duration,
        random: &mut impl Rng,
        dial: u64,
        duplicate: bool,
    ) -> Vec<Effect> {
        let give_up = match self.phase {
            Phase::Dialling {
                dial: current,
                give_up,
            } if current == dial => give_up,
            Phase::Idle
            | Phase::Dialling { .. }
            | Phase::Waiting { .. }
            | Phase::Connected { .. }
            | Phase::Ended => return Vec::new(),
        };
        let delay = if duplicate {
            INVITED
        } else {
            self.backoff.next(random)
        };
        self.not_before = now + delay;
        self.wait(now, self.not_before, give_up)
    }

    fn incoming(&mut self, now: Duration, connection: ConnectionId, facts: &Facts) -> Vec<Effect> {
        let mut effects = Vec::new();
        match self.phase {
            Phase::Ended => return vec![Effect::Refuse { connection }],
            // Our own dial wins; but one to a peer that cannot be dialled would never be answered.
            Phase::Dialling { .. } if self.rules.wins && facts.dialable => {
                return vec![Effect::Refuse { connection }];
            }
            Phase::Dialling { .. } => effects.push(Effect::CancelDial),
            Phase::Idle | Phase::Waiting { .. } => {}
            Phase::Connected {
                connection: older,
                incarnation,
                dialled,
                leaving,
                ..
            } => {
                let restarted = incarnation != facts.incarnation;
                if !restarted && self.is_late(dialled, facts) {
                    return vec![Effect::Refuse { connection }];
                }
                if leaving && !restarted {
                    // It has agreed to what we proposed, and dials again before its answer has come. It agrees only when
                    // all that it had sent has arrived here, so nothing is lost.
                    effects.extend([Effect::Supersede { connection: older }, Effect::Detach]);
                    effects.extend(self.accept(now, connection, facts));
                    return effects;
                }
                effects.extend([
                    Effect::Supersede { connection: older },
                    Effect::DropQueued,
                    Effect::Lost(if restarted {
                        Loss::NodeRestarted
                    } else {
                        Loss::ConnectionLost
                    }),
                ]);
            }
        }
        effects.extend(self.accept(now, connection, facts));
        effects
    }

    fn accept(&mut self, now: Duration, connection: ConnectionId, facts: &Facts) -> Vec<Effect> {
        self.accepted = Some(DialId {
            incarnation: facts.incarnation,
            number: facts.dial,
        });
        self.attach(now, connection, facts, Dialled::ByPeer(facts.dial))
    }

    /// Whether an incoming dial is older than the connection that stands.
    fn is_late(&self, standing: Dialled, facts: &Facts) -> bool {
        match standing {
            Dialled::ByPeer(number) => facts.dial <= number,
            // The peer accepted our dial, for it answered. Had it done so before this dial of its own, it would
            // say so: then it has lost that connection, and this one is newer.
            Dialled::ByUs(number) => !facts.accepted.is_some_and(|accepted| {
                accepted.incarnation == self.rules.incarnation && accepted.number >= number
            }),
        }
    }

    fn closed(
        &mut self,
        now: Duration,
        random: &mut impl Rng,
        connection: ConnectionId,
    ) -> Vec<Effect> {
        match self.phase {
            Phase::Connected {
                connection: current,
                since,
                ..
            } if current == connection => {
                if now.saturating_sub(since) >= GOOD_CONNECTION {
                    self.backoff.reset();
                }
                self.not_before = now + self.backoff.next(random);
                self.phase = Phase::Idle;
                vec![Effect::DropQueued, Effect::Lost(Loss::ConnectionLost)]
            }
            Phase::Idle
            | Phase::Dialling { .. }
            | Phase::Waiting { .. }
            | Phase::Connected { .. }
            | Phase::Ended => Vec::new(),
        }
    }

    fn due(&mut self, now: Duration, random: &mut impl Rng) -> Vec<Effect> {
        match self.phase {
            Phase::Dialling { give_up, .. } if now >= give_up => {
                self.not_before = now + self.backoff.next(random);
                self.phase = Phase::Idle;
                vec![
                    Effect::CancelDial,
                    Effect::DropQueued,
                    Effect::Lost(Loss::ConnectionLost),
                ]
            }
            Phase::Waiting { give_up, .. } if now >= give_up => {
                self.phase = Phase::Idle;
                vec![Effect::DropQueued, Effect::Lost(Loss::ConnectionLost)]
            }
            Phase::Waiting { retry, give_up } if now >= retry => self.dial(now, give_up),
            // A timer that comes early is set again.
            Phase::Dialling { give_up, .. } => vec![self.arm(now, give_up)],
            Phase::Waiting { retry, give_up } => vec![self.arm(now, retry.min(give_up))],
            Phase::Idle | Phase::Connected { .. } | Phase::Ended => Vec::new(),
        }
    }

    fn shutdown(&mut self) -> Vec<Effect> {
        let ended = std::mem::replace(&mut self.phase, Phase::Ended);
        match ended {
            Phase::Connected { .. } => {
                vec![Effect::DropQueued, Effect::Lost(Loss::ConnectionLost)]
            }
            Phase::Dialling { .. } => vec![Effect::CancelDial, Effect::DropQueued],
            Phase::Waiting { .. } => vec![Effect::DropQueued],
            Phase::Idle | Phase::Ended => Vec::new(),
        }
    }

    fn attach(
        &mut self,
        now: Duration,
        connection: ConnectionId,
        facts: &Facts,
        dialled: Dialled,
    ) -> Vec<Effect> {
        self.dialable = facts.dialable;
        self.phase = Phase::Connected {
            connection,
            incarnation: facts.incarnation,
            dialled,
            since: now,
            leaving: false,
        };
        vec![Effect::Attach { connection }]
    }

    fn dial(&mut self, now: Duration, give_up: Duration) -> Vec<Effect> {
        self.dials += 1;
        let dial = self.dials;
        self.phase = Phase::Dialling { dial, give_up };
        vec![Effect::Dial { dial }, self.arm(now, give_up)]
    }

    fn wait(&mut self, now: Duration, retry: Duration, give_up: Duration) -> Vec<Effect> {
        self.phase = Phase::Waiting { retry, give_up };
        vec![self.arm(now, retry.min(give_up))]
    }

    fn arm(&mut self, now: Duration, at: Duration) -> Effect {
        self.timers += 1;
        Effect::Arm {
            timer: self.timers,
            after: at.saturating_sub(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const GRACE: Duration = Duration::from_secs(10);
    const T0: Duration = Duration::from_secs(100);
    const US: Incarnation = Incarnation(1);
    const THEM: Incarnation = Incarnation(2);

    struct Bench {
        peer: Peer,
        random: StdRng,
    }

    impl Bench {
        fn new(wins: bool) -> Self {
            Self::with(wins, true)
        }

        fn with(wins: bool, may_dial: bool) -> Self {
            let rules = Rules {
                incarnation: US,
                may_dial,
                wins,
                grace: GRACE,
                max_queue: 100,
            };
            Self {
                peer: Peer::new(rules, 0),
                random: StdRng::seed_from_u64(7),
            }
        }

        fn send(&mut self, now: Duration) -> Vec<Effect> {
            self.peer.admit(now, 10, 0).unwrap()
        }

        fn step(&mut self, now: Duration, input: Input) -> Vec<Effect> {
            self.peer.step(now, &mut self.random, input)
        }

        /// Lets timers run and every dial fail until no timer is left; returns all other effects.
        fn fail_all(&mut self, mut effects: Vec<Effect>) -> (Duration, Vec<Effect>) {
            let (mut now, mut others) = (T0, Vec::new());
            loop {
                let mut timer = None;
                for effect in std::mem::take(&mut effects) {
                    match effect {
                        Effect::Arm {
                            timer: number,
                            after,
                        } => timer = Some((number, after)),
                        Effect::Dial { dial } => {
                            others.push(effect);
                            let failed = self.step(
                                now,
                                Input::DialFailed {
                                    dial,
                                    duplicate: false,
                                },
                            );
                            effects.extend(failed);
                        }
                        Effect::CancelDial
                        | Effect::Attach { .. }
                        | Effect::Refuse { .. }
                        | Effect::Supersede { .. }
                        | Effect::Detach
                        | Effect::DropQueued
                        | Effect::Lost(_) => others.push(effect),
                    }
                }
                if effects.is_empty() {
                    let Some((timer, after)) = timer else {
                        return (now, others);
                    };
                    now += after;
                    effects = self.step(now, Input::Due { timer });
                }
            }
        }
    }

    fn facts(dial: u64) -> Facts {
        Facts {
            incarnation: THEM,
            dialable: true,
            dial,
            accepted: None,
        }
    }

    fn incoming(connection: ConnectionId, dial: u64) -> Input {
        Input::Incoming {
            connection,
            facts: facts(dial),
        }
    }

    fn answered(dial: u64, connection: ConnectionId) -> Input {
        Input::Answered {
            dial,
            connection,
            facts: facts(0),
        }
    }

    const LOST: [Effect; 2] = [Effect::DropQueued, Effect::Lost(Loss::ConnectionLost)];

    #[test]
    fn the_first_frame_dials_and_later_ones_wait() {
        let mut b = Bench::new(true);
        let dial = [
            Effect::Dial { dial: 1 },
            Effect::Arm {
                timer: 1,
                after: GRACE,
            },
        ];
        assert_eq!(b.send(T0), dial);
        assert_eq!(b.send(T0), []);
        assert_eq!(
            b.step(T0, answered(1, 9)),
            [Effect::Attach { connection: 9 }]
        );
        assert_eq!(b.send(T0), []);
        assert_eq!(b.step(T0 + GRACE, Input::Due { timer: 1 }), []);
    }

    #[test]
    fn redials_within_the_grace_and_then_tells_the_loss_once() {
        let mut b = Bench::new(true);
        let effects = b.send(T0);
        let (ended, others) = b.fail_all(effects);
        assert_eq!(ended, T0 + GRACE);
        let dials = others
            .iter()
            .filter(|e| matches!(e, Effect::Dial { .. }))
            .count();
        assert!((4..40).contains(&dials), "{dials} dials in the grace");
        assert_eq!(others[dials..], LOST);
        // The next frame waits for the back-off and has a grace of its own.
        assert!(matches!(b.send(ended)[..], [Effect::Arm { .. }]));
    }

    #[test]
    fn a_dial_that_hangs_ends_with_the_grace() {
        let mut b = Bench::new(true);
        b.send(T0);
        let mut ended = vec![Effect::CancelDial];
        ended.extend(LOST);
        assert_eq!(b.step(T0 + GRACE, Input::Due { timer: 1 }), ended);
        // Its answer comes too late.
        assert_eq!(
            b.step(T0 + GRACE, answered(1, 9)),
            [Effect::Refuse { connection: 9 }]
        );
    }

    #[test]
    fn both_dial_and_the_smaller_address_wins() {
        // The smaller one refuses the other's dial and keeps its own.
        let mut small = Bench::new(true);
        small.send(T0);
        assert_eq!(
            small.step(T0, incoming(5, 1)),
            [Effect::Refuse { connection: 5 }]
        );
        assert_eq!(
            small.step(T0, answered(1, 6)),
            [Effect::Attach { connection: 6 }]
        );
        // The larger one, which sees the other's dial before its own is refused.
        let mut large = Bench::new(false);
        large.send(T0);
        assert_eq!(
            large.step(T0, incoming(5, 1)),
            [Effect::CancelDial, Effect::Attach { connection: 5 }]
        );
        let refused = Input::DialFailed {
            dial: 1,
            duplicate: true,
        };
        assert_eq!(large.step(T0, refused), []);
        // The larger one, whose own dial is refused first: it waits and drops nothing.
        let mut large = Bench::new(false);
        large.send(T0);
        assert_eq!(
            large.step(T0, refused),
            [Effect::Arm {
                timer: 2,
                after: INVITED
            }]
        );
        assert_eq!(large.send(T0), []);
        assert_eq!(
            large.step(T0, incoming(5, 1)),
            [Effect::Attach { connection: 5 }]
        );
    }

    #[test]
    fn a_late_dial_does_not_replace_the_connection_its_dialler_settled_for() {
        let mut small = Bench::new(true);
        small.send(T0);
        small.step(T0, answered(1, 6));
        assert_eq!(
            small.step(T0, incoming(5, 1)),
            [Effect::Refuse { connection: 5 }]
        );
        let mut large = Bench::new(false);
        large.step(T0, incoming(5, 2));
        assert_eq!(
            large.step(T0, incoming(4, 1)),
            [Effect::Refuse { connection: 4 }]
        );
    }

    #[test]
    fn a_newer_connection_replaces_the_older_after_its_loss_was_told() {
        let replaced = |older, newer, loss| {
            [
                Effect::Supersede { connection: older },
                Effect::DropQueued,
                Effect::Lost(loss),
                Effect::Attach { connection: newer },
            ]
        };
        let mut b = Bench::new(true);
        b.step(T0, incoming(5, 1));
        assert_eq!(
            b.step(T0, incoming(6, 2)),
            replaced(5, 6, Loss::ConnectionLost)
        );
        // The older one's end, noticed afterwards, is old news.
        assert_eq!(b.step(T0, Input::Closed { connection: 5 }), []);
        let restarted = Input::Incoming {
            connection: 7,
            facts: Facts {
                incarnation: Incarnation(3),
                ..facts(1)
            },
        };
        assert_eq!(b.step(T0, restarted), replaced(6, 7, Loss::NodeRestarted));

        // One that we dialled is replaced by a peer that had accepted it and dials again.
        let mut b = Bench::new(true);
        b.send(T0);
        b.step(T0, answered(1, 6));
        let again = |incarnation| Input::Incoming {
            connection: 8,
            facts: Facts {
                accepted: Some(DialId {
                    incarnation,
                    number: 1,
                }),
                ..facts(4)
            },
        };
        // What it accepted of an earlier run of ours says nothing.
        assert_eq!(
            b.step(T0, again(Incarnation(99))),
            [Effect::Refuse { connection: 8 }]
        );
        assert_eq!(b.step(T0, again(US)), replaced(6, 8, Loss::ConnectionLost));
    }

    #[test]
    fn a_connection_that_both_leave_is_no_loss() {
        let mut b = Bench::new(true);
        b.send(T0);
        b.step(T0, answered(1, 6));
        assert_eq!(b.step(T0, Input::Leaving { connection: 6 }), []);
        assert_eq!(b.send(T0), [], "what comes now waits");
        assert_eq!(b.step(T0, Input::Left { connection: 5 }), []);
        assert_eq!(b.step(T0, Input::Left { connection: 6 }), [Effect::Detach]);
        assert_eq!(b.step(T0, Input::Closed { connection: 6 }), []);
        assert!(matches!(b.send(T0)[..], [Effect::Dial { .. }, _]));
    }

    #[test]
    fn a_peer_that_has_left_may_dial_before_its_answer_comes() {
        let again = Input::Incoming {
            connection: 8,
            facts: Facts {
                accepted: Some(DialId {
                    incarnation: US,
                    number: 1,
                }),
                ..facts(4)
            },
        };
        let mut b = Bench::new(true);
        b.send(T0);
        b.step(T0, answered(1, 6));
        b.step(T0, Input::Leaving { connection: 6 });
        let quietly = [
            Effect::Supersede { connection: 6 },
            Effect::Detach,
            Effect::Attach { connection: 8 },
        ];
        assert_eq!(b.step(T0, again), quietly);

        // One that stayed is lost as any other.
        let mut b = Bench::new(true);
        b.send(T0);
        b.step(T0, answered(1, 6));
        b.step(T0, Input::Leaving { connection: 6 });
        b.step(T0, Input::Stay { connection: 6 });
        assert!(
            b.step(T0, again)
                .contains(&Effect::Lost(Loss::ConnectionLost))
        );
    }

    #[test]
    fn a_restart_after_a_loss_is_not_told_again() {
        let mut b = Bench::new(true);
        b.step(T0, incoming(5, 1));
        assert_eq!(b.step(T0, Input::Closed { connection: 5 }), LOST);
        let restarted = Input::Incoming {
            connection: 6,
            facts: Facts {
                incarnation: Incarnation(3),
                ..facts(1)
            },
        };
        assert_eq!(b.step(T0, restarted), [Effect::Attach { connection: 6 }]);
    }

    #[test]
    fn a_peer_that_cannot_be_dialled_is_not() {
        let mut guest = Bench::with(true, false);
        assert_eq!(guest.peer.admit(T0, 1, 0), Err(Refusal::Unreachable));
        let mut driver = Bench::new(true);
        // Not known yet: the dial is made, and gives way to the driver's own.
        driver.send(T0);
        let hello = Input::Incoming {
            connection: 5,
            facts: Facts {
                dialable: false,
                ..facts(1)
            },
        };
        assert_eq!(
            driver.step(T0, hello),
            [Effect::CancelDial, Effect::Attach { connection: 5 }]
        );
        assert_eq!(driver.send(T0), []);
        driver.step(T0, Input::Closed { connection: 5 });
        assert_eq!(driver.peer.admit(T0, 1, 0), Err(Refusal::Unreachable));
    }

    #[test]
    fn the_queue_is_bounded_but_one_frame_always_fits() {
        let mut b = Bench::new(true);
        assert!(b.peer.admit(T0, 1000, 0).is_ok());
        assert_eq!(b.peer.admit(T0, 10, 91), Err(Refusal::Full));
        assert_eq!(b.peer.admit(T0, 10, 90), Ok(vec![]));
    }

    #[test]
    fn after_the_shutdown_nothing_is_taken() {
        let mut b = Bench::new(true);
        b.step(T0, incoming(5, 1));
        assert_eq!(b.step(T0, Input::Shutdown), LOST);
        assert_eq!(b.step(T0, Input::Shutdown), []);
        assert_eq!(
            b.step(T0, incoming(6, 2)),
            [Effect::Refuse { connection: 6 }]
        );
        assert_eq!(b.peer.admit(T0, 1, 0), Err(Refusal::Unreachable));
    }

    /// Two peers, each with its own machine, and a network that delivers what they do in any order.
    mod pair {
        use super::*;
        use proptest::prelude::*;

        #[derive(Debug, Clone)]
        enum InFlight {
            /// A dial of `side` with its number and what it had accepted.
            Hello {
                side: usize,
                dial: u64,
                accepted: Option<DialId>,
            },
            /// The answer to a dial of `side`; `None`: refused as a duplicate.
            Answer {
                side: usize,
                dial: u64,
                connection: Option<ConnectionId>,
            },
            /// `side` hears that the connection was closed.
            Closed {
                side: usize,
                connection: ConnectionId,
            },
        }

        struct World {
            peers: [Peer; 2],
            random: StdRng,
            flying: Vec<InFlight>,
            /// Per side the connection attached now.
            attached: [Option<ConnectionId>; 2],
            losses: [usize; 2],
            armed: [Option<u64>; 2],
            next: ConnectionId,
            now: Duration,
            /// Connections that have ended; an answer on one of them never comes.
            ended: std::collections::BTreeSet<ConnectionId>,
        }

        impl World {
            fn new() -> Self {
                let peer = |own, wins| {
                    let rules = Rules {
                        incarnation: Incarnation(own),
                        may_dial: true,
                        wins,
                        grace: GRACE,
                        max_queue: 100,
                    };
                    Peer::new(rules, 0)
                };
                Self {
                    peers: [peer(0, true), peer(1, false)],
                    random: StdRng::seed_from_u64(1),
                    flying: Vec::new(),
                    attached: [None; 2],
                    losses: [0; 2],
                    armed: [None; 2],
                    next: 0,
                    now: T0,
                    ended: std::collections::BTreeSet::new(),
                }
            }

            fn perform(&mut self, side: usize, effects: Vec<Effect>) -> bool {
                let mut attached = false;
                for effect in effects {
                    match effect {
                        Effect::Dial { dial } => {
                            let accepted = self.peers[side].accepted();
                            self.flying.push(InFlight::Hello {
                                side,
                                dial,
                                accepted,
                            });
                        }
                        Effect::Attach { connection } => {
                            assert_eq!(self.attached[side], None, "two connections at once");
                            self.attached[side] = Some(connection);
                            attached = true;
                        }
                        Effect::Refuse { connection } | Effect::Supersede { connection } => {
                            self.ended.insert(connection);
                            self.flying.push(InFlight::Closed {
                                side: 1 - side,
                                connection,
                            });
                        }
                        Effect::Lost(_) => {
                            self.attached[side] = None;
                            self.losses[side] += 1;
                        }
                        Effect::Arm { timer, .. } => self.armed[side] = Some(timer),
                        Effect::Detach => self.attached[side] = None,
                        Effect::CancelDial | Effect::DropQueued => {}
                    }
                }
                attached
            }

            fn input(&mut self, side: usize, input: Input) -> bool {
                let effects = self.peers[side].step(self.now, &mut self.random, input);
                self.perform(side, effects)
            }

            fn send(&mut self, side: usize) {
                let effects = self.peers[side].admit(self.now, 1, 0).unwrap();
                self.perform(side, effects);
            }

            /// The connections that stand break; each side hears of it in its own time.
            fn cut(&mut self) {
                for side in 0..2 {
                    if let Some(connection) = self.attached[side] {
                        self.ended.insert(connection);
                        self.flying.push(InFlight::Closed { side, connection });
                    }
                }
            }

            /// A second passes, and timers are due as often as they are early.
            fn tick(&mut self) {
                self.now += Duration::from_secs(1);
                for side in 0..2 {
                    if let Some(timer) = self.armed[side].take() {
                        self.input(side, Input::Due { timer });
                    }
                }
            }

            fn deliver(&mut self, at: usize) {
                match self.flying.remove(at) {
                    InFlight::Hello {
                        side,
                        dial,
                        accepted,
                    } => {
                        self.next += 1;
                        let connection = self.next;
                        let facts = Facts {
                            incarnation: Incarnation(side as u64),
                            dialable: true,
                            dial,
                            accepted,
                        };
                        let taken = self.input(1 - side, Input::Incoming { connection, facts });
                        // The refusal is told as the answer.
                        self.flying.retain(|f| {
                            !matches!(f, InFlight::Closed { connection: c, .. } if *c == connection)
                        });
                        self.flying.push(InFlight::Answer {
                            side,
                            dial,
                            connection: taken.then_some(connection),
                        });
                    }
                    InFlight::Answer {
                        side,
                        dial,
                        connection: Some(connection),
                    } if self.ended.contains(&connection) => {
                        let duplicate = false;
                        self.input(side, Input::DialFailed { dial, duplicate });
                    }
                    InFlight::Answer {
                        side,
                        dial,
                        connection: Some(connection),
                    } => {
                        let facts = Facts {
                            incarnation: Incarnation(1 - side as u64),
                            dialable: true,
                            dial: 0,
                            accepted: None,
                        };
                        self.input(
                            side,
                            Input::Answered {
                                dial,
                                connection,
                                facts,
                            },
                        );
                    }
                    InFlight::Answer {
                        side,
                        dial,
                        connection: None,
                    } => {
                        self.input(
                            side,
                            Input::DialFailed {
                                dial,
                                duplicate: true,
                            },
                        );
                    }
                    InFlight::Closed { side, connection } => {
                        self.input(side, Input::Closed { connection });
                    }
                }
            }
        }

        proptest! {
            /// The law: when nothing was broken, whatever the order, both end up on one and the same connection
            /// and nobody was told of a loss.
            #[test]
            fn dials_that_cross_settle_on_one_connection_without_a_loss(
                order in proptest::collection::vec(any::<(u8, bool, bool)>(), 1..20),
            ) {
                let mut world = World::new();
                for (pick, first, second) in order {
                    for side in [(0, first), (1, second)].into_iter().filter(|s| s.1).map(|s| s.0) {
                        world.send(side);
                    }
                    if !world.flying.is_empty() {
                        let at = usize::from(pick) % world.flying.len();
                        world.deliver(at);
                    }
                }
                while !world.flying.is_empty() {
                    world.deliver(0);
                }
                prop_assert_eq!(world.losses, [0, 0]);
                prop_assert_eq!(world.attached[0], world.attached[1]);
            }

            /// The law: whatever breaks and in whatever order it is noticed, a connection is never attached before
            /// the loss of the one before was told (asserted in `perform`), and once nothing breaks any more both
            /// sides find to one connection again.
            #[test]
            fn after_any_breaks_both_find_to_one_connection(
                order in proptest::collection::vec((any::<u8>(), 0_usize..8), 1..60),
            ) {
                let mut world = World::new();
                for (pick, what) in order {
                    match what {
                        0 | 1 => world.send(what),
                        2 => world.cut(),
                        3 => world.tick(),
                        _ if world.flying.is_empty() => {}
                        _ => {
                            let at = usize::from(pick) % world.flying.len();
                            world.deliver(at);
                        }
                    }
                }
                for _ in 0..100 {
                    world.tick();
                    world.send(0);
                    world.send(1);
                    while !world.flying.is_empty() {
                        world.deliver(0);
                    }
                }
                prop_assert!(world.attached[0].is_some());
                prop_assert_eq!(world.attached[0], world.attached[1]);
            }
        }
    }
}
