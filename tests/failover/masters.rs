//! Three masters, each a program of its own in a directory of its own, and what the kernel and they themselves tell of
//! them. Invariant: none outlives this program.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use meseta_runtime::ports::FreePorts;
use meseta_tests::http_try;
use serde_json::Value;

use crate::round::{processor, resident};

/// How many.
pub(crate) const MASTERS: usize = 3;
/// How long one may take to say how far its log is.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Masters {
    program: PathBuf,
    directory: PathBuf,
    addresses: Vec<String>,
    /// They keep their ports over their restarts.
    _ports: FreePorts,
    running: Vec<Option<Child>>,
}

impl Masters {
    /// Starts them in directories below this one.
    pub(crate) fn start(program: &Path, directory: &Path) -> anyhow::Result<Self> {
        let ports = FreePorts::find(MASTERS)?;
        let address = |port: &u16| format!("127.0.0.1:{port}");
        let mut masters = Self {
            program: program.to_owned(),
            directory: directory.to_owned(),
            addresses: ports.all().iter().map(address).collect(),
            _ports: ports,
            running: Vec::new(),
        };
        masters.running.resize_with(MASTERS, || None);
        for number in 0..MASTERS {
            masters.launch(number)?;
        }
        Ok(masters)
    }

    /// As agents name them.
    pub(crate) fn list(&self) -> String {
        self.addresses.join(",")
    }

    /// The one at this address.
    pub(crate) fn number_of(&self, address: &str) -> anyhow::Result<usize> {
        let mut all = self.addresses.iter();
        all.position(|one| one == address)
            .with_context(|| format!("{address} leads, which is none of the masters"))
    }

    /// Starts one that does not run.
    pub(crate) fn launch(&mut self, number: usize) -> anyhow::Result<()> {
        let address = &self.addresses[number];
        let port = address.rsplit(':').next().unwrap_or_default();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log(number))?;
        let child = Command::new(&self.program)
            .arg(format!("--port={port}"))
            .arg(format!("--masters={}", self.list()))
            .arg("--work_dir")
            .arg(self.directory.join(format!("master-{}", number + 1)))
            // It ends when its input does, and that does when this program ends, however.
            .arg("--supervised")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        self.running[number] = Some(child);
        Ok(())
    }

    fn log(&self, number: usize) -> PathBuf {
        self.directory.join(format!("master-{}.log", number + 1))
    }

    /// Kills one without warning.
    pub(crate) fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        let mut child = self.running[number]
            .take()
            .context("that master does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// # Errors
    /// One has ended that was not killed.
    pub(crate) fn all_run(&mut self) -> anyhow::Result<()> {
        for number in 0..MASTERS {
            if let Some(child) = &mut self.running[number]
                && let Some(status) = child.try_wait()?
            {
                anyhow::bail!(
                    "master {} has ended with {status}; why stands at the end of {}",
                    number + 1,
                    self.log(number).display()
                );
            }
        }
        Ok(())
    }

    /// Whether one's replica votes and has all that any other has.
    pub(crate) fn has_caught_up(&self, number: usize) -> bool {
        let furthest = (0..MASTERS).filter_map(|one| self.end_of_log(one)).max();
        let end = self.end_of_log(number);
        end.is_some() && end >= furthest
    }

    /// The last position of a replica that votes and lacks nothing.
    fn end_of_log(&self, number: usize) -> Option<u64> {
        self.running[number].as_ref()?;
        let path = "/log-replica(1)/status";
        let (_, body) = http_try(&self.addresses[number], path, PATIENCE).ok()?;
        let status: Value = serde_json::from_str(&body).ok()?;
        let is_whole = status["status"] == "Voting" && status["missing"].as_array()?.is_empty();
        status["end"].as_u64().filter(|_| is_whole)
    }

    /// One's resident memory in KiB.
    pub(crate) fn resident(&self, number: usize) -> anyhow::Result<u64> {
        let text = self.proc(number, "status")?;
        resident(&text).context("/proc/PID/status says nothing of memory")
    }

    /// One's processor time so far.
    pub(crate) fn processor(&self, number: usize) -> anyhow::Result<Duration> {
        let text = self.proc(number, "stat")?;
        processor(&text).context("/proc/PID/stat says nothing of processor time")
    }

    fn proc(&self, number: usize, file: &str) -> anyhow::Result<String> {
        let child = self.running[number].as_ref();
        let pid = child.context("that master does not run")?.id();
        let path = format!("/proc/{pid}/{file}");
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    }
}

impl Drop for Masters {
    fn drop(&mut self) {
        for child in self.running.iter_mut().flatten() {
            // One that has ended already is gone as well.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Processor time of this program so far.
pub(crate) fn own_processor() -> anyhow::Result<Duration> {
    let text = fs::read_to_string("/proc/self/stat")?;
    processor(&text).context("/proc/self/stat says nothing of processor time")
}
