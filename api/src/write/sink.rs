//! Where the values of a message go while it is written: into a tree, or into text at once.
//!
//! Pure.

use crate::schema::{Field, MessageType};
use crate::tree::Tree;

/// Takes a message apart into its values, in their order.
pub(crate) trait Sink {
    /// What stands for a value that was written.
    type Node;
    /// A list, a map or a message that is being written.
    type Open;

    /// A value that holds no others.
    fn plain(&mut self, value: Plain<'_>) -> Self::Node;

    /// Begins a value that holds about so many others.
    fn open(&mut self, shape: Shape, length: usize) -> Self::Open;

    /// Has the next value in it written. One that turns out to be nothing leaves no trace.
    fn entry<E>(
        &mut self,
        open: &mut Self::Open,
        key: Key<'_>,
        write: impl FnOnce(&mut Self) -> Result<Option<Self::Node>, E>,
    ) -> Result<(), E>;

    /// Ends it.
    fn close(&mut self, open: Self::Open) -> Self::Node;

    /// Whether nothing is in it yet.
    fn is_empty(open: &Self::Open) -> bool;

    /// A value that is a tree already.
    fn tree(&mut self, tree: Tree, of: Option<&'static MessageType>) -> Self::Node;
}

/// A value that holds no others.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Plain<'a> {
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number that is not negative.
    Uint(u64),
    /// A number with a fraction.
    Double(f64),
    /// A text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A name with its number.
    Enum(&'static str, i32),
}

/// How a value holds others.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// Several of one kind.
    List,
    /// Several of one kind, each with a name.
    Map,
    /// Fields.
    Message(&'static MessageType),
}

/// Where in it the next value stands.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Key<'a> {
    /// At the end of a list.
    Element,
    /// Under this name of a map.
    Name(&'a str),
    /// As this field of a message.
    Field(&'static Field),
}

/// Makes a tree.
pub(crate) struct Planter;

impl Sink for Planter {
    type Node = Tree;
    type Open = Tree;

    fn plain(&mut self, value: Plain<'_>) -> Tree {
        match value {
            Plain::Bool(flag) => Tree::Bool(flag),
            Plain::Int(number) => Tree::Int(number),
            Plain::Uint(number) => Tree::Uint(number),
            Plain::Double(number) => Tree::Double(number),
            Plain::Text(text) => Tree::Text(text.to_owned()),
            Plain::Bytes(bytes) => Tree::Bytes(bytes.to_vec()),
            Plain::Enum(name, number) => Tree::Enum(name, number),
        }
    }

    fn open(&mut self, shape: Shape, length: usize) -> Tree {
        match shape {
            Shape::List => Tree::List(Vec::with_capacity(length)),
            Shape::Map => Tree::Map(Vec::with_capacity(length)),
            Shape::Message(_) => Tree::Message(Vec::with_capacity(length)),
        }
    }

    fn entry<E>(
        &mut self,
        open: &mut Tree,
        key: Key<'_>,
        write: impl FnOnce(&mut Self) -> Result<Option<Tree>, E>,
    ) -> Result<(), E> {
        let node = write(self)?;
        match (open, key) {
            (Tree::List(all), Key::Element) => all.extend(node),
            (Tree::Map(all), Key::Name(name)) => {
                all.extend(node.map(|node| (name.to_owned(), node)));
            }
            (Tree::Message(all), Key::Field(field)) => all.extend(node.map(|node| (field, node))),
            (open, key) => debug_assert!(false, "{key:?} in {open:?}"),
        }
        Ok(())
    }

    fn close(&mut self, open: Tree) -> Tree {
        open
    }

    fn is_empty(open: &Tree) -> bool {
        match open {
            Tree::List(all) => all.is_empty(),
            Tree::Map(all) => all.is_empty(),
            Tree::Message(all) => all.is_empty(),
            Tree::Bool(_)
            | Tree::Int(_)
            | Tree::Uint(_)
            | Tree::Double(_)
            | Tree::Text(_)
            | Tree::Bytes(_)
            | Tree::Enum(..) => false,
        }
    }

    fn tree(&mut self, tree: Tree, _: Option<&'static MessageType>) -> Tree {
        tree
    }
}
