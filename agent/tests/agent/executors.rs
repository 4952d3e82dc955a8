//! Executors that subscribe, hang and go.

use meseta_agent::StopAgent;
use meseta_agent::containerizer::ContainerEnded;
use meseta_protocol::messages::agent::*;
use meseta_protocol::status::{StatusReason, TaskState};
use std::time::Duration;

use crate::world::*;

#[test]
fn the_end_of_an_executor_ends_its_tasks() {
    let world = World::registered();
    let (container, executor) = world.running();
    world.run(custom("s"), false);
    assert!(matches!(executor.heard()[..], [Heard::LaunchTask(_)]));
    world.exit(&container, 256);
    let heard = world.master.heard();
    let mut tasks = Vec::new();
    for heard in &heard {
        match heard {
            Heard::UpdateStatus(message) => {
                let text = "Executor terminated: exited with status 1";
                assert_eq!(
                    told(&message.update),
                    (
                        TaskState::Failed,
                        Some(StatusReason::ExecutorTerminated),
                        text
                    )
                );
                tasks.push(message.update.clone());
            }
            Heard::ExecutorExited(exited) => {
                assert_eq!((exited.executor_id.as_str(), exited.status), ("e", 256));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((heard.len(), tasks.len()), (3, 2));
    tasks.iter().for_each(|update| world.acknowledge(update));
    assert!(world.metric("slave/frameworks_active") < 0.5);
    assert!(
        !world
            .home
            .peers()
            .iter()
            .any(|peer| peer.peer.contains("executor") && peer.connected)
    );
}

#[test]
fn an_executor_whose_link_breaks_is_given_its_grace_period() {
    let world = World::registered();
    let (container, executor) = world.running();
    executor.node.shutdown();
    world.clock.advance(Duration::from_secs(4));
    assert!(world.orders.try_recv().is_err());
    world.clock.advance(SECOND);
    assert!(matches!(world.order(), Order::Destroy(of) if of == container));
    assert_eq!(
        told(&world.update()).2,
        "Executor terminated: terminated by signal SIGKILL"
    );
}

#[test]
fn an_executor_that_does_not_subscribe_in_time_is_ended() {
    let world = World::registered();
    world.run(command("t"), false);
    let (container, _) = world.launch();
    world.clock.advance(Duration::from_secs(59));
    world.say(Ping { connected: true });
    assert!(world.orders.try_recv().is_err());
    world.clock.advance(SECOND);
    assert!(matches!(world.order(), Order::Destroy(of) if of == container));
    let reason = Some(StatusReason::ExecutorRegistrationTimeout);
    assert_eq!(
        told(&world.update()),
        (
            TaskState::Failed,
            reason,
            "Executor did not register within 1mins"
        )
    );
}

#[test]
fn nobody_speaks_for_an_executor_but_itself() {
    let world = World::registered();
    let (_, executor) = world.running();
    world.run(command("other"), false);
    let (container, _) = world.launch();
    let foreign = world.executor(&container);
    foreign.send(&world.agent, subscribe("e"));
    assert!(matches!(foreign.heard()[..], [Heard::ExecutorRefused(_)]));
    foreign.send(
        &world.agent,
        update("e", "t", TaskState::Finished, world.uuid()),
    );
    let stranger = Actor::on(&world.home, "stranger");
    stranger.send(&world.agent, subscribe("e"));
    assert!(matches!(stranger.heard()[..], [Heard::ExecutorRefused(_)]));
    assert_eq!((world.updates(), executor.heard()), (vec![], vec![]));
    let away = Actor::on(&world.master.node, "away");
    let ended = ContainerEnded {
        container,
        status: 0,
        complaint: None,
    };
    away.send(&world.agent, ended);
    away.send(&world.agent, StopAgent {});
    assert!(world.orders.try_recv().is_err());
}

#[test]
fn a_container_whose_end_is_not_reported_is_gone_all_the_same() {
    let world = World::registered();
    let (container, executor) = world.running();
    drop(world.running.lock().unwrap().remove(&container));
    executor.node.shutdown();
    world.clock.advance(Duration::from_secs(5));
    assert!(matches!(world.order(), Order::Destroy(of) if of == container));
    assert_eq!(world.updates(), []);
    world.clock.advance(Duration::from_secs(10));
    assert_eq!(
        told(&world.update()).2,
        "Executor terminated: ended in an unknown way"
    );
}
