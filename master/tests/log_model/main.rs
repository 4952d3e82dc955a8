//! The replicated log, all interleavings of a small world.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a model: a failure here is the test's failure, and its counts are printed"
)]

mod by_hand;
mod cases;
mod laws;
mod memo;
mod mistakes;
mod turn;
mod world;

use std::sync::Arc;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::world::{World, Write};

fn world() -> World {
    World {
        writes: vec![Write::Append, Write::Append],
        crashes: 0,
        wipes: 0,
        retries: 0,
        doubles: true,
        empty: false,
        slow_answers: false,
        lost_answers: false,
        flush: false,
        lost_fetches: false,
        in_turn: false,
        frail: vec![0, 1, 2],
        mistake: None,
        memo: Arc::default(),
    }
}

/// What checking a world has shown.
struct Checked {
    /// Names of broken laws.
    broken: Vec<String>,
    /// What must be reachable and was not reached.
    unreached: Vec<String>,
}

/// Plays a world to its end, or to the first broken law.
fn check(world: &World) -> Checked {
    let wanted: Vec<&str> = world
        .properties()
        .into_iter()
        .filter(|property| property.expectation == Expectation::Sometimes)
        .map(|property| property.name)
        .collect();
    let memo = Arc::default();
    let world_of_its_own = World {
        memo,
        ..world.clone()
    };
    let builder = world_of_its_own
        .checker()
        .finish_when(HasDiscoveries::AnyFailures);
    // The shortest way to a mistake, and the same each time; but all states with little memory.
    let checker: Box<dyn Checker<World>> = if world.mistake.is_some() {
        Box::new(builder.threads(1).spawn_bfs().join())
    } else {
        Box::new(builder.threads(2).spawn_dfs().join())
    };
    let seen = checker.discoveries();
    let broken: Vec<String> = seen
        .keys()
        .filter(|name| !wanted.contains(name))
        .map(ToString::to_string)
        .collect();
    println!(
        "{} states, {} of them different, {} steps deep",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
    );
    for name in &broken {
        if world.mistake.is_none() {
            println!("{name}:");
            for step in seen[name.as_str()].clone().into_actions() {
                println!("  {step:?}");
            }
        }
    }
    Checked {
        unreached: wanted
            .iter()
            .filter(|name| !seen.contains_key(*name))
            .map(ToString::to_string)
            .collect(),
        broken,
    }
}

/// Plays a world to its end: every law holds in every state, and everything that should be possible is.
fn exhaust(world: &World) {
    let checked = check(world);
    assert_eq!(checked.broken, [""; 0]);
    assert_eq!(checked.unreached, [""; 0]);
}

#[test]
fn two_coordinators_keep_every_law_in_every_interleaving() {
    exhaust(&world());
}

#[test]
fn a_wiped_replica_and_watermarks_keep_every_law() {
    let world = World {
        writes: vec![Write::Append],
        wipes: 1,
        flush: true,
        lost_fetches: true,
        ..world()
    };
    exhaust(&world);
}

// The full suite runs the worlds below; each is played to its end.

#[test]
#[ignore = "takes minutes: part of the full suite"]
fn full_the_third_replica_may_crash_and_lose_its_disk() {
    exhaust(&World {
        crashes: 1,
        wipes: 1,
        frail: vec![2],
        in_turn: true,
        ..world()
    });
}

#[test]
#[ignore = "takes minutes: part of the full suite"]
fn full_a_coordinators_node_may_crash_and_lose_its_disk() {
    exhaust(&World {
        crashes: 1,
        wipes: 1,
        frail: vec![0],
        ..world()
    });
}

#[test]
#[ignore = "takes minutes: part of the full suite"]
fn full_answers_may_be_late_or_lost() {
    exhaust(&World {
        slow_answers: true,
        lost_fetches: true,
        ..world()
    });
}

#[test]
#[ignore = "takes minutes: part of the full suite"]
fn full_an_entry_and_a_truncation_with_watermarks_crashes_and_one_retried_fill() {
    exhaust(&World {
        writes: vec![Write::Append, Write::Truncate],
        crashes: 1,
        flush: true,
        lost_fetches: true,
        retries: 1,
        ..world()
    });
}
