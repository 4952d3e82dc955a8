//! The coordinator: the one writer of the log.

pub mod core;
