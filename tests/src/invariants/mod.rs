//! The laws of a cluster, one file each, and the checker that holds a history to them.
//!
//! Pure: nothing here knows a simulator, a node or a clock. Laws about tasks read a [`History`], event by event, as
//! the runner writes it; laws about masters and their log are told what the runner sees; laws about resources and
//! leftovers are functions of plain values that whoever runs a cluster takes from its processes. Where a law is stated:
//! section 7 of the project's test plan, whose numbers they keep (S is not in it); what frameworks are promised of it, in
//! `docs/delivery.md`.
//!
//! | law | file |
//! |---|---|
//! | T-1 a task is started at most once | [`started_once`] |
//! | T-2 no launch is silently lost | [`no_launch_lost`] |
//! | T-3 after a task's end only copies of it follow | [`nothing_after_the_end`] |
//! | T-4 states follow the table | [`state_table`] |
//! | T-5 the next update comes after the acknowledgement of the last | [`one_in_flight`] |
//! | T-6 an update is kept until it is acknowledged, over restarts | [`updates_are_kept`], [`told_is_kept`] |
//! | T-7 what is acknowledged is never sent again | [`acknowledged_is_over`] |
//! | T-8 what an agent has written down lives on over its restart | `sim/hosts.rs` |
//! | T-9 what has to end has ended in time | [`ended_in_time`] |
//! | T-10 a group of tasks is started as a whole, or not at all | [`groups_are_whole`] |
//! | G-1 an agent keeps its id, which is nobody else's | [`agents_keep_their_ids`] |
//! | G-2 an agent is unreachable after the full time only, and removals keep to the rate | [`unreachable_in_time`] |
//! | S-1 the sandbox of what runs is never removed, S-2 none goes before its time, S-3 each goes at last | [`sandboxes_stay`] |
//! | A-1 no more is offered and used than there is | [`no_overcommitment`] |
//! | A-2 a resource is in one offer at most | [`one_offer_each`] |
//! | A-3 the books balance, to the thousandth | [`books_balance`] |
//! | K-1 nothing is left behind | [`nothing_left_behind`] |
//! | K-2 queues are bounded | [`queues_are_bounded`] |
//! | K-3 nobody panics | [`no_panics`] |
//! | Z-1 when faults stop, the cluster converges | [`convergence`] |
//! | L-1 no position of the log has two chosen values | [`one_value_each`] |
//! | L-2 what was acknowledged is readable by every later leader | [`acknowledged_entries_stay`] |
//! | L-3 a replica's promise never falls | [`promises_never_fall`] |
//! | L-4 no vote leaves before it is on disk | [`votes_are_durable`] |
//! | L-5 who may have forgotten something does not vote | [`only_voters_vote`] |
//! | L-6 nothing of an older leader is acknowledged above a new one's end | [`old_leaders_write_nothing`] |
//! | L-7 truncation hides nothing else | [`truncation_is_asked_for`] |
//! | L-8 readers see no gaps | [`readers_see_no_gaps`] |
//! | R-1 the registry forgets nothing that was acknowledged | [`registry_forgets_nothing`] |
//! | R-2 nothing shows before it is durable | [`nothing_shows_before_it_is_durable`] |
//! | R-3 an agent is in one place of the registry | [`one_place_for_an_agent`] |
//! | R-4 who is gone does not come back | [`gone_stays_gone`] |
//! | M-1 one leader writes, and who leads no more stops | [`old_leaders_write_nothing`], [`who_leads_no_more_stops`] |
//! | M-2 agents and schedulers act on the latest leader only | [`only_the_latest_leader`] |
//!
//! A new law is a file with its heading, a bad history that it refuses and a good one that it accepts, and, when it
//! reads the history, a line in [`Laws::new`].

