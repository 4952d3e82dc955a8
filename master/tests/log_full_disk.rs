//! The store of the log on a disk that runs full. In a program of its own: `mount` is a child process, and while one is
//! being made it holds the locks of all stores that are open in its parent.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use bytes::Bytes;
use meseta_master::log::action::{Action, Position, Proposal, Value};
use meseta_master::log::replica::core::{Change, Metadata, Stored};
use meseta_master::log::storage::{Settings, StorageError, Store};

fn small() -> Settings {
    Settings {
        ring_sectors: 64,
        map_bytes: 8 << 20,
    }
}

/// An entry of 2,000 bytes, and the metadata.
fn changes(position: u64) -> Vec<Change> {
    let bytes = Bytes::from(vec![u8::try_from(position % 251).unwrap(); 2_000]);
    let action = Action::learned(Position(position), Proposal(1), Value::Append { bytes });
    let promised = Proposal(position);
    let metadata = Metadata {
        promised,
        ..Metadata::default()
    };
    vec![Change::Action(action), Change::Metadata(metadata)]
}

fn commit(store: &Store, changes: Vec<Change>) -> Result<(), StorageError> {
    let (tell, told) = mpsc::channel();
    store.commit(changes, move |outcome| tell.send(outcome).unwrap());
    told.recv().unwrap().map(|_| ())
}

fn load(store: &Store) -> Stored {
    let (tell, told) = mpsc::channel();
    store.load(move |outcome| tell.send(outcome).unwrap());
    told.recv().unwrap().unwrap()
}

/// A file system in memory with this size, until it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(options: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "none"])
            .arg(directory.path())
            .stderr(Stdio::null())
            .status();
        let mounted = mount.is_ok_and(|status| status.success());
        mounted.then_some(Self(directory))
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        let mount = Command::new("mount")
            .args(["-o", &options])
            .arg(self.0.path())
            .status();
        assert!(mount.unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(self.0.path()).status());
    }
}

#[test]
fn a_full_disk_is_a_clear_end_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount("size=512k") else {
        println!(
            "SKIPPED a_full_disk_is_a_clear_end_and_loses_nothing: needs root and may not mount"
        );
        return;
    };
    let directory = disk.0.path().join("log");
    let store = Store::open(&directory, &small()).unwrap();
    let mut acknowledged = BTreeMap::new();
    let mut position = 0;
    let error = loop {
        position += 1;
        match commit(&store, changes(position)) {
            Ok(()) => acknowledged.insert(position, changes(position)),
            Err(error) => break error,
        };
    };
    assert!(matches!(error, StorageError::Full { .. }), "{error}");
    assert!(error.to_string().contains("free some space"), "{error}");
    drop(store);
    // Starting again without room says so, and names the directory.
    let error = Store::open(&directory, &small()).unwrap_err();
    assert_eq!(
        error,
        StorageError::Full {
            path: directory.clone()
        }
    );
    disk.resize("8m");
    let store = Store::open(&directory, &small()).unwrap();
    let stored = load(&store);
    assert!(!stored.damaged);
    // The commit that was refused may be there too.
    let count = acknowledged.len();
    assert!((count..=count + 1).contains(&stored.actions.len()));
    for (action, changes) in stored.actions.iter().zip(acknowledged.values()) {
        assert!(changes[0] == Change::Action(action.clone()));
    }
    drop(store);
}
