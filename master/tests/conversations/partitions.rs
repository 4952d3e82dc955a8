//! Agents that are out of reach, back, or gone for good, and what their frameworks hear: those that know partitions and
//! those that do not.

use meseta_master::operators::{AgentMarkedGone, MarkAgentGone};

use super::world::*;

#[test]
fn a_silent_agent_is_unreachable_after_five_missed_pings_and_welcome_when_it_returns() {
    let world = World::new();
    let (agent, agent_id, scheduler, id) = launched(&world, framework());
    world.advance(73);
    assert_eq!(statuses(&scheduler), []);
    world.advance(2);
    let heard = scheduler.heard();
    let told = heard.iter().find_map(|heard| match heard {
        SchedulerHeard::StatusUpdated(message) => Some(&message.update.status),
        _ => None,
    });
    let told = told.unwrap();
    assert_eq!(
        (told.state, told.reason),
        (TaskState::Unreachable, Some(StatusReason::AgentRemoved))
    );
    assert!(told.unreachable_time.is_some() && told.uuid.is_none());
    assert!(heard.contains(&SchedulerHeard::AgentLost(AgentLost {
        agent_id: agent_id.clone()
    })));
    // Asked about it, the master says the same.
    let question = TaskQuestion {
        task_id: TaskId::new("t"),
        agent_id: Some(agent_id.clone()),
    };
    scheduler.say(ReconcileTasks {
        framework_id: id.clone(),
        tasks: vec![question],
    });
    assert_eq!(statuses(&scheduler)[0].state, TaskState::Unreachable);
    // It was counted once, and not among those that have ended.
    let counted = (
        "master/task_unreachable/source_master/reason_slave_removed".to_owned(),
        1.0,
    );
    assert_eq!(world.counted("master/task_"), [counted]);
    // It comes back with the task still running.
    comes_back(&agent, &agent_id, &id, TaskState::Running);
    let told = statuses(&scheduler);
    assert_eq!(
        (told[0].state, told[0].reason),
        (TaskState::Running, Some(StatusReason::AgentReregistered))
    );
    assert!(
        agent
            .heard()
            .iter()
            .any(|heard| matches!(heard, AgentHeard::AgentReregistered(_)))
    );
}

#[test]
fn plain_frameworks_hear_lost_where_others_hear_unreachable() {
    let world = World::new();
    let mut plain = framework();
    plain.capabilities = FrameworkCapabilities::default();
    plain.roles.clear();
    let (_agent, _, scheduler, _) = launched(&world, plain);
    world.advance(80);
    assert_eq!(statuses(&scheduler)[0].state, TaskState::Lost);
    let counted = world.node.metrics().value("master/tasks_lost");
    assert_eq!(counted, Some(1.0));
    let why = world.counted("master/task_lost/");
    let name = "master/task_lost/source_master/reason_slave_removed";
    assert_eq!(why, [(name.to_owned(), 1.0)]);
}

#[test]
fn an_answering_agent_stays() {
    let world = World::new();
    let (agent, _) = world.registered_agent();
    for _ in 0..20 {
        agent.say(Pong {});
        world.advance(15);
    }
    let (scheduler, _) = world.subscribed(framework());
    world.advance(1);
    assert_eq!(offers(&scheduler).len(), 1);
}

#[test]
fn an_agent_that_disconnects_takes_uncheckpointed_tasks_with_it() {
    let world = World::new();
    let (agent, _, scheduler, _) = launched(&world, framework());
    agent.node.shutdown();
    let heard = scheduler.heard();
    let told = heard.iter().find_map(|heard| match heard {
        SchedulerHeard::StatusUpdated(message) => Some(&message.update.status),
        _ => None,
    });
    let told = told.unwrap_or_else(|| panic!("{heard:?}"));
    assert_eq!(
        (told.state, told.reason),
        (TaskState::Lost, Some(StatusReason::AgentDisconnected))
    );
    assert_eq!(
        told.message.as_deref(),
        Some("Agent agent-host disconnected")
    );
}

#[test]
fn a_framework_hears_nothing_of_a_task_after_its_end() {
    let world = World::new();
    let (agent, agent_id, scheduler, id) = launched(&world, framework());
    world
        .network
        .disconnect(agent.address(), world.master.address());
    assert_eq!(statuses(&scheduler)[0].state, TaskState::Lost);
    agent.heard();
    comes_back(&agent, &agent_id, &id, TaskState::Running);
    let heard = agent.heard();
    assert!(heard.iter().any(|heard| matches!(heard, AgentHeard::KillAgentTask(kill) if kill.task_id == TaskId::new("t"))), "{heard:?}");
    agent.say(update(&id, &agent_id, "t", TaskState::Killed, 9));
    assert_eq!(statuses(&scheduler), []);
    let heard = agent.heard();
    assert!(
        matches!(&heard[..], [AgentHeard::AcknowledgeAgentStatus(_)]),
        "{heard:?}"
    );
}

