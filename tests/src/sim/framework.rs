//! A framework of a simulated cluster: the shipped scheduler driver with a scheduler that works off its plans.
//!
//! It launches, kills, reconciles, declines, keeps offers for a while, suppresses and revives, and is taken over by its
//! own successor after a crash. It does what `docs/delivery.md` tells frameworks to do: it writes launches down first,
//! repeats kills, and asks about tasks that stay silent.

use std::time::Duration;

use meseta_protocol::agent::MasterInfo;
use meseta_protocol::messages::scheduler::TaskQuestion;
use meseta_protocol::offer::{Filters, Offer};
use meseta_protocol::resources::Resources;
use meseta_protocol::status::TaskStatus;
use meseta_protocol::task::TaskInfo;
use meseta_protocol::{FrameworkId, OfferId};
use meseta_scheduler_driver::{Handle, Scheduler};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::ledger::{Ledger, Plan, TaskBook};
use crate::invariants::{Event, Heard};

const TICK: Duration = Duration::from_secs(1);

/// How a framework behaves, drawn once per run.
#[derive(Debug, Clone)]
pub struct Manner {
    /// Share of offers that are declined though something is to be launched.
    pub declines: f64,
    /// Share of declined offers that are kept for a while first.
    pub keeps: f64,
    /// Share of seconds in which offers are suppressed.
    pub suppresses: f64,
    /// Whether acknowledgements are its own business, made with a delay.
    pub explicit: bool,
}

/// The scheduler.
pub struct Script {
    number: usize,
    ledger: Ledger,
    manner: Manner,
    random: StdRng,
    ticking: bool,
    ticks: u64,
    kept: Vec<OfferId>,
    suppressed: bool,
}

impl Script {
    /// The scheduler of framework `number`.
    pub fn new(number: usize, ledger: Ledger, manner: Manner, seed: u64) -> Self {
        Self {
            number,
            ledger,
            manner,
            random: StdRng::seed_from_u64(seed),
            ticking: false,
            ticks: 0,
            kept: Vec::new(),
            suppressed: false,
        }
    }

    fn connected(&mut self, driver: &mut Handle<'_>) {
        self.ledger.book().frameworks[self.number].connected = true;
        // What was known of tasks may be old.
        self.reconcile(driver);
        if !self.ticking {
            self.ticking = true;
            driver.after(TICK, Self::tick);
        }
    }

    fn tick(&mut self, driver: &mut Handle<'_>) {
        self.ticks += 1;
        driver.after(TICK, Self::tick);
        let (stopping, kills) = {
            let book = self.ledger.book();
            let framework = &book.frameworks[self.number];
            let kills: Vec<_> = framework
                .tasks
                .iter()
                .filter(|(_, task)| task.kill && !task.has_ended())
                .map(|(id, task)| (id.clone(), task.agent.clone()))
                .collect();
            (framework.stopping, kills)
        };
        if stopping {
            driver.stop(false);
            return;
        }
        if self.ticks.is_multiple_of(5) {
            for (task, agent) in kills {
                if self.random.random_bool(0.5) {
                    driver.kill_task(task, None);
                } else {
                    driver.kill_task_on(agent, task, None);
                }
            }
        }
        if self.ticks.is_multiple_of(10) {
            self.reconcile(driver);
        }
        for offer in std::mem::take(&mut self.kept) {
            driver.decline_offer(offer, self.refusal());
        }
        if self.suppressed {
            if self.random.random_bool(0.3) || self.is_needy() {
                self.suppressed = false;
                driver.revive_offers(Vec::new());
            }
        } else if self.random.random_bool(self.manner.suppresses) {
            self.suppressed = true;
            driver.suppress_offers(Vec::new());
        }
    }

    /// Whether tasks are still to be launched. Not for ever suppressed then.
    fn is_needy(&self) -> bool {
        !self.ledger.book().frameworks[self.number].plans.is_empty()
    }

    /// Asks about every task that has not ended.
    fn reconcile(&mut self, driver: &mut Handle<'_>) {
        let questions: Vec<TaskQuestion> = {
            let book = self.ledger.book();
            let tasks = &book.frameworks[self.number].tasks;
            let open = tasks.iter().filter(|(_, task)| !task.has_ended());
            open.map(|(id, task)| TaskQuestion {
                task_id: id.clone(),
                agent_id: self.random.random_bool(0.7).then(|| task.agent.clone()),
            })
            .collect()
        };
        if !questions.is_empty() {
            driver.reconcile_tasks(questions);
        }
    }

    fn acknowledged(&self, driver: &Handle<'_>, status: &TaskStatus) {
        if let Some(uuid) = status.uuid {
            let task = status.task_id.clone();
            let acknowledged = Event::Acknowledged { task, uuid };
            self.ledger.book().note(driver.now(), acknowledged);
        }
    }

    fn refusal(&mut self) -> Filters {
        Filters {
            refuse_seconds: self.random.random_range(0.0..3.0),
        }
    }

