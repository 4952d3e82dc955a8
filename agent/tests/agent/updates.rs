//! Updates on their way to the master, and messages both ways.

use meseta_protocol::messages::agent::*;
use meseta_protocol::messages::executor::*;
use meseta_protocol::status::TaskState;
use std::time::Duration;

use crate::world::*;

#[test]
fn an_update_is_sent_again_after_10_20_and_40_seconds() {
    let world = World::registered();
    let (_, executor) = world.running();
    executor.send(
        &world.agent,
        update("e", "t", TaskState::Running, world.uuid()),
    );
    assert_eq!(world.updates().len(), 1);
    for seconds in [10, 20, 40] {
        world.say(Ping { connected: true });
        world.master.heard();
        world.clock.advance(Duration::from_secs(seconds) - SECOND);
        assert_eq!(world.updates().len(), 0, "before {seconds} s");
        world.clock.advance(SECOND);
        assert_eq!(world.updates().len(), 1, "after {seconds} s");
    }
    world.say(UpdateFramework {
        framework_id: "f".into(),
        framework_info: framework(),
    });
    assert_eq!(
        world.updates().len(),
        1,
        "a framework that is back hears at once"
    );
}

#[test]
fn updates_wait_for_the_master_to_come_back() {
    let world = World::registered();
    let (_, executor) = world.running();
    world
        .network
        .disconnect(world.master.node.address(), world.home.address());
    let uuid = world.uuid();
    executor.send(&world.agent, update("e", "t", TaskState::Running, uuid));
    assert!(
        matches!(executor.heard()[..], [Heard::UpdateAcknowledged(_)]),
        "the agent has it"
    );
    world.clock.advance(SECOND);
    assert!(matches!(
        world.master.heard()[..],
        [Heard::ReregisterAgent(_), ..]
    ));
    world.say(AgentReregistered {
        agent_id: "S0".into(),
        ..AgentReregistered::default()
    });
    assert_eq!(world.update().uuid, Some(uuid));
}

#[test]
fn messages_pass_both_ways() {
    let world = World::registered();
    let (_, executor) = world.running();
    world.say(FrameworkToExecutor {
        agent_id: "S0".into(),
        framework_id: "f".into(),
        executor_id: "e".into(),
        data: b"down".to_vec().into(),
    });
    assert!(
        matches!(&executor.heard()[..], [Heard::MessageToExecutor(message)] if message.data == b"down")
    );
    let up = SendToFramework {
        framework_id: "f".into(),
        executor_id: "e".into(),
        data: b"up".to_vec().into(),
    };
    executor.send(&world.agent, up);
    assert!(
        matches!(&world.master.heard()[..], [Heard::ExecutorToFramework(message)] if message.data == b"up")
    );
}
