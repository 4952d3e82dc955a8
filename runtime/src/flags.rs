//! Command-line flags that every program with a node has, and what they mean for its [`NodeBuilder`].
//!
//! Names are those of Mesos; each flag can also come from the environment as `MESETA_<NAME>`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgMatches, Args, Command, Parser};
use tokio::signal::unix::{SignalKind, signal};

use crate::detector::candidates::addresses_or_file;
use crate::detector::{Candidates, CandidatesError};
use crate::logging::{self, BadDirectives};
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
        value_parser = logging_level
    )]
    pub logging_level: String,
    /// Ends the program when its standard input is closed, as it is when the program that started it ends.
    #[arg(long, hide = true)]
    pub supervised: bool,
    /// All flags of the program that have a value, by [`parse_node`]; empty otherwise.
    #[arg(skip)]
    pub in_force: InForce,
}

/// Flags by their names, each with its value in the form in which it is given, as `/flags` shows them. What is neither
/// given nor has a default is not in it, nor is what may hold a secret (`hide_env_values`).
pub type InForce = BTreeMap<String, String>;

/// Why a program is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToldToEnd {
    /// SIGINT or SIGTERM: somebody wants it to.
    BySignal,
    /// The program that supervises it has ended, whether anybody wanted that or not.
    SupervisorGone,
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
/// What begins like a number below zero is taken for the value of the flag before it, so that the error names the flag.
pub fn parse<T: Parser>() -> T {
    T::parse_from(with_values_joined(std::env::args_os()))
}

/// The same for a program with a node, whose flags are then in [`NodeFlags::in_force`].
pub fn parse_node<T: Parser + AsMut<NodeFlags>>() -> T {
    try_parse_node(with_values_joined(std::env::args_os())).unwrap_or_else(|error| error.exit())
}

fn try_parse_node<T: Parser + AsMut<NodeFlags>>(
    arguments: Vec<OsString>,
) -> Result<T, clap::Error> {
    let mut command = T::command();
    let matches = command.try_get_matches_from_mut(arguments)?;
    let mut flags = T::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    flags.as_mut().in_force = in_force(&command, &matches);
    Ok(flags)
}

fn in_force(command: &Command, matches: &ArgMatches) -> InForce {
    let flags = command.get_arguments();
    let shown = flags.filter(|flag| !flag.is_hide_set() && !flag.is_hide_env_values_set());
    let shown = shown.filter_map(|flag| {
        let values = matches.get_raw(flag.get_id().as_str())?;
        let values: Vec<_> = values.map(OsStr::to_string_lossy).collect();
        Some((flag.get_long()?.to_owned(), values.join(",")))
    });
    shown.collect()
}

/// `--interval -1s` as `--interval=-1s`: else `-1s` would be taken for a flag of its own.
fn with_values_joined(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut all: Vec<OsString> = Vec::new();
    let mut flags_ended = false;
    for argument in arguments {
        let bytes = argument.as_encoded_bytes();
        flags_ended |= bytes == b"--";
        let is_negative = matches!(bytes, [b'-', b'0'..=b'9' | b'.', ..]);
        match all.last_mut() {
            Some(flag) if is_negative && !flags_ended && is_long(flag) => {
                flag.push("=");
                flag.push(argument);
            }
            Some(_) | None => all.push(argument),
        }
    }
    all
}

/// Whether it is a flag such as `--interval`, without a value.
fn is_long(argument: &OsStr) -> bool {
    let bytes = argument.as_encoded_bytes();
    bytes.len() > 2 && bytes.starts_with(b"--") && !bytes.contains(&b'=')
}

/// The value of a flag that is a length of time, such as `90secs`.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| {
        let why = if text.trim_start().starts_with('-') {
            "it is below zero".to_owned()
        } else {
            error.to_string()
        };
        format!("{why}: write 0secs or more, such as 100ms, 90secs or 5mins")
    })
}

