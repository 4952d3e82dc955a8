//! The types every component of a Meseta cluster speaks: identifiers, resources and their algebra, descriptions of
//! frameworks, agents, executors and tasks, and the messages that carry them.
//!
//! Pure: plain data and functions on it; no actors, no clock, no disk, no network.
//!
//! Three rules hold for everything that crosses the wire (see [`wire`]):
//!
//! * optional and repeated fields are left out when empty, unknown fields are skipped, missing ones take their
//!   default, so two versions of a type understand each other as far as they agree;
//! * an enumeration name that a reader does not know becomes a variant of its own instead of an error;
//! * amounts travel as the decimal numbers people write, but are thousandths in an `i64` as soon as they are read.
//!
//! ```
//! use meseta_protocol::resources::Resources;
//!
//! let agent: Resources = "cpus:4; mem:1024; ports:[31000-32000]".parse()?;
//! let task: Resources = "cpus:0.5; ports:[31000-31000]".parse()?;
//! assert!(agent.contains(&task));
//! assert_eq!((&agent - &task).to_string(), "cpus:3.5; mem:1024; ports:[31001-32000]");
//! # Ok::<(), meseta_protocol::resources::ParseError>(())
//! ```

pub mod agent;
pub mod attributes;
pub mod common;
pub mod container;
pub mod executor;
pub mod framework;
pub mod ids;
pub mod launch;
pub mod maintenance;
pub mod messages;
pub mod offer;
pub mod operation;
pub mod quota;
pub mod resources;
pub mod status;
pub mod task;
pub mod wire;

pub use ids::{
    AgentId, ContainerId, ExecutorId, FrameworkId, MasterId, OfferId, OperationId, PersistenceId,
    ResourceProviderId, Role, TaskId, UpdateId,
};
