//! `meseta agents|frameworks|tasks|processes`: what the cluster's HTTP endpoints show, as tables.

use std::process::ExitCode;

use clap::Args;
use comfy_table::Table;
use serde_json::Value;

use crate::client::get_json;
use crate::out;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Masters (for `processes`: any node) as host:port, a list of them, or a file with one.
    #[arg(
        long,
        global = true,
        env = "MESETA_MASTER",
        default_value = "127.0.0.1:5050"
    )]
    pub(crate) master: String,
    /// Print the JSON as it comes.
    #[arg(long, env = "MESETA_JSON")]
    pub(crate) json: bool,
}

/// One column: its heading, and its cell of a row.
pub(crate) type Column = (&'static str, fn(&Value) -> String);

pub(crate) async fn agents(flags: Flags) -> anyhow::Result<ExitCode> {
    let slaves = get_json(&flags.master, "/slaves").await?["slaves"].take();
    let columns: &[Column] = &[
        ("ID", |one| text(&one["id"])),
        ("PID", |one| text(&one["pid"])),
        ("ACTIVE", |one| text(&one["active"])),
        ("CPUS", |one| share(one, "cpus")),
        ("MEM (MiB)", |one| share(one, "mem")),
        ("DISK (MiB)", |one| share(one, "disk")),
    ];
    show(&flags, &slaves, columns)
}

pub(crate) async fn frameworks(flags: Flags) -> anyhow::Result<ExitCode> {
    let mut answer = get_json(&flags.master, "/frameworks").await?;
    let mut all = Vec::new();
    for list in ["frameworks", "completed_frameworks"] {
        if let Value::Array(list) = answer[list].take() {
            all.extend(list);
        }
    }
    let columns: &[Column] = &[
        ("ID", |one| text(&one["id"])),
        ("NAME", |one| text(&one["name"])),
        ("USER", |one| text(&one["user"])),
        ("CONNECTED", |one| text(&one["connected"])),
        ("TASKS", |one| count(&one["tasks"])),
        ("COMPLETED", |one| count(&one["completed_tasks"])),
        ("CPUS", |one| text(&one["resources"]["cpus"])),
        ("MEM (MiB)", |one| text(&one["resources"]["mem"])),
    ];
    show(&flags, &Value::Array(all), columns)
}

pub(crate) async fn tasks(flags: Flags) -> anyhow::Result<ExitCode> {
    let tasks = get_json(&flags.master, "/tasks?limit=100000&order=asc").await?["tasks"].take();
    let columns: &[Column] = &[
        ("ID", |one| text(&one["id"])),
        ("STATE", |one| text(&one["state"])),
        ("FRAMEWORK", |one| text(&one["framework_id"])),
        ("AGENT", |one| text(&one["slave_id"])),
        ("CPUS", |one| text(&one["resources"]["cpus"])),
        ("MEM (MiB)", |one| text(&one["resources"]["mem"])),
    ];
    show(&flags, &tasks, columns)
}

pub(crate) async fn processes(flags: Flags) -> anyhow::Result<ExitCode> {
    let processes = get_json(&flags.master, "/__processes__").await?["processes"].take();
    let columns: &[Column] = &[
        ("PID", |one| text(&one["pid"])),
        ("MAILBOX", |one| text(&one["mailbox_depth"])),
        ("HANDLED", |one| text(&one["messages_handled"])),
        ("DROPPED", |one| text(&one["messages_dropped"])),
    ];
    show(&flags, &processes, columns)
}

pub(crate) fn show(flags: &Flags, rows: &Value, columns: &[Column]) -> anyhow::Result<ExitCode> {
    if flags.json {
        out::line(&out::json(rows, true))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(columns.iter().map(|(heading, _)| *heading));
    for row in rows.as_array().into_iter().flatten() {
        table.add_row(columns.iter().map(|(_, cell)| cell(row)));
    }
    out::line(&table.to_string())?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => out::safe_line(text).into_owned(),
        Value::Null => String::new(),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            out::json(other, false)
        }
    }
}

fn count(value: &Value) -> String {
    value.as_array().map_or(0, Vec::len).to_string()
}

/// `used/total` of one resource.
fn share(agent: &Value, name: &str) -> String {
    format!(
        "{}/{}",
        text(&agent["used_resources"][name]),
        text(&agent["resources"][name])
    )
}
