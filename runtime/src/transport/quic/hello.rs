//! Hello: the first thing each side says on a new connection, and why connections are refused.
//!
//! ```text
//! control stream   the first stream each side opens
//!                  u32 length, big endian, at most MAX_HELLO | MessagePack of Hello, named form
//!                  then the words of control.rs
//! data lane        opened after Hello, when there is something to send on it, once for each number
//!                  u8 number of the lane, below LANES | frames of codec/stream.rs, back to back
//! ```
//!
//! The dialler says Hello at once; the other side answers only when it takes the connection, and nothing but Hello
//! is sent before that answer. A Hello is only a claim: [`Hello::check`] holds it against the certificate and the
//! address that the packets come from. Unknown fields are skipped, so later versions may add some.

use bytes::{BufMut, BytesMut};
use quinn::{ConnectionError, RecvStream, SendStream, VarInt};
use serde::{Deserialize, Serialize};

use super::tls::Who;
use super::{Mode, QuicConfig};
use crate::codec::{decode_body, encode_body};
use crate::pid::Address;
use crate::transport::peers::{DialId, Facts};
use crate::transport::{Incarnation, PeerKey};

/// The protocol this code speaks. 2: lanes are numbered and opened when needed, pairs of PIDs are named once.
pub(super) const PROTOCOL: u16 = 2;
/// Largest Hello, in bytes.
const MAX_HELLO: usize = 64 << 10;
/// Room made for its bytes at once.
const READ: usize = 4 << 10;

/// Why a connection is closed, as the peer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Close {
    /// The node ends.
    Shutdown = 1,
    /// Another connection of the same pair stands or comes.
    Duplicate = 2,
    /// A newer connection of the same pair took its place.
    Superseded = 3,
    /// Hello does not fit the certificate or the cluster.
    Refused = 4,
    /// The peer does not keep to the order of streams.
    Protocol = 5,
    /// A data lane held something that is not a frame.
    BadFrame = 6,
    /// A frame's sender is not the peer.
    Violation = 7,
    /// The guest is no longer welcome.
    Unpinned = 8,
    /// Both sides agreed that nobody uses the connection.
    Idle = 9,
    /// The peer's process has probably ended: it did not answer a ping after its TCP connection was closed.
    Dead = 10,
    /// More waits for the peer than it will ever take: it is told of ends and does not read.
    Overrun = 11,
}

impl Close {
    /// Closes the connection with this code and a word for the peer's log.
    pub(super) fn close(self, connection: &quinn::Connection) {
        let word: &[u8] = match self {
            Self::Shutdown => b"shutdown",
            Self::Duplicate => b"duplicate",
            Self::Superseded => b"superseded",
            Self::Refused => b"refused",
            Self::Protocol => b"protocol",
            Self::BadFrame => b"bad frame",
            Self::Violation => b"violation",
            Self::Unpinned => b"unpinned",
            Self::Idle => b"idle",
            Self::Dead => b"dead",
            Self::Overrun => b"overrun",
        };
        connection.close(self.code(), word);
    }

    /// The number on the wire.
    pub(super) fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    /// Whether the peer closed the connection with this code.
    pub(super) fn is_why(self, error: &ConnectionError) -> bool {
        matches!(error, ConnectionError::ApplicationClosed(close) if close.error_code == self.code())
    }
}

