//! Frameworks whose scheduler fails over, or goes for good.

use super::world::*;

#[test]
fn another_scheduler_takes_a_framework_over_and_the_old_one_is_told() {
    let world = World::new();
    let (first, id) = world.subscribed(framework());
    let mut info = framework();
    info.id = Some(id.clone());
    let (second, again) = world.subscribed(info);
    assert_eq!(again, id);
    let heard = first.heard();
    assert!(
        matches!(&heard[..], [SchedulerHeard::FrameworkError(error)] if error.message == "Framework failed over"),
        "{heard:?}"
    );
    // The old one no longer speaks for the framework.
    first.say(TeardownFramework { framework_id: id });
    world.advance(1);
    assert!(
        second
            .heard()
            .iter()
            .all(|heard| !matches!(heard, SchedulerHeard::FrameworkError(_)))
    );
}

#[test]
fn a_framework_that_does_not_come_back_in_time_ends_with_its_tasks() {
    let world = World::new();
    let mut info = framework();
    info.failover_timeout = 30.0;
    let (agent, _, scheduler, id) = launched(&world, info.clone());
    scheduler.node.shutdown();
    for _ in 0..2 {
        agent.say(Pong {});
        world.advance(14);
    }
    assert!(
        agent
            .heard()
            .iter()
            .all(|heard| !matches!(heard, AgentHeard::ShutdownFramework(_)))
    );
    world.advance(3);
    assert!(
        agent
            .heard()
            .contains(&AgentHeard::ShutdownFramework(ShutdownFramework {
                framework_id: id.clone()
            }))
    );
    let late = world.scheduler();
    info.id = Some(id);
    late.say(SubscribeFramework {
        framework: info,
        force: true,
        ..SubscribeFramework::default()
    });
    let heard = late.heard();
    assert!(
        matches!(&heard[..], [SchedulerHeard::FrameworkError(error)] if error.message == "Framework has been removed"),
        "{heard:?}"
    );
}

#[test]
fn an_agent_that_sends_an_update_of_an_ended_framework_is_told_of_its_end() {
    let world = World::new();
    let (agent, agent_id, scheduler, id) = launched(&world, framework());
    let told_before = |agent: &End<AgentHeard>| {
        let heard = agent.heard().into_iter();
        heard
            .filter(|heard| matches!(heard, AgentHeard::ShutdownFramework(_)))
            .count()
    };
    scheduler.node.shutdown();
    world.advance(1);
    assert_eq!(told_before(&agent), 1);
    agent.say(update(&id, &agent_id, "refused", TaskState::Dropped, 1));
    let framework_id = id;
    assert_eq!(
        agent.heard(),
        [AgentHeard::ShutdownFramework(ShutdownFramework {
            framework_id
        })]
    );
}

#[test]
fn what_a_framework_held_is_offered_again_when_it_ends() {
    let world = World::new();
    let (_agent, _, scheduler, id) = launched(&world, framework());
    scheduler.say(TeardownFramework { framework_id: id });
    let (other, _) = world.subscribed(framework());
    world.advance(2);
    let cpus: f64 = offers(&other)
        .iter()
        .filter_map(|offer| offer.resources.cpus())
        .map(|cpus| cpus.as_f64())
        .sum();
    assert!((cpus - 4.0).abs() < 1e-9, "{cpus}");
}

/// Another scheduler of the framework, subscribed in its name.
fn taken_over(world: &World, id: &FrameworkId) -> End<SchedulerHeard> {
    let mut info = framework();
    info.failover_timeout = 600.0;
    info.id = Some(id.clone());
    let (second, again) = world.subscribed(info);
    assert_eq!(again, *id);
    // To come again is another call.
    let subscriptions = world
        .node
        .metrics()
        .value("master/messages_register_framework");
    assert_eq!(subscriptions, Some(1.0));
    second
}

