//! Streams of frames: the writing and the reading end of one lane.
//!
//! Pure: bytes in, frames out. Both ends keep a table of the pairs of PIDs that the stream has named, its *routes*:
//! the first frame of a pair defines a number, later ones carry the number only. The numbers are the writer's to give,
//! and they live as long as the stream.
//!
//! ```text
//! u32     length of everything after this field, big endian, at most `max_frame`
//! u8      bits 0-2  class        0 message, 1 link, 2 unlink, 3 exited, 4 first part, 5 further part of a message
//!         bits 3-4  correlation  0 none, 1 request, 2 answer
//!         bits 5-6  route        0 named once, 1 known, 2 defined here
//! varint  number of the route                             (route known or defined)
//! varint n, n bytes   receiver: id of a PID on the node that reads the frame  (route named or defined)
//! varint n, n bytes   sender: whole PID text                                  (route named or defined)
//! u32     kind: FNV-1a of the message's name              (message, first part)
//! varint  number of the request or answer                 (correlation not 0)
//! varint  length of the whole body                        (first part)
//! rest    body: MessagePack of the message, or of the exit reason; empty for link and unlink; or a part of it
//! ```
//!
//! A varint has 7 bits in each byte, the lowest first; the high bit says that another byte follows.
//!
//! Bounds: a table has at most [`MAX_ROUTES`] routes, and only pairs whose text is at most [`MAX_ROUTE_TEXT`] bytes are
//! in it; beyond that the writer gives an old number anew, so that a peer can neither grow the reader's table nor be
//! refused. A message is put together from parts only one at a time on each lane. A length is checked against its limit
//! before anything is allocated for it, and every error ends the connection: after one bad frame the position of the
//! next is not known.

mod run;

use std::collections::HashMap;
use std::hash::Hasher as _;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};

use super::{Class, CodecError};
use crate::message::{Correlation, Kind};
use crate::pid::{MAX_ID_BYTES, Pid};
use crate::quick::{Quick, QuickState};

pub use run::Run;

/// Routes that one lane remembers.
pub const MAX_ROUTES: usize = 4096;
/// Longest text of a pair, in bytes, that is remembered; longer ones are named in every frame.
pub const MAX_ROUTE_TEXT: usize = 256;
/// Largest body that travels as one frame, in bytes; larger ones are cut.
pub const MAX_WHOLE: usize = 1 << 20;
/// Bytes of each part of a body that is cut, but the last.
pub const PART: usize = 256 << 10;
/// Bodies from this size on are handed on as slices of what was read. Smaller ones are copied, so that a message that
/// waits somewhere does not hold a whole read buffer.
const SLICE_FROM: usize = 4 << 10;
/// How many times its own size a body may keep in memory as part of a larger buffer.
const MOST_PINNED: usize = 8;
/// Room for the beginning of a frame whose end has not come, besides eight times what has come of it.
const FIRST_ROOM: usize = 56 << 10;
/// Most bytes that a header with a known route has, with the length field.
pub(crate) const SHORT_HEADER: usize = 4 + 1 + 2 + 4 + 10;
/// Largest header without the route's texts.
const FIXED_HEADER: usize = SHORT_HEADER + 10 + 2 + 2;

const CLASS_MESSAGE: u8 = 0;
const CLASS_LINK: u8 = 1;
const CLASS_UNLINK: u8 = 2;
const CLASS_EXITED: u8 = 3;
const CLASS_FIRST_PART: u8 = 4;
const CLASS_NEXT_PART: u8 = 5;
const ROUTE_ONCE: u8 = 0;
const ROUTE_KNOWN: u8 = 1;
const ROUTE_DEFINED: u8 = 2;

/// Hash of a pair, the same on every node: it chooses the lane, and finds the route.
pub(crate) fn pair_hash(to: &str, from: &str) -> u64 {
    let mut hasher = Quick::default();
    hasher.write_usize(to.len());
    hasher.write(to.as_bytes());
    hasher.write(from.as_bytes());
    hasher.finish()
}

