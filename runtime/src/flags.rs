//! Command-line flags that every program with a node has, and what they mean for its [`NodeBuilder`].
//!
//! Names are those of Mesos; each flag can also come from the environment as `MESETA_<NAME>`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::{Args, Command, Parser};
use tokio::signal::unix::{SignalKind, signal};

use crate::detector::candidates::addresses_or_file;
use crate::detector::{Candidates, CandidatesError};
use crate::logging;
use crate::node::{Credentials, Node, NodeBuilder};
use crate::pid::Address;

/// Flags of a node. Flatten it into a program's own flags.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct NodeFlags {
    /// IP address to listen on. Anything but a loopback address needs certificates.
    #[arg(long, env = "MESETA_IP", default_value = "127.0.0.1")]
    pub ip: IpAddr,
    /// Port for HTTP (TCP) and messages (UDP); 0 takes any that is free.
    #[arg(long, env = "MESETA_PORT")]
    pub port: Option<u16>,
    /// IP address or name under which others reach this node; --ip when not given.
    #[arg(long = "advertise_ip", env = "MESETA_ADVERTISE_IP")]
    pub advertise_ip: Option<String>,
    /// Host name shown to people and frameworks; the advertised address when not given.
    #[arg(long, env = "MESETA_HOSTNAME")]
    pub hostname: Option<String>,
    /// Certificate of the cluster's CA, PEM; make one with `meseta certs`.
    #[arg(long = "ca_file", env = "MESETA_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Certificate of this node, PEM.
    #[arg(long = "cert_file", env = "MESETA_CERT_FILE")]
    pub cert_file: Option<PathBuf>,
    /// Private key of this node, PEM.
    #[arg(long = "key_file", env = "MESETA_KEY_FILE")]
    pub key_file: Option<PathBuf>,
    /// What to log: error, warn, info, debug, trace, or a filter such as `info,meseta_runtime=debug`.
    #[arg(
        long = "logging_level",
        env = "MESETA_LOGGING_LEVEL",
        default_value = "info",
        ignore_case = true
    )]
    pub logging_level: String,
    /// Ends the program when its standard input is closed, as it is when the program that started it ends.
    #[arg(long, hide = true)]
    pub supervised: bool,
}

/// Why flags do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// Some of the certificate files are named, but not all.
    #[error("--ca_file, --cert_file and --key_file go together: {0} is missing")]
    IncompleteCertificates(&'static str),
    /// An address that nobody can dial.
    #[error("--ip={0} is no address others can dial: name one with --advertise_ip")]
    Unspecified(IpAddr),
}

/// The addresses that a flag means: one, a list, or a file with a list.
///
/// # Errors
/// [`CandidatesError`], which says what to write instead.
pub fn addresses(text: &str) -> Result<Vec<Address>, CandidatesError> {
    addresses_or_file(text, read)
}

/// The candidates that a flag means: their addresses as in [`addresses`], where the process `asked` of each knows who
/// leads, or the PID of the one that leads for good.
///
/// # Errors
/// [`CandidatesError`], which says what to write instead.
pub fn candidates(text: &str, asked: &str) -> Result<Candidates, CandidatesError> {
    Candidates::parse(text, asked, read)
}

fn read(path: &str) -> std::io::Result<String> {
    std::fs::read_to_string(path)
}

/// Reads a program's flags from its command line and the environment, and ends the program when they cannot be read.
/// A number below zero is taken for a flag's value, so that the error names the flag.
pub fn parse<T: Parser>() -> T {
    let matches = with_negative_numbers(T::command()).get_matches();
    T::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut T::command()).exit())
}

fn with_negative_numbers(command: Command) -> Command {
    let command = command.mut_args(|argument| {
        let takes = argument.get_action().takes_values() && !argument.is_positional();
        if takes {
            argument.allow_negative_numbers(true)
        } else {
            argument
        }
    });
    command.mut_subcommands(with_negative_numbers)
}

impl NodeFlags {
    /// The host part of the node's address.
    pub fn host(&self) -> String {
        self.advertise_ip
            .clone()
            .unwrap_or_else(|| self.ip.to_string())
    }

