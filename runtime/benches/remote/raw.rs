//! The same without actors: length-prefixed MessagePack on one quinn stream with the settings that the transport has, or
//! on one TCP connection.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::side::{Child, Folder, identity, until_parent_ends};

/// Bytes of one write, and of one read.
const BATCH: usize = 64 << 10;

#[derive(Serialize, Deserialize)]
struct Data {
    seq: u64,
    kind: u32,
    from: u64,
    to: u64,
    #[serde(with = "serde_bytes")]
    body: Vec<u8>,
}

fn sized(size: usize) -> Data {
    let mut data = Data {
        seq: 70_000,
        kind: 7,
        from: 1 << 40,
        to: (1 << 40) + 1,
        body: Vec::new(),
    };
    let mut length = size;
    loop {
        data.body = vec![0xab; length];
        let encoded = rmp_serde::to_vec(&data).unwrap().len();
        if encoded <= size {
            return data;
        }
        length -= encoded - size;
    }
}

fn encode(out: &mut Vec<u8>, data: &Data) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    rmp_serde::encode::write(out, data).unwrap();
    let length = u32::try_from(out.len() - at - 4).unwrap();
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Cuts a stream into messages.
struct Frames {
    bytes: Vec<u8>,
    at: usize,
}

impl Frames {
    fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(2 * BATCH),
            at: 0,
        }
    }

    fn next(&mut self) -> Option<Data> {
        let rest = &self.bytes[self.at..];
        let length = u32::from_le_bytes(*rest.first_chunk::<4>()?) as usize;
        let body = rest.get(4..4 + length)?;
        self.at += 4 + length;
        Some(rmp_serde::from_slice(body).unwrap())
    }

    async fn fill(&mut self, from: &mut (impl AsyncRead + Unpin)) -> bool {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.reserve(BATCH);
        from.read_buf(&mut self.bytes).await.unwrap() > 0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    Quinn,
    Tcp,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    OneWay = 0,
    Echo = 1,
}

/// The receiving side of one stream.
async fn answer(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut head = [0; 9];
    if from.read_exact(&mut head).await.is_err() {
        return;
    }
    let count = u64::from_le_bytes(head[1..].try_into().unwrap());
    let echo = head[0] == Mode::Echo as u8;
    let (mut frames, mut out, mut came) = (Frames::new(), Vec::new(), 0);
    while came < count {
        while let Some(data) = frames.next() {
            std::hint::black_box(&data.body);
            came += 1;
            if echo {
                encode(&mut out, &data);
            }
        }
        if !out.is_empty() {
            to.write_all(&out).await.unwrap();
            to.flush().await.unwrap();
            out.clear();
        }
        if came < count && !frames.fill(&mut from).await {
            return;
        }
    }
    to.write_all(&came.to_le_bytes()).await.unwrap();
    to.flush().await.unwrap();
    // Until the other side is done, so that the last bytes get out.
    let _end = from.read_u8().await;
}

