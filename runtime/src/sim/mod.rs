//! A deterministic simulator: the processes that a program ships, on nodes, a network, disks and clocks that exist in
//! one thread and obey one seed.
//!
//! A [`Sim`] hosts any [`Process`] in place of a live node. It decides who has the next turn, how long a message is
//! under way, when a connection breaks, a node crashes, pauses or loses its disk, and what an operation answers; every
//! such decision is drawn from the seed, so the same seed gives the same [`Journal`], byte for byte. Effects of a turn
//! are steps of their own: a crash may fall between any two. Laws ([`Invariant`]) look after every step. What is
//! promised to processes is what `docs/delivery.md` promises on live nodes, no more: the simulator goes to its limits.
//!
//! ```
//! use meseta_runtime::sim::{Faults, NodeSettings, Sim};
//! use meseta_runtime::{Context, ExitReason, Message, Pid, Process, Receive, Routes};
//! use serde::{Deserialize, Serialize};
//! use std::time::Duration;
//!
//! #[derive(Serialize, Deserialize)]
//! struct Count { number: u64 }
//! impl Message for Count { const NAME: &'static str = "example.Count"; }
//! #[derive(Serialize, Deserialize)]
//! struct Counted { number: u64 }
//! impl Message for Counted { const NAME: &'static str = "example.Counted"; }
//!
//! /// Sends the same number until it is acknowledged, then the next.
//! struct Teller { to: Pid, number: u64 }
//! impl Teller {
//!     fn tell(&mut self, cx: &mut Context<'_, Self>) {
//!         cx.send(&self.to, Count { number: self.number });
//!         cx.after(Duration::from_secs(1), Self::tell);
//!     }
//! }
//! impl Process for Teller {
//!     fn routes(routes: &mut Routes<Self>) { routes.on::<Counted>(); }
//!     fn start(&mut self, cx: &mut Context<'_, Self>) { self.tell(cx); }
//! }
//! impl Receive<Counted> for Teller {
//!     fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, counted: Counted) {
//!         if counted.number == self.number { self.number += 1; }
//!     }
//! }
//!
//! #[derive(Default)]
//! struct Listener { highest: u64 }
//! impl Process for Listener {
//!     fn routes(routes: &mut Routes<Self>) { routes.on::<Count>(); }
//! }
//! impl Receive<Count> for Listener {
//!     fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, count: Count) {
//!         self.highest = self.highest.max(count.number);
//!         cx.send(from, Counted { number: count.number });
//!     }
//! }
//!
//! let run = |seed| {
//!     let mut sim = Sim::new(seed);
//!     let listens = NodeSettings::new("listener", "node").crashes(false);
//!     let listener = sim.add(listens, |boot| { boot.spawn("listener", Listener::default()); });
//!     let to = sim.pid(listener, "listener");
//!     let target = to.clone();
//!     let tells = NodeSettings::new("teller", "node").crashes(false);
//!     sim.add(tells, move |boot| { boot.spawn("teller", Teller { to: target.clone(), number: 1 }); });
//!     // Half a minute of everything that can go wrong, then peace.
//!     sim.set_faults(Faults { breaks: 0.2, partitions: 10.0, pauses: 5.0, ..Faults::none() });
//!     sim.run_for(Duration::from_secs(30))?;
//!     sim.heal();
//!     let before = sim.process::<Listener>(&to).map_or(0, |listener| listener.highest);
//!     let goes_on = |sim: &Sim| sim.process::<Listener>(&to).is_some_and(|l| l.highest > before + 5);
//!     let converged = sim.run_until(Duration::from_secs(60), goes_on)?;
//!     assert!(converged);
//!     Ok::<_, meseta_runtime::sim::Failure>(sim.journal().hash())
//! };
//! assert_eq!(run(7)?, run(7)?);
//! assert_ne!(run(7)?, run(8)?);
//! # Ok::<(), meseta_runtime::sim::Failure>(())
//! ```
//!
//! **Operations** ([`crate::Op`]) are answered by models ([`Sim::model`]), which may use the node's [`Disk`], start
//! guests, and answer late or never. **Operators and users** are closures ([`Sim::later`]). **Failures** name the seed;
//! run it again with [`Sim::set_verbose`] for the contents of every message.

mod check;
mod disk;
mod faults;
mod journal;
mod look;
mod mishaps;
mod network;
mod node;
mod partitions;
mod process;
mod queue;
mod routing;
mod run;
mod show;
#[cfg(test)]
mod tests;

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

