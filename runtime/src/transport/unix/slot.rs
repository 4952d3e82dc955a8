//! One peer's place in the transport: its state, what waits for it, and its connection.
//!
//! Two locks, always taken in this order:
//!
//! - `turn` is held while the peer's state changes and while the node is called, so that calls for one peer come in
//!   order and no frame of a connection is delivered after its loss was told. Senders never take it.
//! - `state` is held for a moment only: by senders to append a frame, by the writer to take a chunk.
//!
//! Of the outbox's lanes only the first is used: a guest speaks as one actor, so its messages are of few pairs.

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tracing::debug;

use crate::codec::Class;
use crate::pid::Pid;
use crate::transport::lanes::{Body, Outbox, Taken};
use crate::transport::peers::{self, ConnectionId, Effect};
use crate::transport::{LaneStatus, Peer, PeerKey, PeerStatus, SendError};

/// The lane that is used.
const LANE: usize = 0;

/// A connection that may carry frames.
pub(super) struct Live {
    pub(super) id: ConnectionId,
    pub(super) stream: UnixStream,
    pub(super) peer: Peer,
    /// How many message kinds the peer said it knows.
    pub(super) kinds: usize,
    /// Wakes the writer: something was queued, or `finishing` was set.
    wake: Notify,
    /// Set at the shutdown: the writer ends when nothing waits.
    finishing: AtomicBool,
    finished: Notify,
    closed: AtomicBool,
    /// Set when nothing more of the connection is to be delivered.
    condemned: AtomicBool,
}

impl Live {
    pub(super) fn new(id: ConnectionId, stream: UnixStream, peer: Peer, kinds: usize) -> Self {
        Self {
            id,
            stream,
            peer,
            kinds,
            wake: Notify::new(),
            finishing: AtomicBool::new(false),
            finished: Notify::new(),
            closed: AtomicBool::new(false),
            condemned: AtomicBool::new(false),
        }
    }

    /// Lets the writer end when it has sent what is queued.
    pub(super) fn finish(&self) {
        self.finishing.store(true, Ordering::SeqCst);
        self.wake.notify_one();
    }

    pub(super) fn is_finishing(&self) -> bool {
        self.finishing.load(Ordering::SeqCst)
    }

    /// Waits until there may be something to write.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// The writer has ended.
    pub(super) fn writer_ended(&self) {
        self.finished.notify_one();
    }

    /// Waits until the writer has ended. For one caller.
    pub(super) async fn finished(&self) {
        self.finished.notified().await;
    }

    /// Ends the connection for both sides. What the kernel holds already can still be read, unless it is condemned.
    pub(super) fn close(&self) {
        if self.closed.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Err(error) = SockRef::from(&self.stream).shutdown(Shutdown::Both) {
            debug!(peer = %self.peer.key, %error, "connection had ended before it was closed");
        }
        self.wake.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Ends the connection; nothing more of it is delivered.
    pub(super) fn condemn(&self) {
        self.condemned.store(true, Ordering::SeqCst);
        self.close();
    }

    fn is_condemned(&self) -> bool {
        self.condemned.load(Ordering::SeqCst)
    }
}

pub(super) struct State {
    pub(super) machine: peers::Peer,
    outbox: Outbox,
    pub(super) current: Option<Arc<Live>>,
    pub(super) dial: Option<AbortHandle>,
    pub(super) timer: Option<AbortHandle>,
    /// Why the last dial failed, for the log.
    pub(super) last_failure: Option<String>,
}

impl State {
    fn is_current(&self, id: ConnectionId) -> bool {
        self.current.as_ref().is_some_and(|live| live.id == id)
    }

    /// Drops what waits and says how many frames that were.
    pub(super) fn drop_queued(&mut self) -> u64 {
        self.outbox.clear()
    }
}

pub(super) struct Slot {
    pub(super) key: PeerKey,
    pub(super) turn: Mutex<()>,
    pub(super) state: Mutex<State>,
    pub(super) received_frames: AtomicU64,
    pub(super) received_bytes: AtomicU64,
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
            }),
            received_frames: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Queues a frame. The effects, which only start dials and timers, are for `perform`, under the same lock.
    pub(super) fn send(
        &self,
        now: impl FnOnce() -> Duration,
        class: Class,
        (to, from): (&Arc<str>, &Pid),
        body: Body<'_>,
        perform: impl FnOnce(&mut State, Vec<Effect>),
    ) -> Result<(), SendError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let waiting = state.outbox.queued();
        let queued = (state.machine)
            .admit_class(now, class, body.len(), waiting)
            .map_err(|refusal| refusal.told(&self.key, waiting))
            .and_then(|effects| {
                let pushed = state.outbox.push(LANE, class, to, from, body);
                let was_empty = pushed.map_err(|source| SendError::Codec {
                    peer: self.key.clone(),
                    source,
                })?;
                Ok((was_empty, effects))
            });
        let (was_empty, effects) = queued.inspect_err(|_| {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        })?;
        // With something waiting already the writer is awake or about to be.
        if was_empty && let Some(live) = &state.current {
            live.wake.notify_one();
        }
        if !effects.is_empty() {
            perform(state, effects);
        }
        Ok(())
    }

    /// The next chunk for the connection `id`.
    pub(super) fn take(&self, id: ConnectionId) -> Taken {
        let mut state = self.state.lock();
        if !state.is_current(id) {
            return Taken::Gone;
        }
        state.outbox.next(LANE)
    }

    /// A taken chunk of `bytes` was written to the connection `id`. Says whether nothing waits any more.
    pub(super) fn written(&self, id: ConnectionId, bytes: usize) -> bool {
        let mut state = self.state.lock();
        if state.is_current(id) {
            state.outbox.written(LANE, bytes);
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

    pub(super) fn current(&self) -> Option<Arc<Live>> {
        self.state.lock().current.clone()
    }

    pub(super) fn status(&self) -> PeerStatus {
        let state = self.state.lock();
        let (queued_bytes, sent, routes_named) = state.outbox.lane(LANE);
        let live = state.current.as_ref();
        let lane = LaneStatus {
            lane: LANE,
            queued_bytes,
            sent_frames: sent.frames,
            sent_bytes: sent.bytes,
            routes_named,
            received_frames: self.received_frames.load(Ordering::Relaxed),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
        };
        PeerStatus {
            peer: self.key.to_string(),
            connected: state.machine.is_connected(),
            queued_bytes: state.outbox.queued(),
            sent: lane.sent_frames,
            received: lane.received_frames,
            dropped: self.dropped.load(Ordering::Relaxed),
            kinds: live.map_or(0, |live| live.kinds),
            incarnation: live.map(|live| format!("{:016x}", live.peer.incarnation.0)),
            sent_bytes: lane.sent_bytes,
            received_bytes: lane.received_bytes,
            lanes: vec![lane],
            last_failure: state.last_failure.clone(),
            ..PeerStatus::default()
        }
    }
}
