//! What goes wrong with nodes: crashes, pauses, steps of wall clocks; and when.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::RngExt;

use super::check::Seen;
use super::disk::{self, Kept};
use super::faults::{self, Timed};
use super::node::State;
use super::process;
use super::{Event, NodeId, ProcessRef, Sim};
use crate::links::ExitReason;

impl Sim {
    pub(super) fn schedule_fault(&mut self) {
        let total: f64 = self.faults.timed().iter().map(|(_, rate)| rate).sum();
        if total > 0.0 {
            // Times between events of a constant rate are exponential.
            let minutes = -(1.0 - self.random.random::<f64>()).ln() / total;
            let key = self.schedule(Duration::from_secs_f64(minutes * 60.0), Event::Fault);
            self.next_fault = Some(key);
        }
    }

    pub(super) fn fault(&mut self) {
        self.next_fault = None;
        if self.healed {
            return;
        }
        let rates = self.faults.timed();
        let total: f64 = rates.iter().map(|(_, rate)| rate).sum();
        let mut left = self.random.random::<f64>() * total;
        let drawn = rates.into_iter().find(|(_, rate)| {
            left -= rate;
            left < 0.0
        });
        match drawn.map(|(timed, _)| timed) {
            Some(timed @ (Timed::Partition | Timed::OneWay | Timed::Bridge | Timed::Flapping)) => {
                self.partition(timed);
            }
            Some(Timed::Crash) => {
                let able: Vec<NodeId> = self.node_ids().filter(|id| self.may_crash(*id)).collect();
                if let Some(node) = self.pick(&able) {
                    self.crash_as_drawn(node);
                }
            }
            Some(Timed::Pause) => {
                let able: Vec<NodeId> = self
                    .node_ids()
                    .filter(|id| self.nodes[id.0].is_up() && self.nodes[id.0].settings.pauses)
                    .collect();
                if let Some(node) = self.pick(&able) {
                    let lasts = self.drawn(&self.faults.pause_lasts.clone());
                    self.pause(node, lasts);
                }
            }
            Some(Timed::WallStep) => {
                let all: Vec<NodeId> = self
                    .node_ids()
                    .filter(|id| self.nodes[id.0].is_alive())
                    .collect();
                if let Some(node) = self.pick(&all) {
                    let step = self.random.random_range(-3_600_000..=3_600_000);
                    self.step_wall(node, step);
                }
            }
            None => {}
        }
        self.schedule_fault();
    }

    /// Sets a node's wall clock to what it would be without any step, and `millis` milliseconds more.
    pub fn step_wall(&mut self, node: NodeId, millis: i64) {
        self.bites.count(faults::WALL_STEP);
        self.note_node(node, format_args!("wall clock steps to {millis} ms"));
        let stepping = &mut self.nodes[node.0];
        stepping.wall_step = millis;
        stepping.home.wall_step.store(millis, Ordering::Relaxed);
    }

    pub(super) fn pick(&mut self, nodes: &[NodeId]) -> Option<NodeId> {
        if nodes.is_empty() {
            return None;
        }
        Some(nodes[self.random.random_range(0..nodes.len())])
    }

    pub(super) fn may_crash(&self, node: NodeId) -> bool {
        let node = &self.nodes[node.0];
        node.is_up() && node.settings.crashes
    }

    pub(super) fn crash_as_drawn(&mut self, node: NodeId) {
        let kept = self.nodes[node.0].settings.kept.clone();
        let kept = kept.unwrap_or_else(|| self.faults.kept.clone());
        let kept = disk::draw(&kept, &mut self.random);
        let machine = self.draw(self.faults.machine_crashes);
        let down = self.drawn(&self.faults.down.clone());
        self.crash(node, kept, machine);
        self.schedule(down, Event::Restart(node));
    }

