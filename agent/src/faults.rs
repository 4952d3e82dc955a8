//! The places at which tests end an agent as `kill -9` would: before and after each step between what is written down and
//! what is done. See [`meseta_runtime::fault`]; `tests/processes/fault_points.rs` walks all of them.

use std::future::{Ready, ready};

use meseta_runtime::{Context, Gate, NodeBuilder, Op, fault};

use crate::agent::Agent;

/// A place in the life of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// A commit is about to be written.
    CommitBegun,
    /// It is durable, and nobody knows.
    CommitDurable,
    /// An executor is written down, and its launch has not begun.
    LaunchOrdered,
    /// Its sandbox is made.
    SandboxMade,
    /// Its first process is there and does not know what to run.
    ProcessStarted,
    /// It knows, and the agent has not noted its number.
    ProcessTold,
    /// The number is noted.
    ProcessNoted,
    /// An executor has subscribed, and has not been answered.
    Subscribed,
    /// It has been given its tasks.
    TasksGiven,
    /// An update is written down, and nobody has been told.
    UpdateKept,
    /// The master has been told.
    UpdateForwarded,
    /// The executor has been told that the update arrived.
    UpdateTaken,
    /// The framework has dealt with an update, which is written down.
    AcknowledgementKept,
    /// The framework has dealt with a task's end: nothing of the task is written down any more.
    EndForgotten,
    /// Nothing of a container is left, and nobody has been told.
    ContainerGone,
    /// An executor that is over is forgotten.
    ExecutorForgotten,
    /// Recovery: the records are read.
    Loaded,
    /// Recovery: tables and streams are as they were.
    Adopted,
    /// Recovery: what was not to be kept has ended.
    Swept,
    /// Recovery: one of the executors was looked for.
    LookedFor,
    /// Recovery: all executors are accounted for.
    AllBack,
    /// The master has let the agent in again, and the updates that wait have been sent.
    Resumed,
}

impl Point {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::CommitBegun,
        Self::CommitDurable,
        Self::LaunchOrdered,
        Self::SandboxMade,
        Self::ProcessStarted,
        Self::ProcessTold,
        Self::ProcessNoted,
        Self::Subscribed,
        Self::TasksGiven,
        Self::UpdateKept,
        Self::UpdateForwarded,
        Self::UpdateTaken,
        Self::AcknowledgementKept,
        Self::EndForgotten,
        Self::ContainerGone,
        Self::ExecutorForgotten,
        Self::Loaded,
        Self::Adopted,
        Self::Swept,
        Self::LookedFor,
        Self::AllBack,
        Self::Resumed,
    ];

    /// Whether an agent comes there at its start, and not later.
    pub fn is_at_start(self) -> bool {
        matches!(
            self,
            Self::Loaded
                | Self::Adopted
                | Self::Swept
                | Self::LookedFor
                | Self::AllBack
                | Self::Resumed
        )
    }

    /// As an order names it.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// Ends the program if it is to end here.
    pub(crate) fn reach(self) {
        if cfg!(debug_assertions) {
            fault::reach(&self.name());
        }
    }

    /// Ends the program, if it is to end here, when everything that was ordered before has been carried out.
    pub(crate) fn reach_in_turn(self, cx: &mut Context<'_, Agent>) {
        if cfg!(debug_assertions) && fault::is_due(&self.name()) {
            cx.run(Die, Gate::Interleave, |_, _, ()| {});
        }
    }
}

/// Ends the program.
struct Die;

impl Op for Die {
    type Out = ();
}

/// Has a node carry out what fault points order.
pub(crate) fn operators(builder: NodeBuilder) -> NodeBuilder {
    builder.op(|_: Die| -> Ready<()> {
        if cfg!(debug_assertions) {
            fault::die();
        }
        ready(())
    })
}
