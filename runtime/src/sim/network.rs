//! The simulated network: one connection for each pair of nodes, with everything that may happen to it.
//!
//! As `docs/delivery.md` says of the live one: frames of one pair of PIDs arrive in order and never twice, those of
//! other pairs may overtake them; a connection that breaks loses what is under way on it, and each end learns of it at
//! its own time; a node that falls silent is lost after [`SILENCE`]; the next frame dials anew, and a dial is given up
//! after [`CONNECT_GRACE`]. A newer connection ends an older one before its first frame arrives.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;

use super::check::Letter;
use super::faults;
use super::node::State;
use super::partitions::Block;
use super::{Event, NodeId, Sim};
use crate::clock::Time;
use crate::links::{ExitReason, Input};
use crate::message::Correlation;
use crate::pid::Pid;
use crate::transport::PeerKey;

/// How long a connection may be silent before its ends give it up.
pub const SILENCE: Duration = Duration::from_secs(5);
/// How long frames wait for a connection.
pub const CONNECT_GRACE: Duration = Duration::from_secs(10);
/// Longest time between two dials.
const MOST_BACKOFF: Duration = Duration::from_secs(10);

/// What one node says to another.
#[derive(Debug, Clone)]
pub(super) enum Frame {
    Message(Letter),
    Link {
        watcher: Pid,
        target: Pid,
    },
    Unlink {
        watcher: Pid,
        target: Pid,
    },
    Exited {
        watcher: Pid,
        target: Pid,
        reason: ExitReason,
    },
}

impl Frame {
    /// Sender and receiver.
    fn lane(&self) -> (Pid, Pid) {
        match self {
            Self::Message(letter) => (letter.from.clone(), letter.to.clone()),
            Self::Link { watcher, target } | Self::Unlink { watcher, target } => {
                (watcher.clone(), target.clone())
            }
            Self::Exited {
                watcher, target, ..
            } => (target.clone(), watcher.clone()),
        }
    }
}

/// A frame under way.
pub(super) struct Flight {
    from: NodeId,
    to: NodeId,
    generation: u64,
    frame: Frame,
}

impl Flight {
    pub(super) fn receiver(&self) -> NodeId {
        self.to
    }
}

/// One end of a connection as its node sees it.
#[derive(Default)]
enum Side {
    #[default]
    Idle,
    Dialing {
        since: Time,
        attempt: u32,
        waiting: Vec<Frame>,
    },
    Up {
        generation: u64,
        /// Which run of the other node.
        incarnation: u64,
    },
}

/// The connection of two nodes; the first has the smaller number.
#[derive(Default)]
pub(super) struct Pair {
    sides: [Side; 2],
    /// Number of the newest connection.
    pub(super) generation: u64,
    /// Whether it carries frames.
    pub(super) open: bool,
    /// Whether what the given side has sent still arrives though the connection is closed.
    lingers: [bool; 2],
    /// When the last frame of each lane arrives, by direction.
    last: [BTreeMap<(Pid, Pid), Time>; 2],
    /// Frames that wait for the end of a partition, by direction.
    pub(super) stalled: [Vec<Flight>; 2],
}

#[derive(Default)]
pub(super) struct Network {
    pairs: BTreeMap<(NodeId, NodeId), Pair>,
    /// Directions that nothing passes, with how many partitions there are, and why.
    pub(super) blocked: BTreeMap<(NodeId, NodeId), Block>,
    pub(super) partitions: BTreeMap<u64, Vec<(NodeId, NodeId)>>,
    pub(super) next_partition: u64,
}

impl Network {
    pub(super) fn pair(&mut self, one: NodeId, other: NodeId) -> (&mut Pair, usize) {
        let key = (one.min(other), one.max(other));
        (self.pairs.entry(key).or_default(), usize::from(one > other))
    }

    /// Partners with which a node has a pair.
    pub(super) fn partners(&self, node: NodeId) -> Vec<NodeId> {
        self.pairs
            .keys()
            .filter_map(|(a, b)| match (*a == node, *b == node) {
                (true, _) => Some(*b),
                (_, true) => Some(*a),
                (false, false) => None,
            })
            .collect()
    }

