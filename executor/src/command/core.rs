//! What the command executor decides: one task, from its launch to the acknowledgement of its end.
//!
//! Pure: the shell is `mod.rs`. Source: Mesos `src/launcher/executor.cpp`.
//!
//! ```text
//! IDLE --launch--> STARTING --started--> RUNNING --ended--> OVER --acknowledged, or 60 s--> stop
//!                     |        failed: RUNNING is reported all the same, then FAILED          ^
//!                     +-----------------------------------------------------------------------+
//! kill, shutdown and max_completion_time only add `killing`; the end decides what is reported.
//! ```
//!
//! Invariant: the last report is made after [`Input::Ended`], which the shell gives when nothing of the task's
//! process tree is left, or when there never was a process.
//!
//! Health checks and checks will be a machine of their own beside this one, fed by the same shell: paused by
//! `kill`, and with a kill of their own.

use std::time::Duration;

use meseta_protocol::TaskId;
use meseta_protocol::common::VariableType;
use meseta_protocol::launch::{EnvironmentEntry, LaunchCommand, LaunchPlan};
use meseta_protocol::status::{StatusReason, TaskState, TaskStatus};
use meseta_protocol::task::{KillPolicy, TaskInfo};
use meseta_runtime::Time;
use meseta_runtime::planted::mistake;

use crate::environment::CREDENTIAL_FD;
use crate::kill_policy::{Escalation, grace_period, shutdown_grace};
use crate::process_tree::Exit;

/// How long to wait for the acknowledgement of the last update.
pub const LINGER: Duration = Duration::from_secs(60);

/// A signal to the whole tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ask it to end.
    Term,
    /// End it.
    Kill,
}

/// A pending timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// The grace period of the kill with this number.
    Grace(u64),
    /// `max_completion_time`.
    Completion,
    /// [`LINGER`].
    Linger,
}

/// What happens to the executor.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The agent knows the executor; whether the framework understands TASK_KILLING.
    Registered {
        /// Whether it does.
        reports_killing: bool,
    },
    /// Run this task.
    Launch(Box<TaskInfo>),
    /// The process runs, or why it does not.
    Started(Result<i32, String>),
    /// The process has ended and nothing it left behind lives; or why that cannot be known.
    Ended(Result<Exit, String>),
    /// Stop this task.
    Kill(TaskId, Option<KillPolicy>),
    /// Stop what runs and end.
    Shutdown,
    /// An update in this state is safe with the agent.
    Acknowledged(TaskId, TaskState),
    /// A timer ran out.
    Due(Timer),
}

/// What has to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Report on a task.
    Report(Box<TaskStatus>),
    /// Start a process, then give [`Input::Started`].
    Start(Box<LaunchPlan>),
    /// Wait for this process and end what it leaves behind, then give [`Input::Ended`].
    Wait(i32),
    /// Signal to all processes of the task.
    Signal(Signal),
    /// Give [`Input::Due`] later.
    Arm(Timer, Duration),
    /// End the executor.
    Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Running,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Killing {
    escalation: Escalation,
    signal: Signal,
    /// Number of its grace timer.
    timer: u64,
}

#[derive(Debug, Clone)]
struct Running {
    task_id: TaskId,
    policy: Option<KillPolicy>,
    max_completion_time: Option<Duration>,
    phase: Phase,
    killing: Option<Killing>,
    overdue: bool,
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Core {
    inherited: Vec<EnvironmentEntry>,
    shutdown_grace_period: Duration,
    reports_killing: bool,
    linger: Duration,
    task: Option<Running>,
}

impl Core {
    /// An executor without a task. `inherited` is its own environment, `shutdown_grace_period` the agent's patience.
    pub fn new(inherited: Vec<EnvironmentEntry>, shutdown_grace_period: Duration) -> Self {
        Self {
            inherited,
            shutdown_grace_period,
            reports_killing: false,
            linger: LINGER,
            task: None,
        }
    }

    /// Waits at least this long for the acknowledgement of the last update: an agent that is away may come back for it.
    #[must_use]
    pub fn lingering(mut self, at_least: Duration) -> Self {
        self.linger = self.linger.max(at_least);
        self
    }

