//! Containers on this machine: making sandboxes, starting executors, ending every process of them.
//!
//! The agent orders operations; [`operators`] registers on a node what carries them out, with blocking work on
//! threads of its own. A container is one sandbox and one process tree. The tree is held together by a freezer control
//! group when that can be had ([`freezer`]), and otherwise found by a walk ([`process_tree`]).
//!
//! The end of a container's first process is no outcome of an operation, because it may take for ever: it comes to
//! the agent as the message [`ContainerEnded`] from its own node. Only processes started here are reaped (by tokio,
//! which waits on a pidfd for each), so several agents may share one program.

pub mod core;
pub mod freezer;
pub mod process_tree;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meseta_protocol::launch::LaunchPlan;
use meseta_runtime::{Message, NodeBuilder, OWN_NODE, Op};
use nix::unistd::{Uid, User};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tracing::{debug, warn};

use crate::checkpoint::Storage;
use crate::config::Containment;
use crate::faults::{self, Point};
use crate::gc::{self, Layout};
use crate::logs;
use process_tree::Identity;

/// Exit status of a launcher that could not start the program.
pub const LAUNCH_FAILED: i32 = 125;
/// Where the freezer hierarchy is on most machines.
pub const FREEZER: &str = "/sys/fs/cgroup/freezer";
/// Where the kernel names this run of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Time between two looks at a process that is no child of this program.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Most of a launcher's complaint that is passed on, in bytes.
const COMPLAINT: u64 = 1024;
/// How long a destroy goes on before it reports failure, to be ordered again.
pub const DESTROY_LIMIT: Duration = Duration::from_secs(60);
/// Time between two attempts to end a container of which something does not end.
pub const DESTROY_RETRY: Duration = Duration::from_secs(10);

/// What the agent may do on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Whether it may become other users and give files away.
    pub is_root: bool,
    /// Name of the user it runs as.
    pub user: String,
    /// Its own part of the freezer hierarchy; none when containers are found by a walk.
    pub freezer: Option<PathBuf>,
    /// Names this run of the machine: another one after each start of it.
    pub boot_id: String,
}

impl Host {
    /// Looks at this machine. Makes the agent's part of the freezer hierarchy.
    pub fn look(containment: &Containment, work_dir: &Path) -> Self {
        let uid = Uid::effective();
        let user = User::from_uid(uid).ok().flatten().map(|user| user.name);
        let hierarchy = match containment {
            Containment::Auto => Some(Path::new(FREEZER)),
            Containment::Freezer(hierarchy) => Some(hierarchy.as_path()),
            Containment::Walk => None,
        };
        let freezer = hierarchy.filter(|_| uid.is_root()).and_then(|hierarchy| {
            let own = freezer::own(hierarchy, work_dir);
            match freezer::prepare(&own) {
                Ok(()) => Some(own),
                Err(error) => {
                    debug!(own = %own.display(), %error, "no freezer: containers are found by a walk over /proc");
                    None
                }
            }
        });
        Self {
            is_root: uid.is_root(),
            user: user.unwrap_or_else(|| uid.to_string()),
            freezer,
            boot_id: fs::read_to_string(BOOT_ID)
                .map(|text| text.trim().to_owned())
                .unwrap_or_default(),
        }
    }
}

/// Own node → agent: the first process of a container has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerEnded {
    /// The container.
    pub container: String,
    /// Its wait status.
    pub status: i32,
    /// What the launcher said, when it ended with [`LAUNCH_FAILED`].
    pub complaint: Option<String>,
}

impl Message for ContainerEnded {
    const NAME: &'static str = "meseta.agent.ContainerEnded";
    const SENDERS: &'static [&'static str] = OWN_NODE;
}

/// How the end of a container reaches its agent.
pub struct Exits(Box<dyn FnOnce(ContainerEnded) + Send>);

impl Exits {
    /// Calls `tell` once.
    pub fn new(tell: impl FnOnce(ContainerEnded) + Send + 'static) -> Self {
        Self(Box::new(tell))
    }

    /// Tells the agent.
    pub fn tell(self, ended: ContainerEnded) {
        (self.0)(ended);
    }
}

impl fmt::Debug for Exits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exits")
    }
}

/// Why a container did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// The sandbox cannot be made.
    #[error("Failed to create executor directory '{path}': {reason}", path = path.display())]
    Sandbox {
        /// The sandbox.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The launcher cannot be started.
    #[error("Failed to launch container: {0}")]
    Launcher(String),
}

