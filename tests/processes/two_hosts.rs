//! Two hosts: the walk-through of the README, run line by line in two network namespaces. Needs root and `ip`.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

use meseta_tests::namespaces::{self, Namespaces};
use meseta_tests::{program, skipped, wait_for};

const README: &str = include_str!("../../README.md");
/// Section of the README whose code is run.
const SECTION: &str = "### Two hosts on one machine\n";
/// Printed by the shell after each step.
const DONE: &str = "---- done: ";

/// The code blocks of the section, in their order.
fn steps() -> Vec<&'static str> {
    let (_, rest) = README.split_once(SECTION).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap())
        .collect()
}

/// The namespaces of this run.
struct Hosts {
    one: String,
    two: String,
    namespaces: Namespaces,
}

impl Hosts {
    fn new() -> Self {
        let (one, two) = (namespaces::name("one"), namespaces::name("two"));
        let namespaces = Namespaces(vec![one.clone(), two.clone()]);
        Self {
            one,
            two,
            namespaces,
        }
    }

    /// Runs a program on the first host.
    fn meseta(&self, dir: &Path, arguments: &[&str]) -> Output {
        namespaces::within(&self.one, program("meseta"))
            .args(arguments)
            .current_dir(dir)
            .output()
            .unwrap()
    }

    /// Whether the one agent is active, with its id; none before there is one.
    fn agent(&self, dir: &Path) -> Option<(bool, String)> {
        let arguments = ["agents", "--master", "10.77.0.1:5050", "--json"];
        let output = self.meseta(dir, &arguments);
        let agents: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let agent = agents.as_array()?.iter().next_back()?;
        Some((agent["active"].as_bool()?, agent["id"].as_str()?.to_owned()))
    }
}

/// A shell into which the walk-through is typed.
struct Shell {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Shell {
    fn open(dir: &Path, hosts: &Hosts) -> Self {
        let bin = program("meseta").parent().unwrap().to_owned();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let mut child = Command::new("bash")
            .current_dir(dir)
            .env("PATH", path)
            .envs([("one", &hosts.one), ("two", &hosts.two)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            input: child.stdin.take().unwrap(),
            child,
            lines,
        }
    }

    /// Types one step and waits until its last command has ended; what it printed.
    fn run(&mut self, step: &str) -> String {
        write!(self.input, "set -e\n{step}\necho\necho '{DONE}'\n").unwrap();
        self.input.flush().unwrap();
        let mut printed = String::new();
        loop {
            let line = self.lines.next().unwrap_or_else(|| {
                panic!("the shell ended, as it does when a command fails, in\n{step}\n{printed}")
            });
            let line = line.unwrap();
            if line == DONE {
                return printed;
            }
            printed += &line;
            printed += "\n";
        }
    }

    fn close(self) {
        let Self {
            mut child, input, ..
        } = self;
        drop(input);
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn the_walk_through_of_two_hosts_does_what_it_says() {
    if let Some(reason) = namespaces::obstacle() {
        return skipped("two_hosts", &reason);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let hosts = Hosts::new();
    let mut shell = Shell::open(path, &hosts);
    let steps = steps();
    let [cable, certificates, password, start, use_it, cut, heal, end] = steps.as_slice() else {
        panic!("the README has {} steps", steps.len());
    };
    for step in [cable, certificates, password, start] {
        shell.run(step);
    }

    let printed = shell.run(use_it);
    for expected in [
        "3 finished, 0 failed",
        "slave(1)@10.77.0.2:5051",
        "hello from the other host",
        "info,meseta_master=debug (by node@10.77.0.1:",
    ] {
        assert!(
            printed.contains(expected),
            "{expected} is not in\n{printed}"
        );
    }
    let (active, id) = hosts.agent(path).unwrap();
    assert!(active);

    a_stranger_is_refused(&hosts, path);
    in_plain_others_only_look(&hosts);

    shell.run(cut);
    wait_for("the master to notice the cut", || {
        hosts.agent(path).filter(|(active, _)| !active)
    });
    shell.run(heal);
    let back = wait_for("the agent to come back", || {
        hosts.agent(path).filter(|(active, _)| *active)
    });
    assert_eq!(back, (true, id), "it is the same agent");
    let again = shell.run("ip netns exec $one meseta execute --command true --instances 2");
    assert!(again.contains("2 finished, 0 failed"), "{again}");

    shell.run(end);
    shell.close();
    assert!(!hosts.namespaces.exist());
}

/// From another host, in plain and without a password, nothing is changed and no sandbox is shown.
fn in_plain_others_only_look(hosts: &Hosts) {
    let asked = |port: u16, host: &str, request: &str| {
        let ask = format!(
            "exec 3<>/dev/tcp/{host}/{port}; printf '{request}' >&3; head -n 1 <&3 | cut -d ' ' -f 2"
        );
        let output = namespaces::within(&hosts.one, "bash")
            .args(["-c", &ask])
            .output();
        String::from_utf8(output.unwrap().stdout)
            .unwrap()
            .trim()
            .to_owned()
    };
    let get =
        |path: &str| format!("GET {path} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n");
    let (agent, sandbox) = ("10.77.0.2", get("/files/browse?path=/"));
    assert_eq!(asked(5051, agent, &get("/state")), "200");
    assert_eq!(asked(5051, agent, &sandbox), "403");
    assert_eq!(asked(5051, agent, &get("/files/debug")), "403");
    let toggle = get("/logging/toggle?level=1&duration=1secs");
    assert_eq!(asked(5050, "10.77.0.1", &toggle), "403");
    let body = r#"{"type":"TEARDOWN","teardown":{"framework_id":{"value":"x"}}}"#;
    let length = body.len();
    let teardown = format!(
        "POST /api/v1 HTTP/1.1\\r\\nHost: x\\r\\nContent-Type: application/json\\r\\nContent-Length: {length}\\r\\n\
         Connection: close\\r\\n\\r\\n{body}"
    );
    assert_eq!(asked(5050, "10.77.0.1", &teardown), "403");
}

/// A certificate of another CA opens nothing, whatever role it names; nor does a scheduler's open what an operator's
/// does.
fn a_stranger_is_refused(hosts: &Hosts, dir: &Path) {
    let own = |arguments: &[&str]| {
        let output = hosts.meseta(dir, arguments);
        assert!(output.status.success(), "{output:?}");
    };
    let address = "10.77.0.1";
    own(&["certs", "ca", "--dir", "strange", "--cluster", "trial"]);
    for (ca, role, out) in [
        ("strange", "operator", "strange/me"),
        ("certs", "scheduler", "certs/batch"),
    ] {
        own(&[
            "certs", "node", "--dir", ca, "--host", address, "--role", role, "--out", out,
        ]);
        let file = |name: &str| format!("{out}/{name}");
        let output = hosts.meseta(
            dir,
            &[
                "log-level",
                "trace",
                "--master",
                "10.77.0.1:5050",
                "--advertise_ip",
                address,
                "--ca_file",
                &file("ca.pem"),
                "--cert_file",
                &file("node.pem"),
                "--key_file",
                &file("node-key.pem"),
            ],
        );
        assert!(!output.status.success(), "{output:?}");
        let shown = hosts.meseta(dir, &["log-level", "--master", "10.77.0.1:5050"]);
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.starts_with("info,meseta_master=debug"), "{shown}");
    }
}
