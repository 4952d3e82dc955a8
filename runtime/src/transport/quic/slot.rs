//! One peer's place in the transport: its state, what waits for it, and the connection that counts.
//!
//! Two locks, always taken in this order:
//!
//! - `turn` is held while the peer's state changes and while the node is called, so that calls for one peer come in
//!   order and no frame of a connection is delivered after its loss was told. Senders never take it.
//! - `state` is held for a moment only: by senders to append a frame, by lane tasks to take a chunk.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::codec::{Class, Frame};
use crate::transport::peers::{self, ConnectionId, Effect, Refusal};
use crate::transport::{Peer, PeerKey, PeerStatus, SendError};

/// Data lanes of each side. A pair of PIDs always uses the same one, which keeps its order.
pub(super) const LANES: usize = 4;
/// Bytes after which a chunk is closed and the next is begun; also the largest piece handed to quinn, which counts
/// a partly acknowledged piece in full against its window.
pub(super) const CHUNK: usize = 64 << 10;

/// A connection that may carry frames.
pub(super) struct Live {
    pub(super) id: ConnectionId,
    pub(super) connection: quinn::Connection,
    pub(super) peer: Peer,
    /// Message kinds the peer said it knows, each with its version.
    pub(super) kinds: Vec<(u32, u16)>,
    /// Wakes a lane's task: something was queued, or `finishing` was set.
    wake: [Notify; LANES],
    /// Set at the shutdown: lanes end when they are empty.
    finishing: AtomicBool,
    /// Set when the peer broke a rule: nothing more of the connection is delivered.
    condemned: AtomicBool,
    open_lanes: AtomicUsize,
    lanes_ended: Notify,
}

impl Live {
    pub(super) fn new(
        id: ConnectionId,
        connection: quinn::Connection,
        peer: Peer,
        kinds: Vec<(u32, u16)>,
    ) -> Self {
        Self {
            id,
            connection,
            peer,
            kinds,
            wake: Default::default(),
            finishing: AtomicBool::new(false),
            condemned: AtomicBool::new(false),
            open_lanes: AtomicUsize::new(LANES),
            lanes_ended: Notify::new(),
        }
    }

    /// Lets the lanes end when they have sent what is queued.
    pub(super) fn finish(&self) {
        self.finishing.store(true, Ordering::SeqCst);
        self.wake.iter().for_each(Notify::notify_one);
    }

    pub(super) fn is_finishing(&self) -> bool {
        self.finishing.load(Ordering::SeqCst)
    }

    /// Waits until there may be something to do for a lane.
    pub(super) async fn woken(&self, lane: usize) {
        self.wake[lane].notified().await;
    }

    pub(super) fn lane_ended(&self) {
        if self.open_lanes.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.lanes_ended.notify_one();
        }
    }

    /// Waits until all lanes have ended. For one caller.
    pub(super) async fn lanes_ended(&self) {
        self.lanes_ended.notified().await;
    }

    pub(super) fn condemn(&self) {
        self.condemned.store(true, Ordering::SeqCst);
    }

    fn is_condemned(&self) -> bool {
        self.condemned.load(Ordering::SeqCst)
    }
}

/// Whole frames, back to back.
#[derive(Default)]
struct Chunk {
    bytes: BytesMut,
    frames: u64,
}

/// What waits for one lane: closed chunks, then the open one.
#[derive(Default)]
struct Queue {
    closed: VecDeque<Chunk>,
    open: Chunk,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.open.frames == 0
    }

    fn take(&mut self) -> Option<Chunk> {
        self.closed
            .pop_front()
            .or_else(|| (self.open.frames > 0).then(|| std::mem::take(&mut self.open)))
    }
}

/// What a lane's task gets when it asks for more.
pub(super) enum Taken {
    /// Whole frames: the bytes, and how many frames they are.
    Chunk(Bytes, u64),
    /// Nothing waits.
    Empty,
    /// The connection no longer counts.
    Gone,
}

pub(super) struct State {
    pub(super) machine: peers::Peer,
    lanes: [Queue; LANES],
    /// Bytes in the lanes and in the chunks their tasks are writing.
    queued: usize,
    pub(super) current: Option<Arc<Live>>,
    pub(super) dial: Option<AbortHandle>,
    pub(super) timer: Option<AbortHandle>,
    /// Why the last dial failed, for the log.
    pub(super) last_failure: Option<String>,
    /// Whether the connection that is being lost was closed on purpose, which is no news for an operator.
    pub(super) ended_orderly: bool,
}

impl State {
    pub(super) fn is_current(&self, id: ConnectionId) -> bool {
        self.current.as_ref().is_some_and(|live| live.id == id)
    }

