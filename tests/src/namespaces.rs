//! Network namespaces, which are hosts of their own to the programs in them. They need root and the command `ip`.

use std::ffi::OsStr;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A name that no other run has.
pub fn name(of: &str) -> String {
    format!("meseta-{}-{of}", std::process::id())
}

/// Namespaces by name. Whatever becomes of the test, they go with all that runs in them.
#[derive(Debug)]
pub struct Namespaces(pub Vec<String>);

impl Namespaces {
    /// Whether any of them is there.
    pub fn exist(&self) -> bool {
        let output = Command::new("ip").args(["netns", "list"]).output().unwrap();
        let list = String::from_utf8_lossy(&output.stdout).into_owned();
        self.0.iter().any(|name| list.contains(name))
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            let run = |arguments: &[&str]| Command::new("ip").args(arguments).output();
            let pids = run(&["netns", "pids", name]).map(|output| output.stdout);
            for pid in String::from_utf8_lossy(&pids.unwrap_or_default()).split_whitespace() {
                if let Ok(pid) = pid.parse() {
                    // It may have ended by now.
                    let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
            // It is gone already when all went well.
            let _gone = run(&["netns", "del", name]);
        }
    }
}

/// Runs the command `ip`, which must succeed.
pub fn ip(arguments: &str) {
    let words = arguments.split_whitespace();
    let output = Command::new("ip").args(words).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {output:?}");
}

/// A program in a namespace.
pub fn within(namespace: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

/// Why this machine cannot have any.
pub fn obstacle() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root and network namespaces".to_owned());
    }
    let probe = Namespaces(vec![name("probe")]);
    let tried = Command::new("ip")
        .args(["netns", "add", &probe.0[0]])
        .output();
    match tried {
        Err(error) => Some(format!("needs the command `ip` ({error})")),
        Ok(output) if !output.status.success() => Some(format!(
            "needs network namespaces ({})",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Ok(_) => None,
    }
}
