//! The laws of masters, held to a simulated cluster that has several: those of the log at every commit and vote, those of
//! the registry at every answer of a registrar, those of leaders at every turn.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use meseta_agent::Agent;
use meseta_master::Master;
use meseta_master::election::Election;
use meseta_master::election::core::Core;
use meseta_master::log::action::{Action, Position, Proposal};
use meseta_master::log::asks::{self, Append, LogRead, ReadLog, Truncate, Writing};
use meseta_master::log::messages::{PromiseResponse, Status, Verdict, WriteResponse};
use meseta_master::log::replica::core::{Change, Metadata, Stored};
use meseta_master::log::storage::StorageError;
use meseta_master::log::storage::ops::Happened;
use meseta_master::registrar::{Applied, Apply, Recover, Registrar, RegistryRecovered};
use meseta_master::registry::{Change as Done, RegistryOperation};
use meseta_protocol::messages::election::ELECTION;
use meseta_runtime::message::Correlation;
use meseta_runtime::sim::{Invariant, Letter, NodeId, Seen, Sim};
use meseta_runtime::{Message, Pid};
use meseta_scheduler_driver::Driver;

use super::masters::{DISK_FULL, FLIPPED, MARKED_GONE, SYNC_FAILS};
use super::notes::Shared;
use crate::invariants::acknowledged_entries_stay::AcknowledgedEntriesStay;
use crate::invariants::gone_stays_gone::GoneStaysGone;
use crate::invariants::nothing_shows_before_it_is_durable::NothingShowsBeforeItIsDurable;
use crate::invariants::old_leaders_write_nothing::OldLeadersWriteNothing;
use crate::invariants::one_value_each::OneValueEach;
use crate::invariants::only_the_latest_leader::OnlyTheLatestLeader;
use crate::invariants::promises_never_fall::PromisesNeverFall;
use crate::invariants::registry_forgets_nothing::RegistryForgetsNothing;
use crate::invariants::truncation_is_asked_for::TruncationIsAskedFor;
use crate::invariants::votes_are_durable::{self, Held, Vote};
use crate::invariants::who_leads_no_more_stops::WhoLeadsNoMoreStops;
use crate::invariants::{one_place_for_an_agent, only_voters_vote, readers_see_no_gaps};

/// What is on the disk of a member.
#[derive(Debug, Default)]
struct OnDisk {
    metadata: Metadata,
    records: BTreeMap<Position, Action>,
    damaged: bool,
}

impl OnDisk {
    fn votes(&self) -> bool {
        self.metadata.status == Status::Voting && !self.damaged
    }
}

/// What a coordinator was asked.
enum Asked {
    Append(Bytes),
    Truncate(Position),
}

/// An ask: who asked, and its number there.
type Ask = (Pid, u64);

