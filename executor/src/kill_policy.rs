//! How long a task may take to stop, and when patience ends.
//!
//! Pure. Source: Mesos `src/launcher/executor.cpp` (`kill`, `shutdown`), `docs/task-state-reasons.md`.

use std::time::Duration;

use meseta_protocol::task::KillPolicy;
use meseta_runtime::Time;

/// Grace period of a task for which nobody named one.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(3);

/// What the task's grace period is shorter than the executor's when the executor itself has to end: the agent kills
/// what is left at the end of the executor's period, and the update on the task must have left by then.
pub const SHUTDOWN_MARGIN: Duration = Duration::from_secs(2);

/// The grace period that holds for a kill: the request's, else the task's, else [`DEFAULT_GRACE`]. One below zero,
/// which the master refuses, counts as none at all.
pub fn grace_period(request: Option<KillPolicy>, task: Option<KillPolicy>) -> Duration {
    let of = |policy: Option<KillPolicy>| {
        policy
            .and_then(|policy| policy.grace_period)
            .map(|length| length.to_std().unwrap_or(Duration::ZERO))
    };
    of(request).or_else(|| of(task)).unwrap_or(DEFAULT_GRACE)
}

/// The grace period of a task whose executor was told to end within `executor`.
pub fn shutdown_grace(executor: Duration) -> Duration {
    executor.saturating_sub(SHUTDOWN_MARGIN)
}

/// A kill under way: asked politely at `began`, by force at `deadline`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Escalation {
    began: Time,
    deadline: Time,
}

impl Escalation {
    /// A kill that begins now.
    pub fn begin(now: Time, grace: Duration) -> Self {
        Self {
            began: now,
            deadline: now + grace,
        }
    }

    /// Another request with its own grace period, counted from the first request. Gives the time that is left when
    /// that is shorter than before; a later request never makes a task live longer.
    pub fn again(&mut self, now: Time, grace: Duration) -> Option<Duration> {
        let deadline = self.began + grace;
        (deadline < self.deadline).then(|| {
            self.deadline = deadline;
            deadline.since(now)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn policy(grace: Duration) -> Option<KillPolicy> {
        Some(KillPolicy {
            grace_period: Some(grace.into()),
        })
    }

    #[test]
    fn the_request_wins_over_the_task_and_the_task_over_the_default() {
        let empty = Some(KillPolicy::default());
        assert_eq!(
            grace_period(policy(seconds(1)), policy(seconds(2))),
            seconds(1)
        );
        assert_eq!(grace_period(empty, policy(seconds(2))), seconds(2));
        assert_eq!(grace_period(None, empty), DEFAULT_GRACE);
        assert_eq!(shutdown_grace(seconds(5)), seconds(3));
        assert_eq!(shutdown_grace(seconds(1)), Duration::ZERO);
    }

    #[test]
    fn a_later_request_only_shortens_and_elapsed_time_counts() {
        let mut kill = Escalation::begin(Time::ZERO, seconds(10));
        let now = Time::ZERO + seconds(4);
        assert_eq!(kill.again(now, seconds(20)), None);
        assert_eq!(kill.again(now, seconds(6)), Some(seconds(2)));
        assert_eq!(kill.again(now, seconds(1)), Some(Duration::ZERO));
        assert_eq!(kill.again(now, seconds(1)), None);
    }
}
