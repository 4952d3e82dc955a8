//! Garbage collection of sandboxes: what is left of ended executors is removed when it is old enough, and the sooner the
//! fuller the disk is.
//!
//! When what goes is decided by [`schedule`] (pure), what an agent does about it is in `handlers/gc.rs`, and how files go is
//! [`remove`]. Only whole sandboxes are scheduled. Their names are used once, so a sandbox that goes never becomes
//! that of an executor that comes; the directories above it go with the last sandbox in them. Source: agent.md §10.

pub mod remove;
pub mod schedule;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use meseta_runtime::{NodeBuilder, Op};

pub use schedule::{Policy, Schedule};

/// Settings of garbage collection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// How old a sandbox may get, and how that depends on the disk.
    pub policy: Policy,
    /// Time between two looks at the disk. 1 min.
    pub disk_watch_interval: Duration,
}

/// Held by whoever makes directories for a sandbox or takes empty ones away, so that neither happens within the other.
pub(crate) type Layout = Arc<Mutex<()>>;

/// Looks how full the file system of the work directory is; the outcome is a share from 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskUsage {
    /// The work directory.
    pub work_dir: PathBuf,
}

impl Op for DiskUsage {
    type Out = Result<f64, String>;
}

/// Looks which sandboxes there are; the outcome is the path and the age of each, by when something was last made or
/// removed in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FindSandboxes {
    /// Directory of all agents' sandboxes.
    pub agents: PathBuf,
}

impl Op for FindSandboxes {
    type Out = Vec<(PathBuf, Duration)>;
}

/// Marks sandboxes as used until now, for an agent that looks at them after a restart; the outcome has a complaint for
/// each that could not be marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TouchSandboxes {
    /// Directory of all agents' sandboxes.
    pub agents: PathBuf,
    /// Some of them.
    pub sandboxes: Vec<PathBuf>,
}

impl Op for TouchSandboxes {
    type Out = Vec<String>;
}

/// Removes sandboxes; the outcome says of each how that went. It follows no symbolic link and leaves what is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveSandboxes {
    /// Directory of all agents' sandboxes; nothing else is touched.
    pub agents: PathBuf,
    /// Which.
    pub sandboxes: Vec<PathBuf>,
}

impl Op for RemoveSandboxes {
    type Out = Vec<(PathBuf, Result<(), String>)>;
}

/// Registers what carries these operations out.
pub(crate) fn operators(builder: NodeBuilder, layout: &Layout) -> NodeBuilder {
    let layout = Arc::clone(layout);
    builder
        .op(|usage: DiskUsage| async move {
            let looked = tokio::task::spawn_blocking(move || remove::usage(&usage.work_dir));
            looked.await.map_err(|error| error.to_string())?
        })
        .op(|find: FindSandboxes| async move {
            let found = tokio::task::spawn_blocking(move || remove::find(&find.agents));
            found.await.unwrap_or_default()
        })
        .op(|touch: TouchSandboxes| async move {
            let touched = tokio::task::spawn_blocking(move || {
                let all = touch.sandboxes.iter();
                let touched = all.map(|sandbox| remove::touch(&touch.agents, sandbox));
                touched.filter_map(Result::err).collect()
            });
            touched
                .await
                .unwrap_or_else(|error| vec![error.to_string()])
        })
        .op(move |order: RemoveSandboxes| {
            let layout = Arc::clone(&layout);
            async move {
                let done = tokio::task::spawn_blocking(move || {
                    let remove = |path: PathBuf| {
                        let done = remove::sandbox(&order.agents, &path, &layout);
                        (path, done)
                    };
                    order.sandboxes.into_iter().map(remove).collect()
                });
                done.await.unwrap_or_default()
            }
        })
}

/// Whether a path is that of a sandbox below the directory of all agents' sandboxes.
pub fn is_sandbox(agents: &Path, path: &Path) -> bool {
    let Ok(rest) = path.strip_prefix(agents) else {
        return false;
    };
    let parts: Vec<_> = rest.components().collect();
    let named = |at: usize, name: &str| parts.get(at).is_some_and(|part| part.as_os_str() == name);
    let plain = |part: &std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
    parts.len() == 7
        && parts.iter().all(plain)
        && named(1, "frameworks")
        && named(3, "executors")
        && named(5, "runs")
        && !named(6, crate::paths::LATEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_where_a_sandbox_lies_is_one() {
        let agents = Path::new("/w/slaves");
        let is = |path: &str| is_sandbox(agents, Path::new(path));
        assert!(is("/w/slaves/a/frameworks/f/executors/e/runs/c"));
        for other in [
            "/w/slaves/a/frameworks/f/executors/e/runs/latest",
            "/w/slaves/a/frameworks/f/executors/e/runs",
            "/w/slaves/a/frameworks/f/executors/e/runs/c/d",
            "/w/slaves/a/frameworks/f/executors/../runs/c",
            "/w/meta/a/frameworks/f/executors/e/runs/c",
            "/etc",
        ] {
            assert!(!is(other), "{other}");
        }
    }
}
