//! Many emulated agents for masters that run already: what a master of a large cluster answers, and how fast, can then be
//! looked at with any client. They register, follow the leader and answer its pings, and run nothing: nobody may launch
//! tasks on them.
//!
//! ```text
//! target/release/meseta-master --port 5050 --work_dir DIR &
//! cargo run --release --example many_agents -- --masters 127.0.0.1:5050 --agents 1000
//! ```

#![expect(
    clippy::print_stdout,
    reason = "whoever started it waits for its words"
)]

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use clap::Parser;
use meseta_protocol::messages::election::ELECTION;
use meseta_runtime::flags::{candidates, duration, logging_level};
use meseta_runtime::{Clock, Node};
use meseta_tests::emulated::{Emulated, Event, Scene};

/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(1);

#[derive(Debug, Parser)]
#[command(
    name = "many_agents",
    about = "Emulates many agents of a cluster whose masters run already, until it is killed"
)]
struct Flags {
    /// The masters.
    #[arg(long, default_value = "127.0.0.1:5050")]
    masters: String,
    /// How many agents.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    agents: u32,
    /// Nodes that the agents are spread over.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    nodes: u8,
    /// Bound of an agent's wait before it turns to a leader, as of meseta-agent.
    #[arg(long = "registration_backoff_factor", default_value = "1secs", value_parser = duration)]
    backoff: Duration,
    /// What this program logs.
    #[arg(long = "logging_level", default_value = "error", value_parser = logging_level)]
    logging_level: String,
}

fn main() -> ExitCode {
    let Err(error) = run(&meseta_runtime::flags::parse());
    eprintln!("many_agents: {error:#}");
    ExitCode::FAILURE
}

fn run(flags: &Flags) -> anyhow::Result<std::convert::Infallible> {
    meseta_runtime::logging::init(&flags.logging_level);
    let clock = Clock::live();
    let start = |_| {
        Node::builder()
            .role("agent")
            .http(false)
            .clock(clock.clone())
            .start()
    };
    let nodes: Vec<Node> = (0..flags.nodes).map(start).collect::<Result<_, _>>()?;
    let scene = Arc::new(Scene::new(candidates(&flags.masters, ELECTION)?, 0)?);
    let (tell, told) = channel();
    let began = clock.now();
    for number in 0..flags.agents {
        let (scene, tell, backoff) = (Arc::clone(&scene), tell.clone(), flags.backoff);
        let node = &nodes[number as usize % nodes.len()];
        node.spawn_numbered("slave", move || {
            Emulated::new(&scene, number, backoff, tell)
        })?;
    }
    let mut registered = BTreeSet::new();
    let mut said = false;
    loop {
        match told.recv_timeout(PROGRESS) {
            Ok(Event::TakenIn { agent, .. }) => {
                registered.insert(agent);
            }
            Ok(Event::Wrong(what)) => anyhow::bail!("{what}: these agents run nothing"),
            Ok(Event::Announced { .. } | Event::Written { .. }) => {}
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the agents are gone"),
            Err(RecvTimeoutError::Timeout) if said => {}
            Err(RecvTimeoutError::Timeout) => {
                eprintln!(
                    "{} of {} agents are registered",
                    registered.len(),
                    flags.agents
                );
            }
        }
        if !said && registered.len() == flags.agents as usize {
            said = true;
            let took = clock.now().since(began);
            println!("{} agents are registered, after {took:.2?}", flags.agents);
        }
    }
}
