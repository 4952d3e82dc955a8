//! `meseta log benchmark`: how many appends a second three members on one disk acknowledge, and how soon.
//!
//! Each member is a process of its own with full sync, and so are the writers, who talk to the leading member over the
//! network, as a client of any other store does. The disk's own sync rate is measured before and after, and the idle
//! share of the machine stands beside every figure: a busy machine slows syncs more than the disk does.

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use meseta_master::log::asks::{Append, Demoted, Elect, Election, Writing};
use meseta_master::log::post::COORDINATOR;
use meseta_master::log::storage::ops::Storage;
use meseta_master::log::storage::{Settings, Store};
use meseta_master::log::{self, LogConfig};
use meseta_runtime::ports::FreePorts;
use meseta_runtime::{
    Address, Ask, AskError, Context, ExitReason, Message, Node, Pid, Process, Receive, ReplyTo,
    Routes, Time,
};
use serde::{Deserialize, Serialize};

use crate::out;
const FRONT: &str = "log-front(1)";
/// Answers later than this count as lost, and end the measurement.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Directory on the disk to measure; what is made there is removed again.
    #[arg(long, default_value = ".")]
    path: PathBuf,
    /// How many appends are under way at once, one measurement each.
    #[arg(long, value_delimiter = ',', default_value = "1,64")]
    writers: Vec<u32>,
    /// Bytes of an entry.
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 5)]
    secs: u64,
    /// How often everything is measured.
    #[arg(long, default_value_t = 3)]
    runs: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Member {
    #[arg(long, value_delimiter = ',')]
    members: Vec<String>,
    #[arg(long)]
    index: usize,
    #[arg(long)]
    directory: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Writers {
    #[arg(long)]
    leader: String,
    #[arg(long)]
    writers: u32,
    #[arg(long)]
    size: usize,
    #[arg(long)]
    secs: u64,
}

/// A process that is ended with the benchmark.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    fn start(arguments: &[String]) -> anyhow::Result<Self> {
        let me = std::env::current_exe()?;
        let mut child = Command::new(me)
            .arg("log")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("a child without output")?;
        let out = BufReader::new(out);
        Ok(Self { child, out })
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.out.read_line(&mut line)?;
        anyhow::ensure!(
            !line.is_empty(),
            "a process of the benchmark has ended; its reason stands above"
        );
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It ends when its input does; a process that hangs is killed.
        drop(self.child.stdin.take());
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let directory = flags
        .path
        .join(format!("meseta-log-benchmark-{}", std::process::id()));
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot use {}", directory.display()))?;
    let outcome = measure(flags, &directory);
    fs::remove_dir_all(&directory)?;
    outcome.map(|()| ExitCode::SUCCESS)
}

fn measure(flags: &Flags, directory: &Path) -> anyhow::Result<()> {
    let ports = FreePorts::find(3)?;
    let addresses: Vec<String> = ports
        .all()
        .iter()
        .map(|port| format!("127.0.0.1:{port}"))
        .collect();
    let mut members = Vec::new();
    for index in (0..3).rev() {
        let place = directory.join(format!("member-{index}"));
        let text = |text: &str| text.to_owned();
        members.push(Running::start(&[
            text("member"),
            text("--members"),
            addresses.join(","),
            text("--index"),
            index.to_string(),
            text("--directory"),
            place.display().to_string(),
        ])?);
    }
    let leader = members.last_mut().context("no member")?;
    anyhow::ensure!(
        leader.line()? == "leading",
        "the first member does not lead"
    );
    out::line("figure\tper second\tp50 ms\tp99 ms\tidle")?;
    for _ in 0..flags.runs.max(1) {
        sync_rate(directory, 1)?;
        sync_rate(directory, 3)?;
        for writers in &flags.writers {
            let before = Idle::now()?;
            let (count, size, secs) = (
                writers.to_string(),
                flags.size.to_string(),
                flags.secs.to_string(),
            );
            let named = [
                "writers",
                "--leader",
                &addresses[0],
                "--writers",
                &count,
                "--size",
                &size,
                "--secs",
                &secs,
            ];
            let line = Running::start(&named.map(str::to_owned))?.line()?;
            let idle = Idle::now()?.since(before);
            out::line(&format!("meseta, {writers} writers\t{line}\t{idle}"))?;
        }
    }
    Ok(())
}

