//! Time of a node: live, or paused and advanced by hand.
//!
//! Nothing in an actor asks the system for the time: `now` comes with each turn and timers are asked of the
//! [`Clock`]. A paused clock stands still until a test advances it; it then visits every timer in order of its
//! deadline and lets all nodes that share the clock come to rest after each one ("settle"), so that a test sees
//! the same order in every run.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

/// A point on a clock: nanoseconds since the clock was made. Monotonic.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Time(pub u64);

impl Time {
    /// When the clock was made.
    pub const ZERO: Self = Self(0);

    /// Time since `earlier`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    /// Saturates after 584 years.
    fn add(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", Duration::from_nanos(self.0))
    }
}

/// Names one pending timer of a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerKey(Time, u64);

impl TimerKey {
    /// When the timer is due.
    pub(crate) fn deadline(self) -> Time {
        self.0
    }
}

type Action = Box<dyn FnOnce() + Send>;

type Timers = BTreeMap<TimerKey, Action>;

enum Source {
    Live { origin: Instant },
    Paused { now: Mutex<Time> },
}

struct Inner {
    source: Source,
    /// Wall-clock time at `Time::ZERO`, since the Unix epoch.
    wall_origin: Duration,
    timers: Mutex<Timers>,
    /// Number of the next timer.
    next: AtomicU64,
    /// Wakes the live driver when an earlier deadline was added.
    earlier: Notify,
    busy: Mutex<u64>,
    idle: Condvar,
}

