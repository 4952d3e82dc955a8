//! The transport over real sockets on loopback: each node is a thread with its own runtime, as in production.
//! Tests wait for what they expect to hear, with one long limit; none sleeps.

use std::sync::mpsc;
use std::thread::JoinHandle;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::sync::oneshot;

use super::hello::{Hello, PROTOCOL};
use super::*;
use crate::codec::Class;
use crate::identity::{CertificateAuthority, GuestKey};
use crate::message::{Correlation, Kind};
use crate::pid::Pid;
use crate::ports::FreePorts;
use crate::transport::{Loss, Peer, Violation};

mod endings;
mod opening;

const LIMIT: Duration = Duration::from_secs(30);

/// What a node was told.
#[derive(Debug, PartialEq)]
enum Event {
    Frame(Peer, Frame),
    Lost(PeerKey, Loss),
    Overloaded(PeerKey, String),
}

struct Ears {
    told: Mutex<mpsc::Sender<Event>>,
    /// What it says of links.
    linked: Arc<AtomicBool>,
}

impl Upcalls for Ears {
    fn is_linked(&self, _: &PeerKey) -> bool {
        self.linked.load(Ordering::SeqCst)
    }

    fn overloaded(&self, peer: &Peer, id: &str) {
        let event = Event::Overloaded(peer.key.clone(), id.to_owned());
        let _heard = self.told.lock().send(event);
    }

    fn received(&self, peer: &Peer, frame: Frame) -> Result<(), Violation> {
        let claimed = frame.from.to_string();
        let event = Event::Frame(peer.clone(), frame);
        // A test that has heard enough no longer listens.
        let _heard = self.told.lock().send(event);
        if claimed.starts_with("liar@") {
            return Err(Violation {
                peer: peer.key.clone(),
                claimed,
            });
        }
        Ok(())
    }

    fn lost(&self, peer: &PeerKey, loss: Loss) {
        let _heard = self.told.lock().send(Event::Lost(peer.clone(), loss));
    }
}

/// A node: a transport on a thread of its own.
struct TestNode {
    /// `None` once killed: it holds the socket.
    transport: Option<Arc<QuicTransport>>,
    address: Address,
    events: mpsc::Receiver<Event>,
    /// Whether it says that links stand.
    linked: Arc<AtomicBool>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _port: Option<FreePorts>,
}

impl TestNode {
    fn start(identity: Identity) -> Self {
        Self::with(identity, 0, |_| {})
    }

