//! Settings of a node and its start: sockets, thread, transport, HTTP.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::{StdRng, SysRng};
use rand::{Rng, RngExt, TryRng};
use tokio::sync::oneshot;
use tracing::{error, info};

use super::routing::Uplink;
use super::{Node, NodeHandle, OpHandler, Shared, SpawnError, Threads};
use crate::clock::Clock;
use crate::codec::DEFAULT_MAX_MESSAGE;
use crate::context::{DEFAULT_MAX_ASKS, Op};
use crate::descriptors;
use crate::http::server::{self, Server, Settings};
use crate::http::status::show_system;
use crate::http::tls::HttpCertificate;
use crate::http::{HttpLimits, Security};
use crate::identity::{Identity, IdentityError};
use crate::inbox::DEFAULT_MAILBOX;
use crate::links::Links;
use crate::logging::{LOGGING, Logging};
use crate::metrics::Metrics;
use crate::opening::Opening;
use crate::pid::Address;
use crate::testing::Filters;
use crate::transport::memory::MemoryNetwork;
use crate::transport::quic::{Mode, QuicConfig, QuicTransport, TransportError};
use crate::transport::unix::{
    GuestSide, GuestSocket, GuestToken, HostSocket, UnixConfig, UnixError, UnixTransport,
};
use crate::transport::{Incarnation, Kinds, PeerKey, SideBySide, Transport};

/// Size asked for of both UDP socket buffers, in bytes; the kernel may grant less.
const SOCKET_BUFFER: usize = 4 << 20;
/// Parts of a node's tables for each of its threads, with a lock each. A number of our own, since the usual one asks the
/// system for its processors, which an executor would do for two or three entries.
const SHARDS_PER_THREAD: usize = 4;
/// Numbers the nodes of this program, from 1.
static NODES: AtomicU64 = AtomicU64::new(1);
/// Attempts to find one number free for both TCP and UDP.
const PORT_ATTEMPTS: usize = 64;

/// Who a node is to its peers.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// A certificate that the development CA of this user issues at start; loopback addresses only.
    Development,
    /// PEM files: the cluster's CA, the node's certificate chain, its private key.
    Files {
        /// Certificate of the cluster's CA.
        ca: PathBuf,
        /// Certificate chain of this node.
        certificate: PathBuf,
        /// Private key of this node.
        key: PathBuf,
    },
    /// An identity at hand, such as one handed over by a launcher.
    Given(Box<Identity>),
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Development certificates are for loopback only.
    #[error(
        "address {0} is not loopback and no certificate is given: make some with `meseta certs` and pass \
         --ca_file, --cert_file and --key_file (`NodeBuilder::credentials`)"
    )]
    NeedsCertificates(String),
    /// The certificate cannot be used.
    #[error("identity of the node")]
    Identity(#[from] IdentityError),
    /// The certificate is for something else.
    #[error(
        "{certificate} is for role {has}, but this is a {needs}: make one with `meseta certs node --role {needs}` and \
         pass it as --cert_file",
        certificate = certificate.display()
    )]
    WrongRole {
        /// The file.
        certificate: PathBuf,
        /// Roles it names.
        has: String,
        /// Role it lacks.
        needs: String,
    },
    /// A socket cannot be bound.
    #[error(
        "cannot listen on {address}: is another process using the port? choose another with --port (`NodeBuilder::port`)"
    )]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The transport did not start.
    #[error("transport")]
    Transport(#[from] TransportError),
    /// A process that every node has did not start.
    #[error("a process of the node itself")]
    Spawn(#[from] SpawnError),
    /// The Unix socket for guests, or that of the host, cannot be used.
    #[error("transport of guests")]
    Guests(#[from] UnixError),
    /// Only a guest has a host whose socket it may use.
    #[error(
        "a node that is nobody's guest has no host to reach over a Unix socket: name it with guest_of"
    )]
    NoHost,
    /// The system refused a thread or random bytes.
    #[error("system resources")]
    System(#[source] std::io::Error),
}

enum Wire {
    Quic,
    Memory(MemoryNetwork),
    /// To the host of a guest.
    Unix(HostSocket, GuestToken),
}

/// Settings of a node. Every setting has a default that suits a node on loopback.
pub struct NodeBuilder {
    host: String,
    bind: IpAddr,
    port: u16,
    role: String,
    credentials: Credentials,
    clock: Clock,
    seed: Option<u64>,
    mailbox: usize,
    max_asks: usize,
    threads: usize,
    max_message: usize,
    wire: Wire,
    accepts: bool,
    http: bool,
    awaits_delegate: bool,
    opening: Opening,
    http_limits: HttpLimits,
    http_security: Security,
    http_certificate: Option<HttpCertificate>,
    guest_of: Option<Address>,
    guest_id: Option<Arc<str>>,
    guests_at: Option<GuestSocket>,
    operators: HashMap<TypeId, OpHandler>,
}

impl Default for NodeBuilder {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
            role: "node".to_owned(),
            credentials: Credentials::Development,
            clock: Clock::live(),
            seed: None,
            mailbox: DEFAULT_MAILBOX,
            max_asks: DEFAULT_MAX_ASKS,
            threads: 1,
            max_message: DEFAULT_MAX_MESSAGE,
            wire: Wire::Quic,
            accepts: true,
            http: true,
            awaits_delegate: false,
            opening: Opening::default(),
            http_limits: HttpLimits::for_files(descriptors::limit()),
            http_security: Security::default(),
            http_certificate: None,
            guest_of: None,
            guest_id: None,
            guests_at: None,
            operators: HashMap::new(),
        }
    }
}

