//! The disks on which agents' sandboxes lie: they outlive every run of an agent, fill up at times, and answer the
//! operations of garbage collection.
//!
//! A disk is roomy, with 40 % of it used, or full. By [`SETTINGS`] a sandbox stays on a roomy one for half of the delay,
//! 1 − 0.1 − 0.4 of it, and goes from a full one as soon as its executor has ended.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use meseta_agent::Agent;
use meseta_agent::gc::{
    DiskUsage, FindSandboxes, Policy, RemoveSandboxes, Settings, TouchSandboxes,
};
use meseta_runtime::Time;
use meseta_runtime::sim::{NodeId, OpReply, Sim};
use rand::RngExt;

use super::hosts::Hosts;
use super::notes::Shared;
use crate::invariants::sandboxes_stay::{self, Promise, Reason, SandboxesStay};

/// A sandbox went early, since its disk was full.
pub const DISK_FILLS: &str = "disk of sandboxes fills up";
/// A sandbox was not removed though it was ordered.
pub const REMOVAL_FAILS: &str = "removal of a sandbox fails";
/// Nobody could say how full the disk is.
pub const LOOK_FAILS: &str = "look at a disk of sandboxes fails";
/// Another run of the agent has removed a sandbox than the one in which its executor ended.
pub const OTHER_RUN: &str = "sandbox removed by a later run of its agent";

/// How agents of these worlds collect.
pub const SETTINGS: Settings = Settings {
    policy: Policy {
        delay: Duration::from_secs(200),
        headroom: 0.1,
    },
    disk_watch_interval: Duration::from_secs(5),
};
const ROOMY: f64 = 0.4;
const FULL: f64 = 0.95;

/// Half of the delay on a clock that drifts by 5 %, less what a run of the agent may not have noted before it crashed: an
/// interval, an operation that stalls for 20 s, and a pause.
const PROMISE: Promise = Promise {
    stays: Duration::from_secs(95 - 40),
    // A look that stalls, a pause, and an order that stalls.
    look_lasts: Duration::from_secs(60),
};

/// What goes wrong with disks of sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Disks {
    /// Disks that fill up for a while, a minute.
    pub fills_up: f64,
    /// Share of removals of a sandbox that fail.
    pub removal_fails: f64,
    /// Share of looks at a disk that fail.
    pub look_fails: f64,
}

/// A sandbox on a disk.
struct Sandbox {
    /// Its date, by which an agent that starts knows its age.
    changed: Time,
    /// The run of the agent that has had it in use last.
    run: u64,
}

#[derive(Default)]
struct Disk {
    sandboxes: BTreeMap<PathBuf, Sandbox>,
    law: SandboxesStay,
    full_until: Time,
}

/// See the module.
#[derive(Clone)]
pub struct Sandboxes {
    /// By the number of their machine; none in a world whose agents do not collect.
    disks: Option<Rc<RefCell<BTreeMap<usize, Disk>>>>,
    troubles: Rc<RefCell<Disks>>,
    shared: Shared,
}

