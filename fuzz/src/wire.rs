//! What nodes say to each other below the messages, and what HTTP clients and certificates say.
#![expect(clippy::expect_used, reason = "a broken rule fails by panicking")]

use std::convert::Infallible;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use meseta_runtime::codec::stream::{Reader, Writer};
use meseta_runtime::codec::{
    Class, CodecError, DEFAULT_MAX_MESSAGE, Frame, decode_body, encode_body,
};
use meseta_runtime::identity::PeerIdentity;
use meseta_runtime::{ExitReason, Pid, fuzzing};

use crate::Check;

/// Single frames, one after the other.
pub(crate) fn frames(data: &[u8]) -> Option<Check> {
    let mut buffer = BytesMut::from(data);
    let mut frames = Vec::new();
    while let Ok(Some(frame)) = Frame::decode(DEFAULT_MAX_MESSAGE, &mut buffer) {
        frames.push(frame);
    }
    Some(Box::new(move || {
        for frame in frames {
            let mut bytes = BytesMut::new();
            frame
                .encode(DEFAULT_MAX_MESSAGE, &mut bytes)
                .expect("a frame that was read can be written");
            let again = Frame::decode(DEFAULT_MAX_MESSAGE, &mut bytes);
            assert_eq!(
                again.expect("a frame that was written is read"),
                Some(frame)
            );
            assert!(bytes.is_empty(), "nothing is left of it");
        }
    }))
}

/// What a lane brought: class, receiver, sender, body.
type Arrived = (Class, Arc<str>, Pid, Bytes);

/// Reads a lane from pieces of this size, until an error or the end; also whether there was an error.
fn read(data: &[u8], piece: usize) -> (Vec<Arrived>, bool) {
    let mut reader = Reader::new(DEFAULT_MAX_MESSAGE);
    let mut arrived = Vec::new();
    for piece in data.chunks(piece.max(1)) {
        let mut input = Bytes::copy_from_slice(piece);
        loop {
            if let Some((pair, run)) = reader.run(&mut input) {
                let (to, from): &(Arc<str>, Pid) = pair;
                for (class, body) in run {
                    arrived.push((class, Arc::clone(to), from.clone(), body));
                }
                continue;
            }
            let pair = |to, from| Ok::<_, Infallible>((to, from));
            match reader.next(&mut input, pair) {
                Ok(Some(frame)) => {
                    let (to, from) = (Arc::clone(&frame.route.0), frame.route.1.clone());
                    arrived.push((frame.class, to, from, frame.body));
                }
                Ok(None) => break,
                Err(_) => return (arrived, true),
            }
        }
    }
    (arrived, false)
}

/// A lane with its table of pairs: however it is cut into pieces, the same comes out, and what comes out can be
/// written to another lane.
pub(crate) fn lane(data: &[u8]) -> Option<Check> {
    let whole = read(data, data.len());
    let piece = data.first().map_or(1, |first| usize::from(*first % 61));
    let data = data.to_vec();
    Some(Box::new(move || {
        assert_eq!(read(&data, piece), whole, "in pieces of {piece}");
        let (mut writer, mut bytes) = (Writer::default(), Vec::new());
        for (class, to, from, body) in &whole.0 {
            writer
                .header(*class, to, from, body.len(), &mut bytes)
                .expect("what came in one input fits into one frame");
            bytes.extend_from_slice(body);
        }
        assert_eq!(read(&bytes, bytes.len()), (whole.0, false));
    }))
}

/// The words of a control stream: however it is cut into pieces, the same come out, and they are read back.
pub(crate) fn control(data: &[u8]) -> Option<Check> {
    let whole = fuzzing::control_words(data, data.len());
    let piece = data.first().map_or(1, |first| usize::from(*first % 61));
    let data = data.to_vec();
    Some(Box::new(move || {
        let cut = fuzzing::control_words(&data, piece);
        assert_eq!(cut, whole, "in pieces of {piece}");
        assert!(whole.len() <= data.len(), "nothing is made up");
        assert_eq!(fuzzing::control_words(&whole, whole.len()), whole);
    }))
}

/// Something that is read and written again, twice.
fn twice(data: &[u8], read: fn(&[u8]) -> Result<Vec<u8>, CodecError>) -> Option<Check> {
    let once = read(data).ok()?;
    Some(Box::new(move || {
        let again = read(&once).expect("what was written is read");
        assert_eq!(again, once);
    }))
}

pub(crate) fn hello(data: &[u8]) -> Option<Check> {
    twice(data, fuzzing::hello)
}

pub(crate) fn guest_hello(data: &[u8]) -> Option<Check> {
    twice(data, fuzzing::guest_hello)
}

pub(crate) fn host_answer(data: &[u8]) -> Option<Check> {
    twice(data, fuzzing::host_answer)
}

pub(crate) fn exit_reason(data: &[u8]) -> Option<Check> {
    let reason: ExitReason = decode_body(data).ok()?;
    Some(Box::new(move || {
        let body = encode_body(&reason).expect("a reason that was read can be written");
        let again: ExitReason = decode_body(&body).expect("a reason that was written is read");
        assert_eq!(again, reason);
    }))
}

/// What the HTTP server makes of a request's target.
pub(crate) fn http_target(data: &[u8]) -> Option<Check> {
    let (id, path, query) = fuzzing::http_target(data)?;
    let all: usize = query
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    let length = data.len();
    Some(Box::new(move || {
        assert!(path.is_empty() || path.starts_with('/'), "{path}");
        assert!(!id.contains('/'), "{id}");
        // A byte that is no UTF-8 becomes a character of three.
        assert!(id.len() + path.len() + all <= 3 * length);
    }))
}

/// A peer's certificate, before anybody trusts it.
pub(crate) fn certificate(data: &[u8]) -> Option<Check> {
    let names = PeerIdentity::read(data).ok()?;
    Some(Box::new(move || {
        for host in &names.hosts {
            assert!(names.has_host(host), "{host}");
        }
    }))
}

/// What the HTTP server gets to see of a connection, however its bytes come.
pub(crate) fn http_requests(data: &[u8]) -> Option<Check> {
    let (seen, is_refused) = fuzzing::http_requests(data, data.len());
    if is_refused {
        return None;
    }
    let data = data.to_vec();
    Some(Box::new(move || {
        assert!(data.starts_with(&seen));
        for piece in [1, 2, 7] {
            // Byte by byte is slow for long ones.
            if data.len() / piece < 4096 {
                assert_eq!(fuzzing::http_requests(&data, piece), (seen.clone(), false));
            }
        }
    }))
}

/// A header `Authorization`.
pub(crate) fn http_authorization(data: &[u8]) -> Option<Check> {
    let value = std::str::from_utf8(data).ok()?;
    let read = fuzzing::http_authorization(value, b"key")?;
    let length = value.len();
    Some(Box::new(move || match read {
        Ok(name) => assert!(!name.is_empty() && !name.contains(':') && name.len() < length),
        Err(claims) => assert!(claims > 0),
    }))
}
