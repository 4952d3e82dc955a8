//! The scheduler driver under a scripted master: over the in-memory network with a paused clock, and once over QUIC.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use meseta_protocol::FrameworkId;
use meseta_protocol::agent::MasterInfo;
use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::messages::Led;
use meseta_protocol::messages::scheduler::{
    AcceptOffers, AcknowledgeStatus, DeactivateFramework, DeclineOffers, ExecutorMessage,
    FrameworkError, FrameworkSubscribed, ResourceOffers, StatusUpdated, SubscribeFramework,
    SuppressOffers, TeardownFramework,
};
use meseta_protocol::offer::{Filters, Offer};
use meseta_protocol::status::{StatusUpdate, TaskState, TaskStatus};
use meseta_protocol::task::TaskInfo;
use meseta_protocol::{AgentId, ExecutorId, OfferId, UpdateId};
use meseta_runtime::identity::{CertificateAuthority, Identity};
use meseta_runtime::transport::memory::MemoryNetwork;
use meseta_runtime::{Clock, Context, Credentials, Message, Node, Pid, Process, Receive, Routes};
use meseta_scheduler_driver::{Config, Handle, Options, Outcome, Scheduler, SchedulerDriver};
use serde::{Deserialize, Serialize};

const LONG: Duration = Duration::from_secs(60);

/// What the test wants said to the driver that subscribed last.
#[derive(Debug, Serialize, Deserialize)]
enum Say {
    Subscribed(u64),
    Offer(u64, OfferId),
    Update(u64, UpdateId),
    Error(u64, String),
    Message(u64),
}
impl Message for Say {
    const NAME: &'static str = "test.Say";
}

/// What the master hears.
#[derive(Debug, PartialEq)]
enum Heard {
    Subscribe(Option<FrameworkId>, bool),
    Accept(Vec<OfferId>),
    Decline(Vec<OfferId>),
    Acknowledge(UpdateId),
    Suppress,
    Deactivate,
    Teardown,
}

struct Master {
    driver: Option<Pid>,
    heard: Sender<Heard>,
}

impl Master {
    fn start(node: &Node) -> (Pid, Receiver<Heard>) {
        let (heard, log) = channel();
        let master = || Self {
            driver: None,
            heard,
        };
        (node.spawn("master", master).unwrap(), log)
    }
}

impl Process for Master {
    fn routes(routes: &mut Routes<Self>) {
        routes
            .on::<Say>()
            .on::<SubscribeFramework>()
            .on::<AcceptOffers>()
            .on::<DeclineOffers>()
            .on::<AcknowledgeStatus>()
            .on::<SuppressOffers>()
            .on::<DeactivateFramework>()
            .on::<TeardownFramework>();
    }
}

impl Receive<Say> for Master {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, say: Say) {
        let to = self.driver.clone().unwrap();
        match say {
            Say::Subscribed(leader_epoch) => {
                let message = FrameworkSubscribed {
                    framework_id: "f".into(),
                    ..FrameworkSubscribed::default()
                };
                cx.send(
                    &to,
                    Led {
                        leader_epoch,
                        message,
                    },
                );
            }
            Say::Offer(leader_epoch, id) => {
                let offer = Offer {
                    id,
                    agent_id: "s".into(),
                    ..Offer::default()
                };
                let message = ResourceOffers {
                    offers: vec![offer],
                };
                cx.send(
                    &to,
                    Led {
                        leader_epoch,
                        message,
                    },
                );
            }
            Say::Update(leader_epoch, uuid) => {
                let update = StatusUpdate {
                    agent_id: Some("s".into()),
                    status: TaskStatus::new("t", TaskState::Running),
                    uuid: Some(uuid),
                    ..StatusUpdate::default()
                };
                let message = StatusUpdated { update };
                cx.send(
                    &to,
                    Led {
                        leader_epoch,
                        message,
                    },
                );
            }
            Say::Message(leader_epoch) => {
                let message = ExecutorMessage::default();
                cx.send(
                    &to,
                    Led {
                        leader_epoch,
                        message,
                    },
                );
            }
            Say::Error(leader_epoch, message) => {
                let message = FrameworkError { message };
                cx.send(
                    &to,
                    Led {
                        leader_epoch,
                        message,
                    },
                );
            }
        }
    }
}

macro_rules! hears {
    ($( $message:ident => |$content:ident| $heard:expr; )*) => { $(
        impl Receive<$message> for Master {
            fn receive(&mut self, _: &mut Context<'_, Self>, from: &Pid, $content: $message) {
                self.driver = Some(from.clone());
                // A test that has seen enough listens no more.
                let _enough = self.heard.send($heard);
            }
        }
    )* };
}

hears! {
    SubscribeFramework => |m| Heard::Subscribe(m.framework.id, m.force);
    AcceptOffers => |m| Heard::Accept(m.offer_ids);
    DeclineOffers => |m| Heard::Decline(m.offer_ids);
    AcknowledgeStatus => |m| Heard::Acknowledge(m.uuid);
    SuppressOffers => |_m| Heard::Suppress;
    DeactivateFramework => |_m| Heard::Deactivate;
    TeardownFramework => |_m| Heard::Teardown;
}

