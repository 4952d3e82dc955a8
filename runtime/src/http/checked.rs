//! The bytes of a client on their way to the server of HTTP, which gets only heads that [`Framing`] has let pass.
//!
//! In place of a head that is refused the server gets one that asks for nothing, and [`Refused`] says which request of
//! the connection it stands for and why, so that the answer comes in its turn, behind those to earlier requests. Then
//! nothing more is read as a request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::{Framing, HeadLimits, Next, Unfit};
use crate::transport::pause;

/// Bytes read at a time.
const PIECE: usize = 16 << 10;

/// What stands in for a refused head.
const NOTHING: &[u8] = b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n";

/// Bytes read and dropped after the last answer, so that the client can read that answer: a connection that is closed
/// with bytes unread takes it away.
const DRAINED: usize = 1 << 20;

/// How long that may take.
const LINGER: Duration = Duration::from_secs(2);

/// The request of a connection that was refused: its number, from 1, and why.
pub(super) type Refused = Arc<Mutex<Option<(u64, Unfit)>>>;

type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection whose requests are looked at.
pub(super) struct Checked<S> {
    inner: S,
    framing: Framing,
    /// Came and was not handed on.
    waiting: BytesMut,
    /// Of which so much can be.
    ready: usize,
    /// Stands in for what was refused.
    instead: &'static [u8],
    refused: Refused,
    is_over: bool,
    /// How long a head may take from its first byte on; between requests a connection may be silent for ever.
    patience: Duration,
    /// Until then the head that has begun may come.
    late: Option<Timer>,
    shut: Option<(Timer, usize)>,
}

impl<S> Checked<S> {
    pub(super) fn new(inner: S, limits: HeadLimits, patience: Duration) -> Self {
        Self {
            inner,
            framing: Framing::new(limits),
            waiting: BytesMut::new(),
            ready: 0,
            instead: &[],
            refused: Refused::default(),
            is_over: false,
            patience,
            late: None,
            shut: None,
        }
    }

    pub(super) fn refused(&self) -> Refused {
        Arc::clone(&self.refused)
    }

    /// Whether a head has begun and has not come in time.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        if self.waiting.is_empty() || !self.framing.is_between_requests() {
            self.late = None;
            return false;
        }
        let patience = self.patience;
        let late = self.late.get_or_insert_with(|| Box::pin(pause(patience)));
        late.as_mut().poll(cx).is_ready()
    }
}

/// Reads once into `piece`; the length, 0 at the end.
fn read_some<S: AsyncRead + Unpin>(
    inner: &mut S,
    cx: &mut Context<'_>,
    piece: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut buf = ReadBuf::new(piece);
    ready!(Pin::new(inner).poll_read(cx, &mut buf))?;
    Poll::Ready(Ok(buf.filled().len()))
}

