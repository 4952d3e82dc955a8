//! Emulated agents: processes `slave(N)` that register, follow the leader, answer pings and register again with their
//! tasks, with the shipped agent's own state machine for all of that. They run nothing, so many of them fit on one node.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use meseta_agent::registration::{Effect, Input, Registration};
use meseta_protocol::agent::{AgentCapability, AgentInfo};
use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::messages::agent::{
    AgentRegistered, AgentReregistered, KillAgentTask, Ping, Pong, RegisterAgent, ReregisterAgent,
    ShutdownAgent, ShutdownFramework,
};
use meseta_protocol::messages::election::{Detect, ELECTION, Leader};
use meseta_protocol::messages::{Led, MasterMessage};
use meseta_protocol::resources::{ParseError, Resources};
use meseta_protocol::status::{StatusSource, TaskState, TaskStatus};
use meseta_protocol::task::{Task, TaskInfo};
use meseta_protocol::{AgentId, FrameworkId, Role};
use meseta_runtime::detector::{self, Candidates, Detector, Followed, Follower, detect};
use meseta_runtime::{Context, ExitReason, Message, Pid, Process, Receive, Routes, Time};

/// What emulated agents tell.
#[derive(Debug, Clone)]
pub enum Event {
    /// One of them has heard who leads.
    Announced {
        /// When it heard.
        at: Time,
        /// Number of the leadership.
        epoch: u64,
        /// Who leads.
        leader: Pid,
    },
    /// The leader of this epoch has taken in an agent, for the first time or again.
    TakenIn {
        /// When the agent heard.
        at: Time,
        /// Number of the leadership.
        epoch: u64,
        /// Number of the agent.
        agent: u32,
    },
    /// The leader of this epoch has answered what it had to store in the registry first.
    Written {
        /// When its answer came.
        at: Time,
        /// Number of the leadership.
        epoch: u64,
    },
    /// Something that must not happen.
    Wrong(String),
}

/// What all agents have in common.
#[derive(Debug)]
pub struct Scene {
    candidates: Candidates,
    framework: FrameworkInfo,
    framework_id: FrameworkId,
    of_agent: Resources,
    of_task: Resources,
    tasks: u32,
}

impl Scene {
    /// Agents with so many tasks each, all of one framework.
    ///
    /// # Errors
    /// A resource cannot be read, which would be a mistake here.
    pub fn new(candidates: Candidates, tasks: u32) -> Result<Self, ParseError> {
        let framework_id = FrameworkId::new("failover-framework");
        let mut framework = FrameworkInfo::new("root", "failover");
        framework.id = Some(framework_id.clone());
        framework.checkpoint = true;
        // Its scheduler never comes.
        framework.failover_timeout = 7.0 * 86_400.0;
        let of_task: Resources = "cpus:0.1;mem:128".parse()?;
        Ok(Self {
            candidates,
            framework,
            framework_id,
            of_agent: "cpus:16;mem:65536;disk:1000000;ports:[31000-32000]".parse()?,
            of_task: of_task.allocated(&Role::star()),
            tasks,
        })
    }

    /// Who may lead.
    pub fn candidates(&self) -> &Candidates {
        &self.candidates
    }

    fn task(&self, agent: u32, agent_id: &AgentId, number: u32) -> Task {
        let id = format!("task-{agent}-{number}");
        let resources = self.of_task.clone();
        let info = TaskInfo::new(id, agent_id.clone(), resources, "sleep 1000");
        let mut task = Task::new(&info, &self.framework_id, "root");
        task.state = TaskState::Running;
        let mut status = TaskStatus::new(info.task_id, TaskState::Running);
        status.source = Some(StatusSource::Executor);
        status.agent_id = Some(agent_id.clone());
        task.statuses.push(status);
        task.status_update_state = Some(TaskState::Running);
        task
    }
}

