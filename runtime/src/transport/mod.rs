//! Transports: how frames get from one node to another.
//!
//! A transport keeps at most one connection per peer, moves frames in order for each pair of PIDs, and tells its
//! node what arrived and which peers were lost. It never re-sends: what was queued for a connection that breaks is
//! gone (at most once). Three transports exist: [`quic`] for production, [`unix`] for guests of the same machine that
//! are to cost little, and [`memory`] for tests.

pub(crate) mod lanes;
pub mod memory;
mod peers;
pub mod quic;
mod side_by_side;
pub mod unix;

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::codec::{Class, CodecError, Frame};
use crate::inbox::Inbox;
use crate::message::{Kind, Parcel};
use crate::pid::{Address, Pid};

pub(crate) use side_by_side::SideBySide;

/// How long a shutdown waits for peers to take what is queued, and again for the connections to close.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(1);

/// Number that a node draws at its start: two runs at one address differ in it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Incarnation(pub u64);

/// The message kinds a node knows, each with its name and version. Clones are the same list.
#[derive(Debug, Clone, Default)]
pub struct Kinds(Arc<Mutex<BTreeMap<Kind, (&'static str, u16)>>>);

impl Kinds {
    /// Adds a kind.
    ///
    /// # Errors
    /// The name that has this number already, when it is another one.
    pub fn add(&self, kind: Kind, name: &'static str, version: u16) -> Result<(), &'static str> {
        let mut kinds = self.0.lock();
        let (known, newest) = kinds.entry(kind).or_insert((name, version));
        if *known != name {
            return Err(*known);
        }
        *newest = version.max(*newest);
        Ok(())
    }

    /// Number and version of each kind, as Hello tells them.
    pub fn versions(&self) -> Vec<(u32, u16)> {
        let kinds = self.0.lock();
        let all = kinds.iter().map(|(kind, (_, version))| (kind.0, *version));
        all.collect()
    }
}

/// Who is at the other end of a connection, by the name frames are sent to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PeerKey {
    /// A node with a certificate of the cluster's CA, at its advertised address.
    Node(Address),
    /// A guest of this node: a process with a one-use key or token that this node pinned. It shares this node's address and
    /// may speak as the one actor id it was pinned for.
    Guest(Arc<str>),
}

impl std::fmt::Display for PeerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(address) => write!(f, "{address}"),
            Self::Guest(id) => write!(f, "guest {id}"),
        }
    }
}

/// The authenticated peer of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub key: PeerKey,
    /// Roles of its certificate; a guest has the role it was pinned with.
    pub roles: Vec<Arc<str>>,
    /// Which run of the peer it is.
    pub incarnation: Incarnation,
}

/// A guest that may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// The one actor id it may speak as, for example `executor-<container id>`.
    pub id: Arc<str>,
    /// Role its messages are sent under, for example `executor`.
    pub role: Arc<str>,
    /// What it shows.
    pub proof: Proof,
}

/// How a guest proves that it is the one that was pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Over QUIC, by the key of the certificate whose DER form has this SHA-256.
    Certificate([u8; 32]),
    /// Over the host's Unix socket, as this user.
    Token {
        /// SHA-256 of the token.
        hash: unix::TokenHash,
        /// User id of its process.
        uid: u32,
    },
}

/// Why a frame was not queued. The frame is dropped: delivery is at most once.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// More than the allowed bytes wait for this peer.
    #[error("send queue of {peer} is full ({queued} bytes): the message is dropped")]
    QueueFull {
        /// The peer.
        peer: PeerKey,
        /// Bytes that wait.
        queued: usize,
    },
    /// No connection, and none can be made from here: a guest that is not connected, or a node that only dials.
    #[error("{0} is not connected and cannot be dialled: the message is dropped")]
    Unreachable(PeerKey),
    /// The frame cannot be written.
    #[error("frame for {peer} refused")]
    Codec {
        /// The peer.
        peer: PeerKey,
        /// What is wrong with it.
        #[source]
        source: CodecError,
    },
}

/// Why a peer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The connection broke, fell silent, could not be made, or was closed by either side.
    ConnectionLost,
    /// Another run of the node answers at its address.
    NodeRestarted,
}

