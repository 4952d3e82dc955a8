//! The scheduler API: calls of HTTP schedulers as messages of the protocol, and the protocol's messages as events.
//!
//! Pure. Source: http.md §3, master.md §5; texts as Mesos has them.

use meseta_protocol::framework::{FrameworkInfo, OfferConstraints};
use meseta_protocol::messages::scheduler::{
    AcceptOffers, AcknowledgeStatus, AgentLost, DeclineOffers, ExecutorLost, ExecutorMessage,
    FrameworkError, FrameworkMessage, FrameworkSubscribed, KillTask, OfferRescinded,
    ReconcileTasks, RequestResources, ResourceOffers, ReviveOffers, ShutdownExecutor,
    StatusUpdated, SubscribeFramework, SuppressOffers, TeardownFramework,
};
use meseta_protocol::status::StatusUpdate;
use meseta_protocol::{AgentId, ExecutorId, FrameworkId, Role};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::negotiation::{Format, Refusal};
use crate::schema::{MessageType, message};
use crate::tree::Tree;
use crate::{Event, from_tree};

/// What a scheduler may call.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// Here I am; the answer is a stream.
    Subscribe(SubscribeFramework),
    /// End the framework.
    Teardown(TeardownFramework),
    /// Use offers.
    Accept(AcceptOffers),
    /// Give offers back.
    Decline(DeclineOffers),
    /// Offers are wanted.
    Revive(ReviveOffers),
    /// No offers are wanted.
    Suppress(SuppressOffers),
    /// Stop a task.
    Kill(KillTask),
    /// End an executor.
    Shutdown(ShutdownExecutor),
    /// An update has been dealt with.
    Acknowledge(AcknowledgeStatus),
    /// Say how tasks are.
    Reconcile(ReconcileTasks),
    /// Anything for an executor.
    Message(FrameworkMessage),
    /// Resources that would be welcome.
    Request(RequestResources),
    /// The framework describes itself anew.
    UpdateFramework(SubscribeFramework),
    /// Known, but about what this version does not have: inverse offers, feedback on operations.
    Later(FrameworkId, &'static str),
}

/// Type of the calls.
pub fn call_type() -> &'static MessageType {
    message("mesos.v1.scheduler.Call")
}

/// Type of the events.
pub fn event_type() -> &'static MessageType {
    message("mesos.v1.scheduler.Event")
}

/// SUBSCRIBE and UPDATE_FRAMEWORK.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Described {
    framework_info: FrameworkInfo,
    suppressed_roles: Vec<Role>,
    offer_constraints: Option<OfferConstraints>,
}

impl From<Described> for SubscribeFramework {
    fn from(described: Described) -> Self {
        Self {
            framework: described.framework_info,
            suppressed_roles: described.suppressed_roles,
            // Over HTTP the last who subscribes wins.
            force: true,
            offer_constraints: described.offer_constraints,
        }
    }
}

fn invalid(why: impl std::fmt::Display) -> Refusal {
    Refusal::bad(format!("Failed to validate scheduler::Call: {why}"))
}

fn expecting(field: &str) -> Refusal {
    invalid(format_args!("Expecting '{field}' to be present"))
}

/// The call's part of this name, as a message of the protocol.
fn part<T: DeserializeOwned>(call: &Tree, name: &str) -> Result<T, Refusal> {
    let node = call.get(name).ok_or_else(|| expecting(name))?;
    from_tree(node).map_err(invalid)
}

/// The same for a part that may be missing.
fn part_if_any<T: DeserializeOwned + Default>(call: &Tree, name: &str) -> Result<T, Refusal> {
    let node = call.get(name);
    node.map_or_else(|| Ok(T::default()), |node| from_tree(node).map_err(invalid))
}

