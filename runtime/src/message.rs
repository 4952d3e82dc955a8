//! Messages: what one actor may say to another, and the envelope that carries it.
//!
//! A message is plain data with a wire name. Between actors of one node it travels as the value itself and is
//! never serialised; between nodes as MessagePack in the named form, so that either side may know fields the other
//! does not: unknown fields are skipped, missing ones take their `#[serde(default)]`.

use std::any::Any;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use smallbox::space::S4;
use smallbox::{SmallBox, smallbox};

pub use crate::codec::CodecError;
use crate::pid::Pid;

/// One kind of message.
///
/// Within a node any value goes. To another node it must fit into [`crate::NodeBuilder::max_message`], nest no deeper
/// than [`crate::codec::MAX_DEPTH`], and take up no more memory than [`crate::codec::decode_body`] allows for its bytes:
/// lists of texts, numbers and records do, thousands of records with nearly all fields missing do not. What does not
/// is refused by the receiver, which logs it; who asked gets no answer.
///
/// ```
/// use meseta_runtime::Message;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Ping { count: u64 }
/// impl Message for Ping { const NAME: &'static str = "example.Ping"; }
/// ```
pub trait Message: Serialize + DeserializeOwned + Send + 'static {
    /// Name on the wire. Never reused for another meaning.
    const NAME: &'static str;
    /// Version of the fields, told to peers when a connection opens. Raise it when a field is added.
    const VERSION: u16 = 1;
    /// Roles whose nodes may send this message to another node, for example `["master"]`. Empty: any
    /// authenticated peer, guests too, so say [`OWN_NODE`] for what no other node has to send. Actors of the same
    /// node are not checked.
    const SENDERS: &'static [&'static str] = &[];

    /// Appends the body to `out`: MessagePack, named form. A crate with many large messages overrides this and
    /// [`Message::read_body`] with calls of [`write_named`] and [`read_named`], so that their serialisation is
    /// compiled once there and not again in every crate that sends or receives them.
    ///
    /// # Errors
    /// [`CodecError::Encode`] when the value has no MessagePack form, such as a map key that is no string or number.
    fn write_body(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        write_named(self, out)
    }

    /// Reads what [`Message::write_body`] wrote, here or in another version.
    ///
    /// # Errors
    /// [`CodecError::Decode`] when the bytes are no such message or nest too deep.
    fn read_body(body: &[u8]) -> Result<Self, CodecError> {
        read_named(body)
    }
}

/// Appends a value as MessagePack in the named form.
///
/// # Errors
/// [`CodecError::Encode`] when the value has no MessagePack form; what was appended by then stays.
pub fn write_named<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    rmp_serde::encode::write_named(out, value).map_err(CodecError::Encode)
}

/// Reads a value from MessagePack, refusing one nested deeper than [`crate::codec::MAX_DEPTH`].
///
/// # Errors
/// [`CodecError::Decode`] with the reason.
pub fn read_named<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    crate::codec::decode_body(body)
}

/// Value for [`Message::SENDERS`] of messages meant within a node only. It names a role that no certificate can
/// have: roles are made of letters, digits, `-`, `_` and `.`, so one with spaces is never issued. Processes of the same
/// node are not checked, every other node and guest is refused.
pub const OWN_NODE: &[&str] = &["the node itself"];

/// A message that expects one answer.
pub trait Ask: Message {
    /// The answer.
    type Reply: Message;
}

/// Number of a message kind in frames: the 32-bit FNV-1a hash of its name.
///
/// Two names with one number are refused when a process that handles both is spawned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind(pub u32);

impl Kind {
    /// Kind of the message `M`.
    pub const fn of<M: Message>() -> Self {
        Self::named(M::NAME)
    }

    /// Kind of a wire name.
    pub const fn named(name: &str) -> Self {
        let bytes = name.as_bytes();
        let mut hash: u32 = 0x811c_9dc5;
        let mut i = 0;
        while i < bytes.len() {
            hash = (hash ^ bytes[i] as u32).wrapping_mul(0x0100_0193);
            i += 1;
        }
        Self(hash)
    }
}

