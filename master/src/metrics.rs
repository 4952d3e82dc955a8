//! What the master shows of itself at `/metrics/snapshot`, under the names dashboards know. All but the ends of tasks by
//! source and reason are there from the start, since tools read groups of them as a whole.

use std::collections::BTreeMap;
use std::time::Duration;

use meseta_protocol::status::{TaskState, TaskStatus};
use meseta_runtime::Metrics;

use crate::state::{Standing, State};

/// The part of a state's name that metrics use: `running` for TASK_RUNNING.
fn short(state: TaskState) -> String {
    state.name().trim_start_matches("TASK_").to_lowercase()
}

const COUNTERS: &[&str] = &[
    "master/dropped_messages",
    "master/http_cache_hits",
    "master/tasks_finished",
    "master/tasks_failed",
    "master/tasks_killed",
    "master/tasks_lost",
    "master/tasks_error",
    "master/tasks_dropped",
    "master/tasks_gone",
    "master/tasks_gone_by_operator",
    "master/messages_register_framework",
    "master/messages_reregister_framework",
    "master/messages_unregister_framework",
    "master/messages_deactivate_framework",
    "master/messages_kill_task",
    "master/messages_status_update_acknowledgement",
    "master/messages_resource_request",
    "master/messages_launch_tasks",
    "master/messages_decline_offers",
    "master/messages_revive_offers",
    "master/messages_suppress_offers",
    "master/messages_reconcile_tasks",
    "master/messages_framework_to_executor",
    "master/messages_executor_to_framework",
    "master/messages_register_slave",
    "master/messages_reregister_slave",
    "master/messages_unregister_slave",
    "master/messages_status_update",
    "master/messages_exited_executor",
    "master/valid_framework_to_executor_messages",
    "master/invalid_framework_to_executor_messages",
    "master/valid_executor_to_framework_messages",
    "master/invalid_executor_to_framework_messages",
    "master/valid_status_updates",
    "master/invalid_status_updates",
    "master/valid_status_update_acknowledgements",
    "master/invalid_status_update_acknowledgements",
    "master/recovery_slave_removals",
    "master/slave_registrations",
    "master/slave_reregistrations",
    "master/slave_removals",
    "master/slave_removals/reason_unhealthy",
    "master/slave_removals/reason_unregistered",
    "master/slave_removals/reason_registered",
    "master/slave_unreachable_scheduled",
    "master/slave_unreachable_completed",
    "master/slave_unreachable_canceled",
];

/// Of messages and events that there are none of: operations on resources are not there yet, agents send no changes of
/// what they have, nobody is asked for a password by message, and agents that do not answer become unreachable but are
/// not shut down. They stay at zero.
const WITHOUT_SUBJECT: &[&str] = &[
    "master/messages_authenticate",
    "master/messages_update_slave",
    "master/messages_reconcile_operations",
    "master/messages_operation_status_update",
    "master/messages_operation_status_update_acknowledgement",
    "master/valid_operation_status_updates",
    "master/invalid_operation_status_updates",
    "master/valid_operation_status_update_acknowledgements",
    "master/invalid_operation_status_update_acknowledgements",
    "master/slave_shutdowns_scheduled",
    "master/slave_shutdowns_completed",
    "master/slave_shutdowns_canceled",
];

const OPERATIONS: &[&str] = &[
    "reserve",
    "unreserve",
    "create",
    "destroy",
    "grow_volume",
    "shrink_volume",
    "create_disk",
    "destroy_disk",
];
/// States in which operations are, and how many there are.
const OPERATIONS_NOW: &[&str] = &["total", "pending", "recovering", "unreachable"];
/// States in which they end.
const OPERATIONS_OVER: &[&str] = &["finished", "failed", "error", "dropped", "gone_by_operator"];

const RESOURCES: [&str; 4] = ["cpus", "gpus", "mem", "disk"];

/// Makes what has not counted anything yet, and what there is nothing of.
pub(crate) fn declare(metrics: &Metrics) {
    metrics.counters(COUNTERS);
    metrics.counters(WITHOUT_SUBJECT);
    for name in RESOURCES {
        metrics
            .gauges(["total", "used", "percent"].map(|of| format!("master/{name}_revocable_{of}")));
    }
    let kinds = OPERATIONS.iter().map(|kind| format!("{kind}/"));
    for kind in kinds.chain([String::new()]) {
        let named = |state: &&str| format!("master/operations/{kind}{state}");
        metrics.gauges(OPERATIONS_NOW.iter().map(named));
        metrics.counters(OPERATIONS_OVER.iter().map(named));
    }
}

/// Counts the end of a task that the master knew or refused, and by whose word and why, if the status says why. Mesos
/// counts those that became unreachable only there.
pub(crate) fn count_end(metrics: &Metrics, status: &TaskStatus) {
    let state = short(status.state);
    if status.state.is_terminal() {
        metrics.count(&format!("master/tasks_{state}"));
    }
    if let (Some(source), Some(reason)) = (status.source, status.reason) {
        let (source, reason) = (former(source.name()), former(reason.name()));
        metrics.count(&format!("master/task_{state}/{source}/{reason}"));
    }
}

