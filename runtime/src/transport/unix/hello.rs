//! What guest and host say before the first frame.
//!
//! ```text
//! guest   u32 length, big endian, at most MAX_HELLO | MessagePack of Hello, named form
//! host    u32 length, as above                      | MessagePack of Answer, named form; frames follow it both ways
//! ```
//!
//! The guest says nothing but Hello before it has the answer. Unknown fields are skipped, so later versions may add
//! some.

use std::{fmt, io};

use bytes::{BufMut as _, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use super::pins::Refusal;
use crate::codec::{CodecError, decode_body, encode_body};
use crate::pid::Address;
use crate::transport::Incarnation;

/// The protocol this code speaks.
const PROTOCOL: u16 = 1;
/// Largest Hello or answer, in bytes.
const MAX_HELLO: usize = 64 << 10;
/// Room made for its bytes at once.
const READ: usize = 4 << 10;

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("connection ended in the handshake")]
    Io(#[from] io::Error),
    #[error("no answer in time")]
    TimedOut,
    #[error("Hello is not one")]
    Codec(#[from] CodecError),
    #[error("Hello of {0} bytes is over the limit of {MAX_HELLO}")]
    TooLarge(usize),
    #[error("peer speaks protocol {min} to {max} and this node {PROTOCOL}: upgrade the older one")]
    Version { min: u16, max: u16 },
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("guest {0} is connected already: a second connection under its token is refused")]
    Second(String),
    #[error("user {uid} listens on the host's socket and not {expected}")]
    Impostor { uid: u32, expected: u32 },
    #[error("the host is {found} and not {expected}")]
    Elsewhere { found: Address, expected: Address },
    #[error("the host refuses: {0}")]
    ByHost(String),
}

impl HandshakeError {
    /// Whether it is an ordinary sign of a host that is not there, and no news for an operator.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, Self::Io(_) | Self::TimedOut)
    }
}

/// What a guest says of itself. Debug output hides the token.
#[derive(Serialize, Deserialize)]
pub(super) struct Hello {
    /// Oldest protocol it speaks.
    pub(super) protocol_min: u16,
    /// Newest protocol it speaks.
    pub(super) protocol_max: u16,
    /// Which run of the guest it is.
    pub(super) incarnation: Incarnation,
    /// The actor id it was pinned for.
    pub(super) id: String,
    /// Its token.
    #[serde(with = "serde_bytes")]
    pub(super) token: Vec<u8>,
    /// Number of this dial.
    pub(super) dial: u64,
    /// Message kinds it knows, with the version of each.
    #[serde(default)]
    pub(super) kinds: Vec<(u32, u16)>,
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("incarnation", &self.incarnation)
            .field("id", &self.id)
            .field("dial", &self.dial)
            .finish_non_exhaustive()
    }
}

impl Hello {
    /// A Hello of this version.
    pub(super) fn new(incarnation: Incarnation, id: &str, token: &[u8], dial: u64) -> Self {
        Self {
            protocol_min: PROTOCOL,
            protocol_max: PROTOCOL,
            incarnation,
            id: id.to_owned(),
            token: token.to_vec(),
            dial,
            kinds: Vec::new(),
        }
    }

    pub(super) fn check_version(&self) -> Result<(), HandshakeError> {
        if (self.protocol_min..=self.protocol_max).contains(&PROTOCOL) {
            Ok(())
        } else {
            Err(HandshakeError::Version {
                min: self.protocol_min,
                max: self.protocol_max,
            })
        }
    }
}

/// What the host answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Why the guest may not come in, if so.
    #[serde(default)]
    pub(super) refused: Option<String>,
    /// Which run of the host it is.
    pub(super) incarnation: Incarnation,
    /// The host's address, which the guest shares.
    pub(super) address: Address,
    /// The host's role.
    pub(super) role: String,
    /// Message kinds it knows, with the version of each.
    #[serde(default)]
    pub(super) kinds: Vec<(u32, u16)>,
}

/// Reads the body of a Hello and writes it again, for its fuzz target.
pub(crate) fn read_hello(body: &[u8]) -> Result<Vec<u8>, CodecError> {
    let hello: Hello = decode_body(body)?;
    encode_body(&hello).map(|body| body.to_vec())
}

/// Reads the body of an answer and writes it again, for its fuzz target.
pub(crate) fn read_answer(body: &[u8]) -> Result<Vec<u8>, CodecError> {
    let answer: Answer = decode_body(body)?;
    encode_body(&answer).map(|body| body.to_vec())
}

/// Writes a Hello or an answer.
pub(super) async fn write<T: Serialize>(
    stream: &UnixStream,
    value: &T,
) -> Result<(), HandshakeError> {
    let body = encode_body(value)?;
    let length = match u32::try_from(body.len()) {
        Ok(length) if body.len() <= MAX_HELLO => length,
        Ok(_) | Err(_) => return Err(HandshakeError::TooLarge(body.len())),
    };
    let mut bytes = BytesMut::with_capacity(4 + body.len());
    bytes.put_u32(length);
    bytes.put_slice(&body);
    Ok(super::connection::write_all(stream, bytes.freeze()).await?)
}

/// Reads a Hello or an answer, and not a byte more.
pub(super) async fn read<T: DeserializeOwned>(stream: &UnixStream) -> Result<T, HandshakeError> {
    let mut length = [0; 4];
    read_exact(stream, &mut length).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_HELLO {
        return Err(HandshakeError::TooLarge(length));
    }
    let mut body = Vec::new();
    while body.len() < length {
        // By what has come: an announced length alone costs nothing.
        let from = body.len();
        body.resize(length.min(from + READ), 0);
        read_exact(stream, &mut body[from..]).await?;
    }
    Ok(decode_body(&body)?)
}

async fn read_exact(stream: &UnixStream, mut into: &mut [u8]) -> io::Result<()> {
    while !into.is_empty() {
        match stream.try_read(into) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => into = &mut into[read..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.readable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_that_is_printed_does_not_tell_its_token() {
        let shown = format!(
            "{:?}",
            Hello::new(Incarnation(1), "executor-1", b"secret", 1)
        );
        assert!(shown.contains("executor-1"), "{shown}");
        for hidden in ["secret", &format!("{:?}", b"secret")[1..], "115, 101"] {
            assert!(!shown.contains(hidden), "{shown}");
        }
    }
}
