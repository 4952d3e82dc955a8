//! The environment of an executor, and the executor that is made for a plain command.
//!
//! Pure: texts only. Nothing of the agent's own environment is passed on. Source: agent.md §4, §13; Mesos
//! `src/slave/slave.cpp` (`executorEnvironment`, `getExecutorInfo`).

use std::path::Path;
use std::time::Duration;

use meseta_protocol::common::{CommandInfo, VariableType};
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::launch::{EnvironmentEntry, LaunchCommand};
use meseta_protocol::resources::{Resource, Resources, Scalar};
use meseta_protocol::task::TaskInfo;
use meseta_protocol::{AgentId, FrameworkId};
use meseta_runtime::Pid;

/// Search path of an executor when nobody gives one.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Time between the polite signal and the final one when a task does not say.
pub const DEFAULT_KILL_GRACE: Duration = Duration::from_secs(3);
/// What the agent adds to a command's own grace period, so that its executor ends first.
const COMMAND_EXECUTOR_MARGIN: Duration = Duration::from_secs(2);
/// Longest text of a command in its executor's name.
const SHOWN_COMMAND: usize = 15;

/// A length of time as Mesos writes it: `5secs`, `1mins`, `1.5hrs`.
pub fn duration_text(length: Duration) -> String {
    const UNITS: [(u128, &str); 7] = [
        (604_800_000_000_000, "weeks"),
        (86_400_000_000_000, "days"),
        (3_600_000_000_000, "hrs"),
        (60_000_000_000, "mins"),
        (1_000_000_000, "secs"),
        (1_000_000, "ms"),
        (1_000, "us"),
    ];
    let nanoseconds = length.as_nanos();
    let Some((unit, name)) = UNITS.into_iter().find(|(unit, _)| nanoseconds >= *unit) else {
        return format!("{nanoseconds}ns");
    };
    let (whole, rest) = (nanoseconds / unit, nanoseconds % unit);
    if rest == 0 {
        return format!("{whole}{name}");
    }
    // Six digits are more than anybody writes in a flag.
    let fraction = format!("{:06}", rest * 1_000_000 / unit);
    format!("{whole}.{}{name}", fraction.trim_end_matches('0'))
}

/// What an executor is told of its surroundings.
#[derive(Debug, Clone)]
pub struct Surroundings<'a> {
    /// Variables that the operator gives to every executor.
    pub configured: &'a [EnvironmentEntry],
    /// Its framework.
    pub framework_id: &'a FrameworkId,
    /// The executor.
    pub executor: &'a ExecutorInfo,
    /// Its sandbox.
    pub sandbox: &'a Path,
    /// The agent.
    pub agent_id: &'a AgentId,
    /// The agent's PID.
    pub agent_pid: &'a Pid,
    /// Grace period of an executor that names none.
    pub shutdown_grace_period: Duration,
    /// What it shows over HTTP to prove that it is this executor.
    pub token: Option<String>,
    /// How long it is to wait for an agent that is gone; none when its framework does not checkpoint.
    pub recovery_timeout: Option<Duration>,
}

