//! A table whose entries have small numbers: frameworks, agents and roles refer to each other by them.
//!
//! Pure. A number is used again after its entry is gone, the smallest free one last freed first, so equal inputs
//! give equal numbers.

/// Numbered entries.
#[derive(Debug)]
pub(super) struct Slab<T> {
    items: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    /// Stores an entry and returns its number.
    pub(super) fn insert(&mut self, item: T) -> usize {
        if let Some(at) = self.free.pop() {
            self.items[at] = Some(item);
            at
        } else {
            self.items.push(Some(item));
            self.items.len() - 1
        }
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, at: usize) -> Option<T> {
        let item = self.items.get_mut(at)?.take()?;
        self.free.push(at);
        Some(item)
    }

    /// The entry of this number.
    pub(super) fn get(&self, at: usize) -> Option<&T> {
        self.items.get(at)?.as_ref()
    }

    /// The entry of this number, to change.
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.items.get_mut(at)?.as_mut()
    }

    /// All entries in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let numbered = self.items.iter().enumerate();
        numbered.filter_map(|(at, item)| Some((at, item.as_ref()?)))
    }

    /// All entries in the order of their numbers, to change.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut T)> {
        let numbered = self.items.iter_mut().enumerate();
        numbered.filter_map(|(at, item)| Some((at, item.as_mut()?)))
    }
}
