//! Connections of clients of the HTTP server: which are taken, what each request is looked at for before anybody serves
//! it, and when they end.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::IntoResponse as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tracing::{debug, info, warn};

use super::access::{Caller, Denied, Realm};
use super::auth::Gate;
use super::checked::Checked;
use super::connections::{Admission, Connections, Number};
use super::dress;
use super::framing::Unfit;
use super::origin::Origin;
use super::readers::Readers;
use super::server::{Target, plain_uri};
use super::tls::Tls;
use super::{HttpLimits, Response};
use crate::backoff::Backoff;
use crate::metrics::Metrics;
use crate::node::NodeHandle;
use crate::opening::Opening;
use crate::transport::pause;

/// Waits after the system refused to accept: up to the first, later up to the second, so that it can recover and the
/// thread does not spin.
const ACCEPT_AGAIN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Connections that are accepted in a row before it counts as working again.
const RECOVERED: u64 = 16;

/// Headers that the server of HTTP counts without being told how many.
const USUAL_HEADERS: usize = 100;

/// A peer's probe: where it comes from, and the UDP port of the prober.
type Probe = (IpAddr, u16);

struct Book {
    connections: Connections,
    tasks: HashMap<Number, AbortHandle>,
    /// Connections that peers hold open as probes: one of each, which do not count.
    probes: HashMap<Probe, Number>,
}

/// All who are connected.
pub(super) struct Clients {
    book: Mutex<Book>,
    node: NodeHandle,
    /// What they may take.
    pub(super) limits: HttpLimits,
    gate: Gate,
    tls: Option<Tls>,
    on_loopback: bool,
    /// Answers that go on.
    streams: AtomicUsize,
    press: dress::Press,
    pub(super) readers: Readers,
}

impl Clients {
    pub(super) fn new(
        node: NodeHandle,
        limits: HttpLimits,
        gate: Gate,
        tls: Option<Tls>,
        on_loopback: bool,
    ) -> Self {
        Self {
            book: Mutex::new(Book {
                connections: Connections::new(limits.connections),
                tasks: HashMap::new(),
                probes: HashMap::new(),
            }),
            node,
            limits,
            gate,
            tls,
            on_loopback,
            streams: AtomicUsize::new(0),
            press: dress::Press::new(),
            readers: Readers::new(),
        }
    }

    fn metrics(&self) -> &Metrics {
        self.node.metrics()
    }

    /// Whoever sent this request.
    ///
    /// # Errors
    /// The answer, when they do not prove who they are and have to.
    async fn caller(
        &self,
        realm: Realm,
        headers: &HeaderMap,
        is_tls: bool,
    ) -> Result<Caller, Response> {
        let origin = Origin::of(self.on_loopback, headers);
        let security = &self.gate.security;
        let is_guarded = security.guarded.contains(&realm);
        // Where nobody need prove anything, what is sent in vain is not looked at, as in Mesos.
        let counts = is_guarded
            || realm != Realm::Open
                && security.knows_credentials()
                && !origin.is_here
                && !security.trusts_anybody;
        let principal = if counts {
            let clock = self.node.clock();
            let now = clock.wall(clock.now()).as_secs();
            let gate = &self.gate;
            gate.principal(realm, headers, is_guarded, now).await?
        } else {
            None
        };
        // A token is good for where executors call, and for nothing else.
        let is_token = principal.as_ref().is_some_and(|who| who.value.is_none());
        if is_token && !matches!(realm, Realm::Own(_)) {
            return Err(Response::from(Denied::Token));
        }
        Ok(Caller {
            principal,
            is_tls,
            is_here: origin.is_here,
            is_foreign_page: origin.is_foreign_page,
            trusts_anybody: security.trusts_anybody,
            knows_credentials: security.knows_credentials(),
        })
    }

    fn show(&self, book: &Book) {
        // Far below 2^52.
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        let count = book.connections.len() as f64;
        self.metrics().set("runtime/http_connections", count);
    }

    /// Takes a new connection, or closes it when none gives way for it.
    fn welcome(self: &Arc<Self>, stream: TcpStream, from: SocketAddr, router: &Router) {
        // Else a short answer behind another waits for the client's word that it has the first.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, %from, "a connection sends small answers late");
        }
        // Silent ones are kept; those whose client is gone without a word are not.
        if let Err(error) = socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive()) {
            debug!(%error, %from, "the end of a client's machine will not be noticed");
        }
        let mut book = self.book.lock();
        let Admission::Taken { number, instead } = book.connections.admit() else {
            self.metrics().count("runtime/http_connections_refused");
            debug!(%from, "too many HTTP requests at once: a connection is closed");
            return;
        };
        if let Some(older) = instead {
            self.close(&mut book, older);
        }
        let client = Client {
            number,
            from,
            clients: Arc::clone(self),
        };
        let task = tokio::spawn(carry(stream, client, router.clone()));
        book.tasks.insert(number, task.abort_handle());
        self.show(&book);
    }

    /// So many answers go on now.
    fn show_streams(&self, now: usize) {
        // Far below 2^52.
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        self.metrics().set("runtime/http_streams", now as f64);
    }

    /// Makes room when the system has none left; `false` when nobody gives way.
    fn make_room(&self) -> bool {
        let mut book = self.book.lock();
        let number = book.connections.give_way();
        if let Some(number) = number {
            self.close(&mut book, number);
            self.show(&book);
        }
        number.is_some()
    }

    fn close(&self, book: &mut Book, number: Number) {
        self.metrics().count("runtime/http_connections_gave_way");
        if let Some(task) = book.tasks.remove(&number) {
            task.abort();
        }
    }
}

