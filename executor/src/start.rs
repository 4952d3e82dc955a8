//! The start of a program that is an executor: credential, environment, node, driver.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use meseta_protocol::launch::{ExecutorCredential, UnixCredential};
use meseta_runtime::identity::{Identity, IdentityError};
use meseta_runtime::message::read_named;
use meseta_runtime::transport::unix::{GuestToken, HostSocket, UnixError};
use meseta_runtime::{
    Credentials, ExitReason, Node, NodeBuilder, NodeError, Pid, SpawnError, error_chain,
};

use crate::driver::{Executor, spawn_watched};
use crate::environment::{CREDENTIAL_FD, EnvironmentError, ExecutorEnvironment};

/// Why an executor did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The agent's variables are not there.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The inherited descriptor does not hold a credential.
    #[error("credential on the descriptor that {CREDENTIAL_FD} names")]
    Credential(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The credential cannot be used.
    #[error("identity of the executor")]
    Identity(#[from] IdentityError),
    /// The agent's socket cannot be found.
    #[error("socket of the agent")]
    Socket(#[from] UnixError),
    /// The node did not start.
    #[error("connection to the agent")]
    Node(#[from] NodeError),
    /// The driver did not start.
    #[error("executor driver")]
    Spawn(#[from] SpawnError),
    /// The connection to the agent failed, or the agent refused the executor, before it was taken in.
    #[error(
        "the agent at {0} has never taken this executor in: is it running, and does it still know the executor?"
    )]
    NeverRegistered(Pid),
    /// The system refused something.
    #[error("system resources")]
    System(#[source] std::io::Error),
    /// A callback panicked.
    #[error("the executor panicked: {0}")]
    Panicked(String),
}

/// Runs the executor that `build` makes until it stops; for the `main` of an executor. Errors go to the standard
/// error. Must be called before anything else opens files or starts threads, so that no child inherits the
/// credential.
pub fn run<E: Executor>(build: impl FnOnce() -> E + Send + 'static) -> ExitCode {
    match try_run(|node| node, |_| build()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a program's last words; the agent shows them"
)]
fn complain(error: &RunError) {
    eprintln!("executor: {}", error_chain(error));
}

/// As [`run`], for programs that deal with errors themselves; `settings` may add operations to the node, and `build`
/// is told what the agent said.
///
/// # Errors
/// [`RunError`].
pub fn try_run<E: Executor>(
    settings: impl FnOnce(NodeBuilder) -> NodeBuilder,
    build: impl FnOnce(&ExecutorEnvironment) -> E + Send + 'static,
) -> Result<(), RunError> {
    let variable = |name: &str| std::env::var(name).ok();
    run_with(inherited_credential()?, variable, settings, build)
}

/// As [`try_run`], with the credential and the variables given.
///
/// # Errors
/// [`RunError`].
pub(crate) fn run_with<E: Executor>(
    credential: ExecutorCredential,
    variable: impl Fn(&str) -> Option<String>,
    settings: impl FnOnce(NodeBuilder) -> NodeBuilder,
    build: impl FnOnce(&ExecutorEnvironment) -> E + Send + 'static,
) -> Result<(), RunError> {
    let mut environment = ExecutorEnvironment::read(&credential.executor_process_id, variable)?;
    // What came with the key is what the key is good for.
    environment.agent = credential
        .agent_pid
        .parse()
        .map_err(|error| RunError::Credential(Box::new(error)))?;
    let node = Node::builder()
        .guest_of(environment.agent.address().clone(), &environment.process_id)
        .role("executor");
    let node = match credential.unix {
        Some(unix) => over_unix(node, &unix)?,
        None => node
            .bind(environment.agent.address().dialling_ip())
            .credentials(Credentials::Given(Box::new(identity(credential)?))),
    };
    let node = settings(node).start()?;
    let waiting = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(RunError::System)?;
    let told = environment.clone();
    let agent = environment.agent.clone();
    let registered = Arc::new(AtomicBool::new(false));
    let driver = spawn_watched(
        &node,
        environment,
        move || build(&told),
        Arc::clone(&registered),
    )?;
    let reason = waiting.block_on(node.ended(&driver));
    node.shutdown();
    match reason {
        ExitReason::Panic(text) | ExitReason::Failed(text) => Err(RunError::Panicked(text)),
        _ if !registered.load(Ordering::Relaxed) => Err(RunError::NeverRegistered(agent)),
        ExitReason::Normal
        | ExitReason::Terminated
        | ExitReason::NoProcess
        | ExitReason::NodeRestarted
        | ExitReason::ConnectionLost
        | ExitReason::Unknown => Ok(()),
    }
}

/// The identity that the agent made.
fn identity(credential: ExecutorCredential) -> Result<Identity, IdentityError> {
    let chain = credential.certificate_chain.into_iter();
    Identity::from_der(
        chain.map(serde_bytes::ByteBuf::into_vec).collect(),
        credential.private_key.into_vec(),
        vec![credential.ca.into_vec()],
    )
}

/// Settings of a guest that speaks over the agent's socket.
fn over_unix(node: NodeBuilder, credential: &UnixCredential) -> Result<NodeBuilder, RunError> {
    let unusable = |error: &str| RunError::Credential(error.into());
    let token = GuestToken::of(&credential.token)
        .ok_or_else(|| unusable("the token is not of 32 bytes"))?;
    let path = Path::new(&credential.socket);
    let socket = match credential.directory_descriptor {
        Some(number) if number > 2 => {
            let name = path
                .file_name()
                .ok_or_else(|| unusable("the socket has no name"))?;
            let socket = HostSocket::inherited(number, name, credential.agent_uid)?;
            nix::unistd::close(number).map_err(|error| RunError::Credential(Box::new(error)))?;
            socket
        }
        Some(_) | None => HostSocket::at(path, credential.agent_uid)?,
    };
    Ok(node.over_unix(socket, token))
}

/// Reads the credential to its end and closes its descriptor, so that no child of this program inherits it.
pub(crate) fn inherited_credential() -> Result<ExecutorCredential, RunError> {
    let number =
        std::env::var(CREDENTIAL_FD).map_err(|_| EnvironmentError::Missing(CREDENTIAL_FD))?;
    let number: i32 = match number.parse() {
        Ok(number) if number > 2 => number,
        Ok(_) | Err(_) => {
            return Err(EnvironmentError::Invalid {
                name: CREDENTIAL_FD,
                value: number,
                expected: "the number of a descriptor above 2",
            }
            .into());
        }
    };
    // Opened anew by its number, which is the way to a descriptor that this program did not open itself.
    let mut bytes = Vec::new();
    File::open(format!("/proc/self/fd/{number}"))
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(|error| RunError::Credential(Box::new(error)))?;
    nix::unistd::close(number).map_err(|error| RunError::Credential(Box::new(error)))?;
    read_named(&bytes).map_err(|error| RunError::Credential(Box::new(error)))
}
