//! A cluster of the shipped cores whose messages a test delivers by hand, one kind at a time.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use meseta_master::log::action::{Action, Position, Proposal};
use meseta_master::log::catchup::{Asks, Timer};
use meseta_master::log::coordinator::core::{Coordinator, Effect as Said, Input};
use meseta_master::log::messages::{LearnedMessage, Request, Response, Span, Status, WriteRequest};
use meseta_master::log::recovery::{self, Recovery, Settings};
use meseta_master::log::replica::core::{Effect, Metadata, ReadError, Replica, Stored};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::world::{NODES, Source, first_life, member, quorum};

/// A message that waits to be delivered.
#[derive(Debug, Clone)]
pub(crate) enum Mail {
    Ask(Source, usize, Request),
    Answer(Source, usize, Response),
}

impl Mail {
    /// Whose replica it goes to or comes from.
    pub(crate) fn replica(&self) -> usize {
        match self {
            Self::Ask(_, node, _) | Self::Answer(_, node, _) => *node,
        }
    }

    pub(crate) fn source(&self) -> Source {
        match self {
            Self::Ask(source, _, _) | Self::Answer(source, _, _) => *source,
        }
    }
}

/// Three nodes, each with a coordinator.
pub(crate) struct Cluster {
    pub(crate) replicas: Vec<Replica>,
    recoveries: Vec<Recovery>,
    pub(crate) coordinators: Vec<Coordinator>,
    pub(crate) mail: VecDeque<Mail>,
    timers: Vec<(Source, Timer, Duration)>,
    /// What the coordinators have said, besides messages and timers.
    pub(crate) said: Vec<(usize, Said)>,
    random: StdRng,
}

