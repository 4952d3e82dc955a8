//! How sandboxes are found, measured and removed. Blocks; runs on threads of operators.
//!
//! Tasks own what is in their sandboxes and may have put anything there while they ran. So the way to a sandbox is opened
//! without following a symbolic link, what is removed is removed by descriptor, links themselves go and not what they
//! point to, and a sandbox below which something is mounted stays as it is.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::statvfs::statvfs;
use nix::sys::time::TimeSpec;

use super::is_sandbox;
use crate::paths::LATEST;

/// How deep a sandbox lies below the directory of all agents' sandboxes.
const DEPTH: usize = 7;

/// Share of the file system at `path` that is used.
pub(super) fn usage(path: &Path) -> Result<f64, String> {
    let looked = statvfs(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(share_used(looked.blocks(), looked.blocks_free()))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a share needs no more than its first digits"
)]
fn share_used(blocks: u64, free: u64) -> f64 {
    if blocks == 0 {
        return 0.0;
    }
    1.0 - (free.min(blocks) as f64) / (blocks as f64)
}

/// All sandboxes below `agents`, with the time since each was changed last. What cannot be looked at is left out.
pub(super) fn find(agents: &Path) -> Vec<(PathBuf, Duration)> {
    let mut found = vec![agents.to_owned()];
    for depth in 1..=DEPTH {
        let below = found.iter().flat_map(|directory| directories(directory));
        found = below
            .filter(|path| {
                let name = path.file_name().unwrap_or_default();
                match depth {
                    2 => name == "frameworks",
                    4 => name == "executors",
                    6 => name == "runs",
                    _ => true,
                }
            })
            .collect();
    }
    found
        .into_iter()
        .filter(|path| is_sandbox(agents, path))
        .map(|path| {
            let age = age(&path).unwrap_or_default();
            (path, age)
        })
        .collect()
}

/// Directories in a directory, links to directories not among them.
fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect();
    all.sort();
    all
}

/// Time since a directory was changed; a date in the future counts as now.
fn age(path: &Path) -> io::Result<Duration> {
    let changed = fs::symlink_metadata(path)?.modified()?;
    Ok(changed.elapsed().unwrap_or_default())
}

/// The directory that a sandbox is in, opened without following any link; none when it is not there.
fn opened_parent(agents: &Path, sandbox: &Path) -> Result<Option<(OwnedFd, PathBuf)>, String> {
    let refused = |error: &dyn std::fmt::Display| format!("{}: {error}", sandbox.display());
    if !is_sandbox(agents, sandbox) {
        return Err(refused(&"is no sandbox of this agent"));
    }
    let rest = sandbox.strip_prefix(agents).unwrap_or(sandbox);
    let (Some(parent), Some(name)) = (rest.parent(), rest.file_name()) else {
        return Err(refused(&"has no name"));
    };
    let root = match File::open(agents) {
        Ok(root) => root,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused(&error)),
    };
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(&root, parent, how) {
        Ok(parent) => {
            let path = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd())).join(name);
            Ok(Some((parent, path)))
        }
        Err(nix::errno::Errno::ENOENT) => Ok(None),
        Err(error) => Err(refused(&error)),
    }
}

/// Marks a sandbox as changed now.
pub(super) fn touch(agents: &Path, sandbox: &Path) -> Result<(), String> {
    let Some((parent, _)) = opened_parent(agents, sandbox)? else {
        return Ok(());
    };
    let name = sandbox.file_name().unwrap_or_default();
    let now = TimeSpec::UTIME_NOW;
    match utimensat(&parent, name, &now, &now, UtimensatFlags::NoFollowSymlink) {
        Ok(()) | Err(nix::errno::Errno::ENOENT) => Ok(()),
        Err(error) => Err(format!("{}: {error}", sandbox.display())),
    }
}

/// Removes a sandbox with all that is in it, then the directories above it that are empty by that.
pub(super) fn sandbox(agents: &Path, sandbox: &Path, layout: &Mutex<()>) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", sandbox.display());
    if let Some((parent, path)) = opened_parent(agents, sandbox)? {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|error| failed(&error))?;
        let real = fs::read_link(format!("/proc/self/fd/{}", parent.as_raw_fd()))
            .map_err(|error| failed(&error))?
            .join(sandbox.file_name().unwrap_or_default());
        if let Some(mount) = mount_below(&mounts, &real) {
            let mount = mount.display();
            return Err(failed(&format_args!(
                "{mount} is mounted there: unmount it"
            )));
        }
        match fs::remove_dir_all(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&error)),
        }
    }
    let _alone = layout.lock().unwrap_or_else(PoisonError::into_inner);
    prune(agents, sandbox);
    Ok(())
}

/// Removes what is empty above a sandbox that is gone: the directory of its runs with the link to the latest, its
/// executor's, and so on up to its agent's, unless that is the one of the agent that runs here.
fn prune(agents: &Path, sandbox: &Path) {
    let Some(runs) = sandbox.parent() else {
        return;
    };
    let names: Vec<_> = fs::read_dir(runs).into_iter().flatten().flatten().collect();
    if let [only] = &names[..]
        && only.file_name() == LATEST
        && only.file_type().is_ok_and(|kind| kind.is_symlink())
        && fs::remove_file(only.path()).is_err()
    {
        return;
    }
    let own = fs::read_link(agents.join(LATEST)).map(|latest| agents.join(latest));
    let above = runs.ancestors().take_while(|path| *path != agents);
    for directory in above {
        // The first that is not empty ends it, as does one that somebody else has removed.
        if own.as_ref().is_ok_and(|own| own == directory) || fs::remove_dir(directory).is_err() {
            break;
        }
    }
}

