//! The in-memory transport: nodes of one test joined without sockets, with delay, loss, doubling, cuts and crashes.
//!
//! Frames are encoded and decoded as on the wire, so a test on this network finds messages that do not round-trip.
//! For each pair of nodes they arrive in the order sent, whatever their delays. A cut lets frames vanish in silence,
//! as a dead cable does; when it has lasted [`SILENCE`] both ends lose the connection. Time comes from the clock of
//! the node that sends.
//!
//! It is harsher than the real transport where a test wants that: single frames may get lost ([`MemoryNetwork::lose`])
//! or come twice ([`MemoryNetwork::duplicate`]), which no QUIC connection does, and what is sent during a short cut
//! is gone, where QUIC would send it again.
//!
//! A node that starts at the address of one that is there already, or was there and crashed, is another run of it:
//! its peers are told [`Loss::NodeRestarted`] before they get its first frame.

mod faults;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tracing::warn;

use self::faults::{Faults, Weather};
use super::{Guest, Incarnation, Loss, Peer, PeerKey, PeerStatus, SendError, Transport, Upcalls};
use crate::clock::{Clock, Time};
use crate::codec::{DEFAULT_MAX_MESSAGE, Frame};
use crate::pid::Address;

/// How long a connection may be silent before its ends give it up.
pub const SILENCE: Duration = Duration::from_secs(5);
/// First port given to nodes that ask for any.
const FIRST_PORT: u16 = 20_000;

enum Delivery {
    Frame(Peer, Frame),
    Lost(PeerKey, Loss),
}

/// A delivery that counts as unfinished business of its clock until it is dropped, be it made or not.
struct Queued {
    delivery: Delivery,
    _pending: Pending,
}

struct Pending(Clock);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.done(1);
    }
}

struct Member {
    /// Tells runs at one place apart.
    run: u64,
    /// How others see it.
    as_peer: Peer,
    clock: Clock,
    deliveries: mpsc::UnboundedSender<Queued>,
    /// Guests it lets in.
    pinned: BTreeMap<Arc<str>, Arc<str>>,
    /// Members it has exchanged frames with: those that hear of its loss.
    connected: BTreeSet<Place>,
    sent: u64,
    dropped: u64,
}

/// Where a member sits: guests share the address of their host.
type Place = (Address, Option<Arc<str>>);

struct State {
    members: BTreeMap<Place, Member>,
    /// One-way cuts: frames from the first to the second vanish. Each cut has its own number.
    cuts: BTreeMap<(Address, Address), u64>,
    weather: Weather,
    next_port: u16,
    /// Runs and cuts so far.
    count: u64,
    /// When the last frame of a pair arrives, so that a shorter delay does not let a later frame overtake it.
    last: BTreeMap<(Place, Place), Time>,
    /// Raised at each break of a pair: frames under way from before are dropped.
    generation: BTreeMap<(Place, Place), u64>,
}

/// A network in memory. Clones are the same network.
#[derive(Clone)]
pub struct MemoryNetwork {
    state: Arc<Mutex<State>>,
}

impl std::fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "MemoryNetwork({} members)",
            self.state.lock().members.len()
        )
    }
}

impl Default for MemoryNetwork {
    fn default() -> Self {
        Self::new(0)
    }
}

