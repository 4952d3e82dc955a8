//! `meseta-master`: flags, then a node with a master on it, until a signal or the master itself ends it.

use std::process::ExitCode;

use anyhow::Context as _;
use meseta_master::config::{DEFAULT_PORT, Flags};
use meseta_runtime::lock::DirectoryLock;

fn main() -> ExitCode {
    let flags: Flags = meseta_runtime::flags::parse();
    flags.node.init_logging();
    match run(&flags) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let _lock = DirectoryLock::take(&flags.work_dir).context("--work_dir")?;
    let config = flags.config()?;
    meseta_runtime::descriptors::raise_or_warn();
    let node = flags.node.builder("master", DEFAULT_PORT)?.start()?;
    let master = meseta_master::start(&node, config)?;
    tracing::info!(pid = %master, "master ready: http://{}/state", node.address());
    let ended = node.ended(&master);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let code = runtime.block_on(async {
        anyhow::Ok(tokio::select! {
            reason = ended => {
                tracing::error!(?reason, "the master has ended");
                ExitCode::FAILURE
            }
            told = flags.node.told_to_end() => {
                told?;
                ExitCode::SUCCESS
            }
        })
    })?;
    node.shutdown();
    Ok(code)
}
