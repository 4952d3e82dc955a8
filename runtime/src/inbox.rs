//! Mailbox of one process: two lanes, a bound, and the wake-up rule.
//!
//! The control lane (timers, operations, HTTP, failed asks) is served first and never refuses; the user lane
//! (messages and exit notices) is bounded in messages. A full mailbox drops the newest message and counts it; exit
//! notices are never dropped, and come after the last message of the process they tell of because they share its
//! lane. Processes of the own node keep books with each other, so their messages are dropped only when a reserve of
//! [`OWN_RESERVE`] times the bound is used up too. HTTP requests share the control lane; at most [`MAX_HTTP`] of
//! them wait. `push` never blocks for longer than it takes to move a few events.
//!
//! Both lanes and all flags stand under one lock, and every rule holds whenever it is free. The wake-up rule: user
//! events that may be served mean that `scheduled` is set, control events mean that `urgent` is set; and each set flag
//! means that the thread's run queue has an entry for this process, or that the process is being drained. So
//! whoever sets a flag posts the entry, nobody posts two, and no event waits for a wake-up that never comes.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::clock::{Clock, Time};
use crate::context::{AskError, TimerId};
use crate::host::stats::{DropCause, Stats};
use crate::host::worker::{self, Entry, RunQueue};
use crate::http::{Request, Responder};
use crate::links::ExitReason;
use crate::message::{Correlation, Mail, Payload};
use crate::pid::{Address, Pid};
use crate::process::Profile;

/// Default bound of the user lane, in messages.
pub(crate) const DEFAULT_MAILBOX: usize = 65_536;

/// How many times the bound may wait when the messages come from the own node.
pub(crate) const OWN_RESERVE: usize = 16;
/// HTTP requests that may wait for one process.
pub(crate) const MAX_HTTP: usize = 1_000;

/// Events that a lane keeps room for when it is empty. An idle process costs no more than this.
const KEPT_ROOM: usize = 8;
/// Events that the lane of a busy process keeps room for at most.
const MOST_ROOM: usize = 1_024;
/// Of so many messages one is noted with its time, to know how long the oldest has waited.
const MARK_EACH: u64 = 256;

/// An event of the control lane.
pub(crate) enum Control {
    Timer(TimerId),
    /// The earliest deadline of an ask has come.
    Deadline,
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
    Http(Box<(Request, Responder)>),
}

/// An event of the user lane.
pub(crate) enum User {
    Message(Mail),
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

/// What an inbox knows of where it stands.
pub(crate) struct Settings {
    pub(crate) id: Arc<str>,
    pub(crate) address: Address,
    /// The node it belongs to; nodes of one program have different numbers.
    pub(crate) node: u64,
    pub(crate) profile: Arc<Profile>,
    /// Bound of the user lane, in messages.
    pub(crate) capacity: usize,
    pub(crate) clock: Clock,
    /// Run queue of the thread that hosts the process.
    pub(crate) thread: Arc<RunQueue>,
}

pub(crate) struct Inbox {
    settings: Settings,
    /// Its place on its thread, from its start on.
    slot: AtomicU32,
    lanes: Mutex<Lanes>,
    /// Whether control events wait: looked at between two messages, without the lock.
    control_waits: AtomicBool,
    /// Messages taken out for this drain and not handled yet: they count as waiting.
    in_hand: AtomicUsize,
    closed: AtomicBool,
    pub(crate) stats: Stats,
}

struct Lanes {
    control: VecDeque<Control>,
    user: VecDeque<User>,
    /// HTTP requests in the control lane.
    http: usize,
    scheduled: bool,
    urgent: bool,
    /// User messages wait for an operation under `Gate::HoldUser`.
    held: bool,
    closed: bool,
    /// User events that were ever pushed.
    pushed: u64,
    /// No event of the user lane came before this time.
    since: Time,
    /// The same of those taken out for this drain.
    since_in_hand: Time,
    /// Times at which later events came, with how many had been pushed by then.
    marks: VecDeque<(u64, Time)>,
}

impl Lanes {
    /// Sets the flag of the user lane; `true` when it has to be posted for.
    fn schedule_user(&mut self) -> bool {
        let due = !self.scheduled && !self.held && !self.user.is_empty();
        self.scheduled |= due;
        due
    }

