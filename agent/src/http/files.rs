//! Files of a sandbox, read without ever leaving it.
//!
//! A path is resolved by the kernel from the sandbox's own directory with `RESOLVE_BENEATH`, so neither `..` nor a
//! link that a task makes at the right moment leads out. A link with an absolute target counts as leading out.

use std::fs::{self, File, Metadata};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use meseta_api::operator::FileInfo;
use meseta_protocol::common::TimeInfo;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::unistd::{Gid, Group, Uid, User};
use serde_json::{Value, json};

/// Most bytes one request reads: 16 pages.
pub const MAX_READ: u64 = 16 * 4096;
/// Longest file that is sent at once: reading it takes some milliseconds of the agent's turn.
pub const MAX_DOWNLOAD: u64 = 8 << 20;
/// Most entries one request lists.
pub const MAX_ENTRIES: usize = 10_000;

/// Why a file is not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileError {
    /// There is none.
    Missing,
    /// The path leads out of the sandbox, or the agent may not open it.
    Inaccessible,
    /// A directory cannot be read.
    Directory,
    /// A directory cannot be downloaded either.
    DirectoryToDownload,
    /// A file that is too long to be sent at once.
    TooLong(u64),
    /// An offset below -1.
    NegativeOffset(i64),
    /// A length below -1.
    NegativeLength(i64),
    /// Reading failed.
    Failed(String),
}

impl FileError {
    /// HTTP status for it.
    pub fn status(&self) -> u16 {
        match self {
            Self::Missing => 404,
            Self::Inaccessible
            | Self::Directory
            | Self::DirectoryToDownload
            | Self::NegativeOffset(_)
            | Self::NegativeLength(_) => 400,
            Self::TooLong(_) => 413,
            Self::Failed(_) => 500,
        }
    }

    /// Text for whoever asked for `path`.
    pub fn text(&self, path: &Path) -> String {
        match self {
            Self::Missing => String::new(),
            Self::Inaccessible => format!("'{}' is inaccessible.\n", path.display()),
            Self::Directory => "Cannot read a directory.\n".to_owned(),
            Self::DirectoryToDownload => "Cannot download a directory.\n".to_owned(),
            Self::TooLong(size) => format!(
                "The file has {size} bytes, and at most {MAX_DOWNLOAD} are sent at once: use /files/read.\n"
            ),
            Self::NegativeOffset(offset) => format!("Negative offset provided: {offset}.\n"),
            Self::NegativeLength(length) => format!("Negative length provided: {length}.\n"),
            Self::Failed(why) => why.clone(),
        }
    }
}

fn failed(error: &std::io::Error) -> FileError {
    FileError::Failed(error.to_string())
}

/// Opens what `rest` means below `root`. Devices and pipes are not waited for.
fn open(root: &Path, rest: &Path) -> Result<(File, Metadata), FileError> {
    let directory = File::open(root).map_err(|_| FileError::Missing)?;
    let rest = if rest.as_os_str().is_empty() {
        Path::new(".")
    } else {
        rest
    };
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let opened: OwnedFd = openat2(&directory, rest, how).map_err(|error| {
        if matches!(error, Errno::ENOENT | Errno::ENOTDIR) {
            FileError::Missing
        } else {
            FileError::Inaccessible
        }
    })?;
    let file = File::from(opened);
    let metadata = file.metadata().map_err(|error| failed(&error))?;
    Ok((file, metadata))
}

/// Opens what can be read, and says how long it is.
fn open_file(root: &Path, rest: &Path) -> Result<(File, u64), FileError> {
    let (file, metadata) = open(root, rest)?;
    if metadata.is_dir() {
        return Err(FileError::Directory);
    }
    if !metadata.is_file() {
        return Err(FileError::Inaccessible);
    }
    Ok((file, metadata.len()))
}

/// How long a file is, and its bytes from `offset` on: at most `length` of them, and at most [`MAX_READ`].
///
/// # Errors
/// [`FileError`].
pub fn read_bytes(
    root: &Path,
    rest: &Path,
    offset: u64,
    length: Option<u64>,
) -> Result<(u64, Vec<u8>), FileError> {
    let (mut file, size) = open_file(root, rest)?;
    let most = length.map_or(MAX_READ, |length| length.min(MAX_READ));
    let mut bytes = Vec::new();
    if offset < size {
        file.seek(SeekFrom::Start(offset))
            .map_err(|error| failed(&error))?;
        file.take(most)
            .read_to_end(&mut bytes)
            .map_err(|error| failed(&error))?;
    }
    Ok((size, bytes))
}

