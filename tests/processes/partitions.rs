//! An agent is cut off, in every way: three masters, an agent, and all else on hosts of their own, which are network
//! namespaces. Its tasks are of a framework that checkpoints and knows partitions. After each cut, short or longer than it
//! takes to call the agent unreachable: the tasks that ran run, as the same processes; the one that has ended meanwhile is
//! heard of, as one update; and the agent is the same.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::offer::{Filters, Offer};
use meseta_protocol::resources::Resources;
use meseta_protocol::status::{TaskState, TaskStatus};
use meseta_protocol::task::TaskInfo;
use meseta_runtime::Credentials;
use meseta_runtime::identity::{CertificateAuthority, Identity};
use meseta_scheduler_driver::{Config, Handle, Scheduler, SchedulerDriver};
use meseta_tests::namespaces::{self, Switch, within};
use meseta_tests::{program, skipped, wait_for};
use serde_json::Value;

/// Names the namespaces in the environment of the part that runs within.
const WITHIN: &str = "MESETA_PARTITION_HOSTS";
/// The hosts: of all else, of masters, of the agent.
const HUB: usize = 0;
const MASTERS: [usize; 3] = [1, 2, 3];
const AGENT: usize = 4;
/// The task that runs through all cuts.
const LASTING: &str = "lasting";

/// A way to cut the agent off: what it is called, and what is lost on the way from whom to whom when this host has the
/// leading master.
type Cut = (&'static str, fn(usize) -> Vec<(usize, usize)>);

const CUTS: [Cut; 4] = [
    ("agent and leader do not hear each other", |leader| {
        vec![(AGENT, leader), (leader, AGENT)]
    }),
    ("no master hears the agent", |_| {
        MASTERS.map(|master| (AGENT, master)).to_vec()
    }),
    ("the agent hears no master", |_| {
        MASTERS.map(|master| (master, AGENT)).to_vec()
    }),
    ("agent and masters do not hear each other", |_| {
        let both = |master| [(AGENT, master), (master, AGENT)];
        MASTERS.into_iter().flat_map(both).collect()
    }),
];

/// How long a cut lasts.
#[derive(Clone, Copy, PartialEq)]
enum Length {
    /// It heals at once, many times.
    Flapping,
    /// Until the master has lost the connection and nothing more.
    Disconnected,
    /// Until the agent is unreachable.
    Unreachable,
}

#[test]
fn tasks_and_updates_survive_every_way_to_cut_their_agent_off() {
    let net = 79;
    if let Ok(prefix) = std::env::var(WITHIN) {
        return survive(&Switch { prefix, net });
    }
    if let Some(reason) = namespaces::obstacle() {
        return skipped("partitions", &reason);
    }
    let prefix = namespaces::name("part");
    let switch = Switch { prefix, net };
    let guard = switch.lay(AGENT + 1);
    // All of this program has to be on the host: it runs itself there.
    let status = within(&switch.name(HUB), std::env::current_exe().unwrap())
        .args(["partitions::", "--nocapture"])
        .env(WITHIN, &switch.prefix)
        .status();
    assert!(status.unwrap().success());
    drop(guard);
}

/// Runs on the host of all but masters and agent.
fn survive(switch: &Switch) {
    let dir = tempfile::Builder::new()
        .prefix("meseta-test-")
        .disable_cleanup(true)
        .tempdir()
        .unwrap();
    let long = std::env::var_os("MESETA_CUTS").is_some();
    let mut rounds: Vec<(Cut, Length)> = vec![
        (CUTS[3], Length::Flapping),
        (CUTS[0], Length::Disconnected),
        (CUTS[1], Length::Unreachable),
    ];
    if long {
        for cut in CUTS {
            for length in [Length::Flapping, Length::Disconnected, Length::Unreachable] {
                rounds.push((cut, length));
            }
        }
    }
    let mut world = World::start(switch, dir.path(), rounds.len());
    for (number, (cut, length)) in rounds.into_iter().enumerate() {
        world.round(number, cut, length);
    }
    world.ends();
    std::fs::remove_dir_all(dir.path()).unwrap();
}

/// What the framework has heard.
type Heard = Arc<Mutex<Vec<TaskStatus>>>;

/// Launches these commands once, each as a task, and writes down what it hears.
struct Recorder {
    commands: Vec<(String, String)>,
    launched: bool,
    heard: Heard,
}

impl Scheduler for Recorder {
    fn resource_offers(&mut self, driver: &mut Handle<'_>, offers: Vec<Offer>) {
        let each: Resources = "cpus:0.1;mem:32".parse().unwrap();
        for offer in offers {
            if self.launched {
                driver.decline_offer(offer.id, Filters::refusing(3_600.0));
                continue;
            }
            self.launched = true;
            let agent = &offer.agent_id;
            let tasks = self.commands.iter().map(|(name, command)| {
                TaskInfo::new(name.clone(), agent.clone(), each.clone(), command)
            });
            driver.launch_tasks(vec![offer.id], tasks.collect(), Filters::default());
        }
    }

    fn status_update(&mut self, _: &mut Handle<'_>, status: &TaskStatus) {
        self.heard.lock().unwrap().push(status.clone());
    }
}

struct World<'a> {
    switch: &'a Switch,
    dir: &'a Path,
    programs: Vec<Child>,
    masters: String,
    heard: Heard,
    driver: SchedulerDriver,
    agent: String,
    /// Process of the lasting task, with the time of its start.
    process: (String, String),
}

