//! Values that know how often somebody could have changed them.
//!
//! Pure. Whoever can change the value has passed [`DerefMut`], which raises the number, so that none can forget to. The
//! number says that nothing has changed, not that something has: whoever looks for writing and leaves all as it was
//! raises it too. Where that happens all the time, [`Revised::unseen`] is for what nobody is shown.

use std::ops::{Deref, DerefMut};

/// A value and the number of its revision.
#[derive(Debug, Default)]
pub(crate) struct Revised<T> {
    value: T,
    revision: u64,
}

impl<T> Revised<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value, revision: 0 }
    }

    /// Two times with the same number the value was the same, but for what was done through [`Revised::unseen`].
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The value, to change of it what no document shows. The number stays.
    pub(crate) fn unseen(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Deref for Revised<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Revised<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.revision += 1;
        &mut self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_rises_with_every_look_for_writing_and_with_no_other() {
        let mut all = Revised::new(vec![1]);
        assert_eq!((all.len(), all.revision()), (1, 0));
        all.push(2);
        assert_eq!((all.iter().sum::<i32>(), all.revision()), (3, 1));
        *all = Vec::new();
        assert_eq!((all.is_empty(), all.revision()), (true, 2));
        all.unseen().push(3);
        assert_eq!((all.len(), all.revision()), (1, 2));
    }
}
