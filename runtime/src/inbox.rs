//! Mailbox of one process: two lanes, a bound, and the wake-up rule.
//!
//! The control lane (start, timers, operations, HTTP, terminate) is served first and never refuses; the user lane
//! (messages and exit notices) is bounded in messages. A full mailbox drops the newest message and counts it; exit
//! notices are never dropped, and come after the last message of the process they tell of because they share its
//! lane. Processes of the own node keep books with each other, so their messages are dropped only when a reserve of
//! [`OWN_RESERVE`] times the bound is used up too. HTTP requests share the control lane; at most [`MAX_HTTP`] of
//! them wait. `push` never blocks.
//!
//! Wake-up rule: `scheduled` is true from the push that found it false until the drain has found the inbox empty.
//! The drain clears it, looks once more, and sets it again when something came in between; so no push is missed and
//! no process is woken twice.

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam::queue::SegQueue;

use crate::clock::Clock;
use crate::context::{AskError, TimerId};
use crate::host::stats::{Drop, Stats};
use crate::http::{Request, Responder};
use crate::links::ExitReason;
use crate::message::{Correlation, Envelope, Kind, Payload};
use crate::pid::Pid;
use crate::process::Accepted;

/// Default bound of the user lane, in messages.
pub(crate) const DEFAULT_MAILBOX: usize = 65_536;

/// How many times the bound may wait when the messages come from the own node.
pub(crate) const OWN_RESERVE: usize = 16;
/// HTTP requests that may wait for one process.
pub(crate) const MAX_HTTP: usize = 1_000;

/// An event of the control lane.
pub(crate) enum Control {
    Start,
    Timer(TimerId),
    OpDone {
        number: u64,
        out: Box<dyn Any + Send>,
    },
    AskFailed {
        number: u64,
        error: AskError,
    },
    /// An operation has no outcome: its operator panicked, or there is none.
    OpFailed(String),
    Http(Request, Responder),
}

/// An event of the user lane.
pub(crate) enum User {
    Message(Envelope),
    Exited {
        pid: Pid,
        reason: ExitReason,
    },
    /// End, with this reason, when it is reached.
    Terminate(ExitReason),
    /// Nothing by itself: stands for an event that the test kit has ready; see [`crate::testing`].
    Nudge,
}

/// Why a message was not put into a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    /// Even the reserve for the own node's messages is used up.
    OwnFull,
    Closed,
}

pub(crate) struct Inbox {
    pub(crate) pid: Pid,
    /// Kinds the process takes, with who may send them.
    pub(crate) accepted: HashMap<Kind, Accepted>,
    /// Takes other kinds as well, from anybody: a probe of the test kit.
    pub(crate) takes_any: bool,
    pub(crate) http_paths: Vec<&'static str>,
    capacity: usize,
    clock: Clock,
    control: SegQueue<Control>,
    user: SegQueue<User>,
    user_len: AtomicUsize,
    http_len: AtomicUsize,
    scheduled: AtomicBool,
    /// User messages wait for an operation under `Gate::HoldUser`.
    held: AtomicBool,
    closed: AtomicBool,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
    pub(crate) handled: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) stats: Stats,
}

impl Inbox {
    /// An inbox that counts as scheduled: its host's first drain begins with `Start`.
    pub(crate) fn new(
        pid: Pid,
        accepted: HashMap<Kind, Accepted>,
        takes_any: bool,
        http_paths: Vec<&'static str>,
        capacity: usize,
        clock: Clock,
    ) -> Arc<Self> {
        let inbox = Self {
            pid,
            accepted,
            takes_any,
            http_paths,
            capacity,
            clock,
            control: SegQueue::new(),
            user: SegQueue::new(),
            user_len: AtomicUsize::new(0),
            http_len: AtomicUsize::new(0),
            scheduled: AtomicBool::new(true),
            held: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            wake: OnceLock::new(),
            handled: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            stats: Stats::default(),
        };
        inbox.clock.busy();
        inbox.control.push(Control::Start);
        Arc::new(inbox)
    }

    /// Sets how the host is woken. Called once, before its first drain.
    pub(crate) fn set_wake(&self, wake: impl Fn() + Send + Sync + 'static) {
        // A second call would be a bug of the host; the first one stays.
        let set = self.wake.set(Box::new(wake));
        debug_assert!(set.is_ok(), "an inbox has one host");
    }