pub mod acknowledged_entries_stay;
pub mod acknowledged_is_over;
pub mod agents_keep_their_ids;
pub mod books_balance;
pub mod convergence;
pub mod ended_in_time;
pub mod gone_stays_gone;
pub mod groups_are_whole;
pub mod no_launch_lost;
pub mod no_overcommitment;
pub mod no_panics;
pub mod nothing_after_the_end;
pub mod nothing_left_behind;
pub mod nothing_shows_before_it_is_durable;
pub mod old_leaders_write_nothing;
pub mod one_in_flight;
pub mod one_offer_each;
pub mod one_place_for_an_agent;
pub mod one_value_each;
pub mod only_the_latest_leader;
pub mod only_voters_vote;
pub mod promises_never_fall;
pub mod queues_are_bounded;
pub mod readers_see_no_gaps;
pub mod registry_forgets_nothing;
pub mod sandboxes_stay;
pub mod started_once;
pub mod state_table;
pub mod told_is_kept;
pub mod truncation_is_asked_for;
pub mod unreachable_in_time;
pub mod updates_are_kept;
pub mod votes_are_durable;
pub mod who_leads_no_more_stops;

use std::fmt;

use meseta_protocol::status::TaskState;
use meseta_protocol::{AgentId, TaskId, UpdateId};
use meseta_runtime::Time;

/// Number of a framework in its run. Its id comes from the master; this is known before.
pub type FrameworkNumber = usize;

/// Something that counts for a law. Tasks have ids that are used once in a run, over all frameworks.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A scheduler uses an offer for a task.
    Launched {
        /// Whose.
        framework: FrameworkNumber,
        /// The task.
        task: TaskId,
        /// Where it should run.
        agent: AgentId,
    },
    /// Tasks that a scheduler has just launched belong together.
    LaunchedTogether {
        /// They.
        tasks: Vec<TaskId>,
    },
    /// A task begins to run on a machine.
    Started {
        /// The task.
        task: TaskId,
        /// Its container.
        container: String,
    },
    /// What a task was on a machine is no more.
    Stopped {
        /// The task.
        task: TaskId,
    },
    /// A scheduler hears of a task.
    Heard(Heard),
    /// A scheduler says that it has dealt with an update.
    Acknowledged {
        /// The task.
        task: TaskId,
        /// The update.
        uuid: UpdateId,
    },
    /// A master begins to lead.
    MasterStarted,
    /// A framework follows another master than before. That knows nothing of what an earlier one has told frameworks.
    Followed(FrameworkNumber),
    /// A framework ends by its own wish, or nobody speaks for it any more: nobody is owed anything.
    FrameworkOver(FrameworkNumber),
}

/// What a scheduler hears of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// Who hears it.
    pub framework: FrameworkNumber,
    /// Of which task.
    pub task: TaskId,
    /// Its state.
    pub state: TaskState,
    /// Set when the update is one that has to be acknowledged.
    pub uuid: Option<UpdateId>,
    /// Whether it answers a question of the framework.
    pub answer: bool,
}

impl Event {
    /// Its kind in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Launched { .. } => "launched",
            Self::LaunchedTogether { .. } => "groups",
            Self::Started { .. } => "started",
            Self::Stopped { .. } => "stopped",
            Self::Heard(heard) if heard.state.is_terminal() => "ends heard",
            Self::Heard(_) => "states heard",
            Self::Acknowledged { .. } => "acknowledged",
            Self::MasterStarted => "masters",
            Self::Followed(_) => "masters followed",
            Self::FrameworkOver(_) => "frameworks over",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Launched {
                framework,
                task,
                agent,
            } => write!(f, "framework {framework} launches {task} on {agent}"),
            Self::LaunchedTogether { tasks } => write!(f, "{tasks:?} belong together"),
            Self::Started { task, container } => write!(f, "{task} starts in {container}"),
            Self::Stopped { task } => write!(f, "{task} stops"),
            Self::Heard(heard) => {
                let Heard {
                    framework,
                    task,
                    state,
                    uuid,
                    answer: _,
                } = heard;
                match uuid {
                    Some(uuid) => write!(f, "framework {framework} hears {task} {state} ({uuid})"),
                    None => write!(f, "framework {framework} is told {task} {state}"),
                }
            }
            Self::Acknowledged { task, uuid } => write!(f, "{task} acknowledged ({uuid})"),
            Self::MasterStarted => write!(f, "a master begins to lead"),
            Self::Followed(framework) => write!(f, "framework {framework} follows another master"),
            Self::FrameworkOver(framework) => write!(f, "framework {framework} is over"),
        }
    }
}

