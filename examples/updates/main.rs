//! How many status updates a second go through one agent and are acknowledged by their framework, and how long one takes,
//! beside the rate of syncs of the disk.
//!
//! ```text
//! cargo run --release --example updates -- --tasks 64 --updates 500
//! cargo run --release --example updates -- --checkpoint --work_dir /var/tmp      # what the agent makes durable, on this disk
//! ```
//!
//! All tasks belong to one executor, which makes all its updates at once; of each task one is in flight. First one task
//! alone, whose updates follow each other: that is the time an update takes there and back. Then all tasks together.

#![expect(clippy::print_stdout, reason = "printing is what this program is for")]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use meseta_executor::{Executor, Handle as ExecutorHandle};
use meseta_local::{ExecutorTransport, LocalCluster};
use meseta_protocol::UpdateId;
use meseta_protocol::common::CommandInfo;
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::offer::{Filters, Offer};
use meseta_protocol::resources::Resources;
use meseta_protocol::status::{TaskState, TaskStatus};
use meseta_protocol::task::TaskInfo;
use meseta_runtime::{Clock, Time};
use meseta_scheduler_driver::{Config, Handle, Scheduler, SchedulerDriver};

/// First argument that makes this program the executor.
const EXECUTOR: &str = "__updates-executor";
/// For how long the disk is asked to sync.
const SYNCS: Duration = Duration::from_secs(2);

#[derive(Debug, Parser)]
#[command(
    name = "updates",
    about = "Measures how fast status updates go through one agent"
)]
struct Flags {
    /// Tasks at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    tasks: u32,
    /// Updates of each task.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    updates: u32,
    /// The framework wants its tasks to outlive the agent: what the agent knows of them has to be durable.
    #[arg(long)]
    checkpoint: bool,
    /// Directory on the disk to use.
    #[arg(long = "work_dir")]
    work_dir: Option<PathBuf>,
    /// How the executor speaks to the agent.
    #[arg(long = "executor_transport", default_value = "quic")]
    executor_transport: ExecutorTransport,
    /// What to log.
    #[arg(long = "logging_level", default_value = "warn")]
    logging_level: String,
}

/// Makes all updates of a task as soon as it gets it.
struct Chatty;

impl Executor for Chatty {
    fn launch_task(&mut self, driver: &mut ExecutorHandle<'_>, task: TaskInfo) {
        let updates: u32 = task.name.parse().unwrap_or(2);
        for number in 1..updates {
            let status = TaskStatus::new(task.task_id.clone(), TaskState::Running);
            driver.send_status(status.saying(number.to_string()));
        }
        driver.send_status(TaskStatus::new(task.task_id, TaskState::Finished));
    }
}

/// What a round has shown.
struct Measured {
    acknowledged: usize,
    repeated: usize,
    took: Duration,
}

/// Launches all tasks of a round and counts their updates.
struct Counter {
    tasks: u32,
    updates: u32,
    executor: ExecutorInfo,
    each: Resources,
    clock: Clock,
    first: Option<Time>,
    seen: BTreeSet<UpdateId>,
    repeated: usize,
    ended: u32,
    launched: bool,
    told: Sender<Measured>,
}

impl Scheduler for Counter {
    fn resource_offers(&mut self, driver: &mut Handle<'_>, offers: Vec<Offer>) {
        for offer in offers {
            if self.launched {
                driver.decline_offer(offer.id, Filters::refusing(3_600.0));
                continue;
            }
            self.launched = true;
            let task = |number: u32| TaskInfo {
                name: self.updates.to_string(),
                command: None,
                executor: Some(self.executor.clone()),
                ..TaskInfo::new(
                    format!("task-{number}"),
                    offer.agent_id.clone(),
                    self.each.clone(),
                    "",
                )
            };
            let tasks = (0..self.tasks).map(task).collect();
            driver.launch_tasks(vec![offer.id], tasks, Filters::refusing(3_600.0));
        }
    }

