//! Reads the entries of the log from its beginning and builds the registry they lead to.
//!
//! Pure. It goes on only as long as every entry follows from the one before; otherwise it names the position and the way
//! out, because a registry that is nearly right would remove agents that are well.

use meseta_protocol::agent::MasterCapability;

use super::entry::{self, Entry, EntryError};
use crate::registry::{Registry, RegistryRejection};

/// Why the log gives no registry. Each names the position and the way out.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// An entry that cannot be read.
    #[error(
        "the registry's entry at position {position} cannot be read: {source}: start the version of the program that wrote \
         it, or let this master take the log from the others: end it, move its log directory away, start it"
    )]
    Entry {
        /// Where.
        position: u64,
        /// What is wrong.
        #[source]
        source: EntryError,
    },
    /// The first entry is a diff.
    #[error(
        "the registry's log begins with a diff at position {position}, and the snapshot before it is missing: let this \
         master take the log from the others: end it, move its log directory away, start it"
    )]
    NoSnapshot {
        /// Where.
        position: u64,
    },
    /// An entry does not follow from what was read before it.
    #[error(
        "the registry's entry at position {position} follows the one at {based_on}, but the one before it is at {last}: \
         entries are missing, or two masters have written: let this master take the log from the others: end it, move its \
         log directory away, start it"
    )]
    Gap {
        /// Where.
        position: u64,
        /// What it follows.
        based_on: u64,
        /// What stands before it.
        last: u64,
    },
    /// An operation in the log does not apply.
    #[error(
        "an operation in the registry's entry at position {position} does not apply: {rejection}: start the version of the \
         program that wrote it"
    )]
    Refused {
        /// Where.
        position: u64,
        /// The rule against it.
        rejection: RegistryRejection,
    },
    /// The registry contradicts itself.
    #[error(
        "the registry contradicts itself after position {position}: {rule}: start the version of the program that wrote it"
    )]
    Broken {
        /// Where.
        position: u64,
        /// The broken rule.
        rule: String,
    },
    /// The registry asks for more than this master can.
    #[error(
        "the registry asks for the capability {0}, which this master does not have: start a version that has it, or have a \
         master that has it undo what needs it"
    )]
    Capability(String),
}

/// How the log stands since the last snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Since {
    /// Position of the last entry; 0 when there is none.
    pub last: u64,
    /// Position of the last snapshot; 0 when there is none.
    pub snapshot: u64,
    /// Bytes of the last snapshot.
    pub snapshot_bytes: usize,
    /// Diffs since.
    pub diffs: usize,
    /// Bytes of the diffs since.
    pub diff_bytes: usize,
}

impl Since {
    /// A snapshot of this many bytes has been written at this position.
    pub fn snapshot(&mut self, position: u64, bytes: usize) {
        *self = Self {
            last: position,
            snapshot: position,
            snapshot_bytes: bytes,
            diffs: 0,
            diff_bytes: 0,
        };
    }

    /// A diff of this many bytes has been written at this position.
    pub fn diff(&mut self, position: u64, bytes: usize) {
        self.last = position;
        self.diffs += 1;
        self.diff_bytes += bytes;
    }
}

/// What has been read so far.
#[derive(Debug, Default)]
pub struct Replay {
    registry: Registry,
    since: Since,
}

impl Replay {
    /// Reads the next entry. Positions grow; those that hold nothing of the registry are left out.
    ///
    /// # Errors
    /// [`ReplayError`] when it does not follow from what was read before.
    pub fn feed(&mut self, position: u64, bytes: &[u8]) -> Result<(), ReplayError> {
        let entry =
            entry::decode(bytes).map_err(|source| ReplayError::Entry { position, source })?;
        let last = self.since.last;
        let gap = |based_on| ReplayError::Gap {
            position,
            based_on,
            last,
        };
        match entry {
            Entry::Snapshot(snapshot) => {
                // Of what was truncated away before the first snapshot nothing is known.
                if last != 0 && snapshot.based_on != last {
                    return Err(gap(snapshot.based_on));
                }
                self.registry = snapshot.registry;
                self.since.snapshot(position, bytes.len());
            }
            Entry::Diff(diff) => {
                if last == 0 {
                    return Err(ReplayError::NoSnapshot { position });
                }
                if diff.based_on != last {
                    return Err(gap(diff.based_on));
                }
                for operation in &diff.operations {
                    self.registry
                        .apply(operation)
                        .map_err(|rejection| ReplayError::Refused {
                            position,
                            rejection,
                        })?;
                }
                self.since.diff(position, bytes.len());
            }
        }
        Ok(())
    }

    /// The registry, if a master with these capabilities may lead with it.
    ///
    /// # Errors
    /// [`ReplayError::Broken`] or [`ReplayError::Capability`].
    pub fn finish(
        self,
        capabilities: &[MasterCapability],
    ) -> Result<(Registry, Since), ReplayError> {
        if let Err(rule) = self.registry.check() {
            let position = self.since.last;
            return Err(ReplayError::Broken { position, rule });
        }
        if let Some(missing) = self.registry.missing_capabilities(capabilities).first() {
            return Err(ReplayError::Capability((*missing).to_owned()));
        }
        Ok((self.registry, self.since))
    }
}