    /// Sets the flag of the control lane; `true` when it has to be posted for.
    fn schedule_control(&mut self) -> bool {
        let due = !self.urgent && !self.control.is_empty();
        self.urgent |= due;
        due
    }
}

/// What is left when a drain has done what it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Nothing that may be served: the next push posts an entry.
    Idle,
    /// Something that may be served: the flag stays set, and the drain posts its entry again.
    More,
}

impl Inbox {
    /// An inbox whose process has yet to start: until then both flags count as set, so that nobody posts an entry.
    /// The start itself counts as an event that the process has yet to finish.
    pub(crate) fn new(settings: Settings) -> Arc<Self> {
        settings.clock.busy();
        Arc::new(Self {
            settings,
            slot: AtomicU32::new(u32::MAX),
            lanes: Mutex::new(Lanes {
                control: VecDeque::new(),
                user: VecDeque::new(),
                http: 0,
                scheduled: true,
                urgent: true,
                held: false,
                closed: false,
                pushed: 0,
                since: Time::ZERO,
                since_in_hand: Time::ZERO,
                marks: VecDeque::new(),
            }),
            control_waits: AtomicBool::new(false),
            in_hand: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            stats: Stats::default(),
        })
    }

    /// PID of the process; made anew, since the process's own PID remembers this inbox and must not be kept by it.
    pub(crate) fn pid(&self) -> Pid {
        Pid::known(Arc::clone(&self.settings.id), self.settings.address.clone())
    }

    pub(crate) fn id(&self) -> &str {
        &self.settings.id
    }

    pub(crate) fn node(&self) -> u64 {
        self.settings.node
    }

    pub(crate) fn profile(&self) -> &Profile {
        &self.settings.profile
    }

    pub(crate) fn thread(&self) -> &Arc<RunQueue> {
        &self.settings.thread
    }

    /// The process has its place on its thread: from now on entries can be posted.
    pub(crate) fn place(&self, slot: u32) {
        self.slot.store(slot, Ordering::Release);
        let mut lanes = self.lanes.lock();
        lanes.urgent = false;
        lanes.scheduled = false;
        let control = lanes.schedule_control();
        let user = lanes.schedule_user();
        drop(lanes);
        self.post(control.then_some(Entry::Urgent(slot)));
        self.post(user.then_some(Entry::Ready(slot)));
    }

    /// Posts an entry, after the lock that covers its flag was freed: it may have to wake a thread. One that has ended
    /// takes no entries; its processes have ended with it.
    fn post(&self, entry: Option<Entry>) {
        if let Some(entry) = entry {
            let _ended = self.settings.thread.post(entry);
        }
    }

    fn slot(&self) -> u32 {
        self.slot.load(Ordering::Acquire)
    }

    pub(crate) fn push_control(&self, event: Control) {
        self.push_control_locked(self.lanes.lock(), event);
    }

    fn push_control_locked(&self, mut lanes: MutexGuard<'_, Lanes>, event: Control) {
        if lanes.closed {
            // What is dropped may run code of its own.
            drop(lanes);
            drop(event);
            return;
        }
        self.settings.clock.busy();
        lanes.control.push_back(event);
        self.control_waits.store(true, Ordering::Release);
        let post = lanes.schedule_control();
        drop(lanes);
        self.post(post.then(|| Entry::Urgent(self.slot())));
    }

    /// Takes an HTTP request, or hands its responder back when too many wait.
    pub(crate) fn push_http(&self, request: Request, responder: Responder) -> Option<Responder> {
        let mut lanes = self.lanes.lock();
        if lanes.http >= MAX_HTTP {
            return Some(responder);
        }
        if !lanes.closed {
            lanes.http += 1;
        }
        self.push_control_locked(lanes, Control::Http(Box::new((request, responder))));
        None
    }

    pub(crate) fn push(&self, event: User) -> Result<(), Refused> {
        let mut pushing = self.pushing();
        let pushed = pushing.push(event);
        pushing.finish();
        // A refused event is dropped here, after the lock was freed.
        pushed.map_err(|(refused, _event)| refused)
    }

