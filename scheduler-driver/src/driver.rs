//! The scheduler driver: the process that speaks for a framework with the master, and the node it lives on.
//!
//! It owns the [`Scheduler`] and a [`Core`], links to the followed master and talks to nobody else. Whatever a
//! callback asks for is carried out when it has returned, before anything else; other threads of the program send
//! `Order`s through a [`Remote`].

use std::any::Any;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc;

use meseta_protocol::Role;
use meseta_protocol::framework::{FrameworkInfo, OfferConstraints};
use meseta_protocol::messages::election::{Detect, ELECTION, Leader};
use meseta_protocol::messages::scheduler::{
    AgentLost, ExecutorLost, ExecutorMessage, FrameworkError, FrameworkSubscribed, OfferRescinded,
    ResourceOffers, StatusUpdated,
};
use meseta_protocol::messages::{Led, MasterMessage};
use meseta_runtime::detector::{
    self, Candidates, CandidatesError, Detector, Followed, Follower, detect,
};
use meseta_runtime::flags::candidates;
use meseta_runtime::{
    Address, Context, Credentials, ExitReason, Node, NodeError, Pid, Process, Receive, Routes,
    SpawnError,
};
use tracing::{debug, error, info, warn};

use crate::core::{Callback, Core, Effect, Input, News, Settings};
use crate::scheduler::{Handle, Order, Remote, Scheduler, Wish};

/// What a driver is told beside the master and the framework.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// Roles that want no offers at first.
    pub suppressed_roles: Vec<Role>,
    /// Which agents are wanted.
    pub offer_constraints: Option<OfferConstraints>,
    /// Whether the scheduler calls `acknowledge` itself; otherwise an update is acknowledged when its callback
    /// returns.
    pub explicit_acknowledgements: bool,
}

/// Settings of a driver with a node of its own.
#[derive(Debug, Clone)]
pub struct Config {
    /// The masters: `host:port`, or `host:port,host:port,host:port`, or the path of a file with such a list; one that is
    /// up is enough to find the leader. Or the PID of the one master there is, which is not asked whether it leads.
    pub master: String,
    /// The framework. With an id the framework of an earlier driver is taken over. An empty user becomes the user
    /// of this program, a missing host name this machine's.
    pub framework: FrameworkInfo,
    /// Host by which the master knows this program; one that its certificate names. Default `127.0.0.1`.
    pub host: String,
    /// IP address the socket is bound to. Default: loopback when `host` is, else any.
    pub bind: Option<IpAddr>,
    /// Certificates. Default: from the development authority of this user, which serves loopback only.
    pub credentials: Credentials,
    /// The rest.
    pub options: Options,
}

impl Config {
    /// Settings for a framework under this master, on loopback.
    pub fn new(master: impl Into<String>, framework: FrameworkInfo) -> Self {
        Self {
            master: master.into(),
            framework,
            host: Ipv4Addr::LOCALHOST.to_string(),
            bind: None,
            credentials: Credentials::Development,
            options: Options::default(),
        }
    }

    fn bind_ip(&self) -> IpAddr {
        self.bind
            .unwrap_or_else(|| Address::new(&self.host, 0).dialling_ip())
    }
}

