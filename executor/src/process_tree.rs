//! Everything below this program: signals to it, and its end.
//!
//! A task's processes may leave their session and process group and outlive their parents. Because this program is
//! the subreaper ([`adopt_orphans`]), whoever loses a parent becomes this program's child; so the tree below it,
//! found by walking `/proc/*/stat`, is the task and nothing but the task.
//!
//! **Limit**: the walk sees a moment. A signal may miss a process born during the walk, which is why [`wait`] walks
//! again and again until nobody is left; a tree that forks faster than it is killed, or a process that became
//! another user's, can hold it up. Agents that run as root use a freezer control group against those.
//!
//! **Who reaps**: only [`wait`], on one thread. It waits for any child without taking its status, and reaps by
//! number, so no orphan's end is taken for the main process's. Nothing else in the program may wait for children
//! meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getpgrp, getpid};
use tracing::warn;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

/// Makes this program the parent of every process below it that loses its own.
///
/// # Errors
/// The system's.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// A process as `/proc` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    pid: i32,
    parent: i32,
    /// Ended, but not yet reaped.
    zombie: bool,
}

/// Reads `pid (name) state parent …`; the name may hold anything, so the last `)` ends it.
fn parse_stat(text: &str) -> Option<Entry> {
    let (head, tail) = text.rsplit_once(')')?;
    let pid = head.split_whitespace().next()?.parse().ok()?;
    let mut fields = tail.split_whitespace();
    let zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    Some(Entry {
        pid,
        parent,
        zombie,
    })
}

/// Those below `root`, parents before children.
fn below(root: i32, all: &[Entry]) -> Vec<Entry> {
    let mut children: BTreeMap<i32, Vec<Entry>> = BTreeMap::new();
    for entry in all {
        children.entry(entry.parent).or_default().push(*entry);
    }
    let mut found = Vec::new();
    let mut next = VecDeque::from([root]);
    while let Some(parent) = next.pop_front() {
        for entry in children.remove(&parent).unwrap_or_default() {
            next.push_back(entry.pid);
            found.push(entry);
        }
    }
    found
}

fn descendants() -> io::Result<Vec<Entry>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let is_process = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()));
        if is_process {
            // A process may end between the listing and the reading; then it needs nothing more.
            all.extend(
                fs::read(path.join("stat"))
                    .ok()
                    .and_then(|text| parse_stat(&String::from_utf8_lossy(&text))),
            );
        }
    }
    Ok(below(getpid().as_raw(), &all))
}

/// Sends a signal to every process below this program, parents first.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn signal(signal: Signal) -> io::Result<()> {
    for entry in descendants()?.iter().filter(|entry| !entry.zombie) {
        match kill(Pid::from_raw(entry.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => warn!(pid = entry.pid, %signal, %error, "signal not sent"),
        }
    }
    Ok(())
}

/// Waits until the child `main` has ended, then ends everything else below this program, and returns how `main`
/// ended. Blocks.
///
/// # Errors
/// The system's; `ECHILD` when `main` is no child of this program.
pub fn wait(main: i32) -> io::Result<Exit> {
    let main = Pid::from_raw(main);
    let exit = loop {
        match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
            Ok(status) if status.pid() == Some(main) => break reap(main)?,
            Ok(status) => {
                if let Some(orphan) = status.pid() {
                    reap(orphan)?;
                }
            }
            Err(Errno::EINTR) => {}
            // A child that was ended by a signal without a name; which one it was is not told.
            Err(Errno::EINVAL) => {
                let zombies: Vec<Entry> = children()?.into_iter().filter(|c| c.zombie).collect();
                if zombies.iter().any(|child| child.pid == main.as_raw()) {
                    break reap(main)?;
                }
                for child in zombies {
                    reap(Pid::from_raw(child.pid))?;
                }
            }
            Err(error) => return Err(error.into()),
        }
    };
    end_all()?;
    Ok(exit)
}

fn reap(pid: Pid) -> io::Result<Exit> {
    loop {
        match waitpid(pid, None) {
            Ok(WaitStatus::Exited(_, status)) => return Ok(Exit::Status(status)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(Exit::Signal(signal as i32)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::EINVAL) => return Ok(Exit::Signal(0)),
            Err(error) => return Err(error.into()),
        }
    }
}

fn children() -> io::Result<Vec<Entry>> {
    let me = getpid().as_raw();
    let mut all = descendants()?;
    all.retain(|entry| entry.parent == me);
    Ok(all)
}

/// Whether this program has a child, ended or not. As it adopts orphans, without one nobody is below it.
fn has_children() -> io::Result<bool> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    match waitid(Id::All, flags) {
        Err(Errno::ECHILD) => Ok(false),
        // EINVAL: a child that was ended by a signal without a name.
        Ok(_) | Err(Errno::EINVAL | Errno::EINTR) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Kills and reaps until nobody is left below this program.
fn end_all() -> io::Result<()> {
    loop {
        // Far cheaper than a walk over all processes of the machine, and most tasks leave nobody.
        if !has_children()? {
            return Ok(());
        }
        // Their parents' end makes the others children of this program, which the next round reaps.
        let left = children()?;
        if left.is_empty() {
            return Ok(());
        }
        signal(Signal::SIGKILL)?;
        for child in left {
            match reap(Pid::from_raw(child.pid)) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(Errno::ECHILD as i32) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Kills everything below this program and then its own process group, if it leads one, else itself, unless the
/// program ends within `delay`. The wait has a thread of its own, since the program may be busy or stuck.
pub fn kill_self_after(delay: Duration) {
    let guard = std::thread::Builder::new()
        .name("shutdown-guard".to_owned())
        .spawn(move || {
            let (keep, never) = std::sync::mpsc::channel::<()>();
            // Times out always: the other end lives until then, and nobody sends.
            let timed_out = never.recv_timeout(delay);
            drop(keep);
            debug_assert!(timed_out.is_err(), "nobody sends");
            warn!(?delay, "the shutdown took too long: everything is killed");
            kill_self();
        });
    if let Err(error) = guard {
        warn!(%error, "no thread to guard the shutdown: the agent has to");
    }
}

fn kill_self() {
    if let Err(error) = signal(Signal::SIGKILL) {
        warn!(%error, "the processes below this one cannot be found");
    }
    let me = getpid();
    let killed = if getpgrp() == me {
        killpg(me, Signal::SIGKILL)
    } else {
        kill(me, Signal::SIGKILL)
    };
    if let Err(error) = killed {
        warn!(%error, "this program cannot kill itself");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn entry(pid: i32, parent: i32) -> Entry {
        Entry {
            pid,
            parent,
            zombie: false,
        }
    }

    #[test]
    fn a_name_may_hold_brackets_and_spaces() {
        assert_eq!(parse_stat("7 (a) (b) S 3 7 7"), Some(entry(7, 3)));
        let zombie = parse_stat("7 (x) Z 3 7 7").unwrap();
        assert!(zombie.zombie);
        for bad in ["", "7", "7 (x)", "x (x) S 1", "7 (x) S"] {
            assert_eq!(parse_stat(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_tree_is_what_hangs_below_its_root_parents_first() {
        let all = [
            entry(9, 5),
            entry(5, 2),
            entry(2, 1),
            entry(3, 1),
            entry(4, 2),
        ];
        let pids: Vec<i32> = below(2, &all).iter().map(|entry| entry.pid).collect();
        assert_eq!(pids, [5, 4, 9]);
        assert_eq!(below(9, &all), []);
    }
}
