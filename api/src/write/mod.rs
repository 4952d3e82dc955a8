//! From a value of the protocol to a message, as a serde serialiser that the schema guides: to a tree, or to JSON at once.
//!
//! Pure. What the schema does not have is left out: a message on its way to a client may be one of the protocol's with
//! more in it. Where the schema has a message and the value is a text, the text goes into the message's `value` or
//! `type`: identifiers and capabilities are plain texts in the protocol. The shape that the reader knows ([`Style`]) is
//! given on the way, so that nothing is written that is taken away again.

pub(crate) mod sink;

use std::fmt;

use serde::ser::{self, Impossible, Serialize, Serializer};

use self::sink::{Key, Plain, Planter, Shape, Sink};
use crate::json::Text;
use crate::schema::{Field, Kind, Label, MessageType};
use crate::style::{RESOURCE, Style, older};
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
pub fn to_tree<T: Serialize + ?Sized>(
    value: &T,
    message: &'static MessageType,
) -> Result<Tree, Mismatch> {
    to_tree_in(value, message, Style::NEWEST)
}

/// The tree of a value as this message, in the shape that its reader knows.
pub(crate) fn to_tree_in<T: Serialize + ?Sized>(
    value: &T,
    message: &'static MessageType,
    style: Style,
) -> Result<Tree, Mismatch> {
    let written = value.serialize(Writer::of(&mut Planter, message, style))?;
    Ok(written.unwrap_or(Tree::Message(Vec::new())))
}

/// The JSON of a value as this message, in the shape that its reader knows. No tree is made of it.
pub(crate) fn to_json<T: Serialize + ?Sized>(
    value: &T,
    message: &'static MessageType,
    style: Style,
) -> Result<Vec<u8>, Mismatch> {
    let mut text = Text(Vec::with_capacity(256));
    let written = value.serialize(Writer::of(&mut text, message, style))?;
    Ok(match written {
        Some(()) => text.0,
        None => b"{}".to_vec(),
    })
}

/// What is to be written.
#[derive(Clone, Copy)]
enum Place {
    Message(&'static MessageType),
    Value(Kind),
}

impl Place {
    fn message(self) -> Option<&'static MessageType> {
        match self {
            Self::Message(message) => Some(message),
            Self::Value(kind) => kind.message(),
        }
    }
}

/// What is known of a value before it is written.
#[derive(Clone, Copy)]
struct Wanted {
    place: Place,
    label: Label,
    /// Whether the value is set even when it is nothing.
    given: bool,
    style: Style,
}

impl Wanted {
    fn field(field: &'static Field, style: Style) -> Self {
        Self {
            place: Place::Value(field.kind),
            label: field.label,
            // What has a default is set to it, or to something else.
            given: field.label == Label::Required || field.default.is_some(),
            style,
        }
    }

    fn element(self) -> Self {
        Self {
            label: Label::Required,
            given: true,
            ..self
        }
    }
}

struct Writer<'a, S> {
    sink: &'a mut S,
    wanted: Wanted,
}

type Written<S> = Result<Option<<S as Sink>::Node>, Mismatch>;

impl<'a, S: Sink> Writer<'a, S> {
    fn of(sink: &'a mut S, message: &'static MessageType, style: Style) -> Self {
        let wanted = Wanted {
            place: Place::Message(message),
            label: Label::Required,
            given: true,
            style,
        };
        Self { sink, wanted }
    }

    fn set(mut self) -> Self {
        self.wanted.given = true;
        self
    }

    fn message(&self) -> Option<&'static MessageType> {
        self.wanted.place.message()
    }

    fn wrong<T>(&self, what: &str) -> Result<T, Mismatch> {
        let wanted = match self.wanted.place {
            Place::Message(message) => message.name.clone(),
            Place::Value(kind) => format!("{kind:?}"),
        };
        Err(Mismatch(format!("{what} where {wanted} stands")))
    }

    /// A value, if it is something or is set all the same.
    fn plain(self, value: Plain<'_>, is_something: bool) -> Written<S> {
        let is_set = self.wanted.given || is_something;
        Ok(is_set.then(|| self.sink.plain(value)))
    }

    /// A value inside the message that stands for it.
    fn wrapped(
        self,
        message: &'static MessageType,
        write: impl FnOnce(Writer<'_, S>) -> Written<S>,
    ) -> Written<S> {
        let field = message.field("value").or_else(|| message.field("type"));
        let Some(field) = field else {
            return self.wrong("a plain value");
        };
        let wanted = Wanted {
            given: self.wanted.given,
            ..Wanted::field(field, self.wanted.style)
        };
        let mut open = self.sink.open(Shape::Message(message), 1);
        self.sink.entry(&mut open, Key::Field(field), |sink| {
            write(Writer { sink, wanted })
        })?;
        Ok((!S::is_empty(&open)).then(|| self.sink.close(open)))
    }

    fn number(self, signed: i64, unsigned: Option<u64>, double: f64) -> Written<S> {
        if let Some(message) = self.message() {
            return self.wrapped(message, |inner| inner.number(signed, unsigned, double));
        }
        let Place::Value(kind) = self.wanted.place else {
            return self.wrong("a number");
        };
        let value = match kind {
            Kind::Double | Kind::Float => Plain::Double(double),
            Kind::Int32 | Kind::Int64 => Plain::Int(signed),
            Kind::Uint32 | Kind::Uint64 => match unsigned {
                Some(number) => Plain::Uint(number),
                None => return self.wrong("a negative number"),
            },
            Kind::Bool | Kind::Text | Kind::Bytes | Kind::Enum(_) | Kind::Message(_) => {
                return self.wrong("a number");
            }
        };
        let is_zero = signed == 0 && unsigned.unwrap_or(0) == 0 && double == 0.0;
        self.plain(value, !is_zero)
    }
}