/// Why a driver did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The masters are not named by addresses.
    #[error(transparent)]
    Master(#[from] CandidatesError),
    /// The node did not start.
    #[error("node of the scheduler driver")]
    Node(#[from] NodeError),
    /// The process did not start.
    #[error("scheduler driver")]
    Spawn(#[from] SpawnError),
}

/// How a driver ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was stopped.
    Stopped,
    /// It was aborted; with the reason when the master or a failure gave one.
    Aborted(Option<String>),
}

/// A running driver. Dropping it ends a driver that owns its node as [`SchedulerDriver::stop`] with fail-over does.
#[derive(Debug)]
pub struct SchedulerDriver {
    node: Node,
    remote: Remote,
    outcome: mpsc::Receiver<Outcome>,
    owned: bool,
}

impl SchedulerDriver {
    /// Starts a driver on a node of its own, which uses an ephemeral port and is not dialled by anybody.
    ///
    /// # Errors
    /// [`StartError`]: the master's address cannot be read, or the node or its certificates cannot be used.
    pub fn start(config: Config, scheduler: impl Scheduler) -> Result<Self, StartError> {
        let masters = candidates(&config.master, ELECTION)?;
        let node = Node::builder()
            .host(&config.host)
            .bind(config.bind_ip())
            .credentials(config.credentials)
            .accepts(false)
            .http(false)
            .role("scheduler")
            .start()?;
        #[expect(
            clippy::disallowed_methods,
            reason = "drawn before there is a node, and unlike that of every other program"
        )]
        let id = format!("scheduler-{}", uuid::Uuid::new_v4());
        let framework = completed(config.framework);
        let start = |build| node.spawn(&id, build);
        match spawn(
            &node,
            start,
            masters,
            framework,
            config.options,
            Box::new(scheduler),
        ) {
            Ok(mut driver) => {
                driver.owned = true;
                Ok(driver)
            }
            Err(error) => {
                node.shutdown();
                Err(error.into())
            }
        }
    }

    /// Starts a driver on a node with the role `scheduler`, under the next name `scheduler(n)`; for tests and
    /// clusters within one program. The framework is used as it is.
    ///
    /// # Errors
    /// [`StartError::Spawn`] when the node has been shut down.
    pub fn start_on(
        node: &Node,
        masters: impl Into<Candidates>,
        framework: FrameworkInfo,
        options: Options,
        scheduler: impl Scheduler,
    ) -> Result<Self, StartError> {
        let start = |build| node.spawn_numbered("scheduler", build);
        Ok(spawn(
            node,
            start,
            masters.into(),
            framework,
            options,
            Box::new(scheduler),
        )?)
    }

    /// Runs a driver on a node of its own until it ends.
    ///
    /// # Errors
    /// As [`SchedulerDriver::start`].
    pub fn run(config: Config, scheduler: impl Scheduler) -> Result<Outcome, StartError> {
        Ok(Self::start(config, scheduler)?.join())
    }

    /// Waits until the driver has ended and what it sent last is on its way. Must not be called on the node's own
    /// thread, which is where callbacks run.
    pub fn join(self) -> Outcome {
        let reason = futures::executor::block_on(self.node.ended(&self.remote.driver));
        self.outcome
            .try_recv()
            .unwrap_or(Outcome::Aborted(match reason {
                ExitReason::Panic(text) => Some(format!("the scheduler panicked: {text}")),
                ExitReason::Failed(text) => Some(text),
                ExitReason::Normal
                | ExitReason::Terminated
                | ExitReason::NoProcess
                | ExitReason::ConnectionLost
                | ExitReason::NodeRestarted
                | ExitReason::Unknown => Some("the node was shut down".to_owned()),
            }))
    }

    /// As [`Remote::stop`].
    pub fn stop(&self, failover: bool) {
        self.remote.stop(failover);
    }

    /// As [`Remote::abort`].
    pub fn abort(&self) {
        self.remote.abort();
    }

    /// A handle for other threads.
    pub fn remote(&self) -> Remote {
        self.remote.clone()
    }

    /// PID of the driver.
    pub fn pid(&self) -> &Pid {
        &self.remote.driver
    }
}

impl Drop for SchedulerDriver {
    fn drop(&mut self) {
        if self.owned {
            self.node.shutdown();
        }
    }
}

fn completed(mut framework: FrameworkInfo) -> FrameworkInfo {
    if framework.user.is_empty()
        && let Ok(Some(user)) = nix::unistd::User::from_uid(nix::unistd::getuid())
    {
        framework.user = user.name;
    }
    if framework.hostname.is_none() {
        let name = nix::unistd::gethostname().ok();
        framework.hostname = name.and_then(|name| name.into_string().ok());
    }
    framework
}

type Build = Box<dyn FnOnce() -> Driver + Send>;

