//! The transport for guests of the same machine: frames over a Unix stream socket.
//!
//! A host listens on a socket file; its guests dial it. Who a guest is follows from two things: the user id that the
//! kernel gives for the other end, and a token of 32 random bytes that the host made for this one guest. The guest in
//! turn checks that the host's user listens. Nothing is encrypted: the bytes never leave the kernel. To connect costs
//! two messages and no cryptography, which is what agents with very many short tasks need; between nodes there is
//! only [`quic`](super::quic).
//!
//! The promises are those of QUIC: order, at most once, a bounded queue for each peer, `lost` once and last. One is
//! kept better: the end of a process closes its sockets, so a killed peer is noticed at once. One is missing: a peer
//! that stands still without ending is not noticed.
//!
//! - `socket` the file, its rights, its removal; `pins` who may come; `hello` what is said first
//! - `connection` the tasks of one connection; `slot` what waits for one peer, and the locks
//!
//! Invariant: the node is called only as [`Upcalls`] promises. Which connection counts and what a loss means is
//! decided in `transport/peers.rs`; a connection that stands is never replaced here, since a second one under its
//! token is somebody else's.

mod connection;
mod hello;
mod pins;
mod slot;
mod socket;
#[cfg(test)]
mod tests;
mod token;

pub(crate) use hello::{read_answer, read_hello};

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use rand::SeedableRng as _;
use rand::rngs::{StdRng, SysRng};
use tokio::net::UnixListener;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::{debug, error, warn};

use self::hello::{Answer, HandshakeError, Hello};
use self::pins::{Pinned, Pins};
use self::slot::{Live, Slot, State};
pub use self::socket::{GuestSocket, HostSocket, Listening, Reach};
pub use self::token::{GuestToken, TokenHash};
use super::peers::{ConnectionId, Effect, Input, Rules};
use super::{
    Body, Guest, Incarnation, Kinds, PeerKey, PeerStatus, Proof, SHUTDOWN_LIMIT, SendError,
    Transport, Upcalls, lanes, pause,
};
use crate::codec::{Class, CodecError, DEFAULT_MAX_MESSAGE, Frame};
use crate::logging::seldom::Seldom;
use crate::opening::Opening;
use crate::pid::{Address, Pid};

/// How long to wait when the system refuses to accept, for example for want of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Settings of a transport, on either side.
#[derive(Debug, Clone)]
pub struct UnixConfig {
    /// The host's advertised address, which its guests share.
    pub address: Address,
    /// Which run of the node this is.
    pub incarnation: Incarnation,
    /// Role under which a host speaks to its guests.
    pub role: Arc<str>,
    /// Message kinds this node knows, told in Hello. Default: none.
    pub kinds: Kinds,
    /// Largest body of a message in bytes, both ways. Default: 64 MiB.
    pub max_message: usize,
    /// How many bytes may wait for one peer; more are refused. A single larger frame is taken when nothing else
    /// waits. Default: 64 MiB.
    pub max_queue_bytes: usize,
    /// Limit of a handshake on either side. Default: 5 s.
    pub handshake_timeout: Duration,
    /// Incoming handshakes at once; more are closed. Default: 1024.
    pub max_handshakes: usize,
    /// How long frames of a guest wait for a host that cannot be reached. Default: 10 s.
    pub connect_grace: Duration,
    /// When guests that dial are answered. Default: at once.
    pub(crate) opening: Opening,
}

impl UnixConfig {
    /// Settings with every default.
    pub fn new(address: Address, incarnation: Incarnation, role: &str) -> Self {
        Self {
            address,
            incarnation,
            role: Arc::from(role),
            kinds: Kinds::default(),
            max_message: DEFAULT_MAX_MESSAGE,
            max_queue_bytes: 64 << 20,
            handshake_timeout: Duration::from_secs(5),
            max_handshakes: 1024,
            connect_grace: Duration::from_secs(10),
            opening: Opening::default(),
        }
    }
}

/// A guest's way to its host.
#[derive(Debug, Clone)]
pub struct GuestSide {
    /// The one actor id it speaks as.
    pub id: Arc<str>,
    /// Where the host listens.
    pub socket: HostSocket,
    /// What it shows.
    pub token: GuestToken,
}

