//! The master's conversations with agents and schedulers, over the in-memory network and a paused clock: who is told
//! what, in which case. The test plays the other ends with probes.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::large_enum_variant,
    reason = "a test fails by panicking, and looks for one kind of event among all"
)]

mod frameworks;
mod groups;
mod partitions;
mod world;

use world::*;

#[test]
fn all_metrics_that_mesos_has_are_there_before_there_is_anything_to_count() {
    let recorded = include_str!("../../../tests/processes/mesos/metric_names.json");
    let recorded: serde_json::Value = serde_json::from_str(recorded).unwrap();
    let recorded = recorded["master"].as_array().unwrap().iter();
    let of_nobody = recorded
        .filter_map(|name| name.as_str())
        .filter(|name| !name.contains("/frameworks/") && !name.contains("/roles/"));
    let world = World::new();
    world.clock.settle();
    let own = world.node.metrics().snapshot();
    let missing: Vec<_> = of_nobody.filter(|name| !own.contains_key(*name)).collect();
    assert!(own.len() > 200 && missing.is_empty(), "{missing:?}");
}

#[test]
fn a_repeated_registration_gets_the_same_id() {
    let world = World::new();
    let (agent, id) = world.registered_agent();
    agent.say(RegisterAgent {
        agent: agent_info(None),
        version: "1.0.0".into(),
        capabilities: vec![
            AgentCapability::MultiRole,
            AgentCapability::HierarchicalRole,
        ],
        ..RegisterAgent::default()
    });
    let heard = agent.heard();
    assert!(
        matches!(&heard[..], [AgentHeard::AgentRegistered(again)] if again.agent_id == id),
        "{heard:?}"
    );
}

#[test]
fn a_task_goes_from_offer_to_acknowledged_end() {
    let world = World::new();
    let (agent, agent_id, scheduler, id) = launched(&world, framework());
    for (state, uuid) in [(TaskState::Running, 1), (TaskState::Finished, 2)] {
        agent.say(update(&id, &agent_id, "t", state, uuid));
        let told = statuses(&scheduler);
        assert_eq!(
            told.iter().map(|status| status.state).collect::<Vec<_>>(),
            [state]
        );
        scheduler.say(AcknowledgeStatus {
            framework_id: id.clone(),
            agent_id: agent_id.clone(),
            task_id: TaskId::new("t"),
            uuid: UpdateId::from_bytes([uuid; 16]),
        });
        let heard = agent.heard();
        assert!(
            matches!(&heard[..], [AgentHeard::AcknowledgeAgentStatus(ack)] if ack.uuid == UpdateId::from_bytes([uuid; 16])),
            "{heard:?}"
        );
    }
    // All of the agent is offered again.
    world.advance(1);
    let cpus: f64 = offers(&scheduler)
        .iter()
        .filter_map(|offer| offer.resources.cpus())
        .map(|cpus| cpus.as_f64())
        .sum();
    assert!((cpus - 4.0).abs() < 1e-9, "{cpus}");
    // The id may be used again, and reconciliation no longer knows it as live.
    scheduler.say(ReconcileTasks {
        framework_id: id,
        tasks: Vec::new(),
    });
    assert_eq!(statuses(&scheduler), []);
}

#[test]
fn a_declined_offer_comes_again_when_its_filter_has_expired_or_offers_are_revived() {
    let world = World::new();
    let (_agent, _) = world.registered_agent();
    let (scheduler, id) = world.subscribed(framework());
    world.advance(1);
    let first = offers(&scheduler);
    let decline = |offers: &[Offer], seconds| {
        scheduler.say(DeclineOffers {
            framework_id: id.clone(),
            offer_ids: offers.iter().map(|offer| offer.id.clone()).collect(),
            filters: Filters::refusing(seconds),
        });
    };
    decline(&first, 5.0);
    world.advance(4);
    assert_eq!(offers(&scheduler), []);
    world.advance(3);
    let second = offers(&scheduler);
    assert_eq!(second.len(), 1);
    decline(&second, 1000.0);
    world.advance(10);
    assert_eq!(offers(&scheduler), []);
    scheduler.say(ReviveOffers {
        framework_id: id.clone(),
        roles: Vec::new(),
    });
    assert_eq!(offers(&scheduler).len(), 1);
}

