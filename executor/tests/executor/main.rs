//! Executors as their agents see them: the driver over an in-memory network, the real programs over QUIC.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod agent;
mod command;
mod driver;
mod launch;