fn spawn(
    node: &Node,
    start: impl FnOnce(Build) -> Result<Pid, SpawnError>,
    masters: Candidates,
    framework: FrameworkInfo,
    options: Options,
    scheduler: Box<dyn Scheduler>,
) -> Result<SchedulerDriver, SpawnError> {
    let (ended, outcome) = mpsc::channel();
    let driver = Driver::new(masters, framework, options, scheduler, ended);
    let driver = start(Box::new(move || driver))?;
    Ok(SchedulerDriver {
        node: node.clone(),
        remote: Remote {
            outside: node.outside(),
            driver,
        },
        outcome,
        owned: false,
    })
}

/// The process of a driver, for a host that is no [`Node`], such as a simulated one. [`SchedulerDriver`] puts it on a
/// node.
pub struct Driver {
    core: Core,
    /// Finds out which master leads.
    detector: Detector,
    scheduler: Box<dyn Scheduler>,
    ended: mpsc::Sender<Outcome>,
}

impl Driver {
    /// The driver of a framework under the one of these masters that leads. The framework is used as it is; `ended` is told how the driver
    /// has ended.
    pub fn new(
        masters: impl Into<Candidates>,
        framework: FrameworkInfo,
        options: Options,
        scheduler: Box<dyn Scheduler>,
        ended: mpsc::Sender<Outcome>,
    ) -> Self {
        Self {
            core: Core::new(Settings {
                framework,
                suppressed_roles: options.suppressed_roles,
                offer_constraints: options.offer_constraints,
                explicit_acknowledgements: options.explicit_acknowledgements,
            }),
            detector: Detector::new(&masters.into()),
            scheduler,
            ended,
        }
    }

    /// The conversation with the master, to look at.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The scheduler, if it is an `S`.
    pub fn scheduler<S: Scheduler>(&self) -> Option<&S> {
        let scheduler: &dyn Any = self.scheduler.as_ref();
        scheduler.downcast_ref()
    }
}

impl Process for Driver {
    fn routes(routes: &mut Routes<Self>) {
        routes
            .on::<Led<FrameworkSubscribed>>()
            .on::<Led<ResourceOffers>>()
            .on::<Led<OfferRescinded>>()
            .on::<Led<StatusUpdated>>()
            .on::<Led<ExecutorMessage>>()
            .on::<Led<AgentLost>>()
            .on::<Led<ExecutorLost>>()
            .on::<Led<FrameworkError>>()
            .on::<Leader>()
            .on::<Order>();
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        detect(self, cx, detector::Input::Begin);
    }

    fn exited(&mut self, cx: &mut Context<'_, Self>, pid: &Pid, reason: ExitReason) {
        if self.core.master() == Some(pid) {
            info!(master = %pid, ?reason, "master lost");
        }
        self.apply(cx, Input::Lost(pid.clone()));
        detect(self, cx, detector::Input::Lost(pid.clone()));
    }
}

impl Receive<Leader> for Driver {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, word: Leader) {
        let told = detector::Input::told(from, word.epoch, word.leader);
        detect(self, cx, told);
    }
}

impl Follower for Driver {
    fn detector(&mut self) -> &mut Detector {
        &mut self.detector
    }

    fn ask(&mut self, cx: &mut Context<'_, Self>, candidate: &Pid, attempts: u32) {
        if attempts > 1 && self.core.master().is_none() {
            warn!(%candidate, attempts, "no master answers: is one running there? Trying on");
        }
        cx.send(candidate, Detect {});
    }

    fn follow(&mut self, cx: &mut Context<'_, Self>, followed: Followed) {
        self.apply(cx, Input::Detected(followed));
    }
}

/// Whatever a master says is heard here, so the number of its leadership is checked in one place: the core's.
impl<M: MasterMessage + Into<News>> Receive<Led<M>> for Driver {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, led: Led<M>) {
        let input = Input::Heard {
            from: from.clone(),
            epoch: led.leader_epoch,
            news: led.message.into(),
        };
        self.apply(cx, input);
    }
}

impl Receive<Order> for Driver {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _from: &Pid, order: Order) {
        let wall = cx.wall();
        self.apply(cx, Input::Asked(order.request, wall));
    }
}

impl Driver {
    fn apply(&mut self, cx: &mut Context<'_, Self>, input: Input) {
        let effects = self.core.step(cx.random(), input);
        self.perform(cx, effects.into());
    }

