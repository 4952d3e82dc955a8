//! What `meseta top` shows, as lines of text and as JSON.
//! Pure: a view of a node in, text out.

use comfy_table::Table;
use serde_json::{Value, json};

use super::diagnosis::{Finding, bytes, diagnose, micros, millis};
use super::sample::{Peer, PeerRates, Process, ProcessRates, Sample, View, number};

/// Findings shown at most; the worst come first.
const MAX_FINDINGS: usize = 5;
/// Handlers shown of one actor.
const MAX_HANDLERS: usize = 2;

/// In which order actors are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Sort {
    /// By the age of the oldest message that waits.
    #[default]
    Oldest,
    /// By how many messages wait.
    Depth,
    /// By the part of the time spent in handlers.
    Busy,
    /// By messages handled in a second.
    Rate,
}

impl Sort {
    /// The order after this one, round and round.
    pub(crate) fn next(self) -> Self {
        match self {
            Self::Oldest => Self::Depth,
            Self::Depth => Self::Busy,
            Self::Busy => Self::Rate,
            Self::Rate => Self::Oldest,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Oldest => "oldest message",
            Self::Depth => "mailbox depth",
            Self::Busy => "busy time",
            Self::Rate => "messages/s",
        }
    }

    /// Actors in this order; those that are equal in it, by the others, at last by name.
    fn order(self, view: &View) -> Vec<(&Process, &ProcessRates)> {
        let mut all: Vec<_> = view.sample.processes.iter().zip(&view.processes).collect();
        let key = |one: &(&Process, &ProcessRates)| {
            let oldest = number(one.0.oldest_message_ms);
            let depth = number(one.0.mailbox_depth);
            let (busy, rate) = (one.1.busy, one.1.handled);
            match self {
                Self::Oldest => [oldest, depth, busy, rate],
                Self::Depth => [depth, oldest, busy, rate],
                Self::Busy => [busy, depth, oldest, rate],
                Self::Rate => [rate, depth, oldest, busy],
            }
        };
        all.sort_by(|a, b| {
            let pairs = key(a).into_iter().zip(key(b));
            let first = pairs.map(|(a, b)| b.total_cmp(&a)).find(|o| o.is_ne());
            first.unwrap_or_else(|| a.0.pid.cmp(&b.0.pid))
        });
        all
    }
}

/// The whole screen, one line each.
pub(crate) fn lines(view: &View, sort: Sort) -> Vec<String> {
    let mut all = vec![head(&view.sample)];
    all.push(String::new());
    all.extend(answer(view));
    all.push(String::new());
    all.push(format!(
        "ACTORS: {}, by {}",
        view.sample.processes.len(),
        sort.name()
    ));
    all.extend(actors(view, sort));
    all.push(String::new());
    all.push(format!("PEERS: {}", view.sample.peers.len()));
    if !view.sample.peers.is_empty() {
        all.extend(peers(view));
    }
    all
}

fn head(sample: &Sample) -> String {
    let threads: Vec<String> = sample
        .threads
        .iter()
        .take(3)
        .map(|thread| format!("{} {}", thread.name, millis(thread.cpu_ms)))
        .collect();
    format!(
        "{}   up {}   memory {}   {} threads, most processor time: {}",
        sample.address,
        millis(sample.uptime_ms),
        bytes(number(sample.resident_bytes)),
        sample.threads.len(),
        threads.join(", ")
    )
}

/// Where is my message stuck?
fn answer(view: &View) -> Vec<String> {
    let findings = diagnose(view);
    let mut all = Vec::new();
    if findings.is_empty() {
        let oldest = view
            .sample
            .processes
            .iter()
            .map(|one| one.oldest_message_ms);
        all.push(format!(
            "Nothing is stuck: the oldest message in a mailbox has waited {}, and no queue to a peer grows.",
            millis(oldest.max().unwrap_or(0))
        ));
    } else {
        all.push("STUCK".to_owned());
    }
    all.extend(
        findings
            .iter()
            .take(MAX_FINDINGS)
            .map(|one| format!("  {one}")),
    );
    if findings.len() > MAX_FINDINGS {
        all.push(format!("  and {} more", findings.len() - MAX_FINDINGS));
    }
    if !view.drops.is_empty() {
        let drops: Vec<String> = view
            .drops
            .iter()
            .map(|(cause, count)| format!("{cause} {count}"))
            .collect();
        all.push(format!("Dropped since the last look: {}", drops.join(", ")));
    }
    all
}