/// A whole file, if it is not longer than [`MAX_DOWNLOAD`].
///
/// # Errors
/// [`FileError`].
pub fn download(root: &Path, rest: &Path) -> Result<Vec<u8>, FileError> {
    let opened = open_file(root, rest);
    if opened
        .as_ref()
        .is_err_and(|error| *error == FileError::Directory)
    {
        return Err(FileError::DirectoryToDownload);
    }
    let (file, size) = opened?;
    if size > MAX_DOWNLOAD {
        return Err(FileError::TooLong(size));
    }
    let mut bytes = Vec::new();
    file.take(MAX_DOWNLOAD)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(&error))?;
    Ok(bytes)
}

/// `{data, offset, size}` of a file; only its size as `offset` when no offset is given or it is -1. `size` is how many
/// bytes of the file `data` stands for: bytes that are no text are shown as U+FFFD, and a character is not cut in two.
///
/// # Errors
/// [`FileError`].
pub fn read(
    root: &Path,
    rest: &Path,
    offset: Option<i64>,
    length: Option<i64>,
) -> Result<Value, FileError> {
    let offset = offset.unwrap_or(-1);
    if offset < -1 {
        return Err(FileError::NegativeOffset(offset));
    }
    if let Some(length) = length.filter(|length| *length < -1) {
        return Err(FileError::NegativeLength(length));
    }
    let Ok(start) = u64::try_from(offset) else {
        let (_, size) = open_file(root, rest)?;
        return Ok(json!({ "data": "", "offset": size }));
    };
    let length = length.and_then(|length| u64::try_from(length).ok());
    let (_, mut bytes) = read_bytes(root, rest, start, length)?;
    let most = length.map_or(MAX_READ, |length| length.min(MAX_READ));
    if bytes.len() as u64 == most {
        bytes.truncate(whole_characters(&bytes));
    }
    Ok(json!({ "data": String::from_utf8_lossy(&bytes), "offset": start, "size": bytes.len() }))
}

/// Length without a last character that is cut off in its middle, so that the next part can begin with it.
fn whole_characters(bytes: &[u8]) -> usize {
    /// Most bytes a character has.
    const LONGEST: usize = 4;
    let tail = bytes.len().saturating_sub(LONGEST);
    (tail..bytes.len())
        .rev()
        .find(|at| {
            std::str::from_utf8(&bytes[*at..]).is_err_and(|error| error.error_len().is_none())
        })
        .filter(|at| *at > 0)
        .unwrap_or(bytes.len())
}

/// The entries of a directory, sorted by path; none for a file. `shown` is how the directory is called outside.
///
/// # Errors
/// [`FileError`].
pub fn list(root: &Path, rest: &Path, shown: &Path) -> Result<Vec<FileInfo>, FileError> {
    let (directory, metadata) = open(root, rest)?;
    if !metadata.is_dir() {
        return Ok(Vec::new());
    }
    // The descriptor that was opened, whatever stands at its path by now.
    let entries = fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd()))
        .map_err(|error| failed(&error))?;
    let mut all: Vec<FileInfo> = entries
        .filter_map(Result::ok)
        .take(MAX_ENTRIES)
        .filter_map(|entry| {
            let path = shown.join(entry.file_name()).display().to_string();
            Some(described(path, &entry.metadata().ok()?))
        })
        .collect();
    all.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(all)
}

/// The same as the first API shows it.
///
/// # Errors
/// [`FileError`].
pub fn browse(root: &Path, rest: &Path, shown: &Path) -> Result<Value, FileError> {
    let all = list(root, rest, shown)?;
    let one = |file: FileInfo| {
        let seconds = file
            .mtime
            .map_or(0, |time| time.nanoseconds / 1_000_000_000);
        #[expect(
            clippy::cast_precision_loss,
            reason = "dates are far below 2^53 seconds"
        )]
        let seconds = seconds as f64;
        json!({
            "gid": file.gid,
            "mode": mode_text(file.mode.unwrap_or_default()),
            "mtime": seconds,
            "nlink": file.nlink,
            "path": file.path,
            "size": file.size,
            "uid": file.uid,
        })
    };
    Ok(all.into_iter().map(one).collect())
}

fn described(path: String, metadata: &Metadata) -> FileInfo {
    let (uid, gid) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
    let user = User::from_uid(uid)
        .ok()
        .flatten()
        .map_or_else(|| uid.to_string(), |user| user.name);
    let group = Group::from_gid(gid)
        .ok()
        .flatten()
        .map_or_else(|| gid.to_string(), |group| group.name);
    let nanoseconds = metadata.mtime().saturating_mul(1_000_000_000);
    FileInfo {
        path,
        nlink: i32::try_from(metadata.nlink()).ok(),
        size: Some(metadata.len()),
        mtime: Some(TimeInfo { nanoseconds }),
        mode: Some(metadata.mode()),
        uid: Some(user),
        gid: Some(group),
    }
}

