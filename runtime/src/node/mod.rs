//! A node: one runtime instance with its actors, clock, transport, metrics and HTTP port.
//!
//! There are no globals: a test holds as many nodes as it likes in one process. A node owns its threads: one for its
//! transport and its actors, more for actors if it is told so, and one for HTTP. Dropping the last handle does not end
//! it, [`Node::shutdown`] does.

mod builder;
mod routing;
mod status;
mod threads;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dashmap::DashMap;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tracing::{error, warn};

pub use builder::{Credentials, NodeBuilder, NodeError};
pub use status::{Drops, HandlerStatus, ProcessStatus};
pub use threads::Placement;
pub(crate) use threads::Threads;

use crate::clock::{Clock, Time};
use crate::context::{AnyOp, AskError, Effect, Home, Outside, QueueNames, Reserved, Surroundings};
use crate::host::driver::Start;
use crate::host::worker::Entry;
use crate::host::{self, Factory};
use crate::http::{Request, Responder, Response, path, split_path};
use crate::identity::{GuestKey, IdentityError};
use crate::inbox::{Control, Inbox, Settings, User};
use crate::links::{ExitReason, Links};
use crate::message::{Ask, Correlation, Envelope, Kind, Message, Parcel, Payload};
use crate::metrics::Metrics;
use crate::opening::Opening;
use crate::pid::{Address, ParsePidError, Pid};
use crate::process::Served;
use crate::process::{Process, Profile, open};
use crate::testing::{Filters, Testing};
use crate::transport::{Kinds, PeerKey, PeerStatus, Transport};

/// Longest wait for the first thread at a shutdown: it may wait for others in turn, each for ten seconds.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(30);

/// Closed when a thread has ended.
type Ended = std::sync::mpsc::Receiver<std::convert::Infallible>;

/// Id under which code outside all actors sends and asks.
pub(crate) const OUTSIDE: &str = "node";

/// Why a process was not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpawnError {
    /// A process of this name lives.
    #[error("a process named {0} runs on this node: end it first or use another name")]
    NameTaken(Pid),
    /// The name cannot be an id.
    #[error("bad process name")]
    BadName(#[from] ParsePidError),
    /// The name stands for code outside all processes.
    #[error("{0} stands for the code of its node outside all processes: use another name")]
    Reserved(Pid),
    /// Two message names hash to one number.
    #[error("messages {0} and {1} have the same wire number: rename one")]
    KindClash(&'static str, &'static str),
    /// The node is shutting down.
    #[error("the node is shut down")]
    NodeDown,
}

type OpHandler =
    Arc<dyn Fn(Box<dyn Any + Send>) -> BoxFuture<'static, Box<dyn Any + Send>> + Send + Sync>;

pub(crate) struct Shared {
    /// Which of the nodes of this program, counted from 1: what a PID remembers is of one node.
    number: u64,
    address: Address,
    clock: Clock,
    metrics: Metrics,
    seed: u64,
    mailbox: usize,
    max_asks: usize,
    threads: Arc<Threads>,
    /// Set on a guest: the node whose address it shares and through which it reaches everything.
    host: Option<PeerKey>,
    inboxes: DashMap<Arc<str>, Arc<Inbox>>,
    counters: Mutex<HashMap<String, u64>>,
    links: Mutex<Links>,
    transport: OnceLock<Arc<dyn Transport>>,
    runtime: tokio::runtime::Handle,
    operators: HashMap<TypeId, OpHandler>,
    asks: AtomicU64,
    /// Message kinds its processes have taken so far, told to peers. Only grows.
    kinds: Kinds,
    /// Processes started so far.
    spawns: AtomicU64,
    outside_asks: DashMap<u64, (Pid, oneshot::Sender<Result<Payload, AskError>>)>,
    end_waiters: Mutex<HashMap<Pid, Vec<oneshot::Sender<ExitReason>>>>,
    delegate: OnceLock<Arc<str>>,
    awaits_delegate: bool,
    opening: Opening,
    filters: Filters,
    stop: Mutex<Option<oneshot::Sender<()>>>,
    /// The first thread, and what tells that it has ended.
    thread: Mutex<Option<(std::thread::JoinHandle<()>, Ended)>>,
}

/// A running node. Clones are the same node.
#[derive(Clone)]
pub struct Node(NodeHandle);

/// What actors and hosts hold of their node.
#[derive(Clone)]
pub struct NodeHandle(Arc<Shared>);

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({})", self.address())
    }
}

