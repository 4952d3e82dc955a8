//! The transport over real sockets: each node is a thread with its own runtime, as in production. Tests wait for what
//! they expect to hear, with one long limit; none sleeps.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Serialize;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::codec::{Class, decode_body, encode_body};
use crate::message::{Correlation, Kind};
use crate::pid::Pid;
use crate::transport::{Loss, Peer, Violation};

const LIMIT: Duration = Duration::from_secs(30);
const ID: &str = "executor-1";

/// What a node was told.
#[derive(Debug, PartialEq)]
enum Event {
    Frame(Peer, Frame),
    Lost(PeerKey, Loss),
}

struct Ears(Mutex<mpsc::Sender<Event>>);

impl Upcalls for Ears {
    fn received(&self, peer: &Peer, frame: Frame) -> Result<(), Violation> {
        let claimed = frame.from.to_string();
        // A test that has heard enough no longer listens.
        let _heard = self.0.lock().send(Event::Frame(peer.clone(), frame));
        if claimed.starts_with("liar@") {
            return Err(Violation {
                peer: peer.key.clone(),
                claimed,
            });
        }
        Ok(())
    }

    fn lost(&self, peer: &PeerKey, loss: Loss) {
        let _heard = self.0.lock().send(Event::Lost(peer.clone(), loss));
    }
}

/// A node: a transport on a thread of its own.
struct TestNode {
    transport: Option<Arc<UnixTransport>>,
    events: mpsc::Receiver<Event>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

fn address() -> Address {
    Address::new("127.0.0.1", 5051)
}

fn host_key() -> PeerKey {
    PeerKey::Node(address())
}

fn guest_key(id: &str) -> PeerKey {
    PeerKey::Guest(Arc::from(id))
}

fn own_uid() -> u32 {
    nix::unistd::Uid::effective().as_raw()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

impl TestNode {
    fn start(
        change: impl FnOnce(&mut UnixConfig),
        make: impl FnOnce(UnixConfig, Arc<Ears>) -> Arc<UnixTransport> + Send + 'static,
    ) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(1);
        let run = Incarnation(RUNS.fetch_add(1, Ordering::Relaxed));
        let mut config = UnixConfig::new(address(), run, "agent");
        change(&mut config);
        let (events_in, events) = mpsc::channel();
        let (started_in, started) = mpsc::channel();
        let (end, ended) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let transport = make(config, Arc::new(Ears(Mutex::new(events_in))));
                started_in.send(transport).unwrap();
                let _dropped = ended.await;
            });
        });
        Self {
            transport: Some(started.recv_timeout(LIMIT).unwrap()),
            events,
            end: Some(end),
            thread: Some(thread),
        }
    }

    fn transport(&self) -> &UnixTransport {
        self.transport.as_ref().expect("it was not killed")
    }

    fn event(&self) -> Event {
        self.events.recv_timeout(LIMIT).expect("an event")
    }

    fn lost(&self) -> (PeerKey, Loss) {
        match self.event() {
            Event::Lost(key, loss) => (key, loss),
            Event::Frame(..) => panic!("a frame where a loss was expected"),
        }
    }

    fn frame(&self) -> (Peer, Frame) {
        match self.event() {
            Event::Frame(peer, frame) => (peer, frame),
            Event::Lost(key, loss) => panic!("{key} lost: {loss:?}, where a frame was expected"),
        }
    }

    fn hears_nothing(&self) -> bool {
        self.events.try_recv().is_err()
    }

    fn send(&self, to: &PeerKey, frame: &Frame) {
        self.transport().send(to, frame).unwrap();
    }

    fn status(&self, of: &PeerKey) -> PeerStatus {
        let all = self.transport().peers();
        all.into_iter().find(|p| p.peer == of.to_string()).unwrap()
    }

    fn shutdown(&self) {
        let (done_in, done) = mpsc::channel();
        let shutdown = self.transport().shutdown();
        std::thread::spawn(move || {
            runtime().block_on(shutdown);
            done_in.send(()).unwrap();
        });
        done.recv_timeout(LIMIT).unwrap();
    }

    /// Ends the thread and its sockets without a word to anybody, as the kernel does for a killed process.
    fn kill(&mut self) {
        self.end = None;
        self.transport = None;
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A directory with a host's socket.
struct World {
    dir: TempDir,
}

impl World {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("run/guests")
    }

    fn host(&self) -> TestNode {
        self.host_with(|_| {})
    }

    fn host_with(&self, change: impl FnOnce(&mut UnixConfig)) -> TestNode {
        let socket = GuestSocket {
            path: self.path(),
            reach: Reach::OwnUser,
        };
        TestNode::start(change, move |config, ears| {
            UnixTransport::host(config, socket.listen().unwrap(), ears).unwrap()
        })
    }

    fn guest(&self, id: &str, token: &GuestToken) -> TestNode {
        self.guest_with(id, token, own_uid(), |c| {
            c.connect_grace = Duration::from_secs(2);
        })
    }

    fn guest_with(
        &self,
        id: &str,
        token: &GuestToken,
        host_uid: u32,
        change: impl FnOnce(&mut UnixConfig),
    ) -> TestNode {
        std::fs::create_dir_all(self.path().parent().unwrap()).unwrap();
        let side = GuestSide {
            id: Arc::from(id),
            socket: HostSocket::at(&self.path(), host_uid).unwrap(),
            token: token.clone(),
        };
        TestNode::start(change, move |config, ears| {
            UnixTransport::guest(config, side, ears).unwrap()
        })
    }
}

