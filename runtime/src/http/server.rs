//! The HTTP server of one node: node-wide endpoints, and the way to the process that serves a path.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tracing::warn;

use super::{JSON, Response};
use crate::node::NodeHandle;

/// How long a process may take to answer before the client gets 503.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Serves until the node's runtime ends.
pub(crate) fn serve(listener: TcpListener, node: NodeHandle) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let router = Router::new()
        .route("/health", get(|| async { Response::empty() }))
        .route("/version", get(version))
        .route("/metrics", get(prometheus))
        .route("/metrics/snapshot", get(snapshot))
        .route("/__processes__", get(processes))
        .fallback(get(process))
        .with_state(node);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            warn!(%error, "HTTP server ended");
        }
    });
    Ok(())
}

async fn version() -> Response {
    Response::json(&serde_json::json!({ "version": env!("CARGO_PKG_VERSION") }))
}

async fn prometheus(State(node): State<NodeHandle>) -> Response {
    Response {
        status: 200,
        content_type: Some("text/plain; version=0.0.4"),
        body: node.metrics().prometheus().into(),
    }
}

async fn snapshot(State(node): State<NodeHandle>) -> Response {
    Response::json(&serde_json::Value::Object(node.metrics().snapshot()))
}

async fn processes(State(node): State<NodeHandle>) -> Response {
    match serde_json::to_vec(&node.processes()) {
        Ok(body) => Response {
            status: 200,
            content_type: Some(JSON),
            body: body.into(),
        },
        Err(error) => Response::text(500, error.to_string()),
    }
}

async fn process(
    State(node): State<NodeHandle>,
    uri: Uri,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let Some(answer) = node.http(uri.path(), query) else {
        return Response::text(404, "404 Not Found.");
    };
    let limit = tokio::time::timeout(ANSWER_LIMIT, answer);
    match limit.await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => Response::text(503, "The process ended before it answered: try again."),
        Err(_) => Response::text(503, "The process is too busy to answer: try again."),
    }
}

impl IntoResponse for Response {
    fn into_response(self) -> axum::response::Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        match self.content_type {
            Some(kind) => (status, [(header::CONTENT_TYPE, kind)], self.body).into_response(),
            None => (status, self.body).into_response(),
        }
    }
}
