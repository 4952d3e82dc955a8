//! What `meseta execute` waits for, when it hears nothing for a while: the master, an agent that is away, or an offer that
//! is large enough.
//!
//! Pure: who calls says what time it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meseta_protocol::TaskId;
use meseta_protocol::resources::Resources;
use meseta_runtime::Time;

use super::run::Run;

/// So long nothing is said of the master, or of offers.
const PATIENCE: Duration = Duration::from_secs(5);

/// A task of which nobody has said anything for so long is silent: it was asked about twice.
const SILENT: Duration = Duration::from_secs(12);

/// How often the same is said again.
const REMIND: Duration = Duration::from_secs(30);

/// Most agents that are named.
const NAMED: usize = 3;

/// Something to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    Master,
    Agents,
    Offers,
    LargerOffers,
}

/// What was heard last, of everything that could be waited for.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Since when the master is away, if it is.
    away: Option<Time>,
    /// When something was heard of each task that runs.
    heard: BTreeMap<TaskId, Time>,
    /// Since when nothing runs, and what the last offer held, which was too small.
    idle: Option<(Time, Option<Resources>)>,
    /// What was said last, and when.
    said: Option<(Time, For)>,
}

impl Waiting {
    /// The master is there.
    pub(super) fn connected(&mut self) {
        self.away = None;
    }

    /// The master is away.
    pub(super) fn disconnected(&mut self, now: Time) {
        self.away.get_or_insert(now);
    }

    /// Something was heard of a task.
    pub(super) fn heard(&mut self, task: &TaskId, now: Time) {
        self.heard.insert(task.clone(), now);
    }

    /// An offer held only this.
    pub(super) fn too_small(&mut self, offer: &Resources) {
        if let Some((_, last)) = &mut self.idle {
            *last = Some(offer.clone());
        }
    }

    /// What to say of it now, if anything. Asked for every few seconds.
    pub(super) fn look(&mut self, now: Time, run: &Run, each: &Resources) -> Option<String> {
        self.heard.retain(|task, _| run.running.contains_key(task));
        for task in run.running.keys() {
            self.heard.entry(task.clone()).or_insert(now);
        }
        if run.running.is_empty() && !run.waiting.is_empty() {
            self.idle.get_or_insert((now, None));
        } else {
            self.idle = None;
        }
        let Some((what, text)) = self.waits_for(now, run, each) else {
            self.said = None;
            return None;
        };
        let again = |(at, before): (Time, For)| before != what || now.since(at) >= REMIND;
        if !self.said.is_none_or(again) {
            return None;
        }
        self.said = Some((now, what));
        Some(text)
    }

    fn waits_for(&self, now: Time, run: &Run, each: &Resources) -> Option<(For, String)> {
        let long = |since: Time, limit: Duration| now.since(since) >= limit;
        if let Some(since) = self.away {
            let text = "the master is away: waiting for it; tasks may be running on".to_owned();
            return long(since, PATIENCE).then_some((For::Master, text));
        }
        let silent = self.heard.iter().filter(|(_, at)| long(**at, SILENT));
        let silent: Vec<&TaskId> = silent.map(|(task, _)| task).collect();
        if !silent.is_empty() {
            return Some((For::Agents, of_agents(run, &silent)));
        }
        let (since, offered) = self.idle.as_ref()?;
        if !long(*since, PATIENCE) {
            return None;
        }
        Some(match offered {
            Some(offered) => (
                For::LargerOffers,
                format!(
                    "waiting for a larger offer: an instance needs {each}, the last offer held {offered}"
                ),
            ),
            None => (
                For::Offers,
                format!(
                    "waiting for an offer: no agent has {each} to spare; `meseta agents` shows what each has"
                ),
            ),
        })
    }
}