    /// Begins to push a run of events. Short: everybody else waits.
    pub(crate) fn pushing(&self) -> Pushing<'_> {
        Pushing {
            inbox: self,
            lanes: self.lanes.lock(),
            post: false,
        }
    }

    /// The time, as the thread at work on this node read it last.
    fn about_now(&self) -> Time {
        worker::about_now(self.settings.node).unwrap_or_else(|| self.settings.clock.now())
    }

    /// Whether an event is dropped when as many wait as the bound allows. Only ordinary messages and requests are:
    /// an answer was asked for, an exit notice is promised.
    fn refused(&self, event: &User, waiting: usize) -> Option<Refused> {
        match event {
            User::Message(mail) => match (&mail.correlation, &mail.payload) {
                (Correlation::Answer(_), _) => None,
                // Only what came from another node or a guest is in its wire form.
                (Correlation::None | Correlation::Request(_), Payload::Wire(_)) => {
                    Some(Refused::Full)
                }
                (Correlation::None | Correlation::Request(_), Payload::Local(_)) => {
                    let reserve = self.settings.capacity.saturating_mul(OWN_RESERVE);
                    (waiting >= reserve).then_some(Refused::OwnFull)
                }
            },
            User::Exited { .. } | User::Terminate(_) | User::Nudge => None,
        }
    }

    /// Whether control events wait.
    pub(crate) fn control_waits(&self) -> bool {
        self.control_waits.load(Ordering::Acquire)
    }

    pub(crate) fn pop_control(&self) -> Option<Control> {
        let mut lanes = self.lanes.lock();
        let event = lanes.control.pop_front();
        if matches!(event, Some(Control::Http(..))) {
            lanes.http -= 1;
        }
        if lanes.control.is_empty() {
            self.control_waits.store(false, Ordering::Release);
            shrink(&mut lanes.control, 0);
        }
        event
    }

    /// Moves up to `most` user events into `batch`, which is empty; none while they are held. They count as waiting
    /// until [`Inbox::in_hand`] says otherwise.
    pub(crate) fn take(&self, batch: &mut VecDeque<User>, most: usize) {
        let mut lanes = self.lanes.lock();
        if lanes.held {
            return;
        }
        let count = lanes.user.len().min(most);
        if count == lanes.user.len() && count > KEPT_ROOM {
            // All of a busy lane: it takes the empty batch's room in exchange.
            std::mem::swap(batch, &mut lanes.user);
        } else {
            batch.extend(lanes.user.drain(..count));
        }
        self.in_hand.store(count, Ordering::Relaxed);
        lanes.since_in_hand = lanes.since;
        let first = lanes.pushed - lanes.user.len() as u64;
        while let Some((pushed, time)) = lanes.marks.front().copied()
            && pushed <= first
        {
            lanes.since = time;
            lanes.marks.pop_front();
        }
    }

    /// How many of the events taken have yet to be handled.
    pub(crate) fn in_hand(&self, left: usize) {
        self.in_hand.store(left, Ordering::Relaxed);
    }

    /// Puts back what a drain has taken and not handled.
    pub(crate) fn put_back(&self, batch: &mut VecDeque<User>) {
        let mut lanes = self.lanes.lock();
        self.in_hand.store(0, Ordering::Relaxed);
        if lanes.closed {
            self.settings.clock.done(batch.len() as u64);
            drop(lanes);
            batch.clear();
            return;
        }
        if !batch.is_empty() {
            lanes.since = lanes.since_in_hand;
        }
        while let Some(event) = batch.pop_back() {
            lanes.user.push_front(event);
        }
    }

    /// Holds user messages back, or lets them go.
    pub(crate) fn hold(&self, held: bool) {
        let mut lanes = self.lanes.lock();
        lanes.held = held;
        let post = lanes.schedule_user();
        drop(lanes);
        self.post(post.then(|| Entry::Ready(self.slot())));
    }

    /// Ends a drain of the user lane in which so many events were handled.
    pub(crate) fn rest(&self, handled: usize) -> Rest {
        let mut lanes = self.lanes.lock();
        if lanes.user.is_empty() || lanes.held {
            lanes.scheduled = false;
            shrink(&mut lanes.user, handled);
            Rest::Idle
        } else {
            Rest::More
        }
    }

    /// Ends a drain of the control lane.
    pub(crate) fn rest_control(&self) -> Rest {
        let mut lanes = self.lanes.lock();
        if lanes.control.is_empty() {
            lanes.urgent = false;
            Rest::Idle
        } else {
            Rest::More
        }
    }

    /// Takes no more events and drops those that wait.
    pub(crate) fn close(&self) {
        let mut lanes = self.lanes.lock();
        lanes.closed = true;
        self.closed.store(true, Ordering::Release);
        let control = std::mem::take(&mut lanes.control);
        let user = std::mem::take(&mut lanes.user);
        lanes.marks = VecDeque::new();
        drop(lanes);
        self.control_waits.store(false, Ordering::Release);
        let dropped = control.len() + user.len();
        // Outside the lock: what is dropped may run code of its own.
        drop((control, user));
        self.settings.clock.done(dropped as u64);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Messages that wait.
    pub(crate) fn depth(&self) -> usize {
        self.lanes.lock().user.len() + self.in_hand.load(Ordering::Relaxed)
    }

    /// Control events that wait.
    pub(crate) fn control_depth(&self) -> usize {
        self.lanes.lock().control.len()
    }

    /// How many of the control events that wait are HTTP requests.
    pub(crate) fn http_depth(&self) -> usize {
        self.lanes.lock().http
    }

    /// How long the oldest waiting message has waited; at most as much too long as it takes [`MARK_EACH`] messages
    /// to come.
    pub(crate) fn oldest(&self) -> Duration {
        let lanes = self.lanes.lock();
        let since = if self.in_hand.load(Ordering::Relaxed) > 0 {
            lanes.since_in_hand
        } else if lanes.user.is_empty() {
            return Duration::ZERO;
        } else {
            lanes.since
        };
        self.settings.clock.now().since(since)
    }
}