fn actors(view: &View, sort: Sort) -> Vec<String> {
    let mut table = plain(&[
        "ID",
        "WAIT",
        "OLDEST",
        "MSG/S",
        "BUSY",
        "DROPS/S",
        "LINKS",
        "WATCHED",
        "THREAD",
        "BUSIEST HANDLERS",
    ]);
    for (process, rates) in sort.order(view) {
        table.add_row([
            process.id.clone(),
            process.mailbox_depth.to_string(),
            millis(process.oldest_message_ms),
            format!("{:.0}", rates.handled),
            percent(rates.busy),
            format!("{:.0}", rates.dropped),
            process.links.to_string(),
            process.watchers.to_string(),
            process.thread.to_string(),
            handlers(process, rates),
        ]);
    }
    rows(&table)
}

/// What an actor does now, or did most of the time; over its whole life when there is nothing to compare with.
fn handlers(process: &Process, rates: &ProcessRates) -> String {
    if let Some(operation) = &process.holding {
        return format!("waits for {operation}");
    }
    let lately = rates.handlers.iter().take(MAX_HANDLERS);
    let lately: Vec<String> = lately
        .map(|(message, part)| format!("{message} {}", percent(*part)))
        .collect();
    if !lately.is_empty() {
        return lately.join(", ");
    }
    let ever = process.handlers.iter().filter(|one| one.busy_us > 0);
    let ever: Vec<String> = ever
        .take(MAX_HANDLERS)
        .map(|one| format!("{} ({} in all)", one.message, micros(one.busy_us)))
        .collect();
    ever.join(", ")
}

fn peers(view: &View) -> Vec<String> {
    let mut table = plain(&[
        "PEER",
        "CONNECTED",
        "QUEUED",
        "GROWS",
        "RTT",
        "LOST/S",
        "DROPS/S",
        "OUT/S, IN/S BY LANE",
    ]);
    for (peer, rates) in view.sample.peers.iter().zip(&view.peers) {
        table.add_row([
            peer.peer.clone(),
            if peer.connected { "yes" } else { "no" }.to_owned(),
            bytes(number(peer.queued_bytes)),
            format!("{}/s", bytes(rates.growth.max(0.0))),
            micros(peer.rtt_us),
            format!("{:.0}", rates.lost),
            format!("{:.0}", rates.dropped),
            lanes(peer, rates),
        ]);
    }
    rows(&table)
}

fn lanes(peer: &Peer, rates: &PeerRates) -> String {
    let all = peer
        .lanes
        .iter()
        .zip(&rates.lanes)
        .map(|(lane, (out, inward))| format!("{}: {} {}", lane.lane, bytes(*out), bytes(*inward)));
    all.collect::<Vec<_>>().join("; ")
}

fn percent(part: f64) -> String {
    format!("{:.0} %", part * 100.0)
}

fn plain(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(headings);
    table
}

