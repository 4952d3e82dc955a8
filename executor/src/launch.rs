//! The program that becomes a container's first process: `meseta-executor launch`.
//!
//! An agent with its many threads cannot safely do much between fork and exec, so it starts this program, which has
//! one thread, and hands it a [`LaunchPlan`] on its standard input. It does what the plan says and becomes the
//! plan's program, keeping its process id. The command executor starts its task the same way.
//!
//! ```text
//! read plan · close all other descriptors · new session · output files · control group ·
//! working directory · open files · credential · user · exec
//! ```
//!
//! A plan whose program is this very program, without arguments, asks for the command executor: the launcher goes on as
//! that ([`Become`]), since starting a large program anew costs more than all of the steps above.
//!
//! Standard input is a socket: when something fails, the text goes to the standard error and back through the
//! socket, which the exec closes; so [`spawn_confirmed`] knows for certain whether the program runs.
//!
//! A text left empty in the plan leaves that part alone: no `stdout` keeps the launcher's, no `working_directory`
//! stays where it is.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use meseta_protocol::launch::{EnvironmentEntry, ExecutorCredential, LaunchCommand, LaunchPlan};
use meseta_runtime::error_chain;
use meseta_runtime::message::read_named;
use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::Mode;
use nix::unistd::{Uid, User};

use crate::environment::CREDENTIAL_FD;

/// Exit status of a launcher that could not do what its plan says.
pub const EXIT_NOT_LAUNCHED: u8 = 125;

/// This very program, even when its file has been replaced since.
pub(crate) const MYSELF: &str = "/proc/self/exe";

/// `PATH` of a program whose plan has none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What went wrong, by the step of the plan.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
struct Failure {
    what: String,
    #[source]
    source: Box<dyn std::error::Error>,
}

trait Step<T> {
    fn step(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: std::error::Error + 'static> Step<T> for Result<T, E> {
    fn step(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|source| Failure {
            what: what(),
            source: Box::new(source),
        })
    }
}

/// Starts the launcher and hands it the plan. `launcher` is its program and arguments, usually
/// `[<path of meseta-executor>, "launch"]`. Until the plan names other files, output goes where the caller's goes.
///
/// # Errors
/// The launcher cannot be started, or ended before it had read its plan.
pub fn spawn(launcher: &[String], plan: &LaunchPlan) -> io::Result<Child> {
    start(launcher, plan).map(|(child, _socket)| child)
}

/// As [`spawn`], and waits until the plan's program runs.
///
/// # Errors
/// Also when a step of the plan failed; the text names it. The launcher has been waited for then.
pub fn spawn_confirmed(launcher: &[String], plan: &LaunchPlan) -> io::Result<Child> {
    let (mut child, mut socket) = start(launcher, plan)?;
    let mut complaint = String::new();
    socket.read_to_string(&mut complaint)?;
    if complaint.is_empty() {
        return Ok(child);
    }
    child.wait()?;
    Err(io::Error::other(complaint))
}

fn start(launcher: &[String], plan: &LaunchPlan) -> io::Result<(Child, UnixStream)> {
    let bytes = rmp_serde::to_vec_named(plan).map_err(io::Error::other)?;
    let Some((program, arguments)) = launcher.split_first() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "no launcher is named",
        ));
    };
    let (mut ours, theirs) = UnixStream::pair()?;
    let mut child = {
        // In a block, so that our copy of the child's end is closed and its end is noticed.
        let mut command = Command::new(program);
        command.args(arguments).env_clear();
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        command.spawn()?
    };
    let written = ours
        .write_all(&bytes)
        .and_then(|()| ours.shutdown(Shutdown::Write));
    if let Err(error) = written {
        // It does not listen, so it has ended or is about to.
        child.kill()?;
        child.wait()?;
        return Err(error);
    }
    Ok((child, ours))
}

/// What the launcher goes on as when its plan names its own program: the command executor.
pub struct Become {
    /// The executor's whole environment; that of the process tells nothing.
    pub environment: BTreeMap<String, String>,
    /// With what it speaks to the agent.
    pub credential: Option<ExecutorCredential>,
}

