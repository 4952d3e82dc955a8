//! Several masters, of which one leads, with agents and schedulers that follow it, over their replicated log.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use meseta_agent::checkpoint;
use meseta_agent::config::Containment;
use meseta_agent::containerizer::Sweep;
use meseta_master::Replicated;
use meseta_master::election::members::Members;
use meseta_master::election::messages::Heartbeat;
use meseta_master::log::storage::memory::Memory;
use meseta_master::log::storage::ops::Storage;
use meseta_protocol::FrameworkId;
use meseta_protocol::agent::MasterInfo;
use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::messages::Led;
use meseta_protocol::messages::agent::{AgentReregistered, Ping, Pong, RegisterAgent};
use meseta_protocol::messages::election::{Detect, ELECTION, Leader};
use meseta_protocol::messages::scheduler::{AgentLost, OfferRescinded, SubscribeFramework};
use meseta_protocol::offer::Offer;
use meseta_protocol::status::TaskStatus;
use meseta_runtime::detector::Candidates;
use meseta_runtime::testing::{ANY, Probe};
use meseta_runtime::transport::memory::MemoryNetwork;
use meseta_runtime::{Clock, Node, NodeBuilder, Pid};
use meseta_scheduler_driver::{Handle, Options, Scheduler, SchedulerDriver};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

struct World {
    clock: Clock,
    network: MemoryNetwork,
    masters: Vec<Node>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.masters.iter().for_each(Node::shutdown);
    }
}

impl World {
    fn new(masters: u64) -> Self {
        let mut world = Self {
            clock: Clock::paused(),
            network: MemoryNetwork::new(1),
            masters: Vec::new(),
        };
        world.masters = (1..=masters)
            .map(|seed| {
                let builder = world.builder("master", seed);
                let storage = Storage::from(Memory::default());
                storage.serve(builder).start().unwrap()
            })
            .collect();
        let all: Vec<_> = world
            .masters
            .iter()
            .map(|node| node.address().clone())
            .collect();
        for node in &world.masters {
            let config = meseta_master::Config::new(0, "a-master");
            let members = Members {
                all: all.iter().cloned().collect(),
                quorum: all.len() / 2 + 1,
            };
            let (here, memory) = (node.address(), PathBuf::from("memory"));
            let master = Replicated::new(here, config, members, true, memory);
            master.unwrap().start(node).unwrap();
        }
        world.clock.settle();
        world
    }

    fn builder(&self, role: &str, seed: u64) -> NodeBuilder {
        let builder = Node::builder()
            .memory(&self.network)
            .clock(self.clock.clone());
        builder.role(role).seed(seed)
    }

    fn node(&self, role: &str, seed: u64) -> Node {
        self.builder(role, seed).start().unwrap()
    }

    fn candidates(&self) -> Candidates {
        let election = |node: &Node| node.pid(ELECTION).unwrap();
        Candidates::Asked(self.masters.iter().map(election).collect())
    }

    /// Which master `asker` hears to lead of `of`, and under which epoch.
    fn leader_of(&self, asker: &Probe, of: usize) -> (u64, Option<usize>) {
        let election = self.masters[of].pid(ELECTION).unwrap();
        asker.send(&election, Detect {});
        self.clock.settle();
        let heard = asker.all::<Leader>().pop().unwrap().message;
        let number = |pid: &Pid| {
            let at = |node: &Node| node.address() == pid.address();
            self.masters.iter().position(at).unwrap()
        };
        (heard.epoch, heard.leader.as_ref().map(number))
    }

    /// The master that leads when three seconds are over, according to `of`, and its epoch.
    fn settled(&self, asker: &Probe, of: usize) -> (u64, usize) {
        self.clock.advance(3 * SECOND);
        let (epoch, leader) = self.leader_of(asker, of);
        (epoch, leader.unwrap())
    }

    /// How often some master was elected.
    fn elections(&self) -> f64 {
        let elected = |node: &Node| node.metrics().value("election/elected");
        self.masters.iter().filter_map(elected).sum()
    }
}

/// Notes what it is called back with.
struct Noting(Sender<String>);

impl Noting {
    fn note(&self, text: String) {
        self.0.send(text).unwrap();
    }
}

impl Scheduler for Noting {
    fn registered(&mut self, _: &mut Handle<'_>, _: &FrameworkId, master: &MasterInfo) {
        self.note(format!("registered with {}", master.port));
    }
    fn reregistered(&mut self, _: &mut Handle<'_>, master: &MasterInfo) {
        self.note(format!("registered again with {}", master.port));
    }
    fn disconnected(&mut self, _: &mut Handle<'_>) {
        self.note("disconnected".to_owned());
    }
    fn resource_offers(&mut self, _: &mut Handle<'_>, _: Vec<Offer>) {
        self.note("offers".to_owned());
    }
    fn offer_rescinded(&mut self, _: &mut Handle<'_>, _: &meseta_protocol::OfferId) {
        self.note("rescinded".to_owned());
    }
    fn status_update(&mut self, _: &mut Handle<'_>, status: &TaskStatus) {
        self.note(format!("{:?}", status.state));
    }
    fn agent_lost(&mut self, _: &mut Handle<'_>, _: &meseta_protocol::AgentId) {
        self.note("agent lost".to_owned());
    }
}

