//! The allocator `allocator(1)`: decides which framework is offered which resources.
//!
//! A process beside the master on the same node. The master reports every change that matters (see [`messages`]);
//! the allocator keeps the books and answers with offers to make. It owns no other state and speaks to nobody else.
//! All agents are looked at in every interval; a framework that appears or revives, and an agent that appears or
//! changes, start a run at once. However many such events come in a row, one run is waiting at most.
//!
//! | file | holds |
//! |---|---|
//! | `core.rs` | pure: the books and one run |
//! | `drf_sorter.rs` | pure: in which order roles and frameworks are served |
//! | `role_tree.rs` | pure: which roles exist, reservations, weights |
//! | `filters.rs` | pure: what was declined, and until when |
//! | `amounts.rs`, `slab.rs` | pure: small numbers for names, frameworks, agents and roles |
//! | `explain.rs` | pure: what is told to who asks why there is no offer |
//! | `messages.rs` | what the master and the allocator tell each other |
//!
//! Source: Mesos `src/master/allocator/mesos/hierarchical.cpp`.

pub mod amounts;
pub mod core;
pub mod drf_sorter;
pub mod explain;
pub mod filters;
pub mod messages;
pub mod role_tree;
mod slab;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use meseta_protocol::Role;
use meseta_runtime::{Context, ExitReason, Pid, Process, Receive, Routes, Time, Timings};
use tracing::{debug, error};

pub use core::{Allocator, BookError, Config, Holdings, parse_min_allocatable};
pub use filters::{MAX_REFUSAL, refusal};
pub use messages::Allocation;
pub use role_tree::{DEFAULT_WEIGHT, Node as RoleNode, RoleTree};

use explain::{Explain, Explained};
use messages::{
    ActivateAgent, ActivateFramework, AddAgent, AddFramework, Allocated, DeactivateAgent,
    DeactivateFramework, RecoverResources, RemoveAgent, RemoveFramework, ReviveOffers,
    SuppressOffers, UpdateAgent, UpdateFramework, UpdateWeights,
};

/// The process.
pub struct AllocatorProcess {
    // Settings.
    interval: Duration,
    // State.
    books: Allocator,
    /// A run is waiting for its turn.
    is_queued: bool,
    /// The waiting run is the one of the interval, which starts anew after it.
    is_batch: bool,
    /// Roles with metrics.
    shown_roles: BTreeSet<Role>,
    /// How long runs have taken.
    runs: Timings,
    /// How long they have waited for their turn.
    waits: Timings,
    /// When the latest that waits began to.
    queued_at: Time,
    // Peers.
    master: Pid,
}

impl AllocatorProcess {
    /// An allocator that makes offers to `master`.
    pub fn new(config: Config, master: Pid) -> Self {
        Self {
            interval: config.allocation_interval,
            books: Allocator::new(config),
            is_queued: false,
            is_batch: false,
            shown_roles: BTreeSet::new(),
            runs: Timings::of_an_hour(),
            waits: Timings::of_an_hour(),
            queued_at: Time::ZERO,
            master,
        }
    }
}

impl AllocatorProcess {
    /// The books, to look at.
    pub fn books(&self) -> &Allocator {
        &self.books
    }
}

impl Process for AllocatorProcess {
    fn routes(routes: &mut Routes<Self>) {
        routes
            .on::<AddFramework>()
            .on::<UpdateFramework>()
            .on::<ActivateFramework>()
            .on::<DeactivateFramework>()
            .on::<RemoveFramework>()
            .on::<AddAgent>()
            .on::<UpdateAgent>()
            .on::<ActivateAgent>()
            .on::<DeactivateAgent>()
            .on::<RemoveAgent>()
            .on::<RecoverResources>()
            .on::<ReviveOffers>()
            .on::<SuppressOffers>()
            .on::<UpdateWeights>()
            .on::<Explain>();
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        cx.metrics().counter("allocator/mesos/allocation_runs");
        for name in ["cpus", "mem", "disk"] {
            let of = |what| format!("allocator/mesos/resources/{name}/{what}");
            cx.metrics()
                .gauges(["total", "offered_or_allocated"].map(of));
        }
        self.show_queue(cx);
        self.show_timings(cx);
        cx.link(&self.master);
        self.await_interval(cx);
    }

    /// It ends with its master.
    fn exited(&mut self, cx: &mut Context<'_, Self>, _: &Pid, _: ExitReason) {
        cx.stop();
    }
}

/// Takes a message by handing it to the books, and starts a run when they have candidates for one.
macro_rules! receive {
    ($( $message:ident => |$books:ident, $value:ident| $apply:expr; )*) => {
        $(
            impl Receive<$message> for AllocatorProcess {
                fn receive(&mut self, cx: &mut Context<'_, Self>, _from: &Pid, $value: $message) {
                    let $books = &mut self.books;
                    $apply;
                    self.run_soon(cx);
                }
            }
        )*
    };
}

