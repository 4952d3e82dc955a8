//! A simulated node: its processes, clock, disk, links, and what its processes see as their home.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::disk::{Disk, Kept};
use super::queue::Key;
use super::{Boot, NodeId};
use crate::clock::Time;
use crate::context::{DEFAULT_MAX_ASKS, Home, Surroundings, TimerId};
use crate::host::line::Line;
use crate::host::{Factory, Hosted, Turn};
use crate::identity::{GuestKey, IdentityError};
use crate::inbox::{DEFAULT_MAILBOX, OWN_RESERVE};
use crate::links::{ExitReason, Links};
use crate::message::{Correlation, Kind, Parcel};
use crate::metrics::Metrics;
use crate::node::{OUTSIDE, Placement, SpawnError};
use crate::pid::{Address, Pid};
use crate::process::Profile;

use super::check::Letter;

/// Wall-clock time at the beginning of every run, since the Unix epoch: 2026-01-01.
const WALL_ORIGIN: Duration = Duration::from_secs(1_767_225_600);

/// Starts the processes of a node; run again at each restart.
pub(super) type BootFn = Rc<dyn Fn(&mut Boot<'_>)>;

/// What a node is, given to [`super::Sim::add`].
#[derive(Debug, Clone)]
pub struct NodeSettings {
    pub(super) name: String,
    pub(super) role: Arc<str>,
    pub(super) address: Option<Address>,
    pub(super) accepts: bool,
    pub(super) crashes: bool,
    pub(super) pauses: bool,
    pub(super) kept: Option<Vec<Kept>>,
    pub(super) mailbox: usize,
    pub(super) max_asks: usize,
}

impl NodeSettings {
    /// A node of this name, for the journal, and this role, as in a certificate. It accepts connections, may crash and
    /// may be paused.
    pub fn new(name: &str, role: &str) -> Self {
        Self {
            name: name.to_owned(),
            role: Arc::from(role),
            address: None,
            accepts: true,
            crashes: true,
            pauses: true,
            kept: None,
            mailbox: DEFAULT_MAILBOX,
            max_asks: DEFAULT_MAX_ASKS,
        }
    }

    /// Its address. Default: 10.0.0.N with port 5050, where N counts the nodes.
    #[must_use]
    pub fn address(mut self, address: Address) -> Self {
        self.address = Some(address);
        self
    }

    /// Whether others may dial it; as [`crate::NodeBuilder::accepts`].
    #[must_use]
    pub fn accepts(mut self, accepts: bool) -> Self {
        self.accepts = accepts;
        self
    }

    /// Whether the simulator may crash it.
    #[must_use]
    pub fn crashes(mut self, crashes: bool) -> Self {
        self.crashes = crashes;
        self
    }

    /// Whether the simulator may pause it.
    #[must_use]
    pub fn pauses(mut self, pauses: bool) -> Self {
        self.pauses = pauses;
        self
    }

    /// What it may find on its disk after a crash, instead of what the run's faults say.
    #[must_use]
    pub fn kept(mut self, kept: &[Kept]) -> Self {
        self.kept = Some(kept.to_vec());
        self
    }

    /// Bound of each mailbox, in messages. Default 65,536.
    #[must_use]
    pub fn mailbox(mut self, messages: usize) -> Self {
        self.mailbox = messages;
        self
    }

    /// How many asks of one process may wait for their answers; as [`crate::NodeBuilder::max_asks`]. Default 65,536.
    #[must_use]
    pub fn max_asks(mut self, asks: usize) -> Self {
        self.max_asks = asks;
        self
    }
}

/// What a node is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Up,
    /// It stands still, and goes on later as if nothing had been.
    Paused,
    /// It has crashed, or has not been started.
    Down,
    /// It is gone for good.
    Gone,
}

/// One event of the control lane of a process.
pub(super) enum Control {
    /// Make the process and have it start: its first step, so that whoever spawns it ends its turn before.
    Make(Box<Making>),
    Turn(Turn),
    OpFailed(String),
}

/// A process that is about to be made.
pub(super) struct Making {
    pub(super) factory: Factory,
    pub(super) surroundings: Surroundings,
    pub(super) seed: u64,
}

/// One event of the user lane.
pub(super) enum User {
    Message(Letter),
    Exited(Pid, ExitReason),
    Terminate(ExitReason),
}

