//! Where is my message stuck? Answered from what a node tells of itself.
//! Pure: two samples in, findings out, the worst first.
//!
//! A message can be stuck in the mailbox of an actor, because the actor is busy, waits for an operation, shares its
//! thread with one that is busy, or gets more than it can handle; in the queue to a peer; or it is gone, because a
//! bound was met. Each finding names the place and the reason.

use std::fmt;

use super::sample::{Peer, PeerRates, Process, ProcessRates, View};

/// A message that has waited for as long is stuck, in milliseconds.
const STUCK_MS: u64 = 1_000;
/// A turn that lasts as long is told, in milliseconds.
const LONG_TURN_MS: u64 = 500;
/// Who takes this part of the time is busy.
const BUSY: f64 = 0.5;
/// Bytes to a peer that are told even when they do not grow.
const MUCH: u64 = 1 << 20;

/// One place where messages are stuck or lost.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Finding {
    /// In an actor's mailbox.
    Mailbox {
        pid: String,
        depth: u64,
        oldest_ms: u64,
        because: Cause,
    },
    /// On the way to a peer.
    Peer {
        peer: String,
        queued_bytes: u64,
        /// Bytes in a second.
        growth: f64,
        connected: bool,
        /// The lane on which most waits, when there are several.
        lane: Option<u64>,
        rtt_us: u64,
        /// Packets in a second.
        lost: f64,
    },
    /// Dropped, so many in a second.
    Dropped { place: String, per_second: f64 },
}

/// Why a mailbox is not emptied.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cause {
    /// Messages wait for an operation.
    Operation(String),
    /// The actor is in one turn for this long.
    Turn { message: String, for_ms: u64 },
    /// It spends its time in this handler.
    Handler { message: String, part: f64 },
    /// Another actor keeps their thread.
    Thread {
        other: String,
        message: Option<String>,
    },
    /// It gets more than it handles, which is so many in a second.
    Overrun { handled: f64 },
    /// It handles nothing, and nobody seems to keep it from doing so.
    Still,
}

/// All findings, the worst first; none when nothing is stuck.
pub(crate) fn diagnose(view: &View) -> Vec<Finding> {
    let mut found: Vec<(f64, Finding)> = Vec::new();
    let processes = view.sample.processes.iter().zip(&view.processes);
    for (process, rates) in processes {
        if let Some(waited) = stuck_ms(view, process, rates) {
            let finding = Finding::Mailbox {
                pid: process.pid.clone(),
                depth: process.mailbox_depth,
                oldest_ms: process.oldest_message_ms,
                because: cause(view, process, rates),
            };
            found.push((waited, finding));
        }
        if rates.dropped > 0.0 {
            let place = format!("the mailbox of {}", process.pid);
            found.push(dropped(place, rates.dropped));
        }
    }
    for (peer, rates) in view.sample.peers.iter().zip(&view.peers) {
        if rates.growth > 0.0 || peer.queued_bytes >= MUCH {
            found.push((
                super::sample::number(peer.queued_bytes),
                to_peer(peer, rates),
            ));
        }
        if rates.dropped > 0.0 {
            let place = format!("the queue to {}", peer.peer);
            found.push(dropped(place, rates.dropped));
        }
    }
    // Mailboxes before queues before losses, each kind by how bad it is.
    found
        .sort_by(|(a, one), (b, other)| (rank(one).cmp(&rank(other))).then_with(|| b.total_cmp(a)));
    found.into_iter().map(|(_, finding)| finding).collect()
}

fn rank(finding: &Finding) -> u8 {
    match finding {
        Finding::Mailbox { .. } => 0,
        Finding::Peer { .. } => 1,
        Finding::Dropped { .. } => 2,
    }
}

fn dropped(place: String, per_second: f64) -> (f64, Finding) {
    (per_second, Finding::Dropped { place, per_second })
}

