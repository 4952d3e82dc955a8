//! A scripted agent: does what a test tells it, and tells the test what it hears.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::messages::executor::{
    ExecutorRefused, ExecutorSubscribed, KillExecutorTask, LaunchTask, SendToFramework,
    ShutdownExecutorNow, SubscribeExecutor, UpdateAcknowledged, UpdateTask,
};
use meseta_protocol::task::{KillPolicy, TaskInfo};
use meseta_protocol::{TaskId, UpdateId};
use meseta_runtime::transport::Guest;
use meseta_runtime::{Context, ExitReason, Message, Node, Pid, Process, Receive, Routes};
use serde::{Deserialize, Serialize};

/// How long a test waits for what must come.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// What the test wants said to the executor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Say {
    Subscribed,
    Launch(Box<TaskInfo>),
    Kill(TaskId, Option<KillPolicy>),
    Acknowledge(TaskId, UpdateId),
    Shutdown,
    Refuse(String),
}
impl Message for Say {
    const NAME: &'static str = "test.Say";
}

/// What the agent hears.
#[derive(Debug)]
pub(crate) enum Heard {
    Subscribe(SubscribeExecutor),
    Update(Box<UpdateTask>),
    Message(SendToFramework),
    Gone,
}

pub(crate) struct Agent {
    guest: Guest,
    executor: Pid,
    heard: Sender<Heard>,
}

impl Agent {
    /// Starts `slave(1)` on `node`, which lets the guest in.
    pub(crate) fn start(node: &Node, guest: Guest) -> (Pid, Receiver<Heard>) {
        let executor = node.pid(&guest.id).unwrap();
        let (heard, log) = channel();
        let pid = node.spawn("slave(1)", move || Self {
            guest,
            executor,
            heard,
        });
        (pid.unwrap(), log)
    }

    fn tell(&self, heard: Heard) {
        // A test that has seen enough listens no more.
        let _enough = self.heard.send(heard);
    }
}

impl Process for Agent {
    fn routes(routes: &mut Routes<Self>) {
        routes
            .on::<Say>()
            .on::<SubscribeExecutor>()
            .on::<UpdateTask>()
            .on::<SendToFramework>();
    }
    fn start(&mut self, cx: &mut Context<'_, Self>) {
        cx.pin_guest(self.guest.clone());
    }
    fn exited(&mut self, _: &mut Context<'_, Self>, _: &Pid, _: ExitReason) {
        self.tell(Heard::Gone);
    }
}

impl Receive<Say> for Agent {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, say: Say) {
        let to = self.executor.clone();
        match say {
            Say::Subscribed => cx.send(
                &to,
                ExecutorSubscribed {
                    framework_info: FrameworkInfo::new("", "n"),
                    agent_id: "s".into(),
                    ..ExecutorSubscribed::default()
                },
            ),
            Say::Launch(task) => cx.send(&to, LaunchTask { task: *task }),
            Say::Kill(task_id, kill_policy) => cx.send(
                &to,
                KillExecutorTask {
                    task_id,
                    kill_policy,
                },
            ),
            Say::Acknowledge(task_id, uuid) => cx.send(&to, UpdateAcknowledged { task_id, uuid }),
            Say::Shutdown => cx.send(&to, ShutdownExecutorNow {}),
            Say::Refuse(message) => cx.send(&to, ExecutorRefused { message }),
        }
    }
}
impl Receive<SubscribeExecutor> for Agent {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, message: SubscribeExecutor) {
        assert_eq!(*from, self.executor);
        cx.link(from);
        self.tell(Heard::Subscribe(message));
    }
}
impl Receive<UpdateTask> for Agent {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, message: UpdateTask) {
        self.tell(Heard::Update(Box::new(message)));
    }
}
impl Receive<SendToFramework> for Agent {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, message: SendToFramework) {
        self.tell(Heard::Message(message));
    }
}
