//! From a value of the protocol to a tree, as a serde serialiser that the schema guides.
//!
//! Pure. What the schema does not have is left out: a message on its way to a client may be one of the protocol's with
//! more in it. Where the schema has a message and the value is a text, the text goes into the message's `value` or
//! `type`: identifiers and capabilities are plain texts in the protocol.

use std::fmt;

use serde::ser::{self, Impossible, Serialize, Serializer};

use crate::schema::{Field, Kind, Label, MessageType};
use crate::tree::Tree;

/// Why a value is no such message: its fields hold something else than the schema says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Mismatch(pub(crate) String);

impl ser::Error for Mismatch {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self(text.to_string())
    }
}

impl serde::de::Error for Mismatch {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self(text.to_string())
    }
}

/// The tree of a value as this message.
///
/// # Errors
/// [`Mismatch`] when a field of the value is of another kind than the message's of that name.
pub fn to_tree<T: Serialize>(value: &T, message: &'static MessageType) -> Result<Tree, Mismatch> {
    let writer = Writer {
        place: Place::Message(message),
        label: Label::Required,
        given: true,
    };
    Ok(value
        .serialize(writer)?
        .unwrap_or(Tree::Message(Vec::new())))
}

/// What is to be written.
#[derive(Clone, Copy)]
enum Place {
    Message(&'static MessageType),
    Value(Kind),
}

#[derive(Clone, Copy)]
struct Writer {
    place: Place,
    label: Label,
    /// Whether the value is set even when it is nothing.
    given: bool,
}

type Written = Result<Option<Tree>, Mismatch>;

impl Writer {
    fn field(field: &'static Field) -> Self {
        Self {
            place: Place::Value(field.kind),
            label: field.label,
            // What has a default is set to it, or to something else.
            given: field.label == Label::Required || field.default.is_some(),
        }
    }

    fn set(self) -> Self {
        Self {
            given: true,
            ..self
        }
    }

    fn element(self) -> Self {
        Self {
            label: Label::Required,
            ..self.set()
        }
    }

    fn message(self) -> Option<&'static MessageType> {
        match self.place {
            Place::Message(message) => Some(message),
            Place::Value(kind) => kind.message(),
        }
    }

    fn wrong<T>(self, what: &str) -> Result<T, Mismatch> {
        let wanted = match self.place {
            Place::Message(message) => message.name.clone(),
            Place::Value(kind) => format!("{kind:?}"),
        };
        Err(Mismatch(format!("{what} where {wanted} stands")))
    }

    /// A value inside the message that stands for it.
    fn wrapped(
        self,
        message: &'static MessageType,
        write: impl FnOnce(Self) -> Written,
    ) -> Written {
        let field = message.field("value").or_else(|| message.field("type"));
        let Some(field) = field else {
            return self.wrong("a plain value");
        };
        let written = write(Self {
            given: self.given,
            ..Self::field(field)
        })?;
        Ok(written.map(|node| Tree::Message(vec![(field, node)])))
    }

    fn number(self, signed: i64, unsigned: Option<u64>, double: f64) -> Written {
        if let Some(message) = self.message() {
            return self.wrapped(message, |inner| inner.number(signed, unsigned, double));
        }
        let Place::Value(kind) = self.place else {
            return self.wrong("a number");
        };
        let node = match kind {
            Kind::Double | Kind::Float => Tree::Double(double),
            Kind::Int32 | Kind::Int64 => Tree::Int(signed),
            Kind::Uint32 | Kind::Uint64 => match unsigned {
                Some(number) => Tree::Uint(number),
                None => return self.wrong("a negative number"),
            },
            Kind::Bool | Kind::Text | Kind::Bytes | Kind::Enum(_) | Kind::Message(_) => {
                return self.wrong("a number");
            }
        };
        let is_zero = signed == 0 && unsigned.unwrap_or(0) == 0 && double == 0.0;
        Ok((self.given || !is_zero).then_some(node))
    }
}

impl Serializer for Writer {
    type Ok = Option<Tree>;
    type Error = Mismatch;
    type SerializeSeq = Sequence;
    type SerializeTuple = Impossible<Option<Tree>, Mismatch>;
    type SerializeTupleStruct = Impossible<Option<Tree>, Mismatch>;
    type SerializeTupleVariant = Impossible<Option<Tree>, Mismatch>;
    type SerializeMap = Entries;
    type SerializeStruct = Fields;
    type SerializeStructVariant = Impossible<Option<Tree>, Mismatch>;

    /// UUIDs are bytes here.
    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_bool(self, value: bool) -> Written {
        match self.place {
            Place::Value(Kind::Bool) => Ok((self.given || value).then_some(Tree::Bool(value))),
            Place::Message(_) | Place::Value(_) => self.wrong("a flag"),
        }
    }

    fn serialize_i8(self, value: i8) -> Written {
        self.serialize_i64(i64::from(value))
    }

    fn serialize_i16(self, value: i16) -> Written {
        self.serialize_i64(i64::from(value))
    }

