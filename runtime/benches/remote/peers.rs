//! What one more peer costs: memory while it is idle, and processor time while it connects. The other process holds all
//! the peers, each a transport with a socket of its own on one thread.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use meseta_runtime::codec::{Class, Frame};
use meseta_runtime::message::{Correlation, Kind};
use meseta_runtime::transport::quic::{QuicConfig, QuicTransport};
use meseta_runtime::transport::{Incarnation, Loss, Peer, PeerKey, Transport, Upcalls, Violation};
use meseta_runtime::{Address, Pid};

use crate::LIMIT;
use crate::side::{Child, Folder, cpu, identity, resident};

/// Peers before the first look, which takes what is made once.
const FIRST: usize = 100;
/// Peers from the first look to the second.
const COUNT: usize = 1000;

/// Answers each message, and tells of it.
struct Ears {
    told: mpsc::Sender<PeerKey>,
}

impl Upcalls for Ears {
    fn received(&self, peer: &Peer, _: Frame) -> Result<(), Violation> {
        let _nobody_counts = self.told.send(peer.key.clone());
        Ok(())
    }
    fn lost(&self, _: &PeerKey, _: Loss) {}
}

/// A transport of its own on the current thread's runtime.
fn transport(
    folder: &std::path::Path,
    side: &str,
    told: mpsc::Sender<PeerKey>,
) -> (Arc<QuicTransport>, Address) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = Address::new("127.0.0.1", socket.local_addr().unwrap().port());
    let run = Incarnation(u64::from(address.port));
    let config = QuicConfig::new(identity(folder, side), address.clone(), run);
    let ears = Arc::new(Ears { told });
    (QuicTransport::start(config, socket, ears).unwrap(), address)
}

fn hello(from: &Address) -> Frame {
    Frame {
        class: Class::Message {
            kind: Kind(1),
            correlation: Correlation::None,
        },
        to: Arc::from("to"),
        from: Pid::new("from", from.clone()).unwrap(),
        body: Bytes::from_static(b"x"),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// The other side: prints the addresses of its peers; each line `dial <address>` lets the next of them dial there.
pub fn serve(folder: &str, count: &str) {
    let count: usize = count.parse().unwrap();
    let folder = std::path::PathBuf::from(folder);
    let (lines_in, mut lines) = tokio::sync::mpsc::unbounded_channel::<String>();
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let (told, _heard) = mpsc::channel();
            let all: Vec<_> = (0..count)
                .map(|_| transport(&folder, "server", told.clone()))
                .collect();
            let text: Vec<String> = all.iter().map(|(_, address)| address.to_string()).collect();
            println!("{}", text.join(" "));
            let mut dialled = 0;
            while let Some(line) = lines.recv().await {
                let to: Address = line.trim().parse().unwrap();
                let (transport, own) = &all[dialled];
                transport.send(&PeerKey::Node(to), &hello(own)).unwrap();
                dialled += 1;
            }
        });
    });
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line).unwrap() > 0 {
        lines_in.send(std::mem::take(&mut line)).unwrap();
    }
}

/// One transport here, on a thread of its own, and many in another process.
struct Many {
    child: Child,
    peers: Vec<Address>,
    transport: Arc<QuicTransport>,
    own: Address,
    heard: mpsc::Receiver<PeerKey>,
}

impl Many {
    fn new(folder: &std::path::Path, count: usize) -> Self {
        let child = Child::start_in("peers", folder, &[&count.to_string()]);
        let peers = child.line.split(' ').map(|a| a.parse().unwrap()).collect();
        let (told, heard) = mpsc::channel();
        let (started_in, started) = mpsc::channel();
        let path = folder.to_owned();
        std::thread::spawn(move || {
            runtime().block_on(async move {
                started_in.send(transport(&path, "client", told)).unwrap();
                std::future::pending::<()>().await;
            });
        });
        let (transport, own) = started.recv().unwrap();
        Self {
            child,
            peers,
            transport,
            own,
            heard,
        }
    }

    /// Dials the peers of this range, or lets them dial, one after the other.
    fn connect(&self, range: std::ops::Range<usize>, dialling: bool) {
        let mut done = range.start;
        for at in range.clone() {
            if dialling {
                let key = PeerKey::Node(self.peers[at].clone());
                self.transport.send(&key, &hello(&self.own)).unwrap();
            } else {
                self.child.say(&self.own.to_string());
            }
            // A few at once.
            while at - done >= 20 {
                self.wait(dialling, done);
                done += 1;
            }
        }
        for at in done..range.end {
            self.wait(dialling, at);
        }
    }

    fn wait(&self, dialling: bool, at: usize) {
        if !dialling {
            self.heard.recv_timeout(LIMIT).unwrap();
            return;
        }
        let name = self.peers[at].to_string();
        let limit = Instant::now() + LIMIT;
        while !self
            .transport
            .peers()
            .iter()
            .any(|peer| peer.peer == name && peer.connected && peer.sent_bytes > 0)
        {
            assert!(Instant::now() < limit);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Resident memory that each of [`COUNT`] idle peers adds, on the side that dials and on the one that is dialled: each
/// in a process of its own, so that the second does not use what the first has freed.
pub fn memory(folder: &Folder) {
    for side in ["dialler", "acceptor"] {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["weigh", side])
            .arg(folder.path())
            .status()
            .unwrap();
        assert!(status.success());
    }
}

/// One side of [`memory`].
pub fn weigh(side: &str, folder: &str) {
    let dialling = side == "dialler";
    let many = Many::new(folder.as_ref(), FIRST + COUNT);
    many.connect(0..FIRST, dialling);
    std::thread::sleep(Duration::from_secs(3));
    let before = resident("self");
    many.connect(FIRST..FIRST + COUNT, dialling);
    std::thread::sleep(Duration::from_secs(6));
    let each = (resident("self") - before) / COUNT as f64;
    println!("meseta\tmemory per idle peer, {side}\t{each:.1}\tKiB\t{each:.1}\t{each:.1}\t1");
}

/// Processor time of a connection on both sides, from dial to the first message.
pub fn cpu_per_connect(folder: &Folder) {
    let count = 400;
    let many = Many::new(folder.path(), FIRST + count);
    many.connect(0..FIRST, false);
    let pid = many.child.id().to_string();
    let before = (cpu("self"), cpu(&pid));
    many.connect(FIRST..FIRST + count, false);
    let after = (cpu("self"), cpu(&pid));
    for (name, spent) in [
        ("acceptor", after.0 - before.0),
        ("dialler", after.1 - before.1),
    ] {
        let each = spent * 1e6 / count as f64;
        println!("meseta\tcpu per connect, {name}\t{each:.0}\tus\t{each:.0}\t{each:.0}\t1");
    }
}
