//! All frameworks and executors of an agent, by their ids and by their containers.
//!
//! Pure: tables, no processes and no clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::resources::Resources;
use meseta_protocol::{ExecutorId, FrameworkId, TaskId};

use super::{Executor, Framework, LaunchVerdict, MAX_COMPLETED_FRAMEWORKS, Phase, Unit};

/// Everything that runs or ran here.
#[derive(Debug, Default)]
pub struct Tables {
    /// Frameworks with something on the agent.
    pub frameworks: BTreeMap<FrameworkId, Framework>,
    /// Frameworks that had something on it, the oldest first.
    pub completed_frameworks: VecDeque<(FrameworkId, Framework)>,
    by_container: BTreeMap<String, (FrameworkId, ExecutorId)>,
    max_completed_executors: usize,
}

impl Tables {
    /// Empty tables.
    pub fn new(max_completed_executors: usize) -> Self {
        Self {
            max_completed_executors,
            ..Self::default()
        }
    }

    /// A framework.
    pub fn framework(&self, id: &FrameworkId) -> Option<&Framework> {
        self.frameworks.get(id)
    }

    /// An executor that is not over.
    pub fn executor(&self, framework: &FrameworkId, executor: &ExecutorId) -> Option<&Executor> {
        self.frameworks.get(framework)?.executors.get(executor)
    }

    /// An executor that is not over, to be changed.
    pub fn executor_mut(
        &mut self,
        framework: &FrameworkId,
        executor: &ExecutorId,
    ) -> Option<&mut Executor> {
        self.frameworks
            .get_mut(framework)?
            .executors
            .get_mut(executor)
    }

    /// An executor with its framework's id and user, to be changed.
    pub fn executor_with_user(
        &mut self,
        framework: &FrameworkId,
        executor: &ExecutorId,
    ) -> Option<(&mut Executor, String)> {
        let framework = self.frameworks.get_mut(framework)?;
        let user = framework.info.user.clone();
        Some((framework.executors.get_mut(executor)?, user))
    }

    /// Whose container this is; its executor may be a superseded one.
    pub fn owner(&self, container: &str) -> Option<&(FrameworkId, ExecutorId)> {
        self.by_container.get(container)
    }

    /// The executor of a container, superseded or not.
    pub fn executor_in(&mut self, container: &str) -> Option<&mut Executor> {
        let (framework_id, id) = self.by_container.get(container)?;
        let framework = self.frameworks.get_mut(framework_id)?;
        match framework.superseded.get_mut(container) {
            Some(executor) => Some(executor),
            None => framework.executors.get_mut(id),
        }
    }

    /// Whether a container's executor is superseded.
    pub fn is_superseded(&self, container: &str) -> bool {
        self.owner(container)
            .and_then(|(framework_id, _)| self.framework(framework_id))
            .is_some_and(|framework| framework.superseded.contains_key(container))
    }

    /// Frees the id of an executor that has nothing left but its container.
    pub fn supersede(&mut self, framework_id: &FrameworkId, executor_id: &ExecutorId) {
        let Some(framework) = self.frameworks.get_mut(framework_id) else {
            return;
        };
        if let Some(executor) = framework.executors.remove(executor_id) {
            debug_assert!(!executor.is_busy(), "no task is left behind");
            let container = executor.container_id.value.clone();
            framework.superseded.insert(container, executor);
        }
    }

    /// What is launched on an executor. None when that is not here.
    pub fn launch(
        &mut self,
        framework_id: &FrameworkId,
        executor_id: &ExecutorId,
        unit: &Unit,
    ) -> Option<LaunchVerdict> {
        let framework = self.frameworks.get_mut(framework_id)?;
        let executor = framework.executors.get_mut(executor_id)?;
        let verdict = executor.launch(unit, (framework_id, &framework.info.user));
        if verdict != LaunchVerdict::Refused {
            for task in unit.tasks() {
                let task_id = task.task_id.clone();
                framework.owners.insert(task_id, executor_id.clone());
            }
        }
        Some(verdict)
    }

    /// A framework has acknowledged the last update of a task. Whose task is completed by that.
    pub fn complete(&mut self, framework_id: &FrameworkId, task_id: &TaskId) -> Option<ExecutorId> {
        let framework = self.frameworks.get_mut(framework_id)?;
        let executor = framework
            .executors
            .get_mut(framework.owners.get(task_id)?)?;
        if executor.complete(task_id) {
            framework.owners.remove(task_id)
        } else {
            None
        }
    }

    /// Adds an executor to a framework that is known.
    pub fn add_executor(&mut self, framework_id: &FrameworkId, executor: Executor) {
        let Some(framework) = self.frameworks.get_mut(framework_id) else {
            debug_assert!(false, "an executor is added to a known framework");
            return;
        };
        let id = executor.info.executor_id.clone();
        self.by_container.insert(
            executor.container_id.value.clone(),
            (framework_id.clone(), id.clone()),
        );
        let replaced = framework.executors.insert(id, executor);
        debug_assert!(replaced.is_none(), "an executor is added once");
    }