/// Reads a call, which may nest so many levels deep.
///
/// # Errors
/// 400 with what is wrong; 501 for a call that says that it is none.
pub fn read(format: Format, body: &[u8], nesting: usize) -> Result<Call, Refusal> {
    let call = format.read_within(body, call_type(), nesting)?;
    let kind = call
        .get("type")
        .and_then(Tree::text)
        .ok_or_else(|| expecting("type"))?;
    if kind == "UNKNOWN" {
        return Err(Refusal::new(501, "501 Not Implemented."));
    }
    let id = call
        .get("framework_id")
        .and_then(Tree::text)
        .map(FrameworkId::from);
    if kind == "SUBSCRIBE" {
        return subscribe(&call, id).map(Call::Subscribe);
    }
    let framework_id = id.ok_or_else(|| expecting("framework_id"))?;
    Ok(match kind {
        "TEARDOWN" => Call::Teardown(TeardownFramework { framework_id }),
        "ACCEPT" => Call::Accept(AcceptOffers {
            framework_id,
            ..part(&call, "accept")?
        }),
        "DECLINE" => Call::Decline(DeclineOffers {
            framework_id,
            ..part(&call, "decline")?
        }),
        "REVIVE" => Call::Revive(ReviveOffers {
            framework_id,
            ..part_if_any(&call, "revive")?
        }),
        "SUPPRESS" => Call::Suppress(SuppressOffers {
            framework_id,
            ..part_if_any(&call, "suppress")?
        }),
        "KILL" => Call::Kill(KillTask {
            framework_id,
            ..part(&call, "kill")?
        }),
        "SHUTDOWN" => Call::Shutdown(ShutdownExecutor {
            framework_id,
            ..part(&call, "shutdown")?
        }),
        "ACKNOWLEDGE" => {
            let uuid = call.at(&["acknowledge", "uuid"]);
            if matches!(uuid, Some(Tree::Bytes(bytes)) if !crate::is_uuid(bytes)) {
                return Err(invalid("Not a valid UUID"));
            }
            Call::Acknowledge(AcknowledgeStatus {
                framework_id,
                ..part(&call, "acknowledge")?
            })
        }
        "RECONCILE" => Call::Reconcile(ReconcileTasks {
            framework_id,
            ..part(&call, "reconcile")?
        }),
        "MESSAGE" => Call::Message(FrameworkMessage {
            framework_id,
            ..part(&call, "message")?
        }),
        "REQUEST" => Call::Request(RequestResources {
            framework_id,
            ..part(&call, "request")?
        }),
        "UPDATE_FRAMEWORK" => update_framework(&call, framework_id).map(Call::UpdateFramework)?,
        "ACCEPT_INVERSE_OFFERS" => later(&call, framework_id, "accept_inverse_offers")?,
        "DECLINE_INVERSE_OFFERS" => later(&call, framework_id, "decline_inverse_offers")?,
        "ACKNOWLEDGE_OPERATION_STATUS" => {
            later(&call, framework_id, "acknowledge_operation_status")?
        }
        "RECONCILE_OPERATIONS" => later(&call, framework_id, "reconcile_operations")?,
        _ => return Err(Refusal::new(501, "501 Not Implemented.")),
    })
}

fn later(call: &Tree, id: FrameworkId, name: &'static str) -> Result<Call, Refusal> {
    call.get(name).ok_or_else(|| expecting(name))?;
    Ok(Call::Later(id, name))
}

fn subscribe(call: &Tree, id: Option<FrameworkId>) -> Result<SubscribeFramework, Refusal> {
    let described: Described = part(call, "subscribe")?;
    if described.framework_info.id != id {
        return Err(invalid(
            "'framework_id' differs from 'subscribe.framework_info.id'",
        ));
    }
    Ok(described.into())
}

fn update_framework(call: &Tree, id: FrameworkId) -> Result<SubscribeFramework, Refusal> {
    let described: Described = part(call, "update_framework")?;
    match &described.framework_info.id {
        Some(own) if *own == id => Ok(described.into()),
        Some(_) | None => Err(invalid(
            "'framework_id' differs from 'update_framework.framework_info.id'",
        )),
    }
}

impl Call {
    /// The framework that calls; none for one that subscribes for the first time.
    pub fn framework_id(&self) -> Option<&FrameworkId> {
        Some(match self {
            Self::Subscribe(call) | Self::UpdateFramework(call) => {
                return call.framework.id.as_ref();
            }
            Self::Teardown(call) => &call.framework_id,
            Self::Accept(call) => &call.framework_id,
            Self::Decline(call) => &call.framework_id,
            Self::Revive(call) => &call.framework_id,
            Self::Suppress(call) => &call.framework_id,
            Self::Kill(call) => &call.framework_id,
            Self::Shutdown(call) => &call.framework_id,
            Self::Acknowledge(call) => &call.framework_id,
            Self::Reconcile(call) => &call.framework_id,
            Self::Message(call) => &call.framework_id,
            Self::Request(call) => &call.framework_id,
            Self::Later(id, _) => id,
        })
    }
}

