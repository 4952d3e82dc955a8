//! `meseta local`: a whole cluster on this machine, one child process a component.
//!
//! The supervisor starts the master and the agents, prints their pids, starts again whichever ends, with back-off,
//! and ends all of them when it is told to end. When it ends otherwise they end too, by themselves, but their tasks run
//! on for a time: started again in the same directory, the cluster goes on with them. What ends by itself before it has ever run cannot be healed by another
//! start: then the supervisor ends with the reason.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use meseta_runtime::lock::{DirectoryLock, LockError};
use meseta_runtime::ports::FreePorts;
use meseta_runtime::{Backoff, Clock, Time};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

use crate::client::get_json;
use crate::{out, program};

/// A component that lived this long starts its back-off anew.
const STABLE: Duration = Duration::from_secs(10);
/// How long components may take to end by themselves: an agent waits for its executors first.
const GRACE: Duration = Duration::from_secs(60);
/// A component that ends this soon could not start: its last words are shown.
const SUDDEN: Duration = Duration::from_secs(3);
/// Looks at a cluster that comes up before it is said what is missing: 10 a second, if each is answered at once.
const LOOKS_IN_SILENCE: u32 = 100;
/// How long the cluster may take to come up.
const READY: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// How many agents.
    #[arg(long, env = "MESETA_AGENTS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=100))]
    agents: u16,
    /// How many masters. Several share their registry, and one of them leads.
    #[arg(long, env = "MESETA_LOCAL_MASTERS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=9))]
    masters: u16,
    /// Port of the first master; the others and the agents take the ones after it. 0 takes free ones,
    /// others at each start: a cluster that is to go on with its tasks after `kill -9` needs its own.
    #[arg(long, env = "MESETA_PORT", default_value_t = 5050)]
    port: u16,
    /// Directory for sandboxes and logs. Default: one for this port in the temporary directory.
    #[arg(long = "work_dir", env = "MESETA_WORK_DIR")]
    work_dir: Option<PathBuf>,
    /// Resources of each agent, such as `cpus:4;mem:4096`; the machine's when not given.
    #[arg(long, env = "MESETA_RESOURCES")]
    resources: Option<String>,
    /// How executors speak to their agents: `quic`, or `unix` for very many short tasks.
    #[arg(
        long = "executor_transport",
        env = "MESETA_EXECUTOR_TRANSPORT",
        default_value = "quic",
        value_parser = ["quic", "unix"]
    )]
    executor_transport: String,
    /// How long tasks run on without an agent. They outlive the end of `meseta local` by this if nobody wanted it, as
    /// after `kill -9`, and are found when it is started again in the same directory.
    #[arg(
        long = "recovery_timeout",
        env = "MESETA_RECOVERY_TIMEOUT",
        default_value = "2mins",
        value_parser = meseta_runtime::flags::duration
    )]
    recovery_timeout: Duration,
    /// What the components log.
    #[arg(
        long = "logging_level",
        env = "MESETA_LOGGING_LEVEL",
        default_value = "info",
        value_parser = meseta_runtime::flags::logging_level
    )]
    logging_level: String,
}

/// One component and the process it runs in.
struct Component {
    name: String,
    program: &'static str,
    flags: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
    started: Time,
    backoff: Backoff,
    /// Whether it has run for longer than a start takes, or was there when the cluster was ready.
    has_run: bool,
    /// How long its log was when it was started.
    log_before: u64,
    /// When to start it again, after it has ended.
    due: Option<Time>,
}

