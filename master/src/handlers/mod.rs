//! What the master does with each message, by conversation.

mod agents;
mod frameworks;
mod offers;
mod recovery;
mod status;
mod tasks;