/// The answer to an ask made from outside all actors.
pub struct Pending<R> {
    answer: oneshot::Receiver<Result<Payload, AskError>>,
    reply: std::marker::PhantomData<fn() -> R>,
}

impl<R: Message> Pending<R> {
    /// Waits for the answer.
    ///
    /// # Errors
    /// [`AskError`] when the question could not be delivered, no answer came in time, or it is of another type.
    pub async fn answer(self) -> Result<R, AskError> {
        let answer = self.answer.await.unwrap_or(Err(AskError::TimedOut));
        open(answer?).map_err(|_| AskError::BadAnswer)
    }

    /// Waits for the answer and blocks the thread, which must not be the node's. The limit is counted by the node's
    /// clock: while that is paused and nobody advances it, a question that nobody answers blocks for good.
    ///
    /// # Errors
    /// As [`Pending::answer`].
    pub fn wait(self) -> Result<R, AskError> {
        let answer = self.answer.blocking_recv();
        open(answer.unwrap_or(Err(AskError::TimedOut))?).map_err(|_| AskError::BadAnswer)
    }
}

impl Node {
    /// Settings of a node to be started.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    /// Address under which other nodes reach this one.
    pub fn address(&self) -> &Address {
        &self.0.0.address
    }

    /// Clock of this node.
    pub fn clock(&self) -> &Clock {
        self.0.clock()
    }

    /// Metrics of this node.
    pub fn metrics(&self) -> &Metrics {
        self.0.metrics()
    }

    /// PID of `id` on this node, whether or not such a process lives.
    ///
    /// # Errors
    /// [`ParsePidError::BadId`] when the id cannot be one.
    pub fn pid(&self, id: &str) -> Result<Pid, ParsePidError> {
        Pid::new(id, self.address().clone())
    }

    /// Starts a process under a name that is free, on the node's first thread. `build` runs there.
    ///
    /// # Errors
    /// [`SpawnError`] when the name is taken or no name, or two message kinds of the process clash.
    pub fn spawn<P: Process>(
        &self,
        id: &str,
        build: impl FnOnce() -> P + Send + 'static,
    ) -> Result<Pid, SpawnError> {
        self.spawn_placed(id, Placement::Near, build)
    }

    /// Starts a process under a name that is free, on a thread of the given kind. `build` runs there.
    ///
    /// # Errors
    /// As [`Node::spawn`].
    pub fn spawn_placed<P: Process>(
        &self,
        id: &str,
        placement: Placement,
        build: impl FnOnce() -> P + Send + 'static,
    ) -> Result<Pid, SpawnError> {
        let reserved = Reserved::take(&self.0.home(), id, Profile::of::<P>(), placement)?;
        let pid = reserved.pid().clone();
        if self.0.start(reserved, Factory::new(build)) {
            Ok(pid)
        } else {
            Err(SpawnError::NodeDown)
        }
    }

    /// Starts a process under the next name `prefix(n)`, counting from 1.
    ///
    /// # Errors
    /// As [`Node::spawn`].
    pub fn spawn_numbered<P: Process>(
        &self,
        prefix: &str,
        build: impl FnOnce() -> P + Send + 'static,
    ) -> Result<Pid, SpawnError> {
        self.spawn(&self.0.0.next_id(prefix), build)
    }

    /// What code outside all actors may hold of this node. It does not keep the node running, only its memory.
    pub fn outside(&self) -> Outside {
        Outside(Arc::clone(&self.0.0) as Arc<dyn Home>)
    }

    /// Sends a message from outside all actors.
    pub fn send<M: Message>(&self, to: &Pid, message: M) {
        self.outside().send(to, message);
    }

    /// Asks from outside all actors.
    pub fn ask<M: Ask>(&self, to: &Pid, message: M, limit: Duration) -> Pending<M::Reply> {
        let (sender, answer) = oneshot::channel();
        let number = self.0.0.next_ask();
        let (parcel, kind) = (Parcel::new(message), Kind::of::<M>());
        let correlation = Correlation::Request(number);
        if let Some(request) = self.0.outside(to, parcel, kind, correlation) {
            let shared = &self.0.0;
            shared.outside_asks.insert(number, (to.clone(), sender));
            let expire = Arc::downgrade(shared);
            shared.clock.at(shared.clock.now() + limit, move || {
                if let Some(shared) = expire.upgrade() {
                    shared.outside_asks.remove(&number);
                }
            });
            if !self.0.deliver(request)
                && let Some((_, (_, asker))) = shared.outside_asks.remove(&number)
            {
                // The asker may have dropped the answer.
                let _gone = asker.send(Err(AskError::Undelivered));
            }
        }
        Pending {
            answer,
            reply: std::marker::PhantomData,
        }
    }