impl<'a, S: Sink> Serializer for Writer<'a, S> {
    type Ok = Option<S::Node>;
    type Error = Mismatch;
    type SerializeSeq = Sequence<'a, S>;
    type SerializeTuple = Impossible<Option<S::Node>, Mismatch>;
    type SerializeTupleStruct = Impossible<Option<S::Node>, Mismatch>;
    type SerializeTupleVariant = Impossible<Option<S::Node>, Mismatch>;
    type SerializeMap = Entries<'a, S>;
    type SerializeStruct = Fields<'a, S>;
    type SerializeStructVariant = Impossible<Option<S::Node>, Mismatch>;

    /// UUIDs are bytes here.
    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_bool(self, value: bool) -> Written<S> {
        match self.wanted.place {
            Place::Value(Kind::Bool) => self.plain(Plain::Bool(value), value),
            Place::Message(_) | Place::Value(_) => self.wrong("a flag"),
        }
    }

    fn serialize_i8(self, value: i8) -> Written<S> {
        self.serialize_i64(i64::from(value))
    }

    fn serialize_i16(self, value: i16) -> Written<S> {
        self.serialize_i64(i64::from(value))
    }

    fn serialize_i32(self, value: i32) -> Written<S> {
        self.serialize_i64(i64::from(value))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "where a fraction may stand, precision is that of f64"
    )]
    fn serialize_i64(self, value: i64) -> Written<S> {
        self.number(value, u64::try_from(value).ok(), value as f64)
    }

    fn serialize_u8(self, value: u8) -> Written<S> {
        self.serialize_u64(u64::from(value))
    }

    fn serialize_u16(self, value: u16) -> Written<S> {
        self.serialize_u64(u64::from(value))
    }

    fn serialize_u32(self, value: u32) -> Written<S> {
        self.serialize_u64(u64::from(value))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "where a fraction may stand, precision is that of f64"
    )]
    fn serialize_u64(self, value: u64) -> Written<S> {
        let signed = i64::try_from(value).unwrap_or(i64::MAX);
        self.number(signed, Some(value), value as f64)
    }

    fn serialize_f32(self, value: f32) -> Written<S> {
        self.serialize_f64(f64::from(value))
    }

    fn serialize_f64(self, value: f64) -> Written<S> {
        if let Some(message) = self.message() {
            return self.wrapped(message, |inner| inner.serialize_f64(value));
        }
        match self.wanted.place {
            Place::Value(Kind::Double | Kind::Float) => {
                self.plain(Plain::Double(value), value != 0.0)
            }
            Place::Message(_) | Place::Value(_) => self.wrong("a number with a fraction"),
        }
    }

    fn serialize_char(self, value: char) -> Written<S> {
        self.serialize_str(&value.to_string())
    }

    fn serialize_str(self, text: &str) -> Written<S> {
        if let Some(message) = self.message() {
            if text.is_empty() && !self.wanted.given {
                return Ok(None);
            }
            return self.wrapped(message, |inner| inner.set().serialize_str(text));
        }
        match self.wanted.place {
            Place::Value(Kind::Text) => self.plain(Plain::Text(text), !text.is_empty()),
            // A value that means "not known" has no name in the schema.
            Place::Value(kind @ Kind::Enum(_)) => Ok(kind
                .names()
                .and_then(|names| names.named(text))
                .map(|(name, number)| self.sink.plain(Plain::Enum(name, number)))),
            Place::Message(_) | Place::Value(_) => self.wrong("a text"),
        }
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Written<S> {
        match self.wanted.place {
            Place::Value(Kind::Bytes) => self.plain(Plain::Bytes(bytes), !bytes.is_empty()),
            Place::Message(_) | Place::Value(_) => self.wrong("bytes"),
        }
    }

    fn serialize_none(self) -> Written<S> {
        Ok(None)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written<S> {
        value.serialize(self.set())
    }

    fn serialize_unit(self) -> Written<S> {
        Ok(None)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Written<S> {
        Ok(None)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Written<S> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Written<S> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Written<S> {
        self.wrong("a variant")
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Sequence<'a, S>, Mismatch> {
        if self.wanted.label != Label::Repeated {
            return self.wrong("a list");
        }
        let open = self.sink.open(Shape::List, length.unwrap_or_default());
        Ok(Sequence {
            sink: self.sink,
            element: self.wanted.element(),
            open,
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

    fn serialize_map(self, length: Option<usize>) -> Result<Entries<'a, S>, Mismatch> {
        if self.wanted.label != Label::Map {
            return self.wrong("a map");
        }
        let open = self.sink.open(Shape::Map, length.unwrap_or_default());
        Ok(Entries {
            sink: self.sink,
            element: self.wanted.element(),
            name: None,
            open,
        })
    }

    fn serialize_struct(self, _: &'static str, length: usize) -> Result<Fields<'a, S>, Mismatch> {
        let Some(message) = self.message() else {
            return self.wrong("a record");
        };
        let style = self.wanted.style;
        Ok(Fields {
            open: self.sink.open(Shape::Message(message), length),
            sink: self.sink,
            message,
            style,
            is_older: !style.refined && message.name == RESOURCE,
            layers: None,
        })
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
struct Sequence<'a, S: Sink> {
    sink: &'a mut S,
    element: Wanted,
    open: S::Open,
}

impl<S: Sink> ser::SerializeSeq for Sequence<'_, S> {
    type Ok = Option<S::Node>;
    type Error = Mismatch;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Mismatch> {
        let wanted = self.element;
        (self.sink).entry(&mut self.open, Key::Element, |sink| {
            value.serialize(Writer { sink, wanted })
        })
    }

    fn end(self) -> Written<S> {
        Ok((!S::is_empty(&self.open)).then(|| self.sink.close(self.open)))
    }
}

/// A map that is being written.
struct Entries<'a, S: Sink> {
    sink: &'a mut S,
    element: Wanted,
    name: Option<String>,
    open: S::Open,
}

impl<S: Sink> ser::SerializeMap for Entries<'_, S> {
    type Ok = Option<S::Node>;
    type Error = Mismatch;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Mismatch> {
        let wanted = Wanted {
            place: Place::Value(Kind::Text),
            ..self.element
        };
        let mut sink = Planter;
        let writer = Writer {
            sink: &mut sink,
            wanted,
        };
        self.name = match key.serialize(writer)? {
            Some(Tree::Text(name)) => Some(name),
            _ => None,
        };
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Mismatch> {
        let Some(name) = self.name.take() else {
            return Ok(());
        };
        let wanted = self.element;
        (self.sink).entry(&mut self.open, Key::Name(&name), |sink| {
            value.serialize(Writer { sink, wanted })
        })
    }

    fn end(self) -> Written<S> {
        Ok((!S::is_empty(&self.open)).then(|| self.sink.close(self.open)))
    }
}

/// A message that is being written.
struct Fields<'a, S: Sink> {
    sink: &'a mut S,
    open: S::Open,
    message: &'static MessageType,
    style: Style,
    /// Whether it is a resource whose reader does not know `reservations`.
    is_older: bool,
    /// What stands there.
    layers: Option<Tree>,
}

impl<S: Sink> ser::SerializeStruct for Fields<'_, S> {
    type Ok = Option<S::Node>;
    type Error = Mismatch;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Mismatch> {
        let Some(field) = self.message.field(name) else {
            return Ok(());
        };
        if !self.style.multi_role && field.name == "allocation_info" {
            return Ok(());
        }
        let wanted = Wanted::field(field, self.style);
        let written = if self.is_older && field.name == "reservations" {
            let sink = &mut Planter;
            value
                .serialize(Writer { sink, wanted })
                .map(|layers| self.layers = layers)
        } else {
            (self.sink).entry(&mut self.open, Key::Field(field), |sink| {
                value.serialize(Writer { sink, wanted })
            })
        };
        written.map_err(|Mismatch(why)| Mismatch(format!("{}.{name}: {why}", self.message.name)))
    }

    fn end(mut self) -> Written<S> {
        if self.is_older {
            for (field, node) in older(self.layers.take(), self.message) {
                let of = field.kind.message();
                (self.sink).entry(&mut self.open, Key::Field(field), |sink| {
                    Ok::<_, Mismatch>(Some(sink.tree(node, of)))
                })?;
            }
        }
        Ok(Some(self.sink.close(self.open)))
    }
}