pub use check::{Failure, Invariant, Letter, Seen};
pub use disk::{Change, Disk, DiskError, Kept, Store};
pub use faults::{Bites, Faults};
pub use journal::Journal;
pub use network::{CONNECT_GRACE, SILENCE};
pub use node::{NodeSettings, State};

use crate::clock::Time;
use crate::context::{AskError, Op, TimerId};
use crate::links::ExitReason;
use crate::pid::{Address, Pid};
use crate::process::Process;
use network::{Flight, Network};
use node::{BootFn, Drifting, SimHome, SimNode};
use process::Outcome;
use queue::{Key, Queue};

/// Steps within one instant after which a run counts as a loop without end.
const LIVELOCK: u64 = 1_000_000;
/// Lines of a failure's story.
const STORY: usize = 50;

/// Names one node of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(usize);

/// Names one run of a process.
#[derive(Clone)]
struct ProcessRef {
    node: NodeId,
    id: Arc<str>,
    number: u64,
}

/// Where the outcome of an operation goes.
struct Reply {
    process: ProcessRef,
    incarnation: u64,
    number: u64,
}

/// The right to answer one operation, now or later; see [`Sim::answer`]. Dropped, the operation never ends.
pub struct OpReply<O: Op> {
    reply: Reply,
    op: PhantomData<fn(O)>,
}

impl<O: Op> OpReply<O> {
    /// The node whose process asked.
    pub fn node(&self) -> NodeId {
        self.reply.process.node
    }
}

impl<O: Op> fmt::Debug for OpReply<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpReply({})", self.reply.process.id)
    }
}

type Model = Rc<dyn Fn(&mut Sim, NodeId, Box<dyn Any + Send>, Reply)>;
type Call = Box<dyn FnOnce(&mut Sim)>;
type EndCall = Box<dyn FnOnce(&mut Sim, &ExitReason)>;

/// What is due at some time.
enum Event {
    Wake(ProcessRef),
    Timer(ProcessRef, TimerId),
    AskFailed(ProcessRef, u64, AskError),
    OpDone(Reply, Outcome),
    Arrive(Flight),
    Dial {
        from: NodeId,
        to: NodeId,
    },
    /// A node learns that a connection is gone.
    Notice {
        node: NodeId,
        incarnation: u64,
        peer: NodeId,
        generation: u64,
    },
    /// Has nothing come from `from` to `to` since?
    Silence {
        from: NodeId,
        to: NodeId,
        generation: u64,
        epoch: u64,
        paused: bool,
    },
    Cut {
        directions: Vec<(NodeId, NodeId)>,
        lasts: Duration,
        kind: &'static str,
    },
    Mend(u64),
    Fault,
    Restart(NodeId),
    Resume(NodeId),
    Call(Call),
}

/// One simulated world. See the [module](self).
pub struct Sim {
    seed: u64,
    random: StdRng,
    now: Time,
    steps: u64,
    queue: Queue<Event>,
    /// Processes that have something to do, in no order.
    ready: Vec<ProcessRef>,
    /// What is due on nodes that are paused.
    parked: Vec<(NodeId, Event)>,
    nodes: Vec<SimNode>,
    by_address: BTreeMap<Address, NodeId>,
    /// Guests by host and id.
    guests: BTreeMap<(NodeId, Arc<str>), NodeId>,
    network: Network,
    models: HashMap<TypeId, Model>,
    on_end: BTreeMap<u64, EndCall>,
    laws: Vec<Box<dyn Invariant>>,
    journal: Journal,
    verbose: bool,
    faults: Faults,
    healed: bool,
    /// The next fault of those that come at their own times.
    next_fault: Option<Key>,
    bites: Bites,
    failure: Option<Failure>,
    next_process: u64,
    /// Whether some node's home holds something early.
    dirty: Arc<AtomicBool>,
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sim(seed {}, {})", self.seed, self.now)
    }
}

/// The start of a node: what its program does before its actors run.
pub struct Boot<'a> {
    sim: &'a mut Sim,
    node: NodeId,
}

