//! The log filter of a program, changed through its node's process `logging`: by whom, for how long.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use meseta_runtime::logging::{Filter, LOGGING, LogFilter, Logging, ResetLogFilter, SetLogFilter};
use meseta_runtime::transport::memory::MemoryNetwork;
use meseta_runtime::{Clock, Node, Pid};

struct World {
    clock: Clock,
    network: MemoryNetwork,
    filter: Filter,
    node: Node,
    logging: Pid,
}

impl World {
    fn new() -> Self {
        let (clock, network) = (Clock::paused(), MemoryNetwork::default());
        let filter = Filter::new("info", |_| Ok(()));
        let node = Node::builder().memory(&network).clock(clock.clone());
        let node = node.start().unwrap();
        let known = filter.clone();
        let logging = node
            .spawn(LOGGING, move || Logging::of(move || Some(known.clone())))
            .unwrap();
        clock.settle();
        Self {
            clock,
            network,
            filter,
            node,
            logging,
        }
    }

    fn peer(&self, role: &str) -> Node {
        let builder = Node::builder().memory(&self.network).role(role);
        builder.clock(self.clock.clone()).start().unwrap()
    }

    fn set(&self, by: &Node, directives: &str, seconds: u64) -> LogFilter {
        let wanted = SetLogFilter {
            directives: directives.to_owned(),
            seconds,
        };
        let answer = by.ask(&self.logging, wanted, Duration::from_secs(5));
        self.clock.settle();
        answer.wait().unwrap()
    }

    fn in_force(&self) -> String {
        self.filter.in_force().directives
    }
}

#[test]
fn an_operator_changes_the_filter_for_a_time_and_is_told_what_is_in_force() {
    let world = World::new();
    let operator = world.peer("operator");
    let answer = world.set(&operator, "warn,meseta_master=debug", 600);
    assert_eq!(
        answer,
        LogFilter {
            directives: "warn,meseta_master=debug".to_owned(),
            base: "info".to_owned(),
            by: Some(format!("node@{}", operator.address())),
            seconds_left: Some(600),
            refused: None,
        }
    );
    assert_eq!(world.in_force(), "warn,meseta_master=debug");
    world.clock.advance(Duration::from_secs(599));
    assert_eq!(world.in_force(), "warn,meseta_master=debug");
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.in_force(), "info");
    operator.shutdown();
    world.node.shutdown();
}

#[test]
fn a_later_change_has_its_own_time_and_a_reset_ends_it() {
    let world = World::new();
    let operator = world.peer("operator");
    world.set(&operator, "debug", 10);
    world.set(&operator, "trace", 100);
    world.clock.advance(Duration::from_secs(50));
    assert_eq!(world.in_force(), "trace");
    let answer = operator.ask(&world.logging, ResetLogFilter {}, Duration::from_secs(5));
    world.clock.settle();
    let answer = answer.wait().unwrap();
    assert_eq!((answer.directives.as_str(), answer.by), ("info", None));
    assert_eq!(world.in_force(), "info");
    operator.shutdown();
    world.node.shutdown();
}

#[test]
fn a_bad_filter_or_time_is_refused_with_its_reason_and_changes_nothing() {
    let world = World::new();
    let operator = world.peer("operator");
    let week = 7 * 24 * 60 * 60;
    for (directives, seconds, reason) in [
        ("info,meseta_master=loud", 60, "`meseta_master=loud`"),
        ("debug", 0, "1 second to 7 days"),
        ("debug", week + 1, "1 second to 7 days"),
    ] {
        let answer = world.set(&operator, directives, seconds);
        let refused = answer.refused.unwrap();
        assert!(refused.contains(reason), "{refused}");
        assert_eq!((answer.directives.as_str(), answer.by), ("info", None));
    }
    assert_eq!(world.set(&operator, "debug", week).refused, None);
    operator.shutdown();
    world.node.shutdown();
}

#[test]
fn nobody_but_an_operator_may_change_what_is_logged() {
    let world = World::new();
    for role in ["master", "agent", "scheduler", "executor"] {
        let stranger = world.peer(role);
        let wanted = SetLogFilter {
            directives: "trace".to_owned(),
            seconds: 60,
        };
        stranger.send(&world.logging, wanted);
        stranger.send(&world.logging, ResetLogFilter {});
        world.clock.settle();
        stranger.shutdown();
    }
    let refused = world.node.metrics().value("runtime/messages_dropped/role");
    assert_eq!((world.in_force().as_str(), refused), ("info", Some(8.0)));
    world.node.shutdown();
}

#[test]
fn a_program_that_logs_by_other_means_says_so() {
    let (clock, network) = (Clock::paused(), MemoryNetwork::default());
    let builder = Node::builder().memory(&network).clock(clock.clone());
    let node = builder.start().unwrap();
    let logging = node.spawn(LOGGING, || Logging::of(|| None)).unwrap();
    let wanted = SetLogFilter {
        directives: "debug".to_owned(),
        seconds: 60,
    };
    let answer = node.ask(&logging, wanted, Duration::from_secs(5));
    clock.settle();
    let refused = answer.wait().unwrap().refused.unwrap();
    assert!(refused.contains("logging::init"), "{refused}");
    node.shutdown();
}