/// Pushes a run of events under one lock.
pub(crate) struct Pushing<'a> {
    inbox: &'a Inbox,
    lanes: MutexGuard<'a, Lanes>,
    post: bool,
}

impl Pushing<'_> {
    /// Puts one event into the user lane, or hands it back: what it holds must not be dropped under the lock.
    pub(crate) fn push(&mut self, event: User) -> Result<(), (Refused, User)> {
        let (inbox, lanes) = (self.inbox, &mut *self.lanes);
        if lanes.closed {
            return Err((Refused::Closed, event));
        }
        let waiting = lanes.user.len() + inbox.in_hand.load(Ordering::Relaxed);
        if waiting >= inbox.settings.capacity
            && let Some(refused) = inbox.refused(&event, waiting)
        {
            let cause = match refused {
                Refused::Full | Refused::Closed => DropCause::MailboxFull,
                Refused::OwnFull => DropCause::ReserveFull,
            };
            inbox.stats.dropped(cause, 1);
            return Err((refused, event));
        }
        inbox.settings.clock.busy();
        if lanes.user.is_empty() {
            lanes.since = inbox.about_now();
        } else if lanes.pushed.is_multiple_of(MARK_EACH) {
            let mark = (lanes.pushed, inbox.about_now());
            lanes.marks.push_back(mark);
        }
        lanes.pushed += 1;
        lanes.user.push_back(event);
        self.post |= lanes.schedule_user();
        Ok(())
    }

    /// Puts up to `most` messages into the user lane behind one that was just put there, as many as have room for
    /// certain; none is refused.
    pub(crate) fn push_run(&mut self, most: usize, events: impl Iterator<Item = User>) {
        let (inbox, lanes) = (self.inbox, &mut *self.lanes);
        let waiting = lanes.user.len() + inbox.in_hand.load(Ordering::Relaxed);
        let room = inbox.settings.capacity.saturating_sub(waiting).min(most);
        let before = lanes.user.len();
        lanes.user.extend(events.take(room));
        let count = (lanes.user.len() - before) as u64;
        inbox.settings.clock.busy_with(count);
        let mark = lanes.pushed.next_multiple_of(MARK_EACH);
        lanes.pushed += count;
        if mark < lanes.pushed {
            lanes.marks.push_back((mark, inbox.about_now()));
        }
    }

    /// Frees the lock and wakes whoever has to serve what was pushed.
    pub(crate) fn finish(self) {
        let Self { inbox, lanes, post } = self;
        drop(lanes);
        inbox.post(post.then(|| Entry::Ready(inbox.slot())));
    }
}

