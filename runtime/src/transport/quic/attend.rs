//! What a connection needs besides its frames, carried out by the task that holds it: words on the control stream both
//! ways, pings of a peer that may have ended, its probe, and its end when nobody uses it.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use quinn::{RecvStream, SendStream};
use tokio::time::Instant;
use tracing::{debug, info};

use super::control::{Word, Words};
use super::hello::Close;
use super::leave::Traffic;
use super::slot::{Live, Slot};
use super::{Shared, probe};

/// Time a suspected peer has to answer, beside three round trips. Its port still answers, so it may only be busy.
const PING_ALLOWANCE: Duration = Duration::from_millis(250);
/// The same for one whose port is closed too.
const LAST_ALLOWANCE: Duration = Duration::from_millis(1);
/// Longest round trip that the wait for an answer is reckoned with.
const MOST_RTT: Duration = Duration::from_secs(1);
/// Bytes read from the control stream at once.
const READ: usize = 4096;

/// The state of one connection's attendance.
pub(super) struct Attending {
    send: SendStream,
    receive: RecvStream,
    words: Words,
    /// Words being written.
    writing: Vec<u8>,
    /// Whether the peer still speaks.
    hears: bool,
    /// Whether our words can still be written.
    speaks: bool,
    /// Number of the last ping, and by when it must be answered.
    ping: (u64, Option<Instant>),
    probing: bool,
    idle_close: Duration,
    look: Instant,
    seen: Option<Traffic>,
}

impl Attending {
    pub(super) fn new(send: SendStream, receive: RecvStream, idle_close: Duration) -> Self {
        Self {
            send,
            receive,
            words: Words::default(),
            writing: Vec::new(),
            hears: true,
            speaks: true,
            ping: (0, None),
            probing: false,
            idle_close,
            look: Instant::now() + idle_close,
            seen: None,
        }
    }

    /// Waits for the next thing to do and does it. May be dropped at any point and called again.
    pub(super) async fn next(&mut self, shared: &Arc<Shared>, slot: &Arc<Slot>, live: &Arc<Live>) {
        let deadline = self.ping.1;
        let answer_due = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => pending().await,
            }
        };
        tokio::select! {
            read = self.receive.read_chunk(READ, true), if self.hears => match read {
                Ok(Some(chunk)) => self.hear(&chunk.bytes, shared, slot, live),
                // The end of the connection is told elsewhere.
                Ok(None) | Err(_) => self.hears = false,
            },
            written = self.send.write(&self.writing), if self.speaks && !self.writing.is_empty() => match written {
                Ok(count) => {
                    self.writing.drain(..count);
                }
                Err(_) => self.speaks = false,
            },
            () = live.attend.notified() => self.see_to(shared, live),
            () = answer_due => {
                info!(peer = %slot.key, "peer did not answer after its TCP connection was closed: it is taken for dead");
                shared.config.metrics.count("runtime/peers_found_dead");
                self.ping.1 = None;
                Close::Dead.close(&live.connection);
            }
            () = tokio::time::sleep_until(self.look) => {
                self.look = Instant::now() + self.idle_close;
                self.look_whether_it_is_used(shared, slot, live);
            }
        }
        if self.writing.is_empty() {
            self.writing = live.take_words();
        }
    }

    fn see_to(&mut self, shared: &Arc<Shared>, live: &Arc<Live>) {
        let trips = 3 * live.connection.rtt().min(MOST_RTT);
        if live.take_suspicion() && self.ping.1.is_none() {
            self.ping.0 += 1;
            self.ping.1 = Some(Instant::now() + trips + PING_ALLOWANCE);
            live.say(&Word::Ping(self.ping.0));
        }
        if live.take_more_suspicion()
            && let Some(deadline) = &mut self.ping.1
        {
            *deadline = (*deadline).min(Instant::now() + trips + LAST_ALLOWANCE);
        }
        if live.is_probe_wanted() && !self.probing && live.dialable {
            self.probing = true;
            shared
                .handle
                .spawn(probe::hold(Arc::clone(shared), Arc::clone(live)));
        }
    }

    fn hear(&mut self, bytes: &[u8], shared: &Arc<Shared>, slot: &Arc<Slot>, live: &Arc<Live>) {
        let mut heard = Vec::new();
        self.words.feed(bytes, |word| heard.push(word));
        for word in heard {
            match word {
                Word::Ping(number) => {
                    live.say(&Word::Pong(number));
                }
                Word::Pong(number) if number == self.ping.0 => self.ping.1 = None,
                Word::Pong(_) => {}
                Word::Overloaded(id) => shared.upcalls.overloaded(&live.peer, &id),
                Word::Leave(theirs) => shared.answer_leave(slot, live, theirs),
                Word::Left => {
                    shared.left(slot, live);
                    Close::Idle.close(&live.connection);
                }
                Word::Stay => shared.stay(slot, live),
            }
        }
    }

    fn look_whether_it_is_used(
        &mut self,
        shared: &Arc<Shared>,
        slot: &Arc<Slot>,
        live: &Arc<Live>,
    ) {
        let now = Shared::traffic(slot, live);
        if let Some(before) = self.seen
            && now == Some(before)
            && shared.propose_to_leave(slot, live, before)
        {
            debug!(peer = %slot.key, "nobody uses the connection: the peer is asked to leave it");
            live.say(&Word::Leave(before));
        }
        self.seen = now;
    }
}
