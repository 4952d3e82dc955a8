//! The simulated world: whole clusters of the shipped processes, on one thread, from one seed.
//!
//! `meseta_runtime::sim` is the engine: it has the network, the disks, the clocks and the crashes. Here is what it
//! hosts: a master, agents with [machines](machine), frameworks; and the [laws](crate::invariants) they are held to
//! after every step. [`world::run`] plays a seed to its end: things go wrong, faults stop, the cluster converges,
//! frameworks end, nothing is left. `tests/sim/main.rs` plays many, `scripts/sim --seed N` one, with its story.
//!
//! | file | what |
//! |---|---|
//! | [`plan`] | what a run is like, drawn from its seed |
//! | [`world`] | the cluster, and the four parts of a run |
//! | [`scheduler`], [`executor`] | what frameworks do |
//! | [`machine`] | pure: containers and processes of one machine |
//! | [`masters`] | the master, or several with their log and election |
//! | [`operator`] | what an operator does with agents |
//! | [`sandboxes`] | the disks on which sandboxes lie |
//! | [`hosts`] | models of the operations by which agents and executors use machines |
//! | [`notes`] | what is remembered outside of all nodes: the history, the books of frameworks |
//! | [`laws`] | the laws, as the engine asks for them |
//! | [`master_laws`] | those of several masters and their log |
//! | [`batch`] | many seeds on all cores |
//!
//! **A new workload** is a field of [`scheduler::Character`], drawn there, and what [`scheduler::Player`] does with it.
//! **A new operation** is a model in [`hosts`], over a table in [`machine`]. **A new fault** of machines or programs is a
//! rate in [`plan::Plan`], a place where it is drawn (`hosts::Hosts::troubled`), and a name in [`fault_kinds`], so that a
//! batch in which it never bit fails. **A new law** is a file in [`crate::invariants`] and a line in [`laws`].
//!
//! Every draw comes from the seed: from the engine's `Sim::random`, or from a source seeded with it.

pub mod agent_laws;
pub mod batch;
pub mod executor;
pub mod hosts;
pub mod kill_at_end;
pub mod laws;
pub mod machine;
pub mod master_laws;
pub mod masters;
pub mod notes;
pub mod operator;
pub mod plan;
pub mod removals;
pub mod sandboxes;
pub mod scheduler;
pub mod world;

use meseta_runtime::sim::Bites;

/// Every kind of fault that a batch must have seen bite.
pub fn fault_kinds() -> Vec<&'static str> {
    let own = [
        hosts::LAUNCH_FAILS,
        hosts::START_FAILS,
        hosts::DESTROY_FAILS,
        hosts::EXECUTOR_KILLED,
        hosts::EXECUTOR_HANGS,
        hosts::ADOPTED,
        kill_at_end::KILLED_AT_END,
        world::FAILED_OVER,
        world::SYNC_FAILS,
        sandboxes::DISK_FILLS,
        sandboxes::REMOVAL_FAILS,
        sandboxes::LOOK_FAILS,
        sandboxes::OTHER_RUN,
    ];
    Bites::ALL.iter().copied().chain(own).collect()
}
