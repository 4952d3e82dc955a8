//! The model: three nodes with the shipped replica, recovery and coordinator, a network that loses, delays and doubles,
//! and disks that keep what was synced.
//!
//! A message that is never delivered is lost, so there is no step for losing. What is sent stays in the network and may
//! be delivered again. A node's own replica takes `Learned`, `Chosen`, `Status` and `Recover` at once, since they do not
//! cross the network; promises and writes to it wait like all others.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use meseta_master::log::action::{Action as Record, Position, Proposal, Value};
use meseta_master::log::catchup::{Asks, Timer};
use meseta_master::log::coordinator::core::{Coordinator, Effect as Said, Input};
use meseta_master::log::members::{Incarnation, Life, Member};
use meseta_master::log::messages::{Request, Response, Status, Verdict};
use meseta_master::log::recovery::{self, Recovery, Settings};
use meseta_master::log::replica::core::{Change, Metadata, Replica, Stored};
use meseta_master::log::rounds::Quorum;
use meseta_runtime::planted::{Planted, plant};
use stateright::{Model, Property};

use crate::laws::Laws;
use crate::memo::Memo;
use crate::turn::Turn;

/// Nodes of the model.
pub(crate) const NODES: usize = 3;

/// What is played.
#[derive(Clone)]
pub(crate) struct World {
    /// What the coordinators of the first nodes write once they are elected.
    pub(crate) writes: Vec<Write>,
    /// Restarts from what was synced, of any node at any time.
    pub(crate) crashes: u8,
    /// Lost disks.
    pub(crate) wipes: u8,
    /// How often all catching up together may try a position anew after a rejection.
    pub(crate) retries: u8,
    /// Whether requests stay in the network after they were delivered.
    pub(crate) doubles: bool,
    /// Whether the nodes begin empty, and not as voters.
    pub(crate) empty: bool,
    /// Whether the other replicas hear of what is chosen without having missed it.
    pub(crate) flush: bool,
    /// Whether a fetch may be late or stay without an answer; if not, it is answered at once.
    pub(crate) lost_fetches: bool,
    /// Whether the first coordinator begins first. Where only the third node is frail the first two are alike, and it is
    /// enough to look at one order.
    pub(crate) in_turn: bool,
    /// Nodes that may crash or lose their disks.
    pub(crate) frail: Vec<usize>,
    /// Whether answers wait in the network too; if not, they come at once.
    pub(crate) slow_answers: bool,
    /// Whether an answer that comes at once may be lost instead.
    pub(crate) lost_answers: bool,
    /// A wrong turn to take.
    pub(crate) mistake: Option<&'static str>,
    /// What has been computed already, in this world only.
    pub(crate) memo: Arc<Memos>,
}

/// A replica after a request with its digest, its answer, and the laws that this has broken.
pub(crate) type Handled = (Arc<Node>, u64, Option<Arc<Response>>, Laws);

/// Outcomes of single parts.
#[derive(Default)]
pub(crate) struct Memos {
    pub(crate) replicas: Memo<Handled>,
    pub(crate) writers: Memo<(Arc<Writer>, u64, Vec<Said>, Laws)>,
    pub(crate) recoveries: Memo<(Arc<Node>, u64, Vec<recovery::Effect>)>,
}

/// One write of a coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    /// An entry, named after its node.
    Append,
    /// Truncate all before the position that is written.
    Truncate,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Source {
    Writer(usize),
    Recovery(usize),
}

impl Source {
    pub(crate) fn node(self) -> usize {
        match self {
            Self::Writer(node) | Self::Recovery(node) => node,
        }
    }
}

/// A message under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Packet {
    Ask(Source, usize, Arc<Request>),
    Answer(Source, usize, Arc<Response>),
}

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Elect(usize),
    Write(usize),
    Deliver(Packet),
    /// As `Deliver`, but the answer is lost; only where answers do not wait.
    Unanswered(Packet),
    Retry(Source),
    PassOver(Source),
    Crash(usize),
    Wipe(usize),
}

/// The open timers of a source that the model knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Timers {
    pub(crate) retry: Option<Timer>,
    pub(crate) patience: Option<Timer>,
}

