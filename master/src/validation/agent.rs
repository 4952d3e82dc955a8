//! Registration and re-registration of agents.
//!
//! Pure. A message that breaks a rule is ignored: an agent is a program of ours, and one that lies about itself is
//! broken. Source: Mesos `src/master/validation.cpp` (`master::message::registerSlave`, `reregisterSlave`).

use std::collections::BTreeSet;

use meseta_protocol::agent::AgentInfo;
use meseta_protocol::ids::{IdError, validate_id};
use meseta_protocol::messages::agent::{RegisterAgent, ReregisterAgent};
use meseta_protocol::resources::{InvalidResource, Resources};
use meseta_protocol::status::TaskState;
use meseta_protocol::task::Task;
use meseta_protocol::{AgentId, ExecutorId, FrameworkId, TaskId};

/// Why an agent's message is ignored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentRejection {
    /// An agent that registers again has an id.
    #[error("Agent has no AgentID")]
    NoId,
    /// An id cannot be one.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A resource makes no sense.
    #[error(transparent)]
    Resources(#[from] InvalidResource),
    /// An agent's own resources belong to no framework.
    #[error("Agent's resource '{0}' is allocated to a role")]
    Allocated(String),
    /// What was written down needs an agent that writes down.
    #[error("Checkpointed resources provided when checkpointing is not enabled")]
    CheckpointedWithoutCheckpointing,
    /// A framework stands twice in the list.
    #[error("Framework has a duplicate FrameworkID: '{0}'")]
    DuplicateFramework(FrameworkId),
    /// A framework in the list has no id.
    #[error("Framework '{0}' has no FrameworkID")]
    FrameworkWithoutId(String),
    /// An executor's framework is not in the list.
    #[error("Executor has an invalid FrameworkID '{0}'")]
    ExecutorOfUnknownFramework(FrameworkId),
    /// An executor stands twice in the list.
    #[error("Executor has a duplicate ExecutorID '{0}'")]
    DuplicateExecutor(ExecutorId),
    /// A task's framework is not in the list.
    #[error("Task has an invalid FrameworkID '{0}'")]
    TaskOfUnknownFramework(FrameworkId),
    /// A task is of another agent.
    #[error("Task has an invalid AgentID '{0}'")]
    TaskOfOtherAgent(AgentId),
    /// A running task's executor is not in the list.
    #[error("Task has an invalid ExecutorID '{0}'")]
    TaskOfUnknownExecutor(ExecutorId),
    /// A task stands twice in the list.
    #[error("Task has a duplicate TaskID '{0}'")]
    DuplicateTask(TaskId),
}

/// Checks an agent that registers for the first time.
///
/// # Errors
/// [`AgentRejection`] with the first rule that is broken.
pub fn validate_registration(message: &RegisterAgent) -> Result<(), AgentRejection> {
    validate_agent(&message.agent, &message.checkpointed_resources)
}

/// Checks an agent that registers again with what it runs.
///
/// # Errors
/// [`AgentRejection`] with the first rule that is broken.
pub fn validate_reregistration(message: &ReregisterAgent) -> Result<(), AgentRejection> {
    let agent_id = message.agent.id.as_ref().ok_or(AgentRejection::NoId)?;
    validate_agent(&message.agent, &message.checkpointed_resources)?;

    let mut frameworks = BTreeSet::new();
    for framework in &message.frameworks {
        let id = framework.id.as_ref();
        let id = id.ok_or_else(|| AgentRejection::FrameworkWithoutId(framework.name.clone()))?;
        validate_id(id.as_str())?;
        if !frameworks.insert(id) {
            return Err(AgentRejection::DuplicateFramework(id.clone()));
        }
    }
    let mut executors = BTreeSet::new();
    for executor in &message.executor_infos {
        validate_id(executor.executor_id.as_str())?;
        executor.resources.validate()?;
        let framework = executor.framework_id.clone().unwrap_or_default();
        if !frameworks.contains(&framework) {
            return Err(AgentRejection::ExecutorOfUnknownFramework(framework));
        }
        if !executors.insert((framework, &executor.executor_id)) {
            return Err(AgentRejection::DuplicateExecutor(
                executor.executor_id.clone(),
            ));
        }
    }
    let mut tasks = BTreeSet::new();
    for task in &message.tasks {
        validate_id(task.task_id.as_str())?;
        task.resources.validate()?;
        if !frameworks.contains(&task.framework_id) {
            return Err(AgentRejection::TaskOfUnknownFramework(
                task.framework_id.clone(),
            ));
        }
        if task.agent_id != *agent_id {
            return Err(AgentRejection::TaskOfOtherAgent(task.agent_id.clone()));
        }
        if let Some(executor) = missing_executor(task, &executors) {
            return Err(AgentRejection::TaskOfUnknownExecutor(executor));
        }
        if !tasks.insert((&task.framework_id, &task.task_id)) {
            return Err(AgentRejection::DuplicateTask(task.task_id.clone()));
        }
    }
    Ok(())
}

