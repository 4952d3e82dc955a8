//! Kills of agents where it hurts: a task's end is written down, executors stand still before they are told so, and their
//! agent is killed meanwhile, before or after the framework has acknowledged that end.

use std::time::Duration;

use meseta_agent::checkpoint::Change;
use meseta_agent::checkpoint::records::Record;
use meseta_runtime::sim::{Kept, NodeId, Sim};
use rand::RngExt;

use super::hosts::Hosts;

/// An agent was killed about the end of a task.
pub const KILLED_AT_END: &str = "agent killed about the end of a task";

/// An agent has written something down.
pub(super) fn written(hosts: &Hosts, sim: &mut Sim, agent: NodeId, changes: &[Change]) {
    let share = hosts.troubles().kills_at_end;
    if !changes.iter().any(is_end) || !hosts.troubled(sim, share, KILLED_AT_END) {
        return;
    }
    let mut within =
        |from: u64, to: u64| Duration::from_millis(sim.random().random_range(from..to));
    let (still, until_kill, down) = (within(500, 3_000), within(50, 500), within(10, 3_000));
    for executor in hosts.executors_of(agent) {
        sim.pause(executor, still);
    }
    Hosts::while_alive(sim, agent, until_kill, move |sim| {
        sim.crash(agent, Kept::Synced, false);
        sim.later(down, move |sim| sim.restart(agent));
    });
}

fn is_end(change: &Change) -> bool {
    let record = match change {
        Change::Put(key, bytes) => Record::read(key, bytes).ok(),
        Change::Delete(_) | Change::DeleteBelow(_) | Change::Name(_) => None,
    };
    matches!(record, Some(Record::Update(one)) if !one.acknowledged && one.update.status.state.is_terminal())
}
