//! One connection from dial or accept to its end: Hello both ways, lanes, and the report of its end.
//!
//! Every function here is a task on the network thread. A connection's life:
//!
//! ```text
//! dial:    connect ─ write Hello ─ read answer ─┐                     ┌─ lane tasks write chunks
//!                                               ├─ attached ─ carry ──┤
//! accept:  connect ─ read Hello ─ check ────────┘ (answer Hello)      └─ lane tasks read frames
//!                                                     closed ─ what had arrived is delivered ─ `Closed`
//! ```
//!
//! Invariant: a connection that was attached reports `Closed` exactly once, after its last frame was delivered.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use quinn::{ConnectionError, RecvStream, SendStream};
use rustls_pki_types::CertificateDer;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::Mode;
use super::Shared;
use super::attend::Attending;
use super::hello::{Close, HandshakeError, Hello};
use super::slot::{Live, Slot};
use super::tls::Who;
use crate::codec::Class;
use crate::codec::stream::{ReadError, Reader};
use crate::error_chain;
use crate::identity::Fingerprint;
use crate::transport::lanes::{CHUNK, LANES, Taken};
use crate::transport::peers::{Facts, Input};
use crate::transport::{Peer, PeerKey, Route, Violation};

/// Above the lanes, which have 0.
const CONTROL_PRIORITY: i32 = 1;
/// Pieces taken from a lane at once. Together with what they become in mailboxes they fit into a processor's cache.
const READS: usize = 16;

/// The control streams of a connection.
struct Control {
    /// Ours; `None` until our answer is written.
    send: Option<SendStream>,
    /// The peer's.
    receive: RecvStream,
}

/// A connection whose Hello was checked, and that may now be attached.
struct Greeted {
    live: Arc<Live>,
    facts: Facts,
    control: Control,
    /// The key of a guest.
    guest: Option<Fingerprint>,
}

/// Dials the peer of `slot` once and reports how it went.
pub(super) async fn dial(shared: Arc<Shared>, slot: Arc<Slot>, number: u64) {
    let limit = shared.config.handshake_timeout;
    let failed = match tokio::time::timeout(limit, connect(&shared, &slot, number)).await {
        Ok(Ok(Greeted {
            live,
            facts,
            control,
            ..
        })) => {
            let answered = Input::Answered {
                dial: number,
                connection: live.id,
                facts,
            };
            if shared.apply(&slot, answered, Some(&live)) {
                shared
                    .handle
                    .spawn(carry(shared.clone(), slot, live, control));
            }
            return;
        }
        Ok(Err(error)) => error,
        Err(_) => HandshakeError::Connection(ConnectionError::TimedOut),
    };
    if failed.is_silence() {
        debug!(peer = %slot.key, error = %failed, "dial failed");
    } else {
        warn!(peer = %slot.key, error = %error_chain(&failed), "dial failed");
    }
    slot.state.lock().last_failure = Some(error_chain(&failed));
    let input = Input::DialFailed {
        dial: number,
        duplicate: failed.is_duplicate(),
    };
    shared.apply(&slot, input, None);
}

async fn connect(shared: &Shared, slot: &Slot, number: u64) -> Result<Greeted, HandshakeError> {
    let PeerKey::Node(address) = &slot.key else {
        return Err(HandshakeError::NoAddress(slot.key.to_string()));
    };
    let remote = shared.resolve(address).await?;
    let connection = shared
        .endpoint
        .connect_with(shared.client.clone(), remote, &address.host)?
        .await?;
    let hello = async {
        let mut send = connection.open_uni().await?;
        before_lanes(&send);
        let accepted = slot.state.lock().machine.accepted();
        Hello::own(&shared.config, number, accepted)
            .write(&mut send)
            .await?;
        let mut receive = connection.accept_uni().await?;
        let hello = Hello::read(&mut receive).await?;
        hello.check_answer(address, &shared.config)?;
        let roles = match shared.gate.identify(&chain_of(&connection)) {
            Ok(Who::Node(names)) => names.roles,
            Ok(Who::Guest(guest, _)) => vec![guest.role],
            Err(reason) => return Err(HandshakeError::Certificate(reason)),
        };
        let control = Control {
            send: Some(send),
            receive,
        };
        Ok((hello, roles, control))
    };
    let (hello, roles, control) = hello.await.inspect_err(|_| {
        Close::Refused.close(&connection);
    })?;
    let peer = Peer {
        key: slot.key.clone(),
        roles,
        incarnation: hello.incarnation,
    };
    Ok(Greeted {
        facts: hello.facts(),
        live: Arc::new(Live::new(
            shared.next_connection(),
            connection,
            peer,
            hello.kinds,
            hello.dialable,
        )),
        control,
        guest: None,
    })
}

