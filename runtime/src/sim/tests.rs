//! Tests of the simulator itself: a store with a client, under every kind of fault.

use serde::{Deserialize, Serialize};

use super::*;
use crate::context::{AskError, Context, Gate};
use crate::http::{Request, Response};
use crate::message::{Ask, Message};
use crate::process::{Receive, Routes};
use crate::transport::{Guest, Proof};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Put {
    number: u64,
}
impl Message for Put {
    const NAME: &'static str = "test.Put";
    const SENDERS: &'static [&'static str] = &["client"];
}
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stored {
    number: u64,
}
impl Message for Stored {
    const NAME: &'static str = "test.Stored";
}

/// Writes a number and syncs it.
struct Write(u64);
impl Op for Write {
    type Out = Result<(), DiskError>;
}

/// Acknowledges numbers that are on its disk.
struct Store {
    highest: u64,
    /// Acknowledges before it has stored: the planted mistake.
    hasty: bool,
}
impl Process for Store {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Put>();
    }
}
impl Receive<Put> for Store {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, put: Put) {
        let (to, number) = (from.clone(), put.number);
        if self.hasty {
            cx.send(&to, Stored { number });
        }
        cx.run(Write(number), Gate::HoldUser, move |store, cx, out| {
            if out.is_err() {
                cx.stop();
                return;
            }
            store.highest = store.highest.max(number);
        });
        cx.send(&to, Stored { number });
    }
}

/// Puts one number after another, each again until it is stored.
struct Client {
    to: Pid,
    number: u64,
    stored: u64,
}
impl Client {
    fn put(&mut self, cx: &mut Context<'_, Self>) {
        let number = self.number;
        cx.send(&self.to, Put { number });
        cx.after(SECOND, Self::put);
    }
}
impl Process for Client {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Stored>();
    }
    fn start(&mut self, cx: &mut Context<'_, Self>) {
        cx.link(&self.to);
        self.put(cx);
    }
    fn exited(&mut self, cx: &mut Context<'_, Self>, _: &Pid, _: ExitReason) {
        cx.after(SECOND, |client, cx| cx.link(&client.to));
    }
}
impl Receive<Stored> for Client {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, stored: Stored) {
        self.stored = self.stored.max(stored.number);
        if stored.number == self.number {
            self.number += 1;
        }
    }
}

/// What a client knows to be stored is on the disk of the store.
struct Durable {
    client: Pid,
    store: NodeId,
}
impl Invariant for Durable {
    fn name(&self) -> &'static str {
        "durable"
    }
    fn after_step(&mut self, sim: &Sim) -> Result<(), String> {
        let stored = sim.process::<Client>(&self.client).map_or(0, |c| c.stored);
        let on_disk = &sim.nodes[self.store.0].disk;
        if stored == 0 || on_disk.read(&format!("{stored:06}")).is_some() {
            return Ok(());
        }
        Err(format!("{stored} is acknowledged and not on the disk"))
    }
}

/// A world of one store and one client.
fn world(seed: u64, hasty: bool) -> (Sim, Pid, Pid) {
    let mut sim = Sim::new(seed);
    sim.model(|sim, node, write: Write, reply| {
        let delay = sim.op_delay();
        let fails = sim.random().random_bool(0.01);
        sim.later_on(node, delay, move |sim| {
            let disk = sim.disk(node);
            let out = disk.write(&format!("{:06}", write.0), b"").and_then(|()| {
                if fails {
                    disk.fail_syncs(1);
                }
                disk.sync()
            });
            sim.answer(reply, Duration::ZERO, out);
        });
    });
    let faults = Faults::draw(sim.random());
    sim.set_faults(faults);
    let store = sim.add(NodeSettings::new("store", "store"), move |boot| {
        let highest = boot.disk().names().last().map(|name| name.parse().unwrap());
        let highest = highest.unwrap_or(0);
        boot.spawn("store", Store { highest, hasty });
    });
    let to = sim.pid(store, "store");
    let target = to.clone();
    let settings = NodeSettings::new("client", "client")
        .accepts(false)
        .crashes(false);
    let client = sim.add(settings, move |boot| {
        let to = target.clone();
        boot.spawn(
            "client",
            Client {
                to,
                number: 1,
                stored: 0,
            },
        );
    });
    let client = sim.pid(client, "client");
    sim.law(Durable {
        client: client.clone(),
        store,
    });
    (sim, to, client)
}

