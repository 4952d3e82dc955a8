//! The real programs: what a user types, and what must happen when a part is killed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod commands;
mod kills;
mod wordcount;