/// The peer broke a rule: the transport must close its connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{peer} sent a frame as {claimed}, which it is not: its connection is closed")]
pub struct Violation {
    /// The authenticated peer.
    pub peer: PeerKey,
    /// The PID it claimed.
    pub claimed: String,
}

/// Counters of one data lane to and from a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct LaneStatus {
    /// Which lane, from 0.
    pub lane: usize,
    /// Bytes that wait to be handed to the connection.
    pub queued_bytes: usize,
    /// Frames queued since the peer was met.
    pub sent_frames: u64,
    /// Bytes handed to connections since then.
    pub sent_bytes: u64,
    /// Pairs of PIDs named on the lane of the present connection; more than there are pairs when they are too many to be
    /// remembered and are named again and again.
    pub routes_named: u64,
    /// Frames received since then.
    pub received_frames: u64,
    /// Bytes received since then.
    pub received_bytes: u64,
}

/// Counters of one peer, for `/__processes__`.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct PeerStatus {
    /// The peer's name as text.
    pub peer: String,
    /// Whether a connection stands.
    pub connected: bool,
    /// Bytes that wait to be handed to the connection.
    pub queued_bytes: usize,
    /// Frames queued for the peer since the node's start.
    pub sent: u64,
    /// Frames received.
    pub received: u64,
    /// Frames dropped: queue full, unreachable, or lost with a connection before they were handed over.
    pub dropped: u64,
    /// How many message kinds the peer said it knows when the connection was made; 0 without one, and over the
    /// in-memory network, where nobody says Hello. A lower bound: see [`quic::QuicConfig::kinds`].
    pub kinds: usize,
    /// Which run of the peer the connection is with, as 16 hexadecimal digits; `None` without one, and over the
    /// in-memory network.
    pub incarnation: Option<String>,
    /// Smoothed round-trip time of the connection, in microseconds; 0 without one.
    pub rtt_us: u64,
    /// Packets of this connection that were declared lost.
    pub lost_packets: u64,
    /// Congestion window of the connection, in bytes; 0 without one.
    pub congestion_window: u64,
    /// Why the last dial failed; none since the last connection was made, and over the in-memory network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
    /// Bytes of frames handed to connections since the peer was met.
    pub sent_bytes: u64,
    /// Bytes of frames received since then.
    pub received_bytes: u64,
    /// The same for each data lane; empty over the in-memory network.
    pub lanes: Vec<LaneStatus>,
}

/// A pair of PIDs that a peer sends on: what a transport keeps for it on the receiving side.
#[derive(Debug, Clone)]
pub struct Route {
    /// Id of the receiver on this node.
    pub to: Arc<str>,
    /// The sender.
    pub from: Pid,
    /// What the node has found out about it.
    pub(crate) known: Option<Known>,
}

impl Route {
    /// A route of which nothing is known yet.
    pub fn new(to: Arc<str>, from: Pid) -> Self {
        Self {
            to,
            from,
            known: None,
        }
    }
}

/// What a node has found out about a route, so that it need not be looked up for each message.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// The receiver.
    pub(crate) to: Pid,
    /// Its mailbox; a process that took the name later has another.
    pub(crate) inbox: Weak<Inbox>,
    /// The kind that the peer was last found to be allowed to send to it.
    pub(crate) kind: Option<Kind>,
}