/// How long the oldest message of a process has waited, if that is too long.
fn stuck_ms(view: &View, process: &Process, rates: &ProcessRates) -> Option<f64> {
    if process.mailbox_depth == 0 {
        return None;
    }
    if process.oldest_message_ms >= STUCK_MS {
        return Some(super::sample::number(process.oldest_message_ms));
    }
    // A node that does not tell the age: nothing was handled between the two looks, and something waits.
    let old_node = process.oldest_message_ms == 0 && view.elapsed_ms >= STUCK_MS;
    (old_node && rates.handled == 0.0).then(|| super::sample::number(view.elapsed_ms))
}

fn cause(view: &View, process: &Process, rates: &ProcessRates) -> Cause {
    if let Some(operation) = &process.holding {
        return Cause::Operation(operation.clone());
    }
    if let Some(message) = long_turn(process) {
        return Cause::Turn {
            message: message.to_owned(),
            for_ms: process.running_ms,
        };
    }
    if rates.busy >= BUSY
        && let Some((message, part)) = rates.handlers.first()
    {
        return Cause::Handler {
            message: message.clone(),
            part: *part,
        };
    }
    if let Some(cause) = neighbour(view, process) {
        return cause;
    }
    if rates.handled > 0.0 {
        Cause::Overrun {
            handled: rates.handled,
        }
    } else {
        Cause::Still
    }
}

/// Another process of the same thread that is in a long turn or busy.
fn neighbour(view: &View, process: &Process) -> Option<Cause> {
    let others = view.sample.processes.iter().zip(&view.processes);
    let others =
        others.filter(|(other, _)| other.thread == process.thread && other.pid != process.pid);
    let (other, rates) = others.max_by(|(a, a_rates), (b, b_rates)| {
        let turn = |one: &Process| long_turn(one).map_or(0, |_| one.running_ms);
        (turn(a).cmp(&turn(b))).then_with(|| a_rates.busy.total_cmp(&b_rates.busy))
    })?;
    let message = match long_turn(other) {
        Some(message) => Some(message.to_owned()),
        None if rates.busy >= BUSY => rates.handlers.first().map(|(message, _)| message.clone()),
        None => return None,
    };
    Some(Cause::Thread {
        other: other.pid.clone(),
        message,
    })
}

/// The message that a process is handling, when that takes long.
fn long_turn(process: &Process) -> Option<&str> {
    let long = process.running_ms >= LONG_TURN_MS;
    process.running.as_deref().filter(|_| long)
}

fn to_peer(peer: &Peer, rates: &PeerRates) -> Finding {
    let several = peer
        .lanes
        .iter()
        .filter(|lane| lane.queued_bytes > 0)
        .count();
    let worst = peer.lanes.iter().max_by_key(|lane| lane.queued_bytes);
    Finding::Peer {
        peer: peer.peer.clone(),
        queued_bytes: peer.queued_bytes,
        growth: rates.growth,
        connected: peer.connected,
        lane: worst.filter(|_| several > 0).map(|lane| lane.lane),
        rtt_us: peer.rtt_us,
        lost: rates.lost,
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mailbox {
                pid,
                depth,
                oldest_ms,
                because,
            } => write!(
                f,
                "{pid}: {depth} messages wait, the oldest for {}: {because}",
                millis(*oldest_ms)
            ),
            Self::Peer {
                peer,
                queued_bytes,
                growth,
                connected,
                lane,
                rtt_us,
                lost,
            } => {
                write!(
                    f,
                    "to {peer}: {} wait",
                    bytes(super::sample::number(*queued_bytes))
                )?;
                if *growth > 0.0 {
                    write!(f, ", {}/s more", bytes(*growth))?;
                }
                if let Some(lane) = lane {
                    write!(f, ", most on lane {lane}")?;
                }
                if *connected {
                    write!(
                        f,
                        ": the peer or the path is slow (round trip {}",
                        micros(*rtt_us)
                    )?;
                    write!(f, ", {lost:.0} packets/s lost)")
                } else {
                    write!(f, ": there is no connection to it")
                }
            }
            Self::Dropped { place, per_second } => {
                write!(f, "{per_second:.0} messages/s are dropped at {place}")
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operation(name) => write!(f, "it waits for the operation {name}"),
            Self::Turn { message, for_ms } => {
                write!(f, "it has been busy in {message} for {}", millis(*for_ms))
            }
            Self::Handler { message, part } => {
                write!(
                    f,
                    "it is busy in {message} for {:.0} % of the time",
                    part * 100.0
                )
            }
            Self::Thread {
                other,
                message: Some(message),
            } => write!(f, "{other} keeps their thread, busy in {message}"),
            Self::Thread {
                other,
                message: None,
            } => write!(f, "{other} keeps their thread"),
            Self::Overrun { handled } => {
                write!(f, "it handles {handled:.0} messages/s and gets more")
            }
            Self::Still => write!(f, "it handles nothing, and nothing tells why"),
        }
    }
}

