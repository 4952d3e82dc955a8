//! The processes of a container, found by a walk over `/proc`, where there is no freezer.
//!
//! A process belongs to the container when it is the first one, descends from one that belongs, is in a session that
//! the first one leads, or has the container's `MESOS_DIRECTORY` in the environment it was started with. All are
//! stopped until none is new, so that nobody forks meanwhile, and then killed; and again until none is left.
//!
//! Limit: a process that has left its parent (by double fork), its session (by `setsid`) *and* cleared its environment
//! is not found; nor is one of another user whose environment this user may not read. The freezer has no such limit.
//! A process is known by its id and its start time, so that an id used again is not mistaken.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tracing::debug;

use super::Waiting;

/// Looks in a row that must find nothing: one alone can miss a process whose environment is being replaced by `exec`,
/// or that was forked behind the walk's back by a parent that ended at once.
const CLEAN_LOOKS: u32 = 3;

/// One process, told apart from later ones with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// Its id.
    pub process: u32,
    /// When it started, in clock ticks since the machine did.
    pub started: u64,
}

/// What a walk sees of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    identity: Identity,
    parent: u32,
    session: u32,
    /// Ended, but not reaped.
    dead: bool,
}

/// Reads `/proc/<id>/stat`: the name in parentheses may hold anything, so fields are counted from the last one.
fn parse_stat(process: u32, text: &str) -> Option<Seen> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Seen {
        identity: Identity {
            process,
            started: number(19)?,
        },
        parent: u32::try_from(number(1)?).ok()?,
        session: u32::try_from(number(3)?).ok()?,
        dead: matches!(*fields.first()?, "Z" | "X" | "x"),
    })
}

fn see(process: u32) -> Option<Seen> {
    parse_stat(
        process,
        &fs::read_to_string(format!("/proc/{process}/stat")).ok()?,
    )
}

/// The process that has this id now.
pub fn identity(process: u32) -> Option<Identity> {
    see(process).map(|seen| seen.identity)
}

fn walk() -> Result<BTreeMap<u32, Seen>, String> {
    let entries = fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))?;
    Ok(entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|process| Some((process, see(process)?)))
        .collect())
}

/// The sandbox a process was started in, when its environment says so and may be read.
fn sandbox_in_environment(process: u32) -> Option<std::path::PathBuf> {
    let environment = fs::read(format!("/proc/{process}/environ")).ok()?;
    let value = environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(b"MESOS_DIRECTORY="))?;
    Some(std::ffi::OsStr::from_bytes(value).into())
}

/// The first process of those that were started in this sandbox: the one that started first.
pub fn find(sandbox: &Path) -> Option<Identity> {
    let all = walk().ok()?;
    let inside = all.values().filter(|seen| {
        !seen.dead
            && sandbox_in_environment(seen.identity.process).is_some_and(|found| found == sandbox)
    });
    inside
        .map(|seen| seen.identity)
        .min_by_key(|identity| (identity.started, identity.process))
}

/// Kills one process, unless its id is somebody else's by now.
pub fn kill_one(identity: Identity) {
    signal(identity, Signal::SIGKILL);
}

/// The members of a container among `all`: not the dead, not this process.
fn members(
    all: &BTreeMap<u32, Seen>,
    leader: Option<Identity>,
    is_marked: impl Fn(u32) -> bool,
) -> BTreeSet<Identity> {
    // A session's id stays its leader's as long as the session has members. Where the leader is gone and somebody
    // else has its id, the session of that id is somebody else's too.
    let leads = |seen: &Seen| {
        leader.is_some_and(|leader| {
            let current = all.get(&leader.process).map(|seen| seen.identity);
            seen.session == leader.process && current.is_none_or(|current| current == leader)
        })
    };
    let own = std::process::id();
    let mut found: BTreeSet<u32> = all
        .values()
        .filter(|seen| {
            Some(seen.identity) == leader || leads(seen) || is_marked(seen.identity.process)
        })
        .map(|seen| seen.identity.process)
        .collect();
    found.remove(&own);
    loop {
        let descendants: Vec<u32> = all
            .values()
            .filter(|seen| found.contains(&seen.parent) && !found.contains(&seen.identity.process))
            .map(|seen| seen.identity.process)
            .filter(|process| *process != own)
            .collect();
        if descendants.is_empty() {
            break;
        }
        found.extend(descendants);
    }
    all.values()
        .filter(|seen| !seen.dead && found.contains(&seen.identity.process))
        .map(|seen| seen.identity)
        .collect()
}

