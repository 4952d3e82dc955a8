//! A framework that launches short tasks all the time, and remembers what it was told of each.
//!
//! Each task leaves a file of its name, so that whether and how often it ran can be seen without asking the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use meseta_protocol::agent::MasterInfo;
use meseta_protocol::common::CommandInfo;
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::messages::scheduler::TaskQuestion;
use meseta_protocol::offer::{Filters, Offer};
use meseta_protocol::resources::Resources;
use meseta_protocol::status::{StatusReason, TaskState, TaskStatus};
use meseta_protocol::task::TaskInfo;
use meseta_protocol::{AgentId, FrameworkId, TaskId};
use meseta_runtime::{Clock, Time};
use meseta_scheduler_driver::{Config, Handle, Scheduler, SchedulerDriver};
use meseta_tests::{program, wait_for};

/// How much a framework does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Launches a second that are aimed at.
    pub(super) rate: f64,
    /// Tasks that may be under way at once: more wait for a master that answers.
    pub(super) under_way: usize,
    /// Whether its tasks go on when their agent is started again.
    pub(super) checkpoint: bool,
}

/// How often the master is asked about unfinished tasks.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// One launched task.
struct Launched {
    at: Time,
    agent: AgentId,
    /// How it ended, as the framework was told first.
    end: Option<TaskStatus>,
}

/// What the framework knows.
#[derive(Default)]
struct Ledger {
    tasks: BTreeMap<TaskId, Launched>,
    under_way: usize,
    /// When updates came.
    updates: Vec<Time>,
    /// Ends that were told after another one.
    contradictions: Vec<String>,
    frameworks: BTreeSet<FrameworkId>,
    subscriptions: u32,
    errors: Vec<String>,
    is_launching: bool,
}

/// The running framework.
pub(super) struct Load {
    driver: Option<SchedulerDriver>,
    ledger: Arc<Mutex<Ledger>>,
    directory: PathBuf,
}

/// How tasks went.
pub(super) struct Tally {
    pub(super) launched: usize,
    pub(super) finished: usize,
    pub(super) lost: usize,
    pub(super) subscriptions: u32,
}

