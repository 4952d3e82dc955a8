//! A small HTTP client for the JSON endpoints of masters and agents.

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use meseta_runtime::flags;
use meseta_runtime::http::auth::{basic, credentials};
use meseta_runtime::http::tls::Dial;

use crate::out;

/// Longest wait for an answer.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

/// Redirects that are followed: a master that does not lead names the one that does, which may have changed meanwhile.
const MOST_REDIRECTS: usize = 3;

/// How to speak HTTP with masters and agents.
#[derive(Debug, Clone, Default, Args)]
#[group(skip)]
#[command(next_help_heading = "HTTP")]
pub(crate) struct HttpFlags {
    /// Speak HTTP over TLS, with nodes whose certificates an authority of this PEM file has signed.
    #[arg(long = "http_ca_file", env = "MESETA_HTTP_CA_FILE", global = true)]
    http_ca_file: Option<PathBuf>,
    /// Who to be for nodes that ask for it over HTTP.
    #[arg(long = "http_principal", env = "MESETA_HTTP_PRINCIPAL", global = true)]
    http_principal: Option<String>,
    /// File with the password of --http_principal.
    #[arg(
        long = "http_secret_file",
        env = "MESETA_HTTP_SECRET_FILE",
        global = true
    )]
    http_secret_file: Option<PathBuf>,
}

/// What the flags mean: how to connect, and what to show.
#[derive(Default)]
struct Access {
    dial: Dial,
    authorization: Option<String>,
}

/// The same for all requests of the program, which runs one command.
static ACCESS: OnceLock<Access> = OnceLock::new();

impl HttpFlags {
    /// Has all requests made so from now on.
    pub(crate) fn use_for_all(&self) -> anyhow::Result<()> {
        let access = self.access()?;
        // Nothing was asked for before.
        let _first = ACCESS.set(access);
        Ok(())
    }

    fn access(&self) -> anyhow::Result<Access> {
        let dial = match &self.http_ca_file {
            Some(file) => Dial::trusting(file).context("--http_ca_file")?,
            None => Dial::Plain,
        };
        let authorization = match (&self.http_principal, &self.http_secret_file) {
            (None, None) => None,
            (Some(principal), Some(file)) => {
                let secret = std::fs::read_to_string(file).with_context(|| {
                    format!("--http_secret_file: cannot read {}", file.display())
                })?;
                if credentials::has_readers(file) {
                    out::complain(&format!(
                        "warning: others may read --http_secret_file {}: chmod 600 it",
                        file.display()
                    ));
                }
                // Editors end a file with a line.
                let secret = secret.strip_suffix('\n').unwrap_or(&secret);
                Some(basic::write(
                    principal,
                    secret.strip_suffix('\r').unwrap_or(secret),
                ))
            }
            (Some(_), None) | (None, Some(_)) => {
                bail!("--http_principal and --http_secret_file go together")
            }
        };
        Ok(Access {
            dial,
            authorization,
        })
    }
}

/// Whether it is an address of this machine, from which nobody else reads what is sent there.
fn is_here(address: &str) -> bool {
    let address: Result<meseta_runtime::Address, _> = address.parse();
    address.is_ok_and(|address| address.is_loopback())
}

/// The addresses that a flag `--master` means: one, a list, or a file with a list.
pub(crate) fn addresses(masters: &str) -> anyhow::Result<Vec<String>> {
    let all = flags::addresses(masters).context("--master")?;
    Ok(all.iter().map(ToString::to_string).collect())
}

/// The JSON at `path` of the first of these nodes that answers; masters send to the one that leads.
pub(crate) async fn get_json(nodes: &str, path: &str) -> anyhow::Result<serde_json::Value> {
    as_json(&get_any(nodes, path).await?, path)
}

