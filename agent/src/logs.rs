//! Standard output and error of executors and tasks: rotated where they lie, so that no task fills the disk with them.
//!
//! A sandbox has `stdout` and `stderr`, to which everything in the container appends. When one is longer than its limit, its
//! beginning becomes `stdout.1`, what was there `stdout.2`, and so on; the oldest goes. The file itself stays the same,
//! because those who write hold it open, also over an agent's restart. Where the file system can take the beginning out of a
//! file nothing is lost. Elsewhere the file is emptied after the copy, and what is written in just that moment is lost. Of a
//! file that has grown to more than twice its limit only the newest part is kept, so `max_size × (2 × kept + 1)` and what is
//! written between two looks is the most that a sandbox's log takes up.
//!
//! The files belong to the task, which may have put anything in their place: links are not followed, and what is no plain
//! file, or is one that has another name too, stays as it is. Blocks; runs on threads of operators.
//! Why it is so: docs/decisions/0031.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use meseta_runtime::{NodeBuilder, Op};
use nix::fcntl::{FallocateFlags, OFlag, OpenHow, ResolveFlag, fallocate, openat2};
use nix::sys::statvfs::fstatvfs;

use crate::gc::is_sandbox;

/// Time between two looks at the logs of what runs.
pub const LOOK: Duration = Duration::from_secs(5);

/// How long logs may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of `stdout`; 0 for no limit.
    pub max_stdout_size: u64,
    /// Bytes of `stderr`; 0 for no limit.
    pub max_stderr_size: u64,
    /// Older parts that are kept of each.
    pub kept: u32,
}

/// Rotates the logs that are too long; the outcome says what could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotateLogs {
    /// Directory of all agents' sandboxes.
    pub agents: PathBuf,
    /// In which sandboxes.
    pub sandboxes: Vec<PathBuf>,
    /// From which length on.
    pub limits: Limits,
}

impl Op for RotateLogs {
    type Out = Vec<String>;
}

/// Registers what carries this operation out.
pub(crate) fn operators(builder: NodeBuilder) -> NodeBuilder {
    builder.op(|order: RotateLogs| async move {
        let done = tokio::task::spawn_blocking(move || rotate_all(&order));
        done.await.unwrap_or_else(|error| vec![error.to_string()])
    })
}

fn rotate_all(order: &RotateLogs) -> Vec<String> {
    let mut complaints = Vec::new();
    let limits = order.limits;
    for sandbox in &order.sandboxes {
        for (name, limit) in [
            ("stdout", limits.max_stdout_size),
            ("stderr", limits.max_stderr_size),
        ] {
            if limit == 0 {
                continue;
            }
            if let Err(error) = rotate_in(&order.agents, sandbox, name, limit, limits.kept) {
                complaints.push(format!("{}/{name}: {error}", sandbox.display()));
            }
        }
    }
    complaints
}

fn rotate_in(agents: &Path, sandbox: &Path, name: &str, limit: u64, kept: u32) -> io::Result<()> {
    if !is_sandbox(agents, sandbox) {
        return Err(io::Error::other("is in no sandbox of this agent"));
    }
    let rest = sandbox.strip_prefix(agents).unwrap_or(sandbox);
    let root = File::open(agents)?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let directory = match openat2(&root, rest, how) {
        // The sandbox is not made yet, or gone already.
        Err(nix::errno::Errno::ENOENT) => return Ok(()),
        opened => opened?,
    };
    let directory = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    rotate(&directory, name, limit, kept)
}

