//! The events that subscribers of the operator API hear, as trees.
//!
//! Pure. Source: http.md §5.1; shapes as Mesos 1.11.0 writes them.

use std::time::Duration;

use meseta_api::operator::{event, event_part_type, of_fields};
use meseta_api::{Mismatch, Tree, to_tree};
use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::status::{TaskState, TaskStatus};
use meseta_protocol::task::Task;
use meseta_protocol::{AgentId, FrameworkId};
use serde::Serialize;

use super::trees::{self, Built};
use crate::state::{Change, State};

#[derive(Serialize)]
struct TaskPart<'a> {
    task: &'a Task,
}

#[derive(Serialize)]
struct UpdatedPart<'a> {
    framework_id: &'a FrameworkId,
    status: &'a TaskStatus,
    state: TaskState,
}

#[derive(Serialize)]
struct RemovedAgentPart<'a> {
    agent_id: &'a AgentId,
}

#[derive(Serialize)]
struct RemovedFrameworkPart<'a> {
    framework_info: &'a FrameworkInfo,
}

fn event_with<T: Serialize>(kind: &str, part: &T) -> Built {
    Ok(event(kind, Some(to_tree(part, event_part_type(kind))?)))
}

fn event_about(kind: &str, field: &str, tree: Tree) -> Tree {
    event(
        kind,
        Some(of_fields(event_part_type(kind), [(field, tree)])),
    )
}

/// The first event: the answer to GET_STATE, and how often a heartbeat comes.
pub(super) fn subscribed(get_state: Tree, heartbeat: Duration) -> Tree {
    #[derive(Serialize)]
    struct Part {
        heartbeat_interval_seconds: f64,
    }
    let of = event_part_type("SUBSCRIBED");
    let heartbeat_interval_seconds = heartbeat.as_secs_f64();
    let mut part = to_tree(
        &Part {
            heartbeat_interval_seconds,
        },
        of,
    )
    .unwrap_or(Tree::empty());
    part.put(of, "get_state", get_state);
    event("SUBSCRIBED", Some(part))
}

/// The sign of life.
pub(super) fn heartbeat() -> Tree {
    event("HEARTBEAT", None)
}

/// The event for a change that tells how something stands, made from the tables. None for other changes, and for what is
/// gone again, whose end is told next.
pub(super) fn standing(state: &State, change: &Change) -> Result<Option<Tree>, Mismatch> {
    let framework = |kind: &str, id: &FrameworkId| {
        let Some(framework) = state.framework(id) else {
            return Ok(None);
        };
        let shown = trees::framework_in_event(state, id, framework)?;
        Ok(Some(event_about(kind, "framework", shown)))
    };
    match change {
        Change::AgentAdded(id) => {
            let shown = state.agent(id).map(trees::agent).transpose()?;
            Ok(shown.map(|shown| event_about("AGENT_ADDED", "agent", shown)))
        }
        Change::FrameworkAdded(id) => framework("FRAMEWORK_ADDED", id),
        Change::FrameworkUpdated(id) => framework("FRAMEWORK_UPDATED", id),
        Change::TaskAdded(_)
        | Change::TaskUpdated(_)
        | Change::AgentRemoved(_)
        | Change::FrameworkRemoved(_) => Ok(None),
    }
}

/// The event for a change that holds all it tells. None for the others.
pub(super) fn complete(change: &Change) -> Result<Option<Tree>, Mismatch> {
    let event = match change {
        Change::TaskAdded(task) => event_with("TASK_ADDED", &TaskPart { task }),
        Change::TaskUpdated(updated) => {
            let part = UpdatedPart {
                framework_id: &updated.framework_id,
                status: &updated.status,
                state: updated.state,
            };
            event_with("TASK_UPDATED", &part)
        }
        Change::AgentRemoved(agent_id) => {
            event_with("AGENT_REMOVED", &RemovedAgentPart { agent_id })
        }
        Change::FrameworkRemoved(framework_info) => {
            let part = RemovedFrameworkPart { framework_info };
            event_with("FRAMEWORK_REMOVED", &part)
        }
        Change::AgentAdded(_) | Change::FrameworkAdded(_) | Change::FrameworkUpdated(_) => {
            return Ok(None);
        }
    };
    event.map(Some)
}

#[cfg(test)]
mod tests {
    use meseta_api::Format;
    use meseta_api::operator::event_type;
    use meseta_protocol::agent::AgentInfo;
    use meseta_protocol::resources::Resources;
    use meseta_protocol::task::TaskInfo;
    use serde_json::{Value, json};

    use super::*;
    use crate::state::{Agent, Framework, Limits};

    fn shown(event: &Tree) -> Value {
        let read =
            Format::Protobuf.read(&Format::Protobuf.write(event, event_type()), event_type());
        assert_eq!(read.unwrap().get("type"), event.get("type"));
        serde_json::from_slice(&Format::Json.write(event, event_type())).unwrap()
    }