impl Boot<'_> {
    /// Which run of the node this is, counted from 1.
    pub fn incarnation(&self) -> u64 {
        self.sim.incarnation(self.node)
    }

    /// The node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// What the node finds on its disk.
    pub fn disk(&mut self) -> &mut Disk {
        self.sim.disk(self.node)
    }

    /// Random source of the run.
    pub fn random(&mut self) -> &mut StdRng {
        self.sim.random()
    }

    /// PID of `id` on this node. An id that cannot be one fails the run.
    pub fn pid(&mut self, id: &str) -> Pid {
        self.sim.pid(self.node, id)
    }

    /// Starts a process. A name that is taken or no name fails the run.
    pub fn spawn<P: Process>(&mut self, id: &str, process: P) {
        self.sim.spawn(self.node, id, process);
    }

    /// The whole world.
    pub fn sim(&mut self) -> &mut Sim {
        self.sim
    }
}

/// Building a world.
impl Sim {
    /// An empty world without faults.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            random: StdRng::seed_from_u64(seed),
            now: Time::ZERO,
            steps: 0,
            queue: Queue::default(),
            ready: Vec::new(),
            parked: Vec::new(),
            nodes: Vec::new(),
            by_address: BTreeMap::new(),
            guests: BTreeMap::new(),
            network: Network::default(),
            models: HashMap::new(),
            on_end: BTreeMap::new(),
            laws: Vec::new(),
            journal: Journal::default(),
            verbose: false,
            faults: Faults::none(),
            healed: false,
            next_fault: None,
            bites: Bites::default(),
            failure: None,
            next_process: 0,
            dirty: Arc::default(),
        }
    }

    /// Adds a node and starts it. `boot` starts its processes, now and at each restart.
    pub fn add(
        &mut self,
        settings: NodeSettings,
        boot: impl Fn(&mut Boot<'_>) + 'static,
    ) -> NodeId {
        let number = self.nodes.len() + 1;
        let address = settings.address.clone().unwrap_or_else(|| {
            Address::new(&format!("10.0.{}.{}", number / 250, number % 250 + 1), 5050)
        });
        let node = self.add_node(settings, address.clone(), None, Rc::new(boot));
        self.by_address.insert(address, node);
        self.boot(node);
        node
    }

    /// Adds a guest of a node, which speaks as the actor `id` and reaches everything through its host; see
    /// [`crate::NodeBuilder::guest_of`]. The simulator never crashes it by itself but together with its host's machine,
    /// and never restarts it.
    pub fn add_guest(
        &mut self,
        host: NodeId,
        id: &str,
        settings: NodeSettings,
        boot: impl Fn(&mut Boot<'_>) + 'static,
    ) -> NodeId {
        let id: Arc<str> = Arc::from(id);
        let address = self.nodes[host.0].address.clone();
        let settings = settings.crashes(false).accepts(false);
        let guest_of = Some((host, Arc::clone(&id)));
        let node = self.add_node(settings, address, guest_of, Rc::new(boot));
        self.guests.insert((host, id), node);
        self.boot(node);
        node
    }

    fn add_node(
        &mut self,
        settings: NodeSettings,
        address: Address,
        guest_of: Option<(NodeId, Arc<str>)>,
        boot: BootFn,
    ) -> NodeId {
        let clock = Drifting::default();
        let node = SimNode {
            home: Arc::new(SimHome::new(
                address.clone(),
                clock,
                0,
                settings.max_asks,
                Arc::clone(&self.dirty),
            )),
            settings,
            address,
            guest_of,
            boot,
            state: State::Down,
            incarnation: 0,
            clock,
            wall_step: 0,
            disk: Disk::default(),
            links: crate::links::Links::default(),
            slots: BTreeMap::new(),
            pinned: BTreeMap::new(),
            pauses: 0,
        };
        self.nodes.push(node);
        NodeId(self.nodes.len() - 1)
    }

    /// Has operations of type `O` answered by `model`, which is called when a process begins one. It answers with
    /// [`Sim::answer`], at once or from a later call.
    pub fn model<O: Op>(&mut self, model: impl Fn(&mut Self, NodeId, O, OpReply<O>) + 'static) {
        let model: Model = Rc::new(move |sim, node, op, reply| {
            if let Ok(op) = op.downcast::<O>() {
                let reply = OpReply {
                    reply,
                    op: PhantomData,
                };
                model(sim, node, *op, reply);
            }
        });
        self.models.insert(TypeId::of::<O>(), model);
    }

    /// Ends an operation with its outcome after `delay`. Nothing happens when its process has ended by then.
    pub fn answer<O: Op>(&mut self, reply: OpReply<O>, delay: Duration, out: O::Out) {
        self.schedule(delay, Event::OpDone(reply.reply, Box::new(out)));
    }

    /// Adds a law.
    pub fn law(&mut self, law: impl Invariant + 'static) {
        self.laws.push(Box::new(law));
    }

    /// Lets things go wrong from now on, in these ways and no others.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
        self.healed = false;
        if let Some(drawn_before) = self.next_fault.take() {
            self.queue.cancel(drawn_before);
        }
        self.schedule_fault();
    }

    /// Notes the contents of messages too, for a story. The hash of the journal stays the same.
    pub fn set_verbose(&mut self, verbose: bool) {
        self.verbose = verbose;
    }

    /// Calls `act` after `delay`.
    pub fn later(&mut self, delay: Duration, act: impl FnOnce(&mut Self) + 'static) {
        self.schedule(delay, Event::Call(Box::new(act)));
    }

    /// As [`Sim::later`], but not when the node's present run has ended by then. A paused node does not hold it up.
    pub fn later_on(
        &mut self,
        node: NodeId,
        delay: Duration,
        act: impl FnOnce(&mut Self) + 'static,
    ) {
        let run = self.incarnation(node);
        self.later(delay, move |sim| {
            if sim.incarnation(node) == run && sim.nodes[node.0].is_alive() {
                act(sim);
            } else {
                sim.bites.count(faults::LATE_ANSWER);
            }
        });
    }

    /// Calls `act` when this process ends by itself, is terminated or panics; not when its node crashes.
    pub fn when_ended(&mut self, pid: &Pid, act: impl FnOnce(&mut Self, &ExitReason) + 'static) {
        let number = self.find(pid).map(|slot| slot.number);
        if let Some(number) = number {
            self.on_end.insert(number, Box::new(act));
        }
    }
}