/// Launches on the first offer, declines the others, and notes each callback.
struct Noting {
    notes: Sender<String>,
    offers: u32,
}

impl Noting {
    fn note(&self, text: impl Into<String>) {
        let _enough = self.notes.send(text.into());
    }
}

impl Scheduler for Noting {
    fn registered(&mut self, driver: &mut Handle<'_>, id: &FrameworkId, _: &MasterInfo) {
        assert_eq!(driver.framework_id(), Some(id));
        self.note(format!("registered {id}"));
    }
    fn reregistered(&mut self, _: &mut Handle<'_>, _: &MasterInfo) {
        self.note("reregistered");
    }
    fn framework_message(
        &mut self,
        driver: &mut Handle<'_>,
        _: &AgentId,
        _: &ExecutorId,
        _: &[u8],
    ) {
        ask_again(driver, 3);
    }
    fn disconnected(&mut self, driver: &mut Handle<'_>) {
        self.note("disconnected");
        let filters = Filters::default();
        let task = TaskInfo {
            task_id: "late".into(),
            ..TaskInfo::default()
        };
        driver.launch_tasks(vec!["o".into()], vec![task], filters);
    }
    fn resource_offers(&mut self, driver: &mut Handle<'_>, offers: Vec<Offer>) {
        for offer in offers {
            self.note(format!("offer {}", offer.id));
            self.offers += 1;
            if self.offers == 1 {
                driver.launch_tasks(
                    vec![offer.id],
                    vec![TaskInfo::default()],
                    Filters::default(),
                );
            } else {
                driver.decline_offer(offer.id, Filters::default());
            }
        }
    }
    fn status_update(&mut self, driver: &mut Handle<'_>, status: &TaskStatus) {
        self.note(format!("{} {}", status.task_id, status.state));
        driver.suppress_offers(Vec::new());
    }
    fn error(&mut self, _: &mut Handle<'_>, message: &str) {
        self.note(format!("error {message}"));
    }
}

/// Suppresses each second, so many times.
fn ask_again(driver: &mut Handle<'_>, times: u32) {
    driver.after(
        Duration::from_secs(1),
        move |noting: &mut Noting, driver| {
            noting.note(format!("again {times}"));
            driver.suppress_offers(Vec::new());
            if times > 1 {
                ask_again(driver, times - 1);
            }
        },
    );
}

struct World {
    clock: Clock,
    master_node: Node,
    master: Pid,
    heard: Receiver<Heard>,
    node: Node,
    driver: SchedulerDriver,
    notes: Receiver<String>,
}

impl World {
    fn new(framework: FrameworkInfo) -> Self {
        let (clock, network) = (Clock::paused(), MemoryNetwork::new(3));
        let node = |role: &str| {
            let node = Node::builder()
                .memory(&network)
                .clock(clock.clone())
                .seed(5);
            node.role(role).start().unwrap()
        };
        let (master_node, node) = (node("master"), node("scheduler"));
        let (master, heard) = Master::start(&master_node);
        let (noting, notes) = channel();
        let noting = Noting {
            notes: noting,
            offers: 0,
        };
        let options = Options::default();
        let driver = SchedulerDriver::start_on(&node, master.clone(), framework, options, noting);
        clock.settle();
        Self {
            clock,
            master_node,
            master,
            heard,
            node,
            driver: driver.unwrap(),
            notes,
        }
    }
    fn say(&self, say: Say) {
        self.master_node.send(&self.master, say);
        self.clock.settle();
    }
    fn notes(&self) -> Vec<String> {
        self.notes.try_iter().collect()
    }
    fn heard(&self) -> Vec<Heard> {
        self.heard.try_iter().collect()
    }
    /// Ends the driver, which must have been told to.
    fn end(self) -> Outcome {
        self.clock.settle();
        let outcome = self.driver.join();
        self.node.shutdown();
        self.master_node.shutdown();
        outcome
    }
}

fn framework() -> FrameworkInfo {
    FrameworkInfo::new("u", "n")
}

const UUID: UpdateId = UpdateId::from_bytes([7; 16]);

#[test]
fn a_framework_subscribes_uses_offers_acknowledges_and_is_torn_down() {
    let world = World::new(framework());
    assert_eq!(world.heard(), [Heard::Subscribe(None, false)]);
    world.say(Say::Subscribed(1));
    world.say(Say::Offer(1, "one".into()));
    world.say(Say::Offer(1, "two".into()));
    world.say(Say::Update(1, UUID));
    assert_eq!(
        world.notes(),
        ["registered f", "offer one", "offer two", "t TASK_RUNNING"]
    );
    assert_eq!(
        world.heard(),
        [
            Heard::Accept(vec!["one".into()]),
            Heard::Decline(vec!["two".into()]),
            // What the callback asks for comes before the acknowledgement that its return means.
            Heard::Suppress,
            Heard::Acknowledge(UUID),
        ]
    );
    world.driver.stop(false);
    world.clock.settle();
    assert_eq!(world.heard(), [Heard::Teardown]);
    assert_eq!(world.end(), Outcome::Stopped);
}

