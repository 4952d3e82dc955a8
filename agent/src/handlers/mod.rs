//! Handlers by conversation: `impl Receive` and `impl FromMaster` for the agent, and where effects are carried out.

mod executors;
mod master;
mod status;
mod tasks;
