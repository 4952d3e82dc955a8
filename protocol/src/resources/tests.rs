//! Laws and examples of the algebra.

use proptest::prelude::*;

use super::*;
use crate::operation::{Amount, GrowVolume, Operation, OperationAction, ShrinkVolume};

fn parsed(text: &str) -> Resources {
    text.parse().unwrap()
}

fn volume(id: &str, size: i64) -> Resource {
    Resource::scalar("disk", Scalar::whole(size))
        .reserved_by(Reservation::dynamic("r"))
        .on_disk(DiskInfo::persistent(id, "data"))
}

/// Resources that can all be divided, under two reservations and two allocations.
fn divisible() -> impl Strategy<Value = Resource> {
    let value = prop_oneof![
        (1i64..5000).prop_map(|n| Resource::scalar("cpus", Scalar::from_thousandths(n))),
        (1i64..5000).prop_map(|n| Resource::scalar("mem", Scalar::from_thousandths(n))),
        (0u64..30, 0u64..5).prop_map(|(b, n)| Resource::ranges("ports", [(b, b + n)])),
        proptest::sample::subsequence(vec!["a", "b", "c"], 1..3)
            .prop_map(|items| Resource::set("ssd", items)),
    ];
    (value, 0..3, any::<bool>(), any::<bool>()).prop_map(|(resource, layer, taken, revocable)| {
        let resource = match layer {
            0 => resource,
            1 => resource.reserved_by(Reservation::fixed("r")),
            _ => resource.reserved_by(Reservation::dynamic("r").by("ops")),
        };
        let resource = if taken {
            resource.allocated_to("x")
        } else {
            resource
        };
        if revocable {
            resource.as_revocable()
        } else {
            resource
        }
    })
}

/// Resources of which only amounts are drawn, so that sums never overlap as ranges and sets do.
fn amounts() -> impl Strategy<Value = Resources> {
    let only_amounts = |all: Vec<Resource>| {
        all.into_iter()
            .filter(|resource| resource.amount().is_some())
            .collect()
    };
    proptest::collection::vec(divisible(), 0..8).prop_map(only_amounts)
}

fn anything() -> impl Strategy<Value = Resources> {
    let whole = prop_oneof![
        (0..3, 1i64..4).prop_map(|(id, size)| volume(&format!("v{id}"), size)),
        (0..2).prop_map(|_| volume("s", 8).as_shared()),
        (0..2).prop_map(
            |n| Resource::scalar("disk", Scalar::whole(64)).on_disk(DiskInfo {
                source: Some(DiskSource::mount(format!("/mnt/{n}"))),
                ..DiskInfo::default()
            })
        ),
    ];
    let one = prop_oneof![3 => divisible(), 1 => whole];
    proptest::collection::vec(one, 0..8).prop_map(|all| all.into_iter().collect())
}

