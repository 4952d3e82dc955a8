//! The laws of the log, as the model checks them, and what it must be able to reach.

use std::collections::BTreeMap;
use std::sync::Arc;

use meseta_master::log::action::{Action, Position, Proposal, Value};
use meseta_master::log::messages::{Response, Span, Status, Verdict};
use meseta_master::log::replica::core::Replica;
use stateright::Property;

use crate::world::{Node, State, World, Writer, is_vote};

/// A law; numbers as in `docs/replicated-log.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Law {
    /// L-1.
    Agreement = 1,
    /// L-2.
    AcknowledgedStays = 1 << 1,
    /// L-3.
    PromisesNeverFall = 1 << 2,
    /// L-4.
    SyncedFirst = 1 << 3,
    /// L-5.
    OnlyVotersVote = 1 << 4,
    /// L-6.
    DemotedIsNotAcknowledged = 1 << 5,
    /// L-7.
    TruncationHidesNothingElse = 1 << 6,
    /// L-8.
    NoGaps = 1 << 7,
    /// The invariants that the cores recount themselves.
    Check = 1 << 8,
}

/// What is known to be chosen, and which laws are broken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Laws {
    decided: BTreeMap<Position, Value>,
    broken: u16,
}

impl Laws {
    pub(crate) fn broke(&mut self, law: Law) {
        self.broken |= law as u16;
    }

    /// What a single part has broken.
    pub(crate) fn also(&mut self, part: &Self) {
        self.broken |= part.broken;
    }

    fn holds(&self, law: Law) -> bool {
        self.broken & law as u16 == 0
    }

    pub(crate) fn learned(&mut self, action: &Action) {
        match action.value() {
            Some(Value::Nop { tombstone: true }) | None => {}
            Some(value) => self.decided(action.position, value),
        }
    }

    pub(crate) fn decided(&mut self, position: Position, value: &Value) {
        if self
            .decided
            .entry(position)
            .or_insert_with(|| value.clone())
            != value
        {
            self.broke(Law::Agreement);
        }
    }

    /// A coordinator has been elected beside this replica.
    pub(crate) fn elected(&mut self, writers: &[Arc<Writer>], replica: &Replica, node: usize) {
        let Some((epoch, ending)) = writers[node].elected else {
            return;
        };
        for (earlier, position) in writers.iter().filter_map(|writer| writer.acknowledged) {
            if earlier >= epoch || position < replica.begin() {
                continue;
            }
            let here = replica
                .action(position)
                .filter(|action| action.learned)
                .and_then(Action::value);
            if position > ending || here != self.decided.get(&position) {
                self.broke(Law::AcknowledgedStays);
            }
        }
    }

    /// A write has been acknowledged.
    pub(crate) fn acknowledged(
        &mut self,
        writers: &[Arc<Writer>],
        node: usize,
        position: Position,
    ) {
        let Some((epoch, _)) = writers[node].elected else {
            self.broke(Law::DemotedIsNotAcknowledged);
            return;
        };
        let later = writers
            .iter()
            .filter_map(|writer| writer.elected)
            .any(|(other, ending)| other > epoch && position > ending);
        if later || writers[node].demoted {
            self.broke(Law::DemotedIsNotAcknowledged);
        }
    }

    /// A replica has answered, and this is its disk.
    pub(crate) fn answers(&mut self, node: &Node, response: &Response, crashes: bool) {
        if !is_vote(response) {
            return;
        }
        if node.replica.status() != Status::Voting {
            self.broke(Law::OnlyVotersVote);
        }
        let record = |position: Position, proposal: Proposal| {
            position < node.replica.begin()
                || node
                    .disk
                    .actions
                    .get(&position)
                    .is_some_and(|action| action.promised >= proposal)
        };
        let synced = match response {
            Response::Promise(answer) if answer.verdict == Verdict::Accept => {
                let implicit = node.disk.metadata.promised >= answer.proposal;
                implicit
                    || answer
                        .position
                        .is_some_and(|at| record(at, answer.proposal))
            }
            Response::Write(answer) if answer.verdict == Verdict::Accept => node
                .disk
                .actions
                .get(&answer.position)
                .map_or(answer.position < node.replica.begin(), |action| {
                    action.performed.is_some()
                }),
            Response::Promise(_)
            | Response::Write(_)
            | Response::Recover(_)
            | Response::Fetch(_)
            | Response::Status(_) => true,
        };
        if crashes && !synced {
            self.broke(Law::SyncedFirst);
        }
    }

    /// A replica has been restored from its disk.
    pub(crate) fn restarted(&mut self, old: &Replica, new: &Replica) {
        if new.metadata().promised < old.metadata().promised {
            self.broke(Law::PromisesNeverFall);
        }
    }

