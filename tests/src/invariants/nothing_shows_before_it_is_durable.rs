//! R-2: no effect of a registry operation is visible before it is durable.
//!
//! Pure. The registrar has one entry under way at most; while it has, it tells nobody of any success.

use std::collections::BTreeSet;

/// Registrars that have an entry under way.
#[derive(Debug)]
pub struct NothingShowsBeforeItIsDurable<Writer> {
    writing: BTreeSet<Writer>,
}

impl<Writer> Default for NothingShowsBeforeItIsDurable<Writer> {
    fn default() -> Self {
        let writing = BTreeSet::new();
        Self { writing }
    }
}

impl<Writer: Ord> NothingShowsBeforeItIsDurable<Writer> {
    /// A registrar has an entry written.
    pub fn begins(&mut self, writer: Writer) {
        self.writing.insert(writer);
    }

    /// It is durable.
    pub fn ends(&mut self, writer: &Writer) {
        self.writing.remove(writer);
    }

    /// The registrar tells of a success.
    ///
    /// # Errors
    /// That it may be lost yet.
    pub fn tells(&self, writer: &Writer) -> Result<(), String> {
        if self.writing.contains(writer) {
            Err("the registrar tells of a success while its entry is under way".to_owned())
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_word_of_what_is_under_way() {
        let mut law = NothingShowsBeforeItIsDurable::default();
        law.begins("r");
        assert!(law.tells(&"r").is_err());
    }

    #[test]
    fn accepts_word_of_what_is_durable() {
        let mut law = NothingShowsBeforeItIsDurable::default();
        law.begins("r");
        assert_eq!(law.tells(&"s"), Ok(()));
        law.ends(&"r");
        assert_eq!(law.tells(&"r"), Ok(()));
    }
}