/// An agent and a scheduler that know the masters by a list.
struct Followers {
    agent_node: Node,
    agent: Pid,
    scheduler_node: Node,
    driver: SchedulerDriver,
    notes: Receiver<String>,
    _work_dir: tempfile::TempDir,
}

impl Followers {
    fn of(world: &World) -> Self {
        let builder = Node::builder()
            .memory(&world.network)
            .clock(world.clock.clone());
        let agent_node = checkpoint::Storage::Memory(checkpoint::memory::Memory::default())
            .serve(builder.role("agent").seed(11))
            .op(|_: Sweep| async { Ok(()) })
            .start()
            .unwrap();
        let work_dir = tempfile::tempdir().unwrap();
        let mut config = meseta_agent::Config::new(world.candidates(), work_dir.path());
        config.containment = Containment::Walk;
        config.resources = "cpus:4;mem:1024".parse().unwrap();
        let agent = meseta_agent::start(&agent_node, config).unwrap();
        let scheduler_node = world.node("scheduler", 12);
        let (notes, noted) = channel();
        let driver = SchedulerDriver::start_on(
            &scheduler_node,
            world.candidates(),
            FrameworkInfo::new("nobody", "noting"),
            Options::default(),
            Noting(notes),
        );
        Self {
            agent_node,
            agent,
            scheduler_node,
            driver: driver.unwrap(),
            notes: noted,
            _work_dir: work_dir,
        }
    }

    fn notes(&self) -> Vec<String> {
        self.notes
            .try_iter()
            .filter(|note| note != "offers")
            .collect()
    }
}

impl Drop for Followers {
    fn drop(&mut self) {
        self.agent_node.shutdown();
        self.scheduler_node.shutdown();
    }
}

#[test]
fn three_masters_agree_on_one_leader_and_keep_it() {
    let world = World::new(3);
    let node = world.node("agent", 9);
    let asker = node.testing().probe("asker").unwrap();
    let (epoch, leader) = world.settled(&asker, 0);
    for of in 0..3 {
        assert_eq!(world.leader_of(&asker, of), (epoch, Some(leader)));
    }
    let elections = world.elections();
    world.clock.advance(20 * SECOND);
    assert!((world.elections() - elections).abs() < f64::EPSILON);
    assert_eq!(world.leader_of(&asker, 1), (epoch, Some(leader)));
    node.shutdown();
}

#[test]
fn when_the_leader_dies_another_leads_and_agent_and_scheduler_go_over_to_it() {
    let world = World::new(3);
    let followers = Followers::of(&world);
    let asker = followers.agent_node.testing().probe("asker").unwrap();
    let (epoch, leader) = world.settled(&asker, 0);
    let port = |master: usize| world.masters[master].address().port;
    assert_eq!(
        followers.notes(),
        [format!("registered with {}", port(leader))]
    );

    let other = (leader + 1) % 3;
    let testing = followers.agent_node.testing();
    let again = testing.expect::<Led<AgentReregistered>>(ANY, ANY);
    world.network.crash(world.masters[leader].address());
    let (newer, next) = world.settled(&asker, other);
    assert!(newer > epoch && next != leader);
    assert_eq!(
        followers.notes(),
        [
            "disconnected".to_owned(),
            format!("registered again with {}", port(next))
        ]
    );
    let seen = again.wait();
    assert_eq!(seen.from, world.masters[next].pid("master").unwrap());
    assert_eq!(seen.message.leader_epoch, newer);
}

#[test]
fn a_master_that_hears_no_leader_does_not_disturb_it() {
    let world = World::new(3);
    let node = world.node("agent", 9);
    let asker = node.testing().probe("asker").unwrap();
    let (epoch, leader) = world.settled(&asker, 0);
    let (deaf, other) = ((leader + 1) % 3, (leader + 2) % 3);
    // What the leader says to this one is lost; all else comes through.
    let testing = world.masters[deaf].testing();
    let lost = testing.on::<Heartbeat>(ANY, ANY).drop_all();
    let elections = world.elections();
    world.clock.advance(20 * SECOND);
    assert!(lost.dropped().len() > 100);
    assert!((world.elections() - elections).abs() < f64::EPSILON);
    assert_eq!(world.leader_of(&asker, other), (epoch, Some(leader)));
    assert_eq!(world.leader_of(&asker, deaf), (epoch, None));
    drop(lost);
    world.clock.advance(SECOND);
    assert_eq!(world.leader_of(&asker, deaf), (epoch, Some(leader)));
    node.shutdown();
}

