//! Who led when: asks every master again and again what it does, and notes each change.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use meseta_runtime::{Clock, Time};
use meseta_tests::{http_try, wait_for};
use serde_json::Value;

/// How long a master may take to say what it does.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long it may take to write down all that it knows.
const MUCH_PATIENCE: Duration = Duration::from_secs(20);

/// What a master does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Doing {
    pub(super) what: String,
    pub(super) epoch: u64,
}

/// One change.
#[derive(Debug, Clone)]
struct Change {
    at: Time,
    master: usize,
    doing: Option<Doing>,
}

/// The watch over the masters of a trial.
pub(super) struct Watch {
    masters: Vec<String>,
    changes: Arc<Mutex<Vec<Change>>>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What the election of a master says, if it answers.
fn ask(master: &str) -> Option<Doing> {
    let state = json_within(PATIENCE, master, "/election(1)/state")?;
    Some(Doing {
        what: state["doing"].as_str()?.to_owned(),
        epoch: state["epoch"].as_u64()?,
    })
}

/// JSON that a master answers with status 200.
pub(super) fn json(master: &str, path: &str) -> Option<Value> {
    json_within(MUCH_PATIENCE, master, path)
}

fn json_within(patience: Duration, master: &str, path: &str) -> Option<Value> {
    let (status, body) = http_try(master, path, patience).ok()?;
    (status == 200)
        .then(|| serde_json::from_str(&body).ok())
        .flatten()
}

impl Watch {
    pub(super) fn begin(masters: &[String], clock: &Clock) -> Self {
        let changes = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let threads = masters.iter().cloned().enumerate().map(|(number, master)| {
            let (changes, over, clock) = (Arc::clone(&changes), Arc::clone(&over), clock.clone());
            std::thread::spawn(move || {
                let mut last = None;
                while !over.load(Ordering::Relaxed) {
                    // Nothing else can tell of a change.
                    std::thread::park_timeout(Duration::from_millis(50));
                    let doing = ask(&master);
                    if doing != last {
                        last.clone_from(&doing);
                        changes.lock().unwrap().push(Change {
                            at: clock.now(),
                            master: number,
                            doing,
                        });
                    }
                }
            })
        });
        let threads = threads.collect();
        Self {
            masters: masters.to_vec(),
            changes,
            over,
            threads,
        }
    }

    /// The master that says it leads under the highest epoch, above `above`: its number and the epoch. Waits for it.
    pub(super) fn leader(&self, above: u64) -> (usize, u64) {
        wait_for("a leading master", || {
            let leads = |number: usize| {
                let doing = ask(&self.masters[number])?;
                (doing.what == "leading" && doing.epoch > above).then_some((doing.epoch, number))
            };
            let (epoch, number) = (0..self.masters.len()).filter_map(leads).max()?;
            Some((number, epoch))
        })
    }

    /// The changes since then, a line each.
    pub(super) fn lines(&self, since: Time) -> Vec<String> {
        let changes = self.changes.lock().unwrap();
        let young = changes.iter().filter(|change| change.at >= since);
        young
            .map(|change| {
                let at = change.at.since(since).as_secs_f64();
                let master = &self.masters[change.master];
                match &change.doing {
                    Some(doing) => {
                        format!(
                            "{at:8.3} s  {master} {} (epoch {})",
                            doing.what, doing.epoch
                        )
                    }
                    None => format!("{at:8.3} s  {master} does not answer"),
                }
            })
            .collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in self.lines(Time::ZERO) {
                eprintln!("{line}");
            }
        }
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            if thread.join().is_err() {
                eprintln!("a watching thread has panicked");
            }
        }
    }
}
