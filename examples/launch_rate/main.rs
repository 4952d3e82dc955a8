//! How fast tasks that do nothing come and go: tasks a second, and the time from ACCEPT to TASK_RUNNING, beside a
//! loop that starts and waits for the same program without any cluster, before and after. With a cluster of its own it
//! also tells what a task costs in processor time and page faults, of everything: master, agent, driver, executor and the
//! task itself. That figure bears other work on the machine much better than the rate does.
//!
//! ```text
//! cargo run --release --example launch_rate -- --tasks 1000
//! cargo run --release --example launch_rate -- --tasks 1000 --executor_transport=unix
//! cargo run --release --example launch_rate -- --master 127.0.0.1:5050     # a running cluster
//! ```

#![expect(clippy::print_stdout, reason = "printing is what this program is for")]

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use meseta_local::{ExecutorTransport, LocalCluster};
use meseta_protocol::TaskId;
use meseta_protocol::common::CommandInfo;
use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::offer::{Filters, Offer};
use meseta_protocol::resources::Resources;
use meseta_protocol::status::{TaskState, TaskStatus};
use meseta_protocol::task::TaskInfo;
use meseta_runtime::{Clock, Time};
use meseta_scheduler_driver::{Config, Handle, Scheduler, SchedulerDriver};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

/// The program that does nothing.
const PROGRAM: &str = "/bin/true";

#[derive(Debug, Parser)]
#[command(
    name = "launch_rate",
    about = "Measures how fast tasks that do nothing come and go"
)]
struct Flags {
    /// How many tasks.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    tasks: u32,
    /// Tasks at once; 0 for all.
    #[arg(long = "in_flight", default_value_t = 0)]
    in_flight: u32,
    /// Master of a running cluster as host:port; without it one agent runs inside this process.
    #[arg(long)]
    master: Option<String>,
    /// How executors speak to that agent.
    #[arg(long = "executor_transport", default_value = "quic")]
    executor_transport: ExecutorTransport,
    /// What to log.
    #[arg(long = "logging_level", default_value = "warn")]
    logging_level: String,
}

struct Measured {
    finished: u32,
    failed: u32,
    total: Duration,
    to_running: Vec<Duration>,
}

struct Launcher {
    left: u32,
    number: u32,
    tasks: u32,
    in_flight: u32,
    limit: u32,
    each: Resources,
    clock: Clock,
    began: Option<Time>,
    accepted: BTreeMap<TaskId, Time>,
    measured: Measured,
    done: Sender<Measured>,
}

impl Launcher {
    fn launch(&mut self, driver: &mut Handle<'_>, offer: Offer) {
        let now = self.clock.now();
        let mut room = offer.resources.unallocated();
        let mut tasks = Vec::new();
        while self.left > 0 && self.in_flight < self.limit && room.contains(&self.each) {
            room -= &self.each;
            self.left -= 1;
            self.in_flight += 1;
            self.number += 1;
            let task_id = TaskId::new(format!("t-{}", self.number));
            self.accepted.insert(task_id.clone(), now);
            tasks.push(TaskInfo {
                name: "nothing".to_owned(),
                task_id,
                agent_id: offer.agent_id.clone(),
                resources: self.each.clone(),
                command: Some(CommandInfo::exec(PROGRAM, [""; 0])),
                ..TaskInfo::default()
            });
        }
        if tasks.is_empty() {
            driver.decline_offer(offer.id, Filters::refusing(0.0));
        } else {
            self.began.get_or_insert(now);
            driver.launch_tasks(vec![offer.id], tasks, Filters::refusing(0.0));
        }
    }
}

impl Scheduler for Launcher {
    fn resource_offers(&mut self, driver: &mut Handle<'_>, offers: Vec<Offer>) {
        for offer in offers {
            self.launch(driver, offer);
        }
    }

    fn status_update(&mut self, _: &mut Handle<'_>, status: &TaskStatus) {
        let now = self.clock.now();
        if status.state == TaskState::Running
            && let Some(accepted) = self.accepted.remove(&status.task_id)
        {
            self.measured.to_running.push(now.since(accepted));
        }
        if !status.state.is_terminal() {
            return;
        }
        self.in_flight -= 1;
        if status.state == TaskState::Finished {
            self.measured.finished += 1;
        } else {
            self.measured.failed += 1;
            eprintln!("{} {}: {:?}", status.task_id, status.state, status.message);
        }
        if self.measured.finished + self.measured.failed == self.tasks {
            self.measured.total = now.since(self.began.unwrap_or(now));
            let empty = Measured {
                finished: 0,
                failed: 0,
                total: Duration::ZERO,
                to_running: Vec::new(),
            };
            // The main thread waits for exactly this.
            let _gone = self.done.send(std::mem::replace(&mut self.measured, empty));
        }
    }
}

