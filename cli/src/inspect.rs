//! `meseta agent inspect DIR`: what the agent with this work directory has written down, as text or JSON.
//!
//! Reads the files without opening them as the agent does, so it may run beside an agent, and shows what it can of a
//! damaged one. Exits with 1 when something cannot be read.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use meseta_agent::checkpoint::records::Record;
use meseta_agent::checkpoint::{Latest, Loaded, look};
use serde_json::{Value, json};

use crate::out;

#[derive(Debug, Parser)]
#[command(
    name = "meseta agent inspect",
    about = "Shows what an agent has written down for its next run"
)]
struct Flags {
    /// Work directory of the agent.
    directory: PathBuf,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Runs with the arguments after `inspect`.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let name = "meseta agent inspect".to_owned();
    let flags = Flags::try_parse_from(std::iter::once(&name).chain(arguments));
    let flags = flags.unwrap_or_else(|error| error.exit());
    let found = look(&flags.directory)?;
    if flags.json {
        out::line(&out::json(&as_json(&found), true))?;
    } else {
        for line in as_text(&found) {
            out::line(&out::safe_line(&line))?;
        }
    }
    Ok(if found.faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn latest(found: &Loaded) -> Option<String> {
    match &found.latest {
        Latest::Is(id) => Some(id.to_string()),
        Latest::Never | Latest::TakenAway => None,
    }
}

fn as_json(found: &Loaded) -> Value {
    let records = found.records.iter().map(|record| {
        let (kind, value) = match record {
            Record::Agent(one) => ("agent", serde_json::to_value(one)),
            Record::Framework(one) => ("framework", serde_json::to_value(one)),
            Record::Executor(one) => ("executor", serde_json::to_value(one)),
            Record::Task(one) => ("task", serde_json::to_value(one)),
            Record::Update(one) => ("update", serde_json::to_value(one)),
        };
        json!({ "key": record.key(), "kind": kind, "record": value.unwrap_or(Value::Null) })
    });
    let faults = found.faults.iter();
    json!({
        "file": found.file,
        "latest": latest(found),
        "faults": faults.map(|fault| json!({ "file": fault.file, "what": fault.what })).collect::<Vec<_>>(),
        "records": records.collect::<Vec<_>>(),
    })
}

fn as_text(found: &Loaded) -> Vec<String> {
    let mut lines = vec![format!("file       {}", found.file.display())];
    lines.push(match &found.latest {
        Latest::Is(id) => format!("latest     {id}"),
        Latest::Never => "latest     none yet".to_owned(),
        Latest::TakenAway => "latest     taken away: the agent begins as a new one".to_owned(),
    });
    lines.extend(found.records.iter().map(line));
    let faults = found.faults.iter();
    lines
        .extend(faults.map(|fault| format!("UNREADABLE {}: {}", fault.file.display(), fault.what)));
    lines
}

fn line(record: &Record) -> String {
    match record {
        Record::Agent(one) => format!(
            "agent      {} on {}:{}, {}; boot {}",
            one.info.id.clone().unwrap_or_default(),
            one.info.hostname,
            one.info.port,
            one.info.resources,
            one.boot_id
        ),
        Record::Framework(one) => format!(
            "framework  {} '{}'",
            one.info.id.clone().unwrap_or_default(),
            one.info.name
        ),
        Record::Executor(one) => {
            let process = match one.process {
                Some(known) => format!("process {} of tick {}", known.process, known.started),
                None => "no process noted".to_owned(),
            };
            format!(
                "executor   {} of {}, container {}, {process}",
                one.info.executor_id, one.framework_id, one.container_id
            )
        }
        Record::Task(one) if one.is_over => format!(
            "task       {} of {} on executor {}, over",
            one.info.task_id, one.framework_id, one.executor_id
        ),
        Record::Task(one) => format!(
            "task       {} of {} on executor {}, {}",
            one.info.task_id, one.framework_id, one.executor_id, one.info.resources
        ),
        Record::Update(one) => format!(
            "update     {} of task {} of {}, {}",
            one.update.status.state,
            one.update.status.task_id,
            one.update.framework_id,
            if one.acknowledged {
                "acknowledged"
            } else {
                "not acknowledged"
            }
        ),
    }
}
