//! The store under failures: torn writes, damage, a full disk, a second process.
//!
//! The torn-store suite records which sectors of which file each step changes, rebuilds what a crash in the middle
//! could have left of it, and opens that with the real LMDB. A step of the journal is one write before one sync: any
//! subset of its sectors may be there. A commit of the table writes pages, syncs, and writes one sector of a meta page.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::mpsc;

use bytes::Bytes;
use crossbeam::channel::{bounded, unbounded};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::files::Medium;
use super::journal::{Ring, SECTOR};
use super::lmdb::Pending;
use super::store::Writer;
use super::*;
use crate::log::action::{Action, Position, Proposal, Value};
use crate::log::members::{Incarnation, Life};
use crate::log::messages::Status;
use crate::log::replica::core::{Change, Metadata, Stored};

const PAGE: usize = 4096;

fn small() -> Settings {
    Settings {
        ring_sectors: 128,
        map_bytes: 8 << 20,
    }
}

fn action(position: u64, size: usize) -> Change {
    let byte = u8::try_from(position % 251).unwrap();
    let bytes = Bytes::from(vec![byte; size]);
    Change::Action(Action::learned(
        Position(position),
        Proposal(1),
        Value::Append { bytes },
    ))
}

fn promised(proposal: u64) -> Change {
    Change::Metadata(Metadata {
        status: Status::Voting,
        promised: Proposal(proposal),
        life: Life {
            incarnation: Incarnation::FIRST,
            nonce: 7,
        },
        ..Metadata::default()
    })
}

/// Waits for the outcome of an order.
fn done<T: Send + 'static>(
    order: impl FnOnce(Box<dyn FnOnce(Result<T, StorageError>) + Send>),
) -> Result<T, StorageError> {
    let (tell, told) = mpsc::channel();
    order(Box::new(move |outcome| tell.send(outcome).unwrap()));
    told.recv().unwrap()
}

fn commit(store: &Store, changes: Vec<Change>) -> Result<Committed, StorageError> {
    done(|done| store.commit(changes, done))
}

fn load(store: &Store) -> Stored {
    done(|done| store.load(done)).unwrap()
}

fn flush(store: &Store) {
    done(|done| store.flush(done)).unwrap();
}

/// What a store should hold.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    metadata: Metadata,
    actions: BTreeMap<Position, Action>,
}

impl Model {
    fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Metadata(metadata) => self.metadata = metadata.clone(),
                Change::Action(action) => {
                    self.actions.insert(action.position, action.clone());
                }
                Change::Forget { below } => self.actions = self.actions.split_off(below),
            }
        }
    }

    fn of(stored: &Stored) -> Self {
        let actions = stored.actions.iter();
        Self {
            metadata: stored.metadata.clone(),
            actions: actions
                .map(|action| (action.position, action.clone()))
                .collect(),
        }
    }
}

#[test]
fn what_is_committed_is_there_after_opening_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    for round in 0..4 {
        let store = Store::open(directory.path(), &small()).unwrap();
        let stored = load(&store);
        assert!(!stored.damaged);
        assert!(Model::of(&stored) == model, "round {round}");
        for step in 1..60 {
            let position = round * 100 + step;
            // Some are longer than the ring takes.
            let size = if step % 20 == 0 { 20_000 } else { 300 };
            let mut changes = vec![action(position, size), promised(position)];
            if step == 50 {
                let below = Position(position - 30);
                changes.push(Change::Forget { below });
            }
            commit(&store, changes.clone()).unwrap();
            model.apply(&changes);
        }
    }
}

#[test]
fn a_directory_belongs_to_one_user_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), &small()).unwrap();
    let path = directory.path().to_owned();
    let second = Store::open(&path, &small()).unwrap_err();
    assert!(matches!(second, StorageError::Locked { .. }), "{second}");
    assert!(look(&path).is_err());
    drop(store);
    assert_eq!(look(&path).unwrap().stored, Stored::default());
    drop(Store::open(&path, &small()).unwrap());
}

#[test]
fn a_directory_that_cannot_be_used_is_named_with_a_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "x").unwrap();
    let error = Store::open(&file.join("log"), &small()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&*file.join("log").to_string_lossy()),
        "{text}"
    );
    assert!(text.contains("another directory"), "{text}");
}