    fn serialize_i32(self, value: i32) -> Written {
        self.serialize_i64(i64::from(value))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "where a fraction may stand, precision is that of f64"
    )]
    fn serialize_i64(self, value: i64) -> Written {
        self.number(value, u64::try_from(value).ok(), value as f64)
    }

    fn serialize_u8(self, value: u8) -> Written {
        self.serialize_u64(u64::from(value))
    }

    fn serialize_u16(self, value: u16) -> Written {
        self.serialize_u64(u64::from(value))
    }

    fn serialize_u32(self, value: u32) -> Written {
        self.serialize_u64(u64::from(value))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "where a fraction may stand, precision is that of f64"
    )]
    fn serialize_u64(self, value: u64) -> Written {
        let signed = i64::try_from(value).unwrap_or(i64::MAX);
        self.number(signed, Some(value), value as f64)
    }

    fn serialize_f32(self, value: f32) -> Written {
        self.serialize_f64(f64::from(value))
    }

    fn serialize_f64(self, value: f64) -> Written {
        if let Some(message) = self.message() {
            return self.wrapped(message, |inner| inner.serialize_f64(value));
        }
        match self.place {
            Place::Value(Kind::Double | Kind::Float) => {
                Ok((self.given || value != 0.0).then_some(Tree::Double(value)))
            }
            Place::Message(_) | Place::Value(_) => self.wrong("a number with a fraction"),
        }
    }

    fn serialize_char(self, value: char) -> Written {
        self.serialize_str(&value.to_string())
    }

    fn serialize_str(self, text: &str) -> Written {
        if let Some(message) = self.message() {
            if text.is_empty() && !self.given {
                return Ok(None);
            }
            return self.wrapped(message, |inner| inner.set().serialize_str(text));
        }
        match self.place {
            Place::Value(Kind::Text) => {
                let is_set = self.given || !text.is_empty();
                Ok(is_set.then(|| Tree::Text(text.to_owned())))
            }
            // A value that means "not known" has no name in the schema.
            Place::Value(kind @ Kind::Enum(_)) => Ok(kind
                .names()
                .and_then(|names| names.named(text))
                .map(|(name, number)| Tree::Enum(name, number))),
            Place::Message(_) | Place::Value(_) => self.wrong("a text"),
        }
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Written {
        match self.place {
            Place::Value(Kind::Bytes) => {
                let is_set = self.given || !bytes.is_empty();
                Ok(is_set.then(|| Tree::Bytes(bytes.to_vec())))
            }
            Place::Message(_) | Place::Value(_) => self.wrong("bytes"),
        }
    }

    fn serialize_none(self) -> Written {
        Ok(None)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written {
        value.serialize(self.set())
    }

    fn serialize_unit(self) -> Written {
        Ok(None)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Written {
        Ok(None)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Written {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Written {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Written {
        self.wrong("a variant")
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Sequence, Mismatch> {
        if self.label != Label::Repeated {
            return self.wrong("a list");
        }
        Ok(Sequence {
            element: self.element(),
            all: Vec::with_capacity(length.unwrap_or_default()),
        })
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Mismatch> {
        self.wrong("a tuple")
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Mismatch> {
        self.wrong("a tuple")
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Mismatch> {
        self.wrong("a variant")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Entries, Mismatch> {
        if self.label != Label::Map {
            return self.wrong("a map");
        }
        Ok(Entries {
            element: self.element(),
            name: None,
            all: Vec::new(),
        })
    }

    fn serialize_struct(self, _: &'static str, length: usize) -> Result<Fields, Mismatch> {
        match self.message() {
            Some(message) => Ok(Fields {
                message,
                all: Vec::with_capacity(length),
            }),
            None => self.wrong("a record"),
        }
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Mismatch> {
        self.wrong("a variant")
    }
}

/// A list that is being written.
struct Sequence {
    element: Writer,
    all: Vec<Tree>,
}

impl ser::SerializeSeq for Sequence {
    type Ok = Option<Tree>;
    type Error = Mismatch;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Mismatch> {
        self.all.extend(value.serialize(self.element)?);
        Ok(())
    }

    fn end(self) -> Written {
        Ok((!self.all.is_empty()).then_some(Tree::List(self.all)))
    }
}

/// A map that is being written.
struct Entries {
    element: Writer,
    name: Option<String>,
    all: Vec<(String, Tree)>,
}

impl ser::SerializeMap for Entries {
    type Ok = Option<Tree>;
    type Error = Mismatch;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Mismatch> {
        let name = Writer {
            place: Place::Value(Kind::Text),
            ..self.element
        };
        self.name = match key.serialize(name)? {
            Some(Tree::Text(name)) => Some(name),
            _ => None,
        };
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Mismatch> {
        let written = value.serialize(self.element)?;
        self.all.extend(self.name.take().zip(written));
        Ok(())
    }

    fn end(self) -> Written {
        Ok((!self.all.is_empty()).then_some(Tree::Map(self.all)))
    }
}

/// A message that is being written.
struct Fields {
    message: &'static MessageType,
    all: Vec<(&'static Field, Tree)>,
}

impl ser::SerializeStruct for Fields {
    type Ok = Option<Tree>;
    type Error = Mismatch;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Mismatch> {
        let Some(field) = self.message.field(name) else {
            return Ok(());
        };
        let written = value
            .serialize(Writer::field(field))
            .map_err(|Mismatch(why)| Mismatch(format!("{}.{name}: {why}", self.message.name)))?;
        self.all.extend(written.map(|node| (field, node)));
        Ok(())
    }

    fn end(self) -> Written {
        Ok(Some(Tree::Message(self.all)))
    }
}