pub(crate) fn entry(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

impl Cluster {
    /// All replicas vote and are empty.
    pub(crate) fn voting() -> Self {
        Self::of(|node| {
            let mut metadata = Metadata {
                status: Status::Voting,
                life: first_life(node),
                ..Metadata::default()
            };
            for other in (0..NODES).filter(|other| *other != node) {
                metadata.lives.note(&member(other), first_life(other));
            }
            metadata
        })
    }

    /// All disks are new.
    pub(crate) fn empty() -> Self {
        Self::of(|_| Metadata::default())
    }

    fn of(metadata: impl Fn(usize) -> Metadata) -> Self {
        let mut cluster = Self {
            replicas: Vec::new(),
            recoveries: Vec::new(),
            coordinators: Vec::new(),
            mail: VecDeque::new(),
            timers: Vec::new(),
            said: Vec::new(),
            random: StdRng::seed_from_u64(4),
        };
        for node in 0..NODES {
            cluster.replicas.push(restored(node, metadata(node)));
            cluster.recoveries.push(recovery(node as u64));
            let asks = Asks(1_000_000 * (node as u64 + 1));
            cluster
                .coordinators
                .push(Coordinator::new(member(node), quorum(), asks));
        }
        for node in 0..NODES {
            cluster.recover(node);
        }
        cluster
    }

    /// The node's disk is lost, and it starts anew. Its coordinator goes on: it is somebody else's.
    pub(crate) fn wipe(&mut self, node: usize) {
        self.replicas[node] = restored(node, Metadata::default());
        self.recoveries[node] = recovery(50_000 + self.mail.len() as u64);
        self.recover(node);
    }

    fn recover(&mut self, node: usize) {
        let effects = self.recoveries[node].start(&mut self.replicas[node], &mut self.random);
        self.recovered(node, effects);
    }

    /// Tells a coordinator something.
    pub(crate) fn tell(&mut self, node: usize, input: Input) {
        let effects = self.coordinators[node].step(input, &mut self.random);
        assert_eq!(self.coordinators[node].check(), Ok(()));
        let source = Source::Writer(node);
        for effect in effects {
            match effect {
                Said::Send(to, request) => self.post(source, to.as_str(), request),
                Said::Arm(timer, after) => self.timers.push((source, timer, after)),
                said @ (Said::Elected { .. }
                | Said::NotElected(_)
                | Said::Written { .. }
                | Said::Refused { .. }
                | Said::Lost { .. }
                | Said::Demoted) => self.said.push((node, said)),
            }
        }
    }

    fn recovered(&mut self, node: usize, effects: Vec<recovery::Effect>) {
        let source = Source::Recovery(node);
        for effect in effects {
            match effect {
                recovery::Effect::Send(to, request) => self.post(source, to.as_str(), request),
                recovery::Effect::Arm(timer, after) => self.timers.push((source, timer, after)),
                recovery::Effect::Store(_) | recovery::Effect::Voting => {}
            }
        }
    }

    fn post(&mut self, source: Source, to: &str, request: Request) {
        let to = (0..NODES).find(|node| member(*node).as_str() == to);
        self.mail
            .push_back(Mail::Ask(source, to.expect("a member"), request));
    }

    /// Delivers what `which` picks, and what follows from it, until nothing of it is left. The rest waits.
    pub(crate) fn deliver(&mut self, which: impl Fn(&Mail) -> bool) {
        while let Some(at) = self.mail.iter().position(&which) {
            match self.mail.remove(at) {
                Some(Mail::Ask(source, to, request)) => {
                    if let Some(response) = self.ask(to, request) {
                        self.mail.push_back(Mail::Answer(source, to, response));
                    }
                }
                Some(Mail::Answer(Source::Writer(node), from, response)) => {
                    self.tell(node, Input::Answer(member(from), response));
                }
                Some(Mail::Answer(Source::Recovery(node), from, response)) => {
                    let effects = self.recoveries[node].answered(
                        &mut self.replicas[node],
                        &member(from),
                        response,
                        &mut self.random,
                    );
                    self.recovered(node, effects);
                }
                None => {}
            }
        }
    }

    /// Delivers everything of one node's coordinator between it and these replicas.
    pub(crate) fn between(&mut self, coordinator: usize, replicas: &[usize]) {
        self.deliver(|mail| {
            mail.source() == Source::Writer(coordinator) && replicas.contains(&mail.replica())
        });
    }

    /// Delivers everything.
    pub(crate) fn settle(&mut self) {
        self.deliver(|_| true);
    }

    /// Everything under way is lost.
    pub(crate) fn lose(&mut self) {
        self.mail.clear();
    }

    /// All timers so far run out, some times over.
    pub(crate) fn time_passes(&mut self, rounds: usize) {
        self.settle();
        self.time_passes_but(rounds, |_| false);
    }

    /// Timers run out while what `lost` picks does not get through.
    pub(crate) fn time_passes_but(&mut self, rounds: usize, lost: impl Fn(&Mail) -> bool) {
        for _ in 0..rounds {
            self.mail.retain(|mail| !lost(mail));
            let timers = std::mem::take(&mut self.timers);
            for (source, timer, _) in timers {
                self.due(source, timer);
            }
            self.deliver(|mail| !lost(mail));
            self.mail.retain(|mail| !lost(mail));
        }
    }

    fn due(&mut self, source: Source, timer: Timer) {
        match source {
            Source::Writer(node) => self.tell(node, Input::Due(timer)),
            Source::Recovery(node) => {
                let replica = &mut self.replicas[node];
                let effects = self.recoveries[node].due(replica, timer, &mut self.random);
                self.recovered(node, effects);
            }
        }
    }

    /// Hands a request to a replica; its answer.
    pub(crate) fn ask(&mut self, to: usize, request: Request) -> Option<Response> {
        let effects = self.replicas[to].step(request);
        assert_eq!(self.replicas[to].check(), Ok(()));
        effects.into_iter().find_map(|effect| match effect {
            Effect::Reply(response) => Some(response),
            Effect::Store(_) | Effect::StoreLater(_) => None,
        })
    }

    /// Puts a record onto a replica as if a coordinator with this proposal had reached it alone.
    pub(crate) fn accepted(&mut self, node: usize, by: u64, at: u64, text: &'static str) {
        let request = WriteRequest {
            ask: 0,
            proposal: Proposal(by),
            position: Position(at),
            value: meseta_master::log::action::Value::Append { bytes: entry(text) },
            more: Vec::new(),
            chosen: None,
        };
        self.ask(node, request.into());
    }

    /// As if the announcement of a chosen value had reached this replica alone.
    pub(crate) fn announced(&mut self, node: usize, by: u64, at: u64, text: &'static str) {
        let value = meseta_master::log::action::Value::Append { bytes: entry(text) };
        let actions = vec![Action::learned(Position(at), Proposal(by), value)];
        self.ask(node, LearnedMessage { actions }.into());
    }

    /// Elects the coordinator of a node with everybody's help.
    pub(crate) fn elect(&mut self, node: usize) {
        self.tell(node, Input::Elect);
        self.between(node, &[0, 1, 2]);
    }

    pub(crate) fn append(&mut self, node: usize, text: &'static str) {
        let bytes = entry(text);
        self.tell(node, Input::Append { token: 7, bytes });
    }

    /// What the coordinator of a node has said so far.
    pub(crate) fn said_by(&self, node: usize) -> Vec<Said> {
        let of = self.said.iter().filter(|(by, _)| *by == node);
        of.map(|(_, said)| said.clone()).collect()
    }

    /// What a replica lets read.
    pub(crate) fn read(&self, node: usize, from: u64, to: u64) -> Result<Vec<Bytes>, ReadError> {
        let span = Span {
            from: Position(from),
            to: Position(to),
        };
        let entries = self.replicas[node].read(span)?;
        Ok(entries.into_iter().map(|(_, bytes)| bytes).collect())
    }
}

fn restored(node: usize, metadata: Metadata) -> Replica {
    let stored = Stored {
        metadata,
        ..Stored::default()
    };
    Replica::restore(member(node), stored)
}

fn recovery(number: u64) -> Recovery {
    let settings = Settings {
        quorum: quorum(),
        auto_initialize: true,
    };
    Recovery::new(settings, Asks(1_000 * number))
}
