//! Processes on simulated nodes: whose turn it is, what a turn does, and how its effects are carried out one by one.
//!
//! The rules are those of the live host ([`crate::host`]): control before user messages, the gate and the order of
//! effects in [`crate::host::line`], a stop drops what is left, a panic ends its process only. What differs is who
//! decides: here the seed does, and a crash may fall between any two effects.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;

use super::check::{Letter, Seen};
use super::faults;
use super::network::Frame;
use super::node::{Control, Early, Making, SimHome, Slot, State, User};
use super::routing::Place;
use super::{Event, NodeId, ProcessRef, Reply, Sim};
use crate::context::{AskError, Effect, Surroundings};
use crate::host::{Factory, Hosted, Turn, panic_text};
use crate::links::{ExitReason, Input};
use crate::message::{Correlation, Envelope, Mail, Payload};
use crate::pid::Pid;

/// What a step of a process did.
enum Stepped {
    Effect(Effect),
    Control(Control),
    User(User),
}

impl Sim {
    pub(super) fn slot(&mut self, process: &ProcessRef) -> Option<&mut Slot> {
        let node = &mut self.nodes[process.node.0];
        let slot = node.slots.get_mut(&process.id)?;
        (slot.number == process.number).then_some(slot)
    }

    /// Lets a process have a turn when there is something to do for it.
    pub(super) fn wake(&mut self, node: NodeId, id: &Arc<str>) {
        let Some(slot) = self.nodes[node.0].slots.get_mut(id) else {
            return;
        };
        if slot.awake || !slot.is_ready() {
            return;
        }
        slot.awake = true;
        let process = ProcessRef {
            node,
            id: Arc::clone(id),
            number: slot.number,
        };
        if self.draw(self.faults.late_wakes) {
            self.bites.count(faults::LATE_WAKE);
            let delay = self.up_to(std::time::Duration::from_millis(50));
            self.schedule(delay, Event::Wake(process));
        } else {
            self.ready.push(process);
        }
    }

    /// One effect or one event of a process that is ready.
    pub(super) fn step_process(&mut self, process: ProcessRef) {
        let node = process.node;
        if self.nodes[node.0].state == State::Paused {
            self.parked.push((node, Event::Wake(process)));
            return;
        }
        let Some(slot) = self.slot(&process) else {
            return;
        };
        let stepped = if let Some(effect) = slot.line.pop() {
            Stepped::Effect(effect)
        } else if let Some(control) = slot.control.pop_front() {
            Stepped::Control(control)
        } else if !slot.line.is_held()
            && let Some(user) = slot.user.pop_front()
        {
            Stepped::User(user)
        } else {
            slot.awake = false;
            return;
        };
        match stepped {
            Stepped::Effect(effect) => {
                if self.may_crash(node) && self.draw(self.faults.crashes_between_effects) {
                    self.bites.count(faults::BETWEEN_EFFECTS);
                    self.crash_as_drawn(node);
                    return;
                }
                self.carry_out(&process, effect);
            }
            Stepped::Control(control) => self.control(&process, control),
            Stepped::User(user) => self.user(&process, user),
        }
        let Some(slot) = self.slot(&process) else {
            return;
        };
        if slot.is_ready() {
            self.ready.push(process);
        } else {
            slot.awake = false;
        }
    }

    fn control(&mut self, process: &ProcessRef, control: Control) {
        match control {
            Control::Make(making) => self.make(process, *making),
            Control::OpFailed(reason) => self.end(process, ExitReason::Panic(reason)),
            Control::Turn(Turn::OpDone(number, out)) => {
                let Some(slot) = self.slot(process) else {
                    return;
                };
                slot.ops.remove(&number);
                let held = slot.line.is_held_by(number);
                self.note(process, format_args!("outcome {number}"));
                let Some(effects) = self.turn(process, Turn::OpDone(number, out)) else {
                    return;
                };
                if let Some(slot) = self.slot(process) {
                    if held {
                        slot.line.release(number, effects);
                    } else {
                        slot.line.push(effects);
                    }
                }
            }
            Control::Turn(turn) => {
                match &turn {
                    Turn::Timer(_) => self.note(process, format_args!("timer")),
                    Turn::AskFailed(number, error) => {
                        self.note(process, format_args!("no answer {number}: {error}"));
                    }
                    Turn::Start => self.note(process, format_args!("start")),
                    Turn::Message(_) | Turn::Exited(..) | Turn::OpDone(..) | Turn::Http(..) => {}
                }
                self.turn_and_push(process, turn);
            }
        }
    }

