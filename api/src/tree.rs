//! A message as a tree whose shape the schema gives: between an encoding and the types of the protocol.
//!
//! Pure. A tree holds only fields that the schema knows; what else was in a request is gone.

use crate::schema::{Field, Label, MessageType};

/// A value of a message, or a message.
#[derive(Debug, Clone)]
pub enum Tree {
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number that is not negative.
    Uint(u64),
    /// A number with a fraction.
    Double(f64),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A name with its number.
    Enum(&'static str, i32),
    /// Several of one kind.
    List(Vec<Tree>),
    /// Several of one kind, each with a name.
    Map(Vec<(String, Tree)>),
    /// Fields with their values.
    Message(Vec<(&'static Field, Tree)>),
}

/// Trees are the same when they have the same values for the same fields, in any order of the fields.
impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Uint(a), Self::Uint(b)) => a == b,
            (Self::Double(a), Self::Double(b)) => a.to_bits() == b.to_bits(),
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Enum(a, _), Self::Enum(b, _)) => a == b,
            (Self::List(a), Self::List(b)) => a == b,
            (Self::Map(a), Self::Map(b)) => {
                a.len() == b.len() && a.iter().all(|entry| b.contains(entry))
            }
            (Self::Message(a), Self::Message(b)) => {
                a.len() == b.len()
                    && a.iter().all(|(field, value)| {
                        b.iter()
                            .any(|(other, same)| field.number == other.number && value == same)
                    })
            }
            _ => false,
        }
    }
}

impl Tree {
    /// A message without any field.
    pub const fn empty() -> Self {
        Self::Message(Vec::new())
    }

    /// The value of a message's field; none when it is not set, or this is no message.
    pub fn get(&self, name: &str) -> Option<&Self> {
        if let Self::Message(fields) = self {
            fields
                .iter()
                .find(|(field, _)| field.name == name)
                .map(|(_, value)| value)
        } else {
            None
        }
    }

    /// The whole number in a message's field; none when it holds nothing of the kind.
    pub fn uint(&self, name: &str) -> Option<u64> {
        if let Some(Self::Uint(number)) = self.get(name) {
            Some(*number)
        } else {
            None
        }
    }

    /// Sets a field of a message of this type. What its type does not have is left out, and anything but a message
    /// stays as it is.
    pub fn put(&mut self, of: &'static MessageType, name: &str, value: Self) {
        if let (Self::Message(fields), Some(field)) = (self, of.field(name)) {
            fields.push((field, value));
        }
    }

    /// The value at the end of a path of fields.
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, name| node.get(name))
    }

    /// The text, name or wrapped text; none for anything else.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Enum(name, _) => Some(name),
            Self::Message(_) => self.get("value")?.text(),
            Self::Bool(_)
            | Self::Int(_)
            | Self::Uint(_)
            | Self::Double(_)
            | Self::Bytes(_)
            | Self::List(_)
            | Self::Map(_) => None,
        }
    }

    /// Names of the fields that a message of this type must have and this one has not, each with its path, in the
    /// order of the schema.
    pub fn missing(&self, message: &'static MessageType) -> Vec<String> {
        let mut out = Vec::new();
        self.look_for_missing(message, "", &mut out);
        out
    }

    fn look_for_missing(&self, message: &'static MessageType, path: &str, out: &mut Vec<String>) {
        for field in &message.fields {
            let value = self.get(field.name);
            if field.label == Label::Required && value.is_none() {
                out.push(format!("{path}{}", field.name));
            }
            let (Some(value), Some(inner)) = (value, field.kind.message()) else {
                continue;
            };
            let name = field.name;
            match value {
                Self::List(all) => {
                    for (at, one) in all.iter().enumerate() {
                        one.look_for_missing(inner, &format!("{path}{name}[{at}]."), out);
                    }
                }
                Self::Map(all) => {
                    for (at, (_, one)) in all.iter().enumerate() {
                        one.look_for_missing(inner, &format!("{path}{name}[{at}].value."), out);
                    }
                }
                Self::Message(_)
                | Self::Bool(_)
                | Self::Int(_)
                | Self::Uint(_)
                | Self::Double(_)
                | Self::Text(_)
                | Self::Bytes(_)
                | Self::Enum(..) => {
                    value.look_for_missing(inner, &format!("{path}{name}."), out);
                }
            }
        }
    }
}
