//! Cut and silent networks: partitions of all kinds, and nodes that are paused.
//!
//! Invariant: a direction is blocked as long as a partition lasts that it is part of; what stalls in it goes on in its
//! order when the last one ends, unless its connection was given up meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::RngExt;
use rand::seq::SliceRandom;

use super::faults::{self, Timed};
use super::network::SILENCE;
use super::node::State;
use super::{Event, NodeId, Sim};

/// A direction that nothing passes.
pub(super) struct Block {
    count: u32,
    epoch: u64,
    kind: &'static str,
    bitten: bool,
}

impl Sim {
    /// Counts a partition the first time that something cannot pass; whether there is one in this direction.
    pub(super) fn bitten(&mut self, from: NodeId, to: NodeId) -> bool {
        let Some(block) = self.network.blocked.get_mut(&(from, to)) else {
            return false;
        };
        if !std::mem::replace(&mut block.bitten, true) {
            self.bites.count(block.kind);
        }
        true
    }

    /// A paused node is silent: those that wait for it lose it when that lasts.
    pub(super) fn fell_silent(&mut self, node: NodeId) {
        for peer in self.network.partners(node) {
            let generation = self.network.pair(node, peer).0.generation;
            if self.network.is_open(node, peer) {
                let delay = SILENCE + self.up_to(Duration::from_secs(1));
                let epoch = self.nodes[node.0].pauses;
                let silence = Event::Silence {
                    from: node,
                    to: peer,
                    generation,
                    epoch,
                    paused: true,
                };
                self.schedule(delay, silence);
            }
        }
    }

    /// Looks whether a direction has been silent for too long.
    pub(super) fn silence(
        &mut self,
        from: NodeId,
        to: NodeId,
        generation: u64,
        epoch: u64,
        paused: bool,
    ) {
        let silent = if paused {
            // Not another pause, which began later.
            self.nodes[from.0].state == State::Paused && self.nodes[from.0].pauses == epoch
        } else {
            let block = self.network.blocked.get(&(from, to));
            block.is_some_and(|block| block.epoch == epoch)
        };
        let (pair, _) = self.network.pair(from, to);
        if !silent || !pair.open || pair.generation != generation {
            return;
        }
        self.bitten(from, to);
        let later = self.up_to(SILENCE);
        self.close(to, from, [Duration::ZERO, later]);
    }

    /// Cuts the network for a while, as drawn.
    pub(super) fn partition(&mut self, timed: Timed) {
        let mut nodes: Vec<NodeId> = self
            .node_ids()
            .filter(|id| {
                let node = &self.nodes[id.0];
                node.guest_of.is_none() && node.state != State::Gone
            })
            .collect();
        if nodes.len() < 2 {
            return;
        }
        nodes.shuffle(&mut self.random);
        let bridge = if timed == Timed::Bridge && nodes.len() > 2 {
            nodes.pop()
        } else {
            None
        };
        let at = self.random.random_range(1..nodes.len());
        let (left, right) = nodes.split_at(at);
        let mut directions = Vec::new();
        for one in left {
            for other in right {
                directions.push((*one, *other));
                if timed != Timed::OneWay {
                    directions.push((*other, *one));
                }
            }
        }
        let lasts = self.drawn(&self.faults.partition_lasts.clone());
        let (kind, times, lasts) = match timed {
            Timed::OneWay => (faults::ONE_WAY, 1, lasts),
            Timed::Bridge if bridge.is_some() => (faults::BRIDGE, 1, lasts),
            Timed::Flapping => (faults::FLAPPING, self.random.random_range(2..8), lasts / 4),
            Timed::Bridge | Timed::Partition | Timed::Crash | Timed::Pause | Timed::WallStep => {
                (faults::PARTITION, 1, lasts)
            }
        };
        let mut begins = Duration::ZERO;
        for _ in 0..times {
            let cut = Event::Cut {
                directions: directions.clone(),
                lasts,
                kind,
            };
            self.schedule(begins, cut);
            begins += lasts + self.up_to(lasts);
        }
    }

    /// Lets nothing pass in these directions for a while.
    pub(super) fn cut(
        &mut self,
        directions: Vec<(NodeId, NodeId)>,
        lasts: Duration,
        kind: &'static str,
    ) {
        if self.healed {
            return;
        }
        let number = self.network.next_partition;
        self.network.next_partition += 1;
        let parted: BTreeSet<_> = directions.iter().copied().collect();
        self.note_world(format_args!("{kind} {number} for {lasts:?}: {parted:?}"));
        for (from, to) in &directions {
            let block = self.network.blocked.entry((*from, *to)).or_insert(Block {
                count: 0,
                epoch: number,
                kind,
                bitten: false,
            });
            block.count += 1;
            let epoch = block.epoch;
            let (generation, open) = {
                let (pair, _) = self.network.pair(*from, *to);
                (pair.generation, pair.open)
            };
            if open {
                let delay = SILENCE + self.up_to(Duration::from_secs(1));
                let silence = Event::Silence {
                    from: *from,
                    to: *to,
                    generation,
                    epoch,
                    paused: false,
                };
                self.schedule(delay, silence);
            }
        }
        self.network.partitions.insert(number, directions);
        self.schedule(lasts, Event::Mend(number));
    }

    /// Ends a partition; what was under way goes on.
    pub(super) fn mend(&mut self, number: u64) {
        let Some(directions) = self.network.partitions.remove(&number) else {
            return;
        };
        self.note_world(format_args!("partition {number} ends"));
        for (from, to) in directions {
            let Some(block) = self.network.blocked.get_mut(&(from, to)) else {
                continue;
            };
            block.count -= 1;
            if block.count > 0 {
                continue;
            }
            self.network.blocked.remove(&(from, to));
            let (pair, side) = self.network.pair(from, to);
            let stalled = std::mem::take(&mut pair.stalled[side]);
            if self.nodes[to.0].state == State::Paused {
                // They came before the pause, so before all that waits for its end.
                let stalled = stalled.into_iter();
                let waiting = stalled.map(|flight| (to, Event::Arrive(flight)));
                self.parked.splice(0..0, waiting);
                continue;
            }
            // At once and in order: whatever was sent later is due later.
            for flight in stalled {
                self.arrive(flight);
            }
        }
    }

    pub(super) fn mend_all(&mut self) {
        for number in self.network.partitions.keys().copied().collect::<Vec<_>>() {
            self.mend(number);
        }
    }
}
