//! How a connection that nobody uses ends without losing anything.
//!
//! A side that has seen no frame for the idle time, and on whose connection no link stands, holds back what its node
//! sends from now on and proposes to leave, with the number of frames it has sent. The other side agrees when it has
//! received them all and has itself nothing to send and no link; it sends nothing more on the connection from then on,
//! and says how many frames it had sent. When those are here too, the first side closes the connection. What was held
//! back, or is sent afterwards by either, goes over a new connection. A side that does not agree says so, and what was
//! held back follows on the old one.
//!
//! Only between nodes that can dial each other: one that only dials would be out of reach.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::debug;

use super::Shared;
use super::control::Word;
use super::slot::{Live, Slot};
use crate::transport::peers::Input;

/// Frames sent and received on a connection, to see whether it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Traffic {
    sent: u64,
    received: u64,
}

impl Shared {
    /// What has gone over a connection by now; `None` when it counts no more.
    pub(super) fn traffic(slot: &Slot, live: &Live) -> Option<Traffic> {
        let state = slot.state.lock();
        state.is_current(live.id).then(|| Traffic {
            sent: state.outbox.pushed(),
            received: live.received.load(Ordering::Acquire),
        })
    }

    /// Proposes to leave when nothing but `before` has gone over the connection and nobody needs it. The number for
    /// the proposal.
    pub(super) fn propose_to_leave(
        &self,
        slot: &Slot,
        live: &Live,
        before: Traffic,
    ) -> Option<u64> {
        let _turn = slot.turn.lock();
        if self.is_closing() || self.upcalls.is_linked(&slot.key) {
            return None;
        }
        let mut state = slot.state.lock();
        // A link that was made since the look has been pushed.
        let unused = state.is_current(live.id)
            && state.machine.may_leave()
            && state.outbox.is_idle()
            && state.outbox.pushed() == before.sent
            && live.received.load(Ordering::Acquire) == before.received;
        if !unused {
            return None;
        }
        let connection = live.id;
        let mut random = self.random.lock();
        let effects = state
            .machine
            .step(self.now(), &mut *random, Input::Leaving { connection });
        debug_assert!(effects.is_empty(), "it only waits for the answer");
        state.outbox.hold();
        Some(state.outbox.pushed())
    }

    /// Answers a proposal of the peer, who had sent so many frames.
    pub(super) fn answer_leave(self: &Arc<Self>, slot: &Arc<Slot>, live: &Arc<Live>, theirs: u64) {
        let Some(agreed) = self.agrees_to_leave(slot, live, theirs) else {
            live.say(&Word::Stay);
            return;
        };
        live.say(&Word::Left(agreed));
        debug!(peer = %slot.key, "connection left");
    }

    fn agrees_to_leave(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        live: &Arc<Live>,
        theirs: u64,
    ) -> Option<u64> {
        let before = Self::traffic(slot, live)?;
        if before.received != theirs || self.is_closing() {
            return None;
        }
        let turn = slot.turn.lock();
        if self.upcalls.is_linked(&slot.key) {
            return None;
        }
        let unused = {
            let state = slot.state.lock();
            state.is_current(live.id)
                && state.machine.may_leave()
                && state.outbox.is_idle()
                && state.outbox.pushed() == before.sent
        };
        if !unused {
            return None;
        }
        let connection = live.id;
        self.apply_in_turn(slot, Input::Left { connection }, None, &turn);
        Some(before.sent)
    }

    /// The peer would rather keep the connection.
    pub(super) fn stay(self: &Arc<Self>, slot: &Arc<Slot>, live: &Arc<Live>) {
        let connection = live.id;
        self.apply(slot, Input::Stay { connection }, None);
        let mut state = slot.state.lock();
        if state.is_current(connection) {
            state.outbox.release();
            state.rouse_all(|live, lane| super::connection::open_lane(self, slot, live, lane));
        }
    }

    /// The peer has left, and all that it had sent is here: what was held back goes over a new connection.
    pub(super) fn left(self: &Arc<Self>, slot: &Arc<Slot>, live: &Live) {
        let connection = live.id;
        self.config.metrics.count("runtime/connections_left");
        self.apply(slot, Input::Left { connection }, None);
    }
}
