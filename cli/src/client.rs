//! A small HTTP client for the JSON endpoints of masters and agents.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest wait for an answer.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

/// The JSON at `http://<address><path>`.
pub(crate) async fn get_json(address: &str, path: &str) -> anyhow::Result<serde_json::Value> {
    let body = tokio::time::timeout(LIMIT, get(address, path))
        .await
        .with_context(|| {
            format!("{address} does not answer: is it running and is the address right?")
        })??;
    serde_json::from_slice(&body).with_context(|| format!("http://{address}{path} is no JSON"))
}

async fn get(address: &str, path: &str) -> anyhow::Result<Bytes> {
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
        let body = response.into_body().collect().await?.to_bytes();
        anyhow::Ok((status, body))
    };
    let (answer, driven) = tokio::join!(exchange, connection);
    let (status, body) = answer?;
    if let Err(error) = driven {
        tracing::debug!(%error, "connection ended badly after its answer");
    }
    if !status.is_success() {
        bail!(
            "http://{address}{path} answers {status}: {}",
            String::from_utf8_lossy(&body)
        );
    }
    Ok(body)
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