/// One connection; when it is dropped, the connection has ended.
pub(super) struct Client {
    number: Number,
    from: SocketAddr,
    pub(super) clients: Arc<Clients>,
}

impl Client {
    /// Whether no other answer may go on.
    pub(super) fn has_no_stream_left(&self) -> bool {
        self.clients.streams.load(Ordering::Relaxed) >= self.clients.limits.streams
    }

    /// A place among the answers that go on, if one is left.
    pub(super) fn take_stream(&self) -> Option<StreamPlace> {
        let clients = &self.clients;
        let most = clients.limits.streams;
        let one_more = |now: usize| (now < most).then_some(now + 1);
        let (order, read) = (Ordering::Relaxed, Ordering::Relaxed);
        let before = clients.streams.fetch_update(order, read, one_more).ok()?;
        clients.show_streams(before + 1);
        Some(StreamPlace(Arc::clone(clients)))
    }

    /// Its request is no longer in hand.
    fn answered(&self) {
        let mut book = self.clients.book.lock();
        book.connections.answered(self.number);
    }

    /// It is a peer's probe, which is held open for as long as the peer likes and counts no more. An older one of the
    /// same peer ends: the peer has given it up.
    pub(super) fn is_probe(&self, probe: Probe) {
        let mut book = self.clients.book.lock();
        book.connections.forget(self.number);
        let older = book.probes.insert(probe, self.number);
        if let Some(task) = older.and_then(|older| book.tasks.remove(&older)) {
            task.abort();
        }
        self.clients.show(&book);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut book = self.clients.book.lock();
        book.connections.forget(self.number);
        book.tasks.remove(&self.number);
        book.probes.retain(|_, number| *number != self.number);
        self.clients.show(&book);
    }
}

/// Marks a request of which only the head of the answer is wanted.
#[derive(Clone, Copy)]
pub(super) struct AsksForHead;

/// Marks an answer that is a stream.
#[derive(Clone, Copy)]
pub(super) struct GoesOn;

/// A place among the answers that go on; free again when it is dropped.
pub(super) struct StreamPlace(Arc<Clients>);

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let before = self.0.streams.fetch_sub(1, Ordering::Relaxed);
        self.0.show_streams(before - 1);
    }
}

/// A request in hand for as long as its answer goes on.
pub(super) struct InHand {
    client: Arc<Client>,
    _place: StreamPlace,
}

impl InHand {
    pub(super) fn of(client: Arc<Client>, place: StreamPlace) -> Self {
        Self {
            client,
            _place: place,
        }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.client.answered();
    }
}

/// Accepts for ever. What the system refuses, for example for want of descriptors, is said once until it works again.
pub(super) async fn accept_all(
    listener: tokio::net::TcpListener,
    opening: Opening,
    clients: Arc<Clients>,
    router: Router,
) {
    opening.opened().await;
    let mut backoff = Backoff::new(ACCEPT_AGAIN.0, ACCEPT_AGAIN.1);
    let mut random = StdRng::seed_from_u64(0);
    let (mut failures, mut fine) = (0_u64, 0_u64);
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                clients.welcome(stream, from, &router);
                fine += 1;
                if failures > 0 && fine >= RECOVERED {
                    info!(failures, "HTTP connections are accepted again");
                    failures = 0;
                    backoff.reset();
                }
            }
            Err(error) if is_of_the_client(&error) => debug!(%error, "an HTTP client has left"),
            Err(error) => {
                clients.metrics().count("runtime/http_accept_errors");
                (failures, fine) = (failures + 1, 0);
                if failures == 1 {
                    warn!(%error, "no HTTP connection can be accepted at this moment: is the limit of open files too low?");
                }
                if clients.make_room() {
                    // Lets the task of the connection that gave way end, which frees its descriptor.
                    tokio::task::yield_now().await;
                } else {
                    pause(backoff.next(&mut random)).await;
                }
            }
        }
    }
}

/// Whether what failed is the one connection and not the system.
fn is_of_the_client(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    )
}