impl MemoryNetwork {
    /// A network without faults; what is drawn later, such as losses and delays, comes from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                members: BTreeMap::new(),
                cuts: BTreeMap::new(),
                weather: Weather::new(seed),
                next_port: FIRST_PORT,
                count: 0,
                last: BTreeMap::new(),
                generation: BTreeMap::new(),
            })),
        }
    }

    /// Lets every frame sent from now on take this long.
    pub fn delay(&self, delay: Duration) {
        self.everywhere().delay(delay);
    }

    /// Lets every frame sent from now on take a time drawn evenly from this range. Frames of a pair stay in order.
    pub fn delay_between(&self, shortest: Duration, longest: Duration) {
        self.everywhere().delay_between(shortest, longest);
    }

    /// Drops this share of the frames sent from now on, 0 to 1. A real connection loses only a suffix; this is for
    /// tests of protocols that must bear any loss.
    pub fn lose(&self, share: f64) {
        self.everywhere().lose(share);
    }

    /// Lets this share of the frames sent from now on arrive twice, 0 to 1, the second after a delay of its own. The
    /// real transport never does that; this is for tests of protocols that send again.
    pub fn duplicate(&self, share: f64) {
        self.everywhere().duplicate(share);
    }

    /// The faults of frames from one node to another, apart from all others: it starts with theirs.
    pub fn path(&self, from: &Address, to: &Address) -> Path {
        Path {
            network: self.clone(),
            ends: Some((from.clone(), to.clone())),
        }
    }

    fn everywhere(&self) -> Path {
        Path {
            network: self.clone(),
            ends: None,
        }
    }

    /// Lets frames between two nodes vanish, both ways, until [`MemoryNetwork::heal`]. After [`SILENCE`] both ends
    /// lose the connection.
    pub fn cut(&self, one: &Address, other: &Address) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Lets frames from one node to another vanish. After [`SILENCE`] both ends lose the connection, since nothing
    /// is confirmed any more.
    pub fn cut_one_way(&self, from: &Address, to: &Address) {
        let mut state = self.state.lock();
        state.count += 1;
        let (pair, number) = ((from.clone(), to.clone()), state.count);
        state.cuts.insert(pair.clone(), number);
        let connections: Vec<(Place, Place, Clock)> = state
            .members
            .iter()
            .filter(|((address, _), _)| address == from)
            .flat_map(|(place, member)| {
                let others = member.connected.iter();
                let others = others.filter(|(address, _)| address == to);
                others.map(|other| (place.clone(), other.clone(), member.clock.clone()))
            })
            .collect();
        drop(state);
        for (place, other, clock) in connections {
            let (network, pair) = (self.clone(), pair.clone());
            clock.at(clock.now() + SILENCE, move || {
                let mut state = network.state.lock();
                if state.cuts.get(&pair) == Some(&number) {
                    state.part(&place, &other, Loss::ConnectionLost);
                }
            });
        }
    }

    /// Ends all cuts between two nodes.
    pub fn heal(&self, one: &Address, other: &Address) {
        let mut state = self.state.lock();
        state.cuts.remove(&(one.clone(), other.clone()));
        state.cuts.remove(&(other.clone(), one.clone()));
    }

    /// Takes a node off the network without a word, as if its machine had lost power. Nobody can reach it and it
    /// reaches nobody, for good. Its peers lose it after [`SILENCE`], or when another run of it joins at its address
    /// ([`crate::NodeBuilder::port`]) before that. What it has sent already still arrives. The [`crate::Node`] itself
    /// goes on in its solitude until it is shut down.
    pub fn crash(&self, node: &Address) {
        let place: Place = (node.clone(), None);
        let mut state = self.state.lock();
        let Some(gone) = state.members.remove(&place) else {
            return;
        };
        for other in gone.connected {
            let Some(clock) = state.members.get(&other).map(|m| m.clock.clone()) else {
                continue;
            };
            let (network, place) = (self.clone(), place.clone());
            let generation = state.generation(&place, &other);
            clock.at(clock.now() + SILENCE, move || {
                let mut state = network.state.lock();
                if state.generation(&place, &other) == generation {
                    state.part(&place, &other, Loss::ConnectionLost);
                }
            });
        }
    }

    /// Breaks the connection between two nodes now: frames under way are lost, both ends are told.
    pub fn disconnect(&self, one: &Address, other: &Address) {
        self.state.lock().part(
            &(one.clone(), None),
            &(other.clone(), None),
            Loss::ConnectionLost,
        );
    }

    pub(crate) fn address(&self, host: &str, port: u16) -> Address {
        if port != 0 {
            return Address::new(host, port);
        }
        let mut state = self.state.lock();
        state.next_port += 1;
        Address::new(host, state.next_port)
    }

    /// Joins a node; called on its thread, where its deliveries will be made.
    pub(crate) fn join(
        &self,
        key: PeerKey,
        address: &Address,
        incarnation: Incarnation,
        role: &str,
        clock: &Clock,
        upcalls: Arc<dyn Upcalls>,
    ) -> Arc<dyn Transport> {
        let place: Place = match &key {
            PeerKey::Node(_) => (address.clone(), None),
            PeerKey::Guest(id) => (address.clone(), Some(Arc::clone(id))),
        };
        let (deliveries, mut queue) = mpsc::unbounded_channel();
        let mut state = self.state.lock();
        state.leave(&place, Loss::NodeRestarted);
        state.count += 1;
        let run = state.count;
        let member = Member {
            run,
            as_peer: Peer {
                key,
                roles: vec![Arc::from(role)],
                incarnation,
            },
            clock: clock.clone(),
            deliveries,
            pinned: BTreeMap::new(),
            connected: BTreeSet::new(),
            sent: 0,
            dropped: 0,
        };
        state.members.insert(place.clone(), member);
        drop(state);
        let transport = Arc::new(MemoryTransport {
            network: self.clone(),
            place: place.clone(),
            run,
            deliveries: AtomicU64::new(0),
        });
        let network = self.clone();
        let counter = Arc::downgrade(&transport);
        tokio::spawn(async move {
            while let Some(queued) = queue.recv().await {
                match queued.delivery {
                    Delivery::Frame(peer, frame) => {
                        if let Some(counter) = counter.upgrade() {
                            counter.deliveries.fetch_add(1, Ordering::Relaxed);
                        }
                        if let Err(violation) = upcalls.received(&peer, frame) {
                            warn!(%violation, "connection closed");
                            let other = place_of(&peer, &place.0);
                            network
                                .state
                                .lock()
                                .part(&place, &other, Loss::ConnectionLost);
                        }
                    }
                    Delivery::Lost(peer, loss) => upcalls.lost(&peer, loss),
                }
            }
        });
        transport
    }
}