    /// The events for what has changed.
    fn told(state: &mut State) -> Vec<Value> {
        let changes = state.take_changes();
        let events = changes.iter().map(|change| {
            let standing = standing(state, change).unwrap();
            let complete = complete(change).unwrap();
            assert!(standing.is_none() || complete.is_none());
            standing.or(complete)
        });
        events.flatten().map(|event| shown(&event)).collect()
    }

    #[test]
    fn events_are_those_of_mesos() {
        let (id, agent_id) = (FrameworkId::from("f"), AgentId::from("a"));
        let mut state = State::new(Limits::default());
        state.listen(true);
        let mut info = FrameworkInfo::new("nobody", "first");
        info.id = Some(id.clone());
        let pid = "s@127.0.0.1:9".parse().unwrap();
        let at = Duration::from_secs(3);
        state.add_framework(Framework::new(info.clone(), Some(pid), at));
        let info = AgentInfo {
            id: Some(agent_id.clone()),
            hostname: "h".to_owned(),
            resources: "cpus:1".parse().unwrap(),
            ..AgentInfo::default()
        };
        let pid = "slave(1)@127.0.0.1:8".parse().unwrap();
        let agent = Agent::new(info, pid, "1".to_owned(), Vec::new(), at);
        state.add_agent(agent, Vec::new(), Vec::new());
        let task = TaskInfo::new("t", "a", Resources::new(), "true");
        state.add_task(Task::new(&task, &id, "nobody"));
        state.remove_framework(&id, Duration::from_secs(4));
        // All in one turn: the framework is gone, and what it was is not told any more.
        let all = told(&mut state);
        let kinds: Vec<&Value> = all.iter().map(|event| &event["type"]).collect();
        assert_eq!(
            kinds,
            [
                "AGENT_ADDED",
                "TASK_ADDED",
                "TASK_UPDATED",
                "FRAMEWORK_REMOVED"
            ]
        );
        let added = &all[0]["agent_added"]["agent"];
        assert_eq!(added["agent_info"]["id"], json!({"value": "a"}));
        assert_eq!(added["total_resources"][0]["role"], "*");
        assert_eq!(all[1]["task_added"]["task"]["state"], "TASK_STAGING");
        assert_eq!(
            all[2]["task_updated"],
            json!({
                "framework_id": {"value": "f"}, "state": "TASK_KILLED",
                "status": {
                    "task_id": {"value": "t"}, "state": "TASK_KILLED", "message": "Framework f removed",
                    "source": "SOURCE_MASTER", "reason": "REASON_FRAMEWORK_REMOVED", "agent_id": {"value": "a"},
                    "timestamp": 4.0,
                },
            })
        );
        assert_eq!(
            all[3]["framework_removed"]["framework_info"]["name"],
            "first"
        );
        state.note_removed(&agent_id);
        assert_eq!(
            told(&mut state),
            [json!({"type": "AGENT_REMOVED", "agent_removed": {"agent_id": {"value": "a"}}})]
        );
    }

    #[test]
    fn a_framework_is_told_as_it_stands() {
        let id = FrameworkId::from("f");
        let mut state = State::new(Limits::default());
        state.listen(true);
        let mut info = FrameworkInfo::new("nobody", "first");
        info.id = Some(id.clone());
        state.add_framework(Framework::new(info, None, Duration::from_secs(3)));
        let pid = "s@127.0.0.1:9".parse().unwrap();
        let added = &told(&mut state)[0];
        assert_eq!(added["type"], "FRAMEWORK_ADDED");
        assert_eq!(added["framework_added"]["framework"]["recovered"], true);
        state.connect_framework(&id, &pid, Duration::from_secs(4));
        let updated = &told(&mut state)[0];
        assert_eq!(updated["type"], "FRAMEWORK_UPDATED");
        let framework = &updated["framework_updated"]["framework"];
        assert_eq!(framework["active"], true);
        assert_eq!(framework["unregistered_time"], json!({"nanoseconds": 0}));
        assert_eq!(framework["offer_constraints"], Value::Null);
    }

    #[test]
    fn the_first_event_has_the_state_and_the_interval() {
        let state = State::new(Limits::default());
        let snapshot = trees::get_state(&state, std::iter::empty()).unwrap();
        let first = shown(&subscribed(snapshot, Duration::from_secs(15)));
        assert_eq!(first["type"], "SUBSCRIBED");
        let part = &first["subscribed"];
        assert_eq!(part["heartbeat_interval_seconds"], 15.0);
        let state = &part["get_state"];
        assert_eq!(state["get_agents"]["agents"], json!([]));
        assert_eq!(state["get_tasks"]["unreachable_tasks"], json!([]));
        assert_eq!(shown(&heartbeat()), json!({"type": "HEARTBEAT"}));
    }
}