    fn status_update(&mut self, _: &mut Handle<'_>, status: &TaskStatus) {
        let now = self.clock.now();
        let Some(uuid) = status.uuid else {
            return;
        };
        if !self.seen.insert(uuid) {
            self.repeated += 1;
            return;
        }
        // From the first update on, so that the start of the executor is not measured.
        let first = *self.first.get_or_insert(now);
        if status.state.is_terminal() {
            self.ended += 1;
        }
        if self.ended == self.tasks {
            let measured = Measured {
                acknowledged: self.seen.len() - 1,
                repeated: self.repeated,
                took: now.since(first),
            };
            // The main thread may have given up; then nobody listens.
            let _gone = self.told.send(measured);
        }
    }
}

fn main() -> ExitCode {
    if let Some(code) = meseta_local::take_over() {
        return code;
    }
    if std::env::args().nth(1).as_deref() == Some(EXECUTOR) {
        return meseta_executor::run(|| Chatty);
    }
    match run(&meseta_runtime::flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("updates: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> anyhow::Result<()> {
    meseta_runtime::logging::init(&flags.logging_level);
    let directory = match &flags.work_dir {
        Some(path) => tempfile::tempdir_in(path),
        None => tempfile::tempdir(),
    }
    .context("--work_dir")?;
    println!(
        "{:>12.0} syncs/s of the disk, one after the other",
        syncs(directory.path())?
    );
    let alone = round(flags, 1, directory.path())?;
    let rate = show("one task", &alone);
    println!("{:>12.3} ms there and back", 1_000.0 / rate);
    let together = round(flags, flags.tasks, directory.path())?;
    show(&format!("{} tasks", flags.tasks), &together);
    Ok(())
}

/// Prints a round; its updates a second.
fn show(what: &str, measured: &Measured) -> f64 {
    let count = u32::try_from(measured.acknowledged).map_or(f64::MAX, f64::from);
    let rate = count / measured.took.as_secs_f64();
    let repeated = measured.repeated;
    println!("{rate:>12.0} updates/s acknowledged, {what}, {repeated} sent again");
    rate
}

/// How often a second the disk takes a small write for good.
fn syncs(directory: &Path) -> anyhow::Result<f64> {
    let mut file = std::fs::File::create(directory.join("syncs"))?;
    let clock = Clock::live();
    let began = clock.now();
    let mut count = 0u32;
    while clock.now().since(began) < SYNCS {
        file.write_all(&[7; 512])?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / clock.now().since(began).as_secs_f64())
}

/// Has so many tasks make their updates, on a cluster of their own.
fn round(flags: &Flags, tasks: u32, directory: &Path) -> anyhow::Result<Measured> {
    let work_dir = directory.join(format!("round-{tasks}"));
    std::fs::create_dir_all(&work_dir)?;
    let cluster = LocalCluster::builder()
        .agents(1)
        .resources("cpus:1000;mem:1000000".parse()?)
        .executor_transport(flags.executor_transport)
        .work_dir(&work_dir)
        .start()?;
    let program = std::env::current_exe()?.display().to_string();
    let mut executor = ExecutorInfo::custom("updates", CommandInfo::exec(program, [EXECUTOR]));
    executor.resources = "cpus:1;mem:64".parse()?;
    let mut framework = FrameworkInfo::new("", "updates");
    framework.checkpoint = flags.checkpoint;
    let (told, measured) = channel();
    let counter = Counter {
        tasks,
        updates: flags.updates,
        executor,
        each: "cpus:0.1;mem:1".parse()?,
        clock: Clock::live(),
        first: None,
        seen: BTreeSet::new(),
        repeated: 0,
        ended: 0,
        launched: false,
        told,
    };
    let master = cluster.master().address().to_string();
    let driver = SchedulerDriver::start(Config::new(&master, framework), counter)?;
    let measured = measured.recv().context("the driver has ended")?;
    driver.stop(false);
    driver.join();
    cluster.shutdown();
    Ok(measured)
}
