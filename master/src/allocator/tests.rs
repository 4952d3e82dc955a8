//! What the allocator does, told through its books and through the process.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meseta_protocol::agent::{AgentCapability, AgentInfo, DomainInfo};
use meseta_protocol::framework::{
    FrameworkCapability, FrameworkInfo, MinAllocatableQuantities, MinAllocatableResources,
    OfferFilters,
};
use meseta_protocol::offer::Filters;
use meseta_protocol::resources::{Reservation, Resource, Resources, Scalar};
use meseta_protocol::{AgentId, FrameworkId, Role};
use meseta_runtime::Time;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::messages::*;
use super::{Allocation, Allocator, Config, parse_min_allocatable};

/// Books under test: every step is followed by a check.
struct World {
    books: Allocator,
    now: Time,
    random: StdRng,
    /// Offers not yet answered.
    offers: Vec<(FrameworkId, Allocation)>,
}

fn resources(text: &str) -> Resources {
    text.parse().unwrap()
}

fn roles(names: &[&str]) -> BTreeSet<Role> {
    names.iter().copied().map(Role::from).collect()
}

fn framework(names: &[&str]) -> FrameworkInfo {
    FrameworkInfo::new("user", "name").in_roles(names.iter().copied())
}

fn agent_capabilities() -> BTreeSet<AgentCapability> {
    AgentCapability::ALL.iter().copied().collect()
}

impl World {
    fn new(config: Config) -> Self {
        Self {
            books: Allocator::new(config),
            now: Time::ZERO + Duration::from_secs(100),
            random: StdRng::seed_from_u64(1),
            offers: Vec::new(),
        }
    }

    fn check(&self) {
        self.books.check().unwrap();
    }

    fn add_framework(&mut self, id: &str, info: FrameworkInfo) {
        self.books.add_framework(AddFramework {
            framework_id: id.into(),
            info,
            used: BTreeMap::new(),
            active: true,
            suppressed_roles: BTreeSet::new(),
        });
        self.check();
    }

    fn add_agent(&mut self, id: &str, total: &str) {
        self.add_agent_info(
            id,
            AgentInfo::new(id, resources(total)),
            agent_capabilities(),
        );
    }

    fn add_agent_info(
        &mut self,
        id: &str,
        info: AgentInfo,
        capabilities: BTreeSet<AgentCapability>,
    ) {
        self.books.add_agent(AddAgent {
            agent_id: id.into(),
            entry: 0,
            total: info.resources.clone(),
            info,
            capabilities: capabilities.into_iter().collect(),
            used: BTreeMap::new(),
        });
        self.check();
    }

    /// A run over the candidates; prints what each framework got.
    fn run(&mut self) -> Vec<String> {
        let offers = self.books.allocate(self.now, &mut self.random);
        self.check();
        let mut shown = Vec::new();
        for (id, allocations) in offers {
            for allocation in allocations {
                let plain = allocation.resources.unallocated();
                let Allocation { role, agent_id, .. } = &allocation;
                shown.push(format!("{id} as {role} on {agent_id}: {plain}"));
                self.offers.push((id.clone(), allocation));
            }
        }
        shown.sort();
        shown
    }

    fn batch(&mut self) -> Vec<String> {
        self.books.nominate_all();
        self.run()
    }

    fn recover(&mut self, id: &FrameworkId, what: &Allocation, filters: Option<Filters>) {
        let message = RecoverResources {
            framework_id: id.clone(),
            agent_id: what.agent_id.clone(),
            resources: what.resources.clone(),
            filters,
        };
        self.books.recover_resources(&message, self.now).unwrap();
        self.check();
    }

    fn decline_all(&mut self, refuse_seconds: f64) {
        for (id, offer) in std::mem::take(&mut self.offers) {
            self.recover(&id, &offer, Some(Filters::refusing(refuse_seconds)));
        }
    }

    fn pass(&mut self, seconds: f64) {
        self.now = self.now + Duration::from_secs_f64(seconds);
    }

