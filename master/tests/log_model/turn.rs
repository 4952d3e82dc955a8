//! One step of the model: an input to one of the shipped cores, and all that is done at once because of it.

use std::collections::VecDeque;
use std::sync::Arc;

use meseta_master::log::action::{Action as Record, Proposal};
use meseta_master::log::catchup::{Asks, RETRY, Timer};
use meseta_master::log::coordinator::core::{Coordinator, Effect as Said, FLUSH, Input};
use meseta_master::log::messages::{Request, Response};
use meseta_master::log::recovery;
use meseta_master::log::replica::core::{Effect, Metadata};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::laws::{Law, Laws};
use crate::world::{
    Disk, Handled, NODES, Node, Packet, Source, Stage, State, Timers, World, Writer, digest, index,
    member, quorum, written,
};

/// One step under way: effects that are carried out at once queue up here.
pub(crate) struct Turn<'a> {
    world: &'a World,
    pub(crate) state: &'a mut State,
    work: VecDeque<(Source, usize, Request)>,
    pub(crate) loses_answer: bool,
    /// Parts whose digest is out of date: nodes, then writers.
    changed: [bool; NODES + NODES],
    /// Whether a question may have been closed.
    closed: bool,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(world: &'a World, state: &'a mut State) -> Self {
        Self {
            world,
            state,
            work: VecDeque::new(),
            loses_answer: false,
            changed: [false; NODES + NODES],
            closed: false,
        }
    }

    pub(crate) fn start(&mut self, node: usize) {
        // Each node and each life draws numbers of its own.
        let lives = self.state.nodes[node].lives;
        let mut random = StdRng::seed_from_u64(lives * 16 + node as u64);
        let this = self.node_mut(node);
        let effects = this.recovery.start(&mut this.replica, &mut random);
        self.recover(node, effects);
    }

    fn recover(&mut self, node: usize, effects: Vec<recovery::Effect>) {
        for effect in effects {
            match effect {
                recovery::Effect::Store(change) => {
                    let this = self.node_mut(node);
                    this.unsynced.push(change);
                    this.sync();
                }
                recovery::Effect::Send(to, request) => {
                    self.send(Source::Recovery(node), index(&to), request);
                }
                recovery::Effect::Arm(timer, after) => {
                    arm(&mut self.node_mut(node).timers, timer, after);
                }
                recovery::Effect::Voting => {}
            }
        }
    }

    fn say(&mut self, node: usize, effects: Vec<Said>) {
        for effect in effects {
            match effect {
                Said::Send(to, request) => self.send(Source::Writer(node), index(&to), request),
                Said::Arm(timer, after) if after == FLUSH => {
                    if self.world.flush {
                        self.tell(node, Input::Due(timer));
                    }
                }
                Said::Arm(timer, after) => {
                    arm(&mut self.writer_mut(node).timers, timer, after);
                }
                Said::Elected { epoch, ending } => {
                    let writer = self.writer_mut(node);
                    writer.elected = Some((epoch, ending));
                    self.state.laws.elected(
                        &self.state.writers,
                        &self.state.nodes[node].replica,
                        node,
                    );
                }
                Said::Written { position, .. } => {
                    let value = written(self.world.writes[node], node, position);
                    let writer = self.writer_mut(node);
                    let epoch = writer.elected.map_or(Proposal(0), |(epoch, _)| epoch);
                    writer.acknowledged = Some((epoch, position));
                    writer.stage = Stage::Over;
                    self.state.laws.decided(position, &value);
                    self.state
                        .laws
                        .acknowledged(&self.state.writers, node, position);
                }
                Said::NotElected(_) | Said::Refused { .. } | Said::Lost { .. } => {
                    self.writer_mut(node).stage = Stage::Over;
                }
                Said::Demoted => self.writer_mut(node).demoted = true,
            }
        }
    }

    fn node_mut(&mut self, node: usize) -> &mut Node {
        self.changed[node] = true;
        Arc::make_mut(&mut self.state.nodes[node])
    }

    pub(crate) fn writer_mut(&mut self, node: usize) -> &mut Writer {
        self.changed[NODES + node] = true;
        Arc::make_mut(&mut self.state.writers[node])
    }

    /// Digest of a part as it is now.
    fn digest_of(&mut self, part: usize) -> u64 {
        if self.state.digests.len() <= part {
            let parts = NODES + self.state.writers.len();
            self.state.digests.resize(parts, 0);
            self.changed = [true; NODES + NODES];
        }
        if std::mem::take(&mut self.changed[part]) {
            self.state.digests[part] = match part.checked_sub(NODES) {
                None => digest(&self.state.nodes[part]),
                Some(writer) => digest(&self.state.writers[writer]),
            };
        }
        self.state.digests[part]
    }

    pub(crate) fn tell(&mut self, node: usize, input: Input) {
        let given = digest(&format!("{input:?}"));
        self.tell_this(node, given, input);
    }

    fn tell_this(&mut self, node: usize, given: u64, input: Input) {
        let part = self.digest_of(NODES + node);
        let memo = Arc::clone(&self.world.memo);
        let outcome = memo.writers.of(part, given, || {
            let mut writer = (*self.state.writers[node]).clone();
            let mut laws = Laws::default();
            let mut random = StdRng::seed_from_u64(0);
            let effects = writer.coordinator.step(input, &mut random);
            if writer.coordinator.check().is_err() {
                laws.broke(Law::Check);
            }
            let digest = digest(&writer);
            (Arc::new(writer), digest, effects, laws)
        });
        let (writer, digest, effects, laws) = &*outcome;
        self.state.laws.also(laws);
        if *digest != part {
            self.state.writers[node] = Arc::clone(writer);
            self.state.digests[NODES + node] = *digest;
            self.closed = true;
        }
        self.say(node, effects.clone());
    }

    fn send(&mut self, source: Source, to: usize, request: Request) {
        let at_once = match &request {
            Request::Learned(_) | Request::Chosen(_) | Request::Status(_) | Request::Recover(_) => {
                source.node() == to
            }
            // What is fetched is final, so what comes late only brings less.
            Request::Fetch(_) => !self.world.lost_fetches,
            Request::Promise(_) | Request::Write(_) => false,
        };
        if let Request::Learned(message) = &request {
            for action in &message.actions {
                self.state.laws.learned(action);
            }
        }
        if let Request::Fetch(fetch) = &request {
            self.timers(source).patience = Some(Timer(fetch.ask));
        }
        if at_once {
            self.work.push_back((source, to, request));
        } else {
            self.post(Packet::Ask(source, to, Arc::new(request)));
        }
    }

    fn post(&mut self, packet: Packet) {
        Arc::make_mut(&mut self.state.network).insert(digest(&packet), packet);
    }

    fn is_open(&self, source: Source, ask: u64) -> bool {
        match source {
            Source::Writer(node) => self.state.writers[node].coordinator.awaits(ask),
            Source::Recovery(node) => self.state.nodes[node].recovery.awaits(ask),
        }
    }

    /// Hands a request to a replica, and its answer to the network or to who asked.
    pub(crate) fn request(&mut self, source: Source, to: usize, given: u64, request: &Request) {
        let local = source.node() == to;
        let part = self.digest_of(to);
        let crashes = self.state.crashes > 0;
        let memo = Arc::clone(&self.world.memo);
        let outcome = memo
            .replicas
            .of(part, given.wrapping_add(u64::from(crashes)), || {
                handled(&self.state.nodes[to], request.clone(), crashes)
            });
        let (node, digest, response, laws) = &*outcome;
        self.state.laws.also(laws);
        if *digest != part {
            self.state.nodes[to] = Arc::clone(node);
            self.state.digests[to] = *digest;
        }
        let Some(response) = response else {
            return;
        };
        let at_once = matches!(request, Request::Fetch(_))
            || !self.world.slow_answers
            || (local && matches!(request, Request::Status(_) | Request::Recover(_)));
        if !self.is_open(source, response.ask()) {
            return;
        }
        if !at_once {
            self.post(Packet::Answer(source, to, Arc::clone(response)));
        } else if !self.loses_answer {
            self.answer(source, to, response);
        }
    }

    pub(crate) fn answer(&mut self, source: Source, from: usize, response: &Arc<Response>) {
        let given = digest(&(from, response));
        match source {
            Source::Writer(node) => {
                let input = Input::Answer(member(from), (**response).clone());
                self.tell_this(node, given, input);
            }
            Source::Recovery(node) => {
                let part = self.digest_of(node);
                let memo = Arc::clone(&self.world.memo);
                let outcome = memo.recoveries.of(part, given, || {
                    let mut this = (*self.state.nodes[node]).clone();
                    let mut random = StdRng::seed_from_u64(this.lives * 16 + node as u64 + 1_000);
                    let response = (**response).clone();
                    let from = member(from);
                    let effects =
                        this.recovery
                            .answered(&mut this.replica, &from, response, &mut random);
                    let digest = digest(&this);
                    (Arc::new(this), digest, effects)
                });
                let (this, digest, effects) = &*outcome;
                if *digest != part {
                    self.state.nodes[node] = Arc::clone(this);
                    self.state.digests[node] = *digest;
                    self.closed = true;
                }
                self.recover(node, effects.clone());
            }
        }
    }

    pub(crate) fn due(&mut self, source: Source, timer: Timer) {
        match source {
            Source::Writer(node) => self.tell(node, Input::Due(timer)),
            Source::Recovery(node) => {
                let this = self.node_mut(node);
                let mut random = StdRng::seed_from_u64(this.lives * 16 + node as u64 + 2_000);
                let effects = this.recovery.due(&mut this.replica, timer, &mut random);
                self.recover(node, effects);
            }
        }
    }

    /// Does what is to be done at once, and forgets messages that nobody can take up any more.
    pub(crate) fn finish(mut self, last: Option<&State>) {
        while let Some((source, to, request)) = self.work.pop_front() {
            let given = digest(&(source, &request));
            self.request(source, to, given, &request);
        }
        if self.closed || self.changed.contains(&true) || last.is_none() {
            self.forget();
        }
        self.judge(last);
    }

    /// Drops questions and answers that nobody waits for, and timers that nobody has.
    fn forget(&mut self) {
        let State {
            nodes,
            writers,
            network,
            ..
        } = &mut *self.state;
        let network = Arc::make_mut(network);
        network.retain(|_, packet| {
            let open = |source: &Source, ask: u64| match source {
                Source::Writer(node) => writers[*node].coordinator.awaits(ask),
                Source::Recovery(node) => nodes[*node].recovery.awaits(ask),
            };
            match packet {
                Packet::Answer(source, _, response) => open(source, response.ask()),
                Packet::Ask(source, _, request) => match &**request {
                    Request::Fetch(fetch) => open(source, fetch.ask),
                    Request::Recover(recover) => open(source, recover.ask),
                    Request::Promise(_)
                    | Request::Write(_)
                    | Request::Learned(_)
                    | Request::Chosen(_)
                    | Request::Status(_) => true,
                },
            }
        });
        for node in 0..self.state.writers.len() {
            let writer = &self.state.writers[node];
            let open = |timer: &Timer| writer.coordinator.awaits(timer.0);
            let timers = writer.timers.only(open);
            if timers != writer.timers {
                self.writer_mut(node).timers = timers;
            }
        }
        for at in 0..NODES {
            let node = &self.state.nodes[at];
            let timers = node.timers.only(|timer| node.recovery.awaits(timer.0));
            if timers != node.timers {
                self.node_mut(at).timers = timers;
            }
        }
    }

    /// Looks at the state that has come out.
    fn judge(&mut self, last: Option<&State>) {
        if self.state.crashes == 0 {
            for at in 0..NODES {
                let node = &self.state.nodes[at];
                if node.disk != Disk::default() || !node.unsynced.is_empty() {
                    let node = self.node_mut(at);
                    node.disk = Disk::default();
                    node.unsynced.clear();
                }
            }
        }
        for part in 0..NODES + self.state.writers.len() {
            self.digest_of(part);
        }
        let nodes = &self.state.digests[..NODES];
        if last.is_none_or(|last| last.digests[..NODES] != *nodes) {
            let mut laws = std::mem::take(&mut self.state.laws);
            laws.look(self.state);
            self.state.laws = laws;
        }
    }
}