    fn with(identity: Identity, port: u16, change: impl FnOnce(&mut QuicConfig)) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(1);
        // Nobody else has the port, nor that of TCP with its number, even while the node is down.
        let held = (port == 0).then(|| FreePorts::find(1).unwrap());
        let port = held.as_ref().map_or(port, |held| held.all()[0]);
        let socket = UdpSocket::bind(("127.0.0.1", port)).unwrap();
        let address = Address::new("127.0.0.1", socket.local_addr().unwrap().port());
        let run = Incarnation(RUNS.fetch_add(1, Ordering::Relaxed));
        let mut config = QuicConfig::new(identity, address, run);
        config.idle_timeout = Duration::from_secs(2);
        config.keep_alive = Duration::from_millis(400);
        config.guest_idle_timeout = config.idle_timeout;
        config.guest_keep_alive = config.keep_alive;
        change(&mut config);
        let address = config.address.clone();
        let (events_in, events) = mpsc::channel();
        let (started_in, started) = mpsc::channel();
        let (end, ended) = oneshot::channel::<()>();
        let linked = Arc::new(AtomicBool::new(true));
        let ears = Arc::new(Ears {
            told: Mutex::new(events_in),
            linked: Arc::clone(&linked),
        });
        let thread = std::thread::spawn(move || {
            let runtime = runtime();
            runtime.block_on(async {
                let transport = QuicTransport::start(config, socket, ears).unwrap();
                started_in.send(transport).unwrap();
                let _dropped = ended.await;
            });
        });
        Self {
            transport: Some(started.recv_timeout(LIMIT).unwrap()),
            address,
            events,
            linked,
            end: Some(end),
            thread: Some(thread),
            _port: held,
        }
    }

    fn transport(&self) -> &QuicTransport {
        self.transport.as_ref().expect("it was not killed")
    }

    fn key(&self) -> PeerKey {
        PeerKey::Node(self.address.clone())
    }

    fn metrics(&self) -> &Metrics {
        &self.transport().shared.config.metrics
    }

    fn event(&self) -> Event {
        self.events.recv_timeout(LIMIT).expect("an event")
    }

    fn lost(&self) -> (PeerKey, Loss) {
        match self.event() {
            Event::Lost(key, loss) => (key, loss),
            other @ (Event::Frame(..) | Event::Overloaded(..)) => {
                panic!("{other:?} where a loss was expected")
            }
        }
    }

    fn frame(&self) -> (Peer, Frame) {
        match self.event() {
            Event::Frame(peer, frame) => (peer, frame),
            other @ (Event::Lost(..) | Event::Overloaded(..)) => {
                panic!("{other:?} where a frame was expected")
            }
        }
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

    /// Ends the thread and its sockets without a word to anybody, as a killed process does.
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

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn authority() -> CertificateAuthority {
    CertificateAuthority::create("test").unwrap()
}

fn node(authority: &CertificateAuthority) -> Identity {
    Identity::issue(authority, &["127.0.0.1".to_owned()], &["agent"]).unwrap()
}

fn message(to: &str, from: &str, address: &Address, number: u64) -> Frame {
    message_of(
        to,
        from,
        address,
        Bytes::copy_from_slice(&number.to_be_bytes()),
    )
}

fn message_of(to: &str, from: &str, address: &Address, body: Bytes) -> Frame {
    Frame {
        class: Class::Message {
            kind: Kind(7),
            correlation: Correlation::None,
        },
        to: Arc::from(to),
        from: Pid::new(from, address.clone()).unwrap(),
        body,
    }
}

fn number(frame: &Frame) -> u64 {
    u64::from_be_bytes(frame.body[..8].try_into().unwrap())
}

/// Reads `count` frames and checks that each pair of PIDs kept its order, from 0 on.
fn expect_in_order(node: &TestNode, peer: &PeerKey, count: u64) {
    let mut next: HashMap<(String, String), u64> = HashMap::new();
    for _ in 0..count {
        let (from, frame) = node.frame();
        assert_eq!(from.key, *peer);
        let expected = next
            .entry((frame.from.to_string(), frame.to.to_string()))
            .or_default();
        assert_eq!(number(&frame), *expected, "out of order");
        *expected += 1;
    }
}

#[test]
fn frames_arrive_in_order_per_pair_both_ways_over_one_connection() {
    let ca = authority();
    let (a, b) = (TestNode::start(node(&ca)), TestNode::start(node(&ca)));
    let (pairs, each) = (16, 500);
    a.send(&b.key(), &message("warm", "up", &a.address, 0));
    let (peer, _) = b.frame();
    assert_eq!(peer.roles, [Arc::from("agent")]);
    for number in 0..each {
        for pair in 0..pairs {
            let (to, from) = (format!("to{pair}"), format!("from{pair}"));
            a.send(&b.key(), &message(&to, &from, &a.address, number));
            b.send(&a.key(), &message(&to, &from, &b.address, number));
        }
    }
    expect_in_order(&b, &a.key(), pairs * each);
    expect_in_order(&a, &b.key(), pairs * each);
    assert_eq!(a.transport().shared.endpoint.open_connections(), 1);
    assert_eq!(b.transport().shared.endpoint.open_connections(), 1);
    let status = a.status(&b.key());
    assert_eq!(
        (status.sent, status.received),
        (pairs * each + 1, pairs * each)
    );
    assert_eq!((status.dropped, status.connected), (0, true));
}

#[test]
fn both_dial_at_once_and_nothing_is_lost() {
    let ca = authority();
    for _ in 0..20 {
        let (a, b) = (TestNode::start(node(&ca)), TestNode::start(node(&ca)));
        let barrier = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for (own, other) in [(a.transport(), &b), (b.transport(), &a)] {
                let (barrier, key) = (&barrier, other.key());
                let own_address = own.shared.config.address.clone();
                scope.spawn(move || {
                    barrier.wait();
                    for number in 0..50 {
                        let frame = message("to", "from", &own_address, number);
                        own.send(&key, &frame).unwrap();
                    }
                });
            }
        });
        expect_in_order(&b, &a.key(), 50);
        expect_in_order(&a, &b.key(), 50);
    }
}