/// Why a socket or a transport on it cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum UnixError {
    /// No tokio runtime runs on this thread.
    #[error("the Unix-socket transport must be started inside the network thread's tokio runtime")]
    NoRuntime(#[from] tokio::runtime::TryCurrentError),
    /// The socket or its directory cannot be made or opened.
    #[error("socket {path}: check that its directory is this user's own and holds nothing else", path = path.display())]
    Path {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The last part of the path is too long for a socket address.
    #[error("socket {path}: its name is {over} bytes too long: give it a shorter one", path = path.display())]
    TooLong {
        /// The socket.
        path: PathBuf,
        /// By how many bytes.
        over: usize,
    },
    /// Somebody listens there.
    #[error("socket {path} is in use by another process: end that or give another directory", path = .0.display())]
    InUse(PathBuf),
    /// The system refuses the socket.
    #[error("the socket cannot be used")]
    Socket(#[from] std::io::Error),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

/// What all tasks of a transport share.
struct Shared {
    config: UnixConfig,
    handle: Handle,
    /// `None` on a host.
    guest: Option<Arc<GuestSide>>,
    pins: Mutex<Pins>,
    upcalls: Arc<dyn Upcalls>,
    started: Instant,
    random: Mutex<StdRng>,
    slots: RwLock<HashMap<PeerKey, Arc<Slot>>>,
    handshakes: Arc<Semaphore>,
    connections: AtomicU64,
    slots_made: AtomicU64,
    closing: AtomicBool,
    /// Told while closing when a peer's queue runs empty.
    drained: Notify,
    /// Whoever can reach the socket can be refused as often as they like.
    refusals: Mutex<Seldom>,
    /// On a host: the socket's file, and the task that accepts.
    listening: Mutex<Option<(Listening, AbortHandle)>>,
}

/// The Unix-socket transport of one node: a host's for all its guests, or a guest's for its host.
pub struct UnixTransport {
    shared: Arc<Shared>,
}

impl UnixTransport {
    /// Takes guests on a socket. Call it inside the current-thread tokio runtime of the node's network thread, which
    /// runs all its tasks from then on; the transport itself may be used from any thread.
    ///
    /// # Errors
    /// [`UnixError`] when the system refuses something.
    pub fn host(
        config: UnixConfig,
        listening: Listening,
        upcalls: Arc<dyn Upcalls>,
    ) -> Result<Arc<Self>, UnixError> {
        let opening = config.opening.clone();
        let shared = Shared::new(config, None, upcalls)?;
        let listener = UnixListener::from_std(listening.listener()?)?;
        let accepting = shared
            .handle
            .spawn(accept_all(Arc::clone(&shared), opening, listener));
        *shared.listening.lock() = Some((listening, accepting.abort_handle()));
        Ok(Arc::new(Self { shared }))
    }

    /// A guest's transport, which dials its host when there is something to send. As [`UnixTransport::host`]
    /// otherwise.
    ///
    /// # Errors
    /// As [`UnixTransport::host`].
    pub fn guest(
        config: UnixConfig,
        guest: GuestSide,
        upcalls: Arc<dyn Upcalls>,
    ) -> Result<Arc<Self>, UnixError> {
        let shared = Shared::new(config, Some(Arc::new(guest)), upcalls)?;
        Ok(Arc::new(Self { shared }))
    }
}

/// Starts a task for each incoming connection. Nothing is awaited here but the next one.
async fn accept_all(shared: Arc<Shared>, opening: Opening, listener: UnixListener) {
    opening.opened().await;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Ok(permit) = Arc::clone(&shared.handshakes).try_acquire_owned() {
                    let task = connection::accept(Arc::clone(&shared), stream, permit);
                    shared.handle.spawn(task);
                } else {
                    debug!("too many handshakes at once: one is closed");
                }
            }
            Err(error) => {
                shared.complain("no guest can be accepted at this moment", &error);
                pause(ACCEPT_RETRY).await;
            }
        }
    }
}