/// Takes one incoming connection through its handshake. The permit is held that long.
pub(super) async fn accept(
    shared: Arc<Shared>,
    incoming: quinn::Incoming,
    permit: OwnedSemaphorePermit,
) {
    let from = incoming.remote_address();
    let limit = shared.config.handshake_timeout;
    let (slot, greeted) = match tokio::time::timeout(limit, welcome(&shared, incoming)).await {
        Ok(Ok(welcomed)) => welcomed,
        Ok(Err(error)) if error.is_silence() => {
            debug!(%from, %error, "incoming connection ended");
            return;
        }
        Ok(Err(error)) => {
            if let Some(unsaid) = shared.refusals.lock().say(shared.now()) {
                warn!(%from, error = %error_chain(&error), unsaid, "incoming connection refused");
            }
            return;
        }
        Err(_) => {
            debug!(%from, "incoming connection said no Hello in time");
            return;
        }
    };
    drop(permit);
    let Greeted {
        live,
        facts,
        control,
        guest,
    } = greeted;
    let input = Input::Incoming {
        connection: live.id,
        facts,
    };
    if shared.apply(&slot, input, Some(&live)) {
        if guest.is_some_and(|key| shared.pins.find(&key).is_none()) {
            // It was unpinned during its handshake, when there was no connection yet that could be closed.
            Close::Unpinned.close(&live.connection);
        }
        carry(shared, slot, live, control).await;
    }
}

async fn welcome(
    shared: &Shared,
    incoming: quinn::Incoming,
) -> Result<(Arc<Slot>, Greeted), HandshakeError> {
    let connection = incoming.accept()?.await?;
    let hello = async {
        let who = shared
            .gate
            .identify(&chain_of(&connection))
            .map_err(HandshakeError::Certificate)?;
        let mut receive = connection.accept_uni().await?;
        let hello = Hello::read(&mut receive).await?;
        let key = hello.check(&who, connection.remote_address().port(), &shared.config)?;
        Ok::<_, HandshakeError>((who, hello, key, receive))
    };
    let (who, hello, key, receive) = hello.await.inspect_err(|_| {
        Close::Refused.close(&connection);
    })?;
    let (roles, guest) = match who {
        Who::Node(names) => (names.roles, None),
        Who::Guest(guest, key) => (vec![guest.role], Some(key)),
    };
    let peer = Peer {
        key: key.clone(),
        roles,
        incarnation: hello.incarnation,
    };
    let greeted = Greeted {
        facts: hello.facts(),
        live: Arc::new(Live::new(
            shared.next_connection(),
            connection,
            peer,
            hello.kinds,
            hello.dialable,
        )),
        control: Control {
            send: None,
            receive,
        },
        guest,
    };
    Ok((shared.slot(&key), greeted))
}

