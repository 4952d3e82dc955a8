//! An agent that a test starts, ends and starts again by itself, beside a cluster of `meseta local` without agents.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use meseta_runtime::ports::FreePorts;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Cluster, dev_ca, program, wait_for};

/// See the module.
pub struct OwnAgent {
    work_dir: PathBuf,
    address: String,
    flags: Vec<String>,
    settings: Vec<(String, String)>,
    child: Child,
    /// The agent keeps its port over its restarts.
    _ports: FreePorts,
}

impl OwnAgent {
    /// Starts one of this name, with its directory in the cluster's.
    pub fn start(cluster: &Cluster, name: &str, flags: &[&str], settings: &[(&str, &str)]) -> Self {
        let work_dir = cluster.dir.path().join(name);
        std::fs::create_dir_all(&work_dir).unwrap();
        let ports = FreePorts::find(1).unwrap();
        let port = ports.all()[0];
        let mut all = vec![
            format!("--work_dir={}", work_dir.display()),
            format!("--master={}", cluster.master),
            format!("--port={port}"),
        ];
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let settings: Vec<_> = settings.iter().map(own).collect();
        let child = spawn(&work_dir, &all, &settings, &[]);
        Self {
            work_dir,
            address: format!("127.0.0.1:{port}"),
            flags: all,
            settings,
            child,
            _ports: ports,
        }
    }

    /// Its process.
    pub fn process(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Its address, over all its restarts.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its work directory.
    pub fn work_dir(&self) -> &std::path::Path {
        &self.work_dir
    }

    /// Kills it without warning.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.ended();
    }

    /// Starts it again in the same place, with these flags in addition this time. It must have ended.
    pub fn start_again(&mut self, flags: &[&str]) {
        self.child = spawn(&self.work_dir, &self.flags, &self.settings, flags);
    }

    /// How it has ended; none while it runs.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let log = self.work_dir.join("log").display().to_string();
        wait_for(&format!("the end of the agent with the log {log}"), || {
            self.has_ended()
        })
    }

    /// Has it leave the cluster, and waits until it and all it runs have ended.
    pub fn leaves(mut self) {
        self.signal(Signal::SIGINT);
        let status = self.ended();
        assert!(status.success(), "the agent ended with {status}");
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process()), signal).unwrap();
    }
}

impl Drop for OwnAgent {
    /// That of a failed test takes along what it runs, if it is there to do so.
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal(Signal::SIGINT);
            let _ended = self.child.wait();
        }
    }
}

fn spawn(
    work_dir: &std::path::Path,
    flags: &[String],
    settings: &[(String, String)],
    more: &[&str],
) -> Child {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(work_dir.join("log"))
        .unwrap();
    Command::new(program("meseta-agent"))
        .args(flags)
        .args(more)
        .env("MESETA_DEV_CA_DIR", dev_ca())
        .envs(settings.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}