/// How often the disk syncs: `files` threads, each with a written-out file of its own, one entry and one sync at a
/// time.
fn sync_rate(directory: &Path, files: usize) -> anyhow::Result<()> {
    let before = Idle::now()?;
    let threads: Vec<_> = (0..files)
        .map(|number| {
            let path = directory.join(format!("sync-{number}"));
            std::thread::spawn(move || sync_times(&path))
        })
        .collect();
    let mut all = Vec::new();
    for thread in threads {
        let times = thread
            .join()
            .map_err(|_| anyhow::anyhow!("a thread has panicked"))?;
        all.extend(times?);
    }
    let each = all.len() as u64 / files as u64;
    let line = summary(each, Duration::from_secs(2), &mut all);
    let idle = Idle::now()?.since(before);
    out::line(&format!("disk, {files} files, each\t{line}\t{idle}"))?;
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "no node, no clock: a disk is measured"
)]
fn sync_times(path: &Path) -> anyhow::Result<Vec<Duration>> {
    fs::write(path, vec![0; 16 << 20])?;
    let file = OpenOptions::new().write(true).open(path)?;
    file.sync_all()?;
    let (began, mut times, mut at) = (Instant::now(), Vec::new(), 0);
    while began.elapsed() < Duration::from_secs(2) {
        let one = Instant::now();
        file.write_all_at(&[1; 256], at)?;
        file.sync_data()?;
        times.push(one.elapsed());
        at = (at + 256) % (16 << 20);
    }
    fs::remove_file(path)?;
    Ok(times)
}

/// What the machine's processors have done so far, in ticks.
#[derive(Clone, Copy)]
struct Idle {
    idle: u64,
    all: u64,
}

impl Idle {
    fn now() -> anyhow::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let ticks = stat
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1);
        let ticks: Vec<u64> = ticks.take(8).map(str::parse).collect::<Result<_, _>>()?;
        let idle = ticks.iter().skip(3).take(2).sum();
        let all = ticks.iter().sum();
        Ok(Self { idle, all })
    }

    fn since(self, before: Self) -> String {
        let all = (self.all - before.all).max(1);
        format!("{} %", (self.idle - before.idle) * 100 / all)
    }
}

/// Rate, median and 99th percentile.
fn summary(count: u64, took: Duration, times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |share: usize| {
        times
            .get(times.len() * share / 100)
            .copied()
            .unwrap_or_default()
    };
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let rate = u128::from(count) * 1000 / took.as_millis().max(1);
    format!("{rate}\t{:.3}\t{:.3}", ms(at(50)), ms(at(99)))
}

/// Writer → front: append this.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct AppendThis {
    bytes: Bytes,
}

impl Message for AppendThis {
    const NAME: &'static str = "meseta.benchmark.AppendThis";
    const SENDERS: &'static [&'static str] = &["operator"];
}

/// Front → writer: it is acknowledged.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ThisAppended {
    position: Option<u64>,
}

impl Message for ThisAppended {
    const NAME: &'static str = "meseta.benchmark.ThisAppended";
    const SENDERS: &'static [&'static str] = &["master"];
}

impl Ask for AppendThis {
    type Reply = ThisAppended;
}

/// Leads the log and takes entries from outside.
struct Front {
    coordinator: Pid,
}

impl Process for Front {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<AppendThis>().on::<Demoted>();
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        self.elect(cx);
    }
}

impl Front {
    fn elect(&mut self, cx: &mut Context<'_, Self>) {
        let coordinator = self.coordinator.clone();
        cx.ask(
            &coordinator,
            Elect {},
            LIMIT,
            |_, cx, outcome| match outcome {
                Ok(Election::Elected { .. }) => say(cx, "leading"),
                // Not all members are there yet.
                Ok(Election::NotElected { .. }) | Err(_) => {
                    cx.after(Duration::from_millis(200), Self::elect);
                }
            },
        );
    }
}

