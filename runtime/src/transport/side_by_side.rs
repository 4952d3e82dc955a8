//! Two transports of one node: one for other nodes, and one more for guests of the same machine.
//!
//! Invariant: a guest's id is pinned in one of the two at most, by how it proves itself; frames go where it is.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Body, Guest, PeerKey, PeerStatus, Proof, SendError, Transport};
use crate::codec::{Class, Frame};
use crate::pid::Pid;

/// `nodes` carries frames of nodes and of guests with certificates, `guests` those of guests with tokens.
pub(crate) struct SideBySide {
    pub(crate) nodes: Arc<dyn Transport>,
    pub(crate) guests: Arc<dyn Transport>,
}

impl SideBySide {
    fn of(&self, peer: &PeerKey) -> &Arc<dyn Transport> {
        match peer {
            PeerKey::Guest(id) if self.guests.has_guest(id) => &self.guests,
            PeerKey::Guest(_) | PeerKey::Node(_) => &self.nodes,
        }
    }
}

impl Transport for SideBySide {
    fn send(&self, to: &PeerKey, frame: &Frame) -> Result<(), SendError> {
        self.of(to).send(to, frame)
    }

    fn post(
        &self,
        peer: &PeerKey,
        class: Class,
        to: &Pid,
        from: &Pid,
        body: Body<'_>,
    ) -> Result<(), SendError> {
        self.of(peer).post(peer, class, to, from, body)
    }

    fn pin(&self, guest: Guest) {
        let (theirs, other) = match guest.proof {
            Proof::Certificate(_) => (&self.nodes, &self.guests),
            Proof::Token { .. } => (&self.guests, &self.nodes),
        };
        other.unpin(&guest.id);
        theirs.pin(guest);
    }

    fn unpin(&self, id: &str) {
        self.nodes.unpin(id);
        self.guests.unpin(id);
    }

    fn has_guest(&self, id: &str) -> bool {
        self.nodes.has_guest(id) || self.guests.has_guest(id)
    }

    fn overloaded(&self, peer: &PeerKey, process: &Pid) {
        self.of(peer).overloaded(peer, process);
    }

    fn probe(&self, host: IpAddr, port: u16) -> Option<Box<dyn Any + Send>> {
        self.nodes.probe(host, port)
    }

    fn peers(&self) -> Vec<PeerStatus> {
        let mut all = self.nodes.peers();
        all.extend(self.guests.peers());
        all.sort_by(|a, b| a.peer.cmp(&b.peer));
        all
    }

    fn shutdown(&self) -> BoxFuture<'static, ()> {
        let both = futures::future::join(self.nodes.shutdown(), self.guests.shutdown());
        both.map(|((), ())| ()).boxed()
    }
}
