//! Helpers for tests of whole clusters: the real programs, started on free ports with directories of their own, and
//! looked at from outside.
//!
//! Nothing here waits for a time to pass: it waits for an event, with one long limit that only turns a hang into a
//! failure.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

pub mod door;
pub mod emulated;
pub mod http;
pub mod invariants;
pub mod namespaces;
pub mod own_agent;
pub mod sim;
pub mod small_disk;

use std::io::{BufRead, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use meseta_runtime::{Clock, Time};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// After this long a test counts as hung.
pub const LIMIT: Duration = Duration::from_secs(120);
/// After this long a whole cluster counts as hung: all its processes are killed, so that whoever waits for one goes on.
const LIFE: Duration = Duration::from_secs(20 * 60);
/// Names the cluster of a command in its environment.
const OF_CLUSTER: &str = "MESETA_TEST_CLUSTER";

/// A program that this workspace builds; `scripts/test` builds them before the tests.
pub fn program(name: &str) -> PathBuf {
    let me = std::env::current_exe().unwrap();
    let path = me.parent().and_then(Path::parent).unwrap().join(name);
    assert!(
        path.exists(),
        "{} is missing: run scripts/test, or cargo build --workspace --bins --examples",
        path.display()
    );
    path
}

/// Waits until `found` is something, looking again and again.
pub fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let clock = Clock::live();
    let began = clock.now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(
            clock.now().since(began) < LIMIT,
            "waited {LIMIT:?} for {what}"
        );
        std::thread::yield_now();
        pause();
    }
}

/// Lets others run between two looks at something outside this process, which cannot tell us of a change.
#[expect(
    clippy::disallowed_methods,
    reason = "a look at other processes has no event to wait for; the verdict does not depend on the pause"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

/// Says that a test did not run, past what the test runner holds back: a skip never counts as passed unseen.
pub fn skipped(test: &str, reason: &str) {
    let line = format!("SKIPPED {test}: {reason}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Status and body that `http://<address><path>` answers.
pub fn http_get(address: &str, path: &str) -> (u16, String) {
    http_try(address, path, LIMIT).unwrap()
}

/// As [`http_get`], if there is an answer in time. The address is an IP address and a port.
///
/// # Errors
/// The connection fails, or the answer is late or none.
pub fn http_try(address: &str, path: &str, limit: Duration) -> std::io::Result<(u16, String)> {
    use std::io::Read as _;
    let unlike = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let to = address.parse().map_err(|_| unlike())?;
    let mut stream = std::net::TcpStream::connect_timeout(&to, limit)?;
    stream.set_read_timeout(Some(limit))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(unlike)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.ok_or_else(unlike)?, body.to_owned()))
}

/// Time since a clock was made, for messages.
pub fn seconds(clock: &Clock) -> f64 {
    clock.now().since(Time::ZERO).as_secs_f64()
}

/// A cluster started with `meseta local`.
pub struct Cluster {
    supervisor: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Dropped when the cluster has ended, which ends the thread that watches over it.
    _watched: Sender<()>,
    /// Master as host:port; several as a list.
    pub master: String,
    /// All its files.
    pub dir: TempDir,
}

impl Cluster {
    /// Starts one and waits until it is ready.
    pub fn start(agents: u32, flags: &[&str]) -> Self {
        let dir = TempDir::with_prefix("meseta-test-").unwrap();
        Self::start_in(dir, agents, flags, &[])
    }

    /// Starts one in this directory, with these settings in the environment.
    pub fn start_in(dir: TempDir, agents: u32, flags: &[&str], settings: &[(&str, &str)]) -> Self {
        let mut supervisor = Command::new(program("meseta"))
            .args(["local", "--port", "0", "--agents", &agents.to_string()])
            .arg("--work_dir")
            .arg(dir.path())
            .args(flags)
            .env("MESETA_DEV_CA_DIR", dev_ca())
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let watched = watch_over(&supervisor, dir.path());
        let mut lines = BufReader::new(supervisor.stdout.take().unwrap()).lines();
        let master = loop {
            let line = lines
                .next()
                .expect("meseta local ended before it was ready")
                .unwrap();
            if let Some(rest) = line.strip_prefix("cluster ready: master ") {
                break rest.split(", ").next().unwrap().to_owned();
            }
        };
        Self {
            supervisor,
            lines,
            _watched: watched,
            master,
            dir,
        }
    }

    /// Pids of the components of this name, as `master` or `agent-1`, that run now.
    pub fn pids_of(&self, component: &str) -> Vec<i32> {
        let work_dir = format!("--work_dir={}", self.dir.path().join(component).display());
        processes()
            .into_iter()
            .filter(|pid| arguments(*pid).contains(&work_dir))
            .collect()
    }

    /// Kills a component without warning; it starts again.
    pub fn kill(&self, component: &str) {
        self.signal_to(component, Signal::SIGKILL);
    }

