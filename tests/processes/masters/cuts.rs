//! The leading master is cut off, in every way: each master on a host of its own, which is a network namespace; agents,
//! framework and guests on another one. A cut in one direction is a wrong link address for a neighbour: what is sent
//! there is lost in silence.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use meseta_runtime::identity::{CertificateAuthority, Identity};
use meseta_tests::namespaces::{self, Namespaces, ip, within};
use meseta_tests::{program, skipped};

use super::trial::{Place, Trial};
use super::{AGENTS, SETTINGS, scale};

/// Names the namespaces in the environment of the part that runs within.
const WITHIN: &str = "MESETA_TRIAL_HOSTS";
/// The host of everything but masters.
const HUB: &str = "10.78.0.254";
/// Nobody's link address.
const NOWHERE: &str = "02:00:00:00:00:99";

/// Address of a master's host.
fn host(number: usize) -> String {
    format!("10.78.0.{}", number + 1)
}

#[test]
fn a_leader_that_is_cut_off_is_replaced_and_comes_back() {
    if let Ok(prefix) = std::env::var(WITHIN) {
        return cut_off(&Net { prefix });
    }
    if let Some(reason) = namespaces::obstacle() {
        return skipped("cuts", &reason);
    }
    let net = Net {
        prefix: namespaces::name("cut"),
    };
    let guard = net.lay();
    // All of this program has to be on the host: it runs itself there.
    let status = within(&net.hub(), std::env::current_exe().unwrap())
        .args(["masters::cuts::", "--nocapture"])
        .env(WITHIN, &net.prefix)
        .status();
    assert!(status.unwrap().success());
    drop(guard);
}

/// Three masters' hosts on one switch, which is on the host of all else.
struct Net {
    prefix: String,
}

impl Net {
    fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }

    fn master(&self, number: usize) -> String {
        format!("{}-m{number}", self.prefix)
    }

    fn lay(&self) -> Namespaces {
        let hub = self.hub();
        let mut all: Vec<String> = (0..3).map(|number| self.master(number)).collect();
        all.push(hub.clone());
        let guard = Namespaces(all);
        for name in &guard.0 {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
        }
        ip(&format!("-n {hub} link add eth0 type bridge"));
        ip(&format!("-n {hub} addr add {HUB}/24 dev eth0"));
        ip(&format!("-n {hub} link set eth0 up"));
        for number in 0..3 {
            let (name, address) = (self.master(number), host(number));
            ip(&format!(
                "-n {hub} link add m{number} type veth peer name eth0 netns {name}"
            ));
            ip(&format!("-n {hub} link set m{number} master eth0 up"));
            ip(&format!("-n {name} addr add {address}/24 dev eth0"));
            ip(&format!("-n {name} link set eth0 up"));
        }
        guard
    }

    /// Takes the cable of a master out, or puts it in.
    fn cable(&self, number: usize, state: &str) {
        ip(&format!("-n {} link set m{number} {state}", self.hub()));
    }

    /// Loses whatever the first host sends to the second one.
    fn lose(&self, from: Host, to: Host) {
        let (name, to) = (self.name(from), address(to));
        ip(&format!(
            "-n {name} neigh replace {to} lladdr {NOWHERE} dev eth0 nud permanent"
        ));
    }

    fn heal(&self, from: Host, to: Host) {
        let (name, to) = (self.name(from), address(to));
        ip(&format!("-n {name} neigh del {to} dev eth0"));
    }

    fn name(&self, host: Host) -> String {
        host.map_or_else(|| self.hub(), |number| self.master(number))
    }
}

/// A master's host; none is that of all else.
type Host = Option<usize>;

fn address(of: Host) -> String {
    of.map_or_else(|| HUB.to_owned(), host)
}