    /// Looks at the whole state.
    pub(crate) fn look(&mut self, state: &State) {
        let replicas = || state.nodes.iter().map(|node| &node.replica);
        for replica in replicas() {
            if replica.check().is_err() {
                self.broke(Law::Check);
            }
            for action in replica.actions() {
                if action.learned {
                    self.learned(action);
                }
                // One proposal writes one value at a position.
                let same = |other: &Replica| match (
                    &action.performed,
                    other
                        .action(action.position)
                        .map(|action| &action.performed),
                ) {
                    (Some(one), Some(Some(other))) => {
                        one.by != other.by || one.value == other.value
                    }
                    _ => true,
                };
                if !replicas().all(same) {
                    self.broke(Law::Agreement);
                }
            }
        }
        for replica in replicas() {
            let reach = self.decided.values().filter_map(|value| match value {
                Value::Truncate { to } => Some(*to),
                Value::Nop { .. } | Value::Append { .. } | Value::Unknown { .. } => None,
            });
            if replica.begin() > reach.max().unwrap_or_default() {
                self.broke(Law::TruncationHidesNothingElse);
            }
            self.read(replica);
        }
    }

    /// Whatever a replica lets read has no gaps.
    fn read(&mut self, replica: &Replica) {
        let first = replica.begin().max(Position(1));
        for to in first.0..=replica.end().0 {
            let span = Span {
                from: first,
                to: Position(to),
            };
            let Ok(entries) = replica.read(span) else {
                continue;
            };
            let right: Option<Vec<(Position, bytes::Bytes)>> = (first.0..=to)
                .map(|at| self.decided.get(&Position(at)).map(|value| (at, value)))
                .collect::<Option<Vec<_>>>()
                .map(|all| {
                    all.into_iter()
                        .filter_map(|(at, value)| match value {
                            Value::Append { bytes } => Some((Position(at), bytes.clone())),
                            Value::Nop { .. } | Value::Truncate { .. } | Value::Unknown { .. } => {
                                None
                            }
                        })
                        .collect()
                });
            if right != Some(entries) {
                self.broke(Law::NoGaps);
            }
        }
    }
}

/// All laws, and what must be reachable so that they are not kept by doing nothing.
pub(crate) fn properties(world: &World) -> Vec<Property<World>> {
    macro_rules! laws {
        ($($name:literal: $law:ident),* $(,)?) => {
            vec![$(Property::always($name, |_, state: &State| state.laws.holds(Law::$law))),*]
        };
    }
    let mut properties = laws![
        "L-1 agreement": Agreement,
        "L-2 acknowledged stays": AcknowledgedStays,
        "L-3 promises never fall": PromisesNeverFall,
        "L-4 synced first": SyncedFirst,
        "L-5 only voters vote": OnlyVotersVote,
        "L-6 demoted is not acknowledged": DemotedIsNotAcknowledged,
        "L-7 truncation hides nothing else": TruncationHidesNothingElse,
        "L-8 no gaps": NoGaps,
        "the cores' own checks": Check,
    ];
    properties.push(Property::sometimes(
        "an append succeeds",
        |_, state: &State| {
            state
                .writers
                .iter()
                .any(|writer| writer.acknowledged.is_some())
        },
    ));
    if world.writes.len() > 1 {
        properties.push(Property::sometimes("fail-over", |_, state: &State| {
            let acknowledged = |node: usize| state.writers[node].acknowledged;
            matches!((acknowledged(0), acknowledged(1)), (Some(one), Some(two)) if one < two)
        }));
        properties.push(Property::sometimes(
            "a hole is filled",
            |_, state: &State| learned(state, |value| *value == Value::Nop { tombstone: false }),
        ));
    }
    if world.writes.contains(&crate::world::Write::Truncate) {
        properties.push(Property::sometimes(
            "a truncation is learned",
            |_, state: &State| {
                state
                    .nodes
                    .iter()
                    .any(|node| node.replica.begin() > Position(1))
            },
        ));
    }
    if world.wipes > 0 {
        properties.push(Property::sometimes(
            "a wiped replica votes again",
            |_, state: &State| {
                state.nodes.iter().any(|node| {
                    node.replica.status() == Status::Voting
                        && node.replica.metadata().life.incarnation.0 > 1
                })
            },
        ));
    }
    properties
}

fn learned(state: &State, is: impl Fn(&Value) -> bool) -> bool {
    state.nodes.iter().any(|node| {
        node.replica
            .actions()
            .any(|action| action.learned && action.value().is_some_and(&is))
    })
}