#[test]
fn an_agent_is_charged_with_a_lost_task_until_it_says_that_it_has_ended() {
    let world = World::new();
    let (agent, agent_id, scheduler, id) = launched(&world, framework());
    let offered = |seconds| {
        world.advance(seconds);
        let all = offers(&scheduler);
        let [offer] = &all[..] else {
            panic!("{all:?}");
        };
        scheduler.say(DeclineOffers {
            framework_id: id.clone(),
            offer_ids: vec![offer.id.clone()],
            filters: Filters::refusing(0.0),
        });
        offer.resources.unallocated().to_string()
    };
    world
        .network
        .disconnect(agent.address(), world.master.address());
    assert_eq!(statuses(&scheduler)[0].state, TaskState::Lost);
    comes_back(&agent, &agent_id, &id, TaskState::Running);
    assert_eq!(offered(1), "cpus:3; mem:4032; disk:1000");
    // It loses its connection once more, and lists what it did before.
    comes_back(&agent, &agent_id, &id, TaskState::Running);
    assert_eq!(offered(1), "cpus:3; mem:4032; disk:1000");
    let end = || update(&id, &agent_id, "t", TaskState::Killed, 9);
    agent.say(end());
    assert_eq!(offered(1), "cpus:4; mem:4096; disk:1000");
    agent.say(end());
    assert_eq!(offered(1), "cpus:4; mem:4096; disk:1000", "said again");
    assert_eq!(statuses(&scheduler), []);
}

#[test]
fn an_end_that_waits_behind_another_update_is_told_when_its_agent_is_lost() {
    let world = World::new();
    let mut plain = framework();
    plain.capabilities = FrameworkCapabilities::default();
    plain.roles.clear();
    let (agent, agent_id, scheduler, id) = launched(&world, plain);
    let mut running = update(&id, &agent_id, "t", TaskState::Running, 1);
    running.update.latest_state = Some(TaskState::Finished);
    agent.say(running);
    assert_eq!(statuses(&scheduler)[0].state, TaskState::Running);
    world.advance(80);
    let told = statuses(&scheduler);
    assert_eq!((told[0].state, told[0].uuid), (TaskState::Finished, None));
    comes_back(&agent, &agent_id, &id, TaskState::Finished);
    agent.heard();
    agent.say(update(&id, &agent_id, "t", TaskState::Finished, 2));
    let heard = agent.heard();
    assert!(
        matches!(&heard[..], [AgentHeard::AcknowledgeAgentStatus(_)]),
        "{heard:?}"
    );
    assert_eq!(statuses(&scheduler), []);
    // It has ended once, and by itself.
    assert_eq!(world.counted("master/task_"), []);
    let finished = world.node.metrics().value("master/tasks_finished");
    assert_eq!(finished, Some(1.0));
}

#[test]
fn a_registration_for_another_leadership_is_dropped() {
    let world = World::new();
    let agent = world.agent();
    let register = |leader_epoch| {
        agent.say(ReregisterAgent {
            agent: agent_info(Some("old-S0".into())),
            version: "1.0.0".into(),
            leader_epoch,
            ..ReregisterAgent::default()
        });
        let heard = agent.heard();
        heard
            .iter()
            .any(|heard| matches!(heard, AgentHeard::AgentReregistered(_)))
    };
    assert!(!register(EPOCH + 1));
    assert!(register(EPOCH));
}

#[test]
fn an_agent_that_unregisters_is_removed_and_its_tasks_are_lost() {
    let world = World::new();
    let (agent, agent_id, scheduler, _) = launched(&world, framework());
    agent.say(UnregisterAgent { agent_id });
    let told = statuses(&scheduler);
    assert_eq!(told[0].state, TaskState::Lost);
    assert_eq!(
        told[0].message.as_deref(),
        Some("Agent agent-host removed: the agent unregistered")
    );
}

#[test]
fn an_end_that_waits_for_its_acknowledgement_survives_a_break() {
    let world = World::new();
    let (agent, agent_id, scheduler, id) = launched(&world, framework());
    agent.say(update(&id, &agent_id, "t", TaskState::Finished, 1));
    assert_eq!(statuses(&scheduler).len(), 1);
    world
        .network
        .disconnect(agent.address(), world.master.address());
    assert_eq!(statuses(&scheduler), []);
    comes_back(&agent, &agent_id, &id, TaskState::Finished);
    agent.say(update(&id, &agent_id, "t", TaskState::Finished, 1));
    let told: Vec<TaskState> = statuses(&scheduler).iter().map(|s| s.state).collect();
    assert_eq!(
        told,
        [TaskState::Finished],
        "sent again until it is acknowledged"
    );
}

