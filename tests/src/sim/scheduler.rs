//! A framework's scheduler, played from a seed: it launches tasks of all kinds and groups of them, kills some, asks about them, says that
//! it wants no more offers and then that it does, and acknowledges at once or later.

use std::collections::BTreeMap;
use std::time::Duration;

use meseta_protocol::agent::MasterInfo;
use meseta_protocol::common::CommandInfo;
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::framework::{FrameworkCapabilities, FrameworkCapability, FrameworkInfo};
use meseta_protocol::messages::scheduler::TaskQuestion;
use meseta_protocol::offer::{Filters, Offer};
use meseta_protocol::resources::Resources;
use meseta_protocol::status::{StatusReason, TaskState, TaskStatus};
use meseta_protocol::task::{KillPolicy, TaskInfo};
use meseta_protocol::{FrameworkId, TaskId};
use meseta_runtime::Time;
use meseta_scheduler_driver::{Handle, Options, Scheduler};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::machine::Script;
use super::notes::{Shared, Task};
use crate::invariants::{Event, Heard};

/// Program of a framework's own executor, by which the machine knows it.
pub const CUSTOM: &str = "simulated-executor";

/// Time between two looks of a scheduler at its books.
const TICK: Duration = Duration::from_secs(2);

/// How a framework behaves; drawn once per run.
#[derive(Debug, Clone, PartialEq)]
pub struct Character {
    /// Whether it understands TASK_UNREACHABLE and its like.
    pub aware: bool,
    /// Whether it hears of TASK_KILLING.
    pub killing: bool,
    /// Whether its tasks outlive their agent's program.
    pub checkpoint: bool,
    /// How long the master waits for it, seconds.
    pub failover_timeout: f64,
    /// Its role.
    pub role: &'static str,
    /// Whether it acknowledges by itself, a while after the update.
    pub explicit: bool,
    /// How many tasks it wants to run.
    pub tasks: usize,
    /// Longest time a task runs.
    pub longest: Duration,
    /// Share of tasks it kills.
    pub kills: f64,
    /// Share of tasks that do not end when asked to.
    pub stubborn: f64,
    /// Share of tasks that run on its own executor.
    pub custom: f64,
    /// Share of launches that are groups of tasks, on executors of their own.
    pub groups: f64,
    /// Share of offers it declines though it wants more tasks.
    pub declines: f64,
    /// Share of tasks that are larger than their offer.
    pub greedy: f64,
    /// Whether it suppresses offers when it wants no more.
    pub suppresses: bool,
    /// Time between two questions about all tasks.
    pub asks_every: Duration,
}

impl Character {
    /// Draws one.
    pub fn draw(random: &mut StdRng) -> Self {
        let share = |random: &mut StdRng, most: f64| {
            if random.random_bool(0.5) {
                random.random_range(0.0..most)
            } else {
                0.0
            }
        };
        Self {
            aware: random.random_bool(0.5),
            killing: random.random_bool(0.5),
            failover_timeout: [0.0, 10.0, 600.0][random.random_range(0..3)],
            role: ["*", "a", "a/b"][random.random_range(0..3)],
            explicit: random.random_bool(0.5),
            tasks: random.random_range(1..=10),
            longest: Duration::from_secs(random.random_range(1..=40)),
            kills: share(random, 0.6),
            stubborn: share(random, 0.5),
            custom: share(random, 1.0),
            // Drawn by the plan, from a source of its own.
            groups: 0.0,
            declines: share(random, 0.5),
            greedy: share(random, 0.2),
            suppresses: random.random_bool(0.5),
            asks_every: Duration::from_secs(random.random_range(10..=40)),
            checkpoint: random.random_bool(0.6),
        }
    }

    /// The framework as it describes itself.
    pub fn info(&self, number: usize, id: Option<FrameworkId>) -> FrameworkInfo {
        let capabilities = [
            (true, FrameworkCapability::MultiRole),
            (true, FrameworkCapability::ReservationRefinement),
            (self.aware, FrameworkCapability::PartitionAware),
            (self.killing, FrameworkCapability::TaskKillingState),
        ];
        let mut info =
            FrameworkInfo::new("nobody", format!("framework {number}")).in_roles([self.role]);
        let has = capabilities.into_iter().filter(|(has, _)| *has);
        info.capabilities = FrameworkCapabilities::of(has.map(|(_, capability)| capability));
        info.failover_timeout = self.failover_timeout;
        info.checkpoint = self.checkpoint;
        info.id = id;
        info
    }

