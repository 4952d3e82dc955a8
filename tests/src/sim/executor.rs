//! A framework's own executor, played by the scripts of its tasks: it runs several at once, each a process of its
//! container, kills them when asked to, and ends all of them when it is shut down.

use std::collections::BTreeMap;
use std::time::Duration;

use meseta_executor::{Executor, Handle};
use meseta_protocol::TaskId;
use meseta_protocol::status::{TaskState, TaskStatus};
use meseta_protocol::task::{KillPolicy, TaskInfo};

use super::machine::Script;
use super::notes::Shared;
use crate::invariants::Event;

/// How long a task takes to end that is asked to.
const POLITE: Duration = Duration::from_millis(30);
/// The same for one that does not listen, and has to be killed.
const STUBBORN: Duration = Duration::from_secs(3);

/// See the module.
pub struct Played {
    shared: Shared,
    host: usize,
    container: String,
    /// Processes of the tasks that run.
    running: BTreeMap<TaskId, (i32, Script)>,
}

impl Played {
    /// The executor of a container on a machine.
    pub fn new(shared: Shared, host: usize, container: String) -> Self {
        Self {
            shared,
            host,
            container,
            running: BTreeMap::new(),
        }
    }

    /// Ends a task's process, if it runs. Whether it did.
    fn end(&mut self, task: &TaskId) -> bool {
        let Some((process, _)) = self.running.remove(task) else {
            return false;
        };
        let mut notes = self.shared.lock();
        if let Some(task) = notes.machines[self.host].finish(&self.container, process) {
            notes.note(Event::Stopped { task });
        }
        true
    }

    fn over(&mut self, driver: &mut Handle<'_>, task: &TaskId, state: TaskState) {
        if self.end(task) {
            driver.send_status(TaskStatus::new(task.clone(), state));
        }
    }
}

impl Executor for Played {
    fn launch_task(&mut self, driver: &mut Handle<'_>, task: TaskInfo) {
        let id = task.task_id;
        let text = task
            .data
            .map(|data| String::from_utf8_lossy(&data).into_owned());
        let Some(script) = text.and_then(|text| Script::parse(&text)) else {
            driver.send_status(TaskStatus::new(id, TaskState::Failed).saying("no script"));
            return;
        };
        let process = {
            let mut notes = self.shared.lock();
            let now = notes.now;
            // It ends when this executor says so, not when the machine does.
            let endless = Script {
                runs: Duration::from_secs(1_000_000),
                ..script.clone()
            };
            let process = notes.machines[self.host].start(&self.container, endless, now);
            if process.is_some() {
                notes.note(Event::Started {
                    task: id.clone(),
                    container: self.container.clone(),
                });
            }
            process
        };
        let Some(process) = process else {
            driver.send_status(TaskStatus::new(id, TaskState::Failed).saying("no container"));
            return;
        };
        driver.send_status(TaskStatus::new(id.clone(), TaskState::Running));
        let state = if script.exits == 0 {
            TaskState::Finished
        } else {
            TaskState::Failed
        };
        driver.after(script.runs, {
            let id = id.clone();
            move |me: &mut Self, driver| me.over(driver, &id, state)
        });
        self.running.insert(id, (process, script));
    }

    fn kill_task(&mut self, driver: &mut Handle<'_>, task: &TaskId, _: Option<KillPolicy>) {
        let Some((_, script)) = self.running.get(task) else {
            return;
        };
        let delay = if script.stubborn { STUBBORN } else { POLITE };
        let task = task.clone();
        driver.after(delay, move |me: &mut Self, driver| {
            me.over(driver, &task, TaskState::Killed);
        });
    }

    fn shutdown(&mut self, driver: &mut Handle<'_>) {
        let tasks: Vec<TaskId> = self.running.keys().cloned().collect();
        for task in &tasks {
            self.over(driver, task, TaskState::Killed);
        }
        driver.after(POLITE, |_: &mut Self, driver| driver.stop());
    }
}