/// An operator marks an agent gone; why not, if not.
fn mark_gone(world: &World, agent_id: &AgentId) -> Option<String> {
    let node = world.node("operator");
    let operator = node.testing().probe("operator").unwrap();
    let agent_id = agent_id.clone();
    let answer = operator.ask(&world.master, MarkAgentGone { agent_id });
    let AgentMarkedGone { refused } = answer.wait();
    node.shutdown();
    refused
}

#[test]
fn an_agent_marked_gone_is_told_to_end_and_its_tasks_are_gone_by_operator() {
    let world = World::new();
    let (agent, agent_id, scheduler, id) = launched(&world, framework());
    agent.say(update(&id, &agent_id, "t", TaskState::Running, 1));
    scheduler.heard();
    assert_eq!(mark_gone(&world, &agent_id), None);
    let message = "Agent has been marked gone".to_owned();
    let ended = AgentHeard::ShutdownAgent(ShutdownAgent { message });
    assert!(agent.heard().contains(&ended));
    let heard = scheduler.heard();
    let [
        SchedulerHeard::StatusUpdated(told),
        SchedulerHeard::AgentLost(lost),
    ] = &heard[..]
    else {
        panic!("{heard:?}");
    };
    let told = &told.update.status;
    assert_eq!(
        (told.state, told.reason, told.uuid),
        (
            TaskState::GoneByOperator,
            Some(StatusReason::AgentRemovedByOperator),
            None
        )
    );
    assert_eq!(told.message.as_deref(), Some("Agent has been marked gone"));
    assert_eq!(lost.agent_id, agent_id);
    // Nothing of it is offered any more, whoever asks hears the same, and it does not come back.
    world.advance(2);
    assert_eq!(offers(&scheduler), []);
    assert_eq!(
        asked_about(&scheduler, &id, "t", &agent_id),
        [TaskState::GoneByOperator]
    );
    assert_eq!(
        asked_about(&scheduler, &id, "another", &agent_id),
        [TaskState::GoneByOperator]
    );
    assert_eq!(asked_about_all(&scheduler, &id), []);
    comes_back(&agent, &agent_id, &id, TaskState::Running);
    assert_eq!(agent.heard(), [ended]);
    assert_eq!(statuses(&scheduler), []);
}

#[test]
fn a_plain_framework_hears_lost_of_what_an_operator_marks_gone() {
    let world = World::new();
    let (_agent, agent_id, scheduler, id) = launched(&world, plain());
    assert_eq!(mark_gone(&world, &agent_id), None);
    let told = statuses(&scheduler);
    assert_eq!(
        (told[0].state, told[0].reason, told.len()),
        (TaskState::Lost, Some(StatusReason::AgentRemoved), 1)
    );
    assert_eq!(
        asked_about(&scheduler, &id, "t", &agent_id),
        [TaskState::Lost]
    );
}

#[test]
fn unreachable_tasks_of_an_agent_that_is_marked_gone_are_gone_by_operator() {
    let world = World::new();
    let (agent, agent_id, scheduler, id) = launched(&world, framework());
    world.advance(80);
    assert_eq!(statuses(&scheduler)[0].state, TaskState::Unreachable);
    assert_eq!(mark_gone(&world, &agent_id), None);
    let told = statuses(&scheduler);
    assert_eq!((told[0].state, told.len()), (TaskState::GoneByOperator, 1));
    let gone = (world.node.metrics()).value("master/tasks_gone_by_operator");
    assert_eq!(gone, Some(1.0));
    assert_eq!(
        asked_about(&scheduler, &id, "t", &agent_id),
        [TaskState::GoneByOperator]
    );
    // When the partition ends, it is told to end, and the framework hears nothing more.
    agent.heard();
    comes_back(&agent, &agent_id, &id, TaskState::Running);
    let heard = agent.heard();
    assert!(
        matches!(&heard[..], [AgentHeard::ShutdownAgent(_)]),
        "{heard:?}"
    );
    assert_eq!(statuses(&scheduler), []);
}

#[test]
fn a_plain_framework_that_has_heard_lost_hears_nothing_when_the_agent_is_marked_gone() {
    let world = World::new();
    let (_agent, agent_id, scheduler, _) = launched(&world, plain());
    world.advance(80);
    assert_eq!(statuses(&scheduler)[0].state, TaskState::Lost);
    assert_eq!(mark_gone(&world, &agent_id), None);
    assert_eq!(statuses(&scheduler), []);
}