impl Receive<AppendThis> for Front {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, append: AppendThis) {
        let Some(asker): Option<ReplyTo> = cx.defer_reply() else {
            return;
        };
        let append = Append {
            bytes: append.bytes,
        };
        cx.ask(
            &self.coordinator.clone(),
            append,
            LIMIT,
            move |_, cx, outcome| {
                let position = match outcome {
                    Ok(Writing::Written { position }) => Some(position.0),
                    Ok(Writing::Demoted | Writing::Refused { .. }) | Err(_) => None,
                };
                cx.reply_later(&asker, ThisAppended { position });
            },
        );
    }
}

impl Receive<Demoted> for Front {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, _: Demoted) {
        cx.fail("demoted in the middle of a benchmark");
    }
}

/// Runs one member until its input ends.
pub(crate) fn member(member: Member) -> anyhow::Result<ExitCode> {
    let parse = |text: &String| text.parse::<Address>().with_context(|| text.clone());
    let replicas: Vec<Address> = member.members.iter().map(parse).collect::<Result<_, _>>()?;
    let me = replicas.get(member.index).context("no such member")?;
    let store = Store::open(&member.directory, &Settings::default())?;
    let builder = Node::builder().role("master").port(me.port).http(false);
    let node = Storage::from(store).serve(builder).start()?;
    let config = LogConfig {
        replicas,
        auto_initialize: true,
        directory: member.directory,
    };
    let pids = log::start(&node, config)?;
    debug_assert_eq!(pids.coordinator.id(), COORDINATOR);
    if member.index == 0 {
        let coordinator = pids.coordinator;
        node.spawn(FRONT, move || Front { coordinator })?;
    }
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest)?;
    node.shutdown();
    Ok(ExitCode::SUCCESS)
}

/// All writers of one process: each appends again as soon as it is answered.
struct Bench {
    front: Pid,
    writers: u32,
    entry: Bytes,
    lasts: Duration,
    began: Option<Time>,
    times: Vec<Duration>,
    under_way: u32,
}

impl Process for Bench {
    fn routes(_: &mut Routes<Self>) {}

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        for _ in 0..self.writers {
            self.append(cx);
        }
        // The first second warms everything up.
        cx.after(Duration::from_secs(1), |this, cx| {
            this.began = Some(cx.now());
            this.times.clear();
        });
    }
}

impl Bench {
    fn append(&mut self, cx: &mut Context<'_, Self>) {
        self.under_way += 1;
        let began = cx.now();
        let append = AppendThis {
            bytes: self.entry.clone(),
        };
        cx.ask(
            &self.front.clone(),
            append,
            LIMIT,
            move |this, cx, answer| {
                this.answered(cx, began, &answer);
            },
        );
    }

    fn answered(
        &mut self,
        cx: &mut Context<'_, Self>,
        asked: Time,
        answer: &Result<ThisAppended, AskError>,
    ) {
        self.under_way -= 1;
        if !answer
            .as_ref()
            .is_ok_and(|answer| answer.position.is_some())
        {
            cx.fail(format!("an append is not acknowledged: {answer:?}"));
            return;
        }
        let now = cx.now();
        self.times.push(now.since(asked));
        match self.began.map(|began| now.since(began)) {
            Some(lasted) if lasted >= self.lasts => {
                let count = self.times.len() as u64;
                say(cx, &summary(count, lasted, &mut self.times));
                cx.stop();
            }
            Some(_) | None => self.append(cx),
        }
    }
}

/// Writes a line; a process whose reader has gone has nothing left to do.
fn say<P: Process>(cx: &mut Context<'_, P>, text: &str) {
    if let Err(error) = out::line(text) {
        cx.fail(error.to_string());
    }
}

pub(crate) async fn writers(flags: &Writers) -> anyhow::Result<ExitCode> {
    let leader: Address = flags.leader.parse()?;
    let node = Node::builder()
        .role("operator")
        .accepts(false)
        .http(false)
        .start()?;
    let bench = Bench {
        front: Pid::new(FRONT, leader)?,
        writers: flags.writers,
        entry: Bytes::from(vec![7; flags.size]),
        lasts: Duration::from_secs(flags.secs),
        began: None,
        times: Vec::new(),
        under_way: 0,
    };
    let pid = node.spawn("writers", move || bench)?;
    let reason = node.ended(&pid).await;
    node.shutdown();
    if reason != ExitReason::Normal {
        anyhow::bail!("the writers have ended: {reason:?}");
    }
    Ok(ExitCode::SUCCESS)
}
