//! The processes of a container, held together by a control group of the freezer hierarchy (cgroup v1).
//!
//! ```text
//! <hierarchy>/meseta-<hash of the work directory>/<container>/     the launcher enters it before the executor
//! ```
//!
//! A process cannot leave its group without root's help, whatever parents, sessions and environments it gives up, and
//! a frozen one cannot fork; so: freeze, kill all, thaw, and again until the group is empty. A task that runs as root
//! can move itself elsewhere: that is not guarded against.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tracing::warn;

use super::Waiting;
use super::process_tree::{self, Identity};

/// The part of the hierarchy that belongs to the agent with this work directory.
pub fn own(hierarchy: &Path, work_dir: &Path) -> PathBuf {
    // FNV-1a with 64 bits: agents of one machine must differ, nobody attacks the name.
    let hash = work_dir
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    hierarchy.join(format!("meseta-{hash:016x}"))
}

/// Makes a control group, or finds it.
///
/// # Errors
/// When it cannot be made or is none of the freezer's.
pub fn prepare(group: &Path) -> Result<(), String> {
    let text = |error: std::io::Error| format!("{}: {error}", group.display());
    // With those above it, should somebody have cleaned up.
    fs::create_dir_all(group).map_err(text)?;
    if group.join("freezer.state").exists() {
        return Ok(());
    }
    fs::remove_dir(group).map_err(text)?;
    Err(format!("{} is in no freezer hierarchy", group.display()))
}

/// Ends all processes of a group and of groups below it, and removes it. Nothing to do when there is none.
///
/// # Errors
/// What is left when patience is over.
pub fn destroy(group: &Path, wait: &Waiting) -> Result<(), String> {
    if !group.exists() {
        return Ok(());
    }
    loop {
        let groups = deepest_first(group);
        empty(group, &groups, wait)?;
        if remove(&groups)? {
            return Ok(());
        }
        // Somebody has just entered, or the last process is on its way out of the kernel.
        if !wait.a_moment() {
            return Err(format!("{} stays in use", group.display()));
        }
    }
}

/// Ends all processes of these groups, the last of which is above the others.
fn empty(group: &Path, groups: &[PathBuf], wait: &Waiting) -> Result<(), String> {
    loop {
        let left = processes(groups)?;
        if left.is_empty() {
            return Ok(());
        }
        freeze(group, wait)?;
        let frozen = processes(groups)?;
        let named: Vec<Identity> = frozen
            .iter()
            .filter_map(|process| process_tree::identity(u32::try_from(*process).ok()?))
            .collect();
        for process in frozen {
            match kill(Pid::from_raw(process), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => warn!(process, %error, "a frozen process cannot be killed"),
            }
        }
        set(group, "THAWED")?;
        // The dying leave the group by themselves, a little before they are dead; who forked between two looks is caught by the next round.
        for _ in 0..50 {
            let alive = named
                .iter()
                .any(|identity| process_tree::is_alive(*identity));
            if !alive && processes(groups)?.is_empty() {
                return Ok(());
            }
            if !wait.a_moment() {
                return Err(format!(
                    "processes of {} do not end: {left:?}",
                    group.display()
                ));
            }
        }
    }
}

/// Removes empty groups; `false` when one is in use.
fn remove(groups: &[PathBuf]) -> Result<bool, String> {
    for group in groups {
        match fs::remove_dir(group) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => return Ok(false),
            Err(error) => return Err(format!("{}: {error}", group.display())),
        }
    }
    Ok(true)
}

/// As [`destroy`] for every group directly below `own`, which stays, but for those that are kept.
///
/// # Errors
/// As [`destroy`].
pub fn destroy_below(
    own: &Path,
    is_kept: impl Fn(&str) -> bool,
    wait: &Waiting,
) -> Result<(), String> {
    let name = |group: &&PathBuf| {
        let name = group.file_name().and_then(|name| name.to_str());
        !name.is_some_and(&is_kept)
    };
    children(own)
        .iter()
        .filter(name)
        .try_for_each(|group| destroy(group, wait))
}

fn set(group: &Path, state: &str) -> Result<(), String> {
    let file = group.join("freezer.state");
    fs::write(&file, state).map_err(|error| format!("{}: {error}", file.display()))
}

fn freeze(group: &Path, wait: &Waiting) -> Result<(), String> {
    let file = group.join("freezer.state");
    // A group can stick at FREEZING while one of its processes is in a system call; it is written again then.
    for round in 0.. {
        if round % 25 == 0 {
            set(group, "FROZEN")?;
        }
        let state =
            fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        if state.trim() == "FROZEN" {
            return Ok(());
        }
        if round == 100 || !wait.a_moment() {
            // Killing what is not frozen is still better than waiting: the rounds catch who forks meanwhile.
            warn!(group = %group.display(), "the group does not freeze: its processes are killed as they are");
            return Ok(());
        }
    }
    Ok(())
}

fn children(group: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(group) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn deepest_first(group: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = children(group)
        .iter()
        .flat_map(|child| deepest_first(child))
        .collect();
    all.push(group.to_owned());
    all
}

fn processes(groups: &[PathBuf]) -> Result<Vec<i32>, String> {
    let mut all = Vec::new();
    for group in groups {
        let file = group.join("cgroup.procs");
        match fs::read_to_string(&file) {
            Ok(text) => all.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            // The group vanished between the open and the read.
            Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => {}
            Err(error) => return Err(format!("{}: {error}", file.display())),
        }
    }
    // 0 stands for a process outside of this PID namespace and would mean our own group to `kill`.
    all.retain(|process| *process > 0);
    Ok(all)
}
