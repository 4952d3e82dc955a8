//! Answers that go on: a process keeps the sending end and adds records whenever it likes; the connection carries each
//! of them as one chunk.
//!
//! Neither end waits for the other. What a client is too slow to take is kept up to a bound; then the process is told
//! and gives the client up. When the connection ends, the process hears it as [`StreamClosed`].

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Waker, Poll};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::context::Outside;
use crate::message::{Message, OWN_NODE};
use crate::pid::Pid;

/// To a process: the connection of the stream it writes to has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamClosed {}

impl Message for StreamClosed {
    const NAME: &'static str = "meseta.runtime.StreamClosed";
    const SENDERS: &'static [&'static str] = OWN_NODE;
}

/// Why a record was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamEnd {
    /// The connection has ended.
    #[error("the client has gone")]
    Gone,
    /// The client has not taken what was sent before, and there is more of it than may wait.
    #[error("the client takes records more slowly than they come")]
    TooSlow,
}

/// The process's end. When it is dropped, the answer ends in order.
#[derive(Debug)]
pub struct StreamSender {
    queue: mpsc::UnboundedSender<Bytes>,
    waiting: Arc<AtomicUsize>,
    limit: usize,
}

/// The connection's end, to be put into a [`super::Response`].
pub struct Stream {
    queue: mpsc::UnboundedReceiver<Bytes>,
    waiting: Arc<AtomicUsize>,
    closed: Option<(Outside, Pid)>,
    /// Kept for as long as the stream lives.
    held: Option<Box<dyn Send>>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stream")
    }
}

/// A stream on which at most `limit` bytes wait for the client; one record may be longer when nothing else waits.
pub fn stream(limit: usize) -> (StreamSender, Stream) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let here = StreamSender {
        queue: sender,
        waiting: Arc::clone(&waiting),
        limit,
    };
    let there = Stream {
        queue: receiver,
        waiting,
        closed: None,
        held: None,
    };
    (here, there)
}

impl StreamSender {
    /// Adds a record.
    ///
    /// # Errors
    /// [`StreamEnd`]; the record is dropped.
    pub fn send(&self, record: impl Into<Bytes>) -> Result<(), StreamEnd> {
        let record = record.into();
        let length = record.len();
        let before = self.waiting.load(Ordering::Relaxed);
        if before > 0 && before.saturating_add(length) > self.limit {
            return Err(StreamEnd::TooSlow);
        }
        self.waiting.fetch_add(length, Ordering::Relaxed);
        self.queue.send(record).map_err(|_| StreamEnd::Gone)
    }

    /// Whether the connection has ended. It has when [`StreamClosed`] comes.
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }
}

impl Stream {
    /// The same, telling this process when the connection ends.
    #[must_use]
    pub fn telling(mut self, outside: Outside, process: Pid) -> Self {
        self.closed = Some((outside, process));
        self
    }

    pub(crate) fn holding(mut self, held: impl Send + 'static) -> Self {
        self.held = Some(Box::new(held));
        self
    }
}

impl futures::Stream for Stream {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, waker: &mut Waker<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.queue.poll_recv(waker);
        if let Poll::Ready(Some(record)) = &polled {
            self.waiting.fetch_sub(record.len(), Ordering::Relaxed);
        }
        polled.map(|record| record.map(Ok))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.queue.close();
        if let Some((outside, process)) = self.closed.take() {
            outside.send(&process, StreamClosed {});
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    #[test]
    fn records_come_in_order_until_the_process_drops_its_end() {
        let (sender, stream) = stream(100);
        sender.send(vec![1]).unwrap();
        sender.send(vec![2, 3]).unwrap();
        drop(sender);
        let all: Vec<_> =
            futures::executor::block_on(stream.map(|record| record.unwrap()).collect());
        assert_eq!(all, [Bytes::from(vec![1]), Bytes::from(vec![2, 3])]);
    }

    #[test]
    fn a_client_that_takes_nothing_is_given_up_and_one_that_left_is_noticed() {
        let (sender, mut stream) = stream(10);
        // Nothing else waits, so even a long one is taken.
        sender.send(vec![0; 50]).unwrap();
        assert_eq!(sender.send(vec![0]), Err(StreamEnd::TooSlow));
        futures::executor::block_on(stream.next()).unwrap().unwrap();
        sender.send(vec![0; 10]).unwrap();
        assert_eq!(sender.send(vec![0]), Err(StreamEnd::TooSlow));
        assert!(!sender.is_closed());
        drop(stream);
        assert!(sender.is_closed());
        let gone = sender.send(Vec::new());
        assert!(gone.is_err(), "{gone:?}");
    }
}
