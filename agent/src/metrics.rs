//! What the agent shows of itself at `/metrics/snapshot`, under the names dashboards know. All are there from the start,
//! since tools read groups of them as a whole.

use std::collections::BTreeMap;
use std::time::Duration;

use meseta_protocol::status::TaskState;
use meseta_runtime::Metrics;

use crate::agent::Agent;
use crate::executors::Phase;
use crate::registration;

const COUNTERS: &[&str] = &[
    "slave/tasks_finished",
    "slave/tasks_failed",
    "slave/tasks_killed",
    "slave/tasks_lost",
    "slave/tasks_gone",
    "slave/executors_terminated",
    "slave/valid_status_updates",
    "slave/invalid_status_updates",
    "slave/valid_framework_messages",
    "slave/invalid_framework_messages",
    "slave/container_launch_errors",
    "slave/recovery_errors",
    "containerizer/mesos/container_destroy_errors",
    "gc/path_removals_succeeded",
    "gc/path_removals_failed",
];

/// Of what there is nothing of yet: files fetched for tasks, images, providers of resources, executors that give way to
/// others. They stay at zero.
const WITHOUT_SUBJECT: &[&str] = &[
    "containerizer/fetcher/task_fetches_succeeded",
    "containerizer/fetcher/task_fetches_failed",
    "containerizer/mesos/provisioner/remove_container_errors",
    "containerizer/mesos/provisioner/bind/remove_rootfs_errors",
    "resource_provider_manager/events/subscribe",
    "resource_provider_manager/events/disconnect",
    "slave/executors_preempted",
];
const GAUGES: &[&str] = &[
    "containerizer/fetcher/cache_size_total_bytes",
    "containerizer/fetcher/cache_size_used_bytes",
    "resource_provider_manager/subscribed",
    "slave/recovery_time_secs",
];

const RESOURCES: [&str; 4] = ["cpus", "gpus", "mem", "disk"];

/// Makes what has not counted anything yet, and what there is nothing of.
pub(crate) fn declare(metrics: &Metrics) {
    metrics.counters(COUNTERS);
    metrics.counters(WITHOUT_SUBJECT);
    metrics.gauges(GAUGES);
    for name in RESOURCES {
        metrics
            .gauges(["total", "used", "percent"].map(|of| format!("slave/{name}_revocable_{of}")));
    }
}

/// The part of a state's name that metrics use: `running` for TASK_RUNNING.
fn short(state: TaskState) -> String {
    state.name().trim_start_matches("TASK_").to_lowercase()
}

/// Counts an update that ends a task.
pub(crate) fn count_end(metrics: &Metrics, state: TaskState) {
    if state.is_terminal() {
        metrics.count(&format!("slave/tasks_{}", short(state)));
    }
}

/// Publishes the gauges.
pub(crate) fn publish(metrics: &Metrics, agent: &Agent, uptime: Duration) {
    let set = |name: &str, value: usize| {
        metrics.set(name, u32::try_from(value).map_or(f64::MAX, f64::from));
    };
    let registered = agent.registration.phase() == registration::Phase::Running;
    metrics.set("slave/uptime_secs", uptime.as_secs_f64());
    set("slave/registered", usize::from(registered));
    set("slave/frameworks_active", agent.tables.frameworks.len());
    set("gc/path_removals_pending", agent.removals_pending());
    metrics.set(
        "slave/executor_directory_max_allowed_age_secs",
        agent.max_sandbox_age().as_secs_f64(),
    );
    let mut tasks: BTreeMap<TaskState, usize> = [
        TaskState::Staging,
        TaskState::Starting,
        TaskState::Running,
        TaskState::Killing,
    ]
    .map(|state| (state, 0))
    .into();
    let mut executors: BTreeMap<Phase, usize> = BTreeMap::new();
    for (_, _, executor) in agent.tables.executors() {
        *executors.entry(executor.phase).or_default() += 1;
        *tasks.entry(TaskState::Staging).or_default() += executor.queued.len();
        for task in executor.launched.values() {
            *tasks.entry(task.state).or_default() += 1;
        }
    }
    for (state, count) in tasks {
        set(&format!("slave/tasks_{}", short(state)), count);
    }
    for (phase, name) in [
        (Phase::Registering, "registering"),
        (Phase::Running, "running"),
        (Phase::Terminating, "terminating"),
    ] {
        let count = executors.get(&phase).copied().unwrap_or_default();
        set(&format!("slave/executors_{name}"), count);
    }
    let held = agent.tables.resources();
    for name in RESOURCES {
        let amount = |of: &meseta_protocol::resources::Resources| {
            of.amount(name).map_or(0.0, |amount| amount.as_f64())
        };
        let (total, used) = (amount(&agent.info.resources), amount(&held));
        metrics.set(&format!("slave/{name}_total"), total);
        metrics.set(&format!("slave/{name}_used"), used);
        let share = if total > 0.0 { used / total } else { 0.0 };
        metrics.set(&format!("slave/{name}_percent"), share);
    }
}