/// A replica after a request, with its answer and the laws that this has broken.
fn handled(node: &Node, request: Request, crashes: bool) -> Handled {
    let mut node = node.clone();
    let mut laws = Laws::default();
    let mut answer = None;
    let before = node.replica.metadata().promised;
    let effects = node.replica.step(request);
    if node.replica.metadata().promised < before {
        laws.broke(Law::PromisesNeverFall);
    }
    for effect in effects {
        match effect {
            Effect::Store(change) | Effect::StoreLater(change) => {
                if crashes {
                    node.unsynced.push(change);
                }
            }
            Effect::Reply(response) => {
                node.sync();
                laws.answers(&node, &response, crashes);
                answer = Some(Arc::new(response));
            }
        }
    }
    let digest = digest(&node);
    (Arc::new(node), digest, answer, laws)
}

fn arm(timers: &mut Timers, timer: Timer, after: std::time::Duration) {
    if (RETRY..RETRY * 2).contains(&after) {
        timers.retry = Some(timer);
    }
}

impl Turn<'_> {
    pub(crate) fn timers(&mut self, source: Source) -> &mut Timers {
        match source {
            Source::Writer(node) => &mut self.writer_mut(node).timers,
            Source::Recovery(node) => &mut self.node_mut(node).timers,
        }
    }

    /// Starts a node anew; the coordinator of its former run is gone.
    pub(crate) fn boot(
        &mut self,
        node: usize,
        metadata: Metadata,
        actions: Vec<Record>,
        old: &Node,
    ) {
        let wiped = metadata == Metadata::default();
        let new = Node::boot(node, metadata, actions, old.lives);
        if !wiped {
            self.state.laws.restarted(&old.replica, &new.replica);
        }
        *self.node_mut(node) = new;
        if node < self.state.writers.len() {
            let writer = self.writer_mut(node);
            writer.stage = Stage::Over;
            writer.timers = Timers::default();
            writer.coordinator =
                Coordinator::new(member(node), quorum(), Asks(100_000 * (1 + node as u64)));
        }
        self.start(node);
    }
}