receive! {
    AddFramework => |books, message| books.add_framework(message);
    UpdateFramework => |books, message| books.update_framework(&message);
    ActivateFramework => |books, message| books.activate_framework(&message);
    DeactivateFramework => |books, message| books.deactivate_framework(&message);
    RemoveFramework => |books, message| books.remove_framework(&message);
    AddAgent => |books, message| books.add_agent(message);
    UpdateAgent => |books, message| books.update_agent(message);
    ActivateAgent => |books, message| books.activate_agent(&message);
    DeactivateAgent => |books, message| books.deactivate_agent(&message);
    RemoveAgent => |books, message| books.remove_agent(&message);
    ReviveOffers => |books, message| books.revive_offers(&message);
    SuppressOffers => |books, message| books.suppress_offers(&message);
    UpdateWeights => |books, message| books.update_weights(message);
}

impl Receive<RecoverResources> for AllocatorProcess {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _from: &Pid, message: RecoverResources) {
        if let Err(error) = self.books.recover_resources(&message, cx.now()) {
            error!(%error, "master and allocator disagree");
        }
    }
}

impl Receive<Explain> for AllocatorProcess {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _from: &Pid, message: Explain) {
        let framework = self.books.explain(&message, cx.now());
        cx.reply(Explained { framework });
    }
}

impl AllocatorProcess {
    fn await_interval(&mut self, cx: &mut Context<'_, Self>) {
        cx.after(self.interval, |allocator, cx| {
            allocator.books.nominate_all();
            allocator.is_batch = true;
            allocator.queue_run(cx);
        });
    }

    fn run_soon(&mut self, cx: &mut Context<'_, Self>) {
        if self.books.has_candidates() {
            self.queue_run(cx);
        }
    }

    fn queue_run(&mut self, cx: &mut Context<'_, Self>) {
        if !self.is_queued {
            self.is_queued = true;
            self.queued_at = cx.now();
            self.show_queue(cx);
            cx.after(Duration::ZERO, Self::run);
        }
    }

    fn run(&mut self, cx: &mut Context<'_, Self>) {
        self.is_queued = false;
        let began = cx.now();
        self.waits.add(began, began.since(self.queued_at));
        let offers = self.books.allocate(began, cx.random());
        for (framework_id, offers) in offers {
            debug!(%framework_id, agents = offers.len(), "allocated");
            let master = self.master.clone();
            cx.send(
                &master,
                Allocated {
                    framework_id,
                    offers,
                },
            );
        }
        // The time in a turn stands still: the run ends with the next turn.
        cx.after(Duration::ZERO, move |allocator, cx| {
            allocator.finish(cx, began);
        });
    }

    fn show_timings(&mut self, cx: &Context<'_, Self>) {
        let (metrics, now) = (cx.metrics(), cx.now());
        (self.runs).show(metrics, "allocator/mesos/allocation_run_ms", now);
        (self.waits).show(metrics, "allocator/mesos/allocation_run_latency_ms", now);
    }

    /// Whether a run waits, under the name it has and the one it had.
    fn show_queue(&self, cx: &Context<'_, Self>) {
        let queued = if self.is_queued { 1.0 } else { 0.0 };
        for name in [
            "allocator/mesos/event_queue_dispatches",
            "allocator/event_queue_dispatches",
        ] {
            cx.metrics().set(name, queued);
        }
    }

    fn finish(&mut self, cx: &mut Context<'_, Self>, began: Time) {
        let metrics = cx.metrics().clone();
        metrics.count("allocator/mesos/allocation_runs");
        let took = cx.now().since(began);
        self.runs.add(cx.now(), took);
        if self.is_batch {
            // Between two of them there may be very many runs.
            self.show_timings(cx);
        }
        self.show_queue(cx);
        for (name, total, held) in self.books.amounts() {
            let prefix = format!("allocator/mesos/resources/{name}");
            metrics.set(&format!("{prefix}/total"), total.as_f64());
            metrics.set(&format!("{prefix}/offered_or_allocated"), held.as_f64());
        }
        let mut gone = std::mem::take(&mut self.shown_roles);
        for ((role, share), (_, refusals)) in self.books.role_shares().zip(self.books.refusals()) {
            show_role(&metrics, role, share, refusals);
            gone.remove(role);
            self.shown_roles.insert(role.clone());
        }
        for role in &gone {
            show_role(&metrics, role, 0.0, 0);
        }
        if self.is_batch {
            self.is_batch = false;
            self.await_interval(cx);
        }
    }
}

fn show_role(metrics: &meseta_runtime::Metrics, role: &Role, share: f64, refusals: usize) {
    let prefix = "allocator/mesos";
    metrics.set(&format!("{prefix}/roles/{role}/shares/dominant"), share);
    metrics.set(
        &format!("{prefix}/offer_filters/roles/{role}/active"),
        refusals as f64,
    );
}