/// A way to cut the leader off: what it is called, and what is lost on the way from whom to whom.
type Cut = (&'static str, fn(usize) -> Vec<(Host, Host)>);

fn others(leader: usize) -> [Host; 2] {
    [Some((leader + 1) % 3), Some((leader + 2) % 3)]
}

const CUTS: &[Cut] = &[
    (
        "the leader and the other masters do not hear each other",
        |leader| {
            let [one, two] = others(leader);
            let me = Some(leader);
            vec![(me, one), (me, two), (one, me), (two, me)]
        },
    ),
    ("nobody hears the leader", |leader| {
        let [one, two] = others(leader);
        [one, two, None].map(|to| (Some(leader), to)).to_vec()
    }),
    ("the leader hears nobody", |leader| {
        let [one, two] = others(leader);
        [one, two, None].map(|from| (from, Some(leader))).to_vec()
    }),
];

/// Runs on the host of all but masters.
fn cut_off(net: &Net) {
    let dir = tempfile::Builder::new()
        .prefix("meseta-test-")
        .disable_cleanup(true)
        .tempdir()
        .unwrap();
    let authority = CertificateAuthority::create("trial").unwrap();
    let list: Vec<String> = (0..3)
        .map(|number| format!("{}:5050", host(number)))
        .collect();
    let parts = Parts {
        path: dir.path(),
        authority: &authority,
        masters: list.join(","),
    };
    let mut running: Vec<Running> = (0..3).map(|number| parts.master(net, number)).collect();
    running.extend((0..AGENTS).map(|number| parts.agent(number)));
    let place = Place::new(HUB, &authority);
    let mut trial = Trial::begin(&parts.masters, 2, place, dir.path(), 0);

    let count = scale("MESETA_CUTS", 1);
    for (name, lost) in CUTS.iter().take(usize::try_from(count).unwrap()) {
        let old = trial.leader;
        let lost = lost(old);
        trial.leader_changes(name, |_| {
            lost.iter().for_each(|(from, to)| net.lose(*from, *to));
        });
        trial.goes_on("healed", |_| {
            lost.iter().for_each(|(from, to)| net.heal(*from, *to));
        });
        trial.has_caught_up(old);
    }
    let old = trial.leader;
    trial.leader_changes("the leader's cable is out", |leader| {
        net.cable(leader, "down");
    });
    trial.goes_on("the cable is in again", |_| net.cable(old, "up"));
    trial.has_caught_up(old);
    // The follower in the middle reaches both; the other one must not disturb.
    let me = Some(trial.leader);
    let [one, _] = others(trial.leader);
    trial.goes_on("the leader reaches one follower only", |_| {
        net.lose(me, one);
        net.lose(one, me);
    });
    trial.lasts(std::time::Duration::from_secs(
        scale("MESETA_BRIDGE", 0).into(),
    ));
    trial.goes_on("the leader reaches both again", |_| {
        net.heal(me, one);
        net.heal(one, me);
    });
    trial.ends_well();
    for one in running.into_iter().rev() {
        one.ends();
    }
    std::fs::remove_dir_all(dir.path()).unwrap();
}

/// What the programs of a trial have in common.
struct Parts<'a> {
    path: &'a Path,
    authority: &'a CertificateAuthority,
    masters: String,
}

impl Parts<'_> {
    fn master(&self, net: &Net, number: usize) -> Running {
        let command = within(&net.master(number), program("meseta-master"));
        let name = format!("master-{}", number + 1);
        self.start(command, &name, &host(number), "master", |command| {
            command
                .arg("--port=5050")
                .arg(format!("--masters={}", self.masters));
        })
    }

    fn agent(&self, number: u32) -> Running {
        let command = Command::new(program("meseta-agent"));
        let name = format!("agent-{}", number + 1);
        self.start(command, &name, HUB, "agent", |command| {
            command
                .args(["--port=0", "--resources=cpus:8;mem:4096"])
                .arg("--executor_transport=unix")
                .arg(format!("--master={}", self.masters));
        })
    }

    fn start(
        &self,
        mut command: Command,
        name: &str,
        host: &str,
        role: &str,
        more: impl FnOnce(&mut Command),
    ) -> Running {
        let work = self.path.join(name);
        let certificates = work.join("certificates");
        let identity = Identity::issue(self.authority, &[host.to_owned()], &[role]).unwrap();
        std::fs::create_dir_all(&work).unwrap();
        identity.save(&certificates).unwrap();
        let file =
            |flag: &str, file: &str| format!("--{flag}={}", certificates.join(file).display());
        more(&mut command);
        let log = work.join("log");
        let child = command
            .arg(format!("--work_dir={}", work.display()))
            .args([format!("--ip={host}"), "--supervised".to_owned()])
            .args([
                file("ca_file", "ca.pem"),
                file("cert_file", "node.pem"),
                file("key_file", "node-key.pem"),
            ])
            .envs(SETTINGS.iter().copied())
            .stdin(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Running { child, log }
    }
}

/// A program of the trial.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Ends it, as the end of its standard input does.
    fn ends(mut self) {
        drop(self.child.stdin.take());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.log.display());
    }
}
