//! A trial of three masters: a framework launches tasks and guests write to the registry, while one thing after another
//! goes wrong. After each, everything must have come through; at the end the tasks are counted.

#![expect(clippy::print_stdout, reason = "the time lines are for people")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use meseta_protocol::framework::FrameworkInfo;
use meseta_runtime::identity::{CertificateAuthority, Identity};
use meseta_runtime::{Clock, Credentials, Time};
use meseta_scheduler_driver::Config;
use meseta_tests::wait_for;
use serde_json::Value;

use super::guests::Guests;
use super::watch::{Watch, json};
use crate::load::{Load, Pace};

/// Tasks launched after a disturbance that must have finished before the next one.
const COME_THROUGH: usize = 25;

/// What its framework does.
const PACE: Pace = Pace {
    rate: 50.0,
    under_way: 400,
    checkpoint: false,
};

/// Where the parts of the trial itself are.
pub(super) struct Place {
    /// Their address.
    pub(super) host: String,
    /// Their certificate.
    pub(super) credentials: Credentials,
}

impl Place {
    /// At this address, with a certificate of this authority.
    pub(super) fn new(host: &str, authority: &CertificateAuthority) -> Self {
        let hosts = [host.to_owned()];
        let identity = Identity::issue(authority, &hosts, &["agent", "scheduler"]).unwrap();
        Self {
            host: host.to_owned(),
            credentials: Credentials::Given(Box::new(identity)),
        }
    }
}

/// One trial.
pub(super) struct Trial {
    clock: Clock,
    masters: Vec<String>,
    load: Load,
    guests: Guests,
    watch: Watch,
    /// The agents, whose ids must never change.
    agents: BTreeSet<String>,
    epoch: u64,
    /// The master that leads.
    pub(super) leader: usize,
}

impl Trial {
    /// Begins when these masters have a leader and that many agents.
    /// What is written to the registry is at least so long, until the leader has changed for the first time: the disks of
    /// the others are no larger.
    pub(super) fn begin(
        masters: &str,
        agents: usize,
        place: Place,
        directory: &Path,
        bulk: usize,
    ) -> Self {
        let clock = Clock::live();
        let mut config = Config::new(masters, FrameworkInfo::default());
        config.host.clone_from(&place.host);
        config.credentials = place.credentials.clone();
        let list: Vec<String> = masters.split(',').map(str::to_owned).collect();
        let watch = Watch::begin(&list, &clock);
        let (leader, epoch) = watch.leader(0);
        let known = wait_for("the agents", || {
            let known = active_agents(&list[leader])?;
            (known.len() == agents).then_some(known)
        });
        let mut trial = Self {
            load: Load::start(config, directory.join("ran"), &clock, PACE),
            guests: Guests::invite(masters, place, bulk, &clock),
            clock,
            masters: list,
            watch,
            agents: known,
            epoch,
            leader,
        };
        trial.comes_through("nothing has happened yet", trial.clock.now());
        trial
    }

    /// Disturbs the cluster, and waits until everything goes on under a new leader.
    pub(super) fn leader_changes(&mut self, what: &str, disturb: impl FnOnce(usize)) {
        let (old, since) = (self.leader, self.clock.now());
        disturb(old);
        (self.leader, self.epoch) = self.watch.leader(self.epoch);
        self.guests.be_small();
        self.comes_through(what, since);
    }

    /// Disturbs the cluster, and waits until everything goes on, whoever leads then.
    pub(super) fn goes_on(&mut self, what: &str, disturb: impl FnOnce(usize)) {
        let since = self.clock.now();
        disturb(self.leader);
        self.comes_through(what, since);
    }

    /// Waits until that long has passed since the call.
    pub(super) fn lasts(&self, pause: Duration) {
        let began = self.clock.now();
        wait_for("the end of the pause", || {
            (self.clock.now().since(began) >= pause).then_some(())
        });
    }

    /// Waits until the replica of this master votes and has all that the log has now.
    pub(super) fn has_caught_up(&self, master: usize) {
        let furthest = (0..self.masters.len())
            .filter_map(|one| self.end(one))
            .max();
        wait_for("a replica to catch up", || {
            (self.end(master) >= furthest).then_some(())
        });
    }

    /// The last position of a replica that votes and lacks nothing.
    fn end(&self, master: usize) -> Option<u64> {
        let status = json(&self.masters[master], "/log-replica(1)/status")?;
        let is_whole = status["status"] == "Voting" && status["missing"].as_array()?.is_empty();
        status["end"].as_u64().filter(|_| is_whole)
    }

