//! Actors with PIDs, found and messaged the same way locally and across machines.
//!
//! An actor is a [`Process`]: plain state, a table of the messages it takes, and handlers that append effects to
//! their [`Context`]. It lives on a [`Node`] under a PID such as `slave(1)@10.0.0.7:5051`, and whoever has the PID
//! can send to it, ask it, or link to it to be told of its end; whether it lives on the same node or on another
//! machine makes no difference to the code. Between nodes messages are MessagePack over QUIC with mutual TLS.
//!
//! ```
//! use meseta_runtime::{Ask, Context, Message, Node, Pid, Process, Receive, Routes};
//! use serde::{Deserialize, Serialize};
//! use std::time::Duration;
//!
//! #[derive(Serialize, Deserialize)]
//! struct Ping { count: u64 }
//! #[derive(Serialize, Deserialize)]
//! struct Pong { count: u64 }
//! impl Message for Ping { const NAME: &'static str = "example.Ping"; }
//! impl Message for Pong { const NAME: &'static str = "example.Pong"; }
//! impl Ask for Ping { type Reply = Pong; }
//!
//! struct Ponger;
//! impl Process for Ponger {
//!     fn routes(routes: &mut Routes<Self>) { routes.on::<Ping>(); }
//! }
//! impl Receive<Ping> for Ponger {
//!     fn receive(&mut self, cx: &mut Context<'_, Self>, _from: &Pid, ping: Ping) {
//!         cx.reply(Pong { count: ping.count + 1 });
//!     }
//! }
//!
//! # use meseta_runtime::transport::memory::MemoryNetwork;
//! // Two nodes, here on a network in memory; drop `.memory(..)` and they speak QUIC.
//! let network = MemoryNetwork::default();
//! let (one, two) = (Node::builder().memory(&network).start()?, Node::builder().memory(&network).start()?);
//! let ponger = one.spawn("ponger", || Ponger)?;
//! let pong = two.ask(&ponger, Ping { count: 1 }, Duration::from_secs(5)).wait()?;
//! assert_eq!(pong.count, 2);
//! # one.shutdown(); two.shutdown();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod backoff;
pub mod clock;
pub mod codec;
pub mod context;
pub mod descriptors;
pub mod detector;
pub mod fault;
pub mod flags;
#[doc(hidden)]
pub mod fuzzing;
pub(crate) mod host;
pub mod http;
pub mod identity;
pub(crate) mod inbox;
pub mod links;
pub mod lock;
pub mod logging;
pub mod message;
pub mod metrics;
pub mod node;
pub(crate) mod numbered;
pub(crate) mod opening;
pub mod pages;
pub mod pid;
pub mod planted;
pub mod ports;
pub mod process;
pub(crate) mod quick;
pub mod sim;
pub mod supervisor;
pub mod testing;
pub mod timings;
pub mod transport;

pub use backoff::Backoff;
pub use clock::{Clock, Time};
pub use context::{AskError, Context, Gate, Op, Outside, QueueNames, ReplyTo, TimerId};
pub use http::{Request, Response};
pub use links::ExitReason;
pub use message::{Ask, Message, OWN_NODE};
pub use metrics::Metrics;
pub use node::{Credentials, Node, NodeBuilder, NodeError, Placement, SpawnError};
pub use pid::{Address, Pid};
pub use process::{Process, Receive, Routes};
pub use timings::Timings;

/// The crate's README, whose program is compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

/// An error with all its sources on one line: `what: why: why`.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
