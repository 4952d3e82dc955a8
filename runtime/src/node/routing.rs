//! Where a message, a link or an end goes: to a mailbox of this node, to a guest, or to a peer.

use std::any::Any;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use tracing::{debug, error, warn};

use super::{NodeHandle, OUTSIDE, Shared};
use crate::codec::{self, Class, CodecError, Frame};
use crate::host::stats::DropCause;
use crate::inbox::{Inbox, Refused, User};
use crate::links::{Effect, ExitReason, Input};
use crate::message::{Correlation, Envelope, Mail, Payload};
use crate::pid::Pid;
use crate::transport::{Body, Known, Loss, Peer, PeerKey, Route, SendError, Upcalls, Violation};

/// Body of links and unlinks.
static NOTHING: Bytes = Bytes::new();

/// Messages of one turn to one process that are put into its mailbox at once.
const RUN: usize = 64;

/// Messages from a peer that are put into a mailbox at once: fewer, for each is copied out of what was read meanwhile.
const ARRIVED_RUN: usize = 16;

enum Place {
    Here,
    Peer(PeerKey),
}

impl NodeHandle {
    fn place(&self, pid: &Pid) -> Place {
        if *pid.address() != self.0.address {
            return Place::Peer(PeerKey::Node(pid.address().clone()));
        }
        if pid.id() == OUTSIDE || self.0.inboxes.contains_key(pid.id()) {
            return Place::Here;
        }
        if let Some(host) = &self.0.host {
            return Place::Peer(host.clone());
        }
        let guest = self
            .0
            .transport
            .get()
            .is_some_and(|t| t.has_guest(pid.id()));
        if guest {
            Place::Peer(PeerKey::Guest(pid.shared_id()))
        } else {
            Place::Here
        }
    }

    /// Delivers a message, here or elsewhere; `false` when it was dropped, which is logged and counted.
    pub(crate) fn deliver(&self, envelope: Envelope) -> bool {
        let to = envelope.to.clone();
        if let Some(inbox) = self.remembered(&to) {
            return self.push(inbox, envelope);
        }
        match self.place(&envelope.to) {
            Place::Here => self.deliver_here(envelope),
            Place::Peer(peer) => self.deliver_to_peer(&peer, envelope),
        }
    }