    /// Continues the scheduler after a delay.
    pub(crate) fn resume<S: Scheduler>(
        &mut self,
        cx: &mut Context<'_, Self>,
        k: impl FnOnce(&mut S, &mut Handle<'_>),
    ) {
        let mut wishes = Vec::new();
        let remote = remote(cx);
        let handle = &mut Handle {
            wishes: &mut wishes,
            remote: &remote,
            framework_id: self.core.framework_id(),
            now: cx.now(),
        };
        let scheduler: &mut dyn Any = self.scheduler.as_mut();
        match scheduler.downcast_mut::<S>() {
            Some(scheduler) => k(scheduler, handle),
            None => error!(
                named = std::any::type_name::<S>(),
                "the scheduler is of another type than its continuation names"
            ),
        }
        let effects = self.granted(cx, wishes);
        self.perform(cx, effects.into());
    }

    fn granted(&mut self, cx: &mut Context<'_, Self>, wishes: Vec<Wish>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for wish in wishes {
            match wish {
                Wish::Act(act) => act(cx),
                Wish::Request(request) => {
                    let input = Input::Asked(request, cx.wall());
                    effects.extend(self.core.step(cx.random(), input));
                }
            }
        }
        effects
    }

    fn perform(&mut self, cx: &mut Context<'_, Self>, mut effects: VecDeque<Effect>) {
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Link(master) => cx.link(&master),
                Effect::Unlink(master) => cx.unlink(&master),
                Effect::Send(message) => {
                    if let Some(master) = self.core.master() {
                        message.send(cx, master);
                    }
                }
                Effect::Arm(number, delay) => {
                    cx.after(delay, move |driver, cx| {
                        driver.apply(cx, Input::RetryDue(number));
                    });
                }
                Effect::Call(callback) => {
                    let wishes = self.call(cx, callback);
                    let asked = self.granted(cx, wishes);
                    let ends = asked
                        .iter()
                        .any(|effect| matches!(effect, Effect::Stop | Effect::Abort(_)));
                    if ends {
                        // What the machine wanted after the callback is of no use to a driver that has ended.
                        effects.clear();
                    }
                    for effect in asked.into_iter().rev() {
                        effects.push_front(effect);
                    }
                }
                Effect::Stop => self.end(cx, Outcome::Stopped),
                Effect::Abort(reason) => self.end(cx, Outcome::Aborted(reason)),
            }
        }
    }

    fn end(&self, cx: &mut Context<'_, Self>, outcome: Outcome) {
        if self.ended.send(outcome).is_err() {
            debug!("nobody waits for the driver");
        }
        cx.stop();
    }

    fn call(&mut self, cx: &Context<'_, Self>, callback: Callback) -> Vec<Wish> {
        let mut wishes = Vec::new();
        let remote = remote(cx);
        let driver = &mut Handle {
            wishes: &mut wishes,
            remote: &remote,
            framework_id: self.core.framework_id(),
            now: cx.now(),
        };
        let scheduler = &mut self.scheduler;
        match callback {
            Callback::Registered(id, master) => scheduler.registered(driver, &id, &master),
            Callback::Reregistered(master) => scheduler.reregistered(driver, &master),
            Callback::Disconnected => scheduler.disconnected(driver),
            Callback::Offers(offers) => scheduler.resource_offers(driver, offers),
            Callback::Rescinded(offer) => scheduler.offer_rescinded(driver, &offer),
            Callback::Status(status) => scheduler.status_update(driver, &status),
            Callback::Message(message) => scheduler.framework_message(
                driver,
                &message.agent_id,
                &message.executor_id,
                &message.data,
            ),
            Callback::AgentLost(message) => scheduler.agent_lost(driver, &message.agent_id),
            Callback::ExecutorLost(message) => scheduler.executor_lost(
                driver,
                &message.agent_id,
                &message.executor_id,
                message.status,
            ),
            Callback::Error(message) => scheduler.error(driver, &message),
        }
        wishes
    }
}

fn remote(cx: &Context<'_, Driver>) -> Remote {
    Remote {
        outside: cx.outside(),
        driver: cx.me().clone(),
    }
}