#[test]
fn a_large_message_passes_and_one_over_the_limit_is_refused() {
    let ca = authority();
    let (a, b) = (TestNode::start(node(&ca)), TestNode::start(node(&ca)));
    let body = Bytes::from(vec![7; 20 << 20]);
    a.send(
        &b.key(),
        &message_of("to", "from", &a.address, body.clone()),
    );
    assert_eq!(b.frame().1.body, body);
    let over = message_of("to", "from", &a.address, Bytes::from(vec![0; 65 << 20]));
    let refused = a.transport().send(&b.key(), &over);
    assert!(matches!(refused, Err(SendError::Codec { .. })));
    a.send(&b.key(), &message("to", "from", &a.address, 3));
    assert_eq!(number(&b.frame().1), 3);
}

#[test]
fn a_stranger_is_refused_both_ways() {
    let quick = |c: &mut QuicConfig| c.connect_grace = Duration::from_millis(500);
    let a = TestNode::with(node(&authority()), 0, quick);
    let b = TestNode::with(node(&authority()), 0, quick);
    for (from, to) in [(&a, &b), (&b, &a)] {
        from.send(&to.key(), &message("to", "from", &from.address, 1));
        assert_eq!(from.lost(), (to.key(), Loss::ConnectionLost));
        assert_eq!(from.status(&to.key()).dropped, 1);
    }
    assert!(a.events.try_recv().is_err() && b.events.try_recv().is_err());
}

#[test]
fn a_certificate_for_another_host_is_refused_both_ways() {
    let ca = authority();
    let quick = |c: &mut QuicConfig| c.connect_grace = Duration::from_millis(500);
    let elsewhere = Identity::issue(&ca, &["10.1.1.1".to_owned()], &["agent"]).unwrap();
    let a = TestNode::with(node(&ca), 0, quick);
    let b = TestNode::with(elsewhere, 0, quick);
    for (from, to) in [(&a, &b), (&b, &a)] {
        from.send(&to.key(), &message("to", "from", &from.address, 1));
        assert_eq!(from.lost(), (to.key(), Loss::ConnectionLost));
    }
    assert!(a.events.try_recv().is_err() && b.events.try_recv().is_err());
}

#[test]
fn nodes_of_different_clusters_do_not_talk() {
    let ca = authority();
    let of = |name: &str| {
        let name = name.to_owned();
        TestNode::with(node(&ca), 0, |c| {
            c.connect_grace = Duration::from_millis(500);
            c.cluster_id = Some(name);
        })
    };
    let (a, b) = (of("one"), of("two"));
    a.send(&b.key(), &message("to", "from", &a.address, 1));
    assert_eq!(a.lost(), (b.key(), Loss::ConnectionLost));
    assert!(b.events.try_recv().is_err());
}

/// A peer that is not ours: plain quinn with any certificate, which says and writes what it likes.
struct Rogue {
    handle: Handle,
    /// Ends the thread that drives the runtime.
    _end: oneshot::Sender<()>,
    endpoint: quinn::Endpoint,
    config: QuicConfig,
}

impl Rogue {
    fn new(identity: Identity) -> Self {
        let runtime = runtime();
        let handle = runtime.handle().clone();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = Address::new("127.0.0.1", socket.local_addr().unwrap().port());
        let mut config = QuicConfig::new(identity, address, Incarnation(99));
        config.mode = Mode::DialOnly;
        let endpoint = runtime.block_on(async {
            let runtime = Arc::new(quinn::TokioRuntime);
            quinn::Endpoint::new(quinn::EndpointConfig::default(), None, socket, runtime).unwrap()
        });
        let (end, ended) = oneshot::channel::<()>();
        std::thread::spawn(move || runtime.block_on(ended).unwrap_err());
        Self {
            handle,
            _end: end,
            endpoint,
            config,
        }
    }