    /// The inbox that this node found for this PID before, if its process still lives. When it has ended, another may
    /// have the name, so the name is looked up again.
    fn remembered<'a>(&self, pid: &'a Pid) -> Option<&'a Inbox> {
        pid.shortcut::<Inbox>()
            .filter(|inbox| inbox.node() == self.0.number && !inbox.is_closed())
    }

    fn deliver_here(&self, envelope: Envelope) -> bool {
        if envelope.to.id() == OUTSIDE {
            return self.deliver_outside(envelope);
        }
        let Some(inbox) = self.inbox(envelope.to.id()) else {
            self.0.metrics.count("runtime/messages_dropped/no_process");
            debug!(to = %envelope.to, from = %envelope.from, "message to no process dropped");
            return false;
        };
        let shortcut = Arc::clone(&inbox) as Arc<dyn Any + Send + Sync>;
        envelope.to.remember(shortcut);
        self.push(&inbox, envelope)
    }

    /// Delivers a message and those that follow it to the same process, in this order. As long as there is room, a run
    /// of them takes the lock of their mailbox once.
    pub(crate) fn deliver_run(&self, first: Envelope, mut more: impl Iterator<Item = Envelope>) {
        if *first.to.address() != self.0.address {
            // All of them to the same peer.
            let peer = PeerKey::Node(first.to.address().clone());
            for envelope in std::iter::once(first).chain(more) {
                self.deliver_to_peer(&peer, envelope);
            }
            return;
        }
        let to = first.to.clone();
        let mut next = Some(first);
        while let Some(envelope) = next {
            if let Some(inbox) = self.remembered(&to) {
                let mut pushing = inbox.pushing();
                let refused = pushing.push(User::Message(envelope.into())).err();
                if refused.is_none() {
                    pushing.push_run(
                        RUN - 1,
                        more.by_ref().map(|next| User::Message(next.into())),
                    );
                }
                pushing.finish();
                // What is dropped is dropped without the lock.
                if let Some((refused, _event)) = refused {
                    self.pushed(inbox, Err(refused));
                }
            } else {
                self.deliver(envelope);
            }
            next = more.next();
        }
    }

    /// Puts a message into a mailbox; `false` when it was dropped.
    fn push(&self, inbox: &Inbox, envelope: Envelope) -> bool {
        self.pushed(inbox, inbox.push(User::Message(envelope.into())))
    }

    /// Logs and counts what became of a message; `false` when it was dropped.
    fn pushed(&self, inbox: &Inbox, pushed: Result<(), Refused>) -> bool {
        match pushed {
            Ok(()) => true,
            Err(Refused::Closed) => {
                self.0.metrics.count("runtime/messages_dropped/no_process");
                false
            }
            Err(Refused::Full) => {
                self.0
                    .metrics
                    .count("runtime/messages_dropped/mailbox_full");
                debug!(to = %inbox.pid(), "mailbox full: the message is dropped");
                false
            }
            Err(Refused::OwnFull) => {
                self.0
                    .metrics
                    .count("runtime/messages_dropped/mailbox_full");
                // At 1, 2, 4, 8 …: an overrun process must not be the end of the log too.
                let dropped = inbox.stats.drops().reserve_full;
                if dropped.is_power_of_two() {
                    error!(to = %inbox.pid(), dropped, "mailbox and reserve full: messages of this node are dropped");
                }
                false
            }
        }
    }

    fn deliver_outside(&self, envelope: Envelope) -> bool {
        let Correlation::Answer(number) = envelope.correlation else {
            self.0.metrics.count("runtime/messages_dropped/no_process");
            debug!(from = %envelope.from, "message to the node itself dropped");
            return false;
        };
        let asked = self
            .0
            .outside_asks
            .remove_if(&number, |_, (asked, _)| *asked == envelope.from);
        match asked {
            Some((_, (_, answer))) => answer.send(Ok(envelope.payload)).is_ok(),
            None => false,
        }
    }

    fn deliver_to_peer(&self, peer: &PeerKey, envelope: Envelope) -> bool {
        let Envelope {
            to,
            from,
            kind,
            correlation,
            payload,
        } = envelope;
        let body = match &payload {
            Payload::Local(parcel) => Body::Value(parcel),
            Payload::Wire(body) => Body::Bytes(body),
        };
        let class = Class::Message { kind, correlation };
        self.send_frame(peer, class, &to, &from, body).is_ok()
    }

    fn send_frame(
        &self,
        peer: &PeerKey,
        class: Class,
        to: &Pid,
        from: &Pid,
        body: Body<'_>,
    ) -> Result<(), SendError> {
        let Some(transport) = self.0.transport.get() else {
            return Err(SendError::Unreachable(peer.clone()));
        };
        let sent = transport.post(peer, class, to, from, body);
        sent.inspect_err(|error| {
            if let SendError::Codec {
                source: CodecError::Encode(_),
                ..
            } = error
            {
                warn!(%to, %from, ?class, error = %crate::error_chain(error), "message does not encode: dropped");
                return;
            }
            self.0.metrics.count("runtime/messages_dropped/not_sent");
            debug!(%to, %from, error = %crate::error_chain(error), "frame dropped");
        })
    }

    /// A peer's probe from this address: see [`crate::transport::Transport::probe`].
    pub(crate) fn probe(&self, host: std::net::IpAddr, port: u16) -> Option<Box<dyn Any + Send>> {
        self.0.transport.get()?.probe(host, port)
    }

    pub(crate) fn link(&self, watcher: &Pid, target: Pid) {
        let watcher = watcher.clone();
        match self.place(&target) {
            Place::Here => self.links_with(|| {
                Some(Input::WatchLocal {
                    alive: self.is_alive(&target),
                    watcher,
                    target,
                })
            }),
            Place::Peer(peer) => self.links(Input::WatchRemote {
                watcher,
                target,
                peer,
            }),
        }
    }

    pub(crate) fn unlink(&self, watcher: &Pid, target: Pid) {
        self.links(Input::Unwatch {
            watcher: watcher.clone(),
            target,
        });
    }

    fn is_alive(&self, pid: &Pid) -> bool {
        self.inbox(pid.id()).is_some_and(|inbox| !inbox.is_closed())
    }

    fn links(&self, input: Input) {
        self.links_with(|| Some(input));
    }

    /// Steps the link table and carries out what follows. The lock is held over the effects of one step, so that
    /// those of two steps for one pair keep their order; and while `input` looks whether a process lives or takes its
    /// name away, so that no process ends unseen between the look and the step.
    ///
    /// The table of inboxes is looked into under this lock: who holds a guard of that table must not ask for it.
    fn links_with(&self, input: impl FnOnce() -> Option<Input>) {
        let mut table = self.0.links.lock();
        let Some(input) = input() else {
            return;
        };
        let mut effects: std::collections::VecDeque<Effect> = table.step(input).into();
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Notify {
                    watcher,
                    target,
                    reason,
                } => self.notify(&watcher, target, reason),
                Effect::SendLink {
                    peer,
                    watcher,
                    target,
                } => {
                    let sent = self.send_frame(
                        &peer,
                        Class::Link,
                        &target,
                        &watcher,
                        Body::Bytes(&NOTHING),
                    );
                    if sent.is_err() {
                        effects.extend(table.step(Input::RemoteExited {
                            watcher,
                            target,
                            reason: ExitReason::ConnectionLost,
                        }));
                    }
                }
                Effect::SendUnlink {
                    peer,
                    watcher,
                    target,
                } => {
                    // A lost unlink costs one notice that finds nobody: nothing to do about it here.
                    let _dropped_is_fine = self.send_frame(
                        &peer,
                        Class::Unlink,
                        &target,
                        &watcher,
                        Body::Bytes(&NOTHING),
                    );
                }
                Effect::SendExited {
                    peer,
                    watcher,
                    target,
                    reason,
                } => self.send_exited(&peer, &watcher, &target, &reason),
            }
        }
    }

    fn send_exited(&self, peer: &PeerKey, watcher: &Pid, target: &Pid, reason: &ExitReason) {
        match codec::encode_body(reason) {
            Ok(body) => {
                let body = Body::Bytes(&body);
                if let Err(error) = self.send_frame(peer, Class::Exited, watcher, target, body) {
                    warn!(%watcher, %error, "exit notice not sent: the watcher hears when the connection ends");
                }
            }
            Err(error) => warn!(%watcher, %error, "exit reason does not encode"),
        }
    }

    fn notify(&self, watcher: &Pid, pid: Pid, reason: ExitReason) {
        if let Some(inbox) = self.inbox(watcher.id())
            && inbox.push(User::Exited { pid, reason }).is_err()
        {
            debug!(%watcher, "the watcher has ended too");
        }
    }

    /// A process of this node has ended: frees its name, drops its mail, tells those that linked to it. Does nothing
    /// the second time.
    pub(crate) fn ended(&self, inbox: &Arc<Inbox>, reason: ExitReason) {
        // Closed before the name is free: who remembers this inbox must find it closed once another has the name.
        inbox.close();
        let pid = inbox.pid();
        let mut waiters = None;
        // The name is free and the end is told in one: what another process of the name links to, and who links to
        // it or waits for its end, is not mixed up with this one's.
        self.links_with(|| {
            let mut waiting = self.0.end_waiters.lock();
            let own = |_: &Arc<str>, current: &Arc<Inbox>| Arc::ptr_eq(current, inbox);
            self.0.inboxes.remove_if(inbox.id(), own)?;
            waiters = waiting.remove(&pid);
            Some(Input::Ended {
                pid,
                reason: reason.clone(),
            })
        });
        for waiter in waiters.into_iter().flatten() {
            // Nobody may be waiting any more.
            let _gone = waiter.send(reason.clone());
        }
    }

    fn check_sender(&self, peer: &Peer, from: &Pid) -> Result<(), Violation> {
        let true_to_itself = match &peer.key {
            PeerKey::Node(address) => from.address() == address,
            PeerKey::Guest(id) => *from.id() == **id && *from.address() == self.0.address,
        };
        if true_to_itself {
            Ok(())
        } else {
            Err(Violation {
                peer: peer.key.clone(),
                claimed: from.to_string(),
            })
        }
    }

    /// A route of the peer: its sender must be the peer.
    fn route(&self, peer: &Peer, to: Arc<str>, from: Pid) -> Result<Route, Violation> {
        self.check_sender(peer, &from)?;
        Ok(Route::new(to, from))
    }

    /// What came on a route, whose sender was checked when it was made.
    fn arrived(&self, peer: &Peer, route: &mut Route, class: Class, body: Bytes) {
        let Some((to, inbox)) = self.resolve(route) else {
            debug!(from = %route.from, "frame to an id that cannot be one dropped");
            return;
        };
        let from = route.from.clone();
        match class {
            Class::Message { kind, correlation } => {
                let envelope = Envelope {
                    to,
                    from,
                    kind,
                    correlation,
                    payload: Payload::Wire(body),
                };
                let Some(inbox) = inbox else {
                    self.deliver_here(envelope);
                    return;
                };
                let asked = !matches!(correlation, Correlation::Answer(_));
                if asked && route.known.as_ref().is_none_or(|k| k.kind != Some(kind)) {
                    if !self.may_receive(peer, &inbox, &envelope) {
                        return;
                    }
                    if let Some(known) = &mut route.known {
                        known.kind = Some(kind);
                    }
                }
                let pushed = inbox.push(User::Message(envelope.into()));
                self.pushed_for(peer, &inbox, pushed);
            }
            Class::Link => self.links_with(|| {
                Some(Input::RemoteWatch {
                    alive: self.is_alive(&to),
                    watcher: from,
                    peer: peer.key.clone(),
                    target: to,
                })
            }),
            Class::Unlink => self.links(Input::RemoteUnwatch {
                watcher: from,
                target: to,
            }),
            Class::Exited => {
                let reason = codec::decode_body(&body).unwrap_or(ExitReason::Unknown);
                self.links(Input::RemoteExited {
                    watcher: to,
                    target: from,
                    reason,
                });
            }
        }
    }

    /// Logs and counts what became of a peer's message, and tells the peer of a full mailbox.
    fn pushed_for(&self, peer: &Peer, inbox: &Inbox, pushed: Result<(), Refused>) {
        if !self.pushed(inbox, pushed)
            && !inbox.is_closed()
            && let Some(transport) = self.0.transport.get()
        {
            transport.overloaded(&peer.key, &inbox.pid());
        }
    }

    /// Puts messages into the mailbox that the route was found to lead to, a run of them under one lock. The first that
    /// has to be looked at is handed back.
    fn push_run(
        &self,
        peer: &Peer,
        route: &Route,
        messages: &mut dyn Iterator<Item = (Class, Bytes)>,
    ) -> Option<(Class, Bytes)> {
        let Some(known) = &route.known else {
            return messages.next();
        };
        let Some(inbox) = known.inbox.upgrade().filter(|inbox| !inbox.is_closed()) else {
            return messages.next();
        };
        let mut pushing = inbox.pushing();
        let mut room = ARRIVED_RUN;
        for (class, body) in &mut *messages {
            let (kind, correlation) = match class {
                Class::Message { kind, correlation }
                    if known.kind == Some(kind)
                        || matches!(correlation, Correlation::Answer(_)) =>
                {
                    (kind, correlation)
                }
                Class::Message { .. } | Class::Link | Class::Unlink | Class::Exited => {
                    pushing.finish();
                    return Some((class, body));
                }
            };
            let mail = Mail {
                from: route.from.clone(),
                kind,
                correlation,
                payload: Payload::Wire(body),
            };
            let pushed = pushing.push(User::Message(mail));
            room -= 1;
            if room > 0 && pushed.is_ok() {
                continue;
            }
            // What is dropped is dropped without the lock.
            pushing.finish();
            self.pushed_for(peer, &inbox, pushed.map_err(|(refused, _event)| refused));
            if inbox.is_closed() {
                // Another may have the name by now.
                return messages.next();
            }
            pushing = inbox.pushing();
            room = ARRIVED_RUN;
        }
        pushing.finish();
        None
    }

    /// The receiver of a route and its mailbox, if such a process lives; `None` when the id cannot be one.
    fn resolve(&self, route: &mut Route) -> Option<(Pid, Option<Arc<Inbox>>)> {
        if let Some(known) = &route.known
            && let Some(inbox) = known.inbox.upgrade()
            && !inbox.is_closed()
        {
            return Some((known.to.clone(), Some(inbox)));
        }
        let to = Pid::new(&route.to, self.0.address.clone()).ok()?;
        let inbox = self.inbox(&route.to);
        route.known = inbox.as_ref().map(|inbox| Known {
            to: to.clone(),
            inbox: Arc::downgrade(inbox),
            kind: None,
        });
        Some((to, inbox))
    }

    /// Whether the peer's role may send a message of this kind; answers are matched with what was asked instead.
    fn may_receive(&self, peer: &Peer, inbox: &Inbox, envelope: &Envelope) -> bool {
        let Some(accepted) = inbox.profile().accepts(envelope.kind) else {
            if inbox.profile().takes_any {
                return true;
            }
            self.0
                .metrics
                .count("runtime/messages_dropped/unknown_kind");
            inbox.stats.dropped(DropCause::UnknownKind, 1);
            debug!(to = %envelope.to, from = %envelope.from, kind = ?envelope.kind, "message of an unknown kind dropped");
            return false;
        };
        let allowed = accepted.senders.is_empty()
            || peer
                .roles
                .iter()
                .any(|role| accepted.senders.contains(&&**role));
        if !allowed {
            self.0.metrics.count("runtime/messages_dropped/role");
            inbox.stats.dropped(DropCause::WrongRole, 1);
            warn!(to = %envelope.to, from = %envelope.from, message = accepted.name, roles = ?peer.roles,
                "message dropped: no role of the sender may send it");
        }
        allowed
    }
}

