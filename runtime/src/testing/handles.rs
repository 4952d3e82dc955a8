//! What a test holds of its filters: to wait for a message, to release or drop messages, to be sure of their absence.

use std::marker::PhantomData;
use std::time::Duration;

use super::filters::{Event, FilterId};
use super::pattern::Observed;
use super::{LIMIT, Testing};
use crate::pid::Pid;

/// A message that a filter has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<M> {
    /// Sender; of an exit notice the process that has ended.
    pub from: Pid,
    /// Receiver.
    pub to: Pid,
    /// The message.
    pub message: M,
}

impl<M: Observed> Seen<M> {
    fn of(event: &Event) -> Option<Self> {
        Some(Self {
            from: event.from.clone(),
            to: event.to.clone(),
            message: M::read(event)?,
        })
    }
}

/// One filter; removes it when dropped.
pub(super) struct Handle {
    pub(super) testing: Testing,
    pub(super) id: FilterId,
    /// Number of the last event before the filter was set.
    pub(super) since: u64,
    /// What it is about, for a failure's text.
    pub(super) what: String,
}

impl Handle {
    fn taken<M: Observed>(&self) -> Vec<Seen<M>> {
        let state = self.testing.node().filters().lock();
        state.taken(self.id).iter().filter_map(Seen::of).collect()
    }

    fn count(&self) -> usize {
        self.testing.node().filters().lock().taken(self.id).len()
    }

    fn story(&self) -> String {
        self.testing.node().filters().lock().story(self.since)
    }

    fn settle(&self) {
        self.testing.node().clock().settle();
    }

    /// Settles a paused clock and advances it by up to `by`; on a live one blocks for up to [`LIMIT`].
    fn wait_until_taken(&self, by: Duration) -> bool {
        let clock = self.testing.node().clock();
        if clock.is_paused() {
            return clock.advance_until(by, || self.count() > 0);
        }
        let filters = self.testing.node().filters();
        let mut state = filters.lock();
        let waiting = filters.taken.wait_while_for(
            &mut state,
            |state| state.taken(self.id).is_empty(),
            LIMIT,
        );
        !waiting.timed_out()
    }

    /// Ends the test, unless it is failing already.
    #[expect(
        clippy::panic,
        reason = "a broken expectation fails the test that set it"
    )]
    #[track_caller]
    fn fail(&self, text: &str) {
        if !std::thread::panicking() {
            panic!("{text}");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.testing.node().filters().remove(self.id);
    }
}

/// A message that is awaited. Dropping it fails the test when none has come.
#[must_use = "the message is awaited until this is dropped"]
pub struct Expected<M: Observed> {
    handle: Handle,
    /// It was waited for: that has failed the test already, or there is nothing to fail for.
    judged: bool,
    kind: PhantomData<fn() -> M>,
}

impl<M: Observed> Expected<M> {
    pub(super) fn new(handle: Handle) -> Self {
        Self {
            handle,
            judged: false,
            kind: PhantomData,
        }
    }

    /// The message, if it has come.
    pub fn seen(&self) -> Option<Seen<M>> {
        self.handle.taken().pop()
    }

    /// Waits for the message. A paused clock is settled and not advanced; on a live one this blocks the thread, which
    /// must not be a node's.
    ///
    /// # Panics
    /// When it does not come: at once on a paused clock, after [`LIMIT`] on a live one.
    #[track_caller]
    pub fn wait(self) -> Seen<M> {
        self.wait_within(Duration::ZERO)
    }

    /// Waits for the message, and advances a paused clock from timer to timer, at most by `by`, until it has come.
    ///
    /// # Panics
    /// As [`Expected::wait`].
    #[track_caller]
    #[expect(
        clippy::expect_used,
        reason = "the filter has taken what its pattern could read"
    )]
    pub fn wait_within(mut self, by: Duration) -> Seen<M> {
        self.judged = true;
        if !self.handle.wait_until_taken(by) {
            self.fail();
        }
        self.seen().expect("a message that was taken")
    }

    /// Waits for the message without blocking, for tests with a runtime of their own on a live clock. Waits for ever.
    pub async fn arrived(mut self) -> Seen<M> {
        self.judged = true;
        loop {
            let testing = self.handle.testing.clone();
            let change = testing.node().filters().notify.notified();
            let mut change = std::pin::pin!(change);
            change.as_mut().enable();
            if let Some(seen) = self.seen() {
                return seen;
            }
            change.await;
        }
    }

    #[track_caller]
    fn fail(&self) {
        let (what, story) = (&self.handle.what, self.handle.story());
        self.handle
            .fail(&format!("awaited {what}; came instead:{story}"));
    }
}

impl<M: Observed> Drop for Expected<M> {
    fn drop(&mut self) {
        if self.judged || std::thread::panicking() {
            return;
        }
        self.handle.settle();
        if self.handle.count() == 0 {
            self.fail();
        }
    }
}

/// Messages that are dropped for as long as this lives.
#[must_use = "messages are dropped for as long as this lives"]
pub struct Dropping<M> {
    handle: Handle,
    kind: PhantomData<fn() -> M>,
}

impl<M: Observed> Dropping<M> {
    pub(super) fn new(handle: Handle) -> Self {
        Self {
            handle,
            kind: PhantomData,
        }
    }

    /// What was dropped so far, in order.
    pub fn dropped(&self) -> Vec<Seen<M>> {
        self.handle.settle();
        self.handle.taken()
    }
}

/// Messages that are held back. Dropping it drops them.
#[must_use = "messages are held back for as long as this lives, and dropped with it"]
pub struct Held<M> {
    handle: Handle,
    kind: PhantomData<fn() -> M>,
}

impl<M: Observed> Held<M> {
    pub(super) fn new(handle: Handle) -> Self {
        Self {
            handle,
            kind: PhantomData,
        }
    }

    /// What has been held back so far, in order.
    pub fn messages(&self) -> Vec<Seen<M>> {
        self.handle.settle();
        self.handle.taken()
    }

    /// Waits until a message is held back; see [`Expected::wait`].
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn wait(&self) {
        if !self.handle.wait_until_taken(Duration::ZERO) {
            let (what, story) = (&self.handle.what, self.handle.story());
            self.handle
                .fail(&format!("nothing to hold: awaited {what}; came:{story}"));
        }
    }

    /// Lets the actors have the messages now, in the order in which they came and before anything that waits for
    /// those actors; nothing is held back any more.
    pub fn release(self) {
        let filters = self.handle.testing.node().filters();
        filters.release(self.handle.id);
    }

    /// Drops the messages; returns how many they were.
    pub fn discard(self) -> usize {
        self.handle.settle();
        self.handle
            .testing
            .node()
            .filters()
            .lock()
            .held(self.handle.id)
    }
}

/// Messages that must not come. Dropping it after one came fails the test.
#[must_use = "watches for as long as it lives"]
pub struct Never<M> {
    handle: Handle,
    kind: PhantomData<fn() -> M>,
}

impl<M: Observed> Never<M> {
    pub(super) fn new(handle: Handle) -> Self {
        Self {
            handle,
            kind: PhantomData,
        }
    }
}

impl<M> Drop for Never<M> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.handle.settle();
        let count = self.handle.count();
        if count > 0 {
            let (what, story) = (&self.handle.what, self.handle.story());
            self.handle.fail(&format!(
                "{what} came {count} times and never should; seen:{story}"
            ));
        }
    }
}
