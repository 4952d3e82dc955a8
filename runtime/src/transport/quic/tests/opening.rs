//! A node that takes connections when it is told to.

use super::*;
use crate::opening::Opening;

#[test]
fn who_comes_before_a_node_opens_waits_and_is_not_refused() {
    let ca = authority();
    let opening = Opening::new(false);
    let host = TestNode::with(node(&ca), 0, |c| c.opening = opening.clone());
    let key = GuestKey::generate().unwrap();
    let guest = guest_with(&host, &ca, &key, |c| {
        c.handshake_timeout = LIMIT;
        c.connect_grace = LIMIT;
    });
    guest.send(&host.key(), &message("to", "executor-1", &host.address, 1));
    let dials = || {
        guest
            .transport()
            .shared
            .endpoint
            .stats()
            .outgoing_handshakes
    };
    let until = Instant::now() + LIMIT;
    while dials() == 0 && Instant::now() < until {
        std::thread::yield_now();
    }
    // Only now it is known; who asked earlier would have been refused.
    pin(&host, &key);
    opening.open();
    assert_eq!(number(&host.frame().1), 1);
    assert_eq!(dials(), 1);
}
