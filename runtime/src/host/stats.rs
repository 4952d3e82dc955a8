//! What one process did: counted by its host while it works, read by whoever asks.
//!
//! One thread writes, so that a count costs a load and a store and no lock. Times are read from the clock after each
//! event while handlers are slow, and after each few while they are quick (`Meter` in `worker.rs`): the time between
//! two readings is put down to the message handled last. What a process is told to have spent in all is exact.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::node::{Drops, HandlerStatus};
use crate::process::Profile;

/// Why a message never reached its handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drop {
    MailboxFull,
    ReserveFull,
    UnknownKind,
    WrongRole,
    Malformed,
}

/// How many causes there are.
const CAUSES: usize = 5;

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
}

/// Adds to a count that only this thread writes.
fn add(count: &AtomicU64, amount: u64) {
    count.store(count.load(Ordering::Relaxed) + amount, Ordering::Relaxed);
}

impl Stats {
    pub(crate) fn dropped(&self, cause: Drop, messages: u64) {
        let drops = self.drops.get_or_init(Box::default);
        drops[cause as usize].fetch_add(messages, Ordering::Relaxed);
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
        let count = |cause: Drop| {
            let drops = self.drops.get();
            drops.map_or(0, |drops| drops[cause as usize].load(Ordering::Relaxed))
        };
        Drops {
            mailbox_full: count(Drop::MailboxFull),
            reserve_full: count(Drop::ReserveFull),
            unknown_kind: count(Drop::UnknownKind),
            wrong_role: count(Drop::WrongRole),
            malformed: count(Drop::Malformed),
        }
    }

    /// Messages that a full mailbox refused.
    pub(crate) fn refused(&self) -> u64 {
        let drops = self.drops();
        drops.mailbox_full + drops.reserve_full
    }
}
