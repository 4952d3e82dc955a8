//! HTTP of a node, on the TCP port of the same number as its actor messages.
//!
//! Every process may serve paths under its id (`/master/state`, `/slave(1)/state`); a node may name one of its
//! processes the delegate, whose paths also stand without the id (`/state`). A request is an event of the process's
//! control lane, so it is answered from one consistent state between two messages. The node itself serves
//! `/health`, `/version`, `/metrics/snapshot`, `/metrics`, `/__processes__`, which tells of its processes and peers
//! without asking them, `/help` and `/openapi.json`. `/logging` is its process [`crate::logging::Logging`].

pub mod about;
pub mod access;
pub mod auth;
mod body;
mod checked;
mod clients;
mod connections;
pub mod cors;
mod dress;
mod encoding;
pub mod flags;
pub(crate) mod framing;
mod help;
mod limits;
mod origin;
pub(crate) mod own;
pub(crate) mod path;
pub(crate) mod readers;
pub(crate) mod server;
pub(crate) mod status;
mod stream;
mod tags;
pub mod tls;
mod version;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

pub use about::About;
pub use access::{Caller, Need, Principal, Realm};
pub use auth::Security;
pub use limits::HttpLimits;
pub use readers::{ReadCall, Reading};
pub use stream::{Stream, StreamClosed, StreamEnd, StreamSender, stream};
pub use version::Version;

/// One request, as a handler sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Method: `GET`, `POST` …
    pub method: String,
    /// Path below the process's id; `/state` for `/master/state`.
    pub path: String,
    /// Query parameters, percent-decoded; of a repeated one the last counts.
    pub query: BTreeMap<String, String>,
    /// Path and query as the client asked for them, to send it elsewhere.
    pub target: String,
    /// Headers by name in lower case; of a repeated one all values, with commas between. For [`Routes::call`]; others
    /// see `if-none-match` and `accept`, and no more.
    ///
    /// [`Routes::call`]: crate::Routes::call
    pub headers: BTreeMap<String, String>,
    /// The body. Only for [`Routes::call`](crate::Routes::call), and empty once it was read ([`Request::take_reading`]).
    pub body: bytes::Bytes,
    /// What was read of it.
    pub reading: Reading,
    /// Who asks. What changes something, or shows what tasks have written, is for those only who may
    /// ([`Caller::may`]).
    pub caller: Arc<Caller>,
    /// Levels that the body may nest.
    pub max_nesting: usize,
    /// Whether as many answers go on as may: one more is to be refused, with [`Request::NO_STREAM_LEFT`].
    pub has_no_stream_left: bool,
}

impl Request {
    /// What is told, with status 503, to a client whose answer cannot go on.
    pub const NO_STREAM_LEFT: &str =
        "As many streams are open as may be: try again, or see --max_http_streams.";

    /// The value of a header, whose name is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// One answer.
#[derive(Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Value of `Content-Type`; none for an empty body.
    pub content_type: Option<&'static str>,
    /// Body.
    pub body: bytes::Bytes,
    /// Value of `Location`: where to ask instead.
    pub location: Option<String>,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// What follows the body, if the answer goes on.
    pub stream: Option<Stream>,
    /// Set when this is not the answer yet.
    pub(crate) later: Option<oneshot::Receiver<Response>>,
}

/// Gives the answer to a request that could not be answered in the turn it came in. When it is dropped, the client is
/// told that the process has not answered.
#[derive(Debug)]
pub struct Later(oneshot::Sender<Response>);

impl Later {
    /// Answers. The client may have gone; then the answer is dropped.
    pub fn answer(self, response: Response) {
        Responder(self.0).respond(response);
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_abandoned(&self) -> bool {
        self.0.is_closed()
    }
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
            content_type: Some(JSON),
            body: value.to_string().into(),
            ..Self::empty()
        }
    }

    /// 200 with whatever serde can write as JSON. It is written straight to bytes.
    pub fn serialized<T: serde::Serialize + ?Sized>(value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::body(JSON, body),
            Err(error) => Self::text(500, error.to_string()),
        }
    }

    /// 200 with a body.
    pub fn body(content_type: &'static str, body: impl Into<bytes::Bytes>) -> Self {
        Self {
            content_type: Some(content_type),
            body: body.into(),
            ..Self::empty()
        }
    }

    /// For a request whose answer needs more than this turn: what a handler returns, and what answers it later.
    pub fn later() -> (Later, Self) {
        let (sender, receiver) = oneshot::channel();
        let response = Self {
            later: Some(receiver),
            ..Self::empty()
        };
        (Later(sender), response)
    }

    /// 405: the path takes these methods only.
    pub fn method_not_allowed(allowed: &[&str], got: &str) -> Self {
        let all: Vec<String> = allowed.iter().map(|method| format!("'{method}'")).collect();
        let text = format!(
            "405 Method Not Allowed. Expecting one of {{ {} }}, but received '{got}'.",
            all.join(", ")
        );
        Self::text(405, text).with_header("allow", allowed.join(", "))
    }

    /// Any status with a text body.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self {
            status,
            content_type: Some(TEXT),
            body: text.into().into(),
            ..Self::empty()
        }
    }

    /// 200 with an answer that goes on: each record of the stream is a chunk of it.
    pub fn stream(content_type: &'static str, stream: Stream) -> Self {
        Self {
            content_type: Some(content_type),
            stream: Some(stream),
            ..Self::empty()
        }
    }

    /// The same with another status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The same with one more header.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// 200 without a body.
    pub fn empty() -> Self {
        Self {
            status: 200,
            content_type: None,
            body: bytes::Bytes::new(),
            location: None,
            headers: Vec::new(),
            stream: None,
            later: None,
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

    /// Whether nobody waits for the answer any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.0.is_closed()
    }

    /// Answers. The client may have gone; then the answer is dropped.
    pub(crate) fn respond(self, response: Response) {
        if self.0.send(response).is_err() {
            tracing::debug!("an HTTP client left before its answer");
        }
    }
}