    /// Takes the plans that fit into an offer out of the book and notes them as launched.
    fn fitting(&mut self, offer: &Offer, driver: &mut Handle<'_>) -> Vec<TaskInfo> {
        let mut room = offer.resources.unallocated();
        let role = offer
            .allocation_info
            .as_ref()
            .and_then(|info| info.role.clone());
        let most = self.random.random_range(1..4);
        let mut tasks = Vec::new();
        let mut book = self.ledger.book();
        while tasks.len() < most {
            let framework = &mut book.frameworks[self.number];
            let Some(plan) = framework.plans.last() else {
                break;
            };
            let Some(needs) = needs(plan, &room) else {
                break;
            };
            room -= &needs;
            let Some(plan) = framework.plans.pop() else {
                break;
            };
            let needs = role
                .as_ref()
                .map_or(needs.clone(), |role| needs.allocated(role));
            tasks.push(TaskInfo::new(
                plan.id.clone(),
                offer.agent_id.clone(),
                needs,
                command(&plan),
            ));
            if let Some(after) = plan.killed_after {
                let id = plan.id.clone();
                driver.after(after, move |script: &mut Self, driver| {
                    let mut book = script.ledger.book();
                    let tasks = &mut book.frameworks[script.number].tasks;
                    // Who kills a task whose end it has heard of is told that there is no such task.
                    if let Some(task) = tasks.get_mut(&id).filter(|task| !task.has_ended()) {
                        task.kill = true;
                        driver.kill_task(id, None);
                    }
                });
            }
            let task = TaskBook {
                agent: offer.agent_id.clone(),
                kill: false,
                updates: Vec::new(),
                plan,
            };
            let launched = Event::Launched {
                framework: self.number,
                task: task.plan.id.clone(),
                agent: task.agent.clone(),
            };
            framework.tasks.insert(task.plan.id.clone(), task);
            book.note(driver.now(), launched);
        }
        tasks
    }
}

/// What a plan takes from what is there; none when it does not fit.
fn needs(plan: &Plan, room: &Resources) -> Option<Resources> {
    let mut needs: Resources = plan.resources.parse().ok()?;
    if plan.ports > 0 {
        let ports: Vec<u64> = room
            .ports()?
            .numbers()
            .take(usize::try_from(plan.ports).ok()?)
            .collect();
        for port in ports {
            let one: Resources = format!("ports:[{port}-{port}]").parse().ok()?;
            needs += &one;
        }
    }
    room.contains(&needs).then_some(needs)
}

/// The command of a plan: what the model of processes reads.
fn command(plan: &Plan) -> String {
    format!("{} {} {}", plan.id, plan.runs.as_millis(), plan.exit)
}

impl Scheduler for Script {
    fn registered(&mut self, driver: &mut Handle<'_>, id: &FrameworkId, _: &MasterInfo) {
        self.ledger.book().frameworks[self.number].id = Some(id.clone());
        self.connected(driver);
    }

    fn reregistered(&mut self, driver: &mut Handle<'_>, _: &MasterInfo) {
        self.connected(driver);
    }

    fn disconnected(&mut self, _: &mut Handle<'_>) {
        self.ledger.book().frameworks[self.number].connected = false;
        self.kept.clear();
    }

    fn resource_offers(&mut self, driver: &mut Handle<'_>, offers: Vec<Offer>) {
        for offer in offers {
            let tasks = if self.random.random_bool(self.manner.declines) {
                Vec::new()
            } else {
                self.fitting(&offer, driver)
            };
            if !tasks.is_empty() {
                let refusal = self.refusal();
                driver.launch_tasks(vec![offer.id], tasks, refusal);
            } else if self.random.random_bool(self.manner.keeps) {
                self.kept.push(offer.id);
            } else {
                let refusal = self.refusal();
                driver.decline_offer(offer.id, refusal);
            }
        }
    }

    fn offer_rescinded(&mut self, _: &mut Handle<'_>, offer: &OfferId) {
        self.kept.retain(|kept| kept != offer);
    }

    fn status_update(&mut self, driver: &mut Handle<'_>, status: &TaskStatus) {
        let mut book = self.ledger.book();
        let framework = &mut book.frameworks[self.number];
        let task = framework.tasks.get_mut(&status.task_id);
        if let Some(task) = task.or_else(|| framework.given_up.get_mut(&status.task_id)) {
            task.updates.push((status.state, status.uuid));
        }
        let heard = Heard {
            framework: self.number,
            task: status.task_id.clone(),
            state: status.state,
            uuid: status.uuid,
        };
        book.note(driver.now(), Event::Heard(heard));
        drop(book);
        if self.manner.explicit {
            let status = status.clone();
            let delay = Duration::from_millis(self.random.random_range(0..2_000));
            driver.after(delay, move |script: &mut Self, driver| {
                script.acknowledged(driver, &status);
                driver.acknowledge(&status);
            });
        } else {
            self.acknowledged(driver, status);
        }
    }

    fn error(&mut self, _: &mut Handle<'_>, message: &str) {
        self.ledger.book().frameworks[self.number]
            .refused
            .push(message.to_owned());
    }
}