    /// Though nobody writes any more, every replica comes to have all.
    fn replicas_agree(&self) {
        wait_for("all replicas to have the same", || {
            let ends: Option<BTreeSet<u64>> =
                (0..self.masters.len()).map(|one| self.end(one)).collect();
            (ends?.len() == 1).then_some(())
        });
    }

    /// New tasks finish, the registry takes writes and has lost none, and the agents are those of before.
    fn comes_through(&mut self, what: &str, since: Time) {
        let disturbed = self.clock.now();
        let next = wait_for("a write to the registry", || {
            let admitted = self.guests.admitted();
            admitted.iter().map(|one| one.at).find(|at| *at > disturbed)
        });
        let finished = || self.load.finished_since(disturbed);
        wait_for("new tasks to finish", || {
            (finished() >= COME_THROUGH).then_some(())
        });
        let (leader, epoch) = self.watch.leader(0);
        (self.leader, self.epoch) = (leader, epoch);
        self.agents_are_there();
        self.nothing_is_lost();
        let writes: Vec<Time> = self.guests.admitted().iter().map(|one| one.at).collect();
        println!(
            "{what}: {} leads under epoch {epoch}; next registry write after {:.3} s; longest gap between \
             registry writes {:.3} s, between status updates {:.3} s",
            self.masters[leader],
            next.since(since).as_secs_f64(),
            longest_gap(&writes, since),
            longest_gap(&self.load.updates(), since),
        );
        for line in self.watch.lines(since) {
            println!("  {line}");
        }
    }

    fn agents_are_there(&self) {
        wait_for("the agents to be back", || {
            let leader = self.watch.leader(0).0;
            let active = active_agents(&self.masters[leader])?;
            assert!(active.is_subset(&self.agents), "new agents: {active:?}");
            (active == self.agents).then_some(())
        });
    }

    /// Every agent that was admitted is in the registry.
    fn nothing_is_lost(&self) {
        // Whoever is admitted while the registry is fetched may not be in it.
        let admitted = self.guests.admitted();
        let registry = wait_for("the registry", || {
            let leader = self.watch.leader(0).0;
            json(&self.masters[leader], "/registrar(1)/registry")
        });
        let kept = ids(&registry["slaves"]["slaves"], |agent| {
            &agent["info"]["id"]["value"]
        });
        let away = ids(
            &registry["unreachable"]["slaves"],
            |agent| &agent["id"]["value"],
        );
        for agent in &self.agents {
            assert!(kept.contains(agent), "agent {agent} was removed");
        }
        for guest in admitted {
            assert!(
                kept.contains(&guest.id) || away.contains(&guest.id),
                "the admission of {} was acknowledged, and is lost",
                guest.id
            );
        }
    }

    /// Ends the trial: the end of every task is known, and no task ran twice.
    pub(super) fn ends_well(mut self) {
        self.guests.end();
        let writes = self.guests.admitted().len();
        self.replicas_agree();
        self.nothing_is_lost();
        let tally = self.load.ends_well();
        println!(
            "{} tasks launched: {} finished, {} lost; {writes} registry writes; {} subscriptions of the framework",
            tally.launched, tally.finished, tally.lost, tally.subscriptions
        );
    }
}

/// Ids of the agents with resources that are connected.
fn active_agents(master: &str) -> Option<BTreeSet<String>> {
    let slaves = json(master, "/slaves")?;
    let all = slaves["slaves"].as_array()?.iter();
    let real = all
        .filter(|agent| agent["active"] == true && agent["resources"]["cpus"].as_f64() > Some(0.0));
    real.map(|agent| Some(agent["id"].as_str()?.to_owned()))
        .collect()
}

fn ids(list: &Value, id: fn(&Value) -> &Value) -> BTreeSet<String> {
    let all = list.as_array().into_iter().flatten();
    all.filter_map(|one| Some(id(one).as_str()?.to_owned()))
        .collect()
}

/// The longest time without one of these events, from the last one before `since` on, in seconds.
fn longest_gap(events: &[Time], since: Time) -> f64 {
    let before = events.iter().rev().find(|at| **at <= since).copied();
    let mut last = before.unwrap_or(since);
    let mut longest = Duration::ZERO;
    for at in events.iter().filter(|at| **at > since) {
        longest = longest.max(at.since(last));
        last = *at;
    }
    longest.as_secs_f64()
}
