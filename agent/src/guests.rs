//! Executors as guests of the agent's node: the socket they may come over, and what each is given to show who it is.
//!
//! A key or a token is made for one launch, pinned for the executor's PID, and handed to that executor alone.

use std::collections::HashMap;

use meseta_protocol::launch::{ExecutorCredential, UnixCredential};
use meseta_runtime::identity::IdentityError;
use meseta_runtime::transport::Proof;
use meseta_runtime::transport::unix::{GuestSocket, GuestToken, Reach, UnixError};
use meseta_runtime::{Context, NodeBuilder};
use nix::unistd::{Uid, User};

use crate::agent::Agent;
use crate::config::{Config, ExecutorTransport};
use crate::paths;

/// Why an executor cannot be given what it needs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuestError {
    /// No key.
    #[error(transparent)]
    Key(#[from] IdentityError),
    /// No token.
    #[error(transparent)]
    Token(#[from] UnixError),
    /// Nobody of that name.
    #[error("No such user '{0}'")]
    NoUser(String),
    /// The system cannot say who that is.
    #[error("cannot look up the user '{name}'")]
    User {
        /// The name.
        name: String,
        /// The system's reason.
        #[source]
        source: nix::Error,
    },
}

/// Gives a node the socket for executors, when they are to speak over one. Without it an agent with
/// [`ExecutorTransport::Unix`] hears none of its executors.
#[must_use]
pub fn guests(builder: NodeBuilder, config: &Config) -> NodeBuilder {
    match config.executor_transport {
        ExecutorTransport::Quic => builder,
        ExecutorTransport::Unix => builder.guests_at(GuestSocket {
            path: paths::executors_socket(&config.work_dir),
            reach: if config.switch_user && Uid::effective().is_root() {
                Reach::AnyUser
            } else {
                Reach::OwnUser
            },
        }),
    }
}

/// Numbers of users that executors ran as. They do not change while an agent runs.
#[derive(Debug, Default)]
pub(crate) struct Users(HashMap<String, u32>);

impl Users {
    fn uid(&mut self, user: Option<&str>) -> Result<u32, GuestError> {
        let Some(name) = user else {
            return Ok(Uid::effective().as_raw());
        };
        if let Some(uid) = self.0.get(name) {
            return Ok(*uid);
        }
        let found = User::from_name(name).map_err(|source| GuestError::User {
            name: name.to_owned(),
            source,
        })?;
        let uid = found
            .ok_or_else(|| GuestError::NoUser(name.to_owned()))?
            .uid;
        self.0.insert(name.to_owned(), uid.as_raw());
        Ok(uid.as_raw())
    }
}

/// What an executor of `user` (the agent's own when missing) shows, and what it is handed for that.
pub(crate) fn introduce(
    config: &Config,
    users: &mut Users,
    agent: &Context<'_, Agent>,
    executor_process_id: String,
    user: Option<&str>,
) -> Result<(Proof, ExecutorCredential), GuestError> {
    let mut credential = ExecutorCredential {
        agent_pid: agent.me().to_string(),
        executor_process_id,
        ..ExecutorCredential::default()
    };
    let proof = match config.executor_transport {
        ExecutorTransport::Quic => {
            let key = agent.guest_key()?;
            credential.certificate_chain = vec![key.certificate.into()];
            credential.private_key = key.private_key.into();
            credential.ca = config.ca.clone().into();
            Proof::Certificate(key.fingerprint)
        }
        ExecutorTransport::Unix => {
            let (token, uid) = (GuestToken::generate()?, users.uid(user)?);
            let socket = paths::executors_socket(&config.work_dir);
            credential.unix = Some(UnixCredential {
                socket: socket.display().to_string(),
                agent_uid: Uid::effective().as_raw(),
                token: token.secret().to_vec().into(),
                directory_descriptor: None,
            });
            let hash = token.hash();
            Proof::Token { hash, uid }
        }
    };
    Ok((proof, credential))
}
