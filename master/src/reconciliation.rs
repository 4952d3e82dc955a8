//! Reconciliation: the latest state of tasks a framework asks for.
//!
//! Pure. Without questions it answers for every task the master holds; with them, for each the first case that
//! matches. Source: master.md §9.

use std::collections::BTreeMap;
use std::time::Duration;

use meseta_protocol::AgentId;
use meseta_protocol::common::TimeInfo;
use meseta_protocol::framework::FrameworkCapability;
use meseta_protocol::messages::scheduler::TaskQuestion;
use meseta_protocol::status::{StatusReason, StatusSource, TaskState, TaskStatus};
use meseta_protocol::task::Task;
use meseta_runtime::planted::mistake;

use crate::failover::Awaited;
use crate::state::{Framework, State, end_is_forwarded};

/// What is known of agents.
pub struct Agents<'a> {
    /// Registered ones.
    pub state: &'a State,
    /// Unreachable ones, with the time since the Unix epoch.
    pub unreachable: &'a BTreeMap<AgentId, Duration>,
    /// Those that will never come back, with the time since the Unix epoch.
    pub gone: &'a BTreeMap<AgentId, Duration>,
    /// Those that the registry knows and that have not come back after a fail-over yet.
    pub awaited: &'a Awaited,
    /// What the ids of agents begin with that this master has admitted itself.
    pub own_prefix: &'a str,
    /// Agents of an earlier master, of which nothing is known, may still register again.
    pub recovering: bool,
}

impl Agents<'_> {
    /// Whether an agent nothing is known of may still turn up, so that nothing can be said yet.
    fn may_return(&self, agent: Option<&AgentId>) -> bool {
        let own = agent.is_some_and(|id| id.as_str().starts_with(self.own_prefix));
        self.recovering && !own
    }
}

/// The answers to `questions`, or for all tasks when there are none.
pub fn answers(
    framework: &Framework,
    questions: &[TaskQuestion],
    agents: &Agents<'_>,
) -> Vec<TaskStatus> {
    if questions.is_empty() {
        return framework.tasks.values().map(|task| latest(task)).collect();
    }
    questions
        .iter()
        .filter_map(|question| answer(framework, question, agents))
        .collect()
}

/// The state that a framework may be told of a task out of turn. An end that was not forwarded yet is left to its update,
/// which comes after those before it: told now, they would follow it.
pub(crate) fn to_tell(task: &Task) -> TaskState {
    let untold = if task.state.is_terminal() {
        TaskState::Staging
    } else {
        task.state
    };
    task.status_update_state.unwrap_or(untold)
}

fn latest(task: &Task) -> TaskStatus {
    let state = to_tell(task);
    let mut status = TaskStatus::new(task.task_id.clone(), state)
        .because(StatusSource::Master, StatusReason::Reconciliation)
        .saying("Reconciliation: Latest task state");
    status.agent_id = Some(task.agent_id.clone());
    if let Some(last) = task.statuses.last() {
        status.healthy = last.healthy;
        status.check_status.clone_from(&last.check_status);
        status.container_status.clone_from(&last.container_status);
    }
    status
}

