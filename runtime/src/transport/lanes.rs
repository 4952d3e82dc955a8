//! What waits for one peer, in lanes: the queue between the senders of a node and the connection to a peer.
//!
//! Pure: frames in, chunks out. A pair of PIDs always uses the same lane ([`lane_of`]), and a lane keeps the order of
//! what is put into it, pair by pair. Frames are written back to back into chunks of [`CHUNK`] bytes, so that a
//! transport makes one write of many messages. A body over [`MAX_WHOLE`] waits beside the chunks and leaves in parts,
//! each followed by whatever else has come to its lane meanwhile; frames of its own pair wait behind it.
//!
//! Invariant: what was taken from a lane, and what waits in it, is one stream of frames since the last
//! [`Outbox::clear`]. It may therefore be given to one connection only.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::codec::stream::{MAX_WHOLE, PART, SHORT_HEADER, Writer, header_room, pair_hash};
use crate::codec::{Class, CodecError};
use crate::message::{Correlation, Kind};
use crate::pid::Pid;

/// Data lanes of each side. A pair of PIDs always uses the same one, which keeps its order.
pub(crate) const LANES: usize = 4;
/// Bytes after which a chunk is closed and the next is begun; also the largest piece that a transport should write at
/// once: quinn counts a partly acknowledged piece in full against its window.
pub(crate) const CHUNK: usize = 64 << 10;
/// A body from this size on becomes a chunk of its own instead of being copied into the open one.
const OWN_CHUNK: usize = 16 << 10;
/// Bytes that a body's buffer leaves free in front of it, for the header.
pub(crate) const HEADROOM: usize = SHORT_HEADER;

/// Lane of a pair: receiver's id and sender's id.
pub(crate) fn lane_of(to: &str, from: &str) -> usize {
    // The upper bits: the lower ones find the route within the lane. Two bits are below LANES.
    usize::try_from(pair_hash(to, from) >> 62).unwrap_or(0)
}

/// A body on its way into a lane.
pub(crate) enum Body<'a> {
    /// Encoded into a buffer behind [`HEADROOM`] free bytes. A large one is taken out of it, a small one copied.
    Encoded(&'a mut Vec<u8>),
    /// At hand already.
    Bytes(&'a Bytes),
}

impl Body<'_> {
    /// Bytes of the body.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Encoded(buffer) => buffer.len().saturating_sub(HEADROOM),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Encoded(buffer) => &buffer[HEADROOM..],
            Self::Bytes(bytes) => bytes,
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Encoded(buffer) => take_buffer(buffer).slice(HEADROOM..),
            Self::Bytes(bytes) => bytes.clone(),
        }
    }
}

/// Encoding buffers above this are not kept, in bytes.
const KEPT_BUFFER: usize = 256 << 10;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// Length of the last body that took the buffer along: the next is often as long.
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

/// Takes the buffer of a body along.
fn take_buffer(buffer: &mut Vec<u8>) -> Bytes {
    TAKEN.set(buffer.len());
    Bytes::from(std::mem::take(buffer))
}

/// Calls `f` with this thread's encoding buffer, which holds [`HEADROOM`] bytes: for [`Body::Encoded`].
pub(crate) fn with_buffer<T>(f: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    // Encoding calls no actor and sends nothing, so the buffer is free; if a Serialize does, it gets one of its own.
    BUFFER.with(|kept| match kept.try_borrow_mut() {
        Ok(mut buffer) => {
            buffer.clear();
            if buffer.capacity() == 0 {
                buffer.reserve_exact(TAKEN.get());
            }
            buffer.resize(HEADROOM, 0);
            let made = f(&mut buffer);
            if buffer.capacity() > KEPT_BUFFER {
                *buffer = Vec::new();
            }
            made
        }
        Err(_) => f(&mut vec![0; HEADROOM]),
    })
}

/// Whole frames, or a part of one, back to back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// The bytes.
    pub(crate) bytes: Bytes,
    /// How many frames end in them.
    pub(crate) frames: u64,
}