impl<S: AsyncRead + Unpin> AsyncRead for Checked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = &mut *self;
        loop {
            if !me.instead.is_empty() {
                let count = me.instead.len().min(buf.remaining());
                buf.put_slice(&me.instead[..count]);
                me.instead = &me.instead[count..];
                return Poll::Ready(Ok(()));
            }
            if me.ready > 0 {
                let count = me.ready.min(buf.remaining());
                buf.put_slice(&me.waiting[..count]);
                me.waiting.advance(count);
                me.ready -= count;
                return Poll::Ready(Ok(()));
            }
            if me.is_over {
                // The answer ends the connection; an end of what is read would end it before.
                return Poll::Pending;
            }
            match me.framing.next(&me.waiting) {
                Next::Pass(count) => {
                    me.ready = count;
                    me.late = None;
                }
                Next::Refuse(why) => {
                    *me.refused.lock() = Some((me.framing.heads(), why));
                    me.instead = NOTHING;
                    me.is_over = true;
                    me.waiting.clear();
                }
                Next::End => return Poll::Ready(Ok(())),
                Next::Wait => {
                    let mut piece = [0; PIECE];
                    let count = match read_some(&mut me.inner, cx, &mut piece) {
                        Poll::Ready(count) => count?,
                        // What has come counts, however late this is looked at.
                        Poll::Pending if me.is_late(cx) => return Poll::Ready(Ok(())),
                        Poll::Pending => {
                            // It may be silent for ever: nothing is kept for it meanwhile.
                            if me.waiting.is_empty() {
                                me.waiting = BytesMut::new();
                            }
                            return Poll::Pending;
                        }
                    };
                    if count == 0 {
                        return Poll::Ready(Ok(()));
                    }
                    me.waiting.extend_from_slice(&piece[..count]);
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Checked<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        all: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, all)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    /// Ends what is sent; where a request was not read to its end, what is left of it is dropped for a while.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        if me.shut.is_none() {
            ready!(Pin::new(&mut me.inner).poll_shutdown(cx))?;
            if !me.is_over && me.framing.is_between_requests() {
                return Poll::Ready(Ok(()));
            }
        }
        let (timer, dropped) = me.shut.get_or_insert_with(|| (Box::pin(pause(LINGER)), 0));
        if timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        loop {
            let mut piece = [0; PIECE];
            let count = ready!(read_some(&mut me.inner, cx, &mut piece))?;
            *dropped += count;
            if count == 0 || *dropped > DRAINED {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 1000,
        headers: 10,
    };

    #[tokio::test]
    async fn a_refused_head_is_replaced_and_nothing_behind_it_is_read() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let mut checked = Checked::new(server, LIMITS, LINGER);
        let refused = checked.refused();
        let fine = "GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n";
        let bad = "GET /3 HTTP/1.1\r\nContent-Length: x\r\n\r\nGET /4 HTTP/1.1\r\n\r\n";
        client
            .write_all(format!("{fine}{bad}").as_bytes())
            .await
            .unwrap();
        let mut read = vec![0; fine.len() + NOTHING.len()];
        checked.read_exact(&mut read).await.unwrap();
        let expected = [fine.as_bytes(), NOTHING].concat();
        assert_eq!(read, expected);
        assert_eq!(*refused.lock(), Some((3, Unfit::Length)));
        let mut rest = [0; 1];
        let more = futures::poll!(Box::pin(checked.read(&mut rest)));
        assert!(more.is_pending());
        // The client ends, so nobody has to be waited for.
        drop(client);
        checked.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn a_client_may_be_silent_between_requests_but_not_within_a_head() {
        const PATIENCE: Duration = Duration::from_millis(20);
        let head = "GET / HTTP/1.1\r\n\r\n";
        for between in ["", "\r\n", "\r\n\r\n"] {
            let (mut client, server) = tokio::io::duplex(1 << 16);
            let mut checked = Checked::new(server, LIMITS, PATIENCE);
            // Two at once, and what some clients send behind a request.
            let sent = format!("{head}{head}{between}");
            client.write_all(sent.as_bytes()).await.unwrap();
            let mut read = vec![0; sent.len()];
            checked.read_exact(&mut read).await.unwrap();
            assert_eq!(read, sent.as_bytes());
            let mut rest = [0; 64];
            let silent = tokio::time::timeout(3 * PATIENCE, checked.read(&mut rest)).await;
            assert!(silent.is_err(), "{between:?}: {silent:?}");
            // A head that is there in time, if in pieces, and then one that stays away.
            client.write_all(b"GET / HT").await.unwrap();
            assert!(futures::poll!(Box::pin(checked.read(&mut rest))).is_pending());
            client.write_all(b"TP/1.1\r\n\r\nGET").await.unwrap();
            let count = checked.read(&mut rest).await.unwrap();
            assert!(rest[..count].ends_with(head.as_bytes()), "{between:?}");
            let end = tokio::time::timeout(100 * PATIENCE, checked.read(&mut rest)).await;
            assert_eq!(end.unwrap().unwrap(), 0, "{between:?}");
        }
    }

    #[tokio::test]
    async fn the_end_of_the_client_is_the_end() {
        let (client, server) = tokio::io::duplex(64);
        drop(client);
        let mut all = Vec::new();
        Checked::new(server, LIMITS, LINGER)
            .read_to_end(&mut all)
            .await
            .unwrap();
        assert!(all.is_empty());
    }
}
