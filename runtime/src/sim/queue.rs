//! What is due when: events by virtual time; those of one time in drawn order, or in the order asked for.
//!
//! Pure.

use std::collections::BTreeMap;

use crate::clock::Time;

/// Names one pending event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(Time, u32, u64);

/// See the module.
pub(crate) struct Queue<E> {
    pending: BTreeMap<Key, E>,
    next: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self {
            pending: BTreeMap::new(),
            next: 0,
        }
    }
}

impl<E> Queue<E> {
    /// Adds an event. Of events at one time the smaller `tie` comes first, then the one that was added first.
    pub(crate) fn push(&mut self, at: Time, tie: u32, event: E) -> Key {
        let key = Key(at, tie, self.next);
        self.next += 1;
        self.pending.insert(key, event);
        key
    }

    pub(crate) fn pop(&mut self) -> Option<(Time, E)> {
        self.pending.pop_first().map(|(key, event)| (key.0, event))
    }

    /// When the next event is due.
    pub(crate) fn next_at(&self) -> Option<Time> {
        self.pending.first_key_value().map(|(key, _)| key.0)
    }

    pub(crate) fn cancel(&mut self, key: Key) -> bool {
        self.pending.remove(&key).is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }
}
