use std::collections::BTreeMap;
use std::time::Duration;

use meseta_protocol::TaskId;
use meseta_protocol::agent::AgentInfo;
use meseta_protocol::resources::Resources;
use meseta_protocol::task::TaskInfo;
use meseta_runtime::Pid;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::state::{Agent, Framework, Limits, Standing};

type Key = (FrameworkId, TaskId, AgentId);

/// What a listener knows: a snapshot, and every change since.
#[derive(Debug, Default, PartialEq)]
struct Known {
    agents: BTreeMap<AgentId, String>,
    frameworks: BTreeMap<FrameworkId, (String, Standing)>,
    tasks: BTreeMap<Key, (TaskState, Option<TaskStatus>)>,
}

impl Known {
    fn of(state: &State) -> Self {
        let mut known = Self::default();
        for (id, agent) in state.agents() {
            known.agents.insert(id.clone(), agent.version.clone());
        }
        for (id, one) in state.frameworks() {
            let stands = (one.info.name.clone(), one.standing);
            known.frameworks.insert(id.clone(), stands);
        }
        let living = state.frameworks().map(|(_, framework)| framework);
        for framework in living.chain(state.completed_frameworks()) {
            let ended = framework.completed_tasks.iter();
            let others = framework.unreachable_tasks.iter();
            for task in ended.chain(others).chain(framework.tasks.values()) {
                known.task(task);
            }
        }
        known
    }

    fn task(&mut self, task: &Task) {
        let key = (
            task.framework_id.clone(),
            task.task_id.clone(),
            task.agent_id.clone(),
        );
        let last = task.statuses.last().cloned();
        self.tasks.insert(key, (task.state, last));
    }

    fn hear(&mut self, state: &State, change: Change) {
        match change {
            Change::TaskAdded(task) => self.task(&task),
            Change::TaskUpdated(it) => {
                let agent = it.status.agent_id.clone().unwrap();
                let key = (it.framework_id, it.status.task_id.clone(), agent);
                let known = self.tasks.get_mut(&key).unwrap();
                *known = (it.state, Some(it.status));
            }
            Change::AgentAdded(id) => {
                let version = state.agent(&id).unwrap().version.clone();
                // What it has not brought along is not there any more.
                self.tasks.retain(|(_, _, agent), (task, _)| {
                    *agent != id || *task != TaskState::Unreachable
                });
                self.agents.insert(id, version);
            }
            Change::AgentRemoved(id) => {
                self.agents.remove(&id).unwrap();
            }
            Change::FrameworkAdded(id) | Change::FrameworkUpdated(id) => {
                let one = state.framework(&id).unwrap();
                let stands = (one.info.name.clone(), one.standing);
                self.frameworks.insert(id, stands);
            }
            Change::FrameworkRemoved(info) => {
                self.frameworks.remove(&info.id.unwrap()).unwrap();
            }
        }
    }

    /// The tables forget what has ended; listeners need not.
    fn forget_what(mut self, shown: &Self) -> Self {
        self.tasks
            .retain(|key, (state, _)| !state.is_terminal() || shown.tasks.contains_key(key));
        self
    }
}

struct World {
    state: State,
    random: StdRng,
    now: Duration,
    next: u32,
}

impl World {
    fn framework(&mut self) -> Option<FrameworkId> {
        let all: Vec<_> = self.state.frameworks().map(|(id, _)| id.clone()).collect();
        (!all.is_empty()).then(|| all[self.random.random_range(0..all.len())].clone())
    }

    fn agent(&mut self) -> Option<AgentId> {
        let all: Vec<_> = self.state.agents().map(|(id, _)| id.clone()).collect();
        (!all.is_empty()).then(|| all[self.random.random_range(0..all.len())].clone())
    }

    fn task(&mut self) -> Option<Task> {
        let all: Vec<Task> = (self.state.frameworks())
            .flat_map(|(_, framework)| framework.tasks.values())
            .map(|task| Task::clone(task))
            .collect();
        (!all.is_empty()).then(|| all[self.random.random_range(0..all.len())].clone())
    }

    fn pid(&mut self) -> Pid {
        format!("s@127.0.0.1:{}", self.random.random_range(1000..60000))
            .parse()
            .unwrap()
    }

