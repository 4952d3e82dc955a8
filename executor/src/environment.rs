//! What an agent tells an executor by its environment.
//!
//! Pure: the variables come from a function. Source: Mesos `src/executor/executor.cpp`, `3rdparty/stout/duration.hpp`.

use std::path::PathBuf;
use std::time::Duration;

use meseta_protocol::{AgentId, ExecutorId, FrameworkId};
use meseta_runtime::Pid;

/// Names the inherited descriptor from which an executor reads its
/// [`ExecutorCredential`](meseta_protocol::launch::ExecutorCredential).
pub const CREDENTIAL_FD: &str = "MESETA_EXECUTOR_CREDENTIAL_FD";

const DEFAULT_SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
const DEFAULT_RECOVERY_TIMEOUT: Duration = Duration::from_secs(15 * 60);
const DEFAULT_SUBSCRIPTION_BACKOFF: Duration = Duration::from_secs(2);

/// What holds an executor to its word after it was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// The whole process tree of this program is killed: right for a program that is an executor.
    KillProcessTree,
    /// Only the driver ends: right for an executor inside a larger program, such as a test.
    StopDriver,
}

/// All that an executor is told at its start.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecutorEnvironment {
    /// `MESOS_FRAMEWORK_ID`: its framework.
    pub framework_id: FrameworkId,
    /// `MESOS_EXECUTOR_ID`: the executor.
    pub executor_id: ExecutorId,
    /// `MESOS_SLAVE_ID`: the agent.
    pub agent_id: AgentId,
    /// `MESOS_SLAVE_PID`: the agent's PID.
    pub agent: Pid,
    /// The id part of the executor's own PID; from its credential.
    pub process_id: String,
    /// `MESOS_DIRECTORY`: the sandbox.
    pub directory: PathBuf,
    /// `MESOS_CHECKPOINT`: whether to wait for an agent that is lost.
    pub checkpoint: bool,
    /// `MESOS_RECOVERY_TIMEOUT`: how long to wait for it; 15 min when missing.
    pub recovery_timeout: Duration,
    /// `MESOS_SUBSCRIPTION_BACKOFF_MAX`: longest time between two attempts; 2 s when missing.
    pub subscription_backoff_max: Duration,
    /// `MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD`: how long a shutdown may take; 5 s when missing.
    pub shutdown_grace_period: Duration,
    /// What happens when it takes longer.
    pub guard: Guard,
}

/// Why a program cannot be an executor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// A variable is not set.
    #[error(
        "the environment variable {0} is not set: an executor is run by an agent, which sets it; to try one out, \
         launch a task on a local cluster"
    )]
    Missing(&'static str),
    /// A variable cannot be read.
    #[error("the environment variable {name} is `{value}`: {expected} expected")]
    Invalid {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
}

impl ExecutorEnvironment {
    /// An environment with the usual times, for executors inside a larger program. The executor's PID gets the id
    /// `executor-<executor id>`.
    pub fn new(
        framework_id: impl Into<FrameworkId>,
        executor_id: impl Into<ExecutorId>,
        agent_id: impl Into<AgentId>,
        agent: Pid,
    ) -> Self {
        let executor_id = executor_id.into();
        Self {
            framework_id: framework_id.into(),
            process_id: format!("executor-{executor_id}"),
            executor_id,
            agent_id: agent_id.into(),
            agent,
            directory: PathBuf::from("."),
            checkpoint: false,
            recovery_timeout: DEFAULT_RECOVERY_TIMEOUT,
            subscription_backoff_max: DEFAULT_SUBSCRIPTION_BACKOFF,
            shutdown_grace_period: DEFAULT_SHUTDOWN_GRACE,
            guard: Guard::StopDriver,
        }
    }

    /// Reads the variables an agent sets.
    ///
    /// # Errors
    /// [`EnvironmentError`], naming the variable.
    pub fn read(
        process_id: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, EnvironmentError> {
        let needed = |name| variable(name).ok_or(EnvironmentError::Missing(name));
        let invalid = |name, value, expected| EnvironmentError::Invalid {
            name,
            value,
            expected,
        };
        let length = |name, default| match variable(name) {
            None => Ok(default),
            Some(text) => parse_duration(&text)
                .ok_or_else(|| invalid(name, text, "a length of time such as 5secs")),
        };
        let agent = needed("MESOS_SLAVE_PID")?;
        let agent = agent
            .parse()
            .map_err(|_| invalid("MESOS_SLAVE_PID", agent, "a PID such as slave(1)@host:5051"))?;
        Ok(Self {
            agent,
            checkpoint: variable("MESOS_CHECKPOINT").is_some_and(|value| value == "1"),
            recovery_timeout: length("MESOS_RECOVERY_TIMEOUT", DEFAULT_RECOVERY_TIMEOUT)?,
            subscription_backoff_max: length(
                "MESOS_SUBSCRIPTION_BACKOFF_MAX",
                DEFAULT_SUBSCRIPTION_BACKOFF,
            )?,
            shutdown_grace_period: length(
                "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD",
                DEFAULT_SHUTDOWN_GRACE,
            )?,
            directory: PathBuf::from(needed("MESOS_DIRECTORY")?),
            framework_id: FrameworkId::new(needed("MESOS_FRAMEWORK_ID")?),
            executor_id: ExecutorId::new(needed("MESOS_EXECUTOR_ID")?),
            agent_id: AgentId::new(needed("MESOS_SLAVE_ID")?),
            process_id: process_id.to_owned(),
            guard: Guard::KillProcessTree,
        })
    }
}

/// A length of time as agents write it: a number, perhaps with a fraction, and a unit, as in `5secs` or `1.5mins`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(unit_at);
    let number: f64 = number.parse().ok()?;
    let seconds = match unit {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "secs" => 1.0,
        "mins" => 60.0,
        "hrs" => 3_600.0,
        "days" => 86_400.0,
        "weeks" => 604_800.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(name: &str) -> Option<String> {
        let value = match name {
            "MESOS_FRAMEWORK_ID" => "f",
            "MESOS_EXECUTOR_ID" => "e",
            "MESOS_SLAVE_ID" => "s",
            "MESOS_SLAVE_PID" => "slave(1)@127.0.0.1:5051",
            "MESOS_DIRECTORY" => "/sandbox",
            "MESOS_CHECKPOINT" => "1",
            "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD" => "1.5secs",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn reads_what_the_agent_sets_and_names_what_is_missing() {
        let read = ExecutorEnvironment::read("executor-c", given).unwrap();
        assert_eq!(
            (read.checkpoint, read.process_id.as_str()),
            (true, "executor-c")
        );
        assert_eq!(read.shutdown_grace_period, Duration::from_millis(1500));
        assert_eq!(read.recovery_timeout, DEFAULT_RECOVERY_TIMEOUT);
        for name in [
            "MESOS_FRAMEWORK_ID",
            "MESOS_EXECUTOR_ID",
            "MESOS_SLAVE_ID",
            "MESOS_SLAVE_PID",
            "MESOS_DIRECTORY",
        ] {
            let without = |asked: &str| given(asked).filter(|_| asked != name);
            let error = ExecutorEnvironment::read("executor-c", without).unwrap_err();
            assert_eq!(error, EnvironmentError::Missing(name));
        }
    }

    #[test]
    fn lengths_of_time_have_a_number_and_a_unit() {
        assert_eq!(parse_duration("15mins"), Some(Duration::from_secs(900)));
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        for bad in ["", "5", "secs", "5 secs", "-1secs", "5lightyears"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
