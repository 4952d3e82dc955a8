//! Which encoding a request is in, and which one its answer wants; and the answers to requests that are no good.
//! Pure.

use meseta_runtime::http::access::Denied;
use serde::Serialize;

use crate::json::{self, JsonError};
use crate::protobuf::{self, ProtobufError};
use crate::schema::MessageType;
use crate::style::Style;
use crate::tree::Tree;
use crate::write::{Mismatch, to_json, to_tree_in};

/// Content type of JSON.
pub const JSON: &str = "application/json";
/// Content type of protobuf.
pub const PROTOBUF: &str = "application/x-protobuf";

/// An encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON.
    Json,
    /// Protobuf.
    Protobuf,
}

/// A request that is refused: the status and the text of the answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// Status of HTTP.
    pub status: u16,
    /// Why, in the words that clients know.
    pub text: String,
}

impl Refusal {
    /// A refusal with this status and text.
    pub fn new(status: u16, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
        }
    }

    /// 400.
    pub fn bad(text: impl Into<String>) -> Self {
        Self::new(400, text)
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        Self::new(denied.status(), denied.to_string())
    }
}

impl From<JsonError> for Refusal {
    fn from(error: JsonError) -> Self {
        Self::bad(error.to_string())
    }
}

impl From<ProtobufError> for Refusal {
    fn from(error: ProtobufError) -> Self {
        Self::bad(error.to_string())
    }
}

impl Format {
    /// Its content type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::Protobuf => PROTOBUF,
        }
    }

    /// The encoding of a request with this `Content-Type`.
    ///
    /// # Errors
    /// 400 without one, 415 with another, also with one that has parameters.
    pub fn of_body(content_type: Option<&str>) -> Result<Self, Refusal> {
        match content_type {
            None => Err(Refusal::bad("Expecting 'Content-Type' to be present")),
            Some(JSON) => Ok(Self::Json),
            Some(PROTOBUF) => Ok(Self::Protobuf),
            Some(_) => Err(Refusal::new(
                415,
                "Expecting 'Content-Type' of application/json or application/x-protobuf",
            )),
        }
    }

    /// The encoding that a request with this `Accept` wants.
    ///
    /// # Errors
    /// 406 when neither will do.
    pub fn of_answer(accept: Option<&str>) -> Result<Self, Refusal> {
        if accepts(accept, JSON) {
            Ok(Self::Json)
        } else if accepts(accept, PROTOBUF) {
            Ok(Self::Protobuf)
        } else {
            Err(Refusal::new(
                406,
                "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'",
            ))
        }
    }

    /// Reads a request, which may nest as deep as [`protobuf::MAX_DEPTH`].
    ///
    /// # Errors
    /// 400 with what is wrong.
    pub fn read(self, body: &[u8], message: &'static MessageType) -> Result<Tree, Refusal> {
        self.read_within(body, message, protobuf::MAX_DEPTH)
    }

    /// Reads a request that may nest so many levels deep, at most [`protobuf::MAX_DEPTH`].
    ///
    /// # Errors
    /// 400 with what is wrong.
    pub fn read_within(
        self,
        body: &[u8],
        message: &'static MessageType,
        nesting: usize,
    ) -> Result<Tree, Refusal> {
        Ok(match self {
            Self::Json => json::read_within(body, message, nesting)?,
            Self::Protobuf => protobuf::read_within(body, message, nesting)?,
        })
    }

    /// Writes an answer.
    pub fn write(self, node: &Tree, message: &'static MessageType) -> Vec<u8> {
        match self {
            Self::Json => json::write(node, message),
            Self::Protobuf => protobuf::write(node),
        }
    }

    /// Writes a value of the protocol as this message, in the shape that its reader knows. JSON is made without a tree.
    ///
    /// # Errors
    /// [`Mismatch`] when a field of the value is of another kind than the message's of that name.
    pub fn write_value<T: Serialize + ?Sized>(
        self,
        value: &T,
        message: &'static MessageType,
        style: Style,
    ) -> Result<Vec<u8>, Mismatch> {
        match self {
            Self::Json => to_json(value, message, style),
            Self::Protobuf => Ok(protobuf::write(&to_tree_in(value, message, style)?)),
        }
    }
}

/// Whether a client that sent this `Accept` takes this content type; without one it takes any.
fn accepts(accept: Option<&str>, content_type: &str) -> bool {
    let Some(accept) = accept else {
        return true;
    };
    let (family, _) = content_type.split_once('/').unwrap_or((content_type, ""));
    accept.split(',').any(|choice| {
        let mut parts = choice.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused = parts.any(|part| {
            part.strip_prefix("q=")
                .and_then(|weight| weight.parse::<f64>().ok())
                .is_some_and(|weight| weight <= 0.0)
        });
        !refused
            && (name == "*/*"
                || name == "*"
                || name.eq_ignore_ascii_case(content_type)
                || name
                    .strip_suffix("/*")
                    .is_some_and(|any_of| any_of.eq_ignore_ascii_case(family)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_preferred_where_both_will_do() {
        let answer = |accept| Format::of_answer(accept).map_err(|refusal| refusal.status);
        for any in [
            None,
            Some("*/*"),
            Some("application/*"),
            Some("APPLICATION/JSON"),
            Some("Application/*"),
            Some("application/x-protobuf, application/json"),
        ] {
            assert_eq!(answer(any), Ok(Format::Json), "{any:?}");
        }
        assert_eq!(answer(Some(PROTOBUF)), Ok(Format::Protobuf));
        assert_eq!(
            answer(Some("application/json;q=0, application/x-protobuf;q=0.1")),
            Ok(Format::Protobuf)
        );
        assert_eq!(answer(Some("text/html")), Err(406));
        assert_eq!(answer(Some("")), Err(406));
    }

    #[test]
    fn the_content_type_must_be_one_of_two_and_nothing_more() {
        let body = |kind| Format::of_body(kind).map_err(|refusal| refusal.status);
        assert_eq!(body(Some(JSON)), Ok(Format::Json));
        assert_eq!(body(Some(PROTOBUF)), Ok(Format::Protobuf));
        assert_eq!(body(None), Err(400));
        assert_eq!(body(Some("application/json; charset=utf-8")), Err(415));
        assert_eq!(body(Some("text/plain")), Err(415));
    }
}