fn place_of(peer: &Peer, host: &Address) -> Place {
    match &peer.key {
        PeerKey::Node(address) => (address.clone(), None),
        PeerKey::Guest(id) => (host.clone(), Some(Arc::clone(id))),
    }
}

impl State {
    /// Puts a delivery into a member's queue.
    fn deliver(&self, to: &Place, delivery: Delivery) {
        if let Some(member) = self.members.get(to) {
            member.clock.busy();
            let queued = Queued {
                delivery,
                _pending: Pending(member.clock.clone()),
            };
            if member.deliveries.send(queued).is_err() {
                tracing::debug!(?to, "the node has left the network");
            }
        }
    }

    /// How often the connection from one member to another has been broken.
    fn generation(&self, from: &Place, to: &Place) -> u64 {
        let pair = (from.clone(), to.clone());
        self.generation.get(&pair).copied().unwrap_or(0)
    }

    fn is_cut(&self, from: &Place, to: &Place) -> bool {
        let pair = (from.0.clone(), to.0.clone());
        self.cuts.contains_key(&pair)
    }

    /// Breaks the connection between two members and tells both.
    fn part(&mut self, one: &Place, other: &Place, loss: Loss) {
        for (from, to) in [(one, other), (other, one)] {
            let pair = (from.clone(), to.clone());
            *self.generation.entry(pair).or_default() += 1;
            let was_connected = self
                .members
                .get_mut(from)
                .is_some_and(|member| member.connected.remove(to));
            if was_connected {
                self.deliver(from, Delivery::Lost(key_of(from, to), loss));
            }
        }
    }

    /// Takes a member out and tells those that were connected to it, as far as they have not heard.
    fn leave(&mut self, place: &Place, loss: Loss) {
        let others: Vec<Place> = self
            .members
            .iter()
            .filter(|(_, member)| member.connected.contains(place))
            .map(|(other, _)| other.clone())
            .collect();
        for other in others {
            self.part(place, &other, loss);
        }
        self.members.remove(place);
    }

