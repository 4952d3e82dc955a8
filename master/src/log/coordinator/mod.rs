//! The coordinator `log-coordinator(1)`: the one writer of the log, for a user on its own node.
//!
//! It owns the [`Coordinator`] and carries out what that says: requests to the replicas of all members, timers, and
//! answers to the user. Its leadership belongs to whoever asked for it and ends when that process does. It ends with
//! the replica of its node.

pub mod core;

use std::collections::BTreeMap;
use std::time::Duration;

use meseta_runtime::metrics::Handle;
use meseta_runtime::{Context, ExitReason, Pid, Process, Receive, ReplyTo, Routes};
use rand::RngExt;
use tracing::{debug, info};

use self::core::{Coordinator, Effect, Input};
use super::asks::{Append, Demoted, Elect, Election, Truncate, Writing};
use super::catchup::{Asks, Timer};
use super::messages::{
    ChosenMessage, FetchResponse, PromiseResponse, RecoverResponse, Response, StatusResponse,
    WriteResponse,
};
use super::post::{self, Directory, REPLICA};

/// How often the writer tells the others what is chosen, when no write does.
const TELL: Duration = Duration::from_secs(1);

/// See the module.
pub struct CoordinatorProcess {
    members: Directory,
    coordinator: Option<Coordinator>,
    /// Who leads, or tries to.
    user: Option<Pid>,
    /// Where the outcome of the present attempt goes.
    electing: Option<ReplyTo>,
    /// Writes under way, by their tokens.
    writes: BTreeMap<u64, Option<ReplyTo>>,
    next_token: u64,
    appends: Option<Handle>,
}

impl CoordinatorProcess {
    /// A coordinator that is not elected.
    pub fn new(members: Directory) -> Self {
        Self {
            members,
            coordinator: None,
            user: None,
            electing: None,
            writes: BTreeMap::new(),
            next_token: 0,
            appends: None,
        }
    }
}

impl Process for CoordinatorProcess {
    fn routes(routes: &mut Routes<Self>) {
        routes
            .on::<Elect>()
            .on::<Append>()
            .on::<Truncate>()
            .on::<PromiseResponse>()
            .on::<WriteResponse>()
            .on::<RecoverResponse>()
            .on::<FetchResponse>()
            .on::<StatusResponse>();
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        let me = post::member(cx.address());
        let asks = Asks(cx.random().random());
        self.coordinator = Some(Coordinator::new(me, self.members.quorum(), asks));
        self.appends = Some(cx.metrics().counter("log/appends"));
        match cx.local(REPLICA) {
            Ok(replica) => cx.link(&replica),
            Err(error) => cx.fail(error.to_string()),
        }
        self.tell_again(cx);
    }

    fn exited(&mut self, cx: &mut Context<'_, Self>, who: &Pid, reason: ExitReason) {
        if self.user.as_ref() == Some(who) {
            info!(%who, "the user of the log has ended, and its leadership with it");
            self.user = None;
            self.step(cx, Input::Resign);
        } else if who.id() == REPLICA {
            cx.fail(format!("the replica of this node has ended: {reason:?}"));
        }
    }
}

impl Receive<Elect> for CoordinatorProcess {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, _: Elect) {
        if self.user.as_ref() == Some(from) {
            self.leave(cx);
            self.step(cx, Input::Resign);
        }
        if self.user.is_some() {
            let reason =
                "somebody on this node leads already, or is about to: wait for the end of it";
            cx.reply(Election::NotElected {
                reason: reason.to_owned(),
            });
            return;
        }
        self.user = Some(from.clone());
        cx.link(from);
        self.electing = cx.defer_reply();
        self.step(cx, Input::Elect);
    }
}

impl Receive<Append> for CoordinatorProcess {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, append: Append) {
        let token = self.token(cx);
        let bytes = append.bytes;
        self.step(cx, Input::Append { token, bytes });
    }
}

impl Receive<Truncate> for CoordinatorProcess {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, truncate: Truncate) {
        let token = self.token(cx);
        let to = truncate.to;
        self.step(cx, Input::Truncate { token, to });
    }
}

