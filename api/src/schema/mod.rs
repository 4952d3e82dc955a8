//! The messages of the API: their fields, numbers, types and defaults, as `api/proto` has them.
//!
//! Pure. The texts are part of the program and are read once; a test reads all of them, so [`schema`] holds whatever
//! the files say.

mod parse;

use std::collections::HashMap;
use std::sync::LazyLock;

/// How often a field may stand in its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// At most once.
    Optional,
    /// Once.
    Required,
    /// Any number of times.
    Repeated,
    /// Any number of times, each with a name: an object in JSON.
    Map,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number with a fraction.
    Double,
    /// A number with a fraction, of less precision.
    Float,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits.
    Int64,
    /// A whole number of 32 bits that is not negative.
    Uint32,
    /// A whole number of 64 bits that is not negative.
    Uint64,
    /// Yes or no.
    Bool,
    /// A text.
    Text,
    /// Bytes; base64 in JSON.
    Bytes,
    /// One of several names.
    Enum(usize),
    /// A message.
    Message(usize),
}

impl Kind {
    /// The message it is, if it is one.
    pub fn message(self) -> Option<&'static MessageType> {
        if let Self::Message(at) = self {
            SCHEMA.messages.get(at)
        } else {
            None
        }
    }

    /// The enumeration it is, if it is one.
    pub fn names(self) -> Option<&'static EnumType> {
        if let Self::Enum(at) = self {
            SCHEMA.enums.get(at)
        } else {
            None
        }
    }
}

/// One field of a message.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its number in protobuf.
    pub number: u32,
    /// How often it may stand.
    pub label: Label,
    /// What it holds.
    pub kind: Kind,
    /// Its default where one is published: JSON shows it even when the field is not set.
    pub default: Option<&'static str>,
    /// Whether it is there for old clients only.
    pub deprecated: bool,
}

/// One message.
#[derive(Debug, Default)]
pub struct MessageType {
    /// Its full name: `mesos.v1.TaskInfo`.
    pub name: String,
    /// Its fields in the order of their numbers.
    pub fields: Vec<Field>,
}

impl MessageType {
    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// All its fields, if JSON shows one of them also when it is not set; none otherwise.
    pub(crate) fn with_defaults(&self) -> &[Field] {
        let is_shown = |field: &Field| field.default.is_some() && !field.deprecated;
        if self.fields.iter().any(is_shown) {
            &self.fields
        } else {
            &[]
        }
    }

    /// The field of this number.
    pub fn numbered(&self, number: u32) -> Option<&Field> {
        self.fields.iter().find(|field| field.number == number)
    }
}

/// One enumeration.
#[derive(Debug, Default)]
pub struct EnumType {
    /// Its full name.
    pub name: String,
    /// Names and numbers.
    pub values: Vec<(&'static str, i32)>,
}

impl EnumType {
    /// Name and number of the value of this name.
    pub fn named(&self, name: &str) -> Option<(&'static str, i32)> {
        self.values
            .iter()
            .copied()
            .find(|(known, _)| *known == name)
    }

    /// Name and number of the value of this number.
    pub fn numbered(&self, number: i32) -> Option<(&'static str, i32)> {
        (self.values.iter().copied()).find(|(_, known)| *known == number)
    }
}

/// All messages and enumerations.
#[derive(Debug, Default)]
pub struct Schema {
    messages: Vec<MessageType>,
    enums: Vec<EnumType>,
    by_name: HashMap<String, Kind>,
    /// What could not be read; empty, as a test shows.
    problems: Vec<String>,
}

impl Schema {
    /// The message of this full name.
    pub fn message(&'static self, name: &str) -> Option<&'static MessageType> {
        self.by_name.get(name)?.message()
    }

    /// All messages.
    pub fn messages(&self) -> &[MessageType] {
        &self.messages
    }
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    parse::parse(&[
        include_str!("../../proto/mesos.proto"),
        include_str!("../../proto/scheduler.proto"),
        include_str!("../../proto/executor.proto"),
        include_str!("../../proto/duration.proto"),
        include_str!("../../proto/allocator.proto"),
        include_str!("../../proto/maintenance.proto"),
        include_str!("../../proto/quota.proto"),
        include_str!("../../proto/master.proto"),
        include_str!("../../proto/agent.proto"),
    ])
});

static NOTHING: MessageType = MessageType {
    name: String::new(),
    fields: Vec::new(),
};

/// The schema.
pub fn schema() -> &'static Schema {
    &SCHEMA
}

/// The message of this full name; one without fields when there is none, which the tests of all names used show.
pub fn message(name: &str) -> &'static MessageType {
    debug_assert!(SCHEMA.message(name).is_some(), "no message {name}");
    SCHEMA.message(name).unwrap_or(&NOTHING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_are_read_without_a_problem() {
        assert_eq!(schema().problems, [""; 0]);
        assert!(schema().messages.len() > 150, "{}", schema().messages.len());
    }

    #[test]
    fn numbers_types_and_defaults_are_those_of_the_files() {
        let command = message("mesos.v1.CommandInfo");
        let shell = command.field("shell").unwrap();
        assert_eq!((shell.number, shell.kind), (6, Kind::Bool));
        assert_eq!(shell.default, Some("true"));
        let uris = command.field("uris").unwrap();
        assert_eq!(uris.label, Label::Repeated);
        assert_eq!(
            uris.kind.message().unwrap().name,
            "mesos.v1.CommandInfo.URI"
        );
        let role = message("mesos.v1.Resource").field("role").unwrap();
        assert!(role.deprecated && role.default == Some("*"));
        let limits = message("mesos.v1.TaskInfo").field("limits").unwrap();
        assert_eq!(limits.label, Label::Map);
        assert_eq!(limits.kind.message().unwrap().name, "mesos.v1.Value.Scalar");
        let state = message("mesos.v1.TaskStatus").field("state").unwrap();
        assert_eq!(
            state.kind.names().unwrap().named("TASK_RUNNING"),
            Some(("TASK_RUNNING", 1))
        );
        let accept = message("mesos.v1.scheduler.Call").field("accept").unwrap();
        let operations = accept.kind.message().unwrap().field("operations").unwrap();
        assert_eq!(
            operations.kind.message().unwrap().name,
            "mesos.v1.Offer.Operation"
        );
    }

    #[test]
    fn no_two_fields_of_a_message_share_a_name_or_a_number() {
        for message in schema().messages() {
            for (at, field) in message.fields.iter().enumerate() {
                for other in &message.fields[..at] {
                    assert!(
                        field.name != other.name && field.number != other.number,
                        "{}",
                        message.name
                    );
                }
            }
        }
    }
}