impl Shared {
    fn new(
        config: UnixConfig,
        guest: Option<Arc<GuestSide>>,
        upcalls: Arc<dyn Upcalls>,
    ) -> Result<Arc<Self>, UnixError> {
        let random = StdRng::try_from_rng(&mut SysRng)
            .map_err(|error| UnixError::Random(error.to_string()))?;
        Ok(Arc::new(Self {
            handle: Handle::try_current()?,
            guest,
            pins: Mutex::default(),
            upcalls,
            started: Instant::now(),
            random: Mutex::new(random),
            slots: RwLock::default(),
            handshakes: Arc::new(Semaphore::new(config.max_handshakes)),
            connections: AtomicU64::new(0),
            slots_made: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            drained: Notify::new(),
            refusals: Mutex::default(),
            listening: Mutex::new(None),
            config,
        }))
    }

    /// Queues a frame for a peer.
    fn queue(
        self: &Arc<Self>,
        to: &PeerKey,
        class: Class,
        pair: (&Arc<str>, &Pid),
        body: lanes::Body<'_>,
    ) -> Result<(), SendError> {
        let unreachable = || SendError::Unreachable(to.clone());
        if self.is_closing() {
            return Err(unreachable());
        }
        if body.len() > self.config.max_message {
            return Err(SendError::Codec {
                peer: to.clone(),
                source: CodecError::TooLarge {
                    length: body.len(),
                    limit: self.config.max_message,
                },
            });
        }
        let is_host = match to {
            PeerKey::Node(address) => self.guest.is_some() && *address == self.config.address,
            PeerKey::Guest(_) => false,
        };
        let slot = if is_host {
            self.slot(to)
        } else {
            // A guest has a place from its first connection on.
            self.find(to).ok_or_else(unreachable)?
        };
        slot.send(
            || self.now(),
            class,
            pair,
            body,
            |state, effects| {
                for effect in effects {
                    self.start(&slot, state, effect);
                }
            },
        )
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Logs what happens to incoming connections, at most once a second.
    fn complain(&self, what: &'static str, error: &(dyn std::error::Error + 'static)) {
        if let Some(unsaid) = self.refusals.lock().say(self.now()) {
            warn!(error = %crate::error_chain(error), unsaid, "{what}");
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    fn next_connection(&self) -> ConnectionId {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What a host says to a guest that may come in.
    fn answer(&self) -> Answer {
        Answer {
            refused: None,
            incarnation: self.config.incarnation,
            address: self.config.address.clone(),
            role: self.config.role.to_string(),
            kinds: self.config.kinds.versions(),
        }
    }

    /// The role of the guest that says this Hello, when it may.
    fn check(&self, hello: &Hello, uid: u32) -> Result<Arc<str>, HandshakeError> {
        hello.check_version()?;
        let token = token::hash(&hello.token);
        let pins = self.pins.lock();
        Ok(Arc::clone(&pins.check(&hello.id, uid, &token)?.role))
    }

    /// As [`Shared::check`], and with the place of a guest that is not connected yet.
    fn admit(&self, hello: &Hello, uid: u32) -> Result<(Arc<Slot>, Arc<str>), HandshakeError> {
        let role = self.check(hello, uid)?;
        let slot = self.slot(&PeerKey::Guest(Arc::from(hello.id.as_str())));
        if slot.state.lock().machine.is_connected() {
            return Err(HandshakeError::Second(hello.id.clone()));
        }
        Ok((slot, role))
    }

    /// The peer's place, made when it is new.
    fn slot(&self, key: &PeerKey) -> Arc<Slot> {
        if let Some(slot) = self.find(key) {
            return slot;
        }
        let mut slots = self.slots.write();
        let slot = slots
            .entry(key.clone())
            .or_insert_with(|| Arc::new(Slot::new(key.clone(), self.machine())));
        Arc::clone(slot)
    }

    fn find(&self, key: &PeerKey) -> Option<Arc<Slot>> {
        self.slots.read().get(key).cloned()
    }

    fn machine(&self) -> super::peers::Peer {
        let rules = Rules {
            incarnation: self.config.incarnation,
            may_dial: self.guest.is_some(),
            wins: true,
            grace: self.config.connect_grace,
            max_queue: self.config.max_queue_bytes,
        };
        // Room for 16 million dials of a peer before it is forgotten and met again.
        let first_dial = self.slots_made.fetch_add(1, Ordering::Relaxed) << 24;
        super::peers::Peer::new(rules, first_dial)
    }

    /// Feeds one input to a peer's machine and carries out what it says. `candidate` is the connection that the
    /// input is about. Says whether that was attached: its tasks may then start.
    fn apply(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        input: Input,
        candidate: Option<&Arc<Live>>,
    ) -> bool {
        let _turn = slot.turn.lock();
        let now = self.now();
        let effects = {
            let mut state = slot.state.lock();
            let mut random = self.random.lock();
            state.machine.step(now, &mut *random, input)
        };
        let mut attached = false;
        for effect in effects {
            match effect {
                Effect::Lost(loss) => self.upcalls.lost(&slot.key, loss),
                Effect::Attach { .. } => {
                    let mut state = slot.state.lock();
                    state.current = candidate.map(Arc::clone);
                    state.dial = None;
                    state.last_failure = None;
                    if let Some(timer) = state.timer.take() {
                        timer.abort();
                    }
                    attached = true;
                }
                Effect::Refuse { .. } => {
                    if let Some(refused) = candidate {
                        refused.condemn();
                    }
                }
                Effect::Supersede { .. } => {
                    if let Some(older) = slot.state.lock().current.take() {
                        older.condemn();
                    }
                }
                // No side of a socket ever proposes to leave it.
                Effect::Detach => debug_assert!(false, "nobody has left"),
                Effect::DropQueued => self.drop_queued(slot),
                Effect::Dial { .. } | Effect::CancelDial | Effect::Arm { .. } => {
                    self.start(slot, &mut slot.state.lock(), effect);
                }
            }
        }
        if matches!(input, Input::Closed { .. }) {
            self.forget(slot);
        }
        attached
    }

    /// Carries out an effect that only starts or ends tasks.
    fn start(self: &Arc<Self>, slot: &Arc<Slot>, state: &mut State, effect: Effect) {
        match effect {
            Effect::Dial { dial } => {
                if let Some(guest) = &self.guest {
                    let (shared, slot) = (Arc::clone(self), Arc::clone(slot));
                    let task = connection::dial(shared, slot, Arc::clone(guest), dial);
                    state.dial = Some(self.handle.spawn(task).abort_handle());
                }
            }
            Effect::CancelDial => {
                if let Some(dial) = state.dial.take() {
                    dial.abort();
                }
            }
            Effect::Arm { timer, after } => {
                let (shared, slot) = (Arc::clone(self), Arc::clone(slot));
                let task = self.handle.spawn(async move {
                    pause(after).await;
                    shared.apply(&slot, Input::Due { timer }, None);
                });
                if let Some(older) = state.timer.replace(task.abort_handle()) {
                    older.abort();
                }
            }
            Effect::Attach { .. }
            | Effect::Refuse { .. }
            | Effect::Supersede { .. }
            | Effect::Detach
            | Effect::DropQueued
            | Effect::Lost(_) => debug_assert!(false, "{effect:?} starts no task"),
        }
    }

    fn drop_queued(&self, slot: &Slot) {
        let (frames, reason) = {
            let mut state = slot.state.lock();
            state.current = None;
            (state.drop_queued(), state.last_failure.clone())
        };
        slot.dropped.fetch_add(frames, Ordering::Relaxed);
        if frames > 0 {
            if let Some(reason) = reason {
                warn!(peer = %slot.key, frames, reason, "frames for a peer that cannot be reached dropped");
            } else {
                // It ended, and by how a socket closes nobody can tell whether it had meant to.
                debug!(peer = %slot.key, frames, "frames for a peer that left dropped");
            }
        }
        if self.is_closing() {
            self.drained.notify_one();
        }
    }

    /// Forgets a guest that is neither connected nor awaited.
    fn forget(&self, slot: &Slot) {
        if let PeerKey::Guest(id) = &slot.key
            && self.pins.lock().get(id).is_none()
            && slot.state.lock().machine.is_idle()
        {
            self.slots.write().remove(&slot.key);
        }
    }

    fn all_slots(&self) -> Vec<Arc<Slot>> {
        self.slots.read().values().map(Arc::clone).collect()
    }

    /// Closes the connection of a guest that may not be here any more.
    fn expel(&self, id: &str) {
        if let Some(slot) = self.find(&PeerKey::Guest(Arc::from(id))) {
            match slot.current() {
                Some(live) => live.condemn(),
                None => self.forget(&slot),
            }
        }
    }

    async fn shut_down(self: Arc<Self>) {
        if self.closing.swap(true, Ordering::SeqCst) {
            return;
        }
        let listening = self.listening.lock().take();
        if let Some((listening, accepting)) = listening {
            accepting.abort();
            drop(listening);
        }
        let deadline = Instant::now() + SHUTDOWN_LIMIT;
        let flushed = tokio::time::timeout_at(deadline, self.flush()).await;
        if flushed.is_err() {
            debug!("peers did not take all that was queued before the end");
        }
        for slot in self.all_slots() {
            let live = slot.current();
            self.apply(&slot, Input::Shutdown, None);
            if let Some(live) = live {
                live.condemn();
            }
        }
    }

    /// Waits until the kernel has all that is queued.
    async fn flush(&self) {
        while self.all_slots().iter().any(|slot| slot.queued() > 0) {
            self.drained.notified().await;
        }
        let lives: Vec<_> = self
            .all_slots()
            .iter()
            .filter_map(|slot| slot.current())
            .collect();
        lives.iter().for_each(|live| live.finish());
        for live in lives {
            live.finished().await;
        }
    }
}

impl Transport for UnixTransport {
    fn send(&self, to: &PeerKey, frame: &Frame) -> Result<(), SendError> {
        let body = lanes::Body::Bytes(&frame.body);
        self.shared
            .queue(to, frame.class, (&frame.to, &frame.from), body)
    }

    fn post(
        &self,
        peer: &PeerKey,
        class: Class,
        to: &Pid,
        from: &Pid,
        body: Body<'_>,
    ) -> Result<(), SendError> {
        let pair = (to.id_shared(), from);
        let queue = |body: lanes::Body<'_>| self.shared.queue(peer, class, pair, body);
        match body {
            Body::Bytes(bytes) => queue(lanes::Body::Bytes(bytes)),
            Body::Value(value) => lanes::with_buffer(|buffer| {
                value
                    .encode_into(buffer)
                    .map_err(|source| SendError::Codec {
                        peer: peer.clone(),
                        source,
                    })?;
                queue(lanes::Body::Encoded(buffer))
            }),
        }
    }

    fn pin(&self, guest: Guest) {
        let Proof::Token { hash, uid } = guest.proof else {
            error!(guest = %guest.id, "a guest with a certificate cannot come over a Unix socket");
            return;
        };
        let pinned = Pinned {
            role: guest.role,
            token: hash,
            uid,
        };
        let replaced = self.shared.pins.lock().add(guest.id.clone(), pinned);
        if replaced {
            self.shared.expel(&guest.id);
        }
    }

    fn unpin(&self, id: &str) {
        self.shared.pins.lock().remove(id);
        self.shared.expel(id);
    }

    fn has_guest(&self, id: &str) -> bool {
        self.shared.pins.lock().get(id).is_some()
    }

    fn peers(&self) -> Vec<PeerStatus> {
        let mut all: Vec<_> = self
            .shared
            .all_slots()
            .iter()
            .map(|slot| slot.status())
            .collect();
        all.sort_by(|a, b| a.peer.cmp(&b.peer));
        all
    }

    fn shutdown(&self) -> BoxFuture<'static, ()> {
        let shared = Arc::clone(&self.shared);
        // On the network thread, whose runtime has the timers, wherever the caller awaits it.
        async move {
            let handle = shared.handle.clone();
            if let Err(error) = handle.spawn(shared.shut_down()).await {
                debug!(%error, "network thread ended before the transport was shut down");
            }
        }
        .boxed()
    }
}