/// One process, or a name that is taken for one that is about to start.
pub(super) struct Slot {
    pub(super) pid: Pid,
    /// Unique in the run: a name that is used again is another process.
    pub(super) number: u64,
    pub(super) profile: Arc<Profile>,
    pub(super) cell: Option<Box<dyn Hosted>>,
    pub(super) control: VecDeque<Control>,
    pub(super) user: VecDeque<User>,
    pub(super) line: Line,
    pub(super) timers: BTreeMap<TimerId, Key>,
    pub(super) asks: BTreeMap<u64, Key>,
    /// Operations under way.
    pub(super) ops: BTreeSet<u64>,
    /// Whether it is among the ready processes or will be.
    pub(super) awake: bool,
    pub(super) most_waiting: usize,
}

impl Slot {
    pub(super) fn new(pid: Pid, number: u64, profile: Arc<Profile>) -> Self {
        Self {
            pid,
            number,
            profile,
            cell: None,
            control: VecDeque::new(),
            user: VecDeque::new(),
            line: Line::default(),
            timers: BTreeMap::new(),
            asks: BTreeMap::new(),
            ops: BTreeSet::new(),
            awake: false,
            most_waiting: 0,
        }
    }

    /// Whether there is something to do for it.
    pub(super) fn is_ready(&self) -> bool {
        let begins = matches!(self.control.front(), Some(Control::Make(_)));
        (self.cell.is_some() || begins)
            && (self.line.is_due()
                || !self.control.is_empty()
                || (!self.line.is_held() && !self.user.is_empty()))
    }

    /// Whether a message finds no room, as a live mailbox decides it.
    pub(super) fn is_full_for(&self, correlation: Correlation, own: bool, mailbox: usize) -> bool {
        let bound = match (correlation, own) {
            (Correlation::Answer(_), _) => return false,
            (Correlation::None | Correlation::Request(_), false) => mailbox,
            (Correlation::None | Correlation::Request(_), true) => {
                mailbox.saturating_mul(OWN_RESERVE)
            }
        };
        self.user.len() >= bound
    }
}

/// A clock that runs a little fast or slow.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Drifting {
    /// Time of the run at which the node started.
    started: Time,
    /// What the node's clock showed then.
    offset: u64,
    /// How much faster it runs, in millionths.
    pub(super) drift: i64,
}

impl Drifting {
    pub(super) fn new(started: Time, offset: u64, drift: i64) -> Self {
        Self {
            started,
            offset,
            drift,
        }
    }

    /// What the node's clock shows.
    pub(super) fn local(&self, now: Time) -> Time {
        let elapsed = i128::from(now.0.saturating_sub(self.started.0));
        let scaled = elapsed + elapsed * i128::from(self.drift) / 1_000_000;
        Time(self.offset + u64::try_from(scaled).unwrap_or(0))
    }

    /// How long the run takes until the node's clock has advanced by `delay`.
    pub(super) fn real(&self, delay: Duration) -> Duration {
        let nanos = i128::try_from(delay.as_nanos()).unwrap_or(i128::MAX / 2_000_000);
        let real = nanos * 1_000_000 / (1_000_000 + i128::from(self.drift));
        Duration::from_nanos(
            u64::try_from(real)
                .unwrap_or(u64::MAX)
                .saturating_add(u64::from(self.drift != 0)),
        )
    }
}

/// What leaves a turn at once, before its effects: taken names, and messages sent from outside all actors.
pub(super) enum Early {
    Reserved(Pid, Arc<Profile>),
    /// The process that the name was taken for will not start.
    Released(Pid),
    Sent(Letter),
}

#[derive(Default)]
struct HomeState {
    taken: BTreeSet<Arc<str>>,
    counters: BTreeMap<String, u64>,
    kinds: BTreeMap<Kind, &'static str>,
    asks: u64,
    keys: u8,
    early: VecDeque<Early>,
}

/// What the processes of one run of a node see of it.
pub(super) struct SimHome {
    pub(super) address: Address,
    clock: Drifting,
    max_asks: usize,
    /// Sender of what comes from outside all actors.
    outside: Pid,
    metrics: Metrics,
    state: Mutex<HomeState>,
    /// Step of the wall clock, in milliseconds.
    pub(super) wall_step: AtomicI64,
    pub(super) dead: AtomicBool,
    /// Set when `early` holds something; shared by all nodes of a run.
    dirty: Arc<AtomicBool>,
}

impl SimHome {
    pub(super) fn new(
        address: Address,
        clock: Drifting,
        wall_step: i64,
        max_asks: usize,
        dirty: Arc<AtomicBool>,
    ) -> Self {
        Self {
            clock,
            max_asks,
            outside: Pid::known(Arc::from(OUTSIDE), address.clone()),
            address,
            metrics: Metrics::default(),
            state: Mutex::default(),
            wall_step: AtomicI64::new(wall_step),
            dead: AtomicBool::new(false),
            dirty,
        }
    }