/// All that the laws remember.
struct Watch {
    shared: Shared,
    /// In the order in which they were first heard of.
    members: Vec<NodeId>,
    disks: BTreeMap<NodeId, OnDisk>,
    values: OneValueEach,
    entries: AcknowledgedEntriesStay,
    promises: PromisesNeverFall,
    writers: OldLeadersWriteNothing,
    truncations: TruncationIsAskedFor,
    registry: RegistryForgetsNothing<u64>,
    durable: NothingShowsBeforeItIsDurable<Pid>,
    followers: OnlyTheLatestLeader<Pid>,
    leaders: WhoLeadsNoMoreStops<Pid>,
    /// Under which epoch each coordinator was elected last.
    epochs: BTreeMap<Pid, Proposal>,
    writes: BTreeMap<Ask, Asked>,
    reads: BTreeMap<Ask, ReadLog>,
    gone: GoneStaysGone,
    operations: BTreeMap<Ask, (u64, RegistryOperation)>,
    next_operation: u64,
    /// Under which epoch each registrar has begun last.
    registrars: BTreeMap<Pid, u64>,
    broken: Option<(&'static str, String)>,
}

/// See the module.
#[derive(Clone)]
pub struct MasterLaws {
    watch: Rc<RefCell<Watch>>,
    law: &'static str,
}

type Verdicts = Result<(), (&'static str, String)>;

/// Says of which law a verdict is.
fn of(law: &'static str, verdict: Result<(), String>) -> Verdicts {
    verdict.map_err(|what| (law, what))
}

impl MasterLaws {
    /// All laws, for a run with masters of whom `quorum` decide.
    pub fn new(shared: Shared, quorum: usize) -> Self {
        let watch = Watch {
            shared,
            members: Vec::new(),
            disks: BTreeMap::new(),
            values: OneValueEach::new(quorum),
            entries: AcknowledgedEntriesStay::default(),
            promises: PromisesNeverFall::default(),
            writers: OldLeadersWriteNothing::default(),
            truncations: TruncationIsAskedFor::default(),
            registry: RegistryForgetsNothing::default(),
            durable: NothingShowsBeforeItIsDurable::default(),
            followers: OnlyTheLatestLeader::default(),
            leaders: WhoLeadsNoMoreStops::default(),
            epochs: BTreeMap::new(),
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
            gone: GoneStaysGone::default(),
            operations: BTreeMap::new(),
            next_operation: 0,
            registrars: BTreeMap::new(),
            broken: None,
        };
        Self {
            watch: Rc::new(RefCell::new(watch)),
            law: "masters",
        }
    }

    /// A disk has done something.
    pub fn disk(&self, node: NodeId, happened: &Happened<'_>) {
        let watch = &mut *self.watch.borrow_mut();
        let verdict = watch.disk(node, happened);
        if watch.broken.is_none() {
            watch.broken = verdict.err();
        }
    }

    /// The disk of a master is lost, or part of it, which its replica finds when it starts.
    pub fn spoiled(&self, node: NodeId) {
        let watch = &mut *self.watch.borrow_mut();
        watch.disks.entry(node).or_default().damaged = true;
    }

    /// Whether the disk of a master says that its replica votes.
    pub fn votes(&self, node: NodeId) -> bool {
        let watch = self.watch.borrow();
        watch.disks.get(&node).is_some_and(OnDisk::votes)
    }
}

/// Disks.
impl Watch {
    fn member(&mut self, node: NodeId) -> usize {
        let known = self.members.iter().position(|member| *member == node);
        known.unwrap_or_else(|| {
            self.members.push(node);
            self.members.len() - 1
        })
    }

    fn disk(&mut self, node: NodeId, happened: &Happened<'_>) -> Verdicts {
        match happened {
            Happened::Loaded(stored) => self.loaded(node, stored),
            Happened::Committed(changes) => changes
                .iter()
                .try_for_each(|change| self.committed(node, change)),
            Happened::Failed(error) => {
                let kind = if matches!(error, StorageError::Full { .. }) {
                    DISK_FULL
                } else {
                    SYNC_FAILS
                };
                self.shared.lock().bite(kind);
                Ok(())
            }
        }
    }

    fn loaded(&mut self, node: NodeId, stored: &Stored) -> Verdicts {
        let member = self.member(node);
        let old = self.disks.remove(&node).unwrap_or_default();
        if stored.damaged {
            self.shared.lock().bite(FLIPPED);
        }
        if stored.damaged || stored.metadata.life != old.metadata.life {
            self.values.forgets(member);
            self.promises.forgets(member);
        }
        let disk = OnDisk {
            damaged: stored.damaged,
            ..OnDisk::default()
        };
        self.disks.insert(node, disk);
        for action in &stored.actions {
            self.committed(node, &Change::Action(action.clone()))?;
        }
        self.committed_metadata(node, &stored.metadata)
    }

    fn committed(&mut self, node: NodeId, change: &Change) -> Verdicts {
        match change {
            Change::Metadata(metadata) => {
                // What is written now is whole again.
                self.disks.entry(node).or_default().damaged = false;
                self.committed_metadata(node, metadata)
            }
            Change::Action(action) => {
                let position = action.position;
                let member = self.member(node);
                let records = &mut self.disks.entry(node).or_default().records;
                records.insert(position, action.clone());
                let Some(performed) = &action.performed else {
                    return Ok(());
                };
                let (by, value) = (performed.by, &performed.value);
                let accepted = self.values.accepted(member, position, by, value);
                of("L-1", accepted)?;
                if action.learned {
                    of("L-1", self.values.learned(position, value))?;
                }
                Ok(())
            }
            Change::Forget { below } => {
                let records = &mut self.disks.entry(node).or_default().records;
                *records = records.split_off(below);
                Ok(())
            }
        }
    }

    fn committed_metadata(&mut self, node: NodeId, metadata: &Metadata) -> Verdicts {
        let member = self.member(node);
        let disk = self.disks.entry(node).or_default();
        if disk.metadata.life != metadata.life {
            self.promises.forgets(member);
        }
        disk.metadata = metadata.clone();
        if !disk.damaged {
            of("L-3", self.promises.stored(member, metadata.promised))?;
        }
        of("L-7", self.truncations.begins(metadata.begin))
    }
}

/// Messages.
impl Watch {
    fn sent(&mut self, sim: &Sim, letter: &Letter) -> Verdicts {
        let name = letter.name;
        let asks = |to: &Pid| match letter.correlation {
            Correlation::Request(number) => Some((letter.from.clone(), number)),
            Correlation::Answer(number) => Some((to.clone(), number)),
            Correlation::None => None,
        };
        let ask = asks(&letter.to);
        if name == PromiseResponse::NAME {
            self.promised(sim, letter)
        } else if name == WriteResponse::NAME {
            self.accepted(sim, letter)
        } else if name == asks::Election::NAME {
            self.elected(letter)
        } else if name == Append::NAME {
            if let (Some(ask), Some(append)) = (ask, letter.read::<Append>()) {
                self.durable.begins(letter.from.clone());
                self.writes.insert(ask, Asked::Append(append.bytes));
            }
            Ok(())
        } else if name == Truncate::NAME {
            if let (Some(ask), Some(truncate)) = (ask, letter.read::<Truncate>()) {
                self.truncations.asked(truncate.to);
                self.writes.insert(ask, Asked::Truncate(truncate.to));
            }
            Ok(())
        } else if name == Writing::NAME {
            self.written(letter, ask)
        } else if name == ReadLog::NAME {
            if let (Some(ask), Some(read)) = (ask, letter.read::<ReadLog>()) {
                self.reads.insert(ask, read);
            }
            Ok(())
        } else if name == LogRead::NAME {
            self.read(letter, ask)
        } else if name == Apply::NAME {
            if let (Some(ask), Some(apply)) = (ask, letter.read::<Apply>()) {
                self.next_operation += 1;
                let number = self.next_operation;
                let operation = apply.operation;
                self.operations.insert(ask, (number, operation.clone()));
                self.registry.asked(number, operation);
            }
            Ok(())
        } else if name == Recover::NAME {
            if let Some(recover) = letter.read::<Recover>() {
                self.registrars.insert(letter.to.clone(), recover.epoch);
            }
            Ok(())
        } else if name == Applied::NAME {
            self.applied(letter, ask)
        } else if name == RegistryRecovered::NAME {
            self.recovered(letter)
        } else {
            Ok(())
        }
    }

    fn disk_of(&self, sim: &Sim, pid: &Pid) -> Option<&OnDisk> {
        let mut disks = self.disks.iter();
        let disk = disks.find(|(node, _)| sim.address(**node) == pid.address());
        disk.map(|(_, disk)| disk)
    }

    fn promised(&self, sim: &Sim, letter: &Letter) -> Verdicts {
        let (Some(answer), Some(disk)) = (
            letter.read::<PromiseResponse>(),
            self.disk_of(sim, &letter.from),
        ) else {
            return Ok(());
        };
        let is_gone = answer.action.as_ref().is_some_and(|action| {
            answer.position == Some(action.position)
                && *action == Action::tombstone(action.position)
        });
        if answer.verdict == Verdict::Accept && !is_gone {
            let vote = Vote::Promise(answer.position);
            let held = held(disk, answer.position);
            of("L-4", votes_are_durable::check(vote, answer.proposal, held))?;
        }
        let status = disk.metadata.status;
        let verdict = only_voters_vote::check(status, disk.damaged, answer.verdict);
        of("L-5", verdict)
    }

    fn accepted(&self, sim: &Sim, letter: &Letter) -> Verdicts {
        let (Some(answer), Some(disk)) = (
            letter.read::<WriteResponse>(),
            self.disk_of(sim, &letter.from),
        ) else {
            return Ok(());
        };
        if answer.verdict == Verdict::Accept {
            for position in (answer.position.0..=answer.last().0).map(Position) {
                let held = held(disk, Some(position));
                let is_learned = held.record.is_some_and(|record| record.learned);
                if !is_learned && !self.holds_chosen(position, held) {
                    let vote = Vote::Accept(position);
                    of("L-4", votes_are_durable::check(vote, answer.proposal, held))?;
                }
            }
        }
        let status = disk.metadata.status;
        let verdict = only_voters_vote::check(status, disk.damaged, answer.verdict);
        of("L-5", verdict)
    }

    /// Whether a disk holds the value that is chosen at a position. That it is learned may be stored later, and a replica that
    /// knows it says so to every proposal: none can choose another value there.
    fn holds_chosen(&self, position: Position, held: Held<'_>) -> bool {
        let performed = held.record.and_then(|record| record.performed.as_ref());
        let mut chosen = self.values.chosen(position, position);
        performed.is_some_and(|performed| chosen.any(|(_, value)| *value == performed.value))
    }

    fn elected(&mut self, letter: &Letter) -> Verdicts {
        if let Some(asks::Election::Elected { epoch, ending }) = letter.read() {
            self.epochs.insert(letter.from.clone(), epoch);
            of("L-6", self.writers.elected(epoch, ending))?;
        }
        Ok(())
    }

    fn written(&mut self, letter: &Letter, ask: Option<Ask>) -> Verdicts {
        let asked = ask.and_then(|ask| self.writes.remove(&ask));
        let (Some(asked), Some(answer)) = (asked, letter.read::<Writing>()) else {
            return Ok(());
        };
        let Writing::Written { position } = answer else {
            return Ok(());
        };
        match asked {
            Asked::Append(bytes) => {
                self.durable.ends(&letter.to);
                self.entries.acknowledged(position, bytes);
            }
            Asked::Truncate(to) => self.entries.truncated(to),
        }
        let epoch = self.epochs.get(&letter.from).copied().unwrap_or_default();
        of("M-1", self.writers.acknowledged(epoch, position))
    }

    fn read(&mut self, letter: &Letter, ask: Option<Ask>) -> Verdicts {
        let asked = ask.and_then(|ask| self.reads.remove(&ask));
        let (Some(asked), Some(LogRead::Entries { entries, next })) = (asked, letter.read()) else {
            return Ok(());
        };
        let from = asked.span.from;
        let to = next.map_or(asked.span.to, Position::previous);
        of("L-2", self.entries.read(from, to, &entries))?;
        let chosen = self.values.chosen(from, to);
        of("L-8", readers_see_no_gaps::check(&entries, chosen))
    }

    fn applied(&mut self, letter: &Letter, ask: Option<Ask>) -> Verdicts {
        let asked = ask.and_then(|ask| self.operations.remove(&ask));
        if let Some(Applied { result: Ok(done) }) = letter.read()
            && let Some((number, operation)) = asked
        {
            let changed = done == Done::Changed;
            self.registry.acknowledged(&number, changed);
            if changed {
                of("R-2", self.durable.tells(&letter.from))?;
                if matches!(operation, RegistryOperation::MarkAgentGone { .. }) {
                    self.shared.lock().bite(MARKED_GONE);
                }
                let epoch = self.registrars.get(&letter.from).copied().unwrap_or(0);
                of("R-4", self.gone.acknowledged(epoch, &operation))?;
            }
        }
        Ok(())
    }

    fn recovered(&mut self, letter: &Letter) -> Verdicts {
        let Some(RegistryRecovered { registry }) = letter.read() else {
            return Ok(());
        };
        match registry {
            Ok(registry) => {
                of("R-2", self.durable.tells(&letter.from))?;
                of("R-4", self.gone.found(&registry))?;
                of("R-1", self.registry.found(&registry))
            }
            Err(_) => Ok(()),
        }
    }
}

fn held(disk: &OnDisk, position: Option<Position>) -> Held<'_> {
    Held {
        promised: disk.metadata.promised,
        begin: disk.metadata.begin,
        record: position.and_then(|position| disk.records.get(&position)),
    }
}

/// Processes.
impl Watch {
    fn spawned(&mut self, pid: &Pid) {
        self.durable.ends(pid);
        self.followers.begins(pid);
        self.leaders.ends(pid);
    }