impl NodeBuilder {
    /// Host part of the node's address, as others reach it. Default `127.0.0.1`.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.host = host.to_owned();
        self
    }

    /// IP address the sockets are bound to. Default `127.0.0.1`.
    #[must_use]
    pub fn bind(mut self, ip: IpAddr) -> Self {
        self.bind = ip;
        self
    }

    /// Port for HTTP on TCP and messages on UDP; 0, the default, takes any that is free for both.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Role in a certificate of the development CA, such as `master`.
    #[must_use]
    pub fn role(mut self, role: &str) -> Self {
        self.role = role.to_owned();
        self
    }

    /// Who the node is to its peers. Default [`Credentials::Development`].
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Clock of the node. Default: live.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Seed of all random draws. Default: from the system.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Bound of each mailbox, in messages. Default 65,536.
    #[must_use]
    pub fn mailbox(mut self, messages: usize) -> Self {
        self.mailbox = messages;
        self
    }

    /// How many asks of one process may wait for their answers. One more fails with
    /// [`AskError::TooMany`](crate::AskError::TooMany) and is not sent. Default 65,536.
    #[must_use]
    pub fn max_asks(mut self, asks: usize) -> Self {
        self.max_asks = asks;
        self
    }

    /// Threads for processes, at least 1. The first has the network and the clock as well, HTTP has its own; see
    /// [`Placement`](crate::Placement) for what runs on the others. Default 1.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Largest message body sent or taken, in bytes. Default 64 MiB.
    #[must_use]
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.max_message = bytes;
        self
    }

    /// Uses an in-memory network instead of QUIC, without sockets and without HTTP.
    #[must_use]
    pub fn memory(mut self, network: &MemoryNetwork) -> Self {
        self.wire = Wire::Memory(network.clone());
        self.http = false;
        self
    }

    /// Whether other nodes may dial this one. A node that only dials, such as a scheduler driver, is reached over
    /// the connections it makes itself. Default true.
    #[must_use]
    pub fn accepts(mut self, accepts: bool) -> Self {
        self.accepts = accepts;
        self
    }

    /// Whether the node serves HTTP. Default true.
    #[must_use]
    pub fn http(mut self, http: bool) -> Self {
        self.http = http;
        self
    }

    /// A delegate will be named with [`Node::delegate`]: until then, requests for what no process serves are answered with
    /// 503 and not with 404, since whoever serves it may be about to start. Default: no.
    #[must_use]
    pub fn awaits_delegate(mut self) -> Self {
        self.awaits_delegate = true;
        self
    }

    /// Connections wait, over HTTP as of other nodes and guests, until a process of the node calls
    /// [`Context::open_node`](crate::Context::open_node): nobody is refused for being earlier than what the node has to read
    /// first. Its own dials do not wait. Default: connections are taken at once.
    #[must_use]
    pub fn opens_when_told(mut self) -> Self {
        self.opening = Opening::new(false);
        self
    }

    /// HTTP connections at a time, besides those by which peers watch each other. For one more, the one that has been
    /// without a request for longest is closed; when each has a request that is not answered yet, the new one is.
    /// Default: half of the files that the program may open, 512 to 10,000; at least 1.
    #[must_use]
    pub fn http_connections(mut self, connections: usize) -> Self {
        self.http_limits.connections = connections;
        self
    }

    /// How long the head of a request may take from its first byte on, and then its body; the connection is closed
    /// otherwise. Default 30 s.
    #[must_use]
    pub fn http_patience(mut self, patience: Duration) -> Self {
        self.http_limits.patience = patience;
        self
    }

    /// All limits of HTTP. Default [`HttpLimits::for_files`] with those that the program may open.
    #[must_use]
    pub fn http_limits(mut self, limits: HttpLimits) -> Self {
        self.http_limits = limits;
        self
    }

    /// Who has to prove over HTTP who they are. Default: nobody has to, and only who is on the machine may change
    /// something.
    #[must_use]
    pub fn http_security(mut self, security: Security) -> Self {
        self.http_security = security;
        self
    }

    /// Certificate of the HTTP port, for clients that come over TLS. Default: that of the node.
    #[must_use]
    pub fn http_certificate(mut self, certificate: HttpCertificate) -> Self {
        self.http_certificate = Some(certificate);
        self
    }

    /// Makes the node a guest of the node at `host`: it shares that address, speaks as the actor `id` it was pinned
    /// for, and reaches everything through that node.
    #[must_use]
    pub fn guest_of(mut self, host: Address, id: &str) -> Self {
        self.guest_of = Some(host);
        self.guest_id = Some(Arc::from(id));
        self.http = false;
        self
    }

    /// As a guest ([`NodeBuilder::guest_of`]), reaches the host over its Unix socket instead of QUIC: no certificate
    /// and no port is needed then.
    #[must_use]
    pub fn over_unix(mut self, host: HostSocket, token: GuestToken) -> Self {
        self.wire = Wire::Unix(host, token);
        self
    }

    /// Also takes guests that show a token, on a Unix socket. Default: guests come over QUIC, with certificates.
    #[must_use]
    pub fn guests_at(mut self, socket: GuestSocket) -> Self {
        self.guests_at = Some(socket);
        self
    }

    /// Carries out operations of type `O`. The future runs on the node's thread: blocking work goes to
    /// `tokio::task::spawn_blocking` inside it.
    #[must_use]
    pub fn op<O: Op, F>(mut self, operator: impl Fn(O) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = O::Out> + Send + 'static,
    {
        let erased: OpHandler = Arc::new(move |op: Box<dyn Any + Send>| {
            let running = op.downcast::<O>().ok().map(|op| operator(*op));
            Box::pin(async move {
                match running {
                    Some(out) => Box::new(out.await) as Box<dyn Any + Send>,
                    None => Box::new(()),
                }
            })
        });
        self.operators.insert(TypeId::of::<O>(), erased);
        self
    }

    /// Starts the node.
    ///
    /// # Errors
    /// [`NodeError`]: the address is not loopback and there is no certificate, the certificate cannot be used, the
    /// port is taken, or the system refuses a thread.
    pub fn start(self) -> Result<Node, NodeError> {
        let seed = match self.seed {
            Some(seed) => seed,
            None => SysRng
                .try_next_u64()
                .map_err(|error| NodeError::System(std::io::Error::other(error)))?,
        };
        let mut random = StdRng::seed_from_u64(seed);
        let incarnation = Incarnation(random.random());
        let sockets = Sockets::open(&self)?;
        let address = match (&self.guest_of, &self.wire) {
            (Some(host), _) => host.clone(),
            (None, Wire::Memory(network)) => network.address(&self.host, self.port),
            (None, Wire::Quic) => Address::new(&self.host, sockets.port),
            (None, Wire::Unix(..)) => return Err(NodeError::NoHost),
        };
        let identity = match &self.wire {
            Wire::Quic => Some(self.identity(&address)?),
            Wire::Memory(_) | Wire::Unix(..) => None,
        };
        let (started, outcome) = std::sync::mpsc::channel();
        let (running, ended) = std::sync::mpsc::channel();
        let name = format!("node-{address}");
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                // Its drop tells that the thread has ended.
                let _running = running;
                self.run(
                    address,
                    incarnation,
                    random.next_u64(),
                    identity,
                    sockets,
                    &started,
                );
            })
            .map_err(NodeError::System)?;
        let node = outcome.recv().map_err(|_| {
            NodeError::System(std::io::Error::other("the node's thread ended at once"))
        })??;
        *node.0.0.thread.lock() = Some((thread, ended));
        Ok(node)
    }

    fn identity(&self, address: &Address) -> Result<Identity, NodeError> {
        Ok(match &self.credentials {
            Credentials::Given(identity) => (**identity).clone(),
            Credentials::Files {
                ca,
                certificate,
                key,
            } => {
                let identity = Identity::from_files(ca, certificate, key)?;
                let roles = identity.names()?.roles;
                if !roles.iter().any(|role| **role == *self.role) {
                    return Err(NodeError::WrongRole {
                        certificate: certificate.clone(),
                        has: roles.join(", "),
                        needs: self.role.clone(),
                    });
                }
                identity
            }
            Credentials::Development => {
                if !address.is_loopback() || !self.bind.is_loopback() {
                    return Err(NodeError::NeedsCertificates(format!(
                        "{address} (bound to {})",
                        self.bind
                    )));
                }
                Identity::development(&self.role, &[])?
            }
        })
    }

    /// The node's thread: everything of the node happens here until it is told to stop.
    fn run(
        self,
        address: Address,
        incarnation: Incarnation,
        seed: u64,
        identity: Option<Identity>,
        sockets: Sockets,
        started: &std::sync::mpsc::Sender<Result<Node, NodeError>>,
    ) {
        let system = actix_rt::System::new();
        system.block_on(async move {
            let number = NODES.fetch_add(1, Ordering::Relaxed);
            let threads = Arc::new(Threads::begin(number, self.threads, &self.clock));
            let serving = Arc::clone(&threads);
            match self.assemble(address, incarnation, seed, identity, sockets, serving) {
                Ok((node, http)) => {
                    let handle = node.0.clone();
                    let (stop, stopped) = oneshot::channel();
                    *handle.0.stop.lock() = Some(stop);
                    if started.send(Ok(node)).is_ok() {
                        // Err means that every handle is gone, which is as good as being told.
                        let _stop = stopped.await;
                    }
                    handle.close().await;
                    drop(http);
                }
                Err(error) => {
                    threads.close().await;
                    if started.send(Err(error)).is_err() {
                        error!("a node failed to start and nobody waits for it");
                    }
                }
            }
        });
    }

    fn assemble(
        mut self,
        address: Address,
        incarnation: Incarnation,
        seed: u64,
        identity: Option<Identity>,
        sockets: Sockets,
        threads: Arc<Threads>,
    ) -> Result<(Node, Option<Server>), NodeError> {
        let shards = (self.threads.max(1) * SHARDS_PER_THREAD).next_power_of_two();
        let shared = Arc::new(Shared {
            number: threads.node(),
            address: address.clone(),
            clock: self.clock.clone(),
            metrics: Metrics::default(),
            seed,
            mailbox: self.mailbox,
            max_asks: self.max_asks,
            host: self.guest_of.clone().map(PeerKey::Node),
            inboxes: DashMap::with_shard_amount(shards),
            counters: Mutex::default(),
            links: Mutex::new(Links::default()),
            transport: OnceLock::new(),
            threads,
            runtime: tokio::runtime::Handle::current(),
            operators: std::mem::take(&mut self.operators),
            asks: AtomicU64::new(1),
            kinds: Kinds::default(),
            spawns: AtomicU64::new(0),
            outside_asks: DashMap::with_shard_amount(shards),
            end_waiters: Mutex::default(),
            delegate: OnceLock::new(),
            awaits_delegate: self.awaits_delegate,
            opening: self.opening.clone(),
            filters: Filters::default(),
            stop: Mutex::default(),
            thread: Mutex::new(None),
        });
        // Who cannot be dialled cannot be told what to log; a guest's id is that of its one actor.
        let quic = matches!(self.wire, Wire::Quic);
        let operable = quic && self.accepts && self.guest_of.is_none();
        let uplink = Arc::new(Uplink(Arc::downgrade(&shared)));
        let parts = Parts {
            address: &address,
            incarnation,
            kinds: &shared.kinds,
            metrics: &shared.metrics,
            uplink,
        };
        let own = identity.as_ref().map(HttpCertificate::of);
        let http = Settings {
            limits: self.http_limits,
            security: std::mem::take(&mut self.http_security),
            certificate: self.http_certificate.take().or(own),
        };
        let transport = self.transport(parts, identity, sockets.udp)?;
        let set = shared.transport.set(transport);
        debug_assert!(set.is_ok(), "set once, here");
        if !self.clock.is_paused() {
            tokio::spawn(self.clock.clone().drive());
        }
        let node = Node(NodeHandle(shared));
        node.metrics().before_reading("system", show_system);
        if operable {
            node.spawn(LOGGING, Logging::of_program)?;
        }
        let http = sockets
            .tcp
            .map(|tcp| server::serve(tcp, node.0.clone(), http));
        let http = http.transpose().map_err(NodeError::System)?;
        info!(%address, role = %self.role, "node started");
        Ok((node, http))
    }

    /// What carries this node's frames.
    fn transport(
        &self,
        parts: Parts<'_>,
        identity: Option<Identity>,
        udp: Option<UdpSocket>,
    ) -> Result<Arc<dyn Transport>, NodeError> {
        let (address, incarnation) = (parts.address.clone(), parts.incarnation);
        let unix = || {
            let mut config = UnixConfig::new(address.clone(), incarnation, &self.role);
            config.max_message = self.max_message;
            config.kinds = parts.kinds.clone();
            config.opening = self.opening.clone();
            config
        };
        let uplink = Arc::clone(&parts.uplink);
        let nodes: Arc<dyn Transport> = match (&self.wire, identity, udp) {
            (Wire::Memory(network), _, _) => {
                let key = match &self.guest_id {
                    Some(id) => PeerKey::Guest(Arc::clone(id)),
                    None => PeerKey::Node(address.clone()),
                };
                network.join(key, &address, incarnation, &self.role, &self.clock, uplink)
            }
            (Wire::Quic, Some(identity), Some(udp)) => {
                let mode = match &self.guest_of {
                    Some(host) => Mode::Guest { host: host.clone() },
                    None if self.accepts => Mode::Listening,
                    None => Mode::DialOnly,
                };
                let mut config = QuicConfig::new(identity, address.clone(), incarnation);
                config.mode = mode;
                config.max_message = self.max_message;
                config.kinds = parts.kinds.clone();
                config.metrics = parts.metrics.clone();
                config.opening = self.opening.clone();
                QuicTransport::start(config, udp, uplink)?
            }
            (Wire::Quic, _, _) => {
                return Err(NodeError::System(std::io::Error::other(
                    "a QUIC node needs an identity and a socket",
                )));
            }
            (Wire::Unix(socket, token), _, _) => {
                let guest = GuestSide {
                    id: self.guest_id.clone().ok_or(NodeError::NoHost)?,
                    socket: socket.clone(),
                    token: token.clone(),
                };
                UnixTransport::guest(unix(), guest, uplink)?
            }
        };
        let Some(socket) = &self.guests_at else {
            return Ok(nodes);
        };
        let guests = UnixTransport::host(unix(), socket.listen()?, parts.uplink)?;
        Ok(Arc::new(SideBySide { nodes, guests }))
    }
}

