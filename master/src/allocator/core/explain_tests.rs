//! Every reason there is for not being offered something, and that asking changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use meseta_protocol::agent::{AgentInfo, DomainInfo};
use meseta_protocol::framework::{
    FrameworkCapabilities, FrameworkCapability, FrameworkInfo, MinAllocatableQuantities,
    MinAllocatableResources, OfferFilters,
};
use meseta_protocol::offer::Filters;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;
use crate::allocator::core::Config;
use crate::allocator::messages::{
    AddAgent, AddFramework, Allocation, DeactivateAgent, DeactivateFramework, RecoverResources,
    SuppressOffers, UpdateFramework,
};

const NOW: Time = Time(100_000_000_000);

fn books() -> Allocator {
    Allocator::new(Config {
        master_domain: Some(DomainInfo::new("here", "1")),
        ..Config::default()
    })
}

fn in_roles(names: &[&str]) -> FrameworkInfo {
    FrameworkInfo::new("user", "name").in_roles(names.iter().copied())
}

fn capable(names: &[&str], all: &[FrameworkCapability]) -> FrameworkInfo {
    let mut info = in_roles(names);
    info.capabilities = FrameworkCapabilities::of(all.iter().copied());
    info
}

fn add(books: &mut Allocator, id: &str, info: FrameworkInfo) {
    books.add_framework(AddFramework {
        framework_id: id.into(),
        info,
        used: BTreeMap::new(),
        active: true,
        suppressed_roles: BTreeSet::new(),
    });
}

fn add_agent(books: &mut Allocator, id: &str, total: &str) {
    add_agent_with(books, id, total, |_, _| {});
}

fn add_agent_with(
    books: &mut Allocator,
    id: &str,
    total: &str,
    change: impl FnOnce(&mut AgentInfo, &mut BTreeSet<AgentCapability>),
) {
    let mut info = AgentInfo::new(id, total.parse().unwrap());
    let mut capabilities = AgentCapability::ALL.iter().copied().collect();
    change(&mut info, &mut capabilities);
    books.add_agent(AddAgent {
        agent_id: id.into(),
        entry: 0,
        total: info.resources.clone(),
        info,
        capabilities: capabilities.into_iter().collect(),
        used: BTreeMap::new(),
    });
}

fn run(books: &mut Allocator) -> Vec<(FrameworkId, Allocation)> {
    books.nominate_all();
    let served = books.allocate(NOW, &mut StdRng::seed_from_u64(1));
    let each = |(id, all): (FrameworkId, Vec<Allocation>)| {
        all.into_iter().map(move |one| (id.clone(), one))
    };
    served.into_iter().flat_map(each).collect()
}

fn decline(books: &mut Allocator, all: Vec<(FrameworkId, Allocation)>, seconds: f64) {
    for (framework_id, one) in all {
        let back = RecoverResources {
            framework_id,
            agent_id: one.agent_id,
            resources: one.resources,
            filters: Some(Filters::refusing(seconds)),
        };
        books.recover_resources(&back, NOW).unwrap();
    }
}

fn about(id: &str) -> Explain {
    Explain {
        framework_id: id.into(),
        agent_id: None,
        offset: 0,
        limit: MOST_AGENTS,
    }
}

fn explained(books: &mut Allocator, id: &str) -> FrameworkExplained {
    let told = books.explain(&about(id), NOW).unwrap();
    books.check().unwrap();
    told
}

/// The one reason of a framework with one role, on the one agent there is.
fn why(books: &mut Allocator, id: &str) -> Reason {
    let told = explained(books, id);
    let reasons: Vec<_> = told.agents.iter().flat_map(|agent| &agent.roles).collect();
    assert_eq!(reasons.len(), 1, "{told:?}");
    let (_, reason) = reasons[0];
    assert_eq!(
        told.reasons,
        BTreeMap::from([(reason.name().to_owned(), 1)])
    );
    reason.clone()
}

#[test]
fn who_is_not_in_the_books_is_not_explained() {
    assert_eq!(books().explain(&about("f"), NOW), None);
}

#[test]
fn what_the_framework_itself_has_wished_comes_first() {
    let mut books = books();
    add(&mut books, "f", in_roles(&["a"]));
    add_agent(&mut books, "s", "cpus:4;mem:100");
    assert_eq!(why(&mut books, "f"), Reason::NextRun);
    books.suppress_offers(&SuppressOffers {
        framework_id: "f".into(),
        roles: BTreeSet::new(),
    });
    assert_eq!(why(&mut books, "f"), Reason::Suppressed);
    assert!(explained(&mut books, "f").roles[0].suppressed);
    let framework_id = FrameworkId::from("f");
    books.deactivate_framework(&DeactivateFramework { framework_id });
    assert_eq!(why(&mut books, "f"), Reason::FrameworkInactive);
    assert!(!explained(&mut books, "f").active);
}

