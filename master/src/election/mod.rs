//! The process `election(1)` of a master: finds out with those of the other masters which of them leads.
//!
//! It owns what this member knows of leaders. It speaks with the other members, with the log's coordinator, which alone
//! can elect, with the master of its own node, and with whoever wants to know who leads. [`core`] decides, this file
//! acts. Invariant: whatever is announced as leader was elected by the log and has recovered.
//!
//! ```text
//!  Heartbeat, PreVote …      ┌─────────────┐  Elect ⇄ Election    log-coordinator(1)
//!  other masters ◀──────────▶│ election(1) │◀───────────────────▶
//!  Detect, Leader            │             │  Contend, Elected,
//!  agents, schedulers … ◀───▶│             │◀───────────────────▶ master
//!                            └─────────────┘  Recovered
//! ```
//!
//! A master that is on its own, without a log to elect it, has [`Alone`] in place of [`Election`]: it leads as long as
//! it lives.

pub mod core;
pub mod members;
pub mod messages;

use std::collections::BTreeSet;
use std::time::Duration;

use meseta_protocol::agent::MasterInfo;
use meseta_protocol::messages::election::{Detect, ELECTION, Leader};
use meseta_runtime::http::About;
use meseta_runtime::planted::mistake;
use meseta_runtime::{
    Address, Context, ExitReason, Pid, Process, Receive, Request, Response, Routes, Time,
};
use serde_json::json;
use tracing::{debug, error, info, warn};

use self::core::{Core, Effect, Input, Standing, Timing, Word};
use self::messages::{
    Contend, Elected, Heartbeat, HeartbeatAck, PreVote, PreVoteAnswer, Recovered,
};
use crate::log::asks::{Demoted, Elect, Election as Outcome};

/// What is told of the one path.
const STATE: About = About::read("Who leads, as this master knows it");

/// How long the coordinator may take to say how an election went; then it counts as lost.
const BALLOT_LIMIT: Duration = Duration::from_secs(10);

/// Most subscribers that are told of each change. Whoever comes beyond it is answered once and asks again by itself.
pub const MAX_SUBSCRIBERS: usize = 200_000;

/// Whoever wants to hear of leaders.
#[derive(Debug, Default)]
struct Subscribers(BTreeSet<Pid>);

impl Subscribers {
    fn detect<P: Process>(&mut self, cx: &mut Context<'_, P>, from: &Pid, known: Leader) {
        if self.0.len() < MAX_SUBSCRIBERS || self.0.contains(from) {
            if self.0.insert(from.clone()) {
                cx.link(from);
            }
        } else {
            warn!(%from, most = MAX_SUBSCRIBERS, "too many ask who leads: this one is answered only once");
        }
        cx.send(from, known);
    }

    fn tell<P: Process>(&self, cx: &mut Context<'_, P>, news: &Leader) {
        for subscriber in &self.0 {
            cx.send(subscriber, news.clone());
        }
    }
}

/// The process of one member. It is started anew with its node only; its master may end and be started again meanwhile.
pub struct Election {
    members: BTreeSet<Address>,
    timing: Timing,
    /// Who can elect.
    coordinator: Pid,

    /// Made when the process starts.
    core: Option<Core>,
    armed: Option<Time>,
    subscribers: Subscribers,
    /// The master of this node, while it is up.
    master: Option<Pid>,
}

impl Election {
    /// A member of these, its own address among them. `coordinator` takes [`Elect`].
    pub fn new(members: BTreeSet<Address>, coordinator: Pid, timing: Timing) -> Self {
        Self {
            members,
            timing,
            coordinator,
            core: None,
            armed: None,
            subscribers: Subscribers::default(),
            master: None,
        }
    }

    /// What this member knows and does, to look at; none before it has started.
    pub fn core(&self) -> Option<&Core> {
        self.core.as_ref()
    }
}

