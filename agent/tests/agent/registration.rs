//! How the agent comes to its master, stays with it, and whom it heeds.

use meseta_protocol::FrameworkId;
use meseta_protocol::messages::Led;
use meseta_protocol::messages::agent::*;
use meseta_protocol::status::{StatusReason, TaskState};
use meseta_protocol::task::Task;
use meseta_runtime::ExitReason;
use std::time::Duration;

use crate::world::*;

#[test]
fn has_all_metrics_that_mesos_has_before_there_is_anything_to_count() {
    let recorded = include_str!("../../../tests/processes/mesos/metric_names.json");
    let recorded: serde_json::Value = serde_json::from_str(recorded).unwrap();
    let recorded = recorded["agent"].as_array().unwrap();
    let names: Vec<&str> = recorded.iter().filter_map(|name| name.as_str()).collect();
    let world = World::new();
    world.clock.settle();
    let own = world.home.metrics().snapshot();
    let mut missing = names.iter().filter(|name| !own.contains_key(**name));
    assert!(names.len() > 60, "{names:?}");
    assert_eq!(missing.next(), None);
}

#[test]
fn asks_to_be_let_in_until_it_is() {
    let world = World::new();
    world.clock.advance(SECOND);
    assert_eq!(world.master.heard().len(), 1, "within one back-off factor");
    world.clock.advance(Duration::from_secs(600));
    let asked = world.master.heard();
    assert!(asked.len() >= 10, "{}", asked.len());
    for heard in asked {
        let Heard::RegisterAgent(register) = heard else {
            panic!("{heard:?}")
        };
        assert_eq!(
            (register.agent.id, register.agent.port),
            (None, world.agent.address().port)
        );
        assert_eq!(register.agent.resources.to_string(), "cpus:4; mem:1024");
    }
    world.say(AgentRegistered {
        agent_id: "S0".into(),
        ..AgentRegistered::default()
    });
    assert_eq!(world.metric("slave/registered").to_string(), "1");
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(world.master.heard(), []);
}

#[test]
fn registers_again_when_the_link_breaks_the_pings_stop_or_say_so() {
    let world = World::registered();
    let (container, _executor) = world.running();
    let again = |world: &World| {
        let heard = world.master.heard();
        let [Heard::ReregisterAgent(message), ..] = &heard[..] else {
            panic!("{heard:?}")
        };
        assert_eq!(message.agent.id.as_ref().map(|id| id.as_str()), Some("S0"));
        assert_eq!(
            (
                message.frameworks.len(),
                message.tasks.len(),
                message.executor_infos.len()
            ),
            (1, 1, 1)
        );
        assert_eq!(message.executor_infos[0].framework_id, Some("f".into()));
        world.say(AgentReregistered {
            agent_id: "S0".into(),
            ..AgentReregistered::default()
        });
        world.master.heard();
    };
    world
        .network
        .disconnect(world.master.node.address(), world.home.address());
    world.clock.advance(SECOND);
    again(&world);
    world.clock.advance(Duration::from_secs(76));
    again(&world);
    world.say(Ping { connected: true });
    assert_eq!(world.master.heard(), [Heard::Pong(Pong {})]);
    world.say(Ping { connected: false });
    assert_eq!(world.master.heard(), [Heard::Pong(Pong {})]);
    world.clock.advance(SECOND);
    again(&world);
    assert!(
        world.running.lock().unwrap().contains_key(&container),
        "nothing happens to what runs"
    );
}

#[test]
fn heeds_only_its_own_master_and_the_newest_leadership() {
    let world = World::registered();
    let other = Actor::on(&world.master.node, "other");
    other.send(
        &world.agent,
        Led {
            leader_epoch: 9,
            message: Ping { connected: true },
        },
    );
    world.master.send(
        &world.agent,
        Led {
            leader_epoch: 2,
            message: Ping { connected: true },
        },
    );
    assert_eq!((world.master.heard(), other.heard()), (vec![], vec![]));
    world.say(Ping { connected: true });
    assert_eq!(world.master.heard(), [Heard::Pong(Pong {})]);
}

#[test]
fn another_id_is_fatal() {
    let world = World::registered();
    let ended = world.home.ended(&world.agent);
    world.say(AgentReregistered {
        agent_id: "S9".into(),
        ..AgentReregistered::default()
    });
    assert_eq!(futures::executor::block_on(ended), ExitReason::Normal);
}

#[test]
fn a_task_the_master_knows_and_the_agent_does_not_is_reported() {
    let world = World::registered();
    let (_, _executor) = world.running();
    let id: FrameworkId = "f".into();
    let tasks = ["t", "lost"]
        .map(|task| Task::new(&custom(task), &id, "u"))
        .to_vec();
    let reconciliations = vec![Reconciliation {
        framework_id: id,
        tasks,
    }];
    world.say(AgentReregistered {
        agent_id: "S0".into(),
        reconciliations,
        ..AgentReregistered::default()
    });
    let update = world.update();
    assert_eq!(update.status.task_id.as_str(), "lost");
    assert_eq!(
        (update.status.state, update.status.reason),
        (TaskState::Dropped, Some(StatusReason::Reconciliation))
    );
}