#[test]
fn a_role_that_was_left_is_shown_while_something_of_it_is_held() {
    let mut books = books();
    add(&mut books, "f", in_roles(&["a"]));
    add_agent(&mut books, "s", "cpus:4;mem:100");
    assert_eq!(run(&mut books).len(), 1);
    books.update_framework(&UpdateFramework {
        framework_id: "f".into(),
        info: in_roles(&["b"]),
        suppressed_roles: BTreeSet::new(),
    });
    let told = explained(&mut books, "f");
    let agent = &told.agents[0];
    assert_eq!(
        agent.roles,
        [
            ("a".into(), Reason::NotSubscribed),
            ("b".into(), Reason::NothingFree)
        ]
    );
    assert_eq!(
        (&*agent.free, &*agent.held),
        ("{}", "cpus(allocated: a):4; mem(allocated: a):100")
    );
}

#[test]
fn an_agent_that_is_away_or_full_offers_nothing() {
    let mut books = books();
    add(&mut books, "f", in_roles(&["a"]));
    add_agent(&mut books, "s", "cpus:4;mem:100");
    run(&mut books);
    assert_eq!(why(&mut books, "f"), Reason::NothingFree);
    let agent_id = "s".into();
    books.deactivate_agent(&DeactivateAgent { agent_id });
    assert_eq!(why(&mut books, "f"), Reason::AgentDisconnected);
}

#[test]
fn what_agent_and_framework_cannot_do_keeps_them_apart() {
    use FrameworkCapability as F;
    type Change = fn(&mut AgentInfo, &mut BTreeSet<AgentCapability>);
    let cases: [(FrameworkInfo, &str, Change, Reason); 6] = [
        (
            in_roles(&["a"]),
            "cpus:4;gpus:1;mem:100",
            |_, _| {},
            Reason::FrameworkLacksGpuResources,
        ),
        (
            in_roles(&["a"]),
            "cpus:4",
            |info, _| info.domain = Some(DomainInfo::new("there", "1")),
            Reason::OtherRegion,
        ),
        (
            capable(&["a"], &[F::MultiRole]),
            "cpus:4",
            |_, can| can.retain(|one| *one != AgentCapability::MultiRole),
            Reason::AgentLacksMultiRole,
        ),
        (
            in_roles(&["a/b"]),
            "cpus:4",
            |_, can| can.retain(|one| *one != AgentCapability::HierarchicalRole),
            Reason::AgentLacksHierarchicalRole,
        ),
        (
            in_roles(&["a"]),
            "cpus(b):4;mem(b):100",
            |_, _| {},
            Reason::NothingForTheRole,
        ),
        (
            in_roles(&["a"]),
            "cpus:0.005;mem:31",
            |_, _| {},
            Reason::TooLittle {
                offer: "cpus:0.005; mem:31".to_owned(),
            },
        ),
    ];
    for (info, total, change, reason) in cases {
        let mut books = books();
        add(&mut books, "f", info);
        add_agent_with(&mut books, "s", total, change);
        assert_eq!(why(&mut books, "f"), reason);
        assert_eq!(run(&mut books).len(), 0, "{reason:?}");
    }
}

#[test]
fn a_framework_may_have_a_smallest_offer_of_its_own() {
    let mut books = books();
    let quantities =
        ResourceQuantities::new().with("cpus", meseta_protocol::resources::Scalar::whole(8));
    let least = MinAllocatableResources {
        quantities: vec![MinAllocatableQuantities { quantities }],
    };
    let mut info = in_roles(&["a"]);
    info.offer_filters = BTreeMap::from([(
        Role::from("a"),
        OfferFilters {
            min_allocatable_resources: Some(least),
        },
    )]);
    add(&mut books, "f", info);
    add(&mut books, "g", in_roles(&["b"]));
    add_agent(&mut books, "s", "cpus:4;mem:100");
    let offer = "cpus:4; mem:100".to_owned();
    assert_eq!(why(&mut books, "f"), Reason::TooLittle { offer });
    let smallest = |books: &mut Allocator, id: &str| {
        let role = explained(books, id).roles.remove(0);
        (role.smallest_offer, role.smallest_is_its_own)
    };
    assert_eq!(smallest(&mut books, "f"), ("cpus:8".to_owned(), true));
    assert_eq!(
        smallest(&mut books, "g"),
        ("cpus:0.01|mem:32".to_owned(), false)
    );
}

#[test]
fn a_refusal_is_told_with_the_time_it_has_left() {
    let mut books = books();
    add(&mut books, "f", in_roles(&["a"]));
    add_agent(&mut books, "s", "cpus:4;mem:100");
    let offers = run(&mut books);
    decline(&mut books, offers, 60.0);
    let offer = "cpus:4; mem:100".to_owned();
    let left = Duration::from_secs(60);
    assert_eq!(
        why(&mut books, "f"),
        Reason::Refused {
            offer: offer.clone(),
            left
        }
    );
    let later = NOW + Duration::from_secs(50);
    let told = books.explain(&about("f"), later).unwrap();
    let left = Duration::from_secs(10);
    let refusal = RefusalExplained {
        role: "a".into(),
        agent_id: "s".into(),
        resources: offer,
        left,
    };
    assert_eq!((told.refusals, told.refusals_in_all), (vec![refusal], 1));
    // Over, though no run has noticed.
    let over = books
        .explain(&about("f"), NOW + Duration::from_secs(61))
        .unwrap();
    assert_eq!((over.refusals_in_all, over.refusals.len()), (0, 0));
}