/// A mode as `ls` shows it.
fn mode_text(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o060_000 => 'b',
        0o020_000 => 'c',
        0o010_000 => 'p',
        0o140_000 => 's',
        _ => '-',
    };
    let bits = (0..9).rev().map(|bit| {
        let letter = ['x', 'w', 'r'][bit % 3];
        if mode & (1 << bit) == 0 { '-' } else { letter }
    });
    std::iter::once(kind).chain(bits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn sandbox() -> tempfile::TempDir {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir_all(outer.path().join("box/sub")).unwrap();
        fs::write(outer.path().join("secret"), "s").unwrap();
        fs::write(outer.path().join("box/stdout"), "hello world").unwrap();
        symlink("../secret", outer.path().join("box/up")).unwrap();
        symlink("/etc/passwd", outer.path().join("box/away")).unwrap();
        symlink("stdout", outer.path().join("box/inside")).unwrap();
        outer
    }

    #[test]
    fn reads_parts_and_sizes() {
        let outer = sandbox();
        let root = outer.path().join("box");
        let get = |rest: &str, offset, length| read(&root, Path::new(rest), offset, length);
        assert_eq!(
            get("stdout", None, None),
            Ok(json!({"data": "", "offset": 11}))
        );
        assert_eq!(
            get("stdout", Some(6), None),
            Ok(json!({"data": "world", "offset": 6, "size": 5}))
        );
        assert_eq!(
            get("inside", Some(0), Some(5)),
            Ok(json!({"data": "hello", "offset": 0, "size": 5}))
        );
        assert_eq!(
            get("stdout", Some(99), Some(-1)),
            Ok(json!({"data": "", "offset": 99, "size": 0}))
        );
        assert_eq!(
            get("stdout", Some(-2), None),
            Err(FileError::NegativeOffset(-2))
        );
        fs::write(root.join("umlaut"), "a\u{e4}b").unwrap();
        assert_eq!(
            get("umlaut", Some(0), Some(2)),
            Ok(json!({"data": "a", "offset": 0, "size": 1}))
        );
        assert_eq!(
            get("stdout", Some(0), Some(-2)),
            Err(FileError::NegativeLength(-2))
        );
        assert_eq!(
            read_bytes(&root, Path::new("stdout"), 6, Some(2)),
            Ok((11, b"wo".to_vec()))
        );
        assert_eq!(
            read_bytes(&root, Path::new("stdout"), 99, None),
            Ok((11, Vec::new()))
        );
        let whole = |rest: &str| download(&root, Path::new(rest));
        assert_eq!(whole("stdout"), Ok(b"hello world".to_vec()));
        assert_eq!(whole("sub"), Err(FileError::DirectoryToDownload));
        let long = File::create(root.join("long")).unwrap();
        long.set_len(MAX_DOWNLOAD + 1).unwrap();
        assert_eq!(whole("long"), Err(FileError::TooLong(MAX_DOWNLOAD + 1)));
        assert_eq!(get("sub", Some(0), None), Err(FileError::Directory));
        assert_eq!(get("none", Some(0), None), Err(FileError::Missing));
    }

    #[test]
    fn never_leaves_the_sandbox() {
        let outer = sandbox();
        let root = outer.path().join("box");
        for rest in ["../secret", "sub/../../secret", "up", "away"] {
            assert_eq!(
                read(&root, Path::new(rest), Some(0), None),
                Err(FileError::Inaccessible),
                "{rest}"
            );
        }
        assert_eq!(
            browse(&root, Path::new(".."), Path::new("/x")),
            Err(FileError::Inaccessible)
        );
    }

    #[test]
    fn lists_what_is_there() {
        let outer = sandbox();
        let root = outer.path().join("box");
        let listed = browse(&root, Path::new(""), Path::new("/shown")).unwrap();
        let paths: Vec<&str> = listed
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["path"].as_str().unwrap())
            .collect();
        assert_eq!(
            paths,
            [
                "/shown/away",
                "/shown/inside",
                "/shown/stdout",
                "/shown/sub",
                "/shown/up"
            ]
        );
        assert_eq!(listed[2]["size"], 11);
        assert_eq!(
            browse(&root, Path::new("stdout"), Path::new("/x")),
            Ok(json!([]))
        );
        assert_eq!(
            (mode_text(0o100_644), mode_text(0o040_750)),
            ("-rw-r--r--".into(), "drwxr-x---".into())
        );
    }
}
