//! The published HTTP API of Mesos: what its calls and events look like as JSON and as protobuf, and how they become
//! the messages of [`meseta_protocol`].
//!
//! Pure: bytes and values in, values and bytes out; no socket, no clock, no actor.
//!
//! The files in `api/proto` are the one description of both encodings. They are read when the program starts
//! ([`schema`]) and guide everything else, so a name, a number or a default stands in one place:
//!
//! ```text
//!            json.rs                      read.rs
//!  JSON     ────────▶  ┌──────────────┐  ────────▶
//!           ◀────────  │ tree.rs: a   │            what meseta_protocol
//!                      │ tree typed   │            reads and writes with serde
//!  protobuf ────────▶  │ by a schema  │
//!           ◀────────  └──────────────┘  ◀────────
//!            protobuf.rs                  write
//! ```
//!
//! Events are written to JSON at once, without a tree ([`event`]).
//!
//! [`scheduler`], [`executor`] and [`operator`] name the calls and events; [`negotiation`] says which encoding a request wants.

pub mod event;
pub mod executor;
pub mod json;
pub mod negotiation;
pub mod operator;
pub mod protobuf;
mod read;
pub mod recordio;
pub mod scheduler;
pub mod schema;
pub mod style;
pub mod tree;
mod write;

pub use event::Event;
pub use negotiation::{Format, Refusal};
pub use read::from_tree;
pub use schema::MessageType;
pub use tree::Tree;
pub use write::{Mismatch, to_tree};

/// Whether these bytes are a UUID as Mesos takes it: 16 of them, of one of the versions 1 to 5, whatever their variant.
pub(crate) fn is_uuid(bytes: &[u8]) -> bool {
    bytes.len() == 16 && matches!(bytes[6] >> 4, 1..=5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_has_sixteen_bytes_and_a_version() {
        for version in 0..=15_u8 {
            let mut bytes = [7; 16];
            bytes[6] = version << 4;
            assert_eq!(is_uuid(&bytes), (1..=5).contains(&version), "{version}");
            assert!(!is_uuid(&bytes[..15]));
        }
    }
}
