//! Containers made of real processes: nothing of them is left after they are destroyed.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use meseta_agent::config::Containment;
use meseta_agent::containerizer::process_tree::Identity;
use meseta_agent::containerizer::{
    ContainerEnded, Destroy, Exits, Host, Launch, LaunchError, Sweep,
};
use meseta_protocol::launch::LaunchPlan;
use meseta_runtime::transport::memory::MemoryNetwork;
use meseta_runtime::{Context, Gate, Message, Node, Op, Pid, Process, Receive, Routes};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Go {}
impl Message for Go {
    const NAME: &'static str = "test.Go";
}

type Act = Box<dyn FnOnce(&mut Context<'_, Orderer>) + Send>;

/// A process that orders operations.
struct Orderer(Receiver<Act>);
impl Process for Orderer {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Go>();
    }
}
impl Receive<Go> for Orderer {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, _: Go) {
        while let Ok(act) = self.0.try_recv() {
            act(cx);
        }
    }
}

struct World {
    node: Node,
    orderer: Pid,
    acts: Sender<Act>,
    directory: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.node.shutdown();
    }
}

/// What runs as the executor: itself, a child, and a grandchild with a session of its own whose parents have gone.
/// Arguments: a pipe to write process ids to, `MESOS_DIRECTORY` or nothing, a control group to enter or nothing.
const TREE: &str = r#"
cat > /dev/null
if [ -n "$3" ]; then echo $$ > "$3/cgroup.procs"; fi
if [ -n "$2" ]; then export MESOS_DIRECTORY="$2"; fi
exec 3> "$1"
echo $$ >&3
sh -c 'echo $$ >&3; exec sleep 1000' &
setsid sh -c '(setsid sh -c "echo \$\$ >&3; exec sleep 1001" &)'
exec sleep 1002
"#;

impl World {
    fn new() -> Self {
        let network = MemoryNetwork::default();
        let node = meseta_agent::operators(Node::builder().memory(&network))
            .start()
            .unwrap();
        let (acts, todo) = channel();
        let orderer = node.spawn("orderer", move || Orderer(todo)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        Self {
            node,
            orderer,
            acts,
            directory,
        }
    }

    fn run<O: Op>(&self, op: O) -> O::Out {
        let (done, outcome) = channel();
        let act = move |cx: &mut Context<'_, Orderer>| {
            cx.run(op, Gate::Interleave, move |_, _, out| {
                done.send(out).unwrap();
            });
        };
        self.acts.send(Box::new(act)).unwrap();
        self.node.send(&self.orderer, Go {});
        outcome.recv().unwrap()
    }

    fn sandbox(&self) -> PathBuf {
        self.directory
            .path()
            .join("slaves/S0/frameworks/f/executors/e/runs/c")
    }

    fn launch(
        &self,
        launcher: &[&str],
        freezer: Option<&Path>,
        owner: Option<&str>,
    ) -> (Result<Identity, LaunchError>, Receiver<ContainerEnded>) {
        let (tell, ended) = channel();
        let sandbox = self.sandbox();
        let text = |path: &Path| path.display().to_string();
        let plan = LaunchPlan {
            working_directory: text(&sandbox),
            stdout: text(&sandbox.join("stdout")),
            stderr: text(&sandbox.join("stderr")),
            freezer_cgroup: freezer.map(text),
            ..LaunchPlan::default()
        };
        let launched = self.run(Launch {
            container: "c".into(),
            links: meseta_agent::paths::links(self.directory.path(), &"S0".into(), &sandbox),
            owner: owner.map(str::to_owned),
            launcher: launcher.iter().map(|word| (*word).to_owned()).collect(),
            plan,
            // The test may have ended.
            exits: Exits::new(move |ended| drop(tell.send(ended))),
        });
        (launched, ended)
    }

    /// Launches the tree and waits until all of it runs.
    fn tree(&self, marked: bool, freezer: Option<&Path>) -> (Vec<u32>, Receiver<ContainerEnded>) {
        let pipe = self.directory.path().join("pids");
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        let mark = if marked {
            self.sandbox().display().to_string()
        } else {
            String::new()
        };
        let group = freezer
            .map(|group| group.display().to_string())
            .unwrap_or_default();
        let pipe_text = pipe.display().to_string();
        let launcher = ["/bin/sh", "-c", TREE, "sh", &pipe_text, &mark, &group];
        let (launched, ended) = self.launch(&launcher, freezer, None);
        let lines = BufReader::new(fs::File::open(&pipe).unwrap()).lines();
        let pids: Vec<u32> = lines
            .take(3)
            .map(|line| line.unwrap().trim().parse().unwrap())
            .collect();
        assert_eq!(pids[0], launched.unwrap().process);
        assert!(pids.iter().all(|pid| is_alive(*pid)));
        (pids, ended)
    }
}

