//! `meseta-agent`: flags, node, agent; ends on signals.
//!
//! On SIGTERM it just ends, as a restart of its service or an upgrade wants it: the executors of frameworks that
//! checkpoint run on, and the next run of the agent finds them. So it does when the program that supervises it is gone:
//! nobody has said that its tasks are not wanted any more. On SIGUSR1 and SIGINT (Ctrl-C) it leaves the cluster for good
//! and takes everything along. Exit codes: 0 after a clean end, 1 when the agent cannot start or go on, 2 for bad flags.

use std::process::ExitCode;

use anyhow::Context as _;
use meseta_agent::{Config, Flags};
use meseta_runtime::flags::{NodeFlags, ToldToEnd};
use meseta_runtime::identity::Identity;
use meseta_runtime::lock::DirectoryLock;
use meseta_runtime::{Credentials, ExitReason, Node, NodeBuilder, Pid, error_chain};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

const PORT: u16 = 5051;

fn main() -> ExitCode {
    let flags: Flags = meseta_runtime::flags::parse_node();
    flags.node.init_logging();
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = %error_chain(error.as_ref()), "the agent ends");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> anyhow::Result<()> {
    let _lock = DirectoryLock::take(&flags.work_dir).context("--work_dir")?;
    let mut config = flags.config(&meseta_agent::resources::detect(&flags.work_dir))?;
    // Given back to whatever is started: a task may not be able to count further.
    config.open_files = meseta_runtime::descriptors::raise_or_warn();
    anyhow::ensure!(
        std::path::Path::new(&config.executor_command).exists(),
        "--launcher_dir: there is no {}: build it, or name the directory it is in",
        config.executor_command
    );
    config.executor_tokens = flags.executor_tokens()?;
    let builder = identified(flags, &mut config)?;
    let builder = flags.serve_http(builder, config.executor_tokens.clone())?;
    // An executor of the last run that came before its key is read would be refused.
    let node = meseta_agent::operators(meseta_agent::guests(builder, &config))
        .opens_when_told()
        .start()
        .context("the node did not start")?;
    let outcome = config.outcome.clone();
    let ended = serve(&flags.node, &node, config);
    node.shutdown();
    ended?;
    match outcome.fatal() {
        Some(reason) => anyhow::bail!("{reason}"),
        None => Ok(()),
    }
}

/// The node's settings with its identity read, since executors are told by which authority to know the agent.
fn identified(flags: &Flags, config: &mut Config) -> anyhow::Result<NodeBuilder> {
    let builder = flags.node.builder("agent", PORT)?;
    let identity = match flags.node.credentials()? {
        Credentials::Files {
            ca,
            certificate,
            key,
        } => Identity::from_files(&ca, &certificate, &key)?,
        Credentials::Given(identity) => *identity,
        // The node itself refuses to go beyond this machine with a development certificate.
        Credentials::Development if !flags.node.is_loopback() => return Ok(builder),
        Credentials::Development => Identity::development("agent", &[flags.node.host()])?,
    };
    config.ca = identity
        .authorities()
        .first()
        .map(|authority| authority.to_vec())
        .unwrap_or_default();
    Ok(builder.credentials(Credentials::Given(Box::new(identity))))
}

/// Runs the agent until it ends or a signal says so.
fn serve(flags: &NodeFlags, node: &Node, config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut leave = signal(SignalKind::user_defined1())?;
        let told = flags.told_to_end()?;
        let agent = meseta_agent::start(node, config).context("the agent did not start")?;
        // In this order: the last one hears of SIGTERM too.
        let reason = tokio::select! {
            biased;
            reason = node.ended(&agent) => reason,
            _ = terminate.recv() => end_alone(),
            _ = leave.recv() => leave_cluster(node, &agent).await,
            told = told => match told {
                ToldToEnd::SupervisorGone => end_alone(),
                ToldToEnd::BySignal => leave_cluster(node, &agent).await,
            },
        };
        match reason {
            ExitReason::Panic(text) => anyhow::bail!("the agent panicked: {text}"),
            ExitReason::Failed(text) => anyhow::bail!("the agent failed: {text}"),
            ExitReason::Normal
            | ExitReason::Terminated
            | ExitReason::NoProcess
            | ExitReason::ConnectionLost
            | ExitReason::NodeRestarted
            | ExitReason::Unknown => Ok(()),
        }
    })
}

fn end_alone() -> ExitReason {
    info!("the agent ends; executors whose frameworks checkpoint wait for its next run");
    ExitReason::Terminated
}

async fn leave_cluster(node: &Node, agent: &Pid) -> ExitReason {
    info!("the agent leaves the cluster");
    meseta_agent::stop(node, agent).await
}