#[derive(Debug)]
struct Named {
    hash: u64,
    to: Arc<str>,
    from: Pid,
}

/// What a frame is, as its header says it.
#[derive(Debug, Clone, Copy)]
enum Head {
    Whole(Class),
    FirstPart {
        kind: Kind,
        correlation: Correlation,
        total: usize,
    },
    NextPart,
}

/// The writing end of one lane.
#[derive(Debug, Default)]
pub struct Writer {
    numbers: HashMap<u64, usize, QuickState>,
    routes: Vec<Named>,
    /// Whose number is given anew next.
    oldest: usize,
    /// The number that was used last: it is often used again.
    last: usize,
    defined: u64,
}

impl Writer {
    /// How many routes were defined; more than there are pairs when the table is too small for them.
    pub fn defined(&self) -> u64 {
        self.defined
    }

    /// Appends the header of a frame whose body of `body` bytes is to follow.
    ///
    /// # Errors
    /// [`CodecError::TooLarge`] when the body is over [`MAX_WHOLE`]; nothing is appended then, and no route defined.
    pub fn header(
        &mut self,
        class: Class,
        to: &Arc<str>,
        from: &Pid,
        body: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        if body > MAX_WHOLE {
            return Err(CodecError::TooLarge {
                length: body,
                limit: MAX_WHOLE,
            });
        }
        // A notice of an end is the last word on its pair: a mass death must not push others out of the table.
        let remember = class != Class::Exited;
        let route = self.route(to, from, remember);
        self.write(Head::Whole(class), route, to, from, body, out);
        Ok(())
    }

    /// Appends the header of the next part of a message's body: of `body` bytes, of which `sent` went before, with the
    /// `part` bytes that are to follow.
    pub fn part_header(
        &mut self,
        message: (Kind, Correlation),
        to: &Arc<str>,
        from: &Pid,
        (sent, part, body): (usize, usize, usize),
        out: &mut Vec<u8>,
    ) {
        let head = if sent == 0 {
            let (kind, correlation) = message;
            Head::FirstPart {
                kind,
                correlation,
                total: body,
            }
        } else {
            Head::NextPart
        };
        let route = self.route(to, from, true);
        self.write(head, route, to, from, part, out);
    }

    /// Form and number of a pair's route.
    fn route(&mut self, to: &Arc<str>, from: &Pid, remember: bool) -> (u8, usize) {
        if let Some(named) = self.routes.get(self.last)
            && Arc::ptr_eq(&named.to, to)
            && Arc::ptr_eq(named.from.id_shared(), from.id_shared())
            && named.from.address() == from.address()
        {
            return (ROUTE_KNOWN, self.last);
        }
        let hash = pair_hash(to, from.id());
        let known = self.numbers.get(&hash).copied();
        if let Some(number) = known {
            let named = &self.routes[number];
            if named.to == *to && named.from == *from {
                self.last = number;
                return (ROUTE_KNOWN, number);
            }
        }
        let address = from.address();
        let length = to.len() + from.id().len() + address.host.len();
        if !remember || length > MAX_ROUTE_TEXT {
            return (ROUTE_ONCE, 0);
        }
        self.defined += 1;
        let named = Named {
            hash,
            to: Arc::clone(to),
            from: from.clone(),
        };
        let number = if let Some(number) = known {
            self.routes[number] = named;
            number
        } else if self.routes.len() < MAX_ROUTES {
            self.routes.push(named);
            self.routes.len() - 1
        } else {
            let number = self.oldest;
            self.oldest = (number + 1) % MAX_ROUTES;
            let older = std::mem::replace(&mut self.routes[number], named);
            self.numbers.remove(&older.hash);
            number
        };
        self.numbers.insert(hash, number);
        self.last = number;
        (ROUTE_DEFINED, number)
    }

