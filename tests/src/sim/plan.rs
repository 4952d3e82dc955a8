//! What a run is like, all of it drawn from its seed: the size of the cluster, what frameworks do, what goes wrong.

use std::time::Duration;

use meseta_master::election::core::Timing;
use meseta_runtime::sim::Faults;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::hosts::Troubles;
use super::sandboxes::Disks;
use super::scheduler::Character;

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Its seed.
    pub seed: u64,
    /// Resources of each agent.
    pub agents: Vec<String>,
    /// What each framework is like.
    pub frameworks: Vec<Character>,
    /// How long things go wrong.
    pub length: Duration,
    /// What goes wrong with nodes, network, disks and clocks.
    pub faults: Faults,
    /// What goes wrong on machines.
    pub troubles: Troubles,
    /// Executors killed, a minute.
    pub executor_kills: f64,
    /// Schedulers replaced by another program of their framework, a minute.
    pub failovers: f64,
    /// Syncs that fail on an agent's disk, a minute.
    pub agent_failed_syncs: f64,
    /// What goes wrong with the disks of sandboxes; none in a world whose agents keep all sandboxes.
    pub disks: Option<Disks>,
    /// How long the master waits for an agent that is away.
    pub agent_reregister_timeout: Duration,
    /// Least time between two agents that the master calls unreachable; none without a bound.
    pub removal_distance: Option<Duration>,
    /// When the master takes unanswered offers back.
    pub offer_timeout: Option<Duration>,
    /// What several masters are like; none for a master on its own.
    pub masters: Option<Masters>,
}

/// Several masters, with their registry in a log that they replicate.
#[derive(Debug, Clone, PartialEq)]
pub struct Masters {
    /// How many.
    pub count: usize,
    /// The times of their election.
    pub election: Timing,
    /// Time between pings of an agent.
    pub agent_ping_timeout: Duration,
    /// Disks that are lost with all that is on them, a minute; never those of a majority at once.
    pub lost_disks: f64,
    /// Bits that flip on a disk, a minute, likewise.
    pub flipped_bits: f64,
    /// Syncs that fail, a minute.
    pub failed_syncs: f64,
    /// Disks that are full for a while, a minute.
    pub full_disks: f64,
    /// Agents that an operator marks gone, a minute.
    pub marked_gone: f64,
}

impl Plan {
    /// Draws a run.
    pub fn draw(seed: u64) -> Self {
        // Another source than the world's own, which goes on from the same seed.
        let random = &mut StdRng::seed_from_u64(seed ^ 0x5eed_0f7e_917a_4e55);
        let agents = random.random_range(1..=4);
        let frameworks = random.random_range(1..=3);
        let mut plan = Self {
            seed,
            agents: (0..agents).map(|_| resources(random)).collect(),
            frameworks: (0..frameworks).map(|_| Character::draw(random)).collect(),
            length: Duration::from_secs(random.random_range(30..=150)),
            faults: Faults::draw(random),
            troubles: Troubles {
                launch_fails: share(random, 0.3),
                start_fails: share(random, 0.3),
                destroy_fails: share(random, 0.5),
                executor_hangs: share(random, 0.2),
                kills_at_end: 0.0,
            },
            executor_kills: share(random, 4.0),
            failovers: share(random, 1.0),
            agent_failed_syncs: share(random, 3.0),
            disks: None,
            agent_reregister_timeout: Duration::from_secs([60, 600][random.random_range(0..2)]),
            removal_distance: None,
            offer_timeout: random
                .random_bool(0.5)
                .then(|| Duration::from_secs(random.random_range(5..=30))),
            masters: None,
        };
        let is_quiet = random.random_range(0..20) == 0;
        // A source of its own: seeds that have found something keep the rest of their plan.
        let random = &mut StdRng::seed_from_u64(seed ^ 0x1a57_0a4d_5b0f_7a5c);
        plan.troubles.kills_at_end = share(random, 0.5);
        if random.random_bool(0.5) {
            plan.disks = Some(Disks {
                fills_up: share(random, 3.0),
                removal_fails: share(random, 0.5),
                look_fails: share(random, 0.3),
            });
        }
        plan.removal_distance = removal_distance(seed, 0.3);
        plan.draw_groups();
        if is_quiet {
            plan = plan.without_faults();
        }
        plan
    }