/// How the system looks whether silent clients are still there: a client whose machine is gone is noticed within two
/// minutes.
fn keepalive() -> socket2::TcpKeepalive {
    socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(6)
}

/// Serves the requests of one connection until either side ends it.
async fn carry(stream: TcpStream, client: Client, router: Router) {
    let client = Arc::new(client);
    let clients = Arc::clone(&client.clients);
    let (limits, from) = (clients.limits, client.from);
    let wire = match Tls::welcome(clients.tls.as_ref(), stream, limits.patience).await {
        Ok(wire) => wire,
        Err(error) => {
            debug!(%error, %from, "an HTTP client does not come about");
            return;
        }
    };
    let is_tls = wire.is_tls();
    let stream = Checked::new(wire, limits.head(), limits.patience);
    let refused = stream.refused();
    let numbers = AtomicU64::new(0);
    let service = hyper::service::service_fn(|mut request: hyper::Request<_>| {
        // Before anybody looks at it, so that all see the same path.
        if let Some(plain) = plain_uri(request.uri()) {
            *request.uri_mut() = plain;
        }
        let client = Arc::clone(&client);
        client.clients.book.lock().connections.began(client.number);
        let number = numbers.fetch_add(1, Ordering::Relaxed) + 1;
        let refusal = *refused.lock();
        let unfit = refusal.filter(|(at, _)| *at == number).map(|(_, why)| why);
        let router = router.clone();
        async move {
            let wishes = dress::Wishes::of(&request);
            let origins = &client.clients.gate.security.origins;
            let page = origins.page(&request);
            let mut answer = match (unfit, page.preflight(&request)) {
                (Some(why), _) => unfit_answer(&client, why),
                // Browsers ask without showing who looks.
                (None, Some(told)) => told.into_response(),
                (None, None) => serve(&client, is_tls, router, request).await,
            };
            page.allow(answer.headers_mut());
            if origins.depend() {
                let origin = header::HeaderValue::from_static("Origin");
                answer.headers_mut().append(header::VARY, origin);
            }
            // An answer that goes on is in hand until its stream ends.
            if answer.extensions().get::<GoesOn>().is_some() {
                return Ok(answer);
            }
            let answer = wishes.dress(answer, &client.clients.press).await;
            client.answered();
            Ok::<_, Infallible>(answer)
        }
    });
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        // As Mesos writes them: some clients take a name by its letters.
        .title_case_headers(true)
        // Would end connections that are kept for later, as well: what has begun has its time in [`Checked`].
        .header_read_timeout(None);
    if limits.headers > USUAL_HEADERS {
        server.max_headers(limits.headers);
    }
    let served = server.serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        debug!(%error, %from, "HTTP connection ended");
    }
}

/// The answer to a request that was not let pass.
fn unfit_answer(client: &Client, why: Unfit) -> axum::response::Response {
    client
        .clients
        .metrics()
        .count("runtime/http_requests_unfit");
    debug!(%why, from = %client.from, "an HTTP request is refused");
    Response::text(why.status(), why.to_string())
        .with_header("connection", "close")
        .into_response()
}

/// Finds out who asks, and has the request answered.
async fn serve(
    client: &Arc<Client>,
    is_tls: bool,
    router: Router,
    mut request: hyper::Request<hyper::body::Incoming>,
) -> axum::response::Response {
    let clients = &client.clients;
    // The router would take the body off the answer before its length is known as it would be sent; hyper does so after.
    if *request.method() == Method::HEAD {
        *request.method_mut() = Method::GET;
        request.extensions_mut().insert(AsksForHead);
    }
    let target = Target::of(&clients.node, request.uri().path());
    let realm = target.realm();
    let caller = match clients.caller(realm, request.headers(), is_tls).await {
        Ok(caller) => caller,
        Err(refusal) => return refusal.into_response(),
    };
    let is_proven = caller.principal.is_some();
    request.extensions_mut().insert(Arc::new(caller));
    request.extensions_mut().insert(Arc::new(target));
    request.extensions_mut().insert(ConnectInfo(client.from));
    request.extensions_mut().insert(Arc::clone(client));
    let router = TowerToHyperService::new(router);
    let answer: Result<axum::response::Response, Infallible> =
        hyper::service::Service::call(&router, request).await;
    let Ok(mut answer) = answer;
    if is_proven {
        answer.extensions_mut().insert(dress::ForWhoHasProven);
    }
    // Whoever serves a path knows that a principal is missing; how to show one is said here.
    if answer.status() == StatusCode::UNAUTHORIZED
        && !answer.headers().contains_key(header::WWW_AUTHENTICATE)
    {
        let close = answer.headers().get(header::CONNECTION).cloned();
        let mut refusal = clients.gate.refusal(realm, None).into_response();
        if let Some(close) = close {
            refusal.headers_mut().insert(header::CONNECTION, close);
        }
        return refusal;
    }
    answer
}
