//! A supervisor: a process that starts children and starts them again when they end.
//!
//! A panic ends one process. Whoever linked to it hears of it, and if a supervisor started it, it comes back under the
//! same name after a short delay, with fresh state from its factory. A supervisor owns its children: when it ends, for
//! whatever reason, so do they. One whose children end too often gives up and ends with
//! [`ExitReason::Failed`], which its own links hear, a supervisor above it among them.
//!
//! What is promised: at most [`Limits::restarts`] restarts within [`Limits::within`]. What is not: that messages sent
//! while a child is down arrive, or that state survives. [`core`] decides, this file acts.
//!
//! ```
//! use meseta_runtime::supervisor::{Child, Limits, Restart, Supervisor};
//! use meseta_runtime::testing::ANY;
//! use meseta_runtime::transport::memory::MemoryNetwork;
//! use meseta_runtime::{Ask, Clock, Context, Message, Node, Pid, Process, Receive, Routes};
//! use serde::{Deserialize, Serialize};
//! use std::time::Duration;
//!
//! #[derive(Serialize, Deserialize)]
//! struct Divide { by: u64 }
//! #[derive(Serialize, Deserialize)]
//! struct Quotient { value: u64 }
//! impl Message for Divide { const NAME: &'static str = "example.Divide"; }
//! impl Message for Quotient { const NAME: &'static str = "example.Quotient"; }
//! impl Ask for Divide { type Reply = Quotient; }
//!
//! struct Calculator;
//! impl Process for Calculator {
//!     fn routes(routes: &mut Routes<Self>) { routes.on::<Divide>(); }
//! }
//! impl Receive<Divide> for Calculator {
//!     fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, divide: Divide) {
//!         cx.reply(Quotient { value: 100 / divide.by });  // panics at zero
//!     }
//! }
//!
//! let (clock, network) = (Clock::paused(), MemoryNetwork::default());
//! let node = Node::builder().memory(&network).clock(clock.clone()).start()?;
//! node.spawn("office", || {
//!     Supervisor::new(Limits::default()).child(Child::new("calculator", Restart::Permanent, || Calculator))
//! })?;
//! let (calculator, client) = (node.pid("calculator")?, node.testing().probe("client")?);
//! client.send(&calculator, Divide { by: 0 });
//! clock.advance(Limits::default().first_delay);  // it panics and comes back
//! assert_eq!(client.ask(&calculator, Divide { by: 5 }).wait().value, 20);
//! # node.shutdown();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod core;

use std::any::Any;
use std::sync::Arc;

use tracing::{error, info, warn};

pub use self::core::{Limits, Restart};

use self::core::{Core, Decision};
use crate::clock::Time;
use crate::context::{Context, Effect};
use crate::host::{Hosted, Turn};
use crate::links::ExitReason;
use crate::node::{Placement, SpawnError};
use crate::pid::Pid;
use crate::process::{Process, Routes};

type Start = Box<dyn Fn(&mut Context<'_, Supervisor>, Placement) -> Result<Pid, SpawnError> + Send>;

/// A process that a supervisor is to start.
pub struct Child {
    id: String,
    restart: Restart,
    placement: Placement,
    start: Start,
}

impl Child {
    /// A child under the name `id`, which `build` makes anew for each start, on the thread that hosts it.
    pub fn new<P: Process>(
        id: &str,
        restart: Restart,
        build: impl Fn() -> P + Send + Sync + 'static,
    ) -> Self {
        let build = Arc::new(build);
        let name = id.to_owned();
        let start = move |cx: &mut Context<'_, Supervisor>, placement| {
            let build = Arc::clone(&build);
            cx.spawn_leashed(&name, placement, move || build())
        };
        Self {
            id: id.to_owned(),
            restart,
            placement: Placement::Near,
            start: Box::new(start),
        }
    }

    /// Where it runs. Default: [`Placement::Near`] its supervisor.
    #[must_use]
    pub fn placed(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }
}

/// A process that starts its children in the order in which they were given, and restarts each as its [`Restart`]
/// says. It takes no messages; spawn it like any process, also as a child of another supervisor.
pub struct Supervisor {
    core: Core,
    children: Vec<(Child, Option<Pid>)>,
}

impl Supervisor {
    /// A supervisor without children.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            core: Core::new(limits),
            children: Vec::new(),
        }
    }

    /// Adds a child.
    #[must_use]
    pub fn child(mut self, child: Child) -> Self {
        self.core.add(&child.id, child.restart);
        self.children.push((child, None));
        self
    }

    fn begin(&mut self, cx: &mut Context<'_, Self>, number: usize) {
        let Some((child, running)) = self.children.get_mut(number) else {
            return;
        };
        match (child.start)(cx, child.placement) {
            Ok(pid) => {
                self.core.started(number, cx.now());
                *running = Some(pid);
            }
            Err(error) => {
                warn!(me = %cx.me(), child = child.id, %error, "child not started");
                let text = format!("not started: {}", crate::error_chain(&error));
                self.ended(cx, number, &ExitReason::Failed(text));
            }
        }
    }

    fn ended(&mut self, cx: &mut Context<'_, Self>, number: usize, reason: &ExitReason) {
        let now = cx.now();
        match self.core.ended(number, reason, now, cx.random()) {
            Decision::Leave => info!(me = %cx.me(), number, ?reason, "child has ended"),
            Decision::Restart(delay) => {
                warn!(me = %cx.me(), number, ?reason, ?delay, "child has ended and is started again");
                cx.metrics().count("runtime/supervisor_restarts");
                cx.after(delay, move |supervisor, cx| supervisor.begin(cx, number));
            }
            Decision::GiveUp(text) => {
                error!(me = %cx.me(), text, "supervisor gives up");
                cx.fail(text);
            }
        }
    }
}

impl Process for Supervisor {
    fn routes(_: &mut Routes<Self>) {}

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        for number in 0..self.children.len() {
            self.begin(cx, number);
        }
    }

    fn exited(&mut self, cx: &mut Context<'_, Self>, pid: &Pid, reason: ExitReason) {
        let ended = |(_, running): &(Child, Option<Pid>)| running.as_ref() == Some(pid);
        if let Some(number) = self.children.iter().position(ended) {
            self.children[number].1 = None;
            self.ended(cx, number, &reason);
        }
    }
}

/// A process that ends with another one, whatever its own code does.
pub(crate) struct Leashed {
    pub(crate) inner: Box<dyn Hosted>,
    pub(crate) holder: Pid,
}

impl Hosted for Leashed {
    fn turn(&mut self, turn: Turn, now: Time, effects: &mut Vec<Effect>) {
        match turn {
            Turn::Exited(pid, _) if pid == self.holder => {
                effects.push(Effect::Stop(ExitReason::Terminated));
                return;
            }
            Turn::Start => effects.push(Effect::Link(self.holder.clone())),
            Turn::Exited(..)
            | Turn::Message(_)
            | Turn::Timer(_)
            | Turn::OpDone(..)
            | Turn::AskFailed(..)
            | Turn::Http(..) => {}
        }
        self.inner.turn(turn, now, effects);
        // The leash is not the process's to take off.
        effects.retain(|effect| !matches!(effect, Effect::Unlink(pid) if *pid == self.holder));
    }

    fn waits_for(&self, ask: u64) -> bool {
        self.inner.waits_for(ask)
    }

    fn open_asks(&self) -> usize {
        self.inner.open_asks()
    }

    fn as_any(&self) -> &dyn Any {
        self.inner.as_any()
    }
}
