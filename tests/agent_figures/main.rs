//! What an agent with many executors uses while nothing happens, and how long its restart takes: until all executors are
//! back with it, and until the master has let it in again.
//!
//! The programs are those that are shipped. The tasks are `sleep`, each with an executor of its own. Memory is
//! proportional: pages that several processes share count in parts.
//!
//! ```text
//! cargo build --release --bins
//! cargo run --release --example agent_figures -- --executors 50
//! cargo run --release --example agent_figures -- --executors 500 --idle 10 --restarts 3
//! ```

#![expect(clippy::print_stdout, reason = "printing is what this program is for")]

use std::process::{Child, ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use meseta_runtime::Clock;
use meseta_tests::own_agent::OwnAgent;
use meseta_tests::{Cluster, http_try, wait_for};
use serde_json::Value;

#[derive(Debug, Parser)]
#[command(
    name = "agent_figures",
    about = "Measures what an agent uses while idle, and how long its restart takes"
)]
struct Flags {
    /// How many executors live.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    executors: u32,
    /// For how many seconds nothing happens while processor time is measured.
    #[arg(long, default_value_t = 300)]
    idle: u64,
    /// How often the agent is killed.
    #[arg(long, default_value_t = 5)]
    restarts: u32,
    /// How executors speak to the agent: `quic` or `unix`.
    #[arg(long = "executor_transport", default_value = "quic", value_parser = ["quic", "unix"])]
    executor_transport: String,
}

fn main() -> ExitCode {
    match run(&Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agent_figures: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `meseta execute`, which ends with the measurement.
struct Batch(Child);

impl Drop for Batch {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn run(flags: &Flags) -> anyhow::Result<()> {
    let cluster = Cluster::start(0, &[]);
    let transport = format!("--executor_transport={}", flags.executor_transport);
    let resources = "--resources=cpus:1000;mem:1000000";
    let mut agent = OwnAgent::start(&cluster, "agent", &[resources, &transport], &[]);
    let idle = until(&agent, |metrics| metrics["slave/registered"] == 1.0);
    anyhow::ensure!(idle.is_object(), "the agent tells nothing");
    println!(
        "{:>10.1} MiB: the agent, with no executor",
        mebibytes(agent.process())?
    );

    let command = [
        "--command",
        "exec sleep 100000",
        "--instances",
        &flags.executors.to_string(),
    ];
    let mut execute = cluster.command("execute");
    let execute = execute.args(command).stdout(Stdio::null());
    let batch = Batch(execute.spawn().context("meseta execute")?);
    until(&agent, |metrics| runs(metrics, flags.executors));
    let executors: Vec<i32> = cluster
        .executors()
        .into_iter()
        .filter(|pid| is_executor(*pid))
        .collect();
    idles(flags, agent.process(), &executors)?;

    let clock = Clock::live();
    for number in 1..=flags.restarts {
        agent.kill();
        let began = clock.now();
        agent.start_again(&[]);
        until(&agent, |metrics| {
            metrics["slave/executors_running"] == f64::from(flags.executors)
        });
        let back = clock.now().since(began);
        until(&agent, |metrics| metrics["slave/registered"] == 1.0);
        println!(
            "{:>10.2} s: restart {number}, until {} executors are back; {:.2} s until the agent is let in",
            back.as_secs_f64(),
            flags.executors,
            clock.now().since(began).as_secs_f64()
        );
    }
    drop(batch);
    agent.leaves();
    cluster.stop();
    Ok(())
}

/// Prints what agent and executors use while nothing happens.
fn idles(flags: &Flags, agent: i32, executors: &[i32]) -> anyhow::Result<()> {
    let each: Vec<f64> = executors
        .iter()
        .map(|pid| mebibytes(*pid))
        .collect::<Result<_, _>>()?;
    let count = f64::from(u32::try_from(each.len())?);
    println!(
        "{:>10.1} MiB: the agent, with {count} executors",
        mebibytes(agent)?
    );
    println!(
        "{:>10.1} MiB: an executor, on average",
        each.iter().sum::<f64>() / count
    );
    let used = |pids: &[i32]| -> anyhow::Result<f64> {
        let each = pids.iter().map(|pid| processor(*pid));
        Ok(each.collect::<Result<Vec<_>, _>>()?.iter().sum())
    };
    let before = (used(&[agent])?, used(executors)?);
    let clock = Clock::live();
    let end = clock.now() + Duration::from_secs(flags.idle);
    while clock.now() < end {
        wait_for("a second to pass", {
            let next = (clock.now() + Duration::from_secs(1)).min(end);
            let clock = &clock;
            move || (clock.now() >= next).then_some(())
        });
    }
    let seconds = Duration::from_secs(flags.idle.max(1)).as_secs_f64();
    let share = |before: f64, after: f64| 100.0 * (after - before) / seconds;
    println!(
        "{:>10.2} % of a core over {} s: the agent",
        share(before.0, used(&[agent])?),
        flags.idle
    );
    println!(
        "{:>10.2} % of a core over {} s: all executors together",
        share(before.1, used(executors)?),
        flags.idle
    );
    Ok(())
}

fn runs(metrics: &Value, executors: u32) -> bool {
    let all = f64::from(executors);
    metrics["slave/tasks_running"] == all && metrics["slave/executors_running"] == all
}

/// Waits until the agent's metrics say so.
fn until(agent: &OwnAgent, is_so: impl Fn(&Value) -> bool) -> Value {
    wait_for("the agent to be where it should", || {
        let limit = Duration::from_secs(5);
        let (_, text) = http_try(agent.address(), "/metrics/snapshot", limit).ok()?;
        let metrics: Value = serde_json::from_str(&text).ok()?;
        is_so(&metrics).then_some(metrics)
    })
}

/// Whether a process of a task's environment is its executor.
fn is_executor(pid: i32) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe"))
        .is_ok_and(|program| program.ends_with("meseta-executor"))
}

/// Proportional memory of a process.
fn mebibytes(pid: i32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).context(path.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kibibytes = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    let kibibytes: u32 = kibibytes.context(path)?.trim().parse()?;
    Ok(f64::from(kibibytes) / 1024.0)
}

/// Processor time of a process so far, in seconds. The kernel counts hundredths on every architecture that Meseta runs on.
fn processor(pid: i32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).context(path.clone())?;
    let (_, fields) = text.rsplit_once(')').context(path.clone())?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || -> anyhow::Result<u32> { Ok(fields.next().context(path.clone())?.parse()?) };
    let ticks = next()? + next()?;
    Ok(f64::from(ticks) / 100.0)
}