/// A mount at this path or below it, from the text of `/proc/self/mountinfo`.
fn mount_below(mounts: &str, path: &Path) -> Option<PathBuf> {
    mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(unescaped(point)))
        .find(|point| point.starts_with(path))
}

/// A path of that file, in which blanks and the like are written as `\` and three octal digits.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A work directory with one sandbox for each executor named, all with a file in them.
    struct World {
        work_dir: tempfile::TempDir,
        layout: Mutex<()>,
    }

    impl World {
        fn new(executors: &[&str]) -> Self {
            let world = Self {
                work_dir: tempfile::tempdir().unwrap(),
                layout: Mutex::default(),
            };
            for executor in executors {
                let sandbox = world.sandbox(executor);
                fs::create_dir_all(&sandbox).unwrap();
                fs::write(sandbox.join("stdout"), "text").unwrap();
                symlink("c", sandbox.with_file_name(LATEST)).unwrap();
            }
            symlink("a", world.agents().join(LATEST)).unwrap();
            world
        }

        fn agents(&self) -> PathBuf {
            self.work_dir.path().join("slaves")
        }

        fn sandbox(&self, executor: &str) -> PathBuf {
            let runs = format!("a/frameworks/f/executors/{executor}/runs/c");
            self.agents().join(runs)
        }

        fn remove(&self, path: &Path) -> Result<(), String> {
            sandbox(&self.agents(), path, &self.layout)
        }
    }

    #[test]
    fn the_directories_above_go_with_the_last_sandbox_in_them() {
        let world = World::new(&["e", "other"]);
        let found = find(&world.agents());
        let paths: Vec<&PathBuf> = found.iter().map(|(path, _)| path).collect();
        assert_eq!(paths, [&world.sandbox("e"), &world.sandbox("other")]);
        assert_eq!(world.remove(&world.sandbox("e")), Ok(()));
        let frameworks = world.agents().join("a/frameworks");
        let left: Vec<PathBuf> = directories(&frameworks.join("f/executors"));
        assert_eq!(left, [frameworks.join("f/executors/other")]);
        assert_eq!(world.remove(&world.sandbox("other")), Ok(()));
        assert!(!frameworks.exists());
        assert!(world.agents().join("a").exists(), "it is the agent's own");
        assert_eq!(find(&world.agents()), []);
        assert_eq!(world.remove(&world.sandbox("other")), Ok(()), "gone before");
    }

    #[test]
    fn a_run_that_is_still_there_keeps_the_link_to_it() {
        let world = World::new(&["e"]);
        let old = world.sandbox("e").with_file_name("b");
        fs::create_dir_all(&old).unwrap();
        assert_eq!(world.remove(&old), Ok(()));
        assert!(
            world
                .sandbox("e")
                .with_file_name(LATEST)
                .join("stdout")
                .exists()
        );
    }

    #[test]
    fn what_links_point_to_stays() {
        let world = World::new(&["e"]);
        let outside = world.work_dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "").unwrap();
        symlink(&outside, world.sandbox("e").join("way-out")).unwrap();
        assert_eq!(world.remove(&world.sandbox("e")), Ok(()));
        assert!(outside.join("precious").exists());
        // A link in place of the sandbox goes itself, and one on the way to it is not followed.
        let in_place = world.sandbox("in-place");
        fs::create_dir_all(in_place.parent().unwrap()).unwrap();
        symlink(&outside, &in_place).unwrap();
        world.remove(&in_place).unwrap_or_default();
        assert!(outside.join("precious").exists());
        let behind = world.agents().join("a/frameworks/f/executors/link");
        fs::create_dir_all(behind.parent().unwrap()).unwrap();
        fs::create_dir_all(outside.join("runs/c")).unwrap();
        symlink(&outside, &behind).unwrap();
        assert!(world.remove(&behind.join("runs/c")).is_err());
        assert!(outside.join("runs/c").exists());
        for elsewhere in [&outside, &world.agents(), Path::new("/")] {
            assert!(world.remove(elsewhere).is_err());
        }
        assert!(outside.join("precious").exists());
    }

    #[test]
    fn mounts_are_found_by_their_path_and_not_by_how_it_begins() {
        let mounts = "1 2 0:1 / / rw - ext4 d rw\n3 1 0:2 / /w/run\\0401/data rw - tmpfs t rw\n";
        let found = |path: &str| mount_below(mounts, Path::new(path));
        assert_eq!(found("/w/run 1"), Some("/w/run 1/data".into()));
        assert_eq!(found("/w/run 1/data"), Some("/w/run 1/data".into()));
        assert_eq!(found("/w/run"), None);
        assert_eq!(unescaped("a\\134b\\"), "a\\b\\");
    }

    #[test]
    fn a_touched_sandbox_is_young_again() {
        let world = World::new(&["e"]);
        let old = TimeSpec::new(1, 0);
        let path = world.sandbox("e");
        utimensat(
            nix::fcntl::AT_FDCWD,
            &path,
            &old,
            &old,
            UtimensatFlags::NoFollowSymlink,
        )
        .unwrap();
        let year = Duration::from_secs(365 * 24 * 3600);
        assert!(age(&path).unwrap() > year);
        touch(&world.agents(), &path).unwrap();
        assert!(age(&path).unwrap() < year);
        assert_eq!(touch(&world.agents(), &world.sandbox("none")), Ok(()));
    }

    #[test]
    fn the_share_of_a_disk_that_is_used() {
        for (blocks, free, share) in [(0, 0, 0.0), (4, 4, 0.0), (4, 1, 0.75), (4, 9, 0.0)] {
            assert!((share_used(blocks, free) - share).abs() < 1e-9);
        }
        assert!((0.0..=1.0).contains(&usage(Path::new("/")).unwrap()));
    }
}