    fn write(
        &self,
        head: Head,
        (form, number): (u8, usize),
        to: &str,
        from: &Pid,
        body: usize,
        out: &mut Vec<u8>,
    ) {
        let at = out.len();
        let (class, correlation) = match head {
            Head::Whole(Class::Message { correlation, .. }) => (CLASS_MESSAGE, correlation),
            Head::Whole(Class::Link) => (CLASS_LINK, Correlation::None),
            Head::Whole(Class::Unlink) => (CLASS_UNLINK, Correlation::None),
            Head::Whole(Class::Exited) => (CLASS_EXITED, Correlation::None),
            Head::FirstPart { correlation, .. } => (CLASS_FIRST_PART, correlation),
            Head::NextPart => (CLASS_NEXT_PART, Correlation::None),
        };
        let (correlation, correlated) = match correlation {
            Correlation::None => (0, None),
            Correlation::Request(number) => (1, Some(number)),
            Correlation::Answer(number) => (2, Some(number)),
        };
        let tag = class | correlation << 3 | form << 5;
        out.extend_from_slice(&[0, 0, 0, 0, tag]);
        if form != ROUTE_ONCE {
            put_varint(out, number as u64);
        }
        if form != ROUTE_KNOWN {
            put_varint(out, to.len() as u64);
            out.extend_from_slice(to.as_bytes());
            let from = from.to_string();
            put_varint(out, from.len() as u64);
            out.extend_from_slice(from.as_bytes());
        }
        match head {
            Head::Whole(Class::Message { kind, .. }) | Head::FirstPart { kind, .. } => {
                out.extend_from_slice(&kind.0.to_be_bytes());
            }
            Head::Whole(Class::Link | Class::Unlink | Class::Exited) | Head::NextPart => {}
        }
        if let Some(number) = correlated {
            put_varint(out, number);
        }
        if let Head::FirstPart { total, .. } = head {
            put_varint(out, total as u64);
        }
        // Header texts are a few hundred bytes and a body is at most MAX_WHOLE, which `header` checks.
        let length = u32::try_from(out.len() - at - 4 + body).unwrap_or(u32::MAX);
        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// A whole message, link or notice that a lane brought.
#[derive(Debug)]
pub struct Arrived<'a, R> {
    /// What it is.
    pub class: Class,
    /// Its pair, as the reader's owner made it when it was named.
    pub route: &'a mut R,
    /// Its body.
    pub body: Bytes,
}

/// Why a lane cannot be read on.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadError<C, E> {
    /// The bytes are not frames.
    Codec(C),
    /// A pair was refused.
    Route(E),
}

/// A message of which not all parts have come.
#[derive(Debug)]
struct Assembly {
    kind: Kind,
    correlation: Correlation,
    total: usize,
    body: Vec<u8>,
}

/// The reading end of one lane. `R` is what its owner keeps for each pair.
#[derive(Debug)]
pub struct Reader<R> {
    max_frame: usize,
    max_message: usize,
    routes: Vec<R>,
    /// The pair of the frame read last, when that was named once.
    once: Option<R>,
    /// The beginning of a frame whose end has not come.
    partial: Vec<u8>,
    assembly: Option<Assembly>,
    /// Bodies below this are copied and not kept as part of what was read.
    slice_from: usize,
    /// Where the messages of the last run are.
    run: Vec<run::Message>,
}

/// The fields before the body.
struct Header {
    tag: u8,
    route: RouteField,
    kind: Kind,
    number: u64,
    total: usize,
    /// Where the body begins.
    body: usize,
}

enum RouteField {
    Known(usize),
    Named {
        number: Option<usize>,
        to: Arc<str>,
        from: Pid,
    },
}

impl<R> Reader<R> {
    /// A reader at the beginning of a lane. Messages have at most `max_message` bytes.
    pub fn new(max_message: usize) -> Self {
        Self {
            max_frame: super::max_frame(max_message.min(MAX_WHOLE)),
            max_message,
            routes: Vec::new(),
            once: None,
            partial: Vec::new(),
            assembly: None,
            slice_from: SLICE_FROM,
            run: Vec::new(),
        }
    }