    /// Draws a run with several masters. It is shorter than others: their heartbeats make a second of it long.
    pub fn draw_masters(seed: u64) -> Self {
        let mut plan = Self::draw(seed);
        let random = &mut StdRng::seed_from_u64(seed ^ 0x3a57_e125_0e1e_c7ed);
        plan.length = Duration::from_secs(random.random_range(15..=50));
        // The business of the batch with one master.
        plan.disks = None;
        plan.agent_reregister_timeout =
            Duration::from_secs([10, 60, 600][random.random_range(0..3)]);
        // Agents are called unreachable sooner here, several of them at once when a master is cut off.
        plan.removal_distance = removal_distance(seed, 0.6);
        // In step with each other, as shipped or slower.
        let slower = random.random_range(1..=4);
        let shipped = Timing::default();
        plan.masters = Some(Masters {
            count: 3,
            election: Timing {
                heartbeat: shipped.heartbeat * slower,
                shortest_silence: shipped.shortest_silence * slower,
                longest_silence: shipped.longest_silence * slower,
            },
            agent_ping_timeout: Duration::from_secs([1, 5, 15][random.random_range(0..3)]),
            lost_disks: share(random, 6.0),
            flipped_bits: share(random, 6.0),
            failed_syncs: share(random, 6.0),
            full_disks: share(random, 3.0),
            marked_gone: share(random, 2.0),
        });
        plan
    }

    /// The same in a world in which nothing goes wrong.
    #[must_use]
    pub fn without_faults(mut self) -> Self {
        self.faults = Faults::none();
        self.troubles = Troubles::default();
        self.executor_kills = 0.0;
        self.failovers = 0.0;
        self.agent_failed_syncs = 0.0;
        self.disks = self.disks.map(|_| Disks::default());
        if let Some(masters) = &mut self.masters {
            masters.lost_disks = 0.0;
            masters.flipped_bits = 0.0;
            masters.failed_syncs = 0.0;
            masters.full_disks = 0.0;
            masters.marked_gone = 0.0;
        }
        self
    }
}

impl Plan {
    /// Draws who launches groups of tasks, from a source of its own. Their executors need some disk.
    fn draw_groups(&mut self) {
        let random = &mut StdRng::seed_from_u64(self.seed ^ 0x6709_b0f7_a5c5_0b1e);
        for framework in &mut self.frameworks {
            framework.groups = share(random, 0.8);
        }
        if self.frameworks.iter().any(|one| one.groups > 0.0) {
            for agent in &mut self.agents {
                agent.push_str(";disk:100");
            }
        }
    }

    /// The same in a world without groups of tasks, as it was before there were any.
    #[must_use]
    pub fn without_groups(mut self) -> Self {
        for framework in &mut self.frameworks {
            framework.groups = 0.0;
        }
        for agent in &mut self.agents {
            *agent = agent.trim_end_matches(";disk:100").to_owned();
        }
        self
    }

    /// The same in a world whose agents keep all sandboxes, as it was before they removed any.
    #[must_use]
    pub fn keeping_sandboxes(mut self) -> Self {
        self.disks = None;
        self
    }

    /// The same in a world whose masters take agents out as fast as they like, as it was before some had a bound.
    #[must_use]
    pub fn removing_at_once(mut self) -> Self {
        self.removal_distance = None;
        self
    }
}

/// From a source of its own, as seeds that have found something keep the rest of their plan.
fn removal_distance(seed: u64, share: f64) -> Option<Duration> {
    let random = &mut StdRng::seed_from_u64(seed ^ 0x2a7e_0f12_e3aa_1b5d);
    let distance = Duration::from_secs(random.random_range(5..=60));
    random.random_bool(share).then_some(distance)
}

/// A rate or share up to `most`; none in half of all runs.
fn share(random: &mut StdRng, most: f64) -> f64 {
    if random.random_bool(0.5) {
        most * random.random_range(0.05..1.0)
    } else {
        0.0
    }
}

fn resources(random: &mut StdRng) -> String {
    let cpus = random.random_range(1..=8);
    let mem = random.random_range(2..=16) * 64;
    let first = random.random_range(1..=9) * 1000;
    let last = first + random.random_range(0..=9);
    let mut text = format!("cpus:{cpus};mem:{mem};ports:[{first}-{last}]");
    if random.random_bool(0.3) {
        text.push_str(";cpus(a):1;mem(a):64");
    }
    text
}