impl Load {
    /// Starts it; tasks leave their files in `directory`.
    pub(super) fn start(mut config: Config, directory: PathBuf, clock: &Clock, pace: Pace) -> Self {
        std::fs::create_dir_all(&directory).unwrap();
        let ledger = Arc::new(Mutex::new(Ledger {
            is_launching: true,
            ..Ledger::default()
        }));
        let once = program("examples/once").display().to_string();
        let command = CommandInfo::exec(once, [directory.display().to_string()]);
        let mut executor = ExecutorInfo::custom("once", command);
        executor.resources = "cpus:0.1;mem:32".parse().unwrap();
        config.framework = FrameworkInfo::new("", "load");
        config.framework.failover_timeout = 3600.0;
        config.framework.checkpoint = pace.checkpoint;
        let launcher = Launcher {
            ledger: Arc::clone(&ledger),
            clock: clock.clone(),
            executor,
            task: "cpus:0.01;mem:1".parse().unwrap(),
            directory: directory.clone(),
            pace,
            owed: 0.0,
            paid: clock.now(),
        };
        let driver = SchedulerDriver::start(config, launcher).unwrap();
        Self {
            driver: Some(driver),
            ledger,
            directory,
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    /// How many tasks that were launched after `since` have finished.
    pub(super) fn finished_since(&self, since: Time) -> usize {
        let ledger = self.ledger();
        let young = ledger.tasks.values().filter(|task| task.at > since);
        young.filter(|task| task.has_finished()).count()
    }

    /// When updates came.
    pub(super) fn updates(&self) -> Vec<Time> {
        self.ledger().updates.clone()
    }

    /// Launches no more, waits until the end of each task is known, and judges. The framework ends.
    pub(super) fn ends_well(mut self) -> Tally {
        self.ledger().is_launching = false;
        wait_for("the end of every task to be known", || {
            let ledger = self.ledger();
            (ledger.under_way == 0).then_some(())
        });
        if let Some(driver) = self.driver.take() {
            driver.stop(false);
            driver.join();
        }
        let ledger = self.ledger();
        assert_eq!(ledger.errors, [""; 0]);
        assert_eq!(ledger.frameworks.len(), 1, "{:?}", ledger.frameworks);
        assert_eq!(ledger.contradictions, [""; 0]);
        let ran = names(&self.directory);
        let twice = std::fs::read_to_string(self.directory.with_extension("twice"));
        assert_eq!(twice.unwrap_or_default(), "", "tasks ran twice");
        let launched: BTreeSet<&str> = ledger.tasks.keys().map(TaskId::as_str).collect();
        let strange: Vec<&String> = ran
            .iter()
            .filter(|name| !launched.contains(name.as_str()))
            .collect();
        assert!(strange.is_empty(), "never launched, and ran: {strange:?}");
        let mut tally = Tally {
            launched: launched.len(),
            finished: 0,
            lost: 0,
            subscriptions: ledger.subscriptions,
        };
        for (id, task) in &ledger.tasks {
            let ran = ran.contains(id.as_str());
            if task.has_finished() {
                tally.finished += 1;
                assert!(ran, "{id} is said to have finished, and has not run");
            } else {
                tally.lost += 1;
                assert!(
                    !(ran && task.is_said_never_to_run()),
                    "{id} ran, though the framework was told {:?}",
                    task.end
                );
            }
        }
        tally
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        // Whoever panicked may have held it.
        let Ok(ledger) = self.ledger.lock() else {
            return;
        };
        let open: Vec<&TaskId> = ledger
            .tasks
            .iter()
            .filter_map(|(id, task)| task.end.is_none().then_some(id))
            .collect();
        eprintln!(
            "{} tasks launched, the last at {:?}; {} updates, the last at {:?}; without an end: {open:?}; errors: {:?}",
            ledger.tasks.len(),
            ledger.tasks.values().map(|task| task.at).max(),
            ledger.updates.len(),
            ledger.updates.last(),
            ledger.errors,
        );
    }
}

impl Launched {
    fn has_finished(&self) -> bool {
        self.end
            .as_ref()
            .is_some_and(|end| end.state == TaskState::Finished)
    }

    /// Whether the framework may launch it elsewhere without a second thought.
    fn is_said_never_to_run(&self) -> bool {
        self.end.as_ref().is_some_and(|end| {
            matches!(
                end.reason,
                Some(StatusReason::MasterDisconnected | StatusReason::Reconciliation)
            )
        })
    }
}

/// Names of what lies in a directory.
fn names(directory: &Path) -> BTreeSet<String> {
    let all = std::fs::read_dir(directory).unwrap();
    all.map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Whether two statuses that are updates are not the same update. Answers to questions are none.
fn is_another(one: &TaskStatus, other: &TaskStatus) -> bool {
    one.uuid.is_some() && other.uuid.is_some() && one.uuid != other.uuid
}

struct Launcher {
    ledger: Arc<Mutex<Ledger>>,
    clock: Clock,
    executor: ExecutorInfo,
    task: Resources,
    directory: PathBuf,
    pace: Pace,
    /// Launches that the rate allows by now.
    owed: f64,
    paid: Time,
}

impl Launcher {
    fn tasks_for(&mut self, offer: &Offer) -> Vec<TaskInfo> {
        let now = self.clock.now();
        self.owed += now.since(self.paid).as_secs_f64() * self.pace.rate;
        // Not all at once after a pause.
        self.owed = self.owed.min((self.pace.rate / 2.0).max(1.0));
        self.paid = now;
        let mut ledger = self.ledger.lock().unwrap();
        let mut room = offer.resources.unallocated();
        let mut tasks = Vec::new();
        let executor = &self.executor.resources;
        if !room.contains(executor) {
            return tasks;
        }
        room -= executor;
        while ledger.is_launching
            && self.owed >= 1.0
            && ledger.under_way < self.pace.under_way
            && room.contains(&self.task)
        {
            self.owed -= 1.0;
            room -= &self.task;
            let number = ledger.tasks.len() + 1;
            let id = format!("task-{number}");
            let mut task = TaskInfo::new(
                id.as_str(),
                offer.agent_id.clone(),
                self.task.clone(),
                format!(
                    "mkdir {dir}/{id} || echo {id} >> {dir}.twice",
                    dir = self.directory.display()
                ),
            );
            // Every tenth is a program of its own.
            if !number.is_multiple_of(10) {
                task.command = None;
                task.executor = Some(self.executor.clone());
            }
            let launched = Launched {
                at: now,
                agent: offer.agent_id.clone(),
                end: None,
            };
            ledger.tasks.insert(task.task_id.clone(), launched);
            ledger.under_way += 1;
            tasks.push(task);
        }
        tasks
    }

    /// What the master itself says of tasks comes at most once: asks whether it was missed.
    fn ask(&self, driver: &mut Handle<'_>) {
        let ledger = self.ledger.lock().unwrap();
        let open = ledger.tasks.iter().filter(|(_, task)| task.end.is_none());
        let questions: Vec<TaskQuestion> = open
            .map(|(id, task)| TaskQuestion {
                task_id: id.clone(),
                agent_id: Some(task.agent.clone()),
            })
            .collect();
        drop(ledger);
        if !questions.is_empty() {
            driver.reconcile_tasks(questions);
        }
    }
}

fn ask_again_and_again(driver: &mut Handle<'_>) {
    driver.after(ASK_AGAIN, |launcher: &mut Launcher, driver| {
        launcher.ask(driver);
        ask_again_and_again(driver);
    });
}

impl Scheduler for Launcher {
    fn registered(&mut self, driver: &mut Handle<'_>, id: &FrameworkId, _: &MasterInfo) {
        let mut ledger = self.ledger.lock().unwrap();
        ledger.frameworks.insert(id.clone());
        ledger.subscriptions += 1;
        drop(ledger);
        ask_again_and_again(driver);
    }

    fn reregistered(&mut self, driver: &mut Handle<'_>, _: &MasterInfo) {
        let mut ledger = self.ledger.lock().unwrap();
        ledger.frameworks.extend(driver.framework_id().cloned());
        ledger.subscriptions += 1;
        drop(ledger);
        self.ask(driver);
    }

    fn resource_offers(&mut self, driver: &mut Handle<'_>, offers: Vec<Offer>) {
        for offer in offers {
            let tasks = self.tasks_for(&offer);
            if tasks.is_empty() {
                driver.decline_offer(offer.id, Filters::refusing(0.0));
            } else {
                driver.launch_tasks(vec![offer.id], tasks, Filters::refusing(0.0));
            }
        }
    }

    fn status_update(&mut self, _: &mut Handle<'_>, status: &TaskStatus) {
        let now = self.clock.now();
        let mut ledger = self.ledger.lock().unwrap();
        let ledger = &mut *ledger;
        ledger.updates.push(now);
        let Some(task) = ledger.tasks.get_mut(&status.task_id) else {
            let line = format!("of a task that was never launched: {status:?}");
            ledger.contradictions.push(line);
            return;
        };
        match &task.end {
            None if status.state.is_terminal() => {
                task.end = Some(status.clone());
                ledger.under_way -= 1;
            }
            // An end is one update: it may come again until it is acknowledged, as the same one.
            Some(end) if end.state != status.state || is_another(end, status) => {
                let line = format!("{end:?} was followed by {status:?}");
                ledger.contradictions.push(line);
            }
            Some(_) | None => {}
        }
    }

    fn error(&mut self, _: &mut Handle<'_>, message: &str) {
        let mut ledger = self.ledger.lock().unwrap();
        ledger.errors.push(message.to_owned());
    }
}