    /// Applies one input. Effects are carried out in order.
    pub fn step(&mut self, now: Time, input: Input) -> Vec<Effect> {
        match input {
            Input::Registered { reports_killing } => {
                self.reports_killing = reports_killing;
                Vec::new()
            }
            Input::Launch(task) => self.launch(*task),
            Input::Started(outcome) => self.started(outcome),
            Input::Ended(outcome) => self.ended(outcome),
            Input::Kill(task_id, policy) => match &self.task {
                Some(task) if task.task_id == task_id => {
                    let grace = grace_period(policy, task.policy);
                    self.kill(now, grace, true)
                }
                Some(_) | None => Vec::new(),
            },
            Input::Shutdown => match &self.task {
                None => vec![Effect::Stop],
                Some(_) => self.kill(now, shutdown_grace(self.shutdown_grace_period), true),
            },
            Input::Acknowledged(task_id, state) => self.acknowledged(&task_id, state),
            Input::Due(Timer::Grace(number)) => self.grace_over(number),
            Input::Due(Timer::Completion) => self.overdue(now),
            Input::Due(Timer::Linger) => vec![Effect::Stop],
        }
    }

    fn launch(&mut self, task: TaskInfo) -> Vec<Effect> {
        if self.task.is_some() {
            let status = TaskStatus::new(task.task_id, TaskState::Failed);
            let text = "Attempted to run multiple tasks using a \"command\" executor";
            return vec![report(status.saying(text))];
        }
        let plan = plan(&task, &self.inherited);
        self.task = Some(Running {
            task_id: task.task_id.clone(),
            policy: task.kill_policy,
            max_completion_time: task.max_completion_time.and_then(|length| length.to_std()),
            phase: Phase::Starting,
            killing: None,
            overdue: false,
        });
        let starting = report(TaskStatus::new(task.task_id, TaskState::Starting));
        let mut effects = vec![starting];
        match plan {
            Ok(plan) => {
                if mistake("executor starts a task twice") {
                    effects.push(Effect::Start(Box::new(plan.clone())));
                }
                effects.push(Effect::Start(Box::new(plan)));
                let limit = self.task.as_ref().and_then(|task| task.max_completion_time);
                effects.extend(limit.map(|limit| Effect::Arm(Timer::Completion, limit)));
            }
            Err(reason) => effects.extend(self.started(Err(reason))),
        }
        effects
    }

    fn started(&mut self, outcome: Result<i32, String>) -> Vec<Effect> {
        let Some(task) = self.task.as_mut().filter(|t| t.phase == Phase::Starting) else {
            return Vec::new();
        };
        task.phase = Phase::Running;
        let mut effects = Vec::new();
        // A task never goes back from KILLING to RUNNING.
        if task.killing.is_none() {
            let running = TaskStatus::new(task.task_id.clone(), TaskState::Running);
            effects.push(report(running));
        }
        match outcome {
            Ok(pid) => {
                effects.push(Effect::Wait(pid));
                effects.extend(task.killing.map(|killing| Effect::Signal(killing.signal)));
            }
            Err(reason) => effects.extend(self.ended(Err(reason))),
        }
        effects
    }

    fn kill(&mut self, now: Time, grace: Duration, tell: bool) -> Vec<Effect> {
        let Some(task) = self.task.as_mut().filter(|t| t.phase != Phase::Over) else {
            return Vec::new();
        };
        let running = task.phase == Phase::Running;
        let mut effects = Vec::new();
        let wait = match &mut task.killing {
            Some(killing) => match killing.escalation.again(now, grace) {
                Some(left) if killing.signal == Signal::Term => {
                    killing.timer += 1;
                    left
                }
                Some(_) | None => return effects,
            },
            None => {
                task.killing = Some(Killing {
                    escalation: Escalation::begin(now, grace),
                    signal: Signal::Term,
                    timer: 0,
                });
                if tell && self.reports_killing {
                    let killing = TaskStatus::new(task.task_id.clone(), TaskState::Killing);
                    effects.push(report(killing));
                    if mistake("executor goes back to running") {
                        let running = TaskStatus::new(task.task_id.clone(), TaskState::Running);
                        effects.push(report(running));
                    }
                }
                if running && !grace.is_zero() {
                    effects.push(Effect::Signal(Signal::Term));
                }
                grace
            }
        };
        let number = task.killing.map_or(0, |killing| killing.timer);
        if wait.is_zero() {
            effects.extend(self.grace_over(number));
        } else {
            effects.push(Effect::Arm(Timer::Grace(number), wait));
        }
        effects
    }