impl Process for Election {
    fn routes(routes: &mut Routes<Self>) {
        routes
            .on::<Heartbeat>()
            .on::<HeartbeatAck>()
            .on::<PreVote>()
            .on::<PreVoteAnswer>()
            .on::<Detect>()
            .on::<Contend>()
            .on::<Recovered>()
            .on::<Demoted>()
            .get("/state", Self::show)
            .about(STATE);
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        let (me, members, now) = (cx.address().clone(), self.members.clone(), cx.now());
        info!(%me, ?members, "election begins");
        self.core = Some(Core::new(me, members, self.timing, now, cx.random()));
        self.arm(cx);
    }

    fn exited(&mut self, cx: &mut Context<'_, Self>, pid: &Pid, reason: ExitReason) {
        if self.master.as_ref() == Some(pid) {
            info!(?reason, "the master of this node has ended");
            self.master = None;
            self.apply(cx, Input::Withdraw);
        } else {
            self.subscribers.0.remove(pid);
        }
    }
}

macro_rules! words {
    ($( $message:ident ),*) => { $(
        impl Receive<$message> for Election {
            fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, message: $message) {
                self.heard(cx, from, Word::$message(message));
            }
        }
    )* };
}
words!(Heartbeat, HeartbeatAck, PreVote, PreVoteAnswer);

impl Receive<Detect> for Election {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, _: Detect) {
        let known = self.core.as_ref().map(Core::standing);
        let known = known.map(leader_of).unwrap_or_default();
        self.subscribers.detect(cx, from, known);
    }
}

impl Receive<Contend> for Election {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, contend: Contend) {
        cx.link(from);
        self.master = Some(from.clone());
        self.apply(cx, Input::Contend(Box::new(contend.info)));
    }
}

impl Receive<Recovered> for Election {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, recovered: Recovered) {
        self.apply(cx, Input::Recovered(recovered.epoch));
    }
}

impl Receive<Demoted> for Election {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, _: Demoted) {
        // What it has asked the log to write since is lost, or somebody else's: only a fresh master may go on.
        warn!("another master writes the log: this one leads no more");
        self.end_master(cx);
    }
}

impl Election {
    fn heard(&mut self, cx: &mut Context<'_, Self>, from: &Pid, word: Word) {
        if from.id() != ELECTION || !self.members.contains(from.address()) {
            cx.metrics().count("election/messages_of_strangers");
            warn!(%from, "message dropped: its sender is no member; is --masters the same on every master?");
            return;
        }
        self.apply(cx, Input::Heard(from.address().clone(), word));
    }

    fn apply(&mut self, cx: &mut Context<'_, Self>, input: Input) {
        let now = cx.now();
        let Some(core) = &mut self.core else { return };
        for effect in core.step(now, input, cx.random()) {
            self.perform(cx, effect);
        }
        self.arm(cx);
    }

    fn perform(&mut self, cx: &mut Context<'_, Self>, effect: Effect) {
        match effect {
            Effect::Say(to, word) => say(cx, to, word),
            Effect::Elect => {
                debug!("no leader is heard: asks the log for a new one");
                let limit = BALLOT_LIMIT;
                cx.ask(&self.coordinator, Elect {}, limit, |me, cx, answer| {
                    let epoch = match answer {
                        Ok(Outcome::Elected { epoch, .. }) => Some(epoch.0),
                        Ok(Outcome::NotElected { reason }) => {
                            debug!(%reason, "not elected");
                            None
                        }
                        Err(error) => {
                            warn!(%error, "the log's coordinator does not say whether this master is elected");
                            None
                        }
                    };
                    me.apply(cx, Input::Ballot(epoch));
                });
            }
            Effect::Lead(epoch) => {
                info!(epoch, "this master is elected");
                cx.metrics().count("election/elected");
                if let Some(master) = &self.master {
                    cx.send(master, Elected { epoch });
                }
            }
            Effect::StepDown(why) => {
                warn!(why, "this master leads no more");
                cx.metrics().count("election/stepped_down");
                self.end_master(cx);
            }
            Effect::Announce(standing) => {
                let leader = standing.leader.as_ref().map(|(address, _)| address);
                info!(epoch = standing.epoch, ?leader, "who leads");
                self.subscribers.tell(cx, &leader_of(&standing));
            }
        }
    }

