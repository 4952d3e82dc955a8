//! The disk of a simulated node: named records that last once they are synced.
//!
//! Pure. A write is seen by the node at once and by its next run only when a [`Disk::sync`] has succeeded since, or when
//! luck would have it: a crash keeps each unsynced write or loses it ([`Kept`]). After a sync that failed nothing is
//! known: the writes before it may be lost even when a later sync succeeds, as with a real kernel, so whoever sees the
//! failure must stop and start anew from what the disk holds.
//!
//! What writes several records at once, and needs all of them or none, writes a batch ([`Disk::write_all`]). A
//! [`Store`] is the part of a disk that one database has: its commits are batches that are synced, as those of a real
//! one.

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

/// One change of a record: its name and new content; without content it is removed.
pub type Change = (String, Option<Vec<u8>>);

/// Changes that a crash keeps or loses together.
type Batch = Vec<Change>;

/// See the module.
#[derive(Debug, Default)]
pub struct Disk {
    durable: BTreeMap<String, Vec<u8>>,
    /// Writes since the last successful sync, in order.
    unsynced: Vec<Batch>,
    /// Writes that a failed sync gave up: the node still sees them, no sync saves them.
    doubtful: Vec<Batch>,
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
        self.write_all(vec![(name.to_owned(), Some(content.to_vec()))])
    }

    /// Removes a record; nothing happens when there is none.
    pub fn remove(&mut self, name: &str) {
        if self.seen.remove(name).is_some() {
            self.unsynced.push(vec![(name.to_owned(), None)]);
        }
    }

    /// Makes several changes, in their order, as one: a crash keeps all of them or none.
    ///
    /// # Errors
    /// [`DiskError::Full`] when they do not fit in the capacity; nothing has changed then.
    pub fn write_all(&mut self, changes: Vec<Change>) -> Result<(), DiskError> {
        if let Some(capacity) = self.capacity {
            let mut after: BTreeMap<&str, usize> = self
                .seen
                .iter()
                .map(|(name, content)| (name.as_str(), content.len()))
                .collect();
            for (name, content) in &changes {
                after.insert(name, content.as_ref().map_or(0, Vec::len));
            }
            if after.values().sum::<usize>() > capacity {
                return Err(DiskError::Full);
            }
        }
        apply(&mut self.seen, changes.clone());
        self.unsynced.push(changes);
        Ok(())
    }

    /// The part of the disk that the database of this name has, so that a node may have several.
    pub fn store(&mut self, name: &str) -> Store<'_> {
        Store {
            disk: self,
            prefix: format!("{name}/"),
        }
    }

    /// Flips one bit of a record where it lies, as a decaying medium does; `false` when there is no such bit.
    pub fn flip(&mut self, name: &str, bit: usize) -> bool {
        let mut flipped = false;
        for records in [&mut self.durable, &mut self.seen] {
            let byte = records
                .get_mut(name)
                .and_then(|content| content.get_mut(bit / 8));
            if let Some(byte) = byte {
                *byte ^= 1 << (bit % 8);
                flipped = true;
            }
        }
        flipped
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
        for batch in self.unsynced.drain(..) {
            apply(&mut self.durable, batch);
        }
        Ok(())
    }

    /// A record as the node sees it.
    pub fn read(&self, name: &str) -> Option<&[u8]> {
        self.seen.get(name).map(Vec::as_slice)
    }

    /// Whether a record that the node sees stands there after a crash too, as it is seen or in an older form.
    pub fn is_durable(&self, name: &str) -> bool {
        self.durable.contains_key(name)
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
        let at_risk: Vec<Batch> = self
            .doubtful
            .drain(..)
            .chain(self.unsynced.drain(..))
            .collect();
        match kept {
            Kept::Synced => {}
            Kept::Partly => {
                for batch in at_risk {
                    if random.random_bool(0.5) {
                        apply(&mut self.durable, batch);
                    }
                }
            }
            Kept::Nothing => self.durable.clear(),
        }
        self.seen = self.durable.clone();
        self.failing = 0;
    }
}

fn apply(records: &mut BTreeMap<String, Vec<u8>>, changes: Batch) {
    for (name, content) in changes {
        match content {
            Some(content) => records.insert(name, content),
            None => records.remove(&name),
        };
    }
}