    fn user(&mut self, process: &ProcessRef, user: User) {
        match user {
            User::Message(letter) => {
                if let Correlation::Answer(number) = letter.correlation
                    && let Some(slot) = self.slot(process)
                    && let Some(key) = slot.asks.remove(&number)
                {
                    self.queue.cancel(key);
                }
                self.note(
                    process,
                    format_args!(
                        "handles {} from {} ({} B)",
                        letter.name,
                        letter.from,
                        letter.body.len()
                    ),
                );
                self.tell(&Seen::Handled(&letter));
                let mail = Mail {
                    from: letter.from,
                    kind: letter.kind,
                    correlation: letter.correlation,
                    payload: Payload::Wire(letter.body),
                };
                self.turn_and_push(process, Turn::Message(mail));
            }
            User::Exited(pid, reason) => {
                self.note(process, format_args!("hears {pid} exited: {reason:?}"));
                self.turn_and_push(process, Turn::Exited(pid, reason));
            }
            User::Terminate(reason) => self.end(process, reason),
        }
    }

    fn turn_and_push(&mut self, process: &ProcessRef, turn: Turn) {
        if let Some(effects) = self.turn(process, turn)
            && let Some(slot) = self.slot(process)
        {
            slot.line.push(effects);
        }
    }

    /// One turn and its effects; none when it has ended its process.
    pub(super) fn turn(&mut self, process: &ProcessRef, turn: Turn) -> Option<Vec<Effect>> {
        let now = self.nodes[process.node.0].clock.local(self.now);
        let slot = self.slot(process)?;
        let cell = slot.cell.as_mut()?;
        let mut effects = Vec::new();
        // The cell is dropped when this fails, so nobody sees the state that the panic left behind.
        let outcome = catch_unwind(AssertUnwindSafe(|| cell.turn(turn, now, &mut effects)));
        let pid = slot.pid.clone();
        self.take_early();
        match outcome {
            Ok(()) => {
                self.tell(&Seen::Turned(&pid));
                Some(effects)
            }
            Err(panic) => {
                let text = panic_text(panic.as_ref());
                // Frees the names that the turn had taken, before anybody has another turn.
                drop(effects);
                self.end(process, ExitReason::Panic(text));
                None
            }
        }
    }

    pub(super) fn carry_out(&mut self, process: &ProcessRef, effect: Effect) {
        let node = process.node;
        let Some(slot) = self.slot(process) else {
            return;
        };
        let me = slot.pid.clone();
        match effect {
            Effect::Stop(reason) => self.end(process, reason),
            Effect::Send(envelope) => {
                self.send_envelope(node, envelope);
            }
            Effect::Ask {
                request,
                number,
                limit,
            } => {
                let failed = |error| Event::AskFailed(process.clone(), number, error);
                let delay = self.nodes[node.0].clock.real(limit);
                let key = self.schedule(delay, failed(AskError::TimedOut));
                if let Some(slot) = self.slot(process) {
                    slot.asks.insert(number, key);
                }
                if !self.send_envelope(node, request) {
                    self.ask_failed(process, number, AskError::Undelivered);
                }
            }
            Effect::AskRefused { number } => {
                self.nodes[node.0].metrics().count("runtime/asks_refused");
                self.ask_failed(process, number, AskError::TooMany);
            }
            Effect::After { timer, delay } => {
                let delay = self.nodes[node.0].clock.real(delay);
                let key = self.schedule(delay, Event::Timer(process.clone(), timer));
                if let Some(slot) = self.slot(process) {
                    slot.timers.insert(timer, key);
                }
            }
            Effect::Cancel(timer) => {
                if let Some(key) = slot.timers.remove(&timer) {
                    self.queue.cancel(key);
                }
            }
            Effect::Run { number, op, .. } => {
                slot.ops.insert(number);
                self.note(process, format_args!("runs {} as {number}", short(op.name)));
                let Some(model) = self.models.get(&op.type_id).cloned() else {
                    let reason = format!("no model for {}: give one to Sim::model", op.name);
                    self.push_control(process, Control::OpFailed(reason));
                    return;
                };
                let reply = Reply {
                    process: process.clone(),
                    incarnation: self.nodes[node.0].incarnation,
                    number,
                };
                model(self, node, op.op, reply);
            }
            Effect::Link(target) => {
                self.note(process, format_args!("links to {target}"));
                self.link(node, me, target);
            }
            Effect::Unlink(target) => {
                let watcher = me;
                self.links(node, Input::Unwatch { watcher, target });
            }
            Effect::Spawn { reserved, factory } => self.start(node, &reserved.starts(), factory),
            Effect::Terminate(pid) => {
                let slot = self.nodes[node.0].slots.get_mut(pid.id());
                if let Some(slot) = slot.filter(|slot| slot.pid == pid) {
                    slot.user.push_back(User::Terminate(ExitReason::Terminated));
                    let id = slot.pid.shared_id();
                    self.wake(node, &id);
                }
            }
            Effect::Respond(responder, response) => responder.respond(response),
            // A simulated node is open from its start on, which is harder on guests: they may come before they are pinned.
            Effect::OpenNode => {}
            Effect::Pin(guest) => {
                self.note(process, format_args!("lets {} in", guest.id));
                self.nodes[node.0].pinned.insert(guest.id, guest.role);
            }
            Effect::Unpin(id) => {
                self.note(process, format_args!("refuses {id}"));
                self.nodes[node.0].pinned.remove(&id);
                if let Some(guest) = self.guests.get(&(node, id)).copied() {
                    self.unpinned(node, guest);
                }
            }
        }
    }