    fn revive(&mut self, id: &str, names: &[&str]) {
        self.books.revive_offers(&ReviveOffers {
            framework_id: id.into(),
            roles: roles(names),
        });
        self.check();
    }

    fn suppress(&mut self, id: &str, names: &[&str]) {
        self.books.suppress_offers(&SuppressOffers {
            framework_id: id.into(),
            roles: roles(names),
        });
        self.check();
    }
}

#[test]
fn a_whole_agent_goes_to_one_framework() {
    let mut world = World::new(Config::default());
    world.add_framework("f1", framework(&["a"]));
    world.add_framework("f2", framework(&["a"]));
    world.add_agent("s1", "cpus:4;mem:100;ports:[1-9]");
    assert_eq!(world.run(), ["f1 as a on s1: cpus:4; mem:100; ports:[1-9]"]);
    assert_eq!(world.batch(), [""; 0]);
}

#[test]
fn frameworks_get_equal_shares_and_roles_by_weight() {
    let weights = BTreeMap::from([(Role::from("heavy"), 2.0)]);
    let mut world = World::new(Config {
        weights,
        ..Config::default()
    });
    world.add_framework("f1", framework(&["a"]));
    world.add_framework("f2", framework(&["a"]));
    world.add_framework("f3", framework(&["heavy"]));
    for n in 0..120 {
        world.add_agent(&format!("s{n}"), "cpus:1;mem:100");
    }
    let served = world.run();
    let count = |id: &str| served.iter().filter(|line| line.starts_with(id)).count();
    assert_eq!((count("f1"), count("f2"), count("f3")), (20, 20, 80));
}

#[test]
fn a_decline_hides_what_was_declined_until_it_ends() {
    let mut world = World::new(Config::default());
    world.add_framework("f1", framework(&["a", "b"]));
    world.add_agent("s1", "cpus:4;mem:100");
    assert_eq!(world.run().len(), 1);
    world.decline_all(5.0);
    // The other role has not declined.
    assert_eq!(world.batch(), ["f1 as b on s1: cpus:4; mem:100"]);
    world.decline_all(3.0);
    assert_eq!(world.batch(), [""; 0]);
    world.pass(3.0);
    assert_eq!(
        world.batch(),
        [""; 0],
        "it still holds at the very moment of its end"
    );
    world.pass(0.001);
    assert_eq!(world.batch(), ["f1 as b on s1: cpus:4; mem:100"]);
    world.decline_all(0.0);
    assert_eq!(world.batch().len(), 1, "0 seconds refuse nothing");
    world.decline_all(100.0);
    world.pass(10.0);
    assert_eq!(world.batch(), ["f1 as a on s1: cpus:4; mem:100"]);
}

#[test]
fn a_refusal_lasts_an_interval_at_least_and_more_resources_get_through() {
    let mut world = World::new(Config::default());
    world.add_framework("f1", framework(&["a"]));
    world.add_agent("s1", "cpus:4;mem:100");
    world.run();
    world.decline_all(0.1);
    world.pass(0.9);
    assert_eq!(world.batch(), [""; 0]);
    world.books.update_agent(UpdateAgent {
        agent_id: "s1".into(),
        info: AgentInfo::new("s1", Resources::new()),
        total: resources("cpus:5;mem:100"),
    });
    world.check();
    assert_eq!(world.run(), ["f1 as a on s1: cpus:5; mem:100"]);
}

