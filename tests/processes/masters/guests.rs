//! Writes to the registry, one after another: agents without resources that register and go. An id that was given is
//! an acknowledged write, and must never be missing from the registry again.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use meseta_protocol::agent::AgentInfo;
use meseta_protocol::attributes::{Attribute, AttributeValue};
use meseta_protocol::messages::Led;
use meseta_protocol::messages::agent::{AgentRegistered, Ping, RegisterAgent};
use meseta_protocol::messages::election::{Detect, ELECTION, Leader};
use meseta_runtime::detector::{self, Detector, Followed, Follower, detect};
use meseta_runtime::flags::candidates;
use meseta_runtime::{Clock, Context, ExitReason, Node, Pid, Process, Receive, Routes, Time};

use super::trial::Place;

/// Time between two guests: about ten a second.
const BETWEEN: Duration = Duration::from_millis(100);
/// How often one that is not answered knocks again.
const AGAIN: Duration = Duration::from_millis(250);

/// An acknowledged write.
#[derive(Debug, Clone)]
pub(super) struct Admitted {
    pub(super) id: String,
    pub(super) at: Time,
}

/// The guests of a trial.
pub(super) struct Guests {
    admitted: Arc<Mutex<Vec<Admitted>>>,
    bulk: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    inviting: Option<JoinHandle<()>>,
}

impl Guests {
    /// Lets them come, one after another, to the leader of these masters, each with a description of so many bytes.
    pub(super) fn invite(masters: &str, place: Place, bulk: usize, clock: &Clock) -> Self {
        let Place { host, credentials } = place;
        let node = Node::builder()
            .host(&host)
            .bind(host.parse().unwrap())
            .credentials(credentials)
            .role("agent")
            .http(false)
            .start()
            .unwrap();
        let masters = candidates(masters, ELECTION).unwrap();
        let admitted = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let bulk = Arc::new(AtomicUsize::new(bulk));
        let (clock, list, end) = (clock.clone(), Arc::clone(&admitted), Arc::clone(&over));
        let size = Arc::clone(&bulk);
        let inviting = std::thread::spawn(move || {
            let (tell, told) = channel();
            while !end.load(Ordering::Relaxed) {
                let guest = Guest {
                    detector: Detector::new(&masters),
                    master: None,
                    epoch: 0,
                    bulk: size.load(Ordering::Relaxed),
                    tell: tell.clone(),
                };
                node.spawn_numbered("slave", move || guest).unwrap();
                let Some(id) = answer(&told, &end) else { break };
                let at = clock.now();
                list.lock().unwrap().push(Admitted { id, at });
                // Nobody tells anything: the time between two of them.
                let _quiet = told.recv_timeout(BETWEEN);
            }
            node.shutdown();
        });
        Self {
            admitted,
            bulk,
            over,
            inviting: Some(inviting),
        }
    }

    /// All that were admitted by now.
    pub(super) fn admitted(&self) -> Vec<Admitted> {
        self.admitted.lock().unwrap().clone()
    }

    /// Those who come from now on are described in a few bytes.
    pub(super) fn be_small(&self) {
        self.bulk.store(0, Ordering::Relaxed);
    }

    /// No more are wanted.
    pub(super) fn end(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(inviting) = self.inviting.take()
            && inviting.join().is_err()
        {
            eprintln!("the guests have panicked");
        }
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        self.end();
    }
}

/// The id that the guest was given; none when no more are wanted.
fn answer(told: &Receiver<String>, end: &AtomicBool) -> Option<String> {
    loop {
        match told.recv_timeout(BETWEEN) {
            Ok(id) => return Some(id),
            Err(RecvTimeoutError::Timeout) if !end.load(Ordering::Relaxed) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
        }
    }
}

fn bulk(bytes: usize) -> Attribute {
    Attribute {
        name: "bulk".to_owned(),
        value: AttributeValue::Text("x".repeat(bytes).into()),
    }
}

/// An agent that wants nothing but to be admitted.
struct Guest {
    detector: Detector,
    master: Option<Pid>,
    epoch: u64,
    bulk: usize,
    tell: Sender<String>,
}

impl Process for Guest {
    fn routes(routes: &mut Routes<Self>) {
        routes
            .on::<Leader>()
            .on::<Led<AgentRegistered>>()
            .on::<Led<Ping>>();
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        detect(self, cx, detector::Input::Begin);
        Self::knock_again(cx);
    }

    fn exited(&mut self, cx: &mut Context<'_, Self>, pid: &Pid, _: ExitReason) {
        detect(self, cx, detector::Input::Lost(pid.clone()));
    }
}

impl Guest {
    fn knock(&self, cx: &mut Context<'_, Self>) {
        if let Some(master) = &self.master {
            let register = RegisterAgent {
                agent: AgentInfo {
                    hostname: "guest".to_owned(),
                    port: cx.address().port,
                    attributes: vec![bulk(self.bulk)],
                    ..AgentInfo::default()
                },
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..RegisterAgent::default()
            };
            cx.send(master, register);
        }
    }

    fn knock_again(cx: &mut Context<'_, Self>) {
        cx.after(AGAIN, |guest, cx| {
            guest.knock(cx);
            Self::knock_again(cx);
        });
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
        self.epoch = self.epoch.max(followed.epoch);
        self.master = followed.leader;
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
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, led: Led<AgentRegistered>) {
        if led.leader_epoch < self.epoch {
            return;
        }
        // The trial may be over.
        let _gone = self.tell.send(led.message.agent_id.to_string());
        cx.stop();
    }
}

impl Receive<Led<Ping>> for Guest {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, _: Led<Ping>) {}
}