/// Bytes as people read them.
pub(crate) fn bytes(count: f64) -> String {
    match count {
        small if small < 1_024.0 => format!("{small:.0} B"),
        kib if kib < 1_048_576.0 => format!("{:.1} KiB", kib / 1_024.0),
        mib if mib < 1_073_741_824.0 => format!("{:.1} MiB", mib / 1_048_576.0),
        gib => format!("{:.1} GiB", gib / 1_073_741_824.0),
    }
}

/// Milliseconds as people read them.
pub(crate) fn millis(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} ms"),
        1_000..60_000 => format!("{:.1} s", super::sample::number(count) / 1_000.0),
        _ => format!("{} min", count / 60_000),
    }
}

/// Microseconds as people read them.
pub(crate) fn micros(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} µs"),
        _ => format!("{:.1} ms", super::sample::number(count) / 1_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Handler, Lane, Sample};
    use super::*;

    fn process(id: &str) -> Process {
        Process {
            id: id.to_owned(),
            pid: format!("{id}@10.0.0.1:5050"),
            ..Process::default()
        }
    }

    /// Two samples, a second apart.
    fn view(before: &[Process], now: &[Process], peers: [&[Peer]; 2]) -> View {
        let sample = |uptime_ms, processes: &[Process], peers: &[Peer]| Sample {
            address: "10.0.0.1:5050".to_owned(),
            uptime_ms,
            processes: processes.to_vec(),
            peers: peers.to_vec(),
            ..Sample::default()
        };
        let first = sample(1_000, before, peers[0]);
        View::new(Some(&first), sample(2_000, now, peers[1]))
    }

    fn told(view: &View) -> Vec<String> {
        diagnose(view).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nothing_is_stuck_when_messages_wait_for_a_moment_only() {
        let before = process("a");
        let now = Process {
            mailbox_depth: 500,
            oldest_message_ms: 20,
            messages_handled: 90_000,
            ..process("a")
        };
        assert!(told(&view(&[before], &[now], [&[], &[]])).is_empty());
    }

    #[test]
    fn the_oldest_mailbox_comes_first_and_the_operation_that_holds_it_is_named() {
        let held = Process {
            mailbox_depth: 12,
            oldest_message_ms: 8_200,
            holding: Some("registrar::Store".to_owned()),
            ..process("registrar(1)")
        };
        let slower = Process {
            mailbox_depth: 9_000,
            oldest_message_ms: 1_500,
            messages_handled: 400,
            ..process("master")
        };
        let before = [process("master"), process("registrar(1)")];
        assert_eq!(
            told(&view(&before, &[slower, held], [&[], &[]])),
            [
                "registrar(1)@10.0.0.1:5050: 12 messages wait, the oldest for 8.2 s: it waits for the operation \
                 registrar::Store",
                "master@10.0.0.1:5050: 9000 messages wait, the oldest for 1.5 s: it handles 400 messages/s and gets \
                 more",
            ]
        );
    }

    #[test]
    fn the_turn_it_is_in_counts_before_the_handler_it_spends_its_time_in() {
        let before = process("a");
        let busy = Process {
            mailbox_depth: 3,
            oldest_message_ms: 2_000,
            busy_us: 900_000,
            handlers: vec![Handler {
                message: "Sum".to_owned(),
                count: 4,
                busy_us: 880_000,
            }],
            ..process("a")
        };
        let line = |now: &Process| {
            told(&view(
                std::slice::from_ref(&before),
                std::slice::from_ref(now),
                [&[], &[]],
            ))
            .remove(0)
        };
        assert!(line(&busy).ends_with("it is busy in Sum for 88 % of the time"));
        // Nothing was finished between the samples, which are a second apart.
        let in_turn = Process {
            running: Some("Sort".to_owned()),
            ..busy
        };
        let found = told(&view(
            std::slice::from_ref(&in_turn),
            std::slice::from_ref(&in_turn),
            [&[], &[]],
        ));
        assert!(
            found[0].ends_with("it has been busy in Sort for 1.0 s"),
            "{found:?}"
        );
    }

    #[test]
    fn an_actor_that_keeps_the_thread_of_another_is_named() {
        let quiet = Process {
            mailbox_depth: 1,
            oldest_message_ms: 3_000,
            thread: 1,
            ..process("quiet")
        };
        let hog = |thread| Process {
            thread,
            running: Some("Grind".to_owned()),
            ..process("hog")
        };
        let told = |all: &[Process]| told(&view(all, all, [&[], &[]]));
        let found = told(&[quiet.clone(), hog(1)]);
        assert!(
            found[0].ends_with("hog@10.0.0.1:5050 keeps their thread, busy in Grind"),
            "{found:?}"
        );
        let apart = told(&[quiet, hog(2)]);
        assert!(apart[0].ends_with("nothing tells why"), "{apart:?}");
    }

    #[test]
    fn the_peer_whose_queue_grows_is_named_with_its_lane_and_why() {
        let peer = |queued, connected| Peer {
            peer: "10.0.0.2:5051".to_owned(),
            connected,
            queued_bytes: queued,
            rtt_us: 81_000,
            lanes: vec![
                Lane::default(),
                Lane {
                    lane: 1,
                    queued_bytes: queued,
                    ..Lane::default()
                },
            ],
            ..Peer::default()
        };
        let told = |before, now| told(&view(&[], &[], [&[before], &[now]]));
        assert_eq!(
            told(peer(0, true), peer(3 << 20, true)),
            [
                "to 10.0.0.2:5051: 3.0 MiB wait, 3.0 MiB/s more, most on lane 1: the peer or the path is slow (round \
                 trip 81.0 ms, 0 packets/s lost)"
            ]
        );
        assert_eq!(
            told(peer(2 << 20, false), peer(2 << 20, false)),
            ["to 10.0.0.2:5051: 2.0 MiB wait, most on lane 1: there is no connection to it"]
        );
        assert!(
            told(peer(900, true), peer(800, true)).is_empty(),
            "it shrinks"
        );
    }

    #[test]
    fn losses_are_told_after_what_waits() {
        let full = Process {
            mailbox_depth: 65_536,
            oldest_message_ms: 5_000,
            messages_dropped: 700,
            ..process("a")
        };
        let found = told(&view(&[process("a")], &[full], [&[], &[]]));
        assert_eq!(found.len(), 2);
        assert_eq!(
            found[1],
            "700 messages/s are dropped at the mailbox of a@10.0.0.1:5050"
        );
    }

    #[test]
    fn a_node_that_tells_no_ages_is_judged_by_what_it_handled() {
        let waiting = Process {
            mailbox_depth: 4,
            ..process("a")
        };
        let found = told(&view(
            &[process("a")],
            std::slice::from_ref(&waiting),
            [&[], &[]],
        ));
        assert_eq!(found.len(), 1);
        let going = Process {
            messages_handled: 10,
            ..waiting
        };
        assert!(told(&view(&[process("a")], &[going], [&[], &[]])).is_empty());
    }
}
