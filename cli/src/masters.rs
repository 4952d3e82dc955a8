//! `meseta masters`: every master of a cluster, what it does, and how far its replica of the log is.

use std::collections::BTreeSet;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::client::{addresses, ask};
use crate::tables::{Column, Flags, show, text};

/// Shown where something is not known.
const UNKNOWN: &str = "-";

pub(crate) async fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let mut known: BTreeSet<String> = addresses(&flags.master)?.into_iter().collect();
    let mut to_ask: Vec<String> = known.iter().cloned().collect();
    let mut rows = Vec::new();
    // A master that is asked names the others.
    while let Some(address) = to_ask.pop() {
        let state = match ask(&address, "/election(1)/state").await {
            Ok(state) => state,
            Err(error) => {
                rows.push(silent(&address, error.root_cause().to_string()));
                continue;
            }
        };
        let others = state["masters"].as_array();
        for other in others.into_iter().flatten().filter_map(Value::as_str) {
            if known.insert(other.to_owned()) {
                to_ask.push(other.to_owned());
            }
        }
        // A master whose registry is in memory has no log.
        let log = ask(&address, "/log-replica(1)/status").await.ok();
        rows.push(row(&address, &state, log.as_ref()));
    }
    let columns: &[Column] = &[
        ("MASTER", |one| text(&one["master"])),
        ("DOES", |one| doing(one)),
        ("LEADER", |one| text(&one["leader"])),
        ("EPOCH", |one| text(&one["epoch"])),
        ("LOG", |one| text(&one["log"])),
        ("POSITIONS", |one| text(&one["positions"])),
        ("LAG", |one| text(&one["lag"])),
    ];
    show(&flags, &Value::Array(compared(rows)), columns)
}

/// What a master does, and of one that does not answer, why not.
fn doing(master: &Value) -> String {
    let doing = text(&master["doing"]);
    match master["reason"].as_str() {
        Some(reason) => format!("{doing}: {reason}"),
        None => doing,
    }
}

/// A master that does not answer.
fn silent(address: &str, reason: String) -> Value {
    let mut row = row(address, &Value::Null, None);
    row["doing"] = json!("does not answer");
    row["reason"] = json!(reason);
    row
}

/// What one master says of itself and of its replica.
fn row(address: &str, state: &Value, log: Option<&Value>) -> Value {
    let said = |of: Option<&Value>, name: &str| match of.map(|of| &of[name]) {
        None | Some(Value::Null) => json!(UNKNOWN),
        Some(value) => value.clone(),
    };
    let state = Some(state);
    let number = |name: &str| log.and_then(|log| log[name].as_u64());
    let positions = number("begin")
        .zip(number("end"))
        .map_or(UNKNOWN.to_owned(), |(begin, end)| format!("{begin}..{end}"));
    json!({
        "master": address,
        "doing": said(state, "doing"),
        "leader": said(state, "leader"),
        "epoch": said(state, "epoch"),
        "log": said(log, "status"),
        "positions": positions,
        "end": number("end"),
    })
}

/// The rows in order of their addresses, each with how far it is behind the one that is furthest.
fn compared(mut rows: Vec<Value>) -> Vec<Value> {
    let furthest = rows.iter().filter_map(|row| row["end"].as_u64()).max();
    for row in &mut rows {
        let lag = furthest.zip(row["end"].as_u64());
        row["lag"] = lag.map_or(json!(UNKNOWN), |(furthest, end)| json!(furthest - end));
    }
    rows.sort_by_key(|row| text(&row["master"]));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_master_is_compared_with_the_one_that_is_furthest() {
        let state = json!({ "doing": "following", "leader": "b:1", "epoch": 7 });
        let log = |end: u64| json!({ "status": "VOTING", "begin": 3, "end": end });
        let rows = compared(vec![
            silent("c:1", "connection refused".to_owned()),
            row("b:1", &state, Some(&log(9))),
            row("a:1", &state, Some(&log(5))),
        ]);
        let shown =
            |name: &str| -> Vec<String> { rows.iter().map(|row| text(&row[name])).collect() };
        assert_eq!(shown("master"), ["a:1", "b:1", "c:1"]);
        let does: Vec<String> = rows.iter().map(doing).collect();
        assert_eq!(
            does,
            [
                "following",
                "following",
                "does not answer: connection refused"
            ]
        );
        assert_eq!(shown("positions"), ["3..5", "3..9", "-"]);
        assert_eq!(shown("lag"), ["4", "0", "-"]);
        assert_eq!(shown("leader"), ["b:1", "b:1", "-"]);
    }
}