/// Gives back room that a burst took, unless the last drain could use it again.
fn shrink<T>(lane: &mut VecDeque<T>, handled: usize) {
    let room = lane.capacity();
    let kept = KEPT_ROOM.max(handled.saturating_mul(4)).min(MOST_ROOM);
    if lane.is_empty() && room > kept {
        *lane = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Kind;

    fn inbox(capacity: usize) -> Arc<Inbox> {
        Inbox::new(Settings {
            id: Arc::from("a"),
            address: Address::new("127.0.0.1", 1),
            node: u64::MAX,
            profile: Arc::default(),
            capacity,
            clock: Clock::live(),
            thread: RunQueue::new(u64::MAX, 0, false),
        })
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
            User::Message(mail) => User::Message(Mail {
                payload: Payload::Local(crate::message::Parcel::new(Own)),
                ..mail
            }),
            other @ (User::Exited { .. } | User::Terminate(_) | User::Nudge) => other,
        }
    }
    fn message() -> User {
        User::Message(Mail {
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
        assert_eq!((inbox.depth(), inbox.stats.refused()), (3, 1));
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
        assert_eq!(inbox.stats.refused(), 2);
    }

    #[test]
    fn a_run_takes_no_more_than_there_is_room_for_and_leaves_the_rest() {
        let inbox = inbox(5);
        let mut run = std::iter::repeat_with(own_message).take(10);
        let mut pushing = inbox.pushing();
        assert!(pushing.push(message()).is_ok());
        pushing.push_run(3, run.by_ref());
        pushing.push_run(64, run.by_ref());
        pushing.push_run(64, run.by_ref());
        pushing.finish();
        assert_eq!((inbox.depth(), run.count()), (5, 6));
        assert_eq!(inbox.stats.refused(), 0);
        assert_eq!(inbox.lanes.lock().pushed, 5);
    }

    #[test]
    fn so_many_http_requests_may_wait_and_no_more() {
        let inbox = inbox(2);
        let ask = || {
            let request = Request::default();
            inbox.push_http(request, Responder::new().0)
        };
        for _ in 0..MAX_HTTP {
            assert!(ask().is_none());
        }
        assert!(ask().is_some(), "handed back, to be refused");
        while inbox.pop_control().is_some() {}
        assert!(ask().is_none());
    }

    /// A host with its run queue, one step at a time: what is posted, and whether an entry is being served.
    #[derive(Default)]
    struct Host {
        ready: usize,
        urgent: usize,
    }

    impl Host {
        /// Takes over what was posted; the queue is told apart from a thread's, so all comes from elsewhere.
        fn collect(&mut self, inbox: &Inbox) {
            for entry in inbox.thread().taken() {
                match entry {
                    Entry::Ready(slot) => {
                        assert_eq!(slot, 3);
                        self.ready += 1;
                    }
                    Entry::Urgent(slot) => {
                        assert_eq!(slot, 3);
                        self.urgent += 1;
                    }
                    Entry::Start(_) | Entry::Stop(_) => unreachable!("nobody posts these here"),
                }
            }
        }
    }

    /// Every order of pushes, holds, releases and drains up to a length, each step one stretch under the lock: what may
    /// be served always has exactly one entry posted or being served, and the drains find all of it in the end.
    #[test]
    fn no_order_of_steps_loses_a_wake_up_or_posts_two() {
        #[derive(Clone, Copy, Debug)]
        enum Step {
            Push,
            PushControl,
            Hold,
            Release,
            /// One step of a drain of both lanes: begin, take one event, or rest.
            Serve,
            ServeControl,
        }
        use Step::{Hold, Push, PushControl, Release, Serve, ServeControl};
        const STEPS: [Step; 6] = [Push, PushControl, Hold, Release, Serve, ServeControl];
        const LENGTH: u32 = 7;
        for run in 0..STEPS.len().pow(LENGTH) {
            let inbox = inbox(usize::MAX);
            inbox.place(3);
            let mut host = Host::default();
            let (mut serving, mut serving_control) = (false, false);
            let (mut pushed, mut served) = (0, 0);
            let mut batch = VecDeque::new();
            let mut rest = run;
            for _ in 0..LENGTH {
                let step = STEPS[rest % STEPS.len()];
                rest /= STEPS.len();
                match step {
                    Push => {
                        pushed += 1;
                        inbox.push(exited()).unwrap();
                    }
                    PushControl => {
                        pushed += 1;
                        inbox.push_control(Control::Deadline);
                    }
                    Hold => inbox.hold(true),
                    Release => inbox.hold(false),
                    Serve if serving => {
                        inbox.take(&mut batch, 1);
                        served += batch.len();
                        if batch.is_empty() || batch.pop_front().is_none() {
                            serving = inbox.rest(0) == Rest::More;
                        }
                        inbox.in_hand(0);
                    }
                    Serve if host.ready > 0 => {
                        host.ready -= 1;
                        serving = true;
                    }
                    ServeControl if serving_control => {
                        if inbox.pop_control().is_some() {
                            served += 1;
                        } else {
                            serving_control = inbox.rest_control() == Rest::More;
                        }
                    }
                    ServeControl if host.urgent > 0 => {
                        host.urgent -= 1;
                        serving_control = true;
                    }
                    Serve | ServeControl => {}
                }
                host.collect(&inbox);
                let lanes = inbox.lanes.lock();
                let entries = (
                    host.ready + usize::from(serving),
                    host.urgent + usize::from(serving_control),
                );
                let flags = (usize::from(lanes.scheduled), usize::from(lanes.urgent));
                assert_eq!(entries, flags, "one entry for each flag, after run {run}");
                assert!(lanes.user.is_empty() || lanes.held || lanes.scheduled);
                assert!(lanes.control.is_empty() || lanes.urgent);
            }
            inbox.hold(false);
            host.collect(&inbox);
            if serving || host.ready > 0 {
                inbox.take(&mut batch, usize::MAX);
                served += batch.len();
            }
            while (serving_control || host.urgent > 0) && inbox.pop_control().is_some() {
                served += 1;
            }
            assert_eq!(served, pushed, "all is served in the end, after run {run}");
        }
    }

    #[test]
    fn the_oldest_message_waits_also_while_a_drain_has_it_in_hand() {
        let inbox = inbox(usize::MAX);
        for _ in 0..3 {
            inbox.push(exited()).unwrap();
        }
        let mut batch = VecDeque::new();
        inbox.take(&mut batch, 2);
        let clock = &inbox.settings.clock;
        let begun = clock.now();
        while clock.now().since(begun) < Duration::from_millis(2) {}
        assert!(inbox.oldest() >= Duration::from_millis(2));
        inbox.take(&mut VecDeque::new(), 1);
        assert!(
            inbox.oldest() >= Duration::from_millis(2),
            "the lane is empty"
        );
        inbox.push(exited()).unwrap();
        inbox.put_back(&mut batch);
        assert!(
            inbox.oldest() >= Duration::from_millis(2),
            "put back before the new one"
        );
        inbox.take(&mut batch, 9);
        inbox.in_hand(0);
        assert_eq!(inbox.oldest(), Duration::ZERO);
    }

    #[test]
    fn what_a_drain_did_not_handle_keeps_its_place() {
        let inbox = inbox(usize::MAX);
        let pushed = |n| User::Terminate(ExitReason::Panic(n));
        for n in ["1", "2", "3"] {
            inbox.push(pushed(n.to_owned())).unwrap();
        }
        let mut batch = VecDeque::new();
        inbox.take(&mut batch, 2);
        assert_eq!(inbox.depth(), 3, "what was taken waits still");
        batch.pop_front();
        inbox.put_back(&mut batch);
        assert_eq!(inbox.depth(), 2);
        inbox.take(&mut batch, 9);
        let order = batch.iter().map(|event| match event {
            User::Terminate(ExitReason::Panic(n)) => n.clone(),
            User::Message(_) | User::Exited { .. } | User::Terminate(_) | User::Nudge => {
                String::new()
            }
        });
        assert_eq!(order.collect::<Vec<_>>(), ["2", "3"]);
    }
}
