//! The HTTP server of one node: node-wide endpoints, and the way to the process that serves a path.
//!
//! It has a thread of its own, so that a node can be looked at also while its other threads are stuck. Clients may be
//! anybody, so their connections are bounded: in number ([`super::connections`] decides who gives way), and in how long
//! one may take to send the head of a request, or to send none.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Extension, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::IntoResponse;
use axum::routing::{any, get};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tracing::{debug, info, warn};

use super::connections::{Admission, Connections, Number};
use super::status::NodeStatus;
use super::{JSON, Request, Response, Version, dress, path};
use crate::backoff::Backoff;
use crate::clock::Time;
use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::node::NodeHandle;
use crate::pid::Address;
use crate::process::Takes;
use crate::transport::pause;
use crate::transport::quic::probe::PATH as PROBE_PATH;

/// How long a process may take to answer before the client gets 503.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Longest body of a call, in bytes.
const MAX_BODY: usize = 32 << 20;

/// Waits after the system refused to accept: up to the first, later up to the second, so that it can recover and the
/// thread does not spin.
const ACCEPT_AGAIN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Connections that are accepted in a row before it counts as working again.
const RECOVERED: u64 = 16;

/// What clients may take of the node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections at a time, besides the probes of peers.
    pub(crate) connections: usize,
    /// How long a connection may take to send the head of a request, from its beginning or the last answer on, and then
    /// its body.
    pub(crate) patience: Duration,
}

/// A running server; it ends when this is dropped.
pub(crate) struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have failed before.
            let _gone = stop.send(());
        }
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            warn!("the HTTP thread panicked");
        }
    }
}

/// Starts the server of a node.
pub(crate) fn serve(
    listener: TcpListener,
    node: NodeHandle,
    limits: Limits,
) -> std::io::Result<Server> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = listener.local_addr()?;
    let clients = Arc::new(Clients {
        book: Mutex::new(Book {
            connections: Connections::new(limits.connections),
            tasks: HashMap::new(),
            probes: HashMap::new(),
        }),
        metrics: node.metrics().clone(),
        patience: limits.patience,
        press: dress::Press::new(),
    });
    let router = router(node, local.ip().is_loopback());
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name(format!("http-{}", local.port()))
        .spawn(move || {
            let served = runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                tokio::select! {
                    () = accept_all(listener, clients, router) => {}
                    _ = stopped => {}
                }
                std::io::Result::Ok(())
            });
            if let Err(error) = served {
                warn!(%error, "HTTP server ended");
            }
            // Whoever still waits for an answer gets none: the node is gone.
            runtime.shutdown_background();
        })?;
    Ok(Server {
        stop: Some(stop),
        thread: Some(thread),
    })
}

/// A peer's probe: where it comes from, and the UDP port of the prober.
type Probe = (IpAddr, u16);

struct Book {
    connections: Connections,
    tasks: HashMap<Number, AbortHandle>,
    /// Connections that peers hold open as probes: one of each, which do not count.
    probes: HashMap<Probe, Number>,
}

/// All who are connected.
struct Clients {
    book: Mutex<Book>,
    metrics: Metrics,
    patience: Duration,
    press: dress::Press,
}

impl Clients {
    fn show(&self, book: &Book) {
        // Far below 2^52.
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        let count = book.connections.len() as f64;
        self.metrics.set("runtime/http_connections", count);
    }

    /// Takes a new connection, or closes it when none gives way for it.
    fn welcome(self: &Arc<Self>, stream: TcpStream, from: SocketAddr, router: &Router) {
        // Else a short answer behind another waits for the client's word that it has the first.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, %from, "a connection sends small answers late");
        }
        let mut book = self.book.lock();
        let Admission::Taken { number, instead } = book.connections.admit() else {
            self.metrics.count("runtime/http_connections_refused");
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
        self.metrics.count("runtime/http_connections_gave_way");
        if let Some(task) = book.tasks.remove(&number) {
            task.abort();
        }
    }
}

/// One connection; when it is dropped, the connection has ended.
struct Client {
    number: Number,
    from: SocketAddr,
    clients: Arc<Clients>,
}

impl Client {
    /// Its request is no longer in hand.
    fn answered(&self) {
        let mut book = self.clients.book.lock();
        book.connections.answered(self.number);
    }

    /// It is a peer's probe, which is held open for as long as the peer likes and counts no more. An older one of the
    /// same peer ends: the peer has given it up.
    fn is_probe(&self, probe: Probe) {
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

/// Marks an answer that is a stream.
#[derive(Clone, Copy)]
struct GoesOn;

/// A request in hand for as long as its answer goes on.
struct InHand(Arc<Client>);

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.answered();
    }
}