fn of_agents(run: &Run, silent: &[&TaskId]) -> String {
    let running = silent.iter().filter_map(|task| run.running.get(*task));
    let agents: BTreeSet<&str> = running.map(|(_, agent)| agent.as_str()).collect();
    let named: Vec<&str> = agents.iter().take(NAMED).copied().collect();
    let more = match agents.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let tasks = match silent {
        [one] => one.to_string(),
        many => format!("{} tasks", many.len()),
    };
    format!(
        "waiting to hear of {tasks}: the master does not know yet whether agent {}{more} will be back",
        named.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use meseta_protocol::AgentId;
    use meseta_protocol::status::{TaskState, TaskStatus};

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn each() -> Resources {
        "cpus:2".parse().unwrap()
    }

    /// Two instances, of which one runs.
    fn one_runs() -> (Run, TaskId) {
        let mut run = Run::new(2);
        let task = run.start_next(&AgentId::new("S0")).unwrap();
        (run, task)
    }

    #[test]
    fn a_task_that_is_heard_of_is_not_waited_for() {
        let (run, task) = one_runs();
        let mut waiting = Waiting::default();
        for second in (0..100).step_by(5) {
            assert_eq!(waiting.look(at(second), &run, &each()), None);
            waiting.heard(&task, at(second));
        }
    }

    #[test]
    fn a_silent_task_is_named_with_its_agent_now_and_then() {
        let (run, _) = one_runs();
        let mut waiting = Waiting::default();
        let said: Vec<u64> = (0..60)
            .step_by(5)
            .filter(|second| waiting.look(at(*second), &run, &each()).is_some())
            .collect();
        assert_eq!(said, [15, 45]);
        let text = waiting.look(at(100), &run, &each()).unwrap();
        assert!(
            text.contains("of task-1: ") && text.contains("agent S0 "),
            "{text}"
        );
    }

    #[test]
    fn of_many_agents_a_few_are_named() {
        let mut run = Run::new(9);
        for agent in ["S0", "S0", "S1", "S2", "S3", "S4"] {
            run.start_next(&AgentId::new(agent)).unwrap();
        }
        let mut waiting = Waiting::default();
        assert_eq!(waiting.look(at(0), &run, &each()), None);
        let text = waiting.look(at(20), &run, &each()).unwrap();
        assert!(text.contains("of 6 tasks: "), "{text}");
        assert!(text.contains("S0, S1, S2 and 2 more"), "{text}");
    }

    #[test]
    fn a_master_that_is_away_is_what_is_waited_for() {
        let (run, _) = one_runs();
        let mut waiting = Waiting::default();
        waiting.disconnected(at(0));
        waiting.disconnected(at(4));
        assert_eq!(waiting.look(at(1), &run, &each()), None);
        assert!(
            waiting
                .look(at(6), &run, &each())
                .unwrap()
                .contains("the master is away")
        );
        waiting.connected();
        assert_eq!(
            waiting.look(at(9), &run, &each()),
            None,
            "what it ran may be heard of now"
        );
        waiting.disconnected(at(10));
        assert!(
            waiting.look(at(15), &run, &each()).is_some(),
            "not the same absence"
        );
    }

    #[test]
    fn who_runs_nothing_says_what_it_needs_and_what_there_is() {
        let (mut run, task) = one_runs();
        let mut waiting = Waiting::default();
        waiting.too_small(&"cpus:1".parse().unwrap());
        assert_eq!(waiting.look(at(0), &run, &each()), None);
        run.update(&TaskStatus::new(task, TaskState::Finished));
        assert_eq!(waiting.look(at(5), &run, &each()), None);
        let none = waiting.look(at(10), &run, &each()).unwrap();
        assert!(none.contains("no agent has cpus:2 to spare"), "{none}");
        waiting.too_small(&"cpus:1".parse().unwrap());
        let small = waiting.look(at(15), &run, &each()).unwrap();
        assert!(
            small.contains("needs cpus:2, the last offer held cpus:1"),
            "{small}"
        );
        run.start_next(&AgentId::new("S0")).unwrap();
        assert_eq!(waiting.look(at(60), &run, &each()), None);
    }
}
