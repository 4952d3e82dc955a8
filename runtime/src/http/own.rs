//! What every node serves itself. One table says it all: `/help` and `/openapi.json` are written from it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Extension, Query, State};
use axum::http::Uri;
use axum::routing::{MethodRouter, any, get};

use super::about::{About, PROMETHEUS};
use super::access::Realm;
use super::clients::Client;
use super::status::NodeStatus;
use super::{JSON, Response, Version, help};
use crate::clock::Time;
use crate::node::NodeHandle;
use crate::transport::quic::probe::PATH as PROBE_PATH;

/// One endpoint of every node.
pub(crate) struct Own {
    pub(crate) path: &'static str,
    pub(crate) realm: Realm,
    /// None for what only nodes ask each other.
    pub(crate) about: Option<About>,
    /// Serves it for a node that was started then.
    pub(super) serve: fn(Time) -> MethodRouter<NodeHandle>,
}

/// All of them.
pub(crate) const ALL: &[Own] = &[
    Own {
        path: "/health",
        realm: Realm::Open,
        about: Some(About::read("Whether the program is up").gives(&[])),
        serve: |_| any(|| async { Response::empty() }),
    },
    Own {
        path: "/version",
        realm: Realm::Open,
        about: Some(About::read("Version of the program")),
        serve: |_| any(version),
    },
    Own {
        path: "/metrics",
        realm: Realm::ReadOnly,
        about: Some(About::read("All metrics, as Prometheus reads them").gives(&[PROMETHEUS])),
        serve: |_| get(prometheus),
    },
    Own {
        path: "/metrics/snapshot",
        realm: Realm::ReadOnly,
        about: Some(
            About::read("All metrics, a number for each name").with(&[(
                "timeout",
                "How long it may take, such as 5secs; the answer comes at once",
            )]),
        ),
        serve: |_| any(snapshot),
    },
    Own {
        path: "/system/stats.json",
        realm: Realm::Open,
        about: Some(About::read("Load, processors and memory of the machine")),
        serve: |_| any(system),
    },
    Own {
        path: "/__processes__",
        realm: Realm::ReadOnly,
        about: Some(
            About::read("The node's actors and peers: what waits, what was handled, what was dropped")
                .with(&[("id", "Only this actor")]),
        ),
        serve: |started| {
            get(move |State(node), Query(query)| processes(node, started, query))
        },
    },
    Own {
        path: "/help",
        realm: Realm::Open,
        about: Some(
            About::read("What can be asked for")
                .saying(
                    "`/help` lists those who serve paths, `/help/ID` the paths of one of them, `/help/ID/PATH` tells of one \
                     path.",
                )
                .with(&[("format", "`json` for everything in one document, on /help itself")])
                .gives(&[help::MARKDOWN, JSON]),
        ),
        serve: |_| any(help_of),
    },
    Own {
        path: "/help/{*rest}",
        realm: Realm::Open,
        about: None,
        serve: |_| any(help_of),
    },
    Own {
        path: "/openapi.json",
        realm: Realm::Open,
        about: Some(About::read("What can be asked for, as OpenAPI 3.1")),
        serve: |_| any(openapi),
    },
    Own {
        path: PROBE_PATH,
        realm: Realm::Open,
        about: None,
        serve: |_| get(probe),
    },
];

/// `/help` and what is below it.
async fn help_of(
    State(node): State<NodeHandle>,
    uri: Uri,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    help::answer(&help::entries(&node), uri.path(), &query)
}

async fn openapi(State(node): State<NodeHandle>) -> Response {
    Response::json(&help::openapi(&help::entries(&node)))
}

async fn version() -> Response {
    Response::serialized(&Version::of_program())
}

async fn prometheus(State(node): State<NodeHandle>) -> Response {
    Response {
        content_type: Some(PROMETHEUS),
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