    /// Ends a node as `kill -9` does, with its guests when its machine goes; it stays down until [`Sim::restart`].
    pub fn crash(&mut self, node: NodeId, kept: Kept, machine: bool) {
        if !self.nodes[node.0].is_alive() {
            return;
        }
        self.bites.count(faults::CRASH);
        self.bites.count(match kept {
            Kept::Synced => faults::KEPT_SYNCED,
            Kept::Partly => faults::KEPT_PARTLY,
            Kept::Nothing => faults::KEPT_NOTHING,
        });
        self.note_node(
            node,
            format_args!("CRASH, disk {kept:?}, machine {machine}"),
        );
        self.kill(node, State::Down);
        self.nodes[node.0].disk.crash(kept, &mut self.random);
        if machine {
            let guests = self.guests_of(node);
            if !guests.is_empty() {
                self.bites.count(faults::MACHINE);
            }
            for guest in guests {
                self.remove(guest);
            }
        }
    }

    /// Starts a node that is down.
    pub fn restart(&mut self, node: NodeId) {
        if self.nodes[node.0].state == State::Down {
            self.boot(node);
        }
    }

    /// Ends a node for good, as `kill -9` does.
    pub fn remove(&mut self, node: NodeId) {
        if self.nodes[node.0].is_alive() {
            self.note_node(node, format_args!("killed"));
            self.kill(node, State::Gone);
        }
        self.nodes[node.0].state = State::Gone;
        if let Some(guest_of) = self.nodes[node.0].guest_of.clone() {
            self.guests.remove(&guest_of);
        }
    }

    /// Ends a node for good in an orderly way: its processes end first, and links hear of it.
    pub fn shut_down(&mut self, node: NodeId) {
        for (id, number) in self.nodes[node.0]
            .slots
            .iter()
            .map(|(id, slot)| (Arc::clone(id), slot.number))
            .collect::<Vec<_>>()
        {
            self.end(&ProcessRef { node, id, number }, ExitReason::Terminated);
        }
        if self.nodes[node.0].is_alive() {
            self.note_node(node, format_args!("shut down"));
            self.vanish(node, State::Gone, true);
        }
        if let Some(guest_of) = self.nodes[node.0].guest_of.clone() {
            self.guests.remove(&guest_of);
        }
    }

    pub(super) fn kill(&mut self, node: NodeId, state: State) {
        self.tell(&Seen::Crashed(node));
        self.vanish(node, state, false);
    }

    pub(super) fn vanish(&mut self, node: NodeId, state: State, orderly: bool) {
        let dying = &mut self.nodes[node.0];
        dying.state = state;
        dying.home.dead.store(true, Ordering::Relaxed);
        dying.home.take_early().clear();
        for (_, slot) in std::mem::take(&mut self.nodes[node.0].slots) {
            self.forget(&slot);
            self.on_end.remove(&slot.number);
            process::drop_quietly(slot.cell);
        }
        self.parked.retain(|(parked, _)| *parked != node);
        self.disconnect(node, orderly);
    }

    /// Lets a node stand still for a while.
    pub fn pause(&mut self, node: NodeId, lasts: Duration) {
        if !self.nodes[node.0].is_up() {
            return;
        }
        self.bites.count(faults::PAUSE);
        self.note_node(node, format_args!("pauses for {lasts:?}"));
        self.nodes[node.0].state = State::Paused;
        self.nodes[node.0].pauses += 1;
        self.fell_silent(node);
        self.schedule(lasts, Event::Resume(node));
    }

    /// Lets a paused node go on: what was due meanwhile is due now, in its order.
    pub(super) fn resume(&mut self, node: NodeId) {
        if self.nodes[node.0].state != State::Paused {
            return;
        }
        self.note_node(node, format_args!("goes on"));
        self.nodes[node.0].state = State::Up;
        let (due, parked) = std::mem::take(&mut self.parked)
            .into_iter()
            .partition(|(parked, _)| *parked == node);
        self.parked = parked;
        for (_, event) in due {
            self.happen(event);
        }
    }
}