    /// Ends a process of this node after what is in its mailbox now. A PID of another node changes nothing.
    pub fn terminate(&self, pid: &Pid) {
        self.0.terminate(pid, ExitReason::Terminated);
    }

    /// Waits until a process of this node has ended; at once when there is none, as for a PID of another node.
    pub fn ended(&self, pid: &Pid) -> impl Future<Output = ExitReason> + Send + use<> {
        let (sender, receiver) = oneshot::channel();
        {
            // Under the lock, so that the process cannot end between the look and the registration.
            let mut waiters = self.0.0.end_waiters.lock();
            if pid.address() == self.address() && self.0.0.inboxes.contains_key(pid.id()) {
                waiters.entry(pid.clone()).or_default().push(sender);
            }
        }
        async move { receiver.await.unwrap_or(ExitReason::NoProcess) }
    }

    /// What a test may do with this node: watch, drop, hold or double messages, and spawn probes.
    pub fn testing(&self) -> Testing {
        Testing::of(&self.0)
    }

    /// Names the process whose HTTP paths also stand without its id.
    pub fn delegate(&self, id: &str) {
        if self.0.0.delegate.set(Arc::from(id)).is_err() {
            warn!(id, "this node has a delegate already; the first one stays");
        }
    }

    /// All processes.
    pub fn processes(&self) -> Vec<ProcessStatus> {
        self.0.processes()
    }

    /// All peers there is a connection to or was one lately.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.0.peers()
    }

    /// Ends all processes, tells linked ones elsewhere, closes connections and joins the node's thread. Blocks, at
    /// most 30 s when a process does not return from its handler, whose thread is then left behind; must not be called
    /// on the node's own thread. Later calls return at once.
    pub fn shutdown(&self) {
        let stop = self.0.0.stop.lock().take();
        if let Some(stop) = stop {
            // The thread may have ended by itself; then there is nobody to tell.
            let told = stop.send(());
            debug_assert!(told.is_ok(), "the node's thread waits for this");
        }
        let Some((thread, ended)) = self.0.0.thread.lock().take() else {
            return;
        };
        if ended.recv_timeout(SHUTDOWN_LIMIT) == Err(RecvTimeoutError::Timeout) {
            error!(
                node = %self.address(),
                "a process does not return from its handler: the node's first thread is left behind"
            );
        } else if thread.join().is_err() {
            warn!(node = %self.address(), "the node's thread panicked");
        }
    }
}

impl Home for Shared {
    fn wall(&self, now: Time) -> Duration {
        self.clock.wall(now)
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn next_ask(&self) -> u64 {
        self.asks.fetch_add(1, Ordering::Relaxed)
    }

    fn max_asks(&self) -> usize {
        self.max_asks
    }

    fn next_id(&self, prefix: &str) -> String {
        let mut counters = self.counters.lock();
        let n = counters.entry(prefix.to_owned()).or_insert(0);
        *n += 1;
        format!("{prefix}({n})")
    }

    fn reserve(
        &self,
        id: &str,
        profile: Arc<Profile>,
        placement: Placement,
    ) -> Result<Pid, SpawnError> {
        let pid = Pid::new(id, self.address.clone())?;
        if id == OUTSIDE {
            return Err(SpawnError::Reserved(pid));
        }
        if let Some((one, other)) = profile.clash {
            return Err(SpawnError::KindClash(one, other));
        }
        for (kind, accepted) in &profile.accepted {
            let added = self.kinds.add(*kind, accepted.name, accepted.version);
            added.map_err(|known| SpawnError::KindClash(known, accepted.name))?;
        }
        match self.inboxes.entry(pid.shared_id()) {
            dashmap::Entry::Occupied(_) => Err(SpawnError::NameTaken(pid)),
            dashmap::Entry::Vacant(free) => {
                let thread = self.threads.place(placement).ok_or(SpawnError::NodeDown)?;
                let inbox = Inbox::new(Settings {
                    id: pid.shared_id(),
                    address: self.address.clone(),
                    node: self.number,
                    profile,
                    capacity: self.mailbox,
                    clock: self.clock.clone(),
                    thread,
                });
                pid.remember(Arc::clone(&inbox) as Arc<dyn Any + Send + Sync>);
                free.insert(inbox);
                Ok(pid)
            }
        }
    }

    fn release(self: Arc<Self>, pid: &Pid) {
        let node = NodeHandle(self);
        if let Some(inbox) = node.inbox(pid.id())
            && pid
                .shortcut::<Inbox>()
                .is_some_and(|own| std::ptr::eq(own, &*inbox))
        {
            node.ended(&inbox, ExitReason::Terminated);
        }
        // The start was counted when the inbox was made.
        node.clock().done(1);
    }

    fn send_from_outside(self: Arc<Self>, to: &Pid, parcel: Parcel, kind: Kind) {
        let node = NodeHandle(self);
        if let Some(envelope) = node.outside(to, parcel, kind, Correlation::None) {
            node.deliver(envelope);
        }
    }

    fn guest_key(&self) -> Result<GuestKey, IdentityError> {
        GuestKey::generate()
    }

    fn show_queue(self: Arc<Self>, of: &Pid, names: QueueNames) {
        let (node, id) = (Arc::downgrade(&self), of.shared_id());
        self.metrics.before_reading(names.messages, move |metrics| {
            let Some(node) = node.upgrade() else {
                return;
            };
            // One that has ended has nothing that waits.
            let depths = node.inboxes.get(&id).map_or((0, 0, 0), |inbox| {
                (inbox.depth(), inbox.control_depth(), inbox.http_depth())
            });
            let (messages, control, http) = depths;
            for (name, value) in [
                (names.messages, messages),
                (names.dispatches, control.saturating_sub(http)),
                (names.http_requests, http),
            ] {
                metrics.set(name, u32::try_from(value).map_or(f64::MAX, f64::from));
            }
        });
    }
}

impl NodeHandle {
    pub(crate) fn address(&self) -> &Address {
        &self.0.address
    }