proptest! {
    #[test]
    fn what_was_added_is_contained_and_can_be_taken_away(a in amounts(), b in amounts()) {
        let sum = &a + &b;
        prop_assert!(sum.contains(&a) && sum.contains(&b));
        prop_assert_eq!(&sum - &b, a.clone());
        prop_assert_eq!(&sum - &a, b);
    }

    #[test]
    fn order_of_adding_does_not_matter(a in anything(), b in anything(), c in anything()) {
        prop_assert_eq!(&a + &b, &b + &a);
        prop_assert_eq!((&a + &b) + &c, &a + &(&b + &c));
    }

    #[test]
    fn sums_contain_their_parts(a in anything(), b in anything()) {
        let sum = &a + &b;
        prop_assert!(sum.contains(&a) && sum.contains(&b) && sum.contains(&sum));
        prop_assert!((&a - &a).is_empty());
    }

    #[test]
    fn amounts_agree_with_a_list_of_thousandths(a in amounts(), b in amounts()) {
        let key = |r: &Resource| format!("{}{:?}{:?}{}", r.name, r.reservations, r.allocation, r.revocable);
        let mut model = BTreeMap::new();
        for resource in a.iter().chain(b.iter()) {
            *model.entry(key(resource)).or_insert(0) += resource.amount().unwrap().thousandths();
        }
        let sum = &a + &b;
        prop_assert_eq!(sum.len(), model.len());
        for resource in sum.iter() {
            prop_assert_eq!(model[&key(resource)], resource.amount().unwrap().thousandths());
        }
    }

    #[test]
    fn quantities_are_additive(a in amounts(), b in amounts()) {
        let of = ResourceQuantities::from_scalars;
        prop_assert_eq!(of(&(&a + &b)), of(&a) + &of(&b));
        prop_assert!((&a + &b).contains_quantities(&of(&a)));
    }

    #[test]
    fn shrinking_stays_within_the_target(a in anything(), cpus in 0i64..6000, disk in 0i64..80) {
        let limits = ResourceLimits::new()
            .with("cpus", Scalar::from_thousandths(cpus))
            .with("disk", Scalar::whole(disk));
        let shrunk = a.shrink_to_limits(&limits);
        prop_assert!(limits.contains(&ResourceQuantities::from_scalars(&shrunk)));
        prop_assert!(a.contains(&shrunk));
        let target = ResourceQuantities::new().with("cpus", Scalar::from_thousandths(cpus));
        let shrunk = a.shrink_to_quantities(&target);
        prop_assert!(target.contains(&ResourceQuantities::from_scalars(&shrunk)));
        prop_assert!(a.contains(&shrunk));
    }

    #[test]
    fn survives_both_encodings(a in anything()) {
        let json = serde_json::to_string(&a).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Resources>(&json).unwrap(), &a);
        let bytes = rmp_serde::to_vec_named(&a).unwrap();
        prop_assert_eq!(&rmp_serde::from_slice::<Resources>(&bytes).unwrap(), &a);
    }

    #[test]
    fn text_is_read_back(cpus in 1i64..9_999_999, begin in 0u64..1000, size in 0u64..100) {
        let resources: Resources = [
            Resource::scalar("cpus", Scalar::from_thousandths(cpus)),
            Resource::ranges("ports", [(begin, begin + size), (5000, 5001)]),
            Resource::set("ssd", ["a", "b"]),
        ].into_iter().collect();
        prop_assert_eq!(parsed(&resources.to_string()), resources);
    }

    #[test]
    fn reserving_and_unreserving_changes_nothing(a in amounts()) {
        let plain = a.filter(Resource::is_unreserved);
        let reserved = plain.push_reservation(&Reservation::dynamic("r").by("p"));
        let there = a.apply(&Operation::reserve(reserved.clone())).unwrap();
        prop_assert!(there.contains(&reserved));
        let back = there.apply(&Operation::unreserve(reserved)).unwrap();
        prop_assert_eq!(back, a);
    }

    #[test]
    fn groups_cover_everything_once(a in anything()) {
        let grouped: Resources = a.reservations().values().sum();
        prop_assert_eq!(grouped + &a.unreserved(), a.clone());
        let taken: Resources = a.allocations().values().sum();
        prop_assert_eq!(taken + &a.filter(|r| r.allocation.is_none()), a);
    }
}

#[test]
fn prints_every_part_in_its_place() {
    let refined = Resource::scalar("cpus", Scalar::whole(1))
        .reserved_by(Reservation::fixed("a"))
        .reserved_by(Reservation::dynamic("a/b").by("ops"))
        .allocated_to("a/b");
    assert_eq!(
        refined.to_string(),
        "cpus(allocated: a/b)(reservations: [(STATIC,a),(DYNAMIC,a/b,ops)]):1"
    );
    assert_eq!(
        volume("v", 64).to_string(),
        "disk(reservations: [(DYNAMIC,r)])[v:data]:64"
    );
    let mut shared = Resources::from(volume("v", 64).as_shared());
    shared += &volume("v", 64).as_shared();
    assert_eq!(
        shared.to_string(),
        "disk(reservations: [(DYNAMIC,r)])[v:data]<SHARED>:64<2>"
    );
    let revocable = Resource::scalar("cpus", Scalar::whole(1)).as_revocable();
    assert_eq!(revocable.to_string(), "cpus{REV}:1");
    assert_eq!(Resources::new().to_string(), "{}");
    assert_eq!(
        parsed("cpus:4;mem:1024;ports:[31000-32000]").to_string(),
        "cpus:4; mem:1024; ports:[31000-32000]"
    );
}