#[test]
fn a_file_that_was_never_finished_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("replica.part"), "half a table").unwrap();
    fs::write(directory.path().join("journal.part"), "half a journal").unwrap();
    let store = Store::open(directory.path(), &small()).unwrap();
    assert_eq!(load(&store), Stored::default());
    assert!(!directory.path().join("replica.part").exists());
}

#[test]
fn a_journal_of_another_size_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), &small()).unwrap();
    commit(&store, vec![action(1, 300), promised(3)]).unwrap();
    drop(store);
    let mut larger = small();
    larger.ring_sectors = 256;
    for _ in 0..2 {
        let store = Store::open(directory.path(), &larger).unwrap();
        let stored = load(&store);
        assert!(!stored.damaged);
        assert_eq!(stored.metadata.promised, Proposal(3));
    }
    let length = fs::metadata(directory.path().join("journal"))
        .unwrap()
        .len();
    assert_eq!(length, 256 * SECTOR as u64);
}

#[test]
fn a_table_at_its_bound_is_a_clear_end_and_keeps_what_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let mut tight = small();
    tight.map_bytes = 1 << 20;
    let store = Store::open(directory.path(), &tight).unwrap();
    let mut model = Model::default();
    let mut position = 0;
    let error = loop {
        position += 1;
        let changes = vec![action(position, 5_000), promised(position)];
        match commit(&store, changes.clone()) {
            Ok(_) => model.apply(&changes),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StorageError::MapFull { .. }), "{error}");
    assert_eq!(commit(&store, vec![promised(1)]).unwrap_err(), error);
    drop(store);
    let store = Store::open(directory.path(), &small()).unwrap();
    let mut stored = Model::of(&load(&store));
    // The commit that was refused may be there too.
    if stored.actions.len() > model.actions.len() {
        model.apply(&[action(position, 5_000), promised(position)]);
    }
    assert_eq!(stored.actions.len(), model.actions.len());
    stored.metadata = model.metadata.clone();
    assert!(stored == model);
}

/// A file whose syncs fail from some time on.
struct Failing {
    syncs_left: u32,
    written: usize,
}

impl Medium for Failing {
    fn write(&mut self, bytes: &[u8], _: u64) -> io::Result<()> {
        self.written += bytes.len();
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.syncs_left == 0 {
            return Err(io::Error::other("the device is gone"));
        }
        self.syncs_left -= 1;
        Ok(())
    }
}

#[test]
fn after_a_failed_sync_nothing_is_written_or_acknowledged_any_more() {
    let (gathered, _loads) = bounded(1);
    let (_applied, notices) = unbounded();
    let mut writer = Writer {
        file: Failing {
            syncs_left: 2,
            written: 0,
        },
        path: "journal".into(),
        ring: Ring::new(64),
        ring_sectors: 64,
        last: 0,
        pending: Pending::default(),
        is_gathering: false,
        gathered,
        notices,
        ended: None,
    };
    assert!(writer.commit(&[promised(1)]).is_ok());
    assert!(writer.commit(&[promised(2)]).is_ok());
    let failed = writer.commit(&[promised(3)]).unwrap_err();
    assert!(matches!(failed, StorageError::Failed { .. }));
    let written = writer.file.written;
    writer.file.syncs_left = 9;
    assert_eq!(writer.commit(&[promised(4)]).unwrap_err(), failed);
    assert_eq!(writer.file.written, written);
}

/// Both files of a directory.
#[derive(Clone, PartialEq)]
struct Snapshot {
    table: Vec<u8>,
    journal: Vec<u8>,
}

impl Snapshot {
    fn take(directory: &Path) -> Self {
        Self {
            table: fs::read(directory.join("replica.mdb")).unwrap(),
            journal: fs::read(directory.join("journal")).unwrap(),
        }
    }

    fn put(&self, directory: &Path) {
        fs::write(directory.join("replica.mdb"), &self.table).unwrap();
        fs::write(directory.join("journal"), &self.journal).unwrap();
    }
}

/// Numbers of the sectors in which two files differ.
fn changed(before: &[u8], after: &[u8]) -> Vec<usize> {
    (0..after.len().div_ceil(SECTOR))
        .filter(|number| sector(before, *number) != sector(after, *number))
        .collect()
}

