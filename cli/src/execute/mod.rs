//! `meseta execute`: runs a command on a cluster, any number of times, and follows every instance to its end.
//!
//! The pure part is [`Run`]: which instances wait, run and have ended. An instance that is lost through no fault of
//! its own is started again under a new task id, after a delay that grows each time; one that failed by itself is not.
//! With `--resume` it is written down how far all of them are ([`journal`]), before anybody is told of it, so that the same
//! line, after the program was killed, goes on where it was.

mod journal;
mod run;
mod waiting;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use meseta_protocol::agent::MasterInfo;
use meseta_protocol::common::CommandInfo;
use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::messages::scheduler::TaskQuestion;
use meseta_protocol::offer::{Filters, Offer};
use meseta_protocol::operation::Operation;
use meseta_protocol::resources::Resources;
use meseta_protocol::status::{StatusReason, TaskStatus};
use meseta_protocol::task::TaskInfo;
use meseta_protocol::{AgentId, FrameworkId, Role};
use meseta_runtime::{Backoff, Time};
use meseta_scheduler_driver::{Config, Handle, Scheduler, SchedulerDriver};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use self::journal::Journal;
use self::run::{Entry, Fate, Run};
use self::waiting::Waiting;
use crate::identity::Identity;
use crate::out;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Masters as host:port, a list of them, or a file with one.
    #[arg(long, env = "MESETA_MASTER", default_value = "127.0.0.1:5050")]
    master: String,
    /// Command, run by `sh -c`.
    #[arg(long, env = "MESETA_COMMAND")]
    command: String,
    /// How many times to run it.
    #[arg(long, env = "MESETA_INSTANCES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    instances: u32,
    /// What each instance may use.
    #[arg(
        long,
        env = "MESETA_EXECUTE_RESOURCES",
        default_value = "cpus:0.1;mem:32"
    )]
    resources: String,
    /// Environment of the command as NAME=VALUE; repeat for more.
    #[arg(long = "env", env = "MESETA_ENV", value_name = "K=V")]
    variables: Vec<String>,
    /// How long the tasks live on when the master loses sight of this program; Ctrl-C ends them at once.
    #[arg(long = "failover_timeout", env = "MESETA_FAILOVER_TIMEOUT", default_value = "30secs", value_parser = meseta_runtime::flags::duration)]
    failover_timeout: Duration,
    /// File in which it is written down how far all instances are. The same line goes on where it was, after this program
    /// was ended by whatever means but its own decision; nobody else may use the file meanwhile.
    #[arg(long, env = "MESETA_RESUME", value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Name shown for the framework and its tasks.
    #[arg(long, env = "MESETA_NAME", default_value = "execute")]
    name: String,
    /// Role to run in.
    #[arg(long, env = "MESETA_ROLE", default_value = "*")]
    role: String,
    /// User to run as; that of the agent when not given.
    #[arg(long, env = "MESETA_USER")]
    user: Option<String>,
    #[command(flatten)]
    identity: Identity,
    /// What to log: error, warn, info, debug.
    #[arg(
        long = "logging_level",
        env = "MESETA_LOGGING_LEVEL",
        default_value = "warn",
        value_parser = meseta_runtime::flags::logging_level
    )]
    logging_level: String,
}

/// What the main thread hears.
enum Event {
    Line(String),
    /// Nothing is heard, and why that may be.
    Waiting(String),
    Ended(u32, u32),
    Over {
        failed: u32,
    },
    Refused(String),
}

struct Executions {
    run: Run,
    /// Where it is written down how far the run is.
    journal: Option<Journal>,
    command: CommandInfo,
    each: Resources,
    name: String,
    verbose: bool,
    /// The delays of instances that were lost, each with its own.
    backoffs: BTreeMap<u32, Backoff>,
    random: StdRng,
    /// Agents that could not start a task, with the time until which they get no more.
    avoided: BTreeMap<AgentId, Time>,
    waiting: Waiting,
    events: Sender<Event>,
}

/// How long an agent that could not start a task is left alone.
const AVOID: Duration = Duration::from_secs(10);