impl Timers {
    pub(crate) fn only(self, open: impl Fn(&Timer) -> bool) -> Self {
        Self {
            retry: self.retry.filter(&open),
            patience: self.patience.filter(&open),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) replica: Replica,
    pub(crate) recovery: Recovery,
    pub(crate) timers: Timers,
    /// What a restart would find, and what is not yet there. Left out when no crash can come any more.
    pub(crate) disk: Disk,
    pub(crate) unsynced: Vec<Change>,
    pub(crate) lives: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Disk {
    pub(crate) metadata: Metadata,
    pub(crate) actions: BTreeMap<Position, Record>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Writer {
    pub(crate) coordinator: Coordinator,
    pub(crate) timers: Timers,
    pub(crate) stage: Stage,
    pub(crate) acknowledged: Option<(Proposal, Position)>,
    /// Epoch and end with which it was elected.
    pub(crate) elected: Option<(Proposal, Position)>,
    pub(crate) demoted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    Fresh,
    Begun,
    Written,
    Over,
}

/// Everything. Its parts are hashed when they change, and only these digests are compared: the checker, too, knows a
/// state by 64 bits.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) writers: Vec<Arc<Writer>>,
    pub(crate) digests: Vec<u64>,
    /// By digest.
    pub(crate) network: Arc<BTreeMap<u64, Packet>>,
    pub(crate) crashes: u8,
    pub(crate) wipes: u8,
    pub(crate) retries: u8,
    pub(crate) laws: Laws,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.digests == other.digests
            && self.network.keys().eq(other.network.keys())
            && (self.crashes, self.wipes, self.retries)
                == (other.crashes, other.wipes, other.retries)
            && self.laws == other.laws
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digests.hash(state);
        for digest in self.network.keys() {
            state.write_u64(*digest);
        }
        (self.network.len(), self.crashes, self.wipes, self.retries).hash(state);
        self.laws.hash(state);
    }
}

pub(crate) fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

pub(crate) fn member(node: usize) -> Member {
    Member::from(["a", "b", "c"][node])
}

pub(crate) fn index(member: &Member) -> usize {
    (0..NODES)
        .find(|node| self::member(*node) == *member)
        .expect("members are named after nodes")
}

pub(crate) fn quorum() -> Quorum {
    Quorum::majority((0..NODES).map(member))
}

fn recovery(lives: u64) -> Recovery {
    let settings = Settings {
        quorum: quorum(),
        auto_initialize: true,
    };
    Recovery::new(settings, Asks(1_000 * lives))
}

pub(crate) fn first_life(node: usize) -> Life {
    Life {
        incarnation: Incarnation::FIRST,
        nonce: 1 + node as u64,
    }
}

impl World {
    fn plant(&self) -> Option<Planted> {
        self.mistake.map(plant)
    }

    fn node(&self, node: usize) -> Node {
        let mut metadata = Metadata::default();
        if !self.empty {
            metadata.status = Status::Voting;
            metadata.life = first_life(node);
            for other in (0..NODES).filter(|other| *other != node) {
                metadata.lives.note(&member(other), first_life(other));
            }
        }
        Node::boot(node, metadata, Vec::new(), 0)
    }

    fn first(&self) -> State {
        let mut state = State {
            nodes: (0..NODES).map(|node| Arc::new(self.node(node))).collect(),
            writers: (0..self.writes.len())
                .map(|node| {
                    Arc::new(Writer {
                        coordinator: Coordinator::new(
                            member(node),
                            quorum(),
                            Asks(100_000 * (1 + node as u64)),
                        ),
                        timers: Timers::default(),
                        stage: Stage::Fresh,
                        acknowledged: None,
                        elected: None,
                        demoted: false,
                    })
                })
                .collect(),
            digests: Vec::new(),
            network: Arc::default(),
            crashes: self.crashes,
            wipes: self.wipes,
            retries: self.retries,
            laws: Laws::default(),
        };
        let mut turn = Turn::new(self, &mut state);
        for node in 0..NODES {
            turn.start(node);
        }
        turn.finish(None);
        state
    }
}

impl Node {
    pub(crate) fn boot(node: usize, metadata: Metadata, actions: Vec<Record>, lives: u64) -> Self {
        let disk = Disk {
            metadata: metadata.clone(),
            actions: actions
                .iter()
                .map(|action| (action.position, action.clone()))
                .collect(),
        };
        let stored = Stored {
            metadata,
            actions,
            damaged: false,
        };
        Self {
            replica: Replica::restore(member(node), stored),
            recovery: recovery(10 * lives + node as u64),
            timers: Timers::default(),
            disk,
            unsynced: Vec::new(),
            lives: lives + 1,
        }
    }

    pub(crate) fn sync(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Metadata(metadata) => self.disk.metadata = metadata,
                Change::Action(action) => {
                    self.disk.actions.insert(action.position, action);
                }
                Change::Forget { below } => self.disk.actions = self.disk.actions.split_off(&below),
            }
        }
    }
}

