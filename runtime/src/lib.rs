//! Actors with PIDs, found and messaged the same way locally and across machines.

pub mod message;
pub mod pid;

pub use message::{Ask, Message};
pub use pid::{Address, Pid};