/// The text there.
pub(crate) async fn get_text(nodes: &str, path: &str) -> anyhow::Result<String> {
    let body = get_any(nodes, path).await?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

async fn get_any(nodes: &str, path: &str) -> anyhow::Result<Bytes> {
    let mut failed = None;
    for address in addresses(nodes)? {
        match body_at(&address, path).await {
            Ok(answer) => return Ok(answer),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| anyhow::anyhow!("--master names no address")))
}

fn as_json(body: &[u8], path: &str) -> anyhow::Result<serde_json::Value> {
    serde_json::from_slice(body).with_context(|| format!("what is at {path} is no JSON"))
}

/// Where the leader of these masters is; the address itself when there is only one.
pub(crate) async fn leader(masters: &str) -> anyhow::Result<String> {
    let all = addresses(masters)?;
    if let [only] = &all[..] {
        return Ok(only.clone());
    }
    let state = get_json(masters, "/election(1)/state").await?;
    let leader = state["leader"].as_str().map(str::to_owned);
    leader.with_context(|| format!("no master of {masters} leads at the moment: try again"))
}

/// The JSON at `http://<address><path>`, or where that sends to.
pub(crate) async fn ask(address: &str, path: &str) -> anyhow::Result<serde_json::Value> {
    as_json(&body_at(address, path).await?, path)
}

async fn body_at(address: &str, path: &str) -> anyhow::Result<Bytes> {
    let mut at = (address.to_owned(), path.to_owned());
    for _ in 0..=MOST_REDIRECTS {
        let (address, path) = &at;
        let answer = tokio::time::timeout(LIMIT, get(address, path))
            .await
            .with_context(|| {
                format!("{address} does not answer: is it running and is the address right?")
            })??;
        match answer {
            Answer::Body(body) => return Ok(body),
            Answer::Elsewhere(location) => at = location,
        }
    }
    bail!("the masters send from one to the other: none leads at the moment, try again")
}

enum Answer {
    Body(Bytes),
    /// Address and path to ask instead.
    Elsewhere((String, String)),
}

/// Address and path of a location such as `//host:port/path`.
fn elsewhere(location: &str) -> Option<(String, String)> {
    let rest = location.strip_prefix("http:").unwrap_or(location);
    let rest = rest.strip_prefix("https:").unwrap_or(rest);
    let rest = rest.strip_prefix("//")?;
    let (address, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    Some((address.to_owned(), path.to_owned()))
}

async fn get(address: &str, path: &str) -> anyhow::Result<Answer> {
    let access = ACCESS.get_or_init(Access::default);
    let stream = access.dial.connect(address).await.with_context(|| {
        format!("cannot connect to {address}: is it running and is the address right?")
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::get(path)
        .header("Host", address)
        .header("Connection", "close");
    if let Some(authorization) = &access.authorization {
        if access.dial.is_plain() && !is_here(address) {
            bail!(
                "a password for {address} is sent over TLS only: name its authority with --http_ca_file"
            );
        }
        request = request.header("Authorization", authorization);
    }
    let request = request.body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let location = response.headers().get(hyper::header::LOCATION).cloned();
        let body = response.into_body().collect().await?.to_bytes();
        anyhow::Ok((status, location, body))
    };
    let (answer, driven) = tokio::join!(exchange, connection);
    let (status, location, body) = answer?;
    if let Err(error) = driven {
        tracing::debug!(%error, "connection ended badly after its answer");
    }
    let location = location.as_ref().and_then(|text| text.to_str().ok());
    if status.is_redirection()
        && let Some(there) = location.and_then(elsewhere)
    {
        return Ok(Answer::Elsewhere(there));
    }
    if !status.is_success() {
        let told = String::from_utf8_lossy(&body);
        let scheme = if access.dial.is_plain() {
            "http"
        } else {
            "https"
        };
        bail!(
            "{scheme}://{address}{path} answers {status}: {told}{}",
            hint(status.as_u16(), access)
        );
    }
    Ok(Answer::Body(body))
}

/// What a caller who was not let in can do about it, in flags of this command: what a node tells names its own.
fn hint(status: u16, access: &Access) -> &'static str {
    match (status, access.dial.is_plain(), &access.authorization) {
        (401, _, None) => " Say who you are with --http_principal and --http_secret_file.",
        (401, _, Some(_)) => {
            " The node does not know this --http_principal with the password of --http_secret_file."
        }
        (403, true, _) => {
            " Speak TLS with the node: --http_ca_file, and who you are with --http_principal and --http_secret_file."
        }
        (403, false, None) => " Say who you are with --http_principal and --http_secret_file.",
        _ => "",
    }
}

/// Text made safe for a query: everything but unreserved characters as %XX.
pub(crate) fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_names_another_address_and_a_path() {
        let there = |text| elsewhere(text).map(|(address, path)| format!("{address} {path}"));
        for (location, expected) in [
            ("//10.0.0.2:5050/state?x=1", "10.0.0.2:5050 /state?x=1"),
            ("http://[::1]:5050/tasks", "[::1]:5050 /tasks"),
            ("https://[::1]:5050/tasks", "[::1]:5050 /tasks"),
            ("//10.0.0.2:5050", "10.0.0.2:5050 "),
        ] {
            assert_eq!(there(location).as_deref(), Some(expected));
        }
        assert_eq!(there("/state"), None);
    }

    #[test]
    fn a_principal_and_the_file_of_its_password_go_together() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "secret\n").unwrap();
        let mut flags = HttpFlags {
            http_principal: Some("ops".to_owned()),
            ..HttpFlags::default()
        };
        assert!(flags.access().is_err());
        flags.http_secret_file = Some(file.path().to_owned());
        let shown = flags.access().unwrap().authorization;
        assert_eq!(shown, Some(basic::write("ops", "secret")));
        flags.http_principal = None;
        assert!(flags.access().is_err());
        assert!(hint(401, &Access::default()).contains("--http_principal"));
        assert!(hint(403, &Access::default()).contains("--http_ca_file"));
        assert_eq!(hint(404, &Access::default()), "");
        assert!(is_here("127.0.0.1:5050") && !is_here("10.0.0.2:5050"));
    }
}