/// The value of `--logging_level`.
///
/// # Errors
/// [`BadDirectives`].
pub fn logging_level(text: &str) -> Result<String, BadDirectives> {
    logging::directives::parse(text).map(|_| text.to_owned())
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

    /// Comes when the program is to end, and says who wants it. What it needs of the system it has before it returns,
    /// so that nobody can use that up: call it before the node starts, where a runtime of tokio with its drivers is
    /// entered.
    ///
    /// # Errors
    /// When the system refuses to tell of signals.
    pub fn told_to_end(&self) -> std::io::Result<impl Future<Output = ToldToEnd> + use<>> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (closed, supervisor) = tokio::sync::oneshot::channel();
        let supervised = self.supervised;
        if supervised {
            std::thread::Builder::new().spawn(move || {
                let copied = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
                tracing::debug!(?copied, "standard input is closed");
                // The program may be ending already.
                let _gone = closed.send(());
            })?;
        }
        Ok(async move {
            tokio::select! {
                biased;
                _ = interrupt.recv() => ToldToEnd::BySignal,
                _ = terminate.recv() => ToldToEnd::BySignal,
                _ = supervisor, if supervised => {
                    tracing::warn!("the supervisor is gone: ending");
                    ToldToEnd::SupervisorGone
                }
            }
        })
    }

    /// Whether only this machine can reach the node.
    pub fn is_loopback(&self) -> bool {
        self.ip.is_loopback()
    }

    /// Sends what is logged to standard error.
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
            in_force: InForce::new(),
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

    #[derive(Debug, Parser)]
    struct Own {
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        count: Option<u16>,
        #[arg(long, value_parser = duration)]
        wait: Option<Duration>,
        #[arg(long)]
        quiet: bool,
        #[arg(long, value_delimiter = ',')]
        names: Vec<String>,
        #[arg(long, hide_env_values = true)]
        passwords: Option<String>,
        #[command(flatten)]
        node: NodeFlags,
    }

    impl AsMut<NodeFlags> for Own {
        fn as_mut(&mut self) -> &mut NodeFlags {
            &mut self.node
        }
    }

    #[test]
    fn flags_in_force_are_shown_as_they_are_given() {
        let arguments = [
            "x",
            "--wait=90secs",
            "--supervised",
            "--names=a,b",
            "--passwords=p",
        ];
        let own: Own = try_parse_node(arguments.map(OsString::from).into()).unwrap();
        let shown = own.node.in_force;
        let of = |name: &str| shown.get(name).map(String::as_str);
        for (name, value) in [
            ("wait", Some("90secs")),
            ("quiet", Some("false")),
            ("ip", Some("127.0.0.1")),
            ("logging_level", Some("info")),
            ("names", Some("a,b")),
            ("count", None),
            ("supervised", None),
            ("passwords", None),
            ("help", None),
        ] {
            assert_eq!(of(name), value, "{name}");
        }
        assert!(try_parse_node::<Own>(vec!["x".into(), "--count=0".into()]).is_err());
    }

    fn own(arguments: &[&str]) -> Result<Own, String> {
        let all = ["x"].iter().chain(arguments).map(OsString::from);
        Own::try_parse_from(with_values_joined(all)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_bad_value_is_told_with_its_flag_and_what_would_be_right() {
        for (arguments, flag, right) in [
            (&["--count", "-3"][..], "'-3' for '--count", "1..=65535"),
            (&["--count", "0"], "'0' for '--count", "1..=65535"),
            (&["--wait", "-1s"], "'-1s' for '--wait", "0secs or more"),
            (&["--wait", "-.5s"], "'-.5s' for '--wait", "0secs or more"),
            (&["--wait", "soon"], "'soon' for '--wait", "90secs"),
            (&["--wait", "5"], "'5' for '--wait", "90secs"),
            (&["--quiet", "-3"], "'-3' for '--quiet", ""),
            (
                &["--logging_level", "loud"],
                "'loud' for '--logging_level",
                "use error, warn",
            ),
            (
                &["--logging_level", "a=loud"],
                "'a=loud' for '--logging_level",
                "use error, warn",
            ),
            (&["--logging_level="], "for '--logging_level", ""),
        ] {
            let text = own(arguments).unwrap_err();
            assert!(
                text.contains(flag) && text.contains(right),
                "{arguments:?}: {text}"
            );
        }
        let fine = own(&[
            "--count",
            "3",
            "--wait",
            "1m",
            "--quiet",
            "--logging_level",
            "INFO",
        ])
        .unwrap();
        assert_eq!(
            (
                fine.count,
                fine.wait,
                fine.quiet,
                fine.node.logging_level.as_str()
            ),
            (Some(3), Some(Duration::from_secs(60)), true, "INFO")
        );
    }

    #[test]
    fn only_what_begins_like_a_negative_number_is_joined_to_the_flag_before_it() {
        let joined = |all: &[&str]| {
            let all = with_values_joined(all.iter().map(OsString::from));
            all.iter()
                .map(|one| one.to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(joined(&["x", "--a", "-1s", "--b"]), ["x", "--a=-1s", "--b"]);
        for same in [
            &["x", "--a", "--b", "-f"][..],
            &["x", "--a=1", "-2"],
            &["x", "a", "-2"],
            &["x", "--", "-2"],
            &["x", "--a", "--", "--b", "-2"],
        ] {
            assert_eq!(joined(same), same);
        }
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