fn main() -> ExitCode {
    if let Some(code) = meseta_local::take_over() {
        return code;
    }
    match run(&meseta_runtime::flags::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("launch_rate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> anyhow::Result<bool> {
    meseta_runtime::logging::init(&flags.logging_level);
    let before = fork_loop(flags.tasks)?;
    let used = Used::by_now()?;
    let measured = launch(flags)?;
    let used = Used::by_now()?.since(&used);
    let after = fork_loop(flags.tasks)?;
    let rate = f64::from(measured.finished) / measured.total.as_secs_f64();
    println!(
        "tasks                 {} finished, {} failed",
        measured.finished, measured.failed
    );
    println!("tasks/s               {rate:.0}");
    println!(
        "accept to RUNNING p50 {:.1?}",
        percentile(&measured.to_running, 50)
    );
    println!(
        "accept to RUNNING p99 {:.1?}",
        percentile(&measured.to_running, 99)
    );
    if flags.master.is_none() {
        let tasks = f64::from(measured.finished.max(1));
        println!(
            "processor/task        {:.2} ms, {:.2} of it in the kernel; {:.0} page faults",
            (used.user + used.system) / tasks,
            used.system / tasks,
            used.faults / tasks
        );
    }
    println!("fork+wait loop/s      {before:.0} before, {after:.0} after");
    println!("ratio                 {:.3}", rate / before.midpoint(after));
    Ok(measured.failed == 0)
}

fn launch(flags: &Flags) -> anyhow::Result<Measured> {
    let cluster = match &flags.master {
        Some(_) => None,
        None => Some(
            LocalCluster::builder()
                .resources("cpus:1000;mem:1000000".parse()?)
                .executor_transport(flags.executor_transport)
                .start()?,
        ),
    };
    let master = match (&flags.master, &cluster) {
        (Some(master), _) => master.clone(),
        (None, Some(cluster)) => cluster.master().address().to_string(),
        (None, None) => anyhow::bail!("no cluster"),
    };
    let (done, measured) = channel();
    let launcher = Launcher {
        left: flags.tasks,
        number: 0,
        tasks: flags.tasks,
        in_flight: 0,
        limit: if flags.in_flight == 0 {
            u32::MAX
        } else {
            flags.in_flight
        },
        each: "cpus:0.01;mem:1".parse()?,
        clock: Clock::live(),
        began: None,
        accepted: BTreeMap::new(),
        measured: Measured {
            finished: 0,
            failed: 0,
            total: Duration::ZERO,
            to_running: Vec::new(),
        },
        done,
    };
    let driver = SchedulerDriver::start(
        Config::new(&master, FrameworkInfo::new("", "launch_rate")),
        launcher,
    )?;
    let measured = measured.recv().context("the driver has ended")?;
    driver.stop(false);
    driver.join();
    if let Some(cluster) = cluster {
        cluster.shutdown();
    }
    Ok(measured)
}

/// What this program and all that it has started and waited for have used: milliseconds of processor, and page faults.
struct Used {
    user: f64,
    system: f64,
    faults: f64,
}

impl Used {
    #[expect(clippy::cast_precision_loss, reason = "figures to print")]
    fn by_now() -> anyhow::Result<Self> {
        let both = [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN].map(getrusage);
        let mut sum = Self {
            user: 0.0,
            system: 0.0,
            faults: 0.0,
        };
        for usage in both {
            let usage = usage?;
            sum.user += usage.user_time().num_microseconds() as f64 / 1e3;
            sum.system += usage.system_time().num_microseconds() as f64 / 1e3;
            sum.faults += usage.minor_page_faults() as f64;
        }
        Ok(sum)
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            user: self.user - before.user,
            system: self.system - before.system,
            faults: self.faults - before.faults,
        }
    }
}

/// Starts and waits, one after the other; programs a second.
fn fork_loop(count: u32) -> anyhow::Result<f64> {
    let clock = Clock::live();
    let began = clock.now();
    for _ in 0..count {
        let status = Command::new(PROGRAM)
            .status()
            .with_context(|| format!("cannot run {PROGRAM}"))?;
        anyhow::ensure!(status.success(), "{PROGRAM} failed");
    }
    Ok(f64::from(count) / clock.now().since(began).as_secs_f64())
}

fn percentile(all: &[Duration], percent: usize) -> Duration {
    let mut sorted = all.to_vec();
    sorted.sort();
    let last = sorted.len().saturating_sub(1);
    sorted
        .get(last * percent / 100)
        .copied()
        .unwrap_or_default()
}