/// The answer to one question; none while the matter is still open.
fn answer(
    framework: &Framework,
    question: &TaskQuestion,
    agents: &Agents<'_>,
) -> Option<TaskStatus> {
    if let Some(task) = framework.tasks.get(&question.task_id) {
        return Some(latest(task));
    }
    let agent = question.agent_id.as_ref();
    // A question that was asked before its asker heard of the end: that is told once more, and nothing else.
    let ended = framework.completed_tasks.iter().rev().find(|task| {
        task.task_id == question.task_id && agent.is_none_or(|agent| *agent == task.agent_id)
    });
    if let Some(task) = ended {
        let mut status = latest(task);
        status.state = task.state;
        return Some(status);
    }
    // One whose end is forwarded and not acknowledged yet has ended, though its agent is unreachable.
    let forwarded = framework.unreachable_tasks.iter().rev().find(|task| {
        task.task_id == question.task_id
            && agent.is_none_or(|agent| *agent == task.agent_id)
            && end_is_forwarded(task)
    });
    if let Some(task) = forwarded {
        return Some(latest(task));
    }
    if mistake("master does not answer for what it does not know") {
        return None;
    }
    // Whoever is awaited may bring the task with it.
    if agent.map_or(!agents.awaited.is_empty(), |id| {
        agents.awaited.get(id).is_some()
    }) {
        return None;
    }
    let unreachable = agent.and_then(|id| agents.unreachable.get(id));
    let (state, message) = if agent.is_some_and(|id| agents.state.agent(id).is_some()) {
        (
            TaskState::Gone,
            "Reconciliation: Task is unknown to the agent",
        )
    } else if unreachable.is_some() {
        (
            TaskState::Unreachable,
            "Reconciliation: Task is unreachable",
        )
    } else if agent.is_some_and(|id| agents.gone.contains_key(id)) {
        (TaskState::GoneByOperator, "Reconciliation: Task is gone")
    } else if agents.may_return(agent) {
        return None;
    } else {
        (TaskState::Unknown, "Reconciliation: Task is unknown")
    };
    let state = if framework.info.has(FrameworkCapability::PartitionAware) {
        state
    } else {
        state.for_partition_unaware()
    };
    let mut status = TaskStatus::new(question.task_id.clone(), state)
        .because(StatusSource::Master, StatusReason::Reconciliation)
        .saying(message);
    status.agent_id.clone_from(&question.agent_id);
    status.unreachable_time = unreachable.map(|at| TimeInfo {
        nanoseconds: i64::try_from(at.as_nanos()).unwrap_or(i64::MAX),
    });
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Registry, RegistryOperation};
    use crate::state::{Agent, Limits};
    use meseta_protocol::agent::AgentInfo;
    use meseta_protocol::framework::{FrameworkCapabilities, FrameworkInfo};
    use meseta_protocol::resources::Resources;
    use meseta_protocol::task::TaskInfo;
    use meseta_protocol::{FrameworkId, TaskId};

    struct World {
        state: State,
        unreachable: BTreeMap<AgentId, Duration>,
        gone: BTreeMap<AgentId, Duration>,
        awaited: Awaited,
        recovering: bool,
    }

    /// Agent `new-S0` is registered, `new-S1` unreachable; task `known` runs.
    fn world() -> World {
        let mut state = State::new(Limits::default());
        let mut info = AgentInfo::new("host", Resources::new());
        info.id = Some(AgentId::new("new-S0"));
        let pid = "slave(1)@127.0.0.1:5051".parse().unwrap();
        let agent = Agent::new(info, pid, "1.0.0".into(), Vec::new(), Duration::ZERO);
        state.add_agent(agent, Vec::new(), Vec::new());
        World {
            state,
            unreachable: BTreeMap::from([(AgentId::new("new-S1"), Duration::from_secs(9))]),
            gone: BTreeMap::from([(AgentId::new("new-S2"), Duration::from_secs(9))]),
            awaited: Awaited::default(),
            recovering: false,
        }
    }

    fn framework(aware: bool) -> Framework {
        let mut info = FrameworkInfo::new("nobody", "test");
        info.id = Some(FrameworkId::new("f"));
        if !aware {
            info.capabilities = FrameworkCapabilities::default();
        }
        let mut framework = Framework::new(info, None, Duration::ZERO);
        let task = TaskInfo::new("known", "new-S0", Resources::new(), "true");
        let mut task = Task::new(&task, &FrameworkId::new("f"), "nobody");
        task.state = TaskState::Running;
        framework.tasks.insert(TaskId::new("known"), task.into());
        framework
    }

    fn states(world: &World, aware: bool, task: &str, agent: Option<&str>) -> Vec<TaskState> {
        let question = TaskQuestion {
            task_id: TaskId::new(task),
            agent_id: agent.map(AgentId::new),
        };
        let agents = Agents {
            state: &world.state,
            unreachable: &world.unreachable,
            gone: &world.gone,
            awaited: &world.awaited,
            own_prefix: "new",
            recovering: world.recovering,
        };
        let answers = answers(&framework(aware), &[question], &agents);
        answers.into_iter().map(|status| status.state).collect()
    }

    #[test]
    fn the_first_case_that_matches_answers() {
        let world = world();
        for (task, agent, aware, plain) in [
            (
                "known",
                Some("elsewhere"),
                TaskState::Running,
                TaskState::Running,
            ),
            ("t", Some("new-S0"), TaskState::Gone, TaskState::Lost),
            ("t", Some("new-S1"), TaskState::Unreachable, TaskState::Lost),
            (
                "t",
                Some("new-S2"),
                TaskState::GoneByOperator,
                TaskState::Lost,
            ),
            ("t", Some("old-S0"), TaskState::Unknown, TaskState::Lost),
            ("t", None, TaskState::Unknown, TaskState::Lost),
        ] {
            assert_eq!(
                states(&world, true, task, agent),
                [aware],
                "{task} {agent:?}"
            );
            assert_eq!(
                states(&world, false, task, agent),
                [plain],
                "{task} {agent:?}"
            );
        }
    }

    #[test]
    fn an_end_that_was_not_forwarded_is_left_to_its_update() {
        let mut framework = framework(true);
        let task = framework.tasks.get_mut(&TaskId::new("known")).unwrap();
        let task = std::sync::Arc::make_mut(task);
        task.state = TaskState::Failed;
        assert_eq!(latest(task).state, TaskState::Staging);
        task.status_update_state = Some(TaskState::Starting);
        assert_eq!(latest(task).state, TaskState::Starting);
    }

    #[test]
    fn nothing_is_said_of_tasks_that_an_awaited_agent_may_bring() {
        let mut world = world();
        let mut info = AgentInfo::new("host", Resources::new());
        info.id = Some(AgentId::new("old-S0"));
        let info = std::sync::Arc::new(info);
        let mut registry = Registry::default();
        registry
            .apply(&RegistryOperation::AdmitAgent { info })
            .unwrap();
        world.awaited = Awaited::of(&registry);
        assert_eq!(states(&world, true, "t", Some("old-S0")), []);
        assert_eq!(states(&world, true, "t", None), []);
        assert_eq!(
            states(&world, true, "t", Some("old-S1")),
            [TaskState::Unknown]
        );
        assert_eq!(
            states(&world, true, "known", Some("old-S0")),
            [TaskState::Running]
        );
    }

    #[test]
    fn nothing_is_said_of_agents_that_may_still_register_again() {
        let mut world = world();
        world.recovering = true;
        assert_eq!(states(&world, true, "t", Some("old-S0")), []);
        assert_eq!(states(&world, true, "t", None), []);
        assert_eq!(
            states(&world, true, "t", Some("new-S7")),
            [TaskState::Unknown]
        );
        assert_eq!(
            states(&world, true, "t", Some("new-S1")),
            [TaskState::Unreachable]
        );
    }
}
