//! What `meseta-executor` does, for programs that stand in for it: the command executor, and with the argument
//! `launch` the launcher of containers.

use std::collections::BTreeMap;
use std::process::ExitCode;

use crate::command::{CommandExecutor, operators};
use crate::launch::MYSELF;
use crate::start::{inherited_credential, run_with};
use crate::{launch, process_tree};
use meseta_protocol::launch::{EnvironmentEntry, ExecutorCredential};
use meseta_runtime::error_chain;

const HELP: &str = "\
meseta-executor: runs the command of one task. Started by an agent, which tells it what to do in its environment.

Usage: meseta-executor [--help | --version]

MESETA_LOG sets what is logged on the standard error, for example `debug`; `warn` unless set.";

/// Runs the program with this process's arguments. Must be called before anything opens files or starts threads.
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the program's face"
)]
pub fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    match first.as_deref() {
        Some("launch") => match launch::main() {
            Ok(start) => ended(execute(start.environment, start.credential)),
            Err(status) => status,
        },
        None => ended(execute(inherited_environment(), None)),
        Some("--help" | "-h") => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        Some("--version" | "-V") => {
            println!("meseta-executor {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Some(other) => {
            eprintln!("meseta-executor: unknown argument `{other}`; see --help");
            ExitCode::from(2)
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a program's last words; the agent shows them"
)]
fn ended(outcome: Result<(), Box<dyn std::error::Error>>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("meseta-executor: {}", error_chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// The variables of this process that are text.
fn inherited_environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Runs the command executor; without a credential it is the one that this process has inherited.
fn execute(
    environment: BTreeMap<String, String>,
    credential: Option<ExecutorCredential>,
) -> Result<(), Box<dyn std::error::Error>> {
    let filter = environment.get("MESETA_LOG");
    let filter = filter.and_then(|filter| tracing_subscriber::EnvFilter::try_new(filter).ok());
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|| tracing_subscriber::EnvFilter::new("warn")))
        .with_writer(std::io::stderr)
        .init();
    process_tree::adopt_orphans()?;
    let credential = match credential {
        Some(credential) => credential,
        None => inherited_credential()?,
    };
    let inherited = environment
        .iter()
        // Whoever has it speaks for this executor, and a task is not to.
        .filter(|(name, _)| *name != "MESOS_EXECUTOR_AUTHENTICATION_TOKEN")
        .map(|(name, value)| EnvironmentEntry {
            name: name.clone(),
            value: value.clone(),
        })
        .collect();
    let launcher = vec![MYSELF.to_owned(), "launch".to_owned()];
    let variable = |name: &str| environment.get(name).cloned();
    run_with(credential, variable, operators, |environment| {
        CommandExecutor::new(environment, inherited, launcher)
    })?;
    Ok(())
}