    fn grace_over(&mut self, number: u64) -> Vec<Effect> {
        let Some(task) = self.task.as_mut().filter(|t| t.phase != Phase::Over) else {
            return Vec::new();
        };
        match &mut task.killing {
            Some(killing) if killing.timer == number && killing.signal == Signal::Term => {
                killing.signal = Signal::Kill;
                match task.phase {
                    Phase::Running => vec![Effect::Signal(Signal::Kill)],
                    // Sent as soon as there is somebody to send it to.
                    Phase::Starting | Phase::Over => Vec::new(),
                }
            }
            Some(_) | None => Vec::new(),
        }
    }

    fn overdue(&mut self, now: Time) -> Vec<Effect> {
        match self.task.as_mut() {
            // A kill that is under way cancels the timer.
            Some(task) if task.phase != Phase::Over && task.killing.is_none() => {
                task.overdue = true;
                self.kill(now, Duration::ZERO, false)
            }
            Some(_) | None => Vec::new(),
        }
    }

    fn ended(&mut self, outcome: Result<Exit, String>) -> Vec<Effect> {
        let Some(task) = self.task.as_mut().filter(|t| t.phase != Phase::Over) else {
            return Vec::new();
        };
        task.phase = Phase::Over;
        let state = if task.overdue {
            TaskState::Failed
        } else if task.killing.is_some() {
            TaskState::Killed
        } else if outcome == Ok(Exit::Status(0)) {
            TaskState::Finished
        } else {
            TaskState::Failed
        };
        let text = match outcome {
            Ok(Exit::Status(status)) => format!("Command exited with status {status}"),
            Ok(Exit::Signal(signal)) => {
                format!("Command terminated with signal {}", signal_name(signal))
            }
            Err(reason) => reason,
        };
        let mut status = TaskStatus::new(task.task_id.clone(), state).saying(text);
        if task.overdue {
            status.reason = Some(StatusReason::MaxCompletionTimeReached);
        }
        vec![report(status), Effect::Arm(Timer::Linger, self.linger)]
    }

    fn acknowledged(&self, task_id: &TaskId, state: TaskState) -> Vec<Effect> {
        match &self.task {
            Some(task) if task.task_id == *task_id && state.is_terminal() => vec![Effect::Stop],
            Some(_) | None => Vec::new(),
        }
    }
}

fn report(status: TaskStatus) -> Effect {
    Effect::Report(Box::new(status))
}

/// The process of a task. Output, directory and session stay the executor's, except that it always begins
/// a session.
fn plan(task: &TaskInfo, inherited: &[EnvironmentEntry]) -> Result<LaunchPlan, String> {
    let Some(command) = &task.command else {
        return Err("The task has no command for the \"command\" executor to run".to_owned());
    };
    let Some(value) = command.value.clone() else {
        return Err("The task's command has no value".to_owned());
    };
    let run = if command.shell {
        LaunchCommand {
            program: "/bin/sh".to_owned(),
            arguments: vec!["sh".to_owned(), "-c".to_owned(), value],
        }
    } else {
        LaunchCommand {
            program: value,
            arguments: command.arguments.clone(),
        }
    };
    let mut environment: Vec<EnvironmentEntry> = inherited
        .iter()
        .filter(|entry| entry.name != CREDENTIAL_FD)
        .cloned()
        .collect();
    let variables = command.environment.iter().flat_map(|e| &e.variables);
    environment.extend(
        variables
            .filter(|variable| variable.kind == VariableType::Value)
            .map(|variable| EnvironmentEntry {
                name: variable.name.clone(),
                value: variable.value.clone().unwrap_or_default(),
            }),
    );
    let role = task.resources.iter().find_map(|r| r.allocation.as_ref());
    environment.extend(role.map(|role| EnvironmentEntry {
        name: "MESOS_ALLOCATION_ROLE".to_owned(),
        value: role.to_string(),
    }));
    Ok(LaunchPlan {
        command: run,
        environment,
        user: command.user.clone(),
        ..LaunchPlan::default()
    })
}

/// What the C library calls a signal, which is what users of Mesos know it by.
fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "Hangup",
        2 => "Interrupt",
        3 => "Quit",
        4 => "Illegal instruction",
        5 => "Trace/breakpoint trap",
        6 => "Aborted",
        7 => "Bus error",
        8 => "Floating point exception",
        9 => "Killed",
        10 => "User defined signal 1",
        11 => "Segmentation fault",
        12 => "User defined signal 2",
        13 => "Broken pipe",
        14 => "Alarm clock",
        15 => "Terminated",
        24 => "CPU time limit exceeded",
        25 => "File size limit exceeded",
        31 => "Bad system call",
        other => return format!("Unknown signal {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