impl<'a> World<'a> {
    fn start(switch: &'a Switch, dir: &'a Path, rounds: usize) -> Self {
        let authority = CertificateAuthority::create("partitions").unwrap();
        let masters = MASTERS.map(|host| format!("{}:5050", switch.address(host)));
        let masters = masters.join(",");
        let mut programs = Vec::new();
        for host in MASTERS {
            let flags = [
                "--port=5050".to_owned(),
                format!("--masters={masters}"),
                "--agent_ping_timeout=1secs".to_owned(),
                "--max_agent_ping_timeouts=10".to_owned(),
            ];
            programs.push(run(switch, dir, &authority, host, "master", &flags));
        }
        let flags = [
            "--port=0".to_owned(),
            "--resources=cpus:8;mem:4096".to_owned(),
            "--executor_transport=unix".to_owned(),
            format!("--master={masters}"),
        ];
        programs.push(run(switch, dir, &authority, AGENT, "agent", &flags));

        let pid = dir.join("pid").display().to_string();
        let mut commands = vec![(
            LASTING.to_owned(),
            format!("echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 100000"),
        )];
        for number in 0..rounds {
            let end = end_of(dir, number).display().to_string();
            let command = format!("while [ ! -e {end} ]; do sleep 0.1; done");
            commands.push((format!("round-{number}"), command));
        }
        let tasks = commands.len();
        let heard = Heard::default();
        let recorder = Recorder {
            commands,
            launched: false,
            heard: Arc::clone(&heard),
        };
        let mut framework = FrameworkInfo::new("root", "partitions");
        framework.checkpoint = true;
        framework.failover_timeout = 600.0;
        let mut config = Config::new(&masters, framework);
        config.host = switch.address(HUB);
        let identity = Identity::issue(&authority, &[switch.address(HUB)], &["scheduler"]).unwrap();
        config.credentials = Credentials::Given(Box::new(identity));
        let driver = SchedulerDriver::start(config, recorder).unwrap();
        wait_for("all tasks to run", || {
            let running = heard.lock().unwrap();
            let running = running.iter().filter(|s| s.state == TaskState::Running);
            let running: BTreeSet<_> = running.map(|status| status.task_id.clone()).collect();
            (running.len() == tasks).then_some(())
        });
        let agent = wait_for("the agent", || {
            shown(&masters, "agents")?[0]["id"]
                .as_str()
                .map(str::to_owned)
        });
        let process = wait_for("the pid of the lasting task", || {
            process(std::fs::read_to_string(&pid).ok()?.trim())
        });
        Self {
            switch,
            dir,
            programs,
            masters,
            heard,
            driver,
            agent,
            process,
        }
    }

    /// Whether the agent is connected to the master; none when that cannot be said.
    fn is_active(&self) -> Option<bool> {
        let agents = shown(&self.masters, "agents")?;
        let own = agents
            .as_array()?
            .iter()
            .find(|agent| agent["id"] == self.agent.as_str());
        own.map_or(Some(false), |agent| agent["active"].as_bool())
    }

    /// The host of the leading master.
    fn leader(&self) -> usize {
        wait_for("a leader", || {
            let masters = shown(&self.masters, "masters")?;
            let leads = |master: &&Value| master["doing"] == "leading";
            let leader = masters.as_array()?.iter().find(leads)?["master"]
                .as_str()?
                .to_owned();
            let leads =
                |host: &usize| leader.starts_with(&format!("{}:", self.switch.address(*host)));
            MASTERS.into_iter().find(leads)
        })
    }

    /// What was heard of a task since so many updates.
    fn states(&self, task: &str, since: usize) -> Vec<TaskState> {
        let heard = self.heard.lock().unwrap();
        let of_task = heard
            .iter()
            .skip(since)
            .filter(|status| status.task_id.as_str() == task);
        of_task.map(|status| status.state).collect()
    }

