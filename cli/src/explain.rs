//! `meseta explain framework|task ID`: why no offer comes, and what became of a task, as the leading master tells it.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::client::{encode, get_json, get_text};
use crate::out;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// What to explain.
    what: What,
    /// Its id.
    id: String,
    /// Of a framework: only this agent.
    #[arg(long, env = "MESETA_AGENT")]
    agent: Option<String>,
    /// Of a task: only that of this framework.
    #[arg(long, env = "MESETA_FRAMEWORK")]
    framework: Option<String>,
    /// Agents to show.
    #[arg(long, env = "MESETA_LIMIT", default_value_t = 20)]
    limit: usize,
    /// Agents to pass over.
    #[arg(long, env = "MESETA_OFFSET", default_value_t = 0)]
    offset: usize,
    /// Masters as host:port, a list of them, or a file with one.
    #[arg(long, env = "MESETA_MASTER", default_value = "127.0.0.1:5050")]
    master: String,
    /// Print the JSON as it comes.
    #[arg(long, env = "MESETA_JSON")]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// Why a framework is offered what it is offered.
    Framework,
    /// What became of a task, and which message the master waits for.
    Task,
}

impl Flags {
    fn path(&self) -> String {
        let id = encode(&self.id);
        let mut path = match self.what {
            What::Framework => {
                let (limit, offset) = (self.limit, self.offset);
                format!("/explain/framework?id={id}&limit={limit}&offset={offset}")
            }
            What::Task => format!("/explain/task?id={id}"),
        };
        for (name, value) in [("agent_id", &self.agent), ("framework_id", &self.framework)] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", encode(value)));
            }
        }
        path
    }
}

pub(crate) async fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let path = flags.path();
    if flags.json {
        out::line(&out::json(&get_json(&flags.master, &path).await?, true))?;
    } else {
        let text = get_text(&flags.master, &format!("{path}&format=text")).await?;
        for line in text.lines() {
            out::line(&out::safe_line(line))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
