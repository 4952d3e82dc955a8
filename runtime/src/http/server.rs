//! The HTTP server of one node: node-wide endpoints, and the way to the process that serves a path.
//!
//! It has a thread of its own, so that a node can be looked at also while its other threads are stuck.

use std::collections::BTreeMap;
use std::future::IntoFuture as _;
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::oneshot;
use tracing::warn;

use super::status::NodeStatus;
use super::{JSON, Response};
use crate::clock::Time;
use crate::node::NodeHandle;
use crate::pid::Address;
use crate::transport::quic::probe::PATH as PROBE_PATH;

/// How long a process may take to answer before the client gets 503.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

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
pub(crate) fn serve(listener: TcpListener, node: NodeHandle) -> std::io::Result<Server> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = listener.local_addr()?;
    let router = router(node, local.ip().is_loopback());
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name(format!("http-{}", local.port()))
        .spawn(move || {
            let served = runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                tokio::select! {
                    served = axum::serve(listener, service).into_future() => served,
                    _ = stopped => Ok(()),
                }
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

fn router(node: NodeHandle, on_loopback: bool) -> Router {
    let started = node.clock().now();
    Router::new()
        .route("/health", get(|| async { Response::empty() }))
        .route("/version", get(version))
        .route("/metrics", get(prometheus))
        .route("/metrics/snapshot", get(snapshot))
        .route(
            "/__processes__",
            get(move |State(node), Query(query)| processes(node, started, query)),
        )
        .route(
            "/logging/toggle",
            get(move |headers: HeaderMap, state, uri, query| async move {
                match may_change(on_loopback, &headers) {
                    Ok(()) => process(state, uri, query).await,
                    Err(why) => Response::text(403, why),
                }
            }),
        )
        .route(PROBE_PATH, get(probe))
        .fallback(get(process))
        .with_state(node)
}

async fn version() -> Response {
    Response::json(&serde_json::json!({ "version": env!("CARGO_PKG_VERSION") }))
}

async fn prometheus(State(node): State<NodeHandle>) -> Response {
    Response {
        status: 200,
        content_type: Some("text/plain; version=0.0.4"),
        body: node.metrics().prometheus().into(),
        location: None,
    }
}

async fn snapshot(State(node): State<NodeHandle>) -> Response {
    Response::json(&serde_json::Value::Object(node.metrics().snapshot()))
}

/// `/__processes__`, or one process with `?id=`.
async fn processes(node: NodeHandle, started: Time, query: BTreeMap<String, String>) -> Response {
    let status = tokio::task::spawn_blocking(move || {
        let status = NodeStatus::of(&node, started, query.get("id").map(String::as_str));
        serde_json::to_vec(&status)
    });
    match status.await {
        Ok(Ok(body)) => Response {
            status: 200,
            content_type: Some(JSON),
            body: body.into(),
            location: None,
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
    Query(prober): Query<Prober>,
) -> Response {
    let Some(guard) = node.probe(from.ip(), prober.udp) else {
        return Response::text(404, "No peer of this node has this address.");
    };
    // The server drops this when the connection ends, and the guard with it.
    let _guard = guard;
    std::future::pending().await
}

async fn process(
    State(node): State<NodeHandle>,
    uri: Uri,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let target = uri.path_and_query().map_or(uri.path(), |all| all.as_str());
    let Some(answer) = node.http(uri.path(), query, target) else {
        return Response::text(404, "404 Not Found.");
    };
    let limit = tokio::time::timeout(ANSWER_LIMIT, answer);
    match limit.await {
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
    let here = host.is_none_or(|host| Address::new(host.host(), 0).is_loopback());
    let foreign = headers
        .get("sec-fetch-site")
        .is_some_and(|site| site != "none" && site != "same-origin");
    if here && !foreign {
        Ok(())
    } else {
        Err("A web page may not change this: use `meseta log-level`, or curl.\n")
    }
}

impl IntoResponse for Response {
    fn into_response(self) -> axum::response::Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut answer = match self.content_type {
            Some(kind) => (status, [(header::CONTENT_TYPE, kind)], self.body).into_response(),
            None => (status, self.body).into_response(),
        };
        // One with characters that no header may have is nowhere to go.
        if let Some(location) = self.location.and_then(|text| text.parse().ok()) {
            answer.headers_mut().insert(header::LOCATION, location);
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
    }
}