#[test]
fn volumes_only_go_as_a_whole() {
    let all = Resources::from(volume("v", 64));
    assert!(!all.contains(&volume("v", 32).into()));
    assert_eq!(&all - &volume("v", 32), all);
    assert!((&all - &volume("v", 64)).is_empty());
    let two = &all + &volume("v", 64);
    assert_eq!(two.len(), 2);
    assert!(!all.contains(&two) && two.contains(&all));
    assert_eq!(volume("v", 64).shrunk(Scalar::whole(1)), None);
}

#[test]
fn where_a_volume_appears_does_not_matter() {
    let elsewhere = Resource {
        disk: Some(std::sync::Arc::new(DiskInfo::persistent("v", "other"))),
        ..volume("v", 64)
    };
    assert_eq!(elsewhere, volume("v", 64));
    assert_ne!(volume("w", 64), volume("v", 64));
}

#[test]
fn shared_resources_are_counted() {
    let one = Resources::from(volume("v", 64).as_shared());
    let two = &one + &one;
    assert_eq!(two.len(), 1);
    assert!(two.contains(&one) && !one.contains(&two));
    assert_eq!(&two - &one, one);
    assert!((&one - &two).is_empty());
    assert_eq!(two.disk(), Some(Scalar::whole(64)));
}

#[test]
fn roles_decide_what_may_be_given_to_whom() {
    let all = parsed("cpus:1;cpus(a):2;cpus(a/b):4;cpus(a/b/c):8;cpus(x):16");
    let role = Role::from("a/b");
    assert_eq!(all.allocatable_to(&role).cpus(), Some(Scalar::whole(7)));
    assert_eq!(
        all.reserved_to_role_subtree(&role).cpus(),
        Some(Scalar::whole(12))
    );
    assert_eq!(all.reserved(Some(&role)).cpus(), Some(Scalar::whole(4)));
    assert_eq!(all.reserved(None).cpus(), Some(Scalar::whole(30)));
    assert_eq!(all.reservations().len(), 4);
    let taken = all.allocated(&role);
    assert_eq!(taken.allocated_to_role_subtree(&Role::from("a")), taken);
    assert_eq!(taken.unallocated(), all);
    assert_eq!(all.to_unreserved(), parsed("cpus:31"));
}

#[test]
fn finds_pieces_whoever_they_are_reserved_for() {
    let all = parsed("cpus(a):2;cpus:1;cpus(b):4;mem:10");
    assert_eq!(all.find(&parsed("cpus(a):2")), Some(parsed("cpus(a):2")));
    assert_eq!(
        all.find(&parsed("cpus(a):3")),
        Some(parsed("cpus(a):2;cpus:1"))
    );
    assert_eq!(
        all.find(&parsed("cpus:6")),
        Some(parsed("cpus:1;cpus(a):2;cpus(b):3"))
    );
    assert_eq!(all.find(&parsed("cpus:8")), None);
    assert_eq!(all.find(&parsed("cpus:7;mem:11")), None);
}