#[test]
fn a_scheduler_asks_again_after_a_while_without_waiting_for_offers() {
    let world = World::new(framework());
    world.say(Say::Subscribed(1));
    world.say(Say::Message(1));
    world.notes();
    world.heard();
    world.clock.advance(Duration::from_millis(999));
    assert!(world.notes().is_empty());
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(world.notes(), ["again 3"]);
    assert_eq!(world.heard(), [Heard::Suppress]);
    world.clock.advance(Duration::from_secs(10));
    assert_eq!(world.notes(), ["again 2", "again 1"]);
    world.driver.stop(true);
    assert_eq!(world.end(), Outcome::Stopped);
}

#[test]
fn when_the_master_is_lost_the_driver_comes_back_with_its_id() {
    let mut world = World::new(framework());
    world.say(Say::Subscribed(1));
    world.master_node.terminate(&world.master);
    world.clock.settle();
    assert_eq!(
        world.notes(),
        ["registered f", "disconnected", "late TASK_DROPPED"],
        "a task launched without a master is reported at once"
    );
    world.clock.advance(Duration::from_secs(5));
    (world.master, world.heard) = Master::start(&world.master_node);
    world.clock.advance(Duration::from_secs(15));
    let heard = world.heard();
    assert!(!heard.is_empty());
    assert!(
        heard
            .iter()
            .all(|heard| *heard == Heard::Subscribe(Some("f".into()), false)),
        "{heard:?}"
    );
    world.say(Say::Subscribed(2));
    assert_eq!(world.notes(), ["reregistered"]);
    world.driver.stop(true);
    world.clock.settle();
    assert_eq!(world.heard(), []);
    assert_eq!(world.end(), Outcome::Stopped);
}

#[test]
fn a_master_that_no_longer_leads_is_not_heard() {
    let world = World::new(framework());
    world.say(Say::Subscribed(2));
    world.say(Say::Offer(1, "old".into()));
    world.say(Say::Error(1, "old".into()));
    world.say(Say::Offer(3, "new".into()));
    world.say(Say::Offer(2, "old".into()));
    assert_eq!(world.notes(), ["registered f", "offer new"]);
    world.heard();
    world.driver.abort();
    world.clock.settle();
    assert_eq!(world.heard(), [Heard::Deactivate]);
    assert_eq!(world.end(), Outcome::Aborted(None));
}

#[test]
fn a_framework_with_an_id_takes_over_and_an_error_ends_it() {
    let mut framework = framework();
    framework.id = Some("f".into());
    let world = World::new(framework);
    assert_eq!(world.heard(), [Heard::Subscribe(Some("f".into()), true)]);
    world.say(Say::Error(1, "Framework has been removed".into()));
    assert_eq!(world.notes(), ["error Framework has been removed"]);
    let outcome = Outcome::Aborted(Some("Framework has been removed".into()));
    assert_eq!(world.end(), outcome);
}

#[test]
fn a_driver_with_its_own_node_speaks_quic_and_says_its_last_words() {
    let authority = CertificateAuthority::create("test").unwrap();
    let credentials = |role: &str| {
        let hosts = ["127.0.0.1".to_owned()];
        Credentials::Given(Box::new(
            Identity::issue(&authority, &hosts, &[role]).unwrap(),
        ))
    };
    let master_node = Node::builder()
        .role("master")
        .credentials(credentials("master"));
    let master_node = master_node.start().unwrap();
    let (master, heard) = Master::start(&master_node);
    let mut config = Config::new(master.to_string(), framework());
    config.credentials = credentials("scheduler");
    let (noting, notes) = channel();
    let noting = Noting {
        notes: noting,
        offers: 0,
    };
    let driver = SchedulerDriver::start(config, noting).unwrap();
    assert_eq!(heard.recv_timeout(LONG), Ok(Heard::Subscribe(None, false)));
    master_node.send(&master, Say::Subscribed(1));
    assert_eq!(notes.recv_timeout(LONG).as_deref(), Ok("registered f"));
    let remote = driver.remote();
    let thread = std::thread::spawn(move || remote.teardown());
    thread.join().unwrap();
    assert_eq!(driver.join(), Outcome::Stopped);
    let last = heard
        .iter()
        .find(|heard| !matches!(heard, Heard::Subscribe(..)));
    assert_eq!(last, Some(Heard::Teardown));
    master_node.shutdown();
}

#[test]
fn a_master_that_is_no_address_is_refused_with_advice() {
    let (noting, _notes) = channel();
    let noting = Noting {
        notes: noting,
        offers: 0,
    };
    let error = SchedulerDriver::start(Config::new("somewhere", framework()), noting).unwrap_err();
    assert!(error.to_string().contains("host:port"), "{error}");
}
