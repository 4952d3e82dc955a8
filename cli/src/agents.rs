//! `meseta agents`: the agents of a cluster as a table; `meseta agents gone ID`: one of them will never come back.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use meseta_master::operators::MarkAgentGone;
use meseta_runtime::{Address, Node, Pid};

use crate::client::leader;
use crate::identity::Identity;
use crate::{out, tables};

/// How long a master may take to make it durable and answer.
const LIMIT: Duration = Duration::from_secs(60);

/// Flags of `meseta agents`. Its name stands for them beside those of the tables.
#[derive(Debug, Args)]
pub(crate) struct OfAgents {
    #[command(flatten)]
    show: tables::Flags,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Mark an agent gone: frameworks hear that its tasks are over, and it is told to end should it come back.
    Gone(Gone),
}

#[derive(Debug, Args)]
struct Gone {
    /// The agent's id, as `meseta agents` shows it.
    agent_id: String,
    #[command(flatten)]
    identity: Identity,
}

pub(crate) async fn run(flags: OfAgents) -> anyhow::Result<ExitCode> {
    match flags.action {
        None => tables::agents(flags.show).await,
        Some(Action::Gone(gone)) => mark_gone(&flags.show.master, &gone).await,
    }
}

/// Asks the leader of these masters.
async fn mark_gone(masters: &str, gone: &Gone) -> anyhow::Result<ExitCode> {
    let address: Address = leader(masters).await?.parse()?;
    let node = gone.identity.dialler("operator", &address)?;
    let outcome = ask(&node, &address, &gone.agent_id).await;
    // Blocks for as long as its peers take to hear of it, and must not do so on a thread of the runtime.
    tokio::task::spawn_blocking(move || node.shutdown()).await?;
    if let Some(refused) = outcome? {
        anyhow::bail!("{address} refuses: {refused}");
    }
    out::line(&out::safe_line(&format!("{} is gone", gone.agent_id)))?;
    Ok(ExitCode::SUCCESS)
}

/// Why the master refuses, if it does.
async fn ask(node: &Node, address: &Address, agent_id: &str) -> anyhow::Result<Option<String>> {
    let mark = MarkAgentGone {
        agent_id: agent_id.into(),
    };
    let master = Pid::new("master", address.clone())?;
    let answer = node.ask(&master, mark, LIMIT).answer().await;
    let marked = answer.with_context(|| {
        format!(
            "{address} does not say that {agent_id} is gone, and it may be: does that master lead, and has the \
             certificate (--cert_file) the role operator? Ask again, which does no harm"
        )
    })?;
    Ok(marked.refused)
}
