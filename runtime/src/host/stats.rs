//! What one process did: counted by its host while it works, read by whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::node::{Drops, HandlerStatus};

/// Why a message never reached its handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drop {
    MailboxFull,
    ReserveFull,
    UnknownKind,
    WrongRole,
    Malformed,
}

/// Count and time of one kind of message.
struct Handler {
    message: &'static str,
    count: u64,
    busy: Duration,
}

#[derive(Default)]
pub(crate) struct Stats {
    busy_ns: AtomicU64,
    handlers: Mutex<Vec<Handler>>,
    holding: Mutex<Option<&'static str>>,
    drops: [AtomicU64; 5],
}

impl Stats {
    pub(crate) fn dropped(&self, cause: Drop) {
        self.drops[cause as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Notes one turn of `took`, for a message of this name or for something else.
    pub(crate) fn turn(&self, message: Option<&'static str>, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.busy_ns.fetch_add(nanos, Ordering::Relaxed);
        let Some(message) = message else {
            return;
        };
        let mut handlers = self.handlers.lock();
        if let Some(known) = handlers.iter_mut().find(|one| one.message == message) {
            known.count += 1;
            known.busy += took;
        } else {
            handlers.push(Handler {
                message,
                count: 1,
                busy: took,
            });
        }
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

    pub(crate) fn handlers(&self) -> Vec<HandlerStatus> {
        let mut all: Vec<HandlerStatus> = self
            .handlers
            .lock()
            .iter()
            .map(|one| HandlerStatus {
                message: one.message.to_owned(),
                count: one.count,
                busy_us: u64::try_from(one.busy.as_micros()).unwrap_or(u64::MAX),
            })
            .collect();
        all.sort_by(|a, b| (b.busy_us, b.count, &a.message).cmp(&(a.busy_us, a.count, &b.message)));
        all
    }

    pub(crate) fn drops(&self) -> Drops {
        let count = |cause: Drop| self.drops[cause as usize].load(Ordering::Relaxed);
        Drops {
            mailbox_full: count(Drop::MailboxFull),
            reserve_full: count(Drop::ReserveFull),
            unknown_kind: count(Drop::UnknownKind),
            wrong_role: count(Drop::WrongRole),
            malformed: count(Drop::Malformed),
        }
    }
}
