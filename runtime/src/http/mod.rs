//! HTTP of a node, on the TCP port of the same number as its actor messages.
//!
//! Every process may serve paths under its id (`/master/state`, `/slave(1)/state`); a node may name one of its
//! processes the delegate, whose paths also stand without the id (`/state`). A request is an event of the process's
//! control lane, so it is answered from one consistent state between two messages. The node itself serves
//! `/health`, `/version`, `/metrics/snapshot`, `/metrics`, and `/__processes__`, which tells of its processes and peers
//! without asking them. `/logging` is its process [`crate::logging::Logging`].

mod connections;
pub(crate) mod server;
mod status;

use std::collections::BTreeMap;

use tokio::sync::oneshot;

/// One request, as a handler sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Path below the process's id; `/state` for `/master/state`.
    pub path: String,
    /// Query parameters, percent-decoded; of a repeated one the last counts.
    pub query: BTreeMap<String, String>,
    /// Path and query as the client asked for them, to send it elsewhere.
    pub target: String,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Value of `Content-Type`; none for an empty body.
    pub content_type: Option<&'static str>,
    /// Body.
    pub body: bytes::Bytes,
    /// Value of `Location`: where to ask instead.
    pub location: Option<String>,
}

/// Splits the path of a request into the id of a process and the path below it: `/master/state` into `master` and
/// `/state`.
pub(crate) fn split_path(path: &str) -> (&str, &str) {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split_at(path.find('/').unwrap_or(path.len()))
}

/// Content type of JSON bodies.
pub const JSON: &str = "application/json";
/// Content type of plain text bodies.
pub const TEXT: &str = "text/plain; charset=utf-8";

impl Response {
    /// 200 with a JSON body.
    pub fn json(value: &serde_json::Value) -> Self {
        Self {
            status: 200,
            content_type: Some(JSON),
            body: value.to_string().into(),
            location: None,
        }
    }

    /// Any status with a text body.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self {
            status,
            content_type: Some(TEXT),
            body: text.into().into(),
            location: None,
        }
    }

    /// 200 without a body.
    pub fn empty() -> Self {
        Self {
            status: 200,
            content_type: None,
            body: bytes::Bytes::new(),
            location: None,
        }
    }

    /// 307 without a body: ask there, with the same method.
    pub fn redirect(location: impl Into<String>) -> Self {
        Self {
            status: 307,
            location: Some(location.into()),
            ..Self::empty()
        }
    }
}

/// Carries one answer back to the connection that waits for it.
pub struct Responder(oneshot::Sender<Response>);

impl Responder {
    pub(crate) fn new() -> (Self, oneshot::Receiver<Response>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Answers. The client may have gone; then the answer is dropped.
    pub(crate) fn respond(self, response: Response) {
        if self.0.send(response).is_err() {
            tracing::debug!("an HTTP client left before its answer");
        }
    }
}
