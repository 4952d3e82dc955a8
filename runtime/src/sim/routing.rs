//! Where a message or a link of a simulated node goes, as a live node decides it; and who is told of an end.

use std::collections::VecDeque;

use super::network::Frame;
use super::node::User;
use super::{NodeId, Sim};
use crate::links::{self, ExitReason, Input};
use crate::pid::Pid;

/// Where a message goes.
pub(super) enum Place {
    Here,
    Peer(NodeId),
    /// A guest that may connect and has not, and nobody can dial.
    Unreachable,
    /// An address at which there is no node.
    Nowhere,
}

impl Sim {
    pub(super) fn place(&self, node: NodeId, pid: &Pid) -> Place {
        let here = &self.nodes[node.0];
        if *pid.address() == here.address {
            if here.slots.contains_key(pid.id()) {
                return Place::Here;
            }
            if let Some((host, _)) = &here.guest_of {
                return Place::Peer(*host);
            }
            if here.pinned.contains_key(pid.id()) {
                return match self.guests.get(&(node, pid.shared_id())) {
                    Some(guest) => Place::Peer(*guest),
                    None => Place::Unreachable,
                };
            }
            return Place::Here;
        }
        match self.by_address.get(pid.address()) {
            Some(peer) => Place::Peer(*peer),
            None => Place::Nowhere,
        }
    }

    pub(super) fn link(&mut self, node: NodeId, watcher: Pid, target: Pid) {
        let input = match self.place(node, &target) {
            Place::Here => Input::WatchLocal {
                alive: self.is_alive(node, &target),
                watcher,
                target,
            },
            Place::Peer(peer) => Input::WatchRemote {
                peer: self.peer_key(node, peer),
                watcher,
                target,
            },
            Place::Unreachable | Place::Nowhere => {
                let reason = ExitReason::ConnectionLost;
                self.notify(node, &watcher, target, reason);
                return;
            }
        };
        self.links(node, input);
    }

    pub(super) fn is_alive(&self, node: NodeId, pid: &Pid) -> bool {
        self.nodes[node.0].slots.contains_key(pid.id())
    }

    /// Steps a node's link table and carries out what follows.
    pub(super) fn links(&mut self, node: NodeId, input: Input) {
        let mut effects: VecDeque<_> = self.nodes[node.0].links.step(input).into();
        while let Some(effect) = effects.pop_front() {
            match effect {
                links::Effect::Notify {
                    watcher,
                    target,
                    reason,
                } => self.notify(node, &watcher, target, reason),
                links::Effect::SendLink {
                    peer,
                    watcher,
                    target,
                } => {
                    let frame = Frame::Link {
                        watcher: watcher.clone(),
                        target: target.clone(),
                    };
                    let sent = self
                        .peer(node, &peer)
                        .is_some_and(|peer| self.send_frame(node, peer, frame));
                    if !sent {
                        effects.extend(self.nodes[node.0].links.step(Input::RemoteExited {
                            watcher,
                            target,
                            reason: ExitReason::ConnectionLost,
                        }));
                    }
                }
                links::Effect::SendUnlink {
                    peer,
                    watcher,
                    target,
                } => {
                    if let Some(peer) = self.peer(node, &peer) {
                        self.send_frame(node, peer, Frame::Unlink { watcher, target });
                    }
                }
                links::Effect::SendExited {
                    peer,
                    watcher,
                    target,
                    reason,
                } => {
                    if let Some(peer) = self.peer(node, &peer) {
                        let frame = Frame::Exited {
                            watcher,
                            target,
                            reason,
                        };
                        self.send_frame(node, peer, frame);
                    }
                }
            }
        }
    }

    fn notify(&mut self, node: NodeId, watcher: &Pid, target: Pid, reason: ExitReason) {
        if let Some(slot) = self.nodes[node.0].slots.get_mut(watcher.id()) {
            let id = slot.pid.shared_id();
            slot.user.push_back(User::Exited(target, reason));
            self.wake(node, &id);
        }
    }
}