#[test]
fn a_leader_that_is_heard_but_hears_nobody_ends_and_follows_afresh() {
    let world = World::new(3);
    let node = world.node("agent", 9);
    let asker = node.testing().probe("asker").unwrap();
    let (epoch, leader) = world.settled(&asker, 0);
    let master = world.masters[leader].pid("master").unwrap();
    let registrar = world.masters[leader].pid("registrar(1)").unwrap();
    let watch = world.masters[leader].testing().probe("watch").unwrap();
    watch.link(&master);
    watch.link(&registrar);
    let others = || {
        (0..3)
            .filter(|one| *one != leader)
            .map(|one| world.masters[one].address())
    };
    let here = world.masters[leader].address();
    others().for_each(|other| world.network.cut_one_way(other, here));
    world.clock.advance(700 * MS);
    watch.expect_exited(&master);
    watch.expect_exited(&registrar);
    world.clock.advance(2 * SECOND);
    others().for_each(|other| world.network.heal(other, here));
    world.clock.advance(SECOND);
    let (newer, next) = world.leader_of(&asker, (leader + 1) % 3);
    assert!(newer > epoch);
    assert!(next.is_some() && next != Some(leader));
    // The fresh one follows.
    assert_eq!(world.leader_of(&asker, leader), (newer, next));
    watch.link(&master);
    watch.expect_nothing();
    node.shutdown();
}

#[test]
fn what_an_older_leader_says_is_refused_by_agent_and_driver() {
    let world = World::new(3);
    let followers = Followers::of(&world);
    let asker = followers.agent_node.testing().probe("asker").unwrap();
    let (epoch, leader) = world.settled(&asker, 0);
    assert_eq!(followers.notes().len(), 1);
    world.network.crash(world.masters[leader].address());
    let (_, next) = world.settled(&asker, (leader + 1) % 3);
    assert_eq!(followers.notes().len(), 2);

    // Words of the old leadership, from the old leader's place and from the new leader's.
    let no_answer = world.masters[next].testing().on::<Pong>(ANY, ANY).never();
    let stale = world.node("master", 21);
    let voices = [
        stale.testing().probe("master").unwrap(),
        world.masters[next].testing().probe("voice").unwrap(),
    ];
    for voice in &voices {
        let ping = Ping { connected: false };
        voice.send(&followers.agent, led(epoch, ping));
        voice.send(followers.driver.pid(), led(epoch, AgentLost::default()));
    }
    world.clock.settle();
    voices.iter().for_each(Probe::expect_nothing);
    assert_eq!(followers.notes(), Vec::<String>::new());
    drop(no_answer);
    stale.shutdown();
}

#[test]
fn a_message_held_up_on_its_way_from_an_older_leader_is_refused() {
    let world = World::new(3);
    let followers = Followers::of(&world);
    let asker = followers.agent_node.testing().probe("asker").unwrap();
    let (_, leader) = world.settled(&asker, 0);
    let old = world.masters[leader].pid("master").unwrap();
    let pings = followers.agent_node.testing();
    let pings = pings.on::<Led<Ping>>(&old, ANY).hold();
    let rescinds = followers.scheduler_node.testing();
    let rescinds = rescinds.on::<Led<OfferRescinded>>(&old, ANY).hold();
    world.clock.advance(16 * SECOND);
    assert_eq!(pings.messages().len(), 1);
    // The agent's end is the last thing the scheduler hears of the old leader: it takes its offers back.
    world
        .network
        .cut(followers.agent_node.address(), old.address());
    world.clock.advance(6 * SECOND);
    assert_eq!(rescinds.messages().len(), 1);
    world.network.crash(old.address());
    world.settled(&asker, (leader + 1) % 3);
    followers.notes();
    let pong = followers.agent_node.testing().on::<Pong>(ANY, ANY).never();
    pings.release();
    rescinds.release();
    world.clock.settle();
    drop(pong);
    assert!(!followers.notes().contains(&"rescinded".to_owned()));
}

#[test]
fn a_master_that_does_not_lead_drops_what_agents_and_schedulers_say() {
    let world = World::new(3);
    let agent = world.node("agent", 9);
    let asker = agent.testing().probe("slave(1)").unwrap();
    let (_, leader) = world.settled(&asker, 0);
    let other = &world.masters[(leader + 1) % 3];
    let scheduler = world.node("scheduler", 10);
    let subscriber = scheduler.testing().probe("scheduler").unwrap();
    let master = other.pid("master").unwrap();
    asker.all::<Leader>();
    asker.send(&master, RegisterAgent::default());
    subscriber.send(&master, SubscribeFramework::default());
    world.clock.settle();
    subscriber.expect_nothing();
    asker.expect_nothing();
    let metrics = other.metrics().snapshot();
    assert_eq!(metrics["master/dropped_messages"], 2.0);
    world.clock.advance(SECOND);
    let elected = |node: &Node| node.metrics().snapshot()["master/elected"].as_f64();
    assert_eq!(elected(other), Some(0.0));
    assert_eq!(elected(&world.masters[leader]), Some(1.0));
    agent.shutdown();
    scheduler.shutdown();
}

fn led<M>(leader_epoch: u64, message: M) -> Led<M> {
    Led {
        leader_epoch,
        message,
    }
}