/// Pins a guest under a fresh token.
fn pin(host: &TestNode, id: &str) -> GuestToken {
    let token = GuestToken::generate().unwrap();
    pin_as(host, id, &token, own_uid());
    token
}

fn pin_as(host: &TestNode, id: &str, token: &GuestToken, uid: u32) {
    host.transport().pin(Guest {
        id: Arc::from(id),
        role: Arc::from("executor"),
        proof: Proof::Token {
            hash: token.hash(),
            uid,
        },
    });
}

/// A host with one connected guest, both having heard from the other.
fn pair() -> (World, TestNode, TestNode) {
    let world = World::new();
    let host = world.host();
    let token = pin(&host, ID);
    let guest = world.guest(ID, &token);
    guest.send(&host_key(), &message("slave(1)", ID, 0));
    assert_eq!(number(&host.frame().1), 0);
    host.send(&guest_key(ID), &message(ID, "slave(1)", 0));
    assert_eq!(number(&guest.frame().1), 0);
    (world, host, guest)
}

fn message(to: &str, from: &str, number: u64) -> Frame {
    message_of(to, from, Bytes::copy_from_slice(&number.to_be_bytes()))
}

fn message_of(to: &str, from: &str, body: Bytes) -> Frame {
    Frame {
        class: Class::Message {
            kind: Kind(7),
            correlation: Correlation::None,
        },
        to: Arc::from(to),
        from: Pid::new(from, address()).unwrap(),
        body,
    }
}

fn number(frame: &Frame) -> u64 {
    u64::from_be_bytes(frame.body[..8].try_into().unwrap())
}

/// Whoever finds the socket and writes to it what it likes.
struct Rogue(UnixStream);

