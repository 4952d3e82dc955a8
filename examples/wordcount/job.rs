//! The job: which portions wait, run and are done, and what follows from what happens to their tasks.
//!
//! Pure: no clock, no network. Invariant: each portion counts once, with the first result that comes, however often it
//! had to be started. A task id names its portion and its attempt, so a late result is still recognised.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use meseta_protocol::TaskId;
use meseta_protocol::status::{StatusSource, TaskState, TaskStatus};

use crate::count::{Counts, add_text};
use crate::timeline::Span;

/// Times the executor itself may report a portion as failed before the job is given up.
const MAX_FAILURES: u32 = 3;
/// Times a portion may be lost before the job is given up: no cluster is that unlucky.
const MAX_ATTEMPTS: u32 = 50;

#[derive(Debug)]
struct Attempt {
    portion: usize,
    agent: String,
    began: Option<Duration>,
}

/// The job.
#[derive(Debug)]
pub(crate) struct Job {
    portions: usize,
    waiting: VecDeque<usize>,
    attempts: BTreeMap<TaskId, Attempt>,
    done: BTreeSet<usize>,
    failures: BTreeMap<usize, u32>,
    losses: BTreeMap<usize, u32>,
    next_attempt: u64,
    counts: Counts,
    spans: Vec<Span>,
    reruns: u64,
}

/// What an update means for the job.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing yet.
    Going,
    /// A portion is done.
    Done,
    /// A portion must run again.
    Again,
    /// The job cannot succeed.
    Failed(String),
}

impl Job {
    /// A job of so many portions.
    pub(crate) fn new(portions: usize) -> Self {
        Self {
            portions,
            waiting: (0..portions).collect(),
            attempts: BTreeMap::new(),
            done: BTreeSet::new(),
            failures: BTreeMap::new(),
            losses: BTreeMap::new(),
            next_attempt: 0,
            counts: Counts::new(),
            spans: Vec::new(),
            reruns: 0,
        }
    }

    /// Takes the next portion to be started, on this agent; its task id and number.
    pub(crate) fn start_next(&mut self, agent: &str) -> Option<(TaskId, usize)> {
        let portion = self.waiting.pop_front()?;
        self.next_attempt += 1;
        let id = TaskId::new(format!("map-{portion}-{}", self.next_attempt));
        let attempt = Attempt {
            portion,
            agent: agent.to_owned(),
            began: None,
        };
        self.attempts.insert(id.clone(), attempt);
        Some((id, portion))
    }

    /// Takes an update. Updates of unknown tasks, repeated ones included, mean nothing.
    pub(crate) fn update(&mut self, status: &TaskStatus, now: Duration) -> Outcome {
        let Some(attempt) = self.attempts.get_mut(&status.task_id) else {
            return Outcome::Going;
        };
        if status.state == TaskState::Running {
            attempt.began.get_or_insert(now);
            return Outcome::Going;
        }
        let lost = matches!(status.state, TaskState::Unreachable | TaskState::Unknown);
        if !status.state.is_terminal() && !lost {
            return Outcome::Going;
        }
        let Some(attempt) = self.attempts.remove(&status.task_id) else {
            return Outcome::Going;
        };
        let result = status
            .data
            .as_ref()
            .filter(|_| status.state == TaskState::Finished);
        let finished = result.is_some();
        if let Some(began) = attempt.began {
            self.spans.push(Span {
                agent: attempt.agent,
                began,
                ended: now,
                finished,
            });
        }
        if self.done.contains(&attempt.portion) {
            return Outcome::Going;
        }
        match result {
            Some(text) => {
                if add_text(&mut self.counts, text).is_none() {
                    return Outcome::Failed(format!(
                        "task {} sent a result that is none",
                        status.task_id
                    ));
                }
                self.done.insert(attempt.portion);
                Outcome::Done
            }
            None => self.run_again(attempt.portion, status),
        }
    }

    fn run_again(&mut self, portion: usize, status: &TaskStatus) -> Outcome {
        let by_executor =
            status.state == TaskState::Failed && status.source == Some(StatusSource::Executor);
        if by_executor {
            let failures = self.failures.entry(portion).or_default();
            *failures += 1;
            if *failures >= MAX_FAILURES {
                let why = status.message.as_deref().unwrap_or("no reason given");
                return Outcome::Failed(format!(
                    "portion {portion} failed {MAX_FAILURES} times: {why}"
                ));
            }
        }
        if status.state == TaskState::Error {
            let why = status.message.as_deref().unwrap_or("no reason given");
            return Outcome::Failed(format!("task {} was refused: {why}", status.task_id));
        }
        let losses = self.losses.entry(portion).or_default();
        *losses += 1;
        if *losses >= MAX_ATTEMPTS {
            let why = status.message.as_deref().unwrap_or("no reason given");
            return Outcome::Failed(format!(
                "portion {portion} was lost {MAX_ATTEMPTS} times, last with {}: {why}",
                status.state
            ));
        }
        self.reruns += 1;
        self.waiting.push_back(portion);
        Outcome::Again
    }

    /// Whether every portion has counted.
    pub(crate) fn is_done(&self) -> bool {
        self.done.len() == self.portions
    }

    /// Tasks that have not ended, with the name of their agent.
    pub(crate) fn unfinished(&self) -> impl Iterator<Item = (&TaskId, &str)> {
        let attempts = self.attempts.iter();
        attempts.map(|(id, attempt)| (id, attempt.agent.as_str()))
    }

    /// Portions that have counted.
    pub(crate) fn done(&self) -> usize {
        self.done.len()
    }

    /// Portions that had to be started again.
    pub(crate) fn reruns(&self) -> u64 {
        self.reruns
    }

    /// The counts so far.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Which agent ran what, so far.
    pub(crate) fn spans(&self) -> &[Span] {
        &self.spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(id: &TaskId, state: TaskState, data: Option<&[u8]>) -> TaskStatus {
        let mut status = TaskStatus::new(id.clone(), state);
        status.source = Some(StatusSource::Executor);
        status.data = data.map(|data| data.to_vec().into());
        status
    }

    #[test]
    fn a_lost_portion_runs_again_and_counts_once() {
        let mut job = Job::new(1);
        let (first, _) = job.start_next("a").unwrap();
        let now = Duration::ZERO;
        assert_eq!(
            job.update(&ended(&first, TaskState::Lost, None), now),
            Outcome::Again
        );
        let (second, portion) = job.start_next("b").unwrap();
        assert_eq!((portion, job.reruns()), (0, 1));
        let finished = ended(&second, TaskState::Finished, Some(b"x\t2\n"));
        assert_eq!(job.update(&finished, now), Outcome::Done);
        assert_eq!(job.update(&finished, now), Outcome::Going);
        assert!(job.is_done());
        assert_eq!(job.counts()[&b"x".to_vec()], 2);
    }

    #[test]
    fn a_portion_that_keeps_failing_ends_the_job() {
        let mut job = Job::new(1);
        for attempt in 1..=MAX_FAILURES {
            let (id, _) = job.start_next("a").unwrap();
            let outcome = job.update(&ended(&id, TaskState::Failed, None), Duration::ZERO);
            assert_eq!(
                matches!(outcome, Outcome::Failed(_)),
                attempt == MAX_FAILURES
            );
        }
    }
}
