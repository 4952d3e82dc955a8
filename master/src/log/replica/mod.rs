//! The replica: one member's part of the log.

pub mod core;

#[cfg(test)]
mod tests;
