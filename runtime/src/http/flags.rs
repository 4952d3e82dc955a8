//! Command-line flags of HTTP that masters and agents have in common, and what they mean for a [`NodeBuilder`].
//!
//! Names are those of Mesos where it has them; each can also come from the environment as `MESETA_<NAME>`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{ArgAction, Args};

use super::HttpLimits;
use super::access::Realm;
use super::auth::Security;
use super::auth::bearer::TokenKey;
use super::auth::credentials::{Credentials, CredentialsError};
use super::cors::Origins;
use super::tls::{HttpCertificate, TlsError};
use crate::descriptors;
use crate::node::NodeBuilder;

/// Flags of HTTP. Flatten it into a program's own flags.
#[derive(Debug, Clone, Default, Args)]
#[group(skip)]
pub struct HttpFlags {
    /// File with those who can prove over HTTP who they are: {"credentials": [{"principal": .., "secret": ..}]}, where a
    /// secret is the argon2 hash of a password that `meseta credentials hash` makes.
    #[arg(
        long = "http_credentials",
        alias = "credentials",
        env = "MESETA_HTTP_CREDENTIALS"
    )]
    pub http_credentials: Option<PathBuf>,
    /// Whether who looks at something has to prove who they are. Needs --http_credentials.
    #[arg(long = "authenticate_http_readonly", env = "MESETA_AUTHENTICATE_HTTP_READONLY", action = ArgAction::Set,
        default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub authenticate_http_readonly: bool,
    /// Whether who calls endpoints that may change something has to prove who they are, on loopback as well; from other
    /// machines they have to in any case. Needs --http_credentials.
    #[arg(long = "authenticate_http_readwrite", env = "MESETA_AUTHENTICATE_HTTP_READWRITE", action = ArgAction::Set,
        default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub authenticate_http_readwrite: bool,
    /// Certificate that the HTTP port shows to those who come over TLS, PEM; the node's own when not given.
    #[arg(long = "http_cert_file", env = "MESETA_HTTP_CERT_FILE")]
    pub http_cert_file: Option<PathBuf>,
    /// Private key of --http_cert_file, PEM.
    #[arg(long = "http_key_file", env = "MESETA_HTTP_KEY_FILE")]
    pub http_key_file: Option<PathBuf>,
    /// Let anybody who can reach this node change things over HTTP and read sandboxes, in plain and without proving who
    /// they are.
    #[arg(long = "insecure_http", env = "MESETA_INSECURE_HTTP", action = ArgAction::Set, default_value_t = false,
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub insecure_http: bool,
    /// Sites whose pages may read answers over HTTP: origins such as `https://board.example` with commas between, or * for all.
    /// Pages of listed ones read with the password of who looks at them; those of all others what needs none, and no files. None
    /// may change anything.
    #[arg(
        long = "http_cors_origins",
        env = "MESETA_HTTP_CORS_ORIGINS",
        default_value = ""
    )]
    pub http_cors_origins: Origins,
    /// HTTP connections at a time; half of the files that the program may open, 512 to 10000, when not given.
    #[arg(long = "max_http_connections", env = "MESETA_MAX_HTTP_CONNECTIONS",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub max_http_connections: Option<u32>,
    /// Answers over HTTP that go on at a time, such as subscriptions; three quarters of the connections when not given.
    #[arg(long = "max_http_streams", env = "MESETA_MAX_HTTP_STREAMS",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub max_http_streams: Option<u32>,
    /// Bytes of the body of a request; 33554432 (32 MiB) when not given.
    #[arg(long = "max_http_body", env = "MESETA_MAX_HTTP_BODY",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub max_http_body: Option<u32>,
    /// Levels that a body may nest, 1 to 100; 100 when not given.
    #[arg(long = "max_http_nesting", env = "MESETA_MAX_HTTP_NESTING",
        value_parser = clap::value_parser!(u32).range(1..=100))]
    pub max_http_nesting: Option<u32>,
    /// Bytes of the head of a request, 1024 to 262144; 65536 when not given.
    #[arg(long = "max_http_head", env = "MESETA_MAX_HTTP_HEAD",
        value_parser = clap::value_parser!(u32).range(1024..=262_144))]
    pub max_http_head: Option<u32>,
    /// Headers of a request, 1 to 1000; 100 when not given.
    #[arg(long = "max_http_headers", env = "MESETA_MAX_HTTP_HEADERS",
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub max_http_headers: Option<u32>,
}