/// One emulated agent.
pub struct Emulated {
    scene: Arc<Scene>,
    number: u32,
    tell: Sender<Event>,
    info: AgentInfo,
    registration: Registration,
    detector: Detector,
    master: Option<Pid>,
    epoch: u64,
    /// Leadership under which it got its id. It has no tasks then.
    first_epoch: u64,
}

impl Emulated {
    /// The agent of this number, which waits up to `backoff` before it turns to a leader.
    pub fn new(scene: &Arc<Scene>, number: u32, backoff: Duration, tell: Sender<Event>) -> Self {
        Self {
            number,
            tell,
            info: AgentInfo::new(format!("agent-{number}"), scene.of_agent.clone()),
            registration: Registration::new(backoff),
            detector: Detector::new(&scene.candidates),
            master: None,
            epoch: 0,
            first_epoch: 0,
            scene: Arc::clone(scene),
        }
    }

    fn tell(&self, event: Event) {
        // Whoever listened may have ended.
        let _gone = self.tell.send(event);
    }

    fn wrong(&self, what: &str) {
        let text = format!("agent {}: {what}", self.number);
        self.tell(Event::Wrong(text));
    }

    fn tell_master<M: Message>(&self, cx: &mut Context<'_, Self>, message: M) {
        if let Some(master) = &self.master {
            cx.send(master, message);
        }
    }

    fn input(&mut self, cx: &mut Context<'_, Self>, input: Input) {
        for effect in self.registration.step(input, cx.random()) {
            match effect {
                Effect::Attempt => self.register(cx),
                Effect::ArmRetry { after, number } => {
                    cx.after(after, move |agent, cx| {
                        agent.input(cx, Input::RetryDue(number));
                    });
                }
                Effect::ArmPing { after, number } => {
                    cx.after(after, move |agent, cx| {
                        agent.input(cx, Input::PingOverdue(number));
                    });
                }
                Effect::Adopt(id) => {
                    self.first_epoch = self.epoch;
                    self.info.id = Some(id);
                }
                Effect::Pong => self.tell_master(cx, Pong {}),
                Effect::Pause | Effect::Resume => {}
                Effect::Fail(reason) => self.wrong(&reason),
            }
        }
    }

    fn register(&self, cx: &mut Context<'_, Self>) {
        if let Some(master) = &self.master {
            cx.link(master);
        }
        let agent = self.info.clone();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let capabilities = vec![
            AgentCapability::MultiRole,
            AgentCapability::HierarchicalRole,
            AgentCapability::ReservationRefinement,
        ];
        let Some(id) = agent.id.clone() else {
            let register = RegisterAgent {
                agent,
                version,
                capabilities,
                ..RegisterAgent::default()
            };
            return self.tell_master(cx, register);
        };
        // The leader that gave it its id has launched nothing on it.
        let tasks = if self.epoch == self.first_epoch {
            0
        } else {
            self.scene.tasks
        };
        let tasks: Vec<Task> = (1..=tasks)
            .map(|number| self.scene.task(self.number, &id, number))
            .collect();
        let frameworks = if tasks.is_empty() {
            Vec::new()
        } else {
            vec![self.scene.framework.clone()]
        };
        let reregister = ReregisterAgent {
            agent,
            version,
            capabilities,
            tasks,
            frameworks,
            ..ReregisterAgent::default()
        };
        self.tell_master(cx, reregister);
    }

    fn taken_in(&mut self, cx: &mut Context<'_, Self>, id: AgentId, timeout: Option<Duration>) {
        let accepted = Input::Accepted {
            id,
            ping_timeout: timeout,
        };
        self.input(cx, accepted);
        self.tell(Event::TakenIn {
            at: cx.now(),
            epoch: self.epoch,
            agent: self.number,
        });
    }
}