/// The executor of a running task, when it is not listed. Tasks with a command name none.
fn missing_executor(
    task: &Task,
    executors: &BTreeSet<(FrameworkId, &ExecutorId)>,
) -> Option<ExecutorId> {
    let executor = task.executor_id.as_ref()?;
    let is_listed = executors.contains(&(task.framework_id.clone(), executor));
    (task.state == TaskState::Running && !is_listed).then(|| executor.clone())
}

fn validate_agent(agent: &AgentInfo, checkpointed: &Resources) -> Result<(), AgentRejection> {
    if let Some(id) = &agent.id {
        validate_id(id.as_str())?;
    }
    agent.resources.validate()?;
    if let Some(resource) = agent.resources.iter().find(|r| r.allocation.is_some()) {
        return Err(AgentRejection::Allocated(resource.to_string()));
    }
    checkpointed.validate()?;
    if !checkpointed.is_empty() && !agent.checkpoint {
        return Err(AgentRejection::CheckpointedWithoutCheckpointing);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use meseta_protocol::executor::ExecutorInfo;
    use meseta_protocol::framework::FrameworkInfo;

    fn good() -> ReregisterAgent {
        let mut agent = AgentInfo::new("host", "cpus:4".parse().unwrap());
        agent.id = Some("s1".into());
        let mut framework = FrameworkInfo::new("user", "name");
        framework.id = Some("f1".into());
        let executor = ExecutorInfo {
            executor_id: "e1".into(),
            framework_id: Some("f1".into()),
            ..ExecutorInfo::default()
        };
        let task = Task {
            task_id: "t1".into(),
            framework_id: "f1".into(),
            agent_id: "s1".into(),
            executor_id: Some("e1".into()),
            state: TaskState::Running,
            ..Task::default()
        };
        ReregisterAgent {
            agent,
            executor_infos: vec![executor],
            tasks: vec![task],
            frameworks: vec![framework],
            ..ReregisterAgent::default()
        }
    }

    #[test]
    fn every_rule_has_its_text() {
        type Change = fn(&mut ReregisterAgent);
        let cases: [(Change, &str); 15] = [
            (|_| {}, "ok"),
            (|m| m.tasks[0].executor_id = None, "ok"),
            (
                |m| {
                    m.executor_infos.clear();
                    m.tasks[0].state = TaskState::Finished;
                },
                "ok",
            ),
            (|m| m.agent.id = None, "Agent has no AgentID"),
            (
                |m| m.agent.id = Some("a/b".into()),
                "'a/b' contains invalid characters",
            ),
            (
                |m| m.agent.resources = m.agent.resources.allocated(&"r".into()),
                "Agent's resource 'cpus(allocated: r):4' is allocated to a role",
            ),
            (
                |m| {
                    m.agent.checkpoint = false;
                    m.checkpointed_resources = "cpus(a):1".parse().unwrap();
                },
                "Checkpointed resources provided when checkpointing is not enabled",
            ),
            (
                |m| m.frameworks.push(m.frameworks[0].clone()),
                "Framework has a duplicate FrameworkID: 'f1'",
            ),
            (
                |m| m.frameworks[0].id = None,
                "Framework 'name' has no FrameworkID",
            ),
            (
                |m| m.executor_infos[0].framework_id = Some("f2".into()),
                "Executor has an invalid FrameworkID 'f2'",
            ),
            (
                |m| m.executor_infos.push(m.executor_infos[0].clone()),
                "Executor has a duplicate ExecutorID 'e1'",
            ),
            (
                |m| m.tasks[0].framework_id = "f2".into(),
                "Task has an invalid FrameworkID 'f2'",
            ),
            (
                |m| m.tasks[0].agent_id = "s2".into(),
                "Task has an invalid AgentID 's2'",
            ),
            (
                |m| m.executor_infos.clear(),
                "Task has an invalid ExecutorID 'e1'",
            ),
            (
                |m| m.tasks.push(m.tasks[0].clone()),
                "Task has a duplicate TaskID 't1'",
            ),
        ];
        for (change, expected) in cases {
            let mut message = good();
            change(&mut message);
            let result = validate_reregistration(&message);
            let text = result.map_or_else(|rejection| rejection.to_string(), |()| "ok".to_owned());
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_bad_resource_is_named() {
        let json = r#"[{"name":"cpus","type":"SCALAR","scalar":{"value":-1}}]"#;
        let resources: Resources = serde_json::from_str(json).unwrap();
        let message = RegisterAgent {
            agent: AgentInfo::new("host", resources),
            ..RegisterAgent::default()
        };
        assert_eq!(
            validate_registration(&message).unwrap_err().to_string(),
            "Resource 'cpus:-1' is invalid: Invalid scalar resource: value <= 0"
        );
    }
}
