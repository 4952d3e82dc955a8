//! The agent process against a master and executors that the test plays, over the in-memory network, on a paused clock,
//! with operators that only pretend.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::large_enum_variant,
    reason = "helpers of tests fail as tests do"
)]

mod ends;
mod executors;
mod groups;
mod launches;
mod registration;
mod restarts;
mod updates;
mod world;
