//! Frames: what two nodes write to each other's data lanes.
//!
//! Pure: bytes in, frames out. [`stream`] has the layout, and the two ends of a lane: a frame is a fixed binary header,
//! in which a pair of PIDs is a small number once it was named, and for messages a MessagePack body. A [`Frame`] is one
//! such message with everything it carries, for transports and tests that treat each by itself.

pub mod frugal;
pub mod stream;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::frugal::{Budget, Frugal};
use self::stream::{MAX_WHOLE, PART, ReadError, Reader, Writer};
use crate::message::{Correlation, Kind};
use crate::pid::Pid;

/// Room for the header beyond the body, added to the message limit to get the frame limit.
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
    pub to: Arc<str>,
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

/// Reads a body, refusing one nested deeper than [`MAX_DEPTH`], or that would take up more than
/// [`frugal::EXPANSION`] times its size, and [`frugal::ALLOWANCE`], in memory.
///
/// # Errors
/// [`CodecError::Decode`] with the reason.
pub fn decode_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(body);
    deserializer.set_max_depth(MAX_DEPTH);
    let budget = Budget::of(body.len());
    let frugal = Frugal {
        inner: &mut deserializer,
        budget: &budget,
    };
    T::deserialize(frugal).map_err(CodecError::Decode)
}

impl Frame {
    /// Appends the bytes of a lane that carries this frame and nothing else.
    ///
    /// # Errors
    /// [`CodecError::TooLarge`] when its body is over `max_message` bytes; nothing is appended then.
    pub fn encode(&self, max_message: usize, out: &mut BytesMut) -> Result<(), CodecError> {
        if self.body.len() > max_message {
            return Err(CodecError::TooLarge {
                length: self.body.len(),
                limit: max_message,
            });
        }
        let mut writer = Writer::default();
        let mut header = Vec::new();
        match self.class {
            Class::Message { kind, correlation } if self.body.len() > MAX_WHOLE => {
                let total = self.body.len();
                for (at, part) in self.body.chunks(PART).enumerate() {
                    let lengths = (at * PART, part.len(), total);
                    header.clear();
                    let message = (kind, correlation);
                    writer.part_header(message, &self.to, &self.from, lengths, &mut header);
                    out.extend_from_slice(&header);
                    out.extend_from_slice(part);
                }
            }
            class @ (Class::Message { .. } | Class::Link | Class::Unlink | Class::Exited) => {
                writer.header(class, &self.to, &self.from, self.body.len(), &mut header)?;
                out.extend_from_slice(&header);
                out.extend_from_slice(&self.body);
            }
        }
        Ok(())
    }

    /// Takes the frame that `buffer` begins with off its front, as one written by [`Frame::encode`] to a lane of its
    /// own; `None` when more bytes are needed.
    ///
    /// # Errors
    /// Any [`CodecError`] but `Encode` and `Decode`; the buffer cannot be read on after one.
    pub fn decode(max_message: usize, buffer: &mut BytesMut) -> Result<Option<Self>, CodecError> {
        let all = buffer.split().freeze();
        let mut rest = all.clone();
        let mut reader = Reader::new(max_message);
        let pair = |to, from| Ok::<_, std::convert::Infallible>((to, from));
        let frame = match reader.next(&mut rest, pair) {
            Ok(Some(arrived)) => Some(Self {
                class: arrived.class,
                to: Arc::clone(&arrived.route.0),
                from: arrived.route.1.clone(),
                body: arrived.body,
            }),
            Ok(None) => None,
            Err(ReadError::Codec(error)) => return Err(error),
            Err(ReadError::Route(never)) => match never {},
        };
        *buffer = BytesMut::from(if frame.is_some() { rest } else { all });
        Ok(frame)
    }
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
            frame(Class::Exited, &[0; LIMIT + 1])
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
            with_length.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
            with_length.extend_from_slice(&bytes);
            let _outcome = Frame::decode(LIMIT, &mut with_length);
            let mut raw = BytesMut::from(&bytes[..]);
            let _outcome = Frame::decode(LIMIT, &mut raw);
        }
    }
}
