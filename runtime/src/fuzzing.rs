//! Decoders that nobody outside this crate calls, for its fuzz targets. Not part of the interface: what is here may
//! change or go at any time.

use std::collections::BTreeMap;

use axum::extract::Query;
use axum::http::Uri;

use crate::codec::CodecError;
use crate::http::auth::bearer::TokenKey;
use crate::http::{HttpLimits, auth, framing, split_path};
use crate::transport::{quic, unix};

/// Reads the body of a node's Hello and writes it again.
///
/// # Errors
/// [`CodecError`] when it is none.
pub fn hello(body: &[u8]) -> Result<Vec<u8>, CodecError> {
    quic::read_hello(body)
}

/// Reads the body of a guest's Hello on a Unix socket and writes it again.
///
/// # Errors
/// [`CodecError`] when it is none.
pub fn guest_hello(body: &[u8]) -> Result<Vec<u8>, CodecError> {
    unix::read_hello(body)
}

/// Reads the body of a host's answer on a Unix socket and writes it again.
///
/// # Errors
/// [`CodecError`] when it is none.
pub fn host_answer(body: &[u8]) -> Result<Vec<u8>, CodecError> {
    unix::read_answer(body)
}

/// Reads the words of a control stream, given in pieces of this size, and writes them again.
pub fn control_words(bytes: &[u8], piece: usize) -> Vec<u8> {
    quic::read_words(bytes, piece)
}

/// Reads the target of an HTTP request as the server does: id of the process, path below it, query parameters.
pub fn http_target(target: &[u8]) -> Option<(String, String, BTreeMap<String, String>)> {
    let uri = Uri::try_from(target).ok()?;
    let Query(query) = Query::<BTreeMap<String, String>>::try_from_uri(&uri).ok()?;
    let (id, path) = split_path(uri.path());
    Some((id.to_owned(), path.to_owned(), query))
}

/// What of these bytes, which come in pieces of this size, the HTTP server gets to see as requests, and whether one was
/// refused.
pub fn http_requests(bytes: &[u8], piece: usize) -> (Vec<u8>, bool) {
    let limits = HttpLimits::default();
    framing::passed(bytes, piece, limits.head())
}

/// Reads the value of a header `Authorization`, as a name and a password or as a token signed with `key`: the name, or how
/// many claims there are.
pub fn http_authorization(value: &str, key: &[u8]) -> Option<Result<String, usize>> {
    if let Some(name) = auth::name_in(value) {
        return Some(Ok(name));
    }
    let claims = TokenKey::new(key).open(value, 0).ok()?;
    Some(Err(claims.len()))
}