    fn status(&mut self, task: &Task, state: TaskState) -> TaskStatus {
        let mut status = TaskStatus::new(task.task_id.clone(), state)
            .because(StatusSource::Executor, StatusReason::CommandExecutorFailed);
        status.agent_id = Some(task.agent_id.clone());
        status.timestamp = Some(self.now.as_secs_f64());
        status
    }

    fn new_framework(&mut self) {
        self.next += 1;
        let mut info = FrameworkInfo::new("nobody", "first");
        info.id = Some(format!("f{}", self.next).into());
        let pid = self.random.random_bool(0.8).then(|| self.pid());
        self.state
            .add_framework(Framework::new(info, pid, self.now));
    }

    fn change_framework(&mut self, id: &FrameworkId) {
        let name = format!("n{}", self.random.random_range(0..3));
        match self.random.random_range(0..4) {
            0 => {
                self.state.set_standing(id, Standing::Disconnected);
            }
            1 => {
                let pid = self.pid();
                self.state.connect_framework(id, &pid, self.now);
            }
            2 => {
                let mut info = self.state.framework(id).unwrap().info.clone();
                info.name = name;
                self.state.update_framework(id, info);
            }
            _ => {
                self.state.remove_framework(id, self.now);
            }
        }
    }

    /// One that is new, or comes back with some of its tasks.
    fn new_agent(&mut self) {
        let id = AgentId::new(format!("a{}", self.random.random_range(0..3)));
        if self.state.agent(&id).is_some() {
            return;
        }
        let away: Vec<Task> = (self.state.frameworks())
            .flat_map(|(_, framework)| &framework.unreachable_tasks)
            .filter(|task| task.agent_id == id && task.state == TaskState::Unreachable)
            .map(|task| Task::clone(task))
            .collect();
        self.state.take_unreachable(&id);
        let mut tasks: BTreeMap<_, Task> = BTreeMap::new();
        for mut task in away {
            let taken = self.state.task(&task.framework_id, &task.task_id).is_some();
            if !taken && self.random.random_bool(0.5) {
                task.state = TaskState::Running;
                self.state
                    .revive_task(&task.framework_id, &task.task_id, &id);
                tasks.insert((task.framework_id.clone(), task.task_id.clone()), task);
            }
        }
        let info = AgentInfo {
            id: Some(id),
            ..AgentInfo::default()
        };
        let pid = self.pid();
        let agent = Agent::new(info, pid, "1".to_owned(), Vec::new(), self.now);
        let tasks = tasks.into_values().collect();
        self.state.add_agent(agent, tasks, Vec::new());
    }

    fn change_agent(&mut self, id: &AgentId) {
        if self.random.random_bool(0.3) {
            let info = self.state.agent(id).unwrap().info.clone();
            let version = format!("{}", self.random.random_range(1..3));
            self.state.update_agent(id, info, version, Vec::new());
            return;
        }
        let may_return = self.random.random_bool(0.5);
        let lost = if may_return {
            TaskState::Unreachable
        } else {
            TaskState::Lost
        };
        let removed = self.state.remove_agent(id, may_return, |_| lost).unwrap();
        for task in removed.tasks {
            let status = self.status(&task, task.state);
            self.state.note_lost(&task.framework_id, &status);
        }
        self.state.note_removed(id);
    }

    fn change_task(&mut self) {
        let Some(task) = self.task() else {
            return;
        };
        let states = [
            TaskState::Starting,
            TaskState::Running,
            TaskState::Running,
            TaskState::Finished,
            TaskState::Failed,
        ];
        let latest = states[self.random.random_range(0..states.len())];
        let said = states[self.random.random_range(0..states.len())];
        let status = self.status(&task, said);
        let (framework, id) = (&task.framework_id, &task.task_id);
        self.state.update_task(framework, id, latest, &status);
        let state = self.state.task(framework, id).unwrap().state;
        if state.is_terminal() && self.random.random_bool(0.5) {
            self.state.complete_task(framework, id);
        }
    }

    fn new_task(&mut self) {
        let (Some(framework), Some(agent)) = (self.framework(), self.agent()) else {
            return;
        };
        self.next += 1;
        let info = TaskInfo::new(format!("t{}", self.next), agent, Resources::new(), "true");
        self.state.add_task(Task::new(&info, &framework, "nobody"));
    }

