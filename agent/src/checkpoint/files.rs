//! The files below `<work_dir>/meta`: how they are looked at without being opened, and the links.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};

use meseta_protocol::AgentId;
use meseta_protocol::ids::validate_id;
use meseta_runtime::pages;

use super::{CheckpointError, Fault, Latest, Loaded};
use crate::paths::LATEST;

/// Directory of the checkpoint.
pub fn meta(work_dir: &Path) -> PathBuf {
    work_dir.join("meta")
}

/// The file with the records.
pub(super) fn table(work_dir: &Path) -> PathBuf {
    meta(work_dir).join("agent.mdb")
}

pub(super) fn slaves(work_dir: &Path) -> PathBuf {
    meta(work_dir).join("slaves")
}

/// Reads the checkpoint of the agent with this work directory and changes nothing.
///
/// # Errors
/// [`CheckpointError`] when it cannot be read at all, or a later version has made it.
pub fn look(work_dir: &Path) -> Result<Loaded, CheckpointError> {
    let path = table(work_dir);
    let latest = latest(work_dir)?;
    let mut loaded = Loaded {
        latest,
        file: path.clone(),
        ..Loaded::default()
    };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if matches!(loaded.latest, Latest::Is(_)) {
                loaded.faults.push(Fault {
                    file: path,
                    what: "it is missing".to_owned(),
                });
            }
            return Ok(loaded);
        }
        Err(error) => return Err(CheckpointError::unusable(&path, &error)),
    };
    // A file that was made and never written is as good as none.
    let length = file
        .metadata()
        .map_err(|error| CheckpointError::unusable(&path, &error))?
        .len();
    if length == 0 && !matches!(loaded.latest, Latest::Is(_)) {
        return Ok(loaded);
    }
    let contents = pages::read(&mut |offset, length| read_at(&file, offset, length));
    let contents = contents.map_err(|error| CheckpointError::unusable(&path, &error))?;
    for (key, record) in contents.entries {
        loaded.take(&key, &record)?;
    }
    let faults = contents.faults.into_iter();
    loaded.faults.extend(faults.map(|what| Fault {
        file: path.clone(),
        what,
    }));
    Ok(loaded)
}

/// What the link says. It was taken away when it is missing beside directories that it may have named.
fn latest(work_dir: &Path) -> Result<Latest, CheckpointError> {
    let slaves = slaves(work_dir);
    let link = slaves.join(LATEST);
    match fs::read_link(&link) {
        Ok(target) => {
            let id = target.file_name().and_then(|name| name.to_str());
            let id = id.filter(|id| validate_id(id).is_ok());
            return Ok(id.map_or(Latest::Never, |id| Latest::Is(AgentId::new(id))));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // Something else has that name: as good as no link.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(Latest::Never),
        Err(error) => return Err(CheckpointError::unusable(&link, &error)),
    }
    match fs::read_dir(&slaves).map(|mut entries| entries.next().is_some()) {
        Ok(true) => Ok(Latest::TakenAway),
        Ok(false) => Ok(Latest::Never),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Latest::Never),
        Err(error) => Err(CheckpointError::unusable(&slaves, &error)),
    }
}

/// Lets the link name an agent, or none. The link comes before the directory: without either the records decide.
pub(super) fn name(work_dir: &Path, agent: Option<&AgentId>) -> io::Result<()> {
    let slaves = slaves(work_dir);
    let link = slaves.join(LATEST);
    let Some(agent) = agent else {
        remove(&link)?;
        return match fs::remove_dir_all(&slaves) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
    };
    validate_id(agent.as_str()).map_err(io::Error::other)?;
    fs::create_dir_all(&slaves)?;
    if !fs::read_link(&link).is_ok_and(|target| target == Path::new(agent.as_str())) {
        let new = slaves.join("latest.part");
        remove(&new)?;
        symlink(agent.as_str(), &new)?;
        fs::rename(&new, &link)?;
        File::open(&slaves)?.sync_all()?;
    }
    fs::create_dir_all(slaves.join(agent.as_str()))
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
