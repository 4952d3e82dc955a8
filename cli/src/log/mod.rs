//! `meseta log`: what an operator does with the replicated log of masters, and how fast it is.

mod benchmark;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use comfy_table::Table;
use meseta_master::log::action::{Action, Value};
use meseta_master::log::members::{Incarnation, Life, Member};
use meseta_master::log::messages::Status;
use meseta_master::log::replica::core::{Change, Metadata, Replica};
use meseta_master::log::storage::{self, Settings, StorageError, Store};
use rand::TryRng as _;
use rand::rngs::SysRng;

use crate::client::{addresses, ask};
use crate::out;

/// Where a master has its log, in its work directory.
const LOG_DIRECTORY: &str = "replicated_log";

#[derive(Debug, Args)]
pub(crate) struct Flags {
    #[command(subcommand)]
    action: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Let the empty log in a directory vote, where masters were told not to begin one by themselves; do it for a
    /// majority of them.
    Initialize(At),
    /// Print what the log in a directory holds; its master must not run.
    Read(Range),
    /// Show how the logs of running masters stand.
    Status(Masters),
    /// Measure appends: three members in processes of their own, on one disk.
    Benchmark(benchmark::Flags),
    /// One member of a benchmark.
    #[command(hide = true)]
    Member(benchmark::Member),
    /// The writers of a benchmark.
    #[command(hide = true)]
    Writers(benchmark::Writers),
}

#[derive(Debug, Args)]
struct At {
    /// The log's directory, or the work directory of its master.
    #[arg(long)]
    path: PathBuf,
}

#[derive(Debug, Args)]
struct Range {
    /// The log's directory, or the work directory of its master.
    #[arg(long)]
    path: PathBuf,
    /// First position.
    #[arg(long)]
    from: Option<u64>,
    /// Last position.
    #[arg(long)]
    to: Option<u64>,
}

#[derive(Debug, Args)]
struct Masters {
    /// Masters as host:port,host:port,... or the path of a file with such a list.
    #[arg(long, env = "MESETA_MASTER", default_value = "127.0.0.1:5050")]
    master: String,
}

pub(crate) async fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    match flags.action {
        Command::Initialize(at) => initialize(&at),
        Command::Read(range) => read(&range),
        Command::Status(masters) => status(&masters).await,
        Command::Benchmark(flags) => benchmark::run(&flags),
        Command::Member(member) => benchmark::member(member),
        Command::Writers(writers) => benchmark::writers(&writers).await,
    }
}

/// Waits for what a store's thread does.
fn done<T: Send + 'static>(
    order: impl FnOnce(Box<dyn FnOnce(Result<T, StorageError>) + Send>),
) -> anyhow::Result<T> {
    let (tell, told) = mpsc::channel();
    order(Box::new(move |outcome| {
        // Nobody listens any more when the command was ended.
        drop(tell.send(outcome));
    }));
    Ok(told.recv()??)
}

/// The log's directory, which may be meant by the one above it.
fn directory(path: &Path) -> PathBuf {
    let within = path.join(LOG_DIRECTORY);
    if within.is_dir() {
        within
    } else {
        path.to_owned()
    }
}

fn initialize(at: &At) -> anyhow::Result<ExitCode> {
    let path = directory(&at.path);
    let store = Store::open(&path, &Settings::default())?;
    let stored = done(|done| store.load(done))?;
    let path = path.display();
    anyhow::ensure!(
        stored.metadata.status == Status::Empty && !stored.damaged,
        "the log in {path} is not empty: it is {:?}; only an empty one is initialized",
        stored.metadata.status
    );
    let metadata = Metadata {
        status: Status::Voting,
        life: Life {
            incarnation: Incarnation::FIRST,
            nonce: SysRng
                .try_next_u64()
                .context("the system has no random bytes")?
                .max(1),
        },
        ..stored.metadata
    };
    done(|done| store.commit(vec![Change::Metadata(metadata)], done))?;
    out::line(&format!("the log in {path} votes when its master starts"))?;
    Ok(ExitCode::SUCCESS)
}

fn read(range: &Range) -> anyhow::Result<ExitCode> {
    if let (Some(from), Some(to)) = (range.from, range.to) {
        anyhow::ensure!(from <= to, "--from={from} is above --to={to}");
    }
    let mut found = storage::look(&directory(&range.path))?;
    for damage in &found.damage {
        out::complain(&damage.to_string());
    }
    // As the replica itself reads it: what is known to be chosen is learned, and what is truncated is gone.
    let replica = Replica::restore(Member::from(""), std::mem::take(&mut found.stored));
    let Metadata {
        status,
        promised,
        life,
        begin,
        ..
    } = replica.metadata();
    let incarnation = life.incarnation.0;
    out::line(&format!(
        "{status:?}, promised {promised}, begins at {begin}, incarnation {incarnation}"
    ))?;
    let wanted = range.from.unwrap_or(begin.0)..=range.to.unwrap_or(u64::MAX);
    for action in replica.actions() {
        if wanted.contains(&action.position.0) {
            out::line(&out::safe_line(&line(action)))?;
        }
    }
    Ok(if found.damage.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// An action in one line.
fn line(action: &Action) -> String {
    let what = match action.value() {
        None => "promised only".to_owned(),
        Some(Value::Nop { tombstone: false }) => "nop".to_owned(),
        Some(Value::Nop { tombstone: true }) => "tombstone".to_owned(),
        Some(Value::Append { bytes }) => format!("append {} B", bytes.len()),
        Some(Value::Truncate { to }) => format!("truncate to {to}"),
        Some(Value::Unknown { kind, body }) => format!("unknown kind {kind}, {} B", body.len()),
    };
    let by = action.performed.as_ref().map(|performed| performed.by);
    let by = by.map_or_else(String::new, |by| format!(", written by {by}"));
    let learned = if action.learned { ", learned" } else { "" };
    let (position, promised) = (action.position, action.promised);
    format!("{position}: {what}, promised {promised}{by}{learned}")
}

async fn status(masters: &Masters) -> anyhow::Result<ExitCode> {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "MASTER",
        "STATUS",
        "INCARNATION",
        "PROMISED",
        "BEGIN",
        "END",
        "CHOSEN",
        "MISSING",
    ]);
    let mut code = ExitCode::SUCCESS;
    for master in addresses(&masters.master)? {
        match ask(&master, "/log-replica(1)/status").await {
            Ok(status) => {
                let text = |name: &str| {
                    let value = &status[name];
                    let count = value.as_array().map(|spans| spans.len().to_string());
                    let none = value.is_null().then(|| "-".to_owned());
                    let text = value.as_str().map(str::to_owned);
                    text.or(count).or(none).unwrap_or_else(|| value.to_string())
                };
                let columns = [
                    "status",
                    "incarnation",
                    "promised",
                    "begin",
                    "end",
                    "chosen",
                    "missing",
                ];
                table.add_row([master.clone()].into_iter().chain(columns.map(text)));
            }
            Err(error) => {
                out::complain(&format!("{error:#}"));
                code = ExitCode::FAILURE;
            }
        }
    }
    out::line(&out::safe(&table.to_string()))?;
    Ok(code)
}