/// What a transport is made with.
struct Parts<'a> {
    address: &'a Address,
    incarnation: Incarnation,
    kinds: &'a Kinds,
    metrics: &'a Metrics,
    uplink: Arc<Uplink>,
}

impl NodeHandle {
    /// Ends all processes, so that links are told, then lets the transport send what is queued and close. Each thread
    /// ends its own, between two of their turns, so that nothing comes from them after their end was told.
    async fn close(self) {
        self.0.threads.close().await;
        // Those that have yet to start, or whose thread is left behind.
        let all = self.0.inboxes.iter();
        let rest: Vec<_> = all.map(|inbox| Arc::clone(&inbox)).collect();
        for inbox in &rest {
            self.ended(inbox, crate::links::ExitReason::Terminated);
        }
        if let Some(transport) = self.0.transport.get() {
            transport.shutdown().await;
        }
        info!(address = %self.0.address, "node stopped");
    }
}

#[derive(Default)]
struct Sockets {
    port: u16,
    tcp: Option<TcpListener>,
    udp: Option<UdpSocket>,
}

impl Sockets {
    /// Binds the node's sockets: UDP for messages, TCP of the same number for HTTP.
    fn open(settings: &NodeBuilder) -> Result<Self, NodeError> {
        if !matches!(settings.wire, Wire::Quic) {
            return Ok(Self::default());
        }
        let mut attempts = if settings.port == 0 { PORT_ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            match Self::bind(settings.bind, settings.port, settings.http) {
                Ok(sockets) => return Ok(sockets),
                Err(source) if attempts == 0 => {
                    return Err(NodeError::Bind {
                        address: SocketAddr::new(settings.bind, settings.port),
                        source,
                    });
                }
                Err(_) => {}
            }
        }
    }

    fn bind(ip: IpAddr, port: u16, http: bool) -> std::io::Result<Self> {
        let tcp = if http {
            Some(TcpListener::bind((ip, port))?)
        } else {
            None
        };
        let port = match &tcp {
            Some(tcp) => tcp.local_addr()?.port(),
            None => port,
        };
        let domain = socket2::Domain::for_address(SocketAddr::new(ip, port));
        let udp = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
        udp.set_recv_buffer_size(SOCKET_BUFFER)?;
        udp.set_send_buffer_size(SOCKET_BUFFER)?;
        udp.bind(&SocketAddr::new(ip, port).into())?;
        let udp: UdpSocket = udp.into();
        udp.set_nonblocking(true)?;
        Ok(Self {
            port: udp.local_addr()?.port(),
            tcp,
            udp: Some(udp),
        })
    }
}