    /// What its driver is told.
    pub fn options(&self) -> Options {
        Options {
            explicit_acknowledgements: self.explicit,
            ..Options::default()
        }
    }
}

/// One driver's scheduler. Its framework may have had others before.
pub struct Player {
    number: usize,
    driver: usize,
    character: Character,
    random: StdRng,
    shared: Shared,
    ticking: bool,
    suppressed: bool,
    next_question: Time,
    next_kill: BTreeMap<TaskId, Time>,
    /// Updates to be acknowledged, with when.
    owed: Vec<(Time, TaskStatus)>,
}

impl Player {
    /// The next scheduler of framework `number`.
    pub fn new(number: usize, character: Character, seed: u64, shared: Shared) -> Self {
        let driver = {
            let book = &mut shared.lock().books[number];
            book.driver += 1;
            book.driver
        };
        let salt = (number as u64) << 32 | driver as u64;
        Self {
            number,
            driver,
            character,
            random: StdRng::seed_from_u64(seed ^ salt.rotate_left(17)),
            shared,
            ticking: false,
            suppressed: false,
            next_question: Time::default(),
            next_kill: BTreeMap::new(),
            owed: Vec::new(),
        }
    }

    fn follow(&self, master: &MasterInfo) {
        let mut notes = self.shared.lock();
        let known = notes.books[self.number].master.replace(master.id.clone());
        if known.as_ref() != Some(&master.id) {
            notes.note(Event::Followed(self.number));
        }
    }

    fn begin(&mut self, driver: &mut Handle<'_>) {
        // What happened while nobody listened is asked for soon.
        self.next_question = driver.now() + Duration::from_secs(3);
        if !self.ticking {
            self.ticking = true;
            driver.after(TICK, Self::tick);
        }
    }

    fn tick(&mut self, driver: &mut Handle<'_>) {
        driver.after(TICK, Self::tick);
        let now = driver.now();
        if self.shared.lock().ending {
            self.leave(driver);
            return;
        }
        self.pay(driver, now);
        self.kill(driver, now);
        self.ask(driver, now);
        self.wish(driver);
    }

    /// The framework has done its work.
    fn leave(&mut self, driver: &mut Handle<'_>) {
        let mut notes = self.shared.lock();
        if !notes.books[self.number].over {
            notes.books[self.number].over = true;
            notes.note(Event::FrameworkOver(self.number));
        }
        driver.stop(false);
    }

    /// Acknowledges what is due.
    fn pay(&mut self, driver: &mut Handle<'_>, now: Time) {
        let owed = std::mem::take(&mut self.owed);
        let (due, later): (Vec<_>, Vec<_>) = owed.into_iter().partition(|(at, _)| *at <= now);
        self.owed = later;
        for (_, status) in due {
            self.acknowledged(&status);
            driver.acknowledge(&status);
        }
    }

    fn acknowledged(&self, status: &TaskStatus) {
        if let Some(uuid) = status.uuid {
            self.shared.lock().note(Event::Acknowledged {
                task: status.task_id.clone(),
                uuid,
            });
        }
    }

    /// Kills are repeated until the task has ended.
    fn kill(&mut self, driver: &mut Handle<'_>, now: Time) {
        let notes = self.shared.lock();
        for (id, task) in &notes.books[self.number].tasks {
            let due = task.kill_at.is_some_and(|at| at <= notes.now) && !task.is_settled();
            let again = self.next_kill.get(id).is_none_or(|at| *at <= now);
            if due && again {
                self.next_kill
                    .insert(id.clone(), now + Duration::from_secs(7));
                let policy = self.random.random_bool(0.5).then(|| KillPolicy {
                    grace_period: Some(Duration::from_secs(1).into()),
                });
                if self.random.random_bool(0.5) {
                    driver.kill_task(id.clone(), policy);
                } else {
                    driver.kill_task_on(task.agent.clone(), id.clone(), policy);
                }
            }
        }
    }

    fn ask(&mut self, driver: &mut Handle<'_>, now: Time) {
        if now < self.next_question {
            return;
        }
        self.next_question = now + self.character.asks_every;
        let unsettled: Vec<TaskQuestion> = {
            let notes = self.shared.lock();
            let tasks = notes.books[self.number].tasks.iter();
            tasks
                .filter(|(_, task)| !task.is_settled())
                .map(|(id, task)| TaskQuestion {
                    task_id: id.clone(),
                    agent_id: Some(task.agent.clone()),
                })
                .collect()
        };
        if !unsettled.is_empty() {
            driver.reconcile_tasks(unsettled);
        }
        if self.random.random_bool(0.2) {
            driver.reconcile_tasks(Vec::new());
        }
    }

