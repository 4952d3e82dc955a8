//! Trees as protobuf.
//!
//! Pure. Fields that the schema does not know are skipped, as are those of another wire type than theirs.

use crate::schema::{Field, Kind, Label, MessageType};
use crate::tree::Tree;

/// How deep messages may nest, in JSON as well.
pub const MAX_DEPTH: usize = 100;

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// They end within a field, or are no protobuf at all.
    #[error("Failed to parse body into {0} protobuf")]
    Malformed(String),
    /// A field that must be there is not.
    #[error("Failed to parse body into {message} protobuf: Missing required fields: {missing}")]
    Missing {
        /// Last part of the message's name.
        message: String,
        /// The fields with their paths.
        missing: String,
    },
}

/// Reads a message.
///
/// # Errors
/// [`ProtobufError`] with the text that the client is told.
pub fn read(body: &[u8], message: &'static MessageType) -> Result<Tree, ProtobufError> {
    read_within(body, message, MAX_DEPTH)
}

/// Reads a message that may nest so many levels deep, at most [`MAX_DEPTH`].
///
/// # Errors
/// [`ProtobufError`] with the text that the client is told.
pub fn read_within(
    body: &[u8],
    message: &'static MessageType,
    nesting: usize,
) -> Result<Tree, ProtobufError> {
    // The message itself is a level, as in JSON.
    let nesting = nesting.clamp(1, MAX_DEPTH) - 1;
    let name = || {
        message
            .name
            .rsplit('.')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let node =
        read_message(body, message, nesting).ok_or_else(|| ProtobufError::Malformed(name()))?;
    let missing = node.missing(message);
    if missing.is_empty() {
        Ok(node)
    } else {
        Err(ProtobufError::Missing {
            message: name(),
            missing: missing.join(", "),
        })
    }
}

/// One field as it stands in the bytes.
enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if shift < 64 {
            value |= u64::from(byte & 0x7f) << shift;
        }
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let length = usize::try_from(length).ok()?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn raw<'a>(bytes: &mut &'a [u8], wire_type: u64) -> Option<Raw<'a>> {
    Some(match wire_type {
        0 => Raw::Varint(varint(bytes)?),
        1 => Raw::Fixed64(u64::from_le_bytes(take(bytes, 8)?.try_into().ok()?)),
        2 => {
            let length = varint(bytes)?;
            Raw::Bytes(take(bytes, length)?)
        }
        5 => Raw::Fixed32(u32::from_le_bytes(take(bytes, 4)?.try_into().ok()?)),
        _ => return None,
    })
}

fn read_message(mut bytes: &[u8], message: &'static MessageType, depth: usize) -> Option<Tree> {
    let mut fields: Vec<(&'static Field, Tree)> = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let number = u32::try_from(key >> 3).ok().filter(|number| *number > 0)?;
        let value = raw(&mut bytes, key & 7)?;
        let Some(field) = message.numbered(number) else {
            continue;
        };
        let set = fields.iter_mut().find(|(known, _)| known.number == number);
        match field.label {
            Label::Map => {
                let Raw::Bytes(entry) = value else { continue };
                let entry = read_entry(entry, field, depth)?;
                if let Some((_, Tree::Map(all))) = set {
                    all.retain(|(name, _)| *name != entry.0);
                    all.push(entry);
                } else {
                    fields.push((field, Tree::Map(vec![entry])));
                }
            }
            Label::Repeated => {
                let mut read = Vec::new();
                match (field.kind, value) {
                    (Kind::Text | Kind::Bytes | Kind::Message(_), value) => {
                        read.extend(read_value(value, field.kind, depth)?);
                    }
                    (_, Raw::Bytes(mut packed)) => {
                        let wire_type = wire_type(field.kind);
                        while !packed.is_empty() {
                            let value = raw(&mut packed, wire_type)?;
                            read.extend(read_value(value, field.kind, depth)?);
                        }
                    }
                    (_, value) => read.extend(read_value(value, field.kind, depth)?),
                }
                if read.is_empty() {
                    continue;
                }
                if let Some((_, Tree::List(all))) = set {
                    all.extend(read);
                } else {
                    fields.push((field, Tree::List(read)));
                }
            }
            Label::Optional | Label::Required => {
                let Some(value) = read_value(value, field.kind, depth)? else {
                    continue;
                };
                match (set, value) {
                    (Some((_, Tree::Message(known))), Tree::Message(more)) => merge(known, more),
                    (Some((_, known)), value) => *known = value,
                    (None, value) => fields.push((field, value)),
                }
            }
        }
    }
    Some(Tree::Message(fields))
}