#[test]
fn revive_deactivation_and_new_attributes_void_refusals() {
    let mut world = World::new(Config::default());
    world.add_framework("f1", framework(&["a"]));
    world.add_agent("s1", "cpus:4;mem:100");
    assert_eq!(world.run().len(), 1);
    world.decline_all(1e6);
    assert_eq!(world.batch(), [""; 0]);
    world.revive("f1", &[]);
    assert_eq!(world.run().len(), 1);
    world.decline_all(1e6);
    world.revive("f1", &["other"]);
    assert_eq!(world.run(), [""; 0]);
    let framework_id = FrameworkId::from("f1");
    let deactivate = DeactivateFramework {
        framework_id: framework_id.clone(),
    };
    world.books.deactivate_framework(&deactivate);
    world.check();
    assert_eq!(world.batch(), [""; 0]);
    world
        .books
        .activate_framework(&ActivateFramework { framework_id });
    assert_eq!(world.run().len(), 1);
    world.decline_all(1e6);
    let mut info = AgentInfo::new("s1", resources("cpus:4;mem:100"));
    info.attributes = meseta_protocol::attributes::parse_attributes("rack:a").unwrap();
    world.books.update_agent(UpdateAgent {
        agent_id: "s1".into(),
        total: info.resources.clone(),
        info,
    });
    assert_eq!(world.run().len(), 1);
}

#[test]
fn suppressed_and_inactive_frameworks_get_nothing() {
    let mut world = World::new(Config::default());
    world.add_framework("f1", framework(&["a", "b"]));
    world.suppress("f1", &["a"]);
    world.add_agent("s1", "cpus:4;mem:100");
    assert_eq!(world.run(), ["f1 as b on s1: cpus:4; mem:100"]);
    world.decline_all(0.0);
    world.suppress("f1", &[]);
    assert_eq!(world.batch(), [""; 0]);
    world.revive("f1", &["a"]);
    assert_eq!(world.run(), ["f1 as a on s1: cpus:4; mem:100"]);
    world.decline_all(0.0);
    let agent_id = AgentId::from("s1");
    world.books.deactivate_agent(&DeactivateAgent {
        agent_id: agent_id.clone(),
    });
    assert_eq!(world.batch(), [""; 0]);
    world.books.activate_agent(&ActivateAgent { agent_id });
    assert_eq!(world.batch().len(), 1);
}

#[test]
fn reservations_go_to_the_role_and_those_below_it() {
    let mut world = World::new(Config::default());
    world.add_framework("child", framework(&["eng/web"]));
    world.add_framework("other", framework(&["ops"]));
    world.add_framework("star", framework(&["*"]));
    world.add_agent("s1", "cpus(eng):4;mem(eng):100");
    assert_eq!(world.run().len(), 1);
    assert!(world.offers[0].0.as_str() == "child");
    world.add_agent("s2", "cpus(eng/web/x):4;mem(eng/web/x):100");
    assert_eq!(world.run(), [""; 0]);
    world.add_framework("below", framework(&["eng/web/x"]));
    assert_eq!(world.run().len(), 1);
    assert_eq!(world.offers[1].0.as_str(), "below");
    world.add_agent("s3", "cpus(ops):1;cpus:2;mem:64");
    let text = world.run().join("\n");
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(
        text.contains("other as ops on s3: cpus(reservations: [(STATIC,ops)]):1"),
        "{text}"
    );
}

#[test]
fn capabilities_decide_what_a_framework_can_be_offered() {
    let gpus = "cpus:4;mem:100;gpus:1";
    let revocable = || {
        let spare = Resource::scalar("cpus", Scalar::whole(2)).as_revocable();
        resources("mem:100") + Resources::from(spare)
    };
    let refined = || {
        let stacked = Resource::scalar("cpus", Scalar::whole(2))
            .reserved_by(Reservation::fixed("a"))
            .reserved_by(Reservation::dynamic("a/b"));
        Resources::from(stacked)
    };
    let mut plain = framework(&["a/b"]);
    plain.capabilities =
        meseta_protocol::framework::FrameworkCapabilities::of([FrameworkCapability::MultiRole]);
    let local = DomainInfo::new("eu", "1");
    let cases: [(Resources, Option<DomainInfo>, FrameworkCapability, usize); 5] = [
        (resources(gpus), None, FrameworkCapability::GpuResources, 0),
        (
            revocable(),
            None,
            FrameworkCapability::RevocableResources,
            1,
        ),
        (
            refined(),
            None,
            FrameworkCapability::ReservationRefinement,
            0,
        ),
        (
            resources("cpus:1"),
            Some(DomainInfo::new("us", "1")),
            FrameworkCapability::RegionAware,
            0,
        ),
        (
            resources("cpus:1"),
            Some(DomainInfo::new("eu", "2")),
            FrameworkCapability::RegionAware,
            1,
        ),
    ];
    for (total, domain, capability, without) in cases {
        let config = Config {
            master_domain: Some(local.clone()),
            ..Config::default()
        };
        let mut world = World::new(config);
        let mut info = AgentInfo::new("s1", total.clone());
        info.domain = domain;
        world.add_framework("f1", plain.clone());
        world.add_agent_info("s1", info, agent_capabilities());
        assert_eq!(world.run().len(), without, "{capability} missing");
        for (_, offer) in &world.offers {
            assert!(offer.resources.revocable().is_empty());
        }
        world.decline_all(0.0);
        world.books.update_framework(&UpdateFramework {
            framework_id: "f1".into(),
            info: plain.clone().capable_of(capability),
            suppressed_roles: BTreeSet::new(),
        });
        world.check();
        assert_eq!(world.batch().len(), 1, "{capability} there");
        assert_eq!(world.offers[0].1.resources.unallocated(), total);
    }
}

