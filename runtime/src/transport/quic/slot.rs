//! One peer's place in the transport: its state, what waits for it, and the connection that counts.
//!
//! Two locks, always taken in this order:
//!
//! - `turn` is held while the peer's state changes and while the node is called, so that calls for one peer come in
//!   order and no frame of a connection is delivered after its loss was told. Senders never take it.
//! - `state` is held for a moment only: by senders to append a frame, by lane tasks to take a chunk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::control::{MAX_WAITING, Word};
use crate::codec::Class;
use crate::pid::Pid;
use crate::transport::lanes::{Body, LANES, Outbox, Taken, lane_of};
use crate::transport::peers::{self, ConnectionId, Effect};
use crate::transport::{LaneStatus, Peer, PeerKey, PeerStatus, SendError};

/// Bytes of link frames and exit notices that may wait beyond the bound for messages. They are never dropped one by one,
/// since each link must end in exactly one notice: with more, the connection ends, and all links with it.
const NOTICE_ROOM: usize = 16 << 20;
/// Least time between two words of overload to one peer.
const OVERLOAD_EVERY_MS: u64 = 100;

/// A connection that may carry frames.
pub(super) struct Live {
    pub(super) id: ConnectionId,
    pub(super) connection: quinn::Connection,
    pub(super) peer: Peer,
    /// Message kinds the peer said it knows, each with its version.
    pub(super) kinds: Vec<(u32, u16)>,
    /// Whether the peer can be dialled, and so has a TCP port of the same number if it has any.
    pub(super) dialable: bool,
    /// Wakes a lane's task: something was queued, or `finishing` was set.
    wake: [Notify; LANES],
    /// One bit for each lane that has a task. A lane gets one when the first frame is queued for it.
    opened: AtomicUsize,
    /// One bit for each lane that the peer has opened.
    claimed: AtomicUsize,
    /// Set at the shutdown: lanes end when they are empty.
    finishing: AtomicBool,
    /// Set when the peer broke a rule: nothing more of the connection is delivered.
    condemned: AtomicBool,
    open_lanes: AtomicUsize,
    lanes_ended: Notify,
    /// Words that wait to be written to the control stream.
    words: Mutex<Vec<u8>>,
    /// Wakes the task that attends to the connection: there are words, or one of the flags below was set.
    pub(super) attend: Notify,
    /// The peer may have ended: it must answer a ping.
    suspected: AtomicBool,
    /// It has most probably ended.
    suspected_more: AtomicBool,
    /// A process here has linked to one of the peer's, or the other way round and only we can open a probe.
    probe_wanted: AtomicBool,
    /// Frames received on this connection.
    pub(super) received: AtomicU64,
    /// When the peer was last told that a process here is overloaded, in milliseconds of the transport's time.
    overloaded_at: AtomicU64,
    /// Bytes of unfinished messages by lane.
    pub(super) assembling: [AtomicUsize; LANES],
}

impl Live {
    pub(super) fn new(
        id: ConnectionId,
        connection: quinn::Connection,
        peer: Peer,
        kinds: Vec<(u32, u16)>,
        dialable: bool,
    ) -> Self {
        Self {
            id,
            connection,
            peer,
            kinds,
            dialable,
            wake: Default::default(),
            opened: AtomicUsize::new(0),
            claimed: AtomicUsize::new(0),
            finishing: AtomicBool::new(false),
            condemned: AtomicBool::new(false),
            open_lanes: AtomicUsize::new(0),
            lanes_ended: Notify::new(),
            words: Mutex::default(),
            attend: Notify::new(),
            suspected: AtomicBool::new(false),
            suspected_more: AtomicBool::new(false),
            probe_wanted: AtomicBool::new(false),
            received: AtomicU64::new(0),
            overloaded_at: AtomicU64::new(0),
            assembling: Default::default(),
        }
    }

    /// Queues a word for the control stream; `false` when too many wait, because the peer does not read.
    pub(super) fn say(&self, word: &Word) -> bool {
        let mut words = self.words.lock();
        if words.len() > MAX_WAITING {
            return false;
        }
        word.write(&mut words);
        drop(words);
        self.attend.notify_one();
        true
    }

    /// Takes the words that wait.
    pub(super) fn take_words(&self) -> Vec<u8> {
        std::mem::take(&mut *self.words.lock())
    }

    /// Has the peer pinged: it may have ended.
    pub(super) fn suspect(&self) {
        self.suspected.store(true, Ordering::SeqCst);
        self.attend.notify_one();
    }

    /// Its port is closed too, so it has little time for an answer.
    pub(super) fn suspect_more(&self) {
        self.suspected_more.store(true, Ordering::SeqCst);
        self.suspect();
    }

    pub(super) fn take_suspicion(&self) -> bool {
        self.suspected.swap(false, Ordering::SeqCst)
    }

    pub(super) fn take_more_suspicion(&self) -> bool {
        self.suspected_more.swap(false, Ordering::SeqCst)
    }

