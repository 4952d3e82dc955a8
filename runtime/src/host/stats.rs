//! What one process did: counted by its host while it works, read by whoever asks.
//!
//! One thread writes, so that a count costs a load and a store and no lock. Times are read from the clock after each
//! event while handlers are slow, and after each few while they are quick (`measure` in `driver.rs`): the time between
//! two readings is put down to the message handled last. What a process is told to have spent in all is exact.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::node::{Drops, HandlerStatus};
use crate::process::Profile;

/// Why a message never reached its handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DropCause {
    MailboxFull,
    ReserveFull,
    UnknownKind,
    WrongRole,
}

/// What a process is in: nothing, something that is no message of a kind it takes, or, from 2 on, the kind at this
/// place less 2.
const IDLE: u32 = 0;
const OTHER: u32 = 1;

/// How many causes there are.
const CAUSES: usize = 4;

/// Count and time of one kind of message.
#[derive(Default)]
struct Handler {
    count: AtomicU64,
    busy_ns: AtomicU64,
}

#[derive(Default)]
pub(crate) struct Stats {
    handled: AtomicU64,
    busy_ns: AtomicU64,
    /// In the order of `Profile::accepted`; made with the first message, since most processes have none of most.
    handlers: OnceLock<Box<[Handler]>>,
    drops: OnceLock<Box<[AtomicU64; CAUSES]>>,
    holding: Mutex<Option<&'static str>>,
    running: AtomicU32,
}

/// Adds to a count that only this thread writes.
fn add(count: &AtomicU64, amount: u64) {
    count.store(count.load(Ordering::Relaxed) + amount, Ordering::Relaxed);
}

impl Stats {
    pub(crate) fn dropped(&self, cause: DropCause, messages: u64) {
        let drops = self.drops.get_or_init(Box::default);
        drops[cause as usize].fetch_add(messages, Ordering::Relaxed);
    }

    /// Notes that an event is being handled, with the place of its kind. Called by the host only.
    pub(crate) fn begin(&self, place: Option<usize>) {
        let place = place.and_then(|place| u32::try_from(place).ok());
        let running = place.map_or(OTHER, |place| place.saturating_add(2));
        self.running.store(running, Ordering::Relaxed);
    }

    /// Notes that nothing is being handled any more. Called by the host only.
    pub(crate) fn rest(&self) {
        self.running.store(IDLE, Ordering::Relaxed);
    }

    /// What is being handled.
    pub(crate) fn running(&self, profile: &Profile) -> Option<&'static str> {
        match self.running.load(Ordering::Relaxed) {
            IDLE => None,
            OTHER => Some("a timer, an outcome or a request"),
            place => {
                let place = usize::try_from(place - 2).ok()?;
                profile.accepted.get(place).map(|(_, one)| one.name)
            }
        }
    }

    /// Counts one event of the user lane; for a message with the place of its kind. Called by the host only.
    pub(crate) fn handled(&self, place: Option<usize>, profile: &Profile) {
        add(&self.handled, 1);
        if let Some(handler) = self.handler(place, profile) {
            add(&handler.count, 1);
        }
    }

    /// Adds the time between two readings of the clock. Called by the host only.
    pub(crate) fn spent(&self, place: Option<usize>, profile: &Profile, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        add(&self.busy_ns, nanos);
        if let Some(handler) = self.handler(place, profile) {
            add(&handler.busy_ns, nanos);
        }
    }

    fn handler(&self, place: Option<usize>, profile: &Profile) -> Option<&Handler> {
        let make = || profile.accepted.iter().map(|_| Handler::default());
        let handlers = self.handlers.get_or_init(|| make().collect());
        handlers.get(place?)
    }

    /// Notes the operation that messages wait for, or that none does.
    pub(crate) fn hold(&self, operation: Option<&'static str>) {
        *self.holding.lock() = operation;
    }

    pub(crate) fn holding(&self) -> Option<&'static str> {
        *self.holding.lock()
    }

    pub(crate) fn busy_us(&self) -> u64 {
        self.busy_ns.load(Ordering::Relaxed) / 1_000
    }

    pub(crate) fn handled_count(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    pub(crate) fn handlers(&self, profile: &Profile) -> Vec<HandlerStatus> {
        let counts = self.handlers.get().map_or(&[][..], |all| all);
        let mut all: Vec<HandlerStatus> = profile
            .accepted
            .iter()
            .zip(counts)
            .map(|((_, accepted), handler)| HandlerStatus {
                message: accepted.name.to_owned(),
                count: handler.count.load(Ordering::Relaxed),
                busy_us: handler.busy_ns.load(Ordering::Relaxed) / 1_000,
            })
            .filter(|one| one.count > 0)
            .collect();
        all.sort_by(|a, b| (b.busy_us, b.count, &a.message).cmp(&(a.busy_us, a.count, &b.message)));
        all
    }

    pub(crate) fn drops(&self) -> Drops {
        let count = |cause: DropCause| {
            let drops = self.drops.get();
            drops.map_or(0, |drops| drops[cause as usize].load(Ordering::Relaxed))
        };
        Drops {
            mailbox_full: count(DropCause::MailboxFull),
            reserve_full: count(DropCause::ReserveFull),
            unknown_kind: count(DropCause::UnknownKind),
            wrong_role: count(DropCause::WrongRole),
        }
    }

    /// Messages that a full mailbox refused.
    pub(crate) fn refused(&self) -> u64 {
        let drops = self.drops();
        drops.mailbox_full + drops.reserve_full
    }
}
