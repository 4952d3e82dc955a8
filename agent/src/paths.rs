//! Where things are below the work directory.
//!
//! Pure: paths only, nothing is looked at. Ids are checked before they become parts of a path.
//!
//! ```text
//! <work_dir>/slaves/latest -> <agent id>
//! <work_dir>/slaves/<agent id>/frameworks/<framework>/executors/<executor>/runs/<container>/   sandbox
//!                                                                          runs/latest -> <container>
//! ```

use std::path::{Path, PathBuf};

use meseta_protocol::ids::{IdError, validate_id};
use meseta_protocol::{AgentId, ContainerId, ExecutorId, FrameworkId};

/// Name of the link to the newest of its siblings.
pub const LATEST: &str = "latest";

/// Socket for executors, alone in its directory: see `--executor_transport`.
pub fn executors_socket(work_dir: &Path) -> PathBuf {
    work_dir.join("run").join("executors")
}

/// Directory of all agents' sandboxes.
pub fn agents(work_dir: &Path) -> PathBuf {
    work_dir.join("slaves")
}

/// Directory of all runs of an executor.
///
/// # Errors
/// [`IdError`] when an id cannot be a directory's name.
pub fn runs(
    work_dir: &Path,
    agent: &AgentId,
    framework: &FrameworkId,
    executor: &ExecutorId,
) -> Result<PathBuf, IdError> {
    validate_id(agent.as_str())?;
    validate_id(framework.as_str())?;
    validate_id(executor.as_str())?;
    Ok(agents(work_dir)
        .join(agent.as_str())
        .join("frameworks")
        .join(framework.as_str())
        .join("executors")
        .join(executor.as_str())
        .join("runs"))
}

/// A sandbox.
///
/// # Errors
/// As [`runs`].
pub fn sandbox(
    work_dir: &Path,
    agent: &AgentId,
    framework: &FrameworkId,
    executor: &ExecutorId,
    container: &ContainerId,
) -> Result<PathBuf, IdError> {
    validate_id(&container.value)?;
    Ok(runs(work_dir, agent, framework, executor)?.join(&container.value))
}

/// Links to be made for a sandbox, each with its relative target: to the run, and to the agent.
pub fn links(work_dir: &Path, agent: &AgentId, sandbox: &Path) -> Vec<(PathBuf, PathBuf)> {
    let mut links = vec![(agents(work_dir).join(LATEST), PathBuf::from(agent.as_str()))];
    if let (Some(runs), Some(container)) = (sandbox.parent(), sandbox.file_name()) {
        links.push((runs.join(LATEST), PathBuf::from(container)));
    }
    links
}

/// The short name under which a sandbox's newest run is shown.
pub fn virtual_latest(framework: &FrameworkId, executor: &ExecutorId) -> PathBuf {
    PathBuf::from(format!(
        "/frameworks/{framework}/executors/{executor}/runs/{LATEST}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_lies_where_people_look_for_it() {
        let (agent, framework) = (AgentId::from("m-S0"), FrameworkId::from("m-0000"));
        let (executor, container) = (ExecutorId::from("e"), ContainerId::top("c"));
        let path = sandbox(Path::new("/w"), &agent, &framework, &executor, &container).unwrap();
        assert_eq!(
            path,
            Path::new("/w/slaves/m-S0/frameworks/m-0000/executors/e/runs/c")
        );
        let links = links(Path::new("/w"), &agent, &path);
        assert_eq!(links[0], ("/w/slaves/latest".into(), "m-S0".into()));
        assert_eq!(links[1].0, path.with_file_name("latest"));
        assert_eq!(links[1].1, Path::new("c"));
    }

    #[test]
    fn an_id_cannot_lead_out_of_the_work_directory() {
        let (agent, framework) = (AgentId::from("a"), FrameworkId::from("f"));
        for bad in ["..", "a/b", ""] {
            assert!(runs(Path::new("/w"), &agent, &framework, &ExecutorId::from(bad)).is_err());
        }
    }
}
