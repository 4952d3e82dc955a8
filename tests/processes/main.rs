//! The real programs: what a user types, and what must happen when a part is killed.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod agents;
mod commands;
mod conformance;
mod disk_full;
mod explain;
mod failover;
mod fault_points;
mod help;
mod hostile;
mod http_api;
mod http_executors;
mod http_security;
mod kill_anything;
mod kill_local;
mod kills;
mod load;
mod log;
mod log_level;
mod masters;
mod mesos_framework;
mod partitions;
mod pymesos;
mod sandboxes;
mod subscribers;
mod third_party;
mod two_hosts;
mod unix;
mod wordcount;
