//! Counts words on a cluster: splits files into map tasks, runs them with an executor of its own on the agents,
//! runs lost ones again, and merges the counts.
//!
//! ```text
//! cargo run --release --example wordcount -- FILES…                  on a cluster inside this process
//! cargo run --release --example wordcount -- --master H:P FILES…     on a running cluster on this machine
//! ```

#![expect(clippy::print_stdout, reason = "printing is what this program is for")]

mod count;
mod executor;
mod job;
mod scheduler;
mod split;
mod timeline;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use meseta_local::LocalCluster;
use meseta_protocol::framework::FrameworkInfo;
use meseta_scheduler_driver::{Config, SchedulerDriver};
use tokio::signal::unix::{SignalKind, signal};

use crate::count::{Counts, to_text};
use crate::job::Job;
use crate::scheduler::{Counter, Progress};

/// First argument that makes this program the executor.
const EXECUTOR: &str = "__wordcount-executor";
/// Seconds that the master keeps the tasks when this program loses it.
const FAILOVER_SECONDS: f64 = 60.0;
/// Columns of the time line.
const WIDTH: usize = 72;

#[derive(Debug, Parser)]
#[command(name = "wordcount", about = "Counts the words of files on a cluster")]
struct Flags {
    /// Files to count: any number, any size, any content.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Master of a running cluster as host:port; its agents must see the files under the same paths.
    #[arg(long)]
    master: Option<String>,
    /// Agents of the cluster inside this process, when there is no --master.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    agents: u16,
    /// How many of the most frequent words to print.
    #[arg(long, default_value_t = 10)]
    top: usize,
    /// File for all counts: word<TAB>count, in byte order of the words.
    #[arg(long)]
    tsv: Option<PathBuf>,
    /// Most bytes one task counts.
    #[arg(long, default_value_t = 4 << 20, value_parser = clap::value_parser!(u64).range(1..=16 << 20))]
    slice: u64,
    /// What to log: error, warn, info, debug.
    #[arg(long = "logging_level", default_value = "warn")]
    logging_level: String,
}

fn main() -> ExitCode {
    if let Some(code) = meseta_local::take_over() {
        return code;
    }
    if std::env::args().nth(1).as_deref() == Some(EXECUTOR) {
        return meseta_executor::run(|| executor::WordCounter);
    }
    match run(&meseta_runtime::flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wordcount: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> anyhow::Result<()> {
    meseta_runtime::logging::init(&flags.logging_level);
    let files = sizes(&flags.files)?;
    // Found out before the work, not after it.
    let unwritable = |path: &Path| format!("--tsv: cannot write {}", path.display());
    let tsv = match &flags.tsv {
        Some(path) => Some((
            std::fs::File::create(path).with_context(|| unwritable(path))?,
            path,
        )),
        None => None,
    };
    let portions = split::split(&files, split::portion_size(&files, flags.slice));
    let total = portions.len();
    let job = if total == 0 {
        Box::new(Job::new(0))
    } else {
        count_on_cluster(flags, portions)?
    };
    let began = Duration::ZERO;
    let ended = job
        .spans()
        .iter()
        .map(|span| span.ended)
        .max()
        .unwrap_or(began);
    print!("{}", timeline::draw(job.spans(), ended, WIDTH));
    println!("{total} tasks, {} run again", job.reruns());
    print_top(job.counts(), flags.top);
    if let Some((mut file, path)) = tsv {
        file.write_all(&to_text(job.counts()))
            .with_context(|| unwritable(path))?;
    }
    Ok(())
}

/// The files by absolute path, with their sizes.
fn sizes(files: &[PathBuf]) -> anyhow::Result<Vec<(PathBuf, u64)>> {
    let size = |path: &PathBuf| {
        let path = path
            .canonicalize()
            .with_context(|| format!("cannot find {}", path.display()))?;
        // Opened, not only looked at, so that a file that cannot be read is found before anything runs.
        let file = std::fs::File::open(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let metadata = file.metadata()?;
        anyhow::ensure!(
            metadata.is_file(),
            "{} is no regular file: name files, for example with a wildcard",
            path.display()
        );
        Ok((path, metadata.len()))
    };
    files.iter().map(size).collect()
}

fn count_on_cluster(flags: &Flags, portions: Vec<Vec<split::Slice>>) -> anyhow::Result<Box<Job>> {
    let cluster = match &flags.master {
        Some(_) => None,
        None => Some(
            LocalCluster::builder()
                .agents(usize::from(flags.agents))
                .start()?,
        ),
    };
    let master = match (&flags.master, &cluster) {
        (Some(master), _) => master.clone(),
        (None, Some(cluster)) => cluster.master().address().to_string(),
        (None, None) => anyhow::bail!("no cluster"),
    };
    let total = portions.len();
    let (progress, events) = channel();
    end_on_signals(progress.clone())?;
    let program = std::env::current_exe()?.into_os_string();
    let mut framework = FrameworkInfo::new("", "wordcount");
    framework.failover_timeout = FAILOVER_SECONDS;
    let counter = Counter::new(portions, &program, EXECUTOR, progress);
    let driver = SchedulerDriver::start(Config::new(&master, framework), counter)?;
    let bar = bar(total);
    let outcome = loop {
        match events.recv().context("the driver has ended")? {
            Progress::Done(done) => bar.set_position(u64::try_from(done)?),
            Progress::Note(note) => show(&bar, &note),
            Progress::Finished(job) => break Ok(job),
            Progress::Failed(why) => break Err(anyhow::anyhow!(why)),
        }
    };
    bar.finish_and_clear();
    driver.stop(false);
    driver.join();
    if let Some(cluster) = cluster {
        cluster.shutdown();
    }
    outcome
}

/// Lets Ctrl-C and SIGTERM end the job as a failure does: its tasks and its cluster end with it.
fn end_on_signals(progress: Sender<Progress>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::spawn(move || {
        let come = runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                outcome = tokio::signal::ctrl_c() => outcome,
                _ = terminate.recv() => Ok(()),
            }
        });
        let why = match come {
            Ok(()) => "interrupted".to_owned(),
            Err(error) => format!("signals cannot be watched for: {error}"),
        };
        // The job may be over; then nobody listens.
        let _gone = progress.send(Progress::Failed(why));
    });
    Ok(())
}

fn bar(total: usize) -> ProgressBar {
    let bar = ProgressBar::new(total as u64).with_style(
        ProgressStyle::with_template("{bar:40} {pos}/{len} tasks {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar
}

/// A line above the bar, or a plain one where there is no bar.
fn show(bar: &ProgressBar, line: &str) {
    if bar.is_hidden() {
        eprintln!("{line}");
    } else {
        bar.println(line);
    }
}

/// The most frequent words, the first in byte order where counts are equal.
fn print_top(counts: &Counts, top: usize) {
    let mut all: Vec<(&Vec<u8>, &u64)> = counts.iter().collect();
    all.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let mut out = std::io::stdout().lock();
    for (word, count) in all.into_iter().take(top) {
        // A closed pipe ends the list, not the program.
        if writeln!(out, "{count:>9} {}", String::from_utf8_lossy(word)).is_err() {
            return;
        }
    }
}
