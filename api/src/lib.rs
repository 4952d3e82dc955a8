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
//!            protobuf.rs                  write.rs
//! ```
//!
//! [`scheduler`], [`executor`] and [`operator`] name the calls and events; [`negotiation`] says which encoding a request wants.

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

pub use negotiation::{Format, Refusal};
pub use read::from_tree;
pub use schema::MessageType;
pub use tree::Tree;
pub use write::{Mismatch, to_tree};