fn rows(table: &Table) -> Vec<String> {
    table
        .to_string()
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

/// The same for programs.
pub(crate) fn as_json(view: &View, sort: Sort) -> Value {
    let actors = sort.order(view).into_iter().map(|(process, rates)| {
        json!({
            "pid": process.pid,
            "mailbox_depth": process.mailbox_depth,
            "oldest_message_ms": process.oldest_message_ms,
            "messages_per_second": rates.handled,
            "drops_per_second": rates.dropped,
            "busy": rates.busy,
            "holding": process.holding,
            "handlers": rates.handlers.iter().map(|(message, part)| json!({
                "message": message,
                "busy": part,
            })).collect::<Vec<_>>(),
        })
    });
    let peers = view
        .sample
        .peers
        .iter()
        .zip(&view.peers)
        .map(|(peer, rates)| {
            json!({
                "peer": peer.peer,
                "connected": peer.connected,
                "queued_bytes": peer.queued_bytes,
                "queue_growth_per_second": rates.growth,
                "rtt_us": peer.rtt_us,
                "lost_packets_per_second": rates.lost,
                "drops_per_second": rates.dropped,
                "lanes": peer.lanes.iter().zip(&rates.lanes).map(|(lane, (sent, received))| json!({
                    "lane": lane.lane,
                    "queued_bytes": lane.queued_bytes,
                    "sent_bytes_per_second": sent,
                    "received_bytes_per_second": received,
                })).collect::<Vec<_>>(),
            })
        });
    json!({
        "address": view.sample.address,
        "elapsed_ms": view.elapsed_ms,
        "stuck": diagnose(view).iter().map(Finding::to_string).collect::<Vec<_>>(),
        "actors": actors.collect::<Vec<_>>(),
        "peers": peers.collect::<Vec<_>>(),
        "drops": view.drops,
    })
}

/// Cuts the text to a screen: so many lines of so many characters.
pub(crate) fn fit(lines: &[String], rows: usize, columns: usize) -> Vec<String> {
    let cut = |line: &String| line.chars().take(columns).collect();
    let mut all: Vec<String> = lines.iter().take(rows).map(cut).collect();
    if lines.len() > rows
        && let Some(last) = all.last_mut()
    {
        *last = cut(&format!("… and {} lines more", lines.len() - rows + 1));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let process = |id: &str, depth, oldest, handled| Process {
            id: id.to_owned(),
            pid: format!("{id}@h:1"),
            mailbox_depth: depth,
            oldest_message_ms: oldest,
            messages_handled: handled,
            ..Process::default()
        };
        let sample = |uptime_ms, handled| Sample {
            address: "h:1".to_owned(),
            uptime_ms,
            processes: vec![
                process("old", 1, 900, handled / 2),
                process("deep", 7, 10, handled),
            ],
            ..Sample::default()
        };
        View::new(Some(&sample(1_000, 0)), sample(2_000, 80))
    }

    fn order(sort: Sort) -> Vec<String> {
        let view = view();
        let all = sort.order(&view).into_iter().map(|(one, _)| one.id.clone());
        all.collect()
    }

    #[test]
    fn actors_come_in_the_order_asked_for() {
        assert_eq!(order(Sort::Oldest), ["old", "deep"]);
        assert_eq!(order(Sort::Depth), ["deep", "old"]);
        assert_eq!(order(Sort::Rate), ["deep", "old"]);
        let (mut sort, mut seen) = (Sort::Oldest, 0);
        while seen == 0 || sort != Sort::Oldest {
            (sort, seen) = (sort.next(), seen + 1);
        }
        assert_eq!(seen, 4, "each is reached with one key");
    }

    #[test]
    fn the_answer_stands_above_the_tables_in_text_and_json() {
        let mut view = view();
        assert!(
            lines(&view, Sort::Oldest)[2]
                .starts_with("Nothing is stuck: the oldest message in a mailbox has waited 900 ms")
        );
        view.sample.processes[0].holding = Some("Write".to_owned());
        view.sample.processes[0].oldest_message_ms = 61_000;
        let lines = lines(&view, Sort::Oldest);
        assert_eq!(lines[2], "STUCK");
        assert_eq!(
            lines[3],
            "  old@h:1: 1 messages wait, the oldest for 1 min: it waits for the operation Write"
        );
        let json = as_json(&view, Sort::Depth);
        assert_eq!(json["stuck"].as_array().map(Vec::len), Some(1));
        assert_eq!(json["actors"][0]["pid"], "deep@h:1");
        assert_eq!(json["actors"][0]["messages_per_second"], 80.0);
    }

    #[test]
    fn what_does_not_fit_the_screen_is_counted() {
        let lines = ["aaaa", "bb", "cc", "dd"].map(str::to_owned);
        assert_eq!(fit(&lines, 4, 3), ["aaa", "bb", "cc", "dd"]);
        assert_eq!(fit(&lines, 3, 20), ["aaaa", "bb", "… and 2 lines more"]);
    }
}