/// What who writes to a connection gets when it asks for more.
pub(crate) enum Taken {
    /// Whole frames, or a part of one: the bytes, and how many frames end in them.
    Chunk(Bytes, u64),
    /// Nothing waits.
    Empty,
    /// The connection no longer counts.
    Gone,
}

/// A frame beside the chunks: too large for one, or behind a larger one of its pair.
#[derive(Debug)]
struct Aside {
    class: Class,
    to: Arc<str>,
    from: Pid,
    body: Bytes,
    /// Bytes of the body that have left.
    sent: usize,
}

impl Aside {
    fn pair(&self) -> u64 {
        pair_hash(&self.to, self.from.id())
    }

    /// The message in it when it must be cut.
    fn cut(&self) -> Option<(Kind, Correlation)> {
        match self.class {
            Class::Message { kind, correlation } if self.body.len() > MAX_WHOLE => {
                Some((kind, correlation))
            }
            Class::Message { .. } | Class::Link | Class::Unlink | Class::Exited => None,
        }
    }
}

/// Counters of one lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Frames queued so far.
    pub(crate) frames: u64,
    /// Bytes of frames written so far.
    pub(crate) bytes: u64,
}

#[derive(Debug, Default)]
struct Lane {
    writer: Writer,
    /// Each with whether it belongs to a message in parts.
    closed: VecDeque<(Chunk, bool)>,
    open: Vec<u8>,
    open_frames: u64,
    /// Length of the last chunk that was taken: the next may become as long.
    last: usize,
    aside: VecDeque<Aside>,
    /// How many frames of each pair wait aside.
    aside_of: HashMap<u64, usize>,
    /// Chunks of parts among the closed ones.
    parts: usize,
    /// Whether it is the turn of what waits aside.
    aside_due: bool,
    queued: usize,
    sent: Sent,
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.open.is_empty() && self.aside.is_empty()
    }

    /// Puts a frame behind all others and says how many bytes that are.
    fn push(
        &mut self,
        class: Class,
        to: &Arc<str>,
        from: &Pid,
        mut body: Body<'_>,
    ) -> Result<usize, CodecError> {
        let length = body.len();
        let cut = matches!(class, Class::Message { .. }) && length > MAX_WHOLE;
        // Two pairs of one hash wait for each other, which does no harm.
        let behind =
            !self.aside.is_empty() && self.aside_of.contains_key(&pair_hash(to, from.id()));
        if behind || cut {
            *self.aside_of.entry(pair_hash(to, from.id())).or_default() += 1;
            self.aside.push_back(Aside {
                class,
                to: Arc::clone(to),
                from: from.clone(),
                body: body.into_bytes(),
                sent: 0,
            });
            self.sent.frames += 1;
            self.queued += length;
            return Ok(length);
        }
        if length >= OWN_CHUNK {
            // Behind a header of usual length in one piece, which spares the body a copy.
            self.close();
            let mut header = Vec::with_capacity(HEADROOM);
            self.writer.header(class, to, from, length, &mut header)?;
            let bytes = header.len() + length;
            if let Body::Encoded(buffer) = &mut body
                && header.len() <= HEADROOM
            {
                let begin = HEADROOM - header.len();
                buffer[begin..HEADROOM].copy_from_slice(&header);
                let whole = take_buffer(buffer).slice(begin..);
                self.add(whole, 1, false);
            } else {
                self.add(Bytes::from(header), 0, false);
                self.add(body.into_bytes(), 1, false);
            }
            self.sent.frames += 1;
            self.queued += bytes;
            return Ok(bytes);
        }
        let most = length + HEADROOM;
        if self.open.len() + most > CHUNK {
            self.close();
        }
        if self.open.capacity() == 0 {
            self.open
                .reserve(self.last.max(header_room(to, from) + length));
        }
        let before = self.open.len();
        self.writer
            .header(class, to, from, length, &mut self.open)?;
        self.open.extend_from_slice(body.bytes());
        self.open_frames += 1;
        self.sent.frames += 1;
        let bytes = self.open.len() - before;
        self.queued += bytes;
        Ok(bytes)
    }

    fn add(&mut self, bytes: Bytes, frames: u64, part: bool) {
        self.parts += usize::from(part);
        self.closed.push_back((Chunk { bytes, frames }, part));
    }

    fn close(&mut self) {
        if let Some(chunk) = self.take_open() {
            self.closed.push_back((chunk, false));
        }
    }

    fn take_open(&mut self) -> Option<Chunk> {
        if self.open.is_empty() {
            return None;
        }
        self.last = self.open.len().min(CHUNK);
        Some(Chunk {
            bytes: Bytes::from(std::mem::take(&mut self.open)),
            frames: std::mem::take(&mut self.open_frames),
        })
    }

    /// The next chunk, and by how many bytes the queue grew for it.
    fn take(&mut self) -> (Option<Chunk>, usize) {
        let before = self.queued;
        // One part at a time, and something else in between.
        let idle = self.closed.is_empty() && self.open.is_empty();
        if self.parts == 0 && (self.aside_due || idle) {
            self.aside_due = false;
            self.advance();
        } else {
            self.aside_due = !self.aside.is_empty();
        }
        let chunk = match self.closed.pop_front() {
            Some((chunk, part)) => {
                self.parts -= usize::from(part);
                Some(chunk)
            }
            None => self.take_open(),
        };
        // It grows by headers, and shrinks by nothing that had no header.
        (chunk, self.queued.saturating_sub(before))
    }

    /// Puts the next part of what waits aside in front of the closed chunks, and the frames behind it, once it is
    /// through, behind them.
    fn advance(&mut self) {
        let Some(first) = self.aside.front_mut() else {
            return;
        };
        if let Some(message) = first.cut() {
            let (sent, total) = (first.sent, first.body.len());
            let part = PART.min(total - sent);
            let mut header = Vec::new();
            let lengths = (sent, part, total);
            self.writer
                .part_header(message, &first.to, &first.from, lengths, &mut header);
            first.sent += part;
            let whole = first.sent == total;
            let data = first.body.slice(sent..sent + part);
            self.queued += header.len();
            if whole {
                self.pop_aside();
            }
            // The header may define a route that frames already written know by another number or not at all; it must
            // therefore come after them, as everything comes in the order in which it was written.
            self.close();
            self.add(Bytes::from(header), 0, true);
            self.add(data, u64::from(whole), true);
        }
        while let Some(next) = self.aside.front()
            && next.cut().is_none()
        {
            let Some(next) = self.pop_aside() else {
                return;
            };
            self.queued -= next.body.len();
            self.sent.frames -= 1;
            let rest = std::mem::take(&mut self.aside);
            let again = self.push(next.class, &next.to, &next.from, Body::Bytes(&next.body));
            self.aside = rest;
            debug_assert!(
                again.is_ok(),
                "its length was looked at when it was put aside"
            );
        }
    }

    fn pop_aside(&mut self) -> Option<Aside> {
        let next = self.aside.pop_front()?;
        if let Some(count) = self.aside_of.get_mut(&next.pair()) {
            *count -= 1;
            if *count == 0 {
                self.aside_of.remove(&next.pair());
            }
        }
        Some(next)
    }

    fn frames(&self) -> u64 {
        let closed: u64 = self.closed.iter().map(|(chunk, _)| chunk.frames).sum();
        closed + self.open_frames + self.aside.len() as u64
    }
}