/// Makes a sandbox and starts an executor in it; the outcome is the container's first process.
#[derive(Debug)]
pub struct Launch {
    /// The container's name.
    pub container: String,
    /// Links to make, each with its target.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// User who gets the sandbox, when it is not the agent's own.
    pub owner: Option<String>,
    /// Program and arguments that start the container.
    pub launcher: Vec<String>,
    /// What the launcher is told on its standard input. The sandbox is its working directory, the control group to
    /// make is its freezer.
    pub plan: LaunchPlan,
    /// Told when the first process has ended.
    pub exits: Exits,
}

impl Op for Launch {
    type Out = Result<Identity, LaunchError>;
}

/// Ends every process of a container. The outcome comes when none is left, or says why some cannot be ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destroy {
    /// The container's name.
    pub container: String,
    /// Its sandbox, by which its processes are known to a walk.
    pub sandbox: PathBuf,
    /// Its freezer control group, if it has one; removed at the end.
    pub freezer: Option<PathBuf>,
}

impl Op for Destroy {
    type Out = Result<(), String>;
}

/// Takes over a container that an earlier run of the agent has launched. The outcome is its first process, or none when
/// that is gone; whatever else is left of it is ended by [`Destroy`].
#[derive(Debug)]
pub struct Adopt {
    /// The container's name.
    pub container: String,
    /// Its sandbox.
    pub sandbox: PathBuf,
    /// Its first process; looked for when the earlier run did not live to write it down.
    pub process: Option<Identity>,
    /// Told when the first process has ended.
    pub exits: Exits,
}

impl Op for Adopt {
    type Out = Option<Identity>;
}

/// Ends whatever runs in a sandbox of this agent, but for what is kept: at its start, what an earlier run has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweep {
    /// Directory of all sandboxes.
    pub sandboxes: PathBuf,
    /// The agent's part of the freezer hierarchy.
    pub freezer: Option<PathBuf>,
    /// Whether the agent ends, so that its part of the hierarchy goes too.
    pub leaving: bool,
    /// Containers that are kept, with their sandboxes.
    pub keep: BTreeMap<String, PathBuf>,
}

impl Op for Sweep {
    type Out = Result<(), String>;
}

/// A first process, kept until its container is destroyed: its session is known by its id even when it has ended.
struct Leader {
    identity: Identity,
    /// None for one that is no child of this program.
    kill: Option<oneshot::Sender<()>>,
}

/// First processes by container. One table per node.
type Leaders = Arc<Mutex<HashMap<String, Leader>>>;

fn locked(leaders: &Leaders) -> std::sync::MutexGuard<'_, HashMap<String, Leader>> {
    // The map is consistent between any two calls, so a panic elsewhere does not spoil it.
    leaders.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Registers what carries out [`Launch`], [`Adopt`], [`Destroy`] and [`Sweep`], what is written down, and what
/// [`crate::gc`] and [`crate::logs`] order. Until its agent is there the node says that it starts.
#[must_use]
pub fn operators(builder: NodeBuilder) -> NodeBuilder {
    let leaders = Leaders::default();
    let of_launches = Arc::clone(&leaders);
    let of_adopted = Arc::clone(&leaders);
    let builder = Storage::Directories.serve(builder).awaits_delegate();
    let layout = Layout::default();
    logs::operators(gc::operators(faults::operators(builder), &layout))
        .op(move |launch: Launch| {
            let leaders = Arc::clone(&of_launches);
            let layout = Arc::clone(&layout);
            async move {
                let error =
                    |error: tokio::task::JoinError| LaunchError::Launcher(error.to_string());
                let started =
                    tokio::task::spawn_blocking(move || start(launch, &leaders, &layout)).await;
                started.map_err(error)?
            }
        })
        .op(move |adopt: Adopt| {
            let leaders = Arc::clone(&of_adopted);
            async move {
                let adopted = tokio::task::spawn_blocking(move || take_over(adopt, &leaders)).await;
                adopted.unwrap_or_default()
            }
        })
        .op(move |destroy: Destroy| {
            let leaders = Arc::clone(&leaders);
            blocking(move || end(&destroy, &leaders))
        })
        .op(|sweep: Sweep| blocking(move || clear(&sweep)))
}

async fn blocking(
    work: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Result<(), String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| error.to_string())?
}