    fn client(&self) -> quinn::ClientConfig {
        tls::settings(&self.config, Arc::default()).unwrap().client
    }

    /// Connects, says `hello` and waits for the answer.
    fn connect(
        &self,
        to: &Address,
        client: quinn::ClientConfig,
        hello: &Hello,
    ) -> Result<(quinn::Connection, quinn::SendStream), HandshakeError> {
        self.limited(async {
            let remote = SocketAddr::from(([127, 0, 0, 1], to.port));
            let connection = self
                .endpoint
                .connect_with(client, remote, "127.0.0.1")?
                .await?;
            let mut control = connection.open_uni().await?;
            hello.write(&mut control).await?;
            let mut answer = connection.accept_uni().await?;
            Hello::read(&mut answer).await?;
            Ok((connection, control))
        })
    }

    fn hello(&self) -> Hello {
        Hello::own(&self.config, 1, None)
    }

    fn limited<T>(&self, future: impl Future<Output = T>) -> T {
        self.handle
            .block_on(async { tokio::time::timeout(LIMIT, future).await.unwrap() })
    }

    /// Waits for the end of the connection and says the code the peer gave.
    fn end(&self, connection: &quinn::Connection) -> quinn::VarInt {
        let end = HandshakeError::Connection(self.limited(connection.closed()));
        code_of(&end).unwrap_or_else(|| panic!("closed without a code: {end}"))
    }
}

fn code_of(error: &HandshakeError) -> Option<quinn::VarInt> {
    match error.ended() {
        Some(quinn::ConnectionError::ApplicationClosed(close)) => Some(close.error_code),
        Some(_) | None => None,
    }
}

#[test]
fn a_dialler_without_a_certificate_is_refused() {
    let ca = authority();
    let a = TestNode::start(node(&ca));
    let rogue = Rogue::new(node(&ca));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.certificate().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"meseta/1".to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let client = quinn::ClientConfig::new(Arc::new(crypto));
    let refused = rogue
        .connect(&a.address, client, &rogue.hello())
        .unwrap_err();
    // The refusal may come while the handshake is awaited, the Hello is written or the answer is read.
    assert!(
        matches!(
            refused.ended(),
            Some(quinn::ConnectionError::ConnectionClosed(_))
        ),
        "{refused:?}"
    );
}

#[test]
fn a_hello_that_does_not_fit_is_cut_off() {
    let ca = authority();
    let a = TestNode::start(node(&ca));
    let rogue = Rogue::new(node(&ca));
    let own = &rogue.config.address;
    let claims = [
        Hello {
            address: Address::new("127.0.0.1", own.port.wrapping_add(1)),
            ..rogue.hello()
        },
        Hello {
            address: Address::new("10.9.9.9", own.port),
            ..rogue.hello()
        },
        Hello {
            address: a.address.clone(),
            ..rogue.hello()
        },
        Hello {
            protocol_min: PROTOCOL + 1,
            protocol_max: PROTOCOL + 2,
            ..rogue.hello()
        },
    ];
    for claim in claims {
        let refused = rogue
            .connect(&a.address, rogue.client(), &claim)
            .unwrap_err();
        assert_eq!(code_of(&refused), Some(Close::Refused.code()), "{claim:?}");
    }
    // One that fits is taken.
    rogue
        .connect(&a.address, rogue.client(), &rogue.hello())
        .unwrap();
    assert!(a.events.try_recv().is_err());
}