/// Everything that waits for one peer.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    lanes: [Lane; LANES],
    /// Frames put into the lanes since the last [`Outbox::clear`].
    pushed: u64,
    /// Whether frames are held back.
    holding: bool,
    held: VecDeque<Aside>,
    /// Bytes that wait, or were taken and are being written.
    queued: usize,
}

impl Outbox {
    /// Bytes that wait, and of taken chunks that [`Outbox::written`] was not told of.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Puts a frame into its lane. Says whether nothing had waited there, so that the lane's writer must be woken.
    ///
    /// # Errors
    /// [`CodecError::TooLarge`] for a link or notice over [`MAX_WHOLE`]; nothing is queued then.
    pub(crate) fn push(
        &mut self,
        lane: usize,
        class: Class,
        to: &Arc<str>,
        from: &Pid,
        body: Body<'_>,
    ) -> Result<bool, CodecError> {
        if self.holding {
            self.queued += body.len();
            self.held.push_back(Aside {
                class,
                to: Arc::clone(to),
                from: from.clone(),
                body: body.into_bytes(),
                sent: 0,
            });
            return Ok(false);
        }
        let lane = &mut self.lanes[lane];
        let was_empty = lane.is_empty();
        self.queued += lane.push(class, to, from, body)?;
        self.pushed += 1;
        Ok(was_empty)
    }