    /// Sends a signal to a component.
    pub fn signal_to(&self, component: &str, signal: Signal) {
        for pid in self.pids_of(component) {
            kill(Pid::from_raw(pid), signal).unwrap();
        }
    }

    /// Kills a component without warning; before it starts again, `meanwhile` is done in its directory.
    pub fn kill_and(&self, component: &str, meanwhile: impl FnOnce(&Path)) {
        self.signal(Signal::SIGSTOP);
        let killed = self.pids_of(component);
        self.kill(component);
        // One whose threads still write holds its files, though its command line is gone.
        wait_for("a component to end", || {
            killed.iter().all(|pid| has_ended(*pid)).then_some(())
        });
        meanwhile(&self.dir.path().join(component));
        self.signal(Signal::SIGCONT);
    }

    /// Pids of executors and tasks.
    pub fn executors(&self) -> Vec<i32> {
        let dir = self.dir.path().to_str().unwrap().to_owned();
        processes()
            .into_iter()
            .filter(|pid| environment(*pid).contains(&format!("MESOS_DIRECTORY={dir}")))
            .collect()
    }

    /// A `meseta` subcommand against this cluster.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(program("meseta"));
        command
            .args([subcommand, "--master", &self.master])
            .env(OF_CLUSTER, self.dir.path())
            .env("MESETA_DEV_CA_DIR", dev_ca());
        command
    }

    /// Runs `meseta execute` to its end.
    pub fn execute(&self, flags: &[&str]) -> Output {
        self.command("execute").args(flags).output().unwrap()
    }

    /// Waits for a line of the supervisor.
    pub fn line_with(&mut self, text: &str) -> String {
        loop {
            let line = self.lines.next().expect("meseta local ended").unwrap();
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Ends the cluster as Ctrl-C does and checks that nothing of it is left.
    pub fn stop(mut self) {
        self.signal(Signal::SIGINT);
        let status = wait_for("meseta local to end", || {
            self.supervisor.try_wait().unwrap()
        });
        assert!(status.success(), "meseta local ended with {status}");
        let left = self.remains();
        assert!(left.is_empty(), "left behind: {left:?}");
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.supervisor.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Command lines of all processes that belong to this cluster.
    pub fn remains(&self) -> Vec<String> {
        let command = format!("{OF_CLUSTER}={}", self.dir.path().display());
        remains(self.dir.path())
            .into_iter()
            .filter(|pid| !environment(*pid).contains(&command))
            .map(|pid| format!("{pid}: {}", arguments(pid).join(" ")))
            .collect()
    }
}

impl Drop for Cluster {
    /// A failed test ends its cluster too, and keeps its files for a look.
    fn drop(&mut self) {
        if matches!(self.supervisor.try_wait(), Ok(Some(_))) {
            return;
        }
        self.dir.disable_cleanup(true);
        eprintln!("files of the failed test: {}", self.dir.path().display());
        self.signal(Signal::SIGTERM);
        // The test may have failed while it was stopped.
        self.signal(Signal::SIGCONT);
        if let Err(error) = self.supervisor.wait() {
            eprintln!("meseta local: {error}");
        }
    }
}

/// Kills everything of a cluster in this directory that has not ended in time, so that no test hangs for ever.
fn watch_over(supervisor: &Child, dir: &Path) -> Sender<()> {
    let (watched, ended) = channel();
    let (dir, supervisor) = (dir.to_owned(), supervisor.id());
    std::thread::spawn(move || {
        if ended.recv_timeout(LIFE) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        eprintln!("the cluster in {} hangs: it is killed", dir.display());
        let supervisor = i32::try_from(supervisor).unwrap();
        for pid in remains(&dir).into_iter().chain([supervisor]) {
            // It may end by itself meanwhile.
            let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    });
    watched
}

/// All processes, but for this one, that name this directory.
fn remains(dir: &Path) -> Vec<i32> {
    let dir = dir.to_str().unwrap();
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    let named = |pid: i32| {
        environment(pid).contains(dir) || arguments(pid).iter().any(|text| text.contains(dir))
    };
    processes()
        .into_iter()
        .filter(|pid| *pid != me && named(*pid))
        .collect()
}

/// Whether all threads of a process are over, so that it holds no file any more.
fn has_ended(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    // Past the name, which may hold anything.
    let is_zombie = stat
        .rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('Z'));
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    is_zombie && threads.map_or(0, Iterator::count) <= 1
}

/// The development CA of all tests: not the user's own.
pub fn dev_ca() -> PathBuf {
    let me = std::env::current_exe().unwrap();
    me.parent()
        .and_then(Path::parent)
        .unwrap()
        .join("test-dev-ca")
}

fn processes() -> Vec<i32> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

fn arguments(pid: i32) -> Vec<String> {
    let raw = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    raw.split(|byte| *byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect()
}

fn environment(pid: i32) -> String {
    let raw = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    String::from_utf8_lossy(&raw).into_owned()
}