fn sector(file: &[u8], number: usize) -> &[u8] {
    let from = (number * SECTOR).min(file.len());
    &file[from..(from + SECTOR).min(file.len())]
}

fn write(file: &mut Vec<u8>, after: &[u8], number: usize) {
    let bytes = sector(after, number);
    let end = number * SECTOR + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[number * SECTOR..end].copy_from_slice(bytes);
}

/// What one step has changed, and what the store should hold before and after it.
struct Step {
    before: Snapshot,
    after: Snapshot,
    models: [Model; 2],
}

/// Steps of a store that is written for a while, and every third time taken over by the table.
fn record(directory: &Path) -> Vec<Step> {
    let store = Store::open(directory, &small()).unwrap();
    let mut model = Model::default();
    let mut before = Snapshot::take(directory);
    let mut steps = Vec::new();
    for position in 1..=40 {
        let size = usize::try_from(position * 37 % 1200).unwrap();
        let mut changes = vec![action(position, size), promised(position)];
        if position % 10 == 0 {
            let below = Position(position - 5);
            changes.push(Change::Forget { below });
        }
        commit(&store, changes.clone()).unwrap();
        let earlier = model.clone();
        model.apply(&changes);
        let mut add = |models| {
            let after = Snapshot::take(directory);
            steps.push(Step {
                before: before.clone(),
                after: after.clone(),
                models,
            });
            before = after;
        };
        add([earlier, model.clone()]);
        if position % 3 == 0 {
            flush(&store);
            add([model.clone(), model.clone()]);
        }
    }
    steps
}

/// What a crash within a step may have left.
fn crashed(step: &Step, random: &mut StdRng) -> Snapshot {
    let mut left = step.before.clone();
    for number in changed(&step.before.journal, &step.after.journal) {
        if random.random_bool(0.5) {
            write(&mut left.journal, &step.after.journal, number);
        }
    }
    let (meta, pages): (Vec<usize>, Vec<usize>) = changed(&step.before.table, &step.after.table)
        .into_iter()
        .partition(|number| *number < 2 * PAGE / SECTOR);
    let is_synced = random.random_bool(0.3);
    for number in pages {
        if is_synced || random.random_bool(0.5) {
            write(&mut left.table, &step.after.table, number);
        }
    }
    if is_synced && random.random_bool(0.5) {
        for number in meta {
            write(&mut left.table, &step.after.table, number);
        }
    }
    left
}

#[test]
fn whatever_a_crash_leaves_of_a_step_the_last_acknowledged_commit_is_there() {
    let recorded = tempfile::tempdir().unwrap();
    let steps = record(recorded.path());
    let seed = 1;
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (mut old, mut new, mut table_steps) = (0, 0, 0);
    for (number, step) in steps.iter().enumerate() {
        table_steps += usize::from(step.before.table != step.after.table);
        for round in 0..12 {
            let directory = tempfile::tempdir().unwrap();
            crashed(step, &mut random).put(directory.path());
            let what = format!("step {number}, round {round}");
            let found = look(directory.path()).unwrap();
            assert_eq!(found.damage, [""; 0], "{what}");
            let model = Model::of(&found.stored);
            assert!(step.models.contains(&model), "{what}");
            old += usize::from(model == step.models[0]);
            new += usize::from(model == step.models[1]);
            if round > 0 {
                continue;
            }
            // It goes on from there: what is written next is found next.
            let store = Store::open(directory.path(), &small()).unwrap();
            let mut expected = Model::of(&load(&store));
            assert!(expected == model, "{what}");
            let changes = [action(1000, 700), promised(1000)];
            commit(&store, changes.to_vec()).unwrap();
            expected.apply(&changes);
            drop(store);
            let found = look(directory.path()).unwrap();
            assert!(Model::of(&found.stored) == expected, "{what}");
            assert_eq!(found.damage, [""; 0], "{what}");
        }
    }
    // Both outcomes were seen, and both files were torn.
    assert!(
        old > 100 && new > 100 && table_steps > 10,
        "{old} {new} {table_steps}"
    );
}

