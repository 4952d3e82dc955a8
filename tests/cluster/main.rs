//! Whole components in one process, over the in-memory network and a paused clock: one conversation, one loss, one
//! exact outcome.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod election;
mod followers;
mod polling;
