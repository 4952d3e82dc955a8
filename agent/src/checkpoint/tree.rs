//! The directories below `<work_dir>/meta` that people and their scripts look into: a picture of the records.
//!
//! Drawn by the thread of the checkpoint after each commit, never synced and never read back: what is wrong with it
//! does no harm, and the next run draws it anew. A directory of a run is there as long as its executor's record.
//!
//! ```text
//! <work_dir>/meta/boot_id                                        run of the machine in which the agent started
//! <work_dir>/meta/slaves/<agent id>/frameworks/<framework>/executors/<executor>/runs/<container>/pids/forked.pid
//!                                                                               runs/latest -> <container>
//! ```

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use meseta_protocol::AgentId;
use meseta_protocol::ids::validate_id;
use tracing::warn;

use super::files::{self, remove};
use super::records::{AGENT, ExecutorRecord, Record, executor_key};
use super::{Change, Latest, Loaded};
use crate::paths::{self, LATEST};

/// What was drawn so far. See the module.
pub(super) struct Tree {
    work_dir: PathBuf,
    agent: Option<AgentId>,
    boot_id: String,
    /// Executors by the key of their record.
    executors: HashMap<String, Run>,
    /// Whether what an earlier run of the agent has drawn was replaced.
    is_new: bool,
    /// Whether it was said that something cannot be drawn.
    complained: bool,
}

/// One executor's run.
struct Run {
    record: ExecutorRecord,
    is_drawn: bool,
}

impl Tree {
    /// Of what was found; draws nothing yet.
    pub(super) fn new(work_dir: &Path, loaded: &Loaded) -> Self {
        let agent = match &loaded.latest {
            Latest::Is(id) => Some(id.clone()),
            Latest::Never | Latest::TakenAway => None,
        };
        let mut tree = Self {
            work_dir: work_dir.to_owned(),
            agent,
            boot_id: String::new(),
            executors: HashMap::new(),
            is_new: false,
            complained: false,
        };
        for record in &loaded.records {
            tree.take(record.clone());
        }
        tree
    }

    /// Draws what has been committed.
    pub(super) fn follow<'a>(&mut self, changes: impl IntoIterator<Item = &'a Change>) {
        for change in changes {
            match change {
                Change::Put(key, bytes) => {
                    let is_shown = key == AGENT || key.starts_with(&executor_key(""));
                    if is_shown && let Ok(record) = Record::read(key, bytes) {
                        self.take(record);
                    }
                }
                Change::Delete(key) => {
                    if let Some(run) = self.executors.remove(key) {
                        self.erase(&run.record);
                    }
                }
                // The directories go with the agent's name.
                Change::DeleteBelow(prefix) if prefix.is_empty() => self.executors.clear(),
                Change::DeleteBelow(_) => {}
                Change::Name(agent) => self.agent.clone_from(agent),
            }
        }
        if let Err(error) = self.draw()
            && !std::mem::replace(&mut self.complained, true)
        {
            let meta = files::meta(&self.work_dir);
            warn!(meta = %meta.display(), %error, "the directories that show executors are not up to date");
        }
    }

    fn take(&mut self, record: Record) {
        match record {
            Record::Agent(agent) if agent.boot_id != self.boot_id => {
                self.boot_id = agent.boot_id;
                let file = files::meta(&self.work_dir).join("boot_id");
                // Of no use but to be looked at.
                let _drawn = fs::write(file, &self.boot_id);
            }
            Record::Executor(record) => {
                let key = executor_key(&record.container_id.value);
                let record = *record;
                let is_drawn = false;
                self.executors.insert(key, Run { record, is_drawn });
            }
            Record::Agent(_) | Record::Framework(_) | Record::Task(_) | Record::Update(_) => {}
        }
    }

    /// Draws what is not drawn yet, once the agent has a name.
    fn draw(&mut self) -> io::Result<()> {
        let Some(agent) = &self.agent else {
            return Ok(());
        };
        if !self.is_new {
            clear(&files::slaves(&self.work_dir), agent)?;
            self.is_new = true;
        }
        for run in self.executors.values_mut().filter(|run| !run.is_drawn) {
            run.is_drawn = true;
            if let Some(path) = path_of(&self.work_dir, agent, &run.record) {
                draw_run(&path, &run.record)?;
            }
        }
        Ok(())
    }

    /// Takes a run away, and the directories above it that are empty by that.
    fn erase(&self, record: &ExecutorRecord) {
        let agent = self.agent.as_ref();
        let Some(path) = agent.and_then(|agent| path_of(&self.work_dir, agent, record)) else {
            return;
        };
        // What stays is taken away by the next run of the agent.
        let _gone = fs::remove_dir_all(&path);
        let Some(runs) = path.parent() else {
            return;
        };
        let link = runs.join(LATEST);
        if fs::read_link(&link).is_ok_and(|latest| !runs.join(latest).exists()) {
            let _gone = remove(&link);
        }
        // runs, the executor, executors, the framework, frameworks
        for directory in runs.ancestors().take(5) {
            if fs::remove_dir(directory).is_err() {
                return;
            }
        }
    }
}