impl Rogue {
    fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Self(stream)
    }

    fn say(&mut self, value: &impl Serialize) {
        let body = encode_body(value).unwrap();
        let mut bytes = BytesMut::new();
        bytes.put_u32(u32::try_from(body.len()).unwrap());
        bytes.put_slice(&body);
        self.0.write_all(&bytes).unwrap();
    }

    fn answer(&mut self) -> Answer {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut body).unwrap();
        decode_body(&body).unwrap()
    }

    /// Comes in with a Hello that fits.
    fn enter(path: &Path, token: &GuestToken) -> Self {
        let mut rogue = Self::connect(path);
        rogue.say(&Hello::new(Incarnation(9), ID, token.secret(), 1));
        assert_eq!(rogue.answer().refused, None);
        rogue
    }

    /// Waits until the host has closed the connection.
    fn is_cut_off(&mut self) -> bool {
        match self.0.read_to_end(&mut Vec::new()) {
            Ok(_) => true,
            // What it had written was not read to its end.
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn frames_arrive_in_order_both_ways_over_one_connection() {
    let (_world, host, guest) = pair();
    let each = 5000;
    for number in 1..=each {
        guest.send(&host_key(), &message("slave(1)", ID, number));
        host.send(&guest_key(ID), &message(ID, "slave(1)", number));
    }
    for expected in 1..=each {
        let (peer, frame) = host.frame();
        assert_eq!((peer.key, number(&frame)), (guest_key(ID), expected));
        assert_eq!(peer.roles, [Arc::from("executor")]);
        let (peer, frame) = guest.frame();
        assert_eq!((peer.key, number(&frame)), (host_key(), expected));
        assert_eq!(peer.roles, [Arc::from("agent")]);
    }
    let status = host.status(&guest_key(ID));
    assert_eq!((status.sent, status.received), (each + 1, each + 1));
    assert_eq!((status.dropped, status.connected), (0, true));
}

#[test]
fn a_large_message_passes_and_one_over_the_limit_is_refused() {
    let (_world, host, guest) = pair();
    let body = Bytes::from(vec![7; 20 << 20]);
    guest.send(&host_key(), &message_of("slave(1)", ID, body.clone()));
    assert_eq!(host.frame().1.body, body);
    let over = message_of("slave(1)", ID, Bytes::from(vec![0; 65 << 20]));
    let refused = guest.transport().send(&host_key(), &over);
    assert!(matches!(refused, Err(SendError::Codec { .. })));
    guest.send(&host_key(), &message("slave(1)", ID, 3));
    assert_eq!(number(&host.frame().1), 3);
}

#[test]
fn who_does_not_fit_is_refused_and_nobody_else_is_disturbed() {
    let (world, host, guest) = pair();
    let (other, foreign) = (
        GuestToken::generate().unwrap(),
        GuestToken::generate().unwrap(),
    );
    pin(&host, "executor-2");
    pin_as(&host, "executor-3", &foreign, own_uid() + 1);
    let token = |bytes: &[u8], id| Hello::new(Incarnation(9), id, bytes, 1);
    let old = Hello {
        protocol_min: 2,
        protocol_max: 3,
        ..token(&[], "executor-2")
    };
    for (hello, why) in [
        (
            token(other.secret(), "executor-2"),
            "does not show its token",
        ),
        (token(&[], "executor-2"), "does not show its token"),
        (token(foreign.secret(), "executor-3"), "comes as user"),
        (
            token(other.secret(), "executor-4"),
            "no guest executor-4 is awaited",
        ),
        (old, "speaks protocol 2 to 3"),
    ] {
        let mut rogue = Rogue::connect(&world.path());
        rogue.say(&hello);
        let refused = rogue.answer().refused.unwrap_or_default();
        assert!(refused.contains(why), "{refused}");
        assert!(rogue.is_cut_off());
    }
    guest.send(&host_key(), &message("slave(1)", ID, 1));
    assert_eq!(number(&host.frame().1), 1);
    assert!(guest.hears_nothing());
}

#[test]
fn a_user_without_guests_is_not_listened_to() {
    let world = World::new();
    let host = world.host();
    assert!(Rogue::connect(&world.path()).is_cut_off());
    let token = GuestToken::generate().unwrap();
    pin_as(&host, ID, &token, own_uid() + 1);
    assert!(Rogue::connect(&world.path()).is_cut_off());
    pin_as(&host, ID, &token, own_uid());
    let _in = Rogue::enter(&world.path(), &token);
}

#[test]
fn a_second_connection_under_a_live_token_is_refused_and_the_first_goes_on() {
    let world = World::new();
    let host = world.host();
    let token = pin(&host, ID);
    let guest = world.guest(ID, &token);
    guest.send(&host_key(), &message("slave(1)", ID, 1));
    host.frame();
    let second = world.guest_with(ID, &token, own_uid(), |c| {
        c.connect_grace = Duration::from_millis(300);
    });
    second.send(&host_key(), &message("slave(1)", ID, 66));
    assert_eq!(second.lost(), (host_key(), Loss::ConnectionLost));
    guest.send(&host_key(), &message("slave(1)", ID, 2));
    assert_eq!(number(&host.frame().1), 2);
    // When the first is gone its token is good again: it may have lost its connection.
    drop(guest);
    assert_eq!(host.lost(), (guest_key(ID), Loss::ConnectionLost));
    let third = world.guest(ID, &token);
    third.send(&host_key(), &message("slave(1)", ID, 3));
    assert_eq!(number(&host.frame().1), 3);
}

#[test]
fn rubbish_ends_that_connection_and_nothing_else() {
    let world = World::new();
    let host = world.host();
    let token = pin(&host, ID);
    let (mut noise, mut oversized) = (vec![0; 4096], BytesMut::new());
    rand::Rng::fill_bytes(&mut StdRng::seed_from_u64(3), &mut noise);
    noise[0] = 0xff;
    oversized.put_u32(u32::MAX);
    for bytes in [noise, oversized.to_vec()] {
        let mut rogue = Rogue::enter(&world.path(), &token);
        rogue.0.write_all(&bytes).unwrap();
        assert!(rogue.is_cut_off());
        assert_eq!(host.lost(), (guest_key(ID), Loss::ConnectionLost));
    }
    // What is no Hello ends in the handshake already, whatever it claims its length to be.
    for bytes in [&[0xff; 64][..], &[0, 0, 0, 2, 0xc1, 0xc1]] {
        let mut rogue = Rogue::connect(&world.path());
        rogue.0.write_all(bytes).unwrap();
        assert!(rogue.is_cut_off());
    }
    let guest = world.guest(ID, &token);
    guest.send(&host_key(), &message("slave(1)", ID, 5));
    assert_eq!(number(&host.frame().1), 5);
}

#[test]
fn a_guest_that_dies_within_a_frame_is_lost_and_the_part_is_not_delivered() {
    let world = World::new();
    let host = world.host();
    let token = pin(&host, ID);
    let mut bytes = BytesMut::new();
    for number in 1..=2 {
        let frame = message("slave(1)", ID, number);
        frame.encode(4096, &mut bytes).unwrap();
    }
    let mut rogue = Rogue::enter(&world.path(), &token);
    rogue.0.write_all(&bytes[..bytes.len() - 1]).unwrap();
    drop(rogue);
    assert_eq!(number(&host.frame().1), 1);
    assert_eq!(host.lost(), (guest_key(ID), Loss::ConnectionLost));
    assert!(host.hears_nothing());
}

#[test]
fn a_sender_that_is_not_the_guest_ends_the_connection() {
    let (_world, host, guest) = pair();
    guest.send(&host_key(), &message("slave(1)", "liar", 1));
    guest.send(&host_key(), &message("slave(1)", ID, 2));
    assert_eq!(host.frame().1.from.id(), "liar");
    assert_eq!(host.lost(), (guest_key(ID), Loss::ConnectionLost));
    assert_eq!(guest.lost(), (host_key(), Loss::ConnectionLost));
    // It may try again.
    guest.send(&host_key(), &message("slave(1)", ID, 3));
    assert_eq!(number(&host.frame().1), 3);
}

#[test]
fn a_killed_end_is_lost_at_once_and_once() {
    let (_world, host, mut guest) = pair();
    guest.kill();
    assert_eq!(host.lost(), (guest_key(ID), Loss::ConnectionLost));
    let gone = host
        .transport()
        .send(&guest_key(ID), &message(ID, "slave(1)", 1));
    assert!(matches!(gone, Err(SendError::Unreachable(_))));
    host.shutdown();
    assert!(host.hears_nothing());

    let (_world, mut host, guest) = pair();
    host.kill();
    assert_eq!(guest.lost(), (host_key(), Loss::ConnectionLost));
    guest.shutdown();
    assert!(guest.hears_nothing());
}

#[test]
fn a_shutdown_sends_what_is_queued_and_removes_the_socket() {
    for by_host in [true, false] {
        let (world, host, guest) = pair();
        let (one, other, to) = if by_host {
            (&host, &guest, guest_key(ID))
        } else {
            (&guest, &host, host_key())
        };
        let count = 20_000;
        for number in 1..=count {
            one.send(&to, &message("to", "from", number));
        }
        one.shutdown();
        for expected in 1..=count {
            assert_eq!(number(&other.frame().1), expected);
        }
        assert!(matches!(other.lost(), (_, Loss::ConnectionLost)));
        assert!(matches!(one.lost(), (_, Loss::ConnectionLost)));
        let late = one.transport().send(&to, &message("to", "from", 0));
        assert!(matches!(late, Err(SendError::Unreachable(_))));
        assert_eq!(world.path().exists(), !by_host);
    }
}

#[test]
fn a_guest_finds_its_host_again_after_a_restart() {
    let world = World::new();
    let mut host = world.host();
    let token = pin(&host, ID);
    let guest = world.guest_with(ID, &token, own_uid(), |_| {});
    guest.send(&host_key(), &message("slave(1)", ID, 1));
    let (first, _) = host.frame();
    host.kill();
    assert_eq!(guest.lost(), (host_key(), Loss::ConnectionLost));
    // Waits, and is tried again and again.
    guest.send(&host_key(), &message("slave(1)", ID, 2));
    let again = world.host();
    pin_as(&again, ID, &token, own_uid());
    let (second, frame) = again.frame();
    assert_eq!((number(&frame), first), (2, second));
}

#[test]
fn an_unpinned_guest_is_cut_off_and_does_not_come_back() {
    let (world, host, guest) = pair();
    assert!(host.transport().has_guest(ID));
    host.transport().unpin(ID);
    assert!(!host.transport().has_guest(ID));
    assert_eq!(host.lost(), (guest_key(ID), Loss::ConnectionLost));
    assert_eq!(guest.lost(), (host_key(), Loss::ConnectionLost));
    guest.send(&host_key(), &message("slave(1)", ID, 1));
    assert_eq!(guest.lost(), (host_key(), Loss::ConnectionLost));
    assert!(host.hears_nothing());
    assert!(host.transport().peers().is_empty(), "it is forgotten");
    // Another token for a guest closes the connection made with the first.
    let first = pin(&host, ID);
    let one = world.guest(ID, &first);
    one.send(&host_key(), &message("slave(1)", ID, 2));
    host.frame();
    let second = pin(&host, ID);
    assert_eq!(host.lost(), (guest_key(ID), Loss::ConnectionLost));
    let two = world.guest(ID, &second);
    two.send(&host_key(), &message("slave(1)", ID, 3));
    assert_eq!(number(&host.frame().1), 3);
}

#[test]
fn a_guest_speaks_with_its_host_only_and_only_to_the_host_s_user() {
    let (world, host, guest) = pair();
    let elsewhere = PeerKey::Node(Address::new("127.0.0.1", 1));
    let refused = guest.transport().send(&elsewhere, &message("to", ID, 1));
    assert!(matches!(refused, Err(SendError::Unreachable(_))));
    let token = pin(&host, "executor-2");
    let wary = world.guest_with("executor-2", &token, own_uid() + 1, |c| {
        c.connect_grace = Duration::from_millis(300);
    });
    wary.send(&host_key(), &message("slave(1)", "executor-2", 1));
    assert_eq!(wary.lost(), (host_key(), Loss::ConnectionLost));
    assert!(host.hears_nothing());
}

#[test]
fn the_queue_for_a_peer_is_bounded_and_notices_are_taken_all_the_same() {
    let world = World::new();
    let host = world.host_with(|c| c.max_queue_bytes = 100_000);
    let token = pin(&host, ID);
    // Comes in and reads no more.
    let mut stuck = Rogue::enter(&world.path(), &token);
    let frame = message_of("slave(1)", ID, Bytes::from(vec![0; 400]));
    let mut bytes = BytesMut::new();
    frame.encode(4096, &mut bytes).unwrap();
    stuck.0.write_all(&bytes).unwrap();
    host.frame();
    let large = message_of(ID, "slave(1)", Bytes::from(vec![0; 50_000]));
    let mut taken = 0_u64;
    let full = loop {
        match host.transport().send(&guest_key(ID), &large) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 1000, "the kernel's buffer ends somewhere");
    };
    assert!(matches!(full, SendError::QueueFull { queued, .. } if queued > 50_000));
    let notice = Frame {
        class: Class::Exited,
        ..large
    };
    host.send(&guest_key(ID), &notice);
    let status = host.status(&guest_key(ID));
    assert_eq!((status.sent, status.dropped), (taken + 1, 1));
    // Another guest is served meanwhile.
    let token = pin(&host, "executor-2");
    let other = world.guest("executor-2", &token);
    other.send(&host_key(), &message("slave(1)", "executor-2", 4));
    assert_eq!(number(&host.frame().1), 4);
}

#[test]
fn a_host_that_is_not_there_is_lost_when_the_grace_ends() {
    let world = World::new();
    let token = GuestToken::generate().unwrap();
    let guest = world.guest_with(ID, &token, own_uid(), |c| {
        c.connect_grace = Duration::from_millis(300);
    });
    guest.send(&host_key(), &message("slave(1)", ID, 1));
    assert_eq!(guest.lost(), (host_key(), Loss::ConnectionLost));
    let status = guest.status(&host_key());
    assert_eq!((status.dropped, status.queued_bytes), (1, 0));
}

#[test]
fn strangers_that_never_finish_cost_only_their_places_and_those_for_a_while() {
    let world = World::new();
    let host = world.host_with(|c| {
        c.max_handshakes = 2;
        c.handshake_timeout = Duration::from_secs(2);
    });
    let token = pin(&host, ID);
    let mut silent: Vec<_> = (0..4).map(|_| Rogue::connect(&world.path())).collect();
    // The places are taken, so the others are closed at once; then those too, when their time is up.
    assert!(silent.iter_mut().all(Rogue::is_cut_off));
    let _in = Rogue::enter(&world.path(), &token);
}

#[test]
fn each_side_is_told_the_kinds_that_the_other_knew_when_they_connected() {
    let world = World::new();
    let (many, few) = (Kinds::default(), Kinds::default());
    many.add(Kind(1), "one", 1).unwrap();
    many.add(Kind(2), "two", 3).unwrap();
    few.add(Kind(1), "one", 1).unwrap();
    let host = world.host_with(|c| c.kinds = many);
    let token = pin(&host, ID);
    let guest = world.guest_with(ID, &token, own_uid(), |c| c.kinds = few);
    guest.send(&host_key(), &message("slave(1)", ID, 1));
    host.frame();
    host.send(&guest_key(ID), &message(ID, "slave(1)", 1));
    guest.frame();
    assert_eq!(guest.status(&host_key()).kinds, 2);
    assert_eq!(host.status(&guest_key(ID)).kinds, 1);
}
