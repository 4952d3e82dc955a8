//! Members of a cluster over a made-up network, with a log that elects uniquely.

use std::collections::BinaryHeap;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

const MS: Duration = Duration::from_millis(1);

enum What {
    Word(Address, Word),
    Ballot,
    Recovered(u64),
    Due,
    /// The fresh master after one that had to end.
    Contend,
}

/// What happens to one member at a time; events of one time in the order in which they were made.
struct Event(Time, u64, usize, What);

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.0, other.1).cmp(&(self.0, self.1))
    }
}

struct World {
    cores: Vec<Core>,
    alive: Vec<bool>,
    /// Pairs of members: nothing comes from the first to the second.
    cuts: BTreeSet<(usize, usize)>,
    loss: f64,
    longest_delay: Duration,
    /// Highest epoch the log has given.
    given: u64,
    /// Who was elected under which epoch, and when.
    elected: Vec<(Time, usize, u64)>,
    /// What each member has announced last.
    announced: Vec<Standing>,
    stepped_down: Vec<(Time, usize, &'static str)>,
    queue: BinaryHeap<Event>,
    /// Of each member, the earliest time for which it will be woken.
    armed: Vec<Option<Time>>,
    number: u64,
    now: Time,
    random: StdRng,
}

fn address(member: usize) -> Address {
    Address::new("10.0.0.1", 5050 + u16::try_from(member).unwrap())
}

fn info(member: usize) -> Box<MasterInfo> {
    Box::new(MasterInfo {
        port: address(member).port,
        ..MasterInfo::default()
    })
}

impl World {
    fn new(members: usize, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let all: Vec<Address> = (0..members).map(address).collect();
        let core = |me| {
            let timing = Timing::default();
            Core::new(address(me), all.clone(), timing, Time::ZERO, &mut random)
        };
        let cores = (0..members).map(core).collect();
        let mut world = Self {
            cores,
            alive: vec![true; members],
            cuts: BTreeSet::new(),
            loss: 0.0,
            longest_delay: 5 * MS,
            given: 0,
            elected: Vec::new(),
            announced: vec![Standing::default(); members],
            stepped_down: Vec::new(),
            queue: BinaryHeap::new(),
            armed: vec![None; members],
            number: 0,
            now: Time::ZERO,
            random,
        };
        for member in 0..members {
            world.step(member, Input::Contend(info(member)));
        }
        world
    }

    fn later(&mut self, delay: Duration, member: usize, what: What) {
        self.number += 1;
        let event = Event(self.now + delay, self.number, member, what);
        self.queue.push(event);
    }

    fn delay(&mut self) -> Duration {
        self.longest_delay.mul_f64(self.random.random::<f64>())
    }

    fn step(&mut self, member: usize, input: Input) {
        let effects = self.cores[member].step(self.now, input, &mut self.random);
        for effect in effects {
            match effect {
                Effect::Say(to, word) => self.say(member, usize::from(to.port - 5050), word),
                Effect::Elect => {
                    let delay = self.delay() + 2 * MS;
                    self.later(delay, member, What::Ballot);
                }
                Effect::Lead(epoch) => {
                    self.elected.push((self.now, member, epoch));
                    let delay = self.delay() + 5 * MS;
                    self.later(delay, member, What::Recovered(epoch));
                }
                Effect::StepDown(why) => {
                    self.stepped_down.push((self.now, member, why));
                    self.later(20 * MS, member, What::Contend);
                }
                Effect::Announce(standing) => self.announced[member] = standing,
            }
        }
        assert_eq!(self.announced[member], self.cores[member].standing);
        if let Some(due) = self.cores[member].due()
            && self.armed[member].is_none_or(|armed| due < armed)
        {
            self.armed[member] = Some(due);
            self.later(due.since(self.now), member, What::Due);
        }
    }

    fn say(&mut self, from: usize, to: usize, word: Word) {
        let lost = self.loss > 0.0 && self.random.random_bool(self.loss);
        if !lost && !self.cuts.contains(&(from, to)) {
            let delay = self.delay();
            self.later(delay, to, What::Word(address(from), word));
        }
    }

    /// Whether the log can elect a member: it hears a quorum of replicas, and they hear it.
    fn log_elects(&self, member: usize) -> bool {
        let near = (0..self.cores.len()).filter(|other| {
            let both = [(member, *other), (*other, member)];
            self.alive[*other] && !both.iter().any(|cut| self.cuts.contains(cut))
        });
        near.count() >= self.cores[member].quorum()
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.queue.peek().is_some_and(|event| event.0 <= end) {
            let Event(at, _, member, what) = self.queue.pop().unwrap();
            self.now = at;
            if !self.alive[member] {
                continue;
            }
            let input = match what {
                What::Word(from, word) => Input::Heard(from, word),
                What::Ballot => {
                    let elected = self.log_elects(member).then(|| {
                        self.given += 1;
                        self.given
                    });
                    Input::Ballot(elected)
                }
                What::Recovered(epoch) => Input::Recovered(epoch),
                What::Contend => Input::Contend(info(member)),
                What::Due => {
                    if self.armed[member] == Some(at) {
                        self.armed[member] = None;
                    }
                    Input::Due
                }
            };
            self.step(member, input);
            for core in &self.cores {
                core.check().unwrap();
            }
        }
        self.now = end;
    }

