//! A process of this program's own, without the launcher: for a task that needs nothing but its program, arguments and
//! environment.
//!
//! The C library makes the process and executes the program in one call that may be made beside other threads
//! (`posix_spawn`), and says at once when there is no such program. The process has a session of its own, an empty
//! standard input, this program's outputs, and signals as a program expects to find them.

use std::ffi::{CString, NulError};
use std::io;

use meseta_protocol::launch::LaunchPlan;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;
use nix::unistd::Uid;

use crate::launch::DEFAULT_PATH;

/// Whether a plan asks for nothing else, so that [`spawn`] can do all of it.
pub fn is_enough_for(plan: &LaunchPlan) -> bool {
    let LaunchPlan {
        command: _,
        environment: _,
        working_directory,
        stdout,
        stderr,
        user,
        freezer_cgroup,
        open_files,
        credential,
    } = plan;
    [working_directory, stdout, stderr]
        .iter()
        .all(|text| text.is_empty())
        // Only root becomes anybody else, as the launcher has it.
        && (user.is_none() || !Uid::effective().is_root())
        && freezer_cgroup.is_none()
        && open_files.is_none()
        && credential.is_none()
}

/// Starts the plan's program with the plan's environment; its process id when it runs.
///
/// # Errors
/// The program cannot be executed; the text names it.
pub fn spawn(plan: &LaunchPlan) -> io::Result<i32> {
    let name = &plan.command.program;
    let failed = |error: io::Error| {
        let text = format!("cannot execute `{name}`: {error}");
        io::Error::new(error.kind(), text)
    };
    let no_text = |error: NulError| failed(error.into());
    let environment = environment(plan).map_err(no_text)?;
    let mut arguments = texts(&plan.command.arguments).map_err(no_text)?;
    if arguments.is_empty() {
        arguments.push(CString::new(name.as_str()).map_err(no_text)?);
    }
    let (actions, attributes) = settings().map_err(|error| failed(error.into()))?;
    let mut refused = Errno::ENOENT;
    for file in files(plan) {
        match posix_spawn(&*file, &actions, &attributes, &arguments, &environment) {
            Ok(process) => return Ok(process.as_raw()),
            // Another directory may have it.
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(error) => refused = error,
        }
    }
    Err(failed(refused.into()))
}

/// Where the program may be: its name when that has a slash, else each directory of the plan's `PATH`.
fn files(plan: &LaunchPlan) -> Vec<String> {
    let name = &plan.command.program;
    if name.contains('/') {
        return vec![name.clone()];
    }
    let set = plan.environment.iter().rev().find(|e| e.name == "PATH");
    let path = set.map_or(DEFAULT_PATH, |entry| &entry.value);
    path.split(':')
        .map(|directory| match directory {
            "" => name.clone(),
            directory => format!("{directory}/{name}"),
        })
        .collect()
}

/// The environment as `NAME=value`, the last of each name, with the default path when there is none.
fn environment(plan: &LaunchPlan) -> Result<Vec<CString>, NulError> {
    let mut all = std::collections::BTreeMap::from([("PATH", DEFAULT_PATH)]);
    all.extend(
        plan.environment
            .iter()
            .map(|entry| (entry.name.as_str(), entry.value.as_str())),
    );
    all.into_iter()
        .map(|(name, value)| CString::new(format!("{name}={value}")))
        .collect()
}

fn texts(all: &[String]) -> Result<Vec<CString>, NulError> {
    all.iter().map(|text| CString::new(text.as_str())).collect()
}

fn settings() -> nix::Result<(PosixSpawnFileActions, PosixSpawnAttr)> {
    let mut actions = PosixSpawnFileActions::init()?;
    actions.add_open(0, "/dev/null", OFlag::O_RDONLY, Mode::empty())?;
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
            | PosixSpawnFlags::from_bits_retain(nix::libc::POSIX_SPAWN_SETSID.into()),
    )?;
    // Rust programs ignore it, which children would inherit.
    attributes.set_sigdefault(&SigSet::from_iter([Signal::SIGPIPE]))?;
    attributes.set_sigmask(&SigSet::empty())?;
    Ok((actions, attributes))
}