#[test]
fn old_agents_are_kept_from_several_and_nested_roles() {
    let mut old_framework = framework(&[]);
    old_framework.capabilities = meseta_protocol::framework::FrameworkCapabilities::default();
    old_framework.role = Some(Role::from("old/er"));
    for (capabilities, info, offers) in [
        (vec![], framework(&["a"]), 0),
        (vec![AgentCapability::MultiRole], framework(&["a"]), 1),
        (vec![AgentCapability::MultiRole], framework(&["a/b"]), 0),
        (vec![], old_framework.clone(), 0),
        (vec![AgentCapability::HierarchicalRole], old_framework, 1),
    ] {
        let mut world = World::new(Config::default());
        world.add_framework("f1", info);
        let agent = AgentInfo::new("s1", resources("cpus:1;mem:64"));
        world.add_agent_info("s1", agent, capabilities.iter().copied().collect());
        assert_eq!(world.run().len(), offers, "{capabilities:?}");
    }
}

#[test]
fn too_small_an_offer_is_not_made() {
    for (total, own, offers) in [
        ("cpus:0.009;mem:31;disk:1000", None, 0),
        ("cpus:0.01", None, 1),
        ("mem:32", None, 1),
        ("mem:32", Some("cpus:1"), 0),
        ("disk:1", Some(""), 1),
        ("cpus:1;mem:10", Some("cpus:1;mem:11|cpus:2"), 0),
        ("cpus:2;mem:10", Some("cpus:1;mem:11|cpus:2"), 1),
    ] {
        let mut world = World::new(Config::default());
        let mut info = framework(&["a"]);
        if let Some(own) = own {
            let alternatives = parse_min_allocatable(own).unwrap().into_iter();
            let quantities = alternatives.map(|quantities| MinAllocatableQuantities { quantities });
            let wishes = OfferFilters {
                min_allocatable_resources: Some(MinAllocatableResources {
                    quantities: quantities.collect(),
                }),
            };
            info.offer_filters.insert("a".into(), wishes);
        }
        world.add_framework("f1", info);
        world.add_agent("s1", total);
        assert_eq!(world.run().len(), offers, "{total} {own:?}");
    }
    assert_eq!(
        parse_min_allocatable("cpus:0.01|mem:32").unwrap(),
        Config::default().min_allocatable
    );
    assert!(parse_min_allocatable("cpus:x").is_err());
}

