//! Seeds of what masters and agents keep.

use bytes::Bytes;
use meseta_master::log::action::{Action, Position, Proposal, Value};
use meseta_master::log::replica::core::{Change, Metadata};
use meseta_master::log::storage::batch::{Applied, Entry, encode_batch};
use meseta_master::log::storage::journal::{SECTOR, frame, place_of};

use crate::seeds::{Seed, hostile, hostile_within, named, recorded};

/// Bytes of a record before its body, and of a registry's entry.
const RECORD_HEADER: usize = 12;
const ENTRY_HEADER: usize = 3;

/// Bodies of all kinds of records.
pub(crate) fn records() -> Vec<Seed> {
    let kinds = [
        "metadata",
        "append",
        "promise",
        "nop",
        "tombstone",
        "truncate",
        "unknown",
    ];
    let body = |kind: &str| recorded(&format!("{kind}.v1.record")).split_off(RECORD_HEADER);
    let mut seeds: Vec<Seed> = kinds.map(|kind| named(kind, body(kind))).into();
    let applied = Applied {
        through: 7,
        sectors: 16_384,
    };
    let (_, mut applied) = applied.write().unwrap();
    seeds.push(named("applied", applied.split_off(RECORD_HEADER)));
    seeds.push(named("cut", body("metadata").split_off(40)));
    seeds.extend(hostile(&["chosen", "lives", "performed"]));
    seeds
}

fn append(position: u64, entry: &[u8]) -> Change {
    let bytes = Bytes::copy_from_slice(entry);
    let value = Value::Append { bytes };
    Change::Action(Action::learned(Position(position), Proposal(3), value))
}

fn batch(changes: &[Change]) -> Vec<u8> {
    let entries: Vec<Entry> = changes.iter().map(|c| Entry::of(c).unwrap()).collect();
    encode_batch(&entries).unwrap()
}

/// As the store writes them.
pub(crate) fn batches() -> Vec<Seed> {
    let metadata = || Change::Metadata(Metadata::default());
    let forget = Change::Forget { below: Position(9) };
    let all = batch(&[append(9, b"entry"), metadata(), forget.clone()]);
    vec![
        named("nothing", Vec::new()),
        named("one", batch(&[append(1, b"entry")])),
        named("forget", batch(&[forget])),
        named("cut", all[..all.len() - 4].to_vec()),
        named("all", all),
        named("no-kind", vec![3, 0, 0]),
        named("huge-key", b"\x01\xffa".to_vec()),
        named("huge-record", b"\x01\x01a\xff\xff\xff\xffb".to_vec()),
        named("many-empty", b"\x01\0\0\0\0\0".repeat(2_000)),
    ]
}

/// A journal in which these batches stand one behind the other, beginning at a sector.
fn ring(applied: u64, first: u64, batches: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = applied.to_le_bytes().to_vec();
    let mut at = first;
    bytes.resize(8 + usize::try_from(first).unwrap() * SECTOR, 0);
    for (sequence, batch) in batches {
        bytes.extend(frame(*sequence, at, batch).unwrap());
        at += place_of(batch.len());
    }
    bytes
}

/// Whole ones and broken ones.
pub(crate) fn journals() -> Vec<Seed> {
    let small = |sequence| (sequence, batch(&[append(sequence, b"entry")]));
    let long = |sequence| (sequence, batch(&[append(sequence, &[b'x'; 1_200])]));
    let whole = ring(1, 1, &[small(1), long(2), small(3)]);
    let torn = whole[..whole.len() - 2 * SECTOR].to_vec();
    let last = ring(u64::MAX - 1, 0, &[small(u64::MAX)]);
    let mut nothing_before = last.clone();
    nothing_before[..8].fill(0xff);
    vec![
        named("empty", ring(0, 0, &[])),
        named("never-written", ring(7, 3, &[])),
        named("torn", torn),
        named("missing", ring(1, 0, &[small(3), small(4)])),
        named("round", ring(4, 0, &[small(6), small(3), small(5)])),
        named("many", ring(0, 0, &[(1, Vec::new()), (2, Vec::new())])),
        named("whole", whole),
        named("last-number", last),
        named("behind-the-last", nothing_before),
        named("short", b"1234567".to_vec()),
    ]
}

