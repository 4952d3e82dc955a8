//! Sets of texts, for example names of disks.
//!
//! Pure. Invariant: items are sorted and distinct. Source: Mesos `src/common/values.cpp`.

use std::fmt;
use std::sync::Arc;

/// A set of texts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Set(Vec<Arc<str>>);

impl Set {
    /// The set of these items.
    pub fn new<T: Into<Arc<str>>>(items: impl IntoIterator<Item = T>) -> Self {
        let mut items: Vec<Arc<str>> = items.into_iter().map(Into::into).collect();
        items.sort_unstable();
        items.dedup();
        Self(items)
    }

    /// The items in order.
    pub fn as_slice(&self) -> &[Arc<str>] {
        &self.0
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether `item` is in the set.
    pub fn has(&self, item: &str) -> bool {
        self.0.binary_search_by(|have| (**have).cmp(item)).is_ok()
    }

    /// Whether every item of `other` is in this set.
    pub fn contains(&self, other: &Self) -> bool {
        other.0.iter().all(|item| self.has(item))
    }

    /// Adds the items of `other`.
    pub fn add(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
        self.0.sort_unstable();
        self.0.dedup();
    }

    /// Takes the items of `other` away.
    pub fn subtract(&mut self, other: &Self) {
        self.0.retain(|item| !other.has(item));
    }

    /// Whether the two sets share an item.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().any(|item| other.has(item))
    }
}

/// `{a, b}`.
impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", self.0.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaves_as_a_set() {
        let mut a = Set::new(["b", "a", "b"]);
        assert_eq!(a.to_string(), "{a, b}");
        a.add(&Set::new(["c", "a"]));
        assert!(a.contains(&Set::new(["a", "c"])) && !a.contains(&Set::new(["d"])));
        a.subtract(&Set::new(["a", "d"]));
        assert_eq!(a, Set::new(["b", "c"]));
        assert!(a.overlaps(&Set::new(["c"])) && !a.overlaps(&Set::new(["a"])));
    }
}