/// Most of the first delay of an instance that was lost, and of later ones, which grow.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How often the master is asked about unfinished tasks.
const ASK_AGAIN: Duration = Duration::from_secs(5);

impl Executions {
    fn tell(&self, event: Event) {
        // The main thread may be ending; then nobody listens.
        let _gone = self.events.send(event);
    }

    /// Writes something down; `false` when that is not possible, upon which nothing may follow from it.
    fn note(&mut self, entries: &[Entry]) -> bool {
        let written = match &mut self.journal {
            Some(journal) => journal.note(entries),
            None => Ok(()),
        };
        if let Err(error) = &written {
            self.tell(Event::Refused(error.to_string()));
        }
        written.is_ok()
    }

    /// The master knows the framework by this id.
    fn subscribed(&mut self, driver: &mut Handle<'_>, id: &FrameworkId) {
        if let Some(journal) = &mut self.journal
            && let Err(error) = journal.note_framework(id)
        {
            self.tell(Event::Refused(error.to_string()));
            return;
        }
        // What an earlier program of this framework has launched may have ended meanwhile.
        self.ask_about_unfinished(driver);
        self.tell(Event::Ended(self.run.finished, self.run.failed));
        if self.run.is_over() {
            let failed = self.run.failed;
            self.tell(Event::Over { failed });
        }
    }
}

impl Executions {
    /// As many instances as the offer has room for.
    fn tasks_for(&mut self, offer: &Offer, now: Time) -> Vec<TaskInfo> {
        if self
            .avoided
            .get(&offer.agent_id)
            .is_some_and(|until| *until > now)
        {
            return Vec::new();
        }
        let mut room = offer.resources.unallocated();
        if !room.contains(&self.each) {
            self.waiting.too_small(&room);
        }
        let mut tasks = Vec::new();
        while room.contains(&self.each) {
            let Some(task_id) = self.run.start_next(&offer.agent_id) else {
                break;
            };
            room -= &self.each;
            self.waiting.heard(&task_id, now);
            tasks.push(TaskInfo {
                name: self.name.clone(),
                task_id,
                agent_id: offer.agent_id.clone(),
                resources: self.each.clone(),
                command: Some(self.command.clone()),
                ..TaskInfo::default()
            });
        }
        tasks
    }

    /// Starts a lost instance again after its delay.
    fn try_again(&mut self, driver: &mut Handle<'_>, instance: u32) {
        let backoff = self.backoffs.entry(instance);
        let backoff = backoff.or_insert_with(|| Backoff::new(AGAIN.0, AGAIN.1));
        let delay = backoff.next(&mut self.random);
        driver.after(delay, move |executions: &mut Self, driver| {
            executions.run.rested(instance);
            driver.revive_offers(Vec::new());
        });
    }

    /// Updates that the master makes itself come at most once: asks whether one was missed.
    fn ask_about_unfinished(&self, driver: &mut Handle<'_>) {
        let questions: Vec<TaskQuestion> = self
            .run
            .running
            .iter()
            .map(|(task_id, (_, agent_id))| TaskQuestion {
                task_id: task_id.clone(),
                agent_id: Some(agent_id.clone()),
            })
            .collect();
        if !questions.is_empty() {
            driver.reconcile_tasks(questions);
        }
    }
}

fn ask_again_and_again(driver: &mut Handle<'_>) {
    driver.after(ASK_AGAIN, |executions: &mut Executions, driver| {
        if let Some(text) = executions
            .waiting
            .look(driver.now(), &executions.run, &executions.each)
        {
            executions.tell(Event::Waiting(text));
        }
        executions.ask_about_unfinished(driver);
        ask_again_and_again(driver);
    });
}

impl Scheduler for Executions {
    fn registered(&mut self, driver: &mut Handle<'_>, id: &FrameworkId, _: &MasterInfo) {
        self.tell(Event::Line(format!("framework {id}")));
        self.subscribed(driver, id);
        ask_again_and_again(driver);
    }

    fn reregistered(&mut self, driver: &mut Handle<'_>, _: &MasterInfo) {
        self.tell(Event::Line("the master is back".to_owned()));
        self.waiting.connected();
        self.ask_about_unfinished(driver);
    }

