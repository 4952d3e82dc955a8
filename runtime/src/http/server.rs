//! The HTTP server of one node: node-wide endpoints, and the way to the process that serves a path.
//!
//! It has a thread of its own, so that a node can be looked at also while its other threads are stuck. Clients may be
//! anybody, so what they may take is bounded ([`HttpLimits`]), and who they are is found out before anybody serves them
//! ([`super::clients`]).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Extension, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::IntoResponse;
use axum::routing::{any, get};
use tokio::sync::oneshot;
use tracing::warn;

use super::access::{Caller, Need, Realm};
use super::auth::{Gate, Security};
use super::clients::{Client, Clients, GoesOn, InHand, accept_all};
use super::status::NodeStatus;
use super::tls::{HttpCertificate, Tls};
use super::{HttpLimits, JSON, Request, Response, Version, path};
use crate::clock::Time;
use crate::inbox::Inbox;
use crate::node::NodeHandle;
use crate::process::Takes;
use crate::transport::quic::probe::PATH as PROBE_PATH;

/// How long a process may take to answer before the client gets 503.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// How a node serves HTTP.
pub(crate) struct Settings {
    pub(crate) limits: HttpLimits,
    pub(crate) security: Security,
    /// None: in plain only.
    pub(crate) certificate: Option<HttpCertificate>,
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
    settings: Settings,
) -> std::io::Result<Server> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = listener.local_addr()?;
    let tls = settings.certificate.as_ref().map(Tls::new).transpose();
    let tls = tls.map_err(std::io::Error::other)?;
    let gate = Gate::new(settings.security, node.metrics().clone())?;
    let router = router(node.clone());
    let on_loopback = local.ip().is_loopback();
    let clients = Clients::new(node, settings.limits, gate, tls, on_loopback);
    let clients = Arc::new(clients);
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

/// What a request asks for, if its path is written in an unusual way.
pub(super) fn plain_uri(uri: &Uri) -> Option<Uri> {
    let plain = match path::plain(uri.path()) {
        Cow::Owned(plain) => plain,
        Cow::Borrowed(_) => return None,
    };
    let query = uri.query().map(|query| format!("?{query}"));
    // What is no path any more is looked up as it was written.
    format!("{plain}{}", query.unwrap_or_default()).parse().ok()
}

/// Which realm a path is in.
pub(super) fn realm_of(node: &NodeHandle, path: &str) -> Realm {
    match path {
        "/health" | "/version" | "/system/stats.json" | PROBE_PATH => Realm::Open,
        "/metrics" | "/metrics/snapshot" | "/__processes__" => Realm::ReadOnly,
        // And what is below it, which is the same.
        _ if path.starts_with("/logging/toggle") => Realm::ReadWrite,
        _ => (node.serves(path)).map_or(Realm::Open, |(_, _, served)| served.realm),
    }
}

fn router(node: NodeHandle) -> Router {
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
            get(
                |Extension(caller): Extension<Arc<Caller>>,
                 state,
                 uri,
                 Query(all): Query<Vec<(String, String)>>| async move {
                    if let Err(why) = caller.may(Need::Change) {
                        return Response::from(why);
                    }
                    match each_once(all) {
                        Ok(query) => toggle(state, uri, query, caller).await,
                        Err(why) => Response::text(400, why),
                    }
                },
            ),
        )
        .route(PROBE_PATH, get(probe))
        .fallback(process)
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
    caller: Arc<Caller>,
) -> Response {
    let Some((inbox, path, _)) = node.serves(uri.path()) else {
        return nobody_serves(&node);
    };
    let request = Request {
        method: "GET".to_owned(),
        path: path.to_owned(),
        query,
        caller,
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
    Extension(caller): Extension<Arc<Caller>>,
    request: axum::extract::Request,
) -> Response {
    let (head, body) = request.into_parts();
    let uri = head.uri;
    let Some((inbox, path, served)) = node.serves(uri.path()) else {
        return nobody_serves(&node);
    };
    let Ok(Query(query)) = Query::<BTreeMap<String, String>>::try_from_uri(&uri) else {
        return Response::text(
            400,
            "The query cannot be read: write ?name=value&name=value.",
        );
    };
    let limits = client.clients.limits;
    let mut request = Request {
        method: head.method.as_str().to_owned(),
        path: path.to_owned(),
        query,
        target: (uri.path_and_query())
            .map_or(uri.path(), |all| all.as_str())
            .to_owned(),
        caller,
        max_nesting: limits.nesting,
        has_no_stream_left: client.has_no_stream_left(),
        ..Request::default()
    };
    if served.takes == Takes::Call {
        request.body = match body_of(&head.headers, body, limits).await {
            Ok(body) => body,
            Err(refusal) => return refusal,
        };
        request.headers = gather(&head.headers, |_| true);
    } else {
        request.headers = gather(&head.headers, |name| {
            *name == header::IF_NONE_MATCH || *name == header::ACCEPT
        });
    }
    let mut response = answer(&inbox, request).await;
    response.stream = (response.stream.take()).map(|stream| stream.holding(InHand::of(client)));
    response
}

/// The body of a call. Nobody gives way while a request is in hand, so none may be in hand for ever.
async fn body_of(
    headers: &HeaderMap,
    body: axum::body::Body,
    limits: HttpLimits,
) -> Result<bytes::Bytes, Response> {
    let HttpLimits {
        body: most,
        patience,
        ..
    } = limits;
    let too_long = |what| {
        let text = format!("{what} {most} bytes: send less at a time. See --max_http_body.");
        Response::text(413, text).with_header("connection", "close")
    };
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    // Before a client that waits to be told has sent it.
    if length.is_some_and(|length| usize::try_from(length).is_ok_and(|length| length > most)) {
        return Err(too_long("The body is longer than"));
    }
    let whole = tokio::time::timeout(patience, axum::body::to_bytes(body, most));
    match whole.await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(too_long("The body is cut off, or longer than")),
        Err(_) => {
            let text = format!("The body did not come within {patience:?}: try again.");
            Err(Response::text(408, text).with_header("connection", "close"))
        }
    }
}

/// Headers as handlers see them, of these names.
fn gather(
    headers: &HeaderMap,
    wants: impl Fn(&header::HeaderName) -> bool,
) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| wants(name)) {
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