    fn round(&mut self, number: usize, (name, lost): Cut, length: Length) {
        let since = self.heard.lock().unwrap().len();
        let lost = lost(self.leader());
        let cut = || {
            lost.iter()
                .for_each(|(from, to)| self.switch.lose(*from, *to));
        };
        let heal = || {
            lost.iter()
                .for_each(|(from, to)| self.switch.heal(*from, *to));
        };
        cut();
        std::fs::write(end_of(self.dir, number), "").unwrap();
        match length {
            Length::Flapping => {
                for _ in 0..10 {
                    heal();
                    cut();
                }
            }
            Length::Disconnected => wait_for(&format!("{name}: disconnected"), || {
                (self.is_active() == Some(false)).then_some(())
            }),
            Length::Unreachable => wait_for(&format!("{name}: unreachable"), || {
                let states = self.states(LASTING, since);
                states.contains(&TaskState::Unreachable).then_some(())
            }),
        }
        heal();
        wait_for(&format!("{name}: the agent is back"), || {
            (self.is_active() == Some(true)).then_some(())
        });
        let ended = format!("round-{number}");
        wait_for(&format!("{name}: the end of {ended}"), || {
            self.states(&ended, since)
                .contains(&TaskState::Finished)
                .then_some(())
        });
        wait_for(&format!("{name}: {LASTING} runs for its framework"), || {
            // Nothing may have been heard of it at all.
            let last = self.states(LASTING, since).pop();
            (last.is_none() || last == Some(TaskState::Running)).then_some(())
        });
        self.keeps_the_laws(name);
    }

    /// What is true after each cut.
    fn keeps_the_laws(&self, after: &str) {
        assert_eq!(
            process(&self.process.0).as_ref(),
            Some(&self.process),
            "{after}"
        );
        let heard = self.heard.lock().unwrap();
        let lasting = heard
            .iter()
            .filter(|status| status.task_id.as_str() == LASTING);
        for status in lasting {
            assert!(!status.state.is_terminal(), "{after}: {status:?}");
            assert_eq!(
                status.agent_id.as_ref().map(|id| id.as_str()),
                Some(&*self.agent)
            );
        }
        // Each end is one update, however often it is sent.
        for number in 0.. {
            let task = format!("round-{number}");
            let of_task: Vec<&TaskStatus> = heard
                .iter()
                .filter(|s| s.task_id.as_str() == task)
                .collect();
            if of_task.is_empty() {
                break;
            }
            let ends: BTreeSet<_> = of_task
                .iter()
                .filter(|status| status.state.is_terminal())
                .map(|status| (status.state, status.uuid))
                .collect();
            assert!(ends.len() <= 1, "{after}: {task} ended as {ends:?}");
        }
    }

    fn ends(mut self) {
        self.driver.stop(false);
        wait_for("the end of the lasting task", || {
            process(&self.process.0).is_none().then_some(())
        });
        self.driver.join();
        for mut child in self.programs.drain(..).rev() {
            drop(child.stdin.take());
            let status = child.wait().unwrap();
            assert!(status.success(), "{status}: see {}", self.dir.display());
        }
    }
}

/// The file that ends the task of a round.
fn end_of(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("end-{number}"))
}

/// A process and when it started, if it lives.
fn process(pid: &str) -> Option<(String, String)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.to_owned();
    (state != "Z").then(|| (pid.to_owned(), started))
}

/// What `meseta SUBCOMMAND --json` prints.
fn shown(masters: &str, subcommand: &str) -> Option<Value> {
    let output = Command::new(program("meseta"))
        .args([subcommand, "--json", "--master", masters])
        .output();
    serde_json::from_slice(&output.ok()?.stdout).ok()
}

/// Starts a master or an agent on its host.
fn run(
    switch: &Switch,
    dir: &Path,
    authority: &CertificateAuthority,
    host: usize,
    role: &str,
    flags: &[String],
) -> Child {
    let address = switch.address(host);
    let work = dir.join(format!("{role}-{host}"));
    let certificates = work.join("certificates");
    let identity = Identity::issue(authority, std::slice::from_ref(&address), &[role]).unwrap();
    std::fs::create_dir_all(&work).unwrap();
    identity.save(&certificates).unwrap();
    let file = |flag: &str, file: &str| format!("--{flag}={}", certificates.join(file).display());
    within(&switch.name(host), program(&format!("meseta-{role}")))
        .args(flags)
        .arg(format!("--work_dir={}", work.display()))
        .args([format!("--ip={address}"), "--supervised".to_owned()])
        .args([
            file("ca_file", "ca.pem"),
            file("cert_file", "node.pem"),
            file("key_file", "node-key.pem"),
        ])
        .stdin(Stdio::piped())
        .stderr(std::fs::File::create(work.join("log")).unwrap())
        .spawn()
        .unwrap()
}
