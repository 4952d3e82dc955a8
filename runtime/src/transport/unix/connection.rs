//! One connection from dial or accept to its end.
//!
//! Every function here is a task on the network thread. A connection's life:
//!
//! ```text
//! guest:  connect ─ is it the host's user? ─ Hello ─ read answer ─┐               ┌─ write chunks
//!                                                                 ├─ attached ────┤
//! host:   accept ─ is the user awaited? ─ read Hello ─ check ─────┘ answer        └─ read frames
//!                                                     end of file ─ all that came is delivered ─ `Closed`
//! ```
//!
//! Invariant: a connection that was attached reports `Closed` exactly once, after its last frame was delivered.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;
use tracing::{debug, warn};

use super::hello::{self, Answer, HandshakeError, Hello};
use super::slot::{Live, Slot};
use super::{GuestSide, Shared};
use crate::codec::CodecError;
use crate::codec::stream::{ReadError, Reader};
use crate::error_chain;
use crate::transport::lanes::Taken;
use crate::transport::peers::{Facts, Input};
use crate::transport::{Peer, PeerKey, Route, Violation};

/// Room that is made for a read from a connection that says little.
const LITTLE: usize = 4 << 10;
/// Room that is made for a read from one that says much.
const MUCH: usize = 256 << 10;