    /// Drops what waits and says how many frames that were.
    pub(super) fn drop_queued(&mut self) -> u64 {
        let mut frames = 0;
        for queue in &mut self.lanes {
            while let Some(chunk) = queue.take() {
                frames += chunk.frames;
            }
            *queue = Queue::default();
        }
        self.queued = 0;
        frames
    }
}

pub(super) struct Slot {
    pub(super) key: PeerKey,
    pub(super) turn: Mutex<()>,
    pub(super) state: Mutex<State>,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) dropped: AtomicU64,
}

impl Slot {
    pub(super) fn new(key: PeerKey, machine: peers::Peer) -> Self {
        Self {
            key,
            turn: Mutex::new(()),
            state: Mutex::new(State {
                machine,
                lanes: Default::default(),
                queued: 0,
                current: None,
                dial: None,
                timer: None,
                last_failure: None,
                ended_orderly: false,
            }),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Queues a frame. The effects, which only start dials and timers, are for `perform`, under the same lock.
    pub(super) fn send(
        &self,
        now: Duration,
        max_frame: usize,
        frame: &Frame,
        perform: impl FnOnce(&mut State, Vec<Effect>),
    ) -> Result<(), SendError> {
        let lane = lane_of(frame);
        let mut guard = self.state.lock();
        let state = &mut *guard;
        // Known before the frame is written, which for a large one would be for nothing.
        let bounded = matches!(frame.class, Class::Message { .. });
        if bounded && state.machine.is_full(frame.body.len(), state.queued) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return Err(SendError::QueueFull {
                peer: self.key.clone(),
                queued: state.queued,
            });
        }
        let queue = &mut state.lanes[lane];
        let (before, was_empty) = (queue.open.bytes.len(), queue.is_empty());
        let outcome = frame
            .encode(max_frame, &mut queue.open.bytes)
            .map_err(|source| SendError::Codec {
                peer: self.key.clone(),
                source,
            })
            .and_then(|()| {
                let bytes = queue.open.bytes.len() - before;
                let admitted = if bounded {
                    state.machine.admit(now, bytes, state.queued)
                } else {
                    state.machine.admit_notice(now)
                };
                admitted
                    .map(|effects| (bytes, effects))
                    .map_err(|refusal| match refusal {
                        Refusal::Full => SendError::QueueFull {
                            peer: self.key.clone(),
                            queued: state.queued,
                        },
                        Refusal::Unreachable => SendError::Unreachable(self.key.clone()),
                    })
            });
        let (bytes, effects) = match outcome {
            Ok(admitted) => admitted,
            Err(error) => {
                queue.open.bytes.truncate(before);
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return Err(error);
            }
        };
        queue.open.frames += 1;
        if queue.open.bytes.len() >= CHUNK {
            let full = std::mem::take(&mut queue.open);
            queue.closed.push_back(full);
        }
        state.queued += bytes;
        self.sent.fetch_add(1, Ordering::Relaxed);
        // A lane that had something already has its task awake or about to be.
        if was_empty && let Some(live) = &state.current {
            live.wake[lane].notify_one();
        }
        if !effects.is_empty() {
            perform(state, effects);
        }
        Ok(())
    }

    /// The next chunk of a lane for the connection `id`.
    pub(super) fn take(&self, id: ConnectionId, lane: usize) -> Taken {
        let mut state = self.state.lock();
        if !state.is_current(id) {
            return Taken::Gone;
        }
        match state.lanes[lane].take() {
            Some(chunk) => Taken::Chunk(chunk.bytes.freeze(), chunk.frames),
            None => Taken::Empty,
        }
    }

    /// A taken chunk of `bytes` was handed to the connection `id`. Says whether nothing waits any more.
    pub(super) fn written(&self, id: ConnectionId, bytes: usize) -> bool {
        let mut state = self.state.lock();
        if state.is_current(id) {
            state.queued = state.queued.saturating_sub(bytes);
        }
        state.queued == 0
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
        self.state.lock().queued
    }

    pub(super) fn status(&self) -> PeerStatus {
        let state = self.state.lock();
        PeerStatus {
            peer: self.key.to_string(),
            connected: state.machine.is_connected(),
            queued_bytes: state.queued,
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            kinds: state.current.as_ref().map_or(0, |live| live.kinds.len()),
        }
    }
}

fn lane_of(frame: &Frame) -> usize {
    let mut hasher = DefaultHasher::new();
    frame.from.hash(&mut hasher);
    frame.to.hash(&mut hasher);
    // The remainder is below LANES.
    usize::try_from(hasher.finish() % LANES as u64).unwrap_or(0)
}