#[test]
fn flags_are_read_as_text_and_json() {
    let text = "cpus:24;mem:24576;disk:409600;ports:[21000-24000];ssd:{a,b,c}";
    let all = parsed(text);
    assert_eq!(all.cpus(), Some(Scalar::whole(24)));
    assert_eq!(all.ports().unwrap().size(), 3001);
    assert_eq!(all.set("ssd").unwrap().len(), 3);
    assert_eq!(parsed("cpus:1; cpus : 2 ;"), parsed("cpus:3"));
    let json = r#"[{"name":"cpus","type":"SCALAR","scalar":{"value":1.5}},
        {"name":"mem","type":"SCALAR","scalar":{"value":2},"role":"r"}]"#;
    assert_eq!(parsed(json), parsed("cpus:1.5;mem(r):2"));
    let role = Role::from("d");
    assert_eq!(
        Resources::parse_flag("cpus:1;mem(*):2;disk(r):3", &role).unwrap(),
        parsed("cpus(d):1;mem:2;disk(r):3")
    );
    assert_eq!(
        Resources::parse_flag(json, &role).unwrap(),
        parsed("cpus(d):1.5;mem(r):2")
    );
    assert_eq!(
        Resources::parse_flag_entries("gpus:0", &role)
            .unwrap()
            .len(),
        1
    );
    let quantities: ResourceQuantities = "cpus:0.01;mem:32".parse().unwrap();
    assert_eq!(quantities.to_string(), "cpus:0.01; mem:32");
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    for bad in [
        "cpus",
        "cpus:1:2",
        "cpus(r:1",
        "cpus)r(:1",
        "cpus(r/):1",
        "ports:[1-2",
        "ports:[2-1]",
        "ports:[x]",
        "ssd:{a",
        "cpus:NaN",
        "cpus:inf",
        "cpus:1e20",
        "mem:1000000000000.001",
        "cpus:-1",
        "cpus:1e-310",
        "cpus:text",
        "cpus:1;cpus:[1-2]",
        ":1",
        r#"[{"name":"cpus","type":"SCALAR","scalar":{"value":1},"revocable":{}}]"#,
        r#"[{"name":"cpus","type":"SCALAR","scalar":{"value":1},"role":"r","reservation":{}}]"#,
        r#"[{"name":"disk","type":"SCALAR","scalar":{"value":1},"role":"r","disk":{"persistence":{"id":"v"}}}]"#,
        r#"[{"name":"cpus"}]"#,
        "[1]",
    ] {
        assert!(bad.parse::<Resources>().is_err(), "{bad}");
    }
    assert!("mem:1000000000000".parse::<Resources>().is_ok());
    for much in ["cpus:1e20", "cpus:1e999", "cpus:99999999999999999999"] {
        let why = much.parse::<Resources>().unwrap_err().to_string();
        assert!(why.contains("is more than 1000000000000"), "{why}");
    }
    let bad = "cpus:-1e20".parse::<Resources>().unwrap_err().to_string();
    assert!(bad.contains("expecting a number >= 0"), "{bad}");
}

#[test]
fn what_arrives_malformed_is_refused_by_name() {
    for (json, why) in [
        (
            r#"{"name":"cpus","type":"SCALAR","scalar":{"value":-1}}"#,
            "Resource 'cpus:-1' is invalid: Invalid scalar resource: value <= 0",
        ),
        (
            r#"{"name":"","type":"SCALAR","scalar":{"value":1}}"#,
            "Resource ':1' is invalid: Empty resource name",
        ),
        (
            r#"{"name":"cpus","type":"SCALAR","set":{"item":["a"]}}"#,
            "Resource 'cpus:{a}' is invalid: Invalid scalar resource",
        ),
        (
            r#"{"name":"p","type":"RANGES","ranges":{"range":[{"begin":2,"end":1}]}}"#,
            "Resource 'p:[2-1]' is invalid: Invalid ranges resource: begin > end",
        ),
        (
            r#"{"name":"p","type":"RANGES","ranges":{"range":[{"begin":1,"end":3},{"begin":3,"end":4}]}}"#,
            "Resource 'p:[1-3, 3-4]' is invalid: Invalid ranges resource: overlapping ranges",
        ),
        (
            r#"{"name":"s","type":"SET","set":{"item":["a","a"]}}"#,
            "Resource 's:{a, a}' is invalid: Invalid set resource: duplicated elements",
        ),
        (
            r#"{"name":"cpus","type":"SCALAR","scalar":{"value":1},"disk":{"persistence":{"id":"v"}}}"#,
            "Resource 'cpus[v]:1' is invalid: DiskInfo should not be set for cpus resource",
        ),
        (
            r#"{"name":"cpus","type":"SCALAR","scalar":{"value":1},"reservations":[{"type":"DYNAMIC","role":"*"}]}"#,
            "Resource 'cpus(reservations: [(DYNAMIC,*)]):1' is invalid: Invalid reservation: role \"*\" cannot be reserved",
        ),
        (
            r#"{"name":"cpus","type":"SCALAR","scalar":{"value":1},"role":"*","reservation":{"principal":"p"}}"#,
            "Resource 'cpus:1' is invalid: Invalid reservation: role \"*\" cannot be dynamically reserved",
        ),
        (
            r#"{"name":"cpus","type":"SCALAR","scalar":{"value":1},"reservations":[{"type":"STATIC","role":"rr"},{"type":"DYNAMIC","role":"zz"}]}"#,
            "Resource 'cpus(reservations: [(STATIC,rr),(DYNAMIC,zz)]):1' is invalid: Invalid refined reservation: role 'zz' is not a refinement of 'rr'",
        ),
        (
            r#"{"name":"cpus","type":"SCALAR","scalar":{"value":1},"shared":{}}"#,
            "Resource 'cpus<SHARED>:1<1>' is invalid: Only persistent volumes can be shared",
        ),
    ] {
        let list: Resources = serde_json::from_str(&format!("[{json}]")).unwrap();
        let error = list.validate().unwrap_err();
        assert_eq!(error.to_string().replace("<1>", ""), why.replace("<1>", ""));
    }
}

