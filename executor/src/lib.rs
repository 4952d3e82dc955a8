//! Executors: the library a framework's own executor is made with, the executor of plain commands, and the program
//! that starts containers.
//!
//! An executor implements [`Executor`] and hands itself to [`run`], which reads what the agent says in the
//! environment, connects to the agent and calls back until the executor stops:
//!
//! ```no_run
//! use meseta_executor::{Executor, Handle};
//! use meseta_protocol::status::{TaskState, TaskStatus};
//! use meseta_protocol::task::TaskInfo;
//!
//! struct Counting { tasks: u32 }
//!
//! impl Executor for Counting {
//!     fn launch_task(&mut self, driver: &mut Handle<'_>, task: TaskInfo) {
//!         driver.send_status(TaskStatus::new(task.task_id.clone(), TaskState::Running));
//!         self.tasks += 1;
//!         let text = format!("task number {}", self.tasks);
//!         // Work that takes long goes to a thread; `remote` may be used from there.
//!         let remote = driver.remote();
//!         std::thread::spawn(move || {
//!             remote.send_status(TaskStatus::new(task.task_id, TaskState::Finished).saying(text));
//!         });
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     meseta_executor::run(|| Counting { tasks: 0 })
//! }
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`core`] | pure: the conversation with the agent |
//! | [`driver`] | the process that carries it out; [`Executor`], [`Handle`], [`Remote`] |
//! | [`environment`] | pure: what the agent says in the environment |
//! | [`command`] | the executor of plain commands |
//! | [`kill_policy`] | pure: grace periods |
//! | [`process_tree`] | signals to, and the end of, everything below this program |
//! | [`program`] | what the binary `meseta-executor` does |
//! | [`launch`] | the program that becomes a container's first process |
//! | [`spawn`] | a task's process, started without that program |
// A seed must replay a run, so nothing that processes say may hang on the order of a hash table.
#![warn(clippy::iter_over_hash_type)]

pub mod command;
pub mod core;
pub mod driver;
pub mod environment;
pub mod kill_policy;
pub mod launch;
mod outstanding;
pub mod process_tree;
pub mod program;
pub mod spawn;
mod start;

pub use driver::{Executor, ExecutorDriver, Handle, Remote, spawn_on};
pub use environment::{ExecutorEnvironment, Guard};
pub use start::{RunError, run, try_run};
