//! Bodies of calls are read, which takes long for long ones, beside the processes that answer them.
//!
//! A path may come with a function that makes of a request what its handler needs ([`crate::Routes::reading`]). Short bodies are
//! read on the thread of HTTP; long ones on other threads, only so many at a time, since each takes many times its own
//! length in memory.

use std::any::Any;
use std::fmt;
use std::io;
use std::num::NonZero;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{Request, encoding};

/// Longest body that is read on the thread of HTTP, in bytes: that takes well under a millisecond.
const SHORT: usize = 16 << 10;

/// What was read of a request, until its handler takes it.
#[derive(Clone, Default)]
pub struct Reading(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reading")
    }
}

/// It follows from the request, so it makes none different.
impl PartialEq for Reading {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Reading {}

/// What a request was read to be.
pub struct ReadCall {
    /// For the handler.
    pub(crate) value: Box<dyn Any + Send>,
    /// Whether its answer may go on as a stream.
    pub(crate) may_go_on: bool,
}

impl ReadCall {
    /// This, whose answer may go on or not.
    pub fn new<T: Send + 'static>(value: T, may_go_on: bool) -> Self {
        Self {
            value: Box::new(value),
            may_go_on,
        }
    }
}

/// Reads a request.
pub(crate) type Read = fn(&Request) -> ReadCall;

impl Request {
    /// What the path's reader has made of it, if that was done and nobody has taken it.
    pub fn take_reading<T: 'static>(&self) -> Option<T> {
        let taken = self.reading.0.lock().take()?;
        taken.downcast().ok().map(|value| *value)
    }

    fn with_reading(self, read: ReadCall) -> (Self, bool) {
        let request = Self {
            reading: Reading(Arc::new(Mutex::new(Some(read.value)))),
            // Nobody needs it twice.
            body: bytes::Bytes::new(),
            ..self
        };
        (request, read.may_go_on)
    }
}

/// Where long bodies are read.
pub(super) struct Readers(Arc<Semaphore>);

impl Readers {
    /// Those that leave half of the processors to others.
    pub(super) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self(Arc::new(Semaphore::new(processors.div_ceil(2))))
    }

    /// What was compressed into a body, as [`encoding::gunzip`] has it; none when the node ends. A short one may become a
    /// thousand times as long, so that not all are inflated at a time.
    pub(super) async fn inflate(
        &self,
        body: bytes::Bytes,
        most: usize,
    ) -> Option<io::Result<Option<Vec<u8>>>> {
        let turn = Arc::clone(&self.0).acquire_owned().await.ok()?;
        let work = tokio::task::spawn_blocking(move || {
            let inflated = encoding::gunzip(&body, most);
            drop(turn);
            inflated
        });
        work.await.ok()
    }

    /// The request with what it was read to be, and whether its answer may go on; none when the node ends.
    pub(super) async fn read(&self, read: Read, request: Request) -> Option<(Request, bool)> {
        if request.body.len() <= SHORT {
            let call = read(&request);
            return Some(request.with_reading(call));
        }
        let turn = Arc::clone(&self.0).acquire_owned().await.ok()?;
        let work = tokio::task::spawn_blocking(move || {
            let call = read(&request);
            // Until the work is done, whether or not somebody still waits for it.
            drop(turn);
            request.with_reading(call)
        });
        work.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_read_is_taken_once_by_who_knows_its_type() {
        for length in [3, SHORT + 1] {
            let request = Request {
                body: vec![b'x'; length].into(),
                ..Request::default()
            };
            let read: Read = |request| ReadCall::new(request.body.len(), true);
            let (request, may_go_on) = Readers::new().read(read, request).await.unwrap();
            assert!(may_go_on && request.body.is_empty());
            assert_eq!(request.take_reading::<usize>(), Some(length));
            assert_eq!(request.take_reading::<usize>(), None);
        }
    }
}