/// What a coordinator writes at a position.
pub(crate) fn written(write: Write, node: usize, position: Position) -> Value {
    match write {
        Write::Append => Value::Append {
            bytes: Bytes::from_static([b"a", b"b", b"c"][node]),
        },
        Write::Truncate => Value::Truncate { to: position },
    }
}

impl Model for World {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let _planted = self.plant();
        vec![self.first()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        for (node, writer) in state.writers.iter().enumerate() {
            let waits = self.in_turn && node > 0 && state.writers[0].stage == Stage::Fresh;
            if writer.stage == Stage::Fresh && !waits {
                steps.push(Step::Elect(node));
            }
            if writer.stage == Stage::Begun && writer.coordinator.is_elected() {
                steps.push(Step::Write(node));
            }
            self.timers(state, Source::Writer(node), writer.timers, steps);
        }
        for (number, node) in state.nodes.iter().enumerate() {
            self.timers(state, Source::Recovery(number), node.timers, steps);
        }
        for node in &self.frail {
            // Where all is synced a crash only silences the coordinator, and so does a network that delivers nothing.
            if state.crashes > 0 && !state.nodes[*node].unsynced.is_empty() {
                steps.push(Step::Crash(*node));
            }
            if state.wipes > 0 {
                steps.push(Step::Wipe(*node));
            }
        }
        for packet in state.network.values() {
            steps.push(Step::Deliver(packet.clone()));
            if self.lost_answers && matches!(packet, Packet::Ask(..)) {
                steps.push(Step::Unanswered(packet.clone()));
            }
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let _planted = self.plant();
        let mut state = last.clone();
        let loses = matches!(step, Step::Unanswered(_));
        let mut turn = Turn::new(self, &mut state);
        match step {
            Step::Elect(node) => {
                turn.writer_mut(node).stage = Stage::Begun;
                turn.tell(node, Input::Elect);
            }
            Step::Write(node) => {
                turn.writer_mut(node).stage = Stage::Written;
                let token = node as u64;
                let position = turn.state.writers[node]
                    .elected
                    .map_or(Position(0), |(_, ending)| ending.next());
                turn.tell(
                    node,
                    match written(self.writes[node], node, position) {
                        Value::Truncate { to } => Input::Truncate { token, to },
                        Value::Append { bytes } => Input::Append { token, bytes },
                        Value::Nop { .. } | Value::Unknown { .. } => return None,
                    },
                );
            }
            Step::Deliver(packet) | Step::Unanswered(packet) => {
                turn.loses_answer = loses;
                if !self.doubles {
                    Arc::make_mut(&mut turn.state.network).remove(&digest(&packet));
                }
                match packet {
                    Packet::Ask(source, to, request) => {
                        turn.request(source, to, digest(&(source, &request)), &request);
                    }
                    Packet::Answer(source, from, response) => {
                        turn.answer(source, from, &response);
                    }
                }
            }
            Step::Retry(source) => {
                turn.state.retries -= 1;
                let timer = turn.timers(source).retry.take()?;
                turn.due(source, timer);
            }
            Step::PassOver(source) => {
                let timer = turn.timers(source).patience.take()?;
                turn.due(source, timer);
            }
            Step::Crash(node) => {
                turn.state.crashes -= 1;
                let old = Arc::clone(&turn.state.nodes[node]);
                let actions = old.disk.actions.values().cloned().collect();
                turn.boot(node, old.disk.metadata.clone(), actions, &old);
            }
            Step::Wipe(node) => {
                turn.state.wipes -= 1;
                let old = Arc::clone(&turn.state.nodes[node]);
                turn.boot(node, Metadata::default(), Vec::new(), &old);
            }
        }
        turn.finish(Some(last));
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        crate::laws::properties(self)
    }
}

impl World {
    fn timers(&self, state: &State, source: Source, timers: Timers, steps: &mut Vec<Step>) {
        if timers.retry.is_some() && state.retries > 0 {
            steps.push(Step::Retry(source));
        }
        if timers.patience.is_some() && self.lost_fetches {
            steps.push(Step::PassOver(source));
        }
    }
}

/// Whether an answer is a vote.
pub(crate) fn is_vote(response: &Response) -> bool {
    match response {
        Response::Promise(answer) => answer.verdict != Verdict::Ignored,
        Response::Write(answer) => answer.verdict != Verdict::Ignored,
        Response::Recover(_) | Response::Fetch(_) | Response::Status(_) => false,
    }
}
