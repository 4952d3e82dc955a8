//! The command executor: runs the one command of one task and ends.
//!
//! [`core`] decides; here its effects become updates, timers and operations. The operations ([`operators`]) start
//! the process ([`spawn`]; one that is to become another user through the [launcher](crate::launch)), signal the tree below this program, and wait for its end; so
//! the node must belong to a program of which everything below is the task's, with orphans adopted
//! ([`process_tree::adopt_orphans`]).

pub mod core;

use meseta_protocol::TaskId;
use meseta_protocol::agent::AgentInfo;
use meseta_protocol::framework::FrameworkCapability;
use meseta_protocol::launch::{EnvironmentEntry, LaunchPlan};
use meseta_protocol::messages::executor::ExecutorSubscribed;
use meseta_protocol::status::TaskState;
use meseta_protocol::task::{KillPolicy, TaskGroupInfo, TaskInfo};
use meseta_runtime::{NodeBuilder, Op};
use tracing::{debug, error, warn};

use self::core::{Core, Effect, Input, Signal};
use crate::driver::{Executor, Handle};
use crate::environment::ExecutorEnvironment;
use crate::process_tree::{self, Exit};
use crate::spawn;

/// Starts a process by its plan; its process id when it runs.
pub struct StartProcess {
    /// Program and arguments of the launcher, for plans that need it.
    pub launcher: Vec<String>,
    /// What to run.
    pub plan: Box<LaunchPlan>,
}

impl Op for StartProcess {
    type Out = Result<i32, String>;
}

/// Waits for a process, then ends what it left behind.
pub struct AwaitEnd {
    /// Its process id.
    pub pid: i32,
}

impl Op for AwaitEnd {
    type Out = Result<Exit, String>;
}

/// Signals to all processes below this program.
pub struct SignalTree {
    /// Which signal.
    pub signal: Signal,
}

impl Op for SignalTree {
    type Out = Result<(), String>;
}

/// Adds what the command executor needs to a node: real processes.
pub fn operators(node: NodeBuilder) -> NodeBuilder {
    node.op(|op: StartProcess| {
        blocking(move || {
            let text = |error: std::io::Error| error.to_string();
            if spawn::is_enough_for(&op.plan) {
                return spawn::spawn(&op.plan).map_err(text);
            }
            let child = crate::launch::spawn_confirmed(&op.launcher, &op.plan).map_err(text)?;
            i32::try_from(child.id()).map_err(|_| "the process id is out of range".to_owned())
        })
    })
    .op(|op: AwaitEnd| blocking(move || process_tree::wait(op.pid).map_err(|e| e.to_string())))
    .op(|op: SignalTree| {
        blocking(move || {
            let signal = match op.signal {
                Signal::Term => nix::sys::signal::Signal::SIGTERM,
                Signal::Kill => nix::sys::signal::Signal::SIGKILL,
            };
            process_tree::signal(signal).map_err(|error| error.to_string())
        })
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(error.to_string()))
}

/// The executor.
pub struct CommandExecutor {
    core: Core,
    launcher: Vec<String>,
}

impl CommandExecutor {
    /// An executor whose task gets `inherited` and its own variables as environment and is started by `launcher`.
    pub fn new(
        environment: &ExecutorEnvironment,
        inherited: Vec<EnvironmentEntry>,
        launcher: Vec<String>,
    ) -> Self {
        let away = Some(environment.recovery_timeout).filter(|_| environment.checkpoint);
        let core = Core::new(inherited, environment.shutdown_grace_period);
        Self {
            core: core.lingering(away.unwrap_or_default()),
            launcher,
        }
    }

    fn step(&mut self, driver: &mut Handle<'_>, input: Input) {
        for effect in self.core.step(driver.now(), input) {
            match effect {
                Effect::Report(status) => driver.send_status(*status),
                Effect::Start(plan) => {
                    let launcher = self.launcher.clone();
                    driver.run(
                        StartProcess { launcher, plan },
                        |me: &mut Self, driver, out| {
                            me.step(driver, Input::Started(out));
                        },
                    );
                }
                Effect::Wait(pid) => {
                    driver.run(AwaitEnd { pid }, |me: &mut Self, driver, out| {
                        me.step(driver, Input::Ended(out));
                    });
                }
                Effect::Signal(signal) => {
                    driver.run(
                        SignalTree { signal },
                        move |_: &mut Self, _, out| match out {
                            Ok(()) => debug!(?signal, "task signalled"),
                            Err(error) => warn!(?signal, error, "the task cannot be signalled"),
                        },
                    );
                }
                Effect::Arm(timer, delay) => {
                    driver.after(delay, move |me: &mut Self, driver| {
                        me.step(driver, Input::Due(timer));
                    });
                }
                Effect::Stop => driver.stop(),
            }
        }
    }
}

impl Executor for CommandExecutor {
    fn registered(&mut self, driver: &mut Handle<'_>, registration: &ExecutorSubscribed) {
        let reports_killing = registration
            .framework_info
            .has(FrameworkCapability::TaskKillingState);
        self.step(driver, Input::Registered { reports_killing });
    }

    fn reregistered(&mut self, _: &mut Handle<'_>, agent: &AgentInfo) {
        debug!(hostname = agent.hostname, "the agent is back");
    }

    fn launch_task(&mut self, driver: &mut Handle<'_>, task: TaskInfo) {
        self.step(driver, Input::Launch(Box::new(task)));
    }

    fn launch_task_group(&mut self, driver: &mut Handle<'_>, _: TaskGroupInfo) {
        error!("the command executor runs no task groups: it shuts down");
        self.step(driver, Input::Shutdown);
    }

    fn kill_task(&mut self, driver: &mut Handle<'_>, id: &TaskId, policy: Option<KillPolicy>) {
        self.step(driver, Input::Kill(id.clone(), policy));
    }

    fn acknowledged(&mut self, driver: &mut Handle<'_>, task_id: &TaskId, state: TaskState) {
        self.step(driver, Input::Acknowledged(task_id.clone(), state));
    }

    fn shutdown(&mut self, driver: &mut Handle<'_>) {
        self.step(driver, Input::Shutdown);
    }
}
