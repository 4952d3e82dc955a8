//! What nearly all frames of a busy lane are: small whole messages on a route that is known, one after the other.
//!
//! Pure. They are taken without the detours that other frames need, and come as one run, so that their bodies are
//! copied at once and whoever takes them looks up their receiver once. The invariant: a run is what [`Reader::next`]
//! would have given, frame by frame; what is not of its kind or not wholly there is left untouched.

use bytes::{Buf as _, Bytes};

use super::{CLASS_MESSAGE, Fields, MOST_PINNED, ROUTE_KNOWN, Reader, correlation};
use crate::codec::Class;
use crate::message::{Correlation, Kind};

/// Bits of a tag that say class and route, and the one that is for later versions.
const NOT_CORRELATION: u8 = 0b1110_0111;

/// What frames of a run may have.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Largest length field.
    frame: usize,
    /// Largest body.
    message: usize,
    /// Frames of this many bytes and more are not copied, and so in no run.
    end: usize,
}

/// A message at the front of what was read.
struct Found {
    route: usize,
    message: Message,
}

/// Where a message of a run is.
#[derive(Debug)]
pub(super) struct Message {
    kind: Kind,
    correlation: Correlation,
    /// Where its body begins and where it ends, from where it was looked for.
    body: (usize, usize),
}

impl Bounds {
    /// The message that `input` begins with, if it may be in a run. What is malformed is not: [`Reader::next`] says what
    /// is wrong with it.
    fn find(self, input: &[u8]) -> Option<Found> {
        let length = u32::from_be_bytes(*input.first_chunk::<4>()?) as usize;
        if length > self.frame || 4 + length >= self.end {
            return None;
        }
        let mut fields = Fields {
            all: input.get(4..4 + length)?,
            at: 0,
        };
        let tag = fields.byte().ok()?;
        if tag & NOT_CORRELATION != CLASS_MESSAGE | ROUTE_KNOWN << 5 {
            return None;
        }
        let route = usize::try_from(fields.varint().ok()?).ok()?;
        let kind = Kind(fields.u32().ok()?);
        let number = fields.number(tag).ok()?;
        let correlation = correlation(tag, number).ok()?;
        (length - fields.at <= self.message).then_some(Found {
            route,
            message: Message {
                kind,
                correlation,
                body: (4 + fields.at, 4 + length),
            },
        })
    }
}

/// The messages of a run.
#[derive(Debug)]
pub struct Run<'a> {
    /// Those that are not taken yet. Their bodies are places of `frames`.
    messages: std::slice::Iter<'a, Message>,
    frames: Bytes,
}

impl Iterator for Run<'_> {
    type Item = (Class, Bytes);

    fn next(&mut self) -> Option<Self::Item> {
        let message = self.messages.next()?;
        let (begin, end) = message.body;
        let body = if self.messages.len() == 0 {
            // It ends where they all end.
            let mut last = std::mem::take(&mut self.frames);
            last.advance(begin);
            last
        } else {
            self.frames.slice(begin..end)
        };
        let (kind, correlation) = (message.kind, message.correlation);
        Some((Class::Message { kind, correlation }, body))
    }
}

impl<R> Reader<R> {
    /// Takes messages off the front of `input` that are small, whole, and on the same known route: that route, and at
    /// least one message. `None` when there is none: see [`Reader::next`].
    pub fn run(&mut self, input: &mut Bytes) -> Option<(&mut R, Run<'_>)> {
        if !self.partial.is_empty() {
            return None;
        }
        let bounds = Bounds {
            frame: self.max_frame,
            message: self.max_message,
            end: self.slice_from,
        };
        let Found { route, mut message } = bounds.find(input)?;
        let known = self.routes.get_mut(route)?;
        // They are copied in one piece, as many as no body of them keeps too much of it in memory: at most MOST_PINNED.
        let (begin, mut all) = message.body;
        let mut least = all - begin;
        message.body = (0, least);
        self.run.clear();
        self.run.push(message);
        while let Some(mut next) = bounds.find(&input[all..])
            && next.route == route
        {
            let (from, to) = next.message.body;
            least = least.min(to - from);
            if all + to > MOST_PINNED * least {
                break;
            }
            next.message.body = (all + from - begin, all + to - begin);
            self.run.push(next.message);
            all += to;
        }
        let run = Run {
            messages: self.run.iter(),
            frames: Bytes::copy_from_slice(&input[begin..all]),
        };
        input.advance(all);
        Some((known, run))
    }
}