    pub(super) fn take_early(&self) -> VecDeque<Early> {
        std::mem::take(&mut self.state.lock().early)
    }

    /// Frees the name of a process that has ended.
    pub(super) fn free(&self, id: &str) {
        self.state.lock().taken.remove(id);
    }

    fn early(&self, state: &mut HomeState, early: Early) {
        state.early.push_back(early);
        self.dirty.store(true, Ordering::Relaxed);
    }
}

impl Home for SimHome {
    fn wall(&self, now: Time) -> Duration {
        let step = self.wall_step.load(Ordering::Relaxed);
        let run = now.since(Time(self.clock.offset));
        let wall = WALL_ORIGIN + self.clock.started.since(Time::ZERO) + run;
        let by = Duration::from_millis(step.unsigned_abs());
        if step < 0 {
            wall.saturating_sub(by)
        } else {
            wall + by
        }
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn next_ask(&self) -> u64 {
        let mut state = self.state.lock();
        state.asks += 1;
        state.asks
    }

    fn max_asks(&self) -> usize {
        self.max_asks
    }

    fn next_id(&self, prefix: &str) -> String {
        let mut state = self.state.lock();
        let n = state.counters.entry(prefix.to_owned()).or_insert(0);
        *n += 1;
        format!("{prefix}({n})")
    }

    fn reserve(&self, id: &str, profile: Arc<Profile>, _: Placement) -> Result<Pid, SpawnError> {
        let pid = Pid::new(id, self.address.clone())?;
        if pid == self.outside {
            return Err(SpawnError::Reserved(pid));
        }
        if let Some((one, other)) = profile.clash {
            return Err(SpawnError::KindClash(one, other));
        }
        let mut state = self.state.lock();
        for (kind, accepted) in &profile.accepted {
            let known = state.kinds.entry(*kind).or_insert(accepted.name);
            if *known != accepted.name {
                return Err(SpawnError::KindClash(known, accepted.name));
            }
        }
        if !state.taken.insert(pid.shared_id()) {
            return Err(SpawnError::NameTaken(pid));
        }
        self.early(&mut state, Early::Reserved(pid.clone(), profile));
        Ok(pid)
    }

    fn release(self: Arc<Self>, pid: &Pid) {
        self.early(&mut self.state.lock(), Early::Released(pid.clone()));
    }

    fn send_from_outside(self: Arc<Self>, to: &Pid, parcel: Parcel, kind: Kind) {
        if self.dead.load(Ordering::Relaxed) {
            return;
        }
        let Ok(body) = parcel.encode() else {
            return;
        };
        let letter = Letter {
            to: to.clone(),
            from: self.outside.clone(),
            kind,
            name: parcel.name(),
            correlation: Correlation::None,
            body: body.into(),
        };
        self.early(&mut self.state.lock(), Early::Sent(letter));
    }

    fn guest_key(&self) -> Result<GuestKey, IdentityError> {
        // A number serves: in a simulation a guest is known by its id.
        let mut state = self.state.lock();
        state.keys = state.keys.wrapping_add(1);
        Ok(GuestKey {
            certificate: vec![state.keys],
            private_key: vec![state.keys],
            fingerprint: [state.keys; 32],
        })
    }
}

/// See the module.
pub(super) struct SimNode {
    pub(super) settings: NodeSettings,
    pub(super) address: Address,
    /// Its host and the id under which it was pinned, when it is a guest.
    pub(super) guest_of: Option<(NodeId, Arc<str>)>,
    pub(super) boot: BootFn,
    pub(super) state: State,
    /// Counts its runs from 1.
    pub(super) incarnation: u64,
    pub(super) home: Arc<SimHome>,
    pub(super) clock: Drifting,
    pub(super) wall_step: i64,
    pub(super) disk: Disk,
    pub(super) links: Links,
    pub(super) slots: BTreeMap<Arc<str>, Slot>,
    /// Guests that may connect, with their roles.
    pub(super) pinned: BTreeMap<Arc<str>, Arc<str>>,
    /// How often it has been paused.
    pub(super) pauses: u64,
}

impl SimNode {
    pub(super) fn is_up(&self) -> bool {
        self.state == State::Up
    }

    pub(super) fn is_alive(&self) -> bool {
        matches!(self.state, State::Up | State::Paused)
    }

    pub(super) fn metrics(&self) -> &Metrics {
        self.home.metrics()
    }
}
