//! Messages by conversation, and the catalogue of their wire names.
//!
//! Pure. A message that a master sends implements [`MasterMessage`] and travels only inside [`Led`], which carries
//! the number of the master's leadership; so no master can forget it, and receivers check it in one place. All other
//! messages implement [`Message`] themselves. Wire names are `meseta.` (`meseta.election.` in [`election`]) and the struct's name; renaming a struct
//! therefore changes the protocol, and the recorded fixtures in `tests/fixtures` fail.

pub mod agent;
pub mod election;
pub mod executor;
pub mod scheduler;

use meseta_runtime::Message;
use meseta_runtime::message::{CodecError, read_named, write_named};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What a master says; travels inside [`Led`].
pub trait MasterMessage: Serialize + DeserializeOwned + Send + 'static {
    /// Name on the wire.
    const NAME: &'static str;
    /// Version of the fields.
    const VERSION: u16 = 1;

    /// As [`Message::write_body`], with the epoch.
    ///
    /// # Errors
    /// [`CodecError::Encode`] when the value has no MessagePack form.
    fn write_led(led: &Led<Self>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        write_named(led, out)
    }

    /// As [`Message::read_body`], with the epoch.
    ///
    /// # Errors
    /// [`CodecError::Decode`] when the bytes are no such message.
    fn read_led(body: &[u8]) -> Result<Led<Self>, CodecError> {
        read_named(body)
    }
}

/// A master's message with the number of its leadership.
///
/// A receiver that has heard a higher number drops the message: it comes from a master that no longer leads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Led<M> {
    /// Number of the leadership; grows with every election.
    pub leader_epoch: u64,
    /// What the master says.
    pub message: M,
}

impl<M: MasterMessage> Message for Led<M> {
    const NAME: &'static str = M::NAME;
    const VERSION: u16 = M::VERSION;
    const SENDERS: &'static [&'static str] = &["master"];

    fn write_body(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        M::write_led(self, out)
    }

    fn read_body(body: &[u8]) -> Result<Self, CodecError> {
        M::read_led(body)
    }
}

// The bodies are written and read by functions that are not generic: they are compiled here, once, and not in every
// crate that sends or takes the message.
macro_rules! catalogue {
    (
        plain { $( $module:ident :: $plain:ident from $( $sender:literal )+ $( version $version:literal )? ; )* }
        led { $( $led_module:ident :: $led:ident ; )* }
        election { $( $elector:ident from $( $asker:literal )+ ; )* }
    ) => {
        $(
            impl Message for election::$elector {
                const NAME: &'static str = concat!("meseta.election.", stringify!($elector));
                const SENDERS: &'static [&'static str] = &[ $( $asker ),+ ];
            }
        )*
        $(
            impl Message for $module::$plain {
                const NAME: &'static str = concat!("meseta.", stringify!($plain));
                $( const VERSION: u16 = $version; )?
                const SENDERS: &'static [&'static str] = &[ $( $sender ),+ ];

                fn write_body(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
                    write_named(self, out)
                }

                fn read_body(body: &[u8]) -> Result<Self, CodecError> {
                    read_named(body)
                }
            }
        )*
        $(
            impl MasterMessage for $led_module::$led {
                const NAME: &'static str = concat!("meseta.", stringify!($led));

                fn write_led(led: &Led<Self>, out: &mut Vec<u8>) -> Result<(), CodecError> {
                    write_named(led, out)
                }

                fn read_led(body: &[u8]) -> Result<Led<Self>, CodecError> {
                    read_named(body)
                }
            }
        )*

        /// The wire names of all messages.
        pub const NAMES: &[&str] = &[
            $( concat!("meseta.", stringify!($plain)), )*
            $( concat!("meseta.", stringify!($led)), )*
            $( concat!("meseta.election.", stringify!($elector)), )*
        ];
    };
}

catalogue! {
    plain {
        scheduler::SubscribeFramework from "scheduler";
        scheduler::TeardownFramework from "scheduler";
        scheduler::DeactivateFramework from "scheduler";
        scheduler::AcceptOffers from "scheduler";
        scheduler::DeclineOffers from "scheduler";
        scheduler::ReviveOffers from "scheduler";
        scheduler::SuppressOffers from "scheduler";
        scheduler::KillTask from "scheduler";
        scheduler::ShutdownExecutor from "scheduler";
        scheduler::AcknowledgeStatus from "scheduler";
        scheduler::ReconcileTasks from "scheduler";
        scheduler::FrameworkMessage from "scheduler";
        scheduler::RequestResources from "scheduler";
        agent::RegisterAgent from "agent";
        agent::ReregisterAgent from "agent" version 2;
        agent::UnregisterAgent from "agent";
        agent::UpdateAgent from "agent";
        agent::UpdateStatus from "agent";
        agent::ExecutorExited from "agent";
        agent::ExecutorToFramework from "agent";
        agent::Pong from "agent";
        executor::SubscribeExecutor from "executor";
        executor::UpdateTask from "executor";
        executor::SendToFramework from "executor";
        executor::ExecutorSubscribed from "agent";
        executor::LaunchTask from "agent";
        executor::LaunchTaskGroup from "agent";
        executor::KillExecutorTask from "agent";
        executor::UpdateAcknowledged from "agent";
        executor::MessageToExecutor from "agent";
        executor::ShutdownExecutorNow from "agent";
        executor::ExecutorRefused from "agent";
    }
    led {
        scheduler::FrameworkSubscribed;
        scheduler::ResourceOffers;
        scheduler::OfferRescinded;
        scheduler::StatusUpdated;
        scheduler::ExecutorMessage;
        scheduler::AgentLost;
        scheduler::ExecutorLost;
        scheduler::FrameworkError;
        agent::AgentRegistered;
        agent::AgentReregistered;
        agent::Ping;
        agent::RunTask;
        agent::RunTaskGroup;
        agent::KillAgentTask;
        agent::ShutdownFramework;
        agent::ShutdownAgentExecutor;
        agent::UpdateFramework;
        agent::AcknowledgeAgentStatus;
        agent::FrameworkToExecutor;
        agent::DrainAgent;
        agent::ShutdownAgent;
    }
    election {
        Detect from "agent" "scheduler" "operator" "master";
        Leader from "master";
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use meseta_runtime::message::Kind;

    use super::*;

    #[test]
    fn names_and_their_numbers_are_distinct() {
        let names: BTreeSet<&str> = NAMES.iter().copied().collect();
        let kinds: BTreeSet<Kind> = NAMES.iter().map(|name| Kind::named(name)).collect();
        assert_eq!((names.len(), kinds.len()), (NAMES.len(), NAMES.len()));
    }

    #[test]
    fn only_masters_may_send_what_is_led() {
        assert_eq!(<Led<agent::Ping> as Message>::NAME, "meseta.Ping");
        assert_eq!(<Led<agent::Ping> as Message>::SENDERS, ["master"]);
        assert_eq!(<agent::Pong as Message>::SENDERS, ["agent"]);
    }
}
