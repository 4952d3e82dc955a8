//! What is written to a stream of events, of schedulers and of executors.
//!
//! Pure.

use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use crate::negotiation::Format;
use crate::schema::MessageType;
use crate::style::Style;
use crate::tree::Tree;

/// Something that happened: what kind of thing it is, and the part of the event that says more.
#[derive(Debug)]
pub struct Event<T> {
    of: &'static MessageType,
    kind: &'static str,
    part: Option<(&'static str, T)>,
}

impl<T: Serialize> Event<T> {
    pub(crate) fn new(
        of: &'static MessageType,
        kind: &'static str,
        part: Option<(&'static str, T)>,
    ) -> Self {
        Self { of, kind, part }
    }

    /// Writes it in this encoding and the shape that the reader knows.
    pub fn write(&self, format: Format, style: Style) -> Vec<u8> {
        let written = format.write_value(self, self.of, style);
        // What cannot be shown is a mistake in this crate; its tests write every event.
        debug_assert!(written.is_ok(), "{written:?}");
        written.unwrap_or_else(|_| format.write(&Tree::empty(), self.of))
    }
}

impl<T: Serialize> Serialize for Event<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Event", 2)?;
        fields.serialize_field("type", self.kind)?;
        if let Some((name, part)) = &self.part {
            fields.serialize_field(name, part)?;
        }
        fields.end()
    }
}