    fn disconnected(&mut self, driver: &mut Handle<'_>) {
        self.waiting.disconnected(driver.now());
        self.tell(Event::Line("the master is away: waiting for it".to_owned()));
    }

    fn resource_offers(&mut self, driver: &mut Handle<'_>, offers: Vec<Offer>) {
        for offer in offers {
            let tasks = self.tasks_for(&offer, driver.now());
            let entries: Vec<Entry> = tasks
                .iter()
                .filter_map(|task| self.run.launched(&task.task_id))
                .collect();
            if tasks.is_empty() || !self.note(&entries) {
                driver.decline_offer(offer.id, Filters::refusing(1.0));
            } else {
                driver.accept_offers(
                    vec![offer.id],
                    vec![Operation::launch(tasks)],
                    Filters::refusing(0.0),
                );
            }
        }
    }

    fn status_update(&mut self, driver: &mut Handle<'_>, status: &TaskStatus) {
        self.waiting.heard(&status.task_id, driver.now());
        let fate = self.run.update(status);
        let entry = match fate {
            Fate::Going => None,
            Fate::Again(instance) => Some(Entry::Lost(instance)),
            Fate::Over(instance, is_fine) => Some(Entry::Over(instance, is_fine)),
        };
        // Once this returns the update is acknowledged, and nobody tells of it again.
        if let Some(entry) = entry
            && !self.note(&[entry])
        {
            return;
        }
        let unable = matches!(
            status.reason,
            Some(StatusReason::ContainerLaunchFailed | StatusReason::ExecutorRegistrationTimeout)
        );
        if let Some(agent) = status
            .agent_id
            .as_ref()
            .filter(|_| matches!(fate, Fate::Again(_)) && unable)
        {
            self.avoided.insert(agent.clone(), driver.now() + AVOID);
        }
        let message = status
            .message
            .as_deref()
            .map(|text| format!(" ({text})"))
            .unwrap_or_default();
        let tells = match fate {
            // What is asked for every few seconds is no news.
            Fate::Going => self.verbose && status.reason != Some(StatusReason::Reconciliation),
            Fate::Over(_, is_fine) => self.verbose || !is_fine,
            Fate::Again(_) => true,
        };
        if tells {
            self.tell(Event::Line(format!(
                "{} {}{message}",
                status.task_id, status.state
            )));
        }
        match fate {
            Fate::Going => {}
            Fate::Again(instance) => self.try_again(driver, instance),
            Fate::Over(..) => self.tell(Event::Ended(self.run.finished, self.run.failed)),
        }
        if matches!(fate, Fate::Over(..)) && self.run.is_over() {
            let failed = self.run.failed;
            self.tell(Event::Over { failed });
        }
    }

    fn error(&mut self, _: &mut Handle<'_>, message: &str) {
        let remedy = match &self.journal {
            Some(journal) => format!(": {}", journal.remedy()),
            None => String::new(),
        };
        let why = format!("the master refuses the framework: {message}{remedy}");
        self.tell(Event::Refused(why));
    }
}

/// Instances up to which every change of state is printed.
const VERBOSE: u32 = 20;

pub(crate) async fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    meseta_runtime::logging::init(&flags.logging_level);
    let (events, log) = channel();
    let mut executions = executions(&flags, events)?;
    let mut framework =
        FrameworkInfo::new(flags.user.clone().unwrap_or_default(), flags.name.clone())
            .in_roles([Role::new(flags.role.as_str())]);
    framework.failover_timeout = flags.failover_timeout.as_secs_f64();
    // What runs goes on when the program of its agent is restarted.
    framework.checkpoint = true;
    if let Some(path) = &flags.resume {
        let (journal, found) = Journal::open(path, flags.instances, &flags.command, || {
            let file = path.display();
            out::complain(&format!("another program uses {file}: waiting for its end"));
        })?;
        for entry in &found.entries {
            executions.run.follow(entry);
        }
        framework.id = found.framework;
        executions.journal = Some(journal);
        if executions.run.is_over() {
            // The master has forgotten the framework by now.
            let Run {
                finished, failed, ..
            } = executions.run;
            out::line(&format!("{finished} finished, {failed} failed"))?;
            return Ok(verdict(failed));
        }
    }
    let mut config = Config::new(&flags.master, framework);
    config.credentials = flags.identity.credentials()?;
    if let Some(ip) = &flags.identity.advertise_ip {
        config.host.clone_from(ip);
    }
    let driver = SchedulerDriver::start(config, executions)?;
    let instances = flags.instances;
    let master = flags.master.clone();
    let follow = tokio::task::spawn_blocking(move || follow(&log, instances, &master));
    let outcome = tokio::select! {
        outcome = follow => outcome?,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted: the tasks are killed")),
        () = terminated() => Err(anyhow::anyhow!("terminated: the tasks are killed")),
    };
    driver.stop(false);
    driver.join();
    outcome
}