    /// Forgets what is over: the executor once it is terminated and no task of it waits for an acknowledgement, or
    /// its framework is being ended, and those it has superseded once they are terminated; the framework once it has
    /// no executors. Whether the framework is gone.
    pub fn clean(&mut self, framework_id: &FrameworkId, executor_id: &ExecutorId) -> bool {
        let Some(framework) = self.frameworks.get_mut(framework_id) else {
            return false;
        };
        let over = framework
            .executors
            .get(executor_id)
            .is_some_and(|executor| {
                executor.phase == Phase::Terminated
                    && (framework.terminating || !executor.is_busy())
            });
        let gone = framework
            .superseded
            .iter()
            .find_map(|(container, executor)| {
                let gone = executor.phase == Phase::Terminated
                    && executor.info.executor_id == *executor_id;
                gone.then(|| container.clone())
            });
        // One ends at a time, and this is asked after each.
        if let Some(container) = gone
            && let Some(executor) = framework.superseded.remove(&container)
        {
            self.by_container.remove(&container);
            framework.remember(executor, self.max_completed_executors);
        }
        if over && let Some(executor) = framework.executors.remove(executor_id) {
            self.by_container.remove(&executor.container_id.value);
            for task_id in executor.tasks() {
                framework.owners.remove(task_id);
            }
            framework.remember(executor, self.max_completed_executors);
        }
        self.clean_framework(framework_id)
    }

    /// Forgets a framework that has no executors. Whether it is gone.
    pub fn clean_framework(&mut self, framework_id: &FrameworkId) -> bool {
        let idle = self
            .framework(framework_id)
            .is_some_and(|f| f.executors.is_empty() && f.superseded.is_empty());
        if idle && let Some(framework) = self.frameworks.remove(framework_id) {
            self.completed_frameworks
                .push_back((framework_id.clone(), framework));
            if self.completed_frameworks.len() > MAX_COMPLETED_FRAMEWORKS {
                self.completed_frameworks.pop_front();
            }
        }
        idle
    }

    /// A framework that is known from now on; one that was here before keeps its history.
    pub fn know_framework(&mut self, id: &FrameworkId, info: &FrameworkInfo) -> &mut Framework {
        let before = self
            .completed_frameworks
            .iter()
            .position(|(known, _)| known == id);
        let remembered = before.and_then(|at| self.completed_frameworks.remove(at));
        let framework = self.frameworks.entry(id.clone()).or_insert_with(|| {
            let mut framework = remembered.map_or_else(|| Framework::new(info.clone()), |(_, f)| f);
            framework.terminating = false;
            framework
        });
        if !framework.terminating {
            framework.info = info.clone();
            framework.info.id = Some(id.clone());
        }
        framework
    }

    /// All executors that are not over, superseded ones too.
    pub fn executors(&self) -> impl Iterator<Item = (&FrameworkId, &ExecutorId, &Executor)> {
        self.frameworks
            .iter()
            .flat_map(|(framework_id, framework)| {
                let superseded = framework.superseded.values();
                let executors = framework.executors.values().chain(superseded);
                executors.map(move |executor| (framework_id, &executor.info.executor_id, executor))
            })
    }

    /// The sandboxes of all executors that are not over.
    pub fn sandboxes(&self) -> BTreeSet<&Path> {
        let executors = self.executors();
        executors
            .map(|(_, _, executor)| executor.directory.as_path())
            .collect()
    }

    /// What all executors and tasks hold.
    pub fn resources(&self) -> Resources {
        let mut held = Resources::new();
        for (_, _, executor) in self.executors() {
            held += executor.resources();
        }
        held
    }

    /// What must always hold.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<(), String> {
        if self.by_container.len() != self.executors().count() {
            return Err("each executor has one container".to_owned());
        }
        for (framework_id, id, executor) in self.executors() {
            let owner = self.owner(&executor.container_id.value);
            if owner != Some(&(framework_id.clone(), id.clone())) {
                return Err(format!(
                    "container {} is not its executor's",
                    executor.container_id
                ));
            }
            if executor.phase == Phase::Running && !executor.queued.is_empty() {
                return Err(format!("executor {id} runs and tasks wait for it"));
            }
            if executor
                .launched
                .values()
                .any(|task| task.state.is_terminal())
                || executor
                    .terminated
                    .values()
                    .any(|task| !task.state.is_terminal())
            {
                return Err(format!("a task of executor {id} is in the wrong table"));
            }
        }
        for (framework_id, framework) in &self.frameworks {
            let tasks: BTreeMap<_, _> = framework
                .executors
                .iter()
                .flat_map(|(id, executor)| executor.tasks().map(move |task| (task, id)))
                .collect();
            if !framework.owners.iter().eq(tasks) {
                return Err(format!(
                    "the index of tasks of framework {framework_id} is wrong"
                ));
            }
            if framework.superseded.values().any(Executor::is_busy) {
                return Err(format!(
                    "a superseded executor of framework {framework_id} has tasks"
                ));
            }
        }
        Ok(())
    }
}