    /// Wants offers as long as it wants tasks.
    fn wish(&mut self, driver: &mut Handle<'_>) {
        let wants = {
            let notes = self.shared.lock();
            notes.books[self.number].wanted > 0 && !notes.draining
        };
        if self.character.suppresses && wants == self.suppressed {
            self.suppressed = !wants;
            if wants {
                driver.revive_offers(Vec::new());
            } else {
                driver.suppress_offers(Vec::new());
            }
        }
    }

    fn answer(&mut self, driver: &mut Handle<'_>, offer: Offer) {
        let wants = {
            let notes = self.shared.lock();
            notes.books[self.number].wanted > 0 && !notes.draining
        };
        let filters = Filters {
            refuse_seconds: [0.0, 1.0, 5.0, 20.0][self.random.random_range(0..4)],
        };
        let declines = !wants || self.random.random_bool(self.character.declines);
        let groups = self.character.groups;
        if !declines && groups > 0.0 && self.random.random_bool(groups) {
            self.launch_group(driver, offer, filters);
            return;
        }
        let tasks = if declines {
            Vec::new()
        } else {
            self.tasks_for(&offer)
        };
        if tasks.is_empty() {
            driver.decline_offer(offer.id, filters);
        } else {
            driver.launch_tasks(vec![offer.id], tasks, filters);
        }
    }

    fn tasks_for(&mut self, offer: &Offer) -> Vec<TaskInfo> {
        let mut left = offer.resources.unallocated();
        let mut tasks = Vec::new();
        let most = self.random.random_range(1..=3);
        while tasks.len() < most {
            let Some(task) = self.next_task(offer, &mut left) else {
                break;
            };
            tasks.push(task);
        }
        tasks
    }

    /// Thousandths of a cpu, mebibytes, and perhaps a port.
    fn size(&mut self, left: &Resources) -> Resources {
        let cpus = self.random.random_range(1..=15) * 100;
        let mem = self.random.random_range(1..=8) * 16;
        let mut text = format!("cpus:{}.{:03};mem:{mem}", cpus / 1000, cpus % 1000);
        if let Some(ports) = left.ports()
            && let Some(port) = ports.numbers().next()
            && self.random.random_bool(0.3)
        {
            text.push_str(&format!(";ports:[{port}-{port}]"));
        }
        text.parse().unwrap_or_default()
    }

    /// What it launches on an offer that it wants to use for a group.
    fn launch_group(&mut self, driver: &mut Handle<'_>, offer: Offer, filters: Filters) {
        let name = format!("f{}-g{}", self.number, self.random.random_range(0..2));
        let mut executor = ExecutorInfo::custom(name, CommandInfo::shell(CUSTOM));
        executor.resources = "cpus:0.1;mem:32;disk:8".parse().unwrap_or_default();
        let mut left = offer.resources.unallocated();
        let has_room = left.contains(&executor.resources);
        left -= &executor.resources;
        let mut tasks = Vec::new();
        let most = self.random.random_range(1..=3);
        while has_room && tasks.len() < most {
            let greedy = self.random.random_bool(self.character.greedy);
            let resources = if greedy {
                "cpus:1000".parse().unwrap_or_default()
            } else {
                self.size(&left)
            };
            if !greedy && !left.contains(&resources) {
                break;
            }
            let Some((id, script)) = self.launched(&offer) else {
                break;
            };
            if !greedy {
                left -= &resources;
            }
            let agent = offer.agent_id.clone();
            let mut task = TaskInfo::new(id, agent, resources, "");
            task.command = None;
            task.data = Some(script.to_string().into_bytes().into());
            tasks.push(task);
        }
        if tasks.is_empty() {
            driver.decline_offer(offer.id, filters);
            return;
        }
        let ids = tasks.iter().map(|task| task.task_id.clone()).collect();
        self.shared
            .lock()
            .note(Event::LaunchedTogether { tasks: ids });
        driver.launch_group(vec![offer.id], executor, tasks, filters);
    }