    /// Members that are elected and have recovered.
    fn leaders(&self) -> Vec<usize> {
        let leads = |member: &usize| self.cores[*member].doing() == "leading";
        let all = 0..self.cores.len();
        all.filter(|member| self.alive[*member])
            .filter(leads)
            .collect()
    }

    /// Runs until one leads and all that live follow it.
    fn settle(&mut self) -> usize {
        for _ in 0..100 {
            self.run(100 * MS);
            let leaders = self.leaders();
            let [leader] = leaders[..] else { continue };
            let follows = |member: usize| {
                let standing = self.cores[member].standing();
                let known = standing.leader.as_ref().map(|(address, _)| address);
                !self.alive[member] || known == Some(&address(leader))
            };
            if (0..self.cores.len()).all(follows) {
                return leader;
            }
        }
        panic!("nobody leads after {}: {:?}", self.now, self.elected);
    }

    fn kill(&mut self, member: usize) {
        self.alive[member] = false;
    }

    fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    fn cut_off(&mut self, member: usize) {
        for other in 0..self.cores.len() {
            self.cut(member, other);
            self.cut(other, member);
        }
    }
}

#[test]
fn one_member_alone_is_elected_at_once_and_stays() {
    let mut world = World::new(1, 1);
    world.run(20 * MS);
    assert_eq!(world.leaders(), [0]);
    world.run(Duration::from_secs(60));
    assert_eq!((world.leaders(), world.elected.len()), (vec![0], 1));
}

#[test]
fn quorum_is_more_than_half_of_odd_and_even_numbers() {
    let quorums = [1, 2, 3, 4, 5, 6, 7].map(|members| World::new(members, 1).cores[0].quorum());
    assert_eq!(quorums, [1, 2, 2, 3, 3, 4, 4]);
}

#[test]
fn when_the_leader_dies_another_leads_within_two_seconds() {
    for seed in 0..50 {
        let mut world = World::new(3, seed);
        let first = world.settle();
        world.kill(first);
        world.run(Duration::from_secs(2));
        let leaders = world.leaders();
        assert!(leaders.len() == 1 && leaders[0] != first, "seed {seed}");
        assert!(world.elected.last().unwrap().2 > world.elected[0].2);
    }
}

#[test]
fn a_leader_that_nobody_answers_gives_up_within_700_ms() {
    for seed in 0..50 {
        let mut world = World::new(3, seed);
        let leader = world.settle();
        let others: Vec<usize> = (0..3).filter(|member| *member != leader).collect();
        // It is heard, but hears nobody.
        others.iter().for_each(|other| world.cut(*other, leader));
        let before = world.now;
        world.run(700 * MS);
        let (at, who, why) = *world.stepped_down.last().unwrap();
        assert_eq!(
            (who, why),
            (leader, "it has lost contact with a quorum"),
            "seed {seed}"
        );
        assert!(at.since(before) >= 550 * MS, "seed {seed}");
        world.run(Duration::from_secs(3));
        assert_eq!(world.leaders().len(), 1, "seed {seed}");
        assert_ne!(world.leaders(), [leader], "seed {seed}");
    }
}

#[test]
fn who_does_not_hear_the_leader_does_not_disturb_it() {
    for seed in 0..50 {
        for one_way in [true, false] {
            let mut world = World::new(3, seed);
            let leader = world.settle();
            let deaf = (leader + 1) % 3;
            world.cut(leader, deaf);
            if !one_way {
                world.cut(deaf, leader);
            }
            let (elections, falls) = (world.elected.len(), world.stepped_down.len());
            world.run(Duration::from_secs(10));
            assert_eq!(world.leaders(), [leader], "seed {seed}");
            let now = (world.elected.len(), world.stepped_down.len());
            assert_eq!(now, (elections, falls), "seed {seed}");
        }
    }
}

#[test]
fn who_comes_back_from_a_partition_follows_and_does_not_disturb() {
    let mut world = World::new(5, 3);
    let leader = world.settle();
    let away = (leader + 1) % 5;
    world.cut_off(away);
    world.run(Duration::from_secs(5));
    world.cuts.clear();
    let elections = world.elected.len();
    world.run(Duration::from_secs(2));
    assert_eq!(world.settle(), leader);
    assert_eq!(world.elected.len(), elections);
}

#[test]
fn a_minority_elects_nobody() {
    let mut world = World::new(4, 5);
    let leader = world.settle();
    world.kill(leader);
    world.kill((leader + 1) % 4);
    world.run(Duration::from_secs(10));
    assert_eq!(world.leaders(), Vec::<usize>::new());
}

#[test]
fn an_older_leader_that_hears_of_a_newer_one_steps_down() {
    let mut world = World::new(3, 1);
    let leader = world.settle();
    let epoch = world.cores[leader].standing().epoch;
    let other = address((leader + 1) % 3);
    let newer = Word::PreVote(PreVote {
        round: 9,
        epoch: epoch + 1,
    });
    world.step(leader, Input::Heard(other.clone(), newer));
    assert_eq!(
        world.stepped_down.last().map(|(_, _, why)| *why),
        Some("another master was elected")
    );
    // What an older leader says is answered with the newer number, and not followed.
    let old = Heartbeat {
        epoch,
        sent: Time(7),
        leader: Some(info((leader + 1) % 3)),
    };
    let (now, mut random) = (world.now, StdRng::seed_from_u64(1));
    let heard = Input::Heard(other.clone(), Word::Heartbeat(old));
    let effects = world.cores[leader].step(now, heard, &mut random);
    let ack = HeartbeatAck {
        epoch: epoch + 1,
        sent: Time(7),
    };
    assert_eq!(effects, [Effect::Say(other, Word::HeartbeatAck(ack))]);
    assert_eq!(world.cores[leader].standing().leader, None);
}

#[test]
fn nobody_is_announced_before_its_master_has_recovered() {
    let mut random = StdRng::seed_from_u64(1);
    let mut core = Core::new(
        address(0),
        [address(0)],
        Timing::default(),
        Time::ZERO,
        &mut random,
    );
    let elect = core.step(Time::ZERO, Input::Contend(info(0)), &mut random);
    assert_eq!(elect, [Effect::Elect]);
    let nobody = Standing {
        epoch: 7,
        leader: None,
    };
    let elected = core.step(Time::ZERO, Input::Ballot(Some(7)), &mut random);
    assert_eq!(elected, [Effect::Announce(nobody), Effect::Lead(7)]);
    assert_eq!(core.step(Time::ZERO, Input::Recovered(6), &mut random), []);
    let me = Standing {
        epoch: 7,
        leader: Some((address(0), info(0))),
    };
    let recovered = core.step(Time::ZERO, Input::Recovered(7), &mut random);
    assert_eq!(recovered, [Effect::Announce(me)]);
    let ended = core.step(Time::ZERO, Input::Withdraw, &mut random);
    assert!(ended.contains(&Effect::StepDown("the master has ended")));
    assert_eq!(core.doing(), "waiting");
}

#[test]
fn a_stranger_is_not_heard() {
    let mut world = World::new(3, 1);
    world.settle();
    let heartbeat = Heartbeat {
        epoch: 99,
        sent: Time::ZERO,
        leader: None,
    };
    let input = Input::Heard(address(9), Word::Heartbeat(heartbeat));
    let mut random = StdRng::seed_from_u64(1);
    assert_eq!(world.cores[0].step(world.now, input, &mut random), []);
    assert!(world.cores[0].standing().epoch < 99);
}

#[derive(Debug, Clone)]
enum Trouble {
    Cut(usize, usize),
    CutOff(usize),
    Heal,
    Kill(usize),
    Loss(u8),
    Delay(u16),
}

fn trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        (0usize..5, 0usize..5).prop_map(|(from, to)| Trouble::Cut(from, to)),
        (0usize..5).prop_map(Trouble::CutOff),
        Just(Trouble::Heal),
        (0usize..5).prop_map(Trouble::Kill),
        (0u8..60).prop_map(Trouble::Loss),
        (0u16..250).prop_map(Trouble::Delay),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens to the network, each epoch has at most one leader; and once a majority is connected again,
    /// somebody leads within bounded time.
    #[test]
    fn one_leader_for_each_epoch_and_one_in_the_end(
        members in 1usize..6,
        seed in 0u64..1_000_000,
        troubles in proptest::collection::vec((trouble(), 1u64..1500), 0..12),
    ) {
        let mut world = World::new(members, seed);
        for (trouble, after) in troubles {
            world.run(Duration::from_millis(after));
            match trouble {
                Trouble::Cut(from, to) if from != to => world.cut(from % members, to % members),
                Trouble::Cut(..) => {}
                Trouble::CutOff(member) => world.cut_off(member % members),
                Trouble::Heal => world.cuts.clear(),
                Trouble::Kill(member) => {
                    let quorum = world.cores[0].quorum();
                    let left = world.alive.iter().filter(|alive| **alive).count();
                    if left > quorum {
                        world.kill(member % members);
                    }
                }
                Trouble::Loss(percent) => world.loss = f64::from(percent) / 100.0,
                Trouble::Delay(most) => world.longest_delay = u32::from(most) * MS,
            }
        }
        world.cuts.clear();
        world.loss = 0.0;
        world.longest_delay = 5 * MS;
        world.settle();
        let epochs: BTreeSet<u64> = world.elected.iter().map(|(_, _, epoch)| *epoch).collect();
        prop_assert_eq!(epochs.len(), world.elected.len());
        // What somebody has said before the network was well again may still depose a leader.
        world.run(250 * MS);
        world.settle();
        let stable = world.elected.len();
        world.run(Duration::from_secs(5));
        prop_assert_eq!(world.elected.len(), stable, "a healthy cluster keeps its leader");
    }
}
