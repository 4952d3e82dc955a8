//! Who a command is to the cluster: flags for its certificate, and a node that only dials.

use std::path::PathBuf;

use clap::Args;
use meseta_runtime::flags::{FlagError, NodeFlags};
use meseta_runtime::{Address, Credentials, Node};

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Identity {
    /// Certificate of the cluster's CA, PEM; not needed on loopback.
    #[arg(long = "ca_file", env = "MESETA_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// Certificate with the role that the command needs (execute: scheduler, log-level: operator), PEM.
    #[arg(long = "cert_file", env = "MESETA_CERT_FILE")]
    cert_file: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long = "key_file", env = "MESETA_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// Address of this machine that master and agents can reach, as in the certificate; needed off loopback.
    #[arg(long = "advertise_ip", env = "MESETA_ADVERTISE_IP")]
    pub(crate) advertise_ip: Option<String>,
}

impl Identity {
    pub(crate) fn credentials(&self) -> Result<Credentials, FlagError> {
        NodeFlags {
            ca_file: self.ca_file.clone(),
            cert_file: self.cert_file.clone(),
            key_file: self.key_file.clone(),
            ..NodeFlags::default()
        }
        .credentials()
    }

    /// A node of this role that dials `target` and that nobody dials.
    pub(crate) fn dialler(&self, role: &str, target: &Address) -> anyhow::Result<Node> {
        let credentials = self.credentials()?;
        anyhow::ensure!(
            target.is_loopback() || !matches!(credentials, Credentials::Development),
            "{target} is not on loopback: pass --ca_file, --cert_file and --key_file of a certificate with role {role}, \
             and --advertise_ip with this machine's address"
        );
        let host = match &self.advertise_ip {
            Some(ip) => Address::new(ip, 0),
            None => Address::new("127.0.0.1", 0),
        };
        Ok(Node::builder()
            .host(&host.host)
            .bind(host.dialling_ip())
            .credentials(credentials)
            .accepts(false)
            .http(false)
            .role(role)
            .start()?)
    }
}