/// Container of a sandbox: the last part of its path.
fn container(sandbox: &Path) -> String {
    let name = sandbox.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

impl Sandboxes {
    /// Disks on which nothing lies.
    pub fn new(shared: Shared, troubles: Option<Disks>) -> Self {
        Self {
            disks: troubles.map(|_| Rc::default()),
            troubles: Rc::new(RefCell::new(troubles.unwrap_or_default())),
            shared,
        }
    }

    /// Changes the disk of a machine, or looks at it.
    fn on<T>(&self, machine: usize, act: impl FnOnce(&mut Disk) -> T) -> Option<T> {
        let mut disks = self.disks.as_ref()?.borrow_mut();
        Some(act(disks.entry(machine).or_default()))
    }

    /// A sandbox is made for a container.
    pub fn made(&self, sim: &Sim, machine: usize, agent: NodeId, sandbox: &str) {
        let (now, run) = (sim.now(), sim.incarnation(agent));
        self.on(machine, |disk| {
            let sandbox = Path::new(sandbox);
            disk.law.used(sandbox, now);
            let made = Sandbox { changed: now, run };
            disk.sandboxes.insert(sandbox.to_owned(), made);
        });
    }

    /// What an agent knows to run uses its sandbox.
    pub fn look(&self, sim: &Sim, machine: usize, node: NodeId, agent: &Agent) {
        let (now, run) = (sim.now(), sim.incarnation(node));
        self.on(machine, |disk| {
            for (_, _, executor) in agent.tables().executors() {
                if !executor.container.is_gone()
                    && let Some(sandbox) = disk.sandboxes.get_mut(&executor.directory)
                {
                    sandbox.run = run;
                    disk.law.used(&executor.directory, now);
                }
            }
        });
    }

    /// The disk of some machine fills up for a while.
    pub fn fill_up(&self, sim: &mut Sim, machine: usize) {
        let lasts = Duration::from_secs(sim.random().random_range(10..40));
        let until = sim.now() + lasts;
        self.on(machine, |disk| disk.full_until = until);
    }

    /// From now on disks have room, and do what they are told.
    pub fn heal(&self) {
        *self.troubles.borrow_mut() = Disks::default();
        if let Some(disks) = &self.disks {
            for disk in disks.borrow_mut().values_mut() {
                disk.full_until = Time::ZERO;
            }
        }
    }

    /// S-3: what is left, but for the sandboxes of these containers.
    ///
    /// # Errors
    /// Which sandboxes are.
    pub fn all_are_gone(&self, spared: impl Fn(&str) -> bool) -> Result<(), String> {
        let Some(disks) = &self.disks else {
            return Ok(());
        };
        let disks = disks.borrow();
        let all = disks.values().flat_map(|disk| disk.law.all());
        sandboxes_stay::all_are_gone(all.filter(|sandbox| !spared(&container(sandbox))))
    }

    /// Has the operations of garbage collection answered.
    pub(super) fn install(&self, sim: &mut Sim, hosts: &Hosts) {
        let (me, all) = (self.clone(), hosts.clone());
        sim.model(move |sim, agent, _: DiskUsage, reply| me.usage(sim, &all, agent, reply));
        let (me, all) = (self.clone(), hosts.clone());
        sim.model(move |sim, agent, _: FindSandboxes, reply| me.find(sim, &all, agent, reply));
        let (me, all) = (self.clone(), hosts.clone());
        sim.model(move |sim, agent, op: TouchSandboxes, reply| {
            me.touch(sim, &all, agent, op, reply);
        });
        let (me, all) = (self.clone(), hosts.clone());
        sim.model(move |sim, agent, op: RemoveSandboxes, reply| {
            let delay = sim.op_delay();
            let (me, all) = (me.clone(), all.clone());
            Hosts::while_alive(sim, agent, delay, move |sim| {
                me.remove_next(sim, &all, agent, op.sandboxes.into(), (Vec::new(), reply));
            });
        });
    }

    fn usage(&self, sim: &mut Sim, hosts: &Hosts, agent: NodeId, reply: OpReply<DiskUsage>) {
        let share = self.troubles.borrow().look_fails;
        let fails = hosts.troubled(sim, share, LOOK_FAILS);
        let delay = sim.op_delay();
        let (me, machine) = (self.clone(), hosts.host(agent));
        Hosts::while_alive(sim, agent, delay, move |sim| {
            let now = sim.now();
            let usage = me.on(machine, |disk| {
                if now < disk.full_until {
                    disk.law.is_full(now);
                    FULL
                } else {
                    ROOMY
                }
            });
            let looked = usage.filter(|_| !fails);
            let looked = looked.ok_or_else(|| "simulated".to_owned());
            sim.answer(reply, Duration::ZERO, looked);
        });
    }

    fn find(&self, sim: &mut Sim, hosts: &Hosts, agent: NodeId, reply: OpReply<FindSandboxes>) {
        let delay = sim.op_delay();
        let (me, machine) = (self.clone(), hosts.host(agent));
        Hosts::while_alive(sim, agent, delay, move |sim| {
            let now = sim.now();
            let found = me.on(machine, |disk| {
                let all = disk.sandboxes.iter();
                all.map(|(path, sandbox)| (path.clone(), now.since(sandbox.changed)))
                    .collect()
            });
            // The answer may be late: what it says is as old as the look.
            let late = sim.op_delay();
            sim.answer(reply, late, found.unwrap_or_default());
        });
    }

    fn touch(
        &self,
        sim: &mut Sim,
        hosts: &Hosts,
        agent: NodeId,
        touch: TouchSandboxes,
        reply: OpReply<TouchSandboxes>,
    ) {
        let delay = sim.op_delay();
        let (me, machine) = (self.clone(), hosts.host(agent));
        Hosts::while_alive(sim, agent, delay, move |sim| {
            let now = sim.now();
            me.on(machine, |disk| {
                for path in &touch.sandboxes {
                    if let Some(sandbox) = disk.sandboxes.get_mut(path) {
                        sandbox.changed = now;
                    }
                }
            });
            sim.answer(reply, Duration::ZERO, Vec::new());
        });
    }

    /// Removes one after another, so that a crash of the agent falls between two of them.
    fn remove_next(
        &self,
        sim: &mut Sim,
        hosts: &Hosts,
        agent: NodeId,
        mut left: VecDeque<PathBuf>,
        (mut done, reply): (Vec<Removed>, OpReply<RemoveSandboxes>),
    ) {
        let Some(next) = left.pop_front() else {
            sim.answer(reply, Duration::ZERO, done);
            return;
        };
        let delay = Duration::from_millis(sim.random().random_range(1..20));
        let (me, hosts) = (self.clone(), hosts.clone());
        Hosts::while_alive(sim, agent, delay, move |sim| {
            let share = me.troubles.borrow().removal_fails;
            let outcome = if hosts.troubled(sim, share, REMOVAL_FAILS) {
                Err("simulated".to_owned())
            } else {
                me.remove(sim, &hosts, agent, &next);
                Ok(())
            };
            done.push((next, outcome));
            me.remove_next(sim, &hosts, agent, left, (done, reply));
        });
    }

    fn remove(&self, sim: &mut Sim, hosts: &Hosts, agent: NodeId, sandbox: &Path) {
        let is_alive = hosts.has(&container(sandbox));
        let (now, run) = (sim.now(), sim.incarnation(agent));
        let removed = self.on(hosts.host(agent), |disk| {
            let last = disk.sandboxes.remove(sandbox);
            let by_other = last.is_some_and(|last| last.run != run);
            let verdict = disk.law.removed(sandbox, is_alive, PROMISE, now);
            verdict.map(|reason| (reason, by_other))
        });
        let mut notes = self.shared.lock();
        match removed {
            Some(Err((law, what))) => {
                drop(notes);
                sim.fail(law, &what);
            }
            Some(Ok((reason, by_other))) => {
                if reason == Some(Reason::FullDisk) {
                    notes.bite(DISK_FILLS);
                }
                if by_other {
                    notes.bite(OTHER_RUN);
                }
            }
            None => {}
        }
    }
}

/// A sandbox, and how its removal went.
type Removed = (PathBuf, Result<(), String>);