    fn turned(&mut self, sim: &Sim, pid: &Pid) -> Verdicts {
        if let Some(master) = sim.process::<Master>(pid) {
            if !master.is_leading() {
                return Ok(());
            }
            let election = Pid::new(ELECTION, pid.address().clone()).ok();
            let election = election.and_then(|pid| sim.process::<Election>(&pid));
            let elected = election.and_then(Election::core).and_then(Core::elected);
            let elected = elected == Some(master.epoch());
            of("M-1", self.leaders.acts(pid.clone(), elected))?;
            let agents = master.state().agents().map(|(id, _)| id);
            of("R-4", self.gone.has(master.epoch(), agents))
        } else if let Some(registrar) = sim.process::<Registrar>(pid) {
            of("R-3", one_place_for_an_agent::check(registrar.registry()))
        } else if let Some(agent) = sim.process::<Agent>(pid) {
            let epoch = agent.leader_epoch();
            of("M-2", self.followers.acts(pid.clone(), epoch))
        } else if let Some(driver) = sim.process::<Driver>(pid) {
            let epoch = driver.core().epoch();
            of("M-2", self.followers.acts(pid.clone(), epoch))
        } else {
            Ok(())
        }
    }
}

impl Invariant for MasterLaws {
    fn name(&self) -> &'static str {
        self.law
    }

    fn seen(&mut self, sim: &Sim, seen: &Seen<'_>) -> Result<(), String> {
        let watch = &mut *self.watch.borrow_mut();
        let verdict = match seen {
            Seen::Sent(letter) => watch.sent(sim, letter),
            Seen::Turned(pid) => watch.turned(sim, pid),
            Seen::Spawned(pid) => {
                watch.spawned(pid);
                Ok(())
            }
            Seen::Booted(_)
            | Seen::Crashed(_)
            | Seen::Ended(..)
            | Seen::Handled(_)
            | Seen::Dropped(..) => Ok(()),
        };
        verdict.map_err(|(law, what)| {
            self.law = law;
            what
        })
    }

    fn after_step(&mut self, _: &Sim) -> Result<(), String> {
        let broken = self.watch.borrow_mut().broken.take();
        match broken {
            Some((law, what)) => {
                self.law = law;
                Err(what)
            }
            None => Ok(()),
        }
    }
}
