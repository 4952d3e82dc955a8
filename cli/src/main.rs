//! `meseta`: runs a cluster, runs commands on one, and shows what it does.
//!
//! Each subcommand has a file of its own; this one parses the line and hands over.

mod agents;
mod certs;
mod client;
mod credentials;
mod execute;
mod explain;
mod identity;
mod inspect;
mod local;
mod log;
mod log_level;
mod logs;
mod masters;
mod out;
mod tables;
mod top;

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "meseta",
    version,
    about = "Meseta: a cluster manager built of actors"
)]
struct Cli {
    #[command(subcommand)]
    command: Action,
    #[command(flatten)]
    http: client::HttpFlags,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run a master (the same as meseta-master).
    #[command(disable_help_flag = true)]
    Master {
        /// Flags of meseta-master; see `meseta master --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        flags: Vec<String>,
    },
    /// Run an agent (the same as meseta-agent); `meseta agent inspect DIR` shows what one has written down.
    #[command(disable_help_flag = true)]
    Agent {
        /// Flags of meseta-agent; see `meseta agent --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        flags: Vec<String>,
    },
    /// Run a whole cluster on this machine.
    Local(local::Flags),
    /// Run a command on a cluster and follow it to its end.
    Execute(Box<execute::Flags>),
    /// Show the masters of a cluster: which leads, and how far the log of each is.
    Masters(tables::Flags),
    /// Show the agents of a cluster, or mark one gone that will never come back.
    Agents(Box<agents::OfAgents>),
    /// Show the frameworks of a cluster.
    Frameworks(tables::Flags),
    /// Show the tasks of a cluster.
    Tasks(tables::Flags),
    /// Say why a framework gets no offers, or what became of a task and which message the master waits for.
    Explain(explain::Flags),
    /// Show the actors of a master or agent.
    Processes(tables::Flags),
    /// Watch the actors and peers of a node, and where messages are stuck.
    Top(top::Flags),
    /// Print what a task has written.
    Logs(logs::Flags),
    /// Look into, initialize or measure the replicated log of masters.
    Log(log::Flags),
    /// Show what a node logs, or change it for a time.
    LogLevel(Box<log_level::Flags>),
    /// Make a cluster's CA and the certificates of its nodes.
    Certs(certs::Flags),
    /// Make entries for the file of those who can prove over HTTP who they are.
    Credentials(credentials::Flags),
}

fn main() -> ExitCode {
    let cli: Cli = meseta_runtime::flags::parse();
    match cli.http.use_for_all().and_then(|()| run(cli.command)) {
        Ok(code) => code,
        // Whoever read it, as `head` does, has had enough.
        Err(error) if error.is::<out::ReaderGone>() => ExitCode::SUCCESS,
        Err(error) => {
            out::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(action: Action) -> anyhow::Result<ExitCode> {
    match action {
        Action::Master { flags } => become_program("meseta-master", &flags),
        Action::Agent { flags } => match flags.split_first() {
            Some((first, rest)) if first == "inspect" => inspect::run(rest),
            Some(_) | None => become_program("meseta-agent", &flags),
        },
        Action::Local(flags) => block_on(local::run(flags)),
        Action::Execute(flags) => block_on(execute::run(*flags)),
        Action::Masters(flags) => block_on(masters::run(flags)),
        Action::Agents(flags) => block_on(agents::run(*flags)),
        Action::Frameworks(flags) => block_on(tables::frameworks(flags)),
        Action::Tasks(flags) => block_on(tables::tasks(flags)),
        Action::Explain(flags) => block_on(explain::run(flags)),
        Action::Processes(flags) => block_on(tables::processes(flags)),
        Action::Top(flags) => block_on(top::run(flags)),
        Action::Logs(flags) => block_on(logs::run(flags)),
        Action::Log(flags) => block_on(log::run(flags)),
        Action::LogLevel(flags) => block_on(log_level::run(*flags)),
        Action::Certs(flags) => certs::run(&flags),
        Action::Credentials(flags) => credentials::run(&flags),
    }
}

fn block_on(future: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(future)
}

/// Another program of Meseta: beside this one, else wherever the shell finds it.
fn program(name: &str) -> PathBuf {
    std::env::current_exe()
        .ok()
        .map(|me| me.with_file_name(name))
        .filter(|beside| beside.exists())
        .unwrap_or_else(|| PathBuf::from(name))
}

fn become_program(name: &str, flags: &[String]) -> anyhow::Result<ExitCode> {
    let error = Command::new(program(name)).args(flags).exec();
    Err(error).with_context(|| format!("cannot run {name}: build it or put it beside meseta"))
}