#[test]
fn a_flipped_bit_is_never_read_as_something_else() {
    let recorded = tempfile::tempdir().unwrap();
    let steps = record(recorded.path());
    let last = steps.last().unwrap();
    let whole = look_at(&last.after);
    let mut random = StdRng::seed_from_u64(2);
    let mut noticed = 0;
    for round in 0..600 {
        let mut bad = last.after.clone();
        let file = if round % 2 == 0 {
            &mut bad.table
        } else {
            &mut bad.journal
        };
        let bit = random.random_range(0..file.len() * 8);
        file[bit / 8] ^= 1 << (bit % 8);
        let what = format!("round {round}, bit {bit}");
        let directory = tempfile::tempdir().unwrap();
        bad.put(directory.path());
        let found = look(directory.path()).unwrap();
        noticed += usize::from(found.stored.damaged);
        if !found.stored.damaged {
            assert!(Model::of(&found.stored) == whole, "{what}");
        }
        if found.stored.damaged && round % 10 == 0 {
            stays_damaged(directory.path());
        }
    }
    assert!(noticed > 100, "{noticed}");
}

fn look_at(snapshot: &Snapshot) -> Model {
    let directory = tempfile::tempdir().unwrap();
    snapshot.put(directory.path());
    Model::of(&look(directory.path()).unwrap().stored)
}

/// A damaged store opens, says so, and does not vote before it has recovered, however often it is started.
fn stays_damaged(directory: &Path) {
    let store = Store::open(directory, &small()).unwrap();
    assert!(load(&store).damaged);
    drop(store);
    let store = Store::open(directory, &small()).unwrap();
    let stored = load(&store);
    assert_eq!(stored.metadata.status, Status::Recovering);
    assert_eq!(stored.metadata.life.nonce, 0);
    commit(&store, vec![action(2000, 10), promised(2000)]).unwrap();
    drop(store);
    let found = look(directory).unwrap();
    assert_eq!(found.damage, [""; 0]);
    assert_eq!(found.stored.metadata.status, Status::Voting);
}

#[test]
fn a_file_that_was_cut_off_is_noticed_before_it_is_mapped() {
    let recorded = tempfile::tempdir().unwrap();
    let steps = record(recorded.path());
    let last = steps.last().unwrap();
    let whole = look_at(&last.after);
    let pages = last.after.table.len() / PAGE;
    for keep in 0..pages {
        let mut bad = last.after.clone();
        bad.table.truncate(keep * PAGE + 100);
        let directory = tempfile::tempdir().unwrap();
        bad.put(directory.path());
        let found = look(directory.path()).unwrap();
        assert!(
            found.stored.damaged || Model::of(&found.stored) == whole,
            "{keep} pages"
        );
        assert!(keep > 1 || found.stored.damaged, "{keep} pages");
        if keep % 4 == 0 {
            drop(Store::open(directory.path(), &small()).unwrap());
        }
    }
    let mut bad = last.after.clone();
    bad.journal.truncate(20 * SECTOR);
    let directory = tempfile::tempdir().unwrap();
    bad.put(directory.path());
    assert!(look(directory.path()).unwrap().stored.damaged);
    fs::remove_file(directory.path().join("journal")).unwrap();
    assert!(look(directory.path()).unwrap().stored.damaged);
    stays_damaged(directory.path());
}

#[test]
fn the_positions_of_damaged_records_are_told() {
    let directory = tempfile::tempdir().unwrap();
    // The table takes over once, so that no page of an earlier time holds a record too.
    let mut large = small();
    large.ring_sectors = 1024;
    let store = Store::open(directory.path(), &large).unwrap();
    for position in 1..=9 {
        commit(&store, vec![action(position, 300), promised(position)]).unwrap();
    }
    drop(store);
    let mut snapshot = Snapshot::take(directory.path());
    let place = snapshot
        .table
        .windows(100)
        .rposition(|bytes| bytes == [4; 100]);
    snapshot.table[place.unwrap()] ^= 1;
    snapshot.put(directory.path());
    let found = look(directory.path()).unwrap();
    assert_eq!(found.damaged, [Position(4)]);
    let positions: Vec<u64> = found.stored.actions.iter().map(|a| a.position.0).collect();
    assert_eq!(positions, [1, 2, 3, 5, 6, 7, 8, 9]);
}