/// Longest time between two attempts of an executor to come back.
const SUBSCRIPTION_BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The executor's whole environment, in order; a later entry of the same name wins.
pub fn environment(about: &Surroundings<'_>) -> Vec<EnvironmentEntry> {
    let sandbox = about.sandbox.display().to_string();
    let grace = grace_period(about.executor, about.shutdown_grace_period);
    let mut all: Vec<EnvironmentEntry> = about.configured.to_vec();
    if !all.iter().any(|entry| entry.name == "PATH") {
        all.push(entry("PATH", DEFAULT_PATH));
    }
    all.extend([
        entry("LIBPROCESS_PORT", "0"),
        entry("MESOS_FRAMEWORK_ID", about.framework_id.as_str()),
        entry("MESOS_EXECUTOR_ID", about.executor.executor_id.as_str()),
        entry("MESOS_DIRECTORY", &sandbox),
        entry("MESOS_SANDBOX", &sandbox),
        entry("MESOS_SLAVE_ID", about.agent_id.as_str()),
        entry("MESOS_SLAVE_PID", &about.agent_pid.to_string()),
        entry(
            "MESOS_AGENT_ENDPOINT",
            &about.agent_pid.address().to_string(),
        ),
        entry(
            "MESOS_CHECKPOINT",
            if about.recovery_timeout.is_some() {
                "1"
            } else {
                "0"
            },
        ),
        entry("MESOS_HTTP_COMMAND_EXECUTOR", "0"),
        entry(
            "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD",
            &duration_text(grace),
        ),
    ]);
    if let Some(token) = &about.token {
        all.push(entry("MESOS_EXECUTOR_AUTHENTICATION_TOKEN", token));
    }
    if let Some(timeout) = about.recovery_timeout {
        all.extend([
            entry("MESOS_RECOVERY_TIMEOUT", &duration_text(timeout)),
            entry(
                "MESOS_SUBSCRIPTION_BACKOFF_MAX",
                &duration_text(SUBSCRIPTION_BACKOFF_MAX),
            ),
        ]);
    }
    let command = about.executor.command.as_ref();
    let own = command.and_then(|command| command.environment.as_ref());
    all.extend(
        own.iter()
            .flat_map(|environment| &environment.variables)
            .filter_map(|variable| {
                match variable.kind {
                    VariableType::Value => Some(entry(&variable.name, variable.value.as_deref()?)),
                    // There is no store of secrets yet; a name this version does not know is no text either.
                    VariableType::Secret | VariableType::Unknown => None,
                }
            }),
    );
    all
}