/// Carries out a launch; runs inside a tokio runtime, on a thread that may block.
fn start(launch: Launch, leaders: &Leaders, layout: &Layout) -> Result<Identity, LaunchError> {
    let sandbox = PathBuf::from(&launch.plan.working_directory);
    make_sandbox(&launch, &sandbox, layout).map_err(|reason| LaunchError::Sandbox {
        path: sandbox.clone(),
        reason,
    })?;
    Point::SandboxMade.reach();
    let failed =
        |what: &str, error: &dyn fmt::Display| LaunchError::Launcher(format!("{what}: {error}"));
    let group = launch.plan.freezer_cgroup.as_ref().map(PathBuf::from);
    if let Some(group) = &group {
        freezer::prepare(group).map_err(|error| failed("freezer control group", &error))?;
    }
    let spawned = spawn(&launch);
    let (mut child, plan, mut pipe) = match spawned {
        Ok(spawned) => spawned,
        Err(error) => {
            if let Some(group) = &group
                && let Err(error) = fs::remove_dir(group)
            {
                warn!(group = %group.display(), %error, "control group left behind");
            }
            return Err(LaunchError::Launcher(error));
        }
    };
    let Some(process) = child.id() else {
        return Err(LaunchError::Launcher(
            "the launcher has no process id".to_owned(),
        ));
    };
    // Before anybody waits for it, so the id is still its own.
    let identity = process_tree::identity(process).unwrap_or(Identity {
        process,
        started: 0,
    });
    let (kill, killed) = oneshot::channel();
    let container = launch.container.clone();
    let leader = Leader {
        identity,
        kill: Some(kill),
    };
    locked(leaders).insert(container.clone(), leader);
    let stderr = PathBuf::from(&launch.plan.stderr);
    let exits = launch.exits;
    tokio::spawn(async move {
        let status = tokio::select! {
            status = child.wait() => status,
            // An error means that nobody will ask any more.
            Ok(()) = killed => {
                if let Err(error) = child.start_kill() {
                    debug!(%error, "the first process had ended before it was killed");
                }
                child.wait().await
            }
        };
        let status = match status {
            Ok(status) => status.into_raw(),
            Err(error) => {
                warn!(container, %error, "cannot wait for a first process: it counts as ended");
                -1
            }
        };
        let complaint = if status == LAUNCH_FAILED << 8 {
            tail(stderr).await
        } else {
            None
        };
        exits.tell(ContainerEnded {
            container,
            status,
            complaint,
        });
    });
    Point::ProcessStarted.reach();
    // A launcher that ends early breaks the pipe; how it ended says why.
    if let Err(error) = pipe.write_all(&plan) {
        debug!(%error, "the launcher did not read its plan");
    }
    Point::ProcessTold.reach();
    Ok(identity)
}

type Spawned = (tokio::process::Child, Vec<u8>, std::io::PipeWriter);

fn spawn(launch: &Launch) -> Result<Spawned, String> {
    let plan = rmp_serde::to_vec_named(&launch.plan).map_err(|error| format!("plan: {error}"))?;
    let (reader, writer) = std::io::pipe().map_err(|error| format!("pipe: {error}"))?;
    let open = |path: &str| {
        let opened = OpenOptions::new().append(true).open(path);
        opened.map_err(|error| format!("{path}: {error}"))
    };
    let (program, arguments) = launch
        .launcher
        .split_first()
        .ok_or("no launcher is configured")?;
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .env_clear()
        // By which a walk knows it; nothing that a framework has chosen may stand in the launcher's environment.
        .env("MESOS_DIRECTORY", &launch.plan.working_directory)
        // For the C library of an executor that the launcher goes on as: a heap for each of its three threads costs it
        // more than they ever wait for each other. Other programs get the environment of their plan.
        .env("MALLOC_ARENA_MAX", "1")
        .stdin(Stdio::from(reader))
        .stdout(open(&launch.plan.stdout)?)
        .stderr(open(&launch.plan.stderr)?);
    let child = command
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    Ok((child, plan, writer))
}

/// Takes over a container; runs inside a tokio runtime, on a thread that may block.
fn take_over(adopt: Adopt, leaders: &Leaders) -> Option<Identity> {
    let identity = match adopt.process {
        Some(identity) => Some(identity).filter(|identity| process_tree::is_alive(*identity)),
        None => process_tree::find(&adopt.sandbox),
    }?;
    let leader = Leader {
        identity,
        kill: None,
    };
    locked(leaders).insert(adopt.container.clone(), leader);
    let (container, exits) = (adopt.container, adopt.exits);
    tokio::spawn(async move {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        while process_tree::is_alive(identity) {
            looks.tick().await;
        }
        exits.tell(ContainerEnded {
            container,
            status: core::UNREPORTED,
            complaint: None,
        });
    });
    Some(identity)
}

/// The last lines of what the launcher wrote.
async fn tail(path: PathBuf) -> Option<String> {
    let read = move || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(COMPLAINT)))?;
        let mut bytes = Vec::new();
        file.take(COMPLAINT).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    let text = tokio::task::spawn_blocking(read).await.ok()?.ok()?;
    Some(if text.is_empty() {
        "the launcher gave no reason".to_owned()
    } else {
        text
    })
}