    /// What comes next is part of a buffer of this many bytes, which lives as long as any body that is part of it: a body
    /// much smaller than that is copied.
    pub fn within(&mut self, buffer: usize) {
        self.slice_from = SLICE_FROM.max(buffer / MOST_PINNED);
    }

    /// Whether the lane stands between two frames.
    pub fn is_at_rest(&self) -> bool {
        self.partial.is_empty() && self.assembly.is_none()
    }

    /// Bytes held of a message of which not all parts have come.
    pub fn assembling(&self) -> usize {
        self.assembly
            .as_ref()
            .map_or(0, |assembly| assembly.body.capacity())
    }

    /// Takes the next whole frame off the front of what was kept and `input`; `None` when all of it is used and more is
    /// needed. `make` is called for each pair that is named, and says what to keep for it: receiver's id, sender.
    ///
    /// # Errors
    /// [`ReadError::Codec`] with any [`CodecError`] but `Encode` and `Decode`, or [`ReadError::Route`] with what `make`
    /// said; the lane cannot be read on after one.
    pub fn next<E>(
        &mut self,
        input: &mut Bytes,
        mut make: impl FnMut(Arc<str>, Pid) -> Result<R, E>,
    ) -> Result<Option<Arrived<'_, R>>, ReadError<CodecError, E>> {
        loop {
            let Some((header, body)) = self.take(input).map_err(ReadError::Codec)? else {
                return Ok(None);
            };
            let at = match header.route {
                RouteField::Known(number) if number < self.routes.len() => Some(number),
                RouteField::Known(_) => {
                    return Err(ReadError::Codec(CodecError::Malformed("unknown route")));
                }
                RouteField::Named { number, to, from } => {
                    let route = make(to, from).map_err(ReadError::Route)?;
                    match number {
                        None => self.once = Some(route),
                        Some(number) if number < self.routes.len() => self.routes[number] = route,
                        Some(number) if number == self.routes.len() && number < MAX_ROUTES => {
                            self.routes.push(route);
                        }
                        Some(_) => {
                            let wrong = CodecError::Malformed("route number out of turn");
                            return Err(ReadError::Codec(wrong));
                        }
                    }
                    number
                }
            };
            let whole = self
                .whole(header.tag, header.kind, header.number, header.total, body)
                .map_err(ReadError::Codec)?;
            if let Some((class, body)) = whole {
                let route = match at {
                    Some(number) => self.routes.get_mut(number),
                    None => self.once.as_mut(),
                };
                // Both were looked at above.
                return Ok(route.map(|route| Arrived { class, route, body }));
            }
        }
    }

    /// Header and body of the next frame.
    fn take(&mut self, input: &mut Bytes) -> Result<Option<(Header, Bytes)>, CodecError> {
        // The usual case, without a count of users for each frame: a small frame within what was read.
        if self.partial.is_empty()
            && let Some(head) = input.first_chunk::<4>()
        {
            let end = 4 + self.length(*head)?;
            if end < self.slice_from
                && let Some(frame) = input.get(4..end)
            {
                let header = header(frame)?;
                let body = Bytes::copy_from_slice(&frame[header.body..]);
                input.advance(end);
                return Ok(Some((header, body)));
            }
        }
        let kept = !self.partial.is_empty();
        let Some(mut frame) = self.cut(input)? else {
            return Ok(None);
        };
        let header = header(&frame)?;
        frame.advance(header.body);
        // What was kept is a buffer of its own already.
        let body = if kept || frame.len() >= SLICE_FROM {
            frame
        } else {
            Bytes::copy_from_slice(&frame)
        };
        Ok(Some((header, body)))
    }

    /// The bytes of the next frame without its length.
    fn cut(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, CodecError> {
        if self.partial.is_empty() {
            let Some(head) = input.first_chunk::<4>() else {
                self.keep(input, 4);
                return Ok(None);
            };
            let length = self.length(*head)?;
            if input.len() >= 4 + length {
                input.advance(4);
                return Ok(Some(input.split_to(length)));
            }
            self.keep(input, 4 + length);
            return Ok(None);
        }
        self.keep(input, 4);
        let Some(head) = self.partial.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = self.length(*head)?;
        self.keep(input, 4 + length);
        if self.partial.len() < 4 + length {
            return Ok(None);
        }
        let mut frame = Bytes::from(std::mem::take(&mut self.partial));
        frame.advance(4);
        Ok(Some(frame))
    }

    /// Moves bytes of `input` to the kept ones, up to `wanted` in all.
    fn keep(&mut self, input: &mut Bytes, wanted: usize) {
        let missing = wanted.saturating_sub(self.partial.len());
        if missing == 0 || input.is_empty() {
            return;
        }
        let take = missing.min(input.len());
        // By what has come, so that an announced length alone costs little, and mostly once.
        let room = missing.min(8 * (self.partial.len() + take) + FIRST_ROOM);
        if self.partial.capacity() < self.partial.len() + take {
            self.partial.reserve_exact(room);
        }
        self.partial.extend_from_slice(&input[..take]);
        input.advance(take);
    }

    fn length(&self, head: [u8; 4]) -> Result<usize, CodecError> {
        let length = u32::from_be_bytes(head) as usize;
        if length > self.max_frame {
            return Err(CodecError::TooLarge {
                length,
                limit: self.max_frame,
            });
        }
        if length == 0 {
            return Err(CodecError::Malformed("shorter than its header"));
        }
        Ok(length)
    }

    /// The message that a frame is or completes; `None` for a part that is not the last.
    fn whole(
        &mut self,
        tag: u8,
        kind: Kind,
        number: u64,
        total: usize,
        body: Bytes,
    ) -> Result<Option<(Class, Bytes)>, CodecError> {
        let correlation = correlation(tag, number)?;
        let class = match tag & 7 {
            CLASS_MESSAGE => Class::Message { kind, correlation },
            CLASS_LINK => Class::Link,
            CLASS_UNLINK => Class::Unlink,
            CLASS_EXITED => Class::Exited,
            CLASS_FIRST_PART => {
                if self.assembly.is_some() {
                    return Err(CodecError::Malformed("a message in parts within another"));
                }
                if total > self.max_message {
                    return Err(CodecError::TooLarge {
                        length: total,
                        limit: self.max_message,
                    });
                }
                self.assembly = Some(Assembly {
                    kind,
                    correlation,
                    total,
                    body: Vec::new(),
                });
                return self.add_part(&body);
            }
            CLASS_NEXT_PART => return self.add_part(&body),
            value => {
                let what = "class";
                return Err(CodecError::Unknown { what, value });
            }
        };
        if body.len() > self.max_message {
            return Err(CodecError::TooLarge {
                length: body.len(),
                limit: self.max_message,
            });
        }
        Ok(Some((class, body)))
    }

    fn add_part(&mut self, part: &[u8]) -> Result<Option<(Class, Bytes)>, CodecError> {
        let Some(mut assembly) = self.assembly.take() else {
            return Err(CodecError::Malformed("a part of no message"));
        };
        let length = assembly.body.len() + part.len();
        if part.is_empty() || length > assembly.total {
            return Err(CodecError::Malformed("parts and length disagree"));
        }
        // Grows with what has come, at most to twice of it: an announced length alone costs nothing.
        if assembly.body.capacity() < length {
            let room = length.saturating_mul(2).min(assembly.total);
            assembly.body.reserve_exact(room - assembly.body.len());
        }
        assembly.body.extend_from_slice(part);
        if length < assembly.total {
            self.assembly = Some(assembly);
            return Ok(None);
        }
        let (kind, correlation) = (assembly.kind, assembly.correlation);
        let class = Class::Message { kind, correlation };
        Ok(Some((class, Bytes::from(assembly.body))))
    }
}

