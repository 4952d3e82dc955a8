//! Both directions of time: what a newer version might send, and what an older one might leave out.

use meseta_protocol::messages::agent::RunTask;
use meseta_protocol::operation::{Operation, OperationAction};
use meseta_protocol::resources::Resources;
use meseta_protocol::task::{CheckType, HealthCheck, Task, TaskInfo};
use serde::Serialize;

/// A task of the future, with a field and a check that today's program does not know.
#[derive(Serialize)]
struct FutureTask {
    task_id: &'static str,
    colour: (u8, Vec<&'static str>),
    health_check: FutureCheck,
}

#[derive(Serialize)]
struct FutureCheck {
    r#type: &'static str,
    grpc: u16,
}

#[test]
fn unknown_fields_are_skipped_and_missing_ones_take_their_default() {
    let future = FutureTask {
        task_id: "t",
        colour: (1, vec!["red"]),
        health_check: FutureCheck {
            r#type: "GRPC",
            grpc: 7,
        },
    };
    let bytes = rmp_serde::to_vec_named(&future).unwrap();
    let expected = TaskInfo {
        task_id: "t".into(),
        health_check: Some(HealthCheck {
            kind: Some(CheckType::Unknown),
            ..HealthCheck::default()
        }),
        ..TaskInfo::default()
    };
    assert_eq!(rmp_serde::from_slice::<TaskInfo>(&bytes).unwrap(), expected);
    let json = serde_json::to_string(&future).unwrap();
    assert_eq!(serde_json::from_str::<TaskInfo>(&json).unwrap(), expected);
}

#[test]
fn an_empty_record_is_enough() {
    let empty: RunTask = serde_json::from_str("{}").unwrap();
    assert_eq!(empty, RunTask::default());
    let empty: Task = serde_json::from_str("{}").unwrap();
    assert_eq!(empty, Task::default());
}

#[test]
fn an_unknown_operation_keeps_its_id() {
    let json = r#"{"id":"o","type":"TELEPORT","teleport":{"to":["moon"]}}"#;
    let operation: Operation = serde_json::from_str(json).unwrap();
    assert_eq!(operation.id, Some("o".into()));
    assert_eq!(operation.action, OperationAction::Unknown);
    let again: Operation =
        rmp_serde::from_slice(&rmp_serde::to_vec_named(&operation).unwrap()).unwrap();
    assert_eq!(again, operation);
}

#[test]
fn a_known_operation_without_its_body_is_an_empty_one() {
    let operation: Operation = serde_json::from_str(r#"{"type":"LAUNCH"}"#).unwrap();
    assert_eq!(operation, Operation::launch([]));
}

#[test]
fn operations_look_as_in_the_published_json() {
    let resources: Resources = "cpus:1.5".parse().unwrap();
    let json = serde_json::to_string(&Operation::reserve(resources)).unwrap();
    assert_eq!(
        json,
        r#"{"type":"RESERVE","reserve":{"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":1.5}}]}}"#
    );
}

#[test]
fn defaults_that_are_not_zero_are_kept_when_missing() {
    let task: TaskInfo = serde_json::from_str(
        r#"{"command":{"value":"true"},"health_check":{"type":"TCP"},"kill_policy":{}}"#,
    )
    .unwrap();
    let command = task.command.unwrap();
    assert!(command.shell);
    let check = task.health_check.unwrap();
    assert_eq!(
        (check.consecutive_failures, check.kind),
        (3, Some(CheckType::Tcp))
    );
    let filters: meseta_protocol::offer::Filters = serde_json::from_str("{}").unwrap();
    assert_eq!(filters, meseta_protocol::offer::Filters::refusing(5.0));
}
