//! Every message of the API survives both encodings, and every value of the protocol survives the way through them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    clippy::cast_possible_truncation,
    reason = "any bits of a random number will do"
)]

use std::collections::BTreeSet;
use std::fmt::Debug;

use meseta_api::schema::{Field, Kind, Label, MessageType, message, schema};
use meseta_api::style::Style;
use meseta_api::{Format, Tree, from_tree, to_tree};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Choices that follow from a seed.
struct Choices(u64);

impl Choices {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

fn set(
    fields: &mut Vec<(&'static Field, Tree)>,
    of: &'static MessageType,
    name: &str,
    value: Tree,
) {
    fields.push((of.field(name).unwrap(), value));
}

/// A resource whose value is of its type: others are kept as malformed, without what they held.
fn resource_value(
    of: &'static MessageType,
    random: &mut Choices,
    fields: &mut Vec<(&'static Field, Tree)>,
) {
    let kind = of.field("type").unwrap().kind;
    let named = |name| {
        let (name, number) = kind.names().unwrap().named(name).unwrap();
        Tree::Enum(name, number)
    };
    let part = |name: &str| of.field(name).unwrap().kind.message().unwrap();
    if random.below(2) == 0 {
        set(fields, of, "type", named("SCALAR"));
        let value = Tree::Double(f64::from(u32::try_from(random.below(9000)).unwrap()) / 8.0);
        let mut scalar = Vec::new();
        set(&mut scalar, part("scalar"), "value", value);
        set(fields, of, "scalar", Tree::Message(scalar));
    } else {
        set(fields, of, "type", named("RANGES"));
        let range = part("ranges")
            .field("range")
            .unwrap()
            .kind
            .message()
            .unwrap();
        let all = (0..=random.below(3) as u64).map(|n| {
            let mut one = Vec::new();
            set(&mut one, range, "begin", Tree::Uint(n * 10));
            set(&mut one, range, "end", Tree::Uint(n * 10 + 5));
            Tree::Message(one)
        });
        let mut ranges = Vec::new();
        set(
            &mut ranges,
            part("ranges"),
            "range",
            Tree::List(all.collect()),
        );
        set(fields, of, "ranges", Tree::Message(ranges));
    }
}

fn any_message(of: &'static MessageType, random: &mut Choices, depth: usize) -> Tree {
    let mut fields = Vec::new();
    let is_valued = of.name == "mesos.v1.Resource" || of.name == "mesos.v1.Attribute";
    if is_valued {
        resource_value(of, random, &mut fields);
    }
    for field in &of.fields {
        let skipped = [
            "type",
            "scalar",
            "ranges",
            "set",
            "text",
            "role",
            "reservation",
        ];
        if is_valued && skipped.contains(&field.name) {
            continue;
        }
        // The protocol keeps of these volumes only what it can use, and not all that must be there.
        if field.name == "csi_volume" {
            continue;
        }
        // Entries of lists that say nothing are not kept.
        let says_it_all = field.name == "type" || of.name == "mesos.v1.Resource.AllocationInfo";
        let must = field.label == Label::Required || field.default.is_some() || says_it_all;
        if !must && (depth == 0 || random.below(3) == 0) {
            continue;
        }
        fields.push((field, any_field(field, random, depth)));
    }
    Tree::Message(fields)
}

fn any_field(field: &'static Field, random: &mut Choices, depth: usize) -> Tree {
    let mut one = || any_value(field, random, depth.saturating_sub(1));
    match field.label {
        Label::Optional | Label::Required => one(),
        Label::Repeated => Tree::List(vec![one(), one()]),
        Label::Map => Tree::Map(vec![("a".to_owned(), one()), ("b/c".to_owned(), one())]),
    }
}

fn any_value(field: &'static Field, random: &mut Choices, depth: usize) -> Tree {
    match field.kind {
        Kind::Double | Kind::Float => Tree::Double(f64::from(random.next() as i16) / 8.0),
        Kind::Int64 => Tree::Int(random.next() as i64),
        // Ports are numbers of 16 bits in the protocol.
        Kind::Uint32 if field.name == "port" => Tree::Uint(random.next() & 0xffff),
        Kind::Int32 if field.name == "port" => Tree::Int((random.next() & 0xffff) as i64),
        Kind::Int32 => Tree::Int(i64::from(random.next() as i32)),
        Kind::Uint32 => Tree::Uint(u64::from(random.next() as u32)),
        Kind::Uint64 => Tree::Uint(random.next()),
        Kind::Bool => Tree::Bool(random.next() & 1 == 1),
        Kind::Text => Tree::Text(
            random
                .of(&["a", "b c", "é\"\\\n\u{1f600}", "x/y"])
                .to_owned(),
        ),
        Kind::Bytes if field.name == "uuid" => Tree::Bytes(vec![random.next() as u8; 16]),
        Kind::Bytes => Tree::Bytes((0..random.below(9)).map(|_| random.next() as u8).collect()),
        Kind::Enum(_) => {
            let values = &field.kind.names().unwrap().values;
            // Those that stand for nothing known come out as not set.
            let named: Vec<_> = values
                .iter()
                .filter(|(name, _)| !name.ends_with("UNKNOWN"))
                .collect();
            let (name, number) = named[random.below(named.len())];
            Tree::Enum(name, *number)
        }
        Kind::Message(_) => any_message(field.kind.message().unwrap(), random, depth),
    }
}

/// A value that came from a message comes back from what is written of it, in both encodings.
fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, seed: u64) {
    let of = message(name);
    let value: T = from_tree(&any_message(of, &mut Choices(seed), 5)).unwrap();
    let written = to_tree(&value, of).unwrap();
    let at_once = Format::Json.write_value(&value, of, Style::NEWEST).unwrap();
    let at_once: serde_json::Value = serde_json::from_slice(&at_once).unwrap();
    let by_tree: serde_json::Value =
        serde_json::from_slice(&Format::Json.write(&written, of)).unwrap();
    assert_eq!(at_once, by_tree, "{name}");
    for format in [Format::Json, Format::Protobuf] {
        let bytes = format.write(&written, of);
        let read = format.read(&bytes, of).unwrap();
        assert_eq!(
            from_tree::<T>(&read).unwrap(),
            value,
            "{name} as {format:?}"
        );
    }
}

macro_rules! of_the_protocol {
    ($with:ident) => {{
        use meseta_protocol as p;
        $with!(p::task::TaskInfo, "mesos.v1.TaskInfo");
        $with!(p::executor::ExecutorInfo, "mesos.v1.ExecutorInfo");
        $with!(p::framework::FrameworkInfo, "mesos.v1.FrameworkInfo");
        $with!(
            p::framework::OfferConstraints,
            "mesos.v1.scheduler.OfferConstraints"
        );
        $with!(p::status::TaskStatus, "mesos.v1.TaskStatus");
        $with!(p::offer::Offer, "mesos.v1.Offer");
        $with!(p::offer::Filters, "mesos.v1.Filters");
        $with!(p::agent::AgentInfo, "mesos.v1.AgentInfo");
        $with!(p::container::ContainerInfo, "mesos.v1.ContainerInfo");
        $with!(p::container::ContainerStatus, "mesos.v1.ContainerStatus");
        $with!(p::common::CommandInfo, "mesos.v1.CommandInfo");
        $with!(p::resources::Resource, "mesos.v1.Resource");
    }};
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_message_survives_json_and_protobuf(seed: u64) {
        let mut random = Choices(seed);
        let all = schema().messages();
        for _ in 0..20 {
            let at = random.below(all.len());
            let of = message(&all[at].name);
            let node = any_message(of, &mut random, 4);
            for format in [Format::Json, Format::Protobuf] {
                let bytes = format.write(&node, of);
                let read = format.read(&bytes, of);
                prop_assert_eq!(read.as_ref(), Ok(&node), "{} as {:?}", of.name, format);
            }
        }
    }

    #[test]
    fn every_value_of_the_protocol_survives_json_and_protobuf(seed: u64) {
        macro_rules! check {
            ($type:ty, $name:literal) => { survives::<$type>($name, seed) };
        }
        of_the_protocol!(check);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        for name in ["mesos.v1.scheduler.Call", "mesos.v1.executor.Call"] {
            for format in [Format::Json, Format::Protobuf] {
                if let Ok(node) = format.read(&bytes, message(name)) {
                    let again = format.read(&format.write(&node, message(name)), message(name));
                    prop_assert_eq!(again, Ok(node));
                }
            }
        }
    }
}

/// Fields of a message and all below it, set one at a time: those that do not come back.
fn lost<T: Serialize + DeserializeOwned>(name: &str, out: &mut BTreeSet<String>) {
    let of = message(name);
    for seed in 0..40 {
        let node = any_message(of, &mut Choices(seed), 6);
        let value: T = from_tree(&node).unwrap();
        compare(&node, Some(&to_tree(&value, of).unwrap()), of, out);
    }
}

fn compare(
    before: &Tree,
    after: Option<&Tree>,
    of: &'static MessageType,
    out: &mut BTreeSet<String>,
) {
    let Tree::Message(fields) = before else {
        return;
    };
    for (field, value) in fields {
        let there = after.and_then(|after| after.get(field.name));
        match (value, there) {
            // What is not so and what is not said to be so are one.
            (Tree::Bool(false), None) => {}
            (_, None) => {
                out.insert(format!(
                    "{}.{}",
                    of.name.trim_start_matches("mesos.v1."),
                    field.name
                ));
            }
            (Tree::Message(_), there) => compare(value, there, field.kind.message().unwrap(), out),
            (Tree::List(all), Some(Tree::List(there))) => {
                for (one, there) in all.iter().zip(there) {
                    if let Some(inner) = field.kind.message() {
                        compare(one, Some(there), inner, out);
                    }
                }
            }
            _ => {}
        }
    }
}

/// What the protocol does not keep of what clients may say, besides volumes of CSI plug-ins.
const NOT_KEPT: &[&str] = &[
    "ContainerStatus.cgroup_info",
    "Image.Docker.credential",
    "Image.appc",
    "LinuxInfo.ipc_mode",
    "LinuxInfo.seccomp",
    "LinuxInfo.shm_size",
    "URL.fragment",
    "URL.query",
];

#[test]
fn fields_that_the_protocol_does_not_keep_are_known_by_name() {
    let mut out = BTreeSet::new();
    macro_rules! look {
        ($type:ty, $name:literal) => {
            lost::<$type>($name, &mut out)
        };
    }
    of_the_protocol!(look);
    let out: Vec<&str> = out.iter().map(String::as_str).collect();
    assert_eq!(out, NOT_KEPT);
}