    /// Whether a guest is on either side, and if so, that it is pinned by its host and speaks with nobody else.
    fn may_speak(&self, from: &Place, to: &Place) -> bool {
        let (host, id) = match (&from.1, &to.1) {
            (None, None) => return true,
            (None, Some(id)) => (from, id),
            (Some(id), None) => (to, id),
            (Some(_), Some(_)) => return false,
        };
        let host = (from.0 == to.0).then(|| self.members.get(host)).flatten();
        host.is_some_and(|host| host.pinned.contains_key(id))
    }
}

/// The name under which a member knows another one.
fn key_of(at: &Place, other: &Place) -> PeerKey {
    match &other.1 {
        Some(id) if at.0 == other.0 => PeerKey::Guest(Arc::clone(id)),
        Some(_) | None => PeerKey::Node(other.0.clone()),
    }
}

/// One direction between two nodes of a [`MemoryNetwork`]; made by [`MemoryNetwork::path`]. What it sets counts for
/// frames sent from then on.
pub struct Path {
    network: MemoryNetwork,
    ends: Option<(Address, Address)>,
}

impl Path {
    fn change(&self, change: impl FnOnce(&mut Faults)) {
        let mut state = self.network.state.lock();
        change(state.weather.change(self.ends.as_ref()));
    }

    /// As [`MemoryNetwork::delay`], on this path.
    pub fn delay(&self, delay: Duration) {
        self.delay_between(delay, delay);
    }

    /// As [`MemoryNetwork::delay_between`], on this path.
    pub fn delay_between(&self, shortest: Duration, longest: Duration) {
        self.change(|faults| faults.delay = (shortest, longest));
    }

    /// As [`MemoryNetwork::lose`], on this path.
    pub fn lose(&self, share: f64) {
        self.change(|faults| faults.loss = share.clamp(0.0, 1.0));
    }

    /// As [`MemoryNetwork::duplicate`], on this path.
    pub fn duplicate(&self, share: f64) {
        self.change(|faults| faults.duplicates = share.clamp(0.0, 1.0));
    }

    /// Lets it have the faults of all others again.
    pub fn clear(&self) {
        if let Some(ends) = &self.ends {
            self.network.state.lock().weather.clear(ends);
        }
    }
}

/// One node's end of a [`MemoryNetwork`].
pub struct MemoryTransport {
    network: MemoryNetwork,
    place: Place,
    /// Which run at this place it belongs to: a later one may have taken the place.
    run: u64,
    deliveries: AtomicU64,
}

impl MemoryNetwork {
    /// Delivers after a delay, but not before what was sent from there to there earlier.
    fn deliver_after(
        &self,
        state: &mut State,
        from: &Place,
        to: &Place,
        clock: &Clock,
        delay: Duration,
        delivery: Delivery,
    ) {
        let pair = (from.clone(), to.clone());
        let arrival = clock.now() + delay;
        let last = state.last.entry(pair.clone()).or_default();
        *last = arrival.max(*last);
        let arrival = *last;
        if arrival <= clock.now() {
            state.deliver(to, delivery);
            return;
        }
        let network = self.clone();
        let generation = state.generation(from, to);
        clock.at(arrival, move || {
            let state = network.state.lock();
            let (from, to) = &pair;
            if state.generation(from, to) == generation && !state.is_cut(from, to) {
                state.deliver(to, delivery);
            }
        });
    }
}

impl MemoryTransport {
    /// Its member, unless that has left.
    fn member<'a>(&self, state: &'a mut State) -> Option<&'a mut Member> {
        let member = state.members.get_mut(&self.place)?;
        (member.run == self.run).then_some(member)
    }

    fn destination(&self, to: &PeerKey) -> Place {
        match to {
            PeerKey::Node(address) => (address.clone(), None),
            PeerKey::Guest(id) => (self.place.0.clone(), Some(Arc::clone(id))),
        }
    }
}

