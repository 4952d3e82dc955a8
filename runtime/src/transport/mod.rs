//! Transports: how frames get from one node to another.
//!
//! A transport keeps at most one connection per peer, moves frames in order for each pair of PIDs, and tells its
//! node what arrived and which peers were lost. It never re-sends: what was queued for a connection that breaks is
//! gone (at most once). Two transports exist: [`quic`] for production and [`memory`] for tests.

pub mod memory;
mod peers;
pub mod quic;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::codec::{CodecError, Frame};
use crate::message::Kind;
use crate::pid::Address;

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
    /// A guest of this node: a process with a one-use key that this node pinned. It shares this node's address and
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
    /// SHA-256 of its certificate in DER form.
    pub fingerprint: [u8; 32],
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

/// Counters of one peer, for `/__processes__`.
#[derive(Debug, Clone, serde::Serialize)]
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
}

/// What a node asks of its transport. All calls return at once and may come from any thread.
pub trait Transport: Send + Sync + 'static {
    /// Queues a frame, dialling the peer when there is no connection.
    ///
    /// # Errors
    /// [`SendError`]; the frame is dropped and counted.
    fn send(&self, to: &PeerKey, frame: &Frame) -> Result<(), SendError>;
    /// Lets a guest connect, from now until [`Transport::unpin`].
    fn pin(&self, guest: Guest);
    /// Refuses the guest from now on and closes its connection.
    fn unpin(&self, id: &str);
    /// Whether a guest of this id is pinned.
    fn has_guest(&self, id: &str) -> bool;
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
    /// The peer is lost; comes exactly once for each connection that had stood, and once for a first dial that
    /// failed. No frame of that connection comes after it.
    fn lost(&self, peer: &PeerKey, loss: Loss);
}
