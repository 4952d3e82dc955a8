//! The executor API: calls of HTTP executors as messages of the protocol, and the protocol's messages as events.
//!
//! Pure. Source: executor.md §1, http.md §4; texts as Mesos has them.

use meseta_protocol::messages::executor::{
    ExecutorRefused, ExecutorSubscribed, KillExecutorTask, LaunchTask, LaunchTaskGroup,
    MessageToExecutor, SendToFramework, ShutdownExecutorNow, SubscribeExecutor, UpdateAcknowledged,
    UpdateTask,
};
use meseta_protocol::status::{StatusSource, TaskState};
use meseta_protocol::{ExecutorId, FrameworkId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::negotiation::{Format, Refusal};
use crate::schema::{MessageType, message};
use crate::tree::Tree;
use crate::{Event, from_tree};

/// What an executor may call.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a call lives for one turn and is never kept in numbers"
)]
pub enum Call {
    /// Here I am; the answer is a stream.
    Subscribe(SubscribeExecutor),
    /// A task's state.
    Update(UpdateTask),
    /// Anything for the framework.
    Message(SendToFramework),
    /// It lives.
    Heartbeat,
}

/// Type of the calls.
pub fn call_type() -> &'static MessageType {
    message("mesos.v1.executor.Call")
}

/// Type of the events.
pub fn event_type() -> &'static MessageType {
    message("mesos.v1.executor.Event")
}

fn invalid(why: impl std::fmt::Display) -> Refusal {
    Refusal::bad(format!("Failed to validate Executor::Call: {why}"))
}

fn expecting(field: &str) -> Refusal {
    invalid(format_args!("Expecting '{field}' to be present"))
}

fn part<T: DeserializeOwned>(call: &Tree, name: &str) -> Result<T, Refusal> {
    let node = call.get(name).ok_or_else(|| expecting(name))?;
    from_tree(node).map_err(invalid)
}

/// Who calls, and what.
pub type Called = (FrameworkId, ExecutorId, Call);

/// Reads a call, which may nest so many levels deep.
///
/// # Errors
/// 400 with what is wrong; 501 for a call that says that it is none.
pub fn read(format: Format, body: &[u8], nesting: usize) -> Result<Called, Refusal> {
    let call = format.read_within(body, call_type(), nesting)?;
    let kind = call
        .get("type")
        .and_then(Tree::text)
        .ok_or_else(|| expecting("type"))?;
    let id = |name: &str| call.get(name).and_then(Tree::text).unwrap_or_default();
    let framework_id = FrameworkId::from(id("framework_id"));
    let executor_id = ExecutorId::from(id("executor_id"));
    let read = match kind {
        "SUBSCRIBE" => Call::Subscribe(SubscribeExecutor {
            framework_id: framework_id.clone(),
            executor_id: executor_id.clone(),
            ..part(&call, "subscribe")?
        }),
        "UPDATE" => {
            check_uuid(&call)?;
            let update = UpdateTask {
                framework_id: framework_id.clone(),
                executor_id: executor_id.clone(),
                ..part(&call, "update")?
            };
            check_update(&update)?;
            Call::Update(update)
        }
        "MESSAGE" => Call::Message(SendToFramework {
            framework_id: framework_id.clone(),
            executor_id: executor_id.clone(),
            ..part(&call, "message")?
        }),
        "HEARTBEAT" => Call::Heartbeat,
        _ => return Err(Refusal::new(501, "501 Not Implemented.")),
    };
    Ok((framework_id, executor_id, read))
}

/// An update without the part that must be there is told so by [`part`].
fn check_uuid(call: &Tree) -> Result<(), Refusal> {
    match (call.get("update"), call.at(&["update", "status", "uuid"])) {
        (_, Some(Tree::Bytes(bytes))) if crate::is_uuid(bytes) => Ok(()),
        (_, Some(_)) => Err(invalid("Not a valid UUID")),
        (Some(_), None) => Err(expecting("uuid")),
        (None, None) => Ok(()),
    }
}