    /// Notes that one more task is launched, if it wants one: its id, and what it does.
    fn launched(&mut self, offer: &Offer) -> Option<(TaskId, Script)> {
        let longest = self.character.longest.as_millis().max(1);
        let longest = u64::try_from(longest).unwrap_or(u64::MAX);
        let mut notes = self.shared.lock();
        let now = notes.now;
        let book = &mut notes.books[self.number];
        if book.wanted == 0 {
            return None;
        }
        book.wanted -= 1;
        book.launched += 1;
        let id = TaskId::new(format!("f{}-t{}", self.number, book.launched));
        let script = Script {
            task: id.clone(),
            runs: Duration::from_millis(self.random.random_range(0..longest)),
            exits: i32::from(self.random.random_bool(0.2)),
            stubborn: self.random.random_bool(self.character.stubborn),
        };
        let kill_at = self
            .random
            .random_bool(self.character.kills)
            .then(|| now + Duration::from_millis(self.random.random_range(0..longest)));
        book.tasks.insert(
            id.clone(),
            Task {
                agent: offer.agent_id.clone(),
                state: None,
                kill_at,
            },
        );
        notes.note(Event::Launched {
            framework: self.number,
            task: id.clone(),
            agent: offer.agent_id.clone(),
        });
        Some((id, script))
    }

    fn next_task(&mut self, offer: &Offer, left: &mut Resources) -> Option<TaskInfo> {
        let greedy = self.random.random_bool(self.character.greedy);
        let resources = if greedy {
            "cpus:1000".parse().unwrap_or_default()
        } else {
            self.size(left)
        };
        let custom = self.random.random_bool(self.character.custom);
        let own: Resources = "cpus:0.1;mem:16".parse().unwrap_or_default();
        let needed = if custom {
            resources.clone() + own.clone()
        } else {
            resources.clone()
        };
        if !greedy && !left.contains(&needed) {
            return None;
        }
        let (id, script) = self.launched(offer)?;
        let mut task = TaskInfo::new(id, offer.agent_id.clone(), resources, script.to_string());
        if custom {
            let name = format!("f{}-e{}", self.number, self.random.random_range(0..2));
            let has_it = offer.executor_ids.iter().any(|id| id.as_str() == name);
            let mut executor = ExecutorInfo::custom(name, CommandInfo::shell(CUSTOM));
            executor.resources = own;
            task.executor = Some(executor);
            task.command = None;
            task.data = Some(script.to_string().into_bytes().into());
            if has_it {
                *left -= &task.resources;
            } else if !greedy {
                *left -= &needed;
            }
        } else if !greedy {
            *left -= &needed;
        }
        Some(task)
    }
}

impl Scheduler for Player {
    fn registered(&mut self, driver: &mut Handle<'_>, id: &FrameworkId, master: &MasterInfo) {
        self.shared.lock().books[self.number].id = Some(id.clone());
        self.follow(master);
        self.begin(driver);
    }

    fn reregistered(&mut self, driver: &mut Handle<'_>, master: &MasterInfo) {
        self.follow(master);
        self.begin(driver);
    }

    fn resource_offers(&mut self, driver: &mut Handle<'_>, offers: Vec<Offer>) {
        for offer in offers {
            self.answer(driver, offer);
        }
    }

    fn status_update(&mut self, driver: &mut Handle<'_>, status: &TaskStatus) {
        {
            let mut notes = self.shared.lock();
            // An answer may be on its way to a driver that was replaced, while its successor has heard more.
            let is_late = notes.books[self.number].driver != self.driver && status.uuid.is_none();
            if !is_late {
                notes.note(Event::Heard(Heard {
                    framework: self.number,
                    task: status.task_id.clone(),
                    state: status.state,
                    uuid: status.uuid,
                    answer: status.reason == Some(StatusReason::Reconciliation),
                }));
            }
            let over = notes.hear(self.number, status);
            let lost = matches!(
                status.state,
                TaskState::Lost | TaskState::Dropped | TaskState::Gone | TaskState::Unreachable
            );
            if over && lost && notes.books[self.number].launched < 3 * self.character.tasks {
                // What is lost is run again, under another id.
                notes.books[self.number].wanted += 1;
            }
        }
        if status.uuid.is_none() {
            return;
        }
        if self.character.explicit {
            let patience = Duration::from_millis(self.random.random_range(0..15_000));
            self.owed.push((driver.now() + patience, status.clone()));
        } else {
            // The driver acknowledges when this returns.
            self.acknowledged(status);
        }
    }

    fn error(&mut self, _: &mut Handle<'_>, _: &str) {
        let mut notes = self.shared.lock();
        let book = &mut notes.books[self.number];
        // A driver that was replaced is told so; the framework lives on with its successor.
        if book.driver == self.driver && !book.over {
            book.over = true;
            notes.note(Event::FrameworkOver(self.number));
        }
    }
}