/// Answers of replicas.
macro_rules! answers {
    ($($kind:ident),* $(,)?) => {
        $(impl Receive<$kind> for CoordinatorProcess {
            fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, answer: $kind) {
                self.answered(cx, from, answer.into());
            }
        })*
    };
}

answers!(
    PromiseResponse,
    WriteResponse,
    RecoverResponse,
    FetchResponse,
    StatusResponse,
);

impl CoordinatorProcess {
    fn token(&mut self, cx: &mut Context<'_, Self>) -> u64 {
        self.next_token += 1;
        self.writes.insert(self.next_token, cx.defer_reply());
        self.next_token
    }

    fn answered(&mut self, cx: &mut Context<'_, Self>, from: &Pid, response: Response) {
        match self.members.member_of(from) {
            Some(member) => self.step(cx, Input::Answer(member, response)),
            None => debug!(%from, "answer from a node that is not among the masters ignored"),
        }
    }

    /// Tells the others what is chosen even while nothing is written: who was away hears so that it lacks something.
    fn tell_again(&mut self, cx: &mut Context<'_, Self>) {
        if let Some(chosen) = self.coordinator.as_ref().and_then(Coordinator::chosen) {
            let me = post::member(cx.address());
            for member in self
                .members
                .quorum()
                .members
                .iter()
                .filter(|one| **one != me)
            {
                let message = ChosenMessage { chosen };
                self.members.ask(cx, member, message.into());
            }
        }
        cx.after(TELL, Self::tell_again);
    }

    fn due(&mut self, cx: &mut Context<'_, Self>, timer: Timer) {
        self.step(cx, Input::Due(timer));
    }

    fn step(&mut self, cx: &mut Context<'_, Self>, input: Input) {
        let Some(coordinator) = &mut self.coordinator else {
            return;
        };
        let effects = coordinator.step(input, cx.random());
        debug_assert_eq!(coordinator.check(), Ok(()));
        for effect in effects {
            self.perform(cx, effect);
        }
    }

    fn perform(&mut self, cx: &mut Context<'_, Self>, effect: Effect) {
        match effect {
            Effect::Send(member, request) => self.members.ask(cx, &member, request),
            Effect::Arm(timer, after) => {
                cx.after(after, move |this, cx| this.due(cx, timer));
            }
            Effect::Elected { epoch, ending } => {
                info!(%epoch, %ending, "elected: this node writes the log");
                self.elected(cx, Election::Elected { epoch, ending });
            }
            Effect::NotElected(reason) => {
                debug!(%reason, "not elected");
                self.leave(cx);
                let reason = reason.to_string();
                self.elected(cx, Election::NotElected { reason });
            }
            Effect::Written { token, position } => {
                if let Some(appends) = &self.appends {
                    appends.add(1.0);
                }
                self.written(cx, token, Writing::Written { position });
            }
            Effect::Refused { token, reason } => {
                let reason = reason.to_string();
                self.written(cx, token, Writing::Refused { reason });
            }
            Effect::Lost { token } => self.written(cx, token, Writing::Demoted),
            Effect::Demoted => {
                info!("demoted: this node does not write the log any more");
                if let Some(user) = self.leave(cx) {
                    cx.send(&user, Demoted {});
                }
            }
        }
    }

    /// Nobody leads from here any more.
    fn leave(&mut self, cx: &mut Context<'_, Self>) -> Option<Pid> {
        let user = self.user.take();
        if let Some(user) = &user {
            cx.unlink(user);
        }
        user
    }

    fn elected(&mut self, cx: &mut Context<'_, Self>, outcome: Election) {
        if let Some(asker) = self.electing.take() {
            cx.reply_later(&asker, outcome);
        }
    }

    fn written(&mut self, cx: &mut Context<'_, Self>, token: u64, outcome: Writing) {
        if let Some(Some(asker)) = self.writes.remove(&token) {
            cx.reply_later(&asker, outcome);
        }
    }
}