    fn end_master(&self, cx: &mut Context<'_, Self>) {
        if let Some(master) = &self.master
            && !mistake("master goes on when it leads no more")
        {
            cx.terminate(master);
        }
    }

    /// Has itself woken when the core wants it, unless an earlier time is armed.
    fn arm(&mut self, cx: &mut Context<'_, Self>) {
        let Some(due) = self.core.as_ref().and_then(Core::due) else {
            return;
        };
        if self.armed.is_some_and(|armed| armed <= due) {
            return;
        }
        self.armed = Some(due);
        cx.after(due.since(cx.now()), move |me, cx| {
            if me.armed == Some(due) {
                me.armed = None;
            }
            me.apply(cx, Input::Due);
        });
    }

    fn show(&mut self, _: &mut Context<'_, Self>, _: &Request) -> Response {
        let Some(core) = &self.core else {
            return Response::text(503, "The election has not begun.");
        };
        let standing = core.standing();
        let leader = standing.leader.as_ref().map(|(address, _)| address);
        Response::json(&json!({
            "doing": core.doing(),
            "epoch": standing.epoch,
            "leader": leader.map(ToString::to_string),
            "masters": self.members.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "quorum": core.quorum(),
        }))
    }
}

fn say(cx: &mut Context<'_, Election>, to: Address, word: Word) {
    let to = match Pid::new(ELECTION, to) {
        Ok(to) => to,
        Err(error) => {
            error!(%error, "a member has no PID");
            return;
        }
    };
    match word {
        Word::Heartbeat(message) => cx.send(&to, message),
        Word::HeartbeatAck(message) => cx.send(&to, message),
        Word::PreVote(message) => cx.send(&to, message),
        Word::PreVoteAnswer(message) => cx.send(&to, message),
    }
}

fn leader_of(standing: &Standing) -> Leader {
    let leader = standing.leader.as_ref();
    Leader {
        epoch: standing.epoch,
        leader: leader.and_then(|(address, _)| Pid::new(crate::MASTER, address.clone()).ok()),
        info: leader.map(|(_, info)| MasterInfo::clone(info)),
    }
}

/// In place of an election, beside a master that leads because nobody else could: tells those who ask that it does.
/// It ends with its master.
pub struct Alone {
    epoch: u64,
    master: Pid,
    subscribers: Subscribers,
}

impl Alone {
    /// Of a master under this epoch.
    pub fn new(epoch: u64, master: Pid) -> Self {
        Self {
            epoch,
            master,
            subscribers: Subscribers::default(),
        }
    }

    fn leader(&self) -> Leader {
        Leader {
            epoch: self.epoch,
            leader: Some(self.master.clone()),
            info: None,
        }
    }
}

impl Process for Alone {
    fn routes(routes: &mut Routes<Self>) {
        routes
            .on::<Detect>()
            .get("/state", |me, cx, _| {
                let address = cx.address().to_string();
                Response::json(&json!({
                    "doing": "leading", "epoch": me.epoch, "leader": address, "masters": [address], "quorum": 1,
                }))
            })
            .about(STATE);
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        cx.link(&self.master);
    }

    fn exited(&mut self, cx: &mut Context<'_, Self>, pid: &Pid, _: ExitReason) {
        if *pid == self.master {
            cx.stop();
        } else {
            self.subscribers.0.remove(pid);
        }
    }
}

impl Receive<Detect> for Alone {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, _: Detect) {
        let known = self.leader();
        self.subscribers.detect(cx, from, known);
    }
}