/// What the transport holds of the node: weak, so that neither keeps the other alive.
pub(super) struct Uplink(pub(super) Weak<Shared>);

impl Upcalls for Uplink {
    fn received(&self, peer: &Peer, frame: Frame) -> Result<(), Violation> {
        let mut route = self.route(peer, frame.to, frame.from)?;
        self.arrived(peer, &mut route, frame.class, frame.body)
    }

    fn route(&self, peer: &Peer, to: Arc<str>, from: Pid) -> Result<Route, Violation> {
        match self.0.upgrade() {
            Some(shared) => NodeHandle(shared).route(peer, to, from),
            None => Ok(Route::new(to, from)),
        }
    }

    fn arrived(
        &self,
        peer: &Peer,
        route: &mut Route,
        class: Class,
        body: Bytes,
    ) -> Result<(), Violation> {
        if let Some(shared) = self.0.upgrade() {
            NodeHandle(shared).arrived(peer, route, class, body);
        }
        Ok(())
    }

    fn arrived_run(
        &self,
        peer: &Peer,
        route: &mut Route,
        messages: &mut dyn Iterator<Item = (Class, Bytes)>,
    ) -> Result<(), Violation> {
        let Some(shared) = self.0.upgrade() else {
            for message in messages {
                drop(message);
            }
            return Ok(());
        };
        let node = NodeHandle(shared);
        while let Some((class, body)) = node.push_run(peer, route, messages) {
            node.arrived(peer, route, class, body);
        }
        Ok(())
    }

    fn is_linked(&self, peer: &PeerKey) -> bool {
        self.0
            .upgrade()
            .is_some_and(|shared| shared.links.lock().concern(peer))
    }

    fn overloaded(&self, peer: &Peer, id: &str) {
        if let Some(shared) = self.0.upgrade() {
            shared.metrics.count("runtime/overloads_heard");
            debug!(peer = %peer.key, process = id, "peer says that its process is overloaded");
        }
    }

    fn lost(&self, peer: &PeerKey, loss: Loss) {
        if let Some(shared) = self.0.upgrade() {
            let reason = match loss {
                Loss::ConnectionLost => ExitReason::ConnectionLost,
                Loss::NodeRestarted => ExitReason::NodeRestarted,
            };
            NodeHandle(shared).links(Input::PeerLost {
                peer: peer.clone(),
                reason,
            });
        }
    }
}