const PAGE: usize = 512;
const NO_PAGE: u64 = u64::MAX;

/// A page with its header; `body` follows the header.
fn page(number: u64, flags: u16, bounds: [u16; 2], body: &[u8]) -> Vec<u8> {
    let mut page = number.to_le_bytes().to_vec();
    for short in [0, flags, bounds[0], bounds[1]] {
        page.extend(short.to_le_bytes());
    }
    page.extend(body);
    page.resize(PAGE, 0);
    page
}

/// A leaf or branch with these nodes, of which each has its size, its flags, its key and what stands behind that.
fn tree_page(number: u64, flags: u16, nodes: &[(u32, u16, &[u8], &[u8])]) -> Vec<u8> {
    let mut offsets: Vec<u8> = Vec::new();
    let mut content: Vec<u8> = Vec::new();
    for (size, node_flags, key, data) in nodes {
        let mut node = size.to_le_bytes().to_vec();
        node.extend(node_flags.to_le_bytes());
        node.extend(u16::try_from(key.len()).unwrap().to_le_bytes());
        node.extend(*key);
        node.extend(*data);
        node.resize(node.len().next_multiple_of(2), 0);
        content.splice(..0, node);
        let place = u16::try_from(PAGE - content.len()).unwrap();
        offsets.extend(place.to_le_bytes());
    }
    let [lower, upper] = [16 + offsets.len(), PAGE - content.len()];
    let bounds = [lower, upper].map(|place| u16::try_from(place).unwrap());
    let mut page = page(number, flags, bounds, &offsets);
    page[upper..].copy_from_slice(&content);
    page
}

/// A tree as a meta page tells of it: flags, depth, pages and entries, root.
fn tree(flags: u16, depth: u16, counts: [u64; 4], root: u64) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(flags.to_le_bytes());
    bytes.extend(depth.to_le_bytes());
    for number in counts {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(root.to_le_bytes());
    bytes
}

fn meta(number: u64, last_page: u64, free: &[u8], main: &[u8]) -> Vec<u8> {
    let mut body = 0xBEEF_C0DE_u32.to_le_bytes().to_vec();
    body.extend(1_u32.to_le_bytes());
    body.extend([0; 16]);
    let mut free = free.to_vec();
    free[..4].copy_from_slice(&u32::try_from(PAGE).unwrap().to_le_bytes());
    body.extend(free);
    body.extend(main);
    body.extend(last_page.to_le_bytes());
    body.extend((5 + number).to_le_bytes());
    page(number, 8, [0, 0], &body)
}

