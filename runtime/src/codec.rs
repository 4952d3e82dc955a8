//! Frames: what two nodes write to each other's data lanes.
//!
//! Pure: bytes in, frames out. A frame is a fixed binary header and, for messages, a MessagePack body:
//!
//! ```text
//! u32  length of everything after this field, big endian, at most `max_frame`
//! u8   class        0 message, 1 link, 2 unlink, 3 exited
//! u8   correlation  0 none, 1 request, 2 answer
//! u32  kind         FNV-1a of the message's name; 0 unless class is 0
//! u64  number       of the request or answer; 0 when correlation is 0
//! u16  n, n bytes   receiver: id of a PID on the node that reads the frame
//! u16  n, n bytes   sender: whole PID text, checked against the connection's authenticated peer
//! rest              body: MessagePack of the message, or of the exit reason; empty for link and unlink
//! ```
//!
//! The length is checked against the limit before anything is allocated, and every error ends the connection it
//! came from: after one bad frame the position of the next is not known.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::message::{Correlation, Kind};
use crate::pid::{MAX_ID_BYTES, Pid};

/// Bytes of the header before the two PIDs, without the length field.
const FIXED_HEADER: usize = 1 + 1 + 4 + 8;
/// Room for header and PIDs beyond the body, added to the message limit to get the frame limit.
const HEADER_ROOM: usize = 4096;
/// How deep arrays and maps of a body may nest.
pub const MAX_DEPTH: usize = 64;
/// Default limit of one message's body: 64 MiB.
pub const DEFAULT_MAX_MESSAGE: usize = 64 << 20;

/// What a frame does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Carries a message.
    Message {
        /// Kind of the message.
        kind: Kind,
        /// Whether it asks or answers.
        correlation: Correlation,
    },
    /// The sender wants to hear of the receiver's end.
    Link,
    /// The sender no longer wants to.
    Unlink,
    /// The sender has ended; the receiver had linked to it. The body is the reason.
    Exited,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it does.
    pub class: Class,
    /// Id of the receiver on the node that reads the frame.
    pub to: std::sync::Arc<str>,
    /// PID of the sender.
    pub from: Pid,
    /// Body.
    pub body: Bytes,
}