    /// Whether the connection of two nodes carries frames.
    pub(super) fn is_open(&self, one: NodeId, other: NodeId) -> bool {
        let pair = self.pairs.get(&(one.min(other), one.max(other)));
        pair.is_some_and(|pair| pair.open)
    }
}

impl Sim {
    /// Hands a frame to the connection with another node, which is dialled if need be; `false` when it cannot be.
    pub(super) fn send_frame(&mut self, from: NodeId, to: NodeId, frame: Frame) -> bool {
        if self.nodes[to.0].state == State::Gone {
            return false;
        }
        let may_dial = self.may_dial(from, to);
        let now = self.now;
        let (pair, side) = self.network.pair(from, to);
        match &mut pair.sides[side] {
            Side::Idle => {
                if !may_dial {
                    return false;
                }
                pair.sides[side] = Side::Dialing {
                    since: now,
                    attempt: 0,
                    waiting: vec![frame],
                };
                let delay = self.frame_delay() * 3;
                self.schedule(delay, Event::Dial { from, to });
            }
            Side::Dialing { waiting, .. } => waiting.push(frame),
            Side::Up { generation, .. } => {
                let generation = *generation;
                let broken = self.draw(self.faults.breaks);
                if broken && self.network.is_open(from, to) {
                    self.bites.count(faults::BREAK);
                    self.note_pair(from, "breaks with", to);
                    let notices = [self.up_to(SILENCE), self.up_to(SILENCE)];
                    self.close(from, to, notices);
                }
                self.transmit(from, to, generation, frame);
            }
        }
        true
    }

    fn may_dial(&self, from: NodeId, to: NodeId) -> bool {
        let (dialler, dialled) = (&self.nodes[from.0], &self.nodes[to.0]);
        match (&dialler.guest_of, &dialled.guest_of) {
            // A guest is never dialled.
            (_, Some(_)) => false,
            (Some((host, id)), None) => *host == to && dialled.pinned.contains_key(id),
            (None, None) => dialled.settings.accepts,
        }
    }

    fn transmit(&mut self, from: NodeId, to: NodeId, generation: u64, frame: Frame) {
        let mut delay = self.frame_delay();
        if self.draw(self.faults.slow_frames) {
            delay += self.up_to(self.faults.slow);
            self.bites.count(faults::OVERTAKEN);
        }
        let now = self.now;
        let (pair, side) = self.network.pair(from, to);
        if !pair.open || pair.generation != generation {
            self.lost(from, frame, "connection broken");
            return;
        }
        let last = pair.last[side].entry(frame.lane()).or_default();
        let at = (now + delay).max(Time(last.0 + 1));
        *last = at;
        let flight = Flight {
            from,
            to,
            generation,
            frame,
        };
        self.schedule_at(at, Event::Arrive(flight));
    }

    fn lost(&mut self, node: NodeId, frame: Frame, why: &'static str) {
        self.bites.count(faults::LOST_FRAME);
        match frame {
            Frame::Message(letter) => self.dropped(&letter, why),
            other @ (Frame::Link { .. } | Frame::Unlink { .. } | Frame::Exited { .. }) => {
                let (from, to) = other.lane();
                self.note_node(node, format_args!("lost link frame {from} -> {to}: {why}"));
            }
        }
    }

    /// A frame reaches its receiver's machine.
    pub(super) fn arrive(&mut self, flight: Flight) {
        let (from, to) = (flight.from, flight.to);
        if self.bitten(from, to) {
            let (pair, side) = self.network.pair(from, to);
            pair.stalled[side].push(flight);
            return;
        }
        let (pair, side) = self.network.pair(from, to);
        let carried = (pair.open || pair.lingers[side]) && pair.generation == flight.generation;
        let heard = matches!(&pair.sides[1 - side], Side::Up { generation, .. } if *generation == flight.generation);
        if !carried || !heard {
            self.lost(to, flight.frame, "connection broken");
            return;
        }
        match flight.frame {
            Frame::Message(letter) => self.received(from, to, letter),
            Frame::Link { watcher, target } => {
                let alive = self.is_alive(to, &target);
                let input = Input::RemoteWatch {
                    watcher,
                    peer: self.peer_key(to, from),
                    target,
                    alive,
                };
                self.links(to, input);
            }
            Frame::Unlink { watcher, target } => {
                self.links(to, Input::RemoteUnwatch { watcher, target });
            }
            Frame::Exited {
                watcher,
                target,
                reason,
            } => {
                let input = Input::RemoteExited {
                    watcher,
                    target,
                    reason,
                };
                self.links(to, input);
            }
        }
    }