impl Close {
    /// Whether a connection that had stood ended because either side wanted it to, and neither broke a rule: a peer
    /// that shuts down, a guest that is done, a newer connection.
    pub(super) fn is_orderly(error: &ConnectionError) -> bool {
        [
            Self::Shutdown,
            Self::Duplicate,
            Self::Superseded,
            Self::Unpinned,
            Self::Idle,
        ]
        .iter()
        .any(|close| close.is_why(error))
    }
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("host name {host} cannot be resolved")]
    Resolve {
        host: String,
        #[source]
        source: std::io::Error,
    },
    #[error("host name {0} has no address of this socket's family")]
    NoAddress(String),
    #[error("cannot dial")]
    Dial(#[from] quinn::ConnectError),
    #[error("connection ended in the handshake: {0}")]
    Connection(#[from] ConnectionError),
    #[error("Hello cannot be written")]
    Write(#[from] quinn::WriteError),
    #[error("Hello cannot be read")]
    Read(#[from] quinn::ReadExactError),
    #[error("Hello is not one")]
    Codec(#[from] crate::codec::CodecError),
    #[error("Hello of {0} bytes is over the limit of {MAX_HELLO}: register fewer message kinds")]
    TooLarge(usize),
    #[error("peer speaks protocol {min} to {max} and this node {PROTOCOL}: upgrade the older one")]
    Version { min: u16, max: u16 },
    #[error("peer belongs to cluster {theirs} and this node to {ours}: check the addresses")]
    Cluster { theirs: String, ours: String },
    #[error("peer's certificate is refused: {0}")]
    Certificate(String),
    #[error(
        "peer says it is {claimed}, but its certificate names {names}: issue it one for that host"
    )]
    Host { claimed: Address, names: String },
    #[error("peer says it is {claimed}, but its packets come from port {observed}")]
    Port { claimed: Address, observed: u16 },
    #[error("peer says it is {claimed}, but {dialled} was dialled: use the advertised address")]
    Elsewhere { claimed: Address, dialled: Address },
    #[error("peer says it is {0}, which is this node's own address")]
    Ourselves(Address),
}

impl HandshakeError {
    /// Whether the peer refused because another connection of this pair stands or comes.
    pub(super) fn is_duplicate(&self) -> bool {
        self.ended()
            .is_some_and(|error| Close::Duplicate.is_why(error))
    }

    /// Whether it is an ordinary sign of a peer that is not there or has turned to another connection, and no news
    /// for an operator.
    pub(super) fn is_silence(&self) -> bool {
        self.ended().is_some_and(|error| match error {
            ConnectionError::TimedOut | ConnectionError::LocallyClosed | ConnectionError::Reset => {
                true
            }
            // Without a code: the other side gave its dial up.
            ConnectionError::ApplicationClosed(close) => {
                close.error_code == VarInt::from_u32(0)
                    || Close::Duplicate.is_why(error)
                    || Close::Shutdown.is_why(error)
            }
            ConnectionError::VersionMismatch
            | ConnectionError::TransportError(_)
            | ConnectionError::ConnectionClosed(_)
            | ConnectionError::CidsExhausted => false,
        })
    }

    /// How the connection ended, if that is what happened.
    pub(super) fn ended(&self) -> Option<&ConnectionError> {
        match self {
            Self::Connection(error)
            | Self::Write(quinn::WriteError::ConnectionLost(error))
            | Self::Read(quinn::ReadExactError::ReadError(quinn::ReadError::ConnectionLost(
                error,
            ))) => Some(error),
            Self::Resolve { .. }
            | Self::NoAddress(_)
            | Self::Dial(_)
            | Self::Write(_)
            | Self::Read(_)
            | Self::Codec(_)
            | Self::TooLarge(_)
            | Self::Version { .. }
            | Self::Cluster { .. }
            | Self::Certificate(_)
            | Self::Host { .. }
            | Self::Port { .. }
            | Self::Elsewhere { .. }
            | Self::Ourselves(_) => None,
        }
    }
}

/// Reads the body of a Hello and writes it again, for its fuzz target.
pub(crate) fn read_hello(body: &[u8]) -> Result<Vec<u8>, crate::codec::CodecError> {
    let hello: Hello = decode_body(body)?;
    encode_body(&hello).map(|body| body.to_vec())
}

/// What a node says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Hello {
    /// Oldest protocol it speaks.
    pub(super) protocol_min: u16,
    /// Newest protocol it speaks.
    pub(super) protocol_max: u16,
    /// Which run of the node it is.
    pub(super) incarnation: Incarnation,
    /// Its advertised address; a guest gives its host's.
    pub(super) address: Address,
    /// Whether it can be dialled there.
    pub(super) dialable: bool,
    /// Its cluster, when it is bound to one.
    #[serde(default)]
    pub(super) cluster_id: Option<String>,
    /// Message kinds it knows, with the version of each.
    #[serde(default)]
    pub(super) kinds: Vec<(u32, u16)>,
    /// Number of this dial; 0 in an answer.
    #[serde(default)]
    pub(super) dial: u64,
    /// The last dial of the other side that it accepted.
    #[serde(default)]
    pub(super) accepted: Option<DialId>,
}

impl Hello {
    /// The Hello of our own node.
    pub(super) fn own(config: &QuicConfig, dial: u64, accepted: Option<DialId>) -> Self {
        Self {
            protocol_min: PROTOCOL,
            protocol_max: PROTOCOL,
            incarnation: config.incarnation,
            address: config.address.clone(),
            dialable: matches!(config.mode, Mode::Listening),
            cluster_id: config.cluster_id.clone(),
            kinds: config.kinds.versions(),
            dial,
            accepted,
        }
    }

    /// What decides about connections.
    pub(super) fn facts(&self) -> Facts {
        Facts {
            incarnation: self.incarnation,
            dialable: self.dialable,
            dial: self.dial,
            accepted: self.accepted,
        }
    }

    /// Writes it to a control stream.
    pub(super) async fn write(&self, control: &mut SendStream) -> Result<(), HandshakeError> {
        let body = encode_body(self)?;
        let length = match u32::try_from(body.len()) {
            Ok(length) if body.len() <= MAX_HELLO => length,
            Ok(_) | Err(_) => return Err(HandshakeError::TooLarge(body.len())),
        };
        let mut bytes = BytesMut::with_capacity(4 + body.len());
        bytes.put_u32(length);
        bytes.put_slice(&body);
        Ok(control.write_all(&bytes).await?)
    }

    /// Reads one from a control stream.
    pub(super) async fn read(control: &mut RecvStream) -> Result<Self, HandshakeError> {
        let mut length = [0; 4];
        control.read_exact(&mut length).await?;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_HELLO {
            return Err(HandshakeError::TooLarge(length));
        }
        let mut body = Vec::new();
        while body.len() < length {
            // By what has come: an announced length alone costs nothing.
            let from = body.len();
            body.resize(length.min(from + READ), 0);
            control.read_exact(&mut body[from..]).await?;
        }
        Ok(decode_body(&body)?)
    }

    /// Holds the claims of a dialler against its certificate and the port its packets come from.
    pub(super) fn check(
        &self,
        who: &Who,
        observed: u16,
        config: &QuicConfig,
    ) -> Result<PeerKey, HandshakeError> {
        self.check_common(config)?;
        let claimed = self.address.clone();
        match who {
            Who::Guest(guest, _) if claimed == config.address => {
                Ok(PeerKey::Guest(guest.id.clone()))
            }
            Who::Guest(..) => Err(HandshakeError::Elsewhere {
                claimed,
                dialled: config.address.clone(),
            }),
            Who::Node(names) if !names.has_host(&claimed.host) => Err(HandshakeError::Host {
                claimed,
                names: names.hosts.join(", "),
            }),
            Who::Node(_) if claimed.port != observed => {
                Err(HandshakeError::Port { claimed, observed })
            }
            Who::Node(_) if claimed == config.address => Err(HandshakeError::Ourselves(claimed)),
            Who::Node(_) => Ok(PeerKey::Node(claimed)),
        }
    }

    /// Holds the claims of a node that we dialled at `dialled` against it; its certificate was checked for that host
    /// and the packets go to that port.
    pub(super) fn check_answer(
        &self,
        dialled: &Address,
        config: &QuicConfig,
    ) -> Result<(), HandshakeError> {
        self.check_common(config)?;
        if self.address != *dialled {
            return Err(HandshakeError::Elsewhere {
                claimed: self.address.clone(),
                dialled: dialled.clone(),
            });
        }
        Ok(())
    }

    fn check_common(&self, config: &QuicConfig) -> Result<(), HandshakeError> {
        if !(self.protocol_min..=self.protocol_max).contains(&PROTOCOL) {
            return Err(HandshakeError::Version {
                min: self.protocol_min,
                max: self.protocol_max,
            });
        }
        match (&self.cluster_id, &config.cluster_id) {
            (Some(theirs), Some(ours)) if theirs != ours => Err(HandshakeError::Cluster {
                theirs: theirs.clone(),
                ours: ours.clone(),
            }),
            (Some(_) | None, _) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_end_that_somebody_wanted_is_orderly() {
        let closed = |close: Close| {
            ConnectionError::ApplicationClosed(quinn::ApplicationClose {
                error_code: close.code(),
                reason: bytes::Bytes::new(),
            })
        };
        assert!(Close::is_orderly(&closed(Close::Shutdown)));
        assert!(Close::is_orderly(&closed(Close::Unpinned)));
        for error in [
            closed(Close::BadFrame),
            closed(Close::Violation),
            ConnectionError::TimedOut,
            ConnectionError::Reset,
        ] {
            assert!(!Close::is_orderly(&error), "{error}");
        }
    }
}