    pub(crate) fn peers(&self) -> Vec<PeerStatus> {
        let transport = self.0.transport.get();
        transport.map(|t| t.peers()).unwrap_or_default()
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// What a process asks of this node.
    pub(crate) fn home(&self) -> Arc<dyn Home> {
        Arc::clone(&self.0) as Arc<dyn Home>
    }

    /// What a test does to messages before its actors see them.
    pub(crate) fn filters(&self) -> &Filters {
        &self.0.filters
    }

    /// Starts a process whose name is reserved; `false` when the node's thread has ended.
    pub(crate) fn start(&self, reserved: Reserved, factory: Factory) -> bool {
        let Some(inbox) = self.inbox(reserved.pid().id()) else {
            return false;
        };
        let pid = reserved.starts();
        let surroundings = Surroundings {
            me: pid.clone(),
            home: self.home(),
        };
        // Each process draws from its own stream, so that one more draw here changes nothing there; the number of
        // the start lets a name that is used again draw another one. The multiplier spreads it over all bits.
        let started = self.0.spawns.fetch_add(1, Ordering::Relaxed);
        let seed = self.0.seed
            ^ u64::from(Kind::named(pid.id()).0).rotate_left(32)
            ^ started.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let thread = Arc::clone(inbox.thread());
        let start = Start {
            inbox,
            node: self.clone(),
            surroundings,
            factory,
            seed,
        };
        match thread.post(Entry::Start(Box::new(start))) {
            Ok(()) => true,
            Err(entry) => {
                if let Entry::Start(start) = entry {
                    start.abandon();
                }
                false
            }
        }
    }

    fn inbox(&self, id: &str) -> Option<Arc<Inbox>> {
        self.0.inboxes.get(id).map(|inbox| Arc::clone(&inbox))
    }

    fn outside(
        &self,
        to: &Pid,
        parcel: Parcel,
        kind: Kind,
        correlation: Correlation,
    ) -> Option<Envelope> {
        let from = Pid::new(OUTSIDE, self.0.address.clone()).ok()?;
        Some(Envelope {
            to: to.clone(),
            from,
            kind,
            correlation,
            payload: Payload::Local(parcel),
        })
    }

    /// Carries out an effect that concerns more than the process itself.
    pub(crate) fn carry_out(&self, inbox: &Arc<Inbox>, effect: Effect) {
        match effect {
            Effect::Send(envelope) => {
                self.deliver(envelope);
            }
            Effect::Link(target) => self.link(&inbox.pid(), target),
            Effect::Unlink(target) => self.unlink(&inbox.pid(), target),
            Effect::Spawn { reserved, factory } => {
                self.start(reserved, factory);
            }
            Effect::Terminate(pid) => self.terminate(&pid, ExitReason::Terminated),
            Effect::Respond(responder, response) => responder.respond(response),
            Effect::Pin(guest) => {
                if let Some(transport) = self.0.transport.get() {
                    transport.pin(guest);
                }
            }
            Effect::Unpin(id) => {
                if let Some(transport) = self.0.transport.get() {
                    transport.unpin(&id);
                }
            }
            Effect::OpenNode => self.0.opening.open(),
            Effect::Ask { .. }
            | Effect::AskRefused { .. }
            | Effect::After { .. }
            | Effect::Cancel(_)
            | Effect::Run { .. }
            | Effect::Stop(_) => {
                debug_assert!(false, "the driver keeps these to itself");
            }
        }
    }

    /// Has an operation carried out and its outcome put into the inbox. One that can have no outcome ends the process,
    /// which may be holding back everything until then.
    pub(crate) fn operate(&self, inbox: &Arc<Inbox>, number: u64, op: AnyOp) {
        let Some(operator) = self.0.operators.get(&op.type_id) else {
            let reason = format!("no operator for {}: give one to NodeBuilder::op", op.name);
            inbox.push_control(Control::OpFailed(reason));
            return;
        };
        let name = op.name;
        let failed = move |panic: Box<dyn Any + Send>| {
            let text = host::panic_text(panic.as_ref());
            Control::OpFailed(format!("operation {name} panicked: {text}"))
        };
        // What a panic leaves behind belongs to the operation, and nobody uses it again.
        let done = match catch_unwind(AssertUnwindSafe(|| operator(op.op))) {
            Ok(done) => AssertUnwindSafe(done).catch_unwind(),
            Err(panic) => {
                inbox.push_control(failed(panic));
                return;
            }
        };
        self.0.clock.busy();
        let (inbox, clock) = (Arc::clone(inbox), self.0.clock.clone());
        self.0.runtime.spawn(async move {
            inbox.push_control(match done.await {
                Ok(out) => Control::OpDone { number, out },
                Err(panic) => failed(panic),
            });
            clock.done(1);
        });
    }

    pub(crate) fn terminate(&self, pid: &Pid, reason: ExitReason) {
        if *pid.address() != self.0.address {
            warn!(%pid, node = %self.0.address, "only a process of the own node can be terminated");
            return;
        }
        if let Some(inbox) = self.inbox(pid.id())
            && inbox.push(User::Terminate(reason)).is_err()
        {
            tracing::debug!(%pid, "the process had ended before it was terminated");
        }
    }

    /// The process that serves a path, with the path below its id and what of a request it wants.
    pub(crate) fn serves<'a>(&self, path: &'a str) -> Option<(Arc<Inbox>, &'a str, Served)> {
        let (id, rest) = split_path(path);
        let takes = |inbox: &Inbox, path: &'a str| {
            let served = &inbox.profile().http_paths;
            path::and_above(path).find_map(|path| Some((path, *served.get(path)?)))
        };
        let named = self
            .inbox(id)
            .and_then(|inbox| Some((takes(&inbox, rest)?, inbox)));
        if let Some(((rest, wants), inbox)) = named {
            return Some((inbox, rest, wants));
        }
        let inbox = self.inbox(self.0.delegate.get()?)?;
        let (path, wants) = takes(&inbox, path)?;
        Some((inbox, path, wants))
    }