/// Writes all of `bytes`.
pub(super) async fn write_all(stream: &UnixStream, mut bytes: Bytes) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(&bytes) {
            Ok(written) => bytes.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Dials the host once and reports how it went.
pub(super) async fn dial(shared: Arc<Shared>, slot: Arc<Slot>, guest: Arc<GuestSide>, number: u64) {
    let limit = shared.config.handshake_timeout;
    let outcome = tokio::time::timeout(limit, connect(&shared, &guest, number)).await;
    let failed = match outcome {
        Ok(Ok((stream, answer))) => {
            let facts = Facts {
                incarnation: answer.incarnation,
                dialable: true,
                dial: 0,
                accepted: None,
            };
            let peer = Peer {
                key: slot.key.clone(),
                roles: vec![Arc::from(answer.role)],
                incarnation: answer.incarnation,
            };
            let id = shared.next_connection();
            let live = Arc::new(Live::new(id, stream, peer, answer.kinds.len()));
            let answered = Input::Answered {
                dial: number,
                connection: id,
                facts,
            };
            if shared.apply(&slot, answered, Some(&live)) {
                shared.handle.spawn(carry(shared.clone(), slot, live));
            }
            return;
        }
        Ok(Err(error)) => error,
        Err(_) => HandshakeError::TimedOut,
    };
    if failed.is_silence() {
        debug!(peer = %slot.key, error = %error_chain(&failed), "dial failed");
    } else {
        warn!(peer = %slot.key, error = %error_chain(&failed), "dial failed");
    }
    slot.state.lock().last_failure = Some(error_chain(&failed));
    let input = Input::DialFailed {
        dial: number,
        duplicate: false,
    };
    shared.apply(&slot, input, None);
}

async fn connect(
    shared: &Shared,
    guest: &GuestSide,
    number: u64,
) -> Result<(UnixStream, Answer), HandshakeError> {
    let stream = UnixStream::connect(guest.socket.address()).await?;
    let (uid, expected) = (stream.peer_cred()?.uid(), guest.socket.host_uid());
    if uid != expected {
        return Err(HandshakeError::Impostor { uid, expected });
    }
    let secret = guest.token.secret();
    let mut hello = Hello::new(shared.config.incarnation, &guest.id, secret, number);
    hello.kinds = shared.config.kinds.versions();
    hello::write(&stream, &hello).await?;
    let answer: Answer = hello::read(&stream).await?;
    if let Some(why) = answer.refused {
        return Err(HandshakeError::ByHost(why));
    }
    if answer.address != shared.config.address {
        return Err(HandshakeError::Elsewhere {
            found: answer.address,
            expected: shared.config.address.clone(),
        });
    }
    Ok((stream, answer))
}

/// Takes one incoming connection through its handshake. The permit is held that long.
pub(super) async fn accept(shared: Arc<Shared>, stream: UnixStream, permit: OwnedSemaphorePermit) {
    let limit = shared.config.handshake_timeout;
    let outcome = tokio::time::timeout(limit, welcome(&shared, &stream)).await;
    drop(permit);
    match outcome {
        Ok(Ok(greeted)) => enter(shared, stream, greeted).await,
        Ok(Err(error)) if !error.is_silence() => {
            shared.complain("incoming connection refused", &error);
        }
        Ok(Err(error)) => debug!(error = %error_chain(&error), "incoming connection ended"),
        Err(_) => debug!("incoming connection said no Hello in time"),
    }
}

/// A guest that has shown who it is.
struct Greeted {
    slot: Arc<Slot>,
    peer: Peer,
    hello: Hello,
    uid: u32,
}

async fn welcome(shared: &Shared, stream: &UnixStream) -> Result<Greeted, HandshakeError> {
    let uid = stream.peer_cred()?.uid();
    shared.pins.lock().expects(uid)?;
    let hello: Hello = hello::read(stream).await?;
    match shared.admit(&hello, uid) {
        Ok((slot, role)) => {
            let peer = Peer {
                key: slot.key.clone(),
                roles: vec![role],
                incarnation: hello.incarnation,
            };
            Ok(Greeted {
                slot,
                peer,
                hello,
                uid,
            })
        }
        Err(error) => {
            let refused = Answer {
                refused: Some(error.to_string()),
                ..shared.answer()
            };
            hello::write(stream, &refused).await?;
            Err(error)
        }
    }
}

/// Attaches a greeted guest and carries its frames. No other handshake ends between its check and this, which both
/// are on the network thread, with nothing awaited between them.
async fn enter(shared: Arc<Shared>, stream: UnixStream, greeted: Greeted) {
    let Greeted {
        slot,
        peer,
        hello,
        uid,
    } = greeted;
    let id = shared.next_connection();
    let live = Arc::new(Live::new(id, stream, peer, hello.kinds.len()));
    let facts = Facts {
        incarnation: hello.incarnation,
        dialable: false,
        dial: hello.dial,
        accepted: None,
    };
    let input = Input::Incoming {
        connection: id,
        facts,
    };
    if shared.apply(&slot, input, Some(&live)) {
        if shared.check(&hello, uid).is_err() {
            // It was unpinned by another thread just now, when there was no connection that could be closed.
            live.condemn();
        }
        carry(shared, slot, live).await;
    }
}

/// Carries frames over an attached connection until it ends, and reports that.
async fn carry(shared: Arc<Shared>, slot: Arc<Slot>, live: Arc<Live>) {
    let mut answered = true;
    if matches!(slot.key, PeerKey::Guest(_)) {
        let limit = shared.config.handshake_timeout;
        let told = tokio::time::timeout(limit, hello::write(&live.stream, &shared.answer())).await;
        answered = matches!(told, Ok(Ok(())));
    }
    if answered {
        let writing = write(&shared, &slot, &live);
        let reading = read(&shared, &slot, &live);
        // The writer's end is the reader's too, which still delivers what had come.
        let ((), ended) = futures::join!(writing, reading);
        match ended {
            Ok(()) => debug!(peer = %slot.key, "connection ended"),
            Err(broken) => {
                let reason = match broken {
                    ReadError::Codec(error) => error.to_string(),
                    ReadError::Route(violation) => violation.to_string(),
                };
                warn!(peer = %slot.key, reason, "peer broke the protocol: its connection is closed");
            }
        }
    }
    live.close();
    live.writer_ended();
    let closed = Input::Closed {
        connection: live.id,
    };
    shared.apply(&slot, closed, None);
}

/// Writes what is queued. Ends with the connection, or when nothing waits and the node ends.
async fn write(shared: &Shared, slot: &Slot, live: &Live) {
    loop {
        match slot.take(live.id) {
            Taken::Gone => break,
            Taken::Empty if live.is_finishing() || live.is_closed() => break,
            Taken::Empty => live.woken().await,
            Taken::Chunk(bytes, frames) => {
                let length = bytes.len();
                if let Err(error) = write_all(&live.stream, bytes).await {
                    debug!(peer = %slot.key, %error, "connection no longer takes anything");
                    slot.dropped.fetch_add(frames, Ordering::Relaxed);
                    break;
                }
                if slot.written(live.id, length) && shared.is_closing() {
                    shared.drained.notify_one();
                }
                tokio::task::consume_budget().await;
            }
        }
    }
    live.close();
    live.writer_ended();
}

/// What a peer may do wrong.
type Broken = ReadError<CodecError, Violation>;

/// Reads frames and delivers them until the connection ends.
async fn read(shared: &Shared, slot: &Slot, live: &Live) -> Result<(), Broken> {
    let ended = read_frames(shared, slot, live).await;
    if ended.is_err() {
        live.condemn();
    } else {
        live.close();
    }
    ended
}

async fn read_frames(shared: &Shared, slot: &Slot, live: &Live) -> Result<(), Broken> {
    let mut reader = Reader::new(shared.config.max_message);
    let mut buffer = BytesMut::new();
    let mut room = LITTLE;
    // The largest piece of memory that `buffer` may be part of.
    let mut whole = 0;
    loop {
        whole = whole.max(room);
        buffer.reserve(room);
        let free = buffer.capacity();
        match live.stream.try_read_buf(&mut buffer) {
            // A peer that is killed may leave part of a frame.
            Ok(0) => return Ok(()),
            Ok(read) => room = if read == free { MUCH } else { LITTLE },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // A silent connection holds no memory.
                buffer = BytesMut::new();
                whole = 0;
                if live.stream.readable().await.is_err() {
                    return Ok(());
                }
                continue;
            }
            Err(error) => {
                debug!(peer = %slot.key, %error, "connection broken");
                return Ok(());
            }
        }
        reader.within(whole);
        let mut piece = buffer.split().freeze();
        let mut outcome = Ok(());
        let counts = slot.in_turn(live, || {
            outcome = deliver(shared, slot, live, &mut reader, &mut piece);
        });
        outcome?;
        if !counts {
            return Ok(());
        }
        drop(piece);
        tokio::task::consume_budget().await;
    }
}

/// Delivers the whole frames that `piece` ends.
fn deliver(
    shared: &Shared,
    slot: &Slot,
    live: &Live,
    reader: &mut Reader<Route>,
    piece: &mut Bytes,
) -> Result<(), Broken> {
    let upcalls = &shared.upcalls;
    let bytes = piece.len() as u64;
    slot.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    let name = |to, from| upcalls.route(&live.peer, to, from);
    while let Some(arrived) = reader.next(piece, name)? {
        slot.received_frames.fetch_add(1, Ordering::Relaxed);
        upcalls
            .arrived(&live.peer, arrived.route, arrived.class, arrived.body)
            .map_err(ReadError::Route)?;
    }
    Ok(())
}
