//! What the master shows of itself at `/metrics/snapshot`, under the names dashboards know.

use std::collections::BTreeMap;
use std::time::Duration;

use meseta_protocol::status::{TaskState, TaskStatus};
use meseta_runtime::Metrics;

use crate::state::{Standing, State};

/// The part of a state's name that metrics use: `running` for TASK_RUNNING.
fn short(state: TaskState) -> String {
    state.name().trim_start_matches("TASK_").to_lowercase()
}

/// Counts an update that ends a task, or that the master itself has made.
pub(crate) fn count_status(metrics: &Metrics, status: &TaskStatus) {
    let state = short(status.state);
    if status.state.is_terminal() {
        metrics.count(&format!("master/tasks_{state}"));
    }
    if let (Some(source), Some(reason)) = (status.source, status.reason) {
        let source = source.name().to_lowercase();
        let reason = reason.name().to_lowercase();
        metrics.count(&format!("master/task_{state}/{source}/{reason}"));
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
    for name in ["cpus", "gpus", "mem", "disk"] {
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
