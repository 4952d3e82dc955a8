//! The real programs: what a user types, and what must happen when a part is killed.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod commands;
mod failover;
mod kills;
mod log;
mod log_level;
mod masters;
mod two_hosts;
mod unix;
mod wordcount;
