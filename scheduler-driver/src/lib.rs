//! Frameworks: a scheduler implements [`Scheduler`], and a [`SchedulerDriver`] connects it to the master.
//!
//! ```no_run
//! use meseta_protocol::framework::FrameworkInfo;
//! use meseta_protocol::offer::{Filters, Offer};
//! use meseta_protocol::resources::Resources;
//! use meseta_protocol::status::TaskStatus;
//! use meseta_protocol::task::TaskInfo;
//! use meseta_scheduler_driver::{Config, Handle, Outcome, Scheduler, SchedulerDriver};
//!
//! /// Runs one task and ends with it.
//! struct Once { need: Resources, launched: bool }
//!
//! impl Scheduler for Once {
//!     fn resource_offers(&mut self, driver: &mut Handle<'_>, offers: Vec<Offer>) {
//!         for offer in offers {
//!             if self.launched || !offer.resources.contains(&self.need.allocated(&"*".into())) {
//!                 driver.decline_offer(offer.id, Filters::default());
//!                 continue;
//!             }
//!             let task = TaskInfo::new("once", offer.agent_id, self.need.clone(), "echo hello");
//!             driver.launch_tasks(vec![offer.id], vec![task], Filters::default());
//!             self.launched = true;
//!         }
//!     }
//!
//!     fn status_update(&mut self, driver: &mut Handle<'_>, status: &TaskStatus) {
//!         if status.state.is_terminal() {
//!             driver.stop(false);
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::new("127.0.0.1:5050", FrameworkInfo::new("", "once"));
//! let scheduler = Once { need: "cpus:0.1; mem:32".parse()?, launched: false };
//! match SchedulerDriver::run(config, scheduler)? {
//!     Outcome::Aborted(why) => eprintln!("aborted: {why:?}"),
//!     Outcome::Stopped => {}
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`scheduler`] | [`Scheduler`], and what it may ask for: [`Handle`] in a callback, [`Remote`] elsewhere |
//! | [`core`] | pure: subscription, leadership, what is passed on and what is not |
//! | [`driver`] | the process, and [`SchedulerDriver`], which owns its node |
// A seed must replay a run, so nothing that processes say may hang on the order of a hash table.
#![warn(clippy::iter_over_hash_type)]

pub mod core;
pub mod driver;
pub mod scheduler;
mod to_master;

pub use driver::{Config, Driver, Options, Outcome, SchedulerDriver, StartError};
pub use scheduler::{Handle, Remote, Scheduler};
