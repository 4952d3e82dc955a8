//! The replicated log on its own, without a master: three members in one program, each with a directory of its own. One
//! of them writes; then it is ended, and another goes on where it stopped.
//!
//! ```text
//! cargo run -p meseta-examples --example replicated_log
//! ```

#![expect(clippy::print_stdout, reason = "it shows what happens")]

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use meseta_master::log::action::Position;
use meseta_master::log::asks::{Append, Demoted, Elect, Election, LogRead, ReadLog, Writing};
use meseta_master::log::messages::{Span, Status, StatusRequest};
use meseta_master::log::storage::ops::Storage;
use meseta_master::log::storage::{Settings, Store};
use meseta_master::log::{self, LogConfig, LogPids};
use meseta_runtime::ports::FreePorts;
use meseta_runtime::{Address, Context, Node, Pid, Process, Receive, Routes};

const LIMIT: Duration = Duration::from_secs(10);

fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let ports = FreePorts::find(3)?;
    let address = |port: &u16| Address::new("127.0.0.1", *port);
    let addresses: Vec<Address> = ports.all().iter().map(address).collect();
    let mut members = Vec::new();
    for (number, address) in addresses.iter().enumerate() {
        let place = directory.path().join(number.to_string());
        members.push(start(address, &addresses, &place)?);
    }
    all_vote(&members)?;
    let (first, first_log) = members.remove(0);
    for line in write(&first, &first_log, &["one", "two"])? {
        println!("first member: {line}");
    }
    first.shutdown();
    println!("the first member has ended");
    let (second, second_log) = members.remove(0);
    for line in write(&second, &second_log, &["three"])? {
        println!("second member: {line}");
    }
    for (node, _) in members {
        node.shutdown();
    }
    second.shutdown();
    Ok(())
}

/// One member: a store, a node that works on it, and the log's processes.
fn start(address: &Address, all: &[Address], directory: &Path) -> anyhow::Result<(Node, LogPids)> {
    let store = Store::open(directory, &Settings::default())?;
    let builder = Node::builder()
        .role("master")
        .port(address.port)
        .http(false);
    let node = Storage::from(store).serve(builder).start()?;
    let config = LogConfig {
        replicas: all.to_vec(),
        auto_initialize: true,
        directory: directory.to_owned(),
    };
    let log = log::start(&node, config)?;
    Ok((node, log))
}

/// Waits until every member votes. A log begins with all of its members, so none may end before that.
fn all_vote(members: &[(Node, LogPids)]) -> anyhow::Result<()> {
    for (node, log) in members {
        loop {
            let status = StatusRequest { ask: 0, span: None };
            let status = node.ask(&log.replica, status, LIMIT).wait()?.status;
            if status == Status::Voting {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Has entries written at a member, and returns what is said of them and then the whole log.
fn write(node: &Node, log: &LogPids, entries: &[&str]) -> anyhow::Result<Vec<String>> {
    let (tell, told): (Sender<String>, Receiver<String>) = channel();
    let entries = entries
        .iter()
        .rev()
        .map(|entry| (*entry).to_owned())
        .collect();
    let log = log.clone();
    let writer = node.spawn("writer", move || Writer { log, entries, tell })?;
    let mut lines = Vec::new();
    // The channel ends with the writer.
    while let Ok(line) = told.recv_timeout(LIMIT * 3) {
        lines.push(line);
    }
    node.terminate(&writer);
    anyhow::ensure!(!lines.is_empty(), "nothing was written");
    lines.last().context("nothing was said")?;
    Ok(lines)
}

/// Becomes the writer of the log, appends its entries one after another, reads all, and ends.
struct Writer {
    log: LogPids,
    /// What is left, the next one last.
    entries: Vec<String>,
    tell: Sender<String>,
}

impl Process for Writer {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Demoted>();
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        let coordinator = self.log.coordinator.clone();
        cx.ask(
            &coordinator,
            Elect {},
            LIMIT,
            |this, cx, answer| match answer {
                Ok(Election::Elected { epoch, ending }) => {
                    this.say(format!(
                        "elected with epoch {epoch}, the log ends at {ending}"
                    ));
                    this.append(cx, ending);
                }
                // Not all members are there yet, or another one tries too.
                Ok(Election::NotElected { .. }) | Err(_) => {
                    cx.after(Duration::from_millis(200), Self::start);
                }
            },
        );
    }
}

impl Receive<Demoted> for Writer {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, _: Demoted) {
        cx.fail("another member writes the log now");
    }
}

impl Writer {
    fn append(&mut self, cx: &mut Context<'_, Self>, last: Position) {
        let Some(entry) = self.entries.pop() else {
            self.read(cx, last);
            return;
        };
        let coordinator = self.log.coordinator.clone();
        let bytes = Bytes::from(entry.clone());
        cx.ask(
            &coordinator,
            Append { bytes },
            LIMIT,
            move |this, cx, answer| match answer {
                Ok(Writing::Written { position }) => {
                    this.say(format!("{entry} stands at {position}"));
                    this.append(cx, position);
                }
                other => cx.fail(format!("{entry} is not written: {other:?}")),
            },
        );
    }

    fn read(&mut self, cx: &mut Context<'_, Self>, to: Position) {
        let replica = self.log.replica.clone();
        let from = Position(1);
        let span = Span { from, to };
        cx.ask(&replica, ReadLog { span }, LIMIT, |this, cx, answer| {
            if let Ok(LogRead::Entries { entries, .. }) = answer {
                let text =
                    |(_, bytes): &(Position, Bytes)| String::from_utf8_lossy(bytes).into_owned();
                let all: Vec<String> = entries.iter().map(text).collect();
                this.say(format!("the log holds {}", all.join(", ")));
            }
            cx.stop();
        });
    }

    fn say(&self, line: String) {
        // Nobody listens any more when the program ends.
        drop(self.tell.send(line));
    }
}