    /// Frames put into the lanes for this connection.
    pub(crate) fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Holds back what is put into it from now on.
    pub(crate) fn hold(&mut self) {
        self.holding = true;
    }

    /// Puts what was held back into the lanes and goes on.
    pub(crate) fn release(&mut self) {
        self.holding = false;
        for held in std::mem::take(&mut self.held) {
            self.queued -= held.body.len();
            let lane = lane_of(&held.to, held.from.id());
            let body = Body::Bytes(&held.body);
            let pushed = self.push(lane, held.class, &held.to, &held.from, body);
            debug_assert!(
                pushed.is_ok(),
                "no notice is as large as a whole frame may be"
            );
        }
    }

    /// Begins anew for another connection with what was held back. Nothing else may wait.
    pub(crate) fn restart(&mut self) {
        let held = std::mem::take(&mut self.held);
        let queued = held.iter().map(|held| held.body.len()).sum();
        let dropped = self.clear();
        debug_assert_eq!(dropped, 0, "a connection is left when nothing waits");
        (self.held, self.queued) = (held, queued);
        self.release();
    }

    /// The next chunk of a lane.
    pub(crate) fn take(&mut self, lane: usize) -> Option<Chunk> {
        let (chunk, grown) = self.lanes[lane].take();
        self.queued += grown;
        chunk
    }

    /// As [`Outbox::take`], for who writes to a connection that counts.
    pub(crate) fn next(&mut self, lane: usize) -> Taken {
        match self.take(lane) {
            Some(chunk) => Taken::Chunk(chunk.bytes, chunk.frames),
            None => Taken::Empty,
        }
    }

    /// A taken chunk of `bytes` was handed to the connection.
    pub(crate) fn written(&mut self, lane: usize, bytes: usize) {
        let lane = &mut self.lanes[lane];
        lane.queued = lane.queued.saturating_sub(bytes);
        lane.sent.bytes += bytes as u64;
        self.queued = self.queued.saturating_sub(bytes);
    }

    /// Whether nothing waits in a lane.
    pub(crate) fn is_empty(&self, lane: usize) -> bool {
        self.lanes[lane].is_empty()
    }

    /// Drops what waits and forgets what the lanes' readers know, for another connection. Says how many frames were
    /// dropped.
    pub(crate) fn clear(&mut self) -> u64 {
        let mut frames = 0;
        for lane in &mut self.lanes {
            frames += lane.frames();
            *lane = Lane {
                sent: lane.sent,
                ..Lane::default()
            };
        }
        frames += self.held.len() as u64;
        self.held.clear();
        (self.queued, self.pushed, self.holding) = (0, 0, false);
        frames
    }

    /// Whether nothing waits anywhere.
    pub(crate) fn is_idle(&self) -> bool {
        self.queued == 0 && self.held.is_empty() && self.lanes.iter().all(Lane::is_empty)
    }