#[test]
fn rubbish_on_a_lane_ends_that_connection_and_nothing_else() {
    let ca = authority();
    let a = TestNode::start(node(&ca));
    let mut whole = BytesMut::new();
    let own = Address::new("127.0.0.1", 1);
    message("to", "from", &own, 1)
        .encode(4096, &mut whole)
        .unwrap();
    let mut random = StdRng::seed_from_u64(3);
    let mut noise = vec![0; 4096];
    rand::Rng::fill_bytes(&mut random, &mut noise);
    noise[0] = 0xff;
    let mut oversized = BytesMut::new();
    oversized.put_u32(u32::MAX);
    let rubbish = [
        (whole[..whole.len() - 1].to_vec(), true),
        (oversized.to_vec(), false),
        (noise, false),
    ];
    for (bytes, finish) in rubbish {
        let rogue = Rogue::new(node(&ca));
        let (connection, _control) = rogue
            .connect(&a.address, rogue.client(), &rogue.hello())
            .unwrap();
        rogue.limited(async {
            let mut lane = connection.open_uni().await.unwrap();
            lane.write_all(&[0]).await.unwrap();
            lane.write_all(&bytes).await.unwrap();
            if finish {
                lane.finish().unwrap();
            }
            connection.closed().await;
        });
        assert_eq!(rogue.end(&connection), Close::BadFrame.code());
        let key = PeerKey::Node(rogue.config.address.clone());
        assert_eq!(a.lost(), (key, Loss::ConnectionLost));
    }
    let b = TestNode::start(node(&ca));
    b.send(&a.key(), &message("to", "from", &b.address, 5));
    assert_eq!(number(&a.frame().1), 5);
}

#[test]
fn more_lanes_than_there_are_end_the_connection() {
    let ca = authority();
    let a = TestNode::start(node(&ca));
    let rogue = Rogue::new(node(&ca));
    let (connection, _control) = rogue
        .connect(&a.address, rogue.client(), &rogue.hello())
        .unwrap();
    let mut opened = Vec::new();
    rogue.limited(async {
        for number in 0..=lanes::LANES {
            let mut lane = connection.open_uni().await.unwrap();
            let number = u8::try_from(number).unwrap();
            lane.write_all(&[number]).await.unwrap();
            opened.push(lane);
        }
        connection.closed().await;
    });
    assert_eq!(rogue.end(&connection), Close::Protocol.code());
}

#[test]
fn a_newer_connection_replaces_the_older_whose_unread_frames_are_discarded() {
    let ca = authority();
    let a = TestNode::start(node(&ca));
    let rogue = Rogue::new(node(&ca));
    let own = rogue.config.address.clone();
    let send = |connection: &quinn::Connection, lane: u8, number: u64, cut: usize| {
        let mut bytes = BytesMut::from(&[lane][..]);
        message("to", "from", &own, number)
            .encode(4096, &mut bytes)
            .unwrap();
        rogue.limited(async {
            let mut lane = connection.open_uni().await.unwrap();
            lane.write_all(&bytes[..bytes.len() - cut]).await.unwrap();
            lane
        })
    };
    let (older, _control) = rogue
        .connect(&a.address, rogue.client(), &rogue.hello())
        .unwrap();
    let _lane = send(&older, 0, 1, 0);
    assert_eq!(number(&a.frame().1), 1);
    let _rest_never_comes = send(&older, 1, 2, 1);
    let again = Hello {
        dial: 2,
        ..rogue.hello()
    };
    let (newer, _control) = rogue.connect(&a.address, rogue.client(), &again).unwrap();
    let _lane = send(&newer, 0, 3, 0);
    let key = PeerKey::Node(own.clone());
    assert_eq!(a.lost(), (key, Loss::ConnectionLost));
    assert_eq!(number(&a.frame().1), 3);
    assert_eq!(rogue.end(&older), Close::Superseded.code());
    // A dial that is older than the connection that stands changes nothing.
    let late = rogue
        .connect(&a.address, rogue.client(), &rogue.hello())
        .unwrap_err();
    assert!(late.is_duplicate());
    let _lane = send(&newer, 1, 4, 0);
    assert_eq!(number(&a.frame().1), 4);
}

#[test]
fn a_sender_that_is_not_the_peer_ends_the_connection() {
    let ca = authority();
    let (a, b) = (TestNode::start(node(&ca)), TestNode::start(node(&ca)));
    b.send(&a.key(), &message("to", "liar", &b.address, 1));
    assert_eq!(a.frame().1.from.id(), "liar");
    assert_eq!(a.lost(), (b.key(), Loss::ConnectionLost));
    assert_eq!(b.lost(), (a.key(), Loss::ConnectionLost));
    // Both live on and may try again.
    b.send(&a.key(), &message("to", "from", &b.address, 2));
    assert_eq!(number(&a.frame().1), 2);
}

