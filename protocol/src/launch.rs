//! What an agent hands to the program that starts a container, and to the executor inside.
//!
//! Pure. The plan is written as MessagePack to a pipe whose other end the launcher inherits; the executor's key
//! reaches it the same way, never by the environment, which other processes of the user can read.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::wire::{Presence, record};

record! {
    /// One variable of the new process's environment.
    #[derive(Eq)]
    pub struct EnvironmentEntry {
        /// Its name.
        pub name: String,
        /// Its value.
        pub value: String,
    }
}

record! {
    /// The program to become.
    #[derive(Eq)]
    pub struct LaunchCommand {
        /// File to execute; looked up in `PATH` when it holds no `/`.
        pub program: String,
        /// Its arguments; the first one is the name it sees as its own.
        pub arguments: Vec<String>,
    }
}

record! {
    /// All that has to be done between the fork and the executor's first instruction.
    pub struct LaunchPlan {
        /// The program.
        pub command: LaunchCommand,
        /// The sandbox: the working directory, absolute.
        pub working_directory: String,
        /// File that gets the standard output, absolute.
        pub stdout: String,
        /// File that gets the standard error, absolute.
        pub stderr: String,
        /// The whole environment, in order; a later entry of the same name wins.
        pub environment: Vec<EnvironmentEntry>,
        /// User to become; the agent's own when missing.
        pub user: Option<String>,
        /// Directory of the freezer control group to enter, absolute.
        pub freezer_cgroup: Option<String>,
        /// Key with which the executor speaks to the agent; passed on by an inherited descriptor.
        pub credential: Option<ExecutorCredential>,
    }
}

/// Key material of one executor. Debug output hides the key.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecutorCredential {
    /// PID of the agent to speak to.
    pub agent_pid: String,
    /// The id part of the executor's own PID: `executor-<container>`.
    pub executor_process_id: String,
    /// Certificates of the key, the executor's own first, DER.
    pub certificate_chain: Vec<ByteBuf>,
    /// Private key, PKCS #8 DER.
    pub private_key: ByteBuf,
    /// Certificate by which the agent is known, DER.
    pub ca: ByteBuf,
}

impl Presence for ExecutorCredential {}

impl fmt::Debug for ExecutorCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecutorCredential")
            .field("agent_pid", &self.agent_pid)
            .field("executor_process_id", &self.executor_process_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_its_pipe_and_hides_its_key() {
        let plan = LaunchPlan {
            command: LaunchCommand {
                program: "/bin/true".into(),
                arguments: vec!["true".into()],
            },
            working_directory: "/sandbox".into(),
            environment: vec![EnvironmentEntry {
                name: "A".into(),
                value: "b".into(),
            }],
            credential: Some(ExecutorCredential {
                agent_pid: "slave(1)@127.0.0.1:5051".into(),
                private_key: ByteBuf::from(*b"secret"),
                ..ExecutorCredential::default()
            }),
            ..LaunchPlan::default()
        };
        let bytes = rmp_serde::to_vec_named(&plan).unwrap();
        assert_eq!(rmp_serde::from_slice::<LaunchPlan>(&bytes).unwrap(), plan);
        assert!(!format!("{plan:?}").contains("secret"));
    }
}
