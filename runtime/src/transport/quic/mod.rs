//! The transport of production: MessagePack frames over QUIC, one connection per pair of nodes.
//!
//! Owns the UDP socket's endpoint, which dials and accepts, and every connection. Both ends prove who they are by
//! certificates; a frame's sender is checked by the node against that proof. Which connection counts and what a
//! loss means is decided in `transport/peers.rs`; this module carries it out:
//!
//! - `tls` who may connect, and the settings of QUIC; `hello` what is said first, and its check
//! - `connection` the tasks of one connection; `slot` what waits for one peer, and the locks
//! - `control` the words beside the frames; `attend` what each connection needs besides them: pings, `probe` (has the
//!   peer's process ended?), `leave` (does anybody use it?)
//!
//! Invariant: the node is called only as [`Upcalls`] promises: in order for each peer, `lost` once for each
//! connection and before anything of the next. Sending never blocks and never calls the node.

mod attend;
mod connection;
mod control;
mod hello;
mod leave;
pub(crate) mod probe;
mod slot;
#[cfg(test)]
mod tests;
mod tls;

pub(crate) use control::read_words;
pub(crate) use hello::read_hello;

use std::any::Any;
use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use rand::SeedableRng as _;
use rand::rngs::{StdRng, SysRng};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tracing::{debug, error, warn};

use self::control::Word;
use self::hello::{Close, HandshakeError};
use self::slot::{Live, Next, Slot, State};
use self::tls::{Gate, Pins};
use super::peers::{ConnectionId, Effect, Input};
use super::{
    Body, Guest, Incarnation, Kinds, PeerKey, PeerStatus, Proof, SHUTDOWN_LIMIT, SendError,
    Transport, Upcalls, lanes, pause,
};
use crate::codec::{Class, CodecError, DEFAULT_MAX_MESSAGE, Frame};
use crate::identity::Identity;
use crate::logging::seldom::Seldom;
use crate::metrics::Metrics;
use crate::opening::Opening;
use crate::pid::{Address, Pid};
use crate::quick::QuickState;

/// Number of peers from which on those without a connection are forgotten.
const MAX_REMEMBERED: usize = 4096;

/// How a transport takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Dials and is dialled.
    Listening,
    /// Dials only, for example a scheduler's driver; other nodes answer over the connections it makes.
    DialOnly,
    /// A guest of the node at `host`, which has pinned its key: talks to that node only, under its address.
    Guest {
        /// The host's advertised address.
        host: Address,
    },
}

/// Settings of a transport.
#[derive(Debug, Clone)]
pub struct QuicConfig {
    /// Certificate, key and authorities; in mode guest, the guest's key.
    pub identity: Identity,
    /// Advertised address with the port that the socket is bound to; in mode guest, the host's address.
    pub address: Address,
    /// Which run of the node this is.
    pub incarnation: Incarnation,
    /// How the transport takes part. Default: listening.
    pub mode: Mode,
    /// The cluster this node belongs to; nodes that name another are refused. Default: none, which fits any.
    pub cluster_id: Option<String>,
    /// Message kinds this node knows. Each Hello tells those known by then; a node learns its kinds as its processes
    /// are started, so a connection made before that has told fewer, and is not told of more. Default: none.
    pub kinds: Kinds,
    /// Largest body of a message in bytes, both ways. Default: 64 MiB.
    pub max_message: usize,
    /// How many bytes may wait for one peer; more are refused. A single larger frame is taken when nothing else
    /// waits. Default: 64 MiB.
    pub max_queue_bytes: usize,
    /// A peer that is silent this long is lost. Default: 5 s, the longest a killed machine goes unnoticed.
    pub idle_timeout: Duration,
    /// How often the side that has dialled probes a silent connection. Default: 1 s, so that four lost probes in a row
    /// lose the peer.
    pub keep_alive: Duration,
    /// [`idle_timeout`](Self::idle_timeout) between a guest and its host. On one machine the end of either is told by
    /// the system, so this is for a peer that hangs only. Default: 30 s.
    pub guest_idle_timeout: Duration,
    /// [`keep_alive`](Self::keep_alive) of a guest. Default: 10 s: a host may have a thousand guests.
    pub guest_keep_alive: Duration,
    /// Limit of a handshake, dialled or incoming, up to the end of Hello. Default: 5 s.
    pub handshake_timeout: Duration,
    /// Incoming handshakes at once; more are refused, and above half of it senders must first prove their address.
    /// Default: 1024.
    pub max_handshakes: usize,
    /// A connection over which nothing has gone for this long, and no link stands, is closed without a loss when both
    /// sides can dial; looked at as often, so that it may take twice as long. Default: 1 min.
    pub idle_close: Duration,
    /// Where the transport counts. Default: metrics of its own.
    pub metrics: Metrics,
    /// How long frames wait for a peer that cannot be reached. Default: 10 s, two dials that go unanswered.
    pub connect_grace: Duration,
    /// When dials of others are answered. Default: at once.
    pub(crate) opening: Opening,
}