#[test]
fn bad_accepts_are_answered_task_by_task() {
    let world = World::new();
    let (agent, agent_id) = world.registered_agent();
    let (scheduler, id) = world.subscribed(framework());
    world.advance(1);
    let offer = offers(&scheduler).remove(0);
    let too_large = TaskInfo::new(
        "large",
        agent_id.clone(),
        "cpus:8;mem:64".parse().unwrap(),
        "true",
    );
    accept(
        &scheduler,
        &id,
        &offer,
        vec![too_large, task("fits", &agent_id), task("fits", &agent_id)],
    );
    let told: Vec<_> = statuses(&scheduler)
        .into_iter()
        .map(|s| (s.task_id, s.state, s.reason))
        .collect();
    let error = |id: &str| {
        (
            TaskId::new(id),
            TaskState::Error,
            Some(StatusReason::TaskInvalid),
        )
    };
    assert_eq!(told, [error("large"), error("fits")]);
    assert_eq!(
        agent
            .heard()
            .iter()
            .filter(|heard| matches!(heard, AgentHeard::RunTask(_)))
            .count(),
        1
    );
    // The same offer again is no longer valid.
    accept(&scheduler, &id, &offer, vec![task("late", &agent_id)]);
    let told = statuses(&scheduler);
    assert_eq!(
        (told[0].state, told[0].reason),
        (TaskState::Dropped, Some(StatusReason::InvalidOffers))
    );
    let text = told[0].message.clone().unwrap();
    assert_eq!(
        text,
        format!(
            "Task launched with invalid offers: Offer {} is no longer valid",
            offer.id
        )
    );
    let why = world.counted("master/task_");
    let why: Vec<_> = why.iter().map(|(name, value)| (&**name, *value)).collect();
    assert_eq!(
        why,
        [
            (
                "master/task_dropped/source_master/reason_invalid_offers",
                1.0
            ),
            ("master/task_error/source_master/reason_task_invalid", 2.0),
        ]
    );
    assert_eq!(world.node.metrics().value("master/tasks_error"), Some(2.0));
}

#[test]
fn a_master_without_memory_takes_tasks_from_agents_and_frameworks_at_their_word() {
    let world = World::new();
    let (agent_id, id) = (AgentId::new("old-S0"), FrameworkId::new("old-0000"));
    let agent = world.agent();
    comes_back(&agent, &agent_id, &id, TaskState::Running);
    let mut info = framework();
    info.id = Some(id.clone());
    let (scheduler, again) = world.subscribed(info);
    assert_eq!(again, id);
    world.advance(1);
    let cpus = offers(&scheduler)[0].resources.cpus().unwrap();
    assert!((cpus.as_f64() - 3.0).abs() < 1e-9);
    scheduler.say(ReconcileTasks {
        framework_id: id,
        tasks: Vec::new(),
    });
    assert_eq!(statuses(&scheduler)[0].state, TaskState::Running);
}

#[test]
fn killing_an_unknown_task_is_answered() {
    let world = World::new();
    let (scheduler, id) = world.subscribed(framework());
    scheduler.say(KillTask {
        framework_id: id,
        task_id: TaskId::new("nothing"),
        ..KillTask::default()
    });
    let told = statuses(&scheduler);
    assert_eq!(
        (told[0].state, told[0].reason),
        (TaskState::Unknown, Some(StatusReason::Reconciliation))
    );
}

