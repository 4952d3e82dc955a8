//! A small HTTP client for the JSON endpoints of masters and agents.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use meseta_runtime::flags;
use tokio::net::TcpStream;

/// Longest wait for an answer.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

/// Redirects that are followed: a master that does not lead names the one that does, which may have changed meanwhile.
const MOST_REDIRECTS: usize = 3;

/// The addresses that a flag `--master` means: one, a list, or a file with a list.
pub(crate) fn addresses(masters: &str) -> anyhow::Result<Vec<String>> {
    let all = flags::addresses(masters).context("--master")?;
    Ok(all.iter().map(ToString::to_string).collect())
}

/// The JSON at `path` of the first of these nodes that answers; masters send to the one that leads.
pub(crate) async fn get_json(nodes: &str, path: &str) -> anyhow::Result<serde_json::Value> {
    let mut failed = None;
    for address in addresses(nodes)? {
        match ask(&address, path).await {
            Ok(answer) => return Ok(answer),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| anyhow::anyhow!("--master names no address")))
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
    let mut at = (address.to_owned(), path.to_owned());
    for _ in 0..=MOST_REDIRECTS {
        let (address, path) = &at;
        let answer = tokio::time::timeout(LIMIT, get(address, path))
            .await
            .with_context(|| {
                format!("{address} does not answer: is it running and is the address right?")
            })??;
        match answer {
            Answer::Body(body) => {
                return serde_json::from_slice(&body)
                    .with_context(|| format!("http://{address}{path} is no JSON"));
            }
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
    let rest = rest.strip_prefix("//")?;
    let (address, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    Some((address.to_owned(), path.to_owned()))
}

async fn get(address: &str, path: &str) -> anyhow::Result<Answer> {
    let stream = TcpStream::connect(address).await.with_context(|| {
        format!("cannot connect to {address}: is it running and is the address right?")
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header("Host", address)
        .header("Connection", "close")
        .body(Empty::<Bytes>::new())?;
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
        bail!(
            "http://{address}{path} answers {status}: {}",
            String::from_utf8_lossy(&body)
        );
    }
    Ok(Answer::Body(body))
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
            ("//10.0.0.2:5050", "10.0.0.2:5050 "),
        ] {
            assert_eq!(there(location).as_deref(), Some(expected));
        }
        assert_eq!(there("/state"), None);
    }
}
