//! `meseta-master`: flags, then a node with a master on it, until a signal or the master itself ends it.

use std::process::ExitCode;

use anyhow::Context as _;
use futures::FutureExt as _;
use futures::future::select_all;
use meseta_master::config::{Flags, Kept};
use meseta_master::election::members::Members;
use meseta_master::log::storage::ops::Storage;
use meseta_master::log::storage::{Settings, Store};
use meseta_master::{Config, Replicated};
use meseta_runtime::lock::DirectoryLock;
use meseta_runtime::{ExitReason, Node, Pid};

/// Where the log is, in the work directory.
const LOG_DIRECTORY: &str = "replicated_log";

fn main() -> ExitCode {
    let flags: Flags = meseta_runtime::flags::parse_node();
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
    // Before the node starts, since connections may then take all descriptors.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let told = {
        let _entered = runtime.enter();
        flags.node.told_to_end()?
    };
    let (node, parts) = match flags.kept()? {
        Kept::Replicated(members) => replicated(flags, config, members)?,
        Kept::InMemory => {
            let node = flags.builder()?.start()?;
            let master = meseta_master::start(&node, config)?;
            (node, vec![master])
        }
    };
    tracing::info!("master ready: http://{}/state", node.address());
    let ended = first_end(&node, parts);
    let code = runtime.block_on(async {
        tokio::select! {
            (part, reason) = ended => {
                tracing::error!(%part, ?reason, "the master has ended");
                ExitCode::FAILURE
            }
            _ = told => ExitCode::SUCCESS,
        }
    });
    node.shutdown();
    Ok(code)
}

/// A node with a master whose registry is in the replicated log, and what must live for it to go on.
fn replicated(
    flags: &Flags,
    config: Config,
    members: Option<Members>,
) -> anyhow::Result<(Node, Vec<Pid>)> {
    let directory = flags.work_dir.join(LOG_DIRECTORY);
    let store = Store::open(&directory, &Settings::default()).context("--work_dir")?;
    // One has the network, the log and the election, the other the master: a burst of work for it delays no heartbeat.
    let builder = flags.builder()?.threads(2);
    let node = Storage::from(store).serve(builder).start()?;
    let members = match members {
        Some(members) => members,
        None => Members::parse(&node.address().to_string(), None, node.address())?,
    };
    let auto = flags.log_auto_initialize;
    let master = Replicated::new(node.address(), config, members, auto, directory)?;
    let parts = master.start(&node)?;
    Ok((node, parts.to_vec()))
}

/// Which of these processes ends first, and why.
fn first_end(node: &Node, parts: Vec<Pid>) -> impl Future<Output = (Pid, ExitReason)> {
    let ends = parts
        .into_iter()
        .map(|part| node.ended(&part).map(|reason| (part, reason)).boxed());
    select_all(ends).map(|(first, ..)| first)
}
