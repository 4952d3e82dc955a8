//! The threads of a node and which process runs on which.
//!
//! The first thread has the network, HTTP and the clock; it is there always. Others are for processes only: a fixed
//! number from the start ([`crate::NodeBuilder::threads`]), and one for each process that asks for its own. A process
//! never moves. The invariant: a thread is counted here from before anything is posted to it until it has ended all
//! its processes, and a node that has shut down has none.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actix_rt::{Arbiter, ArbiterHandle};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tracing::error;

use crate::clock::Clock;
use crate::host;
use crate::host::actix::AtEnd;
use crate::host::worker::{self, Entry, RunQueue};

/// Where a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placement {
    /// On the thread of whoever spawns it; on the node's first thread when that is no process of the node. Processes
    /// that talk a lot belong together: a message on one thread costs a fraction of one between two.
    #[default]
    Near,
    /// On the thread of the node with the least to do now.
    LeastLoaded,
    /// On a thread of its own, which ends with it: for a process that blocks or computes for long.
    OwnThread,
}

/// How long a node that shuts down waits for a thread whose process does not return from a handler.
const END_LIMIT: Duration = Duration::from_secs(10);

/// The threads of one node.
pub(crate) struct Threads {
    node: u64,
    clock: Clock,
    /// Those that are there from the start; the first has the network.
    fixed: Vec<Arc<RunQueue>>,
    /// Creates threads, on the first one.
    first: ArbiterHandle,
    /// All but the first, to be ended.
    others: Mutex<Vec<(Arc<RunQueue>, Option<Arbiter>)>>,
    next: AtomicUsize,
    closed: AtomicBool,
}

impl Threads {
    /// On the node's first thread, within its actix system: makes that thread serve processes, and `count - 1` more.
    pub(crate) fn begin(node: u64, count: usize, clock: &Clock) -> Self {
        let count = count.max(1);
        let fixed: Vec<_> = (0..count)
            .map(|number| RunQueue::new(node, number, false))
            .collect();
        let mut others = Vec::new();
        for (number, queue) in fixed.iter().enumerate() {
            if count > 1 {
                queue.expect_company();
            }
            if number == 0 {
                host::actix::begin(Arc::clone(queue), clock.clone(), None);
            } else {
                others.push((Arc::clone(queue), Some(launch(queue, clock, None))));
            }
        }
        Self {
            node,
            clock: clock.clone(),
            fixed,
            first: Arbiter::current(),
            others: Mutex::new(others),
            next: AtomicUsize::new(count),
            closed: AtomicBool::new(false),
        }
    }

    /// Number of the node.
    pub(crate) fn node(&self) -> u64 {
        self.node
    }

    /// The thread for a process; none when the node has shut down.
    pub(crate) fn place(self: &Arc<Self>, placement: Placement) -> Option<Arc<RunQueue>> {
        if self.closed.load(Ordering::Acquire) {
            return None;
        }
        let queue = match placement {
            Placement::Near => self.here(),
            Placement::LeastLoaded => {
                let load = |queue: &&Arc<RunQueue>| {
                    let queued = queue.queued.load(Ordering::Relaxed);
                    (queued, queue.processes.load(Ordering::Relaxed))
                };
                Arc::clone(self.fixed.iter().min_by_key(load)?)
            }
            Placement::OwnThread => self.own()?,
        };
        queue.processes.fetch_add(1, Ordering::Relaxed);
        Some(queue)
    }

    fn here(&self) -> Arc<RunQueue> {
        let number = worker::number_here(self.node).unwrap_or(0);
        // A process on a thread of its own has no neighbours.
        let place = self.fixed.get(number).unwrap_or(&self.fixed[0]);
        Arc::clone(place)
    }