    /// The name shown to people.
    pub fn hostname(&self) -> String {
        self.hostname.clone().unwrap_or_else(|| self.host())
    }

    /// Who the node is to its peers.
    ///
    /// # Errors
    /// [`FlagError::IncompleteCertificates`] when one or two of the three files are named.
    pub fn credentials(&self) -> Result<Credentials, FlagError> {
        let missing = FlagError::IncompleteCertificates;
        match (&self.ca_file, &self.cert_file, &self.key_file) {
            (None, None, None) => Ok(Credentials::Development),
            (None, _, _) => Err(missing("--ca_file")),
            (_, None, _) => Err(missing("--cert_file")),
            (_, _, None) => Err(missing("--key_file")),
            (Some(ca), Some(certificate), Some(key)) => Ok(Credentials::Files {
                ca: ca.clone(),
                certificate: certificate.clone(),
                key: key.clone(),
            }),
        }
    }

    /// A node of this role with these flags.
    ///
    /// # Errors
    /// [`FlagError`] when the flags do not go together.
    pub fn builder(&self, role: &str, default_port: u16) -> Result<NodeBuilder, FlagError> {
        if self.ip.is_unspecified() && self.advertise_ip.is_none() {
            return Err(FlagError::Unspecified(self.ip));
        }
        Ok(Node::builder()
            .host(&self.host())
            .bind(self.ip)
            .port(self.port.unwrap_or(default_port))
            .role(role)
            .credentials(self.credentials()?))
    }

    /// Comes when the program is to end: on SIGINT or SIGTERM, or when the program that supervises it is gone.
    ///
    /// # Errors
    /// When the system refuses to tell of signals.
    pub async fn told_to_end(&self) -> std::io::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (closed, supervisor) = tokio::sync::oneshot::channel();
        let supervised = self.supervised;
        if supervised {
            std::thread::spawn(move || {
                let copied = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
                tracing::debug!(?copied, "standard input is closed");
                // The program may be ending already.
                let _gone = closed.send(());
            });
        }
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = supervisor, if supervised => tracing::warn!("the supervisor is gone: ending"),
        }
        Ok(())
    }

    /// Whether only this machine can reach the node.
    pub fn is_loopback(&self) -> bool {
        self.ip.is_loopback()
    }

    /// Sends what is logged to standard error. A filter that cannot be read is complained about there and falls back
    /// to `info`.
    pub fn init_logging(&self) {
        logging::init(&self.logging_level);
    }
}

impl Default for NodeFlags {
    fn default() -> Self {
        Self {
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: None,
            advertise_ip: None,
            hostname: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            logging_level: "info".to_owned(),
            supervised: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_files_go_together() {
        let flags = NodeFlags {
            cert_file: Some("c.pem".into()),
            ..NodeFlags::default()
        };
        assert!(matches!(
            flags.credentials(),
            Err(FlagError::IncompleteCertificates("--ca_file"))
        ));
        assert!(matches!(
            NodeFlags::default().credentials(),
            Ok(Credentials::Development)
        ));
    }

    #[test]
    fn a_number_below_zero_is_the_value_of_its_flag() {
        #[derive(Debug, Parser)]
        struct Flags {
            #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
            count: Option<u16>,
            #[arg(long)]
            quiet: bool,
        }
        let command = with_negative_numbers(<Flags as clap::CommandFactory>::command());
        let error = command.try_get_matches_from(["x", "--count", "-3"]);
        let text = error.unwrap_err().to_string();
        assert!(text.contains("'-3' for '--count"), "{text}");
        let flags = Flags::try_parse_from(["x", "--count", "3", "--quiet"]).unwrap();
        assert_eq!((flags.count, flags.quiet), (Some(3), true));
    }

    #[test]
    fn an_unspecified_address_needs_an_advertised_one() {
        let mut flags = NodeFlags {
            ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            ..NodeFlags::default()
        };
        assert!(flags.builder("agent", 5051).is_err());
        flags.advertise_ip = Some("10.0.0.7".into());
        assert_eq!(
            (flags.builder("agent", 5051).is_ok(), flags.hostname()),
            (true, "10.0.0.7".to_owned())
        );
    }
}
