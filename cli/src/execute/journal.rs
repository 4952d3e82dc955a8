//! How far a run is, in a file: lines that are only ever added, each durable before anybody is told of what it says.
//!
//! ```text
//! meseta execute 1, 100 times: echo hello
//! framework 6f3c…-0000
//! launched 17 1 6f3c…-S0        instance, attempt, agent
//! lost 17
//! finished 17 | failed 17
//! ```
//!
//! A last line without its end was being written when the program ended, and counts as never written.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use meseta_protocol::{AgentId, FrameworkId};
use nix::fcntl::{Flock, FlockArg};

use super::run::Entry;

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    /// It cannot be read or written.
    #[error("--resume={path}: {source}: name a file on a disk with room, where you may write", path = path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It is another run's, or none at all.
    #[error("--resume={path}, line {line}: {what}: name the file of this very run, or one that is not there yet", path = path.display())]
    Strange {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// What an earlier program has written down.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// By which id the master knows the framework.
    pub(super) framework: Option<FrameworkId>,
    /// What has happened to instances.
    pub(super) entries: Vec<Entry>,
}

/// The file.
#[derive(Debug)]
pub(super) struct Journal {
    file: Flock<File>,
    path: PathBuf,
    framework: Option<FrameworkId>,
}

impl Journal {
    /// Opens the file of a run, or begins it. Waits for a program that still uses it: one that was killed may need a
    /// moment to end. `wait` is called first.
    pub(super) fn open(
        path: &Path,
        instances: u32,
        command: &str,
        wait: impl FnOnce(),
    ) -> Result<(Self, Found), JournalError> {
        let unusable = |source| JournalError::Unusable {
            path: path.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(unusable)?;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((file, _)) => {
                wait();
                let locked = Flock::lock(file, FlockArg::LockExclusive);
                locked.map_err(|(_, error)| unusable(error.into()))?
            }
        };
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(unusable)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let title = format!("meseta execute 1, {instances} times: {}", escaped(command));
        let found = read(&text[..whole], &title).map_err(|(line, what)| {
            let path = path.to_owned();
            JournalError::Strange { path, line, what }
        })?;
        // What was being written goes.
        file.set_len(whole as u64).map_err(unusable)?;
        file.seek(SeekFrom::End(0)).map_err(unusable)?;
        let mut journal = Self {
            file,
            path: path.to_owned(),
            framework: found.framework.clone(),
        };
        if whole == 0 {
            journal.add(&format!("{title}\n"))?;
        }
        Ok((journal, found))
    }

    /// Writes down what has happened.
    pub(super) fn note(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let lines: String = entries.iter().map(line).collect();
        self.add(&lines)
    }

    /// Writes down by which id the master knows the framework.
    pub(super) fn note_framework(&mut self, id: &FrameworkId) -> Result<(), JournalError> {
        if self.framework.as_ref() == Some(id) {
            return Ok(());
        }
        self.framework = Some(id.clone());
        self.add(&format!("framework {id}\n"))
    }

    /// What helps when the master does not take the framework back.
    pub(super) fn remedy(&self) -> String {
        let path = self.path.display();
        format!("its tasks have ended if it was away for too long; to begin anew, remove {path}")
    }

    fn add(&mut self, lines: &str) -> Result<(), JournalError> {
        let written = self.file.write_all(lines.as_bytes());
        written
            .and_then(|()| self.file.sync_data())
            .map_err(|source| JournalError::Unusable {
                path: self.path.clone(),
                source,
            })
    }
}

/// On one line.
fn escaped(command: &str) -> String {
    command.escape_debug().to_string()
}

fn line(entry: &Entry) -> String {
    match entry {
        Entry::Launched(instance, attempt, agent) => {
            format!("launched {instance} {attempt} {agent}\n")
        }
        Entry::Lost(instance) => format!("lost {instance}\n"),
        Entry::Over(instance, true) => format!("finished {instance}\n"),
        Entry::Over(instance, false) => format!("failed {instance}\n"),
    }
}

/// Reads all lines; number and fault of the first that is none.
fn read(text: &str, title: &str) -> Result<Found, (usize, &'static str)> {
    let mut found = Found::default();
    for (number, line) in (1..).zip(text.lines()) {
        if number == 1 {
            if line != title {
                return Err((1, "it tells of another command, or of other instances"));
            }
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        let entry = match words.as_slice() {
            ["framework", id] => {
                found.framework = Some(FrameworkId::new(*id));
                continue;
            }
            ["launched", instance, attempt, agent] => instance
                .parse()
                .ok()
                .zip(attempt.parse().ok())
                .map(|(instance, attempt)| {
                    Entry::Launched(instance, attempt, AgentId::new(*agent))
                }),
            ["lost", instance] => instance.parse().ok().map(Entry::Lost),
            ["finished", instance] => instance.parse().ok().map(|n| Entry::Over(n, true)),
            ["failed", instance] => instance.parse().ok().map(|n| Entry::Over(n, false)),
            _ => None,
        };
        match entry {
            Some(entry) => found.entries.push(entry),
            None => return Err((number, "it says nothing that is known")),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> [Entry; 4] {
        [
            Entry::Launched(1, 2, AgentId::new("m-S0")),
            Entry::Lost(1),
            Entry::Over(2, true),
            Entry::Over(3, false),
        ]
    }

    fn open(path: &Path, instances: u32, command: &str) -> Result<(Journal, Found), JournalError> {
        Journal::open(path, instances, command, || {})
    }

    #[test]
    fn what_is_written_down_is_found_again_without_a_line_that_was_being_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run");
        let (mut journal, found) = open(&path, 3, "a\nb").unwrap();
        assert_eq!(found, Found::default());
        let id = FrameworkId::new("m-0000");
        journal.note_framework(&id).unwrap();
        journal.note_framework(&id).unwrap();
        journal.note(&entries()).unwrap();
        drop(journal);
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}finished 1")).unwrap();
        let (_, found) = open(&path, 3, "a\nb").unwrap();
        let framework = Some(id);
        let entries = entries().to_vec();
        assert_eq!(found, Found { framework, entries });
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
    }

    #[test]
    fn the_file_of_another_run_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run");
        drop(open(&path, 3, "true").unwrap());
        let other = open(&path, 4, "true").unwrap_err().to_string();
        assert!(
            other.contains("line 1: it tells of another command"),
            "{other}"
        );
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}finished x\n")).unwrap();
        let strange = open(&path, 3, "true").unwrap_err().to_string();
        assert!(strange.contains("line 2: it says nothing"), "{strange}");
    }
}