/// Something that happens to a scheduler.
pub trait Happening: Serialize {
    /// Type of the event, and the name of its part.
    const EVENT: (&'static str, &'static str);
}

macro_rules! happenings {
    ($( $message:ident = $kind:literal $part:literal; )*) => {
        $( impl Happening for $message {
            const EVENT: (&'static str, &'static str) = ($kind, $part);
        } )*
    };
}

happenings! {
    ResourceOffers = "OFFERS" "offers";
    OfferRescinded = "RESCIND" "rescind";
    ExecutorMessage = "MESSAGE" "message";
    AgentLost = "FAILURE" "failure";
    FrameworkError = "ERROR" "error";
}

/// What FAILURE says of an executor; its exit status stands there also when it is 0.
#[derive(Serialize)]
struct Ended<'a> {
    agent_id: &'a AgentId,
    executor_id: &'a ExecutorId,
    status: Option<i32>,
}

/// What SUBSCRIBED says.
#[derive(Serialize)]
struct Subscribed<'a> {
    framework_id: &'a FrameworkId,
    heartbeat_interval_seconds: f64,
    master_info: &'a meseta_protocol::agent::MasterInfo,
}

/// The event for a message of the protocol.
pub fn event<T: Happening>(happening: &T) -> Event<&T> {
    let (kind, part) = T::EVENT;
    Event::new(event_type(), kind, Some((part, happening)))
}

/// The event for an answer to SUBSCRIBE.
pub fn subscribed(
    message: &FrameworkSubscribed,
    heartbeat_interval_seconds: f64,
) -> Event<impl Serialize> {
    let part = Subscribed {
        framework_id: &message.framework_id,
        heartbeat_interval_seconds,
        master_info: &message.master_info,
    };
    Event::new(event_type(), "SUBSCRIBED", Some(("subscribed", part)))
}

/// The event for the end of an executor.
pub fn executor_lost(message: &ExecutorLost) -> Event<impl Serialize> {
    let part = Ended {
        agent_id: &message.agent_id,
        executor_id: &message.executor_id,
        status: Some(message.status),
    };
    Event::new(event_type(), "FAILURE", Some(("failure", part)))
}

/// The event for a status update.
pub fn update(message: &StatusUpdated) -> Event<&StatusUpdate> {
    Event::new(event_type(), "UPDATE", Some(("update", &message.update)))
}

/// The event that says that the connection lives.
pub fn heartbeat() -> Event<()> {
    Event::new(event_type(), "HEARTBEAT", None)
}

#[cfg(test)]
mod tests {
    use meseta_protocol::agent::MasterInfo;
    use meseta_protocol::messages::scheduler::TaskQuestion;
    use meseta_protocol::offer::{AllocationInfo, Filters, Offer};
    use meseta_protocol::operation::OperationAction;
    use meseta_protocol::status::{StatusSource, TaskState, TaskStatus};
    use meseta_protocol::{TaskId, UpdateId};
    use serde_json::{Value, json};

    use super::*;
    use crate::style::Style;

    fn called(value: &Value) -> Result<Call, (u16, String)> {
        read(Format::Json, value.to_string().as_bytes(), 100)
            .map_err(|refusal| (refusal.status, refusal.text))
    }

    fn shown<T: Serialize>(event: &Event<T>) -> Value {
        let json = event.write(Format::Json, Style::NEWEST);
        let shown: Value = serde_json::from_slice(&json).unwrap();
        let protobuf = event.write(Format::Protobuf, Style::NEWEST);
        let tree = Format::Protobuf.read(&protobuf, event_type()).unwrap();
        let as_tree = Format::Json.write(&tree, event_type());
        assert_eq!(serde_json::from_slice::<Value>(&as_tree).unwrap(), shown);
        shown
    }

