//! Whether what others ask of the master makes sense: frameworks, agents, tasks, task groups.
//!
//! Pure: each function takes the request and what it needs to know of the state, and answers `Ok` or the first rule
//! that is broken. A rejection prints exactly the text that Mesos gives, since people and programs look for it.
//!
//! | file | checks |
//! |---|---|
//! | `framework.rs` | a framework's description of itself |
//! | `agent.rs` | registration and re-registration of agents |
//! | `resources.rs` | resources of tasks and executors |
//! | `check.rs` | checks and health checks |
//! | `container.rs` | commands and containers |
//! | `executor.rs` | executors |
//! | `task.rs` | tasks |
//! | `group.rs` | task groups |
//!
//! Source: Mesos `src/master/validation.cpp`, `src/common/validation.cpp`, `src/checks/checker.cpp`.

pub mod agent;
pub mod check;
pub mod container;
pub mod executor;
pub mod framework;
pub mod group;
pub mod resources;
pub mod task;
