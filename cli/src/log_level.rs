//! `meseta log-level`: shows what a node logs, or has it log otherwise for a time.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use meseta_runtime::logging::{LOGGING, LogFilter, ResetLogFilter, SetLogFilter, directives};
use meseta_runtime::{Address, Ask, Node, Pid};
use serde_json::Value;

use crate::client::{get_json, leader};
use crate::identity::Identity;

/// How long a node may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// What to log: a level, or a filter such as `info,meseta_master=debug`; shows what is in force when not given.
    directives: Option<String>,
    /// Master as host:port; of a list, or a file with one, the leader.
    #[arg(long, env = "MESETA_MASTER", default_value = "127.0.0.1:5050")]
    master: String,
    /// Agent, or any other node, as host:port, instead of the master.
    #[arg(long, env = "MESETA_AGENT", value_name = "AGENT")]
    agent: Option<String>,
    /// For how long, 1 second to 7 days; then the node logs again what its own flags say.
    #[arg(long = "for", env = "MESETA_FOR", default_value = "10mins", value_parser = humantime::parse_duration)]
    limit: Duration,
    /// Log again what the node's own flags say.
    #[arg(long, env = "MESETA_RESET", conflicts_with = "directives")]
    reset: bool,
    #[command(flatten)]
    identity: Identity,
}

pub(crate) async fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let address = match &flags.agent {
        Some(agent) => agent.clone(),
        None => leader(&flags.master).await?,
    };
    if flags.directives.is_none() && !flags.reset {
        let shown = get_json(&address, "/logging").await?;
        println!("{}", line(&in_force(&shown)));
        return Ok(ExitCode::SUCCESS);
    }
    let address: Address = address.parse()?;
    let node = flags.identity.dialler("operator", &address)?;
    let outcome = change(&flags, &node, &address).await;
    // Blocks for as long as its peers take to hear of it, and must not do so on a thread of the runtime.
    tokio::task::spawn_blocking(move || node.shutdown()).await?;
    let answer = outcome?;
    if let Some(refused) = answer.refused {
        anyhow::bail!("{address} refuses: {refused}");
    }
    println!("{}", line(&answer));
    Ok(ExitCode::SUCCESS)
}

async fn change(flags: &Flags, node: &Node, address: &Address) -> anyhow::Result<LogFilter> {
    let logging = Pid::new(LOGGING, address.clone())?;
    let Some(text) = &flags.directives else {
        return ask(node, &logging, ResetLogFilter {}).await;
    };
    // Said here too, so that a slip is told at once and not by a node far away.
    directives::parse(text)?;
    let wanted = SetLogFilter {
        directives: text.clone(),
        seconds: flags.limit.as_secs(),
    };
    ask(node, &logging, wanted).await
}

async fn ask<M: Ask<Reply = LogFilter>>(
    node: &Node,
    logging: &Pid,
    message: M,
) -> anyhow::Result<LogFilter> {
    let answer = node.ask(logging, message, LIMIT).answer().await;
    answer.map_err(anyhow::Error::from).with_context(|| {
        let address = logging.address();
        format!(
            "{address} has not changed anything: is a node running there, is its CA that of --ca_file, and has the \
             certificate role operator?"
        )
    })
}

fn in_force(shown: &Value) -> LogFilter {
    let text = |name: &str| shown[name].as_str().unwrap_or_default().to_owned();
    LogFilter {
        directives: text("directives"),
        base: text("base"),
        by: shown["by"].as_str().map(str::to_owned),
        seconds_left: shown["seconds_left"].as_u64(),
        refused: None,
    }
}

/// What is in force, on one line.
fn line(filter: &LogFilter) -> String {
    match (&filter.by, filter.seconds_left) {
        (Some(by), Some(seconds)) => format!(
            "{} (by {by}, for {} more; then {})",
            filter.directives,
            humantime::format_duration(Duration::from_secs(seconds)),
            filter.base
        ),
        _ => filter.directives.clone(),
    }
}