/// The whole of `meseta-executor launch`. Returns when the plan is for this program itself, or when something failed. The
/// caller has started no thread.
///
/// # Errors
/// The exit status, after the reason was written to the standard error.
#[expect(
    clippy::print_stderr,
    reason = "the container's standard error is where the agent looks"
)]
pub fn main() -> Result<Become, ExitCode> {
    launch().map_err(|failure| {
        eprintln!("meseta-executor launch: {}", error_chain(&failure));
        ExitCode::from(EXIT_NOT_LAUNCHED)
    })
}

fn launch() -> Result<Become, Failure> {
    close_others().step(|| "cannot close inherited descriptors".to_owned())?;
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .step(|| "cannot read the launch plan from the standard input".to_owned())?;
    let plan: LaunchPlan =
        read_named(&bytes).step(|| "the standard input holds no launch plan".to_owned())?;
    // Closed by the exec, or at the end of this function; written to only when something failed.
    let socket = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .step(|| "cannot keep the way back to the caller".to_owned())?;
    let failure = match follow(plan) {
        Ok(become_executor) => return Ok(become_executor),
        Err(failure) => failure,
    };
    // A caller that does not want to know has closed its end; the standard error has the text in any case. Without a
    // signal: the attempt to execute has restored the deadly one.
    let _nobody_listens = nix::sys::socket::send(
        socket.as_raw_fd(),
        error_chain(&failure).as_bytes(),
        nix::sys::socket::MsgFlags::MSG_NOSIGNAL,
    );
    Err(failure)
}

fn follow(plan: LaunchPlan) -> Result<Become, Failure> {
    nix::unistd::setsid().step(|| "cannot begin a session".to_owned())?;
    let user = user_to_become(&plan)?;
    let null = File::open("/dev/null").step(|| "cannot open /dev/null".to_owned())?;
    nix::unistd::dup2_stdin(&null).step(|| "cannot redirect the standard input".to_owned())?;
    if let Some(file) = output(&plan.stdout, user.as_ref())? {
        nix::unistd::dup2_stdout(&file).step(|| format!("cannot write to {}", plan.stdout))?;
    }
    if let Some(file) = output(&plan.stderr, user.as_ref())? {
        nix::unistd::dup2_stderr(&file).step(|| format!("cannot write to {}", plan.stderr))?;
    }
    if let Some(cgroup) = &plan.freezer_cgroup {
        fs::write(
            Path::new(cgroup).join("cgroup.procs"),
            std::process::id().to_string(),
        )
        .step(|| format!("cannot enter the control group {cgroup}"))?;
    }
    if !plan.working_directory.is_empty() {
        std::env::set_current_dir(&plan.working_directory)
            .step(|| format!("cannot change to the directory {}", plan.working_directory))?;
    }
    if let Some(soft) = plan.open_files {
        limit_open_files(soft).step(|| format!("cannot set the limit of open files to {soft}"))?;
    }
    let credential = plan.credential.map(open_way).transpose()?;
    if is_for_this_program(&plan.command) {
        if let Some(user) = user {
            become_user(&user)?;
            // Taken away with the user; without it a process may not look at its own descriptors.
            nix::sys::prctl::set_dumpable(true)
                .step(|| "cannot be looked at by its user".to_owned())?;
        }
        return Ok(Become {
            environment: environment(plan.environment),
            credential,
        });
    }
    let passed_on = credential.as_ref().map(pass_on).transpose()?;
    if let Some(user) = user {
        become_user(&user)?;
    }
    let command = &plan.command;
    let mut program = Command::new(&command.program);
    if let Some((name, arguments)) = command.arguments.split_first() {
        program.arg0(name).args(arguments);
    }
    program.env_clear().envs(environment(plan.environment));
    program.env_remove(CREDENTIAL_FD);
    if let Some(passed_on) = &passed_on {
        program.env(CREDENTIAL_FD, passed_on.as_raw_fd().to_string());
    }
    Err(program.exec()).step(|| format!("cannot execute `{}`", command.program))
}

