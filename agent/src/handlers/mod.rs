//! Handlers by conversation: `impl Receive` and `impl FromMaster` for the agent, and where effects are carried out.

mod containers;
mod executors;
pub(crate) mod gc;
mod master;
pub(crate) mod recovery;
mod status;
mod tasks;