    /// The unreachable tasks of an agent that will not come back.
    fn give_up(&mut self) {
        let id = AgentId::new(format!("a{}", self.random.random_range(0..3)));
        if self.state.agent(&id).is_none() {
            for task in self.state.give_up_unreachable(&id, |_| TaskState::Lost) {
                let status = self.status(&task, task.state);
                self.state.note_lost(&task.framework_id, &status);
            }
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_secs(1);
        match self.random.random_range(0..20) {
            0 => self.new_framework(),
            1 => {
                if let Some(id) = self.framework() {
                    self.change_framework(&id);
                }
            }
            2 => self.new_agent(),
            3 => {
                if let Some(id) = self.agent() {
                    self.change_agent(&id);
                }
            }
            4 => self.give_up(),
            5..=9 => self.new_task(),
            _ => self.change_task(),
        }
    }
}

#[test]
fn a_snapshot_and_the_changes_since_are_the_tables() {
    for seed in 0..60 {
        let mut world = World {
            state: State::new(Limits::default()),
            random: StdRng::seed_from_u64(seed),
            now: Duration::ZERO,
            next: 0,
        };
        for _ in 0..seed * 5 {
            world.step();
        }
        assert_eq!(world.state.take_changes(), [], "nobody listens");
        world.state.listen(true);
        let mut known = Known::of(&world.state);
        for step in 0..400 {
            world.step();
            for change in world.state.take_changes() {
                known.hear(&world.state, change);
            }
            let shown = Known::of(&world.state);
            known = known.forget_what(&shown);
            let states = |known: &Known| {
                let all = known.tasks.iter();
                all.map(|(key, (state, _))| (key.clone(), *state))
                    .collect::<Vec<_>>()
            };
            assert_eq!(states(&known), states(&shown), "seed {seed} step {step}");
            for (key, (state, last)) in &shown.tasks {
                // What the master itself has told is not in the tables in all its words.
                let is_its_own = last.as_ref().is_some_and(|last| last.state == *state);
                if is_its_own && !state.is_terminal() {
                    assert_eq!(
                        &known.tasks[key].1, last,
                        "seed {seed} step {step}: {key:?}"
                    );
                }
            }
            assert_eq!(known.agents, shown.agents, "seed {seed} step {step}");
            assert_eq!(
                known.frameworks, shown.frameworks,
                "seed {seed} step {step}"
            );
        }
    }
}

#[test]
fn a_snapshot_stays_as_it_was_and_leaves_the_tables_as_they_are() {
    let all = |state: &State| {
        let agents: Vec<_> = state.agents().collect();
        let living: Vec<_> = state.frameworks().collect();
        let over: Vec<_> = state.completed_frameworks().collect();
        format!("{agents:?} {living:?} {over:?}")
    };
    for seed in 0..10 {
        let world = |_| World {
            state: State::new(Limits::default()),
            random: StdRng::seed_from_u64(seed),
            now: Duration::ZERO,
            next: 0,
        };
        // One is looked at, the other is not.
        let [mut seen, mut unseen] = [0, 1].map(world);
        let mut taken = Vec::new();
        for step in 0..300 {
            if step % 7 == 0 {
                let snapshot = seen.state.snapshot();
                taken.push((all(&snapshot), snapshot));
            }
            if step % 50 == 49 {
                taken.remove(0);
            }
            seen.step();
            unseen.step();
        }
        assert_eq!(all(&seen.state), all(&unseen.state), "seed {seed}");
        assert_eq!(seen.state.check(), Ok(()));
        for (was, snapshot) in &taken {
            assert_eq!(all(snapshot), *was, "seed {seed}");
        }
    }
}

#[test]
fn what_comes_twice_in_a_row_is_noted_once_and_nothing_is_kept_for_nobody() {
    let mut state = State::new(Limits::default());
    state.listen(true);
    let mut info = FrameworkInfo::new("nobody", "f");
    info.id = Some("f".into());
    state.add_framework(Framework::new(info.clone(), None, Duration::ZERO));
    state.update_framework(&"f".into(), info);
    let pid = "s@127.0.0.1:1".parse().unwrap();
    state.connect_framework(&"f".into(), &pid, Duration::ZERO);
    let id = FrameworkId::from("f");
    assert_eq!(
        state.take_changes(),
        [
            Change::FrameworkAdded(id.clone()),
            Change::FrameworkUpdated(id.clone())
        ]
    );
    state.set_standing(&id, Standing::Inactive);
    state.listen(false);
    state.set_standing(&id, Standing::Active);
    assert_eq!(state.take_changes(), []);
}