/// The last of each name, and the default path when there is none.
fn environment(entries: Vec<EnvironmentEntry>) -> BTreeMap<String, String> {
    let path = ("PATH".to_owned(), DEFAULT_PATH.to_owned());
    let entries = entries.into_iter().map(|entry| (entry.name, entry.value));
    std::iter::once(path).chain(entries).collect()
}

/// Whether a command is this program under the name it was started by, and nothing else.
fn is_for_this_program(command: &LaunchCommand) -> bool {
    let file = |path: &str| fs::metadata(path).map(|file| (file.dev(), file.ino()));
    command.arguments.len() <= 1
        && std::env::args_os()
            .next()
            .is_some_and(|name| name == *command.program)
        && matches!((file(&command.program), file(MYSELF)), (Ok(named), Ok(own)) if named == own)
}

/// Sets the soft limit; the hard one stays and is never exceeded.
fn limit_open_files(soft: u64) -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard), hard)?)
}

/// Closes everything but standard input, output and error.
fn close_others() -> io::Result<()> {
    let mut open = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let number = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        open.extend(number.filter(|number: &i32| *number > 2));
    }
    for number in open {
        match nix::unistd::close(number) {
            // The listing's own descriptor is in the list and closed already.
            Ok(()) | Err(nix::errno::Errno::EBADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The user to switch to, when the plan names another one and this program may switch.
fn user_to_become(plan: &LaunchPlan) -> Result<Option<User>, Failure> {
    let Some(name) = plan.user.as_ref().filter(|_| Uid::effective().is_root()) else {
        return Ok(None);
    };
    let user = User::from_name(name)
        .step(|| format!("cannot look up the user `{name}`"))?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no such user"))
        .step(|| format!("cannot become the user `{name}`"))?;
    Ok((user.uid != Uid::effective()).then_some(user))
}

fn become_user(user: &User) -> Result<(), Failure> {
    let what = || format!("cannot become the user `{}`", user.name);
    let name = CString::new(user.name.as_str()).step(what)?;
    nix::unistd::initgroups(&name, user.gid).step(what)?;
    nix::unistd::setgid(user.gid).step(what)?;
    nix::unistd::setuid(user.uid).step(what)
}

fn output(path: &str, owner: Option<&User>) -> Result<Option<File>, Failure> {
    if path.is_empty() {
        return Ok(None);
    }
    let what = || format!("cannot open {path} for output");
    let mut options = OpenOptions::new();
    let file = options
        .create(true)
        .append(true)
        .mode(0o644)
        .open(path)
        .step(what)?;
    if let Some(user) = owner {
        nix::unistd::fchown(&file, Some(user.uid), Some(user.gid)).step(what)?;
    }
    Ok(Some(file))
}

/// Opens the directory of the agent's socket, which the user that the executor becomes need not be able to find. It stays
/// open over an exec; the credential tells its number.
fn open_way(mut credential: ExecutorCredential) -> Result<ExecutorCredential, Failure> {
    if let Some(unix) = &mut credential.unix {
        let path = Path::new(&unix.socket).parent().unwrap_or(Path::new("/"));
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let directory = nix::fcntl::open(path, flags, Mode::empty())
            .step(|| format!("cannot open {}", path.display()))?;
        unix.directory_descriptor = Some(directory.into_raw_fd());
    }
    Ok(credential)
}

/// Puts the credential into memory that the next program inherits by its descriptor.
fn pass_on(credential: &ExecutorCredential) -> Result<OwnedFd, Failure> {
    let what = || "cannot pass the credential on".to_owned();
    let bytes = rmp_serde::to_vec_named(credential).step(what)?;
    let memory = memfd_create(c"meseta-executor-credential", MFdFlags::empty()).step(what)?;
    let mut file = File::from(memory);
    file.write_all(&bytes).step(what)?;
    io::Seek::rewind(&mut file).step(what)?;
    Ok(file.into())
}
