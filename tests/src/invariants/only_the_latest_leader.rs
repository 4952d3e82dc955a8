//! M-2: agents and schedulers act only on the leader they last detected, never on an older epoch.
//!
//! Pure. Each of them holds the newest epoch it has heard of, which it takes from what it acts on.

use std::collections::BTreeMap;

/// The newest epoch of each process.
#[derive(Debug)]
pub struct OnlyTheLatestLeader<Who> {
    epochs: BTreeMap<Who, u64>,
}

impl<Who> Default for OnlyTheLatestLeader<Who> {
    fn default() -> Self {
        let epochs = BTreeMap::new();
        Self { epochs }
    }
}

impl<Who: Ord> OnlyTheLatestLeader<Who> {
    /// A process begins anew.
    pub fn begins(&mut self, who: &Who) {
        self.epochs.remove(who);
    }

    /// A process has acted, and holds this epoch now.
    ///
    /// # Errors
    /// The newer one that it had heard of.
    pub fn acts(&mut self, who: Who, epoch: u64) -> Result<(), String> {
        let before = self.epochs.insert(who, epoch).unwrap_or(0);
        if epoch >= before {
            return Ok(());
        }
        Err(format!(
            "it had heard of epoch {before} and has listened to {epoch}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_an_older_epoch() {
        let mut law = OnlyTheLatestLeader::default();
        assert_eq!(law.acts("a", 5), Ok(()));
        assert!(law.acts("a", 4).is_err());
    }

    #[test]
    fn accepts_newer_ones_and_a_new_beginning() {
        let mut law = OnlyTheLatestLeader::default();
        for (who, epoch) in [("a", 5), ("b", 1), ("a", 5), ("a", 7)] {
            assert_eq!(law.acts(who, epoch), Ok(()));
        }
        law.begins(&"a");
        assert_eq!(law.acts("a", 1), Ok(()));
    }
}