/// Drawing and noting.
impl Sim {
    /// Draws how long an operation takes, by the run's faults.
    pub fn op_delay(&mut self) -> Duration {
        let mut delay = self.drawn(&self.faults.op_delay.clone());
        if self.draw(self.faults.op_stalls) {
            self.bites.count(faults::STALLED_OP);
            delay += self.up_to(Duration::from_secs(20));
        }
        delay
    }

    fn frame_delay(&mut self) -> Duration {
        self.drawn(&self.faults.frame_delay.clone())
    }

    fn drawn(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        *range.start() + self.up_to(range.end().saturating_sub(*range.start()))
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.random.random_range(0..=nanos))
    }

    /// Whether something of this probability happens. Draws nothing when it cannot.
    fn draw(&mut self, share: f64) -> bool {
        share > 0.0 && self.random.random_bool(share.min(1.0))
    }

    fn schedule(&mut self, delay: Duration, event: Event) -> Key {
        self.schedule_at(self.now + delay, event)
    }

    fn schedule_at(&mut self, at: Time, event: Event) -> Key {
        // Frames are in order by their times; of what else falls together any may be first.
        let tie = if matches!(event, Event::Arrive(_)) {
            0
        } else {
            self.random.next_u32()
        };
        self.queue.push(at, tie, event)
    }

    /// Notes what happens to a node.
    fn note_node(&mut self, node: NodeId, what: fmt::Arguments<'_>) {
        let place = Label(&self.nodes[node.0]);
        self.journal.note(self.now, &place, what);
    }

    /// Notes what happens between a node and another one.
    fn note_pair(&mut self, node: NodeId, what: &str, other: NodeId) {
        let (place, other) = (Label(&self.nodes[node.0]), Label(&self.nodes[other.0]));
        self.journal
            .note(self.now, &place, format_args!("{what} {other}"));
    }

    fn note_world(&mut self, what: fmt::Arguments<'_>) {
        self.journal.note(self.now, &"-", what);
    }

    /// Notes what a process does.
    fn note(&mut self, process: &ProcessRef, what: fmt::Arguments<'_>) {
        let (place, id) = (Label(&self.nodes[process.node.0]), &process.id);
        self.journal
            .note(self.now, &place, format_args!("{id} {what}"));
    }

    /// Notes something of the world's own in the journal.
    pub fn remark(&mut self, what: &str) {
        self.note_world(format_args!("{what}"));
    }

    /// Events that are still to come.
    pub fn pending_events(&self) -> usize {
        self.queue.len()
    }
}

/// A node's name and run, for the journal.
struct Label<'a>(&'a SimNode);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Padded as a whole.
        f.pad(&format!("{}#{}", self.0.settings.name, self.0.incarnation))
    }
}
