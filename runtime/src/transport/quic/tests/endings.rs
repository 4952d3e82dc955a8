//! How connections end: unused ones without a loss, dead peers soon, restarted ones at once, and those that do not take
//! what they asked for; and what large messages do to others.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};

use super::*;

/// A node whose unused connections end soon, and that says no link stands.
fn restless(ca: &CertificateAuthority) -> TestNode {
    let node = TestNode::with(node(ca), 0, |c| {
        c.idle_close = Duration::from_millis(100);
    });
    node.linked.store(false, Ordering::SeqCst);
    node
}

/// Waits until a node has no connection to a peer. The event is seen from outside only by looking.
fn until_left(node: &TestNode, peer: &PeerKey) {
    let limit = Instant::now() + LIMIT;
    while node.status(peer).connected {
        assert!(Instant::now() < limit, "the connection stands");
        std::thread::yield_now();
    }
}

#[test]
fn a_connection_that_nobody_uses_ends_without_a_loss_and_the_next_message_dials_anew() {
    let ca = authority();
    let (a, b) = (restless(&ca), restless(&ca));
    for number in 0..3 {
        a.send(&b.key(), &message("to", "from", &a.address, number));
        assert_eq!(super::number(&b.frame().1), number);
        b.send(&a.key(), &message("to", "from", &b.address, number));
        assert_eq!(super::number(&a.frame().1), number);
        until_left(&a, &b.key());
        until_left(&b, &a.key());
    }
    assert!(a.events.try_recv().is_err() && b.events.try_recv().is_err());
    assert_eq!(a.status(&b.key()).dropped + b.status(&a.key()).dropped, 0);
}

#[test]
fn messages_sent_while_connections_end_are_neither_lost_nor_doubled_nor_overtaken() {
    let ca = authority();
    let soon = |c: &mut QuicConfig| c.idle_close = Duration::from_millis(2);
    let (a, b) = (
        TestNode::with(node(&ca), 0, soon),
        TestNode::with(node(&ca), 0, soon),
    );
    for node in [&a, &b] {
        node.linked.store(false, Ordering::SeqCst);
    }
    let count = 400;
    let mut random = StdRng::seed_from_u64(11);
    for number in 0..count {
        a.send(&b.key(), &message("to", "from", &a.address, number));
        b.send(&a.key(), &message("to", "from", &b.address, number));
        // Now and then as long as it takes a connection to be given up, more or less.
        if rand::RngExt::random_bool(&mut random, 0.3) {
            let pause = rand::RngExt::random_range(&mut random, 1..8);
            let until = Instant::now() + Duration::from_millis(pause);
            while Instant::now() < until {
                std::thread::yield_now();
            }
        }
    }
    expect_in_order(&b, &a.key(), count);
    expect_in_order(&a, &b.key(), count);
    let left = a.metrics().value("runtime/connections_left").unwrap_or(0.0)
        + b.metrics().value("runtime/connections_left").unwrap_or(0.0);
    assert!(left > 0.0, "no connection ended in all that time");
    assert!(a.events.try_recv().is_err() && b.events.try_recv().is_err());
}

#[test]
fn a_connection_with_a_link_or_to_one_that_only_dials_is_kept() {
    let ca = authority();
    let (a, b) = (restless(&ca), restless(&ca));
    let driver = TestNode::with(node(&ca), 0, |c| {
        c.mode = Mode::DialOnly;
        c.idle_close = Duration::from_millis(100);
    });
    driver.linked.store(false, Ordering::SeqCst);
    b.linked.store(true, Ordering::SeqCst);
    a.send(&b.key(), &message("to", "from", &a.address, 1));
    b.frame();
    driver.send(&a.key(), &message("to", "from", &driver.address, 1));
    a.frame();
    // Many times the idle time: by then all of them have been looked at, and asked.
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        std::thread::yield_now();
    }
    assert!(a.status(&b.key()).connected && b.status(&a.key()).connected);
    assert!(a.status(&driver.key()).connected);
}