fn run(seed: u64, hasty: bool) -> Result<Sim, Failure> {
    let (mut sim, store, client) = world(seed, hasty);
    sim.run_for(SECOND * 60)?;
    sim.heal();
    let before = sim.process::<Client>(&client).map_or(0, |c| c.stored);
    let goes_on = |sim: &Sim| {
        sim.process::<Client>(&client)
            .is_some_and(|c| c.stored > before + 3)
    };
    // A store whose disk has failed stops, and nobody starts it again.
    let lives = |sim: &Sim| sim.process::<Store>(&store).is_some();
    let converged = sim.run_until(SECOND * 60, |sim| {
        goes_on(sim) || (!lives(sim) && sim.now() > Time::ZERO + SECOND * 100)
    })?;
    assert!(
        converged,
        "seed {seed}\n{}",
        sim.journal().story(80, &[]).join("\n")
    );
    Ok(sim)
}

#[test]
fn a_seed_gives_the_same_journal_every_time() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let (one, other) = (run(seed, false).unwrap(), run(seed, false).unwrap());
        assert_eq!(one.journal().hash(), other.journal().hash(), "seed {seed}");
        assert_eq!(one.journal().lines(), other.journal().lines());
        hashes.insert(one.journal().hash());
    }
    assert_eq!(hashes.len(), 20, "seeds differ");
}

#[test]
fn every_kind_of_fault_bites() {
    let mut bites = Bites::default();
    for seed in 0..200 {
        bites.add(run(seed, false).unwrap().bites());
    }
    let missing: Vec<_> = Bites::ALL
        .iter()
        .filter(|kind| bites.of(kind) == 0)
        .collect();
    // No guests, no bridge between two nodes, and no node loses its disk here.
    assert_eq!(
        missing,
        [&faults::MACHINE, &faults::KEPT_NOTHING, &faults::BRIDGE]
    );
}

#[test]
fn a_store_that_acknowledges_too_early_is_found() {
    let failure = (0..50).find_map(|seed| run(seed, true).err()).unwrap();
    assert_eq!(failure.law, "durable");
    let again = run(failure.seed, true).unwrap_err();
    assert_eq!(failure, again);
}

/// Notes what it hears.
#[derive(Default)]
struct Ear {
    heard: Vec<u64>,
}
impl Process for Ear {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Stored>();
        routes.get("/heard", Self::show);
    }
}
impl Ear {
    fn show(&mut self, _: &mut Context<'_, Self>, _: &Request) -> Response {
        Response::text(200, format!("{:?}", self.heard))
    }
}
impl Receive<Stored> for Ear {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, stored: Stored) {
        self.heard.push(stored.number);
        if stored.number == HOLD {
            cx.run(Write(0), Gate::HoldUser, |_, _, _| {});
        }
    }
}
/// The number that has an [`Ear`] wait for an operation.
const HOLD: u64 = 99;

/// Two nodes with an ear each, without faults; the first is connected to the second.
fn ears() -> (Sim, [NodeId; 2], [Pid; 2]) {
    let mut sim = Sim::new(1);
    sim.model(|sim, _, _: Write, reply| sim.answer(reply, SECOND, Ok(())));
    let nodes = ["one", "two"].map(|name| {
        sim.add(NodeSettings::new(name, "node"), |boot| {
            boot.spawn("ear", Ear::default());
        })
    });
    let pids = nodes.map(|node| sim.pid(node, "ear"));
    sim.send(nodes[0], &pids[1], Stored { number: 0 });
    sim.run_for(SECOND).unwrap();
    (sim, nodes, pids)
}

fn heard(sim: &Sim, pid: &Pid) -> Vec<u64> {
    sim.process::<Ear>(pid).unwrap().heard.clone()
}

