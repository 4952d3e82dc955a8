//! The two sides: the folder with their certificates, the other process, figures.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use meseta_runtime::identity::{CertificateAuthority, Identity};

/// A folder with certificates for both sides, removed at the end.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::create("bench").unwrap();
        for side in ["client", "server"] {
            let hosts = ["127.0.0.1".to_owned()];
            let identity = Identity::issue(&authority, &hosts, &["node"]).unwrap();
            identity.save(&folder.path().join(side)).unwrap();
        }
        Self(folder)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// The files of one side: authority, certificate, key.
pub fn files(folder: &Path, side: &str) -> [PathBuf; 3] {
    ["ca.pem", "node.pem", "node-key.pem"].map(|name| folder.join(side).join(name))
}

pub fn identity(folder: &Path, side: &str) -> Identity {
    let [ca, certificate, key] = files(folder, side);
    Identity::from_files(&ca, &certificate, &key).unwrap()
}

/// This program again, as the other side. It ends when its standard input does.
pub struct Child {
    child: std::process::Child,
    /// The first line it printed: its address.
    pub line: String,
}

impl Child {
    pub fn start(what: &str, folder: &Folder, more: &[&str]) -> Self {
        Self::start_in(what, folder.path(), more)
    }

    pub fn start_in(what: &str, folder: &Path, more: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["serve", what])
            .arg(folder)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Before its first line: by then it has made no more than a thread or two.
        pin(child.id(), 1);
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Self {
            child,
            line: line.trim().to_owned(),
        }
    }

    /// Writes a line to its standard input.
    pub fn say(&self, line: &str) {
        let mut input = self.child.stdin.as_ref().unwrap();
        writeln!(input, "{line}").unwrap();
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The signal that cannot be caught.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let killed = self.child.kill();
        if killed.is_ok() {
            self.child.wait().unwrap();
        }
    }
}

/// Waits until the parent is gone.
pub fn until_parent_ends() {
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line).unwrap() > 0 {
        line.clear();
    }
}

/// Seconds of processor time that a process has used, in steps of 10 ms.
pub fn cpu(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}

/// Resident memory of a process, in KiB.
pub fn resident(pid: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Keeps a process on this core.
pub fn pin(process: u32, core: usize) {
    let pinned = Command::new("taskset")
        .args(["-a", "-c", "-p", &core.to_string(), &process.to_string()])
        .stdout(Stdio::null())
        .status();
    if !pinned.is_ok_and(|status| status.success()) {
        eprintln!("no taskset or no core {core}: the scheduler places {process} as it likes");
    }
}

/// What was measured by turns.
#[derive(Default)]
pub struct Turns {
    pub mine: Vec<f64>,
    pub raw: Vec<f64>,
}

impl Turns {
    /// Runs both; who is first changes each time.
    pub fn take(&mut self, turn: usize, mine: impl FnOnce() -> f64, raw: impl FnOnce() -> f64) {
        if turn.is_multiple_of(2) {
            self.mine.push(mine());
            self.raw.push(raw());
        } else {
            self.raw.push(raw());
            self.mine.push(mine());
        }
    }

    /// Prints each turn.
    pub fn list(&self, metric: &str, unit: &str) {
        for (name, values) in [("meseta", &self.mine), ("raw quinn", &self.raw)] {
            let values: Vec<String> = values.iter().map(|value| format!("{value:.0}")).collect();
            println!("{name}\t{metric} by turns\t{}\t{unit}", values.join(" "));
        }
    }

    /// Prints both figures and the ratio of neighbours.
    pub fn report(self, metric: &str, unit: &str) {
        let pairs = self.mine.iter().zip(&self.raw);
        let mut ratios: Vec<f64> = pairs.map(|(mine, raw)| mine / raw).collect();
        let middle = median(&mut ratios);
        let (turns, quarter) = (ratios.len(), ratios.len() / 4);
        let (low, high) = (ratios[quarter], ratios[turns - 1 - quarter]);
        report("meseta", metric, unit, self.mine);
        report("raw quinn", metric, unit, self.raw);
        println!("ratio\t{metric}\t{middle:.3}\tx raw quinn\t{low:.3}\t{high:.3}\t{turns}");
    }
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

/// Prints one figure.
pub fn report(name: &str, metric: &str, unit: &str, mut values: Vec<f64>) {
    let middle = median(&mut values);
    let (least, most) = (values[0], values[values.len() - 1]);
    let runs = values.len();
    println!("{name}\t{metric}\t{middle:.1}\t{unit}\t{least:.1}\t{most:.1}\t{runs}");
}