/// A message given in pieces is their sum.
fn merge(known: &mut Vec<(&'static Field, Tree)>, more: Vec<(&'static Field, Tree)>) {
    for (field, value) in more {
        let set = known
            .iter_mut()
            .find(|(other, _)| other.number == field.number);
        match (set, value) {
            (Some((_, Tree::Message(known))), Tree::Message(more)) => merge(known, more),
            (Some((_, Tree::List(all))), Tree::List(more)) => all.extend(more),
            (Some((_, Tree::Map(all))), Tree::Map(more)) => all.extend(more),
            (Some((_, known)), value) => *known = value,
            (None, value) => known.push((field, value)),
        }
    }
}

fn read_entry(mut bytes: &[u8], field: &'static Field, depth: usize) -> Option<(String, Tree)> {
    let (mut name, mut value) = (String::new(), None);
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let content = raw(&mut bytes, key & 7)?;
        match (key >> 3, content) {
            (1, Raw::Bytes(text)) => name = std::str::from_utf8(text).ok()?.to_owned(),
            (2, content) => value = read_value(content, field.kind, depth)?,
            _ => {}
        }
    }
    let value = value.or_else(|| empty(field.kind))?;
    Some((name, value))
}

fn empty(kind: Kind) -> Option<Tree> {
    Some(match kind {
        Kind::Double | Kind::Float => Tree::Double(0.0),
        Kind::Int32 | Kind::Int64 => Tree::Int(0),
        Kind::Uint32 | Kind::Uint64 => Tree::Uint(0),
        Kind::Bool => Tree::Bool(false),
        Kind::Text => Tree::Text(String::new()),
        Kind::Bytes => Tree::Bytes(Vec::new()),
        Kind::Message(_) => Tree::empty(),
        Kind::Enum(_) => {
            let (name, number) = kind.names()?.values.first()?;
            Tree::Enum(name, *number)
        }
    })
}

/// The outer none is for what makes the body malformed, the inner one for what counts as not set.
#[expect(clippy::option_option, reason = "both mean something, as said above")]
#[expect(
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation,
    reason = "protobuf's numbers are read by their low bits"
)]
fn read_value(value: Raw<'_>, kind: Kind, depth: usize) -> Option<Option<Tree>> {
    Some(Some(match (kind, value) {
        (Kind::Double, Raw::Fixed64(bits)) => Tree::Double(f64::from_bits(bits)),
        (Kind::Float, Raw::Fixed32(bits)) => Tree::Double(f64::from(f32::from_bits(bits))),
        (Kind::Int32, Raw::Varint(value)) => Tree::Int(i64::from(value as i32)),
        (Kind::Int64, Raw::Varint(value)) => Tree::Int(value as i64),
        (Kind::Uint32, Raw::Varint(value)) => Tree::Uint(u64::from(value as u32)),
        (Kind::Uint64, Raw::Varint(value)) => Tree::Uint(value),
        (Kind::Bool, Raw::Varint(value)) => Tree::Bool(value != 0),
        (Kind::Enum(_), Raw::Varint(value)) => {
            let Some((name, number)) = kind.names().and_then(|names| names.numbered(value as i32))
            else {
                return Some(None);
            };
            Tree::Enum(name, number)
        }
        (Kind::Text, Raw::Bytes(text)) => Tree::Text(String::from_utf8_lossy(text).into_owned()),
        (Kind::Bytes, Raw::Bytes(bytes)) => Tree::Bytes(bytes.to_vec()),
        (Kind::Message(_), Raw::Bytes(bytes)) => {
            let depth = depth.checked_sub(1)?;
            read_message(bytes, kind.message()?, depth)?
        }
        _ => return Some(None),
    }))
}

const fn wire_type(kind: Kind) -> u64 {
    match kind {
        Kind::Double => 1,
        Kind::Float => 5,
        Kind::Text | Kind::Bytes | Kind::Message(_) => 2,
        Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 | Kind::Bool | Kind::Enum(_) => 0,
    }
}

/// Writes a message.
pub fn write(node: &Tree) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    write_message(node, &mut out);
    out
}

