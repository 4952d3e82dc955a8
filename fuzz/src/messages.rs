//! Bodies of messages, by conversation, and what an agent hands to a launcher and an executor.
#![expect(clippy::expect_used, reason = "a broken rule fails by panicking")]

use std::error::Error;

use meseta_master::{election::messages as election_of_masters, log::messages as log, operators};
use meseta_protocol::launch::{ExecutorCredential, LaunchPlan};
use meseta_protocol::messages::{Led, agent, election, executor, scheduler};
use meseta_runtime::codec::{decode_body, encode_body};
use meseta_runtime::logging::{LogFilter, ResetLogFilter, SetLogFilter};
use meseta_runtime::{Message, error_chain};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Check, Decode};

macro_rules! family {
    ($(#[$meta:meta])* $decoders:ident, $names:ident: $( $ty:ty ),* $(,)?) => {
        $(#[$meta])*
        pub(crate) const $decoders: &[Decode] = &[ $( message::<$ty> ),* ];
        const $names: &[&str] = &[ $( <$ty as Message>::NAME ),* ];
    };
}

family! {
    /// What schedulers say, and what masters say to them.
    SCHEDULER, SCHEDULER_NAMES:
    scheduler::SubscribeFramework, scheduler::TeardownFramework, scheduler::DeactivateFramework,
    scheduler::AcceptOffers, scheduler::DeclineOffers, scheduler::ReviveOffers, scheduler::SuppressOffers,
    scheduler::KillTask, scheduler::ShutdownExecutor, scheduler::AcknowledgeStatus, scheduler::ReconcileTasks,
    scheduler::FrameworkMessage, scheduler::RequestResources, Led<scheduler::FrameworkSubscribed>,
    Led<scheduler::ResourceOffers>, Led<scheduler::OfferRescinded>, Led<scheduler::StatusUpdated>,
    Led<scheduler::ExecutorMessage>, Led<scheduler::AgentLost>, Led<scheduler::ExecutorLost>,
    Led<scheduler::FrameworkError>,
}

family! {
    /// What agents say to masters, and the other way round, and who leads.
    AGENT, AGENT_NAMES:
    agent::RegisterAgent, agent::ReregisterAgent, agent::UnregisterAgent, agent::UpdateAgent, agent::UpdateStatus,
    agent::ExecutorExited, agent::ExecutorToFramework, agent::Pong, Led<agent::AgentRegistered>,
    Led<agent::AgentReregistered>, Led<agent::Ping>, Led<agent::RunTask>, Led<agent::RunTaskGroup>,
    Led<agent::KillAgentTask>, Led<agent::ShutdownFramework>, Led<agent::ShutdownAgentExecutor>,
    Led<agent::UpdateFramework>, Led<agent::AcknowledgeAgentStatus>, Led<agent::FrameworkToExecutor>,
    Led<agent::DrainAgent>, Led<agent::ShutdownAgent>, election::Detect, election::Leader,
}

family! {
    /// What executors say to agents, and the other way round.
    EXECUTOR, EXECUTOR_NAMES:
    executor::SubscribeExecutor, executor::UpdateTask, executor::SendToFramework, executor::ExecutorSubscribed,
    executor::LaunchTask, executor::LaunchTaskGroup, executor::KillExecutorTask, executor::UpdateAcknowledged,
    executor::MessageToExecutor, executor::ShutdownExecutorNow, executor::ExecutorRefused,
}

family! {
    /// What masters say to each other, the log and who leads, and what operators say to them.
    MASTER, MASTER_NAMES:
    log::PromiseRequest, log::PromiseResponse, log::WriteRequest, log::WriteResponse, log::LearnedMessage,
    log::ChosenMessage, log::RecoverRequest, log::RecoverResponse, log::FetchRequest, log::FetchResponse,
    log::StatusRequest, log::StatusResponse, election_of_masters::Heartbeat, election_of_masters::HeartbeatAck,
    election_of_masters::PreVote, election_of_masters::PreVoteAnswer, operators::MarkAgentGone,
    operators::AgentMarkedGone,
}

family! {
    /// What operators say to any node about what it logs.
    LOGGING, LOGGING_NAMES:
    SetLogFilter, ResetLogFilter, LogFilter,
}

/// Wire names of the messages that each target decodes.
pub const MESSAGES: &[(&str, &[&str])] = &[
    ("scheduler_messages", SCHEDULER_NAMES),
    ("agent_messages", AGENT_NAMES),
    ("executor_messages", EXECUTOR_NAMES),
    ("master_messages", MASTER_NAMES),
    ("logging_messages", LOGGING_NAMES),
];

fn message<M: Message>(data: &[u8]) -> Option<Check> {
    let message = M::read_body(data).ok()?;
    Some(Box::new(move || {
        let write = |message: &M| {
            let mut body = Vec::new();
            message
                .write_body(&mut body)
                .expect("a message that was read can be written");
            body
        };
        let once = write(&message);
        if let Some(again) = affordable(M::read_body(&once)) {
            assert_eq!(write(&again), once, "{}", M::NAME);
        }
    }))
}

fn body<T: Serialize + DeserializeOwned + 'static>(data: &[u8]) -> Option<Check> {
    let value: T = decode_body(data).ok()?;
    Some(Box::new(move || {
        let once = encode_body(&value).expect("what was read can be written");
        if let Some(again) = affordable(decode_body::<T>(&once)) {
            assert_eq!(encode_body(&again).expect("and again"), once);
        }
    }))
}

/// What was written must be read; but an input that pays for many empty records with fields that nobody knows is
/// shorter without those fields, and may then be refused for what it takes up.
pub(crate) fn affordable<T, E: Error>(read: Result<T, E>) -> Option<T> {
    match read {
        Ok(value) => Some(value),
        Err(error) => {
            let text = error_chain(&error);
            assert!(text.contains("many times its own size"), "{text}");
            None
        }
    }
}

pub(crate) fn launch_plan(data: &[u8]) -> Option<Check> {
    body::<LaunchPlan>(data)
}

pub(crate) fn credential(data: &[u8]) -> Option<Check> {
    body::<ExecutorCredential>(data)
}
