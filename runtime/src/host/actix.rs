//! The host in production: one actix actor for each thread of a node, which drains the inboxes of all its processes.
//!
//! actix schedules and owns the thread; messages never pass through its mailbox. The actor is woken by a stream: one
//! item means that some process has something to do. It then serves its processes for at most [`SLICE`] and lets
//! everybody else on the thread have a turn, the network and the timers first of all, before the next item. Within a
//! slice, processes that have control events, that have messages and that start take turns, one drain each, so that
//! neither a flood of one kind nor any number of flooded processes keeps the others waiting.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{self, Poll};
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, StreamHandler};
use futures::Stream;
use tracing::error;

use super::driver::{Desk, Drained, Driver, Serve};
use super::panic_text;
use super::worker::{self, Entry, RunQueue};
use crate::clock::{Clock, Time};
use crate::links::ExitReason;

/// How long processes are served before others on the thread have their turn.
const SLICE: Duration = Duration::from_millis(1);

/// How often others on the thread have their turn at least, however little the processes do between.
const GIVE_WAY_EACH: Duration = Duration::from_micros(100);

/// How long a thread of several looks for the next message of another before it falls asleep: to wake it takes about
/// as long.
const LINGER: Duration = Duration::from_micros(20);

/// Run when a thread has ended all its processes and serves no more.
pub(crate) type AtEnd = Box<dyn FnOnce() + Send>;

/// Serves the processes of a run queue on this thread from now on.
pub(crate) fn begin(queue: Arc<RunQueue>, clock: Clock, at_end: Option<AtEnd>) {
    queue.settle_here();
    Worker {
        desk: Desk::new(clock),
        queue,
        drivers: Vec::new(),
        free: Vec::new(),
        at_end,
    }
    .start();
}

struct Worker {
    queue: Arc<RunQueue>,
    desk: Desk,
    /// Processes by slot; none while it is being served, and in free slots.
    drivers: Vec<Option<Box<Driver>>>,
    free: Vec<u32>,
    at_end: Option<AtEnd>,
}

/// Some process has something to do.
struct Due;

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.add_stream(Wakeups {
            queue: Arc::clone(&self.queue),
            clock: self.desk.clock().clone(),
            served: false,
            giving_way: None,
            gave_way: Time::ZERO,
            misses: 0,
            skips: 0,
        });
    }
}

impl StreamHandler<Due> for Worker {
    fn handle(&mut self, _: Due, ctx: &mut Self::Context) {
        self.desk.read();
        let goes_on = self.serve();
        worker::note_time(None);
        if !goes_on {
            ctx.stop();
        }
    }
}

impl Worker {
    /// One slice; `false` when the thread has nothing to serve for ever.
    fn serve(&mut self) -> bool {
        let began = self.desk.now();
        loop {
            self.queue.collect();
            let mut idle = true;
            if let Some(entry) = worker::next_other() {
                idle = false;
                match entry {
                    Entry::Start(start) => self.start_process(*start),
                    Entry::Stop(done) => {
                        self.end();
                        // The node may have given up on this thread.
                        let _gone = done.send(());
                        return false;
                    }
                    Entry::Ready(_) | Entry::Urgent(_) => {}
                }
            }
            if let Some(slot) = worker::next_urgent() {
                idle = false;
                self.drain(slot, Serve::Control);
            }
            if let Some(slot) = worker::next_ready() {
                idle = false;
                self.drain(slot, Serve::Both);
            }
            if idle {
                let served_its_one = self.queue.own && !self.free.is_empty();
                return !served_its_one;
            }
            if self.desk.now().since(began) > SLICE {
                return true;
            }
        }
    }

    fn start_process(&mut self, start: super::driver::Start) {
        let inbox = start.inbox();
        let started = catch_unwind(AssertUnwindSafe(|| start.run(&mut self.desk)));
        let slot = self.free.pop().unwrap_or_else(|| {
            self.drivers.push(None);
            u32::try_from(self.drivers.len() - 1).unwrap_or(u32::MAX)
        });
        if let Ok(Some(driver)) = started
            && let Some(place) = self.drivers.get_mut(slot as usize)
        {
            *place = Some(Box::new(driver));
            inbox.place(slot);
        } else {
            self.desk.clear();
            self.release(slot);
        }
    }

