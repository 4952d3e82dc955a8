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

/// Hosts on one switch, numbered from 0; the switch is on the first of them.
#[derive(Debug, Clone)]
pub struct Switch {
    /// What the names of all its namespaces begin with.
    pub prefix: String,
    /// Third number of their addresses.
    pub net: u8,
}

impl Switch {
    /// Nobody's link address: what is sent there is lost in silence.
    const NOWHERE: &str = "02:00:00:00:00:99";

    /// The namespace of a host.
    pub fn name(&self, host: usize) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// The address of a host.
    pub fn address(&self, host: usize) -> String {
        format!("10.78.{}.{}", self.net, host + 1)
    }

    /// Makes so many hosts.
    pub fn lay(&self, hosts: usize) -> Namespaces {
        let guard = Namespaces((0..hosts).map(|host| self.name(host)).collect());
        for name in &guard.0 {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
        }
        let hub = self.name(0);
        ip(&format!("-n {hub} link add eth0 type bridge"));
        for host in 0..hosts {
            let (name, address) = (self.name(host), self.address(host));
            if host > 0 {
                ip(&format!(
                    "-n {hub} link add h{host} type veth peer name eth0 netns {name}"
                ));
                ip(&format!("-n {hub} link set h{host} master eth0 up"));
            }
            ip(&format!("-n {name} addr add {address}/24 dev eth0"));
            ip(&format!("-n {name} link set eth0 up"));
        }
        guard
    }

    /// Loses whatever the first host sends to the second one.
    pub fn lose(&self, from: usize, to: usize) {
        let (name, to) = (self.name(from), self.address(to));
        let nowhere = Self::NOWHERE;
        ip(&format!(
            "-n {name} neigh replace {to} lladdr {nowhere} dev eth0 nud permanent"
        ));
    }

    /// Loses it no more.
    pub fn heal(&self, from: usize, to: usize) {
        let (name, to) = (self.name(from), self.address(to));
        ip(&format!("-n {name} neigh del {to} dev eth0"));
    }
}
