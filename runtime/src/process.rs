//! What a component implements to be an actor: [`Process`] for its life, [`Receive`] for each message it takes.
//!
//! A process never waits and never touches a socket, a clock or a file: a handler looks at its own state, decides,
//! and appends effects to its [`Context`]. The host carries them out in order after the turn. The same process can
//! therefore run in production and under a scheduler that stops between any two effects.

use std::collections::{BTreeMap, HashMap};

use crate::codec::CodecError;
use crate::context::Context;
use crate::http::{Request, Response};
use crate::links::ExitReason;
use crate::message::{Kind, Message, Payload};
use crate::pid::Pid;

/// An actor. It is built on the thread that hosts it, so it need not be `Send`.
pub trait Process: Sized + 'static {
    /// Lists the messages and HTTP paths this process serves. Called once per process.
    fn routes(routes: &mut Routes<Self>);

    /// First turn, before any message.
    fn start(&mut self, _cx: &mut Context<'_, Self>) {}

    /// A process this one had linked to has ended, or the connection to it broke. Comes exactly once for each link,
    /// after the last message of that process.
    fn exited(&mut self, _cx: &mut Context<'_, Self>, _pid: &Pid, _reason: ExitReason) {}
}

/// Takes messages of one kind.
pub trait Receive<M: Message>: Process {
    /// Handles one message. `from` is the sender's PID; of a remote sender the runtime has checked that it is the
    /// authenticated peer and has a role that may send `M`.
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, message: M);
}

type Handler<P> = fn(&mut P, &mut Context<'_, P>, &Pid, Payload) -> Result<(), CodecError>;
type HttpHandler<P> = fn(&mut P, &mut Context<'_, P>, &Request) -> Response;

/// One kind a process takes.
struct Route<P> {
    name: &'static str,
    handler: Handler<P>,
    accepted: Accepted,
}

/// Who may send one kind, as the network thread needs to know it.
#[derive(Debug, Clone, Copy)]
pub struct Accepted {
    /// Roles that may send it; empty for any.
    pub senders: &'static [&'static str],
    /// Wire name, for the log.
    pub name: &'static str,
    /// Version of the fields.
    pub version: u16,
}

/// Dispatch table of one process.
pub struct Routes<P> {
    kinds: HashMap<Kind, Route<P>>,
    http: BTreeMap<&'static str, HttpHandler<P>>,
    clash: Option<(&'static str, &'static str)>,
}

/// What a node must know of a process before it runs: what it takes, and from whom.
pub(crate) struct Profile {
    /// Kinds it takes, with who may send them.
    pub(crate) accepted: HashMap<Kind, Accepted>,
    /// HTTP paths it serves.
    pub(crate) http_paths: Vec<&'static str>,
    /// Two names that share one kind, if any.
    pub(crate) clash: Option<(&'static str, &'static str)>,
    /// Takes every kind, from anybody: a probe of the test kit.
    pub(crate) takes_any: bool,
}

impl Profile {
    /// Profile of a process type.
    pub(crate) fn of<P: Process>() -> Self {
        let routes = Routes::<P>::of();
        let accepted = routes.kinds.iter();
        Self {
            accepted: accepted
                .map(|(kind, route)| (*kind, route.accepted))
                .collect(),
            http_paths: routes.http.keys().copied().collect(),
            clash: routes.clash,
            takes_any: false,
        }
    }

    /// Profile of a probe, whatever it will be sent.
    pub(crate) fn of_a_probe() -> Self {
        Self {
            accepted: HashMap::new(),
            http_paths: Vec::new(),
            clash: None,
            takes_any: true,
        }
    }
}

impl<P: Process> Routes<P> {
    pub(crate) fn of() -> Self {
        let mut routes = Self {
            kinds: HashMap::new(),
            http: BTreeMap::new(),
            clash: None,
        };
        P::routes(&mut routes);
        routes
    }

    /// Takes messages of kind `M`.
    pub fn on<M: Message>(&mut self) -> &mut Self
    where
        P: Receive<M>,
    {
        let route = Route {
            name: M::NAME,
            handler: |process: &mut P, cx, from, payload| {
                let message = open::<M>(payload)?;
                process.receive(cx, from, message);
                Ok(())
            },
            accepted: Accepted {
                senders: M::SENDERS,
                name: M::NAME,
                version: M::VERSION,
            },
        };
        if let Some(other) = self.kinds.insert(Kind::of::<M>(), route) {
            self.clash.get_or_insert((other.name, M::NAME));
        }
        self
    }

    /// Serves `GET /<id>/<path>`; `path` starts with `/`, or is empty for the process itself.
    pub fn get(&mut self, path: &'static str, handler: HttpHandler<P>) -> &mut Self {
        self.http.insert(path, handler);
        self
    }

    pub(crate) fn handler(&self, kind: Kind) -> Option<Handler<P>> {
        self.kinds.get(&kind).map(|route| route.handler)
    }

    pub(crate) fn http_handler(&self, path: &str) -> Option<HttpHandler<P>> {
        self.http.get(path).copied()
    }
}

/// The message inside a payload: moved out when it was sent on this node, decoded when it came over the wire.
///
/// # Errors
/// [`CodecError`] when the bytes are no `M`, or a local value is of another type with the same kind.
pub(crate) fn open<M: Message>(payload: Payload) -> Result<M, CodecError> {
    match payload {
        Payload::Local(parcel) => parcel
            .into_any()
            .downcast::<M>()
            .map(|message| *message)
            .map_err(|_| CodecError::Malformed("another type has this message's kind")),
        Payload::Wire(bytes) => M::read_body(&bytes),
    }
}