    fn received(&mut self, from: NodeId, to: NodeId, letter: Letter) {
        if let Some(why) = self.refused(from, to, &letter) {
            self.dropped(&letter, why);
            return;
        }
        self.deliver_here(to, letter, false);
    }

    /// Why a message from another node is not let in, as a live node decides it.
    fn refused(&self, from: NodeId, to: NodeId, letter: &Letter) -> Option<&'static str> {
        if matches!(letter.correlation, Correlation::Answer(_)) {
            return None;
        }
        let slot = self.nodes[to.0].slots.get(letter.to.id())?;
        let Some(accepted) = slot.profile.accepts(letter.kind) else {
            return Some("unknown kind");
        };
        let sender = &self.nodes[from.0];
        let role = match &sender.guest_of {
            Some((_, id)) => self.nodes[to.0].pinned.get(id).cloned()?,
            None => sender.settings.role.clone(),
        };
        let allowed = accepted.senders.is_empty() || accepted.senders.contains(&&*role);
        (!allowed).then_some("no role of the sender may send it")
    }

    /// The name under which `node` knows another one.
    pub(super) fn peer_key(&self, node: NodeId, other: NodeId) -> PeerKey {
        match &self.nodes[other.0].guest_of {
            Some((host, id)) if *host == node => PeerKey::Guest(id.clone()),
            _ => PeerKey::Node(self.nodes[other.0].address.clone()),
        }
    }

    /// The node behind the name under which `node` knows it.
    pub(super) fn peer(&self, node: NodeId, key: &PeerKey) -> Option<NodeId> {
        match key {
            PeerKey::Node(address) => self.by_address.get(address).copied(),
            PeerKey::Guest(id) => self.guests.get(&(node, id.clone())).copied(),
        }
    }

    /// A dial is answered, or fails.
    pub(super) fn dial(&mut self, from: NodeId, to: NodeId) {
        let now = self.now;
        let blocked = self.network.blocked.contains_key(&(from, to))
            || self.network.blocked.contains_key(&(to, from));
        let answers = self.nodes[to.0].is_up() && !blocked && self.may_dial(from, to);
        let (pair, side) = self.network.pair(from, to);
        let Side::Dialing { since, attempt, .. } = &mut pair.sides[side] else {
            return;
        };
        if answers {
            self.establish(from, to);
            return;
        }
        if now.since(*since) < CONNECT_GRACE {
            *attempt += 1;
            let most = Duration::from_millis(50) * 2_u32.saturating_pow((*attempt).min(16));
            let delay = self.up_to(most.min(MOST_BACKOFF)) + self.frame_delay();
            self.schedule(delay, Event::Dial { from, to });
            self.bitten(from, to);
            self.bitten(to, from);
            return;
        }
        let (pair, side) = self.network.pair(from, to);
        if let Side::Dialing { waiting, .. } = std::mem::take(&mut pair.sides[side]) {
            for frame in waiting {
                self.lost(from, frame, "no connection within the grace");
            }
        }
        self.peer_lost(from, to, ExitReason::ConnectionLost);
    }

    fn establish(&mut self, from: NodeId, to: NodeId) {
        self.note_pair(from, "connects to", to);
        let incarnations = [self.nodes[from.0].incarnation, self.nodes[to.0].incarnation];
        let (pair, side) = self.network.pair(from, to);
        pair.generation += 1;
        let generation = pair.generation;
        pair.open = true;
        pair.lingers = [false; 2];
        pair.last = Default::default();
        let mut told = Vec::new();
        let mut queued = Vec::new();
        for (end, me, other, incarnation) in [
            (side, from, to, incarnations[1]),
            (1 - side, to, from, incarnations[0]),
        ] {
            let before = std::mem::replace(
                &mut pair.sides[end],
                Side::Up {
                    generation,
                    incarnation,
                },
            );
            match before {
                Side::Idle => {}
                Side::Dialing { waiting, .. } => queued.push((me, other, waiting)),
                Side::Up {
                    incarnation: old, ..
                } => {
                    let reason = if old == incarnation {
                        ExitReason::ConnectionLost
                    } else {
                        ExitReason::NodeRestarted
                    };
                    told.push((me, other, reason));
                }
            }
        }
        for flight in pair
            .stalled
            .iter_mut()
            .flat_map(std::mem::take)
            .collect::<Vec<_>>()
        {
            self.lost(flight.from, flight.frame, "connection broken");
        }
        for (me, other, reason) in told {
            self.peer_lost(me, other, reason);
        }
        for (me, other, waiting) in queued {
            for frame in waiting {
                self.transmit(me, other, generation, frame);
            }
        }
    }

    /// The connection of two nodes breaks; each end learns of it so much later.
    pub(super) fn close(&mut self, one: NodeId, other: NodeId, notices: [Duration; 2]) {
        let (pair, side) = self.network.pair(one, other);
        pair.open = false;
        let generation = pair.generation;
        for (end, me, peer, delay) in [
            (side, one, other, notices[0]),
            (1 - side, other, one, notices[1]),
        ] {
            let (pair, _) = self.network.pair(one, other);
            if matches!(&pair.sides[end], Side::Up { generation: up, .. } if *up == generation) {
                let incarnation = self.nodes[me.0].incarnation;
                let notice = Event::Notice {
                    node: me,
                    incarnation,
                    peer,
                    generation,
                };
                self.schedule(delay, notice);
            }
        }
    }

    /// An end learns that its connection is gone.
    pub(super) fn notice(&mut self, node: NodeId, peer: NodeId, generation: u64) {
        let (pair, side) = self.network.pair(node, peer);
        if matches!(&pair.sides[side], Side::Up { generation: up, .. } if *up == generation) {
            pair.sides[side] = Side::Idle;
            self.peer_lost(node, peer, ExitReason::ConnectionLost);
        }
    }

    fn peer_lost(&mut self, node: NodeId, peer: NodeId, reason: ExitReason) {
        if !self.nodes[node.0].is_alive() {
            return;
        }
        self.note_pair(node, &format!("loses ({reason:?})"), peer);
        let peer = self.peer_key(node, peer);
        self.links(node, Input::PeerLost { peer, reason });
    }

    /// A node has died: its ends are gone, the others learn sooner or later.
    pub(super) fn disconnect(&mut self, node: NodeId, orderly: bool) {
        for peer in self.network.partners(node) {
            let arrives = orderly || self.random.random_bool(0.5);
            let (pair, side) = self.network.pair(node, peer);
            pair.open = false;
            pair.lingers[side] = arrives;
            pair.sides[side] = Side::Idle;
            let generation = pair.generation;
            if matches!(pair.sides[1 - side], Side::Up { .. }) {
                let at_once = orderly || self.random.random_bool(0.5);
                let delay = if at_once {
                    // After the last frame that is under way.
                    self.faults.slow + *self.faults.frame_delay.end()
                } else {
                    SILENCE + self.up_to(Duration::from_secs(1))
                };
                let incarnation = self.nodes[peer.0].incarnation;
                let notice = Event::Notice {
                    node: peer,
                    incarnation,
                    peer: node,
                    generation,
                };
                self.schedule(delay, notice);
            }
        }
    }

    /// A guest is no longer let in: its connection closes at once.
    pub(super) fn unpinned(&mut self, host: NodeId, guest: NodeId) {
        if self.network.is_open(host, guest) {
            let delays = [Duration::ZERO, self.frame_delay()];
            self.close(host, guest, delays);
        }
    }
}