fn write_message(node: &Tree, out: &mut Vec<u8>) {
    let Tree::Message(fields) = node else { return };
    for (field, value) in fields {
        match value {
            Tree::List(all) => {
                for one in all {
                    write_field(field.number, field.kind, one, out);
                }
            }
            Tree::Map(all) => {
                for (name, one) in all {
                    let mut entry = Vec::new();
                    write_bytes(1, name.as_bytes(), &mut entry);
                    write_field(2, field.kind, one, &mut entry);
                    write_bytes(field.number, &entry, out);
                }
            }
            Tree::Bool(_)
            | Tree::Int(_)
            | Tree::Uint(_)
            | Tree::Double(_)
            | Tree::Text(_)
            | Tree::Bytes(_)
            | Tree::Enum(..)
            | Tree::Message(_) => write_field(field.number, field.kind, value, out),
        }
    }
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

fn write_key(number: u32, wire_type: u64, out: &mut Vec<u8>) {
    write_varint(u64::from(number) << 3 | wire_type, out);
}

fn write_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    write_key(number, 2, out);
    write_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[expect(
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "negative numbers are written by their bits, and floats have less precision"
)]
fn write_field(number: u32, kind: Kind, value: &Tree, out: &mut Vec<u8>) {
    match value {
        Tree::Bytes(bytes) => write_bytes(number, bytes, out),
        Tree::Text(text) => write_bytes(number, text.as_bytes(), out),
        Tree::Message(_) => {
            let mut inner = Vec::new();
            write_message(value, &mut inner);
            write_bytes(number, &inner, out);
        }
        Tree::Double(value) if kind == Kind::Float => {
            write_key(number, 5, out);
            out.extend_from_slice(&(*value as f32).to_le_bytes());
        }
        Tree::Double(value) => {
            write_key(number, 1, out);
            out.extend_from_slice(&value.to_le_bytes());
        }
        Tree::Bool(flag) => {
            write_key(number, 0, out);
            write_varint(u64::from(*flag), out);
        }
        Tree::Int(value) => {
            write_key(number, 0, out);
            write_varint(*value as u64, out);
        }
        Tree::Uint(value) => {
            write_key(number, 0, out);
            write_varint(*value, out);
        }
        Tree::Enum(_, value) => {
            write_key(number, 0, out);
            write_varint(i64::from(*value) as u64, out);
        }
        // Lists and maps stand in fields, never in one another.
        Tree::List(_) | Tree::Map(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::message;

    #[test]
    fn bytes_are_those_of_the_published_encoding() {
        let decline = crate::json::read(
            br#"{"type":"DECLINE","framework_id":{"value":"f"},
                 "decline":{"offer_ids":[{"value":"o"}],"filters":{"refuse_seconds":1.0}}}"#,
            message("mesos.v1.scheduler.Call"),
        )
        .unwrap();
        let bytes = write(&decline);
        let back = read(&bytes, message("mesos.v1.scheduler.Call")).unwrap();
        assert_eq!(back, decline);
        // Field 1, three bytes: field 1, one byte.
        let framework: &[u8] = b"\x0a\x03\x0a\x01f";
        assert!(bytes.windows(framework.len()).any(|part| part == framework));
        // Field 2, the number of DECLINE.
        assert!(bytes.windows(2).any(|part| part == [0x10, 4]), "{bytes:?}");
    }

    #[test]
    fn what_is_cut_off_is_malformed_and_what_is_unknown_is_skipped() {
        let labels = message("mesos.v1.Labels");
        let whole = b"\x0a\x06\x0a\x01k\x12\x01v";
        assert!(read(whole, labels).is_ok());
        for end in 1..whole.len() {
            assert!(read(&whole[..end], labels).is_err(), "{end}");
        }
        // Field 100 with a number, field 1 as a number.
        let odd = b"\xa0\x06\x05\x08\x07";
        assert_eq!(read(odd, labels).unwrap(), Tree::empty());
        assert_eq!(
            read(b"\x0a\x00", labels).unwrap_err().to_string(),
            "Failed to parse body into Labels protobuf: Missing required fields: labels[0].key"
        );
    }

    #[test]
    fn messages_that_nest_without_end_are_refused() {
        let container = message("mesos.v1.ContainerID");
        let mut bytes = b"\x0a\x01c".to_vec();
        for _ in 0..200 {
            let mut outer = b"\x0a\x01c".to_vec();
            write_bytes(2, &bytes, &mut outer);
            bytes = outer;
        }
        assert!(read(&bytes, container).is_err());
    }
}