    /// A process here links to one of the peer's.
    pub(super) fn linked(&self) {
        if !self.probe_wanted.swap(true, Ordering::SeqCst) {
            self.attend.notify_one();
        }
    }

    /// A process of the peer links to one here. A peer that listens has its own probe then.
    pub(super) fn linked_by_peer(&self, listening: bool) {
        if !listening {
            self.linked();
        }
    }

    pub(super) fn is_probe_wanted(&self) -> bool {
        self.probe_wanted.load(Ordering::SeqCst)
    }

    /// Counts received frames.
    pub(super) fn took(&self, frames: u64) {
        self.received.fetch_add(frames, Ordering::AcqRel);
    }

    /// Whether it is time to tell the peer again that a process here is overloaded.
    pub(super) fn may_tell_overload(&self, now: Duration) -> bool {
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX).max(1);
        let last = self.overloaded_at.load(Ordering::Relaxed);
        (last == 0 || now.saturating_sub(last) >= OVERLOAD_EVERY_MS)
            && self
                .overloaded_at
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Lets the lanes end when they have sent what is queued.
    pub(super) fn finish(&self) {
        self.finishing.store(true, Ordering::SeqCst);
        self.wake_lanes();
    }

    /// Lets the tasks of all lanes look again.
    pub(super) fn wake_lanes(&self) {
        self.wake.iter().for_each(Notify::notify_one);
    }

    pub(super) fn is_finishing(&self) -> bool {
        self.finishing.load(Ordering::SeqCst)
    }

    /// Waits until there may be something to do for a lane.
    pub(super) async fn woken(&self, lane: usize) {
        self.wake[lane].notified().await;
    }

    /// Wakes the task of a lane; `true` when it has none yet and the caller must start it.
    #[must_use]
    pub(super) fn rouse(&self, lane: usize) -> bool {
        let bit = 1 << lane;
        if self.opened.load(Ordering::Acquire) & bit == 0
            && self.opened.fetch_or(bit, Ordering::AcqRel) & bit == 0
        {
            self.open_lanes.fetch_add(1, Ordering::SeqCst);
            return true;
        }
        self.wake[lane].notify_one();
        false
    }

    pub(super) fn lane_ended(&self) {
        if self.open_lanes.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.lanes_ended.notify_one();
        }
    }

    /// Waits until all lanes have ended. For one caller.
    pub(super) async fn lanes_ended(&self) {
        while self.open_lanes.load(Ordering::SeqCst) > 0 {
            self.lanes_ended.notified().await;
        }
    }

    /// Notes that the peer has opened this lane; `false` when it had already.
    pub(super) fn claim(&self, lane: usize) -> bool {
        let bit = 1 << lane;
        self.claimed.fetch_or(bit, Ordering::AcqRel) & bit == 0
    }

    pub(super) fn condemn(&self) {
        self.condemned.store(true, Ordering::SeqCst);
    }

    fn is_condemned(&self) -> bool {
        self.condemned.load(Ordering::SeqCst)
    }
}

pub(super) struct State {
    pub(super) machine: peers::Peer,
    pub(super) outbox: Outbox,
    pub(super) current: Option<Arc<Live>>,
    pub(super) dial: Option<AbortHandle>,
    pub(super) timer: Option<AbortHandle>,
    /// Why the last dial failed, for the log.
    pub(super) last_failure: Option<String>,
    /// A link waits for a connection, which is then to have a probe.
    pub(super) link_waits: bool,
    /// Whether the connection that is being lost was closed on purpose, which is no news for an operator.
    pub(super) ended_orderly: bool,
}

impl State {
    pub(super) fn is_current(&self, id: ConnectionId) -> bool {
        self.current.as_ref().is_some_and(|live| live.id == id)
    }

    /// Drops what waits and says how many frames that were.
    pub(super) fn drop_queued(&mut self) -> u64 {
        self.outbox.clear()
    }

    /// Starts or wakes the tasks of all lanes in which something waits.
    pub(super) fn rouse_all(&self, mut start: impl FnMut(&Arc<Live>, usize)) {
        let Some(live) = &self.current else { return };
        for lane in 0..LANES {
            if !self.outbox.is_empty(lane) && live.rouse(lane) {
                start(live, lane);
            }
        }
    }
}