#[test]
fn a_shared_resource_is_offered_once_a_run_and_stays_free() {
    let volume = Resource::scalar("disk", Scalar::whole(10))
        .reserved_by(Reservation::dynamic("a"))
        .on_disk(meseta_protocol::resources::DiskInfo::persistent(
            "v", "data",
        ))
        .as_shared();
    let mut world = World::new(Config {
        min_allocatable: Vec::new(),
        ..Config::default()
    });
    let info = framework(&["a"]).capable_of(FrameworkCapability::SharedResources);
    world.add_framework("f1", info.clone());
    world.add_framework("f2", info);
    world.add_framework("f3", framework(&["a"]));
    let agent = AgentInfo::new("s1", Resources::from(volume));
    world.add_agent_info("s1", agent, agent_capabilities());
    let owners = |lines: &[String]| lines.iter().map(|l| l[..2].to_owned()).collect::<Vec<_>>();
    assert_eq!(owners(&world.run()), ["f1"]);
    assert_eq!(
        owners(&world.batch()),
        ["f2"],
        "it is there for the next one"
    );
    world.batch();
    world.decline_all(0.0);
}

#[test]
fn an_allocation_names_the_entry_that_it_was_made_on() {
    let mut world = World::new(Config::default());
    let mut enter = |entry| {
        world.books.add_agent(AddAgent {
            agent_id: "s1".into(),
            entry,
            info: AgentInfo::new("s1", Resources::new()),
            capabilities: agent_capabilities().into_iter().collect(),
            total: resources("cpus:4"),
            used: BTreeMap::new(),
        });
    };
    enter(1);
    enter(2);
    world.add_framework("f1", framework(&["a"]));
    let offers = world.books.allocate(world.now, &mut world.random);
    let entries: Vec<u64> = offers
        .iter()
        .flat_map(|(_, all)| all)
        .map(|offer| offer.entry)
        .collect();
    assert_eq!(entries, [2]);
}

#[test]
fn what_agents_report_of_unknown_frameworks_is_claimed_by_them() {
    let mut world = World::new(Config::default());
    let held = resources("cpus:3").allocated(&"a".into());
    world.books.add_agent(AddAgent {
        agent_id: "s1".into(),
        entry: 0,
        info: AgentInfo::new("s1", Resources::new()),
        capabilities: agent_capabilities().into_iter().collect(),
        total: resources("cpus:4"),
        used: BTreeMap::from([("f1".into(), held.clone())]),
    });
    world.check();
    world.add_framework("f2", framework(&["a"]));
    assert_eq!(world.run(), ["f2 as a on s1: cpus:1"]);
    world.books.add_framework(AddFramework {
        framework_id: "f1".into(),
        info: framework(&["b"]),
        used: BTreeMap::from([("s1".into(), held.clone())]),
        active: false,
        suppressed_roles: BTreeSet::new(),
    });
    world.check();
    let share = |world: &World, name: &str| {
        let mut shares = world.books.role_shares();
        shares
            .find(|(role, _)| role.as_str() == name)
            .map(|(_, share)| share)
    };
    assert_eq!(share(&world, "a"), Some(1.0));
    // It holds resources of a role it is not in; removed, it leaves them held.
    world.books.remove_framework(&RemoveFramework {
        framework_id: "f1".into(),
    });
    world.check();
    assert_eq!(share(&world, "a"), Some(0.25));
    assert_eq!(share(&world, "b"), None);
    world.decline_all(0.0);
    assert_eq!(world.batch(), ["f2 as a on s1: cpus:1"]);
    let back = RecoverResources {
        framework_id: "f1".into(),
        agent_id: "s1".into(),
        resources: held,
        filters: None,
    };
    world.books.recover_resources(&back, world.now).unwrap();
    assert_eq!(world.batch(), ["f2 as a on s1: cpus:3"]);
}

#[test]
fn giving_back_more_than_is_held_is_an_error_and_frees_no_more() {
    let mut world = World::new(Config::default());
    world.add_framework("f1", framework(&["a"]));
    world.add_agent("s1", "cpus:4;mem:64");
    world.run();
    let mut back = RecoverResources {
        framework_id: "f1".into(),
        agent_id: "s1".into(),
        resources: resources("cpus:5;mem:64").allocated(&"a".into()),
        filters: None,
    };
    let error = world.books.recover_resources(&back, world.now).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("framework f1 gives back cpus(allocated: a):5; ")
    );
    world.check();
    back.framework_id = "gone".into();
    assert_eq!(world.books.recover_resources(&back, world.now), Ok(()));
    assert_eq!(world.batch(), ["f1 as a on s1: mem:64"]);
}