/// Carries frames over an attached connection until it ends, and reports that.
async fn carry(shared: Arc<Shared>, slot: Arc<Slot>, live: Arc<Live>, mut control: Control) {
    let limit = shared.config.handshake_timeout;
    let answered = tokio::time::timeout(limit, answer(&shared, &live, &mut control)).await;
    let Control {
        send: Some(send),
        receive,
    } = control
    else {
        debug!(peer = %slot.key, ?answered, "Hello could not be answered");
        Close::Protocol.close(&live.connection);
        report_end(&shared, &slot, &live, &live.connection.closed().await);
        return;
    };
    slot.state.lock().rouse_all(|live, lane| {
        open_lane(&shared, &slot, live, lane);
    });
    let mut readers = JoinSet::new();
    let mut attending = Attending::new(send, receive, shared.config.idle_close);
    let end = loop {
        tokio::select! {
            stream = live.connection.accept_uni() => match stream {
                Ok(stream) if readers.len() < LANES => {
                    let reader = read_lane(shared.clone(), slot.clone(), live.clone(), stream);
                    readers.spawn_on(reader, &shared.handle);
                }
                Ok(_) => {
                    condemn(&live, Close::Protocol, "more lanes than there are");
                }
                Err(end) => break end,
            },
            () = attending.next(&shared, &slot, &live) => {}
        }
    };
    // What had arrived before the end is still read; after it each lane's read fails.
    while readers.join_next().await.is_some() {}
    drop(attending);
    report_end(&shared, &slot, &live, &end);
}

fn report_end(shared: &Arc<Shared>, slot: &Arc<Slot>, live: &Live, end: &ConnectionError) {
    debug!(peer = %slot.key, reason = %end, "connection ended");
    {
        let mut state = slot.state.lock();
        if state.is_current(live.id) {
            state.ended_orderly = Close::is_orderly(end);
        }
    }
    let closed = Input::Closed {
        connection: live.id,
    };
    shared.apply(slot, closed, None);
    for lane in 0..LANES {
        shared.reassembling(live, lane, 0);
    }
    // The tasks of idle lanes find that the connection counts no more.
    live.wake_lanes();
}

/// Answers the peer's Hello, unless our own was the first.
async fn answer(shared: &Shared, live: &Live, control: &mut Control) -> Result<(), HandshakeError> {
    if control.send.is_none() {
        let mut send = live.connection.open_uni().await?;
        before_lanes(&send);
        Hello::own(&shared.config, 0, None).write(&mut send).await?;
        control.send = Some(send);
    }
    Ok(())
}

/// Lets a control stream's words overtake the lanes.
fn before_lanes(control: &SendStream) {
    if let Err(error) = control.set_priority(CONTROL_PRIORITY) {
        // The connection has ended, which the next write says too.
        debug!(%error, "control stream closed before its first word");
    }
}

/// Starts the task of a lane that has something to send for the first time.
pub(super) fn open_lane(shared: &Arc<Shared>, slot: &Arc<Slot>, live: &Arc<Live>, lane: usize) {
    let task = write_lane(shared.clone(), slot.clone(), live.clone(), lane);
    shared.handle.spawn(async move {
        let live = task.await;
        live.lane_ended();
    });
}

/// Hands a lane's chunks to quinn. Ends with the connection, or when the lane is empty and the node ends.
async fn write_lane(
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    live: Arc<Live>,
    lane: usize,
) -> Arc<Live> {
    let Ok(mut stream) = live.connection.open_uni().await else {
        return live;
    };
    let number = Bytes::from(vec![u8::try_from(lane).unwrap_or(u8::MAX)]);
    if stream.write_chunk(number).await.is_err() {
        return live;
    }
    loop {
        match slot.take(live.id, lane) {
            Taken::Gone => return live,
            Taken::Empty if live.is_finishing() => break,
            Taken::Empty => live.woken(lane).await,
            Taken::Chunk(mut bytes, frames) => {
                let length = bytes.len();
                while !bytes.is_empty() {
                    let piece = bytes.split_to(bytes.len().min(CHUNK));
                    if stream.write_chunk(piece).await.is_err() {
                        // The connection ends, which `carry` reports; a chunk in the works is lost with it.
                        slot.dropped.fetch_add(frames, Ordering::Relaxed);
                        return live;
                    }
                }
                if slot.written(live.id, lane, length) && shared.is_closing() {
                    shared.drained.notify_one();
                }
            }
        }
    }
    if stream.finish().is_ok() {
        // Until the peer has it all. An error means that the connection ended, which `carry` reports.
        if let Err(error) = stream.stopped().await {
            debug!(peer = %slot.key, %error, "lane ended before the peer had it all");
        }
    }
    live
}

