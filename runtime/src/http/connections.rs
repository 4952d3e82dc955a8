//! Which HTTP connections there are, and which one gives way when there are too many.
//! Pure: numbers in, numbers out; the shell is `http/clients.rs`.
//!
//! A new connection is always taken if one without a request in hand can be closed for it: the one that has been so for
//! longest. So idle connections, however many, keep nobody out. When each has a request in hand, which ends within the
//! limit for answers, the new one is closed. Probes of peers do not count: there is at most one of each peer.

use std::collections::{BTreeMap, BTreeSet};

/// Names one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Number(u64);

/// What becomes of a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It has this number, and `instead` is to be closed for it.
    Taken {
        /// Its number.
        number: Number,
        /// The one that gives way.
        instead: Option<Number>,
    },
    /// All others have a request in hand.
    Full,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Without a request since this moment, counted by events.
    Idle(u64),
    Busy,
}

/// All connections that count.
#[derive(Debug)]
pub(crate) struct Connections {
    limit: usize,
    events: u64,
    all: BTreeMap<Number, State>,
    /// Those without a request in hand, the longest so first.
    idle: BTreeSet<(u64, Number)>,
}

impl Connections {
    /// At most `limit` at a time, at least one.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            events: 0,
            all: BTreeMap::new(),
            idle: BTreeSet::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// A client has connected.
    pub(crate) fn admit(&mut self) -> Admission {
        let mut instead = None;
        if self.all.len() >= self.limit {
            instead = self.give_way();
            if instead.is_none() {
                return Admission::Full;
            }
        }
        self.events += 1;
        let number = Number(self.events);
        self.set(number, State::Idle(self.events));
        Admission::Taken { number, instead }
    }

    /// Takes out the connection that has been without a request for longest; none when each has one.
    pub(crate) fn give_way(&mut self) -> Option<Number> {
        let (_, number) = self.idle.pop_first()?;
        self.all.remove(&number);
        Some(number)
    }

    /// A request has come.
    pub(crate) fn began(&mut self, number: Number) {
        self.change(number, State::Busy);
    }

    /// Its answer is known.
    pub(crate) fn answered(&mut self, number: Number) {
        self.events += 1;
        self.change(number, State::Idle(self.events));
    }

    /// The connection is closed, or turned out to be a peer's probe.
    pub(crate) fn forget(&mut self, number: Number) {
        if let Some(State::Idle(since)) = self.all.remove(&number) {
            self.idle.remove(&(since, number));
        }
    }

    /// Of one that is no longer counted nothing is noted.
    fn change(&mut self, number: Number, state: State) {
        if let Some(old) = self.all.get(&number) {
            if let State::Idle(since) = *old {
                self.idle.remove(&(since, number));
            }
            self.set(number, state);
        }
    }

    fn set(&mut self, number: Number, state: State) {
        if let State::Idle(since) = state {
            self.idle.insert((since, number));
        }
        self.all.insert(number, state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(connections: &mut Connections) -> Number {
        match connections.admit() {
            Admission::Taken {
                number,
                instead: None,
            } => number,
            other @ (Admission::Taken { .. } | Admission::Full) => panic!("{other:?}"),
        }
    }

    fn instead(connections: &mut Connections) -> Option<Number> {
        match connections.admit() {
            Admission::Taken { instead, .. } => instead,
            Admission::Full => None,
        }
    }

    #[test]
    fn the_one_longest_without_a_request_gives_way_and_none_that_has_one() {
        let mut all = Connections::new(3);
        let (one, two, three) = (taken(&mut all), taken(&mut all), taken(&mut all));
        all.began(one);
        all.answered(one);
        all.began(three);
        assert_eq!(instead(&mut all), Some(two));
        assert_eq!(instead(&mut all), Some(one));
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn when_each_has_a_request_a_new_one_is_not_taken_until_one_ends() {
        let mut all = Connections::new(2);
        let (one, two) = (taken(&mut all), taken(&mut all));
        all.began(one);
        all.began(two);
        assert_eq!(all.admit(), Admission::Full);
        all.forget(one);
        assert_ne!(all.admit(), Admission::Full);
        assert_eq!(all.len(), 2);
    }

    #[test]
    fn one_that_is_forgotten_counts_no_more_whatever_comes_of_it() {
        let mut all = Connections::new(1);
        let probe = taken(&mut all);
        all.began(probe);
        all.forget(probe);
        all.answered(probe);
        all.began(probe);
        assert_eq!((all.len(), all.give_way()), (0, None));
        taken(&mut all);
    }
}
