//! `meseta log-level`: shows what a node logs, or has it log otherwise for a time.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use meseta_runtime::logging::{LOGGING, LogFilter, ResetLogFilter, SetLogFilter, directives};
use meseta_runtime::transport::PeerStatus;
use meseta_runtime::{Address, Ask, AskError, Node, Pid};
use serde_json::Value;

use crate::client::{get_json, leader};
use crate::identity::Identity;
use crate::out;

/// How long a node may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// For how long a change stays when nobody says.
const DEFAULT: Duration = Duration::from_secs(600);
/// Setting that stands for `--for`.
const FOR: &str = "MESETA_FOR";

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
    /// 10 minutes when not given.
    #[arg(long = "for", env = FOR, value_parser = meseta_runtime::flags::duration)]
    limit: Option<Duration>,
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
    // One that stands in the environment is for those that change something.
    if let Some(limit) = flags.limit
        && flags.directives.is_none()
        && std::env::var_os(FOR).is_none()
    {
        anyhow::bail!(
            "--for={limit} says for how long, but not what to log: name that too, as in `meseta log-level debug \
             --for {limit}`, or leave --for out",
            limit = humantime::format_duration(limit)
        );
    }
    if flags.directives.is_none() && !flags.reset {
        let shown = get_json(&address, "/logging").await?;
        out::line(&out::safe_line(&line(&in_force(&shown))))?;
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
    out::line(&out::safe_line(&line(&answer)))?;
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
        seconds: flags.limit.unwrap_or(DEFAULT).as_secs(),
    };
    ask(node, &logging, wanted).await
}

async fn ask<M: Ask<Reply = LogFilter>>(
    node: &Node,
    logging: &Pid,
    message: M,
) -> anyhow::Result<LogFilter> {
    let answer = node.ask(logging, message, LIMIT).answer().await;
    answer.map_err(|error| {
        let address = logging.address();
        let peers = node.peers();
        let peer = peers.iter().find(|peer| peer.peer == address.to_string());
        let why = why_not(&error, peer);
        anyhow::anyhow!("{address} has not changed what it logs: {why}")
    })
}

/// What has kept an answer from coming.
fn why_not(error: &AskError, peer: Option<&PeerStatus>) -> String {
    let failure = peer.and_then(|peer| peer.last_failure.as_deref());
    match (error, peer, failure) {
        (AskError::BadAnswer, _, _) => {
            "its answer cannot be read: is it of another version of Meseta?".to_owned()
        }
        (_, Some(peer), _) if peer.connected => format!(
            "it is reached, but {error}: has the certificate (--cert_file) the role operator, and is it a master or an \
             agent?"
        ),
        (_, _, Some(failure)) => format!("cannot connect to it: {failure}"),
        (_, _, None) => format!(
            "cannot connect to it: {error}: is a node running there, and does UDP reach its port?"
        ),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_for_no_answer_has_its_own_text() {
        let peer = |connected, failure: Option<&str>| PeerStatus {
            connected,
            last_failure: failure.map(str::to_owned),
            ..PeerStatus::default()
        };
        for (error, peer, text) in [
            (AskError::TimedOut, Some(peer(true, None)), "role operator"),
            (
                AskError::Undelivered,
                Some(peer(false, Some("no answer in time"))),
                "connect to it: no answer in time",
            ),
            (
                AskError::TimedOut,
                Some(peer(false, None)),
                "is a node running there",
            ),
            (AskError::TimedOut, None, "is a node running there"),
            (
                AskError::BadAnswer,
                Some(peer(true, None)),
                "another version",
            ),
        ] {
            let why = why_not(&error, peer.as_ref());
            assert!(why.contains(text), "{why}");
        }
    }
}
