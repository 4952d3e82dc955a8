//! `/__processes__`: what a node tells of itself while it runs.
//!
//! Counters are kept by whoever does the work and only read here, so that the answer comes also when processes are
//! stuck. Threads and memory are those of the whole program, which may hold several nodes.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::clock::Time;
use crate::metrics::Metrics;
use crate::node::{NodeHandle, ProcessStatus};
use crate::transport::PeerStatus;

/// Where the causes of drops stand among the metrics.
const DROPS: &str = "runtime/messages_dropped/";
/// Threads shown at most: those with the most processor time.
const MAX_THREADS: usize = 256;

/// A node as `/__processes__` shows it.
#[derive(Debug, Serialize)]
pub(crate) struct NodeStatus {
    /// `host:port` of the node.
    pub(crate) address: String,
    /// Milliseconds since it started.
    pub(crate) uptime_ms: u64,
    /// Threads of the program.
    pub(crate) threads: Vec<ThreadStatus>,
    /// Bytes of memory that the program has in use, as the kernel counts them; 0 when it does not tell.
    pub(crate) resident_bytes: u64,
    /// Messages dropped by the node since its start, by cause.
    pub(crate) drops: BTreeMap<String, u64>,
    /// Its processes, in the order of their ids.
    pub(crate) processes: Vec<ProcessStatus>,
    /// Every node and guest there is a connection to or was one lately.
    pub(crate) peers: Vec<PeerStatus>,
}

/// One thread of the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ThreadStatus {
    /// Name, of which the kernel keeps 15 bytes.
    pub(crate) name: String,
    /// Time on a processor since it started, in milliseconds.
    pub(crate) cpu_ms: u64,
}

impl NodeStatus {
    /// Of a node that started at `started`; with an `id`, of this process only. Reads `/proc`, which takes up to some
    /// milliseconds.
    pub(crate) fn of(node: &NodeHandle, started: Time, id: Option<&str>) -> Self {
        let mut processes = node.processes();
        processes.retain(|process| id.is_none_or(|id| process.id == id));
        let uptime = node.clock().now().since(started);
        Self {
            address: node.address().to_string(),
            uptime_ms: u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
            threads: threads(),
            resident_bytes: resident_bytes(),
            drops: drops(node),
            processes,
            peers: node.peers(),
        }
    }
}

fn drops(node: &NodeHandle) -> BTreeMap<String, u64> {
    let all = node.metrics().snapshot();
    let dropped = all.iter().filter_map(|(name, value)| {
        let cause = name.strip_prefix(DROPS)?;
        // Counters are whole numbers, kept as floating point.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a counter is never negative, and exact below 2^53"
        )]
        let count = value.as_f64()? as u64;
        Some((cause.to_owned(), count))
    });
    dropped.collect()
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    kilobytes(&status, "VmRSS:") * 1024
}

/// All threads that can be read; one may end meanwhile.
fn threads() -> Vec<ThreadStatus> {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return Vec::new();
    };
    let read = |task: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read(task.ok()?.path().join("stat")).ok()?;
        thread(&String::from_utf8_lossy(&stat))
    };
    busiest(tasks.filter_map(read).collect())
}

/// As many as are shown, the busiest first.
fn busiest(mut all: Vec<ThreadStatus>) -> Vec<ThreadStatus> {
    all.sort_by(|a, b| (b.cpu_ms, &a.name).cmp(&(a.cpu_ms, &b.name)));
    all.truncate(MAX_THREADS);
    all
}

/// What a line of `/proc/*/stat` says of a thread: its name, and user and system time, which the kernel tells in
/// hundredths of a second.
fn thread(stat: &str) -> Option<ThreadStatus> {
    // The name may hold anything but ends with the last bracket; utime and stime are the 14th and 15th field.
    let (before, rest) = stat.rsplit_once(") ")?;
    let (_, name) = before.split_once('(')?;
    let mut times = rest.split(' ').skip(11);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    Some(ThreadStatus {
        name: name.to_owned(),
        cpu_ms: (user + system) * 10,
    })
}

/// The machine as `/system/stats.json` shows it.
#[derive(Debug, Serialize)]
pub(crate) struct System {
    avg_load_15min: f64,
    avg_load_1min: f64,
    avg_load_5min: f64,
    cpus_total: usize,
    mem_free_bytes: u64,
    mem_total_bytes: u64,
}

/// What the kernel says of the machine; 0 where it says nothing.
pub(crate) fn system() -> System {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (loads, memory) = (read("/proc/loadavg"), read("/proc/meminfo"));
    let load = |place| {
        let word = loads.split(' ').nth(place);
        word.and_then(|word| word.parse().ok()).unwrap_or(0.0)
    };
    System {
        avg_load_15min: load(2),
        avg_load_1min: load(0),
        avg_load_5min: load(1),
        cpus_total: std::thread::available_parallelism().map_or(0, Into::into),
        mem_free_bytes: kilobytes(&memory, "MemFree:") * 1024,
        mem_total_bytes: kilobytes(&memory, "MemTotal:") * 1024,
    }
}

/// Shows the machine among the metrics of a node.
pub(crate) fn show_system(metrics: &Metrics) {
    let system = system();
    let whole = |value: u64| {
        #[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
        let value = value as f64;
        value
    };
    for (name, value) in [
        ("system/load_1min", system.avg_load_1min),
        ("system/load_5min", system.avg_load_5min),
        ("system/load_15min", system.avg_load_15min),
        ("system/cpus_total", whole(system.cpus_total as u64)),
        ("system/mem_total_bytes", whole(system.mem_total_bytes)),
        ("system/mem_free_bytes", whole(system.mem_free_bytes)),
    ] {
        metrics.set(name, value);
    }
}

fn kilobytes(text: &str, name: &str) -> u64 {
    let number = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
    number
        .and_then(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_a_name_with_brackets() {
        let stat = "7 (node (1) ) S 1 7 7 0 -1 4194560 120 0 0 0 250 31 0 0 20 0 4 0 100 0 0";
        let read = thread(stat).unwrap();
        assert_eq!((read.name.as_str(), read.cpu_ms), ("node (1) ", 2_810));
        assert_eq!(thread("7 (node) S"), None);
    }

    #[test]
    fn of_many_threads_the_busiest_are_shown() {
        let all = (0..1_000).map(|number| ThreadStatus {
            name: format!("t{number}"),
            cpu_ms: number,
        });
        let shown = busiest(all.collect());
        assert_eq!(shown.len(), MAX_THREADS);
        assert_eq!((shown[0].cpu_ms, shown[255].cpu_ms), (999, 744));
    }

    #[test]
    fn the_kernel_tells_of_this_thread_and_of_memory() {
        let name = std::thread::current().name().unwrap().to_owned();
        let short: String = name.chars().take(15).collect();
        assert!(threads().iter().any(|thread| thread.name == short));
        assert!(resident_bytes() > 100_000);
        let system = system();
        assert!(system.cpus_total > 0 && system.mem_total_bytes >= system.mem_free_bytes);
        assert!(system.mem_free_bytes > 0 && system.avg_load_15min >= 0.0);
        let metrics = Metrics::default();
        show_system(&metrics);
        assert_eq!(metrics.snapshot().len(), 6);
        assert!(metrics.value("system/mem_total_bytes") > metrics.value("system/mem_free_bytes"));
    }
}
