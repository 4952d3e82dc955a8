//! Names of what a document was like (`ETag`), by which whoever polls is spared what has not changed.
//!
//! Pure. Tags are weak ones, `W/"…"`: the same document may be sent plain, compressed or as a script. A process that knows
//! without making a document whether it has changed names it itself ([`Request::knows`]); other answers to reads are named
//! by their bytes. Source: RFC 9110, 8.8.3 and 13.1.2.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use aws_lc_rs::digest::{SHA256, digest};

use super::{Request, Response};

/// How much of the digest of a document names it, in bytes.
const DIGEST: usize = 16;

impl Request {
    /// Whether the client has the document of this tag already (`If-None-Match`), so that [`Response::not_modified`] is
    /// all it needs.
    pub fn knows(&self, tag: &str) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD")
            && (self.header("if-none-match")).is_some_and(|known| is_among(tag, known))
    }

    /// A tag for what this request asks for, in this state: a text without quotes and commas that no other state has.
    pub fn tag(&self, state: &str) -> String {
        // Not for secrecy: a client that sends the tag of one document for another is to get what it asked for.
        let mut hasher = DefaultHasher::new();
        (&self.path, &self.query).hash(&mut hasher);
        format!("W/\"{state}-{:x}\"", hasher.finish())
    }
}

impl Response {
    /// 304 without a body: the client has the document of this tag.
    pub fn not_modified(tag: impl Into<String>) -> Self {
        Self::empty().with_status(304).tagged(tag)
    }

    /// The same, named by a tag.
    #[must_use]
    pub fn tagged(self, tag: impl Into<String>) -> Self {
        self.with_header("etag", tag)
    }
}

/// Whether a tag is among those that a client knows, or the client takes any.
pub(super) fn is_among(tag: &str, known: &str) -> bool {
    let opaque = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
    let tag = opaque(tag);
    let mut known = known.split(',').map(str::trim);
    known.any(|one| one == "*" || opaque(one) == tag)
}

/// The tag of a document by its bytes.
pub(super) fn of_bytes(body: &[u8]) -> String {
    let digest = digest(&SHA256, body);
    let mut tag = "W/\"".to_owned();
    for byte in &digest.as_ref()[..DIGEST] {
        // Writing to a text cannot fail.
        let _written = write!(tag, "{byte:02x}");
    }
    tag + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &[(&str, &str)], known: &str) -> Request {
        let query = target
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Request {
            method: method.to_owned(),
            path: "/state".to_owned(),
            query: query.collect(),
            headers: [("if-none-match".to_owned(), known.to_owned())].into(),
            ..Request::default()
        }
    }

    #[test]
    fn a_tag_is_known_by_its_text_weak_or_strong_and_anything_by_a_star() {
        for known in [
            "W/\"a-1\"",
            "\"a-1\"",
            "\"b\", W/\"a-1\"",
            "\"b\",\"a-1\"",
            "*",
        ] {
            assert!(is_among("W/\"a-1\"", known), "{known}");
        }
        for other in ["", "a-1", "\"a-2\"", "W/\"a\"", "W/", ",", "\"a-1"] {
            assert!(!is_among("W/\"a-1\"", other), "{other}");
        }
    }

    #[test]
    fn only_reads_are_answered_by_a_tag() {
        for (method, is_read) in [("GET", true), ("HEAD", true), ("POST", false)] {
            assert_eq!(request(method, &[], "\"x\"").knows("W/\"x\""), is_read);
        }
        assert!(!Request::default().knows("W/\"x\""));
    }

    #[test]
    fn a_tag_differs_by_state_and_by_what_is_asked_for() {
        let (all, one) = (
            request("GET", &[], ""),
            request("GET", &[("slave_id", "S0")], ""),
        );
        assert_eq!(all.tag("m-1"), all.tag("m-1"));
        assert_ne!(all.tag("m-1"), all.tag("m-2"));
        assert_ne!(all.tag("m-1"), one.tag("m-1"));
        assert!(is_among(&all.tag("m-1"), &all.tag("m-1")));
    }

    #[test]
    fn bytes_are_named_by_their_digest() {
        assert_eq!(of_bytes(b"{}"), "W/\"44136fa355b3678a1146ad16f7e8649e\"");
        assert_ne!(of_bytes(b"{}"), of_bytes(b"[]"));
    }
}
