//! What the master does with each message, by conversation.

mod agents;
mod departures;
mod frameworks;
mod offers;
mod recovery;
mod status;
mod tasks;

pub(crate) use departures::NotGone;