/// Whether a process runs; one that has ended and was not reaped does not.
fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| {
            stat.rsplit_once(')')
                .map(|(_, rest)| rest.trim_start().to_owned())
        })
        .is_some_and(|rest| !rest.starts_with(['Z', 'X']))
}

fn destroy(world: &World, freezer: Option<PathBuf>) -> Destroy {
    Destroy {
        container: "c".into(),
        sandbox: world.sandbox(),
        freezer,
    }
}

#[test]
fn a_walk_ends_the_whole_tree() {
    let world = World::new();
    let (pids, ended) = world.tree(true, None);
    assert_eq!(world.run(destroy(&world, None)), Ok(()));
    assert!(!pids.iter().any(|pid| is_alive(*pid)), "{pids:?}");
    assert_eq!(ended.recv().unwrap().status, 9);
    assert_eq!(
        world.run(destroy(&world, None)),
        Ok(()),
        "nothing is left to do"
    );
}

#[test]
fn a_walk_finds_what_an_ended_leader_left_and_so_does_a_sweep() {
    for by_sweep in [false, true] {
        let world = World::new();
        let (pids, ended) = world.tree(true, None);
        let leader = nix::unistd::Pid::from_raw(i32::try_from(pids[0]).unwrap());
        nix::sys::signal::kill(leader, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert_eq!(ended.recv().unwrap().status, 15);
        assert!(is_alive(pids[1]) && is_alive(pids[2]));
        let done = if by_sweep {
            let sandboxes = meseta_agent::paths::agents(world.directory.path());
            world.run(Sweep {
                sandboxes,
                freezer: None,
                leaving: false,
                keep: BTreeMap::new(),
            })
        } else {
            world.run(destroy(&world, None))
        };
        assert_eq!(done, Ok(()));
        assert!(!pids.iter().any(|pid| is_alive(*pid)), "{pids:?}");
    }
}

#[test]
fn the_freezer_ends_the_whole_tree() {
    let world = World::new();
    let Some(own) = Host::look(&Containment::Auto, world.directory.path()).freezer else {
        println!("SKIPPED: no freezer hierarchy that this user may use");
        return;
    };
    for by_sweep in [false, true] {
        let world = World::new();
        let group = own.join("c");
        let (pids, ended) = world.tree(false, Some(&group));
        let done = if by_sweep {
            let sandboxes = meseta_agent::paths::agents(world.directory.path());
            world.run(Sweep {
                sandboxes,
                freezer: Some(own.clone()),
                leaving: true,
                keep: BTreeMap::new(),
            })
        } else {
            world.run(destroy(&world, Some(group.clone())))
        };
        assert_eq!(done, Ok(()));
        assert!(!pids.iter().any(|pid| is_alive(*pid)), "{pids:?}");
        assert!(!group.exists());
        assert_eq!(ended.recv().unwrap().status, 9);
    }
    assert!(
        !own.exists(),
        "a leaving agent takes its part of the hierarchy along"
    );
}

#[test]
fn a_sandbox_is_made_as_people_expect_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new();
    let (launched, ended) = world.launch(
        &["/bin/sh", "-c", "cat > /dev/null; echo out; exit 3"],
        None,
        None,
    );
    assert!(launched.is_ok());
    assert_eq!(
        ended.recv().unwrap(),
        ContainerEnded {
            container: "c".into(),
            status: 768,
            complaint: None
        }
    );
    let sandbox = world.sandbox();
    assert_eq!(
        fs::metadata(&sandbox).unwrap().permissions().mode() & 0o7777,
        0o750
    );
    assert_eq!(
        fs::read_to_string(sandbox.with_file_name("latest").join("stdout")).unwrap(),
        "out\n"
    );
    assert_eq!(
        fs::read_link(world.directory.path().join("slaves/latest")).unwrap(),
        Path::new("S0")
    );
    assert_eq!(world.run(destroy(&world, None)), Ok(()));
}

#[test]
fn a_launcher_that_fails_says_why() {
    let world = World::new();
    let (_, ended) = world.launch(
        &["/bin/sh", "-c", "echo no such program >&2; exit 125"],
        None,
        None,
    );
    assert_eq!(
        ended.recv().unwrap().complaint.as_deref(),
        Some("no such program")
    );
    let world = World::new();
    let (launched, _) = world.launch(&["/no/such/launcher"], None, None);
    assert!(
        matches!(launched, Err(LaunchError::Launcher(why)) if why.contains("/no/such/launcher"))
    );
}

#[test]
fn an_unknown_user_gets_no_sandbox() {
    let world = World::new();
    let (launched, _) = world.launch(&["/bin/true"], None, Some("nobody-of-that-name"));
    let path = world.sandbox();
    let reason =
        "Failed to chown directory to 'nobody-of-that-name': No such user 'nobody-of-that-name'"
            .to_owned();
    assert_eq!(launched, Err(LaunchError::Sandbox { path, reason }));
}