    #[test]
    fn a_launch_comes_through_with_all_it_says() {
        let call = called(&json!({
            "type": "ACCEPT", "framework_id": {"value": "f"},
            "accept": {
                "offer_ids": [{"value": "o"}],
                "operations": [{"type": "LAUNCH", "launch": {"task_infos": [{
                    "name": "n", "task_id": {"value": "t"}, "agent_id": {"value": "a"},
                    "command": {"value": "true", "environment": {"variables": [{"name": "A", "value": "b"}]}},
                    "resources": [
                        {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}, "role": "*"},
                        {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 1, "end": 2}]}},
                    ],
                    "data": "aGk=",
                }]}}],
                "filters": {"refuse_seconds": 1},
            },
        }));
        let Ok(Call::Accept(accept)) = call else {
            panic!("{call:?}");
        };
        assert_eq!(accept.framework_id.as_str(), "f");
        assert_eq!(accept.filters, Filters::refusing(1.0));
        let OperationAction::Launch(launch) = &accept.operations[0].action else {
            panic!("{accept:?}");
        };
        let task = &launch.task_infos[0];
        assert_eq!((task.task_id.as_str(), task.agent_id.as_str()), ("t", "a"));
        assert_eq!(task.resources.to_string(), "cpus:0.1; ports:[1-2]");
        assert_eq!(task.data.as_ref().unwrap().as_slice(), b"hi");
        let command = task.command.as_ref().unwrap();
        assert!(command.shell && command.value.as_deref() == Some("true"));
    }

    #[test]
    fn every_call_is_read() {
        let id = json!({"value": "f"});
        let with = |kind: &str, part: &str, body: Value| {
            called(&json!({"type": kind, "framework_id": id, part: body}))
        };
        assert!(matches!(
            called(&json!({"type": "SUBSCRIBE", "subscribe": {"framework_info": {"user": "u", "name": "n"}}})),
            Ok(Call::Subscribe(call)) if call.force && call.framework.name == "n"
        ));
        assert!(matches!(
            called(&json!({"type": "TEARDOWN", "framework_id": id})),
            Ok(Call::Teardown(_))
        ));
        assert!(matches!(
            called(&json!({"type": "REVIVE", "framework_id": id})),
            Ok(Call::Revive(_))
        ));
        assert!(matches!(
            with("SUPPRESS", "suppress", json!({"roles": "r"})),
            Ok(Call::Suppress(call)) if call.roles.len() == 1
        ));
        assert!(matches!(
            with("DECLINE", "decline", json!({})),
            Ok(Call::Decline(_))
        ));
        assert!(matches!(
            with("KILL", "kill", json!({"task_id": {"value": "t"}, "kill_policy": {"grace_period": {"nanoseconds": 5}}})),
            Ok(Call::Kill(call)) if call.kill_policy.unwrap().grace_period.unwrap().nanoseconds == 5
        ));
        let executor =
            json!({"executor_id": {"value": "e"}, "agent_id": {"value": "a"}, "data": "aGk="});
        assert!(matches!(
            with("SHUTDOWN", "shutdown", executor.clone()),
            Ok(Call::Shutdown(_))
        ));
        assert!(matches!(
            with("MESSAGE", "message", executor),
            Ok(Call::Message(call)) if call.data.as_slice() == b"hi"
        ));
        let question = TaskQuestion {
            task_id: TaskId::from("t"),
            agent_id: None,
        };
        assert!(matches!(
            with("RECONCILE", "reconcile", json!({"tasks": [{"task_id": {"value": "t"}}]})),
            Ok(Call::Reconcile(call)) if call.tasks == [question]
        ));
        let ack = |uuid: &str| json!({"agent_id": {"value": "a"}, "task_id": {"value": "t"}, "uuid": uuid});
        assert!(matches!(
            with("ACKNOWLEDGE", "acknowledge", ack("R0dHR0dHR0dHR0dHR0dHRw==")),
            Ok(Call::Acknowledge(call)) if call.uuid == UpdateId::from_bytes([0x47; 16])
        ));
        for bad in ["aGk=", "BwcHBwcHBwcHBwcHBwcHBw=="] {
            let text = "Failed to validate scheduler::Call: Not a valid UUID".to_owned();
            assert_eq!(
                with("ACKNOWLEDGE", "acknowledge", ack(bad)),
                Err((400, text))
            );
        }
        assert!(matches!(
            with("REQUEST", "request", json!({"requests": []})),
            Ok(Call::Request(_))
        ));
        assert!(matches!(
            with("RECONCILE_OPERATIONS", "reconcile_operations", json!({})),
            Ok(Call::Later(_, "reconcile_operations"))
        ));
    }

    #[test]
    fn calls_that_are_none_are_refused_in_the_known_words() {
        let refused = |value: Value| called(&value).unwrap_err();
        let expecting = |field: &str| {
            (
                400,
                format!("Failed to validate scheduler::Call: Expecting '{field}' to be present"),
            )
        };
        assert_eq!(refused(json!({})), expecting("type"));
        assert_eq!(refused(json!({"type": "DREAM"})), expecting("type"));
        assert_eq!(
            refused(json!({"type": "SUBSCRIBE"})),
            expecting("subscribe")
        );
        assert_eq!(refused(json!({"type": "KILL"})), expecting("framework_id"));
        let id = json!({"value": "f"});
        assert_eq!(
            refused(json!({"type": "KILL", "framework_id": id})),
            expecting("kill")
        );
        assert_eq!(
            refused(json!({"type": "UNKNOWN", "framework_id": id})).0,
            501
        );
        let info = json!({"user": "u", "name": "n", "id": {"value": "g"}});
        assert_eq!(
            refused(json!({"type": "SUBSCRIBE", "framework_id": id, "subscribe": {"framework_info": info}})).1,
            "Failed to validate scheduler::Call: 'framework_id' differs from 'subscribe.framework_info.id'"
        );
    }

    #[test]
    fn events_have_the_published_shape() {
        let message = FrameworkSubscribed {
            framework_id: "f".into(),
            master_info: MasterInfo {
                id: "m".into(),
                ip: 1,
                port: 5050,
                ..MasterInfo::default()
            },
            resubscribed: false,
        };
        assert_eq!(
            shown(&subscribed(&message, 15.0)),
            json!({"type": "SUBSCRIBED", "subscribed": {
                "framework_id": {"value": "f"}, "heartbeat_interval_seconds": 15.0,
                "master_info": {"id": "m", "ip": 1, "port": 5050},
            }})
        );
        let offer = Offer {
            id: "o".into(),
            framework_id: "f".into(),
            agent_id: "a".into(),
            hostname: "h".to_owned(),
            resources: "cpus:1".parse().unwrap(),
            executor_ids: vec!["e".into()],
            allocation_info: Some(AllocationInfo {
                role: Some("r".into()),
            }),
            ..Offer::default()
        };
        assert_eq!(
            shown(&event(&ResourceOffers {
                offers: vec![offer]
            })),
            json!({"type": "OFFERS", "offers": {"offers": [{
                "id": {"value": "o"}, "framework_id": {"value": "f"}, "agent_id": {"value": "a"}, "hostname": "h",
                "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1.0}}],
                "executor_ids": [{"value": "e"}], "allocation_info": {"role": "r"},
            }]}})
        );
        let mut status = TaskStatus::new("t", TaskState::Running);
        status.source = Some(StatusSource::Executor);
        status.uuid = Some(UpdateId::from_bytes([0x47; 16]));
        status.timestamp = Some(2.0);
        status.healthy = Some(false);
        let update_message = StatusUpdated {
            update: StatusUpdate {
                framework_id: "f".into(),
                status,
                ..StatusUpdate::default()
            },
        };
        assert_eq!(
            shown(&update(&update_message)),
            json!({"type": "UPDATE", "update": {"status": {
                "task_id": {"value": "t"}, "state": "TASK_RUNNING", "source": "SOURCE_EXECUTOR",
                "uuid": "R0dHR0dHR0dHR0dHR0dHRw==", "timestamp": 2.0, "healthy": false,
            }}})
        );
        assert_eq!(
            shown(&executor_lost(&ExecutorLost {
                agent_id: "a".into(),
                executor_id: "e".into(),
                status: 0
            })),
            json!({"type": "FAILURE", "failure": {
                "agent_id": {"value": "a"}, "executor_id": {"value": "e"}, "status": 0,
            }})
        );
        assert_eq!(
            shown(&event(&AgentLost {
                agent_id: "a".into()
            })),
            json!({"type": "FAILURE", "failure": {"agent_id": {"value": "a"}}})
        );
        assert_eq!(
            shown(&event(&FrameworkError {
                message: "no".to_owned()
            })),
            json!({"type": "ERROR", "error": {"message": "no"}})
        );
        assert_eq!(shown(&heartbeat()), json!({"type": "HEARTBEAT"}));
    }
}