    /// Queued bytes, frames and bytes of a lane, and how many routes its writer has defined.
    pub(crate) fn lane(&self, lane: usize) -> (usize, Sent, u64) {
        let lane = &self.lanes[lane];
        (lane.queued, lane.sent, lane.writer.defined())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::codec::stream::Reader;

    fn pid(id: &str) -> Pid {
        format!("{id}@127.0.0.1:1").parse().unwrap()
    }

    fn message(number: u64) -> Class {
        Class::Message {
            kind: Kind(1),
            correlation: Correlation::Request(number),
        }
    }

    fn push(outbox: &mut Outbox, to: &str, number: u64, body: Vec<u8>) -> bool {
        let body = Bytes::from(body);
        let (to, from) = (Arc::from(to), pid("from"));
        outbox
            .push(0, message(number), &to, &from, Body::Bytes(&body))
            .unwrap()
    }

    /// Takes all of lane 0 and reads it; the numbers of the messages with their receivers, in their order.
    fn drain(outbox: &mut Outbox) -> Vec<(String, u64, usize)> {
        let mut reader = Reader::new(64 << 20);
        let mut all = Vec::new();
        let mut frames = 0;
        while let Some(chunk) = outbox.take(0) {
            outbox.written(0, chunk.bytes.len());
            frames += chunk.frames;
            let mut input = chunk.bytes;
            while let Some(arrived) = reader
                .next(&mut input, |to, _| Ok::<_, Infallible>(to))
                .unwrap()
            {
                let Class::Message {
                    correlation: Correlation::Request(number),
                    ..
                } = arrived.class
                else {
                    panic!("only requests were sent");
                };
                all.push((arrived.route.to_string(), number, arrived.body.len()));
            }
        }
        assert!(reader.is_at_rest());
        assert_eq!(frames, all.len() as u64);
        assert_eq!(outbox.queued(), 0);
        assert_eq!(outbox.lane(0).0, 0);
        all
    }

    #[test]
    fn only_the_first_frame_of_an_empty_lane_wakes_its_writer() {
        let mut outbox = Outbox::default();
        assert!(push(&mut outbox, "a", 1, vec![0]));
        assert!(!push(&mut outbox, "b", 2, vec![0]));
        assert_eq!(drain(&mut outbox).len(), 2);
        assert!(push(&mut outbox, "a", 3, vec![0]));
    }

    #[test]
    fn small_frames_share_a_chunk_and_a_large_body_is_not_copied() {
        let mut outbox = Outbox::default();
        for n in 0..100 {
            push(&mut outbox, "a", n, vec![0; 100]);
        }
        assert_eq!(outbox.take(0).map(|chunk| chunk.frames), Some(100));
        assert_eq!(outbox.take(0), None);

        let mut buffer = vec![0; HEADROOM + CHUNK];
        let at = buffer.as_ptr();
        let (to, from) = (Arc::from("a"), pid("from"));
        let body = Body::Encoded(&mut buffer);
        outbox.push(0, message(1), &to, &from, body).unwrap();
        let chunk = outbox.take(0).unwrap();
        assert_eq!(chunk.frames, 1);
        assert_eq!(
            chunk.bytes[chunk.bytes.len() - CHUNK..].as_ptr(),
            at.wrapping_add(HEADROOM)
        );
    }

    #[test]
    fn other_pairs_pass_a_large_message_and_its_own_wait_behind_it() {
        let mut outbox = Outbox::default();
        let size = 4 * MAX_WHOLE;
        push(&mut outbox, "large", 1, vec![0; size]);
        push(&mut outbox, "large", 2, vec![0; 1]);
        push(&mut outbox, "small", 3, vec![0; 1]);
        let mut reader = Reader::new(64 << 20);
        let mut order = Vec::new();
        let mut late = 4;
        while let Some(chunk) = outbox.take(0) {
            outbox.written(0, chunk.bytes.len());
            if chunk.bytes.len() == PART {
                // One more comes while the large one is under way.
                push(&mut outbox, "small", late, vec![0; 1]);
                late += 1;
            }
            let mut input = chunk.bytes;
            while let Some(arrived) = reader
                .next(&mut input, |to, _| Ok::<_, Infallible>(to))
                .unwrap()
            {
                order.push((arrived.route.to_string(), arrived.body.len()));
            }
        }
        let large = order
            .iter()
            .position(|(_, length)| *length == size)
            .unwrap();
        assert!(order[..large].iter().all(|(to, _)| to == "small"));
        assert!(large >= 12, "{large} passed it");
        assert_eq!(
            order.iter().filter(|(to, _)| to == "large").count(),
            2,
            "its own follower comes too"
        );
        assert_eq!(outbox.queued(), 0);
    }

    #[test]
    fn what_was_dropped_is_counted_and_the_next_connection_starts_anew() {
        let mut outbox = Outbox::default();
        push(&mut outbox, "a", 1, vec![0; 10]);
        push(&mut outbox, "b", 2, vec![0; 2 * MAX_WHOLE]);
        push(&mut outbox, "b", 3, vec![0; 10]);
        outbox.take(0).unwrap();
        push(&mut outbox, "a", 4, vec![0; 10]);
        assert_eq!(outbox.clear(), 3);
        assert_eq!(outbox.queued(), 0);
        push(&mut outbox, "a", 5, vec![0; 10]);
        assert_eq!(drain(&mut outbox), [("a".to_owned(), 5, 10)]);
    }

    #[test]
    fn what_is_held_back_goes_to_this_connection_or_to_the_next() {
        let mut outbox = Outbox::default();
        push(&mut outbox, "a", 1, vec![0; 10]);
        assert_eq!(drain(&mut outbox).len(), 1);
        outbox.hold();
        push(&mut outbox, "a", 2, vec![0; 10]);
        assert!(outbox.take(0).is_none() && outbox.queued() > 0);
        // The next connection's reader knows no route yet.
        outbox.restart();
        assert_eq!(outbox.pushed(), 1);
        let lane = lane_of("a", "from");
        let mut input = outbox.take(lane).unwrap().bytes;
        let mut reader = Reader::new(1000);
        let arrived = reader.next(&mut input, |to, _| Ok::<_, Infallible>(to));
        assert_eq!(&**arrived.unwrap().unwrap().route, "a");
    }

    proptest! {
        /// The law: whatever sizes, whenever it is taken, each pair's messages come out whole and in their order.
        #[test]
        fn each_pair_keeps_its_order(
            sends in proptest::collection::vec((0_usize..3, 0_usize..4, any::<bool>()), 1..40),
        ) {
            let sizes = [10, OWN_CHUNK, MAX_WHOLE + 1, 3 * PART];
            let mut outbox = Outbox::default();
            let mut reader = Reader::new(64 << 20);
            let mut sent = vec![Vec::new(); 3];
            let mut came = vec![Vec::new(); 3];
            let read = |chunk: Chunk, reader: &mut Reader<usize>, came: &mut Vec<Vec<(u64, usize)>>| {
                let mut input = chunk.bytes;
                while let Some(arrived) = reader
                    .next(&mut input, |to, _| Ok::<_, Infallible>(to.len()))
                    .unwrap()
                {
                    if let Class::Message { correlation: Correlation::Request(number), .. } = arrived.class {
                        came[*arrived.route - 1].push((number, arrived.body.len()));
                    }
                }
            };
            for (number, (who, size, take)) in sends.into_iter().enumerate() {
                let number = number as u64;
                let to = "x".repeat(who + 1);
                push(&mut outbox, &to, number, vec![0; sizes[size]]);
                sent[who].push((number, sizes[size]));
                if take && let Some(chunk) = outbox.take(0) {
                    outbox.written(0, chunk.bytes.len());
                    read(chunk, &mut reader, &mut came);
                }
            }
            while let Some(chunk) = outbox.take(0) {
                outbox.written(0, chunk.bytes.len());
                read(chunk, &mut reader, &mut came);
            }
            prop_assert_eq!(came, sent);
            prop_assert_eq!(outbox.queued(), 0);
            prop_assert!(outbox.is_empty(0));
        }
    }
}
