//! The disk of a simulated node: named records that last once they are synced.
//!
//! Pure. A write is seen by the node at once and by its next run only when a [`Disk::sync`] has succeeded since, or when
//! luck would have it: a crash keeps each unsynced write or loses it ([`Kept`]). After a sync that failed nothing is
//! known: the writes before it may be lost even when a later sync succeeds, as with a real kernel, so whoever sees the
//! failure must stop and start anew from what the disk holds.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

/// Why a disk did not do what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// No room for the record.
    #[error("no space left on the simulated disk")]
    Full,
    /// The device failed; what was written since the last successful sync may be lost.
    #[error("input/output error of the simulated disk")]
    Failed,
}

/// What a node finds on its disk after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// What was synced.
    Synced,
    /// What was synced, and each later write or not.
    Partly,
    /// Nothing: another disk.
    Nothing,
}

/// One write that is not synced; without content a removal.
struct Write {
    name: String,
    content: Option<Vec<u8>>,
}

/// See the module.
#[derive(Default)]
pub struct Disk {
    durable: BTreeMap<String, Vec<u8>>,
    /// Writes since the last successful sync, in order.
    unsynced: Vec<Write>,
    /// Writes that a failed sync gave up: the node still sees them, no sync saves them.
    doubtful: Vec<Write>,
    /// What the node sees.
    seen: BTreeMap<String, Vec<u8>>,
    capacity: Option<usize>,
    failing: u32,
}

impl Disk {
    /// Writes a record; an older one of this name is replaced.
    ///
    /// # Errors
    /// [`DiskError::Full`] when it does not fit in the capacity; nothing has changed then.
    pub fn write(&mut self, name: &str, content: &[u8]) -> Result<(), DiskError> {
        let others: usize = self
            .seen
            .iter()
            .filter(|(other, _)| *other != name)
            .map(|(_, content)| content.len())
            .sum();
        if self
            .capacity
            .is_some_and(|capacity| others + content.len() > capacity)
        {
            return Err(DiskError::Full);
        }
        self.seen.insert(name.to_owned(), content.to_vec());
        self.unsynced.push(Write {
            name: name.to_owned(),
            content: Some(content.to_vec()),
        });
        Ok(())
    }

    /// Removes a record; nothing happens when there is none.
    pub fn remove(&mut self, name: &str) {
        if self.seen.remove(name).is_some() {
            self.unsynced.push(Write {
                name: name.to_owned(),
                content: None,
            });
        }
    }

    /// Makes all writes durable.
    ///
    /// # Errors
    /// [`DiskError::Failed`] as often as [`Disk::fail_syncs`] said.
    pub fn sync(&mut self) -> Result<(), DiskError> {
        if self.failing > 0 {
            self.failing -= 1;
            self.doubtful.append(&mut self.unsynced);
            return Err(DiskError::Failed);
        }
        for write in self.unsynced.drain(..) {
            apply(&mut self.durable, write);
        }
        Ok(())
    }

    /// A record as the node sees it.
    pub fn read(&self, name: &str) -> Option<&[u8]> {
        self.seen.get(name).map(Vec::as_slice)
    }

    /// Names of all records, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.seen.keys().map(String::as_str)
    }

    /// Bytes that all records may have together; none for no limit.
    pub fn set_capacity(&mut self, bytes: Option<usize>) {
        self.capacity = bytes;
    }

    /// Lets this many syncs fail from now on.
    pub fn fail_syncs(&mut self, times: u32) {
        self.failing = times;
    }

    /// Whether a write waits for a sync that saves it.
    pub fn is_dirty(&self) -> bool {
        !self.unsynced.is_empty() || !self.doubtful.is_empty()
    }

    /// The node has crashed: keeps what `kept` says.
    pub(crate) fn crash(&mut self, kept: Kept, random: &mut StdRng) {
        let at_risk: Vec<Write> = self
            .doubtful
            .drain(..)
            .chain(self.unsynced.drain(..))
            .collect();
        match kept {
            Kept::Synced => {}
            Kept::Partly => {
                for write in at_risk {
                    if random.random_bool(0.5) {
                        apply(&mut self.durable, write);
                    }
                }
            }
            Kept::Nothing => self.durable.clear(),
        }
        self.seen = self.durable.clone();
        self.failing = 0;
    }
}

fn apply(records: &mut BTreeMap<String, Vec<u8>>, write: Write) {
    match write.content {
        Some(content) => {
            records.insert(write.name, content);
        }
        None => {
            records.remove(&write.name);
        }
    }
}

/// Draws one of the given outcomes.
pub(crate) fn draw(kept: &[Kept], random: &mut impl Rng) -> Kept {
    match kept.len() {
        0 => Kept::Synced,
        n => kept[random.random_range(0..n)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn crashed(disk: &mut Disk, kept: Kept) -> Vec<String> {
        disk.crash(kept, &mut StdRng::seed_from_u64(1));
        disk.names().map(str::to_owned).collect()
    }

    #[test]
    fn what_was_synced_survives_a_crash_and_nothing_else_must() {
        let mut disk = Disk::default();
        disk.write("a", b"1").unwrap();
        disk.sync().unwrap();
        disk.write("b", b"2").unwrap();
        disk.remove("a");
        assert_eq!(disk.read("a"), None);
        assert_eq!(crashed(&mut disk, Kept::Synced), ["a"]);
        assert_eq!(crashed(&mut disk, Kept::Nothing), [""; 0]);
    }

    #[test]
    fn a_partly_synced_disk_keeps_some_writes_in_some_runs() {
        let mut kept = std::collections::BTreeSet::new();
        for seed in 0..20 {
            let mut disk = Disk::default();
            disk.write("a", b"1").unwrap();
            disk.write("b", b"2").unwrap();
            disk.crash(Kept::Partly, &mut StdRng::seed_from_u64(seed));
            kept.insert(disk.names().collect::<Vec<_>>().join(","));
        }
        assert_eq!(kept.into_iter().collect::<Vec<_>>(), ["", "a", "a,b", "b"]);
    }

    #[test]
    fn a_later_sync_does_not_save_what_a_failed_one_gave_up() {
        let mut disk = Disk::default();
        disk.write("a", b"1").unwrap();
        disk.fail_syncs(1);
        assert_eq!(disk.sync(), Err(DiskError::Failed));
        disk.write("b", b"2").unwrap();
        disk.sync().unwrap();
        assert_eq!(disk.read("a"), Some(&b"1"[..]));
        assert_eq!(crashed(&mut disk, Kept::Synced), ["b"]);
    }

    #[test]
    fn a_full_disk_refuses_and_changes_nothing() {
        let mut disk = Disk::default();
        disk.set_capacity(Some(3));
        disk.write("a", b"12").unwrap();
        assert_eq!(disk.write("b", b"34"), Err(DiskError::Full));
        disk.write("a", b"123").unwrap();
        assert_eq!(disk.names().collect::<Vec<_>>(), ["a"]);
    }
}
