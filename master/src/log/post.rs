//! Who the members are on the network, and how requests and answers get there.

use std::collections::BTreeMap;

use meseta_runtime::pid::ParsePidError;
use meseta_runtime::{Address, Context, Pid, Process, ReplyTo};

use super::members::Member;
use super::messages::{Request, Response};
use super::rounds::Quorum;

/// Name of a member's replica.
pub const REPLICA: &str = "log-replica(1)";
/// Name of a member's coordinator.
pub const COORDINATOR: &str = "log-coordinator(1)";

/// The members with the PIDs of their replicas.
#[derive(Debug, Clone)]
pub struct Directory {
    replicas: BTreeMap<Member, Pid>,
    /// The same the other way round, since every message is looked up by its sender.
    members: BTreeMap<Address, Member>,
}

impl Directory {
    /// Of the nodes at these addresses.
    ///
    /// # Errors
    /// Does not happen: the replica's name is a good one.
    pub fn new(addresses: &[Address]) -> Result<Self, ParsePidError> {
        let pid = |address: &Address| Ok((member(address), Pid::new(REPLICA, address.clone())?));
        let replicas = addresses.iter().map(pid).collect::<Result<_, _>>()?;
        let members = addresses.iter().map(|one| (one.clone(), member(one)));
        Ok(Self {
            replicas,
            members: members.collect(),
        })
    }

    /// The members, of whom more than half decide.
    pub fn quorum(&self) -> Quorum {
        Quorum::majority(self.replicas.keys().cloned())
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.replicas.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.replicas.is_empty()
    }

    /// The member at whose node a process is.
    pub fn member_of(&self, pid: &Pid) -> Option<Member> {
        self.members.get(pid.address()).cloned()
    }

    /// Sends a request to a member's replica.
    pub fn ask<P: Process>(&self, cx: &mut Context<'_, P>, member: &Member, request: Request) {
        let Some(to) = self.replicas.get(member) else {
            return;
        };
        match request {
            Request::Promise(request) => cx.send(to, request),
            Request::Write(request) => cx.send(to, request),
            Request::Learned(message) => cx.send(to, message),
            Request::Chosen(message) => cx.send(to, message),
            Request::Recover(request) => cx.send(to, request),
            Request::Fetch(request) => cx.send(to, request),
            Request::Status(request) => cx.send(to, request),
        }
    }
}

/// The member at an address.
pub fn member(address: &Address) -> Member {
    Member::from(address.to_string().as_str())
}

/// Where an answer goes.
#[derive(Debug, Clone)]
pub enum To {
    /// To a process, as a message of its own.
    Process(Pid),
    /// To whoever asked and waits.
    Asker(ReplyTo),
}

/// Sends an answer.
pub fn answer<P: Process>(cx: &mut Context<'_, P>, to: &To, response: Response) {
    match response {
        Response::Promise(answer) => send(cx, to, answer),
        Response::Write(answer) => send(cx, to, answer),
        Response::Recover(answer) => send(cx, to, answer),
        Response::Fetch(answer) => send(cx, to, answer),
        Response::Status(answer) => send(cx, to, answer),
    }
}

fn send<P: Process, M: meseta_runtime::Message>(cx: &mut Context<'_, P>, to: &To, message: M) {
    match to {
        To::Process(pid) => cx.send(pid, message),
        To::Asker(asker) => cx.reply_later(asker, message),
    }
}