fn check_update(update: &UpdateTask) -> Result<(), Refusal> {
    let status = &update.status;
    let (executor, framework) = (&update.executor_id, &update.framework_id);
    if let Some(other) = status.executor_id.as_ref().filter(|id| *id != executor) {
        return Err(invalid(format_args!(
            "ExecutorID in Call: {executor} does not match ExecutorID in TaskStatus: {other}"
        )));
    }
    if status.source != Some(StatusSource::Executor) {
        return Err(invalid(format_args!(
            "Received Call from executor {executor} of framework {framework} with invalid source, expecting \
             'SOURCE_EXECUTOR'"
        )));
    }
    if status.state == TaskState::Staging {
        return Err(invalid(format_args!(
            "Received TASK_STAGING from executor {executor} of framework {framework} which is not allowed"
        )));
    }
    Ok(())
}

/// Something that happens to an executor.
pub trait Happening: Serialize {
    /// Type of the event, and the name of its part.
    const EVENT: (&'static str, Option<&'static str>);
}

macro_rules! happenings {
    ($( $message:ident = $kind:literal $part:expr; )*) => {
        $( impl Happening for $message {
            const EVENT: (&'static str, Option<&'static str>) = ($kind, $part);
        } )*
    };
}

happenings! {
    LaunchTask = "LAUNCH" Some("launch");
    LaunchTaskGroup = "LAUNCH_GROUP" Some("launch_group");
    KillExecutorTask = "KILL" Some("kill");
    UpdateAcknowledged = "ACKNOWLEDGED" Some("acknowledged");
    MessageToExecutor = "MESSAGE" Some("message");
    ShutdownExecutorNow = "SHUTDOWN" None;
    ExecutorRefused = "ERROR" Some("error");
}

/// The event for a message of the protocol.
pub fn event<T: Happening>(happening: &T) -> Event<&T> {
    let (kind, part) = T::EVENT;
    Event::new(event_type(), kind, part.map(|name| (name, happening)))
}

/// The event for an answer to SUBSCRIBE. The agent tells its id within what it says of itself.
pub fn subscribed(message: &ExecutorSubscribed) -> Event<ExecutorSubscribed> {
    let mut message = message.clone();
    message.agent_info.id = Some(message.agent_id.clone());
    Event::new(event_type(), "SUBSCRIBED", Some(("subscribed", message)))
}

/// The event that says that the connection lives.
pub fn heartbeat() -> Event<()> {
    Event::new(event_type(), "HEARTBEAT", None)
}

#[cfg(test)]
mod tests {
    use meseta_protocol::agent::AgentInfo;
    use meseta_protocol::common::CommandInfo;
    use meseta_protocol::executor::ExecutorInfo;
    use meseta_protocol::framework::FrameworkInfo;
    use meseta_protocol::resources::Resources;
    use meseta_protocol::task::{TaskGroupInfo, TaskInfo};
    use meseta_protocol::{ContainerId, UpdateId};
    use serde_json::{Value, json};

    use super::*;
    use crate::style::Style;

    fn called(part: Value, kind: &str, name: &str) -> Result<Call, (u16, String)> {
        let call = json!({
            "type": kind, "framework_id": {"value": "f"}, "executor_id": {"value": "e"}, name: part,
        });
        read(Format::Json, call.to_string().as_bytes(), 100)
            .map(|(_, _, call)| call)
            .map_err(|refusal| (refusal.status, refusal.text))
    }

    fn shown<T: Serialize>(event: &Event<T>) -> Value {
        serde_json::from_slice(&event.write(Format::Json, Style::NEWEST)).unwrap()
    }

    fn status(change: impl FnOnce(&mut Value)) -> Value {
        let mut status = json!({
            "task_id": {"value": "t"}, "state": "TASK_RUNNING", "source": "SOURCE_EXECUTOR",
            "uuid": "R0dHR0dHR0dHR0dHR0dHRw==",
        });
        change(&mut status);
        json!({ "status": status })
    }

    #[test]
    fn what_is_not_acknowledged_comes_with_the_subscription() {
        let task = json!({"name": "n", "task_id": {"value": "t"}, "agent_id": {"value": "a"}});
        let call = called(
            json!({"unacknowledged_tasks": [task], "unacknowledged_updates": [status(|_| {})]}),
            "SUBSCRIBE",
            "subscribe",
        );
        let Ok(Call::Subscribe(call)) = call else {
            panic!("{call:?}");
        };
        assert_eq!(call.unacknowledged_tasks[0].task_id.as_str(), "t");
        let update = &call.unacknowledged_updates[0].status;
        assert_eq!(
            (update.state, update.uuid),
            (TaskState::Running, Some(UpdateId::from_bytes([0x47; 16])))
        );
    }