    /// All paths of all processes: the id, whether it is the delegate, the path below it.
    pub(crate) fn all_served(&self) -> Vec<(String, bool, &'static str, Served)> {
        let delegate = self.0.delegate.get();
        let mut all = Vec::new();
        for inbox in self.0.inboxes.iter() {
            let id = inbox.id();
            let is_delegate = delegate.is_some_and(|delegate| **delegate == *id);
            let paths = inbox.profile().http_paths.iter();
            all.extend(paths.map(|(path, served)| (id.to_owned(), is_delegate, *path, *served)));
        }
        all
    }

    /// When its HTTP connections are taken.
    pub(crate) fn opening(&self) -> Opening {
        self.0.opening.clone()
    }

    /// Whether a delegate is to come, so that what nobody serves may be served soon.
    pub(crate) fn awaits_delegate(&self) -> bool {
        self.0.awaits_delegate && self.0.delegate.get().is_none()
    }

    /// Puts a request into the inbox of the process that serves it.
    pub(crate) fn http(inbox: &Inbox, request: Request) -> oneshot::Receiver<Response> {
        let (responder, answer) = Responder::new();
        if let Some(refused) = inbox.push_http(request, responder) {
            let text = "Too many requests wait for this process: try again.";
            refused.respond(Response::text(503, text));
        }
        answer
    }
}