    fn own(self: &Arc<Self>) -> Option<Arc<RunQueue>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let queue = RunQueue::new(self.node, number, true);
        {
            let mut others = self.others.lock();
            // Under the lock: who closes ends all that are listed by then.
            if self.closed.load(Ordering::Acquire) {
                return None;
            }
            others.push((Arc::clone(&queue), None));
        }
        for thread in self.fixed.iter().chain([&queue]) {
            thread.expect_company();
        }
        let (threads, launched) = (Arc::clone(self), Arc::clone(&queue));
        let asked = self.first.spawn_fn(move || threads.launch_own(&launched));
        if !asked {
            abandon(&queue);
        }
        Some(queue)
    }

    /// On the first thread, since only there threads are made.
    fn launch_own(self: &Arc<Self>, queue: &Arc<RunQueue>) {
        let threads = Arc::downgrade(self);
        let ended = move || {
            if let Some(threads) = threads.upgrade() {
                threads.forget_ended();
            }
        };
        // The system may refuse a thread, and actix says so by a panic.
        let launch = || launch(queue, &self.clock, Some(Box::new(ended)));
        let made = catch_unwind(AssertUnwindSafe(launch));
        let mut others = self.others.lock();
        match made {
            Ok(arbiter) => {
                for (known, place) in others.iter_mut() {
                    if Arc::ptr_eq(known, queue) {
                        *place = Some(arbiter);
                        return;
                    }
                }
                // Whoever closes has told it to end by now, and joins it when it has. Else it has ended by itself.
                if self.closed.load(Ordering::Acquire) {
                    others.push((Arc::clone(queue), Some(arbiter)));
                }
            }
            Err(_) => {
                error!("no thread for a process that wants its own: it ends");
                others.retain(|(known, _)| !Arc::ptr_eq(known, queue));
                drop(others);
                abandon(queue);
            }
        }
    }

    /// Forgets threads that have ended with their process; those of a node that shuts down are joined instead.
    fn forget_ended(&self) {
        let mut others = self.others.lock();
        if !self.closed.load(Ordering::Acquire) {
            others.retain(|(queue, _)| !queue.has_ended());
        }
    }

    /// Ends the processes of all threads, each on its thread, and all threads but the first, which runs this.
    pub(crate) async fn close(&self) {
        {
            let _nobody_adds_one = self.others.lock();
            self.closed.store(true, Ordering::Release);
        }
        loop {
            let others = std::mem::take(&mut *self.others.lock());
            if others.is_empty() {
                break;
            }
            end_all(others).await;
        }
        let (done, ended) = oneshot::channel();
        if let Some(first) = self.fixed.first()
            && first.post(Entry::Stop(done)).is_ok()
            && tokio::time::timeout(END_LIMIT, ended).await.is_err()
        {
            error!("the first thread does not end its processes");
        }
    }
}

/// Ends these threads.
async fn end_all(threads: Vec<(Arc<RunQueue>, Option<Arbiter>)>) {
    let mut ending = Vec::new();
    for (queue, arbiter) in threads {
        let (done, ended) = oneshot::channel();
        let told = queue.post(Entry::Stop(done)).is_ok();
        ending.push((queue.number, told.then_some(ended), arbiter));
    }
    for (thread, ended, arbiter) in ending {
        if let Some(ended) = ended
            && tokio::time::timeout(END_LIMIT, ended).await.is_err()
        {
            error!(
                thread,
                "a process does not return from its handler: its thread is left behind"
            );
            continue;
        }
        let Some(arbiter) = arbiter else {
            continue;
        };
        arbiter.stop();
        if arbiter.join().is_err() {
            error!(thread, "a thread of this node panicked");
        }
    }
}

fn launch(queue: &Arc<RunQueue>, clock: &Clock, ended: Option<AtEnd>) -> Arbiter {
    let arbiter = Arbiter::new();
    let (queue, clock) = (Arc::clone(queue), clock.clone());
    let told = arbiter.spawn_fn(move || host::actix::begin(queue, clock, ended));
    debug_assert!(told, "it has just begun");
    arbiter
}

/// Ends what was posted to a thread that never began.
fn abandon(queue: &RunQueue) {
    for entry in queue.end_elsewhere() {
        if let Entry::Start(start) = entry {
            start.abandon();
        }
    }
}