/// A broken law.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which, for example `T-1`.
    pub law: &'static str,
    /// What was seen.
    pub evidence: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.law, self.evidence)
    }
}

/// A law about the history.
pub trait Law {
    /// Its number.
    fn number(&self) -> &'static str;
    /// Reads the next event.
    ///
    /// # Errors
    /// What breaks the law.
    fn read(&mut self, event: &Event) -> Result<(), String>;
    /// The run is over and has converged: what had to happen must have happened.
    ///
    /// # Errors
    /// What breaks the law.
    fn end(&self) -> Result<(), String> {
        Ok(())
    }
}

/// All events of a run in their order.
pub type History = Vec<(Time, Event)>;

/// All laws about the history, at a place in it.
pub struct Laws {
    laws: Vec<Box<dyn Law>>,
    read: usize,
}

impl Default for Laws {
    fn default() -> Self {
        Self::new()
    }
}

impl Laws {
    /// All laws, before the first event.
    pub fn new() -> Self {
        Self {
            laws: vec![
                Box::new(started_once::StartedOnce::default()),
                Box::new(no_launch_lost::NoLaunchLost::default()),
                Box::new(nothing_after_the_end::NothingAfterTheEnd::default()),
                Box::new(state_table::StateTable::default()),
                Box::new(one_in_flight::OneInFlight::default()),
                Box::new(groups_are_whole::GroupsAreWhole::default()),
            ],
            read: 0,
        }
    }

    /// Reads what is new in the history.
    ///
    /// # Errors
    /// The first broken law.
    pub fn check(&mut self, history: &History) -> Result<(), Violation> {
        for (_, event) in history.iter().skip(self.read) {
            self.read += 1;
            for law in &mut self.laws {
                let read = law.read(event);
                read.map_err(|evidence| Violation {
                    law: law.number(),
                    evidence,
                })?;
            }
        }
        Ok(())
    }

    /// As [`Laws::check`], and the run is over.
    ///
    /// # Errors
    /// The first broken law.
    pub fn end(&mut self, history: &History) -> Result<(), Violation> {
        self.check(history)?;
        for law in &self.laws {
            law.end().map_err(|evidence| Violation {
                law: law.number(),
                evidence,
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Runs one law over a whole history.
    pub(crate) fn verdict(mut law: impl Law, history: &[Event]) -> Result<(), String> {
        for event in history {
            law.read(event)?;
        }
        law.end()
    }

    pub(crate) fn launched(task: &str) -> Event {
        Event::Launched {
            framework: 0,
            task: task.into(),
            agent: "S0".into(),
        }
    }

    pub(crate) fn started(task: &str) -> Event {
        Event::Started {
            task: task.into(),
            container: "c".to_owned(),
        }
    }

    pub(crate) fn heard(task: &str, state: TaskState, uuid: u8) -> Event {
        Event::Heard(Heard {
            framework: 0,
            task: task.into(),
            state,
            uuid: Some(UpdateId::from_bytes([uuid; 16])),
            answer: false,
        })
    }

    pub(crate) fn told(task: &str, state: TaskState) -> Event {
        Event::Heard(Heard {
            framework: 0,
            task: task.into(),
            state,
            uuid: None,
            answer: false,
        })
    }

    pub(crate) fn answered(task: &str, state: TaskState) -> Event {
        Event::Heard(Heard {
            framework: 0,
            task: task.into(),
            state,
            uuid: None,
            answer: true,
        })
    }

    pub(crate) fn acknowledged(task: &str, uuid: u8) -> Event {
        Event::Acknowledged {
            task: task.into(),
            uuid: UpdateId::from_bytes([uuid; 16]),
        }
    }

    #[test]
    fn a_broken_law_is_named_with_its_evidence_and_each_event_is_read_once() {
        let mut history: History = vec![(Time::default(), started("t"))];
        let mut laws = Laws::new();
        assert_eq!(laws.check(&history), Ok(()));
        assert_eq!(laws.check(&history), Ok(()));
        history.push((Time::default(), started("t")));
        let violation = laws.check(&history).unwrap_err();
        assert_eq!(violation.law, "T-1");
        assert!(violation.to_string().starts_with("T-1: t "));
    }
}