/// The sending side of one stream: seconds, and nanoseconds of each round trip when `window` is 1.
async fn drive(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    (mode, size, count, window): (Mode, usize, u64, u64),
) -> (f64, Vec<u64>) {
    let mut head = vec![mode as u8];
    head.extend_from_slice(&count.to_le_bytes());
    to.write_all(&head).await.unwrap();
    let mut data = sized(size);
    let (mut out, mut frames, mut each) =
        (Vec::with_capacity(2 * BATCH), Frames::new(), Vec::new());
    let began = Instant::now();
    let mut last = began;
    let (mut sent, mut came) = (0, 0);
    while sent < count {
        while sent < count && out.len() < BATCH && (mode == Mode::OneWay || sent < came + window) {
            data.seq = sent;
            encode(&mut out, &data);
            sent += 1;
        }
        if !out.is_empty() {
            to.write_all(&out).await.unwrap();
            to.flush().await.unwrap();
            out.clear();
        }
        if mode == Mode::Echo {
            assert!(frames.fill(&mut from).await);
            while came < sent
                && let Some(data) = frames.next()
            {
                assert_eq!(data.seq, came);
                came += 1;
                if window == 1 {
                    let now = Instant::now();
                    each.push(u64::try_from(now.duration_since(last).as_nanos()).unwrap());
                    last = now;
                }
            }
        }
    }
    while mode == Mode::Echo && came < count {
        assert!(frames.fill(&mut from).await);
        while came < count && frames.next().is_some() {
            came += 1;
        }
    }
    while frames.bytes.len() - frames.at < 8 {
        assert!(frames.fill(&mut from).await);
    }
    (began.elapsed().as_secs_f64(), each)
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

/// As in `transport/quic/tls.rs`, for loopback.
fn transport() -> Arc<quinn::TransportConfig> {
    let mut transport = quinn::TransportConfig::default();
    let mut discovery = quinn::MtuDiscoveryConfig::default();
    discovery.upper_bound(6500);
    transport
        // Longer than there, for nobody sends keep-alives while it is the other's turn.
        .max_idle_timeout(Some(crate::LIMIT.try_into().unwrap()))
        .keep_alive_interval(Some(Duration::from_secs(1)))
        .datagram_receive_buffer_size(None)
        .initial_rtt(Duration::from_millis(100))
        .send_fairness(false)
        .mtu_discovery_config(Some(discovery));
    Arc::new(transport)
}

fn roots(identity: &meseta_runtime::identity::Identity) -> Arc<rustls::RootCertStore> {
    let mut roots = rustls::RootCertStore::empty();
    for authority in identity.authorities() {
        roots.add(authority.clone()).unwrap();
    }
    Arc::new(roots)
}

fn server_config(folder: &std::path::Path) -> quinn::ServerConfig {
    let own = identity(folder, "server");
    let check =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots(&own), provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(check.build().unwrap())
        .with_single_cert(own.chain().to_vec(), own.key().clone_key())
        .unwrap();
    tls.alpn_protocols = vec![b"raw".to_vec()];
    let mut config =
        quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    config.transport_config(transport()).migration(false);
    config
}

fn client_config(folder: &std::path::Path) -> quinn::ClientConfig {
    let own = identity(folder, "client");
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots(&own))
        .with_client_auth_cert(own.chain().to_vec(), own.key().clone_key())
        .unwrap();
    tls.alpn_protocols = vec![b"raw".to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(transport());
    config
}

fn endpoint(server: Option<quinn::ServerConfig>) -> quinn::Endpoint {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    socket.set_recv_buffer_size(4 << 20).unwrap();
    socket.set_send_buffer_size(4 << 20).unwrap();
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into()).unwrap();
    let socket: UdpSocket = socket.into();
    let mut config = quinn::EndpointConfig::default();
    config.max_udp_payload_size(6500).unwrap();
    quinn::Endpoint::new(config, server, socket, Arc::new(quinn::TokioRuntime)).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// The other side: prints the ports of both.
pub fn serve(folder: &str) {
    let runtime = runtime();
    let folder = std::path::PathBuf::from(folder);
    std::thread::spawn(move || {
        runtime.block_on(async {
            let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let quinn = endpoint(Some(server_config(&folder)));
            let ports = (
                quinn.local_addr().unwrap().port(),
                tcp.local_addr().unwrap().port(),
            );
            println!("{} {}", ports.0, ports.1);
            tokio::spawn(async move {
                while let Some(incoming) = quinn.accept().await {
                    tokio::spawn(async move {
                        let connection = incoming.accept().unwrap().await.unwrap();
                        while let Ok((to, from)) = connection.accept_bi().await {
                            answer(from, to).await;
                        }
                    });
                }
            });
            loop {
                let (stream, _) = tcp.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                tokio::spawn(async move {
                    let (from, to) = stream.into_split();
                    answer(from, to).await;
                });
            }
        });
    });
    until_parent_ends();
}

/// A client here and a server in another process.
pub struct Pair {
    pub child: Child,
    runtime: tokio::runtime::Runtime,
    folder: std::path::PathBuf,
    quinn: SocketAddr,
    tcp: SocketAddr,
    connection: std::cell::OnceCell<quinn::Connection>,
}

impl Pair {
    pub fn new(folder: &Folder) -> Self {
        let child = Child::start("raw", folder, &[]);
        let (quinn, tcp) = child.line.split_once(' ').unwrap();
        let at = |port: &str| SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
        Self {
            quinn: at(quinn),
            tcp: at(tcp),
            child,
            runtime: runtime(),
            folder: folder.path().to_owned(),
            connection: std::cell::OnceCell::new(),
        }
    }

    fn run(&self, wire: Wire, what: (Mode, usize, u64, u64)) -> (f64, Vec<u64>) {
        self.runtime.block_on(async {
            match wire {
                Wire::Quinn => {
                    if self.connection.get().is_none() {
                        let config = client_config(&self.folder);
                        let connecting =
                            endpoint(None).connect_with(config, self.quinn, "127.0.0.1");
                        let set = self.connection.set(connecting.unwrap().await.unwrap());
                        assert!(set.is_ok());
                    }
                    let (to, from) = self.connection.get().unwrap().open_bi().await.unwrap();
                    drive(from, to, what).await
                }
                Wire::Tcp => {
                    let stream = tokio::net::TcpStream::connect(self.tcp).await.unwrap();
                    stream.set_nodelay(true).unwrap();
                    let (from, to) = stream.into_split();
                    drive(from, to, what).await
                }
            }
        })
    }

    pub fn oneway(&self, wire: Wire, size: usize, count: u64) -> f64 {
        self.run(wire, (Mode::OneWay, size, count, 0)).0
    }

    pub fn ping(&self, wire: Wire, count: u64) -> Vec<u64> {
        self.run(wire, (Mode::Echo, 100, count, 1)).1
    }

    pub fn in_flight(&self, count: u64) -> f64 {
        self.run(Wire::Quinn, (Mode::Echo, 100, count, 1000)).0
    }

    /// Time from the dial of a new endpoint to the answer to its first message.
    pub fn connect(&self) -> Duration {
        let config = client_config(&self.folder);
        self.runtime.block_on(async {
            let endpoint = endpoint(None);
            let began = Instant::now();
            let connecting = endpoint.connect_with(config, self.quinn, "127.0.0.1");
            let connection = connecting.unwrap().await.unwrap();
            let (to, from) = connection.open_bi().await.unwrap();
            drive(from, to, (Mode::Echo, 100, 1, 1)).await;
            let took = began.elapsed();
            connection.close(0_u32.into(), b"");
            endpoint.wait_idle().await;
            took
        })
    }
}

/// Time from the kill of a process to the end of a TCP stream from it.
pub fn killed(folder: &Folder) -> Duration {
    use std::io::Read as _;
    let mut child = Child::start("raw", folder, &[]);
    let (_, port) = child.line.split_once(' ').unwrap();
    let port: u16 = port.parse().unwrap();
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    child.kill();
    let _end = stream.read(&mut [0]);
    began.elapsed()
}