    /// Sends a message; `false` when it was dropped here. The value is serialised wherever it goes, so that a type that
    /// does not round-trip is found.
    fn send_envelope(&mut self, node: NodeId, envelope: Envelope) -> bool {
        let (name, body) = match &envelope.payload {
            Payload::Local(parcel) => match parcel.encode() {
                Ok(body) => (parcel.name(), Bytes::from(body)),
                Err(error) => {
                    self.fail("messages encode", &format!("{}: {error}", parcel.name()));
                    return false;
                }
            },
            Payload::Wire(body) => ("?", body.clone()),
        };
        let letter = Letter {
            to: envelope.to,
            from: envelope.from,
            kind: envelope.kind,
            name,
            correlation: envelope.correlation,
            body,
        };
        self.deliver(node, letter)
    }

    pub(super) fn deliver(&mut self, node: NodeId, letter: Letter) -> bool {
        self.note_node(
            node,
            format_args!("{} -> {} {}", letter.from, letter.to, letter.name),
        );
        self.tell(&Seen::Sent(&letter));
        match self.place(node, &letter.to) {
            Place::Here => self.deliver_here(node, letter, true),
            Place::Peer(peer) => {
                let sent = self.send_frame(node, peer, Frame::Message(letter.clone()));
                if !sent {
                    self.dropped(&letter, "unreachable");
                }
                sent
            }
            Place::Unreachable => {
                self.dropped(&letter, "unreachable");
                false
            }
            Place::Nowhere => {
                self.dropped(&letter, "no such node");
                // As live: it waits for a dial that nobody answers.
                true
            }
        }
    }

    pub(super) fn deliver_here(&mut self, node: NodeId, letter: Letter, own: bool) -> bool {
        let place = &mut self.nodes[node.0];
        let mailbox = place.settings.mailbox;
        let Some(slot) = place.slots.get_mut(letter.to.id()) else {
            place.metrics().count("runtime/messages_dropped/no_process");
            self.dropped(&letter, "no such process");
            return false;
        };
        if slot.is_full_for(letter.correlation, own, mailbox) {
            place
                .metrics()
                .count("runtime/messages_dropped/mailbox_full");
            self.dropped(&letter, "mailbox full");
            return false;
        }
        let id = slot.pid.shared_id();
        slot.user.push_back(User::Message(letter));
        slot.most_waiting = slot.most_waiting.max(slot.user.len());
        self.wake(node, &id);
        true
    }

    fn ask_failed(&mut self, process: &ProcessRef, number: u64, error: AskError) {
        if let Some(slot) = self.slot(process) {
            if let Some(key) = slot.asks.remove(&number) {
                self.queue.cancel(key);
            }
            self.push_control(process, Control::Turn(Turn::AskFailed(number, error)));
        }
    }

    pub(super) fn push_control(&mut self, process: &ProcessRef, control: Control) {
        if let Some(slot) = self.slot(process) {
            slot.control.push_back(control);
            self.wake(process.node, &process.id);
        }
    }

    /// Starts a process whose name is taken.
    fn start(&mut self, node: NodeId, pid: &Pid, factory: Factory) {
        let home: Arc<SimHome> = Arc::clone(&self.nodes[node.0].home);
        let me = pid.clone();
        let making = Making {
            factory,
            seed: rand::Rng::next_u64(&mut self.random),
            surroundings: Surroundings { me, home },
        };
        if let Some(slot) = self.nodes[node.0].slots.get_mut(pid.id()) {
            slot.control.push_front(Control::Make(Box::new(making)));
            let id = slot.pid.shared_id();
            self.wake(node, &id);
        }
    }