#[test]
fn an_end_that_its_framework_has_heard_stands_when_the_agent_is_marked_gone() {
    for silent in [false, true] {
        let world = World::new();
        let (agent, agent_id, scheduler, id) = launched(&world, framework());
        agent.say(update(&id, &agent_id, "t", TaskState::Finished, 1));
        assert_eq!(statuses(&scheduler)[0].state, TaskState::Finished);
        if silent {
            world.advance(80);
        }
        assert_eq!(mark_gone(&world, &agent_id), None);
        assert_eq!(statuses(&scheduler), [], "unreachable before: {silent}");
        assert_eq!(
            asked_about(&scheduler, &id, "t", &agent_id),
            [TaskState::Finished]
        );
    }
}

#[test]
fn to_mark_an_agent_gone_twice_is_to_mark_it_once_and_an_unknown_one_is_not() {
    let world = World::new();
    let (_agent, agent_id, scheduler, _) = launched(&world, framework());
    assert_eq!(mark_gone(&world, &agent_id), None);
    scheduler.heard();
    assert_eq!(mark_gone(&world, &agent_id), None);
    assert_eq!(scheduler.heard(), []);
    let unknown = AgentId::new("nobody-S0");
    assert_eq!(
        mark_gone(&world, &unknown).as_deref(),
        Some("Agent 'nobody-S0' not found")
    );
}

#[test]
fn only_an_operator_marks_an_agent_gone() {
    let world = World::new();
    let (agent, agent_id, scheduler, _) = launched(&world, framework());
    agent.heard();
    scheduler.say(MarkAgentGone { agent_id });
    assert_eq!(agent.heard(), []);
}

#[test]
fn without_questions_only_tasks_that_are_neither_over_nor_out_of_reach_are_told() {
    let world = World::new();
    let (agent, agent_id, scheduler, id) = launched(&world, framework());
    world.advance(1);
    let offer = offers(&scheduler).remove(0);
    let more = ["running", "ending", "ended"].map(|name| task(name, &agent_id));
    accept(&scheduler, &id, &offer, more.to_vec());
    agent.say(update(&id, &agent_id, "running", TaskState::Running, 1));
    agent.say(update(&id, &agent_id, "ending", TaskState::Finished, 2));
    agent.say(update(&id, &agent_id, "ended", TaskState::Failed, 3));
    acknowledge(&scheduler, &id, &agent_id, "ended", 3);
    let all = |expected: &[(&str, TaskState)]| {
        let expected: Vec<(String, TaskState)> = expected
            .iter()
            .map(|(name, state)| ((*name).to_owned(), *state))
            .collect();
        assert_eq!(asked_about_all(&scheduler, &id), expected);
    };
    // One whose end is not acknowledged is still told.
    all(&[
        ("ending", TaskState::Finished),
        ("running", TaskState::Running),
        ("t", TaskState::Staging),
    ]);
    world.advance(80);
    all(&[]);
}

#[test]
fn an_agent_that_comes_back_without_a_task_answers_that_it_was_dropped() {
    let world = World::new();
    let (agent, agent_id, _scheduler, id) = launched(&world, framework());
    agent.heard();
    agent.say(ReregisterAgent {
        agent: agent_info(Some(agent_id)),
        version: "1.0.0".into(),
        ..ReregisterAgent::default()
    });
    let heard = agent.heard();
    let asked = heard.iter().find_map(|heard| match heard {
        AgentHeard::AgentReregistered(again) => again.reconciliations.first(),
        _ => None,
    });
    let asked = asked.unwrap_or_else(|| panic!("{heard:?}"));
    assert_eq!(asked.framework_id, id);
    assert_eq!(asked.tasks[0].task_id, TaskId::new("t"));
}

#[test]
fn unreachable_and_completed_tasks_are_remembered_up_to_their_limits() {
    let world = World::with(|config| {
        config.limits.unreachable_tasks = 1;
        config.limits.completed_tasks = 1;
    });
    let (agent, agent_id, scheduler, id) = launched(&world, framework());
    world.advance(1);
    let offer = offers(&scheduler).remove(0);
    let more = ["u", "over-1", "over-2"].map(|name| task(name, &agent_id));
    accept(&scheduler, &id, &offer, more.to_vec());
    for (uuid, name) in [(1, "over-1"), (2, "over-2")] {
        agent.say(update(&id, &agent_id, name, TaskState::Finished, uuid));
        acknowledge(&scheduler, &id, &agent_id, name, uuid);
    }
    let asked = |name: &str| asked_about(&scheduler, &id, name, &agent_id);
    assert_eq!(asked("over-1"), [TaskState::Gone], "forgotten");
    assert_eq!(asked("over-2"), [TaskState::Finished]);
    world.advance(80);
    // Of both, the newer one is remembered, and the older is forgotten: when the agent is gone, nothing is said of it.
    scheduler.heard();
    assert_eq!(mark_gone(&world, &agent_id), None);
    let told = statuses(&scheduler);
    assert_eq!(
        (told[0].task_id.as_str(), told[0].state, told.len()),
        ("u", TaskState::GoneByOperator, 1)
    );
}