/// The body of a frame to be sent.
pub enum Body<'a> {
    /// A value, encoded where it will be sent from.
    Value(&'a Parcel),
    /// Encoded already.
    Bytes(&'a Bytes),
}

/// What a node asks of its transport. All calls return at once and may come from any thread.
pub trait Transport: Send + Sync + 'static {
    /// Queues a frame, dialling the peer when there is no connection.
    ///
    /// # Errors
    /// [`SendError`]; the frame is dropped and counted.
    fn send(&self, to: &PeerKey, frame: &Frame) -> Result<(), SendError>;

    /// As [`Transport::send`], without a frame made first: from `from`, for the process `to` at the peer.
    ///
    /// # Errors
    /// As [`Transport::send`].
    fn post(
        &self,
        peer: &PeerKey,
        class: Class,
        to: &Pid,
        from: &Pid,
        body: Body<'_>,
    ) -> Result<(), SendError> {
        let body = match body {
            Body::Bytes(bytes) => bytes.clone(),
            Body::Value(value) => {
                value
                    .encode()
                    .map(Bytes::from)
                    .map_err(|source| SendError::Codec {
                        peer: peer.clone(),
                        source,
                    })?
            }
        };
        let frame = Frame {
            class,
            to: to.shared_id(),
            from: from.clone(),
            body,
        };
        self.send(peer, &frame)
    }

    /// Lets a guest connect, from now until [`Transport::unpin`].
    fn pin(&self, guest: Guest);
    /// Refuses the guest from now on and closes its connection.
    fn unpin(&self, id: &str);
    /// Whether a guest of this id is pinned.
    fn has_guest(&self, id: &str) -> bool;
    /// A process on this node could not take a message of the peer because its mailbox was full: the peer is told, not
    /// more often than is good for both.
    fn overloaded(&self, _peer: &PeerKey, _process: &Pid) {}
    /// Somebody at this address, who gives `port` as the number its packets come from, opened a TCP connection to show
    /// with its end that it has ended. Keep what is returned as long as that stands; `None`: there is no such peer.
    fn probe(&self, _host: std::net::IpAddr, _port: u16) -> Option<Box<dyn Any + Send>> {
        None
    }
    /// Counters of every peer there is a connection to or was one lately.
    fn peers(&self) -> Vec<PeerStatus>;
    /// Sends what is queued, as far as peers take it within a second, and closes all connections.
    fn shutdown(&self) -> futures::future::BoxFuture<'static, ()>;
}

/// What a transport tells its node. Calls for one peer come in order; they must not block.
pub trait Upcalls: Send + Sync + 'static {
    /// A frame arrived.
    ///
    /// # Errors
    /// [`Violation`] when the frame's sender is not the connection's peer; the transport then closes the connection.
    fn received(&self, peer: &Peer, frame: Frame) -> Result<(), Violation>;

    /// The peer names a pair on which it will send.
    ///
    /// # Errors
    /// As [`Upcalls::received`].
    fn route(&self, _peer: &Peer, to: Arc<str>, from: Pid) -> Result<Route, Violation> {
        Ok(Route::new(to, from))
    }

    /// As [`Upcalls::received`], on a route that [`Upcalls::route`] has returned for this peer.
    ///
    /// # Errors
    /// As [`Upcalls::received`].
    fn arrived(
        &self,
        peer: &Peer,
        route: &mut Route,
        class: Class,
        body: Bytes,
    ) -> Result<(), Violation> {
        let frame = Frame {
            class,
            to: Arc::clone(&route.to),
            from: route.from.clone(),
            body,
        };
        self.received(peer, frame)
    }

    /// As [`Upcalls::arrived`] for each of these messages, which came in this order. All must be taken, unless there is an
    /// error.
    ///
    /// # Errors
    /// As [`Upcalls::received`].
    fn arrived_run(
        &self,
        peer: &Peer,
        route: &mut Route,
        messages: &mut dyn Iterator<Item = (Class, Bytes)>,
    ) -> Result<(), Violation> {
        for (class, body) in messages {
            self.arrived(peer, route, class, body)?;
        }
        Ok(())
    }

    /// Whether a link between a process here and one of the peer's stands, in either direction. Its connection is kept
    /// then, even when it is silent.
    fn is_linked(&self, _peer: &PeerKey) -> bool {
        true
    }

    /// The peer says that the mailbox of its process `id` was full and a message of this node was dropped.
    fn overloaded(&self, _peer: &Peer, _id: &str) {}

    /// The peer is lost; comes exactly once for each connection that had stood, and once for a first dial that
    /// failed. No frame of that connection comes after it.
    fn lost(&self, peer: &PeerKey, loss: Loss);
}

#[expect(
    clippy::disallowed_methods,
    reason = "dials follow the network's time, as QUIC's own timers do; a node's paused clock cannot drive them"
)]
pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}
