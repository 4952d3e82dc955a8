//! Bodies of calls, as they come from clients.
//!
//! Nobody gives way while a request is in hand, so none may be in hand for ever. Whoever has proven nothing, where that
//! counts, sends little: it costs memory, and time to read. Source: http.md §1.

use axum::http::{HeaderMap, header};
use futures::StreamExt as _;

use super::access::{Caller, Need};
use super::readers::Readers;
use super::{HttpLimits, Response};

/// Longest body of somebody who may change nothing, in bytes: enough for every question.
const UNPROVEN_BODY: usize = 64 << 10;

/// The body of a call, inflated if need be, or the answer to who sends none that is taken.
pub(super) async fn of_call(
    headers: &HeaderMap,
    body: axum::body::Body,
    (limits, readers): (HttpLimits, &Readers),
    caller: &Caller,
) -> Result<bytes::Bytes, Response> {
    let patience = limits.patience;
    let denied = caller.may(Need::OwnChange).err();
    let most = match denied {
        Some(_) => limits.body.min(UNPROVEN_BODY),
        None => limits.body,
    };
    let last = |response: Response| response.with_header("connection", "close");
    let too_long = || match denied {
        Some(why) => last(why.into()),
        None => {
            let text = format!(
                "The body is longer than {most} bytes: send less at a time. See --max_http_body."
            );
            last(Response::text(413, text))
        }
    };
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    // Before a client that waits to be told has sent it.
    if length.is_some_and(|length| usize::try_from(length).is_ok_and(|length| length > most)) {
        return Err(too_long());
    }
    let body = match tokio::time::timeout(patience, whole(body, most)).await {
        Ok(Ok(Some(body))) => body,
        Ok(Ok(None)) => return Err(too_long()),
        Ok(Err(_)) => {
            let text = "The body is cut off, or its chunks cannot be read.";
            return Err(last(Response::text(400, text)));
        }
        Err(_) => {
            let text = format!("The body did not come within {patience:?}: try again.");
            return Err(last(Response::text(408, text)));
        }
    };
    if !is_gzip(headers) {
        return Ok(body);
    }
    match readers.inflate(body, most).await {
        Some(Ok(Some(body))) => Ok(body.into()),
        Some(Ok(None)) => Err(too_long()),
        Some(Err(error)) => {
            let text = format!("The body is not in gzip, as its Content-Encoding has it: {error}.");
            Err(Response::text(400, text))
        }
        None => Err(last(Response::text(
            503,
            "The node is ending: try elsewhere.",
        ))),
    }
}

/// Whether a body is compressed. Other encodings than gzip are passed over, as Mesos does.
fn is_gzip(headers: &HeaderMap) -> bool {
    let encoding = headers.get(header::CONTENT_ENCODING);
    encoding.is_some_and(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"gzip"))
}

/// A body in whole; none when it is longer than `most` bytes.
async fn whole(body: axum::body::Body, most: usize) -> Result<Option<bytes::Bytes>, axum::Error> {
    let mut parts = body.into_data_stream();
    let mut all = bytes::BytesMut::new();
    while let Some(part) = parts.next().await {
        let part = part?;
        if all.len() + part.len() > most {
            return Ok(None);
        }
        all.extend_from_slice(&part);
    }
    Ok(Some(all.freeze()))
}