/// Sends a signal to the process, unless its id is somebody else's by now.
fn signal(identity: Identity, signal: Signal) {
    let same = see(identity.process).is_some_and(|seen| seen.identity == identity);
    let Ok(process) = i32::try_from(identity.process) else {
        return;
    };
    if !same {
        return;
    }
    match kill(Pid::from_raw(process), signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => debug!(process, %signal, %error, "signal not sent"),
    }
}

/// Ends the container's first process and everything that belongs to it. `is_sandbox` says whether a sandbox path
/// found in a process's environment is the container's.
///
/// # Errors
/// What is left when patience is over.
pub fn destroy(
    leader: Option<Identity>,
    is_sandbox: impl Fn(&Path) -> bool,
    wait: &Waiting,
) -> Result<(), String> {
    let look = || -> Result<BTreeSet<Identity>, String> {
        let marked =
            |process| sandbox_in_environment(process).is_some_and(|sandbox| is_sandbox(&sandbox));
        Ok(members(&walk()?, leader, marked))
    };
    let mut clean_looks = 0;
    while clean_looks < CLEAN_LOOKS {
        let mut stopped: BTreeSet<Identity> = BTreeSet::new();
        loop {
            let found = look()?;
            let new: Vec<Identity> = found.difference(&stopped).copied().collect();
            if new.is_empty() {
                break;
            }
            for identity in new {
                signal(identity, Signal::SIGSTOP);
                stopped.insert(identity);
            }
        }
        clean_looks = if stopped.is_empty() {
            clean_looks + 1
        } else {
            0
        };
        for identity in &stopped {
            signal(*identity, Signal::SIGKILL);
        }
        // On its way out a process loses its environment before its life, so each is waited for by name.
        while stopped.iter().any(|identity| is_alive(*identity)) {
            if !wait.a_moment() {
                return Err(format!("processes do not end: {stopped:?}"));
            }
        }
        if clean_looks < CLEAN_LOOKS && !wait.a_moment() {
            return Err("new processes keep appearing".to_owned());
        }
    }
    Ok(())
}

/// Whether this very process runs.
pub fn is_alive(identity: Identity) -> bool {
    see(identity.process).is_some_and(|seen| seen.identity == identity && !seen.dead)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(process: u32, parent: u32, session: u32) -> (u32, Seen) {
        let identity = Identity {
            process,
            started: u64::from(process),
        };
        (
            process,
            Seen {
                identity,
                parent,
                session,
                dead: false,
            },
        )
    }

    fn ids(found: &BTreeSet<Identity>) -> Vec<u32> {
        found.iter().map(|identity| identity.process).collect()
    }

    #[test]
    fn a_stat_line_is_read_whatever_the_program_is_called() {
        let line = "42 (a) b (c) S 7 42 41 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1 2";
        let seen = parse_stat(42, line).unwrap();
        assert_eq!((seen.parent, seen.session, seen.dead), (7, 41, false));
        assert_eq!(
            seen.identity,
            Identity {
                process: 42,
                started: 12345
            }
        );
        assert!(identity(std::process::id()).is_some());
    }

    #[test]
    fn members_are_found_by_descent_session_and_environment() {
        let leader = Identity {
            process: 10,
            started: 10,
        };
        let all: BTreeMap<u32, Seen> = [
            seen(1, 0, 1),
            seen(10, 1, 10),
            seen(11, 10, 10),
            seen(12, 11, 12),
            seen(13, 1, 10),
            seen(14, 1, 14),
            seen(15, 14, 14),
            seen(20, 1, 20),
        ]
        .into();
        let found = members(&all, Some(leader), |process| process == 14);
        assert_eq!(ids(&found), [10, 11, 12, 13, 14, 15]);
    }

    #[test]
    fn an_id_used_again_is_not_mistaken_for_the_leader() {
        let leader = Identity {
            process: 10,
            started: 3,
        };
        let all: BTreeMap<u32, Seen> = [seen(10, 1, 10), seen(11, 10, 10)].into();
        assert!(members(&all, Some(leader), |_| false).is_empty());
        let orphaned: BTreeMap<u32, Seen> = [seen(11, 1, 10)].into();
        assert_eq!(ids(&members(&orphaned, Some(leader), |_| false)), [11]);
    }
}