#[test]
fn a_killed_peer_is_lost_once() {
    let ca = authority();
    let (a, mut b) = (TestNode::start(node(&ca)), TestNode::start(node(&ca)));
    a.send(&b.key(), &message("to", "from", &a.address, 1));
    b.frame();
    b.kill();
    assert_eq!(a.lost(), (b.key(), Loss::ConnectionLost));
    a.shutdown();
    assert!(a.events.try_recv().is_err());
}

#[test]
fn a_shutdown_sends_what_is_queued_and_is_noticed_at_once() {
    let ca = authority();
    let long = |c: &mut QuicConfig| c.idle_timeout = Duration::from_secs(3600);
    let a = TestNode::with(node(&ca), 0, long);
    let b = TestNode::with(node(&ca), 0, long);
    let count = 2000;
    a.send(&b.key(), &message("to", "from", &a.address, 0));
    expect_in_order(&b, &a.key(), 1);
    for number in 0..count {
        a.send(&b.key(), &message("to", "from", &a.address, number));
    }
    a.shutdown();
    expect_in_order(&b, &a.key(), count);
    assert_eq!(b.lost(), (a.key(), Loss::ConnectionLost));
    assert_eq!(a.lost(), (b.key(), Loss::ConnectionLost));
    let late = a
        .transport()
        .send(&b.key(), &message("to", "from", &a.address, 0));
    assert!(matches!(late, Err(SendError::Unreachable(_))));
}

#[test]
fn a_restarted_node_is_told_once_and_before_its_first_frame() {
    let ca = authority();
    let long = |c: &mut QuicConfig| c.idle_timeout = Duration::from_secs(3600);
    let a = TestNode::with(node(&ca), 0, long);
    let mut b = TestNode::with(node(&ca), 0, long);
    b.send(&a.key(), &message("to", "from", &b.address, 1));
    let (first, _) = a.frame();
    b.kill();
    let again = TestNode::with(node(&ca), b.address.port, long);
    again.send(&a.key(), &message("to", "from", &again.address, 2));
    assert_eq!(a.lost(), (again.key(), Loss::NodeRestarted));
    let (second, frame) = a.frame();
    assert_eq!(number(&frame), 2);
    assert_ne!(first.incarnation, second.incarnation);
    a.send(&again.key(), &message("to", "from", &a.address, 3));
    assert_eq!(number(&again.frame().1), 3);
    assert!(a.events.try_recv().is_err());
}

#[test]
fn a_node_that_only_dials_is_answered_but_never_dialled() {
    let ca = authority();
    let a = TestNode::start(node(&ca));
    let driver = TestNode::with(node(&ca), 0, |c| c.mode = Mode::DialOnly);
    driver.send(&a.key(), &message("to", "from", &driver.address, 1));
    a.frame();
    a.send(&driver.key(), &message("to", "from", &a.address, 2));
    assert_eq!(number(&driver.frame().1), 2);
    driver.shutdown();
    assert_eq!(a.lost(), (driver.key(), Loss::ConnectionLost));
    let refused = a
        .transport()
        .send(&driver.key(), &message("to", "from", &a.address, 3));
    assert!(matches!(refused, Err(SendError::Unreachable(_))));
    assert_eq!(a.status(&driver.key()).dropped, 1);
}

/// A guest of `host` with this key.
fn guest_of(host: &TestNode, ca: &CertificateAuthority, key: &GuestKey) -> TestNode {
    guest_with(host, ca, key, |c| c.connect_grace = Duration::from_secs(3))
}

fn guest_with(
    host: &TestNode,
    ca: &CertificateAuthority,
    key: &GuestKey,
    change: impl FnOnce(&mut QuicConfig),
) -> TestNode {
    let identity = key.identity(vec![ca.certificate().to_vec()]).unwrap();
    let address = host.address.clone();
    TestNode::with(identity, 0, |c| {
        c.mode = Mode::Guest {
            host: address.clone(),
        };
        c.address = address;
        change(c);
    })
}

fn pin(host: &TestNode, key: &GuestKey) -> PeerKey {
    host.transport().pin(Guest {
        id: Arc::from("executor-1"),
        role: Arc::from("executor"),
        proof: Proof::Certificate(key.fingerprint),
    });
    PeerKey::Guest(Arc::from("executor-1"))
}