#[test]
fn what_stalled_in_a_partition_waits_for_a_pause_to_end_and_comes_before_what_came_later() {
    let (mut sim, [one, two], [_, ear]) = ears();
    sim.cut(vec![(one, two)], SECOND, faults::PARTITION);
    sim.send(one, &ear, Stored { number: 1 });
    sim.run_for(SECOND / 2).unwrap();
    sim.pause(two, SECOND * 2);
    // The partition ends after half a second of the pause.
    sim.run_for(SECOND).unwrap();
    sim.send(one, &ear, Stored { number: 2 });
    sim.run_for(SECOND / 2).unwrap();
    assert_eq!(heard(&sim, &ear), [0]);
    assert_eq!(sim.mailbox_depth(&ear), 0, "nothing reaches a paused node");
    sim.run_for(SECOND).unwrap();
    assert_eq!(heard(&sim, &ear), [0, 1, 2]);
}

#[test]
fn short_pauses_one_after_the_other_are_not_taken_for_a_long_one() {
    let (mut sim, [one, two], _) = ears();
    for _ in 0..10 {
        sim.pause(two, SECOND / 2);
        sim.run_for(SECOND).unwrap();
    }
    assert!(sim.network.is_open(one, two));
    sim.pause(two, SECOND * 10);
    sim.run_for(SECOND * 7).unwrap();
    assert!(!sim.network.is_open(one, two));
}

#[test]
fn faults_that_are_set_again_take_the_place_of_the_earlier_ones() {
    let bites = |times: u32| {
        let (mut sim, ..) = ears();
        for _ in 0..times {
            sim.set_faults(Faults {
                wall_steps: 60.0,
                ..Faults::none()
            });
        }
        sim.run_for(SECOND * 600).unwrap();
        sim.bites().of(faults::WALL_STEP)
    };
    let (once, often) = (bites(1), bites(10));
    assert!((400..800).contains(&once), "{once}");
    assert!((400..800).contains(&often), "{often}");
}

#[test]
fn a_held_process_keeps_its_answers_back_too() {
    let (mut sim, [one, _], [ear, _]) = ears();
    let get = |sim: &mut Sim| sim.get(&ear, "/heard").map(|response| response.body);
    sim.send(one, &ear, Stored { number: 7 });
    sim.run_for(SECOND).unwrap();
    assert_eq!(get(&mut sim), Some(b"[7]".to_vec().into()));
    sim.send(one, &ear, Stored { number: HOLD });
    sim.run_for(SECOND / 2).unwrap();
    assert_eq!(get(&mut sim), None);
    sim.run_for(SECOND).unwrap();
    assert_eq!(get(&mut sim), Some(b"[7, 99]".to_vec().into()));
}

/// Asks a guest that has not connected.
struct Host {
    guest: Pid,
    outcome: Option<AskError>,
}
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Call {}
impl Message for Call {
    const NAME: &'static str = "test.Call";
}
impl Ask for Call {
    type Reply = Stored;
}
impl Process for Host {
    fn routes(_: &mut Routes<Self>) {}
    fn start(&mut self, cx: &mut Context<'_, Self>) {
        let key = cx.guest_key().unwrap();
        cx.pin_guest(Guest {
            id: self.guest.shared_id(),
            role: Arc::from("executor"),
            proof: Proof::Certificate(key.fingerprint),
        });
        let guest = self.guest.clone();
        cx.ask(&guest, Call {}, SECOND * 60, |host, _, answer| {
            host.outcome = answer.err();
        });
    }
}

#[test]
fn a_guest_that_may_connect_and_has_not_is_out_of_reach_at_once() {
    let mut sim = Sim::new(1);
    let node = sim.add(NodeSettings::new("host", "agent"), |boot| {
        let (guest, outcome) = (boot.pid("guest"), None);
        boot.spawn("host", Host { guest, outcome });
    });
    let pid = sim.pid(node, "host");
    sim.run_for(SECOND).unwrap();
    let outcome = sim.process::<Host>(&pid).unwrap().outcome;
    assert_eq!(outcome, Some(AskError::Undelivered));
}
