//! The socket's place in the file system: made by the host, found by its guests.
//!
//! A path in a Unix socket address has room for 107 bytes, and the directories above an agent's may be closed to the
//! users of its tasks. So the directory is opened once and the socket reached through that descriptor, as
//! `/proc/self/fd/<number>/<name>`: the path may have any length, and a guest that was handed the descriptor needs no
//! right on the directories above. Needs `/proc`.
//!
//! Invariant: of a socket file that was made here, none is left when its [`Listening`] is dropped; one that a killed
//! program has left is removed by the next, and one that somebody listens on is never touched.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::OFlag;
use tracing::debug;

use super::UnixError;

/// Most bytes of a path in a socket address: 108 with the byte that ends it.
const MAX_ADDRESS: usize = 107;

/// Who may reach a host's socket. Whoever may must still show a token, and be the right user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Only processes of the host's own user: directory 0700, socket 0600.
    OwnUser,
    /// Any user of this machine that finds the directory: directory 0711, socket 0666.
    AnyUser,
}

/// Where a host listens for guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestSocket {
    /// The socket's path. Its directory is made when missing, and belongs to the socket alone.
    pub path: PathBuf,
    /// Who may reach it.
    pub reach: Reach,
}

/// Where a guest finds its host.
#[derive(Debug, Clone)]
pub struct HostSocket {
    directory: Arc<File>,
    name: OsString,
    host_uid: u32,
}

impl HostSocket {
    /// The socket at `path`, on which a process of the user `host_uid` listens. Only the directory must exist yet.
    ///
    /// # Errors
    /// [`UnixError::Path`] when the directory cannot be opened or the path has no last part.
    pub fn at(path: &Path, host_uid: u32) -> Result<Self, UnixError> {
        let (directory, name) = split(path)?;
        Self::new(directory, name, host_uid, path)
    }

    /// The socket `name` in the directory that the inherited descriptor `number` stands for. The descriptor may be
    /// closed afterwards.
    ///
    /// # Errors
    /// [`UnixError::Path`] when it stands for no directory.
    pub fn inherited(number: i32, name: &OsStr, host_uid: u32) -> Result<Self, UnixError> {
        let directory = PathBuf::from(format!("/proc/self/fd/{number}"));
        Self::new(&directory, name, host_uid, &directory.join(name))
    }

    fn new(directory: &Path, name: &OsStr, host_uid: u32, path: &Path) -> Result<Self, UnixError> {
        let directory = open_directory(directory).map_err(|source| refused(path, source))?;
        let socket = Self {
            directory: Arc::new(directory),
            name: name.to_owned(),
            host_uid,
        };
        check_length(&socket.address(), path)?;
        Ok(socket)
    }

    /// User that must be listening there.
    pub(super) fn host_uid(&self) -> u32 {
        self.host_uid
    }

    /// The path to connect to, short enough for a socket address.
    pub(super) fn address(&self) -> PathBuf {
        through(&self.directory, &self.name)
    }
}

/// A socket that is listened on. Its file goes when this is dropped.
#[derive(Debug)]
pub struct Listening {
    listener: UnixListener,
    directory: File,
    name: OsString,
    path: PathBuf,
}

impl GuestSocket {
    /// Makes the directory and the socket. Blocks for as long as the file system does.
    ///
    /// # Errors
    /// [`UnixError::InUse`] when somebody listens there, [`UnixError::Path`] when it cannot be made.
    pub fn listen(&self) -> Result<Listening, UnixError> {
        let path = &self.path;
        let failed = |source| refused(path, source);
        let (directory, name) = split(path)?;
        let (directory_mode, socket_mode) = match self.reach {
            Reach::OwnUser => (0o700, 0o600),
            Reach::AnyUser => (0o711, 0o666),
        };
        if let Some(parent) = directory.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        match DirBuilder::new().mode(directory_mode).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            Ok(()) | Err(_) => {}
        }
        // It may have been there with other rights, and the process's mask may have taken some away.
        fs::set_permissions(directory, Permissions::from_mode(directory_mode)).map_err(failed)?;
        let directory = open_directory(directory).map_err(failed)?;
        let address = through(&directory, name);
        check_length(&address, path)?;
        clear(&address, path)?;
        let listener = UnixListener::bind(&address).map_err(failed)?;
        let listening = Listening {
            listener,
            directory,
            name: name.to_owned(),
            path: path.clone(),
        };
        fs::set_permissions(&address, Permissions::from_mode(socket_mode)).map_err(failed)?;
        listening.listener.set_nonblocking(true).map_err(failed)?;
        Ok(listening)
    }
}

