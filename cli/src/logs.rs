//! `meseta logs TASK`: what a task has written to its sandbox, read through its agent.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::Value;

use crate::client::{encode, get_json};
use crate::out;

/// How often a followed file is looked at.
const LOOK: Duration = Duration::from_millis(300);
/// Most bytes read at once.
const CHUNK: usize = 65_536;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Id of the task.
    task: String,
    /// Go on until the task has ended.
    #[arg(short = 'f', long, env = "MESETA_FOLLOW")]
    follow: bool,
    /// Print standard error instead of standard output.
    #[arg(long, env = "MESETA_STDERR")]
    stderr: bool,
    /// Masters as host:port, a list of them, or a file with one.
    #[arg(long, env = "MESETA_MASTER", default_value = "127.0.0.1:5050")]
    master: String,
}

pub(crate) async fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let task = find(&flags).await?;
    let agent = agent_address(&flags, &task).await?;
    let own = |name: &str| task[name].as_str().unwrap_or_default().to_owned();
    let executor = match own("executor_id") {
        none if none.is_empty() => own("id"),
        some => some,
    };
    let file = if flags.stderr { "stderr" } else { "stdout" };
    let log = Log {
        agent,
        directory: format!(
            "/frameworks/{}/executors/{executor}/runs/latest",
            own("framework_id")
        ),
        file,
    };
    for number in log.older_parts().await.into_iter().rev() {
        log.print_from(&log.part(number), 0).await?;
    }
    let mut offset = 0;
    let mut look = tokio::time::interval(LOOK);
    loop {
        look.tick().await;
        // Asked for before the read, so that what was written up to the end is still read once.
        let over = !flags.follow || ended(&find(&flags).await?);
        offset = log.print_new(offset).await?;
        if over {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// The latest task of this id.
async fn find(flags: &Flags) -> anyhow::Result<Value> {
    let path = format!("/tasks?limit=1&task_id={}", encode(&flags.task));
    let mut answer = get_json(&flags.master, &path).await?;
    let task = answer
        .get_mut("tasks")
        .and_then(|tasks| tasks.get_mut(0))
        .map(Value::take)
        .unwrap_or_default();
    anyhow::ensure!(
        !task.is_null(),
        "the master at {} knows no task {}: `meseta tasks` lists them",
        flags.master,
        flags.task
    );
    Ok(task)
}

fn ended(task: &Value) -> bool {
    let state = task["state"].as_str().unwrap_or_default();
    meseta_protocol::status::TaskState::from_name(state).is_terminal()
}

async fn agent_address(flags: &Flags, task: &Value) -> anyhow::Result<String> {
    let id = task["slave_id"].as_str().unwrap_or_default();
    let answer = get_json(&flags.master, &format!("/slaves?slave_id={}", encode(id))).await?;
    let pid = answer["slaves"][0]["pid"].as_str().with_context(|| {
        format!("agent {id} of the task is gone: its files can only be read on its host")
    })?;
    let pid: meseta_runtime::Pid = pid.parse()?;
    Ok(pid.address().to_string())
}

/// One of the two logs of a container, which its agent rotates: `stdout` grows, its beginning becomes `stdout.1`, and what
/// was that `stdout.2`.
struct Log {
    agent: String,
    directory: String,
    file: &'static str,
}

impl Log {
    fn part(&self, number: u32) -> String {
        format!("{}/{}.{number}", self.directory, self.file)
    }

    /// Numbers of the older parts, the newest first.
    async fn older_parts(&self) -> Vec<u32> {
        let query = format!("/files/browse?path={}", encode(&self.directory));
        // What cannot be listed has none; reading says why.
        let listed = get_json(&self.agent, &query).await.unwrap_or_default();
        let entries = listed.as_array().into_iter().flatten();
        let mut numbers: Vec<u32> = entries
            .filter_map(|entry| entry["path"].as_str()?.rsplit('/').next())
            .filter_map(|name| {
                name.strip_prefix(self.file)?
                    .strip_prefix('.')?
                    .parse()
                    .ok()
            })
            .collect();
        numbers.sort_unstable();
        numbers
    }

    /// Prints what has come since `offset`; the offset of what comes next.
    async fn print_new(&self, offset: usize) -> anyhow::Result<usize> {
        let path = format!("{}/{}", self.directory, self.file);
        let offset = self.print_from(&path, offset).await?;
        if self.length(&path).await? >= offset {
            return Ok(offset);
        }
        // It has been rotated: so much of its beginning is the newest part now.
        let newest = self.part(1);
        let moved = self.length(&newest).await.unwrap_or(offset);
        if offset < moved {
            self.print_from(&newest, offset).await?;
        }
        self.print_from(&path, offset.saturating_sub(moved)).await
    }

    async fn length(&self, path: &str) -> anyhow::Result<usize> {
        let query = format!("/files/read?path={}&offset=-1", encode(path));
        let answer = get_json(&self.agent, &query).await?;
        let length = answer["offset"].as_u64().unwrap_or_default();
        Ok(usize::try_from(length)?)
    }

    /// Prints everything from `offset` on; the offset of what comes next.
    async fn print_from(&self, path: &str, mut offset: usize) -> anyhow::Result<usize> {
        loop {
            let query = format!(
                "/files/read?path={}&offset={offset}&length={CHUNK}",
                encode(path)
            );
            let answer = get_json(&self.agent, &query).await?;
            let data = answer["data"].as_str().unwrap_or_default();
            let size = answer["size"]
                .as_u64()
                .and_then(|size| usize::try_from(size).ok());
            let read = size.unwrap_or(data.len());
            if read == 0 {
                return Ok(offset);
            }
            out::bytes(data.as_bytes())?;
            offset += read;
        }
    }
}
