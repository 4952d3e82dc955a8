//! Ends of tasks, executors, frameworks and the agent itself.

use meseta_protocol::messages::agent::*;
use meseta_protocol::messages::executor::*;
use meseta_protocol::status::{StatusReason, TaskState};
use meseta_runtime::ExitReason;
use std::time::Duration;

use crate::world::*;

#[test]
fn a_kill_is_answered_wherever_the_task_is() {
    let world = World::registered();
    world.say(kill("t"));
    assert_eq!(world.master.heard(), [], "nothing of the framework is here");
    // Queued, and the executor has nothing else to do.
    world.run(custom("t"), true);
    let (container, _) = world.launch();
    world.say(kill("t"));
    let update_of_queued = world.update();
    let during_launch = Some(StatusReason::TaskKilledDuringLaunch);
    assert_eq!(
        told(&update_of_queued),
        (
            TaskState::Killed,
            during_launch,
            "Killed before delivery to the executor"
        )
    );
    assert!(update_of_queued.status.container_status.is_none());
    world.clock.advance(Duration::from_secs(5));
    assert!(matches!(world.order(), Order::Destroy(of) if of == container));
    world.acknowledge(&update_of_queued);
    world.master.heard();
    // With the executor.
    let (container, executor) = world.running();
    world.say(kill("t"));
    assert!(
        matches!(&executor.heard()[..], [Heard::KillExecutorTask(kill)] if kill.task_id == "t".into())
    );
    // Nowhere, while the framework has something here.
    world.say(kill("x"));
    assert_eq!(
        told(&world.update()),
        (
            TaskState::Dropped,
            Some(StatusReason::ExecutorTerminated),
            "Cannot find executor"
        )
    );
    // With an executor that is ending.
    world.say(ShutdownAgentExecutor {
        framework_id: "f".into(),
        executor_id: "e".into(),
    });
    world.say(kill("t"));
    assert_eq!(
        executor.heard(),
        [Heard::ShutdownExecutorNow(ShutdownExecutorNow {})]
    );
    world.exit(&container, 0);
    assert_eq!(world.updates().len(), 1);
}

#[test]
fn an_ended_framework_hears_nothing_more_but_answers() {
    let world = World::registered();
    let (container, executor) = world.running();
    world.say(ShutdownFramework {
        framework_id: "f".into(),
    });
    assert_eq!(
        executor.heard(),
        [Heard::ShutdownExecutorNow(ShutdownExecutorNow {})]
    );
    executor.send(
        &world.agent,
        update("e", "t", TaskState::Killed, world.uuid()),
    );
    assert_eq!(world.updates(), []);
    // Unless it has come back with another master: that waits for an answer.
    world.run(custom("s"), false);
    let refused = world.update();
    let (state, reason, _) = told(&refused);
    let because = Some(StatusReason::FrameworkRemoved);
    assert_eq!((state, reason), (TaskState::Dropped, because));
    world.acknowledge(&refused);
    world.clock.advance(Duration::from_secs(5));
    assert!(matches!(world.order(), Order::Destroy(of) if of == container));
    assert!(matches!(
        world.master.heard()[..],
        [Heard::ExecutorExited(_)]
    ));
    assert!(world.metric("slave/frameworks_active") < 0.5);
}

#[test]
fn an_agent_that_stops_leaves_nothing_behind() {
    let world = World::registered();
    let (container, executor) = world.running();
    let stopped = meseta_agent::stop(&world.home, &world.agent);
    assert!(matches!(
        world.master.heard()[..],
        [Heard::UnregisterAgent(_)]
    ));
    assert_eq!(
        executor.heard(),
        [Heard::ShutdownExecutorNow(ShutdownExecutorNow {})]
    );
    world.clock.advance(Duration::from_secs(5));
    assert!(matches!(world.order(), Order::Destroy(of) if of == container));
    assert_eq!(futures::executor::block_on(stopped), ExitReason::Normal);
    assert_eq!(*world.sweeps.lock().unwrap(), [false, true]);
}

#[test]
fn an_agent_that_leaves_tries_again_what_did_not_end() {
    let world = World::registered();
    let (container, _executor) = world.running();
    *world.stubborn.lock().unwrap() = 1;
    let stopped = meseta_agent::stop(&world.home, &world.agent);
    world.clock.advance(Duration::from_secs(5));
    for _ in 0..2 {
        assert!(matches!(world.order(), Order::Destroy(of) if of == container));
        world.clock.advance(SECOND);
    }
    assert_eq!(futures::executor::block_on(stopped), ExitReason::Normal);
    assert_eq!(*world.sweeps.lock().unwrap(), [false, true]);
}

#[test]
fn the_master_can_end_an_agent() {
    let world = World::registered();
    let ended = world.home.ended(&world.agent);
    world.say(ShutdownAgent {
        message: "gone".into(),
    });
    assert_eq!(futures::executor::block_on(ended), ExitReason::Normal);
    assert_eq!(world.master.heard(), []);
}
