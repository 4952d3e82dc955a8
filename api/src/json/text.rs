//! Writing JSON: of a tree, or of values as they come, straight to bytes.
//!
//! Pure.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::schema::{Field, Kind, MessageType};
use crate::tree::Tree;
use crate::write::sink::{Key, Plain, Shape, Sink};

/// Writes a message of this type. A field with a published default that is not set is shown with it, as Mesos does.
pub fn write(node: &Tree, message: &'static MessageType) -> Vec<u8> {
    let mut out = Text(Vec::with_capacity(256));
    out.value(node, Some(message));
    out.0
}

/// JSON that is being written.
pub(crate) struct Text(pub(crate) Vec<u8>);

/// An array or object that is being written.
pub(crate) struct Open {
    end: u8,
    is_empty: bool,
    /// Of a message with defaults.
    defaults: &'static [Field],
    /// Which of those fields are there, by their places.
    set: Vec<u32>,
}

impl Sink for Text {
    type Node = ();
    type Open = Open;

    fn plain(&mut self, value: Plain<'_>) {
        match value {
            Plain::Bool(flag) => self.raw(if flag { "true" } else { "false" }),
            // Numbers always have a form, and a vector takes it.
            Plain::Int(number) => {
                let _always = write!(self.0, "{number}");
            }
            Plain::Uint(number) => {
                let _always = write!(self.0, "{number}");
            }
            Plain::Double(number) => self.double(number),
            Plain::Text(text) => self.text(text),
            Plain::Bytes(bytes) => {
                self.0.push(b'"');
                self.raw(&BASE64.encode(bytes));
                self.0.push(b'"');
            }
            Plain::Enum(name, _) => self.text(name),
        }
    }

    fn open(&mut self, shape: Shape, _: usize) -> Open {
        let (begin, end, defaults) = match shape {
            Shape::List => (b'[', b']', &[][..]),
            Shape::Map => (b'{', b'}', &[][..]),
            Shape::Message(of) => (b'{', b'}', of.with_defaults()),
        };
        self.0.push(begin);
        Open {
            end,
            is_empty: true,
            defaults,
            set: Vec::new(),
        }
    }

    fn entry<E>(
        &mut self,
        open: &mut Open,
        key: Key<'_>,
        write: impl FnOnce(&mut Self) -> Result<Option<()>, E>,
    ) -> Result<(), E> {
        let before = self.0.len();
        self.key(open, key);
        if write(self)?.is_none() {
            self.0.truncate(before);
            return Ok(());
        }
        open.is_empty = false;
        if let Key::Field(field) = key
            && !open.defaults.is_empty()
        {
            open.set.push(field.number);
        }
        Ok(())
    }

    fn close(&mut self, mut open: Open) {
        for field in open.defaults {
            let Some(default) = field.default.filter(|_| !field.deprecated) else {
                continue;
            };
            if !open.set.contains(&field.number) {
                self.key(&open, Key::Field(field));
                self.default(field, default);
                open.is_empty = false;
            }
        }
        self.0.push(open.end);
    }

    fn is_empty(open: &Open) -> bool {
        open.is_empty
    }

    fn tree(&mut self, tree: Tree, of: Option<&'static MessageType>) {
        self.value(&tree, of);
    }
}

impl Text {
    fn raw(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    /// What stands before a value.
    fn key(&mut self, open: &Open, key: Key<'_>) {
        if !open.is_empty {
            self.0.push(b',');
        }
        match key {
            Key::Element => {}
            Key::Name(name) => {
                self.text(name);
                self.0.push(b':');
            }
            // Names of fields have nothing to be escaped.
            Key::Field(field) => {
                self.0.push(b'"');
                self.raw(field.name);
                self.raw("\":");
            }
        }
    }

    fn value(&mut self, node: &Tree, of: Option<&'static MessageType>) {
        let plain = match node {
            Tree::Bool(flag) => Plain::Bool(*flag),
            Tree::Int(number) => Plain::Int(*number),
            Tree::Uint(number) => Plain::Uint(*number),
            Tree::Double(number) => Plain::Double(*number),
            Tree::Text(text) => Plain::Text(text),
            Tree::Bytes(bytes) => Plain::Bytes(bytes),
            Tree::Enum(name, number) => Plain::Enum(name, *number),
            Tree::List(all) => {
                let all = all.iter().map(|one| (Key::Element, one, of));
                return self.all(Shape::List, all);
            }
            Tree::Map(all) => {
                let all = all.iter().map(|(name, one)| (Key::Name(name), one, of));
                return self.all(Shape::Map, all);
            }
            Tree::Message(fields) => {
                let fields = fields
                    .iter()
                    .map(|(field, one)| (Key::Field(field), one, field.kind.message()));
                return self.all(of.map_or(Shape::Map, Shape::Message), fields);
            }
        };
        self.plain(plain);
    }

    fn all<'a>(
        &mut self,
        shape: Shape,
        all: impl Iterator<Item = (Key<'a>, &'a Tree, Option<&'static MessageType>)>,
    ) {
        let mut open = self.open(shape, 0);
        for (key, one, of) in all {
            let written = self.entry(&mut open, key, |out| {
                out.value(one, of);
                Ok::<_, std::convert::Infallible>(Some(()))
            });
            let Ok(()) = written;
        }
        self.close(open);
    }

    fn default(&mut self, field: &Field, default: &str) {
        match field.kind {
            Kind::Double | Kind::Float => self.double(default.parse().unwrap_or_default()),
            Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 | Kind::Bool => {
                self.raw(default);
            }
            Kind::Text | Kind::Bytes | Kind::Enum(_) | Kind::Message(_) => self.text(default),
        }
    }

    fn double(&mut self, number: f64) {
        // JSON has no word for the others.
        if number.is_finite() {
            let _always = serde_json::to_writer(&mut self.0, &number);
        } else if number.is_nan() {
            self.raw("\"NaN\"");
        } else if number > 0.0 {
            self.raw("\"Infinity\"");
        } else {
            self.raw("\"-Infinity\"");
        }
    }

    fn text(&mut self, text: &str) {
        // A text always has a JSON form, and a vector takes it.
        let _always = serde_json::to_writer(&mut self.0, text);
    }
}