#[test]
fn a_framework_that_fails_over_finds_its_tasks_as_they_are_and_acknowledges_in_their_place() {
    let world = World::new();
    let mut info = framework();
    info.failover_timeout = 600.0;
    // `t` is launching: the agent has said nothing of it yet.
    let (agent, agent_id, first, id) = launched(&world, info);
    world.advance(1);
    let offer = offers(&first).remove(0);
    let more = ["running", "unheard", "over"].map(|name| task(name, &agent_id));
    accept(&first, &id, &offer, more.to_vec());
    agent.say(update(&id, &agent_id, "running", TaskState::Running, 1));
    acknowledge(&first, &id, &agent_id, "running", 1);
    agent.say(update(&id, &agent_id, "unheard", TaskState::Finished, 2));
    agent.say(update(&id, &agent_id, "over", TaskState::Finished, 3));
    acknowledge(&first, &id, &agent_id, "over", 3);
    first.node.shutdown();
    // What happens meanwhile is not forwarded to anybody.
    agent.say(update(&id, &agent_id, "running", TaskState::Failed, 4));
    agent.heard();

    let second = taken_over(&world, &id);
    // Agents are told, upon which they send again what nobody has acknowledged.
    let told = agent.heard().into_iter();
    let told = told.filter(
        |heard| matches!(heard, AgentHeard::UpdateFramework(update) if update.framework_id == id),
    );
    assert_eq!(told.count(), 1);
    let expected = [
        // Its end was not forwarded: it comes as an update.
        ("running", TaskState::Running),
        ("t", TaskState::Staging),
        ("unheard", TaskState::Finished),
    ];
    let expected = expected.map(|(name, state)| (name.to_owned(), state));
    assert_eq!(asked_about_all(&second, &id), expected);
    agent.say(update(&id, &agent_id, "running", TaskState::Failed, 4));
    agent.say(update(&id, &agent_id, "unheard", TaskState::Finished, 2));
    let states: Vec<TaskState> = statuses(&second).into_iter().map(|s| s.state).collect();
    assert_eq!(states, [TaskState::Failed, TaskState::Finished]);
    acknowledge(&second, &id, &agent_id, "running", 4);
    acknowledge(&second, &id, &agent_id, "unheard", 2);
    let acknowledged = agent.heard().into_iter();
    let acknowledged =
        acknowledged.filter(|heard| matches!(heard, AgentHeard::AcknowledgeAgentStatus(_)));
    assert_eq!(acknowledged.count(), 2);
    let rest = [("t".to_owned(), TaskState::Staging)];
    assert_eq!(asked_about_all(&second, &id), rest);
}

#[test]
fn a_launch_with_an_offer_from_before_a_fail_over_is_dropped() {
    let world = World::new();
    let (agent, agent_id) = world.registered_agent();
    let (first, id) = world.subscribed(framework());
    world.advance(1);
    let offer = offers(&first).remove(0);
    let second = taken_over(&world, &id);
    // The first one's word counts no more.
    accept(&first, &id, &offer, vec![task("pending", &agent_id)]);
    assert!(
        !agent
            .heard()
            .iter()
            .any(|heard| matches!(heard, AgentHeard::RunTask(_)))
    );
    assert_eq!(statuses(&second), []);
    // And of the second one, its offer.
    accept(&second, &id, &offer, vec![task("pending", &agent_id)]);
    let told = statuses(&second);
    assert_eq!(
        (told[0].state, told[0].reason),
        (TaskState::Dropped, Some(StatusReason::InvalidOffers))
    );
    assert_eq!(
        asked_about(&second, &id, "pending", &agent_id),
        [TaskState::Gone]
    );
}

#[test]
fn completed_frameworks_are_remembered_up_to_their_limit() {
    let world = World::with(|config| config.limits.completed_frameworks = 1);
    let ids: Vec<FrameworkId> = (0..2)
        .map(|_| {
            let (scheduler, id) = world.subscribed(framework());
            scheduler.say(TeardownFramework {
                framework_id: id.clone(),
            });
            scheduler.node.shutdown();
            id
        })
        .collect();
    for (id, remembered) in ids.iter().zip([false, true]) {
        let mut info = framework();
        info.id = Some(id.clone());
        let late = world.scheduler();
        late.say(SubscribeFramework {
            framework: info,
            force: true,
            ..SubscribeFramework::default()
        });
        let heard = late.heard();
        let refused = matches!(&heard[..], [SchedulerHeard::FrameworkError(_)]);
        assert_eq!(refused, remembered, "{heard:?}");
        late.node.shutdown();
    }
}