/// Never gives a connection up for silence.
fn patient(c: &mut QuicConfig) {
    c.idle_timeout = Duration::from_secs(3600);
    c.keep_alive = Duration::from_millis(200);
}

fn link(to: &str, from: &str, address: &Address) -> Frame {
    Frame {
        class: Class::Link,
        body: Bytes::new(),
        ..message(to, from, address, 0)
    }
}

/// What a node's HTTP server does with a probe. Others only look whether the port is open.
fn accept_probe(listener: &TcpListener) -> (TcpStream, u16) {
    loop {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut text = String::new();
        let mut byte = [0];
        while !text.ends_with("\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
            text.push(char::from(byte[0]));
        }
        let port = text
            .strip_prefix("GET /__probe__?udp=")
            .and_then(|rest| rest.split(' ').next())
            .and_then(|port| port.parse().ok());
        if let Some(port) = port {
            return (stream, port);
        }
    }
}

#[test]
fn a_linked_peer_whose_probe_ends_is_lost_soon_when_dead_and_kept_when_alive() {
    let ca = authority();
    let a = TestNode::with(node(&ca), 0, patient);
    let mut b = TestNode::with(node(&ca), 0, patient);
    let http = TcpListener::bind(("127.0.0.1", b.address.port)).unwrap();
    a.send(&b.key(), &link("to", "from", &a.address));
    b.frame();
    let (probe, port) = accept_probe(&http);
    assert_eq!(port, a.address.port);
    // The end of the TCP connection alone ends nothing: the peer answers, and is probed again.
    drop(probe);
    let (probe, _) = accept_probe(&http);
    a.send(&b.key(), &message("to", "from", &a.address, 1));
    assert_eq!(number(&b.frame().1), 1);
    assert!(a.events.try_recv().is_err());
    b.kill();
    drop((probe, http));
    assert_eq!(a.lost(), (b.key(), Loss::ConnectionLost));
    assert_eq!(a.metrics().value("runtime/peers_found_dead"), Some(1.0));
}

#[test]
fn one_that_only_dials_shows_its_end_by_its_own_probe() {
    let ca = authority();
    let a = TestNode::with(node(&ca), 0, patient);
    let http = TcpListener::bind(("127.0.0.1", a.address.port)).unwrap();
    let mut driver = TestNode::with(node(&ca), 0, |c| {
        patient(c);
        c.mode = Mode::DialOnly;
    });
    driver.send(&a.key(), &message("to", "from", &driver.address, 1));
    a.frame();
    a.send(&driver.key(), &link("to", "from", &a.address));
    driver.frame();
    let (mut probe, port) = accept_probe(&http);
    assert_eq!(port, driver.address.port);
    let from = probe.peer_addr().unwrap().ip();
    let guard = a.transport().probe(from, port).expect("the peer is known");
    assert!(a.transport().probe(from, a.address.port).is_none());
    driver.kill();
    assert_eq!(probe.read(&mut [0]).unwrap_or(0), 0, "the kernel closed it");
    drop(guard);
    assert_eq!(a.lost(), (driver.key(), Loss::ConnectionLost));
}

#[test]
fn a_restarted_process_answers_the_packets_for_its_earlier_run_with_resets() {
    let ca = authority();
    let identity = node(&ca);
    let a = TestNode::with(node(&ca), 0, patient);
    let mut b = TestNode::with(identity.clone(), 0, patient);
    a.send(&b.key(), &message("to", "from", &a.address, 1));
    b.frame();
    b.kill();
    let _again = TestNode::with(identity, b.address.port, patient);
    assert_eq!(a.lost(), (b.key(), Loss::ConnectionLost));
}

