//! The test kit: what a test may do to the messages of its nodes, and processes that a test plays itself.
//!
//! A test that runs whole nodes in one process, on a [`crate::transport::memory::MemoryNetwork`] and a paused
//! [`crate::Clock`], controls everything between the actors:
//!
//! - **Filters** ([`Testing`]): await one message, drop, hold or double some, and make sure that others never come.
//!   They stand before the handler, so they see what the actor would have seen, in its order; timers pass by. Each
//!   node has its own, and they see what arrives *at* its actors.
//! - **Probes** ([`Probe`]): a process without a will of its own. The test sends, asks, links and answers in its name,
//!   and looks at what came.
//! - **Time**: waiting for something settles a paused clock, and advances it if told to; on a live clock, over real
//!   connections, it blocks until the event, for at most [`LIMIT`].
//!
//! What a test awaits and does not get fails it, with a text that says what came instead.
//!
//! ```
//! use meseta_runtime::testing::ANY;
//! use meseta_runtime::transport::memory::MemoryNetwork;
//! use meseta_runtime::{Clock, Context, Message, Node, Pid, Process, Receive, Routes};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Order { number: u64 }
//! impl Message for Order { const NAME: &'static str = "example.Order"; }
//! #[derive(Serialize, Deserialize)]
//! struct Done { number: u64 }
//! impl Message for Done { const NAME: &'static str = "example.Done"; }
//!
//! struct Kitchen;
//! impl Process for Kitchen {
//!     fn routes(routes: &mut Routes<Self>) { routes.on::<Order>(); }
//! }
//! impl Receive<Order> for Kitchen {
//!     fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, order: Order) {
//!         cx.send(from, Done { number: order.number });
//!     }
//! }
//!
//! let (clock, network) = (Clock::paused(), MemoryNetwork::default());
//! let node = || Node::builder().memory(&network).clock(clock.clone()).start();
//! let (restaurant, street) = (node()?, node()?);
//! let kitchen = restaurant.spawn("kitchen", || Kitchen)?;
//! let guest = street.testing().probe("guest")?;
//!
//! // The first order gets lost, the second does not.
//! let lost = restaurant.testing().drop_next::<Order>(guest.pid(), &kitchen);
//! guest.send(&kitchen, Order { number: 1 });
//! guest.send(&kitchen, Order { number: 2 });
//! assert_eq!(lost.wait().message.number, 1);
//! assert_eq!(guest.expect::<Done>().message.number, 2);
//!
//! // Nobody may order seven of anything.
//! let _law = restaurant.testing().on::<Order>(ANY, ANY).when(|order| order.number == 7).never();
//! guest.send(&kitchen, Order { number: 8 });
//! assert_eq!(guest.expect::<Done>().message.number, 8);
//! # restaurant.shutdown(); street.shutdown();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod filters;
mod handles;
mod pattern;
mod probe;

pub(crate) use filters::Filters;
pub use filters::{Event, What};
pub use handles::{Dropping, Expected, Held, Never, Seen};
pub use pattern::{ANY, Anything, Exited, Observed, Pattern, Who};
pub use probe::{Answer, Asked, Probe, Received};

use std::time::Duration;

use crate::message::Message;
use crate::node::{NodeHandle, SpawnError};

/// How long anything in this module waits on a live clock before it calls a test failed. A limit that only turns a
/// hang into a failure: what is awaited is seen at once when it comes.
pub const LIMIT: Duration = Duration::from_secs(30);

/// The test kit of one node; see [`crate::Node::testing`]. Clones are the same kit.
///
/// Filters are asked in the order in which they were set. The first that matches takes the message; one that is for
/// one message only is used up by it. What a filter lets go on (watched, released, doubled) is seen by those set
/// after it, except that a watched message goes straight to its actor.
///
/// A filter lives as long as the handle that set it. Answers to [`crate::Node::ask`] pass by: they go to no actor.
#[derive(Clone)]
pub struct Testing {
    node: NodeHandle,
}

impl Testing {
    pub(crate) fn of(node: &NodeHandle) -> Self {
        Self { node: node.clone() }
    }

    pub(crate) fn node(&self) -> &NodeHandle {
        &self.node
    }

    /// Messages `M` from one actor to another, to say what is to happen to them. `M` may also be [`Anything`] for
    /// messages of every kind, or [`Exited`] for exit notices (`from` is then whose end is told).
    pub fn on<M: Observed>(&self, from: impl Into<Who>, to: impl Into<Who>) -> Pattern<M> {
        Pattern::new(self.clone(), from.into(), to.into())
    }

    /// Awaits one message; see [`Pattern::expect`].
    pub fn expect<M: Observed>(&self, from: impl Into<Who>, to: impl Into<Who>) -> Expected<M> {
        self.on(from, to).expect()
    }

    /// Drops the next message; see [`Pattern::drop_next`].
    pub fn drop_next<M: Observed>(&self, from: impl Into<Who>, to: impl Into<Who>) -> Expected<M> {
        self.on(from, to).drop_next()
    }

    /// Drops all messages; see [`Pattern::drop_all`].
    pub fn drop_all<M: Observed>(&self, from: impl Into<Who>, to: impl Into<Who>) -> Dropping<M> {
        self.on(from, to).drop_all()
    }

    /// Holds messages back; see [`Pattern::hold`].
    pub fn hold<M: Observed>(&self, from: impl Into<Who>, to: impl Into<Who>) -> Held<M> {
        self.on(from, to).hold()
    }

    /// Doubles the next message; see [`Pattern::duplicate_next`].
    pub fn duplicate_next<M: Message>(
        &self,
        from: impl Into<Who>,
        to: impl Into<Who>,
    ) -> Expected<M> {
        self.on(from, to).duplicate_next()
    }

    /// Fails the test when such a message comes, from anybody to anybody; see [`Pattern::never`].
    pub fn never<M: Observed>(&self) -> Never<M> {
        self.on(ANY, ANY).never()
    }

    /// Starts a process that the test plays itself.
    ///
    /// # Errors
    /// [`SpawnError`] as for any process.
    pub fn probe(&self, id: &str) -> Result<Probe, SpawnError> {
        Probe::start(&self.node, id)
    }
}