#[test]
fn all_three_formats_mean_the_same() {
    let read = |json: &str| -> Resource {
        let head = r#"{"name":"cpus","type":"SCALAR","scalar":{"value":1},"#;
        serde_json::from_str(&format!("{head}{json}}}")).unwrap()
    };
    let stack = read(r#""reservations":[{"type":"DYNAMIC","role":"r","principal":"p"}]"#);
    let older = read(r#""role":"r","reservation":{"principal":"p"}"#);
    let both = read(
        r#""role":"r","reservation":{"principal":"p"},"reservations":[{"type":"DYNAMIC","role":"r","principal":"p"}]"#,
    );
    assert_eq!(stack, older);
    assert_eq!(stack, both);
    assert_eq!(stack.validate(), Ok(()));
    assert_eq!(
        read(r#""role":"r""#).reservations[0],
        Reservation::fixed("r")
    );
    let disagree = read(r#""role":"x","reservations":[{"type":"STATIC","role":"r"}]"#);
    assert_eq!(disagree.validate(), Err(ResourceError::FormatsDisagree));
}

#[test]
fn volumes_are_made_resized_and_destroyed() {
    let reserved = parsed("cpus:1")
        + &Resource::scalar("disk", Scalar::whole(100)).reserved_by(Reservation::dynamic("r"));
    let made = reserved
        .apply(&Operation::create(volume("v", 64).into()))
        .unwrap();
    assert!(made.contains(&volume("v", 64).into()));
    assert_eq!(made.disk(), Some(Scalar::whole(100)));
    let addition =
        Resource::scalar("disk", Scalar::whole(36)).reserved_by(Reservation::dynamic("r"));
    let grow = OperationAction::GrowVolume(GrowVolume {
        volume: volume("v", 64),
        addition,
    });
    let grown = made.apply(&grow.into()).unwrap();
    assert_eq!(grown, parsed("cpus:1") + &volume("v", 100));
    let shrink = OperationAction::ShrinkVolume(ShrinkVolume {
        volume: volume("v", 100),
        subtract: Amount {
            value: Scalar::whole(36),
        },
    });
    assert_eq!(grown.apply(&shrink.into()).unwrap(), made);
    let destroyed = made
        .apply(&Operation::destroy(volume("v", 64).into()))
        .unwrap();
    assert_eq!(destroyed, reserved);
}

#[test]
fn a_shared_volume_held_elsewhere_is_not_destroyed() {
    let shared = Resources::from(volume("v", 64).as_shared());
    let two = &shared + &shared;
    let destroy = Operation::destroy(shared.clone());
    assert!(two.apply(&destroy).is_err());
    let freed = shared.apply(&destroy).unwrap();
    assert!(freed.persistent_volumes().is_empty() && freed.shared().is_empty());
}

#[test]
fn operations_on_what_is_not_there_are_refused_in_words() {
    let error = parsed("cpus:1")
        .apply(&Operation::unreserve(parsed("cpus(r):1")))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "cpus:1 does not contain cpus(reservations: [(STATIC,r)]):1"
    );
    assert!(parsed("cpus:1").apply(&Operation::launch([])).is_err());
    assert!(
        parsed("cpus:1")
            .apply(&Operation::reserve(parsed("cpus:1")))
            .is_err()
    );
}

#[test]
fn layers_can_be_reserved_one_on_another_in_one_operation() {
    let lower = parsed("cpus:1").push_reservation(&Reservation::dynamic("a"));
    let upper = lower.push_reservation(&Reservation::dynamic("a/b"));
    let both = Operation::reserve(lower + &upper);
    let result = parsed("cpus:2").apply(&both).unwrap();
    assert_eq!(result, parsed("cpus:1") + &upper);
    assert_eq!(upper.pop_reservation().pop_reservation(), parsed("cpus:1"));
}