#[test]
fn equal_seeds_give_equal_offers() {
    let run = || {
        let mut world = World::new(Config::default());
        for f in 0..5 {
            world.add_framework(&format!("f{f}"), framework(&["a", "b"]));
        }
        for s in 0..20 {
            world.add_agent(&format!("s{s}"), "cpus:1;mem:100");
        }
        world.run()
    };
    assert_eq!(run(), run());
}

const FRAMEWORKS: [&str; 4] = ["f0", "f1", "f2", "f3"];
const AGENTS: [&str; 4] = ["s0", "s1", "s2", "s3"];
const ROLES: [&[&str]; 4] = [&["a"], &["a/b", "c"], &["c", "*"], &["a", "a/b"]];
const TOTALS: [&str; 5] = [
    "cpus:4;mem:100",
    "cpus:2;mem:50;ports:[1-5]",
    "cpus(a):1;cpus:3;mem:64",
    "cpus(a/b):1;mem(a):40;disk:7",
    "cpus:0.005;set:{x,y}",
];

#[derive(Debug, Clone)]
enum Step {
    AddFramework(usize, usize, bool),
    RemoveFramework(usize),
    UpdateFramework(usize, usize, bool),
    Active(usize, bool),
    AddAgent(usize, usize),
    UpdateAgent(usize, usize),
    RemoveAgent(usize),
    AgentActive(usize, bool),
    Answer(usize, u8),
    Revive(usize),
    Suppress(usize),
    Weight(usize, u8),
    Batch(u8),
    Run,
}

fn step() -> impl Strategy<Value = Step> {
    let four = || 0usize..4;
    prop_oneof![
        3 => (four(), four(), any::<bool>()).prop_map(|(f, r, a)| Step::AddFramework(f, r, a)),
        1 => four().prop_map(Step::RemoveFramework),
        1 => (four(), four(), any::<bool>()).prop_map(|(f, r, s)| Step::UpdateFramework(f, r, s)),
        1 => (four(), any::<bool>()).prop_map(|(f, a)| Step::Active(f, a)),
        3 => (four(), 0..TOTALS.len()).prop_map(|(s, t)| Step::AddAgent(s, t)),
        1 => (four(), 0..TOTALS.len()).prop_map(|(s, t)| Step::UpdateAgent(s, t)),
        1 => four().prop_map(Step::RemoveAgent),
        1 => (four(), any::<bool>()).prop_map(|(s, a)| Step::AgentActive(s, a)),
        6 => (any::<prop::sample::Index>(), 0u8..4).prop_map(|(o, how)| Step::Answer(o.index(1000), how)),
        1 => four().prop_map(Step::Revive),
        1 => four().prop_map(Step::Suppress),
        1 => (four(), 1u8..4).prop_map(|(r, w)| Step::Weight(r, w)),
        5 => (0u8..8).prop_map(Step::Batch),
        2 => Just(Step::Run),
    ]
}