/// What a frame with this tag asks or answers, by the number in it.
fn correlation(tag: u8, number: u64) -> Result<Correlation, CodecError> {
    match (tag >> 3) & 3 {
        0 => Ok(Correlation::None),
        1 => Ok(Correlation::Request(number)),
        2 => Ok(Correlation::Answer(number)),
        value => {
            let what = "correlation";
            Err(CodecError::Unknown { what, value })
        }
    }
}

fn header(frame: &[u8]) -> Result<Header, CodecError> {
    let mut fields = Fields { all: frame, at: 0 };
    let tag = fields.byte()?;
    if tag & 0x80 != 0 {
        return Err(CodecError::Unknown {
            what: "flag",
            value: tag,
        });
    }
    let form = tag >> 5;
    let number = if form == ROUTE_ONCE {
        None
    } else {
        let number = fields.varint()?;
        Some(usize::try_from(number).map_err(|_| CodecError::Malformed("route out of range"))?)
    };
    let route = match (form, number) {
        (ROUTE_KNOWN, Some(number)) => RouteField::Known(number),
        (ROUTE_ONCE | ROUTE_DEFINED, number) => {
            let to = fields.text()?;
            if to.is_empty() || to.len() > MAX_ID_BYTES {
                return Err(CodecError::Malformed("receiver id empty or too long"));
            }
            let from = fields.text()?;
            if number.is_some() && to.len() + from.len() > MAX_ROUTE_TEXT + 16 {
                return Err(CodecError::Malformed("route too long to be remembered"));
            }
            RouteField::Named {
                number,
                to: Arc::from(to),
                from: from.parse().map_err(CodecError::BadPid)?,
            }
        }
        (value, _) => {
            let what = "route form";
            return Err(CodecError::Unknown { what, value });
        }
    };
    let class = tag & 7;
    let kind = match class {
        CLASS_MESSAGE | CLASS_FIRST_PART => Kind(fields.u32()?),
        _ => Kind(0),
    };
    let number = fields.number(tag)?;
    let total = if class == CLASS_FIRST_PART {
        usize::try_from(fields.varint()?).unwrap_or(usize::MAX)
    } else {
        0
    };
    Ok(Header {
        tag,
        route,
        kind,
        number,
        total,
        body: fields.at,
    })
}