/// Reads frames from one lane and delivers them, until the lane or the connection ends.
async fn read_lane(shared: Arc<Shared>, slot: Arc<Slot>, live: Arc<Live>, mut stream: RecvStream) {
    let mut number = [0];
    if stream.read_exact(&mut number).await.is_err() {
        // Reported by `carry`.
        return;
    }
    let lane = usize::from(number[0]);
    if lane >= LANES || !live.claim(lane) {
        condemn(&live, Close::Protocol, "a lane of no or another's number");
        return;
    }
    let mut reader = Reader::new(shared.config.max_message);
    let mut pieces: [Bytes; READS] = Default::default();
    loop {
        let count = match stream.read_chunks(&mut pieces).await {
            Ok(Some(count)) => count,
            Ok(None) if reader.is_at_rest() => return,
            Ok(None) => {
                condemn(&live, Close::BadFrame, "the lane ends within a frame");
                return;
            }
            Err(quinn::ReadError::Reset(_)) => {
                condemn(&live, Close::Protocol, "the lane was reset");
                return;
            }
            // Reported by `carry`.
            Err(_) => return,
        };
        let mut outcome = Ok(());
        let counts = slot.in_turn(&live, || {
            for piece in &mut pieces[..count] {
                outcome = deliver(&shared, &slot, &live, lane, &mut reader, piece);
                if outcome.is_err() {
                    break;
                }
            }
        });
        match outcome {
            // More may be there: who is to handle what came has a turn first, while that is still in the processor's cache.
            Ok(()) if counts && count == READS => tokio::task::yield_now().await,
            Ok(()) if counts => {}
            Ok(()) => return,
            Err(ReadError::Codec(error)) => {
                condemn(&live, Close::BadFrame, &error.to_string());
                return;
            }
            Err(ReadError::Route(violation)) => {
                condemn(&live, Close::Violation, &violation.to_string());
                return;
            }
        }
    }
}

/// Delivers the whole frames that `piece` ends.
fn deliver(
    shared: &Shared,
    slot: &Slot,
    live: &Live,
    lane: usize,
    reader: &mut Reader<Route>,
    piece: &mut Bytes,
) -> Result<(), ReadError<crate::codec::CodecError, Violation>> {
    let received = &slot.received[lane];
    let bytes = piece.len() as u64;
    let mut frames = 0;
    let mut outcome = Ok(());
    loop {
        if let Some((route, run)) = reader.run(piece) {
            let mut run = run.inspect(|_| frames += 1);
            let taken = shared.upcalls.arrived_run(&live.peer, route, &mut run);
            if let Err(violation) = taken {
                outcome = Err(ReadError::Route(violation));
                break;
            }
            continue;
        }
        let name = |to, from| shared.upcalls.route(&live.peer, to, from);
        match reader.next(piece, name) {
            Ok(Some(arrived)) => {
                frames += 1;
                if arrived.class == Class::Link {
                    live.linked_by_peer(shared.config.mode == Mode::Listening);
                }
                let (class, body) = (arrived.class, arrived.body);
                let taken = shared
                    .upcalls
                    .arrived(&live.peer, arrived.route, class, body);
                if let Err(violation) = taken {
                    outcome = Err(ReadError::Route(violation));
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    *piece = Bytes::new();
    shared.reassembling(live, lane, reader.assembling());
    received.frames.fetch_add(frames, Ordering::Relaxed);
    live.took(frames);
    received.bytes.fetch_add(bytes, Ordering::Relaxed);
    if outcome.is_err() {
        live.condemn();
    }
    outcome
}

/// Closes a connection whose peer broke a rule; nothing more of it is delivered.
fn condemn(live: &Live, close: Close, reason: &str) {
    warn!(peer = %live.peer.key, reason, "peer broke the protocol: its connection is closed");
    live.condemn();
    close.close(&live.connection);
}

/// The certificate chain that the peer showed.
fn chain_of(connection: &quinn::Connection) -> Vec<CertificateDer<'static>> {
    connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .map(|chain| *chain)
        .unwrap_or_default()
}
