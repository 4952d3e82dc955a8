//! Reading JSON that is written as the schema has it, without a tree of JSON values between: most of it is.
//!
//! Pure. What is unusual in any way is left to the reader that knows all leniency and every text of refusal.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::{read_field, read_value};
use crate::schema::{Field, Label, MessageType};
use crate::tree::Tree;

/// The message; none when the text has to be read in another way, or cannot be read.
pub(super) fn read(body: &[u8], message: &'static MessageType) -> Option<Tree> {
    let mut text = serde_json::Deserializer::from_slice(body);
    let tree = text.deserialize_any(Message(message)).ok()?;
    text.end().ok()?;
    tree
}

/// A message; none is `null`.
struct Message(&'static MessageType);

impl<'de> Visitor<'de> for Message {
    type Value = Option<Tree>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.name)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut fields: Vec<(&'static Field, Tree)> = Vec::new();
        while let Some(found) = entries.next_key_seed(Name(self.0))? {
            let Some(field) = found else {
                // Read as all others are, so that what is no JSON is found.
                entries.next_value::<Value>()?;
                continue;
            };
            // The last one of a name is taken, which may be none.
            if fields.iter().any(|(known, _)| known.number == field.number) {
                return Err(A::Error::duplicate_field(field.name));
            }
            let value = entries.next_value_seed(Of(field, field.label))?;
            fields.extend(value.map(|value| (field, value)));
        }
        Ok(Some(Tree::Message(fields)))
    }
}

/// The name of a field; none for one that nobody knows.
struct Name(&'static MessageType);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<&'static Field>;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<Self::Value, D::Error> {
        name.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<&'static Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a field of {}", self.0.name)
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.field(name))
    }
}

/// What stands in a field that may stand so often.
struct Of(&'static Field, Label);

impl<'de> DeserializeSeed<'de> for Of {
    type Value = Option<Tree>;

    fn deserialize<D: Deserializer<'de>>(self, text: D) -> Result<Self::Value, D::Error> {
        match (self.1, self.0.kind.message()) {
            (Label::Repeated, _) => text.deserialize_any(self),
            // Seldom, and of any length: not here.
            (Label::Map, _) => {
                read_field(Value::deserialize(text)?, self.0).map_err(D::Error::custom)
            }
            (Label::Optional | Label::Required, Some(message)) => {
                text.deserialize_any(Message(message))
            }
            (Label::Optional | Label::Required, None) => {
                read_value(Value::deserialize(text)?, self.0).map_err(D::Error::custom)
            }
        }
    }
}

impl<'de> Visitor<'de> for Of {
    type Value = Option<Tree>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "several of {}", self.0.name)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = elements.next_element_seed(Self(self.0, Label::Required))? {
            all.extend(one);
        }
        Ok((!all.is_empty()).then_some(Tree::List(all)))
    }
}