/// The content of a message on its way: the value itself, or its bytes as they came from another node.
pub enum Payload {
    /// Sent on this node; the value is moved, never serialised.
    Local(Parcel),
    /// Received from another node; decoded on the receiver's own thread.
    Wire(Bytes),
}

/// A message value on its way within its node, whose type is known again only to the receiver's dispatch table.
///
/// A small value stands in the parcel itself: memory that one thread takes and another gives back costs more than all
/// the rest of passing a message on.
pub struct Parcel(SmallBox<dyn Content, S4>);

/// Nothing is ever pinned in a parcel.
impl Unpin for Parcel {}

impl Parcel {
    /// Wraps a value.
    pub fn new<M: Message>(message: M) -> Self {
        Self(smallbox!(Some(message)))
    }

    /// The MessagePack body, for a receiver on another node.
    ///
    /// # Errors
    /// As [`Message::write_body`].
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let mut body = Vec::with_capacity(128);
        self.encode_into(&mut body)?;
        Ok(body)
    }

    /// As [`Parcel::encode`], behind what `out` holds.
    ///
    /// # Errors
    /// As [`Message::write_body`]; what was appended by then stays.
    pub fn encode_into(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.0.encode_into(out)
    }

    /// The wire name.
    pub fn name(&self) -> &'static str {
        self.0.name()
    }

    /// The value; `None` when it is of another type.
    pub(crate) fn open<M: Message>(mut self) -> Option<M> {
        let mut value: Option<M> = None;
        self.0.move_to(&mut value);
        value
    }
}

/// A value in a parcel, until it is taken out.
trait Content: Send {
    fn encode_into(&self, out: &mut Vec<u8>) -> Result<(), CodecError>;
    fn name(&self) -> &'static str;
    /// Moves the value into `place`, if that is an `Option` of its type.
    fn move_to(&mut self, place: &mut dyn Any);
}

impl<M: Message> Content for Option<M> {
    fn encode_into(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.as_ref()
            .map_or(Ok(()), |message| message.write_body(out))
    }

    fn name(&self) -> &'static str {
        M::NAME
    }

    fn move_to(&mut self, place: &mut dyn Any) {
        if let Some(place) = place.downcast_mut::<Self>() {
            *place = self.take();
        }
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local(parcel) => write!(f, "Local({})", parcel.name()),
            Self::Wire(bytes) => write!(f, "Wire({} bytes)", bytes.len()),
        }
    }
}

/// How a message relates to an ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Correlation {
    /// An ordinary message.
    None,
    /// Expects an answer under this number, unique for the asking node.
    Request(u64),
    /// Answers the request of this number.
    Answer(u64),
}

/// A message with its sender and receiver.
#[derive(Debug)]
pub struct Envelope {
    /// Receiver.
    pub to: Pid,
    /// Sender; for a remote one already checked against the connection's authenticated peer.
    pub from: Pid,
    /// Kind of the content.
    pub kind: Kind,
    /// Whether it asks or answers.
    pub correlation: Correlation,
    /// The content.
    pub payload: Payload,
}

/// A message in the mailbox of its receiver, which need not be named any more. Who puts it there lets go of the name,
/// so that the count of that record stays with one thread: a count that two threads change in turn travels between
/// their cores each time.
#[derive(Debug)]
pub(crate) struct Mail {
    pub(crate) from: Pid,
    pub(crate) kind: Kind,
    pub(crate) correlation: Correlation,
    pub(crate) payload: Payload,
}

impl From<Envelope> for Mail {
    fn from(envelope: Envelope) -> Self {
        Self {
            from: envelope.from,
            kind: envelope.kind,
            correlation: envelope.correlation,
            payload: envelope.payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_is_fnv1a_of_the_name() {
        // Values of the published 32-bit FNV-1a test vectors.
        assert_eq!(Kind::named(""), Kind(0x811c_9dc5));
        assert_eq!(Kind::named("a"), Kind(0xe40c_292c));
        assert_eq!(Kind::named("foobar"), Kind(0xbf9c_f968));
    }
}
