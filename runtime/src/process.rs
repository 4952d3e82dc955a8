//! What a component implements to be an actor: [`Process`] for its life, [`Receive`] for each message it takes.
//!
//! A process never waits and never touches a socket, a clock or a file: a handler looks at its own state, decides,
//! and appends effects to its [`Context`]. The host carries them out in order after the turn. The same process can
//! therefore run in production and under a scheduler that stops between any two effects.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use parking_lot::RwLock;

use crate::codec::CodecError;
use crate::context::Context;
use crate::http::readers::{Read, ReadCall};
use crate::http::{About, Realm, Request, Response};
use crate::links::ExitReason;
use crate::message::{Kind, Message, Payload};
use crate::pid::Pid;

/// An actor. It is built on the thread that hosts it, so it need not be `Send`.
pub trait Process: Sized + 'static {
    /// Lists the messages and HTTP paths that processes of this type serve. Called once for the type.
    fn routes(routes: &mut Routes<Self>);

    /// First turn, before any message.
    fn start(&mut self, _cx: &mut Context<'_, Self>) {}

    /// A process this one had linked to has ended, or the connection to it broke. Comes exactly once for each link,
    /// after the last message of that process.
    fn exited(&mut self, _cx: &mut Context<'_, Self>, _pid: &Pid, _reason: ExitReason) {}

    /// Last part of every turn, whatever it was: for what follows from a change of the process's state wherever it was
    /// changed. What it sends comes after everything else of the turn.
    fn turn_ends(&mut self, _cx: &mut Context<'_, Self>) {}
}

/// Takes messages of one kind.
pub trait Receive<M: Message>: Process {
    /// Handles one message. `from` is the sender's PID; of a remote sender the runtime has checked that it is the
    /// authenticated peer and has a role that may send `M`.
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, message: M);
}

pub(crate) type Handler<P> =
    fn(&mut P, &mut Context<'_, P>, &Pid, Payload) -> Result<(), CodecError>;
type HttpHandler<P> = fn(&mut P, &mut Context<'_, P>, &Request) -> Response;

/// One kind a process takes.
struct Route<P> {
    kind: Kind,
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

/// Dispatch table of a type of processes, shared by all of them.
pub struct Routes<P> {
    /// In the order of [`Profile::accepted`].
    kinds: Vec<Route<P>>,
    http: BTreeMap<&'static str, (Served, HttpHandler<P>)>,
    /// The path that was added last.
    latest: Option<&'static str>,
    profile: Arc<Profile>,
}

/// How much of a request a path's handler wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Path and query.
    Query,
    /// Headers and body too.
    Call,
}

/// What a node must know of a path before it is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Served {
    pub(crate) takes: Takes,
    pub(crate) realm: Realm,
    pub(crate) about: About,
    /// What makes of a request what its handler needs.
    pub(crate) read: Option<Read>,
}

/// What a node must know of a process before it runs: what it takes, and from whom.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    /// Kinds it takes, with who may send them.
    pub(crate) accepted: Vec<(Kind, Accepted)>,
    /// Finds a kind's place in `accepted`.
    places: Places,
    /// HTTP paths it serves.
    pub(crate) http_paths: BTreeMap<&'static str, Served>,
    /// Two names that share one kind, if any.
    pub(crate) clash: Option<(&'static str, &'static str)>,
    /// Takes every kind, from anybody: a probe of the test kit.
    pub(crate) takes_any: bool,
}

/// Places of kinds, found with one look where no two kinds share a slot. Kinds are hashes, so their low bits will do.
#[derive(Debug, Default)]
struct Places(Vec<Option<(Kind, usize)>>);

impl Places {
    fn of(kinds: impl ExactSizeIterator<Item = Kind>) -> Self {
        let mut slots = vec![None; (kinds.len() * 4).next_power_of_two()];
        let mask = slots.len() - 1;
        for (place, kind) in kinds.enumerate() {
            let mut slot = kind.0 as usize & mask;
            while slots[slot].is_some() {
                slot = (slot + 1) & mask;
            }
            slots[slot] = Some((kind, place));
        }
        Self(slots)
    }

    /// At most a quarter of the slots is taken, so the search meets an empty one.
    fn find(&self, kind: Kind) -> Option<usize> {
        let mask = self.0.len().wrapping_sub(1);
        let mut slot = kind.0 as usize & mask;
        while let Some((known, place)) = *self.0.get(slot)? {
            if known == kind {
                return Some(place);
            }
            slot = (slot + 1) & mask;
        }
        None
    }
}

impl Profile {
    /// Profile of a process type.
    pub(crate) fn of<P: Process>() -> Arc<Self> {
        Arc::clone(&Routes::<P>::of().profile)
    }

    /// Profile of a probe, whatever it will be sent.
    pub(crate) fn of_a_probe() -> Arc<Self> {
        Arc::new(Self {
            takes_any: true,
            ..Self::default()
        })
    }

    /// Place of a kind in `accepted`.
    pub(crate) fn place(&self, kind: Kind) -> Option<usize> {
        self.places.find(kind)
    }

    /// Who may send a kind; `None` when the process does not take it.
    pub(crate) fn accepts(&self, kind: Kind) -> Option<&Accepted> {
        Some(&self.accepted.get(self.place(kind)?)?.1)
    }
}

/// The tables of all process types that were used so far. They follow from the types alone, so that sharing them
/// between nodes is seen by nobody.
static TABLES: LazyLock<RwLock<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>> =
    LazyLock::new(RwLock::default);

impl<P: Process> Routes<P> {
    /// The table of this process type.
    pub(crate) fn of() -> Arc<Self> {
        let known = TABLES.read().get(&TypeId::of::<P>()).cloned();
        if let Some(Ok(table)) = known.map(Arc::downcast::<Self>) {
            return table;
        }
        let table = Arc::new(Self::build());
        let erased = Arc::clone(&table) as Arc<dyn Any + Send + Sync>;
        TABLES.write().insert(TypeId::of::<P>(), erased);
        table
    }

    fn build() -> Self {
        let mut routes = Self {
            kinds: Vec::new(),
            http: BTreeMap::new(),
            latest: None,
            profile: Arc::default(),
        };
        P::routes(&mut routes);
        let mut clash = None;
        let mut accepted: Vec<(Kind, Accepted)> = Vec::new();
        for route in &routes.kinds {
            let twin = accepted.iter().find(|(kind, _)| *kind == route.kind);
            if let Some((_, other)) = twin {
                clash.get_or_insert((other.name, route.accepted.name));
            }
            accepted.push((route.kind, route.accepted));
        }
        routes.profile = Arc::new(Profile {
            places: Places::of(accepted.iter().map(|(kind, _)| *kind)),
            accepted,
            http_paths: (routes.http.iter())
                .map(|(path, (served, _))| (*path, *served))
                .collect(),
            clash,
            takes_any: false,
        });
        routes
    }

    /// Takes messages of kind `M`.
    pub fn on<M: Message>(&mut self) -> &mut Self
    where
        P: Receive<M>,
    {
        self.kinds.push(Route {
            kind: Kind::of::<M>(),
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
        });
        self
    }

    /// Serves `GET /<id>/<path>`; `path` starts with `/`, or is empty for the process itself. A request whose client has
    /// left before its turn comes is not served. In the realm [`Realm::ReadOnly`].
    pub fn get(&mut self, path: &'static str, handler: HttpHandler<P>) -> &mut Self {
        self.serve(path, Takes::Query, Realm::ReadOnly, handler)
    }

    /// The same in another realm.
    pub fn get_in(
        &mut self,
        realm: Realm,
        path: &'static str,
        handler: HttpHandler<P>,
    ) -> &mut Self {
        self.serve(path, Takes::Query, realm, handler)
    }

    /// The same for everybody: nobody is asked who they are.
    pub fn open(&mut self, path: &'static str, handler: HttpHandler<P>) -> &mut Self {
        self.serve(path, Takes::Query, Realm::Open, handler)
    }

    /// Serves requests of any method for `/<id>/<path>`, with headers and body. In the realm [`Realm::ReadWrite`].
    pub fn call(&mut self, path: &'static str, handler: HttpHandler<P>) -> &mut Self {
        self.serve(path, Takes::Call, Realm::ReadWrite, handler)
    }

    /// The same in another realm.
    pub fn call_in(
        &mut self,
        realm: Realm,
        path: &'static str,
        handler: HttpHandler<P>,
    ) -> &mut Self {
        self.serve(path, Takes::Call, realm, handler)
    }

    fn serve(
        &mut self,
        path: &'static str,
        takes: Takes,
        realm: Realm,
        handler: HttpHandler<P>,
    ) -> &mut Self {
        let served = Served {
            takes,
            realm,
            about: About::NOTHING,
            read: None,
        };
        self.http.insert(path, (served, handler));
        self.latest = Some(path);
        self
    }

    fn latest(&mut self, change: impl FnOnce(&mut Served)) -> &mut Self {
        let latest = self.latest.and_then(|path| self.http.get_mut(path));
        if let Some((served, _)) = latest {
            change(served);
        }
        self
    }

    /// What `/help` and `/openapi.json` tell of the path that was added last.
    pub fn about(&mut self, about: About) -> &mut Self {
        self.latest(|served| served.about = about)
    }

    /// Has the body of a call for the path that was added last read beside the process, by a function of the request alone. The
    /// handler takes what came of it ([`Request::take_reading`]).
    pub fn reading(&mut self, read: fn(&Request) -> ReadCall) -> &mut Self {
        self.latest(|served| served.read = Some(read))
    }

    pub(crate) fn handler(&self, kind: Kind) -> Option<Handler<P>> {
        self.handler_at(self.profile.place(kind)?)
    }

    /// The handler of the kind at this place of the profile.
    pub(crate) fn handler_at(&self, place: usize) -> Option<Handler<P>> {
        Some(self.kinds.get(place)?.handler)
    }

    pub(crate) fn http_handler(&self, path: &str) -> Option<(Takes, HttpHandler<P>)> {
        (self.http.get(path)).map(|(served, handler)| (served.takes, *handler))
    }
}

/// The message inside a payload: moved out when it was sent on this node, decoded when it came over the wire.
///
/// # Errors
/// [`CodecError`] when the bytes are no `M`, or a local value is of another type with the same kind.
pub(crate) fn open<M: Message>(payload: Payload) -> Result<M, CodecError> {
    match payload {
        Payload::Local(parcel) => parcel.open().ok_or(CodecError::Malformed(
            "another type has this message's kind",
        )),
        Payload::Wire(bytes) => M::read_body(&bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_kind_in_its_place_and_no_other() {
        let kinds: Vec<Kind> = (0..300_u32).map(|n| Kind(n * 8)).collect();
        let places = Places::of(kinds.iter().copied());
        for (place, kind) in kinds.iter().enumerate() {
            assert_eq!(places.find(*kind), Some(place));
            assert_eq!(places.find(Kind(kind.0 + 1)), None);
        }
        assert_eq!(Places::default().find(Kind(1)), None);
        assert_eq!(Places::of(std::iter::empty()).find(Kind(1)), None);
    }
}
