//! Running a world: step after step, what each event does, and how a node starts.
//!
//! Invariant: nothing happens on a node that is paused or down; what was due on a paused one waits, in its order.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;

use super::check::{Failure, Invariant, Seen};
use super::faults::{self, Faults};
use super::node::{Control, Drifting, SimHome, State};
use super::process::Outcome;
use super::{Boot, Event, LIVELOCK, NodeId, Reply, STORY, Sim};
use crate::host::Turn;

/// Running it.
impl Sim {
    /// Runs for a virtual time.
    ///
    /// # Errors
    /// [`Failure`] when a law is broken.
    pub fn run_for(&mut self, time: Duration) -> Result<(), Failure> {
        self.run_until(time, |_| false).map(|_| ())
    }

    /// Runs until `done` says so after some step, for at most `limit` of virtual time; whether it did.
    ///
    /// # Errors
    /// [`Failure`] when a law is broken.
    pub fn run_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Result<bool, Failure> {
        let end = self.now + limit;
        let (mut instant, mut at_once) = (self.now, 0);
        loop {
            if let Some(failure) = &self.failure {
                return Err(failure.clone());
            }
            if done(self) {
                return Ok(true);
            }
            if self.ready.is_empty() && self.queue.next_at().is_none_or(|at| at > end) {
                self.now = end;
                return Ok(false);
            }
            self.step();
            if self.now == instant {
                at_once += 1;
                if at_once > LIVELOCK {
                    self.fail(
                        "progress",
                        "the world does not come to rest: time stands still",
                    );
                }
            } else {
                (instant, at_once) = (self.now, 0);
            }
        }
    }

    /// One step: an effect, a turn, or an event of the world.
    fn step(&mut self) {
        self.steps += 1;
        if self.ready.is_empty() {
            if let Some((at, event)) = self.queue.pop() {
                self.now = at.max(self.now);
                self.happen(event);
            }
        } else {
            let index = self.random.random_range(0..self.ready.len());
            let process = self.ready.swap_remove(index);
            self.step_process(process);
        }
        self.take_early();
        self.check(|law, sim| law.after_step(sim));
    }

    /// Ends all faults: partitions mend, paused nodes go on, crashed ones come back when they would have.
    pub fn heal(&mut self) {
        self.note_world(format_args!("heal"));
        self.healed = true;
        self.faults = Faults::none();
        self.mend_all();
        for node in self.node_ids().collect::<Vec<_>>() {
            self.resume(node);
        }
    }

    /// Asks the laws about the end of the run.
    ///
    /// # Errors
    /// [`Failure`] when one is broken.
    pub fn finish(&mut self) -> Result<(), Failure> {
        self.check(|law, sim| law.at_end(sim));
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// Ends the run as a broken law does.
    pub fn fail(&mut self, law: &str, what: &str) {
        if self.failure.is_none() {
            self.failure = Some(Failure {
                seed: self.seed,
                at: self.now,
                law: law.to_owned(),
                what: what.to_owned(),
                story: self.journal.story(STORY, &[]),
            });
        }
    }

    pub(super) fn check(
        &mut self,
        mut look: impl FnMut(&mut dyn Invariant, &Self) -> Result<(), String>,
    ) {
        if self.failure.is_some() {
            return;
        }
        let mut laws = std::mem::take(&mut self.laws);
        for law in &mut laws {
            if let Err(what) = look(law.as_mut(), self) {
                self.fail(law.name(), &what);
                break;
            }
        }
        self.laws = laws;
    }

    pub(super) fn tell(&mut self, seen: &Seen<'_>) {
        if self.verbose
            && let Seen::Sent(letter) = seen
        {
            self.journal.detail(&letter.show());
        }
        self.check(|law, sim| law.seen(sim, seen));
    }

    pub(super) fn happen(&mut self, event: Event) {
        if let Some(node) = self.home_of(&event)
            && self.nodes[node.0].state == State::Paused
        {
            self.parked.push((node, event));
            return;
        }
        match event {
            Event::Wake(process) => {
                if self.slot(&process).is_some() {
                    self.ready.push(process);
                }
            }
            Event::Timer(process, timer) => {
                if let Some(slot) = self.slot(&process) {
                    slot.timers.remove(&timer);
                    self.push_control(&process, Control::Turn(Turn::Timer(timer)));
                }
            }
            Event::AskFailed(process, number, error) => {
                if let Some(slot) = self.slot(&process) {
                    slot.asks.remove(&number);
                    self.push_control(&process, Control::Turn(Turn::AskFailed(number, error)));
                }
            }
            Event::OpDone(reply, out) => self.op_done(reply, out),
            Event::Arrive(flight) => self.arrive(flight),
            Event::Dial { from, to } => self.dial(from, to),
            Event::Notice {
                node,
                incarnation,
                peer,
                generation,
            } => {
                if self.nodes[node.0].incarnation == incarnation {
                    self.notice(node, peer, generation);
                }
            }
            Event::Silence {
                from,
                to,
                generation,
                epoch,
                paused,
            } => self.silence(from, to, generation, epoch, paused),
            Event::Cut {
                directions,
                lasts,
                kind,
            } => self.cut(directions, lasts, kind),
            Event::Mend(number) => self.mend(number),
            Event::Fault => self.fault(),
            Event::Restart(node) => {
                if self.nodes[node.0].state == State::Down {
                    self.boot(node);
                }
            }
            Event::Resume(node) => self.resume(node),
            Event::Call(act) => act(self),
        }
    }

    /// The node that has to run for an event to happen.
    fn home_of(&self, event: &Event) -> Option<NodeId> {
        match event {
            Event::Wake(process) | Event::Timer(process, _) | Event::AskFailed(process, ..) => {
                Some(process.node)
            }
            Event::OpDone(reply, _) => Some(reply.process.node),
            Event::Arrive(flight) => Some(flight.receiver()),
            Event::Dial { from, .. } => Some(*from),
            Event::Notice { node, .. } => Some(*node),
            Event::Silence { .. }
            | Event::Cut { .. }
            | Event::Mend(_)
            | Event::Fault
            | Event::Restart(_)
            | Event::Resume(_)
            | Event::Call(_) => None,
        }
    }

    fn op_done(&mut self, reply: Reply, out: Outcome) {
        let node = reply.process.node;
        if self.nodes[node.0].incarnation != reply.incarnation || !self.nodes[node.0].is_alive() {
            self.bites.count(faults::LATE_ANSWER);
            return;
        }
        let turn = Turn::OpDone(reply.number, out);
        self.push_control(&reply.process, Control::Turn(turn));
    }

    pub(super) fn boot(&mut self, node: NodeId) {
        let most = i64::from(self.faults.drift);
        let drift = self.random.random_range(-most..=most);
        if drift != 0 {
            self.bites.count(faults::DRIFT);
        }
        let offset = self.random.random_range(0..3_600_000_000_000);
        let (now, dirty) = (self.now, Arc::clone(&self.dirty));
        let starting = &mut self.nodes[node.0];
        starting.incarnation += 1;
        starting.state = State::Up;
        starting.clock = Drifting::new(now, offset, drift);
        let home = SimHome::new(
            starting.address.clone(),
            starting.clock,
            starting.wall_step,
            starting.settings.max_asks,
            dirty,
        );
        starting.home = Arc::new(home);
        starting.links = crate::links::Links::default();
        starting.pinned.clear();
        let boot = Rc::clone(&starting.boot);
        self.note_node(node, format_args!("boots, drift {drift}"));
        self.tell(&Seen::Booted(node));
        boot(&mut Boot { sim: self, node });
    }
}