/// Reads the fields of a header, one after the other.
struct Fields<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], CodecError> {
        let end = self.at.checked_add(length);
        let taken = end.and_then(|end| self.all.get(self.at..end));
        let taken = taken.ok_or(CodecError::Malformed("field longer than its frame"))?;
        self.at += length;
        Ok(taken)
    }

    /// Number of the request or answer that a frame with this tag is; 0 when it is neither.
    fn number(&mut self, tag: u8) -> Result<u64, CodecError> {
        if (tag >> 3) & 3 == 0 {
            Ok(0)
        } else {
            self.varint()
        }
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, CodecError> {
        Ok(self.take(1)?[0])
    }

    #[inline]
    fn u32(&mut self) -> Result<u32, CodecError> {
        let mut four = [0; 4];
        four.copy_from_slice(self.take(4)?);
        Ok(u32::from_be_bytes(four))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, CodecError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(CodecError::Malformed("number over 64 bits"))
    }

    fn text(&mut self) -> Result<&'a str, CodecError> {
        let length = self.varint()?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        std::str::from_utf8(self.take(length)?)
            .map_err(|_| CodecError::Malformed("PID is not UTF-8"))
    }
}

/// Most bytes that the header of a frame of this pair may have.
pub(crate) fn header_room(to: &str, from: &Pid) -> usize {
    FIXED_HEADER + to.len() + from.id().len() + from.address().host.len() + 16
}

#[cfg(test)]
mod tests;