/// Small files as LMDB writes them, with pages of the smallest size, as its pages are read here: a tree of two leaves
/// and a record on pages of its own, and one free page.
pub(crate) fn tables() -> Vec<Seed> {
    let long = vec![b'r'; 700];
    let free_list: Vec<u8> = [1_u64, 8].iter().flat_map(|n| n.to_le_bytes()).collect();
    let free = tree(0x4008, 1, [0, 1, 0, 1], 7);
    let main = tree(0, 2, [1, 2, 2, 3], 4);
    let mut file = [meta(0, 8, &free, &main), meta(1, 8, &free, &main)].concat();
    file.extend(tree_page(
        2,
        2,
        &[(5, 0, b"a", b"first"), (6, 0, b"b", b"second")],
    ));
    let big = 5_u64.to_le_bytes();
    file.extend(tree_page(3, 2, &[(700, 1, b"c", &big)]));
    file.extend(tree_page(4, 1, &[(2, 0, b"", b""), (3, 0, b"c", b"")]));
    let mut overflow = page(5, 4, [2, 0], &[]);
    overflow.truncate(16);
    overflow.extend(&long);
    overflow.resize(2 * PAGE, 0);
    file.extend(overflow);
    file.extend(tree_page(
        7,
        2,
        &[(16, 0, &4_u64.to_le_bytes(), &free_list)],
    ));
    file.extend(page(8, 0, [0, 0], &[]));
    let nothing = tree(0, 0, [0; 4], NO_PAGE);
    let no_free = tree(0x4008, 0, [0; 4], NO_PAGE);
    let empty = [
        meta(0, 1, &no_free, &nothing),
        meta(1, 1, &no_free, &nothing),
    ]
    .concat();
    // A list of free pages that is shorter than its own length, a record that is said to be huge, nodes upon nodes.
    let one = tree(0x4008, 1, [0, 1, 0, 1], 2);
    let short_list = [
        meta(0, 2, &one, &nothing),
        meta(1, 2, &one, &nothing),
        tree_page(2, 2, &[(3, 0, &4_u64.to_le_bytes(), b"abc")]),
    ];
    let leaf = tree(0, 1, [0, 1, 0, 1], 2);
    let huge = [
        meta(0, u64::MAX, &no_free, &leaf),
        meta(1, u64::MAX, &no_free, &leaf),
        tree_page(2, 2, &[(u32::MAX, 1, b"c", &3_u64.to_le_bytes())]),
    ];
    let mut far = huge.clone();
    far[2] = tree_page(2, 2, &[(9, 1, b"c", &(u64::MAX - 1).to_le_bytes())]);
    let mut heap = tree_page(2, 2, &[(400, 0, b"c", &[b'd'; 400])]);
    let place = heap[16..18].to_vec();
    for at in (16..70).step_by(2) {
        heap[at..at + 2].copy_from_slice(&place);
    }
    heap[12] = 70;
    let heap = [
        meta(0, 2, &no_free, &leaf),
        meta(1, 2, &no_free, &leaf),
        heap,
    ];
    vec![
        named("cut", file[..file.len() - 700].to_vec()),
        named("tree", file),
        named("empty", empty),
        named("short-free-list", short_list.concat()),
        named("huge-record", huge.concat()),
        named("far-record", far.concat()),
        named("nodes-upon-nodes", heap.concat()),
    ]
}

/// Entries with their headers and bodies without.
pub(crate) fn registries() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for kind in ["snapshot", "diff"] {
        let entry = recorded(&format!("registry.{kind}.v1"));
        let body = entry[ENTRY_HEADER..].to_vec();
        seeds.push(named(
            &format!("{kind}-body-cut"),
            body[..body.len() / 2].to_vec(),
        ));
        seeds.push(named(&format!("{kind}-body"), body));
        seeds.push(named(kind, entry));
    }
    seeds.push(named("later", vec![2, 0, 1, 0x80]));
    seeds.push(named("no-kind", vec![1, 0, 9, 0x80]));
    let fields = [
        "operations",
        "admitted",
        "gone",
        "machines",
        "quota_configs",
    ];
    seeds.extend(hostile_within("inner", "registry", &fields));
    seeds
}

/// Bodies of an agent's records of each kind, as version 1 has written them.
pub(crate) fn checkpoints() -> Vec<Seed> {
    let text = String::from_utf8(recorded("checkpoint-1.txt")).unwrap();
    let mut seeds = Vec::new();
    for line in text.lines() {
        let (key, digits) = line.split_once(' ').unwrap();
        let digits = digits.as_bytes().chunks(2);
        let bytes = digits.map(|two| std::str::from_utf8(two).unwrap());
        let bytes = bytes.map(|two| u8::from_str_radix(two, 16).unwrap());
        let body: Vec<u8> = bytes.skip(RECORD_HEADER).collect();
        let kind = key.split('/').next().unwrap();
        let half = body[..body.len() / 2].to_vec();
        seeds.push(named(&format!("{kind}-cut"), half));
        seeds.push(named(kind, body));
    }
    let fields = ["resources", "attributes", "capabilities", "labels"];
    seeds.extend(hostile_within("info", "info", &fields));
    seeds
}