/// Rotates one log if it is longer than `limit`.
fn rotate(directory: &Path, name: &str, limit: u64, kept: u32) -> io::Result<()> {
    let part = |number: u32| directory.join(format!("{name}.{number}"));
    let mut open = OpenOptions::new();
    open.read(true)
        .write(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
    let log = match open.open(directory.join(name)) {
        Ok(log) => log,
        // A link, a directory, a socket, or nothing at all: not what the agent has put there.
        Err(error) if is_no_file(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let found = log.metadata()?;
    if !found.is_file() || found.nlink() != 1 || length(&found) <= limit {
        return Ok(());
    }
    let block = fstatvfs(&log)?.block_size().max(1);
    // A whole number of blocks, and not all of the file: that is what can be taken out of one.
    let end = (found.len() - 1) / block * block;
    if kept > 0 {
        let new = directory.join(format!(".{name}.rotating"));
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut make = OpenOptions::new();
        make.write(true).create_new(true).mode(0o644);
        let mut copy = make.open(&new)?;
        if let Err(error) = fchown(&copy, Some(found.uid()), Some(found.gid())) {
            tracing::debug!(%error, "a part of a log stays the agent's own");
        }
        let mut source = &log;
        let most = limit.saturating_mul(2);
        source.seek(SeekFrom::Start(end.saturating_sub(most)))?;
        io::copy(&mut source.take(end.min(most)), &mut copy)?;
        for number in (1..kept).rev() {
            match fs::rename(part(number), part(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        fs::rename(&new, part(1))?;
        if end > 0 && take_out(&log, end) {
            return Ok(());
        }
        source.seek(SeekFrom::Start(end))?;
        io::copy(&mut source, &mut copy)?;
    } else if end > 0 && take_out(&log, end) {
        return Ok(());
    }
    log.set_len(0)
}

/// Takes the beginning out of a file; whether the file system can.
fn take_out(log: &File, length: u64) -> bool {
    let Ok(length) = i64::try_from(length) else {
        return false;
    };
    fallocate(log, FallocateFlags::FALLOC_FL_COLLAPSE_RANGE, 0, length).is_ok()
}

/// Bytes that a log takes up. Less than its length, when somebody writes at an offset of an earlier time; its length, where
/// the file system does not say.
fn length(found: &fs::Metadata) -> u64 {
    match found.blocks() {
        0 => found.len(),
        blocks => found.len().min(blocks.saturating_mul(512)),
    }
}

fn is_no_file(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let known = error.raw_os_error().map(Errno::from_raw);
    matches!(
        known,
        Some(Errno::ENOENT | Errno::ELOOP | Errno::EISDIR | Errno::ENXIO)
    )
}

/// The value of `--max_stdout_size` and `--max_stderr_size`: a whole number with B, KB, MB, GB or TB, in steps of 1,024.
///
/// # Errors
/// In words.
pub fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let unit = match text[digits.len()..].trim() {
        "B" => Some(0),
        "KB" => Some(10),
        "MB" => Some(20),
        "GB" => Some(30),
        "TB" => Some(40),
        "" if digits.bytes().all(|digit| digit == b'0') => Some(0),
        _ => None,
    };
    let number: Option<u64> = digits.parse().ok();
    let bytes = number
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(1 << unit));
    bytes.ok_or_else(|| {
        format!("`{text}` is no size: write a whole number with B, KB, MB, GB or TB, such as 10MB, or 0 for no limit")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    fn read(directory: &Path, name: &str) -> String {
        fs::read_to_string(directory.join(name)).unwrap_or_default()
    }

    fn append(directory: &Path) -> File {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        options.open(directory.join("stdout")).unwrap()
    }

    /// Lines that can be told apart, so that one that is lost or doubled shows.
    fn lines(from: u32, to: u32) -> String {
        (from..to).map(|n| format!("line {n:07}\n")).collect()
    }

    #[test]
    fn nothing_is_lost_and_whoever_writes_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let mut writer = append(path);
        for round in 0..5 {
            writer
                .write_all(lines(round * 1_000, (round + 1) * 1_000).as_bytes())
                .unwrap();
            rotate(path, "stdout", 10_000, 9).unwrap();
        }
        writer.write_all(b"end").unwrap();
        let parts = (1..=9).rev().map(|number| format!("stdout.{number}"));
        let all: String = parts
            .chain(["stdout".to_owned()])
            .map(|name| read(path, &name))
            .collect();
        assert_eq!(all, lines(0, 5_000) + "end");
        assert!(read(path, "stdout").len() < 5_000);
        assert!(!path.join(".stdout.rotating").exists());
    }

    #[test]
    fn a_log_within_its_limit_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        append(directory.path()).write_all(&[b'x'; 100]).unwrap();
        rotate(directory.path(), "stdout", 4096, 2).unwrap();
        rotate(directory.path(), "stderr", 4096, 2).unwrap();
        assert_eq!(read(directory.path(), "stdout").len(), 100);
        assert!(!directory.path().join("stdout.1").exists());
    }

    #[test]
    fn no_more_than_its_parts_is_kept_and_of_each_the_newest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for kept in [0, 2] {
            for _ in 0..4 {
                append(path).write_all(lines(0, 10_000).as_bytes()).unwrap();
                rotate(path, "stdout", 20_000, kept).unwrap();
            }
            let total: u64 = fs::read_dir(path)
                .unwrap()
                .map(|entry| entry.unwrap().metadata().unwrap().len())
                .sum();
            // Each part and what is left in the file, which is less than a block of any file system.
            assert!(total <= 40_000 * u64::from(kept) + 140_000, "{total}");
            assert_eq!(path.join("stdout.2").exists(), kept == 2);
            assert!(!path.join("stdout.3").exists());
        }
        let newest = read(path, "stdout.1") + &read(path, "stdout");
        assert!(newest.ends_with("line 0009999\n"));
    }

    #[test]
    fn what_a_task_has_put_there_instead_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let precious = path.join("precious");
        fs::write(&precious, vec![b'x'; 50_000]).unwrap();
        symlink(&precious, path.join("stdout")).unwrap();
        rotate(path, "stdout", 10, 3).unwrap();
        fs::remove_file(path.join("stdout")).unwrap();
        fs::hard_link(&precious, path.join("stdout")).unwrap();
        rotate(path, "stdout", 10, 3).unwrap();
        assert_eq!(fs::metadata(&precious).unwrap().len(), 50_000);
        fs::remove_file(path.join("stdout")).unwrap();
        fs::create_dir(path.join("stdout")).unwrap();
        rotate(path, "stdout", 10, 3).unwrap();
        // A link in place of a part is replaced, and what it points to stays.
        fs::remove_dir(path.join("stdout")).unwrap();
        symlink(&precious, path.join("stdout.1")).unwrap();
        append(path).write_all(&[b'y'; 50_000]).unwrap();
        rotate(path, "stdout", 10, 1).unwrap();
        assert_eq!(fs::read(&precious).unwrap(), vec![b'x'; 50_000]);
        assert!(
            fs::symlink_metadata(path.join("stdout.1"))
                .unwrap()
                .is_file()
        );
        let agents = path.join("slaves");
        assert!(rotate_in(&agents, path, "stdout", 10, 1).is_err());
    }

    #[test]
    fn sizes_are_read() {
        for (text, size) in [
            ("0", 0),
            ("7B", 7),
            ("10MB", 10 << 20),
            (" 1 GB ", 1 << 30),
            ("3KB", 3 << 10),
        ] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for bad in ["", "10", "MB", "-1MB", "1.5GB", "10mb", "99999999999TB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