/// The records of one database on a disk; their keys are names below its own.
#[derive(Debug)]
pub struct Store<'a> {
    disk: &'a mut Disk,
    prefix: String,
}

impl Store<'_> {
    /// Makes several changes as one, and durable: when this succeeds no crash takes them back but one that takes the
    /// whole disk.
    ///
    /// # Errors
    /// [`DiskError::Full`]: nothing has changed. [`DiskError::Failed`]: nobody knows what of it is durable, so its owner
    /// must stop and start anew from what is there then.
    pub fn commit(&mut self, changes: impl IntoIterator<Item = Change>) -> Result<(), DiskError> {
        let prefix = &self.prefix;
        let named = |(key, content)| (format!("{prefix}{key}"), content);
        let changes = changes.into_iter().map(named).collect();
        self.disk.write_all(changes)?;
        self.disk.sync()
    }

    /// A record as its owner sees it.
    pub fn read(&self, key: &str) -> Option<&[u8]> {
        self.disk.read(&format!("{}{key}", self.prefix))
    }

    /// All records, by key, in order.
    pub fn records(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let all = self.disk.seen.range(self.prefix.clone()..);
        all.map_while(|(name, content)| {
            let key = name.strip_prefix(&self.prefix)?;
            Some((key, content.as_slice()))
        })
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

    fn put(key: &str, content: &str) -> Change {
        (key.to_owned(), Some(content.as_bytes().to_vec()))
    }

    #[test]
    fn a_crash_keeps_a_batch_or_loses_it() {
        let mut kept = std::collections::BTreeSet::new();
        for seed in 0..20 {
            let mut disk = Disk::default();
            disk.write("a", b"1").unwrap();
            disk.sync().unwrap();
            let batch = vec![("a".to_owned(), None), put("b", "2"), put("c", "3")];
            disk.write_all(batch).unwrap();
            disk.crash(Kept::Partly, &mut StdRng::seed_from_u64(seed));
            kept.insert(disk.names().collect::<Vec<_>>().join(","));
        }
        assert_eq!(kept.into_iter().collect::<Vec<_>>(), ["a", "b,c"]);
    }

    #[test]
    fn stores_of_one_disk_are_apart_and_what_they_commit_is_durable() {
        let mut disk = Disk::default();
        disk.store("log")
            .commit([put("1", "x"), put("2", "y")])
            .unwrap();
        disk.store("login").commit([put("1", "z")]).unwrap();
        disk.store("log").commit([("1".to_owned(), None)]).unwrap();
        disk.crash(Kept::Synced, &mut StdRng::seed_from_u64(1));
        let store = disk.store("log");
        assert_eq!(store.records().collect::<Vec<_>>(), [("2", &b"y"[..])]);
        assert_eq!((store.read("1"), store.read("2")), (None, Some(&b"y"[..])));
        assert_eq!(disk.store("login").read("1"), Some(&b"z"[..]));
    }

    #[test]
    fn a_commit_that_fails_may_be_lost_though_its_owner_still_sees_it() {
        let mut disk = Disk::default();
        disk.fail_syncs(1);
        let failed = disk.store("log").commit([put("1", "x")]);
        assert_eq!(failed, Err(DiskError::Failed));
        assert_eq!(disk.store("log").read("1"), Some(&b"x"[..]));
        assert_eq!(crashed(&mut disk, Kept::Synced), [""; 0]);
        disk.set_capacity(Some(2));
        let full = disk.store("log").commit([put("1", "x"), put("2", "yz")]);
        assert_eq!(full, Err(DiskError::Full));
        assert_eq!(disk.names().count(), 0, "all or nothing");
    }

    #[test]
    fn a_flipped_bit_stays_flipped() {
        let mut disk = Disk::default();
        disk.store("log").commit([put("1", "a")]).unwrap();
        assert!(disk.flip("log/1", 1));
        assert!(!disk.flip("log/1", 8) && !disk.flip("log/2", 0));
        assert_eq!(crashed(&mut disk, Kept::Synced), ["log/1"]);
        assert_eq!(disk.read("log/1"), Some(&b"c"[..]));
    }
}