#[test]
fn whose_turn_comes_before_is_named_with_shares() {
    let mut books = books();
    add(&mut books, "f", in_roles(&["b"]));
    add(&mut books, "g", in_roles(&["a"]));
    add_agent(&mut books, "s", "cpus:4;mem:100");
    let after = Reason::After {
        role: "a".into(),
        framework_id: "g".into(),
    };
    assert_eq!(why(&mut books, "f"), after);
    assert_eq!(why(&mut books, "g"), Reason::NextRun);
    let role = explained(&mut books, "f").roles.remove(0);
    assert_eq!(
        (role.roles_before.count, role.dominant_share, role.weight),
        (1, 0.0, 1.0)
    );
    assert_eq!(role.roles_before.first, [("a".into(), 0.0)]);
    // What was said comes to be.
    let served = run(&mut books);
    assert_eq!(served.len(), 1);
    assert_eq!(served[0].0.as_str(), "g");
    let role = explained(&mut books, "g").roles.remove(0);
    assert_eq!((role.dominant_share, role.framework_share), (1.0, 1.0));
    assert_eq!(role.roles_before.first, [("b".into(), 0.0)]);
}

#[test]
fn of_many_agents_a_page_is_told_and_one_can_be_asked_for() {
    let mut books = books();
    add(&mut books, "f", in_roles(&["a"]));
    for n in 0..30 {
        add_agent(&mut books, &format!("s{n}"), "cpus:4;mem:100");
    }
    let page = Explain {
        offset: 25,
        limit: 10,
        ..about("f")
    };
    let told = books.explain(&page, NOW).unwrap();
    assert_eq!((told.agents.len(), told.agents_in_all), (5, 30));
    assert_eq!(told.reasons, BTreeMap::from([("next_run".to_owned(), 5)]));
    let one = Explain {
        agent_id: Some("s7".into()),
        ..about("f")
    };
    let told = books.explain(&one, NOW).unwrap();
    assert_eq!((told.agents.len(), told.agents_in_all), (1, 1));
    assert_eq!(told.agents[0].agent_id.as_str(), "s7");
    let none = Explain {
        agent_id: Some("s99".into()),
        ..about("f")
    };
    assert_eq!(books.explain(&none, NOW).unwrap().agents_in_all, 0);
}

#[test]
fn of_a_framework_with_many_roles_fewer_agents_are_looked_at() {
    let mut books = books();
    let names: Vec<String> = (0..MOST_LOOKS / 5).map(|n| format!("r{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    add(&mut books, "f", in_roles(&names));
    for n in 0..10 {
        add_agent(&mut books, &format!("s{n}"), "cpus:4;mem:100");
    }
    let told = books.explain(&about("f"), NOW).unwrap();
    assert_eq!((told.agents.len(), told.agents_in_all), (5, 10));
}

#[test]
fn who_else_could_take_an_agent_is_not_looked_for_without_end() {
    let mut books = books();
    for n in 0..200 {
        let mut info = in_roles(&["a"]);
        info.name = n.to_string();
        add(&mut books, &format!("f{n:03}"), info);
    }
    // Nobody before the last takes what it needs a capability for.
    let gpus = [
        FrameworkCapability::MultiRole,
        FrameworkCapability::GpuResources,
    ];
    add(&mut books, "f999", capable(&["a"], &gpus));
    for n in 0..60 {
        add_agent(&mut books, &format!("s{n}"), "cpus:4;gpus:1;mem:100");
    }
    let told = explained(&mut books, "f999");
    let expected = [
        ("next_run", MOST_LOOKS / 200),
        ("waiting", 60 - MOST_LOOKS / 200),
    ];
    let expected = expected.map(|(name, count)| (name.to_owned(), count));
    assert_eq!(told.reasons, BTreeMap::from(expected));
    let before = &told.roles[0].frameworks_before;
    assert_eq!((before.count, before.first.len()), (200, MOST_AHEAD));
}

#[test]
fn asking_changes_nothing_of_what_is_decided() {
    let served = |asks: bool| {
        let mut books = books();
        for n in 0..5 {
            add(&mut books, &format!("f{n}"), in_roles(&["a", "b"]));
        }
        let mut all = Vec::new();
        for n in 0..40 {
            add_agent(&mut books, &format!("s{n}"), "cpus:4;mem:100");
            if asks {
                explained(&mut books, "f3");
            }
            let mut offers = run(&mut books);
            all.extend(
                offers
                    .iter()
                    .map(|(id, one)| format!("{id} {} {}", one.role, one.agent_id)),
            );
            if n % 3 == 0 {
                offers.truncate(1);
                decline(&mut books, offers, 100.0);
            }
        }
        all
    };
    assert_eq!(served(true), served(false));
}
