//! The HTTP server of one node: node-wide endpoints, and the way to the process that serves a path.
//!
//! It has a thread of its own, so that a node can be looked at also while its other threads are stuck. Clients may be
//! anybody, so what they may take is bounded ([`HttpLimits`]), and who they are is found out before anybody serves them
//! ([`super::clients`]).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::IntoResponse;
use tokio::sync::oneshot;
use tracing::warn;

use super::access::{Caller, Realm};
use super::auth::{Gate, Security};
use super::clients::{AsksForHead, Client, Clients, GoesOn, InHand, accept_all};
use super::own::{self, Own};
use super::tls::{HttpCertificate, Tls};
use super::{HttpLimits, Request, Response, body, path};
use crate::inbox::Inbox;
use crate::node::NodeHandle;
use crate::process::{Served, Takes};

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
    let opening = node.opening();
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
                    () = accept_all(listener, opening, clients, router) => {}
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

/// What serves a path.
pub(super) enum Target {
    /// The node itself.
    Own(&'static Own),
    /// This process, under this path below its id.
    Process(Arc<Inbox>, String, Served),
    Nobody,
}

impl Target {
    pub(super) fn of(node: &NodeHandle, path: &str) -> Self {
        if let Some(own) = own::ALL.iter().find(|own| own.path == path) {
            return Self::Own(own);
        }
        match node.serves(path) {
            Some((inbox, path, served)) => Self::Process(inbox, path.to_owned(), served),
            None => Self::Nobody,
        }
    }

    /// Which realm it is in.
    pub(super) fn realm(&self) -> Realm {
        match self {
            Self::Own(own) => own.realm,
            Self::Process(_, _, served) => served.realm,
            Self::Nobody => Realm::Open,
        }
    }
}

fn router(node: NodeHandle) -> Router {
    let started = node.clock().now();
    let router = own::ALL.iter().fold(Router::new(), |router, own| {
        router.route(own.path, (own.serve)(started))
    });
    router
        .fallback(process)
        .method_not_allowed_fallback(|method: Method| async move {
            Response::method_not_allowed(&["GET"], method.as_str())
        })
        .with_state(node)
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
    Extension(target): Extension<Arc<Target>>,
    Extension(client): Extension<Arc<Client>>,
    Extension(caller): Extension<Arc<Caller>>,
    request: axum::extract::Request,
) -> Response {
    let (head, body) = request.into_parts();
    let uri = head.uri;
    let Target::Process(inbox, path, served) = &*target else {
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
        method: match head.extensions.get::<AsksForHead>() {
            Some(_) => Method::HEAD.to_string(),
            None => head.method.to_string(),
        },
        path: path.clone(),
        query,
        target: (uri.path_and_query())
            .map_or(uri.path(), |all| all.as_str())
            .to_owned(),
        caller,
        max_nesting: limits.nesting,
        ..Request::default()
    };
    let mut place = None;
    if served.takes == Takes::Call {
        request.body = match body::of_call(
            &head.headers,
            body,
            (limits, &client.clients.readers),
            &request.caller,
        )
        .await
        {
            Ok(body) => body,
            Err(refusal) => return refusal,
        };
        request.headers = gather(&head.headers, |_| true);
        let mut may_go_on = true;
        if let Some(read) = served.read {
            let read = client.clients.readers.read(read, request).await;
            let Some(read) = read else {
                return Response::text(503, "The node is ending: try elsewhere.");
            };
            (request, may_go_on) = read;
        }
        // Before the process makes room for a stream that none may be left for. What is not known beforehand takes a place
        // when it turns out to go on.
        if may_go_on && served.read.is_some() {
            place = client.take_stream();
            request.has_no_stream_left = place.is_none();
        } else {
            request.has_no_stream_left = client.has_no_stream_left();
        }
    } else {
        request.headers = gather(&head.headers, |name| {
            *name == header::IF_NONE_MATCH || *name == header::ACCEPT
        });
    }
    let mut response = answer(inbox, request).await;
    if let Some(stream) = response.stream.take() {
        let Some(place) = place.or_else(|| client.take_stream()) else {
            return Response::text(503, Request::NO_STREAM_LEFT);
        };
        response.stream = Some(stream.holding(InHand::of(client, place)));
    }
    response
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