#[test]
fn a_pinned_guest_speaks_with_its_host_only_and_is_refused_when_unpinned() {
    let ca = authority();
    let (host, other) = (TestNode::start(node(&ca)), TestNode::start(node(&ca)));
    let key = GuestKey::generate().unwrap();
    let name = pin(&host, &key);
    assert!(host.transport().has_guest("executor-1"));
    let guest = guest_of(&host, &ca, &key);
    guest.send(&host.key(), &message("to", "executor-1", &host.address, 1));
    let (peer, _) = host.frame();
    assert_eq!(peer.key, name);
    assert_eq!(peer.roles, [Arc::from("executor")]);
    host.send(&name, &message("executor-1", "slave(1)", &host.address, 2));
    let (peer, frame) = guest.frame();
    assert_eq!((peer.key, number(&frame)), (host.key(), 2));
    let elsewhere = guest
        .transport()
        .send(&other.key(), &message("to", "executor-1", &host.address, 3));
    assert!(matches!(elsewhere, Err(SendError::Unreachable(_))));

    host.transport().unpin("executor-1");
    assert_eq!(host.lost(), (name.clone(), Loss::ConnectionLost));
    assert_eq!(guest.lost(), (host.key(), Loss::ConnectionLost));
    let gone = host
        .transport()
        .send(&name, &message("executor-1", "slave(1)", &host.address, 4));
    assert!(matches!(gone, Err(SendError::Unreachable(_))));
    // Neither with a fresh handshake nor by resuming its session.
    guest.send(&host.key(), &message("to", "executor-1", &host.address, 5));
    assert_eq!(guest.lost(), (host.key(), Loss::ConnectionLost));
    assert!(host.events.try_recv().is_err());
    // Pinned again, it may come back.
    drop(guest);
    pin(&host, &key);
    let guest = guest_of(&host, &ca, &key);
    guest.send(&host.key(), &message("to", "executor-1", &host.address, 6));
    assert_eq!(number(&host.frame().1), 6);
}

#[test]
fn a_guest_that_was_never_pinned_or_claims_another_address_is_refused() {
    let ca = authority();
    let host = TestNode::start(node(&ca));
    let stranger = guest_of(&host, &ca, &GuestKey::generate().unwrap());
    stranger.send(&host.key(), &message("to", "executor-1", &host.address, 1));
    assert_eq!(stranger.lost(), (host.key(), Loss::ConnectionLost));

    let key = GuestKey::generate().unwrap();
    pin(&host, &key);
    let rogue = Rogue::new(key.identity(vec![ca.certificate().to_vec()]).unwrap());
    let refused = rogue
        .connect(&host.address, rogue.client(), &rogue.hello())
        .unwrap_err();
    assert_eq!(code_of(&refused), Some(Close::Refused.code()));
    assert!(host.events.try_recv().is_err());
}

#[test]
fn another_key_for_a_guest_replaces_the_first() {
    let ca = authority();
    let host = TestNode::start(node(&ca));
    let (first, second) = (GuestKey::generate().unwrap(), GuestKey::generate().unwrap());
    let name = pin(&host, &first);
    let one = guest_of(&host, &ca, &first);
    one.send(&host.key(), &message("to", "executor-1", &host.address, 1));
    host.frame();
    pin(&host, &second);
    assert_eq!(host.lost(), (name, Loss::ConnectionLost));
    let two = guest_of(&host, &ca, &second);
    two.send(&host.key(), &message("to", "executor-1", &host.address, 2));
    assert_eq!(number(&host.frame().1), 2);
}

