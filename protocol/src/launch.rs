//! What an agent hands to the program that starts a container, and to the executor inside.
//!
//! Pure. The plan is written as MessagePack to a pipe whose other end the launcher inherits; the executor's key or token
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
        /// Soft limit of open files and sockets; the agent's own, which it has raised for itself, when missing.
        pub open_files: Option<u64>,
        /// With what the executor speaks to the agent; passed on by an inherited descriptor.
        pub credential: Option<ExecutorCredential>,
    }
}

/// How one executor reaches its agent and shows who it is: over QUIC with a key, or over a Unix socket with a token.
/// Debug output hides both.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecutorCredential {
    /// PID of the agent to speak to.
    pub agent_pid: String,
    /// The id part of the executor's own PID: `executor-<container>`.
    pub executor_process_id: String,
    /// Certificates of the key, the executor's own first, DER. Empty when `unix` is set, as are the next two.
    pub certificate_chain: Vec<ByteBuf>,
    /// Private key, PKCS #8 DER.
    pub private_key: ByteBuf,
    /// Certificate by which the agent is known, DER.
    pub ca: ByteBuf,
    /// The way over the agent's Unix socket.
    pub unix: Option<UnixCredential>,
}

impl Presence for ExecutorCredential {}

/// The way over an agent's Unix socket. Debug output hides the token.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnixCredential {
    /// The socket, absolute.
    pub socket: String,
    /// User id of the agent, which must be listening there.
    pub agent_uid: u32,
    /// What the executor shows: 32 bytes.
    pub token: ByteBuf,
    /// Inherited descriptor of the socket's directory. The launcher sets it: the user that the executor becomes need
    /// not be able to find the directory by its path.
    pub directory_descriptor: Option<i32>,
}

impl fmt::Debug for UnixCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnixCredential")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

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
                unix: Some(UnixCredential {
                    socket: "/run/executors".into(),
                    token: ByteBuf::from(*b"secret"),
                    ..UnixCredential::default()
                }),
                ..ExecutorCredential::default()
            }),
            ..LaunchPlan::default()
        };
        let bytes = rmp_serde::to_vec_named(&plan).unwrap();
        assert_eq!(rmp_serde::from_slice::<LaunchPlan>(&bytes).unwrap(), plan);
        let shown = format!("{plan:?} {:?}", plan.credential.as_ref().map(|c| &c.unix));
        assert!(shown.contains("/run/executors"));
        for hidden in ["secret", &format!("{:?}", b"secret")[1..]] {
            assert!(!shown.contains(hidden), "{shown}");
        }
    }
}