    /// Makes a process and has it start; one whose constructor panics ends by that.
    fn make(&mut self, process: &ProcessRef, making: Making) {
        let Making {
            factory,
            surroundings,
            seed,
        } = making;
        let build = || factory.build(surroundings, seed);
        let made = catch_unwind(AssertUnwindSafe(build));
        self.take_early();
        match made {
            Ok(cell) => {
                self.settle_in(process, cell);
                self.control(process, Control::Turn(Turn::Start));
            }
            Err(panic) => self.end(process, ExitReason::Panic(panic_text(panic.as_ref()))),
        }
    }

    fn settle_in(&mut self, process: &ProcessRef, cell: Box<dyn Hosted>) {
        let Some(slot) = self.slot(process) else {
            return;
        };
        slot.cell = Some(cell);
        let pid = slot.pid.clone();
        self.note_node(process.node, format_args!("spawned {pid}"));
        self.tell(&Seen::Spawned(&pid));
    }

    /// Takes in a process that was made outside all actors. It starts when it has its first turn.
    pub(super) fn host(&mut self, pid: &Pid, cell: Box<dyn Hosted>) {
        let Some(process) = self.reference(pid) else {
            return;
        };
        self.settle_in(&process, cell);
        if let Some(slot) = self.slot(&process) {
            slot.control.push_front(Control::Turn(Turn::Start));
            self.wake(process.node, &process.id);
        }
    }

    /// Ends a process: its name is free, its mail is gone, those that linked to it are told.
    pub(super) fn end(&mut self, process: &ProcessRef, reason: ExitReason) {
        if self.slot(process).is_none() {
            return;
        }
        let node = process.node;
        let Some(slot) = self.nodes[node.0].slots.remove(&process.id) else {
            return;
        };
        self.forget(&slot);
        self.nodes[node.0].home.free(&process.id);
        let pid = slot.pid.clone();
        self.note_node(node, format_args!("ended {pid}: {reason:?}"));
        drop_quietly(slot.cell);
        drop(slot.line);
        for user in slot.user {
            if let User::Message(letter) = user {
                self.dropped(&letter, "its receiver ended");
            }
        }
        self.tell(&Seen::Ended(&pid, &reason));
        let call = self.on_end.remove(&slot.number);
        let told = reason.clone();
        self.links(node, Input::Ended { pid, reason });
        if let Some(call) = call {
            call(self, &told);
        }
        self.take_early();
    }

    /// Takes back what a process waits for.
    pub(super) fn forget(&mut self, slot: &Slot) {
        for key in slot.timers.values().chain(slot.asks.values()) {
            self.queue.cancel(*key);
        }
    }

    /// Does what does not wait for the end of a turn: takes names, delivers what comes from outside all actors.
    pub(super) fn take_early(&mut self) {
        while self.dirty.swap(false, std::sync::atomic::Ordering::Relaxed) {
            for node in 0..self.nodes.len() {
                let home = Arc::clone(&self.nodes[node].home);
                for early in home.take_early() {
                    match early {
                        Early::Reserved(pid, profile) => {
                            self.next_process += 1;
                            let slot = Slot::new(pid.clone(), self.next_process, profile);
                            self.nodes[node].slots.insert(pid.shared_id(), slot);
                        }
                        Early::Released(pid) => self.release(NodeId(node), &pid),
                        Early::Sent(letter) => {
                            self.deliver(NodeId(node), letter);
                        }
                    }
                }
            }
        }
    }

    /// Frees a name that was taken for a process which will not start.
    fn release(&mut self, node: NodeId, pid: &Pid) {
        let slot = self.nodes[node.0].slots.get(pid.id());
        if let Some(slot) = slot.filter(|slot| slot.cell.is_none()) {
            let process = ProcessRef {
                node,
                id: pid.shared_id(),
                number: slot.number,
            };
            self.end(&process, ExitReason::Terminated);
        }
    }

    pub(super) fn dropped(&mut self, letter: &Letter, why: &'static str) {
        self.note_world(format_args!(
            "dropped {} {} -> {}: {why}",
            letter.name, letter.from, letter.to
        ));
        self.tell(&Seen::Dropped(letter, why));
    }
}

/// Dropping a process may run its own code; a panic in there must not end the run.
pub(super) fn drop_quietly(cell: Option<Box<dyn Hosted>>) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(cell))) {
        tracing::error!(
            panic = panic_text(panic.as_ref()),
            "process panicked while it was dropped"
        );
    }
}

/// The last part of a type's name.
fn short(name: &str) -> &str {
    name.rsplit("::").next().unwrap_or(name)
}

/// An outcome whose type is forgotten.
pub(super) type Outcome = Box<dyn Any + Send>;