/// The name as metrics have it: they still call agents slaves.
fn former(name: &str) -> String {
    let name = name.to_lowercase();
    match name.split_once("_agent") {
        Some((kind @ ("source" | "reason"), rest)) => format!("{kind}_slave{rest}"),
        _ => name,
    }
}

/// Publishes a gauge that counts something.
pub(crate) fn set_count(metrics: &Metrics, name: &str, value: usize) {
    metrics.set(name, u32::try_from(value).map_or(f64::MAX, f64::from));
}

/// Publishes the gauges.
pub(crate) fn publish(
    metrics: &Metrics,
    state: &State,
    unreachable: usize,
    uptime: Duration,
    leads: bool,
) {
    let set = |name: &str, value: usize| set_count(metrics, name, value);
    metrics.set("master/elected", if leads { 1.0 } else { 0.0 });
    metrics.set("master/uptime_secs", uptime.as_secs_f64());
    let connected = state.agents().filter(|(_, agent)| agent.connected).count();
    let agents = state.agents().count();
    set("master/slaves_connected", connected);
    set("master/slaves_active", connected);
    set("master/slaves_disconnected", agents - connected);
    set("master/slaves_inactive", agents - connected);
    set("master/slaves_unreachable", unreachable);
    let standing = |wanted: &[Standing]| {
        state
            .frameworks()
            .filter(|(_, framework)| wanted.contains(&framework.standing))
            .count()
    };
    let (active, inactive) = (
        standing(&[Standing::Active]),
        standing(&[Standing::Inactive]),
    );
    let away = standing(&[Standing::Disconnected, Standing::Recovered]);
    set("master/frameworks_active", active);
    set("master/frameworks_connected", active + inactive);
    set("master/frameworks_inactive", inactive + away);
    set("master/frameworks_disconnected", away);
    set("master/outstanding_offers", state.offer_count());
    let mut tasks: BTreeMap<TaskState, usize> = [
        TaskState::Staging,
        TaskState::Starting,
        TaskState::Running,
        TaskState::Killing,
    ]
    .map(|state| (state, 0))
    .into();
    let mut unreachable_tasks = 0;
    for (_, framework) in state.frameworks() {
        unreachable_tasks += framework.unreachable_tasks.len();
        for task in framework.tasks.values() {
            if let Some(count) = tasks.get_mut(&task.state) {
                *count += 1;
            }
        }
    }
    for (state, count) in tasks {
        set(&format!("master/tasks_{}", short(state)), count);
    }
    set("master/tasks_unreachable", unreachable_tasks);
    for name in RESOURCES {
        let (mut total, mut used) = (0.0, 0.0);
        for (_, agent) in state.agents().filter(|(_, agent)| agent.connected) {
            total += agent
                .total
                .amount(name)
                .map_or(0.0, |amount| amount.as_f64());
            used += agent
                .used
                .values()
                .filter_map(|resources| resources.amount(name))
                .map(|amount| amount.as_f64())
                .sum::<f64>();
        }
        metrics.set(&format!("master/{name}_total"), total);
        metrics.set(&format!("master/{name}_used"), used);
        let share = if total > 0.0 { used / total } else { 0.0 };
        metrics.set(&format!("master/{name}_percent"), share);
    }
}

#[cfg(test)]
mod tests {
    use meseta_protocol::TaskId;
    use meseta_protocol::status::{StatusReason, StatusSource};

    use super::*;

    #[test]
    fn ends_are_counted_by_the_names_that_dashboards_know() {
        let metrics = Metrics::default();
        let mut status = TaskStatus::new(TaskId::new("t"), TaskState::Lost)
            .because(StatusSource::Agent, StatusReason::AgentRestarted);
        count_end(&metrics, &status);
        status.reason = None;
        count_end(&metrics, &status);
        let unreachable = TaskStatus::new(TaskId::new("t"), TaskState::Unreachable)
            .because(StatusSource::Master, StatusReason::AgentRemoved);
        count_end(&metrics, &unreachable);
        let all: Vec<_> = metrics.snapshot().into_iter().collect();
        let expected = [
            ("master/task_lost/source_slave/reason_slave_restarted", 1.0),
            (
                "master/task_unreachable/source_master/reason_slave_removed",
                1.0,
            ),
            ("master/tasks_lost", 2.0),
        ];
        assert_eq!(
            all,
            expected.map(|(name, value)| (name.to_owned(), value.into()))
        );
    }

    #[test]
    fn reasons_in_which_agents_come_later_keep_their_names() {
        assert_eq!(former("REASON_INVALID_AGENTS"), "reason_invalid_agents");
        assert_eq!(
            former("REASON_CONTAINER_PREEMPTED"),
            "reason_container_preempted"
        );
    }
}