impl Process for Emulated {
    fn routes(routes: &mut Routes<Self>) {
        routes
            .on::<Led<AgentRegistered>>()
            .on::<Led<AgentReregistered>>()
            .on::<Led<Ping>>()
            .on::<Led<KillAgentTask>>()
            .on::<Led<ShutdownFramework>>()
            .on::<Led<ShutdownAgent>>()
            .on::<Leader>();
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        self.info.port = cx.address().port;
        detect(self, cx, detector::Input::Begin);
    }

    fn exited(&mut self, cx: &mut Context<'_, Self>, pid: &Pid, _: ExitReason) {
        if self.master.as_ref() == Some(pid) {
            self.input(cx, Input::MasterLost);
        } else if pid.id() == ELECTION {
            detect(self, cx, detector::Input::Lost(pid.clone()));
        }
    }
}

impl Follower for Emulated {
    fn detector(&mut self) -> &mut Detector {
        &mut self.detector
    }

    fn ask(&mut self, cx: &mut Context<'_, Self>, candidate: &Pid, _: u32) {
        cx.send(candidate, Detect {});
    }

    fn follow(&mut self, cx: &mut Context<'_, Self>, followed: Followed) {
        if let Some(old) = self.master.take() {
            cx.unlink(&old);
        }
        self.epoch = self.epoch.max(followed.epoch);
        self.master = followed.leader;
        let Some(leader) = self.master.clone() else {
            return self.input(cx, Input::NoLeader);
        };
        self.tell(Event::Announced {
            at: cx.now(),
            epoch: followed.epoch,
            leader,
        });
        self.input(cx, Input::NewLeader);
    }
}

impl Receive<Leader> for Emulated {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, word: Leader) {
        let told = detector::Input::told(from, word.epoch, word.leader);
        detect(self, cx, told);
    }
}

/// What an emulated agent does with a message of the master.
trait FromMaster<M: MasterMessage> {
    fn obey(&mut self, cx: &mut Context<'_, Emulated>, message: M);
}

/// As in the shipped agent: what does not come from the newest leader is dropped.
impl<M: MasterMessage> Receive<Led<M>> for Emulated
where
    Emulated: FromMaster<M>,
{
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, led: Led<M>) {
        if self.master.as_ref() == Some(from) && led.leader_epoch >= self.epoch {
            self.epoch = led.leader_epoch;
            self.obey(cx, led.message);
        }
    }
}

impl FromMaster<AgentRegistered> for Emulated {
    fn obey(&mut self, cx: &mut Context<'_, Emulated>, message: AgentRegistered) {
        self.taken_in(cx, message.agent_id, message.total_ping_timeout.to_std());
    }
}

impl FromMaster<AgentReregistered> for Emulated {
    fn obey(&mut self, cx: &mut Context<'_, Emulated>, message: AgentReregistered) {
        self.taken_in(cx, message.agent_id, message.total_ping_timeout.to_std());
    }
}

impl FromMaster<Ping> for Emulated {
    fn obey(&mut self, cx: &mut Context<'_, Emulated>, ping: Ping) {
        let connected = ping.connected;
        self.input(cx, Input::Ping { connected });
    }
}

impl FromMaster<KillAgentTask> for Emulated {
    fn obey(&mut self, _: &mut Context<'_, Emulated>, kill: KillAgentTask) {
        self.wrong(&format!("it is to kill {}", kill.task_id));
    }
}

impl FromMaster<ShutdownFramework> for Emulated {
    fn obey(&mut self, _: &mut Context<'_, Emulated>, shutdown: ShutdownFramework) {
        // One that comes and goes while there are no tasks is nothing to it.
        if self.scene.tasks > 0 {
            self.wrong(&format!("it is to end {}", shutdown.framework_id));
        }
    }
}

impl FromMaster<ShutdownAgent> for Emulated {
    fn obey(&mut self, _: &mut Context<'_, Emulated>, shutdown: ShutdownAgent) {
        self.wrong(&format!("it is to end: {}", shutdown.message));
    }
}
