//! Three masters, agents, and a framework that launches about 50 tasks a second, while masters are killed, paused, cut
//! off, and lose their disks. After each: nothing that was acknowledged is lost, no task runs twice, no agent is removed,
//! and the framework goes on.
//!
//! The short form is part of every test run. `scripts/masters` runs the long one, and shows who led when.

mod cuts;
mod guests;
mod trial;
mod watch;

use std::path::Path;
use std::time::Duration;

use meseta_runtime::identity::CertificateAuthority;
use meseta_tests::small_disk::SmallDisk;
use meseta_tests::{Cluster, dev_ca, skipped};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use self::trial::{Place, Trial};

const AGENTS: u32 = 2;
/// How often offers are made: often enough for 50 launches a second.
const SETTINGS: &[(&str, &str)] = &[("MESETA_ALLOCATION_INTERVAL", "100ms")];

fn cluster_in(dir: TempDir) -> Cluster {
    let flags = [
        "--masters=3",
        "--resources=cpus:8;mem:4096",
        "--executor_transport=unix",
    ];
    Cluster::start_in(dir, AGENTS, &flags, SETTINGS)
}

fn cluster() -> Cluster {
    cluster_in(TempDir::with_prefix("meseta-test-").unwrap())
}

fn trial(cluster: &Cluster) -> Trial {
    trial_with(cluster, 0)
}

/// Each write to the registry has so many bytes or more.
fn trial_with(cluster: &Cluster, bulk: usize) -> Trial {
    let authority = CertificateAuthority::load_or_create(&dev_ca(), "tests").unwrap();
    let place = Place::new("127.0.0.1", &authority);
    Trial::begin(&cluster.master, 2, place, cluster.dir.path(), bulk)
}

/// Name of a master by its place in the list.
fn master(number: usize) -> String {
    format!("master-{}", number + 1)
}

/// How much of something the long form has; it names it in the environment.
fn scale(variable: &str, short: u32) -> u32 {
    std::env::var(variable).map_or(short, |text| text.parse().unwrap())
}

#[test]
fn the_leader_is_killed_again_and_again() {
    let cluster = cluster();
    let mut trial = trial(&cluster);
    for number in 1..=scale("MESETA_KILLS", 3) {
        trial.leader_changes(&format!("kill -9 of the leader, {number}"), |leader| {
            cluster.kill(&master(leader));
        });
    }
    trial.ends_well();
    cluster.stop();
}

#[test]
fn a_leader_that_is_paused_comes_back_as_a_follower() {
    let cluster = cluster();
    let mut trial = trial(&cluster);
    let paused = trial.leader;
    trial.leader_changes("SIGSTOP of the leader", |leader| {
        cluster.signal_to(&master(leader), Signal::SIGSTOP);
    });
    trial.lasts(Duration::from_secs(scale("MESETA_PAUSE", 0).into()));
    trial.goes_on("SIGCONT", |_| {
        cluster.signal_to(&master(paused), Signal::SIGCONT);
    });
    trial.has_caught_up(paused);
    trial.ends_well();
    cluster.stop();
}

#[test]
fn a_wiped_replica_comes_back_and_is_one_of_the_quorum() {
    let cluster = cluster();
    let mut trial = trial(&cluster);
    let wiped = (trial.leader + 1) % 3;
    let wipe = |directory: &Path| {
        std::fs::remove_dir_all(directory.join("replicated_log")).unwrap();
    };
    trial.goes_on("a follower loses its disk", |_| {
        cluster.kill_and(&master(wiped), wipe);
    });
    trial.has_caught_up(wiped);
    // Without the wiped one there is no quorum now.
    trial.leader_changes("kill -9 of the leader", |leader| {
        cluster.kill(&master(leader));
    });
    trial.leader_changes("the leader loses its disk", |leader| {
        cluster.kill_and(&master(leader), wipe);
    });
    trial.ends_well();
    cluster.stop();
}

#[test]
fn a_leader_whose_disk_is_full_says_so_and_ends_and_another_one_leads() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("full_disk", "needs root, to mount a small file system");
    }
    let dir = TempDir::with_prefix("meseta-test-").unwrap();
    let disks: Vec<SmallDisk> = (0..3)
        .map(|number| {
            // So large that the others do not fill up by themselves meanwhile, however quick they are.
            SmallDisk::mount(dir.path().join(master(number)).join("replicated_log"), 128)
        })
        .collect();
    let mut cluster = cluster_in(dir);
    // The journal has its place already; it is the table that grows, when two MiB have been written.
    let mut trial = trial_with(&cluster, 64 << 10);
    let full = trial.leader;
    trial.leader_changes("the disk of the leader is full", |leader| {
        disks[leader].fill();
    });
    cluster.line_with("no room left for");
    trial.goes_on("there is room again", |_| disks[full].make_room());
    trial.has_caught_up(full);
    trial.ends_well();
    cluster.stop();
}