impl QuicConfig {
    /// Settings with every default, for a node that listens.
    pub fn new(identity: Identity, address: Address, incarnation: Incarnation) -> Self {
        Self {
            identity,
            address,
            incarnation,
            mode: Mode::Listening,
            cluster_id: None,
            kinds: Kinds::default(),
            max_message: DEFAULT_MAX_MESSAGE,
            max_queue_bytes: 64 << 20,
            idle_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(1),
            guest_idle_timeout: Duration::from_secs(30),
            guest_keep_alive: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(5),
            max_handshakes: 1024,
            idle_close: Duration::from_secs(60),
            metrics: Metrics::default(),
            connect_grace: Duration::from_secs(10),
            opening: Opening::default(),
        }
    }
}

/// Why a transport cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// No tokio runtime runs on this thread.
    #[error("the QUIC transport must be started inside the network thread's tokio runtime")]
    NoRuntime(#[from] tokio::runtime::TryCurrentError),
    /// The socket cannot be used.
    #[error("the UDP socket cannot be used: bind another port")]
    Socket(#[from] std::io::Error),
    /// Certificate, key or authorities are refused by the TLS stack.
    #[error("certificate, key or authority is refused: issue them again")]
    Tls(#[from] rustls::Error),
    /// The authorities cannot be used to check peers.
    #[error("the certificate authorities cannot be used: {0}")]
    Authorities(String),
    /// A setting is out of its range.
    #[error("setting out of range: {0}")]
    Setting(String),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

/// What a PID remembers of a transport: the place of its peer.
struct Shortcut {
    transport: u64,
    slot: Arc<Slot>,
}

/// What all tasks of a transport share.
struct Shared {
    /// Number of the transport, unique in this process.
    number: u64,
    config: QuicConfig,
    handle: Handle,
    endpoint: quinn::Endpoint,
    local: SocketAddr,
    client: quinn::ClientConfig,
    gate: Arc<Gate>,
    pins: Arc<Pins>,
    upcalls: Arc<dyn Upcalls>,
    started: Instant,
    random: Mutex<StdRng>,
    slots: RwLock<HashMap<PeerKey, Arc<Slot>, QuickState>>,
    /// Number of peers at which the idle ones are forgotten next.
    forget_at: AtomicUsize,
    handshakes: Arc<Semaphore>,
    connections: AtomicU64,
    slots_made: AtomicU64,
    closing: AtomicBool,
    /// Told while closing when a peer's queue runs empty.
    drained: Notify,
    /// Whoever can reach the port can be refused as often as they like.
    refusals: Mutex<Seldom>,
}

/// The QUIC transport of one node.
pub struct QuicTransport {
    shared: Arc<Shared>,
}

impl QuicTransport {
    /// Starts a transport on a bound socket. Call it inside the current-thread tokio runtime of the node's network
    /// thread, which runs all its tasks from then on; the transport itself may be used from any thread.
    ///
    /// # Errors
    /// [`TransportError`] when the identity or a setting cannot be used.
    pub fn start(
        config: QuicConfig,
        socket: UdpSocket,
        upcalls: Arc<dyn Upcalls>,
    ) -> Result<Arc<Self>, TransportError> {
        let handle = Handle::try_current()?;
        let pins = Arc::new(Pins::default());
        let settings = tls::settings(&config, Arc::clone(&pins))?;
        let local = socket.local_addr()?;
        socket.set_nonblocking(true)?;
        let endpoint = quinn::Endpoint::new(
            settings.endpoint,
            settings.server,
            socket,
            Arc::new(quinn::TokioRuntime),
        )?;
        let random = StdRng::try_from_rng(&mut SysRng)
            .map_err(|error| TransportError::Random(error.to_string()))?;
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let shared = Arc::new(Shared {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            handle,
            endpoint,
            local,
            client: settings.client,
            gate: settings.gate,
            pins,
            upcalls,
            started: Instant::now(),
            random: Mutex::new(random),
            slots: RwLock::default(),
            forget_at: AtomicUsize::new(MAX_REMEMBERED),
            handshakes: Arc::new(Semaphore::new(config.max_handshakes)),
            connections: AtomicU64::new(0),
            slots_made: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            drained: Notify::new(),
            refusals: Mutex::default(),
            config,
        });
        if shared.config.mode == Mode::Listening {
            shared.handle.spawn(accept_all(Arc::clone(&shared)));
        }
        Ok(Arc::new(Self { shared }))
    }

    /// Address the socket is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local
    }
}

/// Starts a task for each incoming connection. Nothing is awaited here but the next one.
async fn accept_all(shared: Arc<Shared>) {
    shared.config.opening.opened().await;
    while let Some(incoming) = shared.endpoint.accept().await {
        let Ok(permit) = Arc::clone(&shared.handshakes).try_acquire_owned() else {
            debug!(from = %incoming.remote_address(), "too many handshakes at once: one is refused");
            shared.config.metrics.count("runtime/handshakes_refused");
            incoming.refuse();
            continue;
        };
        let crowded = shared.handshakes.available_permits() < shared.config.max_handshakes / 2;
        if crowded && incoming.may_retry() && !incoming.remote_address_validated() {
            if let Err(error) = incoming.retry() {
                error.into_incoming().refuse();
            }
            continue;
        }
        let task = connection::accept(Arc::clone(&shared), incoming, permit);
        shared.handle.spawn(task);
    }
}

impl Shared {
    /// The place of a peer that something is to be sent to.
    fn place(&self, to: &PeerKey) -> Result<Arc<Slot>, SendError> {
        match to {
            PeerKey::Node(_) => Ok(self.slot(to)),
            // A guest has a place from its first connection on.
            PeerKey::Guest(_) => {
                let known = self.slots.read().get(to).cloned();
                known.ok_or_else(|| SendError::Unreachable(to.clone()))
            }
        }
    }

    /// As [`Shared::place`], remembered with the receiver's PID for the next time.
    fn place_of<'a>(&self, to: &PeerKey, pid: &'a Pid) -> Result<Cow<'a, Arc<Slot>>, SendError> {
        let remembered = pid
            .shortcut::<Shortcut>()
            .filter(|shortcut| shortcut.transport == self.number && shortcut.slot.key == *to);
        if let Some(shortcut) = remembered {
            return Ok(Cow::Borrowed(&shortcut.slot));
        }
        let slot = self.place(to)?;
        pid.remember(Arc::new(Shortcut {
            transport: self.number,
            slot: Arc::clone(&slot),
        }));
        Ok(Cow::Owned(slot))
    }

    /// Queues a frame for a peer.
    fn queue(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        class: Class,
        pair: (&Arc<str>, &Pid),
        body: lanes::Body<'_>,
    ) -> Result<(), SendError> {
        if self.is_closing() {
            return Err(SendError::Unreachable(slot.key.clone()));
        }
        if body.len() > self.config.max_message {
            return Err(SendError::Codec {
                peer: slot.key.clone(),
                source: CodecError::TooLarge {
                    length: body.len(),
                    limit: self.config.max_message,
                },
            });
        }
        slot.send(
            || self.now(),
            class,
            pair,
            body,
            |next| match next {
                Next::Perform(state, effects) => {
                    for effect in effects {
                        self.start(slot, state, effect);
                    }
                }
                Next::Open(live, lane) => connection::open_lane(self, slot, &live, lane),
                Next::Overrun(live) => {
                    warn!(peer = %slot.key, "peer does not take its exit notices: its connection is closed");
                    self.config.metrics.count("runtime/connections_overrun");
                    live.condemn();
                    Close::Overrun.close(&live.connection);
                }
            },
        )
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    fn next_connection(&self) -> ConnectionId {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The peer's place, made when it is new.
    fn slot(&self, key: &PeerKey) -> Arc<Slot> {
        if let Some(slot) = self.slots.read().get(key) {
            return Arc::clone(slot);
        }
        let mut slots = self.slots.write();
        if slots.len() >= self.forget_at.load(Ordering::Relaxed) {
            // One that a task holds may be about to be used.
            slots.retain(|_, slot| {
                Arc::strong_count(slot) > 1 || !slot.state.lock().machine.is_idle()
            });
            // Twice of what remains, so that many connected peers are not searched again for each new one.
            let next = slots.len().saturating_mul(2).max(MAX_REMEMBERED);
            self.forget_at.store(next, Ordering::Relaxed);
        }
        let slot = slots
            .entry(key.clone())
            .or_insert_with(|| Arc::new(Slot::new(key.clone(), self.machine(key))));
        Arc::clone(slot)
    }

    fn machine(&self, key: &PeerKey) -> super::peers::Peer {
        let own = &self.config.address;
        let (may_dial, wins) = match (key, &self.config.mode) {
            (PeerKey::Guest(_), _) => (false, false),
            (PeerKey::Node(address), Mode::Guest { host }) => (address == host, true),
            (PeerKey::Node(address), Mode::Listening | Mode::DialOnly) => {
                (address != own, own.to_string() < address.to_string())
            }
        };
        let rules = super::peers::Rules {
            incarnation: self.config.incarnation,
            may_dial,
            wins,
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
        let turn = slot.turn.lock();
        self.apply_in_turn(slot, input, candidate, &turn)
    }

    /// As [`Shared::apply`], when the peer's turn is held already.
    fn apply_in_turn(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        input: Input,
        candidate: Option<&Arc<Live>>,
        _turn: &parking_lot::MutexGuard<'_, ()>,
    ) -> bool {
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
                    state.ended_orderly = false;
                    if std::mem::take(&mut state.link_waits)
                        && let Some(live) = &state.current
                    {
                        live.linked();
                    }
                    if let Some(timer) = state.timer.take() {
                        timer.abort();
                    }
                    attached = true;
                }
                Effect::Refuse { .. } => {
                    if let Some(refused) = candidate {
                        Close::Duplicate.close(&refused.connection);
                    }
                }
                Effect::Supersede { .. } => {
                    if let Some(older) = slot.state.lock().current.take() {
                        Close::Superseded.close(&older.connection);
                    }
                }
                Effect::Detach => {
                    let mut state = slot.state.lock();
                    state.current = None;
                    state.outbox.restart();
                    if !state.outbox.is_idle()
                        && let Ok(effects) = state.machine.admit_notice(now)
                    {
                        for effect in effects {
                            self.start(slot, &mut state, effect);
                        }
                    }
                }
                Effect::DropQueued => self.drop_queued(slot),
                Effect::Dial { .. } | Effect::CancelDial | Effect::Arm { .. } => {
                    self.start(slot, &mut slot.state.lock(), effect);
                }
            }
        }
        attached
    }

    /// Carries out an effect that only starts or ends tasks.
    fn start(self: &Arc<Self>, slot: &Arc<Slot>, state: &mut State, effect: Effect) {
        match effect {
            Effect::Dial { dial } => {
                let task = connection::dial(Arc::clone(self), Arc::clone(slot), dial);
                state.dial = Some(self.handle.spawn(task).abort_handle());
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
        let (frames, reason, orderly) = {
            let mut state = slot.state.lock();
            state.current = None;
            state.link_waits = false;
            let orderly = std::mem::take(&mut state.ended_orderly);
            (state.drop_queued(), state.last_failure.clone(), orderly)
        };
        slot.dropped.fetch_add(frames, Ordering::Relaxed);
        if frames > 0 && orderly {
            debug!(peer = %slot.key, frames, "frames for a peer that left dropped");
        } else if frames > 0 {
            let reason = reason.as_deref().unwrap_or("connection lost");
            warn!(peer = %slot.key, frames, reason, "frames for a lost peer dropped");
        }
        if self.is_closing() {
            self.drained.notify_one();
        }
    }

    /// Address to dial, of the family of our socket.
    async fn resolve(&self, address: &Address) -> Result<SocketAddr, HandshakeError> {
        let host = &*address.host;
        let found = tokio::net::lookup_host((host, address.port))
            .await
            .map_err(|source| HandshakeError::Resolve {
                host: host.to_owned(),
                source,
            })?;
        // An IPv6 socket reaches IPv4 addresses too, where the system lets it.
        let mut usable: Vec<_> = found
            .filter(|found| self.local.is_ipv6() || found.is_ipv4())
            .collect();
        usable.sort_by_key(|found| found.is_ipv6() != self.local.is_ipv6());
        usable
            .first()
            .copied()
            .ok_or_else(|| HandshakeError::NoAddress(host.to_owned()))
    }

    /// Notes how many bytes of an unfinished message a lane holds.
    fn reassembling(&self, live: &Live, lane: usize, bytes: usize) {
        let before = live.assembling[lane].swap(bytes, Ordering::Relaxed);
        if before != bytes {
            // Far below 2^52 on any machine.
            #[expect(clippy::cast_precision_loss, reason = "a gauge")]
            let change = bytes as f64 - before as f64;
            let gauge = self.config.metrics.gauge("runtime/reassembly_bytes");
            gauge.add(change);
        }
    }

    fn all_slots(&self) -> Vec<Arc<Slot>> {
        self.slots.read().values().map(Arc::clone).collect()
    }

    fn close_guest(&self, id: &str) {
        let slot = self
            .slots
            .read()
            .get(&PeerKey::Guest(Arc::from(id)))
            .cloned();
        if let Some(live) = slot.and_then(|slot| slot.state.lock().current.clone()) {
            Close::Unpinned.close(&live.connection);
        }
    }

    async fn shut_down(self: Arc<Self>) {
        if !self.closing.swap(true, Ordering::SeqCst) {
            self.endpoint.set_server_config(None);
            let deadline = Instant::now() + SHUTDOWN_LIMIT;
            if tokio::time::timeout_at(deadline, self.flush())
                .await
                .is_err()
            {
                debug!("peers did not take all that was queued before the end");
            }
            for slot in self.all_slots() {
                let live = slot.state.lock().current.clone();
                self.apply(&slot, Input::Shutdown, None);
                if let Some(live) = live {
                    Close::Shutdown.close(&live.connection);
                }
            }
            self.endpoint.close(Close::Shutdown.code(), b"shutdown");
        }
        let idle = self.endpoint.wait_idle();
        if tokio::time::timeout(SHUTDOWN_LIMIT, idle).await.is_err() {
            debug!("some connections did not close in time");
        }
    }

    /// Waits until nothing is queued and every peer has what was sent.
    async fn flush(&self) {
        while self.all_slots().iter().any(|slot| slot.queued() > 0) {
            self.drained.notified().await;
        }
        let lives: Vec<_> = self
            .all_slots()
            .iter()
            .filter_map(|slot| slot.state.lock().current.clone())
            .collect();
        lives.iter().for_each(|live| live.finish());
        for live in lives {
            live.lanes_ended().await;
        }
    }
}

impl Transport for QuicTransport {
    fn send(&self, to: &PeerKey, frame: &Frame) -> Result<(), SendError> {
        let slot = self.shared.place(to)?;
        let body = lanes::Body::Bytes(&frame.body);
        let pair = (&frame.to, &frame.from);
        self.shared.queue(&slot, frame.class, pair, body)
    }

    fn post(
        &self,
        peer: &PeerKey,
        class: Class,
        to: &Pid,
        from: &Pid,
        body: Body<'_>,
    ) -> Result<(), SendError> {
        let slot = self.shared.place_of(peer, to)?;
        let pair = (to.id_shared(), from);
        match body {
            Body::Bytes(bytes) => {
                let body = lanes::Body::Bytes(bytes);
                self.shared.queue(&slot, class, pair, body)
            }
            Body::Value(value) => lanes::with_buffer(|buffer| {
                value
                    .encode_into(buffer)
                    .map_err(|source| SendError::Codec {
                        peer: peer.clone(),
                        source,
                    })?;
                let body = lanes::Body::Encoded(buffer);
                self.shared.queue(&slot, class, pair, body)
            }),
        }
    }

    fn pin(&self, guest: Guest) {
        let id = Arc::clone(&guest.id);
        let Proof::Certificate(fingerprint) = guest.proof else {
            error!(guest = %id, "a guest with a token cannot come over QUIC: give the node a socket for guests");
            return;
        };
        if self.shared.pins.add(guest, fingerprint) {
            self.shared.close_guest(&id);
        }
    }

    fn unpin(&self, id: &str) {
        self.shared.pins.remove(id);
        self.shared.close_guest(id);
    }

    fn has_guest(&self, id: &str) -> bool {
        self.shared.pins.has(id)
    }

    fn overloaded(&self, peer: &PeerKey, process: &Pid) {
        let slot = self.shared.slots.read().get(peer).cloned();
        let Some(live) = slot.and_then(|slot| slot.state.lock().current.clone()) else {
            return;
        };
        if live.may_tell_overload(self.shared.now())
            && live.say(&Word::Overloaded(process.id().to_owned()))
        {
            self.shared.config.metrics.count("runtime/overloads_told");
        }
    }

    fn probe(&self, host: IpAddr, port: u16) -> Option<Box<dyn Any + Send>> {
        let same = |live: &Live| {
            let remote = live.connection.remote_address();
            remote.port() == port && remote.ip().to_canonical() == host.to_canonical()
        };
        let found = self.shared.all_slots().into_iter().find_map(|slot| {
            let live = slot.state.lock().current.clone();
            live.filter(|live| same(live))
        })?;
        Some(Box::new(probe::Guard(Arc::downgrade(&found))))
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