/// Takes away what earlier runs of the agent, and other agents in this work directory, have drawn.
fn clear(slaves: &Path, agent: &AgentId) -> io::Result<()> {
    let entries = match fs::read_dir(slaves) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let stale = if entry.file_name() == agent.as_str() {
            entry.path().join("frameworks")
        } else {
            entry.path()
        };
        match fs::remove_dir_all(&stale) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Directory of a run; none when an id cannot be a directory's name.
fn path_of(work_dir: &Path, agent: &AgentId, record: &ExecutorRecord) -> Option<PathBuf> {
    let meta = files::meta(work_dir);
    let (framework, executor) = (&record.framework_id, &record.info.executor_id);
    paths::sandbox(&meta, agent, framework, executor, &record.container_id).ok()
}

fn draw_run(path: &Path, record: &ExecutorRecord) -> io::Result<()> {
    let pids = path.join("pids");
    fs::create_dir_all(&pids)?;
    if let Some(known) = record.process {
        fs::write(pids.join("forked.pid"), known.process.to_string())?;
    }
    let container = &record.container_id.value;
    let Some(link) = path.parent().map(|runs| runs.join(LATEST)) else {
        return Ok(());
    };
    if validate_id(container).is_err()
        || fs::read_link(&link).is_ok_and(|latest| latest == Path::new(container))
    {
        return Ok(());
    }
    remove(&link)?;
    symlink(container, &link)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::records::{AgentRecord, ProcessRecord};
    use meseta_protocol::ContainerId;
    use meseta_protocol::executor::ExecutorInfo;

    fn put(record: Record) -> Change {
        Change::put(&record).unwrap()
    }

    fn executor(framework: &str, id: &str, container: &str, process: Option<u32>) -> Change {
        let record = ExecutorRecord {
            framework_id: framework.into(),
            info: ExecutorInfo {
                executor_id: id.into(),
                ..ExecutorInfo::default()
            },
            container_id: ContainerId::top(container),
            process: process.map(|process| ProcessRecord {
                process,
                started: 1,
            }),
            ..ExecutorRecord::default()
        };
        put(Record::Executor(Box::new(record)))
    }

    fn all_below(directory: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut to_see = vec![directory.to_owned()];
        while let Some(path) = to_see.pop() {
            for entry in fs::read_dir(path).unwrap() {
                let entry = entry.unwrap();
                let shown = entry.path().strip_prefix(directory).unwrap().to_owned();
                if entry.file_type().unwrap().is_dir() {
                    to_see.push(entry.path());
                } else if let Ok(target) = fs::read_link(entry.path()) {
                    found.push(format!("{} -> {}", shown.display(), target.display()));
                } else {
                    let text = fs::read_to_string(entry.path()).unwrap();
                    found.push(format!("{}: {text}", shown.display()));
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn executors_are_shown_where_people_look_for_them_as_long_as_they_are_written_down() {
        let work_dir = tempfile::tempdir().unwrap();
        let meta = files::meta(work_dir.path());
        fs::create_dir_all(meta.join("slaves/S0/frameworks/old/executors")).unwrap();
        fs::create_dir_all(meta.join("slaves/S9/frameworks")).unwrap();
        let mut tree = Tree::new(work_dir.path(), &Loaded::default());
        tree.follow(&[executor("f", "e", "c1", Some(7))]);
        assert!(meta.join("slaves/S9").exists(), "nobody has a name yet");
        let agent = AgentRecord {
            boot_id: "b".to_owned(),
            ..AgentRecord::default()
        };
        tree.follow(&[
            put(Record::Agent(Box::new(agent))),
            Change::Name(Some("S0".into())),
            executor("f", "e", "c2", None),
        ]);
        tree.follow(&[executor("f", "e", "c2", Some(8))]);
        let runs = "slaves/S0/frameworks/f/executors/e/runs";
        assert_eq!(
            all_below(&meta),
            [
                "boot_id: b".to_owned(),
                format!("{runs}/c1/pids/forked.pid: 7"),
                format!("{runs}/c2/pids/forked.pid: 8"),
                format!("{runs}/latest -> c2"),
            ]
        );
        assert!(!meta.join("slaves/S9").exists());
        assert!(!meta.join("slaves/S0/frameworks/old").exists());
        tree.follow(&[Change::Delete(executor_key("c1"))]);
        assert_eq!(all_below(&meta).len(), 3);
        tree.follow(&[Change::Delete(executor_key("c2"))]);
        assert_eq!(all_below(&meta), ["boot_id: b"]);
        assert!(meta.join("slaves/S0").exists());
        assert!(!meta.join("slaves/S0/frameworks").exists());
    }

    #[test]
    fn an_id_that_is_no_name_is_not_drawn() {
        let work_dir = tempfile::tempdir().unwrap();
        let mut tree = Tree::new(work_dir.path(), &Loaded::default());
        let out = executor("../../..", "e", "c", Some(1));
        tree.follow(&[Change::Name(Some("S0".into())), out]);
        assert_eq!(fs::read_dir(work_dir.path()).unwrap().count(), 0);
    }
}