/// Why flags of HTTP do not go together.
#[derive(Debug, thiserror::Error)]
pub enum HttpFlagError {
    /// The file of credentials.
    #[error("--http_credentials")]
    Credentials(#[from] CredentialsError),
    /// Somebody has to prove what nobody can.
    #[error("--{flag} needs --{needs}: else nobody could prove who they are")]
    Needs {
        /// The flag.
        flag: &'static str,
        /// The one that is missing.
        needs: &'static str,
    },
    /// Everybody may change everything, and so may the pages that anybody looks at.
    #[error(
        "--insecure_http lets everybody change everything, so the pages of the sites in --http_cors_origins could do so \
         through whoever looks at them: leave one of the two away, or let pages read only, with --http_cors_origins=*"
    )]
    PagesThatChange,
    /// A certificate without a key, or the reverse.
    #[error("--http_cert_file and --http_key_file go together")]
    HalfCertificate,
    /// The certificate.
    #[error("--http_cert_file, --http_key_file")]
    Certificate(#[from] TlsError),
    /// The key of tokens.
    #[error("--jwt_secret_key: {0}")]
    Tokens(String),
}

/// What a component has besides.
#[derive(Debug, Clone, Default)]
pub struct Component {
    /// What the names of its realms begin with, such as `mesos-master`.
    pub realms: &'static str,
    /// Its own realm, with the flag that guards it, when that flag is set and passwords guard it.
    pub guarded: Option<(Realm, &'static str)>,
    /// Its own realm, when tokens guard it.
    pub tokened: Option<Realm>,
    /// Key of tokens.
    pub tokens: Option<TokenKey>,
}

impl HttpFlags {
    /// Makes a node serve HTTP so.
    ///
    /// # Errors
    /// [`HttpFlagError`].
    pub fn apply(
        &self,
        builder: NodeBuilder,
        component: Component,
    ) -> Result<NodeBuilder, HttpFlagError> {
        let security = self.security(component)?;
        let builder = builder.http_limits(self.limits()).http_security(security);
        match (&self.http_cert_file, &self.http_key_file) {
            (None, None) => Ok(builder),
            (Some(chain), Some(key)) => {
                Ok(builder.http_certificate(HttpCertificate::read(chain, key)?))
            }
            (Some(_), None) | (None, Some(_)) => Err(HttpFlagError::HalfCertificate),
        }
    }

    fn security(&self, component: Component) -> Result<Security, HttpFlagError> {
        let credentials = self.http_credentials.as_deref().map(|path| {
            // As Mesos lets a path be written.
            let plain = path.to_str().and_then(|path| path.strip_prefix("file://"));
            Credentials::read(plain.map_or(path, Path::new)).map(Arc::new)
        });
        let credentials = credentials.transpose()?;
        // A page could change everything then, through whoever looks at it.
        if self.insecure_http && self.http_cors_origins.depend() {
            return Err(HttpFlagError::PagesThatChange);
        }
        let mut guarded: Vec<_> = component.guarded.into_iter().collect();
        if self.authenticate_http_readonly {
            guarded.push((Realm::ReadOnly, "authenticate_http_readonly"));
        }
        if self.authenticate_http_readwrite {
            guarded.push((Realm::ReadWrite, "authenticate_http_readwrite"));
        }
        if let (Some((_, flag)), None) = (guarded.first(), &credentials) {
            let needs = "http_credentials";
            return Err(HttpFlagError::Needs { flag, needs });
        }
        let guarded = guarded.into_iter().map(|(realm, _)| realm);
        Ok(Security {
            realms: component.realms,
            guarded: guarded.chain(component.tokened).collect(),
            credentials,
            tokens: component.tokens,
            trusts_anybody: self.insecure_http,
            origins: self.http_cors_origins.clone(),
        })
    }