impl Transport for MemoryTransport {
    fn send(&self, to: &PeerKey, frame: &Frame) -> Result<(), SendError> {
        let limit = DEFAULT_MAX_MESSAGE;
        let refused = |source| SendError::Codec {
            peer: to.clone(),
            source,
        };
        let mut bytes = BytesMut::new();
        frame.encode(limit, &mut bytes).map_err(refused)?;
        let Some(frame) = Frame::decode(limit, &mut bytes).map_err(refused)? else {
            return Err(SendError::Unreachable(to.clone()));
        };
        let destination = self.destination(to);
        let mut guard = self.network.state.lock();
        let state = &mut *guard;
        let Some(sender) = self.member(state) else {
            return Err(SendError::Unreachable(to.clone()));
        };
        sender.sent += 1;
        let (peer, clock) = (sender.as_peer.clone(), sender.clock.clone());
        let connected = sender.connected.contains(&destination);
        if !state.may_speak(&self.place, &destination) {
            return Err(SendError::Unreachable(to.clone()));
        }
        if !state.members.contains_key(&destination) || state.is_cut(&self.place, &destination) {
            if !connected {
                // Nobody answers: the dial fails after a while.
                let network = self.network.clone();
                let (place, gone) = (self.place.clone(), to.clone());
                clock.at(clock.now() + SILENCE, move || {
                    let mut state = network.state.lock();
                    let member = state.members.get(&place);
                    if member.is_some_and(|member| member.connected.contains(&destination)) {
                        // It came up meanwhile, but this frame is gone, and no connection has gaps.
                        state.part(&place, &destination, Loss::ConnectionLost);
                    } else {
                        let lost = Delivery::Lost(gone, Loss::ConnectionLost);
                        state.deliver(&place, lost);
                    }
                });
            }
            return Ok(());
        }
        let copies = state.weather.draw(&self.place.0, &destination.0);
        if copies.is_empty() {
            if let Some(sender) = self.member(state) {
                sender.dropped += 1;
            }
            return Ok(());
        }
        for (one, other) in [(&self.place, &destination), (&destination, &self.place)] {
            if let Some(member) = state.members.get_mut(one) {
                member.connected.insert(other.clone());
            }
        }
        for delay in copies {
            let delivery = Delivery::Frame(peer.clone(), frame.clone());
            self.network
                .deliver_after(state, &self.place, &destination, &clock, delay, delivery);
        }
        Ok(())
    }

    fn pin(&self, guest: Guest) {
        if let Some(member) = self.member(&mut self.network.state.lock()) {
            member.pinned.insert(guest.id, guest.role);
        }
    }

    fn unpin(&self, id: &str) {
        let mut state = self.network.state.lock();
        let Some(member) = self.member(&mut state) else {
            return;
        };
        member.pinned.remove(id);
        let guest = (self.place.0.clone(), Some(Arc::from(id)));
        state.part(&self.place, &guest, Loss::ConnectionLost);
    }

    fn has_guest(&self, id: &str) -> bool {
        let mut state = self.network.state.lock();
        self.member(&mut state)
            .is_some_and(|member| member.pinned.contains_key(id))
    }

    fn peers(&self) -> Vec<PeerStatus> {
        let mut state = self.network.state.lock();
        let Some(member) = self.member(&mut state) else {
            return Vec::new();
        };
        member
            .connected
            .iter()
            .map(|(address, guest)| PeerStatus {
                peer: match guest {
                    Some(id) => format!("guest {id}"),
                    None => address.to_string(),
                },
                connected: true,
                queued_bytes: 0,
                sent: member.sent,
                received: self.deliveries.load(Ordering::Relaxed),
                dropped: member.dropped,
                ..PeerStatus::default()
            })
            .collect()
    }

    fn shutdown(&self) -> BoxFuture<'static, ()> {
        let mut state = self.network.state.lock();
        if self.member(&mut state).is_some() {
            state.leave(&self.place, Loss::ConnectionLost);
        }
        Box::pin(async {})
    }
}