/// Accepts for ever. What the system refuses, for example for want of descriptors, is said once until it works again.
async fn accept_all(listener: tokio::net::TcpListener, clients: Arc<Clients>, router: Router) {
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
                clients.metrics.count("runtime/http_accept_errors");
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

/// Serves the requests of one connection until either side ends it.
async fn carry(stream: TcpStream, client: Client, router: Router) {
    let client = Arc::new(client);
    let patience = client.clients.patience;
    let router = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(|mut request: hyper::Request<_>| {
        let client = Arc::clone(&client);
        client.clients.book.lock().connections.began(client.number);
        let wishes = dress::Wishes::of(&request);
        if let Some(plain) = plain_uri(request.uri()) {
            *request.uri_mut() = plain;
        }
        request.extensions_mut().insert(ConnectInfo(client.from));
        request.extensions_mut().insert(Arc::clone(&client));
        let answer = hyper::service::Service::call(&router, request);
        async move {
            let answer: Result<axum::response::Response, Infallible> = answer.await;
            // An answer that goes on is in hand until its stream ends.
            let goes_on =
                |answer: &axum::response::Response| answer.extensions().get::<GoesOn>().is_some();
            match answer {
                Ok(answer) if !goes_on(&answer) => {
                    let answer = wishes.dress(answer, &client.clients.press).await;
                    client.answered();
                    Ok(answer)
                }
                goes_on => goes_on,
            }
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        // As Mesos writes them: some clients take a name by its letters.
        .title_case_headers(true)
        // Runs between two requests as well, so that a silent connection ends with it.
        .header_read_timeout(patience)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        debug!(%error, from = %client.from, "HTTP connection ended");
    }
}

/// What a request asks for, if its path is written in an unusual way.
fn plain_uri(uri: &Uri) -> Option<Uri> {
    let plain = match path::plain(uri.path()) {
        Cow::Owned(plain) => plain,
        Cow::Borrowed(_) => return None,
    };
    let query = uri.query().map(|query| format!("?{query}"));
    // What is no path any more is looked up as it was written.
    format!("{plain}{}", query.unwrap_or_default()).parse().ok()
}

fn router(node: NodeHandle, on_loopback: bool) -> Router {
    let started = node.clock().now();
    Router::new()
        .route("/health", any(|| async { Response::empty() }))
        .route("/version", any(version))
        .route("/metrics", get(prometheus))
        .route("/metrics/snapshot", any(snapshot))
        .route("/system/stats.json", any(system))
        .route(
            "/__processes__",
            get(move |State(node), Query(query)| processes(node, started, query)),
        )
        .route(
            "/logging/toggle",
            get(move |headers: HeaderMap, state, uri, Query(all): Query<Vec<(String, String)>>| async move {
                if let Err(why) = may_change(on_loopback, &headers) {
                    return Response::text(403, why);
                }
                match each_once(all) {
                    Ok(query) => toggle(state, uri, query).await,
                    Err(why) => Response::text(400, why),
                }
            }),
        )
        .route(PROBE_PATH, get(probe))
        .fallback(move |state, client, request| process(state, client, request, on_loopback))
        .with_state(node)
}

async fn version() -> Response {
    Response::serialized(&Version::of_program())
}

async fn prometheus(State(node): State<NodeHandle>) -> Response {
    Response {
        content_type: Some("text/plain; version=0.0.4"),
        body: node.metrics().prometheus().into(),
        ..Response::empty()
    }
}

/// How long a look at the metrics may take; they are there at once, so it only has to be a duration.
#[derive(serde::Deserialize)]
struct Patience {
    timeout: Option<String>,
}

async fn snapshot(State(node): State<NodeHandle>, Query(patience): Query<Patience>) -> Response {
    if let Some(text) = patience.timeout
        && crate::flags::duration(&text).is_err()
    {
        let text = format!("Invalid timeout '{text}': Invalid duration '{text}'.\n");
        return Response::text(400, text);
    }
    Response::json(&serde_json::Value::Object(node.metrics().snapshot()))
}

async fn system() -> Response {
    match tokio::task::spawn_blocking(super::status::system).await {
        Ok(system) => Response::serialized(&system),
        Err(error) => Response::text(500, error.to_string()),
    }
}

/// `/__processes__`, or one process with `?id=`.
async fn processes(node: NodeHandle, started: Time, query: BTreeMap<String, String>) -> Response {
    let id = query.get("id").cloned();
    let wanted = id.clone();
    let status = tokio::task::spawn_blocking(move || {
        let status = NodeStatus::of(&node, started, wanted.as_deref());
        if wanted.is_some() && status.processes.is_empty() {
            return Ok(None);
        }
        serde_json::to_vec(&status).map(Some)
    });
    match status.await {
        Ok(Ok(None)) => Response::text(
            404,
            format!(
                "No process `{}` runs on this node: /__processes__ lists those that do.\n",
                id.unwrap_or_default()
            ),
        ),
        Ok(Ok(Some(body))) => Response {
            content_type: Some(JSON),
            body: body.into(),
            ..Response::empty()
        },
        Ok(Err(error)) => Response::text(500, error.to_string()),
        Err(error) => Response::text(500, error.to_string()),
    }
}

/// UDP port of the node that probes.
#[derive(serde::Deserialize)]
struct Prober {
    udp: u16,
}

/// Held open by a peer so that either side learns of the other's end: see `transport/quic/probe.rs`.
async fn probe(
    State(node): State<NodeHandle>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Extension(client): Extension<Arc<Client>>,
    Query(prober): Query<Prober>,
) -> Response {
    let Some(guard) = node.probe(from.ip(), prober.udp) else {
        return Response::text(404, "No peer of this node has this address.");
    };
    client.is_probe((from.ip(), prober.udp));
    drop(client);
    // The server drops this when the connection ends, and the guard with it.
    let _guard = guard;
    std::future::pending().await
}

/// A change of the log filter, whose parameters are looked at already.
async fn toggle(
    State(node): State<NodeHandle>,
    uri: Uri,
    query: BTreeMap<String, String>,
) -> Response {
    let Some((inbox, path, _)) = node.serves(uri.path()) else {
        return nobody_serves(&node);
    };
    let request = Request {
        method: "GET".to_owned(),
        path: path.to_owned(),
        query,
        ..Request::default()
    };
    answer(&inbox, request).await
}

/// The answer when no process serves a path.
fn nobody_serves(node: &NodeHandle) -> Response {
    if node.awaits_delegate() {
        Response::text(503, "This program is starting: try again.")
    } else {
        Response::text(404, "404 Not Found.")
    }
}

async fn process(
    State(node): State<NodeHandle>,
    Extension(client): Extension<Arc<Client>>,
    request: axum::extract::Request,
    on_loopback: bool,
) -> Response {
    let (head, body) = request.into_parts();
    let uri = head.uri;
    let Some((inbox, path, takes)) = node.serves(uri.path()) else {
        return nobody_serves(&node);
    };
    let Ok(Query(query)) = Query::<BTreeMap<String, String>>::try_from_uri(&uri) else {
        return Response::text(
            400,
            "The query cannot be read: write ?name=value&name=value.",
        );
    };
    let mut request = Request {
        method: head.method.as_str().to_owned(),
        path: path.to_owned(),
        query,
        target: (uri.path_and_query())
            .map_or(uri.path(), |all| all.as_str())
            .to_owned(),
        ..Request::default()
    };
    if takes == Takes::Call {
        // Nobody gives way while a request is in hand, so none may be in hand for ever.
        let patience = client.clients.patience;
        let body = tokio::time::timeout(patience, axum::body::to_bytes(body, MAX_BODY));
        request.body = match body.await {
            Ok(Ok(body)) => body,
            Ok(Err(_)) => {
                let text = format!(
                    "The body is cut off, or longer than {MAX_BODY} bytes: send less at a time."
                );
                return Response::text(413, text);
            }
            Err(_) => {
                let text = format!("The body did not come within {patience:?}: try again.");
                return Response::text(408, text).with_header("connection", "close");
            }
        };
        request.is_local = may_change(on_loopback, &head.headers).is_ok();
        request.headers = gather(&head.headers);
    } else if head.headers.contains_key(header::IF_NONE_MATCH) {
        let mut all = gather(&head.headers);
        all.retain(|name, _| name == header::IF_NONE_MATCH.as_str());
        request.headers = all;
    }
    let mut response = answer(&inbox, request).await;
    response.stream = (response.stream.take()).map(|stream| stream.holding(InHand(client)));
    response
}

/// Headers as handlers see them.
fn gather(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        all.entry(name.as_str().to_owned())
            .and_modify(|known| {
                known.push_str(", ");
                known.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    all
}

async fn answer(inbox: &Inbox, request: Request) -> Response {
    let answered = async {
        let mut response = NodeHandle::http(inbox, request).await?;
        while let Some(later) = response.later.take() {
            response = later.await?;
        }
        Ok::<_, oneshot::error::RecvError>(response)
    };
    match tokio::time::timeout(ANSWER_LIMIT, answered).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => Response::text(503, "The process ended before it answered: try again."),
        Err(_) => Response::text(503, "The process is too busy to answer: try again."),
    }
}

/// Whether a request may change something: nobody proves over HTTP who they are, so only where all who can reach the
/// node are on its machine, and not when a web page in somebody's browser asks.
fn may_change(on_loopback: bool, headers: &HeaderMap) -> Result<(), &'static str> {
    if !on_loopback {
        return Err(
            "Over HTTP this can be changed on nodes bound to loopback only: use `meseta log-level` with a certificate \
             of role operator.\n",
        );
    }
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .and_then(|host| host.parse::<axum::http::uri::Authority>().ok());
    let here = (host.as_ref()).is_none_or(|host| Address::new(host.host(), 0).is_loopback());
    let foreign = headers
        .get_all("sec-fetch-site")
        .iter()
        .any(|site| site != "none" && site != "same-origin");
    // Browsers that do not say the above say at least where a page is from.
    let other_site = [header::ORIGIN, header::REFERER]
        .iter()
        .flat_map(|name| headers.get_all(name))
        .any(|page| {
            let page = page.to_str().ok().and_then(|page| page.parse::<Uri>().ok());
            page.as_ref().and_then(Uri::authority) != host.as_ref() || host.is_none()
        });
    if here && !foreign && !other_site {
        Ok(())
    } else {
        Err("A web page may not change this: use `meseta log-level`, or curl.\n")
    }
}

/// The parameters of a query that changes something: which of two was meant, nobody knows.
fn each_once(all: Vec<(String, String)>) -> Result<BTreeMap<String, String>, String> {
    let mut seen = BTreeSet::new();
    match all.iter().find(|(name, _)| !seen.insert(name.as_str())) {
        Some((name, _)) => Err(format!("'{name}' is given more than once: give it once.\n")),
        None => Ok(all.into_iter().collect()),
    }
}

impl IntoResponse for Response {
    fn into_response(self) -> axum::response::Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut answer = match self.stream {
            Some(stream) => {
                let mut answer = axum::body::Body::from_stream(stream).into_response();
                answer.extensions_mut().insert(GoesOn);
                answer
            }
            None => self.body.into_response(),
        };
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        headers.remove(header::CONTENT_TYPE);
        if let Some(kind) = self.content_type {
            headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
        }
        // One with characters that no header may have is nowhere to go.
        if let Some(location) = self.location.and_then(|text| text.parse().ok()) {
            headers.insert(header::LOCATION, location);
        }
        for (name, value) in self.headers {
            if let Ok(value) = value.parse() {
                headers.insert(header::HeaderName::from_static(name), value);
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_on_the_machine_and_no_web_page_may_change_something() {
        let asked = |on_loopback, headers: &[(&'static str, &'static str)]| {
            let headers = headers.iter().map(|(name, value)| {
                let name = header::HeaderName::from_static(name);
                (name, header::HeaderValue::from_static(value))
            });
            may_change(on_loopback, &headers.collect()).is_ok()
        };
        let here = ("host", "127.0.0.1:5050");
        assert!(asked(true, &[here]));
        assert!(asked(
            true,
            &[("host", "localhost:5050"), ("sec-fetch-site", "none")]
        ));
        assert!(asked(true, &[("host", "[::1]:5050")]));
        assert!(!asked(false, &[here]));
        assert!(!asked(true, &[("host", "rebound.example:5050")]));
        assert!(!asked(true, &[here, ("sec-fetch-site", "cross-site")]));
        for page in [
            "http://evil.example",
            "http://evil.example/x",
            "http://127.0.0.1:80/",
            "null",
            "",
        ] {
            assert!(!asked(true, &[here, ("origin", page)]), "{page}");
            assert!(!asked(true, &[here, ("referer", page)]), "{page}");
            assert!(!asked(true, &[("origin", page)]), "{page}");
        }
        assert!(asked(true, &[here, ("origin", "http://127.0.0.1:5050")]));
        assert!(asked(true, &[here, ("referer", "http://127.0.0.1:5050/x")]));
        assert!(!asked(
            true,
            &[
                here,
                ("origin", "http://127.0.0.1:5050"),
                ("referer", "http://evil.example/")
            ]
        ));
    }

    #[test]
    fn a_parameter_given_twice_is_refused_by_its_name() {
        let given = |all: &[(&str, &str)]| {
            let all = all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            each_once(all.collect())
        };
        assert_eq!(
            given(&[("level", "1"), ("duration", "1secs")])
                .unwrap()
                .len(),
            2
        );
        let refused = given(&[("level", "1"), ("duration", "1secs"), ("level", "2")]);
        assert!(refused.unwrap_err().starts_with("'level' is given"));
    }
}
