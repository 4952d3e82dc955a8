//! How a connection that nobody uses ends without losing anything.
//!
//! A side that has seen no frame for the idle time, and on whose connection no link stands, holds back what its node
//! sends from now on and proposes to leave, with the numbers of frames it has sent and received. The other side agrees
//! when both are its own too, so that nothing is under way in either direction, and it has itself nothing to send and no
//! link; it sends nothing more on the connection from then on. The first side then closes it. What was held back, or is
//! sent afterwards by either, goes over a new connection: one that the other side dials may be here before its answer,
//! and takes the place of the old one without a loss, since nothing was left to arrive on that. A side that does not
//! agree says so, and what was held back follows on the old one.
//!
//! Only between nodes that can dial each other: one that only dials would be out of reach.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::debug;

use super::Shared;
use super::control::Word;
use super::slot::{Live, Slot};
use crate::transport::peers::Input;

/// Frames that one side has sent and received on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) sent: u64,
    pub(super) received: u64,
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

    /// Proposes to leave when nothing but `before` has gone over the connection and nobody needs it. Whether the
    /// peer is to be asked.
    pub(super) fn propose_to_leave(&self, slot: &Slot, live: &Live, before: Traffic) -> bool {
        let _turn = slot.turn.lock();
        if self.is_closing() || self.upcalls.is_linked(&slot.key) {
            return false;
        }
        let mut state = slot.state.lock();
        // A link that was made since the look has been pushed.
        let unused = state.is_current(live.id)
            && state.machine.may_leave()
            && state.outbox.is_idle()
            && state.outbox.pushed() == before.sent
            && live.received.load(Ordering::Acquire) == before.received;
        if !unused {
            return false;
        }
        let connection = live.id;
        let mut random = self.random.lock();
        let effects = state
            .machine
            .step(self.now(), &mut *random, Input::Leaving { connection });
        debug_assert!(effects.is_empty(), "it only waits for the answer");
        state.outbox.hold();
        true
    }

    /// Answers a proposal of the peer, to whom `theirs` had gone over the connection.
    pub(super) fn answer_leave(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        live: &Arc<Live>,
        theirs: Traffic,
    ) {
        if self.agrees_to_leave(slot, live, theirs) {
            live.say(&Word::Left);
            debug!(peer = %slot.key, "connection left");
        } else {
            live.say(&Word::Stay);
        }
    }

    fn agrees_to_leave(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        live: &Arc<Live>,
        theirs: Traffic,
    ) -> bool {
        let turn = slot.turn.lock();
        if self.is_closing() || self.upcalls.is_linked(&slot.key) {
            return false;
        }
        let unused = {
            let state = slot.state.lock();
            state.is_current(live.id)
                && state.machine.may_leave()
                && state.outbox.is_idle()
                && state.outbox.pushed() == theirs.received
                && live.received.load(Ordering::Acquire) == theirs.sent
        };
        if unused {
            let connection = live.id;
            self.apply_in_turn(slot, Input::Left { connection }, None, &turn);
        }
        unused
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

    /// The peer has left: what was held back goes over a new connection.
    pub(super) fn left(self: &Arc<Self>, slot: &Arc<Slot>, live: &Live) {
        let connection = live.id;
        self.config.metrics.count("runtime/connections_left");
        self.apply(slot, Input::Left { connection }, None);
    }
}
