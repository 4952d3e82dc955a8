//! What a node tells of its processes while it runs: `/__processes__`, [`crate::Node::processes`].
//!
//! Plain data. Counters are kept by whoever does the work and only read here, so that asking never waits for a
//! process and no process waits for who asks.

use super::NodeHandle;
use crate::inbox::Inbox;

/// One process as `/__processes__` shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ProcessStatus {
    /// Id without the address.
    pub id: String,
    /// Whole PID.
    pub pid: String,
    /// Messages that wait.
    pub mailbox_depth: usize,
    /// Timers, outcomes of operations and HTTP requests that wait.
    pub control_depth: usize,
    /// How long the oldest message has waited, in milliseconds; 0 when none waits. Under a backlog one message in 256
    /// is timed, so it may be told as old as the one timed before it.
    pub oldest_message_ms: u64,
    /// Messages handled since it started.
    pub messages_handled: u64,
    /// Messages dropped because the mailbox was full.
    pub messages_dropped: u64,
    /// Dropped messages by cause.
    pub drops: Drops,
    /// Time spent in its handlers and on carrying out their effects since it started, in microseconds.
    pub busy_us: u64,
    /// The same by message, busiest first. Timers, outcomes and HTTP count into `busy_us` only.
    pub handlers: Vec<HandlerStatus>,
    /// Processes it watches.
    pub links: usize,
    /// Processes that watch it, here and elsewhere.
    pub watchers: usize,
    /// Number of the thread it runs on; 0 is the node's first, which has the network too.
    pub thread: usize,
    /// Name of the operation under `Gate::HoldUser` that its messages wait for, if any.
    pub holding: Option<String>,
    /// Wire name of the message that it is handling at this moment, if any. The same one with the same count of messages
    /// a while later means that its handler does not return.
    pub running: Option<String>,
}

/// What one process did for one kind of message.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct HandlerStatus {
    /// Wire name of the message.
    pub message: String,
    /// How many were handled.
    pub count: u64,
    /// Time spent on them, in microseconds. Exact while the process takes more than a few microseconds a message;
    /// quicker ones are timed up to 16 at once, and all of it is put down to the last.
    pub busy_us: u64,
}

/// Messages to one process that were dropped, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Drops {
    /// From other nodes and guests: the mailbox was full.
    pub mailbox_full: u64,
    /// From the own node: even the reserve was used up.
    pub reserve_full: u64,
    /// Of a kind that it does not take.
    pub unknown_kind: u64,
    /// From a node without a role that may send it.
    pub wrong_role: u64,
}

impl NodeHandle {
    pub(crate) fn processes(&self) -> Vec<ProcessStatus> {
        // One after the other: the table of links is locked while ends are told, which looks into the inboxes.
        let mut all: Vec<ProcessStatus> =
            self.0.inboxes.iter().map(|inbox| status(&inbox)).collect();
        {
            let links = self.0.links.lock();
            for one in &mut all {
                if let Ok(pid) = crate::Pid::new(&one.id, self.0.address.clone()) {
                    (one.links, one.watchers) = links.of(&pid);
                }
            }
        }
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }
}

fn status(inbox: &Inbox) -> ProcessStatus {
    let stats = &inbox.stats;
    ProcessStatus {
        id: inbox.id().to_owned(),
        pid: inbox.pid().to_string(),
        mailbox_depth: inbox.depth(),
        control_depth: inbox.control_depth(),
        oldest_message_ms: u64::try_from(inbox.oldest().as_millis()).unwrap_or(u64::MAX),
        messages_handled: stats.handled_count(),
        messages_dropped: stats.refused(),
        drops: stats.drops(),
        busy_us: stats.busy_us(),
        handlers: stats.handlers(inbox.profile()),
        links: 0,
        watchers: 0,
        thread: inbox.thread().number,
        holding: stats.holding().map(str::to_owned),
        running: stats.running(inbox.profile()).map(str::to_owned),
    }
}
