//! What `meseta-executor` does, for programs that stand in for it: the command executor, and with the argument
//! `launch` the launcher of containers.

use std::process::ExitCode;

use crate::command::{CommandExecutor, operators};
use crate::start::try_run;
use crate::{launch, process_tree};
use meseta_protocol::launch::EnvironmentEntry;
use meseta_runtime::error_chain;

const HELP: &str = "\
meseta-executor: runs the command of one task. Started by an agent, which tells it what to do in its environment.

Usage: meseta-executor [--help | --version]

MESETA_LOG sets what is logged on the standard error, for example `debug`; `warn` unless set.";

/// This very program, even when its file has been replaced since.
const MYSELF: &str = "/proc/self/exe";

/// Runs the program with this process's arguments. Must be called before anything opens files or starts threads.
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the program's face"
)]
pub fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some("launch") {
        return launch::main();
    }
    match first.as_deref() {
        None => match execute() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("meseta-executor: {}", error_chain(&*error));
                ExitCode::FAILURE
            }
        },
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

fn execute() -> Result<(), Box<dyn std::error::Error>> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MESETA_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    process_tree::adopt_orphans()?;
    let inherited = std::env::vars_os()
        // Whoever has it speaks for this executor, and a task is not to.
        .filter(|(name, _)| name != "MESOS_EXECUTOR_AUTHENTICATION_TOKEN")
        .filter_map(|(name, value)| {
            Some(EnvironmentEntry {
                name: name.into_string().ok()?,
                value: value.into_string().ok()?,
            })
        })
        .collect();
    let launcher = vec![MYSELF.to_owned(), "launch".to_owned()];
    try_run(operators, |environment| {
        CommandExecutor::new(environment, inherited, launcher)
    })?;
    Ok(())
}