    fn limits(&self) -> HttpLimits {
        let size = |given: Option<u32>| given.and_then(|given| usize::try_from(given).ok());
        let usual = HttpLimits::for_files(descriptors::limit());
        let connections = size(self.max_http_connections).unwrap_or(usual.connections);
        let streams = size(self.max_http_streams);
        HttpLimits {
            connections,
            streams: streams.unwrap_or_else(|| HttpLimits::streams_of(connections)),
            body: size(self.max_http_body).unwrap_or(usual.body),
            nesting: size(self.max_http_nesting).unwrap_or(usual.nesting),
            head: size(self.max_http_head).unwrap_or(usual.head),
            headers: size(self.max_http_headers).unwrap_or(usual.headers),
            patience: usual.patience,
        }
    }

    /// Says loudly what a node lets everybody do that can be reached from elsewhere.
    pub fn warn_if_insecure(&self, is_loopback: bool) {
        if self.insecure_http && !is_loopback {
            tracing::warn!(
                "--insecure_http: WHOEVER CAN REACH THIS NODE CAN CHANGE EVERYTHING OVER HTTP AND READ EVERY SANDBOX, \
                 and whoever can read the network sees it"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::node::Node;

    #[derive(Debug, Parser)]
    struct Own {
        #[command(flatten)]
        http: HttpFlags,
    }

    fn flags(all: &[&str]) -> HttpFlags {
        let all = ["x"].iter().chain(all);
        Own::try_parse_from(all).unwrap().http
    }

    fn refused(all: &[&str], component: Component) -> String {
        let applied = flags(all).apply(Node::builder(), component);
        crate::error_chain(&applied.err().unwrap())
    }

    #[test]
    fn what_nobody_could_prove_is_not_asked_for() {
        for flag in ["authenticate_http_readonly", "authenticate_http_readwrite"] {
            let told = refused(&[&format!("--{flag}")], Component::default());
            let expected = format!("--{flag} needs --http_credentials");
            assert!(told.starts_with(&expected), "{told}");
        }
        let component = Component {
            guarded: Some((Realm::Own("scheduler"), "authenticate_http_frameworks")),
            ..Component::default()
        };
        let told = refused(&[], component);
        assert!(
            told.starts_with("--authenticate_http_frameworks needs"),
            "{told}"
        );
    }

    #[test]
    fn pages_of_other_sites_may_not_change_what_everybody_may() {
        let listed = "--http_cors_origins=https://board.example";
        let told = refused(&["--insecure_http=true", listed], Component::default());
        assert!(told.starts_with("--insecure_http lets everybody"), "{told}");
        for fine in [
            &[listed][..],
            &["--insecure_http=true", "--http_cors_origins=*"],
        ] {
            assert!(
                flags(fine).security(Component::default()).is_ok(),
                "{fine:?}"
            );
        }
    }

    #[test]
    fn files_are_named_when_they_cannot_be_used() {
        for (given, told) in [
            (&["--http_credentials=/no/such"][..], "/no/such"),
            (
                &["--http_credentials=file:///no/such"],
                "cannot read /no/such",
            ),
            (&["--http_cert_file=/no/such"], "go together"),
            (&["--http_key_file=/no/such"], "go together"),
            (
                &["--http_cert_file=/no/c", "--http_key_file=/no/k"],
                "/no/k",
            ),
        ] {
            let text = refused(given, Component::default());
            assert!(text.contains(told), "{given:?}: {text}");
        }
    }

    #[test]
    fn limits_are_those_of_the_flags() {
        let limits = flags(&[
            "--max_http_connections=8",
            "--max_http_body=9",
            "--max_http_nesting=10",
            "--max_http_head=1024",
            "--max_http_headers=12",
        ])
        .limits();
        let numbers = [
            limits.connections,
            limits.streams,
            limits.body,
            limits.nesting,
            limits.head,
            limits.headers,
        ];
        assert_eq!(numbers, [8, 6, 9, 10, 1024, 12]);
        assert_eq!(flags(&["--max_http_streams=7"]).limits().streams, 7);
        for bad in [
            "--max_http_connections=0",
            "--max_http_nesting=101",
            "--max_http_head=100",
            "--max_http_headers=0",
            "--max_http_body=-1",
        ] {
            let error = Own::try_parse_from(["x", bad]).unwrap_err().to_string();
            let flag = bad.split('=').next().unwrap();
            assert!(error.contains(flag), "{error}");
        }
    }
}
