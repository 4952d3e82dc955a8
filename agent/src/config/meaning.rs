//! What flags mean: the settings that follow from them, or why none do.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use meseta_protocol::agent::DomainInfo;
use meseta_protocol::attributes::parse_attributes;
use meseta_protocol::ids::{Role, RoleError};
use meseta_protocol::launch::EnvironmentEntry;
use meseta_protocol::messages::election::ELECTION;
use meseta_protocol::resources::{ParseError, Resources};
use meseta_runtime::NodeBuilder;
use meseta_runtime::detector::{Candidates, CandidatesError};
use meseta_runtime::flags::{NodeFlags, candidates};
use meseta_runtime::http::auth::bearer::TokenKey;
use meseta_runtime::http::auth::read_token_key;
use meseta_runtime::http::flags::{Component, HttpFlagError};

use super::{Config, Flags, LONGEST_REREGISTRATION, own_directory, programs};
use crate::resources::{Detected, leeway, merge};

/// An agent does not look at its disk more often than this.
const SHORTEST_WATCH: Duration = Duration::from_millis(10);

/// Why flags cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No masters.
    #[error("--master")]
    Master(#[from] CandidatesError),
    /// No role.
    #[error("--default_role")]
    Role(#[from] RoleError),
    /// No resources.
    #[error("--resources")]
    Resources(#[from] ParseError),
    /// No attributes.
    #[error("--attributes")]
    Attributes(#[from] meseta_protocol::attributes::AttributeError),
    /// A file that a flag names.
    #[error("--{flag}: cannot read {path}", path = path.display())]
    File {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A flag whose JSON cannot be read.
    #[error("--{flag} holds no JSON of the right form")]
    Json {
        /// The flag.
        flag: &'static str,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A domain without region and zone.
    #[error("--domain has no fault_domain")]
    NoFaultDomain,
    /// Executors would be waited for too long.
    #[error(
        "--executor_reregistration_timeout: at most {}, since nothing can be launched meanwhile",
        crate::environment::duration_text(LONGEST_REREGISTRATION)
    )]
    ReregistrationTimeout,
}

/// The text itself, or what is in the file it names with an absolute path or `file://`.
fn text_or_file(flag: &'static str, value: &str) -> Result<String, ConfigError> {
    let path = value.strip_prefix("file://").unwrap_or(value);
    if !path.starts_with('/') {
        return Ok(value.to_owned());
    }
    std::fs::read_to_string(path).map_err(|source| ConfigError::File {
        flag,
        path: PathBuf::from(path),
        source,
    })
}

impl AsMut<NodeFlags> for Flags {
    fn as_mut(&mut self) -> &mut NodeFlags {
        &mut self.node
    }
}

impl Flags {
    /// The settings they mean on a machine that has `detected`. The authority's certificate is left empty.
    ///
    /// # Errors
    /// [`ConfigError`], naming the flag.
    pub fn config(&self, detected: &Detected) -> Result<Config, ConfigError> {
        let role: Role = self.default_role.parse()?;
        let given = Resources::parse_flag_entries(&self.resources, &role)?;
        let launcher_dir = self.launcher_dir.clone().unwrap_or_else(own_directory);
        let (launcher, executor_command) = programs(&launcher_dir);
        let mut config = Config::new(self.masters()?, &self.work_dir);
        config.hostname = self.node.hostname();
        config.leeway = leeway(&given, detected);
        config.resources = merge(given, detected, &role);
        config.attributes = parse_attributes(&self.attributes)?;
        config.domain = self.domain()?;
        config.registration_backoff_factor = self.registration_backoff_factor;
        config.executor_registration_timeout = self.executor_registration_timeout;
        config.executor_shutdown_grace_period = self.executor_shutdown_grace_period;
        config.launcher = launcher;
        config.executor_command = executor_command;
        config.executor_transport = self.executor_transport;
        config.switch_user = self.switch_user;
        config.executor_environment = self.environment()?;
        config.max_completed_executors_per_framework = self.max_completed_executors_per_framework;
        config.gc = Some(crate::gc::Settings {
            policy: crate::gc::Policy {
                delay: self.gc_delay,
                headroom: self.gc_disk_headroom,
            },
            disk_watch_interval: self.disk_watch_interval.max(SHORTEST_WATCH),
        });
        config.logs = Some(crate::logs::Limits {
            max_stdout_size: self.max_stdout_size,
            max_stderr_size: self.max_stderr_size,
            kept: self.rotated_logs,
        });
        config.recover = self.recover;
        config.strict = self.strict;
        config.reconfiguration_policy = self.reconfiguration_policy;
        if self.executor_reregistration_timeout > LONGEST_REREGISTRATION {
            return Err(ConfigError::ReregistrationTimeout);
        }
        config.executor_reregistration_timeout = self.executor_reregistration_timeout;
        config.recovery_timeout = self.recovery_timeout;
        config.flags.clone_from(&self.node.in_force);
        let launcher_dir = launcher_dir.display().to_string();
        config.flags.insert("launcher_dir".to_owned(), launcher_dir);
        Ok(config)
    }

    /// The key of tokens, if executors are to get any.
    ///
    /// # Errors
    /// [`HttpFlagError::Tokens`] when its file cannot be used.
    pub fn executor_tokens(&self) -> Result<Option<TokenKey>, HttpFlagError> {
        let file = self.jwt_secret_key.as_deref();
        let key = file.map(read_token_key).transpose();
        key.map_err(HttpFlagError::Tokens)
    }

    /// Makes a node serve HTTP as the flags say.
    ///
    /// # Errors
    /// [`HttpFlagError`].
    pub fn serve_http(
        &self,
        builder: NodeBuilder,
        tokens: Option<TokenKey>,
    ) -> Result<NodeBuilder, HttpFlagError> {
        if self.authenticate_http_executors && tokens.is_none() {
            return Err(HttpFlagError::Needs {
                flag: "authenticate_http_executors",
                needs: "jwt_secret_key",
            });
        }
        self.http.warn_if_insecure(self.node.is_loopback());
        let component = Component {
            realms: "mesos-agent",
            tokened: (self.authenticate_http_executors).then_some(crate::http::EXECUTOR),
            tokens,
            ..Component::default()
        };
        self.http.apply(builder, component)
    }

    fn masters(&self) -> Result<Candidates, CandidatesError> {
        candidates(&self.master, ELECTION)
    }

    fn domain(&self) -> Result<Option<DomainInfo>, ConfigError> {
        let Some(value) = &self.domain else {
            return Ok(None);
        };
        let flag = "domain";
        let domain: DomainInfo = serde_json::from_str(&text_or_file(flag, value)?)
            .map_err(|source| ConfigError::Json { flag, source })?;
        if domain.region().is_none() {
            return Err(ConfigError::NoFaultDomain);
        }
        Ok(Some(domain))
    }

    fn environment(&self) -> Result<Vec<EnvironmentEntry>, ConfigError> {
        let Some(value) = &self.executor_environment_variables else {
            return Ok(Vec::new());
        };
        let flag = "executor_environment_variables";
        let variables: BTreeMap<String, String> = serde_json::from_str(&text_or_file(flag, value)?)
            .map_err(|source| ConfigError::Json { flag, source })?;
        Ok(variables
            .into_iter()
            .map(|(name, value)| EnvironmentEntry { name, value })
            .collect())
    }
}
