//! An executor for tests: each task makes a file of its name, which must not be there yet, and ends. A task that runs
//! twice adds a line to the file `twice` beside the directory.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use meseta_executor::{Executor, Handle};
use meseta_protocol::status::{TaskState, TaskStatus};
use meseta_protocol::task::TaskInfo;

struct Once {
    directory: PathBuf,
}

impl Executor for Once {
    fn launch_task(&mut self, driver: &mut Handle<'_>, task: TaskInfo) {
        let status = TaskStatus::new(task.task_id.clone(), TaskState::Running);
        driver.send_status(status);
        let status = TaskStatus::new(task.task_id.clone(), TaskState::Finished);
        driver.send_status(match leave(&self.directory, task.task_id.as_str()) {
            Ok(()) => status,
            Err(error) => {
                TaskStatus::new(task.task_id, TaskState::Failed).saying(error.to_string())
            }
        });
    }
}

fn leave(directory: &Path, name: &str) -> std::io::Result<()> {
    match File::create_new(directory.join(name)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let twice = directory.with_extension("twice");
            let mut twice = OpenOptions::new().create(true).append(true).open(twice)?;
            twice.write_all(format!("{name}\n").as_bytes())
        }
        Err(error) => Err(error),
    }
}

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("once: name the directory");
        return ExitCode::FAILURE;
    };
    meseta_executor::run(|| Once {
        directory: directory.into(),
    })
}
