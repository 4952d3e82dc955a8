//! How much goes wrong in a run, and how often each kind did.
//!
//! Pure. Rates are drawn once per run, and some runs have none of a kind, so that single kinds are hit hard too. A fault
//! counts in [`Bites`] only when it changed something: a partition that no frame met has not bitten.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use rand::{Rng, RngExt};

use super::disk::Kept;

/// Rates and sizes of all faults. [`Faults::none`] has none of them, [`Faults::draw`] draws each.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// How long a frame is under way.
    pub frame_delay: RangeInclusive<Duration>,
    /// Share of frames that take up to [`Faults::slow`] longer, so that those of other pairs overtake them.
    pub slow_frames: f64,
    /// See [`Faults::slow_frames`].
    pub slow: Duration,
    /// Share of frames at whose sending the connection breaks; what is under way on it is lost.
    pub breaks: f64,
    /// Partitions a minute: all messages between two groups of nodes stop.
    pub partitions: f64,
    /// The same in one direction only.
    pub one_way: f64,
    /// Partitions a minute over which one node still sees both groups.
    pub bridges: f64,
    /// Partitions a minute that come and go quickly.
    pub flapping: f64,
    /// How long a partition lasts.
    pub partition_lasts: RangeInclusive<Duration>,
    /// Crashes a minute of some node that may crash.
    pub crashes: f64,
    /// Share of effects before which their node crashes.
    pub crashes_between_effects: f64,
    /// Share of crashes of a node that take its guests along, as the loss of a machine does.
    pub machine_crashes: f64,
    /// How long a crashed node is down.
    pub down: RangeInclusive<Duration>,
    /// What a node may find on its disk after a crash.
    pub kept: Vec<Kept>,
    /// Pauses a minute of some node.
    pub pauses: f64,
    /// How long a pause lasts.
    pub pause_lasts: RangeInclusive<Duration>,
    /// Share of wake-ups of a process that come up to 50 ms late, so that its mailbox fills meanwhile.
    pub late_wakes: f64,
    /// How long an operation takes.
    pub op_delay: RangeInclusive<Duration>,
    /// Share of operations that take up to 20 s longer.
    pub op_stalls: f64,
    /// Largest drift of a node's clock either way, in millionths.
    pub drift: u32,
    /// Steps a minute of some node's wall clock, by up to an hour either way.
    pub wall_steps: f64,
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

impl Faults {
    /// A well-behaved world: frames take 1 to 5 ms, operations 1 to 20 ms, nothing else happens.
    pub fn none() -> Self {
        Self {
            frame_delay: ms(1)..=ms(5),
            slow_frames: 0.0,
            slow: ms(500),
            breaks: 0.0,
            partitions: 0.0,
            one_way: 0.0,
            bridges: 0.0,
            flapping: 0.0,
            partition_lasts: ms(200)..=ms(20_000),
            crashes: 0.0,
            crashes_between_effects: 0.0,
            machine_crashes: 0.0,
            down: ms(10)..=ms(15_000),
            kept: vec![Kept::Synced, Kept::Partly],
            pauses: 0.0,
            pause_lasts: ms(100)..=ms(12_000),
            late_wakes: 0.0,
            op_delay: ms(1)..=ms(20),
            op_stalls: 0.0,
            drift: 0,
            wall_steps: 0.0,
        }
    }

    /// Draws every rate; each kind is left out of about half of all runs.
    pub fn draw(random: &mut impl Rng) -> Self {
        let mut rate = |most: f64| {
            if random.random_bool(0.5) {
                most * random.random_range(0.05..1.0)
            } else {
                0.0
            }
        };
        let none = Self::none();
        Self {
            slow_frames: rate(0.2),
            breaks: rate(0.01),
            partitions: rate(2.0),
            one_way: rate(2.0),
            bridges: rate(1.0),
            flapping: rate(1.0),
            crashes: rate(2.0),
            crashes_between_effects: rate(0.002),
            machine_crashes: rate(1.0),
            pauses: rate(2.0),
            late_wakes: rate(0.2),
            op_stalls: rate(0.05),
            wall_steps: rate(2.0),
            drift: {
                let share = rate(1.0);
                // At most 5 %, which is far beyond what clocks do.
                [0, 200, 50_000][usize::from(share > 0.0) + usize::from(share > 0.5)]
            },
            ..none
        }
    }

    /// The rates of what happens at drawn times, a minute each.
    pub(super) fn timed(&self) -> [(Timed, f64); 7] {
        [
            (Timed::Partition, self.partitions),
            (Timed::OneWay, self.one_way),
            (Timed::Bridge, self.bridges),
            (Timed::Flapping, self.flapping),
            (Timed::Crash, self.crashes),
            (Timed::Pause, self.pauses),
            (Timed::WallStep, self.wall_steps),
        ]
    }
}

/// Faults that come at drawn times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timed {
    Partition,
    OneWay,
    Bridge,
    Flapping,
    Crash,
    Pause,
    WallStep,
}

/// How often each kind of fault has bitten, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bites(BTreeMap<&'static str, u64>);

impl Bites {
    /// Names of all kinds the simulator itself has.
    pub const ALL: &[&str] = &[
        CRASH,
        BETWEEN_EFFECTS,
        MACHINE,
        KEPT_SYNCED,
        KEPT_PARTLY,
        KEPT_NOTHING,
        PAUSE,
        BREAK,
        LOST_FRAME,
        PARTITION,
        ONE_WAY,
        BRIDGE,
        FLAPPING,
        OVERTAKEN,
        LATE_WAKE,
        LATE_ANSWER,
        STALLED_OP,
        DRIFT,
        WALL_STEP,
    ];

    /// Counts one.
    pub fn count(&mut self, kind: &'static str) {
        *self.0.entry(kind).or_default() += 1;
    }

    /// How often a kind has bitten.
    pub fn of(&self, kind: &str) -> u64 {
        self.0.get(kind).copied().unwrap_or(0)
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        for (kind, n) in &other.0 {
            *self.0.entry(kind).or_default() += n;
        }
    }

    /// All kinds that have bitten, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(kind, n)| (*kind, *n))
    }
}

pub(super) const CRASH: &str = "crash";
pub(super) const BETWEEN_EFFECTS: &str = "crash between two effects";
pub(super) const MACHINE: &str = "crash of a machine with guests";
pub(super) const KEPT_SYNCED: &str = "restart with what was synced";
pub(super) const KEPT_PARTLY: &str = "restart with part of what was not synced";
pub(super) const KEPT_NOTHING: &str = "restart without a disk";
pub(super) const PAUSE: &str = "pause";
pub(super) const BREAK: &str = "broken connection";
pub(super) const LOST_FRAME: &str = "lost frame";
pub(super) const PARTITION: &str = "partition";
pub(super) const ONE_WAY: &str = "one-way partition";
pub(super) const BRIDGE: &str = "partition with a bridge";
pub(super) const FLAPPING: &str = "flapping partition";
pub(super) const OVERTAKEN: &str = "slow frame";
pub(super) const LATE_WAKE: &str = "late wake";
pub(super) const LATE_ANSWER: &str = "outcome for a dead incarnation";
pub(super) const STALLED_OP: &str = "stalled operation";
pub(super) const DRIFT: &str = "clock drift";
pub(super) const WALL_STEP: &str = "step of a wall clock";