#[cfg(test)]
mod tests {
    use meseta_protocol::launch::{EnvironmentEntry, ExecutorCredential, LaunchCommand};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::Pid;

    use super::*;

    fn plan(program: &str, arguments: &[&str]) -> LaunchPlan {
        LaunchPlan {
            command: LaunchCommand {
                program: program.into(),
                arguments: arguments.iter().map(|text| (*text).into()).collect(),
            },
            ..LaunchPlan::default()
        }
    }

    fn entry(name: &str, value: &str) -> EnvironmentEntry {
        EnvironmentEntry {
            name: name.into(),
            value: value.into(),
        }
    }

    fn status(plan: &LaunchPlan) -> i32 {
        let process = Pid::from_raw(spawn(plan).unwrap());
        let ended = waitpid(process, None).unwrap();
        let WaitStatus::Exited(_, status) = ended else {
            panic!("{ended:?}");
        };
        status
    }

    #[test]
    fn arguments_environment_session_input_and_signals_are_as_planned() {
        let script = r#"
            [ "$0 $1" = "me one" ] || exit 2
            [ "$A $B" = "last b=c" ] || exit 3
            [ "$(cut -d' ' -f6 /proc/$$/stat)" = $$ ] || exit 4
            [ -z "$(cat)" ] || exit 5
            [ "$(readlink /proc/self/fd/0)" = /dev/null ] || exit 6
            ignored=$(sed -n 's/^SigIgn:.//p' /proc/$$/status)
            [ $((0x$ignored & 0x1000)) = 0 ] || exit 7
            # Read by the shell itself: while it waits for a child it may block signals.
            while read -r name value; do [ "$name" != SigBlk: ] || blocked=$value; done </proc/$$/status
            case $blocked in *[!0]* | '') exit 8 ;; esac
            [ "$PATH" = "$EXPECTED" ] || exit 9
        "#;
        let mut plan = plan("/bin/sh", &["sh", "-c", script, "me", "one"]);
        plan.environment = vec![
            entry("A", "first"),
            entry("B", "b=c"),
            entry("A", "last"),
            entry("EXPECTED", DEFAULT_PATH),
        ];
        assert_eq!(status(&plan), 0);
        plan.environment.push(entry("PATH", "/usr/bin:/bin"));
        assert_eq!(status(&plan), 9);
    }

    #[test]
    fn a_name_without_a_slash_is_looked_up_in_the_plan_s_path() {
        assert_eq!(status(&plan("true", &[])), 0);
        let mut nowhere = plan("true", &["true"]);
        nowhere.environment = vec![entry("PATH", "/no/such/place:/dev/null")];
        let error = spawn(&nowhere).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot execute `true`: No such file"),
            "{error}"
        );
        let directory = spawn(&plan("/", &[])).unwrap_err();
        assert_eq!(directory.kind(), io::ErrorKind::PermissionDenied);
        assert!(spawn(&plan("a\0b", &[])).is_err());
    }

    #[test]
    fn a_plan_that_asks_for_more_is_for_the_launcher() {
        let simple = plan("/bin/true", &[]);
        assert!(is_enough_for(&simple));
        let more = [
            LaunchPlan {
                working_directory: "/".into(),
                ..simple.clone()
            },
            LaunchPlan {
                stdout: "/dev/null".into(),
                ..simple.clone()
            },
            LaunchPlan {
                freezer_cgroup: Some("/".into()),
                ..simple.clone()
            },
            LaunchPlan {
                open_files: Some(1024),
                ..simple.clone()
            },
            LaunchPlan {
                credential: Some(ExecutorCredential::default()),
                ..simple.clone()
            },
        ];
        assert!(!more.iter().any(is_enough_for));
        let other = LaunchPlan {
            user: Some("nobody".into()),
            ..simple
        };
        assert_eq!(is_enough_for(&other), !Uid::effective().is_root());
    }
}
