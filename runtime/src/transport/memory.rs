//! The in-memory transport: nodes of one test joined without sockets, with delay, loss and cuts.
//!
//! Frames are encoded and decoded as on the wire, so a test on this network finds messages that do not round-trip.
//! For each pair of nodes they arrive in the order sent. A cut lets frames vanish in silence, as a dead cable does;
//! when it has lasted [`SILENCE`] both ends lose the connection. Time comes from the clock of the node that sends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tracing::warn;

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
    /// One-way cuts: frames from the first to the second vanish.
    cuts: BTreeSet<(Address, Address)>,
    delay: Duration,
    loss: f64,
    random: StdRng,
    next_port: u16,
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
    /// A network without faults, whose losses will be drawn from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                members: BTreeMap::new(),
                cuts: BTreeSet::new(),
                delay: Duration::ZERO,
                loss: 0.0,
                random: StdRng::seed_from_u64(seed),
                next_port: FIRST_PORT,
                last: BTreeMap::new(),
                generation: BTreeMap::new(),
            })),
        }
    }

    /// Lets every frame sent from now on take this long.
    pub fn delay(&self, delay: Duration) {
        self.state.lock().delay = delay;
    }

    /// Drops this share of the frames sent from now on, 0 to 1. A real connection loses only a suffix; this is for
    /// tests of protocols that must bear any loss.
    pub fn lose(&self, share: f64) {
        self.state.lock().loss = share.clamp(0.0, 1.0);
    }

    /// Lets frames between two nodes vanish, both ways, until [`MemoryNetwork::heal`]. After [`SILENCE`] both ends
    /// lose the connection.
    pub fn cut(&self, one: &Address, other: &Address) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Lets frames from one node to another vanish.
    pub fn cut_one_way(&self, from: &Address, to: &Address) {
        let mut state = self.state.lock();
        state.cuts.insert((from.clone(), to.clone()));
        let watchers: Vec<(Place, Place)> = state
            .members
            .iter()
            .filter(|((address, _), _)| address == from)
            .flat_map(|(place, member)| {
                member
                    .connected
                    .iter()
                    .filter(|(address, _)| address == to)
                    .map(|other| (place.clone(), other.clone()))
            })
            .collect();
        for (place, other) in watchers {
            let Some(clock) = state.members.get(&place).map(|m| m.clock.clone()) else {
                continue;
            };
            let network = self.clone();
            let pair = (from.clone(), to.clone());
            clock.at(clock.now() + SILENCE, move || {
                let mut state = network.state.lock();
                if state.cuts.contains(&pair) {
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
        let member = Member {
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
        let mut state = self.state.lock();
        if state.members.contains_key(&place) {
            state.leave(&place, Loss::NodeRestarted);
        }
        state.members.insert(place.clone(), member);
        drop(state);
        let transport = Arc::new(MemoryTransport {
            network: self.clone(),
            place: place.clone(),
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

    /// Breaks the connection between two members and tells both.
    fn part(&mut self, one: &Place, other: &Place, loss: Loss) {
        for (from, to) in [(one, other), (other, one)] {
            *self
                .generation
                .entry((from.clone(), to.clone()))
                .or_default() += 1;
            let Some(peer) = self.members.get(to).map(|m| m.as_peer.key.clone()) else {
                continue;
            };
            let was_connected = self
                .members
                .get_mut(from)
                .is_some_and(|m| m.connected.remove(to));
            if was_connected {
                self.deliver(from, Delivery::Lost(peer, loss));
            }
        }
    }

    /// Takes a member out and tells those that were connected to it.
    fn leave(&mut self, place: &Place, loss: Loss) {
        let others: Vec<Place> = self
            .members
            .get(place)
            .map(|m| m.connected.iter().cloned().collect())
            .unwrap_or_default();
        for other in others {
            self.part(place, &other, loss);
        }
        self.members.remove(place);
    }
}

/// One node's end of a [`MemoryNetwork`].
pub struct MemoryTransport {
    network: MemoryNetwork,
    place: Place,
    deliveries: AtomicU64,
}

impl MemoryTransport {
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
        let allowed = match (&destination.1, &self.place.1) {
            // A guest is reached by its host only, and reaches its host only, while it is pinned.
            (Some(id), _) => state
                .members
                .get(&self.place)
                .is_some_and(|host| host.pinned.contains_key(id)),
            (None, Some(id)) => {
                destination.0 == self.place.0
                    && state
                        .members
                        .get(&destination)
                        .is_some_and(|host| host.pinned.contains_key(id))
            }
            (None, None) => true,
        };
        if !allowed {
            return Err(SendError::Unreachable(to.clone()));
        }
        let Some(sender) = state.members.get_mut(&self.place) else {
            return Err(SendError::Unreachable(to.clone()));
        };
        sender.sent += 1;
        let (peer, clock) = (sender.as_peer.clone(), sender.clock.clone());
        let cut = state
            .cuts
            .contains(&(self.place.0.clone(), destination.0.clone()));
        if !state.members.contains_key(&destination) || cut {
            // Nobody answers: the dial fails after a while.
            let network = self.network.clone();
            let (place, gone) = (self.place.clone(), to.clone());
            let connected = state
                .members
                .get(&self.place)
                .is_some_and(|m| m.connected.contains(&destination));
            if !connected {
                clock.at(clock.now() + SILENCE, move || {
                    let lost = Delivery::Lost(gone, Loss::ConnectionLost);
                    network.state.lock().deliver(&place, lost);
                });
            }
            return Ok(());
        }
        if state.loss > 0.0 && state.random.random_bool(state.loss) {
            if let Some(sender) = state.members.get_mut(&self.place) {
                sender.dropped += 1;
            }
            return Ok(());
        }
        for (one, other) in [(&self.place, &destination), (&destination, &self.place)] {
            if let Some(member) = state.members.get_mut(one) {
                member.connected.insert(other.clone());
            }
        }
        let pair = (self.place.clone(), destination.clone());
        let arrival = clock.now() + state.delay;
        let arrival = state
            .last
            .get(&pair)
            .map_or(arrival, |last| arrival.max(*last));
        state.last.insert(pair.clone(), arrival);
        if arrival <= clock.now() {
            state.deliver(&destination, Delivery::Frame(peer, frame));
            return Ok(());
        }
        let network = self.network.clone();
        let generation = state.generation.get(&pair).copied().unwrap_or(0);
        clock.at(arrival, move || {
            let state = network.state.lock();
            let alive = state.generation.get(&pair).copied().unwrap_or(0) == generation;
            let cut = state.cuts.contains(&(pair.0.0.clone(), pair.1.0.clone()));
            if alive && !cut {
                state.deliver(&pair.1, Delivery::Frame(peer, frame));
            }
        });
        Ok(())
    }

    fn pin(&self, guest: Guest) {
        if let Some(member) = self.network.state.lock().members.get_mut(&self.place) {
            member.pinned.insert(guest.id, guest.role);
        }
    }

    fn unpin(&self, id: &str) {
        let mut state = self.network.state.lock();
        if let Some(member) = state.members.get_mut(&self.place) {
            member.pinned.remove(id);
        }
        let guest = (self.place.0.clone(), Some(Arc::from(id)));
        state.part(&self.place, &guest, Loss::ConnectionLost);
    }

    fn has_guest(&self, id: &str) -> bool {
        self.network
            .state
            .lock()
            .members
            .get(&self.place)
            .is_some_and(|member| member.pinned.contains_key(id))
    }

    fn peers(&self) -> Vec<PeerStatus> {
        let state = self.network.state.lock();
        let Some(member) = state.members.get(&self.place) else {
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
        self.network
            .state
            .lock()
            .leave(&self.place, Loss::ConnectionLost);
        Box::pin(async {})
    }
}
