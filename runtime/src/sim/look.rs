//! Looking at a world between two steps: its nodes, processes, disks and counters; and speaking to it from outside.

use std::sync::Arc;

use rand::Rng;
use rand::rngs::StdRng;

use super::node::{SimHome, Slot, State, User};
use super::{Bites, Disk, Faults, Journal, NodeId, ProcessRef, Sim};
use crate::clock::Time;
use crate::context::{Home, Outside, Surroundings};
use crate::host::{self, Turn};
use crate::http::{Request, Responder, Response};
use crate::links::ExitReason;
use crate::message::Message;
use crate::metrics::Metrics;
use crate::node::Placement;
use crate::pid::{Address, Pid};
use crate::process::{Process, Profile};

impl Sim {
    /// Seed of the run.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Virtual time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Steps made so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Random source of the run.
    pub fn random(&mut self) -> &mut StdRng {
        &mut self.random
    }

    /// The journal.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The journal, to have it keep more.
    pub fn journal_mut(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// How often each kind of fault has bitten.
    pub fn bites(&self) -> &Bites {
        &self.bites
    }

    /// The same, to count faults of the world's own.
    pub fn bites_mut(&mut self) -> &mut Bites {
        &mut self.bites
    }

    /// The faults there are.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Whether faults have ended.
    pub fn is_healed(&self) -> bool {
        self.healed
    }

    /// All nodes there have been, in the order in which they were added.
    pub fn node_ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len()).map(NodeId)
    }

    /// What a node is doing.
    pub fn state(&self, node: NodeId) -> State {
        self.nodes[node.0].state
    }

    /// Name of a node.
    pub fn name(&self, node: NodeId) -> &str {
        &self.nodes[node.0].settings.name
    }

    /// Address of a node.
    pub fn address(&self, node: NodeId) -> &Address {
        &self.nodes[node.0].address
    }

    /// Which run of a node the present or last one is.
    pub fn incarnation(&self, node: NodeId) -> u64 {
        self.nodes[node.0].incarnation
    }

    /// Guests of a node that live.
    pub fn guests_of(&self, host: NodeId) -> Vec<NodeId> {
        let guests = self.guests.iter().filter(|((of, _), _)| *of == host);
        guests.map(|(_, guest)| *guest).collect()
    }

    /// Disk of a node.
    pub fn disk(&mut self, node: NodeId) -> &mut Disk {
        &mut self.nodes[node.0].disk
    }

    /// Disk of a node, to look at.
    pub fn disk_of(&self, node: NodeId) -> &Disk {
        &self.nodes[node.0].disk
    }

    /// Metrics of a node's present run.
    pub fn metrics(&self, node: NodeId) -> &Metrics {
        self.nodes[node.0].metrics()
    }

    /// PID of `id` on a node. An id that cannot be one fails the run.
    pub fn pid(&mut self, node: NodeId, id: &str) -> Pid {
        let address = self.nodes[node.0].address.clone();
        match Pid::new(id, address.clone()) {
            Ok(pid) => pid,
            Err(error) => {
                self.fail("the world is well made", &error.to_string());
                Pid::known(Arc::from("node"), address)
            }
        }
    }

    /// Sends from a node, outside all actors.
    pub fn outside(&self, node: NodeId) -> Outside {
        Outside(Arc::clone(&self.nodes[node.0].home) as Arc<dyn Home>)
    }

    /// Sends a message from a node, outside all actors.
    pub fn send<M: Message>(&mut self, from: NodeId, to: &Pid, message: M) {
        if self.nodes[from.0].is_alive() {
            self.outside(from).send(to, message);
            self.take_early();
        }
    }

    /// Starts a process. A name that is taken or no name fails the run.
    pub fn spawn<P: Process>(&mut self, node: NodeId, id: &str, process: P) {
        let home: Arc<SimHome> = Arc::clone(&self.nodes[node.0].home);
        match home.reserve(id, Profile::of::<P>(), Placement::default()) {
            Ok(pid) => {
                self.take_early();
                let seed = self.random.next_u64();
                let surroundings = Surroundings {
                    me: pid.clone(),
                    home,
                };
                let cell = host::cell(process, surroundings, seed);
                self.host(&pid, cell);
            }
            Err(error) => self.fail("the world is well made", &error.to_string()),
        }
    }

    /// Ends a process after what is in its mailbox now.
    pub fn terminate(&mut self, pid: &Pid) {
        if let Some(process) = self.reference(pid)
            && let Some(slot) = self.slot(&process)
        {
            slot.user.push_back(User::Terminate(ExitReason::Terminated));
            self.wake(process.node, &process.id);
        }
    }

    /// The process of this PID, if it lives and is a `P`.
    pub fn process<P: Process>(&self, pid: &Pid) -> Option<&P> {
        self.find(pid)?.cell.as_ref()?.as_any().downcast_ref()
    }

    /// All living processes of type `P`, by their PIDs.
    pub fn processes<P: Process>(&self) -> impl Iterator<Item = (&Pid, &P)> {
        self.nodes.iter().flat_map(|node| {
            node.slots.values().filter_map(|slot| {
                let process = slot.cell.as_ref()?.as_any().downcast_ref()?;
                Some((&slot.pid, process))
            })
        })
    }

    /// PIDs of all living processes of a node.
    pub fn pids(&self, node: NodeId) -> impl Iterator<Item = &Pid> {
        self.nodes[node.0].slots.values().map(|slot| &slot.pid)
    }

    /// Messages that wait in a process's mailbox.
    pub fn mailbox_depth(&self, pid: &Pid) -> usize {
        self.find(pid).map_or(0, |slot| slot.user.len())
    }

    /// The most messages that have waited in any mailbox of a process that lives.
    pub fn deepest_mailbox(&self) -> usize {
        let slots = self.nodes.iter().flat_map(|node| node.slots.values());
        slots.map(|slot| slot.most_waiting).max().unwrap_or(0)
    }

    /// Timers and operations that a process waits for.
    pub fn pending(&self, pid: &Pid) -> (usize, usize) {
        self.find(pid)
            .map_or((0, 0), |slot| (slot.timers.len(), slot.ops.len()))
    }

    /// Answer of the process to an HTTP request for `path` below its id, given between two of its turns, with the effects
    /// before it carried out; none when it does not live or serves no such path, and while an operation holds it
    /// ([`crate::Gate::HoldUser`]), which holds its answers as well.
    pub fn get(&mut self, pid: &Pid, path: &str) -> Option<Response> {
        let process = self.reference(pid)?;
        if !self.slot(&process)?.profile.http_paths.contains_key(path) {
            return None;
        }
        let request = Request {
            method: "GET".to_owned(),
            path: path.to_owned(),
            target: format!("/{}{path}", pid.id()),
            ..Request::default()
        };
        let (responder, mut answer) = Responder::new();
        let effects = self.turn(&process, Turn::Http(request, responder))?;
        self.slot(&process)?.line.push(effects);
        loop {
            if let Ok(answer) = answer.try_recv() {
                self.wake(process.node, &process.id);
                return Some(answer);
            }
            let effect = self.slot(&process)?.line.pop()?;
            self.carry_out(&process, effect);
        }
    }

    pub(super) fn find(&self, pid: &Pid) -> Option<&Slot> {
        let host = self.by_address.get(pid.address())?;
        let here = self.nodes[host.0].slots.get(pid.id());
        here.or_else(|| {
            let guest = self.guests.get(&(*host, pid.shared_id()))?;
            self.nodes[guest.0].slots.get(pid.id())
        })
    }

    pub(super) fn reference(&self, pid: &Pid) -> Option<ProcessRef> {
        let host = *self.by_address.get(pid.address())?;
        let id = pid.shared_id();
        let node = if self.nodes[host.0].slots.contains_key(&id) {
            host
        } else {
            *self.guests.get(&(host, Arc::clone(&id)))?
        };
        let number = self.nodes[node.0].slots.get(&id)?.number;
        Some(ProcessRef { node, id, number })
    }
}
