//! `meseta-executor`: the command executor, and under the name `launch` the launcher of containers. Agents run both.

fn main() -> std::process::ExitCode {
    meseta_executor::program::main()
}