/// Why bytes are not a frame, or a frame or body cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Longer than the limit.
    #[error(
        "frame of {length} bytes is over the limit of {limit}: raise max_message on both nodes or send less"
    )]
    TooLarge {
        /// Length of the frame, in bytes.
        length: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The lengths inside the frame do not add up.
    #[error("frame is cut short or its lengths disagree: {0}")]
    Malformed(&'static str),
    /// The class or correlation byte is none that we know.
    #[error("frame has unknown {what} {value}")]
    Unknown {
        /// Which field.
        what: &'static str,
        /// Its value.
        value: u8,
    },
    /// A PID in the frame is not one.
    #[error("frame names a bad PID")]
    BadPid(#[source] crate::pid::ParsePidError),
    /// The body is not the MessagePack of the expected type.
    #[error("body does not decode")]
    Decode(#[source] rmp_serde::decode::Error),
    /// The value cannot be written as MessagePack.
    #[error("message does not encode")]
    Encode(#[source] rmp_serde::encode::Error),
}

/// Frame limit that follows from a message limit.
pub fn max_frame(max_message: usize) -> usize {
    max_message.saturating_add(HEADER_ROOM)
}

/// Writes a value as the body of a frame: MessagePack, named form.
///
/// # Errors
/// [`CodecError::Encode`] when the value has no MessagePack form.
pub fn encode_body<T: Serialize>(value: &T) -> Result<Bytes, CodecError> {
    rmp_serde::to_vec_named(value)
        .map(Bytes::from)
        .map_err(CodecError::Encode)
}

/// Reads a body, refusing one nested deeper than [`MAX_DEPTH`].
///
/// # Errors
/// [`CodecError::Decode`] with the reason.
pub fn decode_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(body);
    deserializer.set_max_depth(MAX_DEPTH);
    T::deserialize(&mut deserializer).map_err(CodecError::Decode)
}

impl Frame {
    /// Appends the frame's bytes to `out`.
    ///
    /// # Errors
    /// [`CodecError::TooLarge`] when it is over `max_frame` bytes; nothing is appended then.
    pub fn encode(&self, max_frame: usize, out: &mut BytesMut) -> Result<(), CodecError> {
        let from = self.from.to_string();
        let length = FIXED_HEADER + 4 + self.to.len() + from.len() + self.body.len();
        let too_large = CodecError::TooLarge {
            length,
            limit: max_frame,
        };
        if length > max_frame {
            return Err(too_large);
        }
        let Ok(length) = u32::try_from(length) else {
            return Err(too_large);
        };
        let (to_len, from_len) = (short_len(&self.to)?, short_len(&from)?);
        out.reserve(4 + length as usize);
        out.put_u32(length);
        let (class, correlation, kind, number) = match self.class {
            Class::Message { kind, correlation } => match correlation {
                Correlation::None => (0, 0, kind.0, 0),
                Correlation::Request(number) => (0, 1, kind.0, number),
                Correlation::Answer(number) => (0, 2, kind.0, number),
            },
            Class::Link => (1, 0, 0, 0),
            Class::Unlink => (2, 0, 0, 0),
            Class::Exited => (3, 0, 0, 0),
        };
        out.put_u8(class);
        out.put_u8(correlation);
        out.put_u32(kind);
        out.put_u64(number);
        out.put_u16(to_len);
        out.put_slice(self.to.as_bytes());
        out.put_u16(from_len);
        out.put_slice(from.as_bytes());
        out.put_slice(&self.body);
        Ok(())
    }

    /// Takes the next whole frame off the front of `buffer`; `None` when more bytes are needed.
    ///
    /// # Errors
    /// Any [`CodecError`] but `Encode` and `Decode`; the stream cannot be read on after one.
    pub fn decode(max_frame: usize, buffer: &mut BytesMut) -> Result<Option<Self>, CodecError> {
        let Some(head) = buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*head) as usize;
        if length > max_frame {
            return Err(CodecError::TooLarge {
                length,
                limit: max_frame,
            });
        }
        if length < FIXED_HEADER + 4 {
            return Err(CodecError::Malformed("shorter than its header"));
        }
        if buffer.len() < 4 + length {
            return Ok(None);
        }
        buffer.advance(4);
        Self::parse(buffer.split_to(length).freeze()).map(Some)
    }

    fn parse(mut bytes: Bytes) -> Result<Self, CodecError> {
        let class = bytes.get_u8();
        let correlation = bytes.get_u8();
        let kind = Kind(bytes.get_u32());
        let number = bytes.get_u64();
        let to = take_text(&mut bytes)?;
        let from = take_text(&mut bytes)?;
        let correlation = match correlation {
            0 => Correlation::None,
            1 => Correlation::Request(number),
            2 => Correlation::Answer(number),
            value => {
                return Err(CodecError::Unknown {
                    what: "correlation",
                    value,
                });
            }
        };
        let class = match class {
            0 => Class::Message { kind, correlation },
            1 => Class::Link,
            2 => Class::Unlink,
            3 => Class::Exited,
            value => {
                return Err(CodecError::Unknown {
                    what: "class",
                    value,
                });
            }
        };
        if to.is_empty() || to.len() > MAX_ID_BYTES {
            return Err(CodecError::Malformed("receiver id empty or too long"));
        }
        Ok(Self {
            class,
            to: std::sync::Arc::from(to.as_str()),
            from: from.parse().map_err(CodecError::BadPid)?,
            body: bytes,
        })
    }
}

fn short_len(text: &str) -> Result<u16, CodecError> {
    u16::try_from(text.len()).map_err(|_| CodecError::Malformed("PID over 65535 bytes"))
}

fn take_text(bytes: &mut Bytes) -> Result<String, CodecError> {
    if bytes.len() < 2 {
        return Err(CodecError::Malformed("no room for a PID's length"));
    }
    let length = usize::from(bytes.get_u16());
    if bytes.len() < length {
        return Err(CodecError::Malformed("PID longer than its frame"));
    }
    String::from_utf8(bytes.split_to(length).to_vec())
        .map_err(|_| CodecError::Malformed("PID is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 8192;

    fn frame(class: Class, body: &[u8]) -> Frame {
        Frame {
            class,
            to: "slave(1)".into(),
            from: "master@127.0.0.1:5050".parse().unwrap(),
            body: Bytes::copy_from_slice(body),
        }
    }

    #[test]
    fn reads_back_every_class() {
        let classes = [
            Class::Link,
            Class::Unlink,
            Class::Exited,
            Class::Message {
                kind: Kind(7),
                correlation: Correlation::None,
            },
            Class::Message {
                kind: Kind(7),
                correlation: Correlation::Request(9),
            },
            Class::Message {
                kind: Kind(7),
                correlation: Correlation::Answer(u64::MAX),
            },
        ];
        let mut bytes = BytesMut::new();
        for class in classes {
            frame(class, b"body").encode(LIMIT, &mut bytes).unwrap();
        }
        for class in classes {
            assert_eq!(
                Frame::decode(LIMIT, &mut bytes).unwrap(),
                Some(frame(class, b"body"))
            );
        }
        assert!(bytes.is_empty());
    }

    #[test]
    fn waits_for_the_rest_of_a_truncated_frame() {
        let mut whole = BytesMut::new();
        frame(Class::Link, b"").encode(LIMIT, &mut whole).unwrap();
        for cut in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..cut]);
            assert_eq!(Frame::decode(LIMIT, &mut part).unwrap(), None);
        }
    }

    #[test]
    fn refuses_an_oversized_frame_before_it_has_arrived() {
        let mut head = BytesMut::from(&u32::MAX.to_be_bytes()[..]);
        assert!(matches!(
            Frame::decode(LIMIT, &mut head),
            Err(CodecError::TooLarge { .. })
        ));
        let mut out = BytesMut::new();
        assert!(
            frame(Class::Exited, &[0; LIMIT])
                .encode(LIMIT, &mut out)
                .is_err()
        );
        assert!(out.is_empty());
    }

    #[test]
    fn refuses_a_body_nested_too_deep() {
        let mut nested = vec![0x91; 10_000];
        nested.push(0xc0);
        assert!(decode_body::<serde::de::IgnoredAny>(&nested).is_err());
    }

    proptest! {
        #[test]
        fn random_bytes_are_an_error_or_incomplete_but_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let mut with_length = BytesMut::new();
            with_length.put_u32(u32::try_from(bytes.len()).unwrap());
            with_length.put_slice(&bytes);
            let _outcome = Frame::decode(LIMIT, &mut with_length);
            let mut raw = BytesMut::from(&bytes[..]);
            let _outcome = Frame::decode(LIMIT, &mut raw);
        }
    }
}