    pub(crate) fn push_control(&self, event: Control) {
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        self.clock.busy();
        self.control.push(event);
        self.schedule();
        self.sweep();
    }

    /// Takes an HTTP request, or hands its responder back when too many wait.
    pub(crate) fn push_http(&self, request: Request, responder: Responder) -> Option<Responder> {
        if self.http_len.fetch_add(1, Ordering::AcqRel) >= MAX_HTTP {
            self.http_len.fetch_sub(1, Ordering::AcqRel);
            return Some(responder);
        }
        self.push_control(Control::Http(request, responder));
        None
    }

    pub(crate) fn push(&self, event: User) -> Result<(), Refused> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Refused::Closed);
        }
        let len = self.user_len.fetch_add(1, Ordering::AcqRel);
        if len >= self.capacity
            && let Some(refused) = self.refused(&event, len)
        {
            self.user_len.fetch_sub(1, Ordering::AcqRel);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            self.stats.dropped(match refused {
                Refused::Full | Refused::Closed => Drop::MailboxFull,
                Refused::OwnFull => Drop::ReserveFull,
            });
            return Err(refused);
        }
        self.clock.busy();
        self.user.push(event);
        self.schedule();
        self.sweep();
        Ok(())
    }

    /// A push that raced with `close` may have come after its sweep.
    fn sweep(&self) {
        if self.is_closed() {
            self.close();
        }
    }

    /// Whether an event is dropped when as many wait as the bound allows. Only ordinary messages and requests are:
    /// an answer was asked for, an exit notice is promised.
    fn refused(&self, event: &User, len: usize) -> Option<Refused> {
        match event {
            User::Message(envelope) => match (&envelope.correlation, &envelope.payload) {
                (Correlation::Answer(_), _) => None,
                // Only what came from another node or a guest is in its wire form.
                (Correlation::None | Correlation::Request(_), Payload::Wire(_)) => {
                    Some(Refused::Full)
                }
                (Correlation::None | Correlation::Request(_), Payload::Local(_)) => {
                    let reserve = self.capacity.saturating_mul(OWN_RESERVE);
                    (len >= reserve).then_some(Refused::OwnFull)
                }
            },
            User::Exited { .. } | User::Terminate(_) | User::Nudge => None,
        }
    }

    fn schedule(&self) {
        if !self.scheduled.swap(true, Ordering::AcqRel)
            && let Some(wake) = self.wake.get()
        {
            wake();
        }
    }

    pub(crate) fn pop_control(&self) -> Option<Control> {
        let event = self.control.pop();
        if matches!(event, Some(Control::Http(..))) {
            self.http_len.fetch_sub(1, Ordering::AcqRel);
        }
        event
    }

    pub(crate) fn pop_user(&self) -> Option<User> {
        if self.held.load(Ordering::Acquire) {
            return None;
        }
        let event = self.user.pop()?;
        self.user_len.fetch_sub(1, Ordering::AcqRel);
        Some(event)
    }

    pub(crate) fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Release);
    }

    /// Ends a drain that found nothing more; `true` when something came meanwhile and the drain must go on.
    pub(crate) fn rest(&self) -> bool {
        self.scheduled.store(false, Ordering::Release);
        std::sync::atomic::fence(Ordering::SeqCst);
        let waiting = !self.control.is_empty()
            || (!self.held.load(Ordering::Acquire) && !self.user.is_empty());
        waiting && !self.scheduled.swap(true, Ordering::AcqRel)
    }

    /// Takes no more events and drops those that wait.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let mut dropped = 0;
        while self.control.pop().is_some() {
            dropped += 1;
        }
        while self.user.pop().is_some() {
            self.user_len.fetch_sub(1, Ordering::AcqRel);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            dropped += 1;
        }
        self.clock.done(dropped);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Control events that wait.
    pub(crate) fn control_depth(&self) -> usize {
        self.control.len()
    }

    /// Messages that wait.
    pub(crate) fn depth(&self) -> usize {
        self.user_len.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox(capacity: usize) -> Arc<Inbox> {
        let pid = "a@127.0.0.1:1".parse().unwrap();
        Inbox::new(
            pid,
            HashMap::new(),
            false,
            Vec::new(),
            capacity,
            Clock::live(),
        )
    }
    fn exited() -> User {
        User::Exited {
            pid: "b@127.0.0.1:1".parse().unwrap(),
            reason: ExitReason::Normal,
        }
    }
    fn own_message() -> User {
        #[derive(serde::Serialize, serde::Deserialize)]
        struct Own;
        impl crate::message::Message for Own {
            const NAME: &'static str = "test.Own";
        }
        match message() {
            User::Message(envelope) => User::Message(Envelope {
                payload: Payload::Local(Box::new(Own)),
                ..envelope
            }),
            other @ (User::Exited { .. } | User::Terminate(_) | User::Nudge) => other,
        }
    }
    fn message() -> User {
        User::Message(Envelope {
            to: "a@127.0.0.1:1".parse().unwrap(),
            from: "b@127.0.0.1:1".parse().unwrap(),
            kind: Kind(1),
            correlation: Correlation::None,
            payload: Payload::Wire(bytes::Bytes::new()),
        })
    }

    #[test]
    fn drops_the_newest_message_when_full_but_never_an_exit_notice() {
        let inbox = inbox(2);
        assert!(inbox.push(message()).is_ok());
        assert!(inbox.push(message()).is_ok());
        assert_eq!(inbox.push(message()), Err(Refused::Full));
        assert!(inbox.push(exited()).is_ok());
        assert_eq!(
            (inbox.depth(), inbox.dropped.load(Ordering::Relaxed)),
            (3, 1)
        );
    }

    #[test]
    fn the_own_node_may_fill_a_reserve_that_other_nodes_may_not() {
        let inbox = inbox(2);
        for _ in 0..2 * OWN_RESERVE {
            assert!(inbox.push(own_message()).is_ok());
        }
        assert_eq!(inbox.push(message()), Err(Refused::Full));
        assert_eq!(inbox.push(own_message()), Err(Refused::OwnFull));
        assert!(inbox.push(exited()).is_ok());
        assert_eq!(inbox.dropped.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn so_many_http_requests_may_wait_and_no_more() {
        let inbox = inbox(2);
        let ask = || {
            let (path, query) = (String::new(), std::collections::BTreeMap::new());
            inbox.push_http(Request { path, query }, Responder::new().0)
        };
        for _ in 0..MAX_HTTP {
            assert!(ask().is_none());
        }
        assert!(ask().is_some(), "handed back, to be refused");
        while inbox.pop_control().is_some() {}
        assert!(ask().is_none());
    }

    #[test]
    fn wakes_its_host_once_until_it_rests() {
        let inbox = inbox(8);
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        inbox.set_wake(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        inbox.push(message()).unwrap();
        assert_eq!(
            woken.load(Ordering::Relaxed),
            0,
            "the first drain is due already"
        );
        assert!(inbox.rest(), "something waits");
        while inbox.pop_control().is_some() || inbox.pop_user().is_some() {}
        assert!(!inbox.rest());
        inbox.push(message()).unwrap();
        inbox.push(message()).unwrap();
        assert_eq!(woken.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn no_push_is_lost_between_drains_of_two_threads() {
        let inbox = inbox(usize::MAX);
        let pending = Arc::new(AtomicUsize::new(1));
        let wakes = Arc::clone(&pending);
        inbox.set_wake(move || {
            wakes.fetch_add(1, Ordering::AcqRel);
        });
        let total = 20_000;
        let sender = Arc::clone(&inbox);
        let thread = std::thread::spawn(move || {
            for _ in 0..total {
                sender.push(message()).unwrap();
            }
        });
        let mut taken = 0;
        while taken < total {
            if pending.swap(0, Ordering::AcqRel) == 0 {
                std::thread::yield_now();
                continue;
            }
            loop {
                while inbox.pop_control().is_some() {}
                while inbox.pop_user().is_some() {
                    taken += 1;
                }
                if !inbox.rest() {
                    break;
                }
            }
        }
        thread.join().unwrap();
        assert_eq!(inbox.depth(), 0);
    }
}