impl Listening {
    /// A descriptor of the listening socket for the network thread.
    pub(super) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(through(&self.directory, &self.name)) {
            debug!(path = %self.path.display(), %error, "socket was removed by somebody else");
        }
    }
}

fn refused(path: &Path, source: io::Error) -> UnixError {
    UnixError::Path {
        path: path.to_owned(),
        source,
    }
}

fn split(path: &Path) -> Result<(&Path, &OsStr), UnixError> {
    match (path.parent(), path.file_name()) {
        (Some(directory), Some(name)) if !directory.as_os_str().is_empty() => Ok((directory, name)),
        (Some(_) | None, Some(name)) => Ok((Path::new("."), name)),
        (_, None) => Err(refused(path, io::ErrorKind::InvalidInput.into())),
    }
}

fn open_directory(path: &Path) -> io::Result<File> {
    let directory = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_PATH.bits())
        .open(path)?;
    if directory.metadata()?.is_dir() {
        Ok(directory)
    } else {
        Err(io::ErrorKind::NotADirectory.into())
    }
}

fn through(directory: &File, name: &OsStr) -> PathBuf {
    Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name)
}

/// Only a long last part can make it too long.
fn check_length(address: &Path, path: &Path) -> Result<(), UnixError> {
    let length = address.as_os_str().len();
    if length <= MAX_ADDRESS {
        Ok(())
    } else {
        Err(UnixError::TooLong {
            path: path.to_owned(),
            over: length - MAX_ADDRESS,
        })
    }
}

/// Removes a socket that nobody listens on any more.
fn clear(address: &Path, path: &Path) -> Result<(), UnixError> {
    match fs::symlink_metadata(address) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(path, error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(refused(path, io::ErrorKind::AlreadyExists.into()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            debug!(path = %path.display(), "socket of an earlier run removed");
            fs::remove_file(address).map_err(|error| refused(path, error))
        }
        Ok(_) => Err(UnixError::InUse(path.to_owned())),
        Err(error) => Err(refused(path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(path: &Path) -> GuestSocket {
        GuestSocket {
            path: path.to_owned(),
            reach: Reach::OwnUser,
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_path_of_any_length_will_do_but_not_a_name_of_any_length() {
        let top = tempfile::tempdir().unwrap();
        let deep = top.path().join("d".repeat(100)).join("e".repeat(100));
        let path = deep.join("guests");
        let listening = socket(&path).listen().unwrap();
        let found = HostSocket::at(&path, 0).unwrap();
        UnixStream::connect(found.address()).unwrap();
        drop(listening);
        assert!(!path.exists() && deep.exists());
        let long = socket(&deep.join("n".repeat(120))).listen().unwrap_err();
        assert!(
            matches!(long, UnixError::TooLong { over, .. } if over > 0),
            "{long}"
        );
    }

    #[test]
    fn the_reach_decides_about_the_rights() {
        let top = tempfile::tempdir().unwrap();
        for (reach, directory, file) in [
            (Reach::OwnUser, 0o700, 0o600),
            (Reach::AnyUser, 0o711, 0o666),
        ] {
            let path = top.path().join("run/guests");
            let listening = GuestSocket {
                path: path.clone(),
                reach,
            };
            let _listening = listening.listen().unwrap();
            assert_eq!(
                (mode(path.parent().unwrap()), mode(&path)),
                (directory, file)
            );
        }
    }

    #[test]
    fn what_a_killed_program_left_is_removed_and_what_is_in_use_is_not() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("guests");
        // Closed without its file being removed, as a killed program leaves it.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _first = socket(&path).listen().unwrap();
        let second = socket(&path).listen().unwrap_err();
        assert!(matches!(second, UnixError::InUse(_)), "{second}");
        UnixStream::connect(&path).unwrap();
        let file = top.path().join("file");
        fs::write(&file, "kept").unwrap();
        assert!(matches!(
            socket(&file).listen(),
            Err(UnixError::Path { .. })
        ));
        assert_eq!(fs::read(&file).unwrap(), b"kept");
    }
}
