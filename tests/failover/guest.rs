//! Guests, whose only wish is a write to the registry.

use std::sync::mpsc::Sender;
use std::time::Duration;

use meseta_protocol::agent::AgentInfo;
use meseta_protocol::messages::Led;
use meseta_protocol::messages::agent::{AgentRegistered, RegisterAgent, UnregisterAgent};
use meseta_protocol::messages::election::{Detect, Leader};
use meseta_protocol::resources::Resources;
use meseta_runtime::detector::{self, Detector, Followed, Follower, detect};
use meseta_runtime::{Context, ExitReason, Pid, Process, Receive, Routes};
use meseta_tests::emulated::{Event, Scene};

/// Time between two attempts of a guest: what it sees is late by at most so much.
const KNOCKS: Duration = Duration::from_millis(20);

/// A new agent that registers with the first leader above an epoch, which is a write to the registry, and goes.
pub(crate) struct Guest {
    tell: Sender<Event>,
    above: u64,
    detector: Detector,
    master: Option<Pid>,
}

impl Guest {
    pub(crate) fn new(scene: &Scene, above: u64, tell: Sender<Event>) -> Self {
        Self {
            tell,
            above,
            detector: Detector::new(scene.candidates()),
            master: None,
        }
    }

    fn knock(&self, cx: &mut Context<'_, Self>) {
        if let Some(master) = &self.master {
            let mut agent = AgentInfo::new("guest", Resources::new());
            agent.port = cx.address().port;
            let register = RegisterAgent {
                agent,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..RegisterAgent::default()
            };
            cx.send(master, register);
        }
    }

    fn knock_again(&mut self, cx: &mut Context<'_, Self>) {
        self.knock(cx);
        cx.after(KNOCKS, Self::knock_again);
    }
}

impl Process for Guest {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Leader>().on::<Led<AgentRegistered>>();
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        detect(self, cx, detector::Input::Begin);
        self.knock_again(cx);
    }

    fn exited(&mut self, cx: &mut Context<'_, Self>, pid: &Pid, _: ExitReason) {
        detect(self, cx, detector::Input::Lost(pid.clone()));
    }
}

impl Follower for Guest {
    fn detector(&mut self) -> &mut Detector {
        &mut self.detector
    }

    fn ask(&mut self, cx: &mut Context<'_, Self>, candidate: &Pid, _: u32) {
        cx.send(candidate, Detect {});
    }

    fn follow(&mut self, cx: &mut Context<'_, Self>, followed: Followed) {
        self.master = followed.leader.filter(|_| followed.epoch > self.above);
        if let Some(leader) = self.master.clone() {
            // Whoever listened may have ended.
            let _gone = self.tell.send(Event::Announced {
                at: cx.now(),
                epoch: followed.epoch,
                leader,
            });
        }
        self.knock(cx);
    }
}

impl Receive<Leader> for Guest {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, word: Leader) {
        let told = detector::Input::told(from, word.epoch, word.leader);
        detect(self, cx, told);
    }
}

impl Receive<Led<AgentRegistered>> for Guest {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, led: Led<AgentRegistered>) {
        let (at, epoch) = (cx.now(), led.leader_epoch);
        // Whoever listened may have ended.
        let _gone = self.tell.send(Event::Written { at, epoch });
        let agent_id = led.message.agent_id;
        cx.send(from, UnregisterAgent { agent_id });
        cx.stop();
    }
}
