//! Groups of tasks: launched with one message, or refused as a whole.

use meseta_protocol::common::CommandInfo;
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::messages::agent::ExecutorExited;
use meseta_protocol::resources::Resources;

use super::world::*;

/// A framework that holds an offer of the one agent.
struct Situation {
    world: World,
    agent: End<AgentHeard>,
    agent_id: AgentId,
    scheduler: End<SchedulerHeard>,
    id: FrameworkId,
}

impl Situation {
    fn new() -> Self {
        let world = World::new();
        let (agent, agent_id) = world.registered_agent();
        let (scheduler, id) = world.subscribed(framework());
        Self {
            world,
            agent,
            agent_id,
            scheduler,
            id,
        }
    }

    fn offer(&self) -> Offer {
        self.world.advance(1);
        offers(&self.scheduler).remove(0)
    }

    /// What is offered now.
    fn left(&self) -> String {
        let offer = self.offer();
        self.accept(&offer, Vec::new());
        offer.resources.unallocated().to_string()
    }

    fn executor(&self) -> ExecutorInfo {
        let mut executor = ExecutorInfo::custom("e", CommandInfo::shell("run"));
        executor.framework_id = Some(self.id.clone());
        executor.resources = "cpus:0.5;mem:32;disk:10".parse().unwrap();
        executor
    }

    fn part(&self, id: &str) -> TaskInfo {
        TaskInfo {
            command: None,
            ..task(id, &self.agent_id)
        }
    }

    fn accept(&self, offer: &Offer, operations: Vec<Operation>) {
        self.scheduler.say(AcceptOffers {
            framework_id: self.id.clone(),
            offer_ids: vec![offer.id.clone()],
            operations,
            filters: Filters::refusing(0.0),
        });
    }

    /// The groups that the agent has been told to run since the last look.
    fn launched(&self) -> Vec<RunTaskGroup> {
        let heard = self.agent.heard().into_iter();
        heard
            .filter_map(|heard| match heard {
                AgentHeard::RunTaskGroup(run) => Some(run),
                AgentHeard::RunTask(run) => panic!("one task alone: {run:?}"),
                _ => None,
            })
            .collect()
    }
}

fn ids(run: &RunTaskGroup) -> Vec<&str> {
    let tasks = run.task_group.tasks.iter();
    tasks.map(|task| task.task_id.as_str()).collect()
}

#[test]
fn a_group_is_launched_with_one_message_and_paid_for_as_a_whole() {
    let it = Situation::new();
    let offer = it.offer();
    let first = Operation::launch_group(it.executor(), [it.part("a"), it.part("b")]);
    let second = Operation::launch_group(it.executor(), [it.part("c")]);
    it.accept(&offer, vec![first, second]);
    let runs = it.launched();
    let [first, second] = &runs[..] else {
        panic!("{runs:?}")
    };
    assert_eq!((ids(first), first.launch_executor), (vec!["a", "b"], true));
    assert_eq!((ids(second), second.launch_executor), (vec!["c"], false));
    assert_ne!(first.launch_uuid, second.launch_uuid);
    for run in [first, second] {
        assert_eq!(run.executor.executor_id.as_str(), "e");
        let own = run.task_group.tasks.iter().map(|task| &task.executor);
        assert!(
            own.into_iter()
                .all(|own| own.as_ref() == Some(&run.executor))
        );
    }
    // Three tasks and one executor are gone of it.
    let left: Resources = "cpus:0.5;mem:3872;disk:990".parse().unwrap();
    assert_eq!(it.offer().resources.unallocated(), left);
    it.scheduler.say(ReconcileTasks {
        framework_id: it.id.clone(),
        tasks: Vec::new(),
    });
    let told = statuses(&it.scheduler);
    let told: Vec<_> = (told.iter())
        .map(|status| (status.task_id.as_str(), status.state))
        .collect();
    assert_eq!(
        told,
        ["a", "b", "c"].map(|task| (task, TaskState::Staging)),
        "reconciled"
    );
}

#[test]
fn a_group_of_which_something_is_wrong_is_refused_as_a_whole() {
    let it = Situation::new();
    let two = || [it.part("a"), it.part("b")];
    let group = |executor| Operation::launch_group(executor, two());
    let mut named = group(it.executor());
    named.id = Some("o".into());
    let large = TaskInfo {
        resources: "cpus:3;mem:64".parse().unwrap(),
        ..it.part("b")
    };
    let mut default = ExecutorInfo::default_executor("e", it.executor().resources);
    default.framework_id = Some(it.id.clone());
    let heavy = ExecutorInfo {
        data: Some(vec![0; 5 << 20].into()),
        ..it.executor()
    };
    let cases = [
        (
            group(heavy),
            "The executor is too large to be given to each task of the group: make it smaller, above all its 'data', or \
             launch fewer tasks. All copies may have 16777216 bytes",
        ),
        (
            Operation::launch_group(it.executor(), [it.part("a"), it.part("a")]),
            "Task 'a' is invalid: Task has duplicate ID: a",
        ),
        (
            Operation::launch_group(it.executor(), [it.part("a"), large]),
            "Total resources cpus(allocated: *):4.5; mem(allocated: *):160; disk(allocated: *):10 required by task group \
             and its executor are more than available cpus(allocated: *):4; mem(allocated: *):4096; disk(allocated: \
             *):1000",
        ),
        (
            group(ExecutorInfo {
                framework_id: None,
                ..it.executor()
            }),
            "'ExecutorInfo.framework_id' must be set",
        ),
        (
            group(ExecutorInfo {
                resources: "cpus:-1".parse().unwrap_or_default(),
                ..it.executor()
            }),
            "Executor 'e' uses less CPUs (None) than the minimum required (0.01)",
        ),
        (
            named,
            "The `id` field cannot be set on LAUNCH_GROUP operations",
        ),
        (
            group(default),
            "Operation LAUNCH_GROUP with an executor of type DEFAULT is not supported by this master: give an executor \
             of type CUSTOM",
        ),
    ];
    for (operation, expected) in cases {
        let offer = it.offer();
        it.accept(&offer, vec![operation]);
        let told = statuses(&it.scheduler);
        assert_eq!(told.len(), 2, "{expected}: {told:?}");
        for status in told {
            assert_eq!(
                (status.state, status.reason, status.message.as_deref()),
                (
                    TaskState::Error,
                    Some(StatusReason::TaskGroupInvalid),
                    Some(expected)
                )
            );
            assert_eq!(status.agent_id, Some(it.agent_id.clone()));
        }
        assert_eq!(it.launched(), []);
    }
    // Everything is still there.
    let all: Resources = "cpus:4;mem:4096;disk:1000".parse().unwrap();
    assert_eq!(it.offer().resources.unallocated(), all);
}