impl Component {
    fn new(name: &str, program: &'static str, dir: &Path, flags: Vec<String>) -> Self {
        Self {
            name: name.to_owned(),
            program,
            flags,
            log: dir.join("log"),
            child: None,
            has_run: false,
            log_before: 0,
            started: Time::ZERO,
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(5)),
            due: Some(Time::ZERO),
        }
    }

    fn start(&mut self, now: Time) -> anyhow::Result<()> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot write {}", self.log.display()))?;
        self.log_before = log.metadata()?.len();
        let child = Command::new(program(self.program))
            .args(&self.flags)
            // Closed when this process ends, however it does: its children end too.
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A terminal's Ctrl-C goes to the supervisor only, which ends its children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| {
                format!(
                    "cannot run {}: build it or put it beside meseta",
                    self.program
                )
            })?;
        say(&format!(
            "{:<10} pid {:<8} log {}",
            self.name,
            child.id().unwrap_or(0),
            self.log.display()
        ));
        self.child = Some(child);
        self.started = now;
        self.due = None;
        Ok(())
    }

    /// Whether its directory is nobody's now.
    fn take_directory(&self) -> Result<(), LockError> {
        let directory = self.log.parent().unwrap_or(&self.log);
        DirectoryLock::take(directory).map(drop)
    }

    /// Why it has ended, as its log has it since its last start.
    fn last_words(&self) -> Option<String> {
        let log = std::fs::read(&self.log).ok()?;
        let before = usize::try_from(self.log_before).ok()?;
        reason(&String::from_utf8_lossy(log.get(before..)?))
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().and_then(Child::id);
        if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok())
            && let Err(error) = kill(Pid::from_raw(pid), signal)
        {
            out::complain(&format!("cannot signal {}: {error}", self.name));
        }
    }
}

pub(crate) async fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let count = flags.masters + flags.agents;
    // Held until the end, so that a component has its port again when it starts again.
    let held = match flags.port {
        0 => Some(FreePorts::find(count.into())?),
        _ => None,
    };
    let ports = match &held {
        Some(free) => free.all().to_vec(),
        None => ports(flags.port, count)?,
    };
    let master = masters(&flags, &ports);
    let work_dir = flags
        .work_dir
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("meseta-local-{}", ports[0])));
    let mut ends = Ends::watch()?;
    let _lock = DirectoryLock::take(&work_dir).context("--work_dir")?;
    let mut components = components(&flags, &ports, &work_dir)?;
    tokio::select! {
        () = ends.come() => return Ok(ExitCode::SUCCESS),
        ended = earlier_ended(&components) => ended?,
    }
    if held.is_none() {
        are_free(&ports)?;
    }
    let clock = Clock::live();
    let supervised = supervise(
        &mut components,
        &clock,
        &mut ends,
        &flags,
        &master,
        &work_dir,
    )
    .await;
    // Whatever went wrong, nothing is left behind.
    stop(components).await;
    supervised?;
    Ok(ExitCode::SUCCESS)
}

/// Signals that end the cluster: Ctrl-C, SIGTERM, and the end of the terminal.
struct Ends {
    interrupt: Signals,
    terminate: Signals,
    hangup: Signals,
}

