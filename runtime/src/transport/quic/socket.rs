//! The UDP socket as quinn uses it: a thread is woken by it when something has come, and for nothing else.
//!
//! The kernel tells an edge-triggered listener also of each datagram of ours that has left the socket, so that whoever
//! listens for room to write is woken, in vain, after every datagram sent, before the answer wakes it again. So this one
//! listens for datagrams only, and for room only while there is none.
//!
//! Invariant: readiness is given up only when the kernel has said that nothing is left to read.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Most that the kernel hands over at once, of however many datagrams it is put together: the length of a datagram is a
/// number of 16 bits.
const MOST_AT_ONCE: usize = 1 << 16;

/// The socket of one endpoint.
#[derive(Debug)]
pub(super) struct Socket {
    io: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    receive_segments: usize,
    /// The last datagram did not go in.
    full: AtomicBool,
}

impl Socket {
    /// Takes a bound socket over for datagrams of up to `largest` bytes; inside the tokio runtime that is to be woken.
    ///
    /// # Errors
    /// The system refuses a setting.
    pub(super) fn new(socket: UdpSocket, largest: u16) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        // quinn keeps room for so many of the largest datagrams in each of its buffers.
        let receive_segments = MOST_AT_ONCE
            .div_ceil(usize::from(largest))
            .clamp(1, state.gro_segments());
        Ok(Self {
            io: listening(socket, Interest::READABLE)?,
            state,
            receive_segments,
            full: AtomicBool::new(false),
        })
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Room {
            socket: self,
            waiting: Mutex::new(None),
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.state.send(self.io.get_ref().into(), transmit);
        // The only error there is says that there is no room.
        if sent.is_err() {
            self.full.store(true, Ordering::Relaxed);
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.io.poll_read_ready(cx))?;
            match self.state.recv(self.io.get_ref().into(), bufs, meta) {
                Ok(count) => {
                    // The kernel takes datagrams until there is none or no buffer, so after one it need not be asked
                    // again. Of a stream more has come by the time that these are dealt with.
                    let alone = count == 1 && meta[0].len <= meta[0].stride;
                    if alone && bufs.len() > 1 {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                // One that is told once, of a datagram that has not reached its receiver, which QUIC finds out itself.
                Err(_) => {}
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.receive_segments
    }
}

/// A socket that only has to be there, for the sake of the guests to come: quinn finds out at the start of an endpoint
/// whether the kernel puts datagrams together, by having it do so for an IPv6 socket that it closes again. The first such
/// socket of the machine and the end of the last one have the kernel change its own code, and each change stops all
/// processors several times. `None` when there is no IPv6.
pub(super) fn put_together() -> Option<socket2::Socket> {
    let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None).ok()?;
    UdpSocketState::new((&socket).into()).ok()?;
    Some(socket)
}

/// Waits for room in the socket, for one of its users.
struct Room {
    socket: Arc<Socket>,
    waiting: Mutex<Option<BoxFuture<'static, io::Result<()>>>>,
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

impl UdpPoller for Room {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut waiting = self.waiting.lock();
        // Asked before each datagram.
        if waiting.is_none() && !self.socket.full.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let room = waiting.get_or_insert_with(|| Box::pin(room(Arc::clone(&self.socket))));
        let outcome = ready!(room.as_mut().poll(cx));
        *waiting = None;
        self.socket.full.store(false, Ordering::Relaxed);
        Poll::Ready(outcome)
    }
}

/// Listens for room anew, which tells as well of what there is already.
async fn room(socket: Arc<Socket>) -> io::Result<()> {
    let again = socket.io.get_ref().try_clone()?;
    let listening = listening(again, Interest::WRITABLE)?;
    listening.writable().await?.retain_ready();
    Ok(())
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for the sake of types that do not own their descriptor; a socket of the standard \
              library does, and has the same one until it is dropped"
)]
fn listening(socket: UdpSocket, to: Interest) -> io::Result<AsyncFd<UdpSocket>> {
    AsyncFd::with_interest(socket, to)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn bound() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").unwrap()
    }

    fn inside<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build();
        runtime.unwrap().block_on(work)
    }

    /// Datagrams that are there, or come: what each says.
    async fn some(socket: &Socket, buffers: usize) -> Vec<u8> {
        let mut rooms = vec![[0; 8]; buffers];
        let mut slices: Vec<_> = rooms.iter_mut().map(|room| IoSliceMut::new(room)).collect();
        let mut metas = vec![RecvMeta::default(); buffers];
        let count = poll_fn(|cx| socket.poll_recv(cx, &mut slices, &mut metas)).await;
        (0..count.unwrap()).map(|at| slices[at][0]).collect()
    }

    #[test]
    fn datagrams_that_come_between_two_looks_are_told_whether_a_look_took_all_or_some() {
        inside(async {
            let socket = Socket::new(bound(), 1472).unwrap();
            let (to, peer) = (socket.local_addr().unwrap(), bound());
            for round in 0..3 {
                for at in 0..3 {
                    peer.send_to(&[round * 3 + at], to).unwrap();
                }
                // Two of three: the third is there without any news of it.
                let two = some(&socket, 2).await;
                assert_eq!(two, [round * 3, round * 3 + 1]);
                assert_eq!(some(&socket, 2).await, [round * 3 + 2]);
            }
            // Nothing is there after one, or after two with room for more; what comes wakes who waits.
            for at in [[96, 97], [98, 99]] {
                let mut waiting = Box::pin(some(&socket, 3));
                assert!(futures::poll!(&mut waiting).is_pending());
                for what in at {
                    peer.send_to(&[what], to).unwrap();
                }
                assert_eq!(waiting.await, at);
            }
        });
    }

    #[test]
    fn who_waits_for_room_hears_of_what_there_is_as_often_as_asked() {
        inside(async {
            let socket = Arc::new(Socket::new(bound(), 1472).unwrap());
            let mut room = Arc::clone(&socket).create_io_poller();
            for full in [false, true, true] {
                socket.full.store(full, Ordering::Relaxed);
                poll_fn(|cx| room.as_mut().poll_writable(cx)).await.unwrap();
                assert!(!socket.full.load(Ordering::Relaxed));
            }
        });
    }

    #[test]
    fn a_buffer_holds_the_most_that_comes_at_once() {
        inside(async {
            for largest in [1200, 1472, 6500] {
                let socket = Socket::new(bound(), largest).unwrap();
                let segments = socket.max_receive_segments();
                let holds = segments * usize::from(largest);
                assert!(holds >= MOST_AT_ONCE || segments == socket.state.gro_segments());
                assert!(holds < MOST_AT_ONCE + usize::from(largest));
            }
        });
    }
}