#[test]
fn a_group_without_tasks_is_a_decline_and_one_with_spent_offers_is_dropped() {
    let it = Situation::new();
    let offer = it.offer();
    let nothing = Operation::launch_group(it.executor(), []);
    it.accept(&offer, vec![nothing]);
    assert_eq!((statuses(&it.scheduler), it.launched()), (vec![], vec![]));
    let two = Operation::launch_group(it.executor(), [it.part("a"), it.part("b")]);
    it.accept(&offer, vec![two]);
    let told: Vec<_> = (statuses(&it.scheduler).into_iter())
        .map(|status| (status.task_id, status.state, status.reason))
        .collect();
    let dropped = |id: &str| {
        let reason = Some(StatusReason::InvalidOffers);
        (TaskId::new(id), TaskState::Dropped, reason)
    };
    assert_eq!(told, [dropped("a"), dropped("b")]);
    assert_eq!(it.launched(), []);
}

/// A group of one task has been launched, and its agent comes back with these tasks, without the executor.
fn comes_back_without_the_executor(it: &Situation, tasks: Vec<Task>) {
    it.accept(
        &it.offer(),
        vec![Operation::launch_group(it.executor(), [it.part("a")])],
    );
    assert_eq!(it.launched().len(), 1);
    assert_eq!(it.left(), LEFT);
    let info = FrameworkInfo {
        id: Some(it.id.clone()),
        ..framework()
    };
    it.agent.say(ReregisterAgent {
        agent: agent_info(Some(it.agent_id.clone())),
        version: "1.0.0".into(),
        capabilities: vec![
            AgentCapability::MultiRole,
            AgentCapability::HierarchicalRole,
        ],
        frameworks: vec![info],
        tasks,
        ..ReregisterAgent::default()
    });
}

/// Beside a task and its executor.
const LEFT: &str = "cpus:2.5; mem:4000; disk:990";
/// Beside a task alone.
const WITHOUT_TASK: &str = "cpus:3.5; mem:4064; disk:990";
const ALL: &str = "cpus:4; mem:4096; disk:1000";

#[test]
fn an_executor_is_paid_for_while_its_launch_may_be_on_its_way_to_an_agent_that_comes_back() {
    let never_came = |status: &mut TaskStatus| {
        status.reason = Some(StatusReason::Reconciliation);
    };
    for (state, say, left) in [
        (
            TaskState::Dropped,
            &never_came as &dyn Fn(&mut TaskStatus),
            ALL,
        ),
        // It has come, and its end is told by itself, whatever it says of its task.
        (
            TaskState::Failed,
            &|status| {
                status.reason = Some(StatusReason::ExecutorTerminated);
                status.executor_id = Some("e".into());
            },
            WITHOUT_TASK,
        ),
        // Of the executor that says nothing.
        (TaskState::Dropped, &|_| {}, WITHOUT_TASK),
    ] {
        let it = Situation::new();
        comes_back_without_the_executor(&it, Vec::new());
        assert_eq!(it.left(), LEFT);
        let mut message = update(&it.id, &it.agent_id, "a", state, 1);
        say(&mut message.update.status);
        it.agent.say(message);
        assert_eq!(it.left(), left, "{state}");
        it.agent.say(ExecutorExited {
            agent_id: it.agent_id.clone(),
            framework_id: it.id.clone(),
            executor_id: it.executor().executor_id,
            status: -1,
        });
        assert_eq!(it.left(), ALL, "{state}");
    }
}

#[test]
fn an_executor_that_has_ended_with_its_task_while_its_agent_was_away_is_not_paid_for() {
    let it = Situation::new();
    let mut ended = Task::new(&it.part("a"), &it.id, "nobody");
    ended.executor_id = Some(it.executor().executor_id);
    ended.state = TaskState::Failed;
    comes_back_without_the_executor(&it, vec![ended]);
    // The task is until its end is told.
    assert_eq!(it.left(), "cpus:3; mem:4032; disk:1000");
    it.agent
        .say(update(&it.id, &it.agent_id, "a", TaskState::Failed, 1));
    assert_eq!(it.left(), ALL);
}