/// Makes the sandbox (0750) with empty `stdout` and `stderr`, its links, and gives it to its owner.
fn make_sandbox(launch: &Launch, sandbox: &Path, layout: &Layout) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    // Nobody takes the directories above away before the sandbox is in them.
    let alone = layout.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(parent) = sandbox.parent() {
        fs::create_dir_all(parent).map_err(text)?;
    }
    fs::DirBuilder::new()
        .mode(0o750)
        .create(sandbox)
        .map_err(text)?;
    drop(alone);
    // The process's umask may have taken bits away.
    fs::set_permissions(sandbox, fs::Permissions::from_mode(0o750)).map_err(text)?;
    let files = [&launch.plan.stdout, &launch.plan.stderr];
    for file in files {
        let mut options = OpenOptions::new();
        options
            .create_new(true)
            .write(true)
            .mode(0o644)
            .open(file)
            .map_err(text)?;
    }
    for (link, target) in &launch.links {
        point(link, target, &launch.container).map_err(text)?;
    }
    if let Some(owner) = &launch.owner {
        let refused = |why: String| format!("Failed to chown directory to '{owner}': {why}");
        let user = User::from_name(owner)
            .map_err(|error| refused(error.to_string()))?
            .ok_or_else(|| refused(format!("No such user '{owner}'")))?;
        for path in files.into_iter().map(Path::new).chain([sandbox]) {
            nix::unistd::chown(path, Some(user.uid), Some(user.gid))
                .map_err(|error| refused(error.to_string()))?;
        }
    }
    Ok(())
}

/// Lets a link point to `target`, in one step for those who look at it. Several launches may set the same link at
/// once, so the new one is made under a name that only the launch of `container` uses.
fn point(link: &Path, target: &Path, container: &str) -> std::io::Result<()> {
    if fs::read_link(link).is_ok_and(|present| present == target) {
        return Ok(());
    }
    let mut name = link.as_os_str().to_owned();
    name.push(format!(".{container}"));
    let new = PathBuf::from(name);
    symlink(target, &new)?;
    fs::rename(&new, link)
}

/// Carries out a destroy; blocks.
fn end(destroy: &Destroy, leaders: &Leaders) -> Result<(), String> {
    let wait = Waiting::new();
    if let Some(group) = &destroy.freezer {
        freezer::destroy(group, &wait)?;
        // A launcher that had not entered the group yet.
        let leader = locked(leaders).remove(&destroy.container);
        if let Some(Leader { identity, kill }) = leader {
            match kill.map(|kill| kill.send(())) {
                None => process_tree::kill_one(identity),
                Some(Ok(())) => {}
                Some(Err(())) => {
                    debug!(container = destroy.container, "the first process had ended");
                }
            }
        }
        return Ok(());
    }
    let leader = locked(leaders)
        .get(&destroy.container)
        .map(|leader| leader.identity);
    let of_sandbox = |directory: &Path| directory == destroy.sandbox;
    process_tree::destroy(leader, of_sandbox, &wait)?;
    locked(leaders).remove(&destroy.container);
    Ok(())
}

fn clear(sweep: &Sweep) -> Result<(), String> {
    let wait = Waiting::new();
    if let Some(own) = &sweep.freezer {
        if sweep.leaving {
            freezer::destroy(own, &wait)?;
        } else {
            freezer::destroy_below(own, |container| sweep.keep.contains_key(container), &wait)?;
        }
    }
    let of_agent = |directory: &Path| {
        let is_kept = sweep.keep.values().any(|kept| kept == directory);
        directory.starts_with(&sweep.sandboxes) && !is_kept
    };
    process_tree::destroy(None, of_agent, &wait)
}

/// Patience with the kernel: pauses between two looks, up to [`DESTROY_LIMIT`] in all.
pub struct Waiting {
    until: std::time::Instant,
}

impl Waiting {
    /// Patience that begins now.
    #[expect(
        clippy::disallowed_methods,
        reason = "an operator waits for the kernel, outside every actor and its clock"
    )]
    fn new() -> Self {
        Self {
            until: std::time::Instant::now() + DESTROY_LIMIT,
        }
    }

    /// Waits a moment; `false` when patience is over.
    #[expect(
        clippy::disallowed_methods,
        reason = "the kernel tells nobody when a control group is empty or a foreign process gone"
    )]
    fn a_moment(&self) -> bool {
        std::thread::sleep(Duration::from_millis(2));
        std::time::Instant::now() < self.until
    }
}