#[test]
fn the_end_of_ten_thousand_linked_processes_loses_no_notice() {
    let ca = authority();
    let (a, b) = (TestNode::start(node(&ca)), TestNode::start(node(&ca)));
    let count: usize = 10_000;
    for n in 0..count {
        let exited = Frame {
            class: Class::Exited,
            body: Bytes::from_static(b"\xa6Normal"),
            ..message(
                &format!("to{}", n % 7),
                &format!("from({n})"),
                &a.address,
                0,
            )
        };
        a.send(&b.key(), &exited);
    }
    let mut seen = std::collections::HashSet::new();
    for _ in 0..count {
        let (_, frame) = b.frame();
        assert_eq!(frame.class, Class::Exited);
        assert!(seen.insert(frame.from.to_string()), "told twice");
    }
}

#[test]
fn a_peer_that_links_and_does_not_read_loses_its_connection() {
    let ca = authority();
    let a = TestNode::with(node(&ca), 0, |c| c.max_queue_bytes = 1 << 20);
    let rogue = Rogue::new(node(&ca));
    let (connection, _control) = rogue
        .connect(&a.address, rogue.client(), &rogue.hello())
        .unwrap();
    let key = PeerKey::Node(rogue.config.address.clone());
    // It never takes what comes on the lanes.
    let reason = Bytes::from(vec![0; 4000]);
    let exited = |n: u32| Frame {
        class: Class::Exited,
        body: reason.clone(),
        ..message("to", &format!("from({n})"), &a.address, 0)
    };
    let refused = (0..10_000).find(|n| a.transport().send(&key, &exited(*n)).is_err());
    assert!(refused.is_some(), "as much as it likes");
    assert_eq!(a.lost(), (key.clone(), Loss::ConnectionLost));
    // The word that ends the connection may be lost among what it did not read; then its own packets are answered with
    // a reset.
    let end = rogue.limited(connection.closed());
    let told = Close::Overrun.is_why(&end) || end == quinn::ConnectionError::Reset;
    assert!(told, "{end}");
    assert_eq!(a.status(&key).queued_bytes, 0);
}

#[test]
fn a_large_message_does_not_hold_up_others_of_its_lane() {
    let ca = authority();
    let (a, b) = (TestNode::start(node(&ca)), TestNode::start(node(&ca)));
    // Two pairs of one lane.
    let lane = lanes::lane_of("large", "from");
    let other = (0..)
        .map(|n| format!("small({n})"))
        .find(|to| lanes::lane_of(to, "from") == lane)
        .unwrap();
    a.send(&b.key(), &message("large", "from", &a.address, 0));
    b.frame();
    let body = Bytes::from(vec![7; 48 << 20]);
    a.send(&b.key(), &message_of("large", "from", &a.address, body));
    a.send(&b.key(), &message("large", "from", &a.address, 1));
    a.send(&b.key(), &message(&other, "from", &a.address, 2));
    let order: Vec<_> = (0..3).map(|_| b.frame().1).collect();
    assert_eq!(number(&order[0]), 2, "the small one of another pair passed");
    assert_eq!(order[1].body.len(), 48 << 20);
    assert_eq!(number(&order[2]), 1, "its own pair kept its order");
    // Counted when all of what was read at once is delivered: certainly by the time that more comes.
    a.send(&b.key(), &message(&other, "from", &a.address, 3));
    b.frame();
    assert_eq!(b.metrics().value("runtime/reassembly_bytes"), Some(0.0));
}

#[test]
fn a_sender_is_told_that_a_process_is_overloaded_and_not_too_often() {
    let ca = authority();
    let (a, b) = (TestNode::start(node(&ca)), TestNode::start(node(&ca)));
    a.send(&b.key(), &message("slow", "from", &a.address, 1));
    b.frame();
    let slow = Pid::new("slow", b.address.clone()).unwrap();
    for _ in 0..1000 {
        b.transport().overloaded(&a.key(), &slow);
    }
    assert_eq!(a.event(), Event::Overloaded(b.key(), "slow".to_owned()));
    let told = b.metrics().value("runtime/overloads_told").unwrap();
    assert!((1.0..100.0).contains(&told), "{told}");
}
