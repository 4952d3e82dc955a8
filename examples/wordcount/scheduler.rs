//! The scheduler of the word count: turns offers into map tasks and updates into progress.
//!
//! Decisions are in [`Job`]; this file speaks with the driver. Updates that the master makes itself come at most
//! once, so the scheduler asks about unfinished tasks whenever it has reason to think one was missed: after a
//! re-subscription, and every few seconds.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::mpsc::Sender;
use std::time::Duration;

use meseta_protocol::agent::MasterInfo;
use meseta_protocol::common::CommandInfo;
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::messages::scheduler::TaskQuestion;
use meseta_protocol::offer::{Filters, Offer};
use meseta_protocol::operation::Operation;
use meseta_protocol::resources::{Resource, Resources, Scalar};
use meseta_protocol::status::TaskStatus;
use meseta_protocol::task::TaskInfo;
use meseta_protocol::{AgentId, FrameworkId};
use meseta_runtime::{Clock, Time};
use meseta_scheduler_driver::{Handle, Scheduler};

use crate::executor::assignment;
use crate::job::{Job, Outcome};
use crate::split::Slice;

/// How often the master is asked about unfinished tasks.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// What a map task takes.
fn task_resources() -> Resources {
    [
        Resource::scalar("cpus", Scalar::from_thousandths(500)),
        Resource::scalar("mem", Scalar::whole(64)),
    ]
    .into_iter()
    .collect()
}

/// What the executor takes beside its tasks.
fn executor_resources() -> Resources {
    [
        Resource::scalar("cpus", Scalar::from_thousandths(100)),
        Resource::scalar("mem", Scalar::whole(64)),
    ]
    .into_iter()
    .collect()
}

/// What the main thread hears.
pub(crate) enum Progress {
    /// So many portions are done.
    Done(usize),
    /// A line to show.
    Note(String),
    /// All portions are done.
    Finished(Box<Job>),
    /// The job cannot succeed.
    Failed(String),
}

/// The scheduler.
pub(crate) struct Counter {
    portions: Vec<Vec<Slice>>,
    job: Job,
    command: CommandInfo,
    clock: Clock,
    began: Time,
    /// Short names of agents, in the order in which they appeared.
    agents: BTreeMap<AgentId, String>,
    progress: Sender<Progress>,
    over: bool,
}

impl Counter {
    /// A scheduler for these portions; `program` is started as the executor with `argument`.
    pub(crate) fn new(
        portions: Vec<Vec<Slice>>,
        program: &OsString,
        argument: &str,
        progress: Sender<Progress>,
    ) -> Self {
        let program = program.to_string_lossy().into_owned();
        let clock = Clock::live();
        Self {
            job: Job::new(portions.len()),
            portions,
            command: CommandInfo::exec(program, [argument]),
            began: clock.now(),
            clock,
            agents: BTreeMap::new(),
            progress,
            over: false,
        }
    }

    fn elapsed(&self) -> Duration {
        self.clock.now().since(self.began)
    }

    fn tell(&self, progress: Progress) {
        // The main thread may have given up; then nobody listens.
        let _gone = self.progress.send(progress);
    }

    fn name_of(&mut self, agent: &AgentId) -> String {
        let next = self.agents.len() + 1;
        self.agents
            .entry(agent.clone())
            .or_insert_with(|| format!("agent {next}"))
            .clone()
    }

    /// As many tasks as the offer has room for.
    fn tasks_for(&mut self, offer: &Offer) -> Vec<TaskInfo> {
        let mut room = offer.resources.unallocated();
        let mut executor = ExecutorInfo::custom("wordcount", self.command.clone());
        executor.resources = executor_resources();
        executor.name = Some("word count".to_owned());
        if offer.executor_ids.is_empty() {
            if !room.contains(&executor.resources) {
                return Vec::new();
            }
            room -= &executor.resources;
        }
        let (each, agent) = (task_resources(), self.name_of(&offer.agent_id));
        let mut tasks = Vec::new();
        while room.contains(&each) {
            let Some((task_id, portion)) = self.job.start_next(&agent) else {
                break;
            };
            let Ok(data) = assignment(&self.portions[portion]) else {
                break;
            };
            room -= &each;
            tasks.push(TaskInfo {
                name: format!("count portion {portion}"),
                task_id,
                agent_id: offer.agent_id.clone(),
                resources: each.clone(),
                executor: Some(executor.clone()),
                data: Some(data.into()),
                ..TaskInfo::default()
            });
        }
        tasks
    }

    fn ask_about_unfinished(&self, driver: &mut Handle<'_>) {
        let questions: Vec<TaskQuestion> = self
            .job
            .unfinished()
            .map(|(task_id, agent)| TaskQuestion {
                task_id: task_id.clone(),
                agent_id: self
                    .agents
                    .iter()
                    .find(|(_, name)| *name == agent)
                    .map(|(id, _)| id.clone()),
            })
            .collect();
        if !questions.is_empty() {
            driver.reconcile_tasks(questions);
        }
    }
}

fn ask_again_and_again(driver: &mut Handle<'_>) {
    driver.after(ASK_AGAIN, |counter: &mut Counter, driver| {
        counter.ask_about_unfinished(driver);
        ask_again_and_again(driver);
    });
}

impl Scheduler for Counter {
    fn registered(&mut self, driver: &mut Handle<'_>, id: &FrameworkId, _: &MasterInfo) {
        self.tell(Progress::Note(format!("framework {id}")));
        ask_again_and_again(driver);
    }

    fn reregistered(&mut self, driver: &mut Handle<'_>, _: &MasterInfo) {
        self.tell(Progress::Note("the master is back".to_owned()));
        self.ask_about_unfinished(driver);
    }

    fn disconnected(&mut self, _: &mut Handle<'_>) {
        self.tell(Progress::Note("the master is away".to_owned()));
    }

    fn resource_offers(&mut self, driver: &mut Handle<'_>, offers: Vec<Offer>) {
        for offer in offers {
            let tasks = self.tasks_for(&offer);
            if tasks.is_empty() {
                // Wanted again soon while slices may have to be run again.
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
        if self.over {
            return;
        }
        let now = self.elapsed();
        match self.job.update(status, now) {
            Outcome::Going => {}
            Outcome::Done => self.tell(Progress::Done(self.job.done())),
            Outcome::Again => {
                let why = status.message.as_deref().unwrap_or_default();
                self.tell(Progress::Note(format!(
                    "{} {}: runs again ({why})",
                    status.task_id, status.state
                )));
                driver.revive_offers(Vec::new());
            }
            Outcome::Failed(why) => {
                self.over = true;
                self.tell(Progress::Failed(why));
            }
        }
        if self.job.is_done() && !self.over {
            self.over = true;
            let job = std::mem::replace(&mut self.job, Job::new(0));
            self.tell(Progress::Finished(Box::new(job)));
        }
    }

    fn error(&mut self, _: &mut Handle<'_>, message: &str) {
        self.over = true;
        self.tell(Progress::Failed(format!(
            "the master refuses this framework: {message}"
        )));
    }
}
