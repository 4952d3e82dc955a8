//! `meseta top`: what the actors and peers of a node do, and where messages are stuck, looked at again and again.
//!
//! The shell round pure parts: [`sample`] compares two looks, [`diagnosis`] says what is stuck, [`view`] shows both. A
//! node that does not answer is asked on and on, and its last state stays on the screen meanwhile.

mod diagnosis;
mod sample;
mod terminal;
#[cfg(test)]
mod tests;
mod view;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::client::{get_json, leader};
use crate::out;
use sample::{Sample, View};
use terminal::{Key, Screen};
use view::Sort;

/// How long the node may take to answer before that is said.
const LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Master as host:port; of a list, or a file with one, the leader.
    #[arg(long, env = "MESETA_MASTER", default_value = "127.0.0.1:5050")]
    master: String,
    /// Agent, or any other node, as host:port, instead of the master.
    #[arg(long, env = "MESETA_NODE", value_name = "NODE")]
    node: Option<String>,
    /// Time between two looks.
    #[arg(long, env = "MESETA_INTERVAL", default_value = "1s", value_parser = meseta_runtime::flags::duration)]
    interval: Duration,
    /// Look twice, print, and end; so also when the output is no terminal.
    #[arg(long, env = "MESETA_ONCE")]
    once: bool,
    /// Print JSON, one line a look, instead of the screen.
    #[arg(long, env = "MESETA_JSON")]
    json: bool,
    /// Order of the actors.
    #[arg(long, env = "MESETA_SORT", value_enum, default_value_t)]
    sort: Sort,
}

pub(crate) async fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let shortest = Duration::from_millis(100);
    anyhow::ensure!(
        flags.interval >= shortest,
        "--interval={}: looks so close together tell nothing: give 100ms or more",
        humantime::format_duration(flags.interval)
    );
    let address = match &flags.node {
        Some(node) => node.clone(),
        None => leader(&flags.master).await?,
    };
    if flags.once || (!flags.json && !std::io::stdout().is_terminal()) {
        return once(&flags, &address).await;
    }
    if flags.json {
        return each_look(&flags, &address).await;
    }
    on_screen(&flags, &address).await
}

/// What the node tells. As text it goes to a terminal, and is made safe for it.
async fn look(address: &str, json: bool) -> anyhow::Result<Sample> {
    let asked = tokio::time::timeout(LIMIT, get_json(address, "/__processes__"));
    let shown = asked
        .await
        .with_context(|| format!("{address} has not answered for {LIMIT:?}"))??;
    let shown = if json { shown } else { out::made_safe(shown) };
    serde_json::from_value(shown).with_context(|| {
        format!("{address} does not tell of its processes as this version reads it")
    })
}

/// Two looks, so that there are rates, and one page.
async fn once(flags: &Flags, address: &str) -> anyhow::Result<ExitCode> {
    let before = look(address, flags.json).await?;
    tokio::time::interval_at(tokio::time::Instant::now() + flags.interval, flags.interval)
        .tick()
        .await;
    let view = View::new(Some(&before), look(address, flags.json).await?);
    if flags.json {
        out::line(&out::json(&view::as_json(&view, flags.sort), false))?;
    } else {
        out::line(&view::lines(&view, flags.sort).join("\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One line of JSON for each look, until the reader has enough.
async fn each_look(flags: &Flags, address: &str) -> anyhow::Result<ExitCode> {
    let mut before: Option<Sample> = None;
    let mut ticks = tokio::time::interval(flags.interval);
    loop {
        ticks.tick().await;
        let line = match look(address, true).await {
            Ok(sample) => {
                let view = View::new(before.as_ref(), sample);
                let line = view::as_json(&view, flags.sort);
                before = Some(view.sample);
                line
            }
            Err(error) => serde_json::json!({ "address": address, "error": format!("{error:#}") }),
        };
        out::line(&out::json(&line, false))?;
    }
}

/// The screen, until `q` or a signal.
async fn on_screen(flags: &Flags, address: &str) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut screen = Screen::open()?;
    let mut ticks = tokio::time::interval(flags.interval);
    let mut sort = flags.sort;
    let mut last: Option<View> = None;
    let mut trouble: Option<String> = None;
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            key = screen.key() => match key {
                Key::Quit => break,
                Key::Sort => sort = sort.next(),
                Key::Other => {}
            },
            _ = ticks.tick() => match look(address, false).await {
                Ok(sample) => {
                    let before = last.take().map(|view| view.sample);
                    last = Some(View::new(before.as_ref(), sample));
                    trouble = None;
                }
                Err(error) => trouble = Some(format!("{error:#}")),
            },
        }
        screen.show(&page(last.as_ref(), trouble.as_deref(), sort))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is shown: the last state, under a line that says what is wrong now.
fn page(last: Option<&View>, trouble: Option<&str>, sort: Sort) -> Vec<String> {
    let mut lines = vec!["q quits, s sorts".to_owned()];
    if let Some(trouble) = trouble {
        lines.push(format!("NO ANSWER: {}; trying on", out::safe_line(trouble)));
    }
    if let Some(view) = last {
        lines.extend(view::lines(view, sort));
    }
    lines
}