    fn release(&mut self, slot: u32) {
        self.free.push(slot);
        self.queue.processes.fetch_sub(1, Ordering::Relaxed);
    }

    /// Serves one process. An entry may be of one that has ended, or of another that had the slot before: then
    /// nothing is found to do.
    fn drain(&mut self, slot: u32, serve: Serve) {
        let Some(mut driver) = self.drivers.get_mut(slot as usize).and_then(Option::take) else {
            return;
        };
        let desk = &mut self.desk;
        let drained = catch_unwind(AssertUnwindSafe(|| driver.drain(serve, desk)));
        let drained = drained.unwrap_or_else(|panic| {
            // Not in a handler: something that a message holds panicked while it was dropped.
            let text = panic_text(panic.as_ref());
            error!(me = %driver.inbox().pid(), panic = %text, "process panicked between two turns");
            // Nor may what is left of it, when that is dropped.
            if catch_unwind(AssertUnwindSafe(|| self.desk.clear())).is_err() {
                error!(me = %driver.inbox().pid(), "process panicked while it was dropped");
            }
            driver.end(ExitReason::Panic(text));
            Drained::Ended
        });
        match drained {
            Drained::Ended => {
                drop(driver);
                self.release(slot);
                return;
            }
            Drained::More => {
                let again = match serve {
                    Serve::Both => Entry::Ready(slot),
                    Serve::Control => Entry::Urgent(slot),
                };
                // This thread has not ended: it is here.
                let _posted = self.queue.post(again);
            }
            Drained::Idle => {}
        }
        self.drivers[slot as usize] = Some(driver);
    }

    /// Ends all processes.
    fn end(&mut self) {
        for driver in self.drivers.drain(..).flatten() {
            drop(driver);
        }
        for entry in self.queue.end() {
            match entry {
                Entry::Start(start) => start.abandon(),
                Entry::Stop(done) => {
                    let _gone = done.send(());
                }
                Entry::Ready(_) | Entry::Urgent(_) => {}
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
        if let Some(at_end) = self.at_end.take() {
            at_end();
        }
        if self.queue.own
            && let Some(arbiter) = actix_rt::Arbiter::try_current()
        {
            arbiter.stop();
        }
    }
}

/// Yields when some process has something to do, and gives way to the rest of the thread after each time.
struct Wakeups {
    queue: Arc<RunQueue>,
    clock: Clock,
    /// The processes were just served.
    served: bool,
    giving_way: Option<Pin<Box<dyn Future<Output = ()>>>>,
    gave_way: Time,
    /// Times in a row that lingering was in vain, and how often to leave it out for that.
    misses: u32,
    skips: u32,
}

impl Wakeups {
    /// Waits a moment for what another thread may post, if that came of it lately.
    fn linger(&mut self) {
        if !self.queue.has_company() || self.clock.is_paused() {
            return;
        }
        if self.skips > 0 {
            self.skips -= 1;
            return;
        }
        let began = self.clock.now();
        while self.clock.now().since(began) < LINGER {
            for _ in 0..32 {
                if self.queue.waits() {
                    // Longer than that it takes when the other thread had this thread's core, which is no reason to
                    // linger again.
                    if self.clock.now().since(began) < LINGER {
                        self.misses = 0;
                        return;
                    }
                    break;
                }
                std::hint::spin_loop();
            }
        }
        self.misses = (self.misses + 1).min(8);
        self.skips = 1 << self.misses;
    }
}

impl Stream for Wakeups {
    type Item = Due;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.served) {
            if !self.queue.is_due() {
                self.linger();
            }
            // Two threads that keep each other busy fill their slices with very little: they need not give way each
            // time, only as often as others may expect.
            let now = self.clock.now();
            let long_ago = now.since(self.gave_way) >= GIVE_WAY_EACH || self.clock.is_paused();
            if self.queue.is_due() && long_ago {
                self.gave_way = now;
                self.giving_way = Some(Box::pin(tokio::task::yield_now()));
            }
        }
        if let Some(giving_way) = &mut self.giving_way {
            task::ready!(giving_way.as_mut().poll(cx));
            self.giving_way = None;
        }
        if self.queue.is_due() || !self.queue.sleep(cx.waker()) {
            self.served = true;
            Poll::Ready(Some(Due))
        } else {
            Poll::Pending
        }
    }
}
