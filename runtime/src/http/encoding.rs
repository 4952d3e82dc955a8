//! Whether an answer is sent compressed, and how it is.
//!
//! Source: http.md §1; RFC 9110, 12.5.3.

use std::io::{self, Read as _, Write as _};

use axum::http::{HeaderValue, header};
use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

/// Shortest body that is compressed, in bytes, as in Mesos: less fits into one packet anyway.
pub(super) const LEAST: usize = 1024;

/// Whether a client takes gzip (`Accept-Encoding`), and would not rather have what is sent plain.
pub(super) fn takes_gzip(accepted: &str) -> bool {
    let weight_of = |names: &[&str]| {
        let mut all = accepted.split(',').map(|one| {
            let (name, parameters) = one.split_once(';').unwrap_or((one, ""));
            (name.trim(), weight(parameters))
        });
        all.find(|(name, _)| names.iter().any(|known| known.eq_ignore_ascii_case(name)))
            .map(|(_, weight)| weight)
    };
    let gzip = weight_of(&["gzip", "x-gzip"]).or_else(|| weight_of(&["*"]));
    let plain = weight_of(&["identity"]).unwrap_or(0.0);
    gzip.is_some_and(|gzip| gzip > 0.0 && gzip >= plain)
}

/// How much something is wanted, from 0 to 1; what cannot be read is not wanted.
fn weight(parameters: &str) -> f32 {
    let parameters = parameters.trim();
    if parameters.is_empty() {
        return 1.0;
    }
    let value = parameters.strip_prefix(['q', 'Q']).map(str::trim_start);
    let value = value.and_then(|rest| rest.strip_prefix('='));
    let weight = value.and_then(|text| text.trim().parse::<f32>().ok());
    weight
        .filter(|weight| (0.0..=1.0).contains(weight))
        .unwrap_or(0.0)
}

/// Whether what is of this type gets much shorter.
pub(super) fn is_compressible(kind: Option<&HeaderValue>) -> bool {
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    [super::JSON, "application/x-protobuf"].contains(&kind) || kind.starts_with("text/")
}

/// A body in gzip; none when it is no shorter so. Fast rather than thorough: networks are, too.
pub(super) fn gzip(body: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory cannot fail.
    encoder.write_all(body).ok()?;
    let shorter = encoder.finish().ok()?;
    (shorter.len() < body.len()).then_some(shorter)
}

/// What was compressed into a body; none when it is longer than `most` bytes.
///
/// # Errors
/// When it is no gzip, or something follows it.
pub(super) fn gunzip(body: &[u8], most: usize) -> io::Result<Option<Vec<u8>>> {
    let mut decoder = GzDecoder::new(body);
    let mut all = Vec::new();
    let room = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    (&mut decoder).take(room).read_to_end(&mut all)?;
    if all.len() > most {
        return Ok(None);
    }
    if decoder.into_inner().is_empty() {
        Ok(Some(all))
    } else {
        Err(io::Error::other("something follows it"))
    }
}

/// That what is sent depends on what the client takes.
pub(super) const VARY: (header::HeaderName, HeaderValue) =
    (header::VARY, HeaderValue::from_static("Accept-Encoding"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_for_those_who_take_it_and_do_not_want_it_plain() {
        for taken in [
            "gzip",
            "GZIP",
            "x-gzip",
            "deflate, gzip;q=0.5",
            "gzip ; q=1.0,identity;q=0.5",
            "*",
            "br, *;q=0.1",
            "gzip;Q=0.001",
        ] {
            assert!(takes_gzip(taken), "{taken}");
        }
        for refused in [
            "",
            "identity",
            "br",
            "gzip;q=0",
            "gzip;q=0.000, *",
            "*;q=0",
            "gzip;q=9",
            "gzip;q=x",
            "gzip;q=NaN",
            "gzip;level=1",
            "identity, gzip;q=0.5",
            "gzipped",
        ] {
            assert!(!takes_gzip(refused), "{refused}");
        }
    }

    #[test]
    fn what_gets_shorter_comes_back_whole() {
        let body = "{\"id\":\"S0\"},".repeat(1000);
        let shorter = gzip(body.as_bytes()).unwrap();
        assert!(shorter.len() < body.len() / 10);
        let back = |most: usize| gunzip(&shorter, most).unwrap();
        assert_eq!(back(body.len()).as_deref(), Some(body.as_bytes()));
        assert_eq!(back(body.len() - 1), None);
        for bad in [&b"x"[..], b"", &shorter[..9], &[&*shorter, b"x"].concat()] {
            assert!(gunzip(bad, body.len()).is_err(), "{bad:?}");
        }
        assert_eq!(gzip(b"x"), None);
    }

    #[test]
    fn files_are_sent_as_they_are() {
        let is = |kind: &'static str| is_compressible(Some(&HeaderValue::from_static(kind)));
        assert!(is(super::super::JSON) && is(super::super::TEXT) && is("text/javascript"));
        assert!(!is("application/octet-stream") && !is_compressible(None));
    }
}
