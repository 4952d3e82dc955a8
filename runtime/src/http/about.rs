//! What is told of an endpoint to people and to programs: `/help` and `/openapi.json`. Pure.

use super::{JSON, TEXT};

/// Media type of protobuf bodies.
pub const PROTOBUF: &str = "application/x-protobuf";
/// Media type of the metrics that Prometheus reads.
pub(super) const PROMETHEUS: &str = "text/plain; version=0.0.4";

/// One endpoint, in a few words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// What it is for, in one line without a full stop.
    pub summary: &'static str,
    /// What else there is to know, in sentences; may be empty.
    pub description: &'static str,
    /// Methods it is made for, at least one.
    pub methods: &'static [&'static str],
    /// Parameters of the query, with what they do.
    pub parameters: &'static [(&'static str, &'static str)],
    /// Media types of bodies it takes; none for one that takes none.
    pub takes: &'static [&'static str],
    /// Media types of its answers; none for one without a body.
    pub gives: &'static [&'static str],
}

impl About {
    /// Nothing is told.
    pub(crate) const NOTHING: Self = Self::read("");

    /// An endpoint that shows something as JSON.
    pub const fn read(summary: &'static str) -> Self {
        Self {
            summary,
            description: "",
            methods: &["GET"],
            parameters: &[],
            takes: &[],
            gives: &[JSON],
        }
    }

    /// An endpoint of calls in JSON or protobuf.
    pub const fn call(summary: &'static str) -> Self {
        Self {
            methods: &["POST"],
            takes: &[JSON, PROTOBUF],
            gives: &[JSON, PROTOBUF],
            ..Self::read(summary)
        }
    }

    /// The same with sentences.
    #[must_use]
    pub const fn saying(self, description: &'static str) -> Self {
        Self {
            description,
            ..self
        }
    }

    /// The same with these methods.
    #[must_use]
    pub const fn by(self, methods: &'static [&'static str]) -> Self {
        Self { methods, ..self }
    }

    /// The same with these parameters.
    #[must_use]
    pub const fn with(self, parameters: &'static [(&'static str, &'static str)]) -> Self {
        Self { parameters, ..self }
    }

    /// The same with bodies of these media types.
    #[must_use]
    pub const fn takes(self, takes: &'static [&'static str]) -> Self {
        Self { takes, ..self }
    }

    /// The same with answers of these media types.
    #[must_use]
    pub const fn gives(self, gives: &'static [&'static str]) -> Self {
        Self { gives, ..self }
    }

    /// The same with answers in JSON or text.
    #[must_use]
    pub const fn in_text_too(self) -> Self {
        self.gives(&[JSON, TEXT])
    }
}