/// What came over one lane.
#[derive(Default)]
pub(super) struct Received {
    pub(super) frames: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// What has to be done outside after a frame was queued.
pub(super) enum Next<'a> {
    /// Carry these out: they start dials and timers.
    Perform(&'a mut State, Vec<Effect>),
    /// Start the task of this lane.
    Open(Arc<Live>, usize),
    /// Close this connection: its peer is told of ends and does not read.
    Overrun(Arc<Live>),
}

pub(super) struct Slot {
    pub(super) key: PeerKey,
    pub(super) turn: Mutex<()>,
    pub(super) state: Mutex<State>,
    pub(super) received: [Received; LANES],
    pub(super) dropped: AtomicU64,
}

impl Slot {
    pub(super) fn new(key: PeerKey, machine: peers::Peer) -> Self {
        Self {
            key,
            turn: Mutex::new(()),
            state: Mutex::new(State {
                machine,
                outbox: Outbox::default(),
                current: None,
                dial: None,
                timer: None,
                last_failure: None,
                link_waits: false,
                ended_orderly: false,
            }),
            received: Default::default(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Queues a frame. What follows from it is for `next`, under the same lock.
    pub(super) fn send(
        &self,
        now: impl FnOnce() -> Duration,
        class: Class,
        (to, from): (&Arc<str>, &Pid),
        body: Body<'_>,
        next: impl FnOnce(Next<'_>),
    ) -> Result<(), SendError> {
        let lane = lane_of(to, from.id());
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if class == Class::Link {
            match &state.current {
                Some(live) => live.linked(),
                None => state.link_waits = true,
            }
        }
        let room = state.machine.max_queue().saturating_add(NOTICE_ROOM);
        if state.outbox.queued() > room && !matches!(class, Class::Message { .. }) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            let queued = state.outbox.queued();
            if let Some(live) = state.current.clone() {
                next(Next::Overrun(live));
            }
            return Err(SendError::QueueFull {
                peer: self.key.clone(),
                queued,
            });
        }
        let queued = state.outbox.queued();
        let effects = (state.machine)
            .admit_class(now, class, body.len(), queued)
            .map_err(|refusal| refusal.told(&self.key, queued))
            .and_then(|effects| {
                let was_empty = state.outbox.push(lane, class, to, from, body);
                let was_empty = was_empty.map_err(|source| SendError::Codec {
                    peer: self.key.clone(),
                    source,
                })?;
                Ok((was_empty, effects))
            });
        let (was_empty, effects) = effects.inspect_err(|_| {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        })?;
        if !effects.is_empty() {
            next(Next::Perform(state, effects));
        } else if was_empty
            // A lane that had something already has its task awake or about to be.
            && let Some(live) = &state.current
            && live.rouse(lane)
        {
            next(Next::Open(Arc::clone(live), lane));
        }
        Ok(())
    }

    /// The next chunk of a lane for the connection `id`.
    pub(super) fn take(&self, id: ConnectionId, lane: usize) -> Taken {
        let mut state = self.state.lock();
        if !state.is_current(id) {
            return Taken::Gone;
        }
        state.outbox.next(lane)
    }

    /// A taken chunk of `bytes` was handed to the connection `id`. Says whether nothing waits any more.
    pub(super) fn written(&self, id: ConnectionId, lane: usize, bytes: usize) -> bool {
        let mut state = self.state.lock();
        if state.is_current(id) {
            state.outbox.written(lane, bytes);
        }
        state.outbox.queued() == 0
    }

    /// Calls `deliver` for a connection that still counts, in turn; `false` when it counts no more.
    pub(super) fn in_turn(&self, live: &Live, deliver: impl FnOnce()) -> bool {
        let _turn = self.turn.lock();
        if live.is_condemned() || !self.state.lock().is_current(live.id) {
            return false;
        }
        deliver();
        true
    }

    pub(super) fn queued(&self) -> usize {
        self.state.lock().outbox.queued()
    }

    pub(super) fn status(&self) -> PeerStatus {
        let state = self.state.lock();
        let lanes: Vec<_> = (0..LANES)
            .map(|lane| {
                let (queued_bytes, sent, routes_named) = state.outbox.lane(lane);
                let received = &self.received[lane];
                LaneStatus {
                    lane,
                    queued_bytes,
                    sent_frames: sent.frames,
                    sent_bytes: sent.bytes,
                    routes_named,
                    received_frames: received.frames.load(Ordering::Relaxed),
                    received_bytes: received.bytes.load(Ordering::Relaxed),
                }
            })
            .collect();
        let (queued_bytes, connected) = (state.outbox.queued(), state.machine.is_connected());
        let live = state.current.clone();
        let last_failure = state.last_failure.clone();
        drop(state);
        let path = live.as_ref().map(|live| live.connection.stats().path);
        PeerStatus {
            peer: self.key.to_string(),
            connected,
            queued_bytes,
            sent: lanes.iter().map(|lane| lane.sent_frames).sum(),
            received: lanes.iter().map(|lane| lane.received_frames).sum(),
            dropped: self.dropped.load(Ordering::Relaxed),
            kinds: live.as_ref().map_or(0, |live| live.kinds.len()),
            incarnation: live.map(|live| format!("{:016x}", live.peer.incarnation.0)),
            rtt_us: path.map_or(0, |path| {
                u64::try_from(path.rtt.as_micros()).unwrap_or(u64::MAX)
            }),
            lost_packets: path.map_or(0, |path| path.lost_packets),
            congestion_window: path.map_or(0, |path| path.cwnd),
            last_failure,
            sent_bytes: lanes.iter().map(|lane| lane.sent_bytes).sum(),
            received_bytes: lanes.iter().map(|lane| lane.received_bytes).sum(),
            lanes,
        }
    }
}