async fn terminated() {
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(error) => {
            tracing::warn!(%error, "SIGTERM cannot be watched for");
            std::future::pending::<()>().await;
        }
    }
}

fn executions(flags: &Flags, events: Sender<Event>) -> anyhow::Result<Executions> {
    let each: Resources = flags.resources.parse().with_context(|| {
        format!(
            "--resources={}: write for example cpus:0.1;mem:32",
            flags.resources
        )
    })?;
    anyhow::ensure!(
        !each.is_empty(),
        "--resources is empty: a task must use something, for example cpus:0.1;mem:32"
    );
    anyhow::ensure!(
        !flags.command.trim().is_empty(),
        "--command is empty: name what to run, for example --command 'echo hello'"
    );
    let mut command = CommandInfo::shell(flags.command.clone());
    command.user.clone_from(&flags.user);
    for variable in &flags.variables {
        let (name, value) = variable
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .with_context(|| format!("--env={variable}: write NAME=VALUE"))?;
        command = command.with_variable(name, value);
    }
    Ok(Executions {
        run: Run::new(flags.instances),
        journal: None,
        command,
        each,
        name: flags.name.clone(),
        verbose: flags.instances <= VERBOSE,
        backoffs: BTreeMap::new(),
        random: StdRng::seed_from_u64(u64::from(std::process::id())),
        avoided: BTreeMap::new(),
        waiting: Waiting::default(),
        events,
    })
}

/// How long to wait for the master before saying so.
const PATIENCE: Duration = Duration::from_secs(3);

/// Shows what happens until all instances are over.
fn follow(log: &Receiver<Event>, instances: u32, master: &str) -> anyhow::Result<ExitCode> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg} {elapsed}")?;
    let bar = ProgressBar::new(u64::from(instances)).with_style(style);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let first = match log.recv_timeout(PATIENCE) {
        Err(RecvTimeoutError::Timeout) => {
            complain(
                &bar,
                &format!("no master answers at {master} yet: is it running there? Trying on"),
            );
            None
        }
        first => Some(first.context("the driver has ended")?),
    };
    let (mut finished, mut ended_failed) = (0, 0);
    let rest = std::iter::from_fn(|| log.recv().ok());
    for event in first.into_iter().chain(rest) {
        match event {
            Event::Line(line) => say(&bar, &line),
            Event::Waiting(text) => complain(&bar, &text),
            Event::Ended(fine, failed) => {
                (finished, ended_failed) = (fine, failed);
                bar.set_position(u64::from(fine + failed));
                if failed > 0 {
                    bar.set_message(format!("{failed} failed"));
                }
            }
            Event::Over { failed } => {
                bar.finish_and_clear();
                say(&bar, &format!("{finished} finished, {ended_failed} failed"));
                return Ok(verdict(failed));
            }
            Event::Refused(why) => anyhow::bail!("cannot go on: {why}"),
        }
    }
    anyhow::bail!("the driver has ended")
}

fn verdict(failed: u32) -> ExitCode {
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A line of its own, above the bar where there is one. A reader that has gone, as behind a pipe, changes nothing.
fn say(bar: &ProgressBar, line: &str) {
    bar.suspend(|| {
        let _gone = writeln!(std::io::stdout(), "{}", out::safe(line));
    });
}

/// The same on the standard error.
fn complain(bar: &ProgressBar, line: &str) {
    bar.suspend(|| out::complain(line));
}
