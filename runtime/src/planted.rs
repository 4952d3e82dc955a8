//! Planted mistakes: wrong turns in the product that only a test takes, to prove that the simulated world would find
//! them.
//!
//! A place that may go wrong asks [`mistake`] with its name. The answer is no, unless the thread has been told otherwise
//! with [`plant`], which a simulation does for one run. In release builds the answer is a constant, so nothing of a
//! mistake is in a program that anybody runs.

use std::cell::Cell;

thread_local! {
    static PLANTED: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Whether this mistake is planted in the present run.
#[inline]
pub fn mistake(name: &str) -> bool {
    cfg!(debug_assertions) && PLANTED.get() == Some(name)
}

/// Plants a mistake on this thread until the guard is dropped.
#[must_use]
pub fn plant(name: &'static str) -> Planted {
    PLANTED.set(Some(name));
    Planted(())
}

/// Holds a mistake in its place; see [`plant`].
#[derive(Debug)]
pub struct Planted(());

impl Drop for Planted {
    fn drop(&mut self) {
        PLANTED.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_there_as_long_as_its_guard() {
        assert!(!mistake("a"));
        let planted = plant("a");
        assert!(mistake("a") && !mistake("b"));
        drop(planted);
        assert!(!mistake("a"));
    }
}
