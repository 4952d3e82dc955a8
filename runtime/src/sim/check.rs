//! What checks see of a run, and how a broken law is told.

use std::fmt;

use bytes::Bytes;

use super::show::Shown;
use super::{NodeId, Sim};
use crate::clock::Time;
use crate::links::ExitReason;
use crate::message::{Correlation, Kind, Message, read_named};
use crate::pid::Pid;

/// A message, as checks see it.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Receiver.
    pub to: Pid,
    /// Sender.
    pub from: Pid,
    /// Kind.
    pub kind: Kind,
    /// Wire name.
    pub name: &'static str,
    /// Whether it asks or answers.
    pub correlation: Correlation,
    /// MessagePack body.
    pub body: Bytes,
}

impl Letter {
    /// The message, if it is an `M`.
    pub fn read<M: Message>(&self) -> Option<M> {
        if self.kind == Kind::of::<M>() {
            M::read_body(&self.body).ok()
        } else {
            None
        }
    }

    /// The message as a tree of values, for a story.
    pub fn show(&self) -> String {
        read_named::<Shown>(&self.body)
            .map_or_else(|error| error.to_string(), |shown| shown.0.to_string())
    }
}

/// One thing that happened.
#[derive(Debug)]
pub enum Seen<'a> {
    /// A node has started.
    Booted(NodeId),
    /// A node has died with all that it held.
    Crashed(NodeId),
    /// A process has been started.
    Spawned(&'a Pid),
    /// A process has ended.
    Ended(&'a Pid, &'a ExitReason),
    /// A process, or code outside all actors, has sent a message.
    Sent(&'a Letter),
    /// A process is about to handle a message.
    Handled(&'a Letter),
    /// A message was lost, and why.
    Dropped(&'a Letter, &'static str),
    /// A process has handled one event; its effects are not carried out yet.
    Turned(&'a Pid),
}

/// A law that every run has to keep. Checks only look; what they want to remember they keep themselves.
pub trait Invariant {
    /// Its name, such as `T-1`.
    fn name(&self) -> &'static str;

    /// Looks at one thing that happened.
    ///
    /// # Errors
    /// What breaks the law.
    fn seen(&mut self, _sim: &Sim, _seen: &Seen<'_>) -> Result<(), String> {
        Ok(())
    }

    /// Looks at the world after a step.
    ///
    /// # Errors
    /// What breaks the law.
    fn after_step(&mut self, _sim: &Sim) -> Result<(), String> {
        Ok(())
    }

    /// Looks at the world at the end of a run, when all work is over.
    ///
    /// # Errors
    /// What breaks the law.
    fn at_end(&mut self, _sim: &Sim) -> Result<(), String> {
        Ok(())
    }
}

/// A law was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Seed of the run.
    pub seed: u64,
    /// Virtual time.
    pub at: Time,
    /// Which law.
    pub law: String,
    /// How it was broken.
    pub what: String,
    /// The last things that happened, oldest first.
    pub story: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.story {
            writeln!(f, "  {line}")?;
        }
        write!(
            f,
            "seed {} breaks {} at {}: {}",
            self.seed, self.law, self.at, self.what
        )
    }
}

impl std::error::Error for Failure {}
