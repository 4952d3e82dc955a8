//! From a tree to a value of the protocol, as a serde deserialiser.
//!
//! Pure. The protocol's own leniency does the rest: fields it does not keep are skipped, missing ones take their default.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use crate::tree::Tree;
use crate::write::Mismatch;

/// The value that a tree says.
///
/// # Errors
/// [`Mismatch`] when a field holds what the value's type cannot.
pub fn from_tree<T: DeserializeOwned>(node: &Tree) -> Result<T, Mismatch> {
    T::deserialize(node)
}

impl<'de> IntoDeserializer<'de, Mismatch> for &'de Tree {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for &'de Tree {
    type Error = Mismatch;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self {
            Tree::Bool(flag) => visitor.visit_bool(*flag),
            Tree::Int(number) => visitor.visit_i64(*number),
            Tree::Uint(number) => visitor.visit_u64(*number),
            Tree::Double(number) => visitor.visit_f64(*number),
            Tree::Text(text) => visitor.visit_str(text),
            Tree::Enum(name, _) => visitor.visit_str(name),
            Tree::Bytes(bytes) => visitor.visit_bytes(bytes),
            Tree::List(all) => visitor.visit_seq(SeqDeserializer::new(all.iter())),
            Tree::Map(all) => visitor.visit_map(MapDeserializer::new(
                all.iter().map(|(name, value)| (name.as_str(), value)),
            )),
            Tree::Message(fields) => visitor.visit_map(MapDeserializer::new(
                fields.iter().map(|(field, value)| (field.name, value)),
            )),
        }
    }

    /// What is there is set.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_some(self)
    }

    /// A name that stands in a message of its own, as capabilities do, is that name.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        if !matches!(self, Tree::Message(_)) {
            return self.deserialize_any(visitor);
        }
        match self.get("value").or_else(|| self.get("type")) {
            Some(inner) => inner.deserialize_str(visitor),
            None => visitor.visit_str(""),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_str(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf
        unit unit_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
