//! The executor of the word count: counts the slices in each task's data on a thread of its own and hands the result
//! over as the data of TASK_FINISHED, so that it arrives as surely as the task's end does.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use meseta_executor::{Executor, Handle, Remote};
use meseta_protocol::status::{TaskState, TaskStatus};
use meseta_protocol::task::TaskInfo;
use serde::{Deserialize, Serialize};

use crate::count::{Counts, count_slice, to_text};
use crate::split::Slice;

/// Largest result, in bytes; only a single word of about this size makes one larger.
const MAX_RESULT: usize = 48 << 20;

/// A slice as it travels in a task's data.
#[derive(Debug, Serialize, Deserialize)]
struct Assignment {
    /// Path as bytes, since a file name need not be UTF-8.
    #[serde(with = "serde_bytes")]
    path: Vec<u8>,
    begin: u64,
    end: u64,
}

/// The task data of a portion.
pub(crate) fn assignment(portion: &[Slice]) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    let parts: Vec<Assignment> = portion
        .iter()
        .map(|slice| Assignment {
            path: slice.path.as_os_str().as_bytes().to_vec(),
            begin: slice.begin,
            end: slice.end,
        })
        .collect();
    rmp_serde::to_vec_named(&parts)
}

/// The executor.
pub(crate) struct WordCounter;

impl Executor for WordCounter {
    fn launch_task(&mut self, driver: &mut Handle<'_>, task: TaskInfo) {
        driver.send_status(TaskStatus::new(task.task_id.clone(), TaskState::Running));
        let remote = driver.remote();
        std::thread::spawn(move || run(&task, &remote));
    }
}

fn run(task: &TaskInfo, remote: &Remote) {
    let status = match work(task) {
        Ok(result) => {
            let mut status = TaskStatus::new(task.task_id.clone(), TaskState::Finished);
            status.data = Some(result.into());
            status
        }
        Err(error) => {
            TaskStatus::new(task.task_id.clone(), TaskState::Failed).saying(format!("{error:#}"))
        }
    };
    remote.send_status(status);
}

fn work(task: &TaskInfo) -> anyhow::Result<Vec<u8>> {
    let data = task
        .data
        .as_ref()
        .map(|data| data.as_slice())
        .unwrap_or_default();
    let parts: Vec<Assignment> = rmp_serde::from_slice(data)?;
    let mut counts = Counts::new();
    for part in parts {
        let slice = Slice {
            path: OsString::from_vec(part.path).into(),
            begin: part.begin,
            end: part.end,
        };
        count_slice(&slice, &mut counts)
            .map_err(|error| anyhow::anyhow!("{}: {error}", slice.path.display()))?;
    }
    let result = to_text(&counts);
    anyhow::ensure!(
        result.len() <= MAX_RESULT,
        "a word of more than {MAX_RESULT} bytes cannot be counted"
    );
    Ok(result)
}