impl Ends {
    fn watch() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn come(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Starts the components and keeps them running until a signal comes or one cannot be started.
async fn supervise(
    components: &mut [Component],
    clock: &Clock,
    ends: &mut Ends,
    flags: &Flags,
    master: &str,
    work_dir: &Path,
) -> anyhow::Result<()> {
    for component in components.iter_mut() {
        component.start(clock.now())?;
    }
    let mut random = StdRng::seed_from_u64(u64::from(std::process::id()));
    let ready = announce(master, flags.agents, work_dir);
    tokio::pin!(ready);
    let mut announced = false;
    let mut look = tokio::time::interval(Duration::from_millis(50));
    loop {
        tokio::select! {
            () = ends.come() => return Ok(()),
            outcome = &mut ready, if !announced => {
                announced = true;
                outcome?;
                // What ends from here on has served, however short that was, and another start may heal it.
                for component in components.iter_mut() {
                    component.has_run = true;
                }
            }
            _ = look.tick() => {
                for component in components.iter_mut() {
                    tend(component, clock.now(), &mut random)?;
                }
            }
        }
    }
}

/// Why a program has ended, from what it has written: the paragraph of a bad flag, else the last line.
fn reason(log: &str) -> Option<String> {
    let mut lines = log.lines().skip_while(|line| !line.starts_with("error: "));
    let paragraph: Vec<&str> = lines
        .by_ref()
        .map_while(|line| Some(line.trim()).filter(|line| !line.is_empty()))
        .collect();
    if paragraph.is_empty() {
        let last = log.lines().rev().find(|line| !line.trim().is_empty());
        return last.map(str::to_owned);
    }
    Some(paragraph.join(" "))
}

/// Notices the end of a component and starts it again when its time has come.
fn tend(component: &mut Component, now: Time, random: &mut StdRng) -> anyhow::Result<()> {
    if let Some(child) = &mut component.child
        && let Some(status) = child.try_wait()?
    {
        let lived = now.since(component.started);
        component.has_run |= lived > SUDDEN;
        // By itself, not by a signal.
        if let Some(code) = status.code()
            && code != 0
            && !component.has_run
        {
            let why = component.last_words().unwrap_or_else(|| {
                format!(
                    "it has not written why to {}: is the disk full?",
                    component.log.display()
                )
            });
            anyhow::bail!("{} cannot start ({status}): {why}", component.name);
        }
        if lived > STABLE {
            component.backoff.reset();
        }
        let delay = component.backoff.next(random);
        say(&format!(
            "{:<10} ended ({status}); starts again in {delay:.1?}",
            component.name
        ));
        if lived < SUDDEN
            && let Some(why) = component.last_words()
        {
            say(&format!("{:<10} {why}", ""));
        }
        component.child = None;
        component.due = Some(now + delay);
    }
    if component.due.is_some_and(|due| due <= now) {
        component.start(now)?;
    }
    Ok(())
}

/// A line for whoever watches; nobody may.
fn say(line: &str) {
    let _gone = writeln!(std::io::stdout(), "{}", out::safe(line));
}

/// Ends agents before the master, so that they can take leave of it.
async fn stop(mut components: Vec<Component>) {
    say("ending …");
    components.reverse();
    let (agents, masters): (Vec<_>, Vec<_>) = components
        .into_iter()
        .partition(|component| component.program == "meseta-agent");
    for group in [agents, masters] {
        for component in &group {
            // On SIGTERM an agent would leave its executors to its next run.
            component.signal(Signal::SIGINT);
        }
        for mut component in group {
            let Some(child) = &mut component.child else {
                continue;
            };
            // Waiting closes it, upon which an agent might leave its executors to its next run instead.
            let _open = child.stdin.take();
            if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
                out::complain(&format!("{} does not end: killed", component.name));
                if let Err(error) = child.kill().await {
                    out::complain(&format!("cannot kill {}: {error}", component.name));
                }
            }
        }
    }
}

fn components(flags: &Flags, ports: &[u16], work_dir: &Path) -> anyhow::Result<Vec<Component>> {
    let make = |name: &str| -> anyhow::Result<PathBuf> {
        let dir = work_dir.join(name);
        std::fs::create_dir_all(&dir)
            .with_context(|| format!("--work_dir: cannot make {}", dir.display()))?;
        Ok(dir)
    };
    let common = |port: u16, dir: &Path| {
        vec![
            format!("--port={port}"),
            format!("--work_dir={}", dir.display()),
            format!("--logging_level={}", flags.logging_level),
            "--supervised".to_owned(),
        ]
    };
    let (of_masters, of_agents) = ports.split_at(usize::from(flags.masters));
    let list = masters(flags, ports);
    let mut all = Vec::new();
    for (number, port) in (1..).zip(of_masters) {
        let alone = flags.masters == 1;
        let name = if alone {
            "master".to_owned()
        } else {
            format!("master-{number}")
        };
        let dir = make(&name)?;
        let mut master = common(*port, &dir);
        if !alone {
            master.push(format!("--masters={list}"));
        }
        all.push(Component::new(&name, "meseta-master", &dir, master));
    }
    for (number, port) in (1..).zip(of_agents) {
        let name = format!("agent-{number}");
        let dir = make(&name)?;
        let mut agent = common(*port, &dir);
        agent.push(format!("--master={list}"));
        agent.push(format!("--executor_transport={}", flags.executor_transport));
        let recovery = flags.recovery_timeout.as_nanos();
        agent.push(format!("--recovery_timeout={recovery}ns"));
        if let Some(resources) = &flags.resources {
            agent.push(format!("--resources={resources}"));
        }
        all.push(Component::new(&name, "meseta-agent", &dir, agent));
    }
    Ok(all)
}

/// The masters as agents and commands name them.
fn masters(flags: &Flags, ports: &[u16]) -> String {
    let of_masters = ports.iter().take(usize::from(flags.masters));
    let all: Vec<String> = of_masters.map(|port| format!("127.0.0.1:{port}")).collect();
    all.join(",")
}

/// A port for each component, from the first one on.
fn ports(first: u16, components: u16) -> anyhow::Result<Vec<u16>> {
    let all: Option<Vec<u16>> = (0..components).map(|n| first.checked_add(n)).collect();
    let all = all.with_context(|| {
        format!(
            "--port={first} leaves no numbers for {components} masters and agents: give a lower one"
        )
    })?;
    Ok(all)
}

fn are_free(ports: &[u16]) -> anyhow::Result<()> {
    for port in ports {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
            && UdpSocket::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
        anyhow::ensure!(
            free,
            "port {port} is in use: end what uses it or give another --port"
        );
    }
    Ok(())
}

/// Waits for the components of an earlier cluster in these directories, which end by themselves when nobody supervises
/// them any more.
async fn earlier_ended(components: &[Component]) -> anyhow::Result<()> {
    let wait = async {
        let mut look = tokio::time::interval(Duration::from_millis(50));
        let mut told = false;
        for component in components {
            loop {
                look.tick().await;
                match component.take_directory() {
                    Err(LockError::InUse { owner, .. }) if !told => {
                        told = true;
                        let name = &component.name;
                        say(&format!(
                            "{name} of an earlier cluster in this directory ({owner}) is still ending: waiting for it"
                        ));
                    }
                    Err(LockError::InUse { .. }) => {}
                    Err(error) => return Err(anyhow::Error::from(error)),
                    Ok(()) => break,
                }
            }
        }
        Ok(())
    };
    match tokio::time::timeout(GRACE, wait).await {
        Ok(outcome) => outcome.context("--work_dir"),
        // Whoever has a directory is named by the component that needs it.
        Err(_) => Ok(()),
    }
}

/// Waits until every agent is registered, then says how to use the cluster.
async fn announce(master: &str, agents: u16, work_dir: &Path) -> anyhow::Result<()> {
    let all_in = async {
        let mut look = tokio::time::interval(Duration::from_millis(100));
        let mut looks = 0_u32;
        loop {
            look.tick().await;
            looks += 1;
            let active = get_json(master, "/state")
                .await
                .ok()
                .and_then(|state| state["activated_slaves"].as_f64());
            if active.is_some_and(|active| active >= f64::from(agents)) {
                return;
            }
            if looks == LOOKS_IN_SILENCE {
                say(&match active {
                    Some(active) => format!("waiting: {active} of {agents} agents are registered"),
                    None => format!("waiting: no master at {master} leads yet"),
                });
            }
        }
    };
    tokio::time::timeout(READY, all_in).await.with_context(|| {
        format!(
            "the cluster is not up after {READY:?}: see the logs in {}",
            work_dir.display()
        )
    })?;
    let first = master.split(',').next().unwrap_or(master);
    say(&format!(
        "
cluster ready: master {master}, {agents} agent(s), files in {}\n  \
         meseta execute --master {master} --command 'echo hello'\n  \
         meseta agents --master {master}\n  http://{first}/state\nCtrl-C ends it.",
        work_dir.display()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_an_end_is_the_flag_at_fault_or_the_last_line() {
        let usage = "2026 INFO up\nerror: invalid value 'x' for '--a <A>': no\n  [possible: y]\n\nFor more, --help.\n";
        assert_eq!(
            reason(usage).as_deref(),
            Some("error: invalid value 'x' for '--a <A>': no [possible: y]")
        );
        assert_eq!(reason("one\ntwo\n\n").as_deref(), Some("two"));
        assert_eq!(reason("\n"), None);
    }
}