/// The clock of one node, or of several in a test. Clones are the same clock.
#[derive(Clone)]
pub struct Clock {
    inner: Arc<Inner>,
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

/// How long [`Clock::settle`] waits before it calls the nodes hung.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// How long it waits at a time.
const SETTLE_LOOK: Duration = Duration::from_secs(1);

impl Clock {
    /// A clock that follows the system's.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where a live clock is read"
    )]
    pub fn live() -> Self {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Self::with(
            Source::Live {
                origin: Instant::now(),
            },
            wall,
        )
    }

    /// A clock that stands at [`Time::ZERO`] until it is advanced. Its wall clock starts at 2026-01-01.
    pub fn paused() -> Self {
        Self::with(
            Source::Paused {
                now: Mutex::new(Time::ZERO),
            },
            Duration::from_secs(1_767_225_600),
        )
    }

    fn with(source: Source, wall_origin: Duration) -> Self {
        Self {
            inner: Arc::new(Inner {
                source,
                wall_origin,
                timers: Mutex::default(),
                next: AtomicU64::new(1),
                earlier: Notify::new(),
                busy: Mutex::new(0),
                idle: Condvar::new(),
            }),
        }
    }

    /// Whether this clock is advanced by hand.
    pub fn is_paused(&self) -> bool {
        matches!(self.inner.source, Source::Paused { .. })
    }

    /// The time now.
    pub fn now(&self) -> Time {
        match &self.inner.source {
            Source::Live { origin } => Time::ZERO + origin.elapsed(),
            Source::Paused { now } => *now.lock(),
        }
    }

    /// Wall-clock time of `time` since the Unix epoch, for dates shown to people.
    pub fn wall(&self, time: Time) -> Duration {
        self.inner.wall_origin + time.since(Time::ZERO)
    }

    /// Runs `action` at `deadline`, on the thread that drives the clock. The action must not block.
    pub fn at(&self, deadline: Time, action: impl FnOnce() + Send + 'static) -> TimerKey {
        let key = TimerKey(deadline, self.number());
        self.at_key(key, action);
        key
    }

    fn number(&self) -> u64 {
        self.inner.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The place of a timer for `deadline` among those of the same time, taken now, for a timer that is set later or
    /// never. On a live clock, where two timers of one nanosecond have no order, it is not taken before it is needed.
    pub(crate) fn place(&self, deadline: Time) -> TimerKey {
        let number = if self.is_paused() { self.number() } else { 0 };
        TimerKey(deadline, number)
    }

    /// Sets a timer at a place taken before, and tells the key it has now.
    pub(crate) fn at_place(
        &self,
        place: TimerKey,
        action: impl FnOnce() + Send + 'static,
    ) -> TimerKey {
        let key = match place {
            TimerKey(deadline, 0) => TimerKey(deadline, self.number()),
            taken @ TimerKey(..) => taken,
        };
        self.at_key(key, action);
        key
    }

    fn at_key(&self, key: TimerKey, action: impl FnOnce() + Send + 'static) {
        let mut timers = self.inner.timers.lock();
        let first = timers
            .first_key_value()
            .is_none_or(|(earliest, _)| key < *earliest);
        timers.insert(key, Box::new(action));
        drop(timers);
        if first {
            self.inner.earlier.notify_one();
        }
    }

    /// Forgets a timer; nothing happens when it has run.
    pub fn cancel(&self, key: TimerKey) {
        self.inner.timers.lock().remove(&key);
    }

    /// Runs due timers for ever. A live clock needs exactly one such task.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that waits for a live deadline"
    )]
    pub(crate) async fn drive(self) {
        loop {
            let now = self.now();
            while let Some(action) = self.take_due(now) {
                action();
            }
            let next = self
                .inner
                .timers
                .lock()
                .first_key_value()
                .map(|(key, _)| key.0);
            match next {
                Some(deadline) => {
                    tokio::select! {
                        () = tokio::time::sleep(deadline.since(self.now())) => {}
                        () = self.inner.earlier.notified() => {}
                    }
                }
                None => self.inner.earlier.notified().await,
            }
        }
    }

    fn take_due(&self, now: Time) -> Option<Action> {
        let mut timers = self.inner.timers.lock();
        let (key, _) = timers.first_key_value()?;
        if key.0 > now {
            return None;
        }
        timers.pop_first().map(|(_, action)| action)
    }

    /// Advances a paused clock by `by`: every timer due in between runs at its own time, and all nodes settle
    /// before the next one. Does nothing on a live clock.
    ///
    /// # Panics
    /// When the nodes do not come to rest; see [`Clock::settle`].
    pub fn advance(&self, by: Duration) {
        self.advance_until(by, || false);
    }

    /// Advances as [`Clock::advance`] does, but no further than to the first timer after which `done` says so;
    /// `done` is also asked before the first. Returns whether it said so.
    ///
    /// # Panics
    /// When the nodes do not come to rest; see [`Clock::settle`].
    pub fn advance_until(&self, by: Duration, mut done: impl FnMut() -> bool) -> bool {
        let Source::Paused { now } = &self.inner.source else {
            return done();
        };
        self.settle();
        let end = *now.lock() + by;
        loop {
            if done() {
                return true;
            }
            let due = {
                let timers = self.inner.timers.lock();
                timers.first_key_value().map(|(key, _)| key.0)
            };
            match due {
                Some(deadline) if deadline <= end => {
                    {
                        let mut now = now.lock();
                        *now = deadline.max(*now);
                    }
                    if let Some(action) = self.take_due(deadline) {
                        action();
                    }
                    self.settle();
                }
                _ => break,
            }
        }
        *now.lock() = end;
        done()
    }

    /// Waits until no actor of the nodes on this paused clock has anything to do, nothing is under way between them,
    /// and no timer is due. Only time can then make something happen. Returns at once on a live clock.
    ///
    /// # Panics
    /// When they are still busy after a minute of real time: two actors that keep each other busy never settle.
    pub fn settle(&self) {
        if !self.is_paused() {
            return;
        }
        loop {
            self.wait_until_idle();
            match self.take_due(self.now()) {
                Some(action) => action(),
                None => return,
            }
        }
    }

    fn wait_until_idle(&self) {
        let mut busy = self.inner.busy.lock();
        let mut waited = Duration::ZERO;
        while *busy > 0 {
            // A little at a time: a program that was stopped meanwhile has not waited.
            let timed_out = self.inner.idle.wait_for(&mut busy, SETTLE_LOOK).timed_out();
            if timed_out && *busy > 0 {
                waited += SETTLE_LOOK;
                assert!(
                    waited < SETTLE_LIMIT,
                    "nodes did not settle within {SETTLE_LIMIT:?}: {} events are pending",
                    *busy
                );
            }
        }
    }

    /// Counts one event that some actor has yet to finish. Only kept on a paused clock.
    pub(crate) fn busy(&self) {
        self.busy_with(1);
    }

    /// Counts so many.
    pub(crate) fn busy_with(&self, events: u64) {
        if self.is_paused() {
            *self.inner.busy.lock() += events;
        }
    }

    /// Counts `done` events as finished.
    pub(crate) fn done(&self, done: u64) {
        if self.is_paused() && done > 0 {
            let mut busy = self.inner.busy.lock();
            debug_assert!(*busy >= done, "more events finished than began");
            *busy = busy.saturating_sub(done);
            if *busy == 0 {
                self.inner.idle.notify_all();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paused_clock_visits_timers_in_order() {
        let clock = Clock::paused();
        let seen = Arc::new(Mutex::new(Vec::new()));
        for seconds in [3u64, 1, 2, 9] {
            let (seen, at) = (Arc::clone(&seen), clock.clone());
            clock.at(Time::ZERO + Duration::from_secs(seconds), move || {
                seen.lock().push((seconds, at.now()));
            });
        }
        clock.advance(Duration::from_secs(5));
        let second = |s| Time::ZERO + Duration::from_secs(s);
        assert_eq!(
            *seen.lock(),
            [(1, second(1)), (2, second(2)), (3, second(3))]
        );
        assert_eq!(clock.now(), second(5));
    }

    #[test]
    fn a_cancelled_timer_does_not_run() {
        let clock = Clock::paused();
        let ran = Arc::new(Mutex::new(false));
        let flag = Arc::clone(&ran);
        let key = clock.at(Time(1), move || *flag.lock() = true);
        clock.cancel(key);
        clock.advance(Duration::from_secs(1));
        assert!(!*ran.lock());
    }
}