#[test]
fn of_an_accept_that_got_lost_reconciliation_says_that_its_task_is_gone() {
    let world = World::new();
    let (agent, agent_id) = world.registered_agent();
    let (scheduler, id) = world.subscribed(framework());
    world.advance(1);
    let offer = offers(&scheduler).remove(0);
    let lost = world.node.testing().drop_next::<AcceptOffers>(ANY, ANY);
    accept(&scheduler, &id, &offer, vec![task("t", &agent_id)]);
    drop(lost);
    assert_eq!((agent.heard(), statuses(&scheduler)), (vec![], vec![]));
    scheduler.say(ReconcileTasks {
        framework_id: id.clone(),
        tasks: vec![TaskQuestion {
            task_id: TaskId::new("t"),
            agent_id: Some(agent_id.clone()),
        }],
    });
    let told = statuses(&scheduler).remove(0);
    assert_eq!(
        (told.state, told.reason),
        (TaskState::Gone, Some(StatusReason::Reconciliation))
    );
    // No task has ended by that.
    assert_eq!(world.counted("master/task"), []);
    // The offer is still this framework's to use.
    accept(&scheduler, &id, &offer, vec![task("again", &agent_id)]);
    let heard = agent.heard();
    assert!(matches!(&heard[..], [AgentHeard::RunTask(_)]), "{heard:?}");
}

#[test]
fn a_kill_that_got_lost_is_repeated_by_the_framework() {
    let world = World::new();
    let (agent, _, scheduler, id) = launched(&world, framework());
    let kill = || KillTask {
        framework_id: id.clone(),
        task_id: TaskId::new("t"),
        ..KillTask::default()
    };
    let lost = agent
        .node
        .testing()
        .drop_next::<Led<KillAgentTask>>(ANY, ANY);
    scheduler.say(kill());
    assert_eq!(lost.wait().message.message.task_id, TaskId::new("t"));
    assert_eq!(agent.heard(), []);
    scheduler.say(kill());
    let heard = agent.heard();
    assert!(
        matches!(&heard[..], [AgentHeard::KillAgentTask(_)]),
        "{heard:?}"
    );
}

#[test]
fn a_task_id_used_again_elsewhere_is_not_mixed_up() {
    let world = World::new();
    let (old, old_id, scheduler, id) = launched(&world, framework());
    world
        .network
        .disconnect(old.address(), world.master.address());
    assert_eq!(statuses(&scheduler)[0].state, TaskState::Lost);
    let (_new, new_id) = world.registered_agent();
    world.advance(2);
    let offer = offers(&scheduler)
        .into_iter()
        .find(|offer| offer.agent_id == new_id)
        .unwrap();
    accept(&scheduler, &id, &offer, vec![task("t", &new_id)]);
    comes_back(&old, &old_id, &id, TaskState::Running);
    let heard = old.heard();
    assert!(
        heard
            .iter()
            .any(|heard| matches!(heard, AgentHeard::KillAgentTask(_))),
        "{heard:?}"
    );
    old.say(update(&id, &old_id, "t", TaskState::Killed, 9));
    assert_eq!(statuses(&scheduler), [], "the new one lives on");
    scheduler.say(ReconcileTasks {
        framework_id: id,
        tasks: Vec::new(),
    });
    let known = statuses(&scheduler);
    assert_eq!(known[0].agent_id, Some(new_id));
}

#[test]
fn nobody_elsewhere_can_speak_as_the_allocator() {
    use meseta_master::allocator::messages::{Allocated, Allocation, RemoveAgent};
    let world = World::new();
    let (_agent, agent_id) = world.registered_agent();
    let (scheduler, id) = world.subscribed(framework());
    world.advance(1);
    offers(&scheduler);
    let stranger = world.node("master");
    let forged = Allocation {
        role: "*".into(),
        agent_id: agent_id.clone(),
        entry: 1,
        resources: "cpus:100".parse().unwrap(),
    };
    stranger.send(
        &world.master,
        Allocated {
            framework_id: id,
            offers: vec![forged],
        },
    );
    let allocator = world.node.pid("allocator(1)").unwrap();
    stranger.send(&allocator, RemoveAgent { agent_id });
    world.advance(5);
    assert_eq!(offers(&scheduler), []);
    let total = world
        .node
        .metrics()
        .value("allocator/mesos/resources/cpus/total");
    assert_eq!(total, Some(4.0));
    stranger.shutdown();
}