impl World {
    fn step(&mut self, step: &Step) {
        let id = |f: &usize| FrameworkId::from(FRAMEWORKS[*f]);
        let agent = |s: &usize| AgentId::from(AGENTS[*s]);
        match step {
            Step::AddFramework(f, r, active) => self.books.add_framework(AddFramework {
                framework_id: id(f),
                info: framework(ROLES[*r]),
                used: BTreeMap::new(),
                active: *active,
                suppressed_roles: BTreeSet::new(),
            }),
            Step::RemoveFramework(f) => self.books.remove_framework(&RemoveFramework {
                framework_id: id(f),
            }),
            Step::UpdateFramework(f, r, suppress) => {
                let suppressed = if *suppress { &ROLES[*r][..1] } else { &[] };
                self.books.update_framework(&UpdateFramework {
                    framework_id: id(f),
                    info: framework(ROLES[*r]),
                    suppressed_roles: roles(suppressed),
                });
            }
            Step::Active(f, true) => self.books.activate_framework(&ActivateFramework {
                framework_id: id(f),
            }),
            Step::Active(f, false) => self.books.deactivate_framework(&DeactivateFramework {
                framework_id: id(f),
            }),
            Step::AddAgent(s, t) => {
                // As the master does: an agent that comes back brings what was held on it, or it was removed.
                self.offers.retain(|(_, offer)| offer.agent_id != agent(s));
                self.add_agent(AGENTS[*s], TOTALS[*t]);
            }
            Step::UpdateAgent(s, t) => self.books.update_agent(UpdateAgent {
                agent_id: agent(s),
                info: AgentInfo::new("h", Resources::new()),
                total: resources(TOTALS[*t]),
            }),
            Step::RemoveAgent(s) => {
                self.books.remove_agent(&RemoveAgent { agent_id: agent(s) });
                self.offers.retain(|(_, offer)| offer.agent_id != agent(s));
            }
            Step::AgentActive(s, true) => self
                .books
                .activate_agent(&ActivateAgent { agent_id: agent(s) }),
            Step::AgentActive(s, false) => self
                .books
                .deactivate_agent(&DeactivateAgent { agent_id: agent(s) }),
            Step::Answer(at, how) => {
                if self.offers.is_empty() {
                    return;
                }
                let at = at % self.offers.len();
                let (id, offer) = self.offers.swap_remove(at);
                match how {
                    0 => self.recover(&id, &offer, None),
                    1 => self.recover(&id, &offer, Some(Filters::refusing(0.0))),
                    2 => self.recover(&id, &offer, Some(Filters::refusing(4.0))),
                    _ => {
                        // Half of it is used by a task, the rest comes back.
                        let half = offer.resources.iter().map(|resource| {
                            let amount = resource.amount().map_or(0, Scalar::thousandths);
                            resource.shrunk(Scalar::from_thousandths(amount / 2))
                        });
                        let half: Resources = half.flatten().collect();
                        let kept = &offer.resources - &half;
                        let back = Allocation {
                            resources: half,
                            ..offer.clone()
                        };
                        self.recover(&id, &back, Some(Filters::default()));
                        let kept = Allocation {
                            resources: kept,
                            ..offer
                        };
                        self.offers.push((id, kept));
                    }
                }
            }
            Step::Revive(f) => self.revive(FRAMEWORKS[*f], &[]),
            Step::Suppress(f) => self.suppress(FRAMEWORKS[*f], &[]),
            Step::Weight(r, weight) => self.books.update_weights(UpdateWeights {
                weights: BTreeMap::from([(ROLES[*r][0].into(), f64::from(*weight))]),
            }),
            Step::Batch(seconds) => {
                self.pass(f64::from(*seconds));
                self.batch();
            }
            Step::Run => {
                self.run();
            }
        }
        self.check();
    }
}

proptest! {
    #[test]
    fn the_books_are_right_after_every_step(steps in proptest::collection::vec(step(), 1..80)) {
        let mut world = World::new(Config::default());
        for step in &steps {
            world.step(step);
        }
    }

    /// A decline of R hides O for as long as it lasts exactly when R contains O.
    #[test]
    fn a_refusal_hides_parts_and_nothing_else(r in 0..TOTALS.len(), o in 0..TOTALS.len()) {
        let mut world = World::new(Config { min_allocatable: Vec::new(), ..Config::default() });
        world.add_framework("f1", framework(&["a/b"]));
        world.add_agent("s1", TOTALS[r]);
        world.run();
        world.decline_all(10.0);
        world.step(&Step::Batch(0));
        world.books.update_agent(UpdateAgent {
            agent_id: "s1".into(),
            info: AgentInfo::new("s1", Resources::new()),
            total: resources(TOTALS[o]),
        });
        world.pass(10.0);
        let is_part = resources(TOTALS[r]).contains(&resources(TOTALS[o]));
        prop_assert_eq!(world.batch().is_empty(), is_part);
        world.decline_all(0.0);
        world.pass(0.001);
        prop_assert_eq!(world.batch().len(), 1);
    }
}
