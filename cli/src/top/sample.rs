//! What a node told of itself at one moment, and what happened between two of them.
//! Pure: plain data and differences.
//!
//! A field that an older node does not tell is zero or empty.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `/__processes__` of a node.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Sample {
    pub(crate) address: String,
    pub(crate) uptime_ms: u64,
    pub(crate) threads: Vec<Thread>,
    pub(crate) resident_bytes: u64,
    pub(crate) drops: BTreeMap<String, u64>,
    pub(crate) processes: Vec<Process>,
    pub(crate) peers: Vec<Peer>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Thread {
    pub(crate) name: String,
    pub(crate) cpu_ms: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Process {
    pub(crate) id: String,
    pub(crate) pid: String,
    pub(crate) mailbox_depth: u64,
    pub(crate) control_depth: u64,
    pub(crate) oldest_message_ms: u64,
    pub(crate) messages_handled: u64,
    pub(crate) messages_dropped: u64,
    pub(crate) busy_us: u64,
    pub(crate) handlers: Vec<Handler>,
    pub(crate) links: u64,
    pub(crate) watchers: u64,
    pub(crate) thread: u64,
    pub(crate) holding: Option<String>,
    pub(crate) running: Option<String>,
    /// For how long it is known to have been in this one turn, in milliseconds; found out by comparing samples.
    #[serde(skip)]
    pub(crate) running_ms: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Handler {
    pub(crate) message: String,
    pub(crate) count: u64,
    pub(crate) busy_us: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Peer {
    pub(crate) peer: String,
    pub(crate) connected: bool,
    pub(crate) queued_bytes: u64,
    pub(crate) dropped: u64,
    pub(crate) rtt_us: u64,
    pub(crate) lost_packets: u64,
    pub(crate) lanes: Vec<Lane>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Lane {
    pub(crate) lane: u64,
    pub(crate) queued_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
}

/// The sample, and what happened since the one before it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct View {
    pub(crate) sample: Sample,
    /// Milliseconds since the sample before; 0 when there is none to compare with, and then all rates are 0 too.
    pub(crate) elapsed_ms: u64,
    /// In the order of the sample's processes.
    pub(crate) processes: Vec<ProcessRates>,
    /// In the order of the sample's peers.
    pub(crate) peers: Vec<PeerRates>,
    /// Messages dropped since the sample before, by cause; those of which there were some.
    pub(crate) drops: BTreeMap<String, u64>,
}

/// What a process did between two samples.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ProcessRates {
    /// Messages handled in a second.
    pub(crate) handled: f64,
    /// Messages dropped in a second.
    pub(crate) dropped: f64,
    /// Part of the time that it spent in its handlers, 0 to 1.
    pub(crate) busy: f64,
    /// Its handlers and the part of the time each took, busiest first; those that took any.
    pub(crate) handlers: Vec<(String, f64)>,
}

/// What went to and from a peer between two samples.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct PeerRates {
    /// Bytes by which the queue grew in a second; negative when it shrank.
    pub(crate) growth: f64,
    /// Messages dropped in a second.
    pub(crate) dropped: f64,
    /// Packets lost in a second.
    pub(crate) lost: f64,
    /// Bytes sent and received in a second, by lane.
    pub(crate) lanes: Vec<(f64, f64)>,
}

impl View {
    /// Compares a sample with the one before it. One of another run of the node does not count.
    pub(crate) fn new(before: Option<&Sample>, mut sample: Sample) -> Self {
        let before = before.filter(|before| {
            before.address == sample.address && before.uptime_ms < sample.uptime_ms
        });
        let Some(before) = before else {
            return Self {
                processes: vec![ProcessRates::default(); sample.processes.len()],
                peers: sample.peers.iter().map(PeerRates::none).collect(),
                sample,
                ..Self::default()
            };
        };
        let elapsed_ms = sample.uptime_ms - before.uptime_ms;
        for now in &mut sample.processes {
            let before = before.processes.iter().find(|one| one.pid == now.pid);
            now.running_ms = before.map_or(0, |before| now.same_turn_ms(before, elapsed_ms));
        }
        let processes = sample.processes.iter().map(|now| {
            let before = before.processes.iter().find(|one| one.pid == now.pid);
            before.map_or_else(ProcessRates::default, |before| {
                ProcessRates::between(before, now, elapsed_ms)
            })
        });
        let peers = sample.peers.iter().map(|now| {
            let before = before.peers.iter().find(|one| one.peer == now.peer);
            before.map_or_else(
                || PeerRates::none(now),
                |before| PeerRates::between(before, now, elapsed_ms),
            )
        });
        let drops = sample.drops.iter().filter_map(|(cause, count)| {
            let more = count.saturating_sub(before.drops.get(cause).copied().unwrap_or(0));
            (more > 0).then(|| (cause.clone(), more))
        });
        Self {
            elapsed_ms,
            processes: processes.collect(),
            peers: peers.collect(),
            drops: drops.collect(),
            sample,
        }
    }
}

impl Process {
    /// For how long it has been in the turn it is in now, when it was in it already `elapsed_ms` ago.
    fn same_turn_ms(&self, before: &Self, elapsed_ms: u64) -> u64 {
        let turns = |one: &Self| (one.messages_handled, one.busy_us);
        let same = self.running.is_some() && self.running == before.running;
        if same && turns(self) == turns(before) {
            before.running_ms + elapsed_ms
        } else {
            0
        }
    }
}

impl ProcessRates {
    fn between(before: &Process, now: &Process, elapsed_ms: u64) -> Self {
        let busy = |before: u64, now: u64| {
            let millis = number(now.saturating_sub(before)) / 1_000.0;
            (millis / number(elapsed_ms)).min(1.0)
        };
        let mut handlers: Vec<(String, f64)> = now
            .handlers
            .iter()
            .map(|handler| {
                let same = |one: &&Handler| one.message == handler.message;
                let earlier = before.handlers.iter().find(same);
                let earlier = earlier.map_or(0, |one| one.busy_us);
                (handler.message.clone(), busy(earlier, handler.busy_us))
            })
            .filter(|(_, part)| *part > 0.0)
            .collect();
        handlers.sort_by(|a, b| b.1.total_cmp(&a.1));
        Self {
            handled: per_second(before.messages_handled, now.messages_handled, elapsed_ms),
            dropped: per_second(before.messages_dropped, now.messages_dropped, elapsed_ms),
            busy: busy(before.busy_us, now.busy_us),
            handlers,
        }
    }
}

impl PeerRates {
    fn none(peer: &Peer) -> Self {
        Self {
            lanes: vec![(0.0, 0.0); peer.lanes.len()],
            ..Self::default()
        }
    }

    fn between(before: &Peer, now: &Peer, elapsed_ms: u64) -> Self {
        let rate = |before: u64, now: u64| per_second(before, now, elapsed_ms);
        let lanes = now.lanes.iter().map(|lane| {
            let earlier = before.lanes.iter().find(|one| one.lane == lane.lane);
            earlier.map_or((0.0, 0.0), |earlier| {
                (
                    rate(earlier.sent_bytes, lane.sent_bytes),
                    rate(earlier.received_bytes, lane.received_bytes),
                )
            })
        });
        Self {
            growth: rate(before.queued_bytes, now.queued_bytes)
                - rate(now.queued_bytes, before.queued_bytes),
            dropped: rate(before.dropped, now.dropped),
            lost: rate(before.lost_packets, now.lost_packets),
            lanes: lanes.collect(),
        }
    }
}

/// What a counter rose by in a second; 0 when it fell, as one that began anew does.
fn per_second(before: u64, now: u64, elapsed_ms: u64) -> f64 {
    number(now.saturating_sub(before)) * 1_000.0 / number(elapsed_ms.max(1))
}

/// A counter as floating point; exact as far as anybody looks.
#[expect(
    clippy::cast_precision_loss,
    reason = "a rate needs no more than 53 bits"
)]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(uptime_ms: u64, handled: u64, busy_us: u64, queued: u64) -> Sample {
        Sample {
            address: "10.0.0.1:5050".to_owned(),
            uptime_ms,
            drops: BTreeMap::from([("no_process".to_owned(), handled)]),
            processes: vec![Process {
                pid: "a@10.0.0.1:5050".to_owned(),
                messages_handled: handled,
                busy_us,
                handlers: vec![Handler {
                    message: "M".to_owned(),
                    count: handled,
                    busy_us,
                }],
                ..Process::default()
            }],
            peers: vec![Peer {
                peer: "10.0.0.2:5051".to_owned(),
                queued_bytes: queued,
                lanes: vec![Lane {
                    sent_bytes: 10 * handled,
                    ..Lane::default()
                }],
                ..Peer::default()
            }],
            ..Sample::default()
        }
    }

    #[test]
    fn rates_are_differences_over_the_nodes_own_time() {
        let before = sample(1_000, 100, 0, 5_000);
        let view = View::new(Some(&before), sample(3_000, 300, 500_000, 1_000));
        assert_eq!(view.elapsed_ms, 2_000);
        let process = &view.processes[0];
        assert_eq!((process.handled, process.busy), (100.0, 0.25));
        assert_eq!(process.handlers, [("M".to_owned(), 0.25)]);
        let peer = &view.peers[0];
        assert_eq!((peer.growth, peer.lanes[0].0), (-2_000.0, 1_000.0));
        assert_eq!(view.drops["no_process"], 200);
    }

    #[test]
    fn a_turn_that_goes_on_from_sample_to_sample_is_timed() {
        let at = |uptime_ms, busy_us| {
            let mut sample = sample(uptime_ms, 7, busy_us, 0);
            sample.processes[0].running = Some("M".to_owned());
            sample
        };
        let first = View::new(None, at(1_000, 5));
        assert_eq!(first.sample.processes[0].running_ms, 0);
        let second = View::new(Some(&first.sample), at(2_000, 5));
        let third = View::new(Some(&second.sample), at(3_500, 5));
        assert_eq!(third.sample.processes[0].running_ms, 2_500);
        let another = View::new(Some(&third.sample), at(4_000, 9));
        assert_eq!(
            another.sample.processes[0].running_ms, 0,
            "it was another turn"
        );
    }

    #[test]
    fn a_node_that_began_anew_is_not_compared_with_its_earlier_run() {
        let before = sample(9_000, 100, 0, 0);
        let view = View::new(Some(&before), sample(1_000, 3, 0, 0));
        assert_eq!((view.elapsed_ms, view.processes[0].handled), (0, 0.0));
        assert!(view.drops.is_empty());
    }

    #[test]
    fn what_a_node_does_not_tell_is_zero() {
        let text = r#"{"address": "a:1", "processes": [{"id": "x", "new": 1}]}"#;
        let sample: Sample = serde_json::from_str(text).unwrap();
        assert_eq!(
            (sample.processes[0].mailbox_depth, sample.peers.len()),
            (0, 0)
        );
    }
}
