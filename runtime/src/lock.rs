//! A lock on a directory that one program has to itself, such as a work directory.
//!
//! The lock is the system's, on a file `.lock` in the directory, so it goes with the process however that ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// A directory that this program has to itself until this is dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

/// Why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another program has it.
    #[error("{path} is in use by {owner}: end that or give another directory", path = path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other program, as far as it is known.
        owner: String,
    },
    /// The system refused.
    #[error("{path} cannot be locked: check its permissions and free space, or give another directory", path = path.display())]
    Refused {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

impl DirectoryLock {
    /// Takes the lock; the directory is made when missing.
    ///
    /// # Errors
    /// [`LockError`], at once when another program has the directory.
    pub fn take(directory: &Path) -> Result<Self, LockError> {
        let refused = |source| LockError::Refused {
            path: directory.to_owned(),
            source,
        };
        std::fs::create_dir_all(directory).map_err(refused)?;
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(directory.join(".lock"))
            .map_err(refused)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                if file.read_to_string(&mut owner).is_err() || owner.is_empty() {
                    owner = "another program".to_owned();
                }
                return Err(LockError::InUse {
                    path: directory.to_owned(),
                    owner,
                });
            }
            Err(TryLockError::Error(source)) => return Err(refused(source)),
        }
        file.set_len(0).map_err(refused)?;
        file.rewind().map_err(refused)?;
        write!(file, "process {}", std::process::id()).map_err(refused)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_one_program_s_until_the_lock_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::take(dir.path()).unwrap();
        let error = DirectoryLock::take(dir.path()).unwrap_err().to_string();
        let me = format!("is in use by process {}:", std::process::id());
        assert!(error.contains(&me), "{error}");
        drop(lock);
        DirectoryLock::take(dir.path()).unwrap();
    }
}