fn entry(name: &str, value: &str) -> EnvironmentEntry {
    EnvironmentEntry {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

/// How long an executor may take to end by itself.
pub fn grace_period(executor: &ExecutorInfo, default: Duration) -> Duration {
    executor
        .shutdown_grace_period
        .and_then(meseta_protocol::common::DurationInfo::to_std)
        .unwrap_or(default)
}

/// The program a command means.
pub fn program(command: &CommandInfo) -> LaunchCommand {
    let value = command.value.clone().unwrap_or_default();
    if command.shell {
        return LaunchCommand {
            program: "/bin/sh".to_owned(),
            arguments: vec!["sh".to_owned(), "-c".to_owned(), value],
        };
    }
    let mut arguments = command.arguments.clone();
    if arguments.is_empty() {
        arguments.push(value.clone());
    }
    LaunchCommand {
        program: value,
        arguments,
    }
}

/// The executor that runs a task with a command: its id is the task's, and it has 0.1 cpus and 32 MB that nobody is
/// offered or charged for.
pub fn command_executor(
    framework_id: &FrameworkId,
    task: &TaskInfo,
    executor_program: &str,
) -> ExecutorInfo {
    let command = task.command.clone().unwrap_or_default();
    let role = task
        .resources
        .iter()
        .find_map(|resource| resource.allocation.clone());
    let own: Resources = [
        Resource::scalar("cpus", Scalar::from_thousandths(100)),
        Resource::scalar("mem", Scalar::whole(32)),
    ]
    .into_iter()
    .collect();
    let grace = task
        .kill_policy
        .and_then(|policy| policy.grace_period)
        .and_then(meseta_protocol::common::DurationInfo::to_std)
        .unwrap_or(DEFAULT_KILL_GRACE);
    ExecutorInfo {
        executor_id: task.effective_executor_id(),
        framework_id: Some(framework_id.clone()),
        name: Some(command_executor_name(task, &command)),
        command: Some(CommandInfo {
            uris: command.uris,
            environment: command.environment,
            user: command.user,
            ..CommandInfo::exec::<String>(executor_program, [])
        }),
        container: task.container.clone(),
        resources: match role {
            Some(role) => own.allocated(&role),
            None => own,
        },
        shutdown_grace_period: Some((grace + COMMAND_EXECUTOR_MARGIN).into()),
        source: Some(task.task_id.to_string()),
        labels: task.labels.clone(),
        discovery: task.discovery.clone(),
        ..ExecutorInfo::default()
    }
}

fn command_executor_name(task: &TaskInfo, command: &CommandInfo) -> String {
    let value = command.value.as_deref().unwrap_or_default();
    let text = if command.shell {
        value.to_owned()
    } else {
        let arguments = command.arguments.get(1..).unwrap_or_default();
        std::iter::once(value)
            .chain(arguments.iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let shown = if text.chars().count() > SHOWN_COMMAND {
        let start: String = text.chars().take(SHOWN_COMMAND - 3).collect();
        format!("{start}...")
    } else {
        text
    };
    let shown = if command.shell {
        format!("sh -c '{shown}'")
    } else {
        shown
    };
    format!(
        "Command Executor (Task: {}) (Command: {shown})",
        task.task_id
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn lengths_read_as_in_mesos() {
        for (milliseconds, text) in [
            (0, "0ns"),
            (5_000, "5secs"),
            (60_000, "1mins"),
            (90_000, "1.5mins"),
            (250, "250ms"),
            (3_600_000, "1hrs"),
            (604_800_000, "1weeks"),
        ] {
            assert_eq!(duration_text(Duration::from_millis(milliseconds)), text);
        }
    }

    fn task() -> TaskInfo {
        let resources: Resources = "cpus:1".parse().unwrap();
        TaskInfo::new(
            "t",
            "a",
            resources.allocated(&"web".into()),
            "sleep 1000 && echo done",
        )
    }

    #[test]
    fn an_executor_is_told_the_published_names_and_nothing_else() {
        let mut executor = command_executor(&"f".into(), &task(), "/x/meseta-executor");
        executor.command = Some(
            CommandInfo::shell("run")
                .with_variable("MINE", "1")
                .with_variable("MESOS_CHECKPOINT", "wins"),
        );
        let configured = [entry("SITE", "s"), entry("MESOS_SLAVE_ID", "loses")];
        let all = environment(&Surroundings {
            configured: &configured,
            framework_id: &"f".into(),
            executor: &executor,
            sandbox: Path::new("/w/box"),
            agent_id: &"m-S0".into(),
            agent_pid: &"slave(1)@10.0.0.2:5051".parse().unwrap(),
            token: Some("a.b.c".to_owned()),
            shutdown_grace_period: Duration::from_secs(5),
            recovery_timeout: Some(Duration::from_secs(900)),
        });
        let seen: BTreeMap<&str, &str> = all.iter().map(|e| (&*e.name, &*e.value)).collect();
        let expected: BTreeMap<&str, &str> = [
            ("SITE", "s"),
            ("PATH", DEFAULT_PATH),
            ("LIBPROCESS_PORT", "0"),
            ("MESOS_EXECUTOR_AUTHENTICATION_TOKEN", "a.b.c"),
            ("MESOS_FRAMEWORK_ID", "f"),
            ("MESOS_EXECUTOR_ID", "t"),
            ("MESOS_DIRECTORY", "/w/box"),
            ("MESOS_SANDBOX", "/w/box"),
            ("MESOS_SLAVE_ID", "m-S0"),
            ("MESOS_SLAVE_PID", "slave(1)@10.0.0.2:5051"),
            ("MESOS_AGENT_ENDPOINT", "10.0.0.2:5051"),
            ("MESOS_CHECKPOINT", "wins"),
            ("MESOS_HTTP_COMMAND_EXECUTOR", "0"),
            ("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", "5secs"),
            ("MESOS_RECOVERY_TIMEOUT", "15mins"),
            ("MESOS_SUBSCRIPTION_BACKOFF_MAX", "2secs"),
            ("MINE", "1"),
        ]
        .into();
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_command_gets_an_executor_of_its_own() {
        let executor = command_executor(&"f".into(), &task(), "/x/meseta-executor");
        assert_eq!(executor.executor_id.as_str(), "t");
        assert_eq!(
            executor.name.as_deref(),
            Some("Command Executor (Task: t) (Command: sh -c 'sleep 1000 &...')")
        );
        assert_eq!(
            executor.resources.cpus(),
            Some(Scalar::from_thousandths(100))
        );
        assert!(
            executor
                .resources
                .iter()
                .all(|r| r.allocation == Some("web".into()))
        );
        assert_eq!(
            grace_period(&executor, Duration::ZERO),
            Duration::from_secs(5)
        );
        let command = program(executor.command.as_ref().unwrap());
        assert_eq!(
            (&*command.program, &command.arguments[..]),
            ("/x/meseta-executor", &["/x/meseta-executor".to_owned()][..])
        );
        assert_eq!(
            program(&CommandInfo::shell("a b")).arguments,
            ["sh", "-c", "a b"]
        );
    }
}
