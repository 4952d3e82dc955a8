//! An agent that is killed and starts again beside its executors.

use meseta_protocol::UpdateId;
use meseta_protocol::messages::executor::*;
use meseta_protocol::status::{StatusUpdate, TaskState};

use crate::world::*;

/// The executor comes back with what it has not heard to have arrived.
pub(crate) fn comes_back(unheard: &[UpdateTask], tasks: &[&str]) -> SubscribeExecutor {
    let unheard = unheard.iter().map(|message| StatusUpdate {
        framework_id: "f".into(),
        executor_id: Some("e".into()),
        uuid: message.status.uuid,
        status: message.status.clone(),
        ..StatusUpdate::default()
    });
    SubscribeExecutor {
        unacknowledged_updates: unheard.collect(),
        unacknowledged_tasks: tasks.iter().map(|task| custom(task)).collect(),
        ..subscribe("e")
    }
}

/// A world of a framework that checkpoints, with an executor that has the task `t`.
fn world() -> (World, Actor) {
    let world = World::registered();
    world.checkpoint.set(true);
    let (_, executor) = world.running();
    (world, executor)
}

fn end_of(task: &str, n: u8) -> UpdateTask {
    let uuid = UpdateId::from_bytes([n; 16]);
    update("e", task, TaskState::Finished, uuid)
}

/// The task `t` ends, and the framework knows; the executor misses the word that its own has arrived.
fn ends(world: &World, executor: &Actor, n: u8) {
    executor.send(&world.agent, end_of("t", n));
    assert_eq!(words(executor), [format!("has {n}")]);
    let told = world.update();
    assert_eq!(told.uuid, Some(UpdateId::from_bytes([n; 16])));
    world.acknowledge(&told);
}

#[test]
fn a_task_whose_id_was_used_before_does_not_get_the_end_of_the_earlier_one_over_a_restart() {
    let (mut world, executor) = world();
    ends(&world, &executor, 1);
    world.run(custom("t"), false);
    assert_eq!(words(&executor), ["launch t"]);
    // The executor takes it for the same launch, since it still waits for the word on the end of the first.
    for _ in 0..2 {
        world.restart();
        executor.send(&world.agent, comes_back(&[end_of("t", 1)], &["t"]));
        assert_eq!(words(&executor), ["subscribed", "has 1", "launch t"]);
        let heard = world.let_in();
        let all = heard.iter();
        let tasks = all.filter_map(|heard| match heard {
            Heard::ReregisterAgent(back) => Some(&back.tasks),
            _ => None,
        });
        for tasks in tasks {
            let states: Vec<_> = tasks.iter().map(|task| task.state).collect();
            assert_eq!(states, [TaskState::Staging]);
        }
        assert_eq!(world.updates(), []);
    }
    ends(&world, &executor, 2);
}

#[test]
fn the_same_when_the_id_is_used_again_after_the_restart() {
    let (mut world, executor) = world();
    ends(&world, &executor, 1);
    world.restart();
    executor.send(&world.agent, comes_back(&[end_of("t", 1)], &[]));
    assert_eq!(words(&executor), ["subscribed", "has 1"]);
    world.let_in();
    assert_eq!(world.updates(), []);
    world.run(custom("t"), false);
    assert_eq!(words(&executor), ["launch t"]);
    world.restart();
    executor.send(&world.agent, comes_back(&[end_of("t", 1)], &["t"]));
    assert_eq!(words(&executor), ["subscribed", "has 1", "launch t"]);
    world.let_in();
    assert_eq!(world.updates(), []);
    ends(&world, &executor, 2);
}

#[test]
fn what_an_executor_makes_up_while_its_agent_is_away_is_heard_when_it_is_back() {
    let (mut world, executor) = world();
    ends(&world, &executor, 1);
    world.restart();
    let own = [end_of("t", 1), end_of("own", 7)];
    executor.send(&world.agent, comes_back(&own, &[]));
    assert_eq!(words(&executor), ["subscribed", "has 1"]);
    world.let_in();
    let told = world.update();
    assert_eq!(
        (told.status.task_id.as_str(), told.uuid),
        ("own", own[1].status.uuid)
    );
    world.acknowledge(&told);
    executor.send(&world.agent, end_of("another", 8));
    assert_eq!(world.update().status.task_id.as_str(), "another");
    // What it says late of a task that is over is taken, and told nobody.
    executor.send(
        &world.agent,
        update("e", "t", TaskState::Running, UpdateId::from_bytes([9; 16])),
    );
    assert_eq!(words(&executor), ["has 9"]);
    assert_eq!(world.updates(), []);
}

#[test]
fn an_agent_that_finds_other_memory_comes_back_with_its_tasks_and_offers_what_it_did() {
    let (mut world, executor) = world();
    for found in [2048, 1000, 1024] {
        world.found_mem.set(found);
        world.restart();
        executor.send(&world.agent, comes_back(&[], &["t"]));
        let heard = world.let_in();
        let back = heard.iter().rev().find_map(|heard| match heard {
            Heard::ReregisterAgent(back) => Some(back),
            _ => None,
        });
        let back = back.unwrap();
        assert_eq!(back.agent.id, Some("S0".into()), "{found}");
        assert_eq!(back.agent.resources, "cpus:4;mem:1024".parse().unwrap());
        assert_eq!(back.tasks.len(), 1, "{found}");
    }
}

#[test]
fn an_executor_that_comes_back_while_containers_are_swept_is_taken_in_afterwards() {
    let (mut world, executor) = world();
    let over = world.restart_sweeping();
    // Whatever it says last counts.
    for unheard in [&[][..], &[end_of("t", 1)]] {
        let back = comes_back(unheard, &["t"]);
        executor.probe.send(&world.agent, back);
    }
    world.wait_handled(2);
    over.send(()).unwrap();
    world.clock.settle();
    assert_eq!(words(&executor), ["subscribed", "has 1"]);
    world.let_in();
    assert_eq!(world.update().uuid, Some(UpdateId::from_bytes([1; 16])));
}

#[test]
fn an_agent_that_is_told_to_leave_while_containers_are_swept_leaves_afterwards() {
    let (mut world, _executor) = world();
    let over = world.restart_sweeping();
    let ended = meseta_agent::stop(&world.home, &world.agent);
    world.wait_handled(1);
    assert_eq!(*world.sweeps.lock().unwrap(), [false]);
    over.send(()).unwrap();
    // Its executor, which does not listen, is ended when its grace period is over.
    world.clock.settle();
    world.clock.advance(SECOND * 6);
    futures::executor::block_on(ended);
    assert_eq!(*world.sweeps.lock().unwrap(), [false, true]);
}
