//! Which launches may go on at once.
//!
//! Pure. A program that starts costs far more processor than one that waits, and a thousand that start at once starve
//! each other, the agent and its connections until time-outs fire. So at most a few containers are *starting* at any
//! time: from their launch until their executor has subscribed, or has ended, or has taken [`PATIENCE`]. The others
//! wait here in the order in which they were asked for.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// After this long a container no longer counts as starting, so that an executor that hangs holds nobody up for long.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The launches of one agent; `L` is what is needed to start one.
#[derive(Debug)]
pub struct LaunchQueue<L> {
    limit: usize,
    starting: BTreeSet<String>,
    waiting: VecDeque<(String, L)>,
}

impl<L> LaunchQueue<L> {
    /// A queue that lets `limit` containers start at once; at least one.
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            starting: BTreeSet::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Asks for a launch.
    pub fn ask(&mut self, container: String, launch: L) {
        self.waiting.push_back((container, launch));
    }

    /// A container is no longer starting. Says so as often as one likes.
    pub fn settled(&mut self, container: &str) {
        self.starting.remove(container);
    }

    /// Takes back a launch that still waits; whether there was one.
    pub fn withdraw(&mut self, container: &str) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|(waiting, _)| waiting != container);
        self.waiting.len() < before
    }

    /// The next launch that may go on now; it counts as starting from here on.
    pub fn take_next(&mut self) -> Option<(String, L)> {
        if self.starting.len() >= self.limit {
            return None;
        }
        let (container, launch) = self.waiting.pop_front()?;
        self.starting.insert(container.clone());
        Some((container, launch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_so_many_start_at_once_and_in_order() {
        let mut queue = LaunchQueue::new(2);
        for container in ["a", "b", "c", "d"] {
            queue.ask(container.to_owned(), ());
        }
        let next = |queue: &mut LaunchQueue<()>| queue.take_next().map(|(container, ())| container);
        assert_eq!(next(&mut queue).as_deref(), Some("a"));
        assert_eq!(next(&mut queue).as_deref(), Some("b"));
        assert_eq!(next(&mut queue), None);
        queue.settled("a");
        queue.settled("a");
        assert_eq!(next(&mut queue).as_deref(), Some("c"));
        assert_eq!(next(&mut queue), None);
        assert!(queue.withdraw("d") && !queue.withdraw("d") && !queue.withdraw("c"));
        queue.settled("b");
        queue.settled("c");
        assert_eq!(next(&mut queue), None);
    }
}