#[test]
fn the_queue_for_a_peer_is_bounded() {
    let ca = authority();
    let a = TestNode::with(node(&ca), 0, |c| c.max_queue_bytes = 1000);
    // Nobody listens there.
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
    let key = PeerKey::Node(Address::new(
        "127.0.0.1",
        nobody.local_addr().unwrap().port(),
    ));
    let frame = message_of("to", "from", &a.address, Bytes::from(vec![0; 400]));
    a.send(&key, &frame);
    a.send(&key, &frame);
    let full = a.transport().send(&key, &frame);
    assert!(matches!(full, Err(SendError::QueueFull { queued, .. }) if queued > 800));
    let status = a.status(&key);
    assert_eq!((status.sent, status.dropped), (2, 1));
    assert!(!status.connected && status.queued_bytes > 800);
    for class in [Class::Link, Class::Unlink, Class::Exited] {
        let notice = Frame {
            class,
            body: Bytes::from_static(b"why"),
            ..frame.clone()
        };
        a.send(&key, &notice);
    }
    assert_eq!(a.status(&key).sent, 5, "links are kept exactly");
}

#[test]
fn a_peer_that_does_not_answer_is_lost_when_the_grace_ends() {
    let ca = authority();
    let a = TestNode::with(node(&ca), 0, |c| {
        c.connect_grace = Duration::from_millis(300);
    });
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
    let key = PeerKey::Node(Address::new(
        "127.0.0.1",
        nobody.local_addr().unwrap().port(),
    ));
    a.send(&key, &message("to", "from", &a.address, 1));
    assert_eq!(a.lost(), (key.clone(), Loss::ConnectionLost));
    assert_eq!(a.status(&key).dropped, 1);
    assert_eq!(a.status(&key).queued_bytes, 0);
}

#[test]
fn frames_wait_for_a_peer_that_starts_within_the_grace() {
    let ca = authority();
    let a = TestNode::with(node(&ca), 0, |c| {
        c.handshake_timeout = Duration::from_secs(1);
    });
    let ports = FreePorts::find(1).unwrap();
    let port = ports.all()[0];
    let reserved = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    let key = PeerKey::Node(Address::new("127.0.0.1", port));
    a.send(&key, &message("to", "from", &a.address, 0));
    // The first packet of the dial has come, and nobody answers it.
    reserved.set_read_timeout(Some(LIMIT)).unwrap();
    reserved.recv(&mut [0; 2048]).unwrap();
    drop(reserved);
    let b = TestNode::with(node(&ca), port, |_| {});
    a.send(&key, &message("to", "from", &a.address, 1));
    expect_in_order(&b, &a.key(), 2);
}

#[test]
fn strangers_that_never_finish_cost_only_their_places() {
    let ca = authority();
    let a = TestNode::with(node(&ca), 0, |c| {
        c.max_handshakes = 2;
        c.handshake_timeout = Duration::from_secs(2);
    });
    // Connects, proves who it is, and never says Hello.
    let rogue = Rogue::new(node(&ca));
    let silent: Vec<_> = (0..4)
        .filter_map(|_| {
            let remote = SocketAddr::from(([127, 0, 0, 1], a.address.port));
            let client = rogue.client();
            rogue
                .limited(async {
                    rogue
                        .endpoint
                        .connect_with(client, remote, "127.0.0.1")
                        .unwrap()
                        .await
                })
                .ok()
        })
        .collect();
    assert!((1..4).contains(&silent.len()), "{} got in", silent.len());
    let b = TestNode::start(node(&ca));
    b.send(&a.key(), &message("to", "from", &b.address, 7));
    assert_eq!(number(&a.frame().1), 7);
}

#[test]
fn each_side_is_told_the_kinds_that_the_other_knew_when_they_connected() {
    let ca = authority();
    let (early, late) = (Kinds::default(), Kinds::default());
    early.add(Kind(1), "one", 1).unwrap();
    early.add(Kind(2), "two", 3).unwrap();
    late.add(Kind(1), "one", 1).unwrap();
    let a = TestNode::with(node(&ca), 0, |c| c.kinds = early.clone());
    let b = TestNode::with(node(&ca), 0, |c| c.kinds = late.clone());
    late.add(Kind(9), "nine", 1).unwrap();
    late.add(Kind(10), "ten", 1).unwrap();
    a.send(&b.key(), &message("to", "from", &a.address, 1));
    b.frame();
    assert_eq!(b.status(&a.key()).kinds, 2);
    b.send(&a.key(), &message("from", "to", &b.address, 1));
    a.frame();
    assert_eq!(a.status(&b.key()).kinds, 3);
}