    #[test]
    fn updates_that_no_executor_may_send_are_refused_in_the_known_words() {
        let update = |change: fn(&mut Value)| called(status(change), "UPDATE", "update");
        assert!(
            matches!(update(|_| {}), Ok(Call::Update(update)) if update.executor_id.as_str() == "e")
        );
        let refused = |change| {
            let (code, text) = update(change).unwrap_err();
            assert_eq!(code, 400);
            text.strip_prefix("Failed to validate Executor::Call: ")
                .unwrap()
                .to_owned()
        };
        let without = |status: &mut Value| {
            status.as_object_mut().unwrap().remove("uuid");
        };
        assert_eq!(refused(without), "Expecting 'uuid' to be present");
        assert_eq!(
            refused(|status| status["uuid"] = json!("aGk=")),
            "Not a valid UUID"
        );
        // Of the right length, and of no version that there is.
        assert_eq!(
            refused(|status| status["uuid"] = json!("BwcHBwcHBwcHBwcHBwcHBw==")),
            "Not a valid UUID"
        );
        assert_eq!(
            refused(|status| status["source"] = json!("SOURCE_MASTER")),
            "Received Call from executor e of framework f with invalid source, expecting 'SOURCE_EXECUTOR'"
        );
        assert_eq!(
            refused(|status| status["state"] = json!("TASK_STAGING")),
            "Received TASK_STAGING from executor e of framework f which is not allowed"
        );
        assert_eq!(
            refused(|status| status["executor_id"] = json!({"value": "x"})),
            "ExecutorID in Call: e does not match ExecutorID in TaskStatus: x"
        );
        assert_eq!(
            called(json!({}), "UPDATE", "x").unwrap_err().1,
            "Failed to validate Executor::Call: Expecting 'update' to be present"
        );
    }

    #[test]
    fn events_have_the_published_shape() {
        let resources: Resources = "cpus:1".parse().unwrap();
        let message = ExecutorSubscribed {
            executor_info: ExecutorInfo::custom("e", CommandInfo::shell("true")),
            framework_info: FrameworkInfo::new("u", "n"),
            agent_info: AgentInfo::new("h", resources.clone()),
            agent_id: "a".into(),
            container_id: ContainerId::top("c"),
        };
        let event_shown = shown(&subscribed(&message));
        let part = &event_shown["subscribed"];
        assert_eq!(part["executor_info"]["executor_id"], json!({"value": "e"}));
        assert_eq!(
            part["executor_info"]["command"],
            json!({"shell": true, "value": "true"})
        );
        assert_eq!(part["agent_info"]["id"], json!({"value": "a"}));
        assert_eq!(part["container_id"], json!({"value": "c"}));
        assert_eq!(part["framework_info"]["failover_timeout"], json!(0.0));
        let task = TaskInfo::new("t", "a", resources, "true");
        let tasks = vec![
            task.clone(),
            TaskInfo::new("u", "a", Resources::new(), "true"),
        ];
        let task_group = TaskGroupInfo { tasks };
        let group = LaunchTaskGroup { task_group };
        let together = event(&group);
        let tasks = &shown(&together)["launch_group"]["task_group"]["tasks"];
        let ids = [0, 1].map(|at| tasks[at]["task_id"]["value"].clone());
        assert_eq!(ids, ["t", "u"]);
        // Type 8, and then the part that has the number 8.
        let bytes = together.write(Format::Protobuf, Style::NEWEST);
        assert_eq!(bytes[..3], [0x08, 8, 0x42]);
        let launched = shown(&event(&LaunchTask { task }));
        assert_eq!(launched["launch"]["task"]["task_id"], json!({"value": "t"}));
        let uuid = UpdateId::from_bytes([0x47; 16]);
        assert_eq!(
            shown(&event(&UpdateAcknowledged {
                task_id: "t".into(),
                uuid
            })),
            json!({"type": "ACKNOWLEDGED", "acknowledged": {
                "task_id": {"value": "t"}, "uuid": "R0dHR0dHR0dHR0dHR0dHRw==",
            }})
        );
        assert_eq!(
            shown(&event(&ShutdownExecutorNow {})),
            json!({"type": "SHUTDOWN"})
        );
        assert_eq!(shown(&heartbeat()), json!({"type": "HEARTBEAT"}));
    }
}
